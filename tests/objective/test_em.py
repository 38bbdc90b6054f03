"""EM steps of relative factors, and triangular factors of singular matrices."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.objective.em import em_factors
from mixedmodels.objective.parameters import lower_factor


@pytest.fixture
def step():
    """Derivative M and factor of one term with three columns, and its 40 levels."""
    rng = np.random.default_rng(5)
    lam = np.tril(rng.normal(size=(3, 3)))
    M = np.cov(rng.normal(size=(3, 9))) - 0.7 * np.cov(rng.normal(size=(3, 9)))
    return lam, M, 40


def test_unstructured_is_the_mean_of_second_moments(step):
    lam, M, m = step
    Sigma = lam @ lam.T
    (new,) = em_factors([lam], [M], [m], ["block"])
    np.testing.assert_allclose(new @ new.T, Sigma - Sigma @ M @ Sigma / m, atol=1e-12)
    np.testing.assert_array_equal(new, np.tril(new))


def test_structures_are_kept_and_zeros_stay(step):
    _, M, m = step
    d = np.diag([1.0, 2.0, 0.0])
    (new,) = em_factors([d], [M], [m], ["diagonal"])
    np.testing.assert_allclose(new**2, np.diag(np.diag(d @ d - d @ d @ M @ d @ d / m)), atol=1e-12)
    assert new[2, 2] == 0.0
    (new,) = em_factors([2 * np.eye(3)], [M], [m], ["trace"])
    np.testing.assert_allclose(new, np.sqrt(4 - 16 * np.trace(M) / 3 / m) * np.eye(3), atol=1e-12)


def test_the_residual_variance_moves_too(step):
    lam, M, m = step
    Sigma, n = lam @ lam.T, 200
    (new,) = em_factors([lam], [M], [m], ["block"], total=n)
    ratio = 1 + np.trace(M @ Sigma) / n
    np.testing.assert_allclose(new @ new.T, (Sigma - Sigma @ M @ Sigma / m) / ratio, atol=1e-12)


def test_terms_that_share_parameters_share_their_moment(step):
    lam, M, m = step
    one, two = em_factors([lam, lam], [M, 2 * M], [m, 3 * m], ["block", "block"], [[0, 1], [0, 1]])
    Sigma = lam @ lam.T
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one @ one.T, Sigma - Sigma @ (3 * M) @ Sigma / (4 * m), atol=1e-12)


def test_lower_factor_of_singular_matrices():
    rng = np.random.default_rng(6)
    lam = np.tril(rng.normal(size=(4, 4)))
    for factor in (lam, lam * np.array([1, 0, 1, 0]), np.outer(lam[:, 0], [1, 0, 0, 0]), np.zeros((4, 4))):
        new = lower_factor(factor @ factor.T)
        np.testing.assert_allclose(new @ new.T, factor @ factor.T, atol=1e-12)
        np.testing.assert_array_equal(new, np.tril(new))
        assert np.all(np.diag(new) >= 0)
