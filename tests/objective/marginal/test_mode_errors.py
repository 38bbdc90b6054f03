"""Moves of the modes against differences of modes, covariances against the dense inverse."""

from __future__ import annotations

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.objective.marginal.dense import DenseLaplace
from mixedmodels.objective.marginal.mode_errors import ModeErrors

MODELS = {
    "slope": ("y ~ x + (x | g)", None),
    "crossed": ("y ~ x + (x | g) + (1 | h)", None),
    "zeros": ("y ~ x + (x | g) + (1 | h)", "~ x + (1 | g)"),
    "one_factor_two_predictors": ("y ~ x + (x | g)", "~ x + (1 | g)"),
}


@pytest.fixture(scope="module", params=list(MODELS))
def at_a_point(request):
    """Design, gamma, factors away from the estimates, and the dense oracle."""
    rng = np.random.default_rng(1)
    n = 200
    data = {
        "x": rng.normal(size=n),
        "g": rng.integers(0, 9, n).astype(str),
        "h": rng.integers(0, 7, n).astype(str),
    }
    data["y"] = rng.poisson(np.exp(0.3 + 0.3 * data["x"])) * (rng.random(n) < 0.7)
    formula, zero_inflation = MODELS[request.param]
    fit = mm.glmm(formula, data, family="poisson", zero_inflation=zero_inflation)
    factors = [np.array(f) + 0.3 * np.eye(len(f)) + 0.1 * np.tri(len(f), k=-1) for f in fit._factors]
    oracle = DenseLaplace(fit.generalised, fit.family)
    return fit, np.array(fit.gamma), factors, oracle


def test_moves_are_the_derivatives_of_the_modes(at_a_point):
    fit, gamma, factors, oracle = at_a_point
    start = np.concatenate([gamma, [factors[b][i, j] for b, i, j in oracle.entries]])

    def modes(point):
        own = [factor.copy() for factor in factors]
        for (b, i, j), value in zip(oracle.entries, point[len(gamma) :], strict=True):
            own[b][i, j] = value
        return np.concatenate([part.ravel() for part in oracle.modes(point[: len(gamma)], own).b])

    h = 1e-5
    numeric = [(modes(start + h * e) - modes(start - h * e)) / (2 * h) for e in np.eye(len(start))]
    moves = ModeErrors(fit.generalised, fit.family, gamma, factors).moves()
    exact = np.concatenate([part.reshape(-1, part.shape[2]) for part in moves]).T
    np.testing.assert_allclose(exact, numeric, atol=1e-7)


def test_covariances_of_any_rows(at_a_point):
    fit, gamma, factors, oracle = at_a_point
    design, rng, r = fit.generalised, np.random.default_rng(2), 60
    _, _, _, H, _ = oracle._mode(gamma, factors)
    Lambda = oracle._Lambda(factors)
    V = Lambda @ np.linalg.inv(H) @ Lambda.T
    wide, rows, codes = np.zeros((len(design.predictors), r, design.q)), [], {}
    for term, c, where in zip(design.terms, design.term_predictor, oracle._slices, strict=True):
        code = codes.setdefault(term.group, rng.integers(-1, term.m, r))  # also pairs that no row has
        Z = rng.normal(size=(r, term.k))
        known = np.flatnonzero(code >= 0)
        for j in range(term.k):
            wide[c][known, where.start + code[known] * term.k + j] = Z[known, j]
        rows.append((code, Z))
    errors = ModeErrors(design, fit.family, gamma, factors)
    exact = np.einsum("cij,jk,dik->cdi", wide, V, wide)
    np.testing.assert_allclose(errors.covariances(rows), exact, atol=1e-13)
    q = design.q
    root = np.concatenate([part.reshape(-1, q) for part in errors.split(np.eye(q))])
    np.testing.assert_allclose(root @ np.linalg.inv(errors.precision().toarray()) @ root.T, V, atol=1e-13)
