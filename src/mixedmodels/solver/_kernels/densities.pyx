# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Tables of log-densities and derivatives of many rows; the formulas are in ``densities.h``."""

import numpy as np

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
