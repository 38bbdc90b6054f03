"""Tail probabilities of t, F and chi-squared as plain floats, and quantiles of t.

A table of coefficients needs a handful of them: importing SciPy's special functions takes longer than
fitting and printing a model. The incomplete beta function is compiled (`mixedmodels.solver._kernels.tails`).
"""

from __future__ import annotations

import math
from statistics import NormalDist

from mixedmodels.solver._kernels.tails import beta_tail, log_front, t_tail

__all__ = ["beta_tail", "chi2_tail", "f_tail", "t_quantile", "t_tail"]


def f_tail(F: float, num_df: float, den_df: float) -> float:
    """P(F > f) for Fisher's F; chi-squared over its df for infinite den_df."""
    if F != F or den_df != den_df or den_df <= 0.0:
        return math.nan
    if F <= 0.0:
        return 1.0
    if math.isinf(F):
        return 0.0
    if den_df > 1e17:
        return chi2_tail(num_df * F, num_df)
    top = num_df * F
    return beta_tail(0.5 * den_df, 0.5 * num_df, den_df / (den_df + top), top / (den_df + top))


def chi2_tail(x: float, df: float) -> float:
    """P(chi-squared > x), by a finite sum for whole df."""
    if x != x:
        return math.nan
    if x <= 0.0:
        return 1.0
    if df != int(df) or df > 2000:
        from scipy.special import gammaincc

        return float(gammaincc(0.5 * df, 0.5 * x))
    half, count = 0.5 * x, int(df)
    if count % 2:
        total = math.erfc(math.sqrt(half))
        log_term, a = -half + 0.5 * math.log(half) - math.lgamma(1.5), 1.5
    else:
        total, log_term, a = math.exp(-half), -half + math.log(half), 2.0
    while 2.0 * (a - 1.0) < count - 0.5:
        total += math.exp(log_term)
        log_term += math.log(half / a)
        a += 1.0
    return min(total, 1.0)


def t_quantile(level: float, df: float) -> float:
    """t with P(-t < T < t) = level: Newton's method on the tail from the Cornish-Fisher expansion."""
    z = NormalDist().inv_cdf(0.5 + 0.5 * level)
    if df != df or df <= 0.0:
        return math.nan
    if df > 1e17:
        return z
    if df < 3.0:
        from scipy.special import stdtrit

        return float(stdtrit(df, 0.5 + 0.5 * level))
    t = z + (z**3 + z) / (4.0 * df) + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * df * df)
    log_density = log_front(0.5 * df, 0.5) - 0.5 * math.log(df)
    tail = 1.0 - level
    for _ in range(30):
        p = t_tail(t, df)
        density = 2.0 * math.exp(log_density - 0.5 * (df + 1.0) * math.log1p(t * t / df))
        if not (density > 0.0 and p > 0.0):
            break
        step = (p / tail - 1.0) * tail / density
        step = max(min(step, 0.5 * (1.0 + t)), -0.5 * t)
        t += step
        if abs(step) <= 1e-14 * (1.0 + t):
            break
    return t
