"""Gauss-Hermite rules: known nodes, moments of the normal distribution, weights far out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mixedmodels.objective.marginal.hermite import hermite, hermite_grid


def test_two_and_three_nodes_are_known():
    z, log_weight = hermite(2)
    assert_allclose(z, [-1.0, 1.0], atol=1e-15)
    assert_allclose(np.exp(log_weight - z**2 / 2), [0.5, 0.5], rtol=1e-15)
    z, log_weight = hermite(3)
    assert_allclose(z, [-math.sqrt(3.0), 0.0, math.sqrt(3.0)], atol=1e-15)
    assert_allclose(np.exp(log_weight - z**2 / 2), [1 / 6, 2 / 3, 1 / 6], rtol=1e-14)


def test_one_node_is_laplaces_approximation():
    assert_array_equal(hermite(1)[0], [0.0])
    assert_array_equal(hermite(1)[1], [0.0])


@pytest.mark.parametrize("nodes", [2, 5, 9, 25, 51, 100])
def test_moments_of_the_normal_distribution(nodes):
    z, log_weight = hermite(nodes)
    w = np.exp(log_weight - z**2 / 2)
    for power in range(0, min(2 * nodes - 1, 40), 2):
        exact = float(math.prod(range(power - 1, 0, -2)))
        assert_allclose(np.sum(w * z**power), exact, rtol=1e-12)
    assert_array_equal(z, -z[::-1])
    assert_array_equal(log_weight, log_weight[::-1])


def test_the_outermost_of_100_nodes_keeps_its_digits():
    z, log_weight = hermite(100)
    a, b = _exact_outermost(100)
    assert_allclose(z[-1], a, rtol=1e-14)
    assert_allclose(log_weight[-1], b, rtol=1e-13)


def _exact_outermost(n):
    """Newton's method on He_n in exact rational arithmetic (integers scaled by 2^400)."""
    from fractions import Fraction

    def both(x):
        before, now = Fraction(1), x
        for k in range(1, n):
            before, now = now, x * now - k * before
        return now, before

    x = Fraction(float(hermite(n)[0][-1]))
    for _ in range(4):
        value, below = both(x)
        x = Fraction(round((x - value / (n * below)) * 2**400), 2**400)
    _, below = both(x)
    log_below = math.log(float(below))
    return float(x), math.lgamma(n + 1) - 2 * math.log(n) - 2 * log_below + float(x * x / 2)


def test_product_rule():
    z, log_weight = hermite(4)
    points, weights = hermite_grid(4, 3)
    assert points.shape == (64, 3)
    w = np.exp(weights - np.sum(points**2, axis=1) / 2)
    assert_allclose(np.einsum("j,ja,jb->ab", w, points, points), np.eye(3), atol=1e-14)
    assert_allclose(points[17], [z[1], z[0], z[1]])
    assert_allclose(weights[17], log_weight[1] + log_weight[0] + log_weight[1])
