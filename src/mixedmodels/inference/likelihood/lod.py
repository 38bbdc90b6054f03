"""LOD scores: likelihood ratios in decimal logarithms, as genetics writes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mixedmodels.inference.table import result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.table import ResultTable

__all__ = ["lod", "lod_of"]


def lod_of(statistic: float) -> float:
    r"""LOD score of a likelihood-ratio statistic T.

    .. math:: \mathrm{LOD} = \log_{10}(L_1/L_0) = T / (2 \ln 10)

    Examples
    --------
    >>> round(lod_of(13.8155), 4)
    3.0
    """
    return statistic / (2.0 * math.log(10.0))


def lod(fit: LMMFit, variable: Any, component: str | None = None) -> ResultTable:
    """LOD score of a fixed effect (`test_fixed` with ``method="lrt"``) or of a random term (`test_random`).

    That of a random term is the one of variance-component linkage: its covariance between individuals is that
    of the genes they share at the place, besides a polygenic term. Its p-value has the boundary mixture.

    Parameters
    ----------
    fit : LMMFit
    variable : str
        A term, a coefficient or a variable, as in `LMMFit.test_fixed`; or a random term such as
        ``"(1 | g)"``, as in `LMMFit.test_random`.
    component : str, optional
        Linear predictor of a generalised model.

    Returns
    -------
    ResultTable
        term, statistic, df, lod, p_value.

    References
    ----------
    Morton (1955), Am. J. Hum. Genet. 7:277-318. Almasy & Blangero (1998), Am. J. Hum. Genet. 62:1198-1211.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> from mixedmodels.inference.likelihood.lod import lod
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "dict"))
    >>> lod(fit, "Days")["lod"].round(4).tolist()
    [5.1109]
    """
    from mixedmodels.inference.likelihood.term_tests import test_fixed, test_random

    if isinstance(variable, str) and "|" in variable and component is None:
        table = test_random(fit, variable, "mixture")
        columns: dict[str, Any] = {name: table[name][1:] for name in ("term", "statistic", "df")}
        columns["lod"] = columns["statistic"] / (2.0 * math.log(10.0))
        columns["p_value"] = table["p_value"][1:]
        criterion = "REML" if fit.is_reml else "ML"
        return result_table(f"LOD score ({criterion}, boundary mixture)", columns, table.notes, fit._native)
    return test_fixed(fit, variable, "lrt", component)
