"""Everything the notebook of dirmeier/mixed-models computes by hand, by public functions.

It fits linear and Poisson mixed models: working response and weights, one step of weighted mixed-model
equations, the profile and the restricted criterion at given variances, simulation. Its published figures of
linear models are met here. Those of its Poisson model are no references: its criterion has U G^-1 U' + W in
the place of the variance U G U' + W^-1 of the working response, and its estimates, (0.129, 0.545) for true
(0.25, 0.5), show it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import linalg

import mixedmodels as mm
from mixedmodels.objective.henderson import (
    henderson,
    profile_criterion,
    random_effects_matrix,
    restricted_criterion,
)

Q = 0.1 * np.array([[1.0, 0.25], [0.25, 1.0]])


@pytest.fixture(scope="module")
def simulated():
    data = pd.read_csv(Path(__file__).parent / "references" / "notebook" / "simulated.csv")
    return mm.lmm("y ~ Days + (Days | Subject)", data)


@pytest.fixture(scope="module")
def counts():
    """Poisson counts of the notebook's second model, on the design of the sleep data."""
    rng = np.random.default_rng(23)
    data = {"x": np.tile(np.linspace(0.0, 1.0, 20), 30), "g": np.repeat(np.arange(30), 20)}
    given = {"beta": {"(Intercept)": 0.25, "x": 0.5}, "family": "poisson"}
    data["y"] = mm.simulate(
        "~ x + (x | g)", data, sd={"g": list(np.sqrt(np.diag(Q)))}, corr={"g": 0.25}, seed=rng, **given
    )
    return mm.glmm("y ~ x + (x | g)", data, family="poisson")


# ---------------------------------------------------------------------- linear models
def test_the_sleep_data():
    fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", "pandas"))
    np.testing.assert_allclose(fit.beta, [251.40510485, 10.46728596], rtol=1e-9)
    assert fit.sigma**2 == pytest.approx(654.9405, abs=1e-3)
    assert fit.loglik == pytest.approx(-871.8141, abs=5e-5)
    np.testing.assert_allclose(list(fit.se.values()), [6.825, 1.546], atol=5e-4)
    np.testing.assert_allclose(
        fit.varcorr["Subject"].covariance, [[612.09, 9.60434], [9.60434, 35.07166]], rtol=1e-5
    )


def test_the_simulated_linear_model(simulated):
    assert simulated.sigma**2 == pytest.approx(0.10451774782009256, rel=1e-6)
    np.testing.assert_allclose(simulated.beta, [2.02667544, 1.01888476], atol=5e-9)
    published = [[0.02451861, 0.02563742], [0.02563742, 0.11471649]]
    np.testing.assert_allclose(simulated.varcorr["Subject"].covariance, published, rtol=3e-6)
    assert simulated.loglik == pytest.approx(-110.6631, abs=5e-5)
    np.testing.assert_allclose(list(simulated.se.values()), [0.058, 0.080], atol=5e-4)


def test_variances_criteria_and_predictors_by_hand(simulated):
    """`marginal_variance`, `ranef_variance`, `profile_mll`, `restricted_mll`, `wls`, `solve_gamma`."""
    X, y, term = simulated.design.X, simulated.design.y, simulated.design.terms[0]
    U = random_effects_matrix(term.codes, term.Z)
    assert U.shape == (180, 36)
    G = linalg.block_diag(*[simulated.varcorr["Subject"].covariance] * 18)
    V = U @ G @ U.T + simulated.sigma**2 * np.eye(180)
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    beta = np.linalg.solve(information, X.T @ inverse @ y)
    b = G @ U.T @ inverse @ (y - X @ beta)
    found = henderson(X, U, G, simulated.sigma**-2, y)
    np.testing.assert_allclose(found.beta, beta, rtol=1e-9)
    np.testing.assert_allclose(found.b, b, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.beta, simulated.beta, rtol=1e-9)
    np.testing.assert_allclose(found.b, simulated.ranef_arrays()[0].b.ravel(), rtol=1e-7, atol=1e-9)
    r, n, p = y - X @ beta, 180, 2
    theirs = np.linalg.slogdet(V)[1] + r @ inverse @ r  # without constants
    arguments = (X, U, G, simulated.sigma**-2, y)
    assert profile_criterion(*arguments) == pytest.approx(theirs + n * np.log(2 * np.pi), rel=1e-11)
    restricted = theirs + np.linalg.slogdet(information)[1] + (n - p) * np.log(2 * np.pi)
    assert restricted_criterion(*arguments) == pytest.approx(restricted, rel=1e-11)
    assert restricted_criterion(*arguments) == pytest.approx(-2.0 * simulated.loglik, rel=1e-11)


def test_a_linear_model_without_data():
    """The notebook's simulation as one call; many draws have its moments."""
    data = {"Days": np.tile(np.arange(10.0), 18), "Subject": np.repeat(np.arange(18), 10)}
    Y = mm.simulate(
        "~ Days + (Days | Subject)",
        data,
        beta=[2.0, 1.0],
        sd={"Subject": np.sqrt(np.diag(Q)).tolist()},
        corr={"Subject": 0.25},
        sigma=np.sqrt(0.1),
        seed=23,
        n=2000,
    )
    Z = np.column_stack([np.ones(10), np.arange(10.0)])
    V = Z @ Q @ Z.T + 0.1 * np.eye(10)
    blocks = Y.reshape(18, 10, 2000).transpose(1, 0, 2).reshape(10, -1)
    np.testing.assert_allclose(blocks.mean(axis=1), 2.0 + np.arange(10.0), atol=0.08)
    np.testing.assert_allclose(np.cov(blocks), V, rtol=0.05, atol=0.02)


# ---------------------------------------------------------------------- the Poisson model
def test_working_response_and_weights(counts):
    """z = eta + (y - mu) / h'(eta) and w = h'(eta)^2 / mu with h = exp."""
    eta = counts.linear_predictors()[0]
    mu = np.exp(eta)
    np.testing.assert_allclose(counts.working_weights(), mu**2 / mu, rtol=1e-12)
    y = counts.design.y
    np.testing.assert_allclose(counts.working_response(), eta + (y - mu) / mu, rtol=1e-12, atol=1e-12)


def test_steps_from_scratch_end_at_the_joint_mode(counts):
    """`irls`: weighted mixed-model equations until nothing changes, the estimates of `nagq=0`."""
    fast = counts.update(nagq=0)
    term, X, y = fast.design.terms[0], fast.design.X, fast.design.y
    U = random_effects_matrix(term.codes, term.Z)
    G = np.kron(np.eye(term.m), fast.varcorr["g"].covariance)
    eta = np.log(y + 0.5)
    for _ in range(30):
        mu = np.exp(eta)
        step = henderson(X, U, G, mu, eta + (y - mu) / mu)
        eta = X @ step.beta + U @ step.b
    np.testing.assert_allclose(step.beta, fast.beta, rtol=1e-5)
    np.testing.assert_allclose(step.b, fast.ranef_arrays()[0].b.ravel(), atol=1e-5)


@pytest.mark.parametrize("reml", [False, True])
def test_alternating_criterion_and_step_is_pql(counts, reml):
    """The notebook's loop, with the right variance, ends where a criterion at given variances is least."""
    found = counts.pql(reml=reml)
    term, criterion = counts.design.terms[0], restricted_criterion if reml else profile_criterion
    U = random_effects_matrix(term.codes, term.Z)
    L = np.linalg.cholesky(found.varcorr["g"].covariance)

    def value(change):
        own = L + np.array([[change[0], 0.0], [change[1], change[2]]])
        G = np.kron(np.eye(term.m), own @ own.T)
        return criterion(counts.design.X, U, G, found.weights, found.response)

    least = value(np.zeros(3))
    for direction in np.vstack([np.eye(3), -np.eye(3)]):
        assert value(1e-3 * direction) > least
        h = 1e-4 * direction
        assert abs(value(h) - value(-h)) < 1e-6  # stationary


def test_maximum_likelihood_recovers_the_parameters(counts):
    """True values (0.25, 0.5): within two standard errors, unlike the notebook's."""
    z = (counts.beta - [0.25, 0.5]) / np.sqrt(counts.vcov.diagonal())
    assert np.abs(z).max() < 2.0
    np.testing.assert_allclose(counts.varcorr["g"].sds, np.sqrt(np.diag(Q)), atol=0.15)
