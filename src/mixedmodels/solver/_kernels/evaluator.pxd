# C-level contract between the compiled solvers (grouped, blocked) and the compiled Newton loop.
#
# A *factor* here is one grouping factor with its levels; terms on the same grouping factor are
# amalgamated into one factor whose k x k relative factor has a zero pattern.  All small matrices
# are row-major; the blocks of all factors lie one after another, factor f at koff[f], k[f]*k[f] long.

# eigenvalues on the diagonal of symmetric A (n x n, overwritten), eigenvectors in the columns of V
cdef void eigen(int n, double* A, double* V) noexcept nogil


cdef class Evaluator:
    # ---- sizes
    cdef readonly int n_theta, n_factors, p, kk      # kk = sum of k[f]^2
    cdef readonly double nu                          # n (ML) or n - p (REML); rows with zero weight not counted
    cdef readonly bint reml
    cdef readonly double sigma_fixed                 # > 0: residual SD held fixed (internal scale); else 0
    cdef readonly double constant                    # added to the criterion: -sum log w, scalings, log 2 pi
    cdef int* k                                      # (n_factors,)
    cdef int* koff                                   # (n_factors,) offsets into lam, M, dS rows
    # ---- theta -> factors: lam[e_pos[e]] = theta[e_theta[e]]
    cdef int n_entries
    cdef int* e_fac
    cdef int* e_row
    cdef int* e_col
    cdef int* e_theta
    # ---- feasible directions, one per term: rows/columns [c_from, c_to) of factor c_fac, kind 0 block 1 diagonal 2 trace
    cdef int n_clips
    cdef int* c_fac
    cdef int* c_from
    cdef int* c_to
    cdef int* c_kind
    # ---- filled by the base class before components()
    cdef double* lam                                 # (kk,) relative factors
    cdef double* dS                                  # (n_dir, kk) directions d Sigma (symmetric blocks)
    cdef int n_dir
    # ---- filled by components()
    cdef public double logdet_L2, logdet_RX2, pwrss
    cdef double* T                                   # (kk,)  T_f = sum_l K_ll,  K = Z'V^-1 Z (ML) or Z'PZ (REML)
    cdef double* S                                   # (kk,)  S_f = sum_l c_l c_l',  c = Z'Py = Z'(penalised residual)
    cdef double* wpw                                 # (n_dir, n_dir)  y'P V_i P V_j P y
    cdef double* wq                                  # (n_dir,)        y'P V_i P y  =  <S, dS_i>
    # ---- work
    cdef double* M
    cdef double* Mplus
    cdef double* work
    cdef object _keep

    # Given lam (and dS, n_dir when order = 2) compute: order 0 logdet_L2, logdet_RX2, pwrss; order 1 also T, S;
    # order 2 also wpw, wq.  Returns 0, or 1 if a matrix is not positive definite (never raises).
    cdef int components(self, int order) noexcept nogil
    # components(2) and, from it, exact: `tr(K D_i K D_j)` (n_dir, n_dir); Phi H'D_iH Phi (n_dir, p, p), H = Z'V^-1X,
    # Phi = (X'V^-1X)^-1.  3 if the solver must be asked instead.
    cdef int second(self, int exact, double* products, double* changes) noexcept nogil
    # criterion, gradient (n_theta) and Newton matrix (n_theta x n_theta) at theta; order as above.
    cdef int evaluate(self, const double* theta, int order, double* value, double* grad, double* hess) noexcept nogil
    cdef void _add_curvature(self, double* out) noexcept nogil   # (n_theta, n_theta) += 2 tr(E_i' M E_j)
    cdef double _criterion(self) noexcept nogil
    cdef void _set_factors(self, const double* theta) noexcept nogil
    cdef void _set_directions(self) noexcept nogil
    cdef double _scale(self) noexcept nogil          # nu / pwrss, or 1 / sigma_fixed^2
    # ---- other responses of the same design (refits.pyx); the evaluator must own its data
    # zy: Z'y factor by factor (m, k), xy: X'y (p,), yy: y'y, in internal coordinates; 1 if it cannot
    cdef int respond(self, const double* zy, const double* xy, double yy) noexcept nogil
    # beta (p,), (X'V^-1 X)^-1 (p, p) and pwrss at lam; 1 if not positive definite
    cdef int estimates(self, double* beta, double* vcov) noexcept nogil
