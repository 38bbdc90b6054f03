"""Conditions of a minimum for terms whose Sigmas form no cone: gradient and exact Hessian in theta."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.objective.parameters import gradient_of
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixedmodels.covariance.base import Covariance
    from mixedmodels.objective.lmm import LMMObjective
    from mixedmodels.objective.user_factor import UserFactorObjective

__all__ = ["CurvedConditions", "descend_along", "descend_from_zero", "way_from_zero"]

_STEP = 1.0  # first step along a direction of negative curvature, in its scaled units
_GRID = 17  # correlations that are tried where there is one parameter of correlation


class CurvedConditions:
    """Gradient and observed information at a point, judged term by term.

    Parameters
    ----------
    objective : LMMObjective
    theta : ndarray
    T, M : sequences of (k, k) matrices, one per term
    """

    def __init__(
        self,
        objective: LMMObjective,
        theta: np.ndarray,
        T: Sequence[np.ndarray],
        M: Sequence[np.ndarray],
    ) -> None:
        self._objective, self._theta, self._T = objective, theta, T
        self._gradient = gradient_of(M, objective.directions(theta))
        self._hessian = objective.information(theta, "observed")

    def term(self, b: int) -> tuple[float, float, np.ndarray]:
        """Smallest scaled eigenvalue over the free parameters, size of the gradient, and its direction.

        Parameters are scaled by ``tr(T_b d2 Sigma_b)``, the largest possible curvature of the determinant.
        """
        objective, theta = self._objective, self._theta
        index, structure = objective._map.index[b], objective.design.terms[b].covariance
        size = np.abs(np.diagonal(structure.sigma_curvature(theta[index], self._T[b])))
        scale = np.divide(1.0, np.sqrt(size), out=np.zeros_like(size), where=size > 0.0)
        g = self._gradient[index]
        lower, upper = objective.lower[index], objective.upper[index]
        held = ((theta[index] <= lower) & (g > 0.0)) | ((theta[index] >= upper) & (g < 0.0))
        free = ~held | objective.mirrored[index]
        direction = np.zeros(objective.n_theta)
        if not free.any():
            return 0.0, 0.0, direction
        own = index[free]
        H = self._hessian[np.ix_(own, own)] * scale[free] * scale[free][:, None]
        values, vectors = np.linalg.eigh(H)
        direction[own] = scale[free] * vectors[:, 0]
        residual = float(np.max(np.abs(g * scale)[free])) / np.sqrt(objective.design.terms[b].m)
        return float(values[0]), residual, direction


def descend_along(
    objective: LMMObjective | UserFactorObjective, theta: np.ndarray, direction: np.ndarray
) -> np.ndarray | None:
    """The first point along a direction of negative curvature, either way, with a smaller criterion."""
    value, step = objective.value(theta), _STEP
    for _ in range(40):
        for sign in (1.0, -1.0):
            candidate = np.clip(theta + sign * step * direction, objective.lower, objective.upper)
            try:
                if objective.value(candidate) < value:
                    return candidate
            except Breakdown:
                pass
        step *= 0.5
    return None


def way_from_zero(structure: Covariance, M: np.ndarray, T: np.ndarray) -> tuple[float, np.ndarray] | None:
    r"""The most promising covariance of a term whose variances are all zero, in its own theta.

    There the criterion falls along :math:`t \Sigma(\theta)` exactly if :math:`\mathrm{tr}(M\Sigma) < 0`, and
    correlations have no derivative: those of the structure are tried, beside the one nearest to
    :math:`-M`'s positive part. None if M is positive semi-definite, when nothing falls.

    Returns
    -------
    ratio : float
        ``tr(M Sigma) / tr(T Sigma)``, at least -1 in practice and scale-free.
    theta : ndarray, shape (structure.n_theta,)
    """
    length = np.sqrt(np.maximum(np.diagonal(T), 0.0))
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0.0)
    values, vectors = np.linalg.eigh(M * scale * scale[:, None])
    if values[0] >= 0.0:
        return None
    half = scale[:, None] * vectors * np.sqrt(np.maximum(-values, 0.0))
    found = [structure.theta_near(half @ half.T)]
    correlation: Any = getattr(structure, "correlation", None)
    if correlation is not None:
        a = structure.n_theta - correlation.n_psi
        sd = found[0][:a]
        plain = scale if a > 1 else np.array([float(np.mean(scale))])
        found += [np.concatenate([one, psi]) for psi in _correlations(correlation) for one in (sd, plain)]
    best: tuple[float, np.ndarray] | None = None
    for theta in found:
        Sigma = structure.sigma(np.clip(theta, structure.lower, structure.upper))
        size = float(np.sum(T * Sigma))
        ratio = float(np.sum(M * Sigma)) / size if size > 0.0 else 0.0
        if best is None or ratio < best[0]:
            best = ratio, theta
    return best


def _correlations(correlation: Any) -> list[np.ndarray]:
    """Parameters of correlations to try: a grid between the bounds, or the structure's own candidates."""
    lower, upper = correlation.lower, correlation.upper
    if correlation.n_psi == 1 and np.isfinite(lower[0]) and np.isfinite(upper[0]):
        return [np.array([psi]) for psi in np.linspace(lower[0], upper[0], _GRID)]
    if hasattr(correlation, "candidates"):
        return list(correlation.candidates())
    return [np.asarray(correlation.start)]


def descend_from_zero(
    objective: LMMObjective, theta: np.ndarray, b: int, own: np.ndarray
) -> np.ndarray | None:
    """The first of ever smaller multiples of a covariance of term b at which the criterion is smaller."""
    structure, index = objective.design.terms[b].covariance, objective._map.index[b]
    correlation: Any = getattr(structure, "correlation", None)
    linear = np.arange(structure.n_theta if correlation is None else structure.n_theta - correlation.n_psi)
    value, step = objective.value(theta), 1.0
    size = float(np.sqrt(np.mean(np.abs(np.diagonal(structure.sigma(own))))))
    for _ in range(40):
        candidate, moved = theta.copy(), own.copy()
        moved[linear] *= step / size
        candidate[index] = moved
        candidate = np.clip(candidate, objective.lower, objective.upper)
        try:
            if objective.value(candidate) < value:
                return candidate
        except Breakdown:
            pass
        step *= 0.5
    return None
