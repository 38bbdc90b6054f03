"""EM and ECME: the objective knows one step, here is the iteration.

Each step lowers the criterion but convergence is linear inside and slower than linear towards a zero variance
(Sigma_t is about m / (M t) after t steps). The iteration stops when the predicted decrease of a Newton step
is below tol, not when steps become short. Every 50 steps the diagonals that a Newton step would more than
halve are tried at exactly zero; EM keeps zeros, and the certificate at the end says whether they are right.
"""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.optimize.newton import NOISE, Search
from mixedmodels.optimize.optimum import Status
from mixedmodels.optimize.steps import descend, factorise

__all__ = ["ECME", "EM"]


class EM(Search):
    """Iterate ``objective.em_step``."""

    default_limit = 5000
    member = "em_step"

    def minimise(self, limit: int, last_step: bool) -> Status:
        """EM steps until the predicted decrease of a Newton step is below tol."""
        move = getattr(self.objective, self.member, None)
        if move is None:
            raise OptionError(f'this model has no {self.member}; use method="newton"')
        run, control = self.run, self.control
        since = 0
        while True:
            self.step = descend(*factorise(run.hessian, self.free()), run.gradient)
            run.decrement = 0.5 * float(-run.gradient @ self.step) + 0.0
            stop = self.report()
            if stop is not None:
                return stop
            if run.decrement < control.tol:
                return Status.CONVERGED
            if run.iterations >= limit:
                run.note = 'EM comes to a zero variance slowly: method="newton"' if self.falling() else ""
                return Status.MAXITER
            run.iterations += 1
            since += 1
            theta, _ = self.reflect(self.project(np.array(move(run.theta), dtype=float)))
            theta[self.frozen] = run.theta[self.frozen]
            result = self.evaluate(theta)
            if result is None or result[0] > run.value + 1e3 * NOISE * (1.0 + abs(run.value)):
                return Status.STALLED
            self.accept(theta, result)
            if since % 50 == 0:
                for index in self.falling():
                    self.try_bound(index, run.theta)

    def falling(self) -> list[np.ndarray]:
        """Diagonals that the Newton step would more than halve."""
        theta = self.run.theta
        heads = np.isfinite(self.lower) & ~self.frozen & (theta > self.lower)
        return [np.array([i]) for i in np.flatnonzero(heads & (self.step < -0.5 * (theta - self.lower)))]


class ECME(EM):
    """Iterate ``objective.ecme_step`` (Liu, Rubin 1994; Schafer 1998)."""

    member = "ecme_step"
