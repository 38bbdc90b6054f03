"""Scaled identity: independent columns with one common variance."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from mixedmodels.covariance.base import LinearCovariance
from mixedmodels.covariance.natural import NaturalParameters
from mixedmodels.errors import OptionError

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

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """The root of the mean variance."""
        return np.array([sqrt(max(float(np.trace(Sigma)), 0.0) / self.k)])

    def natural(self, theta: np.ndarray, columns: tuple[str, ...], scale: float = 1.0) -> NaturalParameters:
        """The common standard deviation."""
        name = f"sd({columns[0]})" if self.k == 1 else "sd"
        value = np.array([scale * float(theta[0])])
        return NaturalParameters((name,), value, np.array([[scale]]), value, ("sd",))

    def natural_curvature(self, theta: np.ndarray, weights: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Zeros, shape (n_theta, n_theta): natural parameters are multiples of theta."""
        return np.zeros((self.n_theta, self.n_theta))

    def theta_from_natural(self, values: Any, scale: float = 1.0) -> np.ndarray:
        """theta of the standard deviation."""
        value = float(np.asarray(values, dtype=np.float64).reshape(-1)[0])
        if not value >= 0.0:
            raise OptionError(f"a standard deviation must not be negative, got {value:g}")
        return np.array([value / scale])

    def transform(self, gram: np.ndarray, constant: int | None = None) -> np.ndarray:
        """Multiple of the identity that gives the columns mean square 1 on average."""
        mean_square = float(np.trace(gram)) / self.k
        return np.eye(self.k) * (1.0 / sqrt(mean_square) if mean_square > 0.0 else 1.0)
