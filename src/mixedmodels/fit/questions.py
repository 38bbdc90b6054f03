"""Everything a fit answers beyond its estimates: each method hands the fit to one function of `inference`
or `report`, imported when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from mixedmodels.inference.table import ResultTable
    from mixedmodels.report.summary import Summary

__all__ = ["Questions"]


class Questions:
    """The methods of a fit that lead to `inference` and `report`.

    The one place where a lower room reaches upwards, always inside a method.
    """

    __slots__ = ()

    _frame: Any

    # ------------------------------------------------------------------ tests of the fixed effects

    def anova(self, type: int | str = 3, ddf: str | float | None = None) -> ResultTable:
        """F tests of the terms of the fixed part.

        Parameters
        ----------
        type : {3, 2, 1, "marginal", "sequential"}
            1 or ``"sequential"``: each term after those before it; 2: each term after all others that do not
            contain it; 3 or ``"marginal"``: each term after all others, in balanced (sum-to-zero) coding.
        ddf : str or float
            ``"satterthwaite"`` (default of linear models), ``"kr"``, ``"containment"``, ``"residual"``,
            ``"z"`` (default of generalised ones) or a number.
        """
        from mixedmodels.inference.fixed.anova import anova

        return anova(self, type, ddf)

    def coefficients(self, ddf: str | float | None = None, level: float = 0.95) -> ResultTable:
        """The fixed effects with standard errors, degrees of freedom, t tests and confidence intervals.

        Parameters
        ----------
        ddf : str or float
            As in `anova`, or ``"auto"``.
        level : float
            Confidence level.
        """
        from mixedmodels.inference.fixed.coefficients import coefficients

        return coefficients(self, ddf, level)

    def test(
        self,
        L: Any,
        rhs: Any = None,
        ddf: str | float | None = None,
        joint: bool = True,
    ) -> ResultTable:
        """Test of linear hypotheses ``L beta = rhs``: jointly by F, or row by row by t (``joint=False``).

        Parameters
        ----------
        L : array, dict from coefficient names to numbers, sequence of them, or text
            Rows of contrasts, ``{"Days": 1}``, or texts such as ``"fB - fC = 0"``.
        """
        from mixedmodels.inference.fixed.contests import test_hypothesis

        return test_hypothesis(self, L, rhs, ddf, joint)

    def small_sample(self) -> ResultTable:
        """Standard errors of fixed and random effects corrected for having estimated the variances."""
        from mixedmodels.inference.ddf.small_sample import small_sample

        return small_sample(self)

    @property
    def history(self) -> ResultTable:
        """The course of the search, one row per step; classical methods show the rejected ones too."""
        from mixedmodels.inference.classical.history import history

        return history(self)

    def drop1(
        self, scope: Any = None, test: str | None = None, ddf: str | float | None = None
    ) -> ResultTable:
        """Each droppable term of the fixed part left out in turn.

        Parameters
        ----------
        scope : str or sequence of str, optional
            Terms to try; by default all that are not contained in another one.
        test : {"f", "lrt", "none"}
            F test at the fitted variances (default), likelihood ratio of refits by ML, or AIC only.
        """
        from mixedmodels.inference.fixed.drop1 import drop1

        return drop1(self, scope, test, ddf)

    def test_fixed(self, variable: Any, method: str = "wald", **options: Any) -> ResultTable:
        """Test of a fixed effect: a variable, a whole factor or an interaction.

        Parameters
        ----------
        variable : str, tuple of str or list
            A term of the formula (``"x"``, ``"f"``, ``"x:f"``), a coefficient, a variable whose terms are all
            meant, or a list of these for a joint test.
        method : {"wald", "lrt", "bootstrap"}
            F test (``ddf=``), likelihood-ratio test, or its parametric bootstrap (``n=``, ``seed=``,
            ``n_jobs=``, ``progress=``).
        """
        from mixedmodels.inference.likelihood.term_tests import test_fixed

        return test_fixed(self, variable, method, **options)

    def test_random(self, term: Any = None, method: str = "lrt", **options: Any) -> ResultTable:
        """Tests of the random terms, each left out in turn, the last one included.

        Parameters
        ----------
        term : str, optional
            ``"(Days | Subject)"``, ``"Days in (Days | Subject)"`` or a group; None tests every term that can
            go, and every effect of a correlated one but its intercept.
        method : {"lrt", "mixture", "rlrt", "bootstrap"}
            Chi-squared (conservative at the boundary), its boundary mixture, the exact restricted
            likelihood-ratio distribution by simulation (one variance), or parametric bootstrap.
        """
        from mixedmodels.inference.likelihood.term_tests import test_random

        return test_random(self, term, method, **options)

    def lod(self, variable: Any) -> ResultTable:
        """LOD score of a fixed effect or a random term: its likelihood-ratio statistic over ``2 ln 10``.

        Parameters
        ----------
        variable : str
            As in `test_fixed` (by ML), or a random term as in `test_random`: ``"(1 | g)"``.
        """
        from mixedmodels.inference.likelihood.lod import lod

        return lod(self, variable)

    # ------------------------------------------------------------------ genetics

    def breeding_values(self, group: str | None = None, column: str | None = None) -> ResultTable:
        """Predictions for all levels of a term, with prediction error variance, reliability and accuracy.

        Parameters
        ----------
        group : str, optional
            Grouping factor; by default the only one with a known covariance between its levels.
        column : str, optional
            Column of a term with several; by default its intercept.
        """
        from mixedmodels.genetics.breeding import breeding_values

        return breeding_values(self, group, column)

    def heritability(
        self, ratio: str | None = None, level: float = 0.95, method: str = "delta", **options: Any
    ) -> ResultTable:
        """A ratio of variances with its standard error and confidence interval.

        Parameters
        ----------
        ratio : str, optional
            An expression of variance components, such as ``"animal / (animal + herd + Residual)"``; by
            default the heritability: the term with a known covariance over all variances.
        level : float
            Confidence level.
        method : {"delta", "profile", "bootstrap"}
            Normal quantiles and the delta method, the profile likelihood of the ratio, or percentiles of
            refits.
        **options
            ``n`` and ``seed`` of the bootstrap; of generalised models ``scale``, "latent" (the liability) or
            "observation" (the response).
        """
        from mixedmodels.genetics.heritability import heritability

        return heritability(self, ratio, level, method, **options)

    # ------------------------------------------------------------------ intervals

    def confint(
        self, method: str = "wald", level: float = 0.95, parameters: Any = None, **options: Any
    ) -> ResultTable:
        """Confidence intervals.

        Parameters
        ----------
        method : {"wald", "satterthwaite", "kr", "profile", "bootstrap"}
            Normal quantiles; t quantiles; profile likelihood (fixed effects, residual SD, standard deviations
            and correlations; ``criterion="reml"`` for the restricted likelihood of the latter three);
            parametric bootstrap (``n=``, ``seed=``, ``kind=`` one of "percentile", "basic", "normal",
            "studentized", "bca", "all").
        level : float
            Confidence level.
        parameters : str or sequence of str, optional
            Only these; by default all the method can do. ``"Days"``, ``"sd_Days|Subject"``,
            ``"cor_Days.(Intercept)|Subject"``, ``"sigma"``; or ``"fixed"``, ``"random"``, ``"sd"``,
            ``"cor"``.
        """
        from mixedmodels.inference.confint import confint

        return confint(self, method, level, parameters, **options)

    def variance_parameters(self, level: float = 0.95) -> ResultTable:
        """Standard deviations, correlations, ranges, ... with standard errors and Wald intervals.

        The errors come by the delta method from the joint (observed) information of the covariance
        parameters and sigma; intervals are computed for logarithms, of correlations for the inverse
        hyperbolic tangent. On the boundary of the parameter space they are NaN.

        Parameters
        ----------
        level : float
        """
        from mixedmodels.inference.variance_wald import variance_parameters

        return variance_parameters(self, level)

    def profile(self, parameters: Any = None, **options: Any) -> Any:
        """Profile likelihood of every parameter: a `Profile` (``confint``, ``zeta``, ``density``, ``pairs``).

        Parameters
        ----------
        parameters : str or sequence of str, optional
            As in `confint`; by default all.
        **options
            ``level``, ``threshold``, ``criterion``, ``points``, ``progress``; see
            `mixedmodels.inference.profile.run.profile`.
        """
        from mixedmodels.inference.profile.run import profile

        return profile(self, parameters, **options)

    def bootstrap(self, n: int = 1000, seed: Any = None, **options: Any) -> Any:
        """Bootstrap of the fit: a `Bootstrap` of draws with ``confint``, ``hdi``, ``to_frame``, ``to_arviz``.

        Parameters
        ----------
        n : int
            Replicates.
        seed : int, optional
            The draws depend on it alone, not on `n_jobs`.
        **options
            ``kind`` ("parametric", "residual", "cluster"), ``statistic``, ``simulator``, ``new_effects``,
            ``groups``, ``n_jobs``, ``progress``, ``resume``, ``backend``; see
            `mixedmodels.inference.bootstrap.run.bootstrap`.
        """
        from mixedmodels.inference.bootstrap.run import bootstrap

        return bootstrap(self, n, seed, **options)

    # ------------------------------------------------------------------ predictions

    def predict(
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
        weights: Any = None,
        ddf: str | float = "z",
        method: str = "analytic",
        n: int = 1000,
        seed: Any = None,
        parameters: Any = None,
        draws: bool = False,
        forecast: bool = False,
    ) -> Any:
        r"""Predicted response of new rows, with standard errors and intervals if asked for.

        .. math:: \hat\eta_i = x_i'\hat\beta + o_i + \sum_{b \in S} z_{ib}'\hat b_b

        over the random terms S that `re_form` names. Standard errors and ``interval="confidence"`` are about
        :math:`\eta_i`, with the joint error of :math:`\hat\beta` and :math:`\hat b` (Henderson); an effect of
        a new level is predicted by its mean 0 and adds its whole variance :math:`\sigma^2 z'\Sigma z`.

        ``interval="prediction"`` is about a new observation :math:`y_i`: its limits are
        :math:`\hat\eta_i \mp q` times the root of :math:`E(y_i - \hat\eta_i)^2`, which adds
        :math:`\sigma^2 / w_i` and the random effects that `re_form` leaves out. Where all terms of a grouping
        factor are left out, the observation is on a level that the fit has not seen and independent of the
        rest: :math:`\sigma^2 z'\Sigma z`. Where only some of its terms or columns are, it is on the level of
        the mean, and the covariance between the effects left out and the errors of those kept counts too.

        The quantile q is normal unless `ddf` says otherwise. The variance parameters count as known, unless
        `parameters` is given: with few levels the limits are somewhat too narrow.

        Parameters
        ----------
        newdata : data frame or dict of arrays, optional
            Needs no response column; None predicts the rows of the fit.
        re_form : None, "population", formula text or sequence of group names
            None: all random effects. ``"population"`` (also ``"NA"``, ``"~0"``, False): none, and the
            grouping columns are not needed. ``"~ (1 | Subject)"`` or ``["Subject"]``: these terms only.
        new_levels : {"error", "population", "missing"}
            What to do with levels of grouping factors that the fit has not seen (or missing ones): refuse,
            predict with random effect 0, or NaN.
        interval : {None, "confidence", "prediction"}
            Adds conf_low and conf_high.
        level : float
            Level of the intervals.
        se : bool
            Adds standard errors without intervals.
        type : {"response", "link"}
            The same thing for a linear model.
        offset : array or column name, optional
            Offset of the new rows, needed if the model was fitted with an array as offset.
        weights : float, array or column name, optional
            Precision weights of the rows in prediction intervals; by default 1 for new rows and those of the
            fit for its own.
        ddf : str or float
            Quantiles: ``"z"``, the default, normal; a number of degrees of freedom; ``"satterthwaite"``,
            ``"kr"`` (with its covariance), ``"residual"``, ``"containment"`` for confidence intervals at the
            population level.
        method : {"analytic", "simulation"}
            Standard errors and limits by the formulae, or from `n` joint draws of
            :math:`(\beta, b)` given the data (flat prior on :math:`\beta`; variance parameters known):
            their standard deviations and quantiles about the same predicted values.
        n, seed : int
            Draws of ``method="simulation"``.
        parameters : Bootstrap, optional
            For ``method="simulation"``: draw r takes theta and sigma from replicate r, so that the limits
            include the uncertainty of the variance parameters.
        draws : bool
            With ``method="simulation"``: keep the draws, shape (rows, n), of the mean or (prediction
            intervals) of new observations in ``.extra["draws"]`` of the table. Rows on one new level share
            its effect within a draw; effects of grouping factors left out are drawn row by row.
        forecast : bool
            Of models with ``residual=``: adds the expected residual given the data, :math:`E(e_i \mid y)`,
            for new rows whose residuals are correlated with those of the fit (kriging, time series). By
            default predictions are :math:`x_i'\hat\beta + z_i'\hat b`, and an interval is for an observation
            whose residual is independent of those of the data.

        Returns
        -------
        ndarray, shape (rows of newdata,), or ResultTable
            Without `se` and `interval` an array. Otherwise a table with columns predicted, std_error (of
            the mean), for prediction intervals prediction_sd, and conf_low, conf_high. NaN where a predictor
            is missing or the value is not estimable (with a `NotEstimableWarning`).

        Raises
        ------
        NewLevelError
            A grouping factor has new levels and ``new_levels="error"``.

        References
        ----------
        Henderson (1975), Best linear unbiased estimation and prediction under a selection model,
        Biometrics 31:423-447.

        Examples
        --------
        >>> import mixedmodels as mm
        >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
        >>> fit.predict({"Days": [0, 9]}, re_form="population").round(2)
        array([251.41, 345.61])
        >>> table = fit.predict({"Days": [0, 9]}, re_form="population", interval="confidence")
        >>> table["conf_low"].round(1).tolist(), table["conf_high"].round(1).tolist()
        ([238.0, 316.9], [264.8, 374.3])
        """
        from mixedmodels.inference.prediction.predict import predict

        return predict(
            self,
            newdata,
            re_form,
            new_levels,
            offset,
            interval=interval,
            level=level,
            se=se,
            type=type,
            weights=weights,
            ddf=ddf,
            method=method,
            n=n,
            seed=seed,
            parameters=parameters,
            draws=draws,
            forecast=forecast,
        )

    # ------------------------------------------------------------------ means and contrasts

    def emmeans(self, specs: Any, **options: Any) -> Any:
        """Estimated marginal means: see `mixedmodels.inference.means.emmeans.emmeans`."""
        from mixedmodels.inference.means.emmeans import emmeans

        return emmeans(self, specs, **options)

    def emtrends(self, specs: Any, var: str, **options: Any) -> Any:
        """Estimated marginal slopes of `var`: see `mixedmodels.inference.means.emmeans.emtrends`."""
        from mixedmodels.inference.means.emmeans import emtrends

        return emtrends(self, specs, var, **options)

    def contrast(self, specs: Any, method: Any = "pairwise", **options: Any) -> Any:
        """Contrasts of estimated marginal means: ``fit.emmeans(specs).contrast(method)``."""
        from mixedmodels.inference.means.emmeans import emmeans

        keys = (
            "adjust", "level", "by", "interaction", "simple", "name", "ratios",
            "ref", "reverse", "scores", "max_degree",
        )  # fmt: skip
        own = {key: options.pop(key) for key in keys if key in options}
        return emmeans(self, specs, **options).contrast(method, **own)

    def joint_tests(self, by: Any = None, **options: Any) -> ResultTable:
        """F tests of all terms: see `mixedmodels.inference.means.emmeans.joint_tests`."""
        from mixedmodels.inference.means.emmeans import joint_tests

        return joint_tests(self, by, **options)

    # ------------------------------------------------------------------ checks

    def diagnose(self) -> Any:
        """Convergence, singularity, scaling, collinearity and identifiability, in words and numbers."""
        from mixedmodels.inference.checks.diagnose import diagnose

        return diagnose(self)

    def influence(self, group: Any = None, refit: bool = False, progress: Any = "auto") -> ResultTable:
        """What leaving out each row, or each level of `group`, does to the estimates.

        DFBETA(S), Cook's distance, MDFFITS, COVRATIO, COVTRACE, sigma; exact at fixed variance ratios.

        Parameters
        ----------
        group : str, array or list of str, optional
            A grouping factor, a column of the data, one label per row, or several of these names; None leaves
            out single rows.
        refit : bool
            Estimate the variances anew without each of them.
        progress : "auto", True, False or callable
            Of the refits.
        """
        from mixedmodels.inference.checks.influence import influence

        return influence(self, group, refit, progress)

    def leverage(self) -> np.ndarray:
        """Diagonal of the hat matrix of the conditional fit; its sum is the effective degrees of freedom."""
        from mixedmodels.inference.checks.leverage import leverage

        return leverage(self)

    def cooks_distance(self, group: Any = None) -> np.ndarray:
        """Cook's distances: of rows on all fitted values, or of levels of `group` on the fixed effects."""
        from mixedmodels.inference.checks.influence import cooks_distance

        return cooks_distance(self, group)

    def _leverage_residuals(self, kind: str) -> np.ndarray:
        from mixedmodels.inference.checks.influence import standardized, studentized

        return standardized(self) if kind == "standardized" else studentized(self)

    def icc(self, scale: str = "latent", method: str | None = None) -> ResultTable:
        """Intraclass correlations: adjusted, unadjusted and per group.

        Parameters
        ----------
        scale : {"latent", "observation"}
            Of generalised models: the linear predictor, or the response itself.
        method : {"theoretical", "lognormal", "delta", "trigamma"}, optional
            Of generalised models: the variance of single observations on the latent scale; see
            `mixedmodels.inference.checks.latent_variance`.
        """
        from mixedmodels.inference.checks.icc import icc

        return icc(self, scale, method)

    def r2(self, scale: str = "latent", method: str | None = None) -> ResultTable:
        """Marginal and conditional R-squared (Nakagawa) with the variances they are made of.

        Parameters
        ----------
        scale, method
            As for `icc`.
        """
        from mixedmodels.inference.checks.icc import r2

        return r2(self, scale, method)

    def variance_parts(self, scale: str = "latent", method: str | None = None) -> ResultTable:
        """The variance of the response in parts: fixed effects, each random term, residual, and shares.

        Parameters
        ----------
        scale, method
            As for `icc`.
        """
        from mixedmodels.inference.checks.variance_parts import variance_parts

        return variance_parts(self, scale, method)

    def repca(self, scale: bool = False) -> ResultTable:
        """Principal components of the random effects of each group.

        Parameters
        ----------
        scale : bool
            Components of the correlations instead of the covariances.
        """
        from mixedmodels.inference.checks.repca import repca

        return repca(self, scale)

    def vif(self) -> ResultTable:
        """Generalised variance inflation factors of the terms of the fixed part."""
        from mixedmodels.inference.checks.diagnose import vif

        return vif(self)

    def simulated_residuals(self, n: int = 250, seed: Any = None, **options: Any) -> Any:
        """Scaled simulation residuals (uniform if the model holds) with tests.

        Parameters
        ----------
        n : int
            Simulated responses.
        seed : int, optional
        **options
            ``new_effects``, ``integer``, ``simulations``; see
            `mixedmodels.inference.checks.simulated_residuals.simulated_residuals`.
        """
        from mixedmodels.inference.checks.simulated_residuals import simulated_residuals

        return simulated_residuals(self, n, seed, **options)

    def check_overdispersion(self, n: int = 250, seed: Any = None) -> ResultTable:
        """Whether the response varies more than the family says, by Pearson residuals and by simulation.

        Parameters
        ----------
        n : int
            Simulated responses.
        seed : int, optional
        """
        from mixedmodels.inference.checks.overdispersion import check_overdispersion

        return check_overdispersion(self, n, seed)

    def check_zero_inflation(self, n: int = 250, seed: Any = None) -> ResultTable:
        """Whether a response of counts has more (or fewer) zeros than the model expects.

        Parameters
        ----------
        n : int
            Simulated responses.
        seed : int, optional
        """
        from mixedmodels.inference.checks.overdispersion import check_zero_inflation

        return check_zero_inflation(self, n, seed)

    def acf(self, lags: int | None = None, **options: Any) -> ResultTable:
        """Autocorrelations of the residuals within groups, to choose or check a residual structure.

        Parameters
        ----------
        lags : int, optional
            Largest lag, in rows.
        **options
            ``kind`` ("pearson", "normalized", ...), ``group``, ``order``, ``level``; see
            `mixedmodels.inference.checks.autocorrelation.acf`.
        """
        from mixedmodels.inference.checks.autocorrelation import acf

        return acf(self, lags, **options)  # type: ignore[arg-type]

    def variogram(self, distance: Any = None, **options: Any) -> ResultTable:
        """Semivariogram of the residuals within groups, to choose or check a residual structure.

        Parameters
        ----------
        distance : str, array or list of str, optional
            Columns of times or coordinates; by default those of the residual structure.
        **options
            ``kind``, ``group``, ``bins``, ``breaks``, ``max_distance``, ``robust``; see
            `mixedmodels.inference.checks.autocorrelation.variogram`.
        """
        from mixedmodels.inference.checks.autocorrelation import variogram

        return variogram(self, distance, **options)  # type: ignore[arg-type]

    def allfit(self, methods: Any = None) -> ResultTable:
        """The model fitted by every optimiser, and how far their answers are apart.

        Parameters
        ----------
        methods : str or sequence of str, optional
            Some of `mixedmodels.optimize.METHODS`; by default all.
        """
        from mixedmodels.inference.checks.allfit import allfit

        return allfit(self, methods)

    def robust_vcov(self, kind: str | None = None, cluster: Any = None, level: float = 0.95) -> Any:
        """Cluster-robust covariance of the fixed effects with t tests: ``.vcov`` and ``.table``.

        Parameters
        ----------
        kind : {"CR2", "CR0", "CR1", "CR1S", "CR3"}, optional
            By default CR2, of generalised models CR1 (from the scores of the clusters).
        cluster : str or array, optional
            A grouping factor, a column of the data, or one label per row; by default the outermost group.
        level : float
            Of the confidence intervals.
        """
        from mixedmodels.inference.checks.robust import robust_vcov

        return robust_vcov(self, kind, cluster, level)

    # ------------------------------------------------------------------ presentation

    @property
    def _native(self) -> Callable[[dict[str, Any]], Any]:
        """Turns columns into a frame of the caller's library; a partial, so that no cycle holds the fit."""
        return partial(_to_native, self._frame.backend)

    @property
    def plot(self) -> Any:
        """Plots by kind: ``fit.plot.residuals()``, ``fit.plot.caterpillar(ax=ax)``, ...; needs matplotlib."""
        from mixedmodels.report.plots import FitPlots

        return FitPlots(self)

    def summary(self, correlation: bool | None = None, ddf: str | float = "auto") -> Summary:
        """The summary as a frozen object that prints and renders to HTML, LaTeX and Markdown.

        Parameters
        ----------
        correlation : bool, optional
            Show the correlations of the fixed effects; by default for 2 to 12 coefficients.
        ddf : str or float
            Degrees of freedom of the t tests: ``"satterthwaite"``, ``"kr"``, ``"containment"``,
            ``"residual"``, ``"z"`` or a number. ``"auto"`` is Satterthwaite, in large models with crossed
            factors from the average information, which a note then says.
        """
        from mixedmodels.report.summary import summarize

        return summarize(self, correlation, ddf)

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary().to_html()

    def report(self, path: Any, **options: Any) -> None:
        """Write one self-contained HTML page: model, tables, plots, diagnostics and messages in words."""
        from mixedmodels.report.page import write_report

        write_report(self, path, **options)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        conf_int: bool = False,
        level: float = 0.95,
        ddf: str | float = "auto",
        conf_method: str = "wald",
        **options: Any,
    ) -> Any:
        """Estimates as a table.

        Columns effect, group, term, estimate, std_error, statistic, df, p_value[, conf_low, conf_high].

        Parameters
        ----------
        effects : str or sequence of str
            Any of ``"fixed"``, ``"ran_pars"``, ``"ran_vals"``, ``"ran_coefs"``.
        conf_int : bool
            Adds conf_low and conf_high.
        level : float
            Confidence level.
        ddf : str or float
            Degrees of freedom of the fixed effects, as in `summary`.
        conf_method : {"wald", "profile", "bootstrap"}
            Where the limits of ``fixed`` and ``ran_pars`` come from; Wald limits use `ddf` and leave
            ``ran_pars`` without limits. Those of ``ran_vals`` and ``ran_coefs`` are always normal ones.
        **options
            For the profile or the bootstrap, as in `confint`: ``n=``, ``seed=``, ``kind=``, ...
        """
        from mixedmodels.report.tidy import tidy_columns
        from mixedmodels.report.tidy_limits import check_conf_method, put_limits

        method = check_conf_method(conf_method, options)
        columns = tidy_columns(self, effects, conf_int, level, ddf)
        if conf_int and method != "wald":
            put_limits(self, columns, method, level, options)
        return self._native(columns)

    def glance(self) -> Any:
        """One row about the model: nobs, sigma, loglik, criterion, deviance, aic, bic, aicc, df_model, ..."""
        from mixedmodels.report.tidy import glance_columns

        return self._native(glance_columns(self))

    def augment(self) -> Any:
        """Row by row: response, fitted values (all effects and fixed only), residuals.

        One row per observation of the fit, or per row of the data with ``na_action="exclude"``.
        """
        from mixedmodels.report.tidy import augment_columns

        return self._native(augment_columns(self))

    # ------------------------------------------------------------------ what maketables asks for

    @property
    def __maketables_coef_table__(self) -> Any:
        from mixedmodels.report.maketables import coefficient_table

        return coefficient_table(self)

    def __maketables_stat__(self, key: str) -> Any:
        from mixedmodels.report.maketables import stat

        return stat(self, key)

    @property
    def __maketables_depvar__(self) -> str:
        from mixedmodels.report.maketables import response_name

        return response_name(self)

    @property
    def __maketables_fixef_string__(self) -> None:
        """No absorbed fixed effects."""
        return None

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        from mixedmodels.report.maketables import vcov_info

        return vcov_info(self)

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        from mixedmodels.report.maketables import stat_labels

        return stat_labels(self)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        from mixedmodels.report.maketables import default_stats

        return default_stats(self)


def _to_native(backend: str, columns: Mapping[str, Any]) -> Any:
    from mixedmodels.report.tidy import to_native

    return to_native(dict(columns), backend)
