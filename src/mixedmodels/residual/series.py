r"""Stationary ARMA series without gaps: banded whitening and Toeplitz products, linear in the length.

With m = max(p, q), the rows :math:`w_t = e_t - \sum_i a_i e_{t-i}` for t > m and :math:`w_t = e_t` before
have a banded covariance :math:`\Gamma = LL'` (Ansley 1979), so :math:`W = L^{-1} T` with T and L banded.
The matrices of shorter series are leading parts of those of longer ones. Derivatives of C are Toeplitz, and
:math:`D_j M = W \dot C_j W' M` takes two banded products and one by Fourier transforms.

Traces need the sums of :math:`C^{-1}` along its diagonals. By the formula of Gohberg and Semencul, with
:math:`x = C^{-1} e_1` for a series of length T,

.. math:: S_m = \sum_t (C^{-1})_{t,t+m} = \frac{1}{x_0} \sum_j (T - m - 2j)\, x_j x_{j+m},

a correlation of two vectors; then :math:`\mathrm{tr}(D_{ij}) = \sum_m c_m S_m \ddot\gamma_{ij}(m)` and
:math:`\mathrm{tr}(D_iD_j) = -\sum_m c_m \dot S_{m,j} \dot\gamma_i(m)` with :math:`c_0 = 1`, else 2.

References: Ansley (1979), Biometrika 66, 59-65; Gohberg and Semencul (1972), Mat. Issled. 7, 201-223.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.residual.jets import Jet

__all__ = ["SeriesOrder", "SeriesPoint", "solve_band"]

_CHUNK = 256


def solve_band(band: np.ndarray, M: np.ndarray, *, adjoint: bool = False) -> np.ndarray:
    """Solve with a lower triangular band matrix or its transpose; row k of `band` is its k-th subdiagonal.

    Only the leading part of the matrix is used if M has fewer rows.
    """
    from scipy.linalg.lapack import dtbtrs

    band = np.asfortranarray(band[:, : M.shape[0]])
    x, info = dtbtrs(band, np.asfortranarray(M), uplo="L", trans="T" if adjoint else "N", diag="N")
    assert info == 0
    return x


def _times_band(band: np.ndarray, M: np.ndarray, adjoint: bool = False) -> np.ndarray:
    """Product of a lower triangular band matrix (or its transpose) with M."""
    n = M.shape[0]
    out = band[0, :n, None] * M
    for k in range(1, min(band.shape[0], n)):
        below = band[k, : n - k, None]
        if adjoint:
            out[:-k] += below * M[k:]
        else:
            out[k:] += below * M[:-k]
    return out


class SeriesOrder:
    """Rows of series without gaps, in buckets of similar length, each a padded table.

    Parameters
    ----------
    codes : ndarray of intp, shape (n,)
    times : ndarray of float64, shape (n,)

    Attributes
    ----------
    longest : int
    gaps : bool
        Whether a series has a gap, so that the others of the class cannot be used.
    buckets : tuple of (rows, places, series, n_series, length)
        Rows of the data, their places in the series and the columns of the table, and its size.
    lengths, counts : ndarray of intp
        Distinct lengths and the number of series of each.
    """

    __slots__ = ("buckets", "by_length", "counts", "gaps", "lengths", "longest", "n")

    def __init__(self, codes: np.ndarray, times: np.ndarray) -> None:
        self.n = codes.shape[0]
        order = np.lexsort((times, codes))
        in_order = codes[order]
        same = in_order[1:] == in_order[:-1]
        self.gaps = bool(np.any(np.diff(times[order])[same] != 1.0))
        sizes = np.bincount(codes)
        self.longest = int(sizes.max(initial=0))
        groups = np.flatnonzero(sizes)
        self.lengths, self.counts = np.unique(sizes[groups], return_counts=True)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        place = np.arange(self.n) - starts[in_order]
        level = np.floor(np.log2(sizes[in_order])).astype(np.intp)
        buckets = []
        for one in np.unique(level).tolist():
            (mine,) = np.nonzero(level == one)
            members, series = np.unique(in_order[mine], return_inverse=True)
            length = int(sizes[members].max())
            buckets.append((order[mine], place[mine], series, members.shape[0], length))
        self.buckets = tuple(buckets)
        self.by_length = [
            order[starts[groups[sizes[groups] == length]][:, None] + np.arange(length)].T
            for length in self.lengths.tolist()
        ]


class SeriesPoint:
    """Operations of an ARMA correlation at one phi.

    Parameters
    ----------
    order : SeriesOrder
    a : ndarray, shape (p,)
        Autoregressive coefficients.
    gamma : Jet, shape (longest,)
        Autocorrelations from lag 0.
    band : ndarray, shape (w + 1, longest)
        Covariance of the filtered rows: row k holds diagonal k.
    """

    def __init__(self, order: SeriesOrder, a: np.ndarray, gamma: Jet, band: np.ndarray) -> None:
        from scipy.linalg import LinAlgError, cholesky_banded

        self._order, self._gamma = order, gamma
        self.n_phi = gamma.k
        if not np.all(np.isfinite(band)):
            raise FloatingPointError("an autocorrelation is not finite")
        try:
            self._L = cholesky_banded(band, lower=True)
        except LinAlgError:
            raise FloatingPointError("the residual correlation is not positive definite") from None
        p, longest = a.shape[0], order.longest
        self._T = np.zeros((p + 1, longest))
        self._T[0] = 1.0
        first = max(p, band.shape[0] - 1)  # rows before it are not filtered
        for i in range(1, p + 1):
            self._T[i, max(first - i, 0) : longest - i] = -a[i - 1]
        logs = 2.0 * np.cumsum(np.log(self._L[0]))
        self.logdet = float(order.counts @ logs[order.lengths - 1])
        self._sums: tuple[np.ndarray, np.ndarray] | None = None
        self._summed()

    @property
    def variances(self) -> np.ndarray:
        """Ones, shape (n,)."""
        return np.ones(self._order.n)

    # --- one table of series (length, columns); rows beyond the end of a series are zero --------------------

    def _white(self, X: np.ndarray) -> np.ndarray:
        return solve_band(self._L, _times_band(self._T, X))

    def _white_adjoint(self, X: np.ndarray) -> np.ndarray:
        return _times_band(self._T, solve_band(self._L, X, adjoint=True), adjoint=True)

    @staticmethod
    def _toeplitz(row: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Product of the symmetric Toeplitz matrix with this first row and X."""
        from scipy.fft import irfft, next_fast_len, rfft

        n = X.shape[0]
        size = next_fast_len(2 * n, real=True)
        wrapped = np.zeros(size)
        wrapped[:n] = row[:n]
        wrapped[size - n + 1 :] = row[1:n][::-1]
        return irfft(rfft(wrapped)[:, None] * rfft(X, size, axis=0), size, axis=0)[:n]

    def _each(self, function: Any, M: np.ndarray) -> np.ndarray:
        """Apply a function of tables to the rows of each bucket."""
        c = M.shape[1]
        out = np.empty(M.shape)
        for rows, places, series, count, length in self._order.buckets:
            table = np.zeros((length, count, c))
            table[places, series] = M[rows]
            done = function(table.reshape(length, count * c)).reshape(length, count, c)
            out[rows] = done[places, series]
        return out

    # --- rows in the order of the data ------------------------------------------------------------------

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``."""
        return self._each(self._white, M)

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-1} M``."""
        return self._each(lambda X: solve_band(self._T, _times_band(self._L, X)), M)

    def whiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W' M``."""
        return self._each(self._white_adjoint, M)

    def unwhiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-T} M``."""
        return self._each(
            lambda X: _times_band(self._L, solve_band(self._T, X, adjoint=True), adjoint=True), M
        )

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_j M``."""
        return self._between(self._gamma.first[j], M)

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_ij M``."""
        return self._between(self._gamma.second[i, j], M)

    def _between(self, row: np.ndarray, M: np.ndarray) -> np.ndarray:
        return self._each(lambda X: self._white(self._toeplitz(row, self._white_adjoint(X))), M)

    def _lag_sums(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Sums of the entries of ``W'A B'W`` by lag, over all series, shape (longest,)."""
        from scipy.fft import irfft, next_fast_len, rfft

        out = np.zeros(self._order.longest)
        U = self.whiten_adjoint(A)
        V = U if B is A else self.whiten_adjoint(B)
        for rows, places, series, count, length in self._order.buckets:
            size = next_fast_len(2 * length, real=True)
            spectra = []
            for M in (U, V):
                table = np.zeros((length, count, M.shape[1]))
                table[places, series] = M[rows]
                spectra.append(rfft(table.reshape(length, -1), size, axis=0))
            sums = irfft((np.conj(spectra[0]) * spectra[1]).sum(axis=1), size)
            out[0] += sums[0]
            out[1:length] += sums[1:length] + sums[: size - length : -1]
        return out

    def forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Traces ``tr(A'D_jB)``, shape (n_phi,)."""
        return self._gamma.first @ self._lag_sums(A, B)

    def second_forms(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Traces ``tr(A'D_ijB)``, shape (n_phi, n_phi)."""
        return self._gamma.second @ self._lag_sums(A, B)

    # --- traces -------------------------------------------------------------------------------------------

    def _summed(self) -> np.ndarray:
        """Sums of C^{-1} over the pairs of each lag, all series together, shape (longest,)."""
        x = self._first_columns()
        self._columns = x
        total = np.zeros(self._order.longest)
        for u, (length, count) in enumerate(zip(self._order.lengths, self._order.counts, strict=True)):
            total[:length] += count * _diagonal_sums(x[:length, u])
        total[1:] *= 2.0
        self._weights = total
        self.trace = self._gamma.first @ total
        return total

    def _first_columns(self) -> np.ndarray:
        """``C^{-1} e_1`` for each length, zero beyond it, shape (longest, number of lengths)."""
        e = np.zeros((self._order.longest, 1))
        e[0] = 1.0
        return self._white_adjoint(self._cut(np.repeat(self._white(e), self._order.lengths.shape[0], axis=1)))

    def _cut(self, X: np.ndarray) -> np.ndarray:
        """Zero beyond the length of each column."""
        return np.where(np.arange(X.shape[0])[:, None] < self._order.lengths, X, 0.0)

    @property
    def trace_products(self) -> np.ndarray:
        """Traces ``tr(D_i D_j)``."""
        k, order = self.n_phi, self._order
        out = np.zeros((k, k))
        for j in range(k):
            moved = self._cut(self._toeplitz(self._gamma.first[j], self._columns))
            slopes = -self._white_adjoint(self._cut(self._white(moved)))
            total = np.zeros(order.longest)
            for u, (length, count) in enumerate(zip(order.lengths, order.counts, strict=True)):
                total[:length] += count * _diagonal_slopes(self._columns[:length, u], slopes[:length, u])
            total[1:] *= 2.0
            out[:, j] = -self._gamma.first @ total
        return (out + out.T) / 2.0

    @property
    def trace_seconds(self) -> np.ndarray:
        """Traces ``tr(D_ij)``."""
        return self._gamma.second @ self._weights

    # --- products entry by entry: quadratic in the length -----------------------------------------------

    def _entrywise(self, row: np.ndarray, length: int, f: np.ndarray) -> np.ndarray:
        """``(Toeplitz(row) * C^{-1}) f`` for a series of this length, in pieces."""
        out = np.zeros((length, f.shape[1]))
        for start in range(0, length, _CHUNK):
            stop = min(start + _CHUNK, length)
            unit = np.zeros((length, stop - start))
            unit[np.arange(start, stop), np.arange(stop - start)] = 1.0
            inverse = self._white_adjoint(self._white(unit))
            lags = np.abs(np.arange(length)[:, None] - np.arange(start, stop))
            out += (inverse * row[lags]) @ f[start:stop]
        return out

    def hadamard(self, M: np.ndarray) -> np.ndarray:
        """``(C * C^{-1}) M``, * entry by entry."""
        out, c = np.empty(M.shape), M.shape[1]
        for length, rows in zip(self._order.lengths.tolist(), self._order.by_length, strict=True):
            block = M[rows].reshape(length, rows.shape[1] * c)
            out[rows] = self._entrywise(self._gamma.value, length, block).reshape(length, rows.shape[1], c)
        return out

    def diagonal(self, j: int) -> np.ndarray:
        """Diagonal of ``dC_j C^{-1}``, shape (n,)."""
        out = np.empty(self._order.n)
        for length, rows in zip(self._order.lengths.tolist(), self._order.by_length, strict=True):
            out[rows] = self._entrywise(self._gamma.first[j], length, np.ones((length, 1)))
        return out

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW_j, sparse; their triangles are full, so this is quadratic in the length."""
        from scipy.sparse import csr_array

        order = self._order
        unit = np.eye(order.longest)
        W = np.tril(self._white(unit))
        matrices = [W]
        for j in range(self.n_phi):
            D = self._white(self._toeplitz(self._gamma.first[j], self._white_adjoint(unit)))
            half = np.tril(D)
            half[np.arange(order.longest), np.arange(order.longest)] *= 0.5
            matrices.append(-half @ W)
        rows, columns, places = [], [], []
        for length, found in zip(order.lengths.tolist(), order.by_length, strict=True):
            a, b = np.tril_indices(length)
            rows.append(found[a].ravel())
            columns.append(found[b].ravel())
            places.append(np.repeat(a * order.longest + b, found.shape[1]))
        where = (np.concatenate(rows), np.concatenate(columns))
        at = np.concatenate(places)
        built = [csr_array((one.ravel()[at], where), shape=(order.n, order.n)) for one in matrices]
        return built[0], tuple(built[1:])


def _correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``sum_j x_j y_{j+m}`` for m = 0 .. n - 1."""
    from scipy.fft import irfft, next_fast_len, rfft

    n = x.shape[0]
    size = next_fast_len(2 * n, real=True)
    return irfft(np.conj(rfft(x, size)) * rfft(y, size), size)[:n]


def _diagonal_sums(x: np.ndarray) -> np.ndarray:
    """Sums along the diagonals of the inverse of a Toeplitz matrix with first column x of the inverse."""
    n = x.shape[0]
    j = np.arange(n)
    return ((n - j) * _correlate(x, x) - 2.0 * _correlate(j * x, x)) / x[0]


def _diagonal_slopes(x: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Derivative of `_diagonal_sums` along dx."""
    n = x.shape[0]
    j = np.arange(n)
    plain = _correlate(dx, x) + _correlate(x, dx)
    weighted = _correlate(j * dx, x) + _correlate(j * x, dx)
    return ((n - j) * plain - 2.0 * weighted) / x[0] - _diagonal_sums(x) * (dx[0] / x[0])
