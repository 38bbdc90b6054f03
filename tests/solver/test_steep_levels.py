"""Very large relative variances: levels of several columns against extended precision."""

import numpy as np
import pytest

from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.solver.blocked import BlockedSolver
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.testing import random_design, random_theta

L = np.longdouble
EXTENDED = np.finfo(L).eps < 1e-18


def cholesky(A):
    R = np.zeros_like(A)
    for j in range(len(A)):
        v = A[j:, j] - R[j:, :j] @ R[j, :j]
        R[j:, j] = v / np.sqrt(v[0])
    return R


def forward(R, B):
    X = B.copy()
    for j in range(len(R)):
        X[j] = (X[j] - R[j, :j] @ X[:j]) / R[j, j]
    return X


def exact(design, factors, directions):
    """T and S per term, traces and X'V^-1 V_i V^-1 X from V itself, by their definitions."""
    n, p = design.n, design.p
    X, y = design.X.astype(L), design.y.astype(L)
    V, Zs = np.eye(n, dtype=L), []
    for term, factor in zip(design.terms, factors, strict=True):
        Z = np.zeros((n, term.m, term.k), dtype=L)
        Z[np.arange(n), term.codes] = 1.0 if term.Z is None else term.Z
        ZL = (Z @ factor.astype(L)).reshape(n, -1)
        V += ZL @ ZL.T
        Zs.append(Z)
    R = cholesky(V)
    WX = forward(R, X)
    Q = forward(cholesky(WX.T @ WX), WX.T).T
    WZ = [forward(R, Z.reshape(n, -1)) for Z in Zs]
    H = [(WX.T @ W).reshape(p, *Z.shape[1:]) for W, Z in zip(WZ, Zs, strict=True)]
    PZ = [(W - Q @ (Q.T @ W)).reshape(Z.shape) for W, Z in zip(WZ, Zs, strict=True)]
    r = forward(R, y[:, None])[:, 0]
    r = r - Q @ (Q.T @ r)
    c = [np.einsum("nmk,n->mk", W, r) for W in PZ]

    def spread(row, blocks):
        return sum(
            np.einsum("amk,kl,bml->ab", B, D.astype(L), B)
            for B, D in zip(blocks, row, strict=True)
            if D is not None
        )

    PVP = [spread(row, PZ) for row in directions]
    return {
        "T": [np.einsum("nmk,nml->kl", W, W) for W in PZ],
        "S": [v.T @ v for v in c],
        "products": np.array([[np.sum(A * B.T) for B in PVP] for A in PVP]),
        "traces": np.array([np.trace(A) for A in PVP]),
        "HDH": np.array([spread(row, H) for row in directions]),
    }


def distances(solver, factors, directions, truth):
    parts = solver.components(factors, 1)
    products, traces = solver.trace_products(factors, directions)
    found = {
        "T": parts.T,
        "S": parts.S,
        "products": products,
        "traces": traces,
        "HDH": solver.fixed_products(factors, directions, second=False).HDH,
    }
    out = {}
    for name, value in found.items():
        pairs = zip(value, truth[name], strict=True) if name in "TS" else [(value, truth[name])]
        out[name] = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    return out


@pytest.mark.skipif(not EXTENDED, reason="no floating-point type wider than double here")
@pytest.mark.parametrize("kind", ["crossed_slopes", "crossed_two_terms", "one_slope", "one_vector"])
@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_large_relative_variances_lose_no_more_than_the_dense_solver(kind, scale):
    design = random_design(1, kind)
    theta = random_theta(design, 1)
    dense = DenseSolver(design)
    objective = LMMObjective(design, dense)
    factors = [scale * factor for factor in objective.factors(theta)]
    directions = objective.directions(theta)
    truth = exact(design, factors, directions)
    plain = distances(dense, factors, directions, truth)
    for cut in (-1, 1000):  # coupling kept dense, and sparse
        solver = type("Cut", (BlockedSolver,), {"_cut": cut})(design)
        ours = distances(solver, factors, directions, truth)
        for name, distance in ours.items():
            assert distance < max(1e-14 * scale**2, 3.0 * plain[name]), (name, distance, plain[name])


@pytest.mark.parametrize("kind", ["crossed_slopes", "one_vector"])
def test_the_two_forms_of_a_level_meet(kind):
    """Around the size where levels change their formulae nothing jumps; singular factors included."""
    design = random_design(2, kind)
    objective = LMMObjective(design, BlockedSolver(design))
    oracle = LMMObjective(design, DenseSolver(design))
    for singular in (False, True):
        theta = random_theta(design, 3, singular=singular)
        for scale in (3.0, 10.0, 30.0, 100.0):
            value, gradient = objective.value_and_gradient(scale * theta)
            expected, slopes = oracle.value_and_gradient(scale * theta)
            assert abs(value - expected) < 1e-11 * abs(expected)
            np.testing.assert_allclose(gradient, slopes, rtol=0, atol=1e-9 * np.abs(slopes).max())
