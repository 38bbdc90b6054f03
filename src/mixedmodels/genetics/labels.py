"""Labels of individuals: reading id columns, matching parents, finding individuals by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.labels import level_label, level_labels
from mixedmodels.frame.values import FactorColumn

__all__ = ["UNKNOWN", "Finder", "code_labels", "coded_labels", "label_column"]

Labels = tuple[np.ndarray, np.ndarray | None]

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
    labels, codes = coded_labels(raw, what)
    return labels if codes is None else labels[codes]


def coded_labels(raw: Any, what: str) -> Labels:
    """The labels of a column as `label_column` gives them, but once each with a code per row where they come
    so.

    Returns
    -------
    labels : ndarray of int64 or object
    codes : ndarray of int, shape (n,), or None
        None if `labels` has one entry per row.
    """
    if isinstance(raw, FactorColumn):
        levels = np.empty(len(raw.levels) + 1, dtype=object)
        texts = np.asarray(raw.levels, dtype=object).tolist()
        levels[:-1] = [v.strip() if type(v) is str else level_label(v).strip() for v in texts]
        levels[-1] = None  # code -1
        return levels, np.asarray(raw.codes)
    return _row_labels(raw, what), None


def _row_labels(raw: Any, what: str) -> np.ndarray:
    if isinstance(raw, np.ma.MaskedArray):
        if not np.ma.getmaskarray(raw).any():
            return _row_labels(np.asarray(raw.data), what)
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
        items = values.tolist()
        labels = np.empty(len(items), dtype=object)
        if set(map(type, items)) <= {str}:
            labels[:] = [v.strip() for v in items]
        else:
            labels[:] = [None if _is_missing(v) else v if isinstance(v, int) else _text(v) for v in items]
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


def code_labels(columns: Sequence[Labels], unknown: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """One code per distinct label over several columns.

    Parameters
    ----------
    columns : sequence of (labels, codes)
        From `coded_labels`; the first holds the individuals, the others parents.
    unknown : sequence of str
        Texts of the parents' columns that stand for nobody.

    Returns
    -------
    codes : list of ndarray of int64, shape (n,)
        -1 for missing and unknown labels (in the first column: for missing ones).
    labels : ndarray of int64 or object
        Label of each code: whole numbers if all labels are, else texts.
    """
    numbers = _as_numbers([labels for labels, _ in columns], unknown)
    found = _code_numbers(*numbers) if numbers is not None else _code_texts(columns, unknown)
    codes = [code if rows is None else code[rows] for code, (_, rows) in zip(found[0], columns, strict=True)]
    return codes, found[1]


def _code_numbers(values: list[np.ndarray], missing: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    present = [v[~m] for v, m in zip(values, missing, strict=True)]
    labels, inverse = np.unique(np.concatenate(present), return_inverse=True)
    codes, at = [], 0
    for gap, some in zip(missing, present, strict=True):
        code = np.full(len(gap), -1, dtype=np.int64)
        code[~gap] = inverse[at : at + len(some)]
        at += len(some)
        codes.append(code)
    return codes, labels


def _code_texts(columns: Sequence[Labels], unknown: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    nobody = set(unknown)
    table: dict[str | None, int] = {}
    codes = []
    for place, (labels, _) in enumerate(columns):
        gone = {None, "", *nobody} if place else {None, ""}
        texts = _texts(labels).tolist()
        table.update(dict.fromkeys([t for t in texts if t not in gone and t not in table]))
        number = dict(zip(table, range(len(table)), strict=True))
        number.update(dict.fromkeys(gone, -1))
        codes.append(np.array([number[t] for t in texts], dtype=np.int64))
    out = np.empty(len(table), dtype=object)
    out[:] = list(table)
    return codes, out


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
