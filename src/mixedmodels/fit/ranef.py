"""Conditional modes of the random effects: tables as plain columns, and the coefficients per level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.frame.factors import CategoryLevels

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = [
    "Effects",
    "NamedTerm",
    "TermEffects",
    "coefficient_columns",
    "coefficient_rows",
    "coefficient_sds",
    "conditional_sds",
    "effect_columns",
    "joined_columns",
    "level_array",
]


@dataclass(frozen=True, slots=True, eq=False)
class TermEffects:
    """Conditional modes of one term as arrays.

    Attributes
    ----------
    group : str
        Grouping factor.
    names : tuple of str, length k
        Columns of the term.
    levels : sequence of length m
    b : ndarray, shape (m, k)
        Conditional modes, in the units of the response.
    """

    group: str
    names: tuple[str, ...]
    levels: Any
    b: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class NamedTerm:
    """A random term under other names of its columns."""

    group: str
    names: tuple[str, ...]
    levels: Any

    @property
    def k(self) -> int:
        """Number of columns."""
        return len(self.names)

    @property
    def m(self) -> int:
        """Number of levels."""
        return len(self.levels)


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Names of the coefficients of a linear predictor, and random terms: what the tables need."""

    x_names: tuple[str, ...]
    terms: tuple[NamedTerm, ...]

    @property
    def p(self) -> int:
        """Number of fixed coefficients."""
        return len(self.x_names)


def level_array(term: Any) -> np.ndarray:
    """Levels of a term as a one-dimensional array, of their own type where they have one."""
    levels = term.levels
    if isinstance(levels, (np.ndarray, CategoryLevels)):
        return np.asarray(levels)
    items = list(levels)
    array = np.asarray(items) if len({type(item) for item in items}) == 1 else np.empty(0)
    if array.ndim != 1 or array.shape[0] != len(items):
        array = np.empty(len(items), dtype=object)
        array[:] = items
    return array


def conditional_sds(blocks: np.ndarray, sigma: float) -> np.ndarray:
    """Standard deviations from the blocks Lambda M^{-1} Lambda' of one term, shape (m, k)."""
    diagonal = np.einsum("lii->li", blocks)
    return sigma * np.sqrt(np.maximum(diagonal, 0.0))


def effect_columns(
    design: Any, b: Sequence[np.ndarray], sds: Sequence[np.ndarray] | None = None
) -> dict[str, Any]:
    """Columns group, level, term, estimate (and sd), one row per level and column of each term."""
    groups: list[str] = []
    names: list[str] = []
    levels = []
    for term in design.terms:
        size = term.m * term.k
        groups += [term.group] * size
        names += list(term.names) * term.m
        levels.append(np.repeat(level_array(term), term.k))
    out = {"group": groups, "level": _joined(levels), "term": names, "estimate": _flat(b)}
    if sds is not None:
        out["sd"] = _flat(sds)
    return out


def coefficient_columns(design: Any, beta: np.ndarray, b: Sequence[np.ndarray]) -> dict[str, Any]:
    """Columns group, level, term, estimate: fixed effect plus random effects of each level.

    For every grouping factor the terms are the fixed effects and then the random columns without a
    fixed effect of the same name, whose fixed part counts as zero.
    """
    groups: list[str] = []
    terms: list[str] = []
    levels = []
    estimates = []
    for group, names, positions in _coefficient_groups(design):
        first = design.terms[positions[0]]
        table = np.zeros((first.m, len(names)))
        table[:, : design.p] = beta
        for position in positions:
            for j, name in enumerate(design.terms[position].names):
                table[:, names.index(name)] += b[position][:, j]
        groups += [group] * table.size
        terms += names * first.m
        levels.append(np.repeat(level_array(first), len(names)))
        estimates.append(table)
    return {"group": groups, "level": _joined(levels), "term": terms, "estimate": _flat(estimates)}


def _coefficient_groups(design: Any) -> list[tuple[str, list[str], list[int]]]:
    """Grouping factors with the names of their coefficients and the positions of their terms."""
    out = []
    for group in dict.fromkeys(term.group for term in design.terms):
        positions = [position for position, term in enumerate(design.terms) if term.group == group]
        names = list(design.x_names)
        for position in positions:
            names += [name for name in design.terms[position].names if name not in names]
        out.append((group, names, positions))
    return out


def joined_columns(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tables of equal columns, one below the other."""
    if len(parts) == 1:
        return parts[0]
    out: dict[str, Any] = {"group": [], "level": [], "term": [], "estimate": np.empty(0)}
    if not parts:
        return out
    for name in ("group", "term"):
        out[name] = [item for part in parts for item in part[name]]
    out["level"] = _joined([np.asarray(part["level"]) for part in parts])
    for name in ("estimate", "std_error"):
        if name in parts[0]:
            out[name] = np.concatenate([part[name] for part in parts])
    return out


def coefficient_sds(design: Design, solver: Any, factors: Sequence[Any]) -> np.ndarray:
    """Standard errors of the rows of `coefficient_columns` over sigma."""
    relative = [np.array(factor) for factor in factors]
    out = [
        np.sqrt(np.maximum(solver.predictor_variance(relative, X, rows), 0.0))
        for X, rows in coefficient_rows(design)
    ]
    return np.concatenate(out) if out else np.zeros(0)


def coefficient_rows(design: Any) -> list[tuple[np.ndarray, list[Any]]]:
    """For every grouping factor the predictors that the rows of `coefficient_columns` are.

    Returns
    -------
    list of (X, rows)
        Fixed-effects columns, and (codes, Z) of each term, None for those on other factors.
    """
    out = []
    for _, names, positions in _coefficient_groups(design):
        m, size = design.terms[positions[0]].m, len(names)
        X = np.tile(np.eye(size)[:, : design.p], (m, 1))
        codes = np.repeat(np.arange(m, dtype=np.int32), size)
        rows: list[Any] = [None] * len(design.terms)
        for position in positions:
            columns = np.array([names.index(name) for name in design.terms[position].names])
            rows[position] = (codes, np.tile(np.eye(size)[:, columns], (m, 1)))
        out.append((X, rows))
    return out


def _joined(parts: list[np.ndarray]) -> Any:
    """Levels of all terms one after another; as text where the terms' levels are of different types."""
    if not parts:
        return np.empty(0)
    kinds = {part.dtype.kind for part in parts}
    if len(kinds) == 1 and "O" not in kinds:
        return np.concatenate(parts)
    items = [item for part in parts for item in part.tolist()]
    if len({type(item) for item in items}) > 1:
        return [str(item) for item in items]
    return items


def _flat(parts: Sequence[np.ndarray]) -> np.ndarray:
    if not parts:
        return np.empty(0)
    return np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in parts])
