"""A fitted generalised linear mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit import values
from mixedmodels.fit.base import Fit

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign, RandomTerm
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm import GLMMOptions

__all__ = ["GLMMFit"]


class GLMMFit(Fit):
    """A fitted generalised linear mixed model.

    The response has a distribution of `family` with linear predictors ``eta_c = X_c gamma_c + Z_c b + o_c``,
    ``b ~ N(0, Sigma(theta))``. ``beta`` are the coefficients of the conditional predictor, ``gamma`` those of
    all. Otherwise like `LMMFit`.
    """

    __slots__ = ()

    _options: GLMMOptions

    # ------------------------------------------------------------------ the pieces
    @property
    def family(self) -> Family:
        """Distribution and link."""
        return self._frame.family

    @property
    def generalised(self) -> GeneralisedDesign:
        """Arrays of all linear predictors."""
        return self._frame.generalised

    @property
    def _terms(self) -> tuple[RandomTerm, ...]:
        return self.generalised.terms

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
        return self.psi[: self._n_gamma]

    @property
    def theta(self) -> np.ndarray:
        """Covariance parameters: entries of the factors of Sigma, shape (n_theta,)."""
        return self.psi[self._n_gamma :]

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of the entries of `theta`."""
        return tuple(self._optimum.names[self._n_gamma :])

    @property
    def beta(self) -> np.ndarray:
        """Coefficients of the conditional predictor, shape (p,)."""
        return self.gamma[: self.design.p]

    @property
    def joint_vcov(self) -> np.ndarray:
        """Covariance matrix of all parameters: twice the inverse of the criterion's Hessian."""
        return self._once("joint_vcov", self._compute_joint_vcov)

    def _compute_joint_vcov(self) -> np.ndarray:
        hessian = self.objective.evaluate(self.psi, 2).hessian
        return values.readonly(2.0 * np.linalg.inv(hessian))

    @property
    def vcov(self) -> np.ndarray:
        """Covariance matrix of `beta`, shape (p, p), the uncertainty about all other parameters included."""
        p = self.design.p
        return values.readonly(self.joint_vcov[:p, :p])

    def conditional_covariance(self, term: int = 0) -> np.ndarray:
        """Var(b_level | y) of one term at the estimates, by the curvature at the mode, shape (m, k, k)."""
        return values.readonly(self.objective.conditional_covariance(self.psi, term))

    # ------------------------------------------------------------------ likelihood
    @property
    def is_reml(self) -> bool:
        """False: parameters are estimated by maximum likelihood."""
        return False

    @property
    def deviance(self) -> float:
        """-2 times the log-likelihood."""
        return self.criterion

    @property
    def df_model(self) -> int:
        """Number of free parameters."""
        return int(self.objective.M.shape[1])

    def _compute_messages(self) -> tuple[str, ...]:
        out = [] if self.converged else [f"not converged: {self._optimum.message}"]
        return (*out, *self._frame.messages)

    # ------------------------------------------------------------------ values
    def linear_predictors(self) -> np.ndarray:
        """All linear predictors at the modes, shape (C, n)."""
        return self._solution.eta

    def fitted(self, re_form: Any = None) -> np.ndarray:
        """Means of the rows of the fit at the conditional modes."""
        return self._rows(self.family.mean(list(self.linear_predictors())))
