"""Kernels for small matrices against LAPACK."""

import numpy as np
import pytest
from mixedmodels.solver._kernels.small import inverse, moment_df, newton_step, orthonormal, upper_inverse

from mixedmodels.optimize.trust_region import trust_region


def positive(p, seed=0):
    A = np.random.default_rng(seed).normal(size=(p + 3, p))
    return A.T @ A


@pytest.mark.parametrize("p", [1, 2, 5, 17, 64])
def test_newton_step_and_inverse(p):
    H, g = positive(p), np.random.default_rng(1).normal(size=p)
    step, decrement = newton_step(H, g)
    np.testing.assert_allclose(step, -np.linalg.solve(H, g), rtol=1e-7, atol=1e-9)
    assert decrement == pytest.approx(0.5 * g @ np.linalg.solve(H, g), rel=1e-8)
    np.testing.assert_allclose(inverse(H), np.linalg.inv(H), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("H", [-np.eye(2), np.ones((2, 2)), np.diag([1.0, 0.0]), np.full((2, 2), np.nan)])
def test_what_is_not_positive_definite_is_left_to_others(H):
    assert newton_step(H, np.ones(2)) is None
    assert inverse(H) is None


def test_sizes_beyond_the_kernels():
    assert newton_step(np.eye(65), np.ones(65)) is None
    assert newton_step(np.zeros((0, 0)), np.zeros(0)) is None
    assert inverse(np.eye(65)) is None
    assert orthonormal(np.eye(17)) is None


@pytest.mark.parametrize("p", [0, 1, 2, 7, 90])
def test_inverse_of_an_upper_triangular_matrix(p):
    R = np.triu(np.random.default_rng(p).normal(size=(p, p))) / max(p, 1) + np.diag(
        np.geomspace(1e-3, 1e3, p)
    )
    found = upper_inverse(R)
    np.testing.assert_allclose(found, np.linalg.inv(R), rtol=1e-9, atol=1e-12)
    assert np.array_equal(found, np.triu(found))
    R[np.tril_indices(p, -1)] = np.nan  # never read
    np.testing.assert_array_equal(upper_inverse(np.asfortranarray(R)), found)


@pytest.mark.parametrize("order", ["C", "F"])
def test_orthonormal_columns(order):
    X = np.array(np.random.default_rng(2).normal(size=(50, 4)), order=order)
    Q, G, back = orthonormal(X)
    np.testing.assert_allclose(Q.T @ Q, 50 * np.eye(4), atol=1e-10)
    np.testing.assert_allclose(Q @ G, X, atol=1e-12)
    np.testing.assert_allclose(G @ back, np.eye(4), atol=1e-12)
    assert (np.diagonal(G) > 0.0).all() and np.array_equal(G, np.triu(G))


def test_nearly_collinear_columns_are_left_to_lapack():
    x = np.arange(10.0)
    assert orthonormal(np.column_stack([x, x * (1.0 + 1e-8)])) is None


def test_a_search_is_the_same_by_newton_steps_and_by_eigenvectors():
    def rosenbrock(v):
        x, y = v
        value = 100.0 * (y - x * x) ** 2 + (1.0 - x) ** 2
        gradient = np.array([-400.0 * x * (y - x * x) - 2.0 * (1.0 - x), 200.0 * (y - x * x)])
        return (
            value,
            gradient,
            np.array([[1200.0 * x * x - 400.0 * y + 2.0, -400.0 * x], [-400.0 * x, 200.0]]),
        )

    start = np.array([-1.2, 1.0])
    slow, fast = trust_region(rosenbrock, start), trust_region(rosenbrock, start, solve=newton_step)
    assert fast.iterations == slow.iterations
    np.testing.assert_allclose(fast.theta, slow.theta, atol=1e-9)


def test_degrees_of_freedom_from_moments():
    rng = np.random.default_rng(3)
    v, g, A = rng.uniform(0.5, 2.0, 5), rng.normal(size=(3, 5)), positive(3, 4)
    expected = 2.0 * v**2 / np.einsum("ir,ij,jr->r", g, A, g)
    np.testing.assert_allclose(moment_df(v, g, A), expected, rtol=1e-13)
    np.testing.assert_array_equal(moment_df(v[::2], g[:, ::2], A), moment_df(v, g, A)[::2])


def test_variances_that_are_known_have_infinite_degrees_of_freedom():
    v = np.array([1.0, 0.0, np.nan])
    np.testing.assert_array_equal(moment_df(v, np.zeros((2, 3)), np.eye(2)), [np.inf, np.nan, np.nan])
    np.testing.assert_array_equal(moment_df(v, np.zeros((0, 3)), np.zeros((0, 0))), [np.inf, np.nan, np.nan])
