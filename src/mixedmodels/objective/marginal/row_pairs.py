r"""Weighted products of the rows of any sparse Z, for many weights.

Z'WZ is one sparse matrix times the weights,

.. math:: (Z'WZ)_{st} = \sum_i z_{is} z_{it}\, w_{c(s)d(t),i},

with c(s) the predictor of column s, and its transpose gives :math:`z_i'Vz_i` of every row. Where rows touch
very many levels (a term kept by the factor W of its levels' covariance) Z'Z is dense anyway, and the same
sums are dense products.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.solver.penalized import PenalizedMatrix

__all__ = ["RowPairs"]

_PAIRS = 5e7  # pairs of entries in rows of Z up to which they are listed
_FEW_PAIRS = 1e5  # likewise where Z is nearly dense
_FULL = 0.25  # share of entries from which it is
_DENSE = 2e8  # numbers in a dense matrix otherwise


class RowPairs:
    """Z'WZ on its pattern and ``z'Vz`` by row, for changing weights.

    Parameters
    ----------
    Z : scipy.sparse.csr_array, shape (n, q)
    owner : ndarray of int, shape (q,)
        Active predictor of each column.
    active : int
        Their number A.
    penalized : PenalizedMatrix
        Has the pattern.

    Raises
    ------
    OptionError
        The products would be too large.
    """

    def __init__(self, Z: Any, owner: np.ndarray, active: int, penalized: PenalizedMatrix) -> None:
        self.A, (self.n, self.q) = active, Z.shape
        self.size = len(penalized.multiplicity)
        self.multiplicity = penalized.multiplicity
        per_row = np.diff(Z.indptr).astype(np.float64)
        full = Z.nnz > _FULL * self.n * self.q
        self.dense = float(per_row @ per_row) > (_FEW_PAIRS if full else _PAIRS)
        if not self.dense:
            self._list(Z, owner, penalized)
            return
        if max(self.n, self.q) * float(self.q) > _DENSE:
            raise OptionError(
                f"rows touch {per_row.mean():.0f} of {self.q} random effects each: their products need dense "
                f"matrices of more than {_DENSE:.0g} numbers; use a factor of the covariance with fewer "
                "columns, or independent terms"
            )
        whole = Z.toarray()
        self._Z = [np.where(owner == c, whole, 0.0) for c in range(active)]
        self._rows, self._columns = penalized.block_entries

    def _list(self, Z: Any, owner: np.ndarray, penalized: PenalizedMatrix) -> None:
        """The sparse matrix from weights to blocks."""
        from scipy import sparse

        count = np.diff(Z.indptr).astype(np.int64)
        row = np.repeat(np.arange(self.n), count)  # of each entry of Z
        first = np.repeat(np.arange(Z.nnz), count[row])  # of each pair
        begin = np.cumsum(count[row]) - count[row]
        second = np.asarray(Z.indptr)[row[first]] + np.arange(len(first)) - begin[first]
        s, t = Z.indices[first].astype(np.int64), Z.indices[second].astype(np.int64)
        kept = penalized.is_lower(s, t)
        first, second, s, t = first[kept], second[kept], s[kept], t[kept]
        place = penalized.slots[np.searchsorted(penalized.pattern_keys, s * self.q + t)]
        weight = (owner[s] * self.A + owner[t]) * self.n + row[first]
        self._S = sparse.csr_array(
            (Z.data[first] * Z.data[second], (place, weight)), shape=(self.size, self.A**2 * self.n)
        )
        self._St = sparse.csr_array(self._S.T)

    def products(self, W: np.ndarray) -> np.ndarray:
        """Blocks of Z'WZ for weights W, shape (A, A, n)."""
        if not self.dense:
            return np.asarray(self._S @ W.reshape(-1))
        total = np.zeros((self.q, self.q))
        for c in range(self.A):
            for d in range(self.A):
                total += (self._Z[c] * W[c, d][:, None]).T @ self._Z[d]
        return total[self._rows, self._columns]

    def products_many(self, W: np.ndarray) -> np.ndarray:
        """Blocks for stacked weights, (c, A, A, n)."""
        if not self.dense:
            return np.ascontiguousarray((self._S @ W.reshape(len(W), -1).T).T)
        return np.array([self.products(one) for one in W]).reshape(len(W), self.size)

    def quadratic(self, V: np.ndarray) -> np.ndarray:
        """``z_c'V z_d`` of every row, (A, A, n)."""
        if self.dense:
            whole = np.zeros((self.q, self.q))
            whole[self._rows, self._columns] = whole[self._columns, self._rows] = V
            return np.array([[np.einsum("ij,ij->i", Zc @ whole, Zd) for Zd in self._Z] for Zc in self._Z])
        found = np.asarray(self._St @ (V * self.multiplicity)).reshape(self.A, self.A, self.n)
        return 0.5 * (found + found.swapaxes(0, 1))
