"""Sparse Laplace engine against the dense equations: rows that touch several levels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from mixedmodels.covariance import make_covariance
from mixedmodels.design import GeneralisedDesign, LowRankCovariance, Precision, Predictor, RandomTerm
from mixedmodels.family import get_family
from mixedmodels.family.base import Observations
from mixedmodels.objective.marginal.blocked import BlockedLaplace
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.sparse import SparseLaplace
from mixedmodels.objective.marginal.sparse_algebra import RowPairs
from mixedmodels.solver.low_rank_sparse import by_columns

NO_CODES = np.zeros((0, 0), dtype=np.int32)


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
        return (crossed if n < 0 else slope, replace(joint, precision=precision(rng, m)))
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
@pytest.mark.parametrize("family", ["binomial", "poisson", "gamma"])
def test_derivatives(kind, family):
    check(generalised(kind, family), get_family(family))


def test_gaussian_with_log_link():
    design = generalised("pedigree_crossed", "gaussian", predictors=("conditional", "dispersion"))
    check(design, get_family("gaussian", "log"), 0.3)
