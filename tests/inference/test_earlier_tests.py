"""Likelihood-ratio tests published with the Ruby gem mixed_models, and its defects that are not repeated."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm

ALIEN = ("alien_species.csv", "Aggression ~ Age + Species + (Age | Location)")
SLOPES = ("nested_effects_with_slope_data.csv", "y ~ x + (1 | a) + (x | a:b)")
CROSSED = ("crossed_effects_data.csv", "y ~ x + (x | g) + (x | h)")
NUMBERS = ("numeric_x_numeric_interaction.csv", "y ~ a + b + a:b + (0 + a:b | gr)")
NUMBER_AND_FACTOR = ("numeric_x_categorical_interaction.csv", "y ~ num * cat + (0 + num:cat | gr)")
CATEGORICAL = ("categorical_data.csv", "y ~ x + (x | g)")


@functools.cache
def ruby(file, formula, reml=False):
    folder = Path(__file__).parents[1] / "references" / "earlier"
    return mm.lmm(formula, pd.read_csv(folder / file), reml=reml)


@pytest.mark.parametrize(
    ("model", "term", "statistic", "df", "p_value"),
    [
        (ALIEN, "Age", (0.703, 6e-4), 1, 0.4018),
        (CROSSED, "x", (3.8852, 6e-4), 1, 0.04871),
        (("categorical_data.csv", "y ~ x + (0 + x | g)"), "x", (10.27, 6e-3), 2, 0.005888),
        (SLOPES, "x", (12.327, 6e-4), 1, 0.0004464),
        (NUMBERS, "a:b", (7.2984, 6e-5), 1, 0.006902),
        (NUMBER_AND_FACTOR, "num:cat", (2.6608, 6e-4), 2, 0.2644),
    ],
)
def test_a_fixed_term_left_out(model, term, statistic, df, p_value):
    fit = ruby(*model)
    row = fit.test_fixed(term, "lrt").rows()[0]
    assert row["statistic"] == pytest.approx(statistic[0], abs=statistic[1])
    assert row["df"] == df
    assert row["p_value"] == pytest.approx(p_value, rel=2e-3)
    if term in fit.drop1(test="none")["term"]:
        assert fit.drop1(test="lrt").row(term)["p_value"] == row["p_value"]


@pytest.mark.parametrize(
    ("model", "term", "statistic", "df", "p_value"),
    [
        (ALIEN, "Age in (Age | Location)", (426.29, 6e-3), 2, 2.69e-93),
        (ALIEN, "(Intercept) in (Age | Location)", (694.7297958, 2e-5), 2, 1.384655e-151),
        (CATEGORICAL, "x in (x | g)", (14.982, 6e-4), 5, 0.01044),
        (CROSSED, "x in (x | g)", (113.37, 6e-3), 2, 2.4e-25),
        (SLOPES, "x in (x | a:b)", (317.05, 6e-3), 2, 1.42e-69),
    ],
)
def test_a_random_effect_left_out(model, term, statistic, df, p_value):
    row = ruby(*model).test_random(term).rows()[1]
    assert row["statistic"] == pytest.approx(statistic[0], abs=statistic[1])
    assert row["df"] == df
    assert row["p_value"] == pytest.approx(p_value, rel=2e-2)


def test_the_p_values_of_alien_species_to_all_their_digits():
    full = ruby(*ALIEN)
    intercept = full.test_random("(Intercept) in (Age | Location)")
    assert intercept["p_value"][1] == pytest.approx(1.384655e-151, rel=2e-5)
    small = ruby(ALIEN[0], "Aggression ~ Species + (1 | Location)")
    table = mm.compare(small, full)
    assert table["statistic"][1] == pytest.approx(454.3606637, abs=1e-5)
    assert table["df"][1] == 3
    assert table["p_value"][1] == pytest.approx(3.693825e-98, rel=2e-5)
    reml = ruby(*ALIEN, reml=True)
    assert reml.test_fixed("Age", ddf="z")["p_value"][0] == pytest.approx(0.4673875, rel=1e-4)


def test_the_last_random_term_is_compared_with_least_squares():
    # the gem raised an error here
    fit = ruby("nested_effects_data.csv", "y ~ 1 + (1 | a:b)")
    row = fit.test_random().row("(1 | a:b)")
    y = fit.design.y
    n = len(y)
    assert row["loglik"] == pytest.approx(-0.5 * n * (1 + math.log(2 * math.pi * y.var())), rel=1e-12)
    assert row["df"] == 1 and row["statistic"] > 0


# --- defects of the gem ------------------------------------------------------


def test_defect_1_a_term_of_one_variance_has_one_degree_of_freedom():
    fit = ruby(SLOPES[0], "y ~ x + (1 | a) + (1 | a:b)")
    row = fit.test_random("(1 | a:b)").rows()[1]
    assert row["statistic"] == pytest.approx(10.5725, abs=6e-5)
    assert row["df"] == 1
    assert row["p_value"] == pytest.approx(0.0011478, rel=1e-3)  # the gem: 0.00506, with 2 degrees of freedom


def test_defect_1_parameters_of_several_terms_are_counted_once():
    data = mm.load_dataset("Pastes", "dict")
    fit = mm.lmm("strength ~ 1 + (1 | batch) + (1 | batch:cask)", data, reml=False)
    assert fit.df_model == 4  # intercept, two variances, residual
    assert fit.aic == pytest.approx(fit.criterion + 8, rel=1e-12)
    assert fit.bic == pytest.approx(fit.criterion + 4 * math.log(60), rel=1e-12)
    sleep = mm.load_dataset("sleepstudy", "pandas").assign(day=lambda d: d["Days"].astype(str))
    two = mm.lmm("Reaction ~ Days + (Days | Subject) + (1 | day)", sleep)
    assert two.df_model == 2 + 3 + 1 + 1
    assert two.test_random()["df"].tolist()[1:] == [2, 3, 1]


def test_defect_3_every_residual_is_squared(fit):
    residuals = fit.residuals()
    assert abs(residuals[0]) > 1  # unsquared it would change the sum
    squares = float(fit._solution.pwrss) - sum(float((u**2).sum()) for u in fit._solution.u)
    assert residuals @ residuals == pytest.approx(squares, rel=1e-9)


def test_defect_5_singular_fits_are_simulated_and_tested_by_bootstrap():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", "dict"), reml=False)
    assert fit.is_singular
    assert np.isfinite(fit.simulate(5, seed=1)).all()
    sleep = mm.load_dataset("sleepstudy", "pandas").assign(const=lambda d: d["Days"] % 2)
    singular = mm.lmm("Reaction ~ Days + const + (Days | Subject) + (1 | const)", sleep, reml=False)
    assert singular.is_singular
    table = singular.test_fixed("const", "bootstrap", n=40, seed=1)
    assert 0 < table["p_value"][0] <= 1 and np.isfinite(table.extra["draws"]).all()


def test_lod_of_a_random_term():
    """Variance-component linkage as in pydigree: likelihood ratio over 2 ln 10, p by the boundary mixture."""
    from scipy.stats import chi2

    from mixedmodels import genetics

    ped = genetics.nuclear_families(60, children=4)
    data = genetics.simulate_trait(ped, heritability=0.3, seed=4)
    ids = np.asarray(ped.ids)
    genes = genetics.drop_founder_genes(ped, loci=1, seed=5)[:, :, 0]
    share = (genes[:, None, :, None] == genes[None, :, None, :]).sum(axis=(2, 3)) / 2.0  # identity by descent
    known = {"individual": ped, "IBD": (share + 1e-5 * np.eye(len(ids)), ids)}
    null = mm.lmm("y ~ 1 + (1 | individual)", data, known={"individual": ped}, reml=False)
    linked = mm.lmm("y ~ 1 + (1 | individual) + known(1 | individual, IBD)", data, known=known, reml=False)
    row = linked.lod("known(1 | individual, IBD)").rows()[0]
    statistic = 2.0 * (linked.loglik - null.loglik)
    assert row["statistic"] == pytest.approx(statistic, abs=1e-6) and statistic > 0.1
    assert row["lod"] == pytest.approx(statistic / (2.0 * math.log(10.0)), abs=1e-6)
    assert row["p_value"] == pytest.approx(0.5 * chi2.sf(statistic, 1), rel=1e-4)
    with pytest.raises(mm.OptionError):
        linked.lod("(1 | nobody)")
    # nearly singular: the criterion has errors of 1e-7, by which the search must not be held up
    known["IBD"] = (share + 1e-8 * np.eye(len(ids)), ids)
    near = mm.lmm("y ~ 1 + (1 | individual) + known(1 | individual, IBD)", data, known=known, reml=False)
    assert near.converged and near.optimum.evaluations < 400  # 5150 once
    np.testing.assert_allclose(near.theta, linked.theta, rtol=1e-4)


def test_exact_restricted_test_of_a_known_covariance_says_what_it_cannot():
    from mixedmodels import genetics

    ped = genetics.nuclear_families(20, children=3)
    data = genetics.simulate_trait(ped, heritability=0.5, seed=2)
    fit = mm.lmm("y ~ 1 + (1 | individual)", data, known={"individual": ped})
    with pytest.raises(mm.OptionError, match=r"known covariance; use .mixture. or .bootstrap."):
        fit.test_random(method="rlrt")
