r"""Exchangeable rows: closed forms of compound symmetry, linear in the number of rows.

For a group of T rows :math:`C = (1 - \rho) I + \rho 11'` has the eigenvalue :math:`\lambda_1 = 1 +
(T-1)\rho` on the mean and :math:`\lambda_0 = 1 - \rho` on the deviations from it. The whitening is the
symmetric root :math:`W = \lambda_0^{-1/2} (I - J) + \lambda_1^{-1/2} J`, J = 11'/T, which does not depend
on the order of the rows, and all operations have this form.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ExchangeableOrder", "ExchangeablePoint"]


class ExchangeableOrder:
    """Sizes of groups and the means over them.

    Parameters
    ----------
    codes : ndarray of intp, shape (n,)
    """

    __slots__ = ("_sums", "codes", "n", "sizes")

    def __init__(self, codes: np.ndarray) -> None:
        from scipy.sparse import csr_array

        _, codes = np.unique(codes, return_inverse=True)
        self.n = codes.shape[0]
        self.codes = codes
        self.sizes = np.bincount(codes).astype(np.float64)
        places = (codes, np.arange(self.n))
        self._sums = csr_array((np.ones(self.n), places), shape=(self.sizes.shape[0], self.n))

    def combine(self, deviations: float, means: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``deviations (I - J) M + means J M``, with a factor of the means for each group."""
        averages = (self._sums @ M) / self.sizes[:, None]
        return deviations * M + ((means - deviations)[:, None] * averages)[self.codes]


class ExchangeablePoint:
    """Operations of compound symmetry at one rho.

    Parameters
    ----------
    order : ExchangeableOrder
    rho, first, second : float
        The correlation and its derivatives in the coordinate.
    """

    n_phi = 1

    def __init__(self, order: ExchangeableOrder, rho: float, first: float, second: float) -> None:
        self._order, self._rho, self._first, self._second = order, rho, first, second
        T = order.sizes
        self._low, self._high = 1.0 - rho, 1.0 + (T - 1.0) * rho
        if not (self._low > 0.0 and np.all(self._high > 0.0)):
            raise FloatingPointError("the residual correlation is not positive definite")
        self.logdet = float(((T - 1.0) * np.log(self._low) + np.log(self._high)).sum())
        self._slope = float(((T - 1.0) * (1.0 / self._high - 1.0 / self._low)).sum())
        self.trace = np.array([first * self._slope])

    @property
    def variances(self) -> np.ndarray:
        """Ones, shape (n,)."""
        return np.ones(self._order.n)

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``; W is symmetric."""
        return self._order.combine(self._low**-0.5, self._high**-0.5, M)

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-1} M``."""
        return self._order.combine(self._low**0.5, self._high**0.5, M)

    whiten_adjoint = whiten
    unwhiten_adjoint = unwhiten

    def _change(self, slope: float, M: np.ndarray) -> np.ndarray:
        T = self._order.sizes
        return self._order.combine(-slope / self._low, (T - 1.0) * slope / self._high, M)

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_j M``."""
        return self._change(self._first, M)

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_ij M``."""
        return self._change(self._second, M)

    @property
    def trace_products(self) -> np.ndarray:
        """Traces ``tr(D_i D_j)``."""
        more = self._order.sizes - 1.0
        return np.array([[self._first**2 * float((more / self._low**2 + (more / self._high) ** 2).sum())]])

    @property
    def trace_seconds(self) -> np.ndarray:
        """Traces ``tr(D_ij)``."""
        return np.array([[self._second * self._slope]])

    def _inverse(self) -> tuple[np.ndarray, np.ndarray]:
        """Entries of C^{-1} of each group: on the diagonal, and beside it."""
        beside = (1.0 / self._high - 1.0 / self._low) / self._order.sizes
        return 1.0 / self._low + beside, beside

    def hadamard(self, M: np.ndarray) -> np.ndarray:
        """``(C * C^{-1}) M``, * entry by entry."""
        on, beside = self._inverse()
        order, off = self._order, self._rho * beside
        sums = order.combine(0.0, order.sizes, M)
        return (on - off)[order.codes, None] * M + off[order.codes, None] * sums

    def diagonal(self, j: int) -> np.ndarray:
        """Diagonal of ``dC_j C^{-1}``, shape (n,)."""
        order = self._order
        return (self._first * (order.sizes - 1.0) * self._inverse()[1])[order.codes]

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW, sparse; the blocks are full."""
        from scipy.sparse import csr_array, identity

        order = self._order
        ones = order._sums
        blocks = csr_array(ones.T @ ones)  # 11' of each group
        eye = csr_array(identity(order.n))

        def matrix(deviations: float, means: np.ndarray) -> Any:
            scale = ((means - deviations) / order.sizes)[order.codes]
            scaled = blocks.copy()
            scaled.data = blocks.data * np.repeat(scale, np.diff(blocks.indptr))
            return csr_array(eye * deviations + scaled)

        slope = self._first
        W = matrix(self._low**-0.5, self._high**-0.5)
        dW = matrix(0.5 * slope * self._low**-1.5, -0.5 * slope * (order.sizes - 1.0) * self._high**-1.5)
        return W, (dW,)
