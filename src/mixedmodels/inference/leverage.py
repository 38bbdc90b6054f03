"""Leverages: the diagonal of the hat matrix of the conditional fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit import values
from mixedmodels.inference.grouping import refuse_function_fit

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.deletion import RowInverse

__all__ = ["leverage", "leverages", "row_pieces"]

_KEPT = 20_000  # rows up to which a fit keeps the pieces


def leverage(fit: LMMFit) -> np.ndarray:
    r"""Diagonal of the hat matrix H of the conditional fitted values, ``y_hat - offset = H (y - offset)``.

    .. math:: H = I - P, \qquad P = V^{-1} - V^{-1}X(X'V^{-1}X)^{-1}X'V^{-1},
        \qquad V = I + W^{1/2} Z \Sigma Z' W^{1/2},

    in rows scaled by the square roots of their weights; the diagonal is the same without the scaling. Its
    sum is the effective number of parameters, between p and p + q (Hodges & Sargent 2001, Biometrika
    88:367-379); a conditional residual has variance ``sigma^2 (1 - h_i) / w_i``.

    Parameters
    ----------
    fit : LMMFit

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


def leverages(fit: LMMFit) -> np.ndarray:
    """Leverages of the rows of the design, shape (nobs,), read-only and kept by the fit."""

    def compute() -> np.ndarray:
        _, diagonal, B, _ = row_pieces(fit)
        vcov = np.asarray(fit._solution.vcov_unscaled)
        return values.readonly(1.0 - diagonal + np.einsum("ni,ij,nj->n", B, vcov, B))

    return fit._once("leverages", compute)


def row_pieces(fit: LMMFit) -> tuple[RowInverse, np.ndarray, np.ndarray, np.ndarray]:
    """`RowInverse`, the diagonal of V^{-1}, ``B = V^{-1}X`` and ``e = Py``, rows scaled by sqrt(weight)."""

    def compute() -> tuple[Any, ...]:
        from mixedmodels.inference.deletion import row_inverse

        refuse_function_fit(fit, "leverage and influence")
        design = fit.design
        inverse = row_inverse(design, [np.array(factor) for factor in fit._factors])
        X = design.X if design.weights is None else design.X * np.sqrt(design.weights)[:, None]
        e = fit._residuals("pearson")
        return inverse, inverse.diagonal(), inverse.times(X), e

    return fit._once("row_pieces", compute) if fit.design.n <= _KEPT else compute()
