"""Generalised fits as tidy tables: ratios, components, and what maketables asks for."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError


@pytest.fixture(scope="module")
def fit():
    return mm.glmm(
        "incidence ~ period + (1 | herd)",
        mm.load_dataset("cbpp", "dict"),
        family="binomial",
        trials="size",
    )


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(15), 12)
    x = rng.normal(size=180)
    y = rng.negative_binomial(2.0, 1.0 / (1.0 + np.exp(0.6 + 0.3 * x + 0.4 * rng.normal(size=15)[g]) / 2.0))
    return {"y": y * (rng.random(180) < 0.75), "x": x, "g": g.astype(str)}


@pytest.fixture(scope="module")
def inflated(counts):
    return mm.glmm("y ~ x + (1 | g)", counts, family="nbinom2", zero_inflation="~ x", dispersion="~ 1")


@pytest.mark.parametrize("method", ["wald", "profile"])
def test_odds_ratios_are_exponentials(fit, method):
    plain = fit.tidy(conf_int=True, conf_method=method)
    ratios = fit.tidy(conf_int=True, conf_method=method, exponentiate=True)
    fixed = plain["effect"] == "fixed"
    for name in ("estimate", "conf_low", "conf_high"):
        np.testing.assert_allclose(ratios[name][fixed], np.exp(plain[name][fixed]), rtol=1e-12)
        np.testing.assert_allclose(ratios[name][~fixed], plain[name][~fixed], rtol=1e-10)
    np.testing.assert_allclose(
        ratios["std_error"][fixed], np.exp(plain["estimate"][fixed]) * plain["std_error"][fixed], rtol=1e-12
    )
    np.testing.assert_array_equal(ratios["p_value"], plain["p_value"])
    assert ratios["estimate"][1] == pytest.approx(0.3707, abs=1e-4)  # exp(-0.9923)


def test_ratios_of_components(inflated):
    table = inflated.tidy("fixed", exponentiate=True)
    rows = dict(zip(table["term"].tolist(), table["estimate"].tolist(), strict=True))
    assert rows["zi_x"] == pytest.approx(np.exp(inflated.fixef_all["zero_inflation"]["zi_x"]), rel=1e-12)
    assert rows["disp_(Intercept)"] == pytest.approx(inflated.sigma, rel=1e-12)
    assert set(table["component"]) == {"conditional", "zero_inflation", "dispersion"}


def test_ratios_need_a_link_of_logarithms(counts):
    linear = mm.glmm("x ~ 1 + (1 | g)", counts, family="gaussian")
    with pytest.raises(OptionError, match=r"exponentiate=True is for .* 'identity'.* emmeans"):
        linear.tidy(exponentiate=True)


def test_other_parameters_are_not_logarithms():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(10), 10)
    data = {"x": rng.normal(size=100), "g": g.astype(str)}
    data["y"] = np.exp(0.2 * data["x"] + 0.3 * rng.normal(size=10)[g]) * rng.gamma(2.0, 0.5, 100)
    fit = mm.glmm("y ~ x + (1 | g)", data, family="tweedie")
    plain, ratios = fit.tidy("fixed"), fit.tidy("fixed", exponentiate=True)
    power = plain["component"] == "power"
    assert power.sum() == 1
    np.testing.assert_array_equal(plain["estimate"][power], ratios["estimate"][power])


def test_maketables_values(fit, inflated):
    assert fit.__maketables_stat__("family") == "binomial (logit)"
    assert fit.__maketables_stat__("method") == "Laplace"
    assert fit.__maketables_stat__("dispersion") is None
    assert "dispersion" not in fit.__maketables_default_stat_keys__
    assert inflated.__maketables_stat__("dispersion") == inflated.sigma
    assert set(inflated.__maketables_default_stat_keys__) <= set(inflated.__maketables_stat_labels__)
    assert inflated.__maketables_vcov_info__["vcov_type"] == "joint Hessian"
    pytest.importorskip("pandas")
    table = inflated.__maketables_coef_table__
    assert list(table.index) == ["(Intercept)", "x", "zi_(Intercept)", "zi_x"]
    np.testing.assert_allclose(table["se"], [inflated.se_all[name] for name in table.index])
    np.testing.assert_allclose(table["ci95u"] - table["b"], 1.959963984540054 * table["se"], rtol=1e-12)


def test_maketables_takes_fits(fit):
    maketables = pytest.importorskip("maketables")
    text = maketables.ETable([fit]).make(type="tex")
    for shown in ("period2", "-0.992", "incidence", "Laplace", "binomial"):
        assert shown in text, shown
