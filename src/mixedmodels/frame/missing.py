"""Missing and unusable values: which rows take part, and why the others do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.factors import drop_unused
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["check_weights", "is_clean", "missing_rows", "take_rows"]


def is_clean(value: Value) -> bool:
    """Whether a column has neither a missing nor an infinite value; False may be a false alarm on overflow."""
    if type(value) is np.ndarray:
        return math.isfinite(np.dot(value, value))
    if type(value) is FactorColumn:
        codes = value.codes
        return codes.shape[0] == 0 or bool(np.minimum.reduce(codes) >= 0)
    flat = value.values.ravel(order="K")  # type: ignore[union-attr]
    return math.isfinite(np.dot(flat, flat))


def missing_rows(value: Value, what: str) -> np.ndarray:
    """Rows in which a value is missing (NaN, null, code -1).

    Raises
    ------
    DataError
        If a value is infinite.
    """
    if isinstance(value, FactorColumn):
        return value.codes < 0
    numbers = value.values if isinstance(value, MatrixColumn) else value
    infinite = np.isinf(numbers)
    if infinite.any():
        rows = np.flatnonzero(infinite if infinite.ndim == 1 else infinite.any(axis=1))
        count = f"{rows.shape[0]} infinite value{'s' if rows.shape[0] > 1 else ''}"
        raise DataError(
            f"{what} has {count} (first in row {int(rows[0])}, counting from 0); "
            "replace them by missing values or remove the rows"
        )
    missing = np.isnan(numbers)
    return missing if missing.ndim == 1 else missing.any(axis=1)


def take_rows(value: Value, rows: np.ndarray) -> Value:
    """The rows at `rows`; levels that no longer occur in a factor stay."""
    if isinstance(value, FactorColumn):
        return FactorColumn(value.codes[rows], value.levels, value.ordered, value.contrast)
    if isinstance(value, MatrixColumn):
        return MatrixColumn(value.values[rows], value.suffixes)
    return value[rows]


def without_unused(factor: FactorColumn) -> tuple[FactorColumn, tuple[int, ...]]:
    """The factor without levels that have no row, and the indices of those levels."""
    codes, levels, dropped = drop_unused(factor.codes, factor.levels)
    if not dropped:
        return factor, ()
    return FactorColumn(codes, levels, factor.ordered, factor.contrast), dropped


def check_weights(weights: np.ndarray, what: str) -> np.ndarray | None:
    """Rows with a positive weight, or None if all are positive.

    Raises
    ------
    DataError
        If a weight is negative.
    """
    smallest = np.fmin.reduce(weights) if weights.shape[0] else 1.0
    if smallest > 0.0:
        return None
    if smallest < 0.0:
        row = int(np.flatnonzero(weights < 0.0)[0])
        raise DataError(f"{what} has a negative value ({weights[row]:g} in row {row}); weights must be at least 0")
    return weights != 0.0


def count_missing(masks: Sequence[tuple[str, np.ndarray]]) -> dict[str, int]:
    """Number of rows in which each variable is missing, for those that have any."""
    counts: dict[str, int] = {}
    for name, mask in masks:
        number = int(np.count_nonzero(mask))
        if number:
            counts[name] = max(number, counts.get(name, 0))
    return counts


def describe_missing(counts: dict[str, int], total: int) -> str:
    """One sentence for the messages of a fit."""
    parts = ", ".join(f"{name}: {number}" for name, number in counts.items())
    return f"{total} row{'s' if total != 1 else ''} with missing values left out ({parts})"


def refuse_missing(counts: dict[str, int]) -> Any:
    """The error of ``na_action="fail"``."""
    parts = ", ".join(f"{name}: {number}" for name, number in counts.items())
    raise DataError(f'the data have missing values ({parts}); remove them or use na_action="omit"')
