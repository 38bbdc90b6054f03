"""Messages of generalised fits: separation, limits, few binary observations."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.fit.glmm_messages import undetermined_coefficients


def data_of(seed=1, groups=20, per_group=10):
    rng = np.random.default_rng(seed)
    n = groups * per_group
    g, x = np.repeat(np.arange(groups), per_group), rng.normal(size=n)
    eta = 0.3 + 0.5 * x + 0.7 * rng.normal(size=groups)[g]
    return {
        "y": (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(float),
        "c": rng.poisson(np.exp(0.5 * eta)).astype(float),
        "x": x,
        "t": np.array(["a", "b", "c", "a"])[np.arange(n) % 4],
        "g": np.array([f"g{i:02d}" for i in g]),
    }


def notes(fit, word):
    return [note for note in fit.messages if word in note]


def test_ordinary_fits_say_nothing():
    data = data_of()
    assert mm.glmm("y ~ x + t + (1 | g)", data, family="binomial").messages == ()
    assert mm.glmm("c ~ x + t + (1 | g)", data, family="poisson").messages == ()


def test_quasi_complete_separation_is_named():
    """Hard case 12: one level has only successes."""
    data = data_of()
    data["y"] = np.where(data["t"] == "b", 1.0, data["y"])
    fit = mm.glmm("y ~ x + t + (1 | g)", data, family="binomial")
    (note,) = notes(fit, "separation")
    assert "that tb tells apart" in note and "tc" not in note
    assert 'priors={"tb": ("normal", 0, 2.5)}' in note
    assert fit.se["tb"] > 100.0 and fit.se["x"] < 1.0


def test_complete_separation_is_named():
    data = data_of()
    data["y"] = (data["x"] > 0.2).astype(float)
    fit = mm.glmm("y ~ x + (1 | g)", data, family="binomial")
    (note,) = notes(fit, "separation")
    assert "estimate of x is infinite" in note
    assert fit.loglik == pytest.approx(0.0, abs=1e-3)


def test_a_poisson_cell_of_zeros_is_named():
    data = data_of()
    data["c"] = np.where(data["t"] == "c", 0.0, data["c"])
    fit = mm.glmm("c ~ x + t + (1 | g)", data, family="poisson")
    (note,) = notes(fit, "separation")
    assert "exactly 0 in the rows that tc" in note


def test_rare_events_are_not_separation():
    """One event in a level is enough for a finite estimate."""
    data = data_of()
    c = np.where(data["t"] == "c", 0.0, data["c"])
    c[np.flatnonzero(data["t"] == "c")[3]] = 1.0
    fit = mm.glmm("c ~ x + t + (1 | g)", {**data, "c": c}, family="poisson")
    assert notes(fit, "separation") == []


@pytest.mark.parametrize("per_group", [3, 6])
def test_few_binary_observations_per_level(per_group):
    data = data_of(groups=60, per_group=per_group)
    fit = mm.glmm("y ~ x + (1 | g)", data, family="binomial")
    (note,) = notes(fit, "few binary observations")
    assert f"median {per_group}" in note and "nagq=7" in note


def test_counts_and_large_levels_are_not_few():
    data = data_of(groups=60, per_group=4)
    assert notes(mm.glmm("c ~ x + (1 | g)", data, family="poisson"), "few binary") == []
    assert notes(mm.glmm("y ~ x + (1 | g)", data_of(), family="binomial"), "few binary") == []


def test_directions_without_information():
    X = np.column_stack([np.ones(6), [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]).astype(float)
    w = np.full(6, 0.2)
    assert not undetermined_coefficients(X, w).any()
    w[2:4] = 1e-10
    assert undetermined_coefficients(X, w).tolist() == [False, True, False]
    w[4:] = 1e-10
    assert undetermined_coefficients(X, w).tolist() == [False, True, True]
    assert undetermined_coefficients(X, np.full(6, 1e-10))[1:].all()
