"""Rows to predict, and their random effects: kept in the mean, left out on its levels, or on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.predict import Selection
from mixedmodels.frame.newdata import NewDesign

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Parts", "chosen", "join", "own_rows", "parts_of", "quadratic_rows", "subset", "term_variance"]

Columns = list[tuple[int, "Sequence[int]"]]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Random terms by their part in a prediction.

    Attributes
    ----------
    kept : Selection
        Terms, and their columns or None for all, whose predicted effects are in the mean.
    same : list of (position, columns)
        Left out of the mean, on a grouping factor of a kept term: an observation has the effects of the same
        level, which are correlated with the errors of those kept.
    apart : list of (position, columns)
        Left out with their grouping factor: the observation is on a level that the fit has not seen.
    whole : bool
        Whether a new observation is predicted; otherwise `same` and `apart` are empty.
    """

    kept: Selection
    same: Columns
    apart: Columns
    whole: bool

    @property
    def with_levels(self) -> list[int]:
        """Positions of the terms whose levels are needed."""
        return sorted({position for position, _ in [*self.kept, *self.same]})


def parts_of(fit: LMMFit, selection: Selection, whole: bool) -> Parts:
    """Which effects the mean holds, and which only a new observation has."""
    terms = fit.design.terms
    columns_kept = dict(selection)
    groups = {terms[position].group for position in columns_kept}
    same: Columns = []
    apart: Columns = []
    for position, term in enumerate(terms) if whole else ():
        columns = columns_kept.get(position, ())
        rest = [] if columns is None else [j for j in range(term.k) if j not in columns]
        if rest:
            (same if term.group in groups else apart).append((position, rest))
    return Parts(selection, same, apart, whole)


def own_rows(fit: LMMFit) -> NewDesign:
    """The rows of the fit, after them those that it left out for a weight of zero."""
    design = fit.design
    design.need_one_level("standard errors and intervals of predictions")
    rows = NewDesign(
        np.asarray(design.X),
        design.offset,
        tuple((term.codes, term.Z) for term in design.terms),
        None,
        np.ones(design.n, dtype=bool),
    )
    zero = getattr(fit.frame, "zero_weight_design", None)
    return rows if zero is None else join(rows, zero)


def join(first: NewDesign, second: NewDesign) -> NewDesign:
    """Rows of two designs of one model, one after another."""

    def both(a: Any, b: Any) -> Any:
        return None if a is None else np.concatenate([a, b])

    estimable = [
        np.ones(part.n, dtype=bool) if part.estimable is None else part.estimable for part in (first, second)
    ]
    return NewDesign(
        both(first.X, second.X),
        both(first.offset, second.offset),
        tuple(
            None if a is None or b is None else (both(a[0], b[0]), both(a[1], b[1]))
            for a, b in zip(first.terms, second.terms, strict=True)
        ),
        both(*estimable),
        both(first.rows, second.rows),
    )


def subset(rows: NewDesign, keep: np.ndarray) -> NewDesign:
    """Some rows of a design, by their places or a mask."""

    def some(a: Any) -> Any:
        return None if a is None else a[keep]

    X = rows.X[keep]
    return replace(
        rows,
        X=X,
        offset=some(rows.offset),
        terms=tuple(None if term is None else (some(term[0]), some(term[1])) for term in rows.terms),
        estimable=None,
        leftover={position: some(part) for position, part in (rows.leftover or {}).items()},
        rows=np.ones(X.shape[0], dtype=bool),
    )


def chosen(Z: np.ndarray | None, columns: Sequence[int] | None, k: int, n: int) -> np.ndarray:
    """Values of a term's columns with those not chosen at zero, shape (n, k)."""
    if Z is None:
        return np.ones((n, k))
    if columns is None:
        return Z
    out = np.zeros_like(Z)
    out[:, list(columns)] = Z[:, list(columns)]
    return out


def quadratic_rows(X: np.ndarray, V: np.ndarray) -> np.ndarray:
    """``x_i' V x_i`` for the rows of X, V symmetric positive semi-definite."""
    out = np.zeros(X.shape[0])
    for j in range(V.shape[0]):
        part = X @ V[:, j]
        part *= X[:, j]
        out += part
    return out


def term_variance(Z: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """``z_i' Sigma_r z_i`` with ``Sigma_r = F_r F_r'``, shape (rows, r).

    Parameters
    ----------
    Z : ndarray, shape (rows, k)
    factors : ndarray, shape (r, k, c)
    """
    out = np.zeros((Z.shape[0], factors.shape[0]))
    for c in range(factors.shape[2]):
        part = Z @ factors[:, :, c].T
        out += part * part
    return out
