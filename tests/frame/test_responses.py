"""Forms of responses: all spellings of the same data give the same model, and mistakes are named once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mixedmodels as mm
from mixedmodels.family import Family, get_family
from mixedmodels.formula import parse
from mixedmodels.frame.parts import build_generalised
from mixedmodels.frame.responses import observations_of, rows_without_trials
from mixedmodels.frame.values import FactorColumn, MatrixColumn

BINOMIAL = get_family("binomial")
# tests/references/glmm/responses.R
CBPP, ANY, WEIGHTED, WEIGHTED01, POISSON = (
    -92.026281865,
    -31.020875479,
    -143.229120138,
    -56.446933491,
    -90.241647706,
)


@pytest.fixture(scope="module")
def cbpp():
    data = mm.load_dataset("cbpp", backend="pandas")
    return data.assign(
        share=data["incidence"] / data["size"],
        any=np.where(data["incidence"] > 0, "yes", "no"),
        w=np.tile([1, 2, 3, 1], 14),
    )


def frame_of(formula, data, family=BINOMIAL, **keywords):
    return build_generalised(parse(formula), data, family, **keywords)


def read(value, trials=None, family=BINOMIAL, **keywords):
    notes: list[str] = []
    found = observations_of(value, "y", family, trials, messages=notes, **keywords)
    return found, notes


# --------------------------------------------------------------------------------- successes of trials


def test_three_ways_to_write_successes_out_of_trials(cbpp):
    forms = [
        mm.glmm("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, family="binomial"),
        mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", trials="size"),
        mm.glmm("share ~ period + (1 | herd)", cbpp, family="binomial", trials="size"),
        mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", trials=cbpp["size"].to_numpy()),
    ]
    for fit in forms:
        assert fit.loglik == pytest.approx(CBPP, rel=1e-8)
        np.testing.assert_array_equal(fit.generalised.data.y, cbpp["incidence"])
        np.testing.assert_array_equal(fit.generalised.data.trials, cbpp["size"])
        assert not fit.messages


def test_ways_to_write_failure_and_success(cbpp):
    zero_one = (cbpp["incidence"] > 0).astype(int)
    forms = {
        "integer": zero_one,
        "float": zero_one.astype(float),
        "bool": zero_one.astype(bool),
        "text": cbpp["any"],
        "category": cbpp["any"].astype("category"),
        "unused": pd.Categorical(cbpp["any"], categories=["maybe", "no", "yes"]),
    }
    for name, response in forms.items():
        fit = mm.glmm("y ~ period + (1 | herd)", cbpp.assign(y=response), family="binomial")
        assert fit.loglik == pytest.approx(ANY, rel=1e-8), name
        assert fit.generalised.data.trials is None
        noted = [note for note in fit.messages if "yes is success, no failure" in note]
        assert len(noted) == (name in ("text", "category", "unused")), name
    again = mm.glmm("(incidence > 0) ~ period + (1 | herd)", cbpp, family="binomial")
    assert again.loglik == pytest.approx(ANY, rel=1e-8)


def test_the_first_level_is_failure(cbpp):
    turned = pd.Categorical(cbpp["any"], categories=["yes", "no"])
    a = mm.glmm("any ~ period + (1 | herd)", cbpp, family="binomial")
    b = mm.glmm("any ~ period + (1 | herd)", cbpp.assign(any=turned), family="binomial")
    np.testing.assert_allclose(b.beta, -a.beta, rtol=1e-6)
    assert "no is success, yes failure" in " ".join(b.messages)
    assert a.generalised.data.levels == ("no", "yes")


@pytest.mark.parametrize("convert", [pl.from_pandas, pa.Table.from_pandas, lambda d: d.to_dict("list")])
def test_every_kind_of_data_frame(cbpp, convert):
    data = convert(cbpp)
    fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
    assert fit.loglik == pytest.approx(CBPP, rel=1e-8)
    fit = mm.glmm("any ~ period + (1 | herd)", data, family="binomial", weights="w")
    assert fit.loglik == pytest.approx(WEIGHTED01, rel=1e-8)


def test_a_lazy_frame_is_collected_with_its_trials_and_parts(cbpp):
    lazy = pl.from_pandas(cbpp).lazy()
    fit = mm.glmm("incidence ~ period + (1 | herd)", lazy, family="binomial", trials="size", weights="w")
    assert fit.loglik == pytest.approx(WEIGHTED, rel=1e-8)


def test_zero_and_one_with_trials_are_counts_and_said_to_be(cbpp):
    few = np.minimum(cbpp["incidence"], 1)
    fit = mm.glmm("few ~ 1 + (1 | herd)", cbpp.assign(few=few), family="binomial", trials="size")
    np.testing.assert_array_equal(fit.generalised.data.y, few)
    assert "read as numbers of successes" in " ".join(fit.messages)
    one, notes = read(np.array([0.0, 1.0, 1.0]), np.ones(3))
    assert not notes and one.trials is not None


def test_proportions_may_be_rounded_as_files_round_them():
    found, _ = read(np.array([0.333333, 0.5, 1.0]), np.array([3.0, 4.0, 7.0]))
    np.testing.assert_array_equal(found.y, [1, 2, 7])
    with pytest.raises(mm.DataError, match=r"not a whole number in row 0"):
        read(np.array([0.33, 0.5]), np.array([3.0, 4.0]))


def test_rows_without_trials_say_nothing(cbpp):
    empty = cbpp.iloc[:3].assign(size=0, incidence=0, share=np.nan)
    data = pd.concat([cbpp, empty], ignore_index=True)
    for formula, trials in (
        ("incidence ~ period + (1 | herd)", "size"),
        ("share ~ period + (1 | herd)", "size"),
        ("cbind(incidence, size - incidence) ~ period + (1 | herd)", None),
    ):
        fit = mm.glmm(formula, data, family="binomial", trials=trials)
        assert fit.loglik == pytest.approx(CBPP, rel=1e-8)
        assert fit.nobs == 56
        assert fit.messages == ("3 rows with 0 trials left out of the fit",)
        np.testing.assert_array_equal(fit.frame.zero_weight_rows, [56, 57, 58])


def test_rows_of_errors_are_rows_of_the_data():
    data = {"y": [0.0, np.nan, 1.0, 3.0, 0.0, 1.0], "m": [1, 1, 2, 2, 0, 1], "g": list("aabbcc")}
    with pytest.raises(mm.DataError, match=r"'y' has more successes than trials in row 3"):
        frame_of("y ~ 1 + (1 | g)", data, trials="m")


# ----------------------------------------------------------------------------- weights, counts, numbers


def test_weights_multiply_the_log_likelihood(cbpp):
    fit = mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", trials="size", weights="w")
    assert fit.loglik == pytest.approx(WEIGHTED, rel=1e-8)
    assert fit.design.weights is None  # these are not precisions
    repeated = cbpp.loc[cbpp.index.repeat(cbpp["w"])]
    again = mm.glmm("incidence ~ period + (1 | herd)", repeated, family="binomial", trials="size")
    assert again.loglik == pytest.approx(fit.loglik, rel=1e-10)
    np.testing.assert_allclose(again.beta, fit.beta, rtol=1e-6)


def test_rows_of_weight_zero_are_left_out(cbpp):
    w = np.ones(56)
    w[[3, 17]] = 0.0
    keywords = {"family": "binomial", "trials": "size"}
    fit = mm.glmm("incidence ~ period + (1 | herd)", cbpp.assign(w=w), weights="w", **keywords)
    less = mm.glmm("incidence ~ period + (1 | herd)", cbpp[w > 0], **keywords)
    assert fit.loglik == pytest.approx(less.loglik, rel=1e-12) and fit.nobs == 54
    assert "2 rows with weight 0" in fit.messages[0]
    assert fit.fitted().shape == (56,)


def test_missing_trials_and_weights_are_missing_values(cbpp):
    m = cbpp["size"].astype(float)
    m[5] = np.nan
    data = cbpp.assign(m=m)
    fit = mm.glmm("incidence ~ 1 + (1 | herd)", data, family="binomial", trials="m", na_action="exclude")
    assert fit.nobs == 55 and fit.frame.na_counts == {"trials": 1}
    assert fit.fitted().shape == (56,) and np.isnan(fit.fitted()[5])
    with pytest.raises(mm.DataError, match=r"trials: 1"):
        mm.glmm("incidence ~ 1 + (1 | herd)", data, family="binomial", trials="m", na_action="fail")


def test_counts_with_an_offset(cbpp):
    data = cbpp.assign(o=np.log(cbpp["size"]))
    for formula, offset in (("offset(log(size)) +", None), ("", "o"), ("", data["o"].to_numpy())):
        fit = mm.glmm(f"incidence ~ {formula} period + (1 | herd)", data, family="poisson", offset=offset)
        assert fit.loglik == pytest.approx(POISSON, rel=1e-8)


class Categories(Family):
    """Stands for a family of ordered categories."""

    name = "cumulative"
    response = "categories"


def test_categories_become_codes():
    value = FactorColumn(np.array([2, 0, 1, 2], np.int32), ("lo", "mid", "hi"), ordered=True)
    found, notes = read(value, family=Categories())
    np.testing.assert_array_equal(found.y, [3, 1, 2, 3])
    assert found.levels == ("lo", "mid", "hi") and not notes
    value = FactorColumn(np.array([2, 0, 0, 2], np.int32), ("lo", "mid", "hi"))
    found, notes = read(value, family=Categories())
    np.testing.assert_array_equal(found.y, [2, 1, 1, 2])
    assert found.levels == ("lo", "hi") and "lo < hi" in notes[1]
    found, notes = read(np.array([3.0, 1.0, 5.0]), family=Categories())
    assert found.levels == ("1", "3", "5") and not notes


def test_categories_need_an_order():
    codes = np.array([2, 0, 1, 2], np.int32)
    with pytest.raises(mm.DataError, match=r"without an order .*hi, lo, mid.*ordered\(y, levels"):
        read(FactorColumn(codes, ("hi", "lo", "mid")), family=Categories())
    found, notes = read(FactorColumn(codes, ("lo", "mid", "hi")), family=Categories())  # somebody's order
    assert found.levels == ("lo", "mid", "hi") and "lo < mid < hi" in notes[0]
    found, _ = read(FactorColumn(codes, ("8", "9", "10")), family=Categories())  # numbers kept as text
    assert found.levels == ("8", "9", "10")
    with pytest.raises(mm.DataError, match="without an order"):
        read(FactorColumn(codes, ("10", "8", "9")), family=Categories())
    with pytest.raises(mm.DataError, match="constant"):
        read(FactorColumn(codes * 0, ("lo", "mid", "hi"), ordered=True), family=Categories())
    with pytest.raises(mm.DataError, match="different values"):
        read(np.linspace(0, 1, 200), family=Categories())


def test_only_rows_without_any_trial_are_empty():
    pairs = MatrixColumn(np.array([[0.0, 0.0], [0.0, 2.0], [np.nan, 0.0]]), ("a", "b"))
    np.testing.assert_array_equal(rows_without_trials(pairs, None)[1], [True, False, False])
    value, empty = rows_without_trials(np.array([np.nan, np.nan, 0.5]), np.array([0.0, 3.0, 2.0]))
    np.testing.assert_array_equal(empty, [True, False, False])
    np.testing.assert_array_equal(value, [0.0, np.nan, 0.5])
    assert rows_without_trials(np.zeros(2), np.ones(2))[1] is None
