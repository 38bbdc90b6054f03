"""Covariance matrices as products of factors: entries, pivoted and triangular factors, derivatives.

What `mixedmodels.optimize.cone` walks in. A table says which parameter stands at which place of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "cholesky",
    "entries_of",
    "factor_derivatives",
    "has_cone",
    "lower_triangular",
    "matrices_of",
    "pivoted",
    "plain_bounds",
    "stepped",
    "tables_of_entries",
]

DEPENDENT = 1e-13  # what is left of a row, relative to the row, when it depends on the rows before


def tables_of_entries(entries: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """The free covariance matrices behind factors that are linear in theta.

    Parameters
    ----------
    entries : ndarray of int, shape (e, 4)
        Rows (factor, row, column, parameter).

    Returns
    -------
    tuple of ndarray of intp, each of shape (n, n), or None
        ``table[i, j]``, i >= j, is the parameter of entry (i, j), -1 above the diagonal. Blocks with the same
        parameters are one matrix. None if the parameters do not fall apart into full lower triangles.

    Examples
    --------
    >>> shared = [(0, 0, 0, 0), (0, 1, 0, 1), (0, 1, 1, 2), (1, 0, 0, 3), (1, 1, 1, 3)]
    >>> [t.tolist() for t in tables_of_entries(np.array(shared))]
    [[[0, -1], [1, 2]], [[3]]]
    >>> tables_of_entries(np.array([(0, 0, 0, 0), (0, 1, 0, 1)])) is None
    True
    """
    rows = np.asarray(entries, dtype=np.intp).reshape(-1, 4).tolist()
    parent = {(f, i): (f, i) for f, i, j, _ in rows} | {(f, j): (f, j) for f, _, j, _ in rows}

    def root(node: tuple[int, int]) -> tuple[int, int]:
        while parent[node] != node:
            node = parent[node]
        return node

    for f, i, j, _ in rows:
        parent[root((f, j))] = root((f, i))
    found: dict[tuple[int, ...], np.ndarray] = {}
    for top in sorted({root(node) for node in parent}):
        members = sorted(node for node in parent if root(node) == top)
        place = {node: a for a, node in enumerate(members)}
        table = np.full((len(members), len(members)), -1, dtype=np.intp)
        for f, i, j, t in rows:
            if (f, i) in place:
                table[place[f, i], place[f, j]] = t
        found.setdefault(tuple(table.ravel().tolist()), table)
    used = np.concatenate([table[np.tril_indices(len(table))] for table in found.values()])
    if used.min(initial=0) < 0 or len(set(used.tolist())) < len(used):
        return None
    return tuple(sorted(found.values(), key=lambda table: int(table[0, 0])))


def plain_bounds(objective: Any) -> bool:
    """Whether the bounds are those of the cone: 0 for diagonals of factors, none for the rest."""
    rows = np.asarray(objective.entries)
    lower = np.full(len(objective.lower), -np.inf)
    lower[rows[rows[:, 1] == rows[:, 2], 3]] = 0.0
    return np.array_equal(objective.lower, lower) and bool(np.all(np.isposinf(objective.upper)))


def has_cone(objective: Any) -> bool:
    """Whether an objective gives its model in Sigma and has no bounds beyond those of the cone."""
    entries = getattr(objective, "entries", None)
    if entries is None or not len(entries) or not hasattr(objective, "sigma_model"):
        return False
    return plain_bounds(objective) and tables_of_entries(entries) is not None


def lower_triangular(A: np.ndarray) -> np.ndarray:
    """Lower-triangular L, (n, n), with L L' = A A', for A (n, m) of any rank; exact zeros.

    Householder reflections row by row. A row that depends on the rows above gets a zero column of L.
    """
    n, m = A.shape
    A, L, c = A.copy(), np.zeros((n, n)), 0
    for i in range(n):
        if c >= m:
            break
        v = A[i, c:]
        size = math.sqrt(float(v @ v))
        if not size > DEPENDENT * math.sqrt(float(A[i] @ A[i])):
            continue
        _reflect(A, i, c, size, range(i, n))
        L[i:, i] = A[i:, c]
        c += 1
    return L


def _reflect(A: np.ndarray, row: int, c: int, size: float, rows: Sequence[int]) -> None:
    """Turn the columns from c on so that ``A[row, c:] = (size, 0, ...)``; applied to `rows`."""
    v = A[row, c:].copy()
    v[0] += size if v[0] > 0.0 else -size
    norm = float(v @ v)
    sign = -1.0 if A[row, c] > 0.0 else 1.0  # what the reflection makes of the first entry
    at = np.asarray(rows)
    if norm > 0.0:
        A[at[:, None], np.arange(c, A.shape[1])] -= np.outer(A[at, c:] @ v, v * (2.0 / norm))
    if sign < 0.0:
        A[at, c] = -A[at, c]
    A[row, c + 1 :] = 0.0


def pivoted(B: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The columns of B turned so that its rows p[0], p[1], ... are lower triangular, longest rest first."""
    n = len(B)
    B, p = B.copy(), list(range(n))
    for c in range(n):
        rest = [float(B[i, c:] @ B[i, c:]) for i in p[c:]]
        best = c + int(np.argmax(rest))
        p[c], p[best] = p[best], p[c]
        size = math.sqrt(rest[best - c])
        if size == 0.0:
            break
        _reflect(B, p[c], c, size, p[c:])
    return B, p


def entries_of(tables: Sequence[np.ndarray], factors: Sequence[np.ndarray]) -> np.ndarray:
    """The entries x of the matrices B B', in the order of the tables."""
    x = np.empty(sum(len(t) * (len(t) + 1) // 2 for t in tables))
    for table, B in zip(tables, factors, strict=True):
        i, j = np.tril_indices(len(table))
        x[table[i, j]] = (B @ B.T)[i, j]
    return x


def matrices_of(tables: Sequence[np.ndarray], g: np.ndarray) -> list[np.ndarray]:
    """Symmetric M with <M, D> = g'd for every change D of Sigma with entries d."""
    out = []
    for table in tables:
        i, j = np.tril_indices(len(table))
        M = np.zeros(table.shape)
        M[i, j] = g[table[i, j]] * np.where(i == j, 1.0, 0.5)
        M[j, i] = M[i, j]
        out.append(M)
    return out


def factor_derivatives(
    tables: Sequence[np.ndarray],
    factors: Sequence[np.ndarray],
    orders: Sequence[Sequence[int]],
    g: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient and Newton matrix in the factors' entries on and below the (pivoted) diagonals.

    Variable ``table[i, c]`` is entry (order[i], c) of the factor.

    Returns
    -------
    gz : ndarray, shape (r,)
    G : ndarray, shape (r, r)
        dx / dz.
    curvature : ndarray, shape (r, r)
        ``2 M^+`` within each column; the Newton matrix is ``G'JG + curvature``.
    """
    r = len(g)
    gz, G, curvature = np.zeros(r), np.zeros((r, r)), np.zeros((r, r))
    for table, B, p, M in zip(tables, factors, orders, matrices_of(tables, g), strict=True):
        n = len(table)
        values, vectors = np.linalg.eigh(M)
        plus = (vectors * np.maximum(values, 0.0)) @ vectors.T
        MB = M @ B
        for c in range(n):
            for i in range(c, n):
                z, a = table[i, c], p[i]
                gz[z] = 2.0 * MB[a, c]
                for b in range(n):
                    G[table[max(a, b), min(a, b)], z] += (2.0 if a == b else 1.0) * B[b, c]
                for h in range(c, n):
                    curvature[z, table[h, c]] = 2.0 * plus[a, p[h]]
    return gz, G, curvature


def cholesky(A: np.ndarray, ridge: float) -> np.ndarray | None:
    """Factor of A + ridge I, None if that is not positive definite."""
    try:
        return np.linalg.cholesky(A + ridge * np.eye(len(A)))
    except np.linalg.LinAlgError:
        return None


def stepped(
    tables: Sequence[np.ndarray],
    factors: Sequence[np.ndarray],
    orders: Sequence[Sequence[int]],
    step: np.ndarray,
) -> list[np.ndarray]:
    """The factors after a step in the variables of `factor_derivatives`."""
    out = []
    for table, B, p in zip(tables, factors, orders, strict=True):
        B = B.copy()
        i, c = np.tril_indices(len(table))
        B[np.asarray(p)[i], c] += step[table[i, c]]
        out.append(B)
    return out
