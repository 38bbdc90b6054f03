r"""Block matrices on the pattern of the data: by level of each factor, and by observed pair of levels.

A factor holds all terms on one grouping factor, whichever predictor they add to; its k x k factor
:math:`\Lambda_f` is block-diagonal over the terms. A `Blocks` holds the blocks of a symmetric matrix that
Z'WZ can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import mixedmodels.solver._kernels.crossproducts as crossproducts
from mixedmodels.design import GeneralisedDesign
from mixedmodels.objective.marginal.algebra import half_products
from mixedmodels.solver._kernels.blocked import BlockedEvaluator, BlockedStructure
from mixedmodels.solver._kernels.weighted import WeightedRows, slots_of
from mixedmodels.solver.blocked import symmetric_columns
from mixedmodels.solver.crossproducts import amalgamate

__all__ = ["Blocks", "Layout", "PairPattern"]


@dataclass(frozen=True, slots=True, eq=False)
class PairPattern:
    """Observed pairs of levels of factors f < g.

    Attributes
    ----------
    f, g : int
    indptr : ndarray of intp, shape (m_f + 1,)
    rows, columns : ndarray of int32, shape (nnz,)
    """

    f: int
    g: int
    indptr: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Blocks of a symmetric matrix.

    Attributes
    ----------
    diagonal : list of ndarray, (m, k, k) per factor
    pairs : list of ndarray, (nnz, k_f, k_g) per pair of factors

    Many matrices are stacked along a first axis of every array.
    """

    diagonal: list[np.ndarray]
    pairs: list[np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class DenseMaps:
    """Where blocks go when one factor, the leaf, is eliminated and the rest is a dense matrix.

    Attributes
    ----------
    members : ndarray of intp, shape (parts, slots)
        Column of the rest in each slot of each part of the model; the number of columns where there is none.
    diagonal : list of (factor, places)
        Flat places of the diagonal blocks of each factor of the rest, (columns, slots) row-major.
    pairs : list of (pair, places, places of the transpose)
        Likewise for the pairs without the leaf.
    start : ndarray of int64, shape (m + 1,)
        Where the columns of each level of the leaf begin.
    columns : ndarray of int32
        Columns of the rest that each level touches.
    take : ndarray of int64
        The level's blocks, (k, columns) row-major, as places in the values of all pairs one after another.
    """

    members: np.ndarray
    diagonal: list[tuple[int, np.ndarray]]
    pairs: list[tuple[int, np.ndarray, np.ndarray]]
    start: np.ndarray
    columns: np.ndarray
    take: np.ndarray


class Layout:
    """Factors of a design, their levels and the pattern of Z'WZ.

    Parameters
    ----------
    design : GeneralisedDesign

    Attributes
    ----------
    k, m : list of int
        Columns and levels of each factor.
    place : list of (factor, first column) per term
    pairs : list of PairPattern
    sizes : list of int
        Where the values of each pair of factors begin, one after another, and their end.
    rows : WeightedRows
    slots : tuple of ndarray or None
        Kept by `mixedmodels.objective.marginal.determinant.separate_columns`.
    entries : list of (factor, row, column)
        Free entries of the factors, in the order of `factor_entries`.
    predictors : list of ndarray
        Active predictor (its rank among the active ones) of each column of a factor.
    """

    def __init__(self, design: GeneralisedDesign, entries: Sequence[tuple[int, int, int]]) -> None:
        active = list(design.active)
        groups = amalgamate(design)  # type: ignore[arg-type]
        self.k, self.m = [], []
        self.place: list[tuple[int, int]] = [(0, 0)] * len(design.terms)
        self.precision, self.codes, Z, self.predictors = [], [], [], []
        for f, members in enumerate(groups):
            first = design.terms[members[0]]
            at, owner, columns = 0, [], []
            for t in members:
                term = design.terms[t]
                self.place[t] = (f, at)
                at += term.k
                owner += [active.index(design.term_predictor[t])] * term.k
                columns.append(np.ones((design.n, 1)) if term.Z is None else term.Z)
            self.k.append(at)
            self.m.append(first.m)
            self.precision.append(first.precision)
            self.codes.append(np.ascontiguousarray(first.codes, dtype=np.intc))
            self.predictors.append(np.array(owner, dtype=np.intc))
            single = len(members) == 1 and first.Z is None
            Z.append(None if single else np.ascontiguousarray(np.hstack(columns), dtype=float))
        self.Z = Z
        self.pairs, slots = [], []
        ones = crossproducts.TermRows([(None, None, None)], None)
        for f in range(len(self.k)):
            for g in range(f + 1, len(self.k)):
                indptr, indices, _ = crossproducts.pair_products(
                    ones, self.codes[f], self.m[f], ones, self.codes[g], self.m[g]
                )
                rows = np.repeat(np.arange(self.m[f], dtype=np.intc), np.diff(indptr))
                self.pairs.append(PairPattern(f, g, indptr, rows, indices))
                slots.append((f, g, slots_of(self.codes[f], self.codes[g], indptr, indices)))
        stored = [len(p.rows) * self.k[p.f] * self.k[p.g] for p in self.pairs]
        self.sizes: list[int] = np.cumsum([0, *stored]).tolist()
        self._maps: DenseMaps | None = None
        self.slots: tuple[np.ndarray, np.ndarray] | None = None
        self.rows = WeightedRows(self.codes, Z, self.predictors, slots, len(active))
        self.entries = [(self.place[b][0], self.place[b][1] + i, self.place[b][1] + j) for b, i, j in entries]

    def factors(self, factors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Factor of each grouping factor, (k, k), from those of the terms."""
        out = [np.zeros((k, k)) for k in self.k]
        for (f, at), own in zip(self.place, factors, strict=True):
            out[f][at : at + len(own), at : at + len(own)] = own
        return out

    def empty(self) -> Blocks:
        """Room for the blocks of one matrix."""
        diagonal = [np.zeros((m, k, k)) for m, k in zip(self.m, self.k, strict=True)]
        pairs = [np.zeros((len(p.rows), self.k[p.f], self.k[p.g])) for p in self.pairs]
        return Blocks(diagonal, pairs)

    def products(self, W: np.ndarray) -> Blocks:
        """Z'WZ for weights W, shape (A, A, n)."""
        out = self.empty()
        self.rows.products(W, out.diagonal, out.pairs)
        return out

    def products_many(self, W: np.ndarray) -> Blocks:
        """Z'WZ for stacked weights W, shape (c, A, A, n)."""
        c = len(W)
        diagonal = [np.empty((c, m, k, k)) for m, k in zip(self.m, self.k, strict=True)]
        pairs = [np.empty((c, len(p.rows), self.k[p.f], self.k[p.g])) for p in self.pairs]
        self.rows.products_many(W, diagonal, pairs)
        return Blocks(diagonal, pairs)

    def transform(self, blocks: Blocks, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Blocks:
        """``left_f' block right_g`` for every block (f, g)."""
        diagonal = [_sandwich(block, left[f], right[f]) for f, block in enumerate(blocks.diagonal)]
        pairs = [
            _sandwich(block, left[p.f], right[p.g]) for p, block in zip(self.pairs, blocks.pairs, strict=True)
        ]
        return Blocks(diagonal, pairs)

    def grams(self, A: Blocks, Q: Blocks) -> dict[tuple[int, int], np.ndarray]:
        """Sums over blocks of ``A[i, k] Q[j, l]``, indexed [i, k, j, l], by factor and by pair."""
        out = {(f, f): _gram(a, q) for f, (a, q) in enumerate(zip(A.diagonal, Q.diagonal, strict=True))}
        for p, a, q in zip(self.pairs, A.pairs, Q.pairs, strict=True):
            out[p.f, p.g] = _gram(a, q)
        return out

    def half_products(self, A: Blocks, Q: Blocks, Lambda: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sum of the level blocks of ``A Lambda Q``, (k, k) per factor.

        Half the derivative of ``tr(Lambda'A Lambda Q)`` with respect to the factors.
        """
        return half_products(self.grams(A, Q), Lambda)

    def dense_maps(self, leaf: int, slot: np.ndarray, part: np.ndarray) -> DenseMaps:
        """Places of the blocks when `leaf` is eliminated; found once.

        Entry (r, c) of the rest is kept in ``(r, slot[c])``; `part` is the part of each column.
        """
        if self._maps is not None:
            return self._maps
        wide = int(slot.max()) + 1
        members = np.full((int(part.max()) + 1, wide), len(slot), dtype=np.intp)
        members[part, slot] = np.arange(len(slot))
        first, n = {}, 0
        for f, (m, k) in enumerate(zip(self.m, self.k, strict=True)):
            if f != leaf:
                first[f] = n
                n += m * k
        diagonal, pairs = [], []
        for f, at in first.items():
            columns = at + np.arange(self.m[f])[:, None] * self.k[f] + np.arange(self.k[f])
            diagonal.append((f, (columns[:, :, None] * wide + slot[columns][:, None, :]).reshape(-1)))
        levels, touched, source = [], [], []  # of the leaf: (entries,), (entries,), (entries, k)
        k0 = self.k[leaf] if leaf >= 0 else 1
        for i, (p, lo) in enumerate(zip(self.pairs, self.sizes[:-1], strict=True)):
            a, b = self.k[p.f], self.k[p.g]
            place = lo + np.arange(len(p.rows) * a * b).reshape(-1, a, b)
            if leaf not in (p.f, p.g):
                r = (first[p.f] + p.rows.astype(np.int64)[:, None] * a + np.arange(a))[:, :, None]
                c = (first[p.g] + p.columns.astype(np.int64)[:, None] * b + np.arange(b))[:, None, :]
                pairs.append((i, (r * wide + slot[c]).reshape(-1), (c * wide + slot[r]).reshape(-1)))
                continue
            turned = p.g == leaf
            own, other, g, k = (p.columns, p.rows, p.f, a) if turned else (p.rows, p.columns, p.g, b)
            levels.append(np.repeat(own, k))
            touched.append((first[g] + other[:, None] * k + np.arange(k)).reshape(-1))
            source.append((place if turned else np.swapaxes(place, 1, 2)).reshape(-1, k0))
        start = np.zeros(self.m[leaf] + 1 if leaf >= 0 else 1, dtype=np.int64)
        columns = np.zeros(0, dtype=np.intc)
        take = np.zeros(0, dtype=np.int64)
        if levels:
            level = np.concatenate(levels)
            order = np.argsort(level, kind="stable")
            start[1:] = np.cumsum(np.bincount(level, minlength=self.m[leaf]))
            columns = np.concatenate(touched)[order].astype(np.intc)
            level = level[order]
            width, rank = np.diff(start)[level], np.arange(len(level)) - start[level]
            to = k0 * start[level][:, None] + np.arange(k0) * width[:, None] + rank[:, None]
            take = np.empty(to.size, dtype=np.int64)
            take[to.reshape(-1)] = np.concatenate(source)[order].reshape(-1)
        self._maps = DenseMaps(members, diagonal, pairs, start, columns, take)
        return self._maps

    def evaluator(self) -> tuple[BlockedEvaluator, np.ndarray, np.ndarray]:
        """A solver whose numbers can be replaced, and where they go."""
        arrays = {
            "A": [np.zeros((m, k, k)) for m, k in zip(self.m, self.k, strict=True)],
            "ZX": [np.zeros((m, k, 1)) for m, k in zip(self.m, self.k, strict=True)],
            "XX": np.zeros((1, 1)),
            "pairs": [
                (p.f, p.g, p.indptr, p.columns, np.arange(lo, hi, dtype=float))
                for p, lo, hi in zip(self.pairs, self.sizes[:-1], self.sizes[1:], strict=True)
            ],
            "precision": [symmetric_columns(P, m) for P, m in zip(self.precision, self.m, strict=True)],
        }
        structure = BlockedStructure(self.k, 0, arrays)
        entries = np.array([(f, 0, 0, 0) for f in range(len(self.k))], dtype=np.intc)
        clips = np.zeros((0, 4), dtype=np.intc)
        evaluator = BlockedEvaluator(self.k, entries, clips, 0, 1.0, False, structure=structure)
        return evaluator, *evaluator.places()


def _sandwich(block: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    *outer, a, b = block.shape
    if a == b == 1:
        return block * (left[0, 0] * right[0, 0])
    flat = block.reshape(-1, a * b) @ np.kron(left, right)
    return flat.reshape(*outer, left.shape[1], right.shape[1])


def _gram(A: np.ndarray, Q: np.ndarray) -> np.ndarray:
    _, a, b = A.shape
    return (A.reshape(-1, a * b).T @ Q.reshape(-1, a * b)).reshape(a, b, a, b)
