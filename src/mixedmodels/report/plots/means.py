"""Plots of marginal means, contrasts and slopes with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.report.plots.style import LINE, POINT, SMOOTH, clean, new_axes

__all__ = ["plot_means"]

_COLOURS = (POINT, SMOOTH, "#5b9a68", "#d9a441", "#7d5ba6", "#4a9aa8", "#8a6d5b", "#555555")


def plot_means(
    columns: Mapping[str, Any],
    labels: Sequence[str],
    estimate: str = "estimate",
    ax: Any = None,
    title: str = "",
    ylabel: str = "",
    zero: bool = False,
) -> Any:
    """Estimates with intervals: the first label along the axis, the others as colours side by side.

    Parameters
    ----------
    columns : mapping
        Labels, estimates, conf_low and conf_high; NaN where something cannot be estimated.
    labels : sequence of str
        Columns that say what each row is.
    zero : bool
        Draw a line at zero (contrasts).
    """
    ax = new_axes(ax)
    if not labels:
        raise OptionError("there is nothing to put along the axis: the estimates have no labels")
    first = np.asarray(columns[labels[0]], dtype=object)
    rest = [np.asarray(columns[name], dtype=object) for name in labels[1:]]
    groups = [", ".join(str(part[i]) for part in rest) for i in range(first.size)]
    values = np.asarray(columns[estimate], dtype=float)
    low = np.asarray(columns["conf_low"], dtype=float)
    high = np.asarray(columns["conf_high"], dtype=float)
    places = list(dict.fromkeys(first.tolist()))
    numeric = all(isinstance(value, (int, float, np.number)) for value in places) and len(places) > 1
    positions = (
        np.array(first, dtype=float) if numeric else np.array([places.index(v) for v in first], dtype=float)
    )
    kinds = list(dict.fromkeys(groups))
    room = (np.diff(np.unique(positions)).min() if np.unique(positions).size > 1 else 1.0) * 0.5
    if zero:
        ax.axhline(0.0, color=LINE, linewidth=1)
    for number, kind in enumerate(kinds):
        rows = np.array([group == kind for group in groups])
        shift = 0.0 if len(kinds) == 1 else room * (number / (len(kinds) - 1) - 0.5)
        colour = _COLOURS[number % len(_COLOURS)]
        ax.vlines(positions[rows] + shift, low[rows], high[rows], color=colour, linewidth=1.8)
        ax.plot(positions[rows] + shift, values[rows], "o", color=colour, markersize=5, label=kind)
        if numeric:
            ax.plot(positions[rows] + shift, values[rows], "-", color=colour, linewidth=0.9)
    if not numeric:
        ax.set_xticks(range(len(places)), [str(value) for value in places])
        ax.set_xlim(-0.6, len(places) - 0.4)
        if len(places) > 6 or max(len(str(value)) for value in places) > 10:
            ax.tick_params(axis="x", labelrotation=35)
            for label in ax.get_xticklabels():
                label.set_horizontalalignment("right")
    if len(kinds) > 1:
        ax.legend(frameon=False, fontsize="small", title=", ".join(labels[1:]))
    return clean(ax, title, labels[0], ylabel)
