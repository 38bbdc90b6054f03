"""Analysis of variance tables against lmerTest, and laws: coding, empty cells, dropped columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.inference.fixed.anova import term_hypotheses
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parents[1] / "references"
REFERENCES = json.loads((HERE / "inference" / "ddf.json").read_text(encoding="utf-8"))
TABLES = [
    (name, method, type_)
    for name, ref in REFERENCES.items()
    for method in ("satterthwaite", "kenward_roger")
    for type_ in ref["lmerTest"].get(f"{method}_anova", {})
    # pbkrtest leaves the prior weights out of V: see test_ddf.py
    if not (method == "kenward_roger" and "weights" in name)
]


def fitted(name):
    ref = json.loads((HERE / "lmm" / f"{name}.json").read_text(encoding="utf-8"))
    described = json.loads((HERE / "data" / "columns.json").read_text(encoding="utf-8"))
    known = ref["data"] in described
    data = (
        read_reference_table(HERE / "data", ref["data"]) if known else mm.load_dataset(ref["data"], "pandas")
    )
    return mm.lmm(ref["formula"], data, **({"weights": "w"} if "weights = w" in ref["call"] else {}))


@pytest.mark.parametrize(("name", "method", "type_"), TABLES)
def test_table_is_lmertests(name, method, type_):
    expected = [row for row in REFERENCES[name]["lmerTest"][f"{method}_anova"][type_] if row["NumDF"]]
    table = fitted(name).anova(type_, method)
    rows = {row["term"]: row for row in table.rows()}
    assert sorted(rows) == sorted(row["term"] for row in expected)
    for row in expected:
        ours = rows[row["term"]]
        assert ours["num_df"] == row["NumDF"]
        assert ours["den_df"] == pytest.approx(row["DenDF"], rel=1e-5)
        assert ours["statistic"] == pytest.approx(row["F value"], rel=1e-5)
        assert ours["mean_sq"] == pytest.approx(row["Mean Sq"], rel=1e-5)
        assert ours["sum_sq"] == pytest.approx(row["Sum Sq"], rel=1e-5)
        assert ours["p_value"] == pytest.approx(row["p"], rel=2e-3)


def test_hypotheses_of_empty_cells_are_lmertests():
    """show_tests(anova(m, type = 3)) of lmerTest for ``y ~ A * B`` with empty cells."""
    L = fitted("emptycells_reml").anova(3).extra["L"]
    a = [[0, 1, 0, 0, 0, 0, 0.3428571, -0.0571429, 0.1142857, 0.3142857]]
    np.testing.assert_allclose(L["A"][:1], a, atol=1e-7)
    b = [[0, 0, 0, 0, 1, 0, 0.1238095, -0.0761905, 0.4857143, 0.0857143]]
    np.testing.assert_allclose(L["B"][1:2], b, atol=1e-7)
    np.testing.assert_allclose(L["A:B"], np.eye(10)[6:], atol=1e-12)


@pytest.fixture(scope="module")
def unbalanced():
    rng = np.random.default_rng(11)
    n = 160
    data = pd.DataFrame(
        {
            "a": pd.Categorical(rng.choice(list("pqr"), n, p=[0.5, 0.3, 0.2])),
            "b": pd.Categorical(rng.choice(list("uv"), n, p=[0.7, 0.3])),
            "c": pd.Categorical(rng.choice(list("klm"), n)),
            "x": rng.normal(size=n) + 5.0,
            "g": rng.integers(0, 15, n),
        }
    )
    data["y"] = (
        data.a.cat.codes + data.x * data.b.cat.codes + rng.normal(size=15)[data.g] + rng.normal(size=n)
    )
    return data


@pytest.mark.parametrize(
    "formula", ["y ~ a * b + x + (1 | g)", "y ~ a * b * c + (1 | g)", "y ~ x * a + b + (1 | g)"]
)
@pytest.mark.parametrize("type_", [1, 2, 3])
def test_the_contrasts_of_the_fit_do_not_matter(unbalanced, formula, type_):
    plain = mm.lmm(formula, unbalanced).anova(type_)
    for coding in ("sum", "helmert", "poly", "SAS"):
        contrasts = {name: coding for name in "abc" if name in formula}
        other = mm.lmm(formula, unbalanced, contrasts=contrasts).anova(type_)
        assert list(other["term"]) == list(plain["term"])
        np.testing.assert_allclose(other["statistic"], plain["statistic"], rtol=1e-5)
        # types I and II keep lmerTest's basis of the rows, on which Satterthwaite's df depend a little
        np.testing.assert_allclose(other["den_df"], plain["den_df"], rtol=1e-5 if type_ == 3 else 0.02)


def test_type_three_is_the_test_of_sum_coded_coefficients(unbalanced):
    fit = mm.lmm("y ~ a * b + x + (1 | g)", unbalanced, contrasts={"a": "sum", "b": "sum"})
    rows = {row["term"]: row for row in fit.anova(3, "kr").rows()}
    for label, columns in fit.frame.encoding.assign.items():
        if label != "(Intercept)":
            own = fit.test(np.eye(fit.design.p)[columns], ddf="kr").rows()[0]
            assert rows[label]["statistic"] == pytest.approx(own["statistic"], rel=1e-8)
            assert rows[label]["den_df"] == pytest.approx(own["den_df"], rel=1e-8)


def test_the_last_term_is_the_same_by_all_types(unbalanced):
    fit = mm.lmm("y ~ a * b + x + (1 | g)", unbalanced)
    last = [fit.anova(type_, "kr").row("a:b")["statistic"] for type_ in (1, 2, 3)]
    assert last[1:] == pytest.approx(last[:-1], rel=1e-9)
    first = fit.anova("sequential", "z").row("a")
    assert first["num_df"] == 2 and np.isinf(first["den_df"])


def test_no_intercept_interaction_only_and_matrices(unbalanced):
    cells = mm.lmm("y ~ 0 + a:b + (1 | g)", unbalanced).anova(3)
    assert cells["num_df"].tolist() == [6]
    means = mm.lmm("y ~ 0 + a + x + (1 | g)", unbalanced).anova(3)
    assert list(means["term"]) == ["a", "x"] and means["num_df"].tolist()[1] == 1
    spline = mm.lmm("y ~ ns(x, 3) * b + (1 | g)", unbalanced).anova(3)
    assert spline["num_df"].tolist() == [3, 1, 3]
    assert np.isfinite(spline["den_df"]).all()


def test_dropped_terms_are_named(unbalanced):
    data = unbalanced.assign(twice=2 * unbalanced.x)
    fit = mm.lmm("y ~ a + x + twice + (1 | g)", data)
    for type_ in (1, 2, 3):
        table = fit.anova(type_)
        assert list(table["term"]) == ["a", "x"]
        assert "twice" in table.notes[-1]
        plain = mm.lmm("y ~ a + x + (1 | g)", data).anova(type_)
        np.testing.assert_allclose(table["statistic"], plain["statistic"], rtol=1e-8)


def test_a_model_without_terms():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="pandas"))
    assert len(fit.anova()) == 0 and term_hypotheses(fit) == {}


def test_mistakes_are_named(unbalanced):
    fit = mm.lmm("y ~ a + (1 | g)", unbalanced)
    for wrong in (4, "four", True, None):
        with pytest.raises(mm.OptionError, match="anova type"):
            fit.anova(wrong)
    with pytest.raises(mm.OptionError, match="ddf="):
        fit.anova(ddf="wrong")
    assert "Type II analysis of variance" in str(fit.anova("II"))
