"""First-order conditions at a point: is it a minimum on the cone, and if not, which way out?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.objective.curved_certificate import (
    CurvedConditions,
    descend_along,
    descend_from_zero,
    way_from_zero,
)
from mixedmodels.objective.parameters import lower_factor
from mixedmodels.optimize.base import Certificate
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.design import RandomTerm
    from mixedmodels.objective.lmm import LMMObjective

__all__ = ["certify", "smallest_direction"]

# A factor counts as singular when its smallest eigenvalue, in units of the data, is below this share of
# the largest possible effect (1: a column whose random effects have the size of the residuals).
_SINGULAR = 1e-6
# A scaled eigenvalue above -_NEGATIVE is what a converged search leaves; a way out must promise a
# decrease of the criterion of at least _GAIN.
_NEGATIVE = 1e-6
_GAIN = 1e-9


def certify(
    objective: LMMObjective,
    theta: np.ndarray,
    factors: Sequence[np.ndarray],
    T: Sequence[np.ndarray],
    M: Sequence[np.ndarray],
) -> Certificate:
    r"""Certificate of a point from its M_b and T_b.

    With D_b = diag(T_b) everything is scale-free: ``min_eigenvalues`` are those of
    :math:`D^{-1/2} M D^{-1/2}` on the structure's cone (at most 1; 0 inside the cone at an optimum),
    ``residuals`` are :math:`|D^{-1/2} M \lambda|_F / \sqrt{m}`. Terms that share all their parameters
    are judged by the sum of their M. Terms that are not linear in theta have no cone: theirs are the smallest
    eigenvalue of the exact Hessian and the gradient (`CurvedConditions`).

    Parameters
    ----------
    objective : LMMObjective
    theta : ndarray
    factors, T, M : sequences of (k, k) matrices, one per term
    """
    terms, groups = objective.design.terms, objective._map.tied
    eigenvalues: list[float] = []
    residuals: list[float] = []
    singular: list[bool] = []
    ways: list[tuple[float, int, np.ndarray | None]] = []
    zero_ways: dict[int, np.ndarray] = {}
    conditions = CurvedConditions(objective, theta, T, M) if objective._map.any_curved else None
    for b, term in enumerate(terms):
        if conditions is not None and objective._map.curved[b]:
            smallest, residual, v = conditions.term(b)
            eigenvalues.append(smallest)
            residuals.append(residual)
            ways.append((smallest, b, v))
            singular.append(_is_singular(term, factors[b]))
            if not factors[b].any() and len(groups[b]) == 1:
                found = way_from_zero(term.covariance, M[b], T[b])
                if found is not None and found[0] < min(smallest, -_NEGATIVE):
                    eigenvalues[-1] = found[0]
                    ways[-1] = found[0], b, None
                    zero_ways[b] = found[1]
            continue
        M_sum, T_sum = np.sum([M[c] for c in groups[b]], axis=0), np.sum([T[c] for c in groups[b]], axis=0)
        levels = sum(terms[c].m for c in groups[b])
        clip = term.covariance.clip
        length = np.sqrt(np.maximum(np.diagonal(T_sum), 0.0))
        scale = np.divide(1.0, length, out=np.zeros(term.k), where=length > 0.0)
        smallest, v = smallest_direction(M_sum, T_sum, scale, clip)
        eigenvalues.append(smallest)
        ways.append((smallest, b, v))
        image = M_sum @ factors[b]
        if clip == "diagonal":
            image = np.diag(np.diagonal(image))
        elif clip == "trace":
            image = np.eye(term.k) * float(np.trace(image)) / term.k
        residuals.append(float(np.linalg.norm(scale[:, None] * image) / np.sqrt(levels)))
        singular.append(_is_singular(term, factors[b]))
    worst = min(ways, key=lambda way: way[0]) if ways else None
    escape = None
    if worst is not None and worst[0] < -_NEGATIVE:
        _, place, way = worst

        def escape(point: np.ndarray) -> np.ndarray | None:
            if way is None:
                return descend_from_zero(objective, point, place, zero_ways[place])
            if objective._map.curved[place]:
                return descend_along(objective, point, way)
            return _escape(objective, point, groups[place], way)

    return Certificate(
        min_eigenvalues=tuple(eigenvalues),
        residuals=tuple(residuals),
        escape=escape,
        terms=tuple(term.group for term in terms),
        singular=tuple(singular),
    )


def _is_singular(term: RandomTerm, factor: np.ndarray) -> bool:
    """Whether a factor is singular, in units of the data."""
    if term.several_levels:
        weight = np.sqrt(np.diagonal(term.gram(term.n)))
    else:
        weight = np.sqrt(np.mean(np.ones(1) if term.Z is None else term.Z**2, axis=0)).reshape(-1)
    values = np.linalg.svd(weight[:, None] * factor, compute_uv=False)
    return bool(values[-1] <= _SINGULAR * max(1.0, values[0]))


def smallest_direction(
    M: np.ndarray, T: np.ndarray, scale: np.ndarray, clip: str
) -> tuple[float, np.ndarray]:
    """Smallest scaled eigenvalue of M on a cone and its direction v, (k, c): d Sigma = v v'."""
    k = M.shape[0]
    if clip == "trace":
        total = float(np.trace(T))
        return (float(np.trace(M)) / total if total > 0.0 else 0.0), np.eye(k)
    scaled = M * scale * scale[:, None]
    if clip == "diagonal":
        j = int(np.argmin(np.diagonal(scaled)))
        return float(scaled[j, j]), np.eye(k)[:, j : j + 1]
    values, vectors = np.linalg.eigh(scaled)
    return float(values[0]), scale[:, None] * vectors[:, :1]


def _escape(
    objective: LMMObjective, theta: np.ndarray, tied: Sequence[int], v: np.ndarray
) -> np.ndarray | None:
    """``Sigma + tau v v'``, tau from one Newton step along that line, halved until the criterion falls."""
    theta = objective._map.check(theta)
    factors = objective._map.factors(theta)
    dS = v @ v.T
    direction = [dS if b in tied else None for b in range(len(factors))]
    parts = objective.solver.components(factors, 2, [direction], objective.reml)
    slope = sum(float(np.sum(objective._M(parts)[b] * dS)) for b in tied)
    curvature = float(objective._average(parts, [direction])[0, 0])
    if not slope < 0.0 or not curvature > 0.0 or 0.5 * slope**2 / curvature < _GAIN:
        return None
    value, tau = objective._criterion(parts), -slope / curvature
    for _ in range(40):
        moved = list(factors)
        for b in tied:
            moved[b] = lower_factor(factors[b] @ factors[b].T + tau * dS)
        candidate = np.clip(objective.theta_of(moved), objective.lower, objective.upper)
        try:
            if objective.value(candidate) < value:
                return candidate
        except Breakdown:
            pass
        tau *= 0.5
    return None
