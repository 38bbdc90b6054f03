# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
r"""Regularised incomplete beta function and tails of Student's t, one number at a time.

With ``x + y = 1`` and ``c = a y - b x + 1`` the continued fraction is (Didonato and Morris 1992, ACM
Transactions on Mathematical Software 18:360-373, section 2; the even part of DLMF 8.17.22)

.. math::
    I_x(a, b) = \frac{x^a y^b}{B(a, b)} \; \frac{1}{\beta_0 +} \frac{\alpha_1}{\beta_1 +}
        \frac{\alpha_2}{\beta_2 +} \cdots, \qquad
    \alpha_m = \frac{(a + m - 1)(a + b + m - 1)\, m (b - m)\, x^2}{(a + 2m - 1)^2},

    \beta_m = m + \frac{m (b - m) x}{a + 2m - 1} + \frac{(a + m)(c + m (1 + y))}{a + 2m + 1} .

Nothing in it cancels as long as x and y are both known to full accuracy, which holds for any size of a and b.
"""

from libc.math cimport NAN, erfc, exp, fabs, isinf, lgamma, log, log1p, sqrt

cdef enum:
    TERMS = 200000
cdef double EPS = 2e-16
cdef double TINY = 1e-300
cdef double LARGE = 20.0            # from here on Stirling's series is exact to the last digit
cdef double TWO_PI = 6.283185307179586
cdef double NORMAL = 1e17            # degrees of freedom from which t is normal to the last digit


cdef inline double _stirling(double x) noexcept nogil:
    """``lgamma(x) - (x - 1/2) log x + x - log(2 pi)/2`` for x >= LARGE."""
    cdef double r = 1.0 / (x * x)
    return (1.0 / 12 - r * (1.0 / 360 - r * (1.0 / 1260 - r * (1.0 / 1680 - r / 1188)))) / x


cdef double _log_front(double a, double b) noexcept nogil:
    """``-log B(a, b)``; the difference of log-gammas is taken by Stirling's series where it would cancel."""
    cdef double small = min(a, b), large = max(a, b), total = a + b
    if large < LARGE:
        return lgamma(total) - lgamma(a) - lgamma(b)
    return (
        (large - 0.5) * log1p(small / large) + small * log(total) - small
        + _stirling(total) - _stirling(large) - lgamma(small)
    )


cdef inline double _log(double x, double y) noexcept nogil:
    """log x for x = 1 - y, from whichever is known better."""
    return log(x) if x < 0.5 else log1p(-y)


cdef double _front(double a, double b, double x, double y) noexcept nogil:
    """``x^a y^b / B(a, b)``."""
    if a < LARGE or b < LARGE:
        return exp(_log_front(a, b) + a * _log(x, y) + b * _log(y, x))
    cdef double far = a * y - b * x, total = a + b       # from the mean, x = a / (a + b)
    cdef double rest = _stirling(total) - _stirling(a) - _stirling(b)
    cdef double power = a * _log(x * total / a, far / a) + b * _log(y * total / b, -far / b)
    return exp(power + rest) * sqrt(a / total * b / TWO_PI)


cdef double _fraction(double a, double b, double x, double y) noexcept nogil:
    """I_x(a, b) for x below its mean, by Lentz's method."""
    cdef double front = _front(a, b, x, y)
    if front == 0.0:
        return 0.0
    cdef double c = a * y - b * x + 1.0, s = a + 1.0, e, alpha, beta, C, D, change
    cdef double f = a * c / s
    cdef int m
    C, D = f, 0.0
    for m in range(1, TERMS):
        e = a + 2.0 * m
        alpha = (a + m - 1.0) / (e - 1.0) * ((a + b + m - 1.0) / (e - 1.0)) * m * (b - m) * x * x
        beta = m + m * (b - m) * x / (e - 1.0) + (a + m) * (c + m * (1.0 + y)) / (e + 1.0)
        D = beta + alpha * D
        D = 1.0 / (D if fabs(D) > TINY else TINY)
        C = beta + alpha / C
        C = C if fabs(C) > TINY else TINY
        change = C * D
        f *= change
        if fabs(change - 1.0) < EPS:
            break
    return front / f


cdef double _beta(double a, double b, double x, double y) noexcept nogil:
    if x <= 0.0:
        return 0.0
    if y <= 0.0:
        return 1.0
    if x * (a + b + 2.0) > a + 1.0:
        return 1.0 - _fraction(b, a, y, x)
    return _fraction(a, b, x, y)


def beta_tail(double a, double b, double x, double complement):
    r"""Regularised incomplete beta function :math:`I_x(a, b)`, given x and 1 - x."""
    return _beta(a, b, x, complement)


def log_front(double a, double b):
    """``-log B(a, b)``."""
    return _log_front(a, b)


def t_tail(double t, double df):
    """P(|T| > |t|) for Student's t; normal for infinite df, NaN where t or df is missing."""
    if t != t or not df > 0.0:
        return NAN
    if df > NORMAL:
        return erfc(fabs(t) / sqrt(2.0))
    cdef double square = t * t
    if isinf(square):
        return 0.0
    return _beta(0.5 * df, 0.5, df / (df + square), square / (df + square))
