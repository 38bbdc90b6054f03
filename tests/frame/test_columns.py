"""Every data-frame library gives the same values for the same column."""

from __future__ import annotations

import datetime
import decimal

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mixedmodels.errors import DataError
from mixedmodels.frame import Columns
from mixedmodels.frame.columns import numeric_column
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.values import FactorColumn


def plain() -> dict:
    return {
        "i": [3, 1, 2, 1],
        "f": [0.5, 1.5, -2.0, 0.0],
        "s": ["b", "a", "B", "a"],
        "b": [True, False, True, True],
        "d": [
            datetime.date(2024, 3, 1),
            datetime.date(2024, 3, 3),
            datetime.date(1970, 1, 1),
            datetime.date(1969, 12, 31),
        ],
        "si": [1, None, 3, 2**60 + 1],
        "sf": [1.0, None, 3.0, 4.0],
        "ss": ["x", None, "w", "x"],
        "sb": [True, None, False, True],
        "dec": [decimal.Decimal("1.25"), decimal.Decimal("2"), decimal.Decimal("-3.5"), decimal.Decimal("0")],
    }


def sources() -> dict:
    data = plain()
    pandas_nullable = pd.DataFrame(
        {
            **data,
            "si": pd.array(data["si"], dtype="Int64"),
            "sb": pd.array(data["sb"], dtype="boolean"),
            "f": pd.array(data["f"], dtype="Float64"),
            "i": pd.array(data["i"], dtype="Int32"),
        }
    )
    arrow = pa.table(data)
    polars = pl.DataFrame(data)
    return {
        "dict": data,
        "arrays": {k: np.array(v) if k in ("i", "f", "s", "b") else v for k, v in data.items()},
        "pandas": pd.DataFrame(
            {k: (pd.array(v, dtype="Int64") if k == "si" else v) for k, v in data.items()}
        ),
        "pandas objects": pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in data.items()}),
        "pandas nullable": pandas_nullable,
        "pandas arrow": arrow.to_pandas(types_mapper=pd.ArrowDtype),
        "polars": polars,
        "polars lazy": polars.lazy(),
        "narwhals": nw.from_native(polars),
        "pyarrow": arrow,
        "pyarrow chunked": pa.concat_tables([arrow.slice(0, 2), arrow.slice(2)]),
    }


@pytest.mark.parametrize("source", list(sources()))
def test_same_values_from_every_library(source):
    columns = Columns(sources()[source])
    assert columns.n_rows == 4
    for name, expected in {
        "i": [3, 1, 2, 1],
        "f": [0.5, 1.5, -2.0, 0.0],
        "d": [19783, 19785, 0, -1],
        "si": [1, np.nan, 3, 2.0**60],
        "sf": [1, np.nan, 3, 4],
        "dec": [1.25, 2, -3.5, 0],
    }.items():
        value = columns[name]
        assert value.dtype == np.float64, name
        np.testing.assert_array_equal(value, expected, err_msg=name)
    for name, codes, levels in (
        ("s", [2, 1, 0, 1], ["B", "a", "b"]),
        ("b", [1, 0, 1, 1], ["FALSE", "TRUE"]),
        ("ss", [1, -1, 0, 1], ["w", "x"]),
        ("sb", [1, -1, 0, 1], ["FALSE", "TRUE"]),
    ):
        value = columns[name]
        assert isinstance(value, FactorColumn), name
        assert value.codes.dtype == np.int32
        np.testing.assert_array_equal(value.codes, codes, err_msg=name)
        assert list(value.levels) == levels, name
    group = columns.factor("si")  # integers keep all their digits as labels
    np.testing.assert_array_equal(group.codes, [0, -1, 1, 2])
    assert list(group.levels) == [1, 3, 2**60 + 1]


@pytest.mark.parametrize(
    ("make", "levels", "ordered"),
    [
        (
            lambda: pd.DataFrame(
                {"c": pd.Categorical(["lo", "hi", None], ["lo", "mid", "hi"], ordered=True)}
            ),
            ["lo", "mid", "hi"],
            True,
        ),
        (
            lambda: pd.DataFrame({"c": pd.Categorical(["lo", "hi", None], ["lo", "mid", "hi"])}),
            ["lo", "mid", "hi"],
            False,
        ),
        (
            lambda: pl.DataFrame({"c": pl.Series(["lo", "hi", None], dtype=pl.Enum(["lo", "mid", "hi"]))}),
            ["lo", "mid", "hi"],
            False,
        ),
        (
            lambda: pa.table(
                {
                    "c": pa.DictionaryArray.from_arrays(
                        pa.array([0, 2, None], pa.int8()), ["lo", "mid", "hi"], ordered=True
                    )
                }
            ),
            ["lo", "mid", "hi"],
            True,
        ),
    ],
)
def test_categories_keep_their_order(make, levels, ordered):
    value = Columns(make())["c"]
    assert list(value.levels) == levels
    assert value.codes.tolist() == [0, 2, -1]
    assert value.ordered is ordered


def test_polars_categorical_is_sorted():
    value = Columns(pl.DataFrame({"c": pl.Series(["z", "a", None], dtype=pl.Categorical)}))["c"]
    assert list(value.levels) == ["a", "z"]
    assert value.codes.tolist() == [1, 0, -1]


def test_dates_are_days_whatever_the_unit_and_zone():
    times = pd.to_datetime(["2024-03-01 12:00", None, "1970-01-02 00:00"])
    expected = [19783.5, np.nan, 1.0]
    frames = [
        pd.DataFrame({"t": times}),
        pd.DataFrame({"t": times.tz_localize("UTC")}),
        pd.DataFrame({"t": times.as_unit("s")}),
        pl.DataFrame(
            {"t": pl.Series([datetime.datetime(2024, 3, 1, 12), None, datetime.datetime(1970, 1, 2)])}
        ),
        {"t": np.array(["2024-03-01T12:00", "NaT", "1970-01-02T00:00"], dtype="M8[m]")},
        pa.table({"t": [datetime.datetime(2024, 3, 1, 12), None, datetime.datetime(1970, 1, 2)]}),
    ]
    for frame in frames:
        np.testing.assert_array_equal(Columns(frame)["t"], expected)
        group = Columns(frame).factor("t")
        assert group.codes.tolist() == [1, -1, 0]
        assert list(group.levels) == ["1970-01-02", "2024-03-01T12:00"]


def test_unknown_column_names_a_neighbour_and_the_columns():
    for data in sources().values():
        with pytest.raises(DataError, match=r"no column 'ff'; did you mean 'f'\? \(columns: i, f, s, b"):
            Columns(data)["ff"]
    with pytest.raises(DataError, match="did you mean 'Days'"):
        Columns({"Days": [1]})["DAYS"]


def test_bad_data_is_refused_with_one_clear_error():
    with pytest.raises(DataError, match="type 'int' cannot be read"):
        Columns(3)
    with pytest.raises(DataError, match="'a' and 'b' have 2 and 3 rows"):
        Columns({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(DataError, match="'a' is a single value"):
        Columns({"a": 1.0})
    with pytest.raises(DataError, match="several columns named 'a'"):
        Columns(pd.DataFrame([[1, 2]], columns=["a", "a"]))["a"]
    with pytest.raises(DataError, match="'a' has 2 dimensions"):
        Columns({"a": np.ones((2, 2))})["a"]
    with pytest.raises(DataError, match="numbers or labels"):
        Columns({"a": [[1], [2]]})["a"]
    with pytest.raises(DataError, match="numbers or labels"):
        Columns({"a": np.array([1j])})["a"]
    with pytest.raises(DataError, match="no columns"):
        Columns({})


def test_only_the_needed_columns_of_a_lazy_frame_are_collected():
    frame = pl.DataFrame({"x": [1.0, 2.0], "z": ["1", "b"]}).lazy()
    poisoned = frame.with_columns(bad=pl.col("z").cast(pl.Int64))
    columns = Columns(poisoned, ["x"])
    assert columns["x"].tolist() == [1.0, 2.0]
    assert columns.backend == "polars"


def test_structured_array():
    data = np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")])
    assert Columns(data)["a"].tolist() == [1.0, 3.0]


def test_weights_and_offsets_are_names_or_arrays():
    columns = Columns({"w": [1.0, 2.0], "s": ["a", "b"]})
    assert numeric_column("w", columns, "weights").tolist() == [1.0, 2.0]
    for values in ([3, 4], pd.Series([3, 4], index=[7, 8]), pl.Series([3, 4]), np.array([3, 4])):
        assert numeric_column(values, columns, "weights").tolist() == [3.0, 4.0]
    with pytest.raises(DataError, match="weights has shape"):
        numeric_column([1.0], columns, "weights")
    with pytest.raises(DataError, match="column name or an array"):
        numeric_column(lambda d: d, columns, "weights")
    with pytest.raises(DataError, match="does not hold numbers"):
        numeric_column("s", columns, "weights")
    with pytest.raises(DataError, match="no column 'v'"):
        numeric_column("v", columns, "weights")


def test_data_are_never_changed():
    data = {
        "x": np.array([1.0, np.nan, np.inf]),
        "g": np.array([3, 1, 3], dtype=np.int8),
        "o": np.array(["b", None, "1"], dtype=object),
    }
    before = {name: values.copy() for name, values in data.items()}
    columns = Columns(data)
    for name in data:
        columns[name]
        columns.factor(name)
    for name, values in before.items():
        np.testing.assert_array_equal(data[name], values)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pd.array([datetime.date(1970, 1, 5), None], dtype=pd.ArrowDtype(pa.date32())), ["1970-01-05"]),
        (pd.array(["w", None], dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))), ["w"]),
        (pd.array(["w", None], dtype=pd.StringDtype("python")), ["w"]),
        (pd.to_timedelta([1, None], unit="D"), ["1"]),
        (pd.Categorical(pd.to_datetime(["2020-01-01", None])), ["2020-01-01"]),
        (pd.Categorical([7, None]), ["7"]),
        (pd.PeriodIndex(["2020-01", None], freq="M"), ["2020-01"]),
        (pd.arrays.SparseArray([1.0, np.nan]), ["1"]),
        (pd.Series([1, pd.NA], dtype=object), ["1"]),
        (pd.array([decimal.Decimal("1.5"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), ["1.5"]),
    ],
)
def test_unusual_pandas_columns_can_group(column, labels):
    factor = Columns(pd.DataFrame({"a": column})).factor("a")
    assert factor.codes.tolist() == [0, -1]
    (label,) = level_labels(factor.levels)
    assert [label] == labels
