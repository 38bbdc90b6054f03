/* A sparse Cholesky factor on its own: many right-hand sides, places of entries, traces of the inverse. */
#ifndef MM_SPARSE_FACTOR_H
#define MM_SPARSE_FACTOR_H

#include "cholesky.h"

#define MM_RHS 32                   /* right-hand sides solved at once by one thread */

typedef struct {
    mm_blas bl;
    mm_pattern P;
    mm_cholwork W;
    int nthreads;
    int *cols;                      /* (n,) original column at each place */
    int *place;                     /* (n,) place of each original column */
    double *x, *z;                  /* factor; entries of the inverse, or NULL */
    double logdet;
} mm_sparse;

static void mm_sparse_free(mm_sparse *S) {
    mm_cholwork_free(&S->W);
    mm_pattern_free(&S->P);
    free(S->cols); free(S->place); free(S->x); free(S->z);
    memset(S, 0, sizeof(*S));
}

/* Vertices adjacent to a large share of the others (hubs: items that nearly every row touches) would be visited
 * at every step of the minimum-degree order.  As Amestoy, Davis and Duff (2004, ACM TOMS 30, section 3.4) they are
 * left out and come last; here they join the dense remainder, and each pivot's structure gets the hubs that it
 * or its descendants touch. */
static int mm_order_with_hubs(int nb, const int *weight, const int64_t *aptr, const int *aidx, mm_order *out)
{
    int64_t zero = 0, limit = (int64_t)(10.0 * sqrt((double)nb)), q;
    int nh = 0, nr = 0, i, p, c, np, rc = 1, tag = 0;
    int *map = NULL, *back = NULL, *w = NULL, *adj = NULL, *child = NULL, *sib = NULL, *mark = NULL, *first = NULL;
    int64_t *ptr = NULL, *hptr = NULL;
    mm_ivec hubs = {0}, all = {0};
    mm_order o;
    memset(&o, 0, sizeof(o));
    memset(out, 0, sizeof(*out));
    if (limit < 64) limit = 64;
    for (i = 0; i < nb; i++) nh += aptr[i + 1] - aptr[i] > limit;
    if (!nh || nh == nb) return mm_minimum_degree(nb, weight, aptr, aidx, 0, &zero, NULL, 0.8, out);
    map = malloc(nb * sizeof(int)); back = malloc(nb * sizeof(int)); w = malloc(nb * sizeof(int));
    mark = calloc(nb, sizeof(int)); first = malloc(nb * sizeof(int));
    ptr = calloc(nb + 1, sizeof(int64_t)); adj = malloc((aptr[nb] + 1) * sizeof(int));
    if (!map || !back || !w || !mark || !first || !ptr || !adj) goto done;
    for (i = 0; i < nb; i++) {
        if (aptr[i + 1] - aptr[i] > limit) { map[i] = -1; continue; }
        map[i] = nr;
        back[nr] = i;
        w[nr++] = weight[i];
    }
    for (i = 0; i < nr; i++) {
        ptr[i + 1] = ptr[i];
        for (q = aptr[back[i]]; q < aptr[back[i] + 1]; q++) if (map[aidx[q]] >= 0) adj[ptr[i + 1]++] = map[aidx[q]];
    }
    if (mm_minimum_degree(nr, w, ptr, adj, 0, &zero, NULL, 0.8, &o)) goto done;
    np = o.npiv - (o.dense ? 1 : 0);
    child = malloc((np + 1) * sizeof(int)); sib = malloc((np + 1) * sizeof(int));
    hptr = calloc(np + 1, sizeof(int64_t));
    out->order = malloc((nb + 1) * sizeof(int));
    out->pstart = malloc((np + 2) * sizeof(int));
    out->sptr = malloc((np + 2) * sizeof(int64_t));
    if (!child || !sib || !hptr || !out->order || !out->pstart || !out->sptr) goto done;
    for (p = 0; p < np; p++) child[p] = -1;
    for (i = 0; i < nr; i++) first[o.order[i]] = i;              /* place in the order */
    for (p = 0; p <= np; p++) out->pstart[p] = o.pstart[p];
    out->sptr[0] = 0;
    for (p = 0; p < np; p++) {
        int at = nr, lo = 0, hi = np;
        tag++;
        for (i = o.pstart[p]; i < o.pstart[p + 1]; i++)
            for (q = aptr[back[o.order[i]]]; q < aptr[back[o.order[i]] + 1]; q++)
                if (map[aidx[q]] < 0 && mark[aidx[q]] != tag) { mark[aidx[q]] = tag; mm_push(&hubs, aidx[q]); }
        for (c = child[p]; c >= 0; c = sib[c])
            for (q = hptr[c]; q < hptr[c + 1]; q++) {
                int h = hubs.v[q];
                if (mark[h] != tag) { mark[h] = tag; mm_push(&hubs, h); }
            }
        hptr[p + 1] = hubs.len;
        for (q = o.sptr[p]; q < o.sptr[p + 1]; q++) {
            mm_push(&all, back[o.sidx[q]]);
            if (first[o.sidx[q]] < at) at = first[o.sidx[q]];
        }
        for (q = hptr[p]; q < hptr[p + 1]; q++) mm_push(&all, hubs.v[q]);
        if (hubs.bad || all.bad) goto done;
        out->sptr[p + 1] = all.len;
        if (at >= nr || at >= o.pstart[np]) continue;             /* a root, or its parent is the dense remainder */
        while (lo + 1 < hi) { int mid = (lo + hi) / 2; if (o.pstart[mid] <= at) lo = mid; else hi = mid; }
        sib[p] = child[lo];
        child[lo] = p;
    }
    for (i = 0; i < nr; i++) out->order[i] = back[o.order[i]];
    for (i = 0; i < nb; i++) if (map[i] < 0) out->order[nr++] = i;
    out->n = nb;
    out->npiv = np + 1;
    out->dense = 1;
    out->pstart[np + 1] = nb;
    out->sptr[np + 1] = all.len;
    if (!all.v) mm_push(&all, 0);
    out->sidx = all.v;
    all.v = NULL;
    rc = all.bad;
done:
    free(map); free(back); free(w); free(mark); free(first); free(ptr); free(adj); free(child); free(sib); free(hptr);
    free(hubs.v); free(all.v);
    mm_order_free(&o);
    if (rc) mm_order_free(out);
    return rc;
}

/* nb vertices with `weight` columns each; adjacency from both sides, no diagonal.  0, or 1 out of memory. */
static int mm_sparse_setup(mm_sparse *S, int nb, const int *weight, const int64_t *aptr, const int *aidx, int cut,
                           int nthreads)
{
    mm_order o;
    int *first = malloc((nb + 1) * sizeof(int)), rc = 1;
    memset(&o, 0, sizeof(o));
    S->nthreads = nthreads;
    if (!first || mm_order_with_hubs(nb, weight, aptr, aidx, &o)) goto done;
    if (mm_symbolic(&o, weight, cut, &S->P)) goto done;
    first[0] = 0;
    for (int i = 0; i < nb; i++) first[i + 1] = first[i] + weight[i];
    S->cols = malloc((S->P.n + 1) * sizeof(int));
    S->place = malloc((S->P.n + 1) * sizeof(int));
    if (!S->cols || !S->place) goto done;
    for (int i = 0; i < nb; i++)
        for (int c = 0; c < weight[S->P.perm[i]]; c++) {
            int from = first[S->P.perm[i]] + c, to = S->P.bcol[i] + c;
            S->cols[to] = from;
            S->place[from] = to;
        }
    S->x = malloc((size_t)(S->P.nx + 1) * sizeof(double));
    if (!S->x || mm_cholwork_init(&S->W, &S->P, nthreads, MM_RHS)) goto done;
    rc = 0;
done:
    free(first);
    mm_order_free(&o);
    return rc;
}

/* where the entry (i, j), original numbering, lies in the values; -1: not in the pattern of the factor */
static int64_t mm_sparse_place(const mm_sparse *S, int i, int j)
{
    const mm_pattern *P = &S->P;
    int a = S->place[i], b = S->place[j], row = a > b ? a : b, col = a > b ? b : a, K = P->col2super[col];
    if (K == P->ns) return P->xptr[K] + (row - P->t0) + (int64_t)(col - P->t0) * P->nt;
    int f = P->sfirst[K], nc = P->sfirst[K + 1] - f, nr = (int)(P->rptr[K + 1] - P->rptr[K]);
    int64_t base = P->xptr[K] + (int64_t)(col - f) * (nc + nr);
    if (row < f + nc) return base + (row - f);
    const int *r = P->rows + P->rptr[K];
    int lo = 0, hi = nr;
    while (lo < hi) { int mid = (lo + hi) / 2; if (r[mid] < row) lo = mid + 1; else hi = mid; }
    return lo < nr && r[lo] == row ? base + nc + lo : -1;
}

/* a sum over entries that may fall on one place */
static int mm_sparse_factor(mm_sparse *S, int64_t count, const int64_t *at, const double *values)
{
    int bad;
    free(S->z);
    S->z = NULL;
    memset(S->x, 0, (size_t)S->P.nx * sizeof(double));
    for (int64_t q = 0; q < count; q++) S->x[at[q]] += values[q];
    mm_quiet(&S->bl, 1);
    bad = mm_factor(&S->bl, &S->P, S->x, &S->W, &S->logdet);
    mm_quiet(&S->bl, 0);
    return bad;
}

/* 1 out of memory */
static int mm_sparse_inverse(mm_sparse *S)
{
    int bad;
    if (S->z) return 0;
    S->z = malloc((size_t)(S->P.nx + 1) * sizeof(double));
    if (!S->z) return 1;
    memcpy(S->z, S->x, (size_t)S->P.nx * sizeof(double));
    mm_quiet(&S->bl, 1);
    bad = mm_selinv(&S->bl, &S->P, S->z, &S->W);
    mm_quiet(&S->bl, 0);
    return bad;
}

/* B, out: (n, nrhs) row-major, may be the same.  mode 0: S^-1 B; 1: L^-1 B in the order of the factor; 2: its
 * transpose, from the order of the factor. */
static int mm_sparse_solve(mm_sparse *S, int mode, int nrhs, const double *B, double *out)
{
    const mm_pattern *P = &S->P;
    int n = P->n, nchunk = (nrhs + MM_RHS - 1) / MM_RHS, nt = S->nthreads < nchunk ? S->nthreads : nchunk;
    int bad = 0;
    if (nt < 1) nt = 1;
    if ((double)P->nnz * nrhs < 1e5) nt = 1;
    mm_quiet(&S->bl, 1);
#pragma omp parallel num_threads(nt) reduction(| : bad)
    {
        mm_cholwork own = S->W;
        double *R = malloc((size_t)n * (nrhs < MM_RHS ? nrhs : MM_RHS) * sizeof(double) + 8);
        own.buf = S->W.buf + MM_THREAD;
        if (!R) bad = 1;
#pragma omp for schedule(dynamic, 1)
        for (int c = 0; c < nchunk; c++) {
            int a = c * MM_RHS, w = a + MM_RHS < nrhs ? MM_RHS : nrhs - a;
            if (!R) continue;
            for (int i = 0; i < n; i++)
                memcpy(R + (int64_t)i * w, B + (int64_t)(mode < 2 ? S->cols[i] : i) * nrhs + a, w * sizeof(double));
            if (mode < 2) mm_fsolve(&S->bl, P, S->x, R, w, &own);
            if (mode != 1) mm_bsolve(&S->bl, P, S->x, R, w, &own);
            for (int i = 0; i < n; i++)
                memcpy(out + (int64_t)(mode != 1 ? S->cols[i] : i) * nrhs + a, R + (int64_t)i * w, w * sizeof(double));
        }
        free(R);
    }
    mm_quiet(&S->bl, 0);
    return bad;
}
#endif
