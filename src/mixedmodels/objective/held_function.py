r"""A function of the covariance parameters held: standard deviations, correlations, ranges of any structure.

The criterion is a function of :math:`y = (\psi, \log\sigma)` (`mixedmodels.objective.unprofiled`); what is
held is one more equation beside those that the fit obeys itself (`mixedmodels.objective.constrained`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.objective.constrained import Constrained, Equations, Function
from mixedmodels.objective.held import HeldPoint, minimised
from mixedmodels.objective.unprofiled import unprofiled
from mixedmodels.solver.base import Breakdown

__all__ = ["HeldFunction"]

NOTHING = Equations()
_HALVINGS = 5


class HeldFunction:
    """A function of (psi, log sigma) held on a scale u of its own.

    Parameters
    ----------
    objective : StructuredObjective or LMMObjective
    theta : ndarray
        Its minimum.
    function : Function
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
    equations : Equations
        What else binds the parameters.
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
        equations: Equations = NOTHING,
    ) -> None:
        self.branches, self.ends = branches, tuple(ends)
        self.objective, self.theta, self.function, self.scale = objective, np.array(theta), function, scale
        self.lower, self.upper, self.zero = lower, upper, tuple(zero)
        self.restrictions = equations
        self._whole = unprofiled(objective, self.restrictions.signed)
        self._lowest: HeldPoint | None = None

    def _held(self, x: float, y: np.ndarray, places: Any = None) -> Constrained:
        """The criterion where the function has the value x, last of the equations."""
        return Constrained(self._whole, self.restrictions.and_one(self.function, x), y, places)

    def _point(self, rest: Constrained, y: np.ndarray, u: float, converged: bool) -> HeldPoint:
        value, g, H, T, F_e = rest.parts(y)
        t = np.zeros(len(y))
        t[rest.places] = np.linalg.inv(F_e)[:, -1]
        inner, cross = T.T @ H @ T, T.T @ (H @ t)
        along = np.linalg.lstsq(inner, cross, rcond=None)[0] if len(inner) else np.zeros(0)
        back = 1.0 / float(self.scale.rate(rest.equations.values[-1]))  # dx / du
        return self._made(
            y, u, value, float(g @ t) * back, float(t @ H @ t - cross @ along) * back**2, converged,
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
        rest = self._held(x, y)
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
        places = self._held(x, y).places
        for begin in (y + near.extra["tangent"] * (u - near.u), y):
            rest = self._held(x, begin, places)
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
        u = self.lower if u is None else u
        if len(self.restrictions):
            return self._restricted_zero(near, zero, u)
        rest = _Zero(objective, zero)
        kept = np.delete(near[: objective.n_theta], zero)
        free, value, converged = minimised(rest, np.clip(kept, rest.lower, rest.upper))
        psi = rest.whole(free)
        y = np.append(psi, math.log(objective.sigma(psi)))[: self._whole.size]
        return self._made(y, u, value, math.nan, math.nan, converged, np.zeros(len(y)))

    def _restricted_zero(self, near: np.ndarray, zero: Sequence[int], u: float) -> HeldPoint:
        """`_zero_point` where the fit obeys equations of its own."""
        whole, y = self._whole, np.array(near)
        y[list(zero)] = 0.0
        equations = self.restrictions.entries_zero(whole.psi(y), whole.tau(y), zero)
        y, converged = Constrained(whole, equations, y).minimum()
        return self._made(y, u, whole.value(y), math.nan, math.nan, converged, np.zeros(len(y)))


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
