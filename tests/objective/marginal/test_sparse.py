"""Sparse Laplace engine against the dense equations: rows that touch several levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from mixedmodels.covariance import make_covariance
from mixedmodels.design import GeneralisedDesign, LowRankCovariance, Precision, Predictor, RandomTerm
from mixedmodels.errors import OptionError
from mixedmodels.family import get_family
from mixedmodels.family.base import Observations
from mixedmodels.objective.marginal.blocked import BlockedLaplace
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.sparse import SparseLaplace
from mixedmodels.solver.low_rank_sparse import by_columns


def precision(rng, m):
    """A sparse precision of a chain with skips, and its log-determinant."""
    B = np.eye(m)
    for i in range(1, m):
        B[i, rng.integers(0, i)] -= 0.5
        B[i, rng.integers(0, i)] -= 0.3
    P = B.T @ B
    return Precision(sparse.csc_array(P), -float(np.linalg.slogdet(P)[1]))


def terms_of(kind, rng, n, m=14):
    """Random terms of a kind."""
    levels = tuple(map(str, range(m)))
    child = rng.integers(4, m, n)
    parent = rng.integers(0, 8, n)
    codes = np.column_stack([child, parent]).astype(np.int32)
    joint = RandomTerm("a", ("direct", "maternal"), codes, levels, None, make_covariance("us", 2))
    other = rng.integers(0, 6, n).astype(np.int32)
    crossed = RandomTerm("h", ("(Intercept)",), other, tuple("abcdef"), None, make_covariance("us", 1))
    if kind == "joint":
        return (joint,)
    if kind == "joint_missing":  # a parent that is not known
        codes = codes.copy()
        codes[::5, 1] = -1
        return (replace(joint, codes=codes),)
    if kind == "joint_slope":
        Z = np.column_stack([np.ones(n), rng.normal(size=n), np.ones(n)])
        wide = np.column_stack([child, child, parent]).astype(np.int32)
        return (RandomTerm("a", ("1", "x", "dam"), wide, levels, Z, make_covariance("us", 3)), crossed)
    if kind == "joint_diag":
        return (replace(joint, covariance=make_covariance("diag", 2)), crossed)
    if kind == "pedigree":
        return (replace(joint, precision=precision(rng, m)),)
    if kind == "pedigree_crossed":
        Z = np.column_stack([np.ones(n), rng.normal(size=n)])
        slope = replace(crossed, names=("1", "x"), Z=Z, covariance=make_covariance("us", 2))
        return (slope, replace(joint, precision=precision(rng, m)))
    if kind == "membership":
        members = np.zeros((n, m))
        for row in members:
            row[rng.choice(m, 3, replace=False)] = 1.0 / 3.0
        rows = sparse.csr_array(members)
        empty = np.zeros((n, 0), dtype=np.int32)
        one = RandomTerm("a", ("1",), empty, levels, None, make_covariance("us", 1), rows=rows)
        return (one, crossed)
    raise AssertionError(kind)


KINDS = (
    "joint",
    "joint_missing",
    "joint_slope",
    "joint_diag",
    "pedigree",
    "pedigree_crossed",
    "membership",
)


def generalised(kind, family="binomial", seed=1, n=70, weights=True, predictors=("conditional",), owner=None):
    rng = np.random.default_rng(seed)
    terms = terms_of(kind, rng, n)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    trials = None
    if family == "binomial":
        trials = rng.integers(1, 6, n).astype(float)
        y = rng.binomial(trials.astype(int), 0.4).astype(float)
    elif family == "gamma":
        y = rng.gamma(2.0, 1.0, n)
    elif family == "gaussian":
        y = np.exp(0.3 * rng.normal(size=n))
    else:
        y = rng.poisson(1.5, n).astype(float)
    w = rng.uniform(0.5, 2.0, n) if weights else None
    offset = 0.2 * rng.normal(size=n)
    parts = [Predictor(predictors[0], X, np.arange(2), offset)]
    names = ["a", "b"]
    for name in predictors[1:]:
        at = len(names)
        parts.append(Predictor(name, X, np.array([at, at + 1])))
        names += [f"{name}1", f"{name}2"]
    return GeneralisedDesign(
        Observations(y, trials, w), tuple(parts), tuple(names), terms, owner or (0,) * len(terms)
    )


def point(design, seed=0, scale=0.6):
    rng = np.random.default_rng(seed + 100)
    gamma = 0.2 * rng.normal(size=len(design.gamma_names))
    factors = []
    for term in design.terms:
        factor = np.zeros((term.k, term.k))
        for i, j, _ in term.covariance.entries.tolist():
            factor[i, j] = 0.3 * rng.normal() + (scale if i == j else 0.0)
        factors.append(factor)
    return gamma, factors


def close(found, wanted, rel=1e-9):
    scale = np.max(np.abs(wanted), initial=1.0)
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=rel * scale)


def check(design, family, scale=0.6, oracle=None):
    gamma, factors = point(design, scale=scale)
    dense = DenseLaplace(design if oracle is None else oracle, family)
    engine = SparseLaplace(design, family)
    wanted, found = dense.evaluate(gamma, factors, 2), engine.evaluate(gamma, factors, 2)
    assert found.value == pytest.approx(wanted.value, rel=1e-11)
    close(found.gradient, wanted.gradient)
    close(found.hessian, wanted.hessian)
    close(found.penalised, wanted.penalised)
    assert engine.evaluate(gamma, factors, 0).value == found.value
    close(engine.penalised_hessian(gamma, factors), wanted.penalised)
    a, b = engine.modes(gamma, factors), dense.modes(gamma, factors)
    assert a.logdet == pytest.approx(b.logdet, rel=1e-9, abs=1e-9)
    close(a.eta, b.eta)
    close(engine.predictor_variances(gamma, factors), dense.predictor_variances(gamma, factors))
    if oracle is None:
        for t in range(len(design.terms)):
            close(a.b[t], b.b[t])
            close(a.u[t], b.u[t])
            close(
                engine.conditional_covariance(gamma, factors, t),
                dense.conditional_covariance(gamma, factors, t),
            )
    return engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_derivatives(kind, family):
    check(generalised(kind, family), get_family(family))


@pytest.mark.parametrize("kind", ["joint", "pedigree_crossed", "membership"])
def test_two_predictors(kind):
    both = ("conditional", "dispersion")
    check(generalised(kind, "gamma", predictors=both), get_family("gamma", "log"), 0.3)
    check(generalised(kind, "gaussian", predictors=both), get_family("gaussian", "log"), 0.3)


@pytest.mark.parametrize(("kind", "owner"), [("joint_slope", (0, 1)), ("pedigree_crossed", (1, 0))])
def test_terms_of_two_predictors(kind, owner):
    design = generalised(kind, "gamma", predictors=("conditional", "dispersion"), owner=owner)
    check(design, get_family("gamma", "log"), 0.2)


def test_derivatives_in_batches(monkeypatch):
    monkeypatch.setattr("mixedmodels.objective.marginal.sparse_algebra._BATCH", 5)
    check(generalised("pedigree_crossed"), get_family("binomial"))


@pytest.mark.parametrize("kind", ["joint_slope", "membership"])
def test_dense_products(kind, monkeypatch):
    # where rows touch very many levels
    monkeypatch.setattr("mixedmodels.objective.marginal.row_pairs._PAIRS", 1.0)
    both = ("conditional", "dispersion")
    design = generalised(kind, "gamma", predictors=both, owner=(0, 1))
    engine = check(design, get_family("gamma", "log"), 0.2)
    assert engine.layout._pairs.dense


def test_too_many_products(monkeypatch):
    monkeypatch.setattr("mixedmodels.objective.marginal.row_pairs._PAIRS", 1.0)
    monkeypatch.setattr("mixedmodels.objective.marginal.row_pairs._DENSE", 100.0)
    with pytest.raises(OptionError, match="a factor of the covariance with fewer"):
        SparseLaplace(generalised("membership"), get_family("binomial"))


@pytest.mark.parametrize("kind", ["joint_slope", "pedigree"])
def test_singular_factors(kind):
    # variances of zero and correlations of one: nothing may divide by a factor
    design = generalised(kind)
    gamma, factors = point(design)
    for factor in factors:
        factor[-1, -1] = 0.0
    wanted = DenseLaplace(design, get_family("binomial")).evaluate(gamma, factors, 2)
    found = SparseLaplace(design, get_family("binomial")).evaluate(gamma, factors, 2)
    assert found.value == pytest.approx(wanted.value, rel=1e-11)
    close(found.gradient, wanted.gradient)
    close(found.hessian, wanted.hessian)


def test_one_level_is_the_blocked_engine():
    # the same model by both engines
    rng = np.random.default_rng(3)
    design = generalised("pedigree_crossed")
    crossed, joint = design.terms
    one = replace(joint, names=("1",), codes=joint.codes[:, 0].copy(), covariance=make_covariance("us", 1))
    design = replace(design, terms=(crossed, one))
    gamma, factors = point(design)
    family = get_family("binomial")
    sparse_engine, blocked = SparseLaplace(design, family), BlockedLaplace(design, family)
    wanted, found = blocked.evaluate(gamma, factors, 2), sparse_engine.evaluate(gamma, factors, 2)
    assert found.value == pytest.approx(wanted.value, rel=1e-12)
    close(found.gradient, wanted.gradient)
    close(found.hessian, wanted.hessian)
    sparse_engine.exact_hessian = blocked.exact_hessian = False
    model, other = blocked.newton(gamma, factors), sparse_engine.newton(gamma, factors)
    close(other.hessian, model.hessian)
    E = np.zeros((2, 2))
    E[0, 0] = E[1, 1] = 1.0
    close(sparse_engine.joint_mode(gamma, factors, E), blocked.joint_mode(gamma, factors, E))
    start = [rng.normal(size=(term.m, term.k)) for term in design.terms]
    sparse_engine.begin(start)
    assert sparse_engine.evaluate(gamma + 3.0, factors).value == pytest.approx(
        blocked.evaluate(gamma + 3.0, factors).value, rel=1e-10
    )


def test_symmetry_of_columns():
    # direct and maternal effects in the other order are the same model
    design = generalised("pedigree")
    gamma, (factor,) = point(design)
    Sigma = factor @ factor.T
    term = design.terms[0]
    turned = replace(design, terms=(replace(term, codes=np.ascontiguousarray(term.codes[:, ::-1])),))
    family = get_family("binomial")
    a = SparseLaplace(design, family).evaluate(gamma, [np.linalg.cholesky(Sigma)]).value
    b = SparseLaplace(turned, family).evaluate(gamma, [np.linalg.cholesky(Sigma[::-1, ::-1])]).value
    assert a == pytest.approx(b, rel=1e-12)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("crossed", [False, True])
def test_covariance_by_its_factor(k, crossed):
    # Z (W kron I) with independent columns is the same model
    rng = np.random.default_rng(5)
    design = generalised("pedigree_crossed")
    n, m = design.n, 9
    codes = rng.integers(0, m, n).astype(np.int32)
    Z = None if k == 1 else np.column_stack([np.ones(n), rng.normal(size=n)])
    W = 0.5 * rng.normal(size=(m, 4))
    levels = tuple(map(str, range(m)))
    names = ("1", "x")[:k]
    low = RandomTerm("g", names, codes, levels, Z, make_covariance("us", k), LowRankCovariance(W))
    terms = (low, design.terms[0]) if crossed else (low,)
    design = replace(design, terms=terms, term_predictor=(0,) * len(terms))
    oracle = replace(design, terms=tuple([by_columns(term, n)[0] for term in terms]))
    engine = check(design, get_family("binomial"), oracle=oracle)
    gamma, factors = point(design)
    dense = DenseLaplace(oracle, get_family("binomial"))
    b = dense.modes(gamma, factors).b[0]
    close(engine.modes(gamma, factors).b[0], W @ b)
    H = np.linalg.inv(dense._mode(gamma, factors)[3][: 4 * k, : 4 * k]) if not crossed else None
    if H is not None:
        L = np.kron(W, np.eye(k)) @ np.kron(np.eye(4), factors[0])
        V = (L @ H @ L.T).reshape(m, k, m, k)
        close(engine.conditional_covariance(gamma, factors, 0), np.array([V[i, :, i] for i in range(m)]))


def test_chosen_and_described():
    design = generalised("joint")
    engine = choose_marginal(design, get_family("binomial"))
    assert isinstance(engine, SparseLaplace)
    assert "sparse Laplace: terms 14 x 2" in engine.describe()
    assert isinstance(choose_marginal(design, get_family("binomial"), solver="sparse"), SparseLaplace)
    with pytest.raises(OptionError, match="several levels"):
        choose_marginal(design, get_family("binomial"), solver="blocked")
    with pytest.raises(OptionError, match="nagq"):
        choose_marginal(design, get_family("binomial"), nagq=5)
    with pytest.raises(OptionError, match="information"):
        choose_marginal(design, get_family("binomial"), information="expected")
