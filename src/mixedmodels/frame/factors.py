"""Integer codes for grouping factors and categorical columns, and their levels in R's order.

Codes are int32, 0 .. m-1 in the order of the levels, -1 for a missing value. Numbers sort by value;
texts sort by Unicode code point (R's C locale: upper case before lower case, whatever the machine's
language); categoricals keep the order of their categories. Levels without a row are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.labels import level_label, level_labels
from mixedmodels.frame.values import FactorColumn
from mixedmodels.solver._kernels.columns import every_level, text_codes

__all__ = [
    "LOGICAL",
    "CategoryLevels",
    "InteractionLevels",
    "code_column",
    "code_integers",
    "code_strings",
    "code_texts",
    "coded_in",
    "drop_unused",
    "interact",
    "joined",
    "match_interaction",
    "match_levels",
]

LOGICAL = np.array(["FALSE", "TRUE"], dtype=object)  # levels of truth values, as R spells them

_CHUNK = 1 << 16  # rows per pass: the shifted copy of a chunk stays in the cache


class CategoryLevels(Sequence[Any]):
    """Texts or other objects that a data-frame library keeps in a form of its own, converted when asked for.

    Parameters
    ----------
    source : immutable sequence with ``to_list``
        For instance the categories of a pandas categorical.
    """

    __slots__ = ("_array", "_length", "source")

    def __init__(self, source: Any) -> None:
        self.source = source
        self._length = len(source)
        self._array: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """The levels as an array of objects."""
        if self._array is None:
            self._array = np.empty(len(self.source), dtype=object)
            self._array[:] = self.source.to_list()
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __repr__(self) -> str:
        return repr(self.values)


class InteractionLevels(Sequence[str]):
    """Labels ``"a1:b1"`` of the observed combinations of several factors, written out only when asked for.

    Parameters
    ----------
    levels : sequence of sequences
        Levels of each factor.
    combinations : ndarray of int32, shape (m, number of factors)
        Code of each factor in each combination; rows are sorted.
    """

    __slots__ = ("combinations", "levels")

    def __init__(self, levels: Sequence[Any], combinations: np.ndarray) -> None:
        self.levels = tuple(levels)
        self.combinations = combinations

    def __len__(self) -> int:
        return self.combinations.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.combinations[index]
        return ":".join(level_label(levels[code]) for levels, code in zip(self.levels, row, strict=True))

    def __repr__(self) -> str:
        shown = ", ".join(repr(self[i]) for i in range(min(3, len(self))))
        return f"<{len(self)} levels: {shown}{', ...' if len(self) > 3 else ''}>"


def code_integers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and sorted levels of integers.

    A range of values not much longer than the column is coded through a table in two passes, O(n) and sorted
    for free; a wide range through sorting, of 16-bit digits where that is faster.

    Parameters
    ----------
    values : ndarray of any integer dtype, shape (n,)

    Returns
    -------
    codes : ndarray of int32, shape (n,)
    levels : ndarray of int64 (or the dtype of `values` if wider), shape (m,)
    """
    n = values.shape[0]
    if n == 0:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    low = int(np.minimum.reduce(values))
    high = int(np.maximum.reduce(values))
    span = high - low + 1
    if span > 8 * n + 256 or high >= 2**62 or low <= -(2**62):
        if n > 4096 and span <= 2**32:
            return _code_by_radix(values, low, span)
        levels, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int32), levels
    if values.dtype.itemsize < 8 or values.dtype.kind == "u":
        values = values.astype(np.int64)
    present = np.zeros(span, dtype=bool)
    if n <= _CHUNK:
        shifted = values - low
        present[shifted] = True
        (levels,) = present.nonzero()
        if levels.shape[0] == span:
            codes = shifted.astype(np.int32)
        else:
            table = np.empty(span, dtype=np.int32)
            table[levels] = np.arange(levels.shape[0], dtype=np.int32)
            codes = table[shifted]
        return codes, levels + low
    for start in range(0, n, _CHUNK):
        present[values[start : start + _CHUNK] - low] = True
    (levels,) = present.nonzero()
    codes = np.empty(n, dtype=np.int32)
    if levels.shape[0] == span:
        np.subtract(values, low, out=codes, casting="unsafe")
        return codes, levels + low
    table = np.empty(span, dtype=np.int32)
    table[levels] = np.arange(levels.shape[0], dtype=np.int32)
    for start in range(0, n, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        table.take(values[chunk] - low, out=codes[chunk], mode="clip")
    return codes, levels + low


def _code_by_radix(values: np.ndarray, low: int, span: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of integers from `low` to ``low + span - 1`` by radix sorting of 16-bit digits, O(n)."""
    shifted = (values - low if values.dtype.itemsize == 8 else values.astype(np.int64) - low).astype(
        np.uint32
    )
    order = np.argsort(shifted.astype(np.uint16), kind="stable")  # stable sorting of 16 bits is a radix sort
    if span > 2**16:
        order = order[np.argsort((shifted >> 16).astype(np.uint16)[order], kind="stable")]
    in_order = values[order]
    first = np.empty(values.shape[0], dtype=bool)
    first[0] = True
    np.not_equal(in_order[1:], in_order[:-1], out=first[1:])
    codes = np.empty(values.shape[0], dtype=np.int32)
    codes[order] = np.cumsum(first, dtype=np.int32) - 1
    return codes, in_order[first]


def code_strings(values: list[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes and sorted levels of texts, as ``sort_levels(*code_texts(values))``; None if one is not text."""
    found = text_codes(values)
    if found is None:
        return None
    levels = np.empty(len(found[1]), dtype=object)
    levels[:] = found[1]
    return found[0], levels


def code_texts(values: list[Any]) -> tuple[np.ndarray, list[Any]]:
    """Codes in order of appearance and distinct values of hashable objects, by hashing.

    Raises
    ------
    DataError
        A value cannot be hashed (a list, a set).
    """
    try:
        table = {value: code for code, value in enumerate(dict.fromkeys(values))}
    except TypeError as error:
        raise DataError(f"a column holds values that cannot be labels ({error})") from None
    return np.fromiter(map(table.__getitem__, values), dtype=np.int32, count=len(values)), list(table)


def sort_levels(codes: np.ndarray, levels: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Renumber codes so that the levels are sorted; missing codes (-1) stay."""
    array = np.empty(len(levels), dtype=object)
    array[:] = levels
    try:
        order = np.argsort(array, kind="stable")
    except TypeError:
        array[:] = [level_label(level) for level in levels]
        order = np.argsort(array, kind="stable")
    table = np.empty(len(levels) + 1, dtype=np.int32)
    table[order] = np.arange(len(levels), dtype=np.int32)
    table[-1] = -1  # code -1 reads the last entry
    return table[codes], array[order]


def drop_unused(codes: np.ndarray, levels: Any) -> tuple[np.ndarray, Any, tuple[int, ...]]:
    """Drop levels without a row; keeps the order.

    Returns
    -------
    codes, levels
        The same objects if every level occurs.
    dropped : tuple of int
        Indices of the levels dropped.
    """
    m = len(levels)
    if codes.ndim == 1 and codes.dtype == np.int32 and every_level(codes, m):
        return codes, levels, ()
    present = np.zeros(m + 1, dtype=bool)  # the last entry catches -1
    present[codes] = True
    present = present[:m]
    if np.count_nonzero(present) == m:
        return codes, levels, ()
    (kept,) = present.nonzero()
    table = np.full(m + 1, -1, dtype=np.int32)
    table[kept] = np.arange(kept.shape[0], dtype=np.int32)
    dropped = tuple(np.flatnonzero(~present).tolist())
    return table[codes], take_levels(levels, kept), dropped


def take_levels(levels: Any, kept: np.ndarray) -> Any:
    """The levels at the indices `kept`, in the same kind of container."""
    if isinstance(levels, InteractionLevels):
        return InteractionLevels(levels.levels, levels.combinations[kept])
    if isinstance(levels, (np.ndarray, CategoryLevels)):
        return levels[kept]
    return tuple(levels[i] for i in kept.tolist())


def code_column(values: np.ndarray) -> FactorColumn:
    """Factor of a plain or masked NumPy column of any kind.

    Parameters
    ----------
    values : ndarray or masked array, shape (n,)
        Masked entries, NaN and NaT are missing.

    Returns
    -------
    FactorColumn
    """
    if isinstance(values, np.ma.MaskedArray):
        return _code_present(np.asarray(values.data), ~np.ma.getmaskarray(values))
    kind = values.dtype.kind
    if kind in "iu":
        return FactorColumn(*code_integers(values))
    if kind == "b":
        return FactorColumn(*drop_unused(values.astype(np.int32), LOGICAL)[:2])
    if kind == "f":
        missing = np.isnan(values)
        if missing.any():
            return _code_present(values, ~missing)
        if bool((values == np.trunc(values)).all()) and bool((np.abs(values) < 2.0**53).all()):
            return FactorColumn(*code_integers(values.astype(np.int64)))
    elif kind == "m":  # labels in days, whatever the unit of storage
        return code_column(values / np.timedelta64(1, "D"))
    elif kind == "M":
        missing = np.isnat(values)
        if missing.any():
            return _code_present(values, ~missing)
        levels, codes = np.unique(values, return_inverse=True)
        return FactorColumn(codes.astype(np.int32), np.array(level_labels(levels), dtype=object))
    elif kind in "US":
        texts = values if kind == "U" else np.char.decode(values, "utf-8", "replace")
        return FactorColumn(*sort_levels(*code_texts(texts.tolist())))
    levels, codes = np.unique(values, return_inverse=True)
    return FactorColumn(codes.astype(np.int32), levels)


def _code_present(values: np.ndarray, present: np.ndarray) -> FactorColumn:
    """Factor of the entries where `present` holds, -1 elsewhere."""
    inner = code_column(values[present])
    codes = np.full(values.shape[0], -1, dtype=np.int32)
    codes[present] = inner.codes
    return FactorColumn(codes, inner.levels)


def interact(factors: Sequence[FactorColumn]) -> FactorColumn:
    """The factor ``a:b:...`` of the observed combinations, sorted by the codes of a, then b, and so on.

    The full cross product is never formed. A row missing in any factor is missing.
    """
    codes = factors[0].codes
    combinations = np.arange(len(factors[0].levels), dtype=np.int32)[:, None]
    for factor in factors[1:]:
        width = len(factor.levels)
        key = codes.astype(np.int64)
        key *= width
        key += factor.codes
        if codes.shape[0] and (np.minimum.reduce(codes) < 0 or np.minimum.reduce(factor.codes) < 0):
            inner = _code_present(key, (codes >= 0) & (factor.codes >= 0))
        else:
            inner = FactorColumn(*code_integers(key))
        codes = inner.codes
        first = np.asarray(inner.levels, dtype=np.int64) // width
        extended = np.empty((first.shape[0], combinations.shape[1] + 1), dtype=np.int32)
        extended[:, :-1] = combinations[first]
        extended[:, -1] = inner.levels - first * width
        combinations = extended
    return FactorColumn(codes, InteractionLevels([f.levels for f in factors], combinations))


def joined(factors: Sequence[FactorColumn]) -> FactorColumn:
    """Several columns of one set of levels: codes of shape (n, number of columns) into all their levels."""
    levels: Any
    if all(_kind(factor.levels) in ("i", "u") for factor in factors):
        levels = np.unique(np.concatenate([factor.levels for factor in factors]))
    else:
        texts = dict.fromkeys(label for factor in factors for label in level_labels(factor.levels))
        levels = np.array(list(texts), dtype=object)
    return coded_in(factors, levels)[0]


def coded_in(factors: Sequence[FactorColumn], levels: Any) -> tuple[FactorColumn, tuple[str, ...]]:
    """Several columns in the codes of given levels, shape (n, columns), -1 and the labels of others.

    Returns
    -------
    column : FactorColumn
    unknown : tuple of str
        Labels that are not among `levels`.
    """
    found = [match_levels(factor, levels) for factor in factors]
    codes = np.ascontiguousarray(np.column_stack([codes for codes, _ in found]), dtype=np.int32)
    return FactorColumn(codes, levels), tuple(dict.fromkeys(label for _, new in found for label in new))


def match_levels(column: FactorColumn, levels: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes of `column` in another set of levels, matched by their text.

    Matching by text lets a level keep its meaning when the new data store it in another type (308, 308.0 or
    "308", a string or a category), as in R.

    Returns
    -------
    codes : ndarray of int32, shape (n,)
        -1 for a missing value or a level not among `levels`.
    unknown : tuple of str
        Labels that occur in the column but not in `levels`.
    """
    used_codes, used_levels, _ = drop_unused(column.codes, column.levels)
    size = len(used_levels)
    table = np.full(size + 1, -1, dtype=np.int32)
    unknown: tuple[str, ...] = ()
    if _both_integers(used_levels, levels):
        position = np.searchsorted(levels, used_levels)
        position[position == len(levels)] = 0
        found = np.asarray(levels)[position] == used_levels if len(levels) else np.zeros(size, bool)
        table[:size] = np.where(found, position, -1)
        unknown = level_labels(np.asarray(used_levels)[~found])
    else:
        known = {label: i for i, label in enumerate(_labels_for(levels, used_levels))}
        table[:size] = [known.get(label, -1) for label in _labels_for(used_levels, levels)]
        unknown = tuple(
            label
            for label, code in zip(level_labels(used_levels), table[:size].tolist(), strict=True)
            if code < 0
        )
    return table[used_codes], unknown


def _both_integers(a: Any, b: Any) -> bool:
    """Whether both are integer arrays and the second is sorted."""
    return _kind(a) in ("i", "u") and _kind(b) in ("i", "u") and bool((b[1:] > b[:-1]).all())


def _kind(levels: Any) -> str:
    """NumPy's letter for the type of an array of levels; "O" for other sequences."""
    return levels.dtype.kind if isinstance(levels, np.ndarray) else "O"


def _labels_for(levels: Any, other: Any) -> tuple[str, ...]:
    """Labels for a comparison: integers are spelled as the floats they are compared with (1e+05)."""
    if _kind(levels) in ("i", "u") and _kind(other) == "f":
        levels = levels.astype(np.float64)
    return level_labels(levels)


def match_interaction(codes: Sequence[np.ndarray], levels: InteractionLevels) -> np.ndarray:
    """Codes of combinations, given the codes of each factor in `levels.levels`; -1 where not observed."""
    combinations = levels.combinations
    trained = combinations[:, 0].astype(np.int64)
    current = codes[0].astype(np.int64)
    for j in range(1, combinations.shape[1]):
        width = len(levels.levels[j])
        keys, trained = np.unique(trained * width + combinations[:, j], return_inverse=True)
        wanted = np.where((current < 0) | (codes[j] < 0), -1, current * width + codes[j])
        position = np.minimum(np.searchsorted(keys, wanted), max(keys.shape[0] - 1, 0))
        found = keys[position] == wanted if keys.shape[0] else np.zeros(wanted.shape, bool)
        current = np.where(found, position, -1)
    return current.astype(np.int32)
