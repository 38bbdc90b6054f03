"""Correlations that depend on a key of two rows: the bound form shared by all structures by pattern."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.residual.patterns import PatternOrder, PatternPoint
from mixedmodels.residual.structure import BoundCorrelation

__all__ = ["TableCorrelation"]


class TableCorrelation(BoundCorrelation):
    """Base of bound correlations by pattern: `key` and the three levels of a table are to be written.

    Parameters
    ----------
    codes : ndarray of intp, shape (n,)
    features : ndarray of float64, shape (n, f)
    sort, relative, diagonal : bool
        See `PatternOrder`.
    """

    def __init__(
        self,
        codes: np.ndarray,
        features: np.ndarray,
        *,
        sort: bool,
        relative: bool,
        diagonal: bool = False,
    ) -> None:
        self.n = codes.shape[0]
        self.features = features
        self._order = PatternOrder(codes, features, self.key, sort=sort, relative=relative, diagonal=diagonal)
        self._diagonal = diagonal

    def key(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Key of pairs of rows with features a and b, (..., f) each; symmetric in a and b."""
        raise NotImplementedError

    def table(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Correlations, shape (m,)."""
        raise NotImplementedError

    def table_first(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Their derivatives, shape (n_phi, m)."""
        raise NotImplementedError

    def table_second(self, phi: np.ndarray, keys: np.ndarray, i: int, j: int) -> np.ndarray:
        """A second derivative, shape (m,)."""
        raise NotImplementedError

    @property
    def patterns(self) -> PatternOrder | None:
        """Patterns of the groups; None where `at` goes another way."""
        return self._order

    def tables(self, phi: np.ndarray, keys: np.ndarray, derivatives: bool) -> tuple[np.ndarray, Any, Any]:
        """Correlations; with derivatives also the first, (n_phi, m), and (i, j) -> second, (m,)."""
        value = self.table(phi, keys)
        if not derivatives:
            return value, None, None
        return value, self.table_first(phi, keys), lambda i, j: self.table_second(phi, keys, i, j)

    def at(self, phi: np.ndarray) -> Any:
        """Operations at phi."""
        phi, keys = np.array(phi), self._order.keys
        return PatternPoint(
            self._order,
            self.table(phi, keys),
            self.n_phi,
            lambda: self.table_first(phi, keys),
            lambda i, j: self.table_second(phi, keys, i, j),
        )

    def row_variances(self, phi: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Variances of rows: 1 unless the table holds them."""
        if not self._diagonal:
            return np.ones(features.shape[0])
        return self.table(phi, self.key(features, features))

    def correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Correlations of pairs."""
        return self.table(phi, self.key(a, b))
