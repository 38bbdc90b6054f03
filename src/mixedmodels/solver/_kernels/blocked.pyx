# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Compiled solver for two or more grouping factors: leaf levels one by one, the rest by sparse Cholesky.

The *leaf* factor (most effects, no known precision between its levels) is eliminated level by level; what
remains, the *rest*, is ordered by minimum degree with the leaf's levels as elements already eliminated,
and factored by supernodes with a dense tail. The numerics are in the headers beside this file.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from scipy.linalg.cython_blas cimport dgemm, dsymm, dsyrk, dtrsm
from scipy.linalg.cython_lapack cimport dpotrf, dpotri

from mixedmodels.solver._kernels.evaluator cimport Evaluator

import os

import numpy as np

cdef extern from "blocked_second.h" nogil:
    int MM_BATCH
    ctypedef struct mm_blas:
        void* dgemm
        void* dsyrk
        void* dsymm
        void* dtrsm
        void* dpotrf
        void* dpotri
        void* set_threads
        void* get_threads
    void mm_quiet(const mm_blas* bl, int on)
    ctypedef struct mm_pattern:
        int n, nb, ns, t0, nt
        int64_t nx
        double nnz
        int* perm
        int* bcol
    ctypedef struct mm_pair:
        int fa, fb
        const int64_t* indptr
        const int* indices
        const double* data
    ctypedef struct mm_prec:
        const int64_t* indptr
        const int* indices
        const double* data
        double logdet_covariance
    ctypedef struct mm_model:
        mm_blas bl
        mm_pattern P
        int n, nb, m0, k0, p1, scalar, dense, leaf, plain
        int* m
        int* bstart
        int* pos
        double density
        int64_t point, points
        int64_t* lptr
        int64_t* lval
        int64_t* aoff
        int* lblk
        int* bfac
        int* lcol
        double* AR
        double* PV
        double* B
        double* Bd
        const double* A0
        double* U
        double* tl
        double* Mx
        double* C
        double* x
        const double* R0
        const double* XX
        double* RR
        double* H
        double* N
    ctypedef struct mm_scalars:
        double logdet_L2, logdet_RX2, pwrss
    ctypedef struct mm_second_part:
        int exact
        double* products
        double* changes
    int mm_setup(mm_model* M, int F, const int* k, const int* koff, const int* m, int leaf, int p1, int rcap,
                 int npairs, const mm_pair* pairs, const mm_prec* prec, const double** A,
                 const double** ZX, const double* XX, int nthreads, int cut)
    void mm_model_free(mm_model* M)
    int mm_components(mm_model* M, const double* lam, int order, int reml, const double* dS, int ndir, int kk,
                      mm_scalars* sc, double* T, double* S, double* wpw, const mm_second_part* second)
    int mm_second_fits(const mm_model* M, int r)
    int mm_forward(mm_model* M, const double* lam, mm_scalars* sc)
    void mm_back(mm_model* M, const double* lam, int nc)
    int mm_conditional(mm_model* M, const double* lam, int f, double* out)
    void mm_normal(mm_model* M, int nc, const double* U0, const double* UR, double* out0, double* outR)
    int mm_condition(mm_model* M, const double* lam, int nc, const double* s0, const double* sR, double* cov0,
                     double* covR, double* k0_, double* kR)
    int mm_selected(mm_model* M, const double* lam, double* Q)
    int mm_selected_coupled(mm_model* M, const double* lam, double* Q, double* T)
    int mm_rest_block(const mm_model* M, int i, int j, double* out)
    int64_t mm_trace_columns(const mm_model* M)
    void mm_pairs(const mm_model* M, int f, int g, int64_t count, const int* lf, const int* lg, double* out,
                  char* found)
    int mm_trace_sums(mm_model* M, const double* lam, int nsym, const double* sym, const int64_t* goff,
                      int64_t size, double* sums, double* Q)


cdef void _inverse_from_root(int p, const double* C, int ld, double* V) noexcept nogil:
    """V (p x p) = (R R')^{-1} for lower triangular R in column-major C."""
    cdef int i, j, l
    cdef double s
    for j in range(p):                           # V = R^{-1}, below the diagonal
        V[j * p + j] = 1.0 / C[j + j * ld]
        for i in range(j + 1, p):
            s = 0.0
            for l in range(j, i):
                s += C[i + l * ld] * V[l * p + j]
            V[i * p + j] = -s / C[i + i * ld]
    for j in range(p):                           # R^{-T} R^{-1}; what is still needed lies further down
        for i in range(j, p):
            s = 0.0
            for l in range(i, p):
                s += V[l * p + i] * V[l * p + j]
            V[i * p + j] = s
    for i in range(p):
        for j in range(i + 1, p):
            V[i * p + j] = V[j * p + i]


_threads_found = None


def _library_threads():
    """Addresses of the set and get functions for the threads of SciPy's OpenBLAS, or (0, 0)."""
    global _threads_found
    if _threads_found is None:
        import ctypes

        from threadpoolctl import ThreadpoolController

        _threads_found = (0, 0)
        found = [lib for lib in ThreadpoolController().lib_controllers if lib.internal_api == "openblas"]
        # NumPy may bring a library of its own with 64-bit integers; cython_blas is SciPy's
        found.sort(key=lambda lib: ("scipy.libs" not in lib.filepath, "64_" in os.path.basename(lib.filepath)))
        for prefix in ("scipy_", ""):
            if found and _threads_found == (0, 0):
                library = found[0].dynlib
                names = [f"{prefix}openblas_{verb}_num_threads" for verb in ("set", "get")]
                if all(hasattr(library, name) for name in names):
                    _threads_found = tuple(
                        ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names
                    )
    return _threads_found


cdef bint _within(const int* indices, Py_ssize_t size, int stop) noexcept nogil:
    """Whether all indices lie in 0 .. stop - 1."""
    cdef Py_ssize_t i
    for i in range(size):
        if indices[i] < 0 or indices[i] >= stop:
            return False
    return True


_processors_found = 0


def _processors():
    """Threads to use: ``OMP_NUM_THREADS`` or the number of processors this process may run on."""
    global _processors_found
    if _processors_found == 0:
        count = int(os.environ.get("OMP_NUM_THREADS", "0").split(",")[0] or 0) or os.cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):
            count = min(count, len(os.sched_getaffinity(0)))
        _processors_found = count
    return _processors_found


cdef class BlockedStructure:
    """Order, symbolic analysis and work space for one set of cross-products; shared by its evaluators.

    Parameters
    ----------
    k : sequence of int
        Columns of each factor.
    p : int
        Fixed-effects columns.
    arrays : dict
        ``A``: list over factors of (m, k, k); ``ZX``: list of (m, k, p + 1), last column Z'y; ``XX``:
        (p + 1, p + 1), cross-products of [X, y]; ``pairs``: list of (f, g, indptr, indices, data (nnz, k_f,
        k_g)), block rows are the levels of f; ``precision``: list over factors of None or (indptr, indices,
        data, logdet_covariance), symmetric compressed columns; ``leaf`` (optional): the factor eliminated
        first, -1 for none.
    cut : int
        Pivots kept in the sparse head: -1 by cost, 0 none (all dense), n at most n pivots.
    n_threads : int
        0: ``OMP_NUM_THREADS`` or the number of processors.
    """

    cdef mm_model* model
    cdef object keep, firsts
    cdef readonly object m, k, pair_sizes
    cdef readonly int leaf, n_threads, p

    def __cinit__(self, k, int p, arrays, *, int cut=-1, int n_threads=0):
        cdef int F = len(k), f, i, npairs, rc
        cdef double[::1] dv
        cdef int[::1] iv, kp, op
        cdef int64_t[::1] lv
        self.model = <mm_model*> calloc(1, sizeof(mm_model))
        if self.model == NULL:
            raise MemoryError
        kk = [int(v) for v in k]
        self.k = kk
        self.p = p
        kv, ko = np.empty(F, dtype=np.intc), np.zeros(F + 1, dtype=np.intc)
        kp = kv
        op = ko
        rcap = 0
        for f in range(F):
            kp[f] = kk[f]
            op[f + 1] = op[f] + kp[f] * kp[f]
            rcap += kp[f] * (kp[f] + 1) // 2
        A = [np.ascontiguousarray(a, dtype=np.float64) for a in arrays["A"]]
        ZX = [np.ascontiguousarray(a, dtype=np.float64) for a in arrays["ZX"]]
        XX = np.ascontiguousarray(arrays["XX"], dtype=np.float64)
        prec = list(arrays.get("precision") or [None] * F)
        if len(A) != F or len(ZX) != F or len(prec) != F or XX.shape != (p + 1, p + 1):
            raise ValueError("arrays: one A, ZX and precision per factor and XX of shape (p + 1, p + 1) are needed")
        m = [a.shape[0] for a in A]
        for f in range(F):
            if A[f].shape != (m[f], kk[f], kk[f]) or ZX[f].shape != (m[f], kk[f], p + 1) or m[f] == 0:
                raise ValueError(f"arrays of factor {f}: A {A[f].shape}, ZX {ZX[f].shape} do not fit")
        leaf = arrays.get("leaf")
        if leaf is None:
            free_ = [f for f in range(F) if prec[f] is None]
            leaf = max([(m[f] * kk[f], -f) for f in free_])[1] * -1 if free_ else -1
        elif leaf >= 0 and prec[leaf] is not None:
            raise ValueError("a factor with known precision cannot be the leaf")
        self.leaf = leaf
        if n_threads <= 0:
            n_threads = _processors()
        self.n_threads = n_threads
        pairs = []
        for (a, b, indptr, indices, data) in arrays["pairs"]:
            indptr = np.ascontiguousarray(indptr, dtype=np.int64)
            indices = np.ascontiguousarray(indices, dtype=np.intc)
            data = np.ascontiguousarray(data, dtype=np.float64)
            if indptr.shape != (m[a] + 1,) or data.size != indices.size * kk[a] * kk[b] or indptr[m[a]] != indices.size:
                raise ValueError(f"cross-products of factors {a} and {b} do not fit")
            if indices.size:
                iv = indices
                if not _within(&iv[0], indices.size, m[b]):
                    raise ValueError(f"cross-products of factors {a} and {b} name a level that does not exist")
                pairs.append((a, b, indptr, indices, data))
        npairs = len(pairs)
        self.pair_sizes = [(a, b, data.size) for a, b, _, _, data in pairs]
        cdef mm_pair* cp = <mm_pair*> calloc(npairs + 1, sizeof(mm_pair))
        cdef mm_prec* cq = <mm_prec*> calloc(F + 1, sizeof(mm_prec))
        cdef const double** cA = <const double**> calloc(F + 1, sizeof(double*))
        cdef const double** cZ = <const double**> calloc(F + 1, sizeof(double*))
        keep = [A, ZX, XX, pairs]
        try:
            for i in range(npairs):
                cp[i].fa = pairs[i][0]
                cp[i].fb = pairs[i][1]
                lv = pairs[i][2]; cp[i].indptr = &lv[0]
                iv = pairs[i][3]; cp[i].indices = &iv[0]
                dv = pairs[i][4].reshape(-1); cp[i].data = &dv[0]
            for f in range(F):
                if prec[f] is not None:
                    part = (np.ascontiguousarray(prec[f][0], dtype=np.int64),
                            np.ascontiguousarray(prec[f][1], dtype=np.intc),
                            np.ascontiguousarray(prec[f][2], dtype=np.float64))
                    if part[0].shape != (m[f] + 1,) or part[1].size != part[2].size or part[0][m[f]] != part[1].size:
                        raise ValueError(f"the precision of factor {f} does not fit its {m[f]} levels")
                    keep.append(part)
                    lv = part[0]; cq[f].indptr = &lv[0]
                    iv = part[1]; cq[f].indices = &iv[0]
                    dv = part[2]; cq[f].data = &dv[0]
                    cq[f].logdet_covariance = prec[f][3]
                dv = A[f].reshape(-1); cA[f] = &dv[0]
                dv = ZX[f].reshape(-1); cZ[f] = &dv[0]
            self.keep = (A[leaf] if leaf >= 0 else None, ZX[leaf] if leaf >= 0 else None, XX, kv, ko)
            self.m = m
            mv = np.ascontiguousarray(m, dtype=np.intc)
            iv = mv
            dv = XX.reshape(-1)
            self.model.bl.dgemm = <void*> dgemm
            self.model.bl.dsyrk = <void*> dsyrk
            self.model.bl.dsymm = <void*> dsymm
            self.model.bl.dtrsm = <void*> dtrsm
            self.model.bl.dpotrf = <void*> dpotrf
            self.model.bl.dpotri = <void*> dpotri
            rc = mm_setup(self.model, F, &kp[0], &op[0], &iv[0], leaf, p + 1, max(rcap, 1), npairs, cp, cq, cA, cZ,
                          &dv[0], n_threads, cut)
            if rc:
                raise MemoryError("not enough memory for the factor of the penalised cross-products")
            if self.model.n > 48:
                setter, getter = _library_threads()
                self.model.bl.set_threads = <void*> <size_t> setter
                self.model.bl.get_threads = <void*> <size_t> getter
        finally:
            free(cp)
            free(cq)
            free(cA)
            free(cZ)

    def __dealloc__(self):
        if self.model != NULL:
            mm_model_free(self.model)
            free(self.model)

    @property
    def sizes(self):
        """Sizes: leaf, columns of the rest, head, tail, supernodes, nnz of L, density of the rest's graph."""
        cdef mm_model* M = self.model
        return {"leaf": self.leaf, "rest_columns": M.n, "head_columns": M.P.t0, "tail_columns": M.P.nt,
                "supernodes": M.P.ns, "nnz_L": int(M.P.nnz), "density": M.density,
                "dense_coupling": bool(M.dense)}

    @property
    def trace_work(self):
        """About how many multiplications `BlockedEvaluator.trace_products` takes with every direction.

        Per column of the rest (levels of parts that share no rows stand in one column): solves with L, forward
        and back, products with the coupling, and the leaf's blocks; again for each element of the leaf's factor.
        """
        cdef mm_model* M = self.model
        cdef double columns = <double>mm_trace_columns(M), coupling = 0.0
        cdef int k0 = self.k[self.leaf] if self.leaf >= 0 else 0, own = k0 * (k0 + 1) // 2
        if columns < 0.0:
            raise MemoryError("not enough memory for the columns of the rest")
        if self.leaf >= 0 and M.n:
            coupling = <double>M.m0 * k0 * M.n if M.dense else <double>M.lval[M.lptr[M.m0]]
        return columns * ((1 + own) * 2.0 * M.P.nnz + (3 + 3 * own) * coupling + (2 + own) * <double>M.m0 * k0 * k0)

    cdef _first_columns(self):
        """First column, in the order of elimination, of each block of the rest, shape (nb,)."""
        cdef mm_model* M = self.model
        cdef int b, l, nb = M.nb, size
        cdef int64_t at = 0
        cdef int64_t[::1] first, column
        if self.firsts is None:
            self.firsts = np.empty(max(nb, 1), dtype=np.int64)
            first = self.firsts
            start = np.empty(nb + 1, dtype=np.int64)       # by place in the order: size, then first column
            column = start
            for g in range(len(self.k)):
                if g != self.leaf:
                    size = self.k[g]
                    for l in range(M.bstart[g], M.bstart[g] + <int>self.m[g]):
                        column[M.pos[l]] = size
            for b in range(nb):
                l = <int>column[b]
                column[b] = at
                at += l
            for b in range(nb):
                first[b] = column[M.pos[b]]
        return self.firsts


cdef class BlockedEvaluator(Evaluator):
    """Evaluator for several grouping factors.

    Parameters
    ----------
    k, entries, clips, p, nu, reml, constant, sigma_fixed
        As in `Evaluator`.
    structure : BlockedStructure
        Evaluators may share it; they must then not run at the same time.
    """

    cdef mm_model* model
    cdef int64_t point                           # its last point, by number; see mm_model
    cdef readonly BlockedStructure structure
    cdef object spare
    cdef int64_t* first                      # first column of each block of the rest, or NULL

    def __cinit__(self, k, entries, clips, int p, double nu, bint reml, double constant=0.0,
                  double sigma_fixed=0.0, BlockedStructure structure=None):
        if structure is None or list(k) != structure.k or p != structure.p:
            raise ValueError("a BlockedStructure of the same factors and fixed effects is needed")
        if self.n_theta > sum([v * (v + 1) // 2 for v in structure.k]):
            raise ValueError("more parameters than entries of the relative factors")
        self.structure = structure
        self.model = structure.model
        self.first = NULL

    cdef int components(self, int order) noexcept nogil:
        return self._evaluate(order, NULL)

    cdef int second(self, int exact, double* products, double* changes) noexcept nogil:
        cdef mm_second_part part
        if not mm_second_fits(self.model, self.n_dir):
            return 3
        part.exact = exact
        part.products = products
        part.changes = changes
        return self._evaluate(2, &part)

    cdef int _evaluate(self, int order, const mm_second_part* part) noexcept nogil:
        cdef mm_scalars sc
        cdef int bad
        mm_quiet(&self.model.bl, 1)
        bad = mm_components(self.model, self.lam, order, self.reml, self.dS, self.n_dir, self.kk, &sc,
                            self.T, self.S, self.wpw, part)
        mm_quiet(&self.model.bl, 0)
        if bad:
            return 1
        self.logdet_L2 = sc.logdet_L2
        self.logdet_RX2 = sc.logdet_RX2
        self.pwrss = sc.pwrss
        return 0

    # ------------------------------------------------------------------ other cross-products on the same pattern
    def places(self):
        """Where the values of `load` go, read off a structure whose pairs hold the numbers 0, 1, ... as data."""
        cdef mm_model* M = self.model
        cdef int64_t i, coupling = M.lval[M.lptr[M.m0]] if M.leaf >= 0 else 0, rest = 0
        cdef int f, g
        for f, g, size in self.structure.pair_sizes:
            if f != M.leaf and g != M.leaf:
                rest += size
        B, PV = np.empty(coupling, dtype=np.int64), np.empty(rest, dtype=np.int64)
        cdef int64_t[::1] b = B, v = PV
        for i in range(coupling):
            b[i] = <int64_t>M.B[i]
        for i in range(rest):
            v[i] = <int64_t>M.PV[i]
        M.plain = 1
        return B, PV

    def load(self, diagonal, const double[::1] values, const int64_t[::1] B, const int64_t[::1] PV):
        """New numbers: blocks of levels (m, k, k) by factor and all blocks of pairs one after another."""
        cdef mm_model* M = self.model
        cdef int64_t i, q, s = B.shape[0], t = PV.shape[0]
        cdef int f, l, a, c, kf, kj, j
        cdef double[::1] flat
        cdef double* A0 = <double*> M.A0
        M.point = 0
        for f in range(self.n_factors):
            kf = self.k[f]
            flat = diagonal[f].reshape(-1)
            if f == M.leaf:
                memcpy(A0, &flat[0], flat.shape[0] * sizeof(double))
            else:
                for l in range(M.m[f]):
                    j = M.pos[M.bstart[f] + l]
                    memcpy(M.AR + M.aoff[j], &flat[<int64_t>l * kf * kf], kf * kf * sizeof(double))
        with nogil:
            for i in range(s):
                M.B[i] = values[B[i]]
            for i in range(t):
                M.PV[i] = values[PV[i]]
            if M.dense:
                for l in range(M.m0):
                    for q in range(M.lptr[l], M.lptr[l + 1]):
                        kj = self.k[M.bfac[M.lblk[q]]]
                        for a in range(M.k0):
                            for c in range(kj):
                                M.Bd[(<int64_t>l * M.k0 + a) * M.n + M.lcol[q] + c] = M.B[M.lval[q] + a * kj + c]

    def log_determinant(self, lam):
        """``log|M| - log|P|`` at `lam`, whose factor is then held."""
        self._forward(lam)
        return self.logdet_L2

    def inverse(self, lam, double[::1] values, const int64_t[::1] B):
        """Blocks of Lambda M^{-1} Lambda' on the pattern: (m, k, k) by factor, pairs with the leaf into `values`.

        `values` and `B` are laid out as for `load`. The factor is kept.
        """
        cdef mm_model* M = self.model
        cdef int m0 = M.m0, k0 = M.k0, l, a, b, c, kj, bad
        cdef int64_t q, s, coupling = B.shape[0]
        cdef double v
        cdef const double* H
        self._forward(lam)
        if self.spare is None:
            self.spare = np.empty(max(M.P.nx, 1))
        state = np.zeros((max(m0, 1), max(k0, 1), max(k0, 1)))
        coupled = np.empty(max(coupling, 1))
        cdef double[:, :, ::1] Q = state
        cdef double[::1] T = coupled, x = self.spare
        memcpy(&x[0], M.x, M.P.nx * sizeof(double))
        with nogil:
            mm_quiet(&M.bl, 1)
            bad = mm_selected_coupled(M, self.lam, &Q[0, 0, 0], &T[0])
            mm_quiet(&M.bl, 0)
        if bad:
            raise MemoryError("not enough memory for the covariances of the random effects")
        with nogil:
            for l in range(m0 if coupling else 0):
                H = M.H + <int64_t>l * k0 * k0
                for q in range(M.lptr[l], M.lptr[l + 1]):
                    kj = self.k[M.bfac[M.lblk[q]]]
                    s = M.lval[q]
                    for a in range(k0):
                        for c in range(kj):
                            v = 0.0
                            for b in range(k0):
                                v -= H[a * k0 + b] * T[s + b * kj + c]
                            values[B[s + a * kj + c]] = v
        return state

    def restore(self):
        """Put the factor back in the place of the selected inverse that `inverse` left."""
        cdef double[::1] x = self.spare
        memcpy(self.model.x, &x[0], self.model.P.nx * sizeof(double))
        self.model.point = self.point

    # ------------------------------------------------------------------ other responses
    def accept_responses(self):
        """Let `respond` write into the structure, whose arrays must be this evaluator's alone."""
        cdef int64_t[::1] first = self.structure._first_columns()
        self.first = &first[0]

    cdef int respond(self, const double* zy, const double* xy, double yy) noexcept nogil:
        """The last column of Z'[X y] and [X y]'[X y] anew."""
        cdef mm_model* M = self.model
        cdef int f, l, i, kf, p = self.p, P = p + 1, b
        cdef double* XX = <double*> M.XX
        cdef double* R0 = <double*> M.R0
        M.point = 0
        if self.first == NULL:
            return 1
        for i in range(p):
            XX[i * P + p] = xy[i]
            XX[p * P + i] = xy[i]
        XX[p * P + p] = yy
        for f in range(self.n_factors):
            kf = self.k[f]
            if f == M.leaf:
                for l in range(M.m[f] * kf):
                    R0[<int64_t>l * P + p] = zy[l]
            else:
                for l in range(M.m[f]):
                    b = M.bstart[f] + l
                    for i in range(kf):
                        M.RR[(self.first[b] + i) * P + p] = zy[l * kf + i]
            zy += <int64_t>M.m[f] * kf
        return 0

    cdef int estimates(self, double* beta, double* vcov) noexcept nogil:
        cdef mm_scalars sc
        cdef mm_model* M = self.model
        cdef int i, bad
        mm_quiet(&M.bl, 1)
        bad = mm_forward(M, self.lam, &sc)
        if not bad:
            mm_back(M, self.lam, 1)
        mm_quiet(&M.bl, 0)
        if bad:
            return 1
        self.logdet_L2 = sc.logdet_L2
        self.logdet_RX2 = sc.logdet_RX2
        self.pwrss = sc.pwrss
        for i in range(self.p):
            beta[i] = -M.Mx[i]
        if self.p:
            _inverse_from_root(self.p, M.C, self.p + 1, vcov)
        return 0

    # ------------------------------------------------------------------ Python level
    cdef int _forward(self, lam) except -1:
        cdef double[::1] lv = np.ascontiguousarray(lam, dtype=np.float64).reshape(-1)
        cdef mm_scalars sc
        cdef int bad
        if lv.shape[0] != self.kk:
            raise ValueError(f"lam has {lv.shape[0]} values, expected {self.kk}")
        if self.point and self.model.point == self.point and memcmp(self.lam, &lv[0], self.kk * sizeof(double)) == 0:
            return 0                             # the factor at this point is still there
        memcpy(self.lam, &lv[0], self.kk * sizeof(double))
        with nogil:
            mm_quiet(&self.model.bl, 1)
            bad = mm_forward(self.model, self.lam, &sc)
            mm_quiet(&self.model.bl, 0)
        if bad:
            raise FloatingPointError("the penalised cross-product matrix is not positive definite")
        self.logdet_L2 = sc.logdet_L2
        self.logdet_RX2 = sc.logdet_RX2
        self.pwrss = sc.pwrss
        self.model.points += 1
        self.model.point = self.point = self.model.points
        return 0

    def solution(self, lam):
        """Estimates at factors `lam`, shape (kk,): beta (p,), (X'V^{-1}X)^{-1} (p, p), u per factor (m, k)."""
        cdef mm_model* M = self.model
        cdef int f, i, j, p = self.p
        self._forward(lam)
        with nogil:
            mm_quiet(&M.bl, 1)
            mm_back(M, self.lam, 1)
            mm_quiet(&M.bl, 0)
        beta, vcov = np.empty(p), np.empty((p, p))
        cdef double[::1] bv = beta
        cdef double[:, ::1] V = vcov
        for i in range(p):
            bv[i] = -M.Mx[i]
        if 0 < p <= 32:
            _inverse_from_root(p, M.C, p + 1, &V[0, 0])
        elif p:
            for j in range(p):
                for i in range(p):
                    V[i, j] = M.C[i + j * (p + 1)] if i >= j else 0.0
            half = np.linalg.inv(vcov)
            vcov = half.T @ half
        cdef int64_t[::1] first = self.structure._first_columns()
        cdef double[:, ::1] u
        cdef double[:, :, ::1] A0
        cdef double x
        cdef int l, s, kf, mf
        m = self.structure.m
        out = []
        for f in range(self.n_factors):
            kf = self.k[f]
            mf = m[f]
            values = np.empty((mf, kf))
            u = values
            if f != self.structure.leaf:
                s = M.bstart[f]
                for l in range(mf):
                    for i in range(kf):
                        u[l, i] = M.U[first[s + l] + i]
            elif kf == 1:
                x = self.lam[self.koff[f]]
                A0 = self.structure.keep[0]
                for l in range(mf):
                    u[l, 0] = x * M.tl[l] / (1.0 + x * x * A0[l, 0, 0])
            else:
                memcpy(&u[0, 0], M.tl, <size_t>mf * kf * sizeof(double))
                l0 = np.empty((kf, kf))
                for i in range(kf):
                    for j in range(kf):
                        l0[i, j] = self.lam[self.koff[f] + i * kf + j]
                D = l0.T @ self.structure.keep[0] @ l0 + np.eye(kf)
                values = np.linalg.solve(D, (values @ l0)[:, :, None])[:, :, 0]
            out.append(values)
        return beta, vcov, out

    def conditional_blocks(self, lam, int f):
        """Diagonal blocks of Lambda M^{-1} Lambda' of factor f, shape (m, k, k)."""
        self._forward(lam)
        out = np.empty((self.structure.m[f], self.k[f], self.k[f]))
        cdef double[::1] ov = out.reshape(-1)
        cdef int bad
        with nogil:
            mm_quiet(&self.model.bl, 1)
            bad = mm_conditional(self.model, self.lam, f, &ov[0])
            mm_quiet(&self.model.bl, 0)
        if bad:
            raise MemoryError("not enough memory for the conditional covariances")
        return out

    # ------------------------------------------------------------------ for inference
    cdef _columns_of(self, int f):
        """Columns of the rest, in the order of elimination, that belong to factor f, shape (m, k)."""
        cdef int s = self.model.bstart[f]
        first = self.structure._first_columns()[s:s + self.structure.m[f]]
        return first[:, None] + np.arange(self.k[f])

    def _apart(self, parts):
        """Values by factor, (m, k, c) each, to the leaf's (m k, c) and the rest's (n, c) in the order of elimination."""
        c = parts[0].shape[2]
        leaf, rest = np.zeros((0, c)), np.empty((self.model.n, c))
        for f, part in enumerate(parts):
            if f == self.structure.leaf:
                leaf = np.ascontiguousarray(part, dtype=np.float64).reshape(self.structure.m[f] * self.k[f], c)
            else:
                rest[self._columns_of(f)] = part
        return leaf, rest

    def _together(self, leaf, rest):
        """The inverse of `_apart`."""
        c = rest.shape[1]
        return [leaf.reshape(self.structure.m[f], self.k[f], c) if f == self.structure.leaf
                else rest[self._columns_of(f)] for f in range(self.n_factors)]

    def fixed_root(self, lam):
        """Upper triangular R with ``X'V^{-1}X = R'R``, shape (p, p)."""
        cdef int i, j, p = self.p
        self._forward(lam)
        root = np.zeros((p, p))
        cdef double[:, ::1] R = root
        for j in range(p):
            for i in range(j, p):
                R[j, i] = self.model.C[i + j * (p + 1)]
        return root

    def normal(self, parts):
        """``Z'Z U`` by factor for U by factor, (m, k, c) each."""
        leaf, rest = self._apart(parts)
        out0, outR = np.empty_like(leaf), np.empty_like(rest)
        cdef int c = rest.shape[1]
        cdef double[::1] a = leaf.reshape(-1), b = rest.reshape(-1), x = out0.reshape(-1), y = outR.reshape(-1)
        if c:
            mm_normal(self.model, c, &a[0] if a.shape[0] else NULL, &b[0] if b.shape[0] else NULL,
                      &x[0] if a.shape[0] else NULL, &y[0] if b.shape[0] else NULL)
        return self._together(out0, outR)

    def condition(self, lam, parts, bint projected=True):
        """``Lam M^{-1} Lam' s`` and, if `projected`, ``Z'V^{-1}Y`` for ``s = Z'Y``, by factor, (m, k, c) each."""
        self._forward(lam)
        c_all = parts[0].shape[2]
        covs, others = [], []
        cdef int c, bad
        cdef double[::1] a, b, x, y, u, v
        for start in range(0, max(c_all, 1), MM_BATCH):
            leaf, rest = self._apart([part[:, :, start:start + MM_BATCH] for part in parts])
            cov0, covR, k0, kR = [np.empty_like(t) for t in (leaf, rest, leaf, rest)]
            c = rest.shape[1]
            if c:
                a, b, x, y = leaf.reshape(-1), rest.reshape(-1), cov0.reshape(-1), covR.reshape(-1)
                u, v = k0.reshape(-1), kR.reshape(-1)
                with nogil:
                    mm_quiet(&self.model.bl, 1)
                    bad = mm_condition(self.model, self.lam, c, &a[0] if a.shape[0] else NULL,
                                       &b[0] if b.shape[0] else NULL, &x[0] if a.shape[0] else NULL,
                                       &y[0] if b.shape[0] else NULL,
                                       &u[0] if projected and a.shape[0] else NULL,
                                       &v[0] if projected and b.shape[0] else NULL)
                    mm_quiet(&self.model.bl, 0)
                if bad:
                    raise MemoryError("not enough memory for the covariances of the random effects")
            covs.append(self._together(cov0, covR))
            if projected:
                others.append(self._together(k0, kR))
        join = [np.concatenate(part, axis=2) if len(part) > 1 else part[0] for part in zip(*covs)]
        return join, [np.concatenate(part, axis=2) if len(part) > 1 else part[0] for part in zip(*others)]

    def selected(self, lam):
        """Selected inverse at `lam`, read by `diagonal` and `pairs` until the next evaluation; returns its state."""
        cdef int bad
        cdef int m0 = self.model.m0, k0 = self.model.k0
        self._forward(lam)
        state = np.zeros((max(m0, 1), max(k0, 1), max(k0, 1)))
        cdef double[:, :, ::1] Q = state
        with nogil:
            mm_quiet(&self.model.bl, 1)
            bad = mm_selected(self.model, self.lam, &Q[0, 0, 0])
            mm_quiet(&self.model.bl, 0)
        if bad:
            raise MemoryError("not enough memory for the covariances of the random effects")
        return state

    def diagonal(self, state, int f):
        """Diagonal blocks of Lambda M^{-1} Lambda' of factor f after `selected`, shape (m, k, k)."""
        cdef int l, m = self.structure.m[f], k = self.k[f], j
        if f == self.structure.leaf:
            H = np.empty((m, k, k))
            _copy(self.model.H, H)
            return H + H @ state @ H
        out = np.empty((m, k, k))
        cdef double[:, :, ::1] o = out
        for l in range(m):
            j = self.model.pos[self.model.bstart[f] + l]
            mm_rest_block(self.model, j, j, &o[l, 0, 0])
        return out

    def pairs(self, int f, int g, lf, lg):
        """Blocks (lf of f, lg of g), f != g, of Lambda M^{-1} Lambda' after `selected`, and which were found."""
        cdef int[::1] a = np.ascontiguousarray(lf, dtype=np.intc), b = np.ascontiguousarray(lg, dtype=np.intc)
        cdef int64_t count = a.shape[0]
        out, found = np.zeros((count, self.k[f], self.k[g])), np.zeros(count, dtype=np.int8)
        cdef double[:, :, ::1] o = out
        cdef signed char[::1] w = found
        if count:
            with nogil:
                mm_pairs(self.model, f, g, count, &a[0], &b[0], &o[0, 0, 0], <char*> &w[0])
        return out, found.astype(bool)

    def trace_products(self, lam, dS):
        """``tr(K D_i K D_j)``, shape (r, r), for K = Z'V^{-1}Z and directions dS, shape (r, kk)."""
        cdef int F = self.n_factors, f, g, bad, leaf = self.structure.leaf, nsym, s, t, i, j
        cdef int64_t at = 0
        cdef int64_t[:, ::1] off
        self._forward(lam)
        dS = np.ascontiguousarray(dS, dtype=np.float64).reshape(-1, self.kk)
        D = [dS[:, self.koff[f]:self.koff[f] + self.k[f] * self.k[f]] for f in range(F)]
        places, basis = [], np.zeros((0, 1, 1))
        if leaf >= 0:
            k0 = self.k[leaf]
            used = (D[leaf] != 0.0).any(axis=0).reshape(k0, k0)
            places = [(i, j) for i in range(k0) for j in range(i + 1) if used[i, j]]
            basis = np.zeros((len(places), k0, k0))
            for t, (i, j) in enumerate(places):
                basis[t, i, j] = basis[t, j, i] = 1.0
        nsym = len(places)
        offsets = np.zeros((F + 1, F), dtype=np.int64)
        off = offsets
        for f in range(F):
            for g in range(F):
                if g != leaf and (f == leaf or f <= g):
                    off[f, g] = at
                    at += (self.k[f] * self.k[g]) ** 2
        off[F, 0] = at
        at += nsym * nsym
        sums = np.zeros(max(at, 1))
        Q_ = np.zeros((max(self.model.m0, 1), max(self.model.k0, 1), max(self.model.k0, 1)))
        cdef double[::1] sv = sums, bv = np.ascontiguousarray(basis).reshape(-1)
        cdef double[:, :, ::1] Q = Q_
        cdef const double* bp = &bv[0] if bv.shape[0] else NULL
        with nogil:
            mm_quiet(&self.model.bl, 1)
            bad = mm_trace_sums(self.model, self.lam, nsym, bp, &off[0, 0], at, &sv[0], &Q[0, 0, 0])
            mm_quiet(&self.model.bl, 0)
        if bad:
            raise MemoryError("not enough memory for the trace products")
        products = np.zeros((dS.shape[0], dS.shape[0]))
        for f in range(F):
            for g in range(F):
                if g == leaf or not (f == leaf or f <= g):
                    continue
                a, b = self.k[f], self.k[g]
                G = sums[off[f, g]:off[f, g] + (a * b) ** 2].reshape(a * b, a * b)
                G = np.tril(G) + np.tril(G, -1).T if a * b > 1 else G
                # sum K[a, c] dS_g[c, d] K[b, d] dS_f[b, a]
                G = G.reshape(a, b, a, b).transpose(0, 2, 1, 3).reshape(a * a, b * b)
                part = D[f] @ G @ D[g].T
                products += part if f == g else part + part.T
        if leaf >= 0:
            a = self.k[leaf]
            A0, N = self.structure.keep[0], np.empty((self.structure.m[leaf], a, a))
            _copy(self.model.N, N)
            own = (N @ A0).reshape(-1, a * a)
            flat = Q_.reshape(-1, a * a)
            G = own.T @ own
            if self.model.n:
                G = G - own.T @ flat - flat.T @ own
            # sum X[a, b] dS_j[b, c] Y[c, d] dS_i[d, a]
            G = G.reshape(a, a, a, a).transpose(3, 0, 1, 2).reshape(a * a, a * a)
            products += D[leaf] @ G @ D[leaf].T
            if nsym:
                weights = np.stack([D[leaf][:, i * a + j] for i, j in places], axis=1)
                G = sums[off[F, 0]:].reshape(nsym, nsym)
                products += weights @ (0.5 * (G + G.T)) @ weights.T
        return 0.5 * (products + products.T)


cdef _copy(const double* source, out):
    """Copy into a contiguous array of doubles."""
    cdef double[::1] view = out.reshape(-1)
    if view.shape[0]:
        memcpy(&view[0], source, view.shape[0] * sizeof(double))
