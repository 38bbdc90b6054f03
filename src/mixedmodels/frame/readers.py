"""Direct readers of one column of pandas, polars and pyarrow tables and of dicts of arrays.

A reader gives (name of the library, column names, number of rows, function from a name to raw values).
Raw values are an array of numbers, truth values or dates, a masked array (integers with gaps) or a
`FactorColumn`.
Everything else that narwhals understands (lazy frames, duckdb relations, ibis tables, modin, ...) is first
collected into one of them, with the needed columns only. No data-frame library is imported here: if the
caller has one, it is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.factors import (
    LOGICAL,
    CategoryLevels,
    code_column,
    code_strings,
    code_texts,
    sort_levels,
)
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.values import FactorColumn, Value

__all__ = ["Raw", "collect", "plain_column", "reader_of", "to_numbers"]

Raw = Any
_FEW = 500  # rows up to which a Python loop beats the start of a query


def reader_of(data: Any) -> Callable[[Any], tuple[str, Any, int, Callable[[str], Raw]]] | None:
    """The direct reader for this kind of data, or None if narwhals has to help."""
    modules = sys.modules
    pandas = modules.get("pandas")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _read_pandas
    polars = modules.get("polars")
    if polars is not None and isinstance(data, polars.DataFrame):
        return _read_polars
    pyarrow = modules.get("pyarrow")
    if pyarrow is not None and isinstance(data, (pyarrow.Table, pyarrow.RecordBatch)):
        return _read_arrow
    if isinstance(data, Mapping):
        return _read_mapping
    return None


def collect(data: Any, needed: Sequence[str] | None) -> tuple[Any, str]:
    """Collect the needed columns of a lazy or foreign frame into pandas, polars or pyarrow."""
    if isinstance(data, np.ndarray) and data.dtype.names:
        return {name: data[name] for name in data.dtype.names}, "numpy"
    import narwhals

    try:
        frame = narwhals.from_native(data)
    except TypeError:
        raise DataError(
            f"data of type {type(data).__name__!r} cannot be read; give a data frame "
            f"(pandas, polars, pyarrow, duckdb, ...) or a dict of arrays{_hint(data)}"
        ) from None
    backend = str(frame.implementation).rsplit(".", 1)[-1].lower()
    if needed is not None:
        names = frame.collect_schema().names()
        frame = frame.select([name for name in dict.fromkeys(needed) if name in names] or names[:1])
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect()
    native = frame.to_native()
    if reader_of(native) is None:
        native = frame.to_arrow()
    return native, backend


def _hint(data: Any) -> str:
    """What to do about some things that are often given instead of a data frame."""
    if isinstance(data, str):
        return "; bundled data are read with load_dataset(name), files with pandas or polars"
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], Mapping):
        return "; a list of records becomes one with pandas.DataFrame(records) or polars.DataFrame(records)"
    if isinstance(data, (list, tuple, np.ndarray)):
        return ", so that the columns have names"
    return ""


# --- pandas ----------------------------------------------------------------------------------------------


def _read_pandas(frame: Any) -> tuple[str, Any, int, Callable[[str], Raw]]:
    names = frame.columns
    # The private accessor is 15 times faster than frame[name], which builds a Series; it falls back.
    fast = getattr(frame, "_get_column_array", None) if names.is_unique and names.nlevels == 1 else None

    def get(name: str) -> Raw:
        array = None
        if fast is not None:
            array = fast(names.get_loc(name))
        else:
            column = frame[name]
            if column.ndim != 1:
                raise DataError(f"the data have several columns named {name!r}; rename them")
            array = column._values if hasattr(column, "_values") else column.to_numpy()
        if type(array) is np.ndarray:
            kind = array.dtype.kind
            if kind in "fiub":
                return array
            return _from_pandas_object(array, name) if kind == "O" else plain_column(array, name)
        return _from_extension(array, name)

    return "pandas", names, len(frame), get


def _from_extension(array: Any, name: str) -> Raw:
    """A pandas extension array: categories, strings, nullable numbers, dates with a zone, arrow-backed."""
    pandas = sys.modules["pandas"]
    dtype = array.dtype
    if isinstance(dtype, pandas.StringDtype):
        if len(array) <= _FEW:
            found = code_strings(_objects(array).tolist())
            if found is not None:  # none is missing
                return FactorColumn(*found)
        codes, levels = array.factorize()
        return FactorColumn(*sort_levels(codes.astype(np.int32), levels.tolist()))
    if isinstance(dtype, pandas.CategoricalDtype):
        levels = _category_levels(dtype.categories)
        codes = array.codes.astype(np.int32)
        return FactorColumn(codes, levels, ordered=bool(dtype.ordered))
    if isinstance(dtype, pandas.DatetimeTZDtype):
        return np.asarray(array.tz_convert(None))
    if isinstance(dtype, pandas.ArrowDtype):
        pyarrow = sys.modules["pyarrow"]
        return _read_arrow(pyarrow.table({"x": array.__arrow_array__()}))[3]("x")
    if isinstance(array, (pandas.arrays.DatetimeArray, pandas.arrays.TimedeltaArray)):
        return np.asarray(array)
    kind = getattr(dtype, "kind", "O")
    if kind in "iufb" and not isinstance(dtype, pandas.SparseDtype):
        missing = np.asarray(array.isna())
        if not missing.any():
            return array.to_numpy(
                dtype=np.dtype(f"{kind}{dtype.itemsize}") if kind != "b" else np.dtype(bool)
            )
        if kind == "f":
            return array.to_numpy(dtype=np.float64, na_value=np.nan)
        zero = False if kind == "b" else 0
        full = array.to_numpy(dtype=np.bool_ if kind == "b" else np.dtype(f"{kind}8"), na_value=zero)
        return _masked(full, missing)
    return _from_pandas_object(np.asarray(array, dtype=object), name)


def _objects(array: Any) -> np.ndarray:
    """The texts of a pandas array as objects; those kept by arrow without a detour."""
    convert = getattr(array, "__arrow_array__", None)
    return array.to_numpy(dtype=object) if convert is None else convert().to_numpy(zero_copy_only=False)


def _category_levels(categories: Any) -> Any:
    """Categories of a pandas categorical; dates as their ISO texts, texts converted only when asked for."""
    kind = categories.dtype.kind
    if kind in "iufmMb":
        levels = np.asarray(categories)
        if levels.dtype.kind in "iuf":
            return levels
        if levels.dtype.kind in "mM":
            return np.array(level_labels(levels), dtype=object)
    known = _recent.get(id(categories))
    if known is not None and known.source is categories:  # an Index never changes: convert its texts once
        return known
    texts = CategoryLevels(categories)
    if len(categories) <= _FEW_LEVELS:
        while len(_recent) >= _KEPT:
            _recent.pop(next(iter(_recent)), None)
        _recent[id(categories)] = texts
    return texts


_FEW_LEVELS = 256
_KEPT = 32
_recent: dict[int, CategoryLevels] = {}  # by the identity of their source, which they keep alive


def _from_pandas_object(array: np.ndarray, name: str) -> Raw:
    """Object column: texts hash through pandas, the rest goes the common way."""
    pandas = sys.modules["pandas"]
    if pandas.api.types.infer_dtype(array, skipna=True) == "string":
        codes, levels = pandas.factorize(array)
        return FactorColumn(*sort_levels(codes.astype(np.int32), list(levels)))
    return _from_objects(array, name)


# --- polars ----------------------------------------------------------------------------------------------


def _read_polars(frame: Any) -> tuple[str, Any, int, Callable[[str], Raw]]:
    names = frame.columns
    polars = sys.modules["polars"]

    def get(name: str) -> Raw:
        if name not in names:
            raise KeyError(name)
        series = frame.get_column(name)
        dtype = series.dtype
        if dtype.is_numeric():
            if dtype.is_decimal():
                series = series.cast(polars.Float64)
            if series.null_count() and not dtype.is_float():
                return _masked(series.fill_null(0).to_numpy(), series.is_null().to_numpy())
            return series.to_numpy()
        if dtype == polars.Boolean:
            if series.null_count():
                return _masked(series.fill_null(False).to_numpy(), series.is_null().to_numpy())
            return series.to_numpy()
        if dtype == polars.Enum:
            if frame.height > _FEW:
                return FactorColumn(_polars_codes(series), CategoryLevels(dtype.categories))
            levels = np.array(dtype.categories.to_list(), dtype=object)
            place = {level: code for code, level in enumerate(levels)} | {None: -1}
            coded = map(place.__getitem__, series.to_list())
            return FactorColumn(np.fromiter(coded, dtype=np.int32, count=frame.height), levels)
        if dtype in (polars.String, polars.Categorical):
            # A polars Categorical numbers its categories in an order the user did not choose: sort them.
            found = code_strings(series.to_list()) if frame.height <= _FEW else None
            if found is not None:
                return FactorColumn(*found)
            levels = series.drop_nulls().unique().cast(polars.String).sort().to_list()
            coded = series.cast(polars.String).cast(polars.Enum(levels))
            return FactorColumn(_polars_codes(coded), np.array(levels, dtype=object))
        if dtype in (polars.Date, polars.Datetime, polars.Duration):
            return series.to_numpy()
        if dtype == polars.Null:
            return np.full(len(series), np.nan)
        if dtype.is_nested():
            raise DataError(f"column {name!r} is of type {dtype}; a model needs numbers or labels")
        return _from_objects(np.array(series.to_list(), dtype=object), name)

    return "polars", names, frame.height, get


def _polars_codes(series: Any) -> np.ndarray:
    """Physical codes of an Enum series as int32, -1 for null."""
    codes = series.to_physical()
    if codes.null_count():
        codes = codes.cast(sys.modules["polars"].Int32).fill_null(-1)
    return codes.to_numpy().astype(np.int32)


# --- pyarrow ---------------------------------------------------------------------------------------------


def _read_arrow(table: Any) -> tuple[str, Any, int, Callable[[str], Raw]]:
    names = table.schema.names
    pyarrow = sys.modules["pyarrow"]
    types = pyarrow.types

    def get(name: str) -> Raw:
        if names.count(name) != 1:
            if name in names:
                raise DataError(f"the data have several columns named {name!r}; rename them")
            raise KeyError(name)
        column = table.column(name)
        if isinstance(column, pyarrow.ChunkedArray):
            column = column.combine_chunks()
            if isinstance(column, pyarrow.ChunkedArray):  # several chunks of differing dictionaries
                column = pyarrow.concat_arrays(column.unify_dictionaries().chunks)
        kind = column.type
        if types.is_dictionary(kind):
            codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            levels = column.dictionary.to_numpy(zero_copy_only=False)
            return FactorColumn(codes, levels, ordered=bool(kind.ordered))
        if types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view":
            coded = column.cast(pyarrow.large_string()).dictionary_encode()
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            return FactorColumn(*sort_levels(codes, coded.dictionary.to_pylist()))
        if types.is_decimal(kind):
            column = column.cast(pyarrow.float64())
            kind = column.type
        if types.is_boolean(kind) or types.is_integer(kind):
            if column.null_count:
                missing = column.is_null().to_numpy(zero_copy_only=False)
                zero = False if types.is_boolean(kind) else 0
                return _masked(column.fill_null(zero).to_numpy(zero_copy_only=False), missing)
            return column.to_numpy(zero_copy_only=False)
        if types.is_floating(kind) or types.is_temporal(kind):
            values = column.to_numpy(zero_copy_only=False)
            return plain_column(values, name) if values.dtype.kind != "f" else values
        if types.is_null(kind):
            return np.full(len(column), np.nan)
        if types.is_nested(kind):
            raise DataError(f"column {name!r} is of type {kind}; a model needs numbers or labels")
        return _from_objects(np.array(column.to_pylist(), dtype=object), name)

    return "pyarrow", names, table.num_rows, get


# --- dict of arrays --------------------------------------------------------------------------------------


def _read_mapping(data: Mapping[str, Any]) -> tuple[str, Any, int, Callable[[str], Raw]]:
    if not data:
        raise DataError("the data have no columns")
    lengths = {name: _length(values, name) for name, values in data.items()}
    n_rows = next(iter(lengths.values()))
    for name, length in lengths.items():
        if length != n_rows:
            first = next(iter(lengths))
            raise DataError(
                f"columns {first!r} and {name!r} have {n_rows} and {length} rows; all need the same number"
            )
    return "dict", tuple(data), n_rows, lambda name: plain_column(data[name], name)


def _length(values: Any, name: str) -> int:
    try:
        return len(values)
    except TypeError:
        raise DataError(f"column {name!r} is a single value; give one value per row") from None


def plain_column(values: Any, name: str) -> Raw:
    """A NumPy array, masked array, list or series of one column, or a factor already coded."""
    if isinstance(values, FactorColumn):
        return values
    if isinstance(values, np.ma.MaskedArray):
        return _masked(values.data, np.ma.getmaskarray(values))
    if not isinstance(values, np.ndarray):
        module = type(values).__module__.partition(".")[0]
        if module in ("pandas", "polars", "pyarrow") and not isinstance(values, (list, tuple)):
            return _from_series(values, name, module)
        values = list(values)
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return _from_objects(array, name)
    kind = values.dtype.kind
    if kind in "fiub":
        return values
    if kind == "O":
        return _from_objects(values, name)
    if kind in "mM":
        unit = np.datetime_data(values.dtype)[0]
        return values.astype(f"{kind}8[D]") if kind == "M" and unit in ("Y", "M", "W") else values
    if kind in "US":
        return code_column(values)
    if kind == "T":
        return _from_objects(values.astype(object), name)
    raise DataError(f"column {name!r} is of type {values.dtype}; a model needs numbers or labels")


def _from_series(values: Any, name: str, module: str) -> Raw:
    """A column that is itself a pandas, polars or pyarrow object inside a dict."""
    if module == "pandas":
        pandas = sys.modules["pandas"]
        array = pandas.Series(values)._values
        if type(array) is not np.ndarray:
            return _from_extension(array, name)
        return _from_pandas_object(array, name) if array.dtype.kind == "O" else plain_column(array, name)
    if module == "polars":
        return _read_polars(values.to_frame("x"))[3]("x")
    pyarrow = sys.modules["pyarrow"]
    return _read_arrow(pyarrow.table({"x": values}))[3]("x")


# --- common ----------------------------------------------------------------------------------------------


def _masked(values: np.ndarray, missing: np.ndarray) -> Raw:
    """Numbers with gaps; truth values with gaps become a factor, as nothing else can hold both."""
    if not missing.any():
        return values
    if values.dtype.kind == "b":
        codes = values.astype(np.int32)
        codes[missing] = -1
        return FactorColumn(codes, LOGICAL)
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        values[missing] = np.nan
        return values
    return np.ma.MaskedArray(values, missing)


def _from_objects(array: np.ndarray, name: str) -> Raw:
    """A column of Python objects: find out what they are."""
    if array.ndim != 1:
        return array
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        missing = np.asarray(pandas.isna(array), dtype=bool)
    else:
        missing = np.fromiter((v is None or _is_nan(v) for v in array), dtype=bool, count=array.shape[0])
    present = array[~missing] if missing.any() else array
    types = set(map(type, present.tolist()))
    if not types:
        return np.full(array.shape[0], np.nan)
    if all(issubclass(t, (bool, np.bool_)) for t in types):
        full = np.zeros(array.shape[0], dtype=bool)
        full[~missing] = present.astype(bool)
        return _masked(full, missing)
    if all(_is_number(t) for t in types):
        whole = all(issubclass(t, (int, np.integer)) for t in types)
        try:
            numbers = present.astype(np.int64 if whole else np.float64)
        except (OverflowError, TypeError, ValueError):
            numbers = present.astype(np.float64)
        full = np.zeros(array.shape[0], dtype=numbers.dtype)
        full[~missing] = numbers
        return _masked(full, missing)
    dates = _dates(present, types)
    if dates is not None:
        full = np.full(array.shape[0], np.array("NaT", dates.dtype)[()], dtype=dates.dtype)
        full[~missing] = dates
        return full
    for t in types:
        if t.__hash__ is None or issubclass(t, (complex, np.complexfloating)):
            raise DataError(
                f"column {name!r} holds values of type {t.__name__}; a model needs numbers or labels"
            )
    numbers = [t for t in types if _is_number(t) and not issubclass(t, (bool, np.bool_))]
    if numbers and any(issubclass(t, str) for t in types):
        objects = present.tolist()
        number = next(v for v in objects if type(v) in numbers)
        text = next(v for v in objects if isinstance(v, str))
        raise DataError(
            f"column {name!r} mixes numbers and texts ({number!r} and {text!r}): convert it to numbers "
            "(marks of missing values to None), or to texts if it holds labels"
        )
    inner, levels = code_texts(present.tolist())
    inner, sorted_levels = sort_levels(inner, levels)
    codes = np.full(array.shape[0], -1, dtype=np.int32)
    codes[~missing] = inner
    return FactorColumn(codes, sorted_levels)


def _is_nan(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and value != value


def _is_number(kind: type) -> bool:
    import decimal
    import numbers

    return issubclass(kind, (numbers.Real, decimal.Decimal, np.integer, np.floating, bool, np.bool_))


def _dates(values: np.ndarray, types: set[type]) -> np.ndarray | None:
    """Dates, times or durations as datetime64 or timedelta64 in microseconds; None if they are not."""
    import datetime

    if all(issubclass(t, (datetime.date, np.datetime64)) for t in types):
        aware = [getattr(v, "tzinfo", None) is not None for v in values]
        if any(aware):
            values = np.array([v.astimezone(datetime.UTC).replace(tzinfo=None) for v in values], dtype=object)
        return values.astype("M8[us]")
    if all(issubclass(t, (datetime.timedelta, np.timedelta64)) for t in types):
        return values.astype("m8[us]")
    return None


def to_numbers(raw: Any) -> Value:
    """Float values of a column; truth values become a factor."""
    kind = raw.dtype.kind
    if kind == "f":
        return raw if raw.dtype == np.float64 and raw.dtype.isnative else raw.astype(np.float64)
    if kind == "b":
        return FactorColumn(raw.astype(np.int32), LOGICAL)
    if isinstance(raw, np.ma.MaskedArray):
        values = raw.data.astype(np.float64)
        values[np.ma.getmaskarray(raw)] = np.nan
        return values
    if kind == "M":
        # Days since 1970-01-01: the epoch drops out of every fit because solvers centre the columns.
        return (raw - np.zeros((), dtype=raw.dtype)) / np.timedelta64(1, "D")
    if kind == "m":
        return raw / np.timedelta64(1, "D")
    return raw.astype(np.float64)
