"""Plots of bootstrap draws: densities with intervals, and pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.report.plots.style import BAND, LINE, POINT, SMOOTH, clean, grid_of_axes

__all__ = ["plot_draws"]


def plot_draws(
    draws: Mapping[str, np.ndarray],
    estimates: Mapping[str, float] | None = None,
    level: float = 0.95,
    axes: Any = None,
) -> Any:
    """Histogram of the draws of each parameter, with the estimate and the percentile interval."""
    names = list(draws)
    axes = grid_of_axes(len(names), axes)
    tail = 0.5 * (1.0 - level)
    for ax, name in zip(axes, names, strict=True):
        values = np.asarray(draws[name], dtype=float)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = np.quantile(values, [tail, 1.0 - tail])
            if np.ptp(values) > 0:
                ax.hist(values, bins="fd" if values.size < 20_000 else 100, color=BAND, edgecolor="none")
            else:
                ax.axvline(values[0], color=BAND, linewidth=6)
            ax.plot([low, high], [0.0, 0.0], color=POINT, linewidth=4, solid_capstyle="butt", clip_on=False)
        if estimates is not None and name in estimates:
            ax.axvline(estimates[name], color=SMOOTH, linewidth=1.2)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.axhline(0.0, color=LINE, linewidth=0.6)
        clean(ax, name)
    return axes
