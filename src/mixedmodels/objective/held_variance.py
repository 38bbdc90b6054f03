"""A standard deviation or a correlation held: minimum of the criterion over everything else.

The search of `mixedmodels.objective.held_search` in the coordinates of
`mixedmodels.objective.held_coordinates`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixedmodels.objective.held import HeldPoint
from mixedmodels.objective.held_coordinates import HeldCoordinates
from mixedmodels.objective.held_newton import NewtonSystem, Second
from mixedmodels.objective.held_search import HeldSearch, State
from mixedmodels.objective.parameters import lower_factor

__all__ = ["HeldVariance"]


class HeldVariance(HeldCoordinates, HeldSearch):
    """A standard deviation (``other`` is None, u = SD) or a correlation (u = arc sine) held.

    Parameters
    ----------
    objective : LMMObjective
        With structures "block", "diagonal" or "trace"; parameters shared only by whole terms.
    theta : ndarray
        The minimum of the objective.
    term : int
    row : int
        Column of the term.
    other : int, optional
        A second column: its correlation with `row` is held.
    """

    def __init__(
        self, objective: Any, theta: np.ndarray, term: int, row: int, other: int | None = None
    ) -> None:
        super().__init__(objective, theta, term, row, other)
        if other is not None:
            self.standard_deviations = (self._a, self._c)

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        objective = self.objective
        relative = objective.factors(self.theta)
        sigma = float(objective.sigma(self.theta))
        x = np.zeros(self.r)
        if self._tau:
            x[0] = math.log(sigma)
        u = math.nan
        for b, (block, coordinates) in enumerate(zip(self.blocks, self._coordinates, strict=True)):
            L = relative[block.terms[0]]
            if block.clip != "block":
                F = L
            elif b == self._own:
                order = np.array(self._order)
                F = np.zeros((block.k, block.k))
                F[order] = lower_factor((L @ L.T)[np.ix_(order, order)])
            else:
                F = L
            for t, group in zip(coordinates, block.groups, strict=True):
                x[t] = F[group[0]]
            if b == self._own:
                if self.other is None:
                    u = sigma * float(F[self._held_places[0]])
                else:
                    x[self._a], x[self._c] = F[self.row, 0], math.hypot(F[self.other, 0], F[self.other, 1])
                    u = math.atan2(F[self.other, 0], abs(F[self.other, 1]))
                    if 1.0 - abs(math.sin(u)) < 1e-12:
                        u = math.copysign(0.5 * math.pi, u)
        point = self._evaluate(x, u)
        return self._finish(x, u, point, self._system(x, point, None), np.zeros(self.r), 0.0, True)

    def _shortened(self, x: np.ndarray, new: np.ndarray) -> None:
        if self._tau:
            new[0] = x[0] + min(max(new[0] - x[0], -2.0), 2.0)

    def _finish(
        self,
        x: np.ndarray,
        u: float,
        point: Second,
        system: NewtonSystem,
        step: np.ndarray,
        decrement: float,
        converged: bool,
    ) -> HeldPoint:
        """The point after one last Newton step, with what neighbours and limits need."""
        held = system.H[-1, :-1]
        tangent = system.tangent()
        x = x + step
        x[self.bounded] = np.maximum(x[self.bounded], 0.0)
        factors, _ = self._factors(x, u)
        return HeldPoint(
            u,
            float(point.d - decrement),
            float(point.g[-1] + held @ step),
            float(system.H[-1, -1] + held @ tangent),
            math.exp(x[0]) if self._tau else float(self.objective.sigma_fixed),
            tuple(self._lower(factors)),
            State(x, tangent, system.correction),
            converged,
        )
