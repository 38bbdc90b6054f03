"""What the fits of all models have in common: a frozen object with estimates, likelihood and tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mixedmodels.fit import checks, values
from mixedmodels.fit.questions import Questions
from mixedmodels.fit.varcorr import TermVariance, VarCorr, term_variance, unique_keys
from mixedmodels.solver.threads import is_small, one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm
    from mixedmodels.fit.ranef import TermEffects

__all__ = ["Fit"]


class Fit(Questions):
    """A fitted mixed model; `LMMFit` and `GLMMFit` say which.

    A subclass gives ``objective``, ``beta``, ``vcov``, ``_solution`` (with ``u`` and ``b``), ``df_model``,
    ``_scale`` and ``_compute_messages``, and what depends on the distribution of the response.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_data",
        "_frame",
        "_is_small",
        "_objective",
        "_optimum",
        "_options",
    )

    _frame: Any
    _objective: Any
    _optimum: Any
    _options: Any
    _data: Any
    _cache: dict[str, Any]
    _is_small: bool

    def __init__(self, frame: Any, objective: Any, optimum: Any, options: Any, data: Any = None) -> None:
        put = object.__setattr__
        put(self, "_frame", frame)
        put(self, "_objective", objective)
        put(self, "_optimum", optimum)
        put(self, "_options", options)
        put(self, "_data", data)
        put(self, "_cache", {})
        put(self, "_is_small", is_small(frame.design))

    @property
    def _terms(self) -> tuple[RandomTerm, ...]:
        """Random terms of all linear predictors."""
        return self.design.terms

    @property
    def _random(self) -> Any:
        """What holds `_terms` and their `theta_index`."""
        return self.design

    @property
    def _is_linear(self) -> bool:
        """Whether this is a linear mixed model: sigma, degrees of freedom, REML."""
        raise NotImplementedError

    @property
    def _scale(self) -> float:
        """What the factors are relative to: sigma of a linear model, 1 where they are absolute."""
        raise NotImplementedError

    if TYPE_CHECKING:  # what subclasses provide

        @property
        def _solution(self) -> Any: ...
        @property
        def solver(self) -> Any: ...
        @property
        def beta(self) -> np.ndarray: ...
        @property
        def vcov(self) -> np.ndarray: ...
        @property
        def df_model(self) -> int: ...
        def conditional_covariance(self, term: int = 0) -> np.ndarray: ...

    def _compute_messages(self) -> tuple[str, ...]:
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"a fit is frozen: {name!r} cannot be set; update(), refit() and refit_ml() give new fits"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a fit is frozen: {name!r} cannot be deleted")

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict) -> Any:
        return self

    def __reduce__(self) -> Any:
        from mixedmodels.fit.save import from_bytes, to_bytes

        return from_bytes, (to_bytes(self), self._options.functions)

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The cached value of `name`. Two threads may both compute it; they agree."""
        cache = self._cache
        if name in cache:
            return cache[name]
        if self._is_small:
            return cache.setdefault(name, compute())
        with one_blas_thread():
            return cache.setdefault(name, compute())

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
    def _factors(self) -> list[list[list[float]]]:
        """Factors of the terms (relative to `_scale`) as nested lists."""
        return self._once("factors", lambda: values.relative_factors(self._random, self.theta))

    @property
    def theta(self) -> np.ndarray:
        """Covariance parameters, shape (n_theta,): entries of the relative factors in lme4's order."""
        return self._once("theta", lambda: values.readonly(np.array(self._optimum.theta, dtype=float)))

    @property
    def theta_names(self) -> tuple[str, ...]:
        """Names of the entries of `theta`."""
        return tuple(self._optimum.names)

    @property
    def fixef(self) -> dict[str, float]:
        """Fixed-effects estimates by name (a new dict at each call)."""
        return dict(zip(self.design.x_names, self.beta.tolist(), strict=True))

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
        return VarCorr(self._term_variances(), self._scale, self._native, self._render, self._residual_rows())

    def _residual_rows(self) -> tuple[tuple[str, float], ...]:
        """Names and values of the parameters of a residual structure."""
        return ()

    def _term_variances(self) -> tuple[TermVariance, ...]:
        terms: list[TermVariance] = []
        keys = unique_keys([term.group for term in self._terms])
        for j, (key, term, factor) in enumerate(zip(keys, self._terms, self._factors, strict=True)):
            correlated = term.covariance.clip in ("block", "curved") and len(factor) > 1
            terms.append(term_variance(key, self._term_names(j), factor, self._scale, correlated))
        return tuple(terms)

    def _term_names(self, position: int) -> tuple[str, ...]:
        """Names of a term's columns in tables."""
        return self._terms[position].names

    @staticmethod
    def _render(varcorr: VarCorr, form: str) -> str:
        from mixedmodels.report.variances import render_varcorr

        return render_varcorr(varcorr, form)

    def ranef_arrays(self) -> tuple[TermEffects, ...]:
        """Conditional modes of the random effects as arrays, one `TermEffects` per term."""
        from mixedmodels.fit.ranef import TermEffects

        return self._once(
            "ranef_arrays",
            lambda: tuple(
                TermEffects(term.group, self._term_names(j), term.levels, b)
                for j, (term, b) in enumerate(zip(self._terms, self._b, strict=True))
            ),
        )

    @property
    def _b(self) -> tuple[np.ndarray, ...]:
        """Conditional modes, one read-only (m, k) array per term."""
        return self._once("b", lambda: tuple([values.readonly(b) for b in self._solution.b]))

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
            columns["std_error"] = self._scale * coefficient_sds(self.design, self.solver, self._factors)
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

    @property
    def criterion(self) -> float:
        """-2 times the log-likelihood that was optimised (REML or ML) at the estimates."""
        return float(self._optimum.value)

    @property
    def loglik(self) -> float:
        """Log-likelihood that was optimised, REML or ML."""
        return -0.5 * self.criterion

    @property
    def aic(self) -> float:
        """Akaike's criterion, ``-2 loglik + 2 df_model``."""
        return -2.0 * self.loglik + 2.0 * self.df_model

    @property
    def bic(self) -> float:
        """Bayesian criterion, ``-2 loglik + log(nobs) df_model``."""
        return -2.0 * self.loglik + math.log(self.nobs) * self.df_model

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
        return {term.group: term.m for term in self._terms}

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

    @property
    def _whitened_terms(self) -> tuple[RandomTerm, ...]:
        """The terms in rows of one standard deviation."""
        return self._terms

    def _compute_singular(self) -> tuple[int, ...]:
        pairs = zip(self._whitened_terms, self._factors, strict=True)
        return tuple([j for j, (term, factor) in enumerate(pairs) if checks.is_singular(term, factor)])

    @property
    def messages(self) -> tuple[str, ...]:
        """Facts worth knowing about this fit, one sentence each; printed below the summary."""
        return self._once("messages", self._compute_messages)

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

        for position, columns in select_columns(self, re_form):  # type: ignore[arg-type]
            term = design.terms[position]
            eta += values.term_contribution(*term.parts(design.n), self._b[position], columns)
        return eta

    def wald(self) -> Any:
        """Wald tests of the fixed effects: ``coefficients(ddf="z")``.

        The reference distribution of the statistics is the standard normal, which is too optimistic with few
        groups.
        """
        return self.coefficients(ddf="z")

    def refit(self, new: Any) -> Any:
        """The same model fitted to another response, or to other data.

        Parameters
        ----------
        new : array of length nobs (or n_rows), or a data frame or dict
            A response for the rows of this fit, or data for the whole model (learnt levels, knots and centres
            are learnt afresh).
        """
        from mixedmodels.fit.solve import refit

        return refit(self, new)  # type: ignore[arg-type]

    def update(self, formula: Any = None, *, data: Any = None, **changes: Any) -> Any:
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

        return update(self, formula, data, changes)  # type: ignore[arg-type]

    def save(self, path: Any) -> None:
        """Write the fit to a file that `mixedmodels.load` reads; holds numbers and text only, never code.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced.
        """
        from mixedmodels.fit.save import save

        save(self, path)
