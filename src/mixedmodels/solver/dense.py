r"""The dense reference solver: penalised least squares equation by equation, in NumPy.

Every other solver is tested against this one, so it favours plain and stable algebra over speed. Equations
are those of Bates, Maechler, Bolker & Walker (2015), *Fitting linear mixed-effects models using lme4*,
J. Stat. Softw. 67(1), sections 3.2-3.4, with a precision P instead of the identity and the fixed part
orthonormalised. Inverse forms are written as sums of squares ("Joseph form"), so cancellation costs
nothing:

    V^{-1} = (I - B M^{-1}B')'(I - B M^{-1}B') + B M^{-1} P M^{-1} B',       B = Z Lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import IdentifiabilityError, SolverError
from mixedmodels.solver import dense_inference
from mixedmodels.solver._kernels.columns import constant_column, orthonormal_fit
from mixedmodels.solver.base import (
    Breakdown,
    Components,
    Directions,
    FixedProducts,
    PredictorRows,
    Solution,
)

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["DenseSolver", "FixedPart", "PenalizedSolution", "fixed_part", "penalized_solve", "random_matrix"]

# Rows times squared columns up to which compiled loops make the columns orthonormal, and the part of a column
# that must be new for that, relative to its length.
_SMALL_WORK = 16_000
_REGULAR = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class FixedPart:
    """Fixed part, rows scaled by sqrt(w): X = Q R and the least-squares residual r = y - offset - X beta0."""

    Q: np.ndarray  # (n, p) orthonormal columns
    R: np.ndarray  # (p, p) upper triangular
    beta0: np.ndarray  # (p,)
    r: np.ndarray  # (n,)
    logdet_R2: float  # 2 log|det R|
    sqrt_w: np.ndarray | None  # (n,)


def fixed_part(
    y: np.ndarray,
    X: np.ndarray,
    x_names: Sequence[str],
    offset: np.ndarray | None,
    weights: np.ndarray | None,
) -> FixedPart:
    """Scale the rows, orthonormalise X, remove its least-squares fit from y: no large mean costs digits.

    Few rows of columns far from collinear go by compiled loops (Gram and Schmidt, every column twice), all
    others by Householder reflections.

    Raises
    ------
    IdentifiabilityError
        X does not have full column rank; the message names the first dependent column.
    """
    y = np.asarray(y, dtype=np.float64)
    X = np.asarray(X, dtype=np.float64)
    response = y if offset is None else y - offset
    # The mean goes first, where there is a constant column: y - mean is exact when the mean is large,
    # while X beta0 would be rounded at the size of the mean.
    constant = constant_column(X)
    shift = float(np.add.reduce(response)) / response.shape[0] if constant >= 0 else 0.0
    response = response - shift
    sqrt_w = None
    shifted = shift / X.item(0, constant) if constant >= 0 else 0.0  # of the coefficient of that column
    if weights is not None:
        sqrt_w = np.sqrt(np.asarray(weights, dtype=np.float64))
        response = response * sqrt_w
        X = X * sqrt_w[:, None]
    n, p = X.shape
    if p == 0:
        return FixedPart(np.zeros((n, 0)), np.zeros((0, 0)), np.zeros(0), response, 0.0, sqrt_w)
    if p > n:
        raise IdentifiabilityError(f"{p} fixed-effects columns for {n} observations; remove some of them")
    if n * p * p <= _SMALL_WORK:
        found = orthonormal_fit(X, response, _REGULAR)
        if found is not None:
            Q, R, beta0, r, logdet = found
            if constant >= 0:
                beta0[constant] += shifted
            return FixedPart(Q, R, beta0, r, logdet, sqrt_w)
    length = np.linalg.norm(X, axis=0)
    Q, R = np.linalg.qr(X / np.where(length > 0.0, length, 1.0))
    diagonal = np.abs(np.diagonal(R))
    bad = np.flatnonzero(diagonal <= 1e-11)
    if bad.size:
        raise IdentifiabilityError(
            f"fixed-effects column {x_names[bad[0]]!r} depends linearly on the columns before it; remove it"
        )
    R = R * length
    beta0 = np.linalg.solve(R, Q.T @ response)
    r = response - X @ beta0
    if constant >= 0:
        beta0[constant] += shifted
    r = r - Q @ (Q.T @ r)  # second pass: orthogonal to X to working precision
    return FixedPart(Q, R, beta0, r, 2.0 * float(np.sum(np.log(diagonal * length))), sqrt_w)


def random_matrix(terms: Sequence[RandomTerm], n: int, sqrt_w: np.ndarray | None) -> Any:
    """``W^(1/2) Z`` as a sparse matrix, shape (n, q); columns by term, level, column of the term."""
    from scipy import sparse

    if not terms:
        return sparse.csr_array((n, 0))
    Z = sparse.csr_array(sparse.hstack([term.matrix(n) for term in terms]))
    if sqrt_w is not None:
        Z.data = Z.data * np.repeat(sqrt_w, np.diff(Z.indptr))
    return Z


@dataclass(frozen=True, slots=True, eq=False)
class PenalizedSolution:
    """Solution of the penalised least-squares problem in the coordinates of `FixedPart`."""

    L: np.ndarray  # (q, q) lower Cholesky factor of M = Lambda'Z'Z Lambda + P
    RX: np.ndarray  # (p, p) lower Cholesky factor of Q'V^{-1}Q
    ViQ: np.ndarray  # (n, p)  V^{-1} Q
    u: np.ndarray  # (q,)
    gamma: np.ndarray  # (p,) coefficients of Q, to be added to R beta0
    residual: np.ndarray  # (n,)  r - Q gamma - Z Lambda u  =  P y
    logdet_M: float
    logdet_RX2: float  # log|Q'V^{-1}Q|
    pwrss: float


def penalized_solve(
    fixed: FixedPart, B: Any, M: np.ndarray, penalty: Any, advice: str = "check the values of theta"
) -> PenalizedSolution:
    """Minimise ``|r - Q gamma - B u|^2 + u'Pu`` for ``B = Z Lambda`` (dense or sparse) and ``M = B'B + P``.

    Parameters
    ----------
    fixed : FixedPart
    B : array or sparse array, shape (n, q)
    M : ndarray, shape (q, q)
    penalty : sparse array, shape (q, q), or None
        P; None stands for the identity.
    advice : str
        Remedy named when M is not positive definite.

    Returns
    -------
    PenalizedSolution
        With the identities ``P y = r - Q gamma - B u`` and ``V^{-1}Q = Q - B M^{-1}B'Q``.
    """
    from scipy.linalg import cho_solve

    if not np.all(np.isfinite(M)):
        raise Breakdown("the relative covariance factor holds a value that is not finite; " + advice)
    try:
        L = np.linalg.cholesky(M)
    except np.linalg.LinAlgError:
        raise Breakdown("the penalised cross-product matrix is not positive definite; " + advice) from None
    q, p = M.shape[0], fixed.Q.shape[1]

    def solve(rhs: np.ndarray) -> np.ndarray:
        return cho_solve((L, True), rhs, check_finite=False) if q else rhs

    def times(v: np.ndarray) -> np.ndarray:
        return v if penalty is None else penalty @ v

    G = solve(B.T @ fixed.Q)  # M^{-1}B'Q
    ViQ = fixed.Q - B @ G
    QViQ = ViQ.T @ ViQ + G.T @ times(G)
    RX = np.linalg.cholesky(QViQ) if p else np.zeros((0, 0))
    gamma = np.zeros(0)
    if p:
        gamma = cho_solve((RX, True), ViQ.T @ fixed.r, check_finite=False)
    rest = fixed.r - fixed.Q @ gamma
    u = solve(B.T @ rest)
    residual = rest - B @ u
    return PenalizedSolution(
        L=L,
        RX=RX,
        ViQ=ViQ,
        u=u,
        gamma=gamma,
        residual=residual,
        logdet_M=2.0 * float(np.sum(np.log(np.diagonal(L)))),
        logdet_RX2=2.0 * float(np.sum(np.log(np.diagonal(RX)))),
        pwrss=float(residual @ residual + u @ times(u)),
    )


class DenseSolver:
    r"""Dense reference solver for a `Design`: O(q^3) time and O(q^2) memory, any random terms.

    Parameters
    ----------
    design : Design

    Attributes
    ----------
    n, p, q : int
        Observations, fixed-effects columns, random effects.

    Raises
    ------
    IdentifiabilityError
        X does not have full column rank.
    """

    name = "dense"
    evaluator = None
    reason = ""

    def __init__(self, design: Design) -> None:
        from scipy import sparse

        self.design = design
        self.n, self.p, self.q = design.n, design.p, design.q
        self._terms = design.terms
        self._fixed = fixed_part(design.y, design.X, design.x_names, design.offset, design.weights)
        self._Z = random_matrix(design.terms, design.n, self._fixed.sqrt_w)
        self._A = (self._Z.T @ self._Z).toarray()
        edges = np.cumsum([0] + [t.m * t.k for t in design.terms])
        self._slices = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        first, indices, indptr = 0, [], [np.zeros(1, dtype=np.int64)]
        for term in design.terms:  # row i of level l holds the k columns of that level
            columns = first + np.arange(term.m * term.k).reshape(term.m, 1, term.k)
            indices.append(np.broadcast_to(columns, (term.m, term.k, term.k)).ravel())
            indptr.append(indptr[-1][-1] + term.k * np.arange(1, term.m * term.k + 1))
            first += term.m * term.k
        self._pattern = (np.concatenate(indices or [np.zeros(0, dtype=np.int64)]), np.concatenate(indptr))
        # Known covariance between levels (dense here) and the penalty P = diag_b(A^{-1} kron I).
        self._relationship: list[np.ndarray | None] = []
        blocks = []
        self._logdet_P = 0.0
        for term in design.terms:
            if term.precision is None:
                self._relationship.append(None)
                blocks.append(sparse.eye_array(term.m * term.k))
            else:
                matrix = sparse.csc_array(term.precision.matrix)
                self._relationship.append(np.linalg.inv(matrix.toarray()))
                blocks.append(sparse.kron(matrix, sparse.eye_array(term.k)))
                self._logdet_P -= term.k * term.precision.logdet_covariance
        self._P = sparse.csr_array(sparse.block_diag(blocks)) if blocks else sparse.csr_array((0, 0))

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        return (
            f"dense reference solver: {self.q} x {self.q} Cholesky factor, {self.p} fixed-effects columns, "
            f"{self.n} observations"
        )

    def nu(self, reml: bool) -> int:
        """Divisor of pwrss: n - p (REML) or n (ML)."""
        return self.n - self.p if reml else self.n

    # ------------------------------------------------------------------ block-diagonal products
    def _times_Lambda(self, matrix: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``matrix Lambda`` for a (., q) matrix."""
        out = np.empty_like(matrix)
        for term, rows, factor in zip(self._terms, self._slices, factors, strict=True):
            block = matrix[:, rows].reshape(-1, term.m, term.k) @ np.asarray(factor, dtype=np.float64)
            out[:, rows] = block.reshape(matrix.shape[0], -1)
        return out

    def _Lambda(self, factors: Sequence[np.ndarray]) -> Any:
        """Lambda as a sparse matrix, its pattern known beforehand."""
        from scipy import sparse

        values = [
            np.tile(np.asarray(factor, dtype=np.float64).ravel(), term.m)
            for term, factor in zip(self._terms, factors, strict=True)
        ]
        data = np.concatenate(values) if values else np.zeros(0)
        return sparse.csr_array((data, *self._pattern), shape=(self.q, self.q))

    def _penalized(self, factors: Sequence[np.ndarray]) -> PenalizedSolution:
        self._check(factors)
        LtA = self._times_Lambda(self._A, factors).T
        M = self._times_Lambda(LtA, factors) + self._P
        B = self._Z @ self._Lambda(factors)
        return penalized_solve(self._fixed, B, np.asarray(M), self._P)

    def _check(self, factors: Sequence[np.ndarray]) -> None:
        if len(factors) != len(self._terms):
            raise SolverError(
                f"{len(factors)} factors given for {len(self._terms)} random terms; give one per term"
            )
        for term, factor in zip(self._terms, factors, strict=True):
            if np.shape(factor) != (term.k, term.k):
                raise SolverError(
                    f"the factor of term {term.group!r} has shape {np.shape(factor)}, "
                    f"expected {(term.k, term.k)}"
                )
            if not np.all(np.isfinite(factor)):
                raise Breakdown(f"the factor of term {term.group!r} is not finite; check the values of theta")

    def _K(self, state: PenalizedSolution, factors: Sequence[np.ndarray], project: bool) -> np.ndarray:
        """``Z'V^{-1}Z``, or ``Z'PZ`` if `project`: C'AC + G'PG, G = M^{-1}Lambda'A, C = I - Lambda G."""
        if not self.q:
            return np.zeros((0, 0))
        from scipy.linalg import cho_solve, solve_triangular

        G = cho_solve((state.L, True), self._times_Lambda(self._A, factors).T, check_finite=False)
        C = np.eye(self.q) - self._Lambda(factors) @ G
        K = C.T @ self._A @ C + G.T @ (self._P @ G)
        if project and self.p:
            H = solve_triangular(state.RX, (self._Z.T @ state.ViQ).T, lower=True, check_finite=False)
            K -= H.T @ H
        return 0.5 * (K + K.T)

    def full_K(self, factors: Sequence[np.ndarray], reml: bool = True) -> np.ndarray:
        """``K = Z'V^{-1}Z`` (ML) or ``Z'PZ`` (REML), shape (q, q), for independent use in checks."""
        return self._K(self._penalized(factors), factors, reml)

    # ------------------------------------------------------------------ contract
    def components(
        self,
        factors: Sequence[np.ndarray],
        order: int = 0,
        directions: Directions | None = None,
        reml: bool = True,
    ) -> Components:
        """Parts of the criterion (order 0), of its gradient (1) and of the average information (2).

        Parameters
        ----------
        factors : sequence of ndarray, one (k, k) per term
        order : int
            0, 1 or 2.
        directions : sequence over r of sequences over terms of (k, k) symmetric matrices or None
            Needed for order 2.
        reml : bool
            Only T depends on it.

        Returns
        -------
        Components
        """
        state = self._penalized(factors)
        head = (
            state.logdet_M - self._logdet_P,
            state.logdet_RX2 + self._fixed.logdet_R2,
            state.pwrss,
        )
        if order < 1:
            return Components(*head)
        KP = self._K(state, factors, True)
        K = KP if reml else self._K(state, factors, False)
        c = self._Z.T @ state.residual
        T, S = [], []
        for term, rows, A in zip(self._terms, self._slices, self._relationship, strict=True):
            blocks = K[rows, rows].reshape(term.m, term.k, term.m, term.k)
            C = c[rows].reshape(term.m, term.k)
            if A is None:
                T.append(np.einsum("aiaj->ij", blocks))
                S.append(C.T @ C)
            else:
                T.append(np.einsum("ab,aibj->ij", A, blocks))
                S.append(C.T @ A @ C)
        wpw = np.zeros((0, 0))
        if order >= 2:
            if directions is None:
                raise SolverError("components of order 2 need directions; give one list per parameter")
            b = np.zeros((self.q, len(directions)))
            for i, direction in enumerate(directions):
                for term, rows, A, dS in zip(
                    self._terms, self._slices, self._relationship, direction, strict=True
                ):
                    if dS is not None:
                        C = c[rows].reshape(term.m, term.k)
                        b[rows, i] = ((C if A is None else A @ C) @ dS).ravel()
            wpw = b.T @ KP @ b
        return Components(*head, T=tuple(T), S=tuple(S), wpw=wpw)

    def trace_products(
        self, factors: Sequence[np.ndarray], directions: Directions, reml: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """``tr(K V_i' K V_j')`` and ``tr(K V_i')`` with ``V_i' = diag_b(A_b kron dSigma_bi)``.

        Returns
        -------
        products : ndarray, shape (r, r)
        traces : ndarray, shape (r,)
        """
        K = self.full_K(factors, reml)
        images = []
        for direction in directions:
            image = np.zeros_like(K)
            for term, rows, A, dS in zip(
                self._terms, self._slices, self._relationship, direction, strict=True
            ):
                if dS is None:
                    continue
                block = K[:, rows].reshape(self.q, term.m, term.k) @ dS
                if A is not None:
                    block = np.einsum("qak,ab->qbk", block, A)
                image[:, rows] = block.reshape(self.q, -1)
            images.append(image)
        r = len(images)
        products = np.empty((r, r))
        for i in range(r):
            for j in range(i + 1):
                products[i, j] = products[j, i] = np.sum(images[i] * images[j].T)
        return products, np.array([np.trace(image) for image in images])

    def solution(self, factors: Sequence[np.ndarray], reml: bool = True) -> Solution:
        """Estimates of beta and predictions of the random effects (the same for ML and REML)."""
        state = self._penalized(factors)
        R = self._fixed.R
        beta, vcov = np.zeros(0), np.zeros((0, 0))
        if self.p:
            beta = self._fixed.beta0 + np.linalg.solve(R, state.gamma)
            half = np.linalg.inv(state.RX.T @ R)  # X'V^{-1}X = R' RX RX' R
            vcov = half @ half.T
        u = tuple(
            state.u[rows].reshape(term.m, term.k)
            for term, rows in zip(self._terms, self._slices, strict=True)
        )
        return Solution(
            beta=beta,
            vcov_unscaled=vcov,
            u=u,
            b=tuple(ub @ np.asarray(factor).T for ub, factor in zip(u, factors, strict=True)),
            logdet_L2=state.logdet_M - self._logdet_P,
            logdet_RX2=state.logdet_RX2 + self._fixed.logdet_R2,
            pwrss=state.pwrss,
        )

    def conditional_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda M^{-1} Lambda'`` for one term, shape (m, k, k)."""
        from scipy.linalg import solve_triangular

        state = self._penalized(factors)
        info, rows = self._terms[term], self._slices[term]
        Lambda_t = self._Lambda(factors).T.tocsc()[:, rows].toarray()
        half = solve_triangular(state.L, Lambda_t, lower=True, check_finite=False)
        blocks = half.reshape(self.q, info.m, info.k)
        return np.einsum("qai,qaj->aij", blocks, blocks)

    # ------------------------------------------------------------------ for inference
    def fixed_products(
        self,
        factors: Sequence[np.ndarray],
        directions: Directions,
        second: bool = True,
        orthonormal: bool = False,
    ) -> FixedProducts:
        """``X'V^{-1}X`` and its changes with the covariance; see `FixedProducts`."""
        return dense_inference.fixed_products(self, factors, directions, second, orthonormal)

    def predictor_variance(
        self, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
    ) -> np.ndarray:
        """``Var[x'(beta^ - beta) + sum_b z_b'(b^_b - b_b)] / sigma^2`` for N rows, shape (N,)."""
        return dense_inference.predictor_variance(self, factors, X, rows)

    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses (n, N) that gives their beta^ (p, N) and b^ per term (m, k, N)."""
        return dense_inference.responses_at(self, factors)

    def fixed_random_covariance(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """``Cov(b^ - b, beta^) / sigma^2`` per term, shape (m, k, p)."""
        return dense_inference.fixed_random_covariance(self, factors)

    def random_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Var(b^ - b) / sigma^2`` for one term, shape (m, k, k)."""
        return dense_inference.random_covariance(self, factors, term)
