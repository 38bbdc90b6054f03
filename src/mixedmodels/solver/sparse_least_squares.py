"""Penalised least squares with any sparse Z: rows, their refreshing, and the solution at given factors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Breakdown
from mixedmodels.solver.dense import FixedPart, fixed_part, random_matrix
from mixedmodels.solver.penalized import PenalizedMatrix
from mixedmodels.solver.sparse_cholesky import SparseCholesky
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from typing import Self

    from mixedmodels.design import Design, KnownCovariance, Precision

__all__ = ["SparseLeastSquares", "SparseState"]

_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class SparseState:
    """The penalised least-squares solution at given factors, X = Q R orthonormalised.

    Attributes
    ----------
    factors : tuple of ndarray
    G : ndarray, shape (q, p)
        ``M^{-1} Lambda' Z'Q``.
    ViQ : ndarray, shape (n, p)
        ``V^{-1} Q``.
    RX : ndarray, shape (p, p)
        Lower Cholesky factor of ``Q'V^{-1}Q``.
    u : ndarray, shape (q,)
    gamma : ndarray, shape (p,)
        Coefficients of Q, to be added to ``R beta0``.
    residual : ndarray, shape (n,)
        ``P y``.
    logdet_M, logdet_RX2, pwrss : float
        log|M|, log|Q'V^{-1}Q| and the penalised residual sum of squares.
    """

    factors: tuple[np.ndarray, ...]
    G: np.ndarray
    ViQ: np.ndarray
    RX: np.ndarray
    u: np.ndarray
    gamma: np.ndarray
    residual: np.ndarray
    logdet_M: float
    logdet_RX2: float
    pwrss: float


class SparseLeastSquares:
    """Minimise ``|y - X beta - Z Lambda u|^2 + u'Pu`` for changing relative factors and changing rows.

    Parameters
    ----------
    design : Design
    """

    # Pivots kept in the sparse head (-1: by cost) and threads (0: all); here so that tests can change them.
    _cut = -1
    _threads = 0
    # About the most multiplications that exact traces may take.
    work_limit = 2e11

    def __init__(self, design: Design) -> None:
        fixed = fixed_part(design.y, design.X, design.x_names, design.offset, design.weights)
        whole = random_matrix(design.terms, design.n, fixed.sqrt_w)
        whole.sum_duplicates()
        self._start(
            fixed,
            whole,
            [term.group for term in design.terms],
            [term.k for term in design.terms],
            [term.m for term in design.terms],
            [term.precision for term in design.terms],
        )

    @classmethod
    def from_parts(
        cls,
        y: np.ndarray,
        X: np.ndarray,
        Z: Sequence[Any],
        ks: Sequence[int],
        ms: Sequence[int],
        precisions: Sequence[Precision | KnownCovariance | None] | None = None,
        *,
        names: Sequence[str] | None = None,
        x_names: Sequence[str] | None = None,
    ) -> Self:
        """A solver from rows that are already weighted or whitened.

        Parameters
        ----------
        y : ndarray, shape (n,)
            Offset taken off.
        X : ndarray, shape (n, p)
        Z : sequence of sparse matrices, shape (n, m k)
            One per term, columns by level, then column of the term. Stored zeros belong to the pattern: give
            them where later values (`refresh`) may differ from 0.
        ks, ms : sequence of int
            Columns and levels of each term.
        precisions : sequence of Precision or None, optional
        names, x_names : sequence of str, optional
            Groups of the terms and names of the columns of X, for messages.

        Returns
        -------
        SparseSolver

        Raises
        ------
        SolverError
            The shapes do not fit.
        IdentifiabilityError
            X does not have full column rank.
        """
        new = cls.__new__(cls)
        y, X = np.asarray(y, dtype=np.float64), np.asarray(X, dtype=np.float64)
        labels = tuple(x_names or [f"column {j}" for j in range(X.shape[1])])
        groups = list(names or [f"term {b}" for b in range(len(ks))])
        known = [None] * len(ks) if precisions is None else list(precisions)
        if not len(Z) == len(ks) == len(ms) == len(known) == len(groups):
            raise SolverError(f"{len(Z)} matrices Z for {len(ks)} terms; give one per term")
        fixed = fixed_part(y, X, labels, None, None)
        new._start(fixed, _side_by_side(Z, ks, ms, groups, len(y)), groups, ks, ms, known)
        return new

    def _start(
        self,
        fixed: FixedPart,
        Z: Any,
        groups: Sequence[str],
        ks: Sequence[int],
        ms: Sequence[int],
        precisions: Sequence[Precision | KnownCovariance | None],
    ) -> None:
        self.n, self.p = fixed.Q.shape
        self.groups, self.ks, self.ms = tuple(groups), tuple(ks), tuple(ms)
        self._precisions = tuple(precisions)
        matrices = []
        self._logdet_P = 0.0
        for group, k, m, precision in zip(groups, ks, ms, precisions, strict=True):
            if precision is not None and precision.matrix.shape != (m, m):
                raise SolverError(
                    f"the precision of {group!r} has shape {precision.matrix.shape}, expected {(m, m)}"
                )
            matrices.append(None if precision is None else precision.matrix.tocsc())
            self._logdet_P -= 0.0 if precision is None else k * precision.logdet_covariance
        with one_blas_thread():
            self.penalized = PenalizedMatrix(Z, ks, ms, matrices, self._cut, self._threads)
        self.q = self.penalized.q
        self.slices = self.penalized.slices
        self._take(fixed, Z)

    def _take(self, fixed: FixedPart, Z: Any) -> None:
        self.fixed, self.Z = fixed, Z
        self._Zt = Z.T.tocsr()
        self._ZtQr = self._Zt @ np.column_stack([fixed.Q, fixed.r])
        self._state: SparseState | None = None
        self.level_grams = [self._sum_of_blocks(b) for b in range(len(self.ks))]

    def refresh(self, y: np.ndarray, X: np.ndarray, Z: Sequence[Any]) -> None:
        """Take other rows (whitened anew, say) with the same pattern of Z; the analysis is kept.

        Parameters
        ----------
        y, X, Z
            As for `from_parts`.

        Raises
        ------
        SolverError
            The pattern of Z or a shape differs.
        """
        y, X = np.asarray(y, dtype=np.float64), np.asarray(X, dtype=np.float64)
        if X.shape != (self.n, self.p) or y.shape != (self.n,):
            raise SolverError(f"y and X must have shapes {(self.n,)} and {(self.n, self.p)}")
        whole = _side_by_side(Z, self.ks, self.ms, self.groups, self.n)
        self.penalized.refresh(whole)
        self._take(fixed_part(y, X, [f"column {j}" for j in range(self.p)], None, None), whole)

    def _sum_of_blocks(self, b: int) -> np.ndarray:
        """Sum over the levels of a term of the diagonal blocks of Z'Z, shape (k, k)."""
        k, rows = self.ks[b], self.slices[b]
        own = self.penalized.ZtZ
        out = np.zeros((k, k))
        for lag in range(k):
            diagonal = own.diagonal(lag)[rows.start : rows.stop - lag]
            for c in range(k - lag):
                out[c, c + lag] = out[c + lag, c] = diagonal[c::k].sum()
        return out

    @cached_property
    def _own_precisions(self) -> list[SparseCholesky | None]:
        """Cholesky factors of the known precisions."""
        return [
            None if precision is None else SparseCholesky(precision.matrix) for precision in self._precisions
        ]

    # ------------------------------------------------------------------ block-diagonal products
    def _rows_times(self, factors: Sequence[np.ndarray], B: np.ndarray, transposed: bool) -> np.ndarray:
        """``Lambda B`` or ``Lambda' B`` for B of shape (q, .)."""
        out = np.empty(B.shape)
        flat = B.reshape(self.q, -1)
        into = out.reshape(self.q, -1)
        for k, m, rows, factor in zip(self.ks, self.ms, self.slices, factors, strict=True):
            left = factor.T if transposed else factor
            if k == 1:
                np.multiply(flat[rows], factor[0, 0], out=into[rows])
            elif k <= 4:  # few columns: sums of whole columns instead of one small product per level
                by_level, result = flat[rows].reshape(m, k, -1), into[rows].reshape(m, k, -1)
                for i in range(k):
                    result[:, i] = sum([left[i, j] * by_level[:, j] for j in range(k)])
            else:
                into[rows] = (left @ flat[rows].reshape(m, k, -1)).reshape(m * k, -1)
        return out

    def times_Lambda(self, factors: Sequence[np.ndarray], B: np.ndarray) -> np.ndarray:
        """``Lambda B`` for B of shape (q,) or (q, r)."""
        return self._rows_times(factors, B, False)

    def times_Lambda_t(self, factors: Sequence[np.ndarray], B: np.ndarray) -> np.ndarray:
        """``Lambda' B`` for B of shape (q,) or (q, r)."""
        return self._rows_times(factors, B, True)

    def times_P(self, B: np.ndarray) -> np.ndarray:
        """``P B`` for B of shape (q,) or (q, r)."""
        out = B.copy()
        for k, m, rows, precision in zip(self.ks, self.ms, self.slices, self._precisions, strict=True):
            if precision is not None:
                flat = B[rows].reshape(m, -1)
                out[rows] = (precision.matrix @ flat).reshape((m * k, *B.shape[1:]))
        return out

    def covariance_times(self, term: int, B: np.ndarray) -> np.ndarray:
        """``(A_b kron I) B`` for B of shape (m k,) or (m k, r)."""
        own = self._own_precisions[term]
        if own is None:
            return B
        return own.solve(B.reshape(self.ms[term], -1)).reshape(B.shape)

    def image(self, direction: Sequence[np.ndarray | None], B: np.ndarray) -> np.ndarray:
        """``diag_b(A_b kron dSigma_b) B`` for B of shape (q, r)."""
        out = np.zeros(B.shape)
        for b, (k, m, rows, dS) in enumerate(zip(self.ks, self.ms, self.slices, direction, strict=True)):
            if dS is not None:
                block = self.covariance_times(b, B[rows]).reshape(m, k, -1)
                out[rows] = (np.asarray(dS) @ block).reshape(m * k, -1)
        return out

    # ------------------------------------------------------------------ the penalised solution
    def _check(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        if len(factors) != len(self.ks):
            raise SolverError(
                f"{len(factors)} factors given for {len(self.ks)} random terms; give one per term"
            )
        out = tuple([np.array(factor, dtype=np.float64) for factor in factors])
        for group, k, factor in zip(self.groups, self.ks, out, strict=True):
            if factor.shape != (k, k):
                raise SolverError(f"the factor of term {group!r} has shape {factor.shape}, expected {(k, k)}")
            if not np.isfinite(factor).all():
                raise Breakdown(f"the factor of term {group!r} is not finite; check the values of theta")
        return out

    def state(self, factors: Sequence[np.ndarray]) -> SparseState:
        """The penalised solution at these factors; kept until other factors are asked for."""
        given = self._check(factors)
        held = self._state
        if held is not None and all(map(np.array_equal, held.factors, given)):
            return held
        self._state = None
        fixed, p = self.fixed, self.p
        with np.errstate(over="ignore", invalid="ignore"):
            definite = self.penalized.factorise(given)
        if not definite:
            raise Breakdown(
                "the penalised cross-product matrix is not positive definite; check the values of theta"
            )
        solved = self.solve(self.times_Lambda_t(given, self._ZtQr))
        G = solved[:, :p]
        ViQ = fixed.Q - self.Z @ self.times_Lambda(given, G)
        RX = np.zeros((0, 0))
        gamma: np.ndarray = np.zeros(0)
        if p:
            QViQ = ViQ.T @ ViQ + G.T @ self.times_P(G)
            try:
                RX = np.linalg.cholesky(QViQ)
            except np.linalg.LinAlgError:
                raise Breakdown(
                    "X'V^{-1}X is not positive definite at these factors; check the values of theta"
                ) from None
            gamma = np.linalg.solve(RX.T, np.linalg.solve(RX, ViQ.T @ fixed.r))
        u = solved[:, p] - G @ gamma
        residual = fixed.r - fixed.Q @ gamma - self.Z @ self.times_Lambda(given, u)
        self._state = SparseState(
            factors=given,
            G=G,
            ViQ=ViQ,
            RX=RX,
            u=u,
            gamma=gamma,
            residual=residual,
            logdet_M=float(self.penalized.factor.logdet),
            logdet_RX2=2.0 * float(np.sum(np.log(np.diagonal(RX)))),
            pwrss=float(residual @ residual + u @ self.times_P(u)),
        )
        return self._state

    def forget(self) -> None:
        """The factor of M no longer belongs to the state that is held."""
        self._state = None

    def solve(self, B: np.ndarray, mode: int = 0) -> np.ndarray:
        """``M^{-1}B``, ``L^{-1}B`` (mode 1) or ``L^{-T}B`` (mode 2), L in the order of its factor."""
        flat = np.ascontiguousarray(B.reshape(self.q, -1) if self.q else np.zeros((0, 1)))
        return self.penalized.factor.solve(flat, mode).reshape(B.shape)

    def fixed_half(self, state: SparseState) -> np.ndarray:
        """``Z'V^{-1}Q RX^{-T}``, shape (q, p): K loses its product with its transpose under REML."""
        from scipy.linalg import solve_triangular

        H = self._Zt @ state.ViQ
        return solve_triangular(state.RX, H.T, lower=True, check_finite=False).T if self.p else H

    def K_times(self, state: SparseState, B: np.ndarray, half: np.ndarray | None) -> np.ndarray:
        """``Z'V^{-1}Z B``, minus ``half half' B`` if given (Z'PZ B), for B of shape (q, r)."""
        ZtZ = self.penalized.ZtZ
        G = self.solve(self.times_Lambda_t(state.factors, ZtZ @ B))
        out = ZtZ @ (B - self.times_Lambda(state.factors, G))
        return out if half is None else out - half @ (half.T @ B)

    def batches(self, size: int = _BATCH) -> Iterator[slice]:
        """Columns 0 .. q - 1 in runs."""
        for a in range(0, self.q, size):
            yield slice(a, min(a + size, self.q))

    def check_work(self, columns: float, what: str) -> None:
        """Refuse solves that would take minutes.

        Raises
        ------
        SolverError
            More than `work_limit` multiplications.
        """
        work = columns * 4.0 * (self.penalized.factor.sizes["nnz_L"] + self.penalized.ZtZ.nnz)
        if work > self.work_limit:
            raise SolverError(
                f"{what} of this model take about {work:.0e} multiplications with the sparse solver (limit "
                f"{self.work_limit:.0e}); use the average information instead"
            )


def _side_by_side(
    Z: Sequence[Any], ks: Sequence[int], ms: Sequence[int], groups: Sequence[str], n: int
) -> Any:
    """All terms' Z as one matrix of compressed rows, columns ascending; stored zeros are kept."""
    from scipy import sparse

    parts = []
    for matrix, k, m, group in zip(Z, ks, ms, groups, strict=True):
        if matrix.shape != (n, m * k):
            raise SolverError(f"Z of {group!r} has shape {matrix.shape}, expected {(n, m * k)}")
        part = sparse.csr_array(matrix, dtype=np.float64, copy=True)
        part.sum_duplicates()
        parts.append(part)
    out = sparse.csr_array(sparse.hstack(parts)) if parts else sparse.csr_array((n, 0))
    out.sort_indices()
    return out
