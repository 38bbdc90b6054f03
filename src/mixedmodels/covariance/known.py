"""Proportional to a known matrix between the columns: ``propto(0 + f | g, K)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.covariance.correlation import semidefinite_root
from mixedmodels.covariance.natural import NaturalParameters
from mixedmodels.covariance.structured import CurvedCovariance
from mixedmodels.errors import OptionError

__all__ = ["Proportional"]


class Proportional(CurvedCovariance):
    r"""One unknown variance times a known k x k matrix: :math:`\Sigma = \theta^2 A`.

    Parameters
    ----------
    matrix : array_like, shape (k, k)
        A, symmetric and positive semi-definite.

    Raises
    ------
    OptionError
        The matrix is not a covariance matrix.

    Examples
    --------
    >>> Proportional([[1.0, 0.5], [0.5, 1.0]]).sigma([2.0])
    array([[4., 2.],
           [2., 4.]])
    """

    name = "propto"

    def __init__(self, matrix: Any) -> None:
        A = np.array(matrix, dtype=np.float64)
        if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size:
            raise OptionError(f"the matrix of 'propto' must be square, got shape {A.shape}")
        size = float(np.abs(A).max())
        if (
            not np.isfinite(size)
            or np.abs(A - A.T).max() > 1e-10 * size
            or np.linalg.eigvalsh(A)[0] < -1e-10 * size
        ):
            raise OptionError("the matrix of 'propto' must be finite, symmetric and positive semi-definite")
        self.matrix = 0.5 * (A + A.T)
        self.root = semidefinite_root(self.matrix)
        self.k, self.n_theta = A.shape[0], 1
        self.start, self.lower, self.upper = np.ones(1), np.zeros(1), np.full(1, np.inf)
        self.mirrored = np.ones(1, dtype=bool)
        for array in (self.matrix, self.root, self.start, self.lower, self.upper, self.mirrored):
            array.setflags(write=False)

    def _key(self) -> tuple:
        return (self.name, self.k, self.matrix.tobytes())

    def __reduce__(self) -> tuple:
        return type(self), (self.matrix,)

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """theta times the root of A, shape (k, k)."""
        return float(theta[0]) * self.root

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """The root of A, shape (1, k, k)."""
        return self.root[None]

    def factor_second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Zeros, shape (1, 1, k, k)."""
        return np.zeros((1, 1, self.k, self.k))

    def sigma_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """``2 theta A``, shape (1, k, k)."""
        return 2.0 * float(theta[0]) * self.matrix[None]

    def sigma_curvature(self, theta: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``2 tr(M A)``, shape (1, 1)."""
        return np.array([[2.0 * float(np.sum(M * self.matrix))]])

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """The multiple of A with the trace of Sigma."""
        return np.array([np.sqrt(max(float(np.trace(Sigma)), 0.0) / float(np.trace(self.matrix)))])

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """``("sd",)``."""
        return ("sd",)

    def natural(self, theta: np.ndarray, columns: tuple[str, ...], scale: float = 1.0) -> NaturalParameters:
        """The factor of proportionality, a standard deviation where A has a unit diagonal."""
        value = np.array([scale * float(theta[0])])
        return NaturalParameters(("sd",), value, np.array([[scale]]), value, ("sd",))

    def natural_curvature(self, theta: np.ndarray, weights: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Zeros, shape (n_theta, n_theta): natural parameters are multiples of theta."""
        return np.zeros((self.n_theta, self.n_theta))

    def theta_from_natural(self, values: Any, scale: float = 1.0) -> np.ndarray:
        """theta of the standard deviation."""
        return np.asarray(values, dtype=np.float64) / scale
