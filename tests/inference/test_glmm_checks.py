"""Checks of generalised fits: against R, against dense algebra, and what is known of simulated data."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.family import Observations, get_family
from mixedmodels.family.zero import with_zeros
from mixedmodels.inference.checks.grouping import Grouping
from mixedmodels.inference.checks.observed_variance import moments
from mixedmodels.inference.checks.working import expected_information, working_fit

REFERENCE = json.loads((Path(__file__).parents[1] / "references/glmm/checks.json").read_text())


@pytest.fixture(scope="module")
def fit():
    data = mm.load_dataset("cbpp", backend="dict")
    return mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


@pytest.fixture(scope="module")
def ticks():
    data = mm.load_dataset("grouseticks", backend="dict")
    return mm.glmm("TICKS ~ YEAR + (1 | BROOD)", data, family="poisson")


@pytest.fixture(scope="module")
def counts():
    """Negative binomial counts with groups."""
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(25), 12)
    x = rng.standard_normal(300)
    mu = np.exp(0.8 + 0.4 * x + 0.5 * rng.standard_normal(25)[g])
    y = rng.poisson(mu * rng.gamma(1.2, 1.0 / 1.2, 300))
    return {"y": y.astype(float), "x": x, "g": [f"g{i:02d}" for i in g]}


@pytest.fixture(scope="module")
def poisson(counts):
    return mm.glmm("y ~ x + (1 | g)", counts, family="poisson")


@pytest.fixture(scope="module")
def negative_binomial(counts):
    return mm.glmm("y ~ x + (1 | g)", counts, family="nbinom2")


@pytest.fixture(scope="module")
def inflated(counts):
    rng = np.random.default_rng(9)
    y = np.where(rng.random(300) < 0.3, 0.0, np.array(rng.poisson(3.0 * np.exp(0.3 * counts["x"]))))
    data = {**counts, "y": y}
    plain = mm.glmm("y ~ x + (1 | g)", data, family="poisson")
    return plain, mm.glmm("y ~ x + (1 | g)", data, family="poisson", zero_inflation="~1")


@pytest.fixture(scope="module")
def gaussian(counts):
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(25), 12)
    y = 1.0 + counts["x"] + rng.standard_normal(25)[g] + 0.7 * rng.standard_normal(300)
    data = {**counts, "y": y}
    linear = mm.lmm("y ~ x + (1 | g)", data, reml=False)
    return linear, mm.glmm("y ~ x + (1 | g)", data, family="gaussian")


# ---------------------------------------------------------------------- leverage and influence
def test_hard_case_48_leverages_are_those_of_the_working_linear_model(fit):
    h = fit.leverage()
    np.testing.assert_allclose(h, REFERENCE["leverage"], rtol=2e-5)
    # lme4 1.1.31 scales by the wrong square root and sums to 163.6, more than there are rows
    assert REFERENCE["hatvalues_lme4"] > 56 > 4 + 15 > h.sum() > 4


def test_leverages_of_a_gaussian_model_are_those_of_the_linear_one(gaussian):
    linear, generalised = gaussian
    np.testing.assert_allclose(generalised.leverage(), linear.leverage(), rtol=1e-4)
    first, second = linear.influence("g"), generalised.influence("g")
    np.testing.assert_allclose(second["dfbeta[x]"], first["dfbeta[x]"], atol=1e-6)
    assert "sigma" not in second.columns
    assert "studentized" not in generalised.influence().columns


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "truncated_poisson"])
def test_expected_information_is_the_expected_square_of_the_score(name, zeros):
    family = get_family(name)
    if zeros:
        family = with_zeros(family)
    own = {"conditional": 0.4, "dispersion": 0.3, "zero_inflation": -0.5}
    support = np.arange(1.0 if name.startswith("trunc") and not zeros else 0.0, 400.0)
    eta = np.array([np.full(support.size, own[part]) for part in family.predictors])
    table = family.derivatives(Observations(support), list(eta), 1, (0,))
    brute = float(np.exp(table[0]) @ table[1] ** 2)
    found = expected_information(family, Observations(support), eta)
    assert found[0] == pytest.approx(brute, rel=1e-9)


def test_one_step_deletions_are_close_to_refits(fit, poisson):
    step, again = fit.influence("herd"), fit.influence("herd", refit=True)
    for name in fit.fixef:
        assert np.corrcoef(step[f"dfbeta[{name}]"], again[f"dfbeta[{name}]"])[0, 1] > 0.99
    again = poisson.influence("g", refit=True)
    row = again["level"].tolist().index("g03")
    keep = np.array(poisson._data["g"]) != "g03"
    data = {name: np.asarray(column)[keep] for name, column in poisson._data.items()}
    without = mm.glmm("y ~ x + (1 | g)", data, family="poisson")
    for name in poisson.fixef:
        expected = poisson.fixef[name] - without.fixef[name]
        assert again[f"dfbeta[{name}]"][row] == pytest.approx(expected, abs=1e-6)
    assert again["theta[g.(Intercept)]"][row] == pytest.approx(without.theta[0], abs=1e-6)


def test_refits_of_all_components_are_told(inflated):
    table = inflated[1].influence("g", refit=True)
    assert np.isfinite(table["gamma[zi_(Intercept)]"]).all()
    assert np.isfinite(table["cooks_distance"]).all()


def test_cooks_distance_and_standardized_residuals(fit):
    h, r = fit.leverage(), fit.residuals("pearson")
    np.testing.assert_allclose(fit.cooks_distance(), r**2 * h / (4 * (1 - h) ** 2), rtol=1e-10)
    np.testing.assert_allclose(fit.influence()["standardized"], r / np.sqrt(1 - h), rtol=1e-10)


# ---------------------------------------------------------------------- overdispersion and zeros
def test_pearson_ratio_is_that_of_r(fit, ticks):
    table = fit.check_overdispersion(50, seed=1)
    # glmer's search stops where this sum is still 5e-6 off
    assert table["statistic"][0] == pytest.approx(REFERENCE["pearson"][0], rel=1e-5)
    assert table["df"][0] == REFERENCE["pearson"][1]
    assert ticks.check_overdispersion(50, seed=1)["statistic"][0] == pytest.approx(
        REFERENCE["poisson"]["pearson"], rel=1e-5
    )


def test_poisson_fit_of_overdispersed_counts_is_flagged_and_negative_binomial_is_not(
    poisson, negative_binomial
):
    table = poisson.check_overdispersion(seed=1)
    assert (table["p_value"] < 0.01).all()
    assert (table["ratio"] > 1.5).all()
    assert any("nbinom2" in note for note in table.notes)
    table = negative_binomial.check_overdispersion(seed=1)
    assert (table["p_value"] > 0.05).all()
    assert (poisson.simulated_residuals(200, 1).tests()["p_value"] < 0.02).any()
    assert (negative_binomial.simulated_residuals(200, 1).tests()["p_value"] > 0.02).all()


def test_overdispersion_of_a_correct_model_is_uniformly_rare():
    rng = np.random.default_rng(12)
    g = np.repeat(np.arange(20), 10)
    p = []
    for _ in range(12):
        y = rng.poisson(np.exp(-0.5 + 0.6 * rng.standard_normal(20)[g])).astype(float)
        fit = mm.glmm("y ~ 1 + (1 | g)", {"y": y, "g": g.astype(str)}, family="poisson")
        p.append(fit.check_overdispersion(100, seed=1)["p_value"][1])
    assert min(p) > 0.01
    assert 0.2 < np.mean(p) < 0.8


def test_zero_inflation_is_found_and_goes_away(inflated):
    plain, mixture = inflated
    table = plain.check_zero_inflation(seed=1)
    assert table["observed"][0] == np.count_nonzero(plain.response() == 0.0)
    assert table["p_value"][1] < 0.01 < mixture.check_zero_inflation(seed=1)["p_value"][1]
    assert table["ratio"][1] > 1.5


def test_expected_zeros_are_those_of_r(ticks):
    table = ticks.check_zero_inflation(50, seed=1)
    assert table["observed"][0] == REFERENCE["poisson"]["zeros"][0]
    assert table["expected"][0] == pytest.approx(REFERENCE["poisson"]["zeros"][1], rel=1e-4)


def test_questions_that_make_no_sense_are_refused(gaussian, counts):
    linear, generalised = gaussian
    with pytest.raises(OptionError, match="generalised models"):
        linear.check_overdispersion()
    with pytest.raises(OptionError, match="counts"):
        generalised.check_zero_inflation()
    binary = {**counts, "y": (counts["y"] > 1).astype(float)}
    fit = mm.glmm("y ~ x + (1 | g)", binary, family="binomial")
    with pytest.raises(OptionError, match="single 0s and 1s"):
        fit.check_overdispersion()
    with pytest.raises(OptionError, match="at least 20"):
        generalised.check_overdispersion(3)


# ---------------------------------------------------------------------- R2 and ICC
def test_r2_of_a_binomial_model_is_nakagawas(fit):
    assert fit.r2()["estimate"] == pytest.approx(
        [REFERENCE["binomial"]["r2m"], REFERENCE["binomial"]["r2c"]], rel=1e-4
    )
    adjusted = fit.icc()["adjusted"][0]
    variance = fit.varcorr["herd"].variances[0]
    assert adjusted == pytest.approx(variance / (variance + math.pi**2 / 3), rel=1e-12)


@pytest.mark.parametrize("method", ["lognormal", "delta", "trigamma"])
def test_variance_of_poisson_observations_is_nakagawas(ticks, method):
    table = ticks.variance_parts(method=method)
    expected = REFERENCE["poisson"]
    assert table["variance"] == pytest.approx(
        [expected["fixed"], expected["random"], expected[method]], rel=2e-4
    )


@pytest.mark.parametrize("link", ["probit", "cloglog"])
def test_latent_variances_of_links(link):
    data = mm.load_dataset("cbpp", backend="dict")
    fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size", link=link)
    assert fit.variance_parts()["variance"][-1] == pytest.approx(1.0 if link == "probit" else math.pi**2 / 6)


def test_gaussian_model_has_the_r2_of_the_linear_one_on_both_scales(gaussian):
    linear, generalised = gaussian
    for scale in ("latent", "observation"):
        np.testing.assert_allclose(generalised.r2(scale)["estimate"], linear.r2()["estimate"], rtol=1e-4)
        np.testing.assert_allclose(generalised.icc(scale)["adjusted"], linear.icc()["adjusted"], rtol=1e-4)


def test_poisson_variances_on_the_scale_of_the_response_have_closed_forms(ticks):
    """E mu = exp(eta + s/2), Var mu = E(mu)^2 (e^s - 1), and V = mu for Poisson with normal effects."""
    s = ticks.varcorr["BROOD"].variances[0]
    mean = np.exp(ticks._linear_predictor("population") + s / 2)
    table = ticks.variance_parts("observation")
    expected = [np.var(mean, ddof=1), np.mean(mean**2) * np.expm1(s), mean.mean()]
    assert table["variance"] == pytest.approx(expected, rel=1e-6)


def test_variances_of_the_response_are_those_of_simulations(inflated):
    fit = inflated[1]
    y = fit.simulate(4000, seed=1)
    total = fit.variance_parts("observation").extra["total"]
    assert y.var(axis=1).mean() + y.mean(axis=1).var(ddof=1) == pytest.approx(total, rel=0.02)


def test_several_groups_share_more_together():
    data = mm.load_dataset("grouseticks", backend="dict")
    fit = mm.glmm("TICKS ~ YEAR + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)", data, family="poisson")
    latent, table = fit.icc(), fit.icc("observation")
    assert latent["group"].tolist() == table["group"].tolist() == ["all", "BROOD", "LOCATION"]
    assert table["variance"][0] > table["variance"][1] + table["variance"][2]
    s = {term.group: term.variances[0] for term in fit.varcorr.terms}
    mean = np.exp(fit._linear_predictor("population") + sum(s.values()) / 2)
    assert table["variance"][1] == pytest.approx(np.mean(mean**2) * np.expm1(s["BROOD"]), rel=1e-6)
    both = np.mean(mean**2) * np.expm1(s["BROOD"] + s["LOCATION"])
    assert table["variance"][0] == pytest.approx(both, rel=1e-5)
    assert any("INDEX" in note for note in latent.notes)


def test_wrong_scales_and_methods(fit, gaussian):
    with pytest.raises(OptionError, match="scale must be"):
        fit.r2("logit")
    with pytest.raises(OptionError, match="available: theoretical, delta"):
        fit.r2(method="trigamma")
    with pytest.raises(OptionError, match="method is for"):
        fit.r2("observation", "delta")
    with pytest.raises(OptionError, match="generalised models"):
        gaussian[0].r2(method="delta")


def test_moments_of_two_predictors():
    mean, square = moments(
        lambda eta: np.exp(eta[0] + eta[1]), [np.zeros(2), np.ones(2)], [np.full(2, 0.3), np.full(2, 0.2)]
    )
    assert mean == pytest.approx(np.exp(np.full(2, 1.25)))
    assert square == pytest.approx(np.exp(np.full(2, 3.0)))


# ---------------------------------------------------------------------- the sandwich
def test_robust_errors_are_those_of_the_scores_in_r(fit):
    robust = fit.robust_vcov("CR0")
    np.testing.assert_allclose(np.sqrt(robust.joint_vcov.diagonal()), REFERENCE["robust_cr0"], rtol=2e-6)
    np.testing.assert_allclose(fit.robust_vcov().vcov, robust.vcov * 15 / 14)


def test_scores_of_the_clusters_add_up_to_the_gradient(inflated):
    from mixedmodels.inference.checks.glmm_robust import cluster_scores

    fit = inflated[1]
    codes = np.asarray(fit.generalised.terms[0].codes) // 5
    scores = cluster_scores(fit, Grouping("five", codes, tuple(range(5))))
    np.testing.assert_allclose(scores.sum(axis=0), 0.0, atol=1e-6)
    assert np.abs(scores).max() > 0.1
    assert working_fit(fit) is working_fit(fit)


def test_crossed_factors_have_no_clusters_and_linear_corrections_are_refused(fit, counts):
    with pytest.raises(OptionError, match="residuals of linear models"):
        fit.robust_vcov("CR2")
    data = {**counts, "h": [str(i % 6) for i in range(300)]}
    crossed = mm.glmm("y ~ x + (1 | g) + (1 | h)", data, family="poisson")
    with pytest.raises(OptionError, match="crossed"):
        crossed.robust_vcov()
    fast = mm.glmm("y ~ x + (1 | g)", counts, family="poisson", nagq=0)
    with pytest.raises(OptionError, match="nagq"):
        fast.robust_vcov()


def test_robust_errors_repair_a_poisson_fit_of_overdispersed_counts(poisson, negative_binomial):
    plain, robust = poisson.se["x"], poisson.robust_vcov().table.row("x")["std_error"]
    assert robust > 1.15 * plain
    assert robust == pytest.approx(negative_binomial.se["x"], rel=0.35)


# ---------------------------------------------------------------------- the diagnosis
def test_diagnosis_names_overdispersion_and_zeros(poisson, negative_binomial, inflated):
    found = {finding.check: finding for finding in poisson.diagnose().findings}
    assert found["overdispersion"].status == "warning"
    assert "nbinom2" in found["overdispersion"].remedy
    assert all(f.check != "overdispersion" for f in negative_binomial.diagnose().findings)
    assert {f.check: f.status for f in inflated[0].diagnose().findings}["zeros"] == "warning"
    assert {f.check: f.status for f in inflated[1].diagnose().findings}["zeros"] == "ok"


def test_diagnosis_names_separation_and_few_binary_observations():
    rng = np.random.default_rng(1)
    x = np.repeat([0.0, 1.0], 30)
    y = np.where(x == 1.0, 1.0, (rng.random(60) < 0.4).astype(float))
    data = {"x": x, "y": y, "g": [str(i % 10) for i in range(60)]}
    diagnosis = mm.glmm("y ~ x + (1 | g)", data, family="binomial").diagnose()
    found = {finding.check: finding for finding in diagnosis.findings}
    assert not diagnosis.ok
    assert found["separation"].status == "problem"
    assert "prior" in found["separation"].remedy
    assert "nagq" in found["approximation"].remedy


def test_diagnosis_of_a_good_fit(fit):
    diagnosis = fit.diagnose()
    assert diagnosis.ok
    assert {"convergence", "information", "separation", "overdispersion", "zeros"} <= {
        finding.check for finding in diagnosis.findings
    }


def test_random_effects_of_the_zeros_are_diagnosed_too(inflated):
    data = inflated[1]._data
    fit = mm.glmm("y ~ x + (1 | g)", data, family="poisson", zero_inflation="~ 1 + (1 | g)")
    assert len(fit.diagnose().findings) > 5
    assert np.isfinite(fit.r2("observation")["estimate"]).all()
    assert fit.leverage().sum() < 27


def test_components_of_each_predictor_and_held_coefficients(inflated):
    data = inflated[1]._data
    both = mm.glmm("y ~ x + (1 + x | g)", data, family="poisson", zero_inflation="~ 1 + (1 | g)")
    table = both.repca()
    assert table["group"].tolist() == ["g", "g", "g (zero_inflation)"]
    assert table["sd"][:2] ** 2 @ np.ones(2) == pytest.approx(sum(both.varcorr.terms[0].variances))
    held = mm.glmm("y ~ x + I(x ** 2) + (1 | g)", data, family="poisson", fixed={"x": 0.3})
    assert held.vif()["term"].tolist() == ["I(x^2)"]
    assert held.diagnose().findings
