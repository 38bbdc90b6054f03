"""Plots of answers: profiles, bootstraps, marginal means, simulated residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import check_level
from mixedmodels.formula import variables
from mixedmodels.report.plots import draws, influential, manhattan, profiles
from mixedmodels.report.plots.means import plot_means

__all__ = [
    "draw_bootstrap",
    "draw_means",
    "draw_profile",
    "draw_scan",
    "draw_simulated_residuals",
    "plot_result",
]


def draw_profile(
    profile: Any, axes: Any = None, kind: str = "zeta", parameters: Any = None, absolute: bool = False
) -> Any:
    """A profile as zeta curves, densities or pairs.

    Parameters
    ----------
    kind : {"zeta", "density", "pairs"}
    parameters : str or sequence of str, optional
    absolute : bool
        Zeta without its sign.
    """
    if kind == "zeta":
        return profiles.plot_profile(profile, parameters, axes, absolute)
    if kind == "density":
        return profiles.plot_profile_density(profile, parameters, axes)
    if kind == "pairs":
        return profiles.plot_profile_pairs(profile, parameters, axes)
    raise OptionError(f"kind must be 'zeta', 'density' or 'pairs', got {kind!r}")


def draw_bootstrap(bootstrap: Any, axes: Any = None, parameters: Any = None, level: float = 0.95) -> Any:
    """Histograms of the draws of each parameter with estimates and percentile intervals.

    Parameters
    ----------
    parameters : str or sequence of str, optional
        Names, terms or kinds, as `Bootstrap.confint`.
    level : float
    """
    positions = bootstrap.positions(parameters)
    columns = {bootstrap.names[i]: bootstrap.draws[:, i] for i in positions}
    estimates = {bootstrap.names[i]: float(bootstrap.estimates[i]) for i in positions}
    return draws.plot_draws(columns, estimates, check_level(level), axes)


def draw_means(
    means: Any,
    ax: Any = None,
    title: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Any:
    """Means, contrasts or slopes with intervals: along a grid of numbers a curve with a band.

    Parameters
    ----------
    title, xlabel, ylabel : str, optional
        Instead of the default texts; empty for none.
    """
    table = means.table
    contrasts = means.kind not in ("means", "slopes")
    ratios = contrasts and any(note.startswith("ratios,") for note in table.notes)
    if ylabel is None:
        response = means.source.fit.formula.response
        raw = variables(response)
        back = means.show.response and means.source.transform is not None and len(raw) == 1
        what = str(raw[0]) if back else str(response)
        ylabel = "ratio" if ratios else "difference" if contrasts else "slope"
        ylabel = what if means.kind == "means" else f"{ylabel} of {what}"
    return plot_means(
        table.columns,
        list(means.labels),
        ax=ax,
        title=means.title if title is None else title,
        xlabel=xlabel,
        ylabel=ylabel,
        reference=(1.0 if ratios else 0.0) if contrasts else None,
    )


def draw_simulated_residuals(residuals: Any, axes: Any = None) -> Any:
    """Uniform quantiles of simulated residuals, and the residuals against ranks of fitted values."""
    return influential.plot_simulated_residuals(residuals.columns(), axes)


def draw_scan(scan: Any, ax: Any = None, kind: str = "manhattan", threshold: float | None = 5e-8) -> Any:
    """A scan along the genome, or the quantiles of its p values.

    Parameters
    ----------
    kind : {"manhattan", "qq"}
    threshold : float, optional
        p value at which a line is drawn.
    """
    if kind == "manhattan":
        return manhattan.plot_manhattan(scan, ax, threshold)
    if kind == "qq":
        return manhattan.plot_p_quantiles(scan, ax)
    raise OptionError(f"kind must be 'manhattan' or 'qq', got {kind!r}")


_DRAWN: Mapping[str, Callable[..., Any]] = {
    "Profile": draw_profile,
    "Bootstrap": draw_bootstrap,
    "MarginalMeans": draw_means,
    "SimulatedResiduals": draw_simulated_residuals,
    "Scan": draw_scan,
}


def plot_result(result: Any, ax: Any, options: Mapping[str, Any]) -> Any:
    """Draw an answer on the axes given or in a new figure."""
    draw = _DRAWN[type(result).__name__]
    allowed = list(draw.__annotations__)[2:-1]
    for name in options:
        if name not in allowed:
            listed = f"it has {', '.join(allowed)}" if allowed else "it has none"
            raise OptionError(f"the plot of a {type(result).__name__} has no option {name!r}; {listed}")
    return draw(result, ax, **options)
