"""Blocked solver: against the dense oracle on every kind of design, with head, tail and both; threads."""

from __future__ import annotations

import os

import numpy as np
import pytest
from mixedmodels.solver._kernels.blocked import BlockedEvaluator, BlockedStructure
from scipy import sparse

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, Precision, RandomTerm
from mixedmodels.solver.blocked import BlockedSolver, structure_arrays
from mixedmodels.testing import DESIGN_KINDS, SINGLE_FACTOR_KINDS, check_solver
from mixedmodels.testing.checks import check_solver_on

CROSSED_KINDS = [kind for kind in DESIGN_KINDS if kind not in SINGLE_FACTOR_KINDS]


def solver_with(cut=-1, threads=1):
    """BlockedSolver with a forced head and number of threads."""
    return type("Forced", (BlockedSolver,), {"_cut": cut, "_threads": threads})


def term(group, codes, k=1, rng=None, precision=None, m=None):
    codes = np.asarray(codes, dtype=np.int32)
    Z = None
    if k > 1:
        Z = np.ascontiguousarray(np.column_stack([np.ones(len(codes)), rng.normal(size=(len(codes), k - 1))]))
    names = tuple(f"z{i}" for i in range(k))
    levels = range(codes.max() + 1 if m is None else m)
    return RandomTerm(group, names, codes, levels, Z, make_covariance("us", k), precision)


def compact(codes):
    return np.unique(codes, return_inverse=True)[1].astype(np.int32)


def sparse_design(seed, n=420, sizes=(60, 50, 40), ks=(1, 1, 1), precision=None):
    """Three partially crossed factors, few rows a level: fill, multi-column supernodes and a dense end."""
    rng = np.random.default_rng(seed)
    terms = []
    base = rng.integers(0, sizes[0], n)
    for i, (m, k) in enumerate(zip(sizes, ks, strict=True)):
        codes = base if i == 0 else (base * m // sizes[0] + rng.integers(0, 4, n) * (rng.random(n) < 0.4)) % m
        codes = compact(codes)
        known = None
        if precision == i:
            levels = int(codes.max()) + 1
            band = sparse.diags_array(
                [np.full(levels - 1, -0.45), np.full(levels, 1.3), np.full(levels - 1, -0.45)],
                offsets=[-1, 0, 1],
            ).tocsc()
            known = Precision(band, -float(np.linalg.slogdet(band.toarray())[1]))
        terms.append(term("abc"[i], codes, k, rng, known))
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    return Design(rng.normal(size=n) + 3.0, X, ("1", "x"), tuple(terms))


def grid_design(seed, side=11):
    """Neighbouring levels share rows, so that the rest's graph is a grid: real fill in the head."""
    rng = np.random.default_rng(seed)
    index = np.arange(side * side).reshape(side, side)
    pairs = np.concatenate(
        [
            np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], 1),
            np.stack([index[:-1].ravel(), index[1:].ravel()], 1),
        ]
    )
    # each edge of the grid is one level of the leaf factor, seen once with either of its ends
    leaf = np.repeat(np.arange(len(pairs)), 2)
    X = np.ones((len(leaf), 1))
    return Design(rng.normal(size=len(leaf)), X, ("1",), (term("edge", leaf), term("node", pairs.ravel())))


@pytest.mark.parametrize("kind", DESIGN_KINDS)
def test_matches_the_oracle(kind):
    check_solver(solver_with(), [kind], [0, 1])


@pytest.mark.parametrize("cut", [0, 3, 1000])
@pytest.mark.parametrize("kind", CROSSED_KINDS)
def test_matches_the_oracle_with_a_forced_head(kind, cut):
    check_solver(solver_with(cut), [kind], [1])


@pytest.mark.parametrize("cut", [-1, 0, 8, 25, 1000])
@pytest.mark.parametrize("ks", [(1, 1, 1), (2, 1, 3)])
def test_sparse_three_factors(cut, ks):
    design = sparse_design(3, ks=ks)
    check_solver_on(solver_with(cut)(design), design, 3, 1e-8, f"cut {cut}, k {ks}")


@pytest.mark.parametrize("cut", [-1, 12, 1000])
def test_sparse_three_factors_with_precision(cut):
    design = sparse_design(4, sizes=(40, 30, 25), ks=(1, 2, 1), precision=1)
    check_solver_on(solver_with(cut)(design), design, 4, 1e-8, f"cut {cut}")


def test_every_factor_with_precision_leaves_no_leaf():
    rng = np.random.default_rng(0)
    n, m = 80, 15
    matrix = sparse.csc_array(
        np.eye(m) * 1.5 + np.diag(np.full(m - 1, -0.5), 1) + np.diag(np.full(m - 1, -0.5), -1)
    )
    known = Precision(matrix, -float(np.linalg.slogdet(matrix.toarray())[1]))
    codes = [np.r_[np.arange(m), rng.integers(0, m, n - m)] for _ in range(2)]
    design = Design(
        rng.normal(size=n),
        np.ones((n, 1)),
        ("1",),
        (term("a", codes[0], precision=known), term("b", codes[1], 2, rng, precision=known)),
    )
    solver = BlockedSolver(design)
    assert solver.structure.leaf == -1
    check_solver_on(solver, design, 1, 1e-8, "no leaf")


def test_grid_uses_wide_supernodes_and_stays_sparse():
    design = grid_design(2)
    solver = solver_with(1000)(design)
    sizes = solver.structure.sizes
    assert 0 < sizes["supernodes"] < sizes["head_columns"]  # columns were merged
    assert sizes["nnz_L"] < 0.35 * 121 * 122 / 2
    check_solver_on(solver, design, 2, 1e-8, "grid")
    solver = BlockedSolver(design)
    check_solver_on(solver, design, 2, 1e-8, "grid by cost")


def test_nested_rest_stays_sparse():
    rng = np.random.default_rng(1)
    inner = np.repeat(np.arange(20000), 2)
    middle, outer = inner // 10, inner // 100
    n = len(inner)
    design = Design(
        rng.normal(size=n),
        np.ones((n, 1)),
        ("1",),
        (term("outer", outer), term("middle", middle), term("inner", inner)),
    )
    sizes = BlockedSolver(design).structure.sizes
    assert sizes["leaf"] == 0
    assert sizes["rest_columns"] == 2200
    assert sizes["nnz_L"] < 8 * 2200


@pytest.mark.parametrize("ks", [(1, 1, 1), (2, 1, 3)])
def test_separate_parts_share_panels(ks):
    """Sums of products of the blocks of K where centres of different size have no level in common."""
    rng = np.random.default_rng(5)
    columns = []
    for centre, n in enumerate((50, 90, 70)):
        for size in (12, 7, 2):
            columns.append(rng.integers(0, size, n) + 100 * centre)
    codes = [compact(np.concatenate(columns[i::3])) for i in range(3)]
    n = len(codes[0])
    terms = tuple(term("abc"[i], codes[i], ks[i], rng) for i in range(3))
    design = Design(rng.normal(size=n), np.column_stack([np.ones(n), rng.normal(size=n)]), ("1", "x"), terms)
    for cut in (-1, 0, 1000):
        check_solver_on(solver_with(cut)(design), design, 5, 1e-9, f"cut {cut}")


def test_four_nested_levels_match():
    rng = np.random.default_rng(7)
    inner = np.repeat(np.arange(48), 2)
    design = Design(
        rng.normal(size=96),
        np.column_stack([np.ones(96), rng.normal(size=96)]),
        ("1", "x"),
        tuple(term("abcd"[i], inner // d) for i, d in enumerate((1, 2, 6, 12))),
    )
    for cut in (-1, 1000):
        check_solver_on(solver_with(cut)(design), design, 7, 1e-8, "four levels")


def test_tail_by_tiles_does_not_depend_on_threads():
    """Large enough for parallel loops and the tiled tail; bitwise the same for any number of threads."""
    rng = np.random.default_rng(11)
    n = 16000
    design = Design(
        rng.normal(size=n),
        np.column_stack([np.ones(n), rng.normal(size=(n, 9))]),
        tuple(f"x{i}" for i in range(10)),
        (
            term("a", np.r_[np.arange(1500), rng.integers(0, 1500, n - 1500)]),
            term("b", np.r_[np.arange(420), rng.integers(0, 420, n - 420)]),
        ),
    )
    results = []
    for threads in (1, 2, 4):
        solver = solver_with(threads=threads)(design)
        results.append(solver.evaluator_for(True).value_gradient_hessian(np.array([0.4, 0.3])))
    for value, gradient, hessian in results[1:]:
        assert value == results[0][0]
        assert np.array_equal(gradient, results[0][1])
        assert np.array_equal(hessian, results[0][2])


def test_head_and_tail_agree_with_everything_dense():
    """Supernodes with more rows than a panel, and a tail done by tiles, against one dense block."""
    rng = np.random.default_rng(21)
    n = 4200
    weights = 1.0 / (np.arange(900) + 15.0)
    b = np.r_[np.arange(900), rng.choice(900, n - 900, p=weights / weights.sum())]
    a = np.r_[np.arange(1300), rng.integers(0, 1300, n - 1300)]
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 11))])
    design = Design(rng.normal(size=n), X, tuple(f"x{i}" for i in range(12)), (term("a", a), term("b", b)))
    mixed, dense = solver_with(200)(design), solver_with(0)(design)
    sizes = mixed.structure.sizes
    assert sizes["head_columns"] > 150 and sizes["tail_columns"] > 288 and sizes["supernodes"] > 5
    for theta in (np.array([0.4, 0.3]), np.array([0.4, 0.0]), np.array([0.0, 0.6])):
        actual = mixed.evaluator_for(True).value_gradient_hessian(theta)
        expected = dense.evaluator_for(True).value_gradient_hessian(theta)
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-12)
        np.testing.assert_allclose(actual[1], expected[1], rtol=1e-9, atol=1e-8)
        np.testing.assert_allclose(actual[2], expected[2], rtol=1e-8, atol=1e-8)


@pytest.mark.skipif("MIXEDMODELS_SHARED" not in os.environ, reason="the reference data are not here")
def test_insteval_criterion():
    """lme4's ML deviance of y ~ service * dept + (1 | s) + (1 | d) at two points."""
    path = os.path.join(os.environ["MIXEDMODELS_SHARED"], "reference", "data", "InstEval.csv.gz")
    data = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf8")
    strip = {
        name: np.char.strip(np.asarray(data[name], dtype=str), '"') for name in ("s", "d", "dept", "service")
    }
    service = compact(strip["service"])[:, None].astype(float)
    dept = (compact(strip["dept"])[:, None] == np.arange(1, 14)).astype(float)
    X = np.column_stack([np.ones(len(dept)), service, dept, service * dept])
    terms = (term("s", compact(strip["s"])), term("d", compact(strip["d"])))
    design = Design(data["y"].astype(float), X, tuple(f"x{i}" for i in range(28)), terms)
    solver = BlockedSolver(design)
    for theta, expected in (((1.0, 1.0), 241920.83782176476), ((0.0, 0.4459187720601605), 240026.0596421508)):
        at = np.linalg.solve(solver.theta_map, theta)
        value = solver.evaluator_for(False).value_gradient_hessian(at, 0)[0]
        np.testing.assert_allclose(value, expected, rtol=1e-11)


def test_gradient_is_continuous_where_the_formula_changes():
    """On both sides of the switch to the exact form for singular factors the gradient is the same."""
    design = sparse_design(9)
    evaluator = BlockedSolver(design).evaluator_for(True)
    gradients = []
    for t in (0.9e-3, 1.1e-3, 3e-4, 1e-5):
        theta = np.array([0.5, t, 0.4])
        gradients.append(evaluator.value_gradient_hessian(theta, 1)[1][1] / t)
    np.testing.assert_allclose(gradients, gradients[0], rtol=1e-4)
    np.testing.assert_allclose(gradients[2], gradients[3], rtol=1e-5)


def test_evaluators_share_the_structure():
    design = sparse_design(1)
    solver = BlockedSolver(design)
    theta = np.array([0.4, 0.5, 0.6])
    reml, ml = solver.evaluator_for(True), solver.evaluator_for(False)
    assert reml.structure is ml.structure
    first = reml.value_gradient_hessian(theta)
    ml.value_gradient_hessian(theta * 0.1)
    again = reml.value_gradient_hessian(theta)
    assert first[0] == again[0] and np.array_equal(first[1], again[1]) and np.array_equal(first[2], again[2])


def test_not_positive_definite_is_reported():
    evaluator = BlockedSolver(sparse_design(1)).evaluator_for(True)
    with pytest.raises(FloatingPointError, match="positive definite"):
        evaluator.value_gradient_hessian(np.array([np.nan, 0.5, 0.6]))
    with pytest.raises(FloatingPointError, match="positive definite"):
        evaluator.value_gradient_hessian(np.array([0.4, np.inf, 0.6]))
    assert np.isfinite(evaluator.value_gradient_hessian(np.array([0.4, 0.5, 0.6]))[0])


def test_bad_arrays_are_refused():
    solver = BlockedSolver(sparse_design(1))
    arrays = structure_arrays(solver.pack)
    with pytest.raises(ValueError, match="XX of shape"):
        BlockedStructure(solver._k, solver.p, arrays | {"XX": np.eye(2)})
    f, g, indptr, indices, data = arrays["pairs"][0]
    with pytest.raises(ValueError, match="level that does not exist"):
        BlockedStructure(solver._k, solver.p, arrays | {"pairs": [(f, g, indptr, indices + 1000, data)]})
    with pytest.raises(ValueError, match="BlockedStructure"):
        BlockedEvaluator(solver._k, [], [], solver.p, 1.0, True)


def test_describe_names_head_and_tail():
    text = solver_with(8)(sparse_design(1)).describe()
    assert text.startswith("blocked: a (")
    assert "sparse head" in text and "dense tail" in text and "minimum degree" in text
