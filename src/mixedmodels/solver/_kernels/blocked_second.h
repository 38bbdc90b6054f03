/* What the observed information and Satterthwaite's degrees of freedom need, in one go, between mm_forward and the
 * selected inverse.  With H = Z'V^-1 X, K = Z'V^-1 Z, X'V^-1X = C C', Phi its inverse:
 *     changes_i = Phi H'D_iH Phi,
 *     products_ij = tr(K D_i K D_j) [- 2 tr(Phi H'D_i K D_jH) + tr(Phi H'D_iH Phi H'D_jH) for REML].
 */
#ifndef MM_BLOCKED_SECOND_H
#define MM_BLOCKED_SECOND_H

#include "blocked_inference.h"

/* products += tr(K D_i K D_j) from the sums over pairs of blocks */
static int mm_trace_ml(mm_model *M, const double *lam, const double *dS, int r, int kk, double *products)
{
    int F = M->F, leaf = M->leaf, k0 = leaf >= 0 ? M->k0 : 0, nsym = 0, rc = 1;
    int64_t goff[(F + 1) * F], at = 0;
    int row[k0 * (k0 + 1) / 2 + 1], col[k0 * (k0 + 1) / 2 + 1];
    for (int i = 0; i < k0; i++) for (int j = 0; j <= i; j++)
        for (int d = 0; d < r; d++)
            if (dS[(int64_t)d * kk + M->koff[leaf] + i * k0 + j] != 0.0) { row[nsym] = i; col[nsym++] = j; break; }
    for (int f = 0; f < F; f++) for (int g = 0; g < F; g++) {
        goff[f * F + g] = at;
        if (g != leaf && (f == leaf || f <= g)) at += (int64_t)M->k[f] * M->k[g] * M->k[f] * M->k[g];
    }
    for (int g = 0; g < F; g++) goff[F * F + g] = at;
    int64_t own = at, size = at + nsym * nsym;
    double *sym = mm_dbl(nsym * k0 * k0), *sums = mm_dbl(size), *Q = mm_dbl((int64_t)M->m0 * k0 * k0);
    double *G = mm_dbl((int64_t)k0 * k0 * k0 * k0);
    if (!sym || !sums || !Q || !G) goto done;
    for (int t = 0; t < nsym; t++)
        sym[(t * k0 + row[t]) * k0 + col[t]] = sym[(t * k0 + col[t]) * k0 + row[t]] = 1.0;
    if (mm_trace_sums(M, lam, nsym, sym, goff, size, sums, Q)) goto done;
    for (int f = 0; f < F; f++) for (int g = 0; g < F; g++) {
        if (g == leaf || !(f == leaf || f <= g)) continue;
        int kf = M->k[f], kg = M->k[g], s = kf * kg;
        const double *S = sums + goff[f * F + g];
        double half[kf * kf];
        for (int j = 0; j < r; j++) {
            const double *Dj = dS + (int64_t)j * kk + M->koff[g];
            for (int a = 0; a < kf; a++) for (int b = 0; b < kf; b++) {
                double v = 0.0;
                for (int c = 0; c < kg; c++) for (int d = 0; d < kg; d++) {
                    int x = a * kg + c, y = b * kg + d;
                    v += Dj[c * kg + d] * (x >= y ? S[x * s + y] : S[y * s + x]);
                }
                half[a * kf + b] = v;
            }
            for (int i = 0; i < r; i++) {
                const double *Di = dS + (int64_t)i * kk + M->koff[f];
                double v = 0.0;
                for (int a = 0; a < kf * kf; a++) v += Di[a] * half[a];
                products[i * r + j] += v;
                if (f != g) products[j * r + i] += v;
            }
        }
    }
    if (leaf >= 0) {
        int kq = k0 * k0;
        double own_l[kq], half[kq];
        for (int l = 0; l < M->m0; l++) {
            const double *A = M->A0 + (int64_t)l * kq, *N = M->N + (int64_t)l * kq, *q = Q + (int64_t)l * kq;
            for (int a = 0; a < k0; a++) for (int b = 0; b < k0; b++) {
                double v = 0.0;
                for (int c = 0; c < k0; c++) v += N[a * k0 + c] * A[c * k0 + b];
                own_l[a * k0 + b] = v;
            }
            for (int a = 0; a < kq; a++) for (int b = 0; b < kq; b++)
                G[a * kq + b] += own_l[a] * own_l[b] - own_l[a] * q[b] - q[a] * own_l[b];
        }
        for (int j = 0; j < r; j++) {                        /* sum X[a, b] dS_j[b, c] Y[c, d] dS_i[d, a] */
            const double *Dj = dS + (int64_t)j * kk + M->koff[leaf];
            for (int d = 0; d < k0; d++) for (int a = 0; a < k0; a++) {
                double v = 0.0;
                for (int b = 0; b < k0; b++) for (int c = 0; c < k0; c++)
                    v += Dj[b * k0 + c] * G[(a * k0 + b) * kq + c * k0 + d];
                half[d * k0 + a] = v;
            }
            for (int i = 0; i < r; i++) {
                const double *Di = dS + (int64_t)i * kk + M->koff[leaf];
                double v = 0.0;
                for (int a = 0; a < kq; a++) v += Di[a] * half[a];
                products[i * r + j] += v;
            }
        }
        for (int i = 0; i < r; i++) for (int j = 0; j < r; j++) {
            const double *Di = dS + (int64_t)i * kk + M->koff[leaf], *Dj = dS + (int64_t)j * kk + M->koff[leaf];
            for (int t = 0; t < nsym; t++) for (int u = 0; u < nsym; u++)
                products[i * r + j] += Di[row[t] * k0 + col[t]] * Dj[row[u] * k0 + col[u]]
                                       * 0.5 * (sums[own + t * nsym + u] + sums[own + u * nsym + t]);
        }
    }
    rc = 0;
done:
    free(sym); free(sums); free(Q); free(G);
    return rc;
}

/* out (rows x r p) = D_i applied to blocks of H (rows x p) */
static void mm_image(int64_t levels, int k, int p, int r, int kk, const double *D, const double *H, double *out)
{
    for (int64_t l = 0; l < levels; l++)
        for (int i = 0; i < r; i++) for (int a = 0; a < k; a++) {
            double *o = out + (l * k + a) * r * p + i * p;
            for (int x = 0; x < p; x++) o[x] = 0.0;
            for (int b = 0; b < k; b++) {
                double v = D[(int64_t)i * kk + a * k + b];
                const double *h = H + (l * k + b) * p;
                if (v != 0.0) for (int x = 0; x < p; x++) o[x] += v * h[x];
            }
        }
}

/* whether r directions of p columns fit the work space, and no precision is in the way */
static int mm_second_fits(const mm_model *M, int r)
{
    for (int f = 0; f < M->F; f++) if (M->hasprec[f]) return 0;
    return r * (M->p1 - 1) <= MM_BATCH;
}

static int mm_second(mm_model *M, const double *lam, const mm_second_part *want, int reml, const double *dS, int r,
                     int kk)
{
    int p1 = M->p1, p = p1 - 1, n = M->n, nc = r * p, rc = 1;
    int64_t mk = M->leaf >= 0 ? (int64_t)M->m0 * M->k0 : 0, rows = mk + n;
    double *P = want->products, inside[p * nc + 1], t[p * p + 1];
    memset(P, 0, (size_t)r * r * sizeof(double));
    if (want->exact && mm_trace_ml(M, lam, dS, r, kk, P)) return 1;
    if (p == 0 || r == 0) return 0;
    /* one block of rows: the leaf's, then the rest's */
    double *buf = mm_dbl(rows * (3 * p + 4 * nc) + (int64_t)nc * nc + (int64_t)nc * p + 2 * p * p);
    if (!buf) return 1;
    double *s = buf, *cov = s + rows * p, *H = cov + rows * p, *I = H + rows * p, *S = I + rows * nc,
           *cv = S + rows * nc, *K = cv + rows * nc, *IKI = K + rows * nc, *HI = IKI + (int64_t)nc * nc,
           *Li = HI + (int64_t)nc * p, *Phi = Li + p * p;
    for (int64_t i = 0; i < rows; i++)
        memcpy(s + i * p, i < mk ? M->R0 + i * p1 : M->RR + (i - mk) * p1, p * sizeof(double));
    if (mm_condition(M, lam, p, s, s + mk * p, cov, cov + mk * p, H, H + mk * p)) goto done;
    if (mk) mm_image(M->m0, M->k0, p, r, kk, dS + M->koff[M->leaf], H, I);
    for (int j = 0; j < M->nb; j++) {
        int64_t at = mk + M->P.bcol[j];
        mm_image(1, M->k[M->bfac[j]], p, r, kk, dS + M->koff[M->bfac[j]], H + at * p, I + at * nc);
    }
    mm_rm(&M->bl, 1, p, nc, (int)rows, 1.0, H, I, 0.0, HI);   /* row x, column i p + y */
    for (int j = 0; j < p; j++)                               /* L^-1, lower, row-major */
        for (int i = j; i < p; i++) {
            double v = i == j;
            for (int l = j; l < i; l++) v -= M->C[i + l * p1] * Li[l * p + j];
            Li[i * p + j] = v / M->C[i * (p1 + 1)];
        }
    for (int a = 0; a < p; a++) for (int b = 0; b < p; b++) {
        double v = 0.0;
        for (int l = a > b ? a : b; l < p; l++) v += Li[l * p + a] * Li[l * p + b];
        Phi[a * p + b] = v;
    }
    for (int i = 0; i < r; i++) {
        double *o = inside + i * p * p, *c = want->changes + (int64_t)i * p * p;
        for (int a = 0; a < p; a++) for (int y = 0; y < p; y++) {
            double v = 0.0;
            for (int x = 0; x <= a; x++) v += Li[a * p + x] * HI[(int64_t)x * nc + i * p + y];
            t[a * p + y] = v;
        }
        for (int a = 0; a < p; a++) for (int b = 0; b < p; b++) {
            double v = 0.0;
            for (int y = 0; y <= b; y++) v += t[a * p + y] * Li[b * p + y];
            o[a * p + b] = v;
        }
        for (int a = 0; a < p; a++) for (int y = 0; y < p; y++) {    /* L^-T inside L^-1 */
            double v = 0.0;
            for (int x = a; x < p; x++) v += Li[x * p + a] * o[x * p + y];
            t[a * p + y] = v;
        }
        for (int a = 0; a < p; a++) for (int b = 0; b < p; b++) {
            double v = 0.0;
            for (int y = b; y < p; y++) v += t[a * p + y] * Li[y * p + b];
            c[a * p + b] = v;
        }
    }
    if (want->exact && reml) {
        mm_normal(M, nc, I, I + mk * nc, S, S + mk * nc);
        if (mm_condition(M, lam, nc, S, S + mk * nc, cv, cv + mk * nc, K, K + mk * nc)) goto done;
        mm_rm(&M->bl, 1, nc, nc, (int)rows, 1.0, I, K, 0.0, IKI);
        for (int i = 0; i < r; i++) for (int j = 0; j < r; j++) {
            double v = 0.0;
            for (int a = 0; a < p; a++) for (int b = 0; b < p; b++)
                v += inside[(i * p + a) * p + b] * inside[(j * p + b) * p + a]
                     - (IKI[(int64_t)(i * p + a) * nc + j * p + b] + IKI[(int64_t)(j * p + a) * nc + i * p + b])
                       * Phi[b * p + a];
            P[i * r + j] += v;
        }
    }
    for (int i = 0; i < r; i++) for (int j = 0; j < i; j++)
        P[i * r + j] = P[j * r + i] = 0.5 * (P[i * r + j] + P[j * r + i]);
    rc = 0;
done:
    free(buf);
    return rc;
}
#endif
