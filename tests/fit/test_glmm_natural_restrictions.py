"""Natural parameters of curved structures held in generalised models; the joint mode (nagq=0) with them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy.special import gammaln

import mixedmodels as mm
from mixedmodels.errors import OptionError

TIMES = np.array([1.0, 2.0, 3.0, 5.0])


@functools.cache
def data():
    rng = np.random.default_rng(8)
    k, m = TIMES.size, 25
    root = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(TIMES, TIMES)))
    b, x = (root @ rng.normal(size=(k, m))).T.ravel(), rng.normal(size=k * m)
    c = rng.poisson(np.exp(0.8 + 0.3 * x + 0.8 * b)).astype(float)
    return {"c": c, "x": x, "t": np.tile(TIMES, m), "g": [f"g{i}" for i in np.repeat(np.arange(m), k)]}


@pytest.mark.parametrize(("tag", "name", "value"), [("ar1", "cor|g", 0.3), ("exp", "range|g", 1.5)])
def test_held_is_what_the_fit_has(tag, name, value):
    formula = f"c ~ x + {tag}(t | g)"
    free = mm.glmm(formula, data(), family="poisson")
    found = free.variance_parameters()
    estimates = dict(zip(found["term"], found["estimate"], strict=True))
    same = mm.glmm(formula, data(), family="poisson", fixed={name: float(estimates[name])})
    assert same.loglik == pytest.approx(free.loglik, rel=1e-9)
    held = mm.glmm(formula, data(), family="poisson", fixed={name: value})
    found = held.variance_parameters()
    assert dict(zip(found["term"], found["estimate"], strict=True))[name] == pytest.approx(value, rel=1e-9)
    assert held.loglik < free.loglik
    assert held.df_model == free.df_model - 1
    both = mm.glmm(formula, data(), family="poisson", fixed={name: value, "sd|g": 0.7})
    assert both.theta[0] == pytest.approx(0.7, rel=1e-12)
    assert both.loglik < held.loglik


def test_out_of_range():
    for tag, name, value in (("ar1", "cor|g", 1.5), ("exp", "range|g", -1.0)):
        with pytest.raises(OptionError, match=r"out of its range"):
            mm.glmm(f"c ~ x + {tag}(t | g)", data(), family="poisson", fixed={name: value})


def test_nagq_0_of_a_curved_structure_is_the_minimum_of_its_criterion():
    """Laplace's criterion at the joint mode of coefficients and effects, written with dense matrices."""
    d = data()
    n, X = d["c"].size, np.column_stack([np.ones(d["c"].size), d["x"]])

    def loglik(sd, rho):
        block = np.linalg.cholesky(sd**2 * rho ** np.abs(np.subtract.outer(TIMES, TIMES)))
        L = np.kron(np.eye(n // TIMES.size), block)
        A, P = np.hstack([L, X]), np.diag(np.r_[np.ones(n), 0.0, 0.0])
        z = np.zeros(n + 2)
        for _ in range(40):
            mu = np.exp(A @ z)
            z = z + np.linalg.solve(A.T @ (mu[:, None] * A) + P, A.T @ (d["c"] - mu) - P @ z)
        mu, u = np.exp(A @ z), z[:n]
        logdet = np.linalg.slogdet(L.T @ (mu[:, None] * L) + np.eye(n))[1]
        return np.sum(d["c"] * (A @ z) - mu - gammaln(d["c"] + 1.0)) - 0.5 * (u @ u + logdet)

    fit = mm.glmm("c ~ x + ar1(t | g)", d, family="poisson", nagq=0)
    sd, rho = float(fit.theta[0]), float(np.sin(fit.theta[1]))
    assert fit.loglik == pytest.approx(loglik(sd, rho), rel=1e-9)
    for h in (-0.02, 0.02):
        assert loglik(sd + h, rho) < fit.loglik
        assert loglik(sd, rho + h) < fit.loglik


@functools.cache
def two():
    """Two series with one autocorrelation."""
    rng = np.random.default_rng(4)
    k, m = TIMES.size, 15
    root = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(TIMES, TIMES)))
    g, h = np.repeat(np.arange(m), k), rng.permutation(np.repeat(np.arange(m), k))
    t = np.tile(TIMES, m)
    at = np.searchsorted(TIMES, t)
    b, d = root @ rng.normal(size=(k, m)), 0.7 * root @ rng.normal(size=(k, m))
    c = rng.poisson(np.exp(1.0 + b[at, g] + d[at, h])).astype(float)
    return {"c": c, "t": t, "g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h]}


def test_equal_by_natural_names():
    formula = "c ~ 1 + ar1(t | g) + ar1(t | h)"
    free = mm.glmm(formula, two(), family="poisson")
    fit = mm.glmm(formula, two(), family="poisson", equal=[["cor|g", "cor|h"]])
    entries = mm.glmm(formula, two(), family="poisson", equal=[[free.theta_names[1], free.theta_names[3]]])
    found = fit.variance_parameters()
    values = dict(zip(found["term"], found["estimate"], strict=True))
    assert values["cor|g"] == pytest.approx(values["cor|h"], rel=1e-12)
    assert fit.loglik == pytest.approx(entries.loglik, rel=1e-9)
    assert fit.loglik < free.loglik
    assert fit.df_model == free.df_model - 1
    both = mm.glmm(formula, two(), family="poisson", equal=[["cor|g", "cor|h"], ["sd|g", "sd|h"]])
    shared = mm.glmm(formula, two(), family="poisson", share=[["ar1(t | g)", "ar1(t | h)"]])
    assert both.loglik == pytest.approx(shared.loglik, rel=1e-8)
    assert both.df_model == shared.df_model
    again = both.refit(both.response())
    assert again.theta == pytest.approx(both.theta, rel=1e-5)


def test_equal_that_cannot_be():
    formula = "c ~ 1 + ar1(t | g) + exp(t | h)"
    for names, match in (
        (["cor|g", "range|h"], "different kinds"),
        (["cor|g", "corr|h"], "no parameter 'corr|h'"),
        (["cor|g"], "list of lists"),
    ):
        with pytest.raises(OptionError, match=match):
            mm.glmm(formula, two(), family="poisson", equal=[names])
