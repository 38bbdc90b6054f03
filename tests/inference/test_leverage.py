"""Leverages: lme4's values, effective degrees of freedom, row rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.solver.dense import DenseSolver

from .diagnostic_references import fit_of, values

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mm.load_dataset("sleepstudy", backend="pandas")


@pytest.mark.parametrize("name", ["sleep", "pastes", "machines", "penicillin"])
def test_hat_values_of_lme4(name):
    np.testing.assert_allclose(fit_of(name).leverage(), values()[f"{name}.hat"], rtol=2e-6)


def test_derivative_of_the_fitted_values(sleep):
    """h_i is d fitted_i / d y_i at the theta of the fit."""
    data = sleep.assign(w=np.linspace(0.5, 2.0, 180))
    fit = mm.lmm(SLEEP, data, weights="w")
    for i in (0, 77, 179):
        design = fit.design
        y = design.y.copy()
        y[i] += 1.0
        moved = replace(design, y=y)
        solution = DenseSolver(moved).solution([np.array(f) for f in fit._factors])
        eta = design.X[i] @ solution.beta + design.terms[0].Z[i] @ solution.b[0][design.terms[0].codes[i]]
        assert eta - fit.fitted()[i] == pytest.approx(fit.leverage()[i], abs=1e-9)


def test_without_random_variance_it_is_least_squares():
    data = mm.load_dataset("Dyestuff2", backend="pandas")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data)
    np.testing.assert_allclose(fit.leverage(), np.full(30, 1 / 30), rtol=1e-12)


def test_weights_do_not_depend_on_their_unit(sleep):
    w = np.linspace(0.5, 2.0, 180)
    a = mm.lmm(SLEEP, sleep, weights=w).leverage()
    b = mm.lmm(SLEEP, sleep, weights=100.0 * w).leverage()
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_rows_left_out(sleep):
    data = sleep.copy()
    data.loc[3, "Reaction"] = np.nan
    fit = mm.lmm(SLEEP, data, na_action="exclude")
    h = fit.leverage()
    assert h.shape == (180,) and np.isnan(h[3]) and np.isfinite(np.delete(h, 3)).all()
    assert mm.lmm(SLEEP, data).leverage().shape == (179,)
    weights = np.ones(180)
    weights[5] = 0.0
    h = mm.lmm(SLEEP, sleep, weights=weights).leverage()
    assert h.shape == (180,) and np.isnan(h[5])


def test_residuals_over_their_standard_deviations():
    fit = fit_of("sleep")
    # lme4 calls it rstudent although its sigma is that of all rows
    np.testing.assert_allclose(
        fit.residuals("standardized"), values()["sleep.rstudent"], rtol=1e-5, atol=1e-6
    )
    r, t, nu = fit.residuals("standardized"), fit.residuals("studentized"), fit.nobs - 2
    np.testing.assert_allclose(t, r * np.sqrt((nu - 1) / (nu - r**2)), rtol=1e-10)
    assert np.array_equal(fit.residuals("studentised"), t)
    fixed = mm.lmm(SLEEP, mm.load_dataset("sleepstudy"), sigma=25.0)
    np.testing.assert_array_equal(fixed.residuals("studentized"), fixed.residuals("standardized"))


def test_a_row_that_fits_itself_has_no_standardized_residual():
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"y": rng.normal(size=40), "g": np.arange(40) % 8, "x": (np.arange(40) == 4) * 1.0})
    fit = mm.lmm("y ~ x + (1 | g)", df)
    assert fit.leverage()[4] == pytest.approx(1.0, abs=1e-12)
    assert np.isnan(fit.residuals("standardized")[4])
    assert np.isfinite(np.delete(fit.residuals("studentized"), 4)).all()
    assert np.isnan(fit.influence()["cooks_distance"][4])
