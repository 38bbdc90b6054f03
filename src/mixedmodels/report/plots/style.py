"""Axes, colours and sizes that all plots share; nothing global is changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mixedmodels.errors import OptionError

__all__ = [
    "BAND",
    "LINE",
    "POINT",
    "SMOOTH",
    "clean",
    "dots",
    "grid_of_axes",
    "new_axes",
    "pictures",
    "subplots",
]

POINT = "#2f5d8a"
LINE = "#8a8a8a"
SMOOTH = "#c0504d"
BAND = "#d9e3ee"
LIMIT = "#a9bfd6"


_pictures: ContextVar[bool] = ContextVar("pictures", default=False)


@contextmanager
def pictures() -> Iterator[None]:
    """Within it new figures are pictures only: no window, no backend, nothing that pyplot remembers."""
    token = _pictures.set(True)
    try:
        yield
    finally:
        _pictures.reset(token)


def subplots(rows: int, columns: int, size: tuple[float, float]) -> Any:
    """An array of axes in a new figure, or one clear error where matplotlib is missing."""
    try:
        if _pictures.get():
            from matplotlib.figure import Figure

            figure = Figure(figsize=size, layout="tight")  # half the time of "constrained"
        else:
            import matplotlib.pyplot as plt

            figure = plt.figure(figsize=size, layout="constrained")
    except ImportError:
        raise OptionError(
            "plots need matplotlib: python -m pip install 'mixedmodels[plots]' (or matplotlib)"
        ) from None
    return figure.subplots(rows, columns, squeeze=False)


def new_axes(ax: Any = None, size: tuple[float, float] = (5.2, 3.9)) -> Any:
    """`ax`, or the axes of a new figure."""
    if ax is not None:
        if not hasattr(ax, "plot") or not hasattr(ax, "figure"):
            raise OptionError(f"ax must be matplotlib axes, got {type(ax).__name__}")
        return ax
    return subplots(1, 1, size)[0, 0]


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
    cells = list(subplots(rows, columns, (size[0] * columns, size[1] * rows)).ravel())
    for ax in cells[count:]:
        ax.remove()
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
        "rasterized": n > 1000,
        **options,
    }
    return ax.scatter(x, y, **options)
