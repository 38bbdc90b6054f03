"""From a method's name to a maximum: the door to the classical algorithms."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.classical.em import expectation_maximisation
from mixedmodels.fit.classical.grid import grid
from mixedmodels.fit.classical.hybrid import hybrid
from mixedmodels.fit.classical.names import Rules
from mixedmodels.fit.classical.scoring import KINDS, scoring
from mixedmodels.fit.classical.search import Search
from mixedmodels.fit.classical.starts import minque, starting_values
from mixedmodels.objective.component_space import ComponentSpace
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.minimize import minimize
from mixedmodels.optimize.optimum import Optimum, Status
from mixedmodels.optimize.progress import Progress

if TYPE_CHECKING:
    from mixedmodels.objective.lmm import LMMObjective

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Where a classical method ended.

    Attributes
    ----------
    kappa : ndarray
        Variance components, sigma^2 last.
    unconstrained : ndarray
        MINQUE: the estimates before negative variances were put to zero; else kappa.
    optimum : Optimum
        The same point in theta, with ``optimum.history``.
    note : str
    """

    kappa: np.ndarray
    unconstrained: np.ndarray
    optimum: Optimum
    note: str = ""


def estimate(
    objective: LMMObjective,
    method: str,
    starts: Any = "moments",
    rules: Rules = Rules(),  # noqa: B008 (frozen)
    control: Control = Control(),  # noqa: B008 (frozen)
    progress: Any = None,
) -> Estimate:
    """Estimate variance components by a classical method.

    Parameters
    ----------
    objective : LMMObjective
    method : str
        One of `mixedmodels.fit.classical.names.METHODS`.
    starts : str, mapping or sequence
        See `mixedmodels.fit.classical.starts.starting_values`.
    rules : Rules
    control : Control
    progress : "auto", True, False, None or callable

    Returns
    -------
    Estimate

    Notes
    -----
    Where a search ends at a singular covariance matrix, which its coordinates cannot pass along, it is
    finished by the default method (Newton on the cone of covariance matrices); the history has the step
    "cone" and a note says so.
    """
    began = time.perf_counter()
    space = ComponentSpace(objective)
    shown = Progress(progress)
    if method.startswith("minque"):
        return _quadratic(space, method, control, began)
    search = Search(space, starting_values(space, starts), rules, control, shown)
    try:
        _run(search, method, control)
        if search.status in (Status.STALLED, Status.NOT_POSITIVE_DEFINITE):
            _finish(search, control)
    except KeyboardInterrupt:
        search.status = Status.INTERRUPTED
    finally:
        shown.close()
    return Estimate(search.kappa, search.kappa, _optimum(search, method, began), search.note)


def _run(search: Search, method: str, control: Control) -> None:
    if method in KINDS:
        search.begin({"average": "average", "observed": "average"}.get(KINDS[method]))
        scoring(search, method, control.limit(200))
    elif method in ("em", "ecme"):
        search.begin("average")
        expectation_maximisation(search, method, control.limit(5000))
    elif method == "fast":
        search.begin(None)
        if search.space.objective.n_theta and not _regular(search):
            search.kappa = starting_values(search.space, "equal")
            search.begin(None)
        hybrid(search, control.limit(200))
    else:
        search.begin("average")
        grid(search)
        search.point = search.space.point(search.kappa, "average")
        scoring(search, "average-information", control.limit(200))


def _regular(search: Search) -> bool:
    Sigmas = search.space.sigmas(search.kappa)
    return all(np.linalg.eigvalsh(S)[0] > 1e-10 * max(float(np.trace(S)), 1e-300) for S in Sigmas)


def _finish(search: Search, control: Control) -> None:
    """Go on with the default method from where the search stopped, and record where it ended."""
    space, why = search.space, search.note
    kappa = search.kappa
    theta = space.theta(kappa)
    found = minimize(space.objective, "newton", theta, control, certify=False)
    if not found.converged:
        return
    search.iterations += 1
    kappa = space.kappa_of(found.theta)
    kappa[space.single & (space.proportions(kappa) < 1e-12)] = 0.0
    point = space.point(kappa)
    search.evaluations += found.evaluations
    if not search.better(point):
        return
    moved = point.loglik - search.point.loglik > 1e-9 * (1.0 + abs(point.loglik))
    search.kappa, search.point, search.status = kappa, point, found.status
    if found.converged:
        search.status = Status.CONVERGED
    search.decrement = found.decrement
    search.recorder.add(search.iterations, "cone", point.loglik, kappa)
    search.recorder.slope(float(np.linalg.norm(point.score)), found.decrement)
    reason = why or "its steps did not raise the likelihood any more"
    if moved:
        search.note = f"finished by Newton's method on the cone of covariance matrices: {reason}"
    else:
        search.note = "checked by Newton's method on the cone of covariance matrices"


def _optimum(search: Search, method: str, began: float) -> Optimum:
    space = search.space
    objective = space.objective
    theta = np.minimum(np.maximum(space.theta(search.kappa), objective.lower), objective.upper)
    status = search.status
    if status is Status.CONVERGED and (theta[np.isfinite(objective.lower)] == 0.0).any():
        status = Status.BOUNDARY
    value, gradient, hessian = objective.newton(theta)
    what = {
        Status.CONVERGED: "converged",
        Status.BOUNDARY: "converged on the boundary",
        Status.MAXITER: f"stopped after {search.iterations} iterations without convergence",
    }.get(status, status.value.replace("_", " "))
    note = f" ({search.note})" if search.note else ""
    remedy = f" {status.remedy}" if status.remedy and not method.startswith("minque") else ""
    history = search.recorder.history()
    return Optimum(
        theta=theta,
        value=float(value),
        gradient=np.asarray(gradient),
        hessian=np.asarray(hessian),
        status=status,
        iterations=search.iterations,
        evaluations=search.evaluations,
        gradient_evaluations=search.evaluations,
        trace=[],
        decrement=search.decrement,
        kkt=(),
        method=method,
        message=f"{what}{note}.{remedy}",
        seconds=time.perf_counter() - began,
        names=tuple(objective.names),
        history=history,
    )


def _quadratic(space: ComponentSpace, method: str, control: Control, began: float) -> Estimate:
    """MINQUE: no search, one set of linear equations."""
    raw, inside = minque(space, method[7:-1])
    kappa, note = raw, ""
    if not inside:
        if raw[-1] <= 0.0:
            from mixedmodels.errors import SolverError

            raise SolverError(
                f"{method} gives a residual variance of {raw[-1]:.6g}, which is not positive; use REML"
            )
        kappa = space.project(raw)
        note = f"{method} estimates outside the parameter space were moved to its boundary"
    search = Search(space, kappa, Rules(), control, Progress(None))
    search.begin(None)
    search.recorder.rows[-1][1] = method
    search.note = note
    search.status = Status.CONVERGED
    optimum = _optimum(search, method, began)
    return Estimate(kappa, raw, replace(optimum, value=-2.0 * search.point.loglik), note)
