"""Profiles and Wald intervals of covariance parameters in fits with structured residuals."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.fit.wald import normal_quantile
from mixedmodels.inference.parameters import parameters_of
from mixedmodels.inference.profile.held import held_for

GROWTH = "distance ~ age * Sex"
QUANTILE = normal_quantile(0.95) ** 2


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    known = np.where(data["Sex"] == "Male", 1.0, 0.5)
    return data.assign(occ=(data["age"] / 2 - 3).astype(int), known=known, weight=1.0 / known)


@pytest.mark.parametrize(
    ("random", "structure", "name", "options"),
    [
        ("", "ar1(occ | Subject{})", "rho", ", rho={}"),
        (" + (1 | Subject)", "ar1(occ | Subject{})", "rho", ", rho={}"),
        ("", "car1(age | Subject{})", "rho", ", rho={}"),
        ("", "cs(1 | Subject{})", "rho", ", rho={}"),
        (" + (age | Subject)", "varpower(age{})", "power", ", power={}"),
        ("", "exp(age | Subject{})", "range", ", range={}"),
    ],
)
def test_limits_are_where_the_held_model_has_the_quantile(growth, random, structure, name, options):
    """The same structure with the parameter held at its limit: 3.84 above the minimum."""
    fit = mm.gls(GROWTH + random, growth, residual=structure.format(""), reml=False)
    row = fit.confint("profile", parameters=name).row(name)
    assert row["conf_low"] < row["estimate"] < row["conf_high"]
    for limit in (row["conf_low"], row["conf_high"]):
        held = fit.update(residual=structure.format(options.format(repr(float(limit)))))
        assert held.criterion - fit.criterion == pytest.approx(QUANTILE, abs=1e-5)


def test_known_variances_are_weights(growth):
    """The profiles of a model with weights, by other code: standard deviations, a correlation, sigma."""
    weighted = mm.lmm(GROWTH + " + (age | Subject)", growth, weights="weight")
    structured = mm.lmm(GROWTH + " + (age | Subject)", growth, residual="varfixed(known)")
    one, other = (fit.confint("profile", level=0.5).columns for fit in (weighted, structured))
    assert list(one["term"]) == list(other["term"])
    for name in ("estimate", "conf_low", "conf_high"):
        np.testing.assert_allclose(other[name], one[name], rtol=2e-5, atol=1e-5)


def test_singular_ends_are_those_of_weights(growth):
    """Limits at a standard deviation of zero and a correlation of one."""
    weighted = mm.lmm(GROWTH + " + (age | Subject)", growth, weights="weight")
    structured = mm.lmm(GROWTH + " + (age | Subject)", growth, residual="varfixed(known)")
    one, other = (fit.confint("profile", parameters="random").columns for fit in (weighted, structured))
    assert list(one["note"]) == list(other["note"])
    for name in ("conf_low", "conf_high"):
        np.testing.assert_allclose(other[name], one[name], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("random", "structure", "name"),
    [
        ("", "us(occ | Subject)", "cor[2,3]"),
        ("", "toep(occ | Subject)", "rho2"),
        (" + (1 | Subject)", "ar1(occ | Subject) * varident(Sex)", "sd_(Intercept)|Subject"),
        (" + (age | Subject)", "varident(Sex)", "sd_age|Subject"),
        (" + (age | Subject)", "varident(Sex)", "cor_age.(Intercept)|Subject"),
    ],
)
def test_slope_is_the_derivative_of_the_profile(growth, random, structure, name):
    """d D / du of constrained minima, by differences; the parameter is where it is held."""
    fit = mm.gls(GROWTH + random, growth, residual=structure, reml=False)
    parameter = next(p for p in parameters_of(fit) if p.name == name)
    held = held_for(fit, parameter)
    start = held.estimate()
    assert start.criterion == pytest.approx(fit.criterion, abs=1e-8)
    assert start.slope == pytest.approx(0.0, abs=1e-3)
    u = start.u + 0.8 / np.sqrt(start.curvature)
    h = 2e-3 / np.sqrt(start.curvature)
    up, down = held.at(start.u + h, start), held.at(start.u - h, start)
    assert start.curvature == pytest.approx((up.slope - down.slope) / (2 * h), rel=5e-3)
    middle = held.at(u, start)
    up, down = held.at(u + h, middle), held.at(u - h, middle)
    assert middle.slope == pytest.approx((up.criterion - down.criterion) / (2 * h), rel=1e-4)


# intervals() of nlme 3.1 (tests/references/structured/nlme_intervals.R); its Hessian is by differences.
NLME = [
    (
        "",
        "ar1(occ | Subject) * varident(Sex)",
        {
            "rho": (0.5815039739, 0.7473341083, 0.8535389966),
            "sd_ratio[Female]": (0.4120592336, 0.5646826717, 0.7738366082),
            "sigma": (2.299112236, 3.082774782, 4.133552163),
        },
    ),
    (
        " + (1 | Subject)",
        "ar1(occ | Subject) * varident(Sex)",
        {
            "sd_(Intercept)|Subject": (1.334013141, 1.832403194, 2.516992797),
            "rho": (-0.2662792417, 0.07700353496, 0.4029513237),
            "sd_ratio[Female]": (0.3348059398, 0.461693368, 0.6366696069),
            "sigma": (1.348846587, 1.713821180, 2.177551594),
        },
    ),
    (
        "",
        "cs(1 | Subject)",
        {
            "rho": (0.4416402486, 0.6318381331, 0.7759761841),
            "sigma": (1.861010455, 2.284881188, 2.805294311),
        },
    ),
    (
        "",
        "corr(occ | Subject)",
        {
            "cor[1,2]": (0.2406644507, 0.5754124266, 0.7878261241),
            "cor[1,3]": (0.3758616155, 0.6375722539, 0.8050897834),
            "cor[2,3]": (0.2691962157, 0.5742825595, 0.7746220746),
            "cor[1,4]": (0.1673708600, 0.5147787481, 0.7484665278),
            "cor[2,4]": (0.5225061461, 0.7488760238, 0.8766250237),
            "cor[3,4]": (0.4998903458, 0.7205954624, 0.8534191359),
            "sigma": (1.862880933, 2.286910413, 2.807457602),
        },
    ),
]


@pytest.mark.parametrize(("random", "structure", "limits"), NLME)
def test_wald_limits_are_those_of_nlme(growth, random, structure, limits):
    table = mm.gls(GROWTH + random, growth, residual=structure).variance_parameters()
    for name, expected in limits.items():
        row = table.row(name)
        found = [row["conf_low"], row["estimate"], row["conf_high"]]
        np.testing.assert_allclose(found, expected, rtol=5e-4, atol=1e-3)


def test_plots_and_tables_of_a_profile(growth):
    profile = mm.gls(GROWTH, growth, residual="ar1(occ | Subject)").profile(parameters=["rho", "sigma"])
    table = profile.confint()
    assert list(table.columns["term"]) == ["sigma", "rho"]
    curve = profile.curves[1]
    assert np.all(np.diff(curve.value) > 0) and np.all(np.diff(curve.zeta) > 0)
    np.testing.assert_allclose(curve.others[:, -1], curve.value, rtol=1e-9)
