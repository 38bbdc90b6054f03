"""Fits of ordered categories: laws, responses, predictions, draws, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedmodels as mm
from mixedmodels.testing.reference_data import read_reference_table

FORMULA = "rating ~ temp + contact + (1 | judge)"
MIRROR = {
    "logit": "logit",
    "probit": "probit",
    "cauchit": "cauchit",
    "cloglog": "loglog",
    "loglog": "cloglog",
}


@pytest.fixture(scope="module")
def wine():
    from pathlib import Path

    return read_reference_table(Path(__file__).parents[1] / "references" / "data", "wine")


@pytest.fixture(scope="module")
def fit(wine):
    return mm.glmm(FORMULA, wine, family="cumulative")


# ---------------------------------------------------------------------- laws
@pytest.mark.parametrize("link", MIRROR)
def test_two_categories_are_binomial(wine, link):
    """P(Y = 2) = 1 - F(alpha - eta): the binomial model with the mirrored link and intercept -alpha."""
    data = wine.assign(high=(wine["rating"].astype(int) > 2).astype(float) + 1.0)
    one = mm.glmm("high ~ temp + contact + (1 | judge)", data, family="cumulative", link=link)
    other = mm.glmm(
        "high ~ temp + contact + (1 | judge)",
        data.assign(high=data["high"] - 1.0),
        family="binomial",
        link=MIRROR[link],
    )
    assert one.loglik == pytest.approx(other.loglik, rel=1e-10)
    np.testing.assert_allclose([-one.thresholds["1|2"], *one.beta], other.beta, rtol=1e-5)
    np.testing.assert_allclose(one.theta, other.theta, rtol=1e-5)
    np.testing.assert_allclose(one.fitted() - 1.0, other.fitted(), rtol=1e-5)


@pytest.mark.parametrize("link", MIRROR)
def test_reversed_categories_change_signs(wine, fit, link):
    a = mm.glmm(FORMULA, wine, family="cumulative", link=link)
    data = wine.assign(rating=6 - wine["rating"].astype(int))
    b = mm.glmm(FORMULA, data, family="cumulative", link=MIRROR[link])
    assert a.loglik == pytest.approx(b.loglik, rel=1e-10)
    np.testing.assert_allclose(a.beta, -b.beta, rtol=1e-5)
    np.testing.assert_allclose(
        list(a.thresholds.values()), -np.array(list(b.thresholds.values()))[::-1], rtol=1e-5
    )


@pytest.mark.parametrize("thresholds", ["flexible", "symmetric", "equidistant"])
def test_origin_and_unit_of_covariates_do_not_matter(wine, thresholds):
    x = wine["temp"].cat.codes.to_numpy(float)
    options = {"family": "cumulative", "thresholds": thresholds}
    a = mm.glmm("rating ~ x + (1 | judge)", wine.assign(x=x), **options)
    b = mm.glmm("rating ~ x + (1 | judge)", wine.assign(x=500.0 + 3.0 * x), **options)
    assert a.loglik == pytest.approx(b.loglik, rel=1e-9)
    assert 3.0 * b.fixef["x"] == pytest.approx(a.fixef["x"], rel=1e-5)
    shifted = np.array(list(b.thresholds.values())) - 500.0 * b.fixef["x"]
    np.testing.assert_allclose(shifted, list(a.thresholds.values()), rtol=1e-5)


def test_structured_thresholds_are_restrictions(wine, fit):
    values = [fit.loglik]
    for kind in ("symmetric", "equidistant"):
        restricted = mm.glmm(FORMULA, wine, family="cumulative", thresholds=kind)
        alpha = np.array(list(restricted.thresholds.values()))
        assert list(restricted.thresholds) == ["1|2", "2|3", "3|4", "4|5"]
        np.testing.assert_allclose(np.diff(alpha)[0], np.diff(alpha)[-1])
        values.append(restricted.loglik)
        assert restricted.df_model == {"symmetric": 6, "equidistant": 5}[kind]
    assert values == sorted(values, reverse=True)


def test_weights_repeat_rows(wine):
    w = np.arange(len(wine)) % 3
    a = mm.glmm(FORMULA, wine.assign(w=w), family="cumulative", weights="w")
    b = mm.glmm(FORMULA, wine.loc[np.repeat(wine.index, w)], family="cumulative")
    assert a.loglik == pytest.approx(b.loglik, rel=1e-10)
    np.testing.assert_allclose(a.gamma, b.gamma, rtol=1e-6)


@pytest.mark.parametrize(
    "formula", ["rating ~ 0 + temp + contact + (1 | judge)", "rating ~ temp + contact - 1 + (1 | judge)"]
)
def test_the_thresholds_are_the_intercept(wine, fit, formula):
    other = mm.glmm(formula, wine, family="cumulative")
    assert other.gamma_names == fit.gamma_names == ("tempwarm", "contactyes", "1|2", "2|3", "3|4", "4|5")
    assert other.loglik == pytest.approx(fit.loglik, rel=1e-10)
    assert any("thresholds stand in its place" in message for message in other.messages)


def test_dependent_columns_are_dropped(wine, fit):
    data = wine.assign(cold=1.0 - wine["temp"].cat.codes)
    other = mm.glmm("rating ~ temp + contact + cold + (1 | judge)", data, family="cumulative")
    np.testing.assert_allclose(other.gamma, fit.gamma, rtol=1e-6)
    assert any("dropped 1 column: cold" in message for message in other.messages)
    row = {"temp": ["warm"], "contact": ["no"], "cold": [0.0]}
    np.testing.assert_allclose(
        other.predict(row, "population", type="link"), fit.fixef["tempwarm"], rtol=1e-6
    )


def test_slopes_crossed_terms_and_no_fixed_effects(wine):
    slope = mm.glmm("rating ~ temp + (temp | judge)", wine, family="cumulative")
    assert slope.converged and slope.varcorr["judge"].names == ("(Intercept)", "tempwarm")
    crossed = mm.glmm("rating ~ temp + (1 | judge) + (1 | bottle)", wine, family="cumulative")
    assert crossed.loglik >= mm.glmm("rating ~ temp + (1 | judge)", wine, family="cumulative").loglik - 1e-8
    null = mm.glmm("rating ~ 1 + (1 | judge)", wine, family="cumulative")
    assert null.fixef == {} and len(null.thresholds) == 4 and "Thresholds" in str(null)


# ---------------------------------------------------------------------- responses
def test_responses_that_mean_the_same(wine, fit):
    number = wine["rating"].astype(int)
    words = np.array(["", "awful", "poor", "fair", "good", "superb"], dtype=object)
    texts = pd.Series(words[number.to_numpy()], index=wine.index)
    ordered = pd.Categorical(texts, categories=list(words[1:]), ordered=True)
    for response in (number, number.astype(float), number * 10, ordered):
        other = mm.glmm(FORMULA, wine.assign(rating=response), family="cumulative")
        assert other.loglik == pytest.approx(fit.loglik, rel=1e-12)
    assert list(other.thresholds) == ["awful|poor", "poor|fair", "fair|good", "good|superb"]
    levels = ", ".join(f"'{word}'" for word in words[1:])
    formula = f"ordered(rating, levels = c({levels})) ~ temp + contact + (1 | judge)"
    other = mm.glmm(formula, wine.assign(rating=texts), family="cumulative")
    assert other.loglik == pytest.approx(fit.loglik, rel=1e-12)
    with pytest.raises(
        mm.DataError, match=r"'rating' holds categories without an order .*write ordered\(rating"
    ):
        mm.glmm(FORMULA, wine.assign(rating=texts), family="cumulative")


def test_polars_enums_are_ordered(wine, fit):
    polars = pytest.importorskip("polars")
    words = ["low", "some", "much", "more", "most"]
    columns = {name: wine[name].astype(str).to_numpy() for name in ("temp", "contact", "judge")}
    rating = [words[int(r) - 1] for r in wine["rating"]]
    frame = polars.DataFrame({**columns, "rating": polars.Series(rating, dtype=polars.Enum(words))})
    other = mm.glmm(FORMULA, frame, family="cumulative")
    assert other.loglik == pytest.approx(fit.loglik, rel=1e-12)
    assert next(iter(other.thresholds)) == "low|some"


def test_categories_without_rows_are_dropped(wine):
    some = wine[wine["rating"] != "3"]
    fit = mm.glmm(FORMULA, some, family="cumulative")
    assert list(fit.thresholds) == ["1|2", "2|4", "4|5"]
    assert any("categories without rows were dropped" in message for message in fit.messages)


def test_bad_responses(wine):
    def refuse(error, match, data=wine, formula=FORMULA, **options):
        with pytest.raises(error, match=match):
            mm.glmm(formula, data, **{"family": "cumulative", **options})

    refuse(mm.DataError, "constant", wine.assign(rating=3))
    refuse(
        mm.DataError,
        "72 different values|different values",
        formula="response * 1.01 + seq ~ temp + (1 | judge)",
        data=pd.concat([wine.assign(seq=k * 1000.0) for k in range(3)]),
    )
    refuse(mm.OptionError, "thresholds must be one of flexible", thresholds="free")
    refuse(mm.OptionError, "has no dispersion", dispersion="~ temp")
    refuse(mm.OptionError, "zeros", zero_inflation=True)
    refuse(mm.OptionError, "trials= belongs to binomial", trials=1)
    refuse(
        mm.OptionError,
        'belongs to family="cumulative", not to poisson',
        family="poisson",
        thresholds="flexible",
    )
    refuse(
        mm.DataError,
        "at least three categories",
        wine.assign(rating=(wine["rating"] > "2") * 1),
        thresholds="equidistant",
    )


# ---------------------------------------------------------------------- what a fit answers
def test_predictions(fit, wine):
    rows = {"temp": ["cold", "warm", None], "contact": ["no", "yes", "no"]}
    p = fit.predict(rows, re_form="population", type="prob")
    assert p.shape == (3, 5) and np.isnan(p[2]).all()
    np.testing.assert_allclose(p[:2].sum(axis=1), 1.0)
    alpha = np.array(list(fit.thresholds.values()))
    eta = np.array([0.0, fit.beta.sum()])
    cumulative = fit.predict(rows, re_form="population", type="cumprob")
    np.testing.assert_allclose(cumulative[:2, :4], 1.0 / (1.0 + np.exp(eta[:, None] - alpha)))
    np.testing.assert_allclose(fit.predict(rows, re_form="population", type="link")[:2], eta, atol=1e-14)
    np.testing.assert_allclose(fit.predict(rows, re_form="population")[:2], p[:2] @ np.arange(1.0, 6.0))
    assert fit.predict(rows, re_form="population", type="class").tolist() == ["2", "4", None]
    np.testing.assert_allclose(fit.predict(wine), fit.fitted(), rtol=1e-12)
    np.testing.assert_allclose(fit.predict(wine, type="prob"), fit.fitted(type="prob"), rtol=1e-12)
    assert [int(k) for k in fit.fitted(type="class")] == (fit.fitted(type="prob").argmax(axis=1) + 1).tolist()
    binomial = mm.glmm("y ~ 1 + (1 | g)", {"y": [0, 1, 1, 0, 1, 0], "g": list("aabbcc")}, family="binomial")
    with pytest.raises(mm.OptionError, match="ordered categories"):
        binomial.predict(type="prob")


def test_rows_left_out(wine, fit):
    data = wine.assign(contact=wine["contact"].mask(wine.index == 4))
    other = mm.glmm(FORMULA, data, family="cumulative", na_action="exclude")
    p, labels = other.fitted(type="prob"), other.fitted(type="class")
    assert p.shape == (72, 5) and np.isnan(p[4]).all() and not np.isnan(np.delete(p, 4, 0)).any()
    assert labels[4] is None and labels.shape == (72,)


def test_draws_and_refits(fit):
    drawn = fit.simulate(300, seed=2)
    assert drawn.shape == (72, 300) and set(np.unique(drawn)) == {1.0, 2.0, 3.0, 4.0, 5.0}
    given = fit.simulate(2000, seed=3, new_effects=False)
    found = np.array([(given == k).mean(axis=1) for k in range(1, 6)]).T
    assert np.abs(found - fit.fitted(type="prob")).max() < 5.0 * 0.5 / np.sqrt(2000)
    labels = fit.simulate(2, seed=2, labels=True)
    assert labels[:3, 0].tolist() == [str(int(k)) for k in drawn[:3, 0]]
    good = next(j for j in range(300) if len(np.unique(drawn[:, j])) == 5)
    again = fit.refit(drawn[:, good])
    words = fit.simulate(good + 1, seed=2, labels=True)[:, good]
    np.testing.assert_array_equal(fit.refit(words).gamma, again.gamma)
    assert fit.refit(fit.response()).loglik == pytest.approx(fit.loglik, rel=1e-12)
    shifted = fit.simulate(1, seed=4, gamma={"1|2": 20.0, "2|3": 21.0, "3|4": 22.0, "4|5": 23.0})
    assert (shifted == 1.0).all()
    new = fit.simulate(2, seed=1, newdata={"temp": ["cold"], "contact": ["no"], "judge": ["new"]})
    assert new.shape == (1, 2)
    with pytest.raises(mm.DataError, match="no row of category '3'"):
        fit.refit(np.where(drawn[:, good] == 3.0, 2.0, drawn[:, good]))
    with pytest.raises(mm.DataError, match="1 to 5"):
        fit.refit(np.zeros(72))


def test_residuals(fit):
    y = fit.response()
    np.testing.assert_array_equal(y, fit.generalised.data.y)
    np.testing.assert_allclose(fit.residuals(), y - fit.fitted())
    p = fit.fitted(type="prob")
    own = p[np.arange(72), y.astype(int) - 1]
    np.testing.assert_allclose(fit.residuals("deviance") ** 2, -2.0 * np.log(own))
    assert fit.residual_deviance == pytest.approx(-2.0 * np.log(own).sum())
    for kind in ("quantile", "surrogate"):
        r = fit.residuals(kind, seed=1)
        assert np.isfinite(r).all() and np.corrcoef(r, y)[0, 1] > 0.3
    assert (np.sign(fit.residuals("working")) == np.sign(y - fit.fitted())).mean() > 0.8


def test_tables(fit):
    text = str(fit)
    assert "Thresholds: flexible" in text and "\n1|2 " in text and text.count("3|4") == 1
    assert list(fit.fixef_all) == ["conditional", "thresholds"]
    assert fit.fixef_all["thresholds"] == pytest.approx(fit.thresholds)
    table = fit.coefficients(component="thresholds")
    assert list(table["term"]) == ["1|2", "2|3", "3|4", "4|5"]
    tidy = fit.tidy(conf_int=True)
    assert tidy["component"].tolist() == ["conditional"] * 2 + ["thresholds"] * 4 + ["conditional"]
    assert (tidy["conf_low"][:6] < tidy["conf_high"][:6]).all()
    binomial = mm.glmm("y ~ 1 + (1 | g)", {"y": [0, 1, 1, 0, 1, 0], "g": list("aabbcc")}, family="binomial")
    with pytest.raises(mm.OptionError, match="ordered categories"):
        _ = binomial.thresholds


def test_updates_and_files(fit, wine, tmp_path):
    probit = fit.update(link="probit", thresholds="symmetric")
    assert probit.family.link.name == "probit" and "spacing.1" in probit.gamma_names
    assert fit.update(". ~ . - contact").gamma_names[0] == "tempwarm"
    probit.save(tmp_path / "fit.mm")
    back = mm.load(tmp_path / "fit.mm")
    assert back.thresholds == probit.thresholds and back.family.thresholds == "symmetric"
    np.testing.assert_allclose(back.fitted(type="prob"), probit.fitted(type="prob"), rtol=1e-12)


def test_starts_and_held_parameters(wine, fit):
    held = mm.glmm(FORMULA, wine, family="cumulative", fixed={"1|2": -1.5})
    assert held.thresholds["1|2"] == -1.5 and held.loglik < fit.loglik
    again = mm.glmm(FORMULA, wine, family="cumulative", start={"4|5": 7.0, "tempwarm": 1.0})
    np.testing.assert_allclose(again.gamma, fit.gamma, rtol=1e-6)
    fast = mm.glmm(FORMULA, wine, family="cumulative", nagq=0)
    assert fast.loglik <= fit.loglik and fast.converged


def test_separation_is_named(wine):
    data = wine.assign(odd=(wine["rating"].astype(int) == 5) * 1.0)
    fit = mm.glmm("rating ~ odd + (1 | judge)", data, family="cumulative")
    assert any("separation" in message and "odd" in message for message in fit.messages)


# ---------------------------------------------------------------------- questions asked of a fit
def test_likelihood_ratio_tests_are_differences_of_fits(wine, fit):
    small = mm.glmm("rating ~ temp + (1 | judge)", wine, family="cumulative")
    statistic = 2.0 * (fit.loglik - small.loglik)
    table = fit.drop1()
    at = list(table["term"]).index("contact")
    assert table["statistic"][at] == pytest.approx(statistic, rel=1e-6)
    wald = fit.anova()
    assert wald["statistic"][1] == pytest.approx((fit.fixef["contactyes"] / fit.se["contactyes"]) ** 2)


def test_bootstrap_refits_follow_the_thresholds(fit):
    result = fit.bootstrap(6, seed=3)
    Y = fit.simulate(1, seed=5)
    assert np.isfinite(np.asarray(result.beta)).any()
    again = fit.refit(Y[:, 0])
    from mixedmodels.inference.bootstrap.glmm_refits import refit_response

    np.testing.assert_allclose(refit_response(fit, Y[:, 0]).psi, again.psi, rtol=1e-4, atol=1e-5)


def test_profile_limits_are_where_the_likelihood_is(wine, fit):
    table = fit.confint(method="profile")
    at = list(table["term"]).index("2|3")
    held = mm.glmm(FORMULA, wine, family="cumulative", fixed={"2|3": float(table["conf_low"][at])})
    assert 2.0 * (fit.loglik - held.loglik) == pytest.approx(3.841459, rel=1e-3)


def test_marginal_means_are_latent(fit):
    means = fit.emmeans("temp")
    difference = means["estimate"][1] - means["estimate"][0]
    assert difference == pytest.approx(fit.fixef["tempwarm"])
    with pytest.raises(mm.OptionError, match="no single mean"):
        fit.emmeans("temp", type="response")


def test_responses_of_a_model_that_was_never_fitted():
    rng = np.random.default_rng(0)
    data = {"g": np.repeat(np.arange(60), 20), "x": rng.normal(size=1200)}
    alpha = [-1.0, 0.2, 1.3]
    draw = {"family": "cumulative", "beta": [1.0], "sd": 1.0, "seed": 1}
    y = mm.simulate("~ x + (1 | g)", data, gamma={"thresholds": alpha}, **draw)
    fit = mm.glmm("y ~ x + (1 | g)", {**data, "y": y}, family="cumulative")
    z = (fit.gamma - [1.0, *alpha]) / list(fit.se_all.values())
    assert np.abs(z).max() < 3.5
    for gamma, match in ((None, "need thresholds"), ({"thresholds": [1, 0]}, "increasing")):
        with pytest.raises(mm.OptionError, match=match):
            mm.simulate("~ x + (1 | g)", data, gamma=gamma, **draw)
