"""Predictions, means and contrasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.solver.threads import answers_on_one_thread

if TYPE_CHECKING:
    from mixedmodels.inference.table import ResultTable

__all__ = ["PredictionQuestions"]


@answers_on_one_thread
class PredictionQuestions:
    """Predicted values and estimated marginal means."""

    __slots__ = ()

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
            for new rows whose residuals are correlated with those of the fit (universal kriging, time
            series). By default predictions are :math:`x_i'\hat\beta + z_i'\hat b`, and an interval is for
            an observation whose residual is independent of those of the data.

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

        Notes
        -----
        Random terms that are functions of position (ar1, car1, ou, exp, gau, mat, sph, ratio of numbers) are
        predicted at positions that the data do not have (kriging): the effect there is
        :math:`R_{no} R_{oo}^{-1} \hat b` of the level, and the variance that the effects of the fit leave,
        :math:`\sigma^2 s^2 (1 - \mathrm{diag}\, R_{no} R_{oo}^{-1} R_{on})`, is part of the standard error.

        References
        ----------
        Henderson (1975), Best linear unbiased estimation and prediction under a selection model,
        Biometrics 31:423-447; Goldberger (1962), J. Amer. Statist. Assoc. 57:369-375 (forecasts); Stein
        (1999), *Interpolation of Spatial Data*, sections 1.2 and 1.5 (kriging).

        Examples
        --------
        >>> import mixedmodels as mm
        >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
        >>> fit.predict({"Days": [0, 9]}, re_form="population").round(2)
        array([251.41, 345.61])
        >>> table = fit.predict({"Days": [0, 9]}, re_form="population", interval="confidence")
        >>> table["conf_low"].round(1).tolist(), table["conf_high"].round(1).tolist()
        ([238.0, 316.9], [264.8, 374.3])

        Between the days of the data, by kriging:

        >>> data = mm.load_dataset("sleepstudy", backend="dict")
        >>> fit = mm.lmm("Reaction ~ Days + ou(Days | Subject)", data)
        >>> fit.predict({"Days": [3.0, 3.5, 4.0], "Subject": ["308"] * 3}).round(1)
        array([316.8, 336.1, 355.5])
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
