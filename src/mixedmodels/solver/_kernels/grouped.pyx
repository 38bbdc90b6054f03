# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Criterion, gradient and average information for one grouping factor.

Per level, with A = Z'Z = R R' and t = R^{-1} Z'[X y] (see ``grouped_passes.h`` for the formulae), everything is
a sum over levels of functions of (R, t). Two ways to take the sum:

* *Pooled*: levels whose block A is the same form a class. R is theirs in common, and all sums are linear in the
  moments C = sum t t' of the class, so that an evaluation costs nothing per level: for a random intercept the
  classes are the distinct level sizes, for a balanced design there is one class.
* *Streamed*: the other levels, LANES at a time, in fixed chunks that threads share; chunk sums are added in
  order, so results do not depend on the number of threads.
"""

from cython.parallel cimport prange
from libc.math cimport fabs, log, sqrt
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from mixedmodels.solver._kernels.evaluator cimport Evaluator

cdef extern from "grouped_passes.h":
    const int LANES
    double mm_first_pass(int k, int P, const double* data, Py_ssize_t blocks, const double* lam, double* work,
                         double* G) noexcept nogil
    void mm_second_pass(int k, int P, int order, int reml, const double* data, Py_ssize_t blocks, const double* lam,
                        const double* v, const double* RXinv, double* work, double* T, double* S, double* F,
                        double* H) noexcept nogil
    Py_ssize_t mm_work_size(int k, int P)

cdef extern from *:
    """
    #include <string.h>
    static inline long long mm_bits(double x) { long long r; memcpy(&r, &x, sizeof r); return r; }
    """
    long long mm_bits(double x) noexcept nogil

cdef enum:
    CHUNK = 2048                     # blocks of lanes in one chunk of the streaming passes
    THREADED = 200000                # streamed levels from which threads pay (starting them costs 5-50 us)
    WIDE = 30000000                  # multiplications above which second-order sums over the levels go through BLAS

WIDE_PASS = float(WIDE)

cdef inline int tri(int i, int j) noexcept nogil:
    return i * (i + 1) // 2 + j


cdef object aligned(Py_ssize_t size):
    """Zeroed float64 array of `size`, starting on a cache line."""
    raw = np.zeros(size + 8)
    cdef double[::1] v = raw
    cdef Py_ssize_t skip = <Py_ssize_t>((64 - (<size_t>&v[0]) % 64) % 64) // 8
    return raw[skip:skip + size]


cdef inline void _root(const double* A, const double* B, int k, int P, double* R, double* t) noexcept nogil:
    """R (k x k, lower) with R R' = A, and t = R^{-1} B (k x P); columns of dependent pivots are zero."""
    cdef int i, j, l
    cdef double s, d
    for j in range(k):
        d = A[j * k + j]
        s = d
        for l in range(j):
            s -= R[j * k + l] * R[j * k + l]
        if s > 4e-16 * d:
            s = sqrt(s)
            R[j * k + j] = s
            d = 1.0 / s
            for i in range(j + 1, k):
                s = A[i * k + j]
                for l in range(j):
                    s -= R[i * k + l] * R[j * k + l]
                R[i * k + j] = s * d
            for i in range(P):
                s = B[j * P + i]
                for l in range(j):
                    s -= R[j * k + l] * t[l * P + i]
                t[j * P + i] = s * d
        else:
            for i in range(j, k):
                R[i * k + j] = 0.0
            for i in range(P):
                t[j * P + i] = 0.0
        for i in range(j):
            R[i * k + j] = 0.0


cdef inline unsigned long long _mix(unsigned long long h, long long x) noexcept nogil:
    h ^= <unsigned long long>x
    h *= <unsigned long long>0x9E3779B97F4A7C15
    h ^= h >> 29
    return h


cdef inline long long _grid(double x, double unit) noexcept nogil:
    """x in units of 2^-46 of the block's size: sums of equal terms in another order fall together."""
    return <long long>(x / unit + (0.5 if x >= 0.0 else -0.5))


cdef inline double _unit(const double* A, int k) noexcept nogil:
    """A power of two near 2^-46 trace A."""
    cdef double t = 0.0, u = 1.0
    cdef int i
    for i in range(k):
        t += A[i * k + i]
    if t == 0.0:
        return 1.0
    while u > t:
        u *= 0.5
    while u * 2.0 <= t:
        u *= 2.0
    return u * 1.4210854715202004e-14


cdef inline double _inner(int k, const double* R, const double* lam, double* Ei, double* B, double* V) noexcept nogil:
    """Ei = E^{-1} for E = I + (R'lam)(R'lam)', all k x k; returns log|E|."""
    cdef int i, j, l
    cdef double s, d, prod, logs = 0.0
    if k == 1:
        s = R[0] * lam[0]
        d = 1.0 + s * s
        Ei[0] = 1.0 / d
        return log(d)
    for i in range(k):
        for j in range(k):
            s = 0.0
            for l in range(i if i > j else j, k):
                s += R[l * k + i] * lam[l * k + j]
            B[i * k + j] = s
    # the rows of [I B] made orthogonal: I becomes V = U^{-1} with E = U diag(d) U'
    for i in range(k):
        for j in range(k):
            V[i * k + j] = 1.0 if i == j else 0.0
    prod = 1.0
    for j in range(k):
        d = 1.0
        for l in range(j):
            d += V[j * k + l] * V[j * k + l]
        for l in range(k):
            d += B[j * k + l] * B[j * k + l]
        prod *= d
        if prod > 1e150:
            logs += log(prod)
            prod = 1.0
        for i in range(j + 1, k):
            s = 0.0
            for l in range(j):
                s += V[i * k + l] * V[j * k + l]
            for l in range(k):
                s += B[i * k + l] * B[j * k + l]
            s /= d
            for l in range(j + 1):
                V[i * k + l] -= s * V[j * k + l]
            for l in range(k):
                B[i * k + l] -= s * B[j * k + l]
        # from here on row j of B is not needed: it keeps 1/d
        B[j * k] = 1.0 / d
    for i in range(k):
        for j in range(i + 1):
            s = 0.0
            for l in range(i, k):
                s += V[l * k + i] * V[l * k + j] * B[l * k]
            Ei[i * k + j] = s
            Ei[j * k + i] = s
    return logs + log(prod)


cdef inline void _sandwich(int k, const double* J, const double* X, double* out, double* tmp) noexcept nogil:
    """out = J X J', symmetric X."""
    cdef int i, j, l
    cdef double s
    for i in range(k):
        for j in range(k):
            s = 0.0
            for l in range(k):
                s += J[i * k + l] * X[l * k + j]
            tmp[i * k + j] = s
    for i in range(k):
        for j in range(i + 1):
            s = 0.0
            for l in range(k):
                s += tmp[i * k + l] * J[j * k + l]
            out[i * k + j] = s
            out[j * k + i] = s


cdef void _first_chunk(int k, int P, const double* data, Py_ssize_t blocks, const double* lam, double* work,
                       double* acc) noexcept nogil:
    memset(acc, 0, (1 + P * (P + 1) // 2) * sizeof(double))
    acc[0] = mm_first_pass(k, P, data, blocks, lam, work, acc + 1)


cdef void _second_chunk(int k, int P, int order, int reml, const double* data, Py_ssize_t blocks, const double* lam,
                        const double* v, const double* RXinv, double* work, double* acc, int sizes) noexcept nogil:
    cdef int k2 = k * (k + 1) // 2
    memset(acc, 0, sizes * sizeof(double))
    mm_second_pass(k, P, order, reml, data, blocks, lam, v, RXinv, work, acc, acc + k2, acc + 2 * k2,
                   acc + 2 * k2 + k2 * k2)


cdef class GroupedLevels:
    """The levels of one grouping factor, ready for evaluation.

    Parameters
    ----------
    A : ndarray, shape (m, k, k)
    ZXy : ndarray, shape (m, k, p + 1)
    G : ndarray, shape (p + 1, p + 1)
        ``[X y]'[X y]``.
    pool : bool
        False streams every level (for tests).
    responses : bool
        Keep what another response needs (`GroupedEvaluator.respond`).
    """

    def __init__(self, A, ZXy, G, bint pool=True, bint responses=False):
        cdef const double[:, :, ::1] Av = A
        cdef const double[:, :, ::1] Bv = ZXy
        cdef Py_ssize_t m = Av.shape[0], l, c, size, h, mask, b, lane
        cdef int k = <int>Av.shape[1], P = <int>Bv.shape[2], i, j, kP, k2, nf, threshold
        cdef double s, unit
        cdef unsigned long long code
        cdef bint same
        kP = k * P
        k2 = k * (k + 1) // 2
        nf = k2 + kP
        self.m = m
        self.k = k
        self.p = P - 1
        self.A = A
        self.ZXy = ZXy
        within = np.array(G, dtype=np.float64, order="C")
        cdef double[:, ::1] wv = within
        self.within = &wv[0, 0]
        cdef double[:, ::1] G_ = np.array(G, dtype=np.float64, order="C")
        cdef const double* a = &Av[0, 0, 0] if m else NULL
        cdef const double* bb = &Bv[0, 0, 0] if m else NULL
        self.own_A = a
        self.own_ZXy = bb
        # classes of identical blocks, by hashing
        cdef Py_ssize_t found = 0
        size = 16
        while size < 2 * m and size < 1048576:
            size *= 2
        mask = size - 1
        if not pool:
            size = 1
        ints_ = np.empty(4 * max(m, 1) + size, dtype=np.intp)
        cdef Py_ssize_t[::1] ints = ints_
        cdef Py_ssize_t* cls = &ints[0]              # class of each level
        cdef Py_ssize_t* first = cls + max(m, 1)     # of each class: its first level, its members and
        cdef Py_ssize_t* count = first + max(m, 1)
        cdef Py_ssize_t* number = count + max(m, 1)  # its place among the classes that are kept
        cdef Py_ssize_t* table = number + max(m, 1)
        memset(table, 255, size * sizeof(Py_ssize_t))    # -1
        with nogil:
            for l in range(m):
                if not pool or (l >= 1024 and 4 * found > 3 * l) or 2 * found >= size:
                    pool = False          # blocks differ: give up
                    break
                unit = _unit(a + l * k * k, k)
                code = _mix(<unsigned long long>14695981039346656037u, mm_bits(unit))
                for i in range(k):
                    for j in range(i + 1):
                        code = _mix(code, _grid(a[(l * k + i) * k + j], unit))
                h = <Py_ssize_t>((code >> 20) & <unsigned long long>mask)
                while True:
                    c = table[h]
                    if c < 0:
                        table[h] = found
                        first[found] = l
                        count[found] = 1
                        cls[l] = found
                        found += 1
                        break
                    same = _unit(a + first[c] * k * k, k) == unit
                    if same:
                        for i in range(k):
                            for j in range(i + 1):
                                if _grid(a[(l * k + i) * k + j], unit) != _grid(a[(first[c] * k + i) * k + j], unit):
                                    same = False
                    if same:
                        cls[l] = c
                        count[c] += 1
                        break
                    h = (h + 1) & mask
        # a class pays from the number of members whose streaming costs more than its moments
        threshold = 2 + <int>(4.5 * kP * kP / (k * k * k + k * k * P + 0.5 * k * P * P + k2 * k2 + k * kP + 4.0))
        if threshold < kP // 4:                   # and never more memory than streaming by much
            threshold = kP // 4
        memset(number, 255, found * sizeof(Py_ssize_t))
        self.n_classes = 0
        self.pooled_levels = 0
        if pool:
            for c in range(found):
                if count[c] >= threshold:
                    number[c] = self.n_classes
                    self.n_classes += 1
                    self.pooled_levels += count[c]
        self.n_streamed = m - self.pooled_levels
        self.class_size = 1 + k * k + kP * kP
        self.blocks = (self.n_streamed + LANES - 1) // LANES
        data = aligned(self.blocks * nf * LANES)
        classes = np.zeros(max(self.n_classes, 1) * self.class_size)
        cdef double[::1] dv = data
        cdef double[::1] cv = classes
        self.data = &dv[0] if self.blocks else NULL
        self.classes = &cv[0]
        self._keep = (within, data, classes)
        self.place = NULL
        self.roots = NULL
        self.tops = NULL
        cdef Py_ssize_t[::1] pv
        cdef double[::1] tv
        if responses:
            places, tops = np.empty(max(m, 1), dtype=np.intp), np.zeros(max(m, 1) * (k * k + kP))
            pv = places
            tv = tops
            self.place = &pv[0]
            self.roots = &tv[0]
            self.tops = self.roots + m * k * k
            self._keep = (within, data, classes, places, tops)
        cdef double* R = <double*>malloc((k * k + kP) * sizeof(double))
        cdef double* t = R + k * k
        cdef double* C
        cdef double* f
        cdef double* w = self.within
        cdef Py_ssize_t at = 0
        sums_ = np.zeros(2 * P * P)
        cdef double[::1] sums = sums_
        with nogil:
            for l in range(m):
                if l % 512 == 0:                  # sums of sums: rounding does not grow with the number of levels
                    for i in range(P * P):
                        sums[P * P + i] += sums[i]
                        sums[i] = 0.0
                c = -1
                if self.n_classes:
                    c = number[cls[l]]
                _root(a + (l if c < 0 else first[cls[l]]) * k * k, bb + l * kP, k, P, R, t)
                if responses:
                    self.place[l] = c if c >= 0 else -1 - at
                    memcpy(self.roots + l * k * k, R, k * k * sizeof(double))
                    memcpy(self.tops + l * kP, t, kP * sizeof(double))
                for i in range(k):
                    for j in range(P):
                        s = t[i * P + j]
                        for lane in range(j, P):
                            sums[j * P + lane] += s * t[i * P + lane]
                if c >= 0:
                    C = self.classes + c * self.class_size
                    if C[0] == 0.0:
                        memcpy(C + 1, R, k * k * sizeof(double))
                    C[0] += 1.0
                    C += 1 + k * k
                    for i in range(kP):
                        s = t[i]
                        for j in range(i, kP):
                            C[i * kP + j] += s * t[j]
                else:
                    f = self.data + (at // LANES) * nf * LANES + at % LANES
                    for i in range(k):
                        for j in range(i + 1):
                            f[tri(i, j) * LANES] = R[i * k + j]
                    f += k2 * LANES
                    for i in range(kP):
                        f[i * LANES] = t[i]
                    at += 1
            for i in range(P):
                for j in range(i, P):
                    w[i * P + j] -= sums[P * P + i * P + j] + sums[i * P + j]
            # a column of X that the levels explain to rounding (the intercept, say) has no part within them
            for i in range(P - 1):
                if w[i * P + i] <= 1e-14 * G_[i, i]:
                    for j in range(P):
                        w[i * P + j] = 0.0
                        w[j * P + i] = 0.0
            for i in range(P):
                for j in range(i):
                    w[i * P + j] = w[j * P + i]
            for c in range(self.n_classes):
                C = self.classes + c * self.class_size + 1 + k * k
                for i in range(kP):
                    for j in range(i):
                        C[i * kP + j] = C[j * kP + i]
        free(R)


cdef class GroupedEvaluator(Evaluator):
    """Compiled evaluator for one grouping factor; see `Evaluator` for the parameters.

    Parameters
    ----------
    levels : GroupedLevels
        Shared between evaluators.
    """

    def __init__(self, k, entries, clips, int p, double nu, bint reml, double constant=0.0, double sigma_fixed=0.0,
                 GroupedLevels levels=None):
        cdef int kk = levels.k, P = p + 1, k2 = kk * (kk + 1) // 2, kP = kk * P
        cdef Py_ssize_t n_small
        if self.n_factors != 1 or self.k[0] != kk or levels.p != p:
            raise ValueError("the levels do not belong to this model")
        self.levels = levels
        self.chunks = (levels.blocks + CHUNK - 1) // CHUNK
        self.acc_size = 1 + P * (P + 1) // 2 + 2 * k2 + k2 * k2 + kk * p * kk
        self.acc_size = (self.acc_size + 7) // 8 * 8
        self.work_size = (mm_work_size(kk, P) + 7) // 8 * 8
        n_small = 10 * kk * kk + 2 * kP * kk + 4 * k2 + kk * kk + 8 + p
        buffer = np.zeros(P * P + p + P + 3 * p * p + k2 * k2 + kk * p * kk + n_small + 8)
        work = aligned(self.chunks * (self.acc_size + self.work_size) + 8)
        self._keep.append((buffer, work))
        cdef double[::1] bv = buffer
        cdef double* b = &bv[0]
        self.ghat = b
        b += P * P
        self.beta = b
        b += p
        self.v = b
        b += P
        self.RX = b
        b += p * p
        self.RXinv = b
        b += p * p
        self.XVX = b
        b += p * p
        self.F = b
        b += k2 * k2
        self.H = b
        b += kk * p * kk
        self.small = b
        bv = work
        self.acc = &bv[0]
        self.lanes_work = self.acc + self.chunks * self.acc_size

    cdef int components(self, int order) noexcept nogil:
        cdef int k = self.k[0], P = self.p + 1, k2 = k * (k + 1) // 2
        memcpy(self.ghat, self.levels.within, P * P * sizeof(double))
        self.logdet_L2 = 0.0
        if self.levels.n_classes:
            self._pooled_first()
        if self.levels.blocks:
            self._stream_first()
        if self._fixed_part():
            return 1
        if order < 1:
            return 0
        memset(self.T, 0, k * k * sizeof(double))
        memset(self.S, 0, k * k * sizeof(double))
        memset(self.F, 0, k2 * k2 * sizeof(double))
        memset(self.H, 0, k * self.p * k * sizeof(double))
        if self.levels.n_classes:
            self._pooled_second(order)
        if self.levels.blocks:
            self._stream_second(order)
        if order >= 2:
            self._directions()
        return 0

    cdef int _fixed_part(self) noexcept nogil:
        """RX, its inverse, beta and pwrss from [X y]'V^{-1}[X y]; 1 if not positive definite."""
        cdef int p = self.p, P = p + 1, i, j, l
        cdef double s, logdet = 0.0
        cdef double* G = self.ghat
        cdef double* R = self.RX
        cdef double* Ri = self.RXinv
        for j in range(p):
            for i in range(j + 1):
                s = G[i * P + j]
                for l in range(i):
                    s -= R[l * p + i] * R[l * p + j]
                if i < j:
                    R[i * p + j] = s / R[i * p + i]
                else:
                    if not s > 0.0:
                        return 1
                    R[j * p + j] = sqrt(s)
                    logdet += log(s)
        for j in range(p):
            Ri[j * p + j] = 1.0 / R[j * p + j]
            for i in range(j - 1, -1, -1):
                s = 0.0
                for l in range(i + 1, j + 1):
                    s += R[i * p + l] * Ri[l * p + j]
                Ri[i * p + j] = -s * Ri[i * p + i]
        self.logdet_RX2 = logdet
        self.pwrss = G[p * P + p]
        for j in range(p):                       # RX^{-T} X'V^{-1}y
            s = 0.0
            for l in range(j + 1):
                s += Ri[l * p + j] * G[l * P + p]
            self.v[j] = s
            self.pwrss -= s * s
        for i in range(p):
            s = 0.0
            for j in range(i, p):
                s += Ri[i * p + j] * self.v[j]
            self.beta[i] = s
        for i in range(p):
            self.v[i] = -self.beta[i]
        self.v[p] = 1.0
        for i in range(p):                       # (X'V^{-1}X)^{-1}
            for j in range(i + 1):
                s = 0.0
                for l in range(i, p):
                    s += Ri[i * p + l] * Ri[j * p + l]
                self.XVX[i * p + j] = s
                self.XVX[j * p + i] = s
        if self.pwrss != self.pwrss:
            return 1
        return 0

    # ---------------------------------------------------------------- other responses
    cdef int respond(self, const double* zy, const double* xy, double yy) noexcept nogil:
        """The last column of everything anew: t_y = R^{-1} Z'y level by level."""
        cdef int k = self.k[0], p = self.p, P = p + 1, kP = k * P, nf = k * (k + 1) // 2 + kP, i, j, a, b
        cdef Py_ssize_t l, c, at
        cdef double s
        cdef double* w = self.levels.within
        cdef double* C
        cdef double* f
        cdef double* t
        cdef const double* R
        if self.levels.place == NULL:
            return 1
        for c in range(self.levels.n_classes):
            C = self.levels.classes + c * self.levels.class_size + 1 + k * k
            for i in range(kP):
                for b in range(k):
                    C[i * kP + b * P + p] = 0.0
        for i in range(p):
            w[i * P + p] = xy[i]
        w[p * P + p] = yy
        for l in range(self.levels.m):
            R = self.levels.roots + l * k * k
            t = self.levels.tops + l * kP
            for j in range(k):
                s = zy[l * k + j]
                for i in range(j):
                    s -= R[j * k + i] * t[i * P + p]
                t[j * P + p] = s / R[j * k + j] if R[j * k + j] != 0.0 else 0.0
                s = t[j * P + p]
                for i in range(P):
                    w[i * P + p] -= t[j * P + i] * s
            c = self.levels.place[l]
            if c >= 0:
                C = self.levels.classes + c * self.levels.class_size + 1 + k * k
                for i in range(kP):
                    for b in range(k):
                        C[i * kP + b * P + p] += t[i] * t[b * P + p]
            else:
                at = -1 - c
                f = self.levels.data + (at // LANES) * nf * LANES + at % LANES + (nf - kP) * LANES
                for a in range(k):
                    f[(a * P + p) * LANES] = t[a * P + p]
        for i in range(p):
            if w[i * P + i] == 0.0:
                w[i * P + p] = 0.0
            w[p * P + i] = w[i * P + p]
        for c in range(self.levels.n_classes):
            C = self.levels.classes + c * self.levels.class_size + 1 + k * k
            for i in range(kP):
                for b in range(k):
                    C[(b * P + p) * kP + i] = C[i * kP + b * P + p]
        return 0

    cdef int estimates(self, double* beta, double* vcov) noexcept nogil:
        if self.components(0):
            return 1
        memcpy(beta, self.beta, self.p * sizeof(double))
        memcpy(vcov, self.XVX, self.p * self.p * sizeof(double))
        return 0

    # ---------------------------------------------------------------- pooled classes
    cdef void _pooled_first(self) noexcept nogil:
        cdef int k = self.k[0], P = self.p + 1, kP = k * P, i, j, a, b
        cdef Py_ssize_t c
        cdef double logdet = 0.0, s
        cdef double* X = self.small
        cdef const double* C
        cdef double* G = self.ghat
        for c in range(self.levels.n_classes):
            C = self.levels.classes + c * self.levels.class_size
            logdet += C[0] * _inner(k, C + 1, self.lam, X, X + k * k, X + 2 * k * k)
            C += 1 + k * k
            for a in range(k):
                for b in range(a + 1):
                    s = X[a * k + b]             # E^{-1}
                    if a == b:
                        for i in range(P):
                            for j in range(i, P):
                                G[i * P + j] += s * C[(a * P + i) * kP + a * P + j]
                    else:
                        for i in range(P):
                            for j in range(i, P):
                                G[i * P + j] += s * (C[(a * P + i) * kP + b * P + j] + C[(b * P + i) * kP + a * P + j])
        self.logdet_L2 += logdet

    cdef void _pooled_second(self, int order) noexcept nogil:
        cdef int k = self.k[0], p = self.p, P = p + 1, kP = k * P, k2 = k * (k + 1) // 2, a, b, i, j, l
        cdef Py_ssize_t c
        cdef double s, count
        cdef const double* C
        cdef double* Ei = self.small
        cdef double* J = Ei + 3 * k * k              # R E^{-1}
        cdef double* K = J + k * k
        cdef double* E2 = K + k * k                  # sum (t v)(t v)'
        cdef double* Q = E2 + k * k                  # sum t_X (X'V^{-1}X)^{-1} t_X'
        cdef double* S = Q + k * k
        cdef double* tmp = S + k * k
        cdef double* Y = tmp + k * k                 # (k, P, k): sum t[a, j] (t v)[b]
        cdef double* Z = Y + kP * k
        cdef double* g = Z + kP * k                  # (p,)
        cdef const double* R
        cdef const double* u
        for c in range(self.levels.n_classes):
            C = self.levels.classes + c * self.levels.class_size
            count = C[0]
            R = C + 1
            _inner(k, R, self.lam, Ei, Ei + k * k, Ei + 2 * k * k)
            C += 1 + k * k
            for i in range(k):
                for j in range(k):
                    s = 0.0
                    for l in range(i + 1):
                        s += R[i * k + l] * Ei[l * k + j]
                    J[i * k + j] = s
            for i in range(k):
                for j in range(i + 1):
                    s = 0.0
                    for l in range(j + 1):
                        s += J[i * k + l] * R[j * k + l]
                    K[i * k + j] = s
                    K[j * k + i] = s
            for a in range(k):
                for j in range(P):
                    for b in range(k):
                        s = 0.0
                        u = C + (a * P + j) * kP + b * P
                        for l in range(P):
                            s += u[l] * self.v[l]
                        Y[(a * P + j) * k + b] = s
            for a in range(k):
                for b in range(k):
                    s = 0.0
                    for j in range(P):
                        s += self.v[j] * Y[(a * P + j) * k + b]
                    E2[a * k + b] = s
            _sandwich(k, J, E2, S, tmp)
            for i in range(k):
                for j in range(k):
                    self.T[i * k + j] += count * K[i * k + j]
                    self.S[i * k + j] += S[i * k + j]
            if self.reml and p:
                for a in range(k):
                    for b in range(a + 1):
                        s = 0.0
                        for i in range(p):
                            u = C + (a * P + i) * kP + b * P
                            for l in range(p):
                                s += u[l] * self.XVX[i * p + l]
                        Q[a * k + b] = s
                for a in range(k):
                    for b in range(a):
                        Q[b * k + a] = Q[a * k + b]
                _sandwich(k, J, Q, E2, tmp)
                for i in range(k * k):
                    self.T[i] -= E2[i]
            if order >= 2:
                for i in range(k):
                    for j in range(i + 1):
                        s = K[i * k + j]
                        for a in range(k):
                            for b in range(a + 1):
                                self.F[tri(i, j) * k2 + tri(a, b)] += s * S[a * k + b]
                # H[a, j, r] += sum_{a', r'} J[a, a'] J[r, r'] Y[a', j, r']
                for a in range(k):
                    for j in range(p):
                        for b in range(k):
                            s = 0.0
                            for l in range(k):
                                s += J[a * k + l] * Y[(l * P + j) * k + b]
                            Z[b] = s
                        for b in range(k):
                            s = 0.0
                            for l in range(k):
                                s += J[b * k + l] * Z[l]
                            self.H[(a * p + j) * k + b] += s

    # ---------------------------------------------------------------- streamed levels
    cdef void _stream_first(self) noexcept nogil:
        cdef Py_ssize_t c, chunks = self.chunks, blocks = self.levels.blocks
        cdef int k = self.k[0], P = self.p + 1, i, j, at, nf = k * (k + 1) // 2 + k * P
        cdef int wide = self.levels.n_streamed >= THREADED
        cdef double* acc
        if wide:
            for c in prange(chunks, schedule="static"):
                _first_chunk(k, P, self.levels.data + c * CHUNK * nf * LANES, min(CHUNK, blocks - c * CHUNK),
                             self.lam, self.lanes_work + c * self.work_size, self.acc + c * self.acc_size)
        else:
            for c in range(chunks):
                _first_chunk(k, P, self.levels.data + c * CHUNK * nf * LANES, min(CHUNK, blocks - c * CHUNK),
                             self.lam, self.lanes_work + c * self.work_size, self.acc + c * self.acc_size)
        for c in range(chunks):
            acc = self.acc + c * self.acc_size
            self.logdet_L2 += acc[0]
            at = 1
            for i in range(P):
                for j in range(i, P):
                    self.ghat[i * P + j] += acc[at]
                    at += 1

    cdef void _stream_second(self, int order) noexcept nogil:
        cdef Py_ssize_t c, chunks = self.chunks, blocks = self.levels.blocks
        cdef int k = self.k[0], p = self.p, P = p + 1, k2 = k * (k + 1) // 2, i, j, nf = k2 + k * P
        cdef int wide = self.levels.n_streamed >= THREADED, sizes = 2 * k2
        cdef double* acc
        if order >= 2:
            sizes = 2 * k2 + k2 * k2 + k * p * k
        if wide:
            for c in prange(chunks, schedule="static"):
                _second_chunk(k, P, order, self.reml, self.levels.data + c * CHUNK * nf * LANES,
                              min(CHUNK, blocks - c * CHUNK), self.lam, self.v, self.RXinv,
                              self.lanes_work + c * self.work_size, self.acc + c * self.acc_size, sizes)
        else:
            for c in range(chunks):
                _second_chunk(k, P, order, self.reml, self.levels.data + c * CHUNK * nf * LANES,
                              min(CHUNK, blocks - c * CHUNK), self.lam, self.v, self.RXinv,
                              self.lanes_work + c * self.work_size, self.acc + c * self.acc_size, sizes)
        for c in range(chunks):
            acc = self.acc + c * self.acc_size
            for i in range(k):
                for j in range(i + 1):
                    self.T[i * k + j] += acc[tri(i, j)]
                    self.S[i * k + j] += acc[k2 + tri(i, j)]
                    if j < i:
                        self.T[j * k + i] += acc[tri(i, j)]
                        self.S[j * k + i] += acc[k2 + tri(i, j)]
            if order >= 2:
                acc += 2 * k2
                for i in range(k2 * k2):
                    self.F[i] += acc[i]
                acc += k2 * k2
                for i in range(k * p * k):
                    self.H[i] += acc[i]

    cdef void _directions(self) noexcept nogil:
        """wpw_ij = sum_l c'dS_i K dS_j c - h_i'(X'V^{-1}X)^{-1}h_j, h_i = sum_l X'V^{-1}Z dS_i c; wq = <S, dS>."""
        cdef int k = self.k[0], p = self.p, r = self.n_dir, k2 = k * (k + 1) // 2, i, j, a, b, q, t, l
        cdef double s, d
        cdef double* Y = self.small                   # (k, k)
        cdef double* h = Y + k * k                    # (p,)
        cdef double* z
        cdef const double* D
        for i in range(r):
            D = self.dS + i * self.kk
            memset(Y, 0, k * k * sizeof(double))
            for a in range(k):
                for q in range(k):
                    d = D[a * k + q]
                    if d == 0.0:
                        continue
                    for b in range(k):
                        z = self.F + (tri(a, b) if a >= b else tri(b, a)) * k2
                        for t in range(k):
                            Y[b * k + t] += d * z[tri(q, t) if q >= t else tri(t, q)]
            s = 0.0
            for j in range(k * k):
                s += D[j] * self.S[j]
            self.wq[i] = s
            for j in range(i, r):
                s = 0.0
                for t in range(k * k):
                    s += Y[t] * self.dS[j * self.kk + t]
                self.wpw[i * r + j] = s
        # X part, one column of RX^{-1} at a time
        for l in range(p):
            for i in range(r):
                D = self.dS + i * self.kk
                s = 0.0
                for t in range(l + 1):
                    d = self.RXinv[t * p + l]
                    if d == 0.0:
                        continue
                    for a in range(k):
                        for q in range(k):
                            s += d * D[a * k + q] * self.H[(a * p + t) * k + q]
                self.work[i] = s
            for i in range(r):
                for j in range(i, r):
                    self.wpw[i * r + j] -= self.work[i] * self.work[j]
        for i in range(r):
            for j in range(i):
                self.wpw[i * r + j] = self.wpw[j * r + i]

    # ---------------------------------------------------------------- Python level
    cdef _at(self, lam, int order):
        cdef double[::1] lv = np.ascontiguousarray(lam, dtype=np.float64).ravel()
        cdef int bad
        if lv.shape[0] != self.kk:
            raise ValueError(f"lam has {lv.shape[0]} values, expected {self.kk}")
        memcpy(self.lam, &lv[0], self.kk * sizeof(double))
        self.n_dir = 0
        with nogil:
            bad = self.components(order)
        if bad:
            raise FloatingPointError("the penalised cross-product matrix is not positive definite")

    def solution(self, lam, bint covariance=False):
        """beta (p,), (X'V^{-1}X)^{-1} (p, p), u (m, k), c = Z'Py (m, k) and, if asked for, lam D^{-1} lam' (m, k, k).

        u = lam'c are the spherical random effects, D = I + lam'Z'Z lam by level.
        """
        self._at(lam, 0)
        cdef int k = self.k[0], p = self.p, P = p + 1, i, j, a
        cdef Py_ssize_t m = self.levels.m, l
        cdef const double[:, :, ::1] A = self.levels.A
        cdef const double[:, :, ::1] B = self.levels.ZXy
        beta = np.empty(p)
        vcov = np.empty((p, p))
        u_ = np.empty((m, k))
        c_ = np.empty((m, k))
        cov_ = np.empty((m if covariance else 0, k, k))
        cdef double[::1] bv = beta
        cdef double[:, ::1] V = vcov
        cdef double[:, ::1] u = u_
        cdef double[:, ::1] c = c_
        cdef double[:, :, ::1] cov = cov_
        cdef double s
        cdef double* R = <double*>malloc((7 * k * k + k * P + 2 * k) * sizeof(double))
        cdef double* t = R + k * k
        cdef double* Ei = t + k * P
        cdef double* e = Ei + 3 * k * k
        cdef double* f = e + k
        for i in range(p):
            bv[i] = self.beta[i]
            for j in range(p):
                V[i, j] = self.XVX[i * p + j]
        with nogil:
            for l in range(m):
                _root(&A[l, 0, 0], &B[l, 0, 0], k, P, R, t)
                _inner(k, R, self.lam, Ei, Ei + k * k, Ei + 2 * k * k)
                for i in range(k):
                    s = 0.0
                    for j in range(P):
                        s += t[i * P + j] * self.v[j]
                    e[i] = s
                for i in range(k):
                    s = 0.0
                    for j in range(k):
                        s += Ei[i * k + j] * e[j]
                    f[i] = s
                for i in range(k):
                    s = 0.0
                    for j in range(i + 1):
                        s += R[i * k + j] * f[j]
                    c[l, i] = s
                for i in range(k):
                    s = 0.0
                    for j in range(k):
                        s += self.lam[j * k + i] * c[l, j]
                    u[l, i] = s
                if covariance:
                    _conditional(k, &A[l, 0, 0], self.lam, &cov[l, 0, 0], Ei)
        free(R)
        return beta, vcov, u_, c_, cov_

    def fixed_root(self, lam):
        """Upper triangular R with ``X'V^{-1}X = R'R``, shape (p, p)."""
        cdef int i, j, p = self.p
        self._at(lam, 0)
        root = np.zeros((p, p))
        cdef double[:, ::1] R = root
        for i in range(p):
            for j in range(i, p):
                R[i, j] = self.RX[i * p + j]
        return root

    def level_matrices(self, lam, Py_ssize_t start, Py_ssize_t stop):
        """K_l = Z_l'V^{-1}Z_l (stop - start, k, k) and Z_l'V^{-1}X (stop - start, k, p) for a range of levels."""
        cdef double[::1] lv = np.ascontiguousarray(lam, dtype=np.float64).ravel()
        cdef int k = self.k[0], p = self.p, P = p + 1, i, j, a
        cdef Py_ssize_t l
        cdef const double[:, :, ::1] A = self.levels.A
        cdef const double[:, :, ::1] B = self.levels.ZXy
        K_ = np.empty((stop - start, k, k))
        W_ = np.empty((stop - start, k, p))
        cdef double[:, :, ::1] K = K_
        cdef double[:, :, ::1] W = W_
        cdef double s
        cdef double* R = <double*>malloc((5 * k * k + k * P) * sizeof(double))
        cdef double* t = R + k * k
        cdef double* Ei = t + k * P
        cdef double* J = Ei + 3 * k * k
        with nogil:
            for l in range(start, stop):
                _root(&A[l, 0, 0], &B[l, 0, 0], k, P, R, t)
                _inner(k, R, &lv[0], Ei, Ei + k * k, Ei + 2 * k * k)
                for i in range(k):
                    for j in range(k):
                        s = 0.0
                        for a in range(i + 1):
                            s += R[i * k + a] * Ei[a * k + j]
                        J[i * k + j] = s
                for i in range(k):
                    for j in range(k):
                        s = 0.0
                        for a in range(j + 1):
                            s += J[i * k + a] * R[j * k + a]
                        K[l - start, i, j] = s
                    for j in range(p):
                        s = 0.0
                        for a in range(k):
                            s += J[i * k + a] * t[a * P + j]
                        W[l - start, i, j] = s
        free(R)
        return K_, W_

    cdef int _second(self, const double* lam, const double* D, int r, double* products, double* traces,
                     double* inside) noexcept nogil:
        """One pass over the levels after `components`; 1 out of memory.

        K is for ML or REML. With ``h = H R^{-1}``, R'R = X'V^{-1}X, the sums of K (x) K, K (x) hh' and h (x) h over
        the levels hold everything: products (r, r) and traces (r,) as in `second_products`, inside = h'D_ih (r, p, p).
        """
        cdef int k = self.k[0], p = self.p, P = p + 1, k2 = k * (k + 1) // 2, i, j, a, b, c, d, x, y
        cdef int project = self.reml and p > 0
        cdef Py_ssize_t l, m = self.levels.m, kp = k * p
        cdef double s, v
        cdef const double* A = self.levels.own_A
        cdef const double* B = self.levels.own_ZXy
        cdef double* KK = <double*>calloc(                # (k2, k2) lower: sum K (x) K - K (x) G - G (x) K
            2 * k2 * k2 + kp * kp + 11 * k * k + k * P + 2 * kp + 2 * k2 + r * k * k + 1, sizeof(double))
        if KK == NULL:
            return 1
        cdef double* WW = KK + k2 * k2                   # (kp, kp) lower
        cdef double* R = WW + kp * kp
        cdef double* t = R + k * k
        cdef double* Ei = t + k * P
        cdef double* J = Ei + 3 * k * k
        cdef double* total = J + k * k
        cdef double* h = total + k * k
        cdef double* w = h + kp
        cdef double* Kt = w + kp                         # K and hh', packed
        cdef double* Gt = Kt + k2
        cdef double* Y = Gt + k2                         # (r, k, k)
        for l in range(m):
            _root(A + l * k * k, B + l * k * P, k, P, R, t)
            _inner(k, R, lam, Ei, Ei + k * k, Ei + 2 * k * k)
            for i in range(k):
                for j in range(k):
                    s = 0.0
                    for a in range(i + 1):
                        s += R[i * k + a] * Ei[a * k + j]
                    J[i * k + j] = s
            for i in range(k):
                for j in range(i + 1):
                    s = 0.0
                    for a in range(j + 1):
                        s += J[i * k + a] * R[j * k + a]
                    Kt[tri(i, j)] = s
                for x in range(p):
                    s = 0.0
                    for a in range(k):
                        s += J[i * k + a] * t[a * P + x]
                    w[i * p + x] = s
                for x in range(p):
                    s = 0.0
                    for y in range(x + 1):
                        s += w[i * p + y] * self.RXinv[y * p + x]
                    h[i * p + x] = s
            if project:
                for i in range(k):
                    for j in range(i + 1):
                        s = 0.0
                        for x in range(p):
                            s += h[i * p + x] * h[j * p + x]
                        Gt[tri(i, j)] = s
                for i in range(k2):
                    for j in range(i + 1):
                        KK[i * k2 + j] += Kt[i] * Kt[j] - Kt[i] * Gt[j] - Gt[i] * Kt[j]
                    total[i] += Kt[i] - Gt[i]
            else:
                for i in range(k2):
                    for j in range(i + 1):
                        KK[i * k2 + j] += Kt[i] * Kt[j]
                    total[i] += Kt[i]
            for i in range(kp):
                v = h[i]
                for j in range(i + 1):
                    WW[i * kp + j] += v * h[j]
        for i in range(r):                           # Y_i[b, c] = sum K[a, b] K'[c, d] D_i[d, a]
            for a in range(k):
                for b in range(k):
                    x = tri(a, b) if a >= b else tri(b, a)
                    for d in range(k):
                        v = D[(i * k + d) * k + a]
                        if v == 0.0:
                            continue
                        for c in range(k):
                            y = tri(c, d) if c >= d else tri(d, c)
                            Y[(i * k + b) * k + c] += v * (KK[x * k2 + y] if x >= y else KK[y * k2 + x])
            s = 0.0
            for a in range(k):
                for b in range(k):
                    s += D[(i * k + a) * k + b] * total[tri(a, b) if a >= b else tri(b, a)]
            traces[i] = s
            for x in range(p):                       # h'D_ih
                for y in range(p):
                    s = 0.0
                    for a in range(k):
                        for b in range(k):
                            v = D[(i * k + a) * k + b]
                            if v != 0.0:
                                c = a * p + x
                                d = b * p + y
                                s += v * (WW[c * kp + d] if c >= d else WW[d * kp + c])
                    inside[(i * p + x) * p + y] = s
        for i in range(r):
            for j in range(r):
                s = 0.0
                for a in range(k * k):
                    s += Y[i * k * k + a] * D[j * k * k + a]
                if project:
                    for x in range(p):
                        for y in range(p):
                            s += inside[(i * p + x) * p + y] * inside[(j * p + y) * p + x]
                products[i * r + j] = s
        for i in range(r):
            for j in range(i):
                s = 0.5 * (products[i * r + j] + products[j * r + i])
                products[i * r + j] = s
                products[j * r + i] = s
        free(KK)
        return 0

    cdef int second(self, int exact, double* products, double* changes) noexcept nogil:
        """components(2), and products and changes as `Evaluator` says; 3 where BLAS does better."""
        cdef int k = self.k[0], p = self.p, r = self.n_dir, i, a, x, y, bad
        cdef double s
        if <double>self.levels.m * (k * max(p, k)) ** 2 > WIDE:
            return 3
        bad = self.components(2)
        if bad:
            return bad
        cdef double* traces = <double*>malloc((r + r * p * p + p * p + 1) * sizeof(double))
        if traces == NULL:
            return 1
        cdef double* inside = traces + r
        cdef double* half = inside + r * p * p
        bad = self._second(self.lam, self.dS, r, products, traces, inside)
        for i in range(r):                               # R^{-1} (h'D_ih) R^{-T}
            for x in range(p):
                for y in range(p):
                    s = 0.0
                    for a in range(y, p):
                        s += inside[(i * p + x) * p + a] * self.RXinv[y * p + a]
                    half[x * p + y] = s
            for x in range(p):
                for y in range(p):
                    s = 0.0
                    for a in range(x, p):
                        s += self.RXinv[x * p + a] * half[a * p + y]
                    changes[(i * p + x) * p + y] = s
        free(traces)
        return bad

    def second_products(self, lam, dS):
        """``tr(K D_i K D_j)`` (r, r), ``tr(K D_i)`` (r,) and ``H'D_iH`` (r, p, p), H = Z'V^{-1}X, in one pass."""
        self._at(lam, 0)
        cdef double[:, ::1] D = np.ascontiguousarray(dS, dtype=np.float64).reshape(-1, self.kk)
        cdef int p = self.p, r = D.shape[0], bad
        products_, traces_, inside = np.zeros((r, r)), np.zeros(r), np.zeros((r, p, p))
        cdef double[::1] products = products_.reshape(-1), traces = traces_, flat = inside.reshape(-1)
        if r == 0:
            return products_, traces_, inside
        with nogil:
            bad = self._second(self.lam, &D[0, 0], r, &products[0], &traces[0], &flat[0] if p else NULL)
        if bad:
            raise MemoryError("not enough memory for the trace products")
        root = np.zeros((p, p))
        cdef double[:, ::1] R = root
        cdef int i, j
        for i in range(p):
            for j in range(i, p):
                R[i, j] = self.RX[i * p + j]
        return products_, traces_, root.T @ inside @ root

    def trace_products(self, lam, dS):
        """``tr(K dS_i K dS_j)`` (r, r) and ``tr(K dS_i)`` (r,) for directions dS (r, kk), K for ML or REML.

        K_ML is block diagonal; for REML ``K = K_ML - W (X'V^{-1}X)^{-1} W'``, W = Z'V^{-1}X, so that three small
        tensors summed over the levels hold everything: sum K (x) K, sum K (x) W_l G W_l' and sum W_l (x) W_l.
        """
        self._at(lam, 0)
        cdef int k = self.k[0], p = self.p, i, j
        D = np.ascontiguousarray(dS, dtype=np.float64).reshape(-1, k, k)
        Rinv = np.empty((p, p))
        for i in range(p):
            for j in range(p):
                Rinv[i, j] = self.RXinv[i * p + j] if j >= i else 0.0
        KK = np.zeros((k * k, k * k))
        KW = np.zeros((k * k, k * k))
        WW = np.zeros((k * p, k * p))
        total = np.zeros(k * k)
        step = max(1, 2000000 // (k * (k + p)))
        for start in range(0, self.levels.m, step):
            stop = min(start + step, self.levels.m)
            K, W = self.level_matrices(lam, start, stop)
            flat = K.reshape(stop - start, k * k)
            KK += flat.T @ flat
            total += flat.sum(axis=0)
            if self.reml and p:
                H = W @ Rinv
                inner = (H @ H.transpose(0, 2, 1)).reshape(stop - start, k * k)
                KW += flat.T @ inner
                total -= inner.sum(axis=0)
                H = H.reshape(stop - start, k * p)
                WW += H.T @ H
        # sum_l tr(K_l D_i K'_l D_j) from sum K[a, b] K'[c, d]:  K_ab Di_bc K'_cd Dj_da
        flat = D.reshape(-1, k * k)
        products = flat @ KK.reshape(k, k, k, k).transpose(1, 2, 3, 0).reshape(k * k, k * k) @ flat.T
        if self.reml and p:
            cross = flat @ KW.reshape(k, k, k, k).transpose(1, 2, 3, 0).reshape(k * k, k * k) @ flat.T
            inside = np.einsum("axby,iab->ixy", WW.reshape(k, p, k, p), D)
            products = products - cross - cross.T + np.einsum("ixy,jyx->ij", inside, inside)
        return 0.5 * (products + products.T), D.reshape(-1, k * k) @ total


cdef void _conditional(int k, const double* A, const double* lam, double* out, double* w) noexcept nogil:
    """out = lam D^{-1} lam', D = I + lam'A lam, by Cholesky (no subtraction of near-equal matrices)."""
    cdef int i, j, l
    cdef double s
    cdef double* D = w
    cdef double* Y = w + k * k
    for i in range(k):
        for j in range(k):
            s = 0.0
            for l in range(j, k):
                s += A[i * k + l] * lam[l * k + j]
            Y[i * k + j] = s
    for i in range(k):
        for j in range(i + 1):
            s = 1.0 if i == j else 0.0
            for l in range(i, k):
                s += lam[l * k + i] * Y[l * k + j]
            D[i * k + j] = s
    for j in range(k):
        for i in range(j, k):
            s = D[i * k + j]
            for l in range(j):
                s -= D[i * k + l] * D[j * k + l]
            if i == j:
                D[i * k + j] = sqrt(s) if not s < 1.0 else 1.0
            else:
                D[i * k + j] = s / D[j * k + j]
    for j in range(k):                            # Y = L^{-1} lam'
        for i in range(k):
            s = lam[j * k + i]
            for l in range(i):
                s -= D[i * k + l] * Y[l * k + j]
            Y[i * k + j] = s / D[i * k + i]
    for i in range(k):
        for j in range(k):
            s = 0.0
            for l in range(k):
                s += Y[l * k + i] * Y[l * k + j]
            out[i * k + j] = s
