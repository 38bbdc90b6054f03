/* The two passes over the levels of one grouping factor, LANES levels at a time.
 *
 * Per level, with A = Z'Z = R R' (R lower triangular) and t = R^{-1} Z'[X y]:
 *
 *     E = I + (R'lam)(R'lam)' = U diag(d) U',   log|E| = sum log d,   K = Z'V^{-1}Z = R E^{-1} R',
 *     [X y]'V^{-1}[X y] = (within-level part, constant) + sum_l t' E^{-1} t,
 *     Z'V^{-1}X = R E^{-1} t_X,   c = Z'Py = R E^{-1} (t_y - t_X beta).
 *
 * Every term is a sum of squares: nothing cancels, whatever the size of lam or of the levels.
 *
 * Data of a block of LANES levels: rows of R (k(k+1)/2 fields), then t (k x P fields); a field is LANES numbers.
 */
#ifndef MIXEDMODELS_GROUPED_PASSES_H
#define MIXEDMODELS_GROUPED_PASSES_H

#include "lanes.h"

#define TRI(i, j) ((i) * ((i) + 1) / 2 + (j))

/* E = U diag(d) U' through the rows of [I B], B = R'lam, made orthogonal one after another (modified
 * Gram-Schmidt): I becomes V = U^{-1}, unit lower triangular, and d are the squared lengths. E itself is never
 * formed, so that near-singular lam and large levels lose half the digits a Cholesky factor of E would.
 * Multiplies prod by the pivots (each at least 1).
 */
MM_INLINE void mm_factor(const int k, const vd *R, const double *lam, vd *B, vd *V, vd *dinv, vd *prod)
{
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            vd s = VD_SET(0.0);
            for (int l = i > j ? i : j; l < k; l++)
                s += R[TRI(l, i)] * lam[l * k + j];
            B[i * k + j] = s;
            V[i * k + j] = i == j ? VD_SET(1.0) : VD_SET(0.0);
        }
    for (int j = 0; j < k; j++) {
        vd d = VD_SET(1.0);
        for (int l = 0; l < j; l++)
            d += V[j * k + l] * V[j * k + l];
        for (int l = 0; l < k; l++)
            d += B[j * k + l] * B[j * k + l];
        *prod *= d;
        dinv[j] = 1.0 / d;
        for (int i = j + 1; i < k; i++) {
            vd u = VD_SET(0.0);
            for (int l = 0; l < j; l++)
                u += V[i * k + l] * V[j * k + l];
            for (int l = 0; l < k; l++)
                u += B[i * k + l] * B[j * k + l];
            u *= dinv[j];
            for (int l = 0; l <= j; l++)
                V[i * k + l] -= u * V[j * k + l];
            for (int l = 0; l < k; l++)
                B[i * k + l] -= u * B[j * k + l];
        }
    }
}

/* First pass: G (packed upper triangle, P(P+1)/2) += sum t'E^{-1}t; returns sum log d. */
MM_INLINE double mm_first(const int k, const int P, const vd *data, ptrdiff_t blocks, const double *lam, vd *work,
                          double *G)
{
    const int nR = k * (k + 1) / 2, F = nR + k * P, nG = P * (P + 1) / 2;
    vd *acc = work, *W = acc + nG, *B = W + k * P, *V = B + k * k, *dinv = V + k * k;
    vd prod = VD_SET(1.0);
    double logs = 0.0;
    for (int i = 0; i < nG; i++)
        acc[i] = VD_SET(0.0);
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const vd *R = data + b * F, *t = R + nR;
        mm_factor(k, R, lam, B, V, dinv, &prod);
        if (VD_ANY_ABOVE(prod, 1e100)) {
            logs += VD_LOG(prod);
            prod = VD_SET(1.0);
        }
        for (int j = 0; j < P; j++)
            for (int a = 0; a < k; a++) {
                vd s = t[a * P + j];
                for (int l = 0; l < a; l++)
                    s += V[a * k + l] * t[l * P + j];
                W[a * P + j] = s;
            }
        for (int a = 0; a < k; a++) {
            vd *g = acc;
            for (int j = 0; j < P; j++) {
                vd s = W[a * P + j] * dinv[a];
                for (int l = j; l < P; l++)
                    *g++ += s * W[a * P + l];
            }
        }
    }
    for (int i = 0; i < nG; i++)
        G[i] += VD_SUM(acc[i]);
    return logs + VD_LOG(prod);
}

/* Second pass. v = (-beta, 1); RXinv (p x p, upper). Adds to
 *   T (k2, packed lower): sum K - [reml] sum B B',  B = Z'V^{-1}X RX^{-1};   S (k2): sum c c';
 *   F (k2 x k2): sum K (x) c c'  and  H (k, p, k): sum Z'V^{-1}X (x) c   (order 2).
 */
MM_INLINE void mm_second(const int k, const int P, const int order, const int reml, const vd *data, ptrdiff_t blocks,
                         const double *lam, const double *v, const double *RXinv, vd *work, double *T, double *S,
                         double *F, double *H)
{
    const int p = P - 1, nR = k * (k + 1) / 2, nF = nR + k * P, k2 = nR;
    const int need_B = p > 0 && (reml || order >= 2);
    vd *aT = work, *aS = aT + k2, *aF = aS + k2, *aH = aF + k2 * k2, *B = aH + k * p * k, *V = B + k * k;
    vd *dinv = V + k * k, *Y = dinv + k, *c = Y + k * k, *e = c + k, *K = e + k, *cc = K + k2, *Q = cc + k2;
    vd *W = Q + k * P;
    vd prod = VD_SET(1.0);
    for (int i = 0; i < k2; i++)
        aT[i] = aS[i] = VD_SET(0.0);
    if (order >= 2) {
        for (int i = 0; i < k2 * k2; i++)
            aF[i] = VD_SET(0.0);
        for (int i = 0; i < k * p * k; i++)
            aH[i] = VD_SET(0.0);
    }
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const vd *R = data + b * nF, *t = R + nR;
        mm_factor(k, R, lam, B, V, dinv, &prod);
        /* Y = U^{-1} R',  e = U^{-1} (t v) */
        for (int j = 0; j < k; j++)
            for (int a = 0; a < k; a++) {
                vd s = j >= a ? R[TRI(j, a)] : VD_SET(0.0);
                for (int l = 0; l < a && l <= j; l++)
                    s += V[a * k + l] * R[TRI(j, l)];
                Y[a * k + j] = s;
            }
        for (int a = 0; a < k; a++) {
            vd s = VD_SET(0.0);
            for (int j = 0; j < P; j++)
                s += t[a * P + j] * v[j];
            e[a] = s;
        }
        for (int a = k - 1; a >= 0; a--)
            for (int l = 0; l < a; l++)
                e[a] += V[a * k + l] * e[l];
        for (int a = 0; a < k; a++) {
            vd s = VD_SET(0.0);
            for (int l = 0; l < k; l++)
                s += Y[l * k + a] * e[l] * dinv[l];
            c[a] = s;
        }
        for (int a = 0; a < k; a++)
            for (int j = 0; j <= a; j++) {
                vd s = VD_SET(0.0);
                for (int l = 0; l < k; l++)
                    s += Y[l * k + a] * Y[l * k + j] * dinv[l];
                K[TRI(a, j)] = s;
                cc[TRI(a, j)] = c[a] * c[j];
            }
        for (int i = 0; i < k2; i++) {
            aT[i] += K[i];
            aS[i] += cc[i];
        }
        if (order >= 2)
            for (int i = 0; i < k2; i++)
                for (int j = 0; j < k2; j++)
                    aF[i * k2 + j] += K[i] * cc[j];
        if (need_B) {
            for (int j = 0; j < p; j++) {
                for (int a = 0; a < k; a++) {
                    vd s = t[a * P + j];
                    for (int l = 0; l < a; l++)
                        s += V[a * k + l] * t[l * P + j];
                    Q[a * P + j] = s * dinv[a];
                }
            }
            for (int a = 0; a < k; a++)
                for (int j = 0; j < p; j++) {
                    vd s = VD_SET(0.0);
                    for (int l = 0; l < k; l++)
                        s += Y[l * k + a] * Q[l * P + j];
                    W[a * p + j] = s;
                }
            if (order >= 2)
                for (int a = 0; a < k; a++)
                    for (int j = 0; j < p; j++)
                        for (int r = 0; r < k; r++)
                            aH[(a * p + j) * k + r] += W[a * p + j] * c[r];
            if (reml)
                for (int j = 0; j < p; j++) {
                    for (int a = 0; a < k; a++) {
                        vd s = VD_SET(0.0);
                        for (int l = 0; l <= j; l++)
                            s += W[a * p + l] * RXinv[l * p + j];
                        e[a] = s;
                    }
                    for (int a = 0; a < k; a++)
                        for (int r = 0; r <= a; r++)
                            aT[TRI(a, r)] -= e[a] * e[r];
                }
        }
        prod = VD_SET(1.0);
    }
    for (int i = 0; i < k2; i++) {
        T[i] += VD_SUM(aT[i]);
        S[i] += VD_SUM(aS[i]);
    }
    if (order >= 2) {
        for (int i = 0; i < k2 * k2; i++)
            F[i] += VD_SUM(aF[i]);
        for (int i = 0; i < k * p * k; i++)
            H[i] += VD_SUM(aH[i]);
    }
}

/* numbers (not vds) of work space for either pass */
static ptrdiff_t mm_work_size(int k, int P)
{
    ptrdiff_t k2 = (ptrdiff_t)k * (k + 1) / 2;
    ptrdiff_t first = (ptrdiff_t)P * (P + 1) / 2 + (ptrdiff_t)k * P + 2 * k * k + 2 * k;
    ptrdiff_t second = 4 * k2 + k2 * k2 + (ptrdiff_t)k * P * k + 3 * k * k + 4 * k + 2 * (ptrdiff_t)k * P;
    return LANES * ((first > second ? first : second) + 8);
}

#define MM_BY_SHAPE(CALL)              \
    if (k == 1 && P == 2) CALL(1, 2);  \
    else if (k == 1) CALL(1, P);       \
    else if (k == 2 && P == 2) CALL(2, 2); \
    else if (k == 2 && P == 3) CALL(2, 3); \
    else if (k == 2) CALL(2, P);       \
    else if (k == 3) CALL(3, P);       \
    else if (k == 4) CALL(4, P);       \
    else CALL(k, P);

MM_CLONES
static double mm_first_pass(int k, int P, const double *data, ptrdiff_t blocks, const double *lam, double *work,
                            double *G)
{
    double out = 0.0;
#define CALL(K_, P_) out = mm_first(K_, P_, (const vd *)data, blocks, lam, (vd *)work, G)
    MM_BY_SHAPE(CALL)
#undef CALL
    return out;
}

MM_CLONES
static void mm_second_pass(int k, int P, int order, int reml, const double *data, ptrdiff_t blocks, const double *lam,
                           const double *v, const double *RXinv, double *work, double *T, double *S, double *F,
                           double *H)
{
#define CALL(K_, P_) \
    mm_second(K_, P_, order, reml, (const vd *)data, blocks, lam, v, RXinv, (vd *)work, T, S, F, H)
    MM_BY_SHAPE(CALL)
#undef CALL
}

#endif
