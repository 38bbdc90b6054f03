/* Approximate minimum degree on a quotient graph that may start with elements.
 *
 * Written from Amestoy, Davis and Duff, "An approximate minimum degree ordering algorithm", SIAM J. Matrix
 * Anal. Appl. 17 (1996): element absorption (also aggressive), mass elimination, supervariables, approximate
 * external degrees.  Two additions: variables carry weights (the columns of a level), and the graph may be
 * given partly as *elements* that are already eliminated (levels of the leaf factor with their neighbours),
 * so that the clique each of them leaves behind is never formed.
 */
#ifndef MM_ORDERING_H
#define MM_ORDERING_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int n;            /* variables */
    int npiv;         /* pivots; the last one may be a dense remainder with an empty structure */
    int *order;       /* (n,) variables in elimination order */
    int *pstart;      /* (npiv + 1,) pivot -> range of `order` */
    int64_t *sptr;    /* (npiv + 1,) */
    int *sidx;        /* variables below each pivot, unsorted */
    int dense;        /* 1: the last pivot is the remainder taken as dense */
} mm_order;

typedef struct { int *v; int64_t len, cap; int bad; } mm_ivec;

static inline void mm_push(mm_ivec *a, int x) {
    if (a->len == a->cap) {
        int64_t cap = a->cap ? a->cap + a->cap / 2 : 1024;
        int *v = (int *)realloc(a->v, (size_t)cap * sizeof(int));
        if (!v) { a->bad = 1; return; }
        a->v = v;
        a->cap = cap;
    }
    a->v[a->len++] = x;
}

static void mm_order_free(mm_order *o) {
    free(o->order); free(o->pstart); free(o->sptr); free(o->sidx);
    memset(o, 0, sizeof(*o));
}

/* aptr/aidx: symmetric adjacency without diagonal, each pair listed from both sides; eptr/eidx: ne0 elements.
 * stop: the remainder becomes one dense pivot when a pivot's structure reaches stop * (what remains).
 * Returns 0, or 1 when out of memory. */
static int mm_minimum_degree(int n, const int *weight, const int64_t *aptr, const int *aidx, int ne0,
                             const int64_t *eptr, const int *eidx, double stop, mm_order *out)
{
    int i, j, e, p, rc = 1, mindeg = 0, nel = 0, total = 0, npiv = 0, fill = 0;
    int64_t q, s, nadj = n ? aptr[n] : 0, nelt = ne0 ? eptr[ne0] : 0;
    int ntot = ne0 + n;
    int wflg = 1;
    mm_ivec pool = {0}, st = {0}, lp = {0};
    int *nv = malloc((n + 1) * sizeof(int)), *deg = malloc((n + 1) * sizeof(int));
    int *next = malloc((n + 1) * sizeof(int)), *prev = malloc((n + 1) * sizeof(int));
    int *memnext = malloc((n + 1) * sizeof(int)), *memlast = malloc((n + 1) * sizeof(int));
    int *elen = calloc(n + 1, sizeof(int)), *llen = calloc(n + 1, sizeof(int));
    int64_t *lptr = malloc((n + 1) * sizeof(int64_t));
    int *iw = malloc((nadj + nelt + n + 1) * sizeof(int));
    int64_t *ebeg = malloc((ntot + 1) * sizeof(int64_t));
    int *ecnt = calloc(ntot + 1, sizeof(int)), *edeg = calloc(ntot + 1, sizeof(int));
    int *w = calloc(ntot + n + 1, sizeof(int)), *mark = calloc(ntot + n + 1, sizeof(int));
    char *alive = calloc(ntot + 1, 1);
    int *head = NULL, *hhead = malloc((n + 1) * sizeof(int)), *hnext = malloc((n + 1) * sizeof(int));
    unsigned *hash = malloc((n + 1) * sizeof(unsigned));
    int tag = 0;
    memset(out, 0, sizeof(*out));
    out->n = n;
    out->order = malloc((n + 1) * sizeof(int));
    out->pstart = malloc((n + 2) * sizeof(int));
    out->sptr = malloc((n + 2) * sizeof(int64_t));
    if (!nv || !deg || !next || !prev || !memnext || !memlast || !elen || !llen || !lptr || !iw || !ebeg || !ecnt
        || !edeg || !w || !mark || !alive || !hhead || !hnext || !hash || !out->order || !out->pstart || !out->sptr)
        goto done;
    for (i = 0; i < n; i++) total += weight[i];
    head = malloc((total + 2) * sizeof(int));
    if (!head) goto done;
    for (i = 0; i <= total; i++) head[i] = -1;
    for (i = 0; i < n; i++) {
        nv[i] = weight[i];
        memnext[i] = -1;
        memlast[i] = i;
        hhead[i] = -1;
    }
    /* element lists of the variables, then their adjacency */
    for (e = 0; e < ne0; e++) {
        if (eptr[e + 1] - eptr[e] < 2) continue;
        alive[e] = 1;
        for (q = eptr[e]; q < eptr[e + 1]; q++) elen[eidx[q]]++;
    }
    s = 0;
    for (i = 0; i < n; i++) {
        lptr[i] = s;
        s += elen[i] + (aptr[i + 1] - aptr[i]) + 1;
        llen[i] = elen[i];
        elen[i] = 0;
    }
    for (e = 0; e < ne0; e++) {
        if (!alive[e]) continue;
        ebeg[e] = pool.len;
        for (q = eptr[e]; q < eptr[e + 1]; q++) {
            i = eidx[q];
            iw[lptr[i] + elen[i]++] = e;
            mm_push(&pool, i);
            edeg[e] += nv[i];
        }
        ecnt[e] = (int)(pool.len - ebeg[e]);
        if (pool.bad) goto done;
    }
    /* first degrees: exact, counted through the elements */
    for (i = 0; i < n; i++) {
        int d = 0;
        tag++;
        mark[ntot + i] = tag;
        for (q = 0; q < elen[i]; q++) {
            e = iw[lptr[i] + q];
            for (s = ebeg[e]; s < ebeg[e] + ecnt[e]; s++) {
                j = pool.v[s];
                if (mark[ntot + j] != tag) { mark[ntot + j] = tag; d += weight[j]; }
            }
        }
        for (q = aptr[i]; q < aptr[i + 1]; q++) {
            j = aidx[q];
            if (j == i) continue;
            iw[lptr[i] + llen[i]++] = j;
            if (mark[ntot + j] != tag) { mark[ntot + j] = tag; d += weight[j]; }
        }
        deg[i] = d;
    }
    for (i = n - 1; i >= 0; i--) {
        next[i] = head[deg[i]];
        prev[i] = -1;
        if (next[i] >= 0) prev[next[i]] = i;
        head[deg[i]] = i;
    }
    out->sptr[0] = 0;
    out->pstart[0] = 0;
    while (nel < total) {
        int nvp, dp = 0, me, nleft;
        while (mindeg < total && head[mindeg] < 0) mindeg++;
        p = head[mindeg];
        head[mindeg] = next[p];
        if (next[p] >= 0) prev[next[p]] = -1;
        nvp = nv[p];
        nv[p] = -nvp;
        lp.len = 0;
        for (q = lptr[p] + elen[p]; q < lptr[p] + llen[p]; q++) {
            i = iw[q];
            if (nv[i] <= 0) continue;
            dp += nv[i]; nv[i] = -nv[i];
            mm_push(&lp, i);
        }
        for (q = lptr[p]; q < lptr[p] + elen[p]; q++) {
            e = iw[q];
            if (!alive[e]) continue;
            for (s = ebeg[e]; s < ebeg[e] + ecnt[e]; s++) {
                i = pool.v[s];
                if (nv[i] <= 0) continue;
                dp += nv[i]; nv[i] = -nv[i];
                mm_push(&lp, i);
            }
            alive[e] = 0;
        }
        for (q = 0; q < lp.len; q++) {              /* out of the degree lists */
            i = lp.v[q];
            if (next[i] >= 0) prev[next[i]] = prev[i];
            if (prev[i] >= 0) next[prev[i]] = next[i]; else head[deg[i]] = next[i];
        }
        me = ne0 + p;
        nleft = total - nel;
        if (stop > 0 && dp + nvp >= stop * nleft && nleft > nvp) {
            /* what remains is nearly dense: one last pivot */
            for (i = 0; i < n; i++) if (nv[i] != 0) { for (j = i; j >= 0; j = memnext[j]) out->order[fill++] = j; }
            npiv++;
            out->pstart[npiv] = fill;
            out->sptr[npiv] = st.len;
            out->dense = 1;
            nel = total;
            break;
        }
        nel += nvp;
        /* w[e] - wflg = |L_e \ L_p| */
        if (wflg > 1 << 30) { for (e = 0; e < ntot; e++) w[e] = 0; wflg = 1; }
        for (q = 0; q < lp.len; q++) {
            i = lp.v[q];
            for (s = lptr[i]; s < lptr[i] + elen[i]; s++) {
                e = iw[s];
                if (!alive[e]) continue;
                if (w[e] >= wflg) w[e] += nv[i]; else w[e] = edeg[e] + wflg + nv[i];   /* nv[i] < 0 */
            }
        }
        for (j = p; j >= 0; j = memnext[j]) out->order[fill++] = j;
        for (q = 0; q < lp.len; q++) {
            int64_t b, pn, p3;
            int d = 0, ne_ = 0;
            unsigned h = 0;
            i = lp.v[q];
            b = pn = lptr[i];
            for (s = b; s < b + elen[i]; s++) {
                e = iw[s];
                if (!alive[e]) continue;
                if (w[e] > wflg) { d += w[e] - wflg; iw[pn++] = e; h += (unsigned)e; ne_++; }
                else alive[e] = 0;                   /* aggressive absorption: L_e is inside L_p */
            }
            p3 = pn;
            for (s = b + elen[i]; s < b + llen[i]; s++) {
                j = iw[s];
                if (nv[j] <= 0) continue;            /* in L_p, eliminated or merged */
                d += nv[j];
                iw[pn++] = j;
                h += (unsigned)(ntot + j);
            }
            if (pn == b) {                           /* mass elimination */
                nvp += -nv[i];
                nel += -nv[i];
                dp += nv[i];
                nv[i] = 0;
                for (j = i; j >= 0; j = memnext[j]) out->order[fill++] = j;
                lp.v[q] = -1;
                continue;
            }
            if (d < deg[i]) deg[i] = d;
            iw[pn] = iw[p3];
            iw[p3] = iw[b];
            iw[b] = me;
            elen[i] = ne_ + 1;
            llen[i] = (int)(pn + 1 - b);
            hash[i] = (h + (unsigned)me) % (unsigned)n;
            hnext[i] = hhead[hash[i]];
            hhead[hash[i]] = i;
        }
        alive[me] = 1;
        /* indistinguishable variables */
        for (q = 0; q < lp.len; q++) {
            int cur, before;
            if (lp.v[q] < 0) continue;
            i = hhead[hash[lp.v[q]]];
            hhead[hash[lp.v[q]]] = -1;
            for (cur = i; cur >= 0 && hnext[cur] >= 0; cur = hnext[cur]) {
                if (nv[cur] == 0) continue;
                tag++;
                for (s = lptr[cur]; s < lptr[cur] + elen[cur]; s++) mark[iw[s]] = tag;
                for (s = lptr[cur] + elen[cur]; s < lptr[cur] + llen[cur]; s++) mark[ntot + iw[s]] = tag;
                before = cur;
                for (j = hnext[cur]; j >= 0; j = hnext[j]) {
                    int same = elen[j] == elen[cur] && llen[j] == llen[cur];
                    for (s = lptr[j]; same && s < lptr[j] + elen[j]; s++) same = mark[iw[s]] == tag;
                    for (s = lptr[j] + elen[j]; same && s < lptr[j] + llen[j]; s++)
                        same = mark[ntot + iw[s]] == tag;
                    if (same) {
                        nv[cur] += nv[j];
                        nv[j] = 0;
                        memnext[memlast[cur]] = j;
                        memlast[cur] = memlast[j];
                        hnext[before] = hnext[j];
                    } else before = j;
                }
            }
        }
        /* close the element */
        ebeg[me] = pool.len;
        for (q = 0; q < lp.len; q++) {
            int d;
            i = lp.v[q];
            if (i < 0 || nv[i] == 0) continue;
            nv[i] = -nv[i];
            mm_push(&pool, i);
            d = deg[i] + dp - nv[i];
            if (d > total - nel - nv[i]) d = total - nel - nv[i];
            if (d < 0) d = 0;
            deg[i] = d;
            next[i] = head[d];
            prev[i] = -1;
            if (next[i] >= 0) prev[next[i]] = i;
            head[d] = i;
            if (d < mindeg) mindeg = d;
            for (j = i; j >= 0; j = memnext[j]) mm_push(&st, j);
        }
        ecnt[me] = (int)(pool.len - ebeg[me]);
        edeg[me] = dp;
        nv[p] = 0;
        wflg += total + 1;
        npiv++;
        out->pstart[npiv] = fill;
        out->sptr[npiv] = st.len;
        if (pool.bad || st.bad || lp.bad) goto done;
    }
    out->npiv = npiv;
    out->sidx = st.v;
    st.v = NULL;
    rc = 0;
done:
    free(nv); free(deg); free(next); free(prev); free(memnext); free(memlast); free(elen); free(llen); free(lptr);
    free(iw); free(ebeg); free(ecnt); free(edeg); free(w); free(mark); free(alive); free(head); free(hhead);
    free(hnext); free(hash); free(pool.v); free(st.v); free(lp.v);
    if (rc) mm_order_free(out);
    return rc;
}
#endif
