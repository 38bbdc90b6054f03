# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Tables of log-densities and derivatives of many rows; the formulas are in ``densities.h``."""

from libc.math cimport fabs, isfinite, sqrt

import numpy as np

cdef extern from "density_rows.h":
    void mm_density_table(int code, Py_ssize_t n, const double* y, const double* trials, const double* constant,
                          const double* weights, const double* eta, int order, int mean, double* out) noexcept nogil

cdef extern from "densities.h":
    int mm_density(int code, double y, double trials, double constant, const double* eta, int order,
                   double* out) noexcept nogil
    int mm_density_mean(int code, double y, double trials, double constant, const double* eta, int order,
                        double* out) noexcept nogil
    int mm_density_predictors(int code) noexcept nogil
    int mm_density_count(int code, int order) noexcept nogil


def table(int code, const double[::1] y, object trials, object weights, object constant, object eta, int order,
          bint mean_only):
    """Log-density of each row times its weight and partial derivatives, shape (count, n).

    `eta` holds one contiguous (n,) array per predictor; `trials`, `weights` and `constant` are such arrays or
    None. With `mean_only` derivatives are taken with respect to the first predictor alone.
    """
    cdef Py_ssize_t n = y.shape[0], i
    cdef int C = mm_density_predictors(code), k
    if len(eta) != C or not 0 <= order <= 4:
        raise ValueError("the arrays of a density table do not fit together")
    cdef int count = order + 1 if mean_only else mm_density_count(code, order)
    cdef const double[::1] m = trials if trials is not None else y
    cdef const double[::1] w = weights if weights is not None else y
    cdef const double[::1] c = constant if constant is not None else y
    cdef const double[::1] e0 = eta[0]
    cdef const double[::1] e1 = eta[1] if C > 1 else eta[0]
    cdef const double[::1] e2 = eta[2] if C > 2 else eta[0]
    cdef bint has_m = trials is not None, has_w = weights is not None, has_c = constant is not None
    if m.shape[0] != n or w.shape[0] != n or c.shape[0] != n or e0.shape[0] != n or e1.shape[0] != n or e2.shape[0] != n:
        raise ValueError("the arrays of a density table do not fit together")
    out = np.empty((count, n))
    cdef double[:, ::1] o = out
    cdef double row[35]
    cdef double x[3]
    if C == 1:
        if n:
            with nogil:
                mm_density_table(code, n, &y[0], &m[0] if has_m else NULL, &c[0] if has_c else NULL,
                                 &w[0] if has_w else NULL, &e0[0], order, 1, &o[0, 0])
        return out
    with nogil:
        for i in range(n):
            x[0] = e0[i]
            x[1] = e1[i]
            x[2] = e2[i]
            if mean_only:
                mm_density_mean(code, y[i], m[i] if has_m else 1.0, c[i] if has_c else 0.0, x, order, row)
            else:
                mm_density(code, y[i], m[i] if has_m else 1.0, c[i] if has_c else 0.0, x, order, row)
            if has_w:
                for k in range(count):
                    o[k, i] = w[i] * row[k]
            else:
                for k in range(count):
                    o[k, i] = row[k]
    return out


def reweighted(int code, const double[::1] y, object trials, object weights, object constant, const double[:, :] X,
               object offset, const double[::1] start, int steps):
    """Coefficients of a density with one predictor after `steps` of reweighted least squares.

    The first coefficients fit the predictor `start`, (n,). A step that lowers the log-likelihood is taken back.

    Returns
    -------
    (gamma, weights, residual) or None
        With ``w = -f''`` (small where that is not positive) and ``f' / w``, (n,) each; None where a mean is out
        of its range or the least squares are singular.
    """
    cdef Py_ssize_t n = y.shape[0], i
    cdef int p = <int>X.shape[1], j, k, step
    cdef const double[::1] m = trials if trials is not None else y
    cdef const double[::1] pw = weights if weights is not None else y
    cdef const double[::1] c = constant if constant is not None else y
    cdef const double[::1] o = offset if offset is not None else y
    cdef bint has_m = trials is not None, has_w = weights is not None, has_c = constant is not None
    cdef bint has_o = offset is not None, weighted = False
    if n == 0 or p == 0 or X.shape[0] != n or start.shape[0] != n or mm_density_predictors(code) != 1:
        return None
    found, kept = np.zeros(p), np.zeros(p)
    ws, rs, kept_w, kept_r = np.ones(n), np.zeros(n), np.ones(n), np.zeros(n)
    etas, tables, grams, targets = np.array(start), np.empty((3, n)), np.empty((p, p)), np.empty(p)
    cdef double[::1] gamma = found, w = ws, r = rs, eta = etas, b = targets
    cdef double[:, ::1] T = tables, G = grams
    cdef double value = 0.0, total, size, v, z, least
    cdef int ok = 1
    for step in range(steps + 1):
        with nogil:
            for j in range(p):                              # X'W(target), X'WX and its factor
                b[j] = 0.0
                for k in range(p):
                    G[j, k] = 0.0
            for i in range(n):
                v = w[i] if weighted else 1.0
                z = eta[i] + (r[i] if weighted else 0.0)
                if has_o:
                    z -= o[i]
                for j in range(p):
                    size = v * X[i, j]
                    b[j] += size * z
                    for k in range(j + 1):
                        G[j, k] += size * X[i, k]
            size = 0.0
            for j in range(p):
                size += G[j, j]
            size = 1e-10 * size / p
            for j in range(p):
                for k in range(j + 1):
                    v = G[j, k] + (size if j == k else 0.0)
                    for i in range(k):
                        v -= G[j, i] * G[k, i]
                    if j > k:
                        G[j, k] = v / G[k, k]
                    elif v > 0.0:
                        G[j, j] = sqrt(v)
                    else:
                        ok = 0
                        G[j, j] = 1.0
            for j in range(p):
                for k in range(j):
                    b[j] -= G[j, k] * b[k]
                b[j] /= G[j, j]
            for j in range(p - 1, -1, -1):
                for k in range(j + 1, p):
                    b[j] -= G[k, j] * b[k]
                b[j] /= G[j, j]
                gamma[j] = b[j]
            for i in range(n):
                v = o[i] if has_o else 0.0
                for j in range(p):
                    v += X[i, j] * gamma[j]
                eta[i] = v
            mm_density_table(code, n, &y[0], &m[0] if has_m else NULL, &c[0] if has_c else NULL,
                             &pw[0] if has_w else NULL, &eta[0], 2, 1, &T[0, 0])
            total, size, k = 0.0, 0.0, 0
            for i in range(n):
                total += T[0, i]
                if isfinite(T[2, i]):
                    size += fabs(T[2, i])
                    k += 1
        if not ok or not isfinite(total):
            return None
        if step and not total >= value:
            return kept, kept_w, kept_r
        size = size / k if k else 1.0
        least = max(1e-6 * size, 1e-300)
        with nogil:
            for i in range(n):
                w[i] = -T[2, i] if isfinite(T[2, i]) and T[2, i] < -1e-6 * size else least
                r[i] = T[1, i] / w[i] if isfinite(T[1, i]) else 0.0
        value, weighted = total, True
        if step < steps:
            kept[:], kept_w[:], kept_r[:] = found, ws, rs
    return found, ws, rs
