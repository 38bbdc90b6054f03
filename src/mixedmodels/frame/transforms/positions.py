"""Positions in time or space as levels: ``numFactor(x, y)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.errors import DataError, FormulaError
from mixedmodels.frame.labels import level_label, level_labels
from mixedmodels.frame.transforms.base import Arguments, Logical, State, Stateful, as_factor, plain_levels
from mixedmodels.frame.transforms.factors import recode
from mixedmodels.frame.values import FactorColumn, MatrixColumn

__all__ = ["TRANSFORMS", "coordinates_of"]


def coordinates_of(levels: Any, what: str) -> np.ndarray:
    """Coordinates of levels such as ``(1.5,2)`` or ``0.25``, shape (m, dimensions).

    Raises
    ------
    DataError
        A level does not read as numbers.

    Examples
    --------
    >>> coordinates_of(["(1.5,2)", "(0,1)"], "pos").tolist()
    [[1.5, 2.0], [0.0, 1.0]]
    """
    rows = []
    for label in level_labels(levels):
        try:
            rows.append([float(part) for part in label.strip().strip("()").split(",")])
        except ValueError:
            raise DataError(
                f"level {label!r} of {what} is not a position; give numbers: numFactor(x, y), or a numeric "
                "column"
            ) from None
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"the positions of {what} do not all have equally many coordinates")
    return np.array(rows, dtype=np.float64)


def _spelled(points: np.ndarray) -> list[str]:
    """Labels that read back as the same numbers."""
    texts = [[level_label(float(x)) if float(level_label(float(x))) == x else repr(float(x)) for x in row]
             for row in points]  # fmt: skip
    return [row[0] if len(row) == 1 else f"({','.join(row)})" for row in texts]


def _points(arguments: Arguments) -> np.ndarray:
    """Numeric arguments side by side, shape (n, dimensions)."""
    columns = []
    for name, value, text in arguments.rest:
        if name is not None:
            raise FormulaError(f"'{arguments.label}': numFactor() takes columns, not {name}=")
        if isinstance(value, Logical) or not isinstance(value, (np.ndarray, MatrixColumn)):
            raise FormulaError(f"'{arguments.label}': {text} is not a numeric column")
        columns.append(value.values if isinstance(value, MatrixColumn) else value[:, None])
    return np.concatenate(columns, axis=1)


def _learn(arguments: Arguments) -> tuple[FactorColumn, State]:
    if not arguments.rest:
        raise FormulaError(f"'{arguments.label}': numFactor() needs numeric columns, as in numFactor(x, y)")
    _, value, text = arguments.rest[0]
    if len(arguments.rest) == 1 and isinstance(value, (FactorColumn, Logical)):
        column = as_factor(value, text, "numFactor")  # already levels: all are kept, also unused ones
        return column, {"levels": plain_levels(column.levels), "numeric": False}
    points = _points(arguments)
    there = ~np.isnan(points).any(axis=1)
    if not np.isfinite(points[there]).all():
        raise DataError(f"'{arguments.label}' holds infinite positions; remove them or mark them missing")
    distinct = np.unique(points[there], axis=0)
    state = {"levels": _spelled(distinct), "numeric": True}
    return _apply(arguments, state), state


def _apply(arguments: Arguments, state: State) -> FactorColumn:
    levels = state["levels"]
    _, value, text = arguments.rest[0]
    label = f"'{arguments.label}'"
    if not state["numeric"]:
        column = as_factor(value, text, "numFactor")
        return FactorColumn(recode(column, levels, label, strict=arguments.strict), tuple(levels))
    points = _points(arguments)
    there = ~np.isnan(points).any(axis=1)
    distinct, inverse = np.unique(points[there], axis=0, return_inverse=True)
    codes = np.full(points.shape[0], -1, dtype=np.int32)
    codes[there] = inverse.reshape(-1)
    column = FactorColumn(codes, tuple(_spelled(distinct)))
    if state.get("open"):  # positions that the fit has not seen become further levels
        levels = [*levels, *[text for text in column.levels if text not in set(levels)]]
    return FactorColumn(recode(column, levels, label, strict=arguments.strict), tuple(levels))


TRANSFORMS: dict[str, Stateful] = {"numFactor": Stateful(("...",), _learn, _apply)}
