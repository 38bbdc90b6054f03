/* Log-densities of many rows: LANES at a time for the families that fits spend their time on, the scalar
 * functions of densities.h for the others. Tables have the order of `mixedmodels.family.jet.indices`.
 *
 * exp and log1p are polynomials in vector registers: relative errors below 4e-16 (measured against libm in
 * tests/solver), no branch and no table. exp is clamped at exp(-708), where the smallest normal number is near.
 */
#ifndef MIXEDMODELS_DENSITY_ROWS_H
#define MIXEDMODELS_DENSITY_ROWS_H

#include "densities.h"
#include "lanes.h"

#if LANES == 4
typedef long long vl __attribute__((vector_size(32), aligned(8)));

MM_INLINE vd mm_pick(vl mask, vd a, vd b) { return (vd)((mask & (vl)a) | (~mask & (vl)b)); }
MM_INLINE vd mm_abs(vd x) { return (vd)((vl)x & (vl){0x7fffffffffffffffLL, 0x7fffffffffffffffLL,
                                                     0x7fffffffffffffffLL, 0x7fffffffffffffffLL}); }

/* exp(x), x = j log 2 + r with |r| <= log(2) / 2: Taylor polynomial of degree 13 in r, times 2^j. */
MM_INLINE vd mm_vexp(vd x) {
    const vd magic = VD_SET(6755399441055744.0);            /* 1.5 * 2^52: its last bits hold the integer */
    const vd low = VD_SET(-708.0), high = VD_SET(709.0);
    const vd y = mm_pick(x < low, low, mm_pick(x > high, high, x));
    const vd shifted = y * VD_SET(1.4426950408889634) + magic;
    const vd j = shifted - magic;
    const vd r = (y - j * VD_SET(6.93147180369123816490e-01)) - j * VD_SET(1.90821492927058770002e-10);
    const vd r2 = r * r, r4 = r2 * r2, r8 = r4 * r4;
    const vd a0 = VD_SET(1.0) + r, a1 = VD_SET(0.5) + r * VD_SET(1.0 / 6.0);
    const vd a2 = VD_SET(1.0 / 24.0) + r * VD_SET(1.0 / 120.0);
    const vd a3 = VD_SET(1.0 / 720.0) + r * VD_SET(1.0 / 5040.0);
    const vd a4 = VD_SET(1.0 / 40320.0) + r * VD_SET(1.0 / 362880.0);
    const vd a5 = VD_SET(1.0 / 3628800.0) + r * VD_SET(1.0 / 39916800.0);
    const vd a6 = VD_SET(1.0 / 479001600.0) + r * VD_SET(1.0 / 6227020800.0);
    const vd poly = (a0 + r2 * a1) + r4 * (a2 + r2 * a3) + r8 * ((a4 + r2 * a5) + r4 * a6);
    const vl bits = ((vl)shifted - (vl)magic) << 52;
    const vd value = (vd)((vl)poly + bits);
    const vd infinite = VD_SET(INFINITY);
    return mm_pick(x > VD_SET(709.0), infinite, mm_pick(x == x, value, x));
}

/* log(1 + e), 0 <= e <= 1: 2 atanh(t / (2 + t)) with t = e, or t = (e - 1) / 2 and log 2 above sqrt(2) - 1. */
MM_INLINE vd mm_vlog1p(vd e) {
    const vl big = e > VD_SET(0.41421356237309503);
    const vd t = mm_pick(big, (e - VD_SET(1.0)) * VD_SET(0.5), e);
    const vd f = t / (VD_SET(2.0) + t), s = f * f, s2 = s * s, s4 = s2 * s2;
    const vd b0 = VD_SET(1.0 / 3.0) + s * VD_SET(1.0 / 5.0), b1 = VD_SET(1.0 / 7.0) + s * VD_SET(1.0 / 9.0);
    const vd b2 = VD_SET(1.0 / 11.0) + s * VD_SET(1.0 / 13.0), b3 = VD_SET(1.0 / 15.0) + s * VD_SET(1.0 / 17.0);
    const vd b4 = VD_SET(1.0 / 19.0) + s * VD_SET(1.0 / 21.0);
    const vd tail = (b0 + s2 * b1) + s4 * ((b2 + s2 * b3) + s4 * b4);
    const vd two = f + f;
    return mm_pick(big, VD_SET(0.69314718055994531), VD_SET(0.0)) + (two + two * s * tail);
}

MM_INLINE void mm_vlogit(vd y, vd m, vd constant, vd eta, int order, vd* out) {
    const vl up = eta >= VD_SET(0.0);
    const vd e = mm_vexp(-mm_abs(eta)), large = VD_SET(1.0) / (VD_SET(1.0) + e), small = e * large;
    const vd p = mm_pick(up, large, small), q = mm_pick(up, small, large);
    out[0] = mm_pick(up, y - m, y) * eta - m * mm_vlog1p(e) + constant;
    if (order < 1) return;
    out[1] = y * q - (m - y) * p;
    if (order < 2) return;
    const vd v = large * small, mv = m * v;
    out[2] = -mv;
    if (order < 3) return;
    out[3] = -mv * (q - p);
    if (order < 4) return;
    out[4] = -mv * (VD_SET(1.0) - VD_SET(6.0) * v);
}

MM_INLINE void mm_vpoisson(vd y, vd constant, vd eta, int order, vd* out) {
    const vd mu = mm_vexp(eta);
    out[0] = y * eta - mu + constant;
    if (order < 1) return;
    out[1] = y - mu;
    for (int k = 2; k <= order; k++) out[k] = -mu;
}

/* LANES rows; trials, constant and weights may be NULL. */
MM_INLINE void mm_density_lanes(int code, const double* y, const double* trials, const double* constant,
                                const double* weights, const double* eta, int order, double* out,
                                ptrdiff_t stride) {
    vd part[5];
    const vd m = trials ? *(const vd*)trials : VD_SET(1.0);
    const vd c = constant ? *(const vd*)constant : VD_SET(0.0);
    if (code == MM_BINOMIAL_LOGIT)
        mm_vlogit(*(const vd*)y, m, c, *(const vd*)eta, order, part);
    else
        mm_vpoisson(*(const vd*)y, c, *(const vd*)eta, order, part);
    for (int t = 0; t <= order; t++)
        *(vd*)(out + t * stride) = weights ? part[t] * *(const vd*)weights : part[t];
}
#endif

/* Tables of n rows. eta and out have `stride` numbers per line; with `mean` only derivatives with respect to
 * the first predictor. Values that are not finite stay so. */
MM_INLINE void mm_density_rows(int code, ptrdiff_t n, const double* y, const double* trials,
                               const double* constant, const double* weights, const double* eta, int order,
                               int mean, double* out, ptrdiff_t stride) {
    ptrdiff_t i = 0;
#if LANES == 4
    if (code == MM_BINOMIAL_LOGIT || code == MM_POISSON_LOG) {
        for (; i + LANES <= n; i += LANES)
            mm_density_lanes(code, y + i, trials ? trials + i : NULL, constant ? constant + i : NULL,
                             weights ? weights + i : NULL, eta + i, order, out + i, stride);
        if (i < n) {                                         /* the last rows, through padded copies */
            double py[LANES], pt[LANES], pc[LANES], pw[LANES], pe[LANES], po[5 * LANES];
            for (int j = 0; j < LANES; j++) {
                const ptrdiff_t r = i + j < n ? i + j : i;
                py[j] = y[r];
                pt[j] = trials ? trials[r] : 1.0;
                pc[j] = constant ? constant[r] : 0.0;
                pw[j] = weights ? weights[r] : 1.0;
                pe[j] = eta[r];
            }
            mm_density_lanes(code, py, pt, pc, pw, pe, order, po, LANES);
            for (int t = 0; t <= order; t++)
                for (int j = 0; i + j < n; j++) out[t * stride + i + j] = po[t * LANES + j];
        }
        return;
    }
#endif
    const int C = mm_density_predictors(code);
    const int count = mean ? order + 1 : mm_density_count(code, order);
    double point[8], part[128];
    for (; i < n; i++) {
        for (int c = 0; c < C; c++) point[c] = eta[c * stride + i];
        const double m = trials ? trials[i] : 1.0, add = constant ? constant[i] : 0.0;
        const int bad = mean ? mm_density_mean(code, y[i], m, add, point, order, part)
                             : mm_density(code, y[i], m, add, point, order, part);
        const double w = weights ? weights[i] : 1.0;
        for (int t = 0; t < count; t++) out[t * stride + i] = bad ? NAN : w * part[t];
    }
}

/* As `mm_density_rows`, for the processor at hand; lines of n numbers. */
MM_CLONES static void mm_density_table(int code, ptrdiff_t n, const double* y, const double* trials,
                                       const double* constant, const double* weights, const double* eta, int order,
                                       int mean, double* out) {
    mm_density_rows(code, n, y, trials, constant, weights, eta, order, mean, out, n);
}

#endif
