"""Tests of coefficients and terms of generalised models against R and laws they must follow.

References: ``references/glmm/make_emmeans.R`` (glmmTMB, lme4). glmmTMB's optimiser stops where its gradient
is about 1e-5, ours at 1e-9: statistics agree to 1e-4 or better.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parents[1] / "references"
SALAMANDERS = "count ~ spp + mined + (1 | site)"


@pytest.fixture(scope="module")
def reference():
    return json.loads((HERE / "glmm" / "emmeans.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cbpp():
    data = mm.load_dataset("cbpp", backend="pandas")
    return mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


@pytest.fixture(scope="module")
def salamanders():
    return read_reference_table(HERE / "data", "Salamanders")


@pytest.fixture(scope="module")
def zip_fit(salamanders):
    return mm.glmm(SALAMANDERS, salamanders, family="poisson", zero_inflation="~ mined")


@pytest.fixture(scope="module")
def verbagg():
    data = mm.load_dataset("VerbAgg", backend="pandas")
    data = data[data["id"].astype(str).astype(int) <= 60]
    return mm.glmm("r2 ~ Anger + mode * situ + (1 | id) + (1 | item)", data, family="binomial")


# ---------------------------------------------------------------------- Wald tests


def test_wald_chi_squared_of_a_factor_is_that_of_r(cbpp, reference):
    expected = reference["cbpp"]["wald"]
    for kind in (1, 2, 3):
        row = cbpp.anova(kind).row("period")
        assert list(row) == ["term", "statistic", "df", "p_value"]
        assert row["statistic"] == pytest.approx(expected["chisq"], rel=1e-5)
        assert row["df"] == expected["df"]
        assert row["p_value"] == pytest.approx(1.583e-05, rel=1e-3)


def test_type_three_is_that_of_sum_contrasts_whatever_the_contrasts_of_the_fit(verbagg, reference):
    table = verbagg.anova(3)
    joint = verbagg.joint_tests()
    for term, expected in reference["verbagg"]["type3"].items():
        assert table.row(term)["statistic"] == pytest.approx(expected["chisq"], rel=1e-5, abs=1e-5)
        assert joint.row(term)["statistic"] == pytest.approx(table.row(term)["statistic"], rel=1e-9)
        assert joint.row(term)["df"] == expected["df"]


def test_type_two_is_type_one_of_the_last_main_effect():
    data = read_reference_table(HERE / "data", "Owls")
    formula = "SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest)"
    fit = mm.glmm(formula, data, family="nbinom2")
    one, two, three = (fit.anova(kind)["statistic"] for kind in (1, 2, 3))
    assert one[1:].tolist() == pytest.approx(two[1:].tolist(), rel=1e-10)
    assert two[2] == pytest.approx(three[2], rel=1e-10)
    assert one[0] != pytest.approx(two[0], rel=1e-6)
    assert two[1] != pytest.approx(three[1], rel=1e-6)


def test_components_have_their_own_tests(zip_fit, reference):
    expected = reference["salamanders"]
    assert zip_fit.anova().row("spp")["statistic"] == pytest.approx(expected["wald_spp"]["chisq"], rel=1e-4)
    for name in ("zero_inflation", "zi"):
        row = zip_fit.anova(component=name).row("mined")
        assert row["statistic"] == pytest.approx(expected["wald_zi"]["chisq"], rel=1e-4)
    z = zip_fit.test({"minedno": 1}, joint=False, component="zi")["statistic"][0]
    assert z**2 == pytest.approx(row["statistic"], rel=1e-10)
    table = zip_fit.coefficients(component="zi")
    assert z == pytest.approx(table.row("zi_minedno")["statistic"], rel=1e-10)


def test_a_dispersion_model_has_tests(reference):
    data = read_reference_table(HERE / "data", "sim_gamma")
    fit = mm.glmm("y ~ x + trt + (1 | g)", data, family="Gamma", link="log", dispersion="~ trt")
    expected = reference["gamma"]
    assert fit.loglik == pytest.approx(expected["loglik"], rel=1e-8)
    assert fit.anova(2).row("trt")["statistic"] == pytest.approx(expected["wald_trt"]["chisq"], rel=1e-4)
    row = fit.anova(component="dispersion").row("trt")
    assert row["statistic"] == pytest.approx(expected["wald_disp"]["chisq"], rel=1e-3)


def test_a_number_of_degrees_of_freedom_gives_f_tests(cbpp):
    chi, f = cbpp.anova().row("period"), cbpp.anova(ddf=51).row("period")
    assert f["statistic"] == pytest.approx(chi["statistic"] / 3, rel=1e-12)
    assert (f["num_df"], f["den_df"]) == (3, 51)
    assert f["p_value"] > chi["p_value"]


def test_joint_hypotheses_and_single_ones_agree(cbpp):
    joint = cbpp.test(["period2 = 0", "period3 = 0", "period4 = 0"])
    assert joint["statistic"][0] == pytest.approx(cbpp.anova().row("period")["statistic"], rel=1e-12)
    assert cbpp.test_fixed("period")["statistic"][0] == pytest.approx(joint["statistic"][0], rel=1e-12)
    one = cbpp.test({"period2": 1}, joint=False)
    assert one["statistic"][0] ** 2 == pytest.approx(cbpp.test({"period2": 1})["statistic"][0], rel=1e-12)


# ---------------------------------------------------------------------- refits


def test_drop1_refits_and_agrees_with_glmer(cbpp, reference):
    expected = reference["cbpp"]["glmer_drop1"]
    table = cbpp.drop1()
    assert table["aic"].tolist() == pytest.approx(expected["aic"], rel=1e-8)
    assert table.row("period")["statistic"] == pytest.approx(expected["lrt"], rel=1e-7)
    assert table.row("period")["p_value"] == pytest.approx(expected["p"], rel=1e-6)
    wald = cbpp.drop1(test="wald").row("period")
    assert wald["statistic"] == pytest.approx(cbpp.anova().row("period")["statistic"], rel=1e-10)


def test_terms_of_both_parts_of_a_mixture_are_dropped(zip_fit, salamanders, reference):
    expected = reference["salamanders"]
    assert zip_fit.drop1("spp").row("spp")["statistic"] == pytest.approx(
        expected["lrt_spp"]["chisq"], rel=1e-6
    )
    row = zip_fit.drop1(component="zi").row("mined")
    assert row["statistic"] == pytest.approx(expected["lrt_zi"]["chisq"], rel=1e-6)
    small = mm.glmm(SALAMANDERS, salamanders, family="poisson", zero_inflation="~ 1")
    assert row["aic"] == pytest.approx(small.aic, rel=1e-9)
    table = zip_fit.test_fixed("mined", "lrt", component="zi")
    assert table["statistic"][0] == pytest.approx(row["statistic"], rel=1e-9)
    assert table["lod"][0] == pytest.approx(row["statistic"] / (2 * np.log(10)), rel=1e-12)
    assert zip_fit.lod("mined", component="zi")["lod"][0] == pytest.approx(table["lod"][0])


def test_a_single_random_term_is_tested_against_a_generalised_linear_model(cbpp, reference):
    expected = reference["cbpp"]["lrt_herd"]
    row = cbpp.test_random().row("(1 | herd)")
    assert (row["statistic"], row["df"]) == (pytest.approx(expected["chisq"], rel=1e-7), 1)
    half = cbpp.test_random(method="mixture").row("(1 | herd)")
    assert half["p_value"] == pytest.approx(row["p_value"] / 2, rel=1e-12)


def test_an_effect_of_a_correlated_term_is_left_out():
    data = read_reference_table(HERE / "data", "Contraception")
    formula = "use ~ age + urban + ({} | district)"
    fit = mm.glmm(formula.format("urban"), data, family="binomial")
    small = mm.glmm(formula.format("1"), data, family="binomial")
    row = fit.test_random("urban in (urban | district)", "mixture")
    row = row.rows()[1]
    assert row["statistic"] == pytest.approx(small.criterion - fit.criterion, rel=1e-6)
    assert row["df"] == 2


def test_random_terms_of_all_parts_are_tested(salamanders):
    fit = mm.glmm(SALAMANDERS, salamanders, family="poisson", zero_inflation="~ mined + (1 | site)")
    table = fit.test_random(method="mixture")
    assert table["term"].tolist() == ["<none>", "(1 | site)", "zero_inflation: (1 | site)"]
    small = mm.glmm(SALAMANDERS, salamanders, family="poisson", zero_inflation="~ mined")
    assert table["loglik"][2] == pytest.approx(small.loglik, rel=1e-9)


def test_quadrature_is_used_for_smaller_models_too(cbpp):
    data = mm.load_dataset("cbpp", backend="pandas")
    options = {"family": "binomial", "trials": "size", "nagq": 9}
    fit = mm.glmm("incidence ~ period + (1 | herd)", data, **options)
    small = mm.glmm("incidence ~ 1 + (1 | herd)", data, **options)
    assert fit.drop1().row("period")["aic"] == pytest.approx(small.aic, rel=1e-9)
    # without random effects there is nothing to approximate: the same model from both
    ours, laplace = fit.test_random(), cbpp.test_random()
    assert ours["loglik"][1] == pytest.approx(laplace["loglik"][1], abs=1e-7)
    assert ours["loglik"][0] != pytest.approx(laplace["loglik"][0], abs=1e-3)


def test_held_coefficients_do_not_count():
    data = mm.load_dataset("cbpp", backend="pandas")
    fit = mm.glmm(
        "incidence ~ period + (1 | herd)", data, family="binomial", trials="size", fixed={"period2": 0.0}
    )
    assert fit.drop1().row("period")["df"] == 2


# ---------------------------------------------------------------------- what does not make sense


def test_questions_of_linear_models_are_refused_with_the_remedy(cbpp, zip_fit, fit):
    with pytest.raises(mm.OptionError, match=r'rlrt.*linear.*"mixture" or "bootstrap"'):
        cbpp.test_random(method="rlrt")
    with pytest.raises(mm.OptionError, match="normal distribution"):
        cbpp.anova(ddf="kr")
    with pytest.raises(mm.OptionError, match="small_sample corrects linear models"):
        cbpp.small_sample()
    with pytest.raises(mm.OptionError, match="it has conditional"):
        cbpp.anova(component="zi")
    with pytest.raises(mm.OptionError, match="generalised models"):
        fit.emmeans("Days", component="zi")


def test_a_constant_part_has_no_terms(salamanders):
    model = mm.glmm(SALAMANDERS, salamanders, family="nbinom2")
    with pytest.raises(mm.OptionError, match="no formula in this model: it is a constant"):
        model.anova(component="dispersion")


def test_likelihood_ratios_of_penalised_fits_are_refused():
    data = mm.load_dataset("cbpp", backend="pandas")
    model = mm.glmm(
        "incidence ~ period + (1 | herd)", data, family="binomial", trials="size", priors="wishart"
    )
    for ask in (model.drop1, model.test_random, lambda: mm.compare(model, model)):
        with pytest.raises(mm.OptionError, match="priors"):
            ask()
    assert model.drop1(test="wald")["statistic"][0] > 0.0


# ---------------------------------------------------------------------- parametric bootstrap


def test_bootstrap_p_values_count_the_draws_above(cbpp):
    table = cbpp.test_fixed("period", "bootstrap", n=19, seed=1)
    draws = table.extra["draws"]
    assert np.isfinite(draws).all()
    assert table["p_value"][0] == (np.sum(draws >= table["statistic"][0]) + 1) / 20
    # three degrees of freedom
    assert 1.0 < draws.mean() < 6.0


def test_bootstrap_of_a_random_term_simulates_from_the_model_without(cbpp):
    table = cbpp.test_random(method="bootstrap", n=19, seed=2)
    draws = table.extra["draws"][1]
    assert (draws >= -1e-6).all()
    assert (draws < 1e-6).sum() >= 4  # about half of them are zero
    assert table["p_value"][1] == 0.05


def test_bootstrap_of_the_zero_inflation(zip_fit):
    table = zip_fit.test_fixed("mined", "bootstrap", component="zi", n=5, seed=3)
    assert table["p_value"][0] == pytest.approx(1 / 6)


def test_ordinal_models_drop_terms_beside_their_thresholds():
    data = read_reference_table(HERE / "data", "wine")
    fit = mm.glmm("rating ~ temp + contact + (1 | judge)", data, family="cumulative")
    small = mm.glmm("rating ~ temp + (1 | judge)", data, family="cumulative")
    assert fit.drop1().row("contact")["aic"] == pytest.approx(small.aic, rel=1e-9)
    assert mm.compare(small, fit)["statistic"][1] == pytest.approx(fit.drop1().row("contact")["statistic"])
    pairs = fit.emmeans("contact").pairs()
    assert pairs["statistic"][0] ** 2 == pytest.approx(fit.anova().row("contact")["statistic"], rel=1e-9)
    with pytest.raises(mm.OptionError, match="has categories and no single mean"):
        fit.emmeans("contact", type="response")
    with pytest.raises(mm.OptionError, match="category"):
        fit.predict_marginal()
