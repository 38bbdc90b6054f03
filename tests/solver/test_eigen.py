"""The eigen-decomposition solver: against the dense one, and where no inverse exists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, KnownCovariance, RandomTerm
from mixedmodels.errors import DataError, SolverError
from mixedmodels.solver.choose import choose_solver, solver_choice
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.solver.eigen import EigenSolver
from mixedmodels.testing.checks import check_solver_on


def related_design(seed, n=40, m=50, weights=False, slope=False, repeated=False, rank=None):
    """A random design with one term of dense known covariance; levels without rows included."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(m, rank or 3 * m))
    A = W @ W.T / W.shape[1]
    codes = rng.integers(0, m, n) if repeated else rng.permutation(m)[:n]
    Z = rng.normal(size=(n, 1)) if slope else None
    X = np.column_stack([np.ones(n), rng.normal(size=n) + 5.0])
    y = X @ [1.0, 2.0] + rng.multivariate_normal(np.zeros(m), A)[codes] + rng.normal(size=n)
    term = RandomTerm(
        "g",
        ("(Intercept)",),
        codes.astype(np.int32),
        np.arange(m),
        Z,
        make_covariance("us", 1),
        KnownCovariance(A),
    )
    w = rng.uniform(0.5, 2.0, n) if weights else None
    return Design(y, X, ("(Intercept)", "x"), (term,), weights=w)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_agrees_with_the_dense_solver(weights, slope, repeated):
    design = related_design(1, weights=weights, slope=slope, repeated=repeated)
    check_solver_on(EigenSolver(design), design, 1, 1e-9, "eigen")


def test_singular_covariance():
    """With A = WW' of low rank there is no precision; everything follows from V itself."""
    design = related_design(2, rank=7)
    A = design.terms[0].precision.covariance
    d, U = np.linalg.eigh(A)
    W = (U * np.sqrt(np.maximum(d, 0.0)))[:, -7:]
    assert solver_choice(design)[0] == "eigen"
    s = 0.8
    V = np.eye(design.n) + s**2 * (W @ W.T)[np.ix_(design.terms[0].codes, design.terms[0].codes)]
    parts = choose_solver(design).components([np.array([[s]])])
    assert parts.logdet_L2 == pytest.approx(np.linalg.slogdet(V)[1], rel=1e-10)
    XV = np.linalg.solve(V, design.X)
    beta = np.linalg.solve(design.X.T @ XV, XV.T @ design.y)
    solution = EigenSolver(design).solution([np.array([[s]])])
    np.testing.assert_allclose(solution.beta, beta, rtol=1e-9)
    rest = np.linalg.solve(V, design.y - design.X @ beta)
    b = s**2 * (W @ W.T)[:, design.terms[0].codes] @ rest
    np.testing.assert_allclose(solution.b[0][:, 0], b, rtol=1e-8, atol=1e-10)
    with pytest.raises(SolverError, match=r"singular .* identical twins"):
        DenseSolver(design)


def test_choice():
    design = related_design(3)
    assert solver_choice(design)[0] == "eigen"
    assert solver_choice(related_design(3, n=200, m=20, repeated=True))[0] == "blocked"


def test_refusals():
    design = related_design(4)
    bad = KnownCovariance(design.terms[0].precision.covariance - 0.9 * np.eye(50))
    with pytest.raises(DataError, match="negative eigenvalue"):
        EigenSolver(replace(design, terms=(replace(design.terms[0], precision=bad),)))
    with pytest.raises(SolverError, match="one random intercept or slope"):
        EigenSolver(replace(design, terms=design.terms * 2))
