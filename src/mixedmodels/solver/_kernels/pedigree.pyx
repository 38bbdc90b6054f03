# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Loops over pedigrees: generations, inbreeding, products with the factors of the relationship matrix, gene dropping.

``A = T D T'`` with ``T = (I - P)^{-1}``; row i of P holds 1/2 at the parents of i, and D is diagonal. Parents are
indices, -1 if unknown. All functions but `generations` need parents to come before their offspring.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import numpy as np


def generations(const int32_t[::1] sire, const int32_t[::1] dam):
    """Longest line of known ancestors of each individual, (n,) int32: founders 0; -1 at and below a loop."""
    cdef Py_ssize_t n = sire.shape[0], i, j, head = 0, tail = 0
    cdef int32_t p, side
    out = np.zeros(n, dtype=np.int32)
    waits_array = np.zeros(n, dtype=np.int32)
    start_array = np.zeros(n + 1, dtype=np.int64)
    queue_array = np.empty(n, dtype=np.int32)
    cdef int32_t[::1] level = out, waits = waits_array, queue = queue_array, child
    cdef int64_t[::1] start = start_array
    for i in range(n):
        for side in range(2):
            p = sire[i] if side == 0 else dam[i]
            if p >= 0:
                waits[i] += 1
                start[p + 1] += 1
    for i in range(n):
        start[i + 1] += start[i]
    child_array = np.empty(start[n], dtype=np.int32)
    fill_array = start_array[:n].copy()
    child = child_array
    cdef int64_t[::1] fill = fill_array
    with nogil:
        for i in range(n):
            for side in range(2):
                p = sire[i] if side == 0 else dam[i]
                if p >= 0:
                    child[fill[p]] = <int32_t>i
                    fill[p] += 1
            if waits[i] == 0:
                queue[tail] = <int32_t>i
                tail += 1
        while head < tail:
            i = queue[head]
            head += 1
            for j in range(start[i], start[i + 1]):
                p = child[j]
                if level[p] < level[i] + 1:
                    level[p] = level[i] + 1
                waits[p] -= 1
                if waits[p] == 0:
                    queue[tail] = p
                    tail += 1
        for i in range(n):
            if waits[i] > 0:
                level[i] = -1
    return out


cdef struct node:
    int32_t sire, dam, level, next
    double d, v, x


cdef inline void _collect_down(node* N, int32_t* head, int32_t top, int32_t founders, int32_t* found,
                               Py_ssize_t* count) noexcept nogil:
    """Mark the non-founder ancestors of what `head` lists (x = 0), youngest generation first."""
    cdef int32_t level, k, p, side
    for level in range(top, 0, -1):
        k = head[level]
        head[level] = -1
        while k >= 0:
            found[count[0]] = k
            count[0] += 1
            for side in range(2):
                p = N[k].sire if side == 0 else N[k].dam
                if p >= founders and N[p].x < 0.0:
                    N[p].x = 0.0
                    N[p].next = head[N[p].level]
                    head[N[p].level] = p
            k = N[k].next


cdef inline double _half_of(node* N, int32_t p, int32_t founders) noexcept nogil:
    """Half the relationship of p to the individual worked on."""
    if p < 0:
        return 0.0
    return 0.5 * (N[p].v if p < founders else N[p].x)


cdef enum:
    LANES = 8            # parents swept together where their ancestors are nearly everybody
    SAMPLES = 3          # sweeps by which a generation decides between the two kinds


cdef Py_ssize_t _sparse_sweep(node* N, int32_t* head, int32_t* up, int32_t* found, int32_t founders,
                              const int32_t[::1] one, const int32_t[::1] other, const int64_t[::1] offspring,
                              const int64_t[::1] member, const int64_t[::1] group, Py_ssize_t g,
                              double* F) noexcept nogil:
    """F of the families of one parent through its ancestors and those of its mates; how many were visited."""
    cdef Py_ssize_t na = 0, nu = 0, f, i
    cdef int32_t s = one[group[g]], p, k, side, top
    cdef double half
    N[s].v = 1.0
    N[s].next = -1
    head[N[s].level] = s
    for top in range(N[s].level, -1, -1):
        k = head[top]
        head[top] = -1
        while k >= 0:
            up[na] = k
            na += 1
            half = 0.5 * N[k].v
            for side in range(2):
                p = N[k].sire if side == 0 else N[k].dam
                if p >= 0:
                    if N[p].v == 0.0:
                        N[p].next = head[N[p].level]
                        head[N[p].level] = p
                    N[p].v += half
            k = N[k].next
    top = 0
    for f in range(group[g], group[g + 1]):
        p = other[f]
        if p >= founders and N[p].x < 0.0:
            N[p].x = 0.0
            N[p].next = head[N[p].level]
            head[N[p].level] = p
            if N[p].level > top:
                top = N[p].level
    _collect_down(N, head, top, founders, found, &nu)
    for i in range(nu - 1, -1, -1):
        k = found[i]
        N[k].x = (N[k].d * N[k].v + _half_of(N, N[k].sire, founders)
                  + _half_of(N, N[k].dam, founders))
    for f in range(group[g], group[g + 1]):
        half = _half_of(N, other[f], founders)
        for i in range(offspring[f], offspring[f + 1]):
            F[member[i]] = half
    for i in range(nu):
        N[found[i]].x = -1.0
    for i in range(na):
        N[up[i]].v = 0.0
    return na + nu


cdef void _dense_sweep(node* N, double* W, Py_ssize_t below, const int32_t[::1] one, const int32_t[::1] other,
                       const int64_t[::1] offspring, const int64_t[::1] member, const int64_t[::1] group,
                       Py_ssize_t first, Py_ssize_t last, double* F) noexcept nogil:
    """F of the families of up to LANES parents: columns of A by streaming through all earlier individuals."""
    cdef Py_ssize_t f, i, k, g
    cdef int l
    cdef int32_t s, d
    cdef double* w
    cdef double* a
    memset(W, 0, below * LANES * sizeof(double))
    for g in range(first, last):
        W[<Py_ssize_t>one[group[g]] * LANES + g - first] = 1.0
    for k in range(below - 1, -1, -1):
        s, d, w = N[k].sire, N[k].dam, W + k * LANES
        if s >= 0:
            a = W + <Py_ssize_t>s * LANES
            for l in range(LANES):
                a[l] += 0.5 * w[l]
        if d >= 0:
            a = W + <Py_ssize_t>d * LANES
            for l in range(LANES):
                a[l] += 0.5 * w[l]
    for k in range(below):
        s, d, w = N[k].sire, N[k].dam, W + k * LANES
        for l in range(LANES):
            w[l] *= N[k].d
        if s >= 0:
            a = W + <Py_ssize_t>s * LANES
            for l in range(LANES):
                w[l] += 0.5 * a[l]
        if d >= 0:
            a = W + <Py_ssize_t>d * LANES
            for l in range(LANES):
                w[l] += 0.5 * a[l]
    for g in range(first, last):
        for f in range(group[g], group[g + 1]):
            for i in range(offspring[f], offspring[f + 1]):
                F[member[i]] = 0.5 * W[<Py_ssize_t>other[f] * LANES + g - first]


def inbreeding(const int32_t[::1] sire, const int32_t[::1] dam, const int32_t[::1] level,
               const int32_t[::1] one, const int32_t[::1] other, const int64_t[::1] offspring,
               const int64_t[::1] member, const int64_t[::1] group):
    """Inbreeding coefficients, (n,): one sweep through a reduced pedigree per parent and generation of offspring.

    Individuals are sorted by `level`. Families (`one[f]`, `other[f]`) of two different parents are sorted by the
    level of their offspring, then by `one`; ``group[g]:group[g + 1]`` are those with one level and one parent,
    and family f has the offspring ``member[offspring[f]:offspring[f + 1]]``. An individual of a single known
    parent is not inbred; selfed offspring have ``F = (1 + F_parent) / 2``.
    """
    cdef Py_ssize_t n = sire.shape[0], groups = group.shape[0] - 1, g, f, i, done = 0, below, last, visits, tried, blocks
    cdef int32_t s, k, founders = 0, lev, levels
    cdef double fs, fd
    out = np.zeros(n)
    cdef double[::1] F = out
    if n == 0:
        return out
    levels = level[n - 1] + 1
    while founders < n and level[founders] == 0:
        founders += 1
    cdef node* N = <node*> malloc(n * sizeof(node))
    cdef int32_t* head = <int32_t*> malloc((levels + 1) * sizeof(int32_t))
    cdef int32_t* up = <int32_t*> malloc(n * sizeof(int32_t))
    cdef int32_t* found = <int32_t*> malloc(n * sizeof(int32_t))
    cdef double* W = <double*> malloc(n * LANES * sizeof(double))
    if N == NULL or head == NULL or up == NULL or found == NULL or W == NULL:
        free(N)
        free(head)
        free(up)
        free(found)
        free(W)
        raise MemoryError("not enough memory for the inbreeding coefficients")
    with nogil:
        for i in range(n):
            N[i].sire, N[i].dam, N[i].level = sire[i], dam[i], level[i]
            N[i].v = 0.0
            N[i].x = -1.0
        for i in range(levels + 1):
            head[i] = -1
        g = 0
        for lev in range(levels):
            # F of selfed offspring of this generation, then of the families, then D of the generation
            below = done                                    # individuals of earlier generations
            last = g
            while last < groups and level[member[offspring[group[last]]]] == lev:
                last += 1
            visits, tried = 0, 0
            while g < last:
                blocks = (last - g + LANES - 1) // LANES
                if tried >= SAMPLES and <double>visits / tried * (last - g) > <double>blocks * below:
                    while g < last:
                        f = g + LANES if g + LANES < last else last
                        _dense_sweep(N, W, below, one, other, offspring, member, group, g, f, &F[0])
                        g = f
                    break
                visits += _sparse_sweep(N, head, up, found, founders, one, other, offspring, member, group, g, &F[0])
                tried += 1
                g += 1
            while done < n and level[done] == lev:
                s, k = sire[done], dam[done]
                if s >= 0 and s == k:
                    F[done] = 0.5 * (1.0 + F[s])
                fs = F[s] if s >= 0 else -1.0
                fd = F[k] if k >= 0 else -1.0
                N[done].d = 0.5 - 0.25 * (fs + fd)
                done += 1
    free(N)
    free(head)
    free(up)
    free(found)
    free(W)
    return out


def multiply_down(const int32_t[::1] sire, const int32_t[::1] dam, double[:, ::1] X):
    """``X <- T X`` in place, X (n, k): from parents to offspring."""
    cdef Py_ssize_t n = X.shape[0], c = X.shape[1], i, j
    cdef int32_t s, d
    with nogil:
        for i in range(n):
            s, d = sire[i], dam[i]
            if s >= 0:
                for j in range(c):
                    X[i, j] += 0.5 * X[s, j]
            if d >= 0:
                for j in range(c):
                    X[i, j] += 0.5 * X[d, j]


def multiply_up(const int32_t[::1] sire, const int32_t[::1] dam, double[:, ::1] X):
    """``X <- T' X`` in place, X (n, k): from offspring to parents."""
    cdef Py_ssize_t n = X.shape[0], c = X.shape[1], i, j
    cdef int32_t s, d
    with nogil:
        for i in range(n - 1, -1, -1):
            s, d = sire[i], dam[i]
            if s >= 0:
                for j in range(c):
                    X[s, j] += 0.5 * X[i, j]
            if d >= 0:
                for j in range(c):
                    X[d, j] += 0.5 * X[i, j]


def tabular(const int32_t[::1] one, const int32_t[::1] other, const double[::1] w_one, const double[::1] w_other,
            const double[::1] own, const double[::1] by_mates):
    """Relationships by the tabular method, (n, n): row i is ``w_one row(one_i) + w_other row(other_i)``.

    The diagonal is ``own_i + by_mates_i a(one_i, other_i)``. Additive: weights 1/2, own 1, by_mates 1/2.
    """
    cdef Py_ssize_t n = one.shape[0], i, j
    cdef int32_t s, d
    cdef double w
    out = np.zeros((n, n))
    cdef double[:, ::1] A = out
    with nogil:
        for i in range(n):
            s, d = one[i], other[i]
            if s >= 0:
                w = w_one[i]
                for j in range(i):
                    A[i, j] += w * A[s, j]
            if d >= 0:
                w = w_other[i]
                for j in range(i):
                    A[i, j] += w * A[d, j]
            for j in range(i):
                A[j, i] = A[i, j]
            A[i, i] = own[i]
            if s >= 0 and d >= 0:
                A[i, i] += by_mates[i] * A[s, d]
    return out


def reach(const int32_t[::1] sire, const int32_t[::1] dam, uint8_t[::1] marked, bint downwards):
    """Mark in place all descendants (`downwards`) or ancestors of the marked individuals."""
    cdef Py_ssize_t n = sire.shape[0], i
    with nogil:
        if downwards:
            for i in range(n):
                if (sire[i] >= 0 and marked[sire[i]]) or (dam[i] >= 0 and marked[dam[i]]):
                    marked[i] = 1
        else:
            for i in range(n - 1, -1, -1):
                if marked[i]:
                    if sire[i] >= 0:
                        marked[sire[i]] = 1
                    if dam[i] >= 0:
                        marked[dam[i]] = 1
