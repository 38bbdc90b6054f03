"""Residuals whose correlations come from a table by pattern: what compiled code needs to know about them.

Processes in time, distances and pairs of occasions, alone or with variance functions
(`mixedmodels.residual.patterns`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.residual.combine import CombinedResidual
    from mixedmodels.residual.patterns import PatternOrder
    from mixedmodels.residual.table import TableCorrelation

__all__ = ["ByTable", "Layout", "Tables", "by_table"]


class Layout(NamedTuple):
    """Groups in the order of their patterns, flat.

    Attributes
    ----------
    sizes, groups : ndarray of int64, shape (P,)
        Rows of a group, and groups, of each pattern.
    places : ndarray of int32
        Of each pattern its (T, T) places in the table.
    rows : ndarray of int64, shape (n,)
    """

    sizes: np.ndarray
    groups: np.ndarray
    places: np.ndarray
    rows: np.ndarray


class Tables(NamedTuple):
    """Correlations and standard deviations at one phi, with derivatives in the k and s free parameters.

    Attributes
    ----------
    values, first, second : ndarray, shapes (m,), (k, m), (k (k + 1) / 2, m)
        Table of correlations; its first entry is the constant of the diagonal.
    log_sd : ndarray, shape (n,), or None
    e, ee : ndarray, shapes (s, n), (s (s + 1) / 2, n)
        Derivatives e_i of the logarithms, and ``e_i e_j - e_ij``.
    bends : ndarray, shape (s (s + 1) / 2,)
        Sums of e_ij over the rows.
    """

    values: np.ndarray
    first: np.ndarray
    second: np.ndarray
    log_sd: np.ndarray | None
    e: np.ndarray
    ee: np.ndarray
    bends: np.ndarray


class ByTable:
    """A `CombinedResidual` whose correlation has a table.

    Parameters
    ----------
    bound : CombinedResidual
    order : PatternOrder
    """

    def __init__(self, bound: CombinedResidual, order: PatternOrder) -> None:
        self._bound, self._keys = bound, order.keys
        free = bound._free.tolist()
        k = bound._parts[0].n_phi
        self._mine = [j for j in free if j < k]
        self._others = [j - k for j in free if j >= k]
        buckets = order.buckets
        self.layout = Layout(
            np.concatenate([np.full(len(b.counts), b.rows.shape[0], dtype=np.int64) for b in buckets]),
            np.concatenate([b.counts for b in buckets]).astype(np.int64),
            np.concatenate([b.places.ravel() for b in buckets]).astype(np.int32),
            np.concatenate([b.rows.T.ravel() for b in buckets]).astype(np.int64),
        )

    def at(self, phi: np.ndarray, derivatives: bool) -> Tables:
        """The table and the standard deviations at phi.

        Parameters
        ----------
        phi : ndarray, shape (n_phi,)
        derivatives : bool

        Raises
        ------
        FloatingPointError
            A correlation is not finite, or a standard deviation is zero.
        """
        bound, mine, others = self._bound, self._mine, self._others
        part: TableCorrelation = bound._parts[0]  # type: ignore[assignment]
        pieces = bound._split(phi)
        m, k, s = self._keys.shape[0] + 1, len(mine), len(others)
        values, first = np.ones(m), np.zeros((k, m))
        second = np.zeros((k * (k + 1) // 2, m))
        table, slopes, bend = part.tables(pieces[0], self._keys, derivatives)
        values[1:] = table
        if derivatives:
            first[:, 1:] = slopes[mine]
            for i in range(k):
                for j in range(i + 1):
                    second[i * (i + 1) // 2 + j, 1:] = bend(mine[j], mine[i])
        if not np.isfinite(values.sum()):
            raise FloatingPointError("a correlation is not finite")
        log_sd, firsts = bound.log_sd_of(pieces), []
        for one, own in zip(bound.variances, pieces[1:], strict=True):
            if derivatives and one.n_phi:
                firsts.append(one.first(own))
        pairs = s * (s + 1) // 2
        e, ee, bends = np.zeros((s, bound.n)), np.zeros((pairs, bound.n)), np.zeros(pairs)
        if firsts:
            e = np.ascontiguousarray(np.concatenate(firsts)[others])
            curved = bound.log_sd_seconds(pieces)
            for i in range(s):
                for j in range(i + 1):
                    at = i * (i + 1) // 2 + j
                    ee[at] = e[i] * e[j]
                    eij = curved.get((others[j], others[i]))
                    if eij is not None:
                        ee[at] -= eij
                        bends[at] = eij.sum()
        return Tables(values, first, second, log_sd, e, ee, bends)


def by_table(bound: object) -> ByTable | None:
    """The tables of a structure; None for a structure without.

    Parameters
    ----------
    bound : BoundResidual
    """
    from mixedmodels.residual.combine import CombinedResidual
    from mixedmodels.residual.table import TableCorrelation

    if not isinstance(bound, CombinedResidual) or not isinstance(bound.correlation, TableCorrelation):
        return None
    order = bound.correlation.patterns
    return None if order is None else ByTable(bound, order)
