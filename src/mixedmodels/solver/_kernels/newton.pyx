# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The Newton loop on the cone of covariance matrices without Python objects, for any compiled Evaluator.

The twin of ``mixedmodels.optimize.cone``: the same rules and constants, hence the same iterates; the mathematics is
explained there, and the functions bear the same names. Here M is at hand at the end, so the first-order conditions

    M_b >= 0 on the feasible directions and M_b factor_b = 0, for every term b,

are computed on the spot.
"""

from libc.math cimport HUGE_VAL, fabs, isfinite, sqrt
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from mixedmodels.solver._kernels.evaluator cimport Evaluator, eigen

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int TIME_UTC
    int timespec_get(timespec* ts, int base)

cdef double NOISE = 1e-13
cdef double ROUNDING = 1e-15
cdef double UNSEEN = 1e-4                        # share of tol below which no last step is taken
cdef double DEPENDENT = 1e-13
cdef double RIDGE = 1e-13
cdef double NEAR = 0.5
cdef double SLOW = 0.1
cdef double GUARD = 0.1
cdef int INNER = 60
cdef double CREEP = 0.3
cdef double FAR = 10.0
cdef double WEAK = 0.25
cdef double FLOOR = 1e-4
cdef double LONG = 64.0
cdef double SMALL = 1e-2

# how a run ended; the order of mixedmodels.optimize.optimum.Status
cdef enum:
    GO_ON = -1
    CONVERGED = 0
    BOUNDARY = 1
    MAXITER = 2
    INTERRUPTED = 3
    MAX_SECONDS = 4
    STALLED = 5
    NOT_POSITIVE_DEFINITE = 6


cdef double _now() noexcept nogil:
    cdef timespec ts
    timespec_get(&ts, TIME_UTC)
    return <double>ts.tv_sec + 1e-9 * <double>ts.tv_nsec


cdef struct Point:
    double f
    double* theta                                    # (r,)
    double* x                                        # (r,) entries of the covariance matrices
    double* g                                        # (r,)
    double* J                                        # (r, r) average information
    double* E                                        # (r, r) expected information of a balanced design
    double* O                                        # (r, r) observed information of a balanced design
    double* B                                        # (bb,) lower-triangular factors


cdef struct Search:
    int r, bb, kmax, n_units
    const double* levels                             # (factors,)
    int* n                                           # (units,) sizes
    int* off                                         # (units,) of tables and factors, n^2 long each
    int* row                                         # (units,) of the orders, n long each
    int* table                                       # (bb,) parameter of entry (i, j), -1 above the diagonal
    int* order                                       # (rows,) of the pivoted factors
    int* o_order                                     # (rows,) ... that the observed step belongs to
    int* c_order                                     # (rows,) ... that C belongs to
    int* natural                                     # (kmax,) 0, 1, ...
    double tol, cap, max_seconds
    int limit
    bint trace, watched, fresh, has_C, corrected, better, slow, observed
    Point at, trial
    double decrement, decrease
    double* C                                        # secant correction
    # the inner problem
    double q
    double* F                                        # its factors
    double* F2                                       # trial factors
    double* target                                   # where the step goes
    double* plain                                    # where it goes with J alone
    double* base                                     # pivoted factors that the observed step starts from
    double* way                                      # (r,) the observed step
    double o_slope                                   # of the criterion along it
    double* gx
    double* gx2
    double* x2
    double* d
    double* gz
    double* step
    double* G
    double* JG
    double* curv
    double* H
    double* L
    double* L2
    double* wide                                     # (kmax, 2 kmax)
    double* small                                    # 4 (kmax, kmax)
    int iterations, evaluations, escapes, traced, trace_size
    double* log
    double started, checked


# ------------------------------------------------------------------ structure
cdef int _find(int* parent, int i) noexcept nogil:
    while parent[i] != i:
        i = parent[i]
    return i


cdef bint _tables(Evaluator ev, Search* w, int* parent, int* used) noexcept nogil:
    """The free covariance matrices; False if the parameters do not fall apart into full lower triangles."""
    cdef int rows = 0, base = 0, f, i, j, e, a, b, n, u, at = 0, place = 0, t
    cdef int* T
    cdef bint same, seen
    for f in range(ev.n_factors):
        rows += ev.k[f]
    for i in range(rows):
        parent[i] = i
    for e in range(ev.n_entries):
        base = 0
        for f in range(ev.e_fac[e]):
            base += ev.k[f]
        parent[_find(parent, base + ev.e_col[e])] = _find(parent, base + ev.e_row[e])
    w.n_units = 0
    base = 0
    for f in range(ev.n_factors):
        for i in range(ev.k[f]):
            n = 0
            seen = False
            for j in range(ev.k[f]):
                if _find(parent, base + j) == _find(parent, base + i):
                    n += 1
                    if j < i:
                        seen = True
            if seen:
                continue
            T = w.table + at
            for j in range(n * n):
                T[j] = -1
            for e in range(ev.n_entries):
                if ev.e_fac[e] != f or _find(parent, base + ev.e_row[e]) != _find(parent, base + i):
                    continue
                a = 0
                b = 0
                for j in range(ev.k[f]):
                    if _find(parent, base + j) == _find(parent, base + i):
                        if j < ev.e_row[e]:
                            a += 1
                        if j < ev.e_col[e]:
                            b += 1
                T[a * n + b] = ev.e_theta[e]
            # the same matrix in another place?
            seen = False
            for u in range(w.n_units):
                if w.n[u] != n:
                    continue
                same = True
                for j in range(n * n):
                    if w.table[w.off[u] + j] != T[j]:
                        same = False
                if same:
                    seen = True
            if seen:
                continue
            for a in range(n):
                for b in range(a + 1):
                    t = T[a * n + b]
                    if t < 0 or used[t]:
                        return False
                    used[t] = 1
            u = w.n_units
            w.n[u] = n
            w.off[u] = at
            w.row[u] = place
            w.n_units += 1
            at += n * n
            place += n
        base += ev.k[f]
    w.bb = at
    return True


# ------------------------------------------------------------------ linear algebra
cdef double dot(int r, const double* a, const double* b) noexcept nogil:
    cdef int i
    cdef double x = 0.0
    for i in range(r):
        x += a[i] * b[i]
    return x


cdef double largest(int r, const double* a) noexcept nogil:
    cdef int i
    cdef double x = 0.0
    for i in range(r):
        if fabs(a[i]) > x:
            x = fabs(a[i])
    return x


cdef bint cholesky(int r, const double* A, double ridge, double* L) noexcept nogil:
    """Lower factor of A + ridge I; False if that is not positive definite."""
    cdef int i, j
    cdef double s
    for j in range(r):
        s = A[j * r + j] + ridge - dot(j, L + j * r, L + j * r)
        if not s > 0.0:
            return False
        L[j * r + j] = sqrt(s)
        for i in range(j + 1, r):
            L[i * r + j] = (A[i * r + j] - dot(j, L + i * r, L + j * r)) / L[j * r + j]
    return True


cdef void descend(int r, const double* L, const double* g, double* s) noexcept nogil:
    """s = -(L L')^{-1} g."""
    cdef int i, j
    for j in range(r):
        s[j] = (-g[j] - dot(j, L + j * r, s)) / L[j * r + j]
    for j in range(r - 1, -1, -1):
        for i in range(j + 1, r):
            s[j] -= L[i * r + j] * s[i]
        s[j] /= L[j * r + j]


# ------------------------------------------------------------------ factors
cdef void _reflect(double* A, int m, int row, int c, double size, const int* rows, int n_rows) noexcept nogil:
    """Turn the columns of A (., m) from c on so that A[row, c:] = (size, 0, ...); applied to `rows`.

    A[row] must come first among `rows`: the other rows are turned by what it was.
    """
    cdef int i, j
    cdef double norm = 0.0, s
    cdef double* a
    cdef double* v = A + row * m
    cdef bint positive = v[c] > 0.0
    v[c] += size if positive else -size
    norm = dot(m - c, v + c, v + c)
    if norm > 0.0:
        for i in range(1, n_rows):
            a = A + rows[i] * m
            s = dot(m - c, a + c, v + c) * 2.0 / norm
            for j in range(c, m):
                a[j] -= s * v[j]
    if positive:
        for i in range(1, n_rows):
            A[rows[i] * m + c] = -A[rows[i] * m + c]
    v[c] = size
    for j in range(c + 1, m):
        v[j] = 0.0


cdef void lower_triangular(Search* w, int n, int m, double* A, double* L) noexcept nogil:
    """Lower-triangular L (n, n) with L L' = A A', for A (n, m), destroyed; zero columns at dependent rows."""
    cdef int i, j, c = 0
    cdef double size
    memset(L, 0, n * n * sizeof(double))
    for i in range(n):
        if c >= m:
            break
        size = sqrt(dot(m - c, A + i * m + c, A + i * m + c))
        if not size > DEPENDENT * sqrt(dot(m, A + i * m, A + i * m)):
            continue
        _reflect(A, m, i, c, size, w.natural + i, n - i)
        for j in range(i, n):
            L[j * n + i] = A[j * m + c]
        c += 1


cdef void pivoted(int n, double* B, int* p) noexcept nogil:
    """Turn the columns of B so that its rows p[0], p[1], ... are lower triangular, longest rest first."""
    cdef int i, c, best
    cdef double s, top
    for i in range(n):
        p[i] = i
    for c in range(n):
        best = c
        top = -1.0
        for i in range(c, n):
            s = dot(n - c, B + p[i] * n + c, B + p[i] * n + c)
            if s > top:
                top = s
                best = i
        i = p[c]
        p[c] = p[best]
        p[best] = i
        if top == 0.0:
            break
        _reflect(B, n, p[c], c, sqrt(top), p + c, n - c)


cdef void entries_of(Search* w, const double* F, double* x) noexcept nogil:
    """x of B B'."""
    cdef int u, n, i, j
    cdef const double* B
    for u in range(w.n_units):
        n = w.n[u]
        B = F + w.off[u]
        for i in range(n):
            for j in range(i + 1):
                x[w.table[w.off[u] + i * n + j]] = dot(n, B + i * n, B + j * n)


cdef void matrix_of(Search* w, int u, const double* g, double* M) noexcept nogil:
    """Symmetric M of unit u with <M, D> = g'd for every change D of Sigma with entries d."""
    cdef int n = w.n[u], i, j
    for i in range(n):
        for j in range(i + 1):
            M[i * n + j] = g[w.table[w.off[u] + i * n + j]] * (1.0 if i == j else 0.5)
            M[j * n + i] = M[i * n + j]


# ------------------------------------------------------------------ the inner problem
cdef double model_at(Search* w, const double* J, const double* F, double* gx) noexcept nogil:
    """q at B B' and its gradient."""
    cdef int i
    cdef double q = 0.0, s
    entries_of(w, F, w.x2)
    for i in range(w.r):
        w.d[i] = w.x2[i] - w.at.x[i]
    for i in range(w.r):
        s = dot(w.r, J + i * w.r, w.d)
        q += w.d[i] * (w.at.g[i] + 0.5 * s)
        gx[i] = w.at.g[i] + s
    return q


cdef void factor_derivatives(Search* w, const double* F, const int* order, const double* g) noexcept nogil:
    """Gradient gz, G = dx / dz and curvature 2 M^+ in the entries of the factors."""
    cdef int r = w.r, u, n, c, i, a, b, h, z
    cdef const int* T
    cdef const int* p
    cdef const double* B
    cdef double s
    cdef double* M = w.small
    cdef double* A
    cdef double* V
    cdef double* plus
    memset(w.G, 0, r * r * sizeof(double))
    memset(w.curv, 0, r * r * sizeof(double))
    for u in range(w.n_units):
        n = w.n[u]
        T = w.table + w.off[u]
        B = F + w.off[u]
        p = order + w.row[u]
        A = M + n * n
        V = A + n * n
        plus = V + n * n
        matrix_of(w, u, g, M)
        memcpy(A, M, n * n * sizeof(double))
        eigen(n, A, V)
        for a in range(n):
            for b in range(n):
                s = 0.0
                for h in range(n):
                    if A[h * n + h] > 0.0:
                        s += A[h * n + h] * V[a * n + h] * V[b * n + h]
                plus[a * n + b] = s
        for c in range(n):
            for i in range(c, n):
                z = T[i * n + c]
                a = p[i]
                s = 0.0
                for b in range(n):
                    s += M[a * n + b] * B[b * n + c]
                    if b <= a:
                        w.G[T[a * n + b] * r + z] += (2.0 if a == b else 1.0) * B[b * n + c]
                    else:
                        w.G[T[b * n + a] * r + z] += B[b * n + c]
                w.gz[z] = 2.0 * s
                for h in range(c, n):
                    w.curv[z * r + T[h * n + c]] = 2.0 * plus[a * n + p[h]]


cdef void newton_matrix(Search* w, const double* J, const int* order, double* H) noexcept nogil:
    """H = G'JG + curvature; the columns of G have n entries each."""
    cdef int r = w.r, u, n, c, i, a, b, z, y, t
    cdef const int* T
    cdef double s
    cdef double* JG = w.JG
    for u in range(w.n_units):
        n = w.n[u]
        T = w.table + w.off[u]
        for c in range(n):
            for i in range(c, n):
                z = T[i * n + c]
                a = order[w.row[u] + i]
                for y in range(r):
                    s = 0.0
                    for b in range(n):
                        t = T[a * n + b] if b <= a else T[b * n + a]
                        s += J[y * r + t] * w.G[t * r + z]
                    JG[y * r + z] = s
    for u in range(w.n_units):
        n = w.n[u]
        T = w.table + w.off[u]
        for c in range(n):
            for i in range(c, n):
                z = T[i * n + c]
                a = order[w.row[u] + i]
                for y in range(r):
                    s = 0.0
                    for b in range(n):
                        t = T[a * n + b] if b <= a else T[b * n + a]
                        s += w.G[t * r + z] * JG[t * r + y]
                    H[z * r + y] = s + w.curv[z * r + y]


cdef void _truncate(Search* w, const double* J) noexcept nogil:
    """Short columns of w.F set to zero where the model does not rise."""
    cdef int u, n, c, i, j
    cdef int* p
    cdef double first, length, value
    cdef double* B
    cdef double* swap
    for u in range(w.n_units):
        n = w.n[u]
        p = w.order + w.row[u]
        B = w.F + w.off[u]
        memcpy(w.F2, w.F, w.bb * sizeof(double))
        B = w.F2 + w.off[u]
        pivoted(n, B, p)
        first = max(B[p[0] * n], 0.01)
        for c in range(n):
            length = B[p[c] * n + c]
            if 0.0 < length <= SMALL * first:
                for i in range(n):
                    for j in range(c, n):
                        B[i * n + j] = 0.0
                value = model_at(w, J, w.F2, w.gx2)
                if value <= w.q + (1e-14 if length < 1e-5 * first else 0.0):
                    swap = w.F
                    w.F = w.F2
                    w.F2 = swap
                    swap = w.gx
                    w.gx = w.gx2
                    w.gx2 = swap
                    w.q = value
                break


cdef bint _widen(Search* w, const double* J, double big) noexcept nogil:
    """Sigma + tau v v' along the most promising eigenvector of M in w.F; False if there is nothing to gain."""
    cdef int u, n, c, i, j, a, b, found = -1
    cdef double best = max(1e-13, -1e-6 * w.q), slope, curvature, tau, gain, root = 0.0, s
    cdef int* T
    cdef double* M = w.small
    cdef double* V
    cdef double* v = w.step                          # free at this moment
    for u in range(w.n_units):
        n = w.n[u]
        T = w.table + w.off[u]
        V = M + n * n
        matrix_of(w, u, w.gx, M)
        eigen(n, M, V)
        c = 0
        for i in range(n):
            if M[i * n + i] < M[c * n + c]:
                c = i
        slope = -M[c * n + c]
        if not slope > 0.0:
            continue
        curvature = 0.0
        for i in range(n):
            for j in range(i + 1):
                s = 0.0
                for a in range(n):
                    for b in range(a + 1):
                        s += J[T[i * n + j] * w.r + T[a * n + b]] * V[a * n + c] * V[b * n + c]
                curvature += V[i * n + c] * V[j * n + c] * s
        tau = min(slope / curvature, big * big) if curvature > 0.0 else big * big
        gain = tau * (slope - 0.5 * curvature * tau)
        if gain > best:
            best = gain
            found = u
            root = sqrt(tau)
            for i in range(n):
                v[i] = V[i * n + c]
    if found < 0:
        return False
    n = w.n[found]
    for i in range(n):
        for j in range(n):
            w.wide[i * (n + 1) + j] = w.F[w.off[found] + i * n + j]
        w.wide[i * (n + 1) + n] = root * v[i]
    lower_triangular(w, n, n + 1, w.wide, w.F + w.off[found])
    return True


cdef int minimise_model(Search* w, const double* J) noexcept nogil:
    """Minimise the model over the cone from w.at.B; the factors end in w.F, the minimum in w.q; number of escapes."""
    cdef int r = w.r, u, i, j, c, n, z, steps = 0, escapes = 0
    cdef double mu = 0.0, big = w.cap * max(0.1, largest(w.bb, w.at.B)), top, ridge, size, predicted, value, pull
    cdef double* swap
    cdef bint moved
    memcpy(w.F, w.at.B, w.bb * sizeof(double))
    w.q = model_at(w, J, w.F, w.gx)
    while True:
        for u in range(w.n_units):
            pivoted(w.n[u], w.F + w.off[u], w.order + w.row[u])
        factor_derivatives(w, w.F, w.order, w.gx)
        newton_matrix(w, J, w.order, w.H)
        top = w.H[0]
        for i in range(r):
            top = max(top, w.H[i * r + i])
        pull = largest(r, w.gz) / big
        ridge = max(RIDGE * top, 1e-10 * pull) if top > 1e-10 * pull else max(pull, 1e-300)
        moved = False
        while steps < INNER:
            steps += 1
            if not cholesky(r, w.H, mu + ridge, w.L):
                mu = max(10.0 * mu, 1e-3 * max(top, ridge))
                continue
            descend(r, w.L, w.gz, w.step)
            size = largest(r, w.step)
            if size > big:
                for i in range(r):
                    w.step[i] *= big / size
            predicted = 0.0
            for i in range(r):
                predicted -= w.step[i] * (w.gz[i] + 0.5 * dot(r, w.H + i * r, w.step))
            if not predicted > max(1e-13, -1e-6 * w.q):
                break
            memcpy(w.F2, w.F, w.bb * sizeof(double))
            for u in range(w.n_units):
                n = w.n[u]
                for i in range(n):
                    for c in range(i + 1):
                        z = w.table[w.off[u] + i * n + c]
                        w.F2[w.off[u] + w.order[w.row[u] + i] * n + c] += w.step[z]
            value = model_at(w, J, w.F2, w.gx2)
            if w.q - value >= 1e-3 * predicted:
                mu = 0.0 if w.q - value > 0.5 * predicted or mu < 1e-6 * top else 0.1 * mu
                swap = w.F
                w.F = w.F2
                w.F2 = swap
                swap = w.gx
                w.gx = w.gx2
                w.gx2 = swap
                w.q = value
                moved = True
                break
            mu = max(4.0 * mu, 1e-3 * max(top, ridge))
        if moved:
            _truncate(w, J)
            if steps < INNER and largest(w.bb, w.F) <= big:
                continue
        elif steps < INNER and escapes < 20 and _widen(w, J, big):
            w.q = model_at(w, J, w.F, w.gx)
            mu = 0.0
            escapes += 1
            continue
        return escapes


# ------------------------------------------------------------------ the criterion
cdef void _others(Evaluator ev, Search* w, Point* to) noexcept nogil:
    """Expected and observed information from average information J, per factor as if K_ll = T / m.

    E = J + (tr(T D_s M D_t) + tr(T D_t M D_s)) / 2m,  O = J + scale wpw - tr(T D_s T D_t) / m.
    """
    cdef int e, h, f, k, a, b, c, d, u, v, i, r = w.r
    cdef double s, x, scale = ev._scale()
    cdef double* E = to.E
    cdef double* O = to.O
    cdef const double* T
    cdef const double* M
    memcpy(E, to.J, r * r * sizeof(double))
    memcpy(O, to.J, r * r * sizeof(double))
    for e in range(ev.n_entries):
        for h in range(ev.n_entries):
            if ev.e_fac[h] == ev.e_fac[e]:           # set, not added: parameters may be shared between factors
                i = ev.e_theta[e] * r + ev.e_theta[h]
                O[i] = to.J[i] + scale * ev.wpw[i]
    for e in range(ev.n_entries):
        f = ev.e_fac[e]
        k = ev.k[f]
        T = ev.T + ev.koff[f]
        M = ev.M + ev.koff[f]
        for h in range(ev.n_entries):
            if ev.e_fac[h] != f:
                continue
            s = 0.0
            x = 0.0
            for u in range(2):                       # E_ab and its mirror image
                a = ev.e_col[e] if u else ev.e_row[e]
                b = ev.e_row[e] if u else ev.e_col[e]
                if u and a == b:
                    continue
                for v in range(2):                   # E_cd and its mirror image
                    c = ev.e_col[h] if v else ev.e_row[h]
                    d = ev.e_row[h] if v else ev.e_col[h]
                    if v and c == d:
                        continue
                    s += T[d * k + a] * M[b * k + c] + T[b * k + c] * M[d * k + a]
                    x += T[d * k + a] * T[b * k + c]
            i = ev.e_theta[e] * r + ev.e_theta[h]
            E[i] += 0.5 * s / w.levels[f]
            O[i] -= x / w.levels[f]


cdef bint _evaluate(Evaluator ev, Search* w, const double* F, double t) noexcept nogil:
    """The criterion at (1 - t) (here) + t F F' in w.trial; False where it does not exist."""
    cdef int r = w.r, u, n, i, j, e, f, kf, a, c
    cdef double s, x
    cdef double* D
    cdef double* M
    cdef double* S
    cdef Point* p = &w.trial
    for u in range(w.n_units):
        n = w.n[u]
        if t == 1.0:
            memcpy(w.wide, F + w.off[u], n * n * sizeof(double))
            lower_triangular(w, n, n, w.wide, p.B + w.off[u])
        else:
            for i in range(n):
                for j in range(n):
                    w.wide[i * 2 * n + j] = sqrt(1.0 - t) * w.at.B[w.off[u] + i * n + j]
                    w.wide[i * 2 * n + n + j] = sqrt(t) * F[w.off[u] + i * n + j]
            lower_triangular(w, n, 2 * n, w.wide, p.B + w.off[u])
        for i in range(n):
            for j in range(i + 1):
                p.theta[w.table[w.off[u] + i * n + j]] = p.B[w.off[u] + i * n + j]
    entries_of(w, p.B, p.x)
    w.evaluations += 1
    w.fresh = False
    ev._set_factors(p.theta)
    memset(ev.dS, 0, r * ev.kk * sizeof(double))
    for e in range(ev.n_entries):
        f = ev.e_fac[e]
        D = ev.dS + ev.e_theta[e] * ev.kk + ev.koff[f]
        D[ev.e_row[e] * ev.k[f] + ev.e_col[e]] = 1.0
        D[ev.e_col[e] * ev.k[f] + ev.e_row[e]] = 1.0
    ev.n_dir = r
    if ev.components(2) or not ev.pwrss > 0.0:
        return False
    p.f = ev._criterion()
    if not isfinite(p.f):
        return False
    s = ev._scale()
    for i in range(ev.kk):
        ev.M[i] = ev.T[i] - s * ev.S[i]
    for i in range(r):
        p.g[i] = 0.0
        ev.wq[i] = 0.0
    for e in range(ev.n_entries):
        f = ev.e_fac[e]
        kf = ev.k[f]
        a = ev.e_row[e] * kf + ev.e_col[e]
        c = ev.e_col[e] * kf + ev.e_row[e]
        M = ev.M + ev.koff[f]
        S = ev.S + ev.koff[f]
        i = ev.e_theta[e]
        p.g[i] += M[a] if a == c else M[a] + M[c]
        ev.wq[i] += S[a] if a == c else S[a] + S[c]
    x = 0.0 if ev.sigma_fixed > 0.0 else s / ev.pwrss
    for i in range(r):
        if not isfinite(p.g[i]):
            return False
        for j in range(r):
            p.J[i * r + j] = s * ev.wpw[i * r + j] - x * ev.wq[i] * ev.wq[j]
    _others(ev, w, p)
    for i in range(r * r):
        if not isfinite(p.E[i] + p.O[i]):
            return False
    return True


cdef void _accept(Search* w) noexcept nogil:
    cdef Point p = w.at
    w.at = w.trial
    w.trial = p
    w.fresh = True


cdef void _learn(Search* w, bint good) noexcept nogil:
    """Symmetric rank-one update from w.at to w.trial, so that (H + C) d = change of the gradient."""
    cdef int i, j, c, u, n, z, r = w.r
    cdef int* p
    cdef double* d = w.d
    cdef double* rest = w.step
    cdef double along
    cdef bint same = True
    memcpy(w.F, w.trial.B, w.bb * sizeof(double))
    for u in range(w.n_units):
        p = w.order + w.row[u]
        pivoted(w.n[u], w.F + w.off[u], p)
        for i in range(w.n[u]):
            if p[i] != w.c_order[w.row[u] + i]:
                same = False
            w.c_order[w.row[u] + i] = p[i]
    if not good or not same:
        w.has_C = False
    if not good:
        return
    for u in range(w.n_units):                       # the old factors in the same order of rows
        n = w.n[u]
        p = w.order + w.row[u]
        for i in range(n):
            memcpy(w.wide + i * n, w.at.B + w.off[u] + p[i] * n, n * sizeof(double))
        lower_triangular(w, n, n, w.wide, w.small)
        for i in range(n):
            memcpy(w.F2 + w.off[u] + p[i] * n, w.small + i * n, n * sizeof(double))
    for u in range(w.n_units):
        n = w.n[u]
        p = w.order + w.row[u]
        for i in range(n):
            for c in range(i + 1):
                z = w.table[w.off[u] + i * n + c]
                d[z] = w.F[w.off[u] + p[i] * n + c] - w.F2[w.off[u] + p[i] * n + c]
    factor_derivatives(w, w.F2, w.order, w.at.g)
    for i in range(r):
        rest[i] = -w.gz[i]
    factor_derivatives(w, w.F, w.order, w.trial.g)
    newton_matrix(w, w.trial.J, w.order, w.H)
    for i in range(r):
        rest[i] += w.gz[i] - dot(r, w.H + i * r, d)
        if w.has_C:
            rest[i] -= dot(r, w.C + i * r, d)
    along = dot(r, rest, d)
    if fabs(along) > 1e-8 * sqrt(dot(r, rest, rest) * dot(r, d, d)):
        if not w.has_C:
            memset(w.C, 0, r * r * sizeof(double))
            w.has_C = True
        for i in range(r):
            for j in range(r):
                w.C[i * r + j] += rest[i] * rest[j] / along


cdef double _corrected_step(Search* w) noexcept nogil:
    """Newton step in the pivoted factors with the secant correction, to w.F; predicted decrease, 0 if there is none."""
    cdef int i, u, n, c, r = w.r
    cdef double ridge = 0.0
    memcpy(w.F, w.at.B, w.bb * sizeof(double))
    for u in range(w.n_units):
        pivoted(w.n[u], w.F + w.off[u], w.order + w.row[u])
    factor_derivatives(w, w.F, w.order, w.at.g)
    newton_matrix(w, w.at.J, w.order, w.H)
    for i in range(r):
        ridge = max(ridge, RIDGE * w.H[i * r + i])
    for i in range(r * r):
        w.L2[i] = w.H[i] + w.C[i]
    if not cholesky(r, w.H, ridge, w.L) or not cholesky(r, w.L2, ridge, w.L2):
        return 0.0
    for i in range(r):
        if w.L2[i * r + i] * w.L2[i * r + i] < GUARD * w.L[i * r + i] * w.L[i * r + i]:
            return 0.0
    descend(r, w.L2, w.gz, w.step)
    for u in range(w.n_units):
        n = w.n[u]
        for i in range(n):
            for c in range(i + 1):
                w.F[w.off[u] + w.order[w.row[u] + i] * n + c] += w.step[w.table[w.off[u] + i * n + c]]
    ridge = -0.5 * dot(r, w.gz, w.step)
    w.q = model_at(w, w.at.J, w.F, w.gx)
    _truncate(w, w.at.J)
    return ridge


cdef bint _observed_step(Search* w) noexcept nogil:
    """Newton step in the pivoted factors with the observed information, to w.way; False where J is good enough."""
    cdef int r = w.r, u, n, c, i, j, h
    cdef double ridge = 0.0, least = HUGE_VAL, big, size
    cdef int* T
    cdef int* p
    cdef double* M = w.small
    cdef double* A = w.L2
    cdef double* V = w.JG
    memcpy(w.base, w.at.B, w.bb * sizeof(double))
    for u in range(w.n_units):
        pivoted(w.n[u], w.base + w.off[u], w.o_order + w.row[u])
    factor_derivatives(w, w.base, w.o_order, w.at.g)
    newton_matrix(w, w.at.J, w.o_order, w.H)
    for i in range(r):
        ridge = max(ridge, RIDGE * w.H[i * r + i])
    if not cholesky(r, w.H, ridge, w.L):
        return False
    for u in range(w.n_units):                       # all of M, not only its positive part
        n = w.n[u]
        T = w.table + w.off[u]
        p = w.o_order + w.row[u]
        matrix_of(w, u, w.at.g, M)
        for c in range(n):
            for i in range(c, n):
                for h in range(c, n):
                    w.curv[T[i * n + c] * r + T[h * n + c]] = 2.0 * M[p[i] * n + p[h]]
    newton_matrix(w, w.at.O, w.o_order, A)
    for i in range(r):
        A[i * r + i] += ridge
    for j in range(r):                               # A = L^{-1} A L'^{-1}: columns, then rows
        for i in range(r):
            size = A[i * r + j]
            for h in range(i):
                size -= w.L[i * r + h] * A[h * r + j]
            A[i * r + j] = size / w.L[i * r + i]
    for i in range(r):
        for j in range(r):
            A[i * r + j] = (A[i * r + j] - dot(j, w.L + j * r, A + i * r)) / w.L[j * r + j]
    for i in range(r):
        for j in range(i):
            A[i * r + j] = A[j * r + i] = 0.5 * (A[i * r + j] + A[j * r + i])
    eigen(r, A, V)
    for i in range(r):
        least = min(least, A[i * r + i])
    if not least < WEAK:
        return False
    for i in range(r):                               # L^{-1} g
        w.d[i] = (w.gz[i] - dot(i, w.L + i * r, w.d)) / w.L[i * r + i]
        w.way[i] = 0.0
    for j in range(r):
        size = 0.0
        for i in range(r):
            size += V[i * r + j] * w.d[i]
        size /= max(fabs(A[j * r + j]), FLOOR)
        for i in range(r):
            w.way[i] -= V[i * r + j] * size
    for j in range(r - 1, -1, -1):
        for i in range(j + 1, r):
            w.way[j] -= w.L[i * r + j] * w.way[i]
        w.way[j] /= w.L[j * r + j]
    big = w.cap * max(0.1, largest(w.bb, w.base))
    size = largest(r, w.way)
    if size > big:
        for i in range(r):
            w.way[i] *= big / size
    w.o_slope = dot(r, w.gz, w.way)
    return True


cdef void _along(Search* w, double t) noexcept nogil:
    """w.F = w.base + t w.way."""
    cdef int u, n, i, c
    memcpy(w.F, w.base, w.bb * sizeof(double))
    for u in range(w.n_units):
        n = w.n[u]
        for i in range(n):
            for c in range(i + 1):
                w.F[w.off[u] + w.o_order[w.row[u] + i] * n + c] += t * w.way[w.table[w.off[u] + i * n + c]]


cdef bint _along_factors(Evaluator ev, Search* w) noexcept nogil:
    """Go to a lower point on a straight line of factors; False if there is none but close by."""
    cdef int tries
    cdef double f = w.at.f, noise = NOISE * (1.0 + fabs(w.at.f)), t = 1.0, fall
    w.has_C = False
    for tries in range(6):
        _along(w, t)
        if t == 1.0:
            w.q = model_at(w, w.at.J, w.F, w.gx)
            _truncate(w, w.at.J)
        if not _evaluate(ev, w, w.F, 1.0):
            t *= 0.2
            continue
        fall = f - w.trial.f
        if fall >= -1e-4 * t * w.o_slope - noise or (w.decrement < 1e-6 and fabs(fall) < 100.0 * noise):
            _accept(w)
            while 1.0 <= t < LONG and fall > max(-0.7 * t * w.o_slope, 1e-3):
                t *= 2.0
                _along(w, t)
                if not _evaluate(ev, w, w.F, 1.0) or w.trial.f > w.at.f:
                    break
                _accept(w)
                fall = f - w.at.f
            return True
        t = min(max(-0.5 * w.o_slope * t * t / (-fall - w.o_slope * t), 0.1 * t), 0.5 * t)
    return False


cdef void _set_step(Search* w, double last) noexcept nogil:
    """Minima of the model in w.target (the better one) and w.plain (of J alone), predicted decrease in w.decrement."""
    cdef double decrease, found
    cdef int escapes = minimise_model(w, w.at.J)
    memcpy(w.plain, w.F, w.bb * sizeof(double))
    w.better = False
    if -w.q > NEAR:
        escapes = minimise_model(w, w.at.E)
        w.better = True
    w.escapes += escapes
    decrease = -w.q
    memcpy(w.target, w.F, w.bb * sizeof(double))
    w.slow = w.slow or CREEP * last < decrease < FAR
    w.observed = w.slow and decrease < FAR and not escapes and _observed_step(w)
    if w.observed:
        if -0.5 * w.o_slope > 0.1 * decrease:
            w.decrement = max(decrease, -0.5 * w.o_slope)
            return
        w.observed = False
    if w.has_C and decrease < NEAR and (w.corrected or decrease > SLOW * last):
        found = _corrected_step(w)
        if 0.1 * decrease < found < 100.0 * decrease:
            memcpy(w.target, w.F, w.bb * sizeof(double))
            decrease = max(decrease, found)
            w.corrected = w.better = True
        else:
            w.has_C = False
    w.decrement = decrease + 0.0


cdef double _cubic(double t, double slope, double fall, double end_slope) noexcept nogil:
    """Minimiser of the cubic through both ends of a step of length t that did not fall enough."""
    cdef double a = slope + end_slope + 3.0 * fall / t
    cdef double root = a * a - slope * end_slope, guess = 0.5 * t, b, below
    if root > 0.0:
        b = sqrt(root)
        below = end_slope - slope + 2.0 * b
        if below != 0.0:
            guess = t - t * (end_slope + b - a) / below
    return min(max(guess, 0.1 * t), 0.6 * t)


cdef double _toward(Search* w) noexcept nogil:
    """Direction to w.target in w.gz and the slope along it."""
    cdef int i
    entries_of(w, w.target, w.x2)
    for i in range(w.r):
        w.gz[i] = w.x2[i] - w.at.x[i]
    return dot(w.r, w.at.g, w.gz)


cdef bint _advance(Evaluator ev, Search* w) noexcept nogil:
    """Go to a point between here and a target where the criterion is low enough."""
    cdef int i, tries
    cdef double noise = NOISE * (1.0 + fabs(w.at.f)), slope, t = 1.0, fall = 0.0, gain
    cdef bint exists
    if w.observed:
        if _along_factors(ev, w):
            return True
        w.better = False
        memcpy(w.target, w.plain, w.bb * sizeof(double))
    slope = _toward(w)
    for tries in range(12):
        exists = _evaluate(ev, w, w.target, t)
        if exists:
            fall = w.at.f - w.trial.f
            gain = w.decrement if t == 1.0 else -slope * t
            if fall >= 1e-4 * gain - noise or (w.decrement < 1e-6 and fabs(fall) < 100.0 * noise):
                _learn(w, t == 1.0 and fall >= 0.25 * w.decrement)
                _accept(w)
                return True
        if t == 1.0 and slope > -0.5 * w.decrement and w.better:
            w.has_C = False
            w.better = False
            memcpy(w.target, w.plain, w.bb * sizeof(double))
            slope = _toward(w)
            continue
        t = _cubic(t, slope, fall, dot(w.r, w.trial.g, w.gz)) if exists else 0.2 * t
    return False


# ------------------------------------------------------------------ the loop
cdef int _watch(Search* w, object callback) noexcept nogil:
    """Record the iteration, ask the callback, look at the clock and at pending signals."""
    cdef double now
    cdef int status = GO_ON
    if w.trace and w.traced < w.trace_size:
        w.log[w.traced * (w.r + 2)] = w.iterations
        w.log[w.traced * (w.r + 2) + 1] = w.at.f
        memcpy(w.log + w.traced * (w.r + 2) + 2, w.at.theta, w.r * sizeof(double))
        w.traced += 1
    now = _now()
    if w.watched or now - w.checked > 0.1:
        w.checked = now
        with gil:
            status = _ask(w, callback)
    if status == GO_ON and w.max_seconds > 0.0 and now - w.started > w.max_seconds:
        return MAX_SECONDS
    return status


cdef int _ask(Search* w, object watcher):
    callback, errors = watcher
    try:
        PyErr_CheckSignals()
        if callback is not None:
            theta = np.empty(w.r)
            for i in range(w.r):
                theta[i] = w.at.theta[i]
            if callback(w.iterations, theta, w.at.f, w.decrement):
                return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:
        errors.append(error)
        return INTERRUPTED
    return GO_ON


cdef int _minimise(Evaluator ev, Search* w, object callback) noexcept nogil:
    """Steps until the predicted decrease is below tol, and one more unless it is far below."""
    cdef double last = HUGE_VAL
    cdef bint extra = True, rounding
    cdef int status
    while True:
        _set_step(w, last)
        status = _watch(w, callback)
        if status != GO_ON:
            return status
        if w.decrement < w.tol:
            if not extra or w.decrement < max(UNSEEN * w.tol, ROUNDING * fabs(w.at.f)) or w.iterations >= w.limit:
                return CONVERGED
            extra = False
        if w.iterations >= w.limit:
            return MAXITER
        rounding = w.decrement < max(1e-8, NOISE * fabs(w.at.f))
        if rounding and w.decrement > 0.5 * last:
            return CONVERGED                         # nothing left but rounding
        last = w.decrement
        if not _advance(ev, w):
            return CONVERGED if rounding else STALLED
        w.iterations += 1


cdef int _run(Evaluator ev, Search* w, const double* theta0, object callback) noexcept nogil:
    """From start to status; the result is w.at, its gradient in theta w.gz, its Newton matrix w.H."""
    cdef int u, n, i, j, tries, status
    cdef double shrink = 1.0
    for tries in range(13):
        for u in range(w.n_units):
            n = w.n[u]
            for i in range(n):
                for j in range(n):
                    w.F[w.off[u] + i * n + j] = shrink * theta0[w.table[w.off[u] + i * n + j]] if j <= i else 0.0
        if tries == 12:
            for i in range(w.r):
                w.at.theta[i] = shrink * theta0[i]
            return NOT_POSITIVE_DEFINITE
        if _evaluate(ev, w, w.F, 1.0):
            break
        shrink *= 0.1
    _accept(w)
    status = _minimise(ev, w, callback)
    for u in range(w.n_units):
        n = w.n[u]
        for i in range(n):
            w.order[w.row[u] + i] = i
            if status == CONVERGED and not w.at.B[w.off[u] + i * n + i] > 0.0:
                status = BOUNDARY
    factor_derivatives(w, w.at.B, w.order, w.at.g)
    newton_matrix(w, w.at.J, w.order, w.H)
    return status


# ------------------------------------------------------------------ certificate
cdef bint _certificate(Evaluator ev, Search* w, double* mineig, double* residual, double* singular) noexcept nogil:
    """Smallest eigenvalue of M on the feasible directions, |M factor| and singularity per term."""
    cdef int t, f, kf, lo, hi, i, j, c, n
    cdef double x, value
    cdef double* M
    cdef double* L
    cdef double* A = w.small
    cdef double* V
    if not w.fresh:
        w.evaluations += 1
        if ev.evaluate(w.at.theta, 1, &value, w.gx2, NULL):
            return False
        w.fresh = True
    for t in range(ev.n_clips):
        f = ev.c_fac[t]
        kf = ev.k[f]
        lo = ev.c_from[t]
        hi = ev.c_to[t]
        n = hi - lo
        M = ev.M + ev.koff[f]
        L = ev.lam + ev.koff[f]
        V = A + n * n
        memset(A, 0, n * n * sizeof(double))
        if ev.c_kind[t] == 2:
            x = 0.0
            for i in range(lo, hi):
                x += M[i * kf + i]
            for i in range(n):
                A[i * n + i] = x / n
        else:
            for i in range(n):
                for j in range(n):
                    if ev.c_kind[t] == 0 or i == j:
                        A[i * n + j] = M[(lo + i) * kf + lo + j]
        residual[t] = 0.0
        singular[t] = 0.0
        for i in range(n):
            if L[(lo + i) * kf + lo + i] == 0.0:
                singular[t] = 1.0
            for j in range(n):
                x = 0.0
                for c in range(n):
                    x += A[i * n + c] * L[(lo + c) * kf + lo + j]
                residual[t] += x * x
        residual[t] = sqrt(residual[t])
        eigen(n, A, V)
        mineig[t] = A[0]
        for i in range(n):
            mineig[t] = min(mineig[t], A[i * n + i])
    return True


cdef class NewtonLoop:
    """Work space of the loop for one evaluator; `run` starts it any number of times, without the GIL."""

    def __dealloc__(self):
        free(self.search)

    cdef bint prepare(self, Evaluator ev, levels, double tol, int maxiter, double max_seconds, double cap) except -1:
        """False if the parameters do not fall apart into full lower triangles."""
        cdef Search* w
        cdef int r = ev.n_theta, rows = 0, f, kmax = 1, nc = ev.n_clips, kk = ev.kk, i, point
        cdef double[::1] d, m
        cdef int[::1] n
        self.search = calloc(1, sizeof(Search))
        if self.search == NULL:
            raise MemoryError
        w = <Search*> self.search
        m = np.ascontiguousarray(levels, dtype=np.float64)
        if m.shape[0] != ev.n_factors:
            raise ValueError(f"levels has {m.shape[0]} values, the model has {ev.n_factors} factors")
        w.levels = &m[0]
        for f in range(ev.n_factors):
            rows += ev.k[f]
            kmax = max(kmax, ev.k[f])
        w.r, w.kmax = r, kmax
        w.tol, w.limit, w.cap, w.max_seconds = tol, maxiter, cap, max_seconds
        ints = np.zeros(7 * rows + kk + kmax + r, dtype=np.intc)
        n = ints
        cdef int* ip = &n[0]
        w.n = ip; ip += rows
        w.off = ip; ip += rows
        w.row = ip; ip += rows
        w.order = ip; ip += rows
        w.c_order = ip; ip += rows
        w.o_order = ip; ip += rows
        w.table = ip; ip += kk
        w.natural = ip; ip += kmax
        for i in range(kmax):
            w.natural[i] = i
        cdef int* used = ip
        ip += r
        cdef int* parent = ip
        if not _tables(ev, w, parent, used):
            return False
        self.doubles = np.zeros(13 * r + 13 * r * r + 7 * kk + 6 * kmax * kmax + kmax + 3 * nc + 1)
        d = self.doubles
        self.base = &d[0]
        cdef double* p = self.base
        for point in range(2):
            w.trial = w.at
            w.at.theta = p; p += r
            w.at.x = p; p += r
            w.at.g = p; p += r
            w.at.J = p; p += r * r
            w.at.E = p; p += r * r
            w.at.O = p; p += r * r
            w.at.B = p; p += kk
        w.base = p; p += kk
        w.way = p; p += r
        w.gx = p; p += r
        w.gx2 = p; p += r
        w.x2 = p; p += r
        w.d = p; p += r
        w.gz = p; p += r
        w.step = p; p += r + kmax
        w.C = p; p += r * r
        w.G = p; p += r * r
        w.JG = p; p += r * r
        w.curv = p; p += r * r
        w.H = p; p += r * r
        w.L = p; p += r * r
        w.L2 = p; p += r * r
        w.F = p; p += kk
        w.F2 = p; p += kk
        w.target = p; p += kk
        w.plain = p; p += kk
        w.wide = p; p += 2 * kmax * kmax
        w.small = p; p += 4 * kmax * kmax
        self.conditions = p
        w.at.f = HUGE_VAL
        w.decrement = HUGE_VAL - HUGE_VAL
        self.evaluator = ev
        self.watcher = (None, [])
        self.kept = (ints, m)
        return True

    cdef int run(self, const double* theta0, double* theta, double* value) noexcept nogil:
        """Status; what an earlier run left behind is forgotten."""
        cdef Search* w = <Search*> self.search
        cdef int status
        w.at.f = HUGE_VAL
        w.decrement = HUGE_VAL - HUGE_VAL
        w.fresh = w.has_C = w.corrected = w.better = w.slow = w.observed = False
        w.iterations = w.evaluations = w.escapes = w.traced = 0
        w.started = _now()
        w.checked = w.started
        status = _run(self.evaluator, w, theta0, self.watcher)
        memcpy(theta, w.at.theta, w.r * sizeof(double))
        value[0] = w.at.f
        return status


def newton_minimize(Evaluator ev, theta0, levels, double tol=1e-9, int maxiter=200, callback=None, *,
                    double max_seconds=0.0, double cap=10.0, bint trace=False):
    """Minimise the criterion of an Evaluator by Newton steps on the cone of covariance matrices.

    Parameters
    ----------
    ev : Evaluator
    theta0 : array, shape (n_theta,)
        Start.
    levels : array, shape (n_factors,)
        Levels of each factor.
    tol : float
        Largest predicted decrease, in deviance units.
    maxiter : int
    callback : callable, optional
        ``callback(iteration, theta, value, decrement)`` before every step; a true return value ends the search.
        Without it the loop holds the GIL only to look for signals, ten times a second.
    max_seconds : float
        0 for no limit.
    cap, trace
        As in mixedmodels.optimize.Control.

    Returns
    -------
    dict or None
        theta, value, gradient, hessian, status (int, in the order of mixedmodels.optimize.Status), iterations,
        evaluations, escapes, decrement, trace (array of rows (iteration, value, theta...)) and, per term,
        min_eigenvalues, residuals, singular. None if the parameters do not fall apart into full lower triangles.
    """
    cdef NewtonLoop loop = NewtonLoop.__new__(NewtonLoop)
    cdef int r = ev.n_theta, nc = ev.n_clips, status = 0, i
    cdef double[::1] d, th
    if r == 0:
        raise ValueError("the model has no covariance parameters to optimise")
    th = np.ascontiguousarray(theta0, dtype=np.float64)
    if th.shape[0] != r:
        raise ValueError(f"theta0 has {th.shape[0]} values, the model has {r} parameters")
    if not loop.prepare(ev, levels, tol, maxiter, max_seconds, cap):
        return None
    cdef Search* w = <Search*> loop.search
    cdef double* mineig = loop.conditions
    cdef double* residual = mineig + nc
    cdef double* singular = residual + nc
    doubles = loop.doubles
    w.trace = trace
    w.trace_size = maxiter + 2 if trace else 0
    w.watched = callback is not None
    log = None
    if trace:
        log = np.empty((w.trace_size, r + 2))
        d = log.reshape(-1)
        w.log = &d[0]
    errors = []
    watcher = (callback, errors)
    with nogil:
        w.started = _now()
        w.checked = w.started
        status = _run(ev, w, &th[0], watcher)
        if not (w.fresh or status == CONVERGED or status == BOUNDARY) \
                or not _certificate(ev, w, mineig, residual, singular):
            for i in range(nc):
                mineig[i] = residual[i] = HUGE_VAL - HUGE_VAL
    if isinstance(ev, CallbackEvaluator) and (<CallbackEvaluator>ev).error is not None:
        error = (<CallbackEvaluator>ev).error
        (<CallbackEvaluator>ev).error = None
        raise error
    if errors:
        raise errors[0]
    # w.at may be either of the two points inside `doubles`
    theta = doubles[w.at.theta - loop.base:w.at.theta - loop.base + r].copy()
    g = doubles[w.gz - loop.base:w.gz - loop.base + r].copy()
    H = doubles[w.H - loop.base:w.H - loop.base + r * r].reshape(r, r).copy()
    i = mineig - loop.base
    return {
        "theta": theta, "value": w.at.f, "gradient": g, "hessian": H, "status": status,
        "iterations": w.iterations, "evaluations": w.evaluations, "escapes": w.escapes, "decrement": w.decrement,
        "trace": log[:w.traced].copy() if trace else None,
        "min_eigenvalues": doubles[i:i + nc].copy(), "residuals": doubles[i + nc:i + 2 * nc].copy(),
        "singular": doubles[i + 2 * nc:i + 3 * nc] > 0.5,
    }


cdef class CallbackEvaluator(Evaluator):
    """Evaluator whose components come from a Python function, so that any solver can run in the compiled loop.

    Parameters
    ----------
    k, entries, clips, p, nu, reml, constant, sigma_fixed
        As for Evaluator.
    function : callable
        ``function(lam (kk,), directions (r, kk), order) -> (logdet_L2, logdet_RX2, pwrss, T (kk,), S (kk,), wpw (r, r))``,
        with T and S used for order >= 1 and wpw for order 2; None if a matrix is not positive definite.
    """

    cdef object function
    cdef readonly object error

    def __init__(self, k, entries, clips, int p, double nu, bint reml, double constant=0.0,
                 double sigma_fixed=0.0, function=None):
        self.function = function
        self.error = None

    cdef int components(self, int order) noexcept nogil:
        cdef int bad
        with gil:
            try:
                bad = self._call(order)
            except BaseException as error:
                self.error = error
                bad = 3
        return bad

    cdef int _call(self, int order) except -1:
        cdef int i, r = self.n_dir
        cdef double[::1] v
        lam = np.empty(self.kk)
        v = lam
        memcpy(&v[0], self.lam, self.kk * sizeof(double))
        D = np.zeros((r if order >= 2 else 0, self.kk))
        if D.size:
            v = D.reshape(-1)
            memcpy(&v[0], self.dS, D.size * sizeof(double))
        out = self.function(lam, D, order)
        if out is None:
            return 1
        self.logdet_L2, self.logdet_RX2, self.pwrss = out[0], out[1], out[2]
        if order >= 1:
            v = np.ascontiguousarray(out[3], dtype=np.float64).reshape(-1)
            memcpy(self.T, &v[0], self.kk * sizeof(double))
            v = np.ascontiguousarray(out[4], dtype=np.float64).reshape(-1)
            memcpy(self.S, &v[0], self.kk * sizeof(double))
        if order >= 2 and r:
            v = np.ascontiguousarray(out[5], dtype=np.float64).reshape(-1)
            memcpy(self.wpw, &v[0], r * r * sizeof(double))
        return 0
