"""Leverage, standardised residuals and deletions with structured residuals, against the dense formulae."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.inference.structured_rows import inverse_of_rows, inverse_times_X, row_numbers

GROWTH = "distance ~ age * Sex"
MODELS = {
    "within": ("(age | Subject)", "ar1(occ | Subject) * varident(Sex)"),
    "crossed": ("(1 | Subject) + (1 | pair)", "ar1(occ | Subject)"),
    "gls": ("", "car1(age | Subject) * varpower(age)"),
    "variances": ("(1 | Subject)", "varident(Sex)"),
}


@pytest.fixture(scope="module")
def growth():
    data = mm.load_dataset("Orthodont", backend="pandas")
    return data.assign(occ=(data["age"] / 2 - 3).astype(int), pair=np.arange(len(data)) % 7)


@pytest.fixture(scope="module", params=list(MODELS))
def fit(request, growth):
    terms, residual = MODELS[request.param]
    if not terms:
        return mm.gls(GROWTH, growth, residual=residual)
    return mm.lmm(f"{GROWTH} + {terms}", growth, residual=residual)


def dense(fit):
    """R, V^{-1} and P over sigma^2, dense."""
    design, point = fit.design, fit._point
    R = point.unwhiten(point.unwhiten_adjoint(np.eye(design.n)))
    V = R.copy()
    for term, factor in zip(design.terms, fit._factors, strict=True):
        half = term.matrix(design.n) @ np.kron(np.eye(term.m), np.array(factor))
        V += half @ half.T
    inverse = np.linalg.inv(V)
    B = inverse @ design.X
    return R, inverse, inverse - B @ np.linalg.solve(design.X.T @ B, B.T)


def test_numbers_of_the_rows(fit):
    R, inverse, P = dense(fit)
    H = np.eye(fit.nobs) - R @ P
    y = fit.design.y
    np.testing.assert_allclose(H @ y, fit.fitted(), rtol=1e-8)
    numbers = row_numbers(fit)
    np.testing.assert_allclose(numbers.leverage, np.diag(H), atol=1e-9)
    np.testing.assert_allclose(fit.leverage(), np.diag(H), atol=1e-9)
    np.testing.assert_allclose(numbers.P, np.diag(P), rtol=1e-8)
    np.testing.assert_allclose(numbers.e, P @ y, atol=1e-9)
    np.testing.assert_allclose(numbers.fitted, np.diag(R - R @ P @ R), rtol=1e-7)
    np.testing.assert_allclose(inverse_times_X(fit), inverse @ fit.design.X, atol=1e-8)
    rows = np.array([3, 50, 4, 99, 7])
    found = inverse_of_rows(fit).blocks(rows, np.array([0, 0, 0, 1, 0]))
    expected = inverse[np.ix_(rows, rows)]
    expected[3, :3] = expected[:3, 3] = expected[3, 4] = expected[4, 3] = 0.0
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_standardized_residuals_have_their_standard_deviations(fit):
    R, _, P = dense(fit)
    sd = fit.sigma * np.sqrt(np.diag(R @ P @ R))
    np.testing.assert_allclose(fit.residuals("standardized"), fit.residuals() / sd, rtol=1e-7)
    y = fit.design.y
    d2 = (P @ y) ** 2 / np.diag(P) / fit.sigma**2
    factor = np.sqrt((fit._nu - 1) / (fit._nu - d2))
    np.testing.assert_allclose(fit.residuals("studentized"), fit.residuals() / sd * factor, rtol=1e-7)


def without(fit, keep):
    """beta and y'Py over the rows kept, from the dense covariance matrix of the model."""
    design, point = fit.design, fit._point
    V = point.unwhiten(point.unwhiten_adjoint(np.eye(design.n)))
    for term, factor in zip(design.terms, fit._factors, strict=True):
        half = term.matrix(design.n) @ np.kron(np.eye(term.m), np.array(factor))
        V += half @ half.T
    inverse, X, y = np.linalg.inv(V[np.ix_(keep, keep)]), design.X[keep], design.y[keep]
    beta = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ y)
    r = y - X @ beta
    return beta, np.sqrt(r @ inverse @ r / (keep.size - design.p))


def test_deletions_are_exact(fit):
    by_row = fit.influence()
    for row in (0, 37, 107):
        beta, sigma = without(fit, np.delete(np.arange(fit.nobs), row))
        moved = [by_row[f"dfbeta[{name}]"][row] for name in fit.fixef]
        np.testing.assert_allclose(moved, fit.beta - beta, atol=1e-9)
        assert by_row["sigma"][row] == pytest.approx(sigma, rel=1e-9)
    by_occasion = fit.influence("occ")  # cuts through the series
    occasions = fit._data["occ"].to_numpy()
    for place, level in enumerate(by_occasion["level"]):
        beta, sigma = without(fit, np.flatnonzero(occasions != int(level)))
        moved = [by_occasion[f"dfbeta[{name}]"][place] for name in fit.fixef]
        np.testing.assert_allclose(moved, fit.beta - beta, atol=1e-8)
        assert by_occasion["sigma"][place] == pytest.approx(sigma, rel=1e-8)


def test_cooks_distance_is_the_move_of_the_fitted_values(fit):
    R, _, P = dense(fit)
    H = np.eye(fit.nobs) - R @ P
    delta = (P @ fit.design.y) / np.diag(P)
    expected = delta**2 * np.diag(np.linalg.solve(R, H)) / (fit.design.p * fit.sigma**2)
    np.testing.assert_allclose(fit.cooks_distance(), expected, rtol=1e-7)
    assert fit.cooks_distance("Subject").shape == (27,)


def test_weights_as_a_structure(growth):
    """Known variances two ways: as weights of an ordinary model, and as a structure."""
    data = growth.assign(w=np.linspace(0.5, 2.0, len(growth)), v=1.0 / np.linspace(0.5, 2.0, len(growth)))
    plain = mm.lmm(GROWTH + " + (1 | Subject)", data, weights="w")
    fit = mm.lmm(GROWTH + " + (1 | Subject)", data, residual="varfixed(v)")
    np.testing.assert_allclose(fit.leverage(), plain.leverage(), rtol=1e-5)
    np.testing.assert_allclose(fit.cooks_distance(), plain.cooks_distance(), rtol=1e-4)
    for kind in ("pearson", "scaled", "standardized", "studentized"):
        np.testing.assert_allclose(fit.residuals(kind), plain.residuals(kind), rtol=1e-4, atol=1e-6)
    one, other = fit.influence("Subject"), plain.influence("Subject")
    for name in ("cooks_distance", "mdffits", "covratio", "sigma"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4)


def test_refits_without_levels(growth):
    fit = mm.lmm(GROWTH + " + (1 | Subject)", growth, residual="ar1(occ | Subject) * varident(Sex)")
    table = fit.influence("Subject", refit=True, progress=False)
    new = fit.refit(growth[growth["Subject"] != table["level"][5]])
    assert table["sigma"][5] == pytest.approx(new.sigma, rel=1e-4)
    assert table["theta[" + fit.theta_names[1] + "]"][5] == pytest.approx(new.theta[1], abs=1e-3)
    lost = fit.influence("Sex", refit=True, progress=False)
    assert "2 of 2 fits failed" in " ".join(lost.notes)
