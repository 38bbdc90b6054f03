r"""Factor-analytic covariances: ``rr`` (reduced rank) and ``fa`` (with specific variances)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.covariance.correlation import Jet, cholesky_jet, semidefinite_root
from mixedmodels.covariance.natural import NaturalParameters, theta_scale
from mixedmodels.covariance.structured import CurvedCovariance
from mixedmodels.errors import OptionError

__all__ = ["FactorAnalytic", "ReducedRank"]


class _Loadings(CurvedCovariance):
    """Lower-trapezoidal loadings G (k, d): the diagonal first, then the rest column by column."""

    def __init__(self, k: int, d: int, specific: bool) -> None:
        if int(d) != d or not 1 <= d <= k:
            raise OptionError(f"the rank d of {self.name!r} must be between 1 and the {k} columns, got {d!r}")
        self.k, self.d = k, int(d)
        self.places = [(j, j) for j in range(self.d)]
        self.places += [(i, j) for j in range(self.d) for i in range(j + 1, k)]
        self.n_loadings = len(self.places)
        self._rows = np.array([i for i, _ in self.places])
        self._columns = np.array([j for _, j in self.places])
        extra = k if specific else 0
        self.n_theta = self.n_loadings + extra
        self.start = np.zeros(self.n_theta)
        self.start[: self.d] = 1.0
        self.start[self.n_loadings :] = 1.0
        self.lower = np.full(self.n_theta, -np.inf)
        self.lower[self.n_loadings :] = 0.0
        self.upper = np.full(self.n_theta, np.inf)
        self.mirrored = np.zeros(self.n_theta, dtype=bool)
        self.mirrored[self.n_loadings :] = True
        for array in (self.start, self.lower, self.upper, self.mirrored):
            array.setflags(write=False)

    def _key(self) -> tuple:
        return (self.name, self.k, self.d)

    def __reduce__(self) -> tuple:
        return type(self), (self.k, self.d)

    def loadings(self, theta: Any) -> np.ndarray:
        """G, shape (k, d)."""
        G = np.zeros((self.k, self.d))
        G[self._rows, self._columns] = np.asarray(theta, dtype=np.float64)[: self.n_loadings]
        return G

    def _of_loadings(self, G: np.ndarray) -> np.ndarray:
        """Parameters of loadings turned to lower-trapezoidal form with non-negative diagonal."""
        turned = np.asarray(np.linalg.qr(G.T, mode="r")).T  # (k, min(d, k)): G G' is unchanged
        turned = turned * np.where(np.diagonal(turned) < 0.0, -1.0, 1.0)
        return turned[self._rows, self._columns]

    def _loading_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{columns[i]}.factor{j + 1}" for i, j in self.places)

    def natural_curvature(self, theta: np.ndarray, weights: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Zeros, shape (n_theta, n_theta): natural parameters are multiples of theta."""
        return np.zeros((self.n_theta, self.n_theta))

    def _slopes(self, G: np.ndarray) -> np.ndarray:
        """d (G G') / d loadings, shape (n_loadings, k, k)."""
        out = np.zeros((self.n_loadings, self.k, self.k))
        at = np.arange(self.n_loadings)
        out[at, self._rows] = G[:, self._columns].T
        return out + out.transpose(0, 2, 1)

    def _bends(self, M: np.ndarray) -> np.ndarray:
        """``tr(M d2 (G G'))``, shape (n_loadings, n_loadings)."""
        same = self._columns[:, None] == self._columns
        return np.where(same, 2.0 * M[np.ix_(self._rows, self._rows)], 0.0)


class ReducedRank(_Loadings):
    r"""Reduced rank: :math:`\Sigma = G G'`, G (k, d) lower trapezoidal: ``rr(0 + f | g, d = 2)``.

    Parameters
    ----------
    k, d : int
        Columns and factors; by default d is 2.

    Examples
    --------
    >>> ReducedRank(3, 1).factor([1.0, 0.5, 2.0])
    array([[1. , 0. , 0. ],
           [0.5, 0. , 0. ],
           [2. , 0. , 0. ]])
    """

    name = "rr"

    def __init__(self, k: int, d: int = 2) -> None:
        super().__init__(k, d, specific=False)

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """The loadings and columns of zeros, shape (k, k), lower triangular."""
        out = np.zeros((self.k, self.k))
        out[:, : self.d] = self.loadings(theta)
        return out

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the factor, shape (n_theta, k, k); they do not depend on theta."""
        out = np.zeros((self.n_theta, self.k, self.k))
        out[np.arange(self.n_theta), self._rows, self._columns] = 1.0
        return out

    def factor_second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Zeros, shape (n_theta, n_theta, k, k): the factor is linear."""
        return np.zeros((self.n_theta, self.n_theta, self.k, self.k))

    def sigma_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of Sigma, shape (n_theta, k, k)."""
        return self._slopes(self.loadings(theta))

    def sigma_curvature(self, theta: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``tr(M d2 Sigma / d theta_i d theta_j)``, shape (n_theta, n_theta)."""
        return self._bends(M)

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """Loadings of the d largest principal components of Sigma."""
        values, vectors = np.linalg.eigh(Sigma)
        return self._of_loadings(vectors[:, -self.d :] * np.sqrt(np.maximum(values[-self.d :], 0.0)))

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """``column.factor1``, ... for the loadings."""
        return self._loading_names(columns)

    def natural(self, theta: np.ndarray, columns: tuple[str, ...], scale: float = 1.0) -> NaturalParameters:
        """The loadings times `scale`."""
        theta = np.asarray(theta, dtype=np.float64)
        names = tuple(f"loading({name})" for name in self._loading_names(columns))
        values = scale * theta
        return NaturalParameters(
            names, values, scale * np.eye(self.n_theta), values, ("loading",) * self.n_theta
        )

    def theta_from_natural(self, values: Any, scale: float = 1.0) -> np.ndarray:
        """theta of loadings."""
        return np.asarray(values, dtype=np.float64) / scale


class FactorAnalytic(_Loadings):
    r"""Factor analytic: :math:`\Sigma = G G' + \mathrm{diag}(\psi)^2`: ``fa(0 + f | g, d = 1)``.

    theta holds the loadings, then the specific standard deviations psi >= 0 (zero: a Heywood case).

    Parameters
    ----------
    k, d : int
        Columns and factors; by default d is 1.

    References
    ----------
    Smith, Cullis & Thompson (2001), Biometrics 57:1138-1147.
    """

    name = "fa"

    def __init__(self, k: int, d: int = 1) -> None:
        super().__init__(k, d, specific=True)
        self.start = np.where(np.arange(self.n_theta) < self.d, 0.5, self.start)
        self.start.setflags(write=False)

    def sigma(self, theta: np.ndarray) -> np.ndarray:
        """``G G' + diag(psi)^2``, shape (k, k)."""
        theta = np.asarray(theta, dtype=np.float64)
        G = self.loadings(theta)
        return G @ G.T + np.diag(theta[self.n_loadings :] ** 2)

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """Cholesky factor of Sigma, shape (k, k)."""
        return semidefinite_root(self.sigma(theta))

    def sigma_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of Sigma, shape (n_theta, k, k)."""
        theta = np.asarray(theta, dtype=np.float64)
        specific = np.zeros((self.k, self.k, self.k))
        j = np.arange(self.k)
        specific[j, j, j] = 2.0 * theta[self.n_loadings :]
        return np.concatenate([self._slopes(self.loadings(theta)), specific])

    def sigma_curvature(self, theta: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``tr(M d2 Sigma / d theta_i d theta_j)``, shape (n_theta, n_theta)."""
        out = np.zeros((self.n_theta, self.n_theta))
        a = self.n_loadings
        out[:a, :a] = self._bends(M)
        j = np.arange(a, self.n_theta)
        out[j, j] = 2.0 * np.diagonal(M)
        return out

    def _jet(self, theta: np.ndarray, order: int) -> Jet:
        first = self.sigma_derivatives(theta)
        if order == 1:
            return Jet(self.sigma(theta), first)
        k, a = self.k, self.n_loadings
        second = np.zeros((self.n_theta, self.n_theta, k, k))
        for s in range(a):
            for t in range(a):
                if self._columns[s] == self._columns[t]:
                    second[s, t, self._rows[s], self._rows[t]] += 1.0
                    second[s, t, self._rows[t], self._rows[s]] += 1.0
        j = np.arange(k)
        second[a + j, a + j, j, j] = 2.0
        return Jet(self.sigma(theta), first, second)

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the factor, shape (n_theta, k, k)."""
        found = cholesky_jet(self._jet(theta, 1), 1).first
        assert found is not None
        return found

    def factor_second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Second derivatives of the factor, shape (n_theta, n_theta, k, k)."""
        found = cholesky_jet(self._jet(theta, 2), 2).second
        assert found is not None
        return found

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """Principal factors: loadings and specific variances in turn until they fit."""
        Sigma = np.asarray(Sigma, dtype=np.float64)
        diagonal = np.diagonal(Sigma)
        with np.errstate(all="ignore"):
            try:
                specific = 1.0 / np.diagonal(np.linalg.inv(Sigma))
            except np.linalg.LinAlgError:
                specific = 0.5 * diagonal
        specific = np.clip(np.where(np.isfinite(specific), specific, 0.5 * diagonal), 0.0, diagonal)
        G = np.zeros((self.k, self.d))
        for _ in range(3000):
            values, vectors = np.linalg.eigh(Sigma - np.diag(specific))
            G = vectors[:, -self.d :] * np.sqrt(np.maximum(values[-self.d :], 0.0))
            moved = np.clip(diagonal - np.sum(G * G, axis=1), 0.0, diagonal)
            if np.max(np.abs(moved - specific)) <= 1e-15 * max(float(diagonal.max()), 1e-300):
                break
            specific = moved
        return np.concatenate([self._of_loadings(G), np.sqrt(specific)])

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """``column.factor1``, ... for the loadings, ``column.specific`` for the standard deviations."""
        return (*self._loading_names(columns), *(f"{name}.specific" for name in columns))

    def natural(self, theta: np.ndarray, columns: tuple[str, ...], scale: float = 1.0) -> NaturalParameters:
        """Loadings and specific standard deviations times `scale`."""
        theta = np.asarray(theta, dtype=np.float64)
        names = tuple(f"loading({name})" for name in self._loading_names(columns))
        names += tuple(f"specific sd({name})" for name in columns)
        kinds = ("loading",) * self.n_loadings + ("sd",) * self.k
        values = scale * theta
        return NaturalParameters(
            names, values, scale * np.eye(self.n_theta), np.where(theta_scale(kinds), values, 0.0), kinds
        )

    def theta_from_natural(self, values: Any, scale: float = 1.0) -> np.ndarray:
        """theta of loadings and specific standard deviations."""
        return np.asarray(values, dtype=np.float64) / scale
