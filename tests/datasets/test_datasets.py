"""Bundled data sets: contents, backends, speed of the common path, errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mixedmodels.datasets import dataset_names, describe_dataset, load_dataset
from mixedmodels.errors import OptionError
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.values import FactorColumn

# Mean and sum of squares of the response, and levels of each factor, computed in R 4.2.2 from lme4 and nlme.
FACTS = {
    "Dyestuff": ("Yield", 1527.5, {"Batch": 6}),
    "Dyestuff2": ("Yield", 5.6656, {"Batch": 6}),
    "Penicillin": ("diameter", 22.9722222222222, {"plate": 24, "sample": 6}),
    "Pastes": ("strength", 60.0533333333333, {"batch": 10, "cask": 3, "sample": 30}),
    "sleepstudy": ("Reaction", 298.507891666667, {"Subject": 18}),
    "cake": ("angle", 32.1222222222222, {"replicate": 15, "recipe": 3, "temperature": 6}),
    "InstEval": (
        "y",
        3.20574495035480,
        {"s": 2972, "d": 1128, "studage": 4, "lectage": 6, "service": 2, "dept": 14},
    ),
    "Machines": ("score", 59.65, {"Worker": 6, "Machine": 3}),
    "Oats": ("yield", 103.972222222222, {"Block": 6, "Variety": 3}),
    "Orthodont": ("distance", 24.0231481481481, {"Subject": 27, "Sex": 2}),
    "BodyWeight": ("weight", 384.482954545455, {"Rat": 16, "Diet": 3}),
    "Ovary": ("follicles", 12.0357142857143, {"Mare": 11}),
    "Wheat2": ("yield", 25.5270089285714, {"Block": 4, "variety": 56}),
    "Dialyzer": ("rate", 37.3975714285714, {"Subject": 20, "QB": 2}),
    "cbpp": ("incidence", 1.76785714285714, {"herd": 15, "period": 4}),
    "VerbAgg": (
        "Anger",
        20.0031645569620,
        {"Gender": 2, "item": 24, "resp": 3, "id": 316, "btype": 3, "situ": 2, "mode": 2, "r2": 2},
    ),
    "grouseticks": ("TICKS", 6.36972704714640, {"INDEX": 403, "BROOD": 118, "YEAR": 3, "LOCATION": 63}),
    "ergoStool": ("effort", 10.25, {"Type": 4, "Subject": 9}),
}


def test_every_data_set_has_a_fact_to_hold():
    assert set(FACTS) == set(dataset_names())


@pytest.mark.parametrize("name", FACTS)
def test_contents(name):
    response, mean, levels = FACTS[name]
    info = describe_dataset(name)
    data = load_dataset(name, "dict")
    assert list(data) == [column.name for column in info.columns]
    assert data[response].mean() == pytest.approx(mean, rel=1e-13)
    factors = {key: column for key, column in data.items() if isinstance(column, FactorColumn)}
    assert {key: len(column.levels) for key, column in factors.items()} == levels
    for column in info.columns:
        values = data[column.name]
        if column.kind in ("factor", "ordered"):
            assert values.codes.shape == (info.rows,)
            assert set(values.codes.tolist()) == set(range(len(values.levels))), "every level occurs"
            assert values.ordered == (column.kind == "ordered")
        else:
            assert values.shape == (info.rows,)
            assert values.dtype == (np.int64 if column.kind == "integer" else np.float64)


@pytest.mark.parametrize("name", FACTS)
def test_backends_agree(name):
    plain = load_dataset(name, "dict")
    pandas, polars, arrow = (load_dataset(name, backend) for backend in ("pandas", "polars", "pyarrow"))
    assert isinstance(pandas, pd.DataFrame)
    assert isinstance(polars, pl.DataFrame)
    assert isinstance(arrow, pa.Table)
    for key, column in plain.items():
        if isinstance(column, FactorColumn):
            labels = [column.levels[code] for code in column.codes]
            assert list(pandas[key].cat.categories) == list(column.levels)
            assert pandas[key].cat.ordered == column.ordered
            assert list(polars[key].dtype.categories) == list(column.levels)
            assert arrow.schema.field(key).type.ordered == column.ordered
            assert arrow[key].chunk(0).dictionary.to_pylist() == list(column.levels)
        else:
            labels = column.tolist()
        assert pandas[key].tolist() == polars[key].to_list() == arrow[key].to_pylist() == labels


def test_only_the_original_columns():
    assert list(load_dataset("sleepstudy", "pandas").columns) == ["Reaction", "Days", "Subject"]
    assert list(load_dataset("Oats", "pandas").columns) == ["Block", "Variety", "nitro", "yield"]
    assert list(load_dataset("Orthodont", "pandas").columns) == ["distance", "age", "Subject", "Sex"]


def test_levels_keep_the_order_of_the_source():
    assert load_dataset("Machines", "dict")["Worker"].levels == ("6", "2", "4", "1", "3", "5")
    assert load_dataset("InstEval", "dict")["dept"].levels[:4] == ("15", "5", "10", "12")
    assert load_dataset("VerbAgg", "dict")["resp"].levels == ("no", "perhaps", "yes")


def test_each_call_returns_a_new_object():
    first = load_dataset("Dyestuff", "pandas")
    first.loc[0, "Yield"] = -1.0
    assert load_dataset("Dyestuff", "pandas").loc[0, "Yield"] == 1545.0


def test_a_name_in_any_case():
    assert describe_dataset("insteval") is describe_dataset("InstEval")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sleepstdy", "did you mean 'sleepstudy'"),
        ("zzzz", "there are: Dyestuff"),
        ("Contraception", "not bundled"),
        (3, "is a string"),
    ],
)
def test_unknown_names(name, says):
    with pytest.raises(OptionError, match=says):
        load_dataset(name)


def test_unknown_backend():
    with pytest.raises(OptionError, match="backend must be one of 'pandas'"):
        load_dataset("Dyestuff", backend="panda")


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ("", "pandas"),
        ("import polars", "polars"),
        ("import pyarrow", "pyarrow"),
        ("import polars, pandas", "pandas"),
    ],
)
def test_default_backend_is_the_library_already_imported(imports, expected):
    code = f"{imports}\nimport mixedmodels.datasets as d\nprint(type(d.load_dataset('Pastes')).__module__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split(".")[0].strip() == expected


def test_descriptions_are_complete():
    for name in dataset_names():
        info = describe_dataset(name)
        text = str(info)
        assert all(column.meaning for column in info.columns)
        assert "~" in info.formula
        for part in (info.name, info.title, info.formula, info.source, info.licence):
            assert part and part in text


@pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow", "dict"])
@pytest.mark.parametrize("name", ["cake", "Machines", "InstEval"])
def test_models_read_the_same_columns_from_every_backend(name, backend):
    plain, read = load_dataset(name, "dict"), Columns(load_dataset(name, backend))
    for key, column in plain.items():
        if isinstance(column, FactorColumn):
            np.testing.assert_array_equal(read.factor(key).codes, column.codes)
            assert tuple(read.factor(key).levels) == column.levels
        else:
            np.testing.assert_array_equal(read[key], column)
