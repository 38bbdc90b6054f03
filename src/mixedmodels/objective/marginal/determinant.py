r"""Curvature of a log-determinant along many directions, :math:`\mathrm{tr}(H^{-1}\dot H_a H^{-1}\dot H_b)`.

One factor, the leaf, is eliminated level by level as in the solver. With :math:`H = [D, B; B', C]`,
:math:`J = D^{-1}B`, :math:`S = C - B'J` and :math:`Y_a = \dot B_a - \dot D_a J`,

.. math:: \mathrm{tr}(H^{-1}\dot H_a H^{-1}\dot H_b) = \mathrm{tr}(D^{-1}\dot D_a D^{-1}\dot D_b)
          + 2\,\mathrm{tr}(S^{-1} Y_a' D^{-1} Y_b) + \mathrm{tr}(S^{-1}\dot S_a S^{-1}\dot S_b),
          \qquad \dot S_a = \dot C_a - \dot B_a'J - J'Y_a .

Parts of the model that share no rows never meet: columns of different parts share one slot of a matrix, and
:math:`S^{-1}` is found by as many solves as the largest part has columns. These are done in batches, so that
none of the products is larger than a batch, unless all directions fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import mixedmodels.solver._kernels.cliques as cliques
from mixedmodels.objective.marginal.blocks import Blocks, Layout

__all__ = ["block_diagonal_traces", "schur_columns", "separate_columns", "trace_products"]

_DENSE = 5e7  # numbers up to which the derivatives of S are kept whole
_BATCH = 256


def schur_columns(layout: Layout, leaf: int) -> int:
    """Columns that remain when the leaf is eliminated."""
    return sum(m * k for f, (m, k) in enumerate(zip(layout.m, layout.k, strict=True)) if f != leaf)


def separate_columns(layout: Layout, leaf: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each column of the Schur complement within its part of the model, and the part's number.

    Parts share no rows and no precision.
    """
    if layout.slots is None:
        layout.slots = _separate(layout, leaf)
    return layout.slots


def _separate(layout: Layout, leaf: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.cumsum([0, *layout.m]).tolist()
    ends = [(p.f, p.rows, p.g, p.columns) for p in layout.pairs]
    for f, P in enumerate(layout.precision):
        if P is not None:
            rows, columns = P.matrix.nonzero()
            ends.append((f, rows, f, columns))
    links = [(first[f] + a.astype(np.int64), first[g] + b.astype(np.int64)) for f, a, g, b in ends]
    roots = cliques.separate_parts(first[-1], links)
    own = [np.repeat(roots[first[f] : first[f + 1]], k) for f, k in enumerate(layout.k) if f != leaf]
    if not own:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    part = np.unique(np.concatenate(own), return_inverse=True)[1]
    order = np.argsort(part, kind="stable")
    sizes = np.bincount(part)
    slot = np.empty(len(part), dtype=np.int64)
    slot[order] = np.arange(len(part)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return slot, part


def block_diagonal_traces(
    layout: Layout, H: Blocks, changes: Blocks, penalty: Sequence[np.ndarray]
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
    P = len(changes.diagonal[0])
    out = np.zeros((P, P))
    for inverse, change in zip(inverses, changes.diagonal, strict=True):
        part = _times(inverse, change)
        out += part.reshape(P, -1) @ np.swapaxes(part, 2, 3).reshape(P, -1).T
    for p, change in zip(layout.pairs, changes.pairs, strict=True):
        left, right = inverses[p.f][p.rows], inverses[p.g][p.columns]
        other = change * right if right.shape[1] == 1 else change @ right
        out += 2.0 * _times(left, change).reshape(P, -1) @ other.reshape(P, -1).T
    return 0.5 * (out + out.T)


def _times(left: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    return left * blocks if left.shape[1] == 1 else np.asarray(left @ blocks)


def trace_products(layout: Layout, leaf: int, H: Blocks, changes: Blocks, solve: Any) -> np.ndarray:
    """The traces, exact, shape (P, P).

    Parameters
    ----------
    layout : Layout
    leaf : int
        The factor that the solver eliminates first, -1 for none.
    H : Blocks
        Lambda'Z'WZ Lambda, without the precision of u.
    changes : Blocks, stacked
        Directions.
    solve : callable
        ``H^{-1}`` times values by factor, (m, k, c) each.
    """
    P = len(changes.diagonal[0])
    out = np.zeros((P, P))
    Di: np.ndarray = np.zeros((0, 1, 1))
    if leaf >= 0:
        k = layout.k[leaf]
        Di = np.linalg.inv(H.diagonal[leaf] + np.eye(k)) if k > 1 else 1.0 / (1.0 + H.diagonal[leaf])
        own = _times(Di, changes.diagonal[leaf])
        out += own.reshape(P, -1) @ np.swapaxes(own, 2, 3).reshape(P, -1).T
    n = schur_columns(layout, leaf)
    if n == 0:
        return out
    wide = int(separate_columns(layout, leaf)[0].max()) + 1
    method = _dense if P * n * wide <= _DENSE else _in_batches
    out += method(layout, leaf, H, changes, solve, Di)
    return 0.5 * (out + out.T)


def _dense(layout: Layout, leaf: int, H: Blocks, changes: Blocks, solve: Any, Di: np.ndarray) -> np.ndarray:
    """The traces with a Schur complement, with matrices as large as its parts."""
    slot, part = separate_columns(layout, leaf)
    maps = layout.dense_maps(leaf, slot, part)
    members = maps.members
    n, wide = len(slot), members.shape[1]
    P = len(changes.diagonal[0])
    unit = np.zeros((n, wide))
    unit[np.arange(n), slot] = 1.0
    inverse = np.ascontiguousarray(_rest_solve(layout, leaf, solve, unit))
    dS = np.zeros((P, n, wide))
    flat = dS.reshape(P, n * wide)
    for f, where in maps.diagonal:
        flat[:, where] = changes.diagonal[f].reshape(P, -1)
    for pair, where, turned in maps.pairs:
        flat[:, where] = flat[:, turned] = changes.pairs[pair].reshape(P, -1)
    out = np.zeros((P, P))
    if leaf >= 0:
        B = _joined(H.pairs, ())[maps.take]
        dB = np.ascontiguousarray(_joined(changes.pairs, (P,))[:, maps.take])
        dD = changes.diagonal[leaf]
        out += cliques.schur_changes(maps.start, maps.columns, B, dB, Di, dD, inverse, dS, slot)
    if len(members) > 1:  # (parts, slots, slots) with rows of zeros where a part has fewer columns
        inverse = np.concatenate([inverse, np.zeros((1, wide))])[members]
        dS = np.concatenate([dS, np.zeros((P, 1, wide))], axis=1)[:, members]
    else:
        inverse, dS = inverse[None], dS[:, None]
    products = inverse @ dS
    other = np.swapaxes(products, 2, 3).reshape(P, -1)
    return np.asarray(out + products.reshape(P, -1) @ other.T)


def _joined(pairs: Sequence[np.ndarray], outer: tuple[int, ...]) -> np.ndarray:
    """Values of all pairs, one after another, (*outer, values)."""
    flat = [part.reshape(*outer, -1) for part in pairs]
    return flat[0] if len(flat) == 1 else np.concatenate(flat or [np.zeros((*outer, 0))], axis=-1)


def _in_batches(
    layout: Layout, leaf: int, H: Blocks, stacked: Blocks, solve: Any, Di: np.ndarray
) -> np.ndarray:
    """The traces with a Schur complement, columns of its inverse solved for in batches.

    Columns of one slot lie in parts of the model that share no rows: their products never meet, and their sum
    stands for all of them.
    """
    from scipy import sparse

    P, schur = len(stacked.diagonal[0]), _Schur(layout, leaf)
    slot = separate_columns(layout, leaf)[0]
    changes = [Blocks([d[a] for d in stacked.diagonal], [d[a] for d in stacked.pairs]) for a in range(P)]
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
