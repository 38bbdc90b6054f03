"""Expressions of variance components, such as ``animal / (animal + herd + Residual)``, with derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mixedmodels.errors import FormulaError, OptionError
from mixedmodels.formula.ast import Expression, Number, Operation, Variable
from mixedmodels.formula.grammar import parse_sides

__all__ = ["Ratio", "read_ratio"]


class Ratio(NamedTuple):
    """A function of variance components.

    Attributes
    ----------
    text : str
        As it was written.
    value : callable
        Maps the components, shape (r,), to the value and its gradient, shape (r,).
    places : tuple of int
        The components that occur.
    """

    text: str
    value: Callable[[np.ndarray], tuple[float, np.ndarray]]
    places: tuple[int, ...]


def read_ratio(text: str, places: Mapping[str, int]) -> Ratio:
    """Read an expression of named components: sums, products, quotients, whole powers and numbers.

    Parameters
    ----------
    text : str
        Names with other characters than letters, digits, ``.``, ``_`` and ``:`` stand in backticks.
    places : mapping from name to position

    Raises
    ------
    OptionError
        The text cannot be read, or names something else.

    Examples
    --------
    >>> ratio = read_ratio("a / (a + e)", {"a": 0, "e": 1})
    >>> value, gradient = ratio.value(np.array([1.0, 3.0]))
    >>> value, gradient.tolist()
    (0.25, [0.1875, -0.0625])
    """
    if not isinstance(text, str) or not text.strip():
        raise OptionError(
            f"ratio must be an expression of variances such as 'a / (a + Residual)', got {text!r}"
        )
    try:
        node = parse_sides(f"~ {text}")[1]
    except FormulaError as error:
        raise OptionError(f"the ratio {text!r} cannot be read: {error}") from None
    size = max(places.values()) + 1
    used: set[int] = set()
    _check(node, text, places, used)
    if not used:
        raise OptionError(f"the ratio {text!r} names no variance; there are {', '.join(places)}")

    def value(components: np.ndarray) -> tuple[float, np.ndarray]:
        return _evaluate(node, components, places, size)

    return Ratio(text, value, tuple(sorted(used)))


def _name(node: Expression) -> str | None:
    """Name that a node stands for: ``a``, or ``a:b``."""
    if isinstance(node, Variable):
        return node.name
    if isinstance(node, Operation) and node.operator == ":" and len(node.args) == 2:
        parts = [_name(arg) for arg in node.args]
        return None if None in parts else ":".join(parts)  # type: ignore[arg-type]
    return None


def _check(node: Expression, text: str, places: Mapping[str, int], used: set[int]) -> None:
    """Refuse anything but arithmetic of known names."""
    name = _name(node)
    if name is not None:
        if name not in places:
            raise OptionError(f"the ratio {text!r} names {name!r}; the variances are {', '.join(places)}")
        used.add(places[name])
    elif isinstance(node, Operation) and node.operator in ("+", "-", "*", "/", "("):
        for arg in node.args:
            _check(arg, text, places, used)
    elif isinstance(node, Operation) and node.operator == "^" and isinstance(node.args[1], Number):
        _check(node.args[0], text, places, used)
    elif not isinstance(node, Number):
        raise OptionError(f"the ratio {text!r} may hold names of variances, numbers and + - * / ^ ( ) only")


def _evaluate(
    node: Expression, x: np.ndarray, places: Mapping[str, int], size: int
) -> tuple[float, np.ndarray]:
    """Value and gradient."""
    zero = np.zeros(size)
    name = _name(node)
    if name is not None:
        unit = zero.copy()
        unit[places[name]] = 1.0
        return float(x[places[name]]), unit
    if isinstance(node, Number):
        return node.value, zero
    assert isinstance(node, Operation)
    a, da = _evaluate(node.args[0], x, places, size)
    if node.operator == "(" or (node.operator == "+" and len(node.args) == 1):
        return a, da
    if len(node.args) == 1:
        return -a, -da
    if node.operator == "^":
        exponent = node.args[1]
        power = exponent.value if isinstance(exponent, Number) else math.nan
        return a**power, power * a ** (power - 1.0) * da if power else zero
    b, db = _evaluate(node.args[1], x, places, size)
    if node.operator == "+":
        return a + b, da + db
    if node.operator == "-":
        return a - b, da - db
    if node.operator == "*":
        return a * b, b * da + a * db
    if b == 0.0:
        return float("nan"), np.full(size, np.nan)
    return a / b, da / b - a * db / b**2
