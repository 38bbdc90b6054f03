"""Solver for any sparse Z: rows may touch several levels of a term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver import sparse_inference
from mixedmodels.solver.base import (
    Breakdown,
    Components,
    Directions,
    FixedProducts,
    PredictorRows,
    Solution,
)
from mixedmodels.solver.sparse_least_squares import SparseLeastSquares, SparseState
from mixedmodels.solver.threads import one_blas_thread

__all__ = ["SparseSolver"]

_SINGULAR = 1e-6  # what a factor adds to the unit penalty, below which T is not found by division
_NOTHING = 1e-50  # stands for a zero in a factor: its square is lost in any sum, itself it keeps all digits


class SparseSolver(SparseLeastSquares):
    r"""Random effects with any sparse Z, crossed, nested, of several memberships, or whitened.

    With X = Q R orthonormalised, :math:`M = \Lambda'Z'Z\Lambda + P` is factored by a sparse Cholesky in
    minimum-degree order; its pattern is analysed once. Where the factor of a term is regular, its share of
    the gradient needs the inverse of M only on the pattern of P,

    .. math:: T_b = \lambda_b^{-T} \Bigl(m_b I - \sum_{l,l'} (P_b)_{ll'} (M^{-1})_{ll'}\Bigr) \lambda_b^{-1}

    (minus the fixed effects' part for REML), because
    :math:`\Lambda'Z'V^{-1}Z\Lambda = P - P M^{-1} P`. At and near singular factors, where this difference of
    nearly equal numbers would be divided by almost nothing, the same quantity is

    .. math:: T_b = \lambda_b^{-T} \sum_l \sum_j (M^{-1})_{lj}\,\lambda_j' (Z'Z)_{jl},

    in coordinates in which :math:`\lambda_b` is diagonal: every term of row i of the sum then has the factor
    :math:`s_i` in it, so that the division costs no digits however small :math:`s_i` is, and it needs the
    inverse on the pattern of Z'Z only.

    Parameters
    ----------
    design : Design

    Raises
    ------
    IdentifiabilityError
        X does not have full column rank.
    """

    name = "sparse"
    evaluator = None
    reason = ""

    # ------------------------------------------------------------------ facts
    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        sizes = self.penalized.factor.sizes
        dense = f", dense tail of {sizes['tail_columns']}" if sizes["tail_columns"] else ""
        return (
            f"sparse: {self.q} random effects, {sizes['head_columns']} in a sparse head{dense}; "
            f"order: minimum degree; nnz(L) {sizes['nnz_L']}"
        )

    def nu(self, reml: bool) -> int:
        """Divisor of pwrss: n - p (REML) or n (ML)."""
        return self.n - self.p if reml else self.n

    # ------------------------------------------------------------------ derivatives
    def _is_singular(self, b: int, factor: np.ndarray) -> bool:
        """Whether the factor of a term is too near singularity to be divided by."""
        k, m, rows = self.ks[b], self.ms[b], self.slices[b]
        A = self.level_grams[b]
        try:
            np.linalg.cholesky(factor.T @ (A / max(m, 1)) @ factor - _SINGULAR * np.eye(k))
        except np.linalg.LinAlgError:
            return True
        return rows.stop == rows.start

    def _T_regular(self, b: int, factor: np.ndarray) -> np.ndarray | None:
        """By division; None where the difference in it would lose too many digits."""
        k, m = self.ks[b], self.ms[b]
        inner = m * np.eye(k) - self.penalized.penalty[b].weighted_inverse(self.penalized.factor)
        if np.linalg.eigvalsh(0.5 * (inner + inner.T))[0] < _SINGULAR * m:
            return None
        half = np.linalg.solve(factor.T, inner)
        out = np.linalg.solve(factor.T, half.T)
        return 0.5 * (out + out.T)

    def _T_near_singular(self, terms: Sequence[int], state: SparseState) -> dict[int, np.ndarray]:
        """By the factor of M at ``lambda_b = U diag(s)``; zeros among the s become numbers of no weight."""
        factors, inverses = list(state.factors), {}
        for b in terms:
            size = np.sqrt(np.diagonal(self.level_grams[b]))
            size = np.where(size > 0.0, size, 1.0)
            U, s, _ = np.linalg.svd(size[:, None] * factors[b])
            s = np.maximum(s, _NOTHING)
            factors[b] = U * s / size[:, None]
            inverses[b] = U / s * size[:, None]  # its inverse, transposed
        self.forget()  # M is factored at other factors from here on
        if not self.penalized.factorise(factors):
            raise Breakdown(
                "the penalised cross-product matrix is not positive definite; check the values of theta"
            )
        sums = self.penalized.row_products(factors)
        out = {}
        for b in terms:
            T = inverses[b] @ sums[b]
            out[b] = 0.5 * (T + T.T)
        return out

    @one_blas_thread()
    def components(
        self,
        factors: Sequence[np.ndarray],
        order: int = 0,
        directions: Directions | None = None,
        reml: bool = True,
    ) -> Components:
        """Parts of the criterion (order 0), of its gradient (1) and of the average information (2)."""
        state = self.state(factors)
        head = (
            state.logdet_M - self._logdet_P,
            state.logdet_RX2 + self.fixed.logdet_R2,
            state.pwrss,
        )
        if order < 1:
            return Components(*head)
        half = self.fixed_half(state)
        c = self._Zt @ state.residual
        S, Ac = [], np.empty(self.q)
        for b, (k, m, rows) in enumerate(zip(self.ks, self.ms, self.slices, strict=True)):
            Ac[rows] = self.covariance_times(b, c[rows])
            S_b = c[rows].reshape(m, k).T @ Ac[rows].reshape(m, k)
            S.append(0.5 * (S_b + S_b.T))
        wpw = np.zeros((0, 0))
        if order >= 2:
            if directions is None:
                raise SolverError("components of order 2 need directions; give one list per parameter")
            wpw = self._wpw(state, directions, Ac, half)
        T = []
        every = {
            b: None if self._is_singular(b, factor) else self._T_regular(b, factor)
            for b, factor in enumerate(state.factors)
        }
        singular = [b for b, T_b in every.items() if T_b is None]
        if singular:
            every.update(self._T_near_singular(singular, state))
        for b, (k, m, rows) in enumerate(zip(self.ks, self.ms, self.slices, strict=True)):
            T_b = every[b]
            assert T_b is not None
            if reml and self.p:
                own = half[rows]
                scaled = self.covariance_times(b, own).reshape(m, k, self.p)
                T_b = T_b - np.einsum("aip,ajp->ij", scaled, own.reshape(m, k, self.p))
            T.append(T_b)
        return Components(*head, T=tuple(T), S=tuple(S), wpw=wpw)

    def _wpw(
        self, state: SparseState, directions: Directions, Ac: np.ndarray, half: np.ndarray
    ) -> np.ndarray:
        """``y'P V_i P V_j P y`` from ``(A_b kron I) Z'Py``: sums of squares, so that nothing cancels."""
        B = np.zeros((self.q, len(directions)))
        for i, direction in enumerate(directions):
            for k, m, rows, dS in zip(self.ks, self.ms, self.slices, direction, strict=True):
                if dS is not None:
                    B[rows, i] = (Ac[rows].reshape(m, k) @ np.asarray(dS).T).ravel()
        ZB = self.Z @ B
        G = self.solve(self.times_Lambda_t(state.factors, self._Zt @ ZB))
        rest = ZB - self.Z @ self.times_Lambda(state.factors, G)
        right = half.T @ B
        out = rest.T @ rest + G.T @ self.times_P(G) - right.T @ right
        return 0.5 * (out + out.T)

    # ------------------------------------------------------------------ estimates
    @one_blas_thread()
    def solution(self, factors: Sequence[np.ndarray], reml: bool = True) -> Solution:
        """Estimates of beta and predictions of the random effects (the same for ML and REML)."""
        state = self.state(factors)
        R = self.fixed.R
        beta, vcov = np.zeros(0), np.zeros((0, 0))
        if self.p:
            beta = self.fixed.beta0 + np.linalg.solve(R, state.gamma)
            vcov = sparse_inference.fixed_covariance(self, state)
        b = self.times_Lambda(state.factors, state.u)
        shapes = list(zip(self.slices, self.ms, self.ks, strict=True))
        return Solution(
            beta=beta,
            vcov_unscaled=vcov,
            u=tuple([state.u[rows].reshape(m, k) for rows, m, k in shapes]),
            b=tuple([b[rows].reshape(m, k) for rows, m, k in shapes]),
            logdet_L2=state.logdet_M - self._logdet_P,
            logdet_RX2=state.logdet_RX2 + self.fixed.logdet_R2,
            pwrss=state.pwrss,
        )

    @one_blas_thread()
    def conditional_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda M^{-1} Lambda'`` for one term, shape (m, k, k)."""
        return sparse_inference.conditional_covariance(self, factors, term)

    @one_blas_thread()
    def trace_products(
        self, factors: Sequence[np.ndarray], directions: Directions, reml: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """``tr(K D_i K D_j)``, shape (r, r), and ``tr(K D_i)``, shape (r,), by one solve per column of Z.

        Raises
        ------
        SolverError
            More than `work_limit` multiplications.
        """
        return sparse_inference.trace_products(self, factors, directions, reml)

    @one_blas_thread()
    def fixed_products(
        self,
        factors: Sequence[np.ndarray],
        directions: Directions,
        second: bool = True,
        orthonormal: bool = False,
    ) -> FixedProducts:
        """``X'V^{-1}X`` and its changes with the covariance; see `FixedProducts`."""
        return sparse_inference.fixed_products(self, factors, directions, second, orthonormal)

    @one_blas_thread()
    def halves(self, factors: Sequence[np.ndarray], Z: Any) -> np.ndarray:
        """``L^{-1} Lambda'Z'`` for a sparse (N, q) matrix of rows, shape (q, N)."""
        return sparse_inference.halves(self, factors, Z)

    def predictor_variance(
        self, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
    ) -> np.ndarray:
        """``Var[x'(beta^ - beta) + sum_b z_b'(b^_b - b_b)] / sigma^2`` for N rows, shape (N,).

        An entry of `rows` may also be a sparse matrix, shape (N, m k).
        """
        return sparse_inference.predictor_variance(self, factors, X, rows)

    @one_blas_thread()
    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses (n, N) that gives their beta^ (p, N) and b^ per term (m, k, N)."""
        return sparse_inference.responses_at(self, factors)

    @one_blas_thread()
    def fixed_random_covariance(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """``Cov(b^ - b, beta^) / sigma^2`` per term, shape (m, k, p)."""
        return sparse_inference.fixed_random_covariance(self, factors)

    @one_blas_thread()
    def random_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Var(b^ - b) / sigma^2`` for one term, shape (m, k, k)."""
        return sparse_inference.random_covariance(self, factors, term)

    # ------------------------------------------------------------------ for structured residuals
    @one_blas_thread()
    def weighted_traces(
        self,
        factors: Sequence[np.ndarray],
        F: Sequence[Any],
        G: Sequence[np.ndarray] | None = None,
        H: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        r"""``tr(C [Z Lambda, X]' Omega_j [Z Lambda, X])``, the changes of log-determinants with the residual.

        C is the inverse of ``[[M, Lambda'Z'X], [X'Z Lambda, X'X]]`` if G and H are given (REML), of M alone
        otherwise (ML).

        Parameters
        ----------
        factors : sequence of ndarray
        F : sequence of sparse matrices, shape (q, q), or of ndarray, shape (nnz,)
            ``Z' Omega_j Z``, symmetric, inside the pattern of Z'Z; or its values on that pattern (`pattern`).
        G, H : sequence of ndarray, shapes (q, p) and (p, p), optional
            ``Z' Omega_j X`` and ``X' Omega_j X``.

        Returns
        -------
        ndarray, shape (number of j,)

        Raises
        ------
        SolverError
            An F has entries outside the pattern.
        """
        return sparse_inference.weighted_traces(self, factors, F, G, H)

    @property
    def pattern(self) -> tuple[np.ndarray, np.ndarray]:
        """``(indptr, indices)`` of Z'Z, compressed rows, ascending."""
        return self.penalized.pattern

    @one_blas_thread()
    def projected_rows(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        r"""``V^{-1}X (X'V^{-1}X)^{-1/2}``, shape (n, p).

        With E these rows, REML's part of `weighted_traces` is ``tr(E' Omega_j E)``, which loses no digits.
        """
        from scipy.linalg import solve_triangular

        state = self.state(factors)
        return (
            solve_triangular(state.RX, state.ViQ.T, lower=True, check_finite=False).T if self.p else state.ViQ
        )

    def residual_at(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``P y``, shape (n,): the residual of the penalised least-squares problem."""
        return self.state(factors).residual
