"""Parameters held at values or set equal."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError

from .glmm_models import binary_data, cbpp_data, cbpp_fit


def test_holding_a_parameter_at_its_estimate_changes_nothing():
    best = cbpp_fit()
    for name, value in (("period2", best.fixef["period2"]), ("herd.(Intercept)", best.theta[0])):
        fit = cbpp_fit(fixed={name: value})
        assert fit.loglik == pytest.approx(best.loglik, abs=1e-9)
        assert fit.df_model == best.df_model - 1
        np.testing.assert_allclose(fit.beta, best.beta, rtol=1e-5)


def test_a_standard_deviation_of_zero_is_the_generalised_linear_model():
    fit = cbpp_fit(fixed={"sd_(Intercept)|herd": 0.0})
    # logLik(glm(cbind(incidence, size - incidence) ~ period, binomial, cbpp)) = -96.... with constants:
    mu = fit.fitted()
    data = cbpp_data()
    y, m = data["incidence"].to_numpy(), data["size"].to_numpy()
    from scipy.stats import binom

    assert fit.loglik == pytest.approx(binom.logpmf(y, m, mu).sum(), abs=1e-9)
    X = fit.design.X
    np.testing.assert_allclose(X.T @ (y - m * mu), 0.0, atol=1e-6)


def test_held_parameters_have_no_covariance():
    fit = cbpp_fit(fixed={"period3": -1.0})
    covariance = fit.objective.joint_covariance(fit.psi)
    assert not covariance[2].any()
    assert fit.fixef["period3"] == -1.0
    assert (np.delete(np.diagonal(covariance), 2) > 0.0).all()


def test_equal_coefficients_are_those_of_merged_levels():
    fit = cbpp_fit(equal=[["period2", "period3"]])
    data = cbpp_data()
    data["merged"] = data["period"].astype(str).replace({"3": "2"})
    merged = mm.glmm("incidence ~ merged + (1 | herd)", data, family="binomial", trials="size")
    assert fit.loglik == pytest.approx(merged.loglik, abs=1e-8)
    assert fit.df_model == merged.df_model == 4
    assert fit.fixef["period2"] == fit.fixef["period3"] == pytest.approx(merged.fixef["merged2"], rel=1e-6)


def test_a_correlation_of_zero_is_the_model_without_it():
    data = binary_data(groups=30)
    held = mm.glmm("y ~ x + (x | g)", data, family="binomial", fixed={"cor_x.(Intercept)|g": 0})
    without = mm.glmm("y ~ x + (x || g)", data, family="binomial")
    assert held.loglik == pytest.approx(without.loglik, abs=1e-8)
    assert held.df_model == without.df_model


def test_everything_held():
    best = cbpp_fit()
    fixed = dict(zip(best.objective.names, best.psi.tolist(), strict=True))
    fit = cbpp_fit(fixed=fixed)
    assert fit.converged and fit.df_model == 0
    assert fit.loglik == pytest.approx(best.loglik, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fixed": {"nothing": 1.0}}, "no parameter 'nothing'; available: .*period2"),
        ({"fixed": {"period2": "a"}}, "fixed.*'a'"),
        ({"fixed": {"period2": True}}, "fixed.*True"),
        ({"fixed": {"sd_(Intercept)|herd": -1.0}}, "standard deviation"),
        ({"fixed": ["period2"]}, "fixed must"),
        ({"fixed": {"sd_(Intercept)|herd": 1.0, "herd.(Intercept)": 2.0}}, "at two values"),
        ({"equal": ["period2", "period3"]}, "equal must"),
        ({"equal": [["period2"]]}, "equal must"),
        ({"equal": "period2"}, "equal must"),
        ({"equal": [["period2", "x"]]}, "no parameter 'x'"),
        ({"fixed": {"period2": 1.0, "period3": 2.0}, "equal": [["period2", "period3"]]}, "different values"),
    ],
)
def test_wrong_restrictions(options, words):
    with pytest.raises(OptionError, match=words):
        cbpp_fit(**options)


@pytest.mark.parametrize(
    ("fixed", "words"),
    [
        ({"sd_x|g": 0.5}, "not linear in the parameters: its square is a sum"),
        ({"cor_x.(Intercept)|g": 0.5}, "only 0 can be asked for"),
    ],
)
def test_what_is_not_linear_is_refused(fixed, words):
    with pytest.raises(OptionError, match=words):
        mm.glmm("y ~ x + (x | g)", binary_data(), family="binomial", fixed=fixed)
