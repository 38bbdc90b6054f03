# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
r"""Profiled Gaussian criterion with exact first and second derivatives, from cross-products by level.

Columns U = [Z | X | y] (k, p and 1 of them, c in all, q = p + 1). With G = U'R^{-1}U of a level and its
derivatives in the parameters phi of R, A = G_ZZ, N = Lambda (Lambda'A Lambda + I)^{-1} Lambda',

    E = I - [N G_Z.; 0],   F = U'V^{-1}U = E'GE + (Lambda^{-1} N G_Z.)'(Lambda^{-1} N G_Z.),
    F_j = E'G_jE,          F_ij = E'G_ijE - Y_i'N Y_j - Y_j'N Y_i,  Y_j = (G_j E)_Z.,
    F_a = -F_.Z S_a F_Z.,  F_ab = F_.Z S_a F_ZZ S_b F_Z. + its transpose,
    F_aj = -(F_j)_.Z S_a F_Z. - its transpose

for phi (i, j) and directions S_a = dSigma_a of the random effects; terms with second derivatives of Sigma are
left to the caller (they need sum F_ZZ and the like only). Sums over the levels give X'V^{-1}X, y'Py and
log|X'V^{-1}X| with all derivatives.
"""

from libc.math cimport exp, fabs, isfinite, log, log1p, sinh
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np


cdef extern from "lower_triangles.h" nogil:
    bint mm_lower_factor(double* A, int p, double lost)
    void mm_lower_inverse(const double* L, double* M, int p)
    void mm_lower_square(const double* M, double* H, int p)


cdef struct Sizes:
    int k, p, q, c, r_theta, r_phi, r, pairs_phi, pairs
    int order


cdef struct Work:
    double* G       # c x c, then r_phi of them, then pairs_phi
    double* dG
    double* ddG
    double* root    # k x k each
    double* inverse
    double* half
    double* N
    double* t       # k x c
    double* NG
    double* P
    double* F       # c x c
    double* dF      # r_phi x c x c
    double* Y       # r_phi x k x c: (G_j E)_Z., then half' of it
    double* SF      # r_theta x k x c
    double* FSF     # r_theta x k x c
    double* B       # c x c
    double* NA      # r_phi x k x k: N dA_j
    double* SZ      # r_theta x k x k: S_a F_ZZ


cdef struct Sums:
    double logdet
    double* logdet1     # r
    double* logdet2     # r x r
    double* S           # q x q
    double* S1          # r x q x q
    double* S2          # pairs x q x q
    double* T           # k x k


cdef inline int _pair(int i, int j) noexcept nogil:
    """Place of a pair i >= j among pairs."""
    return i * (i + 1) // 2 + j


cdef inline void _product(
    const double* A, const double* B, double* C, int m, int k, int n, bint transposed
) noexcept nogil:
    """C (m x n) = A B, or A'B where A is k x m."""
    cdef int i, j, l
    cdef double a
    for i in range(m):
        for j in range(n):
            C[i * n + j] = 0.0
        for l in range(k):
            a = A[l * m + i] if transposed else A[i * k + l]
            for j in range(n):
                C[i * n + j] += a * B[l * n + j]


cdef inline void _congruence(const double* D, const double* NG, double* H, int k, int c) noexcept nogil:
    """``H = E'D E`` for symmetric D, rows of D E of Z left in the first k rows of H: see `_finish`."""
    cdef int i, j, l
    cdef double a
    for i in range(c):
        for j in range(c):
            H[i * c + j] = D[i * c + j]
        for l in range(k):
            a = D[i * c + l]
            for j in range(c):
                H[i * c + j] -= a * NG[l * c + j]


cdef inline void _finish(const double* Y, const double* NG, double* H, int k, int c) noexcept nogil:
    """``H -= NG'Y`` with Y, (k, c), the first rows of D E."""
    cdef int i, j, l
    cdef double a
    for l in range(k):
        for i in range(c):
            a = NG[l * c + i]
            for j in range(c):
                H[i * c + j] -= a * Y[l * c + j]


cdef inline double _trace(const double* A, const double* B, int k) noexcept nogil:
    """``tr(A B)``."""
    cdef int i, j
    cdef double v = 0.0
    for i in range(k):
        for j in range(k):
            v += A[i * k + j] * B[j * k + i]
    return v


cdef bint _level(
    const Sizes* s, Work* w, Sums* out, const double* factor, const double* dS, double* FZ, double* U
) noexcept nogil:
    """Add one level, whose G, dG and ddG are in w, to the sums."""
    cdef int k = s.k, c = s.c, q = s.q, i, j, l, a, b, x, y, at, rt = s.r_theta, r = s.r
    cdef int cc = c * c, kk = k * k, kc = k * c, qq = q * q
    cdef double v
    cdef double* H
    cdef double* D
    if k == 0:
        for x in range(qq):
            out.S[x] += w.G[x]
        if s.order > 0:
            for x in range(s.r_phi * qq):
                out.S1[x] += w.dG[x]
            for x in range(s.pairs_phi * qq):
                out.S2[x] += w.ddG[x]
        return True
    # N, half and E
    for i in range(k):
        for j in range(k):
            v = 0.0
            for l in range(k):
                v += w.G[i * c + l] * factor[l * k + j]
            w.B[i * k + j] = v
    _product(factor, w.B, w.root, k, k, k, True)
    for i in range(k):
        w.root[i * k + i] += 1.0
    if not mm_lower_factor(w.root, k, 0.0):
        return False
    for i in range(k):
        out.logdet += 2.0 * log(w.root[i * k + i])
    mm_lower_inverse(w.root, w.inverse, k)
    for i in range(k):
        for j in range(k):
            v = 0.0
            for l in range(j + 1):
                v += factor[i * k + l] * w.inverse[j * k + l]
            w.half[i * k + j] = v
    _product(w.half, w.G, w.t, k, k, c, True)
    _product(w.half, w.t, w.NG, k, k, c, False)
    _product(w.inverse, w.t, w.P, k, k, c, True)
    # F
    _congruence(w.G, w.NG, w.F, k, c)
    memcpy(w.B, w.F, kc * sizeof(double))
    _finish(w.B, w.NG, w.F, k, c)
    for l in range(k):
        for i in range(c):
            v = w.P[l * c + i]
            for j in range(c):
                w.F[i * c + j] += v * w.P[l * c + j]
    for i in range(q):
        for j in range(q):
            out.S[i * q + j] += w.F[(k + i) * c + k + j]
    for i in range(k):
        for j in range(k):
            out.T[i * k + j] += w.F[i * c + j]
        for j in range(q):
            FZ[i * q + j] = w.F[i * c + k + j]
            U[i * q + j] = w.P[i * c + k + j]
    if s.order == 0:
        return True
    # phi
    for i in range(k):
        for j in range(k):
            v = 0.0
            for l in range(k):
                v += w.half[i * k + l] * w.half[j * k + l]
            w.N[i * k + j] = v
    for j in range(s.r_phi):
        D, H = w.dG + j * cc, w.dF + j * cc
        _congruence(D, w.NG, H, k, c)
        memcpy(w.B, H, kc * sizeof(double))
        _finish(w.B, w.NG, H, k, c)
        _product(w.half, w.B, w.Y + j * kc, k, k, c, True)
        for x in range(q):
            for y in range(q):
                out.S1[(rt + j) * qq + x * q + y] += H[(k + x) * c + k + y]
        for x in range(k):
            for y in range(k):
                v = 0.0
                for l in range(k):
                    v += w.N[x * k + l] * D[l * c + y]
                w.NA[j * kk + x * k + y] = v
        for x in range(k):
            out.logdet1[rt + j] += w.NA[j * kk + x * k + x]
        for i in range(j + 1):
            at = _pair(j, i)
            D = w.ddG + at * cc
            _congruence(D, w.NG, w.F + cc, k, c)  # scratch behind F
            memcpy(w.B, w.F + cc, kc * sizeof(double))
            _finish(w.B, w.NG, w.F + cc, k, c)
            H = out.S2 + _pair(rt + j, rt + i) * qq
            for x in range(q):
                for y in range(q):
                    v = w.F[cc + (k + x) * c + k + y]
                    for l in range(k):
                        v -= w.Y[j * kc + l * c + k + x] * w.Y[i * kc + l * c + k + y]
                        v -= w.Y[i * kc + l * c + k + x] * w.Y[j * kc + l * c + k + y]
                    H[x * q + y] += v
            v = -_trace(w.NA + i * kk, w.NA + j * kk, k)
            for x in range(k):
                for l in range(k):
                    v += w.N[x * k + l] * D[l * c + x]
            out.logdet2[(rt + j) * r + rt + i] += v
    # theta
    for a in range(rt):
        D = w.SF + a * kc
        _product(dS + a * kk, w.F, D, k, k, c, False)
        for x in range(k):
            for y in range(k):
                w.SZ[a * kk + x * k + y] = D[x * c + y]
            out.logdet1[a] += D[x * c + x]
        for x in range(k):
            for y in range(c):
                v = 0.0
                for l in range(k):
                    v += w.F[x * c + l] * D[l * c + y]
                w.FSF[a * kc + x * c + y] = v
        H = out.S1 + a * qq
        for l in range(k):
            for x in range(q):
                v = w.F[l * c + k + x]
                for y in range(q):
                    H[x * q + y] -= v * D[l * c + k + y]
        for b in range(a + 1):
            H = out.S2 + _pair(a, b) * qq
            for l in range(k):
                for x in range(q):
                    for y in range(q):
                        H[x * q + y] += (
                            w.SF[a * kc + l * c + k + x] * w.FSF[b * kc + l * c + k + y]
                            + w.FSF[b * kc + l * c + k + x] * w.SF[a * kc + l * c + k + y]
                        )
            out.logdet2[a * r + b] -= _trace(w.SZ + a * kk, w.SZ + b * kk, k)
        for j in range(s.r_phi):
            H = out.S2 + _pair(rt + j, a) * qq
            D = w.dF + j * cc
            for l in range(k):
                for x in range(q):
                    for y in range(q):
                        H[x * q + y] -= (
                            D[l * c + k + x] * w.SF[a * kc + l * c + k + y]
                            + w.SF[a * kc + l * c + k + x] * D[l * c + k + y]
                        )
            v = 0.0
            for x in range(k):
                for y in range(k):
                    v += dS[a * kk + x * k + y] * D[y * c + x]
            out.logdet2[(rt + j) * r + a] += v
    return True


cdef Work _allot(const Sizes* s, double* memory) noexcept nogil:
    """Pointers into one block of `_needed` doubles."""
    cdef Work w
    cdef int cc = s.c * s.c, kk = s.k * s.k, kc = s.k * s.c
    w.G = memory
    w.dG = w.G + cc
    w.ddG = w.dG + s.r_phi * cc
    w.F = w.ddG + s.pairs_phi * cc
    w.dF = w.F + 2 * cc
    w.B = w.dF + s.r_phi * cc
    w.t = w.B + cc
    w.NG = w.t + kc
    w.P = w.NG + kc
    w.Y = w.P + kc
    w.SF = w.Y + s.r_phi * kc
    w.FSF = w.SF + s.r_theta * kc
    w.root = w.FSF + s.r_theta * kc
    w.inverse = w.root + kk
    w.half = w.inverse + kk
    w.N = w.half + kk
    w.NA = w.N + kk
    w.SZ = w.NA + s.r_phi * kk
    return w


cdef size_t _needed(const Sizes* s) noexcept nogil:
    cdef size_t cc = s.c * s.c, kk = s.k * s.k, kc = s.k * s.c
    return (
        cc * (1 + s.r_phi + s.pairs_phi + 2 + s.r_phi + 1)
        + kc * (3 + s.r_phi + 2 * s.r_theta)
        + kk * (4 + s.r_phi + s.r_theta)
    )


cdef class Profile:
    """Sums over the levels at one parameter value, and what is profiled out of them.

    Attributes
    ----------
    logdet, logdet_XX, pwrss : float
        ``log|V|`` (without ``log|R|`` for `from_products`), ``log|X'V^{-1}X|`` and ``y'Py``.
    first : ndarray, shape (3, r)
        Gradients of the three, random effects first.
    second : ndarray, shape (3, r, r)
        Hessians, less the parts with second derivatives of Sigma.
    gamma : ndarray, shape (p,)
    C : ndarray, shape (p, p)
        Inverse of X'V^{-1}X.
    S1 : ndarray, shape (r, p + 1, p + 1)
        Derivatives of ``[X y]'V^{-1}[X y]``.
    T, T_X, S : ndarray, shape (k, k)
        ``sum Z'V^{-1}Z``, what REML takes from it, and ``sum Z'Py y'PZ``.
    U : ndarray, shape (L, k, p + 1)
        Spherical effects of the columns [X y].
    """

    cdef public double logdet, logdet_XX, pwrss
    cdef public object first, second, gamma, C, S1, T, T_X, S, U
    cdef object FZ, S0, S2, logdet1, logdet2
    cdef Sizes s
    cdef Sums sums

    cdef void prepare(self, int levels, int k, int q, int r_theta, int r_phi, int order):
        cdef Sizes* s = &self.s
        s.k, s.q, s.p, s.c = k, q, q - 1, k + q
        s.r_theta, s.r_phi, s.order = r_theta, r_phi, order
        s.r = r_theta + r_phi
        s.pairs_phi, s.pairs = r_phi * (r_phi + 1) // 2, s.r * (s.r + 1) // 2
        cdef int r = s.r if order > 0 else 0, pairs = s.pairs if order > 0 else 0
        self.S0, self.S1 = np.zeros((q, q)), np.zeros((r, q, q))
        self.S2 = np.zeros((pairs, q, q))
        self.logdet1, self.logdet2 = np.zeros(r), np.zeros((r, r))
        self.T, self.FZ, self.U = np.zeros((k, k)), np.empty((levels, k, q)), np.empty((levels, k, q))
        cdef Sums* o = &self.sums
        o.logdet = 0.0
        cdef double[:, ::1] S0 = self.S0, logdet2 = self.logdet2, T = self.T
        cdef double[:, :, ::1] S1 = self.S1, S2 = self.S2
        cdef double[::1] logdet1 = self.logdet1
        o.S = &S0[0, 0]
        o.S1 = &S1[0, 0, 0] if r > 0 else NULL
        o.S2 = &S2[0, 0, 0] if pairs > 0 else NULL
        o.logdet1 = &logdet1[0] if r > 0 else NULL
        o.logdet2 = &logdet2[0, 0] if r > 0 else NULL
        o.T = &T[0, 0] if k > 0 else NULL

    cdef bint finish(self):
        """Profile beta out; False where X'V^{-1}X is not positive definite."""
        cdef int p = self.s.p, q = self.s.q, r = self.s.r, k = self.s.k, i, j, x, y, l, m
        cdef double[:, ::1] S0 = self.S0
        cdef double[:, :, ::1] S1 = self.S1, S2 = self.S2, FZ = self.FZ
        cdef double[::1] logdet1 = self.logdet1
        cdef double[:, ::1] logdet2 = self.logdet2
        root, back = np.empty((p, p)), np.empty((p, p))
        C, gamma, v = np.empty((p, p)), np.empty(p), np.empty(q)
        cdef double[:, ::1] L = root, Li = back, Cm = C
        cdef double[::1] g = gamma, vec = v
        cdef double total, log_X = 0.0
        for i in range(p):
            for j in range(p):
                L[i, j] = S0[i, j]
        if p:
            if not mm_lower_factor(&L[0, 0], p, 0.0):
                return False
            mm_lower_inverse(&L[0, 0], &Li[0, 0], p)
            mm_lower_square(&Li[0, 0], &Cm[0, 0], p)
        for i in range(p):
            log_X += 2.0 * log(L[i, i])
        for i in range(p):
            total = 0.0
            for j in range(p):
                total += Cm[i, j] * S0[j, p]
            g[i] = total
            vec[i] = -total
        vec[p] = 1.0
        total = 0.0
        for i in range(q):
            for j in range(q):
                total += vec[i] * S0[i, j] * vec[j]
        self.logdet, self.logdet_XX, self.pwrss = self.sums.logdet, log_X, total
        self.gamma, self.C = gamma, C
        # T_X and S
        T_X, S = np.zeros((k, k)), np.zeros((k, k))
        cdef double[:, ::1] TX = T_X, SS = S
        cdef double[::1] h = np.empty(p)
        cdef double[::1] z = np.empty(k)
        if k:
            for m in range(FZ.shape[0]):
                for x in range(k):
                    total = 0.0
                    for i in range(q):
                        total += FZ[m, x, i] * vec[i]
                    z[x] = total
                for x in range(k):
                    for y in range(x + 1):
                        SS[x, y] += z[x] * z[y]
                    for i in range(p):
                        total = 0.0
                        for j in range(p):
                            total += Cm[i, j] * FZ[m, x, j]
                        h[i] = total
                    for y in range(x + 1):
                        total = 0.0
                        for i in range(p):
                            total += FZ[m, y, i] * h[i]
                        TX[x, y] += total
            for x in range(k):
                for y in range(x):
                    SS[y, x], TX[y, x] = SS[x, y], TX[x, y]
        self.T_X, self.S = T_X, S
        if self.s.order == 0:
            return True
        first, second = np.empty((3, r)), np.empty((3, r, r))
        cdef double[:, ::1] d = first
        cdef double[:, :, ::1] dd = second
        moved, images = np.empty((r, q)), np.empty((r, p, p))
        cdef double[:, ::1] w = moved       # S_i v
        cdef double[:, :, ::1] CS = images  # C S_i
        cdef int at
        for i in range(r):
            for x in range(q):
                total = 0.0
                for y in range(q):
                    total += S1[i, x, y] * vec[y]
                w[i, x] = total
            total = 0.0
            for x in range(q):
                total += vec[x] * w[i, x]
            d[2, i] = total
            total = 0.0
            for x in range(p):
                for y in range(p):
                    CS[i, x, y] = 0.0
                for l in range(p):
                    for y in range(p):
                        CS[i, x, y] += Cm[x, l] * S1[i, l, y]
                total += CS[i, x, x]
            d[1, i] = total
            d[0, i] = logdet1[i]
        for i in range(r):
            for j in range(i + 1):
                at = _pair(i, j)
                dd[0, i, j] = dd[0, j, i] = logdet2[i, j]
                total = 0.0
                for x in range(p):
                    for y in range(p):
                        total += Cm[x, y] * S2[at, y, x] - CS[i, x, y] * CS[j, y, x]
                dd[1, i, j] = dd[1, j, i] = total
                total = 0.0
                for x in range(q):
                    for y in range(q):
                        total += vec[x] * S2[at, x, y] * vec[y]
                for x in range(p):
                    for y in range(p):
                        total -= 2.0 * w[i, x] * Cm[x, y] * w[j, y]
                dd[2, i, j] = dd[2, j, i] = total
        self.first, self.second = first, second
        return True


cdef inline void _outer(const double* x, const double* y, double* P, int c) noexcept nogil:
    """Add xx', xy' + yx' and yy' as three lower triangles; y may be NULL."""
    cdef int i, j, at = 0, size = c * (c + 1) // 2
    cdef double a, b
    if y == NULL:
        for i in range(c):
            a = x[i]
            for j in range(i + 1):
                P[at + j] += a * x[j]
            at += i + 1
        return
    for i in range(c):
        a, b = x[i], y[i]
        for j in range(i + 1):
            P[at + j] += a * x[j]
            P[size + at + j] += a * y[j] + b * x[j]
            P[2 * size + at + j] += b * y[j]
        at += i + 1


def segments(const double[:, ::1] rows, const int32_t[::1] which, const int64_t[::1] segment, Py_ssize_t n_segments):
    """Sums of xx', xy' + yx' and yy' (lower triangles) by segment, y the row before x.

    Parameters
    ----------
    rows : ndarray, shape (n, c)
        Sorted by level, group and time.
    which : ndarray of int32, shape (n,)
        -1 at the first row of a group.
    segment : ndarray of int64, shape (n,)
    n_segments : int

    Returns
    -------
    ndarray, shape (n_segments, 3 c (c + 1) / 2)
    """
    cdef Py_ssize_t n = rows.shape[0], t
    cdef int c = <int>rows.shape[1]
    out = np.zeros((n_segments, 3 * (c * (c + 1) // 2)))
    cdef double[:, ::1] P = out
    with nogil:
        for t in range(n):
            _outer(&rows[t, 0], &rows[t - 1, 0] if which[t] >= 0 else NULL, &P[segment[t], 0], c)
    return out


cdef inline void _add(double* A, const double* P, double s1, double s2, double s3, int size) noexcept nogil:
    """Add a combination of three lower triangles to a lower triangle."""
    cdef int at
    if s2 == 0.0 and s3 == 0.0:
        for at in range(size):
            A[at] += s1 * P[at]
        return
    for at in range(size):
        A[at] += s1 * P[at] + s2 * P[size + at] + s3 * P[2 * size + at]


cdef inline void _fill(const double* A, double* G, int c) noexcept nogil:
    """A symmetric matrix from its lower triangle."""
    cdef int i, j, at = 0
    for i in range(c):
        for j in range(i + 1):
            G[i * c + j] = G[j * c + i] = A[at]
            at += 1


def from_rows(
    const double[:, ::1] rows,          # (n, c), or none where there are sums
    const double[:, ::1] sums,          # (n segments, 3 c (c + 1) / 2), or none
    const int64_t[::1] place,              # a row of each segment
    const double[::1] count,            # rows of each segment
    const int64_t[::1] starts,             # segments of each level, (L + 1,)
    const int32_t[::1] which,               # (n,)
    const double[::1] z,                # (m,)
    const double[:, ::1] z1,            # (r_phi, m)
    const double[:, :, ::1] z2,         # (r_phi, r_phi, m)
    const double[::1] log_sd,           # (n,) or none
    const double[:, ::1] e1,            # (r_phi, n) or none
    const double[:, :, ::1] e2,         # (r_phi, r_phi, n) or none
    const double[:, ::1] factor,        # (k, k)
    const double[:, :, ::1] dS,         # (r_theta, k, k)
    int c,
    int order,
):
    """The profile of residuals in which a row depends on the one before: see `mixedmodels.residual.markov`.

    ``(W x)_t = (x_t cosh z_t - x_{t-1} sinh z_t s_t / s_{t-1}) / s_t`` with standard deviations s; x_{t-1} is
    divided by its own. The logarithms of s have the derivatives e1 and e2 (none: zero).

    Returns
    -------
    Profile or None
        None where a matrix is not positive definite or a number is not finite.
    """
    cdef int k = <int>factor.shape[0], r_phi = <int>z1.shape[0], r_theta = <int>dS.shape[0]
    cdef Py_ssize_t levels = starts.shape[0] - 1, l, g, t
    cdef Profile out = Profile()
    out.prepare(<int>levels, k, c - k, r_theta, r_phi, order)
    cdef Sizes* s = &out.s
    cdef int triangle = c * (c + 1) // 2, used = 1 if order == 0 else 1 + r_phi + s.pairs_phi
    cdef double* memory = <double*>calloc(_needed(s) + (3 + used) * triangle + c, sizeof(double))
    if memory == NULL:
        raise MemoryError
    cdef Work w = _allot(s, memory)
    cdef double* own = memory + _needed(s)
    cdef double* sums_of = own + 3 * triangle + c  # lower triangles of G and its derivatives
    cdef double[:, :, ::1] FZ = out.FZ, U = out.U
    cdef int cc = c * c, i, j, at, r = s.r, rt = r_theta
    cdef bint scaled = log_sd.shape[0] > 0, fine = True, first
    cdef bint moving = e1.shape[1] > 0, bending = e2.shape[2] > 0, alike
    cdef int known = -2  # the place in the table that C and S are of
    cdef double C = 1.0, S = 0.0, log_C = 0.0, v, a, b, ai, bi, aj, bj, aij, bij, zi, zj, zij, ei, ej, fi, fj, eij, fij, m
    cdef double ea[8]
    cdef double fa[8]
    cdef double al[8]
    cdef double be[8]
    cdef const double* P
    cdef double* dS0 = <double*> (&dS[0, 0, 0] if r_theta > 0 and k > 0 else NULL)
    cdef double* factor0 = <double*> (&factor[0, 0] if k > 0 else NULL)
    with nogil:
        for l in range(levels):
            memset(sums_of, 0, used * triangle * sizeof(double))
            g = starts[l]
            while g < starts[l + 1]:
                t = place[g]
                m = count[g]
                first = which[t] < 0
                if which[t] != known:
                    known = which[t]
                    C, S, log_C = 1.0, 0.0, 0.0
                    if not first:
                        v = z[known]
                        zi = exp(v)
                        C = 0.5 * (zi + 1.0 / zi)
                        S = sinh(v) if fabs(v) < 0.3 else 0.5 * (zi - 1.0 / zi)
                        log_C = fabs(v) + log1p(exp(-2.0 * fabs(v))) - 0.6931471805599453
                a = C
                b = -S
                if scaled:
                    a *= exp(-log_sd[t])
                    out.sums.logdet += 2.0 * m * log_sd[t]
                    if not first:
                        b *= exp(-log_sd[t - 1])
                if order == 0 and sums.shape[0] == 0:  # the whitened row times itself
                    out.sums.logdet -= 2.0 * m * log_C
                    for i in range(c):
                        own[i] = a * rows[t, i] + (0.0 if first else b * rows[t - 1, i])
                    at = 0
                    for i in range(c):
                        v = own[i]
                        for j in range(i + 1):
                            sums_of[at + j] += v * own[j]
                        at += i + 1
                    g += 1
                    continue
                if sums.shape[0] > 0:
                    P = &sums[g, 0]
                else:
                    memset(own, 0, 3 * triangle * sizeof(double))
                    _outer(&rows[t, 0], NULL if first else &rows[t - 1, 0], own, c)
                    alike = not scaled and not moving
                    while alike and g + 1 < starts[l + 1] and which[place[g + 1]] == known:
                        g += 1  # rows with the same coefficients together
                        m += count[g]
                        _outer(&rows[place[g], 0], NULL if first else &rows[place[g] - 1, 0], own, c)
                    P = own
                g += 1
                out.sums.logdet -= 2.0 * m * log_C
                _add(sums_of, P, a * a, a * b, b * b, triangle)
                if order == 0:
                    continue
                # x_t has the factor a = C exp(-log s_t), x_{t-1} has b = -S exp(-log s_{t-1})
                for j in range(r_phi):
                    ea[j] = e1[j, t] if moving else 0.0
                    fa[j] = e1[j, t - 1] if moving and not first else 0.0
                    zj = 0.0 if first else z1[j, which[t]]
                    # derivatives of cosh and sinh: each is the other
                    al[j] = (S * zj - C * ea[j]) * (a / C)
                    be[j] = 0.0 if first else (S * fa[j] - C * zj) * (_ratio(scaled, log_sd, t))
                    out.sums.logdet1[rt + j] += m * 2.0 * (ea[j] - (0.0 if first else (S / C) * zj))
                    v = a * be[j] + b * al[j]
                    _add(sums_of + (1 + j) * triangle, P, 2.0 * a * al[j], v, 2.0 * b * be[j], triangle)
                for i in range(r_phi):
                    for j in range(i + 1):
                        at = _pair(i, j)
                        ei, ej, fi, fj = ea[i], ea[j], fa[i], fa[j]
                        eij = e2[i, j, t] if bending else 0.0
                        fij = e2[i, j, t - 1] if bending and not first else 0.0
                        zi = 0.0 if first else z1[i, which[t]]
                        zj = 0.0 if first else z1[j, which[t]]
                        zij = 0.0 if first else z2[i, j, which[t]]
                        aij = C * zi * zj + S * zij - S * (zi * ej + zj * ei) + C * (ei * ej - eij)
                        aij *= a / C
                        bij = 0.0
                        if not first:
                            bij = S * zi * zj + C * zij - C * (zi * fj + zj * fi) + S * (fi * fj - fij)
                            bij *= -_ratio(scaled, log_sd, t)
                        _add(
                            sums_of + (1 + r_phi + at) * triangle,
                            P,
                            2.0 * (a * aij + al[i] * al[j]),
                            a * bij + b * aij + al[i] * be[j] + be[i] * al[j],
                            2.0 * (b * bij + be[i] * be[j]),
                            triangle,
                        )
                        zij = 0.0 if first else zij * (S / C) + zi * zj / (C * C)
                        out.sums.logdet2[(rt + i) * r + rt + j] += m * 2.0 * (eij - zij)
            for i in range(used):
                _fill(sums_of + i * triangle, w.G + i * cc, c)
            if not _level(
                s, &w, &out.sums, factor0, dS0,
                &FZ[l, 0, 0] if k > 0 else NULL, &U[l, 0, 0] if k > 0 else NULL,
            ):
                fine = False
                break
    free(memory)
    if not fine or not out.finish() or not isfinite(out.pwrss + out.logdet + out.logdet_XX):
        return None
    return out


cdef inline double _ratio(bint scaled, const double[::1] log_sd, Py_ssize_t t) noexcept nogil:
    """``1 / s_{t-1}``."""
    return exp(-log_sd[t - 1]) if scaled else 1.0


def from_products(
    const double[:, :, ::1] G,          # (L, c, c)
    const double[:, :, :, ::1] dG,      # (r_phi, L, c, c)
    const double[:, :, :, ::1] ddG,     # (pairs, L, c, c)
    const double[:, ::1] factor,
    const double[:, :, ::1] dS,
    int r_phi,
    int order,
):
    """The profile of given cross-products ``U'R^{-1}U`` by level, with derivatives; ``log|R|`` left out.

    Returns
    -------
    Profile or None
    """
    cdef int k = <int>factor.shape[0], r_theta = <int>dS.shape[0], c = <int>G.shape[1], cc = c * c, i
    cdef Py_ssize_t levels = G.shape[0], l
    cdef Profile out = Profile()
    out.prepare(<int>levels, k, c - k, r_theta, r_phi, order)
    cdef Sizes* s = &out.s
    cdef double* memory = <double*>calloc(_needed(s), sizeof(double))
    if memory == NULL:
        raise MemoryError
    cdef Work w = _allot(s, memory)
    cdef double[:, :, ::1] FZ = out.FZ, U = out.U
    cdef bint fine = True
    cdef double* dS0 = <double*> (&dS[0, 0, 0] if r_theta > 0 and k > 0 else NULL)
    cdef double* factor0 = <double*> (&factor[0, 0] if k > 0 else NULL)
    with nogil:
        for l in range(levels):
            memcpy(w.G, &G[l, 0, 0], cc * sizeof(double))
            if order > 0:
                for i in range(r_phi):
                    memcpy(w.dG + i * cc, &dG[i, l, 0, 0], cc * sizeof(double))
                for i in range(s.pairs_phi):
                    memcpy(w.ddG + i * cc, &ddG[i, l, 0, 0], cc * sizeof(double))
            if not _level(
                s, &w, &out.sums, factor0, dS0,
                &FZ[l, 0, 0] if k > 0 else NULL, &U[l, 0, 0] if k > 0 else NULL,
            ):
                fine = False
                break
    free(memory)
    if not fine or not out.finish() or not isfinite(out.pwrss + out.logdet + out.logdet_XX):
        return None
    return out
