"""`Algebra` of crossed and nested grouping factors: blocks by level and by pair of levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.objective.marginal.blocks import Blocks, Layout
from mixedmodels.objective.marginal.determinant import block_diagonal_traces, trace_products

__all__ = ["BlockedAlgebra"]


class BlockedAlgebra(Layout):
    """A `Layout` with the evaluator that factors its matrices.

    Parameters
    ----------
    design : GeneralisedDesign
    entries : sequence of (term, row, column)
        Of `factor_entries`.

    Attributes
    ----------
    leaf : int
        The factor that is eliminated level by level, -1 for none.
    """

    def __init__(self, design: GeneralisedDesign, entries: Sequence[tuple[int, int, int]]) -> None:
        super().__init__(design, entries)
        self._evaluator, self._B, self._PV = self.evaluator()
        self.leaf: int = self._evaluator.structure.leaf
        self._unit = np.concatenate([np.eye(k).reshape(-1) for k in self.k])
        self._term_columns = [term.k for term in design.terms]
        self._penalty_diagonals = [
            np.ones(m) if P is None else np.asarray(P.matrix.diagonal())
            for P, m in zip(self.precision, self.m, strict=True)
        ]

    @property
    def sizes_of_factor(self) -> dict[str, int]:
        """Sizes of the factorised matrix."""
        found: dict[str, int] = self._evaluator.structure.sizes
        return found

    # ------------------------------------------------------------------ between terms and factors
    def of_terms(self, parts: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Values by factor as values by term."""
        shapes = zip(self._term_columns, self.place, strict=True)
        return tuple([np.ascontiguousarray(parts[f][:, at : at + k]) for k, (f, at) in shapes])

    def from_terms(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Values by term as values by factor."""
        out = [np.zeros((m, k)) for m, k in zip(self.m, self.k, strict=True)]
        for part, (f, at) in zip(parts, self.place, strict=True):
            out[f][:, at : at + part.shape[1]] = part
        return out

    # ------------------------------------------------------------------ rows
    def effects(self, b: Sequence[np.ndarray], out: np.ndarray) -> None:
        """out (A, n) += Z b."""
        self.rows.effects(b, out)

    def effects_many(self, b: Sequence[np.ndarray], out: np.ndarray, active: np.ndarray) -> None:
        """out (c, C, n) += Z b on the predictors `active`."""
        self.rows.effects_many(b, out, active)

    def column(self, f: int, i: int, values: np.ndarray) -> np.ndarray:
        """Column i of factor f times values by level, (n,)."""
        own, z = values[self.codes[f]], self.Z[f]
        return own if z is None else np.asarray(z[:, i] * own)

    def sums(self, r: np.ndarray) -> list[np.ndarray]:
        """Z'r by factor for r (A, n)."""
        found: list[np.ndarray] = self.rows.sums(np.ascontiguousarray(r), self.m)
        return found

    def sums_many(self, r: np.ndarray) -> list[np.ndarray]:
        """Z'r by factor, (m, k, c), for r (c, A, n)."""
        found: list[np.ndarray] = self.rows.sums_many(np.ascontiguousarray(r), self.m)
        return found

    def quadratic(self, V: Blocks) -> np.ndarray:
        """``z_c'V z_d`` of every row, (A, A, n)."""
        found: np.ndarray = self.rows.quadratic(V.diagonal, V.pairs)
        return found

    # ------------------------------------------------------------------ blocks
    def half_products_many(self, A: Blocks, Q: Blocks, Lambda: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`half_products` of stacked A, (k, k, c) per factor."""
        out = []
        for a, q, L in zip(A.diagonal, Q.diagonal, Lambda, strict=True):
            out.append(np.einsum("aikjl,kl->ija", _grams(a, q), L))
        for p, a, q in zip(self.pairs, A.pairs, Q.pairs, strict=True):
            T = _grams(a, q)
            out[p.f] += np.einsum("aikjl,kl->ija", T, Lambda[p.g])
            out[p.g] += np.einsum("aikjl,ij->kla", T, Lambda[p.f])
        return out

    def add_change(
        self,
        H: Blocks,
        A: Blocks,
        Lambda: Sequence[np.ndarray],
        entry: tuple[int, int, int],
        share: slice,
        scale: Any,
    ) -> None:
        """Add the change of ``Lambda'A Lambda`` with one entry."""
        f, i, j = entry
        block = scale * (A.diagonal[f][:, i, :] @ Lambda[f])
        into = H.diagonal[f][share]
        into[:, :, j, :] += block
        into[:, :, :, j] += block
        for place, p in enumerate(self.pairs):
            pair = A.pairs[place]
            if p.f == f:
                H.pairs[place][share][:, :, j, :] += scale * (pair[:, i, :] @ Lambda[p.g])
            elif p.g == f:
                H.pairs[place][share][:, :, :, j] += scale * (pair[:, :, i] @ Lambda[p.f])

    # ------------------------------------------------------------------ the factorised matrix
    def penalty(self, u: Sequence[np.ndarray]) -> list[np.ndarray]:
        """P u by factor."""
        return [
            part if P is None else np.asarray(P.matrix @ part)
            for part, P in zip(u, self.precision, strict=True)
        ]

    def load(self, H: Blocks) -> float:
        """Factor ``H + P``; ``log|H + P| - log|P|``."""
        if not H.pairs:
            values = np.zeros(0)
        elif len(H.pairs) == 1:
            values = H.pairs[0].reshape(-1)
        else:
            values = np.concatenate([part.reshape(-1) for part in H.pairs])
        self._evaluator.load(H.diagonal, values, self._B, self._PV)
        return float(self._evaluator.log_determinant(self._unit))

    def solve(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inverse times values by factor, (m, k, c) each."""
        found: list[np.ndarray] = self._evaluator.condition(self._unit, parts, False)[0]
        return found

    def inverse(self) -> Blocks:
        """Blocks of the inverse on the pattern; the factor stays."""
        evaluator = self._evaluator
        values = np.empty(self.sizes[-1])
        found = evaluator.inverse(self._unit, values, self._B)
        diagonal = [evaluator.diagonal(found, f) for f in range(len(self.k))]
        pairs = []
        for p, lo, hi in zip(self.pairs, self.sizes[:-1], self.sizes[1:], strict=True):
            if self.leaf in (p.f, p.g):
                pairs.append(values[lo:hi].reshape(-1, self.k[p.f], self.k[p.g]))
            else:
                pairs.append(evaluator.pairs(p.f, p.g, p.rows, p.columns)[0])
        evaluator.restore()
        return Blocks(diagonal, pairs)

    def level_blocks(self, Lambda: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of Lambda times the inverse times Lambda' of one term, (m, k, k)."""
        f, at = self.place[term]
        own = slice(at, at + self._term_columns[term])
        L = Lambda[f]
        found = self.inverse().diagonal[f]
        V = found * L[0, 0] ** 2 if L.shape == (1, 1) else L @ found @ L.T
        return np.ascontiguousarray(V[:, own, own])

    def traces(self, H: Blocks, changes: Blocks, exact: bool) -> np.ndarray:
        """Products of the changes with the inverse; a model of them unless `exact`."""
        if exact:
            return trace_products(self, self.leaf, H, changes, self.solve)
        return block_diagonal_traces(self, H, changes, self._penalty_diagonals)


def _grams(A: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """Sums over blocks of ``A[a, :, i, k] Q[:, j, l]``, indexed [a, i, k, j, l]."""
    P, count, i, k = A.shape
    if i * k == 1:
        return (A.reshape(P, count) @ Q.reshape(count)).reshape(P, 1, 1, 1, 1)
    flat = np.swapaxes(A.reshape(P, count, i * k), 1, 2)
    return np.asarray(flat @ Q.reshape(count, i * k)).reshape(P, i, k, i, k)
