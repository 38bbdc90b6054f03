"""What inference needs from a model with any sparse Z, by solves with the sparse factor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Directions, FixedProducts, PredictorRows
from mixedmodels.solver.dense_inference import rows_matrix

if TYPE_CHECKING:
    from mixedmodels.solver.sparse import SparseSolver
    from mixedmodels.solver.sparse_least_squares import SparseState

__all__ = [
    "conditional_covariance",
    "fixed_covariance",
    "fixed_products",
    "fixed_random_covariance",
    "predictor_variance",
    "random_covariance",
    "responses_at",
    "trace_products",
    "weighted_traces",
]


def fixed_covariance(solver: SparseSolver, state: SparseState) -> np.ndarray:
    """``(X'V^{-1}X)^{-1}`` in the user's coordinates, shape (p, p)."""
    root = np.linalg.inv(state.RX.T @ solver.fixed.R)
    return root @ root.T


def _shift(solver: SparseSolver, state: SparseState) -> np.ndarray:
    """``Lambda M^{-1} Lambda' Z'X``, shape (q, p)."""
    return solver.times_Lambda(state.factors, state.G) @ solver.fixed.R


def conditional_covariance(solver: SparseSolver, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
    """`Solver.conditional_covariance`, from the selected inverse."""
    state = solver.state(factors)
    k, m, first = solver.ks[term], solver.ms[term], solver.slices[term].start
    factor = solver.penalized.factor
    c = np.arange(k)
    level = first + np.arange(m)[:, None, None] * k
    shape = (m, k, k)
    rows = np.broadcast_to(level + c[:, None], shape).ravel().astype(np.intc)
    columns = np.broadcast_to(level + c, shape).ravel().astype(np.intc)
    blocks = factor.inverse_at(factor.places(rows, columns)).reshape(shape)
    left = state.factors[term]
    return left @ blocks @ left.T


def random_covariance(solver: SparseSolver, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
    """`Solver.random_covariance`: the conditional one and what beta's uncertainty adds."""
    out = conditional_covariance(solver, factors, term)
    if not solver.p:
        return out
    state = solver.state(factors)
    rows = solver.slices[term]
    own = _shift(solver, state)[rows].reshape(solver.ms[term], solver.ks[term], solver.p)
    return out + own @ fixed_covariance(solver, state) @ own.transpose(0, 2, 1)


def fixed_random_covariance(solver: SparseSolver, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """`Solver.fixed_random_covariance`: ``-Lambda M^{-1} Lambda' Z'X (X'V^{-1}X)^{-1}``."""
    state = solver.state(factors)
    out = -_shift(solver, state) @ fixed_covariance(solver, state)
    return tuple(
        [
            out[rows].reshape(m, k, solver.p)
            for rows, m, k in zip(solver.slices, solver.ms, solver.ks, strict=True)
        ]
    )


def trace_products(
    solver: SparseSolver, factors: Sequence[np.ndarray], directions: Directions, reml: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`Solver.trace_products`: for a batch E of unit columns, sums of ``(D_i K E) * (K D_j E)``."""
    r = len(directions)
    solver.check_work(solver.q * (1.0 + r), "exact traces")
    state = solver.state(factors)
    half = solver.fixed_half(state) if reml and solver.p else None
    products, traces = np.zeros((r, r)), np.zeros(r)
    for columns in solver.batches():
        width = columns.stop - columns.start
        unit = np.zeros((solver.q, width))
        unit[np.arange(columns.start, columns.stop), np.arange(width)] = 1.0
        KE = solver.K_times(state, unit, half)
        left = [solver.image(direction, KE) for direction in directions]
        right = [solver.K_times(state, solver.image(direction, unit), half) for direction in directions]
        for i in range(r):
            traces[i] += float(np.sum(left[i][columns].diagonal()))
            for j in range(r):
                products[i, j] += float(np.sum(left[i] * right[j]))
    return 0.5 * (products + products.T), traces


def fixed_products(
    solver: SparseSolver,
    factors: Sequence[np.ndarray],
    directions: Directions,
    second: bool,
    orthonormal: bool,
) -> FixedProducts:
    """`Solver.fixed_products`."""
    state = solver.state(factors)
    R, p, r = solver.fixed.R, solver.p, len(directions)
    basis = np.linalg.inv(R) if orthonormal else None
    if orthonormal:
        R = np.eye(p)
    root = state.RX.T @ R
    H = (solver.Z.T @ state.ViQ) @ R
    images = [solver.image(direction, H) for direction in directions]
    HDH = np.array([H.T @ image for image in images]).reshape(r, p, p)
    if not second:
        return FixedProducts(root.T @ root, HDH, None, basis)
    HDKDH = np.zeros((r, r, p, p))
    for j in range(r):
        KDH = solver.K_times(state, images[j], None)
        for i in range(r):
            HDKDH[i, j] = images[i].T @ KDH
    return FixedProducts(root.T @ root, HDH, HDKDH, basis)


def halves(solver: SparseSolver, factors: Sequence[np.ndarray], Z: Any) -> np.ndarray:
    """``L^{-1} Lambda'Z'`` for a sparse (N, q) matrix Z, shape (q, N)."""
    state = solver.state(factors)
    return solver.solve(solver.times_Lambda_t(state.factors, Z.T.toarray()), 1)


def predictor_variance(
    solver: SparseSolver, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
) -> np.ndarray:
    """`Solver.predictor_variance`, by one half solve per row."""
    N = X.shape[0]
    state = solver.state(factors)
    Z = rows_matrix(solver.ks, solver.ms, N, rows)
    out = np.zeros(N)
    for a in range(0, N, 256):
        half = halves(solver, factors, Z[a : a + 256])
        out[a : a + 256] = np.einsum("qi,qi->i", half, half)
    if solver.p:
        rest = np.asarray(X, dtype=np.float64) - Z @ _shift(solver, state)
        out += np.sum((rest @ fixed_covariance(solver, state)) * rest, axis=1)
    return out


def responses_at(
    solver: SparseSolver, factors: Sequence[np.ndarray]
) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
    """`Solver.responses_at`: one solve per response."""
    state = solver.state(factors)
    F = _shift(solver, state)
    Phi = fixed_covariance(solver, state) if solver.p else np.zeros((0, 0))
    X, weights = solver.fixed.Q @ solver.fixed.R, solver.fixed.sqrt_w

    def estimates(R: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        solver.state(factors)
        r = R if weights is None else R * weights[:, None]
        zy = solver.Z.T @ r
        beta = Phi @ (X.T @ r - F.T @ zy)
        u = solver.solve(solver.times_Lambda_t(state.factors, zy))
        b = solver.times_Lambda(state.factors, u) - F @ beta
        return beta, tuple(
            [
                b[rows].reshape(m, k, -1)
                for rows, m, k in zip(solver.slices, solver.ms, solver.ks, strict=True)
            ]
        )

    return estimates


def weighted_traces(
    solver: SparseSolver,
    factors: Sequence[np.ndarray],
    F: Sequence[Any],
    G: Sequence[np.ndarray] | None,
    H: Sequence[np.ndarray] | None,
) -> np.ndarray:
    r"""`SparseSolver.weighted_traces`.

    With :math:`B = \Lambda M^{-1}\Lambda'Z'X` and :math:`\Phi = (X'V^{-1}X)^{-1}` the trace is
    :math:`\mathrm{tr}(\Lambda M^{-1}\Lambda' F_j) + \mathrm{tr}(\Phi (B'F_jB - B'G_j - G_j'B + H_j))`.
    """
    if (G is None) != (H is None):
        raise SolverError("weighted_traces needs both G and H (REML) or neither (ML)")
    state = solver.state(factors)
    penalized = solver.penalized
    C = penalized.covariance_on_pattern(state.factors) * penalized.multiplicity
    out = np.zeros(len(F))
    matrices = []
    for j, given in enumerate(F):
        data = given if isinstance(given, np.ndarray) else _on_pattern(solver, given)
        if data.shape != penalized.pattern[1].shape:
            raise SolverError(
                f"F has {data.size} values, the pattern of Z'Z {len(penalized.pattern[1])} entries"
            )
        out[j] = C @ penalized.block_values(data)
        matrices.append(data)
    if G is None or H is None or not solver.p:
        return out
    from scipy import sparse

    B = _shift(solver, state)
    Phi = fixed_covariance(solver, state)
    indptr, indices = penalized.pattern
    for j, data in enumerate(matrices):
        FB = sparse.csr_array((data, indices, indptr), shape=(solver.q, solver.q)) @ B
        BG = B.T @ np.asarray(G[j])
        out[j] += float(np.sum(Phi * (B.T @ FB - BG - BG.T + np.asarray(H[j]))))
    return out


def _on_pattern(solver: SparseSolver, matrix: Any) -> np.ndarray:
    """Values of a sparse (q, q) matrix on the pattern of Z'Z."""
    from scipy import sparse

    q = solver.q
    if matrix.shape != (q, q):
        raise SolverError(f"F has shape {matrix.shape}, expected {(q, q)}")
    given = sparse.csr_array(matrix)
    given.sum_duplicates()
    indptr, indices = solver.pattern
    same = given.nnz == len(indices) and np.array_equal(given.indices, indices)
    if same and np.array_equal(given.indptr, indptr):
        return given.data
    key = solver.penalized.pattern_keys
    row = np.repeat(np.arange(q, dtype=np.int64), np.diff(given.indptr))
    wanted = row * q + given.indices
    at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
    inside = key[at] == wanted if len(key) else np.zeros(len(wanted), dtype=bool)
    outside = ~inside & (given.data != 0.0)
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise SolverError(
            f"F has an entry ({row[i]}, {given.indices[i]}) outside the pattern of Z'Z; store explicit "
            "zeros in Z so that the pattern holds it"
        )
    out = np.zeros(len(indices))
    out[at[inside]] = given.data[inside]
    return out
