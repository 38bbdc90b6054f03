r"""Predictions with one matrix Z whose random effects have a covariance given as a function of theta.

With :math:`C = \Lambda M^{-1}\Lambda'`, :math:`\sigma^2 C = \mathrm{Var}(b \mid y, \beta)`,

.. math::
    x'\hat\beta + z'\hat b - x'\beta - z'b = (x - X'WZCz)'(\hat\beta - \beta) + z'(\hat b(\beta) - b),

two uncorrelated parts. Without the effects in the mean, a new observation has effects that the data do not
know, which add :math:`\sigma^2 z'\Lambda\Lambda'z`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.inference.prediction.rows import quadratic_rows

if TYPE_CHECKING:
    from mixedmodels.fit.user import FunctionFit

__all__ = ["predicted_columns"]


def predicted_columns(
    fit: FunctionFit, newdata: Any, effects: bool, offset: Any, weights: np.ndarray | None, whole: bool
) -> dict[str, np.ndarray]:
    """Columns predicted, std_error and, for a new observation (`whole`), prediction_sd.

    Parameters
    ----------
    newdata : None or dict with "X" and "Z"
        None takes the rows of the fit.
    effects : bool
        Whether the mean holds the random effects.
    weights : ndarray, shape (rows,), or None
        Precision weights of new observations.
    """
    design, frame = fit.design, fit.frame
    if newdata is None:
        X, Z, add = design.X, frame.Z, design.offset
    else:
        rows = frame.new_data(newdata, offset=offset, effects=effects or whole)
        X, Z, add = rows.X, rows.terms[0], rows.offset
    mean = X @ fit.beta + (0.0 if add is None else add)
    variance = quadratic_rows(X, fit.vcov)
    scale = fit.sigma**2
    if effects:
        mean = mean + Z @ fit.ranef_arrays()[0].b[:, 0]
        CZ = np.asarray(Z @ (fit.conditional_covariance() / scale))  # rows x q
        W = design.X if design.weights is None else design.X * design.weights[:, None]
        D = X - CZ @ np.asarray(frame.Z.T @ W)
        variance = quadratic_rows(D, fit.vcov) + scale * _row_products(CZ, Z)
    columns = {"predicted": mean, "std_error": np.sqrt(np.maximum(variance, 0.0))}
    if whole:
        if weights is not None and weights.shape != mean.shape:
            raise DataError(f"weights has {weights.shape[0]} values; there are {mean.shape[0]} rows")
        variance = variance + (scale if weights is None else scale / weights)
        if not effects:
            ZL = Z @ frame.covariance.factor(fit.theta)
            variance = variance + scale * _row_products(ZL, ZL)
        columns["prediction_sd"] = np.sqrt(variance)
    return columns


def _row_products(A: Any, B: Any) -> np.ndarray:
    """Sums over the columns of the entrywise product of two dense or sparse matrices, shape (rows,)."""
    product = A.multiply(B) if hasattr(A, "multiply") else B.multiply(A) if hasattr(B, "multiply") else A * B
    return np.asarray(product.sum(axis=1)).ravel()
