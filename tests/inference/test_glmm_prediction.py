"""Standard errors, limits and draws of predictions of generalised models.

References: glmmTMB's ``predict(se.fit=TRUE)``, by tests/references/glmm/predictions.R.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.errors import NewLevelError, OptionError
from mixedmodels.family import get_family
from mixedmodels.inference.prediction.predictive import predictive_quantiles

HERE = Path(__file__).parent.parent / "references"
R = json.loads(HERE.joinpath("glmm", "predictions.json").read_text())
TYPES = {"zprob": "zero_probability"}


def read(name):
    return pd.read_csv(HERE / "data" / f"{name}.csv")


@pytest.fixture(scope="module")
def fits():
    return {
        "cbpp": mm.glmm(
            "incidence ~ period + (1 | herd)",
            mm.load_dataset("cbpp", "pandas"),
            family="binomial",
            trials="size",
        ),
        "owls": mm.glmm(
            "SiblingNegotiation ~ FoodTreatment * SexParent + offset(logBroodSize) + (1 | Nest)",
            read("Owls"),
            family="nbinom2",
            zero_inflation="~ 1",
        ),
        "salamanders": mm.glmm(
            "count ~ spp + mined + (1 | site)",
            read("Salamanders"),
            family="poisson",
            zero_inflation="~ mined + (1 | site)",
        ),
        "crossed": mm.glmm(
            "TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION)",
            mm.load_dataset("grouseticks", "pandas"),
            family="poisson",
        ),
    }


def rows_of(name):
    rows = R[name]["newdata"]
    return {key: [str(v) for v in column] for key, column in rows.items()} if name == "crossed" else rows


@pytest.mark.parametrize("name", ["cbpp", "owls", "salamanders", "crossed"])
def test_standard_errors_are_those_of_the_joint_precision(fits, name):
    fit, compared = fits[name], 0
    for key, values in R[name]["values"].items():
        kind, _, effects = key.partition("_")
        if name == "salamanders" and effects == "population" and kind in ("zprob", "response"):
            # glmmTMB keeps random effects of the zero-inflation part there: its probabilities differ between
            # sites of one kind, though the only fixed effect of that part is the kind
            found = fit.predict(rows_of(name), "population", type="zero_probability")
            assert (
                len(np.unique(found.round(12)))
                == 2
                < len(np.unique(R[name]["values"]["zprob_population"]["fit"]))
            )
            continue
        table = fit.predict(
            rows_of(name), None if effects == "all" else "population", type=TYPES.get(kind, kind), se=True
        )
        np.testing.assert_allclose(table["predicted"], values["fit"], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(table["std_error"], values["se"], rtol=1e-4)
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("name", ["cbpp", "salamanders", "crossed"])
def test_rows_of_the_fit_are_like_new_rows(fits, name):
    fit = fits[name]
    own = fit.predict(se=True, type="link")
    data = fit._data.iloc[[0, 7, 20]]
    new = fit.predict(data, se=True, type="link")
    for column in ("predicted", "std_error"):
        np.testing.assert_allclose(own[column][[0, 7, 20]], new[column], rtol=1e-9)


def test_a_gaussian_model_agrees_with_the_linear_one():
    data = mm.load_dataset("sleepstudy", "pandas")
    formula = "Reaction ~ Days + (Days | Subject)"
    fit, lmm = mm.glmm(formula, data, family="gaussian"), mm.lmm(formula, data, reml=False)
    rows = {"Days": [0.0, 9.0, 12.0], "Subject": ["308", "309", "new"]}
    glmm = fit.predict(rows, new_levels="population", interval="confidence")
    linear = lmm.predict(rows, new_levels="population", interval="confidence")
    np.testing.assert_allclose(glmm["predicted"], linear["predicted"], rtol=1e-5)
    # the linear model takes its variances as known: here the modes follow the parameters
    assert (glmm["std_error"][:2] > linear["std_error"][:2]).all()
    np.testing.assert_allclose(glmm["std_error"], linear["std_error"], rtol=0.1)
    np.testing.assert_allclose(glmm["std_error"][2], linear["std_error"][2], rtol=1e-4)
    population = [f.predict({"Days": [3.0]}, "population", se=True)["std_error"] for f in (fit, lmm)]
    np.testing.assert_allclose(*population, rtol=1e-4)
    wide = [f.predict(rows, new_levels="population", interval="prediction") for f in (fit, lmm)]
    np.testing.assert_allclose(wide[0]["prediction_sd"], wide[1]["prediction_sd"], rtol=0.02)
    for end in ("conf_low", "conf_high"):
        np.testing.assert_allclose(wide[0][end], wide[1][end], rtol=0.01)


def test_limits_of_one_predictor_are_transformed(fits):
    fit = fits["cbpp"]
    rows = rows_of("cbpp")
    link = fit.predict(rows, type="link", interval="confidence", level=0.9)
    mean = fit.predict(rows, interval="confidence", level=0.9)
    for end in ("predicted", "conf_low", "conf_high"):
        np.testing.assert_allclose(mean[end], 1.0 / (1.0 + np.exp(-link[end])), rtol=1e-12)
    half = 1.6448536269514722 * link["std_error"]
    np.testing.assert_allclose(link["conf_high"] - link["predicted"], half, rtol=1e-10)
    wide = fit.predict(rows, type="link", interval="confidence", level=0.9, ddf=5)
    assert (wide["conf_high"] - wide["predicted"]) / half == pytest.approx(2.015048 / 1.644854, rel=1e-5)


def test_limits_of_a_decreasing_link_are_in_order():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(12), 8)
    x = rng.random(96)
    mean = 1.0 / (1.0 + x + 0.1 * rng.normal(size=12)[g])
    data = {"y": rng.gamma(4.0, mean / 4.0), "x": x, "g": g.astype(str)}
    fit = mm.glmm("y ~ x + (1 | g)", data, family="gamma", link="inverse")
    table = fit.predict({"x": [0.1, 0.9]}, "population", interval="confidence")
    assert (table["conf_low"] < table["predicted"]).all() and (table["predicted"] < table["conf_high"]).all()
    wide = fit.predict({"x": [0.1, 0.9]}, "population", interval="prediction")
    assert (wide["conf_low"] > 0.0).all() and (wide["conf_low"] < table["conf_low"]).all()


def test_new_levels_add_their_variance(fits):
    fit = fits["cbpp"]
    rows = {"period": ["1", "1"], "herd": ["new", "other"]}
    table = fit.predict(rows, type="link", new_levels="population", se=True)
    fixed = fit.predict({"period": ["1"]}, "population", type="link", se=True)
    exact = np.sqrt(fixed["std_error"][0] ** 2 + fit.varcorr["herd"].sds[0] ** 2)
    np.testing.assert_allclose(table["std_error"], exact, rtol=1e-10)
    np.testing.assert_allclose(table["predicted"], fixed["predicted"][0], rtol=1e-12)
    assert any("new levels of herd" in note for note in table.notes)
    missing = fit.predict(rows, new_levels="missing", interval="confidence")
    assert np.isnan(missing["predicted"]).all() and np.isnan(missing["conf_low"]).all()
    with pytest.raises(NewLevelError):
        fit.predict(rows, se=True)


def test_the_quantiles_of_known_means():
    """Without error of the predictors they are those of the family; with it those of a known mixture."""
    from scipy import stats

    mu = np.array([0.3, 2.0, 30.0, 1e4])
    tails = (0.025, 0.5, 0.975)
    found = predictive_quantiles(get_family("poisson"), np.log(mu)[None], np.zeros((1, 1, 4)), None, tails)
    for tail, column in zip(tails, found, strict=True):
        np.testing.assert_array_equal(column, stats.poisson.ppf(tail, mu))
    exact = stats.lognorm.ppf(tails, 0.5, scale=1e4)
    S = np.full((1, 1, 1), 0.25)
    found = predictive_quantiles(get_family("poisson"), np.log([[1e4]]), S, None, tails)
    np.testing.assert_allclose(np.array(found)[:, 0], exact, rtol=0.01)
    found = predictive_quantiles(
        get_family("gaussian"), np.array([[1.0], [np.log(2.0)]]), np.diag([5.0, 0.0])[:, :, None], None, tails
    )
    np.testing.assert_allclose(np.array(found)[:, 0], stats.norm.ppf(tails, 1.0, 3.0), rtol=1e-8)


@pytest.mark.parametrize("name", ["cbpp", "owls", "salamanders", "crossed"])
def test_formulae_and_simulation_agree(fits, name):
    fit, rows = fits[name], rows_of(name)
    rows = {key: list(column)[:3] for key, column in rows.items()}
    trials = {"trials": 30} if name == "cbpp" else {}
    unit = 1.0 / 30.0 if trials else 1.0
    for re_form in (None, "population"):
        exact = fit.predict(rows, re_form, interval="prediction", level=0.8, **trials)
        drawn = fit.predict(
            rows, re_form, interval="prediction", level=0.8, method="simulation", n=4000, seed=1, **trials
        )
        for end in ("conf_low", "conf_high"):
            assert (np.abs(exact[end] - drawn[end]) <= 1.001 * unit + 0.06 * exact[end]).all()
            np.testing.assert_allclose(exact[end] / unit, np.round(exact[end] / unit), atol=1e-9)
        if re_form is None or name != "crossed":  # the SD of draws with so heavy a tail settles slowly
            np.testing.assert_allclose(exact["prediction_sd"], drawn["prediction_sd"], rtol=0.1)
        sure = fit.predict(rows, re_form, type="link", interval="confidence")
        link = fit.predict(
            rows, re_form, type="link", interval="confidence", method="simulation", n=4000, seed=2
        )
        np.testing.assert_allclose(sure["std_error"], link["std_error"], rtol=0.06)
        for end in ("conf_low", "conf_high"):
            assert (np.abs(sure[end] - link[end]) < 0.12 * sure["std_error"]).all()


def test_the_spread_of_new_responses_is_that_of_a_poisson_lognormal(fits):
    fit = fits["crossed"]
    rows = {"YEAR": ["95", "97"]}
    link = fit.predict(rows, "population", type="link", se=True)
    table = fit.predict(rows, "population", interval="prediction")
    s2 = link["std_error"] ** 2 + sum(term.sds[0] ** 2 for term in fit.varcorr.terms)
    mean = np.exp(link["predicted"] + 0.5 * s2)
    exact = np.sqrt(mean + mean**2 * np.expm1(s2))
    np.testing.assert_allclose(table["prediction_sd"], exact, rtol=1e-4)


def test_prediction_limits_hold_what_they_promise(fits):
    """Responses simulated from the fit on its own levels lie within the limits about as often as they say."""
    fit = fits["crossed"]
    table = fit.predict(interval="prediction", level=0.8)
    draws = fit.simulate(200, seed=3, new_effects=False)
    inside = (draws >= table["conf_low"][:, None]) & (draws <= table["conf_high"][:, None])
    assert 0.8 < inside.mean() < 0.97  # whole numbers, and the error of the means: more than 0.8


def test_joint_draws(fits):
    fit = fits["cbpp"]
    rows = {"period": ["1", "2", "1", "1"], "herd": ["1", "1", "new", "new"]}
    table = fit.predict(
        rows, type="link", method="simulation", n=4000, seed=1, draws=True, new_levels="population"
    )
    draws = table.extra["draws"]
    assert draws.shape == (4, 4000)
    np.testing.assert_array_equal(draws[2], draws[3])  # one new level, one effect
    again = fit.predict(
        rows, type="link", method="simulation", n=4000, seed=1, draws=True, new_levels="population"
    )
    np.testing.assert_array_equal(draws, again.extra["draws"])
    # rows of one level are correlated as the joint precision says: the difference has the error of period2
    exact = fit.se["period2"]
    assert (draws[1] - draws[0]).std() == pytest.approx(exact, rel=0.05)


def test_parameters_of_a_bootstrap(fits):
    fit = fits["cbpp"]

    class Replicates:
        beta = np.tile(fit.gamma, (300, 1))
        theta = np.tile(fit.theta, (300, 1))

    Replicates.theta[0] = np.nan
    rows = rows_of("cbpp")
    table = fit.predict(
        rows, type="link", interval="confidence", method="simulation", seed=1, parameters=Replicates
    )
    given = [
        np.sqrt(fit.conditional_covariance(0)[int(np.flatnonzero(levels == h)[0]), 0, 0])
        for levels in [np.asarray(fit.generalised.terms[0].levels).astype(str)]
        for h in rows["herd"]
    ]
    np.testing.assert_allclose(table["std_error"], given, rtol=0.12)  # only the effects vary
    boot = fit.bootstrap(60, seed=2, progress=False)
    wide = fit.predict(
        rows, type="link", interval="confidence", method="simulation", seed=1, parameters=boot, draws=True
    )
    assert wide.extra["draws"].shape == (5, 60)
    own = fit.predict(rows, type="link", se=True)["std_error"]
    np.testing.assert_allclose(wide["std_error"], own, rtol=0.4)
    with pytest.raises(OptionError, match="Bootstrap of this fit"):
        fit.predict(rows, se=True, method="simulation", parameters=object())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interval": "both"}, "interval"),
        ({"method": "guess"}, "method"),
        ({"draws": True}, "simulation"),
        ({"interval": "prediction", "type": "link"}, "type='response'"),
        ({"se": True, "type": "dispersion"}, "no dispersion part"),
        ({"se": True, "type": "mean"}, "type must be one of"),
        ({"se": True, "trials": 3}, "trials"),
        ({"interval": "confidence", "ddf": "kr"}, "linear models"),
        ({"interval": "confidence", "level": 95}, "level"),
    ],
)
def test_wrong_input(fits, options, words):
    with pytest.raises(OptionError, match=words):
        fits["cbpp"].predict(**options)


def test_trials_of_new_rows(fits):
    fit = fits["cbpp"]
    rows = {"period": ["1"], "herd": ["1"]}
    column = fit.predict({**rows, "size": [10]}, interval="prediction")
    given = fit.predict(rows, interval="prediction", trials=10)
    assert column["conf_high"] == given["conf_high"] == pytest.approx(0.7)
    with pytest.raises(OptionError, match="one trial per row"):
        fits["crossed"].predict(rows_of("crossed"), interval="prediction", trials=3)


@pytest.mark.parametrize(
    "family",
    ["gamma", "beta", "tweedie", "student", "lognormal", "inverse_gaussian", "ordered_beta", "betabinomial",
     "nbinom1", "generalised_poisson", "truncated_poisson"],
)  # fmt: skip
def test_every_family_has_limits(family):
    rng = np.random.default_rng(5)
    n, own = 60, get_family(family)
    g = np.repeat(np.arange(6), 10)
    fixed = {"beta": [0.3, 0.2], "sd": {"g": 0.3}}
    more = {"trials": 12} if own.response == "successes" else {}
    link = {"link": "log"} if family in ("gamma", "inverse_gaussian") else {}
    data = {"x": rng.normal(size=n), "g": g.astype(str)}
    natural = {
        "dispersion": -0.7 if family == "lognormal" else 1.0,
        "df": 1.5,
        "power": 0.0,
        "cutpoint": -1.5,
        "log_gap": 1.2,
    }
    gamma = {
        "disp_(Intercept)" if name == "dispersion" else name: value
        for name, value in natural.items()
        if name in own.predictors
    }
    data["y"] = mm.simulate(
        "y ~ x + (1 | g)", data, family=family, gamma=gamma or None, seed=1, **fixed, **link, **more
    ).ravel()
    fit = mm.glmm("y ~ x + (1 | g)", data, family=family, **link, **more)
    rows = {"x": [0.0, 1.0], "g": ["0", "3"]}
    mean = fit.predict(rows, interval="confidence")
    wide = fit.predict(rows, interval="prediction", **more)
    drawn = fit.predict(rows, interval="prediction", method="simulation", n=3000, seed=1, **more)
    assert ((mean["conf_low"] < mean["predicted"]) & (mean["predicted"] < mean["conf_high"])).all()
    assert (wide["conf_low"] <= mean["conf_low"]).all() and (wide["conf_high"] >= mean["conf_high"]).all()
    spread = wide["conf_high"] - wide["conf_low"]
    for end in ("conf_low", "conf_high"):
        assert (
            np.abs(wide[end] - drawn[end]) <= 0.12 * spread + (1.0 if own.response == "count" else 0.0)
        ).all()


def test_coefficients_per_level_have_the_errors_of_their_predictions(fits):
    fit = fits["cbpp"]
    table = fit.coef(condvar=True)
    rows = table[(table["term"] == "(Intercept)") & (table["level"].isin(["1", "7"]))]
    link = fit.predict({"period": ["1", "1"], "herd": ["1", "7"]}, type="link", se=True)
    np.testing.assert_allclose(rows["estimate"], link["predicted"], rtol=1e-10)
    np.testing.assert_allclose(rows["std_error"], link["std_error"], rtol=1e-10)
    slope = table[table["term"] == "period2"]
    np.testing.assert_allclose(slope["std_error"], fit.se["period2"], rtol=1e-10)
    both = fits["salamanders"].coef(condvar=True)
    assert np.isfinite(both["std_error"]).all()
    assert {"(Intercept)", "zi_(Intercept)", "zi_minedyes"} <= set(both["term"])
