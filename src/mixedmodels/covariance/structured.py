"""Structures whose factor is not linear in theta: the contract's second half, and scaled correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.covariance.correlation import Correlation
from mixedmodels.covariance.natural import NaturalParameters, theta_scale
from mixedmodels.errors import OptionError

__all__ = ["CurvedCovariance", "ScaledCorrelation"]

_EIGHTH = ((1, 4.0 / 5.0), (2, -1.0 / 5.0), (3, 4.0 / 105.0), (4, -1.0 / 280.0))
_STEP = 3e-3


class CurvedCovariance:
    """Base of structures that are not linear in theta; `entries` is None and `clip` is ``"curved"``.

    A subclass sets ``name, k, n_theta, start, lower, upper, mirrored`` and writes `factor`,
    `factor_derivatives`, `factor_second_derivatives`, `theta_near`, `parameter_names`, `natural` and
    `theta_from_natural`, and `natural_curvature` where it can; what is said here about Sigma follows from the
    factor.

    Attributes
    ----------
    mirrored : ndarray of bool, shape (n_theta,)
        Whether Sigma is symmetric about the bounds of a parameter: a step across one is reflected.
    """

    name = ""
    clip = "curved"
    entries: np.ndarray | None = None
    k: int
    n_theta: int
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    mirrored: np.ndarray

    def _key(self) -> tuple:
        """What tells instances apart, hashable."""
        return (self.name, self.k)

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """Relative factor, shape (k, k), lower triangular."""
        raise NotImplementedError

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the factor, shape (n_theta, k, k)."""
        raise NotImplementedError

    def factor_second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Second derivatives of the factor, shape (n_theta, n_theta, k, k)."""
        raise NotImplementedError

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """Parameters of a matrix of the structure close to a positive semi-definite `Sigma`."""
        raise NotImplementedError

    def sigma(self, theta: np.ndarray) -> np.ndarray:
        """``Sigma = factor factor'``, shape (k, k)."""
        factor = self.factor(theta)
        return factor @ factor.T

    def sigma_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of Sigma, shape (n_theta, k, k)."""
        half = self.factor_derivatives(theta) @ self.factor(theta).T
        return half + half.transpose(0, 2, 1)

    def sigma_curvature(self, theta: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``tr(M d2 Sigma / d theta_i d theta_j)`` for a symmetric matrix M, shape (n_theta, n_theta)."""
        factor, E = self.factor(theta), self.factor_derivatives(theta)
        second = self.factor_second_derivatives(theta)
        return 2.0 * np.einsum("iab,ac,jcb->ij", E, M, E, optimize=True) + 2.0 * np.einsum(
            "ijab,ab->ij", second, M @ factor
        )

    def theta_of(self, factor: np.ndarray) -> np.ndarray:
        """Parameters of a lower-triangular factor that lies in the structure (inverse of `factor`)."""
        factor = np.asarray(factor, dtype=np.float64)
        return self.theta_near(factor @ factor.T)

    def transform(self, gram: np.ndarray, constant: int | None = None) -> np.ndarray:
        """Identity: a structure that allows no change of coordinates."""
        return np.eye(self.k)

    def natural_curvature(self, theta: np.ndarray, weights: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """``sum_r weights_r d2 value_r`` of `natural`, shape (n_theta, n_theta).

        Where a structure does not write it: differences of eighth order of the exact Jacobian, with a
        relative error of about 1e-10.
        """
        theta = np.asarray(theta, dtype=np.float64)
        names = tuple(f"column{j}" for j in range(self.k))
        used = np.flatnonzero(weights)
        out = np.empty((self.n_theta, self.n_theta))
        for t in range(self.n_theta):
            step = _STEP * max(abs(theta[t]), 1.0)
            out[t] = 0.0
            for multiple, share in _EIGHTH:
                for sign in (1.0, -1.0):
                    moved = theta.copy()
                    moved[t] += sign * multiple * step
                    slopes = self.natural(moved, names, scale).jacobian[used]  # type: ignore[attr-defined]
                    out[t] += sign * share / step * (weights[used] @ slopes)
        return 0.5 * (out + out.T)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(repr(part) for part in self._key()[:2])})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self._key()))


class ScaledCorrelation(CurvedCovariance):
    r"""Standard deviations times a correlation matrix: :math:`\Sigma = D R(\psi) D`.

    theta is the relative standard deviation (one for all columns, or one for each), then psi.

    Parameters
    ----------
    name : str
        The tag.
    correlation : Correlation
    separate : bool
        Whether every column has a standard deviation of its own.
    """

    def __init__(self, name: str, correlation: Correlation, separate: bool) -> None:
        self.name, self.correlation, self.separate = name, correlation, separate
        self.k = k = correlation.k
        self.n_sd = k if separate else 1
        self.n_theta = self.n_sd + correlation.n_psi
        self.start = np.concatenate([np.ones(self.n_sd), correlation.start])
        self.lower = np.concatenate([np.zeros(self.n_sd), correlation.lower])
        self.upper = np.concatenate([np.full(self.n_sd, np.inf), correlation.upper])
        # With one standard deviation Sigma is even in it; with several the correlations would change sign.
        self.mirrored = np.concatenate([np.full(self.n_sd, self.n_sd == 1), correlation.mirrored])
        for array in (self.start, self.lower, self.upper, self.mirrored):
            array.setflags(write=False)

    def _key(self) -> tuple:
        return (self.name, self.k, self.separate, *self.correlation.key())

    def __reduce__(self) -> tuple:
        return ScaledCorrelation, (self.name, self.correlation, self.separate)

    def _split(self, theta: Any) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations, shape (k,), and psi."""
        theta = np.asarray(theta, dtype=np.float64)
        s, psi = theta[: self.n_sd], theta[self.n_sd :]
        return (s if self.separate else np.repeat(s, self.k)), psi

    # ------------------------------------------------------------------ factor
    def factor(self, theta: np.ndarray) -> np.ndarray:
        """``D C(psi)`` with ``C C' = R``, shape (k, k), lower triangular."""
        s, psi = self._split(theta)
        return s[:, None] * self.correlation.root(psi).value

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the factor, shape (n_theta, k, k)."""
        s, psi = self._split(theta)
        C, first, _ = self.correlation.root(psi, 1)
        assert first is not None
        return np.concatenate([self._by_sd(C), s[:, None] * first])

    def factor_second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Second derivatives of the factor, shape (n_theta, n_theta, k, k)."""
        s, psi = self._split(theta)
        _, first, second = self.correlation.root(psi, 2)
        assert first is not None and second is not None
        a, r = self.n_sd, self.n_theta
        out = np.zeros((r, r, self.k, self.k))
        for p in range(self.correlation.n_psi):
            out[:a, a + p] = out[a + p, :a] = self._by_sd(first[p])
        out[a:, a:] = s[:, None] * second
        return out

    def _by_sd(self, C: np.ndarray) -> np.ndarray:
        """d (D C) / d sd: C itself, or its rows one by one."""
        if not self.separate:
            return C[None]
        out = np.zeros((self.k, self.k, self.k))
        rows = np.arange(self.k)
        out[rows, rows] = C
        return out

    # ------------------------------------------------------------------ Sigma, without the factor
    def sigma(self, theta: np.ndarray) -> np.ndarray:
        """``Sigma = D R D``, shape (k, k)."""
        s, psi = self._split(theta)
        return s[:, None] * self.correlation.matrix(psi).value * s

    def sigma_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of Sigma, shape (n_theta, k, k)."""
        s, psi = self._split(theta)
        R, first, _ = self.correlation.matrix(psi, 1)
        assert first is not None
        if self.separate:
            half = self._by_sd(R * s)
            by_sd = half + half.transpose(0, 2, 1)
        else:
            by_sd = (2.0 * s[0] * R)[None]
        return np.concatenate([by_sd, s[:, None] * first * s])

    def sigma_curvature(self, theta: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``tr(M d2 Sigma / d theta_i d theta_j)`` for a symmetric matrix M, shape (n_theta, n_theta)."""
        s, psi = self._split(theta)
        R, first, second = self.correlation.matrix(psi, 2)
        assert first is not None and second is not None
        a, r = self.n_sd, self.n_theta
        out = np.empty((r, r))
        cross = 2.0 * ((M * first) @ s)  # (q, k): row i of d2 Sigma / d s_i d psi_p
        if self.separate:
            out[:a, :a] = 2.0 * M * R
            out[a:, :a] = cross
        else:
            out[0, 0] = 2.0 * float(np.sum(M * R))
            out[a:, 0] = cross.sum(axis=1)
        out[:a, a:] = out[a:, :a].T
        out[a:, a:] = np.einsum("pqij,ij->pq", second, s[:, None] * M * s)
        return out

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """Parameters of a matrix of the structure close to a positive semi-definite `Sigma`."""
        variances = np.maximum(np.diagonal(Sigma), 0.0)
        sd = np.sqrt(variances)
        positive = sd > 0.0
        scale = np.divide(1.0, sd, out=np.zeros(self.k), where=positive)
        R = Sigma * scale * scale[:, None]
        R[np.diag_indices(self.k)] = 1.0
        psi = self.correlation.near(R) if positive.any() else self.correlation.start
        return np.concatenate([sd if self.separate else [np.sqrt(np.mean(variances))], psi])

    def transform(self, gram: np.ndarray, constant: int | None = None) -> np.ndarray:
        """Diagonal matrix that scales the columns: each to mean square 1, or all by one number."""
        squares = np.clip(np.diagonal(gram), 0.0, None)
        if not self.separate:
            squares = np.full(self.k, squares.mean())
        length = np.sqrt(squares)
        return np.diag(np.divide(1.0, length, out=np.ones(self.k), where=length > 0.0))

    # ------------------------------------------------------------------ names and natural parameters
    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Names of theta: the column of each standard deviation (``"sd"`` for a common one), then psi's."""
        return (*(columns if self.separate else ("sd",)), *self.correlation.names)

    def natural(self, theta: np.ndarray, columns: tuple[str, ...], scale: float = 1.0) -> NaturalParameters:
        """Standard deviations times `scale`, then the correlation's parameters, with derivatives.

        Parameters
        ----------
        theta : ndarray, shape (n_theta,)
        columns : tuple of str, length k
        scale : float
            The residual standard deviation that theta is relative to; 1 for absolute factors.
        """
        theta = np.asarray(theta, dtype=np.float64)
        a = self.n_sd
        block = self.correlation.natural(theta[a:])
        names = (*(f"sd({name})" for name in columns),) if self.separate else ("sd",)
        kinds = ("sd",) * a + block.kinds
        jacobian = np.zeros((a + len(block.names), self.n_theta))
        jacobian[:a, :a] = scale * np.eye(a)
        jacobian[a:, a:] = block.jacobian
        values = np.concatenate([scale * theta[:a], block.values])
        if not np.any(theta[:a] > 0.0):  # without variance there is no correlation
            values[a:] = np.nan
            jacobian[a:] = np.nan
        return NaturalParameters(
            (*names, *block.names), values, jacobian, np.where(theta_scale(kinds), values, 0.0), kinds
        )

    def natural_curvature(self, theta: np.ndarray, weights: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """That of the correlation: standard deviations are multiples of theta. Shape (n_theta, n_theta)."""
        a = self.n_sd
        out = np.zeros((self.n_theta, self.n_theta))
        if np.any(weights[a:]):
            psi = np.asarray(theta, dtype=np.float64)[a:]
            out[a:, a:] = self.correlation.natural_curvature(psi, weights[a:])
        return out

    def theta_from_natural(self, values: Any, scale: float = 1.0) -> np.ndarray:
        """theta of natural parameters in the order of `natural`.

        Raises
        ------
        OptionError
            A value lies outside the parameter space.
        """
        values = np.asarray(values, dtype=np.float64)
        a = self.n_sd
        if not np.all(values[:a] >= 0.0):
            raise OptionError(f"standard deviations must not be negative, got {values[:a].tolist()}")
        return np.concatenate([values[:a] / scale, self.correlation.from_natural(values[a:])])
