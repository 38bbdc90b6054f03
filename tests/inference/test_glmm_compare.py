"""Comparing generalised models: the likelihood that was optimised, with all its constants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

HERE = Path(__file__).parents[1] / "references"
CBPP = "incidence ~ period + (1 | herd)"
BINOMIAL = {"family": "binomial", "trials": "size"}
SALAMANDERS = "count ~ spp + mined + (1 | site)"


@pytest.fixture(scope="module")
def data():
    return mm.load_dataset("cbpp", backend="pandas")


@pytest.fixture(scope="module")
def small(data):
    return mm.glmm("incidence ~ 1 + (1 | herd)", data, **BINOMIAL)


@pytest.fixture(scope="module")
def large(data):
    return mm.glmm(CBPP, data, **BINOMIAL)


@pytest.fixture(scope="module")
def salamanders():
    return read_reference_table(HERE / "data", "Salamanders")


@pytest.fixture(scope="module")
def poisson(salamanders):
    return mm.glmm(SALAMANDERS, salamanders, family="poisson")


def test_the_table_is_that_of_anova_of_glmer(small, large):
    expected = json.loads((HERE / "glmm" / "emmeans.json").read_text(encoding="utf-8"))["cbpp"]["glmer_anova"]
    table = mm.compare(large, small)
    for column in ("aic", "bic", "loglik"):
        assert table[column].tolist() == pytest.approx(expected[column], rel=1e-8)
    last = table.rows()[1]
    assert last["statistic"] == pytest.approx(expected["chisq"], rel=1e-7)
    assert (last["df"], last["npar"]) == (expected["df"], 5)
    assert last["p_value"] == pytest.approx(expected["p"], rel=1e-6)
    assert table["aic"].tolist() == pytest.approx([small.aic, large.aic], rel=1e-14)
    assert table["bic"].tolist() == pytest.approx([small.bic, large.bic], rel=1e-14)


def test_different_quadrature_is_comparable_and_noted(data, small, large):
    fine = mm.glmm(CBPP, data, **BINOMIAL, nagq=9)
    # all constants are kept: the approximations of one likelihood are close
    assert fine.loglik == pytest.approx(large.loglik, abs=0.1)
    assert fine.loglik == pytest.approx(mm.glmm(CBPP, data, **BINOMIAL, nagq=15).loglik, abs=1e-3)
    table = mm.compare(large, fine)
    assert table["model"].tolist() == ["nagq 1", "nagq 9"]
    assert table["loglik"].tolist() == [large.loglik, fine.loglik]
    assert np.isnan(table["p_value"]).all()
    assert any("nagq = 1, 9" in note and "use one nagq" in note for note in table.notes)
    mixed = mm.compare(small, fine)
    assert any("nagq = 1, 9" in note for note in mixed.notes)
    assert not any("nagq" in note for note in mm.compare(small, large).notes)


def test_different_information_is_noted(data, large):
    expected = mm.glmm(CBPP, data, **BINOMIAL, link="probit", information="expected")
    observed = mm.glmm(CBPP, data, **BINOMIAL, link="probit")
    table = mm.compare(expected, observed)
    assert any("information = " in note for note in table.notes)


def test_a_random_term_lies_on_the_boundary(data):
    data = data.assign(row=np.arange(len(data)).astype(str))
    one = mm.glmm(CBPP, data, **BINOMIAL)
    two = mm.glmm(CBPP + " + (1 | row)", data, **BINOMIAL)
    plain, half = mm.compare(one, two), mm.compare(one, two, method="mixture")
    assert half["p_value"][1] == pytest.approx(plain["p_value"][1] / 2, rel=1e-12)
    assert any("conservative" in note for note in plain.notes)


def test_poisson_is_the_edge_of_the_negative_binomial(salamanders, poisson):
    other = mm.glmm(SALAMANDERS, salamanders, family="nbinom2")
    table = mm.compare(other, poisson)
    assert table["model"].tolist() == ["poisson(log)", "negative_binomial(log)"]
    assert table["statistic"][1] == pytest.approx(2 * (other.loglik - poisson.loglik), rel=1e-10)
    assert table["df"][1] == 1
    assert any("family is on the boundary" in note for note in table.notes)
    mixture = mm.compare(poisson, other, method="mixture")
    assert np.isfinite(mixture["p_value"][1])


def test_zero_inflation_is_nested_and_its_columns_are_checked(salamanders, poisson):
    zi = {"family": "poisson"}
    one = mm.glmm(SALAMANDERS, salamanders, **zi, zero_inflation="~ 1")
    two = mm.glmm(SALAMANDERS, salamanders, **zi, zero_inflation="~ mined")
    other = mm.glmm(SALAMANDERS, salamanders, **zi, zero_inflation="~ DOY + cover")
    expected = json.loads((HERE / "glmm" / "emmeans.json").read_text(encoding="utf-8"))["salamanders"]
    table = mm.compare(poisson, one, two)
    assert table["statistic"][1:].tolist() == pytest.approx(
        [expected["lrt_zip"]["chisq"], expected["lrt_zi"]["chisq"]], rel=1e-6
    )
    assert table["df"][1:].tolist() == [1.0, 1.0]
    unrelated = mm.compare(two, other)
    assert np.isnan(unrelated["p_value"][1])
    assert any("zero_inflation part of the smaller one" in note for note in unrelated.notes)


def test_other_links_and_families_have_no_test(data, large, salamanders):
    probit = mm.glmm("incidence ~ 1 + (1 | herd)", data, **BINOMIAL, link="probit")
    table = mm.compare(probit, large)
    assert np.isnan(table["p_value"][1])
    assert any("links differ (probit, logit)" in note for note in table.notes)


def test_what_cannot_be_compared_is_refused(data, large, salamanders, poisson, fit):
    with pytest.raises(mm.DataError, match="different rows"):
        mm.compare(large, poisson)
    changed = data.assign(incidence=np.minimum(data["incidence"] + 1, data["size"]))
    with pytest.raises(mm.DataError, match="different responses"):
        mm.compare(large, mm.glmm(CBPP, changed, **BINOMIAL))
    with pytest.raises(mm.DataError, match="different trials"):
        mm.compare(large, mm.glmm(CBPP, data.assign(size=data["size"] + 5), **BINOMIAL))
    with pytest.raises(mm.DataError, match="different weights"):
        mm.compare(large, mm.glmm(CBPP, data, **BINOMIAL, weights=np.full(len(data), 2.0)))
    rows = salamanders.assign(y=np.log1p(salamanders["count"]))
    with pytest.raises(mm.OptionError, match="linear or generalised"):
        mm.compare(poisson, mm.lmm("count ~ spp + mined + (1 | site)", rows, reml=False))
    with pytest.raises(mm.DataError, match="probabilities and densities"):
        mm.compare(poisson, mm.glmm(SALAMANDERS, salamanders, family="gaussian"))
