# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Sums over the levels of an eliminated factor, each of which touches few columns of the rest."""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

import numpy as np


def separate_parts(Py_ssize_t n, links):
    """Connected parts of the nodes 0 .. n - 1 under links (a, b), arrays of int64: the least node of each part, (n,)."""
    cdef int64_t i, a, b
    cdef const int64_t[::1] x, y
    roots = np.arange(n, dtype=np.int64)
    cdef int64_t[::1] root = roots
    for one, other in links:
        x, y = one, other
        with nogil:
            for i in range(x.shape[0]):
                a, b = x[i], y[i]
                while root[a] != a:
                    root[a] = root[root[a]]
                    a = root[a]
                while root[b] != b:
                    root[b] = root[root[b]]
                    b = root[b]
                if a < b:
                    root[b] = a
                else:
                    root[a] = b
    for i in range(n):                                  # a root lies before what hangs on it
        root[i] = root[root[i]]
    return roots


cdef inline void _subtract(double* row, int d, double v, const double* x, double w, const double* y) noexcept nogil:
    """``row -= v x + w y``."""
    cdef int j
    for j in range(d):
        row[j] -= v * x[j] + w * y[j]


def schur_changes(const int64_t[::1] start, const int[::1] columns, const double[::1] B, const double[:, ::1] dB,
                  const double[:, :, ::1] Di, const double[:, :, :, ::1] dD, const double[:, ::1] inverse,
                  double[:, :, ::1] dS, const int64_t[::1] slot):
    """Derivatives of a Schur complement and of its trace term, level by level.

    Row i, column j of `inverse` and of each `dS` is kept in column ``slot[j]``: parts of the model share columns.

    Level l has the columns ``columns[start[l]:start[l + 1]]`` of the rest and a block B_l, (k, columns),
    row-major at ``k start[l]``; D_l^{-1} is `Di`, (m, k, k), changes are `dB` (P, .) and `dD` (P, m, k, k). With
    ``J = D^{-1}B`` and ``Y_a = dB_a - dD_a J``:  ``dS_a -= dB_a'J + J'Y_a``, and
    ``2 tr(inverse Y_a'D^{-1}Y_b)`` is returned, (P, P).
    """
    cdef Py_ssize_t m = Di.shape[0], P = dB.shape[0], l, at
    cdef int k = <int>Di.shape[1], d, a, b, i, j, r, s, widest = 0, together
    cdef double v
    cdef const int* col
    cdef double* work
    cdef double* J
    cdef double* Y
    cdef double* U
    cdef double* G
    cdef double* T
    cdef const double* x
    cdef double* o
    out = np.zeros((P, P))
    cdef double[:, ::1] traces = out
    for l in range(m):
        widest = max(widest, <int>(start[l + 1] - start[l]))
    work = <double*> malloc((k * widest * (2 + 2 * P) + <Py_ssize_t>widest * widest + 1) * sizeof(double))
    if work == NULL:
        raise MemoryError("not enough memory for the derivatives of the determinant")
    with nogil:
        for l in range(m):
            d = <int>(start[l + 1] - start[l])
            if d == 0:
                continue
            at = k * start[l]
            col = &columns[start[l]]
            together = slot[col[d - 1]] - slot[col[0]] == d - 1
            for j in range(d):
                if slot[col[j]] - slot[col[0]] != j:
                    together = 0
            J = work
            T = J + k * d
            Y = T + k * d
            U = Y + P * k * d
            G = U + P * k * d
            for r in range(k):
                for i in range(d):
                    v = 0.0
                    for s in range(k):
                        v += Di[l, r, s] * B[at + s * d + i]
                    J[r * d + i] = v
            for i in range(d):
                for j in range(d):
                    G[i * d + j] = inverse[col[i], slot[col[j]]]
            for a in range(P):
                o = Y + a * k * d
                for r in range(k):
                    for i in range(d):
                        v = dB[a, at + r * d + i]
                        for s in range(k):
                            v -= dD[a, l, r, s] * J[s * d + i]
                        o[r * d + i] = v
                for r in range(k):
                    for i in range(d):
                        v = 0.0
                        for s in range(k):
                            v += Di[l, r, s] * o[s * d + i]
                        U[a * k * d + r * d + i] = v
                for i in range(d):
                    for r in range(k):
                        v = dB[a, at + r * d + i]
                        if together:
                            _subtract(&dS[a, col[i], slot[col[0]]], d, v, J + r * d, J[r * d + i], o + r * d)
                        else:
                            for j in range(d):
                                dS[a, col[i], slot[col[j]]] -= v * J[r * d + j] + J[r * d + i] * o[r * d + j]
            for a in range(P):
                for r in range(k):
                    for j in range(d):
                        T[r * d + j] = 0.0
                    for i in range(d):
                        v = Y[a * k * d + r * d + i]
                        for j in range(d):
                            T[r * d + j] += v * G[i * d + j]
                for b in range(a + 1):
                    x = U + b * k * d
                    v = 0.0
                    for i in range(k * d):
                        v += T[i] * x[i]
                    traces[a, b] += 2.0 * v
        for a in range(P):
            for b in range(a):
                traces[b, a] = traces[a, b]
    free(work)
    return out
