/* Laplace's approximation with one grouping factor: everything is local to a group.
 *
 * A group has rows with values z of k random columns (column l adds to the linear predictor pr[l]) and rows x_c of
 * the coefficients; b = Lambda u, eta_c = x_c gamma + offset_c + z_c b, where z_c keeps the columns of predictor c.
 * With f2_cd, f3_cde, ... the partial derivatives of a row's log-density, sums over the rows of the group:
 *
 *   s = sum f1 z     S = sum f2 z z'     H = I - Lambda' S Lambda     G = Lambda H^{-1} Lambda'
 *
 * A dot and an index a mean the total derivative with the mode following; Lambda_a = e_i e_j' for the entry (i, j):
 *
 *   N_a   = x_a, or z_i u_j               U_a  = H^{-1} (Lambda' sum z f2 N_a + Lambda_a' s)
 *   b_a   = Lambda U_a + Lambda_a u       eta_ca = x_ca + z_c b_a
 *   h_cd  = z_c' G z_d                    w_e  = sum_cd h_cd f3_cde       t = -sum w z      v = G t
 *   K_a   = sum z z' sum_e f3_e eta_ea    R_a  = sum z f2 eta_a
 *   H_a   = -(Lambda_a' S Lambda + Lambda' S Lambda_a + Lambda' K_a Lambda)
 *
 * and half of the criterion L = -sum f + u'u / 2 + log|H| / 2 has
 *
 *   L_a   = -sum f1 N_a - (Lambda_a) (S Lambda H^{-1})_ij - sum w x_a / 2 + t' b_a / 2
 *   L_ab  = [-sum f2 eta_a eta_b + U_a'U_b - U_a'd_b - d_a'U_b]             (second derivative of F at its minimum)
 *           + sum M eta_a eta_b - tr(H^{-1} H_a H^{-1} H_b) / 2 + B_ab + B_ba - S_ii' (H^{-1})_jj'
 *   M_eg  = -(sum_cd h_cd f4_cdeg - sum_c (z_c v) f3_ceg) / 2,              d_a = Lambda_a' s
 *   B_ab  = -(K_b Lambda H^{-1})_ij + (Lambda^{-1} v)_j R_ib / 2 + Y_i U_jb   for an entry a = (i, j), else 0
 *   Y     = (t + S v) / 2
 *
 * (the formulas of objective/marginal/dense.py with the sums over rows pulled out). Lines of derivatives are padded
 * to W = a multiple of 4 columns. The functions take the number of predictors C and of columns k as arguments that
 * the compiler sees as constants for the common shapes.
 */
#ifndef MIXEDMODELS_MARGINAL_GROUPED_H
#define MIXEDMODELS_MARGINAL_GROUPED_H

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "density_rows.h"

enum { MG_START = 0, MG_START_AT_ZERO = 1, MG_SEARCH = 2, MG_SEARCH_FROM_ZERO = 3, MG_DONE = 4, MG_RANGE = 5,
       MG_NO_MODE = 6, MG_NOT_PROPER = 7 };

typedef struct {
    int C, A, k, p, ne, P, W;       /* predictors, active ones, columns, coefficients, entries, p + ne, padded P */
    int code, mean;                 /* compiled density (0: tables are given); mode search on the mean only */
    const int *pr, *act;            /* column -> predictor, and its place among the active ones */
    const int *ei, *ej;             /* entries */
    const int *m1, *m2;             /* places in the tables of the mode search: A, A x A */
    const int *d1, *d2, *d3, *d4;   /* places in the full tables: C, C x C, ... */
    int m_count;                    /* lines of a table of the mode search */
    ptrdiff_t n, m;
    const ptrdiff_t* start;         /* m + 1: first row of each group */
    const double *Z, *X, *offset;   /* (n, k), (n, C, W), (C, n) or NULL */
    const double *y, *trials, *constant, *weights;
    const double *gamma, *lam;      /* (W,), (k, k) */
    double *warm, *u, *trial, *step;       /* (m, k): where to begin, accepted, to try, Newton's step */
    double *F, *size;               /* (m,): F at u, length of the step */
    signed char* status;            /* (m,) */
    double* G;                      /* (m, k, k) or NULL */
    double* U;                      /* (m, k, W): derivatives of the modes, at the point of the warm starts */
    const double* move;             /* (W,): parameters minus those of the warm starts; NULL: start there */
} mg_problem;

/* ---------------------------------------------------------------- small matrices */
/* A = L L' in place (lower triangle); 0 where A is not positive definite. */
MM_INLINE int mg_cholesky(int k, double* A) {
    for (int j = 0; j < k; j++) {
        double d = A[j * k + j];
        for (int l = 0; l < j; l++) d -= A[j * k + l] * A[j * k + l];
        if (!(d > 0.0)) return 0;
        d = sqrt(d);
        A[j * k + j] = d;
        d = 1.0 / d;
        for (int i = j + 1; i < k; i++) {
            double s = A[i * k + j];
            for (int l = 0; l < j; l++) s -= A[i * k + l] * A[j * k + l];
            A[i * k + j] = s * d;
        }
    }
    return 1;
}

/* x <- (L L')^{-1} x */
MM_INLINE void mg_solve(int k, const double* L, double* x) {
    for (int i = 0; i < k; i++) {
        double s = x[i];
        for (int l = 0; l < i; l++) s -= L[i * k + l] * x[l];
        x[i] = s / L[i * k + i];
    }
    for (int i = k; i-- > 0;) {
        double s = x[i];
        for (int l = i + 1; l < k; l++) s -= L[l * k + i] * x[l];
        x[i] = s / L[i * k + i];
    }
}

/* x <- |A|^{-1} x for an indefinite A (Jacobi's rotations); A and V are overwritten. */
static void mg_solve_absolute(int k, double* A, double* V, double* x) {
    for (int i = 0; i < k * k; i++) V[i] = 0.0;
    for (int i = 0; i < k; i++) V[i * k + i] = 1.0;
    for (int sweep = 0; sweep < 60; sweep++) {
        double off = 0.0, on = 0.0;
        for (int i = 0; i < k; i++) {
            on += A[i * k + i] * A[i * k + i];
            for (int j = 0; j < i; j++) off += A[i * k + j] * A[i * k + j];
        }
        if (off <= 1e-30 * on) break;
        for (int a = 1; a < k; a++) {
            for (int b = 0; b < a; b++) {
                const double x0 = A[a * k + b];
                if (x0 == 0.0) continue;
                const double theta = 0.5 * (A[b * k + b] - A[a * k + a]) / x0;
                const double t = (theta >= 0.0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(theta * theta + 1.0));
                const double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
                for (int l = 0; l < k; l++) {
                    const double p = A[l * k + a], q = A[l * k + b];
                    A[l * k + a] = c * p - s * q;
                    A[l * k + b] = s * p + c * q;
                }
                for (int l = 0; l < k; l++) {
                    const double p = A[a * k + l], q = A[b * k + l];
                    A[a * k + l] = c * p - s * q;
                    A[b * k + l] = s * p + c * q;
                }
                for (int l = 0; l < k; l++) {
                    const double p = V[l * k + a], q = V[l * k + b];
                    V[l * k + a] = c * p - s * q;
                    V[l * k + b] = s * p + c * q;
                }
            }
        }
    }
    for (int a = 0; a < k; a++) {
        double s = 0.0, d = fabs(A[a * k + a]);
        for (int l = 0; l < k; l++) s += V[l * k + a] * x[l];
        A[a] = s / (d > 1e-6 ? d : 1e-6);                   /* the first row makes room for the solution */
    }
    for (int l = 0; l < k; l++) {
        double s = 0.0;
        for (int a = 0; a < k; a++) s += V[l * k + a] * A[a];
        x[l] = s;
    }
}

/* ---------------------------------------------------------------- linear predictors */
MM_INLINE void mg_fixed(const mg_problem* q, int C, ptrdiff_t first, ptrdiff_t rows, double* out,
                        ptrdiff_t stride) {
    for (int c = 0; c < C; c++) {
        const double* X = q->X + (first * C + c) * q->W;
        const double* offset = q->offset ? q->offset + c * q->n + first : NULL;
        for (ptrdiff_t i = 0; i < rows; i++) {
            double s = offset ? offset[i] : 0.0;
            for (int a = 0; a < q->p; a++) s += X[i * C * q->W + a] * q->gamma[a];
            out[c * stride + i] = s;
        }
    }
}

/* eta = fixed + z b of one group; b = Lambda u is left in `b`. */
MM_INLINE void mg_eta(const mg_problem* q, int C, int k, ptrdiff_t g, const double* u, double* b,
                      const double* fixed, double* eta, ptrdiff_t stride, ptrdiff_t rows) {
    const double* Z = q->Z + q->start[g] * k;
    for (int i = 0; i < k; i++) {
        double s = 0.0;
        for (int j = 0; j < k; j++) s += q->lam[i * k + j] * u[j];
        b[i] = s;
    }
    if (C == 1) {
        for (ptrdiff_t r = 0; r < rows; r++) {
            double s = fixed[r];
            for (int l = 0; l < k; l++) s += Z[r * k + l] * b[l];
            eta[r] = s;
        }
        return;
    }
    for (int c = 0; c < C; c++) memcpy(eta + c * stride, fixed + c * stride, rows * sizeof(double));
    for (int l = 0; l < k; l++)
        for (ptrdiff_t r = 0; r < rows; r++) eta[q->pr[l] * stride + r] += Z[r * k + l] * b[l];
}

/* ---------------------------------------------------------------- one step to the mode */
/* Where the search of a group begins: its last mode, moved to first order (by 1 at most). */
MM_INLINE void mg_begin(const mg_problem* q, int k, ptrdiff_t g) {
    double* trial = q->trial + g * k;
    memcpy(trial, q->warm + g * k, k * sizeof(double));
    q->status[g] = MG_START;
    if (!q->move) return;
    for (int l = 0; l < k; l++) {
        const double* U = q->U + (g * k + l) * q->W;
        double x = 0.0;
        for (int a = 0; a < q->P; a++) x += U[a] * q->move[a];
        trial[l] += x > 1.0 ? 1.0 : x < -1.0 ? -1.0 : x;
    }
}

/* s and S of one group from a table of order 2, and -sum f; not finite where a row is not. */
MM_INLINE double mg_score(const mg_problem* q, int A, int k, const double* Z, const double* T, ptrdiff_t st,
                          ptrdiff_t rows, const int* pr, const int* i1, const int* i2, double* s, double* S) {
    double F = 0.0;
    for (int l = 0; l < k; l++) s[l] = 0.0;
    for (int l = 0; l < k * k; l++) S[l] = 0.0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        F -= T[r];
        for (int l = 0; l < k; l++) {
            const double z = Z[r * k + l];
            const int c = A == 1 ? 0 : pr[l];
            s[l] += z * T[(A == 1 ? 1 : i1[c]) * st + r];
            for (int j = 0; j <= l; j++)
                S[l * k + j] += z * Z[r * k + j] * T[(A == 1 ? 2 : i2[c * A + pr[j]]) * st + r];
        }
    }
    for (int l = 0; l < k; l++)
        for (int j = 0; j < l; j++) S[j * k + l] = S[l * k + j];
    return F;
}

/* H = I - Lambda' S Lambda, lower triangle; B = S Lambda. */
MM_INLINE void mg_information(int k, const double* lam, const double* S, double* B, double* H) {
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            double x = 0.0;
            for (int l = 0; l < k; l++) x += S[i * k + l] * lam[l * k + j];
            B[i * k + j] = x;
        }
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            double x = i == j ? 1.0 : 0.0;
            for (int l = 0; l < k; l++) x -= lam[l * k + i] * B[l * k + j];
            H[i * k + j] = x;
        }
}

/* What the table at the trial means for the search of group g; returns whether the group is still searching. */
MM_INLINE int mg_advance(const mg_problem* q, int A, int k, ptrdiff_t g, const double* T, ptrdiff_t st,
                         double* work) {
    const ptrdiff_t rows = q->start[g + 1] - q->start[g];
    double *trial = q->trial + g * k, *u = q->u + g * k, *step = q->step + g * k;
    double *s = work, *S = s + k, *B = S + k * k, *H = B + k * k, *V = H + k * k, *H2 = V + k * k;
    const int first = q->status[g] == MG_START || q->status[g] == MG_START_AT_ZERO;
    const int from_zero = q->status[g] == MG_START_AT_ZERO || q->status[g] == MG_SEARCH_FROM_ZERO;
    double F = mg_score(q, A, k, q->Z + q->start[g] * k, T, st, rows, q->act, q->m1, q->m2, s, S), check;
    for (int l = 0; l < k; l++) F += 0.5 * trial[l] * trial[l];
    check = F;
    for (int l = 0; l < k; l++) check += s[l];
    for (int l = 0; l < k * k; l++) check += S[l];
    int restart = 0;
    if (!isfinite(check) || (!first && F > q->F[g] + 1e-12 * (1.0 + fabs(q->F[g])))) {
        if (first) {
            if (from_zero) {
                q->status[g] = MG_RANGE;
                return 0;
            }
            restart = 1;
        } else {
            q->size[g] *= 0.5;
            /* with counts of millions rounding decides about a step this short: Newton's step is as good as any */
            if (isfinite(check) && q->size[g] < 1e-3 && F - q->F[g] < 1e-8 * (1.0 + fabs(q->F[g]))) {
                for (int l = 0; l < k; l++) trial[l] = u[l] + step[l];
                q->status[g] = MG_DONE;
                return 0;
            }
            if (q->size[g] < 1e-12) {
                if (from_zero) {
                    q->status[g] = MG_NO_MODE;
                    return 0;
                }
                restart = 1;
            }
        }
        if (restart) {
            for (int l = 0; l < k; l++) trial[l] = 0.0;
            q->status[g] = MG_START_AT_ZERO;
            return 1;
        }
        for (int l = 0; l < k; l++) trial[l] = u[l] + q->size[g] * step[l];
        return 1;
    }
    q->F[g] = F;
    q->size[g] = 1.0;
    q->status[g] = from_zero ? MG_SEARCH_FROM_ZERO : MG_SEARCH;
    for (int l = 0; l < k; l++) u[l] = trial[l];
    mg_information(k, q->lam, S, B, H);
    double decrement = 0.0;
    for (int i = 0; i < k; i++) {
        double x = -u[i];
        for (int l = 0; l < k; l++) x += q->lam[l * k + i] * s[l];
        step[i] = x;
    }
    for (int i = 0; i < k; i++) V[i] = step[i];
    if (k == 1) {
        const double d = fabs(H[0]);
        step[0] /= d > 1e-6 ? d : 1e-6;
    } else {
        memcpy(H2, H, k * k * sizeof(double));
        if (mg_cholesky(k, H))
            mg_solve(k, H, step);
        else
            mg_solve_absolute(k, H2, H2 + k * k, step);
    }
    for (int i = 0; i < k; i++) decrement += V[i] * step[i];
    for (int l = 0; l < k; l++) trial[l] = u[l] + step[l];
    if (decrement < 1e-13) {                                /* the last step doubles the digits */
        q->status[g] = MG_DONE;
        return 0;
    }
    return 1;
}

/* ---------------------------------------------------------------- sums at the mode */
/* Lines of the accumulator: value, W of gradient, then the blocks of the second derivatives. */
#define MG_GRADIENT 4
#define MG_PENALISED(q) (MG_GRADIENT + (q)->W)
#define MG_REST(q) (MG_PENALISED(q) + (q)->P * (q)->W)
#define MG_B_PENALISED(q) (MG_REST(q) + (q)->P * (q)->W)
#define MG_B_REST(q) (MG_B_PENALISED(q) + (q)->ne * (q)->W)
#define MG_ENTRIES(q) (MG_B_REST(q) + (q)->ne * (q)->W)
#define MG_SIZE(q) (MG_ENTRIES(q) + (q)->ne * (q)->ne)

MM_INLINE void mg_axpy(int W, double a, const double* x, double* y) {
    for (int i = 0; i < W; i += LANES) *(vd*)(y + i) += VD_SET(a) * *(const vd*)(x + i);
}

/* lower triangle of out (P x W) += a x x', in blocks of LANES columns */
MM_INLINE void mg_rank_one(int P, int W, double a, const double* x, double* out) {
    for (int i = 0; i < P; i++) {
        const vd s = VD_SET(a * x[i]);
        for (int j = 0; j <= i; j += LANES) *(vd*)(out + i * W + j) += s * *(const vd*)(x + j);
    }
}

/* lower triangles of two outputs at once: a x x' and b x x' */
MM_INLINE void mg_rank_pair(int P, int W, double a, double b, const double* x, double* one, double* two) {
    for (int i = 0; i < P; i++) {
        const vd s = VD_SET(a * x[i]), t = VD_SET(b * x[i]);
        for (int j = 0; j <= i; j += LANES) {
            const vd v = *(const vd*)(x + j);
            *(vd*)(one + i * W + j) += s * v;
            *(vd*)(two + i * W + j) += t * v;
        }
    }
}

MM_INLINE ptrdiff_t mg_work(int C, int k, int P, int W, int ne, ptrdiff_t rows) {
    const int k2 = k * (k + 1) / 2;
    return 16 * k * k + 8 * k + W * (3 * k + 2 * k2 + 2 * C) + k * W + 2 * C * C + 2 * C + rows * C * C + 64;
}

/* One group at its mode: adds value (order 0), gradient (1) and second derivatives (2) to acc; T is a table of
 * order 2 + order over all predictors. Returns 0 where H is not positive definite. */
MM_INLINE int mg_group(const mg_problem* q, int C, int k, int order, ptrdiff_t g, const double* T, ptrdiff_t st,
                       double* work, double* acc) {
    const ptrdiff_t rows = q->start[g + 1] - q->start[g];
    const int W = q->W, P = q->P, p = q->p, ne = q->ne, k2 = k * (k + 1) / 2;
    const double *Z = q->Z + q->start[g] * k, *X = q->X + q->start[g] * C * W, *lam = q->lam;
    const double* u = q->trial + g * k;
    const int* pr = q->pr;
    double* at = work;
#define MG_TAKE(name, size) double* name = at; at += (size)
    MG_TAKE(s, k); MG_TAKE(S, k * k); MG_TAKE(B, k * k); MG_TAKE(H, k * k); MG_TAKE(Hi, k * k);
    MG_TAKE(LH, k * k); MG_TAKE(G, k * k); MG_TAKE(Ci, k * k); MG_TAKE(D, k * k); MG_TAKE(SD, k * k);
    MG_TAKE(t, k); MG_TAKE(v, k); MG_TAKE(adj, k); MG_TAKE(Y, k); MG_TAKE(zG, k);
    MG_TAKE(h, C * C * rows); MG_TAKE(M, 2 * C * C); MG_TAKE(w, C); MG_TAKE(sc, C);
    at = work + ((at - work + 3) & ~(ptrdiff_t)3);
    MG_TAKE(Q, k * W); MG_TAKE(U, k * W); MG_TAKE(db, k * W); MG_TAKE(R, k * W); MG_TAKE(K, k2 * W);
    MG_TAKE(V, k2 * W); MG_TAKE(e1, 2 * C * W);
#undef MG_TAKE
#define F1(c, r) T[(C == 1 ? 1 : q->d1[c]) * st + (r)]
#define F2(c, d, r) T[(C == 1 ? 2 : q->d2[(c) * C + (d)]) * st + (r)]
#define F3(c, d, e, r) T[(C == 1 ? 3 : q->d3[((c) * C + (d)) * C + (e)]) * st + (r)]
#define F4(c, d, e, g4, r) T[(C == 1 ? 4 : q->d4[(((c) * C + (d)) * C + (e)) * C + (g4)]) * st + (r)]
#define PR(l) (C == 1 ? 0 : pr[l])
    double F = mg_score(q, C, k, Z, T, st, rows, pr, q->d1, q->d2, s, S);
    for (int l = 0; l < k; l++) F += 0.5 * u[l] * u[l];
    mg_information(k, lam, S, B, H);
    if (!mg_cholesky(k, H)) return 0;
    double det = 1.0;
    for (int l = 0; l < k; l++) det *= H[l * k + l];
    acc[0] += F + log(det);
    /* Ci = L^{-T} (upper), H^{-1} = Ci Ci', LH = Lambda H^{-1}, G */
    for (int j = 0; j < k; j++) {
        for (int i = 0; i < k; i++) Ci[i * k + j] = 0.0;
        Ci[j * k + j] = 1.0 / H[j * k + j];
        for (int i = j; i-- > 0;) {
            double x = 0.0;
            for (int l = i + 1; l <= j; l++) x -= H[l * k + i] * Ci[l * k + j];
            Ci[i * k + j] = x / H[i * k + i];
        }
    }
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            double x = 0.0;
            for (int l = i > j ? i : j; l < k; l++) x += Ci[i * k + l] * Ci[j * k + l];
            Hi[i * k + j] = x;
        }
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            double x = 0.0;
            for (int l = 0; l < k; l++) x += lam[i * k + l] * Hi[l * k + j];
            LH[i * k + j] = x;
        }
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            double x = 0.0;
            for (int l = 0; l < k; l++) x += LH[i * k + l] * lam[j * k + l];
            G[i * k + j] = x;
        }
    if (q->G) memcpy(q->G + g * k * k, G, k * k * sizeof(double));
    if (order == 0) return 1;

    /* first pass: x f1, z f2 x */
    double* gradient = acc + MG_GRADIENT;
    memset(Q, 0, k * W * sizeof(double));
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (int c = 0; c < C; c++) mg_axpy(W, -F1(c, r), X + (r * C + c) * W, gradient);
        for (int l = 0; l < k; l++)
            for (int d = 0; d < C; d++) {
                const double f = Z[r * k + l] * F2(PR(l), d, r);
                if (C == 1 || f != 0.0) mg_axpy(W, f, X + (r * C + d) * W, Q + l * W);
            }
    }
    /* U = H^{-1} (Lambda' [Q, S_i u_j] + Lambda_a' s), b_a */
    memset(U, 0, k * W * sizeof(double));
    for (int l = 0; l < k; l++)
        for (int i = 0; i < k; i++)                         /* (H^{-1} Lambda')_li = LH_il */
            mg_axpy(W, LH[i * k + l], Q + i * W, U + l * W);
    for (int a = 0; a < ne; a++) {
        const int i = q->ei[a], j = q->ej[a];
        for (int l = 0; l < k; l++) {
            double x = Hi[l * k + j] * s[i];
            for (int o = 0; o < k; o++) x += LH[o * k + l] * S[o * k + i] * u[j];
            U[l * W + p + a] = x;
        }
    }
    memcpy(q->U + g * k * W, U, k * W * sizeof(double));
    memset(db, 0, k * W * sizeof(double));
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) mg_axpy(W, lam[i * k + j], U + j * W, db + i * W);
    for (int a = 0; a < ne; a++) db[q->ei[a] * W + p + a] += u[q->ej[a]];

    /* second pass: h, w, t and w x */
    for (int l = 0; l < k; l++) t[l] = 0.0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const double* z = Z + r * k;
        double* hr = h + r * C * C;
        for (int c = 0; c < C * C; c++) hr[c] = 0.0;
        for (int i = 0; i < k; i++)
            for (int j = 0; j < k; j++) hr[PR(i) * C + PR(j)] += z[i] * G[i * k + j] * z[j];
        for (int e = 0; e < C; e++) {
            double x = 0.0;
            for (int c = 0; c < C; c++)
                for (int d = 0; d < C; d++)
                    if (C == 1 || hr[c * C + d] != 0.0) x += hr[c * C + d] * F3(c, d, e, r);
            w[e] = x;
            mg_axpy(W, -0.5 * x, X + (r * C + e) * W, gradient);
        }
        for (int l = 0; l < k; l++) t[l] -= w[PR(l)] * z[l];
    }
    for (int l = 0; l < k; l++) mg_axpy(W, 0.5 * t[l], db + l * W, gradient);
    for (int a = 0; a < ne; a++) {
        const int i = q->ei[a], j = q->ej[a];
        double x = -s[i] * u[j];
        for (int l = 0; l < k; l++) x -= S[i * k + l] * LH[l * k + j];
        gradient[p + a] += x;
    }
    if (order == 1) return 1;

    /* third pass: K, M eta eta', f2 eta eta' */
    for (int i = 0; i < k; i++) {
        double x = 0.0, y = 0.0;
        for (int l = 0; l < k; l++) {
            x += G[i * k + l] * t[l];
            y += LH[l * k + i] * t[l];
        }
        v[i] = x;
        adj[i] = y;
    }
    memset(K, 0, k2 * W * sizeof(double));
    double *pen = acc + MG_PENALISED(q), *rest = acc + MG_REST(q);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const double *z = Z + r * k, *hr = h + r * C * C;
        for (int c = 0; c < C; c++) {
            memcpy(e1 + c * W, X + (r * C + c) * W, W * sizeof(double));
            sc[c] = 0.0;
        }
        for (int l = 0; l < k; l++) {
            mg_axpy(W, z[l], db + l * W, e1 + PR(l) * W);
            sc[PR(l)] += z[l] * v[l];
        }
        if (C == 1) {
            const double m = -0.5 * (hr[0] * F4(0, 0, 0, 0, r) - sc[0] * F3(0, 0, 0, r));
            mg_rank_pair(P, W, -F2(0, 0, r), m, e1, pen, rest);
            const double f3 = F3(0, 0, 0, r);
            for (int i = 0, o = 0; i < k; i++)
                for (int j = 0; j <= i; j++, o++) mg_axpy(W, z[i] * z[j] * f3, e1, K + o * W);
            continue;
        }
        double* mixed = e1 + C * W;
        for (int e = 0; e < C; e++)
            for (int d = 0; d < C; d++) {
                double x = 0.0;
                for (int c = 0; c < C; c++) {
                    if (sc[c] != 0.0) x += sc[c] * F3(c, d, e, r);
                    for (int f = 0; f < C; f++)
                        if (hr[c * C + f] != 0.0) x -= hr[c * C + f] * F4(c, f, d, e, r);
                }
                M[e * C + d] = 0.5 * x;
            }
        for (int e = 0; e < C; e++) {
            for (int which = 0; which < 2; which++) {
                memset(mixed, 0, W * sizeof(double));
                for (int d = 0; d < C; d++)
                    mg_axpy(W, which ? M[e * C + d] : -F2(e, d, r), e1 + d * W, mixed);
                double* out = which ? rest : pen;
                for (int i = 0; i < P; i++)
                    for (int j = 0; j <= i; j += LANES)
                        *(vd*)(out + i * W + j) += VD_SET(e1[e * W + i]) * *(const vd*)(mixed + j);
            }
        }
        for (int i = 0, o = 0; i < k; i++)
            for (int j = 0; j <= i; j++, o++)
                for (int e = 0; e < C; e++)
                    mg_axpy(W, z[i] * z[j] * F3(pr[i], pr[j], e, r), e1 + e * W, K + o * W);
    }
    /* R = Q + S b_a, V_a = C' H_a C packed with sqrt(2) off the diagonal */
    memcpy(R, Q, k * W * sizeof(double));
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) mg_axpy(W, S[i * k + j], db + j * W, R + i * W);
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            double x = 0.0;
            for (int l = 0; l < k; l++) x += lam[i * k + l] * Ci[l * k + j];
            D[i * k + j] = x;
        }
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            double x = 0.0;
            for (int l = 0; l < k; l++) x += S[i * k + l] * D[l * k + j];
            SD[i * k + j] = x;
        }
    memset(V, 0, k2 * W * sizeof(double));
    for (int i = 0, o = 0; i < k; i++)
        for (int j = 0; j <= i; j++, o++) {
            const double scale = i == j ? -1.0 : -1.4142135623730951;
            for (int a = 0, from = 0; a < k; a++)
                for (int b = 0; b <= a; b++, from++) {
                    double x = D[a * k + i] * D[b * k + j];
                    if (a != b) x += D[b * k + i] * D[a * k + j];
                    mg_axpy(W, scale * x, K + from * W, V + o * W);
                }
            for (int a = 0; a < ne; a++) {
                const int ia = q->ei[a], ja = q->ej[a];
                V[o * W + p + a] +=
                    scale * (Ci[ja * k + i] * SD[ia * k + j] + Ci[ja * k + j] * SD[ia * k + i]);
            }
            mg_rank_one(P, W, -0.5, V + o * W, rest);
        }
    for (int l = 0; l < k; l++) mg_rank_one(P, W, 1.0, U + l * W, pen);
    for (int i = 0; i < k; i++) {
        double x = t[i];
        for (int l = 0; l < k; l++) x += S[i * k + l] * v[l];
        Y[i] = 0.5 * x;
    }
    double *bp = acc + MG_B_PENALISED(q), *br = acc + MG_B_REST(q), *ee = acc + MG_ENTRIES(q);
    for (int a = 0; a < ne; a++) {
        const int i = q->ei[a], j = q->ej[a];
        mg_axpy(W, -s[i], U + j * W, bp + a * W);
        for (int l = 0; l < k; l++) {
            const int o = i >= l ? i * (i + 1) / 2 + l : l * (l + 1) / 2 + i;
            mg_axpy(W, -LH[l * k + j], K + o * W, br + a * W);
        }
        mg_axpy(W, 0.5 * adj[j], R + i * W, br + a * W);
        mg_axpy(W, Y[i], U + j * W, br + a * W);
        for (int b = 0; b < ne; b++) ee[a * ne + b] -= S[i * k + q->ei[b]] * Hi[j * k + q->ej[b]];
    }
    return 1;
#undef F1
#undef F2
#undef F3
#undef F4
#undef PR
}

/* ---------------------------------------------------------------- chunks of groups */
/* The whole evaluation of groups first .. last - 1 with a compiled density. Returns the worst status. */
MM_INLINE int mg_chunk_shape(const mg_problem* q, int C, int A, int k, int order, ptrdiff_t first, ptrdiff_t last,
                             double* acc) {
    const ptrdiff_t row = q->start[first], rows = q->start[last] - row;
    const int count = mm_density_count(q->code, 2 + order), lines = count > q->m_count ? count : q->m_count;
    ptrdiff_t longest = 0;
    for (ptrdiff_t g = first; g < last; g++)
        if (q->start[g + 1] - q->start[g] > longest) longest = q->start[g + 1] - q->start[g];
    const ptrdiff_t work_size = mg_work(C, k, q->P, q->W, q->ne, longest);
    double* memory = malloc((2 * C * rows + lines * rows + work_size + 8) * sizeof(double));
    if (!memory) return MG_NO_MODE;
    double *fixed = memory, *eta = fixed + C * rows, *T = eta + C * rows, *work = T + lines * rows;
    int worst = MG_DONE, searching = 1;
    mg_fixed(q, C, row, rows, fixed, rows);
    for (ptrdiff_t g = first; g < last; g++) {
        mg_begin(q, k, g);
        if (q->start[g + 1] == q->start[g]) {
            memset(q->trial + g * k, 0, k * sizeof(double));
            q->status[g] = MG_DONE;
        }
    }
    for (int sweep = 0; searching; sweep++) {
        searching = 0;
        for (ptrdiff_t g = first; g < last;) {              /* runs of groups that still search */
            if (q->status[g] >= MG_DONE) {
                g++;
                continue;
            }
            const ptrdiff_t from = g, r0 = q->start[g] - row;
            for (; g < last && q->status[g] < MG_DONE; g++) {
                const ptrdiff_t r = q->start[g] - row;
                mg_eta(q, C, k, g, q->trial + g * k, work, fixed + r, eta + r, rows, q->start[g + 1] - q->start[g]);
            }
            const ptrdiff_t r1 = q->start[g] - row, i = row + r0;
            mm_density_rows(q->code, r1 - r0, q->y + i, q->trials ? q->trials + i : NULL,
                            q->constant ? q->constant + i : NULL, q->weights ? q->weights + i : NULL, eta + r0, 2,
                            q->mean, T + r0, rows);
            for (ptrdiff_t o = from; o < g; o++) {
                searching |= mg_advance(q, A, k, o, T + (q->start[o] - row), rows, work);
                if (q->status[o] > worst) worst = q->status[o];
            }
        }
        if (sweep == 400) worst = MG_NO_MODE;
        if (worst > MG_DONE) searching = 0;
    }
    if (worst == MG_DONE) {
        for (ptrdiff_t g = first; g < last; g++) {
            const ptrdiff_t r = q->start[g] - row;
            mg_eta(q, C, k, g, q->trial + g * k, work, fixed + r, eta + r, rows, q->start[g + 1] - q->start[g]);
        }
        mm_density_rows(q->code, rows, q->y + row, q->trials ? q->trials + row : NULL,
                        q->constant ? q->constant + row : NULL, q->weights ? q->weights + row : NULL, eta,
                        2 + order, 0, T, rows);
        for (ptrdiff_t g = first; g < last && worst == MG_DONE; g++) {
            if (q->start[g + 1] == q->start[g]) {
                if (q->G) {
                    double* G = q->G + g * k * k;
                    for (int i = 0; i < k; i++)
                        for (int j = 0; j < k; j++) {
                            double x = 0.0;
                            for (int l = 0; l < k; l++) x += q->lam[i * k + l] * q->lam[j * k + l];
                            G[i * k + j] = x;
                        }
                }
                continue;
            }
            if (!mg_group(q, C, k, order, g, T + (q->start[g] - row), rows, work, acc)) worst = MG_NOT_PROPER;
        }
        if (!isfinite(acc[0]) && worst == MG_DONE) worst = MG_RANGE;
    }
    free(memory);
    return worst;
}

MM_CLONES int mg_chunk(const mg_problem* q, int order, ptrdiff_t first, ptrdiff_t last, double* acc) {
    if (q->C == 1 && q->k == 1) return mg_chunk_shape(q, 1, 1, 1, order, first, last, acc);
    if (q->C == 1 && q->k == 2) return mg_chunk_shape(q, 1, 1, 2, order, first, last, acc);
    if (q->C == 1) return mg_chunk_shape(q, 1, 1, q->k, order, first, last, acc);
    return mg_chunk_shape(q, q->C, q->A, q->k, order, first, last, acc);
}

/* The same in pieces, for tables that come from outside. */
MM_CLONES void mg_begin_all(const mg_problem* q) {
    for (ptrdiff_t g = 0; g < q->m; g++) mg_begin(q, q->k, g);
}

MM_CLONES void mg_predict(const mg_problem* q, const double* fixed, double* eta, double* work) {
    for (ptrdiff_t g = 0; g < q->m; g++)
        mg_eta(q, q->C, q->k, g, q->trial + g * q->k, work, fixed + q->start[g], eta + q->start[g], q->n,
               q->start[g + 1] - q->start[g]);
}

MM_CLONES int mg_advance_all(const mg_problem* q, const double* T, double* work) {
    int searching = 0;
    for (ptrdiff_t g = 0; g < q->m; g++) {
        if (q->status[g] >= MG_DONE) continue;
        searching += mg_advance(q, q->A, q->k, g, T + q->start[g], q->n, work);
    }
    return searching;
}

MM_CLONES int mg_accumulate_all(const mg_problem* q, int order, ptrdiff_t first, ptrdiff_t last, const double* T,
                                double* acc) {
    ptrdiff_t longest = 0;
    for (ptrdiff_t g = first; g < last; g++)
        if (q->start[g + 1] - q->start[g] > longest) longest = q->start[g + 1] - q->start[g];
    double* work = malloc((mg_work(q->C, q->k, q->P, q->W, q->ne, longest) + 8) * sizeof(double));
    int ok = work != NULL;
    for (ptrdiff_t g = first; g < last && ok; g++)
        ok = mg_group(q, q->C, q->k, order, g, T + q->start[g], q->n, work, acc);
    free(work);
    return ok;
}

/* A table of rows, for tests of the densities. */
MM_CLONES void mg_table(int code, ptrdiff_t n, const double* y, const double* trials, const double* constant,
                        const double* weights, const double* eta, int order, int mean, double* out) {
    mm_density_rows(code, n, y, trials, constant, weights, eta, order, mean, out, n);
}

#endif
