"""Compact letter display of means: which do not differ significantly from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.inference.means.marginal_means import MarginalMeans

__all__ = ["cld", "letters"]


def letters(significant: np.ndarray) -> list[str]:
    """Letters of k means in the given order: two means share one if their pair is not significant.

    Insert and absorb: starting from one column of all means, each significant pair splits every column that
    holds both; columns contained in others are dropped.

    Parameters
    ----------
    significant : ndarray of bool, shape (k, k)

    Source
    ------
    Piepho (2004), Journal of Computational and Graphical Statistics 13, 456-466.

    Examples
    --------
    >>> significant = np.zeros((3, 3), dtype=bool)
    >>> significant[0, 2] = True
    >>> letters(significant)
    ['a', 'ab', 'b']
    """
    k = significant.shape[0]
    differs = significant | significant.T
    columns: list[frozenset[int]] = [frozenset(range(k))]
    for i in range(k):
        for j in range(i + 1, k):
            if not differs[i, j]:
                continue
            split: list[frozenset[int]] = []
            for column in columns:
                split += [column - {i}, column - {j}] if i in column and j in column else [column]
            distinct = list(dict.fromkeys(split))
            columns = [c for c in distinct if not any(c < other for other in distinct)]
    columns.sort(key=lambda column: sorted(column))
    return ["".join(_letter(n) for n, column in enumerate(columns) if i in column) for i in range(k)]


def _letter(number: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    alphabet += alphabet.upper()
    return alphabet[number] if number < len(alphabet) else f"({number + 1})"


def cld(means: MarginalMeans, alpha: float = 0.05, adjust: Any = None, reverse: bool = False) -> ResultTable:
    """Means in order with their letters; see `MarginalMeans.cld`."""
    if means.kind not in ("means", "slopes"):
        raise OptionError("cld() needs means or slopes, not contrasts")
    if not 0.0 < float(alpha) < 1.0:
        raise OptionError(f"alpha must lie between 0 and 1, got {alpha!r}")
    table = means.table
    order: list[int] = []
    shown: list[str] = []
    notes: dict[str, None] = {}
    estimate = means.estimate
    for rows in means.groups:
        possible = rows[np.isfinite(estimate[rows])]
        ranked = possible[np.argsort(estimate[possible] * (-1.0 if reverse else 1.0), kind="stable")]
        order += ranked.tolist()
        if ranked.size < 2:
            shown += ["a"] * ranked.size
        else:
            significant, told = _significant(means, ranked, float(alpha), adjust)
            shown += letters(significant)
            notes.update(dict.fromkeys(told))
        rest = [row for row in rows.tolist() if row not in set(possible.tolist())]
        order += rest
        shown += [""] * len(rest)
    columns = {name: column[order] for name, column in table.columns.items()}
    columns["group"] = np.array(shown, dtype=object)
    facts = [
        *table.notes,
        *notes,
        f"means that share a letter do not differ at alpha = {float(alpha):g}; this does not show that they "
        "are equal",
    ]
    return result_table(f"{table.title}: compact letter display", columns, facts, means.source.fit._native)


def _significant(
    means: MarginalMeans, rows: np.ndarray, alpha: float, adjust: Any
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which pairs of some rows differ, at the adjusted p-values of all pairs."""
    from dataclasses import replace

    subset = replace(
        means,
        labels={"row": np.array([str(i) for i in range(rows.size)], dtype=object)},
        by=(),
        L=means.L[rows],
        offset=means.offset[rows],
        notes=(),
        parents={},
        contrasts=None,
        show=replace(means.show, response=False),
        _cache={},
    )
    pairs = subset.pairs(adjust=adjust).table
    out = np.zeros((rows.size, rows.size), dtype=bool)
    with np.errstate(invalid="ignore"):
        out[np.triu_indices(rows.size, 1)] = pairs["p_value"] < alpha
    told = tuple(note for note in pairs.notes if note.startswith("p-values adjusted") or "changed" in note)
    return out, told
