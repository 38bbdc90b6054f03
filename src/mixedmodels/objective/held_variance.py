r"""A standard deviation or a correlation held: minimum of the criterion over everything else.

The covariance matrix of the term is written :math:`\Sigma = FF'` with the rows of F taken in an order that
starts with the columns in question, so that what is held is a coordinate of F:

* the SD :math:`\sigma\sqrt{\Sigma_{ii}} = u`: row i is :math:`(u e^{-\tau}, 0, \ldots)`, :math:`\tau =
  \log\sigma`;
* the correlation :math:`\sin u`: row i is :math:`(a, 0, \ldots)`, row j :math:`(c \sin u, c \cos u, 0,
  \ldots)`, :math:`a, c \ge 0`.

Everything else (the other rows of F, the other terms, tau) is free and without bounds but those of a and c:
columns of F may pass through zero, which changes nothing in Sigma. Singular matrices are ordinary points.
With :math:`d = \log|V| + \nu(\log 2\pi + 2\tau) + r^2 e^{-2\tau}` (plus the REML part),
:math:`M = T - e^{-2\tau} S`, and :math:`\dot\Sigma_t` the derivative of Sigma to coordinate t,

.. math::
    d_t &= \langle M, \dot\Sigma_t\rangle + [t = \tau]\,(2\nu - 2 r^2 e^{-2\tau}), \\
    d_{tu} &= 2e^{-2\tau} w_{tu} - \mathrm{tr}(K\dot\Sigma_t K\dot\Sigma_u) + \langle M,
    \ddot\Sigma_{tu}\rangle
        + 2e^{-2\tau}\,([t=\tau] q_u + [u=\tau] q_t) + [t=u=\tau]\, 4 r^2 e^{-2\tau}.

Where the trace is not affordable, average information :math:`e^{-2\tau} w_{tu}` takes the place of the first
two terms and secant pairs correct it.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.held import HeldPoint
from mixedmodels.objective.held_newton import NewtonSystem, Second, secant
from mixedmodels.objective.parameters import lower_factor
from mixedmodels.solver.base import Breakdown
from mixedmodels.solver.compiled import CompiledSolver
from mixedmodels.solver.grouped import GroupedSolver

__all__ = ["HeldVariance"]

_LOG_2PI = math.log(2.0 * math.pi)
_DECREMENT = 1e-5  # below it the last Newton step is taken without another evaluation ...
_DECREMENT_SECANT = 1e-10  # ... and below this if second derivatives are not exact
_NEAR = 1e-4  # ... and below this if it is only compared with others
_LOWER = 1e-6  # a criterion lower by this is on another branch, not rounding
_ROUGH = 1e-2  # ... and below this if the point is only a step on the way


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Free coordinates at a minimum, their derivative to u, and the secant correction."""

    x: np.ndarray
    tangent: np.ndarray
    correction: np.ndarray | None


class _Block:
    """One free covariance matrix: the terms that have it, and where its coordinates are."""

    def __init__(self, terms: tuple[int, ...], k: int, clip: str, order: list[int], skip: int) -> None:
        self.terms, self.k, self.clip = terms, k, clip
        if clip == "block":
            entries = [(order[m], c) for m in range(skip, k) for c in range(m + 1)]
            groups = [[entry] for entry in entries]
        elif clip == "diagonal":
            groups = [[(r, r)] for r in order[skip:]]
        else:
            groups = [] if skip else [[(r, r) for r in range(k)]]
        self.groups = groups
        pairs = (
            [(a, b) for a in range(k) for b in range(a + 1)]
            if clip == "block"
            else [(a, a) for a in range(k)]
        )
        self.rows, self.columns = (np.array(side, dtype=np.intp) for side in zip(*pairs, strict=True))
        self.basis = []
        for a, b in pairs:
            D = np.zeros((k, k))
            D[a, b] = D[b, a] = 1.0
            self.basis.append(D)
        self.twice = np.where(self.rows == self.columns, 1.0, 2.0)
        self.place = slice(0, 0)  # of its basis among those of all blocks
        self.triangular = order == list(range(k))


class HeldVariance:
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
        self.objective, self.theta = objective, np.array(theta)
        self.row, self.other = row, other
        terms = objective.design.terms
        tied = objective._map.tied
        whole = {tuple(index.tolist()) for index in objective._map.index}
        if sum(map(len, whole)) != objective.n_theta:
            raise OptionError(
                "standard deviations of terms that share single parameters cannot be profiled; "
                "profile the fixed effects and sigma"
            )
        first = 0 if objective.sigma_fixed is not None else 1  # x[0] is tau
        self._tau = first == 1
        self.blocks: list[_Block] = []
        self._own = -1
        for b, group in enumerate(tied):
            if b != group[0]:
                continue
            k, clip = terms[b].k, terms[b].covariance.clip
            order, skip = list(range(k)), 0
            if term in group:
                self._own = len(self.blocks)
                lead = [row] if other is None else [row, other]
                order = lead + [i for i in range(k) if i not in lead]
                skip = 1 if other is None else 2
            self.blocks.append(_Block(group, k, clip, order, skip))
            if term in group:
                self._order = order
        own = self.blocks[self._own]
        at = first
        self._coordinates: list[list[int]] = []
        if other is not None:  # a and c
            self._a, self._c = at, at + 1
            at += 2
        for block in self.blocks:
            self._coordinates.append(list(range(at, at + len(block.groups))))
            at += len(block.groups)
        self.r = at
        self.bounded = np.zeros(self.r, dtype=bool)
        if other is not None:
            self.bounded[[self._a, self._c]] = True
            self.lower, self.upper = -0.5 * math.pi, 0.5 * math.pi
        else:
            self.lower, self.upper = 0.0, math.inf
        # d F / d x, shape (r + 1, k, k), u last: the constant part
        self._E = []
        for block, coordinates in zip(self.blocks, self._coordinates, strict=True):
            E = np.zeros((self.r + 1, block.k, block.k))
            for t, group in zip(coordinates, block.groups, strict=True):
                for r, c in group:
                    E[t, r, c] = 1.0
            self._E.append(E)
        if other is not None:
            self._E[self._own][self._a, row, 0] = 1.0
        if own.clip == "diagonal":
            self._held_places = [(row, row)]
        elif own.clip == "trace":
            self._held_places = [(i, i) for i in range(own.k)]
        else:
            self._held_places = [(row, 0)]
        self._directions: list[list[np.ndarray | None]] = []
        for block in self.blocks:
            block.place = slice(len(self._directions), len(self._directions) + len(block.basis))
            for D in block.basis:
                line: list[Any] = [None] * len(terms)
                for b in block.terms:
                    line[b] = D
                self._directions.append(line)
        solver, reml = objective.solver, objective.reml
        self._zeros: list[tuple[np.ndarray, HeldPoint]] | None = None
        self._dS: Any = None
        self._evaluator: Any = None
        if isinstance(solver, CompiledSolver):
            self._dS, self._evaluator = solver._dS(self._directions), solver._working_evaluator(reml)
        self._exact = isinstance(solver, GroupedSolver)  # elsewhere the trace costs more than secants

    # ------------------------------------------------------------------ coordinates
    def _factors(self, x: np.ndarray, u: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """F and dF/d(x, u) per block."""
        factors, derivatives = [], []
        for b, (block, coordinates, E) in enumerate(
            zip(self.blocks, self._coordinates, self._E, strict=True)
        ):
            F = np.tensordot(x[coordinates], E[coordinates], 1) if coordinates else np.zeros((block.k,) * 2)
            if b == self._own:
                E = E.copy()
                if self.other is None:
                    unit = math.exp(-x[0]) if self._tau else 1.0 / self.objective.sigma_fixed
                    for place in self._held_places:
                        F[place] = u * unit
                        E[-1][place] = unit
                        if self._tau:
                            E[0][place] = -u * unit
                else:
                    si, co = math.sin(u), math.cos(u)
                    a, c = x[self._a], x[self._c]
                    F[self.row, 0] = a
                    F[self.other, 0], F[self.other, 1] = c * si, c * co
                    E[self._c, self.other, 0], E[self._c, self.other, 1] = si, co
                    E[-1, self.other, 0], E[-1, self.other, 1] = c * co, -c * si
            factors.append(F)
            derivatives.append(E)
        return factors, derivatives

    def _lower(self, factors: list[np.ndarray]) -> list[np.ndarray]:
        """Lower-triangular relative factors of the terms (the signs of their columns do not matter)."""
        out: list[Any] = [None] * len(self.objective.design.terms)
        for block, F in zip(self.blocks, factors, strict=True):
            L = F if block.triangular or block.clip != "block" else np.asarray(np.linalg.qr(F.T, mode="r")).T
            for b in block.terms:
                out[b] = L
        return out

    def _pieces(
        self, lower: list[np.ndarray]
    ) -> tuple[float, float, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """log determinants, r^2, <T, D>, <S, D>, w and the traces (None if too dear) for the basis D."""
        objective = self.objective
        solver, reml = objective.solver, objective.reml
        if (
            self._dS is not None
        ):  # straight to the compiled evaluator, whose coordinates hold the same products
            std = solver.standardised
            evaluator, lam = self._evaluator, solver._lam(lower)
            s2 = std.y_scale**2
            try:
                out = evaluator.components_at(lam, self._dS, 2)
                products = evaluator.trace_products(lam, self._dS)[0] if self._exact else None
            except FloatingPointError as error:
                raise Breakdown(f"{error}; check the values of theta") from None
            logdets = out["logdet_L2"]
            if reml:
                logdets += out["logdet_RX2"] - 2.0 * std.logdet_T_X
            pwrss, wpw = s2 * out["pwrss"], s2 * out["wpw"]
            t, q = self._dS @ out["T"], s2 * (self._dS @ out["S"])
        else:
            parts = solver.components(lower, 2, self._directions, reml)
            logdets = parts.logdet_L2 + (parts.logdet_RX2 if reml else 0.0)
            pwrss, wpw, products = parts.pwrss, parts.wpw, None
            t, q = (
                np.array(
                    [
                        sum(
                            float(np.sum(A * D)) for A, D in zip(matrices, line, strict=True) if D is not None
                        )
                        for line in self._directions
                    ]
                )
                for matrices in (parts.T, parts.S)
            )
        return logdets - objective._sum_log_w, pwrss, t, q, wpw, products

    def _evaluate(self, x: np.ndarray, u: float) -> Second:
        """Criterion, gradient and Hessian in (x, u)."""
        objective = self.objective
        factors, E = self._factors(x, u)
        logdets, pwrss, t, q, wpw, products = self._pieces(self._lower(factors))
        tau = x[0] if self._tau else math.log(objective.sigma_fixed)
        scale = math.exp(-2.0 * tau)
        d = logdets + objective.nu * (_LOG_2PI + 2.0 * tau) + pwrss * scale
        if not math.isfinite(d):
            raise Breakdown("the criterion is not finite")
        second = scale * wpw if products is None else 2.0 * scale * wpw - products
        m = t - scale * q
        r = self.r + 1
        V = np.empty((r, len(m)))
        H = np.zeros((r, r))
        for b, (block, F, E_b) in enumerate(zip(self.blocks, factors, E, strict=True)):
            M = np.zeros((block.k, block.k))
            half = m[block.place] / block.twice
            M[block.rows, block.columns] = half
            M[block.columns, block.rows] = half
            EF = E_b @ F.T
            V[:, block.place] = (EF + EF.transpose(0, 2, 1))[:, block.rows, block.columns]
            H += 2.0 * (E_b.reshape(r, -1) @ (M @ E_b).reshape(r, -1).T)
            if b == self._own:
                self._curve(H, M @ F, E_b, x, u)
        g = V @ m
        H += V @ second @ V.T
        if self._tau:
            g[0] += 2.0 * objective.nu - 2.0 * pwrss * scale
            cross = 2.0 * scale * (V @ q)
            H[0] += cross
            H[:, 0] += cross
            H[0, 0] += 4.0 * pwrss * scale
        return Second(d, g, 0.5 * (H + H.T))

    def _curve(self, H: np.ndarray, MF: np.ndarray, E: np.ndarray, x: np.ndarray, u: float) -> None:
        """Adds ``2 <M F, d2F>``: the held coordinates are not linear in (x, u)."""
        if self.other is not None:
            j, c = self.other, x[self._c]
            si, co = math.sin(u), math.cos(u)
            mixed = 2.0 * (MF[j, 0] * co - MF[j, 1] * si)
            H[self._c, -1] += mixed
            H[-1, self._c] += mixed
            H[-1, -1] -= 2.0 * c * (MF[j, 0] * si + MF[j, 1] * co)
        elif self._tau:
            for place in self._held_places:
                unit = E[-1][place]
                H[0, 0] += 2.0 * MF[place] * u * unit
                H[0, -1] -= 2.0 * MF[place] * unit
                H[-1, 0] -= 2.0 * MF[place] * unit

    # ------------------------------------------------------------------ minimisation
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

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with the parameter held at u, started from one or two known minima."""
        state: _State = near.state
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
        for held, zero in self._without(near) if self.other is not None else ():
            if zero.criterion < best.criterion - _LOWER:  # the minimum is on another branch
                x = self._search(zero.state.x, u, None, tol, held).state.x
                found = self._search(x, u, None, tol)
                best = found if found.criterion < best.criterion else best
        return best

    def _without(self, near: HeldPoint) -> list[tuple[np.ndarray, HeldPoint]]:
        """Minima with one of the two standard deviations at zero, where the correlation means nothing."""
        if self._zeros is None:
            self._zeros = []
            for t in (self._a, self._c):
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
        state: _State = near.state
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
        if self._tau:
            new[0] = x[0] + min(max(new[0] - x[0], -2.0), 2.0)
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
            _State(x, tangent, system.correction),
            converged,
        )
