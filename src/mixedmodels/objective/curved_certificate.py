"""Conditions of a minimum for terms whose Sigmas form no cone: gradient and exact Hessian in theta."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.objective.parameters import gradient_of
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixedmodels.objective.lmm import LMMObjective

__all__ = ["CurvedConditions", "descend_along"]

_STEP = 1.0  # first step along a direction of negative curvature, in its scaled units


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


def descend_along(objective: LMMObjective, theta: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
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
