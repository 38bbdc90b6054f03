# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The Newton loop without Python objects, for any compiled Evaluator."""

from libc.string cimport memcpy

import numpy as np

from mixedmodels.solver._kernels.evaluator cimport Evaluator


cdef class CallbackEvaluator(Evaluator):
    """Evaluator whose components come from a Python function, so that any solver can run in the compiled loop.

    Parameters
    ----------
    k, entries, clips, p, nu, reml, constant, sigma_fixed
        As for Evaluator.
    function : callable
        ``function(lam (kk,), directions (r, kk), order) -> (logdet_L2, logdet_RX2, pwrss, T (kk,), S (kk,), wpw (r, r))``,
        with T and S used for order >= 1 and wpw for order 2; None if a matrix is not positive definite.
    """

    cdef object function
    cdef readonly object error

    def __init__(self, k, entries, clips, int p, double nu, bint reml, double constant=0.0,
                 double sigma_fixed=0.0, function=None):
        self.function = function
        self.error = None

    cdef int components(self, int order) noexcept nogil:
        cdef int bad
        with gil:
            try:
                bad = self._call(order)
            except BaseException as error:
                self.error = error
                bad = 3
        return bad

    cdef int _call(self, int order) except -1:
        cdef int i, r = self.n_dir
        cdef double[::1] v
        lam = np.empty(self.kk)
        v = lam
        memcpy(&v[0], self.lam, self.kk * sizeof(double))
        D = np.zeros((r if order >= 2 else 0, self.kk))
        if D.size:
            v = D.reshape(-1)
            memcpy(&v[0], self.dS, D.size * sizeof(double))
        out = self.function(lam, D, order)
        if out is None:
            return 1
        self.logdet_L2, self.logdet_RX2, self.pwrss = out[0], out[1], out[2]
        if order >= 1:
            v = np.ascontiguousarray(out[3], dtype=np.float64).reshape(-1)
            memcpy(self.T, &v[0], self.kk * sizeof(double))
            v = np.ascontiguousarray(out[4], dtype=np.float64).reshape(-1)
            memcpy(self.S, &v[0], self.kk * sizeof(double))
        if order >= 2 and r:
            v = np.ascontiguousarray(out[5], dtype=np.float64).reshape(-1)
            memcpy(self.wpw, &v[0], r * r * sizeof(double))
        return 0
