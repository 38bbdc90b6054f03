r"""The search for (theta, phi).

1. A coarse start: the criterion along the coordinates of phi, then theta by the compiled search of the
   ordinary model in whitened rows. Likelihoods of spatial ranges have several maxima: every valley of a
   coarse scan of the range is a start of its own.
2. Newton's method in a trust region with the exact Hessian, where it is cheap: random effects and residual
   correlation compete, and the valleys between them are curved. Factors may have negative diagonals on the
   way: the criterion is even in the columns of a factor, and a zero variance is an ordinary minimum.
3. The ordinary method from there: exact zeros, saddle points, first-order conditions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.objective.structured_modes import mode_starts
from mixedmodels.optimize import minimize
from mixedmodels.optimize.base import columns_of_entries
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.solver._kernels.small import newton_step
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective
    from mixedmodels.objective.structured_coordinates import OrthonormalTwin

__all__ = ["coarse_starts", "search"]

# Structures of up to so many parameters are looked at along each coordinate before the search.
_FEW = 3
_SHIFTS = (-0.5, 0.5, 1.0)
_RANGE_SHIFTS = np.arange(-1.0, 5.01, 0.25)
_OTHERS = 1.0
_NEIGHBOUR = 0.3
# At most so many searches, and iterations in the trust region and with a range at its bound.
_SEARCHES = 3
_LIMIT = 60
_USUAL = Control(maxiter=_LIMIT)
# Iterations of the ordinary method in all, and before the trust region is asked again.
_ALL, _CREEP = 200, 30
# Tolerance of a search without the exact Hessian, in units of the usual one.
_INEXACT = 1e-4
_AT_BOUND = 20
# Ranges whose logarithms come so close to the bound are on the way to infinity.
_EDGE = 1.0
# Differences of the criterion: significant at 5 %, and hopeless for the start of a search.
_LOWER = 1e-6
# Iterations of a search for another mode, and when it has come to a known one.
_LOOK = 25
_SAME, _CLOSE = 1e-2, 0.1
# Ends so far apart are different estimates.
_APART = 0.5
_BETTER, _HOPELESS = 3.84, 30.0


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
    starts = coarse_starts(objective) if start is None else [np.asarray(start, dtype=float)]
    best, iterations, evaluations = starts[0], 0, 0
    end: Any = None
    if method == "newton" and objective.n_phi and (objective.observed_is_cheap or not objective.n_random):
        control = _limited(keywords.get("control"))
        far: list[tuple[float, np.ndarray]] = []
        for one in starts:
            try:
                found = _in_trust_region(objective, one, control, keywords.get("progress"))
            except _Runaway as runaway:
                evaluations += runaway.evaluations
                far.append((_value(objective, runaway.point), runaway.point))
                continue
            if found is None:
                continue
            iterations, evaluations = iterations + found.iterations, evaluations + found.evaluations
            if end is None or found.value < end.value:
                end = found
        limit, psi = min(far, key=lambda pair: pair[0]) if far else (np.inf, best)
        # a maximum at a finite range goes before the limit of an infinite one that is hardly better
        if far and (end is None or limit < end.value - _BETTER):
            limited = replace(control, maxiter=min(control.limit(_LIMIT), _AT_BOUND))
            end = minimize(objective, "newton", psi, control=limited, certify=False)
            iterations, evaluations = iterations + end.iterations, evaluations + end.evaluations
        if end is not None:
            best = end.theta
    is_free = start is None and method == "newton" and not _is_limited(keywords.get("control"))
    if end is not None and end.converged and _is_inside(objective, end.theta):
        if is_free:
            end, more = _other_valleys(objective, end, control)
            iterations, evaluations = iterations + more[0], evaluations + more[1]
        if (iterations, evaluations) == (end.iterations, end.evaluations):
            return end
        return replace(
            end,
            iterations=iterations,
            evaluations=evaluations,
            gradient_evaluations=evaluations,
            names=objective.names,
        )
    if method != "newton" or not objective.observed_is_cheap:
        optimum = minimize(objective, method, best, certify=False, **keywords)
        if is_free:
            optimum = _other_modes(objective, optimum, keywords.get("control"))
    else:
        optimum = _by_turns(objective, best, **keywords)
        if is_free and objective.n_phi:
            first = optimum
            optimum, more = _other_valleys(objective, optimum, _limited(keywords.get("control")))
            if optimum is not first:
                optimum = replace(optimum, names=objective.names)
            iterations, evaluations = iterations + more[0], evaluations + more[1]
    return replace(
        optimum,
        iterations=optimum.iterations + iterations,
        evaluations=optimum.evaluations + evaluations,
        gradient_evaluations=optimum.gradient_evaluations + evaluations,
    )


def _is_limited(control: Any) -> bool:
    """Whether the caller limits the work."""
    return control is not None and (control.maxiter is not None or control.max_seconds is not None)


def _other_valleys(objective: StructuredObjective, optimum: Any, control: Any) -> tuple[Any, tuple[int, int]]:
    """The lowest of an end and of those from `mode_starts`, and the iterations and evaluations it took.

    A maximum of the likelihood goes before a limit at infinity that is hardly better.
    """
    starts = mode_starts(objective, optimum.theta)
    if not starts:
        return optimum, (0, 0)
    best, known, own = optimum, [(optimum.value, optimum.theta)], optimum
    iterations, evaluations, crept = 0, 0, False
    quick = replace(control, maxiter=min(control.limit(_LIMIT), _LOOK))
    for one in starts:
        try:
            found = _in_trust_region(objective, one, quick, None, known)
        except _Runaway as runaway:
            evaluations += runaway.evaluations
            continue
        if found is None:
            continue
        iterations, evaluations = iterations + found.iterations, evaluations + found.evaluations
        if found.converged:
            known.append((found.value, found.theta))
        if not found.value < best.value - (_LOWER if found.converged or not crept else _BETTER):
            continue
        if not found.converged or not _is_inside(objective, found.theta):
            try:
                found = _by_turns(objective, found.theta, control)
            except (Breakdown, FloatingPointError, np.linalg.LinAlgError):
                continue
            crept = crept or not found.converged
            iterations, evaluations = iterations + found.iterations, evaluations + found.evaluations
        if found.value < best.value - (_LOWER if found.converged or not own.converged else _BETTER):
            best = found
    objective.rival = _rival(objective, best, known)
    if best is not own:  # the work of all searches is added to that of the first
        best = replace(best, iterations=own.iterations, evaluations=own.evaluations)
        best = replace(best, gradient_evaluations=own.gradient_evaluations)
    return best, (iterations, evaluations)


def _rival(objective: StructuredObjective, best: Any, known: list[tuple[float, np.ndarray]]) -> float | None:
    """How much higher the lowest end elsewhere is; None if that is much or there is none."""
    units, r = objective.units, objective.n_random
    here = _unsigned(best.theta * units, r)
    gaps = [
        value - best.value for value, end in known if np.abs(_unsigned(end * units, r) - here).max() > _APART
    ]
    least = min(gaps, default=np.inf)
    return max(least, 0.0) if least < _BETTER else None


def _is_known(value: float, v: np.ndarray, known: list[tuple[float, np.ndarray]]) -> bool:
    """Whether a search is about to arrive where another has been; v without signs, in its own units."""
    return any([0.0 <= value - old < _SAME and np.abs(v - end).max() < _CLOSE for old, end in known])


def _other_modes(objective: StructuredObjective, optimum: Any, control: Any) -> Any:
    """The lowest of an end and of those from `mode_starts`, by the ordinary method."""
    keywords = {} if control is None else {"control": control}
    iterations, evaluations = optimum.iterations, optimum.evaluations
    for one in mode_starts(objective, optimum.theta):
        try:
            found = minimize(objective, "newton", one, certify=False, **keywords)
        except (FloatingPointError, np.linalg.LinAlgError):
            continue
        iterations, evaluations = iterations + found.iterations, evaluations + found.evaluations
        if found.value < optimum.value - _LOWER:
            optimum = found
    return replace(optimum, iterations=iterations, evaluations=evaluations, gradient_evaluations=evaluations)


def _by_turns(objective: StructuredObjective, start: np.ndarray, control: Any = None, **keywords: Any) -> Any:
    """The ordinary method; where it leaves a saddle and creeps, the trust region from there, and again."""
    control = Control() if control is None else control
    limit = control.limit(_ALL)
    first = replace(control, maxiter=min(limit, _CREEP))
    optimum = minimize(objective, "newton", start, certify=False, control=first, **keywords)
    left = limit - optimum.iterations
    if optimum.converged or left <= 0:
        return optimum
    try:
        found = _in_trust_region(objective, optimum.theta, _limited(control), keywords.get("progress"))
    except _Runaway:  # towards an infinite range: the ordinary method goes on to the bound
        found = None
    point = optimum.theta if found is None or found.value > optimum.value else found.theta
    last = minimize(
        objective, "newton", point, certify=False, control=replace(control, maxiter=left), **keywords
    )
    spent = 0 if found is None else found.iterations
    more = 0 if found is None else found.evaluations
    return replace(
        last,
        iterations=optimum.iterations + spent + last.iterations,
        evaluations=optimum.evaluations + more + last.evaluations,
    )


def _is_inside(objective: StructuredObjective, psi: np.ndarray) -> bool:
    """Whether a point is far from all bounds: nothing to set to zero, no saddle on the boundary to leave."""
    near = 1e-3 / objective.units
    return bool(np.all(psi - objective.lower > near) and np.all(objective.upper - psi > near))


def _limited(control: Control | None) -> Control:
    """The user's control with the limit of the trust region."""
    return _USUAL if control is None else replace(control, maxiter=min(control.limit(_LIMIT), _LIMIT))


class _Runaway(Exception):
    """A range close to its bound or beyond it."""

    def __init__(self, point: np.ndarray, evaluations: int) -> None:
        super().__init__()
        self.point, self.evaluations = point, evaluations


def _in_trust_region(
    objective: StructuredObjective,
    start: np.ndarray,
    control: Any,
    progress: Any,
    known: list[tuple[float, np.ndarray]] | None = None,
) -> Any:
    """A search in the trust region, its end reflected into the bounds; None if it cannot begin.

    It stops (`_Runaway`) on the way to an infinite range and close to one of the ends that are known.
    """
    units, is_exact = objective.units, objective.observed_is_cheap
    exact = objective.exact if is_exact else objective.newton
    far, count = list(objective.ranges), 0
    r, natural = objective.n_random, bool((units == 1.0).all())
    ends = [(value, _unsigned(end * units, r)) for value, end in known or ()]

    def newton(v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        nonlocal count
        if natural and not far and not ends:
            return exact(v)
        beyond = [j for j in far if v[j] / units[j] > objective.upper[j] - _EDGE]
        if beyond:
            psi = np.maximum(v / units, objective.lower)
            psi[beyond] = objective.upper[beyond]
            raise _Runaway(psi, count)
        count += 1
        value, gradient, H = exact(v / units)
        if ends and _is_known(value, _unsigned(v, r), ends):
            raise _Runaway(v / units, count)
        return value, gradient / units, H / units / units[:, None]

    if not is_exact:  # the last step is not Newton's: what is left counts
        limit = _ALL if control.maxiter == _LIMIT else control.maxiter
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


def _unsigned(v: np.ndarray, r: int) -> np.ndarray:
    """Parameters of random effects without their signs, the others as they are."""
    return np.concatenate([np.abs(v[:r]), v[r:]])


def coarse_starts(objective: StructuredObjective) -> list[np.ndarray]:
    """Starts from the criterion's values along the coordinates of phi, then theta by its own search.

    Parameters
    ----------
    objective : StructuredObjective

    Returns
    -------
    list of ndarray, shape (n_theta,)
        The most promising first.
    """
    psi = objective.start
    if objective.ranges:
        starts = _valleys(objective, psi, objective.ranges[0])
    elif (phi := _general_phi(objective)) is not None:
        starts = [np.concatenate([psi[: objective.n_random], phi])]
    elif 0 < objective.n_phi <= _FEW:
        best = np.inf
        for j in range(objective.n_random, objective.n_theta):
            trials = np.array([_shifted(objective, psi, j, shift) for shift in _SHIFTS])
            if best == np.inf:
                trials = np.concatenate([psi[None], trials])
            values = objective.values(psi, trials[:, objective.n_random :])
            least = int(values.argmin())
            if values[least] < best:
                psi, best = trials[least], float(values[least])
        starts = [psi]
    else:
        starts = [psi]
    entries = objective.linear_entries
    variances = not objective._map.any_curved and bool(np.all(entries[:, 1] == entries[:, 2]))
    if not objective.n_random or (objective.compiled is not None and variances):
        return starts  # without covariances the joint search finds them as fast
    return [_theta_at_phi(objective, one) for one in starts]


def _general_phi(objective: StructuredObjective) -> np.ndarray | None:
    """Start of a general correlation between visits from steps of the EM algorithm; None for others."""
    if getattr(objective.residual, "correlation", None) is None:
        return None
    from mixedmodels.residual.visit_moments import general_start

    design = objective.design
    y = design.y if design.offset is None else design.y - design.offset
    phi = general_start(objective.residual, y, design.X, objective.reml)
    if phi is None:
        return None
    psi = np.concatenate([objective.start[: objective.n_random], phi])
    return phi if np.isfinite(_value(objective, psi)) else None


def _valleys(objective: StructuredObjective, psi: np.ndarray, j: int) -> list[np.ndarray]:
    """Local minima of coarse scans of one coordinate, the lowest first; neighbours count once.

    With other coordinates of the residuals at their starts, and moved up a little (a larger nugget).
    """
    found: list[tuple[float, np.ndarray]] = []
    moved = psi.copy()
    others = [i for i in range(objective.n_random, objective.n_theta) if i != j]
    moved[others] = np.clip(psi[others] + _OTHERS, objective.lower[others], objective.upper[others])
    for base in (psi, moved) if others else (psi,):
        trials = np.array([_shifted(objective, base, j, float(shift)) for shift in _RANGE_SHIFTS])
        values = objective.values(base, trials[:, objective.n_random :])
        padded = np.concatenate([[np.inf], values, [np.inf]])
        low = np.flatnonzero((values <= padded[:-2]) & (values <= padded[2:]) & np.isfinite(values))
        found += [(float(values[i]), trials[i]) for i in low.tolist()]
    out: list[np.ndarray] = []
    least = min([value for value, _ in found], default=np.inf)
    for value, trial in sorted(found, key=lambda pair: pair[0]):
        if value > least + _HOPELESS or len(out) == _SEARCHES:
            break
        if all(abs(trial[j] - other[j]) > _NEIGHBOUR for other in out):
            out.append(trial)
    return out or [psi]


def _shifted(objective: StructuredObjective, psi: np.ndarray, j: int, shift: float) -> np.ndarray:
    out = psi.copy()
    out[j] = min(max(out[j] + shift, objective.lower[j]), objective.upper[j])
    return out


def _value(objective: StructuredObjective, psi: np.ndarray) -> float:
    """The criterion, infinite where it does not exist."""
    try:
        value = objective.value(psi)
    except (FloatingPointError, np.linalg.LinAlgError):
        return np.inf
    return value if np.isfinite(value) else np.inf


def _theta_at_phi(objective: StructuredObjective, psi: np.ndarray) -> np.ndarray:
    """The best theta at the phi of psi, where the whitened model has a compiled search."""
    try:
        inner = objective.at_phi(psi)
        facts = inner.newton_minimize(psi[: objective.n_random], tol=1e-3, maxiter=15)
    except (Breakdown, np.linalg.LinAlgError):
        return psi
    if facts is None or not np.all(np.isfinite(facts["theta"])):
        return psi
    out = psi.copy()
    out[: objective.n_random] = np.clip(facts["theta"], inner.lower, inner.upper)
    return out
