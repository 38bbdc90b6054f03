"""Kinship and fraternity by three roads (sweep, recursion, paths), and the size of a pedigree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.genetics.pedigree import Pedigree

__all__ = ["bit_size", "fraternity", "kinship", "kinship_by_paths", "kinship_by_recursion"]

METHODS = ("sweep", "recursion", "paths")


def kinship(pedigree: Pedigree, one: Any, other: Any, method: str = "sweep") -> float:
    """Probability that a gene drawn from one individual and one from the other are identical by descent.

    ``phi(i, i) = (1 + F_i) / 2``; the additive relationship is ``2 phi``.

    Parameters
    ----------
    pedigree : Pedigree
    one, other : label
    method : {"sweep", "recursion", "paths"}
        Through the factors of A (any size), by the recursion ``phi(i, j) = (phi(s_i, j) + phi(d_i, j)) / 2``
        for the younger of the two, or by adding up Wright's paths (small pedigrees: their number explodes).

    Returns
    -------
    float

    Notes
    -----
    Source: Wright (1922), American Naturalist 56, 330-338; Malecot (1948), Les mathematiques de l'heredite.
    """
    if method not in METHODS:
        raise OptionError(f"method={method!r}: choose one of {', '.join(map(repr, METHODS))}")
    i, j = int(pedigree.index(one)[0]), int(pedigree.index(other)[0])
    if method == "recursion":
        return kinship_by_recursion(pedigree, i, j)
    if method == "paths":
        return kinship_by_paths(pedigree, i, j)
    from mixedmodels.genetics.additive import additive_block

    return float(additive_block(pedigree, np.array([i]), np.array([j]))[0, 0]) / 2


def kinship_by_recursion(
    pedigree: Pedigree, i: int, j: int, known: dict[tuple[int, int], float] | None = None
) -> float:
    """Kinship of two rows of the pedigree by recursion, with a stack of its own: as deep as the pedigree is.

    Parameters
    ----------
    pedigree : Pedigree
    i, j : int
        Rows; -1 is unrelated to everybody.
    known : dict, optional
        Kinships by pair of rows, filled on the way; give the same one again for more pairs.
    """
    sire, dam, age = pedigree.sire, pedigree.dam, pedigree.generation
    done = {} if known is None else known

    def pair(a: int, b: int) -> tuple[int, int]:
        """The younger one first."""
        return (a, b) if (age[a], a) >= (age[b], b) else (b, a)

    def value(a: int, b: int) -> float | None:
        return 0.0 if a < 0 or b < 0 else done.get(pair(a, b))

    if i < 0 or j < 0:
        return 0.0
    stack = [pair(i, j)]
    while stack:
        a, b = stack[-1]
        s, d = int(sire[a]), int(dam[a])
        needed = [(s, d)] if a == b else [(s, b), (d, b)]
        values = [value(x, y) for x, y in needed]
        waiting = [pair(x, y) for (x, y), v in zip(needed, values, strict=True) if v is None]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        total = sum(v for v in values if v is not None)
        done[a, b] = (1.0 + total) / 2 if a == b else total / 2
    return done[pair(i, j)]


def _upward_paths(pedigree: Pedigree, row: int) -> Iterator[tuple[int, ...]]:
    """All paths from an individual up to itself and to each of its ancestors."""
    stack: list[tuple[int, ...]] = [(row,)]
    while stack:
        path = stack.pop()
        yield path
        for parent in (int(pedigree.sire[path[-1]]), int(pedigree.dam[path[-1]])):
            if parent >= 0:
                stack.append((*path, parent))


def kinship_by_paths(pedigree: Pedigree, i: int, j: int) -> float:
    """Kinship of two rows of the pedigree as a sum over paths.

    ``phi = sum over common ancestors c and pairs of paths from c to i and to j that meet only in c of
    (1/2)^(steps + 1) (1 + F_c)``.
    """
    if i < 0 or j < 0:
        return 0.0
    if i == j:
        return (1.0 + kinship_by_paths(pedigree, int(pedigree.sire[i]), int(pedigree.dam[i]))) / 2
    by_end: dict[int, list[tuple[int, ...]]] = {}
    for path in _upward_paths(pedigree, j):
        by_end.setdefault(path[-1], []).append(path)
    total = 0.0
    inbred: dict[int, float] = {}
    for path in _upward_paths(pedigree, i):
        c = path[-1]
        for other in by_end.get(c, ()):
            if set(path[:-1]).isdisjoint(other[:-1]):
                if c not in inbred:
                    inbred[c] = kinship_by_paths(pedigree, int(pedigree.sire[c]), int(pedigree.dam[c]))
                total += 0.5 ** (len(path) + len(other) - 1) * (1.0 + inbred[c])
    return total


def fraternity(pedigree: Pedigree, one: Any, other: Any, method: str = "sweep") -> float:
    """Probability that both genes of two individuals are identical by descent, without inbreeding.

    ``phi(s_i, s_j) phi(d_i, d_j) + phi(s_i, d_j) phi(d_i, s_j)`` for two different individuals with known
    parents.

    Parameters
    ----------
    pedigree : Pedigree
    one, other : label
    method : {"sweep", "recursion", "paths"}
        How the kinships are found.

    Notes
    -----
    Source: Lynch and Walsh (1998), Genetics and Analysis of Quantitative Traits, eq. 7.2.
    """
    i, j = int(pedigree.index(one)[0]), int(pedigree.index(other)[0])
    if i == j:
        return 1.0
    parents = [int(p[k]) for k in (i, j) for p in (pedigree.sire, pedigree.dam)]
    if min(parents) < 0:
        return 0.0
    si, di, sj, dj = (pedigree.ids[p] for p in parents)

    def phi(a: Any, b: Any) -> float:
        return kinship(pedigree, a, b, method)

    return phi(si, sj) * phi(di, dj) + phi(si, dj) * phi(di, sj)


def bit_size(pedigree: Pedigree) -> int:
    """Size of a pedigree for multipoint algorithms, ``2 nonfounders - founders``.

    The unknown parent of an individual with one known parent counts as a founder.

    Notes
    -----
    Source: Kruglyak et al. (1996), American Journal of Human Genetics 58, 1347-1363.
    """
    founders = int(np.count_nonzero(pedigree.is_founder))
    half = int(np.count_nonzero((pedigree.sire < 0) != (pedigree.dam < 0)))
    return 2 * (len(pedigree) - founders) - founders - half
