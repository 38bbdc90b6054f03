"""Schafer's hybrid: Fisher scoring on log sigma^2 and the inverse of xi, with ECME where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.fit.classical.em import ecme_step
from mixedmodels.fit.classical.search import Search, solve_information
from mixedmodels.optimize.optimum import Status

if TYPE_CHECKING:
    from mixedmodels.objective.component_space import ComponentSpace

__all__ = ["InverseCoordinates", "hybrid"]

# share of a component in the variance below which its logarithm runs to minus infinity
_VANISHED = 1e-6
_PATIENCE = 10  # rejected steps in a row before another method takes over


class InverseCoordinates:
    r"""Coordinates :math:`\eta = (\log\omega_{jj}, \omega_{jk}, \log\sigma^2)`, with
    :math:`\omega = \xi^{-1} = \sigma^2\Sigma^{-1}` term by term.

    Parameters
    ----------
    space : ComponentSpace

    Notes
    -----
    Schafer (1998), *Some improved procedures for linear mixed models*, section 3.
    """

    def __init__(self, space: ComponentSpace) -> None:
        self.space = space
        self.log = space.variances

    def of(self, kappa: np.ndarray) -> np.ndarray:
        """eta at kappa; every Sigma must be positive definite."""
        inverse = [kappa[-1] * np.linalg.inv(Sigma) for Sigma in self.space.sigmas(kappa)]
        omega = self.space.kappa(inverse, float(kappa[-1]))
        out = omega.copy()
        out[self.log] = np.log(omega[self.log])
        return out

    def _omega(self, eta: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]] | None:
        omega = np.array(eta)
        if (np.abs(eta[self.log]) > 300.0).any():
            return None
        omega[self.log] = np.exp(eta[self.log])
        matrices = self.space.sigmas(omega)
        if any(len(W) > 1 and np.linalg.eigvalsh(W)[0] <= 0.0 for W in matrices):
            return None
        return omega, matrices

    def kappa(self, eta: np.ndarray) -> np.ndarray | None:
        """kappa at eta; None where omega is not positive definite."""
        found = self._omega(eta)
        if found is None:
            return None
        omega, matrices = found
        sigma2 = float(omega[-1])
        return self.space.kappa([sigma2 * np.linalg.inv(W) for W in matrices], sigma2)

    def jacobian(self, eta: np.ndarray) -> np.ndarray:
        """``d kappa / d eta``, shape (size, size), at an eta with omega positive definite."""
        space = self.space
        omega, matrices = self._omega(eta)  # type: ignore[misc]
        sigma2 = float(omega[-1])
        xi = [np.linalg.inv(W) for W in matrices]
        J = np.empty((space.size, space.size))
        zero = [np.zeros_like(x) for x in xi]
        for i, row in enumerate(space.directions):
            moved = [z if E is None else -sigma2 * (x @ E @ x) for z, E, x in zip(zero, row, xi, strict=True)]
            J[:, i] = space.kappa(moved, 0.0) * (omega[i] if self.log[i] else 1.0)
        J[:, -1] = space.kappa([sigma2 * x for x in xi], sigma2)
        return J


def hybrid(search: Search, limit: int = 200, fallback: Callable[[Search], np.ndarray] | None = None) -> None:
    r"""Fisher scoring in :math:`\eta`; a step that lowers the log-likelihood is replaced by one of ECME.

    A step that leaves the space (omega not positive definite) is halved until it does not.

    Parameters
    ----------
    search : Search
        Begun, inside the space: no Sigma singular.
    limit : int
    fallback : callable, optional
        The step in the place of ECME, for another criterion: one of EM for the mode of a posterior.

    Notes
    -----
    Schafer (1998), section 3, with REML and posterior modes.
    """
    coordinates = InverseCoordinates(search.space)
    free = np.flatnonzero(search.free)
    rejected = 0
    while True:
        eta = coordinates.of(search.kappa)
        J = coordinates.jacobian(eta)[:, free]
        information = search.point.information("expected")
        score = J.T @ search.point.score
        step = np.zeros(search.space.size)
        part = solve_information(J.T @ information @ J, score)
        if part is not None:
            step[free] = part
            if search.measure(score, part):
                search.status = Status.CONVERGED
                search.last(coordinates.kappa(eta + step), "fisher")
                return
        stop = search.stop(limit)
        if stop is not None:
            search.status = stop
            return
        if fallback is None and _vanishes(search):
            search.status, search.note = (
                Status.STALLED,
                "a covariance matrix becomes singular, where its inverse does not exist",
            )
            return
        if rejected >= _PATIENCE:
            search.status, search.note = Status.STALLED, "scoring lowered the likelihood in step after step"
            return
        search.iterations += 1
        point = None
        if part is not None:
            t, target = 1.0, coordinates.kappa(eta + step)
            while target is None and t > 2.0**-search.rules.halvings:
                t *= 0.5
                target = coordinates.kappa(eta + t * step)
            if target is not None:
                point = search.at(target, None)
                if not search.better(point):
                    search.reject(target, point, "fisher", t)
                    point = None
        rejected = rejected + 1 if point is None else 0
        if point is None:
            target = ecme_step(search) if fallback is None else fallback(search)
            point, word, t = search.at(target, None), "ecme" if fallback is None else "em", np.nan
            if not search.better(point):
                search.reject(target, point, word, t)
                search.status = Status.STALLED
                return
        else:
            word = "fisher"
        if point is not None and search.accept(point, word, t):
            search.status = Status.CONVERGED
            return


def _vanishes(search: Search) -> bool:
    """Whether a covariance matrix is singular to the eye: a variance without share, a correlation of one."""
    space = search.space
    small = space.variances & (space.proportions(search.kappa) < _VANISHED)
    small[-1] = False
    if bool((small & (search.point.score < 0.0)).any()):
        return True
    for Sigma in space.sigmas(search.kappa):
        sd = np.sqrt(np.diagonal(Sigma))
        if len(Sigma) > 1 and np.linalg.eigvalsh(Sigma / np.outer(sd, sd))[0] < _VANISHED:
            return True
    return False
