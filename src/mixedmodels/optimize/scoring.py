"""Scoring methods: steps -information^{-1} gradient with step halving."""

from __future__ import annotations

import numpy as np

from mixedmodels.optimize.newton import NOISE, Search
from mixedmodels.optimize.optimum import Status
from mixedmodels.optimize.steps import descend, factorise

__all__ = ["AverageInformation", "FisherScoring", "NewtonRaphson"]

ROUNDING = 1e-8  # relative error that a badly conditioned criterion may have


class Scoring(Search):
    """Steps -B^{-1} g with B an information matrix, halved until the function falls; bounds by projection.

    A diagonal that would turn negative stops at exactly zero. There the information has a zero row, so the
    parameter stays; the certificate at the end says whether it may.
    """

    kind = "average"

    def derivatives(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and information."""
        value, g = self.objective.value_and_gradient(theta)
        return value, g, self.matrix(theta)

    def matrix(self, theta: np.ndarray) -> np.ndarray:
        """Information in units of the Hessian."""
        return self.objective.information(theta, self.kind)

    def clip(self, theta: np.ndarray) -> np.ndarray:
        """Onto all bounds."""
        return np.minimum(np.maximum(theta, self.lower), self.upper)

    def minimise(self, limit: int, last_step: bool) -> Status:
        """Scoring steps until the predicted decrease is below tol."""
        run, tol = self.run, self.control.tol
        while True:
            self.turn_columns()
            theta, f, g, B = run.theta, run.value, run.gradient, run.hessian
            held = self.frozen | ((theta <= self.lower) & (g >= 0.0)) | ((theta >= self.upper) & (g <= 0.0))
            step = descend(*factorise(B, ~held), g)
            run.decrement = 0.5 * float(-g @ step) + 0.0
            stop = self.report()
            if stop is not None:
                return stop
            moved = self.clip(theta + step)
            self.step = moved - theta
            if run.decrement < tol:
                return Status.CONVERGED
            if run.iterations >= limit:
                return Status.MAXITER
            run.iterations += 1
            size = float(np.abs(step).max())
            longest = self.control.cap * max(float(np.abs(theta).max()), 0.1)
            t = min(1.0, longest / size)
            for _ in range(60):
                moved = self.clip(theta + t * step)
                slope = float(g @ (moved - theta))
                result = self.evaluate(moved) if slope < 0.0 else None
                if result is not None and (
                    result[0] <= f + 1e-4 * slope + NOISE * (1.0 + abs(f))
                    or (t == 1.0 and self.settles(result, held))
                ):
                    self.accept(moved, result)
                    break
                t *= 0.5
            else:
                return Status.CONVERGED if run.decrement < max(1e-8, NOISE * abs(f)) else Status.STALLED

    def settles(self, result: tuple[float, np.ndarray, np.ndarray], held: np.ndarray) -> bool:
        """Whether the gradient says that a trial is better where the values differ by rounding only.

        A nearly singular known covariance leaves errors of 1e-9 and more in the criterion; the gradient has
        far fewer.
        """
        value, g, B = result
        run = self.run
        if run.decrement > 1e-4 or abs(value - run.value) > ROUNDING * (1.0 + abs(run.value)):
            return False
        step = descend(*factorise(B, ~held), g)
        return 0.5 * float(-g @ step) < 0.25 * run.decrement


class AverageInformation(Scoring):
    """Average information without the curvature term (Gilmour, Thompson, Cullis 1995)."""

    kind = "average"


class FisherScoring(Scoring):
    """Expected information (Jennrich, Sampson 1976)."""

    kind = "expected"


class NewtonRaphson(Scoring):
    """Observed information; negative eigenvalues are replaced by their absolute values."""

    kind = "observed"

    def matrix(self, theta: np.ndarray) -> np.ndarray:
        """Observed information with the absolute values of its eigenvalues, none of them zero."""
        w, V = np.linalg.eigh(self.objective.information(theta, "observed"))
        w = np.maximum(np.abs(w), 1e-10 * max(float(np.abs(w).max(initial=0.0)), 1e-300))
        return (V * w) @ V.T
