"""Parameters of residual structures held by their natural names."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import NotImplementedYetError, OptionError

FORMULA = "y ~ x + (1 | g)"
RESIDUAL = "ar1(t | g) * varident(s)"


@functools.cache
def data():
    rng = np.random.default_rng(3)
    g, t = np.repeat(np.arange(30), 6), np.tile(np.arange(1.0, 7.0), 30)
    x, s = rng.normal(size=180), np.array(["m", "f"])[g % 2]
    root = np.linalg.cholesky(0.5 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6))))
    e = (root @ rng.normal(size=(6, 30))).T.ravel() * np.where(g % 2, 1.5, 1.0)
    y = 1.0 + 0.5 * x + e + 0.8 * rng.normal(size=30)[g]
    return {"y": y, "x": x, "t": t, "s": s, "g": [f"g{i}" for i in g]}


@functools.cache
def free():
    return mm.lmm(FORMULA, data(), residual=RESIDUAL)


@pytest.mark.parametrize("reml", [True, False])
def test_it_is_the_fit_of_the_structure_with_that_correlation(reml):
    held = mm.lmm(FORMULA, data(), residual=RESIDUAL, fixed={"rho": 0.3}, reml=reml)
    own = mm.lmm(FORMULA, data(), residual="ar1(t | g, rho=0.3) * varident(s)", reml=reml)
    assert held.converged and held.optimum.message == "converged"
    assert held.residual["rho"] == pytest.approx(0.3, rel=1e-12)
    assert held.loglik == pytest.approx(own.loglik, rel=1e-11)
    assert held.df_model == own.df_model == free().df_model - 1
    assert held.aic == pytest.approx(own.aic, rel=1e-10)
    assert held.residual["sd_ratio[m]"] == pytest.approx(own.residual["sd_ratio[m]"], rel=1e-5)
    assert held.residual.std_error[0] == 0.0
    assert held.residual.std_error[1] == pytest.approx(own.residual.std_error[1], rel=1e-4)
    assert any("rho is held at 0.3" in note for note in held.messages)
    for ddf in ("satterthwaite", "kr") if reml else ("satterthwaite",):
        mine, theirs = held.coefficients(ddf=ddf), own.coefficients(ddf=ddf)
        for column in ("estimate", "std_error", "df"):
            assert np.array(mine[column]) == pytest.approx(np.array(theirs[column]), rel=1e-4)


def test_held_at_the_estimates_nothing_changes():
    values = {name: float(free().residual[name]) for name in ("rho", "sd_ratio[m]")}
    both = mm.lmm(FORMULA, data(), residual=RESIDUAL, fixed=values)
    assert both.loglik == pytest.approx(free().loglik, rel=1e-10)
    assert both.df_model == free().df_model - 2


def test_the_criterion_is_the_profile():
    from mixedmodels.inference.parameters import chosen_one, parameters_of
    from mixedmodels.inference.profile.held import held_for

    base = mm.lmm(FORMULA, data(), residual=RESIDUAL, reml=False)
    for name, value in (("rho", 0.2), ("sd_ratio[m]", 1.1)):
        held = held_for(base, chosen_one(parameters_of(base), name))
        point = held.at(float(held.scale.to(value)), held.estimate())
        fit = mm.lmm(FORMULA, data(), residual=RESIDUAL, reml=False, fixed={name: value})
        assert fit.criterion == pytest.approx(point.criterion, rel=1e-9)


def test_refusals():
    with pytest.raises(OptionError, match="no parameter 'rhoo'; available: rho, sd_ratio"):
        mm.lmm(FORMULA, data(), residual=RESIDUAL, fixed={"rhoo": 0.3})
    with pytest.raises(OptionError, match=r"fixed\['rho'\] = 1\.5 is out of the range"):
        mm.lmm(FORMULA, data(), residual=RESIDUAL, fixed={"rho": 1.5})
    with pytest.raises(OptionError, match="must be a finite number"):
        mm.lmm(FORMULA, data(), residual=RESIDUAL, fixed={"rho": "a"})
    with pytest.raises(NotImplementedYetError, match="only parameters of the residuals can be held"):
        mm.lmm(FORMULA, data(), residual=RESIDUAL, fixed={"sd_(Intercept)|g": 1.0})
