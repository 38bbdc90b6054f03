"""The solver for many columns of which each level uses few: against the dense oracle."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import OptionError, SolverError
from mixedmodels.solver.choose import choose_solver, solver_choice
from mixedmodels.solver.dense import DenseSolver
from mixedmodels.solver.subsets import SubsetSolver
from mixedmodels.testing import SINGLE_FACTOR_KINDS, assert_close, check_solver, random_design


# "scaled" has columns far from 0: this solver takes columns as they are, it is meant for indicators
@pytest.mark.parametrize("kind", [kind for kind in SINGLE_FACTOR_KINDS if kind != "scaled"])
def test_agrees_with_the_dense_solver(kind):
    check_solver(SubsetSolver, [kind])


def irregular(seed=0, m=12, k=40, n=70):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0.0, 10.0, k))
    codes = rng.integers(0, m, n).astype(np.int32)
    codes[:m] = np.arange(m)
    columns = rng.integers(0, k, n)
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    names = tuple(f"t{j}" for j in range(k))
    structure = make_covariance("car1", k, times=times)
    term = RandomTerm("g", names, codes, list(range(m)), np.eye(k)[columns], structure)
    return Design(rng.normal(size=n), X, ("(Intercept)", "x"), (term,), None, rng.uniform(0.5, 2.0, n))


def test_everything_that_inference_asks_for():
    design = irregular()
    ours, dense = SubsetSolver(design), DenseSolver(design)
    structure = design.terms[0].covariance
    theta = structure.theta_from_natural([1.3, 0.6])
    factors = [structure.factor(theta)]
    directions = [[D] for D in structure.sigma_derivatives(theta)]
    for reml in (True, False):
        for a, b in zip(
            ours.trace_products(factors, directions, reml),
            dense.trace_products(factors, directions, reml),
            strict=True,
        ):
            assert_close(a, b, 1e-9, "trace products")
    a, b = ours.fixed_products(factors, directions), dense.fixed_products(factors, directions)
    assert_close(a.XVX, b.XVX, 1e-9, "XVX")
    assert_close(a.HDH, b.HDH, 1e-9, "HDH")
    assert_close(a.HDKDH, b.HDKDH, 1e-9, "HDKDH")
    for name in ("conditional_covariance", "random_covariance"):
        assert_close(getattr(ours, name)(factors, 0), getattr(dense, name)(factors, 0), 1e-9, name)
    rng = np.random.default_rng(1)
    R = rng.normal(size=(design.n, 3))
    beta, b_hat = ours.responses_at(factors)(R)
    wanted_beta, wanted_b = dense.responses_at(factors)(R)
    assert_close(beta, wanted_beta, 1e-9, "beta of responses")
    assert_close(b_hat[0], wanted_b[0], 1e-9, "b of responses")


def test_columns_without_rows_are_predicted_from_their_neighbours():
    design = irregular(m=3, n=30)
    structure = design.terms[0].covariance
    factors = [structure.factor(structure.theta_from_natural([2.0, 0.9]))]
    solution = SubsetSolver(design).solution(factors)
    assert_close(solution.b[0], DenseSolver(design).solution(factors).b[0], 1e-9, "b")
    seen = np.zeros((3, 40), dtype=bool)
    seen[design.terms[0].codes, design.terms[0].Z.argmax(axis=1)] = True
    assert np.all(solution.b[0][~seen] != 0.0)


def test_it_is_chosen_for_many_columns():
    assert solver_choice(irregular())[0] == "subsets"
    assert isinstance(choose_solver(irregular()), SubsetSolver)
    assert "at most" in choose_solver(irregular()).describe()


def test_other_designs_are_refused():
    crossed = random_design(0, "two_crossed")
    with pytest.raises(OptionError, match="one grouping factor"):
        solver_choice(crossed, "subsets")
    with pytest.raises(SolverError, match="one grouping factor"):
        SubsetSolver(crossed)
