"""Ancestors, descendants, common ancestors, maternal and paternal lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree

__all__ = [
    "ancestors",
    "common_ancestors",
    "descendants",
    "group_shares",
    "line",
    "lines",
    "reached",
    "siblings",
]


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


def group_shares(pedigree: Pedigree, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Share of each individual's genes that come from each group of unknown parents.

    ``Q = T Q_0``: an unknown parent gives half a share of the group named for its offspring. As fixed columns
    the shares are the genetic groups of the animal model, whose breeding values are ``Q g + a``.

    Parameters
    ----------
    pedigree : Pedigree
    groups : sequence of labels, length n
        Group of the unknown parents of each individual; ignored where both parents are known.

    Returns
    -------
    shares : ndarray, shape (n, number of groups)
        Rows add up to one.
    labels : ndarray
        Groups in the order of the columns, sorted.

    Raises
    ------
    DataError
        A length that differs, or no group for an individual with an unknown parent.

    Notes
    -----
    Source: Westell, Quaas and Van Vleck (1988), Journal of Dairy Science 71, 1310-1318.
    """
    from mixedmodels.solver._kernels.pedigree import multiply_down

    labels = np.asarray(groups, dtype=object)
    if labels.shape != (len(pedigree),):
        raise DataError(f"groups need one label for each of the {len(pedigree)} individuals")
    unknown = (pedigree.sire < 0).astype(int) + (pedigree.dam < 0)
    rows = np.flatnonzero(unknown)
    without = [i for i in rows.tolist() if labels[i] is None or labels[i] != labels[i]]
    if without:
        who = str(pedigree.ids[without[0]])
        raise DataError(f"individual {who!r} has an unknown parent and no group; give one")
    distinct, code = np.unique(labels[rows].astype(str), return_inverse=True)
    start = np.zeros((len(pedigree), len(distinct)))
    start[rows, code.ravel()] = unknown[rows] / 2
    sire, dam, _ = pedigree.sorted_parents
    work = np.ascontiguousarray(start[pedigree.order])
    multiply_down(sire, dam, work)
    out = np.empty_like(work)
    out[pedigree.order] = work
    return out, distinct
