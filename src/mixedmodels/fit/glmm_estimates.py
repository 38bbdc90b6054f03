"""Estimates of a generalised fit: coefficients, covariance parameters, dispersion, and their covariance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import glmm_values, values
from mixedmodels.fit.base import Fit
from mixedmodels.fit.varcorr import VarCorr

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign, RandomTerm
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm import GLMMOptions

__all__ = ["GLMMEstimates"]


class GLMMEstimates(Fit):
    """What `mixedmodels.fit.glmm_result.GLMMFit` estimates, with covariances; gamma first, then theta."""

    __slots__ = ()

    _options: GLMMOptions

    # ------------------------------------------------------------------ the pieces
    @property
    def family(self) -> Family:
        """Distribution and link; that of ordered categories knows the thresholds."""
        return self._once("family", lambda: self._frame.family.at(self.generalised, self.gamma))

    @property
    def generalised(self) -> GeneralisedDesign:
        """Arrays of all linear predictors."""
        return self._frame.generalised

    @property
    def _terms(self) -> tuple[RandomTerm, ...]:
        return self.generalised.terms

    @property
    def _random(self) -> Any:
        return self.generalised

    @property
    def _is_linear(self) -> bool:
        return False

    @property
    def _scale(self) -> float:
        return 1.0

    @property
    def objective(self) -> Any:
        """The criterion as a function of all parameters (`GLMMObjective`)."""
        if self._objective is None:
            from mixedmodels.fit.glmm import glmm_objective

            object.__setattr__(self, "_objective", glmm_objective(self._frame, self._options))
        return self._objective

    @property
    def solver(self) -> Any:
        """The engine that integrates the random effects out; ``describe()`` says which one."""
        return self.objective.marginal

    @property
    def optimum(self) -> Any:
        """What the optimiser returned (`Optimum`)."""
        return self._optimum

    @property
    def _solution(self) -> Any:
        """Modes at the estimates."""
        return self._once("solution", lambda: self.objective.modes(self.psi))

    @property
    def nagq(self) -> int:
        """Quadrature points per random effect; 1 is Laplace's approximation, 0 the joint penalised mode."""
        return self._options.nagq

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the linear predictors: "conditional", "zero_inflation", "dispersion", ..."""
        return tuple([predictor.name for predictor in self.generalised.predictors])

    # ------------------------------------------------------------------ estimates
    @property
    def psi(self) -> np.ndarray:
        """All parameters: gamma, then theta."""
        return self._once("psi", lambda: values.readonly(np.array(self._optimum.theta, dtype=float)))

    @property
    def _n_gamma(self) -> int:
        return len(self.generalised.gamma_names)

    @property
    def gamma(self) -> np.ndarray:
        """Coefficients of all linear predictors, shape (n_gamma,)."""
        return self._once("gamma", lambda: values.readonly(self.psi[: self._n_gamma]))

    @property
    def gamma_names(self) -> tuple[str, ...]:
        """Names of `gamma`: ``x``, ``zi_x``, ``disp_x``, ..."""
        return self.generalised.gamma_names

    @property
    def theta(self) -> np.ndarray:
        """Covariance parameters: entries of the factors of Sigma, shape (n_theta,)."""
        return self._once("theta", lambda: values.readonly(self.psi[self._n_gamma :]))

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of the entries of `theta`."""
        return tuple(self._optimum.names[self._n_gamma :])

    @property
    def beta(self) -> np.ndarray:
        """Coefficients of the conditional predictor, shape (p,)."""
        return self._once("beta", lambda: values.readonly(self.psi[: self.design.p]))

    @property
    def thresholds(self) -> dict[str, float]:
        """Thresholds between ordered categories: ``{"1|2": -1.6, ...}``, increasing.

        Under structured thresholds they follow from the free parameters among `gamma`.

        Raises
        ------
        OptionError
            Another family than ``"cumulative"``.
        """
        from mixedmodels.fit.glmm_ordinal import thresholds_of

        return thresholds_of(self)

    @property
    def fixef_all(self) -> dict[str, dict[str, float]]:
        """Coefficients of all linear predictors by component and name (new dicts at each call)."""
        design, gamma = self.generalised, self.gamma
        return {
            predictor.name: dict(
                zip(
                    glmm_values.coefficient_names(design, predictor),
                    gamma[predictor.columns].tolist(),
                    strict=True,
                )
            )
            for predictor in glmm_values.own_predictors(design)
        }

    @property
    def se_all(self) -> dict[str, float]:
        """Standard errors of `gamma` by name; NaN where they are undetermined or the value was held."""
        diagonal = self.joint_vcov.diagonal()[: self._n_gamma].tolist()
        return {
            name: math.sqrt(value) if value > 0.0 else math.nan
            for name, value in zip(self.gamma_names, diagonal, strict=True)
        }

    @property
    def joint_vcov(self) -> np.ndarray:
        """Covariance matrix of (gamma, theta): twice the inverse of the criterion's Hessian.

        Parameters at the boundary of the parameter space (a variance of zero) or held at a value count as
        known: their covariances are zero. Where the criterion is flat in the direction of a parameter its
        covariances are NaN, those of the others hold given it; `messages` name them.
        """
        return self._covariances[0]

    @property
    def _covariances(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """Joint covariance, names of parameters at the boundary and of undetermined ones."""
        return self._once("covariances", self._compute_covariances)

    def _compute_covariances(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        objective = self.objective
        held: tuple[int, ...] = ()
        if self._singular:
            held = glmm_values.boundary_parameters(
                self.generalised, self._factors, self._singular, objective.coordinates.map.index
            )
        elif not objective.restricted:
            clear = glmm_values.clear_covariance(self._free_hessian())
            if clear is not None:
                return values.readonly(clear), (), ()
        positions = [self._n_gamma + place for place in held]
        covariance, flat = glmm_values.joint_covariance(self._free_hessian(), objective.M, positions)
        names = objective.names
        undetermined = tuple([names[i] for i in np.flatnonzero(flat)]) if flat.any() else ()
        return values.readonly(covariance), tuple([names[i] for i in positions]), undetermined

    def _free_hessian(self) -> np.ndarray:
        """Hessian of the criterion in the free parameters: that of the search where it is exact."""
        return self.objective.free_hessian(self.psi, self._optimum.hessian)

    @property
    def vcov(self) -> np.ndarray:
        """Covariance matrix of `beta`, shape (p, p), the uncertainty about all other parameters included."""
        p = self.design.p
        return self._once("vcov", lambda: values.readonly(self.joint_vcov[:p, :p]))

    def conditional_covariance(self, term: int = 0) -> np.ndarray:
        """Var(b_level | y) of one term at the estimates, by the curvature at the mode, shape (m, k, k)."""
        if not isinstance(term, (int, np.integer)) or not 0 <= term < len(self._terms):
            raise OptionError(f"term must be a position between 0 and {len(self._terms) - 1}, got {term!r}")
        return values.readonly(np.array(self.objective.conditional_covariance(self.psi, term)))

    # ------------------------------------------------------------------ dispersion
    @property
    def dispersion(self) -> Any:
        """Dispersion parameter in natural units; one number, or one per row where it has a model.

        1.0 for families without one (binomial, Poisson). The family's documentation says what it is: the
        residual SD of a Gaussian, theta of a negative binomial, ...
        """
        return self._once("dispersion", self._compute_dispersion)

    @property
    def _constant_dispersion(self) -> float | None:
        """The linear predictor of a dispersion without a model; None otherwise."""
        if "dispersion" not in self.components:
            return None
        c = self.components.index("dispersion")
        predictor = self.generalised.predictors[c]
        if not glmm_values.constant_column(predictor) or c in self.generalised.active:
            return None
        first = 1.0 if predictor.X is None else float(predictor.X[0, 0])
        return first * float(self.gamma[predictor.columns[0]])

    def _compute_dispersion(self) -> Any:
        if "dispersion" not in self.components:
            return 1.0
        delta = self._constant_dispersion
        if delta is not None:
            return float(glmm_values.natural_dispersion(self.family, delta))
        c = self.components.index("dispersion")
        natural = glmm_values.natural_dispersion(self.family, self._solution.eta[c])
        return values.readonly(np.array(self._rows(natural)))

    @property
    def sigma(self) -> float:
        """R's ``sigma()`` as one number: the residual SD of a Gaussian, 1.0 without a dispersion.

        NaN where the dispersion has a model: see `dispersion`.
        """
        if "dispersion" not in self.components:
            return 1.0
        delta = self._constant_dispersion
        return math.nan if delta is None else glmm_values.sigma_of(self.family, delta)

    @property
    def _residual_sd(self) -> float | None:
        """Residual standard deviation of a Gaussian model with one."""
        value = self.dispersion if self.family.name == "gaussian" else None
        return value if isinstance(value, float) else None

    def _compute_varcorr(self) -> VarCorr:
        return VarCorr(self._term_variances(), self._residual_sd, self._native, self._render)

    def _term_names(self, position: int) -> tuple[str, ...]:
        """Names of a term's columns, with the prefix of its component."""
        design = self.generalised
        component = design.predictors[design.term_predictor[position]].name
        return glmm_values.prefixed(design.terms[position].names, component)
