r"""Curvature of a log-determinant along many directions, :math:`\mathrm{tr}(H^{-1}\dot H_a H^{-1}\dot H_b)`.

One factor, the leaf, is eliminated level by level as in the solver. With :math:`H = [D, B; B', C]`,
:math:`J = D^{-1}B`, :math:`S = C - B'J` and :math:`Y_a = \dot B_a - \dot D_a J`,

.. math:: \mathrm{tr}(H^{-1}\dot H_a H^{-1}\dot H_b) = \mathrm{tr}(D^{-1}\dot D_a D^{-1}\dot D_b)
          + 2\,\mathrm{tr}(S^{-1} Y_a' D^{-1} Y_b) + \mathrm{tr}(S^{-1}\dot S_a S^{-1}\dot S_b),
          \qquad \dot S_a = \dot C_a - \dot B_a'J - J'Y_a .

Columns of :math:`S^{-1}` are solved for in batches; none of the products is larger than a batch, or than S
where all of it fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.objective.marginal.blocks import Blocks, Layout

__all__ = ["block_diagonal_traces", "schur_columns", "trace_products"]

_DENSE = 3000  # columns of S up to which its inverse is kept whole
_BATCH = 256


def schur_columns(layout: Layout, leaf: int) -> int:
    """Columns that remain when the leaf is eliminated."""
    return sum(m * k for f, (m, k) in enumerate(zip(layout.m, layout.k, strict=True)) if f != leaf)


def block_diagonal_traces(layout: Layout, Q: Blocks, changes: Sequence[Blocks]) -> np.ndarray:
    """The traces with H^{-1} replaced by its diagonal blocks, one per level: a model, shape (P, P)."""
    P = len(changes)
    out = np.zeros((P, P))
    for f in range(len(layout.k)):
        part = np.array([(Q.diagonal[f] @ change.diagonal[f]).reshape(-1) for change in changes])
        turned = np.array(
            [np.swapaxes(Q.diagonal[f] @ change.diagonal[f], 1, 2).reshape(-1) for change in changes]
        )
        out += part @ turned.T
    for at, p in enumerate(layout.pairs):
        left, right = Q.diagonal[p.f][p.rows], Q.diagonal[p.g][p.columns]
        part = np.array([(left @ change.pairs[at]).reshape(-1) for change in changes])
        other = np.array([(change.pairs[at] @ right).reshape(-1) for change in changes])
        out += 2.0 * part @ other.T
    return 0.5 * (out + out.T)


def trace_products(layout: Layout, leaf: int, H: Blocks, changes: Sequence[Blocks], solve: Any) -> np.ndarray:
    """The traces, exact, shape (P, P).

    Parameters
    ----------
    layout : Layout
    leaf : int
        The factor that the solver eliminates first, -1 for none.
    H : Blocks
        Lambda'Z'WZ Lambda, without the precision of u.
    changes : sequence of Blocks
        Directions.
    solve : callable
        ``H^{-1}`` times values by factor, (m, k, c) each.
    """
    P = len(changes)
    out = np.zeros((P, P))
    schur = _Schur(layout, leaf)
    if leaf >= 0:
        k = layout.k[leaf]
        Di = np.linalg.inv(H.diagonal[leaf] + np.eye(k)) if k > 1 else 1.0 / (1.0 + H.diagonal[leaf])
        own = [Di @ change.diagonal[leaf] for change in changes]
        flat = np.array([part.reshape(-1) for part in own])
        turned = np.array([np.swapaxes(part, 1, 2).reshape(-1) for part in own])
        out += flat @ turned.T
    if schur.n == 0:
        return out
    dS: list[Any] = [schur.rest(change) for change in changes]
    Y: list[Any] = []
    if leaf >= 0:
        Dinv = schur.levels(Di)
        J = Dinv @ schur.coupling(H)
        for a, change in enumerate(changes):
            dB = schur.coupling(change)
            Ya = dB - schur.levels(change.diagonal[leaf]) @ J
            half = J.T @ Ya
            dS[a] = dS[a] - (dB.T @ J) - half
            Y.append(Ya)
        DY = [Dinv @ part for part in Y]
    dense = schur.n <= _DENSE
    if dense:
        dS = [part if isinstance(part, np.ndarray) else part.toarray() for part in dS]
    step = schur.n if dense else _BATCH
    products: list[np.ndarray] = []
    for start in range(0, schur.n, step):
        stop = min(start + step, schur.n)
        unit = np.zeros((schur.n, stop - start))
        unit[np.arange(start, stop), np.arange(stop - start)] = 1.0
        X = schur.solve(solve, unit)
        if leaf >= 0:
            for b in range(P):
                columns = DY[b][:, start:stop]
                for a in range(b + 1):
                    value = 2.0 * _inner(Y[a], X, columns)
                    out[a, b] += value
                    if a != b:
                        out[b, a] += value
        if dense:
            products = [X @ part for part in dS]
            for a in range(P):
                for b in range(a + 1):
                    value = float(np.vdot(products[a], products[b].T))
                    out[a, b] += value
                    if a != b:
                        out[b, a] += value
        else:
            left = [np.asarray(part @ X) for part in dS]
            right = [schur.solve(solve, part[:, start:stop].toarray()) for part in dS]
            out += np.array([[float(np.vdot(x, y)) for y in right] for x in left])
    return 0.5 * (out + out.T)


def _inner(Y: Any, X: np.ndarray, columns: Any) -> float:
    """``sum((Y X) * columns)`` with Y and columns dense or sparse."""
    if isinstance(columns, np.ndarray):
        return float(np.vdot(Y @ X, columns))
    return float((Y.T @ columns).multiply(X).sum())


class _Schur:
    """Maps from blocks to matrices over the leaf's and the other effects."""

    def __init__(self, layout: Layout, leaf: int) -> None:
        self.layout, self.leaf = layout, leaf
        self.first, at = {}, 0
        for f, (m, k) in enumerate(zip(layout.m, layout.k, strict=True)):
            if f != leaf:
                self.first[f] = at
                at += m * k
        self.n = at
        self.q0 = layout.m[leaf] * layout.k[leaf] if leaf >= 0 else 0
        stored = sum(len(p.rows) * layout.k[p.f] * layout.k[p.g] for p in layout.pairs if leaf in (p.f, p.g))
        self.dense = self.n <= _DENSE and stored > 0.15 * self.q0 * self.n

    def _sparse(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], shape: tuple[int, int]) -> Any:
        """Matrix of blocks: (row of its first entry, column of it, values (count, a, b))."""
        from scipy import sparse

        rows, columns, values = [], [], []
        for r, c, block in parts:
            _, a, b = block.shape
            rows.append(np.repeat((r[:, None] + np.arange(a))[:, :, None], b, axis=2).reshape(-1))
            columns.append(np.repeat((c[:, None] + np.arange(b))[:, None, :], a, axis=1).reshape(-1))
            values.append(block.reshape(-1))
        if not parts:
            return sparse.csr_array(shape)
        data = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        return sparse.csr_array(sparse.coo_array(data, shape=shape))

    def levels(self, blocks: np.ndarray) -> Any:
        """Block-diagonal matrix over the leaf's levels."""
        at = np.arange(len(blocks)) * blocks.shape[1]
        return self._sparse([(at, at, blocks)], (self.q0, self.q0))

    def coupling(self, blocks: Blocks) -> Any:
        """B, shape (leaf's effects, others)."""
        parts = []
        layout, leaf = self.layout, self.leaf
        for p, block in zip(layout.pairs, blocks.pairs, strict=True):
            if p.f == leaf:
                parts.append((p.rows * layout.k[p.f], self.first[p.g] + p.columns * layout.k[p.g], block))
            elif p.g == leaf:
                turned = np.swapaxes(block, 1, 2)
                parts.append((p.columns * layout.k[p.g], self.first[p.f] + p.rows * layout.k[p.f], turned))
        out = self._sparse(parts, (self.q0, self.n))
        return out.toarray() if self.dense else out

    def rest(self, blocks: Blocks) -> Any:
        """C without the penalty, shape (others, others)."""
        parts = []
        layout = self.layout
        for f, at in self.first.items():
            where = at + np.arange(layout.m[f]) * layout.k[f]
            parts.append((where, where, blocks.diagonal[f]))
        for p, block in zip(layout.pairs, blocks.pairs, strict=True):
            if self.leaf not in (p.f, p.g):
                r = self.first[p.f] + p.rows * layout.k[p.f]
                c = self.first[p.g] + p.columns * layout.k[p.g]
                parts += [(r, c, block), (c, r, np.swapaxes(block, 1, 2))]
        out = self._sparse(parts, (self.n, self.n))
        return out.toarray() if self.dense else out

    def solve(self, solve: Any, values: np.ndarray) -> np.ndarray:
        """``S^{-1} values``, shape (others, c)."""
        layout, c = self.layout, values.shape[1]
        parts = []
        for f, (m, k) in enumerate(zip(layout.m, layout.k, strict=True)):
            if f == self.leaf:
                parts.append(np.zeros((m, k, c)))
            else:
                parts.append(values[self.first[f] : self.first[f] + m * k].reshape(m, k, c))
        found = solve(parts)
        return np.concatenate([found[f].reshape(-1, c) for f in self.first])
