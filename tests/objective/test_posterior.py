"""Priors of linear mixed models: derivatives, blme's fits, and what must be refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.lmm_priors import read_linear_priors
from mixedmodels.objective.posterior import PosteriorObjective
from mixedmodels.solver.choose import choose_solver
from mixedmodels.testing import random_design

BLME = json.loads(
    (Path(__file__).parents[1] / "references" / "priors" / "blme.json").read_text(encoding="utf-8")
)
NORMAL = {"(Intercept)": ("normal", 0, 10), "Days": ("normal", 0, 2.5)}
CASES = {
    "blmer_dyestuff2_default": ("Dyestuff2", {"priors": "wishart"}),
    "blmer_sleepstudy_default": ("sleepstudy", {"priors": "wishart"}),
    "blmer_sleepstudy_fixefnormal": ("sleepstudy", {"reml": False, "priors": NORMAL}),
    "blmer_sleepstudy_gamma_int": ("sleepstudy", {"priors": {"sd": ("gamma", 2.5, 0)}}),
    "blmer_sleepstudy_ml_wishart": ("sleepstudy", {"reml": False, "priors": {"theta": ("wishart", 5, 1.0)}}),
}


@pytest.mark.parametrize("name", CASES)
def test_fits_of_blme(name):
    ref = BLME[name]
    data, options = CASES[name]
    fit = mm.lmm(ref["formula"], mm.load_dataset(data, backend="dict"), **options)
    assert fit.converged
    assert fit.loglik == pytest.approx(ref["loglik"], rel=2e-8)  # moves to first order with the estimates
    assert fit.sigma == pytest.approx(ref["sigma"], rel=1e-6)
    assert fit.theta == pytest.approx(np.array(list(ref["theta"].values())), rel=1e-4, abs=1e-6)
    assert list(fit.fixef.values()) == pytest.approx([b for b, _ in ref["beta"].values()], rel=1e-7)
    assert list(fit.se.values()) == pytest.approx([s for _, s in ref["beta"].values()], rel=1e-6)
    # blme leaves out the constants of proper Wisharts in, we leave them out
    if "penalised_deviance" in ref and "wishart(df = 5" not in ref["call"]:
        assert fit.criterion == pytest.approx(ref["penalised_deviance"], rel=1e-10)


PRIORS = [
    {"theta": "wishart"},
    {"theta": ("wishart", 6, 2.0)},
    {"theta": ("wishart", 6, 2.0, "absolute")},
    {"theta": "invwishart"},
    {"theta": ("invwishart", 4, 0.7, "absolute")},
    {"theta": ("logdet", 0.8)},
    {"sd": ("gamma", 2.5, 0.3)},
    {"sd": ("gamma", 2.5, 0.3, "absolute")},
    {"sd": ("gamma-variance", 2.0, 0.3, "absolute")},
    {"sd": ("invgamma", 1.5, 0.9)},
    {"sd": ("invgamma-variance", 1.5, 0.9, "absolute")},
    {"sd": ("half-t", 3, 0.8, "absolute")},
    {"sd": ("half-normal", 0.8)},
    {"sigma": ("invgamma-variance", 3, 2.0)},
    {"sigma": ("gamma", 3, 2.0), "theta": "wishart", "fixed": ("normal", 0.2, 1.5)},
]


def objective(priors, reml, design=None, sigma=None):
    design = random_design(1, "one_slope") if design is None else design
    read = read_linear_priors(priors, design.x_names, design.terms)
    return PosteriorObjective(design, choose_solver, read, reml, sigma)


def difference(function, x, h=1e-6):
    steps = h * np.eye(len(x))
    return np.array([(function(x + e) - function(x - e)) / (2 * h) for e in steps])


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("priors", PRIORS, ids=str)
def test_gradient_and_information_are_derivatives(priors, reml):
    posterior = objective(priors, reml)
    theta = np.array([0.8, 0.3, 0.6])
    value, gradient = posterior.value_and_gradient(theta)
    assert value == pytest.approx(posterior.value(theta), rel=1e-14)
    assert gradient == pytest.approx(difference(posterior.value, theta), rel=1e-6, abs=1e-6)
    assert posterior.newton(theta)[1] == pytest.approx(gradient, rel=1e-10)
    numeric = difference(lambda t: posterior.value_and_gradient(t)[1], theta)
    assert posterior.information(theta, "observed") == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def test_sigma_held_and_prior_rows():
    posterior = objective(
        {"theta": ("wishart", 6, 2.0, "absolute"), "fixed": ("normal", 0, 2)}, True, None, 0.7
    )
    theta = np.array([0.8, 0.3, 0.6])
    assert posterior.sigma(theta) == pytest.approx(0.7)
    _, gradient = posterior.value_and_gradient(theta)
    assert gradient == pytest.approx(difference(posterior.value, theta), rel=1e-6, abs=1e-6)


def test_flat_priors_change_nothing():
    design = random_design(1, "one_slope")
    plain = LMMObjective(design, choose_solver(design), True)
    theta = np.array([0.8, 0.3, 0.6])
    posterior = objective({"theta": ("wishart", 3.0, math.inf)}, True)  # df = k + 1: |Sigma|^0
    assert posterior.value(theta) == pytest.approx(plain.value(theta), rel=1e-13)
    assert posterior.likelihood(theta) == pytest.approx(plain.value(theta), rel=1e-13)
    assert posterior.information(theta, "average") == pytest.approx(plain.information(theta), rel=1e-9)


def test_normal_prior_is_the_posterior_of_the_dense_algebra():
    """V known: the mode of beta is ridge regression in the metric of V."""
    design = random_design(1, "one_slope")
    posterior = objective({"fixed": ("normal", 0.3, 0.5)}, False, design)
    theta = np.array([0.8, 0.3, 0.6])
    F = np.array([[0.8, 0.0], [0.3, 0.6]])
    term = design.terms[0]
    same = term.codes[:, None] == term.codes[None, :]
    V = np.eye(design.n) + same * (term.Z @ F @ F.T @ term.Z.T)
    y = design.y if design.offset is None else design.y - design.offset
    W = np.linalg.inv(V)
    S = np.eye(design.p) / 0.5**2
    beta = np.linalg.solve(design.X.T @ W @ design.X + S, design.X.T @ W @ y + S @ np.full(design.p, 0.3))
    assert posterior.solution(theta).beta == pytest.approx(beta, rel=1e-9)
    # the likelihood at these estimates
    sigma, e = posterior.sigma(theta), y - design.X @ beta
    density = design.n * math.log(2 * math.pi * sigma**2) + np.linalg.slogdet(V)[1] + e @ W @ e / sigma**2
    assert posterior.likelihood(theta) == pytest.approx(density, rel=1e-10)


def test_fit_with_priors_answers():
    data = mm.load_dataset("sleepstudy", backend="dict")
    fit = mm.lmm(
        "Reaction ~ Days + (Days | Subject)", data, priors={"theta": "wishart", "sigma": ("gamma", 3, 0.1)}
    )
    assert any("posterior" in message for message in fit.messages)
    assert fit.loglik < mm.lmm("Reaction ~ Days + (Days | Subject)", data).loglik
    assert np.isfinite(fit.coefficients()["df"]).all()
    assert "posterior" in str(fit)
    for question in (fit.profile, lambda: mm.compare(fit, fit), lambda: fit.coefficients(ddf="kr")):
        with pytest.raises(OptionError, match="priors"):
            question()
    assert fit.refit(fit.response()).criterion == pytest.approx(fit.criterion, rel=1e-10)


@pytest.mark.parametrize(
    ("priors", "match"),
    [
        ({"nothing": "wishart"}, "no parameter 'nothing'"),
        ({"theta": ("wishart", 0.5)}, "df must be larger"),
        ({"Days": ("gamma", 1, 1)}, "takes one of normal"),
        ({"sd": ("gamma", -1, 1)}, "shape = -1"),
        ({"fixed": ("normal", 0, 1, "absolute")}, "relative to sigma"),
        ([1], "must map"),
    ],
)
def test_wrong_priors(priors, match):
    data = mm.load_dataset("sleepstudy", backend="dict")
    with pytest.raises(OptionError, match=match):
        mm.lmm("Reaction ~ Days + (Days | Subject)", data, priors=priors)


def test_methods_of_likelihoods_are_refused():
    data = mm.load_dataset("Dyestuff", backend="dict")
    with pytest.raises(OptionError, match="priors"):
        mm.lmm("Yield ~ 1 + (1 | Batch)", data, priors="wishart", method="em")
