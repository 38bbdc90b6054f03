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
 * (`Family.kernel_constant`; 0.0 where only derivatives matter); for ordered categories it says instead whether the
 * category is the first (1.0), the last (2.0) or between two thresholds (0.0). Weights are applied by the caller.
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
    MM_GAMMA_LOG = 7,
    MM_CUMULATIVE_LOGIT = 8
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

/* y log mu + (m - y) log(1 - mu) from the derivatives of both logarithms; terms with a zero count are left out. */
static inline void mm_binomial_mix(double y, double m, double constant, const double* up, const double* down,
                                   int order, double* out) {
    const double rest = m - y;
    for (int k = 0; k <= order; k++) {
        double total = k ? 0.0 : constant;
        if (y != 0.0) total += y * up[k];
        if (rest != 0.0) total += rest * down[k];
        out[k] = total;
    }
}

/* log Phi(v) and derivatives. r = phi/Phi; below -2 by the continued fraction r = x + c1, c_k = k/(x + c_(k+1)) at
 * x = -v, with c_k' = c_k (c_(k+1) - c_k), in which nothing cancels. */
static inline void mm_log_ndtr(double v, int order, double* out) {
    const double log_root_2pi = 0.91893853320467274178;
    if (v < -2.0) {
        const double x = -v;
        const int terms = x > 30.0 ? 12 : (int)(12.0 + 440.0 / (x * x));
        double c = 0.0;
        for (int k = terms; k > 4; k--) c = k / (x + c);
        const double c4 = 4.0 / (x + c), c3 = 3.0 / (x + c4), c2 = 2.0 / (x + c3), c1 = 1.0 / (x + c2);
        const double r = x + c1, d = c3 - c2;
        out[0] = -0.5 * x * x - log_root_2pi - log(r);
        if (order < 1) return;
        out[1] = r;
        if (order < 2) return;
        out[2] = -r * c1;
        if (order < 3) return;
        out[3] = r * c1 * c1 * c2 * d;
        if (order < 4) return;
        out[4] = out[3] * (-3.0 * c1 + c2 + c3 + (c3 * (c4 - c3) - c2 * d) / d);
        return;
    }
    const double root_half = 0.70710678118654752440;
    const double tail = 0.5 * erfc(fabs(v) * root_half), Phi = v < 0.0 ? tail : 1.0 - tail;
    out[0] = v < 0.0 ? log(tail) : log1p(-tail);
    if (order < 1) return;
    const double r = exp(-0.5 * v * v - log_root_2pi) / Phi, r1 = -r * (v + r);
    out[1] = r;
    if (order < 2) return;
    out[2] = r1;
    if (order < 3) return;
    out[3] = -r1 * (v + r) - r * (1.0 + r1);
    if (order < 4) return;
    out[4] = -out[3] * (v + r) - 2.0 * r1 * (1.0 + r1) - r * out[3];
}

static inline void mm_binomial_probit(double y, double m, double constant, double eta, int order, double* out) {
    double up[5] = {0.0}, down[5] = {0.0};
    if (y != 0.0) mm_log_ndtr(eta, order, up);
    if (y != m) {
        mm_log_ndtr(-eta, order, down);
        for (int k = 1; k <= order; k += 2) down[k] = -down[k];
    }
    mm_binomial_mix(y, m, constant, up, down, order, out);
}

/* log(1 - exp(-h)), h = exp(eta): g = h/(e^h - 1) has g' = g c, c = 1 - h - g, c' = -h - g c. */
static inline void mm_binomial_cloglog(double y, double m, double constant, double eta, int order, double* out) {
    double up[5] = {0.0}, down[5];
    const double whole = exp(eta);
    for (int k = 0; k <= order; k++) down[k] = -whole;
    if (y != 0.0) {
        const double h = eta < 6.9 ? whole : 992.27471560502534;
        const int tiny = h < 1e-3;
        const double e = expm1(-h), square = h * h; /* e = -(1 - exp(-h)) */
        up[0] = tiny ? eta - h / 2.0 + square / 24.0 - square * square / 2880.0
                     : (h < 0.69314718055994531 ? log(-e) : log1p(-exp(-h)));
        if (order >= 1) {
            const double g = tiny ? 1.0 - h / 2.0 + square / 12.0 - square * square / 720.0 : -h * exp(-h) / e;
            up[1] = g;
            if (order >= 2) {
                double c = 1.0 - h - g;
                if (h < 0.3) {
                    c = square * (1.0 / 30240.0 - square * (1.0 / 1209600.0 - square * (1.0 / 47900160.0)));
                    c = h * (-0.5 - h * (1.0 / 12.0 - square * (1.0 / 720.0 - c)));
                }
                const double c1 = -h - g * c, c2 = -h - g * (c * c + c1);
                up[2] = g * c;
                if (order >= 3) up[3] = g * (c * c + c1);
                if (order >= 4) up[4] = g * (c * c * c + 3.0 * c * c1 + c2);
            }
        }
    }
    mm_binomial_mix(y, m, constant, up, down, order, out);
}

/* Coefficients h_i of log Gamma(z) = (z - 1/2) log z - z + log(2 pi)/2 + sum_i h_i z^-(2 i + 1). */
static const double MM_STIRLING[8] = {1.0 / 12.0,        -1.0 / 360.0,      1.0 / 1260.0, -1.0 / 1680.0,
                                      1.0 / 1188.0,      -691.0 / 360360.0, 1.0 / 156.0,  -3617.0 / 122400.0};

/* Remainder c(a) of Stirling's formula at a = exp(delta) and its derivatives in delta: the series from 12 on; below,
 * c(a) = c(a + n) + sum_j of one step, (a + j + 1/2) log(1 + 1/(a + j)) - 1, j < n. With a step's
 * z = a + j, its derivative in z is log((z + 1)/z) - 1/(2 z) - 1/(2 (z + 1)), whose further ones are powers. */
static inline void mm_stirling(double delta, int order, double* out) {
    const double a = exp(delta);
    double z = a, d[5] = {0.0}; /* derivatives in a */
    while (z < 12.0) {
        const double up = 1.0 / (z + 1.0), down = 1.0 / z, step = log1p(down);
        d[0] += (z + 0.5) * step - 1.0;
        if (order >= 1) d[1] += step - 0.5 * (down + up);
        if (order >= 2) d[2] += up - down + 0.5 * (down * down + up * up);
        if (order >= 3) d[3] += down * down - up * up - (down * down * down + up * up * up);
        if (order >= 4) {
            const double u2 = up * up, w2 = down * down;
            d[4] += 2.0 * (u2 * up - w2 * down) + 3.0 * (w2 * w2 + u2 * u2);
        }
        z += 1.0;
    }
    const double r = 1.0 / z, r2 = r * r;
    double power = r;
    for (int i = 0; i < 8; i++) { /* power = z^-k */
        const double k = 2.0 * i + 1.0;
        double term = MM_STIRLING[i] * power;
        d[0] += term;
        for (int m = 1; m <= order; m++) {
            term *= -(k + m - 1.0) * r;
            d[m] += term;
        }
        power *= r2;
    }
    out[0] = d[0]; /* (a d/da)^m by Stirling's numbers */
    if (order >= 1) out[1] = a * d[1];
    if (order >= 2) out[2] = a * (d[1] + a * d[2]);
    if (order >= 3) out[3] = a * (d[1] + a * (3.0 * d[2] + a * d[3]));
    if (order >= 4) out[4] = a * (d[1] + a * (7.0 * d[2] + a * (6.0 * d[3] + a * d[4])));
}

/* Antiderivative in x of log(1 + x/theta) with the corrections of Euler and Maclaurin, added with a sign. */
static inline void mm_rising_tail(double x, double theta, double sign, int order, double* out) {
    const double v = x / theta, z = x + theta, p = x / z, q = theta / z, L = log1p(v);
    const double s2 = p * q, s3 = p * q * (q - p), s4 = p * q * (1.0 - 6.0 * p * q);
    const double ends[5] = {L, -p, s2, -s3, s4};
    double area[5];
    if (v < 0.3) { /* sum_k (-v)^k (1 - k)^m / (k (k - 1)) */
        for (int m = 0; m <= order; m++) area[m] = 0.0;
        for (int k = 36; k > 1; k--) {
            double c = 1.0 / (k * (k - 1.0));
            for (int m = 0; m <= order; m++) {
                area[m] = c - v * area[m];
                c *= 1.0 - k;
            }
        }
        for (int m = 0; m <= order; m++) area[m] *= v * v;
    } else {
        area[0] = (1.0 + v) * L - v;
        area[1] = L - v;
        area[2] = L - p;
        area[3] = L - 2.0 * p + s2;
        area[4] = L - 3.0 * p + 3.0 * s2 - s3;
    }
    for (int m = 0; m <= order; m++) out[m] += sign * (theta * area[m] - 0.5 * ends[m]);
    double power = 1.0 / z;
    for (int i = 0; i < 8; i++) {
        const double k = 2.0 * i + 1.0, h = sign * MM_STIRLING[i] * power;
        out[0] += h;
        if (order >= 1) out[1] -= h * k * q;
        if (order >= 2) out[2] += h * k * q * (k * q - p);
        if (order >= 3) {
            const double third = k * q * (3.0 * k * q * p - p * p + q * p - k * k * q * q);
            out[3] += h * third;
            if (order >= 4)
                out[4] += h * ((3.0 * k * k + k) * q * q * p * (2.0 * p - q) - k * q * p * p * (p - 2.0 * q) -
                               3.0 * k * k * k * q * q * q * p - k * q * third);
        }
        power /= z * z;
    }
}

/* log(Gamma(y + theta)/(Gamma(theta) theta^y)) = sum_{j<y} log(1 + j/theta) and derivatives in delta = log theta:
 * term by term up to y = 40, else to 12 and the rest by Euler and Maclaurin. */
static inline void mm_rising(double y, double delta, int order, double* out) {
    const double theta = exp(delta), t = exp(-delta);
    const int many = y > 40.0, stop = many ? 12 : (int)y;
    double product = 1.0, log_sum = 0.0;
    for (int m = 0; m <= order; m++) out[m] = 0.0;
    for (int j = 1; j < stop; j++) {
        const double x = j * t;
        if (x > 1e100) log_sum += log(x);
        else product *= 1.0 + x;
        if (product > 1e150) {
            log_sum += log(product);
            product = 1.0;
        }
        if (order < 1) continue;
        const double z = 1.0 / (j + theta), p = j * z, q = theta * z;
        out[1] -= p;
        if (order < 2) continue;
        const double s = p * q;
        out[2] += s;
        if (order >= 3) out[3] -= s * (q - p);
        if (order >= 4) out[4] += s * (1.0 - 6.0 * s);
    }
    out[0] = log_sum + log(product);
    if (many) {
        mm_rising_tail(y, theta, 1.0, order, out);
        mm_rising_tail(12.0, theta, -1.0, order, out);
    }
}

/* k(s) = log(1 + e^s) e^-s and derivatives. */
static inline void mm_softplus_ratio(double s, int order, double* out) {
    const double x = exp(s < 700.0 ? s : 700.0);
    if (x < 0.3) { /* sum_j (-x)^j j^m / (j + 1), with as many terms as x needs */
        const int terms = x < 1e-3 ? 7 : x < 0.03 ? 13 : 36;
        for (int m = 0; m <= order; m++) out[m] = 0.0;
        for (int j = terms; j >= 0; j--) {
            double c = 1.0 / (j + 1.0);
            for (int m = 0; m <= order; m++) {
                out[m] = c - x * out[m];
                c *= j;
            }
        }
        return;
    }
    const double L = mm_log1p(x), z = 1.0 / (1.0 + x), p = x * z, r = 1.0 / x, s2 = p * z;
    out[0] = L * r;
    if (order >= 1) out[1] = (p - L) * r;
    if (order >= 2) out[2] = (s2 - 2.0 * p + L) * r;
    if (order >= 3) out[3] = (s2 * (z - p) - 3.0 * s2 + 3.0 * p - L) * r;
    if (order >= 4) out[4] = (s2 * (1.0 - 6.0 * s2) - 4.0 * s2 * (z - p) + 6.0 * s2 - 4.0 * p + L) * r;
}

/* Binomial coefficients up to 4. */
static const double MM_CHOOSE[5][5] = {
    {1, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {1, 2, 1, 0, 0}, {1, 3, 3, 1, 0}, {1, 4, 6, 4, 1}};

/* NB2 with s = eta - delta, k = softplus_ratio: f = rising(y, delta) + y eta - y log(1 + e^s) - e^eta k(s) - log y!.
 * Derivative (i, j) of e^eta k(s) is
 * (-1)^j sum_l C(i, l) k^(j + l) e^eta, and that of a function of s alone (-1)^j times its derivative i + j. */
static inline void mm_nbinom2_log(double y, double constant, const double* eta, int order, int mean_only,
                                  double* out) {
    const double s = eta[0] - eta[1], mu = exp(eta[0]), e = exp(-fabs(s));
    const double small = e / (1.0 + e), large = 1.0 / (1.0 + e);
    const double p = s >= 0.0 ? large : small, q = s >= 0.0 ? small : large, v = p * q;
    const double soft[5] = {(s > 0.0 ? s : 0.0) + mm_log1p(e), p, v, v * (q - p), v * (1.0 - 6.0 * v)};
    double k[5], G[5];
    mm_softplus_ratio(s, order, k);
    mm_rising(y, eta[1], mean_only ? 0 : order, G);
    if (mean_only) {
        for (int i = 0; i <= order; i++) {
            double total = 0.0;
            for (int l = 0; l <= i; l++) total += MM_CHOOSE[i][l] * k[l];
            out[i] = -y * soft[i] - mu * total;
        }
        out[0] += y * eta[0] + G[0] + constant;
        if (order >= 1) out[1] = (y - mu) * q; /* the first two without cancellation */
        if (order >= 2) out[2] = -(y + exp(eta[1])) * v;
        return;
    }
    int at = 0;
    for (int total_order = 0; total_order <= order; total_order++)
        for (int i = total_order; i >= 0; i--, at++) {
            const int j = total_order - i;
            double total = 0.0;
            for (int l = 0; l <= i; l++) total += MM_CHOOSE[i][l] * k[j + l];
            const double value = -y * soft[total_order] - mu * total;
            out[at] = j & 1 ? -value : value;
            if (i == 0) out[at] += G[j];
        }
    out[0] += y * eta[0] + constant;
    if (order >= 1) out[1] = (y - mu) * q;
    if (order >= 2) out[3] = -(y + exp(eta[1])) * v;
}

/* f = -r^2 exp(-2 delta)/2 - delta - log(2 pi)/2, r = y - eta */
static inline void mm_gaussian_identity(double y, double constant, const double* eta, int order, int mean_only,
                                        double* out) {
    const double r = y - eta[0], w = exp(-2.0 * eta[1]), f = -0.5 * w * r * r;
    const double by_mean[3] = {f, w * r, -w}; /* each times (-2)^j under delta */
    const double known = constant - 0.91893853320467274178 - eta[1];
    int at = 0;
    if (mean_only) {
        for (int i = 0; i <= order; i++) out[i] = i < 3 ? by_mean[i] : 0.0;
        out[0] += known;
        return;
    }
    for (int total = 0; total <= order; total++) {
        double factor = 1.0;
        for (int i = total; i >= 0; i--, at++) {
            out[at] = i < 3 ? by_mean[i] * factor : 0.0;
            factor *= -2.0;
        }
    }
    out[0] += known;
    if (order >= 1) out[2] -= 1.0;
}

/* Gamma with z = log y - eta and shape a = exp(delta):
 * f = -a (e^z - 1 - z) + (delta - log 2 pi)/2 - c(delta) + constant, constant = -log y */
static inline void mm_gamma_log(double y, double constant, const double* eta, int order, int mean_only,
                                double* out) {
    const double z = log(y) - eta[0], a = exp(eta[1]), rise = expm1(z), u = rise + 1.0;
    double excess = rise - z, c[5];
    if (fabs(z) < 0.5) {
        excess = 0.0;
        for (int k = 16; k > 2; k--) excess = z / k * (1.0 + excess);
        excess = 0.5 * z * z * (1.0 + excess);
    }
    const double by_mean[5] = {-a * excess, a * rise, -a * u, a * u, -a * u};
    const double known = 0.5 * eta[1] - 0.91893853320467274178 + constant;
    mm_stirling(eta[1], mean_only ? 0 : order, c);
    if (mean_only) {
        for (int i = 0; i <= order; i++) out[i] = by_mean[i];
        out[0] += known - c[0];
        return;
    }
    int at = 0;
    for (int total = 0; total <= order; total++)
        for (int i = total; i >= 0; i--, at++) {
            out[at] = by_mean[i];
            if (i == 0) out[at] -= c[total];
        }
    out[0] += known;
    if (order >= 1) out[2] += 0.5;
}

/* Logarithm of the logistic distribution function at x and derivatives. */
static inline void mm_log_expit(double x, int order, double* out) {
    const double e = exp(-fabs(x)), small = e / (1.0 + e), large = 1.0 / (1.0 + e);
    const double q = x >= 0.0 ? small : large, v = small * large;
    out[0] = (x >= 0.0 ? 0.0 : x) - mm_log1p(e);
    if (order >= 1) out[1] = q;
    if (order >= 2) out[2] = -v;
    if (order >= 3) out[3] = x >= 0.0 ? v * (large - small) : -v * (large - small);
    if (order >= 4) out[4] = -v * (1.0 - 6.0 * v);
}

/* Ordered categories, with a = upper - eta, b = lower - eta and G the logistic distribution function:
 * f = log G(a) + log G(-b) + log(1 - e^(b - a)), without the first term in the last category, without the second in
 * the first and without the third in both. Each depends on one difference of predictors. */
static inline void mm_cumulative_logit(double kind, const double* eta, int order, int mean_only, double* out) {
    double U[5] = {0.0, 0.0, 0.0, 0.0, 0.0}, V[5] = {0.0, 0.0, 0.0, 0.0, 0.0}, W[5] = {0.0, 0.0, 0.0, 0.0, 0.0};
    if (kind != 2.0) mm_log_expit(eta[1] - eta[0], order, U);
    if (kind != 1.0) {
        mm_log_expit(eta[0] - eta[2], order, V);
        V[1] = -V[1];
        V[3] = -V[3];
    }
    if (kind == 0.0) {
        const double d = eta[1] - eta[2];
        if (!(d > 0.0)) {
            out[0] = NAN;
            return;
        }
        const double rise = expm1(d), w = 1.0 / rise, v = w * (1.0 + w);
        W[0] = d < 0.69314718055994531 ? log(-expm1(-d)) : log1p(-exp(-d));
        if (order >= 1 && !mean_only) {
            W[1] = w;
            W[2] = -v;
            W[3] = v * (1.0 + 2.0 * w);
            W[4] = -v * (1.0 + 6.0 * v);
        }
    }
    int at = 0;
    for (int total = 0; total <= order; total++)
        for (int i = total; i >= (mean_only ? total : 0); i--)
            for (int j = total - i; j >= 0; j--, at++) {
                const int k = total - i - j;
                double value = 0.0;
                if (k == 0) value += i & 1 ? -U[total] : U[total];
                if (j == 0) value += i & 1 ? -V[total] : V[total];
                if (i == 0) value += k & 1 ? -W[total] : W[total];
                out[at] = value;
            }
}

/* Number of linear predictors of a code. */
static inline int mm_density_predictors(int code) {
    return code == MM_CUMULATIVE_LOGIT ? 3 : code >= MM_NBINOM2_LOG ? 2 : 1;
}

/* Numbers that mm_density writes: (C + order choose order). */
static inline int mm_density_count(int code, int order) {
    const int C = mm_density_predictors(code);
    if (C == 3) return (order + 1) * (order + 2) * (order + 3) / 6;
    return C == 1 ? order + 1 : (order + 1) * (order + 2) / 2;
}

static inline int mm_density_mean(int code, double y, double trials, double constant, const double* eta, int order,
                                  double* out) {
    switch (code) {
        case MM_BINOMIAL_LOGIT: mm_binomial_logit(y, trials, constant, eta[0], order, out); break;
        case MM_BINOMIAL_PROBIT: mm_binomial_probit(y, trials, constant, eta[0], order, out); break;
        case MM_BINOMIAL_CLOGLOG: mm_binomial_cloglog(y, trials, constant, eta[0], order, out); break;
        case MM_POISSON_LOG: mm_poisson_log(y, constant, eta[0], order, out); break;
        case MM_NBINOM2_LOG: mm_nbinom2_log(y, constant, eta, order, 1, out); break;
        case MM_GAUSSIAN_IDENTITY: mm_gaussian_identity(y, constant, eta, order, 1, out); break;
        case MM_GAMMA_LOG: mm_gamma_log(y, constant, eta, order, 1, out); break;
        case MM_CUMULATIVE_LOGIT: mm_cumulative_logit(constant, eta, order, 1, out); break;
        default: out[0] = NAN;
    }
    return !isfinite(out[0]);
}

static inline int mm_density(int code, double y, double trials, double constant, const double* eta, int order,
                             double* out) {
    switch (code) {
        case MM_NBINOM2_LOG: mm_nbinom2_log(y, constant, eta, order, 0, out); break;
        case MM_GAUSSIAN_IDENTITY: mm_gaussian_identity(y, constant, eta, order, 0, out); break;
        case MM_GAMMA_LOG: mm_gamma_log(y, constant, eta, order, 0, out); break;
        case MM_CUMULATIVE_LOGIT: mm_cumulative_logit(constant, eta, order, 0, out); break;
        default: return mm_density_mean(code, y, trials, constant, eta, order, out);
    }
    return !isfinite(out[0]);
}

#endif
