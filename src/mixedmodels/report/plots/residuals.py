"""Plots of residuals: against fitted values, normal quantiles, scale-location."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.inference.checks.plot_data import smooth
from mixedmodels.report.plots.style import BAND, LINE, SMOOTH, clean, dots, new_axes

__all__ = ["plot_qq", "plot_residuals", "plot_scale_location"]


def plot_residuals(
    columns: Mapping[str, Any], ax: Any = None, title: str = "", ylabel: str = "", xlabel: str = "fitted"
) -> Any:
    """Residuals against fitted values with a smooth curve and the zero line."""
    ax = new_axes(ax)
    ax.axhline(0.0, color=LINE, linewidth=1)
    dots(ax, columns["fitted"], columns["residual"])
    x, y = smooth(np.asarray(columns["fitted"]), np.asarray(columns["residual"]))
    if x.size:
        ax.plot(x, y, color=SMOOTH, linewidth=1.6)
    return clean(ax, title or "Residuals against fitted values", xlabel, ylabel or "residual")


def plot_scale_location(
    columns: Mapping[str, Any], ax: Any = None, xlabel: str = "fitted", kind: str = "scaled"
) -> Any:
    """Square roots of absolute scaled residuals against fitted values with a smooth curve."""
    ax = new_axes(ax)
    dots(ax, columns["fitted"], columns["root"])
    x, y = smooth(np.asarray(columns["fitted"]), np.asarray(columns["root"]))
    if x.size:
        ax.plot(x, y, color=SMOOTH, linewidth=1.6)
    ax.set_ylim(bottom=0.0)
    return clean(ax, "Scale-location", xlabel, rf"$\sqrt{{|\mathrm{{{kind}\ residual}}|}}$")


def plot_qq(columns: Mapping[str, Any], ax: Any = None, title: str = "", ylabel: str = "") -> Any:
    """Sample against normal quantiles, with the line through the quartiles and pointwise limits."""
    ax = new_axes(ax)
    x = np.asarray(columns["theoretical"])
    some = _thinned(x)
    low, high = np.asarray(columns["low"])[some], np.asarray(columns["high"])[some]
    ax.fill_between(x[some], low, high, color=BAND, linewidth=0)
    ax.plot(x[some], np.asarray(columns["line"])[some], color=LINE, linewidth=1)
    dots(ax, x, columns["sample"])
    return clean(ax, title or "Normal quantiles of residuals", "normal quantile", ylabel or "scaled residual")


def _thinned(x: np.ndarray, most: int = 400) -> np.ndarray:
    """At most about `most` positions of increasing x, spread evenly, with both ends."""
    if x.size <= most:
        return np.arange(x.size)
    return np.unique(np.searchsorted(x, np.linspace(x[0], x[-1], most)).clip(0, x.size - 1))
