"""Newton's method for any smooth objective with bounds; models with free covariance matrices go to `cone`.

The objective supplies value f, gradient g and a positive semi-definite matrix H (for a mixed model the
average information plus the curvature of the positive part of M = d f / d Sigma). One iteration:

1. ``1/2 g'H^{-1}g`` over the free parameters is the predicted decrease; below ``tol`` the search is over.
   A gradient in directions without curvature counts too: there the step is as long as allowed.
2. Step ``-H^{-1}g``; after a rejected step ``-(H + mu I)^{-1}g`` (Levenberg) with mu growing until a
   step is accepted. Where H underestimates the curvature the decrements shrink slowly; then a symmetric
   rank-one secant correction of H is used as long as it stays positive definite.
3. Bounds: a diagonal of a factor that turns negative is reflected (the sign of its column changes; the
   function is even there); other parameters are projected and leave the free set while the gradient holds
   them at the bound.
4. A rejected step is tried once more as a step in Sigma, ``Sigma + lam s' + s lam'``: valleys that
   are curved in theta (a rotation between two columns when a leading diagonal vanishes) are straight in
   Sigma.

At the end parameters next to a bound are set exactly on it if the value does not suffer, the rest is
polished, and the certificate of the objective is asked: where M is not positive semi-definite, theta = 0 was
a saddle point, and the search goes on along the eigenvector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.optimize.base import blocks_of_entries, columns_of_entries
from mixedmodels.optimize.cone import cone_newton
from mixedmodels.optimize.cone_factors import has_cone
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.optimum import Status
from mixedmodels.optimize.run import Run
from mixedmodels.optimize.steps import descend, factorise, fold, sigma_step

__all__ = ["Run", "Search", "newton"]

SLOW = 0.1  # decrements that shrink less than this call for the secant correction
NEAR = 0.5  # ... which is used below this decrement (deviance units) only
NULL = 1e-4  # decrease (deviance units) promised by directions without curvature that is not rounding
NOISE = 1e-13  # rounding of the criterion, relative
EXACT = 1e-7  # a last step smaller than this, relative to the largest parameter, is not worth an evaluation


class Search:
    """State of one search: the point, its derivatives, the secant correction and the counts."""

    default_limit = 200

    def __init__(
        self,
        objective: Any,
        control: Control,
        monitor: Callable[[int, np.ndarray, float, float], Status | None],
    ) -> None:
        self.objective = objective
        self.control = control
        self.monitor = monitor
        self.lower = np.asarray(objective.lower, dtype=float)
        self.upper = np.asarray(objective.upper, dtype=float)
        entries = getattr(objective, "entries", None)
        if entries is None:
            entries = getattr(objective, "linear_entries", None)
        columns = () if entries is None else columns_of_entries(entries)
        self.columns = [c for c in columns if self.lower[c[0]] == 0.0]
        self.blocks = () if entries is None else blocks_of_entries(entries)
        self.reflected = np.zeros(len(self.lower), dtype=bool)
        for c in self.columns:
            self.reflected[c[0]] = True
        mirrored = getattr(objective, "mirrored", None)
        self.mirrored = np.zeros(len(self.lower), dtype=bool) if mirrored is None else np.array(mirrored)
        self.frozen = np.zeros(len(self.lower), dtype=bool)
        self.C: np.ndarray | None = None
        self.step = np.zeros(len(self.lower))
        self.run = Run(theta=np.array([]))

    # ---- evaluation
    def derivatives(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and the matrix of the step."""
        return self.objective.newton(theta)

    def evaluate(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray] | None:
        """Value, gradient and Newton matrix; None where they do not exist."""
        self.run.evaluations += 1
        self.run.gradient_evaluations += 1
        try:
            value, g, H = self.derivatives(theta)
        except (FloatingPointError, np.linalg.LinAlgError):
            return None
        if not (math.isfinite(value) and np.all(np.isfinite(g)) and np.all(np.isfinite(H))):
            return None
        return float(value), np.asarray(g, dtype=float), np.asarray(H, dtype=float)

    def project(self, theta: np.ndarray) -> np.ndarray:
        """Onto the bounds, parameters that can be reflected excepted."""
        low = np.where(self.reflected | self.mirrored, -np.inf, self.lower)
        return np.minimum(np.maximum(theta, low), np.where(self.mirrored, np.inf, self.upper))

    def reflect(self, theta: np.ndarray) -> tuple[np.ndarray, bool]:
        """Change the sign of columns whose diagonal is negative; fold parameters at mirrored bounds."""
        flipped = False
        if self.mirrored.any():
            at, folded = self.mirrored, theta.copy()
            folded[at] = fold(theta[at], self.lower[at], self.upper[at])
            flipped = bool(np.any(folded != theta))
            theta = folded
        for c in self.columns:
            if theta[c[0]] < 0.0:
                theta[c] = -theta[c]
                flipped = True
        return theta, flipped

    def free(self) -> np.ndarray:
        """Parameters that are not frozen and not held at a bound by the gradient."""
        theta, g = self.run.theta, self.run.gradient
        held = (theta <= self.lower) & (g > 0.0) & ~self.reflected
        held |= (theta >= self.upper) & (g < 0.0)
        return ~(self.frozen | (held & ~self.mirrored))

    def turn_columns(self) -> None:
        """Change the sign of columns with diagonal zero whose gradient points outwards: the same point.

        Methods that keep the bound 0 by projection would take it for a minimum otherwise.
        """
        run = self.run
        for c in self.columns:
            if run.theta[c[0]] == 0.0 and run.gradient[c[0]] > 0.0 and np.any(run.theta[c] != 0.0):
                sign = np.ones(len(run.theta))
                sign[c] = -1.0
                theta = run.theta * sign
                theta[c[0]] = 0.0
                self.accept(theta, (run.value, run.gradient * sign, run.hessian * np.outer(sign, sign)))

    def accept(self, theta: np.ndarray, result: tuple[float, np.ndarray, np.ndarray]) -> None:
        """Make a trial point the point."""
        self.run.theta = theta
        self.run.value, self.run.gradient, self.run.hessian = result

    def start(self, theta: np.ndarray) -> bool:
        """Evaluate the start, pulled towards zero (or the bounds) while the function does not exist there."""
        theta, _ = self.reflect(self.project(np.array(theta, dtype=float)))
        for _ in range(12):
            self.run.theta = theta
            result = self.evaluate(theta)
            if result is not None:
                self.accept(theta, result)
                return True
            theta = np.minimum(np.maximum(0.1 * theta, self.lower), self.upper)
        return False

    def report(self) -> Status | None:
        """Record the iteration; the status with which to end, if any."""
        run = self.run
        if self.control.trace:
            run.trace.append((run.iterations, run.theta.copy(), run.value))
        return self.monitor(run.iterations, run.theta, run.value, run.decrement)

    # ---- the loop
    def minimise(self, limit: int, last_step: bool) -> Status:
        """Newton steps until the predicted decrease is below tol; then one more if `last_step`."""
        run, tol = self.run, self.control.tol
        mu, last = 0.0, math.inf
        self.C = None
        while True:
            theta, f, g, H = run.theta, run.value, run.gradient, run.hessian
            free = self.free()
            L, pivots = factorise(H, free)
            step = descend(L, pivots, g)
            longest = self.control.cap * max(float(np.abs(theta).max(initial=0.0)), 0.1)
            run.decrement = 0.5 * float(-g @ step) + 0.0
            rest = np.where(free, g + H @ step, 0.0)
            slope = float(np.abs(rest).max(initial=0.0))
            null = slope * longest > NULL
            if null:  # a gradient in directions without curvature: as far as the cap allows
                step = step - rest * (longest / slope)
                run.decrement = max(run.decrement, slope * longest)
            stop = self.report()
            if stop is not None:
                return stop
            self.step = step
            if run.decrement < tol:
                if not last_step or self.is_exact(step) or self.near_bounds():
                    return Status.CONVERGED
                last_step = False
            if run.iterations >= limit:
                return Status.CONVERGED if run.decrement < tol else Status.MAXITER
            run.iterations += 1
            B, secant = H, False
            if mu > 0.0:
                step = descend(*factorise(H, free, mu), g)
            elif self.C is not None and run.decrement < NEAR and run.decrement > SLOW * last:
                L2, pivots2 = factorise(H + self.C, free)
                if np.all(pivots2 >= 0.1 * pivots):
                    B, secant = H + self.C, True
                    step = descend(L2, pivots2, g)
            size = float(np.abs(step).max(initial=0.0))
            if size > longest:
                step = step * (longest / size)
            moved = self.project(theta + step)
            d = moved - theta
            predicted = -float(g @ d + 0.5 * d @ (B @ d))
            if self.attempt(moved, predicted, secant, mu):
                reduction = f - run.value
                last = run.decrement
                if mu > 0.0:
                    mu = (
                        0.0
                        if reduction > 0.5 * predicted or mu < 1e-6 * float(np.diag(H).max())
                        else 0.1 * mu
                    )
                continue
            if mu == 0.0 and len(self.blocks) and self.attempt(self.sigma_point(moved), predicted, True, mu):
                last = run.decrement
                continue
            if run.decrement < max(1e-8, NOISE * abs(f)):
                return Status.CONVERGED  # nothing left but rounding
            self.C = None
            top = max(float(np.diag(H).max(initial=0.0)), slope / longest if null else 0.0)
            mu = max(4.0 * mu, 1e-2 * top)
            if not mu > 0.0 or mu > 1e14 * top:
                return Status.STALLED

    def is_exact(self, step: np.ndarray) -> bool:
        """Whether a step moves theta only in digits that nobody reads."""
        largest = max(float(np.abs(self.run.theta).max(initial=0.0)), 1e-3)
        return float(np.abs(step).max(initial=0.0)) < EXACT * largest

    def sigma_point(self, moved: np.ndarray) -> np.ndarray:
        """The same step as steps of Sigma, for unstructured blocks."""
        out = moved.copy()
        theta = self.run.theta
        for table in self.blocks:
            inside = table >= 0
            lam = np.where(inside, theta[table], 0.0)
            step = np.where(inside, moved[table], 0.0) - lam
            if self.frozen[table[inside]].any():
                continue
            L = sigma_step(lam, step)
            if L is not None:
                out[table[inside]] = L[inside]
        return out

    def attempt(self, moved: np.ndarray, predicted: float, secant: bool, mu: float) -> bool:
        """Evaluate a trial point and go there if the function falls enough."""
        run = self.run
        if not predicted > 0.0:
            return False
        theta, f, g = run.theta, run.value, run.gradient
        d = moved - theta
        trial, flipped = self.reflect(moved.copy())
        result = self.evaluate(trial)
        if result is None:
            return False
        reduction = f - result[0]
        noise = NOISE * (1.0 + abs(f))
        if not reduction >= 1e-4 * predicted - noise:
            # below the rounding of f the gradient decides
            if not (run.decrement < 1e-6 and abs(reduction) < 100.0 * noise):
                return False
            before = run.theta, (run.value, run.gradient, run.hessian)
            self.accept(trial, result)
            step = descend(*factorise(run.hessian, self.free()), run.gradient)
            if not -0.5 * float(run.gradient @ step) < run.decrement:
                self.accept(*before)
                return False
        if flipped or mu > 0.0 or reduction < 0.25 * predicted:
            self.C = None
        else:
            self.update_secant(d, result[1] - g, result[2])
        self.accept(trial, result)
        return True

    def update_secant(self, d: np.ndarray, dg: np.ndarray, H: np.ndarray) -> None:
        """Symmetric rank-one update of the correction C, so that (H + C) d = dg."""
        rest = dg - H @ d
        if self.C is not None:
            rest = rest - self.C @ d
        along = float(rest @ d)
        if abs(along) > 1e-8 * math.sqrt(float(rest @ rest) * float(d @ d)):
            update = np.outer(rest, rest) / along
            self.C = update if self.C is None else self.C + update

    # ---- the ending
    def near_bounds(self) -> list[np.ndarray]:
        """Sets of parameters next to a bound and not frozen: whole columns, or their diagonals only."""
        theta = self.run.theta
        near = self.control.snap * max(1.0, float(np.abs(theta).max(initial=0.0)))
        sets: list[np.ndarray] = []
        for c in self.columns:
            if theta[c[0]] <= near and not self.frozen[c[0]]:
                sets.append(c if np.all(np.abs(theta[c]) <= near) else c[:1])
        low = (theta - self.lower <= near) & ~self.reflected & ~self.frozen
        low |= (self.upper - theta <= near) & self.mirrored & ~self.frozen
        return sets + [np.array([i]) for i in np.flatnonzero(low)]

    def snap(self) -> tuple[bool, bool]:
        """Set parameters next to a bound exactly on it where the value allows, and freeze them.

        All at once together with the last Newton step; failing that one set after the other.

        Returns
        -------
        on_bound : bool
            Whether any parameter is frozen now.
        stepped : bool
            Whether the last Newton step was taken too.
        """
        sets = self.near_bounds()
        if not sets:
            return False, False
        moved, _ = self.reflect(self.project(self.run.theta + self.step))
        if self.try_bound(np.concatenate(sets), moved):
            return True, True
        done = [self.try_bound(c, self.run.theta) for c in sets]  # every one, not only the first
        return any(done), False

    def try_bound(self, index: np.ndarray, base: np.ndarray) -> bool:
        """Go to `base` with the parameters `index` on their bounds, unless the value is worse there."""
        run = self.run
        trial = base.copy()
        trial[index] = np.where(np.isfinite(self.lower[index]), self.lower[index], 0.0)
        high = self.mirrored[index] & (self.upper[index] - base[index] < base[index] - self.lower[index])
        trial[index] = np.where(high, self.upper[index], trial[index])
        if np.any(trial != run.theta):
            result = self.evaluate(trial)
            if result is None or result[0] > run.value + 1e-9 + NOISE * abs(run.value):
                return False
            self.accept(trial, result)
        self.frozen[index] = True
        return True

    def released(self) -> float:
        """Predicted decrease if nothing were frozen."""
        run, frozen = self.run, self.frozen
        self.frozen = np.zeros_like(frozen)
        step = descend(*factorise(run.hessian, self.free()), run.gradient)
        self.frozen = frozen
        return 0.5 * float(-run.gradient @ step) + 0.0

    def escape(self) -> bool:
        """Leave a saddle point along the direction the certificate names."""
        certificate = getattr(self.objective, "certificate", None)
        if certificate is None:
            return False
        facts = certificate(self.run.theta)
        if facts.escape is None or not len(facts.min_eigenvalues) or min(facts.min_eigenvalues) >= 0.0:
            return False
        target = facts.escape(self.run.theta)
        if target is None:
            return False
        origin, t = self.run.theta, 1.0
        for _ in range(5):
            trial, _ = self.reflect(self.project(origin + t * (np.asarray(target, dtype=float) - origin)))
            result = self.evaluate(trial)
            if result is not None and result[0] < self.run.value - 1e-8 - NOISE * abs(self.run.value):
                self.accept(trial, result)
                self.run.escapes += 1
                return True
            t *= 0.25
        return False


def newton(
    objective: Any,
    start: np.ndarray,
    control: Control,
    monitor: Callable[[int, np.ndarray, float, float], Status | None] = lambda *_: None,
    search: type[Search] | None = None,
) -> Run:
    """Minimise by Newton steps with average information plus curvature.

    Parameters
    ----------
    objective : Objective
    start : ndarray, shape (n_theta,)
    control : Control
    monitor : callable
        ``monitor(iteration, theta, value, decrement)`` before every step; a Status it returns ends the
        search.
    search : subclass of Search, optional
        Another method for the inner search: bounds, exact zeros and escapes from saddle points stay the same.

    Returns
    -------
    Run

    References
    ----------
    Gilmour, Thompson, Cullis (1995), average information. Levenberg (1944). Conn, Gould, Toint (1991), SR1.
    """
    if search is None and has_cone(objective):
        return cone_newton(objective, start, control, monitor)
    state = (search or Search)(objective, control, monitor)
    run = state.run
    limit = control.limit(state.default_limit)
    if not state.start(start):
        run.status = Status.NOT_POSITIVE_DEFINITE
        return run
    while True:
        run.status = state.minimise(limit, last_step=True)
        if run.status is not Status.CONVERGED:
            break
        _, stepped = state.snap()
        if not state.frozen.any():
            break
        run.status = state.minimise(limit, last_step=not stepped)
        if run.status is not Status.CONVERGED:
            break
        run.status = Status.BOUNDARY
        released = state.released()
        if run.escapes >= control.escapes:
            run.status = Status.STALLED if released > 1e-6 else run.status
            break
        if not state.escape():
            if not released > 1e-8:
                break
            run.escapes += 1  # a diagonal was frozen at zero too soon
        state.frozen[:] = False
    return run
