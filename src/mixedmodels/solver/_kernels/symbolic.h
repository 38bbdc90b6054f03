/* From an elimination order to the pattern of a supernodal Cholesky factor with a dense tail.
 *
 * Head: supernodes (diagonal block and rows below it in one column-major trapezoid); a child is merged into
 * its parent when a simple cost model says that fewer, wider supernodes are faster.  Tail: the last columns
 * in one dense square, from the column where the same model says that dense arithmetic wins.
 */
#ifndef MM_SYMBOLIC_H
#define MM_SYMBOLIC_H

#include "ordering.h"

typedef struct {
    int n, nb, ns, t0, nt;          /* columns, blocks, head supernodes, first tail column, tail columns */
    int *perm;                      /* (nb,) block at each position */
    int *bcol;                      /* (nb + 1,) first column of the block at each position */
    int *colblk;                    /* (n,) position of the block of a column */
    int *sfirst;                    /* (ns + 1,) */
    int64_t *rptr;                  /* (ns + 1,) */
    int *rows;                      /* rows below the diagonal blocks, ascending */
    int *rtail;                     /* (ns,) first entry of a supernode's rows that lies in the tail (relative) */
    int64_t *xptr;                  /* (ns + 1,) values; xptr[ns] is the tail */
    int64_t nx;                     /* length of the value array */
    int *col2super;                 /* (n,) ns for the tail */
    int64_t *uptr;                  /* (ns + 1,) updates of supernode K: (uj, ufrom, uto) */
    int *uj, *ufrom, *uto;
    int nlev;
    int *levptr, *levsuper;         /* supernodes by height in the elimination tree */
    double *levwork;                /* (nlev,) modelled nanoseconds of a level */
    int max_nc, max_nr;
    int64_t max_gather;             /* largest panel gathered for a supernode wide enough for the dense kernels */
    int64_t max_update;
    double nnz;                     /* entries of L, head trapezoids and tail triangle */
} mm_pattern;

#define MM_WIDE 4                   /* supernodes at least this wide go through BLAS */
#define MM_STEP 24                  /* columns of the tail updated at once */
#define MM_PANEL 128                /* columns of the inverse gathered at once for them */

static void mm_pattern_free(mm_pattern *P) {
    free(P->perm); free(P->bcol); free(P->colblk); free(P->sfirst); free(P->rptr); free(P->rows); free(P->rtail);
    free(P->xptr); free(P->col2super); free(P->uptr); free(P->uj); free(P->ufrom); free(P->uto); free(P->levptr); free(P->levwork);
    free(P->levsuper);
    memset(P, 0, sizeof(*P));
}

/* nanoseconds of a supernode in factorisation and inverse: indexed entries once, dense arithmetic per column */
static double mm_cost(double nc, double nr) {
    return 60.0 + 1.3 * nr * nr + nc * (0.09 * nr * nr + 3.0 * nr) + 0.15 * nc * nc * (nc + nr);
}

static double mm_tail_cost(double nt) { return 0.035 * nt * nt * nt + 1.0 * nt * nt; }

static int mm_int_cmp(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* cut: < 0 by cost; otherwise the number of pivots kept in the head */
static int mm_symbolic(const mm_order *o, const int *weight, int cut, mm_pattern *P)
{
    int nb = o->n, np = o->npiv, c, p, i, j, g, ng, rc = 1, pos;
    int64_t q, s, tot;
    int *pivof = malloc((nb + 1) * sizeof(int)), *where = malloc((nb + 1) * sizeof(int));
    int *nc = calloc(np + 1, sizeof(int)), *nr = calloc(np + 1, sizeof(int));
    int *parent = malloc((np + 1) * sizeof(int)), *child = malloc((np + 1) * sizeof(int));
    int *sib = malloc((np + 1) * sizeof(int)), *post = malloc((np + 1) * sizeof(int));
    int *stack = malloc((np + 1) * sizeof(int)), *gfirst = malloc((np + 1) * sizeof(int));
    int *gnc = malloc((np + 1) * sizeof(int)), *lev = NULL, *cnt = NULL;
    double *tcost = malloc((np + 2) * sizeof(double));
    memset(P, 0, sizeof(*P));
    if (!pivof || !where || !nc || !nr || !parent || !child || !sib || !post || !stack || !gfirst || !gnc || !tcost)
        goto done;
    P->nb = nb;
    for (p = 0; p < np; p++) {
        for (i = o->pstart[p]; i < o->pstart[p + 1]; i++) {
            pivof[o->order[i]] = p;
            where[o->order[i]] = i;
            nc[p] += weight[o->order[i]];
        }
        for (q = o->sptr[p]; q < o->sptr[p + 1]; q++) nr[p] += weight[o->sidx[q]];
        P->n += nc[p];
    }
    /* where the tail starts */
    {
        double headcost = 0, best, cost;
        int left = P->n, limit = np - (o->dense && np ? 1 : 0), bestc = 0;
        best = mm_tail_cost(left);
        for (c = 1; c <= limit; c++) {
            headcost += mm_cost(nc[c - 1], nr[c - 1]);
            left -= nc[c - 1];
            cost = headcost + mm_tail_cost(left);
            if (cost <= best) { best = cost; bestc = c; }
        }
        c = cut < 0 ? bestc : (cut < limit ? cut : limit);
    }
    /* elimination forest of the head */
    for (p = 0; p < c; p++) child[p] = -1;
    for (p = c - 1; p >= 0; p--) {
        int first = nb;
        for (q = o->sptr[p]; q < o->sptr[p + 1]; q++)
            if (where[o->sidx[q]] < first) first = where[o->sidx[q]];
        parent[p] = first < nb ? pivof[o->order[first]] : np;
        if (parent[p] >= c) parent[p] = np;
    }
    for (p = c - 1; p >= 0; p--) if (parent[p] < np) { sib[p] = child[parent[p]]; child[parent[p]] = p; }
    g = 0;
    for (p = 0; p < c; p++) {
        int top = 0;
        if (parent[p] < np) continue;
        stack[top++] = p;
        while (top) {
            i = stack[top - 1];
            if (child[i] >= 0) { j = child[i]; child[i] = sib[j]; stack[top++] = j; }
            else { post[g++] = i; top--; }
        }
    }
    /* merge children into parents; a group is a run of the postorder whose last pivot has its structure */
    ng = 0;
    for (i = 0; i < c; i++) {
        p = post[i];
        gfirst[ng] = i;
        gnc[ng] = nc[p];
        ng++;
        while (ng > 1) {
            int a = ng - 2, b = ng - 1;
            int top = post[gfirst[b] - 1];          /* last pivot of the group before */
            if (parent[top] != p) break;
            if (mm_cost(gnc[a] + gnc[b], nr[p]) >= mm_cost(gnc[a], nr[top]) + mm_cost(gnc[b], nr[p])) break;
            gnc[a] += gnc[b];
            ng--;
        }
    }
    gfirst[ng] = c;
    /* final numbering */
    P->ns = ng;
    P->perm = malloc((nb + 1) * sizeof(int));
    P->bcol = malloc((nb + 2) * sizeof(int));
    P->colblk = malloc((P->n + 1) * sizeof(int));
    P->sfirst = malloc((ng + 2) * sizeof(int));
    P->rptr = malloc((ng + 2) * sizeof(int64_t));
    P->rtail = malloc((ng + 1) * sizeof(int));
    P->xptr = malloc((ng + 2) * sizeof(int64_t));
    P->col2super = malloc((P->n + 1) * sizeof(int));
    P->uptr = calloc(ng + 2, sizeof(int64_t));
    P->levptr = calloc(ng + 3, sizeof(int));
    P->levsuper = malloc((ng + 1) * sizeof(int));
    lev = calloc(ng + 2, sizeof(int));
    cnt = calloc(ng + 2, sizeof(int));
    if (!P->perm || !P->bcol || !P->colblk || !P->sfirst || !P->rptr || !P->rtail || !P->xptr || !P->col2super
        || !P->uptr || !P->levptr || !P->levsuper || !lev || !cnt) goto done;
    pos = 0;
    P->bcol[0] = 0;
    for (g = 0; g < ng; g++) {
        P->sfirst[g] = P->bcol[pos];
        for (i = gfirst[g]; i < gfirst[g + 1]; i++)
            for (j = o->pstart[post[i]]; j < o->pstart[post[i] + 1]; j++) {
                P->perm[pos] = o->order[j];
                P->bcol[pos + 1] = P->bcol[pos] + weight[o->order[j]];
                pos++;
            }
    }
    P->sfirst[ng] = P->t0 = P->bcol[pos];
    for (p = c; p < np; p++)
        for (j = o->pstart[p]; j < o->pstart[p + 1]; j++) {
            P->perm[pos] = o->order[j];
            P->bcol[pos + 1] = P->bcol[pos] + weight[o->order[j]];
            pos++;
        }
    P->nt = P->n - P->t0;
    for (i = 0; i < nb; i++) {
        where[P->perm[i]] = i;
        for (j = P->bcol[i]; j < P->bcol[i + 1]; j++) P->colblk[j] = i;
    }
    for (g = 0; g < ng; g++) for (j = P->sfirst[g]; j < P->sfirst[g + 1]; j++) P->col2super[j] = g;
    for (j = P->t0; j < P->n; j++) P->col2super[j] = ng;
    P->rptr[0] = 0;
    for (g = 0; g < ng; g++) P->rptr[g + 1] = P->rptr[g] + nr[post[gfirst[g + 1] - 1]];
    P->rows = malloc((P->rptr[ng] + 1) * sizeof(int));
    if (!P->rows) goto done;
    tot = 0;
    P->max_gather = P->max_update = 0;
    for (g = 0; g < ng; g++) {
        int top = post[gfirst[g + 1] - 1], ncg = P->sfirst[g + 1] - P->sfirst[g], nrg, run;
        int *r = P->rows + P->rptr[g];
        s = 0;
        for (q = o->sptr[top]; q < o->sptr[top + 1]; q++)
            for (j = P->bcol[where[o->sidx[q]]]; j < P->bcol[where[o->sidx[q]] + 1]; j++) r[s++] = j;
        nrg = (int)s;
        qsort(r, nrg, sizeof(int), mm_int_cmp);
        for (i = 0; i < nrg && r[i] < P->t0; i++) {}
        P->rtail[g] = i;
        P->xptr[g] = tot;
        tot += (int64_t)ncg * (ncg + nrg);
        P->nnz += 0.5 * ncg * (ncg + 1.0) + (double)ncg * nrg;
        if (ncg > P->max_nc) P->max_nc = ncg;
        if (nrg > P->max_nr) P->max_nr = nrg;
        if (ncg >= MM_WIDE) {
            int64_t z = (int64_t)nrg * (nrg < MM_PANEL ? nrg : MM_PANEL);
            if (z > P->max_gather) P->max_gather = z;
        }
        for (i = 0; i < nrg; i = run) {
            int K = P->col2super[r[i]];
            for (run = i; run < nrg && P->col2super[r[run]] == K; run++) {}
            if (ncg >= MM_WIDE) {
                int64_t z = (int64_t)(nrg - i) * (K < ng || run - i < MM_STEP ? run - i : MM_STEP);
                if (z > P->max_update) P->max_update = z;
            }
            if (K < ng) {
                P->uptr[K + 1]++;
                if (lev[K] < lev[g] + 1) lev[K] = lev[g] + 1;
            }
        }
    }
    P->xptr[ng] = tot;
    P->nx = tot + (int64_t)P->nt * P->nt;
    P->nnz += 0.5 * P->nt * (P->nt + 1.0);
    for (g = 0; g < ng; g++) P->uptr[g + 1] += P->uptr[g];
    P->uj = malloc((P->uptr[ng] + 1) * sizeof(int));
    P->ufrom = malloc((P->uptr[ng] + 1) * sizeof(int));
    P->uto = malloc((P->uptr[ng] + 1) * sizeof(int));
    if (!P->uj || !P->ufrom || !P->uto) goto done;
    for (g = 0; g < ng; g++) {
        int nrg = (int)(P->rptr[g + 1] - P->rptr[g]), run;
        int *r = P->rows + P->rptr[g];
        for (i = 0; i < nrg; i = run) {
            int K = P->col2super[r[i]];
            for (run = i; run < nrg && P->col2super[r[run]] == K; run++) {}
            if (K == ng) break;
            q = P->uptr[K] + cnt[K]++;
            P->uj[q] = g;
            P->ufrom[q] = i;
            P->uto[q] = run;
        }
    }
    for (g = 0; g < ng; g++) if (lev[g] + 1 > P->nlev) P->nlev = lev[g] + 1;
    for (g = 0; g < ng; g++) P->levptr[lev[g] + 1]++;
    for (i = 0; i < P->nlev; i++) P->levptr[i + 1] += P->levptr[i];
    P->levwork = calloc(P->nlev + 1, sizeof(double));
    if (!P->levwork) goto done;
    for (g = 0; g < ng; g++)
        P->levwork[lev[g]] += mm_cost(P->sfirst[g + 1] - P->sfirst[g], (double)(P->rptr[g + 1] - P->rptr[g]));
    memset(cnt, 0, (ng + 2) * sizeof(int));
    for (g = 0; g < ng; g++) P->levsuper[P->levptr[lev[g]] + cnt[lev[g]]++] = g;
    rc = 0;
done:
    free(pivof); free(where); free(nc); free(nr); free(parent); free(child); free(sib); free(post); free(stack);
    free(gfirst); free(gnc); free(tcost); free(lev); free(cnt);
    if (rc) mm_pattern_free(P);
    return rc;
}
#endif
