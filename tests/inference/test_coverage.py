"""Coverage of intervals by simulation, against what exact distributions imply; see docs/coverage.md.

In the balanced designs of tools/coverage.py the t statistic of a fixed effect has Student's distribution with
m - 1 or m - 2 degrees of freedom, so that the coverage of each method is known (`theory`): 0.95 for
Satterthwaite and Kenward-Roger, less for Wald and for the profile of the likelihood. Seeds are fixed.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm

PATH = Path(__file__).parents[2] / "tools" / "coverage.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("coverage_tool", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


def design(tool, name):
    return next(d for d in tool.DESIGNS if d.name == name)


def test_theory_by_hand(tool):
    for name, m, nu in (("slopes", 12, 11), ("slopes", 18, 17), ("treatment", 12, 10), ("treatment", 18, 16)):
        rng = np.random.default_rng(nu)
        t2 = rng.standard_t(nu, size=400_000) ** 2
        exact = tool.theory(design(tool, name), m)
        assert exact["wald"]["x"] == pytest.approx((t2 < 3.841459).mean(), abs=0.0015)
        ratio = m * np.log1p(t2 / nu)
        assert exact["profile"]["x"] == pytest.approx((ratio < 3.841459).mean(), abs=0.0015)
    assert tool.theory(design(tool, "unbalanced"), 12) == {}


@pytest.mark.parametrize(("name", "nu"), [("slopes", -1), ("treatment", -2)])
def test_degrees_of_freedom_and_statistics_are_those_of_the_theory(tool, name, nu):
    """df = m - 1 or m - 2, and the likelihood ratio of x is m log(1 + t^2 / df)."""
    for m in (12, 18):
        d = design(tool, name)
        data = d.data(m)
        y = tool.responses(d, data, 1, np.random.default_rng(3))[:, 0]
        fit = mm.lmm(d.formula, {**data, "y": y})
        assert not fit.is_singular
        for ddf in ("satterthwaite", "kr"):
            np.testing.assert_allclose(fit.coefficients(ddf)["df"], m + nu, rtol=1e-4)
        t = fit.coefficients().row("x")["statistic"]
        ratio = fit.test_fixed("x", method="lrt")["statistic"][-1]
        assert ratio == pytest.approx(m * math.log1p(t * t / (m + nu)), rel=1e-6)


def test_what_is_counted(tool, monkeypatch):
    """A missing limit is unbounded; an interval with neither limit is left out."""
    d = design(tool, "treatment")
    limits = [(-9.0, 9.0), (2.0, math.nan), (math.nan, 2.0), (math.nan, math.nan), (math.nan, 0.5)]  # x is 1
    rows = iter(limits)
    monkeypatch.setattr(
        tool, "intervals_of", lambda *_: [("kind", "x", *next(rows)), ("kind", "z", 0.0, 0.0)]
    )
    assert tool.coverage(d, 12, len(limits), seed=1) == {"kind": {"x": (0.5, 4)}}


def test_the_page_keeps_its_words(tool):
    d = design(tool, "treatment")
    counts = {"wald": {"x": (0.9, 100), "sd_(Intercept)|g": (0.8, 100)}}
    page = tool.put(
        "# T\n" + tool.MARKS[0] + "\nold\n" + tool.MARKS[1] + "\nwords",
        tool.tables([(d, 12, counts)], 100, 0, 0),
    )
    assert page.startswith("# T\n") and page.endswith("\nwords") and "old" not in page
    assert "| treatment | 12 | x | 0.900 |" in page and r"| sd_(Intercept)\|g | 0.800 |" in page
    assert f"| 0.922 ({(0.9 - 0.92150) / math.sqrt(0.0785 * 0.9215 / 100):+.1f}) |" in page


@pytest.mark.slow
@pytest.mark.parametrize("groups", [12, 18])
@pytest.mark.parametrize("name", ["slopes", "treatment"])
def test_coverage_is_that_of_the_theory(tool, name, groups):
    d, n = design(tool, name), 1000
    counts = tool.coverage(d, groups, n, seed=7, methods=("wald", "satterthwaite", "kr"))
    exact = tool.theory(d, groups)
    for method in ("wald", "satterthwaite", "kr"):
        for term in d.beta:
            assert counts[method][term][1] == n
            assert abs(tool.errors(counts[method][term], exact[method][term])) < 3.5, (method, term)
    for term in d.beta:
        # on the same data: Wald intervals are shorter, so they hold the truth less often
        assert counts["wald"][term][0] < counts["satterthwaite"][term][0] - 0.005
        assert exact["wald"][term] < 0.935 < exact["kr"][term] == 0.95


@pytest.mark.slow
def test_coverage_of_profiles_with_18_groups(tool):
    d, n = design(tool, "slopes"), 120
    counts = tool.coverage(d, 18, n, seed=7, methods=("profile",))["profile"]
    exact = tool.theory(d, 18)["profile"]
    for term in ("(Intercept)", "x", "sigma"):
        assert abs(tool.errors(counts[term], exact[term])) < 3.5, term
    for term in ("sd_(Intercept)|g", "sd_x|g"):  # no exact distribution; nearly nominal
        assert abs(tool.errors(counts[term], 0.95)) < 3.5, term


@pytest.mark.slow
def test_coverage_of_the_studentized_bootstrap(tool):
    """Its t is a pivot in balanced designs: nominal, where percentile and basic are as short as Wald's."""
    d, n = design(tool, "treatment"), 200
    counts = tool.coverage(d, 12, n, seed=7, methods=(), bootstraps=n, draws=399)
    exact = tool.theory(d, 12)
    for kind in ("percentile", "basic", "normal", "studentized"):
        assert abs(tool.errors(counts[kind]["x"], exact[kind]["x"])) < 3.5, kind
    assert counts["studentized"]["x"][0] > counts["basic"]["x"][0]


def test_studentized_intervals_differ_from_basic_ones_of_the_same_draws(tool):
    d = design(tool, "treatment")
    data = d.data(12)
    y = tool.responses(d, data, 1, np.random.default_rng(5))[:, 0]
    fit = mm.lmm(d.formula, {**data, "y": y})
    rows = fit.confint("bootstrap", parameters="x", n=1999, seed=1, kind="all", progress=False).rows()
    width = {row["kind"]: row["conf_high"] - row["conf_low"] for row in rows}
    t10, z = 2.228139, 1.959964
    assert width["studentized"] / width["basic"] == pytest.approx(t10 / z, rel=0.06)
    assert abs(t10 / z - 1.0) > 0.12  # more than the tolerance above allows


# ---------------------------------------------------------------------- structured residuals
@pytest.fixture(scope="module")
def structured():
    spec = importlib.util.spec_from_file_location(
        "coverage_structured_tool", PATH.with_name("coverage_structured.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


def test_mmrm_of_complete_visits_is_the_t_test_at_the_last_visit(structured):
    pd = pytest.importorskip("pandas")
    d, m = structured.DESIGNS[0], 12
    data = d.data(m)
    y = structured.responses(d, data, m, 1, np.random.default_rng(5))[:, 0]
    data["visit"] = pd.Categorical(data["visit"], categories=structured.VISITS)
    fit = mm.gls(d.formula, {**data, "y": y}, residual=d.residual)
    last = y[np.asarray(data["visit"]) == "v4"]
    a, b = last[1::2], last[0::2]
    pooled = (a.var(ddof=1) + b.var(ddof=1)) / 2.0
    for ddf in ("satterthwaite", "kr"):
        (row,) = [row for row in fit.coefficients(ddf).rows() if row["term"] == "arm"]
        assert row["df"] == pytest.approx(m - 2, rel=1e-4)
        assert row["estimate"] == pytest.approx(a.mean() - b.mean(), rel=1e-8)
        assert row["std_error"] == pytest.approx(math.sqrt(pooled * 2.0 / 6.0), rel=1e-5)


@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_few_replicates_of_the_structured_designs(structured, which):
    d = structured.DESIGNS[which]
    found = structured.coverage(d, 12, 15, 3)
    terms = {term for term, _ in found}
    assert terms == set(d.truth)
    assert all(count == 15 for _, count in found.values())
    for term in ("arm", "t"):
        if term in terms:  # longer intervals hold the truth at least as often
            assert found[term, "kr"][0] >= found[term, "wald"][0] >= 0.4


def test_draws_have_the_covariance_of_the_design(structured):
    for d in structured.DESIGNS:
        data = d.data(6)
        Y = structured.responses(d, data, 6, 40_000, np.random.default_rng(1))
        first = np.flatnonzero(np.asarray(data["g"]) == 1)
        place = data["row"][first] % d.covariance.shape[0]
        assert np.cov(Y[first]) == pytest.approx(d.covariance[np.ix_(place, place)], abs=0.1)
