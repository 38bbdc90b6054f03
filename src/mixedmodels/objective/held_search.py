"""Search for the minimum of a criterion with one parameter held: damped Newton steps from nearby minima.

What is minimised and in which coordinates a subclass says; here is how: the start along the tangents of known
minima, steps with bounds kept, ways out of saddles, and the other branch of a correlation. Where a standard
deviation is zero its correlations mean nothing, so that the profile of a correlation nowhere rises above the
minimum without one of its two standard deviations; that branch is taken where it is the lower one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from mixedmodels.objective.held import HeldPoint
from mixedmodels.objective.held_newton import NewtonSystem, Second, secant
from mixedmodels.solver.base import Breakdown

__all__ = ["HeldSearch", "State"]

_DECREMENT = 1e-5  # below it the last Newton step is taken without another evaluation ...
_DECREMENT_SECANT = 1e-10  # ... and below this if second derivatives are not exact
_NEAR = 1e-4  # ... and below this if it is only compared with others
_LOWER = 1e-6  # a criterion lower by this is on another branch, not rounding
_ROUGH = 1e-2  # ... and below this if the point is only a step on the way


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Free coordinates at a minimum, their derivative to u, and the secant correction."""

    x: np.ndarray
    tangent: np.ndarray
    correction: np.ndarray | None


class HeldSearch:
    """The search; a subclass has `_evaluate`, `_finish` and the attributes.

    Attributes
    ----------
    r : int
        Free coordinates x.
    bounded : ndarray of bool, shape (r,)
        Coordinates that cannot be negative.
    standard_deviations : tuple of int
        Places in x of the two standard deviations of a correlation that is held; empty otherwise.
    """

    r: int
    bounded: np.ndarray
    standard_deviations: tuple[int, ...] = ()
    _exact: bool  # whether second derivatives are exact
    _zeros: list[tuple[np.ndarray, HeldPoint]] | None = None

    def _evaluate(self, x: np.ndarray, u: float) -> Second:
        """Criterion, gradient and Hessian in (x, u)."""
        raise NotImplementedError

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
        raise NotImplementedError

    def _shortened(self, x: np.ndarray, new: np.ndarray) -> None:
        """Cut the step to `new` further, in place."""

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with the parameter held at u, started from one or two known minima."""
        state: State = near.state
        tol = _DECREMENT if self._exact else _DECREMENT_SECANT
        if rough and self._exact:
            tol = _ROUGH
        correction = None if self._exact else state.correction
        best: HeldPoint | None = None
        for x in (self._guess(u, near, other), None, state.x):
            if x is None:  # from where the first search gave up, without its secant pairs
                x = state.x if best is None else best.state.x
            try:
                found = self._search(x, u, correction, tol)
            except Breakdown:
                if x is state.x:
                    raise
                continue
            if best is None or found.criterion < best.criterion or found.converged:
                best = found
            if best.converged:
                break
            correction = None
        assert best is not None
        for held, zero in self._without(near) if self.standard_deviations else ():
            if zero.criterion < best.criterion - _LOWER:  # the minimum is on another branch
                x = self._search(zero.state.x, u, None, tol, held).state.x
                found = self._search(x, u, None, tol)
                best = found if found.criterion < best.criterion else best
        return best

    def _without(self, near: HeldPoint) -> list[tuple[np.ndarray, HeldPoint]]:
        """Minima with one of the two standard deviations at zero, where the correlation means nothing."""
        if self._zeros is None:
            self._zeros = []
            for t in self.standard_deviations:
                held = np.zeros(self.r, dtype=bool)
                held[t] = True
                x = np.where(held, 0.0, near.state.x)
                with contextlib.suppress(Breakdown):
                    self._zeros.append((held, self._search(x, near.u, None, _NEAR, held)))
        return self._zeros

    def _search(
        self,
        x: np.ndarray,
        u: float,
        correction: np.ndarray | None,
        tol: float,
        held: np.ndarray | None = None,
    ) -> HeldPoint:
        """Damped Newton steps from x; coordinates `held` stay where they are."""
        point = self._evaluate(x, u)
        damping, escapes = 0.0, 0
        for _ in range(100):
            system = self._system(x, point, correction, held)
            step, decrement = system.newton(0.0)
            if decrement < tol:
                way = system.downhill()
                moved = None if way is None or escapes >= 4 else self._escape(x, u, point, way)
                if moved is None:
                    return self._finish(x, u, point, system, step, decrement, True)
                escapes += 1
                x, point = moved
                continue
            if damping > 0.0:
                step = system.newton(damping)[0]
            new, trial = self._moved(x, u, step)
            if trial is not None and trial.d <= point.d + 1e-12 * (1.0 + abs(point.d)):
                if not self._exact:
                    correction = secant(correction, trial, point, new - x)
                if trial.d >= point.d and decrement < 1e-6:  # nothing visible is left
                    system = self._system(new, trial, correction, held)
                    return self._finish(new, u, trial, system, 0.0 * step, 0.0, True)
                x, point = new, trial
                damping = 0.0 if damping < 1e-3 else 0.1 * damping
            else:
                damping = max(10.0 * damping, 1e-2)
                if damping > 1e12:
                    break
        return self._finish(
            x, u, point, self._system(x, point, correction, held), np.zeros(self.r), 0.0, False
        )

    def _guess(self, u: float, near: HeldPoint, other: HeldPoint | None) -> np.ndarray:
        """Coordinates at u: cubic through two minima and their tangents, or along one tangent."""
        state: State = near.state
        step = state.tangent * (u - near.u)
        if other is not None and other.u != near.u:
            h = other.u - near.u
            t = (u - near.u) / h
            if -1.0 <= t <= 2.0:
                chord = (other.state.x - state.x) / h
                b = 3.0 * chord - 2.0 * state.tangent - other.state.tangent
                c = state.tangent + other.state.tangent - 2.0 * chord
                step = h * t * (state.tangent + t * (b + c * t))
        x = state.x + np.clip(step, -1.0 - np.abs(state.x), 1.0 + np.abs(state.x))
        x[self.bounded] = np.maximum(x[self.bounded], 0.0)
        return x

    def _system(
        self, x: np.ndarray, point: Second, correction: np.ndarray | None, held: np.ndarray | None = None
    ) -> NewtonSystem:
        H = point.H
        if correction is not None:
            H = H.copy()
            H[:-1, :-1] += correction
        free = self._active(x, point.g)
        return NewtonSystem(H, point.g, free if held is None else free & ~held, correction)

    def _active(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Coordinates that are free to move."""
        return ~(self.bounded & (x <= 0.0) & (g[:-1] >= 0.0))

    def _moved(self, x: np.ndarray, u: float, step: np.ndarray) -> tuple[np.ndarray, Second | None]:
        """x + step with bounds kept, steps cut to a sensible length, and the criterion there."""
        longest = 1.0 + 2.0 * float(np.abs(x).max())
        size = float(np.abs(step).max())
        new = x + step * min(1.0, longest / size)
        self._shortened(x, new)
        new[self.bounded] = np.maximum(new[self.bounded], 0.0)
        try:
            return new, self._evaluate(new, u)
        except Breakdown:
            return new, None

    def _escape(
        self, x: np.ndarray, u: float, point: Second, way: np.ndarray
    ) -> tuple[np.ndarray, Second] | None:
        """A point below a saddle, along a direction of negative curvature."""
        for length in (1.0, 0.3, 0.1, 0.03, 0.01):
            for sign in (1.0, -1.0):
                new, trial = self._moved(x, u, sign * length * way)
                if trial is not None and trial.d < point.d - 1e-9:
                    return new, trial
        return None
