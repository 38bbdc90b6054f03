"""A fit as text, HTML, plots and tidy tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mixedmodels.solver.threads import answers_on_one_thread

if TYPE_CHECKING:
    from mixedmodels.report.summary import Summary

__all__ = ["PresentationQuestions"]


@answers_on_one_thread
class PresentationQuestions:
    """How a fit shows itself."""

    __slots__ = ()

    _frame: Any

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
