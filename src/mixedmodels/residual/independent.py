"""No correlation: rows are independent, and the whitening is the identity."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["IndependentPoint"]


class IndependentPoint:
    """Operations of the identity, without parameters.

    Parameters
    ----------
    n : int
        Rows.
    """

    __slots__ = ("_n", "logdet", "n_phi", "trace")

    def __init__(self, n: int) -> None:
        self._n = n
        self.n_phi = 0
        self.logdet = 0.0
        self.trace = np.zeros(0)

    @property
    def variances(self) -> np.ndarray:
        """Ones, shape (n,)."""
        return np.ones(self._n)

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product with the identity: M itself."""
        return M

    unwhiten = whiten_adjoint = unwhiten_adjoint = hadamard = whiten

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """There is no parameter to change."""
        raise IndexError(j)

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """There is no parameter to change."""
        raise IndexError(i)

    def diagonal(self, j: int) -> np.ndarray:
        """There is no parameter to change."""
        raise IndexError(j)

    @property
    def trace_products(self) -> np.ndarray:
        """An empty matrix."""
        return np.zeros((0, 0))

    @property
    def trace_seconds(self) -> np.ndarray:
        """An empty matrix."""
        return np.zeros((0, 0))

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """The identity, sparse."""
        from scipy.sparse import identity

        return identity(self._n, format="csr"), ()
