"""Intervals from draws: boot::boot.ci, known answers, laws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

import mixedmodels as mm
from mixedmodels.inference.bootstrap.hdi import shortest_interval
from mixedmodels.inference.bootstrap.intervals import (
    basic,
    bca,
    bootstrap_confint,
    jackknife_acceleration,
    normal,
    percentile,
    studentized,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "references/bootstrap/boot_ci.json").read_text())
PLACES = (np.arange(1, 1000) - 0.5) / 999
DRAWS = 2 * np.exp(0.4 * ndtri(PLACES) + 0.05)
SES = 0.3 + 0.1 * DRAWS
SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mm.lmm(SLEEP, mm.load_dataset("sleepstudy", backend="dict"), reml=False)


@pytest.fixture(scope="module")
def boot(sleep):
    return sleep.bootstrap(999, seed=1)


@pytest.mark.parametrize("level", REFERENCE["levels"])
def test_against_the_boot_package(level):
    want, level = REFERENCE["levels"][level], float(level)
    np.testing.assert_allclose(normal(DRAWS, 2.0, level), want["normal"], rtol=1e-12)
    np.testing.assert_allclose(basic(DRAWS, 2.0, level), want["basic"], rtol=1e-12)
    np.testing.assert_allclose(percentile(DRAWS, 2.0, level), want["percentile"], rtol=1e-12)
    np.testing.assert_allclose(studentized(DRAWS, SES, 2.0, 0.5, level), want["studentized"], rtol=1e-12)
    L = np.array(REFERENCE["L"])
    acceleration = (L**3).sum() / (6 * (L**2).sum() ** 1.5)
    limits = bca(DRAWS, 2.0, acceleration, level)
    # boot interpolates between neighbouring draws on the normal scale, we on the plain one
    np.testing.assert_allclose(limits, want["bca"], rtol=1e-4)
    for limit, place in zip(limits, want["bca_places"], strict=True):
        assert DRAWS[int(place) - 1] <= limit <= DRAWS[int(place)]


def test_shortest_interval():
    assert shortest_interval(np.array([5.0, 1.0, 2.0, 1.5, 9.0]), 0.6) == (1.0, 2.0)
    assert shortest_interval(np.array([1.0, np.nan, 2.0, 4.0]), 0.5) == (1.0, 2.0)
    assert np.isnan(shortest_interval(np.array([1.0]), 0.5)).all()
    x = np.sort(np.random.default_rng(0).gamma(2.0, size=501))
    low, high = shortest_interval(x, 0.9)
    inside = (x >= low) & (x <= high)
    assert inside.sum() == 451  # ceil(0.9 * 501)
    brute = min((x[i + 450] - x[i], i) for i in range(51))
    assert (low, high) == (x[brute[1]], x[brute[1] + 450])
    assert shortest_interval(-x, 0.9) == (-high, -low)


def test_laws(boot):
    table = boot.confint("percentile", 0.9)
    wide = boot.confint("percentile", 0.99)
    assert (table["conf_low"] >= wide["conf_low"]).all()
    assert (table["conf_high"] <= wide["conf_high"]).all()
    reflected = boot.confint("basic", 0.9)
    np.testing.assert_allclose(table["conf_low"] + reflected["conf_high"], 2 * table["estimate"])
    shortest = boot.hdi(0.9)
    assert (
        shortest["conf_high"] - shortest["conf_low"] <= table["conf_high"] - table["conf_low"] + 1e-12
    ).all()
    # symmetric draws: all kinds agree
    t = 3.0 + ndtri(PLACES)
    for limits in (basic(t, 3.0, 0.95), percentile(t, 3.0, 0.95), bca(t, 3.0, 0.0, 0.95)):
        np.testing.assert_allclose(limits, percentile(t, 3.0, 0.95), atol=1e-9)


def test_studentized_intervals_use_each_replicates_own_standard_error(sleep, boot):
    """An earlier package used the fit's standard error in every replicate, which gives the basic interval."""
    rows = boot.confint("studentized", parameters="fixed")
    plain = boot.confint("basic", parameters="fixed")
    assert (np.abs(rows["conf_low"] - plain["conf_low"]) > 0.01 * boot.fit_se).all()
    assert (rows["conf_high"] - rows["conf_low"] > plain["conf_high"] - plain["conf_low"]).all()
    for j, row in enumerate(rows.rows()):
        t = (boot.draws[:, j] - boot.estimates[j]) / boot.se[:, j]
        low, high = np.quantile(t, [0.025, 0.975], method="weibull")
        assert row["conf_low"] == pytest.approx(boot.estimates[j] - high * boot.fit_se[j])
        assert row["conf_high"] == pytest.approx(boot.estimates[j] - low * boot.fit_se[j])
    same = studentized(boot.draws[:, 1], np.full(999, 2.0), boot.estimates[1], 2.0, 0.95)
    np.testing.assert_allclose(same, basic(boot.draws[:, 1], boot.estimates[1], 0.95))


def test_all_kinds_come_from_one_sample(boot):
    table = boot.confint("all", parameters=["Days", "sigma"])
    kinds = ["normal", "basic", "studentized", "percentile", "bca"]
    # sigma has no standard error: no row here, NaN where studentized intervals alone are asked for
    assert list(table["kind"]) == [*kinds, *[kind for kind in kinds if kind != "studentized"]]
    assert list(table.columns) == ["term", "group", "estimate", "conf_low", "conf_high", "kind"]
    for kind in kinds:
        own = boot.confint(kind, parameters=["Days", "sigma"])
        assert list(own["term"]) == ["Days", "sigma"]
        chosen = table["kind"] == kind
        np.testing.assert_array_equal(table["conf_low"][chosen], own["conf_low"][: chosen.sum()])
        assert np.isnan(own["conf_low"]).tolist() == [False, kind == "studentized"]
    assert not np.isnan(table["conf_low"]).any()
    assert any("no standard error" in note for note in table.notes)


def test_jackknife_acceleration_of_a_mean():
    """For the mean of level means the values left out are known: (m mean - mean_l) / (m - 1)."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(25), 4)
    y = 5.0 + rng.gamma(1.0, 3.0, size=25)[g] + rng.normal(size=100)
    fit = mm.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g})
    a, how = jackknife_acceleration(fit.bootstrap(20, seed=1))
    d = y.reshape(25, 4).mean(axis=1) - y.mean()
    assert a[0] == pytest.approx((d**3).sum() / (6 * (d**2).sum() ** 1.5), rel=1e-6)
    assert "levels of g" in how


def test_jackknife_by_blocks_of_many_levels():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(450), 2)
    y = rng.normal(size=450)[g] + rng.normal(size=900)
    fit = mm.lmm("y ~ 1 + (1 | g)", {"y": y, "g": g})
    a, how = jackknife_acceleration(fit.bootstrap(10, seed=1))
    assert "200 blocks" in how and np.isfinite(a).all()


def test_confint_of_the_fit(sleep, boot):
    table = sleep.confint("bootstrap", n=999, seed=1, kind="basic", level=0.9, parameters="Days")
    np.testing.assert_array_equal(
        table["conf_low"], boot.confint("basic", 0.9, parameters="Days")["conf_low"]
    )
    cluster = bootstrap_confint(sleep, n=60, seed=1, resampling="cluster")
    np.testing.assert_array_equal(
        cluster["conf_low"], sleep.bootstrap(60, seed=1, kind="cluster").confint()["conf_low"]
    )


def test_undefined_correlations_are_said(sleep):
    def no_effects(fit, rng):
        return fit.design.X @ fit.beta + fit.sigma * rng.normal(size=180)

    boot = sleep.bootstrap(100, seed=1, simulator=no_effects)
    undefined = int(np.isnan(boot["cor_Days.(Intercept)|Subject"]).sum())
    assert undefined > 5 and boot.failures == ()
    text = str(boot.confint())
    assert f"not defined in {undefined} of 100" in text
    assert np.isfinite(boot.confint(parameters="sd")["conf_high"]).all()


def test_few_replicates_are_said(sleep):
    assert any("few" in note for note in sleep.bootstrap(20, seed=1).confint().notes)
    assert not any("few" in note for note in sleep.bootstrap(200, seed=1).confint().notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "exact"}, "bca"),
        ({"level": 95}, "between 0 and 1"),
        ({"level": 0.0}, "between 0 and 1"),
        ({"parameters": "Weeks"}, "Weeks"),
        ({"parameters": []}, "empty"),
        ({"kind": "bca", "groups": "Day"}, "Day"),
    ],
)
def test_wrong_options(boot, options, words):
    with pytest.raises(mm.OptionError, match=words):
        boot.confint(**options)


def test_confint_checks_before_it_works(sleep):
    with pytest.raises(mm.OptionError, match="exact"):
        sleep.confint("bootstrap", n=10**9, kind="exact")
