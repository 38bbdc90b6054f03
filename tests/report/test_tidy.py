"""Tidy tables in the library of the data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mixedmodels as mm
from mixedmodels.report.tidy import to_native

LMER = json.loads(Path(__file__).parents[1].joinpath("references", "inference", "adapters.json").read_text())
FORMULA = "Reaction ~ Days + (Days | Subject)"
COLUMNS = ["effect", "group", "term", "estimate", "std_error", "statistic", "df", "p_value"]


def plain(data):
    return {
        "Reaction": data["Reaction"].to_numpy(),
        "Days": data["Days"].to_numpy(),
        "Subject": data["Subject"].to_numpy().astype(str),
    }


@pytest.fixture(scope="module", params=["pandas", "polars", "pyarrow", "dict"])
def library(request):
    return request.param


@pytest.fixture(scope="module")
def other_fit(library):
    if library == "dict":
        return mm.lmm(FORMULA, plain(mm.load_dataset("sleepstudy", backend="pandas")))
    return mm.lmm(FORMULA, mm.load_dataset("sleepstudy", backend=library))


TYPES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table, "dict": dict}


def columns_of(frame):
    if isinstance(frame, pa.Table):
        return {name: frame.column(name).to_pylist() for name in frame.column_names}
    return {name: list(frame[name]) for name in (frame if isinstance(frame, dict) else frame.columns)}


@pytest.mark.parametrize("method", ["tidy", "glance", "augment", "ranef", "coef", "confint", "wald"])
def test_tables_come_in_the_callers_library(other_fit, library, method):
    frame = getattr(other_fit, method)()
    frame = frame.to_frame() if hasattr(frame, "to_frame") else frame
    assert type(frame) is TYPES[library]
    lengths = {len(values) for values in columns_of(frame).values()}
    assert len(lengths) == 1


def test_values_do_not_depend_on_the_library(other_fit, fit):
    columns = columns_of(other_fit.tidy())
    assert list(columns) == COLUMNS
    assert columns["estimate"] == pytest.approx(fit.tidy()["estimate"].tolist(), rel=1e-7)
    assert columns["effect"] == ["fixed"] * 2 + ["ran_pars"] * 4
    assert columns["term"] == [
        "(Intercept)",
        "Days",
        "sd__(Intercept)",
        "sd__Days",
        "cor__(Intercept).Days",
        "sd__Observation",
    ]
    frame = columns_of(other_fit.varcorr.to_frame())
    assert list(frame) == ["group", "name1", "name2", "vcov", "sdcor"]


def test_missing_groups_are_missing(other_fit):
    columns = columns_of(other_fit.tidy())
    for value in columns["group"][:2]:
        assert value is None or value != value
    assert columns["group"][2:] == ["Subject", "Subject", "Subject", "Residual"]


def test_fixed_effects(fit):
    frame = fit.tidy("fixed", conf_int=True, level=0.9)
    assert list(frame.columns) == [*COLUMNS, "conf_low", "conf_high"]
    row = frame.iloc[1]
    assert row["statistic"] == pytest.approx(fit.fixef["Days"] / fit.se["Days"])
    assert row["df"] == pytest.approx(17.0, abs=1e-3)
    assert row["p_value"] == pytest.approx(LMER["coefficients"]["p_value"][1], rel=1e-5)
    assert row["conf_high"] - row["estimate"] == pytest.approx(1.739606726 * row["std_error"], rel=1e-6)
    row = fit.tidy("fixed", conf_int=True, level=0.9, ddf="z").iloc[1]
    assert row["p_value"] == pytest.approx(math.erfc(row["statistic"] / math.sqrt(2)))
    assert row["df"] == math.inf
    assert row["conf_high"] - row["estimate"] == pytest.approx(1.6448536269514722 * row["std_error"])
    with pytest.raises(mm.OptionError, match="conf_method"):
        fit.tidy(conf_int=True, conf_method="wrong")


def test_random_values_and_coefficients(fit):
    ran_vals = fit.tidy("ran_vals", conf_int=True)
    assert len(ran_vals) == 36
    assert ran_vals["term"].iloc[0] == "308.(Intercept)"
    assert np.allclose(ran_vals["estimate"], fit.ranef()["estimate"])
    assert (ran_vals["conf_low"] < ran_vals["estimate"]).all()
    ran_coefs = fit.tidy("ran_coefs")
    assert np.allclose(ran_coefs["estimate"], fit.coef()["estimate"])
    assert set(fit.tidy(("fixed", "ran_pars", "ran_vals", "ran_coefs"))["effect"]) == {
        "fixed",
        "ran_pars",
        "ran_vals",
        "ran_coefs",
    }


def test_glance(fit):
    frame = fit.glance()
    assert len(frame) == 1
    row = frame.iloc[0]
    for name in ("nobs", "sigma", "loglik", "criterion", "deviance", "aic", "bic", "aicc", "df_model"):
        assert row[name] == getattr(fit, name)
    assert row["df_residual"] == 174


def test_augment(fit, sleepstudy):
    frame = fit.augment()
    assert np.array_equal(frame["response"], sleepstudy["Reaction"])
    assert np.array_equal(frame["fitted"], fit.fitted())
    assert np.allclose(frame["response"] - frame["fitted"], frame["residual"])


def test_augment_pads_with_exclude(sleepstudy):
    data = sleepstudy.copy()
    data.loc[5, "Reaction"] = np.nan
    assert len(mm.lmm(FORMULA, data, na_action="exclude").augment()) == 180
    assert len(mm.lmm(FORMULA, data).augment()) == 179


def test_wrong_arguments(fit):
    with pytest.raises(mm.OptionError, match="random"):
        fit.tidy("random")
    with pytest.raises(mm.OptionError, match="level"):
        fit.tidy(conf_int=True, level=2)


def test_levels_of_several_types_become_text():
    rng = np.random.default_rng(3)
    a, b = np.repeat(np.arange(6), 10), np.tile(np.array(list("uvwxy")), 12)
    y = rng.standard_normal(60) + a + np.tile(np.arange(5), 12)
    fit = mm.lmm("y ~ 1 + (1 | a) + (1 | b)", {"y": y, "a": a, "b": b})
    assert list(fit.ranef()["level"]) == ["0", "1", "2", "3", "4", "5", "u", "v", "w", "x", "y"]
    only = mm.lmm("y ~ 1 + (1 | a)", {"y": y, "a": a})
    assert only.ranef()["level"].tolist() == [0, 1, 2, 3, 4, 5]


def test_other_libraries_get_an_eager_frame():
    assert isinstance(to_native({"a": [1, 2]}, "duckdb"), pa.Table)
    assert to_native({"a": [1, 2]}, None)["a"].tolist() == [1, 2]


def test_levels_are_written_quickly_and_in_order():
    import time

    rng = np.random.default_rng(2)
    m = 20_000
    g = np.repeat(np.arange(m), 2)
    fit = mm.lmm("y ~ 1 + (1 | g)", {"y": rng.normal(size=m)[g] + rng.normal(size=2 * m), "g": g})
    begin = time.perf_counter()
    rows = fit.tidy(["fixed", "ran_vals", "ran_coefs"], conf_int=True)
    assert time.perf_counter() - begin < 1.0
    estimates, errors = np.array(rows["estimate"]), np.array(rows["std_error"])
    np.testing.assert_array_equal(estimates[1 : m + 1], fit._b[0][:, 0])
    np.testing.assert_allclose(estimates[m + 1 :], fit._b[0][:, 0] + fit.beta[0], rtol=1e-14)
    upper = estimates + 1.959963984540054 * errors  # the fixed effect has a t quantile
    np.testing.assert_allclose(np.array(rows["conf_high"])[1:], upper[1:])
    assert rows["term"][1] == "0.(Intercept)" and rows["effect"][-1] == "ran_coefs"
    assert np.all(errors[m + 1 :] > errors[1 : m + 1])  # the error of beta comes to that of b


def test_coefficients_per_level_have_standard_errors(fit):
    frame = fit.tidy(effects="ran_coefs", conf_int=True)
    coef = fit.coef(condvar=True)
    np.testing.assert_allclose(frame["std_error"], coef["std_error"])
    # for a subject's intercept it is the standard error of its prediction at day 0
    own = fit.predict({"Days": [0.0], "Subject": ["308"]}, se=True)["std_error"][0]
    assert frame["std_error"][0] == pytest.approx(own, rel=1e-10)
    half = 1.959963984540054 * frame["std_error"]
    np.testing.assert_allclose(frame["conf_high"] - frame["estimate"], half, rtol=1e-10)


def test_limits_by_profile(fit):
    frame = fit.tidy(conf_int=True, conf_method="profile")
    profile = fit.confint(method="profile")
    assert not frame["conf_low"].isna().any()
    # lme4 (make_adapters.R), which profiles the likelihood; its limits come from splines
    r = LMER["profile"]
    limits = dict(zip(r["name"], zip(r["conf_low"], r["conf_high"], strict=True), strict=True))
    for term, name in {
        "(Intercept)": "(Intercept)",
        "Days": "Days",
        "sd__(Intercept)": "sd_(Intercept)|Subject",
        "sd__Days": "sd_Days|Subject",
        "sd__Observation": "sigma",
        "cor__(Intercept).Days": "cor_Days.(Intercept)|Subject",
    }.items():
        row, (low, high) = frame[frame["term"] == term].iloc[0], limits[name]
        width = high - low
        assert (row.conf_low, row.conf_high) == pytest.approx((low, high), abs=1e-3 * width), term
    row = frame[frame["term"] == "Days"].iloc[0]
    assert row.conf_low == profile.row("Days")["conf_low"]


def test_limits_methods_and_options_are_checked(fit):
    with pytest.raises(mm.OptionError, match="'laplace' is unknown"):
        fit.tidy(conf_int=True, conf_method="laplace")
    with pytest.raises(mm.OptionError, match="no option 'n'"):
        fit.tidy(conf_int=True, n=100)


def test_limits_by_bootstrap_are_those_of_confint(fit, monkeypatch):
    from mixedmodels.inference.table import result_table

    names = [("Subject", "sd__Days"), ("Residual", "sd__Observation"), (None, "Days")]

    def confint(self, method, level, **options):
        assert (method, level, options) == ("bootstrap", 0.9, {"n": 50, "seed": 1})
        groups, terms = zip(*names, strict=True)
        limits = {"conf_low": [1.0, 2.0, 3.0], "conf_high": [4.0, 5.0, 6.0]}
        return result_table("", {"term": terms, "group": groups, **limits}, extra={"tidy": names})

    monkeypatch.setattr(type(fit), "confint", confint)
    frame = fit.tidy(conf_int=True, conf_method="bootstrap", level=0.9, n=50, seed=1).set_index("term")
    assert frame.loc["sd__Days", ["conf_low", "conf_high"]].tolist() == [1.0, 4.0]
    assert frame.loc["sd__Observation", ["conf_low", "conf_high"]].tolist() == [2.0, 5.0]
    assert frame.loc["Days", ["conf_low", "conf_high"]].tolist() == [3.0, 6.0]
    assert np.isnan(frame.loc["sd__(Intercept)", "conf_low"])
