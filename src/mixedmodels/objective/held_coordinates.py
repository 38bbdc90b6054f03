r"""Coordinates of the covariance matrices of which one is a standard deviation or a correlation.

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
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.held_newton import Second
from mixedmodels.solver.base import Breakdown
from mixedmodels.solver.compiled import CompiledSolver
from mixedmodels.solver.grouped import GroupedSolver

__all__ = ["HeldCoordinates"]

_LOG_2PI = math.log(2.0 * math.pi)


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


class HeldCoordinates:
    """The criterion and its derivatives in coordinates of which one is an SD or a correlation.

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
