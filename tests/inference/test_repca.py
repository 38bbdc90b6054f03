"""Principal components of the random effects."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.checks.repca import principal_components


def test_components_rebuild_the_covariance(fit):
    table = fit.repca()
    L = table.extra["loadings"]["Subject"]
    lam = np.array(fit._factors[0])
    np.testing.assert_allclose(L * table["sd"] ** 2 @ L.T, lam @ lam.T, atol=1e-12)
    np.testing.assert_allclose(L.T @ L, np.eye(2), atol=1e-12)
    assert table["cumulative"].tolist() == pytest.approx([table["proportion"][0], 1.0])
    assert table.extra["names"]["Subject"] == ["(Intercept)", "Days"]


def test_correlations_do_not_depend_on_units(sleepstudy):
    a = mm.lmm("Reaction ~ Days + (Days | Subject)", sleepstudy).repca(scale=True)
    hours = sleepstudy.assign(Days=24.0 * sleepstudy["Days"])
    b = mm.lmm("Reaction ~ Days + (Days | Subject)", hours).repca(scale=True)
    np.testing.assert_allclose(a["proportion"], b["proportion"], rtol=1e-5)
    assert (a["sd"] ** 2).sum() == pytest.approx(2.0)


def test_terms_on_one_group_are_taken_together(sleepstudy):
    table = mm.lmm("Reaction ~ Days + (Days || Subject)", sleepstudy).repca()
    assert table["group"].tolist() == ["Subject", "Subject"]
    assert sorted(np.abs(table.extra["loadings"]["Subject"]).ravel().tolist()) == pytest.approx([0, 0, 1, 1])


def test_a_component_without_variance_is_said():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    x = rng.normal(size=72)
    b = rng.normal(size=12)
    y = 1 + x + b[g] * (1 + 0.5 * x) + 0.5 * rng.normal(size=72)
    fit = mm.lmm("y ~ x + (x | g)", {"y": y, "x": x, "g": g})
    assert fit.is_singular
    table = fit.repca()
    assert table["proportion"][1] < 1e-8
    assert "1 of 2 components without variance" in table.notes[0]


def test_zero_factor():
    sd, loadings = principal_components(np.zeros((2, 2)), scale=True)
    assert sd.tolist() == [0.0, 0.0] and np.isfinite(loadings).all()
