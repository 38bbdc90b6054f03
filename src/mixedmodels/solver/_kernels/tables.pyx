# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
r"""Cross-products ``G = U'R^{-1}U`` by level, with derivatives, for correlations by pattern.

R = S C S with standard deviations S and correlations C from a table, one Cholesky factor C = LL' for each
pattern of rows. With a = S^{-1}U, K = C^{-1} and x = Ka,

    G = a'x,    G_j = -x'C_jx,    G_ij = x'C_iKC_jx + x'C_jKC_ix - x'C_ijx          (correlation)

and with a_i = -e_i a, a_ij = (e_ie_j - e_ij) a for logarithms of S with derivatives e_i and e_ij

    G_i = a_i'x + x'a_i,    G_ij = a_ij'x + x'a_ij + a_i'Ka_j + a_j'Ka_i            (standard deviations)
    G_ij = -a_i'KC_jx - x'C_jKa_i                                                   (one of each)
"""

from libc.math cimport isfinite, log
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from scipy.linalg.cython_blas cimport dgemm, dsymm, dtrsm
from scipy.linalg.cython_lapack cimport dpotrf, dpotri


cdef inline int _pair(int i, int j) noexcept nogil:
    """Place of a pair i >= j among pairs."""
    return i * (i + 1) // 2 + j


cdef inline void _gather(const int32_t* places, const double* table, double* C, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t x
    for x in range(size):
        C[x] = table[places[x]]


cdef inline double _dot(const double* A, const double* B, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t x
    cdef double v = 0.0
    for x in range(size):
        v += A[x] * B[x]
    return v


cdef void _add_cross(
    const double* A, const double* B, double* out, double* scratch, int T, int c, double factor, bint both
) noexcept nogil:
    """Add ``factor A'B``, and its transpose where `both`, for matrices (T, c) by columns."""
    cdef int i, j, t
    cdef double v, one = 1.0, zero = 0.0
    cdef const double* x
    cdef const double* y
    if T > 12:
        dgemm(b"T", b"N", &c, &c, &T, &one, <double*> A, &T, <double*> B, &T, &zero, scratch, &c)
    else:
        for i in range(c):
            y = B + i * T
            for j in range(c):
                x = A + j * T
                v = 0.0
                for t in range(T):
                    v += x[t] * y[t]
                scratch[i * c + j] = v
    for i in range(c):
        for j in range(c):
            v = scratch[i * c + j]
            if both:
                v += scratch[j * c + i]
            out[i * c + j] += factor * v


def table_products(
    const int64_t[::1] sizes,           # rows of a group, for each pattern
    const int64_t[::1] groups,          # groups of each pattern
    const int32_t[::1] places,          # (T, T) of each pattern, in the table
    const int64_t[::1] rows,            # T of each group, groups by pattern
    const int64_t[::1] level,           # of each group
    const double[::1] values,           # (m,) the table of correlations
    const double[:, ::1] first,         # (k, m)
    const double[:, ::1] second,        # (pairs of k, m)
    const double[:, ::1] a,             # (n, c): S^{-1}U
    const double[:, ::1] e,             # (s, n)
    const double[:, ::1] ee,            # (pairs of s, n): e_i e_j - e_ij
    Py_ssize_t levels,
    int order,
):
    """G with derivatives and log|C|, parameters of the correlation first.

    Returns
    -------
    (G, dG, ddG, logdet, logdet1, logdet2) or None
        Shapes (L, c, c), (r, L, c, c), (pairs, L, c, c), none, (k,), (pairs of k,); None where C is not
        positive definite.
    """
    cdef int k = <int>first.shape[0] if order else 0, s = <int>e.shape[0] if order else 0
    cdef int r = k + s, c = <int>a.shape[1], T, wide, info = 0, i, j, at, x
    cdef int pairs = r * (r + 1) // 2, pairs_k = k * (k + 1) // 2
    cdef Py_ssize_t P = sizes.shape[0], p, g, l, t, cc = c * c, stride = levels * c * c
    cdef Py_ssize_t at_place = 0, at_row = 0, at_group = 0, most = 0, largest = 0, each, TT, size
    for p in range(P):
        most = max(most, sizes[p] * groups[p] * c)
        largest = max(largest, sizes[p] * sizes[p])
    G_, dG_ = np.zeros((levels, c, c)), np.zeros((r, levels, c, c))
    ddG_ = np.zeros((pairs, levels, c, c))
    first_, second_ = np.zeros(k), np.zeros(pairs_k)
    cdef double[:, :, ::1] G = G_
    cdef double[:, :, :, ::1] dG = dG_, ddG = ddG_
    cdef double[::1] ld1 = first_, ld2 = second_
    cdef double logdet = 0.0, one = 1.0, zero = 0.0, m, v
    # a, L^{-1}a, Ka, then C_jKa, L^{-1}C_jKa, a_i, L^{-1}a_i, and one of scratch
    cdef size_t blocks = 2 if order == 0 else 4 + 2 * k + 2 * s
    cdef size_t squares = 1 if order == 0 else 3 + 2 * k
    cdef double* memory = <double*>malloc((blocks * most + squares * largest + cc + 1) * sizeof(double))
    if memory == NULL:
        raise MemoryError
    cdef double* A = memory
    cdef double* B = A + most
    cdef double* X = B + most
    cdef double* F = X + most
    cdef double* H = F + k * most
    cdef double* Ai = H + k * most
    cdef double* Bi = Ai + s * most
    cdef double* Y = Bi + s * most
    cdef double* L = memory + blocks * most
    cdef double* K = L + largest
    cdef double* D = K + largest
    cdef double* Cj = D + largest
    cdef double* S = Cj + k * largest
    cdef double* scratch = L + squares * largest
    cdef double* G0 = &G[0, 0, 0]
    cdef double* dG0 = &dG[0, 0, 0, 0] if r > 0 else NULL
    cdef double* ddG0 = &ddG[0, 0, 0, 0] if pairs > 0 else NULL
    cdef const int32_t* places0 = &places[0]
    cdef const double* a0 = &a[0, 0]
    with nogil:
        for p in range(P):
            T, TT, m = <int>sizes[p], sizes[p] * sizes[p], <double>groups[p]
            wide, size = <int>groups[p] * c, sizes[p] * groups[p] * c
            each = T * c
            _gather(places0 + at_place, &values[0], L, TT)
            dpotrf(b"L", &T, L, &T, &info)
            if info != 0:
                break
            for t in range(T):
                v = L[t * T + t]
                if not v > 0.0 or not isfinite(v):
                    info = 1
                    break
                logdet += 2.0 * m * log(v)
            if info != 0:
                break
            for g in range(groups[p]):
                for t in range(T):
                    l = rows[at_row + g * T + t]
                    for x in range(c):
                        A[g * each + x * T + t] = a0[l * c + x]
            memcpy(B, A, size * sizeof(double))
            dtrsm(b"L", b"L", b"N", b"N", &T, &wide, &one, L, &T, B, &T)
            for g in range(groups[p]):
                l = level[at_group + g]
                _add_cross(B + g * each, B + g * each, G0 + l * cc, scratch, T, c, 1.0, False)
            if order > 0:
                memcpy(X, B, size * sizeof(double))
                dtrsm(b"L", b"L", b"T", b"N", &T, &wide, &one, L, &T, X, &T)
                for j in range(k):
                    _gather(places0 + at_place, &first[j, 0], Cj + j * largest, TT)
                    dsymm(
                        b"L", b"L", &T, &wide, &one, Cj + j * largest, &T, X, &T, &zero, F + j * most, &T
                    )
                    memcpy(H + j * most, F + j * most, size * sizeof(double))
                    dtrsm(b"L", b"L", b"N", b"N", &T, &wide, &one, L, &T, H + j * most, &T)
                    for g in range(groups[p]):
                        l = level[at_group + g]
                        _add_cross(
                            X + g * each, F + j * most + g * each, dG0 + j * stride + l * cc,
                            scratch, T, c, -1.0, False,
                        )
                for i in range(s):
                    for g in range(groups[p]):
                        for t in range(T):
                            v = -e[i, rows[at_row + g * T + t]]
                            for x in range(c):
                                Ai[i * most + g * each + x * T + t] = v * A[g * each + x * T + t]
                    memcpy(Bi + i * most, Ai + i * most, size * sizeof(double))
                    dtrsm(b"L", b"L", b"N", b"N", &T, &wide, &one, L, &T, Bi + i * most, &T)
                    for g in range(groups[p]):
                        l = level[at_group + g]
                        _add_cross(
                            Ai + i * most + g * each, X + g * each, dG0 + (k + i) * stride + l * cc,
                            scratch, T, c, 1.0, True,
                        )
                # second derivatives
                for i in range(k):
                    for j in range(i + 1):
                        at = _pair(i, j)
                        _gather(places0 + at_place, &second[at, 0], D, TT)
                        dsymm(b"L", b"L", &T, &wide, &one, D, &T, X, &T, &zero, Y, &T)
                        for g in range(groups[p]):
                            l = level[at_group + g]
                            _add_cross(
                                H + i * most + g * each, H + j * most + g * each, ddG0 + at * stride + l * cc,
                                scratch, T, c, 1.0, True,
                            )
                            _add_cross(
                                X + g * each, Y + g * each, ddG0 + at * stride + l * cc,
                                scratch, T, c, -1.0, False,
                            )
                for i in range(s):
                    for j in range(k):
                        at = _pair(k + i, j)
                        for g in range(groups[p]):
                            l = level[at_group + g]
                            _add_cross(
                                Bi + i * most + g * each, H + j * most + g * each,
                                ddG0 + at * stride + l * cc, scratch, T, c, -1.0, True,
                            )
                    for j in range(i + 1):
                        at = _pair(k + i, k + j)
                        for g in range(groups[p]):
                            for t in range(T):
                                v = ee[_pair(i, j), rows[at_row + g * T + t]]
                                for x in range(c):
                                    Y[g * each + x * T + t] = v * A[g * each + x * T + t]
                            l = level[at_group + g]
                            _add_cross(
                                Y + g * each, X + g * each, ddG0 + at * stride + l * cc,
                                scratch, T, c, 1.0, True,
                            )
                            _add_cross(
                                Bi + i * most + g * each, Bi + j * most + g * each,
                                ddG0 + at * stride + l * cc, scratch, T, c, 1.0, True,
                            )
                # log|C|
                if k > 0:
                    memcpy(K, L, TT * sizeof(double))
                    dpotri(b"L", &T, K, &T, &info)
                    if info != 0:
                        break
                    for t in range(T):
                        for l in range(t):
                            K[t * T + l] = K[l * T + t]
                for i in range(k):
                    ld1[i] += m * _dot(K, Cj + i * largest, TT)
                    dsymm(
                        b"L", b"L", &T, &T, &one, Cj + i * largest, &T, K, &T, &zero, S + i * largest, &T
                    )  # C_i K; its transpose is K C_i
                for i in range(k):
                    for t in range(T):
                        for l in range(T):
                            D[t * T + l] = S[i * largest + l * T + t]
                    for j in range(i + 1):
                        ld2[_pair(i, j)] -= m * _dot(D, S + j * largest, TT)
                for i in range(k):
                    for j in range(i + 1):
                        at = _pair(i, j)
                        _gather(places0 + at_place, &second[at, 0], D, TT)
                        ld2[at] += m * _dot(K, D, TT)
            at_place += TT
            at_row += T * groups[p]
            at_group += groups[p]
    free(memory)
    if info != 0:
        return None
    return G_, dG_, ddG_, logdet, first_, second_
