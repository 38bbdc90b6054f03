"""Heritability of generalised models: closed forms, integrals, slopes of the delta method, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.family import get_family
from mixedmodels.genetics.heritability import components_of, heritability
from mixedmodels.genetics.heritability_glmm import glmm_components, response_moments

FAMILIES = {
    "probit": get_family("binomial", "probit"),
    "logit": get_family("binomial"),
    "cloglog": get_family("binomial", "cloglog"),
    "log": get_family("poisson"),
    "sqrt": get_family("poisson", "sqrt"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_moments_are_the_integrals_over_the_linear_predictor(name):
    family, eta, v = FAMILIES[name], 0.4, 0.7

    def mean(x):
        return float(family.link.inverse(np.array([x]))[0])

    def expect(f):
        return quad(lambda z: f(eta + np.sqrt(v) * z) * norm.pdf(z), -9, 9, epsabs=1e-12, limit=200)[0]

    m, square = expect(mean), expect(lambda x: mean(x) ** 2)
    noise = m if family.name == "poisson" else m - square
    psi = expect(lambda x: (x - eta) / v * mean(x))  # Stein: E mu' = Cov(eta, mu) / v
    found = response_moments(family, np.array([eta]), np.array([v]))
    assert found.mean[0] == pytest.approx(m, rel=1e-8)
    assert found.psi[0] == pytest.approx(psi, rel=1e-8)
    assert found.variance[0] == pytest.approx(square - m * m + noise, rel=1e-8)


@pytest.mark.parametrize("name", FAMILIES)
def test_slopes_are_those_of_the_moments(name):
    family, eta, v, h = FAMILIES[name], np.array([0.4, -0.9, 1.2]), np.array([0.7, 0.2, 1.5]), 1e-5
    found = response_moments(family, eta, v)
    along_eta = [response_moments(family, eta + s * h, v) for s in (1, -1)]
    along_v = [response_moments(family, eta, v + s * h) for s in (1, -1)]

    def slope(pair, field):
        return (getattr(pair[0], field) - getattr(pair[1], field)) / (2 * h)

    for field, pair, value in (
        ("mean", along_eta, found.psi),
        ("mean", along_v, found.mean_v),
        ("psi", along_eta, found.psi_eta),
        ("psi", along_v, found.psi_v),
        ("variance", along_eta, found.variance_eta),
        ("variance", along_v, found.variance_v),
    ):
        np.testing.assert_allclose(slope(pair, field), value, rtol=1e-7, atol=1e-9)


@pytest.fixture(scope="module")
def sample():
    ped = mm.genetics.random_pedigree(founders=40, generations=3, size=80, seed=1)
    own = mm.genetics.simulate_trait(ped, heritability=0.5, seed=2)["additive"]
    rng = np.random.default_rng(3)
    rows = np.repeat(np.arange(len(ped)), 3)
    x, herd = rng.normal(size=rows.size), rng.integers(0, 12, rows.size)
    eta = 0.3 + 0.5 * x + own[rows] + 0.5 * rng.normal(size=12)[herd]
    data = {"x": x, "animal": ped.ids[rows], "herd": herd}
    data["count"] = rng.poisson(np.exp(eta))
    data["class"] = np.searchsorted([0.0, 1.0], eta + rng.normal(size=rows.size))
    data["sick"] = (data["class"] > 0).astype(int)
    return ped, data


def model(sample, response, **options):
    ped, data = sample
    return mm.glmm(f"{response} ~ 1 + (1 | animal) + (1 | herd)", data, known={"animal": ped}, **options)


def test_a_binary_trait_has_the_liability_of_dempster_and_lerner(sample):
    fit = model(sample, "sick", family="binomial", link="probit")
    a, c = fit.theta**2
    liability = a / (a + c + 1.0)
    t = fit.beta[0] / np.sqrt(a + c + 1.0)
    p = norm.cdf(t)
    latent, observed = (
        fit.heritability("animal / (animal + herd + Residual)", scale=scale).rows()[0]
        for scale in ("latent", "observation")
    )
    assert latent["estimate"] == pytest.approx(liability, rel=1e-10)
    assert observed["estimate"] == pytest.approx(liability * norm.pdf(t) ** 2 / (p * (1 - p)), rel=1e-10)
    assert 0.0 < observed["std_error"] < latent["std_error"]


def test_counts_have_closed_forms(sample):
    """De Villemereuil et al. (2016), table 1; Nakagawa and Schielzeth's ln(1 + 1 / lambda) below it."""
    fit = model(sample, "count", family="poisson")
    a, c = fit.theta**2
    level = np.exp(fit.beta[0] + 0.5 * (a + c))
    observed = fit.heritability(scale="observation")["estimate"][0]
    assert observed == pytest.approx(level**2 * a / (level + level**2 * np.expm1(a + c)), rel=1e-10)
    latent = fit.heritability()["estimate"][0]
    assert latent == pytest.approx(a / (a + c + np.log1p(1.0 / level)), rel=1e-10)
    alone = fit.heritability("animal / (animal + herd)")["estimate"][0]
    assert alone == pytest.approx(a / (a + c), rel=1e-12)


@pytest.mark.parametrize("scale", ["latent", "observation"])
@pytest.mark.parametrize(
    ("response", "options"), [("count", {"family": "poisson"}), ("sick", {"family": "binomial"})]
)
def test_the_delta_method_has_the_gradient_of_the_ratio(sample, scale, response, options):
    """Numeric slopes of the components in (beta, theta) against the written ones, fixed effects included."""
    ped, data = sample
    fit = mm.glmm(f"{response} ~ x + (1 | animal) + (1 | herd)", data, known={"animal": ped}, **options)
    family, X = fit.family, np.column_stack([np.ones(len(data["x"])), data["x"]])

    def ratio(psi):
        a, c = psi[2:] ** 2
        found = response_moments(family, X @ psi[:2], np.full(len(X), a + c))
        if scale == "observation":
            return np.mean(found.psi) ** 2 * a / np.mean(found.variance)
        rest = np.log1p(1.0 / np.mean(found.mean)) if response == "count" else np.pi**2 / 3
        return a / (a + c + rest)

    h = 1e-5
    gradient = np.array([(ratio(fit.psi + h * e) - ratio(fit.psi - h * e)) / (2 * h) for e in np.eye(4)])
    row = fit.heritability(scale=scale).rows()[0]
    assert row["estimate"] == pytest.approx(ratio(fit.psi), rel=1e-9)
    error = np.sqrt(gradient @ fit._covariances[0] @ gradient)
    assert row["std_error"] == pytest.approx(error, rel=1e-6)
    assert row["conf_high"] - row["estimate"] == pytest.approx(norm.ppf(0.975) * error, rel=1e-6)


def test_ordered_classes_have_the_liability_only(sample):
    fit = model(sample, "class", family="cumulative", link="probit")
    a, c = fit.theta**2
    assert fit.heritability()["estimate"][0] == pytest.approx(a / (a + c + 1.0), rel=1e-10)
    with pytest.raises(OptionError, match="for binomial and Poisson families"):
        fit.heritability(scale="observation")


def test_slopes_have_names_of_their_own(sample):
    ped, data = sample
    fit = mm.glmm("count ~ x + (x | animal)", data, family="poisson", known={"animal": ped})
    found = glmm_components(fit)
    Sigma = fit._factors[0] @ np.transpose(fit._factors[0])
    assert list(found.names) == ["animal.(Intercept)", "animal.x.(Intercept)", "animal.x", "Residual"]
    np.testing.assert_allclose(found.values[:3], [Sigma[0][0], Sigma[1][0], Sigma[1][1]], rtol=1e-12)
    v = Sigma[0][0] + 2 * data["x"] * Sigma[1][0] + data["x"] ** 2 * Sigma[1][1]
    level = np.mean(np.exp(fit.beta[0] + fit.beta[1] * data["x"] + v / 2))
    assert found.values[3] == pytest.approx(np.log1p(1 / level), rel=1e-10)
    with pytest.raises(OptionError, match="with slopes they change from row to row"):
        glmm_components(fit, "observation")


def test_bootstrap_of_a_generalised_ratio(sample):
    fit = model(sample, "count", family="poisson")
    row = fit.heritability(method="bootstrap", n=4, seed=1, scale="observation").rows()[0]
    assert row["conf_low"] < row["conf_high"] and row["std_error"] > 0.0


@pytest.mark.parametrize("link", ["probit", "logit"])
def test_profile_limits_are_where_the_likelihood_ratio_is_its_quantile(link):
    ped = mm.genetics.random_pedigree(founders=30, generations=2, size=120, seed=4)
    trait = mm.genetics.simulate_trait(ped, heritability=0.7, seed=3)
    data = {"id": trait["individual"], "y": (np.asarray(trait["y"]) > 0).astype(int)}
    fit = mm.glmm("y ~ 1 + (1 | id)", data, family="binomial", link=link, known={"id": ped})
    row = fit.heritability(method="profile", level=0.6).rows()[0]
    residual = {"probit": 1.0, "logit": np.pi**2 / 3.0}[link]
    assert 0.0 < row["conf_low"] < row["estimate"] < row["conf_high"] < 1.0
    for limit in (row["conf_low"], row["conf_high"]):
        sd = float(np.sqrt(residual * limit / (1.0 - limit)))
        held = fit.update(fixed={"sd_(Intercept)|id": sd})
        assert 2.0 * (fit.loglik - held.loglik) == pytest.approx(norm.ppf(0.8) ** 2, rel=1e-3)
    share = fit.heritability("Residual / (id + Residual)", method="profile", level=0.6).rows()[0]
    assert share["conf_low"] == pytest.approx(1.0 - row["conf_high"], rel=1e-9)
    with pytest.raises(OptionError, match="method='delta' or 'bootstrap'"):
        fit.heritability(method="profile", scale="observation")
    with pytest.raises(OptionError, match="rises and falls"):
        fit.heritability(f"id / (id + {fit.theta[0] ** 2:.9f})^2", method="profile", level=0.6)


def test_refusals(sample):
    fit = model(sample, "count", family="poisson")
    with pytest.raises(OptionError, match="method='delta' or 'bootstrap'"):
        fit.heritability(method="profile")
    with pytest.raises(OptionError, match="'latent' or 'observation'"):
        fit.heritability(scale="data")
    linear = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
    with pytest.raises(OptionError, match="scale is for generalised models"):
        heritability(linear, "Batch / (Batch + Residual)", scale="latent")
    assert components_of(linear).names["Residual"] == 1
    rng = np.random.default_rng(1)
    data = {"y": rng.gamma(2.0, size=60), "g": np.tile(np.arange(12), 5)}
    other = mm.glmm("y ~ 1 + (1 | g)", data, family="gamma", link="log")
    with pytest.raises(OptionError, match="has no Residual here; give a ratio"):
        other.heritability("g / (g + Residual)")
