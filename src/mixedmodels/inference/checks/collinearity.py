"""Collinearity of the fixed effects: variance inflation factors and the condition number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["condition_number", "fixed_terms", "generalised_vif", "inflatable", "vif"]


def vif(fit: LMMFit) -> ResultTable:
    r"""Generalised variance inflation factors of the terms of the fixed part.

    With R the correlation matrix of the estimates without the intercept and t the columns of a term,

    .. math:: \mathrm{GVIF}_t = \frac{|R_{tt}|\,|R_{-t,-t}|}{|R|},

    the squared factor by which the volume of the joint confidence region grows because of the other terms;
    :math:`\mathrm{GVIF}^{1/(2\,df)}` compares terms of different sizes. For one column GVIF is the usual VIF.

    Parameters
    ----------
    fit : LMMFit

    Returns
    -------
    ResultTable
        Columns term, df, gvif, gvif_root.

    Raises
    ------
    OptionError
        No fixed effects beside the intercept.

    Notes
    -----
    Fox & Monette (1992), JASA 87:178-183.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> formula = "Reaction ~ Days + I(Days**2) + (1 | Subject)"
    >>> fit = mm.lmm(formula, mm.load_dataset("sleepstudy", backend="dict"))
    >>> fit.vif()["gvif"].round(2).tolist()
    [13.66, 13.66]
    """
    everything = fixed_terms(fit)
    terms = inflatable(fit, everything)
    held = [label for label in everything if label not in terms]
    if not everything:
        raise OptionError("the model has no fixed effects beside the intercept; there is nothing to inflate")
    if not terms:
        raise OptionError(f"no term has standard errors to compare ({', '.join(held)} are held at values)")
    values = generalised_vif(fit.vcov, list(terms.values()))
    sizes = np.array([columns.stop - columns.start for columns in terms.values()])
    columns: dict[str, Any] = {
        "term": list(terms),
        "df": sizes,
        "gvif": values,
        "gvif_root": values ** (0.5 / sizes),
    }
    notes = []
    if not any(name == "(Intercept)" for name in fit.design.x_names):
        notes.append("there is no intercept: these factors compare with orthogonal, not with centred columns")
    if np.isnan(values).any():
        notes.append("coefficients are restricted to be equal: no joint confidence region to compare")
    if held:
        notes.append(f"left out, as they have no standard errors: {', '.join(held)}")
    return result_table("Variance inflation factors", columns, notes, fit._native)


def fixed_terms(fit: LMMFit) -> dict[str, slice]:
    """Columns of each term of the fixed part, without the intercept and terms that were dropped or held."""
    if fit.formula is None:
        assign = {name: slice(j, j + 1) for j, name in enumerate(fit.design.x_names)}
    else:
        assign = fit.frame.encoding.assign
    variances = np.diagonal(fit.vcov)
    return {
        label: columns
        for label, columns in assign.items()
        if label != "(Intercept)" and columns.stop > columns.start and (variances[columns] != 0.0).all()
    }


def inflatable(fit: LMMFit, terms: dict[str, slice]) -> dict[str, slice]:
    """The terms all of whose coefficients have a standard error."""
    variances = fit.vcov.diagonal()
    return {label: columns for label, columns in terms.items() if (variances[columns] > 0.0).all()}


def generalised_vif(vcov: np.ndarray, terms: list[slice]) -> np.ndarray:
    """GVIF of each slice of columns, from the covariance of all; other columns (the intercept) are left out.

    Examples
    --------
    >>> generalised_vif(np.diag([1.0, 4.0, 9.0]), [slice(1, 2), slice(2, 3)]).tolist()
    [1.0, 1.0]
    """
    chosen = np.concatenate([np.arange(columns.start, columns.stop) for columns in terms])
    owner = np.concatenate([np.full(c.stop - c.start, t) for t, c in enumerate(terms)])
    sd = np.sqrt(np.diagonal(vcov)[chosen])
    R = vcov[np.ix_(chosen, chosen)] / sd / sd[:, None]
    total = np.linalg.slogdet(R)[1]
    if not np.isfinite(total):  # coefficients restricted to be equal
        return np.full(len(terms), np.nan)
    out = []
    for t in range(len(terms)):
        own, others = owner == t, owner != t
        log = np.linalg.slogdet(R[np.ix_(own, own)])[1] + np.linalg.slogdet(R[np.ix_(others, others)])[1]
        out.append(float(np.exp(log - total)))
    return np.array(out)


def condition_number(X: np.ndarray) -> float:
    """Condition number of the columns scaled to length one (Belsley, Kuh & Welsch 1980)."""
    if X.shape[1] == 0:
        return 1.0
    length = np.sqrt(np.einsum("ij,ij->j", X, X))
    gram = (X.T @ X) / length / length[:, None]
    values = np.linalg.eigvalsh(gram)
    if values[0] > 1e-10:
        return float(np.sqrt(values[-1] / values[0]))
    singular = np.linalg.svd(X / length, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0.0 else float("inf")
