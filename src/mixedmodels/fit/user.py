"""A random-effects covariance given by the user as a function of theta."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixedmodels.errors import OptionError, SolverError

__all__ = ["UserCovariance"]

_STEP = np.finfo(float).eps ** (1.0 / 3.0)


class UserCovariance:
    """The structure ``Sigma = covariance(theta)``, relative to the residual variance.

    Parameters
    ----------
    covariance : callable
        Maps theta, shape (n_theta,), to a symmetric positive semi-definite matrix, shape (k, k). Its factor
        is the lower triangle of Cholesky, from the eigenvectors where the matrix is singular.
    k : int
        Columns of Z.
    start, lower, upper : ndarray, shape (n_theta,)

    Notes
    -----
    The function is a black box, so its derivatives are central differences.
    """

    name = "user"
    entries = None
    clip = "block"

    def __init__(
        self,
        covariance: Callable[[np.ndarray], np.ndarray],
        k: int,
        start: object,
        lower: object,
        upper: object,
    ) -> None:
        self._covariance = covariance
        self.k = k
        self.start = np.array(start, dtype=float).reshape(-1)
        self.n_theta = self.start.shape[0]
        if self.n_theta == 0:
            raise OptionError(
                "start must hold at least one value: the length of start is the number of parameters"
            )
        self.lower = self._bounds(lower, -np.inf, "lower")
        self.upper = self._bounds(upper, np.inf, "upper")
        if not ((self.lower <= self.start) & (self.start <= self.upper)).all():
            raise OptionError("start must lie between lower and upper")
        for array in (self.start, self.lower, self.upper):
            array.setflags(write=False)
        self.factor(self.start)

    def _bounds(self, bounds: object, default: float, name: str) -> np.ndarray:
        if bounds is None:
            return np.full(self.n_theta, default)
        array = np.array(bounds, dtype=float).reshape(-1)
        if array.shape[0] == 1:
            array = np.full(self.n_theta, array[0])
        if array.shape[0] != self.n_theta:
            raise OptionError(f"{name} has {array.shape[0]} values; start has {self.n_theta}")
        return array

    def covariance(self, theta: np.ndarray) -> np.ndarray:
        """Sigma at theta, shape (k, k), checked and symmetrised."""
        Sigma = np.asarray(self._covariance(np.array(theta, dtype=float)), dtype=float)
        if Sigma.shape != (self.k, self.k):
            raise OptionError(
                f"the covariance function returned shape {Sigma.shape}; "
                f"Z has {self.k} columns, so it must be ({self.k}, {self.k})"
            )
        if not np.isfinite(Sigma).all():
            raise SolverError(
                f"the covariance function returned values that are not finite at theta = {theta.tolist()}"
            )
        return 0.5 * (Sigma + Sigma.T)

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """Lower-triangular factor of Sigma, shape (k, k)."""
        Sigma = self.covariance(np.asarray(theta, dtype=float))
        try:
            return np.linalg.cholesky(Sigma)
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(Sigma)
            if values[0] < -1e-8 * max(values[-1], 0.0):
                raise SolverError(
                    "the covariance function returned a matrix that is not positive semi-definite at theta = "
                    f"{np.asarray(theta).tolist()}; give bounds that exclude such theta"
                ) from None
            # Sigma = R'R with R triangular from QR of the scaled eigenvectors
            R = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T, mode="r")
            signs = np.where(np.diagonal(R) < 0.0, -1.0, 1.0)
            return (R * signs[:, None]).T.copy()

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Central differences of the factor, shape (n_theta, k, k), one-sided at a bound."""
        theta = np.asarray(theta, dtype=float)
        out = np.empty((self.n_theta, self.k, self.k))
        for j in range(self.n_theta):
            step = _STEP * max(1.0, abs(theta[j]))
            above, below = theta.copy(), theta.copy()
            above[j] = min(theta[j] + step, self.upper[j])
            below[j] = max(theta[j] - step, self.lower[j])
            out[j] = (self.factor(above) - self.factor(below)) / (above[j] - below[j])
        return out

    def theta_of(self, factor: np.ndarray) -> np.ndarray:
        """Not available: a function cannot be inverted in general."""
        raise OptionError("a covariance given as a function has no inverse; choose theta yourself")

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """``theta1``, ``theta2``, ..."""
        return tuple(f"theta{j + 1}" for j in range(self.n_theta))

    def transform(self, gram: np.ndarray, constant: int | None) -> np.ndarray:
        """The identity: nothing is known about the structure."""
        return np.eye(self.k)
