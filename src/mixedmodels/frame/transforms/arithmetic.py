"""Elementwise functions and operators on numbers and truth values, missing values passing through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, FormulaError
from mixedmodels.frame.labels import level_label
from mixedmodels.frame.transforms.base import Arguments, Logical, Plain, as_number, is_column
from mixedmodels.frame.values import FactorColumn, MatrixColumn

__all__ = ["FUNCTIONS", "operate"]

_LONGEST_SEQUENCE = 100_000

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "%%": np.mod,
    "%/%": np.floor_divide,
}
_COMPARISON: dict[str, Callable[..., Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


def _combine(function: Callable[..., Any], operands: list[Any], label: str) -> Any:
    """Apply a NumPy function to constants, constant vectors and columns, with no recycling of vectors."""
    if any(isinstance(operand, np.ndarray) for operand in operands):
        vectors = [operand for operand in operands if isinstance(operand, list) and len(operand) != 1]
        if vectors:
            raise FormulaError(
                f"'{label}' combines a column with a vector of {len(vectors[0])} constants: use one number"
            )
        operands = [operand[0] if isinstance(operand, list) else operand for operand in operands]
        lengths = {operand.shape[0] for operand in operands if isinstance(operand, np.ndarray)}
        if len(lengths) > 1:
            raise DataError(f"'{label}' combines columns of different lengths")
        with np.errstate(all="ignore"):
            return function(*operands)
    if len({len(operand) for operand in operands if isinstance(operand, list)} - {1}) > 1:
        raise FormulaError(f"'{label}' combines vectors of different lengths")
    with np.errstate(all="ignore"):
        result = function(*[np.asarray(operand, dtype=float) for operand in operands])
    return result.tolist() if result.ndim else result.item()


def _elementwise(function: Callable[[np.ndarray], np.ndarray]) -> Plain:
    def call(arguments: Arguments) -> Any:
        x = as_number(arguments.values["x"], arguments.texts["x"], arguments.function)
        return _combine(function, [x], arguments.label)

    return Plain(("x",), call)


def _log(arguments: Arguments) -> Any:
    x = as_number(arguments.values["x"], arguments.texts["x"], "log")
    if "base" not in arguments:
        return _combine(np.log, [x], arguments.label)
    base = arguments.number("base", np.e)
    if base == 2.0:
        return _combine(np.log2, [x], arguments.label)
    if base == 10.0:
        return _combine(np.log10, [x], arguments.label)
    if not base > 0:
        raise arguments.bad("base", "a positive number")
    return _combine(lambda v: np.log(v) / np.log(base), [x], arguments.label)


def _round(arguments: Arguments) -> Any:
    x = as_number(arguments.values["x"], arguments.texts["x"], "round")
    digits = arguments.whole("digits", 0, -300)
    return _combine(lambda v: np.round(v, digits), [x], arguments.label)


def _identity(arguments: Arguments) -> Any:
    return arguments.values["x"]


def _as_numeric(arguments: Arguments) -> Any:
    """Numbers of a column; of a factor its levels' numbers, or positions from 1 if they are none."""
    value = arguments.values["x"]
    if not isinstance(value, FactorColumn):
        return as_number(value, arguments.texts["x"], arguments.function)
    numbers = np.arange(1.0, len(value.levels) + 1.0)
    if not value.ordered:
        with contextlib.suppress(ValueError):  # labels that are no numbers: positions, as in R
            numbers = np.array([float(level_label(level)) for level in value.levels])
    return np.append(numbers, np.nan)[value.codes]


def _vector(arguments: Arguments) -> Any:
    entries: list[Any] = []
    for _, value, text in arguments.rest:
        if is_column(value):
            raise FormulaError(
                f"'{arguments.label}': c() makes a vector of constants; {text} "
                "is a column (cbind() joins columns)"
            )
        entries.extend(value if isinstance(value, list) else [value])
    return entries


def _ifelse(arguments: Arguments) -> Any:
    test = _truth(arguments.values["test"], arguments.texts["test"], "ifelse")
    yes, no = (as_number(arguments.values[name], arguments.texts[name], "ifelse") for name in ("yes", "no"))
    return _combine(
        lambda t, a, b: np.where(np.isnan(t), np.nan, np.where(t == 1.0, a, b)),
        [test, yes, no],
        arguments.label,
    )


def _extreme(function: Callable[..., Any]) -> Plain:
    def call(arguments: Arguments) -> Any:
        operands = [as_number(value, text, arguments.function) for _, value, text in arguments.rest]
        if not operands:
            raise FormulaError(f"'{arguments.label}' needs arguments")
        result = operands[0]
        for operand in operands[1:]:
            result = _combine(function, [result, operand], arguments.label)
        return result

    return Plain(("...",), call)


def _cbind(arguments: Arguments) -> MatrixColumn:
    """Columns side by side, named as in R: names given, names of plain columns, else none."""
    from mixedmodels.formula.grammar import is_plain_name

    blocks: list[np.ndarray] = []
    names: list[str] = []
    for name, value, text in arguments.rest:
        if isinstance(value, MatrixColumn):
            blocks.append(value.values)
            names.extend(value.suffixes)
            continue
        column = as_number(value, text, "cbind")
        if not isinstance(column, np.ndarray):
            raise FormulaError(f"'{arguments.label}': {text} is a constant; cbind() joins columns")
        blocks.append(column[:, None])
        names.append(name if name is not None else text.strip("`") if is_plain_name(text) else "")
    if not blocks:
        raise FormulaError("cbind() needs columns")
    if len({block.shape[0] for block in blocks}) > 1:
        raise DataError(f"'{arguments.label}' joins columns of different lengths")
    if not any(names):
        names = [str(j + 1) for j in range(len(names))]
    out = np.empty((blocks[0].shape[0], len(names)))
    at = 0
    for block in blocks:
        out[:, at : at + block.shape[1]] = block
        at += block.shape[1]
    return MatrixColumn(out, tuple(names))


def _is_missing(arguments: Arguments) -> Any:
    value = arguments.values["x"]
    if isinstance(value, FactorColumn):
        return Logical((value.codes < 0).astype(float))
    x = as_number(value, arguments.texts["x"], "is.na")
    if not isinstance(x, np.ndarray):
        raise FormulaError(f"'{arguments.label}': is.na() needs a column")
    return Logical(np.isnan(x).astype(float))


FUNCTIONS: dict[str, Plain] = {
    "log": Plain(("x", "base"), _log),
    "round": Plain(("x", "digits"), _round),
    "I": Plain(("x",), _identity),
    "as.numeric": Plain(("x",), _as_numeric),
    "numeric": Plain(("x",), _as_numeric),
    "c": Plain(("...",), _vector),
    "cbind": Plain(("...",), _cbind),
    "ifelse": Plain(("test", "yes", "no"), _ifelse),
    "pmin": _extreme(np.minimum),
    "pmax": _extreme(np.maximum),
    "is.na": Plain(("x",), _is_missing),
    "abs": _elementwise(np.abs),
    "acos": _elementwise(np.arccos),
    "asin": _elementwise(np.arcsin),
    "atan": _elementwise(np.arctan),
    "ceiling": _elementwise(np.ceil),
    "cos": _elementwise(np.cos),
    "cosh": _elementwise(np.cosh),
    "exp": _elementwise(np.exp),
    "expm1": _elementwise(np.expm1),
    "floor": _elementwise(np.floor),
    "log10": _elementwise(np.log10),
    "log1p": _elementwise(np.log1p),
    "log2": _elementwise(np.log2),
    "plogis": _elementwise(lambda x: 0.5 * (1.0 + np.tanh(0.5 * x))),
    "qlogis": _elementwise(lambda x: np.log(x) - np.log1p(-x)),
    "sign": _elementwise(np.sign),
    "sin": _elementwise(np.sin),
    "sinh": _elementwise(np.sinh),
    "sqrt": _elementwise(np.sqrt),
    "tan": _elementwise(np.tan),
    "tanh": _elementwise(np.tanh),
    "trunc": _elementwise(np.trunc),
}


def _truth(value: Any, text: str, operator: str) -> Any:
    """Truth values as numbers 0, 1, NaN; numbers count as true unless 0, as in R."""
    x = as_number(value, text, operator)
    if isinstance(value, Logical):
        return x
    return _combine(lambda v: np.where(np.isnan(v), np.nan, (v != 0).astype(float)), [x], text)


def _logical(result: Any) -> Any:
    """Wrap a result of 0, 1, NaN: a column becomes `Logical`, constants become bool."""
    if isinstance(result, np.ndarray):
        return Logical(result)
    if isinstance(result, list):
        return [bool(entry) for entry in result]
    return bool(result)


def _label_mask(column: FactorColumn, labels: set[str]) -> np.ndarray:
    """1 where the level is among `labels`, NaN where missing."""
    hits = np.array([float(level_label(level) in labels) for level in column.levels] + [np.nan])
    return hits[column.codes]


def _compare(operator: str, left: Any, right: Any, texts: tuple[str, str], label: str) -> Any:
    if isinstance(right, FactorColumn) and not isinstance(left, FactorColumn):
        return _compare(operator, right, left, texts[::-1], label)
    if isinstance(left, FactorColumn):
        if operator not in ("==", "!="):
            raise FormulaError(f"'{label}': levels of {texts[0]} have no size; only == and != compare them")
        if isinstance(right, FactorColumn):
            names = {level_label(level): i for i, level in enumerate(left.levels)}
            matching = np.array([names.get(level_label(level), -2) for level in right.levels] + [-1])[
                right.codes
            ]
            missing = (left.codes < 0) | (right.codes < 0)
            result = np.where(missing, np.nan, (left.codes == matching).astype(float))
        elif isinstance(right, (str, float, bool)):
            result = _label_mask(left, {level_label(right)})
        else:
            raise FormulaError(f"'{label}': compare {texts[0]} with one level, as in {texts[0]} == \"a\"")
        return Logical(result if operator == "==" else 1.0 - result)
    if isinstance(left, str) and isinstance(right, str):
        return bool(left == right) if operator == "==" else bool(left != right)
    a, b = as_number(left, texts[0], f"'{operator}'"), as_number(right, texts[1], f"'{operator}'")
    compare = _COMPARISON[operator]

    def comparison(u: Any, v: Any) -> Any:
        return np.where(np.isnan(u) | np.isnan(v), np.nan, compare(u, v).astype(float))

    return _logical(_combine(comparison, [a, b], label))


def _membership(left: Any, right: Any, texts: tuple[str, str], label: str) -> Any:
    """``x %in% c(...)``: a missing value is not a member, as in R."""
    if is_column(right) or not is_column(left):
        raise FormulaError(
            f"'{label}': %in% asks whether a column's values are among "
            f"constants, as in {texts[0]} %in% c(1, 2)"
        )
    entries = right if isinstance(right, list) else [right]
    if isinstance(left, FactorColumn):
        return Logical(np.nan_to_num(_label_mask(left, {level_label(entry) for entry in entries})))
    x = as_number(left, texts[0], "'%in%'")
    members = as_number(entries, texts[1], "'%in%'")
    return Logical(np.isin(x, members).astype(float))


def operate(operator: str, operands: tuple[Any, ...], texts: tuple[str, ...], label: str) -> Any:
    """Value of one operation; `texts` and `label` are for messages."""
    if len(operands) == 1:
        if operator == "(":
            return operands[0]
        if operator == "!":
            return _logical(_combine(lambda v: 1.0 - v, [_truth(operands[0], texts[0], "'!'")], label))
        x = as_number(operands[0], texts[0], f"'{operator}'")
        return _combine(np.negative, [x], label) if operator == "-" else x
    left, right = operands
    if operator in _ARITHMETIC:
        a, b = as_number(left, texts[0], f"'{operator}'"), as_number(right, texts[1], f"'{operator}'")
        return _combine(_ARITHMETIC[operator], [a, b], label)
    if operator in _COMPARISON:
        return _compare(operator, left, right, (texts[0], texts[1]), label)
    if operator in ("&", "|"):
        a, b = _truth(left, texts[0], f"'{operator}'"), _truth(right, texts[1], f"'{operator}'")
        return _logical(_combine(_and if operator == "&" else _or, [a, b], label))
    if operator == "%in%":
        return _membership(left, right, (texts[0], texts[1]), label)
    if operator == ":" and isinstance(left, float) and isinstance(right, float):
        if not abs(right - left) <= _LONGEST_SEQUENCE:
            raise FormulaError(f"'{label}': a sequence has at most {_LONGEST_SEQUENCE} numbers")
        step = 1.0 if right >= left else -1.0
        return np.arange(left, right + step * 1e-10, step).tolist()
    if operator == ":":
        raise FormulaError(
            f"'{label}': inside a call ':' makes a sequence of numbers; write interactions outside of it"
        )
    raise FormulaError(f"'{label}': write '{operator[0]}' to combine truth values row by row")


def _and(u: Any, v: Any) -> Any:
    """Three-valued: false wins over missing."""
    false = (u == 0.0) | (v == 0.0)
    return np.where(false, 0.0, np.where(np.isnan(u) | np.isnan(v), np.nan, 1.0))


def _or(u: Any, v: Any) -> Any:
    """Three-valued: true wins over missing."""
    true = (u == 1.0) | (v == 1.0)
    return np.where(true, 1.0, np.where(np.isnan(u) | np.isnan(v), np.nan, 0.0))
