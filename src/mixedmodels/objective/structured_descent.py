r"""One descent of a structured criterion: Newton's method in a trust region, and the ordinary method.

The trust region takes the exact Hessian, where it is cheap: random effects and residual correlation compete,
and the valleys between them are curved. Factors may have negative diagonals on the way: the criterion is even
in the columns of a factor, and a zero variance is an ordinary minimum. The ordinary method goes on from
there: exact zeros, saddle points, first-order conditions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.optimize import minimize
from mixedmodels.optimize.base import columns_of_entries
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.solver._kernels.small import newton_step

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective

__all__ = ["Runaway", "Work", "by_turns", "in_trust_region", "is_inside", "limited", "unsigned"]

# Iterations in the trust region, of the ordinary method in all, and before the trust region is asked again.
LIMIT = 60
_ALL, _CREEP = 200, 30
_USUAL = Control(maxiter=LIMIT)
# Tolerance of a search without the exact Hessian, in units of the usual one.
_INEXACT = 1e-4
# Ranges whose logarithms come so close to the bound are on the way to infinity.
_EDGE = 1.0
# Differences of the criterion and of parameters in their units: on the way to an end that is known.
_SAME, _CLOSE = 1e-2, 0.1


@dataclass(slots=True)
class Work:
    """Iterations and evaluations of several descents."""

    iterations: int = 0
    evaluations: int = 0

    def add(self, found: Any) -> None:
        """Count those of one descent."""
        self.iterations += found.iterations
        self.evaluations += found.evaluations

    def of(self, optimum: Any) -> Any:
        """An optimum that took all of them."""
        if (optimum.iterations, optimum.evaluations) == (self.iterations, self.evaluations):
            return optimum
        return replace(
            optimum,
            iterations=self.iterations,
            evaluations=self.evaluations,
            gradient_evaluations=self.evaluations,
        )


class Runaway(Exception):
    """A range close to its bound or beyond it."""

    def __init__(self, point: np.ndarray, evaluations: int) -> None:
        super().__init__()
        self.point, self.evaluations = point, evaluations


def limited(control: Control | None) -> Control:
    """The user's control with the limit of the trust region."""
    return _USUAL if control is None else replace(control, maxiter=min(control.limit(LIMIT), LIMIT))


def is_inside(objective: StructuredObjective, psi: np.ndarray) -> bool:
    """Whether a point is far from all bounds: nothing to set to zero, no saddle on the boundary to leave."""
    near = 1e-3 / objective.units
    return bool(np.all(psi - objective.lower > near) and np.all(objective.upper - psi > near))


def unsigned(v: np.ndarray, r: int) -> np.ndarray:
    """Parameters of random effects without their signs, the others as they are."""
    return np.concatenate([np.abs(v[:r]), v[r:]])


def _is_known(value: float, v: np.ndarray, known: list[tuple[float, np.ndarray]]) -> bool:
    """Whether a search is about to arrive where another has been; v without signs, in its own units."""
    return any([0.0 <= value - old < _SAME and np.abs(v - end).max() < _CLOSE for old, end in known])


def in_trust_region(
    objective: StructuredObjective,
    start: np.ndarray,
    control: Any,
    progress: Any,
    known: list[tuple[float, np.ndarray]] | None = None,
) -> Any:
    """A search in the trust region, its end reflected into the bounds; None if it cannot begin.

    It stops (`Runaway`) on the way to an infinite range and close to one of the ends that are known.
    """
    units, is_exact = objective.units, objective.observed_is_cheap
    exact = objective.exact if is_exact else objective.newton
    far, count = list(objective.ranges), 0
    r, natural = objective.n_random, bool((units == 1.0).all())
    ends = [(value, unsigned(end * units, r)) for value, end in known or ()]

    def newton(v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        nonlocal count
        if natural and not far and not ends:
            return exact(v)
        beyond = [j for j in far if v[j] / units[j] > objective.upper[j] - _EDGE]
        if beyond:
            psi = np.maximum(v / units, objective.lower)
            psi[beyond] = objective.upper[beyond]
            raise Runaway(psi, count)
        count += 1
        value, gradient, H = exact(v / units)
        if ends and _is_known(value, unsigned(v, r), ends):
            raise Runaway(v / units, count)
        return value, gradient / units, H / units / units[:, None]

    if not is_exact:  # the last step is not Newton's: what is left counts
        limit = _ALL if control.maxiter == LIMIT else control.maxiter
        control = replace(control, maxiter=limit, tol=_INEXACT * control.tol)
    try:
        found = trust_region(
            newton,
            start * units,
            control,
            names=objective.names,
            progress=progress,
            exact=is_exact,
            shown=lambda v: v / units,
            solve=newton_step if is_exact else None,
        )
    except (FloatingPointError, np.linalg.LinAlgError):
        return None
    psi = found.theta / units
    if objective.n_random and psi[: objective.n_random].min() < 0.0:
        for columns in columns_of_entries(objective._map.linear_entries):
            if psi[columns[0]] < 0.0:
                psi[columns] = -psi[columns]
    return replace(found, theta=np.clip(psi, objective.lower, objective.upper))


def by_turns(objective: StructuredObjective, start: np.ndarray, control: Any = None, **keywords: Any) -> Any:
    """The ordinary method; where it leaves a saddle and creeps, the trust region from there, and again."""
    control = Control() if control is None else control
    limit, work = control.limit(_ALL), Work()
    first = replace(control, maxiter=min(limit, _CREEP))
    optimum = minimize(objective, "newton", start, certify=False, control=first, **keywords)
    work.add(optimum)
    left = limit - optimum.iterations
    if optimum.converged or left <= 0:
        return optimum
    point = optimum.theta
    try:
        found = in_trust_region(objective, point, limited(control), keywords.get("progress"))
    except Runaway:  # towards an infinite range: the ordinary method goes on to the bound
        found = None
    if found is not None:
        work.add(found)
        point = point if found.value > optimum.value else found.theta
    left_over = replace(control, maxiter=left)
    last = minimize(objective, "newton", point, certify=False, control=left_over, **keywords)
    work.add(last)
    return work.of(last)
