"""Other packages take a fit: maketables by its plug-in format, marginaleffects by an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm

# by tests/references/inference/make_adapters.R
LMER = json.loads(Path(__file__).with_name("references").joinpath("inference", "adapters.json").read_text())


@pytest.fixture(scope="module")
def machines():
    return mm.lmm("score ~ Machine + (Machine | Worker)", mm.load_dataset("Machines", backend="pandas"))


# ------------------------------------------------------------------ maketables


def test_maketables_takes_fits(fit):
    maketables = pytest.importorskip("maketables")
    other = fit.update(". ~ . - (Days | Subject) + (1 | Subject)")
    table = maketables.ETable([fit, other])
    text = table.make(type="tex")
    for shown in ("Days", "10.467", "SD Days", "Reaction", "Log-likelihood", "REML"):
        assert shown in text, shown


def test_maketables_protocol_values(fit):
    pytest.importorskip("maketables")
    from maketables import get_extractor

    extractor = get_extractor(fit)
    table = extractor.coef_table(fit)
    assert list(table.index) == ["(Intercept)", "Days"]
    np.testing.assert_allclose(table["b"], fit.beta)
    np.testing.assert_allclose(table["se"], list(fit.se.values()), rtol=1e-12)
    # lmerTest's df come from differences; those of this balanced design are 17
    r = LMER["coefficients"]
    np.testing.assert_allclose(table["df"], 17.0, rtol=1e-6)
    np.testing.assert_allclose(table["df"], r["df"], rtol=1e-6)
    np.testing.assert_allclose(table["t"], r["statistic"], rtol=1e-6)
    np.testing.assert_allclose(table["p"], r["p_value"], rtol=1e-5)
    half = 2.1098155778331806 * table["se"]
    np.testing.assert_allclose(table["ci95u"] - table["b"], half, rtol=1e-5)
    assert extractor.depvar(fit) == "Reaction"
    assert extractor.stat(fit, "N") == 180
    assert extractor.stat(fit, "ll") == fit.loglik
    sdcor = [row["sdcor"] for row in LMER["varcorr"]]  # two standard deviations, correlation, residual
    assert extractor.stat(fit, "sd__Subject__Days") == pytest.approx(sdcor[1], rel=1e-5)
    assert extractor.stat(fit, "cor__Subject__(Intercept)__Days") == pytest.approx(sdcor[2], rel=1e-4)
    assert extractor.stat(fit, "sigma") == pytest.approx(sdcor[3], rel=1e-6)
    assert extractor.stat(fit, "n__Subject") == 18
    assert extractor.stat(fit, "r2_nonsense") is None
    assert set(extractor.default_stat_keys(fit)) <= set(extractor.stat_labels(fit))
    assert extractor.vcov_info(fit)["vcov_type"] == "Satterthwaite"
    assert extractor.fixef_string(fit) is None


# ------------------------------------------------------------------ marginaleffects


def column(result, name):
    return np.asarray(result[name].to_numpy() if hasattr(result[name], "to_numpy") else result[name])


def test_slopes_are_the_coefficients(fit):
    me = pytest.importorskip("marginaleffects")
    slopes = me.avg_slopes(mm.adapters.marginaleffects(fit), variables="Days")
    np.testing.assert_allclose(column(slopes, "estimate"), fit.fixef["Days"], rtol=1e-6)
    np.testing.assert_allclose(column(slopes, "std_error"), fit.se["Days"], rtol=1e-4)


def test_predictions_are_those_of_the_fit(fit):
    me = pytest.importorskip("marginaleffects")
    from marginaleffects.datagrid import datagrid

    model = mm.adapters.marginaleffects(fit)
    grid = datagrid(model, Days=[0, 4, 9])
    out = me.predictions(model, newdata=grid)
    own = fit.predict({"Days": [0, 4, 9]}, "population", se=True)
    np.testing.assert_allclose(column(out, "estimate"), own["predicted"], rtol=1e-10)
    np.testing.assert_allclose(column(out, "std_error"), own["std_error"], rtol=1e-4)
    conditional = me.predictions(mm.adapters.marginaleffects(fit, re_form=None))
    np.testing.assert_allclose(column(conditional, "estimate"), fit.fitted(), rtol=1e-10)


def test_means_of_a_factor_and_hypotheses(machines):
    me = pytest.importorskip("marginaleffects")
    model = mm.adapters.marginaleffects(machines)
    means = me.avg_predictions(model, by="Machine")
    own = machines.predict({"Machine": ["A", "B", "C"]}, "population", se=True)
    np.testing.assert_allclose(column(means, "estimate"), own["predicted"], rtol=1e-8)
    np.testing.assert_allclose(column(means, "std_error"), own["std_error"], rtol=1e-4)
    wide = me.avg_predictions(model, by="Machine", vcov=4.0 * machines.vcov)
    np.testing.assert_allclose(column(wide, "std_error"), 2.0 * own["std_error"], rtol=1e-4)
    test = me.hypotheses(model, "b1 - b2 = 0")
    L = np.array([0.0, 1.0, -1.0])
    np.testing.assert_allclose(column(test, "std_error"), np.sqrt(L @ machines.vcov @ L), rtol=1e-4)


def test_comparisons_of_a_factor(machines):
    me = pytest.importorskip("marginaleffects")
    model = mm.adapters.marginaleffects(machines)
    try:
        out = me.avg_comparisons(model, variables="Machine")
    except AttributeError as error:  # marginaleffects 0.6 with polars 2: the one method that is gone
        if "get_categories" not in str(error):
            raise
        pytest.skip("this marginaleffects compares factors through a method that this polars does not have")
    np.testing.assert_allclose(column(out, "estimate"), machines.beta[1:], rtol=1e-8)
    np.testing.assert_allclose(column(out, "std_error"), list(machines.se.values())[1:], rtol=1e-4)


def test_a_model_that_cannot_be_adapted(fit):
    with pytest.raises(mm.DataError, match="pass data="):
        mm.adapters.marginaleffects(fit.refit(fit.response() + 1.0))
    term = mm.RandomTerm("g", (), fit.design.terms[0].codes, None, None, "us")
    matrices = mm.LinearMixedModel.from_matrices(fit.response(), np.ones((180, 1)), [term]).fit()
    with pytest.raises(mm.OptionError, match="matrices"):
        mm.adapters.marginaleffects(matrices)


def test_generalised_predictions_are_means():
    me = pytest.importorskip("marginaleffects")
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(12), 10)
    x = rng.normal(size=120)
    y = rng.poisson(np.exp(0.5 + 0.3 * x + 0.4 * rng.normal(size=12)[g])) * (rng.random(120) < 0.8)
    data = {"y": y, "x": x, "z": rng.normal(size=120), "g": g.astype(str)}
    fit = mm.glmm("y ~ x + (1 | g)", data, family="poisson", zero_inflation="~ z")
    for kind in ("response", "link", "zero_probability"):
        found = me.predictions(mm.adapters.marginaleffects(fit, type=kind))
        own = fit.predict(re_form="population", type=kind, se=True)
        np.testing.assert_allclose(column(found, "estimate"), own["predicted"], rtol=1e-10)
        # at the population level the error is that of the coefficients
        np.testing.assert_allclose(column(found, "std_error"), own["std_error"], rtol=1e-5)
    slopes = me.avg_slopes(mm.adapters.marginaleffects(fit), variables="x")
    mean = fit.predict(re_form="population")
    np.testing.assert_allclose(column(slopes, "estimate"), (mean * fit.fixef["x"]).mean(), rtol=1e-4)
    with pytest.raises(mm.errors.OptionError, match="no dispersion part"):
        mm.adapters.marginaleffects(fit, type="dispersion")
