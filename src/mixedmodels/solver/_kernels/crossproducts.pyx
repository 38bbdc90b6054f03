# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Passes over the rows: internal coordinates of X, y and Z, cross-products by level, cell tables.

Everything here is streaming: a row is read, shifted, scaled and added. Sums are taken in row order by one
thread per level, so that results do not depend on the number of threads.
"""

cimport cython
from libc.math cimport HUGE_VAL, fabs, log, sqrt
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

cdef enum:
    BLOCK = 256          # rows worked on at a time: a few columns of them stay in the first cache

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define MM_PREFETCH(p) __builtin_prefetch((p), 1, 1)
    #else
    #define MM_PREFETCH(p) ((void)0)
    #endif
    """
    void MM_PREFETCH(const void*) noexcept nogil


# ------------------------------------------------------------------------------------------------
# fixed effects and response
# ------------------------------------------------------------------------------------------------
cdef int _constant_column(const double* x, Py_ssize_t n, Py_ssize_t p, Py_ssize_t sr, Py_ssize_t sc) noexcept nogil:
    """Index of the first column that is constant and not zero, or -1."""
    cdef Py_ssize_t i, j
    cdef double v
    for j in range(p):
        v = x[j * sc]
        if v == 0.0 or v != v:
            continue
        i = 1
        while i < n and x[i * sr + j * sc] == v:
            i += 1
        if i >= n:
            return <int>j
    return -1


def constant_column(const double[:, :] X):
    """Index of the first constant non-zero column of X, shape (n, p), or -1."""
    cdef Py_ssize_t n = X.shape[0], p = X.shape[1]
    if n == 0 or p == 0:
        return -1
    return _constant_column(&X[0, 0], n, p, X.strides[0] // 8, X.strides[1] // 8)


cdef double _upper_inverse_factor(const double* G, int p, int ld, double n, double* D, double* ratio,
                                  bint repeated) noexcept nogil:
    """D = sqrt(n) R^{-1}, upper triangular, for G = R'R; returns the smallest pivot relative to its column.

    A pivot lost in rounding is replaced by a small one: D stays invertible and a further pass over the
    rows (`repeated`: Gram matrix of the transformed columns, n I but for rounding) repairs what is missing.
    ratio[j] is multiplied by the relative pivots: over several passes, how much of column j is its own.
    """
    cdef int i, j, l
    cdef double s, d, worst = 1.0, rn = sqrt(n)
    cdef double* R = <double*>malloc(p * p * sizeof(double))
    for j in range(p):
        for i in range(j + 1):
            s = G[i * ld + j]
            for l in range(i):
                s -= R[l * p + i] * R[l * p + j]
            if i < j:
                R[i * p + j] = s / R[i * p + i]
            else:
                d = G[j * ld + j]
                if not d > 0.0:
                    ratio[j] = 0.0
                    worst = 0.0
                    R[j * p + j] = 1.0
                    continue
                if s < 1e-14 * d:
                    s = 1e-14 * d
                if s / d < worst:
                    worst = s / d
                ratio[j] *= s / (n if repeated else d)
                R[j * p + j] = sqrt(s)
    for j in range(p):
        for i in range(p):
            D[i * p + j] = 0.0
        D[j * p + j] = rn / R[j * p + j]
        for i in range(j - 1, -1, -1):
            s = 0.0
            for l in range(i + 1, j + 1):
                s += R[i * p + l] * D[l * p + j]
            D[i * p + j] = -s / R[i * p + i]
    free(R)
    return worst


cdef void _right_multiply(double* T, const double* D, int p) noexcept nogil:
    """T <- T D for upper triangular D, in place."""
    cdef int i, j, l
    cdef double s
    for i in range(p):
        for j in range(p - 1, -1, -1):
            s = 0.0
            for l in range(j + 1):
                s += T[i * p + l] * D[l * p + j]
            T[i * p + j] = s


cdef double _means(const double* y, Py_ssize_t sy, const double* x, Py_ssize_t sr, Py_ssize_t sc,
                   const double* off, Py_ssize_t so, const double* sw,
                   Py_ssize_t n, int p, double* mu, double* rms) noexcept nogil:
    cdef Py_ssize_t i, lo, hi
    cdef int j
    cdef double w, v, total = 0.0, yy = 0.0, s
    for j in range(p + 1):
        mu[j] = 0.0
    if sw == NULL:
        total = <double>n
        lo = 0
        while lo < n:                       # block by block: columns stay in cache, sums stay short
            hi = lo + 1024 if lo + 1024 < n else n
            for j in range(p):
                s = 0.0
                for i in range(lo, hi):
                    s += x[i * sr + j * sc]
                mu[j] += s
            s = 0.0
            for i in range(lo, hi):
                v = y[i * sy]
                if off != NULL:
                    v -= off[i * so]
                s += v
                yy += v * v
            mu[p] += s
            lo = hi
    else:
        for i in range(n):
            w = sw[i] * sw[i]
            total += w
            for j in range(p):
                mu[j] += w * x[i * sr + j * sc]
            v = y[i * sy]
            if off != NULL:
                v -= off[i * so]
            mu[p] += w * v
            yy += w * v * v
    for j in range(p + 1):
        mu[j] /= total
    rms[0] = sqrt(yy / n)
    return total


cdef struct Rows:
    const double* y
    Py_ssize_t sy
    const double* x
    Py_ssize_t sr
    Py_ssize_t sc
    const double* off
    Py_ssize_t so
    const double* sw


cdef inline void _load(const Rows* rows, Py_ssize_t lo, Py_ssize_t nb, int p, const double* mu, double* buf) noexcept nogil:
    """buf (p + 1, BLOCK), column-major block of sqrt(w) [x - mu, y - offset - mu_y]."""
    cdef Py_ssize_t i
    cdef int j
    cdef double m
    cdef const double* src
    cdef double* b
    for j in range(p):
        src = rows.x + lo * rows.sr + j * rows.sc
        b = buf + j * BLOCK
        m = mu[j]
        if rows.sr == 1:
            for i in range(nb):
                b[i] = src[i] - m
        else:
            for i in range(nb):
                b[i] = src[i * rows.sr] - m
    src = rows.y + lo * rows.sy
    b = buf + p * BLOCK
    m = mu[p]
    if rows.off != NULL:
        for i in range(nb):
            b[i] = (src[i * rows.sy] - rows.off[(lo + i) * rows.so]) - m
    else:
        for i in range(nb):
            b[i] = src[i * rows.sy] - m
    if rows.sw != NULL:
        for j in range(p + 1):
            b = buf + j * BLOCK
            for i in range(nb):
                b[i] *= rows.sw[lo + i]


cdef inline double _dot(const double* a, const double* b, Py_ssize_t n) noexcept nogil:
    cdef double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0
    cdef Py_ssize_t i = 0
    while i + 4 <= n:
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
        i += 4
    while i < n:
        s0 += a[i] * b[i]
        i += 1
    return (s0 + s1) + (s2 + s3)



cdef void _gram(const double* buf, Py_ssize_t nb, int p, double* G) noexcept nogil:
    """G (p x p, upper) += block' block for a column-major block."""
    cdef int j, l
    for j in range(p):
        for l in range(j, p):
            G[j * p + l] += _dot(buf + j * BLOCK, buf + l * BLOCK, nb)


@cython.final
cdef class FixedPart:
    """The rows of X, y, offset and sqrt-weights, read in shifted blocks.

    Steps, in order: `shift`, then either `orthonormalise` (few columns) or `pack` with BLAS in between (many),
    then `project`.
    """
    cdef Rows rows
    cdef readonly Py_ssize_t n
    cdef readonly int p, constant
    cdef readonly double rms, constant_value
    cdef readonly object mu
    cdef object _keep

    def __init__(self, const double[:] y, const double[:, :] X, offset, sw):
        cdef const double[:] off
        cdef const double[::1] s
        cdef double[::1] mu
        cdef Rows* rows = &self.rows
        cdef int j
        cdef double rms = 0.0
        self.n = y.shape[0]
        self.p = <int>X.shape[1]
        self._keep = (y, X, offset, sw)
        rows.y = &y[0]
        rows.sy = y.strides[0] // 8
        rows.x = &X[0, 0] if self.p else NULL
        rows.sr = X.strides[0] // 8
        rows.sc = X.strides[1] // 8
        rows.off = NULL
        rows.so = 0
        rows.sw = NULL
        if offset is not None:
            off = offset
            rows.off = &off[0]
            rows.so = off.strides[0] // 8
        if sw is not None:
            s = sw
            rows.sw = &s[0]
        self.mu = np.zeros(self.p + 1)
        mu = self.mu
        with nogil:
            self.constant = _constant_column(rows.x, self.n, self.p, rows.sr, rows.sc) if self.p else -1
            _means(rows.y, rows.sy, rows.x, rows.sr, rows.sc, rows.off, rows.so, rows.sw, self.n, self.p,
                   &mu[0], &rms)
        self.rms = rms
        self.constant_value = 0.0
        if self.constant >= 0:
            self.constant_value = rows.x[self.constant * rows.sc]
            mu[self.constant] = 0.0
        else:                                # no constant to shift by
            for j in range(self.p + 1):
                mu[j] = 0.0

    def pack(self, Py_ssize_t start, double[:, ::1] X, double[::1] y):
        """X, y = sqrt(w) [x - mu], sqrt(w) (y - offset - mu_y) for rows start, start + 1, ..."""
        cdef Py_ssize_t lo = 0, nb, i, n = y.shape[0]
        cdef int j, p = self.p
        cdef double[::1] mu = self.mu
        cdef double* buf = <double*>malloc((p + 1) * BLOCK * sizeof(double))
        with nogil:
            while lo < n:
                nb = n - lo if n - lo < BLOCK else BLOCK
                _load(&self.rows, start + lo, nb, p, &mu[0], buf)
                for i in range(nb):
                    for j in range(p):
                        X[lo + i, j] = buf[j * BLOCK + i]
                memcpy(&y[lo], buf + p * BLOCK, nb * sizeof(double))
                lo += nb
        free(buf)

    def orthonormalise(self, double[:, ::1] Xt, double[::1] yt, double[:, ::1] T, double[::1] own):
        """Few columns: X~ = sqrt(w) (X - mu) T with (1/n) X~'X~ = I, and yt = the shifted response.

        Cholesky of the Gram matrix, repeated on the result when it was badly conditioned. own[j] is the share
        of column j that the earlier columns do not explain. Returns log|T|.
        """
        cdef int p = self.p, j, l, it = 0
        cdef Py_ssize_t i, lo, nb, n = self.n
        cdef double s, worst, logdet = 0.0, dn = <double>n
        cdef double[::1] mu = self.mu
        cdef double* buf = <double*>malloc(((2 * p + 1) * BLOCK + 2 * p * p + p) * sizeof(double))
        cdef double* tb = buf + (p + 1) * BLOCK
        cdef double* G = tb + p * BLOCK
        cdef double* D = G + p * p
        cdef double* row = D + p * p
        cdef double* x
        cdef double* Tp = &T[0, 0]
        cdef double* Xp = &Xt[0, 0]
        cdef double* op = &own[0]
        with nogil:
            memset(G, 0, p * p * sizeof(double))
            lo = 0
            while lo < n:
                nb = n - lo if n - lo < BLOCK else BLOCK
                _load(&self.rows, lo, nb, p, &mu[0], buf)
                _gram(buf, nb, p, G)
                lo += nb
            for j in range(p):
                op[j] = 1.0
            worst = _upper_inverse_factor(G, p, p, dn, D, op, False)
            memcpy(Tp, D, p * p * sizeof(double))
            for j in range(p):
                logdet += log(fabs(D[j * p + j]))
            memset(G, 0, p * p * sizeof(double))
            lo = 0
            while lo < n:
                nb = n - lo if n - lo < BLOCK else BLOCK
                _load(&self.rows, lo, nb, p, &mu[0], buf)
                for j in range(p):
                    for i in range(nb):
                        tb[j * BLOCK + i] = buf[i] * D[j]
                    for l in range(1, j + 1):
                        s = D[l * p + j]
                        if s != 0.0:
                            for i in range(nb):
                                tb[j * BLOCK + i] += buf[l * BLOCK + i] * s
                memcpy(&yt[lo], buf + p * BLOCK, nb * sizeof(double))
                if p == 1:
                    memcpy(Xp + lo, tb, nb * sizeof(double))
                elif p == 2:
                    for i in range(nb):
                        Xp[2 * (lo + i)] = tb[i]
                        Xp[2 * (lo + i) + 1] = tb[BLOCK + i]
                else:
                    for i in range(nb):
                        for j in range(p):
                            Xp[(lo + i) * p + j] = tb[j * BLOCK + i]
                if worst < 1e-6:
                    _gram(tb, nb, p, G)
                lo += nb
            while worst < 1e-6 and it < 5:
                it += 1
                worst = _upper_inverse_factor(G, p, p, dn, D, op, True)
                _right_multiply(Tp, D, p)
                for j in range(p):
                    logdet += log(fabs(D[j * p + j]))
                memset(G, 0, p * p * sizeof(double))
                for i in range(n):
                    x = Xp + i * p
                    for j in range(p - 1, -1, -1):
                        s = 0.0
                        for l in range(j + 1):
                            s += x[l] * D[l * p + j]
                        x[j] = s
                    for j in range(p):
                        for l in range(j, p):
                            G[j * p + l] += x[j] * x[l]
        free(buf)
        return logdet

    def project(self, double[:, ::1] Xt, double[::1] yt, double[:, ::1] T, double[::1] beta0, double floor):
        """The last step: yt becomes its residual on Xt, scaled to mean square 1; returns the scale s.

        On entry ``Xt = sqrt(w) (X - mu) T``; on return T and beta0 belong to X itself:
        ``Xt = sqrt(w) X T`` and ``y - offset = X beta0 + s yt / sqrt(w)``.
        """
        cdef int p = self.p, c = self.constant, i, j
        cdef double[::1] mu = self.mu
        cdef double scale, x
        cdef double* t = NULL
        cdef double* b = NULL
        cdef double* work
        if p:
            t = &T[0, 0]
            b = &beta0[0]
        with nogil:
            scale = _project(&Xt[0, 0] if p else NULL, &yt[0], self.n, p, b, floor)
            if c >= 0:                           # T <- (shift by the constant column) T
                for j in range(p):
                    x = t[c * p + j]
                    for i in range(p):
                        if i != c:
                            x -= mu[i] / self.constant_value * t[i * p + j]
                    t[c * p + j] = x
            if p:                                # beta0 <- T beta0
                work = <double*>malloc(p * sizeof(double))
                memcpy(work, b, p * sizeof(double))
                for i in range(p):
                    x = 0.0
                    for j in range(p):
                        x += t[i * p + j] * work[j]
                    b[i] = x
                free(work)
            if c >= 0:
                b[c] += mu[p] / self.constant_value
        return scale


def upper_inverse_factor(double[:, ::1] G, double n, double[:, ::1] D, double[::1] own, bint repeated):
    """D = sqrt(n) R^{-1} for G = R'R (upper triangle read); see `FixedPart.orthonormalise`."""
    cdef int p = <int>G.shape[0]
    return _upper_inverse_factor(&G[0, 0], p, p, n, &D[0, 0], &own[0], repeated)


cdef double _project(double* base, double* yp, Py_ssize_t n, int p, double* bp, double floor) noexcept nogil:
    """Replace y by its residual on the orthonormal columns X, scaled to mean square 1; returns the scale.

    b (p,) receives the coefficients: y_old = X b + scale y_new. The projection is done twice, so that the size
    of y does not matter. A residual of root mean square at most `floor` is rounding: y becomes 0, scale 1.
    """
    cdef Py_ssize_t i
    cdef int j
    cdef double s, v, rr = 0.0, dn = <double>n, scale
    cdef double* x
    cdef double* g = <double*>malloc((p + 1) * sizeof(double))
    if p == 2:
        _project2(base, yp, n, bp, g, &rr)
    else:
        for j in range(p):
            g[j] = 0.0
            bp[j] = 0.0
        for i in range(n):
            x = base + i * p
            v = yp[i]
            for j in range(p):
                bp[j] += x[j] * v
        for j in range(p):
            bp[j] /= dn
        for i in range(n):
            x = base + i * p
            s = 0.0
            for j in range(p):
                s += x[j] * bp[j]
            v = yp[i] - s
            yp[i] = v
            for j in range(p):
                g[j] += x[j] * v
        for j in range(p):
            g[j] /= dn
            bp[j] += g[j]
        for i in range(n):
            x = base + i * p
            s = 0.0
            for j in range(p):
                s += x[j] * g[j]
            v = yp[i] - s
            yp[i] = v
            rr += v * v
    scale = sqrt(rr / dn)
    if scale > floor:
        s = 1.0 / scale
        for i in range(n):
            yp[i] *= s
    else:
        scale = 1.0
        memset(yp, 0, n * sizeof(double))
    free(g)
    return scale


cdef void _project2(const double* x, double* y, Py_ssize_t n, double* b, double* g, double* rr) noexcept nogil:
    """The three passes of `project` for two columns."""
    cdef Py_ssize_t i
    cdef double s0 = 0.0, s1 = 0.0, v, b0, b1, q = 0.0
    for i in range(n):
        s0 += x[2 * i] * y[i]
        s1 += x[2 * i + 1] * y[i]
    b0 = s0 / n
    b1 = s1 / n
    s0 = 0.0
    s1 = 0.0
    for i in range(n):
        v = y[i] - (x[2 * i] * b0 + x[2 * i + 1] * b1)
        y[i] = v
        s0 += x[2 * i] * v
        s1 += x[2 * i + 1] * v
    g[0] = s0 / n
    g[1] = s1 / n
    b[0] = b0 + g[0]
    b[1] = b1 + g[1]
    b0 = g[0]
    b1 = g[1]
    for i in range(n):
        v = y[i] - (x[2 * i] * b0 + x[2 * i + 1] * b1)
        y[i] = v
        q += v * v
    rr[0] = q


# ------------------------------------------------------------------------------------------------
# random-effects columns
# ------------------------------------------------------------------------------------------------
cdef double _column_stats(const double* z, Py_ssize_t sr, Py_ssize_t sc, const double* sw, Py_ssize_t n, int k,
                          int c, double* mu, double* G) noexcept nogil:
    """Weighted means mu (0 for the constant column c) and mean cross-products G (k x k) of the shifted columns."""
    cdef Py_ssize_t i
    cdef int j, l
    cdef double w, total = 0.0, a, s00 = 0.0, s01 = 0.0, s11 = 0.0, m0, m1
    for j in range(k):
        mu[j] = 0.0
    memset(G, 0, k * k * sizeof(double))
    if c >= 0:
        if sw == NULL:
            for j in range(k):
                if j != c:
                    a = 0.0
                    for i in range(n):
                        a += z[i * sr + j * sc]
                    mu[j] = a / n
        else:
            for i in range(n):
                w = sw[i] * sw[i]
                total += w
                for j in range(k):
                    mu[j] += w * z[i * sr + j * sc]
            for j in range(k):
                mu[j] = mu[j] / total if j != c else 0.0
    if k == 2:
        m0 = mu[0]
        m1 = mu[1]
        for i in range(n):
            a = z[i * sr] - m0
            w = z[i * sr + sc] - m1
            if sw != NULL:
                a *= sw[i]
                w *= sw[i]
            s00 += a * a
            s01 += a * w
            s11 += w * w
        G[0] = s00
        G[1] = s01
        G[3] = s11
    else:
        for i in range(n):
            w = 1.0 if sw == NULL else sw[i] * sw[i]
            for j in range(k):
                a = w * (z[i * sr + j * sc] - mu[j])
                for l in range(j, k):
                    G[j * k + l] += a * (z[i * sr + l * sc] - mu[l])
    for j in range(k):
        for l in range(j, k):
            G[j * k + l] /= n
            G[l * k + j] = G[j * k + l]
    return total


def lower_transform(const double[:, :] Z, sw, double[::1] mu, double[:, ::1] D, double[:, ::1] T):
    """Lower-triangular T making the columns of Z T orthonormal in the mean, computed without cancellation.

    With Z = Z_c N_0 (columns shifted by the constant column) and Z_c = Q R, the matrix N = R N_0 has the QL
    factorisation N = Q' L; T = L^{-1}, and Z T = (Z - mu) D with the well-conditioned D = R^{-1} Q'. Fills mu
    (k,), D (k, k) and T (k, k); returns the smallest relative pivot (0 if columns depend on each other or overflow).
    """
    cdef Py_ssize_t n = Z.shape[0], i, j, l, r
    cdef int k = <int>Z.shape[1], c, it
    cdef const double[::1] s
    cdef const double* wp = NULL
    cdef double worst, a, own = 1.0
    if sw is not None:
        s = sw
        wp = &s[0]
    cdef double* G = <double*>malloc((5 * k * k + k) * sizeof(double))
    cdef double* R = G + k * k
    cdef double* N = R + k * k
    cdef double* Q = N + k * k
    cdef double* L = Q + k * k
    cdef double* ratio = L + k * k
    with nogil:
        c = _constant_column(&Z[0, 0], n, k, Z.strides[0] // 8, Z.strides[1] // 8)
        _column_stats(&Z[0, 0], Z.strides[0] // 8, Z.strides[1] // 8, wp, n, k, c, &mu[0], G)
        for j in range(k):
            ratio[j] = 1.0
        worst = _upper_inverse_factor(G, k, k, 1.0, &D[0, 0], ratio, False)      # D = R^{-1}
        # R by inverting the upper triangle, then N = R N_0
        for j in range(k):
            for i in range(k):
                R[i * k + j] = 0.0
            R[j * k + j] = 1.0 / D[j, j]
            for i in range(j - 1, -1, -1):
                a = 0.0
                for l in range(i + 1, j + 1):
                    a += D[i, l] * R[l * k + j]
                R[i * k + j] = -a / D[i, i]
        for i in range(k):
            for j in range(k):
                N[i * k + j] = R[i * k + j]
                if c >= 0 and j != c:
                    N[i * k + j] += R[i * k + c] * mu[j] / Z[0, c]
        # QL by Gram-Schmidt from the last column, each orthogonalised twice
        for j in range(k * k):
            L[j] = 0.0
        for j in range(k - 1, -1, -1):
            for i in range(k):
                Q[i * k + j] = N[i * k + j]
            for it in range(2):
                for l in range(k - 1, j, -1):
                    a = 0.0
                    for i in range(k):
                        a += Q[i * k + l] * Q[i * k + j]
                    for i in range(k):
                        Q[i * k + j] -= a * Q[i * k + l]
                    L[l * k + j] += a
            a = 0.0
            for i in range(k):
                a += Q[i * k + j] * Q[i * k + j]
            a = sqrt(a)
            L[j * k + j] = a
            if a > 0.0:
                for i in range(k):
                    Q[i * k + j] /= a
            else:
                worst = 0.0
                L[j * k + j] = 1.0
        # T = L^{-1};  D = R^{-1} Q
        for j in range(k):
            for i in range(k):
                T[i, j] = 0.0
            T[j, j] = 1.0 / L[j * k + j]
            for i in range(j + 1, k):
                a = 0.0
                for l in range(j, i):
                    a += L[i * k + l] * T[l, j]
                T[i, j] = -a / L[i * k + i]
        for i in range(k):
            for j in range(k):
                a = 0.0
                for l in range(i, k):
                    a += D[i, l] * Q[l * k + j]
                N[i * k + j] = a
        for i in range(k):
            for j in range(k):
                D[i, j] = N[i * k + j]
                if not fabs(T[i, j]) < HUGE_VAL:             # overflow, or not a number
                    worst = 0.0
    free(G)
    return worst


def mean_cross_products(const double[:, :] Z, sw):
    """(1/n) Z'WZ, shape (k, k), and the index of the constant column or None."""
    cdef Py_ssize_t n = Z.shape[0]
    cdef int k = <int>Z.shape[1], c
    cdef const double[::1] s
    cdef const double* wp = NULL
    cdef double[:, ::1] G
    cdef double[::1] mu
    if sw is not None:
        s = sw
        wp = &s[0]
    gram = np.empty((k, k))
    means = np.empty(k)
    G = gram
    mu = means
    with nogil:
        c = _constant_column(&Z[0, 0], n, k, Z.strides[0] // 8, Z.strides[1] // 8)
        _column_stats(&Z[0, 0], Z.strides[0] // 8, Z.strides[1] // 8, wp, n, k, -1, &mu[0], &G[0, 0])
    return gram, (c if c >= 0 else None)


# ------------------------------------------------------------------------------------------------
# cross-products by level
# ------------------------------------------------------------------------------------------------
cdef struct Column:
    # z~_j = sw * sum_l (z_l - mu_l) D[l, j] for the k columns of one term; z NULL: a column of ones
    const double* z
    Py_ssize_t sr
    Py_ssize_t sc
    const double* mu
    const double* D          # k x k, NULL: identity
    int k


@cython.final
cdef class TermRows:
    """The columns of the terms of one factor, transformed row by row as they are read."""
    cdef Column* terms
    cdef int n_terms
    cdef readonly int k
    cdef const double* sw
    cdef readonly bint ones          # a single column of ones, nothing to read
    cdef object _keep

    def __cinit__(self, columns, sw):
        """columns: list of (Z or None, mu or None, D or None)."""
        cdef const double[:, :] Z
        cdef const double[::1] mu, s
        cdef const double[:, ::1] D
        cdef int t
        self.n_terms = len(columns)
        self.terms = <Column*>malloc(self.n_terms * sizeof(Column))
        self._keep = (columns, sw)
        self.sw = NULL
        if sw is not None:
            s = sw
            self.sw = &s[0]
        self.k = 0
        for t in range(self.n_terms):
            z, m, d = columns[t]
            self.terms[t].z = NULL
            self.terms[t].mu = NULL
            self.terms[t].D = NULL
            self.terms[t].k = 1
            if z is not None:
                Z = z
                self.terms[t].z = &Z[0, 0]
                self.terms[t].sr = Z.strides[0] // 8
                self.terms[t].sc = Z.strides[1] // 8
                self.terms[t].k = <int>Z.shape[1]
            if m is not None:
                mu = m
                self.terms[t].mu = &mu[0]
            if d is not None:
                D = d
                self.terms[t].D = &D[0, 0]
            self.k += self.terms[t].k
        self.ones = self.n_terms == 1 and self.terms[0].z == NULL and self.terms[0].D == NULL and self.sw == NULL

    def __dealloc__(self):
        free(self.terms)

    cdef inline void row(self, Py_ssize_t i, double* out) noexcept nogil:
        """out (k,) = the transformed row i."""
        cdef int t, j, l, k
        cdef double v, s
        cdef const Column* c
        cdef const double* z
        for t in range(self.n_terms):
            c = self.terms + t
            k = c.k
            if c.z == NULL:
                out[0] = 1.0 if c.D == NULL else c.D[0]
            else:
                z = c.z + i * c.sr
                if c.D == NULL:
                    for j in range(k):
                        out[j] = z[j * c.sc]
                elif k == 1:
                    out[0] = z[0] * c.D[0]
                elif k == 2:
                    v = z[0]
                    s = z[c.sc]
                    if c.mu != NULL:
                        v -= c.mu[0]
                        s -= c.mu[1]
                    out[0] = v * c.D[0] + s * c.D[2]
                    out[1] = v * c.D[1] + s * c.D[3]
                else:
                    for j in range(k):
                        out[j] = 0.0
                    for l in range(k):
                        v = z[l * c.sc]
                        if c.mu != NULL:
                            v -= c.mu[l]
                        for j in range(k):
                            out[j] += v * c.D[l * k + j]
            if self.sw != NULL:
                s = self.sw[i]
                for j in range(k):
                    out[j] *= s
            out += k


cdef inline void _add_level(double* A, double* B, const double* z, const double* xy, int k, int P) noexcept nogil:
    """Upper triangle of A += z z', B += z xy'."""
    cdef int a, b
    cdef double v
    for a in range(k):
        v = z[a]
        for b in range(a, k):
            A[a * k + b] += v * z[b]
        for b in range(P):
            B[a * P + b] += v * xy[b]


cdef void _accumulate(TermRows rows, const int* c, Py_ssize_t n, const double* x, const double* y, int p, bint far,
                      double* A, double* B) noexcept nogil:
    """Add all rows to A (upper triangles) and B; `far`: the accumulators do not fit in the first cache."""
    cdef Py_ssize_t i, l, ahead = 24
    cdef int k = rows.k, P = p + 1, b, k2 = k * k, kP = k * P
    cdef double* z = <double*>malloc((k + P) * sizeof(double))
    cdef double* xy = z + k
    cdef double* Al
    cdef double* Bl
    cdef double z0, z1, x0, x1, v
    for i in range(n):
        if far and i + ahead < n:
            l = c[i + ahead]
            Bl = B + l * kP
            MM_PREFETCH(Bl)
            MM_PREFETCH(Bl + kP - 1)
            MM_PREFETCH(A + l * k2)
        l = c[i]
        Al = A + l * k2
        Bl = B + l * kP
        if rows.ones:
            Al[0] += 1.0
            for b in range(p):
                Bl[b] += x[i * p + b]
            Bl[p] += y[i]
        elif k == 2 and p == 2:
            rows.row(i, z)
            z0 = z[0]
            z1 = z[1]
            x0 = x[2 * i]
            x1 = x[2 * i + 1]
            v = y[i]
            Al[0] += z0 * z0
            Al[1] += z0 * z1
            Al[3] += z1 * z1
            Bl[0] += z0 * x0
            Bl[1] += z0 * x1
            Bl[2] += z0 * v
            Bl[3] += z1 * x0
            Bl[4] += z1 * x1
            Bl[5] += z1 * v
        else:
            rows.row(i, z)
            for b in range(p):
                xy[b] = x[i * p + b]
            xy[p] = y[i]
            _add_level(Al, Bl, z, xy, k, P)
    free(z)


def level_products(TermRows rows, const int[::1] codes, Py_ssize_t m, const double[:, ::1] X, const double[::1] y):
    """Z'Z and Z'[X y] by level: A (m, k, k) and B (m, k, p + 1).

    One pass in row order; the accumulators of rows ahead are fetched early, so that unsorted codes cost no more
    than sorted ones. The pass is bound by memory: threads would gain little.
    """
    cdef Py_ssize_t n = codes.shape[0], l
    cdef int k = rows.k, p = <int>X.shape[1], P = p + 1, a, b, k2 = k * k, kP = k * P
    out_A = np.zeros((m, k, k))
    out_B = np.zeros((m, k, P))
    if n == 0 or m == 0:
        return out_A, out_B
    cdef double[:, :, ::1] Av = out_A
    cdef double[:, :, ::1] Bv = out_B
    cdef double* A = &Av[0, 0, 0]
    cdef double* B = &Bv[0, 0, 0]
    cdef const double* x = &X[0, 0] if p else NULL
    cdef const double* yp = &y[0]
    cdef const int* c = &codes[0]
    cdef double* Al
    cdef bint far = m * (k2 + kP) > 4096          # the accumulators leave the first cache
    with nogil:
        _accumulate(rows, c, n, x, yp, p, far, A, B)
        if k > 1:
            for l in range(m):
                Al = A + l * k2
                for a in range(k):
                    for b in range(a):
                        Al[a * k + b] = Al[b * k + a]
    return out_A, out_B


def gram_xy(const double[:, ::1] X, const double[::1] y):
    """[X y]'[X y], shape (p + 1, p + 1), as sums of sums over blocks: rounding does not grow with n."""
    cdef Py_ssize_t n = y.shape[0], i, lo, hi
    cdef int p = <int>X.shape[1], P = p + 1, a, b
    out = np.zeros((P, P))
    part_ = np.zeros((P, P))
    cdef double[:, ::1] G = out
    cdef double[:, ::1] part = part_
    cdef const double* x
    cdef const double* base = &X[0, 0] if p else NULL
    cdef double v, s0, s1, s2, s3, s4, s5
    with nogil:
        lo = 0
        while lo < n:
            hi = lo + 1024 if lo + 1024 < n else n
            if p == 2:
                s0 = s1 = s2 = s3 = s4 = s5 = 0.0
                for i in range(lo, hi):
                    x = base + 2 * i
                    v = y[i]
                    s0 += x[0] * x[0]
                    s1 += x[0] * x[1]
                    s2 += x[1] * x[1]
                    s3 += x[0] * v
                    s4 += x[1] * v
                    s5 += v * v
                G[0, 0] += s0
                G[0, 1] += s1
                G[1, 1] += s2
                G[0, 2] += s3
                G[1, 2] += s4
                G[2, 2] += s5
            else:
                for i in range(lo, hi):
                    x = base + i * p
                    for a in range(p):
                        v = x[a]
                        for b in range(a, p):
                            part[a, b] += v * x[b]
                        part[a, p] += v * y[i]
                    part[p, p] += y[i] * y[i]
                for a in range(P):
                    for b in range(a, P):
                        G[a, b] += part[a, b]
                        part[a, b] = 0.0
            lo = hi
        for a in range(P):
            for b in range(a):
                G[a, b] = G[b, a]
    return out


def level_sums(const double[:, :, ::1] A, const double[:, :, ::1] ZXy):
    """Sums over levels and columns, W = diag A and S = Z'y: of W, W^2, S and S^2 / W (where W > 0)."""
    cdef Py_ssize_t m = A.shape[0], l
    cdef int k = <int>A.shape[1], P = <int>ZXy.shape[2], j
    cdef double w, s, total = 0.0, squares = 0.0, sums = 0.0, explained = 0.0
    with nogil:
        for l in range(m):
            for j in range(k):
                w = A[l, j, j]
                s = ZXy[l, j, P - 1]
                total += w
                squares += w * w
                sums += s
                if w > 0.0:
                    explained += s * s / w
    return total, squares, sums, explained


def cell_shares(const Py_ssize_t[::1] indptr, const int[::1] indices, const double[:, :, ::1] cells,
                const double[:, :, ::1] A, const double[:, :, ::1] B):
    """Two factors with one column each: sums over cells of W_cell^2 / W_row and W_cell^2 / W_column."""
    cdef Py_ssize_t m = A.shape[0], l, e
    cdef double w, rows = 0.0, columns = 0.0
    with nogil:
        for l in range(m):
            for e in range(indptr[l], indptr[l + 1]):
                w = cells[e, 0, 0] * cells[e, 0, 0]
                rows += w / A[l, 0, 0]
                columns += w / B[indices[e], 0, 0]
    return rows, columns


def solve_few(equations):
    """Solution of a few linear equations, nested lists with the right-hand sides last.

    Rows are scaled and the largest pivot is taken; None if the equations are singular to ten digits.
    """
    cdef int size = len(equations), width = size + 1, i, j, l, best
    cdef double* E = <double*>malloc(size * width * sizeof(double))
    cdef double x, top
    try:
        for i in range(size):
            row = equations[i]
            top = 1.0
            for j in range(width):
                E[i * width + j] = row[j]
                if j < size:
                    top = max(top, fabs(E[i * width + j]))
            for j in range(width):
                E[i * width + j] /= top
        for j in range(size):
            best = j
            for i in range(j + 1, size):
                if fabs(E[i * width + j]) > fabs(E[best * width + j]):
                    best = i
            if not fabs(E[best * width + j]) > 1e-10:
                return None
            for l in range(j, width):
                x = E[best * width + l]
                E[best * width + l] = E[j * width + l]
                E[j * width + l] = x
            for i in range(j + 1, size):
                x = E[i * width + j] / E[j * width + j]
                for l in range(j, width):
                    E[i * width + l] -= x * E[j * width + l]
        out = [0.0] * size
        for i in range(size - 1, -1, -1):
            x = E[i * width + size]
            for l in range(i + 1, size):
                x -= E[i * width + l] * E[l * width + size]
            x /= E[i * width + i]
            E[i * width + size] = x
            out[i] = x
        return out
    finally:
        free(E)


# ------------------------------------------------------------------------------------------------
# linear predictor
# ------------------------------------------------------------------------------------------------
def add_effects(double[::1] eta, const int[::1] codes, Z, const double[:, ::1] b):
    """eta[i] += Z[i] . b[codes[i]] in place; Z (n, k), or None for one column of ones."""
    cdef Py_ssize_t n = eta.shape[0], i, l
    cdef int k = <int>b.shape[1], j
    cdef const double[:, :] z
    cdef double s
    if codes.shape[0] != n:
        raise ValueError("one code per row is needed")
    if Z is None:
        with nogil:
            for i in range(n):
                eta[i] += b[codes[i], 0]
        return
    z = Z
    if z.shape[0] != n or z.shape[1] != k:
        raise ValueError("the columns do not fit the effects")
    with nogil:
        for i in range(n):
            l = codes[i]
            s = 0.0
            for j in range(k):
                s += z[i, j] * b[l, j]
            eta[i] += s


# ------------------------------------------------------------------------------------------------
# cell tables of two factors
# ------------------------------------------------------------------------------------------------
def pair_products(TermRows f, const int[::1] cf, Py_ssize_t mf, TermRows g, const int[::1] cg, Py_ssize_t mg):
    """Z_f'Z_g as blocks by observed pair of levels, rows = levels of f, columns sorted within a row.

    Two stable counting sorts order the rows by (level of f, level of g); one sweep adds the blocks.
    Returns indptr (mf + 1,), indices (nnz,), data (nnz, k_f, k_g).
    """
    cdef Py_ssize_t n = cf.shape[0], i, l, e, nnz = 0, r, total
    cdef int kf = f.k, kg = g.k, a, b, cur, last
    cdef double* zf = <double*>malloc((kf + kg) * sizeof(double))
    cdef double* zg = zf + kf
    cdef Py_ssize_t* head = <Py_ssize_t*>malloc((max(mf, mg) + 2) * sizeof(Py_ssize_t))
    cdef Py_ssize_t* one = <Py_ssize_t*>malloc(max(n, 1) * sizeof(Py_ssize_t))
    cdef Py_ssize_t* two = <Py_ssize_t*>malloc(max(n, 1) * sizeof(Py_ssize_t))
    cdef bint count_only = f.ones and g.ones
    if zf == NULL or head == NULL or one == NULL or two == NULL:
        free(zf); free(head); free(one); free(two)
        raise MemoryError("not enough memory to tabulate the pairs of levels")
    indptr = np.empty(mf + 1, dtype=np.intp)
    cdef Py_ssize_t[::1] ip = indptr
    cdef int[::1] ix
    cdef double[:, :, ::1] dv
    cdef double* d
    with nogil:
        # by level of g
        memset(head, 0, (mg + 2) * sizeof(Py_ssize_t))
        for i in range(n):
            head[cg[i] + 1] += 1
        for l in range(mg):
            head[l + 1] += head[l]
        for i in range(n):
            one[head[cg[i]]] = i
            head[cg[i]] += 1
        # by level of f, stable
        memset(head, 0, (mf + 2) * sizeof(Py_ssize_t))
        for i in range(n):
            head[cf[i] + 1] += 1
        for l in range(mf):
            head[l + 1] += head[l]
        for i in range(n):
            r = one[i]
            two[head[cf[r]]] = r
            head[cf[r]] += 1
        # now head[l] is the end of level l
        i = 0
        for l in range(mf):
            ip[l] = nnz
            last = -1
            while i < head[l]:
                cur = cg[two[i]]
                nnz += cur != last
                last = cur
                i += 1
        ip[mf] = nnz
    indices = np.empty(nnz, dtype=np.intc)
    data = np.zeros((nnz, kf, kg))
    ix = indices
    dv = data
    if nnz:
        d = &dv[0, 0, 0]
        with nogil:
            i = 0
            e = -1
            for l in range(mf):
                last = -1
                while i < head[l]:
                    r = two[i]
                    cur = cg[r]
                    if cur != last:
                        e += 1
                        ix[e] = cur
                        last = cur
                    if count_only:
                        d[e] += 1.0
                    else:
                        f.row(r, zf)
                        g.row(r, zg)
                        for a in range(kf):
                            for b in range(kg):
                                d[(e * kf + a) * kg + b] += zf[a] * zg[b]
                    i += 1
    free(zf); free(head); free(one); free(two)
    return indptr, indices, data


def transpose_pattern(const Py_ssize_t[::1] indptr, const int[::1] indices, Py_ssize_t columns):
    """CSC view of a CSR pattern: indptr_t (columns + 1,), rows (nnz,), position (nnz,) into the CSR data."""
    cdef Py_ssize_t m = indptr.shape[0] - 1, nnz = indices.shape[0], l, e
    out_p = np.zeros(columns + 1, dtype=np.intp)
    out_r = np.empty(nnz, dtype=np.intc)
    out_e = np.empty(nnz, dtype=np.intp)
    head_ = np.zeros(columns + 1, dtype=np.intp)
    cdef Py_ssize_t[::1] ip = out_p
    cdef Py_ssize_t[::1] head = head_
    cdef int[::1] rr = out_r
    cdef Py_ssize_t[::1] pe = out_e
    with nogil:
        for e in range(nnz):
            ip[indices[e] + 1] += 1
        for l in range(columns):
            ip[l + 1] += ip[l]
            head[l] = ip[l]
        for l in range(m):
            for e in range(indptr[l], indptr[l + 1]):
                rr[head[indices[e]]] = <int>l
                pe[head[indices[e]]] = e
                head[indices[e]] += 1
    return out_p, out_r, out_e
