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


cdef enum:
    CURVED = 16                      # columns of random effects, at most


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
    """Add one level of two or more columns of Z, whose G, dG and ddG are in w, to the sums."""
    cdef int k = s.k, c = s.c, q = s.q, i, j, l, a, b, x, y, at, rt = s.r_theta, r = s.r
    cdef int cc = c * c, kk = k * k, kc = k * c, qq = q * q
    cdef double v
    cdef double* H
    cdef double* D
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


cdef inline int _row(int i) noexcept nogil:
    """Where row i of a packed lower triangle begins."""
    return i * (i + 1) // 2


cdef bint _narrow_level(
    const Sizes* s, double* own, Sums* out, const double* G, double f, const double* dS, double* FZ, double* U
) noexcept nogil:
    """`_level` for one column of Z or none; G and its derivatives are packed lower triangles.

    With g = G_Z., N = f^2 h and h = 1 / (1 + f^2 A): F = G - N g'g, F_Z. = h g, and
    ``E'DE = D - N (d'g + g'y)`` with d = D_Z. and y = d - N D_ZZ g. Lower triangles of the sums only.
    """
    cdef int k = s.k, q = s.q, qq = q * q, c = s.c, size = _row(c), rt = s.r_theta, r = s.r
    cdef int i, j, a, b, x, y, at
    cdef double A, h, N, v, u, FZZ, e
    cdef const double* D
    cdef double* H
    cdef double* g = own                  # q numbers
    cdef double* Fz = own + q             # q
    cdef double* d = own + 2 * q          # q
    cdef double* Y = own + 3 * q          # r_phi x q: y of each parameter
    cdef double* ZZ = Y + s.r_phi * q     # r_phi: D_ZZ of each
    if k == 0:
        for x in range(q):
            D = G + _row(x)
            for y in range(x + 1):
                out.S[x * q + y] += D[y]
        if s.order == 0:
            return True
        for j in range(s.r_phi):
            H = out.S1 + j * qq
            for x in range(q):
                D = G + (1 + j) * size + _row(x)
                for y in range(x + 1):
                    H[x * q + y] += D[y]
        for j in range(s.pairs_phi):
            H = out.S2 + j * qq
            for x in range(q):
                D = G + (1 + s.r_phi + j) * size + _row(x)
                for y in range(x + 1):
                    H[x * q + y] += D[y]
        return True
    A = G[0]
    v = 1.0 + f * f * A
    if not v > 0.0:
        return False
    out.logdet += log(v)
    h = 1.0 / v
    N = f * f * h
    FZZ = h * A
    out.T[0] += FZZ
    for x in range(q):
        g[x] = G[_row(x + 1)]
        Fz[x] = FZ[x] = h * g[x]
        U[x] = f * h * g[x]
    for x in range(q):
        D = G + _row(x + 1) + 1
        v = N * g[x]
        for y in range(x + 1):
            out.S[x * q + y] += D[y] - v * g[y]
    if s.order == 0:
        return True
    for j in range(s.r_phi):
        D = G + (1 + j) * size
        e = ZZ[j] = D[0]
        out.logdet1[rt + j] += N * e
        for x in range(q):
            d[x] = D[_row(x + 1)]
            Y[j * q + x] = d[x] - N * e * g[x]
        H = out.S1 + (rt + j) * qq
        for x in range(q):
            D = G + (1 + j) * size + _row(x + 1) + 1
            v, u = N * d[x], N * g[x]
            for y in range(x + 1):
                H[x * q + y] += D[y] - v * g[y] - u * Y[j * q + y]
        for i in range(j + 1):
            at = _pair(j, i)
            D = G + (1 + s.r_phi + at) * size
            e = D[0]
            out.logdet2[(rt + j) * r + rt + i] += N * e - N * N * ZZ[i] * ZZ[j]
            for x in range(q):
                d[x] = D[_row(x + 1)]
            H = out.S2 + _pair(rt + j, rt + i) * qq
            for x in range(q):
                D = G + (1 + s.r_phi + at) * size + _row(x + 1) + 1
                v, u = N * (d[x] - N * e * g[x]), N * g[x]
                for y in range(x + 1):
                    H[x * q + y] += (
                        D[y] - v * g[y] - u * d[y]
                        - N * (Y[j * q + x] * Y[i * q + y] + Y[i * q + x] * Y[j * q + y])
                    )
    for a in range(rt):
        e = dS[a]
        out.logdet1[a] += e * FZZ
        H = out.S1 + a * qq
        for x in range(q):
            v = e * Fz[x]
            for y in range(x + 1):
                H[x * q + y] -= v * Fz[y]
        for b in range(a + 1):
            H = out.S2 + _pair(a, b) * qq
            u = 2.0 * e * dS[b] * FZZ
            for x in range(q):
                v = u * Fz[x]
                for y in range(x + 1):
                    H[x * q + y] += v * Fz[y]
            out.logdet2[a * r + b] -= e * dS[b] * FZZ * FZZ
        for j in range(s.r_phi):
            H = out.S2 + _pair(rt + j, a) * qq
            v = e * h
            for x in range(q):
                for y in range(x + 1):
                    H[x * q + y] -= v * (Y[j * q + x] * Fz[y] + Fz[x] * Y[j * q + y])
            out.logdet2[(rt + j) * r + a] += e * h * h * ZZ[j]
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

    Arrays are views of one block of memory, made when they are asked for.

    Attributes
    ----------
    logdet, logdet_XX, pwrss : float
        ``log|V|`` (without ``log|R|`` for `from_products`), ``log|X'V^{-1}X|`` and ``y'Py``.
    """

    cdef public double logdet, logdet_XX, pwrss
    cdef object block
    cdef double* _block
    cdef Sizes s
    cdef Sums sums
    cdef Py_ssize_t levels, at_first, at_second, at_gamma, at_C, at_TX, at_squares, at_FZ, at_U, at_root

    cdef void prepare(self, Py_ssize_t levels, int k, int q, int r_theta, int r_phi, int order):
        cdef Sizes* s = &self.s
        s.k, s.q, s.p, s.c = k, q, q - 1, k + q
        s.r_theta, s.r_phi, s.order = r_theta, r_phi, order
        s.r = r_theta + r_phi
        s.pairs_phi, s.pairs = r_phi * (r_phi + 1) // 2, s.r * (s.r + 1) // 2
        cdef Py_ssize_t r = s.r if order > 0 else 0, pairs = s.pairs if order > 0 else 0, qq = q * q, p = s.p
        cdef Py_ssize_t at = qq * (1 + r + pairs)
        cdef Py_ssize_t logdet1 = at, logdet2 = at + r, T = at + r + r * r
        self.levels = levels
        self.at_TX = T + k * k
        self.at_squares = self.at_TX + k * k
        self.at_gamma = self.at_squares + k * k
        self.at_C = self.at_gamma + p
        self.at_first = self.at_C + p * p
        self.at_second = self.at_first + 3 * r
        # two triangular p x p, then vectors of length q, p and k, then r x q and r x p x p
        self.at_root = self.at_second + 3 * r * r
        self.at_FZ = self.at_root + 2 * p * p + q + p + k + r * q + r * p * p
        self.at_U = self.at_FZ + levels * k * q
        self.block = np.zeros(self.at_U + levels * k * q)
        cdef double[::1] view = self.block
        cdef double* block = &view[0]
        self._block = block
        cdef Sums* o = &self.sums
        o.logdet = 0.0
        o.S, o.S1, o.S2 = block, block + qq, block + qq * (1 + r)
        o.logdet1, o.logdet2, o.T = block + logdet1, block + logdet2, block + T

    cdef object view(self, Py_ssize_t at, tuple shape):
        cdef Py_ssize_t size = 1
        for one in shape:
            size *= one
        return self.block[at:at + size].reshape(shape)

    @property
    def first(self):
        """Gradients of the three, shape (3, r), random effects first; only with derivatives."""
        return self.view(self.at_first, (3, self.s.r))

    @property
    def second(self):
        """Hessians of the three, shape (3, r, r), less the parts with second derivatives of Sigma."""
        return self.view(self.at_second, (3, self.s.r, self.s.r))

    @property
    def gamma(self):
        """Coefficients of the columns X, shape (p,)."""
        return self.view(self.at_gamma, (self.s.p,))

    @property
    def C(self):
        """Inverse of X'V^{-1}X, shape (p, p)."""
        return self.view(self.at_C, (self.s.p, self.s.p))

    @property
    def S1(self):
        """Derivatives of ``[X y]'V^{-1}[X y]``, shape (r, p + 1, p + 1); only with derivatives."""
        return self.view(self.s.q * self.s.q, (self.s.r, self.s.q, self.s.q))

    @property
    def T(self):
        """``sum Z'V^{-1}Z``, shape (k, k)."""
        return self.view(self.at_TX - self.s.k * self.s.k, (self.s.k, self.s.k))

    @property
    def T_X(self):
        """What REML takes from T, shape (k, k)."""
        return self.view(self.at_TX, (self.s.k, self.s.k))

    @property
    def S(self):
        """``sum Z'Py y'PZ``, shape (k, k)."""
        return self.view(self.at_squares, (self.s.k, self.s.k))

    @property
    def U(self):
        """Spherical effects of the columns [X y], shape (L, k, p + 1)."""
        return self.view(self.at_U, (self.levels, self.s.k, self.s.q))

    cdef bint finish(self) noexcept:
        """Profile beta out; False where X'V^{-1}X is not positive definite."""
        cdef int p = self.s.p, q = self.s.q, r = self.s.r, k = self.s.k, i, j, x, y, l, at
        cdef Py_ssize_t m
        cdef double* S0 = self.sums.S
        cdef double* Cm = self._block + self.at_C
        cdef double* g = self._block + self.at_gamma
        cdef double* L = self._block + self.at_root
        cdef double* Li = L + p * p
        cdef double* vec = Li + p * p
        cdef double* h = vec + q
        cdef double* z = h + p
        cdef double* w = z + k             # S_i v
        cdef double* CS = w + r * q        # C S_i
        cdef double* TX = self._block + self.at_TX
        cdef double* SS = self._block + self.at_squares
        cdef double* FZ
        cdef double* Si
        cdef double* Sj
        cdef double total, log_X = 0.0
        for at in range(1 + (r + self.s.pairs if self.s.order > 0 else 0)):  # S, S1 and S2
            Si = S0 + at * q * q
            for i in range(q):
                for j in range(i):
                    Si[j * q + i] = Si[i * q + j]
        for i in range(p):
            for j in range(p):
                L[i * p + j] = S0[i * q + j]
        if p:
            if not mm_lower_factor(L, p, 0.0):
                return False
            mm_lower_inverse(L, Li, p)
            mm_lower_square(Li, Cm, p)
        for i in range(p):
            log_X += 2.0 * log(L[i * p + i])
        for i in range(p):
            total = 0.0
            for j in range(p):
                total += Cm[i * p + j] * S0[j * q + p]
            g[i] = total
            vec[i] = -total
        vec[p] = 1.0
        total = 0.0
        for i in range(q):
            for j in range(q):
                total += vec[i] * S0[i * q + j] * vec[j]
        self.logdet, self.logdet_XX, self.pwrss = self.sums.logdet, log_X, total
        # T_X and S
        for m in range(self.levels if k else 0):
            FZ = self._block + self.at_FZ + m * k * q
            for x in range(k):
                total = 0.0
                for i in range(q):
                    total += FZ[x * q + i] * vec[i]
                z[x] = total
            for x in range(k):
                for y in range(x + 1):
                    SS[x * k + y] += z[x] * z[y]
                for i in range(p):
                    total = 0.0
                    for j in range(p):
                        total += Cm[i * p + j] * FZ[x * q + j]
                    h[i] = total
                for y in range(x + 1):
                    total = 0.0
                    for i in range(p):
                        total += FZ[y * q + i] * h[i]
                    TX[x * k + y] += total
        for x in range(k):
            for y in range(x):
                SS[y * k + x], TX[y * k + x] = SS[x * k + y], TX[x * k + y]
        if self.s.order == 0:
            return True
        cdef double* d0 = self._block + self.at_first
        cdef double* d1 = d0 + r
        cdef double* d2 = d1 + r
        cdef double* dd0 = self._block + self.at_second
        cdef double* dd1 = dd0 + r * r
        cdef double* dd2 = dd1 + r * r
        for i in range(r):
            Si = self.sums.S1 + i * q * q
            for x in range(q):
                total = 0.0
                for y in range(q):
                    total += Si[x * q + y] * vec[y]
                w[i * q + x] = total
            total = 0.0
            for x in range(q):
                total += vec[x] * w[i * q + x]
            d2[i] = total
            total = 0.0
            Sj = CS + i * p * p
            for x in range(p):
                for y in range(p):
                    Sj[x * p + y] = 0.0
                for l in range(p):
                    for y in range(p):
                        Sj[x * p + y] += Cm[x * p + l] * Si[l * q + y]
                total += Sj[x * p + x]
            d1[i] = total
            d0[i] = self.sums.logdet1[i]
        for i in range(r):
            for j in range(i + 1):
                at = _pair(i, j)
                dd0[i * r + j] = dd0[j * r + i] = self.sums.logdet2[i * r + j]
                Si = self.sums.S2 + at * q * q
                total = 0.0
                for x in range(p):
                    for y in range(p):
                        total += Cm[x * p + y] * Si[y * q + x]
                        total -= CS[(i * p + x) * p + y] * CS[(j * p + y) * p + x]
                dd1[i * r + j] = dd1[j * r + i] = total
                total = 0.0
                for x in range(q):
                    for y in range(q):
                        total += vec[x] * Si[x * q + y] * vec[y]
                for x in range(p):
                    for y in range(p):
                        total -= 2.0 * w[i * q + x] * Cm[x * p + y] * w[j * q + y]
                dd2[i * r + j] = dd2[j * r + i] = total
        return True

    cdef object settled(self, bint fine):
        """The profile itself; None if a level failed, beta cannot be profiled out or a number is not finite."""
        if fine and self.finish() and isfinite(self.pwrss + self.logdet + self.logdet_XX):
            return self
        return None

    def derivatives(self, double scale, bint reml, E=None, double nu=0.0):
        """Gradient and Hessian of the criterion, beta profiled out.

        Parameters
        ----------
        scale : float
            1 / sigma^2.
        reml : bool
        E : ndarray, shape (r_theta, k, k), or None
            Derivatives of a factor that is linear in theta, whose squares the Hessian holds as well. None:
            left to the caller.
        nu : float
            Degrees of freedom where sigma is profiled out too; 0 where it is held.

        Returns
        -------
        gradient : ndarray, shape (r,)
        hessian : ndarray, shape (r, r)
        border : ndarray, shape (r,)
            Derivatives of the gradient in log sigma^2.
        sum : float
            Of gradient and Hessian: finite if all of them are.
        """
        cdef double total = 0.0
        cdef int r = self.s.r, rt = self.s.r_theta, k = self.s.k, i, j, a, b, l
        cdef double v
        gradient, hessian, border = np.empty(r), np.empty((r, r)), np.empty(r)
        cdef double[::1] g = gradient, q = border
        cdef double[:, ::1] H = hessian
        cdef const double* d = self._block + self.at_first
        cdef const double* dd = self._block + self.at_second
        cdef const double* T = self.sums.T
        cdef const double* TX = self._block + self.at_TX
        cdef const double* SS = self._block + self.at_squares
        cdef double M[CURVED * CURVED]
        cdef double ME[CURVED * CURVED]
        cdef const double[:, :, ::1] e
        for i in range(r):
            g[i] = d[i] + scale * d[2 * r + i] + (d[r + i] if reml else 0.0)
            q[i] = -scale * d[2 * r + i]
            for j in range(r):
                l = i * r + j
                H[i, j] = dd[l] + scale * dd[2 * r * r + l] + (dd[r * r + l] if reml else 0.0)
        if E is not None and k > CURVED:
            raise ValueError(f"curvature is for at most {CURVED} columns of random effects, not {k}")
        if E is not None:  # tr(M (E_i E_j' + E_j E_i'))
            e = E
            for i in range(k * k):
                M[i] = T[i] - scale * SS[i] - (TX[i] if reml else 0.0)
            for i in range(rt):
                for a in range(k):
                    for b in range(k):
                        v = 0.0
                        for l in range(k):
                            v += M[a * k + l] * e[i, l, b]
                        ME[a * k + b] = 2.0 * v
                for j in range(rt):
                    v = 0.0
                    for a in range(k):
                        for b in range(k):
                            v += ME[a * k + b] * e[j, a, b]
                    H[i, j] += v
        for i in range(r):
            total += g[i]
            for j in range(r):
                if nu > 0.0:
                    H[i, j] -= q[i] * q[j] / nu
                total += H[i, j]
        return gradient, hessian, border, total


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


cdef inline void _pack(const double* G, double* A, int c) noexcept nogil:
    """The lower triangle of a symmetric matrix."""
    cdef int i, j, at = 0
    for i in range(c):
        for j in range(i + 1):
            A[at] = G[i * c + j]
            at += 1


cdef class Rows:
    """Rows of residuals in which a row depends on the one before: see `mixedmodels.residual.markov`.

    ``(W x)_t = (x_t cosh z_t - x_{t-1} sinh z_t s_t / s_{t-1}) / s_t`` with standard deviations s; x_{t-1} is
    divided by its own.

    Parameters
    ----------
    rows : ndarray, shape (n, c)
        Sorted; none where there are sums.
    sums : ndarray, shape (n segments, 3 c (c + 1) / 2)
        As `segments` gives them; or none.
    place : ndarray of int64
        A row of each segment.
    count : ndarray
        Rows of each segment.
    starts : ndarray of int64, shape (L + 1,)
        Segments of each level.
    which : ndarray of int32, shape (n,)
        Place of each row in the table of z; -1 at the first row of a group.
    """

    cdef const double[:, ::1] rows, sums
    cdef const int64_t[::1] place, starts
    cdef const double[::1] count
    cdef const int32_t[::1] which
    cdef int c

    def __init__(self, rows, sums, place, count, starts, which, int c):
        self.rows, self.sums, self.place, self.count = rows, sums, place, count
        self.starts, self.which, self.c = starts, which, c

    def at(
        self,
        const double[::1] z,                # (m,)
        const double[:, ::1] z1,            # (r_phi, m)
        const double[:, :, ::1] z2,         # (r_phi, r_phi, m)
        log_s,                              # (n,) or None
        d_log_s,                            # (r_phi, n) or None
        dd_log_s,                           # (r_phi, r_phi, n) or None
        const double[:, ::1] factor,        # (k, k)
        const double[:, :, ::1] dS,         # (r_theta, k, k)
        int order,
    ):
        """The profile at a table of z and logarithms of s (None: zero) with their derivatives (None: zero).

        Returns
        -------
        Profile or None
            None where a matrix is not positive definite or a number is not finite.

        Raises
        ------
        FloatingPointError
            A correlation of 1.
        """
        cdef const double[::1] log_sd
        cdef const double[:, ::1] e1
        cdef const double[:, :, ::1] e2
        cdef bint scaled = log_s is not None, moving = d_log_s is not None, bending = dd_log_s is not None
        if scaled:
            log_sd = log_s
        if moving:
            e1 = d_log_s
        if bending:
            e2 = dd_log_s
        cdef int k = <int>factor.shape[0], r_phi = <int>z1.shape[0], r_theta = <int>dS.shape[0], c = self.c
        cdef Py_ssize_t levels = self.starts.shape[0] - 1, l, g, t
        cdef Profile out = Profile()
        out.prepare(levels, k, c - k, r_theta, r_phi, order)
        cdef Sizes* s = &out.s
        cdef int triangle = c * (c + 1) // 2, used = 1 if order == 0 else 1 + r_phi + s.pairs_phi
        cdef Py_ssize_t entries = z.shape[0]
        for t in range(entries):
            if not fabs(z[t]) <= 18.0:
                raise FloatingPointError("a correlation of neighbouring rows is 1 in absolute value")
        cdef size_t needed = _needed(s) + (3 + used) * triangle + c + 3 * entries
        cdef double* memory = <double*>calloc(needed, sizeof(double))
        if memory == NULL:
            raise MemoryError
        cdef Work w = _allot(s, memory)
        cdef double* own = memory + _needed(s)
        cdef double* sums_of = own + 3 * triangle + c  # lower triangles of G and its derivatives
        cdef double* table = sums_of + used * triangle  # cosh z, sinh z and log cosh z
        cdef double* FZ = out._block + out.at_FZ
        cdef double* U = out._block + out.at_U
        cdef int cc = c * c, i, j, at, r = s.r, rt = r_theta
        cdef bint fine = True, first, alike, summed = self.sums.shape[0] > 0
        cdef int known
        cdef double C = 1.0, S = 0.0, log_C = 0.0, v, a, b, aij, bij, zi, zj, zij, ei, ej, fi, fj, eij, fij, m
        cdef double ea[8]
        cdef double fa[8]
        cdef double al[8]
        cdef double be[8]
        cdef const double* P
        cdef double* dS0 = <double*> (&dS[0, 0, 0] if r_theta > 0 and k > 0 else NULL)
        cdef double* factor0 = <double*> (&factor[0, 0] if k > 0 else NULL)
        cdef const double* row
        cdef const double* before
        with nogil:
            for t in range(entries):
                v = z[t]
                zi = exp(v)
                table[3 * t] = 0.5 * (zi + 1.0 / zi)
                table[3 * t + 1] = sinh(v) if fabs(v) < 0.3 else 0.5 * (zi - 1.0 / zi)
                table[3 * t + 2] = fabs(v) + log1p(exp(-2.0 * fabs(v))) - 0.6931471805599453
            for l in range(levels):
                memset(sums_of, 0, used * triangle * sizeof(double))
                g = self.starts[l]
                while g < self.starts[l + 1]:
                    t = self.place[g]
                    m = self.count[g]
                    known = self.which[t]
                    first = known < 0
                    if first:
                        C, S, log_C = 1.0, 0.0, 0.0
                    else:
                        C, S, log_C = table[3 * known], table[3 * known + 1], table[3 * known + 2]
                    a = C
                    b = -S
                    if scaled:
                        a *= exp(-log_sd[t])
                        out.sums.logdet += 2.0 * m * log_sd[t]
                        if not first:
                            b *= exp(-log_sd[t - 1])
                    if order == 0 and not summed:  # the whitened row times itself
                        out.sums.logdet -= 2.0 * m * log_C
                        row = &self.rows[t, 0]
                        if first:
                            for i in range(c):
                                own[i] = a * row[i]
                        else:
                            before = &self.rows[t - 1, 0]
                            for i in range(c):
                                own[i] = a * row[i] + b * before[i]
                        at = 0
                        for i in range(c):
                            v = own[i]
                            for j in range(i + 1):
                                sums_of[at + j] += v * own[j]
                            at += i + 1
                        g += 1
                        continue
                    if summed:
                        P = &self.sums[g, 0]
                    else:
                        memset(own, 0, 3 * triangle * sizeof(double))
                        _outer(&self.rows[t, 0], NULL if first else &self.rows[t - 1, 0], own, c)
                        alike = not scaled and not moving
                        while alike and g + 1 < self.starts[l + 1] and self.which[self.place[g + 1]] == known:
                            g += 1  # rows with the same coefficients together
                            m += self.count[g]
                            t = self.place[g]
                            _outer(&self.rows[t, 0], NULL if first else &self.rows[t - 1, 0], own, c)
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
                        zj = 0.0 if first else z1[j, known]
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
                            zi = 0.0 if first else z1[i, known]
                            zj = 0.0 if first else z1[j, known]
                            zij = 0.0 if first else z2[i, j, known]
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
                if k <= 1:
                    fine = _narrow_level(
                        s, w.G, &out.sums, sums_of, factor[0, 0] if k else 0.0, dS0, FZ + l * k * s.q,
                        U + l * k * s.q,
                    )
                    if not fine:
                        break
                    continue
                for i in range(used):
                    _fill(sums_of + i * triangle, w.G + i * cc, c)
                if not _level(s, &w, &out.sums, factor0, dS0, FZ + l * k * s.q, U + l * k * s.q):
                    fine = False
                    break
        free(memory)
        return out.settled(fine)


cdef inline double _ratio(bint scaled, const double[::1] log_sd, Py_ssize_t t) noexcept nogil:
    """``1 / s_{t-1}``."""
    return exp(-log_sd[t - 1]) if scaled else 1.0


def placed(const double[:, :, ::1] E, const double[::1] theta, bint derivatives):
    """The factor ``L = sum theta_t E_t`` of a level, and ``E_t L' + L E_t'`` for all t (or for none).

    Parameters
    ----------
    E : ndarray, shape (r_theta, k, k)
    theta : ndarray, shape (r_theta,)
    derivatives : bool
    """
    cdef int r = <int>E.shape[0], k = <int>E.shape[1], t, i, j, l
    cdef double v
    factor, directions = np.zeros((k, k)), np.empty((r if derivatives else 0, k, k))
    cdef double[:, ::1] L = factor
    cdef double[:, :, ::1] D = directions
    for t in range(r):
        for i in range(k):
            for j in range(k):
                L[i, j] += theta[t] * E[t, i, j]
    for t in range(r if derivatives else 0):
        for i in range(k):
            for j in range(i + 1):
                v = 0.0
                for l in range(k):
                    v += E[t, i, l] * L[j, l] + L[i, l] * E[t, j, l]
                D[t, i, j] = D[t, j, i] = v
    return factor, directions


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
    out.prepare(levels, k, c - k, r_theta, r_phi, order)
    cdef Sizes* s = &out.s
    cdef int triangle = c * (c + 1) // 2, used = 1 if order == 0 else 1 + r_phi + s.pairs_phi
    cdef double* memory = <double*>calloc(_needed(s) + used * triangle, sizeof(double))
    if memory == NULL:
        raise MemoryError
    cdef double* packed = memory + _needed(s)
    cdef Work w = _allot(s, memory)
    cdef double* FZ = out._block + out.at_FZ
    cdef double* U = out._block + out.at_U
    cdef bint fine = True
    cdef double* dS0 = <double*> (&dS[0, 0, 0] if r_theta > 0 and k > 0 else NULL)
    cdef double* factor0 = <double*> (&factor[0, 0] if k > 0 else NULL)
    with nogil:
        for l in range(levels):
            if k <= 1:
                _pack(&G[l, 0, 0], packed, c)
                for i in range(used - 1):
                    if i < r_phi:
                        _pack(&dG[i, l, 0, 0], packed + (1 + i) * triangle, c)
                    else:
                        _pack(&ddG[i - r_phi, l, 0, 0], packed + (1 + i) * triangle, c)
                fine = _narrow_level(
                    s, w.G, &out.sums, packed, factor[0, 0] if k else 0.0, dS0, FZ + l * k * s.q, U + l * k * s.q
                )
                if not fine:
                    break
                continue
            memcpy(w.G, &G[l, 0, 0], cc * sizeof(double))
            if order > 0:
                for i in range(r_phi):
                    memcpy(w.dG + i * cc, &dG[i, l, 0, 0], cc * sizeof(double))
                for i in range(s.pairs_phi):
                    memcpy(w.ddG + i * cc, &ddG[i, l, 0, 0], cc * sizeof(double))
            if not _level(s, &w, &out.sums, factor0, dS0, FZ + l * k * s.q, U + l * k * s.q):
                fine = False
                break
    free(memory)
    return out.settled(fine)
