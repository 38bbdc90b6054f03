"""Heritability and other ratios of variances."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.genetics.heritability import components_of
from mixedmodels.genetics.ratio import read_ratio
from mixedmodels.genetics.ratio_profile import RatioProfile, _limit, _newton_limit

_spec = importlib.util.spec_from_file_location(
    "relationship_cases", Path(__file__).with_name("relationship_cases.py")
)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@pytest.fixture(scope="module")
def fit():
    known = {"animal": cases.pedigree("ped500")}
    return mm.lmm("y ~ sex + (1 | animal) + (1 | herd)", cases.table("dat_ped500"), known=known)


RATIO = "animal / (animal + herd + Residual)"


def test_gradients_of_expressions():
    x = np.array([0.7, 1.3, 2.1])
    names = {"a": 0, "a:b": 1, "e": 2}
    for text in ("a / (a + a:b + e)", "(a + a:b)^2 / e - 3 * a", "-a / 2 + e * a", "a^3 / e"):
        ratio = read_ratio(text, names)
        value, gradient = ratio.value(x)
        for i in range(3):  # central differences of an expression that Python evaluates itself
            h = 1e-5 * np.eye(3)[i]
            slope = (ratio.value(x + h)[0] - ratio.value(x - h)[0]) / 2e-5
            assert gradient[i] == pytest.approx(slope, rel=1e-7, abs=1e-9)
        python = text.replace("a:b", "d").replace("^", "**")
        assert value == pytest.approx(eval(python, {"a": x[0], "d": x[1], "e": x[2]}))


def test_delta_method(fit):
    """Variances and covariances of components: the inverse of the observed information of the likelihood."""
    found = components_of(fit)
    table = fit.heritability(RATIO)
    total = found.values.sum()
    assert table["estimate"][0] == pytest.approx(found.values[0] / total)
    gradient = np.array([1.0 / total, 0.0, 0.0]) - found.values[0] / total**2
    assert table["std_error"][0] == pytest.approx(np.sqrt(gradient @ found.covariance @ gradient), rel=1e-10)
    values = found.values
    model = mm.LinearMixedModel(
        str(fit.formula), cases.table("dat_ped500"), known={"animal": cases.pedigree("ped500")}
    )
    information = np.linalg.inv(found.covariance)
    step = 1e-4 * values[0]
    up, down = (model.score_at([values[0] + sign * step, values[1], values[2]]) for sign in (1, -1))
    np.testing.assert_allclose((down - up) / (2 * step), information[0], rtol=1e-5)


def test_default_is_the_heritability():
    data, known = cases.table("dat_ped500"), {"animal": cases.pedigree("ped500")}
    fit = mm.lmm("y ~ sex + (1 | animal)", data, known=known)
    assert fit.heritability()["ratio"].tolist() == ["animal / (animal + Residual)"]


@pytest.mark.parametrize("reml", [True, False])
def test_profile_of_one_variance(reml):
    """With one random term the ends are where the criterion itself has risen by the quantile."""
    known = {"animal": cases.pedigree("ped500")}
    fit = mm.lmm("y ~ sex + (1 | animal)", cases.table("dat_ped500"), known=known, reml=reml)
    table = fit.heritability(method="profile")
    for end in (table["conf_low"][0], table["conf_high"][0]):
        theta = np.sqrt(end / (1 - end))
        assert fit.objective.value(np.array([theta])) - fit.criterion == pytest.approx(1.959964**2, abs=1e-4)


def test_profile_by_models_and_by_minimisation(fit):
    """The quick search and the slow one find the same ends."""
    found = components_of(fit)
    profile = RatioProfile(fit, read_ratio(RATIO, found.names), found.values)
    cut = 1.959963984540054**2
    for side, end in zip((-1, 1), profile.range_of(), strict=True):
        quick = _newton_limit(profile, cut, side)
        assert quick == pytest.approx(_limit(profile, end, cut, "", []), rel=1e-6)
        assert profile.value(quick) == pytest.approx(cut, abs=1e-6)
    table = fit.heritability(RATIO, method="profile")
    assert table["conf_low"][0] < table["estimate"][0] < table["conf_high"][0]


def test_boundary():
    """A variance of zero: the interval begins there, the standard error takes it as known."""
    data = mm.load_dataset("Dyestuff2", backend="dict")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data)
    table = fit.heritability("Batch / (Batch + Residual)", method="profile")
    assert table["estimate"][0] == 0.0 and table["conf_low"][0] == 0.0
    assert 0.1 < table["conf_high"][0] < 0.6
    assert "estimated as zero" in " ".join(table.notes)
    end = table["conf_high"][0]
    rise = fit.objective.value(np.array([np.sqrt(end / (1 - end))])) - fit.criterion
    assert rise == pytest.approx(1.959964**2, abs=1e-4)


def test_refusals(fit):
    for text, message in (
        ("animals / Residual", "names 'animals'; the variances are animal"),
        ("animal /", "cannot be read"),
        ("log(animal)", "only"),
        ("1 + 1", "names no variance"),
        (3, "must be an expression"),
    ):
        with pytest.raises(OptionError, match=message):
            fit.heritability(text)
    with pytest.raises(OptionError, match="depends on the unit"):
        fit.heritability("animal + herd", method="profile")
    with pytest.raises(OptionError, match="'delta', 'profile' or 'bootstrap'"):
        fit.heritability(RATIO, method="bayes")
    slopes = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    with pytest.raises(OptionError, match="which ratio is meant"):
        slopes.heritability()
    ratio = "`Subject.Days` / (`Subject.(Intercept)` + Residual)"
    assert slopes.heritability(ratio)["std_error"][0] > 0.0
    with pytest.raises(NotImplementedYetError, match="terms of one column"):
        slopes.heritability(ratio, method="profile")


def test_bootstrap_of_a_ratio():
    """Percentiles of refits are those of an exact pivot in a balanced design (Harville and Fenech 1985)."""
    from scipy.stats import f

    data = mm.load_dataset("Dyestuff", backend="dict")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data)
    table = fit.heritability("Batch / (Batch + Residual)", method="bootstrap", n=300, seed=7)
    again = fit.heritability("Batch / (Batch + Residual)", method="bootstrap", n=300, seed=7)
    assert table.rows() == again.rows()
    # the ratio of mean squares over (1 + 5 gamma) is F(5, 24); the estimate is max(0, (ratio - 1) / 5)
    gamma = fit.theta[0] ** 2
    quantiles = f.ppf([0.025, 0.975], 5, 24) * (1.0 + 5.0 * gamma)
    drawn = np.maximum(quantiles - 1.0, 0.0) / 5.0
    expected = drawn / (1.0 + drawn)
    assert table["estimate"][0] == pytest.approx(gamma / (1.0 + gamma), rel=1e-9)
    assert table["conf_low"][0] == pytest.approx(expected[0], abs=0.03)
    assert table["conf_high"][0] == pytest.approx(expected[1], abs=0.03)
    assert "300 refits" in " ".join(table.notes)


def test_no_heritability_is_tested_with_half_the_tail():
    """At a variance of zero the statistic is half zero, half chi-square (Self and Liang 1987)."""
    from scipy.stats import chi2

    data = mm.load_dataset("Dyestuff", backend="dict")
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", data, reml=False)
    table = fit.test_random("Batch", method="mixture")
    row = table.rows()[-1]
    assert row["p_value"] == pytest.approx(0.5 * chi2.sf(row["statistic"], 1), rel=1e-9)
