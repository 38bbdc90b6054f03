"""The parametric bootstrap of a likelihood ratio: counting, failures, closed form without random effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.likelihood import lrt_bootstrap
from mixedmodels.inference.likelihood.lrt_bootstrap import bootstrap_lrt
from mixedmodels.inference.likelihood.reduced import fit_design


@pytest.fixture(scope="module")
def pair():
    data = mm.load_dataset("Dyestuff", "dict")
    large = mm.lmm("Yield ~ 1 + (1 | Batch)", data)
    return fit_design(large, replace(large.design, terms=())), large


def test_the_statistics_are_those_of_refits_one_by_one(pair):
    small, large = pair
    result = bootstrap_lrt(small, large, 12, seed=3)
    Y = small.simulate(12, seed=np.random.default_rng(3))
    expected = [
        fit_design(large, replace(small.design, y=y)).criterion - large.refit(y).criterion for y in Y.T
    ]
    np.testing.assert_allclose(result.draws, expected, atol=1e-6)
    assert result.statistic == pytest.approx(small.criterion - large.criterion, rel=1e-12)
    assert result.p_value == ((result.draws >= result.statistic).sum() + 1) / 13
    assert result.failures == () and result.notes() == []


def test_the_size_of_the_chunks_does_not_matter(pair, monkeypatch):
    whole = bootstrap_lrt(*pair, 20, seed=5)
    monkeypatch.setattr(lrt_bootstrap, "_VALUES", 30 * 7)  # seven responses of 30 values at a time
    assert bootstrap_lrt(*pair, 20, seed=5).p_value == whole.p_value
    np.testing.assert_array_equal(bootstrap_lrt(*pair, 20, seed=5).draws, whole.draws)


def test_failures_are_counted_and_said(pair, monkeypatch):
    genuine = lrt_bootstrap.refit_many

    def failing(fit, Y, **options):
        refits = genuine(fit, Y, **options)
        criterion, converged = refits.criterion.copy(), refits.converged.copy()
        criterion[[1, 4]] = np.nan
        converged[[1, 4, 5]] = False
        return replace(
            refits, criterion=criterion, converged=converged, failures=((1, "no"), (4, "not at all"))
        )

    monkeypatch.setattr(lrt_bootstrap, "refit_many", failing)
    result = bootstrap_lrt(*pair, 20, seed=5)
    assert [place for place, _ in result.failures] == [1, 4] and result.not_converged == 1
    left = result.draws[np.isfinite(result.draws)]
    assert len(left) == 18
    assert result.p_value == ((left >= result.statistic).sum() + 1) / 19
    assert "2 of 20" in result.notes()[0] and "1 of 20" in result.notes()[1]


def test_p_values_of_a_true_null_are_uniform():
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(10), 5)
    p_values = []
    for seed in range(60):
        x = rng.normal(size=50)
        data = {"y": rng.normal(size=10)[g] + rng.normal(size=50), "x": x, "g": g}
        fit = mm.lmm("y ~ x + (1 | g)", data, reml=False)
        p_values.append(fit.test_fixed("x", "bootstrap", n=39, seed=seed, n_jobs=1)["p_value"][0])
    counts = np.histogram(p_values, bins=[0, 0.2501, 0.5001, 0.7501, 1.0])[0]
    assert ((counts - 15) ** 2 / 15).sum() < 16.3  # chi-squared with 3 degrees of freedom: 0.999
