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

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.held import HeldPoint
from mixedmodels.objective.parameters import lower_factor
from mixedmodels.solver.base import Breakdown
from mixedmodels.solver.compiled import CompiledSolver

__all__ = ["HeldVariance"]

_LOG_2PI = math.log(2.0 * math.pi)
_DECREMENT = 1e-5  # below it the last Newton step is taken without another evaluation ...
_DECREMENT_SECANT = 1e-10  # ... and below this if second derivatives are not exact
_ROUGH = 1e-2  # ... and below this if the point is only a step on the way
_NEGATIVE = 1e-5  # a scaled eigenvalue below minus this is a way down, not rounding


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Free coordinates at a minimum, their derivative to u, and the secant correction."""

    x: np.ndarray
    tangent: np.ndarray
    correction: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class _Second:
    d: float
    g: np.ndarray
    H: np.ndarray


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
        self._dS: Any = None
        self._evaluator: Any = None
        if isinstance(solver, CompiledSolver):
            self._dS, self._evaluator = solver._dS(self._directions), solver._working_evaluator(reml)
        self._exact = hasattr(self._evaluator, "trace_products")

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

    def _evaluate(self, x: np.ndarray, u: float) -> _Second:
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
        return _Second(d, g, 0.5 * (H + H.T))

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
                return best
            correction = None
        assert best is not None
        return best

    def _search(self, x: np.ndarray, u: float, correction: np.ndarray | None, tol: float) -> HeldPoint:
        """Damped Newton steps from x."""
        point = self._evaluate(x, u)
        damping, escapes = 0.0, 0
        for _ in range(100):
            system = self._system(x, point, correction)
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
                    correction = _secant(correction, trial, point, new - x)
                if trial.d >= point.d and decrement < 1e-6:  # nothing visible is left
                    system = self._system(new, trial, correction)
                    return self._finish(new, u, trial, system, 0.0 * step, 0.0, True)
                x, point = new, trial
                damping = 0.0 if damping < 1e-3 else 0.1 * damping
            else:
                damping = max(10.0 * damping, 1e-2)
                if damping > 1e12:
                    break
        return self._finish(x, u, point, self._system(x, point, correction), np.zeros(self.r), 0.0, False)

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

    def _system(self, x: np.ndarray, point: _Second, correction: np.ndarray | None) -> _System:
        H = point.H
        if correction is not None:
            H = H.copy()
            H[:-1, :-1] += correction
        return _System(H, point.g, self._active(x, point.g), correction)

    def _active(self, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Coordinates that are free to move."""
        return ~(self.bounded & (x <= 0.0) & (g[:-1] >= 0.0))

    def _moved(self, x: np.ndarray, u: float, step: np.ndarray) -> tuple[np.ndarray, _Second | None]:
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
        self, x: np.ndarray, u: float, point: _Second, way: np.ndarray
    ) -> tuple[np.ndarray, _Second] | None:
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
        point: _Second,
        system: _System,
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


class _System:
    """The Newton equations of the free coordinates, scaled and diagonalised."""

    def __init__(self, H: np.ndarray, g: np.ndarray, free: np.ndarray, correction: np.ndarray | None) -> None:
        self.H, self.correction, self.size = H, correction, len(free)
        self.free = None if free.all() else np.flatnonzero(free)
        A, self._b, self._cross = H[:-1, :-1], g[:-1], H[-1, :-1]
        if self.free is not None:
            A, self._b, self._cross = A[np.ix_(self.free, self.free)], self._b[free], self._cross[free]
        diagonal = np.abs(A.diagonal())
        floor = 1e-12 * max(float(diagonal.max(initial=0.0)), 1e-300)
        self._D = 1.0 / np.sqrt(np.maximum(diagonal, floor))
        if len(A):
            self.w, self._Q = np.linalg.eigh(A * self._D * self._D[:, None])
        else:
            self.w, self._Q = np.zeros(0), np.zeros((0, 0))

    def _whole(self, part: np.ndarray) -> np.ndarray:
        if self.free is None:
            return part
        out = np.zeros(self.size)
        out[self.free] = part
        return out

    def newton(self, damping: float) -> tuple[np.ndarray, float]:
        """Step and predicted decrease; negative curvature counts by its size."""
        along = self._Q.T @ (self._D * self._b)
        size = np.maximum(np.abs(self.w), 1e-9) + damping
        quiet = (np.abs(along) < 1e-7 * np.sqrt(size)) & (np.abs(self.w) < 1e-9)  # nothing happens there
        along = np.where(quiet, 0.0, along)
        return self._whole(-self._D * (self._Q @ (along / size))), 0.5 * float(along @ (along / size))

    def downhill(self) -> np.ndarray | None:
        """A direction of negative curvature, if there is one."""
        if not len(self.w) or not self.w[0] < -_NEGATIVE:
            return None
        return self._whole(self._D * self._Q[:, 0])

    def tangent(self) -> np.ndarray:
        """Derivative of the minimum to the held coordinate."""
        w = np.where(np.abs(self.w) < 1e-9, np.inf, self.w)
        return self._whole(-self._D * (self._Q @ ((self._Q.T @ (self._D * self._cross)) / w)))


def _secant(correction: np.ndarray | None, new: _Second, old: _Second, step: np.ndarray) -> np.ndarray | None:
    """Symmetric rank-one update of the correction of average information."""
    if correction is None:
        correction = np.zeros((len(step), len(step)))
    gap = new.g[:-1] - old.g[:-1] - (new.H[:-1, :-1] + correction) @ step
    inner = float(gap @ step)
    if abs(inner) < 1e-8 * float(np.linalg.norm(gap) * np.linalg.norm(step)):
        return correction
    return correction + np.outer(gap, gap) / inner
