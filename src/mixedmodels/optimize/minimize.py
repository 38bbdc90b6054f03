"""One door to every optimiser."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.optimize.cone_factors import has_cone
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.newton import Run, Search, newton
from mixedmodels.optimize.optimum import KKT, Optimum, Status, Trace
from mixedmodels.optimize.progress import Progress
from mixedmodels.optimize.steps import descend, factorise

__all__ = ["METHODS", "minimize", "with_conditions"]

METHODS = (
    "newton",
    "ai",
    "fisher",
    "newton-raphson",
    "lbfgsb",
    "em",
    "ecme",
    "cobyqa",
    "bobyqa-like",
    "nelder-mead",
    "grid",
)

_STATUS = tuple(Status)

PATIENCE = 30  # iterations on the cone before the search is finished by another method
# Random effects this many times the residual: pwrss is rounding, the criterion has no minimum.
PERFECT = 1e6


def minimize(
    objective: Any,
    method: str | Callable[..., Any] = "newton",
    start: np.ndarray | None = None,
    control: Control = Control(),  # noqa: B008 (frozen)
    progress: Any = None,
    certify: bool = True,
) -> Optimum:
    """Minimise an objective over its bounds.

    Parameters
    ----------
    objective : Objective
    method : str or callable
        ========================  =====================================================================
        "newton"                  average information plus curvature; compiled where the objective can;
                                  after 30 iterations finished with observed information or L-BFGS-B
        "ai", "fisher",           scoring with average, expected or observed information and step
        "newton-raphson"          halving
        "lbfgsb"                  bounded limited-memory BFGS with the exact gradient
        "em", "ecme"              expectation-maximisation and its fast variant
        "cobyqa" ("bobyqa-like")  quadratic models, no derivatives
        "nelder-mead"             simplex, no derivatives
        "grid"                    coarse grid, then Newton from its best point
        ========================  =====================================================================

        A callable is called as ``method(objective, start, control)`` and returns theta.
    start : array, shape (n_theta,), optional
        By default the start of the objective.
    control : Control
    progress : "auto", True, False, None or callable
        See `mixedmodels.optimize.progress.Progress`.
    certify : bool
        Whether to ask the objective for its first-order conditions at the end (``Optimum.kkt``);
        `with_conditions` adds them later.

    Returns
    -------
    Optimum
        After Ctrl-C the best point so far, with status "interrupted".

    Raises
    ------
    OptionError
        Unknown method, or a start of the wrong length or with values that are not finite.

    Examples
    --------
    >>> class Bowl:
    ...     start, names = np.array([3.0, 3.0]), ("a", "b")
    ...     lower, upper = np.array([0.0, -np.inf]), np.full(2, np.inf)
    ...     def value(self, t): return float((t[0] + 1) ** 2 + (t[1] - 2) ** 2)
    ...     def value_and_gradient(self, t): return self.value(t), 2 * (t - np.array([-1.0, 2.0]))
    ...     def newton(self, t): return *self.value_and_gradient(t), 2 * np.eye(2)
    >>> optimum = minimize(Bowl())
    >>> optimum.theta, optimum.status.value
    (array([0., 2.]), 'boundary')
    """
    name = method if isinstance(method, str) else getattr(method, "__name__", "callable")
    run_method = _resolve(method)
    compiled = method == "newton" and len(objective.lower) > 0 and hasattr(objective, "newton_minimize")
    # the compiled loop knows the start of its objective
    theta0 = None if compiled and start is None else _start(objective, start)
    limit = control.limit(200)
    patience = min(limit, PATIENCE)
    shown = Progress(progress)
    began = time.perf_counter()
    deadline = math.inf if control.max_seconds is None else began + control.max_seconds
    best: list[Any] = [math.inf, theta0]

    def monitor(iteration: int, theta: np.ndarray, value: float, decrement: float) -> Status | None:
        if value < best[0]:
            best[0], best[1] = value, np.array(theta)
        if shown.active and shown.update(iteration, theta, value, decrement):
            return Status.INTERRUPTED
        return Status.MAX_SECONDS if time.perf_counter() > deadline else None

    try:
        run: Run | None = None
        by_newton = False
        if compiled:
            facts: dict[str, Any] | None = objective.newton_minimize(
                theta0,
                tol=control.tol,
                maxiter=patience,
                max_seconds=control.max_seconds or 0.0,
                callback=_callback(monitor, shown),
                cap=control.cap,
                trace=control.trace,
            )
            run = None if facts is None else _from_facts(facts)
        if run is None:
            point = _start(objective, start) if theta0 is None else theta0
            compiled = False
            by_newton = method == "newton" and (has_cone(objective) or hasattr(objective, "linear_entries"))
            first = replace(control, maxiter=patience) if by_newton else control
            run = run_method(objective, point, first, monitor) if len(point) else _constant(objective, point)
        if (compiled or by_newton) and (
            run.status is Status.STALLED or (run.status is Status.MAXITER and patience < limit)
        ):
            best[0], best[1] = run.value, run.theta
            run = _finish(objective, run, control, monitor)
    except KeyboardInterrupt:
        theta = _start(objective, start) if best[1] is None else best[1]
        run = Run(theta=theta, value=best[0], status=Status.INTERRUPTED)
        if not math.isfinite(best[0]):
            run.value = float(objective.value(theta))
    finally:
        shown.close()
    if not run.hessian.any():
        _fill(run, objective)
    known = len(run.gradient) == len(run.theta)
    optimum = Optimum(
        theta=run.theta,
        value=run.value,
        gradient=run.gradient if known else None,
        hessian=run.hessian if known else None,
        status=run.status,
        iterations=run.iterations,
        evaluations=run.evaluations,
        gradient_evaluations=run.gradient_evaluations,
        trace=run.trace if run.table is None else Trace(run.table),
        decrement=run.decrement,
        kkt=(),
        method=name,
        message=_message(run),
        seconds=time.perf_counter() - began,
        names=tuple(objective.names),
    )
    return with_conditions(optimum, objective) if certify else optimum


def _finish(objective: Any, run: Run, control: Control, monitor: Callable[..., Status | None]) -> Run:
    """Go on where the search on the cone gave up: observed information where that is cheap, then L-BFGS-B.

    Both step in theta and are slower than the cone on ordinary models. Counts add up.
    """
    units = getattr(objective, "units", 1.0)

    def perfect(at: Run) -> bool:
        return float(np.abs(at.theta * units).max()) > PERFECT

    ways = [("lbfgsb", "L-BFGS-B")]
    if getattr(objective, "observed_is_cheap", False):
        ways.insert(0, ("newton-raphson", "observed information"))
    for method, words in ways:
        done = run.iterations
        left = None if control.maxiter is None else control.maxiter - done
        if run.status not in (Status.STALLED, Status.MAXITER) or left == 0 or perfect(run):
            break

        def told(iteration: int, *state: Any, done: int = done) -> Status | None:
            return monitor(done + iteration, *state)

        more = _resolve(method)(objective, run.theta, replace(control, maxiter=left), told)
        more.trace = [*run.trace, *((done + i, theta, value) for i, theta, value in more.trace)]
        if more.value > run.value:  # never worse than where it began
            more.theta, more.value = run.theta, run.value
        more.iterations += done
        more.evaluations += run.evaluations
        more.gradient_evaluations += run.gradient_evaluations
        more.escapes += run.escapes
        more.note = f"newton, finished with {words}"
        if perfect(more) and more.status.converged:
            more.status = Status.STALLED
        run = more
    run.gradient, run.hessian = np.zeros(0), np.zeros((0, 0))
    return run


def with_conditions(optimum: Optimum, objective: Any) -> Optimum:
    """The optimum with the first-order conditions of each term, where the objective can give them."""
    certificate = getattr(objective, "certificate", None)
    if certificate is None or not optimum.converged or not len(optimum.theta):
        return optimum
    found = certificate(optimum.theta)
    n = len(found.min_eigenvalues)
    terms = found.terms if len(found.terms) == n else [f"term {b + 1}" for b in range(n)]
    singular = found.singular if len(found.singular) == n else [optimum.status is Status.BOUNDARY] * n
    rows = zip(terms, found.min_eigenvalues, found.residuals, singular, strict=True)
    return replace(optimum, kkt=tuple(KKT(str(t), float(e), float(r), bool(s)) for t, e, r, s in rows))


def _start(objective: Any, start: np.ndarray | None) -> np.ndarray:
    theta = np.array(objective.start if start is None else start, dtype=float).reshape(-1)
    n = len(objective.lower)
    if len(theta) != n:
        raise OptionError(f"start has {len(theta)} values, theta has {n}: {', '.join(objective.names)}")
    if not np.all(np.isfinite(theta)):
        raise OptionError("start holds values that are not finite")
    return np.minimum(np.maximum(theta, objective.lower), objective.upper)


def _constant(objective: Any, theta: np.ndarray) -> Run:
    """The result for an objective without parameters."""
    return Run(
        theta=theta,
        value=float(objective.value(theta)),
        gradient=np.zeros(0),
        hessian=np.zeros((0, 0)),
        status=Status.CONVERGED,
        evaluations=1,
        decrement=0.0,
    )


def _resolve(method: str | Callable[..., Any]) -> Callable[..., Run]:
    if callable(method):
        return lambda objective, start, control, monitor: _foreign(method, objective, start, control)
    if method == "newton":
        return newton
    if method == "grid":
        return _grid
    search: type[Search]
    if method in ("ai", "fisher", "newton-raphson"):
        from mixedmodels.optimize.scoring import AverageInformation, FisherScoring, NewtonRaphson

        search = {"ai": AverageInformation, "fisher": FisherScoring, "newton-raphson": NewtonRaphson}[method]
    elif method in ("em", "ecme"):
        from mixedmodels.optimize.em import ECME, EM

        search = EM if method == "em" else ECME
    elif method == "lbfgsb":
        from mixedmodels.optimize.quasi_newton import LBFGSB as search
    elif method in ("cobyqa", "bobyqa-like"):
        from mixedmodels.optimize.bobyqa import COBYQA as search
    elif method == "nelder-mead":
        from mixedmodels.optimize.nelder_mead import NelderMead as search
    elif method == "bobyqa":
        raise OptionError('method "bobyqa" is not offered; its successor COBYQA is: method="cobyqa"')
    else:
        raise OptionError(f"unknown method {method!r}; choose one of {', '.join(METHODS)} or pass a function")
    return lambda objective, start, control, monitor: newton(objective, start, control, monitor, search)


def _grid(objective: Any, start: np.ndarray, control: Control, monitor: Callable[..., Status | None]) -> Run:
    """Values on a coarse grid, then Newton from the best point."""
    from mixedmodels.optimize.grid import grid_points

    found = []
    for theta in grid_points(objective, start, control.grid):
        try:
            value = float(objective.value(theta))
        except (FloatingPointError, np.linalg.LinAlgError):
            value = math.inf
        found.append((value if value == value else math.inf, theta))
        stop = monitor(0, theta, found[-1][0], math.nan)
        if stop is not None:
            value, theta = min(found, key=lambda pair: pair[0])
            return Run(theta=theta, value=value, status=stop, evaluations=len(found))
    run = newton(objective, min(found, key=lambda pair: pair[0])[1], control, monitor)
    run.evaluations += len(found)
    return run


def _foreign(method: Callable[..., Any], objective: Any, start: np.ndarray, control: Control) -> Run:
    """A caller's own optimiser: its theta, judged by our own criterion."""
    found = method(objective, start, control)
    theta = np.array(getattr(found, "theta", getattr(found, "x", found)), dtype=float).reshape(-1)
    if theta.shape != start.shape or not np.all(np.isfinite(theta)):
        raise OptionError(f"the method returned {found!r}; it must return theta, {len(start)} finite numbers")
    if np.any(theta < objective.lower) or np.any(theta > objective.upper):
        raise OptionError("the method returned a theta outside the bounds objective.lower, objective.upper")
    run = Run(theta=theta, value=float(objective.value(theta)), evaluations=1)
    _fill(run, objective)
    low = run.decrement < max(1e-6, control.tol) or run.decrement != run.decrement
    run.status = Status.CONVERGED if low else Status.STALLED
    return run


def _fill(run: Run, objective: Any) -> None:
    """Derivatives and predicted decrease at the end of a method that had none."""
    try:
        value, g, H = objective.newton(run.theta)
    except (AttributeError, NotImplementedError, FloatingPointError, np.linalg.LinAlgError):
        run.gradient, run.hessian = np.zeros(0), np.zeros((0, 0))
        return
    run.value, run.gradient, run.hessian = float(value), np.asarray(g), np.asarray(H)
    run.evaluations += 1
    run.gradient_evaluations += 1
    search = Search(objective, Control(), lambda *_: None)
    search.run = run
    step = descend(*factorise(run.hessian, search.free()), run.gradient)
    run.decrement = 0.5 * float(-run.gradient @ step) + 0.0
    if run.status.converged and run.decrement > 1e-4:
        run.status = Status.STALLED


def _callback(monitor: Callable[..., Status | None], shown: Progress) -> Callable[..., bool] | None:
    """Callback of the compiled loop: none unless there is something to show or to ask."""
    if not shown.active:
        return None
    return lambda *state: monitor(*state) is Status.INTERRUPTED


def _from_facts(facts: dict[str, Any]) -> Run:
    return Run(
        theta=facts["theta"],
        value=facts["value"],
        gradient=facts["gradient"],
        hessian=facts["hessian"],
        status=_STATUS[facts["status"]],
        iterations=facts["iterations"],
        evaluations=facts["evaluations"],
        gradient_evaluations=facts["evaluations"],
        decrement=facts["decrement"],
        escapes=facts["escapes"],
        table=facts["trace"],
    )


_ENDS = {
    Status.CONVERGED: "converged",
    Status.BOUNDARY: "converged on the boundary",
    Status.MAXITER: "stopped after {} iterations without convergence",
    Status.INTERRUPTED: "interrupted; this is the best point so far",
    Status.MAX_SECONDS: "stopped by the time limit; this is the best point so far",
    Status.STALLED: "stalled",
    Status.NOT_POSITIVE_DEFINITE: "the criterion cannot be computed at the start",
}


def _message(run: Run) -> str:
    what = _ENDS[run.status].format(run.iterations)
    note = f" ({run.note})" if run.note else ""
    remedy = run.status.remedy
    return f"{what}{note}. {remedy}" if remedy else f"{what}{note}."
