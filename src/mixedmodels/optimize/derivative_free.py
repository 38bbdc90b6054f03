"""What the derivative-free methods share: a search that knows values only."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mixedmodels.optimize.newton import Search
from mixedmodels.optimize.optimum import Status

__all__ = ["Ended", "ValueSearch"]


class Ended(Exception):
    """The monitor asked to end the search."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.value)
        self.status = status


class ValueSearch(Search):
    """A search that evaluates the function only and counts evaluations as iterations."""

    default_limit = 10000

    def derivatives(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The value, with zeros for what these methods do not ask for."""
        n = len(theta)
        return self.objective.value(theta), np.zeros(n), np.zeros((n, n))

    def evaluate(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray] | None:
        """As in `Search`, counted as an evaluation of the value only."""
        result = super().evaluate(theta)
        self.run.gradient_evaluations -= 1
        return result

    def objective_at(self, active: np.ndarray) -> Callable[[np.ndarray], float]:
        """``x -> value`` on the active parameters: inf where undefined; keeps the best; may raise Ended."""
        run = self.run
        base = run.theta.copy()

        def value(x: np.ndarray) -> float:
            theta = base.copy()
            theta[active] = x
            run.iterations += 1
            result = self.evaluate(theta)
            if result is None:
                return math.inf
            if result[0] < run.value:
                self.accept(theta, result)
                stop = self.report()
            else:
                stop = self.monitor(run.iterations, run.theta, run.value, math.nan)
            if stop is not None:
                raise Ended(stop)
            return result[0]

        return value

    def minimise(self, limit: int, last_step: bool) -> Status:
        """Run `search` on the parameters that are not frozen."""
        active = np.flatnonzero(~self.frozen)
        self.step = np.zeros(len(self.frozen))
        if not len(active):
            return Status.CONVERGED
        try:
            done = self.search(active, limit)
        except Ended as end:
            return end.status
        return Status.CONVERGED if done else Status.MAXITER

    def search(self, active: np.ndarray, limit: int) -> bool:
        """Search from run.theta; whether the own criterion was met."""
        raise NotImplementedError
