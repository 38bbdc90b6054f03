# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One model fitted to many responses: a loop without Python objects.

For each response only Z'y, X'y and y'y are new. The response is centred by its own least-squares fit before anything
is squared (X~ is orthonormal in the mean), and the Newton loop starts from given parameters.
"""

from libc.math cimport HUGE_VAL, sqrt
from libc.string cimport memset

import numpy as np

from mixedmodels.solver._kernels.evaluator cimport Evaluator
from mixedmodels.solver._kernels.newton cimport NewtonLoop

cdef enum:
    MOST_FACTORS = 64
    INTERRUPTED = 3                  # as in newton.pyx: a signal arrived
    FAILED = 7                       # the estimates cannot be computed


cdef void _centre(Py_ssize_t n, int p, const double* X, double* r, double* b, double* g) noexcept nogil:
    """r -= X b with b = X'r / n, twice; g = X'r of what remains."""
    cdef Py_ssize_t i
    cdef int j, time
    cdef double s
    cdef const double* row
    memset(b, 0, p * sizeof(double))
    for time in range(3):
        memset(g, 0, p * sizeof(double))
        for i in range(n):
            s = r[i]
            row = X + i * p
            for j in range(p):
                g[j] += row[j] * s
        if time == 2:
            return
        for j in range(p):
            g[j] /= n
            b[j] += g[j]
        for i in range(n):
            s = r[i]
            row = X + i * p
            for j in range(p):
                s -= row[j] * g[j]
            r[i] = s


def can_refit(Evaluator ev, levels):
    """Whether the compiled Newton loop takes the model: its parameters fall apart into full lower triangles."""
    cdef NewtonLoop loop = NewtonLoop.__new__(NewtonLoop)
    return ev.n_factors <= MOST_FACTORS and loop.prepare(ev, levels, 1e-9, 1, 0.0, 10.0)


def refit_columns(Evaluator ev, levels, theta0, Y, base, sqrt_weights, double scale, X, codes, Z, *, double tol=1e-9,
                  int maxiter=200):
    """Fit an evaluator of its own data to each row of Y, starting from theta0.

    Parameters
    ----------
    ev : Evaluator
        One that can `respond`.
    levels : sequence of float
        Levels of each factor.
    theta0 : ndarray, shape (n_theta,)
        Start, in internal coordinates.
    Y : ndarray, shape (N, n)
        Responses, one a row.
    base : ndarray, shape (n,)
        Taken off each response: offset and a fit of the fixed effects.
    sqrt_weights : ndarray, shape (n,)
    scale : float
        What is left is divided by it.
    X : ndarray, shape (n, p)
        Fixed-effects columns in internal coordinates.
    codes, Z : list of ndarray, shapes (n,) and (n, k)
        Level and columns in internal coordinates of each row, per factor.

    Returns
    -------
    tuple
        theta (N, n_theta), criterion (N,), pwrss (N,), beta (N, p), vcov (N, p, p) - all in internal coordinates, NaN
        where they could not be computed - and status (N,), in the order of mixedmodels.optimize.Status, 7 for none.
    """
    cdef const double[:, ::1] Yv = np.ascontiguousarray(Y, dtype=np.float64)
    cdef const double[::1] bv = np.ascontiguousarray(base, dtype=np.float64)
    cdef const double[::1] sv = np.ascontiguousarray(sqrt_weights, dtype=np.float64)
    cdef const double[:, ::1] Xv = np.ascontiguousarray(X, dtype=np.float64)
    cdef const double[::1] t0 = np.ascontiguousarray(theta0, dtype=np.float64)
    cdef Py_ssize_t N = Yv.shape[0], n = Yv.shape[1], j, i, at, size = 0
    cdef int p = ev.p, r = ev.n_theta, F = ev.n_factors, f, k, a
    cdef double yy, s, value
    cdef const int* code[MOST_FACTORS]
    cdef const double* column[MOST_FACTORS]
    cdef Py_ssize_t offset[MOST_FACTORS]
    cdef const int[::1] cv
    cdef const double[:, ::1] zv
    if F > MOST_FACTORS or len(codes) != F or len(Z) != F or bv.shape[0] != n or sv.shape[0] != n \
            or Xv.shape[0] != n or Xv.shape[1] != p or t0.shape[0] != r:
        raise ValueError("the arrays do not belong to this evaluator")
    keep = []
    for f in range(F):
        own = (np.ascontiguousarray(codes[f], dtype=np.intc), np.ascontiguousarray(Z[f], dtype=np.float64))
        cv, zv = own
        if cv.shape[0] != n or zv.shape[0] != n or zv.shape[1] != ev.k[f]:
            raise ValueError(f"the rows of factor {f} do not belong to this evaluator")
        keep.append(own)
        code[f] = &cv[0]
        column[f] = &zv[0, 0]
        offset[f] = size
        size += <Py_ssize_t>levels[f] * ev.k[f]
    theta_, criterion_, pwrss_ = np.full((N, r), np.nan), np.full(N, np.nan), np.full(N, np.nan)
    beta_, vcov_, status_ = np.full((N, p), np.nan), np.full((N, p, p), np.nan), np.full(N, FAILED, dtype=np.intc)
    work = np.empty(n + size + 3 * p + p * p + r + 1)
    cdef double[:, ::1] theta = theta_
    cdef double[::1] criterion = criterion_
    cdef double[::1] pwrss = pwrss_
    cdef double[:, ::1] beta = beta_
    cdef double[:, :, ::1] vcov = vcov_
    cdef int[::1] status = status_
    cdef double[::1] wv = work
    cdef double* e = &wv[0]
    cdef double* zy = e + n
    cdef double* b0 = zy + size
    cdef double* xy = b0 + p
    cdef double* b = xy + p
    cdef double* V = b + p
    cdef double* th = V + p * p
    cdef const double* Xp = &Xv[0, 0] if p else NULL
    cdef const double* z
    cdef double* to
    cdef NewtonLoop loop = NewtonLoop.__new__(NewtonLoop)
    if not loop.prepare(ev, levels, tol, maxiter, 0.0, 10.0):
        return None
    with nogil:
        for j in range(N):
            for i in range(n):
                e[i] = (Yv[j, i] - bv[i]) * sv[i] / scale
            _centre(n, p, Xp, e, b0, xy)
            yy = 0.0
            for i in range(n):
                yy += e[i] * e[i]
            memset(zy, 0, size * sizeof(double))
            for f in range(F):
                k = ev.k[f]
                z = column[f]
                for i in range(n):
                    to = zy + offset[f] + <Py_ssize_t>code[f][i] * k
                    for a in range(k):
                        to[a] += z[i * k + a] * e[i]
            if ev.respond(zy, xy, yy):
                with gil:
                    raise ValueError("the evaluator does not take other responses")
            status[j] = loop.run(&t0[0], th, &value)
            if status[j] == INTERRUPTED:
                with gil:
                    raise (loop.watcher[1] or [KeyboardInterrupt()])[0]
            ev._set_factors(th)
            if ev.estimates(b, V) or not value < HUGE_VAL:
                status[j] = FAILED
                continue
            criterion[j] = value
            pwrss[j] = ev.pwrss
            for i in range(r):
                theta[j, i] = th[i]
            for i in range(p):
                beta[j, i] = b0[i] + b[i]
                for a in range(p):
                    vcov[j, i, a] = V[i * p + a]
    return theta_, criterion_, pwrss_, beta_, vcov_, status_
