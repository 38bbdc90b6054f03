"""Refits and updates of generalised fits."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.fit.glmm_update import new_observations, refit_glmm, update_glmm

FORMULA = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp():
    data = mm.load_dataset("cbpp", backend="pandas")
    return data.assign(any=np.where(data["incidence"] > 0, "yes", "no"), one=1.0)


@pytest.fixture(scope="module")
def fit(cbpp):
    return mm.glmm(FORMULA, cbpp, family="binomial")


@pytest.fixture(scope="module")
def sick(cbpp):
    return mm.glmm("any ~ period + (1 | herd)", cbpp, family="binomial")


def test_refit_to_the_own_response_is_the_same_fit(fit, cbpp):
    y = cbpp["incidence"].to_numpy()
    pairs = np.column_stack([y, cbpp["size"] - y])
    for new in (y, y.astype(float)[:, None], y / cbpp["size"], pairs, cbpp):
        again = refit_glmm(fit, new)
        assert again.loglik == pytest.approx(fit.loglik, rel=1e-12)
        np.testing.assert_allclose(again.beta, fit.beta, rtol=1e-7)


def test_refit_to_another_response(fit, cbpp):
    y = cbpp["incidence"].to_numpy()[::-1] % 2
    again = refit_glmm(fit, y)
    direct = mm.glmm("y ~ period + (1 | herd)", cbpp.assign(y=y), family="binomial", trials="size")
    assert again.loglik == pytest.approx(direct.loglik, rel=1e-12)
    np.testing.assert_array_equal(again.generalised.data.y, y)
    np.testing.assert_array_equal(fit.generalised.data.y, cbpp["incidence"])  # the first fit stays


def test_two_columns_bring_their_own_trials(fit, cbpp):
    y = cbpp["incidence"].to_numpy()
    again = refit_glmm(fit, np.column_stack([y, cbpp["size"] - y + 1]))
    np.testing.assert_array_equal(again.generalised.data.trials, cbpp["size"] + 1)


def test_refit_to_labels(sick, cbpp):
    assert refit_glmm(sick, cbpp["any"]).loglik == pytest.approx(sick.loglik, rel=1e-12)
    numbers = (cbpp["any"] == "yes").to_numpy()
    assert refit_glmm(sick, numbers).loglik == pytest.approx(sick.loglik, rel=1e-12)
    turned = refit_glmm(sick, 1 - numbers.astype(int))
    np.testing.assert_allclose(turned.beta, -sick.beta, rtol=1e-5)
    with pytest.raises(mm.DataError, match=r"'perhaps', which is not a category of the fit \(no, yes\)"):
        refit_glmm(sick, np.where(numbers, "perhaps", "no"))


def test_refit_takes_rows_of_the_data_as_well(cbpp):
    w = np.ones(56)
    w[4] = 0.0
    data = cbpp.assign(w=w, x=np.where(np.arange(56) == 9, np.nan, 1.0 * np.arange(56)))
    fit = mm.glmm("incidence ~ x + (1 | herd)", data, family="poisson", weights="w")
    assert fit.nobs == 54
    y = data["incidence"].to_numpy()
    for new in (y, np.delete(y, 9), np.delete(y, [4, 9])):
        assert refit_glmm(fit, new).loglik == pytest.approx(fit.loglik, rel=1e-12)
    with pytest.raises(mm.DataError, match=r"54 or 55 or 56 values"):
        refit_glmm(fit, y[:50])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y + 100, "more successes than trials"),
        (lambda y: -1 - y, "is negative"),
        (lambda y: np.where(y == 0, np.nan, y), "missing or infinite"),
        (lambda y: 0 * y, "is constant"),
        (lambda y: y[:, None] * np.ones(3), "one value per row"),
        (lambda y: [object()] * 56, "numeric response"),
    ],
)
def test_responses_that_cannot_be(fit, change, message):
    with pytest.raises(mm.DataError, match=message):
        new_observations(fit.frame, change(fit.design.y))


def test_update_of_formula_and_options(fit, cbpp):
    null = update_glmm(fit, "~ . - period", None, {})
    assert null.formula_text == "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    direct = mm.glmm("incidence ~ 1 + (1 | herd)", cbpp, family="binomial", trials="size")
    assert null.loglik == pytest.approx(direct.loglik, rel=1e-12)
    probit = update_glmm(fit, None, None, {"link": "probit"})
    assert probit.family.link.name == "probit" and probit.loglik != pytest.approx(fit.loglik, rel=1e-6)
    back = update_glmm(probit, None, None, {"link": "logit"})
    assert back.loglik == pytest.approx(fit.loglik, rel=1e-12)
    same = update_glmm(fit, None, None, {"control": {"tol": 1e-12}})
    assert same.frame is fit.frame
    counts = update_glmm(fit, "incidence ~ . + offset(log(size))", None, {"family": "poisson"})
    assert counts.family.name == "poisson" and counts.generalised.data.trials is None


def test_update_with_other_data(fit, cbpp):
    half = cbpp.iloc[:40]
    assert update_glmm(fit, None, half, {}).loglik == pytest.approx(
        mm.glmm(FORMULA, half, family="binomial").loglik, rel=1e-12
    )


def test_what_update_refuses(fit, cbpp):
    with pytest.raises(mm.OptionError, match=r"no argument 'reml'; available: family, link"):
        update_glmm(fit, None, None, {"reml": False})
    with pytest.raises(mm.OptionError, match="nagq"):
        update_glmm(fit, None, None, {"nagq": "many"})
    given = mm.glmm("incidence ~ 1 + (1 | herd)", cbpp, family="binomial", trials=cbpp["size"].to_numpy())
    for call in (lambda: update_glmm(given, None, cbpp, {}), lambda: refit_glmm(given, cbpp)):
        with pytest.raises(mm.OptionError, match="trials, weights or offset were given as arrays"):
            call()
    with pytest.raises(mm.DataError, match="does not hold its data"):
        update_glmm(refit_glmm(fit, fit.design.y), "~ . - period", None, {})
