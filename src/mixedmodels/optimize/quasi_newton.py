"""Bounded limited-memory BFGS (L-BFGS-B of SciPy) with the exact gradient."""

from __future__ import annotations

import numpy as np

from mixedmodels.optimize.newton import NOISE, Search
from mixedmodels.optimize.optimum import Status
from mixedmodels.optimize.steps import descend, factorise

__all__ = ["LBFGSB"]


class LBFGSB(Search):
    """L-BFGS-B on the parameters that are not frozen, restarted while a Newton step predicts a decrease.

    References
    ----------
    Byrd, Lu, Nocedal, Zhu (1995); Zhu, Byrd, Lu, Nocedal (1997), algorithm 778.
    """

    default_limit = 1000

    def minimise(self, limit: int, last_step: bool) -> Status:
        """Run L-BFGS-B; at most five restarts."""
        run = self.run
        for _ in range(6):
            self.step = descend(*factorise(run.hessian, self.free()), run.gradient)
            run.decrement = 0.5 * float(-run.gradient @ self.step) + 0.0
            stop = self.report()
            if stop is not None:
                return stop
            if run.decrement < self.control.tol:
                return Status.CONVERGED
            if run.iterations >= limit:
                return Status.MAXITER
            self.turn_columns()
            before = run.value
            stop = self.bfgs(np.flatnonzero(~self.frozen), limit)
            if stop is not None:
                return stop
            if not before - run.value > 10.0 * NOISE * (1.0 + abs(before)):
                break
        self.step = descend(*factorise(run.hessian, self.free()), run.gradient)
        run.decrement = 0.5 * float(-run.gradient @ self.step) + 0.0
        if run.decrement < max(1e-7, NOISE * abs(run.value)):
            return Status.CONVERGED
        return Status.MAXITER if run.iterations >= limit else Status.STALLED

    def bfgs(self, active: np.ndarray, limit: int) -> Status | None:
        """One run of L-BFGS-B; the status with which the monitor ended it, if it did."""
        from scipy.optimize import Bounds, minimize

        run = self.run
        base = run.theta.copy()
        worst = run.value + 1e6 + 1e3 * abs(run.value)
        ending: list[Status] = []

        def full(x: np.ndarray) -> np.ndarray:
            theta = base.copy()
            theta[active] = x
            return theta

        def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
            run.evaluations += 1
            run.gradient_evaluations += 1
            try:
                value, g = self.objective.value_and_gradient(full(x))
            except (FloatingPointError, np.linalg.LinAlgError):
                return worst, np.zeros(len(x))
            return (float(value), g[active]) if np.isfinite(value) else (worst, np.zeros(len(x)))

        def watch(intermediate_result) -> None:
            run.iterations += 1
            theta, value = full(intermediate_result.x), float(intermediate_result.fun)
            if self.control.trace:
                run.trace.append((run.iterations, theta, value))
            status = self.monitor(run.iterations, theta, value, np.nan)
            if status is not None:
                ending.append(status)
                raise StopIteration

        found = minimize(
            fun,
            base[active],
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(self.lower[active], self.upper[active]),
            callback=watch,
            options={
                "maxiter": max(limit - run.iterations, 1),
                "maxfun": 20 * limit + 100,
                "ftol": 1e-15,
                "gtol": 1e-9,
                "maxcor": 20,
            },
        )
        result = self.evaluate(full(found.x))
        if result is not None and result[0] <= run.value:
            self.accept(full(found.x), result)
        return ending[0] if ending else None
