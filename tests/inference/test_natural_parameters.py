"""Natural parameters of random terms: names, standard errors, intervals, tables."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.objective.natural import NaturalObjective


@functools.cache
def data():
    rng = np.random.default_rng(3)
    k, m = 5, 30
    R = 0.6 ** np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    b = (np.linalg.cholesky(R) * 1.3) @ rng.normal(size=(k, m))
    t, g = np.tile(np.arange(k), 2 * m), np.tile(np.repeat(np.arange(m), k), 2)
    out = {"f": np.array(list("abcde"))[t], "g": g, "x": rng.normal(size=t.size)}
    out["y"] = 1 + 0.5 * out["x"] + b[t, g] + rng.normal(size=t.size)
    out["c"] = rng.poisson(np.exp(0.3 + 0.3 * out["x"] + 0.5 * b[t, g]))
    return out


@functools.cache
def linear(reml=False):
    return mm.lmm("y ~ x + ar1(0 + f | g)", data(), reml=reml)


@functools.cache
def counts():
    return mm.glmm("c ~ x + ar1(0 + f | g)", data(), family="poisson")


def difference(function, x, h=1e-4):
    steps = h * np.eye(len(x))
    return np.array([(function(x + e) - function(x - e)) / (2 * h) for e in steps])


def test_gradient_in_natural_parameters():
    fit = linear()
    objective = NaturalObjective(fit.objective, fit.theta, [0])
    xi = objective.start * np.array([1.1, 0.9, 1.0])
    _, gradient, H = objective.newton(xi)
    assert gradient == pytest.approx(difference(objective.value, xi), rel=1e-6, abs=1e-6)
    numeric = difference(lambda x: objective.newton(x)[1], xi)
    assert pytest.approx(numeric, rel=1e-5, abs=1e-4) == H  # exact, and positive definite here


def test_standard_errors_are_those_of_the_hessian():
    """Twice the inverse Hessian of the criterion in (SD, correlation, log sigma) itself, by differences."""
    fit = linear()
    objective = NaturalObjective(fit.objective, fit.theta, [0])
    H = difference(lambda x: objective.newton(x)[1], objective.start)
    se = np.sqrt(np.diagonal(2.0 * np.linalg.inv(H)))
    table = fit.variance_parameters()
    assert list(table["term"]) == ["sd|g", "cor|g", "sigma"]
    assert np.asarray(table["std_error"]) == pytest.approx(se * [1.0, 1.0, fit.sigma], rel=1e-5)


def test_generalised_standard_errors():
    fit = counts()
    V = fit.objective.joint_covariance(fit.psi)[2:, 2:]
    table = fit.variance_parameters()
    slope = np.array([1.0, np.cos(fit.theta[1])])
    assert np.asarray(table["std_error"]) == pytest.approx(np.sqrt(np.diagonal(V)) * slope, rel=1e-8)
    limits = fit.confint(parameters="random")
    assert np.asarray(limits["conf_low"]) == pytest.approx(np.asarray(table["conf_low"]), rel=1e-8)


@pytest.mark.parametrize("fit", [linear, counts])
def test_profile_limits_are_where_the_criterion_says(fit):
    fit = fit()
    table = fit.confint(method="profile", parameters=["sd|g", "cor|g"])
    assert np.isfinite(np.asarray(table["conf_low"])).all()
    low, high = (float(table[name][1]) for name in ("conf_low", "conf_high"))
    assert low < float(table["estimate"][1]) < high
    for limit in (low, high):
        if fit._is_linear:
            held = fit.update(fixed={"cor|g": limit})
        else:
            held = fit.update(fixed={"g.angle(cor)": float(np.arcsin(limit))})
        assert held.criterion - fit.criterion == pytest.approx(3.841459, abs=2e-3)


def test_tables_have_the_names():
    for fit in (linear(), counts()):
        rows = fit.tidy(effects="ran_pars", conf_int=True)
        assert list(rows["term"][:2]) == ["sd", "cor"]
        assert np.isfinite(np.asarray(rows["std_error"], dtype=float)[:2]).all()
        assert np.isfinite(np.asarray(rows["conf_high"], dtype=float)[:2]).all()
    boot = linear().confint(method="bootstrap", n=20, seed=1, parameters=["cor|g"])
    assert -1.0 <= boot["conf_low"][0] <= boot["conf_high"][0] <= 1.0


def test_unstructured_terms_agree_with_their_parameters():
    fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    table = fit.variance_parameters()
    assert list(table["term"])[:3] == [
        "sd_(Intercept)|Subject",
        "sd_Days|Subject",
        "cor_Days.(Intercept)|Subject",
    ]
    assert np.asarray(table["estimate"])[0] == pytest.approx(fit.varcorr["Subject"].sds[0])
    wald = fit.confint(parameters="random")
    assert list(wald["conf_low"]) == pytest.approx(list(table["conf_low"]))


def test_a_variance_of_zero_has_no_interval():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="dict"))
    table = fit.variance_parameters()
    assert np.isnan(table["std_error"][0]) and np.isfinite(table["std_error"][1])
    assert any("boundary" in note for note in table.notes)
