r"""Minus twice the log posterior density of a linear mixed model, beta and sigma maximised out.

With :math:`\tau = \log\sigma` and priors :math:`p(\theta, \tau)`,

.. math::
    D(\theta,\tau) &= \log|V| + \nu(\log 2\pi + 2\tau) + r^2(\theta) e^{-2\tau} - 2\log p(\theta, \tau), \\
    D_i &= \langle T - e^{-2\tau}S, \dot\Sigma_i\rangle - 2(\log p)_i, \qquad
    D_\tau = 2\nu - 2r^2e^{-2\tau} - 2 (\log p)_\tau,

(plus :math:`\log|X'V^{-1}X|`, REML). tau is found by Newton's method for each theta: the profile has the
gradient :math:`D_i` and the Hessian :math:`D_{ij} - D_{i\tau}D_{j\tau}/D_{\tau\tau}`.

A normal prior on coefficients relative to sigma, :math:`\beta_j \sim N(m, \sigma^2 s^2)`, is an observation
more for each: a row :math:`e_j/s` of X with response m/s and no random effects.

References
----------
Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), Psychometrika 78:685-709.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from mixedmodels.design import Design
from mixedmodels.errors import OptionError
from mixedmodels.objective.base import check_kind
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.lmm_criterion import forms
from mixedmodels.objective.lmm_priors import LinearPriors, NormalPrior
from mixedmodels.objective.parameters import gradient_of
from mixedmodels.solver.base import Breakdown, Components

__all__ = ["PosteriorObjective", "with_prior_rows"]

_LOG_2PI = math.log(2.0 * math.pi)


def with_prior_rows(design: Design, normals: tuple[NormalPrior, ...]) -> Design:
    """The design with one observation more for each normal prior on a coefficient.

    Parameters
    ----------
    design : Design
    normals : tuple of NormalPrior
    """
    if not normals:
        return design
    if design.residual is not None:
        raise OptionError("normal priors on coefficients cannot be combined with residual=")
    design.need_one_level("normal priors on coefficients")
    added = len(normals)
    rows = np.zeros((added, design.p))
    for i, prior in enumerate(normals):
        rows[i, prior.column] = 1.0 / prior.sd
    codes: dict[int, np.ndarray] = {}
    terms = []
    for term in design.terms:
        if id(term.codes) not in codes:  # terms on one grouping factor share the array itself
            codes[id(term.codes)] = np.append(term.codes, np.zeros(added, dtype=term.codes.dtype))
        Z = np.ones((design.n, 1)) if term.Z is None else term.Z
        terms.append(
            replace(term, codes=codes[id(term.codes)], Z=np.vstack([Z, np.zeros((added, Z.shape[1]))]))
        )
    return replace(
        design,
        y=np.append(design.y, [prior.mean / prior.sd for prior in normals]),
        X=np.vstack([design.X, rows]),
        terms=tuple(terms),
        offset=None if design.offset is None else np.append(design.offset, np.zeros(added)),
        weights=None if design.weights is None else np.append(design.weights, np.ones(added)),
    )


class PosteriorObjective(LMMObjective):
    """`LMMObjective` with priors: its minimum is the posterior mode (MAP).

    Parameters
    ----------
    design : Design
        Of the model, without rows for priors.
    make_solver : callable
        ``make_solver(design)`` gives the solver for a design.
    priors : LinearPriors
    reml : bool
    sigma : float, optional
    """

    certificate = None  # type: ignore[assignment]  # the conditions on cones are those of a likelihood

    def __init__(
        self,
        design: Design,
        make_solver: Callable[[Design], Any],
        priors: LinearPriors,
        reml: bool = True,
        sigma: float | None = None,
    ) -> None:
        inner = with_prior_rows(design, priors.normals)
        super().__init__(inner, make_solver(inner), reml, sigma)
        self.priors = priors
        self.model = design
        self._make_solver = make_solver

    # ------------------------------------------------------------------ the generic way
    @property
    def entries(self) -> np.ndarray | None:
        """None: the criterion is no function of covariance matrices and sigma profiled out in closed form."""
        return None

    @cached_property
    def evaluator(self) -> Any:
        """None: compiled evaluators know no priors."""
        return None

    @cached_property
    def start(self) -> np.ndarray:
        """The moment start, moved towards the unit matrix where the prior density is 0 there."""
        plain = LMMObjective(self.design, self.solver, self.reml, self.sigma_fixed).start
        unit = np.zeros(self.n_theta)
        for term, own in zip(self.design.terms, self._map.index, strict=True):
            unit[own] = term.covariance.start
        for share in (0.0, 0.1, 0.5, 1.0):
            theta = (1.0 - share) * plain + share * unit
            try:
                self.value(theta)
            except FloatingPointError:
                continue
            return theta
        return unit

    # ------------------------------------------------------------------ sigma
    def _prior(self, theta: np.ndarray, tau: float) -> tuple[float, np.ndarray, np.ndarray]:
        return self.priors.evaluate(self.design.terms, self._map.index, theta, tau)

    def _log_sigma(self, theta: np.ndarray, pwrss: float) -> float:
        """The tau that minimises D at theta."""
        if self.sigma_fixed is not None:
            return math.log(self.sigma_fixed)
        if not pwrss > 0.0:
            raise Breakdown("the model fits the response perfectly, so sigma is 0; remove terms")
        tau = 0.5 * math.log(pwrss / self.nu)
        for _ in range(100):
            _, g, H = self._prior(theta, tau)
            quadratic = pwrss * math.exp(-2.0 * tau)
            slope = 2.0 * self.nu - 2.0 * quadratic + g[-1]
            curvature = 4.0 * quadratic + H[-1, -1]
            step = -slope / (curvature if curvature > 0.0 else 4.0 * quadratic + abs(H[-1, -1]))
            tau += max(-1.0, min(1.0, step))
            if abs(step) < 1e-15 * max(1.0, abs(tau)):
                break
        return tau

    def sigma(self, theta: np.ndarray) -> float:
        """Residual standard deviation at theta."""
        theta = self._map.check(theta)
        parts = self.solver.components(self._map.factors(theta), 0, None, self.reml)
        return math.exp(self._log_sigma(theta, parts.pwrss))

    # ------------------------------------------------------------------ criterion
    def _density(self, parts: Components, tau: float) -> float:
        logdets = parts.logdet_L2 - self._sum_log_w + (parts.logdet_RX2 if self.reml else 0.0)
        return logdets + self.nu * (_LOG_2PI + 2.0 * tau) + parts.pwrss * math.exp(-2.0 * tau)

    def value(self, theta: np.ndarray) -> float:
        """Criterion at theta."""
        theta = self._map.check(theta)
        parts = self.solver.components(self._map.factors(theta), 0, None, self.reml)
        tau = self._log_sigma(theta, parts.pwrss)
        return self._density(parts, tau) + self._normalisation + self._prior(theta, tau)[0]

    @property
    def _normalisation(self) -> float:
        """Constants of the normal priors that their rows do not hold: ``sum 2 log sd``."""
        return float(sum(2.0 * math.log(prior.sd) for prior in self.priors.normals))

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Criterion and gradient, shape (n_theta,)."""
        theta = self._map.check(theta)
        parts = self.solver.components(self._map.factors(theta), 1, None, self.reml)
        tau = self._log_sigma(theta, parts.pwrss)
        added, slope, _ = self._prior(theta, tau)
        g = gradient_of(self._weighted(parts, tau), self._map.directions(theta))
        return self._density(parts, tau) + self._normalisation + added, g + slope[:-1]

    def newton(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and a positive semi-definite model of the Hessian."""
        theta = self._map.check(theta)
        directions = self._map.directions(theta)
        parts = self.solver.components(self._map.factors(theta), 2, directions, self.reml)
        tau = self._log_sigma(theta, parts.pwrss)
        added, slope, curvature = self._prior(theta, tau)
        M, scale = self._weighted(parts, tau), math.exp(-2.0 * tau)
        inner = scale * parts.wpw
        positive = self._map.positive_parts(M, self._orthonormal)
        inner = inner + self._map.curvature(positive, theta, np.diagonal(inner))
        joint = self._bordered_with(inner, scale * forms(parts, directions), scale * parts.pwrss, curvature)
        H = positive_definite(self._profiled(joint))
        value = self._density(parts, tau) + self._normalisation + added
        return value, gradient_of(M, directions) + slope[:-1], H

    @staticmethod
    def _weighted(parts: Components, tau: float) -> list[np.ndarray]:
        scale = math.exp(-2.0 * tau)
        return [T - scale * S for T, S in zip(parts.T, parts.S, strict=True)]

    # ------------------------------------------------------------------ information
    def _bordered_with(
        self, inner: np.ndarray, cross: np.ndarray, corner: float, curvature: np.ndarray
    ) -> np.ndarray:
        """Hessian in (theta, log sigma^2): likelihood plus priors (whose Hessian is in log sigma)."""
        r = self.n_theta
        out = np.empty((r + 1, r + 1))
        out[:r, :r] = inner + curvature[:r, :r]
        out[:r, r] = out[r, :r] = cross + 0.5 * curvature[:r, r]
        out[r, r] = corner + 0.25 * curvature[r, r]
        return out

    def _profiled(self, joint: np.ndarray) -> np.ndarray:
        if self.sigma_fixed is not None:
            return joint[:-1, :-1]
        return joint[:-1, :-1] - np.outer(joint[-1, :-1], joint[-1, :-1]) / joint[-1, -1]

    def information(self, theta: np.ndarray, kind: str = "average") -> np.ndarray:
        """Information of the posterior about theta, as `LMMObjective.information`.

        Parameters
        ----------
        theta : ndarray, shape (n_theta,)
        kind : {"average", "observed", "expected"}
            Of the likelihood; the priors enter with their Hessian.
        """
        return self._profiled(self._joint(theta, kind))

    def joint_information(self, theta: np.ndarray, kind: str = "observed") -> np.ndarray:
        """Information of the posterior about (theta, log sigma^2)."""
        joint = self._joint(theta, kind)
        return joint[:-1, :-1] if self.sigma_fixed is not None else joint

    def _joint(self, theta: np.ndarray, kind: str) -> np.ndarray:
        check_kind(kind)
        theta = self._map.check(theta)
        factors, directions = self._map.factors(theta), self._map.directions(theta)
        parts = self.solver.components(factors, 2, directions, self.reml)
        tau = self._log_sigma(theta, parts.pwrss)
        curvature = self._prior(theta, tau)[2]
        scale = math.exp(-2.0 * tau)
        cross, corner, inner = scale * forms(parts, directions), scale * parts.pwrss, scale * parts.wpw
        if kind != "average":
            products, traces = self.trace_products(factors, directions)
            if kind == "expected":
                inner, cross, corner = products, traces, float(self.nu)
            else:
                inner = 2.0 * inner - products + self._map.curvature(self._weighted(parts, tau), theta)
        return self._bordered_with(inner, cross, corner, curvature)

    # ------------------------------------------------------------------ the likelihood alone
    def likelihood(self, theta: np.ndarray) -> float:
        """-2 log-likelihood (REML or ML) at the posterior mode of beta and sigma, without the priors."""
        theta = self._map.check(theta)
        sigma = self.sigma(theta)
        factors = self._map.factors(theta)
        if not self.priors.normals:
            return self._density(self.solver.components(factors, 0, None, self.reml), math.log(sigma))
        n = self.model.n
        if self.reml:
            plain = self._make_solver(self.model)
            parts = plain.components(factors, 0, None, True)
            nu, r2 = n - self.model.p, parts.pwrss
            logdets = parts.logdet_L2 + parts.logdet_RX2
        else:
            found = self.solver.solution(factors, False)
            away = [(found.beta[p.column] - p.mean) / p.sd for p in self.priors.normals]
            nu, r2, logdets = n, found.pwrss - float(np.dot(away, away)), found.logdet_L2
        return logdets - self._sum_log_w + nu * (_LOG_2PI + 2.0 * math.log(sigma)) + r2 / sigma**2

    def _em(self, theta: np.ndarray, update_sigma: bool) -> np.ndarray:
        raise OptionError("EM maximises a likelihood, and this model has priors; use another method")


def positive_definite(H: np.ndarray) -> np.ndarray:
    """H with negative eigenvalues turned around: a matrix for Newton's steps."""
    values, vectors = np.linalg.eigh(0.5 * (H + H.T))
    if len(values) == 0 or values[0] > 0.0:
        return H
    values = np.maximum(np.abs(values), 1e-8 * float(np.abs(values).max()))
    return (vectors * values) @ vectors.T
