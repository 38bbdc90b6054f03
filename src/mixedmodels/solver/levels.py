"""Sums over the levels of one grouping factor, for all levels at once."""

from __future__ import annotations

import numpy as np

__all__ = ["Levels"]


class Levels:
    """Rows of a design by the level they belong to; levels without rows are left out.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Level of each row.
    m : int
        Number of levels.

    Attributes
    ----------
    present : ndarray of intp, shape (m',), or None
        Levels that have rows; None for all of them.
    m : int
        m', the number of levels with rows.
    codes : ndarray of intp, shape (n,)
        Levels counted among `present`.

    Examples
    --------
    >>> levels = Levels(np.array([1, 0, 1]), 2)
    >>> levels.cross(np.ones((3, 1)), np.array([[1.0], [2.0], [4.0]])).ravel()
    array([2., 5.])
    """

    def __init__(self, codes: np.ndarray, m: int) -> None:
        codes = np.asarray(codes, dtype=np.intp)
        counts = np.bincount(codes, minlength=m)
        self.present: np.ndarray | None = None
        if counts.size and counts.min() == 0:
            self.present = np.flatnonzero(counts)
            place = np.cumsum(counts > 0) - 1
            codes, counts = place[codes], counts[self.present]
        self.codes, self.m = codes, counts.shape[0]
        self._order: np.ndarray | None = None
        if np.any(codes[1:] < codes[:-1]):
            self._order = np.argsort(codes, kind="stable")
            self._back = np.empty_like(self._order)
            self._back[self._order] = np.arange(codes.shape[0])
        self._starts = np.cumsum(counts) - counts
        same = counts.size > 0 and counts.min() == counts.max()
        self._size = int(counts[0]) if same else 0

    def cross(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """``A_l'B_l`` of every level, shape (m, a, b), for A, (n, a), and B, (n, b)."""
        a, b = A.shape[1], B.shape[1]
        if self._order is not None:
            A, B = A[self._order], B[self._order]
        if self._size:
            return A.reshape(self.m, self._size, a).transpose(0, 2, 1) @ B.reshape(self.m, self._size, b)
        products = (A[:, :, None] * B[:, None, :]).reshape(A.shape[0], a * b)
        return np.add.reduceat(products, self._starts, axis=0).reshape(self.m, a, b)

    def rows(self, Z: np.ndarray, G: np.ndarray) -> np.ndarray:
        """``Z_l G_l`` of every level in the order of the rows, shape (n, c), for G of shape (m, k, c)."""
        n, k = Z.shape
        if self._size:
            if self._order is None:
                return (Z.reshape(self.m, self._size, k) @ G).reshape(n, -1)
            out = Z[self._order].reshape(self.m, self._size, k) @ G
            return out.reshape(n, -1)[self._back]
        out = Z[:, :1] * G[self.codes, 0]
        for i in range(1, k):
            out += Z[:, i : i + 1] * G[self.codes, i]
        return out

    def expand(self, values: np.ndarray, m: int) -> np.ndarray:
        """Values of the levels with rows at their places among all m levels, zeros elsewhere."""
        if self.present is None:
            return values
        out = np.zeros((m, *values.shape[1:]))
        out[self.present] = values
        return out
