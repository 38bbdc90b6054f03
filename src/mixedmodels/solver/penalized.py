"""The penalised matrix ``M = Lambda' Z'Z Lambda + P`` of any sparse Z: its pattern once, its values often.

The vertices of the pattern are the levels of the terms, with k columns each, so that every entry belongs to a
dense k_a x k_b block; only blocks on and below the diagonal are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver._kernels.sparse import SparseFactor, normal_products

__all__ = ["PenalizedMatrix", "PrecisionBlocks"]

_KRON_LIMIT = 36  # blocks of up to this many entries are multiplied by one Kronecker product

_FULL = 0.25  # share of entries of Z from which its products are those of dense matrices


class PrecisionBlocks:
    """Where the blocks of ``A^{-1} kron I`` of one term lie in the factor of M.

    Parameters
    ----------
    matrix : sparse matrix, shape (m, m), or None
        ``A^{-1}``; None stands for the identity.
    m, k, first : int
        Levels and columns of the term, its first column in Z.
    """

    def __init__(self, matrix: Any, m: int, k: int, first: int) -> None:
        from scipy import sparse

        self.k = k
        if matrix is None:
            rows = columns = np.arange(m)
            values = np.ones(m)
        else:
            lower = sparse.coo_array(sparse.tril(matrix))
            rows, columns, values = lower.row, lower.col, lower.data
        self.rows, self.columns, self.values = rows.astype(np.int64), columns.astype(np.int64), values
        self.off = self.rows != self.columns
        c = np.arange(k)
        shape = (len(values), k, k)
        self._entries = (
            np.broadcast_to(first + self.rows[:, None, None] * k + c[:, None], shape).ravel(),
            np.broadcast_to(first + self.columns[:, None, None] * k + c, shape).ravel(),
        )

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and values of the lower triangle of ``A^{-1} kron I``."""
        k = self.k
        on = (np.arange(len(self.values))[:, None] * k * k + np.arange(k) * (k + 1)).ravel()
        return self._entries[0][on], self._entries[1][on], np.repeat(self.values, k)

    def locate(self, factor: SparseFactor) -> None:
        """Find the blocks in a factor."""
        self.places = factor.places(*[np.ascontiguousarray(v, dtype=np.intc) for v in self._entries])

    def weighted_inverse(self, factor: SparseFactor) -> np.ndarray:
        """``sum_{l,l'} (A^{-1})_{ll'} (M^{-1})_{ll'}``, shape (k, k)."""
        blocks = factor.inverse_at(self.places).reshape(-1, self.k * self.k)
        on = (self.values[~self.off] @ blocks[~self.off]).reshape(self.k, self.k)
        off = (self.values[self.off] @ blocks[self.off]).reshape(self.k, self.k)
        return on + off + off.T


class PenalizedMatrix:
    """Cholesky factor of M for changing relative factors and changing values of Z.

    Parameters
    ----------
    Z : scipy.sparse.csr_array, shape (n, q)
        Explicit zeros count: they are part of the pattern.
    ks, ms : sequence of int
        Columns and levels of each term; the columns of Z are ordered by term, level, column.
    precisions : sequence
        ``A_b^{-1}`` (sparse) or None per term.
    cut, threads : int
        As for `SparseFactor`.
    """

    def __init__(
        self, Z: Any, ks: Sequence[int], ms: Sequence[int], precisions: Sequence[Any], cut: int, threads: int
    ) -> None:
        from scipy import sparse

        self.ks, self.ms = [int(k) for k in ks], [int(m) for m in ms]
        edges = np.cumsum([0, *(k * m for k, m in zip(self.ks, self.ms, strict=True))])
        self.q = int(edges[-1])
        self.slices = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        ones = sparse.csr_array((np.ones_like(Z.data), Z.indices, Z.indptr), shape=Z.shape)
        self._full = Z.nnz >= _FULL * Z.shape[0] * Z.shape[1]
        if self._full:
            whole = ones.toarray()
            pattern = sparse.csr_array(whole.T @ whole)
        else:
            pattern = sparse.csr_array(ones.T @ ones)
        pattern.sort_indices()
        self.pattern = (pattern.indptr, pattern.indices)
        self._z_pattern = (Z.indptr.copy(), Z.indices.copy())
        # Compressed columns of Z: a permutation of its values.
        numbered = sparse.csr_array((np.arange(1.0, Z.nnz + 1.0), Z.indices, Z.indptr), shape=Z.shape).tocsc()
        self._by_column = (numbered.indptr, numbered.indices, numbered.data.astype(np.intp) - 1)
        self._blocks(edges)
        self.penalty = [
            PrecisionBlocks(matrix, m, k, int(first))
            for matrix, m, k, first in zip(precisions, self.ms, self.ks, edges, strict=False)
        ]
        self._analyse(cut, threads)
        self.refresh(Z)

    # ------------------------------------------------------------------ the pattern
    def _blocks(self, edges: np.ndarray) -> None:
        """Blocks of Z'Z on and below the diagonal, grouped by pair of terms; where each entry belongs."""
        terms = len(self.ks)
        self._term = np.repeat(np.arange(terms), self.ms)  # of each vertex
        self._weights = np.repeat(self.ks, self.ms).astype(np.intp)
        first = np.concatenate([[0], np.cumsum(self._weights)]).astype(np.int64)
        self._first = first
        vertex = np.repeat(np.arange(len(self._weights)), self._weights)
        within = np.arange(self.q) - first[vertex] if self.q else np.zeros(0, dtype=np.int64)
        rows = np.repeat(np.arange(self.q), np.diff(self.pattern[0]))
        columns = self.pattern[1]
        va, vb = vertex[rows], vertex[columns]
        keep = np.flatnonzero(va >= vb)
        key = va[keep].astype(np.int64) * max(len(self._weights), 1) + vb[keep]
        if max(self.ks, default=1) == 1:
            blocks, number = key, np.arange(len(key))
        else:
            blocks, number = np.unique(key, return_inverse=True)
        ba, bb = np.divmod(blocks, max(len(self._weights), 1))
        pair = self._term[ba] * terms + self._term[bb]
        order = np.argsort(pair, kind="stable")
        sizes = self._weights[ba] * self._weights[bb]
        start = np.empty(len(blocks), dtype=np.int64)
        start[order] = np.concatenate([[0], np.cumsum(sizes[order])])[:-1]
        self._groups = []
        at = 0
        for code in np.unique(pair):
            a, b = divmod(int(code), terms)
            count = int(np.sum(pair == code))
            size = count * self.ks[a] * self.ks[b]
            self._groups.append((a, b, slice(at, at + size)))
            at += size
        self._size = at
        # Entries of Z'Z -> places in the flat blocks, row-major within each.
        width = self._weights[bb]
        inside = within[rows[keep]] * width[number] + within[columns[keep]]
        self._keep, self._slot = keep, start[number] + inside
        # Every entry of the blocks as (row, column) of M.
        own = np.repeat(np.arange(len(order)), sizes[order])
        local = np.arange(at) - np.repeat(start[order], sizes[order])
        r, c = np.divmod(local, width[order][own])
        self._rows = first[ba[order][own]] + r
        self._columns = first[bb[order][own]] + c
        self._edges = (ba, bb)

    def _analyse(self, cut: int, threads: int) -> None:
        from scipy import sparse

        count = len(self._weights)
        ba, bb = self._edges
        pairs = [(ba, bb)]
        offset = 0
        for part, m in zip(self.penalty, self.ms, strict=True):
            pairs.append((offset + part.rows, offset + part.columns))
            offset += m
        a, b = np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
        off = a != b
        a, b = a[off], b[off]
        graph = sparse.csr_array(
            (np.ones(2 * len(a)), (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(count, count)
        )
        graph.sum_duplicates()
        self.factor = SparseFactor(graph.indptr, graph.indices, self._weights, cut=cut, n_threads=threads)
        self._places = self.factor.places(self._rows.astype(np.intc), self._columns.astype(np.intc))
        self._lower = np.flatnonzero(self._rows >= self._columns)
        places, values = [self._places[self._lower]], []
        for part in self.penalty:
            part.locate(self.factor)
            rows, columns, data = part.entries()
            places.append(self.factor.places(rows.astype(np.intc), columns.astype(np.intc)))
            values.append(data)
        self._all_places = np.concatenate(places)
        self._penalty_values = np.concatenate([*values, np.zeros(0)])

    # ------------------------------------------------------------------ values
    def refresh(self, Z: Any) -> None:
        """Take other values of Z with the same pattern.

        Raises
        ------
        SolverError
            The pattern differs.
        """
        from scipy import sparse

        same = Z.nnz == len(self._z_pattern[1]) and np.array_equal(Z.indptr, self._z_pattern[0])
        if not same or not np.array_equal(Z.indices, self._z_pattern[1]):
            raise SolverError(
                "the new Z has another pattern than the one analysed; keep its explicit zeros, or make a new "
                "solver"
            )
        if self._full:
            whole = Z.toarray()
            rows = np.repeat(np.arange(self.q), np.diff(self.pattern[0]))
            data = (whole.T @ whole)[rows, self.pattern[1]]
        else:
            indptr, indices, source = self._by_column
            own = (indptr, indices, Z.data[source])
            data = normal_products(own, (Z.indptr, Z.indices, Z.data), self.pattern)
        self.ZtZ = sparse.csr_array((data, self.pattern[1], self.pattern[0]), shape=(self.q, self.q))
        self._flat = np.zeros(self._size)
        self._flat[self._slot] = data[self._keep]

    def map_blocks(
        self, flat: np.ndarray, left: Sequence[np.ndarray], right: Sequence[np.ndarray]
    ) -> np.ndarray:
        """``left_a' B right_b`` for every block."""
        out = np.empty_like(flat)
        for a, b, part in self._groups:
            ka, kb = self.ks[a], self.ks[b]
            if ka * kb == 1:
                np.multiply(flat[part], left[a][0, 0] * right[b][0, 0], out=out[part])
            elif ka * kb <= _KRON_LIMIT:
                blocks = flat[part].reshape(-1, ka * kb)
                np.matmul(blocks, np.kron(left[a], right[b]), out=out[part].reshape(-1, ka * kb))
            else:
                out[part] = (left[a].T @ (flat[part].reshape(-1, ka, kb) @ right[b])).ravel()
        return out

    def factorise(self, factors: Sequence[np.ndarray]) -> bool:
        """Factor M at these relative factors; whether it is positive definite."""
        return self.factorise_blocks(self.map_blocks(self._flat, factors, factors))

    def factorise_blocks(self, values: np.ndarray) -> bool:
        """Factor the penalty plus a matrix given by its lower blocks; whether it is positive definite."""
        return self.factor.factor(
            self._all_places, np.concatenate([values[self._lower], self._penalty_values])
        )

    def row_products(self, factors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """``sum_l sum_j (M^{-1})_{lj} lambda_j' (Z'Z)_{jl}`` over the levels l of each term, shape (k, k).

        Parameters
        ----------
        factors : sequence of ndarray
            Those that M was factored with.
        """
        inverse = self.inverse_blocks()
        out = [np.zeros((k, k)) for k in self.ks]
        on = self.multiplicity == 1.0
        for a, b, part in self._groups:
            ka, kb = self.ks[a], self.ks[b]
            shape = (-1, ka * kb)
            left, right = inverse[part].reshape(shape), self._flat[part].reshape(shape)
            diagonal = on[part].reshape(shape)[:, 0]
            sums = (left.T @ right).reshape(ka, kb, ka, kb)
            once = (left[diagonal].T @ right[diagonal]).reshape(ka, kb, ka, kb)
            out[a] += np.einsum("xyuv,vy->xu", sums, factors[b])
            out[b] += np.einsum("xyuv,ux->yv", sums - once, factors[a])
        return out

    def covariance_on_pattern(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Entries of ``Lambda M^{-1} Lambda'`` on the pattern of Z'Z, lower blocks, in their own order.

        Pair them with `block_values` of another matrix: ``tr(Lambda M^{-1} Lambda' F)`` is the sum of the
        products times `multiplicity`.
        """
        transposed = [factor.T for factor in factors]
        return self.map_blocks(self.inverse_blocks(), transposed, transposed)

    def inverse_blocks(self) -> np.ndarray:
        """Entries of ``M^{-1}`` on the pattern of Z'Z, as lower blocks."""
        return self.factor.inverse_at(self._places)

    def block_values(self, data: np.ndarray) -> np.ndarray:
        """Values on the pattern of Z'Z (row-compressed order) as lower blocks."""
        flat = np.zeros(self._size)
        flat[self._slot] = data[self._keep]
        return flat

    def inverse_diagonal(self, term: int) -> np.ndarray:
        """Diagonal blocks of ``M^{-1}`` of all levels of a term, (m, k, k), touched by rows or not."""
        k, m, first = self.ks[term], self.ms[term], self.slices[term].start
        columns = first + np.arange(m)[:, None] * k + np.arange(k)
        rows = np.repeat(columns, k, axis=1).reshape(-1).astype(np.intc)
        places = self.factor.places(rows, np.tile(columns, (1, k)).reshape(-1).astype(np.intc))
        return self.factor.inverse_at(places).reshape(m, k, k)

    @cached_property
    def groups(self) -> list[tuple[int, int, slice, np.ndarray]]:
        """By pair of terms (a, b), a >= b: its places in the lower blocks, and which are diagonal blocks."""
        on = self.multiplicity == 1.0
        return [
            (a, b, part, on[part].reshape(-1, self.ks[a] * self.ks[b])[:, 0]) for a, b, part in self._groups
        ]

    @property
    def block_entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of every entry of the lower blocks."""
        return self._rows, self._columns

    @cached_property
    def _levels(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        out = {}
        for a, b, part in self._groups:
            ka, kb = self.ks[a], self.ks[b]
            step = slice(part.start, part.stop, ka * kb)
            rows = (self._rows[step] - self.slices[a].start) // ka
            out[a, b] = (rows, (self._columns[step] - self.slices[b].start) // kb)
        return out

    def levels_of(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """Levels of the two terms in every block of a pair of terms."""
        return self._levels[a, b]

    def diagonal_blocks(self, term: int, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levels of a term that rows touch, and the diagonal blocks of a matrix there, (levels, k, k)."""
        k = self.ks[term]
        for a, b, part, once in self.groups:
            if a == b == term:
                return self._levels[a, b][0][once], flat[part].reshape(-1, k, k)[once]
        return np.zeros(0, dtype=np.int64), np.zeros((0, k, k))

    def is_lower(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Whether entries lie in blocks on or below the diagonal."""
        vertex = np.repeat(np.arange(len(self._weights)), self._weights)
        return np.asarray(vertex[rows] >= vertex[columns])

    @cached_property
    def slots(self) -> np.ndarray:
        """Place among the lower blocks of every entry of the pattern, or of its mirror image."""
        out = np.empty(len(self.pattern[1]), dtype=np.int64)
        out[self._keep] = self._slot
        above = np.ones(len(out), dtype=bool)
        above[self._keep] = False
        rows, columns = np.divmod(self.pattern_keys[above], self.q)
        out[above] = out[np.searchsorted(self.pattern_keys, columns * self.q + rows)]
        return out

    @cached_property
    def pattern_keys(self) -> np.ndarray:
        """``row q + column`` of every entry of Z'Z, ascending."""
        rows = np.repeat(np.arange(self.q, dtype=np.int64), np.diff(self.pattern[0]))
        return rows * self.q + self.pattern[1]

    @cached_property
    def multiplicity(self) -> np.ndarray:
        """How often an entry of the lower blocks stands in the whole matrix: 1 in diagonal blocks, else 2."""
        vertex = np.repeat(np.arange(len(self._weights)), self._weights)
        return np.where(vertex[self._rows] == vertex[self._columns], 1.0, 2.0)
