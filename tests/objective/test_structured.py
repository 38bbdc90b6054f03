"""Models with structured residuals: criterion and derivatives against dense formulas and differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.solver.covariance_oracle import dense_oracle
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.testing import random_design

from .dense_residual import DenseResidual

CROSSED = [
    "two_crossed",
    "nested",
    "crossed_slopes",
    "three_nested",
    "precision_crossed",
    "shared",
    "no_fixed",
]
KINDS = ["one_scalar", "one_slope", "diag", "homdiag", "same_group_two_terms", "one_balanced", "one_offset"]


def structured_design(seed, kind, n=60, groups="levels"):
    """A random design with AR(1) residuals within levels (or across them) and three variances."""
    design = random_design(seed, kind, n)
    rng = np.random.default_rng(seed)
    n = design.n
    if groups == "levels":
        codes = design.terms[0].codes if design.terms else rng.integers(0, 8, n)
    else:
        codes = rng.integers(0, 8, n)
    times = np.zeros(n)
    for level in np.unique(codes):
        rows = np.flatnonzero(codes == level)
        times[rows] = rng.permutation(2 * rows.shape[0])[: rows.shape[0]]
    residual = DenseResidual(codes, times, rng.integers(0, 3, n))
    return replace(design, residual=residual)


def without_terms(design):
    return replace(design, terms=(), theta_index=None)


def random_psi(objective, seed):
    rng = np.random.default_rng(100 + seed)
    theta = np.where(np.isfinite(objective.lower), 0.3, 0.0) + rng.uniform(0, 0.5, objective.n_theta)
    theta[objective.n_random] = 0.6
    return theta


def oracle_at(objective, psi):
    theta, phi = objective.split(psi)
    return dense_oracle(
        objective.design,
        objective.residual.at(phi),
        objective.n_phi,
        objective.factors(psi),
        objective._map.derivatives(theta),
        objective.reml,
        objective.sigma_fixed,
    )


def differences(function, x, h=1e-3):
    """Derivatives by central differences of order eight."""
    weights = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])
    out = []
    for i in range(len(x)):
        total = 0.0
        for k, w in enumerate(weights, start=1):
            step = np.zeros(len(x))
            step[i] = k * h
            total = total + w * (function(x + step) - function(x - step)) / h
        out.append(total)
    return np.array(out)


def close(a, b, tolerance=1e-9):
    scale = max(float(np.abs(np.asarray(b)).max(initial=0.0)), 1e-300)
    np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("kind", ["one_slope", None])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("sigma", [None, 1.3])
def test_oracle_against_differences(kind, reml, sigma):
    """The oracle's own derivatives are those of its value."""
    design = structured_design(3, kind or "one_slope")
    objective = StructuredObjective(design if kind else without_terms(design), reml, sigma)
    psi = random_psi(objective, 1)
    oracle = oracle_at(objective, psi)
    close(oracle.gradient, differences(lambda x: oracle_at(objective, x).value, psi), 1e-8)
    close(oracle.information(), differences(lambda x: oracle_at(objective, x).gradient, psi), 1e-8)


@pytest.mark.parametrize("kind", [*KINDS, None])
@pytest.mark.parametrize("reml", [True, False])
def test_everything_against_the_oracle(kind, reml):
    """Criterion, gradient, informations, estimates and fixed products: engine and dense formulas."""
    for seed, sigma in ((1, None), (2, 0.8)):
        design = structured_design(seed, kind or "one_slope")
        check_against_oracle(design if kind else without_terms(design), reml, sigma, seed)


def check_against_oracle(design, reml, sigma, seed):
    objective = StructuredObjective(design, reml, sigma)
    psi = random_psi(objective, seed)
    oracle = oracle_at(objective, psi)
    value, gradient = objective.value_and_gradient(psi)
    close(value, oracle.value, 1e-12)
    close(gradient, oracle.gradient)
    for which in ("average", "expected", "observed"):
        close(objective.joint_information(psi, which), oracle.joint_information(which))
        close(objective.information(psi, which), oracle.information(which))
    solution = objective.solution(psi)
    close(solution.beta, oracle.beta)
    close(solution.vcov_unscaled, oracle.vcov_unscaled)
    close(solution.pwrss, oracle.pwrss)
    for orthonormal in (False, True):
        fixed = objective.fixed_products(psi, orthonormal=orthonormal)
        basis = np.eye(design.p) if fixed.basis is None else fixed.basis
        one, two = oracle.fixed_products()
        close(fixed.XVX, basis.T @ oracle.XVX @ basis)
        close(fixed.HDH, basis.T @ one @ basis)
        close(fixed.HDKDH, basis.T @ two @ basis)
    _, changes = objective.information_and_changes(psi)
    close(changes, differences(lambda x: objective.solution(x).vcov_unscaled, psi), 1e-7)


@pytest.mark.parametrize("kind", CROSSED)
@pytest.mark.parametrize("groups", ["levels", "across"])
def test_crossed_against_the_oracle(kind, groups):
    """The sparse engine: residual groups inside the levels of one factor, or running across all of them."""
    for seed, reml, sigma in ((1, True, None), (2, False, 0.8)):
        check_against_oracle(structured_design(seed, kind, groups=groups), reml, sigma, seed)


@pytest.mark.parametrize("kind", ["one_slope", "precision_slope"])
def test_groups_across_the_levels_of_one_factor(kind):
    check_against_oracle(structured_design(4, kind, groups="across"), True, None, 4)


@pytest.mark.parametrize("kind", ["one_slope", "one_scalar", "two_crossed", "nested"])
@pytest.mark.parametrize("groups", ["levels", "across"])
def test_random_effects_and_whitened_model(kind, groups):
    """At a given phi the model is an ordinary one in whitened rows."""
    design = structured_design(5, kind, groups=groups)
    objective = StructuredObjective(design)
    psi = random_psi(objective, 5)
    theta, phi = objective.split(psi)
    inner = objective.at_phi(psi)
    close(inner.value(theta) + objective.residual.at(phi).logdet, objective.value(psi), 1e-12)
    ours, theirs = objective.solution(psi), inner.solution(theta)
    for a, b in zip(ours.b, theirs.b, strict=True):
        close(a, b)
    close(ours.beta, theirs.beta)


def test_newton_matrix_is_positive_semidefinite():
    for seed in range(6):
        objective = StructuredObjective(structured_design(seed, "one_slope"))
        for psi in (objective.start, random_psi(objective, seed)):
            value, gradient, H = objective.newton(psi)
            assert np.linalg.eigvalsh(H).min() > -1e-10 * np.abs(H).max()
            close(value, objective.value(psi), 1e-14)
            close(gradient, objective.value_and_gradient(psi)[1])


def test_independent_residuals_are_the_ordinary_model():
    """With rho = 0 and equal variances the criterion is that of LMMObjective."""
    design = structured_design(7, "one_slope")
    objective = StructuredObjective(design)
    plain = replace(design, residual=None)
    ordinary = LMMObjective(plain, DenseSolver(plain))
    theta = random_psi(objective, 7)[: objective.n_random]
    psi = np.concatenate([theta, np.zeros(objective.n_phi)])
    close(objective.value(psi), ordinary.value(theta), 1e-12)
    close(objective.value_and_gradient(psi)[1][: theta.shape[0]], ordinary.value_and_gradient(theta)[1])


def test_rows_in_any_order():
    """The order of the rows does not matter."""
    design = structured_design(8, "one_slope")
    order = np.random.default_rng(0).permutation(design.n)
    r = design.residual
    moved = replace(
        design,
        y=design.y[order],
        X=design.X[order],
        terms=tuple(replace(t, codes=t.codes[order], Z=t.Z[order]) for t in design.terms),
        residual=None,
    )
    again = DenseResidual(r.codes[order], np.zeros(design.n), r._strata[order])
    again._lag = r._lag[np.ix_(order, order)]
    a, b = StructuredObjective(design), StructuredObjective(replace(moved, residual=again))
    psi = random_psi(a, 3)
    close(a.value(psi), b.value(psi), 1e-12)
    close(a.value_and_gradient(psi)[1], b.value_and_gradient(psi)[1])


REAL = [
    "ar1(t | g) * varident(s)",
    "car1(u | g)",
    "cs(1 | g)",
    "us(v | g)",
    "arma(t | g, p=1, q=1)",
    "exp(u | g, nugget=True) * varpower(w)",
    "loglin(w)",
]


@pytest.mark.parametrize("residual", REAL)
@pytest.mark.parametrize("random", ["", " + (x | g)", " + (1 | g) + (1 | h)"])
def test_real_structures_from_a_start_without_correlation(residual, random):
    """The structures of the package in every engine, first at their start, where W may have zeros."""
    from mixedmodels.frame import build

    rng = np.random.default_rng(4)
    g, t = np.repeat(np.arange(12), 5), np.tile(np.arange(5), 12)
    data = {
        "y": rng.normal(size=60),
        "x": rng.normal(size=60),
        "g": g,
        "h": rng.integers(0, 6, 60),
        "t": t,
        "u": t + 0.1 * rng.random(60),
        "v": t.astype(str),
        "w": 1.0 + rng.random(60),
        "s": np.where(rng.random(60) < 0.5, "a", "b"),
    }
    objective = StructuredObjective(build("y ~ x" + random, data, residual=residual).design)
    start = objective.start
    start[: objective.n_random] = random_psi(objective, 2)[: objective.n_random]
    for shift in (0.0, 0.3, 0.0):
        psi = start.copy()
        psi[objective.n_random :] += shift
        oracle = oracle_at(objective, psi)
        value, gradient = objective.value_and_gradient(psi)
        close(value, oracle.value, 1e-11)
        close(gradient, oracle.gradient, 1e-8)
        close(objective.joint_information(psi, "observed"), oracle.joint_information("observed"), 1e-8)
