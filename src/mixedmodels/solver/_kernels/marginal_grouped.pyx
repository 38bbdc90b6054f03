# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Laplace's approximation with one grouping factor: modes, value and two exact derivatives.

The formulae are in ``marginal_grouped.h``. Groups are taken in chunks of about CHUNK rows; chunks are shared by
threads and their sums are added in order, so results do not depend on the number of threads.
"""

from cython.parallel cimport prange
from libc.string cimport memcpy, memset

import numpy as np

cdef extern from "marginal_grouped.h":
    enum:
        MG_START, MG_DONE, MG_RANGE, MG_NO_MODE, MG_NOT_PROPER, MG_GRADIENT
    ctypedef struct mg_problem:
        int C, A, k, p, ne, P, W, code, mean, m_count
        const int *pr
        const int *act
        const int *ei
        const int *ej
        const int *m1
        const int *m2
        const int *d1
        const int *d2
        const int *d3
        const int *d4
        Py_ssize_t n, m
        const Py_ssize_t *start
        const double *Z
        const double *X
        const double *offset
        const double *y
        const double *trials
        const double *constant
        const double *weights
        const double *gamma
        const double *lam
        double *warm
        double *u
        double *trial
        double *step
        double *F
        double *size
        signed char *status
        double *G
        double *U
        const double *move
    int mg_chunk(const mg_problem* q, int order, Py_ssize_t first, Py_ssize_t last, double* acc) noexcept nogil
    void mg_fixed(const mg_problem* q, int C, Py_ssize_t first, Py_ssize_t rows, double* out,
                  Py_ssize_t stride) noexcept nogil
    void mg_predict(const mg_problem* q, const double* fixed, double* eta, double* work) noexcept nogil
    int mg_advance_all(const mg_problem* q, const double* T, double* work) noexcept nogil
    int mg_accumulate_all(const mg_problem* q, int order, Py_ssize_t first, Py_ssize_t last, const double* T,
                          double* acc) noexcept nogil
    void mg_begin_all(const mg_problem* q) noexcept nogil
    void mg_table(int code, Py_ssize_t n, const double* y, const double* trials, const double* constant,
                  const double* weights, const double* eta, int order, int mean, double* out) noexcept nogil
    int MG_PENALISED(const mg_problem* q) noexcept nogil
    int MG_REST(const mg_problem* q) noexcept nogil
    int MG_B_PENALISED(const mg_problem* q) noexcept nogil
    int MG_B_REST(const mg_problem* q) noexcept nogil
    int MG_ENTRIES(const mg_problem* q) noexcept nogil
    int MG_SIZE(const mg_problem* q) noexcept nogil

cdef enum:
    CHUNK = 1024                     # rows of a chunk
    THREADED = 20000                 # rows from which threads pay

RANGE, NO_MODE, NOT_PROPER = MG_RANGE, MG_NO_MODE, MG_NOT_PROPER


def sort_rows(const int[::1] codes, Py_ssize_t m):
    """Rows by group, stable: first row of each group, (m + 1,), and the order, (n,), None where it is 0 .. n-1."""
    cdef Py_ssize_t i, n = codes.shape[0]
    cdef int g, sorted_already = 1
    first = np.zeros(m + 2, dtype=np.intp)
    cdef Py_ssize_t[::1] start = first
    cdef Py_ssize_t[::1] rows
    for i in range(n):
        start[codes[i] + 2] += 1
        if i and codes[i] < codes[i - 1]:
            sorted_already = 0
    for i in range(m):
        start[i + 2] += start[i + 1]
    if sorted_already:
        return first[1:], None
    order = np.empty(n, dtype=np.intp)
    rows = order
    for i in range(n):                                      # start[g + 1] moves from the first row to the end
        g = codes[i]
        rows[start[g + 1]] = i
        start[g + 1] += 1
    return first[:m + 1], order


def gather(const double[::1] values, const Py_ssize_t[::1] order):
    """``values[order]``."""
    cdef Py_ssize_t i, n = order.shape[0]
    out = np.empty(n)
    cdef double[::1] to = out
    with nogil:
        for i in range(n):
            to[i] = values[order[i]]
    return out


def place_columns(const double[:, :] values, order, const Py_ssize_t[::1] columns, int c, double[:, :, ::1] out):
    """``out[:, c, columns] = values[order]``; None as order leaves the rows where they are."""
    cdef Py_ssize_t i, j, r, n = values.shape[0], p = values.shape[1]
    cdef const Py_ssize_t[::1] rows
    cdef int move = order is not None
    if move:
        rows = order
    with nogil:
        for i in range(n):
            r = rows[i] if move else i
            for j in range(p):
                out[i, c, columns[j]] = values[r, j]


cdef const double* _pointer(object array):
    cdef const double[::1] v
    if array is None:
        return NULL
    v = array.reshape(-1)
    return &v[0] if v.shape[0] else NULL


def density_table(int code, y, trials, constant, weights, const double[:, ::1] eta, int order, bint mean,
                  int lines):
    """Log-densities of rows times their weights and derivatives, (lines, n), by the loops the passes use."""
    out = np.empty((lines, eta.shape[1]))
    cdef double[:, ::1] to = out
    if eta.shape[1]:
        mg_table(code, eta.shape[1], _pointer(y), _pointer(trials), _pointer(constant), _pointer(weights),
                 &eta[0, 0], order, mean, &to[0, 0])
    return out


def packed(predictor, entries, places, mode):
    """The places of all derivatives in one array, read-only for the passes."""
    ints = np.concatenate([[0], *(np.ravel(a) for a in (predictor, entries, *places, *mode[1:]))])
    return ints.astype(np.int32)


cdef class GroupedPasses:
    """The rows of one model, sorted by group.

    Parameters
    ----------
    start : ndarray of intp, shape (m + 1,)
        First row of each group.
    Z : ndarray, shape (n, k)
    predictor : ndarray of int32, shape (k,)
        The predictor that each column adds to.
    X : ndarray, shape (n, C, W)
        Coefficients' columns, padded with zeros: W is a multiple of 4, at least n_gamma + entries.
    n_gamma : int
    offset : ndarray, shape (C, n), or None
    entries : ndarray of int32, shape (2, ne)
        Rows and columns of the free entries of Lambda (k x k).
    places : tuple of ndarray of int32
        Places of the derivatives of order 1 .. 4 in a full table: shapes (C,), (C, C), ...
    mode : tuple
        Number of predictors of the tables of the mode search, the place of each column among them, and the
        places of their derivatives of order 1 and 2.
    code : int
        Compiled density; 0 for tables that are computed elsewhere.
    mean : bool
        Whether the mode search needs derivatives with respect to the first predictor only.
    y, trials, constant, weights : ndarray or None
        Rows of the compiled density.
    ints : ndarray of int32, optional
        What `packed` makes of predictor, entries, places and mode, if it is at hand.
    """

    cdef mg_problem q
    cdef object keep
    cdef Py_ssize_t chunks
    cdef Py_ssize_t[::1] bounds
    cdef double[::1] gamma, acc, work, at, move
    cdef bint predicts                 # whether U and `at` belong to the warm starts
    cdef double[:, ::1] lam
    cdef public object modes           # (m, k): spherical modes of the last evaluation
    cdef public object warm
    cdef int[::1] failures

    def __init__(self, start, Z, predictor, X, int n_gamma, offset, entries, places, mode, int code, bint mean,
                 y, trials, constant, weights, ints=None):
        cdef mg_problem* q = &self.q
        cdef const int[::1] v
        cdef const Py_ssize_t[::1] vs = start
        cdef double[::1] vd
        cdef signed char[::1] vc
        memset(q, 0, sizeof(mg_problem))
        cdef Py_ssize_t m = len(start) - 1, k = Z.shape[1]
        q.n, q.m, q.k, q.C, q.W = Z.shape[0], m, k, X.shape[1], X.shape[2]
        q.p, q.ne = n_gamma, entries.shape[1]
        q.P = q.p + q.ne
        if ints is None:
            ints = packed(predictor, entries, places, mode)
        v = ints
        q.pr = &v[0] + 1
        q.ei = q.pr + q.k
        q.ej = q.ei + q.ne
        q.d1 = q.ej + q.ne
        q.d2 = q.d1 + q.C
        q.d3 = q.d2 + q.C ** 2
        q.d4 = q.d3 + q.C ** 3
        q.act = q.d4 + q.C ** 4
        q.A = mode[0]
        q.m1 = q.act + q.k
        q.m2 = q.m1 + q.A
        q.m_count = (q.A + 1) * (q.A + 2) // 2
        q.start = &vs[0]
        q.code, q.mean = code, mean
        q.Z, q.X, q.offset = _pointer(Z), _pointer(X), _pointer(offset)
        q.y, q.trials, q.constant, q.weights = _pointer(y), _pointer(trials), _pointer(constant), _pointer(weights)
        self.warm, self.modes = np.zeros((m, k)), np.zeros((m, k))
        scratch = np.zeros(2 * m * k + 2 * m + 1)
        vd = self.warm.reshape(-1); q.warm = &vd[0]
        vd = self.modes.reshape(-1); q.trial = &vd[0]
        vd = scratch
        q.u = &vd[0]
        q.step = q.u + m * k
        q.F = q.step + m * k
        q.size = q.F + m
        status = np.zeros(m, dtype=np.int8)
        vc = status; q.status = &vc[0]
        self.gamma = np.zeros(q.W)
        self.lam = np.zeros((k, k))
        q.gamma, q.lam = &self.gamma[0], &self.lam[0, 0]
        derivatives = np.zeros(m * k * q.W + 1)
        vd = derivatives; q.U = &vd[0]
        self.at, self.move = np.zeros(q.W), np.zeros(q.W)
        self.keep = (derivatives, start, Z, X, offset, ints, y, trials, constant, weights, scratch, status)
        if q.n <= CHUNK:
            self.bounds = np.array((0, m), dtype=np.intp)
        else:
            first = np.flatnonzero(np.diff(start[:m] // CHUNK)) + 1
            self.bounds = np.concatenate([[0], first, [m]]).astype(np.intp)
        self.chunks = self.bounds.shape[0] - 1
        self.acc = np.zeros(self.chunks * MG_SIZE(q))
        self.failures = np.zeros(self.chunks, dtype=np.int32)
        self.work = np.zeros(16 * k * k + 8 * k + 8)

    cdef void _set(self, gamma, lam) except *:
        cdef const double[::1] g = gamma
        cdef const double[:, ::1] L = lam
        cdef int a, k = self.q.k
        cdef double x
        if g.shape[0] != self.q.p or L.shape[0] != k or L.shape[1] != k:
            raise ValueError("gamma or factors have the wrong shape")
        if self.q.p:
            memcpy(&self.gamma[0], &g[0], self.q.p * sizeof(double))
        memcpy(&self.lam[0, 0], &L[0, 0], k * k * sizeof(double))
        for a in range(self.q.P):
            x = self.gamma[a] if a < self.q.p else L[self.q.ei[a - self.q.p], self.q.ej[a - self.q.p]]
            self.move[a] = x - self.at[a]
            self.at[a] = x
        self.q.move = &self.move[0] if self.predicts else NULL
        self.predicts = False

    cdef void _clear(self, int order) noexcept nogil:
        cdef Py_ssize_t c, size = MG_SIZE(&self.q), head = MG_GRADIENT + self.q.W
        for c in range(self.chunks):
            memset(&self.acc[c * size], 0, (size if order >= 2 else head) * sizeof(double))

    # ---------------------------------------------------------------- with a compiled density
    def evaluate(self, gamma, lam, int order, G=None):
        """Mode search and sums; (status, value, gradient, hessian, penalised)."""
        cdef Py_ssize_t c, chunks = self.chunks, size = MG_SIZE(&self.q)
        cdef int worst = MG_DONE, failed
        cdef double[:, :, ::1] g
        self._set(gamma, lam)
        self.q.G = NULL
        if G is not None:
            g = G
            self.q.G = &g[0, 0, 0]
        with nogil:
            self._clear(order)
            if self.q.n >= THREADED:
                for c in prange(chunks, schedule="dynamic", chunksize=4):
                    self.failures[c] = mg_chunk(&self.q, order, self.bounds[c], self.bounds[c + 1],
                                                &self.acc[c * size])
            else:
                for c in range(chunks):
                    self.failures[c] = mg_chunk(&self.q, order, self.bounds[c], self.bounds[c + 1],
                                                &self.acc[c * size])
                    if self.failures[c] > MG_DONE:
                        break
            for c in range(chunks):
                if self.failures[c] > MG_DONE:
                    worst = self.failures[c]
                    self.failures[c] = 0
                    break
        self.q.G = NULL
        if worst > MG_DONE:
            return worst, 0.0, None, None, None
        return self._collect(order)

    # ---------------------------------------------------------------- with tables from outside
    def begin(self, gamma, lam, double[:, ::1] fixed):
        """Starts a mode search: fixed parts of the predictors, (C, n)."""
        self._set(gamma, lam)
        mg_begin_all(&self.q)
        if self.q.n:
            mg_fixed(&self.q, self.q.C, 0, self.q.n, &fixed[0, 0], self.q.n)

    def predict(self, const double[:, ::1] fixed, double[:, ::1] eta):
        """Linear predictors at the trial modes."""
        with nogil:
            mg_predict(&self.q, &fixed[0, 0], &eta[0, 0], &self.work[0])

    def advance(self, const double[:, ::1] table):
        """One step of all groups from a table of order 2; how many still search, and the worst status."""
        cdef int searching, worst = MG_DONE
        cdef Py_ssize_t g
        with nogil:
            searching = mg_advance_all(&self.q, &table[0, 0], &self.work[0])
            for g in range(self.q.m):
                if self.q.status[g] > worst:
                    worst = self.q.status[g]
        return searching, (0 if worst == MG_DONE else worst)

    def accumulate(self, const double[:, ::1] table, int order, G=None):
        """Sums at the modes from a table of order 2 + order; as `evaluate`."""
        cdef Py_ssize_t c, chunks = self.chunks, size = MG_SIZE(&self.q)
        cdef double[:, :, ::1] g
        cdef int ok = 1
        self.q.G = NULL
        if G is not None:
            g = G
            self.q.G = &g[0, 0, 0]
        with nogil:
            self._clear(order)
            if self.q.n >= THREADED:
                for c in prange(chunks, schedule="dynamic", chunksize=4):
                    self.failures[c] = mg_accumulate_all(&self.q, order, self.bounds[c], self.bounds[c + 1],
                                                         &table[0, 0], &self.acc[c * size])
            else:
                for c in range(chunks):
                    self.failures[c] = mg_accumulate_all(&self.q, order, self.bounds[c], self.bounds[c + 1],
                                                         &table[0, 0], &self.acc[c * size])
            for c in range(chunks):
                if not self.failures[c]:
                    ok = 0
        self.q.G = NULL
        if not ok:
            return MG_NOT_PROPER, 0.0, None, None, None
        return self._collect(order)

    # ---------------------------------------------------------------- results
    cdef object _collect(self, int order):
        cdef mg_problem* q = &self.q
        cdef Py_ssize_t c, i, size = MG_SIZE(q), head = MG_GRADIENT + q.W
        cdef int P = q.P, W = q.W, p = q.p, ne = q.ne, a, b
        cdef double* total = &self.acc[0]
        cdef double[::1] gradient
        cdef double[:, ::1] hessian, penalised
        cdef double x, y
        cdef double finite = 0.0
        cdef const double* pen = total + MG_PENALISED(q)
        cdef const double* rest = total + MG_REST(q)
        cdef const double* bp = total + MG_B_PENALISED(q)
        cdef const double* br = total + MG_B_REST(q)
        cdef const double* ee = total + MG_ENTRIES(q)
        if order >= 2:
            head = size
        elif order == 0:
            head = 1
        for c in range(1, self.chunks):
            for i in range(head):
                total[i] += self.acc[c * size + i]
        for i in range(head):
            finite += total[i] * 0.0
        if finite != 0.0:
            return MG_RANGE, 0.0, None, None, None
        memcpy(q.warm, q.trial, q.m * q.k * sizeof(double))
        self.predicts = order > 0
        if order == 0:
            return MG_DONE, 2.0 * total[0], None, None, None
        out = np.empty(P)
        gradient = out
        for a in range(P):
            gradient[a] = 2.0 * total[MG_GRADIENT + a]
        if order == 1:
            return MG_DONE, 2.0 * total[0], out, None, None
        first, second = np.empty((P, P)), np.empty((P, P))
        hessian, penalised = first, second
        for a in range(P):
            for b in range(a + 1):
                x = pen[a * W + b]
                y = rest[a * W + b]
                if a >= p:
                    x += bp[(a - p) * W + b]
                    y += br[(a - p) * W + b]
                if b >= p:
                    x += bp[(b - p) * W + a]
                    y += br[(b - p) * W + a] + ee[(a - p) * ne + b - p]
                penalised[a, b] = penalised[b, a] = 2.0 * x
                hessian[a, b] = hessian[b, a] = 2.0 * (x + y)
        return MG_DONE, 2.0 * total[0], out, first, second
