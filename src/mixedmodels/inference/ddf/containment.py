"""Containment degrees of freedom: what is left of the random effects that vary with a fixed effect."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.ddf.reference import FTest, f_statistic, row_basis, rows_of
from mixedmodels.inference.ddf.tails import f_tail

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.frame.state import Encoding

__all__ = ["Containment", "rank_contributions"]

_LIMIT = 4000  # columns of [X Z] for which a dense cross-product matrix is formed
_TOLERANCE = 1e-9


class Containment:
    """Degrees of freedom by counting, the rule of SAS's DDFM=CONTAIN.

    A random effect (one column of a term, with its grouping factor) contains a fixed effect if all variables
    of the fixed effect occur in it: ``(Days | Subject)`` is ``Subject`` and ``Days:Subject``, which contains
    Days; every random effect contains the intercept. A fixed effect gets the smallest rank that the random
    effects which contain it add to [X Z], in the order of the formula; where none contains it, the residual
    ``n - rank[X Z]``. A contrast gets the smallest of its coefficients' degrees of freedom.

    Parameters
    ----------
    fit : LMMFit
        Made from a formula.

    Raises
    ------
    OptionError
        A fit without formula, or with so many random effects that the ranks are not counted.

    Notes
    -----
    SAS/STAT User's Guide, the MIXED procedure, MODEL statement, option DDFM=.
    """

    name = "containment"
    label = "containment degrees of freedom"
    notes: tuple[str, ...] = ()

    def __init__(self, fit: LMMFit) -> None:
        if fit.formula is None or fit.frame.encoding is None:
            raise OptionError(
                'ddf="containment" reads which effects contain which from the formula; this model was made '
                'from matrices: use ddf="satterthwaite", "residual" or a number'
            )
        self._fit = fit

    @property
    def vcov(self) -> np.ndarray:
        """Covariance of beta, as of the fit."""
        return self._fit.vcov

    @property
    def _by_coefficient(self) -> np.ndarray:
        return self._fit._once("containment", lambda: _coefficient_df(self._fit))

    def df(self, L: np.ndarray) -> np.ndarray:
        """Degrees of freedom of each row of L, shape (r,)."""
        rows = rows_of(L, self._fit.design.p)
        return np.where(rows != 0.0, self._by_coefficient, math.inf).min(axis=1, initial=math.inf)

    def f_test(self, L: np.ndarray, rhs: np.ndarray | None = None, as_given: bool = False) -> FTest:
        """F test of all rows of L together, with the smallest of their degrees of freedom."""
        rows, values = row_basis(rows_of(L, self._fit.design.p), rhs, self.vcov)
        F, rank = f_statistic(rows, self._fit.beta, self.vcov, values)
        if rank == 0:
            return FTest(math.nan, 0, math.nan, math.nan)
        den_df = float(self.df(np.where(np.abs(rows) > 1e-12 * np.abs(rows).max(), rows, 0.0)).min())
        return FTest(F, rank, den_df, f_tail(F, rank, den_df))


def _coefficient_df(fit: LMMFit) -> np.ndarray:
    """Degrees of freedom of each coefficient, shape (p,)."""
    encoding, design = fit.frame.encoding, fit.design
    design.need_one_level("containment degrees of freedom")
    blocks, holders = _random_effects(fit)
    added, rank = rank_contributions(design.X, blocks)
    residual = max(design.n - rank, 1)
    out = np.full(design.p, float(residual))
    fixed = encoding.fixed
    variables = {
        label: _labels(encoding, term) for label, term in zip(fixed.labels, fixed.terms, strict=True)
    }
    for label, columns in encoding.assign.items():
        own = variables.get(label, frozenset())
        counts = [count for count, holder in zip(added, holders, strict=True) if own <= holder and count > 0]
        if counts:
            out[columns] = min(counts)
    out.setflags(write=False)
    return out


def _labels(encoding: Encoding, term: tuple[int, ...]) -> frozenset[str]:
    return frozenset(encoding.variables[v].label for v in term)


def _random_effects(fit: LMMFit) -> tuple[list[tuple[np.ndarray, np.ndarray, int]], list[frozenset[str]]]:
    """Codes, columns (n, c) and number of levels of each random effect; the variables in it."""
    encoding, design = fit.frame.encoding, fit.design
    blocks, holders = [], []
    for term, part, place in zip(design.terms, encoding.bars, encoding.bar_groups, strict=True):
        group = encoding.groups[place]
        names = frozenset(str(expression) for expression in group.expressions)
        starts = [int(part.intercept), *part.stops][: len(part.stops)]
        pieces: list[tuple[slice, frozenset[str]]] = []
        if part.intercept:
            pieces.append((slice(0, 1), names))
        for members, a, b in zip(part.terms, starts, part.stops, strict=True):
            pieces.append((slice(a, b), names | _labels(encoding, members)))
        Z = np.ones((design.n, 1)) if term.Z is None else np.asarray(term.Z)
        for columns, holder in pieces:
            blocks.append((term.codes, Z[:, columns], term.m))
            holders.append(holder)
    coarse_first = sorted(
        range(len(blocks)), key=lambda j: (len(holders[j]), blocks[j][2] * blocks[j][1].shape[1])
    )
    return [blocks[j] for j in coarse_first], [holders[j] for j in coarse_first]


def rank_contributions(
    X: np.ndarray, blocks: list[tuple[np.ndarray, np.ndarray, int]]
) -> tuple[list[int], int]:
    """What each block of random effects adds to the rank of [X Z], in order, and that rank.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Full column rank.
    blocks : list of (codes, columns, levels)
        Codes, shape (n,); values of the columns, shape (n, c).
    """
    from scipy import sparse

    n, p = X.shape
    size = p + sum(m * Z.shape[1] for _, Z, m in blocks)
    if size > _LIMIT:
        raise OptionError(
            f'ddf="containment" counts ranks of {size} columns, more than {_LIMIT}; '
            'use ddf="satterthwaite" or "residual"'
        )
    scale = np.sqrt((X * X).sum(axis=0))
    pieces: list[Any] = []
    if p:
        pieces.append(np.linalg.qr(X / np.where(scale > 0.0, scale, 1.0))[0])
    for codes, Z, m in blocks:
        c = Z.shape[1]
        lengths = np.sqrt(np.array([np.bincount(codes, z * z, m) for z in Z.T])).T  # (m, c)
        unit = Z / np.where(lengths > 0.0, lengths, 1.0)[codes]
        columns = (codes.astype(np.int64)[:, None] * c + np.arange(c)).ravel()
        rows = np.repeat(np.arange(n), c)
        pieces.append(sparse.csr_array((unit.ravel(), (rows, columns)), shape=(n, m * c)))
    # U spans the columns so far, orthonormal in their cross-products: block by block Gram-Schmidt.
    U = np.eye(p)
    done = pieces[:1] if p else []
    added = []
    for piece in pieces[len(done) :]:
        own = (piece.T @ piece).toarray()
        if done:
            shared = np.vstack([_dense(before.T @ piece) for before in done])
            C = U.T @ shared
            values, vectors = np.linalg.eigh(own - C.T @ C)
        else:
            values, vectors = np.linalg.eigh(own)
        kept = values > _TOLERANCE * np.linalg.norm(own, 2)
        fresh = vectors[:, kept] / np.sqrt(values[kept])
        upper = np.hstack([U, -U @ (C @ fresh)]) if done else np.zeros((0, fresh.shape[1]))
        lower = np.hstack([np.zeros((len(fresh), U.shape[1])), fresh])
        U = np.vstack([upper, lower])
        added.append(int(kept.sum()))
        done.append(piece)
    return added, U.shape[1]


def _dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
