# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The Newton loop without Python objects, for any compiled Evaluator.

The twin of ``mixedmodels.optimize.newton``: the same rules and constants, hence the same iterates; the mathematics is
explained there. Here M is at hand, so the certificate and the escape from saddle points are computed on the spot:

    M_b >= 0 on the feasible directions and M_b factor_b = 0, for every term b;
    otherwise Sigma_b + tau v v' with v the eigenvector of the most negative eigenvalue, tau = -v'M_b v / AI_v, where
    AI_v = (nu/pwrss) wpw - (nu/pwrss^2) <S, v v'>^2 is the average information of the direction.
"""

from libc.math cimport HUGE_VAL, fabs, isfinite, sqrt
from libc.string cimport memcpy, memset

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from mixedmodels.solver._kernels.evaluator cimport Evaluator

cdef extern from "time.h" nogil:
    ctypedef long time_t
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int TIME_UTC
    int timespec_get(timespec* ts, int base)

cdef double PIVOT = 1e-11
cdef double SLOW = 0.1
cdef double NEAR = 0.5
cdef double NOISE = 1e-13

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


cdef struct Search:
    int r
    double tol, cap, near, max_seconds
    int limit, escape_limit
    bint trace, watched
    # bounds and structure
    const double* lower
    const double* upper
    int n_columns
    int* col_ptr
    int* col_index
    int n_blocks
    int* blk_k
    int* blk_off
    int* blk_table
    int* reflected
    int* frozen
    int* free
    int* mark
    # the point
    double value, decrement
    double* theta
    double* g
    double* H
    # the trial
    double trial_value
    double* trial
    double* tg
    double* tH
    double* moved
    # work
    double* step
    double* newton
    double* L
    double* piv
    double* L2
    double* piv2
    double* B
    double* C
    double* d
    double* rest
    double* small
    bint has_C, fresh
    int iterations, evaluations, escapes, traced, trace_size
    double* log
    double started, checked


cdef int _find(int* parent, int i) noexcept nogil:
    while parent[i] != i:
        i = parent[i]
    return i


cdef void _structure(Evaluator ev, Search* w, int* parent, int* times) noexcept nogil:
    """Sign groups of columns and tables of unstructured blocks (see optimize.base)."""
    cdef int r = ev.n_theta, rows = 0, f, e, t, i, j, a, b, root, n, head, heads, k, at, ok, base
    for f in range(ev.n_factors):
        rows += ev.k[f]
    # columns: nodes 0..r-1 parameters, r.. columns of factors
    for i in range(r + rows):
        parent[i] = i
    for e in range(ev.n_entries):
        base = r
        for f in range(ev.e_fac[e]):
            base += ev.k[f]
        a = _find(parent, ev.e_theta[e])
        b = _find(parent, base + ev.e_col[e])
        parent[b] = a
    w.n_columns = 0
    w.col_ptr[0] = 0
    for t in range(r):
        root = _find(parent, t)
        ok = 1
        for i in range(t):
            if _find(parent, i) == root:
                ok = 0
        if not ok:
            continue
        heads = 0
        head = -1
        for i in range(t, r):
            if _find(parent, i) != root:
                continue
            for e in range(ev.n_entries):
                if ev.e_theta[e] == i and ev.e_row[e] == ev.e_col[e]:
                    heads += 1
                    head = i
                    break
        if heads != 1:
            continue
        for e in range(ev.n_entries):
            if ev.e_theta[e] == head and ev.e_row[e] != ev.e_col[e]:
                heads = 0
        if heads != 1 or w.lower[head] != 0.0:
            continue
        at = w.col_ptr[w.n_columns]
        w.col_index[at] = head
        at += 1
        for i in range(t, r):
            if i != head and _find(parent, i) == root:
                w.col_index[at] = i
                at += 1
        w.n_columns += 1
        w.col_ptr[w.n_columns] = at
        w.reflected[head] = 1
    # blocks: nodes are rows of factors
    for t in range(r):
        times[t] = 0
    for e in range(ev.n_entries):
        times[ev.e_theta[e]] += 1
    for i in range(rows):
        parent[i] = i
    for e in range(ev.n_entries):
        base = 0
        for f in range(ev.e_fac[e]):
            base += ev.k[f]
        a = _find(parent, base + ev.e_row[e])
        b = _find(parent, base + ev.e_col[e])
        parent[b] = a
    w.n_blocks = 0
    at = 0
    base = 0
    for f in range(ev.n_factors):
        for i in range(ev.k[f]):
            root = _find(parent, base + i)
            k = 0
            ok = 1
            for j in range(ev.k[f]):
                if _find(parent, base + j) == root:
                    if j < i:
                        ok = 0
                    k += 1
            if not ok or k < 2:
                continue
            for j in range(k * k):
                w.blk_table[at + j] = -1
            for e in range(ev.n_entries):
                if ev.e_fac[e] != f or _find(parent, base + ev.e_row[e]) != root or times[ev.e_theta[e]] != 1:
                    continue
                a = 0
                b = 0
                for j in range(ev.k[f]):
                    if _find(parent, base + j) == root:
                        if j < ev.e_row[e]:
                            a += 1
                        if j < ev.e_col[e]:
                            b += 1
                w.blk_table[at + a * k + b] = ev.e_theta[e]
            for a in range(k):
                for b in range(a + 1):
                    if w.blk_table[at + a * k + b] < 0:
                        ok = 0
            if ok:
                w.blk_k[w.n_blocks] = k
                w.blk_off[w.n_blocks] = at
                w.n_blocks += 1
                at += k * k
        base += ev.k[f]


# ------------------------------------------------------------------ linear algebra
cdef void factorise(int r, const double* B, const int* free, double mu, double* L, double* piv) noexcept nogil:
    """Cholesky factor of B + mu I on the free parameters; null directions get pivot 0."""
    cdef int i, j, c
    cdef double d, p
    memset(L, 0, r * r * sizeof(double))
    for j in range(r):
        piv[j] = 0.0
        if not free[j]:
            continue
        d = B[j * r + j] + mu
        p = d
        for c in range(j):
            p -= L[j * r + c] * L[j * r + c]
        if not (d > 0.0 and p > PIVOT * d):
            continue
        piv[j] = p
        L[j * r + j] = sqrt(p)
        for i in range(j + 1, r):
            p = B[i * r + j]
            for c in range(j):
                p -= L[i * r + c] * L[j * r + c]
            L[i * r + j] = p / L[j * r + j]


cdef void descend(int r, const double* L, const double* piv, const double* g, double* s) noexcept nogil:
    """s = -B^{-1} g."""
    cdef int i, j
    cdef double x
    for j in range(r):
        s[j] = 0.0
        if piv[j] > 0.0:
            x = -g[j]
            for i in range(j):
                x -= L[j * r + i] * s[i]
            s[j] = x / L[j * r + j]
    for j in range(r - 1, -1, -1):
        if piv[j] > 0.0:
            x = s[j]
            for i in range(j + 1, r):
                x -= L[i * r + j] * s[i]
            s[j] = x / L[j * r + j]
        else:
            s[j] = 0.0


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


cdef void eigen(int n, double* A, double* V) noexcept nogil:
    """Eigenvalues on the diagonal of symmetric A (overwritten), eigenvectors in the columns of V; cyclic Jacobi."""
    cdef int i, j, c, sweep
    cdef double off, total, t, co, si, x, y
    for i in range(n):
        for j in range(n):
            V[i * n + j] = 1.0 if i == j else 0.0
    for sweep in range(60):
        off = 0.0
        total = 0.0
        for i in range(n):
            total += A[i * n + i] * A[i * n + i]
            for j in range(i):
                off += A[i * n + j] * A[i * n + j]
        if off <= 1e-30 * total or off == 0.0:
            return
        for i in range(n - 1):
            for j in range(i + 1, n):
                if A[i * n + j] == 0.0:
                    continue
                t = (A[j * n + j] - A[i * n + i]) / (2.0 * A[i * n + j])
                t = (1.0 if t >= 0.0 else -1.0) / (fabs(t) + sqrt(1.0 + t * t))
                co = 1.0 / sqrt(1.0 + t * t)
                si = t * co
                for c in range(n):
                    x = A[c * n + i]
                    y = A[c * n + j]
                    A[c * n + i] = co * x - si * y
                    A[c * n + j] = si * x + co * y
                for c in range(n):
                    x = A[i * n + c]
                    y = A[j * n + c]
                    A[i * n + c] = co * x - si * y
                    A[j * n + c] = si * x + co * y
                for c in range(n):
                    x = V[c * n + i]
                    y = V[c * n + j]
                    V[c * n + i] = co * x - si * y
                    V[c * n + j] = si * x + co * y


# ------------------------------------------------------------------ the point
cdef bint _evaluate(Evaluator ev, Search* w, const double* theta) noexcept nogil:
    """Value, gradient and matrix of a trial point; 0 where they do not exist."""
    cdef int i
    w.evaluations += 1
    w.fresh = False
    if ev.evaluate(theta, 2, &w.trial_value, w.tg, w.tH):
        return False
    if not isfinite(w.trial_value):
        return False
    for i in range(w.r):
        if not isfinite(w.tg[i]):
            return False
    for i in range(w.r * w.r):
        if not isfinite(w.tH[i]):
            return False
    return True


cdef void _swap(double** a, double** b) noexcept nogil:
    cdef double* x = a[0]
    a[0] = b[0]
    b[0] = x


cdef void _accept(Search* w) noexcept nogil:
    """The trial point becomes the point (and the other way round, so that it can be undone)."""
    cdef double x = w.value
    w.value = w.trial_value
    w.trial_value = x
    _swap(&w.theta, &w.trial)
    _swap(&w.g, &w.tg)
    _swap(&w.H, &w.tH)
    w.fresh = True


cdef void _project(Search* w, double* theta) noexcept nogil:
    cdef int i
    for i in range(w.r):
        if not w.reflected[i] and theta[i] < w.lower[i]:
            theta[i] = w.lower[i]
        if theta[i] > w.upper[i]:
            theta[i] = w.upper[i]


cdef bint _reflect(Search* w, double* theta) noexcept nogil:
    cdef int c, i
    cdef bint flipped = False
    for c in range(w.n_columns):
        if theta[w.col_index[w.col_ptr[c]]] < 0.0:
            for i in range(w.col_ptr[c], w.col_ptr[c + 1]):
                theta[w.col_index[i]] = -theta[w.col_index[i]]
            flipped = True
    return flipped


cdef void _set_free(Search* w) noexcept nogil:
    cdef int i
    for i in range(w.r):
        w.free[i] = 1
        if w.frozen[i] or (w.theta[i] <= w.lower[i] and w.g[i] > 0.0 and not w.reflected[i]) \
                or (w.theta[i] >= w.upper[i] and w.g[i] < 0.0):
            w.free[i] = 0


cdef bint _attempt(Evaluator ev, Search* w, const double* moved, double predicted, double mu) noexcept nogil:
    """Evaluate a trial point and go there if the function falls enough."""
    cdef int i, j, r = w.r
    cdef double reduction, noise, along, f = w.value
    cdef bint flipped
    if not predicted > 0.0:
        return False
    for i in range(r):
        w.d[i] = moved[i] - w.theta[i]
    memcpy(w.trial, moved, r * sizeof(double))
    flipped = _reflect(w, w.trial)
    if not _evaluate(ev, w, w.trial):
        return False
    reduction = f - w.trial_value
    noise = NOISE * (1.0 + fabs(f))
    if not reduction >= 1e-4 * predicted - noise:
        if not (w.decrement < 1e-6 and fabs(reduction) < 100.0 * noise):
            return False
        _accept(w)
        _set_free(w)
        factorise(r, w.H, w.free, 0.0, w.L2, w.piv2)
        descend(r, w.L2, w.piv2, w.g, w.rest)
        along = -0.5 * dot(r, w.g, w.rest)
        _accept(w)                                   # back again
        if not along < w.decrement:
            _set_free(w)
            w.fresh = False
            return False
    if flipped or mu > 0.0 or reduction < 0.25 * predicted:
        w.has_C = False
    else:
        for i in range(r):
            w.rest[i] = w.tg[i] - w.g[i] - dot(r, w.tH + i * r, w.d)
            if w.has_C:
                w.rest[i] -= dot(r, w.C + i * r, w.d)
        along = dot(r, w.rest, w.d)
        if fabs(along) > 1e-8 * sqrt(dot(r, w.rest, w.rest) * dot(r, w.d, w.d)):
            if not w.has_C:
                memset(w.C, 0, r * r * sizeof(double))
                w.has_C = True
            for i in range(r):
                for j in range(r):
                    w.C[i * r + j] += w.rest[i] * w.rest[j] / along
    _accept(w)
    return True


cdef void _sigma_point(Search* w, double* moved) noexcept nogil:
    """The same step as steps of Sigma, for unstructured blocks; `moved` is changed."""
    cdef int b, k, i, j, c, trial
    cdef int* T
    cdef double a, x
    cdef double* lam = w.small
    cdef double* st
    cdef double* L
    cdef bint ok
    for b in range(w.n_blocks):
        k = w.blk_k[b]
        T = w.blk_table + w.blk_off[b]
        st = lam + k * k
        L = st + k * k
        ok = True
        for i in range(k):
            for j in range(k):
                lam[i * k + j] = 0.0
                st[i * k + j] = 0.0
                if j <= i:
                    lam[i * k + j] = w.theta[T[i * k + j]]
                    st[i * k + j] = moved[T[i * k + j]] - lam[i * k + j]
                    if w.frozen[T[i * k + j]]:
                        ok = False
        if not ok:
            continue
        a = 1.0
        ok = False
        for trial in range(12):
            ok = True
            memset(L, 0, k * k * sizeof(double))
            for j in range(k):
                for i in range(j, k):
                    x = 0.0
                    for c in range(k):
                        x += lam[i * k + c] * lam[j * k + c] + a * (lam[i * k + c] * st[j * k + c]
                                                                    + st[i * k + c] * lam[j * k + c])
                    for c in range(j):
                        x -= L[i * k + c] * L[j * k + c]
                    if i == j:
                        if not x > 0.01 * lam[j * k + j] * lam[j * k + j]:
                            ok = False
                            break
                        L[j * k + j] = sqrt(x)
                    else:
                        L[i * k + j] = x / L[j * k + j]
                if not ok:
                    break
            if ok:
                break
            a *= 0.6
        if ok:
            for i in range(k):
                for j in range(i + 1):
                    moved[T[i * k + j]] = L[i * k + j]


# ------------------------------------------------------------------ the loop
cdef int _watch(Search* w, object callback) noexcept nogil:
    """Record the iteration, ask the callback, look at the clock and at pending signals."""
    cdef double now
    cdef int i, status = GO_ON
    if w.trace and w.traced < w.trace_size:
        w.log[w.traced * (w.r + 2)] = w.iterations
        w.log[w.traced * (w.r + 2) + 1] = w.value
        memcpy(w.log + w.traced * (w.r + 2) + 2, w.theta, w.r * sizeof(double))
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
                theta[i] = w.theta[i]
            if callback(w.iterations, theta, w.value, w.decrement):
                return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:
        errors.append(error)
        return INTERRUPTED
    return GO_ON


cdef int _near_bounds(Search* w, bint mark) noexcept nogil:
    """Number of sets next to a bound and not frozen; with `mark` numbers their members in w.mark."""
    cdef int c, i, n = 0
    cdef bint whole
    cdef double near = w.near * max(1.0, largest(w.r, w.theta))
    if mark:
        for i in range(w.r):
            w.mark[i] = 0
    for c in range(w.n_columns):
        i = w.col_index[w.col_ptr[c]]
        if w.theta[i] <= near and not w.frozen[i]:
            n += 1
            if not mark:
                continue
            whole = True
            for i in range(w.col_ptr[c], w.col_ptr[c + 1]):
                if fabs(w.theta[w.col_index[i]]) > near:
                    whole = False
            for i in range(w.col_ptr[c], w.col_ptr[c + 1]):
                if whole or i == w.col_ptr[c]:
                    w.mark[w.col_index[i]] = n
    for i in range(w.r):
        if not w.reflected[i] and not w.frozen[i] and w.theta[i] - w.lower[i] <= near:
            n += 1
            if mark:
                w.mark[i] = n
    return n


cdef bint _try_bound(Evaluator ev, Search* w, const double* base, int which) noexcept nogil:
    """Go to `base` with the marked parameters (all, or set number `which`) on their bounds, if the value allows."""
    cdef int i
    cdef bint differs = False
    memcpy(w.trial, base, w.r * sizeof(double))
    for i in range(w.r):
        if w.mark[i] and (which == 0 or w.mark[i] == which):
            w.trial[i] = w.lower[i] if isfinite(w.lower[i]) else 0.0
        if w.trial[i] != w.theta[i]:
            differs = True
    if differs:
        if not _evaluate(ev, w, w.trial):
            return False
        if w.trial_value > w.value + 1e-9 + NOISE * fabs(w.value):
            return False
        _accept(w)
    for i in range(w.r):
        if w.mark[i] and (which == 0 or w.mark[i] == which):
            w.frozen[i] = 1
    return True


cdef int _snap(Evaluator ev, Search* w) noexcept nogil:
    """0: nothing on a bound; 1: something; 3: something, and the last Newton step was taken too."""
    cdef int i, n = _near_bounds(w, True), on = 0
    if n == 0:
        return 0
    for i in range(w.r):
        w.moved[i] = w.theta[i] + w.newton[i]
    _project(w, w.moved)
    _reflect(w, w.moved)
    if _try_bound(ev, w, w.moved, 0):
        return 3
    for i in range(n):
        memcpy(w.moved, w.theta, w.r * sizeof(double))
        if _try_bound(ev, w, w.moved, i + 1):
            on = 1
    return on


cdef int _minimise(Evaluator ev, Search* w, bint last_step, object callback) noexcept nogil:
    """Newton steps until the predicted decrease is below tol."""
    cdef int i, r = w.r, status
    cdef double mu = 0.0, last = HUGE_VAL, longest, size, predicted, f, top
    cdef double* B
    cdef bint secant
    w.has_C = False
    while True:
        _set_free(w)
        factorise(r, w.H, w.free, 0.0, w.L, w.piv)
        descend(r, w.L, w.piv, w.g, w.newton)
        w.decrement = -0.5 * dot(r, w.g, w.newton)
        status = _watch(w, callback)
        if status != GO_ON:
            return status
        if w.decrement < w.tol:
            if not last_step or w.decrement < 1e-2 * w.tol or _near_bounds(w, False):
                return CONVERGED
            last_step = False
        if w.iterations >= w.limit:
            return CONVERGED if w.decrement < w.tol else MAXITER
        w.iterations += 1
        B = w.H
        memcpy(w.step, w.newton, r * sizeof(double))
        if mu > 0.0:
            factorise(r, w.H, w.free, mu, w.L2, w.piv2)
            descend(r, w.L2, w.piv2, w.g, w.step)
        elif w.has_C and w.decrement < NEAR and w.decrement > SLOW * last:
            for i in range(r * r):
                w.B[i] = w.H[i] + w.C[i]
            factorise(r, w.B, w.free, 0.0, w.L2, w.piv2)
            secant = True
            for i in range(r):
                if not w.piv2[i] >= 0.1 * w.piv[i]:
                    secant = False
            if secant:
                B = w.B
                descend(r, w.L2, w.piv2, w.g, w.step)
        longest = w.cap * max(largest(r, w.theta), 0.1)
        size = largest(r, w.step)
        if size > longest:
            for i in range(r):
                w.step[i] *= longest / size
        for i in range(r):
            w.moved[i] = w.theta[i] + w.step[i]
        _project(w, w.moved)
        predicted = 0.0
        for i in range(r):
            w.d[i] = w.moved[i] - w.theta[i]
        for i in range(r):
            predicted -= w.d[i] * (w.g[i] + 0.5 * dot(r, B + i * r, w.d))
        f = w.value
        size = w.decrement
        top = 0.0
        for i in range(r):
            if w.H[i * r + i] > top:
                top = w.H[i * r + i]
        if _attempt(ev, w, w.moved, predicted, mu):
            last = size
            if mu > 0.0:
                mu = 0.0 if f - w.value > 0.5 * predicted or mu < 1e-6 * top else 0.1 * mu
            continue
        if mu == 0.0 and w.n_blocks > 0:
            _sigma_point(w, w.moved)
            if _attempt(ev, w, w.moved, predicted, mu):
                last = size
                continue
        if w.decrement < max(1e-8, NOISE * fabs(w.value)):
            return CONVERGED
        w.has_C = False
        mu = max(4.0 * mu, 1e-2 * top)
        if not mu > 0.0 or mu > 1e14 * top:
            return STALLED


# ------------------------------------------------------------------ certificate
cdef bint _certificate(Evaluator ev, Search* w, double* mineig, double* residual, double* singular, int* kinds,
                       double* vectors, int kmax) noexcept nogil:
    """Smallest eigenvalue, |M factor| and singularity per term; eigenvectors (terms, kmax)."""
    cdef int t, f, kf, lo, hi, i, j, c, n
    cdef double x, value
    cdef double* M
    cdef double* L
    cdef double* A = w.small
    cdef double* V
    if not w.fresh:
        w.evaluations += 1
        if ev.evaluate(w.theta, 1, &value, w.tg, NULL):
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
        kinds[t] = ev.c_kind[t]
        memset(A, 0, n * n * sizeof(double))
        if kinds[t] == 2:
            x = 0.0
            for i in range(lo, hi):
                x += M[i * kf + i]
            for i in range(n):
                A[i * n + i] = x / n
        else:
            for i in range(n):
                for j in range(n):
                    if kinds[t] == 0 or i == j:
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
        if kinds[t] == 0:
            # a block whose parameters are shared has no factor to turn: leave along a diagonal
            c = 0
            for i in range(w.n_blocks):
                for j in range(ev.n_entries):
                    if ev.e_fac[j] == f and ev.e_row[j] == lo and ev.e_col[j] == lo \
                            and w.blk_table[w.blk_off[i]] == ev.e_theta[j] and w.blk_k[i] == n:
                        c = 1
            if c == 0 and n > 1:
                kinds[t] = 1
        eigen(n, A, V)
        c = 0
        for i in range(n):
            if A[i * n + i] < A[c * n + c]:
                c = i
        mineig[t] = A[c * n + c]
        for i in range(n):
            vectors[t * kmax + i] = V[i * n + c]
        if kinds[t] == 1:
            c = lo
            for i in range(lo, hi):
                if M[i * kf + i] < M[c * kf + c]:
                    c = i
            for i in range(n):
                vectors[t * kmax + i] = 1.0 if lo + i == c else 0.0
    return True


cdef bint _escape(Evaluator ev, Search* w, double* mineig, double* residual, double* singular, int* kinds,
                  double* vectors, int kmax) noexcept nogil:
    """Leave a saddle point; True if the function fell."""
    cdef int t, i, j, e, n = 0, f, kf, lo, hi, best = -1, k
    cdef double s, x, q, slope, ai, gain, best_gain = 1e-8, tau = 0.0, h, c, y, a
    cdef double* D
    cdef double* M
    cdef double* v
    cdef double* lam = w.small
    cdef int* T
    if not _certificate(ev, w, mineig, residual, singular, kinds, vectors, kmax):
        return False
    # one direction per term that has a negative eigenvalue
    for t in range(ev.n_clips):
        if not mineig[t] < 0.0 or n >= ev.n_theta:
            continue
        f = ev.c_fac[t]
        kf = ev.k[f]
        lo = ev.c_from[t]
        D = ev.dS + n * ev.kk
        memset(D, 0, ev.kk * sizeof(double))
        D += ev.koff[f]
        for i in range(ev.c_to[t] - lo):
            for j in range(ev.c_to[t] - lo):
                if kinds[t] == 2:
                    D[(lo + i) * kf + lo + j] = 1.0 if i == j else 0.0
                else:
                    D[(lo + i) * kf + lo + j] = vectors[t * kmax + i] * vectors[t * kmax + j]
        w.mark[n] = t
        n += 1
    if n == 0:
        return False
    ev._set_factors(w.theta)
    ev.n_dir = n
    w.evaluations += 1
    w.fresh = False
    if ev.components(2):
        return False
    s = ev._scale()
    x = 0.0 if ev.sigma_fixed > 0.0 else s / ev.pwrss
    for i in range(n):
        t = w.mark[i]
        D = ev.dS + i * ev.kk
        q = dot(ev.kk, D, ev.S)
        slope = dot(ev.kk, D, ev.T) - s * q
        ai = s * ev.wpw[i * n + i] - x * q * q
        if not slope < 0.0 or not ai > 0.0:
            continue
        gain = slope * slope / (2.0 * ai)
        if gain > best_gain:
            best_gain = gain
            best = t
            tau = -slope / ai
    if best < 0:
        return False
    # the new factor
    f = ev.c_fac[best]
    kf = ev.k[f]
    lo = ev.c_from[best]
    k = ev.c_to[best] - lo
    memcpy(w.moved, w.theta, w.r * sizeof(double))
    v = vectors + best * kmax
    if kinds[best] == 0:
        for i in range(k):
            v[i] *= sqrt(tau)
            for j in range(k):
                lam[i * k + j] = ev.lam[ev.koff[f] + (lo + i) * kf + lo + j]
        for i in range(k):
            h = sqrt(lam[i * k + i] * lam[i * k + i] + v[i] * v[i])
            if h == 0.0:
                continue
            c = lam[i * k + i] / h
            s = v[i] / h
            for j in range(i, k):
                x = lam[j * k + i]
                y = v[j]
                lam[j * k + i] = c * x + s * y
                v[j] = c * y - s * x
        for e in range(ev.n_entries):
            if ev.e_fac[e] == f and ev.e_row[e] >= lo and ev.e_row[e] < lo + k:
                w.moved[ev.e_theta[e]] = lam[(ev.e_row[e] - lo) * k + ev.e_col[e] - lo]
    else:
        for e in range(ev.n_entries):
            if ev.e_fac[e] == f and ev.e_row[e] == ev.e_col[e] and ev.e_row[e] >= lo and ev.e_row[e] < lo + k \
                    and (kinds[best] == 2 or v[ev.e_row[e] - lo] != 0.0):
                i = ev.e_theta[e]
                w.moved[i] = sqrt(w.theta[i] * w.theta[i] + tau)
    a = 1.0
    for i in range(5):
        for j in range(w.r):
            w.trial[j] = w.theta[j] + a * (w.moved[j] - w.theta[j])
        _project(w, w.trial)
        _reflect(w, w.trial)
        if _evaluate(ev, w, w.trial) and w.trial_value < w.value - 1e-8 - NOISE * fabs(w.value):
            _accept(w)
            w.escapes += 1
            return True
        a *= 0.25
    return False


cdef int _run(Evaluator ev, Search* w, double* mineig, double* residual, double* singular, int* kinds,
              double* vectors, int kmax, object callback) noexcept nogil:
    cdef int i, j, status, snapped
    cdef double released
    _project(w, w.trial)
    _reflect(w, w.trial)
    for i in range(13):
        if i == 12:
            memcpy(w.theta, w.trial, w.r * sizeof(double))
            return NOT_POSITIVE_DEFINITE
        if _evaluate(ev, w, w.trial):
            break
        for j in range(w.r):
            w.trial[j] = min(max(0.1 * w.trial[j], w.lower[j]), w.upper[j])
    _accept(w)
    while True:
        status = _minimise(ev, w, True, callback)
        if status != CONVERGED:
            break
        snapped = _snap(ev, w)
        if not snapped:
            break
        status = _minimise(ev, w, snapped != 3, callback)
        if status != CONVERGED:
            break
        status = BOUNDARY
        # predicted decrease if nothing were frozen
        for i in range(w.r):
            w.mark[i] = w.frozen[i]
            w.frozen[i] = 0
        _set_free(w)
        for i in range(w.r):
            w.frozen[i] = w.mark[i]
        factorise(w.r, w.H, w.free, 0.0, w.L2, w.piv2)
        descend(w.r, w.L2, w.piv2, w.g, w.rest)
        released = -0.5 * dot(w.r, w.g, w.rest)
        if w.escapes >= w.escape_limit:
            if released > 1e-6:
                status = STALLED
            break
        if not _escape(ev, w, mineig, residual, singular, kinds, vectors, kmax):
            if not released > 1e-8:
                break
            w.escapes += 1                           # a diagonal was frozen at zero too soon
        memset(w.frozen, 0, w.r * sizeof(int))
    if not (w.fresh or status == CONVERGED or status == BOUNDARY) \
            or not _certificate(ev, w, mineig, residual, singular, kinds, vectors, kmax):
        for i in range(ev.n_clips):
            mineig[i] = residual[i] = HUGE_VAL - HUGE_VAL
    return status


def newton_minimize(Evaluator ev, theta0, lower=None, upper=None, double tol=1e-9, int maxiter=200, callback=None, *,
                    double max_seconds=0.0, double cap=10.0, double snap=1e-4, int escapes=8, bint trace=False):
    """Minimise the criterion of an Evaluator by Newton steps with average information plus curvature.

    Parameters
    ----------
    ev : Evaluator
    theta0 : array, shape (n_theta,)
        Start.
    lower, upper : array, shape (n_theta,), optional
        Bounds; by default 0 for diagonals of factors and none for the rest.
    tol : float
        Largest predicted decrease, in deviance units.
    maxiter : int
    callback : callable, optional
        ``callback(iteration, theta, value, decrement)`` before every step; a true return value ends the search.
        Without it the loop holds the GIL only to look for signals, ten times a second.
    max_seconds : float
        0 for no limit.
    cap, snap, escapes, trace
        As in mixedmodels.optimize.Control.

    Returns
    -------
    dict
        theta, value, gradient, hessian, status (int, in the order of mixedmodels.optimize.Status), iterations,
        evaluations, escapes, decrement, trace (array of rows (iteration, value, theta...)) and, per term,
        min_eigenvalues, residuals, singular.
    """
    cdef Search w
    cdef int r = ev.n_theta, rows = 0, f, e, kmax = 1, nc = ev.n_clips, status, i
    cdef double[::1] d, lo_, up_, th
    cdef int[::1] n
    memset(&w, 0, sizeof(Search))
    if r == 0:
        raise ValueError("the model has no covariance parameters to optimise")
    th = np.ascontiguousarray(theta0, dtype=np.float64)
    if th.shape[0] != r:
        raise ValueError(f"theta0 has {th.shape[0]} values, the model has {r} parameters")
    for f in range(ev.n_factors):
        rows += ev.k[f]
        kmax = max(kmax, ev.k[f])
    bounds = np.empty(2 * r)
    d = bounds
    if lower is None:
        for i in range(r):
            d[i] = -HUGE_VAL
        for e in range(ev.n_entries):
            if ev.e_row[e] == ev.e_col[e]:
                d[ev.e_theta[e]] = 0.0
    else:
        bounds[:r] = lower
    if upper is None:
        for i in range(r):
            d[r + i] = HUGE_VAL
    else:
        bounds[r:] = upper
    w.lower = &d[0]
    w.upper = w.lower + r
    w.r = r
    w.tol, w.limit, w.cap, w.near = tol, maxiter, cap, snap
    w.max_seconds, w.escape_limit = max_seconds, escapes
    w.trace = trace
    w.trace_size = (maxiter + 2) * (escapes + 2) if trace else 0
    w.watched = callback is not None
    ints = np.zeros(8 * r + 2 + 3 * rows + ev.kk + nc + 2, dtype=np.intc)
    n = ints
    cdef int* ip = &n[0]
    w.col_ptr = ip; ip += r + 1
    w.col_index = ip; ip += r
    w.blk_k = ip; ip += rows
    w.blk_off = ip; ip += rows
    w.blk_table = ip; ip += ev.kk
    w.reflected = ip; ip += r
    w.frozen = ip; ip += r
    w.free = ip; ip += r
    w.mark = ip; ip += r
    cdef int* times = ip
    ip += r
    cdef int* kinds = ip
    ip += nc
    cdef int* parent = ip                            # r + rows
    doubles = np.empty(12 * r + 6 * r * r + 3 * kmax * kmax + 3 * nc + nc * kmax + 1)
    d = doubles
    cdef double* base = &d[0]
    cdef double* p = base
    w.theta = p; p += r
    w.g = p; p += r
    w.trial = p; p += r
    w.tg = p; p += r
    w.moved = p; p += r
    w.step = p; p += r
    w.newton = p; p += r
    w.piv = p; p += r
    w.piv2 = p; p += r
    w.d = p; p += r
    w.rest = p; p += r
    w.H = p; p += r * r
    w.tH = p; p += r * r
    w.L = p; p += r * r
    w.L2 = p; p += r * r
    w.B = p; p += r * r
    w.C = p; p += r * r
    w.small = p; p += 3 * kmax * kmax
    cdef double* mineig = p
    cdef double* residual = mineig + nc
    cdef double* singular = residual + nc
    cdef double* vectors = singular + nc
    log = None
    if trace:
        log = np.empty((w.trace_size, r + 2))
        d = log.reshape(-1)
        w.log = &d[0]
    w.value = HUGE_VAL
    w.decrement = HUGE_VAL - HUGE_VAL
    memset(w.g, 0, r * sizeof(double))
    memset(w.H, 0, r * r * sizeof(double))
    memset(mineig, 0, 3 * nc * sizeof(double))
    memcpy(w.trial, &th[0], r * sizeof(double))
    errors = []
    watcher = (callback, errors)
    with nogil:
        w.started = _now()
        w.checked = w.started
        _structure(ev, &w, parent, times)
        status = _run(ev, &w, mineig, residual, singular, kinds, vectors, kmax, watcher)
    if isinstance(ev, CallbackEvaluator) and (<CallbackEvaluator>ev).error is not None:
        error = (<CallbackEvaluator>ev).error
        (<CallbackEvaluator>ev).error = None
        raise error
    if errors:
        raise errors[0]
    # w.theta and friends may have changed places inside `doubles`
    theta = doubles[w.theta - base:w.theta - base + r].copy()
    g = doubles[w.g - base:w.g - base + r].copy()
    H = doubles[w.H - base:w.H - base + r * r].reshape(r, r).copy()
    i = mineig - base
    return {
        "theta": theta, "value": w.value, "gradient": g, "hessian": H, "status": status,
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
