"""The report page and the plots of generalised fits: what they say and what they draw."""

import re

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.inference.checks.count_plot_data import binned_data, rootogram_data
from mixedmodels.inference.checks.plot_data import residual_kind, shrinkage_data
from mixedmodels.report.glmm_words import ratio_name
from mixedmodels.report.page import report_html

pytest.importorskip("matplotlib").use("Agg")


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fit():
    data = mm.load_dataset("cbpp", backend="dict")
    return mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


@pytest.fixture(scope="module")
def inflated():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(20), 15)
    x = rng.standard_normal(300)
    y = rng.poisson(np.exp(1.0 + 0.3 * x + 0.4 * rng.standard_normal(20)[g]))
    y = np.where(rng.random(300) < 0.25, 0, y).astype(float)
    data = {"y": y, "x": x, "g": [f"g{i:02d}" for i in g]}
    return mm.glmm("y ~ x + (1 | g)", data, family="poisson", zero_inflation="~ 1 + (1 | g)")


@pytest.fixture(scope="module")
def page(fit):
    return report_html(fit)


def test_page_speaks_of_odds(page, fit):
    assert "A generalised mixed model of incidence" in page
    assert '<th scope="col" class="r">odds ratio</th>' in page
    ratio = np.exp(fit.fixef["period2"])
    assert f"goes with a factor of {ratio:.3g}" in page
    assert "on the odds of incidence" in page
    assert "expected probability of incidence in an average group is 0.198" in page
    assert "within a factor of 1.90 of the average" in page
    assert "Not available" not in page
    assert "unexplained spread" not in page


def test_page_is_self_contained_and_has_the_plots_of_its_family(page):
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "Mean residuals of rows" in page
    assert "Bars hang" not in page
    assert "Tests by simulation" in page


def test_page_of_a_zero_inflated_model(inflated):
    page = report_html(inflated, level=0.9)
    for part in (
        "Model of the extra zeros with 90% intervals",
        "ratio of means",
        "odds ratio",
        "in the model of the zeros",
        "Bars hang",
        "zero_inflation: ~ 1 + (1 | g)",
        "extra zeros apart",
    ):
        assert part in page, part
    assert "Not available" not in page
    assert page.count("<figure>") >= 6


@pytest.mark.slow
def test_hurdles_and_dispersion_models_are_named(inflated):
    data = inflated._data
    page = report_html(mm.glmm("y ~ x + (1 | g)", data, family="truncated_poisson", zero_inflation="~x"))
    assert "Model of the zeros (hurdle)" in page
    page = report_html(mm.glmm("y ~ 1 + (1 | g)", data, family="nbinom2", dispersion="~ x"))
    assert "Model of the dispersion" in page
    assert "dispersion: ~ x" in page


def test_other_links_have_no_ratios(fit):
    probit = fit.update(link="probit")
    page = report_html(probit)
    assert "odds ratio</th>" not in page
    assert "in the probit scale of" in page
    assert ratio_name("probit") is None
    assert ratio_name("cloglog") == "hazard ratio"


def test_wrong_degrees_of_freedom_are_an_error_not_a_missing_section(fit):
    with pytest.raises(OptionError):
        report_html(fit, ddf="kr")


# ---------------------------------------------------------------------- plots
def test_residual_plots_use_quantile_residuals_against_linear_predictors(fit):
    ax = fit.plot.residuals()
    assert ax.get_ylabel() == "quantile residual"
    assert ax.get_xlabel() == "linear predictor"
    np.testing.assert_array_equal(ax.collections[0].get_offsets()[:, 0], fit.fitted(type="link"))
    again = fit.plot.residuals()
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), again.collections[0].get_offsets())
    assert fit.plot.residuals(kind="pearson").get_ylabel() == "pearson residual"
    assert fit.plot.qq().get_ylabel() == "quantile residual"
    assert "quantile" in fit.plot.scale_location().get_ylabel()
    assert residual_kind(fit) == "quantile"


def test_binned_residuals_are_means_with_their_standard_errors(fit):
    columns = binned_data(fit, bins=4)
    order = np.argsort(fit.fitted(), kind="stable")
    part = np.array_split(order, 4)
    residual, data = fit.residuals(), fit.generalised.data
    variance = fit.fitted() * (1 - fit.fitted()) / data.trials
    for j, rows in enumerate(part):
        assert columns["n"][j] == len(rows)
        assert columns["residual"][j] == pytest.approx(residual[rows].mean())
        assert columns["high"][j] == pytest.approx(2 * np.sqrt(variance[rows].sum()) / len(rows))
    assert fit.plot.binned(bins=4).has_data()
    assert len(fit.plot.data("binned", bins=4)["fitted"]) == 4


def test_rootogram_expects_all_rows(inflated):
    columns = rootogram_data(inflated)
    y = inflated.response()
    assert columns["observed"].sum() == 300
    assert columns["expected"].sum() == pytest.approx(300)
    assert columns["observed"][:3].tolist() == [np.count_nonzero(y == k) for k in range(3)]
    mean, pi = inflated.fitted(type="conditional"), inflated.fitted(type="zero_probability")
    assert columns["expected"][0] == pytest.approx(np.sum(pi + (1 - pi) * np.exp(-mean)))
    short = rootogram_data(inflated, most=3)
    assert short["count"] == ["0", "1", "2", ">2"]
    assert short["observed"][-1] == np.count_nonzero(y > 2)
    assert inflated.plot.rootogram().has_data()


def test_plots_that_make_no_sense_are_refused(fit):
    with pytest.raises(OptionError, match="counts"):
        fit.plot.rootogram()
    with pytest.raises(OptionError, match="bins must be"):
        fit.plot.binned(bins=0)
    sleep = mm.load_dataset("sleepstudy", backend="dict")
    linear = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep)
    with pytest.raises(OptionError, match="generalised"):
        linear.plot.binned()
    with pytest.raises(OptionError, match="counts"):
        linear.plot.data("rootogram")


def test_random_effects_of_the_zeros_are_drawn_under_their_names(inflated):
    (ax,) = inflated.plot.caterpillar(1)
    assert ax.get_title(loc="left") == "zi_(Intercept)"
    assert inflated.plot.ranef_qq(1)[0].has_data()
    assert inflated.plot.influence("g").has_data()
    with pytest.raises(OptionError, match="conditional model"):
        inflated.plot.shrinkage(1)


def test_shrinkage_is_towards_zero_in_the_working_model(fit):
    columns = shrinkage_data(fit)
    within, shrunken = np.array(columns["within"]), np.array(columns["shrunken"])
    assert (np.abs(shrunken) <= np.abs(within) + 1e-9).all()
    assert (np.sign(shrunken) == np.sign(within)).all()


def test_effects_are_on_the_scale_of_the_response(fit):
    ax = fit.plot.effects("period")
    low, high = ax.get_ylim()
    assert 0.0 <= low < high <= 0.5
