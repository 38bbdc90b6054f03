"""Compiled pieces that small fits need: sums for the start, a few equations, random effects of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from mixedmodels.solver._kernels import crossproducts as kernels


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_few_equations(size):
    rng = np.random.default_rng(size)
    E, b = 1e3 * rng.normal(size=(size, size)), rng.normal(size=size)
    found = kernels.solve_few(np.column_stack([E, b]).tolist())
    np.testing.assert_allclose(found, np.linalg.solve(E, b), rtol=1e-9)


def test_a_zero_on_the_diagonal_needs_a_pivot_and_dependent_equations_have_no_solution():
    assert kernels.solve_few([[0.0, 2.0, 4.0], [3.0, 0.0, 6.0]]) == pytest.approx([2.0, 2.0])
    assert kernels.solve_few([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]) is None


def test_sums_by_level():
    rng = np.random.default_rng(3)
    half = rng.normal(size=(4, 2, 3))
    A, B = half @ half.transpose(0, 2, 1), rng.normal(size=(4, 2, 3))
    A[1] = B[1] = 0.0  # a level whose columns are zero
    W, S = np.einsum("lii->li", A), B[:, :, -1]
    explained = np.sum(S[W > 0.0] ** 2 / W[W > 0.0])
    expected = [W.sum(), (W**2).sum(), S.sum(), explained]
    np.testing.assert_allclose(kernels.level_sums(A, B), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_random_effects_are_added_to_the_rows(k):
    rng = np.random.default_rng(k)
    codes = rng.integers(0, 6, 50).astype(np.int32)
    Z, b, eta = np.asfortranarray(rng.normal(size=(50, k))), rng.normal(size=(6, k)), rng.normal(size=50)
    expected = eta + np.einsum("ij,ij->i", Z, b[codes])
    kernels.add_effects(eta, codes, Z, b)
    np.testing.assert_allclose(eta, expected, rtol=1e-13)
    if k == 1:
        kernels.add_effects(eta, codes, None, b)
        np.testing.assert_allclose(eta, expected + b[codes, 0], rtol=1e-13)
    with pytest.raises(ValueError, match="one code per row"):
        kernels.add_effects(eta, codes[1:], Z, b)
