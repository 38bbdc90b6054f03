"""Products with a known covariance between levels, from its sparse inverse or the matrix itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.design import KnownCovariance, LowRankCovariance

if TYPE_CHECKING:
    from mixedmodels.design import Precision

__all__ = ["covariance_diagonal", "covariance_times", "same_covariance"]


def covariance_times(between: Precision | KnownCovariance) -> Callable[[np.ndarray], np.ndarray]:
    """A function ``v -> A v`` for arrays of shape (m,) or (m, c).

    Examples
    --------
    >>> covariance_times(KnownCovariance(np.array([[2.0, 1.0], [1.0, 2.0]])))(np.array([1.0, 0.0]))
    array([2., 1.])
    """
    if isinstance(between, LowRankCovariance):
        W = between.factor
        return lambda v: W @ (W.T @ v)
    if isinstance(between, KnownCovariance):
        A = between.covariance
        return lambda v: A @ v
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

    return SparseCholesky(between.matrix).solve


def covariance_diagonal(between: Precision | KnownCovariance) -> np.ndarray:
    """Diagonal of A: as it is known, or from the sparse factor of its inverse."""
    if between.diagonal is not None:
        return between.diagonal
    from mixedmodels.solver.sparse_cholesky import SparseCholesky

    return SparseCholesky(between.matrix).inverse_diagonal()


def same_covariance(
    one: Precision | KnownCovariance | None, other: Precision | KnownCovariance | None
) -> bool:
    """Whether two known covariances between levels are the same, both given in the same form."""
    if one is other:
        return True
    if one is None or other is None or type(one) is not type(other):
        return False
    if isinstance(one, LowRankCovariance):
        return np.array_equal(one.factor, other.factor)  # type: ignore[union-attr]
    if isinstance(one, KnownCovariance):
        return np.array_equal(one.covariance, other.covariance)  # type: ignore[union-attr]
    a, b = one.matrix.tocsc(), other.matrix.tocsc()
    if a.shape != b.shape or a.nnz != b.nnz:
        return False
    return np.array_equal(a.indices, b.indices) and np.array_equal(a.data, b.data)
