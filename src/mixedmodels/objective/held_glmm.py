r"""One parameter of a generalised model held: minimum of the criterion over all others.

With the columns of a term in an order that begins with those in question, what is held is linear in the
parameters of the model: a coefficient or the log-dispersion, an entry of :math:`\gamma`; a standard
deviation, the first diagonal entry of the term's factor; a correlation :math:`\rho = \sin u`, the second row
:math:`s\,(\sin u, \cos u)` of the factor with the other standard deviation s. So

.. math:: \psi(x, u) = a + J x + U u + x_s\,(S \sin u + C \cos u), \qquad x_s \ge 0,

and gradient and Hessian in (x, u) follow from those in psi with :math:`P = \partial\psi/\partial(x, u)`:

.. math:: g = P'g_\psi, \qquad H = P'H_\psi P + g_\psi'\,\partial^2\psi .

The slope of the profile is the last entry of g (the envelope theorem), its curvature a Schur complement of H.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.objective.held import HeldPoint
from mixedmodels.objective.held_newton import NewtonSystem, Second
from mixedmodels.objective.held_search import HeldSearch, State
from mixedmodels.solver.base import Breakdown

__all__ = ["HeldGLMM"]


class HeldGLMM(HeldSearch):
    """An entry of psi held (u = the entry), or a correlation (u = its arc sine).

    Parameters
    ----------
    objective : GLMMObjective
        With the columns of the term in the order that is needed.
    psi : ndarray
        Its minimum.
    place : int
        Entry of psi that is held; for a correlation the diagonal entry of the first column's row.
    row : (int, int), optional
        A correlation is held: the entries (1, 0) and (1, 1) of the factor.
    lower : float
        Bound of u.
    orders : dict
        For each term whose columns are in another order than the user's: that order.
    """

    def __init__(
        self,
        objective: Any,
        psi: np.ndarray,
        place: int,
        row: tuple[int, int] | None = None,
        lower: float = -math.inf,
        orders: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.objective, self.psi = objective, np.array(psi, dtype=float)
        self._orders = orders or {}
        self._exact = objective.exact_hessian
        self.lower, self.upper = lower, math.inf
        size = len(self.psi)
        M, gone = objective.M, [place] if row is None else list(row)
        columns = [int(np.flatnonzero(M[at])[0]) for at in gone]
        self._base = np.array(objective.a)
        self._U, self._S, self._C = np.zeros(size), np.zeros(size), np.zeros(size)
        J = _scaled(objective, np.delete(M, columns, axis=1))
        if row is None:
            self._U = M[:, columns[0]].copy()
        else:
            self.lower, self.upper = -0.5 * math.pi, 0.5 * math.pi
            unit = 1.0 / objective.lengths[row[1]]
            self._S[row[0]] = self._C[row[1]] = unit
            own = np.flatnonzero(J[place])[0]  # of the first standard deviation
            self.standard_deviations = (int(own), J.shape[1])
            J = np.column_stack([J, np.zeros(size)])
        self._J = J
        self.r = J.shape[1]
        self.bounded = np.zeros(self.r, dtype=bool)
        self.bounded[list(self.standard_deviations)] = True
        self._place, self._row = place, row

    def _psi(self, x: np.ndarray, u: float) -> np.ndarray:
        psi = self._base + self._J @ x + self._U * u
        if self._row is not None:
            psi += x[-1] * (self._S * math.sin(u) + self._C * math.cos(u))
        return psi

    def _evaluate(self, x: np.ndarray, u: float) -> Second:
        """Criterion, gradient and Hessian in (x, u)."""
        return self._second(x, u, False)

    def _second(self, x: np.ndarray, u: float, exact: bool) -> Second:
        objective = self.objective
        psi = self._psi(x, u)
        P = np.column_stack([self._J, self._U])
        across = np.zeros(len(psi))
        if self._row is not None:
            along = self._S * math.sin(u) + self._C * math.cos(u)
            across = self._S * math.cos(u) - self._C * math.sin(u)
            P[:, -2] = along
            P[:, -1] = x[-1] * across
        try:
            found = objective.likelihood_terms(psi, 2, exact)
            value, g, H = found.value, found.gradient, found.hessian
            if objective.priors is not None:
                added, slope, curvature = objective.priors.evaluate(psi)
                value, g, H = value + added, g + slope, H + curvature
        except (FloatingPointError, np.linalg.LinAlgError) as error:
            raise Breakdown(str(error)) from None
        if not math.isfinite(value):
            raise Breakdown("the criterion is not finite")
        second = P.T @ H @ P
        if self._row is not None:
            mixed = float(g @ across)
            second[-1, -2] += mixed
            second[-2, -1] += mixed
            second[-1, -1] -= x[-1] * float(g @ along)
        return Second(float(value), P.T @ g, 0.5 * (second + second.T))

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        psi, row = self.psi, self._row
        x = np.zeros(self.r)
        rest = psi - self._base
        if row is None:
            u = float(psi[self._place])
            rest = rest - self._U * u
        else:
            unit = float(self._C[row[1]])
            x[-1] = math.hypot(psi[row[0]], psi[row[1]]) / unit
            u = math.atan2(psi[row[0]], abs(psi[row[1]]))
            if 1.0 - abs(math.sin(u)) < 1e-12:
                u = math.copysign(0.5 * math.pi, u)
            rest = rest - x[-1] * (self._S * math.sin(u) + self._C * math.cos(u))
        others = self.r if row is None else self.r - 1
        x[:others] = np.linalg.lstsq(self._J[:, :others], rest, rcond=None)[0]
        x[self.bounded] = np.maximum(x[self.bounded], 0.0)
        point = self._second(x, u, True)
        return self._finish(x, u, point, self._system(x, point, None), np.zeros(self.r), 0.0, True)

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
        held = system.H[-1, :-1]
        tangent = system.tangent()
        x = x + step
        x[self.bounded] = np.maximum(x[self.bounded], 0.0)
        psi = self._psi(x, u)
        factors = self.objective.factors(psi)
        for term, order in self._orders.items():
            factors[term] = factors[term][np.argsort(order)]
        return HeldPoint(
            u,
            float(point.d - decrement),
            float(point.g[-1] + held @ step),
            float(system.H[-1, -1] + held @ tangent),
            1.0,
            tuple(factors),
            State(x, tangent, system.correction),
            converged,
            {"beta": psi[: self.objective.n_gamma]},
        )


def _scaled(objective: Any, M: np.ndarray) -> np.ndarray:
    """Columns that span those of M in units of the search: coefficients orthonormal, others by length."""
    n_gamma = objective.n_gamma
    mean = ~(M[n_gamma:] != 0.0).any(axis=0)
    out = M / np.maximum(np.sqrt(((objective.metric @ M) ** 2).sum(axis=0)), 1e-300)
    if mean.any():
        R = np.linalg.qr(objective.metric @ M[:, mean], mode="r")
        out[:, mean] = M[:, mean] @ np.linalg.inv(R)
    return out
