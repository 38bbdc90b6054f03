"""Structures whose criterion has several minima: the search ends at the lowest."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.objective.curved_search import is_curved, other_starts
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
    assert is_curved(mm.lmm("y ~ 1 + cs(0 + v | g)", data).objective)
    assert not is_curved(mm.lmm("y ~ 1 + (0 + v | g)", data).objective)
    fit = mm.lmm("y ~ 1 + toep(0 + v | g)", data)
    assert is_curved(fit.objective)
    assert other_starts(fit.objective, fit.theta) == []


def test_a_limit_is_kept():
    """A caller who limits the iterations gets one search."""
    data = columns(3, 12, 4, 0.5, np.ones(4), 2)
    with pytest.warns(mm.errors.ConvergenceWarning):
        fit = mm.lmm("y ~ 1 + cs(0 + v | g)", data, control={"maxiter": 2})
    assert fit.optimum.iterations <= 2


def series(seed, m=20, k=6, rho=0.6):
    """Autoregressive series without error of measurement, one row for each visit."""
    rng = np.random.default_rng(seed)
    e = rng.standard_normal((m, k))
    for j in range(1, k):
        e[:, j] = rho * e[:, j - 1] + np.sqrt(1.0 - rho**2) * e[:, j]
    return {
        "y": (1.0 + e).ravel(),
        "g": np.repeat(np.arange(m), k),
        "t": np.tile(np.arange(k), m),
    }


def test_a_term_that_takes_the_place_of_the_residuals():
    """The limit of ar1(t | g) with no residual error is the model with residual="ar1(t | g)"."""
    limits = 0
    for seed in range(8):
        data = series(seed)
        fit = mm.lmm("y ~ 1 + ar1(0 + t | g)", data)
        alone = mm.lmm("y ~ 1", data, residual="ar1(t | g)")
        assert fit.converged
        assert fit.optimum.value < alone.optimum.value + 1e-4
        if fit.theta[0] > 500.0:
            limits += 1
            assert fit.optimum.value == pytest.approx(alone.optimum.value, abs=1e-4)
            assert any("residual=" in message for message in fit.messages)
    assert limits > 0


def test_all_standard_deviations_at_zero():
    """The error of sigma is that of the model without the term."""
    seen = 0
    for seed in range(12):
        data = columns(seed, 12, 3, 0.0, np.zeros(3), 2)
        fit = mm.lmm("y ~ 1 + homcs(0 + v | g)", data)
        if fit.theta[0] == 0.0:
            seen += 1
            error = fit.variance_parameters()["std_error"][-1]
            assert error == pytest.approx(fit.sigma / np.sqrt(2.0 * (len(data["y"]) - 1)), rel=1e-9)
    assert seen > 0


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("tag", ["ar1", "ou"])
def test_processes_without_residual_error_end_at_the_limit(tag, seed):
    """On the way to infinity the criterion becomes rounding: the end is where it is still known."""
    rng = np.random.default_rng(seed)
    m, T = 30, 6
    g, t = np.repeat(np.arange(m), T), np.tile(np.arange(T), m)
    root = np.linalg.cholesky(0.5 ** np.abs(np.subtract.outer(np.arange(T), np.arange(T))))
    x = rng.standard_normal(m * T)
    noise = (rng.standard_normal((m, T)) @ root.T) * np.linspace(0.3, 1.7, T)
    data = {"y": 1.0 + 0.5 * x + noise.ravel(), "x": x, "g": g, "t": t}
    fit = mm.lmm(f"y ~ x + {tag}(0 + t | g)", data, reml=False)
    limit = mm.gls("y ~ x", data, residual="ar1(t | g)", reml=False)
    assert fit.converged
    if any("residual SD tends to zero" in text for text in fit.messages):
        assert fit.loglik == pytest.approx(limit.loglik, abs=1e-4)
    else:
        assert fit.loglik > limit.loglik
