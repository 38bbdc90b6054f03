"""Ancestors, descendants, common ancestors, maternal and paternal lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree

__all__ = ["ancestors", "common_ancestors", "descendants", "line", "lines", "reached", "siblings"]


def reached(pedigree: Pedigree, marked: np.ndarray, *, downwards: bool) -> np.ndarray:
    """The marked individuals with all their descendants (`downwards`) or ancestors, (n,) bool."""
    from mixedmodels.solver._kernels.pedigree import reach

    sire, dam, _ = pedigree.sorted_parents
    work = np.ascontiguousarray(marked[pedigree.order], dtype=np.uint8)
    reach(sire, dam, work, downwards)
    out = np.empty(len(pedigree), dtype=bool)
    out[pedigree.order] = work
    return out


def _parents_of(pedigree: Pedigree, rows: np.ndarray) -> np.ndarray:
    marked = np.zeros(len(pedigree) + 1, dtype=bool)
    marked[pedigree.sire[rows]] = True
    marked[pedigree.dam[rows]] = True
    return marked[:-1]


def ancestors(pedigree: Pedigree, ids: Any) -> np.ndarray:
    """Ids of all ancestors of one or several individuals, in the order of the pedigree."""
    marked = _parents_of(pedigree, pedigree.index(ids))
    return pedigree.ids[reached(pedigree, marked, downwards=False)]


def descendants(pedigree: Pedigree, ids: Any) -> np.ndarray:
    """Ids of all descendants of one or several individuals, in the order of the pedigree."""
    chosen = np.zeros(len(pedigree) + 1, dtype=bool)
    chosen[pedigree.index(ids)] = True
    children = chosen[pedigree.sire] | chosen[pedigree.dam]
    return pedigree.ids[reached(pedigree, children, downwards=True)]


def common_ancestors(pedigree: Pedigree, one: Any, other: Any) -> np.ndarray:
    """Ids of the ancestors that two individuals share; one counts if it is an ancestor of the other."""
    sets = []
    for individual in (one, other):
        marked = np.zeros(len(pedigree), dtype=bool)
        marked[pedigree.index(individual)] = True
        sets.append(reached(pedigree, marked, downwards=False))
    return pedigree.ids[sets[0] & sets[1]]


def siblings(pedigree: Pedigree, id: Any, half: bool = False) -> np.ndarray:
    """Ids of those with the same two known parents; with `half`, at least one in common."""
    row = int(pedigree.index(id)[0])
    s, d = int(pedigree.sire[row]), int(pedigree.dam[row])
    same_sire = (pedigree.sire == s) & (s >= 0)
    same_dam = (pedigree.dam == d) & (d >= 0)
    found = (same_sire | same_dam) if half else (same_sire & same_dam)
    found[row] = False
    return pedigree.ids[found]


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
