"""Approximations of the posterior of the variances, from which a Metropolis-Hastings chain proposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.fit.classical.search import solve_information

if TYPE_CHECKING:
    from mixedmodels.inference.posterior.mode import PosteriorMode, PosteriorSpace
    from mixedmodels.inference.posterior.model import PosteriorModel

__all__ = ["LogCoordinates", "PlainCoordinates", "Proposal", "make_proposal"]


class LogCoordinates:
    r"""The lower Cholesky factor L of :math:`\Omega = \psi^{-1}`, logarithms on its diagonal, and
    :math:`\log(1/\sigma^2)`: any real vector is possible.

    Parameters
    ----------
    k : int
    """

    def __init__(self, k: int) -> None:
        columns, rows = np.triu_indices(k)  # lower triangle, column by column
        self.k, self.rows, self.columns = k, rows, columns
        self.size = len(rows) + 1
        self.diagonal = np.flatnonzero(rows == columns)
        # log|d(Omega, 1/sigma^2)/d zeta| = weights' zeta + constant
        self.weights = np.zeros(self.size)
        self.weights[self.diagonal] = k + 1.0 - np.arange(k)
        self.weights[-1] = 1.0

    def of(self, Psi: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
        """zeta of N points, from psi (N, k, k) and sigma^2 (N,)."""
        L = np.linalg.cholesky(np.linalg.inv(Psi))
        out = np.column_stack([L[:, self.rows, self.columns], -np.log(sigma2)])
        out[:, self.diagonal] = np.log(out[:, self.diagonal])
        return out

    def _factor(self, zeta: np.ndarray) -> np.ndarray:
        values = np.array(zeta[:, :-1])
        values[:, self.diagonal] = np.exp(np.clip(values[:, self.diagonal], -300.0, 300.0))
        L = np.zeros((len(zeta), self.k, self.k))
        L[:, self.rows, self.columns] = values
        return L

    def variances(self, zeta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """sigma^2 (N,), psi (N, k, k) and whether the point is possible (N,), for N points."""
        L = self._factor(zeta)
        half = np.linalg.inv(L)
        Psi = np.swapaxes(half, 1, 2) @ half
        return np.exp(np.clip(-zeta[:, -1], -300.0, 300.0)), Psi, np.ones(len(zeta), dtype=bool)

    def log_jacobian(self, zeta: np.ndarray) -> np.ndarray:
        """``log|d(Omega, 1/sigma^2)/d zeta|`` without its constant, for N points."""
        return zeta @ self.weights

    def jacobian(self, zeta: np.ndarray, space: PosteriorSpace) -> np.ndarray:
        """``d kappa / d zeta`` at one point, shape (size, size)."""
        L = self._factor(zeta[None])[0]
        sigma2, Psi, _ = self.variances(zeta[None])
        J = np.zeros((self.size, self.size))
        for i, (a, b) in enumerate(zip(self.rows.tolist(), self.columns.tolist(), strict=True)):
            dL = np.zeros((self.k, self.k))
            dL[a, b] = L[a, b] if a == b else 1.0
            dOmega = dL @ L.T + L @ dL.T
            J[:, i] = space.kappa([-Psi[0] @ dOmega @ Psi[0]], 0.0)
        J[-1, -1] = -float(sigma2[0])
        return J


class PlainCoordinates:
    r"""The entries of :math:`\Omega = \psi^{-1}` and :math:`1/\sigma^2` themselves.

    Parameters
    ----------
    k : int
    """

    def __init__(self, k: int) -> None:
        columns, rows = np.triu_indices(k)
        self.k, self.rows, self.columns = k, rows, columns
        self.size = len(rows) + 1

    def of(self, Psi: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
        """zeta of N points, from psi (N, k, k) and sigma^2 (N,)."""
        return np.column_stack([np.linalg.inv(Psi)[:, self.rows, self.columns], 1.0 / sigma2])

    def variances(self, zeta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """sigma^2, psi and whether the point is possible; impossible points come back as ones."""
        Omega = np.zeros((len(zeta), self.k, self.k))
        Omega[:, self.rows, self.columns] = zeta[:, :-1]
        Omega[:, self.columns, self.rows] = zeta[:, :-1]
        possible = (np.linalg.eigvalsh(Omega)[:, 0] > 0.0) & (zeta[:, -1] > 0.0)
        Omega[~possible] = np.eye(self.k)
        tau = np.where(possible, zeta[:, -1], 1.0)
        return 1.0 / tau, np.linalg.inv(Omega), possible

    def log_jacobian(self, zeta: np.ndarray) -> np.ndarray:
        """Zero: these are the coordinates of the density."""
        return np.zeros(len(zeta))

    def jacobian(self, zeta: np.ndarray, space: PosteriorSpace) -> np.ndarray:
        """``d kappa / d zeta`` at one point."""
        sigma2, Psi, _ = self.variances(zeta[None])
        J = np.zeros((self.size, self.size))
        for i, (a, b) in enumerate(zip(self.rows.tolist(), self.columns.tolist(), strict=True)):
            E = np.zeros((self.k, self.k))
            E[a, b] = E[b, a] = 1.0
            J[:, i] = space.kappa([-Psi[0] @ E @ Psi[0]], 0.0)
        J[-1, -1] = -(float(sigma2[0]) ** 2)
        return J


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A multivariate t distribution in coordinates of the variances.

    Attributes
    ----------
    coordinates : LogCoordinates or PlainCoordinates
    centre : ndarray, shape (d,)
    L : ndarray, shape (d, d)
        Cholesky factor of the scale matrix.
    df : float
    """

    coordinates: LogCoordinates | PlainCoordinates
    centre: np.ndarray
    L: np.ndarray
    df: float

    def draw(self, rng: np.random.Generator, N: int) -> np.ndarray:
        """N points, shape (N, d)."""
        z = rng.standard_normal((N, len(self.centre)))
        return self.centre + (z / np.sqrt(rng.chisquare(self.df, (N, 1)) / self.df)) @ self.L.T

    def log_density(self, zeta: np.ndarray) -> np.ndarray:
        """Log density of N points without its constant."""
        z = np.linalg.solve(self.L, (zeta - self.centre).T)
        return -0.5 * (self.df + len(self.centre)) * np.log1p((z * z).sum(axis=0) / self.df)

    def log_weights(self, posterior: PosteriorModel, zeta: np.ndarray) -> np.ndarray:
        """Log of posterior over proposal density, up to a constant; minus infinity where impossible."""
        sigma2, Psi, possible = self.coordinates.variances(zeta)
        target = posterior.products.loglik(sigma2, Psi) + posterior.prior.log_density(sigma2, Psi)
        out = target + self.coordinates.log_jacobian(zeta) - self.log_density(zeta)
        return np.where(possible & np.isfinite(out), out, -np.inf)


def make_proposal(
    posterior: PosteriorModel, space: PosteriorSpace, mode: PosteriorMode, kind: str, df: float
) -> Proposal:
    r"""The proposal of a Metropolis-Hastings chain.

    Parameters
    ----------
    posterior : PosteriorModel
    space : PosteriorSpace
    mode : PosteriorMode
    kind : {"log", "mode"}
        "log": a t distribution in `LogCoordinates` at the mode of the density of these coordinates; "mode":
        in :math:`(\psi^{-1}, 1/\sigma^2)` at the posterior mode (Schafer 1998).
    df : float

    Raises
    ------
    SolverError
        The curvature of the posterior at its mode is not negative definite.
    """
    k = posterior.prior.k
    coordinates: LogCoordinates | PlainCoordinates
    if kind == "mode":
        coordinates = PlainCoordinates(k)
        centre = coordinates.of(mode.Psi[None], np.array([mode.sigma2]))[0]
        kappa = space.kappa([mode.Psi], mode.sigma2)
        J = coordinates.jacobian(centre, space)
        information = J.T @ space.point(kappa)._point.information("expected") @ J
        # curvature of the prior in these coordinates, as far as it helps
        prior, d = posterior.prior, posterior.prior.c - k - 1.0
        E = [row[0] for row in space.directions]
        own = [[0.5 * d * float(np.sum((mode.Psi @ A) * (mode.Psi @ B).T)) for A in E] for B in E]
        curved = information.copy()
        curved[:-1, :-1] += np.array(own)
        curved[-1, -1] += (0.5 * prior.b - 1.0) * mode.sigma2**2
        eigenvalues = np.linalg.eigvalsh(curved / np.outer(centre, centre))
        if np.isfinite(eigenvalues).all() and eigenvalues[0] > 0.0:
            information = curved
    else:
        coordinates = LogCoordinates(k)
        begin = coordinates.of(mode.Psi[None], np.array([mode.sigma2]))[0]
        centre, information = _climb(space, coordinates, begin)
    try:
        L = np.linalg.cholesky(np.linalg.inv(information))
    except np.linalg.LinAlgError:
        raise SolverError(
            "the posterior is too flat at its mode for a Metropolis-Hastings proposal; give a prior with "
            'more degrees of freedom, or method="gibbs"'
        ) from None
    return Proposal(coordinates, centre, L, float(df))


def _climb(
    space: PosteriorSpace, coordinates: LogCoordinates, zeta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mode of the density of the log coordinates and information there, by Fisher scoring with halving."""

    def at(z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        sigma2, Psi, _ = coordinates.variances(z[None])
        point = space.point(space.kappa([Psi[0]], float(sigma2[0])))
        J = coordinates.jacobian(z, space)
        value = point.loglik + float(coordinates.weights @ z)
        return value, J.T @ point.score + coordinates.weights, J.T @ point.information("expected") @ J

    value, gradient, information = at(zeta)
    for _ in range(100):
        step = solve_information(information, gradient)
        if step is None or float(gradient @ step) < 1e-10:
            break
        t = 1.0
        while t > 1e-9:
            moved = at(zeta + t * step)
            if moved[0] > value:
                break
            t *= 0.5
        else:
            break
        zeta = zeta + t * step
        value, gradient, information = moved
    return zeta, information
