# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Linear algebra of matrices so small that calling LAPACK costs more than the arithmetic.

Those that go by Cholesky return None where a pivot is lost in rounding: callers have a slower way then.
"""

from libc.math cimport INFINITY, NAN

import numpy as np

cdef double LOST = 1e-10             # pivots, relative to the diagonal
cdef enum:
    LARGE = 64                       # from here on LAPACK is faster


cdef extern from "lower_triangles.h" nogil:
    bint mm_lower_factor(double* A, int p, double lost)
    void mm_lower_inverse(const double* L, double* M, int p)
    void mm_lower_square(const double* M, double* H, int p)


def newton_step(const double[:, :] H, const double[:] g):
    """Newton's step ``-H^{-1} g`` and the decrease it promises, ``g'H^{-1}g / 2``.

    Returns
    -------
    (step, decrement) or None
        None where H is not safely positive definite.
    """
    cdef int p = <int>g.shape[0], i, j
    if not 0 < p <= LARGE or H.shape[0] != p or H.shape[1] != p:
        return None
    cdef double A[LARGE * LARGE]
    cdef double z[LARGE]
    cdef double d = 0.0
    for i in range(p):
        for j in range(i + 1):
            A[i * p + j] = H[i, j]
        z[i] = -g[i]
    if not mm_lower_factor(A, p, LOST):
        return None
    for i in range(p):
        if A[i * p + i] * A[i * p + i] < LOST:
            return None
        for j in range(i):
            z[i] -= A[i * p + j] * z[j]
        z[i] /= A[i * p + i]
        d += z[i] * z[i]
    step = np.empty(p)
    cdef double[::1] s = step
    for i in range(p - 1, -1, -1):
        for j in range(i + 1, p):
            z[i] -= A[j * p + i] * z[j]
        z[i] /= A[i * p + i]
        s[i] = z[i]
    return step, 0.5 * d


def inverse(const double[:, :] H):
    """Inverse of a positive definite matrix, or None."""
    cdef int p = <int>H.shape[0], i, j
    if not 0 < p <= LARGE or H.shape[1] != p:
        return None
    cdef double A[LARGE * LARGE]
    cdef double M[LARGE * LARGE]
    for i in range(p):
        for j in range(i + 1):
            A[i * p + j] = H[i, j]
    if not mm_lower_factor(A, p, LOST):
        return None
    mm_lower_inverse(A, M, p)
    out = np.empty((p, p))
    cdef double[:, ::1] o = out
    mm_lower_square(M, &o[0, 0], p)
    return out


def upper_inverse(const double[:, :] R):
    """Inverse of an upper triangular matrix with a diagonal without zeros, shape (p, p)."""
    cdef Py_ssize_t p = R.shape[0], i, j, l
    cdef double v
    out = np.zeros((p, p))
    cdef double[:, ::1] B = out
    for j in range(p):
        B[j, j] = 1.0 / R[j, j]
        for i in range(j - 1, -1, -1):
            v = 0.0
            for l in range(i + 1, j + 1):
                v -= R[i, l] * B[l, j]
            B[i, j] = v / R[i, i]
    return out


def moment_df(const double[:] v, const double[:, :] g, const double[:, :] A):
    """Degrees of freedom ``2 v^2 / (g'Ag)`` of estimated variances v, from the columns of g.

    Parameters
    ----------
    v : ndarray, shape (r,)
    g : ndarray, shape (s, r)
        Derivatives of v in s parameters with covariance A, (s, s).

    Returns
    -------
    ndarray, shape (r,)
        Infinite where ``g'Ag`` is zero: v is known (NaN if it is zero or missing).
    """
    cdef Py_ssize_t r = v.shape[0], s = A.shape[0], i, j, l
    cdef double spread, part
    out = np.empty(r)
    cdef double[::1] df = out
    for l in range(r):
        spread = 0.0
        for i in range(s):
            part = 0.0
            for j in range(s):
                part += A[i, j] * g[j, l]
            spread += g[i, l] * part
        if spread != 0.0:
            df[l] = 2.0 * v[l] * v[l] / spread
        else:
            df[l] = INFINITY if v[l] > 0.0 else NAN
    return out


def orthonormal(const double[:, :] X):
    """Columns with ``Q'Q = n I`` and the same span: ``X = Q G``, G upper triangular with positive diagonal.

    Returns
    -------
    (Q, G, inverse of G) or None
        None where columns are nearly collinear or many.
    """
    cdef Py_ssize_t n = X.shape[0], r
    cdef int p = <int>X.shape[1], i, j
    if not 0 < p <= 16 or n == 0:
        return None
    cdef double A[256]
    cdef double M[256]
    cdef double v
    for i in range(p * p):
        A[i] = 0.0
    for r in range(n):
        for i in range(p):
            v = X[r, i]
            for j in range(i + 1):
                A[i * p + j] += v * X[r, j]
    for i in range(p):
        for j in range(i + 1):
            A[i * p + j] /= n
    if not mm_lower_factor(A, p, 1e-6):
        return None
    mm_lower_inverse(A, M, p)
    columns, upper, back = np.empty((n, p)), np.zeros((p, p)), np.zeros((p, p))
    cdef double[:, ::1] Q = columns, G = upper, B = back
    for i in range(p):
        for j in range(i + 1):
            G[j, i] = A[i * p + j]
            B[j, i] = M[i * p + j]
    for r in range(n):
        for i in range(p):
            v = 0.0
            for j in range(i + 1):
                v += X[r, j] * M[i * p + j]
            Q[r, i] = v
    return columns, upper, back
