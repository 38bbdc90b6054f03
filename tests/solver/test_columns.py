"""Compiled passes over columns against the array operations they stand for."""

import numpy as np
import pytest
from mixedmodels.solver._kernels.columns import (
    all_finite,
    constant_column,
    dummies,
    every_level,
    neighbours,
    none_missing,
    orthonormal_fit,
    product,
    spread,
    surely_independent,
    text_codes,
    whole_numbers,
)

from mixedmodels.errors import IdentifiabilityError
from mixedmodels.frame.factors import code_texts, sort_levels
from mixedmodels.frame.rank import find_dependence
from mixedmodels.solver import dense

rng = np.random.default_rng


@pytest.mark.parametrize("n", [0, 1, 200])
def test_texts_are_coded_in_the_order_of_their_levels(n):
    texts = ["b\u00e4", "Z", "a", "", "B"]
    values = [texts[i] for i in rng(1).integers(0, 5, n)]
    codes, levels = text_codes(values)
    expected, sorted_levels = sort_levels(*code_texts(values))
    assert np.array_equal(codes, expected) and codes.dtype == np.int32
    assert levels == sorted_levels.tolist()


@pytest.mark.parametrize("other", [None, float("nan"), 1, b"a", np.str_("a")])
def test_what_is_not_text_is_left_to_others(other):
    assert text_codes(["b", other, "b"]) is None


@pytest.mark.parametrize("codes, m", [([0, 1, 2, 0], 3), ([2, 0, -1], 3), ([0, 5], 2), ([], 0), ([], 1)])
def test_every_level(codes, m):
    codes = np.array(codes, dtype=np.int32)
    assert every_level(codes, m) == (set(range(m)) <= set(codes.tolist()))


@pytest.mark.parametrize("n", [0, 1, 5, 1024, 1025, 3000])
@pytest.mark.parametrize("step", [1, 2, -1])
def test_finite_values(n, step):
    values = np.full(n * abs(step), 1.7e308)[::step]
    assert all_finite(values)
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        for place in (0, -1) if n else ():
            one = values.copy()
            one[place] = bad
            assert not all_finite(np.repeat(one, abs(step))[::step])


def test_missing_codes():
    codes = np.array([0, 3, 1, -1], dtype=np.int32)
    assert none_missing(codes[:3]) and not none_missing(codes) and none_missing(codes[:0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_dummies(order):
    codes = np.array([0, 3, 1, -1, 1, 2], dtype=np.int32)
    whole = np.full((6, 4), np.nan, order=order)
    dummies(codes, 0, whole)
    assert np.array_equal(whole, codes[:, None] == np.arange(4))
    contrasts = np.zeros((6, 5), order=order)
    dummies(codes, 1, contrasts[:, 1:4])
    assert np.array_equal(contrasts[:, 1:4], whole[:, 1:]) and not contrasts[:, [0, 4]].any()


@pytest.mark.parametrize("order", ["C", "F"])
def test_products_of_columns(order):
    M = np.array(rng(1).normal(size=(50, 3)), order=order)
    expected = M[:, 0] * M[:, 1]
    product(M[:, 0], M[:, 1], M[:, 2])
    assert np.array_equal(M[:, 2], expected)
    product(M[:, 2], M[:, 2], M[:, 2])
    assert np.array_equal(M[:, 2], expected**2)
    huge = np.full(3, 1e200)
    product(huge, huge, huge)  # no warning
    assert np.isinf(huge).all()


@pytest.mark.parametrize("origin", [0.0, 1e9])
def test_spread(origin):
    values = origin + rng(2).normal(size=40)
    assert spread(values) == pytest.approx(np.std(values - origin, ddof=1), rel=1e-7 if origin else 1e-14)
    assert spread(values) == pytest.approx(np.std(values - values[0], ddof=1), rel=1e-14)
    assert spread(values[:1]) == spread(values[:0]) == spread(np.full(7, 0.1)) == 0.0


def test_whole_numbers():
    values = np.array([3.0, -2.0 + 1e-9, 1e12 + 1.0, 0.5, 0.25])
    rounded, place = whole_numbers(values, 1e-8)
    assert place == 3 and np.array_equal(rounded, np.rint(values))
    assert whole_numbers(values[:3], 1e-8)[1] == -1


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_of_rows_in_order(seed):
    codes = rng(seed).integers(0, 6, 40)
    times = rng(seed + 10).integers(0, 9, 40).astype(float)
    assert neighbours(codes, times) is None
    order = np.lexsort((times, codes))
    codes, times = codes[order], times[order]
    later, gaps, smallest, largest = neighbours(codes, times)
    assert np.array_equal(later, np.flatnonzero(np.diff(codes) == 0) + 1)
    assert np.array_equal(gaps, np.diff(times)[later - 1])
    assert (smallest, largest) == (gaps.min(), gaps.max())
    assert neighbours(codes, np.arange(40.0) * 2.0)[2:] == (2.0, 2.0)
    assert neighbours(np.arange(3), times[:3])[2:] == (np.inf, -np.inf)


def test_constant_column():
    X = np.column_stack([np.zeros(5), np.arange(5.0), np.full(5, 3.0), np.ones(5)])
    assert constant_column(X) == 2
    assert (
        constant_column(X[:, :2]) == constant_column(X[:0]) == constant_column(np.full((3, 1), np.nan)) == -1
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("origin", [0.0, 2000.0, 1e5])
def test_orthonormal_fit_is_that_of_lapack(order, origin):
    n, p = 60, 5
    X = np.array(np.column_stack([np.ones(n), origin + rng(3).normal(size=(n, p - 1))]), order=order)
    y = rng(4).normal(size=n)
    Q, R, beta, r, logdet = orthonormal_fit(X, y, 1e-6)
    np.testing.assert_allclose(Q.T @ Q, np.eye(p), atol=1e-14)
    np.testing.assert_allclose(Q @ R, X, rtol=1e-14, atol=1e-14 * (1.0 + origin))
    np.testing.assert_allclose(Q.T @ r, 0.0, atol=1e-14)
    assert np.array_equal(R, np.triu(R)) and (np.diagonal(R) > 0.0).all()
    expected = np.linalg.lstsq(X - origin * (np.arange(p) > 0), y, rcond=None)[0]
    np.testing.assert_allclose(beta[1:], expected[1:], rtol=1e-14 * (10.0 + origin) ** 1.5, atol=1e-13)
    assert logdet == pytest.approx(2.0 * np.sum(np.log(np.abs(np.diagonal(np.linalg.qr(X)[1])))), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e-200, 1e160])
def test_orthonormal_fit_leaves_doubtful_columns_to_others(scale):
    x = np.arange(10.0)
    one = np.ones(10)
    assert orthonormal_fit(np.column_stack([one, x, x + 1e-9 * x**2]), x, 1e-6) is None
    assert orthonormal_fit(np.column_stack([one, scale * (1.0 + x)]), x, 1e-6) is None
    assert orthonormal_fit(np.eye(20), np.ones(20), 1e-6) is None
    assert orthonormal_fit(np.ones((1, 2)), np.ones(1), 1e-6) is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_both_ways_to_the_fixed_part_agree(monkeypatch, weighted, with_offset, intercept):
    n = 50
    first = np.ones(n) if intercept else rng(8).normal(size=n)
    X = np.column_stack([rng(5).normal(size=n), 2.0 * first, 1e4 + rng(6).normal(size=n)])
    y = 1e6 + rng(7).normal(size=n)
    weights = rng(9).uniform(0.5, 2.0, n) if weighted else None
    offset = rng(10).normal(size=n) if with_offset else None
    small = dense.fixed_part(y, X, "abc", offset, weights)
    monkeypatch.setattr(dense, "_SMALL_WORK", 0)
    large = dense.fixed_part(y, X, "abc", offset, weights)
    signs = np.sign(np.diagonal(large.R))
    np.testing.assert_allclose(small.Q, large.Q * signs, atol=1e-11)
    np.testing.assert_allclose(small.R, large.R * signs[:, None], rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(small.beta0, large.beta0, rtol=1e-9)
    scale = np.abs(large.r).max()
    np.testing.assert_allclose(small.r, large.r, atol=1e-9 * scale)
    assert small.logdet_R2 == pytest.approx(large.logdet_R2, rel=1e-12)


def test_a_dependent_column_is_named_by_the_way_for_doubtful_ones():
    X = np.column_stack([np.ones(20), np.arange(20.0), 3.0 - np.arange(20.0)])
    with pytest.raises(IdentifiabilityError, match="column 'c' depends linearly"):
        dense.fixed_part(rng(1).normal(size=20), X, "abc", None, None)


@pytest.mark.parametrize(
    "second, sure",
    [
        (rng(11).normal(size=30), True),
        (1e6 + rng(11).normal(size=30), True),
        (np.ones(30), False),
        (np.arange(30.0) + 1e-5 * rng(12).normal(size=30), False),
        (np.full(30, np.inf), False),
        (1e200 * rng(13).normal(size=30), False),
    ],
)
def test_columns_that_surely_are_independent(second, sure):
    X = np.column_stack([np.ones(30), np.arange(30.0), second])
    assert surely_independent(X, True, 1e-6) is sure
    assert not sure or find_dependence(X, 0) is None
    assert surely_independent(np.eye(40), False, 1e-6) is None
