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

import mixedmodels.solver._kernels.cliques as cliques
from mixedmodels.objective.marginal.blocks import Blocks, Layout

__all__ = ["block_diagonal_traces", "schur_columns", "trace_products"]

_DENSE = 5e7  # numbers up to which the derivatives of S are kept whole
_SMALL = 300  # columns of S up to which nothing is gained by looking for separate parts
_BATCH = 256


def schur_columns(layout: Layout, leaf: int) -> int:
    """Columns that remain when the leaf is eliminated."""
    return sum(m * k for f, (m, k) in enumerate(zip(layout.m, layout.k, strict=True)) if f != leaf)


def block_diagonal_traces(
    layout: Layout, H: Blocks, changes: Sequence[Blocks], penalty: Sequence[np.ndarray]
) -> np.ndarray:
    """The traces with the inverses of the diagonal blocks of H in the place of its inverse: a model, (P, P).

    Marginal variances would not do: what two factors share, such as the mean, inflates all of them, though no
    derivative of H acts on it.

    Parameters
    ----------
    layout, H, changes
        As for `trace_products`.
    penalty : sequence of ndarray, (m,) each
        Diagonals of the precisions between levels.
    """
    inverses = []
    for block, own in zip(H.diagonal, penalty, strict=True):
        k = block.shape[1]
        total = block + own[:, None, None] * np.eye(k)
        inverses.append(1.0 / total if k == 1 else np.linalg.inv(total))
    P = len(changes)
    out = np.zeros((P, P))
    for f in range(len(layout.k)):
        part = np.array([(inverses[f] @ change.diagonal[f]).reshape(-1) for change in changes])
        turned = np.array(
            [np.swapaxes(inverses[f] @ change.diagonal[f], 1, 2).reshape(-1) for change in changes]
        )
        out += part @ turned.T
    for at, p in enumerate(layout.pairs):
        left, right = inverses[p.f][p.rows], inverses[p.g][p.columns]
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
    Di: np.ndarray = np.zeros((0, 1, 1))
    if leaf >= 0:
        k = layout.k[leaf]
        Di = np.linalg.inv(H.diagonal[leaf] + np.eye(k)) if k > 1 else 1.0 / (1.0 + H.diagonal[leaf])
        own = [Di @ change.diagonal[leaf] for change in changes]
        flat = np.array([part.reshape(-1) for part in own])
        turned = np.array([np.swapaxes(part, 1, 2).reshape(-1) for part in own])
        out += flat @ turned.T
    n = schur_columns(layout, leaf)
    if n == 0:
        return out
    schur = _Schur(layout, leaf)
    slot = schur.slots() if n > _SMALL else np.arange(n)
    count = int(slot.max()) + 1
    if P * n * n <= _DENSE and count > 0.1 * n:
        out += _dense(layout, leaf, H, changes, solve, Di)
    else:
        out += _in_batches(schur, slot, H, changes, solve, Di)
    return 0.5 * (out + out.T)


def _dense(
    layout: Layout, leaf: int, H: Blocks, changes: Sequence[Blocks], solve: Any, Di: np.ndarray
) -> np.ndarray:
    """The traces with a Schur complement, with matrices as large as it is."""
    P, n = len(changes), schur_columns(layout, leaf)
    maps = layout.dense_maps(leaf)
    inverse = _rest_solve(layout, leaf, solve, np.eye(n))
    inverse = np.ascontiguousarray(0.5 * (inverse + inverse.T))
    dS = np.zeros((P, n, n))
    for a, change in enumerate(changes):
        flat = dS[a].reshape(-1)
        for f, where in maps.diagonal:
            flat[where] = change.diagonal[f].reshape(-1)
        for pair, where, turned in maps.pairs:
            flat[where] = flat[turned] = change.pairs[pair].reshape(-1)
    out = np.zeros((P, P))
    if leaf >= 0:
        B = _joined(H)[maps.take]
        dB = np.array([_joined(change)[maps.take] for change in changes])
        dD = np.array([change.diagonal[leaf] for change in changes])
        out += cliques.schur_changes(maps.start, maps.columns, B, dB, Di, dD, inverse, dS)
    products = [inverse @ part for part in dS]
    for a in range(P):
        for b in range(a + 1):
            value = float(np.sum(products[a] * products[b].T))
            out[a, b] += value
            if a != b:
                out[b, a] += value
    return out


def _joined(blocks: Blocks) -> np.ndarray:
    """Values of all pairs, one after another."""
    if len(blocks.pairs) == 1:
        return blocks.pairs[0].reshape(-1)
    return np.concatenate([part.reshape(-1) for part in blocks.pairs]) if blocks.pairs else np.zeros(0)


def _in_batches(
    schur: _Schur, slot: np.ndarray, H: Blocks, changes: Sequence[Blocks], solve: Any, Di: np.ndarray
) -> np.ndarray:
    """The traces with a Schur complement, columns of its inverse solved for in batches.

    Columns of one slot lie in parts of the model that share no rows: their products never meet, and their sum
    stands for all of them.
    """
    from scipy import sparse

    P, leaf, layout = len(changes), schur.leaf, schur.layout
    out = np.zeros((P, P))
    dS: list[Any] = [schur.rest(change) for change in changes]
    Y: list[Any] = []
    DY: list[Any] = []
    if leaf >= 0:
        Dinv = schur.levels(Di)
        J = Dinv @ schur.coupling(H)
        for a, change in enumerate(changes):
            dB = schur.coupling(change)
            Ya = dB - schur.levels(change.diagonal[leaf]) @ J
            dS[a] = dS[a] - (dB.T @ J) - (J.T @ Ya)
            Y.append(Ya)
            DY.append(Dinv @ Ya)
    count = int(slot.max()) + 1
    columns_of = sparse.csc_array((np.ones(schur.n), (np.arange(schur.n), slot)), shape=(schur.n, count))
    dS_slots = [_by_columns(part @ columns_of) for part in dS]
    DY = [_by_columns(part @ columns_of) for part in DY]
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        unit = columns_of[:, start:stop].toarray()
        X = _rest_solve(layout, leaf, solve, unit)
        if leaf >= 0:
            columns = [part[:, start:stop] for part in DY]
            for a in range(P):
                moved = Y[a] @ X
                for b in range(a + 1):
                    value = 2.0 * float(columns[b].multiply(moved).sum())
                    out[a, b] += value
                    if a != b:
                        out[b, a] += value
        left = [np.asarray(part @ X) for part in dS]
        right = [_rest_solve(layout, leaf, solve, part[:, start:stop].toarray()) for part in dS_slots]
        out += np.array([[float(np.vdot(x, y)) for y in right] for x in left])
    return out


def _by_columns(matrix: Any) -> Any:
    """The matrix by columns."""
    from scipy import sparse

    return sparse.csc_array(matrix)


def _rest_solve(layout: Layout, leaf: int, solve: Any, values: np.ndarray) -> np.ndarray:
    """``S^{-1} values``, shape (others, c)."""
    c, at = values.shape[1], 0
    parts = []
    for f, (m, k) in enumerate(zip(layout.m, layout.k, strict=True)):
        if f == leaf:
            parts.append(np.zeros((m, k, c)))
        else:
            parts.append(values[at : at + m * k].reshape(m, k, c))
            at += m * k
    found = solve(parts)
    return np.concatenate([part.reshape(-1, c) for f, part in enumerate(found) if f != leaf])


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
        return self._sparse(parts, (self.q0, self.n))

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
        return self._sparse(parts, (self.n, self.n))

    def slots(self) -> np.ndarray:
        """Rank of each column of the rest among those of its part of the model, shape (others,)."""
        from scipy import sparse
        from scipy.sparse.csgraph import connected_components

        layout = self.layout
        ones = Blocks(
            [np.ones((m, k, k)) for m, k in zip(layout.m, layout.k, strict=True)],
            [np.ones((len(p.rows), layout.k[p.f], layout.k[p.g])) for p in layout.pairs],
        )
        graph = self.rest(ones)
        for f, at in self.first.items():
            P = layout.precision[f]
            if P is not None:
                links = sparse.coo_array(P.matrix)
                shape = (self.n, self.n)
                rows, columns = at + links.coords[0] * layout.k[f], at + links.coords[1] * layout.k[f]
                graph = graph + sparse.csr_array((np.ones(links.nnz), (rows, columns)), shape=shape)
        if self.leaf >= 0:
            B = self.coupling(ones)
            graph = sparse.block_array([[None, B], [B.T, graph]]) if self.q0 else graph
        part = connected_components(graph, directed=False)[1][self.q0 :]
        order = np.argsort(part, kind="stable")
        sizes = np.bincount(part)
        slot = np.empty(self.n, dtype=np.intp)
        slot[order] = np.arange(self.n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return slot
