r"""Correlations of first order: given the row before it, a row is independent of all earlier ones.

Rows sorted by group and time have the correlation :math:`c_t = \tanh z_t(\phi)` with the row before
(:math:`c_t = 0` at the first row of a group) and :math:`s_t = \sqrt{1 - c_t^2}`. Then

.. math:: (Wx)_t = (x_t - c_t x_{t-1}) / s_t = x_t \cosh z_t - x_{t-1} \sinh z_t

is a whitening, and since :math:`\partial W_t / \partial z_t = (x_t \sinh z_t - x_{t-1} \cosh z_t)` and
:math:`\partial^2 W_t / \partial z_t^2 = W_t`, everything is exact and linear in the number of rows. With
:math:`B_j = \dot W_j W^{-1}` and :math:`B_{ij} = \ddot W_{ij} W^{-1}`,

.. math::
    D_j = -(B_j + B_j'), \qquad
    D_{ij} = B_iB_j + B_jB_i + (B_iB_j + B_jB_i)' + B_iB_j' + B_jB_i' - B_{ij} - B_{ij}' .

AR(1), continuous AR(1) and antedependence differ in :math:`z_t(\phi)` only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.solver._kernels.columns import neighbours

__all__ = ["MarkovOrder", "MarkovPoint"]


class MarkovOrder:
    """Rows sorted by group and time.

    Parameters
    ----------
    codes : ndarray of intp, shape (n,)
        Groups.
    times : ndarray of float64, shape (n,), or None
        None keeps the order of the rows within each group.

    Attributes
    ----------
    order : ndarray of intp or None
        Rows in sorted order; None where they are sorted already.
    later : ndarray of intp
        Places (in sorted order) of the rows that are not the first of their group.
    gaps : ndarray of float64, shape of `later`
        Times between them and the rows before; 1 where there are no times.
    equal : bool
        Whether all gaps are equal.
    repeats : bool
        Whether two rows of a group are at one time.
    """

    __slots__ = ("equal", "gaps", "later", "n", "order", "repeats", "sorted_codes")

    def __init__(self, codes: np.ndarray, times: np.ndarray | None) -> None:
        self.n = codes.shape[0]
        places = np.arange(self.n, dtype=np.float64) if times is None else times
        self.order: np.ndarray | None = None
        self.sorted_codes = codes
        found = neighbours(codes, places)
        if found is None:
            self.order = np.lexsort((places, codes))
            self.sorted_codes = codes[self.order]
            found = neighbours(self.sorted_codes, places[self.order])
        self.later, self.gaps, smallest, largest = found
        if times is None:
            self.gaps, smallest, largest = np.ones(self.later.shape[0]), 1.0, 1.0
        self.equal, self.repeats = smallest == largest, smallest == 0.0

    def distinct_gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Different gaps in increasing order, and the place among them of each later row."""
        if self.gaps.shape[0] and self.equal:
            return self.gaps[:1], np.zeros(self.gaps.shape[0], dtype=np.intp)
        return np.unique(self.gaps, return_inverse=True)

    def median_gap(self) -> float:
        """The gap in the middle, or the mean of the two."""
        ordered = np.sort(self.gaps)
        m = ordered.shape[0]
        return 0.5 * float(ordered[(m - 1) // 2] + ordered[m // 2])

    def take(self, M: np.ndarray) -> np.ndarray:
        """Rows of M in sorted order."""
        return M if self.order is None else M[self.order]

    def put(self, M: np.ndarray) -> np.ndarray:
        """Rows of M, given in sorted order, in the order of the data."""
        if self.order is None:
            return M
        out = np.empty_like(M)
        out[self.order] = M
        return out


class MarkovPoint:
    """Operations of a correlation of first order at one phi.

    Parameters
    ----------
    order : MarkovOrder
    which : ndarray of intp, shape (n_later,)
        Place in the tables of each later row.
    z : ndarray of float64, shape (m,)
        Table of Fisher's z of correlations with the row before.
    first : ndarray, shape (n_phi, m)
        Derivatives of z.
    second : ndarray, shape (n_phi, n_phi, m)
    """

    __slots__ = (
        "_band", "_first", "_order", "_second", "_table", "_which", "c", "logdet", "n_phi", "s", "trace"
    )  # fmt: skip

    def __init__(
        self, order: MarkovOrder, which: np.ndarray, z: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> None:
        if not np.all(np.isfinite(z)) or (z.size and float(np.max(np.abs(z))) > 18.0):
            raise FloatingPointError("a correlation of neighbouring rows is 1 in absolute value")
        self._order, self._which, self._first, self._second = order, which, first, second
        self.n_phi = first.shape[0]
        c = np.tanh(z)
        counts = np.bincount(which, minlength=z.shape[0]).astype(np.float64)
        self._table = (c, counts)
        n, later = order.n, order.later
        self.c = np.zeros(n)
        self.s = np.ones(n)
        self.c[later] = c[which]
        self.s[later] = (1.0 / np.cosh(z))[which]
        band = np.ones((2, n), order="F")  # unit lower bidiagonal matrix with -c_t below its diagonal
        band[1, :-1] = -self.c[1:]
        band[1, -1] = 0.0
        self._band = band
        # log(1 / cosh z), also where cosh z is large
        self.logdet = -2.0 * float(counts @ (np.logaddexp(z, -z) - np.log(2.0)))
        self.trace = -2.0 * first @ (counts * c)

    @property
    def variances(self) -> np.ndarray:
        """Ones, shape (n,)."""
        return np.ones(self._order.n)

    # --- rows in sorted order ---------------------------------------------------------------------------

    def _solve(self, M: np.ndarray, adjoint: bool = False) -> np.ndarray:
        """Solve with the unit bidiagonal matrix (or its transpose)."""
        from scipy.linalg.lapack import dtbtrs

        x, info = dtbtrs(self._band, np.asfortranarray(M), uplo="L", trans="T" if adjoint else "N", diag="U")
        assert info == 0
        return x

    def _full(self, j: int) -> np.ndarray:
        """Derivative j of z, with zeros at the first row of each group."""
        out = np.zeros(self._order.n)
        out[self._order.later] = self._first[j][self._which]
        return out

    def _forward(self, x: np.ndarray) -> np.ndarray:
        """``B x`` for a unit derivative of all z: ``c x_t - s (W^{-1} x)_{t-1}``; first rows hold rubbish."""
        y = self._solve(self.s[:, None] * x)
        out = self.c[:, None] * x
        out[1:] -= self.s[1:, None] * y[:-1]
        return out

    def _backward(self, u: np.ndarray) -> np.ndarray:
        """``B' u`` for a unit derivative; u is zero at the first rows."""
        v = np.zeros_like(u)
        v[:-1] = self.s[1:, None] * u[1:]
        return self.c[:, None] * u - self.s[:, None] * self._solve(v, adjoint=True)

    def _bend(self, i: int, j: int) -> np.ndarray:
        """Second derivative of z, with zeros at the first rows."""
        out = np.zeros(self._order.n)
        out[self._order.later] = self._second[i, j][self._which]
        return out

    # --- rows in the order of the data ------------------------------------------------------------------

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``."""
        x = self._order.take(M)
        out = x / self.s[:, None]
        out[1:] -= (self.c / self.s)[1:, None] * x[:-1]
        return self._order.put(out)

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-1} M``."""
        return self._order.put(self._solve(self.s[:, None] * self._order.take(M)))

    def whiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W' M``."""
        x = self._order.take(M)
        out = x / self.s[:, None]
        out[:-1] -= (self.c / self.s)[1:, None] * x[1:]
        return self._order.put(out)

    def unwhiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-T} M``."""
        return self._order.put(self.s[:, None] * self._solve(self._order.take(M), adjoint=True))

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_j M``."""
        x, z = self._order.take(M), self._full(j)[:, None]
        return self._order.put(-(z * self._forward(x) + self._backward(z * x)))

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_ij M``."""
        x = self._order.take(M)
        zi, zj = self._full(i)[:, None], self._full(j)[:, None]
        bend, product = self._bend(i, j)[:, None], zi * zj
        f = self._forward(x)
        bi, bj = zi * f, zj * f
        ti = self._backward(zi * x)
        tj = ti if i == j else self._backward(zj * x)
        out = zi * self._forward(bj + tj) + zj * self._forward(bi + ti)
        out += self._backward(zj * ti + zi * tj)
        out -= bend * f + self._backward(bend * x) + 2.0 * product * x
        return self._order.put(out)

    def forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Traces ``tr(A'D_jB)``, shape (n_phi,), with one solve for each of A and B."""
        a = self._order.take(A)
        f = self._forward(a)
        if B is A:
            rows = 2.0 * np.einsum("nc,nc->n", a, f)
        else:
            b = self._order.take(B)
            rows = np.einsum("nc,nc->n", a, self._forward(b)) + np.einsum("nc,nc->n", f, b)
        return -self._first @ self._by_entry(rows)

    def _by_entry(self, rows: np.ndarray) -> np.ndarray:
        """Sums over the later rows of each entry of the table."""
        return np.bincount(self._which, rows[self._order.later], self._first.shape[1])

    def second_forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Traces ``tr(A'D_ijB)``, shape (n_phi, n_phi)."""
        a, b = self._order.take(A), self._order.take(B)
        fa = self._forward(a)
        fb = fa if B is A else self._forward(b)
        backs_a = [self._backward(self._full(j)[:, None] * a) for j in range(self.n_phi)]
        same = B is A
        backs_b = backs_a if same else [self._backward(self._full(j)[:, None] * b) for j in range(self.n_phi)]
        own = self._by_entry(np.einsum("nc,nc->n", a, b))
        bent = self._by_entry(np.einsum("nc,nc->n", a, fb) + np.einsum("nc,nc->n", fa, b))
        out = -self._second @ bent - 2.0 * (self._first * own) @ self._first.T
        for i in range(self.n_phi):
            z_i = self._full(i)[:, None]
            for j in range(i + 1):
                z_j = self._full(j)[:, None]
                value = np.vdot(backs_a[i], backs_b[j]) + np.vdot(backs_a[j], backs_b[i])
                value += np.vdot(backs_a[i], z_j * fb) + np.vdot(backs_a[j], z_i * fb)
                value += np.vdot(z_j * fa, backs_b[i]) + np.vdot(z_i * fa, backs_b[j])
                out[i, j] += float(value)
                out[j, i] = out[i, j]
        return out

    @property
    def trace_products(self) -> np.ndarray:
        """Traces ``tr(D_i D_j)``."""
        c, counts = self._table
        return 2.0 * (self._first * (counts * (1.0 + c * c))) @ self._first.T

    @property
    def trace_seconds(self) -> np.ndarray:
        """Traces ``tr(D_ij)``."""
        c, counts = self._table
        return 4.0 * (self._first * (counts * c * c)) @ self._first.T - 2.0 * self._second @ (counts * c)

    def hadamard(self, M: np.ndarray) -> np.ndarray:
        """``(C * C^{-1}) M``, * entry by entry."""
        x = self._order.take(M)
        c2 = (self.c / self.s)[:, None] ** 2
        out = (1.0 + c2) * x
        out[:-1] += c2[1:] * x[:-1]
        out[1:] -= c2[1:] * x[:-1]
        out[:-1] -= c2[1:] * x[1:]
        return self._order.put(out)

    def diagonal(self, j: int) -> np.ndarray:
        """Diagonal of ``dC_j C^{-1}``, shape (n,)."""
        each = self._full(j) * self.c
        out = -each
        out[:-1] -= each[1:]
        return self._order.put(out)

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW_j, sparse."""
        from scipy.sparse import csr_array

        n, later = self._order.n, self._order.later
        order = np.arange(n) if self._order.order is None else self._order.order
        rows = np.concatenate([order, order[later]])
        columns = np.concatenate([order, order[later - 1]])

        def matrix(diagonal: np.ndarray, below: np.ndarray) -> Any:
            return csr_array((np.concatenate([diagonal, below]), (rows, columns)), shape=(n, n))

        c, s = self.c[later], self.s[later]
        W = matrix(1.0 / self.s, -c / s)
        changes = []
        for j in range(self.n_phi):
            diagonal = np.zeros(n)
            z = self._first[j][self._which]
            diagonal[later] = z * c / s
            changes.append(matrix(diagonal, -z / s))
        return W, tuple(changes)
