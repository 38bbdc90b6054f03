"""Influence of rows and levels: lme4's values, refits by hand, invariances, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

from .diagnostic_references import fit_of, values

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(8)
    n = 240
    g, h = rng.integers(0, 20, n), rng.integers(0, 9, n)
    x = rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=20)[g] + 0.7 * rng.normal(size=9)[h] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h, "w": rng.uniform(0.5, 2, n), "part": g % 4})


def changes(table, fit):
    return np.column_stack([table[f"dfbeta[{name}]"] for name in fit.fixef])


@pytest.mark.parametrize("name", ["sleep", "penicillin"])
def test_cooks_distance_of_rows(name):
    np.testing.assert_allclose(fit_of(name).cooks_distance(), values()[f"{name}.cook"], rtol=2e-5, atol=1e-7)


def test_refits_without_each_subject():
    """lme4's influence(). Its Cook's distance is (J - p) / J times the usual d'C^{-1}d/p with J levels."""
    fit = fit_of("sleep")
    table = fit.influence("Subject", refit=True)
    without = values()["sleep.without"].reshape(2, 18).T
    np.testing.assert_allclose(fit.beta - changes(table, fit), without, rtol=2e-6)
    d = changes(table, fit)
    usual = np.einsum("ja,ab,jb->j", d, np.linalg.inv(fit.vcov), d) / 2
    np.testing.assert_allclose(table["cooks_distance"], usual, rtol=1e-8)
    np.testing.assert_allclose(usual * (18 - 2) / 18, values()["sleep.group_cook"], rtol=3e-4)
    assert table["level"].tolist() == list(fit.design.terms[0].levels)


def test_refits_are_the_fits_of_the_other_rows(crossed):
    fit = mm.lmm("y ~ x + (1 | g) + (1 | h)", crossed, weights="w")
    table = fit.influence("h", refit=True)
    for level in (0, 5):
        other = mm.lmm("y ~ x + (1 | g) + (1 | h)", crossed[crossed["h"] != level], weights="w")
        j = [str(v) for v in table["level"]].index(str(level))
        np.testing.assert_allclose(fit.beta - changes(table, fit)[j], other.beta, rtol=1e-5)
        assert table["sigma"][j] == pytest.approx(other.sigma, rel=1e-5)
        np.testing.assert_allclose(
            [table[f"theta[{name}]"][j] for name in fit.theta_names], other.theta, rtol=1e-3
        )
        assert table["covratio"][j] == pytest.approx(
            np.linalg.det(other.vcov) / np.linalg.det(fit.vcov), rel=1e-4
        )


@pytest.mark.parametrize("group", ["g", "h", "part", None])
def test_deletion_at_fixed_theta(crossed, group):
    """Every column against a fit of the other rows that may not move theta."""
    formula = "y ~ x + (1 | g) + (1 | h)"
    fit = mm.lmm(formula, crossed, weights="w")
    table = fit.influence(group)
    labels = np.arange(len(crossed)) if group is None else crossed[group].to_numpy()
    for level in (1, 3):
        left = mm.LinearMixedModel(formula, crossed[labels != level], weights="w")
        solution = left.solution(fit.theta)
        j = level if group is None else [int(v) for v in table["level"]].index(level)
        nu = (labels != level).sum() - 2
        sigma2 = solution.pwrss / nu
        C = sigma2 * solution.vcov_unscaled
        d = fit.beta - solution.beta
        np.testing.assert_allclose(changes(table, fit)[j], d, rtol=1e-7, atol=1e-12)
        assert table["sigma"][j] ** 2 == pytest.approx(sigma2, rel=1e-9)
        assert table["cooks_distance"][j] == pytest.approx(d @ np.linalg.solve(fit.vcov, d) / 2, rel=1e-6)
        assert table["mdffits"][j] == pytest.approx(d @ np.linalg.solve(C, d) / 2, rel=1e-6)
        assert table["covratio"][j] == pytest.approx(np.linalg.det(C) / np.linalg.det(fit.vcov), rel=1e-8)
        assert table["covtrace"][j] == pytest.approx(
            abs(np.trace(np.linalg.solve(fit.vcov, C)) - 2), rel=1e-6, abs=1e-9
        )
        assert table["dfbetas[x]"][j] == pytest.approx(d[1] / np.sqrt(C[1, 1]), rel=1e-7)


def test_large_levels_are_left_out_by_solving(crossed, monkeypatch):
    fit = mm.lmm("y ~ x + (1 | g) + (1 | h)", crossed)
    direct = fit.influence("part")
    monkeypatch.setattr("mixedmodels.inference.checks.influence._LARGE", 60)
    mixed = fit.influence("part")
    for name in direct.columns:
        if name not in ("group", "level"):
            np.testing.assert_allclose(mixed[name], direct[name], rtol=1e-7, err_msg=name)


def test_units_do_not_matter(crossed):
    """Cook, MDFFITS, COVRATIO and DFBETAS do not change with the units of response and predictor."""
    a = mm.lmm("y ~ x + (1 | g)", crossed).influence("g")
    b = mm.lmm("y ~ x + (1 | g)", crossed.assign(y=1e3 * crossed["y"], x=1e-4 * crossed["x"])).influence("g")
    for name in ("cooks_distance", "mdffits", "covratio", "covtrace", "dfbetas[x]"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_several_groups_and_arrays(crossed):
    fit = mm.lmm("y ~ x + (1 | g) + (1 | h)", crossed)
    table = fit.influence(["h", "part"])
    assert table["group"].tolist() == ["h"] * 9 + ["part"] * 4
    np.testing.assert_allclose(table["cooks_distance"][9:], fit.influence("part")["cooks_distance"])
    by_array = fit.influence(crossed["part"].to_numpy())
    np.testing.assert_allclose(by_array["cooks_distance"], fit.influence("part")["cooks_distance"])
    np.testing.assert_allclose(fit.cooks_distance("part"), by_array["cooks_distance"])


def test_coefficients_that_cannot_be_estimated():
    cake = mm.load_dataset("cake", backend="pandas")
    fit = mm.lmm("angle ~ recipe + (1 | replicate)", cake)
    for refit in (False, True):
        table = fit.influence("recipe", refit=refit)
        assert np.isnan(table["cooks_distance"]).all()
        assert any("cannot all be estimated" in note for note in table.notes)


def test_row_numbers_are_those_of_the_data(sleepstudy):
    data = sleepstudy.copy()
    data.loc[[2, 5], "Reaction"] = np.nan
    fit = mm.lmm(SLEEP, data)
    assert fit.influence()["row"].tolist() == [i for i in range(180) if i not in (2, 5)]
    excluded = mm.lmm(SLEEP, data, na_action="exclude").influence()
    assert len(excluded) == 180 and np.isnan(excluded["leverage"][[2, 5]]).all()
    frame = fit.influence().to_frame()
    assert type(frame).__module__.startswith("pandas")


def test_rows_with_refit(sleepstudy):
    small = sleepstudy.iloc[:40]
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", small)
    seen = []
    table = fit.influence(refit=True, progress=lambda done, total: seen.append((done, total)))
    other = mm.lmm("Reaction ~ Days + (1 | Subject)", small.drop(index=7))
    np.testing.assert_allclose(fit.beta - changes(table, fit)[7], other.beta, rtol=1e-6)
    assert seen[-1] == (40, 40) and len(seen) == 40


def test_fixed_sigma_stays(sleepstudy):
    fit = mm.lmm(SLEEP, sleepstudy, sigma=25.0)
    assert (fit.influence("Subject")["sigma"] == 25.0).all()


def test_errors(sleepstudy):
    fit = mm.lmm(SLEEP, sleepstudy)
    with pytest.raises(mm.OptionError, match=r"'Sbject' is neither a grouping factor.*Subject"):
        fit.influence("Sbject")
    with pytest.raises(mm.DataError, match="17 values"):
        fit.influence(np.arange(17))
    with pytest.raises(mm.OptionError, match="single level"):
        fit.influence(np.zeros(180))
    with pytest.raises(mm.OptionError, match="empty list"):
        fit.influence([])
    with pytest.raises(mm.OptionError, match="progress"):
        fit.influence("Subject", refit=True, progress=3)
    none = mm.lmm("Reaction ~ 0 + (Days | Subject)", sleepstudy)
    with pytest.raises(mm.OptionError, match="this model has none"):
        none.influence()
    with pytest.raises(mm.OptionError, match="this model has none"):
        none.cooks_distance()
    assert np.isfinite(none.leverage()).all()


@pytest.mark.slow
def test_crossed_data_of_realistic_size():
    fit = mm.lmm("y ~ service * dept + (1 | s) + (1 | d)", mm.load_dataset("InstEval"))
    h = fit.leverage()
    assert 28 < h.sum() < 28 + fit.design.q and (h > 0).all() and (h < 1).all()
    table = fit.influence("d")
    j = 17
    codes = fit.design.terms[1].codes
    from mixedmodels.inference.checks.influence import _solve_without

    beta, _, _ = _solve_without(fit, codes == j)
    np.testing.assert_allclose(fit.beta - changes(table, fit)[j], beta, rtol=1e-8, atol=1e-10)
