"""Additive relationships of a pedigree: inbreeding, the sparse inverse, blocks without the whole matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree
    from mixedmodels.genetics.relationship import Relationship

__all__ = [
    "additive",
    "additive_block",
    "additive_precision",
    "additive_times",
    "inbreeding",
    "mendelian_variances",
]

_BLOCK = 64  # columns of the relationship matrix computed in one sweep


def inbreeding(sire: np.ndarray, dam: np.ndarray, generation: np.ndarray) -> np.ndarray:
    """Inbreeding coefficients of individuals sorted by generation.

    Parameters
    ----------
    sire, dam, generation : ndarray of int32, shape (n,)
        As `Pedigree.sorted_parents`.

    Returns
    -------
    ndarray, shape (n,)

    Notes
    -----
    With ``A = T D T'``: for each sire s of a generation of offspring ``v = T's`` is found by going up through
    its ancestors, and ``x = T D v`` by going down through the ancestors of its mates; ``F = x_mate / 2``. One
    sweep serves all mates and all full sibs. In a generation whose first sweeps reach nearly everybody, eight
    sires at a time go through all earlier individuals instead, which streams through memory.

    Source: Colleau (2002), Genetics Selection Evolution 34, 409-421; Sargolzaei, Iwaisaki and Colleau (2005),
    Journal of Animal Breeding and Genetics 122, 325-331.
    """
    from mixedmodels.solver._kernels import pedigree as kernel

    rows = np.flatnonzero((sire >= 0) & (dam >= 0) & (sire != dam))
    one, other = sire[rows], dam[rows]
    level = generation[rows]
    n = max(len(sire), 1)
    by_one = _distinct(level.astype(np.int64) * n + one)
    by_other = _distinct(level.astype(np.int64) * n + other)
    if by_other < by_one:
        one, other = other, one
    order = np.lexsort((other, one, level))
    rows, one, other, level = rows[order], one[order], other[order], level[order]
    new_group = np.ones(len(rows), dtype=bool)
    new_group[1:] = (one[1:] != one[:-1]) | (level[1:] != level[:-1])
    new_family = new_group.copy()
    new_family[1:] |= other[1:] != other[:-1]
    family = np.flatnonzero(new_family)
    group = np.searchsorted(family, np.flatnonzero(new_group))
    return kernel.inbreeding(
        np.ascontiguousarray(sire),
        np.ascontiguousarray(dam),
        np.ascontiguousarray(generation),
        np.ascontiguousarray(one[family]),
        np.ascontiguousarray(other[family]),
        np.append(family, len(rows)).astype(np.int64),
        rows.astype(np.int64),
        np.append(group, len(family)).astype(np.int64),
    )


def _distinct(values: np.ndarray) -> int:
    return len(np.unique(values))


def mendelian_variances(sire: np.ndarray, dam: np.ndarray, inbred: np.ndarray) -> np.ndarray:
    """Variance of breeding values given the parents', (n,): ``d_i = 1/2 - (F_sire + F_dam) / 4``."""
    padded = np.append(inbred, -1.0)  # an unknown parent is row -1
    return 0.5 - 0.25 * (padded[sire] + padded[dam])


def additive_precision(pedigree: Pedigree) -> tuple[Any, float]:
    """``A^{-1}`` as a sparse array (n, n) and ``log|A|``; see `Pedigree.additive_precision`."""
    from scipy.sparse import csc_array

    n = len(pedigree)
    sire, dam = pedigree.sire, pedigree.dam
    d = mendelian_variances(sire, dam, pedigree.inbreeding)
    if n and d.min() <= 0.0:
        row = int(np.argmin(d))
        raise DataError(
            f"the parents of individual {str(pedigree.ids[row])!r} are completely inbred: it is a copy of "
            "them and the relationship matrix is singular; give both one id"
        )
    rows = np.arange(n)
    has_sire, has_dam = np.flatnonzero(sire >= 0), np.flatnonzero(dam >= 0)
    i = np.concatenate([rows, has_sire, has_dam])
    j = np.concatenate([rows, sire[has_sire], dam[has_dam]])
    root = 1.0 / np.sqrt(d)
    values = np.concatenate([root, -0.5 * root[has_sire], -0.5 * root[has_dam]])
    factor = csc_array((values, (i, j)), shape=(n, n))  # repeated entries (selfing) add up
    precision = csc_array(factor.T @ factor)
    precision.sort_indices()
    return precision, float(np.sum(np.log(d)))


def additive_times(pedigree: Pedigree, X: np.ndarray) -> np.ndarray:
    """``A X`` without forming A, (n, k): up through the pedigree, times D, and down.

    Source: Colleau (2002), Genetics Selection Evolution 34, 409-421.
    """
    from mixedmodels.solver._kernels import pedigree as kernel

    sire, dam, _ = pedigree.sorted_parents
    order = pedigree.order
    X = np.asarray(X, dtype=float)
    work = np.array(X.reshape(len(X), -1)[order], order="C")
    kernel.multiply_up(sire, dam, work)
    work *= mendelian_variances(sire, dam, pedigree.inbreeding[order])[:, None]
    kernel.multiply_down(sire, dam, work)
    out = np.empty_like(work)
    out[order] = work
    return out.reshape(X.shape)


def additive_block(pedigree: Pedigree, rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """Relationships between some individuals, (len(rows), len(columns)), by sweeps over their ancestors only.

    Parameters
    ----------
    pedigree : Pedigree
    rows, columns : ndarray of int
        Rows of the pedigree; without `columns` the same as `rows`.
    """
    from mixedmodels.genetics.ancestry import reached

    symmetric = columns is None
    columns = rows if columns is None else columns
    marked = np.zeros(len(pedigree), dtype=bool)
    marked[rows] = True
    marked[columns] = True
    kept = np.flatnonzero(reached(pedigree, marked, downwards=False))
    place = np.full(len(pedigree), -1)
    place[kept] = np.arange(len(kept))
    small = pedigree.take(kept)
    small.__dict__["inbreeding"] = pedigree.inbreeding[kept]  # ancestors are all kept
    rows, columns = place[rows], place[columns]
    out = np.empty((len(rows), len(columns)))
    for at in range(0, len(columns), _BLOCK):
        block = columns[at : at + _BLOCK]
        unit = np.zeros((len(kept), len(block)))
        unit[block, np.arange(len(block))] = 1.0
        out[:, at : at + _BLOCK] = additive_times(small, unit)[rows]
    return (out + out.T) / 2 if symmetric else out


def additive(pedigree: Pedigree, ids: Any = None) -> Relationship:
    """Additive relationships as a `Relationship`; see `Pedigree.additive`."""
    from mixedmodels.genetics.relationship import Relationship

    if ids is None:
        precision, logdet = pedigree.additive_precision()
        return Relationship(
            ids=pedigree.ids,
            precision=precision,
            logdet=logdet,
            name="additive",
            block=lambda rows: additive_block(pedigree, rows),
        )
    rows = pedigree.index(ids)
    return Relationship(ids=pedigree.ids[rows], matrix=additive_block(pedigree, rows), name="additive")
