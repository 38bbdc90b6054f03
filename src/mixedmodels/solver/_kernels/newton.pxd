from mixedmodels.solver._kernels.evaluator cimport Evaluator


cdef class NewtonLoop:
    # Work space of the compiled Newton loop, so that it can run many times from compiled code.
    cdef void* search                # a Search, known to newton.pyx only
    cdef double* base                # start of `doubles`
    cdef double* conditions          # (3, n_clips) smallest eigenvalues, residuals, singular
    cdef object doubles, kept, watcher
    cdef Evaluator evaluator
    cdef bint prepare(self, Evaluator ev, levels, double tol, int maxiter, double max_seconds, double cap) except -1
    # from theta0 to theta (r,) and the criterion; status in the order of mixedmodels.optimize.Status
    cdef int run(self, const double* theta0, double* theta, double* value) noexcept nogil
