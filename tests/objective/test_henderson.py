"""Henderson's equations: known answers, the linear fit, the modes of a generalised fit."""

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import DataError
from mixedmodels.objective.henderson import (
    henderson,
    profile_criterion,
    random_effects_matrix,
    restricted_criterion,
)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(8)
    X = np.column_stack([np.ones(20), rng.standard_normal(20)])
    Z = random_effects_matrix(np.arange(20) % 4, np.column_stack([np.ones(20), X[:, 1]]))
    half = rng.standard_normal((2, 2))
    G = np.kron(np.eye(4), half @ half.T)
    w = rng.uniform(0.5, 2.0, 20)
    return X, Z, G, w, rng.standard_normal(20)


def _marginal(X, Z, G, w, z):
    V = Z @ G @ Z.T + np.diag(1.0 / w)
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    beta = np.linalg.solve(information, X.T @ inverse @ z)
    return V, inverse, information, beta


def test_equations_of_the_marginal_model(model):
    X, Z, G, _, z = model
    V, inverse, information, beta = _marginal(*model)
    found = henderson(*model)
    np.testing.assert_allclose(found.beta, beta, rtol=1e-10)
    np.testing.assert_allclose(found.b, G @ Z.T @ inverse @ (z - X @ beta), rtol=1e-9)
    np.testing.assert_allclose(found.covariance[:2, :2], np.linalg.inv(information), rtol=1e-9)
    r = z - X @ beta
    profile = np.linalg.slogdet(V)[1] + r @ inverse @ r + 20 * np.log(2 * np.pi)
    assert profile_criterion(*model) == pytest.approx(profile, rel=1e-12)
    restricted = profile + np.linalg.slogdet(information)[1] - 2 * np.log(2 * np.pi)
    assert restricted_criterion(*model) == pytest.approx(restricted, rel=1e-12)


def test_a_singular_covariance_is_no_obstacle(model):
    X, Z, G, w, z = model
    found = henderson(X, Z, 0.0 * G, w, z)
    np.testing.assert_array_equal(found.b, np.zeros(8))
    np.testing.assert_allclose(found.beta, np.linalg.solve(X.T * w @ X, X.T * w @ z), rtol=1e-10)


def test_the_linear_fit():
    data = mm.load_dataset("sleepstudy", backend="dict")
    for reml, criterion in ((True, restricted_criterion), (False, profile_criterion)):
        fit = mm.lmm("Reaction ~ Days + (Days | Subject)", data, reml=reml)
        term = fit.design.terms[0]
        Z = random_effects_matrix(term.codes, term.Z)
        G = np.kron(np.eye(term.m), fit.varcorr["Subject"].covariance)
        arguments = (fit.design.X, Z, G, fit.sigma**-2, fit.design.y)
        assert criterion(*arguments) == pytest.approx(fit.criterion, rel=1e-11)
        found = henderson(*arguments)
        np.testing.assert_allclose(found.beta, fit.beta, rtol=1e-9)
        np.testing.assert_allclose(found.b, fit.ranef_arrays()[0].b.ravel(), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.covariance[:2, :2], fit.vcov, rtol=1e-8)


def test_modes_of_a_generalised_fit_are_a_fixed_point():
    data = mm.load_dataset("cbpp", backend="dict")
    fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
    term = fit.design.terms[0]
    Z = random_effects_matrix(term.codes)
    G = fit.varcorr["herd"].variances[0] * np.eye(term.m)
    z = fit.working_response() - fit.design.X @ fit.beta
    b = henderson(np.zeros((56, 0)), Z, G, fit.working_weights(), z).b
    np.testing.assert_allclose(b, fit.ranef_arrays()[0].b[:, 0], rtol=1e-6, atol=1e-8)


def test_wrong_input(model):
    X, Z, G, w, z = model
    for arguments, message in [
        ((X, Z, G, -w, z), "w must be positive: row 0"),
        ((X, Z, -G, w, z), "positive semi-definite"),
        ((X, Z, G + np.triu(np.ones((8, 8)), 1), w, z), "symmetric"),
        ((X, Z[:5], G, w, z), "shapes"),
        ((X, Z, G, w[:3], z), "one per row"),
        ((np.column_stack([X, X[:, 0]]), Z, G, w, z), "linearly dependent"),
        ((X, Z, G, w, np.where(z > 0, np.nan, z)), "z holds missing"),
        (("a", Z, G, w, z), "numbers"),
    ]:
        with pytest.raises(DataError, match=message):
            henderson(*arguments)
