"""LOD scores: likelihood ratios in decimal logarithms, as genetics writes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
    """LOD score of a fixed effect by maximum likelihood: `test_fixed` with ``method="lrt"``.

    Parameters
    ----------
    fit : LMMFit
    variable : str
        A term, a coefficient or a variable, as in `LMMFit.test_fixed`.
    component : str, optional
        Linear predictor of a generalised model.

    Returns
    -------
    ResultTable
        term, statistic, df, lod, p_value.

    References
    ----------
    Morton (1955), Am. J. Hum. Genet. 7:277-318.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> from mixedmodels.inference.likelihood.lod import lod
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "dict"))
    >>> lod(fit, "Days")["lod"].round(4).tolist()
    [5.1109]
    """
    from mixedmodels.inference.likelihood.term_tests import test_fixed

    return test_fixed(fit, variable, "lrt", component)
