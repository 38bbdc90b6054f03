"""A known covariance by a factor of few columns beside other random terms: against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.errors import OptionError, SolverError
from mixedmodels.solver.low_rank import LowRankSolver
from mixedmodels.solver.low_rank_sparse import LowRankSparseSolver


def sample(seed=1, m=40, r=6, n=130):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(m, r)) / np.sqrt(r)
    rows, herd = rng.permutation(np.resize(np.arange(m - 3), n)), rng.integers(0, 9, n)
    x = rng.normal(size=n)
    y = 1.0 + 0.5 * x + (W @ rng.normal(size=r))[rows] * (1.0 + 0.4 * x) + rng.normal(size=n)
    data = {"y": y + 0.7 * rng.normal(size=9)[herd], "x": x, "id": rows, "herd": [f"h{i}" for i in herd]}
    data["w"] = rng.uniform(0.5, 2.0, n)
    return W, {"ids": np.arange(m), "factor": W}, data


def dense(fit, W):
    """Per term Z (A kron Sigma), V, all over sigma^2, and the whole Z and covariance of the effects."""
    design = fit.design
    Z = np.hstack([term.matrix(design.n).toarray() for term in design.terms])
    G = np.zeros((Z.shape[1],) * 2)
    at = 0
    for term, factor in zip(design.terms, fit._factors, strict=True):
        A = np.eye(term.m) if term.precision is None else W @ W.T
        size = term.m * term.k
        G[at : at + size, at : at + size] = np.kron(A, np.array(factor) @ np.array(factor).T)
        at += size
    w = np.ones(design.n) if design.weights is None else design.weights
    return Z, G, Z @ G @ Z.T + np.diag(1.0 / w)


FORMULAS = ["y ~ x + (1 | id) + (1 | herd)", "y ~ x + (1 + x | id)", "y ~ x + (1 | herd) + (1 + x || id)"]


@pytest.mark.parametrize("formula", [*FORMULAS, "y ~ x + (1 | id) + id(1 | id)"])
@pytest.mark.parametrize("options", [{}, {"reml": False, "weights": "w"}])
def test_it_is_the_model_of_the_dense_covariance(formula, options):
    W, known, data = sample()
    fit = mm.lmm(formula, data, known={"id": known}, **options)
    assert fit.converged and isinstance(fit.solver, LowRankSparseSolver)
    assert "6 columns" in fit.solver.describe() and "lower rank" in fit.solver.reason
    Z, G, V = dense(fit, W)
    X, y = fit.design.X, fit.design.y
    inverse = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ inverse @ X)
    beta = Phi @ X.T @ inverse @ y
    P = inverse - inverse @ X @ Phi @ X.T @ inverse
    nu = fit.nobs - (fit.design.p if fit.is_reml else 0)
    criterion = nu * (1.0 + np.log(2.0 * np.pi * float(y @ P @ y) / nu)) + np.linalg.slogdet(V)[1]
    if fit.is_reml:
        criterion -= np.linalg.slogdet(Phi)[1]
    assert fit.criterion == pytest.approx(criterion, rel=1e-11)
    assert fit.sigma**2 == pytest.approx(float(y @ P @ y) / nu, rel=1e-10)
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-9)
    np.testing.assert_allclose(fit.vcov, fit.sigma**2 * Phi, rtol=1e-8)
    np.testing.assert_allclose(np.concatenate([b.ravel() for b in fit._b]), G @ Z.T @ P @ y, atol=1e-9)
    # errors of prediction of the levels, with and without that of beta
    whole, at = G - G @ Z.T @ P @ Z @ G, 0
    given = G - G @ Z.T @ inverse @ Z @ G
    factors = [np.array(one) for one in fit._factors]
    across = -G @ Z.T @ inverse @ X @ Phi
    for b, term in enumerate(fit.design.terms):
        size = term.m * term.k
        blocks = [np.s_[at + l * term.k : at + (l + 1) * term.k] for l in range(term.m)]
        for matrix, found in (
            (whole, fit.solver.random_covariance(factors, b)),
            (given, fit.solver.conditional_covariance(factors, b)),
        ):
            np.testing.assert_allclose(found, [matrix[place, place] for place in blocks], atol=1e-10)
        cross = fit.solver.fixed_random_covariance(factors)[b]
        np.testing.assert_allclose(cross.reshape(size, -1), across[at : at + size], atol=1e-10)
        at += size


def test_the_estimate_is_a_maximum():
    _, known, data = sample(2)
    fit = mm.lmm(FORMULAS[0], data, known={"id": known})
    theta = np.array(fit.theta)
    value, gradient = fit.objective.value_and_gradient(theta)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
    for step in (np.array([1e-2, 0.0]), np.array([0.0, 1e-2])):
        assert min(fit.objective.value(theta + step), fit.objective.value(theta - step)) > value


def test_one_term_alone_is_that_of_the_rotated_rows():
    """All answers of the solver against those of the solver for one scalar term."""
    _, known, data = sample(3)
    fit = mm.lmm("y ~ x + (1 | id)", data, known={"id": known}, weights="w")
    one, many = fit.solver, LowRankSparseSolver(fit.design)
    assert isinstance(one, LowRankSolver)
    factors, directions = [np.array([[0.8]])], [[np.array([[1.0]])]]
    for reml in (True, False):
        a, b = (solver.components(factors, 2, directions, reml) for solver in (one, many))
        for name in ("logdet_L2", "logdet_RX2", "pwrss"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-11)
        np.testing.assert_allclose(a.T[0], b.T[0], rtol=1e-9)
        np.testing.assert_allclose(a.S[0], b.S[0], rtol=1e-9)
        np.testing.assert_allclose(a.wpw, b.wpw, rtol=1e-9)
        for mine, theirs in zip(
            one.trace_products(factors, directions, reml),
            many.trace_products(factors, directions, reml),
            strict=True,
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9)
    a, b = (solver.fixed_products(factors, directions) for solver in (one, many))
    for name in ("XVX", "HDH", "HDKDH"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-10)
    X = np.array([[1.0, 0.3], [1.0, -0.2]])
    rows = [(np.array([4, -1]), np.ones((2, 1)))]
    np.testing.assert_allclose(
        one.predictor_variance(factors, X, rows), many.predictor_variance(factors, X, rows), rtol=1e-9
    )
    R = np.random.default_rng(1).normal(size=(fit.nobs, 3))
    for mine, theirs in zip(one.responses_at(factors)(R)[1], many.responses_at(factors)(R)[1], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-10)


def test_small_sample_answers_are_the_limit_of_those_of_a_matrix():
    """K + 1e-8 I has an inverse and goes through the solver of sparse precisions."""
    W, known, data = sample(4)
    fit = mm.lmm(FORMULAS[0], data, known={"id": known})
    near = mm.lmm(FORMULAS[0], data, known={"id": (W @ W.T + 1e-8 * np.eye(40), np.arange(40))})
    assert fit.loglik == pytest.approx(near.loglik, rel=1e-7)
    for method in ("kr", "satterthwaite"):
        for name in ("std_error", "df"):
            np.testing.assert_allclose(
                fit.coefficients(method)[name], near.coefficients(method)[name], rtol=1e-4
            )
    a, b = (one.heritability().rows()[0] for one in (fit, near))
    assert a["std_error"] == pytest.approx(b["std_error"], rel=1e-4)
    np.testing.assert_allclose(fit.breeding_values("id")["pev"], near.breeding_values("id")["pev"], rtol=1e-4)


def test_further_answers_and_saving(tmp_path):
    _, known, data = sample(5)
    fit = mm.lmm(FORMULAS[0], data, known={"id": known})
    values = fit.breeding_values("id")
    assert len(values["pev"]) == 40 and float(np.min(values["pev"])) > 0.0
    fit.save(tmp_path / "fit.mm")
    again = mm.load(tmp_path / "fit.mm")
    np.testing.assert_array_equal(again.breeding_values("id")["pev"], values["pev"])
    assert fit.simulate(3, seed=1).shape == (130, 3)
    table = fit.predict({"x": [0.0], "id": [39], "herd": ["h1"]}, interval="prediction")
    assert table["prediction_sd"][0] > fit.sigma
    refit = fit.refit(fit.design.y)
    assert refit.loglik == pytest.approx(fit.loglik, rel=1e-10)


@pytest.mark.parametrize("solver", ["blocked", "dense"])
def test_solvers_that_need_an_inverse(solver):
    _, known, data = sample(6)
    with pytest.raises(OptionError, match='use solver="sparse"'):
        mm.lmm(FORMULAS[0], data, known={"id": known}, solver=solver)
    named = mm.lmm(FORMULAS[0], data, known={"id": known}, solver="sparse")
    assert named.loglik == pytest.approx(mm.lmm(FORMULAS[0], data, known={"id": known}).loglik, rel=1e-12)


def test_structured_residuals_need_an_inverse():
    _, known, data = sample(7)
    data["t"] = np.arange(130)
    with pytest.raises(SolverError, match=r"rank 6: it has no inverse.*0\.01"):
        mm.lmm("y ~ x + (1 | id)", data, known={"id": known}, residual="ar1(t | herd)")
