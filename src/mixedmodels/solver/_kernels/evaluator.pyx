# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""From theta to criterion, gradient and Newton matrix: what every compiled solver shares.

A compiled solver fills, for given relative factors ``lam``: ``logdet_L2, logdet_RX2, pwrss`` and, per
factor f, the k x k matrices

    T_f = sum_l K_ll   (K = Z'V^{-1}Z for ML, Z'PZ for REML),      S_f = sum_l c_l c_l'   (c = Z'Py),

so that ``d criterion / d Sigma_f = M_f = T_f - (nu / pwrss) S_f``; and the average-information numerators
``wpw_ij = y'P V_i P V_j P y`` for the directions dS. The chain rule to theta lives here, once:

    gradient_t  = 2 sum_{entries of t} (M lam)[row, col]
    AI_ij       = (nu/pwrss) wpw_ij - (nu/pwrss^2) q_i q_j,     q_i = <S, dS_i>
    Newton      = AI + 2 sum_{entries e, e' in one column} (M^+)[row_e, row_e']

M^+ is the positive part of M on each term's feasible cone, so the matrix is positive semi-definite and
convergence is superlinear to boundary points too (there M >= 0 and M lam = 0 at the optimum).
"""

from libc.math cimport fabs, log, sqrt
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import numpy as np

cdef double LOG2PI = 1.8378770664093453


cdef void eigen(int n, double* A, double* V) noexcept nogil:
    """Eigenvalues on the diagonal of symmetric A (overwritten), eigenvectors in the columns of V; cyclic Jacobi."""
    cdef int i, j, c, sweep
    cdef double off, total, t, co, si, x, y
    for i in range(n):
        for j in range(n):
            V[i * n + j] = 1.0 if i == j else 0.0
    for sweep in range(60):
        off = 0.0
        total = 0.0
        for i in range(n):
            total += A[i * n + i] * A[i * n + i]
            for j in range(i):
                off += A[i * n + j] * A[i * n + j]
        if off <= 1e-30 * total or off == 0.0:
            return
        for i in range(n - 1):
            for j in range(i + 1, n):
                if A[i * n + j] == 0.0:
                    continue
                t = (A[j * n + j] - A[i * n + i]) / (2.0 * A[i * n + j])
                t = (1.0 if t >= 0.0 else -1.0) / (fabs(t) + sqrt(1.0 + t * t))
                co = 1.0 / sqrt(1.0 + t * t)
                si = t * co
                for c in range(n):
                    x = A[c * n + i]
                    y = A[c * n + j]
                    A[c * n + i] = co * x - si * y
                    A[c * n + j] = si * x + co * y
                for c in range(n):
                    x = A[i * n + c]
                    y = A[j * n + c]
                    A[i * n + c] = co * x - si * y
                    A[j * n + c] = si * x + co * y
                for c in range(n):
                    x = V[c * n + i]
                    y = V[c * n + j]
                    V[c * n + i] = co * x - si * y
                    V[c * n + j] = si * x + co * y


cdef void positive_part(int n, const double* a, int lda, double* out, double* work) noexcept nogil:
    """out (n x n, leading dimension lda) = positive part of symmetric a; work holds 2 n^2."""
    cdef int i, j, r
    cdef double t, x
    cdef double* A = work
    cdef double* V = work + n * n
    if n == 1:
        out[0] = a[0] if a[0] > 0.0 else 0.0
        return
    for i in range(n):
        for j in range(n):
            A[i * n + j] = a[i * lda + j]
    eigen(n, A, V)
    for i in range(n):
        for j in range(n):
            x = 0.0
            for r in range(n):
                t = A[r * n + r]
                if t > 0.0:
                    x += t * V[i * n + r] * V[j * n + r]
            out[i * lda + j] = x


def regular_inverse(A, double least):
    """Inverse of a symmetric matrix, or None unless it is positive definite and far from singular.

    The measure is the smallest pivot of the Cholesky factor of the matrix scaled to a diagonal of one.

    Parameters
    ----------
    A : ndarray, shape (r, r)
    least : float
        Smallest pivot that counts as regular.
    """
    cdef int r = A.shape[0], i, j, l
    cdef double s
    out, root_ = np.empty((r, r)), np.zeros((r, r))
    scale_ = np.empty(r)
    cdef const double[:, :] a = A
    cdef double[:, ::1] V = out, R = root_
    cdef double[::1] d = scale_
    for i in range(r):
        if not a[i, i] > 0.0:
            return None
        d[i] = 1.0 / sqrt(a[i, i])
    for j in range(r):
        for i in range(j, r):
            s = a[i, j] * d[i] * d[j]
            for l in range(j):
                s -= R[i, l] * R[j, l]
            if i == j:
                if not s > least * least:
                    return None
                R[j, j] = sqrt(s)
            else:
                R[i, j] = s / R[j, j]
    for j in range(r):                           # R^{-1}, in the lower triangle of V
        for i in range(j, r):
            s = 1.0 if i == j else 0.0
            for l in range(j, i):
                s -= R[i, l] * V[l, j]
            V[i, j] = s / R[i, i]
    for j in range(r):                           # R^{-T} R^{-1}; what is still needed lies further down
        for i in range(j, r):
            s = 0.0
            for l in range(i, r):
                s += V[l, i] * V[l, j]
            V[i, j] = s
    for j in range(r):
        for i in range(j, r):
            V[i, j] *= d[i] * d[j]
            V[j, i] = V[i, j]
    return out


cdef class Evaluator:
    """Base of the compiled solvers: sizes, the map theta -> factors, and the chain rule.

    Parameters
    ----------
    k : array of int, (n_factors,)
        Columns of each factor.
    entries : array of int, (e, 4)
        Rows (factor, row, column, theta).
    clips : array of int, (terms, 4)
        Rows (factor, first column, last column + 1, kind) with kind 0 block, 1 diagonal, 2 trace.
    p : int
        Fixed-effects columns.
    nu : float
        n for ML, n - p for REML.
    reml : bool
    constant : float
        Added to the criterion.
    sigma_fixed : float
        Residual SD held fixed, or 0.
    """

    def __cinit__(self, k, entries, clips, int p, double nu, bint reml, double constant=0.0,
                  double sigma_fixed=0.0, *args, **kwargs):
        cdef int f, i, e, r, kmax = 1
        cdef int[::1] iv
        cdef int[:, ::1] ev, cv
        # one block of ints: k, koff, then the four columns of the entries and of the clips
        k_ = np.ascontiguousarray(k, dtype=np.intc)
        ent = np.ascontiguousarray(entries, dtype=np.intc)
        cl = np.ascontiguousarray(clips, dtype=np.intc)
        ev = ent if ent.ndim == 2 else ent.reshape(-1, 4)
        cv = cl if cl.ndim == 2 else cl.reshape(-1, 4)
        self.n_factors = k_.shape[0]
        self.n_entries = ev.shape[0]
        self.n_clips = cv.shape[0]
        self.p = p
        self.nu = nu
        self.reml = reml
        self.constant = constant
        self.sigma_fixed = sigma_fixed
        ints = np.empty(2 * self.n_factors + 4 * self.n_entries + 4 * self.n_clips + 1, dtype=np.intc)
        cdef int[::1] block = ints
        cdef int* ip = &block[0]
        self.k = ip
        self.koff = ip + self.n_factors
        self.e_fac = self.koff + self.n_factors
        self.e_row = self.e_fac + self.n_entries
        self.e_col = self.e_row + self.n_entries
        self.e_theta = self.e_col + self.n_entries
        self.c_fac = self.e_theta + self.n_entries
        self.c_from = self.c_fac + self.n_clips
        self.c_to = self.c_from + self.n_clips
        self.c_kind = self.c_to + self.n_clips
        self.kk = 0
        iv = k_
        for f in range(self.n_factors):
            self.k[f] = iv[f]
            self.koff[f] = self.kk
            self.kk += iv[f] * iv[f]
            kmax = max(kmax, iv[f])
        self.n_theta = 0
        for e in range(self.n_entries):
            self.e_fac[e] = ev[e, 0]
            self.e_row[e] = ev[e, 1]
            self.e_col[e] = ev[e, 2]
            self.e_theta[e] = ev[e, 3]
            self.n_theta = max(self.n_theta, ev[e, 3] + 1)
        for e in range(self.n_clips):
            self.c_fac[e] = cv[e, 0]
            self.c_from[e] = cv[e, 1]
            self.c_to[e] = cv[e, 2]
            self.c_kind[e] = cv[e, 3]
        r = max(self.n_theta, 1)
        doubles = np.zeros(5 * self.kk + r * self.kk + r * r + r + 2 * kmax * kmax + 16)
        self._keep = [ints, doubles]
        cdef double[::1] dv = doubles
        cdef double* base = &dv[0]
        self.lam = base
        self.T = base + self.kk
        self.S = base + 2 * self.kk
        self.M = base + 3 * self.kk
        self.Mplus = base + 4 * self.kk
        self.dS = base + 5 * self.kk
        self.wpw = self.dS + r * self.kk
        self.wq = self.wpw + r * r
        self.work = self.wq + r
        self.n_dir = 0

    cdef int components(self, int order) noexcept nogil:
        return 1

    cdef int second(self, int exact, double* products, double* changes) noexcept nogil:
        return 3

    cdef int respond(self, const double* zy, const double* xy, double yy) noexcept nogil:
        return 1

    cdef int estimates(self, double* beta, double* vcov) noexcept nogil:
        return 1

    cdef double _scale(self) noexcept nogil:
        if self.sigma_fixed > 0.0:
            return 1.0 / (self.sigma_fixed * self.sigma_fixed)
        return self.nu / self.pwrss

    cdef double _criterion(self) noexcept nogil:
        cdef double d = self.logdet_L2 + self.constant
        if self.reml:
            d += self.logdet_RX2
        if self.sigma_fixed > 0.0:
            return d + self.nu * (LOG2PI + 2.0 * log(self.sigma_fixed)) \
                + self.pwrss / (self.sigma_fixed * self.sigma_fixed)
        return d + self.nu * (1.0 + LOG2PI + log(self.pwrss / self.nu))

    cdef void _set_factors(self, const double* theta) noexcept nogil:
        cdef int e, f
        memset(self.lam, 0, self.kk * sizeof(double))
        for e in range(self.n_entries):
            f = self.e_fac[e]
            self.lam[self.koff[f] + self.e_row[e] * self.k[f] + self.e_col[e]] = theta[self.e_theta[e]]

    cdef void _set_directions(self) noexcept nogil:
        """dS_t = sum over the entries (a, c) of t of  e_a lam[:, c]' + lam[:, c] e_a'."""
        cdef int e, f, a, c, i, kf
        cdef double v
        cdef double* D
        memset(self.dS, 0, self.n_theta * self.kk * sizeof(double))
        for e in range(self.n_entries):
            f = self.e_fac[e]
            kf = self.k[f]
            a = self.e_row[e]
            c = self.e_col[e]
            D = self.dS + self.e_theta[e] * self.kk + self.koff[f]
            for i in range(kf):
                v = self.lam[self.koff[f] + i * kf + c]
                D[a * kf + i] += v
                D[i * kf + a] += v
        self.n_dir = self.n_theta

    cdef int evaluate(self, const double* theta, int order, double* value, double* grad,
                      double* hess) noexcept nogil:
        cdef int i, j, e, e2, f, kf, t, t2, lo, hi, r, bad
        cdef double s, x
        cdef double* Mf
        cdef double* L
        cdef double* P
        self._set_factors(theta)
        if order >= 2:
            self._set_directions()
        bad = self.components(order)
        if bad:
            return bad
        if not self.pwrss > 0.0:
            return 2
        value[0] = self._criterion()
        if value[0] != value[0]:
            return 1
        if order < 1:
            return 0
        s = self._scale()
        for i in range(self.kk):
            self.M[i] = self.T[i] - s * self.S[i]
        r = self.n_theta
        for i in range(r):
            grad[i] = 0.0
        for e in range(self.n_entries):
            f = self.e_fac[e]
            kf = self.k[f]
            Mf = self.M + self.koff[f]
            L = self.lam + self.koff[f]
            x = 0.0
            for i in range(kf):
                x += Mf[self.e_row[e] * kf + i] * L[i * kf + self.e_col[e]]
            grad[self.e_theta[e]] += 2.0 * x
        if order < 2:
            return 0
        # average information
        for i in range(r):
            x = 0.0
            for j in range(self.kk):
                x += self.dS[i * self.kk + j] * self.S[j]
            self.wq[i] = x
        x = 0.0 if self.sigma_fixed > 0.0 else s / self.pwrss
        for i in range(r):
            for j in range(r):
                hess[i * r + j] = s * self.wpw[i * r + j] - x * self.wq[i] * self.wq[j]
        # curvature of the positive part of M on each term's cone
        memset(self.Mplus, 0, self.kk * sizeof(double))
        for t in range(self.n_clips):
            f = self.c_fac[t]
            kf = self.k[f]
            lo = self.c_from[t]
            hi = self.c_to[t]
            Mf = self.M + self.koff[f]
            P = self.Mplus + self.koff[f]
            if self.c_kind[t] == 0:
                positive_part(hi - lo, Mf + lo * kf + lo, kf, P + lo * kf + lo, self.work)
            elif self.c_kind[t] == 1:
                for i in range(lo, hi):
                    P[i * kf + i] = Mf[i * kf + i] if Mf[i * kf + i] > 0.0 else 0.0
            else:
                x = 0.0
                for i in range(lo, hi):
                    x += Mf[i * kf + i]
                if x > 0.0:
                    for i in range(lo, hi):
                        P[i * kf + i] = x / (hi - lo)
        for e in range(self.n_entries):
            f = self.e_fac[e]
            kf = self.k[f]
            P = self.Mplus + self.koff[f]
            t = self.e_theta[e]
            for e2 in range(self.n_entries):
                if self.e_fac[e2] == f and self.e_col[e2] == self.e_col[e]:
                    hess[t * r + self.e_theta[e2]] += 2.0 * P[self.e_row[e] * kf + self.e_row[e2]]
        return 0

    # ------------------------------------------------------------------ Python level
    def value_gradient_hessian(self, theta, int order=2):
        """Criterion, gradient and Newton matrix at `theta` (internal coordinates); raises if not positive definite."""
        cdef double[::1] th = np.ascontiguousarray(theta, dtype=np.float64)
        grad = np.zeros(self.n_theta)
        hess = np.zeros((self.n_theta, self.n_theta))
        cdef double[::1] g = grad
        cdef double[:, ::1] h = hess
        cdef double value = 0.0
        cdef int bad
        if th.shape[0] != self.n_theta:
            raise ValueError(f"theta has {th.shape[0]} values, the model has {self.n_theta} parameters")
        cdef const double* tp = &th[0] if self.n_theta else NULL
        cdef double* gp = &g[0] if self.n_theta else NULL
        cdef double* hp = &h[0, 0] if self.n_theta else NULL
        with nogil:
            bad = self.evaluate(tp, order, &value, gp, hp)
        if bad:
            raise FloatingPointError("the penalised cross-product matrix is not positive definite")
        return value, grad, hess

    def information(self, theta, bint exact):
        """Information about `theta`, and how (X'V^{-1}X)^{-1} changes, in one evaluation.

        Parameters
        ----------
        theta : ndarray, shape (r,)
        exact : bool
            The Hessian; otherwise the average information.

        Returns
        -------
        None where the solver has to put it together from `information_parts`, or

        inner : ndarray, shape (r, r)
        q : ndarray, shape (r,)
            ``(nu/pwrss) y'P V_i P y``.
        changes : ndarray, shape (r, p, p)
            Derivatives of ``(X'V^{-1}X)^{-1}``.
        """
        cdef int i, j, bad, r = self.n_theta, p = self.p
        cdef double s, x
        cdef double[::1] th = np.ascontiguousarray(theta, dtype=np.float64)
        if th.shape[0] != r:
            raise ValueError(f"theta has {th.shape[0]} values, the model has {r} parameters")
        inner_, q_, changes_ = np.zeros((r, r)), np.zeros(r), np.zeros((r, p, p))
        if r == 0:
            return None
        cdef double[:, ::1] inner = inner_
        cdef double[::1] q = q_, flat = changes_.reshape(-1)
        cdef double* cp = &flat[0] if p else NULL
        self._set_factors(&th[0])
        self._set_directions()
        with nogil:
            bad = self.second(exact, &inner[0, 0], cp)
        if bad == 3:
            return None
        if bad or not self.pwrss > 0.0:
            raise FloatingPointError("the penalised cross-product matrix is not positive definite")
        s = self._scale()
        for i in range(r):
            x = 0.0
            for j in range(self.kk):
                x += self.dS[i * self.kk + j] * self.S[j]
            q[i] = s * x
            for j in range(r):
                x = s * self.wpw[i * r + j]
                inner[i, j] = 2.0 * x - inner[i, j] if exact else x
        if exact:
            for i in range(self.kk):
                self.M[i] = self.T[i] - s * self.S[i]
            self._add_curvature(&inner[0, 0])
        return inner_, q_, changes_

    cdef void _add_curvature(self, double* out) noexcept nogil:
        """out (r x r) += 2 tr(E_i' M E_j)."""
        cdef int e, e2, f, kf, r = self.n_theta
        for e in range(self.n_entries):
            f = self.e_fac[e]
            kf = self.k[f]
            for e2 in range(self.n_entries):
                if self.e_fac[e2] == f and self.e_col[e2] == self.e_col[e]:
                    out[self.e_theta[e] * r + self.e_theta[e2]] += \
                        2.0 * self.M[self.koff[f] + self.e_row[e] * kf + self.e_row[e2]]

    def information_parts(self, theta):
        """What the information about `theta` is made of, exact curvature included.

        Returns
        -------
        lam : ndarray, shape (kk,)
            Relative factors.
        dS : ndarray, shape (r, kk)
            Directions dSigma of the parameters.
        wpw : ndarray, shape (r, r)
            ``(nu/pwrss) y'P V_i P V_j P y``, or that over the fixed residual variance.
        curvature : ndarray, shape (r, r)
            ``2 tr(E_i' M E_j)``.
        q : ndarray, shape (r,)
            ``(nu/pwrss) y'P V_i P y``.
        """
        cdef double[::1] th = np.ascontiguousarray(theta, dtype=np.float64)
        cdef int bad, i, j, r = self.n_theta
        cdef double s, x
        if th.shape[0] != r:
            raise ValueError(f"theta has {th.shape[0]} values, the model has {r} parameters")
        self._set_factors(&th[0] if r else NULL)
        self._set_directions()
        with nogil:
            bad = self.components(2)
        if bad or not self.pwrss > 0.0:
            raise FloatingPointError("the penalised cross-product matrix is not positive definite")
        lam_, dS_, wpw_, curvature_, q_ = (
            np.empty(self.kk), np.empty((r, self.kk)), np.empty((r, r)), np.zeros((r, r)), np.empty(r))
        cdef double[::1] lam = lam_, q = q_
        cdef double[:, ::1] dS = dS_, wpw = wpw_, curvature = curvature_
        s = self._scale()
        if self.kk:
            memcpy(&lam[0], self.lam, self.kk * sizeof(double))
            for i in range(self.kk):
                self.M[i] = self.T[i] - s * self.S[i]
        for i in range(r):
            x = 0.0
            for j in range(self.kk):
                dS[i, j] = self.dS[i * self.kk + j]
                x += dS[i, j] * self.S[j]
            q[i] = s * x
            for j in range(r):
                wpw[i, j] = s * self.wpw[i * r + j]
        if r:
            self._add_curvature(&curvature[0, 0])
        return lam_, dS_, wpw_, curvature_, q_

    def components_at(self, lam, directions=None, int order=0):
        """Raw components for factors `lam`, shape (kk,), and directions dSigma, shape (r, kk).

        Returns a dict with logdet_L2, logdet_RX2, pwrss and, by `order`, T (kk,), S (kk,), wpw (r, r).
        More directions than parameters are worked through in groups, two groups at a time.
        """
        cdef double[::1] lv = np.ascontiguousarray(lam, dtype=np.float64).ravel()
        cdef double[:, ::1] dv
        cdef int bad, r = 0, i, j, cap
        if lv.shape[0] != self.kk:
            raise ValueError(f"lam has {lv.shape[0]} values, expected {self.kk}")
        memcpy(self.lam, &lv[0], self.kk * sizeof(double))
        out = {}
        cap = max(self.n_theta, 1)
        if order >= 2:
            D = np.ascontiguousarray(directions, dtype=np.float64).reshape(-1, self.kk)
            r = D.shape[0]
            wpw = np.zeros((r, r))
            weights = None
            if r > cap and self.kk == 1:         # every direction is a multiple of one
                weights = D[:, 0]
                D = np.ones((1, 1))
                r = 1
            half = r if r <= cap else max(cap // 2, 1)
            if r > cap and cap < 2:
                raise ValueError("at most one direction at a time for a model with one parameter")
            groups = [list(range(a, min(a + half, r))) for a in range(0, r, half)]
            pairs = [(groups[0], [])] if len(groups) == 1 else [
                (groups[i], groups[j]) for i in range(len(groups)) for j in range(i)]
            for left, right in pairs:
                index = left + right
                sub = np.ascontiguousarray(D[index])
                dv = sub
                memcpy(self.dS, &dv[0, 0], sub.size * sizeof(double))
                self.n_dir = len(index)
                with nogil:
                    bad = self.components(2)
                if bad:
                    raise FloatingPointError("the penalised cross-product matrix is not positive definite")
                block = np.empty((len(index), len(index)))
                for i in range(len(index)):
                    for j in range(len(index)):
                        block[i, j] = self.wpw[i * self.n_dir + j]
                wpw[np.ix_(index, index)] = block
            out["wpw"] = wpw if weights is None else wpw[0, 0] * np.outer(weights, weights)
        else:
            with nogil:
                bad = self.components(order)
            if bad:
                raise FloatingPointError("the penalised cross-product matrix is not positive definite")
        out.update(logdet_L2=self.logdet_L2, logdet_RX2=self.logdet_RX2, pwrss=self.pwrss)
        if order >= 1:
            T = np.empty(self.kk)
            S = np.empty(self.kk)
            for i in range(self.kk):
                T[i] = self.T[i]
                S[i] = self.S[i]
            out["T"] = T
            out["S"] = S
        return out
