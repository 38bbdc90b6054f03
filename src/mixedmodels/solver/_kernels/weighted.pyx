# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Sums over rows whose weights change: Z'WZ on a pattern found once, Z'r, Zb and z'Vz.

Row i has, for factor f, level codes_f[i] and columns z_f[i]; column a belongs to linear predictor pred_f[a],
and the weights of a row are a small symmetric matrix between predictors, stored (A, A, n).
"""

import numpy as np


def slots_of(const int[::1] rows, const int[::1] columns, const Py_ssize_t[::1] indptr, const int[::1] indices):
    """Position in a compressed-row pattern of each pair (rows[i], columns[i]), which must be there."""
    cdef Py_ssize_t n = rows.shape[0], i, lo, hi, mid
    out = np.empty(n, dtype=np.intc)
    cdef int[::1] slot = out
    cdef int c
    with nogil:
        for i in range(n):
            lo = indptr[rows[i]]
            hi = indptr[rows[i] + 1] - 1
            c = columns[i]
            while lo < hi:
                mid = (lo + hi) // 2
                if indices[mid] < c:
                    lo = mid + 1
                else:
                    hi = mid
            slot[i] = <int>lo
    return out


cdef class WeightedRows:
    """Rows of several factors.

    Parameters
    ----------
    codes : list of int32 ndarray, shape (n,)
    Z : list of float64 ndarray, shape (n, k), or None for one column of ones
    predictors : list of int32 ndarray, shape (k,)
        Active predictor, 0 .. A - 1, of each column.
    pairs : list of (f, g, slots)
        Pairs of factors and the position of each row's block.
    active : int
        A.
    """

    cdef list codes, Z, predictors, pairs
    cdef readonly int A
    cdef readonly Py_ssize_t n
    cdef list k

    def __init__(self, codes, Z, predictors, pairs, int active):
        self.codes, self.Z, self.predictors, self.pairs = list(codes), list(Z), list(predictors), list(pairs)
        self.A = active
        self.n = codes[0].shape[0]
        self.k = [len(p) for p in self.predictors]

    def products(self, const double[:, :, ::1] W, diagonal, pairs):
        """Z'WZ: blocks of levels (m, k, k) into `diagonal` and of pairs (nnz, k_f, k_g) into `pairs`."""
        cdef Py_ssize_t i, n = self.n
        cdef const int[::1] c, s
        cdef int[::1] pf, pg
        cdef const double[:, ::1] z, y
        cdef double[:, :, ::1] out
        cdef double[::1] flat
        cdef const double* w
        cdef double* o
        cdef double v
        cdef int f, a, b, kf, kg
        for f in range(len(self.k)):
            diagonal[f][...] = 0.0
            out = diagonal[f]
            c = self.codes[f]
            kf = self.k[f]
            if self.Z[f] is None:
                w = &W[<Py_ssize_t>self.predictors[f][0], <Py_ssize_t>self.predictors[f][0], 0]
                o = &out[0, 0, 0]
                with nogil:
                    for i in range(n):
                        o[c[i]] += w[i]
                continue
            z = self.Z[f]
            pf = self.predictors[f]
            for a in range(kf):
                for b in range(a + 1):
                    w = &W[pf[a], pf[b], 0]
                    with nogil:
                        for i in range(n):
                            out[c[i], a, b] += z[i, a] * z[i, b] * w[i]
                    if b < a:
                        diagonal[f][:, b, a] = diagonal[f][:, a, b]
        for (f, g, slots), data in zip(self.pairs, pairs):
            data[...] = 0.0
            if data.shape[0] == 0:
                continue
            out = data
            s = slots
            kf, kg = self.k[f], self.k[g]
            pf, pg = self.predictors[f], self.predictors[g]
            o = &out[0, 0, 0]
            if self.Z[f] is None and self.Z[g] is None:
                w = &W[pf[0], pg[0], 0]
                with nogil:
                    for i in range(n):
                        o[s[i]] += w[i]
                continue
            z = self._columns(f)
            y = self._columns(g)
            for a in range(kf):
                for b in range(kg):
                    w = &W[pf[a], pg[b], 0]
                    with nogil:
                        for i in range(n):
                            out[s[i], a, b] += z[i, a] * y[i, b] * w[i]

    cdef _columns(self, int f):
        if self.Z[f] is None:
            self.Z[f] = np.ones((self.n, 1))      # a column of ones beside a factor with columns
        return self.Z[f]

    def sums(self, const double[:, ::1] r, m):
        """Z'r by factor, (m, k), for r (A, n)."""
        cdef Py_ssize_t i, n = self.n
        cdef const int[::1] c
        cdef const double[:, ::1] z
        cdef double[:, ::1] out
        cdef const double* x
        cdef int f, a
        found = []
        for f in range(len(self.k)):
            values = np.zeros((m[f], self.k[f]))
            out = values
            c = self.codes[f]
            if self.Z[f] is None:
                x = &r[<Py_ssize_t>self.predictors[f][0], 0]
                with nogil:
                    for i in range(n):
                        out[c[i], 0] += x[i]
            else:
                z = self.Z[f]
                for a in range(self.k[f]):
                    x = &r[<Py_ssize_t>self.predictors[f][a], 0]
                    with nogil:
                        for i in range(n):
                            out[c[i], a] += z[i, a] * x[i]
            found.append(values)
        return found

    def effects(self, b, double[:, ::1] out):
        """out (A, n) += Z b for b by factor, (m, k)."""
        cdef Py_ssize_t i, n = self.n
        cdef const int[::1] c
        cdef const double[:, ::1] z, v
        cdef double* x
        cdef int f, a
        for f in range(len(self.k)):
            c = self.codes[f]
            v = np.ascontiguousarray(b[f])
            if self.Z[f] is None:
                x = &out[<Py_ssize_t>self.predictors[f][0], 0]
                with nogil:
                    for i in range(n):
                        x[i] += v[c[i], 0]
            else:
                z = self.Z[f]
                for a in range(self.k[f]):
                    x = &out[<Py_ssize_t>self.predictors[f][a], 0]
                    with nogil:
                        for i in range(n):
                            x[i] += z[i, a] * v[c[i], a]

    # ---------------------------------------------------------------- many directions at once
    def sums_many(self, const double[:, :, ::1] r, m):
        """Z'r by factor, (m, k, c), for r (c, A, n)."""
        cdef Py_ssize_t i, n = self.n, c, at
        cdef const int[::1] level
        cdef const double[:, ::1] z
        cdef double[:, :, ::1] out
        cdef const double* x
        cdef double* o
        cdef int f, a, k, count = <int>r.shape[0]
        found = []
        for f in range(len(self.k)):
            k = self.k[f]
            values = np.zeros((m[f], k, count))
            found.append(values)
            if count == 0 or m[f] == 0:
                continue
            out = values
            level = self.codes[f]
            o = &out[0, 0, 0]
            if self.Z[f] is None:
                at = self.predictors[f][0]
                with nogil:
                    for c in range(count):
                        x = &r[c, at, 0]
                        for i in range(n):
                            o[level[i] * count + c] += x[i]
                continue
            z = self.Z[f]
            for a in range(k):
                at = self.predictors[f][a]
                with nogil:
                    for c in range(count):
                        x = &r[c, at, 0]
                        for i in range(n):
                            o[(level[i] * k + a) * count + c] += z[i, a] * x[i]
        return found

    def effects_many(self, b, double[:, :, ::1] out, const int[::1] active):
        """out (c, C, n) += Z b on the predictors `active`, (A,), for b by factor, (m, k, c)."""
        cdef Py_ssize_t i, n = self.n, c, at
        cdef const int[::1] level
        cdef const double[:, ::1] z
        cdef const double[:, :, ::1] v
        cdef const double* u
        cdef double* x
        cdef int f, a, k, count = <int>out.shape[0]
        for f in range(len(self.k)):
            level = self.codes[f]
            v = np.ascontiguousarray(b[f])
            if count == 0 or v.shape[0] == 0:
                continue
            u = &v[0, 0, 0]
            k = self.k[f]
            if self.Z[f] is None:
                at = active[<Py_ssize_t>self.predictors[f][0]]
                with nogil:
                    for c in range(count):
                        x = &out[c, at, 0]
                        for i in range(n):
                            x[i] += u[level[i] * count + c]
                continue
            z = self.Z[f]
            for a in range(k):
                at = active[<Py_ssize_t>self.predictors[f][a]]
                with nogil:
                    for c in range(count):
                        x = &out[c, at, 0]
                        for i in range(n):
                            x[i] += z[i, a] * u[(level[i] * k + a) * count + c]

    def products_many(self, const double[:, :, :, ::1] W, diagonal, pairs):
        """Z'WZ for weights (c, A, A, n): blocks (c, m, k, k) into `diagonal` and (c, nnz, k_f, k_g) into `pairs`."""
        cdef Py_ssize_t i, n = self.n, c, at, to, size
        cdef const int[::1] level
        cdef const double[:, ::1] z, y
        cdef double[:, :, :, ::1] out
        cdef const double* w
        cdef double* o
        cdef double v
        cdef int f, g, a, b, kf, kg, count = <int>W.shape[0]
        for f in range(len(self.k)):
            out = diagonal[f]
            level = self.codes[f]
            kf = self.k[f]
            size = out.shape[1] * kf * kf
            if count == 0 or size == 0:
                continue
            if self.Z[f] is None:
                at = self.predictors[f][0]
                with nogil:
                    for c in range(count):
                        w = &W[c, at, at, 0]
                        o = &out[c, 0, 0, 0]
                        for i in range(size):
                            o[i] = 0.0
                        for i in range(n):
                            o[level[i]] += w[i]
                continue
            diagonal[f][...] = 0.0
            z = self.Z[f]
            for a in range(kf):
                for b in range(a + 1):
                    at, to = self.predictors[f][a], self.predictors[f][b]
                    with nogil:
                        for c in range(count):
                            w = &W[c, at, to, 0]
                            o = &out[c, 0, 0, 0]
                            for i in range(n):
                                o[(level[i] * kf + a) * kf + b] += z[i, a] * z[i, b] * w[i]
                    if b < a:
                        diagonal[f][:, :, b, a] = diagonal[f][:, :, a, b]
        for (f, g, slots), data in zip(self.pairs, pairs):
            out = data
            kf, kg = self.k[f], self.k[g]
            size = out.shape[1] * kf * kg
            if count == 0 or size == 0:
                continue
            level = slots
            if self.Z[f] is None and self.Z[g] is None:
                at, to = self.predictors[f][0], self.predictors[g][0]
                with nogil:
                    for c in range(count):
                        w = &W[c, at, to, 0]
                        o = &out[c, 0, 0, 0]
                        for i in range(size):
                            o[i] = 0.0
                        for i in range(n):
                            o[level[i]] += w[i]
                continue
            data[...] = 0.0
            z = self._columns(f)
            y = self._columns(g)
            for a in range(kf):
                for b in range(kg):
                    at, to = self.predictors[f][a], self.predictors[g][b]
                    with nogil:
                        for c in range(count):
                            w = &W[c, at, to, 0]
                            o = &out[c, 0, 0, 0]
                            for i in range(n):
                                o[(level[i] * kf + a) * kg + b] += z[i, a] * y[i, b] * w[i]

    def quadratic(self, diagonal, pairs):
        """z'Vz of each row between the predictors, (A, A, n), from the blocks of symmetric V."""
        cdef Py_ssize_t i, n = self.n
        cdef const int[::1] c, s
        cdef int[::1] pf, pg
        cdef const double[:, ::1] z, y
        cdef const double[:, :, ::1] V
        cdef const double* o
        cdef double* h
        cdef double* t
        cdef double v
        cdef int f, a, b
        found = np.zeros((self.A, self.A, n))
        cdef double[:, :, ::1] H = found
        for f in range(len(self.k)):
            V = np.ascontiguousarray(diagonal[f])
            c = self.codes[f]
            pf = self.predictors[f]
            if self.Z[f] is None:
                h = &H[pf[0], pf[0], 0]
                o = &V[0, 0, 0]
                with nogil:
                    for i in range(n):
                        h[i] += o[c[i]]
                continue
            z = self.Z[f]
            for a in range(self.k[f]):
                for b in range(self.k[f]):
                    h = &H[pf[a], pf[b], 0]
                    with nogil:
                        for i in range(n):
                            h[i] += z[i, a] * z[i, b] * V[c[i], a, b]
        for (f, g, slots), data in zip(self.pairs, pairs):
            if data.shape[0] == 0:
                continue
            V = np.ascontiguousarray(data)
            s = slots
            pf, pg = self.predictors[f], self.predictors[g]
            if self.Z[f] is None and self.Z[g] is None:
                h = &H[pf[0], pg[0], 0]
                t = &H[pg[0], pf[0], 0]
                o = &V[0, 0, 0]
                with nogil:
                    for i in range(n):
                        h[i] += o[s[i]]
                        t[i] += o[s[i]]
                continue
            z = self._columns(f)
            y = self._columns(g)
            for a in range(self.k[f]):
                for b in range(self.k[g]):
                    h = &H[pf[a], pg[b], 0]
                    t = &H[pg[b], pf[a], 0]
                    with nogil:
                        for i in range(n):
                            v = z[i, a] * y[i, b] * V[s[i], a, b]
                            h[i] += v
                            t[i] += v
        return found
