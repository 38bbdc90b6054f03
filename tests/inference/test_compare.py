"""Likelihood-ratio comparison: lme4's figures, refits, and what cannot be compared."""

from __future__ import annotations

import pytest

import mixedmodels as mm


@pytest.fixture(scope="module")
def sleep():
    return mm.load_dataset("sleepstudy", backend="pandas")


def test_the_slope_of_sleepstudy_by_maximum_likelihood(sleep):
    small = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep, reml=False)
    large = mm.lmm("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
    table = mm.compare(large, small)  # sorted by number of parameters
    assert table["npar"].tolist() == [4, 6]
    assert table["statistic"][1] == pytest.approx(42.139, abs=1e-3)  # anova() of lme4
    assert table["df"][1] == 2
    assert table["p_value"][1] == pytest.approx(7.072e-10, rel=1e-3)
    assert "p_value" in str(table) and list(table.to_frame()["npar"]) == [4, 6]


def test_restricted_likelihoods_of_equal_fixed_parts_are_kept(sleep):
    small = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    large = mm.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    table = mm.compare(small, large)
    assert table["statistic"][1] == pytest.approx(42.8368, abs=1e-3)
    assert not any("refitted" in note for note in table.notes)


def test_different_fixed_parts_are_refitted_and_said(sleep):
    small = mm.lmm("Reaction ~ 1 + (Days | Subject)", sleep)
    large = mm.lmm("Reaction ~ Days + (Days | Subject)", sleep)
    table = mm.compare(small, large)
    assert table["statistic"][1] == pytest.approx(
        2 * (large.refit_ml().loglik - small.refit_ml().loglik), rel=1e-9
    )
    assert any("refitted by maximum likelihood" in note for note in table.notes)


def test_one_fit_is_not_a_comparison(sleep):
    with pytest.raises(mm.OptionError, match="two"):
        mm.compare(mm.lmm("Reaction ~ Days + (1 | Subject)", sleep))
