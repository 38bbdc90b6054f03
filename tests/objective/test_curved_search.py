"""Structures whose criterion has several minima: the search ends at the lowest."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.objective.curved_search import has_several_minima, other_starts
from mixedmodels.optimize import minimize


def columns(seed, m, k, rho, sd, replicates):
    """Exchangeable effects of k columns with standard deviations of their own."""
    rng = np.random.default_rng(seed)
    R = np.where(np.eye(k) > 0, 1.0, rho)
    values, vectors = np.linalg.eigh(np.outer(sd, sd) * R)
    b = (rng.standard_normal((m, k)) * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    g = np.repeat(np.arange(m), k * replicates)
    v = np.tile(np.repeat(np.arange(k), replicates), m)
    return {"y": 1.0 + b[g, v] + rng.standard_normal(len(g)), "g": g, "v": np.array(list("abcd"))[v]}


CASES = [(seed, 8, 3, -0.2, (1.0, 0.5, 0.0)) for seed in range(6)]
CASES += [(seed, 12, 4, 0.1, (1.3, 0.3, 0.9, 0.6)) for seed in range(6)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def test_separate_standard_deviations_end_at_the_lowest_minimum(case):
    """No search from anywhere in the parameter space ends lower."""
    seed, m, k, rho, sd = case
    fit = mm.lmm("y ~ 1 + cs(0 + v | g)", columns(seed, m, k, rho, np.array(sd), 2))
    assert fit.converged
    rng = np.random.default_rng(1)
    objective = fit.objective
    for _ in range(8):
        start = np.append(rng.uniform(0.0, 2.0, k), rng.uniform(objective.lower[-1], objective.upper[-1]))
        found = minimize(objective, "newton", start, certify=False)
        assert fit.optimum.value < found.value + 1e-6


def test_one_search_is_not_enough():
    """The minima differ: some case is improved by the other starts."""
    gains = []
    for seed, m, k, rho, sd in CASES:
        fit = mm.lmm("y ~ 1 + cs(0 + v | g)", columns(seed, m, k, rho, np.array(sd), 2))
        gains.append(minimize(fit.objective, "newton", certify=False).value - fit.optimum.value)
    assert min(gains) >= -1e-9
    assert max(gains) > 1e-3


def test_starts_are_few_and_inside():
    fit = mm.lmm("y ~ 1 + cs(0 + v | g)", columns(3, 12, 4, 0.5, np.ones(4), 2))
    starts = other_starts(fit.objective, fit.theta)
    assert 1 <= len(starts) <= 4
    for start in starts:
        assert np.all(start >= fit.objective.lower) and np.all(start <= fit.objective.upper)
        assert np.isfinite(fit.objective.value(start))


def test_which_models_are_searched_again():
    data = columns(3, 12, 4, 0.5, np.ones(4), 2)
    assert has_several_minima(mm.lmm("y ~ 1 + cs(0 + v | g)", data).objective)
    assert not has_several_minima(mm.lmm("y ~ 1 + (0 + v | g)", data).objective)
    assert not has_several_minima(mm.lmm("y ~ 1 + toep(0 + v | g)", data).objective)


def test_a_limit_is_kept():
    """A caller who limits the iterations gets one search."""
    data = columns(3, 12, 4, 0.5, np.ones(4), 2)
    with pytest.warns(mm.errors.ConvergenceWarning):
        fit = mm.lmm("y ~ 1 + cs(0 + v | g)", data, control={"maxiter": 2})
    assert fit.optimum.iterations <= 2
