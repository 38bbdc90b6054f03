"""Plots of discrete responses: binned residuals and rootograms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.report.plots.style import BAND, LINE, POINT, SMOOTH, clean, dots, new_axes

__all__ = ["plot_binned", "plot_rootogram"]


def plot_binned(columns: Mapping[str, Any], ax: Any = None, title: str = "") -> Any:
    """Mean residuals of bins against their fitted values, with limits."""
    ax = new_axes(ax)
    x = np.asarray(columns["fitted"])
    ax.fill_between(x, columns["low"], columns["high"], color=BAND, linewidth=0, step="mid")
    ax.axhline(0.0, color=LINE, linewidth=1)
    dots(ax, x, columns["residual"])
    return clean(ax, title or "Binned residuals", "fitted", "mean residual")


def plot_rootogram(columns: Mapping[str, Any], ax: Any = None, title: str = "") -> Any:
    """Square roots of frequencies, hanging from the curve of those expected."""
    ax = new_axes(ax)
    top, height = np.sqrt(np.asarray(columns["expected"])), np.sqrt(np.asarray(columns["observed"]))
    places = np.arange(top.size)
    ax.bar(places, -height, bottom=top, width=0.85, color=BAND, edgecolor=POINT, linewidth=0.6)
    ax.plot(places, top, color=SMOOTH, linewidth=1.6, marker="o", markersize=2.5)
    ax.axhline(0.0, color=LINE, linewidth=1)
    names = [str(name) for name in columns["count"]]
    step = max(1, -(-len(names) // 12))
    shown = list(range(0, len(names) - 1, step))
    ax.set_xticks(shown, [names[j] for j in shown])
    return clean(ax, title or "Rootogram", "count", r"$\sqrt{\mathrm{frequency}}$")
