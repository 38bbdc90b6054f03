"""Newton's method in a trust region: known functions, laws, and ends that are not minima."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mixedmodels.optimize.control import Control
from mixedmodels.optimize.optimum import Status
from mixedmodels.optimize.trust_region import _step, trust_region


def rosenbrock(v):
    x, y = v
    value = 100.0 * (y - x * x) ** 2 + (1.0 - x) ** 2
    gradient = np.array([-400.0 * x * (y - x * x) - 2.0 * (1.0 - x), 200.0 * (y - x * x)])
    hessian = np.array([[1200.0 * x * x - 400.0 * y + 2.0, -400.0 * x], [-400.0 * x, 200.0]])
    return value, gradient, hessian


def quartic(v):
    """Saddle at 0 with zero gradient, minima at (0, +-1)."""
    x, y = v
    value = x * x + (y * y - 1.0) ** 2
    return value, np.array([2.0 * x, 4.0 * y * (y * y - 1.0)]), np.diag([2.0, 12.0 * y * y - 4.0])


def logistic(v):
    """Smooth and convex in two variables, curvature far from constant."""
    A = np.array([[1.0, 0.3], [-0.5, 1.0], [0.8, -1.2], [-1.0, -0.4], [0.1, 0.9]])
    y = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    eta = A @ v
    p = 1.0 / (1.0 + np.exp(-eta))
    value = float(np.logaddexp(0.0, eta).sum() - y @ eta + 0.05 * v @ v)
    return value, A.T @ (p - y) + 0.1 * v, (A.T * (p * (1 - p))) @ A + 0.1 * np.eye(2)


def test_rosenbrock():
    found = trust_region(rosenbrock, np.array([-1.2, 1.0]))
    assert found.status is Status.CONVERGED
    np.testing.assert_allclose(found.theta, 1.0, atol=1e-4)
    np.testing.assert_allclose(
        trust_region(rosenbrock, np.zeros(2), Control(tol=1e-18)).theta, 1.0, atol=1e-8
    )


def test_a_quadratic_takes_two_evaluations_at_most():
    H = np.array([[3.0, 1.0], [1.0, 2.0]])
    found = trust_region(lambda v: (0.5 * v @ H @ v - v[0], H @ v - np.eye(2)[0], H), np.array([0.3, 0.2]))
    assert found.evaluations <= 2
    np.testing.assert_allclose(found.theta, np.linalg.solve(H, np.eye(2)[0]), atol=1e-12)


def test_a_saddle_is_left():
    found = trust_region(quartic, np.array([0.7, 0.0]))
    assert found.converged
    assert abs(found.theta[1]) == pytest.approx(1.0, abs=1e-5)


def test_the_last_step_is_as_good_as_evaluated():
    found = trust_region(logistic, np.array([2.0, -2.0]))
    value, gradient, hessian = logistic(found.theta)
    assert found.value == pytest.approx(value, abs=1e-9)
    assert 0.5 * gradient @ np.linalg.solve(hessian, gradient) < 1e-10
    if found.hessian is not None:
        np.testing.assert_allclose(found.hessian, hessian, rtol=1e-5)


def test_derivatives_out_of_date_are_not_given():
    for start in ([2.0, -2.0], [0.5, 0.5], [3.0, 1.0]):
        found = trust_region(logistic, np.array(start))
        if found.hessian is None:
            assert found.gradient is None
        else:
            np.testing.assert_allclose(found.hessian, logistic(found.theta)[2], rtol=1e-5)


def test_the_step_solves_the_problem_in_the_ball():
    """First-order conditions of More and Sorensen, and nothing on a sample of the sphere is lower."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        values = np.sort(rng.normal(size=4))
        g, radius = rng.normal(size=4), float(rng.uniform(0.1, 2.0))
        if rng.random() < 0.3:
            g[0] = 0.0  # the hard case
        s, predicted = _step(values, g, radius)
        assert np.linalg.norm(s) <= radius * (1 + 1e-9)
        assert predicted == pytest.approx(-(g @ s + 0.5 * values @ s**2))
        directions = rng.normal(size=(2000, 4))
        points = directions / np.linalg.norm(directions, axis=1)[:, None] * radius
        points *= rng.uniform(0.0, 1.0, 2000)[:, None] ** 0.25
        lowest = (points @ g + 0.5 * points**2 @ values).min()
        assert -predicted <= lowest + 0.03 * abs(lowest)


def test_points_that_do_not_exist_are_rejected_steps():
    def log_barrier(v):
        if v[0] <= 0.0:
            raise FloatingPointError("outside")
        return v[0] - 0.01 * np.log(v[0]), np.array([1.0 - 0.01 / v[0]]), np.array([[0.01 / v[0] ** 2]])

    found = trust_region(log_barrier, np.array([1.0]))
    assert found.converged
    assert found.theta[0] == pytest.approx(0.01, rel=1e-6)


def test_a_model_of_the_hessian_is_corrected():
    """With half the curvature plain Newton steps overshoot for ever; the secant correction converges fast."""

    def half(v):
        value, gradient, hessian = logistic(v)
        return value, gradient, np.diag(np.diagonal(hessian)) * 0.6

    exact = trust_region(logistic, np.array([0.5, 0.5]))
    found = trust_region(half, np.array([0.5, 0.5]), exact=False)
    assert found.converged
    assert found.value == pytest.approx(exact.value, abs=1e-9)
    assert found.evaluations < 15


def test_no_parameters():
    found = trust_region(lambda v: (3.0, np.zeros(0), np.zeros((0, 0))), np.zeros(0))
    assert found.converged and found.value == 3.0 and found.evaluations == 1


# ---------------------------------------------------------------------- ends that are not minima
def test_maxiter():
    found = trust_region(rosenbrock, np.array([-1.2, 1.0]), Control(maxiter=3))
    assert found.status is Status.MAXITER
    assert found.iterations == 3
    assert "maxiter" in found.message


def test_time_limit():
    found = trust_region(rosenbrock, np.array([-1.2, 1.0]), Control(max_seconds=1e-12))
    assert found.status is Status.MAX_SECONDS
    assert found.value == rosenbrock(np.array([-1.2, 1.0]))[0]


def test_interruption_returns_the_best_point():
    calls = []

    def newton(v):
        calls.append(v)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return rosenbrock(v)

    found = trust_region(newton, np.array([-1.2, 1.0]))
    assert found.status is Status.INTERRUPTED
    assert found.value == rosenbrock(found.theta)[0] < rosenbrock(np.array([-1.2, 1.0]))[0]


def test_progress_may_stop_the_search():
    seen = []

    def progress(iteration, theta, value):
        seen.append((iteration, theta, value))
        return iteration == 2

    found = trust_region(rosenbrock, np.array([-1.2, 1.0]), progress=progress, shown=lambda v: 10.0 * v)
    assert found.status is Status.INTERRUPTED
    assert [row[0] for row in seen] == [0, 1, 2]
    np.testing.assert_allclose(seen[0][1], [-12.0, 10.0])


def test_trace():
    found = trust_region(rosenbrock, np.array([-1.2, 1.0]))
    values = [value for _, _, value in found.trace]
    assert len(values) == found.iterations + 1
    assert all(b <= a for a, b in itertools.pairwise(values))
    assert len(trust_region(rosenbrock, np.zeros(2), Control(trace=False)).trace) == 0


def test_a_gradient_that_is_wrong_stalls():
    found = trust_region(lambda v: (v[0] ** 2, np.array([-2.0 * v[0] - 1.0]), np.eye(1)), np.array([1.0]))
    assert found.status is Status.STALLED
    assert not found.converged
