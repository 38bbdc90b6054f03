"""What the classical searches have in common: the point they are at, their records and when they end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.fit.classical.names import Rules
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.history import Recorder
from mixedmodels.optimize.optimum import Status
from mixedmodels.optimize.progress import Progress

if TYPE_CHECKING:
    from mixedmodels.objective.component_space import ComponentSpace
    from mixedmodels.objective.components import ComponentsPoint

__all__ = ["NOISE", "Search", "solve_information"]

# relative rounding of a log-likelihood
NOISE = 1e-12


@dataclass(slots=True)
class Search:
    """State of a search in the variance components.

    Attributes
    ----------
    space : ComponentSpace
    kappa : ndarray
        Where it is.
    point : ComponentsPoint
        The likelihood there.
    status : Status
    note : str
    iterations, evaluations : int
    decrement : float
    slow : int
        Steps that were cut short by the boundary of a covariance matrix.
    """

    space: ComponentSpace
    kappa: np.ndarray
    rules: Rules
    control: Control
    shown: Progress
    recorder: Recorder = field(init=False)
    point: ComponentsPoint = field(init=False)
    status: Status = Status.MAXITER
    note: str = ""
    iterations: int = 0
    evaluations: int = 0
    decrement: float = np.nan
    slow: int = 0
    deadline: float = np.inf

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.space.names)
        if self.control.max_seconds is not None:
            self.deadline = time.perf_counter() + self.control.max_seconds

    @property
    def free(self) -> np.ndarray:
        """Components that are estimated: all but a fixed sigma^2."""
        free = np.ones(self.space.size, dtype=bool)
        free[-1] = self.space.objective.sigma_fixed is None
        return free

    def begin(self, kind: str | None) -> None:
        """Evaluate the start."""
        self.point = self.space.point(self.kappa, kind)
        self.evaluations += 1
        self.recorder.add(0, "start", self.point.loglik, self.kappa)

    def at(self, kappa: np.ndarray, kind: str | None) -> ComponentsPoint | None:
        """The likelihood at another point; None where it does not exist."""
        self.evaluations += 1
        try:
            point = self.space.point(kappa, kind)
        except (SolverError, FloatingPointError, np.linalg.LinAlgError):
            return None
        return point if np.isfinite(point.loglik) else None

    def better(self, point: ComponentsPoint | None) -> bool:
        """Whether a point is not worse than where the search is, to rounding."""
        return point is not None and point.loglik >= self.point.loglik - NOISE * (
            1.0 + abs(self.point.loglik)
        )

    def accept(self, point: ComponentsPoint, step: str, length: float = np.nan) -> bool:
        """Move there; whether the change counts as convergence (the decrement is judged by `measure`)."""
        old, new = self.kappa, point.values
        self.kappa, self.point = new, point
        self.recorder.add(self.iterations, step, point.loglik, new, length)
        if self.rules.convergence == "decrement":
            return False
        tol = self.rules.tolerance(self.control.tol)
        if self.rules.convergence == "proportions":
            change = np.abs(self.space.proportions(new) - self.space.proportions(old))
            return bool(change.max() < tol)
        return bool((np.abs(new - old) <= tol * np.abs(old)).all())

    def reject(self, kappa: np.ndarray, point: ComponentsPoint | None, step: str, length: float) -> None:
        """Record a point that was tried and not taken."""
        loglik = np.nan if point is None else point.loglik
        self.recorder.add(self.iterations, step, loglik, kappa, length, False)

    def measure(self, score: np.ndarray, step: np.ndarray) -> bool:
        """Record the slope here; whether the predicted decrease says that this is the maximum."""
        self.decrement = max(float(score @ step), 0.0)
        self.recorder.slope(float(np.linalg.norm(self.point.score)), self.decrement)
        if self.rules.convergence != "decrement":
            return self.decrement <= 1e-14 * (1.0 + abs(self.point.loglik))
        return self.decrement < self.rules.tolerance(self.control.tol)

    def last(self, kappa: np.ndarray | None, step: str) -> None:
        """One more step where the predicted decrease is below tol: it doubles the digits for no search."""
        if kappa is None or not self.decrement > 0.0 or not self.space.inside(kappa):
            return
        point = self.at(kappa, None)
        if self.better(point):
            self.iterations += 1
            self.accept(point, step, 1.0)  # type: ignore[arg-type]
            self.recorder.slope(float(np.linalg.norm(self.point.score)), np.nan)

    def stop(self, limit: int) -> Status | None:
        """Whether something other than convergence ends the search now."""
        criterion = -2.0 * self.point.loglik
        if self.shown.active and self.shown.update(self.iterations, self.kappa, criterion, self.decrement):
            return Status.INTERRUPTED
        if time.perf_counter() > self.deadline:
            return Status.MAX_SECONDS
        return Status.MAXITER if self.iterations >= limit else None


def solve_information(information: np.ndarray, score: np.ndarray) -> np.ndarray | None:
    """``information^{-1} score`` for a positive definite matrix; None if it is not."""
    scale = np.sqrt(np.maximum(np.diagonal(information), 0.0))
    if not (scale > 0.0).all() or not np.isfinite(information).all():
        return None
    try:
        L = np.linalg.cholesky(information / np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return None
    if float(np.diagonal(L).min()) < 1e-7:
        return None
    half: Any = np.linalg.solve(L, score / scale)
    return np.linalg.solve(L.T, half) / scale
