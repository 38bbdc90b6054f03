"""Centring and scaling with remembered constants, and summaries used as constants in arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.transforms.base import Arguments, State, Stateful

__all__ = ["TRANSFORMS"]


def _learn_scale(arguments: Arguments) -> tuple[np.ndarray, State]:
    """R's scale(): subtract the mean, divide by the root of sum(x^2)/(n - 1) of what is left."""
    _, points = arguments.finite_points()
    centre = _constant(arguments, "center", lambda: float(points.mean()), 0.0)
    left = points - centre

    def spread() -> float:
        return float(np.sqrt((left**2).sum() / max(points.size - 1, 1)))

    divisor = _constant(arguments, "scale", spread, 1.0)
    if divisor == 0.0 or (np.ptp(points) == 0.0 and arguments.values.get("scale", True) is True):
        raise DataError(
            f"'{arguments.label}': {arguments.texts['x']} is constant and cannot be scaled; remove the term"
        )
    state = {"center": centre, "scale": divisor}
    return _apply_scale(arguments, state), state


def _constant(arguments: Arguments, name: str, learn: Callable[[], float], neutral: float) -> float:
    """TRUE learns the constant, FALSE takes the neutral one, a number is used as it is."""
    value = arguments.values.get(name, True)
    if value is True:
        return learn()
    if value is False or value is None:
        return neutral
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise arguments.bad(name, "TRUE, FALSE or one number")


def _apply_scale(arguments: Arguments, state: State) -> np.ndarray:
    return (arguments.number_column() - state["center"]) / state["scale"]


def _learn_center(arguments: Arguments) -> tuple[np.ndarray, State]:
    _, points = arguments.finite_points()
    state = {"center": float(points.mean()), "scale": 1.0}
    return _apply_scale(arguments, state), state


def _summary(function: Callable[[np.ndarray], Any]) -> Stateful:
    """A number computed from the data of the fit and kept for new data: ``I(x - mean(x))``."""

    def learn(arguments: Arguments) -> tuple[float, State]:
        _, points = arguments.finite_points()
        value = float(function(points))
        return value, {"value": value}

    return Stateful(("x",), learn, lambda _, state: state["value"])


TRANSFORMS: dict[str, Stateful] = {
    "scale": Stateful(("x", "center", "scale"), _learn_scale, _apply_scale),
    "standardize": Stateful(("x", "center", "scale"), _learn_scale, _apply_scale),
    "center": Stateful(("x",), _learn_center, _apply_scale),
    "mean": _summary(np.mean),
    "median": _summary(np.median),
    "min": _summary(np.min),
    "max": _summary(np.max),
    "sd": _summary(lambda x: np.std(x, ddof=1) if x.size > 1 else np.nan),
    "var": _summary(lambda x: np.var(x, ddof=1) if x.size > 1 else np.nan),
}
