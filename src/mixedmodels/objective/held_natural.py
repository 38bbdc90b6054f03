"""A natural parameter of a structure that is not linear in theta held: SD, correlation, range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixedmodels.objective.held import HeldPoint
from mixedmodels.objective.natural import NaturalObjective
from mixedmodels.optimize import Control, minimize

__all__ = ["HeldNatural"]

_TOL = 1e-10


class HeldNatural:
    """One coordinate of a `NaturalObjective` held on a scale u of its own.

    Parameters
    ----------
    objective : LMMObjective
    theta : ndarray
        The minimum of the objective.
    term : int
    place : int
        Of the parameter among the coordinates.
    scale : object
        ``back(u)`` gives the natural parameter, ``to(x)`` the coordinate u.
    """

    def __init__(self, objective: Any, theta: np.ndarray, term: int, place: int, scale: Any) -> None:
        self.objective, self.theta, self.term, self.place, self.scale = objective, theta, term, place, scale
        self._whole = NaturalObjective(objective, theta, [term])
        low, high = self._whole.lower[place], self._whole.upper[place]
        self.lower = float(scale.to(low)) if low == -1.0 else -math.inf
        self.upper = float(scale.to(high)) if high == 1.0 else math.inf

    def _point(self, xi: np.ndarray, u: float, converged: bool) -> HeldPoint:
        value, gradient, H = self._whole.newton(xi)
        j = self.place
        x = float(self.scale.back(u))
        rate = 1.0 / float(self.scale.rate(x))  # dx / du
        free = np.arange(len(xi)) != j
        curvature = float(H[j, j] - H[j, free] @ np.linalg.solve(H[np.ix_(free, free)], H[free, j]))
        theta, tau = self._whole.point(xi)
        factors = tuple(self.objective.factors(theta))
        return HeldPoint(
            u, value, float(gradient[j]) * rate, curvature * rate**2, math.exp(tau), factors, xi, converged,
            {"theta": theta},
        )  # fmt: skip

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        xi = self._whole.start
        return self._point(xi, float(self.scale.to(xi[self.place])), True)

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with the parameter held at u."""
        x = float(self.scale.back(u))
        rest = NaturalObjective(self.objective, near.extra["theta"], [self.term], {self.place: x})
        start = np.delete(near.state, self.place)
        optimum = minimize(rest, "newton", start, Control(tol=_TOL), certify=False)
        return self._point(np.insert(optimum.theta, self.place, x), u, bool(optimum.converged))
