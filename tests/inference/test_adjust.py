"""Adjusted p-values and critical values of families of tests."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mixedmodels.errors import OptionError
from mixedmodels.inference.means.adjust import (
    ADJUSTMENTS,
    Family,
    adjust_p_values,
    check_adjust,
    critical_values,
    raw_p_values,
)

T = np.array([2.9, -0.4, 2.1, 1.2])
DF = np.full(4, 17.0)
FAMILY = Family("contrasts", 4, np.eye(4) + 0.3, 4)


def p(method, t=T, df=DF, side=0, family=FAMILY):
    return adjust_p_values(method, t, df, side, family)[0]


def test_raw_p_values():
    assert p("none") == pytest.approx(2 * stats.t.sf(np.abs(T), 17), rel=1e-10)
    assert raw_p_values(T, np.full(4, np.inf), 1) == pytest.approx(stats.norm.sf(T), rel=1e-12)
    assert raw_p_values(T, DF, -1) == pytest.approx(stats.t.cdf(T, 17), rel=1e-10)


def test_published_stepwise_example():
    """Benjamini & Hochberg (1995): the 15 p-values of their section 4 reject 4 by FDR and 3 by Bonferroni."""
    values = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
                       0.4262, 0.5719, 0.6528, 0.7590, 1.0])  # fmt: skip
    t = stats.norm.isf(values / 2)
    df, family = np.full(15, np.inf), Family("contrasts", 15, np.eye(15), 15)
    assert (p("fdr", t, df, 0, family) <= 0.05).sum() == 4
    assert (p("bonferroni", t, df, 0, family) <= 0.05).sum() == 3
    assert (p("holm", t, df, 0, family) <= 0.05).sum() == 3
    assert (p("hochberg", t, df, 0, family) <= 0.05).sum() == 3


def test_order_of_the_methods():
    """Wright (1992): none <= hommel <= hochberg <= holm <= bonferroni, sidak <= bonferroni, fdr <= by."""
    chain = ["none", "hommel", "hochberg", "holm", "bonferroni"]
    for smaller, larger in [*itertools.pairwise(chain), ("sidak", "bonferroni"), ("fdr", "by")]:
        assert (p(smaller) <= p(larger) + 1e-15).all(), (smaller, larger)
    assert (p("mvt") <= p("sidak") + 1e-4).all()


@pytest.mark.parametrize("method", ADJUSTMENTS)
def test_any_order_of_tests_gives_the_same(method):
    order = np.array([2, 0, 3, 1])
    family = Family(
        "pairwise" if method == "tukey" else "dunnett", 4, FAMILY.covariance[np.ix_(order, order)], 4
    )
    straight = Family(family.kind, 4, FAMILY.covariance, 4)
    assert p(method, T[order], DF, 0, family) == pytest.approx(p(method, family=straight)[order], rel=1e-3)


@pytest.mark.parametrize("method", ["none", "sidak", "bonferroni", "scheffe", "mvt", "dunnett", "tukey"])
@pytest.mark.parametrize("side", [0, 1])
def test_intervals_and_tests_agree(method, side):
    """At the critical value the adjusted p-value is one minus the level."""
    kind = "pairwise" if method == "tukey" else "contrasts"
    family = Family(
        kind, 3, np.array([[2.0, 1, -1], [1, 2, 1], [-1, 1, 2]]) if kind == "pairwise" else EQUAL, 2
    )
    family = Family(kind, 3, family.covariance, 2 if kind == "pairwise" else 3)
    critical, _ = critical_values(method, np.full(3, 11.0), 0.9, side, family)
    found, _ = adjust_p_values(method, critical, np.full(3, 11.0), side, family)
    assert found == pytest.approx([0.1] * 3, rel=1e-6)


EQUAL = np.eye(3) + 1.0


def test_scheffe_is_the_f_test():
    found = p("scheffe", family=Family("contrasts", 4, np.eye(4), 2))
    assert found == pytest.approx(stats.f.sf(T**2 / 2, 2, 17), rel=1e-9)


def test_what_was_used_instead_is_said():
    for method, family, side, used in (
        ("tukey", FAMILY, 0, "sidak"),
        ("tukey", Family("pairwise", 4, np.eye(6), 3), 1, "sidak"),
        ("scheffe", FAMILY, 1, "sidak"),
        ("dunnettx", FAMILY, 0, "mvt"),
    ):
        m = family.covariance.shape[0]
        values, notes = adjust_p_values(method, np.full(m, 2.0), np.full(m, 9.0), side, family)
        expected, _ = adjust_p_values(used, np.full(m, 2.0), np.full(m, 9.0), side, family)
        assert values == pytest.approx(expected)
        assert any(used in note and method in note for note in notes)
    _, notes = critical_values("fdr", DF, 0.95, 0, FAMILY)
    assert any("bonferroni" in note and "fdr" in note for note in notes)


def test_incomplete_pairs_use_the_exact_distribution():
    family = Family("pairwise", 4, np.eye(4), 4)
    values, notes = adjust_p_values("tukey", T, DF, 0, family)
    assert values == pytest.approx(p("mvt", family=family))
    assert any("cannot be estimated" in note for note in notes)


def test_p_values_stay_between_raw_and_one():
    t = np.array([40.0, 0.0, -8.0, 1e-9])
    for method in ADJUSTMENTS:
        found = p(method, t)
        assert (found >= p("none", t) - 1e-300).all() and (found <= 1.0).all(), method


def test_unknown_adjustment():
    assert check_adjust("BH") == "fdr" and check_adjust(None) == "none"
    with pytest.raises(OptionError, match=r"adjust='tuky' is unknown; available: none, tukey"):
        check_adjust("tuky")
