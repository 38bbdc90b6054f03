r"""A function of the covariance parameters held: standard deviations, correlations, ranges of any structure.

With structured residuals the criterion is a function of :math:`y = (\psi, \tau)`, :math:`\tau = \log\sigma`,

.. math:: D(y) = \log|V| + \nu(\log 2\pi + 2\tau) + r^2 e^{-2\tau} \; [+ \log|X'V^{-1}X|] .

Holding :math:`f(y) = x` makes one coordinate e a function of the others, :math:`dy_e = -f_k/f_e\,dy_k`; with
T the derivative of y in the others and :math:`\lambda = D_e/f_e`,

.. math:: \text{gradient } T'D_y, \qquad \text{Hessian } T'(D_{yy} - \lambda f_{yy})T, \qquad
    \frac{d}{dx} \min D = \lambda .
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.objective.held import HeldPoint, minimised
from mixedmodels.objective.posterior import positive_definite
from mixedmodels.optimize import Control, minimize
from mixedmodels.optimize.trust_region import trust_region
from mixedmodels.solver.base import Breakdown

__all__ = ["HeldFunction"]

Function = Callable[[np.ndarray, float], "tuple[float, np.ndarray]"]

_TOL = 1e-10
_ROOT = 1e-13
_STEP = 1e-5
_HALVINGS = 5
_WORK = 2e6  # multiplications for traces that a step is worth
_LIMIT = 60  # iterations in the trust region


class _Criterion:
    """D and its derivatives in (psi, tau); in psi alone for a fixed sigma."""

    def __init__(self, objective: Any) -> None:
        _ = objective.engine
        self.objective = objective
        self.free_sigma = objective.sigma_fixed is None
        self.size = objective.n_theta + self.free_sigma
        lower = np.array(objective.lower, dtype=float)
        for _, _, _, t in objective._map.linear_entries.tolist():
            lower[t] = -np.inf  # signs of columns of a factor do not matter
        self.lower = np.append(lower, -np.inf)[: self.size]
        self.upper = np.append(objective.upper, np.inf)[: self.size]

    def tau(self, y: np.ndarray) -> float:
        return float(y[-1]) if self.free_sigma else math.log(self.objective.sigma_fixed)

    def _at(self, y: np.ndarray) -> tuple[Any, np.ndarray]:
        """The objective with that sigma, and psi."""
        held = copy.copy(self.objective)
        if not -300.0 < self.tau(y) < 300.0:
            raise Breakdown("sigma is zero or infinite")
        held.sigma_fixed = math.exp(self.tau(y))
        return held, np.array(y[: self.objective.n_theta])

    @property
    def exact(self) -> bool:
        """Whether exact second derivatives cost little."""
        return bool(self.objective.observed_is_cheap and self.objective.trace_work <= _WORK)

    def value(self, y: np.ndarray) -> float:
        held, psi = self._at(y)
        return float(held.value(psi))

    def second(self, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient, Hessian (average information where the exact one costs much)."""
        held, psi = self._at(y)
        value, g = held.value_and_gradient(psi)
        H = held.information(psi, "observed" if self.exact else "average")
        if not self.free_sigma:
            return value, g, H
        state = held.at(psi)
        scale = held._scale(state)
        n = len(psi)
        out = np.empty((n + 1, n + 1))
        out[:n, :n] = H
        out[n, :n] = out[:n, n] = 2.0 * scale * held._forms(state, held.directions(psi))
        out[n, n] = 4.0 * scale * state.pwrss
        return value, np.append(g, 2.0 * held.nu - 2.0 * scale * state.pwrss), out


class _Rest:
    """D as a function of all coordinates but the one that holds f at x."""

    def __init__(self, whole: _Criterion, function: Function, x: float, y: np.ndarray, e: int) -> None:
        self.whole, self.function, self.x, self.e = whole, function, x, e
        self.lower, self.upper = np.delete(whole.lower, e), np.delete(whole.upper, e)
        self.guess = float(y[e])
        self.start = np.clip(np.delete(y, e), self.lower, self.upper)
        self.names = tuple([f"y{i}" for i in range(whole.size) if i != e])

    def _f(self, y: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.function(y[: self.whole.objective.n_theta], self.whole.tau(y))
        return value, gradient[: self.whole.size]

    def point(self, z: np.ndarray) -> np.ndarray:
        """All coordinates: Newton's method for the one that is a function of the others.

        Raises
        ------
        Breakdown
            There is no such value.
        """
        y = np.insert(np.asarray(z, dtype=float), self.e, self.guess)
        low, high = self.whole.lower[self.e], self.whole.upper[self.e]
        for _ in range(60):
            with np.errstate(all="ignore"):
                value, gradient = self._f(y)
                step = (self.x - value) / gradient[self.e]
            if not math.isfinite(step):
                break
            step = min(max(step, -2.0 - abs(y[self.e])), 2.0 + abs(y[self.e]))
            new = min(max(y[self.e] + step, low), high)
            if new == y[self.e] and abs(step) > 1e-8 * (1.0 + abs(new)):
                break
            y[self.e] = new
            if abs(step) <= _ROOT * (1.0 + abs(new)):
                self.guess = float(new)
                return y
        raise Breakdown("no parameters have this value there")

    def value(self, z: np.ndarray) -> float:
        return self.whole.value(self.point(z))

    def value_and_gradient(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient, _ = self.newton(z)
        return value, gradient

    def exact(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient and Hessian, which may be indefinite."""
        if np.any(z < self.lower) or np.any(z > self.upper):
            raise Breakdown("outside of the bounds")
        value, g, H, T, _ = self.parts(self.point(z))
        return value, T.T @ g, T.T @ H @ T

    def newton(self, z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, g, H = self.exact(z)
        return value, g, positive_definite(H)

    def minimum(self) -> tuple[np.ndarray, bool]:
        """All coordinates at the minimum, and whether it was reached."""
        control = Control(tol=_TOL)
        z, cheap = self.start, self.whole.exact
        if len(z):
            found = trust_region(self.exact, z, replace(control, maxiter=_LIMIT), self.names, exact=cheap)
            if found.converged:
                return self.point(found.theta), True
            z = found.theta
        found = minimize(self, "newton", z, control, certify=False)
        return self.point(found.theta), bool(found.converged)

    def parts(self, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, float]:
        """D, its gradient, the Hessian of the Lagrangian, T and f_e."""
        value, g, H = self.whole.second(y)
        _, slopes = self._f(y)
        f_e = float(slopes[self.e])
        if not f_e or not math.isfinite(f_e):
            raise Breakdown("the parameter does not move with its coordinate there")
        T = np.delete(np.eye(self.whole.size), self.e, axis=1)
        T[self.e] = -np.delete(slopes, self.e) / f_e
        return value, g, H - g[self.e] / f_e * self._bending(y, slopes), T, f_e

    def _bending(self, y: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """Second derivatives of f, for the steps only: by differences of its exact gradient."""
        out = np.zeros((self.whole.size,) * 2)
        for k in np.flatnonzero(slopes).tolist():
            h = _STEP * max(abs(y[k]), 0.1)
            up, down = y.copy(), y.copy()
            up[k] += h
            down[k] -= h
            with np.errstate(all="ignore"):
                out[k] = (self._f(up)[1] - self._f(down)[1]) / (2.0 * h)
        return np.where(np.isfinite(out), 0.5 * (out + out.T), 0.0)


class HeldFunction:
    """A function of (psi, log sigma) held on a scale u of its own.

    Parameters
    ----------
    objective : StructuredObjective
    theta : ndarray
        Its minimum.
    function : callable
        ``function(psi, tau)`` gives the value and its gradient in (psi, tau), shape (n_theta + 1,).
    scale : object
        ``to(x)``, ``back(u)`` and ``rate(x)`` = du/dx.
    lower, upper : float
        Bounds of u that belong to the parameter space.
    zero : sequence of int
        Entries of theta that are 0 where the function has its lower bound.
    branches : sequence of sequences of int
        Entries of theta that are 0 where the function means nothing (a correlation without one of its two
        standard deviations): the profile nowhere rises above the minimum there.
    ends : sequence of int
        Entries of theta that are 0 at both bounds of a correlation.
    """

    def __init__(
        self,
        objective: Any,
        theta: np.ndarray,
        function: Function,
        scale: Any,
        lower: float = -math.inf,
        upper: float = math.inf,
        zero: Sequence[int] = (),
        branches: Sequence[Sequence[int]] = (),
        ends: Sequence[int] = (),
    ) -> None:
        self.branches, self.ends = branches, tuple(ends)
        self.objective, self.theta, self.function, self.scale = objective, np.array(theta), function, scale
        self.lower, self.upper, self.zero = lower, upper, tuple(zero)
        self._whole = _Criterion(objective)
        self._lowest: HeldPoint | None = None

    def _coordinate(self, y: np.ndarray) -> int:
        """The coordinate that holds the function: the only one of psi, or sigma, or the steepest."""
        with np.errstate(all="ignore"):
            _, slopes = self.function(y[: self.objective.n_theta], self._whole.tau(y))
        slopes = np.where(np.isfinite(slopes), slopes, 0.0)
        (used,) = np.nonzero(slopes[: self.objective.n_theta])
        if used.size == 1:
            return int(used[0])
        if self._whole.free_sigma and slopes[-1]:
            return self._whole.size - 1
        if not used.size:
            raise Breakdown("the parameter does not move with any coordinate there")
        return int(used[np.argmax(np.abs(slopes[used]) / self.objective.units[used])])

    def _point(self, rest: _Rest, y: np.ndarray, u: float, converged: bool) -> HeldPoint:
        value, g, H, T, f_e = rest.parts(y)
        t = np.zeros(len(y))
        t[rest.e] = 1.0 / f_e
        inner, cross = T.T @ H @ T, T.T @ (H @ t)
        along = np.linalg.lstsq(inner, cross, rcond=None)[0] if len(inner) else np.zeros(0)
        back = 1.0 / float(self.scale.rate(rest.x))  # dx / du
        return self._made(
            y, u, value, g[rest.e] / f_e * back, float(t @ H @ t - cross @ along) * back**2, converged,
            (t - T @ along) * back,
        )  # fmt: skip

    def _made(
        self,
        y: np.ndarray,
        u: float,
        value: float,
        slope: float,
        curvature: float,
        converged: bool,
        tangent: np.ndarray,
    ) -> HeldPoint:
        psi = np.array(y[: self.objective.n_theta])
        extra = {"theta": psi, "beta": self.objective.solution(psi).beta, "tangent": tangent}
        sigma, factors = math.exp(self._whole.tau(y)), tuple(self.objective.factors(psi))
        return HeldPoint(u, value, slope, curvature, sigma, factors, y, converged, extra)

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        tau = math.log(self.objective.sigma(self.theta))
        y = np.append(self.theta, tau)[: self._whole.size]
        x, _ = self.function(self.theta, tau)
        u = float(self.scale.to(x))
        if u <= self.lower and self.zero:
            return self._zero_point(y, self.zero)
        rest = _Rest(self._whole, self.function, x, y, self._coordinate(y))
        return self._point(rest, y, u, True)

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with the function held at u."""
        if u <= self.lower and self.zero:
            return self._zero_point(near.state, self.zero)
        try:
            at_end = self.ends and not self.lower < u < self.upper
            point = self._zero_point(near.state, self.ends, u) if at_end else self._inside(u, near)
        except FloatingPointError:
            if not self.branches:
                raise
            point = None
        below = self._branch(near)
        if below is None or (point is not None and point.criterion <= below.criterion):
            assert point is not None
            return point
        return replace(below, u=u, state=near.state, extra={**below.extra, "tangent": near.extra["tangent"]})

    def _branch(self, near: HeldPoint) -> HeldPoint | None:
        """The lower minimum of those where the function means nothing."""
        if self._lowest is None and self.branches:
            points = [self._zero_point(near.state, zero) for zero in self.branches]
            self._lowest = replace(min(points, key=lambda point: point.criterion), slope=0.0)
        return self._lowest

    def _inside(self, u: float, near: HeldPoint, halvings: int = _HALVINGS) -> HeldPoint:
        """The minimum where the function means something; half of the way first where the step is long."""
        try:
            return self._step(u, near)
        except FloatingPointError:
            if not halvings:
                raise
        middle = self._inside(0.5 * (near.u + u), near, halvings - 1)
        return self._inside(u, middle, halvings - 1)

    def _step(self, u: float, near: HeldPoint) -> HeldPoint:
        """The minimum at u, from the tangent of a near one or from itself."""
        x = float(self.scale.back(u))
        y = np.array(near.state)
        e = self._coordinate(y)
        for begin in (y + near.extra["tangent"] * (u - near.u), y):
            begin = np.clip(begin, self._whole.lower, self._whole.upper)
            rest = _Rest(self._whole, self.function, x, begin, e)
            try:
                rest.value(rest.start)
            except FloatingPointError:
                continue
            y, converged = rest.minimum()
            return self._point(rest, y, u, converged)
        raise Breakdown("no parameters near the last ones have this value")

    def _zero_point(self, near: np.ndarray, zero: Sequence[int], u: float | None = None) -> HeldPoint:
        """The minimum without a random effect, or with perfect correlation: entries of theta are zero."""
        objective = self.objective
        rest = _Zero(objective, zero)
        kept = np.delete(near[: objective.n_theta], zero)
        free, value, converged = minimised(rest, np.clip(kept, rest.lower, rest.upper))
        psi = rest.whole(free)
        y = np.append(psi, math.log(objective.sigma(psi)))[: self._whole.size]
        u = self.lower if u is None else u
        return self._made(y, u, value, math.nan, math.nan, converged, np.zeros(len(y)))


class _Zero:
    """The objective as a function of all entries of psi but some that are zero."""

    def __init__(self, objective: Any, zero: Sequence[int]) -> None:
        self.objective, self.zero = objective, np.array(zero, dtype=np.intp)
        self.kept = np.setdiff1d(np.arange(objective.n_theta), self.zero)
        self.lower, self.upper = objective.lower[self.kept], objective.upper[self.kept]
        self.start = objective.start[self.kept]
        self.names = tuple([objective.names[i] for i in self.kept])

    def whole(self, theta: np.ndarray) -> np.ndarray:
        out = np.zeros(self.objective.n_theta)
        out[self.kept] = theta
        return out

    def value(self, theta: np.ndarray) -> float:
        return float(self.objective.value(self.whole(theta)))

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.objective.value_and_gradient(self.whole(theta))
        return value, gradient[self.kept]

    def newton(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, H = self.objective.newton(self.whole(theta))
        return value, gradient[self.kept], H[np.ix_(self.kept, self.kept)]
