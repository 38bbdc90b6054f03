"""Single term deletions: lme4's likelihood ratios, lmerTest's F, marginality, dependent columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

REFERENCES = Path(__file__).parents[1] / "references"
TESTS = json.loads((REFERENCES / "inference" / "tests.json").read_text(encoding="utf-8"))


def data_of(name):
    return read_reference_table(REFERENCES / "data", name)


@pytest.mark.parametrize("case", TESTS["drop1"], ids=lambda case: case["formula"])
@pytest.mark.parametrize("reml", [False, True])
def test_likelihood_ratios_of_lme4(case, reml):
    table = mm.lmm(case["formula"], data_of(case["data"]), reml=reml).drop1(test="lrt")
    assert any("refitted by maximum likelihood" in note for note in table.notes) == reml
    assert table["term"].tolist() == [row["term"] for row in case["chisq"]]
    for row, expected in zip(table.rows(), case["chisq"], strict=True):
        assert row["aic"] == pytest.approx(expected["AIC"], rel=1e-9)
        if expected["LRT"] is not None:
            assert row["df"] == expected["npar"]
            assert row["statistic"] == pytest.approx(expected["LRT"], rel=1e-6)
            assert row["p_value"] == pytest.approx(expected["Pr(Chi)"], rel=1e-6)


@pytest.mark.parametrize("case", TESTS["drop1"], ids=lambda case: case["formula"])
def test_f_tests_of_lmertest(case):
    table = mm.lmm(case["formula"], data_of(case["data"])).drop1()
    assert table["term"].tolist() == [row["term"] for row in case["satterthwaite"]]
    for row, expected in zip(table.rows(), case["satterthwaite"], strict=True):
        assert row["statistic"] == pytest.approx(expected["F value"], rel=1e-5)
        assert row["sum_sq"] == pytest.approx(expected["Sum Sq"], rel=1e-5)
        assert row["num_df"] == expected["NumDF"]
        assert row["den_df"] == pytest.approx(expected["DenDF"], rel=1e-4)
        assert row["p_value"] == pytest.approx(expected["Pr(>F)"], rel=1e-4)


def test_terms_inside_others_are_tried_only_when_named():
    fit = mm.lmm("angle ~ recipe * temp + (1 | recipe:replicate)", data_of("cake"), reml=False)
    assert fit.drop1(test="none")["term"].tolist() == ["<none>", "recipe:temp"]
    table = fit.drop1("recipe", test="lrt")
    assert table["term"].tolist() == ["<none>", "recipe"] and "contrasts" in table.notes[0]
    assert fit.drop1("temp:recipe", ddf="z")["term"].tolist() == ["recipe:temp"]


def test_aic_alone_needs_no_test():
    fit = mm.lmm("angle ~ recipe + temp + (1 | recipe:replicate)", data_of("cake"), reml=False)
    none, lrt = fit.drop1(test="none"), fit.drop1(test="lrt")
    assert "p_value" not in none.columns
    np.testing.assert_array_equal(none["aic"], lrt["aic"])


def test_terms_explained_by_the_others_have_nothing_to_test():
    fit = mm.lmm("y ~ x1 + x2 + f + (1 | g)", data_of("rankdef"))
    assert fit.dropped_columns
    for test in ("f", "lrt"):
        table = fit.drop1(test=test, **({"ddf": "z"} if test == "f" else {}))
        assert np.isnan(table.row("x1")["statistic"])
        assert any("x1" in note and "changes nothing" in note for note in table.notes)
        assert table.row("f")["statistic"] > 0
    alone = mm.lmm("y ~ x1 + f + (1 | g)", data_of("rankdef"), reml=False)
    assert fit.drop1(test="lrt").row("f")["statistic"] == pytest.approx(
        alone.drop1(test="lrt").row("f")["statistic"], rel=1e-7
    )


def test_coding_and_units_do_not_change_the_tests():
    cake = data_of("cake")
    one = mm.lmm("angle ~ recipe + temp + (1 | recipe:replicate)", cake)
    two = mm.lmm(
        "angle ~ recipe + temp + (1 | recipe:replicate)",
        cake.assign(temp=cake["temp"] * 1e4 + 7, angle=cake["angle"] / 10),
        contrasts={"recipe": "sum"},
    )
    for options in ({"test": "lrt"}, {"ddf": "satterthwaite"}):
        np.testing.assert_allclose(
            one.drop1(**options)["statistic"], two.drop1(**options)["statistic"], rtol=1e-6
        )


def test_without_an_intercept_the_next_factor_takes_over_the_constant():
    cake = data_of("cake")
    full = mm.lmm("angle ~ 0 + recipe + temperature + (1 | recipe:replicate)", cake, reml=False)
    table = full.drop1(test="lrt")
    for term, left in (("recipe", "temperature"), ("temperature", "recipe")):
        small = mm.lmm(f"angle ~ 0 + {left} + (1 | recipe:replicate)", cake, reml=False)
        assert table.row(term)["aic"] == pytest.approx(small.aic, rel=1e-9)


def test_rows_stay_those_of_the_fit_when_the_dropped_variable_has_missing_values(sleepstudy):
    data = sleepstudy.assign(age=np.where(np.arange(180) % 9 == 0, np.nan, np.arange(180) % 7))
    fit = mm.lmm("Reaction ~ Days + age + (1 | Subject)", data, reml=False)
    small = mm.lmm("Reaction ~ Days + (1 | Subject)", data[data["age"].notna()], reml=False)
    assert fit.drop1(test="lrt").row("age")["aic"] == pytest.approx(small.aic, rel=1e-9)


def test_a_model_from_matrices_drops_its_columns(sleepstudy):
    subject = mm.RandomTerm("Subject", ("(Intercept)",), sleepstudy["Subject"].cat.codes, None, None, "us")
    X = pd.DataFrame({"one": 1.0, "Days": sleepstudy["Days"]})
    fit = mm.LinearMixedModel.from_matrices(sleepstudy["Reaction"], X, [subject], reml=False).fit()
    by_formula = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, reml=False)
    expected = by_formula.drop1(test="lrt").row("Days")["statistic"]
    assert fit.drop1("Days", test="lrt").row("Days")["statistic"] == pytest.approx(expected, rel=1e-9)


def test_unknown_terms_and_tests_are_named(fit):
    with pytest.raises(mm.OptionError, match=r"no term 'Hours'; its terms are Days"):
        fit.drop1("Hours")
    with pytest.raises(mm.OptionError, match="'f', 'lrt' or 'none'"):
        fit.drop1(test="chisq")
