"""From a generalised design to sorted rows in blocks: the arrays that quadrature works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.errors import OptionError
from mixedmodels.objective.marginal.quadrature_rows import Rows, taken

__all__ = ["Block", "Level", "blocks_of", "levels_of", "points_of", "stacked"]

POINTS = 100_000  # largest product rule
SIZE = 1 << 15  # rows times points of a block


@dataclass(slots=True, eq=False)
class Level:
    """Terms on one grouping factor, stacked.

    Attributes
    ----------
    terms : tuple of int
    group : str
    codes : ndarray, shape (n,)
    m, k : int
        Levels, and columns of all terms together.
    offsets : tuple of int
        First column of each term.
    """

    terms: tuple[int, ...]
    group: str
    codes: np.ndarray
    m: int
    k: int
    offsets: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Block:
    """Some groups of the outer level with everything that depends on their rows.

    Attributes
    ----------
    index : ndarray, shape (rows,)
        Rows of the design.
    rows : tuple of Rows, one per level
    members : tuple of ndarray, one per level
        Levels of the design that the groups are.
    X : ndarray, shape (C, rows, n_gamma)
    offset : ndarray, shape (C, rows)
    parent : ndarray
        Outer group of each inner group, with two levels.
    """

    index: np.ndarray
    rows: tuple[Rows, ...]
    members: tuple[np.ndarray, ...]
    X: np.ndarray
    offset: np.ndarray
    parent: np.ndarray


def levels_of(design: GeneralisedDesign, nodes: int) -> tuple[Level, ...]:
    """The grouping factors, outer one first.

    Raises
    ------
    OptionError
        Grouping factors are crossed or more than two, levels are not independent, or too many points.
    """
    found: list[list[int]] = []
    for b, term in enumerate(design.terms):
        if term.precision is not None:
            raise OptionError(
                f"nagq = {nodes} needs independent levels, but those of {term.group!r} have a "
                "known precision between them: use nagq=1"
            )
        for own in found:
            first = design.terms[own[0]]
            if first.codes is term.codes or np.array_equal(first.codes, term.codes):
                own.append(b)
                break
        else:
            found.append([b])
    levels = []
    for own in found:
        ks = [design.terms[b].k for b in own]
        offsets = tuple(int(v) for v in np.cumsum([0, *ks[:-1]]))
        first = design.terms[own[0]]
        levels.append(Level(tuple(own), first.group, first.codes, first.m, sum(ks), offsets))
    names = " and ".join(repr(level.group) for level in levels)
    if len(levels) > 2:
        raise OptionError(
            f"nagq = {nodes} works for one grouping factor or two nested ones, not for {names}: use nagq=1"
        )
    if len(levels) == 2:
        if _nested(levels[0], levels[1]):
            levels = [levels[1], levels[0]]
        elif not _nested(levels[1], levels[0]):
            raise OptionError(
                f"nagq = {nodes} cannot be used because the grouping factors {names} are crossed: their "
                "effects do not separate into integrals of few dimensions; use nagq=1"
            )
    for level in levels:
        points_of(nodes, level)
    return tuple(levels)


def points_of(nodes: int, level: Level) -> int:
    """Number of points of the product rule of a level."""
    points = nodes**level.k
    if points > POINTS:
        raise OptionError(
            f"nagq = {nodes} with {level.k} random effects per level of {level.group!r} needs {points} "
            f"points (at most {POINTS}): use a smaller nagq, fewer effects, or nagq=1"
        )
    return points


def _nested(inner: Level, outer: Level) -> bool:
    """Whether every level of `inner` occurs in one level of `outer` only."""
    low = np.full(inner.m, outer.m)
    high = np.full(inner.m, -1)
    np.minimum.at(low, inner.codes, outer.codes)
    np.maximum.at(high, inner.codes, outer.codes)
    return not np.any((high >= 0) & (low != high))


def stacked(factors: Sequence[np.ndarray], level: Level) -> np.ndarray:
    """The factor of all terms of a level, block diagonal."""
    out = np.zeros((level.k, level.k))
    for b, at in zip(level.terms, level.offsets, strict=True):
        k = factors[b].shape[0]
        out[at : at + k, at : at + k] = factors[b]
    return out


def _columns(design: GeneralisedDesign, level: Level, active: tuple[int, ...]) -> np.ndarray:
    out = np.zeros((len(active), design.n, level.k))
    for b, at in zip(level.terms, level.offsets, strict=True):
        term = design.terms[b]
        out[active.index(design.term_predictor[b]), :, at : at + term.k] = 1.0 if term.Z is None else term.Z
    return out


def _groups(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of the group of each row, first rows and codes of the groups; codes come in runs."""
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    lengths = np.diff(np.r_[starts, codes.shape[0]])
    return np.repeat(np.arange(starts.shape[0]), lengths), starts, codes[starts]


def blocks_of(design: GeneralisedDesign, levels: Sequence[Level], points: int) -> tuple[Block, ...]:
    """Blocks of outer groups with about `SIZE` rows times points each."""
    outer = levels[0]
    order = np.lexsort([level.codes for level in reversed(levels)])
    C, p = len(design.predictors), len(design.gamma_names)
    active = design.active
    Z = [_columns(design, level, active) for level in levels]
    _, starts, _ = _groups(outer.codes[order])
    ends = np.r_[starts[1:], design.n]
    want = max(1, SIZE // points)
    blocks, first = [], 0
    while first < starts.shape[0]:
        last = int(np.searchsorted(ends, starts[first] + want, side="right"))
        last = max(last, first + 1)
        index = order[starts[first] : ends[last - 1]]
        first = last
        data = taken(design.data, index)
        rows, members, numbers = [], [], []
        for level, columns in zip(levels, Z, strict=True):
            code, begin, own = _groups(level.codes[index])
            rows.append(Rows(data, np.ascontiguousarray(columns[:, index]), code, begin, active))
            members.append(own)
            numbers.append(code)
        X, offset = np.zeros((C, index.shape[0], p)), np.zeros((C, index.shape[0]))
        for c, predictor in enumerate(design.predictors):
            X[c][:, predictor.columns] = 1.0 if predictor.X is None else predictor.X[index]
            if predictor.offset is not None:
                offset[c] = predictor.offset[index]
        parent = numbers[0][rows[-1].starts]
        blocks.append(Block(index, tuple(rows), tuple(members), X, offset, parent))
    return tuple(blocks)
