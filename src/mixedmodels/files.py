"""Reading table files for the command line with whichever library is installed, and without any for CSV."""

from __future__ import annotations

import csv
import gzip
import importlib
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mixedmodels.errors import DataError

__all__ = ["read_arrow", "read_csv", "read_csv_plain", "read_parquet"]

MISSING = ("", "NA", "NaN", "nan", "NULL", "null", "None", "N/A")
_LIBRARIES = ("pyarrow", "polars", "pandas")


def _libraries() -> list[str]:
    return [name for name in _LIBRARIES if find_spec(name) is not None]


def _separator(path: Path) -> str:
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def _failed(path: Path, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()
    return DataError(f"cannot read {str(path)!r}: {reason[0] if reason else type(error).__name__}")


def read_csv(path: Path) -> Any:
    """A CSV file (tabs for .tsv; gzip too) with a header line; NA, NULL and empty cells are missing."""
    libraries = _libraries()
    if not libraries:
        return read_csv_plain(path)
    library = libraries[0]
    try:
        if library == "pyarrow":
            arrow_csv = importlib.import_module("pyarrow.csv")
            return arrow_csv.read_csv(
                str(path),
                parse_options=arrow_csv.ParseOptions(delimiter=_separator(path)),
                convert_options=arrow_csv.ConvertOptions(null_values=list(MISSING), strings_can_be_null=True),
            )
        if library == "polars":
            polars = importlib.import_module("polars")
            return polars.read_csv(
                path, separator=_separator(path), null_values=list(MISSING), infer_schema_length=None
            )
        pandas = importlib.import_module("pandas")
        return pandas.read_csv(path, sep=_separator(path))
    except Exception as error:
        raise _failed(path, error) from None


def read_csv_plain(path: Path) -> dict[str, Any]:
    """The same as `read_csv` with the standard library alone: a dict of lists and arrays."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, delimiter=_separator(path)))
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise _failed(path, error) from None
    rows = [row for row in rows if row]
    if not rows:
        raise DataError(f"cannot read {str(path)!r}: Empty CSV file")
    header, body = rows[0], rows[1:]
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise DataError(
                f"cannot read {str(path)!r}: line {number} has {len(row)} cells, the header has {len(header)}"
            )
    columns = list(zip(*body, strict=True)) if body else [()] * len(header)
    return {name: _column(cells) for name, cells in zip(header, columns, strict=True)}


def _column(cells: tuple[str, ...]) -> Any:
    """Numbers where every present cell is one, truth values likewise, else texts; None for a missing text."""
    present = [cell for cell in cells if cell not in MISSING]
    if all(cell.lower() in ("true", "false") for cell in present) and present:
        values = [None if cell in MISSING else cell.lower() == "true" for cell in cells]
        return np.array(values) if None not in values else values
    try:
        whole = len(present) == len(cells)
        if whole and all(cell.strip().lstrip("+-").isdigit() for cell in cells):
            return np.array([int(cell) for cell in cells])
        return np.array([math.nan if cell in MISSING else float(cell) for cell in cells])
    except (ValueError, OverflowError):
        return [None if cell in MISSING else cell for cell in cells]


def _need(path: Path, kind: str) -> str:
    libraries = _libraries()
    if not libraries:
        raise DataError(f"reading {kind} file {str(path)!r} needs pyarrow or polars: pip install pyarrow")
    return libraries[0]


def read_parquet(path: Path) -> Any:
    """A Parquet file through pyarrow, polars or pandas."""
    library = _need(path, "Parquet")
    try:
        if library == "pyarrow":
            return importlib.import_module("pyarrow.parquet").read_table(str(path))
        return importlib.import_module(library).read_parquet(path)
    except Exception as error:
        raise _failed(path, error) from None


def read_arrow(path: Path) -> Any:
    """An Arrow IPC or Feather file through pyarrow, polars or pandas."""
    library = _need(path, "Arrow")
    try:
        if library == "pyarrow":
            return importlib.import_module("pyarrow.feather").read_table(str(path))
        module = importlib.import_module(library)
        return module.read_ipc(path) if library == "polars" else module.read_feather(path)
    except Exception as error:
        raise _failed(path, error) from None
