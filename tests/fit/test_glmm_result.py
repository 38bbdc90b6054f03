"""What a generalised fit shows: against glmer, the formulas of the definitions, and awkward cases."""

import copy
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.fit.glmm_values import joint_covariance

REFERENCE = json.loads((Path(__file__).parents[1] / "references/glmm/fit_cbpp.json").read_text())


@pytest.fixture(scope="module")
def cbpp():
    return mm.load_dataset("cbpp", backend="dict")


@pytest.fixture(scope="module")
def fit(cbpp):
    return mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", trials="size")


@pytest.fixture(scope="module")
def gaussian():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    x = rng.standard_normal(72)
    y = 1.0 + 0.5 * x + rng.standard_normal(12)[g] + 0.7 * rng.standard_normal(72)
    data = {"y": y, "x": x, "g": [f"g{i:02d}" for i in g]}
    linear = mm.lmm("y ~ x + (1 | g)", data, reml=False)
    return linear, mm.glmm("y ~ x + (1 | g)", data, family="gaussian")


# ---------------------------------------------------------------------- against glmer
def test_estimates_of_glmer(fit):
    beta = REFERENCE["beta"]
    assert list(fit.fixef) == list(beta)
    np.testing.assert_allclose(fit.beta, [b["estimate"] for b in beta.values()], rtol=2e-6)
    np.testing.assert_allclose(list(fit.se.values()), [b["se"] for b in beta.values()], rtol=1e-4)
    np.testing.assert_allclose(fit.vcov, REFERENCE["vcov"]["values"], rtol=1e-3)
    np.testing.assert_allclose(fit.loglik, REFERENCE["objective"]["logLik"], rtol=1e-10)
    np.testing.assert_allclose(
        [fit.aic, fit.bic], [REFERENCE["objective"][k] for k in ("AIC", "BIC")], rtol=1e-10
    )
    assert fit.varcorr["herd"].sds[0] == pytest.approx(REFERENCE["varcorr"][0]["sd"][0], rel=1e-5)
    assert fit.sigma == fit.dispersion == 1.0


@pytest.mark.parametrize("kind", ["response", "pearson", "deviance"])
def test_residuals_of_glmer(fit, kind):
    if kind == "deviance" and not hasattr(fit.family, "unit_deviance"):
        pytest.skip("the family has no unit deviance")
    reference = REFERENCE["residual" if kind == "response" else f"residual_{kind}"]
    own = fit.residuals(kind)
    np.testing.assert_allclose(own[:10], reference["head"], rtol=2e-5, atol=1e-8)
    np.testing.assert_allclose(own @ own, reference["sumsq"], rtol=1e-5)


def test_fitted_values_and_modes_of_glmer(fit):
    np.testing.assert_allclose(fit.fitted()[:10], REFERENCE["fitted"]["head"], rtol=1e-5)
    effects = REFERENCE["ranef"][0]
    table = fit.ranef(condvar=True)
    np.testing.assert_allclose(table["estimate"], np.ravel(effects["values"]), rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(np.square(table["sd"]), np.ravel(effects["condvar"]), rtol=1e-4)
    coef = fit.coef()
    first = dict(zip(coef["term"][:4], coef["estimate"][:4], strict=True))
    assert first["(Intercept)"] == pytest.approx(fit.fixef["(Intercept)"] + table["estimate"][0])
    assert first["period2"] == fit.fixef["period2"]


def test_predictions_of_glmer(fit):
    reference = REFERENCE["predictions"]
    new = {key: [row[key] for row in reference["newdata"]] for key in ("period", "herd")}
    for re_form, suffix in ((None, "conditional"), ("population", "population")):
        for type_, end in (("response", ""), ("link", "_link")):
            own = fit.predict(new, re_form=re_form, type=type_, new_levels="population")
            np.testing.assert_allclose(own, reference[suffix + end], rtol=1e-5)


# ---------------------------------------------------------------------- laws
def test_a_gaussian_model_is_the_linear_one(gaussian):
    linear, fit = gaussian
    assert fit.loglik == pytest.approx(linear.loglik, rel=1e-10)
    assert fit.sigma == pytest.approx(linear.sigma, rel=1e-5)
    assert fit.varcorr.sigma == fit.sigma
    np.testing.assert_allclose(fit.beta, linear.beta, rtol=1e-5)
    np.testing.assert_allclose(fit.vcov, linear.vcov, rtol=1e-3, atol=1e-6)  # other parameters count too
    np.testing.assert_allclose(fit.residuals("pearson"), linear.residuals("scaled"), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fit.fitted(), linear.fitted(), rtol=1e-4)
    np.testing.assert_allclose(fit.fitted("population"), linear.fitted("population"), rtol=1e-4)


def test_standard_errors_are_those_of_the_exact_hessian(fit):
    hessian = fit.objective.evaluate(fit.psi, 2).hessian
    np.testing.assert_allclose(fit.joint_vcov, 2.0 * np.linalg.inv(hessian), rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(fit.vcov, fit.joint_vcov[:4, :4])


def test_components(gaussian):
    fit = gaussian[1]
    assert fit.components == ("conditional", "dispersion")
    assert fit.fixef_all["conditional"] == fit.fixef
    assert fit.fixef_all["dispersion"]["disp_(Intercept)"] == pytest.approx(math.log(fit.sigma))
    assert fit.coefficients()["term"].tolist() == ["(Intercept)", "x"]
    everything = fit.coefficients(component="all")
    assert everything["component"].tolist() == ["conditional", "conditional", "dispersion"]
    assert np.isnan(everything["p_value"][2]) and everything["std_error"][2] > 0.0
    assert fit.coefficients(component="disp")["term"].tolist() == ["disp_(Intercept)"]
    with pytest.raises(OptionError, match="conditional, dispersion"):
        fit.coefficients(component="zi")


def test_working_quantities(fit):
    np.testing.assert_allclose(fit.working_weights(), fit.working_weights("observed"), rtol=1e-10)
    np.testing.assert_allclose(fit.working_response(), fit.working_response("observed"), rtol=1e-8)
    mu = fit.fitted()
    size = fit.generalised.data.trials
    np.testing.assert_allclose(fit.working_weights(), size * mu * (1.0 - mu), rtol=1e-12)
    np.testing.assert_allclose(fit.residuals("working"), fit.residuals() / (mu * (1.0 - mu)), rtol=1e-8)
    with pytest.raises(OptionError, match="expected"):
        fit.working_weights("fisher")


def test_observed_working_weights_of_another_link(cbpp):
    fit = mm.glmm("incidence ~ period + (1 | herd)", cbpp, family="binomial", link="probit", trials="size")
    step = 1e-4
    data, eta = fit.generalised.data, fit.linear_predictors()
    values = [fit.family.log_density(data, [eta[0] + s]) for s in (-step, 0.0, step)]
    second = (values[0] - 2.0 * values[1] + values[2]) / step**2
    np.testing.assert_allclose(fit.working_weights("observed"), -second, rtol=1e-4, atol=1e-5)
    assert np.abs(fit.working_weights() - fit.working_weights("observed")).max() > 0.01


def test_a_singular_fit_has_standard_errors():
    rng = np.random.default_rng(5)
    data = {
        "y": rng.poisson(3.0, 60),
        "g": np.repeat(np.arange(10), 6).astype(str),
        "x": rng.standard_normal(60),
    }
    data["y"] = np.sort(data["y"]).reshape(6, 10).T.ravel()  # levels as alike as can be
    fit = mm.glmm("y ~ x + (1 | g)", data, family="poisson")
    assert fit.is_singular
    assert np.isfinite(fit.vcov).all()
    assert fit.joint_vcov[2, 2] == 0.0
    X, mu = fit.design.X, fit.fitted()
    np.testing.assert_allclose(fit.vcov, np.linalg.inv(X.T @ (mu[:, None] * X)), rtol=1e-3, atol=1e-6)
    assert any("singular" in note or "zero" in note for note in fit.messages)


def test_flat_directions_are_named_and_the_others_keep_their_errors():
    hessian = np.array([[2.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    covariance, flat = joint_covariance(hessian, np.eye(3), ())
    assert flat.tolist() == [False, False, True]
    assert np.isnan(covariance[2]).all()
    np.testing.assert_allclose(covariance[:2, :2], np.diag([1.0, 0.5]))
    held, flat = joint_covariance(np.array([[2.0, 1.0], [1.0, 2.0]]), np.eye(2), (1,))
    np.testing.assert_allclose(held, [[1.0, 0.0], [0.0, 0.0]])
    assert not flat.any()


# ---------------------------------------------------------------------- storage and other models
def test_saved_and_loaded(fit, tmp_path):
    fit.save(tmp_path / "cbpp.mm")
    loaded = mm.load(tmp_path / "cbpp.mm")
    assert isinstance(loaded, mm.GLMMFit) and str(loaded) == str(fit)
    np.testing.assert_array_equal(loaded.joint_vcov, fit.joint_vcov)
    np.testing.assert_allclose(loaded.fitted(), fit.fitted(), rtol=1e-9)
    again = pickle.loads(pickle.dumps(fit))
    assert again.family.link is fit.family.link
    np.testing.assert_array_equal(again.psi, fit.psi)
    assert copy.deepcopy(fit) is fit


def test_refit_and_update(fit, cbpp):
    drawn = fit.simulate(1, seed=4)[:, 0]
    other = fit.refit(drawn)
    assert other.loglik != fit.loglik
    assert fit.refit(cbpp["incidence"]).loglik == pytest.approx(fit.loglik, rel=1e-10)
    assert fit.update(". ~ 1 + (1 | herd)").df_model == 2
    assert fit.refit_ml() is fit


def test_rows_left_out_come_back_with_exclude(cbpp):
    data = dict(cbpp)
    incidence = np.array(data["incidence"], dtype=float)
    incidence[3] = np.nan
    data["incidence"] = incidence
    fit = mm.glmm(
        "incidence ~ period + (1 | herd)", data, family="binomial", trials="size", na_action="exclude"
    )
    for values in (fit.fitted(), fit.residuals("pearson"), fit.working_weights(), fit.response()):
        assert values.shape == (56,) and np.isnan(values).nonzero()[0].tolist() == [3]


def test_wrong_input(fit):
    with pytest.raises(OptionError, match="pearson"):
        fit.residuals("student")
    with pytest.raises(OptionError, match="type must be one of"):
        fit.predict(type="probability")
    with pytest.raises(OptionError, match="no dispersion part"):
        fit.fitted(type="dispersion")
    with pytest.raises(OptionError, match="linear models"):
        fit.coefficients(ddf="kr")
    with pytest.raises(AttributeError, match="frozen"):
        fit.beta = 1
