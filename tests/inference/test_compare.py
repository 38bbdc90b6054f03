"""Likelihood-ratio comparison: R's figures, nesting, refits, boundary, bootstrap, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

REFERENCES = Path(__file__).parents[1] / "references"
TESTS = json.loads((REFERENCES / "inference" / "tests.json").read_text(encoding="utf-8"))
SMALL, LARGE = "Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mm.load_dataset("sleepstudy", backend="pandas")


@pytest.fixture(scope="module")
def by_ml(sleep):
    return mm.lmm(SMALL, sleep, reml=False), mm.lmm(LARGE, sleep, reml=False)


@pytest.mark.parametrize("case", TESTS["anova"], ids=lambda case: case["data"])
def test_the_tables_of_anova_in_r(case):
    data = read_reference_table(REFERENCES / "data", case["data"])
    fits = [mm.lmm(formula, data, reml=False) for formula in case["formulas"]]
    table = mm.compare(*fits[::-1])  # sorted by number of parameters
    expected = case["table"]
    assert table["npar"].tolist() == [row["npar"] for row in expected]
    for name, key in (("aic", "AIC"), ("bic", "BIC"), ("loglik", "logLik")):
        np.testing.assert_allclose(table[name], [row[key] for row in expected], rtol=1e-9)
    for mine, row in zip(table.rows()[1:], expected[1:], strict=True):
        assert mine["statistic"] == pytest.approx(row["Chisq"], rel=1e-6, abs=1e-7)
        assert mine["df"] == row["Df"]
        assert mine["p_value"] == pytest.approx(row["Pr(>Chisq)"], rel=1e-5)


def test_restricted_likelihoods_of_equal_fixed_parts_are_kept(sleep):
    table = mm.compare(mm.lmm(SMALL, sleep), mm.lmm(LARGE, sleep))
    assert table["statistic"][1] == pytest.approx(42.83681343643, rel=1e-8)  # ranova of lmerTest
    assert "REML" in table.title and not any("refitted" in note for note in table.notes)


def test_one_space_in_two_codings_keeps_reml_and_brings_it_to_one_coding(sleep):
    data = sleep.assign(weeks=sleep["Days"] / 7 + 3)
    small = mm.lmm("Reaction ~ weeks + (1 | Subject)", data)
    large = mm.lmm(LARGE, data)
    assert abs((small.criterion - large.criterion) - 42.83681343643) > 1  # the criteria depend on the coding
    table = mm.compare(small, large)
    assert "REML" in table.title and any("coding" in note for note in table.notes)
    assert table["statistic"][1] == pytest.approx(42.83681343643, rel=1e-8)
    machines = mm.load_dataset("Machines", backend="pandas")
    sums = mm.lmm("score ~ Machine + (1 | Worker)", machines, contrasts={"Machine": "sum"})
    cells = mm.lmm("score ~ 0 + Machine + (Machine | Worker)", machines)
    same = mm.lmm("score ~ 0 + Machine + (1 | Worker)", machines)
    assert mm.compare(sums, cells)["statistic"][1] == pytest.approx(
        mm.compare(same, cells)["statistic"][1], rel=1e-9
    )


def test_different_fixed_parts_are_refitted_and_said(sleep):
    small = mm.lmm("Reaction ~ 1 + (Days | Subject)", sleep)
    large = mm.lmm(LARGE, sleep)
    table = mm.compare(small, large)
    expected = 2 * (large.refit_ml().loglik - small.refit_ml().loglik)
    assert table["statistic"][1] == pytest.approx(expected, rel=1e-9)
    assert table["statistic"][1] == pytest.approx(23.5365374978819, rel=1e-7)  # drop1 of lme4
    assert any("refitted by maximum likelihood" in note for note in table.notes)
    with pytest.raises(mm.OptionError, match="fixed parts differ"):
        mm.compare(small, large, refit=False)


def test_refit_true_and_mixed_criteria_go_to_ml(sleep, by_ml):
    reml = mm.lmm(LARGE, sleep)
    for table in (mm.compare(mm.lmm(SMALL, sleep), reml, refit=True), mm.compare(by_ml[0], reml)):
        assert table["statistic"][1] == pytest.approx(42.1392985420275, rel=1e-8)
        assert any("refitted" in note for note in table.notes)


def test_the_chi_squared_p_value_of_a_variance_is_called_conservative_and_the_mixture_halves_it(sleep):
    small = mm.lmm("Reaction ~ 1 + (1 | Subject)", sleep)
    large = mm.lmm("Reaction ~ 1 + (1 | Subject) + (0 + Days | Subject)", sleep)
    plain, mixed = mm.compare(small, large), mm.compare(small, large, method="mixture")
    assert any("conservative" in note for note in plain.notes)
    assert mixed["p_value"][1] == pytest.approx(0.5 * plain["p_value"][1], rel=1e-12)


def test_a_second_random_effect_has_the_mixture_of_one_and_two_degrees_of_freedom(by_ml):
    from scipy.stats import chi2

    table = mm.compare(*by_ml, method="mixture")
    T = table["statistic"][1]
    assert table["p_value"][1] == pytest.approx(0.5 * chi2.sf(T, 1) + 0.5 * chi2.sf(T, 2), rel=1e-9)


def test_a_correlation_is_no_boundary(sleep, by_ml):
    diagonal = mm.lmm("Reaction ~ Days + (Days || Subject)", sleep, reml=False)
    plain, mixed = mm.compare(diagonal, by_ml[1]), mm.compare(diagonal, by_ml[1], method="mixture")
    assert plain["p_value"][1] == mixed["p_value"][1] == pytest.approx(0.8004184319, rel=1e-6)
    assert plain.notes == ()


def test_several_variances_at_once_have_no_mixture_in_closed_form():
    machines = mm.load_dataset("Machines", backend="pandas")
    small = mm.lmm("score ~ Machine + (1 | Worker)", machines)
    large = mm.lmm("score ~ Machine + (Machine | Worker)", machines)
    table = mm.compare(small, large, method="mixture")
    assert np.isnan(table["p_value"][1])
    assert any("2 variances" in note and "bootstrap" in note for note in table.notes)


def test_models_whose_fixed_parts_are_not_nested_have_no_p_value(sleep):
    data = sleep.assign(noise=np.random.default_rng(3).normal(size=180))
    one = mm.lmm("Reaction ~ Days + (1 | Subject)", data, reml=False)
    two = mm.lmm("Reaction ~ noise + (Days | Subject)", data, reml=False)
    table = mm.compare(one, two)
    assert np.isnan(table["p_value"][1]) and "not nested" in table.notes[0]


def test_random_parts_that_could_not_be_shown_to_be_nested_are_noted():
    data = mm.load_dataset("Penicillin", backend="pandas")
    large = mm.lmm("diameter ~ 1 + (1 | sample) + (1 | plate)", data)
    inside = mm.lmm("diameter ~ 1 + (1 | plate)", data)
    assert not any("nested" in note for note in mm.compare(inside, large).notes)
    other = mm.lmm("diameter ~ 1 + (1 | plate)", data.assign(plate=np.arange(len(data)) % 20))
    table = mm.compare(other, large)
    assert any("(1 | plate)" in note and "nested" in note for note in table.notes)
    assert np.isnan(mm.compare(other, large, method="mixture")["p_value"][1])


def test_the_bootstrap_is_reproducible_whatever_the_number_of_threads(by_ml):
    one = mm.compare(*by_ml, method="bootstrap", n=60, seed=11, n_jobs=1)
    two = mm.compare(*by_ml, method="bootstrap", n=60, seed=11, n_jobs=2)
    other = mm.compare(*by_ml, method="bootstrap", n=60, seed=12, n_jobs=2)
    np.testing.assert_array_equal(one.extra["draws"][1], two.extra["draws"][1])
    assert not np.array_equal(one.extra["draws"][1], other.extra["draws"][1])
    assert one["p_value"][1] == 1 / 61  # (0 + 1) / (n + 1): none of 60 draws comes near 42


def test_the_bootstrap_p_value_counts_the_draws(sleep):
    data = sleep.assign(noise=np.random.default_rng(5).normal(size=180))
    small = mm.lmm(SMALL, data, reml=False)
    large = mm.lmm("Reaction ~ Days + noise + (1 | Subject)", data, reml=False)
    table = mm.compare(small, large, method="bootstrap", n=99, seed=1)
    draws, T = table.extra["draws"][1], table["statistic"][1]
    assert table["p_value"][1] == ((draws >= T).sum() + 1) / 100
    exact = mm.compare(small, large)["p_value"][1]
    assert table["p_value"][1] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 99))


def test_weights_and_missing_values_are_honoured(sleep):
    data = sleep.astype({"Reaction": float})
    data.loc[5, "Reaction"] = np.nan
    weights = np.linspace(0.5, 2.0, 180)
    weights[3] = 0.0
    options = {"weights": weights, "na_action": "exclude"}
    small, large = mm.lmm(SMALL, data, **options), mm.lmm(LARGE, data, **options)
    table = mm.compare(small, large, method="bootstrap", n=19, seed=1)
    assert table["statistic"][1] == pytest.approx(small.criterion - large.criterion, rel=1e-9)
    assert table["p_value"][1] == 1 / 20
    with pytest.raises(mm.DataError, match="weights"):
        mm.compare(small, mm.lmm(LARGE, data.iloc[[i for i in range(180) if i not in (3,)]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "chisq"}, "chi2, mixture, bootstrap"),
        ({"method": "bootstrap", "n": 0}, "at least 1"),
        ({"method": "bootstrap", "n": 2.5}, "whole number"),
        ({"method": "bootstrap", "seed": -1}, "seed"),
        ({"refit": "maybe"}, "refit"),
    ],
)
def test_wrong_options_are_one_error(by_ml, options, message):
    with pytest.raises(mm.OptionError, match=message):
        mm.compare(*by_ml, **options)


def test_one_fit_and_no_fit_are_not_a_comparison(by_ml):
    with pytest.raises(mm.OptionError, match="two"):
        mm.compare(by_ml[0])
    with pytest.raises(mm.OptionError, match="str"):
        mm.compare(by_ml[0], SMALL)


def test_offsets_that_the_fixed_part_cannot_make_up_are_not_nested(sleep):
    small = mm.lmm(SMALL, sleep, reml=False, offset=3.0 * sleep["Days"].to_numpy())
    large = mm.lmm(LARGE, sleep, reml=False)
    plain = mm.lmm(SMALL, sleep, reml=False)
    assert mm.compare(small, large)["p_value"][1] == pytest.approx(
        mm.compare(plain, large)["p_value"][1], rel=1e-6
    )
    other = mm.lmm(SMALL, sleep, reml=False, offset=np.sqrt(np.arange(180.0)))
    assert np.isnan(mm.compare(other, large)["p_value"][1])
