"""Notes about singular fits, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.fit import checks


def term(Z, names, tag="us"):
    n = 12
    codes = np.repeat(np.arange(4, dtype=np.int32), 3)
    k = 1 if Z is None else Z.shape[1]
    assert Z is None or Z.shape[0] == n
    return RandomTerm("g", names, codes, ("a", "b", "c", "d"), Z, make_covariance(tag, k))


X = np.linspace(0.0, 1.0, 12)
Z2 = np.column_stack([np.ones(12), X])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_smallest_eigenvalue_agrees_with_eigvalsh(seed, k):
    factor = np.tril(np.random.default_rng(seed).standard_normal((k, k)))
    expected = np.linalg.eigvalsh(factor @ factor.T)[0]
    assert checks.smallest_eigenvalue(factor.tolist()) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_smallest_eigenvalue_of_zero():
    assert checks.smallest_eigenvalue([[0.0]]) == 0.0
    assert checks.smallest_eigenvalue([[0.0, 0.0], [0.0, 0.0]]) == 0.0
    assert checks.smallest_eigenvalue([[1.0, 0.0], [2.0, 0.0]]) == 0.0


@pytest.mark.parametrize("shift", [0.0, 2000.0, 1e5])
def test_scaled_factor_does_not_depend_on_origin_and_unit(shift):
    # factor of b for columns (1, x); columns (1, x + shift) need factor' = T^{-1} factor
    factor = np.array([[1.0, 0.0], [0.3, 0.5]])
    moved = Z2 @ np.array([[1.0, shift], [0.0, 1.0]])
    other = np.array([[1.0, -shift], [0.0, 1.0]]) @ factor
    one = checks.smallest_eigenvalue(checks.scaled_factor(term(Z2, ("(Intercept)", "x")), factor).tolist())
    other_term = term(moved, ("(Intercept)", "x"))
    two = checks.smallest_eigenvalue(checks.scaled_factor(other_term, other).tolist())
    assert two == pytest.approx(one, rel=1e-4)
    assert one > 1e-3


def note(Z, names, factor):
    return checks.singular_note(term(Z, names), np.array(factor, dtype=float))


def test_notes_name_the_component():
    assert "variance of (Intercept) is estimated as zero" in note(None, ("(Intercept)",), [[0.0]])
    both = ("(Intercept)", "x")
    assert "variances of (Intercept) and x" in note(Z2, both, np.zeros((2, 2)))
    assert "variance of x is estimated as zero" in note(Z2, both, [[1.0, 0.0], [0.0, 0.0]])
    assert "correlation of (Intercept) and x is estimated as +1" in note(Z2, both, [[1.0, 0.0], [2.0, 0.0]])
    assert "estimated as -1" in note(Z2, both, [[1.0, 0.0], [-2.0, 0.0]])


def test_note_names_a_null_direction():
    Z3 = np.column_stack([np.ones(12), X, X**2])
    # b3 = b1 + b2 exactly
    factor = [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [1.5, 1.0, 0.0]]
    assert "the combination a + b - c has no variance" in note(Z3, ("a", "b", "c"), factor)
    scaled = np.diag([1.0, 10.0, 1.0]) @ np.array(factor)
    assert "the combination a + 0.1 b - c has no variance" in note(Z3, ("a", "b", "c"), scaled)
    twice = [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    assert "2 such combinations in all" in note(Z3, ("a", "b", "c"), twice)


def test_few_levels():
    data = {"y": np.random.default_rng(1).standard_normal(40), "g": np.repeat(["a", "b"], 20)}
    fit = mm.lmm("y ~ 1 + (1 | g)", data)
    assert sum("only 2 levels" in text for text in fit.messages) == 1


def design(y, terms, X=None, offset=None, weights=None):
    X = np.ones((y.shape[0], 1)) if X is None else X
    return Design(y, X, tuple(f"x{j}" for j in range(X.shape[1])), terms, offset, weights)


def test_refusals():
    y = np.arange(12.0)
    fine = term(None, ("(Intercept)",))
    checks.check_data(design(y, (fine,)))
    with pytest.raises(mm.DataError, match="constant"):
        checks.check_data(design(np.ones(12), (fine,)))
    with pytest.raises(mm.DataError, match="constant"):
        checks.check_data(design(y, (fine,), offset=y - 2.0))
    with pytest.raises(mm.DataError, match="12 observations"):
        checks.check_data(design(y, (fine,), X=np.eye(12)))
    each = RandomTerm(
        "g", ("(Intercept)",), np.arange(12, dtype=np.int32), range(12), None, make_covariance("us", 1)
    )
    with pytest.raises(mm.IdentifiabilityError, match="12 random effects for 12 observations"):
        checks.check_data(design(y, (each,)))
    checks.check_data(design(y, (each,)), sigma_fixed=True)
    checks.check_data(design(y, (each,), weights=np.linspace(1, 2, 12)))
    one = RandomTerm(
        "g", ("(Intercept)",), np.zeros(12, dtype=np.int32), ("a",), None, make_covariance("us", 1)
    )
    with pytest.raises(mm.IdentifiabilityError, match="single level"):
        checks.check_data(design(y, (one,)))


def test_perfect_fit():
    y = np.arange(12.0) + 1e6
    checks.check_perfect_fit(1e-6, y, None)
    with pytest.raises(mm.DataError, match="perfect fit"):
        checks.check_perfect_fit(1e-9, y, None)
    with pytest.raises(mm.DataError, match="perfect fit"):
        checks.check_perfect_fit(0.0, y, None)
