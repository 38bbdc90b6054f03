"""Confidence intervals by method: quantiles, columns, options and mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mixedmodels as mm
from mixedmodels.errors import OptionError


def test_wald_intervals_are_normal_quantiles(fit):
    table = fit.confint()
    z = stats.norm.ppf(0.975)
    for name, estimate in fit.fixef.items():
        row = table.row(name)
        assert row["conf_low"] == pytest.approx(estimate - z * fit.se[name], rel=1e-12)
        assert row["conf_high"] == pytest.approx(estimate + z * fit.se[name], rel=1e-12)
    assert table.title == "95% Wald intervals"
    assert list(table.to_frame().columns) == ["term", "estimate", "conf_low", "conf_high"]


def test_mixedmodels_jl_wald_limits(fit_ml):
    table = fit_ml.confint()
    assert table["conf_low"] == pytest.approx([238.4061184564825, 7.52295850741417], rel=1e-6)


@pytest.mark.parametrize("method", ["satterthwaite", "kr"])
def test_t_intervals_use_the_reference_distribution(fit, method):
    from mixedmodels.inference.ddf.reference import reference_for

    reference = reference_for(fit, method)
    df = reference.df(np.eye(2))
    table = fit.confint(method, level=0.9)
    half = stats.t.ppf(0.95, df) * np.sqrt(np.diag(reference.vcov))
    assert table["conf_low"] == pytest.approx(fit.beta - half, rel=1e-10)
    assert table["conf_high"] == pytest.approx(fit.beta + half, rel=1e-10)
    assert table["df"] == pytest.approx(df) and df == pytest.approx([17.0, 17.0], rel=1e-4)
    assert table["conf_low"][1] < fit.confint(level=0.9)["conf_low"][1]


def test_balanced_t_intervals_are_those_of_the_subject_means(fit):
    # balanced: the slope is the mean of 18 least-squares slopes, with 17 degrees of freedom
    data = mm.load_dataset("sleepstudy", backend="pandas")
    slopes = [np.polyfit(d["Days"], d["Reaction"], 1)[0] for _, d in data.groupby("Subject", observed=True)]
    half = stats.t.ppf(0.975, 17) * np.std(slopes, ddof=1) / np.sqrt(18)
    row = fit.confint("satterthwaite").row("Days")
    assert (row["conf_low"], row["conf_high"]) == pytest.approx(
        (np.mean(slopes) - half, np.mean(slopes) + half), rel=1e-6
    )


def test_some_parameters_and_other_names_of_methods(fit):
    assert fit.confint(parameters="Days")["term"].tolist() == ["Days"]
    assert fit.confint("Kenward-Roger")["conf_low"] == pytest.approx(fit.confint("kr")["conf_low"])
    assert fit.confint("profile", parameters="Days")["term"].tolist() == ["Days"]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("jackknife", {}, "method 'jackknife' is unknown; available: wald, satterthwaite, kr, profile"),
        (3, {}, "method 3 is unknown"),
        ("wald", {"level": 95}, "level must lie between 0 and 1"),
        ("wald", {"level": "high"}, "level must lie between 0 and 1"),
        ("wald", {"n": 10}, "has no option 'n'; it takes none"),
        ("profile", {"n": 10}, "has no option 'n'; it takes criterion"),
        ("wald", {"parameters": "spread"}, "no parameter 'spread' to ask for here; available: .*Days"),
        ("kr", {"parameters": ["Days", "x"]}, "no parameter 'x'"),
    ],
)
def test_mistakes_are_named(fit, method, options, message):
    with pytest.raises(OptionError, match=message):
        fit.confint(method, **options)
