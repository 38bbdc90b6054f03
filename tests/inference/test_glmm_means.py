"""Marginal means of generalised models against emmeans, and population-averaged quantities against laws.

References: ``references/glmm/make_emmeans.R``. glmmTMB stops where its gradient is about 1e-5 (ours is below
1e-8), so its estimates are off by up to 1e-4 of a standard error: tolerances are in that unit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.family import get_family
from mixedmodels.family.links import LINKS
from mixedmodels.family.mean_jets import mean_derivatives
from mixedmodels.family.truncated import Truncated
from mixedmodels.family.zero import with_zeros
from mixedmodels.inference.means.effects import effects
from mixedmodels.inference.population.averages import averaged_link, averaged_mean
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parents[1] / "references"
CBPP = "incidence ~ period + (1 | herd)"
BINOMIAL = {"family": "binomial", "trials": "size"}
OWLS = "SiblingNegotiation ~ FoodTreatment * SexParent + ArrivalTime + offset(log(BroodSize)) + (1 | Nest)"
SALAMANDERS = "count ~ spp + mined + (1 | site)"
NAMES = ("emmean", "prob", "response", "rate", "odds.ratio", "ratio", "estimate", "fit")


@pytest.fixture(scope="module")
def reference():
    return json.loads((HERE / "glmm" / "emmeans.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data():
    return mm.load_dataset("cbpp", backend="pandas")


@pytest.fixture(scope="module")
def cbpp(data):
    return mm.glmm(CBPP, data, **BINOMIAL)


@pytest.fixture(scope="module")
def owls():
    return mm.glmm(OWLS, read_reference_table(HERE / "data", "Owls"), family="nbinom2")


@pytest.fixture(scope="module")
def zip_fit():
    data = read_reference_table(HERE / "data", "Salamanders")
    return mm.glmm(SALAMANDERS, data, family="poisson", zero_inflation="~ mined")


@pytest.fixture(scope="module")
def verbagg():
    data = mm.load_dataset("VerbAgg", backend="pandas")
    data = data[data["id"].astype(str).astype(int) <= 60]
    return mm.glmm("r2 ~ Anger + mode * situ + (1 | id) + (1 | item)", data, family="binomial")


def agrees(table, expected, estimate=None):
    """Estimates to 2e-5, standard errors and limits to 1e-4."""
    name = estimate or next(name for name in NAMES if name in expected)
    se = np.array(expected["SE"])
    assert np.abs(table["estimate"] - expected[name]).max() <= (1e-4 * se).max()
    assert table["estimate"] == pytest.approx(np.array(expected[name]), rel=2e-5)
    assert table["std_error"] == pytest.approx(se, rel=1e-4)
    for ours, theirs in (("conf_low", "lower.CL"), ("conf_high", "upper.CL")):
        assert table[ours] == pytest.approx(np.array(expected[theirs]), rel=1e-4)


# ---------------------------------------------------------------------- means


def test_means_of_a_logit_model(cbpp, reference):
    expected = reference["cbpp"]
    agrees(cbpp.emmeans("period", ddf=51), expected["link"])
    means = cbpp.emmeans("period", ddf=51, type="response")
    agrees(means, expected["response"])
    assert (means["conf_high"] - means["estimate"] > means["estimate"] - means["conf_low"]).all()


def test_differences_of_logits_are_odds_ratios(cbpp, reference):
    pairs = cbpp.emmeans("period", ddf=51, type="response").pairs(adjust="none")
    agrees(pairs, reference["cbpp"]["ratios"])
    assert pairs["contrast"].tolist() == reference["cbpp"]["ratios"]["contrast"]
    assert any("odds ratios" in note for note in pairs.table.notes)
    plain = cbpp.emmeans("period", type="response").pairs(ratios=False)
    assert plain["contrast"][0] == "period1 - period2"
    assert plain["estimate"][0] == pytest.approx(-cbpp.beta[1], rel=1e-12)


def test_bias_adjustment_takes_the_sd_of_the_random_effects(cbpp, reference):
    means = cbpp.emmeans("period", ddf=51, type="response", bias_adjust=True)
    agrees(means, reference["cbpp"]["bias"])
    given = cbpp.emmeans(
        "period", ddf=51, type="response", bias_adjust=True, sigma=cbpp.varcorr["herd"].sds[0]
    )
    assert given["estimate"] == pytest.approx(means["estimate"], rel=1e-12)


def test_regridded_means_differ_by_differences(cbpp, reference):
    pairs = cbpp.emmeans("period", ddf=51).regrid().pairs(adjust="none")
    agrees(pairs, reference["cbpp"]["regrid_pairs"])


@pytest.mark.parametrize("link", ["probit", "cloglog"])
def test_other_links(data, reference, link):
    fit = mm.glmm(CBPP, data, **BINOMIAL, link=link)
    agrees(fit.emmeans("period", ddf=51, type="response"), reference[f"cbpp_{link}"]["response"])
    pairs = fit.emmeans("period", type="response").pairs()
    assert any("no back-transform" in note for note in pairs.table.notes)


def test_crossed_effects_and_interactions(verbagg, reference):
    expected = reference["verbagg"]
    means = verbagg.emmeans("mode | situ", ddf=1433, type="response")
    agrees(means, expected["response"])
    agrees(means.pairs(), expected["ratios"])
    agrees(verbagg.emmeans("mode", ddf=1433, type="response"), expected["mode_response"])
    agrees(verbagg.emmeans("mode", ddf=1433, regrid=True), expected["mode_regrid"])


def test_counts_with_an_offset(owls, reference):
    expected = reference["owls"]
    means = owls.emmeans("FoodTreatment | SexParent", ddf=592, type="response")
    agrees(means, expected["response"])
    agrees(means.pairs(), expected["ratios"])
    agrees(owls.emmeans("FoodTreatment", ddf=592, type="response", offset=0), expected["zero_offset"])


def test_slopes_on_both_scales(owls, verbagg, reference):
    agrees(
        owls.emtrends("FoodTreatment", "ArrivalTime", ddf=592),
        reference["owls"]["trend"],
        "ArrivalTime.trend",
    )
    agrees(
        owls.emtrends("FoodTreatment", "ArrivalTime", ddf=592, type="response"),
        reference["owls"]["trend_response"],
        "ArrivalTime.trend",
    )
    agrees(
        verbagg.emtrends("mode", "Anger", ddf=1433, type="response"),
        reference["verbagg"]["trend_response"],
        "Anger.trend",
    )


def test_a_slope_of_the_mean_is_the_derivative_of_the_means(owls):
    # not averaged over SexParent, whose means would be averaged on another scale
    step = 1e-4
    at = {"SexParent": ["Male"]}
    ends = [
        owls.emmeans("FoodTreatment", at={**at, "ArrivalTime": [24 + h]}, type="response")["estimate"]
        for h in (-step, step)
    ]
    slopes = owls.emtrends("FoodTreatment", "ArrivalTime", at={**at, "ArrivalTime": [24]}, type="response")
    assert slopes["estimate"] == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-7)


def test_gamma_models(reference):
    data = read_reference_table(HERE / "data", "sim_gamma")
    fit = mm.glmm("y ~ x + trt + (1 | g)", data, family="Gamma", link="log", dispersion="~ trt")
    expected = reference["gamma"]
    means = fit.emmeans("trt", type="response")
    name = next(name for name in NAMES if name in expected["response"])
    assert means["estimate"] == pytest.approx(np.array(expected["response"][name]), rel=1e-4)
    assert means["std_error"] == pytest.approx(np.array(expected["response"]["SE"]), rel=1e-3)
    shapes = fit.emmeans("trt", component="dispersion", type="response")["estimate"]
    assert len(np.unique(shapes)) == len(shapes)


# ---------------------------------------------------------------------- mixtures with zeros


def test_parts_of_a_mixture_have_means_of_their_own(zip_fit, reference):
    expected = reference["salamanders"]
    agrees(zip_fit.emmeans(["spp", "mined"], ddf=633, type="response"), expected["response"])
    zero = zip_fit.emmeans("mined", ddf=633, component="zi", type="response")
    agrees(zero, expected["zi"])
    agrees(zero.pairs(), expected["zi_ratio"])


def test_the_mean_of_a_mixture_is_that_of_glmmtmb(zip_fit, reference):
    expected = reference["salamanders"]["mixture"]
    means = zip_fit.emmeans(["spp", "mined"], component="response")
    assert means["spp"].tolist() == expected["spp"]
    assert means["estimate"] == pytest.approx(np.array(expected["fit"]), rel=2e-5)
    assert means["std_error"] == pytest.approx(np.array(expected["se"]), rel=1e-4)
    new = {"spp": expected["spp"], "mined": expected["mined"]}
    assert means["estimate"] == pytest.approx(zip_fit.predict(new, re_form="population"), rel=1e-10)


def test_averages_of_mixtures_are_averages_of_means(zip_fit):
    cells = zip_fit.emmeans(["spp", "mined"], component="response")["estimate"].reshape(2, 7)
    over = zip_fit.emmeans("mined", component="response")
    assert over["estimate"] == pytest.approx(cells.mean(axis=1), rel=1e-10)
    difference = over.pairs()
    assert difference["estimate"][0] == pytest.approx(over["estimate"][0] - over["estimate"][1], rel=1e-10)


def test_variables_of_the_other_part_join_the_grid():
    data = read_reference_table(HERE / "data", "Salamanders")
    fit = mm.glmm("count ~ mined + (1 | site)", data, family="poisson", zero_inflation="~ DOP + spp")
    means = fit.emmeans("spp", component="response", at={"DOP": [0.5], "mined": ["no"]})
    new = {"spp": means["spp"].tolist(), "DOP": [0.5] * 7, "mined": ["no"] * 7}
    assert means["estimate"] == pytest.approx(fit.predict(new, re_form="population"), rel=1e-10)


def test_hurdles_have_means_too():
    data = read_reference_table(HERE / "data", "Salamanders")
    fit = mm.glmm("count ~ mined + (1 | site)", data, family="truncated_nbinom2", zero_inflation="~ mined")
    means = fit.emmeans("mined", component="response")
    predicted = fit.predict({"mined": ["yes", "no"]}, re_form="population")
    assert means["estimate"] == pytest.approx(predicted, rel=1e-10)


FAMILIES = [
    get_family("poisson"),
    with_zeros(get_family("negative_binomial")),
    with_zeros(Truncated(get_family("negative_binomial"))),
    get_family("ordered_beta"),
    Truncated(get_family("poisson")),
]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_derivatives_of_means(family):
    C = len(family.predictors)
    eta = 0.7 * np.random.default_rng(1).normal(size=(C, 5))
    table = mean_derivatives(family, eta, 1)
    assert table[0] == pytest.approx(family.mean(list(eta)), rel=1e-12)
    step = 1e-6
    first = {}
    for c in range(C):
        shift = np.zeros((C, 1))
        shift[c] = step
        ends = [family.mean(list(eta + sign * shift)) for sign in (-1.0, 1.0)]
        first[c] = (ends[1] - ends[0]) / (2 * step)
    found = {tuple(row.round(6)) for row in table[1:]}
    assert all(min(np.abs(np.array(row) - value).max() for row in found) < 2e-6 for value in first.values())


# ---------------------------------------------------------------------- other views of means


def test_joint_tests_and_effect_sizes(cbpp):
    row = cbpp.joint_tests().row("period")
    assert (row["statistic"], row["df"]) == (pytest.approx(cbpp.anova()["statistic"][0]), 3)
    joint = cbpp.emmeans("period").pairs().test(joint=True)
    assert joint["statistic"][0] == pytest.approx(row["statistic"], rel=1e-9)
    with pytest.raises(mm.OptionError, match="needs sigma="):
        cbpp.emmeans("period").effect_size()
    assert len(cbpp.emmeans("period").effect_size(sigma=1.8)) == 6


def test_effects_are_drawn_on_the_scale_of_the_response(owls):
    curve = effects(owls, "ArrivalTime")
    at = {"ArrivalTime": curve["ArrivalTime"][[0, -1]].tolist()}
    ends = owls.emmeans("ArrivalTime", at=at, type="response")
    assert curve["estimate"][[0, -1]] == pytest.approx(ends["estimate"], rel=1e-10)


def test_letters_and_simultaneous_limits(zip_fit):
    table = zip_fit.emmeans("spp", type="response").cld()
    assert set(table["group"]) > {"a"}
    assert (table["estimate"] > 0).all()


def test_a_transformed_response_is_undone_after_the_link():
    data = read_reference_table(HERE / "data", "sim_gamma")
    fit = mm.glmm("sqrt(y) ~ trt + (1 | g)", data, family="Gamma", link="log")
    means, link = fit.emmeans("trt", type="response"), fit.emmeans("trt")
    assert means["estimate"] == pytest.approx(np.exp(link["estimate"]) ** 2, rel=1e-10)


# ---------------------------------------------------------------------- averages over random effects


@pytest.mark.parametrize("name", ["logit", "cloglog", "loglog", "cauchit", "probit"])
@pytest.mark.parametrize("sd", [0.3, 2.0, 6.0])
def test_averages_over_a_normal_predictor(name, sd):
    link = LINKS[name]
    eta = np.array([-3.0, 0.4])
    z = np.linspace(-9.5, 9.5, 400_001)
    w = np.exp(-0.5 * z * z)
    w /= w.sum()
    brute = [float(w @ np.asarray(link.inverse(e + sd * z))) for e in eta]
    v = np.full(2, sd * sd)
    m, by_eta, by_v = averaged_link(link, eta, v)
    assert m == pytest.approx(np.array(brute), rel=1e-9)
    h = 1e-4
    up, down = averaged_link(link, eta, v + h)[0], averaged_link(link, eta, v - h)[0]
    assert by_v == pytest.approx((up - down) / (2 * h), abs=1e-8)
    up, down = averaged_link(link, eta + h, v)[0], averaged_link(link, eta - h, v)[0]
    assert by_eta == pytest.approx((up - down) / (2 * h), abs=1e-8)


def test_averages_of_means_of_several_predictors():
    family = with_zeros(Truncated(get_family("poisson")))
    eta, v = np.array([[0.4], [-0.3]]), np.array([[0.5], [0.8]])
    m, by_eta, by_v = averaged_mean(family, eta, v)
    rng = np.random.default_rng(3)
    drawn = eta + np.sqrt(v) * rng.standard_normal((2, 400_000))
    means = family.mean(list(drawn))
    assert m[0] == pytest.approx(means.mean(), abs=4 * means.std() / np.sqrt(means.size))
    h = 1e-4
    for c in range(2):
        shift = np.zeros((2, 1))
        shift[c] = h
        ends = [averaged_mean(family, eta, v + sign * shift)[0][0] for sign in (-1.0, 1.0)]
        assert by_v[c, 0] == pytest.approx((ends[1] - ends[0]) / (2 * h), rel=1e-6)
        ends = [averaged_mean(family, eta + sign * shift, v)[0][0] for sign in (-1.0, 1.0)]
        assert by_eta[c, 0] == pytest.approx((ends[1] - ends[0]) / (2 * h), rel=1e-6)


def test_probit_coefficients_shrink_in_closed_form(data):
    fit = mm.glmm(CBPP, data, **BINOMIAL, link="probit")
    table = fit.marginal_coefficients()
    s2 = fit.varcorr["herd"].sds[0] ** 2
    assert table["estimate"] == pytest.approx(fit.beta / np.sqrt(1 + s2), rel=1e-10)
    # delta method in (beta, s) written out
    P = len(fit.psi)
    J = np.zeros((4, P))
    J[:, :4] = np.eye(4) / np.sqrt(1 + s2)
    J[:, 4] = -fit.beta * np.sqrt(s2) / (1 + s2) ** 1.5
    expected = np.sqrt(np.diag(J @ fit.joint_vcov @ J.T))
    assert table["std_error"] == pytest.approx(expected, rel=1e-9)


def test_log_link_adds_half_the_variance_to_the_intercept(owls):
    table = owls.marginal_coefficients()
    shift = np.zeros(len(owls.beta))
    shift[0] = 0.5 * owls.varcorr["Nest"].sds[0] ** 2
    assert table["estimate"] == pytest.approx(owls.beta + shift, abs=1e-9)
    assert table["conditional"].tolist() == owls.beta.tolist()


def test_logit_coefficients_against_drawn_random_effects(cbpp):
    z = np.random.default_rng(4).standard_normal(2_000_000)
    eta = (
        np.array([1, 0, 0, 0]) * cbpp.beta[0]
        + np.array([0, *cbpp.beta[1:]])
        + cbpp.beta[0] * np.array([0, 1, 1, 1])
    )
    p = np.array([(1 / (1 + np.exp(-e - cbpp.theta[0] * z))).mean() for e in eta])
    logits = np.log(p / (1 - p))
    expected = np.array([logits[0], *(logits[1:] - logits[0])])
    assert cbpp.marginal_coefficients()["estimate"] == pytest.approx(expected, abs=2e-3)
    new = {"period": ["1", "2", "3", "4"]}
    assert cbpp.predict_marginal(new)["predicted"] == pytest.approx(p, abs=3e-4)


def test_grouped_and_single_trials_have_the_same_marginal_coefficients(data):
    rows = data.loc[data.index.repeat(data["size"])].reset_index(drop=True)
    place = rows.groupby(["herd", "period"], observed=True).cumcount()
    rows = rows.assign(hit=(place < rows["incidence"]).astype(int), x=1.0 * rows["herd"].cat.codes)
    grouped = mm.glmm("incidence ~ x + (1 | herd)", data.assign(x=1.0 * data["herd"].cat.codes), **BINOMIAL)
    single = mm.glmm("hit ~ x + (1 | herd)", rows, family="binomial")
    ours, theirs = grouped.marginal_coefficients(), single.marginal_coefficients()
    assert ours["estimate"] == pytest.approx(theirs["estimate"], rel=1e-6)
    assert ours["std_error"] == pytest.approx(theirs["std_error"], rel=1e-5)


def test_random_slopes_average_row_by_row():
    data = read_reference_table(HERE / "data", "Contraception")
    fit = mm.glmm("use ~ age + urban + (urban | district)", data, family="binomial", link="probit")
    new = {"age": [0.0, 5.0], "urban": ["N", "Y"]}
    Sigma = fit.varcorr["district"].covariance
    eta = fit.predict(new, re_form="population", type="link")
    v = np.array([Sigma[0, 0], Sigma.sum()])
    from scipy.special import ndtr

    assert fit.predict_marginal(new)["predicted"] == pytest.approx(ndtr(eta / np.sqrt(1 + v)), rel=1e-10)


def test_mixtures_average_both_parts_and_their_simulations():
    data = read_reference_table(HERE / "data", "Salamanders")
    fit = mm.glmm(SALAMANDERS, data, family="poisson", zero_inflation="~ mined + (1 | site)")
    table = fit.predict_marginal()
    drawn = fit.simulate(2000, seed=1)
    z = (table["predicted"] - drawn.mean(axis=1)) / (drawn.std(axis=1) / np.sqrt(2000))
    assert np.abs(z).max() < 4.5
    assert (table["std_error"] > 0).all()


def test_identity_links_change_nothing():
    data = read_reference_table(HERE / "data", "sim_gamma")
    fit = mm.glmm("y ~ x + trt + (1 | g)", data, family="gaussian")
    assert fit.marginal_coefficients()["estimate"] == pytest.approx(fit.beta, rel=1e-9)
    assert fit.marginal_coefficients()["std_error"] == pytest.approx(np.sqrt(np.diag(fit.vcov)), rel=1e-9)


def test_means_that_do_not_exist_are_refused():
    data = read_reference_table(HERE / "data", "sim_gamma")
    fit = mm.glmm("y ~ trt + (1 | g)", data, family="Gamma", link="inverse")
    with pytest.raises(mm.OptionError, match="link 'inverse' the mean over normal random effects"):
        fit.predict_marginal()
