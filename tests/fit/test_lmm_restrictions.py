"""Covariance parameters of linear models held at values and set equal, by natural name."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError

FORMULA = "Reaction ~ Days + (Days | Subject)"


@functools.cache
def sleepstudy():
    return mm.load_dataset("sleepstudy", backend="dict")


@functools.cache
def full(reml=True):
    return mm.lmm(FORMULA, sleepstudy(), reml=reml)


@functools.cache
def series():
    rng = np.random.default_rng(3)
    k, m = 5, 25
    R = 0.6 ** np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    b = (np.linalg.cholesky(R) * 1.3) @ rng.normal(size=(k, m))
    t, g = np.tile(np.arange(k), 2 * m), np.tile(np.repeat(np.arange(m), k), 2)
    data = {"f": np.array(list("abcde"))[t], "g": g, "x": rng.normal(size=t.size)}
    data["y"] = 1 + 0.5 * data["x"] + b[t, g] + rng.normal(size=t.size)
    return data


def values(fit):
    found = fit.variance_parameters()
    return dict(zip(found["term"], found["estimate"], strict=True))


def test_held_at_the_estimate_nothing_changes():
    for name, value in values(full()).items():
        if name == "sigma":
            continue
        fit = mm.lmm(FORMULA, sleepstudy(), fixed={name: value})
        assert fit.converged
        assert fit.loglik == pytest.approx(full().loglik, rel=1e-11)
        assert fit.sigma == pytest.approx(full().sigma, rel=1e-6)
        assert fit.df_model == full().df_model - 1
        assert values(fit)[name] == pytest.approx(value, rel=1e-9)


def test_correlation_zero_is_the_model_with_bars():
    fit = mm.lmm(FORMULA, sleepstudy(), fixed={"cor_Days.(Intercept)|Subject": 0.0})
    bars = mm.lmm("Reaction ~ Days + (Days || Subject)", sleepstudy())
    assert fit.loglik == pytest.approx(bars.loglik, rel=1e-11)
    assert fit.df_model == bars.df_model
    assert fit.beta == pytest.approx(bars.beta, rel=1e-8)


def test_the_criterion_is_the_profile():
    """A held parameter gives the constrained minimum that the profile of the model finds."""
    from mixedmodels.inference.parameters import chosen_one, parameters_of
    from mixedmodels.inference.profile.held import held_for

    base = full(False)
    for name, value in (("sd_Days|Subject", 8.0), ("cor_Days.(Intercept)|Subject", 0.5)):
        held = held_for(base, chosen_one(parameters_of(base), name))
        u = value if name.startswith("sd") else np.arcsin(value)
        point = held.at(u, held.estimate())
        fit = mm.lmm(FORMULA, sleepstudy(), reml=False, fixed={name: value})
        assert fit.criterion == pytest.approx(point.criterion, rel=1e-9)


def test_equal_standard_deviations():
    data = mm.load_dataset("Penicillin", backend="dict")
    formula = "diameter ~ 1 + (1 | plate) + (1 | sample)"
    fit = mm.lmm(formula, data, equal=[["sd_(Intercept)|plate", "sd_(Intercept)|sample"]])
    shared = mm.lmm(formula, data, share=[["(1 | plate)", "(1 | sample)"]])
    assert fit.loglik == pytest.approx(shared.loglik, rel=1e-11)
    assert fit.df_model == shared.df_model
    assert fit.theta == pytest.approx(np.repeat(shared.theta, 2), rel=1e-6)


@pytest.mark.parametrize("name", ["cor|g", "g.ar1.rho", "g.ar1.cor"])
def test_autocorrelation(name):
    formula = "y ~ x + ar1(0 + f | g)"
    fit = mm.lmm(formula, series(), fixed={name: 0.5})
    assert values(fit)["cor|g"] == pytest.approx(0.5, abs=1e-12)
    free = mm.lmm(formula, series())
    assert fit.loglik < free.loglik
    assert fit.df_model == free.df_model - 1
    assert any("held at 0.5" in message for message in fit.messages)
    again = fit.refit(fit.response())
    assert again.loglik == pytest.approx(fit.loglik, rel=1e-10)
    errors = dict(zip(fit.variance_parameters()["term"], fit.variance_parameters()["std_error"], strict=True))
    assert np.isnan(errors["cor|g"]) and errors["sd|g"] > 0.0


def test_save_and_load(tmp_path):
    fit = mm.lmm(FORMULA, sleepstudy(), fixed={"sd_Days|Subject": 6.0})
    fit.save(tmp_path / "fit.mm")
    again = mm.load(tmp_path / "fit.mm")
    assert again.sigma == pytest.approx(fit.sigma, rel=1e-12)
    assert again.df_model == fit.df_model


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fixed": {"Days": 1.0}}, "offset"),
        ({"fixed": {"sd_x|g": 1.0}}, "no parameter 'sd_x"),
        ({"fixed": {"sd_Days|Subject": -1.0}}, "out of its range"),
        ({"fixed": {"cor_Days.(Intercept)|Subject": 2.0}}, "out of its range"),
        ({"fixed": {"sd_Days|Subject": "a"}}, "finite number"),
        ({"equal": [["sd_Days|Subject", "cor_Days.(Intercept)|Subject"]]}, "different kinds"),
        ({"fixed": {"sd_Days|Subject": 1.0}, "priors": "wishart"}, "priors"),
        ({"fixed": [1]}, "must map"),
    ],
)
def test_wrong_restrictions(options, match):
    with pytest.raises(OptionError, match=match):
        mm.lmm(FORMULA, sleepstudy(), **options)


def exchangeable(seed, k, rho, sd):
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(np.outer(sd, sd) * np.where(np.eye(k) > 0, 1.0, rho))
    m = 8 if k == 3 else 12
    b = (rng.standard_normal((m, k)) * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    g, v = np.repeat(np.arange(m), 2 * k), np.tile(np.repeat(np.arange(k), 2), m)
    return {"y": 1.0 + b[g, v] + rng.standard_normal(len(g)), "g": g, "v": np.array(list("abcd"))[v]}


@pytest.mark.parametrize(
    ("seed", "k", "rho", "sd"),
    [(4, 3, -0.2, (1.0, 0.5, 0.0)), (2, 4, 0.1, (1.3, 0.3, 0.9, 0.6)), (3, 3, -0.2, (1.0, 0.5, 0.0))],
)
def test_the_lowest_of_several_minima(seed, k, rho, sd):
    """One search of these models ends in a local minimum, or not at all; correlations are at a bound."""
    data = exchangeable(seed, k, rho, np.array(sd))
    formula = "y ~ 1 + cs(0 + v | g)"
    free = mm.lmm(formula, data)
    for name in ("sd_va|g", "cor|g"):
        fit = mm.lmm(formula, data, fixed={name: values(free)[name]})
        assert fit.converged
        assert fit.criterion == pytest.approx(free.criterion, abs=1e-6)
        assert fit.df_model == free.df_model - 1


def test_a_correlation_of_one_is_refused_where_it_is_no_entry_of_theta():
    with pytest.raises(OptionError, match="boundary of its range"):
        mm.lmm(FORMULA, sleepstudy(), fixed={"cor_Days.(Intercept)|Subject": 1.0})
    with pytest.raises(OptionError, match="leave the column out"):
        mm.lmm(FORMULA, sleepstudy(), fixed={"sd_Days|Subject": 0.0})


def test_other_methods():
    fixed = {"sd_Days|Subject": 6.0}
    fit = mm.lmm(FORMULA, sleepstudy(), fixed=fixed)
    other = mm.lmm(FORMULA, sleepstudy(), method="lbfgsb", fixed=fixed)
    assert other.criterion == pytest.approx(fit.criterion, abs=1e-6)
    with pytest.raises(OptionError, match="knows no parameters that are held or equal"):
        mm.lmm(FORMULA, sleepstudy(), method="em", fixed=fixed)


def test_a_correlation_of_one_beside_what_is_held():
    """Natural parameters are no coordinates there; entries of factors are."""
    rng = np.random.default_rng(6)
    g, x = np.repeat(np.arange(20), 6), rng.normal(size=120)
    b = rng.normal(size=20)
    data = {"y": 1.0 + 0.9 * b[g] + 0.3 * b[g] * x + rng.normal(size=120), "x": x, "g": g}
    free = mm.lmm("y ~ x + (1 + x | g)", data)
    assert free.theta[2] == 0.0  # a correlation of one
    fit = mm.lmm("y ~ x + (1 + x | g)", data, fixed={"sd_x|g": values(free)["sd_x|g"]})
    assert fit.converged
    assert fit.criterion == pytest.approx(free.criterion, abs=1e-6)
