"""``fit.plot``: one method per kind of plot, axes in and axes out, and the numbers behind each as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.errors import OptionError
from mixedmodels.inference.checks import count_plot_data, plot_data
from mixedmodels.report.plots import (
    correlations,
    counts,
    influential,
    profiles,
    random_effects,
    residuals,
    results,
)

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["KINDS", "FitPlots"]

KINDS = (
    "residuals",
    "qq",
    "scale_location",
    "acf",
    "variogram",
    "ranef_qq",
    "caterpillar",
    "shrinkage",
    "influence",
    "binned",
    "rootogram",
    "profile",
    "profile_density",
    "profile_pairs",
    "bootstrap",
    "means",
    "effects",
    "simulated_residuals",
)


class FitPlots:
    """Plots of one fit.

    Every method takes ``ax=`` (or ``axes=`` where there are several panels) and returns what it drew on;
    without one it makes a figure. ``data(kind)`` gives the numbers of a plot as a tidy table.

    Parameters
    ----------
    fit : LMMFit
    """

    __slots__ = ("_fit",)

    def __init__(self, fit: LMMFit) -> None:
        self._fit = fit

    def __repr__(self) -> str:
        return f"plots of a fit: {', '.join(KINDS)}; data(kind) gives the numbers"

    def data(self, plot: str, /, *answer: Any, **options: Any) -> Any:
        """The numbers behind a plot, in the data-frame library of the fit's data.

        Parameters
        ----------
        plot : str
            The name of a plot method.
        *answer
            What the method takes first: a profile, a bootstrap, means, a predictor, simulated residuals.
        **options
            As the method's, such as ``group=`` or ``level=``.
        """
        if plot not in KINDS:
            raise OptionError(f"there is no plot {plot!r}; available: {', '.join(KINDS)}")
        if plot in _ANSWERS:
            return self._answer_frame(plot, *answer, **options)
        if answer:
            raise OptionError(f"data({plot!r}) takes its options by name, such as group= or level=")
        return self._fit._native(self._columns(plot, **options))

    def _answer_frame(
        self, plot: str, answer: Any = None, parameters: Any = None, profile: Any = None, **options: Any
    ) -> Any:
        """The numbers behind the plot of an answer, which is computed if it is not given."""
        if plot in ("profile", "profile_density", "profile_pairs"):
            found = self._profile(profile if answer is None else answer, parameters)
            if plot == "profile_pairs":
                return found.pairs(parameters, **options)
            curves = plot_data.profile_curves(found, parameters)
            return self._fit._native(plot_data.profile_data(curves, **options))
        if plot == "bootstrap":
            if answer is None:
                raise OptionError("the numbers of the bootstrap plot: data('bootstrap', fit.bootstrap(...))")
            return answer.to_frame(**options)
        if plot == "effects":
            if answer is None:
                raise OptionError("the numbers of an effects plot: data('effects', 'x') with a predictor")
            return self._effects(answer, **options).to_frame()
        if plot == "means":
            if answer is None:
                raise OptionError("the numbers of a plot of means: data('means', 'f') with a predictor")
            return self._means(answer, options).to_frame()
        return (self._fit.simulated_residuals(**options) if answer is None else answer).to_frame()

    def _columns(self, name: str, /, **options: Any) -> dict[str, Any]:
        fit = self._fit
        if name == "qq":
            return plot_data.qq_data(plot_data.standard_residuals(fit), **options)
        if name in ("binned", "rootogram"):
            return getattr(count_plot_data, f"{name}_data")(fit, **options)
        if name in ("acf", "variogram"):
            return dict(getattr(fit, name)(**options).columns)
        if name == "influence":
            return dict(fit.influence(**options).columns)
        return getattr(plot_data, f"{_SOURCES.get(name, name)}_data")(fit, **options)

    def residuals(self, ax: Any = None, kind: str | None = None) -> Any:
        """Residuals against fitted values: no trend and an even spread are what the model assumes.

        Parameters
        ----------
        kind : str, optional
            By default response residuals; of generalised models quantile residuals, which are standard
            normal if the model holds, against linear predictors.
        """
        kind = plot_data.residual_kind(self._fit, kind)
        return residuals.plot_residuals(
            self._columns("residuals", kind=kind),
            ax,
            ylabel=f"{kind} residual" if kind != "response" else "",
            xlabel=self._fitted_label(),
        )

    @property
    def _scaled(self) -> str:
        return "scaled" if self._fit.design.residual is None else "normalized"

    def _fitted_label(self) -> str:
        return "fitted" if self._fit._is_linear else "linear predictor"

    def binned(self, ax: Any = None, bins: int | None = None) -> Any:
        """Mean residuals of rows with similar fitted values, with two standard errors of the model.

        For binary responses, whose single residuals show nothing: about 95 % of the points should lie within
        the band.
        """
        return counts.plot_binned(self._columns("binned", bins=bins), ax)

    def rootogram(self, ax: Any = None, most: int = 60) -> Any:
        """Frequencies of counts against those the model expects, as square roots, hanging from the latter.

        Bars that end below zero are counts that occur more often than the model expects.

        Parameters
        ----------
        most : int
            Larger counts are drawn together.
        """
        return counts.plot_rootogram(self._columns("rootogram", most=most), ax)

    def qq(self, ax: Any = None, level: float = 0.95) -> Any:
        """Normal quantiles of the scaled (or quantile) residuals with pointwise limits."""
        label = self._scaled if self._fit._is_linear else plot_data.residual_kind(self._fit)
        return residuals.plot_qq(self._columns("qq", level=level), ax, ylabel=f"{label} residual")

    def scale_location(self, ax: Any = None) -> Any:
        """Square roots of absolute scaled residuals against fitted values: a flat curve is an even spread."""
        label = self._scaled if self._fit._is_linear else plot_data.residual_kind(self._fit)
        return residuals.plot_scale_location(self._columns("scale_location"), ax, self._fitted_label(), label)

    def acf(self, ax: Any = None, lags: int | None = None, kind: str = "pearson", **options: Any) -> Any:
        """Autocorrelation of the residuals within groups: bars beyond the band ask for a residual structure.

        Parameters
        ----------
        lags, kind, **options
            As in ``fit.acf``.
        """
        return correlations.plot_acf(self._columns("acf", lags=lags, kind=kind, **options), ax, kind)

    def variogram(self, ax: Any = None, distance: Any = None, kind: str = "pearson", **options: Any) -> Any:
        """Semivariogram of the residuals within groups: flat for uncorrelated ones.

        Parameters
        ----------
        distance, kind, **options
            As in ``fit.variogram``.
        """
        columns = self._columns("variogram", distance=distance, kind=kind, **options)
        return correlations.plot_variogram(columns, ax, kind)

    def caterpillar(self, group: Any = None, axes: Any = None, level: float = 0.95, sort: bool = True) -> Any:
        """Conditional modes of a group's effects with intervals, one panel per effect."""
        columns = self._columns("caterpillar", group=group, level=level)
        return random_effects.plot_caterpillar(columns, axes, self._group(group), sort)

    def ranef_qq(self, group: Any = None, axes: Any = None, level: float = 0.95) -> Any:
        """Normal quantile plots of the conditional modes, one panel per effect."""
        columns = self._columns("ranef_qq", group=group, level=level)
        return random_effects.plot_ranef_qq(columns, axes, self._group(group))

    def shrinkage(self, group: Any = None, axes: Any = None) -> Any:
        """From the least-squares effects within each level to the conditional modes."""
        return random_effects.plot_shrinkage(
            self._columns("shrinkage", group=group), axes, self._group(group)
        )

    def influence(self, group: Any = None, ax: Any = None, named: int = 5, **options: Any) -> Any:
        """Cook's distances of rows, or of the levels of `group`, for the fixed effects.

        Parameters
        ----------
        group : str, optional
            A grouping factor; None looks at single rows.
        named : int
            So many of the largest get their labels.
        **options
            As `LMMFit.influence`, such as ``refit=True``.
        """
        columns = self._columns("influence", group=group, **options)
        label = "row" if group is None else "level"
        title = "Influence of rows" if group is None else f"Influence of levels of {group}"
        return influential.plot_influence(columns, label, ax, named, title)

    def profile(
        self, parameters: Any = None, axes: Any = None, profile: Any = None, absolute: bool = False
    ) -> Any:
        """Zeta of each parameter with limits of 50 to 99 %; `profile` reuses one already computed."""
        return profiles.plot_profile(self._profile(profile, parameters), parameters, axes, absolute)

    def profile_density(self, parameters: Any = None, axes: Any = None, profile: Any = None) -> Any:
        """Profile densities of the parameters."""
        return profiles.plot_profile_density(self._profile(profile, parameters), parameters, axes)

    def profile_pairs(self, parameters: Any = None, axes: Any = None, profile: Any = None) -> Any:
        """Contours of two-parameter profiles with the profile traces; a square array of axes."""
        return profiles.plot_profile_pairs(self._profile(profile, parameters), parameters, axes)

    def bootstrap(self, bootstrap: Any, parameters: Any = None, axes: Any = None, level: float = 0.95) -> Any:
        """Histograms of bootstrap draws with the estimates and percentile intervals.

        Parameters
        ----------
        bootstrap : Bootstrap
            ``fit.bootstrap(n, seed)``.
        """
        _check(bootstrap, "Bootstrap", "bootstrap", "fit.bootstrap(n, seed)")
        return results.draw_bootstrap(bootstrap, axes, parameters, level)

    def means(self, means: Any, ax: Any = None, **options: Any) -> Any:
        """Marginal means, contrasts or slopes with intervals.

        Parameters
        ----------
        means : MarginalMeans or what `LMMFit.emmeans` takes
        **options
            Options of `LMMFit.emmeans` if `means` is not one yet.
        """
        return results.draw_means(self._means(means, options), ax)

    def effects(
        self, x: Any, by: Any = None, ax: Any = None, at: Any = None, level: float = 0.95, **options: Any
    ) -> Any:
        """What the model expects along a predictor: a curve with a band, or the levels of a factor.

        Other covariates are at their means, other factors averaged over their levels.

        Parameters
        ----------
        x : str
            A predictor, or ``"x:f"``: `x` along the axis, a curve for each level of `f`.
        by : str or sequence of str, optional
            Predictors told apart by colour; by default those that interact with `x`, ``[]`` for none.
        at : mapping, optional
            Values of predictors: ``{"x": [0, 5, 10], "age": [40]}``.
        level : float
        **options
            ``ddf``, ``type``, ``weights``, ...; see `mixedmodels.inference.means.effects.effects`.
        """
        means = self._effects(x, by=by, at=at, level=level, **options)
        names = list(means.labels)
        title = f"Effect of {names[0]}" + (f" by {', '.join(names[1:])}" if names[1:] else "")
        return results.draw_means(means, ax, title=title)

    def simulated_residuals(self, residuals: Any = None, axes: Any = None, **options: Any) -> Any:
        """Scaled simulation residuals: uniform quantiles, and against ranks of fitted values.

        Parameters
        ----------
        residuals : SimulatedResiduals, optional
            By default ``fit.simulated_residuals(**options)``.
        """
        if residuals is None:
            residuals = self._fit.simulated_residuals(**options)
        _check(residuals, "SimulatedResiduals", "residuals", "fit.simulated_residuals()")
        return results.draw_simulated_residuals(residuals, axes)

    def _effects(self, x: Any, **options: Any) -> Any:
        from mixedmodels.inference.means.effects import effects

        return effects(self._fit, x, **options)

    def _means(self, means: Any, options: dict[str, Any]) -> Any:
        if not hasattr(means, "labels"):
            return self._fit.emmeans(means, **options)
        if options:
            raise OptionError(f"these means are already computed; {', '.join(options)} would have no effect")
        return means

    def _profile(self, profile: Any, parameters: Any) -> Any:
        if profile is None:
            return self._fit.profile(parameters)
        _check(profile, "Profile", "profile", "fit.profile()")
        return profile

    def _group(self, group: Any) -> str:
        return self._fit._terms[plot_data.find_term(self._fit, group)].group


def _check(value: Any, kind: str, name: str, source: str) -> None:
    """Refuse another object than the one to be drawn."""
    if type(value).__name__ != kind:
        raise OptionError(f"{name} must be what {source} returns, got {type(value).__name__}")


_ANSWERS = KINDS[KINDS.index("profile") :]
_SOURCES = {"residuals": "residual"}
