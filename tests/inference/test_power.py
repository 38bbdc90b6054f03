"""Power by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mixedmodels as mm
from mixedmodels.inference.bootstrap.power import binomial_interval, extended_design, power

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return mm.lmm(SLEEP, mm.load_dataset("sleepstudy", backend="dict"))


@pytest.mark.parametrize("method", ["wald", "lrt", "satterthwaite"])
def test_power_of_a_slope_is_that_of_its_t_test(sleep, method):
    """Days in the balanced sleepstudy: a t test with 17 degrees of freedom."""
    n = 400 if method != "satterthwaite" else 150
    table = power(sleep, "Days", n=n, seed=3, effect={"Days": 4.0}, method=method)
    (row,) = table.rows()
    shift = 4.0 / sleep.se["Days"]
    exact = stats.nct.sf(stats.t.isf(0.025, 17), 17, shift) + stats.nct.cdf(stats.t.ppf(0.025, 17), 17, shift)
    bound = 4 * np.sqrt(exact * (1 - exact) / n)
    # the chi-squared tests reject a little more often than the t test
    assert exact - bound < row["power"] < exact + bound + (0.0 if method == "satterthwaite" else 0.05)
    assert row["power"] == row["significant"] / n and row["failures"] == 0
    assert row["conf_low"] < row["power"] < row["conf_high"]


def test_level_under_the_null(sleep):
    table = power(sleep, "Days", n=300, seed=1, effect={"Days": 0.0}, method="satterthwaite", level=0.1)
    assert abs(table["power"][0] - 0.1) < 4 * np.sqrt(0.09 / 300)


def test_curves(sleep):
    table = power(
        sleep, "Days", n=200, seed=1, effect={"Days": [2, 5]}, extend={"Subject": [9, 36]}, method="wald"
    )
    assert list(table["Subject"]) == [9, 9, 36, 36]
    assert list(table["effect Days"]) == [2, 5, 2, 5]
    p = table["power"]
    assert p[0] < p[1] < p[3] and p[0] < p[2] < p[3]
    assert "power" in str(table) and not any("observed" in note for note in table.notes)


def test_workers_do_not_matter(sleep):
    one = power(sleep, "Days", n=120, seed=1, effect={"Days": 4}, method="wald", n_jobs=1)
    two = power(sleep, "Days", n=120, seed=1, effect={"Days": 4}, method="wald", n_jobs=2)
    assert one["significant"][0] == two["significant"][0]


def test_a_test_of_ones_own(sleep):
    def p_value(fit):
        return 2 * stats.norm.sf(abs(fit.fixef["Days"] / fit.se["Days"]))

    own = power(sleep, p_value, n=60, seed=1, effect={"Days": 4})
    wald = power(sleep, "Days", n=60, seed=1, effect={"Days": 4}, method="wald")
    assert own["significant"][0] == wald["significant"][0]

    def fragile(fit):
        if fit.sigma > sleep.sigma:
            raise mm.SolverError("no")
        return 0.0

    table = power(sleep, fragile, n=60, seed=1)
    assert table["failures"][0] + table["significant"][0] == 60 and 0 < table["failures"][0] < 60
    assert any("not significant" in note for note in table.notes)
    with pytest.raises(mm.OptionError, match="p-value"):
        power(sleep, lambda fit: "small", n=2, seed=1)


def test_a_whole_factor():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(12), 6)
    f = np.tile(["a", "b", "c"], 24)
    y = rng.normal(size=12)[g] + rng.normal(size=72)
    fit = mm.lmm("y ~ f + (1 | g)", {"y": y, "g": g, "f": f})
    for method in ("wald", "lrt"):
        null = power(fit, "f", n=300, seed=1, effect={"fb": 0, "fc": 0}, method=method)
        assert null["power"][0] < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300) + 0.02
        high = power(fit, "f", n=100, seed=1, effect={"fb": 2.0}, method=method)
        assert high["power"][0] > 0.95
    observed = power(fit, "f", n=20, seed=1, method="wald")
    assert any("observed effect" in note for note in observed.notes)


def test_extended_designs(sleep):
    design = extended_design(sleep, {"Subject": 40})
    assert design.n == 400 and design.terms[0].m == 40
    np.testing.assert_array_equal(np.bincount(design.terms[0].codes), 10)
    design = extended_design(sleep, {"Subject": 5, "rows": 3})
    assert design.n == 150 and design.terms[0].m == 5
    crossed = mm.lmm(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", mm.load_dataset("Penicillin", backend="dict")
    )
    design = extended_design(crossed, {"plate": 50})
    assert [term.m for term in design.terms] == [50, 6] and design.n == 300


def test_clopper_pearson():
    """An interval end is where the tail of the binomial distribution is 2.5 %."""
    low, high = binomial_interval(7, 50)
    assert stats.binom.sf(6, 50, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 50, high) == pytest.approx(0.025)
    assert binomial_interval(0, 20)[0] == 0.0 and binomial_interval(20, 20)[1] == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n must be"),
        ({"test": "Weeks"}, "Days"),
        ({"method": "magic"}, "satterthwaite"),
        ({"effect": {"Weeks": 1}}, "Weeks"),
        ({"effect": {"Days": "large"}}, "finite number"),
        ({"effect": {"Days": []}}, "empty"),
        ({"effect": 3}, "dict"),
        ({"extend": {"Item": 20}}, "Subject"),
        ({"extend": {"Subject": 0}}, ">= 1"),
        ({"level": 5}, "between 0 and 1"),
        ({"seed": -3}, "seed"),
    ],
)
def test_wrong_options(sleep, options, words):
    with pytest.raises(mm.OptionError, match=words):
        power(sleep, **{"test": "Days", "n": 5, "seed": 1, "method": "wald", **options})
