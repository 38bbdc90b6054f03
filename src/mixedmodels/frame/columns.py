"""Columns of a data frame of any library, read one by one and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.factors import code_column
from mixedmodels.frame.readers import Raw, collect, plain_column, reader_of, to_numbers
from mixedmodels.frame.values import FactorColumn, Value

__all__ = ["Columns", "numeric_column"]


class Columns(Mapping[str, Value]):
    """A read-only mapping from column name to values, whatever library the data come from.

    ``columns[name]`` is a float array for numbers and dates (days since 1970-01-01; missing: NaN) and a
    `FactorColumn` for texts, categories and truth values. Arrays may share memory with the caller's data:
    never write into them.

    Parameters
    ----------
    data : data frame or mapping
        Anything narwhals reads, or a dict of arrays or lists of equal length.
    needed : sequence of str, optional
        Columns that will be asked for; lets a lazy source be collected once.

    Attributes
    ----------
    backend : str
        Library of the data: "pandas", "polars", "pyarrow", "dict" or what narwhals calls it.
    n_rows : int
        Number of rows.

    Raises
    ------
    DataError
        If the data cannot be read, or on asking for a column that is not there.

    Examples
    --------
    >>> columns = Columns({"x": [1, 2, None], "g": ["b", "a", "b"]})
    >>> columns["x"]
    array([ 1.,  2., nan])
    >>> columns["g"].codes
    array([1, 0, 1], dtype=int32)
    """

    __slots__ = ("_factors", "_get", "_raw", "_values", "backend", "n_rows", "names")

    def __init__(self, data: Any, needed: Sequence[str] | None = None) -> None:
        self._raw: dict[str, Raw] = {}
        self._values: dict[str, Value] = {}
        self._factors: dict[str, FactorColumn] = {}
        reader = reader_of(data)
        self.backend = ""
        if reader is None:
            data, self.backend = collect(data, needed)
            reader = reader_of(data)
            assert reader is not None
        backend, self.names, self.n_rows, self._get = reader(data)
        self.backend = self.backend or backend

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names if isinstance(name, str))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Value:
        value = self._values.get(name)
        if value is None:
            raw = self.raw(name)
            value = raw if type(raw) is FactorColumn else to_numbers(raw)
            self._values[name] = value
        return value

    def raw(self, name: str) -> Raw:
        """The column before it is turned into numbers or a factor: integers stay integers."""
        raw = self._raw.get(name)
        if raw is None:
            try:
                raw = self._get(name)
            except KeyError:
                raise self._unknown(name) from None
            if raw.__class__ is not FactorColumn and raw.ndim != 1:
                raise DataError(f"column {name!r} has {raw.ndim} dimensions; a column must have one")
            self._raw[name] = raw
        return raw

    def factor(self, name: str) -> FactorColumn:
        """The column as a factor, whatever its type: for grouping factors."""
        factor = self._factors.get(name)
        if factor is None:
            raw = self.raw(name)
            factor = raw if type(raw) is FactorColumn else code_column(raw)
            self._factors[name] = factor
        return factor

    def put(self, name: str, values: np.ndarray) -> None:
        """A column of numbers beside those of the data: a stand-in that the data need not have."""
        self._raw[name] = self._values[name] = values

    def _unknown(self, name: str) -> DataError:
        import difflib

        names = list(self)
        if not names and len(self.names):
            shown = ", ".join([repr(other) for other in list(self.names)[:3]])
            return DataError(
                f"the data have no column {name!r}: the names of their columns are not text "
                f"({shown}{', ...' if len(self.names) > 3 else ''}); rename them"
            )
        near = difflib.get_close_matches(name, names, n=1)
        if not near:
            near = [other for other in names if other.lower() == name.lower()]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
        return DataError(f"the data have no column {name!r}{hint} (columns: {listed})")


def numeric_column(argument: Any, columns: Columns, what: str) -> np.ndarray:
    """Numbers given as a column name or as one value per row (weights, offset).

    Raises
    ------
    DataError
        If it is something else, is not numeric or has another length than the data.
    """
    if isinstance(argument, str):
        value = columns[argument]
        where = f"{what} column {argument!r}"
    else:
        if callable(argument) or not hasattr(argument, "__len__") or isinstance(argument, (bytes, Mapping)):
            raise DataError(f"{what} must be a column name or an array with one value per row")
        raw = plain_column(argument, what)
        where = what
        if type(raw) is not FactorColumn:
            if raw.ndim != 1 or raw.shape[0] != columns.n_rows:
                raise DataError(f"{what} has shape {raw.shape}, but the data have {columns.n_rows} rows")
            value = to_numbers(raw)
        else:
            value = raw
    if isinstance(value, FactorColumn):
        raise DataError(f"{where} does not hold numbers")
    return value  # type: ignore[return-value]
