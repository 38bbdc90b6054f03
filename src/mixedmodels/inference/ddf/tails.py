"""Tail probabilities of t, F and chi-squared as plain floats, and quantiles of t.

A table of coefficients needs a handful of them: importing SciPy's special functions takes longer than
fitting and printing a model. The incomplete beta function is the continued fraction of Lentz's method.
"""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["beta_tail", "chi2_tail", "f_tail", "t_quantile", "t_tail"]

_TINY = 1e-300
_EPS = 1e-16


def beta_tail(a: float, b: float, x: float, complement: float) -> float:
    r"""Regularised incomplete beta function :math:`I_x(a, b)`, given x and 1 - x.

    The continued fraction of DLMF 8.17.22 for x below its mean, and :math:`1 - I_{1-x}(b, a)` above. Relative
    error below 1e-13 for parameters up to 1e6.
    """
    if x <= 0.0:
        return 0.0
    if complement <= 0.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_fraction(b, a, complement, x)
    return _beta_fraction(a, b, x, complement)


def _beta_fraction(a: float, b: float, x: float, y: float) -> float:
    front = math.exp(_log_front(a, b) + a * math.log(x) + b * _log(y, x)) / a
    if front == 0.0:
        return 0.0
    c, total = 1.0, a + b
    d = 1.0 - total * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    h = d
    for m in range(1, 10_000):
        two = a + 2 * m
        step = m * (b - m) * x / ((two - 1.0) * two)
        d = 1.0 + step * d
        c = 1.0 + step / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        h *= d * c
        step = -(a + m) * (total + m) * x / (two * (two + 1.0))
        d = 1.0 + step * d
        c = 1.0 + step / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        change = d * c
        h *= change
        if abs(change - 1.0) < _EPS * 4.0:
            break
    return front * h


def _log(y: float, x: float) -> float:
    """log y for y = 1 - x, whichever is known better."""
    return math.log1p(-x) if x < 0.5 else math.log(y)


def _log_front(a: float, b: float) -> float:
    """``-log B(a, b)``; the difference of log-gammas is taken by Stirling's series where it would cancel."""
    small, large = (a, b) if a < b else (b, a)
    if large < 50.0:
        return math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    # lgamma(large + small) - lgamma(large)
    total = large + small
    rise = (
        (large - 0.5) * math.log1p(small / large)
        + small * math.log(total)
        - small
        + _stirling(total)
        - _stirling(large)
    )
    return rise - math.lgamma(small)


def _stirling(x: float) -> float:
    """``lgamma(x) - (x - 1/2) log x + x - log(2 pi)/2`` for x >= 50."""
    r = 1.0 / (x * x)
    return (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r / 1680.0))) / x


def t_tail(t: float, df: float) -> float:
    """P(|T| > |t|) for Student's t; normal for infinite df, NaN where t or df is missing."""
    if t != t or df != df or df <= 0.0:
        return math.nan
    if math.isinf(df) or df > 1e9:
        return math.erfc(abs(t) / math.sqrt(2.0))
    square = t * t
    if math.isinf(square):
        return 0.0
    return beta_tail(0.5 * df, 0.5, df / (df + square), square / (df + square))


def f_tail(F: float, num_df: float, den_df: float) -> float:
    """P(F > f) for Fisher's F; chi-squared over its df for infinite den_df."""
    if F != F or den_df != den_df or den_df <= 0.0:
        return math.nan
    if F <= 0.0:
        return 1.0
    if math.isinf(F):
        return 0.0
    if math.isinf(den_df) or den_df > 1e9:
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
    if math.isinf(df) or df > 1e9:
        return z
    if df < 3.0:
        from scipy.special import stdtrit

        return float(stdtrit(df, 0.5 + 0.5 * level))
    t = z + (z**3 + z) / (4.0 * df) + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * df * df)
    log_density = _log_front(0.5 * df, 0.5) - 0.5 * math.log(df)
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
