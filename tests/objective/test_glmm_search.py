"""Starts, search and boundary of generalised models."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError
from mixedmodels.objective.glmm import GLMMObjective
from mixedmodels.objective.glmm_boundary import with_positive_diagonals
from mixedmodels.objective.glmm_search import search
from mixedmodels.objective.glmm_start import coefficient_start, feasible_coefficients, linear_predictors
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.optimize.optimum import Status

from .glmm_models import binary_data, cbpp_data, cbpp_fit, cbpp_objective, objective_of


# ---------------------------------------------------------------------- starts
def test_coefficients_of_the_start_are_those_of_the_generalised_linear_model():
    """Two steps of reweighted least squares from R's start: within 1e-3 of the glm estimates."""
    objective = cbpp_objective()
    gamma, weights, _ = coefficient_start(objective.coordinates.inner, objective.family)
    own = np.linalg.solve(objective.coordinates.B[:4, :4], gamma)
    # glm(cbind(incidence, size - incidence) ~ period, binomial, cbpp) in R 4.2
    np.testing.assert_allclose(own, [-1.269021, -1.170826, -1.301407, -1.782305], atol=2e-2)
    assert (weights > 0.0).all()


@pytest.mark.parametrize(
    ("formula", "options", "most"),
    [
        ("y ~ x + (1 | g)", {"family": "binomial"}, 4),
        ("y ~ x + (x | g)", {"family": "binomial"}, 6),
        ("c ~ x + (x | g)", {"family": "poisson"}, 6),
    ],
)
def test_few_evaluations(formula, options, most):
    assert mm.glmm(formula, binary_data(), **options).optimum.evaluations <= most


def test_cbpp_takes_four_evaluations():
    assert cbpp_fit().optimum.evaluations <= 4


def test_infeasible_coefficients_move_inside():
    """Hard case 32: log-binomial means above 1."""
    objective = cbpp_objective(link="log")
    inner, family = objective.coordinates.inner, objective.family
    gamma = np.zeros(4)
    gamma[0] = 1.0  # every mean is e
    inside = feasible_coefficients(inner, family, gamma)
    assert (linear_predictors(inner, inside)[0] < 0.0).all()
    assert np.array_equal(feasible_coefficients(inner, family, inside), inside)


def test_log_binomial():
    """Means stay below 1 during the search; with common events the start would be outside."""
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(30), 10), np.tile(np.arange(10) / 9.0, 30)
    p = np.exp(-0.9 + 0.8 * x + 0.1 * rng.normal(size=30)[g])
    data = {"y": (rng.random(300) < np.minimum(p, 0.999)).astype(float), "x": x, "g": g.astype(str)}
    fit = mm.glmm("y ~ x + (1 | g)", data, family="binomial", link="log")
    assert fit.converged
    assert fit.fitted().max() < 1.0
    assert fit.fixef["x"] == pytest.approx(0.8, abs=0.3)


# ---------------------------------------------------------------------- the search
def test_gaussian_models_are_those_of_lmm():
    sleep = mm.load_dataset("sleepstudy", "pandas")
    fit = mm.glmm("Reaction ~ Days + (Days | Subject)", sleep, family="gaussian")
    lmm = mm.lmm("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
    assert fit.loglik == pytest.approx(lmm.loglik, abs=1e-8)
    np.testing.assert_allclose(fit.beta, lmm.beta, rtol=1e-7)
    assert np.exp(fit.gamma[-1]) == pytest.approx(lmm.sigma, rel=1e-5) or np.exp(
        0.5 * fit.gamma[-1]
    ) == pytest.approx(lmm.sigma, rel=1e-5)


def test_units_and_origins_do_not_matter():
    data = binary_data()
    one = mm.glmm("y ~ x + (x | g)", data, family="binomial")
    other = mm.glmm("y ~ x + (x | g)", {**data, "x": 1e4 * data["x"] + 7e4}, family="binomial")
    assert other.loglik == pytest.approx(one.loglik, abs=1e-8)
    assert other.fixef["x"] == pytest.approx(1e-4 * one.fixef["x"], rel=1e-5)
    assert abs(other.optimum.evaluations - one.optimum.evaluations) <= 2


@pytest.mark.parametrize("method", ["newton", "lbfgsb", "L-BFGS-B", "nelder-mead"])
def test_methods_agree(method):
    fit = cbpp_fit(method=method)
    assert fit.converged
    assert fit.loglik == pytest.approx(cbpp_fit().loglik, abs=2e-8)


def test_unknown_method():
    with pytest.raises(OptionError, match="unknown method 'simplex'"):
        cbpp_fit(method="simplex")


def test_the_value_is_that_of_the_estimates():
    for fit in (cbpp_fit(), mm.glmm("y ~ x + (x | g)", binary_data(), family="binomial")):
        assert fit.criterion == pytest.approx(fit.objective.value(fit.psi), abs=1e-8)


def test_covariance_from_the_search_is_that_at_the_estimates():
    fit = mm.glmm("c ~ x + (x | g)", binary_data(), family="poisson")
    again = fit.objective.joint_covariance(fit.psi)
    np.testing.assert_allclose(fit.objective.joint_covariance(fit.psi, fit.optimum.hessian), again, rtol=1e-4)


class ModelHessian(DenseLaplace):
    """Newton's matrix is that of the penalised likelihood only."""

    exact_hessian = False

    def newton(self, gamma, factors):
        found = self.evaluate(gamma, factors, 2)
        return type(found)(found.value, found.gradient, found.penalised + np.eye(len(found.gradient)))


def inexact(objective):
    coordinates = objective.coordinates
    return GLMMObjective(coordinates, ModelHessian(coordinates.inner, objective.family))


def test_a_model_of_the_hessian_is_enough():
    exact = cbpp_objective()
    objective = inexact(exact)
    found = search(objective, objective.start)
    assert found.converged
    assert found.value == pytest.approx(search(exact, exact.start).value, abs=1e-7)
    assert found.evaluations < 20


def test_start_by_name_array_and_theta():
    best = cbpp_fit()
    assert cbpp_fit(start=best.psi).optimum.evaluations <= 2
    assert cbpp_fit(start=best.theta).converged
    assert cbpp_fit(start={"sd_(Intercept)|herd": 1.3, "period2": 0.0}).loglik == pytest.approx(best.loglik)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"nothing": 1.0}, "no parameter 'nothing'"),
        ({"period2": "a"}, "start.*'a'"),
        ([1.0, 2.0], "2 values"),
        ("abc", "start must be a dict"),
        ([np.nan] * 5, "not finite"),
    ],
)
def test_wrong_starts(start, words):
    with pytest.raises(OptionError, match=words):
        cbpp_fit(start=start)


# ---------------------------------------------------------------------- the boundary
def no_variance_data():
    data = cbpp_data()
    rng = np.random.default_rng(3)
    return data.assign(incidence=rng.binomial(data["size"], 0.25))


def test_a_variance_of_zero_is_exactly_zero():
    fit = mm.glmm("incidence ~ period + (1 | herd)", no_variance_data(), family="binomial", trials="size")
    assert fit.theta.tolist() == [0.0]
    assert fit.optimum.status is Status.BOUNDARY
    assert fit.is_singular
    assert any("variance of (Intercept) is estimated as zero" in note for note in fit.messages)


@pytest.mark.parametrize("make", [lambda o: o, inexact], ids=["exact", "model"])
def test_a_start_of_zero_is_left_when_it_is_a_saddle(make):
    objective = make(cbpp_objective())
    psi = np.array(objective.start)
    psi[-1] = 0.0
    found = search(objective, psi)
    assert found.converged
    assert found.theta[-1] == pytest.approx(0.6422614, rel=1e-4)


def test_a_correlation_of_one():
    """The slope is a multiple of the intercept: the factor's last diagonal is zero."""
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(25), 12), rng.normal(size=300)
    b = rng.normal(size=25)
    c = rng.poisson(np.exp(0.4 + 0.3 * x + 0.6 * b[g] * (1.0 + 0.5 * x)))
    fit = mm.glmm("c ~ x + (x | g)", {"c": c, "x": x, "g": g.astype(str)}, family="poisson")
    if fit.is_singular:
        assert fit.theta[-1] == 0.0
        assert any("correlation" in note for note in fit.messages)
    full = fit.objective.evaluate(fit.psi, 2)
    free = np.flatnonzero(fit.psi != 0.0)
    assert np.abs(full.gradient[free]).max() < 1e-3


def test_diagonals_are_not_negative():
    objective = objective_of("y ~ x + (x | g)", binary_data(), family="binomial")
    psi = np.array([0.1, 0.2, -0.7, -0.3, -0.4])
    tidy = with_positive_diagonals(objective, psi)
    np.testing.assert_allclose(tidy, [0.1, 0.2, 0.7, 0.3, 0.4])
    assert objective.value(tidy) == pytest.approx(objective.value(psi), abs=1e-9)
    found = search(objective, psi)
    assert (found.theta[[2, 4]] >= 0.0).all()
    if found.hessian is not None:
        np.testing.assert_allclose(
            objective.joint_covariance(found.theta, found.hessian),
            objective.joint_covariance(found.theta),
            rtol=1e-4,
            atol=1e-9,
        )


def test_standard_deviations_that_start_too_large_shrink_on_the_log_scale():
    """From far above Newton's step overshoots zero; the step on the log scale does not."""
    from mixedmodels.objective.glmm_search import _FirstStep

    data = binary_data()
    data["h"] = np.arange(len(data["y"])) % 15
    objective = objective_of("y ~ x + (1 | g) + (1 | h)", data, family="binomial")
    psi = objective.start.copy()
    psi[objective.n_gamma :] = 0.9
    v = objective.v_of(psi)
    first = _FirstStep(objective, v, True)
    value, gradient, hessian = objective.newton(v)
    plain = objective.psi_of(v - np.linalg.solve(hessian, gradient))[objective.n_gamma :]
    shrunken = objective.psi_of(first.v)[objective.n_gamma :]
    assert first.taken and first.known[0] < value
    assert ((shrunken > 0.0) & (shrunken < 0.9)).all() and (plain < 0.0).all()
    assert not _FirstStep(objective, v, False).tried
    found = search(objective, psi)
    np.testing.assert_allclose(found.trace[0][1], psi, atol=1e-12)
    assert found.value == pytest.approx(search(objective, objective.start).value, abs=1e-8)
