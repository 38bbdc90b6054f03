"""Tests of single terms: random ones left out (the last one included), fixed ones three ways, LOD scores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.likelihood.lod import lod
from mixedmodels.inference.likelihood.reduced import LeastSquares
from mixedmodels.testing.reference_data import read_reference_table

REFERENCES = Path(__file__).parents[1] / "references"
TESTS = json.loads((REFERENCES / "inference" / "tests.json").read_text(encoding="utf-8"))


def data_of(name):
    return read_reference_table(REFERENCES / "data", name)


# ---------------------------------------------------------------------- random terms


@pytest.mark.parametrize(
    "case", TESTS["ranova"], ids=lambda case: f"{case['formula']} {'REML' if case['reml'] else 'ML'}"
)
def test_ranova_of_lmertest(case):
    table = mm.lmm(case["formula"], data_of(case["data"]), reml=case["reml"]).test_random()
    for expected in case["table"]:
        row = table.row(expected["term"])
        assert row["npar"] == expected["npar"]
        assert row["loglik"] == pytest.approx(expected["logLik"], rel=1e-9)
        assert row["aic"] == pytest.approx(expected["AIC"], rel=1e-9)
        if expected["LRT"] is not None:
            # the reference is a difference of two criteria, each with 14 digits
            assert row["statistic"] == pytest.approx(expected["LRT"], rel=1e-6, abs=1e-9)
            assert row["df"] == expected["Df"]
            if expected["LRT"] > 1e-6:
                assert row["p_value"] == pytest.approx(expected["Pr(>Chisq)"], rel=1e-4)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("sigma", [None, 30.0])
def test_without_random_effects_the_criterion_is_that_at_zero_variances(sleepstudy, reml, weighted, sigma):
    weights = np.linspace(0.5, 2.0, 180) if weighted else None
    options = {"weights": weights, "offset": np.arange(180.0), "sigma": sigma}
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, reml=reml, **options)
    row = fit.test_random().row("(1 | Subject)")
    assert -2 * row["loglik"] == pytest.approx(fit.objective.value(np.zeros(1)), rel=1e-12)
    assert row["df"] == 1


def test_least_squares_agree_with_the_textbook(sleepstudy):
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, reml=False)
    from dataclasses import replace

    model = LeastSquares(replace(fit.design, terms=()), False)
    X, y = fit.design.X, fit.design.y
    beta, rss, *_ = np.linalg.lstsq(X, y, rcond=None)
    np.testing.assert_allclose(model.beta, beta, rtol=1e-10)
    assert model.sigma == pytest.approx(math.sqrt(rss[0] / 180), rel=1e-10)
    assert model.loglik == pytest.approx(-90 * (1 + math.log(2 * math.pi * rss[0] / 180)), rel=1e-12)
    Y = model.simulate(3, seed=1)
    np.testing.assert_allclose(
        model.criteria(Y)[1], LeastSquares(replace(model.design, y=Y[:, 1]), False).criterion
    )
    np.testing.assert_array_equal(Y[:, :2], model.simulate(2, seed=1))


def test_the_mixture_halves_the_p_value_of_one_variance(sleepstudy):
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy.iloc[:60])
    plain, mixed = fit.test_random(), fit.test_random(method="mixture")
    assert mixed["p_value"][1] == pytest.approx(0.5 * plain["p_value"][1], rel=1e-12)
    assert "conservative" in plain.notes[0] and mixed.notes == ()


def test_every_method_answers_for_crossed_terms():
    fit = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", data_of("Penicillin"))
    for method, options in (
        ("lrt", {}),
        ("mixture", {}),
        ("rlrt", {"n": 200, "seed": 1}),
        ("bootstrap", {"n": 30, "seed": 1}),
    ):
        table = fit.test_random(method=method, **options)
        assert table["term"].tolist() == ["<none>", "(1 | plate)", "(1 | sample)"]
        assert (table["p_value"][1:] < 0.04).all()


def test_terms_are_found_by_text_effect_and_group(fit):
    whole = fit.test_random("Days|Subject")
    assert whole["term"].tolist() == ["<none>", "(Days | Subject)"] and whole["df"][1] == 3
    effect = fit.test_random("Days in (Days | Subject)")
    assert effect["df"][1] == 2
    assert fit.test_random("Subject")["term"].tolist() == [
        "<none>",
        "Days in (Days | Subject)",
        "(Days | Subject)",
    ]
    intercept = fit.test_random("(Intercept) in (Days | Subject)")
    slope_only = mm.lmm("Reaction ~ Days + (0 + Days | Subject)", mm.load_dataset("sleepstudy", "dict"))
    assert intercept["loglik"][1] == pytest.approx(slope_only.loglik, rel=1e-10)


def test_independent_columns_go_one_by_one(sleepstudy):
    fit = mm.lmm("Reaction ~ Days + (Days || Subject)", sleepstudy)
    table = fit.test_random(method="rlrt", n=500, seed=1)
    assert table["df"].tolist()[1:] == [1, 1, 2]
    assert (table["p_value"][1:3] == 1 / 501).all() and np.isnan(table["p_value"][3])
    assert any("known" in note for note in table.notes) and any("bootstrap" in note for note in table.notes)


def test_shared_parameters_stay_shared_when_a_term_goes(sleepstudy):
    data = sleepstudy.assign(a=np.arange(180) % 7, b=np.arange(180) % 11)
    fit = mm.lmm("Reaction ~ Days + (1 | Subject) + (1 | a) + (1 | b)", data, share=[["(1 | a)", "(1 | b)"]])
    table = fit.test_random("(1 | Subject)")
    small = mm.lmm("Reaction ~ Days + (1 | a) + (1 | b)", data, share=[["(1 | a)", "(1 | b)"]])
    assert table["npar"][1] == small.df_model
    assert table["loglik"][1] == pytest.approx(small.loglik, rel=1e-9)


def test_a_zero_variance_has_p_one():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data_of("Dyestuff2"))
    assert fit.is_singular
    for method, options in (("lrt", {}), ("mixture", {}), ("rlrt", {"n": 99}), ("bootstrap", {"n": 99})):
        row = fit.test_random(method=method, **options).rows()[1]
        assert row["statistic"] == pytest.approx(0.0, abs=1e-8)
        assert row["p_value"] == pytest.approx(1.0, abs=1e-3)


# ---------------------------------------------------------------------- fixed effects


def test_a_factor_three_ways():
    fit = mm.lmm("angle ~ recipe + temp + (1 | recipe:replicate)", data_of("cake"))
    wald = fit.test_fixed("recipe")
    assert wald["statistic"][0] == pytest.approx(0.248788788, rel=1e-5)  # drop1 of lmerTest
    assert wald["den_df"][0] == pytest.approx(42.0, rel=1e-4) and wald["num_df"][0] == 2
    lrt = fit.test_fixed("recipe", "lrt")
    assert lrt["statistic"][0] == pytest.approx(0.529985599519705, rel=1e-6)
    assert lrt["df"][0] == 2 and "refitted by maximum likelihood" in lrt.notes[0]
    boot = fit.test_fixed("recipe", "bootstrap", n=200, seed=4)
    p = lrt["p_value"][0]
    assert boot["p_value"][0] == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 200))
    assert len(boot.extra["draws"]) == 200


def test_interactions_coefficients_variables_and_joint_tests():
    cake = data_of("cake")
    fit = mm.lmm("angle ~ recipe * temp + (1 | recipe:replicate)", cake, reml=False)
    no_interaction = mm.lmm("angle ~ recipe + temp + (1 | recipe:replicate)", cake, reml=False)
    expected = no_interaction.criterion - fit.criterion
    for name in ("recipe:temp", "temp:recipe", ("temp", "recipe")):
        assert fit.test_fixed(name, "lrt")["statistic"][0] == pytest.approx(expected, rel=1e-8)
    nothing = mm.lmm("angle ~ 1 + (1 | recipe:replicate)", cake, reml=False)
    joint = fit.test_fixed(["recipe", "temp", "recipe:temp"], "lrt")
    assert joint["df"][0] == 5
    assert joint["statistic"][0] == pytest.approx(nothing.criterion - fit.criterion, rel=1e-8)
    assert fit.test_fixed("recipeB", ddf="z")["num_df"][0] == 1
    poly = mm.lmm("angle ~ recipe + poly(temp, 2) + (1 | recipe:replicate)", cake)
    assert poly.test_fixed("temp", ddf="z")["num_df"][0] == 2


def test_wald_f_of_one_coefficient_is_its_squared_t(fit):
    table = fit.test_fixed("Days", ddf="residual")
    assert table["statistic"][0] == pytest.approx((fit.fixef["Days"] / fit.se["Days"]) ** 2, rel=1e-10)


def test_lod_scores_are_likelihood_ratios_in_decimal_logarithms(fit_ml):
    table = fit_ml.lod("Days")
    assert table["lod"][0] == pytest.approx(23.5365374978819 / (2 * math.log(10)), rel=1e-7)
    assert lod(fit_ml, "Days")["lod"][0] == table["lod"][0]


def test_an_offset_and_the_only_column_may_go(sleepstudy):
    fit = mm.lmm("Reaction ~ 0 + Days + (1 | Subject)", sleepstudy, reml=False, offset=np.full(180, 250.0))
    row = fit.test_fixed("Days", "lrt").rows()[0]
    assert row["df"] == 1 and row["statistic"] > 100


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f: f.test_fixed("Hours"), r"no term 'Hours'; its terms are Days"),
        (lambda f: f.test_fixed("Days", "score"), "wald, lrt, bootstrap"),
        (lambda f: f.test_fixed("Days", "lrt", ddf="kr"), "no option 'ddf'"),
        (lambda f: f.test_fixed("Days", "bootstrap", n=0), "at least 1"),
        (lambda f: f.test_fixed([]), "name of a term"),
        (
            lambda f: f.test_random("(1 | Item)"),
            r"no random term '\(1 \| Item\)'; .*\(Days \| Subject\)",
        ),
        (lambda f: f.test_random(3), "text"),
        (lambda f: f.test_random(method="wald"), "lrt, mixture, rlrt, bootstrap"),
        (lambda f: f.test_random(n=10), "no option 'n'"),
        (lambda f: f.test_random(method="bootstrap", n=True), "at least 1"),
    ],
)
def test_mistakes_are_one_error(fit, ask, message):
    with pytest.raises(mm.OptionError, match=message):
        ask(fit)


def test_a_covariance_function_has_no_random_terms_to_leave_out(sleepstudy):
    Z = np.eye(18)[sleepstudy["Subject"].cat.codes]
    X = np.column_stack([np.ones(180), sleepstudy["Days"]])
    fit = mm.LinearMixedModel.from_matrices(
        sleepstudy["Reaction"], X, Z, covariance=lambda t: t[0] * np.eye(18), start=[1.0], lower=[0.0]
    ).fit()
    with pytest.raises(mm.OptionError, match="function of theta"):
        fit.test_random()
    by_formula = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy)
    assert fit.test_fixed("x2", "lrt")["statistic"][0] == pytest.approx(
        by_formula.test_fixed("Days", "lrt")["statistic"][0], rel=1e-5
    )


def test_a_loaded_fit_is_tested_without_its_data(fit, tmp_path):
    fit.save(tmp_path / "fit.mm")
    loaded = mm.load(tmp_path / "fit.mm")
    np.testing.assert_allclose(loaded.test_random()["statistic"], fit.test_random()["statistic"], rtol=1e-8)
    assert loaded.drop1(test="lrt").row("Days")["statistic"] == pytest.approx(23.5365374978819, rel=1e-7)
