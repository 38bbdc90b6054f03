r"""``R = S C S``: products, traces and derivatives at one value of phi.

S is diagonal with the product of all variance functions and C the correlation. With W_C the whitening of C,
:math:`W = W_C S^{-1}`. For a parameter of C, :math:`D_j` is that of C. For a parameter of S, with
:math:`E_i = \mathrm{diag}(\partial \log s / \partial\phi_i)` and :math:`A(E) = W_C E W_C^{-1}`,

.. math::
    D_i = A(E_i) + A(E_i)', \qquad
    D_{ij} = A(E_{ij} + E_iE_j) + (\cdot)' + A(E_i)A(E_j)' + A(E_j)A(E_i)',

and :math:`D_{ij} = A(E_i) D_j + D_j A(E_i)'` for i in S and j in C. The traces follow from
:math:`\mathrm{tr}\,A(E)A(F)' = e'(C * C^{-1})f`, entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mixedmodels.residual.independent import IndependentPoint
from mixedmodels.residual.structure import BoundCorrelation, BoundVariance

__all__ = ["CombinedPoint"]


class CombinedPoint:
    """Operations of ``R = S C S`` at one phi; see the module. A `ResidualPoint`."""

    def __init__(
        self,
        point: Any,
        k: int,
        n: int,
        log_sd: np.ndarray | None,
        owners: Sequence[tuple[BoundCorrelation | BoundVariance, np.ndarray]],
        free: np.ndarray,
    ) -> None:
        self._point, self._k, self._free = point, k, free
        self.n = n
        self._log_sd = log_sd
        self._sd = None if log_sd is None else np.exp(log_sd)[:, None]
        self.logdet = point.logdet + (0.0 if log_sd is None else 2.0 * float(log_sd.sum()))
        self.n_phi = free.shape[0]
        self._variance_of: list[tuple[BoundVariance, np.ndarray, int]] = []
        self._owners = [(part, own) for part, own in owners if isinstance(part, BoundVariance)]
        for part, own in self._owners:
            self._variance_of += [(part, own, i) for i in range(part.n_phi)]

    @cached_property
    def _e(self) -> np.ndarray:
        """Derivatives of the logarithms of standard deviations, one row for each parameter."""
        firsts = [part.first(own) for part, own in self._owners]
        return np.concatenate(firsts) if firsts else np.zeros((0, self.n))

    @cached_property
    def trace(self) -> np.ndarray:
        """Traces ``tr(D_j)``, shape (n_phi,)."""
        return np.concatenate([self._point.trace, 2.0 * self._e.sum(axis=1)])[self._free]

    @property
    def variances(self) -> np.ndarray:
        """Diagonal of R, shape (n,)."""
        own = self._point.variances
        return own if self._log_sd is None else np.exp(2.0 * self._log_sd) * own

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``."""
        return self._point.whiten(M if self._sd is None else M / self._sd)

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-1} M``."""
        out = self._point.unwhiten(M)
        return out if self._sd is None else out * self._sd

    def whiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W' M``."""
        out = self._point.whiten_adjoint(M)
        return out if self._sd is None else out / self._sd

    def unwhiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-T} M``."""
        return self._point.unwhiten_adjoint(M if self._sd is None else M * self._sd)

    def _scaled(self, e: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``A(E) M = W_C E W_C^{-1} M``."""
        return self._point.whiten(e[:, None] * self._point.unwhiten(M))

    def _scaled_adjoint(self, e: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``A(E)' M = W_C^{-T} E W_C' M``."""
        return self._point.unwhiten_adjoint(e[:, None] * self._point.whiten_adjoint(M))

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """``D_j M`` for whitened M."""
        j = int(self._free[j])
        if j < self._k:
            return self._point.change(j, M)
        e = self._e[j - self._k]
        if self._k == 0 and isinstance(self._point, IndependentPoint):
            return (2.0 * e)[:, None] * M
        return self._scaled(e, M) + self._scaled_adjoint(e, M)

    def _bend(self, i: int, j: int) -> np.ndarray | None:
        """Second derivative of the log standard deviations, for two variance parameters."""
        (part, own, a), (other, _, b) = self._variance_of[i], self._variance_of[j]
        return part.second(own, a, b) if part is other else None

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """``D_ij M = W d2R_ij W' M`` for whitened M."""
        i, j = sorted((int(self._free[i]), int(self._free[j])))
        k = self._k
        if j < k:
            return self._point.second_change(i, j, M)
        f = self._e[j - k]
        if i < k:
            inner = self._point.change(i, M)
            return self._scaled(f, inner) + self._point.change(i, self._scaled_adjoint(f, M))
        e = self._e[i - k]
        bend = self._bend(i - k, j - k)
        both = e * f if bend is None else e * f + bend
        if isinstance(self._point, IndependentPoint):
            return (2.0 * (both + e * f))[:, None] * M
        out = self._scaled(both, M) + self._scaled_adjoint(both, M)
        out += self._scaled(e, self._scaled_adjoint(f, M))
        out += self._scaled(f, self._scaled_adjoint(e, M))
        return out

    def _own_forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """``tr(A'D_jB)`` for the parameters of the correlation."""
        if hasattr(self._point, "forms"):
            return self._point.forms(A, B)
        return np.array([float(np.vdot(A, self._point.change(j, B))) for j in range(self._k)])

    def forms(self, M: np.ndarray) -> np.ndarray:
        """``tr(M'D_jM)``, shape (n_phi,): cheaper than one `change` for each j."""
        out = np.zeros(self._k + self._e.shape[0])
        if self._k:
            out[: self._k] = self._own_forms(M, M)
        if self._e.shape[0]:
            sums = np.einsum("nc,nc->n", self._point.whiten_adjoint(M), self._point.unwhiten(M))
            out[self._k :] = 2.0 * self._e @ sums
        return out[self._free]

    def second_forms(self, M: np.ndarray) -> np.ndarray:
        """``tr(M'D_ijM)``, shape (n_phi, n_phi)."""
        k, r, point = self._k, self._e.shape[0], self._point
        out = np.zeros((k + r, k + r))
        if k and hasattr(point, "second_forms"):
            out[:k, :k] = point.second_forms(M, M)
        else:
            for i in range(k):
                for j in range(i + 1):
                    out[i, j] = out[j, i] = float(np.vdot(M, point.second_change(i, j, M)))
        if r:
            whole = point.whiten_adjoint(M)
            sums = np.einsum("nc,nc->n", whole, point.unwhiten(M))
            images = [point.unwhiten_adjoint(e[:, None] * whole) for e in self._e]
            flat = np.array([image.ravel() for image in images])
            own = (self._e * sums) @ self._e.T + flat @ flat.T
            for i in range(r):
                if k:
                    out[k + i, :k] = out[:k, k + i] = 2.0 * self._own_forms(images[i], M)
                for j in range(i + 1):
                    bend = self._bend(i, j)
                    value = own[i, j] if bend is None else own[i, j] + float(bend @ sums)
                    out[k + i, k + j] = out[k + j, k + i] = 2.0 * value
        return out[np.ix_(self._free, self._free)]

    @property
    def trace_products(self) -> np.ndarray:
        """``tr(D_i D_j)``, shape (n_phi, n_phi)."""
        out = self._square(self._point.trace_products)
        k, e = self._k, self._e
        if e.shape[0]:
            out[k:, k:] = 2.0 * e @ e.T + 2.0 * self._hadamard()
        return out[np.ix_(self._free, self._free)]

    @property
    def trace_seconds(self) -> np.ndarray:
        """``tr(D_ij) = tr(R^{-1} d2R_ij)``, shape (n_phi, n_phi)."""
        out = self._square(self._point.trace_seconds)
        k, e = self._k, self._e
        if e.shape[0]:
            out[k:, k:] = 2.0 * e @ e.T + 2.0 * self._hadamard()
            for i in range(e.shape[0]):
                for j in range(i, e.shape[0]):
                    bend = self._bend(i, j)
                    if bend is not None:
                        out[k + i, k + j] += 2.0 * bend.sum()
                        if i != j:
                            out[k + j, k + i] += 2.0 * bend.sum()
        return out[np.ix_(self._free, self._free)]

    def _hadamard(self) -> np.ndarray:
        return self._e @ self._point.hadamard(self._e.T)

    def _square(self, corner: np.ndarray) -> np.ndarray:
        """Traces with the correlation's corner and the mixed ones, ``2 tr(A(E_i) D_j)``, filled in."""
        k, e = self._k, self._e
        out = np.zeros((k + e.shape[0], k + e.shape[0]))
        out[:k, :k] = corner
        if e.shape[0]:
            for j in range(k):
                out[k:, j] = out[j, k:] = 2.0 * e @ self._point.diagonal(j)
        return out

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW_j as sparse CSR arrays (n, n)."""
        from scipy.sparse import csr_array, dia_array

        def scale(W: Any, d: np.ndarray) -> Any:
            return csr_array(W @ dia_array((d[None, :], [0]), shape=(d.shape[0], d.shape[0])))

        W_C, changes = self._point.whitening()
        if self._sd is None:
            return W_C, tuple(changes[j] for j in self._free)
        inverse = 1.0 / self._sd[:, 0]
        W = scale(W_C, inverse)
        every = [*(scale(one, inverse) for one in changes), *(scale(W, -e) for e in self._e)]
        return W, tuple(every[j] for j in self._free)
