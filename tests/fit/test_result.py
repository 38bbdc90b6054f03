"""What a fit answers: known values of lme4 first, then laws."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.fit.result import LMMFit

FORMULA = "Reaction ~ Days + (Days | Subject)"


# ---------------------------------------------------------------- known values (lme4)


def test_sleepstudy_reml_known_values(fit):
    assert fit.criterion == pytest.approx(1743.62827195849, abs=1e-7)
    assert fit.loglik == pytest.approx(-1743.62827195849 / 2, abs=1e-7)
    assert fit.fixef == pytest.approx({"(Intercept)": 251.405104848, "Days": 10.4672859596}, rel=1e-9)
    assert fit.se == pytest.approx({"(Intercept)": 6.82455651570514, "Days": 1.5457888812542}, rel=1e-6)
    assert fit.sigma == pytest.approx(25.5918156592734, rel=1e-6)
    term = fit.varcorr["Subject"]
    assert term.sds == pytest.approx((24.7404513715225, 5.92213303136151), rel=1e-5)
    assert term.correlation[0, 1] == pytest.approx(0.0655513360070436, abs=1e-5)
    assert fit.is_reml and fit.converged and not fit.is_singular
    assert (fit.nobs, fit.df_model, fit.ngroups) == (180, 6, {"Subject": 18})
    assert fit.aic == pytest.approx(1755.6282720, abs=1e-6)
    assert fit.bic == pytest.approx(1774.7860, abs=1e-3)


def test_sleepstudy_ml_known_values(fit_ml):
    assert fit_ml.deviance == pytest.approx(1751.93934446, abs=1e-7)
    assert fit_ml.criterion == fit_ml.deviance
    assert fit_ml.aic == pytest.approx(1763.93934446, abs=1e-7)
    assert fit_ml.sigma == pytest.approx(25.5918, abs=1e-3)
    assert not fit_ml.is_reml


def test_conditional_modes_known_values(fit):
    frame = fit.ranef()
    assert list(frame.columns) == ["group", "level", "term", "estimate"]
    # lme4: ranef(m)$Subject, first two subjects
    expected = [2.258551, 9.198976, -40.398738, -8.619681]
    assert frame["estimate"].iloc[:4].to_numpy() == pytest.approx(expected, abs=2e-4)
    assert frame["level"].iloc[:4].tolist() == ["308", "308", "309", "309"]
    assert frame["term"].iloc[:2].tolist() == ["(Intercept)", "Days"]


def test_conditional_sds_known_values(fit):
    # lme4: as.data.frame(ranef(m, condVar = TRUE)): balanced, so the same for all subjects
    frame = fit.ranef(condvar=True)
    by_term = frame.groupby("term")["sd"]
    assert by_term.min()["(Intercept)"] == pytest.approx(12.07086, abs=1e-3)
    assert by_term.max()["Days"] == pytest.approx(2.304839, abs=1e-3)
    assert by_term.max()["(Intercept)"] == pytest.approx(by_term.min()["(Intercept)"], rel=1e-9)


def test_singular_fit_is_exact_and_named():
    fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff2", backend="dict"), reml=False)
    assert fit.theta.tolist() == [0.0]
    assert fit.loglik == pytest.approx(-81.43652, abs=1e-4)
    assert fit.is_singular and fit.converged
    assert any("singular" in note and "(Intercept)" in note and "Batch" in note for note in fit.messages)
    assert np.all(np.concatenate([term.b for term in fit.ranef_arrays()]) == 0.0)


# ---------------------------------------------------------------- laws


def test_coef_is_fixed_plus_random(fit):
    coef = fit.coef()
    ranef = fit.ranef()
    merged = coef.merge(ranef, on=["group", "level", "term"], suffixes=("", "_random"))
    assert len(merged) == 36
    fixed = merged["term"].map(fit.fixef)
    assert np.allclose(merged["estimate"], fixed + merged["estimate_random"], rtol=1e-13)


def test_fitted_and_residuals_decompose_the_response(fit, sleepstudy):
    y = sleepstudy["Reaction"].to_numpy()
    assert np.allclose(fit.fitted() + fit.residuals(), y)
    assert np.allclose(fit.fitted("population") + fit.residuals("marginal"), y)
    assert np.allclose(fit.residuals("scaled") * fit.sigma, fit.residuals("pearson"))
    assert np.array_equal(fit.residuals("normalised"), fit.residuals("normalized"))
    assert np.array_equal(fit.residuals("conditional"), fit.residuals("response"))


def test_pearson_residuals_use_weights(sleepstudy):
    data = sleepstudy.assign(w=np.linspace(0.5, 2.0, 180))
    fit = mm.lmm(FORMULA, data, weights="w")
    assert np.allclose(fit.residuals("pearson"), fit.residuals() * np.sqrt(data["w"]))


def test_deviance_of_a_reml_fit_is_the_ml_criterion_at_its_theta(fit, sleepstudy):
    model = mm.LinearMixedModel(FORMULA, sleepstudy, reml=False)
    assert fit.deviance == pytest.approx(model.objective(fit.theta), abs=1e-9)
    assert fit.deviance > fit.refit_ml().deviance


def test_information_criteria(fit):
    k, n = fit.df_model, fit.nobs
    assert fit.aic == pytest.approx(fit.criterion + 2 * k)
    assert fit.bic == pytest.approx(fit.criterion + math.log(n) * k)
    assert fit.aicc == pytest.approx(fit.aic + 2 * k * (k + 1) / (n - k - 1))


def test_vcov_matches_standard_errors(fit):
    assert np.sqrt(np.diag(fit.vcov)) == pytest.approx(list(fit.se.values()))
    assert np.allclose(fit.vcov, fit.vcov.T)


def test_varcorr_frame_has_lme4_rows(fit):
    frame = fit.varcorr.to_frame()
    assert list(frame.columns) == ["group", "name1", "name2", "vcov", "sdcor"]
    assert frame["group"].tolist() == ["Subject", "Subject", "Subject", "Residual"]
    assert frame["vcov"].tolist() == pytest.approx([612.1002, 35.0717, 9.6044, 654.9400], rel=1e-3)
    assert frame["sdcor"].tolist() == pytest.approx([24.74066, 5.922138, 0.06555124, 25.5918], rel=1e-3)


def test_independent_terms_have_no_correlation(sleepstudy):
    one = mm.lmm("Reaction ~ Days + (Days || Subject)", sleepstudy)
    two = mm.lmm("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", sleepstudy)
    assert one.criterion == pytest.approx(1743.669, abs=1e-3)
    assert one.criterion == pytest.approx(two.criterion, abs=1e-8)
    assert not one.varcorr["Subject"].correlated
    assert list(two.varcorr) == ["Subject", "Subject.1"]


def test_fixed_sigma(sleepstudy):
    free = mm.lmm(FORMULA, sleepstudy)
    held = mm.lmm(FORMULA, sleepstudy, sigma=free.sigma)
    assert held.sigma == free.sigma
    assert held.df_model == free.df_model - 1
    assert held.criterion == pytest.approx(free.criterion, abs=1e-6)
    assert any("held at sigma" in note for note in held.messages)
    other = mm.lmm(FORMULA, sleepstudy, sigma=30.0)
    assert other.criterion > free.criterion + 1.0


def test_weights_act_as_duplicated_rows(sleepstudy):
    # ML: doubling rows is weight 2 in pwrss; the profiled deviances differ by known constants only in n
    half = sleepstudy[sleepstudy["Days"] < 9]
    offset = mm.lmm("Reaction ~ 1 + (1 | Subject)", half.assign(o=3.0), offset="o")
    plain = mm.lmm("Reaction ~ 1 + (1 | Subject)", half)
    assert offset.fixef["(Intercept)"] == pytest.approx(plain.fixef["(Intercept)"] - 3.0)
    assert offset.criterion == pytest.approx(plain.criterion, abs=1e-8)
    assert np.allclose(offset.fitted(), plain.fitted())


# ---------------------------------------------------------------- missing values and weights of zero


def test_rows_with_missing_values(sleepstudy):
    data = sleepstudy.copy()
    data.loc[[3, 50, 120], "Reaction"] = np.nan
    omit = mm.lmm(FORMULA, data)
    exclude = mm.lmm(FORMULA, data, na_action="exclude")
    assert omit.nobs == exclude.nobs == 177
    assert omit.fitted().shape == (177,)
    padded = exclude.fitted()
    assert padded.shape == exclude.residuals().shape == (180,)
    assert np.isnan(padded).nonzero()[0].tolist() == [3, 50, 120]
    assert np.allclose(padded[~np.isnan(padded)], omit.fitted())
    assert any("3 rows" in note and "Reaction" in note for note in omit.messages)


def test_rows_of_weight_zero_are_fitted_but_do_not_count(sleepstudy):
    w = np.ones(180)
    w[[0, 7]] = 0.0
    fit = mm.lmm(FORMULA, sleepstudy.assign(w=w), weights="w")
    without = mm.lmm(FORMULA, sleepstudy.drop(index=[0, 7]))
    assert fit.nobs == 178
    assert fit.criterion == pytest.approx(without.criterion, abs=1e-8)
    fitted = fit.fitted()
    assert fitted.shape == (180,)
    assert np.allclose(fitted[[0, 7]], without.predict(sleepstudy.iloc[[0, 7]]))
    assert np.isnan(fit.residuals())[[0, 7]].all()
    assert np.isnan(fit.residuals()).sum() == 2


# ---------------------------------------------------------------- frozen


def test_a_fit_cannot_be_changed(fit):
    with pytest.raises(AttributeError, match="frozen"):
        fit.sigma = 1.0
    with pytest.raises(AttributeError, match="frozen"):
        fit.anything = 1.0
    with pytest.raises(AttributeError, match="frozen"):
        del fit.sigma
    for array in (fit.beta, fit.theta, fit.vcov, fit.ranef_arrays()[0].b):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    fit.fixef["Days"] = 0.0
    fit.se["Days"] = 0.0
    assert fit.fixef["Days"] > 10 and fit.se["Days"] > 1
    fitted = fit.fitted()
    fitted[:] = 0.0
    assert fit.fitted().min() > 100


def test_a_later_fit_changes_nothing(fit, sleepstudy):
    before = (str(fit), fit.theta.tobytes(), fit.fitted().tobytes())
    again = mm.lmm(FORMULA, sleepstudy)
    ml = fit.refit_ml()
    other = fit.refit(np.sort(sleepstudy["Reaction"].to_numpy()))
    assert other.criterion != fit.criterion and ml.criterion != fit.criterion
    assert before == (str(fit), fit.theta.tobytes(), fit.fitted().tobytes())
    assert np.array_equal(again.theta, fit.theta)


def test_the_data_are_not_changed(sleepstudy):
    copied = sleepstudy.copy(deep=True)
    mm.lmm(FORMULA, sleepstudy).augment()
    assert sleepstudy.equals(copied)


def test_copies_are_the_fit_itself_and_pickles_equal_it(fit):
    assert copy.copy(fit) is fit
    assert copy.deepcopy(fit) is fit
    other = pickle.loads(pickle.dumps(fit))
    assert isinstance(other, LMMFit)
    assert str(other) == str(fit)


# ---------------------------------------------------------------- refit and update


def test_refit_with_a_response(fit, sleepstudy):
    y = sleepstudy["Reaction"].to_numpy()
    scaled = fit.refit(3.0 * y)
    assert scaled.theta == pytest.approx(fit.theta, abs=1e-5)
    assert scaled.sigma == pytest.approx(3.0 * fit.sigma, rel=1e-6)
    assert np.allclose(scaled.predict(sleepstudy), 3.0 * fit.predict(sleepstudy), rtol=1e-6)
    with pytest.raises(mm.DataError, match="180"):
        fit.refit(y[:10])
    with pytest.raises(mm.DataError, match="missing or infinite"):
        fit.refit(np.where(y > 300, np.nan, y))
    with pytest.raises(mm.DataError, match="constant"):
        fit.refit(np.ones(180))


def test_refit_with_data(fit, sleepstudy):
    half = fit.refit(sleepstudy[sleepstudy["Days"] < 5])
    assert half.nobs == 90
    assert half.formula == fit.formula


def test_refit_ml_and_update(fit, fit_ml, sleepstudy):
    assert fit.refit_ml().criterion == pytest.approx(fit_ml.criterion, abs=1e-8)
    assert fit_ml.refit_ml() is fit_ml
    assert fit.update(reml=False).criterion == pytest.approx(fit_ml.criterion, abs=1e-8)
    smaller = fit.update(". ~ . - (Days | Subject) + (1 | Subject)")
    assert smaller.criterion == pytest.approx(1786.4651, abs=1e-3)
    assert smaller.is_reml
    assert str(smaller.formula) == "Reaction ~ Days + (1 | Subject)"
    assert list(fit.update("log(.) ~ . - Days").fixef) == ["(Intercept)"]
    assert fit.update(data=sleepstudy.iloc[:90]).nobs == 90
    with pytest.raises(mm.FormulaError, match="not in the model"):
        fit.update("~ . - (1 | Subject)")
    with pytest.raises(mm.OptionError, match="nonsense"):
        fit.update(nonsense=1)


# ---------------------------------------------------------------- Wald


def test_wald_intervals_and_tests(fit):
    table = fit.confint(level=0.9).to_frame()
    assert list(table.columns) == ["term", "estimate", "conf_low", "conf_high"]
    z = 1.6448536269514722
    days = table[table["term"] == "Days"].iloc[0]
    assert days["conf_low"] == pytest.approx(fit.fixef["Days"] - z * fit.se["Days"], rel=1e-12)
    assert days["conf_high"] == pytest.approx(fit.fixef["Days"] + z * fit.se["Days"], rel=1e-12)
    tests = fit.wald().to_frame()
    assert tests["statistic"].tolist() == pytest.approx([36.838, 6.771], abs=1e-3)
    assert tests["p_value"].iloc[1] == pytest.approx(1.27e-11, rel=0.01)
    with pytest.raises(mm.OptionError, match="available"):
        fit.confint("no such method")
    with pytest.raises(mm.OptionError, match="level"):
        fit.confint(level=95)


# ---------------------------------------------------------------- wrong input


def test_perfect_fit_is_refused():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(60)
    data = {"y": 2.0 + 3.0 * x, "x": x, "g": np.repeat(np.arange(10), 6)}
    with pytest.raises(mm.MixedModelsError, match=r"perfect|exactly"):
        mm.lmm("y ~ x + (1 | g)", data)


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_perfect_fit_by_the_random_effects_is_refused(noise):
    data = {"g": np.repeat(np.arange(5), 4), "x": np.tile(np.arange(4.0), 5)}
    data["y"] = 2 + 3 * data["x"] + np.array([0.0, 4, -2, 1, 3])[data["g"]]
    data["y"] = data["y"] + noise * np.random.default_rng(1).standard_normal(20)
    with pytest.raises(mm.DataError, match="perfect fit"):
        mm.lmm("y ~ x + (1 | g)", data)


def test_a_little_noise_is_not_a_perfect_fit():
    data = {"g": np.repeat(np.arange(5), 4), "x": np.tile(np.arange(4.0), 5)}
    y = 2 + 3 * data["x"] + np.array([0.0, 4, -2, 1, 3])[data["g"]]
    data["y"] = y + 1e-5 * np.random.default_rng(1).standard_normal(20)
    assert mm.lmm("y ~ x + (1 | g)", data).sigma == pytest.approx(1e-5, rel=0.5)


def test_a_transformed_response_is_noted(sleepstudy):
    fit = mm.lmm("log(Reaction) ~ Days + (1 | Subject)", sleepstudy)
    assert any("log(Reaction)" in note and "scale" in note for note in fit.messages)
    assert fit.dropped_columns == ()


def test_constant_response_is_refused(sleepstudy):
    with pytest.raises(mm.DataError, match="constant"):
        mm.lmm(FORMULA, sleepstudy.assign(Reaction=1.0))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"reml": "yes"}, "reml"),
        ({"na_action": "drop"}, "na_action"),
        ({"sigma": -1.0}, "sigma"),
        ({"start": [1.0]}, "start has 1 value"),
        ({"start": [1.0, float("nan"), 1.0]}, "finite"),
        ({"method": "magic"}, "magic"),
        ({"solver": "magic"}, "magic"),
        ({"progress": 3}, "progress"),
        ({"residual": "ar1"}, "residual"),
        ({"known": {}}, "known"),
    ],
)
def test_wrong_options(sleepstudy, changes, text):
    with pytest.raises(mm.MixedModelsError, match=text):
        mm.lmm(FORMULA, sleepstudy, **changes)


def test_wrong_arguments_of_methods(fit):
    with pytest.raises(mm.OptionError, match="residual kind"):
        fit.residuals("deviance")
    with pytest.raises(mm.OptionError, match="term must"):
        fit.conditional_covariance(3)


# ---------------------------------------------------------------- simulate


def test_simulate(fit):
    draws = fit.simulate(200, seed=1)
    assert draws.shape == (180, 200)
    assert np.array_equal(draws, fit.simulate(200, seed=1))
    total = np.mean((draws - fit.fitted("population")[:, None]) ** 2, axis=1)
    days = fit.design.X[:, 1]
    Psi = fit.varcorr["Subject"].covariance
    variance = Psi[0, 0] + 2 * days * Psi[0, 1] + days**2 * Psi[1, 1] + fit.sigma**2
    assert np.mean(total / variance) == pytest.approx(1.0, abs=0.1)
    kept = fit.simulate(200, seed=1, new_effects=False)
    assert np.mean((kept - fit.fitted()[:, None]) ** 2) == pytest.approx(fit.sigma**2, rel=0.05)
