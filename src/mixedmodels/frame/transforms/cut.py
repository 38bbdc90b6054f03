"""``cut(x, breaks)``: numbers to intervals, with R's labels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, FormulaError
from mixedmodels.frame.transforms.base import Arguments, State, Stateful
from mixedmodels.frame.values import FactorColumn

__all__ = ["TRANSFORMS", "equal_breaks", "interval_labels"]

_MOST_DIGITS = 12


def equal_breaks(points: np.ndarray, count: int) -> np.ndarray:
    """`count` intervals of equal width over the range, its ends moved out by a thousandth of the range."""
    low, high = float(points.min()), float(points.max())
    width = high - low
    if width == 0.0:
        width = abs(low) or 1.0
        return np.linspace(low - width / 1000, high + width / 1000, count + 1)
    breaks = np.linspace(low, high, count + 1)
    breaks[0], breaks[-1] = low - width / 1000, high + width / 1000
    return breaks


def interval_labels(breaks: np.ndarray, digits: int, right: bool, include_lowest: bool) -> tuple[str, ...]:
    """Labels such as (0,5]: as few digits (at least `digits`) as keep the breaks apart."""
    for precision in range(digits, max(_MOST_DIGITS, digits) + 1):
        texts = [f"{value:.{max(precision, 1)}g}" for value in breaks]
        texts = [{"inf": " Inf", "-inf": "-Inf"}.get(text, text) for text in texts]  # R pads Inf
        if len(set(texts)) == len(texts):
            break
    left, close = ("(", "]") if right else ("[", ")")
    labels = [f"{left}{a},{b}{close}" for a, b in itertools.pairwise(texts)]
    if include_lowest:
        if right:
            labels[0] = "[" + labels[0][1:]
        else:
            labels[-1] = labels[-1][:-1] + "]"
    return tuple(labels)


def _learn(arguments: Arguments) -> tuple[Any, State]:
    right = arguments.flag("right", True)
    lowest = arguments.flag("include.lowest", False)
    breaks = arguments.vector("breaks")
    if breaks is None:
        raise FormulaError(
            f"'{arguments.label}': give breaks, a number of intervals or their ends as in c(0, 5, 10)"
        )
    if breaks.size == 1:
        count = arguments.whole("breaks", 2, 2)
        _, points = arguments.finite_points()
        breaks = equal_breaks(points, count)
    breaks = np.sort(breaks)
    if np.isnan(breaks).any() or (np.diff(breaks) == 0).any():
        raise FormulaError(f"'{arguments.label}': breaks must be different numbers")
    labels: list[str] | None
    if arguments.values.get("labels") is False:
        labels = None
    else:
        given = None if arguments.values.get("labels") is True else arguments.labels("labels")
        labels = given or list(interval_labels(breaks, arguments.whole("dig.lab", 3, 0), right, lowest))
        if len(labels) != breaks.size - 1 or len(set(labels)) != len(labels):
            raise FormulaError(
                f"'{arguments.label}': {breaks.size - 1} intervals need as many different labels"
            )
    ordered = arguments.flag("ordered_result", False)
    state = {"breaks": breaks, "labels": labels, "right": right, "lowest": lowest, "ordered": ordered}
    value = _apply(arguments, state)
    codes = value.codes if isinstance(value, FactorColumn) else value
    if not (codes >= 0).any():
        raise DataError(f"'{arguments.label}': no value of {arguments.texts['x']} lies between the breaks")
    return value, state


def _apply(arguments: Arguments, state: State) -> Any:
    x = arguments.number_column()
    breaks = np.asarray(state["breaks"])
    right = state["right"]
    codes = np.searchsorted(breaks, x, side="left" if right else "right") - 1
    if state["lowest"]:
        codes[x == (breaks[0] if right else breaks[-1])] = 0 if right else breaks.size - 2
    codes[np.isnan(x) | (codes < 0) | (codes > breaks.size - 2)] = -1
    if state["labels"] is None:
        return np.where(codes < 0, np.nan, codes + 1.0)
    return FactorColumn(codes.astype(np.int32), tuple(state["labels"]), ordered=state["ordered"])


TRANSFORMS: dict[str, Stateful] = {
    "cut": Stateful(
        ("x", "breaks", "labels", "include.lowest", "right", "dig.lab", "ordered_result"), _learn, _apply
    )
}
