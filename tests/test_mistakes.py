"""Mistakes people make: each gives one clear error that names the culprit and the remedy."""

from __future__ import annotations

import datetime
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mixedmodels as mm

SLEEP = mm.load_dataset("sleepstudy", backend="pandas")
FORMULA = "Reaction ~ Days + (Days | Subject)"
N = len(SLEEP)


def changed(**columns):
    return SLEEP.assign(**columns)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Reaction ∼ Days + (1|Subject)", "'∼'.*write '~'"),
        ("Reaction ~ Days ＋ (1|Subject)", "'＋'.*write '\\+'"),
        ("Reaction ~ Days − 1 + (1|Subject)", "'−'.*write '-'"),
        ("Reaction ~ Days + (1｜Subject)", "write '|'"),
        ("Reaction ~ Days # linear", "comments"),
        ("Reaction ~ Days + (|Subject)", r"unexpected '\|'.*\(effects \| group\)"),
        ("Reaction ~ Days + (1||)", "name the grouping factor after the bar"),
        ("Reaction ~ Days + (1|)", "name the grouping factor after the bar"),
        ("Reaction ~ Days + (1|||Subject)", r"\(effects \| group\)"),
        ("Reaction ~ Days + () + (1|Subject)", "a name or an expression is missing"),
        ("Reaction ~ * Days + (1|Subject)", "a name or an expression is missing"),
        ("Reaction ~ Days & Subject + (1|Subject)", "for an interaction write ':'"),
        ("Reaction ~ ar2(Days|Subject)", r"'ar2' is not a covariance structure.*'\(Days \| Subject\)'"),
        ("Reaction ~ log((1|Subject))", "'log' is not a covariance structure"),
    ],
)
def test_formulas(formula, message):
    with pytest.raises(mm.FormulaError, match=message):
        mm.lmm(formula, SLEEP)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (SLEEP, "the formula comes first"),
        (["Reaction", "Days"], "formula_from_lists"),
        (None, "must be a text or a Formula, got NoneType"),
    ],
)
def test_something_else_as_formula(formula, message):
    with pytest.raises(mm.OptionError, match=message):
        mm.lmm(formula, SLEEP)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("sleepstudy", "load_dataset"),
        (SLEEP.to_dict("records"), r"pandas\.DataFrame\(records\)"),
        (SLEEP[["Reaction", "Days"]].to_numpy(), "so that the columns have names"),
        (SLEEP["Reaction"], "'Series' cannot be read"),
        (pd.DataFrame(SLEEP.to_numpy()), r"names of their columns are not text \(0, 1, 2\); rename"),
        (pd.concat({"a": SLEEP}, axis=1), "names of their columns are not text"),
        (changed(Days=[1, "a", 2.5, None] * 45), r"'Days' mixes numbers and texts \(1 and 'a'\)"),
        (changed(Subject=[1, "1", 2.0, "b", 3] * 36), "'Subject' mixes numbers and texts"),
        (changed(Reaction=SLEEP.Reaction.astype(str)), "numbers kept as text"),
        (changed(Reaction=SLEEP.Reaction > 300), "code a yes/no response as 0 and 1"),
        (changed(Reaction=pd.cut(SLEEP.Reaction, 3).astype(str)), "convert it, or name another column"),
        (changed(Days=SLEEP.Days + 1j), "complex128"),
        (changed(Days=[[1]] * N), "'Days' holds values of type list"),
        (changed(Days=np.nan), "no row without missing values.*Days: 180"),
        ({"Reaction": 1.0, "Days": 1, "Subject": "a"}, "'Reaction' is a single value"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else type(value).__name__,
)
def test_data(data, message):
    with pytest.raises(mm.DataError, match=message):
        mm.lmm(FORMULA, data)


def test_mixed_columns_of_polars_objects():
    data = pl.DataFrame(
        {"y": [1.0, 2, 4, 3], "x": pl.Series([1, "a", 2, "b"], dtype=pl.Object), "g": ["a", "a", "b", "b"]}
    )
    with pytest.raises(mm.DataError, match="'x' mixes numbers and texts"):
        mm.lmm("y ~ x + (1 | g)", data)


def test_dates_and_durations_are_days():
    start = datetime.date(2020, 1, 1)
    dates = [start + datetime.timedelta(days=int(day)) for day in SLEEP.Days]
    expected = mm.lmm(FORMULA, SLEEP).criterion
    for days in (dates, pd.to_datetime(dates), pd.to_timedelta(SLEEP.Days, unit="D")):
        assert mm.lmm(FORMULA, changed(Days=days)).criterion == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"functions": [np.log]}, "functions must be a dict"),
        ({"contrasts": "sum"}, r"contrasts must be a dict.*\"Days\": \"sum\""),
        ({"control": {"maxit": 3}}, "control has no option 'maxit'; available: maxiter, tol"),
        ({"control": {"maxiter": "3"}}, "maxiter must be a number, not '3'"),
        ({"control": {"tol": None}}, "tol must be a number"),
    ],
)
def test_options(options, message):
    with pytest.raises(mm.OptionError, match=message):
        mm.lmm(FORMULA, SLEEP, **options)


def test_undefined_transforms_warn_where_the_user_called():
    with pytest.warns(
        mm.FormulaWarning, match=r"log\(Reaction - 300\) is not a number in 102 rows"
    ) as caught:
        fit = mm.lmm("log(Reaction - 300) ~ Days + (1 | Subject)", SLEEP)
    assert fit.nobs == 78
    assert caught[0].filename == __file__


def test_missing_values_under_a_transform_do_not_warn():
    data = changed(Days=SLEEP.Days.where(SLEEP.Days != 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mm.lmm("Reaction ~ log(Days + 1) + (1 | Subject)", data).nobs == 162


def test_the_factor_with_too_many_levels_is_named():
    days = pd.period_range("2020", periods=N)
    with pytest.raises(mm.IdentifiabilityError, match="the term Days alone 179; is it meant as a factor"):
        mm.lmm("Reaction ~ Days + (1 | Subject)", changed(Days=days))


def test_dependent_columns_of_a_random_term_are_named():
    fit = mm.lmm(FORMULA, changed(Days=1.0))
    assert "the columns (Intercept) and Days are linearly dependent" in fit.messages[0]


@pytest.fixture(scope="module")
def fit():
    return mm.lmm(FORMULA, SLEEP)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.predict(SLEEP, re_form=0), "re_form must be None"),
        (lambda fit: fit.simulate(seed="a"), "seed must be None, a whole number"),
        (lambda fit: fit.simulate(seed=-1), "seed must be None, a whole number"),
        (lambda fit: fit.simulate("2"), "n must be a positive whole number"),
        (lambda fit: fit.conditional_covariance("Subject"), "term must be a position"),
        (lambda fit: fit.refit(SLEEP.Reaction.to_numpy() + 1j), "numeric response"),
        (lambda fit: fit.save(None), "path must be a text or a path"),
        (lambda fit: mm.load(SLEEP), "path must be a text or a path"),
        (lambda fit: mm.compare(fit, 3), r"compare\(\) takes fits, got int"),
        (lambda fit: mm.formula_from_lists("y", ["x"], 1, 2), "random must be a list of entries"),
    ],
)
def test_methods(fit, call, message):
    with pytest.raises(mm.MixedModelsError, match=message):
        call(fit)


class TestFromMatrices:
    term = mm.RandomTerm("g", ("(Intercept)",), SLEEP.Subject.to_numpy(), None, None, "us")

    def test_dependent_columns_are_named(self):
        with pytest.raises(mm.DataError, match="not of full column rank: x2 depends linearly"):
            mm.LinearMixedModel.from_matrices(SLEEP.Reaction, np.ones((N, 2)), [self.term])

    def test_one_term_needs_no_list(self):
        one = mm.LinearMixedModel.from_matrices(SLEEP.Reaction, np.ones(N), self.term).fit()
        assert one.criterion == mm.LinearMixedModel.from_matrices(
            SLEEP.Reaction, np.ones(N), [self.term]
        ).objective(one.theta)

    def test_terms_of_another_type(self):
        with pytest.raises(mm.OptionError, match="terms must be a sequence of RandomTerm"):
            mm.LinearMixedModel.from_matrices(SLEEP.Reaction, np.ones(N), 3)

    def test_names_come_from_a_frame(self):
        X = SLEEP[["Days"]].assign(one=1.0)
        fit = mm.LinearMixedModel.from_matrices(SLEEP.Reaction, X, [self.term]).fit()
        assert list(fit.fixef) == ["Days", "one"]


def test_refit_takes_as_many_values_as_fitted_returns():
    data = changed(w=np.where(np.arange(N) % 9 == 0, 0.0, 1.0 + np.arange(N) % 3))
    data.loc[3, "Days"] = np.nan
    fit = mm.lmm(FORMULA, data, weights="w")
    shown = np.nan_to_num(fit.response())
    assert shown.shape[0] not in (fit.nobs, N)
    again = fit.refit(shown)
    assert again.criterion == fit.criterion
    np.testing.assert_array_equal(again.design.y, fit.design.y)


def test_a_factor_with_both_fixed_and_random_effects_is_noted():
    note = "the fixed effects of Subject take up all differences between its levels"
    noted = mm.lmm("Reaction ~ Days + Subject + (1 | Subject)", SLEEP, reml=False)
    assert any(note in message for message in noted.messages)
    assert noted.theta[0] == 0.0
    pastes = mm.load_dataset("Pastes", backend="dict")
    both = mm.lmm("strength ~ cask:batch + (1 | batch:cask) + (1 | batch)", pastes, reml=False)
    assert any("the fixed effects of batch:cask take up" in message for message in both.messages)
    numbers = changed(Subject=SLEEP.Subject.astype(int))  # a number in the fixed part is one slope
    for formula, data in (
        ("Reaction ~ Days + Subject + (1 | Subject)", numbers),
        ("Reaction ~ Subject + (0 + Days | Subject)", SLEEP),
    ):
        assert not any(note in message for message in mm.lmm(formula, data, reml=False).messages)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", ["y ~ 1 + (x | g)", "y ~ 0 + x + (x | g)", "y ~ 0 + (x | g)"])
def test_a_missing_fixed_slope_or_intercept_converges(formula, reml):
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(30), 10), np.tile(np.arange(10.0), 30)
    y = 100 + 10 * x + rng.normal(size=30)[g] * 5 + rng.normal(size=30)[g] * x + rng.normal(size=300) * 3
    data = {"y": y, "x": x, "g": g}
    fit = mm.lmm(formula, data, reml=reml)
    assert fit.converged
    assert fit.optimum.evaluations <= 25
    other = mm.lmm(formula, data, reml=reml, method="lbfgsb").criterion
    assert fit.criterion == pytest.approx(other, rel=0.0, abs=1e-8)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ 0 + Days + (Days | Subject)",
        "Reaction ~ 1 + (Days | Subject)",
        "Reaction ~ 1 + (0 + Days | Subject) + (1 | Subject)",
    ],
)
def test_sleepstudy_without_a_fixed_slope_or_intercept_converges(formula, reml):
    fit = mm.lmm(formula, SLEEP, reml=reml)
    assert fit.converged
    assert fit.optimum.evaluations <= 25
    other = mm.lmm(formula, SLEEP, reml=reml, method="lbfgsb").criterion
    assert fit.criterion == pytest.approx(other, rel=0.0, abs=1e-8)


def test_factors_that_group_the_rows_alike_are_noted():
    data = changed(lab=SLEEP.Subject.cat.codes.to_numpy() // 3, copy=SLEEP.Subject.astype(str) + "x")
    nested = mm.LinearMixedModel("Reaction ~ Days + (1 | Subject) + (1 | lab/Subject)", data)
    copied = mm.LinearMixedModel("Reaction ~ Days + (1 | Subject) + (Days | copy)", data)
    for model, second in ((nested, "Subject:lab"), (copied, "copy")):
        assert any(f"Subject and {second} group the rows alike" in note for note in model.design.notes)
    pairs = {
        "y": np.arange(40.0) % 7,
        "a": np.arange(40) % 8,
        "b": np.arange(40) // 5,
    }  # 8 levels each, crossed
    assert not any("alike" in n for n in mm.LinearMixedModel("y ~ 1 + (1|a) + (1|b)", pairs).design.notes)
