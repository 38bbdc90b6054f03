"""Diagonal covariance: independent columns, each with its own variance."""

from __future__ import annotations

import numpy as np

from mixedmodels.covariance.base import LinearCovariance

__all__ = ["Diagonal"]


class Diagonal(LinearCovariance):
    """Independent columns with separate variances: ``(x || g)``, ``diag(x | g)``; ``factor = diag(theta)``.

    Parameters
    ----------
    k : int
        Columns of the term.

    Examples
    --------
    >>> from mixedmodels.covariance import Diagonal
    >>> Diagonal(2).factor([1.0, 2.0])
    array([[1., 0.],
           [0., 2.]])
    """

    __slots__ = ()
    name = "diag"
    clip = "diagonal"

    def __init__(self, k: int) -> None:
        super().__init__(k, [(j, j, j) for j in range(k)])

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """The roots of the variances."""
        return np.sqrt(np.maximum(np.diagonal(Sigma), 0.0))

    def transform(self, gram: np.ndarray, constant: int | None = None) -> np.ndarray:
        """Diagonal matrix that gives every column mean square 1 (columns of zeros are left alone)."""
        length = np.sqrt(np.clip(np.diagonal(gram), 0.0, None))
        return np.diag(np.divide(1.0, length, out=np.ones(self.k), where=length > 0.0))
