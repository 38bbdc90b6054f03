r"""One grouping factor with many columns, of which each level uses few: times, places.

With o the columns that the rows of level l use, :math:`A_l = Z_l'WZ_l`, :math:`B_l = Z_l'W[X\ y]` on them and
:math:`J_l = (I + A_l\Sigma_{oo})^{-1}`,

.. math::
    Z'V^{-1}Z = J A, \quad Z'V^{-1}[X\ y] = J B, \quad \log|V| = -\sum_l \log|J_l|, \quad
    C = \Lambda M^{-1}\Lambda' = \Sigma - \Sigma_{\cdot o}\, J A\, \Sigma_{o\cdot},

so that the work is cubic in the columns a level uses, not in all of them. Levels with equally many columns
are worked through together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Breakdown, Components, Directions, Solution
from mixedmodels.solver.inference import InferenceProducts
from mixedmodels.solver.scaling import Standardised, standardise

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = ["SubsetSolver"]


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """Levels that use equally many columns.

    Attributes
    ----------
    levels : ndarray of intp, shape (c,)
    columns : ndarray of intp, shape (c, u)
    flat : ndarray of intp, shape (c u u,)
        Places of the blocks in a k x k matrix.
    A : ndarray, shape (c, u, u)
    B, E : ndarray, shape (c, u, p + 1)
        ``Z'W[X y]`` and ``A^+ B``.
    """

    levels: np.ndarray
    columns: np.ndarray
    flat: np.ndarray
    A: np.ndarray
    B: np.ndarray
    E: np.ndarray

    def block(self, matrix: np.ndarray) -> np.ndarray:
        """The rows and columns each level uses of a (k, k) matrix, (c, u, u)."""
        return matrix[self.columns[:, :, None], self.columns[:, None, :]]


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What one covariance matrix gives: per class J A and J B, and the fixed part."""

    Sigma: np.ndarray
    K: list[np.ndarray]
    H: list[np.ndarray]
    logdet: float
    R: np.ndarray  # upper triangular, X'V^{-1}X = R'R
    gamma: np.ndarray  # R^{-T} X'V^{-1}y
    pwrss: float

    def beta(self) -> np.ndarray:
        return np.linalg.solve(self.R, self.gamma) if self.R.size else np.zeros(0)


class SubsetSolver(InferenceProducts):
    """Solver for one grouping factor with independent levels; see the module for the algorithm.

    Parameters
    ----------
    design : Design
    """

    name = "subsets"
    reason = ""
    evaluator: Any = None

    def __init__(self, design: Design) -> None:
        from scipy import sparse

        self.design, self.n, self.p = design, design.n, design.p
        terms = design.terms
        if len({id(term.codes) for term in terms}) != 1 or any(t.precision is not None for t in terms):
            raise SolverError('solver="subsets" treats one grouping factor with independent levels')
        std = standardise(design)
        plain = tuple((term.Z, None, None) for term in terms)
        self.standardised: Standardised = replace(std, T=(None,) * len(terms), columns=plain)
        stops = np.cumsum([0, *[term.k for term in terms]])
        self._place = tuple((0, int(b) - term.k, int(b)) for b, term in zip(stops[1:], terms, strict=True))
        self._k = [int(stops[-1])]
        self.m, k, codes = terms[0].m, self._k[0], terms[0].codes
        parts = [sparse.csr_array(np.ones((self.n, 1)) if t.Z is None else t.Z) for t in terms]
        Z = sparse.coo_array(sparse.hstack(parts))
        weight = np.ones(self.n) if std.sqrt_weights is None else std.sqrt_weights
        pairs, inverse = np.unique(codes[Z.row].astype(np.int64) * k + Z.col, return_inverse=True)
        # every (level, column) that occurs is a column of its own
        own = sparse.csr_array(
            (Z.data * weight[Z.row], (Z.row, inverse.reshape(-1))), shape=(self.n, len(pairs))
        )
        Xy = np.column_stack([std.X, std.y])
        gram, right = sparse.coo_array(own.T @ own), np.asarray(own.T @ Xy)
        self._classes, means = _classes(pairs, gram, right, k)
        # what the columns leave of X and y: from the residuals, so that one row a cell leaves exactly 0
        rest = Xy - np.asarray(own @ means)
        self._within = rest.T @ rest
        ZX = np.zeros((self.m, k, self.p))
        ZX.reshape(self.m * k, self.p)[pairs] = right[:, : self.p]
        factor = SimpleNamespace(group=terms[0].group, m=self.m, k=k, ZX=ZX, precision=None)
        self.pack: Any = SimpleNamespace(factors=(factor,))

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        most = max(part.columns.shape[1] for part in self._classes)
        return f"subsets: {self.m} levels x {self._k[0]} columns, at most {most} used by one; {self.n} rows"

    def nu(self, reml: bool) -> int:
        """Divisor of pwrss: n - p (REML) or n (ML)."""
        return self.n - self.p if reml else self.n

    # ------------------------------------------------------------------ one covariance matrix
    def _lam(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Sigma of all terms, (k, k), block diagonal."""
        out = np.zeros((self._k[0], self._k[0]))
        for (_, lo, hi), factor in zip(self._place, factors, strict=True):
            factor = np.asarray(factor)
            out[lo:hi, lo:hi] = factor @ factor.T
        return out

    def _dS(self, directions: Directions) -> np.ndarray:
        k = self._k[0]
        out = np.zeros((len(directions), k, k))
        for D, direction in zip(out, directions, strict=True):
            for (_, lo, hi), dS in zip(self._place, direction, strict=True):
                if dS is not None:
                    D[lo:hi, lo:hi] = dS
        return out.reshape(len(directions), k * k)

    def _working_evaluator(self, reml: bool) -> Any:
        return None

    def _state(self, Sigma: np.ndarray) -> _State:
        if not np.all(np.isfinite(Sigma)):
            raise Breakdown("the covariance matrix of the random effects is not finite")
        K, H, logdet = [], [], 0.0
        total = self._within.copy()
        for part in self._classes:
            u = part.A.shape[1]
            inner = part.A @ part.block(Sigma)
            inner[:, np.arange(u), np.arange(u)] += 1.0
            signs, logs = np.linalg.slogdet(inner)
            if not np.all(signs > 0.0):
                raise Breakdown("I + A Sigma is singular")
            logdet += float(logs.sum())
            both = np.linalg.solve(inner, np.concatenate([part.A, part.B], axis=2))
            K_l = both[:, :, :u]
            K.append(0.5 * (K_l + K_l.transpose(0, 2, 1)))
            H.append(both[:, :, u:])
            width = total.shape[0]
            total += part.E.reshape(-1, width).T @ both[:, :, u:].reshape(-1, width)
        p = self.p
        total = 0.5 * (total + total.T)
        try:
            R = np.linalg.cholesky(total[:p, :p]).T
        except np.linalg.LinAlgError:
            raise Breakdown("X'V^{-1}X is not positive definite") from None
        gamma = np.linalg.solve(R.T, total[:p, p]) if p else np.zeros(0)
        return _State(Sigma, K, H, logdet, R, gamma, float(total[p, p] - gamma @ gamma))

    # ------------------------------------------------------------------ the contract
    def components(
        self,
        factors: Sequence[np.ndarray],
        order: int = 0,
        directions: Directions | None = None,
        reml: bool = True,
    ) -> Components:
        """Parts of the criterion (order 0), of its gradient (1) and of the average information (2)."""
        state = self._state(self._lam(factors))
        if not state.pwrss > 0.0:
            raise Breakdown("the model reproduces the response exactly")
        std, p, k = self.standardised, self.p, self._k[0]
        s2 = std.y_scale**2
        logdet_RX2 = 2.0 * float(np.log(np.diagonal(state.R)).sum()) - 2.0 * std.logdet_T_X
        if order == 0:
            return Components(state.logdet, logdet_RX2, s2 * state.pwrss)
        beta = state.beta()
        Ri = np.linalg.inv(state.R) if p else np.zeros((0, 0))
        T, S = np.zeros(k * k), np.zeros(k * k)
        c, half = [], []
        for part, K, H in zip(self._classes, state.K, state.H, strict=True):
            c_l = H[:, :, p] - H[:, :, :p] @ beta
            half_l = H[:, :, :p] @ Ri
            blocks = K - half_l @ half_l.transpose(0, 2, 1) if reml else K
            T += np.bincount(part.flat, blocks.ravel(), k * k)
            S += np.bincount(part.flat, (c_l[:, :, None] * c_l[:, None, :]).ravel(), k * k)
            c.append(c_l)
            half.append(half_l)
        wpw = np.zeros((0, 0))
        if order >= 2 and directions:
            dS = self._dS(directions).reshape(-1, k, k)
            r = len(dS)
            wpw, rest = np.zeros((r, r)), np.zeros((r, p))
            for part, K, c_l, half_l in zip(self._classes, state.K, c, half, strict=True):
                w = np.array([np.einsum("cij,cj->ci", part.block(D), c_l) for D in dS])
                wpw += np.einsum("rci,sci->rs", w, np.einsum("cij,scj->sci", K, w))
                rest += np.einsum("rci,cip->rp", w, half_l)
            wpw = s2 * (wpw - rest @ rest.T)
        return Components(
            state.logdet,
            logdet_RX2,
            s2 * state.pwrss,
            tuple(T.reshape(k, k)[lo:hi, lo:hi] for _, lo, hi in self._place),
            tuple(s2 * S.reshape(k, k)[lo:hi, lo:hi] for _, lo, hi in self._place),
            wpw,
        )

    def solution(self, factors: Sequence[np.ndarray], reml: bool = True) -> Solution:
        """Estimates of beta and predictions of the random effects."""
        factors = [np.asarray(factor, dtype=np.float64) for factor in factors]
        state, std, p = self._state(self._lam(factors)), self.standardised, self.p
        beta = state.beta()
        c = np.zeros((self.m, self._k[0]))
        for part, H in zip(self._classes, state.H, strict=True):
            c[part.levels[:, None], part.columns] = H[:, :, p] - H[:, :, :p] @ beta
        s = std.y_scale
        u = [s * (c[:, lo:hi] @ factor) for (_, lo, hi), factor in zip(self._place, factors, strict=True)]
        half = std.T_X @ np.linalg.inv(state.R) if p else np.zeros((0, 0))
        return Solution(
            beta=std.beta0 + s * std.T_X.dot(beta),
            vcov_unscaled=half @ half.T,
            u=tuple(u),
            b=tuple([modes @ factor.T for modes, factor in zip(u, factors, strict=True)]),
            logdet_L2=state.logdet,
            logdet_RX2=2.0 * float(np.log(np.diagonal(state.R)).sum()) - 2.0 * std.logdet_T_X,
            pwrss=s * s * state.pwrss,
        )

    def conditional_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda M^{-1} Lambda'`` for one term, shape (m, k, k)."""
        _, lo, hi = self._place[term]
        return self._posterior(self._lam(factors))[:, lo:hi, lo:hi]

    def _posterior(self, Sigma: np.ndarray) -> np.ndarray:
        """C of every level, (m, k, k); columns without rows have their share by their correlations."""
        state = self._state(Sigma)
        out = np.broadcast_to(Sigma, (self.m, *Sigma.shape)).copy()
        for part, K in zip(self._classes, state.K, strict=True):
            rows = Sigma[part.columns]  # (c, u, k)
            out[part.levels] -= rows.transpose(0, 2, 1) @ K @ rows
        return out

    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses R, shape (n, N), without offset: beta^ (p, N) and b^ per term (m, k, N)."""
        state, std = self._state(self._lam(factors)), self.standardised
        Ri = np.linalg.inv(state.R) if self.p else np.zeros((0, 0))
        C = self._posterior(state.Sigma)
        weight: Any = np.ones((self.n, 1))
        if std.sqrt_weights is not None:
            weight = np.asarray(std.sqrt_weights)[:, None]
        codes = self.design.terms[0].codes
        columns: list[Any] = [np.ones((self.n, 1)) if t.Z is None else t.Z for t in self.design.terms]
        F = C @ self.pack.factors[0].ZX

        def estimate(R: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
            Y = np.asarray(R, dtype=np.float64) * weight
            ZY = np.zeros((self.m, self._k[0], Y.shape[1]))
            for (_, lo, hi), Z in zip(self._place, columns, strict=True):
                for j in range(lo, hi):
                    used = np.flatnonzero(Z[:, j - lo])
                    value = Z[used, j - lo, None] * (
                        Y[used] * (weight if np.isscalar(weight) else weight[used])
                    )
                    np.add.at(ZY[:, j], codes[used], value)
            CZY = C @ ZY
            XVY = std.X.T @ Y - np.einsum("mkp,mkN->pN", F, ZY)
            beta = Ri @ (Ri.T @ XVY)
            b = CZY - F @ beta
            return std.T_X @ beta, tuple(b[:, lo:hi] for _, lo, hi in self._place)

        return estimate

    # ------------------------------------------------------------------ hooks of inference
    def _trace_products(
        self, evaluator: Any, lam: np.ndarray, dS: np.ndarray, reml: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        products, HDH = self._projected_traces(evaluator, lam, dS, reml)
        k = self._k[0]
        total = np.zeros(k * k)
        for part, K in zip(self._classes, self._state(lam).K, strict=True):
            total += np.bincount(part.flat, K.ravel(), k * k)
        traces = dS @ total
        if HDH is not None:
            Ri = np.linalg.inv(self._root(evaluator, lam))
            traces = traces - np.einsum("iab,ab->i", HDH, Ri @ Ri.T)
        return products, traces

    def _trace_ml(self, evaluator: Any, lam: np.ndarray, dS: np.ndarray) -> np.ndarray:
        k, r = self._k[0], len(dS)
        out = np.zeros((r, r))
        for part, K in zip(self._classes, self._state(lam).K, strict=True):
            images = [K @ part.block(D) for D in dS.reshape(r, k, k)]
            for i in range(r):
                turned = images[i].transpose(0, 2, 1)
                for j in range(i + 1):
                    out[i, j] += float(np.sum(turned * images[j]))
        return out + np.tril(out, -1).T

    def _root(self, evaluator: Any, lam: np.ndarray) -> np.ndarray:
        return self._state(lam).R

    def _project(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        out = np.zeros((self.m, self._k[0], self.p))
        for part, H in zip(self._classes, self._state(lam).H, strict=True):
            out[part.levels[:, None], part.columns] = H[:, :, : self.p]
        return [out]

    def _K_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        out = np.zeros_like(parts[0])
        for part, K in zip(self._classes, self._state(lam).K, strict=True):
            at = part.levels[:, None], part.columns
            out[at] = K @ parts[0][at]
        return [out]

    def _C_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        return [self._posterior(lam) @ parts[0]]

    def _covariance_times(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        return self._C_times(evaluator, lam, [self.pack.factors[0].ZX])

    def _selected(self, evaluator: Any, lam: np.ndarray) -> _Selected:
        return _Selected(self._posterior(lam))

    @cached_property
    def trace_work(self) -> float:
        """About how many multiplications the traces of the observed information take."""
        return float(sum(part.A.shape[0] * part.A.shape[1] ** 3 for part in self._classes))


class _Selected:
    """Blocks of C; levels are independent."""

    def __init__(self, blocks: np.ndarray) -> None:
        self._blocks = blocks

    def diagonal(self, factor: int) -> np.ndarray:
        return self._blocks


def _classes(pairs: np.ndarray, gram: Any, right: np.ndarray, k: int) -> tuple[list[_Class], np.ndarray]:
    """Levels by the number of columns they use, and ``A^+ B`` of all of them, (q, p + 1).

    Parameters
    ----------
    pairs : ndarray of int64, shape (q,)
        ``level k + column`` of every pair that occurs, ascending.
    gram : sparse coo_array, shape (q, q)
        Block diagonal: blocks of one level.
    right : ndarray, shape (q, p + 1)
    k : int
    """
    level, column = pairs // k, pairs % k
    occurring, first, used = np.unique(level, return_index=True, return_counts=True)
    number = np.searchsorted(occurring, level)
    local = np.arange(len(pairs)) - first[number]
    means = np.zeros(right.shape)
    out = []
    for u in np.unique(used).tolist():
        mine = np.flatnonzero(used == u)
        place = np.full(len(occurring), -1)
        place[mine] = np.arange(len(mine))
        A = np.zeros((len(mine), u, u))
        inside = place[number[gram.row]] >= 0
        rows, columns = gram.row[inside], gram.col[inside]
        A[place[number[rows]], local[rows], local[columns]] = gram.data[inside]
        own = first[mine][:, None] + np.arange(u)
        B = right[own]
        E = np.linalg.pinv(A, hermitian=True) @ B if u > 1 else B / A
        means[own] = E
        cols = column[own]
        flat = (cols[:, :, None] * k + cols[:, None, :]).ravel()
        out.append(_Class(occurring[mine], cols, flat, A, np.ascontiguousarray(B), E))
    return out, means
