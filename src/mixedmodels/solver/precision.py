"""Products with a known covariance between levels, from its sparse inverse or the matrix itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.design import KnownCovariance

if TYPE_CHECKING:
    from mixedmodels.design import Precision

__all__ = ["covariance_diagonal", "covariance_times"]


def covariance_times(between: Precision | KnownCovariance) -> Callable[[np.ndarray], np.ndarray]:
    """A function ``v -> A v`` for arrays of shape (m,) or (m, c).

    Examples
    --------
    >>> covariance_times(KnownCovariance(np.array([[2.0, 1.0], [1.0, 2.0]])))(np.array([1.0, 0.0]))
    array([2., 1.])
    """
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
