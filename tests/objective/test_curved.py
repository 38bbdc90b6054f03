"""Structures that are not linear in theta in the LMM criterion: derivatives, solvers, saddle points."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.covariance import available_tags, make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import OptionError
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.optimize import minimize
from mixedmodels.solver.blocked import BlockedSolver
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.solver.grouped import GroupedSolver
from mixedmodels.solver.subsets import SubsetSolver
from mixedmodels.testing import assert_close, check_objective, example_structure, random_parameters


def design_of(structure, seed=0, m=9, second=False, weights=False, replicates=3):
    """Levels see some of the k columns several times; a covariate and, if asked for, a crossed factor."""
    rng = np.random.default_rng(seed)
    k = structure.k
    codes, columns = [], []
    for level in range(m):
        seen = rng.choice(k, size=rng.integers(max(1, k - 2), k + 1), replace=False)
        codes += [level] * (replicates * len(seen))
        columns += list(seen) * replicates
    codes, columns = np.array(codes, dtype=np.int32), np.array(columns)
    n = len(codes)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    factor = structure.factor(random_parameters(structure, seed))
    b = rng.normal(size=(m, k)) @ factor.T
    y = X @ [1.0, 0.5] + 1.5 * b[codes, columns] + rng.normal(size=n)
    term = RandomTerm(
        "g", tuple(f"c{j}" for j in range(k)), codes, list(range(m)), np.eye(k)[columns], structure
    )
    terms = (term,)
    if second:
        other = rng.integers(0, 7, n).astype(np.int32)
        other[:7] = np.arange(7)
        y = y + rng.normal(size=7)[other]
        terms = (
            term,
            RandomTerm("h", ("(Intercept)",), other, list(range(7)), None, make_covariance("us", 1)),
        )
    w = rng.uniform(0.5, 2.0, n) if weights else None
    return Design(y, X, ("(Intercept)", "x"), terms, None, w)


CURVED = [tag for tag in available_tags() if example_structure(tag, 4).clip == "curved"]


def theta_of(objective, seed):
    parts = [random_parameters(term.covariance, seed) for term in objective.design.terms]
    return np.concatenate(parts)


@pytest.mark.parametrize("tag", CURVED)
@pytest.mark.parametrize("reml", [True, False])
def test_derivatives(tag, reml):
    design = design_of(example_structure(tag, 4), weights=reml)
    objective = LMMObjective(design, GroupedSolver(design), reml)
    check_objective(objective, theta_of(objective, 3), tol=2e-6)


@pytest.mark.parametrize("tag", CURVED)
def test_solvers_agree(tag):
    design = design_of(example_structure(tag, 5, seed=1), weights=True)
    oracle = LMMObjective(design, DenseSolver(design), True)
    theta = theta_of(oracle, 1)
    value, gradient = oracle.value_and_gradient(theta)
    information = oracle.joint_information(theta, "observed")
    solution = oracle.solution(theta)
    for solver in (GroupedSolver, SubsetSolver, BlockedSolver):
        other = LMMObjective(design, solver(design), True)
        found = other.value_and_gradient(theta)
        assert found[0] == pytest.approx(value, rel=1e-11)
        assert_close(found[1], gradient, 1e-8, "gradient", atol=1e-9)
        assert_close(other.newton(theta)[2], oracle.newton(theta)[2], 1e-8, "newton")
        assert_close(other.joint_information(theta, "observed"), information, 1e-7, "observed information")
        moved = other.solution(theta)
        assert_close(moved.beta, solution.beta, 1e-9, "beta")
        assert_close(moved.b[0], solution.b[0], 1e-8, "b")


def test_derivatives_with_a_crossed_factor():
    design = design_of(example_structure("ar1", 5), second=True)
    objective = LMMObjective(design, BlockedSolver(design), True)
    check_objective(objective, theta_of(objective, 5), tol=2e-6)
    dense = LMMObjective(design, DenseSolver(design), True)
    a, b = (minimize(o, "newton", None, progress=False) for o in (objective, dense))
    assert a.converged and a.value == pytest.approx(b.value, rel=1e-10)


@pytest.mark.parametrize("tag", CURVED)
def test_a_search_ends_at_a_minimum(tag):
    design = design_of(example_structure(tag, 4, seed=2), seed=2, m=25)
    objective = LMMObjective(design, GroupedSolver(design), True)
    found = minimize(objective, "newton", None, progress=False)
    assert found.converged
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = np.clip(
            found.theta + 0.02 * rng.normal(size=len(found.theta)), objective.lower, objective.upper
        )
        assert objective.value(near) >= found.value - 1e-8
    at_truth = np.clip(random_parameters(design.terms[0].covariance, 2), objective.lower, objective.upper)
    other = minimize(objective, "newton", at_truth, progress=False)
    assert found.value <= other.value + 1e-6


@pytest.mark.parametrize("order", ["rows", "levels", "columns"])
def test_order_does_not_matter(order):
    structure = make_covariance("cs", 4)
    design = design_of(structure, seed=4)
    objective = LMMObjective(design, GroupedSolver(design), True)
    best = minimize(objective, "newton", None, progress=False)
    term = design.terms[0]
    rng = np.random.default_rng(1)
    y, X, codes, Z = design.y, design.X, term.codes, term.Z
    if order == "rows":
        p = rng.permutation(design.n)
        y, X, codes, Z = y[p], X[p], codes[p], Z[p]
    elif order == "levels":
        codes = rng.permutation(term.m).astype(np.int32)[codes]
    else:
        Z = Z[:, [2, 0, 3, 1]]
    moved = Design(y, X, design.x_names, (RandomTerm("g", term.names, codes, term.levels, Z, structure),))
    other = minimize(LMMObjective(moved, GroupedSolver(moved), True), "newton", None, progress=False)
    assert other.value == pytest.approx(best.value, rel=1e-10)


@pytest.mark.parametrize("tag", ["ar1", "homcs", "car1", "exp", "cs"])
def test_without_variance_the_standard_deviation_is_exactly_zero(tag):
    structure = example_structure(tag, 3)
    rng = np.random.default_rng(12)
    codes = np.repeat(np.arange(30, dtype=np.int32), 6)
    columns = np.tile([0, 1, 2, 0, 1, 2], 30)
    y = rng.normal(size=180)
    cell = codes * 3 + columns
    y -= (np.bincount(cell, y) / np.bincount(cell))[cell]  # equal means in all cells: nothing left to explain
    term = RandomTerm("g", ("a", "b", "c"), codes, list(range(30)), np.eye(3)[columns], structure)
    design = Design(y, np.ones((180, 1)), ("(Intercept)",), (term,))
    objective = LMMObjective(design, GroupedSolver(design), False)
    found = minimize(objective, "newton", None, progress=False)
    assert found.converged
    sds = found.theta[: structure.n_sd]
    assert np.all(sds == 0.0)
    natural = structure.natural(found.theta, ("a", "b", "c"), 1.0)
    assert np.isnan(natural.values[-1])


def test_zero_is_left_when_it_is_a_saddle_point():
    design = design_of(make_covariance("homcs", 3), seed=6, m=20)
    objective = LMMObjective(design, GroupedSolver(design), True)
    best = minimize(objective, "newton", None, progress=False)
    found = minimize(objective, "newton", np.zeros(2), progress=False)
    assert found.value == pytest.approx(best.value, rel=1e-9)


@pytest.mark.parametrize("rho", [1.0, -0.5])
def test_correlations_at_their_ends(rho):
    """All effects of a level alike, or summing to zero: the correlation is the end of its range."""
    rng = np.random.default_rng(3)
    m, k = 30, 3
    if rho > 0.0:
        b = np.repeat(rng.normal(size=(m, 1)), k, axis=1)
    else:
        b = rng.normal(size=(m, k))
        b -= b.mean(axis=1, keepdims=True)
    codes = np.repeat(np.arange(m, dtype=np.int32), 2 * k)
    columns = np.tile(np.repeat(np.arange(k), 2), m)
    noise = rng.normal(size=(m, k, 2))
    noise -= noise.mean(axis=2, keepdims=True)  # cell means are exactly the effects
    y = 2.0 * b[codes, columns] + noise.reshape(-1)
    structure = make_covariance("homcs", k)
    term = RandomTerm("g", ("a", "b", "c"), codes, list(range(m)), np.eye(k)[columns], structure)
    design = Design(y, np.ones((len(y), 1)), ("(Intercept)",), (term,))
    objective = LMMObjective(design, GroupedSolver(design), True)
    found = minimize(objective, "newton", None, progress=False)
    assert found.converged
    assert structure.natural(found.theta, ("a", "b", "c")).values[1] == pytest.approx(rho, abs=1e-12)


def test_what_needs_a_cone_is_refused():
    design = design_of(make_covariance("ar1", 3))
    objective = LMMObjective(design, GroupedSolver(design), True)
    for call in (objective.em_step, objective.ecme_step, objective.at_components):
        with pytest.raises(OptionError, match="not available for the structure 'ar1' of 'g'"):
            call(objective.start)
