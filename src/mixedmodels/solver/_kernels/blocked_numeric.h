/* Components of the criterion and its derivatives for several grouping factors.
 *
 * Leaf levels l:  D_l = lam'A_ll lam + I,  H_l = lam D_l^-1 lam',  N_l = I - A_ll H_l.
 * Rest:           G = A_RR - sum_l B_l'H_l B_l  (free of the rest's factors),  S = Lam'G Lam + P = L L'.
 * With K = Z'V^-1 Z:  K_ll = N_l A_ll - N_l B_l Lam S^-1 Lam' B_l' N_l'  (leaf),  and for the rest
 * lam'(sum K_ll) lam = m I - sum S^ll, or  K_ll = G_ll - |L^-1 Lam'G_.l|^2  where lam is singular.
 */
#ifndef MM_BLOCKED_NUMERIC_H
#define MM_BLOCKED_NUMERIC_H

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
                if (M->dense) memcpy(M->lraw + (int64_t)l * k0 * k0, Li, k0 * k0 * sizeof(double));
                for (int i = 0; i < k0; i++) for (int j = 0; j < k0; j++) {
                    double s = i == j;
                    for (int r = 0; r < k0; r++) s -= A[i * k0 + r] * H[r * k0 + j];
                    N[i * k0 + j] = s;
                }
                const double *r0 = M->R0 + (int64_t)l * k0 * p1;
                double *hr = M->HR + (int64_t)l * k0 * p1;
                for (int i = 0; i < k0; i++) {
                    for (int j = 0; j < p1; j++) hr[i * p1 + j] = 0.0;
                    for (int r = 0; r < k0; r++) {
                        double h = H[i * k0 + r];
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
        const double *H = M->H + (int64_t)l * k0 * k0, *Bj = M->B + M->lval[e];
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

/* ------------------------------------------------------------------ known precision on its own */
static int mm_prec_setup(mm_model *M, int f)
{
    int m = M->m[f], i, rc = 1, *w = mm_int(m), *adj = NULL;
    int64_t *ptr = mm_i64(m + 1), *fill = mm_i64(m + 1), q, zero = 0;
    mm_order o;
    double ld;
    memset(&o, 0, sizeof(o));
    if (!w || !ptr || !fill) goto done;
    for (i = 0; i < m; i++) {
        int j = M->pos[M->bstart[f] + i];
        w[i] = 1;
        for (q = M->qptr[j]; q < M->qptr[j + 1]; q++) if (M->qblk[q] != j) {
            ptr[i + 1]++;
            ptr[M->P.perm[M->qblk[q]] - M->bstart[f] + 1]++;
        }
    }
    for (i = 0; i < m; i++) ptr[i + 1] += ptr[i];
    adj = mm_int(ptr[m]);
    if (!adj) goto done;
    memcpy(fill, ptr, (m + 1) * sizeof(int64_t));
    for (i = 0; i < m; i++) {
        int j = M->pos[M->bstart[f] + i];
        for (q = M->qptr[j]; q < M->qptr[j + 1]; q++) if (M->qblk[q] != j) {
            int t = M->P.perm[M->qblk[q]] - M->bstart[f];
            adj[fill[i]++] = t;
            adj[fill[t]++] = i;
        }
    }
    if (mm_minimum_degree(m, w, ptr, adj, 0, &zero, NULL, 0.8, &o)) goto done;
    if (mm_symbolic(&o, w, -1, &M->PP[f])) goto done;
    M->Px[f] = mm_dbl(M->PP[f].nx);
    if (!M->Px[f] || mm_cholwork_init(&M->PW[f], &M->PP[f], 1,
                                      (M->p1 > MM_BATCH ? M->p1 : MM_BATCH + M->kmax) * M->kmax)) goto done;
    for (i = 0; i < m; i++) w[M->PP[f].perm[i]] = i;
    for (i = 0; i < m; i++) {
        int j = M->pos[M->bstart[f] + i];
        for (q = M->qptr[j]; q < M->qptr[j + 1]; q++) {
            int a = w[M->P.perm[M->qblk[q]] - M->bstart[f]], b = w[i];
            *mm_at(&M->PP[f], M->Px[f], a > b ? a : b, a > b ? b : a) = M->qval[q];
        }
    }
    rc = mm_factor(&M->bl, &M->PP[f], M->Px[f], &M->PW[f], &ld);
done:
    free(w); free(adj); free(ptr); free(fill);
    mm_order_free(&o);
    return rc;
}

/* ------------------------------------------------------------------ order 0 */
typedef struct { double logdet_L2, logdet_RX2, pwrss; } mm_scalars;

static int mm_forward(mm_model *M, const double *lam, mm_scalars *out)
{
    int p1 = M->p1, p = p1 - 1, n = M->n, mk = M->m0 * M->k0, i, j;
    double logdet = 0.0, ld = 0.0, *C = M->C;
    memcpy(C, M->XX, (size_t)p1 * p1 * sizeof(double));
    if (M->leaf >= 0) {
        int nch = M->m0 >= 2048 ? MM_CHUNKS : 1;
        mm_par(M, lam, mm_leaf_range, nch, 4, (double)M->m0 * (20 + M->k0 * (M->k0 * M->k0 * 4 + p1 * M->k0)), &nch);
        for (int ch = 0; ch < nch; ch++) {
            const double *c = M->chunk + ch * 65;
            logdet += c[0];
            if (p1 <= 8)
                for (i = 0; i < p1; i++) for (j = 0; j <= i; j++) {
                    C[i * p1 + j] -= c[1 + i * 8 + j];
                    if (i != j) C[j * p1 + i] -= c[1 + i * 8 + j];
                }
        }
        if (!isfinite(logdet)) return 1;
        if (p1 > 8) mm_rm(&M->bl, 1, p1, p1, mk, -1.0, M->R0, M->HR, 1.0, C);
    }
    if (n) {
        int pr = 0;
        for (j = 0; j < M->nb && M->scalar; j++) M->ls[M->P.bcol[j]] = lam[M->koff[M->bfac[j]]];
        if (M->dense) mm_dense_G(M, lam);
        else mm_par(M, lam, mm_assemble_range, M->nb, M->nb > 256 ? 16 : 4,
                    (double)M->lval[M->lptr[M->m0]] * 8 + M->P.nnz, NULL);
        memcpy(M->LU, M->RR, (size_t)n * p1 * sizeof(double));
        if (M->leaf >= 0) mm_times_Bt(M, -1.0, M->HR, p1, M->LU);
        mm_times_Lam(M, lam, 1, M->LU, p1, M->R);
        if (mm_factor(&M->bl, &M->P, M->x, &M->W, &ld)) return 1;
        logdet += ld;
        for (j = 0; j < M->F; j++) logdet += M->preclog[j];
        (void)pr;
        mm_fsolve(&M->bl, &M->P, M->x, M->R, p1, &M->W);
        mm_rm(&M->bl, 1, p1, p1, n, -1.0, M->R, M->R, 1.0, C);
    }
    ld = 0.0;
    if (p) {
        if (mm_potrf(&M->bl, p, C, p1)) return 1;         /* lower, column-major */
        for (j = 0; j < p; j++) ld += log(C[j * (p1 + 1)]);
    }
    double r2 = C[p * (p1 + 1)];
    for (j = 0; j < p; j++) {                              /* last row: L_yX */
        double s = C[p + j * p1];
        for (i = 0; i < j; i++) s -= C[p + i * p1] * C[j + i * p1];
        C[p + j * p1] = s / C[j * (p1 + 1)];
        r2 -= C[p + j * p1] * C[p + j * p1];
    }
    out->logdet_L2 = logdet;
    out->logdet_RX2 = 2.0 * ld;
    out->pwrss = r2;
    return isfinite(r2) && isfinite(logdet) ? 0 : 1;
}

/* ------------------------------------------------------------------ back substitution and residual products */
static void mm_leaf_c_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg)
{
    int nc = *(const int *)arg, k0 = M->k0;
    for (int l = a; l < b; l++) {
        const double *t = M->tl + (int64_t)l * k0 * nc, *H = M->H + (int64_t)l * k0 * k0, *N = M->N + (int64_t)l * k0 * k0;
        double *g = M->gl + (int64_t)l * k0 * nc, *c = M->cl + (int64_t)l * k0 * nc;
        if (k0 == 1) {
            for (int i = 0; i < nc; i++) { g[i] = H[0] * t[i]; c[i] = N[0] * t[i]; }
            continue;
        }
        for (int r = 0; r < k0; r++)
            for (int i = 0; i < nc; i++) {
                double s = 0.0, z = 0.0;
                for (int q = 0; q < k0; q++) { s += H[r * k0 + q] * t[q * nc + i]; z += N[r * k0 + q] * t[q * nc + i]; }
                g[r * nc + i] = s;
                c[r * nc + i] = z;
            }
    }
}

/* U = u of the rest, LU = Lam u, tl, gl = lam u and cl of the leaf, for the columns of Mx */
static void mm_back(mm_model *M, const double *lam, int nc)
{
    int p1 = M->p1, p = p1 - 1, n = M->n, mk = M->m0 * M->k0, i, j;
    const double *C = M->C;
    double *Mx = M->Mx;                                    /* (p1, nc) row-major */
    memset(Mx, 0, (size_t)p1 * nc * sizeof(double));
    Mx[p * nc] = 1.0;
    for (j = p - 1; j >= 0; j--) {                         /* Lx' beta = L_yX' */
        double s = C[p + j * p1];
        for (i = j + 1; i < p; i++) s += C[i + j * p1] * Mx[i * nc];   /* Mx holds -beta */
        Mx[j * nc] = -s / C[j * (p1 + 1)];
    }
    for (int c = 1; c < nc; c++)                           /* Lx^-T, column c - 1 */
        for (j = c - 1; j >= 0; j--) {
            double s = j == c - 1;
            for (i = j + 1; i <= c - 1; i++) s -= C[i + j * p1] * Mx[i * nc + c];
            Mx[j * nc + c] = s / C[j * (p1 + 1)];
        }
    if (n) {
        mm_rm(&M->bl, 0, n, nc, p1, 1.0, M->R, Mx, 0.0, M->U);
        mm_bsolve(&M->bl, &M->P, M->x, M->U, nc, &M->W);
        mm_times_Lam(M, lam, 0, M->U, nc, M->LU);
    }
    if (M->leaf >= 0) {
        mm_rm(&M->bl, 0, mk, nc, p1, 1.0, M->R0, Mx, 0.0, M->tl);
        if (n) mm_times_B(M, -1.0, M->LU, nc, M->tl);
        mm_par(M, lam, mm_leaf_c_range, M->m0, 512, (double)mk * M->k0 * nc * 2, &nc);
    }
}

/* ------------------------------------------------------------------ T where a factor of the rest is singular */
/* dst (n x ncols row-major) = G X for dense X, by the operator */
static void mm_apply_G(mm_model *M, const double *X, int nc, double *dst, double *leafbuf)
{
    int k0 = M->k0;
    memset(dst, 0, (size_t)M->n * nc * sizeof(double));
    mm_times_AR(M, 1.0, X, nc, dst);
    if (M->leaf < 0) return;
    memset(leafbuf, 0, (size_t)M->m0 * k0 * nc * sizeof(double));
    mm_times_B(M, 1.0, X, nc, leafbuf);
    for (int l = 0; l < M->m0; l++) {
        double t[k0 * nc], *v = leafbuf + (int64_t)l * k0 * nc;
        const double *H = M->H + (int64_t)l * k0 * k0;
        for (int a = 0; a < k0; a++) for (int i = 0; i < nc; i++) {
            double s = 0.0;
            for (int b = 0; b < k0; b++) s += H[a * k0 + b] * v[b * nc + i];
            t[a * nc + i] = s;
        }
        memcpy(v, t, sizeof(t));
    }
    mm_times_Bt(M, -1.0, leafbuf, nc, dst);
}

static int mm_singular_T(mm_model *M, const double *lam, int f, double *T)
{
    int k = M->k[f], n = M->n, per = MM_BATCH / k > 0 ? MM_BATCH / k : 1, m = M->m[f], rc = 0;
    double *batch = mm_dbl((int64_t)n * per * k), *half = mm_dbl((int64_t)n * per * k), *w = M->w[0];
    double *X = NULL, *leafbuf = NULL, *rhs = NULL;
    if (!batch || !half) { rc = 1; goto done; }
    if (M->hasprec[f]) {
        X = mm_dbl((int64_t)n * per * k);
        leafbuf = mm_dbl((int64_t)M->m0 * M->k0 * per * k);
        rhs = mm_dbl((int64_t)m * per);
        if (!X || !leafbuf || !rhs || (!M->PP[f].n && mm_prec_setup(M, f))) { rc = 1; goto done; }
    }
    for (int a = 0; a < m; a += per) {
        int b = a + per < m ? a + per : m, nc = (b - a) * k;
        if (!M->hasprec[f]) {
            for (int l = a; l < b; l++) {
                int j = M->pos[M->bstart[f] + l], cj = M->P.bcol[j];
                mm_column_G(M, j, w, 1);
                for (int r = 0; r < k; r++) for (int c = 0; c < k; c++) T[r * k + c] += w[cj + r + (int64_t)c * n];
                for (int c = 0; c < k; c++)
                    for (int i = 0; i < n; i++) {
                        batch[(int64_t)i * nc + (l - a) * k + c] = w[i + (int64_t)c * n];
                        w[i + (int64_t)c * n] = 0.0;
                    }
            }
        } else {
            /* columns L_P^-T e_j: K enters as sum_j x_j' K x_j */
            int q = b - a;
            memset(rhs, 0, (size_t)m * q * sizeof(double));
            memset(X, 0, (size_t)n * nc * sizeof(double));
            for (int l = a; l < b; l++) rhs[(int64_t)l * q + (l - a)] = 1.0;       /* in the order of PP */
            mm_bsolve(&M->bl, &M->PP[f], M->Px[f], rhs, q, &M->PW[f]);
            for (int i = 0; i < m; i++) {
                int ci = M->P.bcol[M->pos[M->bstart[f] + M->PP[f].perm[i]]];
                for (int s = 0; s < q; s++) for (int c = 0; c < k; c++)
                    X[(int64_t)(ci + c) * nc + s * k + c] = rhs[(int64_t)i * q + s];
            }
            mm_apply_G(M, X, nc, batch, leafbuf);
            for (int i = 0; i < n; i++) for (int s = 0; s < q; s++) for (int r = 0; r < k; r++) {
                double v = X[(int64_t)i * nc + s * k + r];
                if (v != 0.0) for (int c = 0; c < k; c++) T[r * k + c] += v * batch[(int64_t)i * nc + s * k + c];
            }
        }
        mm_times_Lam(M, lam, 1, batch, nc, half);
        mm_fsolve(&M->bl, &M->P, M->x, half, nc, &M->W);
        for (int i = 0; i < n; i++) for (int s = 0; s < b - a; s++) for (int r = 0; r < k; r++) {
            double v = half[(int64_t)i * nc + s * k + r];
            if (v != 0.0) for (int c = 0; c < k; c++) T[r * k + c] -= v * half[(int64_t)i * nc + s * k + c];
        }
    }
done:
    free(batch); free(half); free(X); free(leafbuf); free(rhs);
    return rc;
}

/* chat = P^-1 c for a factor with known precision, from the precision's own factor */
static int mm_solve_precision(mm_model *M, int f, int nc)
{
    int m = M->m[f], k = M->k[f], nr = nc * k;
    double *rhs;
    if (!M->PP[f].n && mm_prec_setup(M, f)) return 1;
    rhs = mm_dbl((int64_t)m * nr);
    if (!rhs) return 1;
    for (int i = 0; i < m; i++)
        memcpy(rhs + (int64_t)i * nr, M->cr + (int64_t)M->P.bcol[M->pos[M->bstart[f] + M->PP[f].perm[i]]] * nc,
               nr * sizeof(double));
    mm_fsolve(&M->bl, &M->PP[f], M->Px[f], rhs, nr, &M->PW[f]);
    mm_bsolve(&M->bl, &M->PP[f], M->Px[f], rhs, nr, &M->PW[f]);
    for (int i = 0; i < m; i++)
        memcpy(M->chat + (int64_t)M->P.bcol[M->pos[M->bstart[f] + M->PP[f].perm[i]]] * nc, rhs + (int64_t)i * nr,
               nr * sizeof(double));
    free(rhs);
    return 0;
}

/* is lam too close to singular for division?  lam' mean(A) lam against the unit penalty */
static int mm_is_singular(const mm_model *M, const double *lam, int f, double tol)
{
    int k = M->k[f];
    double A[k * k], W[k * k];
    const double *l = lam + M->koff[f];
    memset(A, 0, sizeof(A));
    for (int i = 0; i < M->m[f]; i++) {
        const double *a = M->AR + M->aoff[M->pos[M->bstart[f] + i]];
        for (int q = 0; q < k * k; q++) A[q] += a[q] / M->m[f];
    }
    for (int c = 0; c < k; c++) for (int r = c; r < k; r++) {
        double s = 0.0;
        for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) s += l[i * k + r] * A[i * k + j] * l[j * k + c];
        W[r + c * k] = s - (r == c ? tol : 0.0);
    }
    return mm_potrf_small(k, W, k);
}

/* ------------------------------------------------------------------ leaf's share of the selected inverse */
static void mm_gather_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg)
{
    const mm_pattern *P = &M->P;
    int n = M->n, k0 = M->k0;
    double *Q = (double *)arg;                 /* per leaf level, or NULL: N Q N' summed by block */
    for (int j = a; j < b; j++) {
        int cj = P->bcol[j], kj = M->k[M->bfac[j]];
        double *w = M->w[thread];
        int64_t ldw = n;
        mm_walk_column(M, lam, j, w, 1);
        if (M->cptr[j] == M->cptr[j + 1]) { if (!Q) memset(M->colacc + (int64_t)j * k0 * k0, 0, k0 * k0 * sizeof(double)); continue; }
        if (cj >= P->t0) {
            w = M->x + P->xptr[P->ns] + (int64_t)(cj - P->t0) * P->nt - P->t0;
            ldw = P->nt;
        } else mm_walk_column(M, lam, j, w, 2);
        if (M->scalar && !Q) {
            double acc = 0.0;
            const int *restrict col = M->lcol;
            const double *restrict B = M->B;
            for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
                int l = M->cleaf[s];
                int64_t e = M->cent[s], end = M->lptr[l + 1], q = e + 1;
                double s0 = 0, s1 = 0, s2 = 0, s3 = 0, nl = M->N[l];
                for (; q + 3 < end; q += 4) {
                    s0 += B[q] * w[col[q]];
                    s1 += B[q + 1] * w[col[q + 1]];
                    s2 += B[q + 2] * w[col[q + 2]];
                    s3 += B[q + 3] * w[col[q + 3]];
                }
                for (; q < end; q++) s0 += B[q] * w[col[q]];
                acc += nl * nl * B[e] * (2.0 * (s0 + s1 + s2 + s3) + B[e] * w[cj]);
            }
            M->colacc[j] = acc;
        } else {
            double off[k0 * kj], one[k0 * k0], t[k0 * k0], acc[k0 * k0];
            memset(acc, 0, sizeof(acc));
            for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
                int l = M->cleaf[s];
                int64_t e = M->cent[s], end = M->lptr[l + 1];
                const double *Bj = M->B + M->lval[e], *N = M->N + (int64_t)l * k0 * k0;
                for (int i = 0; i < k0 * kj; i++) off[i] = 0.0;
                for (int64_t q = e; q < end; q++) {
                    int ki = M->k[M->bfac[M->lblk[q]]];
                    const double *Bq = M->B + M->lval[q], *wq = w + M->lcol[q];
                    double f = q == e ? 0.5 : 1.0;
                    for (int c = 0; c < kj; c++) {
                        const double *wc = wq + (int64_t)c * ldw;
                        for (int r = 0; r < k0; r++) {
                            double v = 0.0;
                            for (int i = 0; i < ki; i++) v += Bq[r * ki + i] * wc[i];
                            off[r * kj + c] += f * v;
                        }
                    }
                }
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
                    double v = 0.0;
                    for (int i = 0; i < kj; i++) v += off[r * kj + i] * Bj[c * kj + i];
                    one[r * k0 + c] = v;
                }
                if (Q) {
                    double *q = Q + (int64_t)l * k0 * k0;
                    for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) q[r * k0 + c] += one[r * k0 + c] + one[c * k0 + r];
                    continue;
                }
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
                    double v = 0.0;
                    for (int i = 0; i < k0; i++) v += N[r * k0 + i] * (one[i * k0 + c] + one[c * k0 + i]);
                    t[r * k0 + c] = v;
                }
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
                    double v = 0.0;
                    for (int i = 0; i < k0; i++) v += t[r * k0 + i] * N[c * k0 + i];
                    acc[r * k0 + c] += v;
                }
            }
            if (!Q) memcpy(M->colacc + (int64_t)j * k0 * k0, acc, sizeof(acc));
        }
        if (cj < P->t0) mm_walk_column(M, lam, j, w, 3);
    }
}

static void mm_gather_dense(mm_model *M, const double *lam, double *T, double *Q)
{
    int n = M->n, k0 = M->k0, mk = M->m0 * k0;
    double *Z = M->Zd, *Y = M->Wd;
    for (int j = 0; j < M->nb; j++) mm_walk_column(M, lam, j, M->w[0], 1);
    for (int j = 0; j < n; j++) for (int i = j; i < n; i++) {
        double v = M->x[i + (int64_t)j * n];
        Z[i + (int64_t)j * n] = v;
        Z[j + (int64_t)i * n] = v;
    }
    mm_rm(&M->bl, 0, mk, n, n, 1.0, M->Bd, Z, 0.0, Y);
    for (int l = 0; l < M->m0; l++) {
        double q[k0 * k0], t[k0 * k0];
        const double *N = M->N + (int64_t)l * k0 * k0;
        for (int a = 0; a < k0; a++) for (int b = 0; b <= a; b++) {
            const double *y = Y + ((int64_t)l * k0 + a) * n, *x = M->Bd + ((int64_t)l * k0 + b) * n;
            double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            int i = 0;
            for (; i + 3 < n; i += 4) { s0 += y[i] * x[i]; s1 += y[i + 1] * x[i + 1]; s2 += y[i + 2] * x[i + 2]; s3 += y[i + 3] * x[i + 3]; }
            for (; i < n; i++) s0 += y[i] * x[i];
            q[a * k0 + b] = q[b * k0 + a] = s0 + s1 + s2 + s3;
        }
        if (Q) { memcpy(Q + (int64_t)l * k0 * k0, q, sizeof(q)); continue; }
        for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
            double v = 0.0;
            for (int i = 0; i < k0; i++) v += N[r * k0 + i] * q[i * k0 + c];
            t[r * k0 + c] = v;
        }
        for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
            double v = 0.0;
            for (int i = 0; i < k0; i++) v += t[r * k0 + i] * N[c * k0 + i];
            T[r * k0 + c] -= v;
        }
    }
}

/* ------------------------------------------------------------------ directions */
static void mm_direction_range(mm_model *M, const double *lam, int a, int b, int thread, const void *arg)
{
    int r = *(const int *)arg, k0 = M->k0;
    for (int l = a; l < b; l++) {
        const double *A = M->A0 + (int64_t)l * k0 * k0, *H = M->H + (int64_t)l * k0 * k0, *N = M->N + (int64_t)l * k0 * k0;
        double *bb = M->bleaf + (int64_t)l * k0 * r, *ww = M->wleaf + (int64_t)l * k0 * r;
        double *g = M->Yd + (int64_t)l * k0 * r;
        if (k0 == 1) {
            for (int i = 0; i < r; i++) {
                double w = ww[i] + A[0] * bb[i];
                g[i] = bb[i] - H[0] * w;
                ww[i] = N[0] * w;
            }
            continue;
        }
        double t[k0 * r];
        for (int x = 0; x < k0; x++)                         /* w = B b_R (there already) + A b_l */
            for (int y = 0; y < k0; y++) {
                double v = A[x * k0 + y];
                for (int i = 0; i < r; i++) ww[x * r + i] += v * bb[y * r + i];
            }
        memcpy(t, ww, sizeof(t));
        for (int x = 0; x < k0; x++) {
            for (int i = 0; i < r; i++) { g[x * r + i] = bb[x * r + i]; ww[x * r + i] = 0.0; }
            for (int y = 0; y < k0; y++) {
                double h = H[x * k0 + y], z = N[x * k0 + y];
                for (int i = 0; i < r; i++) { g[x * r + i] -= h * t[y * r + i]; ww[x * r + i] += z * t[y * r + i]; }
            }
        }
    }
}

/* wpw (r x r); c of the first column in cl (stride nc) and chat/cr (stride ncr) */
static void mm_directions(mm_model *M, const double *lam, const double *dS, int r, int kk, int nc, int ncr, double *wpw)
{
    int n = M->n, mk = M->m0 * M->k0, p1 = M->p1, p = p1 - 1, k0 = M->k0, i, j;
    const double *C = M->C;
    if (M->leaf >= 0) {
        const double *D = dS + M->koff[M->leaf];
        memset(M->bleaf, 0, (size_t)mk * r * sizeof(double));
        for (i = 0; i < r; i++) {
            const double *Di = D + (int64_t)i * kk;
            for (int x = 0; x < k0; x++) for (int y = 0; y < k0; y++) {
                double d = Di[x * k0 + y];
                if (d == 0.0) continue;
                for (int l = 0; l < M->m0; l++)
                    M->bleaf[((int64_t)l * k0 + x) * r + i] += d * M->cl[((int64_t)l * k0 + y) * nc];
            }
        }
    }
    if (n) {
        memset(M->brest, 0, (size_t)n * r * sizeof(double));
        for (j = 0; j < M->nb; j++) {
            int f = M->bfac[j], k = M->k[f], cj = M->P.bcol[j];
            const double *c = (M->hasprec[f] ? M->chat : M->cr) + (int64_t)cj * ncr;
            for (i = 0; i < r; i++) {
                const double *Di = dS + (int64_t)i * kk + M->koff[f];
                for (int x = 0; x < k; x++) {
                    double v = 0.0;
                    for (int y = 0; y < k; y++) v += Di[x * k + y] * c[y * ncr];
                    M->brest[(int64_t)(cj + x) * r + i] = v;
                }
            }
        }
    }
    memset(wpw, 0, (size_t)r * r * sizeof(double));
    memset(M->Xw, 0, (size_t)p1 * r * sizeof(double));
    if (M->leaf >= 0) {
        memset(M->wleaf, 0, (size_t)mk * r * sizeof(double));
        if (n) mm_times_B(M, 1.0, M->brest, r, M->wleaf);
        mm_par(M, lam, mm_direction_range, M->m0, 512, (double)mk * k0 * r * 3, &r);
        mm_rm(&M->bl, 1, r, r, mk, 1.0, M->bleaf, M->wleaf, 1.0, wpw);
        if (p) mm_rm(&M->bl, 1, p1, r, mk, 1.0, M->R0, M->Yd, 1.0, M->Xw);
    }
    if (n) {
        memset(M->wrest, 0, (size_t)n * r * sizeof(double));
        mm_times_AR(M, 1.0, M->brest, r, M->wrest);
        if (M->leaf >= 0) mm_times_Bt(M, 1.0, M->Yd, r, M->wrest);
        mm_rm(&M->bl, 1, r, r, n, 1.0, M->brest, M->wrest, 1.0, wpw);
        if (p) mm_rm(&M->bl, 1, p1, r, n, 1.0, M->RR, M->brest, 1.0, M->Xw);
        mm_times_Lam(M, lam, 1, M->wrest, r, M->brest);
        mm_fsolve(&M->bl, &M->P, M->x, M->brest, r, &M->W);
        mm_rm(&M->bl, 1, r, r, n, -1.0, M->brest, M->brest, 1.0, wpw);
        if (p) mm_rm(&M->bl, 1, p1, r, n, -1.0, M->R, M->brest, 1.0, M->Xw);
    }
    for (j = 0; j < p; j++) {
        double *x = M->Xw + (int64_t)j * r;
        for (i = 0; i < j; i++) {
            double v = C[j + i * p1];
            for (int c = 0; c < r; c++) x[c] -= v * M->Xw[(int64_t)i * r + c];
        }
        for (int c = 0; c < r; c++) x[c] /= C[j * (p1 + 1)];
    }
    if (p) mm_rm(&M->bl, 1, r, r, p, -1.0, M->Xw, M->Xw, 1.0, wpw);
    for (i = 0; i < r; i++) for (j = 0; j < i; j++)
        wpw[i * r + j] = wpw[j * r + i] = 0.5 * (wpw[i * r + j] + wpw[j * r + i]);
}

/* sum over the columns [from, to) and levels of a b', rows of stride nc */
static void mm_outer(const double *a, const double *b, int levels, int k, int nc, int from, int to, double sign, double *out)
{
    for (int l = 0; l < levels; l++) {
        const double *x = a + (int64_t)l * k * nc, *y = b + (int64_t)l * k * nc;
        for (int i = 0; i < k; i++) for (int j = 0; j < k; j++) {
            double s = 0.0;
            for (int c = from; c < to; c++) s += x[i * nc + c] * y[j * nc + c];
            out[i * k + j] += sign * s;
        }
    }
}

static int mm_components(mm_model *M, const double *lam, int order, int reml, const double *dS, int ndir, int kk,
                         mm_scalars *sc,
                         double *T, double *S, double *wpw)
{
    int F = M->F, p = M->p1 - 1, nc, ncr, anysing = 0, anyprec = 0, f, j, n = M->n;
    char sing[F > 0 ? F : 1];
    if (mm_forward(M, lam, sc)) return 1;
    if (order < 1) return 0;
    for (f = 0; f < F; f++) {
        sing[f] = f != M->leaf && mm_is_singular(M, lam, f, 1e-6);
        anysing |= sing[f];
        anyprec |= M->hasprec[f];
    }
    nc = 1 + (reml ? p : 0);
    ncr = anysing || anyprec ? nc : 1;
    mm_back(M, lam, nc);
    memset(T, 0, kk * sizeof(double));
    memset(S, 0, kk * sizeof(double));
    if (M->leaf >= 0) {
        double *T0 = T + M->koff[M->leaf];
        int k0 = M->k0;
        mm_outer(M->cl, M->cl, M->m0, k0, nc, 0, 1, 1.0, S + M->koff[M->leaf]);
        if (nc > 1) mm_outer(M->cl, M->cl, M->m0, k0, nc, 1, nc, -1.0, T0);
        for (int l = 0; l < M->m0; l++) {
            const double *A = M->A0 + (int64_t)l * k0 * k0, *N = M->N + (int64_t)l * k0 * k0;
            if (k0 == 1) { T0[0] += N[0] * A[0]; continue; }
            for (int a = 0; a < k0; a++) for (int b = 0; b < k0; b++) {
                double s = 0.0;
                for (int i = 0; i < k0; i++) s += N[a * k0 + i] * A[i * k0 + b];
                T0[a * k0 + b] += s;
            }
        }
    }
    if (!n) { if (order >= 2) mm_directions(M, lam, dS, ndir, kk, nc, 1, wpw); return 0; }
    /* c of the rest by multiplication: ZX Mx - B' lam u - A_RR Lam u */
    if (ncr == nc) {
        mm_rm(&M->bl, 0, n, nc, p + 1, 1.0, M->RR, M->Mx, 0.0, M->cr);
        if (M->leaf >= 0) mm_times_Bt(M, -1.0, M->gl, nc, M->cr);
        mm_times_AR(M, -1.0, M->LU, nc, M->cr);
    } else {
        /* first column alone, gathered from the wider arrays */
        double *g1 = M->tl, *u1 = M->chat;
        for (int i = 0; i < n; i++) {
            const double *r = M->RR + (int64_t)i * (p + 1);
            double s = 0.0;
            for (int q = 0; q <= p; q++) s += r[q] * M->Mx[q * nc];
            M->cr[i] = s;
            u1[i] = M->LU[(int64_t)i * nc];
        }
        if (M->leaf >= 0) {
            for (int64_t i = 0; i < (int64_t)M->m0 * M->k0; i++) g1[i] = M->gl[i * nc];
            mm_times_Bt(M, -1.0, g1, 1, M->cr);
        }
        mm_times_AR(M, -1.0, u1, 1, M->cr);
    }
    for (f = 0; f < F; f++) {
        int k = M->k[f];
        double *Tf = T + M->koff[f], *Sf = S + M->koff[f], inv[k * k];
        if (f == M->leaf) continue;
        if (!sing[f] && mm_inverse(k, lam + M->koff[f], inv)) sing[f] = 1, anysing = 1;
        if (M->hasprec[f]) {
            if (sing[f]) { if (mm_solve_precision(M, f, ncr)) return 1; }
            else
                for (int l = 0; l < M->m[f]; l++) {
                    int cj = M->P.bcol[M->pos[M->bstart[f] + l]];
                    for (int a = 0; a < k; a++) for (int c = 0; c < ncr; c++) {
                        double s = 0.0;
                        for (int b = 0; b < k; b++) s += inv[b * k + a] * M->U[(int64_t)(cj + b) * nc + c];
                        M->chat[(int64_t)(cj + a) * ncr + c] = s;
                    }
                }
        }
        double uu[k * k];
        memset(uu, 0, sizeof(uu));
        for (int l = 0; l < M->m[f]; l++) {
            int cj = M->P.bcol[M->pos[M->bstart[f] + l]];
            const double *c = M->cr + (int64_t)cj * ncr, *ch = M->hasprec[f] ? M->chat + (int64_t)cj * ncr : c;
            mm_outer(c, ch, 1, k, ncr, 0, 1, 1.0, Sf);
            if (nc > 1) {
                if (ncr == nc) mm_outer(c, ch, 1, k, nc, 1, nc, -1.0, Tf);
                else mm_outer(M->U + (int64_t)cj * nc, M->U + (int64_t)cj * nc, 1, k, nc, 1, nc, -1.0, uu);
            }
        }
        if (nc > 1 && ncr != nc) {
            double t[k * k];
            mm_scale_block(1, k, inv, k, inv, uu, k, t, k);      /* lam^-T uu lam^-1, symmetric */
            for (int i = 0; i < k * k; i++) Tf[i] += t[i];
        }
    }
    if (order >= 2) mm_directions(M, lam, dS, ndir, kk, nc, ncr, wpw);
    for (f = 0; f < F; f++)
        if (f != M->leaf && sing[f] && mm_singular_T(M, lam, f, T + M->koff[f])) return 1;
    if (mm_selinv(&M->bl, &M->P, M->x, &M->W)) return 1;
    for (f = 0; f < F; f++) {
        int k = M->k[f];
        double *Tf = T + M->koff[f], inv[k * k], acc[k * k], t[k * k];
        if (f == M->leaf || sing[f]) continue;
        mm_inverse(k, lam + M->koff[f], inv);
        for (int i = 0; i < k; i++) for (int q = 0; q < k; q++) acc[i + q * k] = i == q ? M->m[f] : 0.0;
        for (int l = 0; l < M->m[f]; l++) {
            j = M->pos[M->bstart[f] + l];
            int cj = M->P.bcol[j];
            if (!M->hasprec[f]) {
                for (int b = 0; b < k; b++) for (int a = b; a < k; a++) {
                    double v = *mm_at(&M->P, M->x, cj + a, cj + b);
                    acc[a + b * k] -= v;
                    if (a > b) acc[b + a * k] -= v;
                }
            } else
                for (int64_t q = M->qptr[j]; q < M->qptr[j + 1]; q++) {
                    int i = M->qblk[q], ci = M->P.bcol[i];
                    for (int b = 0; b < k; b++) for (int a = 0; a < k; a++) {
                        double v;
                        if (i == j) v = *mm_at(&M->P, M->x, cj + (a > b ? a : b), cj + (a > b ? b : a));
                        else v = *mm_at(&M->P, M->x, ci + a, cj + b) + *mm_at(&M->P, M->x, ci + b, cj + a);
                        acc[a + b * k] -= M->qval[q] * v;
                    }
                }
        }
        mm_scale_block(1, k, inv, k, inv, acc, k, t, k);
        for (int i = 0; i < k * k; i++) Tf[i] += t[i];
    }
    if (M->leaf >= 0) {
        double *T0 = T + M->koff[M->leaf];
        int k0 = M->k0;
        if (M->dense) mm_gather_dense(M, lam, T0, NULL);
        else {
            mm_par(M, lam, mm_gather_range, M->nb, M->nb > 256 ? 16 : 4, (double)M->lval[M->lptr[M->m0]] * 8 + M->P.nnz, NULL);
            for (j = 0; j < M->nb; j++) for (int i = 0; i < k0 * k0; i++) T0[i] -= M->colacc[(int64_t)j * k0 * k0 + i];
        }
    }
    for (f = 0; f < F; f++) {
        int k = M->k[f];
        double *Tf = T + M->koff[f], *Sf = S + M->koff[f];
        for (int a = 0; a < k; a++) for (int b = 0; b < a; b++) {
            Tf[a * k + b] = Tf[b * k + a] = 0.5 * (Tf[a * k + b] + Tf[b * k + a]);
            Sf[a * k + b] = Sf[b * k + a] = 0.5 * (Sf[a * k + b] + Sf[b * k + a]);
        }
    }
    return 0;
}

/* diagonal blocks of Lam M^-1 Lam' of factor f, (m, k, k); only after mm_forward */
static int mm_conditional(mm_model *M, const double *lam, int f, double *out)
{
    int k = M->k[f];
    const double *lf = lam + M->koff[f];
    if (mm_selinv(&M->bl, &M->P, M->x, &M->W)) return 1;
    if (f != M->leaf) {
        for (int l = 0; l < M->m[f]; l++) {
            int cj = M->P.bcol[M->pos[M->bstart[f] + l]];
            double z[k * k];
            for (int b = 0; b < k; b++) for (int a = b; a < k; a++)
                z[a + b * k] = z[b + a * k] = *mm_at(&M->P, M->x, cj + a, cj + b);
            mm_scale_block(0, k, lf, k, lf, z, k, out + (int64_t)l * k * k, k);
        }
        return 0;
    }
    /* H_l + H_l B_l (Lam S^-1 Lam') B_l' H_l */
    double *Q = mm_dbl((int64_t)M->m0 * k * k);
    if (!Q) return 1;
    if (M->n) {
        if (M->dense) mm_gather_dense(M, lam, NULL, Q);
        else mm_gather_range(M, lam, 0, M->nb, 0, Q);
    }
    for (int l = 0; l < M->m0; l++) {
        const double *H = M->H + (int64_t)l * k * k;
        double *o = out + (int64_t)l * k * k;
        mm_scale_block(0, k, H, k, H, Q + (int64_t)l * k * k, k, o, k);
        for (int i = 0; i < k * k; i++) o[i] += H[i];
    }
    free(Q);
    return 0;
}
#endif
