"""Searches with residual structures where a likelihood has several modes, or rows have several units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

DATA = Path(__file__).parents[1] / "references" / "data"
BOTH = "(voltage || Wafer) + (voltage || Wafer:Site)"


@pytest.fixture(scope="module")
def wafer():
    data = pd.read_csv(DATA / "Wafer.csv")
    return data.assign(Wafer=data["Wafer"].astype(str), Site=data["Site"].astype(str))


def fit_wafer(data, random, residual):
    return mm.lmm(f"current ~ voltage + I(voltage^2) + {random}", data, residual=residual)


@pytest.mark.parametrize(
    ("random", "residual", "loglik"),
    [
        (BOTH, "varpower(voltage)", 258.23299569),
        (BOTH, "varexp(voltage)", 275.78605300),
        ("(1 | Wafer/Site)", "varpower(voltage)", 37.91975611),
        ("(voltage | Wafer) + (1 | Wafer:Site)", "varconstpower(voltage)", 215.14234446),
        ("(1 | Wafer)", "varpower(voltage) * ar1(1 | Wafer:Site)", 93.30122577),
    ],
)
def test_powers_far_from_their_start(wafer, random, residual, loglik):
    """Values of nlme (wafer.R). The first likelihood has a second maximum, 107 lower, at a power of 1.2."""
    fit = fit_wafer(wafer, random, residual)
    assert fit.converged
    assert fit.loglik >= loglik - 1e-6 * abs(loglik)
    assert fit.loglik == pytest.approx(loglik, rel=1e-6)


def test_a_power_of_a_covariate_is_a_special_case_of_levels(wafer):
    """Five voltages: standard deviations of their own fit at least as well as a power."""
    data = wafer.assign(level=wafer["voltage"].astype(str))
    random = "(voltage | Wafer)"
    levels = fit_wafer(data, random, "varident(level) * ar1(1 | Wafer:Site)")
    assert levels.converged
    assert levels.loglik > fit_wafer(data, random, "varpower(voltage) * ar1(1 | Wafer:Site)").loglik


def stacked(ratio):
    """Two responses of one subject in a column, the second in other units."""
    rng = np.random.default_rng(0)
    m, n = 40, 4
    g, kind = np.repeat(np.arange(m), 2 * n), np.tile(np.repeat(["a", "b"], n), m)
    b = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]], m)
    y = 5.0 + np.where(kind == "a", b[g, 0], b[g, 1]) + rng.standard_normal(g.size)
    return {"y": np.where(kind == "a", y, ratio * y), "g": g, "kind": kind}, m * n


@pytest.mark.parametrize("ratio", [1e-6, 1e2, 1e6])
def test_units_of_a_stratum_do_not_matter(ratio):
    """Responses in other units: the likelihood shifts, ratios, effects and errors scale, nothing is said."""
    plain, _ = stacked(1.0)
    data, rows = stacked(ratio)
    formula, residual = "y ~ 0 + kind + (0 + kind | g)", "varident(kind)"
    one, other = (mm.lmm(formula, each, residual=residual, reml=False) for each in (plain, data))
    assert other.converged and not other.messages
    assert other.loglik == pytest.approx(one.loglik - rows * np.log(ratio), abs=1e-6)
    assert other.residual["sd_ratio[b]"] == pytest.approx(ratio * one.residual["sd_ratio[b]"], rel=1e-5)
    scales = np.array([1.0, ratio])
    np.testing.assert_allclose(list(other.fixef.values()), scales * list(one.fixef.values()), rtol=1e-7)
    np.testing.assert_allclose(other.vcov.diagonal(), scales**2 * one.vcov.diagonal(), rtol=1e-5)
    np.testing.assert_allclose(other.residual.std_error, ratio * one.residual.std_error, rtol=1e-4)


def test_a_stratum_fitted_exactly_ends_at_a_bound(wafer):
    """An intercept for each site can reproduce one voltage: a deviation of zero in the limit is said."""
    data = wafer.assign(level=wafer["voltage"].astype(str))
    fit = fit_wafer(data, "(1 | Wafer/Site)", "varident(level)")
    assert fit.converged
    (note,) = [text for text in fit.messages if "practically zero" in text]
    assert "sd_ratio[1.6]" in note
