"""Plots of influence: Cook's distances of rows or groups, with the largest ones named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.report.plots.style import LINE, POINT, SMOOTH, clean, dots, grid_of_axes, new_axes

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
    if not isinstance(named, int):
        raise OptionError(f"named must be a whole number of labels, got {named!r}")
    largest = known[np.argsort(distance[known])[::-1][: max(named, 0)]]
    ax.plot(places[largest], distance[largest], "o", color=SMOOTH, markersize=3.5)
    taken: list[tuple[float, float]] = []
    for i in largest:
        spot = (places[i] / max(distance.size, 1), distance[i] / (distance[largest[0]] or 1.0))
        close = any(abs(spot[0] - x) < 0.12 and abs(spot[1] - y) < 0.06 for x, y in taken)
        taken.append(spot)
        side = {"xytext": (-4, -3), "ha": "right"} if close else {"xytext": (4, 1), "ha": "left"}
        ax.annotate(
            str(names[i]), (places[i], distance[i]), textcoords="offset points", fontsize="small", **side
        )
    ax.set_ylim(bottom=0.0)
    if label != "row":
        ax.set_xticks([])
    return clean(ax, title or "Influence on the fixed effects", label, "Cook's distance")


def plot_simulated_residuals(columns: Mapping[str, Any], axes: Any = None) -> Any:
    """Scaled simulation residuals: uniform quantiles, and against the ranks of the fitted values."""
    axes = grid_of_axes(2, axes, (3.6, 3.2))
    values, at = np.asarray(columns["residual"]), np.asarray(columns["fitted"])
    outlier = np.asarray(columns["outlier"], dtype=bool)
    axes[0].plot([0, 1], [0, 1], color=LINE, linewidth=1)
    dots(axes[0], columns["expected"], values)
    clean(axes[0], "Uniform quantiles", "expected", "observed")
    place = (np.argsort(np.argsort(at, kind="stable"), kind="stable") + 0.5) / max(at.size, 1)
    for height in (0.25, 0.5, 0.75):
        axes[1].axhline(height, color=LINE, linewidth=0.8, linestyle="--")
    dots(axes[1], place, values)
    if 0 < outlier.sum() <= 500:
        dots(axes[1], place[outlier], values[outlier], color=SMOOTH, alpha=1.0)
    clean(axes[1], "Against fitted values", "rank of the fitted value", "scaled residual")
    for ax in axes:
        ax.set_ylim(-0.03, 1.03)
    return axes
