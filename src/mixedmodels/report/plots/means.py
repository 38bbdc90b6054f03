"""Plots of marginal means, contrasts and slopes with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.report.plots.style import LINE, POINT, SMOOTH, clean, new_axes

__all__ = ["plot_means"]

_POINTS = 12  # more numbers than this along the axis are a curve
_NAMED = 40  # at most so many texts along the axis

_COLOURS = (POINT, SMOOTH, "#5b9a68", "#d9a441", "#7d5ba6", "#4a9aa8", "#8a6d5b", "#555555")


def plot_means(
    columns: Mapping[str, Any],
    labels: Sequence[str],
    ax: Any = None,
    title: str = "",
    xlabel: str | None = None,
    ylabel: str = "",
    reference: float | None = None,
) -> Any:
    """Estimates with intervals: the first label along the axis, the others as colours side by side.

    Many numbers along the axis are drawn as curves with bands, few as points; where the names of the first
    label would not fit side by side they stand below one another and the estimates lie along the axis.

    Parameters
    ----------
    columns : mapping
        Labels, estimate, conf_low and conf_high; NaN where something cannot be estimated.
    labels : sequence of str
        Columns that say what each row is.
    reference : float, optional
        Draw a line here (contrasts: no difference).
    """
    first = np.asarray(columns[labels[0]])
    others = [[_text(value) for value in columns[name].tolist()] for name in labels[1:]]
    groups = [", ".join(parts) for parts in zip(*others, strict=True)] if others else [""] * first.size
    values = np.asarray(columns["estimate"], dtype=float)
    low, high = _finite_limits(values, columns["conf_low"], columns["conf_high"])
    places = list(dict.fromkeys(first.tolist()))
    numeric = first.dtype.kind in "iuf" and len(places) > 1
    curve = numeric and len(places) > _POINTS
    positions = (
        first.astype(float) if numeric else np.array([places.index(v) for v in first.tolist()], dtype=float)
    )
    kinds = list(dict.fromkeys(groups))
    room = 0.5 * (float(np.diff(np.unique(positions)).min()) if len(places) > 1 else 1.0)
    names = [] if numeric else [_text(value) for value in places]
    upright = sum(map(len, names)) <= 60
    ax = new_axes(ax, (5.2, 3.9) if upright else (5.8, min(1.2 + 0.24 * len(names), 9.0)))
    if reference is not None:
        (ax.axhline if upright else ax.axvline)(reference, color=LINE, linewidth=1)
    for number, kind in enumerate(kinds):
        rows = np.array([group == kind for group in groups])
        colour = _COLOURS[number % len(_COLOURS)]
        if curve:
            ax.fill_between(positions[rows], low[rows], high[rows], color=colour, alpha=0.16, linewidth=0)
            ax.plot(positions[rows], values[rows], "-", color=colour, linewidth=1.8, label=kind)
            continue
        shift = 0.0 if len(kinds) == 1 else room * (number / (len(kinds) - 1) - 0.5)
        at = positions[rows] + shift
        (ax.vlines if upright else ax.hlines)(at, low[rows], high[rows], color=colour, linewidth=1.8)
        spots = (at, values[rows]) if upright else (values[rows], at)
        ax.plot(*spots, "-o" if numeric else "o", color=colour, markersize=5, linewidth=0.9, label=kind)
    if not numeric:
        _name_places(ax.xaxis if upright else ax.yaxis, names)
        (ax.set_xlim if upright else ax.set_ylim)(*((-0.6, len(names) - 0.4)[:: 1 if upright else -1]))
    if len(kinds) > 1:
        _legend(ax, kinds, ", ".join(labels[1:]), beside=not curve)
    along = labels[0] if xlabel is None else xlabel
    return clean(ax, title, along, ylabel) if upright else clean(ax, title, ylabel, along)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _finite_limits(values: np.ndarray, low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
    """Limits to draw: one-sided intervals end a little beyond everything else."""
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    every = np.concatenate([values, low, high])
    every = every[np.isfinite(every)]
    if not every.size:
        return low, high
    bottom, top = every.min(), every.max()
    room = 0.15 * (top - bottom) or 1.0
    return np.where(low == -np.inf, bottom - room, low), np.where(high == np.inf, top + room, high)


def _name_places(axis: Any, names: Sequence[str]) -> None:
    """Texts along an axis, every k-th where there are too many."""
    step = -(-len(names) // _NAMED)
    axis.set_ticks(range(0, len(names), step), names[::step])


def _legend(ax: Any, kinds: Sequence[str], title: str, beside: bool) -> None:
    """A legend: inside for few short names, beside the axes otherwise, none where nobody could read it."""
    if len(kinds) > 24:
        return
    beside = beside or len(kinds) > 4 or max(map(len, kinds)) > 14
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if beside else {}
    ax.legend(frameon=False, fontsize="small", title=title, title_fontsize="small", **where)
