"""Leverages: the diagonal of the hat matrix of the conditional fit."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit import values
from mixedmodels.inference.checks.grouping import refuse_function_fit
from mixedmodels.inference.checks.working import working_fit
from mixedmodels.inference.structured_rows import inverse_times_X, row_numbers
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.checks.deletion import RowInverse

__all__ = ["inverse_rows", "leverage", "leverages", "limited_threads", "row_pieces", "scaled_columns"]

_SMALL = 2000  # rows up to which BLAS keeps to one thread by itself


def leverage(fit: Any) -> np.ndarray:
    r"""Diagonal of the hat matrix H of the conditional fitted values, ``y_hat - offset = H (y - offset)``.

    .. math:: H = I - P, \qquad P = V^{-1} - V^{-1}X(X'V^{-1}X)^{-1}X'V^{-1},
        \qquad V = I + W^{1/2} Z \Sigma Z' W^{1/2},

    in rows scaled by the square roots of their weights; the diagonal is the same without the scaling. Its
    sum is the effective number of parameters, between p and p + q (Hodges & Sargent 2001, Biometrika
    88:367-379); a conditional residual has variance ``sigma^2 (1 - h_i) / w_i``. Of generalised models it is
    that of the working linear model (`mixedmodels.inference.checks.working`), W the expected information.

    With structured residuals ``H = I - R P`` in the original rows: its diagonal are the derivatives of the
    fitted values in their own observations.

    Parameters
    ----------
    fit : LMMFit or GLMMFit

    Returns
    -------
    ndarray
        The rows of ``fit.fitted()``; NaN in rows of weight zero.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> h = fit.leverage()
    >>> h[:3].round(4).tolist(), round(float(h.sum()), 2)
    ([0.2293, 0.1697, 0.1268], 29.02)
    """
    return fit._rows(np.array(leverages(fit)))


def leverages(fit: Any) -> np.ndarray:
    """Leverages of the rows of the design, shape (nobs,), read-only and kept by the fit."""

    fit = working_fit(fit)

    def compute() -> np.ndarray:
        refuse_function_fit(fit, "leverage and influence")
        design = fit.design
        if design.residual is not None:
            return values.readonly(row_numbers(fit).leverage)
        rows = [
            term.matrix(design.n) if term.several_levels else (term.codes, _columns(term.Z, design.n))
            for term in design.terms
        ]
        h = fit.solver.predictor_variance(_factors(fit), design.X, rows)
        return values.readonly(h if design.weights is None else h * design.weights)

    with limited_threads(fit):
        return fit._once("leverages", compute)


def row_pieces(fit: LMMFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Diagonal of V^{-1} (n,), ``B = V^{-1}X`` (n, p) and ``e = Py`` (n,), rows scaled by sqrt(weight).

    Rows of structured residuals are not scaled.

    ``B = X + Z Cov(b^ - b, beta^) C^{-1}`` with C the covariance of beta.
    """
    design = fit.design
    if design.residual is not None:
        numbers, B = row_numbers(fit), inverse_times_X(fit)
        fixed = np.einsum("ni,ij,nj->n", B, np.asarray(fit._solution.vcov_unscaled), B, optimize=True)
        return numbers.P + fixed, B, numbers.e
    h = leverages(fit)
    C = np.asarray(fit._solution.vcov_unscaled)
    B = np.array(design.X, dtype=float, order="C")
    length = np.sqrt(np.diagonal(C))
    for term, joint in zip(design.terms, fit.solver.fixed_random_covariance(_factors(fit)), strict=True):
        m, k, p = joint.shape
        slopes = np.linalg.solve(C / length / length[:, None], (joint.reshape(-1, p) / length).T).T / length
        slopes = slopes.reshape(m, k, p)
        if term.several_levels:
            B += term.matrix(design.n) @ slopes.reshape(m * k, p)
        elif term.Z is None:
            B += slopes[:, 0][term.codes]
        else:
            for j in range(k):
                B += term.Z[:, j, None] * slopes[:, j][term.codes]
    if design.weights is not None:
        B *= np.sqrt(design.weights)[:, None]
    return 1.0 - h + np.einsum("ni,ij,nj->n", B, C, B, optimize=True), B, fit._residuals("pearson")


def scaled_columns(fit: LMMFit) -> np.ndarray:
    """X with rows scaled by the square roots of their weights."""
    X, weights = np.asarray(fit.design.X), fit.design.weights
    return X if weights is None else X * np.sqrt(weights)[:, None]


def inverse_rows(fit: LMMFit) -> RowInverse:
    """`RowInverse` of the fit: entries of V^{-1} between rows."""
    from mixedmodels.inference.checks.deletion import row_inverse

    return row_inverse(fit.design, _factors(fit))


def limited_threads(fit: LMMFit) -> Any:
    """One BLAS thread for many small products of a large fit; small ones use one anyway."""
    if fit.design.n <= _SMALL:
        return nullcontext()
    import scipy.linalg  # noqa: F401  (its BLAS is another library, to be held too)

    return one_blas_thread()


def _factors(fit: LMMFit) -> list[np.ndarray]:
    return [np.array(factor) for factor in fit._factors]


def _columns(Z: np.ndarray | None, n: int) -> np.ndarray:
    return np.ones((n, 1)) if Z is None else Z
