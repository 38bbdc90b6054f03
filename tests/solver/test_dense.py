"""The dense reference solver against the definition (explicit V) and published values."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import IdentifiabilityError, SolverError
from mixedmodels.solver.base import Solver
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.testing import (
    DESIGN_KINDS,
    check_solver,
    random_design,
    random_directions,
    random_factors,
)


def by_definition(design, factors, directions, reml):
    """Everything from V itself, without any penalised form."""
    n = design.n
    w = np.ones(n) if design.weights is None else design.weights
    root = np.sqrt(w)
    y = root * (design.y - (0.0 if design.offset is None else design.offset))
    X = root[:, None] * design.X
    Zs, As = [], []
    for term in design.terms:
        Z = np.zeros((n, term.m, term.k))
        Z[np.arange(n), term.codes] = np.ones((n, 1)) if term.Z is None else term.Z
        Zs.append(root[:, None, None] * Z)
        As.append(
            np.eye(term.m) if term.precision is None else np.linalg.inv(term.precision.matrix.toarray())
        )

    def covariance(matrices):
        V = np.zeros((n, n))
        for Z, A, matrix in zip(Zs, As, matrices, strict=True):
            if matrix is not None:
                V += np.einsum("nai,ab,ij,mbj->nm", Z, A, matrix, Z, optimize=True)
        return V

    V = np.eye(n) + covariance([f @ f.T for f in factors])
    Vi = np.linalg.inv(V)
    XVX = X.T @ Vi @ X
    P = Vi - Vi @ X @ np.linalg.inv(XVX) @ X.T @ Vi if design.p else Vi
    middle = P if reml else Vi
    Py = P @ y
    beta = np.linalg.solve(XVX, X.T @ Vi @ y) if design.p else np.zeros(0)
    out = {
        "logdet_L2": np.linalg.slogdet(V)[1],
        "logdet_RX2": np.linalg.slogdet(XVX)[1] if design.p else 0.0,
        "pwrss": y @ Py,
        "T": [
            np.einsum("nai,nm,mbj,ab->ij", Z, middle, Z, A, optimize=True)
            for Z, A in zip(Zs, As, strict=True)
        ],
        "S": [
            np.einsum("nai,n,m,mbj,ab->ij", Z, Py, Py, Z, A, optimize=True)
            for Z, A in zip(Zs, As, strict=True)
        ],
        "beta": beta,
        "b": [
            np.einsum("ab,ij,nbj,n->ai", A, f @ f.T, Z, Py, optimize=True)
            for Z, A, f in zip(Zs, As, factors, strict=True)
        ],
        "K": [Z.reshape(n, -1) for Z in Zs],
        "Py": Py,
    }
    Vd = [covariance(d) for d in directions]
    out["wpw"] = np.array([[Py @ a @ P @ b @ Py for b in Vd] for a in Vd])
    out["products"] = np.array([[np.trace(middle @ a @ middle @ b) for b in Vd] for a in Vd])
    out["traces"] = np.array([np.trace(middle @ a) for a in Vd])
    # Var(b | y, beta) / sigma^2 = G - G Z'V^{-1}Z G, term by term
    out["conditional"] = []
    for Z, A, f in zip(Zs, As, factors, strict=True):
        G = np.kron(A, f @ f.T)
        flat = Z.reshape(n, -1)
        full = G - G @ flat.T @ Vi @ flat @ G
        m, k = A.shape[0], f.shape[0]
        out["conditional"].append(np.einsum("aiaj->aij", full.reshape(m, k, m, k)))
    return out


@pytest.mark.parametrize("kind", DESIGN_KINDS)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("singular", [True, False])
def test_agrees_with_the_definition(kind, reml, singular):
    design = random_design(3, kind, n=70)
    factors = random_factors(design, 4, singular)
    directions = random_directions(design, 5, 3)
    expected = by_definition(design, factors, directions, reml)
    solver = DenseSolver(design)
    actual = solver.components(factors, 2, directions, reml)
    tight = {"rtol": 1e-8, "atol": 1e-9 * max(1.0, expected["pwrss"])}
    for name in ("logdet_L2", "logdet_RX2", "pwrss"):
        assert np.isclose(getattr(actual, name), expected[name], rtol=1e-9, atol=1e-9), name
    for b in range(len(design.terms)):
        for name in ("T", "S"):
            want = expected[name][b]
            assert np.allclose(getattr(actual, name)[b], want, rtol=1e-8, atol=1e-8 * np.abs(want).max()), (
                name
            )
    assert np.allclose(actual.wpw, expected["wpw"], rtol=1e-8, atol=1e-8 * np.abs(expected["wpw"]).max())
    products, traces = solver.trace_products(factors, directions, reml)
    assert np.allclose(products, expected["products"], rtol=1e-8, atol=1e-8 * np.abs(products).max())
    assert np.allclose(traces, expected["traces"], rtol=1e-8, atol=1e-8 * np.abs(traces).max())
    solution = solver.solution(factors, reml)
    assert np.allclose(solution.beta, expected["beta"], rtol=1e-8)
    for b in range(len(design.terms)):
        assert np.allclose(solution.b[b], expected["b"][b], **tight)
        assert np.allclose(solution.u[b] @ factors[b].T, solution.b[b], **tight)
        want = expected["conditional"][b]
        scale = np.abs(factors[b] @ factors[b].T).max()
        assert np.allclose(solver.conditional_covariance(factors, b), want, rtol=1e-8, atol=1e-7 * scale)


def test_passes_its_own_conformance_suite():
    check_solver(DenseSolver, seeds=(0,), n=60)


def test_conformance_suite_catches_a_wrong_term():
    class Wrong(DenseSolver):
        def components(self, factors, order=0, directions=None, reml=True):
            return super().components(factors, order, directions, True)  # ignores ML

    with pytest.raises(AssertionError, match="ML: T of term 0"):
        check_solver(Wrong, kinds=("two_crossed",), seeds=(0,))


def test_is_a_solver_and_says_what_it_does():
    solver = DenseSolver(random_design(1, "two_crossed"))
    assert isinstance(solver, Solver)
    assert "19 x 19" in solver.describe()


def test_large_mean_costs_no_digits():
    design = random_design(2, "two_crossed")
    factors = random_factors(design, 1)
    shifted = Design(design.y + 2.0**30, design.X, design.x_names, design.terms)
    y = shifted.y - 2.0**30  # what is left of y after rounding: the shift itself is exact
    same = Design(y, design.X, design.x_names, design.terms)
    one, two = DenseSolver(shifted).components(factors, 1), DenseSolver(same).components(factors, 1)
    assert np.isclose(one.pwrss, two.pwrss, rtol=1e-9)
    assert np.isclose(
        DenseSolver(shifted).solution(factors).beta[0] - 2.0**30, DenseSolver(same).solution(factors).beta[0]
    )


def test_offset_is_a_shift_of_the_response():
    design = random_design(2, "offset")
    factors = random_factors(design, 1)
    shifted = Design(design.y - design.offset, design.X, design.x_names, design.terms)
    one, two = DenseSolver(design).components(factors), DenseSolver(shifted).components(factors)
    assert one == two or np.isclose(one.pwrss, two.pwrss, rtol=1e-12)


def test_a_duplicated_row_is_weight_two_for_beta_and_determinants():
    """log|V| differs from the weighted one only by constants; beta and b are the same."""
    design = random_design(2, "one_scalar", n=60)
    factors = random_factors(design, 3)
    twice = np.r_[np.arange(60), np.arange(60)]
    term = design.terms[0]
    doubled = Design(
        design.y[twice],
        design.X[twice],
        design.x_names,
        (RandomTerm(term.group, term.names, term.codes[twice], term.levels, None, term.covariance),),
    )
    weighted = Design(design.y, design.X, design.x_names, design.terms, weights=np.full(60, 2.0))
    one, two = DenseSolver(doubled).solution(factors), DenseSolver(weighted).solution(factors)
    assert np.allclose(one.beta, two.beta, rtol=1e-10)
    assert np.allclose(one.b[0], two.b[0], rtol=1e-9, atol=1e-12)
    assert np.isclose(one.logdet_L2, two.logdet_L2, rtol=1e-12)
    assert np.isclose(one.pwrss, two.pwrss, rtol=1e-10)


def test_dependent_fixed_columns_are_named():
    design = random_design(2, "one_scalar")
    X = np.column_stack([design.X, design.X[:, 1] + design.X[:, 2]])
    with pytest.raises(IdentifiabilityError, match="'sum'"):
        DenseSolver(Design(design.y, X, (*design.x_names, "sum"), design.terms))


def test_wrong_factors_get_one_clear_error():
    solver = DenseSolver(random_design(2, "one_slope"))
    with pytest.raises(SolverError, match=r"'g' has shape \(1, 1\), expected \(2, 2\)"):
        solver.components([np.eye(1)])
    with pytest.raises(SolverError, match="one per term"):
        solver.components([])
    with pytest.raises(SolverError, match="not finite"):
        solver.components([np.full((2, 2), np.nan)])
    with pytest.raises(SolverError, match="directions"):
        solver.components([np.eye(2)], order=2)


def test_dyestuff_at_a_published_theta():
    """ML deviance of Dyestuff at theta = 0.713 (the data of lme4; Davies and Goldsmith 1972)."""
    y = [1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560]
    y += [1445, 1440, 1595, 1465, 1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445]
    codes = np.repeat(np.arange(6), 5).astype(np.int32)
    term = RandomTerm("Batch", ("(Intercept)",), codes, tuple("ABCDEF"), None, make_covariance("us", 1))
    solver = DenseSolver(Design(np.array(y, dtype=float), np.ones((30, 1)), ("(Intercept)",), (term,)))
    parts = solver.components([np.array([[0.713]])], reml=False)
    deviance = parts.logdet_L2 + 30 * (1 + np.log(2 * np.pi * parts.pwrss / 30))
    assert np.isclose(deviance, 327.34216280954615, rtol=1e-13)
