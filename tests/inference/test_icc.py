"""Parts of the variance, intraclass correlations and R-squared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.inference.checks.variance_parts import mean_variance, parts_of
from mixedmodels.testing import random_design

# R package performance 0.10.2 (insight 0.19.0): icc(), r2_nakagawa()
SLEEP = {
    "fixed": 908.953362623046,
    "random": 1698.07125387171,
    "residual": 654.941028738233,
    "adjusted": 0.72165847429756,
    "unadjusted": 0.520566872417329,
    "conditional": 0.799218906644416,
    "marginal": 0.278652034227087,
}


def test_values_of_performance(fit):
    icc, r2 = fit.icc(), fit.r2()
    for name in ("adjusted", "unadjusted"):
        assert icc.row("all")[name] == pytest.approx(SLEEP[name], rel=1e-6)
        assert icc.row("Subject")[name] == pytest.approx(SLEEP[name], rel=1e-6)
    for name in ("marginal", "conditional"):
        assert r2.row(name)["estimate"] == pytest.approx(SLEEP[name], rel=1e-6)
    for name in ("fixed", "random", "residual"):
        assert r2.extra[name] == pytest.approx(SLEEP[name], rel=1e-6)
    assert any("Johnson" in note for note in icc.notes)


def test_one_way_layout_by_hand():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"))
    variance = fit.theta[0] ** 2 * fit.sigma**2
    expected = variance / (variance + fit.sigma**2)
    assert fit.icc().row("Batch")["adjusted"] == pytest.approx(expected, rel=1e-12)
    assert fit.icc().row("Batch")["unadjusted"] == pytest.approx(expected, rel=1e-12)
    assert fit.r2()["estimate"].tolist() == pytest.approx([0.0, expected], abs=1e-12)


def test_parts_add_up():
    fit = mm.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin"))
    icc, parts = fit.icc(), fit.variance_parts()
    assert icc["group"].tolist() == ["all", "plate", "sample"]
    assert icc["adjusted"][0] == pytest.approx(icc["adjusted"][1:].sum())
    assert parts["share"].sum() == pytest.approx(1.0)
    assert parts["variance"].sum() == pytest.approx(parts.extra["total"])
    assert parts["component"].tolist() == ["fixed effects", "(Intercept)", "(Intercept)", "residual"]


def test_shift_of_the_origin_of_a_slope(sleepstudy):
    """The same model with another origin of Days has the same parts."""
    moved = sleepstudy.assign(Days=sleepstudy["Days"] + 30)
    a = parts_of(mm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy))
    b = parts_of(mm.lmm("Reaction ~ Days + (Days | Subject)", moved))
    assert a.random == pytest.approx(b.random, rel=1e-5)
    assert a.fixed == pytest.approx(b.fixed, rel=1e-6)


def test_mean_variance_is_the_mean_over_rows():
    term = random_design(1, "one_vector").terms[0]
    L = np.tril(np.random.default_rng(0).normal(size=(term.k, term.k)))
    Sigma = L @ L.T
    assert mean_variance(term, Sigma) == pytest.approx(np.mean([z @ Sigma @ z for z in term.Z]))


def test_known_precision_counts_with_its_own_variances():
    term = random_design(1, "precision_slope").terms[0]
    A = np.linalg.inv(term.precision.matrix.toarray())
    Sigma = np.diag(np.arange(1.0, term.k + 1))
    Z = np.ones((len(term.codes), 1)) if term.Z is None else term.Z
    expected = np.mean([A[c, c] * (z @ Sigma @ z) for c, z in zip(term.codes, Z, strict=True)])
    assert mean_variance(term, Sigma) == pytest.approx(expected)


def test_weights_enter_the_residual_part(sleepstudy):
    w = np.linspace(0.5, 2.0, 180)
    a = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, weights=w)
    b = mm.lmm("Reaction ~ Days + (1 | Subject)", sleepstudy, weights=10.0 * w)
    assert parts_of(a).residual == pytest.approx(a.sigma**2 * np.mean(1 / w))
    np.testing.assert_allclose(a.r2()["estimate"], b.r2()["estimate"], rtol=1e-6)
    assert any("weight" in note for note in a.r2().notes)


def test_variances_of_zero_are_numbers():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    assert fit.icc()["adjusted"].tolist() == [0.0, 0.0]
    assert fit.r2()["estimate"].tolist() == [0.0, 0.0]
    assert any("zero" in note for note in fit.icc().notes)
    rng = np.random.default_rng(1)
    df = pd.DataFrame({"y": rng.normal(size=60), "x": np.arange(60.0), "g": np.arange(60) % 6})
    df["y"] += 0.1 * df["x"]
    r2 = mm.lmm("y ~ x + (1 | g)", df).r2()
    assert np.isfinite(r2["estimate"]).all() and r2["estimate"][1] >= r2["estimate"][0] > 0.5
