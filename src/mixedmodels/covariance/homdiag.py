"""Scaled identity: independent columns with one common variance."""

from __future__ import annotations

from math import sqrt

import numpy as np

from mixedmodels.covariance.base import LinearCovariance

__all__ = ["ScaledIdentity"]


class ScaledIdentity(LinearCovariance):
    """Independent columns with one common variance: ``homdiag(0 + f | g)``; ``factor = theta I``.

    Parameters
    ----------
    k : int
        Columns of the term.

    Examples
    --------
    >>> from mixedmodels.covariance import ScaledIdentity
    >>> ScaledIdentity(2).factor([3.0])
    array([[3., 0.],
           [0., 3.]])
    """

    __slots__ = ()
    name = "homdiag"
    clip = "trace"

    def __init__(self, k: int) -> None:
        super().__init__(k, [(j, j, 0) for j in range(k)])

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """The name of a single column, ``"common"`` for the scale that several columns share."""
        return (columns[0] if self.k == 1 else "common",)

    def transform(self, gram: np.ndarray, constant: int | None = None) -> np.ndarray:
        """Multiple of the identity that gives the columns mean square 1 on average."""
        mean_square = float(np.trace(gram)) / self.k
        return np.eye(self.k) * (1.0 / sqrt(mean_square) if mean_square > 0.0 else 1.0)
