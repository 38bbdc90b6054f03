"""The criterion of a linear mixed model with structured residuals: its parameters, value and gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import IdentifiabilityError, OptionError
from mixedmodels.objective.base import (
    average_information,
    check_sigma,
    gaussian_criterion,
    gaussian_scale,
)
from mixedmodels.objective.parameters import gradient_of, parameter_map
from mixedmodels.solver._kernels.profiled import placed
from mixedmodels.solver.base import Breakdown
from mixedmodels.solver.dense import FixedPart, fixed_part
from mixedmodels.solver.profiled import ProfiledLevels, profiled_levels
from mixedmodels.solver.whitened import WhitenedLevels
from mixedmodels.solver.whitened_choose import choose_engine

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.objective.lmm import LMMObjective
    from mixedmodels.residual.base import BoundResidual, NaturalValues

__all__ = ["StructuredCriterion"]

# Up to this many residual parameters a step of the search may use their exact second derivatives.
_EXACT = 4
# Longest natural step of a residual parameter (logarithms, Fisher's z).
_LONGEST = 0.8
# Largest logarithm of a ratio of standard deviations beside that of residuals of least squares.
_FARTHEST_RATIO = 9.2
# Largest logarithm of a range over its start.
_FARTHEST = 11.5


class StructuredCriterion:
    """Parameters, state, value, gradient and Newton matrix of `StructuredObjective`."""

    def __init__(
        self,
        design: Design,
        reml: bool = True,
        sigma: float | None = None,
        solver: str = "auto",
        fixed: FixedPart | None = None,
    ) -> None:
        if fixed is not None:
            self.fixed = fixed
        if design.residual is None:
            raise OptionError("the design has no residual structure; use LMMObjective")
        self.design = design
        self.residual: BoundResidual = design.residual
        self.reml = bool(reml)
        self.sigma_fixed = check_sigma(sigma)
        self.nu = design.n - design.p if self.reml else design.n
        if self.nu <= 0:
            raise IdentifiabilityError(
                f"{design.p} fixed-effects columns for {design.n} observations leave nothing to estimate "
                "variances from; remove fixed effects"
            )
        self._map = parameter_map(design)
        self.solver_name = solver
        self.n_random, self.n_phi = self._map.n_theta, int(self.residual.n_phi)
        self.n_theta = self.n_random + self.n_phi
        self.lower = np.concatenate([self._map.lower, self.residual.lower])
        self.upper = np.concatenate([self._map.upper, self.residual.upper])
        for j in self.ranges:
            self.upper[j] = min(self.upper[j], float(self.residual.start[j - self.n_random]) + _FARTHEST)
        if ratios := self._places("sd_ratio"):  # of zero in the limit, where the criterion is rounding
            at = self._phi_start[[j - self.n_random for j in ratios]]
            self.lower[ratios], self.upper[ratios] = at - _FARTHEST_RATIO, at + _FARTHEST_RATIO
        self.held: tuple[int, ...] = ()
        self.rival: float | None = None  # how much higher another minimum is that the search has seen
        self._last: tuple[bytes, Any] | None = None
        self._inner: tuple[bytes, LMMObjective] | None = None
        self._profiled: tuple[bytes, int, Any] | None = None
        self._information: tuple[tuple[bytes, str], np.ndarray] | None = None

    # ------------------------------------------------------------------ parameters
    def hold(self, values: Mapping[int, float]) -> None:
        """Hold entries of phi at values: their bounds close, and their errors are zero.

        Parameters
        ----------
        values : mapping from int to float
            Place in phi, and value.
        """
        self.held = tuple([self.n_random + place for place in sorted(values)])
        for place, value in values.items():
            self.lower[self.n_random + place] = self.upper[self.n_random + place] = value

    def _as_held(self, information: np.ndarray) -> np.ndarray:
        """Information with that about the entries held practically infinite."""
        if self.held:
            top = float(np.abs(np.diagonal(information)).max(initial=1.0))
            for place in self.held:
                information[place] = information[:, place] = 0.0
                information[place, place] = 1e14 * top
        return information

    @cached_property
    def ranges(self) -> tuple[int, ...]:
        """Places in psi of the logarithms of spatial ranges.

        As a range goes to infinity the correlations go to 1, sigma goes to infinity, and the likelihood may
        still rise towards a limit: ranges are bounded by 100 000 times their start.
        """
        return tuple(self._places("range"))

    def _places(self, kind: str) -> list[int]:
        """Places in psi behind the natural parameters of a kind."""
        natural = self._natural_start
        rows = [row for one, row in zip(natural.kinds, natural.jacobian, strict=True) if one == kind]
        return [self.n_random + int(j) for row in rows for j in np.flatnonzero(row)]

    @cached_property
    def _natural_start(self) -> NaturalValues:
        return self.residual.natural(np.asarray(self.residual.start, dtype=float))

    @cached_property
    def _phi_start(self) -> np.ndarray:
        """Start of the residuals."""
        return np.asarray(self.residual.start_from(self.fixed.r), dtype=float)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters: those of the random effects, then those of the residuals."""
        return self._map.names + tuple(self.residual.names)

    @property
    def entries(self) -> np.ndarray | None:
        """Rows (term, row, column, parameter) of factors linear in theta, or None."""
        return self._map.entries

    @property
    def linear_entries(self) -> np.ndarray:
        """Rows (term, row, column, parameter) of the factors that are linear in theta."""
        return self._map.linear_entries

    @cached_property
    def mirrored(self) -> np.ndarray:
        """Whether the criterion is symmetric about the bounds of a parameter, shape (n_theta,)."""
        return np.concatenate([self._map.mirrored, np.zeros(self.n_phi, dtype=bool)])

    def check(self, psi: np.ndarray) -> np.ndarray:
        """Psi as a float array of the right length."""
        psi = np.asarray(psi, dtype=np.float64)
        if psi.shape != (self.n_theta,):
            raise OptionError(
                f"theta has shape {psi.shape}, the model has {self.n_theta} parameters: "
                f"{', '.join(self.names)}"
            )
        return psi

    def split(self, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Theta and phi."""
        psi = self.check(psi)
        return psi[: self.n_random], psi[self.n_random :]

    @cached_property
    def start(self) -> np.ndarray:
        """Moment start of the random effects with independent residuals, and start of the residuals."""
        theta, phi = np.zeros(0), self._phi_start
        if self.n_random and self._map.any_curved:
            theta = self._independent.start
        elif self.n_random:
            from mixedmodels.objective.start import moment_start

            design, even = self.design, self.residual.is_even
            if not even:
                design = replace(design, weights=1.0 / self.residual.row_variances(phi), residual=None)
            moments = moment_start(design, self.sigma_fixed, self.fixed.r if even else None)
            theta = self._map.theta_of(moments)
        psi = np.concatenate([theta, phi])
        return np.minimum(np.maximum(psi, self.lower), self.upper)

    @property
    def _independent(self) -> LMMObjective:
        """The model with independent residuals."""
        from mixedmodels.objective.lmm import LMMObjective
        from mixedmodels.solver.choose import choose_solver

        design = replace(self.design, residual=None)
        return LMMObjective(design, choose_solver(design), self.reml, sigma=self.sigma_fixed)

    def factors(self, psi: np.ndarray) -> list[np.ndarray]:
        """Relative factors, one (k, k) lower-triangular matrix per term."""
        return self._map.factors(self.split(psi)[0])

    def theta_of(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Parameters of given lower-triangular factors; only the random effects' part of psi."""
        return self._map.theta_of(factors)

    # ------------------------------------------------------------------ state
    @cached_property
    def engine(self) -> Any:
        """What computes the likelihood from whitened rows; ``describe()`` says how."""
        return choose_engine(self.design, self.solver_name, self.fixed)

    @cached_property
    def fixed(self) -> FixedPart:
        """The orthonormal fixed part and the least-squares residual."""
        design = self.design
        return fixed_part(design.y, design.X, design.x_names, design.offset, None)

    def at(self, psi: np.ndarray) -> Any:
        """State of the engine at psi; the last one is kept."""
        key = psi.tobytes()
        if self._last is None or self._last[0] != key:
            theta, phi = self.split(psi)
            with np.errstate(all="ignore"):
                point = self.residual.at(phi)
                try:
                    self._last = (key, self.engine.at(self._map.factors(theta), point, self.n_phi))
                except IdentifiabilityError:  # of whitened columns: R is nearly singular there
                    raise Breakdown("R is too nearly singular for the fixed effects") from None
        return self._last[1]

    @cached_property
    def compiled(self) -> ProfiledLevels | None:
        """Criterion and exact derivatives in one call, for structures of first order; None for others."""
        engine = self.engine
        return profiled_levels(engine) if isinstance(engine, WhitenedLevels) else None

    @cached_property
    def _placement(self) -> np.ndarray | None:
        """Derivatives of the factor of a level in theta, (n_random, k, k); None where it is not linear."""
        if (
            not self.n_random
            or self._map.any_curved
            or any([not term.covariance.n_theta for term in self.design.terms])
        ):
            return None
        k = self.engine.k
        out = np.zeros((self.n_random, k, k))
        for b, i, j, t in self._map.linear_entries.tolist():
            first = self.engine.slices[b].start
            out[t, first + i, first + j] = 1.0
        return out

    def _profile(self, psi: np.ndarray, order: int) -> Any:
        """Sums and derivatives of the compiled engine at psi; the last ones are kept."""
        key = psi.tobytes()
        known = self._profiled
        if known is not None and known[0] == key and known[1] >= order:
            return known[2]
        assert self.compiled is not None
        r, E = self.n_random, self._placement
        theta, phi = psi[:r], psi[r:]
        with np.errstate(all="ignore"):
            if E is None:
                factors, directions = self._map.factors(theta), self._map.directions(theta) if order else []
                found = self.compiled.at(factors, directions, phi, order)
            else:
                L, dS = placed(E, theta, order > 0)
                found = self.compiled.at_factors(L, dS, phi, order)
        self._profiled = (key, order, found)
        return found

    def at_phi(self, psi: np.ndarray) -> LMMObjective:
        """The objective of the random effects alone, phi held: an ordinary model in whitened rows.

        Its criterion lacks ``log|R(phi)|``; the last one is kept.
        """
        from mixedmodels.objective.lmm import LMMObjective
        from mixedmodels.solver.whitened_choose import whitened_solver

        _, phi = self.split(psi)
        key = phi.tobytes()
        if self._inner is None or self._inner[0] != key:
            design, solver = whitened_solver(self.design, self.residual.at(phi), self.solver_name)
            inner = LMMObjective(design, solver, self.reml, sigma=self.sigma_fixed)
            self._inner = (key, inner)
        return self._inner[1]

    # ------------------------------------------------------------------ objective
    def value(self, psi: np.ndarray) -> float:
        """Criterion at psi."""
        psi = self.check(psi)
        if self.compiled is None:
            return self._criterion(self.at(psi))
        return self._compiled_value(self._profile(psi, 0))

    def values(self, psi: np.ndarray, phis: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
        """Criterion at the random effects of psi and several phi, infinite where it does not exist.

        Parameters
        ----------
        psi : ndarray, shape (n_theta,)
        phis : ndarray, shape (N, n_phi)
        sizes : ndarray, shape (N,), optional
            Factors of the relative factors, all linear in theta, at each phi.

        Returns
        -------
        ndarray, shape (N,)
        """
        theta, _ = self.split(psi)
        engine, out = self.compiled, np.full(len(phis), np.inf)
        wide = None if engine is None else engine.wide(self._map.factors(theta), ())
        with np.errstate(all="ignore"):
            for i, phi in enumerate(phis):
                size = 1.0 if sizes is None else sizes[i]
                try:
                    if engine is None or wide is None:
                        value = self.value(np.concatenate([size * theta, phi]))
                    else:
                        value = self._compiled_value(engine.at_factors(size * wide[0], wide[1], phi, 0))
                except (FloatingPointError, np.linalg.LinAlgError):
                    continue
                if math.isfinite(value):
                    out[i] = value
        return out

    def _compiled_value(self, found: Any) -> float:
        """The criterion from the sums of the compiled engine."""
        logdets = found.logdet
        if self.reml:
            logdets += found.logdet_XX + self.engine.fixed.logdet_R2
        return gaussian_criterion(logdets, found.pwrss, self.nu, self.sigma_fixed)

    def value_and_gradient(self, psi: np.ndarray) -> tuple[float, np.ndarray]:
        """Criterion and gradient at psi."""
        psi = self.check(psi)
        return self._criterion(self.at(psi)), self._gradient(psi)

    def newton(self, psi: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Criterion, gradient and a positive semi-definite Newton matrix.

        The Hessian where it is cheap and positive definite, elsewhere average information plus the curvature
        of the positive part of M, as in `LMMObjective.newton`. Coordinates of residuals are logarithms and
        the like: the diagonal is raised where a step would be longer than a natural one.
        """
        psi = self.check(psi)
        state = self.at(psi)
        value, gradient = self._criterion(state), self._gradient(psi)
        average, observed = self._newton_matrices(psi, state)
        H = observed if observed is not None and _is_definite(observed, average) else average
        r, phi = self.n_random, np.arange(self.n_random, self.n_theta)
        H[phi, phi] = np.maximum(H[phi, phi], np.abs(gradient[r:]) / _LONGEST)
        return value, gradient, H

    @cached_property
    def units(self) -> np.ndarray:
        """Root mean square of the column of Z behind each parameter of linear factors; 1 for the others.

        Rows are divided by their standard deviations at the start.
        """
        out = np.ones(self.n_theta)
        scale = np.ones(1) if self.residual.is_even else self.residual.row_variances(self._phi_start) ** -0.5
        for b, i, _, t in self._map.linear_entries.tolist():
            Z = self.design.terms[b].Z
            size = math.sqrt(float(np.mean((scale if Z is None else scale * Z[:, i]) ** 2)))
            out[t] = size if size > 0.0 else 1.0
        return out

    def _newton_matrices(self, psi: np.ndarray, state: Any) -> tuple[np.ndarray, np.ndarray | None]:
        theta, _ = self.split(psi)
        directions = self._map.directions(theta)
        products, q = state.products(directions), self._forms(state, directions)
        average = average_information(products, q, state.pwrss, self.nu, self.sigma_fixed)
        M = self._M(state)
        r = self.n_random
        observed = None
        if self.n_phi <= _EXACT and state.exact_is_cheap:
            observed = 2.0 * average - self._rest(state, directions)
            observed[:r, :r] += self._map.curvature(M, theta)
            if self.sigma_fixed is None:
                observed += self._scale(state) / state.pwrss * np.outer(q, q)
        if r:
            positive = self._map.positive_parts(M, self._orthonormal)
            average[:r, :r] += self._map.curvature(positive, theta, np.diagonal(average)[:r])
        return average, observed

    def _rest(self, state: Any, directions: list) -> np.ndarray:
        """``tr(Q V_i Q V_j)`` less what the second derivatives of R add to the Hessian."""
        out = state.trace_products(directions, self.reml)
        if self.n_phi:
            traces, forms = state.residual_seconds(self.reml)
            r = self.n_random
            out[r:, r:] -= traces - self._scale(state) * forms
        return out

    @property
    def observed_is_cheap(self) -> bool:
        """Whether the exact Hessian costs little."""
        return self.n_phi <= _EXACT and bool(getattr(self.engine, "exact_is_cheap", True))

    # ------------------------------------------------------------------ parts
    @cached_property
    def _orthonormal(self) -> list[np.ndarray]:
        return self._map.orthonormal(self.design)

    def _criterion(self, state: Any) -> float:
        logdets = state.logdet_V + (state.logdet_RX2 if self.reml else 0.0)
        return gaussian_criterion(logdets, state.pwrss, self.nu, self.sigma_fixed)

    def _scale(self, state: Any) -> float:
        return gaussian_scale(state.pwrss, self.nu, self.sigma_fixed)

    def _M(self, state: Any) -> list[np.ndarray]:
        scale = self._scale(state)
        return [T - scale * S for T, S in zip(*state.term_parts(self.reml), strict=True)]

    def _compiled_derivatives(
        self, found: Any, psi: np.ndarray, nu: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Gradient and Hessian, sigma held (nu = 0) or profiled out; derivatives of both kinds; their sum."""
        E, r, scale = self._placement, self.n_random, self._scale(found)
        gradient, H, border, total = found.derivatives(scale, self.reml, E, nu)
        if E is None and r:
            M = found.T - scale * found.S
            if self.reml:
                M = M - found.T_X
            curved = self._map.curvature([M[at, at] for at in self.engine.slices], psi[:r])
            H[:r, :r] += curved
            total += float(curved.sum())
        return gradient, H, border, total

    def _gradient(self, psi: np.ndarray) -> np.ndarray:
        theta, _ = self.split(psi)
        state = self.at(psi)
        traces, forms = state.residual_parts(self.reml)
        own = traces - self._scale(state) * forms
        if not self.n_random:
            return own
        random = gradient_of(self._M(state), self._map.directions(theta))
        return np.concatenate([random, own])

    def _forms(self, state: Any, directions: list[list[np.ndarray | None]]) -> np.ndarray:
        """``y'P V_i P y`` for all of psi."""
        random = gradient_of(state.term_parts(self.reml)[1], directions)
        return np.concatenate([random, state.residual_parts(self.reml)[1]])


def _is_definite(observed: np.ndarray, average: np.ndarray) -> bool:
    """Whether the Hessian is safely positive definite, with diagonals like those of average information."""
    diagonal = np.diagonal(observed)
    if not np.all(np.isfinite(observed)) or np.any(diagonal <= 1e-3 * np.diagonal(average)):
        return False
    scale = np.sqrt(diagonal)
    if not np.all(scale > 0.0):
        return False
    return bool(np.linalg.eigvalsh(observed / scale / scale[:, None])[0] > 1e-6) if scale.size else False
