"""A fitted linear mixed model: a frozen object whose numbers are computed on first use and then kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import checks, values
from mixedmodels.fit.base import Fit
from mixedmodels.fit.given import NOTE

if TYPE_CHECKING:
    from mixedmodels.fit.solve import Options

__all__ = ["LMMFit"]


class LMMFit(Fit):
    """A fitted linear mixed model.

    The model is ``y = X beta + Z b + offset + e`` with ``b ~ N(0, sigma^2 Sigma(theta))`` and
    ``e_i ~ N(0, sigma^2 / w_i)``. Attributes are plain numbers, arrays (read-only) and dicts; methods
    return tables in the data-frame library of the data. The object never changes: `refit`, `refit_ml`
    and `update` return new ones.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> round(fit.fixef["Days"], 4)
    10.4673
    >>> fit.is_singular
    False
    """

    __slots__ = ()

    _options: Options

    # ------------------------------------------------------------------ the pieces

    @property
    def objective(self) -> Any:
        """The criterion as a function of theta (`LMMObjective`)."""
        if self._objective is None:
            from mixedmodels.fit.solve import make_objective

            object.__setattr__(self, "_objective", make_objective(self._frame, self._options))
        return self._objective

    def _release(self) -> None:
        """Let go of the solver once the estimates are kept; it is built again when something asks for it."""
        _ = self._solution
        object.__setattr__(self, "_objective", None)

    @property
    def optimum(self) -> Any:
        """What the optimiser returned: theta, gradient, Hessian, iterations, certificate (`Optimum`)."""

        def certified() -> Any:
            from mixedmodels.optimize import with_conditions

            return with_conditions(self._optimum, self.objective)

        return self._once("optimum", certified)

    @property
    def solver(self) -> Any:
        """The penalised least-squares solver; ``fit.solver.describe()`` says which one and why."""
        return self.objective.solver

    @property
    def _solution(self) -> Any:
        return self._once("solution", lambda: self.objective.solution(self.theta))

    # ------------------------------------------------------------------ estimates

    @property
    def beta(self) -> np.ndarray:
        """Fixed-effects estimates, shape (p,)."""
        return self._once("beta", lambda: values.readonly(np.array(self._solution.beta)))

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of an observation with weight 1)."""
        return self._once("sigma", self._compute_sigma)

    def _compute_sigma(self) -> float:
        fixed = self._options.sigma
        if fixed is not None:
            return float(fixed)
        if self._options.priors is not None or self._restricted:
            return self.objective.sigma(self.theta)
        return math.sqrt(float(self._solution.pwrss) / self._nu)

    @property
    def _is_linear(self) -> bool:
        return True

    @property
    def _scale(self) -> float:
        return self.sigma

    @property
    def _nu(self) -> int:
        design = self.design
        return design.n - design.p if self.is_reml else design.n

    @property
    def vcov(self) -> np.ndarray:
        """Covariance matrix of `beta`, ``sigma^2 (X' V^{-1} X)^{-1}``, shape (p, p)."""
        return self._once(
            "vcov",
            lambda: values.readonly(self.sigma * self.sigma * np.asarray(self._solution.vcov_unscaled)),
        )

    def conditional_covariance(self, term: int = 0) -> np.ndarray:
        """Var(b_level | y, beta) of one term, shape (m, k, k): sigma^2 times blocks of Lambda M^{-1} Lambda'.

        Parameters
        ----------
        term : int
            Position of the term in the formula.
        """
        if not isinstance(term, (int, np.integer)) or not 0 <= term < len(self.design.terms):
            raise OptionError(
                f"term must be a position between 0 and {len(self.design.terms) - 1}, got {term!r}"
            )
        blocks = self.solver.conditional_covariance([np.array(factor) for factor in self._factors], term)
        return values.readonly(self.sigma**2 * np.asarray(blocks))

    # ------------------------------------------------------------------ likelihood

    @property
    def is_reml(self) -> bool:
        """Whether the REML criterion was optimised."""
        return self._options.reml

    @property
    def loglik(self) -> float:
        """Log-likelihood at the estimates, REML or ML; without the priors if there are any."""
        if self._options.priors is None:
            return -0.5 * self.criterion  # restricted or not
        return self._once("loglik", lambda: -0.5 * self.objective.likelihood(self.theta))

    @property
    def deviance(self) -> float:
        """-2 times the ML log-likelihood at the estimate of theta.

        For a REML fit this is the ML criterion evaluated at the REML estimate of theta (with beta and sigma
        profiled out by ML), not its minimum; ``fit.refit_ml().deviance`` is the minimum.
        """
        return self._once("deviance", self._compute_deviance)

    def _compute_deviance(self) -> float:
        if not self.is_reml:
            return -2.0 * self.loglik
        from mixedmodels.objective.base import gaussian_criterion

        solution, weights = self._solution, self.design.weights
        log_weights = 0.0 if weights is None else float(np.log(weights).sum())
        sigma = None if self._options.sigma is None else float(self._options.sigma)
        return gaussian_criterion(
            float(solution.logdet_L2) - log_weights, float(solution.pwrss), self.nobs, sigma
        )

    @property
    def df_model(self) -> int:
        """Number of free parameters: fixed effects, theta, and the residual SD unless it is fixed."""
        return self._once("df_model", self._count_parameters)

    def _count_parameters(self) -> int:
        if self._options.variances is not None:
            return self.design.p
        free = self.design.p + len(self.theta) + (self._options.sigma is None)
        return free - self._restrictions.removed if self._restricted else free

    @property
    def _restricted(self) -> bool:
        """Whether `fixed` or `equal` restrict covariance parameters."""
        return bool(self._options.fixed or self._options.equal)

    @property
    def _restrictions(self) -> Any:
        from mixedmodels.fit.lmm_restrictions import read_restrictions

        options = self._options
        return self._once(
            "restrictions",
            lambda: read_restrictions(self.design, self.theta_names, options.fixed, options.equal),
        )

    def _compute_messages(self) -> tuple[str, ...]:
        frame, design, optimum = self._frame, self.design, self._optimum
        out: list[str] = []
        if not self.converged:
            out.append(f"not converged: {optimum.message}")
        for position in self._singular:
            term = self._whitened_terms[position]
            out.append(checks.singular_note(term, np.array(self._factors[position])))
        for term, factor in zip(design.terms, self._factors, strict=False):
            out += checks.limit_notes(term, factor, design.n)
        out += frame.messages
        scale = checks.response_note(frame.formula)
        if scale:
            out.append(scale)
        if str(optimum.method).startswith("minque"):
            out.append(f"variance components by {optimum.method}, which is no maximum of the likelihood")
        if self._options.variances is not None:
            out.append(NOTE)
        elif self._options.sigma is not None:
            out.append(f"the residual SD is held at sigma = {float(self._options.sigma):g}")
        if self._restricted:
            out += self._restrictions.texts
        if self._options.priors is not None:
            out.append("estimates maximise the posterior density; loglik, AIC and BIC leave the priors out")
        return tuple(out)

    # ------------------------------------------------------------------ values

    def fitted(self, re_form: Any = None) -> np.ndarray:
        """Fitted values of the rows of the fit.

        Parameters
        ----------
        re_form : None, "population", formula text or sequence of group names
            None: all random effects; ``"population"``: none; otherwise the terms named, as in `predict`.

        Returns
        -------
        ndarray, shape (nobs,)
            Rows of weight zero have fitted values as well, in the order of the data. With
            ``na_action="exclude"`` as long as the data, NaN where values were missing.
        """
        return self._rows(
            np.array(self._linear_predictor(re_form)), lambda: self._zero_weight_fitted(re_form)
        )

    def _zero_weight_fitted(self, re_form: Any) -> np.ndarray:
        from mixedmodels.fit.predict import predict_design, select_columns

        return predict_design(self, self._frame.zero_weight_design, select_columns(self, re_form))

    def residuals(self, kind: str = "response") -> np.ndarray:
        """Residuals of the rows of the fit.

        Parameters
        ----------
        kind : str
            ``"response"`` (or ``"conditional"``): y minus the fitted values; ``"marginal"``: y minus the
            fixed part; ``"pearson"``: response residuals times the square root of the weight; ``"scaled"``
            (or ``"normalized"``): Pearson residuals over sigma; ``"standardized"``: over their own standard
            deviations, ``sigma sqrt(1 - leverage)`` (what lme4 calls rstudent); ``"studentized"``: the same
            with the sigma estimated without the row.

        Returns
        -------
        ndarray, shape (nobs,)
            As the rows of `fitted`; NaN in rows of weight zero and, with ``na_action="exclude"``, in rows
            with missing values.
        """
        return self._rows(self._residuals(values.check_residual_kind(kind)))

    def _residuals(self, kind: str) -> np.ndarray:
        if kind in ("standardized", "studentized"):
            return self._leverage_residuals(kind)
        eta = self._linear_predictor("population" if kind == "marginal" else None)
        sigma = self.sigma if kind in ("scaled", "normalized") else 1.0
        return values.residuals(self.design.y, eta, self.design.weights, sigma, kind)

    def scaled_quantiles(self) -> tuple[float, ...]:
        """Minimum, quartiles, median and maximum of the scaled residuals."""
        return self._once(
            "scaled_quantiles",
            lambda: tuple(values.quantiles(self._residuals("scaled"), (0.0, 0.25, 0.5, 0.75, 1.0))),
        )

    def simulate(
        self,
        n: int = 1,
        seed: Any = None,
        new_effects: Any = True,
        *,
        newdata: Any = None,
        re_form: Any = None,
        beta: Any = None,
        theta: Any = None,
        sigma: float | None = None,
        weights: Any = None,
        offset: Any = None,
    ) -> np.ndarray:
        r"""Responses drawn from the model, :math:`y^* = X\beta + o + Zb^* + e^*`.

        Unlike `predict`, which conditions on the estimated random effects, `simulate` draws them anew unless
        told otherwise. Both take all random effects of the model; `re_form` names the same choice in both.

        Parameters
        ----------
        n : int
            Number of draws; the first ones do not depend on it.
        seed : int, Generator or None
            Seed of `numpy.random.default_rng`.
        new_effects : bool, str or sequence of str
            True draws all random effects anew; False keeps them at their conditional modes; names of grouping
            factors draw those and keep the others.
        newdata : data frame or dict of arrays, optional
            Rows to simulate; None takes those of the fit. Rows on one new level share its random effect.
        re_form : None, "population", formula text or sequence of group names
            Random effects that take part, as in `predict`; the others are zero.
        beta : array or dict, optional
            Other fixed effects; a dict may name some.
        theta, sigma : array, float, optional
            Other covariance parameters.
        weights : float, str or array, optional
            Precision weights, :math:`Var(e_i) = \sigma^2 / w_i`: by default those of the fit for its own rows
            and 1 for new ones.
        offset : str or array, optional
            Offset of new rows, needed if the model was fitted with an array as offset.

        Returns
        -------
        ndarray, shape (nobs or rows of newdata, n)
            NaN in rows of `newdata` with missing values or a mean that is not estimable.

        Examples
        --------
        >>> import mixedmodels as mm
        >>> fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
        >>> fit.simulate(3, seed=1).shape
        (30, 3)
        >>> fit.simulate(2, seed=1, newdata={"Batch": ["X", "X", "Y"]}).shape
        (3, 2)
        """
        from mixedmodels.fit.simulate import simulate_responses

        return simulate_responses(
            self,
            n,
            seed,
            new_effects,
            newdata=newdata,
            re_form=re_form,
            beta=beta,
            theta=theta,
            sigma=sigma,
            weights=weights,
            offset=offset,
        )

    # ------------------------------------------------------------------ inference (Wald)

    # ------------------------------------------------------------------ other models

    def refit_ml(self) -> LMMFit:
        """The same model fitted by maximum likelihood; the fit itself if it already is."""
        return self if not self.is_reml else self.update(reml=False)
