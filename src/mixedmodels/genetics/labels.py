"""Labels of individuals: reading id columns, matching parents, finding individuals by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.labels import level_label, level_labels
from mixedmodels.frame.values import FactorColumn

__all__ = ["UNKNOWN", "Finder", "code_labels", "label_column"]

UNKNOWN = ("0", "", "NA", ".")
"""Texts that stand for an unknown parent, beside missing values."""


def label_column(raw: Any, what: str) -> np.ndarray:
    """Labels of one column: int64 where all are whole numbers, else objects (texts); None where missing.

    Parameters
    ----------
    raw : array, masked array or FactorColumn
        As `mixedmodels.frame.columns.Columns.raw` gives it.
    what : str
        Name of the column for messages.

    Returns
    -------
    ndarray of int64 or object, shape (n,)

    Raises
    ------
    DataError
        If the labels are numbers that are not whole.
    """
    if isinstance(raw, FactorColumn):
        levels = np.empty(len(raw.levels) + 1, dtype=object)
        levels[:-1] = [level.strip() for level in level_labels(raw.levels)]
        levels[-1] = None
        return levels[raw.codes]
    if isinstance(raw, np.ma.MaskedArray):
        if not np.ma.getmaskarray(raw).any():
            return label_column(np.asarray(raw.data), what)
        labels = np.asarray(raw.data).astype(object)
        labels[np.ma.getmaskarray(raw)] = None
        return labels
    values = np.asarray(raw)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        present = values[~missing]
        if not np.all(np.isfinite(present)) or np.any(present != np.floor(present)):
            odd = present[~(np.isfinite(present) & (present == np.floor(present)))][0]
            raise DataError(
                f"column {what!r} holds {odd}, which is no id: ids are texts or whole numbers; turn the "
                "column into text"
            )
        whole = np.where(missing, 0, values).astype(np.int64)
        if not missing.any():
            return whole
        labels = whole.astype(object)
        labels[missing] = None
        return labels
    if values.dtype.kind == "O":
        labels = np.empty(len(values), dtype=object)
        labels[:] = [
            None if _is_missing(v) else v if isinstance(v, int) else _text(v) for v in values.tolist()
        ]
        return labels
    labels = np.empty(len(values), dtype=object)
    labels[:] = [level_label(v).strip() for v in values]
    return labels


def _text(value: Any) -> str:
    return level_label(value).strip()


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _texts(labels: np.ndarray) -> np.ndarray:
    """The labels as texts; None stays."""
    if labels.dtype.kind == "i":
        out = np.empty(len(labels), dtype=object)
        out[:] = list(map(str, labels.tolist()))
        return out
    out = np.empty(len(labels), dtype=object)
    out[:] = [None if v is None else v if isinstance(v, str) else str(v) for v in labels]
    return out


def code_labels(columns: Sequence[np.ndarray], unknown: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """One code per distinct label over several columns.

    Parameters
    ----------
    columns : sequence of ndarray
        From `label_column`; the first holds the individuals, the others parents.
    unknown : sequence of str
        Texts of the parents' columns that stand for nobody.

    Returns
    -------
    codes : list of ndarray of int64, shape (n,)
        -1 for missing and unknown labels (in the first column: for missing ones).
    labels : ndarray of int64 or object
        Label of each code: whole numbers if all labels are, else texts.
    """
    numbers = _as_numbers(columns, unknown)
    if numbers is not None:
        values, missing = numbers
        labels, inverse = np.unique(
            np.concatenate([v[~m] for v, m in zip(values, missing, strict=True)]), return_inverse=True
        )
        codes, at = [], 0
        for v, m in zip(values, missing, strict=True):
            code = np.full(len(v), -1, dtype=np.int64)
            size = len(v) - int(np.count_nonzero(m))
            code[~m] = inverse[at : at + size]
            at += size
            codes.append(code)
        return codes, labels
    nobody = set(unknown)
    table: dict[str, int] = {}
    codes = []
    for place, column in enumerate(columns):
        texts = _texts(column).tolist()
        code = np.empty(len(texts), dtype=np.int64)
        for i, text in enumerate(texts):
            if text is None or (place and text in nobody) or text == "":
                code[i] = -1
            else:
                code[i] = table.setdefault(text, len(table))
        codes.append(code)
    labels = np.empty(len(table), dtype=object)
    labels[:] = list(table)
    return codes, labels


def _as_numbers(
    columns: Sequence[np.ndarray], unknown: Sequence[str]
) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Values and missing marks of the columns if all labels are whole numbers, else None."""
    nobody = set(unknown)
    whole = [int(u) for u in unknown if u.lstrip("-").isdigit()]
    values, missing = [], []
    for place, column in enumerate(columns):
        if column.dtype.kind == "i":
            value, gap = column, np.zeros(len(column), dtype=bool)
        else:
            objects = column.tolist()
            gap = np.array([v is None or v == "" or (place > 0 and v in nobody) for v in objects], dtype=bool)
            kept = column[~gap]
            if not all(type(v) is int for v in kept.tolist()):
                return None
            value = np.zeros(len(column), dtype=np.int64)
            value[~gap] = kept.astype(np.int64)
        if place:
            gap = gap | np.isin(value, whole)
        values.append(value)
        missing.append(gap)
    return values, missing


class Finder:
    """Positions of individuals by label; whole numbers and their texts are the same label.

    Parameters
    ----------
    ids : ndarray, shape (n,)
        Distinct labels.
    """

    __slots__ = ("_ids", "_order", "_sorted", "_table")

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids
        self._order: np.ndarray | None = None
        self._sorted: np.ndarray | None = None
        self._table: dict[str, int] | None = None

    def positions(self, labels: Any) -> np.ndarray:
        """Position of each label, (k,) int64; -1 where there is none."""
        array = np.asarray(labels) if not isinstance(labels, str) else np.array([labels], dtype=object)
        array = np.atleast_1d(array)
        if array.dtype.kind in "iu" and self._ids.dtype.kind in "iu":
            if self._order is None:
                self._order = np.argsort(self._ids, kind="stable")
                self._sorted = self._ids[self._order]
            assert self._sorted is not None
            if not len(self._sorted):
                return np.full(len(array), -1, dtype=np.int64)
            at = np.minimum(np.searchsorted(self._sorted, array), len(self._sorted) - 1)
            return np.where(self._sorted[at] == array, self._order[at], -1)
        if self._table is None:
            self._table = {label: i for i, label in enumerate(level_labels(self._ids))}
        find = self._table.get
        return np.array([find(label, -1) for label in level_labels(array.tolist())], dtype=np.int64)
