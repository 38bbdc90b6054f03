r"""The linear algebra behind Laplace's approximation: what `PatternLaplace` asks of matrices.

Random effects are held by factor (a grouping factor, or a term), as arrays (m, k) of m levels with k columns.
:math:`\\Lambda_f` is k x k. Symmetric q x q matrices live on the pattern of Z'Z only, in whatever form the
algebra likes ("blocks" below, an opaque object); many of them are stacked along a first axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

__all__ = ["Algebra", "both_factors", "half_products"]

Grams = Mapping["tuple[int, int]", np.ndarray]


class Algebra(Protocol):
    """Factors of a design, the pattern of Z'WZ, and one factorised matrix ``H = Lambda'Z'WZ Lambda + P``.

    Attributes
    ----------
    k, m : list of int
        Columns and levels of each factor.
    entries : list of (factor, row, column)
        Free entries of the factors, in the order of `factor_entries`.
    predictors : list of ndarray
        Active predictor (its rank among the active ones) of each column of a factor.
    """

    k: list[int]
    m: list[int]
    entries: list[tuple[int, int, int]]
    predictors: list[np.ndarray]

    # ------------------------------------------------------------------ between terms and factors
    def factors(self, factors: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Lambda of each factor, (k, k), from those of the terms."""
        ...

    def of_terms(self, parts: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Values by factor, (m, k) or (m, k, c), as values by level of each term."""
        ...

    def from_terms(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Spherical effects by factor, (m, k), from those of the terms."""
        ...

    # ------------------------------------------------------------------ rows
    def effects(self, b: Sequence[np.ndarray], out: np.ndarray) -> None:
        """out (A, n) += Z b."""
        ...

    def effects_many(self, b: Sequence[np.ndarray], out: np.ndarray, active: np.ndarray) -> None:
        """out (c, C, n) += Z b on the predictors `active`, (A,), for b by factor, (m, k, c)."""
        ...

    def column(self, f: int, i: int, values: np.ndarray) -> np.ndarray:
        """Column i of factor f times values by level, (m,): shape (n,)."""
        ...

    def sums(self, r: np.ndarray) -> list[np.ndarray]:
        """Z'r by factor for r (A, n)."""
        ...

    def sums_many(self, r: np.ndarray) -> list[np.ndarray]:
        """Z'r by factor, (m, k, c), for r (c, A, n)."""
        ...

    def products(self, W: np.ndarray) -> Any:
        """Z'WZ for weights W, (A, A, n)."""
        ...

    def products_many(self, W: np.ndarray) -> Any:
        """Stacked Z'WZ for W (c, A, A, n)."""
        ...

    def quadratic(self, V: Any) -> np.ndarray:
        """``z_c'V z_d`` of every row, (A, A, n)."""
        ...

    # ------------------------------------------------------------------ blocks
    def transform(self, blocks: Any, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Any:
        """``left_f' block right_g`` for every block (f, g)."""
        ...

    def grams(self, A: Any, Q: Any) -> Grams:
        """Sums over all blocks (f, g), f <= g, of ``A[i, k] Q[j, l]``, indexed [i, k, j, l]."""
        ...

    def half_products(self, A: Any, Q: Any, Lambda: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sum of the level blocks of ``A Lambda Q``, (k, k) per factor."""
        ...

    def half_products_many(self, A: Any, Q: Any, Lambda: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`half_products` of stacked A, (k, k, c) per factor."""
        ...

    def add_change(
        self,
        H: Any,
        A: Any,
        Lambda: Sequence[np.ndarray],
        entry: tuple[int, int, int],
        share: slice,
        scale: Any,
    ) -> None:
        """Add ``scale (E'A Lambda + Lambda'A E)``, E the unit matrix of an entry, to the stacked H[share]."""
        ...

    # ------------------------------------------------------------------ the factorised matrix
    def penalty(self, u: Sequence[np.ndarray]) -> list[np.ndarray]:
        """P u by factor."""
        ...

    def load(self, H: Any) -> float:
        """Factor ``H + P``; ``log|H + P| - log|P|``.

        Raises
        ------
        FloatingPointError
            It is not positive definite.
        """
        ...

    def solve(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inverse times values by factor, (m, k, c) each."""
        ...

    def inverse(self) -> Any:
        """Blocks of the inverse on the pattern."""
        ...

    def level_blocks(self, Lambda: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of Lambda times the inverse times Lambda' of one term, (m, k, k)."""
        ...

    def traces(self, H: Any, changes: Any, exact: bool) -> np.ndarray:
        """``tr((H + P)^{-1} dH_a (H + P)^{-1} dH_b)`` of stacked changes; a model of it unless `exact`."""
        ...


def both_factors(grams: Grams, entries: Sequence[tuple[int, tuple[int, int, int]]], size: int) -> np.ndarray:
    """``tr(dLambda_a' A dLambda_b H^{-1})`` of pairs of entries, (size, size).

    Parameters
    ----------
    grams : mapping
        `Algebra.grams` of A and the inverse of H.
    entries : sequence of (place, (factor, row, column))
    size : int
    """
    out = np.zeros((size, size))
    for a, (f, i, j) in entries:
        for b, (g, k, m) in entries:
            if f == g:
                T = grams[f, f]
                out[a, b] = 0.5 * (T[i, k, j, m] + T[k, i, m, j])
            elif f < g:
                out[a, b] = out[b, a] = grams[f, g][i, k, j, m]
    return out


def half_products(grams: Grams, Lambda: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Sum of the level blocks of ``A Lambda Q`` from `Algebra.grams` of A and Q, (k, k) per factor.

    Half the derivative of ``tr(Lambda'A Lambda Q)`` with respect to the factors.
    """
    out = [np.einsum("ikjl,kl->ij", grams[f, f], L) for f, L in enumerate(Lambda)]
    for (f, g), T in grams.items():
        if f != g:
            out[f] += np.einsum("ikjl,kl->ij", T, Lambda[g])
            out[g] += np.einsum("ikjl,ij->kl", T, Lambda[f])
    return out
