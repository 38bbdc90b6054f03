"""Names of the parameters of generalised fits and their Wald intervals."""

import math

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.parameters import natural_values, parameters_of

Z = 1.959963984540054


@pytest.fixture(scope="module")
def cbpp():
    return mm.load_dataset("cbpp", backend="dict")


def cbpp_fit(cbpp, **options):
    return mm.glmm(
        "incidence ~ period + (1 | herd)", cbpp, **{"family": "binomial", "trials": "size", **options}
    )


@pytest.fixture(scope="module")
def gaussian():
    data = mm.load_dataset("sleepstudy", backend="dict")
    return mm.glmm("Reaction ~ Days + (Days | Subject)", data, family="gaussian")


def test_names_of_all_predictors_in_order(cbpp):
    fit = cbpp_fit(cbpp, family="betabinomial", dispersion="~ size", zero_inflation="~ 1 + (1 | herd)")
    assert [p.name for p in parameters_of(fit)] == [
        *fit.gamma_names,
        "sd_(Intercept)|herd",
        f"sd_zi_(Intercept)|{fit.varcorr.terms[1].group}",
    ]
    one = cbpp_fit(cbpp, family="betabinomial")
    assert [p.name for p in parameters_of(one)][-3:] == [
        "disp_(Intercept)",
        "sd_(Intercept)|herd",
        "dispersion",
    ]


def test_values_of_the_parameters_are_the_estimates(gaussian):
    own = parameters_of(gaussian)
    values = natural_values(
        gaussian.generalised, own, gaussian.gamma[None], np.ones(1), np.array(gaussian.theta)[None]
    )[0]
    assert np.allclose(values, [p.estimate for p in own], rtol=1e-12)


def test_coefficients_are_those_of_their_table(cbpp):
    fit = cbpp_fit(cbpp)
    table, own = fit.coefficients(), fit.confint()
    assert own["term"].tolist() == list(table["term"])
    assert np.allclose(own["conf_low"], table["conf_low"], rtol=1e-12)
    assert np.allclose(own["conf_high"], table["conf_high"], rtol=1e-12)


def test_standard_deviations_and_correlations_by_the_delta_method(gaussian):
    """Against differences of the transformed parameters along the axes of theta."""
    table = gaussian.confint(parameters="random")
    V = gaussian.joint_vcov
    n, h = len(gaussian.gamma), 1e-6

    def scaled(psi):
        L = np.array([[psi[n], 0.0], [psi[n + 1], psi[n + 2]]])
        S = L @ L.T
        sds = np.sqrt(S.diagonal())
        return np.array([*np.log(sds), math.atanh(S[0, 1] / (sds[0] * sds[1])), psi[2]])

    psi = np.array(gaussian.psi)
    J = np.array([(scaled(psi + h * e) - scaled(psi - h * e)) / (2.0 * h) for e in np.eye(len(psi))]).T
    half = Z * np.sqrt(np.diagonal(J @ V @ J.T))
    centre = scaled(psi)
    for sign, column in ((-1.0, "conf_low"), (1.0, "conf_high")):
        ends = centre + sign * half
        assert np.allclose(table[column], [*np.exp(ends[:2]), np.tanh(ends[2]), np.exp(ends[3])], rtol=1e-7)


def test_wald_and_profile_agree_in_large_samples():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(400), 20)
    y = rng.poisson(np.exp(0.5 + 0.5 * rng.normal(size=400)[g])).astype(float)
    fit = mm.glmm("y ~ 1 + (1 | g)", {"y": y, "g": g.astype(str)}, family="poisson")
    wald = fit.confint(parameters=["(Intercept)", "sd"])
    profile = fit.confint("profile", parameters=["(Intercept)", "sd"])
    width = np.array(profile["conf_high"]) - np.array(profile["conf_low"])
    assert np.all(np.abs(np.array(wald["conf_low"]) - np.array(profile["conf_low"])) < 0.02 * width)
    assert np.all(np.abs(np.array(wald["conf_high"]) - np.array(profile["conf_high"])) < 0.02 * width)


def test_no_wald_interval_on_the_boundary(cbpp):
    fit = cbpp_fit(cbpp, family="betabinomial")
    table = fit.confint(parameters=["sd", "dispersion"])
    assert np.isnan(table["conf_low"][0]) and np.isnan(table["conf_high"][0])
    assert "boundary" in " ".join(table.notes)
    assert 0.0 < table["conf_low"][1] < fit.dispersion < table["conf_high"][1]


def test_held_parameters_have_no_interval(cbpp):
    table = cbpp_fit(cbpp, fixed={"period2": -1.0}).confint(parameters=["period2", "period3"])
    assert np.isnan(table["conf_low"][0]) and np.isfinite(table["conf_low"][1])
    assert table.notes == ("period2: held at its value by fixed=",)


@pytest.mark.parametrize("method", ["satterthwaite", "kr", "kenward-roger"])
def test_degrees_of_freedom_are_refused_with_the_remedy(cbpp, method):
    with pytest.raises(OptionError, match="linear models only; use 'wald'"):
        cbpp_fit(cbpp).confint(method)


def test_tidy_takes_profile_limits(cbpp):
    fit = cbpp_fit(cbpp)
    table = fit.tidy(conf_int=True, conf_method="profile")
    profile = fit.confint("profile")
    assert np.allclose(table["conf_low"], profile["conf_low"], rtol=1e-9)
