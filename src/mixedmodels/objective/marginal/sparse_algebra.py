"""`Algebra` of any sparse Z: rows may touch several levels of a term, levels may have a known covariance.

Every term is a factor of its own. A symmetric matrix is the flat array of its blocks on and below the
diagonal (`PenalizedMatrix`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mixedmodels.design import GeneralisedDesign, RandomTerm
from mixedmodels.objective.marginal.algebra import half_products
from mixedmodels.objective.marginal.row_pairs import RowPairs
from mixedmodels.solver.low_rank_sparse import by_columns
from mixedmodels.solver.penalized import PenalizedMatrix

__all__ = ["SparseAlgebra"]

_BATCH = 256


class SparseAlgebra:
    """Factors, pattern and factorised matrix of a design, each term a factor.

    Parameters
    ----------
    design : GeneralisedDesign
    entries : sequence of (term, row, column)
        Of `factor_entries`.
    """

    def __init__(self, design: GeneralisedDesign, entries: Sequence[tuple[int, int, int]]) -> None:
        from scipy import sparse

        n = design.n
        found = [by_columns(term, n) for term in design.terms]
        terms: list[RandomTerm] = [term for term, _ in found]
        self._maps = [J for _, J in found]
        self._levels = [(term.m, term.k) for term in design.terms]
        self.entries = list(entries)
        self.k, self.m = [term.k for term in terms], [term.m for term in terms]
        active = list(design.active)
        own = [active.index(c) for c in design.term_predictor]
        self._own = own
        self.predictors = [np.full(k, c, dtype=np.intc) for c, k in zip(own, self.k, strict=True)]
        self._precision: list[Any] = []
        self._logdet_P = 0.0
        for term in terms:
            between = term.precision
            self._precision.append(None if between is None else sparse.csc_array(between.matrix))
            self._logdet_P -= 0.0 if between is None else term.k * between.logdet_covariance
        self._Z = [sparse.csr_array(term.matrix(n)) for term in terms]
        whole = sparse.csr_array(sparse.hstack(self._Z, format="csr"))
        whole.sum_duplicates()
        self._Zt = [sparse.csr_array(Z.T) for Z in self._Z]
        self.penalized = PenalizedMatrix(whole, self.k, self.m, self._precision, -1, 0)
        self.q, self._slices = self.penalized.q, self.penalized.slices
        owner = np.repeat(np.array(own, dtype=np.int64), [m * k for m, k in zip(self.m, self.k, strict=True)])
        self._pairs = RowPairs(whole, owner, len(active), self.penalized)

    # ------------------------------------------------------------------ between terms and factors
    def factors(self, factors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Lambda of each term, (k, k)."""
        return [np.asarray(factor, dtype=np.float64) for factor in factors]

    def of_terms(self, parts: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Values by factor as values by level: a term of low rank has ``W`` times those of its columns."""
        out = []
        for part, J, (m, k) in zip(parts, self._maps, self._levels, strict=True):
            more = part.shape[2:]
            values = part if J is None else (J @ part.reshape(J.shape[1], -1)).reshape(m, k, *more)
            out.append(np.ascontiguousarray(values))
        return tuple(out)

    def from_terms(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Spherical effects by term; zeros for a term of low rank, whose levels do not tell its columns'."""
        shapes = zip(self.m, self.k, strict=True)
        empty = [np.zeros(shape) for shape in shapes]
        return [
            np.asarray(part) if J is None else zero
            for part, J, zero in zip(parts, self._maps, empty, strict=True)
        ]

    # ------------------------------------------------------------------ rows
    def effects(self, b: Sequence[np.ndarray], out: np.ndarray) -> None:
        """out (A, n) += Z b."""
        for Z, c, part in zip(self._Z, self._own, b, strict=True):
            out[c] += Z @ part.reshape(-1)

    def effects_many(self, b: Sequence[np.ndarray], out: np.ndarray, active: np.ndarray) -> None:
        """out (c, C, n) += Z b on the predictors `active`."""
        for Z, c, part in zip(self._Z, self._own, b, strict=True):
            out[:, active[c]] += (Z @ part.reshape(Z.shape[1], -1)).T

    @cached_property
    def _columns(self) -> list[list[Any]]:
        return [[Z[:, i::k] for i in range(k)] for Z, k in zip(self._Z, self.k, strict=True)]

    def column(self, f: int, i: int, values: np.ndarray) -> np.ndarray:
        """Column i of term f times values by level, (n,)."""
        return np.asarray(self._columns[f][i] @ values)

    def sums(self, r: np.ndarray) -> list[np.ndarray]:
        """Z'r by term for r (A, n)."""
        shapes = zip(self._Zt, self._own, self.m, self.k, strict=True)
        return [np.asarray(Zt @ r[c]).reshape(m, k) for Zt, c, m, k in shapes]

    def sums_many(self, r: np.ndarray) -> list[np.ndarray]:
        """Z'r by term, (m, k, c), for r (c, A, n)."""
        shapes = zip(self._Zt, self._own, self.m, self.k, strict=True)
        return [np.asarray(Zt @ r[:, c].T).reshape(m, k, len(r)) for Zt, c, m, k in shapes]

    def products(self, W: np.ndarray) -> np.ndarray:
        """Z'WZ for weights W, (A, A, n)."""
        return self._pairs.products(W)

    def products_many(self, W: np.ndarray) -> np.ndarray:
        """Stacked Z'WZ for W (c, A, A, n)."""
        return self._pairs.products_many(W)

    def quadratic(self, V: np.ndarray) -> np.ndarray:
        """``z_c'V z_d`` of every row, (A, A, n)."""
        return self._pairs.quadratic(V)

    # ------------------------------------------------------------------ blocks
    def transform(
        self, blocks: np.ndarray, left: Sequence[np.ndarray], right: Sequence[np.ndarray]
    ) -> np.ndarray:
        """``left_f' block right_g`` for every block; also of stacked blocks."""
        if blocks.ndim == 1:
            return self.penalized.map_blocks(blocks, left, right)
        return np.array([self.penalized.map_blocks(one, left, right) for one in blocks]).reshape(blocks.shape)

    def grams(self, A: np.ndarray, Q: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        """Sums over all blocks (f, g), f <= g, of ``A[i, k] Q[j, l]``, indexed [i, k, j, l]."""
        out = {}
        for a, b, part, once in self.penalized.groups:
            ka, kb = self.k[a], self.k[b]
            left, right = A[part].reshape(-1, ka * kb), Q[part].reshape(-1, ka * kb)
            T = (left.T @ right).reshape(ka, kb, ka, kb)
            if a != b:  # stored as (a, b) with a > b
                out[b, a] = T.transpose(1, 0, 3, 2)
                continue
            diagonal = (left[once].T @ right[once]).reshape(ka, ka, ka, ka)
            out[a, a] = T + (T - diagonal).transpose(1, 0, 3, 2)
        for f in range(len(self.k)):
            out.setdefault((f, f), np.zeros((self.k[f],) * 4))
            for g in range(f):
                out.setdefault((g, f), np.zeros((self.k[g], self.k[f]) * 2))
        return out

    def half_products(self, A: np.ndarray, Q: np.ndarray, Lambda: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sum of the level blocks of ``A Lambda Q``, (k, k) per term."""
        return half_products(self.grams(A, Q), Lambda)

    def half_products_many(
        self, A: np.ndarray, Q: np.ndarray, Lambda: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """`half_products` of stacked A, (k, k, c) per term."""
        found = [self.half_products(one, Q, Lambda) for one in A]
        return [np.stack([one[f] for one in found], axis=2) for f in range(len(self.k))]

    def add_change(
        self,
        H: np.ndarray,
        A: np.ndarray,
        Lambda: Sequence[np.ndarray],
        entry: tuple[int, int, int],
        share: slice,
        scale: Any,
    ) -> None:
        """Add the change of ``Lambda'A Lambda`` with one entry."""
        f, i, j = entry
        for a, b, part, _ in self.penalized.groups:
            if f not in (a, b):
                continue
            block = A[part].reshape(-1, self.k[a], self.k[b])
            into = H[share, part].reshape(-1, *block.shape)
            if a == f:
                into[:, :, j, :] += scale * (block[:, i, :] @ Lambda[b])
            if b == f:
                into[:, :, :, j] += scale * (block[:, :, i] @ Lambda[a])
            H[share, part] = into.reshape(len(into), -1)

    # ------------------------------------------------------------------ the factorised matrix
    def penalty(self, u: Sequence[np.ndarray]) -> list[np.ndarray]:
        """P u by term."""
        return [
            part if P is None else np.asarray(P @ part) for part, P in zip(u, self._precision, strict=True)
        ]

    def load(self, H: np.ndarray) -> float:
        """Factor ``H + P``; ``log|H + P| - log|P|``."""
        if not np.isfinite(H).all() or not self.penalized.factorise_blocks(H):
            raise FloatingPointError("the penalised matrix is not positive definite")
        return float(self.penalized.factor.logdet) - self._logdet_P

    def _solve(self, B: np.ndarray, mode: int = 0) -> np.ndarray:
        return np.asarray(self.penalized.factor.solve(np.ascontiguousarray(B), mode))

    def solve(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inverse times values by term, (m, k, c) each."""
        count = parts[0].shape[2]
        found = self._solve(np.concatenate([part.reshape(-1, count) for part in parts]))
        shapes = zip(self._slices, self.m, self.k, strict=True)
        return [found[where].reshape(m, k, count) for where, m, k in shapes]

    def inverse(self) -> np.ndarray:
        """Blocks of the inverse on the pattern."""
        return np.asarray(self.penalized.inverse_blocks())

    def level_blocks(self, Lambda: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of Lambda times the inverse times Lambda' by level of one term, (m, k, k)."""
        J, L, (m, k), own = self._maps[term], Lambda[term], self._levels[term], self._slices[term]
        if J is None:
            blocks = self.penalized.inverse_diagonal(term)
            return np.asarray(L @ blocks @ L.T)
        out = np.empty((m, k, k))
        for a in range(0, m, _BATCH):
            right = np.zeros((self.q, min(_BATCH, m - a) * k))
            right[own] = _pulled(L, J[a * k : (a + _BATCH) * k])
            half = self._solve(right, 1).reshape(self.q, -1, k)
            out[a : a + _BATCH] = np.einsum("qli,qlj->lij", half, half)
        return out

    def halves(self, Lambda: Sequence[np.ndarray], rows: Sequence[Any]) -> np.ndarray:
        """``L^{-1} Lambda'Z'`` with L the factor of ``H + P``, shape (q, N).

        Parameters
        ----------
        Lambda : sequence of ndarray
        rows : sequence of sparse matrices, shape (N, m k)
            Z by term, columns by level.
        """
        parts = []
        for Z, J, L in zip(rows, self._maps, Lambda, strict=True):
            parts.append(_pulled(L, Z if J is None else Z @ J))
        return self._solve(np.concatenate(parts), 1)

    # ------------------------------------------------------------------ curvature of the determinant
    def traces(self, H: np.ndarray, changes: np.ndarray, exact: bool) -> np.ndarray:
        """Products of the changes with the inverse; with the inverses of diagonal blocks unless `exact`."""
        found = self._exact_traces(changes) if exact else self._model_traces(H, changes)
        return 0.5 * (found + found.T)

    @cached_property
    def _whole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compressed rows of a matrix of all blocks, with the place of every entry in the lower ones."""
        from scipy import sparse

        rows, columns = self.penalized.block_entries
        off = np.flatnonzero(self.penalized.multiplicity == 2.0)
        place = np.concatenate([np.arange(len(rows)), off])
        ends = (np.concatenate([rows, columns[off]]), np.concatenate([columns, rows[off]]))
        found = sparse.csr_array((place + 1.0, ends), shape=(self.q, self.q))
        return found.indptr, found.indices, found.data.astype(np.int64) - 1

    def _matrix(self, blocks: np.ndarray) -> Any:
        """Blocks as a sparse matrix, (q, q)."""
        from scipy import sparse

        indptr, indices, place = self._whole
        return sparse.csr_array((blocks[place], indices, indptr), shape=(self.q, self.q))

    def _exact_traces(self, changes: np.ndarray) -> np.ndarray:
        """By solves with the columns of the changes, in batches."""
        matrices = [self._matrix(one) for one in changes]
        by_column = [one.tocsc() for one in matrices]
        P = len(changes)
        out = np.zeros((P, P))
        for start in range(0, self.q, _BATCH):
            stop = min(start + _BATCH, self.q)
            unit = np.zeros((self.q, stop - start))
            unit[np.arange(start, stop), np.arange(stop - start)] = 1.0
            X = self._solve(unit)
            left = [np.asarray(one @ X).reshape(-1) for one in matrices]
            right = [self._solve(one[:, start:stop].toarray()).reshape(-1) for one in by_column]
            out += np.array([[x @ y for y in right] for x in left]).reshape(P, P)
        return out

    def _model_traces(self, H: np.ndarray, changes: np.ndarray) -> np.ndarray:
        """With the inverses of the diagonal blocks in the place of the inverse."""
        inverses = []
        for f, P in enumerate(self._precision):
            total = np.zeros((self.m[f], self.k[f], self.k[f]))
            levels, blocks = self.penalized.diagonal_blocks(f, H)
            total[levels] = blocks
            own = np.ones(self.m[f]) if P is None else np.asarray(P.diagonal())
            inverses.append(np.linalg.inv(total + own[:, None, None] * np.eye(self.k[f])))
        count = len(changes)
        out = np.zeros((count, count))
        for a, b, part, once in self.penalized.groups:
            ka, kb = self.k[a], self.k[b]
            rows, columns = self.penalized.levels_of(a, b)
            change = changes[:, part].reshape(count, -1, ka, kb)
            left = inverses[a][rows] @ change
            right = change @ inverses[b][columns] * np.where(once, 1.0, 2.0)[:, None, None]
            out += left.reshape(count, -1) @ right.reshape(count, -1).T
        return out

    def matrix_of(self, H: np.ndarray) -> Any:
        """``H + P`` as `scipy.sparse.csc_array`, (q, q): effects by term, level, column."""
        from scipy import sparse

        parts = [
            sparse.eye_array(m * k) if P is None else sparse.kron(P, sparse.eye_array(k))
            for P, m, k in zip(self._precision, self.m, self.k, strict=True)
        ]
        return sparse.csc_array(self._matrix(H) + sparse.block_diag(parts, format="csr"))


def _pulled(L: np.ndarray, Z: Any) -> np.ndarray:
    """``(I kron L)'Z'`` for sparse Z (N, m k), dense, (m k, N)."""
    rows = Z.T.toarray()
    return np.asarray(np.einsum("ij,lic->ljc", L, rows.reshape(-1, len(L), rows.shape[1]))).reshape(
        rows.shape
    )
