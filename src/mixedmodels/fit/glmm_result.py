"""A fitted generalised linear mixed model: likelihood, random effects, draws and other models.

Estimates are in `glmm_estimates`, values by row in `glmm_rows`, questions in `questions.generalised`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit import glmm_values
from mixedmodels.fit.glmm_residuals import glmm_residuals
from mixedmodels.fit.glmm_rows import GLMMRows
from mixedmodels.fit.questions.generalised import GLMMQuestions

if TYPE_CHECKING:
    from mixedmodels.fit.pql import PQL

__all__ = ["GLMMFit"]


class GLMMFit(GLMMQuestions, GLMMRows):
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
