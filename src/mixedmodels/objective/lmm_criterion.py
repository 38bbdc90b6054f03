r"""The linear mixed model's profiled criterion with its gradient and Newton matrix, compiled where it can be.

Information, estimates and other points of view are in `mixedmodels.objective.lmm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mixedmodels.errors import IdentifiabilityError
from mixedmodels.objective.base import average_information, check_sigma, gaussian_criterion, gaussian_scale
from mixedmodels.objective.parameters import gradient_of, parameter_map
from mixedmodels.optimize.cone_factors import plain_bounds
from mixedmodels.solver._kernels.newton import newton_minimize
from mixedmodels.solver.base import Breakdown, Components

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.solver.base import CompiledPath, Solver

__all__ = ["LMMCriterion", "forms"]


class LMMCriterion:
    """Value and derivatives of `mixedmodels.objective.lmm.LMMObjective`, which documents them."""

    def __init__(self, design: Design, solver: Solver, reml: bool = True, sigma: float | None = None) -> None:
        self.design = design
        self.solver = solver
        self.reml = bool(reml)
        self.sigma_fixed = check_sigma(sigma)
        self.nu = solver.nu(self.reml)
        if self.nu <= 0:
            raise IdentifiabilityError(
                f"{design.p} fixed-effects columns for {design.n} observations leave nothing to estimate "
                "variances from; remove fixed effects"
            )
        self._map = parameter_map(design)
        self.n_theta = self._map.n_theta
        self.lower, self.upper = self._map.lower, self._map.upper

    # ------------------------------------------------------------------ parameters
    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self._map.names

    @property
    def mirrored(self) -> np.ndarray:
        """Whether the criterion is symmetric about the bounds of a parameter, shape (n_theta,)."""
        return self._map.mirrored

    @property
    def linear_entries(self) -> np.ndarray:
        """Rows (term, row, column, parameter) of the factors that are linear in theta."""
        return self._map.linear_entries

    @property
    def entries(self) -> np.ndarray | None:
        """Rows (term, row, column, parameter) of factors linear in theta, or None."""
        return self._map.entries

    @cached_property
    def start(self) -> np.ndarray:
        """Starting values from moments of the least-squares residuals."""
        if self._map.any_curved:
            from mixedmodels.objective.curved_start import curved_start

            return curved_start(self)
        internal = getattr(self.solver, "start_internal", None)
        if internal is not None and self.entries is not None:
            theta = self.theta_map.dot(internal(self.sigma_fixed))  # the solver has the moments at hand
        else:
            from mixedmodels.objective.start import moment_start

            theta = self._map.theta_of(moment_start(self.design, self.sigma_fixed))
        return np.minimum(np.maximum(theta, self.lower), self.upper)

    def factors(self, theta: np.ndarray) -> list[np.ndarray]:
        """Relative factors at theta, one (k, k) lower-triangular matrix per term."""
        return self._map.factors(self._map.check(theta))

    def theta_of(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Parameters of given lower-triangular factors (a shared parameter: the mean over its places)."""
        return self._map.theta_of(factors)

    @cached_property
    def units(self) -> np.ndarray:
        """Root mean square of the column of Z behind each parameter of linear factors; 1 for the others."""
        total, places = np.zeros(self.n_theta), np.zeros(self.n_theta)
        for b, i, _, t in self._map.linear_entries.tolist():
            term = self.design.terms[b]
            if term.several_levels:
                total[t] += float(term.gram(self.design.n)[i, i])
            else:
                Z = term.Z
                total[t] += 1.0 if Z is None else float(Z[:, i] @ Z[:, i]) / self.design.n
            places[t] += 1.0
        return np.sqrt(np.where(total > 0.0, total / np.maximum(places, 1.0), 1.0))

    def directions(self, theta: np.ndarray) -> list[list[np.ndarray | None]]:
        """d Sigma_b / d theta_t: for each free parameter a list over terms, None where it does not occur."""
        return self._map.directions(self._map.check(theta))

    # ------------------------------------------------------------------ compiled fast path
    @cached_property
    def evaluator(self) -> Any:
        """Compiled evaluator for this criterion, or None: then the parts come from `Solver.components`."""
        make = getattr(self.solver, "evaluator_for", None)
        return None if make is None else make(self.reml, self.sigma_fixed)

    @cached_property
    def theta_map(self) -> np.ndarray:
        """C in ``theta = C theta_internal``, shape (n_theta, n_theta)."""
        return cast("CompiledPath", self.solver).theta_map

    @cached_property
    def _to_internal(self) -> np.ndarray:
        return cast("CompiledPath", self.solver).theta_map_inverse

    def _fast(self, theta: np.ndarray, order: int) -> tuple[float, np.ndarray, np.ndarray]:
        D = self._to_internal
        try:
            value, gradient, H = self.evaluator.value_gradient_hessian(D @ theta, order)
        except FloatingPointError as error:
            raise Breakdown(f"{error}; check the values of theta") from None
        return value, D.T @ gradient, D.T @ H @ D

    def newton_minimize(
        self, theta0: np.ndarray | None = None, *, callback: Any = None, **options: Any
    ) -> dict[str, Any] | None:
        """The default method run to the end without Python in the loop.

        None where there is no evaluator, where the bounds are narrower than those of the cone, or where
        parameters are shared between places that are not whole covariance matrices.

        Parameters
        ----------
        theta0 : ndarray, shape (n_theta,), optional
            By default the moment start, taken straight from the solver.
        callback : callable, optional
            ``callback(iteration, theta, value, decrement)``.
        **options
            Those of the compiled loop: tol, maxiter, max_seconds, cap, trace.

        Returns
        -------
        dict
            theta, value, gradient, hessian, trace and counts, in the coordinates of this objective.
        """
        if self.evaluator is None or not self.n_theta:
            return None
        usual = self.lower is self._map.lower and self.upper is self._map.upper
        if not (self._map.plain_bounds if usual else plain_bounds(self)):
            return None
        C, D = self.theta_map, self._to_internal
        if theta0 is None:
            inner = self.solver.start_internal(self.sigma_fixed)  # type: ignore[attr-defined]
        else:
            inner = D.dot(self._map.check(theta0))
        told = None
        if callback is not None:

            def told(iteration: int, theta: np.ndarray, value: float, decrement: float) -> Any:
                return callback(iteration, C @ np.asarray(theta), value, decrement)

        levels = [factor.m for factor in self.solver.pack.factors]  # type: ignore[attr-defined]
        facts = newton_minimize(self.evaluator, inner, levels, callback=told, **options)
        if facts is None:
            return None
        if C is not D:  # one array, the identity, where nothing was rescaled
            facts["theta"] = C.dot(facts["theta"])
            facts["gradient"] = facts["gradient"].dot(D)
            facts["hessian"] = D.T.dot(facts["hessian"]).dot(D)
            trace = facts["trace"]
            if trace is not None:
                trace[:, 2:] = trace[:, 2:].dot(C.T)
        return facts

    # ------------------------------------------------------------------ objective
    def value(self, theta: np.ndarray) -> float:
        """Criterion at theta."""
        theta = self._map.check(theta)
        if self.evaluator is not None:
            return self._fast(theta, 0)[0]
        return self._criterion(self.solver.components(self._map.factors(theta), 0, None, self.reml))

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Criterion and gradient, shape (n_theta,)."""
        theta = self._map.check(theta)
        if self.evaluator is not None:
            return self._fast(theta, 1)[:2]
        factors = self._map.factors(theta)
        parts = self.solver.components(factors, 1, None, self.reml)
        value = self._criterion(parts)
        return value, gradient_of(self._M(parts), self._map.directions(theta))

    def newton(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and ``H = average information + curvature of M^+``, positive semi-definite.

        M^+ is the positive part of M_b on the cone of Sigmas the structure allows. Inside, M vanishes at
        the optimum; on the boundary it does not, and its positive part is what makes the steps to a zero
        variance quadratic.
        """
        theta = self._map.check(theta)
        if self.evaluator is not None:
            return self._fast(theta, 2)
        directions = self._map.directions(theta)
        parts = self.solver.components(self._map.factors(theta), 2, directions, self.reml)
        M = self._M(parts)
        H = self._average(parts, directions)
        H += self._map.curvature(self._map.positive_parts(M, self._orthonormal), theta, np.diagonal(H))
        return self._criterion(parts), gradient_of(M, directions), H

    # ------------------------------------------------------------------ parts
    @cached_property
    def _orthonormal(self) -> list[np.ndarray]:
        return self._map.orthonormal(self.design)

    @cached_property
    def _sum_log_w(self) -> float:
        w = self.design.weights
        return 0.0 if w is None else float(np.sum(np.log(w)))

    def _criterion(self, parts: Components) -> float:
        logdets = parts.logdet_L2 - self._sum_log_w + (parts.logdet_RX2 if self.reml else 0.0)
        return gaussian_criterion(logdets, parts.pwrss, self.nu, self.sigma_fixed)

    def _M(self, parts: Components) -> list[np.ndarray]:
        scale = gaussian_scale(parts.pwrss, self.nu, self.sigma_fixed)
        return [T - scale * S for T, S in zip(parts.T, parts.S, strict=True)]

    def _average(self, parts: Components, directions: list[list[np.ndarray | None]]) -> np.ndarray:
        q = forms(parts, directions)
        return average_information(parts.wpw, q, parts.pwrss, self.nu, self.sigma_fixed)


def forms(parts: Components, directions: list[list[np.ndarray | None]]) -> np.ndarray:
    """``y'P V_i P y`` for each direction."""
    return gradient_of(parts.S, directions)
