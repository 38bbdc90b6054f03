/* Log-densities of one observation and their partial derivatives, for engines that fuse them into their passes.
 *
 *   int mm_density(int code, double y, double trials, double constant, const double* eta, int order, double* out)
 *
 * writes the log-density of one row and all its partial derivatives up to the total `order` (0..4) with respect
 * to ALL linear predictors of the family, in the order of `mixedmodels.family.jet.indices`
 * (two predictors: 00, 10, 01, 20, 11, 02, 30, 21, 12, 03, ...).
 *
 *   int mm_density_mean(...)     the same arguments
 *
 * writes them with respect to the first (conditional) predictor only: order + 1 numbers. For mode finding.
 *
 * Both return 0, or 1 where the log-density is not finite (a mean out of its range: the step is to be rejected).
 * `eta` has mm_density_predictors(code) numbers. `trials` is read by binomial codes only (1.0 for 0/1 responses).
 * `constant` is what does not depend on eta and is added to the value: log(trials choose y), -log(y!), ...
 * (`Family.kernel_constant`; 0.0 where only derivatives matter). Weights are applied by the caller.
 */
#ifndef MIXEDMODELS_DENSITIES_H
#define MIXEDMODELS_DENSITIES_H

#include <math.h>

/* The values of `Family.kernel`. */
enum {
    MM_BINOMIAL_LOGIT = 1,
    MM_BINOMIAL_PROBIT = 2,
    MM_BINOMIAL_CLOGLOG = 3,
    MM_POISSON_LOG = 4,
    MM_NBINOM2_LOG = 5,
    MM_GAUSSIAN_IDENTITY = 6,
    MM_GAMMA_LOG = 7
};

/* log(1 + e) for e >= 0: the rounding of 1 + e is put back to first order. */
static inline double mm_log1p(double e) {
    const double u = 1.0 + e;
    return log(u) + (e - (u - 1.0)) / u;
}

/* y successes of m: with p and q = 1 - p both without cancellation,
 * f = y log p + (m - y) log q, f' = y q - (m - y) p, f'' = -m p q, f''' = -m p q (q - p), f'''' = -m p q (1 - 6 p q) */
static inline void mm_binomial_logit(double y, double m, double constant, double eta, int order, double* out) {
    const double e = exp(-fabs(eta)), small = e / (1.0 + e), large = 1.0 / (1.0 + e);
    const int up = eta >= 0.0;
    out[0] = (up ? (y - m) * eta : y * eta) - m * mm_log1p(e) + constant;
    if (order < 1) return;
    const double p = up ? large : small, q = up ? small : large;
    out[1] = y * q - (m - y) * p;
    if (order < 2) return;
    const double v = p * q;
    out[2] = -m * v;
    if (order < 3) return;
    out[3] = -m * v * (q - p);
    if (order < 4) return;
    out[4] = -m * v * (1.0 - 6.0 * v);
}

/* f = y eta - exp(eta) - log y! */
static inline void mm_poisson_log(double y, double constant, double eta, int order, double* out) {
    const double mu = exp(eta);
    out[0] = y * eta - mu + constant;
    if (order < 1) return;
    out[1] = y - mu;
    for (int k = 2; k <= order; k++) out[k] = -mu;
}

/* Number of linear predictors of a code. */
static inline int mm_density_predictors(int code) { return code >= MM_NBINOM2_LOG ? 2 : 1; }

/* Numbers that mm_density writes: (C + order choose order). */
static inline int mm_density_count(int code, int order) {
    return mm_density_predictors(code) == 1 ? order + 1 : (order + 1) * (order + 2) / 2;
}

static inline int mm_density_mean(int code, double y, double trials, double constant, const double* eta, int order,
                                  double* out) {
    switch (code) {
        case MM_BINOMIAL_LOGIT: mm_binomial_logit(y, trials, constant, eta[0], order, out); break;
        case MM_POISSON_LOG: mm_poisson_log(y, constant, eta[0], order, out); break;
        default: out[0] = NAN;
    }
    return !isfinite(out[0]);
}

static inline int mm_density(int code, double y, double trials, double constant, const double* eta, int order,
                             double* out) {
    if (mm_density_predictors(code) == 1) return mm_density_mean(code, y, trials, constant, eta, order, out);
    out[0] = NAN;
    return 1;
}

#endif
