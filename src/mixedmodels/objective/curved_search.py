r"""More searches for structures with one correlation: the best of several minima.

With :math:`\Sigma = D R(\rho) D` and a standard deviation for each column the criterion is not even in a
standard deviation: each subset of them at zero may hold a minimum of its own, and the two signs of rho
another. The search goes on from the most promising of

* the standard deviations found, and those of the moments,
* as they are, or one of them zero,
* rho on a coarse grid,

at most four of them, from the two lowest valleys along a range, and at a bound from the estimates of a
general covariance. It ends at the lowest minimum.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.objective.curved_start import general_terms, starts_near_general, term_candidates
from mixedmodels.objective.start import ols_residual
from mixedmodels.optimize import minimize
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.minimize import PATIENCE
from mixedmodels.optimize.optimum import Status

if TYPE_CHECKING:
    from mixedmodels.objective.lmm import LMMObjective

__all__ = ["at_limit", "is_curved", "other_starts", "search_curved"]

_STARTS = 4  # searches beside the first
_VALLEYS = 2  # and from valleys along a range
_LOOK = 12  # iterations after which a search must be promising
_GRID = 5  # correlations between the bounds
_PSI = np.array([-1.0, 0.5, 2.0])  # shifts of a correlation without finite bounds
_RANGES = np.arange(-2.4, 3.1, 0.4)  # and of a logarithm of a range
_WIDEST = 8  # columns up to which each standard deviation is tried at zero
_GAIN = 1e-7  # smallest difference of the criterion that counts
_LARGE = 100.0  # standard deviations this many times the residual's may be on the way to infinity
_LEAP = 5.0  # from here a search that has not converged tries the end of that way
_LEVEL = 1e-2  # derivatives in the other parameters there
_FAR = 1e3  # where such a search ends
_FLAT = 1e-4  # what the criterion may still fall from there, and between there and the end of the search
_HOPE = 2.0  # a search this far above the best is left


def is_curved(objective: Any) -> bool:
    """Whether a term has standard deviations and parameters of correlation: `search_curved` applies."""
    curved = getattr(getattr(objective, "_map", None), "any_curved", False)
    return bool(curved) and any(hasattr(term.covariance, "correlation") for term in objective.design.terms)


def _one_correlation(structure: Any) -> bool:
    correlation = getattr(structure, "correlation", None)
    return correlation is not None and correlation.n_psi == 1 and structure.n_theta > 1


def search_curved(objective: LMMObjective, control: Control | None = None, progress: Any = None) -> Any:
    """Newton's method from the objective's start and from at most four others.

    Parameters
    ----------
    objective : LMMObjective
    control : Control, optional
    progress : as for `minimize`
        Shows the first search only.

    Returns
    -------
    Optimum
        The lowest; iterations and evaluations are those of all searches.
    """
    control = Control() if control is None else control
    limited = control.maxiter is not None or control.max_seconds is not None
    initial = control if limited else _brief(control)
    best = minimize(objective, "newton", None, initial, progress, certify=False)
    if not limited:
        best = _to_the_end(objective, best, control)
    if control.maxiter is not None or control.max_seconds is not None or best.status.value == "interrupted":
        return best  # the caller has limited the work
    spent, evaluations, gradients = best.iterations, best.evaluations, best.gradient_evaluations
    quick = replace(control, maxiter=_LOOK)
    starts, wide = _general_starts(objective, best.theta)
    if wide is not None:
        spent, evaluations = spent + wide.iterations, evaluations + wide.evaluations
        gradients += wide.gradient_evaluations
    for start in starts + other_starts(objective, best.theta):
        found = minimize(objective, "newton", start, quick, certify=False)
        spent, evaluations = spent + found.iterations, evaluations + found.evaluations
        gradients += found.gradient_evaluations
        if not found.converged and found.value < best.value + _HOPE:
            again = minimize(objective, "newton", found.theta, _brief(control), certify=False)
            found = _to_the_end(objective, again, control)
            spent, evaluations = spent + found.iterations, evaluations + found.evaluations
            gradients += found.gradient_evaluations
        lower = found.value < best.value - _GAIN * (1.0 if found.converged or not best.converged else 1e4)
        if lower or (found.converged and not best.converged and found.value <= best.value + _GAIN):
            best = found
    best = replace(best, iterations=spent, evaluations=evaluations, gradient_evaluations=gradients)
    return at_limit(objective, best) if control.maxiter is None else best


def _general_starts(objective: LMMObjective, theta: np.ndarray) -> tuple[list[np.ndarray], Any]:
    """Starts near the estimates with general covariances, and the search for those; see `general_terms`."""
    from mixedmodels.objective.lmm import LMMObjective
    from mixedmodels.solver.choose import choose_solver

    design, index = objective.design, objective._map.index
    terms = None if design.theta_index is not None else general_terms(design.terms, index, theta)
    if terms is None or any([term.m * term.k >= design.n for term in terms]):
        return [], None
    wide = replace(design, terms=terms)
    general = LMMObjective(wide, choose_solver(wide), objective.reml, sigma=objective.sigma_fixed)
    try:
        found = minimize(general, "newton", None, certify=False)
    except (SolverError, np.linalg.LinAlgError):
        return [], None
    factors = general.factors(found.theta)
    starts = starts_near_general(design.terms, index, terms, general._map.index, found.theta, factors)
    return [np.clip(start, objective.lower, objective.upper) for start in starts], found


def _brief(control: Control) -> Control:
    """So many iterations as an ordinary search takes at most."""
    return replace(control, maxiter=PATIENCE)


def _to_the_end(objective: LMMObjective, found: Any, control: Control) -> Any:
    """A search that goes on after `PATIENCE` iterations: first whether it is on the way to `at_limit`."""
    found = _back(objective, found)
    if found.converged or found.status is Status.INTERRUPTED:
        return found
    spent, evaluations, gradients = found.iterations, found.evaluations, found.gradient_evaluations
    largest, scaled = _leading(objective, found.theta)
    end = None
    if largest > _LEAP:
        point = _far(found.theta, largest, scaled)
        try:
            far = minimize(objective, "newton", point, _brief(control), certify=False)
            end = at_limit(objective, far)
        except (SolverError, np.linalg.LinAlgError):
            far = None
        if far is not None:
            spent, evaluations = spent + far.iterations, evaluations + far.evaluations
            gradients += far.gradient_evaluations
    if end is None or end.value > found.value or not _is_limit(end, scaled):
        end = minimize(objective, "newton", found.theta, control, certify=False)
        spent, evaluations = spent + end.iterations, evaluations + end.evaluations
        gradients += end.gradient_evaluations
    return replace(end, iterations=spent, evaluations=evaluations, gradient_evaluations=gradients)


def _back(objective: LMMObjective, found: Any) -> Any:
    """A search that went far beyond `_FAR`, where the criterion became rounding, at that point of its way.

    The criterion falls as 1/c^2 along c times the standard deviations: what lies further is not lower.
    """
    largest, scaled = _leading(objective, found.theta)
    if not largest > 2.0 * _FAR or objective.sigma_fixed is not None:
        return found
    point = _far(found.theta, largest, scaled)
    try:
        value, gradient = objective.value_and_gradient(point)
    except (SolverError, np.linalg.LinAlgError):
        return found
    if found.value > value - _FLAT:
        return found
    status = Status.STALLED if found.converged else found.status
    return replace(found, theta=point, value=float(value), gradient=gradient, hessian=None, status=status)


def _far(theta: np.ndarray, largest: float, scaled: np.ndarray) -> np.ndarray:
    """The point at `_FAR` of the way along which the parameters `scaled` grow together."""
    return np.where(scaled, theta * (_FAR / largest), theta)


def _is_limit(end: Any, scaled: np.ndarray) -> bool:
    """Whether the criterion falls along the way and is level in the other parameters."""
    if not end.converged or end.gradient is None:
        return False
    others = float(np.abs(end.gradient[~scaled]).max(initial=0.0))
    return bool(end.gradient[scaled] @ end.theta[scaled] <= 0.0) and others < _LEVEL


def _leading(objective: LMMObjective, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Largest standard deviation of terms with an effect for each row, and which parameters these are."""
    largest, scaled = 0.0, np.zeros(objective.n_theta, dtype=bool)
    for term, own in zip(objective.design.terms, objective._map.index, strict=True):
        structure: Any = term.covariance
        if getattr(structure, "correlation", None) is None or term.m * term.k < objective.design.n:
            continue
        sd = own[: structure.n_theta - structure.correlation.n_psi]
        scaled[sd] = True
        largest = max(largest, float(theta[sd].max()))
    return largest, scaled


def at_limit(objective: LMMObjective, optimum: Any) -> Any:
    """The end of a search along which the residual standard deviation tends to zero.

    A term with an effect for each row may take the place of the residuals; then the criterion falls towards
    a limit, as 1/c^2 along c times the standard deviations, and Newton's method never arrives. The search
    ends at c with standard deviations 1000 times the residual's, if the criterion is level from there on.

    Parameters
    ----------
    objective : LMMObjective
    optimum : Optimum

    Returns
    -------
    Optimum
        Converged at that point, or the one given.
    """
    optimum = _back(objective, optimum)
    theta = optimum.theta
    largest, scaled = _leading(objective, theta)
    if largest < (_FAR if optimum.converged else _LARGE):
        return optimum
    point = _far(theta, largest, scaled)
    try:
        value, gradient = objective.value_and_gradient(point)
    except (SolverError, np.linalg.LinAlgError):
        return optimum
    left = 0.5 * abs(float(gradient[scaled] @ point[scaled]))
    if not (abs(value - optimum.value) < _FLAT and left < _FLAT):
        return optimum
    return replace(
        optimum,
        theta=point,
        value=float(value),
        gradient=gradient,
        hessian=None,
        status=Status.CONVERGED,
        message="converged to the limit of a model without residual error.",
    )


def other_starts(objective: LMMObjective, theta: np.ndarray) -> list[np.ndarray]:
    """Valleys along a range, then at most four starts, each with its own pattern of zeros or sign.

    Parameters
    ----------
    objective : LMMObjective
    theta : ndarray, shape (n_theta,)
        The minimum found first.
    """
    design = objective.design
    w = np.ones(design.n) if design.weights is None else design.weights
    r = ols_residual(design.y, design.X, design.offset, w)
    error = objective.sigma_fixed
    level = 0.5 * float(w @ r**2) / max(design.n - design.p, 1) if error is None else error**2
    found: list[tuple[float, np.ndarray]] = []
    valleys: list[tuple[float, np.ndarray]] = []
    for term, own in zip(design.terms, objective._map.index, strict=True):
        structure: Any = term.covariance
        if not _one_correlation(structure):
            continue
        a = structure.n_theta - 1
        lists = [theta[own][:a]] + [one[:a] for one in term_candidates(term, r, w, level, design)[:2]]
        if _is_range(structure.correlation):
            valleys += _valleys(objective, structure.correlation, theta, own, lists)
        for pattern in _patterns(a):
            tried = [
                _valued(objective, theta, own, np.append(np.where(pattern, 0.0, sd), psi))
                for sd in lists
                for psi in _grid(structure.correlation, float(theta[own][-1]))
            ]
            for side in (-1.0, 1.0):  # the best of either sign
                half = [one for one in tried if side * (one[1][own[-1]] - _middle(structure)) >= 0.0]
                if half:
                    found.append(min(half, key=lambda pair: pair[0]))
    each = sorted(valleys, key=lambda pair: pair[0])[:_VALLEYS]
    each += sorted(found, key=lambda pair: pair[0])[:_STARTS]
    return [start for value, start in each if np.isfinite(value)]


def _is_range(correlation: Any) -> bool:
    """Whether the parameter is the logarithm of a range: bounds finite, and far apart."""
    return bool(4.0 < correlation.upper[0] - correlation.lower[0] < np.inf)


def _valleys(
    objective: LMMObjective, correlation: Any, theta: np.ndarray, own: np.ndarray, lists: list[np.ndarray]
) -> list[tuple[float, np.ndarray]]:
    """Local minima along the range, each with the best of the standard deviations."""
    grid = np.clip(float(correlation.start[0]) + _RANGES, correlation.lower[0], correlation.upper[0])
    best = [
        min((_valued(objective, theta, own, np.append(sd, psi)) for sd in lists), key=lambda pair: pair[0])
        for psi in np.unique(grid)
    ]
    values = np.array([np.inf, *(value for value, _ in best), np.inf])
    low = (values[1:-1] < values[:-2] - _GAIN) & (values[1:-1] <= values[2:] + _GAIN)  # a plateau once
    return [pair for pair, lowest in zip(best, low, strict=True) if lowest]


def _patterns(a: int) -> np.ndarray:
    """Which standard deviations are set to zero: none, or one of them, shape (p, a)."""
    none = np.zeros((1, a), dtype=bool)
    return np.concatenate([none, np.eye(a, dtype=bool)]) if 2 < a <= _WIDEST else none


def _middle(structure: Any) -> float:
    """The parameter of the correlation at its start: correlation zero, where the structure holds it."""
    return float(structure.correlation.start[0])


def _grid(correlation: Any, psi: float) -> np.ndarray:
    """Parameters of the correlation to look at."""
    lower, upper = float(correlation.lower[0]), float(correlation.upper[0])
    if np.isfinite(lower) and np.isfinite(upper):
        return np.linspace(lower, upper, 2 * _GRID + 1)[1::2]
    return np.clip(float(correlation.start[0]) + _PSI, lower, upper)


def _valued(
    objective: LMMObjective, theta: np.ndarray, own: np.ndarray, part: np.ndarray
) -> tuple[float, np.ndarray]:
    """The criterion with one term's parameters replaced, infinite where it does not exist."""
    trial = theta.copy()
    trial[own] = part
    trial = np.clip(trial, objective.lower, objective.upper)
    try:
        value = float(objective.value(trial))
    except (SolverError, np.linalg.LinAlgError):
        return np.inf, trial
    return (value if np.isfinite(value) else np.inf), trial
