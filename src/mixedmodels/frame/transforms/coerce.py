"""Types of columns: what a column of any accepted type becomes, and what new data must match."""

from __future__ import annotations

import datetime
import numbers
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.labels import level_label
from mixedmodels.frame.transforms.base import Logical, State, as_factor, plain_levels
from mixedmodels.frame.transforms.factors import new_level_error, recode
from mixedmodels.frame.values import FactorColumn, MatrixColumn

__all__ = ["coerce", "describe", "match_type"]

_MISSING_OBJECTS = ("NAType", "NaTType", "NoneType")


def coerce(raw: Any, what: str) -> Any:
    """A column of any accepted type as float array, `Logical`, `FactorColumn` or `MatrixColumn`."""
    if isinstance(raw, FactorColumn):
        levels = raw.levels
        if 0 < len(levels) <= 2 and all(isinstance(level, (bool, np.bool_)) for level in levels):
            return Logical(np.append(np.asarray(levels, dtype=float), np.nan)[raw.codes])
        return raw
    if isinstance(raw, (MatrixColumn, Logical)):
        return raw
    array = raw if isinstance(raw, np.ndarray) else np.asarray(raw)
    if isinstance(array, np.ma.MaskedArray):
        if array.dtype.kind not in "iufb":
            raise DataError(
                f"{what} is a masked array of {array.dtype}; fill its gaps with None in an object array"
            )
        logical = array.dtype.kind == "b"
        values = np.ma.filled(array.astype(float), np.nan)
        return Logical(values) if logical else values
    kind = array.dtype.kind
    if array.ndim == 2 and kind in "iufb":
        return MatrixColumn(array.astype(float), tuple(str(j + 1) for j in range(array.shape[1])))
    if array.ndim != 1:
        raise DataError(f"{what} has {array.ndim} dimensions; it must have one value per row")
    if kind == "f":
        return array if array.dtype == np.float64 else array.astype(float)
    if kind in "iu":
        return array.astype(float)
    if kind == "b":
        return Logical(array.astype(float))
    if kind in "mM":
        return _days(array)
    if kind in "UST":
        return _text_factor(array.astype(object), np.zeros(array.shape[0], dtype=bool))
    if kind == "O":
        return _coerce_objects(array, what)
    raise DataError(f"{what} holds {array.dtype}, which a model cannot use: make it numeric or text")


def _days(array: np.ndarray) -> np.ndarray:
    """Dates as days since 1970-01-01 and durations as days, with fractions; NaT is NaN."""
    days = array.astype(f"{array.dtype.kind}8[us]").astype(np.int64) / 86_400_000_000
    days[np.isnat(array)] = np.nan
    return days


def _text_factor(array: np.ndarray, missing: np.ndarray) -> FactorColumn:
    texts = np.array(
        [entry.decode() if isinstance(entry, bytes) else str(entry) for entry in array[~missing]],
        dtype=object,
    )
    levels, inverse = np.unique(texts, return_inverse=True) if texts.size else (texts, np.empty(0, dtype=int))
    codes = np.full(array.shape[0], -1, dtype=np.int32)
    codes[~missing] = inverse
    return FactorColumn(codes, tuple(levels.tolist()))


def _coerce_objects(array: np.ndarray, what: str) -> Any:
    missing = np.array(
        [type(e).__name__ in _MISSING_OBJECTS or (isinstance(e, float) and e != e) for e in array], dtype=bool
    )
    present = array[~missing]
    values = np.full(array.shape[0], np.nan)
    if all(isinstance(entry, (bool, np.bool_)) for entry in present) and present.size:
        values[~missing] = present.astype(float)
        return Logical(values)
    if all(isinstance(entry, (numbers.Number, np.bool_)) or hasattr(entry, "as_tuple") for entry in present):
        values[~missing] = [float(entry) for entry in present]
        return values
    if all(isinstance(entry, (str, bytes)) for entry in present):
        return _text_factor(array, missing)
    if all(isinstance(entry, (datetime.date, np.datetime64)) for entry in present):
        values[~missing] = _days(present.astype("datetime64[us]"))
        return values
    kinds = sorted({type(entry).__name__ for entry in present})
    raise DataError(f"{what} mixes values of type {', '.join(kinds)}: make them all numbers or all text")


def describe(value: Any) -> State:
    """What new data must match."""
    if isinstance(value, FactorColumn):
        return {"type": "factor", "levels": plain_levels(value.levels), "ordered": value.ordered}
    if isinstance(value, Logical):
        return {"type": "logical"}
    if isinstance(value, MatrixColumn):
        return {"type": "matrix", "columns": value.values.shape[1]}
    return {"type": "numeric"}


def match_type(value: Any, state: State, name: str, lenient: bool, strict: bool = True) -> Any:
    """A column of new data as the type that it had in the fit.

    New levels are an error if `strict`, missing if not; with `lenient` they come after the old ones.
    """
    kind = state["type"]
    if kind == "factor":
        levels = state["levels"]
        column = value if isinstance(value, FactorColumn) else as_factor(value, f"column {name!r}", "factor")
        if lenient:
            known = set(map(level_label, levels))
            levels = levels + [text for text in map(level_label, column.levels) if text not in known]
        codes = recode(column, levels, f"column {name!r}", strict=strict)
        return FactorColumn(codes, tuple(levels), ordered=state["ordered"])
    if kind == "numeric" and isinstance(value, Logical):
        return value.values
    if kind == "numeric" and isinstance(value, np.ndarray):
        return value
    if kind == "logical":
        return _match_logical(value, name)
    if kind == "matrix" and isinstance(value, MatrixColumn) and value.values.shape[1] == state["columns"]:
        return value
    found = (
        "categorical"
        if isinstance(value, FactorColumn)
        else "a matrix"
        if isinstance(value, MatrixColumn)
        else "numeric"
    )
    raise DataError(
        f"column {name!r} was {kind} in the fit and is {found} in the new data: give it the same type"
    )


def _match_logical(value: Any, name: str) -> Logical:
    if isinstance(value, Logical):
        return value
    if isinstance(value, FactorColumn):
        truth = {"TRUE": 1.0, "True": 1.0, "1": 1.0, "FALSE": 0.0, "False": 0.0, "0": 0.0}
        table = [truth.get(level_label(level), -1.0) for level in value.levels]
        if -1.0 in table:
            labels = map(level_label, value.levels)
            unknown = [label for label, code in zip(labels, table, strict=True) if code < 0]
            raise new_level_error(f"column {name!r}", unknown, ("FALSE", "TRUE"))
        return Logical(np.array([*table, np.nan])[value.codes])
    if isinstance(value, np.ndarray) and np.isin(value[~np.isnan(value)], (0.0, 1.0)).all():
        return Logical(value)
    raise DataError(
        f"column {name!r} was logical in the fit: give TRUE and FALSE, or 1 and 0, in the new data"
    )
