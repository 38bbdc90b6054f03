"""Structures that are not linear in theta in generalised models: derivatives, engines, glmmTMB's fits."""

from __future__ import annotations

import csv
import functools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.covariance import make_covariance
from mixedmodels.errors import OptionError
from mixedmodels.objective.glmm import GLMMObjective
from mixedmodels.objective.glmm_coordinates import Coordinates
from mixedmodels.objective.marginal import directional
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.directional import DirectionalLaplace

HERE = Path(__file__).parents[1] / "references" / "structures"
REFERENCES = json.loads((HERE / "structures.json").read_text(encoding="utf-8"))


@functools.cache
def table(name):
    with open(HERE / f"{name}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    out = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        try:
            out[key] = np.array(values, dtype=float)
        except ValueError:
            out[key] = np.array(values)
    if name == "sim_cov":
        out["tf"] = np.array([str(int(t)) for t in out["t"]])
        out["bin"] = (out["y"] > np.median(out["y"])).astype(float)
    return out


@functools.cache
def small_fit():
    rng = np.random.default_rng(1)
    k, m = 4, 10
    data = {"t": np.tile(np.arange(k), m), "g": np.repeat(np.arange(m), k), "x": rng.normal(size=k * m)}
    data["f"] = np.array(list("abcd"))[data["t"]]
    data["y"] = rng.poisson(np.exp(0.5 + 0.3 * data["x"] + 0.6 * rng.normal(size=k * m)))
    return mm.glmm("y ~ x + (0 + f | g)", data, family="poisson")


def with_structure(fit, covariance, engine=choose_marginal):
    design = fit.generalised
    design = replace(design, terms=(replace(design.terms[0], covariance=covariance),))
    coordinates = Coordinates(design)
    return GLMMObjective(coordinates, engine(coordinates.inner, fit.family))


TAGS = ("ar1", "hetar1", "cs", "homcs", "toep", "homtoep", "ad")


@pytest.mark.parametrize("tag", TAGS)
def test_gradient_and_hessian_are_derivatives(tag):
    fit = small_fit()
    structure = make_covariance(tag, 4)
    objective = with_structure(fit, structure)
    psi = np.concatenate([fit.gamma, 0.8 * structure.start + 0.1])
    found = objective.evaluate(psi, 2)
    steps = 1e-5 * np.eye(len(psi))
    slope = [(objective.value(psi + e) - objective.value(psi - e)) / 2e-5 for e in steps]
    assert found.gradient == pytest.approx(slope, abs=1e-6)
    up, down = ([objective.value_and_gradient(psi + s * e)[1] for e in steps] for s in (1.0, -1.0))
    assert found.hessian == pytest.approx((np.array(up) - np.array(down)) / 2e-5, rel=1e-7, abs=1e-6)


@pytest.mark.parametrize("tag", ["ar1", "cs", "homtoep", "us"])
def test_engine_along_the_parameters_is_the_dense_one(tag):
    fit = small_fit()
    structure = make_covariance(tag, 4)
    one, other = (with_structure(fit, structure, engine) for engine in (DenseLaplace, DirectionalLaplace))
    psi = np.concatenate([fit.gamma, 0.8 * structure.start + 0.1])
    a, b = one.evaluate(psi, 2), other.evaluate(psi, 2)
    assert b.value == pytest.approx(a.value, rel=1e-13)
    assert b.gradient == pytest.approx(a.gradient, abs=1e-10)
    assert b.hessian == pytest.approx(a.hessian, abs=1e-9)


def test_effects_that_no_row_sees():
    """Levels see a few of the columns: the same criterion, modes and variances as with all effects."""
    rng = np.random.default_rng(2)
    k, m, n = 6, 4, 14
    data = {"x": rng.normal(size=n), "g": np.arange(n) % m, "y": rng.poisson(1.5, size=n)}
    fit = mm.glmm("y ~ x + (1 | g)", data, family="poisson")
    Z = np.zeros((n, k))
    Z[np.arange(n), rng.integers(0, k, size=n)] = 1.0
    term = fit.generalised.terms[0]
    term = replace(term, Z=Z, covariance=make_covariance("ar1", k), names=tuple(map(str, range(k))))
    design = replace(fit.generalised, terms=(term,))
    coordinates = Coordinates(design)
    one, other = (
        GLMMObjective(coordinates, engine(coordinates.inner, fit.family))
        for engine in (DenseLaplace, DirectionalLaplace)
    )
    psi = np.array([*fit.gamma, 0.7, 0.5])
    a, b = one.evaluate(psi, 2), other.evaluate(psi, 2)
    assert b.value == pytest.approx(a.value, rel=1e-12)
    assert b.gradient == pytest.approx(a.gradient, abs=1e-9)
    assert b.hessian == pytest.approx(a.hessian, abs=1e-8)
    assert other.modes(psi).b[0] == pytest.approx(one.modes(psi).b[0], abs=1e-9)
    assert other.conditional_covariance(psi, 0) == pytest.approx(one.conditional_covariance(psi, 0), abs=1e-9)


CASES = {
    "pois_ar1": ("sim_cov", "cnt ~ trt + x + ar1(0 + tf | g)", {"family": "poisson"}),
    "pois_ou": ("sim_cov", "cnt ~ trt + x + ou(0 + tirr | g)", {"family": "poisson"}),
    "pois_exp": ("sim_space", "cnt ~ x + exp(px + py | grp)", {"family": "poisson"}),
    "bin_ar1": ("sim_cov", "bin ~ trt + x + ar1(0 + tf | g)", {"family": "binomial"}),
    "pois_rr": ("sim_cov", "cnt ~ trt + x + rr(0 + tf | g, d = 1)", {"family": "poisson"}),
}


@pytest.mark.parametrize("name", CASES)
def test_fits_of_glmmtmb(name):
    data, formula, options = CASES[name]
    fit, ref = mm.glmm(formula, table(data), **options), REFERENCES[name]
    assert fit.converged
    assert fit.loglik == pytest.approx(ref["loglik"], rel=1e-10)
    beta = [value for key, value in ref["par"].items() if key.split(".")[0] == "beta"]
    assert fit.gamma == pytest.approx(np.array(beta), rel=1e-6, abs=1e-8)
    values = np.asarray(fit.variance_parameters()["estimate"])
    theta = [value for key, value in ref["par"].items() if key.split(".")[0] == "theta"]
    if name == "pois_rr":  # loadings, up to a common sign
        assert np.abs(values) == pytest.approx(np.abs(theta), rel=1e-4)
        return
    second = {"pois_exp": math.exp(theta[1]), "pois_ou": math.exp(theta[1])}
    rho = theta[1] / math.sqrt(1.0 + theta[1] ** 2)
    assert values == pytest.approx([math.exp(theta[0]), second.get(name, rho)], rel=1e-5)
    assert list(fit.se.values()) == pytest.approx(list(ref["se"].values()), rel=2e-4)


def test_a_standard_deviation_at_zero_is_a_bound():
    """Beyond zero lies no matrix of the structure: the minimum is on the bound."""
    rng = np.random.default_rng(7)
    data = {"g": np.repeat(np.arange(12), 5), "x": rng.normal(size=60)}
    data["f"] = np.tile(np.array(list("abcde")), 12)
    data["y"] = rng.poisson(np.exp(0.5 + 0.3 * data["x"] + 0.1 * rng.normal(size=60)))
    fit = mm.glmm("y ~ x + cs(0 + f | g)", data, family="poisson")
    sds = fit.theta[:5]
    assert fit.converged and (sds >= 0.0).all() and (sds == 0.0).any()
    _, gradient = fit.objective.value_and_gradient(fit.psi)
    slope = gradient[2:7]
    assert (slope[sds == 0.0] > -1e-6).all()
    assert np.abs(slope[sds > 0.0]).max() < 1e-4 and np.abs(gradient[:2]).max() < 1e-4


def test_limits_are_said():
    fit = small_fit()
    old = directional.EFFECTS
    try:
        directional.EFFECTS = 10
        with pytest.raises(OptionError, match="coarser grid"):
            with_structure(fit, make_covariance("ar1", 4), DirectionalLaplace)
    finally:
        directional.EFFECTS = old


@pytest.mark.parametrize("name", ["pois_ou", "pois_exp", "pois_rr"])
def test_save_and_load(name, tmp_path):
    data, formula, options = CASES[name]
    fit = mm.glmm(formula, table(data), **options)
    fit.save(tmp_path / "fit.mm")
    again = mm.load(tmp_path / "fit.mm")
    assert list(again.variance_parameters()["estimate"]) == list(fit.variance_parameters()["estimate"])


@pytest.mark.slow
def test_two_hundred_sites():
    rng = np.random.default_rng(1)
    k = 200
    xy = rng.uniform(size=(k, 2)) * 10
    D = np.sqrt(((xy[:, None] - xy) ** 2).sum(-1))
    b = np.linalg.cholesky(0.7 * np.exp(-D / 2) + 1e-9 * np.eye(k)) @ rng.normal(size=k)
    data = {"u": xy[:, 0], "v": xy[:, 1], "all": np.zeros(k), "y": rng.poisson(np.exp(0.5 + b))}
    fit = mm.glmm("y ~ 1 + exp(u + v | all)", data, family="poisson")
    assert fit.converged
    _, gradient = fit.objective.value_and_gradient(fit.psi)
    assert np.abs(gradient).max() < 1e-4
