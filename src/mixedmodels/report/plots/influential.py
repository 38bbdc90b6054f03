"""Plots of influence: Cook's distances of rows or groups, with the largest ones named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.report.plots.style import LINE, POINT, clean, dots, grid_of_axes, new_axes

__all__ = ["plot_influence", "plot_simulated_residuals"]


def plot_influence(
    columns: Mapping[str, Any], label: str, ax: Any = None, named: int = 5, title: str = ""
) -> Any:
    """Cook's distance of each row or level, the `named` largest with their labels."""
    ax = new_axes(ax)
    distance = np.asarray(columns["cooks_distance"], dtype=float)
    names = np.asarray(columns[label], dtype=object)
    places = np.arange(distance.size)
    if distance.size <= 400:
        ax.vlines(places, 0.0, distance, color=POINT, linewidth=1.2)
    dots(ax, places, distance)
    known = np.flatnonzero(np.isfinite(distance))
    if not isinstance(named, int) or named < 0:
        raise OptionError(f"named must be a whole number of labels, got {named!r}")
    for i in known[np.argsort(distance[known])[::-1][:named]]:
        ax.annotate(
            str(names[i]), (places[i], distance[i]), xytext=(3, 3), textcoords="offset points", fontsize=8
        )
    ax.set_ylim(bottom=0.0)
    if label != "row":
        ax.set_xticks([])
    return clean(ax, title or "Influence on the fixed effects", label, "Cook's distance")


def plot_simulated_residuals(residuals: np.ndarray, fitted: np.ndarray, axes: Any = None) -> Any:
    """Scaled simulation residuals: uniform quantiles, and against the ranks of the fitted values."""
    axes = grid_of_axes(2, axes, (3.6, 3.2))
    known = np.isfinite(residuals)
    values, at = residuals[known], fitted[known]
    n = values.size
    expected = (np.arange(1, n + 1) - 0.5) / n
    axes[0].plot([0, 1], [0, 1], color=LINE, linewidth=1)
    dots(axes[0], expected, np.sort(values))
    clean(axes[0], "Uniform quantiles", "expected", "observed")
    order = np.argsort(np.argsort(at, kind="stable"), kind="stable")
    for height in (0.25, 0.5, 0.75):
        axes[1].axhline(height, color=LINE, linewidth=0.8, linestyle="--")
    dots(axes[1], (order + 0.5) / n, values)
    clean(axes[1], "Against fitted values", "rank of the fitted value", "scaled residual")
    return axes
