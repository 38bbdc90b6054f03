"""Axes, colours and sizes that all plots share; nothing global is changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mixedmodels.errors import OptionError

__all__ = ["BAND", "LINE", "POINT", "SMOOTH", "clean", "dots", "grid_of_axes", "new_axes", "pyplot"]

POINT = "#2f5d8a"
LINE = "#8a8a8a"
SMOOTH = "#c0504d"
BAND = "#d9e3ee"


def pyplot() -> Any:
    """``matplotlib.pyplot``, or one clear error where matplotlib is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise OptionError(
            "plots need matplotlib: python -m pip install 'mixedmodels[plots]' (or matplotlib)"
        ) from None
    return plt


def new_axes(ax: Any = None, size: tuple[float, float] = (5.2, 3.9)) -> Any:
    """`ax`, or the axes of a new figure."""
    if ax is not None:
        if not hasattr(ax, "plot") or not hasattr(ax, "figure"):
            raise OptionError(f"ax must be matplotlib axes, got {type(ax).__name__}")
        return ax
    _, ax = pyplot().subplots(figsize=size, layout="constrained")
    return ax


def grid_of_axes(count: int, axes: Any = None, size: tuple[float, float] = (2.9, 2.5), most: int = 4) -> Any:
    """`count` axes as a list: those given, or a new figure's, at most `most` side by side."""
    if axes is not None:
        given = list(axes.ravel()) if hasattr(axes, "ravel") else axes
        given = list(given) if isinstance(given, Sequence) else [given]
        if len(given) < count:
            raise OptionError(f"this plot has {count} panels and got {len(given)} axes")
        return given[:count]
    columns = min(count, most)
    rows = math.ceil(count / columns)
    figure, grid = pyplot().subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False
    )
    cells = list(grid.ravel())
    for ax in cells[count:]:
        figure.delaxes(ax)
    return cells[:count]


def clean(ax: Any, title: str = "", xlabel: str = "", ylabel: str = "") -> Any:
    """Titles and labels; no frame on the right and on top."""
    ax.spines[["top", "right"]].set_visible(False)
    if title:
        ax.set_title(title, loc="left", fontsize="medium")
    if xlabel:
        ax.set_xlabel(xlabel)
    if ylabel:
        ax.set_ylabel(ylabel)
    return ax


def dots(ax: Any, x: Any, y: Any, **options: Any) -> Any:
    """Points, smaller and more transparent the more there are; many of them drawn as pixels."""
    n = len(x)
    options = {
        "color": POINT,
        "s": 16 if n < 500 else 7 if n < 10_000 else 2,
        "alpha": 0.75 if n < 500 else 0.4 if n < 10_000 else 0.12,
        "linewidths": 0,
        "rasterized": n > 3000,
        **options,
    }
    return ax.scatter(x, y, **options)
