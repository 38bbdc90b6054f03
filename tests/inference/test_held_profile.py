"""Profiles and intervals of linear fits with held and equal parameters: those of the model without them."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError

SLEEP = "Reaction ~ Days + (Days | Subject)"
PENICILLIN = "diameter ~ 1 + (1 | plate) + (1 | sample)"
SERIES = "y ~ x + (1 | g)"


@functools.cache
def data(name):
    if name != "series":
        return mm.load_dataset(name, backend="dict")
    rng = np.random.default_rng(5)
    g, t = np.repeat(np.arange(24), 5), np.tile(np.arange(1.0, 6.0), 24)
    x = rng.normal(size=120)
    root = np.linalg.cholesky(0.4 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5))))
    e = (root @ rng.normal(size=(5, 24))).T.ravel() * np.array([1.0, 1.4, 1.5])[g % 3]
    y = 1.0 + 0.5 * x + e + 0.9 * rng.normal(size=24)[g]
    return {
        "y": y,
        "x": x,
        "t": t,
        "g": [f"g{i}" for i in g],
        "w": np.array(["a", "b", "c"])[g % 3],
        "v": np.array(["a", "bc", "bc"])[g % 3],
    }


MODELS = {
    "correlation zero": (
        SLEEP,
        "sleepstudy",
        {"fixed": {"cor_Days.(Intercept)|Subject": 0.0}},
        ("Reaction ~ Days + (Days || Subject)", {}),
    ),
    "equal terms": (
        PENICILLIN,
        "Penicillin",
        {"equal": [["sd_(Intercept)|plate", "sd_(Intercept)|sample"]]},
        (PENICILLIN, {"share": [["(1 | plate)", "(1 | sample)"]]}),
    ),
    "held residual": (
        SERIES,
        "series",
        {"residual": "ar1(t | g) * varident(v)", "fixed": {"rho": 0.3}},
        (SERIES, {"residual": "ar1(t | g, rho=0.3) * varident(v)"}),
    ),
    "equal residuals": (
        SERIES,
        "series",
        {"residual": "varident(w)", "equal": [["sd_ratio[b]", "sd_ratio[c]"]]},
        (SERIES, {"residual": "varident(v)"}),
    ),
}
TWINS = {"sd_ratio[b]": "sd_ratio[bc]", "sd_ratio[c]": "sd_ratio[bc]"}


@functools.cache
def both(name):
    formula, columns, options, (plain, others) = MODELS[name]
    return mm.lmm(formula, data(columns), reml=False, **options), mm.lmm(
        plain, data(columns), reml=False, **others
    )


def rows(table):
    return {
        name: (low, high)
        for name, low, high in zip(table["term"], table["conf_low"], table["conf_high"], strict=True)
    }


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("method", ["profile", "wald"])
def test_intervals_are_those_of_the_smaller_model(name, method):
    fit, own = both(name)
    mine, theirs = (rows(f.confint(method=method)) for f in (fit, own))
    assert len([term for term in theirs if term in mine or term in TWINS.values()]) == len(theirs)
    for term, limits in mine.items():
        if term in theirs or term in TWINS:
            assert limits == pytest.approx(theirs[TWINS.get(term, term)], rel=1e-4, nan_ok=True)


def test_degrees_of_freedom_are_those_of_the_smaller_model():
    for name in MODELS:
        formula, columns, options, (plain, others) = MODELS[name]
        fit, own = mm.lmm(formula, data(columns), **options), mm.lmm(plain, data(columns), **others)
        for ddf in ("satterthwaite", "kr"):
            mine, theirs = fit.coefficients(ddf=ddf), own.coefficients(ddf=ddf)
            assert np.array(mine["std_error"]) == pytest.approx(np.array(theirs["std_error"]), rel=1e-4)
            assert np.array(mine["df"]) == pytest.approx(np.array(theirs["df"]), rel=1e-3)


def test_a_profile_holds_what_is_held():
    """Each point of the profile is a fit with one parameter more held."""
    fixed = {"sd_(Intercept)|Subject": 20.0}
    fit = mm.lmm(SLEEP, data("sleepstudy"), reml=False, fixed=fixed)
    profile = fit.profile(["sd_Days|Subject", "Days", "sigma"], points=2)
    (curve, sigma) = (
        next(c for c in profile.curves if c.parameter.name == name) for name in ("sd_Days|Subject", "sigma")
    )
    for value, zeta in list(zip(curve.value, curve.zeta, strict=True))[::2]:
        other = mm.lmm(
            SLEEP, data("sleepstudy"), reml=False, fixed={**fixed, "sd_Days|Subject": float(value)}
        )
        assert other.criterion - fit.criterion == pytest.approx(zeta**2, abs=2e-6)
    for value, zeta in list(zip(sigma.value, sigma.zeta, strict=True))[::2]:
        other = mm.lmm(SLEEP, data("sleepstudy"), reml=False, fixed=fixed, sigma=float(value))
        assert other.criterion - fit.criterion == pytest.approx(zeta**2, abs=2e-6)


def test_a_held_standard_deviation_with_structured_residuals():
    options = {"residual": "ar1(t | g)", "reml": False}
    fixed = {"sd_(Intercept)|g": 1.2}
    fit = mm.lmm(SERIES, data("series"), fixed=fixed, **options)
    profile = fit.profile(["rho", "x"], points=2)
    for curve, hold in zip(profile.curves, (None, "rho"), strict=True):
        for value, zeta in list(zip(curve.value, curve.zeta, strict=True))[::2]:
            if hold is None:
                moved = {**data("series")}
                moved["y"] = moved["y"] - float(value) * moved["x"]
                other = mm.lmm("y ~ 1 + (1 | g)", moved, fixed=fixed, **options)
            else:
                other = mm.lmm(SERIES, data("series"), fixed={**fixed, hold: float(value)}, **options)
            assert other.criterion - fit.criterion == pytest.approx(zeta**2, abs=2e-6)


def test_random_structures_that_are_not_linear():
    rng = np.random.default_rng(3)
    k, m = 5, 20
    R = 0.6 ** np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    b = (np.linalg.cholesky(R) * 1.3) @ rng.normal(size=(k, m))
    t, g = np.tile(np.arange(k), 2 * m), np.tile(np.repeat(np.arange(m), k), 2)
    frame = {"f": np.array(list("abcde"))[t], "g": g, "y": 1.0 + b[t, g] + rng.normal(size=t.size)}
    formula = "y ~ 1 + ar1(0 + f | g)"
    fit = mm.lmm(formula, frame, reml=False, fixed={"cor|g": 0.5})
    curve = fit.profile("sd|g", points=2).curves[0]
    for value, zeta in list(zip(curve.value, curve.zeta, strict=True))[::2]:
        other = mm.lmm(formula, frame, reml=False, fixed={"cor|g": 0.5, "sd|g": float(value)})
        assert other.criterion - fit.criterion == pytest.approx(zeta**2, abs=2e-6)


def test_what_is_held_is_not_profiled():
    fit, _ = both("correlation zero")
    with pytest.raises(OptionError, match="nothing to profile"):
        fit.profile("cor_Days.(Intercept)|Subject")
    table = fit.confint(method="profile")
    assert "cor_Days.(Intercept)|Subject" not in list(table["term"])
    assert any("held" in note for note in table.notes)


def test_restricted_likelihood():
    formula, columns, options, (plain, others) = MODELS["equal residuals"]
    fit, own = mm.lmm(formula, data(columns), **options), mm.lmm(plain, data(columns), **others)
    mine = rows(fit.confint("profile", parameters="sd", criterion="reml"))
    theirs = rows(own.confint("profile", parameters="sd", criterion="reml"))
    assert mine["sd_(Intercept)|g"] == pytest.approx(theirs["sd_(Intercept)|g"], rel=1e-4)


def test_names_of_compared_fits_say_what_is_held():
    formula, columns, options, _ = MODELS["held residual"]
    fit = mm.lmm(formula, data(columns), reml=False, **options)
    free = mm.lmm(formula, data(columns), reml=False, residual=options["residual"])
    table = mm.compare(fit, free)
    assert next(iter(table["model"])).endswith("; rho = 0.3")
    assert int(table["df"][1]) == 1
    fit = both("equal terms")[0]
    table = mm.compare(fit, mm.lmm(PENICILLIN, data("Penicillin"), reml=False))
    assert next(iter(table["model"])).endswith("; sd_(Intercept)|plate = sd_(Intercept)|sample")
    assert int(table["df"][1]) == 1
