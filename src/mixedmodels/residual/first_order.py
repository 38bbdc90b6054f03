"""Residuals in which a row depends on the row before it only: what compiled code needs to know about them.

Variance functions alone, and their products with AR(1), continuous AR(1) and antedependence: sorted rows
have a Fisher's z of the correlation with the row before from a table, and a standard deviation
(`mixedmodels.residual.markov`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixedmodels.residual.structure import BoundVariance

if TYPE_CHECKING:
    from mixedmodels.residual.combine import CombinedResidual

__all__ = ["Coefficients", "FirstOrder", "first_order"]

# Rows are summed by class beforehand where there are so many times fewer classes in the levels than rows.
_FEWER = 1.5


class Coefficients(NamedTuple):
    """Table of Fisher's z and logarithms of standard deviations at one phi, with derivatives in phi.

    Attributes
    ----------
    z, z1, z2 : ndarray, shapes (m,), (n_phi, m), (n_phi, n_phi, m)
    log_sd, e1, e2 : ndarray, shapes (n,), (n_phi, n), (n_phi, n_phi, n)
        Rows sorted; None where they are zero.
    """

    z: np.ndarray
    z1: np.ndarray
    z2: np.ndarray
    log_sd: np.ndarray | None
    e1: np.ndarray | None
    e2: np.ndarray | None


class FirstOrder:
    """A `CombinedResidual` of first order with its rows sorted by level, group and time.

    Parameters
    ----------
    bound : CombinedResidual
    codes : ndarray of intp, shape (n,), or None
        Levels that hold the groups; None for a single level.

    Attributes
    ----------
    order : ndarray of intp, shape (n,)
        Rows in sorted order.
    which : ndarray of int32, shape (n,)
        Place of each sorted row in the table of z; -1 at the first row of a group.
    """

    def __init__(self, bound: CombinedResidual, codes: np.ndarray | None) -> None:
        n = bound.n
        self._bound = bound
        order, which = np.arange(n), np.full(n, -1, dtype=np.int32)
        if bound.correlation is not None:
            markov = bound.correlation.markov
            assert markov is not None
            places, table = markov
            order = order if places.order is None else places.order
            which[places.later] = table
        if codes is not None:
            by_level = np.argsort(codes[order], kind="stable")
            order, which = order[by_level], which[by_level]
        self.order, self.which = order, np.ascontiguousarray(which)
        self._sorted = bool((order[1:] > order[:-1]).all())
        # the table alone says everything
        only = None if bound.variances or bound._log_scale is not None else bound.correlation
        self._neighbours = only.neighbours if only is not None and only.n_phi == bound.n_phi else None

    def classes(self) -> np.ndarray | None:
        """Classes of sorted rows with equal coefficients whatever phi is, shape (n,); None for no such."""
        bound, order, which = self._bound, self.order, self.which
        out = which.astype(np.int64) + 1
        keys = [part.row_key for part in bound.variances]
        if bound._log_scale is not None:
            keys.append(bound._log_scale)
        for key in keys:
            if key is None:
                return None
            values, inverse = np.unique(key[order], return_inverse=True)
            if values.shape[0] * _FEWER > bound.n:
                return None
            own = inverse.astype(np.int64).ravel()
            # the row before counts as well, where there is one
            before = np.zeros_like(own)
            before[1:] = own[:-1]
            before[which < 0] = 0
            out = (out * values.shape[0] + own) * values.shape[0] + before
            out = np.unique(out, return_inverse=True)[1].astype(np.int64).ravel()
        return out

    def coefficients(self, phi: np.ndarray, derivatives: bool = True) -> Coefficients:
        """The table and the standard deviations at phi.

        Parameters
        ----------
        phi : ndarray, shape (n_phi,)
        derivatives : bool

        Raises
        ------
        FloatingPointError
            A standard deviation of zero.
        """
        if self._neighbours is not None:
            return Coefficients(*self._neighbours(phi), None, None, None)
        bound, free = self._bound, self._bound._free
        r = free.shape[0]
        z, z1, z2 = np.zeros(0), np.zeros((r, 0)), np.zeros((r, r, 0))
        k, pieces = 0, bound._split(phi)
        firsts: list[np.ndarray] = []
        for part, own in zip(bound._parts, pieces, strict=True):
            if not isinstance(part, BoundVariance):
                z, first, second = part.neighbours(own)
                k = part.n_phi
                if not derivatives:
                    continue
                total = bound._template.shape[0]
                if total == k == r:
                    z1, z2 = first, second
                else:
                    z1, z2 = np.zeros((total, z.shape[0])), np.zeros((total, total, z.shape[0]))
                    z1[:k], z2[:k, :k] = first, second
                    z1, z2 = z1[free], z2[np.ix_(free, free)]
                continue
            if derivatives and part.n_phi:
                firsts.append(part.first(own))
        found = bound.log_sd_of(pieces)
        log_sd = None if found is None else self._take(found)
        e1 = e2 = None
        if firsts:
            e1 = self._take(np.concatenate([np.zeros((k, bound.n)), *firsts])[free])
            e2 = self._seconds(bound.log_sd_seconds(pieces), k)
        return Coefficients(z, np.ascontiguousarray(z1), np.ascontiguousarray(z2), log_sd, e1, e2)

    def _seconds(self, curved: dict[tuple[int, int], np.ndarray], k: int) -> np.ndarray | None:
        """Second derivatives of the logarithms, (n_phi, n_phi, n); None where all are zero."""
        if not curved:
            return None
        free = self._bound._free.tolist()
        out = np.zeros((len(free), len(free), self._bound.n))
        for a, i in enumerate(free):
            for b, j in enumerate(free):
                one = curved.get((min(i, j) - k, max(i, j) - k))
                if one is not None:
                    out[a, b] = one
        return self._take(out)

    def _take(self, values: np.ndarray) -> np.ndarray:
        """Values of rows (last axis) in sorted order."""
        if self._sorted:
            return np.ascontiguousarray(values, dtype=np.float64)
        return np.ascontiguousarray(values[..., self.order], dtype=np.float64)


def first_order(bound: object, codes: np.ndarray | None) -> FirstOrder | None:
    """The rows of a structure of first order; None for any other structure.

    Parameters
    ----------
    bound : BoundResidual
    codes : ndarray of intp, shape (n,), or None
        Levels that hold the groups of the structure.
    """
    from mixedmodels.residual.combine import CombinedResidual

    if not isinstance(bound, CombinedResidual):
        return None
    if bound.correlation is not None and bound.correlation.markov is None:
        return None
    return FirstOrder(bound, codes)
