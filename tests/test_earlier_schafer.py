"""Schafer's further figures (improve.pdf of R's lmm): acceptance of the independence chain, coverage.

Tables 1 and 2, cycles and the marijuana chain are in tests/fit/classical, tests/inference/posterior and
tests/inference/test_small_sample.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm


def one_way(m, n, psi, sigma2, rng):
    g = np.repeat(np.arange(m), n)
    return {"y": np.sqrt(psi) * rng.normal(size=m)[g] + np.sqrt(sigma2) * rng.normal(size=m * n), "g": g}


def test_acceptance_in_a_one_way_layout():
    """200 groups of 2, psi 10, sigma^2 90: 56 % in the paper, where data and prior are not given."""
    prior = mm.VariancePrior(a=270.0, b=3.0, c=3.0, Dinv=30.0)
    rates = []
    for seed in range(3):
        data = one_way(200, 2, 10.0, 90.0, np.random.default_rng(seed))
        chain = mm.sample_posterior(
            "y ~ 1 + (1 | g)", data, prior=prior, proposal="mode", draws=600, warmup=100, chains=2, seed=1,
            progress=False,
        )  # fmt: skip
        rates.append(chain.acceptance)
    assert np.mean(rates) == pytest.approx(0.56, abs=0.06)


def test_acceptance_for_the_growth_data():
    """Intercepts and slopes of 27 children, by sex, prior degrees of freedom 3 and 4: 38 % in the paper.

    The scales of his prior are not given: the rate is 0.27 with those of the maximum-likelihood estimates and
    0.51 with unit matrices; these lie between.
    """
    data = pd.read_csv(Path(__file__).parent / "references" / "data" / "Orthodont.csv")
    data["age"] -= 11.0
    prior = mm.VariancePrior(a=6.0, b=3.0, c=4.0, Dinv=4.0 * np.diag([3.0, 0.05]))
    chain = mm.sample_posterior(
        "distance ~ Sex * age + (age | Subject)", data, prior=prior, proposal="mode", draws=800, warmup=100,
        chains=2, seed=1, progress=False,
    )  # fmt: skip
    assert chain.acceptance == pytest.approx(0.38, abs=0.08)


def test_coverage_with_fifteen_groups():
    """15 groups, half of the variance between them: 94.1 % (corrected), 89.2 % (conventional)."""
    rng = np.random.default_rng(5)
    plain = new = count = 0
    for _ in range(400):
        g, occ = np.repeat(np.arange(15), 6), np.tile(np.arange(6), 15)
        b = np.sqrt(50.0) * rng.normal(size=15)
        y = b[g] + np.sqrt(50.0) * rng.normal(size=90)
        keep = rng.random(90) > 0.1
        fit = mm.lmm("y ~ 0 + occ + (1 | g)", {"y": y[keep], "occ": occ[keep].astype(str), "g": g[keep]})
        if fit.is_singular:
            continue
        table = fit.small_sample()
        error = np.abs(np.asarray(table["estimate"][6:]) - b)
        plain += int((error < 2.0 * table["conditional"][6:]).sum())
        new += int((error < 2.0 * table["std_error"][6:]).sum())
        count += 15
    assert count >= 15 * 395
    assert plain / count == pytest.approx(0.892, abs=0.02)
    assert new / count == pytest.approx(0.941, abs=0.02)
    assert new > plain
