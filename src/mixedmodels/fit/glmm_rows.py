"""What a generalised fit says of each row: linear predictors, fitted values, residuals, working response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit import glmm_values, values
from mixedmodels.fit.glmm_estimates import GLMMEstimates
from mixedmodels.fit.glmm_residuals import glmm_residuals, response_of

if TYPE_CHECKING:
    from mixedmodels.fit.predict import Selection

__all__ = ["GLMMRows"]


class GLMMRows(GLMMEstimates):
    """Values of `mixedmodels.fit.glmm_result.GLMMFit` by row, at the conditional modes or the mean."""

    __slots__ = ()

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
