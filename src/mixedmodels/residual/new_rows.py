"""Rows of new data under a fitted residual structure: what kriging and simulation need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.structure import BoundVariance

if TYPE_CHECKING:
    from mixedmodels.residual.combine import CombinedResidual

__all__ = ["NewRows"]


class NewRows:
    """Variances and covariances of new rows, relative to sigma^2.

    Parameters
    ----------
    bound : CombinedResidual
    columns : ResidualData
        Columns of the new rows; see `CombinedResidual.new_rows`.
    fitted : ndarray of float64, shape (N,), or None
    weights : ndarray of float64, shape (N,), or None
    """

    missing: np.ndarray = np.zeros(0, dtype=np.intp)
    """Rows that miss a value of the structure: none."""

    def __init__(
        self,
        bound: CombinedResidual,
        columns: ResidualData,
        fitted: np.ndarray | None,
        weights: np.ndarray | None,
    ) -> None:
        self._bound = bound
        self.n = columns.n
        self._log_scale = np.zeros(self.n) if weights is None else -0.5 * np.log(weights)
        self._variances = {
            place: part.on(columns, fitted)
            for place, part in enumerate(bound._parts)
            if isinstance(part, BoundVariance)
        }
        correlation = bound.correlation
        self._features = None if correlation is None else correlation.new_features(columns)
        self._codes: np.ndarray | None = None
        if correlation is not None:
            if bound.group is None:
                self._codes = np.zeros(self.n, dtype=np.intp)
            else:
                self._codes = columns.factor(bound.group, "the groups").codes

    def _log_sd(self, phi: np.ndarray) -> np.ndarray:
        out = self._log_scale.copy()
        pieces = self._bound._split(np.asarray(phi, dtype=np.float64))
        for place, part in self._variances.items():
            out += part.log_sd(pieces[place])
        return out

    def variances(self, phi: np.ndarray) -> np.ndarray:
        """Variances, shape (N,)."""
        return np.exp(2.0 * self._log_sd(phi)) * self._inner_variances(phi)

    def _inner_variances(self, phi: np.ndarray) -> np.ndarray | float:
        """Diagonal of C."""
        if self._features is None:
            return 1.0
        assert self._bound.correlation is not None
        own = self._bound._split(np.asarray(phi, dtype=np.float64))[0]
        return self._bound.correlation.row_variances(own, self._features)

    def covariance(self, phi: np.ndarray) -> Any:
        """Covariance among the new rows, sparse (N, N)."""
        from scipy.sparse import csr_array

        sd = np.exp(self._log_sd(phi))
        rows = columns = np.arange(self.n)
        values = sd * sd * self._inner_variances(phi)
        if self._codes is not None:
            a, b = _pairs(self._codes, self._codes)
            keep = (a != b) & (self._codes[a] >= 0)
            a, b = a[keep], b[keep]
            assert self._features is not None
            between = self._correlate(phi, self._features[a], self._features[b])
            rows, columns = np.concatenate([rows, a]), np.concatenate([columns, b])
            values = np.concatenate([values, between * sd[a] * sd[b]])
        return csr_array((values, (rows, columns)), shape=(self.n, self.n))

    def cross(self, phi: np.ndarray) -> Any:
        """Covariance of the new rows with those of the fit, sparse (N, n)."""
        from scipy.sparse import csr_array

        bound = self._bound
        if self._codes is None:
            return csr_array((self.n, bound.n))
        assert bound.codes is not None and bound.correlation is not None and self._features is not None
        a, b = _pairs(self._codes, bound.codes)
        between = self._correlate(phi, self._features[a], bound.correlation.features[b])
        sd, own = np.exp(self._log_sd(phi)), np.exp(bound.log_sd(phi))
        return csr_array((between * sd[a] * own[b], (a, b)), shape=(self.n, bound.n))

    def _correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        assert self._bound.correlation is not None
        return self._bound.correlation.correlate(
            self._bound._split(np.asarray(phi, dtype=np.float64))[0], a, b
        )


def _pairs(codes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (row of `codes`, row of `others`) with equal codes."""
    order = np.argsort(others, kind="stable")
    in_order = others[order]
    start = np.searchsorted(in_order, codes, "left")
    counts = np.searchsorted(in_order, codes, "right") - start
    a = np.repeat(np.arange(codes.shape[0]), counts)
    within = np.arange(a.shape[0]) - np.repeat(np.cumsum(counts) - counts, counts)
    return a, order[np.repeat(start, counts) + within]
