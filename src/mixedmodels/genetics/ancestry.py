"""Ancestors, descendants, common ancestors, maternal and paternal lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree

__all__ = ["ancestors", "common_ancestors", "descendants", "line", "lines", "reached"]


def reached(pedigree: Pedigree, marked: np.ndarray, *, downwards: bool) -> np.ndarray:
    """The marked individuals with all their descendants (`downwards`) or ancestors, (n,) bool."""
    from mixedmodels.solver._kernels.pedigree import reach

    sire, dam, _ = pedigree.sorted_parents
    work = np.ascontiguousarray(marked[pedigree.order], dtype=np.uint8)
    reach(sire, dam, work, downwards)
    out = np.empty(len(pedigree), dtype=bool)
    out[pedigree.order] = work
    return out


def _set(pedigree: Pedigree, ids: Any, *, downwards: bool) -> np.ndarray:
    rows = pedigree.index(ids)
    marked = np.zeros(len(pedigree), dtype=bool)
    marked[rows] = True
    out = reached(pedigree, marked, downwards=downwards)
    # an individual asked for counts only if it is an ancestor (descendant) of another one asked for
    for row in rows:
        alone = np.zeros(len(pedigree), dtype=bool)
        alone[rows[rows != row]] = True
        if not reached(pedigree, alone, downwards=downwards)[row]:
            out[row] = False
    return out


def ancestors(pedigree: Pedigree, ids: Any) -> np.ndarray:
    """Ids of all ancestors of one or several individuals, in the order of the pedigree."""
    return pedigree.ids[_set(pedigree, ids, downwards=False)]


def descendants(pedigree: Pedigree, ids: Any) -> np.ndarray:
    """Ids of all descendants of one or several individuals, in the order of the pedigree."""
    return pedigree.ids[_set(pedigree, ids, downwards=True)]


def common_ancestors(pedigree: Pedigree, one: Any, other: Any) -> np.ndarray:
    """Ids of the ancestors that two individuals share; one counts if it is an ancestor of the other."""
    sets = []
    for individual in (one, other):
        marked = np.zeros(len(pedigree), dtype=bool)
        marked[pedigree.index(individual)] = True
        sets.append(reached(pedigree, marked, downwards=False))
    return pedigree.ids[sets[0] & sets[1]]


def line(pedigree: Pedigree, id: Any, parent: str) -> np.ndarray:
    """Ids from an individual up its maternal (``"dam"``) or paternal (``"sire"``) line."""
    up = pedigree.dam if parent == "dam" else pedigree.sire
    row, found = int(pedigree.index(id)[0]), []
    while row >= 0:
        found.append(row)
        row = int(up[row])
    return pedigree.ids[found]


def lines(parent: np.ndarray) -> np.ndarray:
    """Row of the earliest known ancestor in the line of one parent, (n,), in log2(depth) passes.

    Parameters
    ----------
    parent : ndarray of int, shape (n,)
        Row of the parent, -1 if unknown.
    """
    root = np.where(parent >= 0, parent, np.arange(len(parent)))
    while True:
        further = root[root]
        if np.array_equal(further, root):
            return root
        root = further
