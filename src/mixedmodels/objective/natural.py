r"""The criterion of a linear mixed model in natural parameters: what is held by name is a coordinate.

Nothing but beta is profiled out. With :math:`\tau = \log\sigma`, x = (theta, tau) and
:math:`M = T - e^{-2\tau}S`,

.. math::
    D(x) = \log|V| + \nu(\log 2\pi + 2\tau) + r^2 e^{-2\tau}, \qquad
    D_i = \langle M, \dot\Sigma_i\rangle, \quad D_\tau = 2\nu - 2 r^2 e^{-2\tau}.

Of some terms theta is replaced by natural parameters (standard deviations times sigma, correlations, ranges),
:math:`\xi = \eta(\theta, \tau)`: with the Jacobian J of the structure,
:math:`\partial\theta/\partial\xi = J^{-1}`, :math:`\partial\theta/\partial\tau = -J^{-1}\eta_\tau`.
Restrictions are linear in these coordinates, :math:`\xi = a + N\phi`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.covariance.natural import curvature_with_scale
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.lmm_criterion import forms
from mixedmodels.objective.parameters import gradient_of
from mixedmodels.objective.posterior import positive_definite
from mixedmodels.solver.base import Breakdown

__all__ = ["NaturalObjective"]

_LOG_2PI = math.log(2.0 * math.pi)
_TINY = 1e-10


class NaturalObjective:
    """D as a function of free coordinates phi, for `mixedmodels.optimize.minimize`.

    Parameters
    ----------
    objective : LMMObjective
    theta : ndarray, shape (r,)
        Where the search begins.
    terms : sequence of int
        Terms whose coordinates are natural parameters; terms that share theta belong together.
    held : dict of int to float, optional
        Coordinates held: place among (theta or natural parameters of the terms, log sigma) and value.
    groups : sequence of sequences of int, optional
        Coordinates that are equal.
    scaled : bool
        Standard deviations, ranges, ... in units of their start: phi is then without units.

    Attributes
    ----------
    start, lower, upper : ndarray
    names : tuple of str
    """

    def __init__(
        self,
        objective: LMMObjective,
        theta: np.ndarray,
        terms: Sequence[int],
        held: dict[int, float] | None = None,
        groups: Sequence[Sequence[int]] = (),
        scaled: bool = False,
    ) -> None:
        self.objective, self.terms = objective, tuple(terms)
        self.r = objective.n_theta
        free_sigma = objective.sigma_fixed is None
        self.size = self.r + (1 if free_sigma else 0)
        self._free_sigma = free_sigma
        begin = self.xi_of(np.asarray(theta, dtype=float), math.log(objective.sigma(theta)))
        group = np.arange(self.size)
        for places in groups:
            for place in places[1:]:
                group[group == group[place]] = group[places[0]]
        values = {int(group[place]): float(value) for place, value in (held or {}).items()}
        heads = [g for g in dict.fromkeys(group.tolist()) if g not in values]
        self.a = np.array([values.get(int(g), 0.0) for g in group])
        self.N = (group[:, None] == np.array(heads, dtype=int)[None, :]).astype(float)
        lower, upper = self._bounds()
        self.lower, self.upper = lower[heads], upper[heads]
        counts = self.N.sum(axis=0)
        start = (self.N.T @ (begin - self.a)) / counts if len(heads) else np.zeros(0)
        start = np.clip(start, self.lower, self.upper)
        if scaled:
            natural = np.isin(heads, np.concatenate([self.objective._map.index[b] for b in self.terms]))
            unit = np.where(natural & (self.upper > 1.0) & (np.abs(start) > 1e-8), np.abs(start), 1.0)
            self.N, start = self.N * unit, start / unit
            self.lower, self.upper = self.lower / unit, self.upper / unit
        self.start = start
        self.names = tuple([f"xi{g}" for g in heads])

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        lower = np.append(self.objective.lower, -np.inf)[: self.size]
        upper = np.append(self.objective.upper, np.inf)[: self.size]
        for b in self.terms:
            own = self.objective._map.index[b]
            kinds = self._natural(b, self.objective.design.terms[b].covariance.start, 1.0).kinds
            for place, kind in zip(own.tolist(), kinds, strict=True):
                lower[place] = -1.0 if kind == "cor" else -np.inf if kind == "loading" else 0.0
                upper[place] = 1.0 if kind == "cor" else np.inf
        return lower, upper

    # ------------------------------------------------------------------ coordinates
    def _natural(self, b: int, own: np.ndarray, sigma: float) -> Any:
        term = self.objective.design.terms[b]
        return term.covariance.natural(own, term.names, sigma)

    def xi_of(self, theta: np.ndarray, tau: float) -> np.ndarray:
        """Coordinates (theta or natural parameters, tau) of a point."""
        xi = np.append(theta, tau)[: self.size]
        for b in self.terms:
            own = self.objective._map.index[b]
            values = self._natural(b, theta[own], math.exp(tau)).values
            xi[own] = np.where(np.isfinite(values), values, 0.0)
        return xi

    def point(self, phi: np.ndarray) -> tuple[np.ndarray, float]:
        """(theta, tau) at free coordinates.

        Raises
        ------
        Breakdown
            No covariance matrix has these natural parameters.
        """
        xi = self.a + self.N @ np.asarray(phi, dtype=float)
        tau = float(xi[-1]) if self._free_sigma else math.log(self.objective.sigma_fixed)  # type: ignore[arg-type]
        theta = np.array(xi[: self.r])
        for b in self.terms:
            own = self.objective._map.index[b]
            term = self.objective.design.terms[b]
            try:
                theta[own] = term.covariance.theta_from_natural(xi[own], math.exp(tau))
            except ValueError as error:
                raise Breakdown(str(error)) from None
        return theta, tau

    def _moves(self, theta: np.ndarray, tau: float) -> np.ndarray:
        """d (theta, tau) / d xi, shape (r + 1, size)."""
        out = np.eye(self.r + 1)[:, : self.size]
        for b in self.terms:
            own = self.objective._map.index[b]
            found = self._natural(b, theta[own], math.exp(tau))
            J = found.jacobian
            if not np.isfinite(J).all() or np.linalg.cond(J) > 1.0 / _TINY:
                raise Breakdown("natural parameters are no coordinates there: a variance of zero")
            inverse = np.linalg.inv(J)
            out[np.ix_(own, own)] = inverse
            if self._free_sigma:
                out[own, self.r] = -inverse @ found.log_scale
        return out

    # ------------------------------------------------------------------ criterion
    def value(self, phi: np.ndarray) -> float:
        """Criterion D at free coordinates."""
        theta, tau = self.point(phi)
        objective = self.objective
        parts = objective.solver.components(objective.factors(theta), 0, None, objective.reml)
        return self._density(parts, tau)

    def _density(self, parts: Any, tau: float) -> float:
        objective = self.objective
        logdets = parts.logdet_L2 - objective._sum_log_w + (parts.logdet_RX2 if objective.reml else 0.0)
        return float(logdets + objective.nu * (_LOG_2PI + 2.0 * tau) + parts.pwrss * math.exp(-2.0 * tau))

    def value_and_gradient(self, phi: np.ndarray) -> tuple[float, np.ndarray]:
        """Criterion and gradient, shape of phi."""
        value, gradient, _ = self.newton(phi)
        return value, gradient

    def newton(self, phi: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient and a positive definite model of the Hessian (average information)."""
        theta, tau = self.point(phi)
        value, g, H = self._second(theta, tau, self.objective.observed_is_cheap)
        moves = self._moves(theta, tau)
        T = moves @ self.N
        H = T.T @ H @ T
        if self.terms and self.objective.observed_is_cheap:
            H += self.N.T @ self._bending(theta, tau, moves, g) @ self.N
        return value, T.T @ g, positive_definite(H)

    def second(self, y: np.ndarray, exact: bool) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient and Hessian in (theta, tau), or average information."""
        tau = float(y[-1]) if self._free_sigma else math.log(self.objective.sigma_fixed)  # type: ignore[arg-type]
        value, g, H = self._second(np.array(y[: self.r]), tau, exact)
        return value, g[: self.size], H[: self.size, : self.size]

    def _second(self, theta: np.ndarray, tau: float, exact: bool) -> tuple[float, np.ndarray, np.ndarray]:
        objective = self.objective
        factors, directions = objective._map.factors(theta), objective._map.directions(theta)
        parts = objective.solver.components(factors, 2, directions, objective.reml)
        scale = math.exp(-2.0 * tau)
        M = [T - scale * S for T, S in zip(parts.T, parts.S, strict=True)]
        g = np.append(gradient_of(M, directions), 2.0 * objective.nu - 2.0 * scale * parts.pwrss)
        H = np.zeros((self.r + 1, self.r + 1))
        H[:-1, :-1] = scale * parts.wpw
        if exact:
            products, _ = objective.trace_products(factors, directions)
            H[:-1, :-1] += H[:-1, :-1] - products + objective._map.curvature(M, theta)
        H[:-1, -1] = H[-1, :-1] = 2.0 * scale * forms(parts, directions)
        H[-1, -1] = 4.0 * scale * parts.pwrss
        return self._density(parts, tau), g, H

    def _bending(self, theta: np.ndarray, tau: float, moves: np.ndarray, g: np.ndarray) -> np.ndarray:
        """``sum_i g_i d2 x_i`` in xi, x = (theta, tau): ``-moves' sum_r (moves'g)_r d2 xi_r moves``."""
        out = np.zeros((self.r + 1, self.r + 1))
        multipliers, sigma = moves.T @ g, math.exp(tau)
        for b in {tuple(self.objective._map.index[b].tolist()): b for b in self.terms}.values():
            own = self.objective._map.index[b]
            found, at = self._natural(b, theta[own], sigma), np.append(own, self.r)
            structure = self.objective.design.terms[b].covariance
            out[np.ix_(at, at)] += curvature_with_scale(structure, theta[own], found, multipliers[own], sigma)
        return -moves.T @ out @ moves
