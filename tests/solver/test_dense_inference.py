"""The oracle's quantities for inference, against definitions written with V itself."""

import numpy as np
import pytest

from mixedmodels.errors import SolverError
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.testing import DESIGN_KINDS, random_design, random_factors
from mixedmodels.testing.checks import random_directions

KINDS = [*DESIGN_KINDS]


def whole(design, factors):
    """Z, A kron Sigma, X (rows by sqrt(w)) and V as dense matrices."""
    w = np.ones(design.n) if design.weights is None else design.weights
    columns, blocks = [], []
    for term, factor in zip(design.terms, factors, strict=True):
        Z = np.ones((design.n, 1)) if term.Z is None else term.Z
        out = np.zeros((design.n, term.m, term.k))
        out[np.arange(design.n), term.codes] = Z
        columns.append(out.reshape(design.n, -1))
        A = np.eye(term.m) if term.precision is None else np.linalg.inv(term.precision.matrix.toarray())
        blocks.append((A, factor @ factor.T))
    Z = np.sqrt(w)[:, None] * np.hstack(columns)
    X = np.sqrt(w)[:, None] * design.X
    return Z, blocks, X


def spread(design, blocks, matrices):
    """diag_b(A_b kron matrix_b)."""
    from scipy.linalg import block_diag

    return block_diag(
        *[
            np.kron(A, np.zeros((t.k, t.k)) if D is None else D)
            for (A, _), t, D in zip(blocks, design.terms, matrices, strict=True)
        ]
    )


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_definitions(kind, singular):
    design = random_design(3, kind)
    factors = random_factors(design, 3, singular)
    directions = random_directions(design, 3, 2)
    Z, blocks, X = whole(design, factors)
    G = spread(design, blocks, [S for _, S in blocks])
    V = np.eye(design.n) + Z @ G @ Z.T
    Vi = np.linalg.inv(V)
    dV = [Z @ spread(design, blocks, row) @ Z.T for row in directions]
    solver = DenseSolver(design)
    got = solver.fixed_products(factors, directions)
    size = np.abs(X.T @ Vi @ X).max(initial=1e-300)
    np.testing.assert_allclose(got.XVX, X.T @ Vi @ X, atol=1e-9 * size)
    for i in range(2):
        expected = X.T @ Vi @ dV[i] @ Vi @ X
        np.testing.assert_allclose(got.HDH[i], expected, atol=1e-8 * np.abs(expected).max(initial=1e-300))
        for j in range(2):
            expected = X.T @ Vi @ dV[i] @ Vi @ dV[j] @ Vi @ X
            np.testing.assert_allclose(
                got.HDKDH[i, j], expected, atol=1e-8 * np.abs(expected).max(initial=1e-300)
            )
    assert solver.fixed_products(factors, directions, second=False).HDKDH is None
    # prediction errors from the joint normal distribution of b and y
    Phi = np.linalg.inv(X.T @ Vi @ X)
    P = Vi - Vi @ X @ Phi @ X.T @ Vi
    joint = G - G @ Z.T @ P @ Z @ G  # Var(b^ - b)
    cross = -G @ Z.T @ Vi @ X @ Phi  # Cov(b^ - b, beta^)
    rng = np.random.default_rng(0)
    N, at, rows, z = 7, 0, [], []
    for term in design.terms:
        codes = rng.integers(-1, term.m, N)
        values = rng.normal(size=(N, term.k))
        rows.append((codes, values))
        out = np.zeros((N, term.m, term.k))
        out[codes >= 0, codes[codes >= 0]] = values[codes >= 0]
        z.append(out.reshape(N, -1))
    z = np.hstack(z)
    x = rng.normal(size=(N, design.p))
    expected = np.diag(x @ Phi @ x.T + 2.0 * x @ cross.T @ z.T + z @ joint @ z.T)
    np.testing.assert_allclose(solver.predictor_variance(factors, x, rows), expected, rtol=1e-7, atol=1e-9)
    # other responses: generalised least squares and conditional means
    R = rng.normal(size=(design.n, 4))
    beta, effects = solver.responses_at(factors)(R)
    w = np.ones(design.n) if design.weights is None else design.weights
    R = np.sqrt(w)[:, None] * R
    np.testing.assert_allclose(beta, Phi @ X.T @ Vi @ R, atol=1e-8)
    modes = G @ Z.T @ P @ R
    for b, term in enumerate(design.terms):
        own = slice(at, at + term.m * term.k)
        at += term.m * term.k
        np.testing.assert_allclose(effects[b].reshape(term.m * term.k, 4), modes[own], atol=1e-8)
    at = 0
    crosses = solver.fixed_random_covariance(factors)
    for b, term in enumerate(design.terms):
        own = slice(at, at + term.m * term.k)
        at += term.m * term.k
        np.testing.assert_allclose(crosses[b].reshape(term.m * term.k, design.p), cross[own], atol=1e-8)
        square = joint[own, own].reshape(term.m, term.k, term.m, term.k)
        np.testing.assert_allclose(
            solver.random_covariance(factors, b), np.einsum("aiaj->aij", square), atol=1e-8
        )


def test_rows_need_one_entry_per_term():
    design = random_design(0, "two_crossed")
    with pytest.raises(SolverError, match="one per term"):
        DenseSolver(design).predictor_variance(random_factors(design, 0), np.ones((1, 3)), [None])
