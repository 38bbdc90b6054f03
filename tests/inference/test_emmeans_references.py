"""Marginal means, contrasts, slopes and joint tests against R's emmeans 1.8.4 (`references/emmeans`).

Where emmeans approximates, the comparison is as wide as its approximation: slopes are difference
quotients there, adjust="mvt" is Monte Carlo (mvtnorm, absolute error 1e-3), F ratios are printed to three
decimals.
Known differences, by intention:

* emmeans counts contrasts that cannot be estimated in the families of tukey and sidak; here they do not
  count.
* joint F tests take the smallest df of the rows there; here those of the F test itself (the same in
  balanced designs).
* eff_size() takes the df of the means there; here those of the contrasts.
* pbkrtest ignores prior weights in its Kenward-Roger matrices, so weighted means are compared by
  Satterthwaite.
"""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parents[1] / "references"
FITS = json.loads((HERE / "emmeans" / "fits.json").read_text(encoding="utf-8"))
VALUES = json.loads((HERE / "emmeans" / "emmeans.json").read_text(encoding="utf-8"))
TABLES = {(value["model"], value["what"]): value["table"] for value in VALUES["values"]}
DDF = {"kenward-roger": "kr", "satterthwaite": "satterthwaite", "asymptotic": "z"}
R_NAMES = {
    "estimate": ("emmean", "estimate", "effect.size", "response", "ratio"),
    "std_error": ("SE",),
    "df": ("df",),
    "conf_low": ("lower.CL",),
    "conf_high": ("upper.CL",),
    "statistic": ("t.ratio",),
    "p_value": ("p.value",),
}


@functools.cache
def table(name):
    described = json.loads((HERE / "data" / "columns.json").read_text(encoding="utf-8"))
    return read_reference_table(HERE / "data", name) if name in described else mm.load_dataset(name, "pandas")


@functools.cache
def fitted(id_):
    model = VALUES["models"].get(id_) or FITS[id_]
    weights = {"weights": "w"} if model.get("weights") == "w" else {}
    return mm.lmm(model["formula"], table(model["data"]), **weights)


def numbers(values):
    return np.array([np.nan if value in (None, "NA") else float(value) for value in values])


def agree(ours, expected, rtol, what):
    """Equal up to `rtol` of the largest value; NaN in the same places."""
    ours = np.asarray(ours, dtype=float)
    assert np.array_equal(np.isnan(ours), np.isnan(expected)), what
    assert ours == pytest.approx(expected, rel=rtol, abs=rtol * np.nanmax(np.abs(expected)), nan_ok=True), (
        what
    )


def compare(result, expected, only=None, rtol=1e-6, p_rtol=1e-5):
    """All columns that both have."""
    compared = 0
    for name, r_names in R_NAMES.items():
        found = [key for key in expected if key in r_names or (name == "estimate" and ".trend" in key)]
        if not found or name not in result.columns or (only and name not in only):
            continue
        values = numbers(expected[found[0]])
        if np.isnan(values).all():
            continue
        if name == "p_value":
            ours = result["p_value"]
            assert ours == pytest.approx(values, rel=p_rtol, abs=1e-10, nan_ok=True)
        else:
            agree(result[name], values, 1e-4 if name == "df" else rtol, name)
        compared += 1
    assert compared >= 2
    for name in ("contrast", "A", "B", "recipe", "Variety", "nitroF_poly", "Variety_consec"):
        if name in expected and name in result.columns:
            assert list(map(str, result[name])) == expected[name]


# ---------------------------------------------------------------------- the collection of fits


@pytest.mark.parametrize("id_", FITS)
def test_means_and_pairs_of_reference_fits(id_):
    for entry in FITS[id_]["emmeans"]:
        means = fitted(id_).emmeans(entry["specs"], ddf=DDF[entry["df_method"]])
        names = [name for name in means.labels if name in entry["means"][0]]
        ours = {tuple(str(row[name]) for name in names): row for row in means.rows()}
        assert len(ours) == len(entry["means"])
        for row in entry["means"]:
            mine = ours[tuple(str(row[name]) for name in names)]
            for name, keys, tolerance in (
                ("estimate", ("emmean",), 1e-6),
                ("std_error", ("SE",), 1e-6),
                ("df", ("df",), 1e-4),
                ("conf_low", ("lower", "lower.CL"), 1e-5),
                ("conf_high", ("upper", "upper.CL"), 1e-5),
            ):
                expected = next(row[key] for key in keys if key in row)
                if expected is None:
                    assert np.isnan(mine[name])
                else:
                    assert mine[name] == pytest.approx(float(expected), rel=tolerance), (row, name)
        if entry.get("pairs"):
            pairs = means.pairs()
            assert len(pairs) == len(entry["pairs"])
            for mine, row in zip(pairs, entry["pairs"], strict=True):
                if "contrast" in row:
                    assert mine["contrast"] == row["contrast"]
                for name, key, tolerance in (
                    ("estimate", "estimate", 1e-6),
                    ("std_error", "SE", 1e-6),
                    ("df", "df", 1e-4),
                    ("statistic", "ratio", 1e-5),
                ):
                    expected = float(row[key])
                    size = max(abs(float(r[key])) for r in entry["pairs"])
                    assert mine[name] == expected or mine[name] == pytest.approx(
                        expected, rel=tolerance, abs=tolerance * size
                    )
                assert mine["p_value"] == pytest.approx(float(row["p.value"]), rel=1e-4, abs=1e-9)


# ---------------------------------------------------------------------- oats: contrasts and adjustments


@functools.cache
def oats_means(specs="nitroF"):
    return fitted("oats").emmeans(specs, ddf="kr")


def test_means():
    compare(oats_means(), TABLES["oats", "means nitroF"])
    compare(oats_means("nitroF | Variety"), TABLES["oats", "means nitroF by Variety"])


ADJUSTMENTS = ["tukey", "none", "sidak", "bonferroni", "holm", "hochberg", "hommel", "fdr", "BY", "scheffe"]


@pytest.mark.parametrize("adjust", ADJUSTMENTS)
def test_adjusted_pairs(adjust):
    compare(oats_means().pairs(adjust=adjust), TABLES["oats", f"pairs nitroF {adjust}"])


METHODS = ["trt.vs.ctrl", "trt.vs.ctrlk", "eff", "del.eff", "consec", "mean_chg", "poly", "identity"]


@pytest.mark.parametrize("method", METHODS)
def test_contrast_methods(method):
    compare(oats_means().contrast(method, adjust="none"), TABLES["oats", f"contrast nitroF {method}"])


@pytest.mark.parametrize("method", ["trt.vs.ctrl", "consec"])
def test_multivariate_t_within_the_noise_of_the_reference(method):
    expected = TABLES["oats", f"contrast nitroF {method} mvt"]
    ours = oats_means().contrast(method, adjust="mvt")
    assert ours["p_value"] == pytest.approx(numbers(expected["p.value"]), abs=1e-3)
    assert ours["conf_low"] == pytest.approx(numbers(expected["lower.CL"]), abs=0.05)


def test_pairs_by_group_and_among_all_cells():
    compare(oats_means("nitroF | Variety").pairs(), TABLES["oats", "pairs nitroF by Variety"])
    compare(oats_means("nitroF * Variety").pairs(), TABLES["oats", "pairs all"])


def test_interaction_contrasts():
    ours = oats_means("nitroF * Variety").contrast(interaction=("poly", "consec"))
    compare(ours, TABLES["oats", "interaction poly consec"])


def test_one_sided_test_against_a_value():
    compare(oats_means().test(null=90, side=">"), TABLES["oats", "means greater 90"])
    assert np.isinf(oats_means().test(null=90, side=">")["conf_high"]).all()


def test_joint_test_of_contrasts():
    ours = oats_means().pairs().test(joint=True)
    expected = TABLES["oats", "test all joint"]
    assert ours["num_df"].tolist() == expected["df1"]
    assert ours["den_df"] == pytest.approx(expected["df2"], rel=1e-4)
    assert ours["p_value"] == pytest.approx(expected["p.value"], rel=1e-4)


def test_effect_sizes():
    ours = oats_means().effect_size(sigma=VALUES["models"]["oats"]["sigma"], edf=45)
    compare(ours, TABLES["oats", "effect size"], only=("estimate", "std_error"))


# ---------------------------------------------------------------------- covariates and transforms


def test_slopes():
    trends = fitted("cake").emtrends("recipe", "temp", ddf="kr")
    compare(trends, TABLES["cake", "trends recipe"])
    compare(trends.pairs(), TABLES["cake", "trends recipe pairs"])
    compare(fitted("orth").emtrends("Sex", "age", ddf="kr"), TABLES["orth", "trends Sex"])


def test_slopes_of_curves_within_the_error_of_the_difference_quotient():
    poly = fitted("cake_poly").emtrends("temp", "temp", at={"temp": [180, 200, 220]}, ddf="kr")
    compare(poly, TABLES["cake_poly", "trends at"], rtol=5e-6)
    log = fitted("cake_log")
    compare(log.emtrends("recipe", "temp", ddf="kr"), TABLES["cake_log", "trends recipe"], rtol=2e-6)
    compare(log.emtrends("recipe", "log(temp)", ddf="kr"), TABLES["cake_log", "trends log"])


def test_grid_of_covariates():
    cake = fitted("cake")
    compare(cake.emmeans("recipe*temp", at={"temp": [180, 210]}, ddf="kr"), TABLES["cake", "means at"])
    ends = cake.emmeans("recipe*temp", cov_reduce=lambda x: [x.min(), x.max()], ddf="kr")
    compare(ends, TABLES["cake", "means range"])


def test_transforms_follow_their_variable():
    """Hard case 22: poly(temp, 2) and log(temp) are evaluated at the mean of temp."""
    compare(fitted("cake_poly").emmeans("recipe", ddf="kr"), TABLES["cake_poly", "means recipe"])
    compare(fitted("cake_log").emmeans("recipe", ddf="kr"), TABLES["cake_log", "means recipe"])


# ---------------------------------------------------------------------- weights and empty cells


@pytest.mark.parametrize("weights", ["equal", "proportional", "outer", "cells", "flat"])
def test_weights(weights):
    ours = fitted("cells").emmeans("A", weights=weights, ddf="kr")
    compare(ours, TABLES["cells", f"means A {weights}"])


@pytest.mark.parametrize("weights", ["equal", "proportional"])
def test_frequencies_are_sums_of_prior_weights(weights):
    compare(fitted("weighted").emmeans("1", weights=weights), TABLES["weighted", f"means {weights}"])


def test_empty_cells_are_not_estimable():
    """Hard case 11."""
    empty = fitted("empty")
    means = empty.emmeans("A*B", ddf="kr")
    compare(means, TABLES["empty", "means A:B"])
    compare(empty.emmeans("A*B"), TABLES["empty", "means A:B satterthwaite"])
    assert "2 of 12 rows not estimable" in str(means) and "Aa2:Bb3" in str(means)
    pairs = empty.emmeans("A | B", ddf="kr").pairs()
    compare(pairs, TABLES["empty", "pairs A by B"], only=("estimate", "std_error", "df", "statistic"))
    complete = pairs["B"] <= "b2"
    expected = TABLES["empty", "pairs A by B"]
    # R's ptukey is off by up to 5e-3 relative here; SciPy's studentized_range agrees with ours to 1e-12
    assert pairs["p_value"][complete] == pytest.approx(
        numbers(expected["p.value"])[complete], rel=5e-3, abs=1e-9
    )
    assert pairs["conf_low"][complete] == pytest.approx(numbers(expected["lower.CL"])[complete], rel=1e-6)


def test_families_leave_out_what_cannot_be_estimated():
    """In b3 and b4 one pair is left: no adjustment, whatever the method."""
    means = fitted("empty").emmeans("A | B", ddf="kr")
    raw = means.pairs(adjust="none")
    for adjust in ("tukey", "sidak", "bonferroni", "scheffe"):
        adjusted = means.pairs(adjust=adjust)
        for b in ("b3", "b4"):
            one = (raw["B"] == b) & np.isfinite(raw["estimate"])
            assert one.sum() == 1
            assert adjusted["p_value"][one] == pytest.approx(raw["p_value"][one], rel=1e-12)
            assert adjusted["conf_low"][one] == pytest.approx(raw["conf_low"][one], rel=1e-12)


# ---------------------------------------------------------------------- scale of the response


def test_back_transform():
    """Hard case 23."""
    means = fitted("log_sleep").emmeans("Days", at={"Days": [0, 3, 9]}, ddf="kr")
    compare(means.summary(type="response"), TABLES["log_sleep", "response"])
    biased = means.summary(type="response", bias_adjust=True, sigma=0.3)
    compare(biased, TABLES["log_sleep", "response bias"])
    assert "total SD of 0.3" in str(biased)
    ratios = means.pairs().summary(type="response")
    compare(ratios, TABLES["log_sleep", "ratios"])
    assert ratios["contrast"][0] == "Days0 / Days3"
    compare(means.regrid().pairs(), TABLES["log_sleep", "regrid pairs"])
    assert "on the scale of the model: log(Reaction)" in str(means)


def test_back_transform_of_roots():
    root = fitted("sqrt_sleep")
    means = root.emmeans("Days", at={"Days": [0, 9]}, type="response", ddf="kr")
    compare(means, TABLES["sqrt_sleep", "response"])
    compare(means.summary(bias_adjust=True, sigma=0.5), TABLES["sqrt_sleep", "response bias"])
    compare(fitted("inv_sleep").emmeans("Days", ddf="kr"), TABLES["inv_sleep", "link"])


# ---------------------------------------------------------------------- joint tests


@pytest.mark.parametrize("id_", ["oats", "cake", "orth"])
def test_joint_tests_of_balanced_designs(id_):
    ours = fitted(id_).joint_tests(ddf="kr")
    expected = TABLES[id_, "joint"]
    assert ours["term"].tolist() == expected["model term"]
    assert ours["num_df"].tolist() == expected["df1"]
    assert ours["den_df"] == pytest.approx(expected["df2"], rel=1e-4)
    assert ours["statistic"] == pytest.approx(expected["F.ratio"], abs=6e-4)
    assert ours["p_value"] == pytest.approx(expected["p.value"], rel=1e-5)


def test_joint_tests_by_groups():
    ours = fitted("oats").joint_tests(by="Variety", ddf="kr")
    expected = TABLES["oats", "joint by Variety"]
    assert ours["Variety"].tolist() == expected["Variety"]
    assert ours["p_value"] == pytest.approx(expected["p.value"], rel=1e-5)


def test_joint_tests_with_empty_cells():
    """The terms and ranks that can be tested; emmeans adds a row "(confounded)" that is no term."""
    ours = fitted("empty").joint_tests(ddf="kr")
    expected = TABLES["empty", "joint"]
    assert ours["term"].tolist() == expected["model term"][:2] == ["B", "A:B"]
    assert ours["num_df"].tolist() == expected["df1"][:2]
    assert ours["p_value"] == pytest.approx(expected["p.value"][:2], rel=0.01)
    assert any(re.match(r"A: 2 of its contrasts cannot be estimated", note) for note in ours.notes)
