r"""Residuals of a structure, ``Var(e) = sigma^2 R``: drawn for any rows, and for rows of new data.

Rows of new data have the covariances ``R_nn`` among themselves and ``R_no`` with the rows of the fit. Given
the data, with :math:`\hat e = y - X\hat\beta - Z\hat b`,

.. math:: E(e_n \mid y) = R_{no} V^{-1} (y - X\hat\beta) = R_{no} R^{-1} \hat e .
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.structured import StructuredFit

__all__ = [
    "Noise",
    "block_root",
    "forecast",
    "new_columns",
    "new_residual_rows",
    "noise_of_rows",
    "own_noise",
]

# Standardised residuals from standard normal numbers (draws, rows) and the conditional means (draws, rows).
Noise = Callable[[np.ndarray, np.ndarray], np.ndarray]


def own_noise(bound: Any, phi: np.ndarray) -> Noise:
    """Residuals over sigma of the rows of a bound structure, drawn from R(phi).

    Where a variance depends on fitted values these are the conditional means of each draw.
    """
    if not bound.needs_fitted:
        point = bound.at(phi)
        return lambda normal, means: point.unwhiten(np.ascontiguousarray(normal.T)).T

    def draw(normal: np.ndarray, means: np.ndarray) -> np.ndarray:
        out = np.empty_like(normal)
        for j, mean in enumerate(means):
            out[j] = bound.with_fitted(mean).at(phi).unwhiten(normal[j][:, None])[:, 0]
        return out

    return draw


def noise_of_rows(rows: Any, phi: np.ndarray) -> Noise:
    """Residuals over sigma of rows of new data (`NewRows` at given fitted values)."""
    root = block_root(rows.covariance(phi))
    return lambda normal, means: (root @ normal.T).T


def block_root(covariance: Any) -> Any:
    """A sparse matrix G with ``G G'`` the covariance, block by block: groups are independent.

    Blocks of equal size are factored together; semi-definite ones by their eigenvalues.

    Parameters
    ----------
    covariance : sparse array, shape (N, N)
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    N = covariance.shape[0]
    covariance = csr_array(covariance)
    count, label = connected_components(covariance, directed=False)
    sizes = np.bincount(label, minlength=count)
    order = np.argsort(label, kind="stable")
    start = np.cumsum(sizes) - sizes
    within = np.empty(N, dtype=np.intp)
    within[order] = np.arange(N) - np.repeat(start, sizes)
    i = np.repeat(np.arange(N), np.diff(covariance.indptr))
    j, values = covariance.indices, covariance.data
    parts = []
    for size in np.unique(sizes):
        (blocks,) = np.nonzero(sizes == size)
        number = np.full(count, -1)
        number[blocks] = np.arange(blocks.size)
        dense = np.zeros((blocks.size, size, size))
        own = number[label[i]] >= 0
        dense[number[label[i[own]]], within[i[own]], within[j[own]]] = values[own]
        try:
            root = np.linalg.cholesky(dense)
        except np.linalg.LinAlgError:
            d, U = np.linalg.eigh(dense)
            if d.size and d.min() < -1e-8 * d.max():
                raise DataError(
                    "the residuals of the new rows have no covariance: two rows of a group may be at the "
                    "same time or place, or it is not positive definite at these parameters"
                ) from None
            root = U * np.sqrt(np.maximum(d, 0.0))[:, None, :]
        rows = order[start[blocks][:, None] + np.arange(size)]
        wide = np.broadcast_to(rows[:, :, None], root.shape), np.broadcast_to(rows[:, None, :], root.shape)
        parts.append((root.ravel(), wide[0].ravel(), wide[1].ravel()))
    if not parts:
        return csr_array((N, N))
    data, row, column = (np.concatenate(piece) for piece in zip(*parts, strict=True))
    return csr_array((data, (row, column)), shape=(N, N))


def new_columns(fit: StructuredFit, newdata: Any) -> Any:
    """Columns of the residual structure of a fit in new data (`ResidualData`).

    Raises
    ------
    OptionError
        A model made from matrices.
    DataError
        A column of the structure is missing or has missing values.
    """
    from mixedmodels.frame.residual import read_new

    frame = fit.frame
    state = getattr(frame, "residual", None)
    if state is None:
        raise OptionError("a model made from matrices cannot read new data for its residual structure")
    return read_new(state, newdata, functions=frame.functions, group=fit.residual_structure.group)


def new_residual_rows(
    fit: StructuredFit, columns: Any, mean: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Any:
    """Rows of new data under the residual structure of a fit: an object with variances and covariances.

    Parameters
    ----------
    fit : StructuredFit
    columns : ResidualData
        Of `new_columns`.
    mean : ndarray, shape (N,), optional
        Predicted values of the rows, for a variance that depends on fitted values.
    weights : ndarray, shape (N,), optional
    """
    bound: Any = fit.residual_structure
    if bound.needs_fitted and mean is not None:
        # a row that cannot be predicted has no variance; any number keeps the others
        mean = np.where(np.isfinite(mean), mean, 1.0)
    if weights is not None:
        weights = np.where(np.isfinite(weights), weights, 1.0)
    return bound.new_rows(columns, mean, weights)


def forecast(fit: StructuredFit, rows: Any) -> np.ndarray:
    """``E(e_n | y)`` of new rows, shape (N,)."""
    point = fit._point
    e = (fit.design.y - fit._linear_predictor())[:, None]
    solved = point.whiten_adjoint(point.whiten(e))[:, 0]
    return rows.cross(np.array(fit.phi)) @ solved
