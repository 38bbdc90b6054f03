"""What a generalised fit prints, in every format, and its tidy tables."""

import re

import numpy as np
import pytest

import mixedmodels as mm


@pytest.fixture(scope="module")
def data():
    return mm.load_dataset("cbpp", backend="dict")


@pytest.fixture(scope="module")
def fit(data):
    return mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")


@pytest.fixture(scope="module")
def inflated():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(10), 12)
    x = np.tile([0.0, 1.0], 60)
    zero = rng.random(120) < 0.2 + 0.4 * x
    y = np.where(zero, 0, rng.poisson(np.exp(1.0 + 0.5 * x + 0.4 * rng.standard_normal(10)[g])))
    data = {"y": y, "x": x, "g": [f"g{i}" for i in g]}
    return mm.glmm("y ~ x + (1 | g)", data, family="poisson", zero_inflation="~ x", solver="dense")


def test_the_text(fit):
    text = str(fit)
    assert text.startswith(
        "Generalised linear mixed model fit by maximum likelihood (Laplace approximation)\n"
    )
    assert "Formula: incidence ~ period + (1 | herd)\n Family: binomial (logit)\n" in text
    assert re.search(r"AIC +BIC +logLik +deviance df.resid\n +194\.1 +204\.2 +-92\.0 +184\.1 +51\n", text)
    assert re.search(r"herd +\(Intercept\) 0\.4125 +0\.6423\n", text)
    assert "Residual" not in text.replace("Scaled (Pearson) residuals", "")
    assert "Number of obs: 56, groups: herd, 15\n" in text
    assert re.search(r"period2 +-0\.9923 +0\.3066 +-3\.236 +0\.001212\n", text)
    assert "Dispersion" not in text and "conditional model" not in text


def test_quadrature_is_in_the_title(data):
    fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size", nagq=9)
    assert "(adaptive Gauss-Hermite quadrature, 9 points)" in str(fit).splitlines()[0]
    fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size", nagq=0)
    assert "nagq = 0" in str(fit).splitlines()[0]


def test_every_format(fit):
    summary = fit.summary()
    assert "<b>Fixed effects, z tests</b>" in summary.to_html()
    assert r"\textbf{Random effects}" in summary.to_latex()
    assert "### Generalised linear mixed model" in summary.to_markdown()
    assert fit._repr_html_() == summary.to_html()
    assert list(summary.to_frame()["term"]) == list(fit.fixef)


def test_components_have_their_own_tables(inflated):
    text = str(inflated)
    assert "Zero inflation: ~ x\n" in text
    assert "Fixed effects (conditional model), z tests:" in text
    assert "Zero-inflation model, z tests:" in text
    assert re.search(r"\nzi_x +\d", text)
    table = inflated.tidy(effects="fixed")
    assert list(table["component"]) == ["conditional"] * 2 + ["zero_inflation"] * 2
    assert list(table["term"]) == ["(Intercept)", "x", "zi_(Intercept)", "zi_x"]


def test_values_of_a_mixture(inflated):
    pi = inflated.fitted(type="zero_probability")
    np.testing.assert_allclose(
        inflated.fitted(), (1.0 - pi) * inflated.fitted(type="conditional"), rtol=1e-12
    )
    np.testing.assert_allclose(inflated.fitted(type="conditional"), np.exp(inflated.fitted(type="link")))
    own = {"x": inflated.design.X[:, 1], "g": inflated.design.terms[0].levels[inflated.design.terms[0].codes]}
    np.testing.assert_allclose(inflated.predict(own), inflated.fitted(), rtol=1e-12)
    drawn = inflated.simulate(300, seed=1, new_effects=False)
    share = (drawn == 0).mean(axis=1)
    expected = pi + (1.0 - pi) * np.exp(-inflated.fitted(type="conditional"))
    assert np.abs(share - expected).max() < 0.15


def test_dispersion_in_words():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(8), 10)
    y = 2.0 + rng.standard_normal(8)[g] + rng.standard_normal(80)
    fit = mm.glmm("y ~ 1 + (1 | g)", {"y": y, "g": g.astype(str)}, family="gaussian")
    text = str(fit)
    assert re.search(r"\n Residual +\d", text)
    assert "(exact)" in text.splitlines()[0]
    assert fit.tidy(effects="ran_pars")["group"].tolist() == ["g", "Residual"]


def test_tidy_tables(fit):
    table = fit.tidy(effects=("fixed", "ran_pars", "ran_vals", "ran_coefs"), conf_int=True)
    assert len({len(column) for column in table.values()}) == 1
    assert list(table)[:4] == ["effect", "component", "group", "term"]
    fixed = np.array(table["effect"]) == "fixed"
    half = 1.959963984540054 * np.array(list(fit.se.values()))
    np.testing.assert_allclose(np.array(table["conf_high"])[fixed], fit.beta + half, rtol=1e-12)
    glance = fit.glance()
    assert glance["family"][0] == "binomial" and glance["nobs"][0] == 56
    augment = fit.augment()
    np.testing.assert_allclose(augment["response"] - augment["fitted"], augment["residual"])


def test_standard_errors_of_predictions(fit):
    new = {"period": ["1", "4"]}
    link = fit.predict(new, re_form="population", type="link", se=True)
    X = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(link["std_error"], np.sqrt(np.diag(X @ fit.vcov @ X.T)), rtol=1e-12)
    mean = fit.predict(new, re_form="population", se=True)
    mu = mean["predicted"]
    np.testing.assert_allclose(mean["std_error"], mu * (1.0 - mu) * link["std_error"], rtol=1e-12)
