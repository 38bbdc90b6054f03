"""Families of one's own, with several linear predictors, through the whole of `glmm`."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.family.functions import exp, log_expit


class Normal(mm.Family):
    """The normal distribution with the log of its SD as second predictor."""

    name = "normal_of_mine"
    links = ("identity", "log")
    predictors = ("conditional", "dispersion")

    def log_density(self, data, eta):
        r = data.y - self.link.inverse(eta[0])
        return -0.5 * r * r * exp(-2.0 * eta[1]) - eta[1] - 0.5 * math.log(2.0 * math.pi)

    def variance(self, data, eta):
        return np.broadcast_to(np.exp(2.0 * eta[1]), data.y.shape)

    def draw(self, data, eta, rng):
        return rng.normal(self.mean(eta), np.exp(eta[1]))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(20), 8)
    x = rng.uniform(-1.0, 1.0, 160)
    y = 1.0 + 0.5 * x + 0.4 * rng.normal(size=20)[g] + np.exp(-0.7 + 0.4 * x) * rng.normal(size=160)
    return {"y": y, "x": x, "g": g}


@pytest.mark.parametrize("dispersion", ["~ 1", "~ x", "~ x + (1 | g)"])
def test_a_family_of_two_predictors_is_the_built_in_one(data, dispersion):
    mine = mm.glmm("y ~ x + (1 | g)", data, family=Normal, dispersion=dispersion)
    theirs = mm.glmm("y ~ x + (1 | g)", data, family="gaussian", dispersion=dispersion)
    assert mine.loglik == pytest.approx(theirs.loglik, rel=1e-9)
    assert mine.gamma_names == theirs.gamma_names
    np.testing.assert_allclose(mine.gamma, theirs.gamma, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(list(mine.se_all.values()), list(theirs.se_all.values()), rtol=1e-5)
    np.testing.assert_allclose(mine.fitted(), theirs.fitted(), rtol=1e-5)
    np.testing.assert_allclose(mine.residuals("pearson"), theirs.residuals("pearson"), rtol=1e-4, atol=1e-6)
    assert mine.simulate(2, seed=1).shape == (160, 2)


def test_a_family_with_a_shape_of_its_own(data):
    """The logistic distribution: its log-scale is one parameter, named after its predictor."""

    def log_density(data, eta):
        s = (data.y - eta[0]) * exp(-eta[1])
        return log_expit(s) + log_expit(-s) - eta[1]

    logistic = mm.Family.from_functions(
        "logistic", log_density, links=("identity",), predictors=("conditional", "scale")
    )
    fit = mm.glmm("y ~ x + (1 | g)", data, family=logistic)
    assert fit.converged and fit.gamma_names == ("(Intercept)", "x", "scale")
    exact = mm.glmm("y ~ x + (1 | g)", data, family=logistic, nagq=15)
    assert fit.loglik == pytest.approx(exact.loglik, abs=0.2)
    dense = mm.glmm("y ~ x + (1 | g)", data, family=logistic, solver="dense")
    np.testing.assert_allclose(fit.psi, dense.psi, rtol=1e-5, atol=1e-7)
    with pytest.raises(mm.OptionError, match="logistic"):
        fit.simulate(1)


def test_what_is_missing_is_named():
    with pytest.raises(mm.OptionError, match="is no method of a family"):
        mm.Family.from_functions("f", lambda data, eta: -eta[0], mode=lambda data: 1)
    with pytest.raises(mm.OptionError, match="has no link 'probit'"):
        Normal("probit")
