"""Mixtures of chi-squared distributions, against tables and against simulated statistics."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.likelihood.boundary import chi_squared_tail, mixture_tail, one_boundary_variance


@pytest.mark.parametrize(("df", "critical"), [(1, 2.705543), (2, 5.138), (3, 7.045), (4, 8.761)])
def test_critical_values_of_five_per_cent(df, critical):
    # Fitzmaurice, Laird & Ware, Applied Longitudinal Analysis, Appendix C: mixtures of df - 1 and df
    assert mixture_tail(critical, one_boundary_variance(df)) == pytest.approx(0.05, abs=2e-3)


def test_a_statistic_of_zero_has_p_one_and_no_degrees_of_freedom_have_mass_at_zero():
    assert mixture_tail(0.0, {0: 0.5, 1: 0.5}) == 1.0
    assert chi_squared_tail(1e-9, 0) == 0.0 and chi_squared_tail(0.0, 0) == 1.0
    assert np.isnan(chi_squared_tail(float("nan"), 2))


def test_the_mixture_lies_between_its_parts():
    for statistic in (0.3, 2.0, 9.0):
        p = mixture_tail(statistic, one_boundary_variance(3))
        assert chi_squared_tail(statistic, 2) < p < chi_squared_tail(statistic, 3)


@pytest.mark.slow
def test_simulated_statistics_of_a_second_random_effect_follow_the_mixture_and_not_chi_squared():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(150), 6)
    x = np.tile(np.linspace(-1, 1, 6), 150)
    data = {"y": rng.normal(size=150)[g] + rng.normal(size=900), "x": x, "g": g}
    small, large = (mm.lmm(f"y ~ x + ({e} | g)", data) for e in ("1", "x"))
    draws = mm.compare(small, large, method="bootstrap", n=2000, seed=2).extra["draws"][1]
    p = np.array([mixture_tail(max(t, 0.0), one_boundary_variance(2)) for t in draws])
    plain = np.array([chi_squared_tail(max(t, 0.0), 2) for t in draws])
    for alpha in (0.05, 0.2):
        error = np.sqrt(alpha * (1 - alpha) / 2000)
        assert (p <= alpha).mean() == pytest.approx(alpha, abs=4 * error)
        assert (plain <= alpha).mean() < alpha - 2 * error
