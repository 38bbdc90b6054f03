"""Error variances of predictors whose rows are combinations of rows, for fits with structured residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["error_variance", "one_level"]


def one_level(Z: Any, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Levels (N,) and values (N, k) of a sparse (N, m k) matrix whose rows touch one level each, or None.

    Parameters
    ----------
    Z : csr_array
    k : int
        Columns of the term.
    """
    N = Z.shape[0]
    row = np.repeat(np.arange(N), np.diff(Z.indptr))
    level = Z.indices // k
    codes = np.full(N, -1, dtype=np.int64)
    codes[row] = level
    if not np.array_equal(codes[row], level):
        return None
    values = np.zeros((N, k))
    np.add.at(values, (row, Z.indices % k), Z.data)
    return codes, values


def error_variance(fit: Any, X: np.ndarray, parts: Sequence[Any]) -> np.ndarray:
    """``Var[x'(beta^ - beta) + z'(b^ - b)] / sigma^2`` of N rows, shape (N,).

    Parameters
    ----------
    fit : StructuredFit
    X : ndarray, shape (N, p)
    parts : sequence of csr_array
        z by term, shape (N, m k).
    """
    design = fit.design
    factors = [np.array(factor) for factor in fit._factors]
    solver, rows = fit.solver, []
    for term, Z in zip(design.terms, parts, strict=True):
        found = None if term.several_levels else one_level(Z, term.k)
        rows.append(Z if found is None else found)
    if any(not isinstance(row, tuple) for row in rows) and not solver.takes_sparse_rows:
        from mixedmodels.solver.whitened_choose import sparse_whitened_solver

        solver = fit._once("sparse_solver", lambda: sparse_whitened_solver(design, fit._point)[1])
    return solver.predictor_variance(factors, np.ascontiguousarray(X), rows)
