"""What inference needs from a model, by plain dense algebra: the oracle of `fixed_products` and its kin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Directions, FixedProducts, PredictorRows

if TYPE_CHECKING:
    from mixedmodels.solver.dense import DenseSolver, PenalizedSolution

__all__ = [
    "direction_image",
    "fixed_products",
    "fixed_random_covariance",
    "predictor_variance",
    "random_covariance",
    "responses_at",
    "rows_matrix",
]


def direction_image(solver: DenseSolver, direction: Sequence[np.ndarray | None], H: np.ndarray) -> np.ndarray:
    """``diag_b(A_b kron dSigma_b) H`` for a (q, c) matrix."""
    out = np.zeros_like(H)
    for term, rows, A, dS in zip(solver._terms, solver._slices, solver._relationship, direction, strict=True):
        if dS is not None:
            block = dS @ H[rows].reshape(term.m, term.k, -1)
            if A is not None:
                block = np.tensordot(A, block, 1)
            out[rows] = block.reshape(term.m * term.k, -1)
    return out


def fixed_products(
    solver: DenseSolver,
    factors: Sequence[np.ndarray],
    directions: Directions,
    second: bool,
    orthonormal: bool = False,
) -> FixedProducts:
    """`Solver.fixed_products`, from all of K."""
    state = solver._penalized(factors)
    R, p, r = solver._fixed.R, solver.p, len(directions)
    basis = np.linalg.inv(R) if orthonormal else None
    if orthonormal:
        R = np.eye(p)
    root = state.RX.T @ R  # X'V^{-1}X = root'root
    H = (solver._Z.T @ state.ViQ) @ R
    images = [direction_image(solver, direction, H) for direction in directions]
    HDH = np.array([H.T @ image for image in images]).reshape(r, p, p)
    if not second:
        return FixedProducts(root.T @ root, HDH, None, basis)
    K = solver._K(state, factors, False)
    HDKDH = np.zeros((r, r, p, p))
    for j in range(r):
        KDH = K @ images[j]
        for i in range(r):
            HDKDH[i, j] = images[i].T @ KDH
    return FixedProducts(root.T @ root, HDH, HDKDH, basis)


def _pieces(
    solver: DenseSolver, factors: Sequence[np.ndarray]
) -> tuple[PenalizedSolution, np.ndarray, np.ndarray, np.ndarray]:
    """State, ``half'half = Lambda M^{-1} Lambda'``, F = Lambda M^{-1} Lambda'Z'X and ``(X'V^{-1}X)^{-1}``."""
    from scipy.linalg import solve_triangular

    state = solver._penalized(factors)
    half = solve_triangular(state.L, solver._Lambda(factors).T.toarray(), lower=True, check_finite=False)
    R = solver._fixed.R
    F = half.T @ (half @ (solver._Z.T @ (solver._fixed.Q @ R)))
    root = np.linalg.inv(state.RX.T @ R)
    return state, half, F, root @ root.T


def predictor_variance(
    solver: DenseSolver, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
) -> np.ndarray:
    """`Solver.predictor_variance`, from the (N, q) matrix of the rows."""
    terms = solver._terms
    Z = rows_matrix([term.k for term in terms], [term.m for term in terms], X.shape[0], rows)
    _, half, F, Phi = _pieces(solver, factors)
    left = Z @ half.T
    rest = X - Z @ F
    return np.sum(left * left, axis=1) + np.sum((rest @ Phi) * rest, axis=1)


def rows_matrix(ks: Sequence[int], ms: Sequence[int], N: int, rows: PredictorRows) -> Any:
    """The rows' z as a sparse (N, q) matrix.

    Parameters
    ----------
    ks, ms : sequence of int
        Columns and levels of each term.
    N : int
    rows : sequence over the terms
        As for `Solver.predictor_variance`; the codes may have shape (N, k), and an entry may be a sparse
        matrix, shape (N, m k).

    Raises
    ------
    SolverError
        Not one entry per term.
    """
    from scipy import sparse

    if len(rows) != len(ks):
        raise SolverError(f"{len(rows)} entries in rows for {len(ks)} random terms; give one per term")
    parts = []
    for k, m, row in zip(ks, ms, rows, strict=True):
        if row is None:
            parts.append(sparse.csr_array((N, m * k)))
        elif sparse.issparse(row):
            parts.append(sparse.csr_array(row))
        else:
            codes, Z = np.asarray(row[0]), np.asarray(row[1], dtype=np.float64)
            wide = np.broadcast_to(codes[:, None] if codes.ndim == 1 else codes, Z.shape)
            i, j = np.nonzero(wide >= 0)
            place = (i, wide[i, j].astype(np.int64) * k + j)
            parts.append(sparse.csr_array((Z[i, j], place), shape=(N, m * k)))
    return sparse.csr_array(sparse.hstack(parts)) if parts else sparse.csr_array((N, 0))


def fixed_random_covariance(solver: DenseSolver, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """`Solver.fixed_random_covariance`: ``-F (X'V^{-1}X)^{-1}``."""
    _, _, F, Phi = _pieces(solver, factors)
    out = -F @ Phi
    return tuple(
        out[rows].reshape(term.m, term.k, solver.p)
        for term, rows in zip(solver._terms, solver._slices, strict=True)
    )


def random_covariance(solver: DenseSolver, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
    """`Solver.random_covariance`: diagonal blocks of ``Lambda M^{-1} Lambda' + F (X'V^{-1}X)^{-1} F'``."""
    _, half, F, Phi = _pieces(solver, factors)
    info, rows = solver._terms[term], solver._slices[term]
    blocks = half[:, rows].reshape(solver.q, info.m, info.k)
    own = F[rows].reshape(info.m, info.k, solver.p)
    return np.einsum("qai,qaj->aij", blocks, blocks) + own @ Phi @ own.transpose(0, 2, 1)


def responses_at(
    solver: DenseSolver, factors: Sequence[np.ndarray]
) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
    """`Solver.responses_at`, from all of ``Lambda M^{-1} Lambda'``."""
    _, half, F, Phi = _pieces(solver, factors)
    X, weights = solver._fixed.Q @ solver._fixed.R, solver._fixed.sqrt_w

    def estimates(R: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        r = R if weights is None else R * weights[:, None]
        zy = solver._Z.T @ r
        beta = Phi @ (X.T @ r - F.T @ zy)
        b = half.T @ (half @ zy) - F @ beta
        return beta, tuple(
            b[rows].reshape(term.m, term.k, -1)
            for term, rows in zip(solver._terms, solver._slices, strict=True)
        )

    return estimates
