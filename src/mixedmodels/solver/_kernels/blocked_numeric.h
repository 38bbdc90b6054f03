/* Components of the criterion and its derivatives for several grouping factors.
 *
 * Leaf levels l:  D_l = lam'A_ll lam + I,  H_l = lam D_l^-1 lam',  N_l = I - A_ll H_l.
 * Rest:           G = A_RR - sum_l B_l'H_l B_l  (free of the rest's factors),  S = Lam'G Lam + P = L L'.
 * With K = Z'V^-1 Z:  K_ll = N_l A_ll - N_l B_l Lam S^-1 Lam' B_l' N_l'  (leaf),  and for the rest
 * lam'(sum K_ll) lam = m I - sum S^ll, or  sum K_ll = lam^-T sum S^lj lam_j'G_jl  where lam is singular.
 */
#ifndef MM_BLOCKED_NUMERIC_H
#define MM_BLOCKED_NUMERIC_H

#include "blocked_derivatives.h"

/* ------------------------------------------------------------------ order 0 */
typedef struct { double logdet_L2, logdet_RX2, pwrss; } mm_scalars;

static int mm_forward(mm_model *M, const double *lam, mm_scalars *out)
{
    int p1 = M->p1, p = p1 - 1, n = M->n, mk = M->m0 * M->k0, i, j;
    double logdet = 0.0, ld = 0.0, *C = M->C;
    M->point = 0;
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
        if (mm_factor_rest(M, lam, &ld)) return 1;
        memcpy(M->LU, M->RR, (size_t)n * p1 * sizeof(double));
        if (M->leaf >= 0) mm_times_Bt(M, -1.0, M->HR, p1, M->LU);
        mm_times_Lam(M, lam, 1, M->LU, p1, M->R);
        logdet += ld;
        for (j = 0; j < M->F; j++) logdet += M->preclog[j];
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
        const double *t = M->tl + (int64_t)l * k0 * nc, *H = M->Hs + (int64_t)l * k0 * k0, *N = M->N + (int64_t)l * k0 * k0;
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

/* what mm_second adds to an evaluation of order 2 */
typedef struct { int exact; double *products, *changes; } mm_second_part;
static int mm_second(mm_model *M, const double *lam, const mm_second_part *want, int reml, const double *dS, int r,
                     int kk);

static int mm_components(mm_model *M, const double *lam, int order, int reml, const double *dS, int ndir, int kk,
                         mm_scalars *sc, double *T, double *S, double *wpw, const mm_second_part *second)
{
    int F = M->F, p = M->p1 - 1, nc, ncr, anysing = 0, anyprec = 0, f, j, n = M->n;
    char sing[F > 0 ? F : 1];
    double size[F > 0 ? F : 1];
    if (mm_forward(M, lam, sc)) return 1;
    if (order < 1) return 0;
    for (f = 0; f < F; f++) {
        sing[f] = f != M->leaf && mm_is_singular(M, lam, f, 1e-6, size + f);
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
    if (!n) {
        if (order >= 2) mm_directions(M, lam, dS, ndir, kk, nc, 1, wpw);
        return second ? mm_second(M, lam, second, reml, dS, ndir, kk) : 0;
    }
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
        if (!M->hasprec[f] && !sing[f] && size[f] > MM_STEEP)       /* c = lam^-T u, where the difference cancels */
            for (int l = 0; l < M->m[f]; l++) {
                int cj = M->P.bcol[M->pos[M->bstart[f] + l]];
                for (int a = 0; a < k; a++) for (int c = 0; c < ncr; c++) {
                    double s = 0.0;
                    for (int b = 0; b < k; b++) s += inv[b * k + a] * M->U[(int64_t)(cj + b) * nc + c];
                    M->cr[(int64_t)(cj + a) * ncr + c] = s;
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
    if (second && mm_second(M, lam, second, reml, dS, ndir, kk)) return 1;
    if (second && !second->exact) return 0;                  /* average information: without T */
    /* from here on S is factored at another point with the same Sigma, and x holds its inverse */
    double moved[anysing ? kk : 1], back[anysing ? kk : 1];
    if (anysing) {
        memcpy(moved, lam, kk * sizeof(double));
        if (mm_factor_singular(M, sing, moved, back)) return 1;
        lam = moved;
    }
    if (mm_selinv(&M->bl, &M->P, M->x, &M->W)) return 1;
    if (anysing && mm_singular_T(M, sing, lam, back, T)) return 1;
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
    M->point = 0;
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
