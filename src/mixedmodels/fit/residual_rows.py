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
    "PlacedRows",
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

    def draw(normal: np.ndarray, means: np.ndarray) -> np.ndarray:
        out = np.ascontiguousarray((root @ normal.T).T)
        out[:, rows.missing] = np.nan
        return out

    return draw


class PlacedRows:
    """Rows of new data of which some miss a value of the residual structure: theirs is NaN, or covariance 0.

    Parameters
    ----------
    inner : NewRows
        The rows without missing values.
    kept : ndarray of intp
        Their places among the N rows.
    n : int
        N.
    """

    def __init__(self, inner: Any, kept: np.ndarray, n: int) -> None:
        self._inner, self._kept, self.n = inner, kept, n
        self.missing = np.delete(np.arange(n), kept)

    def variances(self, phi: np.ndarray) -> np.ndarray:
        """Variances over sigma^2, shape (N,)."""
        out = np.full(self.n, np.nan)
        out[self._kept] = self._inner.variances(phi)
        return out

    def covariance(self, phi: np.ndarray) -> Any:
        """Covariance among the rows, sparse (N, N)."""
        place = self._place()
        return place @ self._inner.covariance(phi) @ place.T

    def cross(self, phi: np.ndarray) -> Any:
        """Covariance with the rows of the fit, sparse (N, n)."""
        return self._place() @ self._inner.cross(phi)

    def _place(self) -> Any:
        from scipy.sparse import csr_array

        size = self._kept.size
        return csr_array((np.ones(size), (self._kept, np.arange(size))), shape=(self.n, size))


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


def new_columns(fit: StructuredFit, newdata: Any) -> tuple[Any, int]:
    """Columns of the residual structure of a fit in new data: those of the rows in which none is missing.

    Returns
    -------
    columns : ResidualData
        Its `rows` are their places, None for all.
    N : int
        Rows of the new data.

    Raises
    ------
    OptionError
        A model made from matrices.
    DataError
        There is no such column, or a level whose variance is unknown.
    """
    from mixedmodels.frame.residual import read_new

    frame = fit.frame
    state = getattr(frame, "residual", None)
    if state is None:
        raise OptionError("a model made from matrices cannot read new data for its residual structure")
    return read_new(state, newdata, functions=frame.functions, group=fit.residual_structure.group)


def new_residual_rows(
    fit: StructuredFit,
    columns: tuple[Any, int],
    mean: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Any:
    """Rows of new data under the residual structure of a fit: an object with variances and covariances.

    Parameters
    ----------
    fit : StructuredFit
    columns : (ResidualData, int)
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
    data, n = columns
    if data.rows is None:
        return bound.new_rows(data, mean, weights)
    own = [None if values is None else values[data.rows] for values in (mean, weights)]
    return PlacedRows(bound.new_rows(data, *own), data.rows, n)


def forecast(fit: StructuredFit, rows: Any) -> np.ndarray:
    """``E(e_n | y)`` of new rows, shape (N,); NaN where a value of the structure is missing."""
    point = fit._point
    e = (fit.design.y - fit._linear_predictor())[:, None]
    solved = point.whiten_adjoint(point.whiten(e))[:, 0]
    out = rows.cross(np.array(fit.phi)) @ solved
    out[rows.missing] = np.nan
    return out
