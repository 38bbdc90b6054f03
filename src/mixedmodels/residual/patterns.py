r"""Correlations by pattern: groups observed at the same visits or positions share one Cholesky factor.

The correlation of two rows of a group depends on a *key* computed from their features (their pair of visits,
their lag in time, their distance): :math:`C_{ab} = f(\text{key}_{ab}; \phi)`. Distinct keys form a table,
so f and its derivatives are evaluated once per key; groups with equal features form a pattern, so each
pattern of T rows needs one factorisation :math:`C = LL'`, :math:`W = L^{-1}`, whatever the number of its
groups."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Bucket", "PatternOrder", "PatternPoint"]

_SMALL = 24  # size from which LAPACK's triangular inverse, matrix by matrix, beats the batched general one
_LOOP = 8  # groups per pattern from which one product per pattern beats a batch of small products


class Bucket(NamedTuple):
    """Groups of one size.

    Attributes
    ----------
    rows : ndarray of intp, shape (T, G)
        Rows of each group (a column), groups sorted by pattern.
    pattern : ndarray of intp, shape (G,)
    counts : ndarray of intp, shape (P,)
        Groups of each pattern.
    places : ndarray of intp, shape (P, T, T)
        Place of each entry in the table of correlations; place 0 is the constant 1 of the diagonal.
    """

    rows: np.ndarray
    pattern: np.ndarray
    counts: np.ndarray
    places: np.ndarray


class PatternOrder:
    """Rows bucketed by group size and pattern, and the table of distinct keys.

    Parameters
    ----------
    codes : ndarray of intp, shape (n,)
        Groups.
    features : ndarray of float64, shape (n, f)
    key : callable
        (features a, features b) -> keys, elementwise over leading axes.
    sort : bool
        Whether rows are sorted by their first feature within groups (otherwise: order of the data).
    relative : bool
        Whether keys depend on differences of features only: patterns that are shifted against each other are
        the same.
    diagonal : bool
        Whether the table holds the variances of rows, too (keys of a row with itself); otherwise they are 1.

    Attributes
    ----------
    keys : ndarray of float64, shape (m,)
        Distinct keys of pairs of different rows.
    buckets : tuple of Bucket
    """

    __slots__ = ("buckets", "keys", "n")

    def __init__(
        self,
        codes: np.ndarray,
        features: np.ndarray,
        key: Callable[[np.ndarray, np.ndarray], np.ndarray],
        *,
        sort: bool,
        relative: bool,
        diagonal: bool = False,
    ) -> None:
        self.n = codes.shape[0]
        offset = 0 if diagonal else -1
        order = np.lexsort((features[:, 0], codes)) if sort else np.argsort(codes, kind="stable")
        sizes = np.bincount(codes)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        found = []
        for size in np.unique(sizes[sizes > 0]).tolist():
            groups = np.flatnonzero(sizes == size)
            rows = order[starts[groups][:, None] + np.arange(size)]  # (G, T)
            values = features[rows]  # (G, T, f)
            if relative:
                values = values - values[:, :1]
            flat = values.reshape(len(groups), -1)
            if (size == 1 and not diagonal) or bool((flat == flat[0]).all()):  # all alike
                pattern, counts = np.zeros(len(groups), np.intp), np.array([len(groups)])
                distinct = values[:1]
            else:
                _, first, pattern, counts = np.unique(
                    flat, axis=0, return_index=True, return_inverse=True, return_counts=True
                )
                pattern = pattern.reshape(-1)
                distinct = values[first]
            by_pattern = np.argsort(pattern, kind="stable")
            keys = key(distinct[:, :, None, :], distinct[:, None, :, :])  # (P, T, T)
            found.append((rows[by_pattern].T.copy(), pattern[by_pattern], counts, keys))
        # Keys of pairs below the diagonal; the key of a pair does not depend on its order.
        triangles = [_triangle(keys.shape[1], offset) for *_, keys in found]
        lower = [keys[:, a, b].ravel() for (*_, keys), (a, b) in zip(found, triangles, strict=True)]
        self.keys, inverse = np.unique(np.concatenate(lower), return_inverse=True)
        buckets, done = [], 0
        for (rows, pattern, counts, keys), below, (a, b) in zip(found, lower, triangles, strict=True):
            index = np.zeros(keys.shape, np.intp)
            places = inverse[done : done + below.shape[0]].reshape(keys.shape[0], -1) + 1
            index[:, a, b] = places
            index[:, b, a] = places
            done += below.shape[0]
            buckets.append(Bucket(rows, pattern, counts, index))
        self.buckets = tuple(buckets)


def _triangle(size: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the entries below the diagonal (offset -1), or with it (0), row by row."""
    widths = np.arange(1, size + 1) + offset
    rows = np.arange(size).repeat(widths)
    return rows, np.arange(rows.shape[0]) - (widths.cumsum() - widths).repeat(widths)


class PatternPoint:
    """Operations of a correlation by pattern at one phi.

    Parameters
    ----------
    order : PatternOrder
    values : ndarray, shape (m,)
        Correlations of the keys.
    n_phi : int
    first : callable
        () -> their derivatives, shape (n_phi, m); called when first needed.
    second : callable
        () -> ndarray of shape (n_phi, n_phi, m), or (i, j) -> shape (m,); see `pairwise`.
    """

    def __init__(
        self,
        order: PatternOrder,
        values: np.ndarray,
        n_phi: int,
        first: Callable[[], np.ndarray],
        second: Callable[[int, int], np.ndarray],
    ) -> None:
        self._order = order
        self.n_phi = n_phi
        self._values = np.concatenate([[1.0], values])
        self._make_first = first
        self._second = second
        self._seconds: dict[tuple[int, int], np.ndarray] = {}
        self._changes: dict[int, list[np.ndarray]] = {}
        if not np.all(np.isfinite(self._values)):
            raise FloatingPointError("a correlation is not finite")
        self._W: list[np.ndarray] = []
        self._L: list[np.ndarray] = []
        self.logdet = 0.0
        for bucket in order.buckets:
            C = self._values[bucket.places]
            try:
                L = np.linalg.cholesky(C)
            except np.linalg.LinAlgError:
                raise FloatingPointError("the residual correlation is not positive definite") from None
            W = _triangular_inverse(L)
            self._W.append(W)
            self._L.append(L)
            diagonals = np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
            self.logdet += 2.0 * float(bucket.counts @ diagonals)

    @cached_property
    def _first(self) -> np.ndarray:
        """Derivatives of the table, the constant of the diagonal included."""
        return np.concatenate([np.zeros((self.n_phi, 1)), self._make_first()], axis=1)

    @cached_property
    def _inverse(self) -> list[np.ndarray]:
        """C^{-1} of each pattern, by bucket."""
        return [W.transpose(0, 2, 1) @ W for W in self._W]

    @cached_property
    def _weights(self) -> np.ndarray:
        """Sums of entries of C^{-1} by key."""
        out = np.zeros(self._values.shape[0])
        for inverse, bucket in zip(self._inverse, self._order.buckets, strict=True):
            weighted = inverse * bucket.counts[:, None, None]
            out += np.bincount(bucket.places.ravel(), weighted.ravel(), out.shape[0])
        return out

    @cached_property
    def trace(self) -> np.ndarray:
        """Traces ``tr(D_j)``."""
        return self._first @ self._weights

    @property
    def variances(self) -> np.ndarray:
        """Diagonal of C, shape (n,)."""
        out = np.empty(self._order.n)
        for bucket in self._order.buckets:
            diagonal = np.diagonal(self._values[bucket.places], axis1=1, axis2=2)
            out[bucket.rows] = diagonal[bucket.pattern].T
        return out

    def _change(self, j: int) -> list[np.ndarray]:
        """D_j of each pattern, by bucket."""
        found = self._changes.get(j)
        if found is None:
            table = self._first[j]
            found = self._changes[j] = [
                W @ table[bucket.places] @ W.transpose(0, 2, 1)
                for W, bucket in zip(self._W, self._order.buckets, strict=True)
            ]
        return found

    def _bend(self, i: int, j: int) -> np.ndarray:
        """Second derivatives of the table."""
        key = (min(i, j), max(i, j))
        found = self._seconds.get(key)
        if found is None:
            found = self._seconds[key] = np.concatenate([[0.0], self._second(*key)])
        return found

    def _apply(self, matrices: list[np.ndarray], M: np.ndarray) -> np.ndarray:
        """Multiply the rows of each group by the matrix of its pattern."""
        out = np.empty_like(M, order="C")
        c = M.shape[1]
        for matrix, bucket in zip(matrices, self._order.buckets, strict=True):
            T, G = bucket.rows.shape
            if T == 1:
                out[bucket.rows[0]] = matrix[bucket.pattern, 0] * M[bucket.rows[0]]
                continue
            P = matrix.shape[0]
            X = M[bucket.rows]  # (T, G, c)
            if P * _LOOP <= G or P == 1:
                stop = 0
                for one, count in zip(matrix, bucket.counts.tolist(), strict=True):
                    start, stop = stop, stop + count
                    block = one @ X[:, start:stop].reshape(T, count * c)
                    out[bucket.rows[:, start:stop]] = block.reshape(T, count, c)
            else:
                block = matrix[bucket.pattern] @ X.transpose(1, 0, 2)  # (G, T, c)
                out[bucket.rows] = block.transpose(1, 0, 2)
        return out

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``."""
        return self._apply(self._W, M)

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-1} M``."""
        return self._apply(self._L, M)

    def whiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W' M``."""
        return self._apply([W.transpose(0, 2, 1) for W in self._W], M)

    def unwhiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-T} M``."""
        return self._apply([L.transpose(0, 2, 1) for L in self._L], M)

    def _sums(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Sums of the entries of ``W'A B'W`` by key, over all groups."""
        U = self.whiten_adjoint(A)
        V = U if B is A else self.whiten_adjoint(B)
        out = np.zeros(self._values.shape[0])
        for bucket in self._order.buckets:
            T, G = bucket.rows.shape
            X, Y = U[bucket.rows], V[bucket.rows]  # (T, G, c)
            P = bucket.counts.shape[0]
            if P * _LOOP <= G or P == 1:
                S, stop = np.empty((P, T, T)), 0
                for p, count in enumerate(bucket.counts.tolist()):
                    start, stop = stop, stop + count
                    S[p] = X[:, start:stop].reshape(T, -1) @ Y[:, start:stop].reshape(T, -1).T
                places = bucket.places
            else:
                S = X.transpose(1, 0, 2) @ Y.transpose(1, 2, 0)  # (G, T, T)
                places = bucket.places[bucket.pattern]
            out += np.bincount(places.ravel(), S.ravel(), out.shape[0])
        return out

    def forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Traces ``tr(A'D_jB)``, shape (n_phi,), from sums over the groups of a pattern."""
        return self._first @ self._sums(A, B)

    def second_forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Traces ``tr(A'D_ijB)``, shape (n_phi, n_phi)."""
        sums = self._sums(A, B)
        out = np.empty((self.n_phi, self.n_phi))
        for i in range(self.n_phi):
            for j in range(i + 1):
                out[i, j] = out[j, i] = float(self._bend(i, j) @ sums)
        return out

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_j M``."""
        if j not in self._changes and self._is_narrow(M):
            return self._through(self._first[j], M)
        return self._apply(self._change(j), M)

    def _is_narrow(self, M: np.ndarray) -> bool:
        """Whether three products with M are less work than the matrices D of all patterns."""
        narrow = wide = 0
        for bucket in self._order.buckets:
            T, G = bucket.rows.shape
            narrow += G * M.shape[1] * T * T
            wide += bucket.counts.shape[0] * T**3
        return narrow < wide

    def _through(self, table: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``W T W' M`` for the matrix T of a table, from right to left."""
        matrices = [table[bucket.places] for bucket in self._order.buckets]
        return self.whiten(self._apply(matrices, self.whiten_adjoint(M)))

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_ij M``."""
        table = self._bend(i, j)
        if not table.any():
            return np.zeros_like(M, order="C")
        if self._is_narrow(M):
            return self._through(table, M)
        return self._apply(
            [
                W @ table[bucket.places] @ W.transpose(0, 2, 1)
                for W, bucket in zip(self._W, self._order.buckets, strict=True)
            ],
            M,
        )

    @property
    def trace_products(self) -> np.ndarray:
        """Traces ``tr(D_i D_j)``."""
        k = self.n_phi
        out = np.zeros((k, k))
        for inverse, bucket in zip(self._inverse, self._order.buckets, strict=True) if k else ():
            S = np.stack([inverse @ self._first[j][bucket.places] for j in range(k)])
            mirror = np.ascontiguousarray(S.transpose(0, 1, 3, 2))
            out += (S * bucket.counts[:, None, None]).reshape(k, -1) @ mirror.reshape(k, -1).T
        return (out + out.T) / 2.0

    @property
    def trace_seconds(self) -> np.ndarray:
        """Traces ``tr(D_ij)``."""
        weights = self._weights
        out = np.empty((self.n_phi, self.n_phi))
        for i in range(self.n_phi):
            for j in range(i, self.n_phi):
                out[i, j] = out[j, i] = self._bend(i, j) @ weights
        return out

    def hadamard(self, M: np.ndarray) -> np.ndarray:
        """``(C * C^{-1}) M``, * entry by entry."""
        pairs = zip(self._inverse, self._order.buckets, strict=True)
        return self._apply([self._values[bucket.places] * inverse for inverse, bucket in pairs], M)

    def diagonal(self, j: int) -> np.ndarray:
        """Diagonal of ``dC_j C^{-1}``, shape (n,)."""
        out = np.empty(self._order.n)
        table = self._first[j]
        for inverse, bucket in zip(self._inverse, self._order.buckets, strict=True):
            each = (table[bucket.places] * inverse).sum(axis=2)  # (P, T)
            out[bucket.rows] = each[bucket.pattern].T
        return out

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW_j, sparse."""
        W = self._sparse(self._W)
        changes = []
        for j in range(self.n_phi):
            lower = []
            for D, w in zip(self._change(j), self._W, strict=True):
                half = np.tril(D)
                size = half.shape[1]
                half[:, np.arange(size), np.arange(size)] *= 0.5
                lower.append(-half @ w)
            changes.append(self._sparse(lower))
        return W, tuple(changes)

    def _sparse(self, matrices: list[np.ndarray]) -> Any:
        """Lower triangular matrices of the patterns as one sparse matrix over all rows."""
        from scipy.sparse import csr_array

        rows, columns, values = [], [], []
        for matrix, bucket in zip(matrices, self._order.buckets, strict=True):
            a, b = np.tril_indices(bucket.rows.shape[0])
            rows.append(bucket.rows[a].ravel())
            columns.append(bucket.rows[b].ravel())
            values.append(matrix[:, a, b][bucket.pattern].T.ravel())
        n = self._order.n
        return csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)
        )


def _triangular_inverse(L: np.ndarray) -> np.ndarray:
    """Inverses of lower triangular matrices, shape (P, T, T)."""
    if L.shape[1] < _SMALL:
        return np.tril(np.linalg.inv(L))
    from scipy.linalg.lapack import dtrtri

    out = np.empty_like(L)
    for p, one in enumerate(L):
        inverse, info = dtrtri(one, lower=1)
        if info:
            raise FloatingPointError("the residual correlation is not positive definite")
        out[p] = np.tril(inverse)
    return out
