"""Tails of the largest of correlated t statistics."""

import numpy as np
import pytest
from scipy import stats

from mixedmodels.inference.means import mvt

EQUAL = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]])


@pytest.mark.parametrize("df", [1.0, 2.3, 5.0, 15.5, 400.0, np.inf])
@pytest.mark.parametrize("k", [2, 3, 6, 20])
def test_studentized_range_agrees_with_scipy(k, df):
    for q in (1.0, 3.5, 8.0):
        assert mvt.range_sf(q, k, df) == pytest.approx(stats.studentized_range.sf(q, k, df), abs=3e-7)


def test_range_of_two_is_a_t_test():
    for df in (1.0, 3.5, 40.0, np.inf):
        t = stats.t if np.isfinite(df) else stats.norm
        expected = 2 * (t.sf(2.1, df) if np.isfinite(df) else t.sf(2.1))
        assert mvt.range_sf(2.1 * np.sqrt(2.0), 2, df) == pytest.approx(expected, abs=1e-8)


def test_one_statistic_is_a_t_test():
    heights, rank = mvt.sphere_heights(np.eye(1), True)
    assert mvt.max_t_sf(2.0, 7.0, heights, rank)[0] == pytest.approx(2 * stats.t.sf(2.0, 7.0), rel=1e-12)
    heights, rank = mvt.sphere_heights(np.eye(1), False)
    for t in (-1.0, 0.5, 30.0):
        assert mvt.max_t_sf(t, 7.0, heights, rank)[0] == pytest.approx(stats.t.sf(t, 7.0), rel=1e-12)


def test_independent_normals():
    heights, rank = mvt.sphere_heights(np.eye(3), True)
    value, error = mvt.max_t_sf(2.5, np.inf, heights, rank)
    expected = 1 - (1 - 2 * stats.norm.sf(2.5)) ** 3
    assert value == pytest.approx(expected, rel=1e-3)
    assert abs(value - expected) < 6 * error + 1e-6
    assert mvt.dunnett_sf(2.5, np.zeros(3), np.inf) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("df", [3.0, 20.0, np.inf])
def test_sphere_agrees_with_quadrature(df):
    """Two ways to Dunnett's distribution; the sphere keeps its relative accuracy far in the tail."""
    for two_sided in (True, False):
        heights, rank = mvt.sphere_heights(EQUAL, two_sided)
        for t in (1.0, 2.5, 6.0):
            expected = mvt.dunnett_sf(t, np.full(3, np.sqrt(0.5)), df, two_sided)
            value, error = mvt.max_t_sf(t, df, heights, rank)
            assert abs(value - expected) < 6.0 * error + 1e-4 * expected + 1e-13
            assert error < 0.03 * expected  # of the value itself, however far in the tail


def test_circle_rule_is_exact():
    correlation = np.array([[1.0, 0.3], [0.3, 1.0]])
    heights, rank = mvt.sphere_heights(correlation, True)
    assert rank == 2
    loadings = mvt.product_structure(correlation)
    assert mvt.max_t_sf(2.2, 9.0, heights, rank)[0] == pytest.approx(
        mvt.dunnett_sf(2.2, loadings, 9.0), abs=1e-9
    )


def test_singular_correlation_of_all_pairs():
    C = np.array([[1, -1, 0, 0], [1, 0, -1, 0], [1, 0, 0, -1], [0, 1, -1, 0], [0, 1, 0, -1], [0, 0, 1, -1.0]])
    heights, rank = mvt.sphere_heights(C @ C.T / 2, True)
    assert rank == 3
    value = mvt.max_t_sf(2.5, 12.0, heights, rank)[0]
    assert value == pytest.approx(mvt.range_sf(2.5 * np.sqrt(2.0), 4, 12.0), rel=1e-3)


def test_published_dunnett_quantiles():
    """Dunnett (1964), Biometrics 20, 482-491, table II: two-sided 5 % points, equal sizes."""
    for k, df, expected in ((2, 10, 2.57), (3, 20, 2.54), (5, 30, 2.66)):
        loadings = np.full(k, np.sqrt(0.5))
        found = mvt.quantile_of(lambda t, d=df, l=loadings: mvt.dunnett_sf(t, l, float(d)), 0.05)
        assert found == pytest.approx(expected, abs=0.006)


def test_product_structure():
    loadings = np.array([0.9, -0.4, 0.6, 0.2])
    R = np.outer(loadings, loadings)
    np.fill_diagonal(R, 1.0)
    found = mvt.product_structure(R)
    assert np.outer(found, found)[np.triu_indices(4, 1)] == pytest.approx(R[np.triu_indices(4, 1)], abs=1e-10)
    assert mvt.product_structure(np.eye(3)).tolist() == [0.0, 0.0, 0.0]
    R[0, 1] = R[1, 0] = 0.1
    assert mvt.product_structure(R) is None


def test_results_do_not_change_between_calls():
    first = mvt.max_t_sf(2.0, 5.0, *mvt.sphere_heights(EQUAL, True))
    mvt._sphere.cache_clear()
    assert mvt.max_t_sf(2.0, 5.0, *mvt.sphere_heights(EQUAL, True)) == first
