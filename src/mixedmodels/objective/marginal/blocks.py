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
from mixedmodels.solver._kernels.blocked import BlockedEvaluator, BlockedStructure
from mixedmodels.solver._kernels.weighted import WeightedRows, slots_of
from mixedmodels.solver.blocked import _symmetric_columns
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
    """

    diagonal: list[np.ndarray]
    pairs: list[np.ndarray]


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
    rows : WeightedRows
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

    def transform(self, blocks: Blocks, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Blocks:
        """``left_f' block right_g`` for every block (f, g)."""
        diagonal = [_sandwich(block, left[f], right[f]) for f, block in enumerate(blocks.diagonal)]
        pairs = [
            _sandwich(block, left[p.f], right[p.g]) for p, block in zip(self.pairs, blocks.pairs, strict=True)
        ]
        return Blocks(diagonal, pairs)

    def grams(self, A: Blocks, Q: Blocks) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Sums over blocks of ``A[i, k] Q[j, l]``, indexed [i, k, j, l], by factor and by pair."""
        diagonal = [_gram(a, q) for a, q in zip(A.diagonal, Q.diagonal, strict=True)]
        return diagonal, [_gram(a, q) for a, q in zip(A.pairs, Q.pairs, strict=True)]

    def half_products(self, A: Blocks, Q: Blocks, Lambda: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sum of the level blocks of ``A Lambda Q``: half of ``d tr(Lambda'A Lambda Q)/dLambda``, (k, k) each."""
        diagonal, pairs = self.grams(A, Q)
        out = [np.einsum("ikjl,kl->ij", T, L) for T, L in zip(diagonal, Lambda, strict=True)]
        for p, T in zip(self.pairs, pairs, strict=True):
            out[p.f] += np.einsum("ikjl,kl->ij", T, Lambda[p.g])
            out[p.g] += np.einsum("ikjl,ij->kl", T, Lambda[p.f])
        return out

    def evaluator(self) -> tuple[BlockedEvaluator, np.ndarray, np.ndarray]:
        """A solver whose numbers can be replaced, and where they go."""
        sizes = np.cumsum([0] + [len(p.rows) * self.k[p.f] * self.k[p.g] for p in self.pairs])
        arrays = {
            "A": [np.zeros((m, k, k)) for m, k in zip(self.m, self.k, strict=True)],
            "ZX": [np.zeros((m, k, 1)) for m, k in zip(self.m, self.k, strict=True)],
            "XX": np.zeros((1, 1)),
            "pairs": [
                (p.f, p.g, p.indptr, p.columns, np.arange(lo, hi, dtype=float))
                for p, lo, hi in zip(self.pairs, sizes[:-1].tolist(), sizes[1:].tolist(), strict=True)
            ],
            "precision": [_symmetric_columns(P, m) for P, m in zip(self.precision, self.m, strict=True)],
        }
        structure = BlockedStructure(self.k, 0, arrays)
        entries = np.array([(f, 0, 0, 0) for f in range(len(self.k))], dtype=np.intc)
        clips = np.zeros((0, 4), dtype=np.intc)
        evaluator = BlockedEvaluator(self.k, entries, clips, 0, 1.0, False, structure=structure)
        return evaluator, *evaluator.places()


def _sandwich(block: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if block.shape[1] == block.shape[2] == 1:
        return block * (left[0, 0] * right[0, 0])
    flat = block.reshape(len(block), -1) @ np.kron(left, right)
    return flat.reshape(len(block), left.shape[1], right.shape[1])


def _gram(A: np.ndarray, Q: np.ndarray) -> np.ndarray:
    _, a, b = A.shape
    return (A.reshape(-1, a * b).T @ Q.reshape(-1, a * b)).reshape(a, b, a, b)
