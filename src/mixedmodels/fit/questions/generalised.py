"""What a generalised fit answers in its own way: each method hands the fit to `inference` or `report`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixedmodels.fit.questions import Questions
from mixedmodels.solver.threads import answers_on_one_thread

if TYPE_CHECKING:
    from mixedmodels.inference.table import ResultTable
    from mixedmodels.report.summary import Summary

__all__ = ["GLMMQuestions"]


@answers_on_one_thread
class GLMMQuestions(Questions):
    """The methods of a generalised fit whose arguments differ from those of a linear one."""

    __slots__ = ()

    def coefficients(
        self, ddf: str | float | None = None, level: float = 0.95, component: str | None = None
    ) -> ResultTable:
        """Coefficients with standard errors, z tests and confidence intervals.

        Parameters
        ----------
        ddf : "z" or a number
            Normal distribution (default), or t with this many degrees of freedom.
        level : float
            Confidence level.
        component : str, optional
            ``"conditional"``, ``"zero_inflation"``, ``"dispersion"`` or a parameter of the family; by default
            all components with a formula; ``"all"`` adds the constants of the family (on the scale of their
            linear predictors, without a test).
        """
        from mixedmodels.inference.fixed.glmm_coefficients import coefficients

        return coefficients(self, ddf, level, component)

    def anova(
        self, type: int | str = 3, ddf: str | float | None = None, component: str | None = None
    ) -> ResultTable:
        r"""Wald chi-squared tests of the terms of the fixed part.

        .. math:: W = (L\hat\gamma)'(L V L')^{-1} L\hat\gamma \sim \chi^2_r

        with V the covariance of the coefficients, the uncertainty about all other parameters included.

        Parameters
        ----------
        type : {3, 2, 1, "marginal", "sequential"}
            1 or ``"sequential"``: each term after those before it; 2: each term after all others that do not
            contain it; 3 or ``"marginal"``: each term after all others, in balanced (sum-to-zero) coding.
        ddf : "z" or a number
            A number of denominator degrees of freedom makes F tests of them.
        component : {"conditional", "zero_inflation", "dispersion"}, optional
            Whose terms are tested.

        Returns
        -------
        ResultTable
            term, statistic, df, p_value; with a number as `ddf` term, num_df, den_df, statistic, p_value.

        Examples
        --------
        >>> import mixedmodels as mm
        >>> data = mm.load_dataset("cbpp", backend="dict")
        >>> fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
        >>> fit.anova()["statistic"].round(3).tolist(), fit.anova()["df"].tolist()
        ([24.949], [3.0])
        """
        from mixedmodels.inference.fixed.anova import anova

        return anova(self, type, ddf, component)  # type: ignore[arg-type]

    def test(
        self,
        L: Any,
        rhs: Any = None,
        ddf: str | float | None = None,
        joint: bool = True,
        component: str | None = None,
    ) -> ResultTable:
        """Test of linear hypotheses ``L gamma = rhs``: jointly by chi-squared, or row by row by z.

        Parameters
        ----------
        L : array, dict from coefficient names to numbers, sequence of them, or text
            Rows of contrasts, ``{"x": 1}``, or texts such as ``"fB - fC = 0"``; names without the prefix of
            the component.
        rhs : number or sequence of numbers, optional
        ddf : "z" or a number
            A number of denominator degrees of freedom makes F and t tests of them.
        joint : bool
            All rows at once, or row by row.
        component : {"conditional", "zero_inflation", "dispersion"}, optional
            Whose coefficients these are.
        """
        from mixedmodels.inference.fixed.contests import test_hypothesis

        return test_hypothesis(self, L, rhs, ddf, joint, component)  # type: ignore[arg-type]

    def drop1(
        self,
        scope: Any = None,
        test: str | None = None,
        ddf: str | float | None = None,
        component: str | None = None,
    ) -> ResultTable:
        """Each droppable term of the fixed part left out in turn.

        Parameters
        ----------
        scope : str or sequence of str, optional
            Terms to try; by default all that are not contained in another one.
        test : {"lrt", "wald", "none"}
            Likelihood ratio of refits (default), Wald chi-squared, or AIC only.
        ddf : "z" or a number
            Of the Wald tests.
        component : {"conditional", "zero_inflation", "dispersion"}, optional
            Whose terms are left out.
        """
        from mixedmodels.inference.fixed.drop1 import drop1

        return drop1(self, scope, test, ddf, component)  # type: ignore[arg-type]

    def lod(self, variable: Any, component: str | None = None) -> ResultTable:
        """LOD score of a fixed effect: its likelihood-ratio statistic over ``2 ln 10``.

        Parameters
        ----------
        variable : str
            As in `test_fixed`.
        component : {"conditional", "zero_inflation", "dispersion"}, optional
            Whose effect it is.
        """
        from mixedmodels.inference.likelihood.lod import lod

        return lod(self, variable, component)  # type: ignore[arg-type]

    def predict(  # type: ignore[override]
        self,
        newdata: Any = None,
        re_form: Any = None,
        new_levels: str = "error",
        interval: str | None = None,
        level: float = 0.95,
        se: bool = False,
        type: str = "response",
        offset: Any = None,
        *,
        ddf: str | float = "z",
        trials: Any = None,
        method: str = "analytic",
        n: int = 1000,
        seed: Any = None,
        parameters: Any = None,
        draws: bool = False,
    ) -> Any:
        r"""Predictions of new rows, or of those of the fit, with standard errors and limits if asked for.

        .. math:: \hat\eta_i = x_i'\hat\gamma + o_i + z_i'\hat b, \qquad
                  Var(\hat\eta_i - \eta_i) = z_i'\,Var(b \mid y, \hat\psi)\,z_i + J_i V J_i'

        with V the covariance of all parameters and :math:`J_i` the derivative of :math:`\hat\eta_i` by them
        with the conditional modes following: the inverse of the joint precision of parameters and random
        effects. An effect of a new level is predicted by 0 and adds :math:`z'\Sigma z`.

        Parameters
        ----------
        newdata : data frame or dict of arrays, optional
            Needs no response column; None predicts the rows of the fit.
        re_form : None, "population", formula text or sequence of group names
            None: all random effects. ``"population"``: none, and the grouping columns are not needed: the
            prediction for a level with random effects 0, not the average over levels. ``"~ (1 | g)"`` or
            ``["g"]``: these terms only.
        new_levels : {"error", "population", "missing"}
            What to do with levels of grouping factors that the fit has not seen (or missing ones): refuse,
            predict with random effect 0, or NaN.
        interval : {None, "confidence", "prediction"}
            Adds conf_low and conf_high: of what `type` says, or of a new response. Confidence limits are
            those of the linear predictor transformed; where several linear predictors take part (the mean of
            a mixture with zeros) they are symmetric for the log of the mean (the logit of a proportion).
            Prediction limits are quantiles of :math:`\int F(y \mid \eta)\,N(\eta; \hat\eta, S)\,d\eta`:
            whole numbers for counts, proportions of the trials for binomial families. A response has the
            random effects that `re_form` leaves out: those of a level it shares with the mean, or of a new
            level.
        level : float
            Level of the limits.
        se : bool
            Adds standard errors without limits: of what `type` says, by the delta method.
        type : {"response", "link", "conditional", "zero_probability", "dispersion", "prob", ...}
            The mean of the response (a proportion for binomial families; with zero inflation that of the
            mixture); the linear predictor :math:`\eta` of the conditional model; the mean of the conditional
            model; the probability of an extra zero; the dispersion parameter in natural units. Of ordered
            categories: the expected number of the category (1, ..., K) as "response"; with "prob" and
            "cumprob" the probabilities of all categories and cumulative ones, shape (rows, K); with "class"
            the label of the likeliest category.
        offset : array or column name, optional
            Offset of the new rows, needed if the model was fitted with an array as offset.
        ddf : "z" or a number
            Quantiles of confidence limits: normal, or t with this many degrees of freedom.
        trials : int, array or column name, optional
            Trials of new rows in prediction limits; by default the column given to `glmm`.
        method : {"analytic", "simulation"}
            By formulae, or from `n` joint draws of parameters and random effects (Gaussian approximation at
            the mode) and, for prediction limits, of a response for each.
        n, seed : int
            Draws of ``method="simulation"``.
        parameters : Bootstrap, optional
            For ``method="simulation"``: draw r takes all parameters from replicate r.
        draws : bool
            With ``method="simulation"``: keep the draws, shape (rows, n), in ``.extra["draws"]``. Rows on one
            new level share its effect within a draw.

        Returns
        -------
        ndarray, shape (rows,), or ResultTable
            Without `se` and `interval` an array. Otherwise a table with columns predicted, std_error, for
            prediction limits prediction_sd, and conf_low, conf_high. NaN where a predictor is missing or the
            value is not estimable (with a `NotEstimableWarning`).

        Raises
        ------
        NewLevelError
            A grouping factor has new levels and ``new_levels="error"``.

        References
        ----------
        Kass & Steffey (1989), Approximate Bayesian inference in conditionally independent hierarchical
        models, JASA 84:717-726.

        Examples
        --------
        >>> import mixedmodels as mm
        >>> data = mm.load_dataset("cbpp", backend="dict")
        >>> fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
        >>> fit.predict({"period": ["1", "2"]}, re_form="population").round(4)
        array([0.198 , 0.0839])
        >>> rows = {"period": ["1", "2"], "herd": ["1", "1"]}
        >>> table = fit.predict(rows, interval="confidence")
        >>> table["conf_low"].round(3).tolist(), table["conf_high"].round(3).tolist()
        ([0.175, 0.066], [0.483, 0.277])
        >>> table = fit.predict(rows, interval="prediction", trials=10)
        >>> table["conf_low"].round(1).tolist(), table["conf_high"].round(1).tolist()
        ([0.0, 0.0], [0.7, 0.4])
        """
        from mixedmodels.inference.prediction.glmm_predict import predict

        return predict(
            self,
            newdata,
            re_form,
            new_levels,
            type,
            offset,
            se=se,
            interval=interval,
            level=level,
            ddf=ddf,
            trials=trials,
            method=method,
            n=n,
            seed=seed,
            parameters=parameters,
            draws=draws,
        )

    def predict_marginal(self, newdata: Any = None, offset: Any = None, level: float = 0.95) -> ResultTable:
        r"""Population-averaged means: the random effects integrated out, with standard errors and limits.

        .. math:: \bar m = E_b\, m(x'\gamma + o + z'b), \qquad z'b \sim N(0, z'\Sigma z)

        in closed form for identity, log, probit and square-root links, else by quadrature to rounding; with
        zero inflation the mean of the mixture. Standard errors by the delta method in all parameters, limits
        on the scale of the link where the mean has one.

        Parameters
        ----------
        newdata : data frame or dict of arrays, optional
            Needs neither response nor grouping factors; None takes the rows of the fit.
        offset : array or column name, optional
            Offset of the new rows, needed if the model was fitted with an array as offset.
        level : float
            Confidence level.

        Returns
        -------
        ResultTable
            predicted, std_error, conf_low, conf_high.

        Raises
        ------
        OptionError
            The average does not exist: links inverse and 1/mu^2.

        Examples
        --------
        >>> import mixedmodels as mm
        >>> data = mm.load_dataset("cbpp", backend="dict")
        >>> fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
        >>> fit.predict_marginal({"period": ["1", "2"]})["predicted"].round(4)
        array([0.2161, 0.097 ])
        """
        from mixedmodels.inference.population.marginal import marginal_means_over_effects

        return marginal_means_over_effects(self, newdata, offset, level)  # type: ignore[arg-type]

    def marginal_coefficients(self, level: float = 0.95, ddf: str | float = "z") -> ResultTable:
        r"""Population-averaged coefficients of the conditional predictor.

        .. math:: \hat\beta^M = (X'WX)^{-1}X'W\,(g(\bar m) - o), \qquad
                  \bar m_i = E_b\, g^{-1}(x_i'\hat\beta + o_i + z_i'b)

        the least-squares projection of the link of the averaged means on X, with the number of observations
        behind each row (trials, frequencies) as weights W. With a random intercept of variance
        :math:`s^2` it is :math:`\beta/\sqrt{1 + s^2}` for the probit link; for the log link
        :math:`s^2/2` is added to the intercept. Standard errors by the delta method in all parameters.

        Parameters
        ----------
        level : float
            Confidence level.
        ddf : "z" or a number
            Normal distribution (default), or t with this many degrees of freedom.

        Returns
        -------
        ResultTable
            term, estimate, std_error, df, statistic, p_value, conf_low, conf_high, conditional (the
            coefficient at given random effects); ``extra["vcov"]``.

        References
        ----------
        Hedeker, du Toit, Demirtas & Gibbons (2018), A note on marginalization of regression parameters from
        mixed models of binary outcomes, Biometrics 74:354-361.

        Examples
        --------
        >>> import mixedmodels as mm
        >>> data = mm.load_dataset("cbpp", backend="dict")
        >>> fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
        >>> fit.marginal_coefficients()["estimate"].round(3).tolist()
        [-1.289, -0.942, -1.073, -1.512]
        """
        from mixedmodels.inference.population.marginal import marginal_coefficients

        return marginal_coefficients(self, level, ddf)  # type: ignore[arg-type]

    def summary(self, correlation: bool | None = None, ddf: str | float = "z") -> Summary:
        """The summary as a frozen object that prints and renders to HTML, LaTeX and Markdown.

        Parameters
        ----------
        correlation : bool, optional
            Show the correlations of the fixed effects; by default for 2 to 12 coefficients.
        ddf : "z" or a number
            Normal distribution (default), or t with this many degrees of freedom.
        """
        from mixedmodels.report.glmm_summary import summarize_glmm

        return summarize_glmm(self, correlation, ddf)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        conf_int: bool = False,
        level: float = 0.95,
        ddf: str | float = "z",
        conf_method: str = "wald",
        exponentiate: bool = False,
        **options: Any,
    ) -> Any:
        """Estimates as a table.

        Columns effect, component, group, term, estimate, std_error, statistic, df, p_value[, conf_low,
        conf_high].

        Parameters
        ----------
        effects : str or sequence of str
            Any of ``"fixed"`` (coefficients of all components), ``"ran_pars"``, ``"ran_vals"``,
            ``"ran_coefs"``.
        conf_int : bool
            Adds conf_low and conf_high.
        level : float
            Confidence level.
        ddf : "z" or a number
            As in `coefficients`.
        conf_method : {"wald", "profile", "bootstrap"}
            Where the limits come from, as for linear models.
        exponentiate : bool
            Odds ratios, rate ratios, ... instead of coefficients of logit and log models: estimates and
            limits are exponentials, standard errors follow by the delta method, tests stay.
        **options
            For the profile or the bootstrap, as in `confint`.
        """
        from mixedmodels.report.glmm_tidy import exponentiated, tidy_columns
        from mixedmodels.report.tidy_limits import check_conf_method, put_limits

        method = check_conf_method(conf_method, options)
        columns = tidy_columns(self, effects, conf_int, level, ddf)
        if conf_int and method != "wald":
            put_limits(self, columns, method, level, options)
        if exponentiate:
            exponentiated(self, columns)
        return self._native(columns)

    def glance(self) -> Any:
        """One row about the model: nobs, family, link, nagq, dispersion, loglik, deviance, aic, bic, ..."""
        from mixedmodels.report.glmm_tidy import glance_columns

        return self._native(glance_columns(self))

    def augment(self) -> Any:
        """Row by row: response, fitted means (all effects and none), linear predictor, residuals.

        One row per observation of the fit, or per row of the data with ``na_action="exclude"``.
        """
        from mixedmodels.report.glmm_tidy import augment_columns

        return self._native(augment_columns(self))
