from mixedmodels.solver._kernels.evaluator cimport Evaluator


cdef class GroupedLevels:
    # One grouping factor: levels pooled in classes of identical blocks, the rest in lanes for streaming.
    cdef readonly Py_ssize_t m, n_classes, n_streamed, pooled_levels
    cdef readonly int k, p
    cdef readonly object A, ZXy
    cdef const double* own_A         # their first elements
    cdef const double* own_ZXy
    cdef Py_ssize_t blocks
    cdef double* data                # (blocks, fields, LANES)
    cdef double* classes             # per class: count, R (k x k), C (k, P, k, P)
    cdef Py_ssize_t class_size
    cdef double* within              # (P, P) part of [X y]'[X y] that no level explains
    cdef object _keep
    cdef Py_ssize_t* place           # of each level: its class, or -1 - its place among the streamed; or NULL
    cdef double* roots               # (m, k, k) R of each level; or NULL
    cdef double* tops                # (m, k, P) t of each level; or NULL


cdef class GroupedEvaluator(Evaluator):
    cdef readonly GroupedLevels levels
    cdef double* ghat                # (P, P)
    cdef double* beta                # (p,)
    cdef double* v                   # (P,) = (-beta, 1)
    cdef double* RX                  # (p, p) upper: X'V^{-1}X = RX'RX
    cdef double* RXinv
    cdef double* XVX                 # (X'V^{-1}X)^{-1}
    cdef double* F                   # (k2, k2) sum K (x) c c'
    cdef double* H                   # (k, p, k) sum Z'V^{-1}X (x) c
    cdef double* small               # work of the pooled classes
    cdef double* acc                 # per chunk accumulators
    cdef double* lanes_work          # per chunk work
    cdef Py_ssize_t chunks, work_size, acc_size
    cdef int _fixed_part(self) noexcept nogil
    cdef void _pooled_first(self) noexcept nogil
    cdef void _pooled_second(self, int order) noexcept nogil
    cdef void _stream_first(self) noexcept nogil
    cdef void _stream_second(self, int order) noexcept nogil
    cdef void _directions(self) noexcept nogil
    cdef int _second(self, const double* lam, const double* D, int r, double* products, double* traces,
                     double* inside) noexcept nogil
    cdef _at(self, lam, int order)
