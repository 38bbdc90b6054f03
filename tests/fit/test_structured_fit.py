"""Fits with structured residuals: what they report, what they refuse, and that they find the truth."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError, OptionError

GROWTH = "distance ~ age * Sex"


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    return data.assign(occ=(data["age"] / 2 - 3).astype(int))


@pytest.fixture(scope="module")
def het(growth):
    return mm.lmm(GROWTH + " + (1 | Subject)", growth, residual="ar1(occ | Subject) * varident(Sex)")


def test_summary_shows_the_structure(het):
    text = str(het)
    assert "Residuals: AR(1) over occ within Subject; variances by Sex" in text
    assert "rho" in text and "sd_ratio[Female]" in text
    assert "t tests by Satterthwaite" in text


def test_estimates_of_the_structure(het):
    structure = het.residual
    assert structure.names == ("rho", "sd_ratio[Female]")
    assert structure["rho"] == structure.values[0]
    assert structure.columns()["term"] == ["rho", "sd_ratio[Female]"]
    assert len(het.phi) == 2 and len(het.theta) == 3
    assert het.df_model == 4 + 3 + 1
    assert het.converged


def test_least_squares_without_a_structure(growth):
    """gls without residual= is lm: coefficients, sigma and log-likelihood in closed form."""
    fit = mm.gls(GROWTH, growth)
    X, y = fit.design.X, fit.design.y
    beta, rss = np.linalg.lstsq(X, y, rcond=None)[:2]
    n, p = X.shape
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-10)
    assert fit.sigma == pytest.approx(np.sqrt(rss[0] / (n - p)), rel=1e-12)
    assert fit.sigma > mm.gls(GROWTH, growth, reml=False).sigma
    logdet = np.linalg.slogdet(X.T @ X)[1]
    expected = -0.5 * ((n - p) * (1 + np.log(2 * np.pi * rss[0] / (n - p))) + logdet)
    assert fit.loglik == pytest.approx(expected, rel=1e-12)
    assert "Generalised least squares fit by REML" in str(fit)
    assert all(df == pytest.approx(n - p, rel=1e-8) for df in fit.coefficients().columns["df"])


def test_satterthwaite_of_a_balanced_unstructured_model(growth):
    """Visits general, two groups of children: the exact degrees of freedom are children less groups."""
    fit = mm.gls(GROWTH, growth, residual="us(occ | Subject)")
    np.testing.assert_allclose(fit.coefficients().columns["df"], 25.0, rtol=1e-6)


def test_compound_symmetry_is_a_random_intercept(growth):
    """cs and (1 | Subject) are one model where the correlation is positive."""
    cs = mm.gls(GROWTH, growth, residual="cs(1 | Subject)")
    intercept = mm.lmm(GROWTH + " + (1 | Subject)", growth)
    assert cs.loglik == pytest.approx(intercept.loglik, rel=1e-10)
    ratio = intercept.theta[0] ** 2
    assert cs.residual["rho"] == pytest.approx(ratio / (1 + ratio), rel=1e-5)
    np.testing.assert_allclose(cs.vcov, intercept.vcov, rtol=1e-5)
    np.testing.assert_allclose(
        cs.coefficients().columns["df"], intercept.coefficients().columns["df"], rtol=1e-4
    )


def test_weights_are_known_variances(growth):
    data = growth.assign(w=np.linspace(0.5, 2.0, len(growth)), v=1.0 / np.linspace(0.5, 2.0, len(growth)))
    formula = GROWTH + " + (1 | Subject)"
    weighted = mm.lmm(formula, data, weights="w")
    fixed = mm.lmm(formula, data, residual="varfixed(v)")
    both = mm.lmm(formula, data, weights="w", residual="varident(Sex)")
    product = mm.lmm(formula, data, residual="varfixed(v) * varident(Sex)")
    # varfixed takes the covariate as it is: the same variances
    assert fixed.loglik == pytest.approx(weighted.loglik, rel=1e-10)
    # the ML criterion at REML's theta is not stationary there: first order in what the search left
    assert fixed.deviance == pytest.approx(weighted.deviance, rel=1e-7)
    assert both.loglik == pytest.approx(product.loglik, rel=1e-10)
    np.testing.assert_allclose(fixed.beta, weighted.beta, rtol=1e-6)


def test_rows_in_any_order_and_other_units(growth, het):
    shuffled = growth.sample(frac=1.0, random_state=1)
    shuffled = shuffled.assign(distance=1000.0 * shuffled["distance"])
    fit = mm.lmm(GROWTH + " + (1 | Subject)", shuffled, residual="ar1(occ | Subject) * varident(Sex)")
    np.testing.assert_allclose(fit.residual.values, het.residual.values, rtol=1e-5)
    np.testing.assert_allclose(fit.beta, 1000.0 * het.beta, rtol=1e-5)
    assert fit.sigma == pytest.approx(1000.0 * het.sigma, rel=1e-5)


def test_refits_and_updates(growth, het):
    again = het.refit(het.design.y)
    assert again.loglik == pytest.approx(het.loglik, rel=1e-9)
    assert not het.refit_ml().is_reml
    plain = het.update(residual=None)
    assert type(plain) is mm.LMMFit
    assert het.loglik > plain.loglik


def test_marginal_means_and_predictions(growth, het):
    means = het.emmeans("Sex").columns
    assert np.all(np.asarray(means["std_error"]) > 0)
    new = growth.head(3)
    np.testing.assert_allclose(het.predict(new), het.fitted()[:3], rtol=1e-10)


def test_solver_takes_responses_as_they_are(het):
    factors = [np.array(factor) for factor in het._factors]
    beta, b = het.solver.responses_at(factors)(het.design.y[:, None])
    np.testing.assert_allclose(beta[:, 0], het.beta, rtol=1e-8)
    np.testing.assert_allclose(b[0][:, :, 0], het._b[0], atol=1e-8)


def test_refusals(growth, het):
    with pytest.raises(OptionError, match=r"equal: rho, sd_ratio\[Female\] are different kinds"):
        het.update(equal=[["rho", "sd_ratio[Female]"]])
    with pytest.raises(OptionError, match="start has 1 values"):
        het.update(start=[1.0])


def series(rng, groups, length, rho, crossed, ratio):
    """AR(1) residuals in series, a random intercept of the series, a crossed factor, two variances."""
    g, t = np.repeat(np.arange(groups), length), np.tile(np.arange(length), groups)
    h = rng.integers(0, crossed, g.size)
    s = rng.integers(0, 2, g.size)
    lag = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    e = rng.normal(size=(groups, length)) @ np.linalg.cholesky(rho**lag).T
    x = rng.normal(size=g.size)
    y = 1.0 + 0.5 * x + 0.7 * rng.normal(size=groups)[g] + 0.5 * rng.normal(size=crossed)[h]
    return {"y": y + e.ravel() * np.where(s, ratio, 1.0), "x": x, "g": g, "h": h, "t": t, "s": s.astype(str)}


def test_crossed_effects_autocorrelation_and_two_variances():
    """The fit recovers what was simulated, within three of its own standard errors."""
    data = series(np.random.default_rng(11), 60, 20, 0.6, 25, 1.8)
    fit = mm.lmm("y ~ x + (1 | g) + (1 | h)", data, residual="ar1(t | g) * varident(s)")
    assert fit.converged
    error = fit.residual.std_error
    assert abs(fit.residual["rho"] - 0.6) < 3 * error[0] < 0.15
    assert abs(fit.residual["sd_ratio[1]"] - 1.8) < 3 * error[1] < 0.3
    assert abs(fit.fixef["x"] - 0.5) < 3 * fit.se["x"]
    assert fit.theta[0] * fit.sigma == pytest.approx(0.7, abs=0.25)
    assert fit.theta[1] * fit.sigma == pytest.approx(0.5, abs=0.25)
    gradient = fit.objective.value_and_gradient(np.array(fit.theta))[1]
    assert np.abs(gradient).max() < 1e-3
    df = fit.coefficients().columns["df"]
    assert np.all(np.isfinite(df)) and 10 < df[0] < 100


def test_nested_effects_and_groups_across_them():
    """Series that run over several levels of a nested factor: the order of the terms does not matter."""
    data = series(np.random.default_rng(5), 30, 12, 0.5, 8, 1.0)
    data["part"] = np.array([f"{g}:{t // 4}" for g, t in zip(data["g"], data["t"], strict=True)])
    one = mm.lmm("y ~ x + (1 | g) + (1 | part)", data, residual="ar1(t | g)")
    other = mm.lmm("y ~ x + (1 | part) + (1 | g)", data, residual="ar1(t | g)")
    assert one.loglik == pytest.approx(other.loglik, rel=1e-9)
    assert one.converged and other.converged


def test_what_the_data_cannot_tell_is_said(growth, het):
    """A random intercept and compound symmetry are one covariance; groups of one row are an error."""
    assert not any("cannot tell" in message for message in het.messages)
    both = mm.lmm(GROWTH + " + (1 | Subject)", growth, residual="cs(1 | Subject)")
    assert any("cannot tell these parameters apart" in message for message in both.messages)
    assert np.isnan(both.residual.std_error[0])
    with pytest.raises(DataError, match="no group has more than one row"):
        mm.gls(GROWTH, growth.assign(row=range(len(growth))), residual="ar1(1 | row)")
