r"""Rows of fits with structured residuals: error variances, leverages, and entries of ``V^{-1}``.

With :math:`F = (Z, X)`, C the error covariance of Henderson's equations over sigma^2 and :math:`G = R^{-1}F`,

.. math:: P = R^{-1} - G C G', \qquad H = I - RP = F C G', \qquad
          V^{-1} = R^{-1} - G_Z \Lambda M^{-1} \Lambda' G_Z' .

Quadratic forms of C at any rows are `Solver.predictor_variance`; those of two rows follow by polarisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "InverseRows",
    "RowNumbers",
    "error_variance",
    "inverse_of_rows",
    "inverse_times_X",
    "one_level",
    "row_numbers",
]


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
    design, solver = fit.design, fit.solver
    rows: list[Any] = []
    for term, Z in zip(design.terms, parts, strict=True):
        found = None if term.several_levels else one_level(Z, term.k)
        rows.append(Z if found is None else found)
    if any(not isinstance(row, tuple) for row in rows) and not solver.takes_sparse_rows:
        solver = _sparse_solver(fit)
    return solver.predictor_variance(_factors(fit), np.ascontiguousarray(X), rows)


@dataclass(frozen=True, slots=True, eq=False)
class RowNumbers:
    """What leverages and deletions of single rows are made of, over sigma^2 where they are variances.

    Attributes
    ----------
    fitted : ndarray, shape (n,)
        Diagonal of ``F C F'``: error variances of the conditional fitted values.
    leverage : ndarray, shape (n,)
        Diagonal of H.
    moved : ndarray, shape (n,)
        Diagonal of ``G C G' = R^{-1} H``.
    P : ndarray, shape (n,)
        Diagonal of P.
    e : ndarray, shape (n,)
        ``Py = R^{-1}(y - fitted)``.
    """

    fitted: np.ndarray
    leverage: np.ndarray
    moved: np.ndarray
    P: np.ndarray
    e: np.ndarray


def row_numbers(fit: Any) -> RowNumbers:
    """`RowNumbers` of a fit with structured residuals, kept by it."""
    return fit._once("row_numbers", lambda: _row_numbers(fit))


def _row_numbers(fit: Any) -> RowNumbers:
    from scipy.sparse import csr_array, dia_array

    design, point = fit.design, fit._point
    n, X = design.n, np.asarray(design.X)
    Ri = _inverse(fit)
    Z = [csr_array(term.matrix(n)) for term in design.terms]
    GX, GZ = Ri @ X, [csr_array(Ri @ one) for one in Z]
    fitted, moved = error_variance(fit, X, Z), error_variance(fit, GX, GZ)
    # f'Cg = (q(f + r g) - q(f - r g)) / (4 r), with r that makes both of the same size
    r = point.variances
    scale = dia_array((r[None, :], [0]), shape=(n, n))
    up, down = (
        error_variance(
            fit,
            X + sign * r[:, None] * GX,
            [csr_array(a + sign * (scale @ b)) for a, b in zip(Z, GZ, strict=True)],
        )
        for sign in (1.0, -1.0)
    )
    e = (design.y - fit._linear_predictor())[:, None]
    return RowNumbers(
        fitted,
        (up - down) / (4.0 * r),
        moved,
        np.maximum(Ri.diagonal() - moved, 0.0),
        point.whiten_adjoint(point.whiten(e))[:, 0],
    )


def inverse_times_X(fit: Any) -> np.ndarray:
    """``B = V^{-1}X``, shape (n, p): ``R^{-1}(X + Z Cov(b^ - b, beta^) C^{-1})``."""
    design, point = fit.design, fit._point
    C = np.asarray(fit._solution.vcov_unscaled)
    length = np.sqrt(np.diagonal(C))
    B = np.array(design.X, dtype=float)
    for term, joint in zip(design.terms, fit.solver.fixed_random_covariance(_factors(fit)), strict=True):
        flat = joint.reshape(-1, joint.shape[2])
        slopes = np.linalg.solve(C / length / length[:, None], (flat / length).T).T / length
        B += term.matrix(design.n) @ slopes
    return point.whiten_adjoint(point.whiten(B))


@dataclass(frozen=True, slots=True, eq=False)
class InverseRows:
    """Entries of ``V^{-1}`` between rows, as `RowInverse` of ordinary models gives them."""

    Ri: Any
    G: Any
    solver: Any
    factors: Any

    def blocks(self, rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """``V^{-1}[rows, rows]`` with zeros between rows of different groups."""
        out = self.Ri[rows][:, rows].toarray()
        if self.solver is not None:
            half = self.solver.halves(self.factors, self.G[rows])
            out -= half.T @ half
        out *= groups[:, None] == groups
        return out


def inverse_of_rows(fit: Any) -> InverseRows:
    """`InverseRows` of a fit with structured residuals."""
    from scipy.sparse import csr_array, hstack

    design, Ri = fit.design, _inverse(fit)
    if not design.terms:
        return InverseRows(Ri, None, None, ())
    G = csr_array(hstack([Ri @ term.matrix(design.n) for term in design.terms]))
    return InverseRows(Ri, G, _sparse_solver(fit), _factors(fit))


def _inverse(fit: Any) -> Any:
    """``R^{-1}``, sparse."""
    from scipy.sparse import csr_array

    def compute() -> Any:
        W = fit._point.whitening()[0]
        return csr_array(W.T @ W)

    return fit._once("residual_inverse", compute)


def _sparse_solver(fit: Any) -> Any:
    """The solver of whitened rows that may touch several levels."""
    from mixedmodels.solver.whitened_choose import sparse_whitened_solver

    return fit._once("sparse_solver", lambda: sparse_whitened_solver(fit.design, fit._point)[1])


def _factors(fit: Any) -> list[np.ndarray]:
    return [np.array(factor) for factor in fit._factors]
