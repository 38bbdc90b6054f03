"""What a transform is, and the arguments it is given.

While an expression is evaluated a value is one of

* a constant: float, bool, str or None (NULL); a list is a constant vector, ``c(1, 2)``;
* a column: float array, `Logical`, `FactorColumn` or `MatrixColumn`.

`Plain` functions need no memory. A `Stateful` transform learns from the data of the fit and is applied to
new data with what it has learnt; the learnt state is a dict of plain data and arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, FormulaError
from mixedmodels.frame.labels import level_label
from mixedmodels.frame.values import FactorColumn, MatrixColumn

__all__ = [
    "Arguments",
    "Logical",
    "Plain",
    "State",
    "Stateful",
    "as_factor",
    "as_number",
    "is_column",
    "plain_levels",
]

State = dict[str, Any]

LOGICAL_LEVELS = ("FALSE", "TRUE")


@dataclass(frozen=True, slots=True, eq=False)
class Logical:
    """A column of truth values: 0, 1 or NaN for missing."""

    values: np.ndarray

    def factor(self) -> FactorColumn:
        """As a term of a formula: always two levels, so that the coding does not depend on the rows."""
        missing = np.isnan(self.values)
        codes = np.where(missing, -1.0, self.values).astype(np.int32)
        return FactorColumn(codes, LOGICAL_LEVELS)


def is_column(value: Any) -> bool:
    """Whether a value has one entry per row."""
    return isinstance(value, (np.ndarray, Logical, FactorColumn, MatrixColumn))


def as_number(value: Any, text: str, function: str) -> Any:
    """Float, list of floats or float array of `value`; `text` and `function` name it in an error."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Logical):
        return value.values
    if isinstance(value, (bool, float)):
        return float(value)
    if isinstance(value, list) and all(isinstance(entry, (bool, float)) for entry in value):
        return [float(entry) for entry in value]
    where = f"{function} in the formula" if function.startswith("'") else f"{function}()"
    if isinstance(value, FactorColumn):
        raise DataError(
            f"{text} is categorical, but {where} needs numbers: use a numeric "
            f"column, or leave {text} as a factor"
        )
    if isinstance(value, MatrixColumn):
        raise DataError(f"{text} has several columns, but {where} needs one: make a column first")
    shown = "NULL" if value is None else repr(value)
    raise FormulaError(f"{where} needs numbers, not {shown}")


def plain_levels(levels: Sequence[Any] | np.ndarray) -> list[Any]:
    """Levels as Python scalars that can be written as JSON."""
    if isinstance(levels, np.ndarray) and levels.dtype.kind in "iufb":
        return levels.tolist()
    plain = (level.item() if isinstance(level, np.generic) else level for level in levels)
    return [level if type(level) in (str, int, float, bool) else level_label(level) for level in plain]


def as_factor(value: Any, text: str, function: str) -> FactorColumn:
    """A factor from any column of one value per row; the levels of numbers are sorted by value."""
    if isinstance(value, FactorColumn):
        return value
    if isinstance(value, Logical):
        codes = value.factor().codes
        used = [code for code in (0, 1) if (codes == code).any()]
        return FactorColumn(np.where(codes < 0, -1, codes - used[0] if used else -1).astype(np.int32),
                            tuple(LOGICAL_LEVELS[code] for code in used))  # fmt: skip
    if isinstance(value, np.ndarray):
        missing = np.isnan(value)
        levels, inverse = np.unique(value[~missing], return_inverse=True)
        codes = np.full(value.shape[0], -1, dtype=np.int32)
        codes[~missing] = inverse
        return FactorColumn(codes, tuple(map(level_label, levels.tolist())))
    raise FormulaError(f"{function}() needs one column, not {text}")


@dataclass(frozen=True, slots=True)
class Arguments:
    """Evaluated arguments of one call, by parameter name.

    Attributes
    ----------
    label : str
        The call's text, for messages: ``bs(Days, df = 4)``.
    function : str
        Its function.
    values, texts : mapping
        Value and text of each argument given.
    rest : tuple of (name or None, value, text)
        Arguments of a variadic function.
    strict : bool
        New levels of factors are an error; otherwise they become missing.
    """

    label: str
    function: str
    values: Mapping[str, Any]
    texts: Mapping[str, str]
    rest: tuple[tuple[str | None, Any, str], ...] = ()
    strict: bool = True

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def bad(self, name: str, needed: str) -> FormulaError:
        """The error for an argument that is not what the function needs."""
        return FormulaError(f"'{self.label}': {name} must be {needed}, not {self.texts[name]}")

    def number_column(self, name: str = "x") -> np.ndarray:
        """A float column; an error says why not."""
        value = as_number(self.values[name], self.texts[name], self.function)
        if not isinstance(value, np.ndarray):
            raise FormulaError(
                f"'{self.label}': {self.texts[name]} is a constant; {self.function}() needs a column"
            )
        return value

    def finite_points(self, name: str = "x") -> tuple[np.ndarray, np.ndarray]:
        """The column and its entries that are not missing, which must be finite and there."""
        x = self.number_column(name)
        points = x[~np.isnan(x)]
        if points.size == 0:
            raise DataError(f"'{self.label}': all values of {self.texts[name]} are missing")
        if not np.isfinite(points).all():
            raise DataError(
                f"'{self.label}': {self.texts[name]} holds infinite values; remove them or mark them missing"
            )
        return x, points

    def number(self, name: str, default: float) -> float:
        """A constant number, or `default` if not given."""
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, float):
            raise self.bad(name, "one number")
        return value

    def whole(self, name: str, default: int, least: int) -> int:
        """A constant whole number of at least `least`, or `default` if not given."""
        value = self.number(name, float(default))
        if not math.isfinite(value) or value != int(value) or value < least:
            raise self.bad(name, f"a whole number of at least {least}")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """TRUE or FALSE, or `default` if not given."""
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise self.bad(name, "TRUE or FALSE")

    def vector(self, name: str) -> np.ndarray | None:
        """A constant vector of numbers, or None if not given."""
        value = self.values.get(name)
        if value is None:
            return None
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, float) for entry in entries):
            raise self.bad(name, "numbers, as in c(1, 2)")
        return np.array(entries, dtype=float)

    def labels(self, name: str) -> list[str] | None:
        """A constant vector of texts (numbers are spelled out), or None if not given."""
        value = self.values.get(name)
        if value is None:
            return None
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, (str, float, bool)) for entry in entries):
            raise self.bad(name, 'labels, as in c("a", "b")')
        return [level_label(entry) for entry in entries]


@dataclass(frozen=True, slots=True)
class Plain:
    """A function without memory; ``"..."`` as only parameter makes it variadic."""

    parameters: tuple[str, ...]
    call: Callable[[Arguments], Any]


@dataclass(frozen=True, slots=True)
class Stateful:
    """A transform with memory: `learn` returns the value and the state, `apply` uses the state."""

    parameters: tuple[str, ...]
    learn: Callable[[Arguments], tuple[Any, State]]
    apply: Callable[[Arguments, State], Any]
