r"""The search for (theta, phi): descents from coarse starts, then from starts in other modes.

1. Coarse starts (`mixedmodels.objective.structured_start`), and a descent from each
   (`mixedmodels.objective.structured_descent`).
2. Ends that look like one of several modes are asked for the others
   (`mixedmodels.objective.structured_modes`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.objective.structured_descent import (
    LIMIT,
    Runaway,
    Work,
    by_turns,
    in_trust_region,
    is_inside,
    limited,
    unsigned,
)
from mixedmodels.objective.structured_modes import mode_starts
from mixedmodels.objective.structured_start import coarse_starts, value_or_infinity
from mixedmodels.optimize import minimize
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective
    from mixedmodels.objective.structured_coordinates import OrthonormalTwin
    from mixedmodels.optimize.control import Control

__all__ = ["search"]

# Iterations with a range at its bound, and of a search for another mode.
_AT_BOUND, _LOOK = 20, 25
# Differences of the criterion: a better end, and one significant at 5 %.
_LOWER, _BETTER = 1e-6, 3.84
# Ends so far apart are different estimates.
_APART = 0.5

# Ends of searches: criterion and point.
Ends = list[tuple[float, np.ndarray]]


def search(objective: StructuredObjective, method: Any, start: np.ndarray | None, **keywords: Any) -> Any:
    """Minimise a structured criterion.

    Parameters
    ----------
    objective : StructuredObjective
    method : str or callable
        As for `minimize`.
    start : ndarray or None
        The user's start of (theta, phi).
    **keywords
        Those of `minimize`.

    Returns
    -------
    Optimum
    """
    if not objective.n_theta:
        return minimize(objective, method, start, certify=False, **keywords)
    if objective.twin is not None and method == "newton":
        twin = objective.twin
        inner = None if start is None else twin.inward @ objective.check(np.asarray(start, dtype=float))
        found = _search(twin.objective, method, inner, **keywords)
        return _outward(found, twin, objective)
    return _search(objective, method, start, **keywords)


def _outward(found: Any, twin: OrthonormalTwin, objective: StructuredObjective) -> Any:
    """An optimum of the twin in the coordinates of the model."""
    inward = twin.inward
    psi = np.clip(twin.outward @ found.theta, objective.lower, objective.upper)
    return replace(
        found,
        theta=psi,
        gradient=None if found.gradient is None else inward.T @ found.gradient,
        hessian=None if found.hessian is None else inward.T @ found.hessian @ inward,
        trace=[(i, twin.outward @ theta, value) for i, theta, value in found.trace],
        names=tuple(objective.names),
    )


def _search(objective: StructuredObjective, method: Any, start: np.ndarray | None, **keywords: Any) -> Any:
    """`search` in the coordinates of the objective."""
    control, work = keywords.get("control"), Work()
    starts = coarse_starts(objective) if start is None else [np.asarray(start, dtype=float)]
    cheap, end = objective.observed_is_cheap, None
    if method == "newton" and objective.n_phi and (cheap or not objective.n_random):
        end = _first_end(objective, starts, work, limited(control), keywords.get("progress"))
    settled = end is not None and end.converged and is_inside(objective, end.theta)
    if not settled:
        point = starts[0] if end is None else end.theta
        if method == "newton" and cheap:
            end = by_turns(objective, point, **keywords)
        else:
            end = minimize(objective, method, point, certify=False, **keywords)
        work.add(end)
    if start is None and method == "newton" and not _is_limited(control):
        if not (settled or cheap):
            end = _other_modes(objective, end, work, control)
        elif objective.n_phi:
            end = _other_valleys(objective, end, work, limited(control))
    return work.of(end)


def _first_end(
    objective: StructuredObjective, starts: list[np.ndarray], work: Work, control: Control, progress: Any
) -> Any:
    """The lowest end of descents from several starts; None where none of them could begin.

    A maximum at a finite range goes before the limit of an infinite one that is hardly better.
    """
    end: Any = None
    far: Ends = []
    for one in starts:
        try:
            found = in_trust_region(objective, one, control, progress)
        except Runaway as runaway:
            work.evaluations += runaway.evaluations
            far.append((value_or_infinity(objective, runaway.point), runaway.point))
            continue
        if found is not None:
            work.add(found)
            end = found if end is None or found.value < end.value else end
    if far:
        limit, point = min(far, key=lambda pair: pair[0])
        if end is None or limit < end.value - _BETTER:
            at_bound = replace(control, maxiter=min(control.limit(LIMIT), _AT_BOUND))
            end = minimize(objective, "newton", point, control=at_bound, certify=False)
            work.add(end)
    return end


def _other_valleys(objective: StructuredObjective, own: Any, work: Work, control: Control) -> Any:
    """The lowest of an end and of those of descents from `mode_starts`.

    A maximum of the likelihood goes before a limit at infinity that is hardly better.
    """
    starts = mode_starts(objective, own.theta)
    if not starts:
        return own
    best, known, crept = own, [(own.value, own.theta)], False
    quick = replace(control, maxiter=min(control.limit(LIMIT), _LOOK))
    for one in starts:
        try:
            found = in_trust_region(objective, one, quick, None, known)
        except Runaway as runaway:
            work.evaluations += runaway.evaluations
            continue
        if found is None:
            continue
        work.add(found)
        if found.converged:
            known.append((found.value, found.theta))
        if not found.value < best.value - (_LOWER if found.converged or not crept else _BETTER):
            continue
        if not found.converged or not is_inside(objective, found.theta):
            try:
                found = by_turns(objective, found.theta, control)
            except (Breakdown, FloatingPointError, np.linalg.LinAlgError):
                continue
            crept = crept or not found.converged
            work.add(found)
        if found.value < best.value - (_LOWER if found.converged or not own.converged else _BETTER):
            best = found
    objective.rival = _rival(objective, best, known)
    return best if best is own else replace(best, names=tuple(objective.names))


def _other_modes(objective: StructuredObjective, best: Any, work: Work, control: Any) -> Any:
    """The lowest of an end and of those from `mode_starts`, by the ordinary method."""
    keywords = {} if control is None else {"control": control}
    for one in mode_starts(objective, best.theta):
        try:
            found = minimize(objective, "newton", one, certify=False, **keywords)
        except (FloatingPointError, np.linalg.LinAlgError):
            continue
        work.add(found)
        if found.value < best.value - _LOWER:
            best = found
    return best


def _rival(objective: StructuredObjective, best: Any, known: Ends) -> float | None:
    """How much higher the lowest end elsewhere is; None if that is much or there is none."""
    units, r = objective.units, objective.n_random
    here = unsigned(best.theta * units, r)
    gaps = [
        value - best.value for value, end in known if np.abs(unsigned(end * units, r) - here).max() > _APART
    ]
    least = min(gaps, default=np.inf)
    return max(least, 0.0) if least < _BETTER else None


def _is_limited(control: Any) -> bool:
    """Whether the caller limits the work."""
    return control is not None and (control.maxiter is not None or control.max_seconds is not None)
