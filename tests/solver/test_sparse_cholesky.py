"""Sparse Cholesky: against dense algebra on random patterns, arrows, grids, hubs and pedigrees; bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mixedmodels.errors import SolverError
from mixedmodels.solver.sparse_cholesky import SparseCholesky


def forced(cut=-1, threads=1):
    """SparseCholesky with a forced head and number of threads."""
    return type("Forced", (SparseCholesky,), {"_cut": cut, "_threads": threads})


def random_matrix(seed, n, density):
    B = sparse.random_array((n, n), density=density, rng=np.random.default_rng(seed))
    return sparse.csc_array(B @ B.T + 0.5 * sparse.eye_array(n))


def arrow(n):
    far = np.arange(1, n)
    corner = sparse.csc_array((np.ones(n - 1), (far, np.zeros(n - 1, dtype=int))), shape=(n, n))
    return sparse.csc_array(corner + corner.T + sparse.diags_array(np.r_[2.0 * n, np.full(n - 1, 2.0)]))


def grid(side):
    line = sparse.diags_array(
        [-np.ones(side - 1), 2.0 * np.ones(side), -np.ones(side - 1)], offsets=[-1, 0, 1]
    )
    eye = sparse.eye_array(side)
    return sparse.csc_array(
        sparse.kron(line, eye) + sparse.kron(eye, line) + 0.01 * sparse.eye_array(side**2)
    )


def hubs(seed, n, count):
    """A sparse matrix in which a few vertices are adjacent to most of the others."""
    rng = np.random.default_rng(seed)
    B = sparse.random_array((n, n), density=2.0 / n, rng=rng).tolil()
    for j in rng.choice(n, count, replace=False):
        B[:, [j]] = rng.normal(size=(n, 1)) * (rng.random((n, 1)) < 0.8)
    half = sparse.csc_array(B)
    pattern = half + half.T
    return sparse.csc_array(pattern + sparse.diags_array(abs(pattern).sum(axis=1) + 1.0))


def pedigree_precision(n, generations, seed=0, sires=0.02):
    """``A^{-1}`` of a pedigree of discrete generations, inbreeding left out of the Mendelian variances."""
    rng = np.random.default_rng(seed)
    per = n // generations
    sire, dam = np.full(n, -1), np.full(n, -1)
    for g in range(1, generations):
        before = rng.permutation(np.arange((g - 1) * per, g * per))
        fathers = before[: max(1, int(per * sires))]
        mothers = before[len(fathers) : len(fathers) + per // 2]
        own = slice(g * per, n if g == generations - 1 else (g + 1) * per)
        size = len(range(n)[own])
        sire[own], dam[own] = rng.choice(fathers, size), rng.choice(mothers, size)
    variance = 1.0 - 0.25 * ((sire >= 0).astype(float) + (dam >= 0))
    every, s, d = np.arange(n), sire >= 0, dam >= 0
    rows = np.r_[every, every[s], every[d]]
    columns = np.r_[every, sire[s], dam[d]]
    values = np.r_[np.ones(n), np.full(s.sum() + d.sum(), -0.5)]
    T = sparse.csc_array((values, (rows, columns)), shape=(n, n))
    return sparse.csc_array(T.T @ sparse.diags_array(1.0 / variance) @ T), float(np.log(variance).sum())


MATRICES = {
    "one": lambda: random_matrix(0, 1, 1.0),
    "diagonal": lambda: sparse.csc_array(sparse.diags_array(np.arange(1.0, 9.0))),
    "tiny": lambda: random_matrix(1, 5, 0.5),
    "random": lambda: random_matrix(2, 300, 0.01),
    "denser": lambda: random_matrix(3, 200, 0.2),
    "arrow": lambda: arrow(600),
    "grid": lambda: grid(21),
    "hubs": lambda: hubs(4, 700, 4),
    "pedigree": lambda: sparse.csc_array(pedigree_precision(500, 5)[0] + sparse.eye_array(500)),
}


@pytest.mark.parametrize("cut", [-1, 0, 10, 10**6])
@pytest.mark.parametrize("name", MATRICES)
def test_matches_dense_algebra(name, cut):
    S = MATRICES[name]()
    n = S.shape[0]
    dense = S.toarray()
    inverse = np.linalg.inv(dense)
    factor = forced(cut)(S)
    size = np.abs(inverse).max()
    B = np.random.default_rng(1).normal(size=(n, 70))
    assert np.abs(factor.solve(B) - inverse @ B).max() < 1e-11 * size * n
    assert np.abs(factor.solve(B[:, 0]) - inverse @ B[:, 0]).max() < 1e-11 * size * n
    half = factor.half_solve(B)
    assert np.abs(half.T @ half - B.T @ inverse @ B).max() < 1e-10 * size * n
    back = factor.half_solve(np.eye(n), transposed=True)
    assert np.abs(back @ back.T - inverse).max() < 1e-11 * size
    assert factor.logdet == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-11, abs=1e-11)
    selected = factor.selected_inverse()
    stored = sparse.csc_array((np.ones_like(S.data), S.indices, S.indptr), shape=S.shape).toarray() > 0
    assert np.abs(selected.toarray() - inverse)[stored].max() < 1e-11 * size
    assert selected.nnz == S.nnz
    assert np.abs(factor.inverse_diagonal() - np.diag(inverse)).max() < 1e-11 * size
    assert np.array_equal(np.sort(factor.order), np.arange(n))


def test_fill_stays_small_where_an_order_without_fill_exists():
    n = 5000
    assert SparseCholesky(arrow(n)).nnz < 2 * n + 500
    tridiagonal = sparse.diags_array([-np.ones(n - 1), 3.0 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    assert SparseCholesky(tridiagonal).nnz < 10 * n  # neighbours are merged into wider supernodes
    side = 60
    assert SparseCholesky(grid(side)).nnz < 0.02 * side**4  # dense would take half of side^4


def test_entries_of_the_factors_pattern_and_others():
    S = grid(9)
    factor = forced(10**6)(S)
    inverse = np.linalg.inv(S.toarray())
    rows, columns = np.meshgrid(np.arange(81), np.arange(81), indexing="ij")
    entries = factor.inverse_entries(rows, columns)
    known = ~np.isnan(entries)
    assert known[S.toarray() != 0].all()
    assert 0.1 < known.mean() < 0.9
    assert np.abs(entries - inverse)[known].max() < 1e-11
    assert np.array_equal(known, known.T)


def test_refactor_keeps_the_analysis():
    S = MATRICES["random"]()
    factor = SparseCholesky(S)
    order = factor.order
    other = S.copy()
    other.setdiag(other.diagonal() + 3.0)
    fresh = SparseCholesky(other)
    for values in (other, other.data):
        assert factor.refactor(values) is factor
        assert factor.logdet == fresh.logdet
        assert np.array_equal(factor.inverse_diagonal(), fresh.inverse_diagonal())
    assert np.array_equal(factor.order, order)


def test_the_number_of_threads_changes_nothing():
    S = grid(70)
    B = np.random.default_rng(0).normal(size=(4900, 100))
    one, two = forced(threads=1)(S), forced(threads=2)(S)
    assert one.logdet == two.logdet
    assert np.array_equal(one.solve(B), two.solve(B))
    assert np.array_equal(one.inverse_diagonal(), two.inverse_diagonal())


def test_a_permuted_matrix_gives_the_permuted_answers():
    S = MATRICES["hubs"]()
    order = np.random.default_rng(5).permutation(S.shape[0])
    moved = sparse.csc_array(S[order][:, order])
    a, b = SparseCholesky(S), SparseCholesky(moved)
    assert a.logdet == pytest.approx(b.logdet, rel=1e-13)
    assert np.abs(a.inverse_diagonal()[order] - b.inverse_diagonal()).max() < 1e-12


def test_pedigree_determinant_is_that_of_its_mendelian_variances():
    precision, logdet_covariance = pedigree_precision(20000, 10)
    factor = SparseCholesky(precision)
    assert factor.logdet == pytest.approx(-logdet_covariance, rel=1e-11)
    own = factor.inverse_diagonal()  # A has 1 + inbreeding on its diagonal, at least nearly 1
    assert own.min() > 0.99 and own.max() < 1.6


def test_no_columns_and_no_right_hand_sides():
    empty = SparseCholesky(sparse.csc_array((0, 0)))
    assert empty.logdet == 0.0 and empty.solve(np.zeros((0, 3))).shape == (0, 3)
    assert SparseCholesky(grid(3)).solve(np.zeros((9, 0))).shape == (9, 0)


@pytest.mark.parametrize("cut", [-1, 0, 10**6])
def test_not_positive_definite(cut):
    S = grid(12)
    S.setdiag(S.diagonal() - 1.0)
    with pytest.raises(SolverError, match="not positive definite: its smallest eigenvalue"):
        forced(cut)(S)
    factor = forced(cut)(grid(12))
    with pytest.raises(SolverError, match="not positive definite"):
        factor.refactor(S)
    with pytest.raises(SolverError, match="call refactor"):
        factor.solve(np.ones(144))
    factor.refactor(grid(12))
    assert np.isfinite(factor.solve(np.ones(144))).all()


def test_errors_name_the_place():
    S = grid(3)
    with pytest.raises(SolverError, match="scipy sparse matrix"):
        SparseCholesky(S.toarray())
    with pytest.raises(SolverError, match=r"shape \(3, 9\)"):
        SparseCholesky(S[:3])
    with pytest.raises(SolverError, match=r"element .* is missing; give both triangles"):
        SparseCholesky(sparse.tril(S))
    skew = S.copy()
    skew[1, 0] = -5.0
    with pytest.raises(SolverError, match=r"not symmetric: element \((1, 0|0, 1)\)"):
        SparseCholesky(skew)
    S[4, 4] = -1.0
    with pytest.raises(SolverError, match="diagonal element 4 is -1"):
        SparseCholesky(S)
    S[4, 4] = np.nan
    with pytest.raises(SolverError, match="not finite"):
        SparseCholesky(S)
    hole = sparse.csc_array(([1.0, 1.0], ([0, 2], [0, 2])), shape=(3, 3))
    with pytest.raises(SolverError, match="diagonal element 1 is 0"):
        SparseCholesky(hole)
    factor = SparseCholesky(grid(3))
    with pytest.raises(SolverError, match="another pattern"):
        factor.refactor(grid(4))
    with pytest.raises(SolverError, match="33 values are needed"):
        factor.refactor(np.ones(4))
    with pytest.raises(SolverError, match="need 9 rows"):
        factor.solve(np.ones(8))
    with pytest.raises(SolverError, match="not finite"):
        factor.solve(np.full(9, np.inf))
    with pytest.raises(SolverError, match=r"0 \.\. 8"):
        factor.inverse_entries(np.array([9]), np.array([0]))
