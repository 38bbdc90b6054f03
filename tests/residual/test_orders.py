"""Orders of rows by group and time, and by pattern, that structures are bound to."""

import numpy as np
import pytest

from mixedmodels.residual.markov import MarkovOrder
from mixedmodels.residual.patterns import PatternOrder

rng = np.random.default_rng


@pytest.mark.parametrize("in_order", [True, False])
def test_rows_by_group_and_time(in_order):
    codes, times = np.repeat(np.arange(5), 4), np.tile([0.0, 1.0, 3.0, 7.0], 5)
    shuffled = np.arange(20) if in_order else rng(1).permutation(20)
    order = MarkovOrder(codes[shuffled], times[shuffled])
    assert (order.order is None) == in_order
    assert np.array_equal(order.sorted_codes, codes)
    assert np.array_equal(order.take(times[shuffled]), times)
    assert np.array_equal(order.put(times), times[shuffled])
    assert np.array_equal(order.gaps, np.tile([1.0, 2.0, 4.0], 5))
    distinct, which = order.distinct_gaps()
    assert distinct.tolist() == [1.0, 2.0, 4.0] and np.array_equal(distinct[which], order.gaps)
    assert not order.equal and not order.repeats


def test_equal_gaps_and_repeated_times():
    codes = np.array([1, 0, 1, 0])
    even = MarkovOrder(codes, np.array([2.0, 5.0, 4.0, 3.0]))
    assert even.equal and even.distinct_gaps()[0].tolist() == [2.0]
    assert even.distinct_gaps()[1].tolist() == [0, 0]
    assert MarkovOrder(codes, np.array([2.0, 5.0, 2.0, 3.0])).repeats
    single = MarkovOrder(np.arange(3), np.zeros(3))
    assert not single.repeats and single.distinct_gaps()[0].shape == (0,)


def test_rows_in_the_order_of_the_data():
    order = MarkovOrder(np.array([1, 0, 1, 0, 1]), None)
    assert order.order.tolist() == [1, 3, 0, 2, 4]
    assert order.gaps.tolist() == [1.0, 1.0, 1.0] and order.equal and not order.repeats


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_median_gap(size):
    times = np.cumsum(rng(size).uniform(size=size + 1))
    order = MarkovOrder(np.zeros(size + 1, dtype=np.intp), times)
    assert order.median_gap() == np.median(np.diff(times))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("alike", [False, True])
def test_groups_by_pattern(diagonal, alike):
    """Every pair of a group finds its key in the table, whether all groups are alike or not."""
    codes = np.repeat(np.arange(6), 3)
    times = np.tile([0.0, 1.0, 3.0], 6)
    if not alike:
        times[3:6] = [0.0, 2.0, 3.0]
    order = PatternOrder(
        codes, times[:, None], lambda a, b: np.abs(a[..., 0] - b[..., 0]), sort=True, relative=True,
        diagonal=diagonal,
    )  # fmt: skip
    (bucket,) = order.buckets
    assert bucket.counts.tolist() == ([6] if alike else [5, 1])
    for rows, pattern in zip(bucket.rows.T, bucket.pattern, strict=True):
        lags = np.abs(times[rows][:, None] - times[rows])
        found = np.concatenate([[-1.0], order.keys])[bucket.places[pattern]]
        if not diagonal:
            np.fill_diagonal(found, 0.0)
        assert np.array_equal(found, lags)
    assert (bucket.places.diagonal(axis1=1, axis2=2) == 0).all() == (not diagonal)
