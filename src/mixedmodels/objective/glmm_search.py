"""The search for the estimates of a generalised linear mixed model: start, optimiser, boundary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError, SolverError
from mixedmodels.objective.glmm_boundary import (
    clearly_inside,
    on_boundary,
    with_positive_diagonals,
    zeros_tried,
)
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.optimum import Optimum, Status
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.solver._kernels.small import newton_step

if TYPE_CHECKING:
    from mixedmodels.objective.glmm import GLMMObjective

__all__ = ["METHODS", "SearchObjective", "search", "start_point"]

METHODS = ("auto", "newton", "lbfgsb", "nelder-mead", "cobyqa")
_ALIASES = {"l-bfgs-b": "lbfgsb", "nelder_mead": "nelder-mead", "trust-region": "newton"}
_DEFAULT = Control()
ATTEMPTS = 8  # to find a start where the criterion exists
SHRINKS = -0.2  # change of the logarithm of a standard deviation that pays for a step on that scale
FARTHEST = 1.0  # and the largest change of any parameter in such a step
PROBE = 1e-3  # length of the step off a possible saddle


class SearchObjective:
    """A `GLMMObjective` in the coordinates of the search, for `mixedmodels.optimize.minimize`.

    Parameters
    ----------
    objective : GLMMObjective
    start : ndarray
        Point of the search.
    """

    def __init__(self, objective: GLMMObjective, start: np.ndarray) -> None:
        self.objective = objective
        self.start = start
        self.names = tuple(f"v{j}" for j in range(len(start)))
        self.lower, self.upper = np.full(len(start), -np.inf), np.full(len(start), np.inf)

    def value(self, v: np.ndarray) -> float:
        """Criterion at a point of the search."""
        return self.objective.value(self.objective.point(v))

    def value_and_gradient(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """Criterion and gradient."""
        value, gradient, _ = self.objective.newton(v)
        return value, gradient

    def newton(self, v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and Newton matrix."""
        return self.objective.newton(v)


def start_point(objective: GLMMObjective, start: Any, names: Mapping[str, int]) -> np.ndarray:
    """psi to begin from: the computed one with what the user gave in its place.

    Parameters
    ----------
    objective : GLMMObjective
    start : None, mapping from name to value, or array
        An array holds all of psi, or theta only.
    names : mapping
        Places in psi of the names that may be given.

    Raises
    ------
    OptionError
        An unknown name, a wrong length, values that are not finite.
    """
    size = objective.n_gamma + objective.n_theta
    if start is None:
        psi = np.array(objective.start)
    elif isinstance(start, Mapping):
        psi = np.array(objective.start)
        for name, value in start.items():
            if name not in names:
                raise OptionError(f"start: there is no parameter {name!r}; available: {', '.join(names)}")
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise OptionError(f"start[{name!r}] must be a finite number, got {value!r}")
            psi[names[name]] = float(value)
    else:
        try:
            given = np.array(start, dtype=float).reshape(-1)
        except (TypeError, ValueError):
            raise OptionError(f"start must be a dict by name or an array of numbers, got {start!r}") from None
        if len(given) not in (size, objective.n_theta):
            raise OptionError(
                f"start has {len(given)} values; all parameters are {size} ({', '.join(objective.names)}), "
                f"covariance parameters alone {objective.n_theta}"
            )
        if not np.isfinite(given).all():
            raise OptionError("start holds values that are not finite")
        psi = given if len(given) == size else np.concatenate([objective.start[: objective.n_gamma], given])
    return psi


def search(
    objective: GLMMObjective,
    start: np.ndarray,
    method: str = "auto",
    control: Control | None = None,
    progress: Any = None,
    release: bool = True,
) -> Optimum:
    """Minimise the criterion.

    Parameters
    ----------
    objective : GLMMObjective
    start : ndarray
        psi.
    method : {"auto", "newton", "lbfgsb", "nelder-mead", "cobyqa"}
        "auto" and "newton": Newton's method in a trust region; the others as in `lmm`.
    control : Control, optional
    progress : "auto", True, False, None or callable
    release : bool
        Whether standard deviations held at zero are let go where the criterion falls.

    Returns
    -------
    Optimum
        theta is psi; gradient and Hessian, None where they are not known there, are those in the coordinates
        of the search (`GLMMObjective.joint_covariance` takes them).
    """
    control = _DEFAULT if control is None else control
    name = _ALIASES.get(str(method).lower(), method)
    if name not in METHODS:
        raise OptionError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    v = objective.v_of(start)
    if name not in ("auto", "newton") and len(v):
        from mixedmodels.optimize.minimize import minimize

        v = _feasible(objective, start)
        found = minimize(
            SearchObjective(objective, v), method=name, control=control, progress=progress, certify=False
        )
    else:
        exact = objective.exact_hessian

        def newton(begin: np.ndarray, function: Any = objective.newton) -> Optimum:
            return trust_region(
                function,
                begin,
                control,
                objective.names,
                progress,
                exact,
                objective.psi_of,
                newton_step,
            )

        try:
            first = _FirstStep(objective, v, control.limit(200) > 0)
            found = first.counted(newton(first.v, first.newton), control.trace)
        except (FloatingPointError, np.linalg.LinAlgError):  # at the start
            found = newton(_feasible(objective, start))
        for _ in range(control.escapes):
            off = None if exact or not found.converged else _off_saddle(objective, found.theta)
            if off is None:
                break
            more = newton(off)
            if not more.value < found.value - control.tol:
                break
            found = _joined(found, more)
    if objective.coordinates.curved and not objective.profiled:
        psi = objective.point(found.theta)
        beyond = [place for place in objective.coordinates.one_sided(psi) if objective.M[place].any()]
        if beyond:  # the minimum is on the bound of a standard deviation: the others are searched there
            psi[beyond] = 0.0
            more = search(objective.at_zero(beyond), psi, method, control, progress, False)
            more = _released(objective, more, beyond, (method, control, progress)) if release else more
            joined = _joined(found, replace(more, theta=more.theta))
            status = Status.BOUNDARY if joined.status is Status.CONVERGED else joined.status
            return replace(joined, gradient=None, hessian=None, status=status)
    return _finished(objective, found, control)


def _released(objective: GLMMObjective, found: Optimum, held: list[int], options: tuple) -> Optimum:
    """The search continued without those standard deviations at zero along which the criterion falls."""
    for _ in range(len(held)):
        try:
            gradient = objective.value_and_gradient(found.theta)[1]
        except FloatingPointError:
            return found
        down = [place for place in held if found.theta[place] == 0.0 and gradient[place] < -1e-6]
        if not down:
            return found
        place = min(down, key=lambda one: gradient[one])
        psi = np.array(found.theta)
        psi[place] = PROBE / objective.lengths[place]
        others = [one for one in held if one != place and found.theta[one] == 0.0]
        inside = objective.at_zero(others) if others else objective
        method, control, progress = options
        more = search(inside, psi, method, control, progress, False)
        if not more.value < found.value - 1e-9:
            return found
        found = more
    return found


class _FirstStep:
    r"""Where the trust region begins: after one step with standard deviations on the log scale.

    From a start that is too large, Newton's step in a standard deviation s overshoots, often beyond zero: the
    criterion grows like log s. With D = diag(s) for the coordinates :math:`v_j = s_j` of the search,
    :math:`e^{\tau}s` gives :math:`g_\tau = Dg, H_\tau = DHD + diag(s g)`. The step is taken if it makes one
    of them much smaller and lowers the criterion.

    Parameters
    ----------
    objective : GLMMObjective
    v : ndarray
    allowed : bool
        Whether a step may be taken at all.

    Attributes
    ----------
    v : ndarray
    """

    def __init__(self, objective: GLMMObjective, v: np.ndarray, allowed: bool) -> None:
        self.objective, self.v, self.start = objective, v, v
        self.tried = self.taken = False
        self.known: tuple[float, np.ndarray, np.ndarray] | None = None
        if not len(v) or not allowed:
            return
        self.known = objective.newton(v)
        self.value = self.known[0]
        trial = _on_log_scale(objective, v, self.known[1], self.known[2])
        if trial is None:
            return
        self.tried = True
        try:
            there = objective.newton(trial)
        except (FloatingPointError, np.linalg.LinAlgError):
            return
        if there[0] < self.value:
            self.v, self.known, self.taken = trial, there, True

    def counted(self, found: Optimum, trace: bool) -> Optimum:
        """The end of the search, with this step and its evaluation."""
        if not self.tried:
            return found
        steps = int(self.taken)
        points = [(i + steps, point, value) for i, point, value in found.trace]
        if trace and self.taken:
            points.insert(0, (0, self.objective.psi_of(self.start), self.value))
        return replace(
            found,
            iterations=found.iterations + steps,
            evaluations=found.evaluations + 1,
            gradient_evaluations=found.gradient_evaluations + 1,
            trace=points,
        )

    def newton(self, v: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """`GLMMObjective.newton`, whose answer at the first point is known."""
        if self.known is not None and v is not self.v and np.array_equal(v, self.v):
            found, self.known = self.known, None
            return found
        return self.objective.newton(v)


def _on_log_scale(objective: GLMMObjective, v: np.ndarray, g: np.ndarray, H: np.ndarray) -> np.ndarray | None:
    """The end of Newton's step with standard deviations on the log scale; None where it has no advantage."""
    J = objective._J[objective.n_gamma :] != 0.0
    single = J & (J.sum(axis=0) == 1) & (J.sum(axis=1) == 1)[:, None]
    single &= (objective.a[objective.n_gamma :] == 0.0)[:, None]
    single &= objective.scales[:, None]
    logs = single.any(axis=0) & (v != 0.0)
    if not logs.any():
        return None
    D = np.where(logs, v, 1.0)
    scaled = D[:, None] * H * D + np.diag(np.where(logs, v * g, 0.0))
    values, Q = np.linalg.eigh(scaled)
    if values[0] <= 1e-8 * values[-1]:
        return None
    step = -Q @ ((Q.T @ (D * g)) / values)
    change = step[logs]
    if not change.min() < SHRINKS or np.abs(step).max() > FARTHEST:
        return None
    trial = v + np.where(logs, 0.0, step)
    trial[logs] *= np.exp(change)
    return trial


def _feasible(objective: GLMMObjective, psi: np.ndarray) -> np.ndarray:
    """The start as a point of the search, with smaller variances until the criterion exists there."""
    n_gamma = objective.n_gamma
    reason: Exception | None = None
    for _ in range(ATTEMPTS):
        v = objective.v_of(psi)
        try:
            if np.isfinite(objective.marginal.modes(*objective._at(objective.psi_of(v))).penalised):
                return v
        except (FloatingPointError, np.linalg.LinAlgError) as error:
            reason = error
        psi = np.concatenate([psi[:n_gamma], 0.4 * psi[n_gamma:]])
    raise SolverError(
        f"the likelihood cannot be computed at the starting values ({reason}); give start= with coefficients "
        "whose means are all possible, or choose another link"
    )


def _off_saddle(objective: GLMMObjective, v: np.ndarray) -> np.ndarray | None:
    """A point below v if vanished factor columns are a saddle: one gradient next to it tells.

    The criterion is even in a column, so its gradient vanishes there whatever the curvature.
    """
    psi = objective.psi_of(v)
    units = objective.lengths[objective.n_gamma :]
    lower = objective.coordinates.map.lower
    moved = (objective.M != 0.0).any(axis=1)[objective.n_gamma :]
    tiny = np.flatnonzero((np.abs(psi[objective.n_gamma :]) * units < PROBE) & (lower == 0.0) & moved)
    if not len(tiny):
        return None
    trial = psi.copy()
    places = objective.n_gamma + tiny
    trial[places] = 2.0 * PROBE / units[tiny]
    near = objective.v_of(trial)
    try:
        gradient = objective.value_and_gradient(objective.psi_of(near))[1]
    except FloatingPointError:
        return None
    downhill = places[gradient[places] < 0.0]
    if not len(downhill):
        return None
    off = psi.copy()
    off[downhill] = 0.2 / units[downhill - objective.n_gamma]
    return objective.v_of(off)


def _joined(first: Optimum, second: Optimum) -> Optimum:
    """The second search with the counts of both."""
    return replace(
        second,
        iterations=first.iterations + second.iterations,
        evaluations=first.evaluations + second.evaluations,
        gradient_evaluations=first.gradient_evaluations + second.gradient_evaluations,
        trace=[*first.trace, *((first.iterations + i, v, f) for i, v, f in second.trace)],
        seconds=first.seconds + second.seconds,
    )


def _finished(objective: GLMMObjective, found: Optimum, control: Control) -> Optimum:
    """The optimum in psi, on the boundary exactly where it is there."""
    psi = objective.point(found.theta)
    gradient, hessian = found.gradient, found.hessian
    value, evaluations, status, message = found.value, found.evaluations, found.status, found.message
    if clearly_inside(objective, psi, control.snap):
        return _ended(objective, found, psi, value, gradient, hessian, evaluations, status, message)
    tidy = with_positive_diagonals(objective, psi)
    if not np.array_equal(tidy, psi):
        gradient, hessian = _flipped(objective, tidy * psi < 0.0, gradient, hessian)
        psi = tidy
    for trial in zeros_tried(objective, psi, control.snap) if status.converged else ():
        evaluations += 1
        try:
            there = objective.value(trial)
        except FloatingPointError:
            continue
        if there <= value + max(control.tol, 1e-9):
            psi, value, gradient, hessian = trial, there, None, None
            break
    if status is Status.CONVERGED and on_boundary(objective, psi):
        status = Status.BOUNDARY
        message = f"converged on the boundary. {status.remedy}"
    return _ended(objective, found, psi, value, gradient, hessian, evaluations, status, message)


def _ended(
    objective: GLMMObjective,
    found: Optimum,
    psi: np.ndarray,
    value: float,
    gradient: Any,
    hessian: Any,
    evaluations: int,
    status: Status,
    message: str,
) -> Optimum:
    return replace(
        found,
        theta=psi,
        value=value,
        gradient=gradient,
        hessian=hessian,
        evaluations=evaluations,
        status=status,
        message=message,
        names=tuple(objective.names),
    )


def _flipped(
    objective: GLMMObjective, changed: np.ndarray, gradient: Any, hessian: Any
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Derivatives in the coordinates of the search after entries of psi have changed their signs."""
    if gradient is None or hessian is None or objective.restricted or objective.profiled:
        return None, None
    K = np.linalg.solve(objective._J, np.where(changed, -1.0, 1.0)[:, None] * objective._J)
    return K.T @ gradient, K.T @ hessian @ K
