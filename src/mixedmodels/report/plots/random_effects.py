"""Plots of random effects: caterpillar, normal quantiles, shrinkage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.report.plots.residuals import plot_qq
from mixedmodels.report.plots.style import LINE, POINT, SMOOTH, clean, dots, grid_of_axes

__all__ = ["plot_caterpillar", "plot_ranef_qq", "plot_shrinkage"]

_LABELS = 45  # more levels than this are drawn without their names


def _panels(columns: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    """Names of the effects with the rows of each."""
    names = np.asarray(columns["term"], dtype=object)
    return [(name, np.flatnonzero(names == name)) for name in dict.fromkeys(names.tolist())]


def plot_caterpillar(columns: Mapping[str, Any], axes: Any = None, group: str = "", sort: bool = True) -> Any:
    """Conditional modes with intervals, one panel per effect, levels ordered by the first effect."""
    panels = _panels(columns)
    first = panels[0][1]
    m = first.size
    height = 0.9 + 0.13 * m if m <= _LABELS else 4.8
    axes = grid_of_axes(len(panels), axes, (3.6, max(2.4, height)))
    estimate = np.asarray(columns["estimate"])
    order = np.argsort(estimate[first], kind="stable") if sort else np.arange(m)[::-1]
    labels = np.asarray(columns["level"], dtype=object)[first][order]
    places = np.arange(m)
    for ax, (name, rows) in zip(axes, panels, strict=True):
        chosen = rows[order]
        ax.axvline(0.0, color=LINE, linewidth=1)
        ax.hlines(
            places,
            np.asarray(columns["conf_low"])[chosen],
            np.asarray(columns["conf_high"])[chosen],
            color=POINT,
            linewidth=1.0 if m < 300 else 0.5,
            rasterized=m > 400,
            alpha=0.8 if m < 300 else 0.4,
        )
        ax.plot(
            estimate[chosen],
            places,
            "o",
            color=POINT,
            markersize=3.5 if m < 100 else 1.2,
            rasterized=m > 400,
        )
        clean(ax, name, "conditional mode")
        ax.set_ylim(-0.7, m - 0.3)
        if m <= _LABELS and ax is axes[0]:
            ax.set_yticks(places, labels, fontsize="small")
        else:
            ax.set_yticks([])
    axes[0].set_ylabel(group)
    return axes


def plot_ranef_qq(columns: Mapping[str, Any], axes: Any = None, group: str = "") -> Any:
    """Normal quantile plots of the conditional modes, one panel per effect."""
    panels = _panels(columns)
    axes = grid_of_axes(len(panels), axes, (3.4, 3.0))
    for ax, (name, rows) in zip(axes, panels, strict=True):
        part = {key: np.asarray(values)[rows] for key, values in columns.items() if key != "term"}
        plot_qq(part, ax, title=name, ylabel=f"conditional mode ({group})" if group else "conditional mode")
    return axes


def plot_shrinkage(columns: Mapping[str, Any], axes: Any = None, group: str = "") -> Any:
    """From the least-squares effect within each level to its conditional mode.

    Two effects of one term share a panel, as arrows in their plane; a single effect is drawn along a line.
    """
    panels = _panels(columns)
    within, shrunken = np.asarray(columns["within"]), np.asarray(columns["shrunken"])
    if len(panels) == 1:
        (ax,) = grid_of_axes(1, axes, (5.0, 3.0))
        name, rows = panels[0]
        order = rows[np.argsort(shrunken[rows], kind="stable")]
        places = np.arange(order.size)
        ax.axvline(0.0, color=LINE, linewidth=1)
        ax.hlines(places, within[order], shrunken[order], color=LINE, linewidth=0.8)
        ax.plot(within[order], places, "o", color=SMOOTH, markersize=3, label="within the level")
        ax.plot(shrunken[order], places, "o", color=POINT, markersize=3, label="conditional mode")
        ax.set_yticks([])
        ax.legend(frameon=False, fontsize="small")
        clean(ax, f"Shrinkage of {name}", name, group)
        return [ax]
    pairs = [(i, j) for j in range(len(panels)) for i in range(j)]
    axes = grid_of_axes(len(pairs), axes, (3.9, 3.5), most=3)
    for ax, (i, j) in zip(axes, pairs, strict=True):
        (xname, xrows), (yname, yrows) = panels[i], panels[j]
        known = np.isfinite(within[xrows]) & np.isfinite(within[yrows])
        xrows, yrows = xrows[known], yrows[known]
        ax.quiver(
            within[xrows],
            within[yrows],
            shrunken[xrows] - within[xrows],
            shrunken[yrows] - within[yrows],
            angles="xy",
            scale_units="xy",
            scale=1.0,
            width=0.003,
            color=LINE,
            zorder=1,
        )
        dots(ax, within[xrows], within[yrows], color=SMOOTH, label="within the level")
        dots(ax, shrunken[xrows], shrunken[yrows], label="conditional mode")
        clean(ax, "", xname, yname)
    axes[0].legend(frameon=False, fontsize="small")
    axes[0].set_title(f"Shrinkage{f', {group}' if group else ''}", loc="left", fontsize="medium")
    return axes
