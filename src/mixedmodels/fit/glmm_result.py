"""A fitted generalised linear mixed model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import glmm_values, values
from mixedmodels.fit.base import Fit
from mixedmodels.fit.glmm_questions import GLMMQuestions
from mixedmodels.fit.glmm_residuals import glmm_residuals, response_of
from mixedmodels.fit.varcorr import VarCorr

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign, RandomTerm
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm import GLMMOptions
    from mixedmodels.fit.pql import PQL
    from mixedmodels.fit.predict import Selection

__all__ = ["GLMMFit"]


class GLMMFit(GLMMQuestions, Fit):
    """A fitted generalised linear mixed model.

    The response has a distribution of `family` with linear predictors ``eta_c = X_c gamma_c + Z_c b + o_c``,
    ``b ~ N(0, Sigma(theta))``. ``beta`` are the coefficients of the conditional predictor, ``gamma`` those of
    all: also of the models of zero inflation and dispersion and of the constant parameters of the family.
    Standard errors include the uncertainty about all other parameters. Otherwise like `LMMFit`.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("cbpp", backend="dict")
    >>> fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
    >>> round(fit.fixef["period2"], 4), round(fit.varcorr["herd"].sds[0], 4)
    (-0.9923, 0.6423)
    >>> round(fit.loglik, 4), fit.sigma
    (-92.0263, 1.0)
    """

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

    # ------------------------------------------------------------------ likelihood
    @property
    def is_reml(self) -> bool:
        """False: parameters are estimated by maximum likelihood."""
        return False

    @property
    def deviance(self) -> float:
        """-2 times the log-likelihood."""
        return -2.0 * self.loglik

    @property
    def residual_deviance(self) -> float:
        """Sum of the unit deviances at the conditional modes (R's ``deviance`` of a generalised model)."""
        own = glmm_residuals(self.family, self.generalised.data, self.linear_predictors(), "deviance")
        return float(own @ own)

    @property
    def df_model(self) -> int:
        """Number of free parameters."""
        return int(self.objective.M.shape[1])

    @property
    def loglik(self) -> float:
        """Log-likelihood, without the priors if there are any."""
        return -0.5 * (self.criterion - self.objective.penalty(self.psi))

    def _compute_messages(self) -> tuple[str, ...]:
        from mixedmodels.fit.glmm_messages import glmm_messages

        out = glmm_messages(self)
        undetermined = self._covariances[2]
        if undetermined:
            out = (
                *out,
                f"standard errors of {', '.join(undetermined)} cannot be computed: the likelihood is flat in "
                "their direction; those of the other parameters are given them",
            )
        return out

    # ------------------------------------------------------------------ values
    def linear_predictors(self) -> np.ndarray:
        """All linear predictors of the rows in the likelihood at the conditional modes, shape (C, n)."""
        return self._solution.eta

    def _compute_eta(self, re_form: Any) -> np.ndarray:
        if re_form is None:
            return np.array(self._solution.eta[0])
        return self._eta(self._selection(re_form), 0)

    def _selection(self, re_form: Any) -> Selection:
        from mixedmodels.fit.glmm_predict import select_terms

        return select_terms(self, re_form)

    def _eta(self, selection: Selection, c: int) -> np.ndarray:
        return glmm_values.linear_predictor(self.generalised, c, self.gamma, self._b, selection)

    def _etas(self, re_form: Any = None) -> np.ndarray:
        """All linear predictors with the random effects of `re_form`, shape (C, n)."""
        if re_form is None:
            return self._solution.eta
        selection = self._selection(re_form)
        return np.array([self._eta(selection, c) for c in range(len(self.components))])

    def fitted(self, re_form: Any = None, type: str = "response") -> np.ndarray:
        """Fitted values of the rows of the fit.

        Parameters
        ----------
        re_form : None, "population", formula text or sequence of group names
            Random effects that take part, as in `predict`; the others are zero.
        type : {"response", "link", "conditional", "zero_probability", "dispersion", "prob", ...}
            As in `predict`: means (proportions for binomial families), linear predictors, ...

        Returns
        -------
        ndarray, shape (nobs,), or (nobs, K) for probabilities of categories
            With ``na_action="exclude"`` as long as the data, NaN where values were missing.
        """
        from mixedmodels.fit.glmm_predict import on_scale

        return self._rows(on_scale(self.family, self._etas(re_form), self.components, type))

    def response(self) -> np.ndarray:
        """The response of the rows that `fitted` returns; proportions for binomial families."""
        return self._rows(np.array(response_of(self.generalised.data)))

    def residuals(self, kind: str = "response", seed: Any = None) -> np.ndarray:
        """Residuals of the rows of the fit at the conditional modes.

        Parameters
        ----------
        kind : str
            ``"response"``, ``"pearson"`` (also ``"scaled"``: over the whole standard deviation, dispersion
            included), ``"deviance"``, ``"working"``, ``"quantile"`` (randomised, standard normal if the
            model holds) or ``"surrogate"`` (of ordered categories); formulas in
            `mixedmodels.fit.glmm_residuals`.
        seed : int, Generator or None
            Of quantile residuals.

        Returns
        -------
        ndarray, shape (nobs,)
            As the rows of `fitted`.
        """
        return self._rows(glmm_residuals(self.family, self.generalised.data, self._solution.eta, kind, seed))

    def scaled_quantiles(self) -> tuple[float, ...]:
        """Minimum, quartiles, median and maximum of the Pearson residuals."""

        def compute() -> tuple[float, ...]:
            own = glmm_residuals(self.family, self.generalised.data, self._solution.eta, "pearson")
            return tuple(values.quantiles(own, (0.0, 0.25, 0.5, 0.75, 1.0)))

        return self._once("scaled_quantiles", compute)

    def working_weights(self, kind: str = "expected") -> np.ndarray:
        r"""Weights w of the working linear mixed model at the modes.

        .. math::
            w_i = (\mathrm{d}\mu_i/\mathrm{d}\eta_i)^2 / Var(y_i) \text{ (expected)}, \qquad
            w_i = -\partial^2 \log f(y_i) / \partial\eta_i^2 \text{ (observed)}

        Parameters
        ----------
        kind : {"expected", "observed"}
            Equal for canonical links.
        """
        design = self.generalised
        return self._rows(glmm_values.working_weights(self.family, design.data, self._solution.eta, kind))

    def working_response(self, kind: str = "expected") -> np.ndarray:
        r"""Response z of the working linear mixed model at the modes.

        .. math:: z_i = \eta_i + (\partial \log f(y_i) / \partial\eta_i) / w_i
                      = \eta_i + (y_i - \mu_i)\,/\,(\mathrm{d}\mu_i/\mathrm{d}\eta_i)

        (the second form for exponential families and expected weights). At a mode the mixed-model equations
        of z with weights w reproduce the mode: see `mixedmodels.objective.henderson`.

        Parameters
        ----------
        kind : {"expected", "observed"}
            Which weights.
        """
        design = self.generalised
        return self._rows(glmm_values.working_response(self.family, design.data, self._solution.eta, kind))

    # ------------------------------------------------------------------ random effects
    def ranef_columns(self, condvar: bool = False) -> dict[str, Any]:
        """The columns of `ranef` as lists and arrays."""
        from mixedmodels.fit.ranef import conditional_sds, effect_columns

        sds: Sequence[np.ndarray] | None = None
        if condvar:
            sds = [
                conditional_sds(self.conditional_covariance(position), 1.0)
                for position in range(len(self._terms))
            ]
        return effect_columns(self._named_design(), self._b, sds)

    def _named_design(self, component: int | None = None) -> Any:
        """Terms (of one component) under the names shown, with the names of their fixed coefficients."""
        from mixedmodels.fit.ranef import Effects, NamedTerm

        design = self.generalised
        chosen = [j for j, c in enumerate(design.term_predictor) if component is None or c == component]
        return Effects(
            glmm_values.coefficient_names(design, design.predictors[component or 0]),
            tuple(
                [
                    NamedTerm(design.terms[j].group, self._term_names(j), design.terms[j].levels)
                    for j in chosen
                ]
            ),
        )

    def coef_columns(self, condvar: bool = False) -> dict[str, Any]:
        """The columns of `coef` as lists and arrays."""
        from mixedmodels.fit.ranef import coefficient_columns, joined_columns

        design = self.generalised
        parts = []
        for c in design.active:
            b = [self._b[j] for j, own in enumerate(design.term_predictor) if own == c]
            gamma = self.gamma[design.predictors[c].columns]
            named = self._named_design(c)
            parts.append(coefficient_columns(named, gamma, b))
            if condvar:
                from mixedmodels.fit.glmm_errors import coefficient_errors

                parts[-1]["std_error"] = coefficient_errors(self, named, c)
        return joined_columns(parts)

    # ------------------------------------------------------------------ draws
    def simulate(
        self,
        n: int = 1,
        seed: Any = None,
        new_effects: Any = True,
        *,
        newdata: Any = None,
        re_form: Any = None,
        gamma: Any = None,
        beta: Any = None,
        theta: Any = None,
        trials: Any = None,
        offset: Any = None,
        labels: bool = False,
    ) -> np.ndarray:
        r"""Responses drawn from the model.

        .. math:: b^* \sim N(0, \Sigma), \qquad y^* \sim f(\cdot \mid \eta^*), \quad \eta^* = X\gamma + Zb^*

        Unlike `predict`, which conditions on the estimated random effects, `simulate` draws them anew unless
        told otherwise.

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
        gamma : dict or array, optional
            Other coefficients of the linear predictors; a dict may name some of `gamma_names`.
        beta : dict or array, optional
            Other coefficients of the conditional predictor.
        theta : array, optional
            Other covariance parameters.
        trials : int, array or column name, optional
            Trials of new rows; by default the column given to `glmm`.
        offset : str or array, optional
            Offset of new rows, needed if the model was fitted with an array as offset.
        labels : bool
            Labels of the categories of a factor response instead of their numbers.

        Returns
        -------
        ndarray, shape (rows in the likelihood or of newdata, n)
            Counts, 0/1, numbers of successes, numbers 1, 2, ... of ordered categories, ... as
            `refit` takes them; NaN (None for labels) in rows of `newdata` with missing values or a mean that
            is not estimable.
        """
        from mixedmodels.fit.glmm_simulate import simulate_glmm

        drawn = simulate_glmm(
            self,
            n,
            seed,
            new_effects,
            newdata=newdata,
            re_form=re_form,
            gamma=gamma,
            beta=beta,
            theta=theta,
            trials=trials,
            offset=offset,
        )
        if not labels:
            return drawn
        from mixedmodels.fit.glmm_ordinal import labels_of

        levels = self.generalised.data.levels
        if not levels:
            raise OptionError("labels=True needs a factor response; this one is numeric")
        return labels_of(drawn, levels, int(self.family.response == "categories"))

    # ------------------------------------------------------------------ other models
    def refit(self, new: Any) -> GLMMFit:
        """The same model fitted to another response, or to other data.

        Parameters
        ----------
        new : array of length nobs (or n_rows), or a data frame or dict
            A response as `simulate` draws it (or two columns of successes and failures), or data for the
            whole model (learnt levels, knots and centres are learnt afresh).
        """
        from mixedmodels.fit.glmm_update import refit_glmm

        return refit_glmm(self, new)

    def update(self, formula: Any = None, *, data: Any = None, **changes: Any) -> GLMMFit:
        """The model with another formula or other options, fitted anew.

        Parameters
        ----------
        formula : str or Formula, optional
            In a text a ``.`` stands for what this fit has there: ``". ~ . + x"``, ``"~ . - (x | g)"``.
        data : optional
            Other data; by default those of this fit. A fit loaded from a file keeps no data: pass them.
        **changes
            Any keyword of `glmm`: ``nagq=9``, ``family="nbinom2"``, ``zero_inflation="~ x"``.
        """
        from mixedmodels.fit.glmm_update import update_glmm

        return update_glmm(self, formula, data, changes)

    def pql(self, reml: bool = False, sigma: float | None = 1.0, **options: Any) -> PQL:
        """The same model by penalised quasi-likelihood, for comparison with systems that stop there.

        Parameters
        ----------
        reml : bool
            REML or maximum likelihood in the working linear mixed models.
        sigma : float or None
            Their residual standard deviation; None estimates it, as MASS's glmmPQL does.
        **options
            ``maxiter`` and ``tol``; see `mixedmodels.fit.pql`.

        Returns
        -------
        PQL
            ``fixef``, ``se``, ``varcorr``, and the last working linear mixed model as ``working``.
        """
        from mixedmodels.fit.pql import penalised_quasi_likelihood

        return penalised_quasi_likelihood(self, reml, sigma, **options)

    def refit_ml(self) -> GLMMFit:
        """The fit itself: it is one by maximum likelihood."""
        return self
