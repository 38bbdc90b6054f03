/* Supernodal Cholesky factor with a dense tail: factorisation, solves, selected inverse.
 *
 * Left-looking: every supernode (and every column of the tail) gathers its own updates, so that threads
 * write disjoint memory and the result does not depend on their number.  Supernodes of one height in the
 * elimination tree are independent.  The selected inverse is Takahashi's recurrence by supernodes, from the
 * last one back (Erisman and Tinney 1975):
 *     Y = L_RJ L_JJ^-1,   Z_RJ = -Z_RR Y,   Z_JJ = (L_JJ L_JJ')^-1 + Y' Z_RR Y.
 */
#ifndef MM_CHOLESKY_H
#define MM_CHOLESKY_H

#include <math.h>
#include "symbolic.h"
#ifdef _OPENMP
#include <omp.h>
#define MM_THREAD omp_get_thread_num()
#else
#define MM_THREAD 0
#endif

typedef struct {
    void (*dgemm)(char *, char *, int *, int *, int *, double *, double *, int *, double *, int *, double *,
                  double *, int *);
    void (*dsyrk)(char *, char *, int *, int *, double *, double *, int *, double *, double *, int *);
    void (*dsymm)(char *, char *, int *, int *, double *, double *, int *, double *, int *, double *, double *,
                  int *);
    void (*dtrsm)(char *, char *, char *, char *, int *, int *, double *, double *, int *, double *, int *);
    void (*dpotrf)(char *, int *, double *, int *, int *);
    void (*dpotri)(char *, int *, double *, int *, int *);
    void (*set_threads)(int);      /* of the BLAS library, or NULL */
    int (*get_threads)(void);
} mm_blas;

/* While a solver works the library uses one thread; nested and concurrent uses are counted. */
static int mm_quiet_depth = 0, mm_quiet_saved = 1;

static void mm_quiet(const mm_blas *bl, int on) {
    if (!bl->set_threads) return;
#pragma omp critical(mm_quiet)
    {
        if (on) {
            if (mm_quiet_depth++ == 0) {
                mm_quiet_saved = bl->get_threads();
                if (mm_quiet_saved != 1) bl->set_threads(1);
            }
        } else if (--mm_quiet_depth == 0 && mm_quiet_saved != 1) bl->set_threads(mm_quiet_saved);
    }
}

/* nanoseconds below which a parallel loop is not worth its barriers (on a busy machine one costs milliseconds) */
#define MM_WORTH 4e5
#define MM_SMALL 24        /* below this order plain loops beat a library call */

/* ------------------------------------------------------------------ small dense kernels, column-major lower */
static inline int mm_potrf_small(int n, double *a, int64_t ld) {
    for (int j = 0; j < n; j++) {
        double *cj = a + j * ld;
        for (int k = 0; k < j; k++) {
            const double *ck = a + k * ld;
            double v = ck[j];
            for (int i = j; i < n; i++) cj[i] -= v * ck[i];
        }
        if (!(cj[j] > 0.0) || cj[j] > 1e300) return 1;
        double d = sqrt(cj[j]), r = 1.0 / d;
        cj[j] = d;
        for (int i = j + 1; i < n; i++) cj[i] *= r;
    }
    return 0;
}

/* a: lower Cholesky factor -> lower triangle of the inverse of L L' */
static inline void mm_potri_small(int n, double *a, int64_t ld) {
    for (int j = 0; j < n; j++) {              /* L^-1, column by column */
        double *cj = a + j * ld;
        cj[j] = 1.0 / cj[j];
        for (int i = j + 1; i < n; i++) {
            double s = 0.0;
            for (int k = j; k < i; k++) s -= a[i + k * ld] * cj[k];
            cj[i] = s / a[i + i * ld];
        }
    }
    for (int j = 0; j < n; j++)                /* L^-T L^-1 */
        for (int i = j; i < n; i++) {
            double s = 0.0;
            for (int k = i; k < n; k++) s += a[k + i * ld] * a[k + j * ld];
            a[i + j * ld] = s;
        }
}

static int mm_potrf(const mm_blas *bl, int n, double *a, int64_t ld) {
    if (n <= MM_SMALL) return mm_potrf_small(n, a, ld);
    int l = (int)ld, info = 0;
    bl->dpotrf("L", &n, a, &l, &info);
    if (info) return 1;
    return isfinite(a[(n - 1) * (ld + 1)]) ? 0 : 1;
}

static void mm_potri(const mm_blas *bl, int n, double *a, int64_t ld) {
    if (n <= MM_SMALL) { mm_potri_small(n, a, ld); return; }
    int l = (int)ld, info = 0;
    bl->dpotri("L", &n, a, &l, &info);
}

/* B (m x n) <- B L^-T (trans) or B L^-1 */
static void mm_trsm_right(const mm_blas *bl, int trans, int m, int n, const double *a, int64_t lda, double *b,
                          int64_t ldb)
{
    if (m == 0 || n == 0) return;
    if (n < 8 || (double)m * n * n < 4000.0) {
        if (trans) {
            for (int j = 0; j < n; j++) {
                double *bj = b + j * ldb;
                for (int k = 0; k < j; k++) {
                    double v = a[j + k * lda];
                    const double *bk = b + k * ldb;
                    for (int i = 0; i < m; i++) bj[i] -= v * bk[i];
                }
                double r = 1.0 / a[j + j * lda];
                for (int i = 0; i < m; i++) bj[i] *= r;
            }
        } else {
            for (int j = n - 1; j >= 0; j--) {
                double *bj = b + j * ldb;
                for (int k = j + 1; k < n; k++) {
                    double v = a[k + j * lda];
                    const double *bk = b + k * ldb;
                    for (int i = 0; i < m; i++) bj[i] -= v * bk[i];
                }
                double r = 1.0 / a[j + j * lda];
                for (int i = 0; i < m; i++) bj[i] *= r;
            }
        }
        return;
    }
    double one = 1.0;
    int la = (int)lda, lb = (int)ldb;
    bl->dtrsm("R", "L", trans ? "T" : "N", "N", &m, &n, &one, (double *)a, &la, b, &lb);
}

/* X (n rows, nrhs columns, row-major, row stride ldx) <- L^-1 X or L^-T X, L dense lower */
static void mm_dense_solve(const mm_blas *bl, int back, int n, const double *a, int64_t lda, double *x, int nrhs,
                           int64_t ldx)
{
    if (n == 0 || nrhs == 0) return;
    if (n <= MM_SMALL || nrhs == 1) {
        if (!back) {
            for (int j = 0; j < n; j++) {
                double *xj = x + j * ldx, r = 1.0 / a[j + j * lda];
                const double *c = a + j * lda;
                if (nrhs == 1 && ldx == 1) {
                    double v = xj[0] *= r;
                    for (int i = j + 1; i < n; i++) x[i] -= c[i] * v;
                } else {
                    for (int k = 0; k < nrhs; k++) xj[k] *= r;
                    for (int i = j + 1; i < n; i++) {
                        double v = c[i], *xi = x + i * ldx;
                        for (int k = 0; k < nrhs; k++) xi[k] -= v * xj[k];
                    }
                }
            }
        } else {
            for (int j = n - 1; j >= 0; j--) {
                double *xj = x + j * ldx, r = 1.0 / a[j + j * lda];
                const double *c = a + j * lda;
                if (nrhs == 1 && ldx == 1) {
                    double s = xj[0], s1 = 0, s2 = 0, s3 = 0;
                    int i = j + 1;
                    for (; i + 3 < n; i += 4) {
                        s -= c[i] * x[i]; s1 += c[i + 1] * x[i + 1]; s2 += c[i + 2] * x[i + 2];
                        s3 += c[i + 3] * x[i + 3];
                    }
                    for (; i < n; i++) s -= c[i] * x[i];
                    xj[0] = (s - s1 - s2 - s3) * r;
                } else {
                    for (int i = j + 1; i < n; i++) {
                        double v = c[i], *xi = x + i * ldx;
                        for (int k = 0; k < nrhs; k++) xj[k] -= v * xi[k];
                    }
                    for (int k = 0; k < nrhs; k++) xj[k] *= r;
                }
            }
        }
        return;
    }
    double one = 1.0;
    int la = (int)lda, lx = (int)ldx;
    /* row-major X is X' in column-major: X' <- X' L^-T (forward) or X' L^-1 (back) */
    bl->dtrsm("R", "L", back ? "N" : "T", "N", &nrhs, &n, &one, (double *)a, &la, x, &lx);
}

#define MM_TILED 288          /* smallest tail done by tiles */

static inline int mm_tile(int n) { int t = n / 10 / 32 * 32; return t < 64 ? 64 : t > 256 ? 256 : t; }

/* ------------------------------------------------------------------ per-thread work space */
typedef struct {
    int nthreads;
    int **map;             /* (n,) position of a row in the supernode at hand */
    double **buf;          /* gathered inverse or update */
    double **buf2;
    double *tiles;         /* diagonal tiles of the tail's inverse, one row of tiles per thread */
} mm_cholwork;

static void mm_cholwork_free(mm_cholwork *W) {
    for (int t = 0; t < W->nthreads; t++) {
        if (W->map) free(W->map[t]);
        if (W->buf) free(W->buf[t]);
        if (W->buf2) free(W->buf2[t]);
    }
    free(W->map); free(W->buf); free(W->buf2); free(W->tiles);
    memset(W, 0, sizeof(*W));
}

static int mm_cholwork_init(mm_cholwork *W, const mm_pattern *P, int nthreads, int nrhs) {
    int64_t b = P->max_gather > P->max_update ? P->max_gather : P->max_update;
    int64_t c = (int64_t)P->max_nr * nrhs;
    if (c > b) b = c;
    c = (int64_t)P->max_nr * P->max_nc * 2 + (int64_t)P->max_nc * P->max_nc;
    memset(W, 0, sizeof(*W));
    W->nthreads = nthreads;
    W->map = calloc(nthreads, sizeof(int *));
    W->buf = calloc(nthreads, sizeof(double *));
    W->buf2 = calloc(nthreads, sizeof(double *));
    if (!W->map || !W->buf || !W->buf2) return 1;
    if (P->nt >= MM_TILED) {
        size_t t = mm_tile(P->nt);
        W->tiles = malloc(t * (P->nt + t + (size_t)nthreads * P->nt) * sizeof(double));
        if (!W->tiles) return 1;
    }
    for (int t = 0; t < nthreads; t++) {
        W->map[t] = malloc((P->n + 1) * sizeof(int));
        W->buf[t] = malloc((b + 1) * sizeof(double));
        W->buf2[t] = malloc((c + 1) * sizeof(double));
        if (!W->map[t] || !W->buf[t] || !W->buf2[t]) return 1;
    }
    return 0;
}

static inline void mm_map_rows(const mm_pattern *P, int K, int *map) {
    int nc = P->sfirst[K + 1] - P->sfirst[K], f = P->sfirst[K];
    const int *r = P->rows + P->rptr[K];
    int nr = (int)(P->rptr[K + 1] - P->rptr[K]);
    for (int i = 0; i < nc; i++) map[f + i] = i;
    for (int i = 0; i < nr; i++) map[r[i]] = nc + i;
}

/* ------------------------------------------------------------------ dense tail by tiles
 * One library thread per call, the tiles shared out here: sums are taken in the same order for any number of
 * threads, and library threads never compete with ours. */


/* rows of a panel done at once: long enough to pay for packing, short enough to share out */
static inline int mm_rows(int left) { int r = left / 6 / 32 * 32; return r < 128 ? 128 : r > 1024 ? 1024 : r; }

static int mm_tile_potrf(const mm_blas *bl, int n, double *a, int nthreads)
{
    if (n < 3 * MM_TILED) return mm_potrf(bl, n, a, n);       /* many barriers: only where each step is long */
    const int tile = mm_tile(n);
    double one = 1.0, mone = -1.0;
    for (int k = 0; k < n; k += tile) {
        int nb = k + tile < n ? tile : n - k, left = n - k, step = mm_rows(left);
        int nchunk = (left + step - 1) / step;
        double *diag = a + k + (int64_t)k * n;
        if (k) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(nthreads)
            for (int c = 0; c < nchunk; c++) {
                int r = k + c * step, m = r + step < n ? step : n - r, K = k, N = n, w = nb;
                bl->dgemm("N", "T", &m, &w, &K, &mone, a + r, &N, a + k, &N, &one, a + r + (int64_t)k * n, &N);
            }
        }
        if (mm_potrf(bl, nb, diag, n)) return 1;
        left -= nb;
        step = mm_rows(left);
        nchunk = (left + step - 1) / step;
        if (nchunk > 0) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(nthreads)
            for (int c = 0; c < nchunk; c++) {
                int r = k + nb + c * step, m = r + step < n ? step : n - r, N = n, w = nb;
                bl->dtrsm("R", "L", "T", "N", &m, &w, &one, diag, &N, a + r + (int64_t)k * n, &N);
            }
        }
    }
    return 0;
}

/* lower Cholesky factor -> lower triangle of the inverse: X = L^-1 by independent column tiles, kept transposed
 * above the diagonal, then Z = X'X by independent tiles.  */
static int mm_tile_potri(const mm_blas *bl, int n, double *a, int nthreads, double *work)
{
    if (n < MM_TILED) { mm_potri(bl, n, a, n); return 0; }
    const int tile = mm_tile(n);
    int nt = (n + tile - 1) / tile;
    double *D = work, *buf = work + (size_t)nt * tile * tile;
    double one = 1.0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(nthreads)
    for (int j = 0; j < nt; j++) {
        int c = j * tile, nb = c + tile < n ? tile : n - c, m = n - c, N = n;
        double *B = buf + (size_t)MM_THREAD * tile * n, *Dj = D + (size_t)j * tile * tile;
        memset(B, 0, (size_t)nb * m * sizeof(double));
        for (int i = 0; i < nb; i++) B[i + (int64_t)i * nb] = 1.0;
        bl->dtrsm("R", "L", "T", "N", &nb, &m, &one, a + c + (int64_t)c * n, &N, B, &nb);
        memcpy(Dj, B, (size_t)nb * nb * sizeof(double));
        for (int q = nb; q < m; q++) memcpy(a + c + (int64_t)(c + q) * n, B + (int64_t)q * nb, nb * sizeof(double));
    }
    int wide = 4 * tile, tasks = 0;               /* a row of tiles in pieces of `wide` columns, and its diagonal */
    for (int i = 0; i < nt; i++) tasks += (i * tile + wide - 1) / wide + 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(nthreads)
    for (int t = 0; t < tasks; t++) {
        int i = 0, s = t, pieces;
        while (s >= (pieces = (i * tile + wide - 1) / wide + 1)) { s -= pieces; i++; }
        int ci = i * tile, cj = s * wide, N = n, T = tile;
        int mi = ci + tile < n ? tile : n - ci, K = n - ci - mi;
        double *Di = D + (size_t)i * T * T, *Ui = a + ci + (int64_t)(ci + mi) * n, zero = 0.0;
        if (s < pieces - 1) {
            int mj = cj + wide < ci ? wide : ci - cj;
            double *Z = a + ci + (int64_t)cj * n;
            bl->dgemm("N", "T", &mi, &mj, &mi, &one, Di, &mi, a + cj + (int64_t)ci * n, &N, &zero, Z, &N);
            if (K) bl->dgemm("N", "T", &mi, &mj, &K, &one, Ui, &N, a + cj + (int64_t)(ci + mi) * n, &N, &one, Z, &N);
        } else {
            double *Z = a + ci + (int64_t)ci * n;
            bl->dsyrk("L", "N", &mi, &mi, &one, Di, &mi, &zero, Z, &N);
            if (K) bl->dsyrk("L", "N", &mi, &K, &one, Ui, &N, &one, Z, &N);
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ factorisation */
/* updates of the columns r[from..to) by supernode J, destination given by map/base */
static void mm_update_head(const mm_blas *bl, const mm_pattern *P, double *x, int J, int K, int from, int to,
                           const int *map, double *buf)
{
    int nc = P->sfirst[J + 1] - P->sfirst[J], nr = (int)(P->rptr[J + 1] - P->rptr[J]);
    int64_t ld = nc + nr, ldk = (P->sfirst[K + 1] - P->sfirst[K]) + (P->rptr[K + 1] - P->rptr[K]);
    const int *r = P->rows + P->rptr[J];
    const double *L = x + P->xptr[J] + nc;
    double *X = x + P->xptr[K];
    int f = P->sfirst[K];
    if (nc < MM_WIDE) {
        for (int c = from; c < to; c++) {
            double *col = X + (int64_t)(r[c] - f) * ldk;
            for (int k = 0; k < nc; k++) {
                const double *l = L + k * ld;
                double v = l[c];
                for (int i = c; i < nr; i++) col[map[r[i]]] -= v * l[i];
            }
        }
        return;
    }
    int m = nr - from, q = to - from, l_ = (int)ld;
    double one = 1.0, zero = 0.0;
    bl->dgemm("N", "T", &m, &q, &nc, &one, (double *)L + from, &l_, (double *)L + from, &l_, &zero, buf, &m);
    for (int c = 0; c < q; c++) {
        double *col = X + (int64_t)(r[from + c] - f) * ldk;
        const double *b = buf + (int64_t)c * m;
        for (int i = c; i < m; i++) col[map[r[from + i]]] -= b[i];
    }
}

/* updates of tail columns [a, b) by every head supernode */
static void mm_update_tail(const mm_blas *bl, const mm_pattern *P, double *x, int a, int b, double *buf)
{
    double *T = x + P->xptr[P->ns];
    int64_t ldt = P->nt;
    int t0 = P->t0;
    for (int J = 0; J < P->ns; J++) {
        int nc = P->sfirst[J + 1] - P->sfirst[J], nr = (int)(P->rptr[J + 1] - P->rptr[J]);
        int64_t ld = nc + nr;
        const int *r = P->rows + P->rptr[J];
        int from = P->rtail[J], to, hi = nr;
        if (from == nr || r[nr - 1] < a) continue;
        {   /* first row >= a */
            int lo = from;
            while (lo < hi) { int mid = (lo + hi) / 2; if (r[mid] < a) lo = mid + 1; else hi = mid; }
            from = lo;
        }
        for (to = from; to < nr && r[to] < b; to++) {}
        if (to == from) continue;
        const double *L = x + P->xptr[J] + nc;
        if (nc < MM_WIDE) {
            for (int c = from; c < to; c++) {
                double *col = T + (int64_t)(r[c] - t0) * ldt - t0;
                int run = r[nr - 1] - r[c] == nr - 1 - c;
                for (int k = 0; k < nc; k++) {
                    const double *l = L + k * ld;
                    double v = l[c];
                    if (run) { double *d = col + r[c]; for (int i = c; i < nr; i++) d[i - c] -= v * l[i]; }
                    else for (int i = c; i < nr; i++) col[r[i]] -= v * l[i];
                }
            }
        } else {
            int m = nr - from, q = to - from, l_ = (int)ld;
            double one = 1.0, zero = 0.0;
            bl->dgemm("N", "T", &m, &q, &nc, &one, (double *)L + from, &l_, (double *)L + from, &l_, &zero, buf, &m);
            for (int c = 0; c < q; c++) {
                double *col = T + (int64_t)(r[from + c] - t0) * ldt - t0;
                const double *bc = buf + (int64_t)c * m;
                for (int i = c; i < m; i++) col[r[from + i]] -= bc[i];
            }
        }
    }
}

static int mm_factor_one(const mm_blas *bl, const mm_pattern *P, double *x, int K, int *map, double *buf)
{
    int nc = P->sfirst[K + 1] - P->sfirst[K], nr = (int)(P->rptr[K + 1] - P->rptr[K]);
    int64_t ld = nc + nr;
    double *X = x + P->xptr[K];
    if (P->uptr[K + 1] > P->uptr[K]) {
        mm_map_rows(P, K, map);
        for (int64_t u = P->uptr[K]; u < P->uptr[K + 1]; u++)
            mm_update_head(bl, P, x, P->uj[u], K, P->ufrom[u], P->uto[u], map, buf);
    }
    if (mm_potrf(bl, nc, X, ld)) return 1;
    mm_trsm_right(bl, 1, nr, nc, X, ld, X + nc, ld);
    return 0;
}

static int mm_factor(const mm_blas *bl, const mm_pattern *P, double *x, mm_cholwork *W, double *logdet)
{
    int bad = 0;
    for (int lv = 0; lv < P->nlev; lv++) {
        int a = P->levptr[lv], b = P->levptr[lv + 1];
        if (W->nthreads > 1 && b - a > 1 && P->levwork[lv] > MM_WORTH) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(W->nthreads) reduction(| : bad)
            for (int i = a; i < b; i++)
                bad |= mm_factor_one(bl, P, x, P->levsuper[i], W->map[MM_THREAD], W->buf[MM_THREAD]);
        } else
            for (int i = a; i < b && !bad; i++)
                bad |= mm_factor_one(bl, P, x, P->levsuper[i], W->map[0], W->buf[0]);
        if (bad) return 1;
    }
    if (P->nt) {
        if (P->ns) {
            int step = MM_STEP, nchunk = (P->nt + step - 1) / step;
            if (W->nthreads > 1 && P->nt > 256) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(W->nthreads)
                for (int i = 0; i < nchunk; i++) {
                    int a = P->t0 + i * step, b = a + step < P->n ? a + step : P->n;
                    mm_update_tail(bl, P, x, a, b, W->buf[MM_THREAD]);
                }
            } else
                for (int i = 0; i < nchunk; i++) {
                    int a = P->t0 + i * step, b = a + step < P->n ? a + step : P->n;
                    mm_update_tail(bl, P, x, a, b, W->buf[0]);
                }
        }
        if (mm_tile_potrf(bl, P->nt, x + P->xptr[P->ns], W->nthreads)) return 1;
    }
    double s = 0.0, prod = 1.0;
    for (int K = 0; K <= P->ns; K++) {
        int nc = K < P->ns ? P->sfirst[K + 1] - P->sfirst[K] : P->nt;
        int64_t ld = K < P->ns ? nc + (P->rptr[K + 1] - P->rptr[K]) : nc;
        const double *X = x + P->xptr[K];
        for (int j = 0; j < nc; j++) {
            prod *= X[j * (ld + 1)];
            if (prod > 1e150 || prod < 1e-150) { s += log(prod); prod = 1.0; }
        }
    }
    *logdet = 2.0 * (s + log(prod));
    return isfinite(*logdet) ? 0 : 1;
}

/* ------------------------------------------------------------------ solves, X row-major (n, nrhs) */
static void mm_fsolve(const mm_blas *bl, const mm_pattern *P, const double *x, double *R, int nrhs, mm_cholwork *W)
{
    for (int J = 0; J < P->ns; J++) {
        int nc = P->sfirst[J + 1] - P->sfirst[J], nr = (int)(P->rptr[J + 1] - P->rptr[J]);
        int64_t ld = nc + nr;
        const int *r = P->rows + P->rptr[J];
        const double *L = x + P->xptr[J];
        double *X = R + (int64_t)P->sfirst[J] * nrhs;
        mm_dense_solve(bl, 0, nc, L, ld, X, nrhs, nrhs);
        if (nc >= 2 * MM_WIDE && nrhs >= 4) {
            /* (nrhs x nr) = X' (nrhs x nc) L_RJ' */
            double one = 1.0, zero = 0.0, *buf = W->buf[0];
            int l_ = (int)ld;
            if (nr == 0) continue;
            bl->dgemm("N", "T", &nrhs, &nr, &nc, &one, X, &nrhs, (double *)L + nc, &l_, &zero, buf, &nrhs);
            for (int i = 0; i < nr; i++) {
                double *d = R + (int64_t)r[i] * nrhs;
                const double *b = buf + (int64_t)i * nrhs;
                for (int k = 0; k < nrhs; k++) d[k] -= b[k];
            }
        } else if (nrhs == 1) {
            for (int j = 0; j < nc; j++) {
                const double *l = L + j * ld + nc;
                double v = X[j];
                for (int i = 0; i < nr; i++) R[r[i]] -= v * l[i];
            }
        } else {
            for (int i = 0; i < nr; i++) {
                double *d = R + (int64_t)r[i] * nrhs;
                for (int j = 0; j < nc; j++) {
                    double v = L[j * ld + nc + i];
                    const double *xj = X + (int64_t)j * nrhs;
                    for (int k = 0; k < nrhs; k++) d[k] -= v * xj[k];
                }
            }
        }
    }
    mm_dense_solve(bl, 0, P->nt, x + P->xptr[P->ns], P->nt, R + (int64_t)P->t0 * nrhs, nrhs, nrhs);
}

static void mm_bsolve(const mm_blas *bl, const mm_pattern *P, const double *x, double *R, int nrhs, mm_cholwork *W)
{
    mm_dense_solve(bl, 1, P->nt, x + P->xptr[P->ns], P->nt, R + (int64_t)P->t0 * nrhs, nrhs, nrhs);
    for (int J = P->ns - 1; J >= 0; J--) {
        int nc = P->sfirst[J + 1] - P->sfirst[J], nr = (int)(P->rptr[J + 1] - P->rptr[J]);
        int64_t ld = nc + nr;
        const int *r = P->rows + P->rptr[J];
        const double *L = x + P->xptr[J];
        double *X = R + (int64_t)P->sfirst[J] * nrhs;
        if (nc >= 2 * MM_WIDE && nrhs >= 4 && nr > 0) {
            double one = 1.0, mone = -1.0, *buf = W->buf[0];
            int l_ = (int)ld;
            for (int i = 0; i < nr; i++)
                memcpy(buf + (int64_t)i * nrhs, R + (int64_t)r[i] * nrhs, nrhs * sizeof(double));
            bl->dgemm("N", "N", &nrhs, &nc, &nr, &mone, buf, &nrhs, (double *)L + nc, &l_, &one, X, &nrhs);
        } else if (nrhs == 1) {
            for (int j = 0; j < nc; j++) {
                const double *l = L + j * ld + nc;
                double s = 0.0;
                for (int i = 0; i < nr; i++) s += R[r[i]] * l[i];
                X[j] -= s;
            }
        } else {
            for (int i = 0; i < nr; i++) {
                const double *d = R + (int64_t)r[i] * nrhs;
                for (int j = 0; j < nc; j++) {
                    double v = L[j * ld + nc + i], *xj = X + (int64_t)j * nrhs;
                    for (int k = 0; k < nrhs; k++) xj[k] -= v * d[k];
                }
            }
        }
        mm_dense_solve(bl, 1, nc, L, ld, X, nrhs, nrhs);
    }
}

/* ------------------------------------------------------------------ selected inverse, in place of L */
static void mm_selinv_one(const mm_blas *bl, const mm_pattern *P, double *x, int J, int *map, double *buf,
                          double *buf2)
{
    int nc = P->sfirst[J + 1] - P->sfirst[J], nr = (int)(P->rptr[J + 1] - P->rptr[J]);
    int64_t ld = nc + nr;
    const int *r = P->rows + P->rptr[J];
    double *L = x + P->xptr[J], *Y = buf2, *V = buf2 + (int64_t)nr * nc, *D = V + (int64_t)nr * nc;
    int mapped = -1;
    if (nr) {
        for (int j = 0; j < nc; j++) memcpy(Y + (int64_t)j * nr, L + j * ld + nc, nr * sizeof(double));
        mm_trsm_right(bl, 0, nr, nc, L, ld, Y, nr);
        memset(V, 0, (size_t)nr * nc * sizeof(double));
        for (int c = 0; c < nr; c++) {
            int K = P->col2super[r[c]];
            const double *Z;
            if (K == P->ns) {
                Z = x + P->xptr[K] + (int64_t)(r[c] - P->t0) * P->nt - P->t0;
                if (nc >= MM_WIDE) {
                    double *b = buf + (int64_t)(c % MM_PANEL) * nr;
                    for (int i = c; i < nr; i++) b[i] = Z[r[i]];
                } else {
                    int run = r[nr - 1] - r[c] == nr - 1 - c;
                    for (int k = 0; k < nc; k++) {
                        const double *y = Y + (int64_t)k * nr;
                        double *v = V + (int64_t)k * nr, yc = y[c], s = 0.0;
                        if (run) {
                            const double *z = Z + r[c] - c;
                            double s1 = 0, s2 = 0, s3 = 0;
                            int i = c + 1;
                            for (; i + 3 < nr; i += 4) {
                                s += z[i] * y[i]; s1 += z[i + 1] * y[i + 1]; s2 += z[i + 2] * y[i + 2];
                                s3 += z[i + 3] * y[i + 3];
                                v[i] += z[i] * yc; v[i + 1] += z[i + 1] * yc; v[i + 2] += z[i + 2] * yc;
                                v[i + 3] += z[i + 3] * yc;
                            }
                            for (; i < nr; i++) { s += z[i] * y[i]; v[i] += z[i] * yc; }
                            s += s1 + s2 + s3;
                        } else {
                            double s1 = 0;
                            int i = c + 1;
                            for (; i + 1 < nr; i += 2) {
                                double z0 = Z[r[i]], z1 = Z[r[i + 1]];
                                s += z0 * y[i]; s1 += z1 * y[i + 1];
                                v[i] += z0 * yc; v[i + 1] += z1 * yc;
                            }
                            for (; i < nr; i++) { double z = Z[r[i]]; s += z * y[i]; v[i] += z * yc; }
                            s += s1;
                        }
                        v[c] += s + Z[r[c]] * yc;
                    }
                }
            } else {
                if (K != mapped) { mm_map_rows(P, K, map); mapped = K; }
                Z = x + P->xptr[K]
                    + (int64_t)(r[c] - P->sfirst[K]) * ((P->sfirst[K + 1] - P->sfirst[K]) + (P->rptr[K + 1] - P->rptr[K]));
                if (nc >= MM_WIDE) {
                    double *b = buf + (int64_t)(c % MM_PANEL) * nr;
                    for (int i = c; i < nr; i++) b[i] = Z[map[r[i]]];
                } else
                    for (int k = 0; k < nc; k++) {
                        const double *y = Y + (int64_t)k * nr;
                        double *v = V + (int64_t)k * nr, yc = y[c], s = 0.0;
                        for (int i = c + 1; i < nr; i++) { double z = Z[map[r[i]]]; s += z * y[i]; v[i] += z * yc; }
                        v[c] += s + Z[map[r[c]]] * yc;
                    }
            }
            if (nc >= MM_WIDE && (c + 1 == nr || (c + 1) % MM_PANEL == 0)) {
                /* V += the panel's columns of the symmetric Z_RR times Y */
                int c0 = c / MM_PANEL * MM_PANEL, w = c + 1 - c0, below = nr - c - 1;
                double one = 1.0;
                bl->dsymm("L", "L", &w, &nc, &one, buf + c0, &nr, Y + c0, &nr, &one, V + c0, &nr);
                if (below) {
                    bl->dgemm("N", "N", &below, &nc, &w, &one, buf + c + 1, &nr, Y + c0, &nr, &one, V + c + 1, &nr);
                    bl->dgemm("T", "N", &w, &nc, &below, &one, buf + c + 1, &nr, Y + c + 1, &nr, &one, V + c0, &nr);
                }
            }
        }
    }
    mm_potri(bl, nc, L, ld);
    if (!nr) return;
    if (nc == 1) {
        double s = 0.0;
        for (int i = 0; i < nr; i++) { s += Y[i] * V[i]; L[1 + i] = -V[i]; }
        L[0] += s;
        return;
    }
    if ((double)nr * nc * nc < 3000.0)
        for (int a = 0; a < nc; a++)
            for (int b = a; b < nc; b++) {
                double s = 0.0;
                for (int i = 0; i < nr; i++) s += Y[i + (int64_t)b * nr] * V[i + (int64_t)a * nr];
                L[b + a * ld] += s;
            }
    else {
        double one = 1.0, zero = 0.0;
        bl->dgemm("T", "N", &nc, &nc, &nr, &one, Y, &nr, V, &nr, &zero, D, &nc);
        for (int a = 0; a < nc; a++) for (int b = a; b < nc; b++) L[b + a * ld] += D[b + (int64_t)a * nc];
    }
    for (int j = 0; j < nc; j++) for (int i = 0; i < nr; i++) L[j * ld + nc + i] = -V[(int64_t)j * nr + i];
}

static int mm_selinv(const mm_blas *bl, const mm_pattern *P, double *x, mm_cholwork *W)
{
    if (P->nt && mm_tile_potri(bl, P->nt, x + P->xptr[P->ns], W->nthreads, W->tiles)) return 1;
    for (int lv = P->nlev - 1; lv >= 0; lv--) {
        int a = P->levptr[lv], b = P->levptr[lv + 1];
        if (W->nthreads > 1 && b - a > 1 && P->levwork[lv] > MM_WORTH) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(W->nthreads)
            for (int i = a; i < b; i++)
                mm_selinv_one(bl, P, x, P->levsuper[i], W->map[MM_THREAD], W->buf[MM_THREAD], W->buf2[MM_THREAD]);
        } else
            for (int i = a; i < b; i++)
                mm_selinv_one(bl, P, x, P->levsuper[i], W->map[0], W->buf[0], W->buf2[0]);
    }
    return 0;
}
#endif
