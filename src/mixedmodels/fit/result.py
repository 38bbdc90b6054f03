"""A fitted linear mixed model: a frozen object whose numbers are computed on first use and then kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import checks, values
from mixedmodels.fit.questions import Questions
from mixedmodels.fit.varcorr import TermVariance, VarCorr, term_variance, unique_keys

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.fit.ranef import TermEffects
    from mixedmodels.fit.solve import Options

__all__ = ["LMMFit"]


class LMMFit(Questions):
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

    __slots__ = ("__weakref__", "_cache", "_data", "_frame", "_objective", "_optimum", "_options")

    _frame: Any
    _objective: Any
    _optimum: Any
    _options: Options
    _data: Any
    _cache: dict[str, Any]

    def __init__(self, frame: Any, objective: Any, optimum: Any, options: Options, data: Any = None) -> None:
        put = object.__setattr__
        put(self, "_frame", frame)
        put(self, "_objective", objective)
        put(self, "_optimum", optimum)
        put(self, "_options", options)
        put(self, "_data", data)
        put(self, "_cache", {})

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"a fit is frozen: {name!r} cannot be set; update(), refit() and refit_ml() give new fits"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a fit is frozen: {name!r} cannot be deleted")

    def __copy__(self) -> LMMFit:
        return self

    def __deepcopy__(self, memo: dict) -> LMMFit:
        return self

    def __reduce__(self) -> Any:
        from mixedmodels.fit.save import from_bytes, to_bytes

        return from_bytes, (to_bytes(self), self._options.functions)

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The cached value of `name`. Two threads may both compute it; they agree."""
        cache = self._cache
        if name in cache:
            return cache[name]
        return cache.setdefault(name, compute())

    # ------------------------------------------------------------------ the pieces

    @property
    def design(self) -> Design:
        """Arrays the model was fitted to (`mixedmodels.design.Design`)."""
        return self._frame.design

    @property
    def frame(self) -> Any:
        """The `ModelFrame`: formula, encoding, design and what was left out."""
        return self._frame

    @property
    def formula(self) -> Any:
        """The parsed `Formula`; None for a model made from matrices."""
        return self._frame.formula

    @property
    def formula_text(self) -> str:
        """The formula as it was written (with ``.`` replaced); empty for a model made from matrices."""
        formula = self._frame.formula
        if formula is None:
            return ""
        text = formula.text
        return " ".join(text.split()) if text and "." not in text else str(formula)

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

    @property
    def _factors(self) -> list[list[list[float]]]:
        """Relative factors of the terms as nested lists."""
        return self._once("factors", lambda: values.relative_factors(self.design, self.theta))

    # ------------------------------------------------------------------ estimates

    @property
    def theta(self) -> np.ndarray:
        """Covariance parameters, shape (n_theta,): entries of the relative factors in lme4's order."""
        return self._once("theta", lambda: values.readonly(np.array(self._optimum.theta, dtype=float)))

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of the entries of `theta`."""
        return tuple(self._optimum.names)

    @property
    def beta(self) -> np.ndarray:
        """Fixed-effects estimates, shape (p,)."""
        return self._once("beta", lambda: values.readonly(np.array(self._solution.beta)))

    @property
    def fixef(self) -> dict[str, float]:
        """Fixed-effects estimates by name (a new dict at each call)."""
        return dict(zip(self.design.x_names, self.beta.tolist(), strict=True))

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of an observation with weight 1)."""
        return self._once("sigma", self._compute_sigma)

    def _compute_sigma(self) -> float:
        fixed = self._options.sigma
        if fixed is not None:
            return float(fixed)
        return math.sqrt(float(self._solution.pwrss) / self._nu)

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

    @property
    def se(self) -> dict[str, float]:
        """Standard errors of the fixed effects by name (a new dict at each call)."""
        diagonal = self._once("vcov_diagonal", lambda: self.vcov.diagonal().tolist())
        return {
            name: math.sqrt(value) if value > 0.0 else math.nan
            for name, value in zip(self.design.x_names, diagonal, strict=True)
        }

    @property
    def varcorr(self) -> VarCorr:
        """Variances, standard deviations and correlations; prints as a table and has ``to_frame()``."""
        return self._once("varcorr", self._compute_varcorr)

    def _compute_varcorr(self) -> VarCorr:
        terms: list[TermVariance] = []
        design = self.design
        keys = unique_keys([term.group for term in design.terms])
        for key, term, factor in zip(keys, design.terms, self._factors, strict=True):
            correlated = term.covariance.clip == "block" and len(factor) > 1
            terms.append(term_variance(key, term.names, factor, self.sigma, correlated))
        return VarCorr(tuple(terms), self.sigma, self._native, _render_varcorr)

    def ranef_arrays(self) -> tuple[TermEffects, ...]:
        """Conditional modes of the random effects as arrays, one `TermEffects` per term."""
        from mixedmodels.fit.ranef import TermEffects

        return self._once(
            "ranef_arrays",
            lambda: tuple(
                TermEffects(term.group, term.names, term.levels, b)
                for term, b in zip(self.design.terms, self._b, strict=True)
            ),
        )

    @property
    def _b(self) -> tuple[np.ndarray, ...]:
        """Conditional modes, one read-only (m, k) array per term."""
        return self._once("b", lambda: tuple([values.readonly(b) for b in self._solution.b]))

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

    def ranef_columns(self, condvar: bool = False) -> dict[str, Any]:
        """The columns of `ranef` as lists and arrays."""
        from mixedmodels.fit.ranef import conditional_sds, effect_columns

        sds = None
        if condvar:
            sds = [
                conditional_sds(self.conditional_covariance(position), 1.0)
                for position in range(len(self.design.terms))
            ]
        return effect_columns(self.design, self._b, sds)

    def ranef(self, condvar: bool = False) -> Any:
        """Conditional modes of the random effects: a table with columns group, level, term, estimate.

        Parameters
        ----------
        condvar : bool
            Adds the column ``sd``: conditional standard deviations given the data, beta and theta.
        """
        return self._native(self.ranef_columns(condvar))

    def coef_columns(self, condvar: bool = False) -> dict[str, Any]:
        """The columns of `coef` as lists and arrays."""
        from mixedmodels.fit.ranef import coefficient_columns, coefficient_sds

        columns = coefficient_columns(self.design, self.beta, self._b)
        if condvar:
            columns["std_error"] = self.sigma * coefficient_sds(self.design, self.solver, self._factors)
        return columns

    def coef(self, condvar: bool = False) -> Any:
        r"""Coefficients per level, fixed plus random: a table with columns group, level, term, estimate.

        Parameters
        ----------
        condvar : bool
            Adds the column ``std_error``: the standard deviation of the error of estimate plus prediction,
            :math:`Var(\hat\beta_j + \hat b_{lj} - \beta_j - b_{lj})^{1/2}` (Henderson), given theta.
        """
        return self._native(self.coef_columns(condvar))

    # ------------------------------------------------------------------ likelihood

    @property
    def is_reml(self) -> bool:
        """Whether the REML criterion was optimised."""
        return self._options.reml

    @property
    def criterion(self) -> float:
        """-2 times the log-likelihood that was optimised (REML or ML) at the estimates."""
        return float(self._optimum.value)

    @property
    def loglik(self) -> float:
        """Log-likelihood that was optimised, REML or ML."""
        return -0.5 * self.criterion

    @property
    def deviance(self) -> float:
        """-2 times the ML log-likelihood at the estimate of theta.

        For a REML fit this is the ML criterion evaluated at the REML estimate of theta (with beta and sigma
        profiled out by ML), not its minimum; ``fit.refit_ml().deviance`` is the minimum.
        """
        return self._once("deviance", self._compute_deviance)

    def _compute_deviance(self) -> float:
        if not self.is_reml:
            return self.criterion
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
        return self.design.p + len(self.theta) + (self._options.sigma is None)

    @property
    def aic(self) -> float:
        """Akaike's criterion, ``criterion + 2 df_model``."""
        return self.criterion + 2.0 * self.df_model

    @property
    def bic(self) -> float:
        """Bayesian criterion, ``criterion + log(nobs) df_model``."""
        return self.criterion + math.log(self.nobs) * self.df_model

    @property
    def aicc(self) -> float:
        """AIC with the small-sample correction; infinite where ``nobs <= df_model + 1``."""
        k = self.df_model
        room = self.nobs - k - 1
        return self.aic + 2.0 * k * (k + 1) / room if room > 0 else math.inf

    @property
    def nobs(self) -> int:
        """Number of observations in the likelihood."""
        return self.design.n

    @property
    def n_rows(self) -> int:
        """Rows of the data, before any were left out."""
        return self._frame.n_rows

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels of each grouping factor."""
        return {term.group: term.m for term in self.design.terms}

    @property
    def dropped_columns(self) -> tuple[str, ...]:
        """Fixed-effects columns left out because they depend linearly on earlier ones."""
        return self._frame.dropped_columns

    @property
    def converged(self) -> bool:
        """Whether the optimiser met its convergence criterion."""
        return bool(self._optimum.converged)

    @property
    def is_singular(self) -> bool:
        """Whether a covariance matrix of the random effects is singular: variance 0, correlation +-1, ..."""
        return bool(self._singular)

    @property
    def _singular(self) -> tuple[int, ...]:
        """Positions of the singular terms."""
        return self._once("singular", self._compute_singular)

    def _compute_singular(self) -> tuple[int, ...]:
        pairs = zip(self.design.terms, self._factors, strict=True)
        return tuple([j for j, (term, factor) in enumerate(pairs) if checks.is_singular(term, factor)])

    @property
    def messages(self) -> tuple[str, ...]:
        """Facts worth knowing about this fit, one sentence each; printed below the summary."""
        return self._once("messages", self._compute_messages)

    def _compute_messages(self) -> tuple[str, ...]:
        frame, design, optimum = self._frame, self.design, self._optimum
        out: list[str] = []
        if not self.converged:
            out.append(f"not converged: {optimum.message}")
        for position in self._singular:
            out.append(checks.singular_note(design.terms[position], np.array(self._factors[position])))
        out += frame.messages
        scale = checks.response_note(frame.formula)
        if scale:
            out.append(scale)
        if self._options.sigma is not None:
            out.append(f"the residual SD is held at sigma = {float(self._options.sigma):g}")
        return tuple(out)

    # ------------------------------------------------------------------ values

    def _rows(self, array: np.ndarray, zero_weight: Callable[[], np.ndarray] | None = None) -> np.ndarray:
        """Values of the design's rows at their places among all rows, rows of weight zero included.

        With ``na_action="exclude"`` all rows of the data, NaN where values were missing; else without these.
        """
        frame = self._frame
        if frame.kept is None:
            return array
        zero = frame.zero_weight_rows
        if zero is None and self._options.na_action != "exclude":
            return array
        filling = None if zero is None or zero_weight is None else zero_weight()
        out, used = values.at_all_rows(array, frame.kept, frame.n_rows, zero, filling)
        return out if self._options.na_action == "exclude" else out[used]

    def response(self) -> np.ndarray:
        """The response of the rows that `fitted` and `residuals` return; NaN in rows of weight zero."""
        return self._rows(np.array(self.design.y))

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

    def _linear_predictor(self, re_form: Any = None) -> np.ndarray:
        if re_form is None:
            return self._once("eta", lambda: values.readonly(self._compute_eta(None)))
        return self._compute_eta(re_form)

    def _compute_eta(self, re_form: Any) -> np.ndarray:
        design = self.design
        eta = values.fixed_predictor(design.X, self.beta, design.offset)
        if re_form is None:
            return values.add_random_effects(eta, design, self._b)
        from mixedmodels.fit.predict import select_columns

        for position, columns in select_columns(self, re_form):
            term = design.terms[position]
            eta += values.term_contribution(term.codes, term.Z, self._b[position], columns)
        return eta

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

    def wald(self) -> Any:
        """Wald tests of the fixed effects: ``coefficients(ddf="z")``.

        The reference distribution of the statistics is the standard normal, which is too optimistic with few
        groups.
        """
        return self.coefficients(ddf="z")

    # ------------------------------------------------------------------ other models

    def refit(self, new: Any) -> LMMFit:
        """The same model fitted to another response, or to other data.

        Parameters
        ----------
        new : array of length nobs (or n_rows), or a data frame or dict
            A response for the rows of this fit, or data for the whole model (learnt levels, knots and centres
            are learnt afresh).
        """
        from mixedmodels.fit.solve import refit

        return refit(self, new)

    def refit_ml(self) -> LMMFit:
        """The same model fitted by maximum likelihood; the fit itself if it already is."""
        return self if not self.is_reml else self.update(reml=False)

    def update(self, formula: Any = None, *, data: Any = None, **changes: Any) -> LMMFit:
        """The model with another formula or other options, fitted anew.

        Parameters
        ----------
        formula : str or Formula, optional
            In a text a ``.`` stands for what this fit has there: ``". ~ . + x"``, ``"~ . - (x | g)"``.
        data : optional
            Other data; by default those of this fit. A fit loaded from a file keeps no data: pass them.
        **changes
            Any keyword of `lmm`: ``reml=False``, ``weights="w"``, ``method=...``.
        """
        from mixedmodels.fit.solve import update

        return update(self, formula, data, changes)

    def save(self, path: Any) -> None:
        """Write the fit to a file that `mixedmodels.load` reads; holds numbers and text only, never code.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced.
        """
        from mixedmodels.fit.save import save

        save(self, path)


def _render_varcorr(varcorr: VarCorr, form: str) -> str:
    from mixedmodels.report.variances import render_varcorr

    return render_varcorr(varcorr, form)
