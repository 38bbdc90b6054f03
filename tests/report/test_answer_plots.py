"""Plots of answers: influence, profiles, bootstraps, means, effects, simulated residuals."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.integrate import trapezoid

import mixedmodels as mm
from mixedmodels.inference.means.effects import effects
from mixedmodels.report.plots.fit_plots import KINDS


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def profile(fit):
    return fit.profile()


@pytest.fixture(scope="module")
def bootstrap(fit):
    return fit.bootstrap(60, 1)


@pytest.fixture(scope="module")
def cake():
    return mm.lmm("angle ~ recipe * temp + (1 | recipe:replicate)", mm.load_dataset("cake", backend="pandas"))


def panels(count):
    return [plt.subplots()[1] for _ in range(count)]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_influence_names_the_largest(fit):
    _, ax = plt.subplots()
    assert fit.plot.influence("Subject", ax=ax, named=2) is ax
    table = fit.influence("Subject")
    order = np.argsort(table["cooks_distance"])[::-1][:2]
    assert texts(ax) == [str(table["level"][i]) for i in order]
    frame = fit.plot.data("influence", group="Subject")
    np.testing.assert_array_equal(frame["cooks_distance"], table["cooks_distance"])
    assert len(texts(fit.plot.influence(named=0))) == 0


@pytest.mark.parametrize("kind", ["zeta", "density"])
def test_a_profile_draws_its_curves(profile, kind):
    given = panels(6)
    drawn = profile.plot(given, kind=kind)
    assert [ax.get_title(loc="left") for ax in drawn] == list(profile.parameters)
    assert all(a is b for a, b in zip(drawn, given, strict=True))


def test_the_lines_of_a_profile_are_its_intervals(profile):
    (ax,) = profile.plot(parameters="Days")
    marks = sorted({line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1})
    row = profile.confint(0.95, "Days").rows()[0]
    assert len(marks) == 10
    np.testing.assert_allclose([marks[1], marks[8]], [row["conf_low"], row["conf_high"]], rtol=1e-3)


def test_a_profile_can_be_drawn_without_signs(fit, profile):
    (ax,) = fit.plot.profile("sigma", profile=profile, absolute=True)
    assert min(np.min(line.get_ydata()) for line in ax.lines) >= 0.0


def test_profile_pairs_fill_the_lower_triangle(fit, profile):
    grid = fit.plot.profile_pairs(["Days", "sigma"], profile=profile)
    assert grid.shape == (2, 2)
    assert grid[1, 0].has_data() and not grid[0, 1].get_visible()
    assert profile.plot(kind="pairs", parameters=["Days", "sigma"]).shape == (2, 2)
    with pytest.raises(mm.OptionError, match="needs 4 axes, got 3"):
        profile.plot(panels(3), kind="pairs", parameters=["Days", "sigma"])


def test_the_numbers_of_profiles(fit, profile):
    frame = fit.plot.data("profile", profile)
    assert frame["parameter"].drop_duplicates().tolist() == list(profile.parameters)
    one = frame[frame["parameter"] == "Days"]
    np.testing.assert_allclose(one["zeta"], profile.zeta("Days", one["value"]))

    assert trapezoid(one["density"], one["value"]) == pytest.approx(1.0, abs=0.01)
    assert len(fit.plot.data("profile_density", profile, parameters="fixed")) == 402
    pairs = fit.plot.data("profile_pairs", profile, parameters=["Days", "sigma"])
    assert set(pairs["kind"]) == {"trace_x", "trace_y", "contour"}


def test_bootstrap_panels(fit, bootstrap):
    drawn = bootstrap.plot(parameters="fixed", level=0.8)
    assert [ax.get_title(loc="left") for ax in drawn] == list(bootstrap.names[:2])
    low, high = np.quantile(bootstrap["Days"], [0.1, 0.9])
    bar = next(line for line in drawn[1].lines if line.get_linewidth() == 4)
    np.testing.assert_allclose(bar.get_xdata(), [low, high])
    assert fit.plot.bootstrap(bootstrap)[0].has_data()
    frame = fit.plot.data("bootstrap", bootstrap)
    np.testing.assert_array_equal(frame["Days"], bootstrap["Days"])


def test_means_of_a_factor(cake):
    _, ax = plt.subplots()
    means = cake.emmeans("recipe")
    assert means.plot(ax) is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["A", "B", "C"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), means["estimate"])
    assert ax.get_ylabel() == "angle"
    assert len(cake.plot.data("means", "recipe")) == 3
    assert cake.plot.means(means, ax=ax) is ax


def test_long_names_stand_below_one_another():
    fit = mm.lmm("angle ~ temperature + (1 | recipe:replicate)", mm.load_dataset("cake", backend="pandas"))
    contrasts = fit.emmeans("temperature").pairs()
    ax = contrasts.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == contrasts["contrast"].tolist()
    np.testing.assert_allclose(ax.lines[1].get_xdata(), contrasts["estimate"])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    assert ax.get_xlabel() == "difference of angle"


def test_ratios_of_a_log_response_are_compared_with_one():
    data = mm.load_dataset("cake", backend="pandas")
    fit = mm.lmm("log(angle) ~ recipe + (1 | recipe:replicate)", data)
    ax = fit.emmeans("recipe", type="response").pairs().plot()
    assert ax.get_ylabel() == "ratio of angle"
    assert list(ax.lines[0].get_ydata()) == [1.0, 1.0]
    assert fit.plot.effects("recipe").get_ylabel() == "angle"
    assert fit.plot.effects("recipe", type="link").get_ylabel() == "log(angle)"


def test_one_sided_intervals_are_drawn(cake):
    ax = cake.emmeans("recipe").test(side="greater").plot()
    ends = np.array([segment[:, 1] for segment in ax.collections[0].get_segments()])
    assert np.isfinite(ends).all()


def test_an_effect_is_the_means_along_a_grid(cake):
    _, ax = plt.subplots()
    assert cake.plot.effects("temp", ax=ax) is ax
    assert ax.get_title(loc="left") == "Effect of temp by recipe"
    assert len(ax.lines) == 3  # one for each recipe: the interaction is not averaged over
    frame = cake.plot.data("effects", "temp", at={"temp": [180, 200]})
    means = cake.emmeans(["temp", "recipe"], at={"temp": [180, 200]})
    np.testing.assert_allclose(frame["estimate"], means["estimate"])
    np.testing.assert_allclose(frame["conf_low"], means["conf_low"])
    assert len(cake.plot.effects("temp", by=[]).lines) == 1


def test_a_covariate_told_apart_has_few_values(cake):
    table = effects(cake, "recipe | temp").table
    temp = cake._data["temp"].to_numpy()
    expected = np.array([-1, 0, 1]) * temp.std(ddof=1) + temp.mean()
    np.testing.assert_allclose(np.unique(table["temp"]), expected, atol=0.05)


def test_two_valued_numbers_have_an_effect():
    rng = np.random.default_rng(2)
    data = {"y": rng.standard_normal(40), "z": np.tile([0, 1], 20), "g": np.repeat(np.arange(8), 5)}
    fit = mm.lmm("y ~ z + (1 | g)", data)
    curve = effects(fit, "z")
    assert curve["z"][[0, -1]].tolist() == [0, 1]
    assert curve["estimate"][-1] - curve["estimate"][0] == pytest.approx(fit.fixef["z"])
    coded = effects(mm.lmm("y ~ factor(z) + (1 | g)", data), "z")
    assert len(coded) == 2


def test_simulated_residuals_are_drawn_as_they_are(fit):
    checked = fit.simulated_residuals(50, seed=1)
    first, second = checked.plot()
    np.testing.assert_allclose(np.sort(first.collections[0].get_offsets()[:, 1]), np.sort(checked.residuals))
    assert second.get_xlabel() == "rank of the fitted value"
    assert fit.plot.simulated_residuals(checked)[0].has_data()
    assert len(fit.plot.data("simulated_residuals", checked)) == fit.nobs


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("binned", "rootogram")])
def test_every_kind_has_numbers(fit, profile, bootstrap, kind):
    first = {"means": ["Days"], "effects": ["Days"], "bootstrap": [bootstrap]}.get(kind, [])
    if kind.startswith("profile"):
        first = [profile]
    frame = fit.plot.data(kind, *first)
    assert type(frame).__module__.startswith("pandas")
    assert len(frame) > 0


def test_wrong_input_is_named(fit, profile, bootstrap, cake):
    with pytest.raises(mm.OptionError, match="kind must be 'zeta', 'density' or 'pairs'"):
        profile.plot(kind="pie")
    with pytest.raises(mm.OptionError, match="no option 'colour'; it has kind, parameters, absolute"):
        profile.plot(colour="red")
    with pytest.raises(mm.OptionError, match="no option 'x'; it has none"):
        fit.simulated_residuals(20, 1).plot(x=1)
    with pytest.raises(mm.OptionError, match="Weeks"):
        profile.plot(parameters="Weeks")
    with pytest.raises(mm.OptionError, match="Weeks"):
        bootstrap.plot(parameters="Weeks")
    with pytest.raises(mm.OptionError, match="panels"):
        bootstrap.plot(panels(1))
    with pytest.raises(mm.OptionError, match="grouping factor"):
        fit.plot.effects("Subject")
    with pytest.raises(mm.OptionError, match="did you mean 'temp'"):
        cake.plot.effects("tmp")
    with pytest.raises(mm.OptionError, match="need a predictor"):
        cake.plot.effects([])
    with pytest.raises(mm.OptionError, match="at must be a dict"):
        cake.plot.effects("temp", at=[1, 2])
    with pytest.raises(mm.OptionError, match="already computed"):
        cake.plot.means(cake.emmeans("recipe"), level=0.9)
    with pytest.raises(mm.OptionError, match=r"data\('effects', 'x'\)"):
        cake.plot.data("effects")
    with pytest.raises(mm.OptionError, match="options by name"):
        fit.plot.data("caterpillar", "Subject")
