"""The one pass over the rows: everything a linear mixed model needs, in arrays whose length is not n.

For factor f (all terms on one grouping factor) with columns Z_f: by level ``A = Z'Z`` (k x k) and
``Z'[X y]``; for two factors the observed pairs of levels with their k_f x k_g blocks ``Z_f'Z_g``; and
``[X y]'[X y]``. All of these are sums over rows, so packs of disjoint sets of rows add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import mixedmodels.solver._kernels.crossproducts as kernels
from mixedmodels.errors import SolverError

if TYPE_CHECKING:
    from mixedmodels.design import Design, KnownCovariance, Precision
    from mixedmodels.solver.scaling import Standardised

__all__ = ["BlockCSR", "CrossProducts", "FactorBlock", "amalgamate", "cross_products"]

_SMALL_P = 12


@dataclass(frozen=True, slots=True, eq=False)
class FactorBlock:
    """Cross-products of one grouping factor, by level.

    Attributes
    ----------
    group : str
    m, k : int
        Levels and columns (summed over the factor's terms).
    A : ndarray, shape (m, k, k)
        ``Z_l'Z_l``.
    ZXy : ndarray, shape (m, k, p + 1)
        ``Z_l'[X y]``: the right-hand sides, y last. `ZX` and `Zy` are views of it.
    terms : tuple of int
        Which terms of the design.
    slices : tuple of slice
        Their columns within the factor.
    precision : Precision or None
    """

    group: str
    m: int
    k: int
    A: np.ndarray
    ZXy: np.ndarray
    terms: tuple[int, ...]
    slices: tuple[slice, ...]
    precision: Precision | KnownCovariance | None = None

    @property
    def ZX(self) -> np.ndarray:
        """``Z_l'X``, shape (m, k, p), a view."""
        return self.ZXy[:, :, :-1]

    @property
    def Zy(self) -> np.ndarray:
        """``Z_l'y``, shape (m, k), a view."""
        return self.ZXy[:, :, -1]


@dataclass(frozen=True, slots=True, eq=False)
class BlockCSR:
    """Sparse matrix of small dense blocks, by rows.

    Attributes
    ----------
    indptr : ndarray of intp, shape (rows + 1,)
    indices : ndarray of int32, shape (nnz,)
        Block columns, ascending within a row.
    data : ndarray, shape (nnz, k_f, k_g)
    columns : int
        Number of block columns.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    columns: int

    @property
    def nnz(self) -> int:
        """Stored blocks."""
        return self.indices.shape[0]

    def transpose_pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same blocks by columns: ``indptr``, ``rows`` and ``position`` into `data`, both (nnz,)."""
        return kernels.transpose_pattern(self.indptr, self.indices, self.columns)

    def __add__(self, other: BlockCSR) -> BlockCSR:
        rows = self.indptr.shape[0] - 1
        keys = np.concatenate(
            [
                np.repeat(np.arange(rows), np.diff(part.indptr)) * self.columns + part.indices
                for part in (self, other)
            ]
        )
        unique, inverse = np.unique(keys, return_inverse=True)
        data = np.zeros((unique.shape[0], *self.data.shape[1:]))
        data[inverse[: self.nnz]] = self.data
        data[inverse[self.nnz :]] += other.data
        indptr = np.searchsorted(unique, np.arange(rows + 1) * self.columns).astype(np.intp)
        return BlockCSR(indptr, (unique % self.columns).astype(np.intc), data, self.columns)


@dataclass(frozen=True, slots=True, eq=False)
class CrossProducts:
    """All cross-products of a design in internal coordinates; packs of disjoint rows add.

    Attributes
    ----------
    factors : tuple of FactorBlock
        Grouping factors, most levels first.
    pairs : dict of (f, g) with f < g to BlockCSR
        ``Z_f'Z_g``: block rows are the levels of f, the factor with at least as many levels.
    G : ndarray, shape (p + 1, p + 1)
        ``[X y]'[X y]``; `XX`, `Xy`, `yy` are its parts.
    n : int
    sum_log_w : float
    """

    factors: tuple[FactorBlock, ...]
    pairs: dict[tuple[int, int], BlockCSR]
    G: np.ndarray
    n: int
    sum_log_w: float

    @property
    def p(self) -> int:
        """Fixed-effects columns."""
        return self.G.shape[0] - 1

    @property
    def XX(self) -> np.ndarray:
        """``X'X``, shape (p, p)."""
        return self.G[:-1, :-1]

    @property
    def Xy(self) -> np.ndarray:
        """``X'y``, shape (p,)."""
        return self.G[:-1, -1]

    @property
    def yy(self) -> float:
        """Sum of squares of the response, ``y'y``."""
        return float(self.G[-1, -1])

    def __add__(self, other: CrossProducts) -> CrossProducts:
        if not isinstance(other, CrossProducts):
            return NotImplemented
        shapes = [(f.group, f.A.shape, f.ZXy.shape, f.terms) for f in self.factors]
        if shapes != [(f.group, f.A.shape, f.ZXy.shape, f.terms) for f in other.factors]:
            raise SolverError(
                "cross-products can be added only if they have the same terms and levels; "
                "encode all parts with the levels of the whole"
            )
        factors = tuple(
            FactorBlock(a.group, a.m, a.k, a.A + b.A, a.ZXy + b.ZXy, a.terms, a.slices, a.precision)
            for a, b in zip(self.factors, other.factors, strict=True)
        )
        pairs = {key: self.pairs[key] + other.pairs[key] for key in self.pairs}
        return CrossProducts(
            factors, pairs, self.G + other.G, self.n + other.n, self.sum_log_w + other.sum_log_w
        )


def amalgamate(design: Design) -> list[tuple[int, ...]]:
    """Which terms share a factor: tuples of term indices, most levels first (ties: formula order)."""
    if len(design.terms) == 1:
        return [(0,)]
    found: list[list[int]] = []
    for i, term in enumerate(design.terms):
        for members in found:
            first = design.terms[members[0]]
            if first.precision is term.precision and (
                first.codes is term.codes
                or (
                    first.group == term.group
                    and first.m == term.m
                    and np.array_equal(first.codes, term.codes)
                )
            ):
                members.append(i)
                break
        else:
            found.append([i])
    if len(found) > 1:
        found.sort(key=lambda members: -design.terms[members[0]].m)
    return [tuple(members) for members in found]


def cross_products(design: Design, standardised: Standardised) -> CrossProducts:
    """All cross-products of a design in the coordinates of `standardised`.

    Parameters
    ----------
    design : Design
    standardised : Standardised

    Returns
    -------
    CrossProducts

    Examples
    --------
    >>> from mixedmodels.solver.scaling import standardise
    >>> from mixedmodels.testing import random_design
    >>> design = random_design(0, "one_slope")
    >>> pack = cross_products(design, standardise(design))
    >>> pack.factors[0].A.shape, pack.factors[0].ZXy.shape
    ((12, 2, 2), (12, 2, 4))
    """
    X, y, sw = standardised.X, standardised.y, standardised.sqrt_weights
    factors, readers, codes = [], [], []
    for members in amalgamate(design):
        first = design.terms[members[0]]
        reader = kernels.TermRows([standardised.columns[t] for t in members], sw)
        code = np.ascontiguousarray(first.codes, dtype=np.intc)
        A, ZXy = kernels.level_products(reader, code, first.m, X, y)
        slices, at = [], 0
        for t in members:
            slices.append(slice(at, at + design.terms[t].k))
            at += design.terms[t].k
        factors.append(FactorBlock(first.group, first.m, at, A, ZXy, members, tuple(slices), first.precision))
        readers.append(reader)
        codes.append(code)
    pairs = {}
    for f in range(len(factors)):
        for g in range(f + 1, len(factors)):
            indptr, indices, data = kernels.pair_products(
                readers[f], codes[f], factors[f].m, readers[g], codes[g], factors[g].m
            )
            pairs[f, g] = BlockCSR(indptr, indices, data, factors[g].m)
    return CrossProducts(tuple(factors), pairs, _gram(X, y), design.n, standardised.sum_log_w)


def _gram(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[X y]'[X y]: own loops for few columns, BLAS for many."""
    p = X.shape[1]
    if p <= _SMALL_P:
        return kernels.gram_xy(X, y)
    G = np.empty((p + 1, p + 1))
    G[:p, :p] = X.T @ X
    G[:p, p] = G[p, :p] = y @ X
    G[p, p] = y @ y
    return G
