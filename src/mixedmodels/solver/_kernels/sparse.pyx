# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Sparse Cholesky factor with its inverse on the pattern of the factor."""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from scipy.linalg.cython_blas cimport dgemm, dsymm, dsyrk, dtrsm
from scipy.linalg.cython_lapack cimport dpotrf, dpotri

import numpy as np

from mixedmodels.solver._kernels.blocked import _library_threads, _processors

cdef extern from "sparse_factor.h" nogil:
    ctypedef struct mm_blas:
        void* dgemm
        void* dsyrk
        void* dsymm
        void* dtrsm
        void* dpotrf
        void* dpotri
        void* set_threads
        void* get_threads
    ctypedef struct mm_pattern:
        int n, nb, ns, t0, nt
        int64_t nx
        double nnz
    ctypedef struct mm_sparse:
        mm_blas bl
        mm_pattern P
        int* cols
        int* place
        double* x
        double* z
        double logdet
    void mm_sparse_free(mm_sparse* S)
    int mm_sparse_setup(mm_sparse* S, int nb, const int* weight, const int64_t* aptr, const int* aidx, int cut,
                        int nthreads)
    int64_t mm_sparse_place(const mm_sparse* S, int i, int j)
    int mm_sparse_factor(mm_sparse* S, int64_t count, const int64_t* at, const double* values)
    int mm_sparse_inverse(mm_sparse* S)
    int mm_sparse_solve(mm_sparse* S, int mode, int nrhs, const double* B, double* out)


cdef class SparseFactor:
    """Order and symbolic analysis of a symmetric pattern; then factors of matrices with that pattern.

    Parameters
    ----------
    indptr, indices : array of int
        Adjacency of the vertices, each edge from both sides, without the diagonal.
    weights : array of int or None
        Columns of each vertex; None: one each.
    cut : int
        Pivots kept in the sparse head: -1 by cost, 0 none (all dense), n at most n pivots.
    n_threads : int
        0: ``OMP_NUM_THREADS`` or the number of processors.
    """

    cdef mm_sparse* S
    cdef readonly int n, n_threads
    cdef readonly bint ready

    def __cinit__(self, indptr, indices, weights=None, *, int cut=-1, int n_threads=0):
        cdef int nb = len(indptr) - 1, rc
        self.S = <mm_sparse*> calloc(1, sizeof(mm_sparse))
        if self.S == NULL:
            raise MemoryError
        if n_threads <= 0:
            n_threads = _processors()
        self.n_threads = n_threads
        self.ready = False
        aptr = np.ascontiguousarray(indptr, dtype=np.int64)
        aidx = np.ascontiguousarray(np.append(indices, 0), dtype=np.intc)
        w = np.ascontiguousarray(np.append(np.ones(nb) if weights is None else weights, 0), dtype=np.intc)
        cdef int64_t[::1] ap = aptr
        cdef int[::1] ai = aidx, wv = w
        cdef mm_sparse* S = self.S
        S.bl.dgemm = <void*> dgemm
        S.bl.dsyrk = <void*> dsyrk
        S.bl.dsymm = <void*> dsymm
        S.bl.dtrsm = <void*> dtrsm
        S.bl.dpotrf = <void*> dpotrf
        S.bl.dpotri = <void*> dpotri
        with nogil:
            rc = mm_sparse_setup(S, nb, &wv[0], &ap[0], &ai[0], cut, n_threads)
        if rc:
            raise MemoryError("not enough memory for the sparse factor")
        self.n = S.P.n
        if self.n > 48:
            setter, getter = _library_threads()
            S.bl.set_threads = <void*> <size_t> setter
            S.bl.get_threads = <void*> <size_t> getter

    def __dealloc__(self):
        if self.S != NULL:
            mm_sparse_free(self.S)
            free(self.S)

    @property
    def sizes(self):
        """Columns, columns of the sparse head and of the dense tail, supernodes, entries of L."""
        cdef mm_sparse* S = self.S
        return {"columns": S.P.n, "head_columns": S.P.t0, "tail_columns": S.P.nt, "supernodes": S.P.ns,
                "nnz_L": int(S.P.nnz), "values": int(S.P.nx)}

    @property
    def logdet(self):
        """Log-determinant of the matrix factored last."""
        return self.S.logdet

    @property
    def order(self):
        """Original column at each place of the factor, shape (n,)."""
        cdef int i
        out = np.empty(self.n, dtype=np.intp)
        cdef Py_ssize_t[::1] v = out
        for i in range(self.n):
            v[i] = self.S.cols[i]
        return out

    def places(self, const int[::1] rows, const int[::1] columns):
        """Where entries lie among the values of the factor; -1 outside its pattern.

        Parameters
        ----------
        rows, columns : ndarray of intc

        Returns
        -------
        ndarray of int64
        """
        cdef Py_ssize_t q, count = rows.shape[0]
        out = np.empty(count, dtype=np.int64)
        cdef int64_t[::1] v = out
        with nogil:
            for q in range(count):
                v[q] = mm_sparse_place(self.S, rows[q], columns[q])
        return out

    def factor(self, const int64_t[::1] places, const double[::1] values):
        """Factor the matrix with these entries of one triangle; entries on one place are added.

        Returns
        -------
        bool
            Whether the matrix is positive definite.
        """
        cdef int bad = 0
        cdef const int64_t* at = NULL
        cdef const double* data = NULL
        cdef int64_t count = places.shape[0]
        if count:
            at = &places[0]
            data = &values[0]
        self.ready = False
        with nogil:
            bad = mm_sparse_factor(self.S, count, at, data)
        self.ready = not bad
        return self.ready

    def solve(self, const double[:, ::1] B, int mode=0):
        """Solutions for the columns of B, shape (n, r).

        Parameters
        ----------
        B : ndarray, C-ordered
        mode : int
            0: ``S^{-1} B``; 1: ``L^{-1} P B``; 2: ``P' L^{-T} B``.
        """
        cdef int nrhs = <int> B.shape[1], bad = 0
        out = np.empty((B.shape[0], nrhs))
        cdef double[:, ::1] o = out
        if self.n and nrhs:
            with nogil:
                bad = mm_sparse_solve(self.S, mode, nrhs, &B[0, 0], &o[0, 0])
        if bad:
            raise MemoryError("not enough memory to solve with the sparse factor")
        return out

    def inverse_at(self, const int64_t[::1] places):
        """Entries of the inverse at places of the factor's pattern."""
        cdef Py_ssize_t q, count = places.shape[0]
        cdef int bad
        with nogil:
            bad = mm_sparse_inverse(self.S)
        if bad:
            raise MemoryError("not enough memory for the selected inverse")
        out = np.empty(count)
        cdef double[::1] v = out
        with nogil:
            for q in range(count):
                v[q] = self.S.z[places[q]]
        return out


def normal_products(by_column, by_row, pattern):
    """``Z'Z`` on a given pattern.

    Parameters
    ----------
    by_column, by_row : tuple (indptr, indices, data)
        Z in compressed columns and in compressed rows.
    pattern : tuple (indptr, indices)
        Compressed rows of the q x q product; must hold every entry that can differ from 0.

    Returns
    -------
    ndarray, shape (nnz of the pattern,)
    """
    cdef const int64_t[::1] cp = np.ascontiguousarray(by_column[0], dtype=np.int64)
    cdef const int[::1] ci = np.ascontiguousarray(by_column[1], dtype=np.intc)
    cdef const double[::1] cv = np.ascontiguousarray(by_column[2], dtype=np.float64)
    cdef const int64_t[::1] rp = np.ascontiguousarray(by_row[0], dtype=np.int64)
    cdef const int[::1] ri = np.ascontiguousarray(by_row[1], dtype=np.intc)
    cdef const double[::1] rv = np.ascontiguousarray(by_row[2], dtype=np.float64)
    cdef const int64_t[::1] op = np.ascontiguousarray(pattern[0], dtype=np.int64)
    cdef const int[::1] oi = np.ascontiguousarray(pattern[1], dtype=np.intc)
    cdef Py_ssize_t q = op.shape[0] - 1, i, s, t, r
    cdef double v
    out = np.empty(oi.shape[0])
    sums = np.zeros(q)
    cdef double[::1] o = out, acc = sums
    with nogil:
        for i in range(q):
            for s in range(cp[i], cp[i + 1]):
                r = ci[s]
                v = cv[s]
                for t in range(rp[r], rp[r + 1]):
                    acc[ri[t]] += v * rv[t]
            for t in range(op[i], op[i + 1]):
                o[t] = acc[oi[t]]
                acc[oi[t]] = 0.0
    return out
