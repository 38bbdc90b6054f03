"""nagq=0: the gradient of the profiled criterion, lme4's values, restrictions and priors."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.errors import OptionError

from .glmm_models import binary_data, cbpp_fit, cbpp_objective, differences, objective_of


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + (x | g)", {"family": "binomial"}),
        ("c ~ x + (1 | g)", {"family": "poisson", "priors": {"x": ("normal", 0, 1), "sd": "gamma"}}),
        ("x ~ t + (1 | g)", {"family": "gaussian"}),
        ("y ~ x + t + (1 | g)", {"family": "binomial", "equal": [["x", "tb"]]}),
    ],
)
def test_gradient(formula, options):
    objective = objective_of(formula, binary_data(), nagq=0, **options)
    v = objective.v_of(objective.start) + 0.05
    value, gradient, _ = objective.newton(v)
    assert value == pytest.approx(objective.value(objective.point(v)), abs=1e-9)
    np.testing.assert_allclose(
        gradient, differences(lambda x: objective.value(objective.point(x)), v, 1e-4), atol=2e-6
    )


def test_coefficients_minimise_the_penalised_likelihood():
    objective = cbpp_objective(nagq=0)
    psi = objective.coefficients(objective.start)
    best = objective.modes(psi).penalised
    for j in range(4):
        for step in (-1e-3, 1e-3):
            moved = psi.copy()
            moved[j] += step
            assert objective.modes(moved).penalised > best


def test_the_fit_is_close_to_the_laplace_fit_and_not_above():
    fast, fit = cbpp_fit(nagq=0), cbpp_fit()
    assert fast.loglik < fit.loglik
    assert fit.loglik - fast.loglik < 0.1
    assert fast.df_model == fit.df_model


def test_a_gaussian_response_has_one_answer():
    """The penalised mode over beta is then the maximum likelihood estimate."""
    import mixedmodels as mm

    sleep = mm.load_dataset("sleepstudy", "pandas")
    fast = mm.glmm("Reaction ~ Days + (1 | Subject)", sleep, family="gaussian", nagq=0)
    fit = mm.lmm("Reaction ~ Days + (1 | Subject)", sleep, reml=False)
    assert fast.loglik == pytest.approx(fit.loglik, abs=1e-7)
    np.testing.assert_allclose(fast.beta, fit.beta, rtol=1e-6)


def test_held_coefficients():
    fit = cbpp_fit(nagq=0, fixed={"period2": -1.0, "sd_(Intercept)|herd": 0.5})
    assert fit.fixef["period2"] == -1.0
    assert fit.theta.tolist() == [0.5]


def test_coefficients_equal_to_other_parameters_are_refused():
    with pytest.raises(OptionError, match="nagq=1"):
        cbpp_fit(nagq=0, equal=[["period2", "herd.(Intercept)"]])


def crossed_data():
    data = binary_data()
    rows = np.arange(len(data["y"]))
    return {**data, "h": rows % 15, "row": rows}


CROSSED = [
    ("y ~ x + (x | g) + (1 | h)", {"family": "binomial"}),
    ("c ~ x + (1 | g) + (1 | h) + (1 | row)", {"family": "poisson"}),
    ("c ~ x + (1 | g) + (1 | h)", {"family": "nbinom2", "dispersion": "~ x"}),
    ("y ~ x + t + (1 | g) + (1 | h)", {"family": "binomial", "equal": [["x", "tb"]]}),
]


@pytest.mark.parametrize(("formula", "options"), CROSSED)
def test_derivatives_of_crossed_factors(formula, options):
    """The Hessian is that of the profiled criterion, with the third derivatives of F."""
    objective = objective_of(formula, crossed_data(), nagq=0, **options)
    assert objective.exact_hessian
    v = objective.v_of(objective.start) + 0.05
    value, gradient, hessian = objective.newton(v)
    assert value == pytest.approx(objective.value(objective.point(v)), abs=1e-9)
    found = differences(lambda x: objective.value(objective.point(x)), v, 1e-4)
    np.testing.assert_allclose(gradient, found, atol=1e-5)
    for j, e in enumerate(1e-4 * np.eye(len(v))):
        column = (objective.newton(v + e)[1] - objective.newton(v - e)[1]) / 2e-4
        np.testing.assert_allclose(hessian[:, j], column, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("formula", "options"), CROSSED)
def test_coefficients_and_random_effects_together(formula, options):
    """The joint mode is where alternating between coefficients and random effects ends."""
    objective = objective_of(formula, crossed_data(), nagq=0, **options)
    joint = objective.point(objective.v_of(objective.start))
    held = objective.modes(joint).u
    alternating = objective.coefficients(objective.psi_of(objective.v_of(objective.start)))
    np.testing.assert_allclose(joint, alternating, atol=1e-7)
    other = objective_of(formula, crossed_data(), nagq=0, **options).modes(joint).u
    for a, b in zip(held, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
