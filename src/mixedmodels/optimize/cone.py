r"""Newton's method in the covariance matrices themselves, on the cone of positive semi-definite ones.

As a function of :math:`\Sigma_b` the criterion is smooth up to the boundary of the cone and beyond: there are
no curved valleys, no stationary points without meaning and no columns whose sign is free, which is what makes
triangular factors of (nearly) singular matrices hard to optimise over. With x the distinct entries of all
:math:`\Sigma_b`, g the gradient and J the average information in x, each iteration

1. minimises the model :math:`q(d) = g'd + \tfrac12 d'Jd` over all :math:`x + d` in the cone. No evaluation of
   the criterion is needed for it: it is a problem in a few dozen numbers, solved by Newton steps in a factor
   :math:`\Sigma = BB'`, row-pivoted so that its leading part never degenerates. Columns that die are set to
   exactly zero; where a negative eigenvalue of the model's :math:`M = \partial q/\partial\Sigma` shows that a
   dead direction pays, it is taken up again. Far from the optimum, J is replaced by the expected information
   as it would be in a balanced design: average information is far too small above the optimum and too large
   below it;
2. goes there, or, if the criterion does not fall enough, to a point on the segment (the cone is convex);
3. corrects the matrix of the steps in B by symmetric rank-one secant updates once the steps get short, as
   long as it stays positive definite: average information is not quite the curvature, least of all on the
   boundary and with few levels.

:math:`-\min q`, the predicted decrease, is zero at a point exactly if the first-order conditions hold there
(:math:`M_b \succeq 0, M_b \Sigma_b = 0`). It is the measure of convergence.

Factors and their derivatives are in `mixedmodels.optimize.cone_factors`, step 1 in
`mixedmodels.optimize.cone_model`. ``mixedmodels.solver._kernels.newton`` holds the compiled twin; both take
the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.optimize.cone_factors import (
    cholesky,
    entries_of,
    factor_derivatives,
    lower_triangular,
    matrices_of,
    pivoted,
    stepped,
    tables_of_entries,
)
from mixedmodels.optimize.cone_model import RIDGE, ConeModel, minimise_model, truncated
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.optimum import Status
from mixedmodels.optimize.run import Run

__all__ = ["ConeSearch", "cone_newton"]

NOISE = 1e-13  # rounding of the criterion, relative
UNSEEN = 1e-4  # a last step is left out where it promises less than this share of tol
ROUNDING = 1e-15  # a predicted decrease this small, relative to the criterion, cannot be seen in it any more
NEAR = 0.5  # predicted decrease (deviance units): above it expected information, below it secant corrections
SLOW = 0.1  # ... those as soon as a step shrinks the predicted decrease by less than this
GUARD = 0.1  # smallest pivots with the correction, as a share of those without
CREEP = 0.3  # progress is slow when a step shrinks the predicted decrease by less than this ...
FAR = 10.0  # ... and the predicted decrease is below this; then the observed information is looked at
WEAK = 0.25  # and used while its smallest curvature, relative to J, is below this
FLOOR = 1e-4  # smallest relative curvature
LONG = 64.0  # longest step of it


class _Point:
    """A point with its derivatives."""

    __slots__ = ("J", "expected", "f", "factors", "g", "observed", "theta", "x")

    def __init__(
        self,
        theta: np.ndarray,
        factors: list[np.ndarray],
        x: np.ndarray,
        result: tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    ) -> None:
        self.theta, self.factors, self.x = theta, factors, x
        self.f, self.g, self.J, self.expected, self.observed = result


@dataclass(frozen=True, slots=True, eq=False)
class _FactorStep:
    """A step in factors, row-pivoted in `orders`, and the slope of the criterion along it."""

    factors: list[np.ndarray]
    orders: list[list[int]]
    step: np.ndarray
    slope: float


class ConeSearch:
    """One search; `run` holds what comes out."""

    def __init__(
        self,
        objective: Any,
        control: Control,
        monitor: Callable[[int, np.ndarray, float, float], Status | None],
    ) -> None:
        self.objective, self.control, self.monitor = objective, control, monitor
        tables = tables_of_entries(objective.entries)
        assert tables is not None
        self.tables = tables
        # theta in units of the rows' sizes, so that lengths of different rows can be compared
        self.units = np.asarray(getattr(objective, "units", np.ones(len(objective.lower))), dtype=float)
        self.sigma_units = entries_of(tables, [self.units[np.diag(table)][:, None] for table in tables])
        self.run = Run(theta=np.array([]))
        self.C: np.ndarray | None = None
        self.orders: list[list[int]] = []
        self.corrected = self.slow = False
        self.observed: _FactorStep | None = None

    def evaluate(self, factors: Sequence[np.ndarray]) -> _Point | None:
        """The criterion at factors of any shape; None where it does not exist."""
        run = self.run
        run.evaluations += 1
        run.gradient_evaluations += 1
        factors = [lower_triangular(B) for B in factors]
        theta = np.empty(len(self.units))
        for table, L in zip(self.tables, factors, strict=True):
            i, j = np.tril_indices(len(table))
            theta[table[i, j]] = L[i, j]
        theta = theta / self.units
        try:
            f, g, J, expected, observed = self.objective.sigma_model(theta)
        except (FloatingPointError, np.linalg.LinAlgError):
            return None
        if not (math.isfinite(f) and np.all(np.isfinite(g)) and np.all(np.isfinite(J + expected + observed))):
            return None
        unit, units = self.sigma_units, np.outer(self.sigma_units, self.sigma_units)
        result = float(f), g / unit, J / units, expected / units, observed / units
        return _Point(theta, factors, entries_of(self.tables, factors), result)

    def start(self, theta: np.ndarray) -> _Point | None:
        """The start, pulled towards zero while the criterion does not exist there."""
        for _ in range(12):
            factors = []
            for table in self.tables:
                i, j = np.tril_indices(len(table))
                L = np.zeros(table.shape)
                L[i, j] = (theta * self.units)[table[i, j]]
                factors.append(L)
            point = self.evaluate(factors)
            if point is not None:
                return point
            theta = 0.1 * theta
        self.run.theta = theta
        return None

    def step(self, point: _Point, last: float) -> tuple[list[np.ndarray], list[np.ndarray], float]:
        """Minima of the model, the better one and that of J alone, and the predicted decrease."""
        cap = self.control.cap
        found = minimise_model(ConeModel(self.tables, point.x, point.g, point.J), point.factors, cap)
        plain, decrease, escapes = found
        factors = plain
        if decrease > NEAR:
            found = minimise_model(
                ConeModel(self.tables, point.x, point.g, point.expected), point.factors, cap
            )
            factors, decrease, escapes = found
        self.run.escapes += escapes
        self.slow = self.slow or CREEP * last < decrease < FAR
        self.observed = self.observed_step(point) if self.slow and decrease < FAR and not escapes else None
        if self.observed is not None:
            predicted = -0.5 * self.observed.slope
            if predicted > 0.1 * decrease:
                return factors, plain, max(decrease, predicted)
            self.observed = None
        if self.C is not None and decrease < NEAR and (self.corrected or decrease > SLOW * last):
            better = self.corrected_step(point)
            if better is not None and 0.1 * decrease < better[1] < 100.0 * decrease:
                factors, decrease = better[0], max(decrease, better[1])
                self.corrected = True
            else:
                self.C = None
        return factors, plain, decrease

    def advance(
        self, point: _Point, target: list[np.ndarray], plain: list[np.ndarray], decrease: float
    ) -> _Point | None:
        """A point between `point` and a target where the criterion is low enough; updates the correction.

        J alone is convex, hence the criterion falls at first on the segment to its minimum. To the better
        target it need not: that may lie on a curved face, with higher ground between.
        """
        if self.observed is not None:
            new = self.along_factors(point, self.observed, decrease)
            if new is not None:
                return new
            target = plain
        noise = NOISE * (1.0 + abs(point.f))
        toward = entries_of(self.tables, target) - point.x
        slope = float(point.g @ toward)
        t, factors = 1.0, target
        for _ in range(12):
            trial = self.evaluate(factors)
            if trial is not None:
                fall = point.f - trial.f
                gain = decrease if t == 1.0 else -slope * t
                if fall >= 1e-4 * gain - noise or (decrease < 1e-6 and abs(fall) < 100.0 * noise):
                    self.learn(point, trial, t == 1.0 and fall >= 0.25 * decrease)
                    return trial
            if t == 1.0 and slope > -0.5 * decrease and target is not plain:
                self.C = None
                target = factors = plain
                toward = entries_of(self.tables, target) - point.x
                slope = float(point.g @ toward)
                continue
            t = 0.2 * t if trial is None else _cubic(t, slope, fall, float(trial.g @ toward))
            factors = [
                np.column_stack([math.sqrt(1.0 - t) * B, math.sqrt(t) * A])
                for B, A in zip(point.factors, target, strict=True)
            ]
        return None

    def corrected_step(self, point: _Point) -> tuple[list[np.ndarray], float] | None:
        """Newton step in the pivoted factors with the secant correction, and its predicted decrease."""
        turned = [pivoted(B) for B in point.factors]
        factors, orders = [B for B, _ in turned], [p for _, p in turned]
        gz, G, curvature = factor_derivatives(self.tables, factors, orders, point.g)
        H = G.T @ point.J @ G + curvature
        ridge = RIDGE * float(np.diag(H).max())
        without, L = cholesky(H, ridge), cholesky(H + self.C, ridge)
        if without is None or L is None or np.any(np.diag(L) ** 2 < GUARD * np.diag(without) ** 2):
            return None
        step = -np.linalg.solve(L.T, np.linalg.solve(L, gz))
        target = stepped(self.tables, factors, orders, step)
        model = ConeModel(self.tables, point.x, point.g, point.J)
        q, g, _ = model.at(target)
        return truncated(model, target, q, g)[0], -0.5 * float(gz @ step)

    def observed_step(self, point: _Point) -> _FactorStep | None:
        """Newton step in the pivoted factors with the observed information; None where J is good enough."""
        turned = [pivoted(B) for B in point.factors]
        factors, orders = [B for B, _ in turned], [p for _, p in turned]
        gz, G, curvature = factor_derivatives(self.tables, factors, orders, point.g)
        H = G.T @ point.J @ G + curvature
        ridge = RIDGE * float(np.diag(H).max())
        L = cholesky(H, ridge)
        if L is None:
            return None
        for table, p, M in zip(self.tables, orders, matrices_of(self.tables, point.g), strict=True):
            for c in range(len(table)):
                inner = table[c:, c]
                curvature[np.ix_(inner, inner)] = 2.0 * M[np.ix_(p[c:], p[c:])]
        H = G.T @ point.observed @ G + curvature + ridge * np.eye(len(H))
        values, V = np.linalg.eigh(np.linalg.solve(L, np.linalg.solve(L, H).T))
        if not values[0] < WEAK:
            return None
        u = V.T @ np.linalg.solve(L, gz) / np.maximum(np.abs(values), FLOOR)
        step = -np.linalg.solve(L.T, V @ u)
        big = self.control.cap * max(0.1, max(float(np.abs(B).max()) for B in factors))
        size = float(np.abs(step).max())
        if size > big:
            step *= big / size
        return _FactorStep(factors, orders, step, float(gz @ step))

    def along_factors(self, point: _Point, way: _FactorStep, decrease: float) -> _Point | None:
        """A lower point on a straight line of factors; None if there is none but close by."""
        noise = NOISE * (1.0 + abs(point.f))
        model = ConeModel(self.tables, point.x, point.g, point.J)
        self.C = None
        t = 1.0
        for _ in range(6):
            factors = stepped(self.tables, way.factors, way.orders, t * way.step)
            if t == 1.0:
                q, g, _x = model.at(factors)
                factors = truncated(model, factors, q, g)[0]
            trial = self.evaluate(factors)
            if trial is None:
                t *= 0.2
                continue
            fall = point.f - trial.f
            if fall >= -1e-4 * t * way.slope - noise or (decrease < 1e-6 and abs(fall) < 100.0 * noise):
                while 1.0 <= t < LONG and fall > max(-0.7 * t * way.slope, 1e-3):
                    t *= 2.0
                    more = self.evaluate(stepped(self.tables, way.factors, way.orders, t * way.step))
                    if more is None or more.f > trial.f:
                        break
                    trial, fall = more, point.f - more.f
                return trial
            t = min(max(-0.5 * way.slope * t * t / (-fall - way.slope * t), 0.1 * t), 0.5 * t)
        return None

    def learn(self, old: _Point, new: _Point, good: bool) -> None:
        """Symmetric rank-one update, so that (H + C) d = change of the gradient; forgotten after a bad step.

        In the coordinates of the new point's pivoted factors: there the second derivatives have no part that
        only keeps the steps on a curved face.
        """
        turned = [pivoted(B) for B in new.factors]
        factors, orders = [B for B, _ in turned], [p for _, p in turned]
        if not good or orders != self.orders:
            self.C, self.orders = None, orders
        if not good:
            return
        before = []
        for B, p in zip(old.factors, orders, strict=True):
            L = np.empty_like(B)
            L[p] = lower_triangular(B[p])
            before.append(L)
        gz, G, curvature = factor_derivatives(self.tables, factors, orders, new.g)
        d = np.empty(len(gz))
        for table, A, B, p in zip(self.tables, factors, before, orders, strict=True):
            i, c = np.tril_indices(len(table))
            d[table[i, c]] = (A - B)[np.asarray(p)[i], c]
        rest = gz - factor_derivatives(self.tables, before, orders, old.g)[0]
        rest -= G.T @ (new.J @ (G @ d)) + curvature @ d
        if self.C is not None:
            rest -= self.C @ d
        along = float(rest @ d)
        if abs(along) > 1e-8 * math.sqrt(float(rest @ rest) * float(d @ d)):
            update = np.outer(rest, rest) / along
            self.C = update if self.C is None else self.C + update

    def minimise(self, point: _Point, limit: int) -> tuple[_Point, Status]:
        """Steps until the predicted decrease is below tol, and one more unless it is far below."""
        run, tol = self.run, self.control.tol
        last, extra = math.inf, True
        while True:
            target, plain, run.decrement = self.step(point, last)
            if self.control.trace:
                run.trace.append((run.iterations, point.theta.copy(), point.f))
            stop = self.monitor(run.iterations, point.theta, point.f, run.decrement)
            if stop is not None:
                return point, stop
            if run.decrement < tol:
                far_below = max(UNSEEN * tol, ROUNDING * abs(point.f))
                if not extra or run.decrement < far_below or run.iterations >= limit:
                    return point, Status.CONVERGED
                extra = False
            if run.iterations >= limit:
                return point, Status.MAXITER
            rounding = run.decrement < max(1e-8, NOISE * abs(point.f))
            if rounding and run.decrement > 0.5 * last:
                return point, Status.CONVERGED  # nothing left but rounding
            new = self.advance(point, target, plain, run.decrement)
            if new is None:
                return point, Status.CONVERGED if rounding else Status.STALLED
            run.iterations += 1
            point, last = new, run.decrement


def _cubic(t: float, slope: float, fall: float, end_slope: float) -> float:
    """Minimiser of the cubic through both ends of a step of length t that did not fall enough."""
    a = slope + end_slope + 3.0 * fall / t
    root = a * a - slope * end_slope
    guess = 0.5 * t
    if root > 0.0:
        b = math.sqrt(root)
        below = end_slope - slope + 2.0 * b
        if below != 0.0:
            guess = t - t * (end_slope + b - a) / below
    return min(max(guess, 0.1 * t), 0.6 * t)


def cone_newton(
    objective: Any,
    start: np.ndarray,
    control: Control,
    monitor: Callable[[int, np.ndarray, float, float], Status | None] = lambda *_: None,
) -> Run:
    """Minimise by Newton steps on the cone of positive semi-definite covariance matrices.

    Parameters
    ----------
    objective : Objective
        With ``entries``, ``sigma_model`` and no other bounds (see `has_cone`).
    start : ndarray, shape (n_theta,)
    control : Control
    monitor : callable
        ``monitor(iteration, theta, value, decrement)`` before every step; a Status it returns ends the
        search.

    Returns
    -------
    Run

    References
    ----------
    Gilmour, Thompson & Cullis (1995), average information. Burer & Monteiro (2003), Mathematical Programming
    95:329-357, semi-definite problems through factors. Conn, Gould & Toint (1991), rank-one updates.
    """
    search = ConeSearch(objective, control, monitor)
    run = search.run
    point = search.start(np.array(start, dtype=float))
    if point is None:
        run.status = Status.NOT_POSITIVE_DEFINITE
        return run
    point, run.status = search.minimise(point, control.limit(200))
    run.theta, run.value = point.theta, point.f
    orders = [list(range(len(table))) for table in search.tables]
    gz, G, curvature = factor_derivatives(search.tables, point.factors, orders, point.g)
    run.gradient = gz * search.units
    run.hessian = (G.T @ point.J @ G + curvature) * np.outer(search.units, search.units)
    singular = any(not np.all(np.diag(L) > 0.0) for L in point.factors)
    if run.status is Status.CONVERGED and singular:
        run.status = Status.BOUNDARY
    return run
