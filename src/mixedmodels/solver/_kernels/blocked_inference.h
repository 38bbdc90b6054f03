/* What inference needs beyond the criterion's derivatives; all after mm_forward.
 *
 * With W = Lam S^-1 Lam' (rest) and C = N B (leaf x rest):
 *     Lam M^-1 Lam' = [H + H B W B'H, -H B W; -W B'H, W],     K_00 = N A - C W C',   K_0R = C D,   K_RR = G D,
 *     D = I - W G = Lam S^-1 P Lam^-1   (the second form where the factor is regular).
 * tr(K D_i K D_j) needs sums of K_ll' kron K_ll'.  Panels of columns of D give all blocks with a rest column;
 * the leaf's own off-diagonal part is  tr(W Q_t W Q_u) = sum_J <Q_t W E_J, W Q_u E_J>,  Q_t = C'(I kron E_t)C.
 */
#ifndef MM_BLOCKED_INFERENCE_H
#define MM_BLOCKED_INFERENCE_H

#include "blocked_numeric.h"

/* out_l = X_l v_l for k0 x k0 matrices X, nc columns; out may be v */
static void mm_leaf_times(const mm_model *M, const double *X, const double *v, int nc, double *out)
{
    int k0 = M->k0;
    if (k0 == 1) {
        for (int l = 0; l < M->m0; l++) {
            double x = X[l];
            const double *a = v + (int64_t)l * nc;
            double *o = out + (int64_t)l * nc;
            for (int i = 0; i < nc; i++) o[i] = x * a[i];
        }
        return;
    }
    double t[k0 * nc];
    for (int l = 0; l < M->m0; l++) {
        const double *x = X + (int64_t)l * k0 * k0, *a = v + (int64_t)l * k0 * nc;
        for (int r = 0; r < k0; r++) {
            double *o = t + r * nc;
            for (int i = 0; i < nc; i++) o[i] = x[r * k0] * a[i];
            for (int c = 1; c < k0; c++) for (int i = 0; i < nc; i++) o[i] += x[r * k0 + c] * a[c * nc + i];
        }
        memcpy(out + (int64_t)l * k0 * nc, t, sizeof(t));
    }
}

/* as mm_times_B and mm_times_Bt without threads */
static void mm_B_serial(mm_model *M, double sign, const double *v, int nc, double *out) {
    if (M->leaf < 0 || M->nb == 0) return;
    if (M->dense) { mm_rm(&M->bl, 0, M->m0 * M->k0, nc, M->n, sign, M->Bd, v, 1.0, out); return; }
    mm_prod p = {v, out, nc, sign};
    mm_B_range(M, NULL, 0, M->m0, 0, &p);
}

static void mm_Bt_serial(mm_model *M, double sign, const double *v, int nc, double *out) {
    if (M->leaf < 0 || M->nb == 0) return;
    if (M->dense) { mm_rm(&M->bl, 1, M->n, nc, M->m0 * M->k0, sign, M->Bd, v, 1.0, out); return; }
    mm_prod p = {v, out, nc, sign};
    mm_Bt_range(M, NULL, 0, M->nb, 0, &p);
}

static void mm_solve_S(mm_model *M, double *x, int nc, int thread)
{
    mm_cholwork W = M->W;
    double *buf[1] = {M->W.buf[thread]};
    W.buf = buf;
    mm_fsolve(&M->bl, &M->P, M->x, x, nc, &W);
    mm_bsolve(&M->bl, &M->P, M->x, x, nc, &W);
}

/* out = Z'Z U */
static void mm_normal(mm_model *M, int nc, const double *U0, const double *UR, double *out0, double *outR)
{
    if (M->leaf >= 0) {
        mm_leaf_times(M, M->A0, U0, nc, out0);
        mm_B_serial(M, 1.0, UR, nc, out0);
    }
    if (M->n) {
        memset(outR, 0, (size_t)M->n * nc * sizeof(double));
        mm_times_AR(M, 1.0, UR, nc, outR);
        mm_Bt_serial(M, 1.0, U0, nc, outR);
    }
}

/* From s = Z'Y:  cov = Lam M^-1 Lam' s  and, if k0_ is not NULL, k = Z'V^-1 Y = s - Z'Z cov.  nc <= MM_BATCH. */
static int mm_condition(mm_model *M, const double *lam, int nc, const double *s0, const double *sR, double *cov0,
                        double *covR, double *k0_, double *kR)
{
    int n = M->n;
    int64_t mk = (int64_t)M->m0 * M->k0;
    if (M->leaf >= 0) mm_leaf_times(M, M->Hs, s0, nc, cov0);
    if (n) {
        double *g = mm_dbl((int64_t)n * nc), *h = mm_dbl((int64_t)n * nc);
        if (!g || !h) { free(g); free(h); return 1; }
        memcpy(g, sR, (size_t)n * nc * sizeof(double));
        mm_Bt_serial(M, -1.0, cov0, nc, g);
        mm_times_Lam(M, lam, 1, g, nc, h);
        mm_solve_S(M, h, nc, 0);
        mm_times_Lam(M, lam, 0, h, nc, covR);
        free(g); free(h);
    }
    if (M->leaf >= 0) {
        double *t = mm_dbl(mk * nc);
        if (!t) return 1;
        memcpy(t, s0, (size_t)mk * nc * sizeof(double));
        mm_B_serial(M, -1.0, covR, nc, t);
        mm_leaf_times(M, M->H, t, nc, cov0);
        if (k0_) mm_leaf_times(M, M->N, t, nc, k0_);
        if (n && kR) {
            memcpy(kR, sR, (size_t)n * nc * sizeof(double));
            mm_leaf_times(M, M->Hs, t, nc, t);
            mm_Bt_serial(M, -1.0, t, nc, kR);
        }
        free(t);
    } else if (n && kR) memcpy(kR, sR, (size_t)n * nc * sizeof(double));
    if (n && kR) mm_times_AR(M, -1.0, covR, nc, kR);
    return 0;
}

/* ------------------------------------------------------------------ selected blocks of Lam M^-1 Lam' */
/* overwrites the factor by Lam S^-1 Lam' on its pattern; Q (m0, k0, k0) = B W B' by leaf level */
static int mm_selected(mm_model *M, const double *lam, double *Q)
{
    if (!M->n) return 0;
    M->point = 0;
    if (mm_selinv(&M->bl, &M->P, M->x, &M->W)) return 1;
    if (M->leaf < 0) for (int j = 0; j < M->nb; j++) mm_walk_column(M, lam, j, M->w[0], 1);
    else if (M->dense) mm_gather_dense(M, lam, NULL, Q);
    else mm_gather_range(M, lam, 0, M->nb, 0, Q);
    return 0;
}

/* as mm_selected, and T = B W on the pattern of B, laid out as B */
static int mm_selected_coupled(mm_model *M, const double *lam, double *Q, double *T)
{
    const mm_pattern *P = &M->P;
    int k0 = M->k0;
    if (!M->n) return 0;
    if (M->leaf < 0 || M->dense) {
        if (mm_selected(M, lam, Q)) return 1;
        for (int l = 0; M->leaf >= 0 && l < M->m0; l++)
            for (int64_t q = M->lptr[l]; q < M->lptr[l + 1]; q++) {
                int kj = M->k[M->bfac[M->lblk[q]]];
                for (int a = 0; a < k0; a++)
                    memcpy(T + M->lval[q] + a * kj, M->Wd + ((int64_t)l * k0 + a) * M->n + M->lcol[q], kj * sizeof(double));
            }
        return 0;
    }
    M->point = 0;
    if (mm_selinv(&M->bl, &M->P, M->x, &M->W)) return 1;
    memset(T, 0, M->lval[M->lptr[M->m0]] * sizeof(double));
    for (int j = 0; j < M->nb; j++) {
        int cj = P->bcol[j], kj = M->k[M->bfac[j]];
        double *w = M->w[0];
        int64_t ldw = M->n;
        mm_walk_column(M, lam, j, w, 1);
        if (M->cptr[j] == M->cptr[j + 1]) continue;
        if (cj >= P->t0) {
            w = M->x + P->xptr[P->ns] + (int64_t)(cj - P->t0) * P->nt - P->t0;
            ldw = P->nt;
        } else mm_walk_column(M, lam, j, w, 2);
        for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
            int l = M->cleaf[s];
            int64_t e = M->cent[s], end = M->lptr[l + 1];
            if (M->scalar) {
                const int *restrict col = M->lcol;
                const double *restrict B = M->B;
                double b = B[e], sum = b * w[cj];
                for (int64_t q = e + 1; q < end; q++) {
                    double v = w[col[q]];
                    sum += B[q] * v;
                    T[q] += b * v;
                }
                T[e] += sum;
                continue;
            }
            const double *Be = M->B + M->lval[e];
            double *Te = T + M->lval[e];
            for (int64_t q = e; q < end; q++) {
                int ki = M->k[M->bfac[M->lblk[q]]];
                const double *Bq = M->B + M->lval[q], *wq = w + M->lcol[q];
                double *Tq = T + M->lval[q];
                for (int r = 0; r < k0; r++)
                    for (int c = 0; c < kj; c++)
                        for (int i = 0; i < ki; i++) {
                            double v = q > e || i >= c ? wq[i + c * ldw] : wq[c + i * ldw];
                            Te[r * kj + c] += Bq[r * ki + i] * v;
                            if (q > e) Tq[r * ki + i] += Be[r * kj + c] * v;
                        }
            }
        }
        if (cj < P->t0) mm_walk_column(M, lam, j, w, 3);
    }
    for (int l = 0; l < M->m0; l++) {
        double *o = Q + (int64_t)l * k0 * k0;
        for (int64_t q = M->lptr[l]; q < M->lptr[l + 1]; q++) {
            int ki = M->k[M->bfac[M->lblk[q]]];
            const double *B = M->B + M->lval[q], *t = T + M->lval[q];
            for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++)
                for (int i = 0; i < ki; i++) o[r * k0 + c] += t[r * ki + i] * B[c * ki + i];
        }
    }
    return 0;
}

/* address of W(row, col), row >= col, or NULL outside the pattern */
static inline const double *mm_find(const mm_model *M, int row, int col)
{
    const mm_pattern *P = &M->P;
    int K = P->col2super[col];
    if (K < P->ns && row >= P->sfirst[K + 1]) {
        const int *r = P->rows + P->rptr[K];
        int lo = 0, hi = (int)(P->rptr[K + 1] - P->rptr[K]), nr = hi;
        while (lo < hi) { int mid = (lo + hi) / 2; if (r[mid] < row) lo = mid + 1; else hi = mid; }
        if (lo == nr || r[lo] != row) return NULL;
    }
    return mm_at(P, M->x, row, col);
}

/* block (i, j) of W (ki x kj row-major) by positions; 0 when it is not on the pattern */
static int mm_rest_block(const mm_model *M, int i, int j, double *out)
{
    int ki = M->k[M->bfac[i]], kj = M->k[M->bfac[j]], ci = M->P.bcol[i], cj = M->P.bcol[j];
    if (M->P.ns == 0) {                                    /* all in the dense tail */
        const double *x = M->x;
        int64_t nt = M->P.nt;
        for (int a = 0; a < ki; a++) for (int b = 0; b < kj; b++) {
            int64_t r = ci + a, c = cj + b;
            out[a * kj + b] = r >= c ? x[r + c * nt] : x[c + r * nt];
        }
        return 1;
    }
    for (int a = 0; a < ki; a++) for (int b = 0; b < kj; b++) {
        int r = ci + a, c = cj + b;
        const double *v = r >= c ? mm_find(M, r, c) : mm_find(M, c, r);
        if (!v) return 0;
        out[a * kj + b] = *v;
    }
    return 1;
}

/* blocks (level lf of f, level lg of g), f != g, (count, k_f, k_g); found: whether they could be had */
static void mm_pairs(const mm_model *M, int f, int g, int64_t count, const int *lf, const int *lg, double *out,
                     char *found)
{
    int kf = M->k[f], kg = M->k[g], k0 = M->k0;
    for (int64_t e = 0; e < count; e++) {
        double *o = out + e * kf * kg;
        if (f != M->leaf && g != M->leaf) {
            found[e] = (char)mm_rest_block(M, M->pos[M->bstart[f] + lf[e]], M->pos[M->bstart[g] + lg[e]], o);
            continue;
        }
        int turn = g == M->leaf, l = turn ? lg[e] : lf[e], rest = turn ? f : g, kr = turn ? kf : kg;
        int j = M->pos[M->bstart[rest] + (turn ? lf[e] : lg[e])];
        double t[k0 * kr], block[M->kmax * kr];
        memset(t, 0, sizeof(t));
        found[e] = 1;
        if (M->scalar && M->P.ns == 0 && !M->dense) {
            int64_t nt = M->P.nt, c = M->P.bcol[j];
            double s = 0.0;
            for (int64_t q = M->lptr[l]; q < M->lptr[l + 1]; q++) {
                int64_t r = M->lcol[q];
                s += M->B[q] * (r >= c ? M->x[r + c * nt] : M->x[c + r * nt]);
            }
            *o = -M->H[l] * s;
            continue;
        }
        if (M->dense)
            for (int a = 0; a < k0; a++)
                memcpy(t + a * kr, M->Wd + ((int64_t)l * k0 + a) * M->n + M->P.bcol[j], kr * sizeof(double));
        else
            for (int64_t q = M->lptr[l]; q < M->lptr[l + 1]; q++) {
                int ki = M->k[M->bfac[M->lblk[q]]];
                const double *B = M->B + M->lval[q];
                if (!mm_rest_block(M, M->lblk[q], j, block)) { found[e] = 0; break; }
                for (int a = 0; a < k0; a++) for (int i = 0; i < ki; i++)
                    for (int c = 0; c < kr; c++) t[a * kr + c] += B[a * ki + i] * block[i * kr + c];
            }
        const double *H = M->H + (int64_t)l * k0 * k0;
        for (int a = 0; a < k0; a++) for (int c = 0; c < kr; c++) {
            double s = 0.0;
            for (int b = 0; b < k0; b++) s -= H[a * k0 + b] * t[b * kr + c];
            o[turn ? c * k0 + a : a * kr + c] = s;
        }
    }
}

/* ------------------------------------------------------------------ sums of products of the blocks of K */
/* G (kf kg x kf kg) += sum over levels and columns of K[a, c] K[a', c'];  K (levels kf, cols kg) row-major */
static void mm_block_gram(const double *K, int64_t levels, int kf, int cols, int kg, double *G)
{
    int nc = cols * kg, s = kf * kg;
    if (s == 1) {
        double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        int64_t i = 0, size = levels * nc;
        for (; i + 3 < size; i += 4) {
            s0 += K[i] * K[i]; s1 += K[i + 1] * K[i + 1]; s2 += K[i + 2] * K[i + 2]; s3 += K[i + 3] * K[i + 3];
        }
        for (; i < size; i++) s0 += K[i] * K[i];
        G[0] += s0 + s1 + s2 + s3;
        return;
    }
    for (int64_t l = 0; l < levels; l++) {
        const double *k = K + l * kf * nc;
        for (int a = 0; a < kf; a++) for (int c = 0; c < kg; c++)
            for (int b = 0; b <= a; b++) for (int d = 0; d < kg; d++) {
                if (b == a && d > c) break;
                const double *x = k + a * nc + c, *y = k + b * nc + d;
                double v = 0.0;
                for (int j = 0; j < cols; j++) v += x[j * kg] * y[j * kg];
                G[(a * kg + c) * s + b * kg + d] += v;
            }
    }
}

typedef struct {
    const int *sing;            /* per factor of the rest */
    const double *inv;          /* lam^-1 per factor, at koff */
    int nsym;                   /* matrices of the leaf's basis */
    const double *sym;          /* (nsym, k0, k0) symmetric */
    int anyprec, regular;       /* any known precision; all of the rest regular */
    double *CX;                 /* C W at the coupling's entries, as B */
    int64_t size;               /* accumulators of a panel */
    const int64_t *goff;        /* (F x F) offset of the sums of factors f, g; the leaf's F x F sums come last */
    int failed;
    int *slots;                 /* slots of each factor */
    int *lev, *start;           /* levels of a factor by slot; where a slot begins (offset bstart + factor) */
} mm_trace_work;

/* Parts of the model that share no rows have no common block of K: one level of each part can share a column
 * (a slot), for sums of products of blocks see only their own part.  A slot is a level's rank in its part. */
static int mm_slots(const mm_model *M, mm_trace_work *w)
{
    int nb = M->nb, rc = 1, *root = mm_int(nb), *count = mm_int(nb), *slot = mm_int(nb);
    if (!root || !count || !slot) goto done;
    for (int i = 0; i < nb; i++) root[i] = i;
#define MM_ROOT(x, out) { int r_ = (x); while (root[r_] != r_) { root[r_] = root[root[r_]]; r_ = root[r_]; } out = r_; }
    for (int l = 0; l < M->m0; l++)
        for (int64_t q = M->lptr[l] + 1; q < M->lptr[l + 1]; q++) {
            int a, b;
            MM_ROOT(M->lblk[q - 1], a);
            MM_ROOT(M->lblk[q], b);
            if (a < b) root[b] = a; else root[a] = b;
        }
    for (int i = 0; i < nb; i++)
        for (int64_t q = M->pptr[i]; q < M->pptr[i + 1]; q++) {
            int a, b;
            MM_ROOT(i, a);
            MM_ROOT(M->pblk[q], b);
            if (a < b) root[b] = a; else root[a] = b;
        }
    for (int g = 0; g < M->F; g++) {
        int m = M->m[g], *lev = w->lev + M->bstart[g], *start = w->start + M->bstart[g] + g, most = 0;
        if (g == M->leaf) continue;
        memset(count, 0, nb * sizeof(int));
        for (int l = 0; l < m; l++) {
            int part = 0;
            if (w->anyprec) slot[l] = l;
            else {
                MM_ROOT(M->pos[M->bstart[g] + l], part);
                slot[l] = count[part]++;
            }
            if (slot[l] + 1 > most) most = slot[l] + 1;
        }
        w->slots[g] = most;
        memset(start, 0, (m + 1) * sizeof(int));
        for (int l = 0; l < m; l++) start[slot[l] + 1]++;
        for (int i = 0; i < most; i++) start[i + 1] += start[i];
        memcpy(count, start, most * sizeof(int));
        for (int l = 0; l < m; l++) lev[count[slot[l]]++] = l;
    }
#undef MM_ROOT
    rc = 0;
done:
    free(root); free(count); free(slot);
    return rc;
}

/* columns that mm_trace_sums solves for, -1 out of memory */
static int64_t mm_trace_columns(const mm_model *M)
{
    int slots[M->F + 1];
    mm_trace_work w = {0};
    int64_t columns = -1;
    for (int f = 0; f < M->F; f++) { slots[f] = 0; w.anyprec |= M->hasprec[f]; }
    w.slots = slots;
    w.lev = mm_int(M->nb + 1);
    w.start = mm_int(M->nb + 2 * M->F + 1);
    if (w.lev && w.start && !mm_slots(M, &w)) {
        columns = 0;
        for (int f = 0; f < M->F; f++) if (f != M->leaf) columns += (int64_t)slots[f] * M->k[f];
    }
    free(w.lev); free(w.start);
    return columns;
}

/* out += P v over the columns of factor g (known precision or identity) */
static void mm_times_precision(const mm_model *M, int g, const double *v, int nc, double *out)
{
    int k = M->k[g];
    for (int l = 0; l < M->m[g]; l++) {
        int j = M->pos[M->bstart[g] + l];
        for (int64_t q = M->qptr[j]; q < M->qptr[j + 1]; q++) {
            int i = M->qblk[q];
            int64_t ci = (int64_t)M->P.bcol[i] * nc, cj = (int64_t)M->P.bcol[j] * nc;
            for (int x = 0; x < k * nc; x++) out[ci + x] += M->qval[q] * v[cj + x];
            if (i != j) for (int x = 0; x < k * nc; x++) out[cj + x] += M->qval[q] * v[ci + x];
        }
    }
}

/* slots [a, b) of factor g; acc: the panel's sums */
static void mm_trace_panel(mm_model *M, const double *lam, int g, int a, int b, double *acc, mm_trace_work *w,
                           double *space, int thread)
{
    int n = M->n, kg = M->k[g], cols = b - a, nc = cols * kg, k0 = M->k0, F = M->F, leaf = M->leaf;
    int64_t mk = (int64_t)M->m0 * k0, nn = (int64_t)n * nc;
    const double *lg = lam + M->koff[g], *inv = w->inv + M->koff[g];
    int scaled = !M->hasprec[g] && !w->sing[g], zero = 1;
    const int *lev = w->lev + M->bstart[g], *start = w->start + M->bstart[g] + g;
    double *X = space, *Y = X + nn, *E = Y + nn, *T = E + nn, *T2 = T + mk * nc, *U = T2 + mk * nc;
    memset(Y, 0, nn * sizeof(double));
    memset(E, 0, nn * sizeof(double));
    for (int i = 0; i < kg * kg; i++) if (lg[i] != 0.0) zero = 0;
    /* ---- E: the columns themselves, or L_P^-T of them */
    if (M->hasprec[g]) {
        int m = M->m[g];
        double *rhs = mm_dbl((int64_t)m * cols);
        if (!rhs) { w->failed = 1; return; }
        for (int l = a; l < b; l++) rhs[(int64_t)l * cols + (l - a)] = 1.0;
        mm_bsolve(&M->bl, &M->PP[g], M->Px[g], rhs, cols, &M->PW[g]);
        for (int i = 0; i < m; i++) {
            int ci = M->P.bcol[M->pos[M->bstart[g] + M->PP[g].perm[i]]];
            for (int s = 0; s < cols; s++) for (int c = 0; c < kg; c++)
                E[(int64_t)(ci + c) * nc + s * kg + c] = rhs[(int64_t)i * cols + s];
        }
        free(rhs);
    } else
        for (int q = a; q < b; q++) for (int l = start[q]; l < start[q + 1]; l++) {
            int cj = M->P.bcol[M->pos[M->bstart[g] + lev[l]]];
            for (int c = 0; c < kg; c++) E[(int64_t)(cj + c) * nc + (q - a) * kg + c] = 1.0;
        }
    /* ---- X = D E */
    if (!w->sing[g]) {
        int from = M->hasprec[g] ? 0 : start[a], stop = M->hasprec[g] ? M->m[g] : start[b];
        for (int l = from; l < stop; l++) {
            int cj = M->P.bcol[M->pos[M->bstart[g] + lev[l]]];
            for (int r = 0; r < kg; r++) for (int c = 0; c < kg; c++) {
                double v = inv[r * kg + c], *y = Y + (int64_t)(cj + r) * nc, *e = E + (int64_t)(cj + c) * nc;
                if (v != 0.0) for (int i = 0; i < nc; i++) y[i] += v * e[i];
            }
        }
        if (M->hasprec[g]) {
            memset(X, 0, nn * sizeof(double));
            mm_times_precision(M, g, Y, nc, X);
            memcpy(Y, X, nn * sizeof(double));
        }
        if (w->regular) memcpy(U, Y, nn * sizeof(double));
        mm_solve_S(M, Y, nc, thread);
        mm_times_Lam(M, lam, 0, Y, nc, X);
    } else {
        memset(X, 0, nn * sizeof(double));                   /* G E */
        memset(T, 0, mk * nc * sizeof(double));
        mm_times_AR(M, 1.0, E, nc, X);
        mm_B_serial(M, 1.0, E, nc, T);
        if (leaf >= 0) mm_leaf_times(M, M->Hs, T, nc, T);
        mm_Bt_serial(M, -1.0, T, nc, X);
        mm_times_Lam(M, lam, 1, X, nc, Y);
        mm_solve_S(M, Y, nc, thread);
        mm_times_Lam(M, lam, 0, Y, nc, X);
        for (int64_t i = 0; i < nn; i++) X[i] = E[i] - X[i];
    }
    if (leaf >= 0) {
        memset(T, 0, mk * nc * sizeof(double));
        mm_B_serial(M, 1.0, X, nc, T);
        mm_leaf_times(M, M->N, T, nc, T2);                   /* K_0J */
        mm_block_gram(T2, M->m0, k0, cols, kg, acc + w->goff[leaf * F + g]);
    }
    /* ---- K_RJ into Y */
    if (w->regular) {
        for (int64_t i = 0; i < nn; i++) Y[i] = U[i] - Y[i];                   /* lam_f^-T (P v - P S^-1 P v), P = I */
        for (int j = 0; j < M->nb; j++) {
            int f = M->bfac[j], k = M->k[f], cj = M->P.bcol[j];
            const double *li = w->inv + M->koff[f];
            if (k == 1) { for (int i = 0; i < nc; i++) Y[(int64_t)cj * nc + i] *= li[0]; continue; }
            double t[k * nc];
            memset(t, 0, sizeof(t));
            for (int r = 0; r < k; r++) for (int c = 0; c < k; c++)
                for (int i = 0; i < nc; i++) t[r * nc + i] += li[c * k + r] * Y[(int64_t)(cj + c) * nc + i];
            memcpy(Y + (int64_t)cj * nc, t, sizeof(t));
        }
    } else {
        memset(Y, 0, nn * sizeof(double));
        mm_times_AR(M, 1.0, X, nc, Y);
        if (leaf >= 0) {
            double *T3 = T;
            if (scaled) {                                    /* T is needed again: H T into a copy */
                T3 = mm_dbl(mk * nc);
                if (!T3) { w->failed = 1; return; }
            }
            mm_leaf_times(M, M->Hs, T, nc, T3);
            mm_Bt_serial(M, -1.0, T3, nc, Y);
            if (T3 != T) free(T3);
        }
    }
    for (int f = 0; f < F; f++) {
        int k = M->k[f], m = M->m[f];
        if (f == leaf || f > g) continue;
        double *rows = mm_dbl((int64_t)m * k * nc);
        if (!rows) { w->failed = 1; return; }
        for (int l = 0; l < m; l++) {
            int level = M->hasprec[f] ? M->PP[f].perm[l] : l;
            memcpy(rows + (int64_t)l * k * nc, Y + (int64_t)M->P.bcol[M->pos[M->bstart[f] + level]] * nc,
                   (size_t)k * nc * sizeof(double));
        }
        if (M->hasprec[f]) mm_fsolve(&M->bl, &M->PP[f], M->Px[f], rows, k * nc, &M->PW[f]);
        mm_block_gram(rows, m, k, cols, kg, acc + w->goff[f * F + g]);
        free(rows);
    }
    if (leaf < 0 || w->nsym == 0 || zero) return;
    /* ---- the leaf's own part: X = W E_J, T = C X */
    if (scaled) {
        double LL[kg * kg];
        for (int r = 0; r < kg; r++) for (int c = 0; c < kg; c++) {
            LL[r * kg + c] = 0.0;
            for (int i = 0; i < kg; i++) LL[r * kg + c] += lg[r * kg + i] * lg[c * kg + i];
        }
        double *both[2] = {X, T2};
        int64_t rows[2] = {n, mk};
        for (int h = 0; h < 2; h++)
            for (int64_t r = 0; r < rows[h]; r++)
                for (int s = 0; s < cols; s++) {
                    double *x = both[h] + r * nc + s * kg, t[kg];
                    for (int c = 0; c < kg; c++) {
                        t[c] = 0.0;
                        for (int i = 0; i < kg; i++) t[c] += x[i] * LL[i * kg + c];
                    }
                    memcpy(x, t, sizeof(t));
                }
    } else {
        memset(E, 0, nn * sizeof(double));
        memset(X, 0, nn * sizeof(double));
        for (int q = a; q < b; q++) for (int l = start[q]; l < start[q + 1]; l++) {
            int cj = M->P.bcol[M->pos[M->bstart[g] + lev[l]]];
            for (int r = 0; r < kg; r++) for (int c = 0; c < kg; c++)
                E[(int64_t)(cj + r) * nc + (q - a) * kg + c] = lg[c * kg + r];
        }
        mm_solve_S(M, E, nc, thread);
        mm_times_Lam(M, lam, 0, E, nc, X);
        memset(T, 0, mk * nc * sizeof(double));
        mm_B_serial(M, 1.0, X, nc, T);
        mm_leaf_times(M, M->N, T, nc, T2);
    }
    for (int p = a; p < b; p++) for (int l = start[p]; l < start[p + 1]; l++) {
        int j = M->pos[M->bstart[g] + lev[l]];
        for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
            double *o = w->CX + M->lval[M->cent[s]];
            const double *t = T2 + (int64_t)M->cleaf[s] * k0 * nc + (p - a) * kg;
            for (int r = 0; r < k0; r++) for (int c = 0; c < kg; c++) o[r * kg + c] = t[r * nc + c];
        }
    }
    for (int u = 0; u < w->nsym; u++) {                      /* U_u = W Q_u E_J */
        const double *S = w->sym + u * k0 * k0;
        double *O = U + u * nn;
        memset(E, 0, nn * sizeof(double));
        for (int p = a; p < b; p++) for (int l = start[p]; l < start[p + 1]; l++) {
            int j = M->pos[M->bstart[g] + lev[l]], at = (p - a) * kg;
            for (int64_t s = M->cptr[j]; s < M->cptr[j + 1]; s++) {
                int i = M->cleaf[s];
                const double *N = M->N + (int64_t)i * k0 * k0, *B = M->B + M->lval[M->cent[s]];
                double t[k0 * kg], v[k0 * kg];
                memset(t, 0, sizeof(t));
                memset(v, 0, sizeof(v));
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) for (int x = 0; x < kg; x++)
                    t[r * kg + x] += N[r * k0 + c] * B[c * kg + x];
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) for (int x = 0; x < kg; x++)
                    v[r * kg + x] += S[r * k0 + c] * t[c * kg + x];
                memset(t, 0, sizeof(t));
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) for (int x = 0; x < kg; x++)
                    t[r * kg + x] += N[c * k0 + r] * v[c * kg + x];
                for (int64_t q = M->lptr[i]; q < M->lptr[i + 1]; q++) {
                    int ki = M->k[M->bfac[M->lblk[q]]];
                    const double *Bq = M->B + M->lval[q];
                    double *e = E + (int64_t)M->lcol[q] * nc + at;
                    for (int y = 0; y < ki; y++) for (int r = 0; r < k0; r++) for (int x = 0; x < kg; x++)
                        e[(int64_t)y * nc + x] += Bq[r * ki + y] * t[r * kg + x];
                }
            }
        }
        mm_times_Lam(M, lam, 1, E, nc, Y);
        mm_solve_S(M, Y, nc, thread);
        mm_times_Lam(M, lam, 0, Y, nc, O);
    }
    double *out = acc + w->goff[F * F];
    for (int t = 0; t < w->nsym; t++) {                      /* Y = Q_t X */
        const double *S = w->sym + t * k0 * k0;
        for (int l = 0; l < M->m0; l++) {
            double *o = T + (int64_t)l * k0 * nc, SN[k0 * k0];
            const double *x = T2 + (int64_t)l * k0 * nc, *N = M->N + (int64_t)l * k0 * k0;
            for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) {
                SN[r * k0 + c] = 0.0;
                for (int i = 0; i < k0; i++) SN[r * k0 + c] += N[i * k0 + r] * S[i * k0 + c];
            }
            for (int r = 0; r < k0; r++) {
                for (int i = 0; i < nc; i++) o[r * nc + i] = SN[r * k0] * x[i];
                for (int c = 1; c < k0; c++)
                    for (int i = 0; i < nc; i++) o[r * nc + i] += SN[r * k0 + c] * x[c * nc + i];
            }
        }
        memset(Y, 0, nn * sizeof(double));
        mm_Bt_serial(M, 1.0, T, nc, Y);
        for (int u = 0; u < w->nsym; u++) {
            const double *O = U + u * nn;
            double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            int64_t i = 0;
            for (; i + 3 < nn; i += 4) {
                s0 += Y[i] * O[i]; s1 += Y[i + 1] * O[i + 1]; s2 += Y[i + 2] * O[i + 2]; s3 += Y[i + 3] * O[i + 3];
            }
            for (; i < nn; i++) s0 += Y[i] * O[i];
            out[t * w->nsym + u] += s0 + s1 + s2 + s3;
        }
    }
}

/* sums: (size,) as laid out by goff; Q (m0, k0, k0) = C W C' by leaf level */
static int mm_trace_sums(mm_model *M, const double *lam, int nsym, const double *sym, const int64_t *goff,
                         int64_t size, double *sums, double *Q)
{
    int F = M->F, nb = 0, k0 = M->k0, koff = 0, rc = 0;
    for (int f = 0; f < F; f++) koff += M->k[f] * M->k[f];
    int sing[F], panel_of[F + 1];
    double inv[koff];
    mm_trace_work w = {sing, inv, nsym, sym, 0, 1, NULL, size, goff, 0, NULL, NULL, NULL};
    double *acc = NULL;
    for (int f = 0; f < F; f++) {
        sing[f] = 0;
        if (f == M->leaf) continue;
        sing[f] = mm_is_singular(M, lam, f, 1e-6, NULL) || mm_inverse(M->k[f], lam + M->koff[f], inv + M->koff[f]);
        if (sing[f] || M->hasprec[f]) w.regular = 0;
        if (M->hasprec[f]) {
            w.anyprec = 1;
            if (!M->PP[f].n && mm_prec_setup(M, f)) return 1;
        }
    }
    w.slots = mm_int(F); w.lev = mm_int(M->nb + 1); w.start = mm_int(M->nb + 2 * F + 1);
    if (!w.slots || !w.lev || !w.start || mm_slots(M, &w)) { rc = 1; goto done; }
    panel_of[0] = 0;
    for (int f = 0; f < F; f++) {
        int per = MM_BATCH / M->k[f] > 0 ? MM_BATCH / M->k[f] : 1;
        if (f != M->leaf) nb += (w.slots[f] + per - 1) / per;
        panel_of[f + 1] = nb;
    }
    acc = mm_dbl(size * nb);
    w.CX = mm_dbl(M->leaf >= 0 && M->n ? M->lval[M->lptr[M->m0]] : 1);
    if (!acc || !w.CX) { rc = 1; goto done; }
    int threads = w.anyprec ? 1 : M->nthreads, width = MM_BATCH > M->kmax ? MM_BATCH : M->kmax;
    if (threads > nb) threads = nb > 0 ? nb : 1;
    int64_t room = width * ((3 + (nsym > 0 ? nsym : 1)) * (int64_t)M->n + 2 * (int64_t)M->m0 * k0);
    double *space = malloc((room * threads + 1) * sizeof(double));
    if (!space) { rc = 1; goto done; }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < nb; i++) {
        int g = 0;
        while (panel_of[g + 1] <= i) g++;
        int per = MM_BATCH / M->k[g] > 0 ? MM_BATCH / M->k[g] : 1;
        int a = (i - panel_of[g]) * per, b = a + per < w.slots[g] ? a + per : w.slots[g];
        mm_trace_panel(M, lam, g, a, b, acc + i * size, &w, space + room * MM_THREAD, MM_THREAD);
    }
    free(space);
    rc = w.failed;
    for (int i = 0; i < nb; i++) for (int64_t j = 0; j < size; j++) sums[j] += acc[i * size + j];
    if (M->leaf >= 0 && M->n)
        for (int l = 0; l < M->m0; l++) {
            const double *N = M->N + (int64_t)l * k0 * k0;
            double *o = Q + (int64_t)l * k0 * k0;
            for (int64_t q = M->lptr[l]; q < M->lptr[l + 1]; q++) {
                int k = M->k[M->bfac[M->lblk[q]]];
                const double *B = M->B + M->lval[q], *X = w.CX + M->lval[q];
                for (int r = 0; r < k0; r++) for (int c = 0; c < k0; c++) for (int i = 0; i < k; i++) {
                    double v = 0.0;
                    for (int s = 0; s < k0; s++) v += N[c * k0 + s] * B[s * k + i];
                    o[r * k0 + c] += X[r * k + i] * v;
                }
            }
        }
done:
    free(acc); free(w.CX); free(w.slots); free(w.lev); free(w.start);
    return rc;
}
#endif
