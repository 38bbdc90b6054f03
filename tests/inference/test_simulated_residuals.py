"""Simulation residuals: uniform under the model, tests that see what is wrong, honest p-values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm


def data_of(rng, spread=lambda x: 1.0, tail=None, curve=0.0):
    g = np.repeat(np.arange(20), 12)
    x = rng.uniform(0, 2, g.size)
    noise = rng.standard_normal(g.size) if tail is None else rng.standard_t(tail, g.size)
    y = 1 + x + curve * (x - 1) ** 2 + rng.normal(size=20)[g] + spread(x) * noise
    return pd.DataFrame({"y": y, "x": x, "g": g})


@pytest.fixture(scope="module")
def good():
    return mm.lmm("y ~ x + (1 | g)", data_of(np.random.default_rng(11)))


def p_of(table, test):
    return {row["test"]: row["p_value"] for row in table.rows()}[test]


@pytest.mark.parametrize("new_effects", [True, False])
def test_a_model_that_holds(good, new_effects):
    checked = good.simulated_residuals(200, seed=1, new_effects=new_effects)
    assert ((checked.residuals > 0) & (checked.residuals < 1)).all()
    assert checked.residuals.mean() == pytest.approx(0.5, abs=0.07)
    assert (checked.tests()["p_value"] > 0.01).all()
    assert (checked.by_group("g")["p_value"] > 0.01).all()


def test_the_same_seed_the_same_residuals(good):
    a, b = good.simulated_residuals(50, seed=3), good.simulated_residuals(50, seed=3)
    assert np.array_equal(a.residuals, b.residuals)
    assert not np.array_equal(a.residuals, good.simulated_residuals(50, seed=4).residuals)


def test_spread_that_grows_is_seen():
    df = data_of(np.random.default_rng(5), spread=lambda x: 0.2 + 1.5 * x)
    checked = mm.lmm("y ~ x + (1 | g)", df).simulated_residuals(200, seed=1, new_effects=False)
    assert p_of(checked.quantiles("x"), "quantiles along x") < 0.01


def test_a_curve_left_out_is_seen():
    df = data_of(np.random.default_rng(6), curve=2.0)
    checked = mm.lmm("y ~ x + (1 | g)", df).simulated_residuals(200, seed=1, new_effects=False)
    assert p_of(checked.quantiles("x"), "quantiles along x") < 0.01
    assert p_of(checked.quantiles(df["x"].to_numpy()), "quantiles along x") < 0.01


def test_heavy_tails_are_seen_as_outliers():
    df = data_of(np.random.default_rng(7), tail=1.5)
    checked = mm.lmm("y ~ x + (1 | g)", df).simulated_residuals(250, seed=1, new_effects=False)
    assert p_of(checked.uniformity(), "uniformity") < 0.01
    frame = checked.columns()
    assert frame["outlier"].sum() == checked.outliers()["statistic"][0]


def test_unequal_spread_of_groups_is_seen():
    rng = np.random.default_rng(8)
    df = data_of(rng)
    df.loc[df["g"] < 5, "y"] += 4 * rng.standard_normal(60)
    checked = mm.lmm("y ~ x + (1 | g)", df).simulated_residuals(200, seed=1, new_effects=False)
    table = checked.by_group("g")
    assert p_of(table, "spread within g") < 0.01


def test_dispersion_of_responses_simulated_elsewhere(good):
    rng = np.random.default_rng(1)
    narrow = good.fitted()[:, None] + 0.5 * good.sigma * rng.standard_normal((good.nobs, 100))
    checked = good.simulated_residuals(simulations=narrow, seed=1)
    row = checked.dispersion()
    assert row["statistic"][0] > 2.0 and row["p_value"][0] == pytest.approx(2 / 101)


def test_integers_are_spread_within_their_ties(good):
    rng = np.random.default_rng(2)
    rate = np.exp(0.3 * rng.standard_normal(good.nobs))
    counts = mm.lmm("y ~ x + (1 | g)", data_of(rng)).refit(rng.poisson(rate).astype(float))
    sims = rng.poisson(rate[:, None], (good.nobs, 200)).astype(float)
    checked = counts.simulated_residuals(simulations=sims, seed=1)
    assert p_of(checked.uniformity(), "uniformity") > 0.01
    assert len(np.unique(checked.residuals)) == good.nobs
    lumped = counts.simulated_residuals(simulations=sims, seed=1, integer=False)
    assert lumped.uniformity()["statistic"][0] > checked.uniformity()["statistic"][0]


def test_p_values_are_uniform_where_groups_are_correlated():
    """Strong correlation in groups: a test that took rows as independent would reject often."""
    rng = np.random.default_rng(3)
    df = data_of(rng)
    fit = mm.lmm("y ~ x + (1 | g)", df)
    p = []
    for _ in range(60):
        pool = 2.0 * rng.normal(size=(20, 81))[df["g"]] + rng.normal(size=(240, 81))
        checked = fit.refit(pool[:, 0]).simulated_residuals(simulations=pool[:, 1:], seed=1)
        p.append(checked.uniformity()["p_value"][0])
    p = np.array(p)
    assert abs((p < 0.5).mean() - 0.5) < 0.25 and (p < 0.05).mean() < 0.2


def test_rows_and_forms(good):
    checked = good.simulated_residuals(60, seed=1)
    frame = checked.to_frame()
    assert list(frame.columns) == ["row", "residual", "fitted", "expected", "outlier"]
    assert sorted(frame["expected"])[0] == pytest.approx(0.5 / good.nobs)
    assert "uniformity" in str(checked) and "<table" in checked.to_html()


def test_errors(good):
    with pytest.raises(mm.OptionError, match="at least 20"):
        good.simulated_residuals(5)
    with pytest.raises(mm.OptionError, match="seed"):
        good.simulated_residuals(50, seed="now")
    with pytest.raises(mm.DataError, match="simulations has shape"):
        good.simulated_residuals(simulations=np.zeros((3, 50)))
    checked = good.simulated_residuals(30, seed=1)
    with pytest.raises(mm.OptionError, match="neither a grouping factor"):
        checked.by_group("nothing")
    with pytest.raises(mm.DataError, match="no column 'nothing'"):
        checked.quantiles("nothing")
    with pytest.raises(mm.DataError, match="x has shape"):
        checked.quantiles(np.arange(3.0))
