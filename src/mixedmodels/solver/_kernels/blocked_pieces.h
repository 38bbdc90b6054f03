/* Steps of an evaluation: small dense products, leaf levels, assembling the rest, products with the coupling. */
#ifndef MM_BLOCKED_PIECES_H
#define MM_BLOCKED_PIECES_H

#include "blocked_setup.h"

/* row-major C (m x n) = alpha op(A) B + beta C;  A is (m x k), or (k x m) when ta */
static void mm_rm(const mm_blas *bl, int ta, int m, int n, int k, double alpha, const double *A, const double *B,
                  double beta, double *C)
{
    if (m == 0 || n == 0) return;
    if (k > 0 && (double)m * n * k > 2500.0 && (ta ? m * n > 36 : n * k > 24)) {
        int lda = ta ? m : k;
        bl->dgemm("N", ta ? "T" : "N", &n, &m, &k, &alpha, (double *)B, &n, (double *)A, &lda, &beta, C, &n);
        return;
    }
    if (beta == 0.0) memset(C, 0, (size_t)m * n * sizeof(double));
    else if (beta != 1.0) for (int64_t i = 0; i < (int64_t)m * n; i++) C[i] *= beta;
    if (ta)
        for (int r = 0; r < k; r++)
            for (int i = 0; i < m; i++) {
                double v = alpha * A[(int64_t)r * m + i];
                const double *b = B + (int64_t)r * n;
                double *c = C + (int64_t)i * n;
                for (int j = 0; j < n; j++) c[j] += v * b[j];
            }
    else if (n == 1)
        for (int i = 0; i < m; i++) {
            const double *a = A + (int64_t)i * k;
            double s = 0.0;
            for (int r = 0; r < k; r++) s += a[r] * B[r];
            C[i] += alpha * s;
        }
    else
        for (int i = 0; i < m; i++)
            for (int r = 0; r < k; r++) {
                double v = alpha * A[(int64_t)i * k + r];
                const double *b = B + (int64_t)r * n;
                double *c = C + (int64_t)i * n;
                for (int j = 0; j < n; j++) c[j] += v * b[j];
            }
}

/* general k x k inverse with partial pivoting; 1 when singular */
static int mm_inverse(int k, const double *a, double *inv) {
    double t[k * k];
    memcpy(t, a, k * k * sizeof(double));
    for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) inv[i * k + j] = i == j;
    for (int c = 0; c < k; c++) {
        int p = c;
        for (int r = c + 1; r < k; r++) if (fabs(t[r * k + c]) > fabs(t[p * k + c])) p = r;
        if (t[p * k + c] == 0.0) return 1;
        if (p != c) for (int j = 0; j < k; j++) {
            double v = t[p * k + j]; t[p * k + j] = t[c * k + j]; t[c * k + j] = v;
            v = inv[p * k + j]; inv[p * k + j] = inv[c * k + j]; inv[c * k + j] = v;
        }
        double d = 1.0 / t[c * k + c];
        for (int j = 0; j < k; j++) { t[c * k + j] *= d; inv[c * k + j] *= d; }
        for (int r = 0; r < k; r++) if (r != c && t[r * k + c] != 0.0) {
            double v = t[r * k + c];
            for (int j = 0; j < k; j++) { t[r * k + j] -= v * t[c * k + j]; inv[r * k + j] -= v * inv[c * k + j]; }
        }
    }
    return 0;
}

/* dst = li' src lj (trans) or li src lj'; src and dst (ki x kj) column-major, may be the same */
static inline void mm_scale_block(int trans, int ki, const double *li, int kj, const double *lj, const double *src,
                                  int64_t lds, double *dst, int64_t ldd)
{
    double t[ki * kj];
    for (int c = 0; c < kj; c++)
        for (int a = 0; a < ki; a++) {
            double s = 0.0;
            for (int b = 0; b < kj; b++) s += src[a + b * lds] * (trans ? lj[b * kj + c] : lj[c * kj + b]);
            t[a + c * ki] = s;
        }
    for (int c = 0; c < kj; c++)
        for (int a = 0; a < ki; a++) {
            double s = 0.0;
            for (int b = 0; b < ki; b++) s += (trans ? li[b * ki + a] : li[a * ki + b]) * t[b + c * ki];
            dst[a + c * ldd] = s;
        }
}

typedef void (*mm_range)(mm_model *, const double *, int, int, int, const void *);

/* run fn over [0, n) in pieces; every piece writes its own memory, so the result is the same for any threads */
static void mm_par(mm_model *M, const double *lam, mm_range fn, int n, int piece, double work,
                   const void *arg) {
    if (M->nthreads < 2 || work < MM_WORTH || n <= piece) { fn(M, lam, 0, n, 0, arg); return; }
    int np = (n + piece - 1) / piece;
#pragma omp parallel for schedule(dynamic, 1) num_threads(M->nthreads)
    for (int i = 0; i < np; i++)
        fn(M, lam, i * piece, (i + 1) * piece < n ? (i + 1) * piece : n, MM_THREAD, arg);
}

/* ------------------------------------------------------------------ leaf levels */
/* R'R = I + V'V for k x k V, by rotating its rows into R = I; Y = R^-T V' if given.  Row-major. */
static void mm_stack(int k, const double *V, double *R, double *Y)
{
    double v[k], e[k];
    memset(R, 0, k * k * sizeof(double));
    if (Y) memset(Y, 0, k * k * sizeof(double));
    for (int i = 0; i < k; i++) R[i * (k + 1)] = 1.0;
    for (int i = 0; i < k; i++) {
        for (int j = 0; j < k; j++) { v[j] = V[i * k + j]; e[j] = j == i; }
        for (int c = 0; c < k; c++) {
            if (v[c] == 0.0) continue;
            double a = R[c * (k + 1)], r = sqrt(a * a + v[c] * v[c]), co = a / r, si = v[c] / r;
            for (int j = c; j < k; j++) {
                double t = R[c * k + j];
                R[c * k + j] = co * t + si * v[j];
                v[j] = co * v[j] - si * t;
            }
            for (int j = 0; Y && j < k; j++) {
                double t = Y[c * k + j];
                Y[c * k + j] = co * t + si * e[j];
                e[j] = co * e[j] - si * t;
            }
        }
    }
}

/* Q (lower) with Q Q' = A, and a left inverse of it; columns and rows of dependent pivots are zero.  Row-major. */
static void mm_semi_root(int k, const double *A, double *Q, double *Qi)
{
    memset(Q, 0, k * k * sizeof(double));
    memset(Qi, 0, k * k * sizeof(double));
    for (int j = 0; j < k; j++) {
        double s = A[j * (k + 1)];
        for (int l = 0; l < j; l++) s -= Q[j * k + l] * Q[j * k + l];
        if (!(s > 4e-16 * A[j * (k + 1)])) continue;
        Q[j * (k + 1)] = s = sqrt(s);
        for (int i = j + 1; i < k; i++) {
            double t = A[i * k + j];
            for (int l = 0; l < j; l++) t -= Q[i * k + l] * Q[j * k + l];
            Q[i * k + j] = t / s;
        }
        for (int i = 0; i <= j; i++) {
            double t = i == j;
            for (int l = i; l < j; l++) t -= Q[j * k + l] * Qi[l * k + i];
            Qi[j * k + i] = t / s;
        }
    }
}

/* A level whose lam'A lam is large, where I - A H and what is left of G after B'HB cancel.  With A = Q Q',
 * U = lam'Q, D = I + UU' = L L' and E = I + U'U, both by rotations instead of products:
 *     N = Q E^-1 Q^-,   H = |L^-1 lam'|^2,   Hs = |L^-1 U Q^-|^2, equal to H between columns of A.
 * Returns log|D|; Li = L^-1 U Q^-. */
static double mm_steep_level(int k, const double *A, const double *l0, double *H, double *Hs, double *N, double *Li)
{
    double Q[k * k], Qi[k * k], U[k * k], V[k * k], R[k * k], Y[k * k], J[k * k], logdet = 0.0;
    mm_semi_root(k, A, Q, Qi);
    for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) {
        double s = 0.0;
        for (int r = 0; r < k; r++) s += l0[r * k + i] * Q[r * k + j];
        U[i * k + j] = V[j * k + i] = s;
    }
    mm_stack(k, V, R, Y);                                  /* R' = L, Y = L^-1 U */
    for (int i = 0; i < k; i++) logdet += 2.0 * log(R[i * (k + 1)]);
    for (int j = 0; j < k; j++) for (int i = 0; i < k; i++) {   /* V = L^-1 lam' */
        double s = l0[j * k + i];
        for (int r = 0; r < i; r++) s -= R[r * k + i] * V[r * k + j];
        V[i * k + j] = s / R[i * (k + 1)];
    }
    for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) {
        double s = 0.0;
        for (int r = j; r < k; r++) s += Y[i * k + r] * Qi[r * k + j];
        Li[i * k + j] = s;
    }
    for (int i = 0; i < k; i++) for (int j = 0; j <= i; j++) {
        double s = 0.0, t = 0.0;
        for (int r = 0; r < k; r++) { s += V[r * k + i] * V[r * k + j]; t += Li[r * k + i] * Li[r * k + j]; }
        H[i * k + j] = H[j * k + i] = s;
        Hs[i * k + j] = Hs[j * k + i] = t;
    }
    mm_stack(k, U, R, NULL);                               /* R'R = E */
    for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) {   /* J = Q R^-1 */
        double s = Q[i * k + j];
        for (int r = 0; r < j; r++) s -= J[i * k + r] * R[r * k + j];
        J[i * k + j] = s / R[j * (k + 1)];
    }
    for (int i = 0; i < k; i++) for (int j = k - 1; j >= 0; j--) {   /* Y = J R^-T */
        double s = J[i * k + j];
        for (int r = j + 1; r < k; r++) s -= Y[i * k + r] * R[j * k + r];
        Y[i * k + j] = s / R[j * (k + 1)];
    }
    for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) {
        double s = 0.0;
        for (int r = j; r < k; r++) s += Y[i * k + r] * Qi[r * k + j];
        N[i * k + j] = s;
    }
    return logdet;
}

#define MM_STEEP 1e3                 /* diagonal of D from which a level of several columns is worked out by rotations */

static void mm_leaf_range(mm_model *M, const double *lam, int c0, int c1, int thread, const void *arg)
{
    int k0 = M->k0, p1 = M->p1, nch = *(const int *)arg, m0 = M->m0;
    const double *l0 = lam + M->koff[M->leaf];
    for (int ch = c0; ch < c1; ch++) {
        int a = (int)((int64_t)m0 * ch / nch), b = (int)((int64_t)m0 * (ch + 1) / nch);
        double logdet = 0.0, prod = 1.0, *out = M->chunk + ch * 65;
        for (int i = 0; i < 65; i++) out[i] = 0.0;
        if (k0 == 1) {
            double v2 = l0[0] * l0[0];
            for (int l = a; l < b; l++) {
                double d = 1.0 + v2 * M->A0[l], r = 1.0 / d, h = v2 * r;
                if (!(d > 0.0)) { out[0] = NAN; return; }
                M->H[l] = h;
                M->N[l] = r;
                if (M->dense) M->lraw[l] = sqrt(h);
                prod *= d;
                if (prod > 1e150) { logdet += log(prod); prod = 1.0; }
                const double *r0 = M->R0 + (int64_t)l * p1;
                double *hr = M->HR + (int64_t)l * p1;
                for (int j = 0; j < p1; j++) hr[j] = h * r0[j];
                if (p1 <= 8)
                    for (int i = 0; i < p1; i++) for (int j = 0; j <= i; j++) out[1 + i * 8 + j] += r0[i] * hr[j];
            }
        } else {
            double T[k0 * k0], D[k0 * k0], Li[k0 * k0];
            for (int l = a; l < b; l++) {
                const double *A = M->A0 + (int64_t)l * k0 * k0;
                double *H = M->H + (int64_t)l * k0 * k0, *N = M->N + (int64_t)l * k0 * k0;
                for (int i = 0; i < k0; i++) for (int j = 0; j < k0; j++) {
                    double s = 0.0;
                    for (int r = 0; r < k0; r++) s += A[i * k0 + r] * l0[r * k0 + j];
                    T[i * k0 + j] = s;
                }
                for (int i = 0; i < k0; i++) for (int j = 0; j <= i; j++) {
                    double s = i == j;
                    for (int r = 0; r < k0; r++) s += l0[r * k0 + i] * T[r * k0 + j];
                    D[i + j * k0] = s;
                }
                double steep = 0.0;
                for (int i = 0; i < k0; i++) if (!(D[i * (k0 + 1)] <= steep)) steep = D[i * (k0 + 1)];
                double *Hs = M->Hs + (int64_t)l * k0 * k0;
                if (steep > MM_STEEP && !M->plain && isfinite(steep)) logdet += mm_steep_level(k0, A, l0, H, Hs, N, Li);
                else {
                if (mm_potrf_small(k0, D, k0)) { out[0] = NAN; return; }
                for (int i = 0; i < k0; i++) {
                    prod *= D[i * (k0 + 1)];
                    if (prod > 1e150) { logdet += 2.0 * log(prod); prod = 1.0; }
                }
                for (int j = 0; j < k0; j++)                   /* Li = L_D^-1 lam' */
                    for (int i = 0; i < k0; i++) {
                        double s = l0[j * k0 + i];
                        for (int r = 0; r < i; r++) s -= D[i + r * k0] * Li[r * k0 + j];
                        Li[i * k0 + j] = s / D[i * (k0 + 1)];
                    }
                for (int i = 0; i < k0; i++) for (int j = 0; j <= i; j++) {
                    double s = 0.0;
                    for (int r = 0; r < k0; r++) s += Li[r * k0 + i] * Li[r * k0 + j];
                    H[i * k0 + j] = H[j * k0 + i] = s;
                }
                for (int i = 0; i < k0; i++) for (int j = 0; j < k0; j++) {
                    double s = i == j;
                    for (int r = 0; r < k0; r++) s -= A[i * k0 + r] * H[r * k0 + j];
                    N[i * k0 + j] = s;
                }
                memcpy(Hs, H, k0 * k0 * sizeof(double));
                }
                if (M->dense) memcpy(M->lraw + (int64_t)l * k0 * k0, Li, k0 * k0 * sizeof(double));
                const double *r0 = M->R0 + (int64_t)l * k0 * p1;
                double *hr = M->HR + (int64_t)l * k0 * p1;
                for (int i = 0; i < k0; i++) {
                    for (int j = 0; j < p1; j++) hr[i * p1 + j] = 0.0;
                    for (int r = 0; r < k0; r++) {
                        double h = Hs[i * k0 + r];
                        for (int j = 0; j < p1; j++) hr[i * p1 + j] += h * r0[r * p1 + j];
                    }
                    if (p1 <= 8)
                        for (int u = 0; u < p1; u++) for (int v = 0; v <= u; v++)
                            out[1 + u * 8 + v] += r0[i * p1 + u] * hr[i * p1 + v];
                }
            }
        }
        out[0] = logdet + (k0 == 1 ? log(prod) : 2.0 * log(prod));
    }
}

/* ------------------------------------------------------------------ assembling the rest */
/* w (n x kj, column-major) += columns of G of block j; `full`: all rows, otherwise rows from j on */
static void mm_column_G(const mm_model *M, int j, double *w, int full)
{
    int n = M->n, k0 = M->k0, kj = M->k[M->bfac[j]], cj = M->P.bcol[j];
    if (M->scalar) {
        for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
            int l = M->cleaf[s];
            int64_t e = M->cent[s], end = M->lptr[l + 1], q = full ? M->lptr[l] : e;
            double t = M->H[l] * M->B[e];
            const int *restrict col = M->lcol;
            const double *restrict B = M->B;
            for (; q + 3 < end; q += 4) {
                w[col[q]] -= t * B[q];
                w[col[q + 1]] -= t * B[q + 1];
                w[col[q + 2]] -= t * B[q + 2];
                w[col[q + 3]] -= t * B[q + 3];
            }
            for (; q < end; q++) w[col[q]] -= t * B[q];
        }
        w[cj] += M->AR[M->aoff[j]];
        for (int64_t q = M->pptr[j]; q < M->pptr[j + 1]; q++)
            if (full || M->pblk[q] > j) w[M->P.bcol[M->pblk[q]]] += M->PV[M->pval[q]];
        return;
    }
    double t[(k0 ? k0 : 1) * kj];
    for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
        int l = M->cleaf[s];
        int64_t e = M->cent[s], end = M->lptr[l + 1];
        const double *H = M->Hs + (int64_t)l * k0 * k0, *Bj = M->B + M->lval[e];
        for (int a = 0; a < k0; a++) for (int c = 0; c < kj; c++) {
            double v = 0.0;
            for (int b = 0; b < k0; b++) v += H[a * k0 + b] * Bj[b * kj + c];
            t[a * kj + c] = v;
        }
        for (int64_t q = full ? M->lptr[l] : e; q < end; q++) {
            int ki = M->k[M->bfac[M->lblk[q]]];
            const double *Bq = M->B + M->lval[q];
            double *wq = w + M->lcol[q];
            for (int c = 0; c < kj; c++)
                for (int a = 0; a < k0; a++) {
                    double v = t[a * kj + c];
                    const double *b = Bq + a * ki;
                    double *d = wq + (int64_t)c * n;
                    if (ki == 1) d[0] -= b[0] * v;
                    else if (ki == 2) { d[0] -= b[0] * v; d[1] -= b[1] * v; }
                    else for (int i = 0; i < ki; i++) d[i] -= b[i] * v;
                }
        }
    }
    const double *A = M->AR + M->aoff[j];
    for (int c = 0; c < kj; c++) for (int a = 0; a < kj; a++) w[cj + a + (int64_t)c * n] += A[a * kj + c];
    for (int64_t q = M->pptr[j]; q < M->pptr[j + 1]; q++) {
        int i = M->pblk[q], ki = M->k[M->bfac[i]];
        if (!full && i < j) continue;
        const double *V = M->PV + M->pval[q];
        double *d = w + M->P.bcol[i];
        for (int c = 0; c < kj; c++) for (int a = 0; a < ki; a++)
            d[a + (int64_t)c * n] += M->ptr_[q] ? V[c * ki + a] : V[a * kj + c];
    }
}

/* address of L(row, col), row >= col */
static inline double *mm_at(const mm_pattern *P, double *x, int row, int col) {
    int K = P->col2super[col];
    if (K == P->ns) return x + P->xptr[K] + (row - P->t0) + (int64_t)(col - P->t0) * P->nt;
    int f = P->sfirst[K], nc = P->sfirst[K + 1] - f, nr = (int)(P->rptr[K + 1] - P->rptr[K]);
    double *base = x + P->xptr[K] + (int64_t)(col - f) * (nc + nr);
    if (row < f + nc) return base + (row - f);
    const int *r = P->rows + P->rptr[K];
    int lo = 0, hi = nr;
    while (lo < hi) { int mid = (lo + hi) / 2; if (r[mid] < row) lo = mid + 1; else hi = mid; }
    return base + nc + lo;
}

/* one more visit of the blocks of a column: scatter (mode 0: w -> x scaled by Lam', w cleared; mode 1: x -> x
 * scaled by Lam; mode 2: x -> w; mode 3: w cleared) */
static void mm_walk_column(mm_model *M, const double *lam, int j, double *w, int mode)
{
    const mm_pattern *P = &M->P;
    int n = M->n, cj = P->bcol[j], kj = M->k[M->bfac[j]], K = P->col2super[cj];
    int tail = K == P->ns, f = tail ? P->t0 : P->sfirst[K], end = tail ? n : P->sfirst[K + 1];
    int nr = tail ? 0 : (int)(P->rptr[K + 1] - P->rptr[K]), nc = end - f;
    int64_t ld = nc + nr;
    const int *rows = tail ? NULL : P->rows + P->rptr[K];
    double *X = M->x + P->xptr[K] + (int64_t)(cj - f) * ld;       /* column cj */
    if (M->scalar) {
        double s = M->ls[cj], *d = X - f;
        const double *ls = M->ls;
        if (mode == 0) {
            for (int r = cj; r < end; r++) { d[r] = w[r] * ls[r] * s; w[r] = 0.0; }
            d = X + nc;
            for (int i = 0; i < nr; i++) { d[i] = w[rows[i]] * ls[rows[i]] * s; w[rows[i]] = 0.0; }
        } else if (mode == 1) {
            for (int r = cj; r < end; r++) d[r] *= ls[r] * s;
            d = X + nc;
            for (int i = 0; i < nr; i++) d[i] *= ls[rows[i]] * s;
        } else if (mode == 2) {
            for (int r = cj; r < end; r++) w[r] = d[r];
            d = X + nc;
            for (int i = 0; i < nr; i++) w[rows[i]] = d[i];
        } else {
            for (int r = cj; r < end; r++) w[r] = 0.0;
            for (int i = 0; i < nr; i++) w[rows[i]] = 0.0;
        }
        return;
    }
    const double *lj = lam + M->koff[M->bfac[j]];
    if (mode == 1)                                               /* only the lower triangle is there */
        for (int a = 0; a < kj; a++) for (int b = a + 1; b < kj; b++)
            X[cj - f + a + (int64_t)b * ld] = X[cj - f + b + (int64_t)a * ld];
    for (int part = 0; part < 2; part++) {
        int i = part ? 0 : cj, stop = part ? nr : end;
        while (i < stop) {
            int row = part ? rows[i] : i, bi = P->colblk[row], ki = M->k[M->bfac[bi]];
            double *d = X + (part ? nc + i : i - f);
            const double *li = lam + M->koff[M->bfac[bi]];
            if (mode == 0) {
                mm_scale_block(1, ki, li, kj, lj, w + row, n, d, ld);
                for (int c = 0; c < kj; c++) for (int a = 0; a < ki; a++) w[row + a + (int64_t)c * n] = 0.0;
            } else if (mode == 1) mm_scale_block(0, ki, li, kj, lj, d, ld, d, ld);
            else for (int c = 0; c < kj; c++) for (int a = 0; a < ki; a++)
                w[row + a + (int64_t)c * n] = mode == 2 ? d[a + c * ld] : 0.0;
            i += ki;
        }
    }
}

/* + P (identity or known precision) on block column j */
static void mm_add_penalty(mm_model *M, int j) {
    int cj = M->P.bcol[j], kj = M->k[M->bfac[j]];
    if (!M->hasprec[M->bfac[j]]) {
        for (int a = 0; a < kj; a++) *mm_at(&M->P, M->x, cj + a, cj + a) += 1.0;
        return;
    }
    for (int64_t q = M->qptr[j]; q < M->qptr[j + 1]; q++) {
        int ci = M->P.bcol[M->qblk[q]];
        for (int a = 0; a < kj; a++) *mm_at(&M->P, M->x, ci + a, cj + a) += M->qval[q];
    }
}

static void mm_assemble_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg) {
    for (int j = a; j < b; j++) {
        mm_column_G(M, j, M->w[thread], 0);
        mm_walk_column(M, lam, j, M->w[thread], 0);
        mm_add_penalty(M, j);
    }
}

static void mm_dense_scale_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg) {
    int n = M->n;
    for (int j = a; j < b; j++) {
        int cj = M->P.bcol[j], kj = M->k[M->bfac[j]];
        double *X = M->x + (int64_t)cj * n;
        const double *A = M->AR + M->aoff[j];
        for (int c = 0; c < kj; c++) for (int r = c; r < kj; r++) {
            X[cj + r + (int64_t)c * n] += A[r * kj + c];
            if (r > c) X[cj + c + (int64_t)r * n] = X[cj + r + (int64_t)c * n];
        }
        for (int64_t q = M->pptr[j]; q < M->pptr[j + 1]; q++) {
            int i = M->pblk[q], ki = M->k[M->bfac[i]];
            if (i < j) continue;
            const double *V = M->PV + M->pval[q];
            for (int c = 0; c < kj; c++) for (int r = 0; r < ki; r++)
                X[M->P.bcol[i] + r + (int64_t)c * n] += M->ptr_[q] ? V[c * ki + r] : V[r * kj + c];
        }
        if (M->scalar) {
            double s = M->ls[cj];
            for (int r = cj; r < n; r++) X[r] *= s * M->ls[r];
        } else
            for (int i = j; i < M->nb; i++) {
                int ci = M->P.bcol[i], ki = M->k[M->bfac[i]];
                mm_scale_block(1, ki, lam + M->koff[M->bfac[i]], kj, lam + M->koff[M->bfac[j]], X + ci, n, X + ci, n);
            }
        mm_add_penalty(M, j);
    }
}

static void mm_dense_G(mm_model *M, const double *lam) {
    int n = M->n, k0 = M->k0, mk = M->m0 * k0;
    double *W = M->Wd, *X = M->x;
    for (int l = 0; l < M->m0; l++) {
        const double *Li = M->lraw + (int64_t)l * k0 * k0;
        for (int a = 0; a < k0; a++) {
            double *d = W + ((int64_t)l * k0 + a) * n;
            const double *s = M->Bd + (int64_t)l * k0 * n;
            double v = Li[a * k0];
            for (int j = 0; j < n; j++) d[j] = v * s[j];
            for (int b = 1; b < k0; b++) {
                v = Li[a * k0 + b];
                s += n;
                for (int j = 0; j < n; j++) d[j] += v * s[j];
            }
        }
    }
    if ((double)n * n * mk < 8000.0) {
        memset(X, 0, (size_t)n * n * sizeof(double));
        for (int r = 0; r < mk; r++) {
            const double *d = W + (int64_t)r * n;
            for (int j = 0; j < n; j++) {
                double v = d[j], *c = X + (int64_t)j * n;
                for (int i = j; i < n; i++) c[i] -= v * d[i];
            }
        }
    } else {
        double mone = -1.0, zero = 0.0;
        M->bl.dsyrk("L", "N", &n, &mk, &mone, W, &n, &zero, X, &n);
    }
    mm_par(M, lam, mm_dense_scale_range, M->nb, 8, (double)n * n * 2, NULL);
}


/* ------------------------------------------------------------------ products with the coupling */
typedef struct { const double *v; double *out; int nc; double sign; } mm_prod;

/* out_j += sign sum_l B_lj' v_l */
static void mm_Bt_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg)
{
    const mm_prod *p = (const mm_prod *)arg;
    int nc = p->nc, k0 = M->k0;
    for (int j = a; j < b; j++) {
        int kj = M->k[M->bfac[j]];
        double *o = p->out + (int64_t)M->P.bcol[j] * nc;
        for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
            const double *v = p->v + (int64_t)M->cleaf[s] * k0 * nc, *B = M->B + M->lval[M->cent[s]];
            if (nc == 1 && kj == 1 && k0 == 1) { o[0] += p->sign * B[0] * v[0]; continue; }
            for (int r = 0; r < k0; r++)
                for (int c = 0; c < kj; c++) {
                    double x = p->sign * B[r * kj + c];
                    const double *vr = v + r * nc;
                    double *oc = o + c * nc;
                    for (int i = 0; i < nc; i++) oc[i] += x * vr[i];
                }
        }
    }
}

/* out_l += sign sum_j B_lj v_j */
static void mm_B_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg)
{
    const mm_prod *p = (const mm_prod *)arg;
    int nc = p->nc, k0 = M->k0;
    for (int l = a; l < b; l++) {
        double *o = p->out + (int64_t)l * k0 * nc;
        if (M->scalar && nc == 1) {
            double s = 0.0;
            for (int64_t q = M->lptr[l]; q < M->lptr[l + 1]; q++) s += M->B[q] * p->v[M->lcol[q]];
            o[0] += p->sign * s;
            continue;
        }
        for (int64_t q = M->lptr[l]; q < M->lptr[l + 1]; q++) {
            int kj = M->k[M->bfac[M->lblk[q]]];
            const double *v = p->v + (int64_t)M->lcol[q] * nc, *B = M->B + M->lval[q];
            for (int r = 0; r < k0; r++)
                for (int c = 0; c < kj; c++) {
                    double x = p->sign * B[r * kj + c];
                    const double *vc = v + c * nc;
                    double *orow = o + r * nc;
                    for (int i = 0; i < nc; i++) orow[i] += x * vc[i];
                }
        }
    }
}

static void mm_times_Bt(mm_model *M, double sign, const double *v, int nc, double *out) {
    if (M->leaf < 0 || M->nb == 0) return;
    if (M->dense) { mm_rm(&M->bl, 1, M->n, nc, M->m0 * M->k0, sign, M->Bd, v, 1.0, out); return; }
    mm_prod p = {v, out, nc, sign};
    mm_par(M, NULL, mm_Bt_range, M->nb, 32, (double)M->lval[M->lptr[M->m0]] * nc, &p);
}

static void mm_times_B(mm_model *M, double sign, const double *v, int nc, double *out) {
    if (M->leaf < 0 || M->nb == 0) return;
    if (M->dense) { mm_rm(&M->bl, 0, M->m0 * M->k0, nc, M->n, sign, M->Bd, v, 1.0, out); return; }
    mm_prod p = {v, out, nc, sign};
    mm_par(M, NULL, mm_B_range, M->m0, 256, (double)M->lval[M->lptr[M->m0]] * nc, &p);
}

/* out += sign A_RR v */
static void mm_times_AR(mm_model *M, double sign, const double *v, int nc, double *out)
{
    for (int j = 0; j < M->nb; j++) {
        int kj = M->k[M->bfac[j]], cj = M->P.bcol[j];
        const double *A = M->AR + M->aoff[j];
        double *o = out + (int64_t)cj * nc;
        for (int a = 0; a < kj; a++) for (int b = 0; b < kj; b++) {
            double x = sign * A[a * kj + b];
            const double *vb = v + (int64_t)(cj + b) * nc;
            for (int i = 0; i < nc; i++) o[a * nc + i] += x * vb[i];
        }
        for (int64_t q = M->pptr[j]; q < M->pptr[j + 1]; q++) {
            int bi = M->pblk[q], ki = M->k[M->bfac[bi]];
            const double *V = M->PV + M->pval[q], *vi = v + (int64_t)M->P.bcol[bi] * nc;
            for (int a = 0; a < kj; a++) for (int b = 0; b < ki; b++) {
                double x = sign * (M->ptr_[q] ? V[a * ki + b] : V[b * kj + a]);
                for (int i = 0; i < nc; i++) o[a * nc + i] += x * vi[b * nc + i];
            }
        }
    }
}

/* out = Lam v or Lam' v over the rest's columns (out may not be v unless k = 1 everywhere) */
static void mm_times_Lam(mm_model *M, const double *lam, int trans, const double *v, int nc, double *out)
{
    for (int j = 0; j < M->nb; j++) {
        int kj = M->k[M->bfac[j]];
        const double *lj = lam + M->koff[M->bfac[j]], *x = v + (int64_t)M->P.bcol[j] * nc;
        double *o = out + (int64_t)M->P.bcol[j] * nc;
        if (kj == 1) { for (int i = 0; i < nc; i++) o[i] = lj[0] * x[i]; continue; }
        for (int a = 0; a < kj; a++) {
            for (int i = 0; i < nc; i++) o[a * nc + i] = 0.0;
            for (int b = 0; b < kj; b++) {
                double s = trans ? lj[b * kj + a] : lj[a * kj + b];
                if (s != 0.0) for (int i = 0; i < nc; i++) o[a * nc + i] += s * x[b * nc + i];
            }
        }
    }
}
#endif
