"""Internal coordinates: exact maps, orthonormal columns, no digit lost to origins and units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import IdentifiabilityError
from mixedmodels.solver.scaling import standardise
from mixedmodels.testing.designs import DESIGN_KINDS, random_design


def slope_design(x, y=None, tag="us", weights=None, offset=None, m=7, seed=0):
    """y ~ x + (x | g) with m levels."""
    rng = np.random.default_rng(seed)
    n = len(x)
    X = np.column_stack([np.ones(n), x])
    codes = rng.integers(0, m, n).astype(np.int32)
    codes[:m] = np.arange(m)
    y = rng.normal(size=n) if y is None else y
    term = RandomTerm("g", ("(Intercept)", "x"), codes, range(m), X.copy(), make_covariance(tag, 2))
    return Design(y, X, ("(Intercept)", "x"), (term,), offset, weights)


def check(design, tol=1e-12):
    """The defining equations of the coordinates; `tol` relative to the size of each column."""
    std = standardise(design)
    n, p = design.X.shape
    sw = np.ones(n) if design.weights is None else np.sqrt(design.weights)
    np.testing.assert_allclose(std.X.T @ std.X / n, np.eye(p), atol=1e-12)
    assert std.X.flags.c_contiguous
    assert abs(std.logdet_T_X - np.linalg.slogdet(std.T_X)[1]) < 1e-6 * max(1.0, abs(std.logdet_T_X))
    if not std.perfect_fit:
        assert abs(std.y @ std.y / n - 1.0) < 1e-12
        np.testing.assert_allclose(std.X.T @ std.y / n, 0.0, atol=1e-13)
    for t, term in enumerate(design.terms):
        Zt = std.Z(t)
        Z = np.ones((n, 1)) if term.Z is None else term.Z
        T = np.eye(term.k) if std.T[t] is None else std.T[t]
        assert np.array_equal(T, np.tril(T))
        size = np.abs(sw[:, None] * Z) @ np.abs(T)
        assert np.all(np.abs(Zt - sw[:, None] * (Z @ T)) <= tol * (size + 1.0))
    return std


@pytest.mark.parametrize("kind", DESIGN_KINDS)
def test_random_designs(kind):
    design = random_design(3, kind)
    std = check(design)
    response = design.y if design.offset is None else design.y - design.offset
    sw = np.ones(design.n) if design.weights is None else np.sqrt(design.weights)
    np.testing.assert_allclose(
        std.y * std.y_scale, sw * (response - design.X @ std.beta0), atol=1e-10 * np.abs(sw * response).max()
    )
    np.testing.assert_allclose(std.X, sw[:, None] * (design.X @ std.T_X), atol=1e-9)
    expected = 0.0 if design.weights is None else np.log(design.weights).sum()
    assert std.sum_log_w == pytest.approx(expected, abs=1e-12)


def test_least_squares_known_answer():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    y = np.array([1.0, 3.0, 2.0, 5.0])  # slope 1.1, intercept 1.1, residual sum of squares 2.7
    std = standardise(slope_design(x, y, m=2))
    np.testing.assert_allclose(std.beta0, [1.1, 1.1], rtol=1e-14)
    assert std.y_scale == pytest.approx(np.sqrt(2.7 / 4.0), rel=1e-14)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 2000.0 + x,
        lambda x: 1.7e9 + x,
        lambda x: x * 1e6,
        lambda x: x * 1e-12,
        lambda x: 1e-12 * (x + 1e6),
    ],
    ids=["year", "seconds", "large", "small", "small and far"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_origin_and_unit_of_x_do_not_matter(change, weighted):
    rng = np.random.default_rng(5)
    x = rng.integers(0, 1000, 120).astype(float) / 8.0  # exact in all of the changes but the last two
    w = rng.uniform(0.5, 2.0, 120) if weighted else None
    y = rng.normal(size=120) + 0.02 * x
    base = check(slope_design(x, y, weights=w))
    other = check(slope_design(change(x), y, weights=w))
    np.testing.assert_allclose(other.X, base.X, atol=1e-9)
    np.testing.assert_allclose(other.y, base.y, atol=1e-9)
    gram = other.Z(0).T @ other.Z(0) / 120
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-7)


@pytest.mark.parametrize("p", [2, 5, 20])
@pytest.mark.parametrize(
    "change", [lambda y: y + 1e10, lambda y: y * 1e10, lambda y: y * 1e-120, lambda y: y * 1e120]
)
def test_origin_and_unit_of_y_do_not_matter(p, change):
    rng = np.random.default_rng(6)
    y = rng.integers(-500, 500, 200) / 4.0
    X = np.column_stack([np.ones(200), rng.normal(size=(200, p - 1))])
    design = replace(slope_design(X[:, 1], y), X=X, x_names=tuple(f"x{j}" for j in range(p)))
    base, other = check(design), check(replace(design, y=change(y)))
    np.testing.assert_allclose(other.y, base.y, atol=1e-12)


def test_large_mean_without_intercept_column():
    rng = np.random.default_rng(7)
    y = rng.integers(-500, 500, 60) / 4.0
    cells = np.zeros((60, 3))
    cells[np.arange(60), np.arange(60) % 3] = 1.0
    design = replace(slope_design(rng.normal(size=60), y), X=cells, x_names=("a", "b", "c"))
    base, other = check(design), check(replace(design, y=y + 1e10))
    np.testing.assert_allclose(other.y, base.y, atol=1e-7)
    # a date in seconds beside the cell means: the constant is in the span, though not a column
    far = np.column_stack([cells, 1.7e9 + rng.integers(0, 10**6, 60)])
    check(replace(design, X=far, x_names=("a", "b", "c", "t")))


@pytest.mark.parametrize("p", [6, 14])
def test_raw_polynomial(p):
    x = np.linspace(1.0, 3.0, 400)
    X = x[:, None] ** np.arange(p if p < 8 else 8)
    if p > 8:  # through the block-wise path
        X = np.column_stack([X, np.random.default_rng(0).normal(size=(400, p - 8))])
    design = replace(slope_design(x), X=X, x_names=tuple(f"x{j}" for j in range(X.shape[1])))
    check(design)


@pytest.mark.parametrize("p", [3, 20])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_layouts_and_types_agree(p, order):
    rng = np.random.default_rng(8)
    X = np.column_stack([np.ones(500), rng.integers(0, 9, size=(500, p - 1)).astype(float)])
    y = rng.integers(0, 50, 500)
    design = replace(slope_design(X[:, 1], y.astype(float)), X=X, x_names=tuple(f"x{j}" for j in range(p)))
    expected = standardise(design)
    term = design.terms[0]
    other = replace(
        design,
        X=np.asarray(X.astype(np.float32), order=order),
        y=y,
        terms=(replace(term, Z=term.Z.astype(int)),),
    )
    actual = standardise(other)
    np.testing.assert_allclose(actual.X, expected.X, atol=1e-13)
    np.testing.assert_allclose(actual.y, expected.y, atol=1e-13)
    strided = np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2]
    np.testing.assert_array_equal(standardise(replace(design, X=strided)).y, expected.y)


@pytest.mark.parametrize("p", [0, 1, 2, 20])
def test_perfect_fit_has_zero_residual(p):  # hard cases 13 and 63
    rng = np.random.default_rng(9)
    X = np.column_stack([np.ones(50), rng.normal(size=(50, 19))])[:, :p]
    y = X @ np.arange(1.0, p + 1.0)
    design = replace(slope_design(rng.normal(size=50), y), X=X, x_names=tuple(f"x{j}" for j in range(p)))
    std = standardise(design)
    assert std.perfect_fit
    assert std.y_scale == 1.0
    assert "exactly" in std.notes[0]
    np.testing.assert_allclose(std.beta0, np.arange(1.0, p + 1.0), rtol=1e-12)
    assert not standardise(replace(design, y=y + 1e-9 * rng.normal(size=50))).perfect_fit


@pytest.mark.parametrize("p", [3, 20])
def test_dependent_columns_are_named(p):
    rng = np.random.default_rng(10)
    X = np.column_stack([np.ones(80), rng.normal(size=(80, p - 1))])
    X[:, p - 1] = X[:, 1] * 2.0 - 3.0
    design = replace(slope_design(X[:, 1]), X=X, x_names=tuple(f"col{j}" for j in range(p)))
    with pytest.raises(IdentifiabilityError, match=f"'col{p - 1}'"):
        standardise(design)


def test_diagonal_structures_are_scaled_only():
    x = np.linspace(1990.0, 2010.0, 60)
    T = check(slope_design(x, tag="diag")).T[0]
    assert np.array_equal(T, np.diag(np.diag(T)))
    T = check(slope_design(x, tag="homdiag")).T[0]
    assert np.array_equal(T, T[0, 0] * np.eye(2))


def test_dependent_random_columns_keep_an_exact_transformation():
    design = slope_design(np.full(40, 3.0))  # the slope's column is a multiple of the intercept's
    design = replace(design, X=design.X[:, :1], x_names=("(Intercept)",))
    check(design)


def test_terms_that_share_parameters_share_their_transformation():
    design = random_design(0, "shared")
    T = standardise(design).T
    index = np.asarray(design.theta_index)
    at = 0
    by_parameter = {}
    for t, term in enumerate(design.terms):
        for parameter in index[at : at + term.covariance.n_theta]:
            by_parameter.setdefault(parameter, []).append(T[t])
        at += term.covariance.n_theta
    shared = [values for values in by_parameter.values() if len(values) > 1]
    assert shared
    for values in shared:
        matrices = [np.eye(1) if T is None else T for T in values]
        for T in matrices[1:]:
            np.testing.assert_array_equal(T, matrices[0])


def test_input_is_not_changed():
    design = random_design(1, "one_weights")
    before = [design.y.copy(), design.X.copy(), design.weights.copy(), design.terms[0].Z.copy()]
    standardise(design)
    for old, new in zip(before, [design.y, design.X, design.weights, design.terms[0].Z], strict=True):
        np.testing.assert_array_equal(old, new)


def test_read_only_arrays_are_accepted():
    design = random_design(1, "one_weights")
    for array in (design.y, design.X, design.weights, design.terms[0].Z, design.terms[0].codes):
        array.setflags(write=False)
    standardise(design)
