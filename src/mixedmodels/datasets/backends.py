"""Turning plain columns into a frame of pandas, polars or pyarrow, each imported only when asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.frame.values import FactorColumn

__all__ = ["choose_backend", "to_backend"]

Columns = Mapping[str, np.ndarray | FactorColumn]


def _pandas(columns: Columns) -> Any:
    import pandas as pd

    def convert(column: np.ndarray | FactorColumn) -> Any:
        if isinstance(column, FactorColumn):
            return pd.Categorical.from_codes(
                column.codes, categories=list(column.levels), ordered=column.ordered
            )
        return column

    return pd.DataFrame({name: convert(column) for name, column in columns.items()})


def _polars(columns: Columns) -> Any:
    import polars as pl

    def convert(name: str, column: np.ndarray | FactorColumn) -> Any:
        if isinstance(column, FactorColumn):
            # Picking rows of a series of the levels hashes each label once, not once a row.
            levels = list(column.levels)
            return pl.Series(name, levels, dtype=pl.Enum(levels)).gather(column.codes)
        return pl.Series(name, column)

    return pl.DataFrame([convert(name, column) for name, column in columns.items()])


def _pyarrow(columns: Columns) -> Any:
    import pyarrow as pa

    def convert(column: np.ndarray | FactorColumn) -> Any:
        if isinstance(column, FactorColumn):
            return pa.DictionaryArray.from_arrays(
                pa.array(column.codes), pa.array(list(column.levels)), ordered=column.ordered
            )
        return pa.array(column)

    return pa.table({name: convert(column) for name, column in columns.items()})


_BACKENDS: dict[str, Callable[[Columns], Any]] = {
    "pandas": _pandas,
    "polars": _polars,
    "pyarrow": _pyarrow,
    "dict": dict,
}


def choose_backend(backend: str | None) -> str:
    """The library to build a frame with: the one asked for, else one already imported, else one installed.

    Parameters
    ----------
    backend : str or None

    Returns
    -------
    str
        ``"pandas"``, ``"polars"``, ``"pyarrow"`` or ``"dict"``.

    Raises
    ------
    OptionError
        If `backend` is not one of these, or its library cannot be imported.
    """
    libraries = [name for name in _BACKENDS if name != "dict"]
    if backend is None:
        imported = (name for name in libraries if name in sys.modules)
        installed = (name for name in libraries if find_spec(name) is not None)
        return next(imported, None) or next(installed, None) or "dict"
    if backend not in _BACKENDS:
        raise OptionError(f"backend must be one of {', '.join(map(repr, _BACKENDS))}, not {backend!r}")
    if backend != "dict":
        try:
            importlib.import_module(backend)
        except ImportError as error:
            raise OptionError(
                f"backend {backend!r} is not installed; pip install {backend}, or choose another backend"
            ) from error
    return backend


def to_backend(columns: Columns, library: str) -> Any:
    """Build the frame of one library from plain columns.

    Parameters
    ----------
    columns : mapping of str to ndarray or FactorColumn
    library : {"pandas", "polars", "pyarrow", "dict"}

    Returns
    -------
    pandas.DataFrame, polars.DataFrame, pyarrow.Table or dict
    """
    return _BACKENDS[library](columns)
