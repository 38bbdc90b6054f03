"""The diagnosis of a fit: each check on a model that has the fault, and on one that has not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.inference.checks.collinearity import condition_number, generalised_vif

from .diagnostic_references import fit_of, values


def found(fit, check, status=None):
    return [f for f in fit.diagnose().findings if f.check == check and status in (None, f.status)]


def frame(seed=1, groups=15, per=8):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), per)
    x = rng.normal(size=g.size)
    b = rng.normal(size=(groups, 2)) @ np.array([[1.0, 0.0], [0.2, 0.6]])
    y = 1 + x + b[g, 0] + b[g, 1] * x + rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "g": g})


def test_a_good_fit_is_ok():
    diagnosis = mm.lmm("y ~ x + (x | g)", frame()).diagnose()
    assert diagnosis.ok
    assert {f.status for f in diagnosis.findings} <= {"ok", "note"}
    assert list(diagnosis.table.columns) == ["check", "status", "finding", "remedy"]
    assert "nothing to worry about" in str(diagnosis) and "<table" in diagnosis.to_html()
    assert len(diagnosis.to_frame()) == len(diagnosis.findings)


def test_convergence():
    with pytest.warns(mm.ConvergenceWarning):
        early = mm.lmm("y ~ x + (x | g)", frame(), control={"maxiter": 1}, start=[20.0, 0.0, 20.0])
    (problem,) = found(early, "convergence", "problem")
    assert "not converged" in problem.finding and "maxiter" in problem.remedy
    assert not early.diagnose().ok
    assert found(mm.lmm("y ~ x + (x | g)", frame()), "first-order conditions", "ok")


def test_singular_components_are_named_with_their_direction():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    x = rng.normal(size=72)
    y = 1 + x + rng.normal(size=12)[g] * (1 + 0.5 * x) + 0.5 * rng.normal(size=72)
    (warning,) = found(mm.lmm("y ~ x + (x | g)", {"y": y, "x": x, "g": g}), "singularity", "warning")
    assert "correlation of (Intercept) and x is estimated as +1" in warning.finding
    assert "simpler random part" in warning.remedy
    zero = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2"))
    (warning,) = found(zero, "singularity", "warning")
    assert "in Batch, the variance of (Intercept) is estimated as zero" in warning.finding


def test_a_weak_component_is_a_note():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(60), 20)
    x = rng.normal(size=g.size)
    u = rng.normal(size=60)
    y = u[g] * (1 + x) + 0.08 * rng.normal(size=60)[g] * x + 0.5 * rng.normal(size=g.size)
    fit = mm.lmm("y ~ x + (x | g)", {"y": y, "x": x, "g": g})
    assert not fit.is_singular
    (note,) = found(fit, "singularity", "note")
    assert "1 of 2 principal components" in note.finding


def test_scaling():
    df = frame().assign(big=lambda d: 1e6 * np.random.default_rng(0).normal(size=len(d)))
    (note,) = found(mm.lmm("y ~ x + big + (1 | g)", df), "scaling", "note")
    assert "x and big" in note.finding
    df = frame()
    df["year"] = df["x"] + 2000
    notes = found(mm.lmm("y ~ x + (year | g)", df), "scaling", "note")
    assert any("year lies far from zero (g)" in note.finding for note in notes)
    assert found(mm.lmm("y ~ x + (x | g)", frame()), "scaling", "ok")


def test_collinearity():
    df = frame().assign(z=lambda d: d["x"] + 0.05 * np.random.default_rng(0).normal(size=len(d)))
    (warning,) = found(mm.lmm("y ~ x + z + (1 | g)", df), "collinearity", "warning")
    assert "condition number" in warning.finding
    (rank,) = found(mm.lmm("y ~ x + I(2 * x) + (1 | g)", df), "rank")
    assert "I(2 * x)" in rank.finding


def test_identifiability_of_few_levels_and_single_rows():
    df = frame().assign(four=lambda d: d["g"] % 4, one=lambda d: np.where(d.index < 100, d.index, d["g"]))
    (warning,) = found(mm.lmm("y ~ x + (1 | four)", df), "identifiability", "warning")
    assert "only 4 levels" in warning.finding
    notes = found(mm.lmm("y ~ x + (1 | one)", df), "identifiability", "note")
    assert any("have one row only" in note.finding for note in notes)


def test_identifiability_of_terms_that_overlap():
    df = frame().assign(h=lambda d: (d["g"] * 7 + 3).astype(str), u=lambda d: (d["g"] % 3) * 1.0)
    same = found(mm.lmm("y ~ x + (1 | g) + (1 | h)", df), "identifiability", "warning")
    assert any("group the rows in the same way" in f.finding for f in same)
    twice = found(mm.lmm("y ~ x + (1 | g) + (x | g)", df), "identifiability", "warning")
    assert any("two terms on g hold (Intercept)" in f.finding for f in twice)
    between = found(mm.lmm("y ~ x + u + (u | g)", df), "identifiability", "warning")
    assert any("u does not vary within any level of g" in f.finding for f in between)


def test_unusual_rows_and_levels():
    df = frame()
    df.loc[17, "y"] += 12
    df.loc[df["g"] == 4, "y"] += 25
    fit = mm.lmm("y ~ x + (1 | g)", df)
    findings = found(fit, "unusual data", "note")
    assert any("row 17" in f.finding for f in findings)
    assert any("outlying level of g: 4" in f.finding for f in findings)
    assert found(mm.lmm("y ~ x + (x | g)", frame()), "unusual data", "ok")


def test_a_level_that_decides_the_estimates():
    df = frame()
    df.loc[df["g"] == 4, "x"] += 30
    df.loc[df["g"] == 4, "y"] -= 60
    fit = mm.lmm("y ~ x + (1 | g)", df)
    (note,) = found(fit, "influence")
    assert "4 (" in note.finding and 'influence("g", refit=True)' in note.remedy


def test_models_without_fixed_or_random_part(sleepstudy):
    assert mm.lmm("Reaction ~ 0 + (1 | Subject)", sleepstudy).diagnose().findings
    cake = mm.load_dataset("cake", backend="pandas")
    assert mm.lmm("angle ~ recipe * temperature + (1 | recipe:replicate)", cake).diagnose().findings


# ---------------------------------------------------------------------- variance inflation


def test_vif_of_car():
    table = fit_of("cake").vif()
    assert table["term"].tolist() == ["recipe", "temp", "recipe:temp"]
    assert table["df"].tolist() == [2, 1, 2]
    np.testing.assert_allclose(table["gvif"], values()["cake.gvif"], rtol=1e-5)
    np.testing.assert_allclose(table["gvif_root"], table["gvif"] ** (0.5 / table["df"]))


def test_vif_of_one_column_is_the_usual_one():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    centred = X - X.mean(axis=0)
    vcov = np.linalg.inv(np.column_stack([np.ones(50), X]).T @ np.column_stack([np.ones(50), X]))
    usual = np.diagonal(np.linalg.inv(np.corrcoef(centred.T)))
    found = generalised_vif(vcov, [slice(1, 2), slice(2, 3), slice(3, 4)])
    np.testing.assert_allclose(found, usual, rtol=1e-9)


def test_vif_needs_terms(fit):
    assert fit.vif()["gvif"].tolist() == pytest.approx([1.0])
    with pytest.raises(mm.OptionError, match="no fixed effects beside the intercept"):
        mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff")).vif()
    none = mm.lmm("Reaction ~ 0 + Days + (1 | Subject)", mm.load_dataset("sleepstudy"))
    assert any("no intercept" in note for note in none.vif().notes)


def test_condition_number():
    assert condition_number(np.eye(3)) == pytest.approx(1.0)
    X = np.column_stack([np.ones(20), 1e7 + np.arange(20.0)])
    length = np.sqrt((X**2).sum(axis=0))
    assert condition_number(X) == pytest.approx(np.linalg.cond(X / length), rel=1e-6)
    assert condition_number(np.ones((5, 0))) == 1.0


def test_the_origin_of_a_slope_is_not_a_weak_component(sleepstudy):
    data = sleepstudy.assign(year=sleepstudy["Days"] + 2000.0)
    fit = mm.lmm("Reaction ~ year + (year | Subject)", data)
    assert not found(fit, "singularity", "note")
    assert any("centre it" in f.remedy for f in found(fit, "scaling", "note"))


def test_far_origins_do_not_spoil_the_numbers(sleepstudy):
    data = sleepstudy.assign(year=sleepstudy["Days"] + 2000.0, big=1e9 * sleepstudy["Days"])
    base = mm.lmm("Reaction ~ Days + (Days | Subject)", data)
    for name in ("year", "big"):
        other = mm.lmm(f"Reaction ~ {name} + ({name} | Subject)", data)
        np.testing.assert_allclose(other.leverage(), base.leverage(), rtol=1e-6)
        for group in (None, "Subject"):
            a, b = other.influence(group)["cooks_distance"], base.influence(group)["cooks_distance"]
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)
