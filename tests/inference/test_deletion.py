"""Deletion at fixed variance ratios against dense algebra on the rows that are left."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.inference.checks import deletion
from mixedmodels.solver.dense import random_matrix
from mixedmodels.testing import random_design
from mixedmodels.testing.designs import DESIGN_KINDS, random_factors


def dense_covariance(design, factors):
    """V of all rows, scaled by the square roots of their weights."""
    sqrt_w = None if design.weights is None else np.sqrt(design.weights)
    Z = random_matrix(design.terms, design.n, sqrt_w).toarray()
    V, first = np.eye(design.n), 0
    for term, factor in zip(design.terms, factors, strict=True):
        A = np.eye(term.m) if term.precision is None else np.linalg.inv(term.precision.matrix.toarray())
        own = Z[:, first : first + term.m * term.k]
        V += own @ np.kron(A, factor @ factor.T) @ own.T
        first += term.m * term.k
    return V


def scaled(design):
    root = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    y = design.y if design.offset is None else design.y - design.offset
    return design.X * root[:, None], y * root


def gls(V, X, y):
    inverse = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ inverse @ X)
    beta = C @ X.T @ inverse @ y
    r = y - X @ beta
    return beta, C, float(r @ inverse @ r), inverse @ r


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("kind", DESIGN_KINDS)
def test_rows_of_the_inverse(kind, singular):
    design = random_design(3, kind)
    factors = random_factors(design, 4, singular)
    inverse = np.linalg.inv(dense_covariance(design, factors))
    rows = deletion.row_inverse(design, factors)
    A = np.random.default_rng(0).normal(size=(design.n, 3))
    some = np.arange(5, 60)
    groups = some // 9
    same = groups[:, None] == groups
    np.testing.assert_allclose(rows.diagonal(), np.diagonal(inverse), atol=1e-12)
    np.testing.assert_allclose(rows.times(A), inverse @ A, atol=1e-11)
    np.testing.assert_allclose(rows.blocks(some, groups), inverse[np.ix_(some, some)] * same, atol=1e-12)
    np.testing.assert_allclose(
        rows.take(some).blocks(np.arange(20), np.zeros(20)), inverse[5:25, 5:25], atol=1e-12
    )


def test_a_large_rest_is_solved_sparse(monkeypatch):
    design = random_design(3, "crossed_slopes")
    factors = random_factors(design, 4)
    monkeypatch.setattr(deletion, "_DENSE_REST", 0)
    inverse = np.linalg.inv(dense_covariance(design, factors))
    rows = deletion.row_inverse(design, factors)
    np.testing.assert_allclose(rows.diagonal(), np.diagonal(inverse), atol=1e-12)
    np.testing.assert_allclose(rows.times(design.X), inverse @ design.X, atol=1e-11)
    np.testing.assert_allclose(rows.blocks(np.arange(9), np.zeros(9)), inverse[:9, :9], atol=1e-12)


@pytest.mark.parametrize(
    "kind", ["one_slope", "weights", "offset", "crossed_slopes", "three_nested", "precision"]
)
def test_deletion_is_the_fit_of_the_other_rows(kind):
    design = random_design(5, kind)
    factors = random_factors(design, 6)
    V = dense_covariance(design, factors)
    X, y = scaled(design)
    beta, C, rss, Py = gls(V, X, y)
    rows = deletion.row_inverse(design, factors)
    B = rows.times(X)
    codes = np.random.default_rng(1).integers(0, 9, design.n)
    found = {
        "row": (np.arange(design.n), deletion.delete_rows(rows.diagonal(), B, Py, beta, C, rss)),
        "group": (codes, deletion.delete_groups(rows, codes, 9, B, Py, beta, C, rss)),
    }
    p = design.p
    for labels, result in found.values():
        for j in (0, 3, 8):
            keep = labels != j
            b, C_U, rss_U, _ = gls(V[np.ix_(keep, keep)], X[keep], y[keep])
            d = beta - b
            np.testing.assert_allclose(result.beta[j], b, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(result.variances[j], np.diagonal(C_U), rtol=1e-8)
            assert result.rss[j] == pytest.approx(rss_U, rel=1e-9)
            assert result.removed[j] == (~keep).sum()
            assert result.cook[j] == pytest.approx(d @ np.linalg.solve(C, d) / p, rel=1e-6)
            assert result.mdffits[j] == pytest.approx(d @ np.linalg.solve(C_U, d) / p, rel=1e-6)
            assert result.determinant[j] == pytest.approx(np.linalg.det(C_U) / np.linalg.det(C), rel=1e-8)
            assert result.trace[j] == pytest.approx(np.trace(np.linalg.solve(C, C_U)), rel=1e-8)


def test_compared_fits_are_deletions():
    design = random_design(5, "two_crossed")
    factors = random_factors(design, 6)
    V = dense_covariance(design, factors)
    X, y = scaled(design)
    beta, C, rss, Py = gls(V, X, y)
    rows = deletion.row_inverse(design, factors)
    codes = np.arange(design.n) % 4
    direct = deletion.delete_groups(rows, codes, 4, rows.times(X), Py, beta, C, rss)
    fits = [gls(V[np.ix_(codes != j, codes != j)], X[codes != j], y[codes != j]) for j in range(4)]
    other = deletion.compare_fits(
        (beta, C), np.array([f[0] for f in fits]), np.array([f[1] for f in fits]), direct.rss, direct.removed
    )
    for name in ("variances", "cook", "mdffits", "determinant", "trace"):
        np.testing.assert_allclose(getattr(direct, name), getattr(other, name), rtol=1e-7, err_msg=name)


def test_rows_without_which_nothing_is_estimable_are_nan():
    rng = np.random.default_rng(2)
    design = random_design(5, "one_scalar")
    X = np.column_stack([design.X, np.arange(design.n) == 7])
    factors = random_factors(design, 6)
    V = dense_covariance(design, factors)
    beta, C, rss, Py = gls(V, X, rng.normal(size=design.n))
    rows = deletion.row_inverse(design, factors)
    B = rows.times(X)
    single = deletion.delete_rows(rows.diagonal(), B, Py, beta, C, rss)
    assert np.isnan(single.cook[7]) and np.isfinite(np.delete(single.cook, 7)).all()
    codes = np.arange(design.n) // 6
    grouped = deletion.delete_groups(rows, codes, codes.max() + 1, B, Py, beta, C, rss)
    assert np.isnan(grouped.cook[1]) and np.isfinite(np.delete(grouped.cook, 1)).all()
