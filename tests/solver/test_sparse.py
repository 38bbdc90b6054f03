"""Solver for any sparse Z: against the dense oracle; rows of several levels; refreshed rows; traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, Precision, RandomTerm
from mixedmodels.errors import DataError, IdentifiabilityError, SolverError
from mixedmodels.solver.base import Breakdown
from mixedmodels.solver.blocked import BlockedSolver
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.solver.sparse import SparseSolver
from mixedmodels.solver.sparse_cholesky import SparseCholesky
from mixedmodels.testing import DESIGN_KINDS, check_solver, random_design, random_factors
from mixedmodels.testing.checks import check_solver_on


def forced(cut=-1, threads=1):
    """SparseSolver with a forced head and number of threads."""
    return type("Forced", (SparseSolver,), {"_cut": cut, "_threads": threads})


def band_precision(m):
    matrix = sparse.csc_array(
        sparse.diags_array(
            [np.full(m - 1, -0.45), np.full(m, 1.3), np.full(m - 1, -0.45)], offsets=[-1, 0, 1]
        )
    )
    return Precision(matrix, -float(np.linalg.slogdet(matrix.toarray())[1]))


def several_levels_design(seed, kind, known=False, n=120, m=18):
    """Direct and maternal effects, multiple membership with weights, or both; some rows without."""
    rng = np.random.default_rng(seed)
    levels = tuple(range(m))
    precision = band_precision(m) if known else None
    terms = []
    if kind in ("maternal", "both"):
        codes = np.column_stack([rng.integers(0, m, n), rng.integers(0, m, n)]).astype(np.int32)
        codes[rng.random(n) < 0.2, 1] = -1
        names = ("direct", "maternal")
        terms.append(RandomTerm("animal", names, codes, levels, None, make_covariance("us", 2), precision))
    if kind in ("membership", "both"):
        share = sparse.random_array((n, m), density=0.2, rng=rng, data_sampler=rng.uniform)
        none = np.zeros((n, 0), dtype=np.int32)
        cov = make_covariance("us", 1)
        terms.append(RandomTerm("school", ("1",), none, levels, None, cov, None, sparse.csr_array(share)))
    plain = rng.integers(0, 6, n).astype(np.int32)
    terms.append(RandomTerm("herd", ("1",), plain, tuple(range(6)), None, make_covariance("us", 1)))
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    weights = rng.uniform(0.5, 2.0, n) if kind == "both" else None
    return Design(3.0 + rng.normal(size=n), X, ("1", "x"), tuple(terms), weights=weights)


def whitened(seed, rho=0.6, n=90, series=9, m=(11, 7)):
    """AR(1)-whitened rows of two crossed factors and the unwhitened pieces."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(series), n // series)
    codes = [rng.integers(0, k, n) for k in m]
    y, X = rng.normal(size=n), np.column_stack([np.ones(n), rng.normal(size=n), 2000.0 + np.arange(n)])
    Z = [
        sparse.csr_array((np.ones(n), (np.arange(n), c)), shape=(n, k)) for c, k in zip(codes, m, strict=True)
    ]
    return y, X, Z, whitener(rho, g), g


def whitener(rho, g):
    first = np.r_[True, g[1:] != g[:-1]]
    scale = 1.0 / np.sqrt(1.0 - rho**2)
    W = sparse.diags_array(np.where(first, 1.0, scale)).tolil()
    for i in np.flatnonzero(~first):
        W[i, i - 1] = -rho * scale
    return sparse.csr_array(W)


@pytest.mark.parametrize("kind", DESIGN_KINDS)
def test_matches_the_oracle(kind):
    check_solver(forced(), [kind], [0, 1])


@pytest.mark.parametrize("cut", [0, 5, 10**6])
@pytest.mark.parametrize("kind", ["crossed_slopes", "precision_crossed", "three_nested"])
def test_matches_the_oracle_with_a_forced_head(kind, cut):
    check_solver(forced(cut), [kind], [2])


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("kind", ["maternal", "membership", "both"])
def test_rows_of_several_levels(kind, known):
    design = several_levels_design(1, kind, known)
    assert any(term.several_levels for term in design.terms)
    check_solver_on(forced()(design), design, 1, 1e-9, f"{kind}, known {known}")


def test_a_shared_level_of_direct_and_maternal_effects_adds_up():
    """A row whose dam is the animal itself has z = (1, 1) on one level, as an ordinary slope term."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 8, 70).astype(np.int32)
    cov = make_covariance("us", 2)
    wide = RandomTerm("g", ("d", "m"), np.column_stack([codes, codes]), tuple(range(8)), None, cov)
    plain = RandomTerm("g", ("d", "m"), codes, tuple(range(8)), np.ones((70, 2)), cov)
    X, y = np.ones((70, 1)), rng.normal(size=70)
    design = Design(y, X, ("1",), (plain,))
    check_solver_on(SparseSolver(replace(design, terms=(wide,))), design, 0, 1e-9, "same level")


def test_membership_split_over_one_level_is_an_ordinary_term():
    design = random_design(4, "two_crossed")
    terms = []
    for term in design.terms:
        rows = term.matrix(design.n)
        empty = np.zeros((design.n, 0), dtype=np.int32)
        terms.append(replace(term, codes=empty, Z=None, rows=rows, names=("(Intercept)",)))
    check_solver_on(SparseSolver(replace(design, terms=tuple(terms))), design, 0, 1e-9, "as rows")


def test_term_errors():
    design = several_levels_design(0, "both")
    animal, school, _ = design.terms
    bad = replace(animal, codes=np.full_like(animal.codes, 99))
    with pytest.raises(DataError, match=r"codes of 'animal' must lie in -1 \.\. 17"):
        SparseSolver(replace(design, terms=(bad,)))
    with pytest.raises(DataError, match="sparse Z of 'school' has shape"):
        SparseSolver(replace(design, terms=(replace(school, rows=school.rows[:, :5]),)))
    with pytest.raises(DataError, match="Z of 'animal' has shape"):
        SparseSolver(replace(design, terms=(replace(animal, Z=np.ones((design.n, 3))),)))


def dense_like(y, X, Z, ms):
    """A Design with the same whitened rows, for the dense oracle."""
    n = len(y)
    empty = np.zeros((n, 0), dtype=np.int32)
    terms = [
        RandomTerm(f"g{b}", ("1",), empty, tuple(range(m)), None, make_covariance("us", 1), None, z)
        for b, (z, m) in enumerate(zip(Z, ms, strict=True))
    ]
    return Design(y, X, tuple(f"x{j}" for j in range(X.shape[1])), tuple(terms))


def test_whitened_rows_and_refresh():
    y, X, Z, W, g = whitened(5)
    ms = [z.shape[1] for z in Z]
    places = [sparse.coo_array(abs(W) @ z) for z in Z]  # stored also where the value is 0

    def rows(rho):
        V = whitener(rho, g)
        full = [(V @ z).toarray() for z in Z]
        return (
            V @ y,
            V @ X,
            [
                sparse.csr_array((value[at.row, at.col], (at.row, at.col)), shape=at.shape)
                for value, at in zip(full, places, strict=True)
            ],
        )

    solver = SparseSolver.from_parts(*rows(0.0), [1, 1], ms)
    for rho in (0.0, 0.6, -0.3):
        solver.refresh(*rows(rho))
        design = dense_like(*rows(rho), ms)
        check_solver_on(solver, design, 1, 1e-8, f"rho {rho}")
    one_less = rows(0.6)[2]
    one_less[0] = sparse.csr_array(one_less[0][:, :-1])
    with pytest.raises(SolverError, match="Z of 'term 0' has shape"):
        solver.refresh(y, X, one_less)
    with pytest.raises(SolverError, match="another pattern"):
        solver.refresh(y, X, Z)
    with pytest.raises(SolverError, match="y and X must have shapes"):
        solver.refresh(y, X[:, :2], Z)


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("reml", [False, True])
def test_weighted_traces_are_those_of_the_joint_inverse(reml, singular):
    design = several_levels_design(7, "both", known=True, n=80, m=10)
    solver = SparseSolver(design)
    factors = random_factors(design, 3, singular)
    oracle = DenseSolver(design)
    Lambda = oracle._Lambda(factors).toarray()
    weights = np.sqrt(design.weights)
    Z, X = solver.Z.toarray(), design.X * weights[:, None]
    P = oracle._P.toarray()
    rng = np.random.default_rng(0)
    omegas = [np.diag(rng.normal(size=design.n)) for _ in range(3)]
    columns = np.hstack([Z @ Lambda, X]) if reml else Z @ Lambda
    joint = columns.T @ columns
    q = solver.q
    joint[:q, :q] += P
    inverse = np.linalg.inv(joint)
    expected = [np.trace(inverse @ columns.T @ omega @ columns) for omega in omegas]
    F = [sparse.csr_array(Z.T @ omega @ Z) for omega in omegas]
    G, H = [Z.T @ omega @ X for omega in omegas], [X.T @ omega @ X for omega in omegas]
    given = (G, H) if reml else (None, None)
    got = solver.weighted_traces(factors, F, *given)
    assert np.abs(got - expected).max() < 1e-9 * np.abs(expected).max()
    if reml:
        E = solver.projected_rows(factors)
        alone = solver.weighted_traces(factors, F)
        forms = np.array([np.trace(E.T @ omega @ E) for omega in omegas])
        assert np.abs(alone + forms - expected).max() < 1e-9 * np.abs(expected).max()
    indptr, indices = solver.pattern
    values = np.array(F[0].toarray()[np.repeat(np.arange(q), np.diff(indptr)), indices])
    assert solver.weighted_traces(factors, [values])[0] == pytest.approx(
        solver.weighted_traces(factors, F[:1])[0], rel=1e-12
    )


def test_weighted_traces_refuse_what_they_cannot_see():
    solver = SparseSolver(random_design(0, "two_crossed"))
    factors = random_factors(random_design(0, "two_crossed"), 0)
    with pytest.raises(SolverError, match=r"F has an entry \(0, 1\) outside the pattern"):
        solver.weighted_traces(factors, [sparse.csr_array(np.ones((solver.q, solver.q)))])
    with pytest.raises(SolverError, match="F has shape"):
        solver.weighted_traces(factors, [sparse.eye_array(3)])
    with pytest.raises(SolverError, match="both G and H"):
        solver.weighted_traces(factors, [solver.penalized.ZtZ], [np.zeros((solver.q, 3))])


def test_far_off_predictors_keep_their_digits():
    """Shifting a predictor by 2e8 changes nothing but the intercept."""
    design = random_design(2, "crossed_slopes")
    moved = design.X.copy()
    moved[:, 1] = np.round(moved[:, 1] * 2**10) / 2**10
    near = replace(design, X=moved)
    far = moved.copy()
    far[:, 1] += 2.0**27
    factors = random_factors(design, 1)
    a, b = SparseSolver(near), SparseSolver(replace(design, X=far))
    one, two = a.components(factors, 1), b.components(factors, 1)
    assert two.pwrss == pytest.approx(one.pwrss, rel=1e-10)
    for T, U in zip(one.T, two.T, strict=True):
        assert np.abs(T - U).max() < 1e-7 * np.abs(T).max()


def chain_precision(m):
    """``A^{-1}`` of m animals, each the child of two of the fifty before it."""
    rng = np.random.default_rng(0)
    child = np.arange(50, m)
    parents = [child - rng.integers(1, 26, m - 50), child - rng.integers(26, 51, m - 50)]
    rows, columns = np.r_[np.arange(m), child, child], np.r_[np.arange(m), *parents]
    values = np.r_[np.ones(m), np.full(2 * (m - 50), -0.5)]
    T = sparse.csc_array((values, (rows, columns)), shape=(m, m))
    variance = np.where(np.arange(m) < 50, 1.0, 0.5)
    return Precision(
        sparse.csc_array(T.T @ sparse.diags_array(1.0 / variance) @ T), float(np.log(variance).sum())
    )


def test_agrees_with_the_blocked_solver_on_a_pedigree():
    m = 2500
    rng = np.random.default_rng(1)
    codes = rng.permutation(m).astype(np.int32)
    term = RandomTerm("animal", ("1",), codes, range(m), None, make_covariance("us", 1), chain_precision(m))
    X = np.column_stack([np.ones(m), rng.normal(size=m)])
    design = Design(rng.normal(size=m), X, ("1", "x"), (term,))
    directions = [[np.eye(1)]]
    a, b = SparseSolver(design), BlockedSolver(design)
    for size in (0.0, 1e-30, 1e-4, 0.7, 3.0):
        factors = [np.array([[size]])]
        one, two = a.components(factors, 2, directions), b.components(factors, 2, directions)
        for name in ("logdet_L2", "logdet_RX2", "pwrss"):
            assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-11), name
        assert one.T[0] == pytest.approx(two.T[0], rel=1e-9)
        assert one.S[0] == pytest.approx(two.S[0], rel=1e-9)
        assert one.wpw == pytest.approx(two.wpw, rel=1e-9)
        first, second = a.conditional_covariance(factors, 0), b.conditional_covariance(factors, 0)
        assert np.abs(first - second).max() < 1e-10


@pytest.mark.parametrize("make", [SparseSolver, BlockedSolver])
def test_gradient_at_a_variance_of_zero_is_exact_and_needs_no_solves(make):
    """With lambda = 0, T is ``tr(A Z'Z)`` (ML): the sum of 1 + inbreeding over the records."""
    m = 20000
    known = chain_precision(m)
    codes = np.random.default_rng(2).permutation(m).astype(np.int32)
    term = RandomTerm("animal", ("1",), codes, range(m), None, make_covariance("us", 1), known)
    design = Design(np.random.default_rng(3).normal(size=m), np.ones((m, 1)), ("1",), (term,))
    solver = make(design)
    solver.work_limit = 0.0
    expected = SparseCholesky(known.matrix).inverse_diagonal().sum()
    for size in (0.0, 1e-200, 1e-12, 1e-9):
        got = solver.components([np.array([[size]])], 1, reml=False).T[0][0, 0]
        assert got == pytest.approx(expected, rel=1e-11), size
    near = [solver.components([np.array([[size]])], 1).T[0][0, 0] for size in (0.0009999999, 0.0010000001)]
    assert near[0] == pytest.approx(near[1], rel=1e-7)  # on both sides of the change of formula


@pytest.mark.parametrize("make", [SparseSolver, BlockedSolver])
@pytest.mark.parametrize("kind", ["crossed_slopes", "precision_crossed", "three_nested"])
def test_nearly_singular_factors(make, kind):
    """Factors of every distance from singularity, also with columns of very different sizes."""
    design = random_design(6, kind)
    oracle = DenseSolver(design)
    solver = make(design)
    # What the inner levels of nested factors leave is tiny: the blocked solver loses digits in a difference.
    rtol = 1e-6 if (make, kind) == (BlockedSolver, "three_nested") else 1e-9
    for tiny in (1e-3, 1e-5, 1e-8, 1e-12, 1e-40):
        factors = random_factors(design, 2)
        for factor in factors:
            factor[-1, -1] = tiny
            if len(factor) > 1:
                factor[0, 0] *= 100.0
        for reml in (True, False):
            got, want = (one.components(factors, 1, None, reml) for one in (solver, oracle))
            for b in range(len(factors)):
                assert np.abs(got.T[b] - want.T[b]).max() < rtol * np.abs(want.T[b]).max(), (tiny, b)


def test_errors_of_the_solver():
    design = random_design(0, "two_crossed")
    solver = SparseSolver(design)
    with pytest.raises(SolverError, match="1 factors given for 2 random terms"):
        solver.components([np.eye(1)])
    with pytest.raises(SolverError, match="the factor of term 'h' has shape"):
        solver.components([np.eye(1), np.eye(2)])
    with pytest.raises(Breakdown, match="not finite"):
        solver.components([np.eye(1), np.full((1, 1), np.nan)])
    with pytest.raises(Breakdown):
        solver.components([np.eye(1), np.full((1, 1), 1e200)])
    with pytest.raises(SolverError, match="order 2 need directions"):
        solver.components([np.eye(1), np.eye(1)], 2)
    twice = replace(design, X=np.column_stack([design.X, design.X[:, 0]]), x_names=(*design.x_names, "again"))
    with pytest.raises(IdentifiabilityError, match="again"):
        SparseSolver(twice)
    small = type("Small", (SparseSolver,), {"work_limit": 10.0})(design)
    with pytest.raises(SolverError, match=r"exact traces .* \(limit 1e\+01\)"):
        small.trace_products([np.eye(1), np.eye(1)], [[np.eye(1), None]])
    with pytest.raises(SolverError, match="one per term"):
        SparseSolver.from_parts(design.y, design.X, [], [1], [3])
    with pytest.raises(SolverError, match="precision of 'g' has shape"):
        SparseSolver(replace(design, terms=(replace(design.terms[0], precision=band_precision(5)),)))
