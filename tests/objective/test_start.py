"""Moment starts: the moment equations hold exactly in the mean, and the start is near the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import mixedmodels as mm
from mixedmodels.design import Precision
from mixedmodels.genetics import random_pedigree, simulate_trait
from mixedmodels.objective.start import crossed_moments, moment_start, ols_residual
from mixedmodels.solver.moments import conditional_components
from mixedmodels.testing import random_design


@pytest.mark.parametrize("kind", ["two_crossed", "nested", "three_crossed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_unbiased(kind, weighted):
    """The estimates are linear in r r', so their mean is the sum over the columns of any root of V."""
    design = random_design(3, kind)
    n = design.n
    w = np.random.default_rng(1).uniform(0.3, 3.0, n) if weighted else np.ones(n)
    true = np.array([*[0.7, 1.9, 0.4][: len(design.terms)], 2.2])
    V = np.diag(true[-1] / w)
    for term, variance in zip(design.terms, true[:-1], strict=True):
        V += variance * (term.codes[:, None] == term.codes)
    root = np.linalg.cholesky(V)
    codes, sizes = [t.codes for t in design.terms], [t.m for t in design.terms]
    mean = sum(crossed_moments(codes, sizes, root[:, j].copy(), w) for j in range(n))
    assert np.allclose(mean, true, rtol=1e-9)


def test_sparse_cells_give_the_same_moments():
    """Few rows for many possible cells: the other way of counting them."""
    rng = np.random.default_rng(2)
    n, sizes = 300, [90, 80]
    codes = [rng.integers(0, m, n) for m in sizes]
    codes = [np.unique(c, return_inverse=True)[1] for c in codes]
    sizes = [int(c.max()) + 1 for c in codes]
    w, r = rng.uniform(0.5, 2.0, n), rng.normal(size=n)
    assert sizes[0] * sizes[1] > 4 * n + 1024
    table = np.zeros(sizes)
    np.add.at(table, tuple(codes), w)
    got = crossed_moments(codes, sizes, r, w)
    W = w.sum()
    left = np.array(
        [
            [0.0, W - np.sum(table**2 / table.sum(1)[:, None]), n - sizes[0]],
            [W - np.sum(table**2 / table.sum(0)), 0.0, n - sizes[1]],
            [W - np.sum(table.sum(1) ** 2) / W, W - np.sum(table.sum(0) ** 2) / W, n - 1],
        ]
    )
    right = [
        w @ r**2 - np.sum(np.bincount(codes[0], w * r) ** 2 / table.sum(1)),
        w @ r**2 - np.sum(np.bincount(codes[1], w * r) ** 2 / table.sum(0)),
        w @ r**2 - (w @ r) ** 2 / W,
    ]
    assert np.allclose(got, np.linalg.solve(left, right), rtol=1e-8)


def test_moments_of_confounded_terms_are_refused():
    codes = np.arange(20) % 5
    assert crossed_moments([codes, codes.copy()], [5, 5], np.sin(np.arange(20.0)), np.ones(20)) is None


def test_least_squares_residual_with_and_without_intercept():
    design = random_design(1, "one_scalar")
    for X in (design.X, design.X[:, 1:], design.X[:, :0]):
        r = ols_residual(design.y + 1e6, X, None, np.ones(design.n))
        exact = design.y + 1e6
        if X.shape[1]:
            exact = exact - X @ np.linalg.lstsq(X, exact, rcond=None)[0]
        assert np.allclose(r, exact, rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("truth", [0.2, 1.0, 5.0])
def test_start_of_a_slope_model_is_near_the_truth(truth):
    rng = np.random.default_rng(3)
    design = random_design(3, "one_balanced", n=2000)
    term = design.terms[0]
    from mixedmodels.design import Design, RandomTerm

    codes = (np.arange(2000) % 200).astype(np.int32)
    term = RandomTerm("g", term.names, codes, tuple(range(200)), term.Z, term.covariance)
    b = truth * rng.normal(size=(200, 2))
    y = 3.0 + np.sum(term.Z * b[codes], axis=1) + rng.normal(size=2000)
    factor = moment_start(Design(y, design.X, design.x_names, (term,)))[0]
    sd = np.sqrt(np.diagonal(factor @ factor.T))
    assert np.all((sd > 0.5 * truth) & (sd < 2.0 * truth))
    fixed = moment_start(Design(y, design.X, design.x_names, (term,)), sigma=1.0)[0]
    assert np.all(np.abs(np.log(np.sqrt(np.diagonal(fixed @ fixed.T)) / truth)) < np.log(2.5))


@pytest.mark.parametrize("recorded", ["all", "some"])
def test_conditional_moments_of_a_pedigree_are_unbiased(recorded):
    """Without any element of A; animals with an unrecorded relative in A^{-1} are left out."""
    pedigree = random_pedigree(founders=30, generations=3, size=60, sires=8, seed=4)
    relationship = pedigree.additive()
    A, m = relationship.toarray(), len(pedigree.ids)
    Q = np.linalg.inv(A)
    precision = Precision(sparse.csc_array(np.where(abs(Q) > 1e-9, Q, 0.0)), 0.0)
    d = np.random.default_rng(5).integers(1, 4, m).astype(float)
    if recorded == "some":
        d[:20] = 0.0
    seen = d > 0
    root = np.linalg.cholesky(0.7 * A[np.ix_(seen, seen)] + np.diag(1.9 / d[seen]))
    total = np.zeros(2)
    for column in root.T:
        c = np.zeros(m)
        c[seen] = d[seen] * column
        total += conditional_components(precision, d, c)
    assert np.allclose(total, [0.7, 1.9], rtol=1e-9)


def test_conditional_moments_need_levels_with_complete_neighbourhoods():
    Q = sparse.csc_array(np.eye(100) * 2.0 + np.eye(100, k=1) * 0.5 + np.eye(100, k=-1) * 0.5)
    d = (np.arange(100) % 2).astype(float)
    assert conditional_components(Precision(Q, 0.0), d, np.ones(100)) is None
    assert conditional_components(None, np.ones(100), np.ones(100)) is None


@pytest.mark.parametrize("solver", ["blocked", "sparse"])
def test_an_animal_model_starts_from_them(solver):
    pedigree = random_pedigree(founders=100, generations=5, size=300, sires=20, seed=6)
    data = simulate_trait(pedigree, heritability=0.4, seed=7)
    fit = mm.lmm("y ~ 1 + (1 | individual)", data, known={"individual": pedigree}, solver=solver)
    precision = fit.design.terms[0].precision
    r = data["y"] - data["y"].mean()
    effect, error = conditional_components(precision, np.ones(r.size), r)
    assert np.isclose(fit.objective.start[0], np.sqrt(effect / error), rtol=1e-10)
