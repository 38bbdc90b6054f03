"""Missing and unusable values: which rows take part, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.factors import drop_unused
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value
from mixedmodels.solver._kernels.columns import all_finite, none_missing

__all__ = [
    "check_finite",
    "check_weights",
    "count_missing",
    "describe_missing",
    "is_clean",
    "missing_rows",
    "refuse_missing",
    "take_rows",
    "without_unused",
]


def is_clean(value: Value) -> bool:
    """Whether a column has no missing and no infinite value."""
    if isinstance(value, FactorColumn):
        codes = value.codes
        return none_missing(codes) if codes.dtype == np.int32 and codes.ndim == 1 else not (codes < 0).any()
    numbers = value.values.ravel(order="K") if isinstance(value, MatrixColumn) else value
    return all_finite(np.asarray(numbers, dtype=np.float64))


def missing_rows(value: Value) -> np.ndarray:
    """Rows in which a value is missing (NaN, null, code -1)."""
    if isinstance(value, FactorColumn):
        return value.codes < 0
    if isinstance(value, MatrixColumn):
        return np.isnan(value.values).any(axis=1)
    return np.isnan(value)


def check_finite(value: Value, what: str) -> None:
    """Refuse infinite values.

    Raises
    ------
    DataError
        If a value is infinite.
    """
    if isinstance(value, FactorColumn) or is_clean(value):
        return
    numbers = value.values if isinstance(value, MatrixColumn) else value
    infinite = np.isinf(numbers)
    if infinite.any():
        rows = np.flatnonzero(infinite if infinite.ndim == 1 else infinite.any(axis=1))
        number = rows.shape[0]
        raise DataError(
            f"{what} has {number} infinite value{'s' if number > 1 else ''}; "
            "replace them by missing values or remove the rows"
        )


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
        raise DataError(
            f"{what} has a negative value ({weights[row]:g} in row {row}); weights must be at least 0"
        )
    return weights != 0.0


def count_missing(masks: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Number of rows in which each variable is missing, for those that have any."""
    counts = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    return {name: number for name, number in counts.items() if number}


def describe_missing(counts: dict[str, int], total: int) -> str:
    """One sentence for the messages of a fit."""
    parts = ", ".join(f"{name}: {number}" for name, number in counts.items())
    return f"{total} row{'s' if total != 1 else ''} with missing values left out ({parts})"


def refuse_missing(counts: dict[str, int]) -> NoReturn:
    """The error of ``na_action="fail"``."""
    parts = ", ".join(f"{name}: {number}" for name, number in counts.items())
    raise DataError(f'the data have missing values ({parts}); remove them or use na_action="omit"')
