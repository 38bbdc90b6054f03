# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Passes over the columns of a model frame, where a chain of array operations costs more than the arithmetic."""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.math cimport INFINITY, fabs, fmax, fmin, isfinite, log, rint, sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free

import numpy as np

cdef uint64_t EXPONENT = 0x7ff0000000000000, ONE = 0x0010000000000000
cdef enum:
    WIDE = 16                        # from so many columns on BLAS is faster


cdef extern from "lower_triangles.h" nogil:
    bint mm_lower_factor(double* A, int p, double lost)


def text_codes(list values):
    """Codes and sorted distinct values of texts; None if one of the values is not text.

    Returns
    -------
    (codes, levels) or None
        Shape (n,), int32, and a list.
    """
    cdef Py_ssize_t n = len(values), i
    cdef int32_t m = 0
    cdef dict found = {}
    cdef PyObject* known
    out = np.empty(n, dtype=np.int32)
    cdef int32_t[::1] codes = out
    for i in range(n):
        known = PyDict_GetItem(found, values[i])
        if known != NULL:
            codes[i] = <int32_t> <object> known
            continue
        if type(values[i]) is not str:
            return None
        found[values[i]] = m
        codes[i] = m
        m += 1
    levels = sorted(found)
    places = np.empty(m, dtype=np.int32)
    cdef int32_t[::1] place = places
    for i in range(m):
        place[<int32_t> found[levels[i]]] = <int32_t> i
    for i in range(n):
        codes[i] = place[codes[i]]
    return out, levels


def every_level(const int32_t[:] codes, Py_ssize_t m):
    """Whether all codes 0 .. m - 1 occur; other codes do not count."""
    cdef Py_ssize_t i, left = m
    cdef char* seen = <char*> calloc(m + 1, 1)
    if seen == NULL:
        raise MemoryError
    for i in range(codes.shape[0]):
        if 0 <= codes[i] < m and not seen[codes[i]]:
            seen[codes[i]] = 1
            left -= 1
            if left == 0:
                break
    free(seen)
    return left == 0


def none_missing(const int32_t[:] codes):
    """Whether no code is negative."""
    cdef Py_ssize_t n = codes.shape[0], i
    cdef int32_t all_bits = 0
    cdef const int32_t* code
    if n and codes.strides[0] == sizeof(int32_t):
        code = &codes[0]
        for i in range(n):
            all_bits |= code[i]
    else:
        for i in range(n):
            all_bits |= codes[i]
    return all_bits >= 0


def dummies(const int32_t[:] codes, int first, double[:, :] out):
    """Write the dummies of the codes `first`, `first` + 1, ... into the columns of `out`."""
    cdef Py_ssize_t n = codes.shape[0], i
    cdef int width = <int> out.shape[1], j
    cdef const int32_t* code
    cdef double* column
    cdef int32_t level
    if n and width and out.strides[0] == sizeof(double) and codes.strides[0] == sizeof(int32_t):
        code = &codes[0]
        for j in range(width):
            column, level = &out[0, j], first + j
            for i in range(n):
                column[i] = <double> <int> (code[i] == level)
        return
    for i in range(n):
        for j in range(width):
            out[i, j] = codes[i] == first + j


def product(const double[:] a, const double[:] b, double[:] out):
    """Write the products of two columns; what overflows is infinite."""
    cdef Py_ssize_t n = out.shape[0], i
    cdef const double* x
    cdef const double* y
    cdef double* z
    if n and a.strides[0] == b.strides[0] == out.strides[0] == sizeof(double):
        x, y, z = &a[0], &b[0], &out[0]
        for i in range(n):
            z[i] = x[i] * y[i]
        return
    for i in range(n):
        out[i] = a[i] * b[i]


def spread(const double[:] values):
    """Standard deviation with divisor n - 1; 0 of a single value."""
    cdef Py_ssize_t n = values.shape[0], i
    cdef double first = values[0] if n else 0.0, mean, a = 0.0, b = 0.0, c = 0.0, d = 0.0
    for i in range(0, n - 3, 4):  # four sums side by side: none waits for the one before
        a += values[i] - first    # differences from a value of the sample: no digits are lost
        b += values[i + 1] - first
        c += values[i + 2] - first
        d += values[i + 3] - first
    for i in range(n - n % 4, n):
        a += values[i] - first
    mean = first + (a + b + c + d) / n if n else 0.0
    a = b = c = d = 0.0
    for i in range(0, n - 3, 4):
        a += (values[i] - mean) * (values[i] - mean)
        b += (values[i + 1] - mean) * (values[i + 1] - mean)
        c += (values[i + 2] - mean) * (values[i + 2] - mean)
        d += (values[i + 3] - mean) * (values[i + 3] - mean)
    for i in range(n - n % 4, n):
        a += (values[i] - mean) * (values[i] - mean)
    return sqrt((a + b + c + d) / (n - 1)) if n > 1 else 0.0


def all_finite(const double[:] values):
    """Whether no value is infinite or NaN."""
    cdef Py_ssize_t n = values.shape[0], i, start = 0, stop
    cdef uint64_t worst
    cdef const uint64_t* bits
    if n and values.strides[0] == sizeof(double):
        bits = <const uint64_t*> &values[0]
        while start < n:
            stop = min(start + 1024, n)
            worst = 0
            for i in range(start, stop):
                worst |= (bits[i] & EXPONENT) + ONE  # only an exponent of ones reaches the highest bit
            if worst >> 63:
                return False
            start = stop
        return True
    for i in range(n):
        if not isfinite(values[i]):
            return False
    return True


def whole_numbers(const double[:] values, double tolerance):
    """Values rounded to whole numbers, and the first that is none, relative to the larger of 1 and its size.

    Returns
    -------
    (rounded, place)
        `place` is -1 if all are whole numbers.
    """
    cdef Py_ssize_t n = values.shape[0], i, place = -1
    out = np.empty(n)
    cdef double[::1] whole = out
    for i in range(n):
        whole[i] = rint(values[i])
        if place < 0 and fabs(values[i] - whole[i]) > tolerance * fmax(1.0, fabs(values[i])):
            place = i
    return out, place


def neighbours(const int64_t[:] codes, const double[:] times):
    """Rows that follow another one of their group, and the time between the two, for rows in order.

    Returns
    -------
    (later, gaps, smallest, largest) or None
        Places of these rows, gaps, and the extreme gaps (inf and -inf if there is none); None where the rows
        are not in the order of group and time.
    """
    cdef Py_ssize_t n = codes.shape[0], i, m = 0
    for i in range(1, n):
        if codes[i] == codes[i - 1]:
            if not times[i] >= times[i - 1]:
                return None
            m += 1
        elif codes[i] < codes[i - 1]:
            return None
    later_, gaps_ = np.empty(m, dtype=np.intp), np.empty(m)
    cdef Py_ssize_t[::1] later = later_
    cdef double[::1] gaps = gaps_
    cdef double smallest = INFINITY, largest = -INFINITY
    m = 0
    for i in range(1, n):
        if codes[i] == codes[i - 1]:
            later[m] = i
            gaps[m] = times[i] - times[i - 1]
            smallest, largest = fmin(smallest, gaps[m]), fmax(largest, gaps[m])
            m += 1
    return later_, gaps_, smallest, largest


def surely_independent(const double[:, :] X, bint centred, double certain):
    """Whether the correlations of the columns have a Cholesky factor whose squared pivots exceed `certain`.

    Parameters
    ----------
    X : (n, p)
    centred : bool
        The first column is constant one: the others are centred and it is left out.
    certain : float

    Returns
    -------
    bool or None
        False also where centring loses digits or numbers are not finite; None for more than 16 columns.
    """
    cdef Py_ssize_t n = X.shape[0], r
    cdef int first = 1 if centred else 0, p = <int> X.shape[1] - first, i, j
    if not 0 < p <= WIDE or n == 0:
        return None
    cdef double gram[WIDE * WIDE]
    cdef double total[WIDE]
    cdef double row[WIDE]
    cdef double scale[WIDE]
    cdef double raw, level
    for i in range(p):
        total[i] = 0.0
        for j in range(p):
            gram[i * p + j] = 0.0
    for r in range(n):
        for i in range(p):
            row[i] = X[r, first + i]
            if centred:
                row[i] -= X[0, first + i]  # differences from a data point are exact where it matters
                total[i] += row[i]
            for j in range(i + 1):
                gram[i * p + j] += row[i] * row[j]
    for i in range(p):
        raw = gram[i * p + i]
        if centred:
            for j in range(i + 1):
                gram[i * p + j] -= total[i] * total[j] / n
            level = X[0, first + i] + total[i] / n
            if not (gram[i * p + i] > 1e-4 * raw and gram[i * p + i] > 1e-24 * n * level * level):
                return False
        if not 0.0 < gram[i * p + i] < 1e300:
            return False
        scale[i] = 1.0 / sqrt(gram[i * p + i])
    for i in range(p):
        for j in range(i + 1):
            gram[i * p + j] *= scale[i] * scale[j]
    return mm_lower_factor(gram, p, certain)


def constant_column(const double[:, :] X):
    """The first column all of whose entries are equal and not zero; -1 if there is none."""
    cdef Py_ssize_t n = X.shape[0], p = X.shape[1], i, t
    for i in range(p if n else 0):
        if X[0, i] == 0.0:
            continue
        for t in range(1, n):
            if X[t, i] != X[0, i]:
                break
        else:
            return i
    return -1


def orthonormal_fit(const double[:, :] X, const double[:] y, double lost):
    """Orthonormal columns with the span of X, by Gram and Schmidt's way with every column twice, and what they
    leave of y.

    Returns
    -------
    (Q, R, beta, r, logdet) or None
        ``X = QR``, R upper triangular with a positive diagonal; least-squares coefficients, residuals
        orthogonal to Q, and ``2 log det R``. None for more than 16 columns, and where a column adds less than
        `lost` of its length to those before it.
    """
    cdef Py_ssize_t n = X.shape[0], t
    cdef int p = <int> X.shape[1], i, j, again
    if not 0 < p <= WIDE or n < p:
        return None
    columns, upper, coefficients, rest = np.empty((n, p)), np.zeros((p, p)), np.empty(p), np.empty(n)
    cdef double[:, ::1] Q = columns, R = upper
    cdef double[::1] beta = coefficients, r = rest
    cdef double length, v, logdet = 0.0
    cdef double part[WIDE]
    for i in range(p):
        length = 0.0
        for t in range(n):
            Q[t, i] = X[t, i]
            length += X[t, i] * X[t, i]
        for again in range(2):
            _project(&Q[0, 0], &Q[0, i], part, n, i, p, p)
            for j in range(i):
                R[j, i] += part[j]
        v = 0.0
        for t in range(n):
            v += Q[t, i] * Q[t, i]
        if not (v > lost * lost * length and 1e-280 < v < 1e280):
            return None
        R[i, i] = sqrt(v)
        logdet += 2.0 * log(R[i, i])
        v = 1.0 / R[i, i]
        for t in range(n):
            Q[t, i] *= v
    for t in range(n):
        r[t] = y[t]
    _project(&Q[0, 0], &r[0], part, n, p, p, 1)
    for i in range(p - 1, -1, -1):
        v = part[i]
        for j in range(i + 1, p):
            v -= R[i, j] * beta[j]
        beta[i] = v / R[i, i]
    for t in range(n):
        v = y[t]
        for j in range(p):
            v -= X[t, j] * beta[j]
        r[t] = v
    _project(&Q[0, 0], &r[0], part, n, p, p, 1)  # orthogonal to X to working precision
    return columns, upper, coefficients, rest, logdet


cdef void _project(
    const double* Q, double* x, double* part, Py_ssize_t n, int k, int p, int stride
) noexcept nogil:
    """Take the part along the first k of p orthonormal columns out of x, whose entries lie `stride` apart."""
    cdef Py_ssize_t t
    cdef int j
    for j in range(k):
        part[j] = 0.0
    for t in range(n):
        for j in range(k):
            part[j] += Q[t * p + j] * x[t * stride]
    for t in range(n):
        for j in range(k):
            x[t * stride] -= Q[t * p + j] * part[j]
