"""Dependent columns are the ones R's lm drops, whatever the units and origins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixedmodels.frame.rank import estimable, find_dependence

RNG = np.random.default_rng(11)


def design(n=60, p=4):
    X = RNG.normal(size=(n, p))
    X[:, 0] = 1.0
    return X


def check(X, ones, kept):
    result = find_dependence(X, ones)
    if result is None:
        assert list(kept) == list(range(X.shape[1]))
        return
    assert result.kept.tolist() == list(kept)
    size = np.abs(X) @ np.abs(result.null)
    assert (np.abs(X @ result.null) <= 1e-12 * size.max(axis=0)).all()
    assert np.linalg.matrix_rank(result.null / np.abs(result.null).max(axis=0)) == X.shape[1] - len(kept)


def test_full_rank():
    check(design(), 0, range(4))
    check(design()[:, 1:], None, range(3))
    check(np.ones((5, 1)), 0, [0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_later_of_dependent_columns_is_dropped(order):
    X = design(p=6)
    X[:, 3] = 2.0 * X[:, 1] + 1.0
    X[:, 5] = X[:, 2] - 3.0 * X[:, 4]
    check(np.asarray(X, order=order), 0, [0, 1, 2, 4])


def test_constant_and_zero_columns():
    X = design(p=5)
    X[:, 1] = 3.7
    X[:, 3] = 0.0
    check(X, 0, [0, 2, 4])
    check(X[:, 1:], None, [0, 1, 3])
    X[:, 1] = 0.1 + 0.2
    X[::2, 1] = 0.3  # constant up to rounding
    check(X, 0, [0, 2, 4])


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("origin", [0.0, 2000.0, 1e6])
def test_units_and_origins_do_not_matter(scale, origin):
    days = np.tile(np.arange(10.0), 6)
    x = (origin + days) * scale
    X = np.column_stack([np.ones(60), x])
    check(X, 0, [0, 1])
    check(np.column_stack([X, 3.0 * x + 2.0 * scale]), 0, [0, 1])
    check(np.column_stack([X, RNG.normal(size=60)]), 0, [0, 1, 2])


def test_seconds_since_1970_are_not_constant():
    seconds = 1.7e9 + np.arange(60.0)  # spread 3e-8 of the size: R's lm drops this column
    check(np.column_stack([np.ones(60), seconds]), 0, [0, 1])
    check(np.column_stack([np.ones(60), seconds, RNG.normal(size=60)]), 0, [0, 1, 2])
    nano = seconds * 1e9
    check(np.column_stack([np.ones(60), nano, (seconds - 1.7e9) / 60.0]), 0, [0, 1])


def test_dummies_instead_of_an_intercept():
    codes = np.arange(60) % 3
    D = (codes[:, None] == np.arange(3)).astype(float)
    x = 1.7e9 + np.arange(60.0)
    z = RNG.normal(size=60)
    check(np.column_stack([D, x, z]), slice(0, 3), range(5))
    check(np.column_stack([D, x, z, np.full(60, 5.0), x + codes]), slice(0, 3), range(5))


def test_outlier_in_the_first_row_does_not_spoil_the_decision():
    x = np.arange(60.0)
    x[0] = 1e9
    X = np.column_stack([np.ones(60), x, RNG.normal(size=60)])
    check(X, 0, range(3))
    check(np.column_stack([X, x - 2.0]), 0, range(3))


def test_long_matrices_are_read_in_chunks():
    X = RNG.normal(size=(20_000, 4)) + 1e5
    X[:, 0] = 1.0
    check(X, 0, range(4))
    check(np.column_stack([X, X[:, 1] - X[:, 2]]), 0, range(4))


def test_more_columns_than_rows():
    X = RNG.normal(size=(4, 7))
    X[:, 0] = 1.0
    result = find_dependence(X, 0)
    assert result.kept.tolist() == [0, 1, 2, 3]


def test_nearly_dependent_columns_follow_the_tolerance_of_lm():
    x, z = RNG.normal(size=(2, 200))
    one = np.ones(200)
    check(np.column_stack([one, x, x + 1e-5 * z]), 0, [0, 1, 2])
    result = find_dependence(np.column_stack([one, x, x + 1e-9 * z]), 0)
    assert result.kept.tolist() == [0, 1]


def test_estimable_rows():
    X = design(p=4)
    X[:, 3] = X[:, 1] + 2.0
    null = find_dependence(X, 0).null
    new = np.array([[1.0, 1.0, 0.0, 3.0], [1.0, 1.0, 0.0, 4.0], [1.0, 0.0, 5.0, 2.0]])
    assert estimable(new, null).tolist() == [True, False, True]
    assert estimable(X, null).all()


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(0, 3))
def test_rank_agrees_with_singular_values(seed, p, extra):
    rng = np.random.default_rng(seed)
    base = np.column_stack([np.ones(30), rng.integers(-2, 3, size=(30, p))]).astype(float)
    X = np.column_stack([base, base @ rng.integers(-1, 2, size=(p + 1, extra))]) if extra else base
    rank = np.linalg.matrix_rank(X)
    result = find_dependence(X, 0)
    assert (X.shape[1] if result is None else len(result.kept)) == rank
    if result is not None:
        assert np.linalg.matrix_rank(X[:, result.kept]) == rank
        assert estimable(X, result.null).all()
