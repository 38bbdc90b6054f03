"""Cumulative link mixed models against R's ordinal package and dense R code.

Log-likelihoods to 1e-6 relative, parameters to 1e-4. Standard errors are compared with clmm at ten quadrature
points to 1e-4. Those of its Laplace fits are differences of a criterion with inexact modes and up to 1
percent off (those of the dense R code 0.3 percent), so that there the Hessian is checked against differences
of exact gradients instead (`test_standard_errors_from_differences`).
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parent / "references"
FORMULA = "rating ~ temp + contact + (1 | judge)"
CASES = {
    "clmm_wine_laplace": {},
    "own_clm_wine_agq1": {},
    "own_clm_wine_agq10": {"nagq": 10},
    "clmm_wine_probit": {"link": "probit"},
    "own_clm_wine_probit": {"link": "probit"},
    "own_clm_wine_cloglog": {"link": "cloglog"},
    "own_clm_wine_loglog": {"link": "loglog"},
    "clmm_wine_symmetric": {"thresholds": "symmetric"},
    "clmm_wine_equidistant": {"thresholds": "equidistant"},
    "clmm_wine_two": {},
}
QUADRATURE = ("flexible", "symmetric", "symmetric2", "equidistant", "probit", "cloglog")


@functools.cache
def wine():
    return read_reference_table(HERE / "data", "wine")


@functools.cache
def reference(name):
    return json.loads((HERE / "glmm" / f"{name}.json").read_text(encoding="utf-8"))


@functools.cache
def fitted(name):
    formula = reference(name)["formula"].split(";")[0]
    return mm.glmm(formula, wine(), family="cumulative", **CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_likelihood_and_parameters(name):
    fit, ref = fitted(name), reference(name)
    target = ref["objective"]["logLik"]
    assert fit.loglik > target - 1e-6 * abs(target)
    assert fit.loglik == pytest.approx(target, rel=1e-6)
    estimates = dict(zip(fit.gamma_names, fit.gamma.tolist(), strict=True))
    expected = {**ref["thresholds"], **ref["beta"]}
    assert set(estimates) == set(expected)
    for key, value in expected.items():
        assert estimates[key] == pytest.approx(value, rel=1e-4, abs=1e-4)
    sds = {term.group: term.sds[0] for term in fit.varcorr.terms}
    for part in ref["varcorr"]:
        assert sds[part["group"]] == pytest.approx(part["sd"][0], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ["clmm_wine_laplace", "own_clm_wine_cloglog", "own_clm_wine_loglog"])
def test_random_effects(name):
    fit, ref = fitted(name), reference(name)
    expected = np.array(ref["ranef"][0]["values"])[:, 0]
    np.testing.assert_allclose(fit.ranef()["estimate"], expected, rtol=1e-3, atol=1e-4)


def test_probabilities_of_the_observed_categories():
    fit, ref = fitted("clmm_wine_laplace"), reference("clmm_wine_laplace")
    y = fit.response().astype(int)
    own = fit.fitted(type="prob")[np.arange(len(y)), y - 1]
    np.testing.assert_allclose(own[:10], ref["fitted"]["head"], rtol=1e-4)
    assert float(own @ own) == pytest.approx(ref["fitted"]["sumsq"], rel=1e-5)


@pytest.mark.parametrize("case", QUADRATURE)
def test_quadrature_and_standard_errors(case):
    ref = reference("clmm_wine")[case]
    fit = mm.glmm(
        FORMULA, wine(), family="cumulative", link=ref["link"], thresholds=ref["thresholds"], nagq=10
    )
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    assert fit.theta[0] == pytest.approx(ref["sd"], rel=1e-5)
    for j, name in enumerate(fit.gamma_names):
        assert fit.gamma[j] == pytest.approx(ref["estimate"][name], rel=1e-4)
        assert fit.se_all[name] == pytest.approx(ref["se"][name], rel=1e-4)


@pytest.mark.parametrize("name", ["clmm_wine_laplace", "own_clm_wine_cloglog", "clmm_wine_symmetric"])
def test_standard_errors_from_differences(name):
    fit = fitted(name)
    objective, psi, h = fit.objective, fit.psi, 1e-4
    H = np.zeros((len(psi),) * 2)
    for j in range(len(psi)):
        e = np.zeros(len(psi))
        e[j] = h
        up, down = objective.value_and_gradient(psi + e)[1], objective.value_and_gradient(psi - e)[1]
        H[j] = (up - down) / (2.0 * h)
    se = np.sqrt(np.diagonal(2.0 * np.linalg.inv(H)))
    np.testing.assert_allclose(list(fit.se_all.values()), se[: len(fit.gamma)], rtol=1e-5)
