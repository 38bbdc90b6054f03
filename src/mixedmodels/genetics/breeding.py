r"""Breeding values: predictions for every individual of a pedigree, with their reliability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.inference.checks.variance_parts import own_variances
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["breeding_values"]


def breeding_values(fit: LMMFit, group: str | None = None, column: str | None = None) -> ResultTable:
    r"""Predictions of one random term for all levels, those without records included.

    .. math::
        \mathrm{PEV}_l = Var(\hat b_l - b_l), \qquad
        r^2_l = 1 - \frac{\mathrm{PEV}_l}{A_{ll}\,\sigma_a^2}

    with :math:`A_{ll} = 1 + F_l` for a pedigree; accuracy is r. Variances are taken as known.

    Parameters
    ----------
    fit : LMMFit
    group : str, optional
        Grouping factor; by default the only one with a known covariance between its levels.
    column : str, optional
        Column of a term with several; by default its only one, or ``"(Intercept)"``.

    Returns
    -------
    ResultTable
        id, records (rows of the data), estimate, std_error (root of pev), pev, reliability, accuracy.

    Raises
    ------
    OptionError
        No such term or column, or several to choose from.

    References
    ----------
    Henderson (1975), Biometrics 31:423-447. Mrode (2014), Linear models for the prediction of animal breeding
    values, 3rd ed., CABI, sections 3.3 and 3.4.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = {"y": [4.5, 2.9, 3.9, 3.5, 5.0], "sex": list("mffmm"), "animal": [4, 5, 6, 7, 8]}
    >>> ids, parents = range(1, 9), {4: (1,), 5: (3, 2), 6: (1, 2), 7: (4, 5), 8: (3, 6)}
    >>> A = mm.genetics.breeding.tabular_relationship(ids, parents)
    >>> fit = mm.blup("y ~ 0 + sex + (1 | animal)", data, known={"animal": (A, list(ids))},
    ...               variances={"animal": 20.0, "Residual": 40.0})
    >>> fit.breeding_values("animal")["estimate"].round(3).tolist()
    [0.098, -0.019, -0.041, -0.009, -0.186, 0.177, -0.249, 0.183]
    """
