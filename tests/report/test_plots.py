"""Plots: the numbers behind them are right, axes go in and come out, wrong input is named."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm

import mixedmodels as mm
from mixedmodels.inference.checks import plot_data

SINGLE = ("residuals", "qq", "scale_location")
PANELS = ("caterpillar", "ranef_qq", "shrinkage")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("kind", SINGLE)
def test_axes_go_in_and_come_out(fit, kind):
    _, ax = plt.subplots()
    assert getattr(fit.plot, kind)(ax=ax) is ax
    other = getattr(fit.plot, kind)()
    assert other is not ax
    assert other.has_data()


@pytest.mark.parametrize("kind", PANELS)
def test_plots_with_panels_take_and_return_lists_of_axes(fit, kind):
    _, given = plt.subplots(1, 2)
    drawn = getattr(fit.plot, kind)(axes=given)
    assert drawn[0] is given[0]
    assert all(ax.has_data() for ax in drawn)
    assert all(ax.has_data() for ax in getattr(fit.plot, kind)())


@pytest.mark.parametrize("kind", SINGLE + PANELS)
def test_the_numbers_come_in_the_callers_library(fit, kind):
    frame = fit.plot.data(kind)
    assert type(frame).__module__.startswith("pandas")
    assert len(frame) > 0


def test_residual_data_are_the_fits(fit):
    data = plot_data.residual_data(fit)
    np.testing.assert_array_equal(data["residual"], fit.residuals())
    np.testing.assert_array_equal(data["fitted"], fit.fitted())


def test_quantile_limits_hold_the_right_share_of_normal_samples():
    rng = np.random.default_rng(3)
    inside = 0.0
    for _ in range(200):
        data = plot_data.qq_data(rng.standard_normal(60), level=0.9)
        # limits around the line estimated from the sample; a middle order statistic is close to the line
        inside += np.mean((data["sample"] >= data["low"]) & (data["sample"] <= data["high"])) / 200
    assert 0.88 < inside < 0.97


def test_quantiles_of_a_perfect_sample_lie_on_the_line():
    sample = 3.0 + 2.0 * norm.ppf((np.arange(1, 100) - 0.5) / 99)
    data = plot_data.qq_data(sample)
    np.testing.assert_allclose(data["sample"], data["line"], atol=0.002)
    assert np.all(data["low"] < data["high"])


def test_shrinkage_within_a_level_is_least_squares(fit, sleepstudy):
    columns = plot_data.shrinkage_data(fit)
    one = sleepstudy[sleepstudy["Subject"].astype(str) == "308"]
    X = np.column_stack([np.ones(len(one)), one["Days"]])
    expected = np.linalg.lstsq(X, one["Reaction"].to_numpy(), rcond=None)[0] - fit.beta
    np.testing.assert_allclose(columns["within"][:2], expected, rtol=1e-9)
    np.testing.assert_allclose(columns["shrunken"][:2], fit.ranef_arrays()[0].b[0])


def test_levels_too_small_for_least_squares_are_missing():
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(12), 5)
    data = {"y": rng.standard_normal(60) + g % 3, "x": rng.standard_normal(60), "g": g}
    keep = np.ones(60, dtype=bool)
    keep[1:5] = False  # the first level keeps one row
    fit = mm.lmm("y ~ x + (x | g)", {name: values[keep] for name, values in data.items()})
    within = plot_data.shrinkage_data(fit)["within"].reshape(12, 2)
    assert np.isnan(within[0]).all()
    assert np.isfinite(within[1:]).all()
    assert all(ax.has_data() for ax in fit.plot.shrinkage())


def test_caterpillar_limits(fit):
    frame = fit.plot.data("caterpillar", level=0.8)
    half = (frame["conf_high"] - frame["conf_low"]) / 2
    np.testing.assert_allclose(half, 1.2815515655446004 * frame["sd"])
    np.testing.assert_allclose(frame["sd"], fit.ranef(condvar=True)["sd"])


def test_the_smooth_curve_follows_a_curve_in_any_units():
    x = np.linspace(0, 6, 400)
    for scale in (1.0, 1e8, 1e-8):
        at, level = plot_data.smooth(x * scale, np.sin(x) * scale)
        np.testing.assert_allclose(level, np.sin(at / scale) * scale, atol=0.02 * scale)


def test_few_distinct_values_have_no_curve():
    x = np.repeat([1.0, 2.0, 3.0], 20)
    assert plot_data.smooth(x, x)[0].size == 0


def test_wrong_input_is_named(fit):
    with pytest.raises(mm.OptionError, match="Subject"):
        fit.plot.caterpillar("Batch")
    with pytest.raises(mm.OptionError, match="no plot 'pie'"):
        fit.plot.data("pie")
    with pytest.raises(mm.OptionError, match="axes"):
        fit.plot.residuals(ax=3)
    with pytest.raises(mm.OptionError, match="panels"):
        fit.plot.caterpillar(axes=[plt.gca()])
    with pytest.raises(mm.OptionError, match="kind"):
        fit.plot.residuals(kind="strange")
