"""Priors: exact derivatives, blme's estimates, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mixedmodels as mm
from mixedmodels.errors import OptionError

from .glmm_models import binary_data, cbpp_fit, differences, objective_of

SPECS = {
    "normal": {"x": ("normal", 0.3, 1.5), "(Intercept)": ("normal", 0, 10)},
    "t": {"slopes": ("t", 4, 0.1, 2.0)},
    "cauchy": {"fixed": ("cauchy", 0, 2.5)},
    "gamma": {"sd": ("gamma", 2.5, 0.4)},
    "half-normal": {"sd_x|g": ("half-normal", 0.8)},
    "half-t": {"g": ("half-t", 3, 1.2)},
    "wishart": {"theta": ("wishart", 5.0, 2.0)},
    "default": "wishart",
    "two": {"g": "wishart", "sd": ("half-normal", 2.0), "x": "normal"},
}


def priors_of(spec):
    return objective_of("y ~ x + (x | g)", binary_data(), family="binomial", priors=spec).priors


@pytest.mark.parametrize("name", SPECS)
def test_derivatives(name):
    priors = priors_of(SPECS[name])
    psi = np.array([-0.3, 0.8, 0.9, -0.4, 0.6])
    _, gradient, hessian = priors.evaluate(psi)
    np.testing.assert_allclose(gradient, differences(priors.value, psi), atol=1e-7)
    np.testing.assert_allclose(hessian, differences(lambda p: priors.evaluate(p)[1], psi), atol=1e-6)


def test_values_are_those_of_the_distributions():
    """Proper priors have their constants."""
    psi = np.array([-0.3, 0.8, 0.9, -0.4, 0.6])
    sd = np.hypot(-0.4, 0.6)
    expected = {
        "normal": stats.norm.logpdf(0.8, 0.3, 1.5) + stats.norm.logpdf(-0.3, 0, 10),
        "t": stats.t.logpdf(0.8, 4, 0.1, 2.0),
        "cauchy": stats.cauchy.logpdf([-0.3, 0.8], 0, 2.5).sum(),
        "half-normal": stats.halfnorm.logpdf(sd, scale=0.8),
        "half-t": (stats.t.logpdf([0.9, sd], 3, 0, 1.2) + np.log(2.0)).sum(),
    }
    for name, value in expected.items():
        assert priors_of(SPECS[name]).value(psi) == pytest.approx(-2.0 * value, rel=1e-12)


def test_wishart_is_in_the_covariance_matrix():
    """Differences of the log-density: |Sigma|^((df - k - 1)/2) exp(-tr Sigma / (2 scale))."""
    priors = priors_of({"theta": ("wishart", 5.0, 2.0)})

    def direct(theta):
        F = np.array([[theta[0], 0.0], [theta[1], theta[2]]])
        S = F @ F.T
        return -2.0 * (0.5 * (5.0 - 3.0) * np.log(np.linalg.det(S)) - np.trace(S) / (2.0 * 2.0))

    one, other = np.array([0.9, -0.4, 0.6]), np.array([0.3, 0.8, 1.1])
    found = priors.value(np.r_[0, 0, one]) - priors.value(np.r_[0, 0, other])
    assert found == pytest.approx(direct(one) - direct(other), rel=1e-12)


def test_flat_priors_change_nothing():
    flat = cbpp_fit(priors={"fixed": ("normal", 0, 1e6)})
    best = cbpp_fit()
    assert flat.loglik == pytest.approx(best.loglik, abs=1e-6)
    np.testing.assert_allclose(flat.beta, best.beta, rtol=1e-6)


def test_loglik_leaves_the_prior_out():
    fit = cbpp_fit(priors="wishart")
    psi = fit.psi
    assert fit.criterion == pytest.approx(-2.0 * fit.loglik + fit.objective.penalty(psi), rel=1e-12)
    plain = cbpp_fit().objective.value(psi)
    assert fit.loglik == pytest.approx(-0.5 * plain, abs=1e-8)
    assert fit.aic == pytest.approx(-2.0 * fit.loglik + 2 * fit.df_model)


def test_variances_stay_off_the_boundary():
    """Chung et al. (2013): the default prior moves a variance of zero to about one standard error."""
    rng = np.random.default_rng(0)
    data = {"c": rng.poisson(2.0, 60), "g": np.repeat(np.arange(12), 5).astype(str)}
    plain = mm.glmm("c ~ 1 + (1 | g)", data, family="poisson")
    kept = mm.glmm("c ~ 1 + (1 | g)", data, family="poisson", priors="gamma")
    assert plain.is_singular
    assert 0.02 < kept.theta[0] < 0.5
    assert not kept.is_singular
    assert 2.0 * (plain.loglik - kept.loglik) < 2.0


def test_separation_is_cured():
    data = binary_data()
    data["y"] = np.where(data["t"] == "b", 1.0, data["y"])
    fit = mm.glmm("y ~ x + t + (1 | g)", data, family="binomial", priors={"tb": ("normal", 0, 2.5)})
    assert 1.0 < fit.fixef["tb"] < 8.0
    assert fit.se["tb"] < 2.5
    assert not any("separation" in note for note in fit.messages)


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"nothing": "normal"}, "no parameter 'nothing'"),
        ({"period2": "flat"}, "must begin with one of normal"),
        ({"period2": ("normal", 0, -1)}, "sd = -1.0 is out of its range"),
        ({"period2": ("normal", float("nan"), 1)}, "mean = nan is out of its range"),
        ({"period2": ("normal", 0, 1, 2)}, r"must be \('normal', mean, sd\)"),
        ({"period2": ("normal", "a")}, "must be"),
        ({"period2": "wishart"}, "cannot be 'wishart'; it takes one of normal"),
        ({"sd": "normal"}, "cannot be 'normal'"),
        ({"theta": ("wishart", -1)}, "df"),
        (3, "priors must"),
    ],
)
def test_wrong_priors(priors, words):
    with pytest.raises(OptionError, match=words):
        cbpp_fit(priors=priors)
