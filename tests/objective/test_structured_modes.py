"""Residual structures whose criterion has several minima, and where their searches start."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.objective.structured_modes import mode_starts
from mixedmodels.objective.structured_search import search
from mixedmodels.residual.visit_moments import general_start, visit_covariances

TOOL = Path(__file__).parents[2] / "tools" / "many_starts_residual.py"


@pytest.fixture(scope="module")
def tool():
    """The simulated data sets of tools/many_starts_residual.py."""
    if not TOOL.exists():
        pytest.skip("the tools are not part of a source distribution")
    spec = importlib.util.spec_from_file_location("many_starts_residual", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# (structure, random term, data set): one search from the ordinary start ended 0.49, 0.042, 1.8, 0.065, 1.4,
# 0.22, 0.97, 0.084, 0.16 and 0.55 higher
MODES = [
    ("exp(x + z | g, nugget=True)", "", 4),
    ("ar1(t | g) * varident(s)", "(t | g)", 1),
    ("ad(t | g)", "(t | g)", 4),
    ("varpower(c)", "(1 | g)", 5),
    ("varident(f)", "(1 | h)", 0),
    ("arma(t | g, p=1, q=1)", "(1 | g)", 4),
    ("varconstpower(c)", "(t | g)", 8),
    ("sph(x + z | g, nugget=True)", "(t | g)", 7),
    ("exp(x + z | g) * varident(s)", "", 4),
    ("ar1(t | g) * varident(s)", "(t | g)", 101),
]


@pytest.mark.parametrize("case", MODES, ids=lambda case: f"{case[0]} {case[1]}")
def test_the_other_mode_is_found(tool, case):
    objective = tool.objective_of(*case)
    found = search(objective, "newton", None)
    assert found.converged
    assert found.value < tool.least_of(objective, 6)[0] + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [("us(f | g)", ""), ("ar1(t | g)", "(1 | g)"), ("ad(t | g)", "(t | g)")], ids=str
)
def test_no_silent_worse_end(tool, model):
    tally = tool.tally(*model, sets=12, starts=20)
    assert tally.sets == 12
    assert tally.silent == 0


def test_ordinary_ends_get_no_other_search(tool):
    objective = tool.objective_of("ar1(t | g)", "(1 | g)", 3)
    psi = objective.start.copy()
    psi[:] = 1.0
    assert mode_starts(objective, psi) == []
    psi[-1] = 4.0  # a correlation near one
    (start,) = mode_starts(objective, psi)
    assert 0.0 < start[0] < 0.1
    psi[:] = 0.0  # no random effects
    assert [start[0] for start in mode_starts(objective, psi)] == [0.2, 1.0]


def test_small_samples_are_searched_from_either_side(tool):
    objective = tool.objective_of("varident(f)", "(1 | h)", 0)
    assert objective.design.n == 24
    starts = mode_starts(objective, objective.start)
    moved = np.array(starts) - objective.start
    np.testing.assert_allclose(moved, [[0, -2, 0], [0, 2, 0], [0, 0, -2], [0, 0, 2]], atol=1e-12)
    objective.hold({0: -1.0})
    for start in mode_starts(objective, objective.start):
        assert start[1] == -1.0
        assert abs(start[2] - objective.start[2]) == pytest.approx(2.0)


def fit_of(tool, structure, term, seed, **options):
    """The fit to a simulated set whose fixed part is y ~ t + s (sets 0-2, 6-8, ...) or y ~ t."""
    data = tool.columns_of(seed) | {"y": tool.objective_of(structure, term, seed).design.y}
    fixed = "t" if seed // 3 % 2 else "t + s"
    return mm.lmm(f"y ~ {fixed} + {term}", data, residual=structure, reml=seed % 5 != 0, **options)


def test_another_maximum_hardly_lower_is_said(tool):
    fit = fit_of(tool, "varident(f)", "(1 | h)", 0)
    (note,) = [text for text in fit.messages if "another maximum" in text]
    assert "1.4 higher" in note
    # the other one, by a search that starts there and looks no further
    other = fit_of(tool, "varident(f)", "(1 | h)", 0, start=[1.0, 0.0, -1.0])
    assert other.criterion - fit.criterion == pytest.approx(1.4466, abs=1e-3)
    assert not any("another maximum" in text for text in other.messages)


def test_vanishing_residual_deviations_are_said():
    rng = np.random.default_rng(3)
    g, f = np.repeat(np.arange(30), 6), np.tile(list("abc"), 60)
    noise = rng.standard_normal(180)
    sd = np.where(f == "b", 1e-4, np.where(f == "c", 2.0, 1.0))
    data = {"g": g, "f": f, "y": rng.standard_normal(30)[g] + sd * noise}
    fit = mm.lmm("y ~ 1 + (1 | g)", data, residual="varident(f)")
    (note,) = [text for text in fit.messages if "practically zero" in text]
    assert "sd_ratio[b]" in note
    assert "sd_ratio[c]" not in note
    ordinary = mm.lmm("y ~ 1 + (1 | g)", data | {"y": data["y"] + noise}, residual="varident(f)")
    assert not any("practically zero" in text for text in ordinary.messages)


def test_limited_work_is_not_spent_on_other_modes(tool):
    objective = tool.objective_of("varident(f)", "(1 | h)", 0)
    found = search(objective, "newton", None, control=mm.Control(maxiter=30))
    assert found.converged
    assert found.evaluations < 10
    assert objective.rival is None


def balanced(seed, m=30, V=4):
    rng = np.random.default_rng(seed)
    L = np.tril(rng.normal(size=(V, V))) + 2.0 * np.eye(V)
    g, v = np.repeat(np.arange(m), V), np.tile(np.arange(V), m)
    y = (rng.standard_normal((m, V)) @ L.T).ravel()
    return g, v, y, np.eye(V)[v]


def test_em_of_complete_data_is_the_sample_covariance():
    """With means by visit the REML estimate is the sample covariance, the ML one a share of it."""
    g, v, y, X = balanced(0)
    sample = np.cov(y.reshape(30, 4).T)
    strata = np.zeros(30, dtype=np.intp)
    # one step of EM for REML leaves 1/m of the start's distance, that for ML nothing
    found = visit_covariances(y, X, g, v, strata, 4, reml=True)[0]
    np.testing.assert_allclose(found, sample, rtol=2e-3, atol=2e-3)
    ml = visit_covariances(y, X, g, v, strata, 4, reml=False)[0]
    np.testing.assert_allclose(ml, sample * 29 / 30, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("structure", ["us(f | g)", "us(f | g, by=s)", "corr(f | g)"])
def test_steps_of_em_come_close(tool, structure):
    """The start is better than independence, and within reach of a few steps, missing visits included."""
    objective = tool.objective_of(structure, "", 3)
    design = objective.design
    phi = general_start(design.residual, design.y, design.X, objective.reml)
    least = search(objective, "newton", None)
    assert least.converged
    assert least.evaluations <= 10
    assert objective.value(phi) < objective.value(objective.start)
    assert objective.value(phi) < least.value + 0.1


def test_other_structures_have_no_such_start(tool):
    objective = tool.objective_of("ar1(t | g)", "", 0)
    design = objective.design
    assert general_start(design.residual, design.y, design.X, True) is None


def test_correlations_of_one_are_bounds(tool):
    for structure in ("ar1(t | g)", "us(f | g)", "toep(t | g)", "ad(t | g)"):
        bound = tool.objective_of(structure, "", 0).residual
        used = np.isfinite(bound.upper)
        assert used.any()
        np.testing.assert_array_equal(bound.upper[used], 9.0)
        np.testing.assert_array_equal(bound.lower, -bound.upper)
