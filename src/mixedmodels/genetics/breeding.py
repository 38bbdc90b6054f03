r"""Breeding values: predictions for every individual of a pedigree, with their reliability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.ranef import level_array
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.solver.precision import covariance_diagonal

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["breeding_values"]


def breeding_values(fit: LMMFit, group: str | None = None, column: str | None = None) -> ResultTable:
    r"""Predictions of one random term for all levels, those without records included.

    .. math::
        \mathrm{PEV}_l = Var(\hat b_l - b_l), \qquad
        r^2_l = 1 - \frac{\mathrm{PEV}_l}{A_{ll}\,\sigma_a^2}

    with :math:`A_{ll} = 1 + F_l` for a pedigree; accuracy is r. Variances are taken as known. In generalised
    models effects are those on the scale of the linear predictor (the liability of a threshold trait).

    Parameters
    ----------
    fit : LMMFit or GLMMFit
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
    >>> pedigree = mm.genetics.Pedigree.from_frame(
    ...     {"id": range(1, 9), "sire": [0, 0, 0, 1, 3, 1, 4, 3], "dam": [0, 0, 0, 0, 2, 2, 5, 6]}
    ... )
    >>> data = {"wwg": [4.5, 2.9, 3.9, 3.5, 5.0], "sex": list("mffmm"), "animal": [4, 5, 6, 7, 8]}
    >>> fit = mm.blup("wwg ~ 0 + sex + (1 | animal)", data, known={"animal": pedigree},
    ...               variances={"animal": 20.0, "Residual": 40.0})
    >>> fit.breeding_values("animal")["estimate"].round(3).tolist()
    [0.098, -0.019, -0.041, -0.009, -0.186, 0.177, -0.249, 0.183]
    """
    position = _position(fit, group)
    term = fit._terms[position]
    at = _column(term, column)
    factors = [np.array(factor) for factor in fit._factors]
    scale = fit.sigma**2 if fit._is_linear else 1.0
    variance = scale * float(factors[position][at] @ factors[position][at])
    own = np.ones(term.m) if term.precision is None else covariance_diagonal(term.precision)
    if fit._is_linear:
        pev = scale * fit.solver.random_covariance(factors, position)[:, at, at]
        note = f"variance {variance:.6g}, residual variance {scale:.6g}, taken as known"
    else:
        pev = _generalised_pev(fit, position, at)
        note = f"variance {variance:.6g} on the scale of the linear predictor, taken as known"
    total = variance * own
    reliability = np.clip(1.0 - pev / np.where(total > 0.0, total, np.inf), 0.0, 1.0)
    columns = {
        "id": level_array(term),
        "records": _records(term, at),
        "estimate": np.asarray(fit._b[position])[:, at],
        "std_error": np.sqrt(pev),
        "pev": pev,
        "reliability": reliability,
        "accuracy": np.sqrt(reliability),
    }
    notes = [note]
    if variance == 0.0:
        columns["reliability"] = columns["accuracy"] = np.full(term.m, np.nan)
        notes.append("the variance is estimated as zero: reliability is not defined")
    what = "" if term.k == 1 else f", {term.names[at]}"
    return result_table(f"Predictions for {term.group}{what}", columns, notes, fit._native)


def _generalised_pev(fit: Any, position: int, at: int) -> np.ndarray:
    r"""Prediction error variances in a generalised model, those of the coefficients included.

    .. math:: Var(b \mid y, \hat\psi) + \frac{\partial\hat b}{\partial\gamma}
              V_{\gamma \mid \theta} \frac{\partial\hat b'}{\partial\gamma},

    with the parameters of variances known: those of the random effects and of the dispersion.
    """
    from mixedmodels.fit.glmm_errors import JointErrors

    errors, design = JointErrors(fit), fit.generalised
    free = np.zeros(len(errors.V), dtype=bool)
    for predictor in design.predictors:
        free[predictor.columns] |= predictor.name != "dispersion"
    known = ~free & (errors.V.diagonal() > 0.0)
    across = errors.V[np.ix_(free, known)]
    V = errors.V[np.ix_(free, free)] - across @ np.linalg.lstsq(errors.V[np.ix_(known, known)], across.T)[0]
    moves = errors.moves[position][:, at, free]
    conditional = np.asarray(fit.conditional_covariance(position))[:, at, at]
    return np.asarray(conditional + ((moves @ V) * moves).sum(axis=1))


def _records(term: Any, column: int) -> np.ndarray:
    """Number of rows of the data that touch each level in a column."""
    if term.rows is not None:
        return np.diff(term.rows.tocsc().indptr)[column :: term.k]
    codes = term.codes if term.codes.ndim == 1 else term.codes[:, column]
    return np.bincount(codes[codes >= 0], minlength=term.m)


def _position(fit: LMMFit, group: str | None) -> int:
    """Place of the term that is meant."""
    terms = fit._terms
    related = [i for i, term in enumerate(terms) if term.precision is not None]
    if group is None:
        if len(related) == 1:
            return related[0]
        names = ", ".join(term.group for term in terms)
        raise OptionError(f"name the term whose values are wanted: one of {names}")
    found = [i for i, term in enumerate(terms) if term.group == group]
    if len(found) != 1:
        names = ", ".join(term.group for term in terms)
        raise OptionError(
            f"{group!r} means {'several terms' if found else 'no random term'}; the terms are {names}"
        )
    return found[0]


def _column(term: Any, column: str | None) -> int:
    """Place of the column that is meant."""
    if column is None:
        if term.k == 1 or "(Intercept)" in term.names:
            return 0 if term.k == 1 else term.names.index("(Intercept)")
        raise OptionError(f"name the column of {term.group!r}: one of {', '.join(term.names)}")
    if column not in term.names:
        raise OptionError(f"{term.group!r} has no column {column!r}; it has {', '.join(term.names)}")
    return term.names.index(column)
