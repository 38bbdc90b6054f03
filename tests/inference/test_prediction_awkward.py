"""Predictions with intervals from odd inputs: right numbers or one clear error (hard cases 11 and 18-24)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mixedmodels as mm

METHODS = [{}, {"method": "simulation", "n": 200, "seed": 1, "draws": True}]
Z975 = 1.959963984540054


@pytest.fixture(scope="module")
def sleep():
    data = mm.load_dataset("sleepstudy", backend="pandas")
    rng = np.random.default_rng(1)
    return data.assign(
        o=np.arange(180.0) / 10, w=rng.uniform(0.5, 2.0, 180), f=np.where(data["Days"] > 4, "late", "early")
    )


@pytest.fixture(scope="module")
def plain(sleep):
    return mm.lmm("Reaction ~ Days + (Days | Subject)", sleep)


@pytest.fixture(scope="module")
def weighted(sleep):
    return mm.lmm("Reaction ~ Days + offset(o) + (Days | Subject)", sleep, weights="w")


@pytest.fixture(scope="module")
def shifted(sleep):
    return mm.lmm("Reaction ~ Days + (Days | Subject)", sleep, offset=sleep["o"].to_numpy())


@pytest.fixture(params=METHODS, ids=["formulae", "simulation"])
def how(request):
    return {"interval": "prediction", **request.param}


def frames(data):
    return {
        "polars": pl.from_pandas(data),
        "lazy": pl.from_pandas(data).lazy(),
        "pyarrow": pa.Table.from_pandas(data, preserve_index=False),
        "dict": {name: data[name].to_numpy() for name in data},
        "lists": {name: data[name].tolist() for name in data},
    }


@pytest.mark.parametrize("library", ["polars", "lazy", "pyarrow", "dict", "lists"])
def test_new_rows_of_any_library(plain, sleep, how, library):
    rows = sleep.loc[[5, 60, 170], ["Days", "Subject"]]
    expected, table = plain.predict(rows, **how), plain.predict(frames(rows)[library], **how)
    for name in expected.columns:
        np.testing.assert_array_equal(table[name], expected[name])
    single = plain.predict(frames(rows.iloc[[0]])[library], **how)
    assert single["predicted"].shape == (1,)
    assert single["predicted"][0] == pytest.approx(expected["predicted"][0], rel=1e-12)
    if "method" not in how:
        assert single["prediction_sd"][0] == pytest.approx(expected["prediction_sd"][0], rel=1e-12)


@pytest.mark.parametrize("re_form", [None, "population", "~ (1 | Subject)"])
def test_no_rows_give_no_predictions(plain, sleep, how, re_form):
    table = plain.predict(sleep.iloc[:0], re_form, **how)
    assert all(len(column) == 0 for column in table.columns.values())
    assert table.to_frame().shape[0] == 0
    if how.get("draws"):
        assert table.extra["draws"].shape == (0, 200)


def test_only_missing_values_give_missing_predictions(plain, sleep, how):
    for rows, options in (
        (sleep.head(3).assign(Days=np.nan), {}),
        (sleep.head(3).assign(Subject=[None, "x", "y"]), {"new_levels": "missing"}),
    ):
        table = plain.predict(rows, **how, **options)
        assert all(np.isnan(column).all() for column in table.columns.values())
        assert len(table["predicted"]) == 3


def test_known_new_and_missing_levels_together(weighted, sleep, how):
    rows = sleep.head(4).assign(Subject=["308", None, "new", "310"], Days=[1.0, 2.0, 3.0, np.nan])
    with pytest.raises(mm.NewLevelError, match="new"):
        weighted.predict(rows, **how)
    with pytest.raises(mm.NewLevelError, match=r"Subject.*missing"):
        weighted.predict(rows[rows["Subject"] != "new"], **how)
    table = weighted.predict(rows, new_levels="population", weights="w", **how)
    x = np.column_stack([np.ones(4), rows["Days"]])[1:3]
    Sigma = weighted.sigma**2 * np.array(weighted._factors[0]) @ np.array(weighted._factors[0]).T
    np.testing.assert_allclose(table["predicted"][1:3], x @ weighted.beta + rows["o"][1:3], rtol=1e-12)
    expected = np.sum(x @ (weighted.vcov + Sigma) * x, axis=1) + weighted.sigma**2 / rows["w"][1:3]
    rtol = 1e-8 if "method" not in how else 0.35
    np.testing.assert_allclose(table["prediction_sd"][1:3] ** 2, expected, rtol=rtol)
    assert np.isnan(table["conf_low"]).tolist() == [False, False, False, True]
    known = weighted.predict(rows.head(1), weights="w", interval="prediction")
    assert table["predicted"][0] == pytest.approx(known["predicted"][0], rel=1e-12)
    assert table["prediction_sd"][0] == pytest.approx(known["prediction_sd"][0], rel=max(rtol / 2, 1e-10))
    missing = weighted.predict(rows, new_levels="missing", weights="w", **how)
    assert np.isnan(missing["prediction_sd"]).tolist() == [False, True, True, True]


def test_not_estimable_and_new_levels_together(how):
    rng = np.random.default_rng(4)
    a, b = np.repeat(["p", "q"], 40), np.tile(["u", "v"], 40)
    data = pd.DataFrame({"a": a, "b": b, "g": np.tile(np.arange(8), 10), "w": rng.uniform(0.5, 2.0, 80)})
    data["y"] = rng.standard_normal(80) + data["g"]
    seen = data[~((a == "q") & (b == "v"))]
    fit = mm.lmm("y ~ a * b + (1 | g)", seen, weights="w")
    rows = {"a": ["q", "q", "p", "p"], "b": ["u", "v", "v", "u"], "g": [0, 99, 99, None]}
    with pytest.warns(mm.NotEstimableWarning, match=r"1 predicted value.*rows 1"):
        table = fit.predict(rows, new_levels="population", **how)
    for name in ("predicted", "std_error", "prediction_sd", "conf_low", "conf_high"):
        assert np.isnan(table[name]).tolist() == [False, True, False, False], name
    # the model with one parameter a cell says the same of the other cells
    cells = seen.assign(cell=seen["a"] + seen["b"])
    other = mm.lmm("y ~ 0 + cell + (1 | g)", cells, weights="w")
    same = other.predict(
        {"cell": ["qu", "pv", "pu"], "g": [0, 99, None]}, new_levels="population", interval="prediction"
    )
    rtol = 1e-6 if "method" not in how else 0.2
    np.testing.assert_allclose(table["prediction_sd"][[0, 2, 3]], same["prediction_sd"], rtol=rtol)


def test_offsets_shift_the_limits_and_nothing_else(shifted, plain, sleep, how):
    rows = sleep.head(3)
    given = shifted.predict(rows, offset=[1.0, -2.0, 30.0], **how)
    zero = shifted.predict(rows, offset=np.zeros(3), **how)
    column = shifted.predict(rows.assign(z=[1.0, -2.0, 30.0]), offset="z", **how)
    for name in ("predicted", "conf_low", "conf_high"):
        np.testing.assert_allclose(given[name] - zero[name], [1.0, -2.0, 30.0], rtol=1e-9)
        np.testing.assert_array_equal(column[name], given[name])
    np.testing.assert_allclose(given["prediction_sd"], zero["prediction_sd"], rtol=1e-9)
    missing = shifted.predict(rows, offset=[1.0, np.nan, 2.0], **how)
    assert np.isnan(missing["conf_high"]).tolist() == [False, True, False]
    assert np.isnan(missing["std_error"]).tolist() == [False, True, False]


def test_transforms_in_both_parts_with_one_row(sleep):
    fit = mm.lmm("Reaction ~ poly(Days, 2) + (scale(Days) | Subject)", sleep)
    own = fit.predict(interval="prediction")
    for row in (0, 99):
        single = fit.predict(sleep.iloc[[row]].drop(columns=["Reaction"]), interval="prediction")
        for name in own.columns:
            assert single[name][0] == pytest.approx(own[name][row], rel=1e-10)


def test_limits_of_a_transformed_response_are_on_its_scale(sleep):
    fit = mm.lmm("log(Reaction) ~ Days + (1 | Subject)", sleep)
    table = fit.predict(sleep.head(2), interval="prediction")
    np.testing.assert_allclose(
        table["conf_high"] - table["predicted"], Z975 * table["prediction_sd"], rtol=1e-12
    )
    assert table["conf_high"].max() < 10.0


def test_weights_of_new_rows(weighted, sleep, how):
    rows = sleep.head(3)
    assert np.isnan(weighted.predict(rows, weights=[1.0, np.nan, 2.0], **how)["prediction_sd"]).tolist() == [
        False,
        True,
        False,
    ]
    four = weighted.predict(rows, weights=4.0, interval="prediction")
    one = weighted.predict(rows, interval="prediction")
    gap = one["prediction_sd"] ** 2 - four["prediction_sd"] ** 2
    np.testing.assert_allclose(gap, 0.75 * weighted.sigma**2, rtol=1e-8)


WRONG = [
    ("plain", {"Days": np.inf}, {}, mm.DataError, r"'Days'.*infinite"),
    ("plain", {"Days": ["a", "b", "c"]}, {}, mm.DataError, r"'Days'.*numeric"),
    ("shifted", {}, {}, mm.DataError, "offset"),
    ("shifted", {}, {"offset": [1.0, 2.0]}, mm.DataError, r"offset.*3 rows"),
    ("shifted", {}, {"offset": [1.0, np.inf, 2.0]}, mm.DataError, r"offset.*infinite"),
    ("shifted", {}, {"offset": "nowhere"}, mm.DataError, "'nowhere'"),
    ("weighted", {}, {"weights": [1.0, 0.0, 2.0]}, mm.DataError, "positive"),
    ("weighted", {}, {"weights": np.inf}, mm.DataError, "finite"),
    ("weighted", {}, {"weights": ["a", "b", "c"]}, mm.DataError, "weights"),
    ("weighted", {}, {"weights": [1.0]}, mm.DataError, r"weights.*3 rows"),
    ("plain", {}, {"new_levels": "append"}, mm.OptionError, "new_levels"),
    ("plain", {}, {"re_form": "~ (1 | nobody)"}, mm.OptionError, "nobody"),
    ("plain", {}, {"level": float("nan")}, mm.OptionError, "level"),
]


@pytest.mark.parametrize(("name", "change", "options", "error", "match"), WRONG)
def test_one_clear_error(request, sleep, how, name, change, options, error, match):
    fit = request.getfixturevalue(name)
    with pytest.raises(error, match=match):
        fit.predict(sleep.head(3).assign(**change), **how, **options)


@pytest.mark.parametrize(
    ("newdata", "match"),
    [
        ({"Days": 1, "Subject": "308"}, "single value"),
        ({}, "no columns"),
        (pd.DataFrame(), "'Days'"),
        ([1, 2], "data frame"),
        (np.ones((2, 2)), "data frame"),
        ("newdata", "data frame"),
    ],
)
def test_what_is_no_data(plain, how, newdata, match):
    with pytest.raises(mm.DataError, match=match):
        plain.predict(newdata, **how)


def test_options_of_own_rows_are_checked(plain, how):
    for options, match in (
        ({"new_levels": "other"}, "new_levels"),
        ({"offset": [1.0]}, "newdata"),
        ({"weights": "w"}, "newdata"),
    ):
        with pytest.raises(mm.OptionError, match=match):
            plain.predict(**how, **options)
