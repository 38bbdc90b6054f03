/* Structure of a model with several grouping factors: leaf factor, rest blocks, order, storage. */
#ifndef MM_BLOCKED_SETUP_H
#define MM_BLOCKED_SETUP_H

#include "cholesky.h"

typedef struct {            /* cross-products of two factors, block CSR over the levels of fa */
    int fa, fb;
    const int64_t *indptr;
    const int *indices;
    const double *data;     /* (nnz, k_fa, k_fb) */
} mm_pair;

typedef struct {            /* known precision between the levels of one factor, symmetric CSC */
    const int64_t *indptr;
    const int *indices;
    const double *data;
    double logdet_covariance;
} mm_prec;

typedef struct {
    /* sizes */
    int F, leaf, p1, m0, k0, nb, n, scalar, dense, nthreads, rcap, kmax;
    const int *k, *koff;
    int *m, *bstart;                /* levels of a factor; its first block (rest factors, by level) */
    mm_blas bl;
    mm_pattern P;
    mm_cholwork W;
    int *pos;                       /* (nb,) position of block bstart[f] + level */
    int *bfac;                      /* (nb,) factor of the block at a position */
    /* leaf */
    const double *A0, *R0, *XX;
    /* coupling leaf x rest, by leaf (positions ascending) and by rest block (leaves ascending) */
    int64_t *lptr, *lval, *cptr, *cent;
    int *lcol, *lblk, *cleaf;
    double *B;
    double *Bd;                     /* dense copy (m0 k0, n), row-major */
    /* rest */
    int64_t *aoff;                  /* (nb,) diagonal blocks in AR by position */
    double *AR, *RR;                /* RR (n, p1) by position */
    int64_t *pptr, *pval;           /* neighbours of a block: value offset, transposed or not */
    int *pblk;
    char *ptr_;
    double *PV;
    int64_t *qptr;                  /* precision by position: (i >= j, value) */
    int *qblk;
    double *qval;
    char *hasprec;
    double *preclog;
    /* known precision factored on its own, made at the first singular point that needs it */
    mm_pattern *PP;
    double **Px;
    mm_cholwork *PW;
    /* work */
    double *x, *H, *Hs, *N, *HR, *ls, *R, *C, *Mx, *U, *LU, *tl, *gl, *cl, *cr, *chat, *bleaf, *wleaf, *brest,
        *wrest, *Xw, *colacc, *chunk, *batch, *Wd, *Zd, *Yd, *lraw;
    double **w;                     /* per thread (n, kmax) */
    int nbatch;
    int head_cols;
    double density;
    int plain;                      /* cross-products may be indefinite: no rotations for steep levels */
    int64_t point, points;          /* number of the point whose factor is held, 0 for none; points counted so far */
} mm_model;

#define MM_CHUNKS 64
#define MM_BATCH 64

static void mm_model_free(mm_model *M) {
    free(M->m); free(M->bstart); free(M->pos); free(M->bfac); free(M->lptr); free(M->lval); free(M->cptr);
    free(M->cent); free(M->lcol); free(M->lblk); free(M->cleaf); free(M->B); free(M->Bd); free(M->aoff); free(M->AR);
    free(M->RR); free(M->pptr); free(M->pval); free(M->pblk); free(M->ptr_); free(M->PV); free(M->qptr);
    free(M->qblk); free(M->qval);
    if (M->PP) for (int f = 0; f < M->F; f++) {
        mm_pattern_free(&M->PP[f]);
        mm_cholwork_free(&M->PW[f]);
        free(M->Px[f]);
    }
    free(M->PP); free(M->Px); free(M->PW); free(M->hasprec); free(M->preclog);
    free(M->x); if (M->Hs != M->H) free(M->Hs);
    free(M->H); free(M->N); free(M->HR); free(M->ls); free(M->R); free(M->C); free(M->Mx);
    free(M->U); free(M->LU); free(M->tl); free(M->gl); free(M->cl); free(M->cr); free(M->chat); free(M->bleaf);
    free(M->wleaf); free(M->brest); free(M->wrest); free(M->Xw); free(M->colacc); free(M->chunk); free(M->batch);
    free(M->Wd); free(M->Zd); free(M->Yd); free(M->lraw);
    if (M->w) for (int t = 0; t < M->nthreads; t++) free(M->w[t]);
    free(M->w);
    mm_cholwork_free(&M->W);
    mm_pattern_free(&M->P);
    memset(M, 0, sizeof(*M));
}

static double *mm_dbl(int64_t n) { return (double *)calloc((size_t)(n > 0 ? n : 1), sizeof(double)); }
static int *mm_int(int64_t n) { return (int *)calloc((size_t)(n > 0 ? n : 1), sizeof(int)); }
static int64_t *mm_i64(int64_t n) { return (int64_t *)calloc((size_t)(n > 0 ? n : 1), sizeof(int64_t)); }

/* share of the rest reached by one rest block, from a fixed sample of blocks */
static double mm_sample_density(int nb, const int64_t *vptr, const int *vel, const int64_t *eptr, const int *eidx,
                                const int64_t *aptr)
{
    int *mark = mm_int(nb), ns = nb < 48 ? nb : 48, tag = 0;
    double sum = 0;
    if (!mark) return 1.0;
    for (int s = 0; s < ns; s++) {
        int i = (int)(((int64_t)s * nb) / ns), d = 0;
        tag++;
        for (int64_t q = vptr[i]; q < vptr[i + 1]; q++)
            for (int64_t r = eptr[vel[q]]; r < eptr[vel[q] + 1]; r++)
                if (mark[eidx[r]] != tag) { mark[eidx[r]] = tag; d++; }
        d += (int)(aptr[i + 1] - aptr[i]);
        sum += d < nb ? d : nb;
    }
    free(mark);
    return ns ? sum / ns / nb : 0.0;
}

/* cut: < 0 by cost; 0 everything dense; otherwise that many pivots in the head.  Returns 0, 1 out of memory. */
static int mm_setup(mm_model *M, int F, const int *k, const int *koff, const int *m, int leaf, int p1, int rcap,
                    int npairs, const mm_pair *pairs, const mm_prec *prec, const double *const *A,
                    const double *const *ZX, const double *XX, int nthreads, int cut)
{
    int f, g, i, j, l, e, rc = 1, nb = 0, nrest = 0;
    int64_t q, nl = 0, na = 0, nlv = 0, s;
    int64_t *eptr = NULL, *aptr = NULL, *fillp = NULL, *vptr = NULL;
    int *eidx = NULL, *aidx = NULL, *vel = NULL, *weight = NULL;
    const double **src = NULL;
    char *tr = NULL;
    mm_order o;
    memset(&o, 0, sizeof(o));
    M->F = F; M->k = k; M->koff = koff; M->leaf = leaf; M->p1 = p1; M->rcap = rcap;
    M->nthreads = nthreads;
    M->m0 = leaf >= 0 ? m[leaf] : 0;
    M->k0 = leaf >= 0 ? k[leaf] : 0;
    M->A0 = leaf >= 0 ? A[leaf] : NULL;
    M->R0 = leaf >= 0 ? ZX[leaf] : NULL;
    M->XX = XX;
    M->m = mm_int(F); M->bstart = mm_int(F + 1); M->hasprec = calloc(F + 1, 1); M->preclog = mm_dbl(F);
    M->PP = calloc(F + 1, sizeof(mm_pattern)); M->Px = calloc(F + 1, sizeof(double *));
    M->PW = calloc(F + 1, sizeof(mm_cholwork));
    if (!M->m || !M->bstart || !M->hasprec || !M->preclog || !M->PP || !M->Px || !M->PW) goto done;
    M->scalar = leaf < 0 || k[leaf] == 1;
    M->kmax = 1;
    for (f = 0; f < F; f++) {
        M->m[f] = m[f];
        M->bstart[f] = nb;
        if (k[f] > M->kmax) M->kmax = k[f];
        if (f == leaf) continue;
        if (k[f] != 1) M->scalar = 0;
        nb += m[f];
        nrest++;
        M->hasprec[f] = prec[f].indptr != NULL;
        M->preclog[f] = M->hasprec[f] ? k[f] * prec[f].logdet_covariance : 0.0;
    }
    M->nb = nb;
    weight = mm_int(nb); M->bfac = mm_int(nb); M->pos = mm_int(nb); M->aoff = mm_i64(nb + 1);
    eptr = mm_i64(M->m0 + 1); aptr = mm_i64(nb + 1); vptr = mm_i64(nb + 1);
    fillp = mm_i64((M->m0 > nb ? M->m0 : nb) + 1);
    if (!weight || !M->bfac || !M->pos || !M->aoff || !eptr || !aptr || !vptr || !fillp) goto done;
    for (f = 0; f < F; f++) if (f != leaf) for (i = 0; i < m[f]; i++) weight[M->bstart[f] + i] = k[f];
    /* ---- graph: leaf levels as elements, pairs of rest levels and precision entries as edges */
    for (e = 0; e < npairs; e++) {
        const mm_pair *p = &pairs[e];
        for (i = 0; i < m[p->fa]; i++)
            for (q = p->indptr[i]; q < p->indptr[i + 1]; q++) {
                if (p->fa == leaf) eptr[i + 1]++;
                else if (p->fb == leaf) eptr[p->indices[q] + 1]++;
                else { aptr[M->bstart[p->fa] + i + 1]++; aptr[M->bstart[p->fb] + p->indices[q] + 1]++; }
            }
    }
    for (f = 0; f < F; f++) if (f != leaf && M->hasprec[f])
        for (i = 0; i < m[f]; i++)
            for (q = prec[f].indptr[i]; q < prec[f].indptr[i + 1]; q++)
                if (prec[f].indices[q] != i) aptr[M->bstart[f] + i + 1]++;
    for (l = 0; l < M->m0; l++) eptr[l + 1] += eptr[l];
    for (i = 0; i < nb; i++) aptr[i + 1] += aptr[i];
    nl = eptr[M->m0];
    na = aptr[nb];
    eidx = mm_int(nl); aidx = mm_int(na); vel = mm_int(nl);
    src = calloc(nl + 1, sizeof(double *)); tr = calloc(nl + 1, 1);
    if (!eidx || !aidx || !vel || !src || !tr) goto done;
    memcpy(fillp, eptr, (M->m0 + 1) * sizeof(int64_t));
    for (e = 0; e < npairs; e++) {
        const mm_pair *p = &pairs[e];
        int64_t kk = (int64_t)k[p->fa] * k[p->fb];
        if (p->fa != leaf && p->fb != leaf) continue;
        for (i = 0; i < m[p->fa]; i++)
            for (q = p->indptr[i]; q < p->indptr[i + 1]; q++) {
                int isa = p->fa == leaf;
                l = isa ? i : p->indices[q];
                s = fillp[l]++;
                eidx[s] = isa ? M->bstart[p->fb] + p->indices[q] : M->bstart[p->fa] + i;
                src[s] = p->data + q * kk;
                tr[s] = !isa;                        /* block stored rest x leaf */
            }
    }
    memcpy(fillp, aptr, (nb + 1) * sizeof(int64_t));
    for (e = 0; e < npairs; e++) {
        const mm_pair *p = &pairs[e];
        if (p->fa == leaf || p->fb == leaf) continue;
        for (i = 0; i < m[p->fa]; i++)
            for (q = p->indptr[i]; q < p->indptr[i + 1]; q++) {
                int a = M->bstart[p->fa] + i, b = M->bstart[p->fb] + p->indices[q];
                aidx[fillp[a]++] = b;
                aidx[fillp[b]++] = a;
            }
    }
    for (f = 0; f < F; f++) if (f != leaf && M->hasprec[f])
        for (i = 0; i < m[f]; i++)
            for (q = prec[f].indptr[i]; q < prec[f].indptr[i + 1]; q++)
                if (prec[f].indices[q] != i) aidx[fillp[M->bstart[f] + i]++] = M->bstart[f] + prec[f].indices[q];
    for (q = 0; q < nl; q++) vptr[eidx[q] + 1]++;
    for (i = 0; i < nb; i++) vptr[i + 1] += vptr[i];
    memcpy(fillp, vptr, (nb + 1) * sizeof(int64_t));
    for (l = 0; l < M->m0; l++) for (q = eptr[l]; q < eptr[l + 1]; q++) vel[fillp[eidx[q]]++] = l;
    /* ---- order */
    {
        int cols = 0;
        for (i = 0; i < nb; i++) cols += weight[i];
        M->density = nb ? mm_sample_density(nb, vptr, vel, eptr, eidx, aptr) : 0.0;
        if (cut == 0 || (cut < 0 && (cols <= 32 || M->density > 0.5))) {
            o.n = nb; o.npiv = nb ? 1 : 0; o.dense = 1;
            o.order = mm_int(nb); o.pstart = mm_int(2); o.sptr = mm_i64(2); o.sidx = mm_int(1);
            if (!o.order || !o.pstart || !o.sptr || !o.sidx) goto done;
            for (i = 0; i < nb; i++) o.order[i] = i;
            if (nb) o.pstart[1] = nb;
        } else if (M->density * nb * nb < 6e7) {
            /* cliques small enough to be written out: degrees are then nearly exact */
            int64_t *gptr = mm_i64(nb + 1);
            int *mark = mm_int(nb), bad = 0;
            mm_ivec gi = {0};
            int64_t zero = 0;
            if (!gptr || !mark) { free(gptr); free(mark); goto done; }
            for (i = 0; i < nb; i++) {
                mark[i] = i + 1;
                for (q = aptr[i]; q < aptr[i + 1]; q++)
                    if (mark[aidx[q]] != i + 1) { mark[aidx[q]] = i + 1; mm_push(&gi, aidx[q]); }
                for (q = vptr[i]; q < vptr[i + 1]; q++)
                    for (s = eptr[vel[q]]; s < eptr[vel[q] + 1]; s++) {
                        j = eidx[s];
                        if (mark[j] != i + 1) { mark[j] = i + 1; mm_push(&gi, j); }
                    }
                gptr[i + 1] = gi.len;
            }
            bad = gi.bad || mm_minimum_degree(nb, weight, gptr, gi.v, 0, &zero, NULL, 0.8, &o);
            free(gptr); free(mark); free(gi.v);
            if (bad) goto done;
        } else if (mm_minimum_degree(nb, weight, aptr, aidx, M->m0, eptr, eidx, 0.8, &o)) goto done;
    }
    if (mm_symbolic(&o, weight, cut, &M->P)) goto done;
    mm_order_free(&o);
    M->n = M->P.n;
    M->head_cols = M->P.t0;
    for (i = 0; i < nb; i++) M->pos[M->P.perm[i]] = i;
    for (f = 0; f < F; f++) if (f != leaf) for (i = 0; i < m[f]; i++) M->bfac[M->pos[M->bstart[f] + i]] = f;
    /* ---- coupling in the new order */
    M->lptr = mm_i64(M->m0 + 1); M->lval = mm_i64(nl + 1); M->lcol = mm_int(nl); M->lblk = mm_int(nl);
    M->cptr = mm_i64(nb + 1); M->cleaf = mm_int(nl); M->cent = mm_i64(nl);
    if (!M->lptr || !M->lval || !M->lcol || !M->lblk || !M->cptr || !M->cleaf || !M->cent) goto done;
    memcpy(M->lptr, eptr, (M->m0 + 1) * sizeof(int64_t));
    for (i = 0; i < nb; i++) M->cptr[M->pos[i] + 1] = vptr[i + 1] - vptr[i];
    for (i = 0; i < nb; i++) M->cptr[i + 1] += M->cptr[i];
    memcpy(fillp, M->cptr, (nb + 1) * sizeof(int64_t));
    for (l = 0; l < M->m0; l++)
        for (q = eptr[l]; q < eptr[l + 1]; q++) {
            s = fillp[M->pos[eidx[q]]]++;
            M->cleaf[s] = l;
            M->cent[s] = q;                          /* source entry for the moment */
        }
    memcpy(fillp, M->lptr, (M->m0 + 1) * sizeof(int64_t));
    for (j = 0; j < nb; j++)
        for (q = M->cptr[j]; q < M->cptr[j + 1]; q++) {
            s = fillp[M->cleaf[q]]++;
            M->lblk[s] = j;
            M->lcol[s] = M->P.bcol[j];
            M->lval[s] = M->cent[q];
            M->cent[q] = s;
        }
    for (q = 0; q < nl; q++) nlv += (int64_t)M->k0 * k[M->bfac[M->lblk[q]]];
    M->B = mm_dbl(nlv);
    if (!M->B) goto done;
    s = 0;
    for (q = 0; q < nl; q++) {
        int64_t from = M->lval[q];
        int kj = k[M->bfac[M->lblk[q]]], a, b;
        for (a = 0; a < M->k0; a++)
            for (b = 0; b < kj; b++)
                M->B[s + a * kj + b] = tr[from] ? src[from][b * M->k0 + a] : src[from][a * kj + b];
        M->lval[q] = s;
        s += (int64_t)M->k0 * kj;
    }
    M->lval[nl] = s;
    M->dense = M->P.ns == 0 && leaf >= 0 && nb > 0 && (double)nl > 0.25 * M->m0 * (double)nb;
    if (M->dense) {
        M->Bd = mm_dbl((int64_t)M->m0 * M->k0 * M->n);
        if (!M->Bd) goto done;
        for (l = 0; l < M->m0; l++)
            for (q = M->lptr[l]; q < M->lptr[l + 1]; q++) {
                int kj = k[M->bfac[M->lblk[q]]], a;
                for (a = 0; a < M->k0; a++)
                    memcpy(M->Bd + ((int64_t)l * M->k0 + a) * M->n + M->lcol[q], M->B + M->lval[q] + a * kj,
                           kj * sizeof(double));
            }
    }
    /* ---- rest: diagonal blocks, right-hand sides, pairs, precision */
    s = 0;
    for (i = 0; i < nb; i++) { M->aoff[i] = s; s += (int64_t)k[M->bfac[i]] * k[M->bfac[i]]; }
    M->AR = mm_dbl(s);
    M->RR = mm_dbl((int64_t)M->n * p1);
    if (!M->AR || !M->RR) goto done;
    for (f = 0; f < F; f++) if (f != leaf) for (i = 0; i < m[f]; i++) {
        j = M->pos[M->bstart[f] + i];
        memcpy(M->AR + M->aoff[j], A[f] + (int64_t)i * k[f] * k[f], k[f] * k[f] * sizeof(double));
        memcpy(M->RR + (int64_t)M->P.bcol[j] * p1, ZX[f] + (int64_t)i * k[f] * p1, (int64_t)k[f] * p1 * sizeof(double));
    }
    M->pptr = mm_i64(nb + 1); M->qptr = mm_i64(nb + 1);
    if (!M->pptr || !M->qptr) goto done;
    s = 0;
    for (e = 0; e < npairs; e++) {
        const mm_pair *p = &pairs[e];
        if (p->fa == leaf || p->fb == leaf) continue;
        for (i = 0; i < m[p->fa]; i++)
            for (q = p->indptr[i]; q < p->indptr[i + 1]; q++) {
                M->pptr[M->pos[M->bstart[p->fa] + i] + 1]++;
                M->pptr[M->pos[M->bstart[p->fb] + p->indices[q]] + 1]++;
                s += (int64_t)k[p->fa] * k[p->fb];
            }
    }
    for (i = 0; i < nb; i++) M->pptr[i + 1] += M->pptr[i];
    M->PV = mm_dbl(s);
    M->pblk = mm_int(M->pptr[nb]); M->pval = mm_i64(M->pptr[nb]); M->ptr_ = calloc(M->pptr[nb] + 1, 1);
    if (!M->PV || !M->pblk || !M->pval || !M->ptr_) goto done;
    memcpy(fillp, M->pptr, (nb + 1) * sizeof(int64_t));
    s = 0;
    for (e = 0; e < npairs; e++) {
        const mm_pair *p = &pairs[e];
        int64_t kk = (int64_t)k[p->fa] * k[p->fb];
        if (p->fa == leaf || p->fb == leaf) continue;
        for (i = 0; i < m[p->fa]; i++)
            for (q = p->indptr[i]; q < p->indptr[i + 1]; q++) {
                int a = M->pos[M->bstart[p->fa] + i], b = M->pos[M->bstart[p->fb] + p->indices[q]];
                memcpy(M->PV + s, p->data + q * kk, kk * sizeof(double));
                M->pblk[fillp[a]] = b; M->pval[fillp[a]] = s; M->ptr_[fillp[a]++] = 1;   /* block is a x b */
                M->pblk[fillp[b]] = a; M->pval[fillp[b]] = s; M->ptr_[fillp[b]++] = 0;
                s += kk;
            }
    }
    for (f = 0; f < F; f++) if (f != leaf && M->hasprec[f])
        for (i = 0; i < m[f]; i++)
            for (q = prec[f].indptr[i]; q < prec[f].indptr[i + 1]; q++) {
                int a = M->pos[M->bstart[f] + prec[f].indices[q]], b = M->pos[M->bstart[f] + i];
                if (a >= b) M->qptr[b + 1]++;
            }
    for (i = 0; i < nb; i++) M->qptr[i + 1] += M->qptr[i];
    M->qblk = mm_int(M->qptr[nb]); M->qval = mm_dbl(M->qptr[nb]);
    if (!M->qblk || !M->qval) goto done;
    memcpy(fillp, M->qptr, (nb + 1) * sizeof(int64_t));
    for (f = 0; f < F; f++) if (f != leaf && M->hasprec[f])
        for (i = 0; i < m[f]; i++)
            for (q = prec[f].indptr[i]; q < prec[f].indptr[i + 1]; q++) {
                int a = M->pos[M->bstart[f] + prec[f].indices[q]], b = M->pos[M->bstart[f] + i];
                if (a < b) continue;
                M->qblk[fillp[b]] = a;
                M->qval[fillp[b]++] = prec[f].data[q];
            }
    /* ---- work space */
    {
        int64_t mk = (int64_t)M->m0 * M->k0, n = M->n;
        int kmax = M->kmax;
        int64_t big = n * (p1 > rcap ? p1 : rcap);
        M->x = mm_dbl(M->P.nx);
        M->H = mm_dbl(mk * M->k0); M->Hs = M->k0 > 1 ? mm_dbl(mk * M->k0) : M->H; M->N = mm_dbl(mk * M->k0); M->HR = mm_dbl(mk * p1);
        M->ls = mm_dbl(n); M->R = mm_dbl(n * p1); M->C = mm_dbl(p1 * p1); M->Mx = mm_dbl(p1 * p1);
        M->U = mm_dbl(n * p1); M->LU = mm_dbl(big); M->tl = mm_dbl(mk * p1); M->gl = mm_dbl(mk * p1);
        M->cl = mm_dbl(mk * p1); M->cr = mm_dbl(n * p1); M->chat = mm_dbl(n * p1);
        M->bleaf = mm_dbl(mk * rcap); M->wleaf = mm_dbl(mk * rcap); M->brest = mm_dbl(n * rcap);
        M->wrest = mm_dbl(n * rcap); M->Xw = mm_dbl(p1 * rcap); M->Yd = mm_dbl(mk * rcap); M->colacc = mm_dbl((int64_t)nb * M->k0 * M->k0);
        M->chunk = mm_dbl(MM_CHUNKS * (1 + 64));
        M->lraw = mm_dbl(M->dense ? mk * M->k0 : 1);
        if (M->dense) {
            M->Wd = mm_dbl(mk * n);
            M->Zd = mm_dbl(n * n);
            if (!M->Wd || !M->Zd) goto done;
        }
        M->w = calloc(nthreads, sizeof(double *));
        if (!M->x || !M->H || !M->Hs || !M->N || !M->HR || !M->ls || !M->R || !M->C || !M->Mx || !M->U || !M->LU || !M->tl
            || !M->gl || !M->cl || !M->cr || !M->chat || !M->bleaf || !M->wleaf || !M->brest || !M->wrest || !M->Xw || !M->Yd
            || !M->colacc || !M->chunk || !M->w || !M->lraw) goto done;
        for (i = 0; i < nthreads; i++) { M->w[i] = mm_dbl(n * kmax); if (!M->w[i]) goto done; }
        {
            int nr = p1 > rcap ? p1 : rcap;
            if (nr < MM_BATCH + kmax) nr = MM_BATCH + kmax;
            if (mm_cholwork_init(&M->W, &M->P, nthreads, nr)) goto done;
        }
    }
    rc = 0;
done:
    mm_order_free(&o);
    free(weight); free(eptr); free(aptr); free(vptr); free(fillp); free(eidx); free(aidx); free(vel); free(src); free(tr);
    return rc;
}
#endif
