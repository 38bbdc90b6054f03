# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Minimum-degree order of a graph given by edges and by elements (vertices already eliminated)."""

from libc.stdint cimport int64_t
from libc.string cimport memset

import numpy as np

cdef extern from "symbolic.h" nogil:
    ctypedef struct mm_order:
        int n, npiv, dense
        int* order
        int* pstart
        int64_t* sptr
        int* sidx
    ctypedef struct mm_pattern:
        int n, ns, t0, nt
        double nnz
        int* perm
    int mm_minimum_degree(int n, const int* weight, const int64_t* aptr, const int* aidx, int ne0,
                          const int64_t* eptr, const int* eidx, double stop, mm_order* out)
    int mm_symbolic(const mm_order* o, const int* weight, int cut, mm_pattern* P)
    void mm_order_free(mm_order* o)
    void mm_pattern_free(mm_pattern* P)


def minimum_degree(indptr, indices, element_indptr=None, element_indices=None, weights=None, double stop=0.0):
    """Approximate minimum-degree order (Amestoy, Davis, Duff 1996) of a symmetric graph.

    Parameters
    ----------
    indptr, indices : array of int
        Adjacency, each edge from both sides; the diagonal is ignored.
    element_indptr, element_indices : array of int, optional
        Elements: the vertices of each are pairwise adjacent (what an eliminated vertex leaves behind).
    weights : array of int, optional
        Columns of each vertex.
    stop : float
        The remainder is taken as one dense pivot when a pivot is adjacent to this share of it; 0 never.

    Returns
    -------
    order : ndarray of int, shape (n,)
        Vertices in the order of elimination.
    pivots : list of (ndarray, ndarray)
        For each pivot its vertices and those below it.
    """
    cdef int n = len(indptr) - 1, ne = 0, p
    aptr = np.ascontiguousarray(indptr, dtype=np.int64)
    aidx = np.ascontiguousarray(np.append(indices, 0), dtype=np.intc)
    eptr = np.zeros(1, dtype=np.int64)
    eidx = np.zeros(1, dtype=np.intc)
    if element_indptr is not None:
        eptr = np.ascontiguousarray(element_indptr, dtype=np.int64)
        eidx = np.ascontiguousarray(np.append(element_indices, 0), dtype=np.intc)
        ne = eptr.shape[0] - 1
    w = np.ascontiguousarray(np.append(np.ones(n) if weights is None else weights, 0), dtype=np.intc)
    cdef int64_t[::1] ap = aptr, ep = eptr
    cdef int[::1] ai = aidx, ei = eidx, wv = w
    cdef mm_order o
    memset(&o, 0, sizeof(mm_order))
    if mm_minimum_degree(n, &wv[0], &ap[0], &ai[0], ne, &ep[0], &ei[0], stop, &o):
        raise MemoryError
    try:
        order = np.array([o.order[p] for p in range(n)], dtype=np.intp)
        pivots = []
        for p in range(o.npiv):
            pivots.append((order[o.pstart[p]:o.pstart[p + 1]],
                           np.array([o.sidx[q] for q in range(o.sptr[p], o.sptr[p + 1])], dtype=np.intp)))
        return order, pivots
    finally:
        mm_order_free(&o)
