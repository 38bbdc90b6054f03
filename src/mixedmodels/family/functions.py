"""Functions that log-densities are written with: on arrays their values, on jets all derivatives too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.family.jet import Jet

__all__ = [
    "apply",
    "exp",
    "expm1",
    "lgamma",
    "log",
    "log1mexp",
    "log1p",
    "log_expit",
    "log_mean_cloglog",
    "log_ndtr",
    "logaddexp",
    "polygamma",
    "power",
    "softplus",
    "sqrt",
    "where",
]


def apply(x: Any, function: Callable[[np.ndarray, int], list[Any]]) -> Any:
    """A function of one variable, from ``function(values, order)`` that gives it and its derivatives.

    Parameters
    ----------
    x : ndarray or Jet
    function : callable
        Takes an array and an order; returns the order + 1 arrays g, g', ...
    """
    if isinstance(x, Jet):
        return x.compose(function(np.asarray(x.c[0], dtype=float), x.order))
    return function(np.asarray(x, dtype=float), 0)[0]


def exp(x: Any) -> Any:
    """Exponential."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        e = np.exp(v)
        return [e] * (order + 1)

    return apply(x, derivatives)


def log(x: Any) -> Any:
    """Natural logarithm."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        out, inverse = [np.log(v)], 1.0 / v
        power_ = inverse
        for k in range(1, order + 1):
            out.append(power_ * ((-1) ** (k - 1) * math.factorial(k - 1)))
            power_ = power_ * inverse
        return out

    return apply(x, derivatives)


def log1p(x: Any) -> Any:
    """``log(1 + x)``."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        out, inverse = [np.log1p(v)], 1.0 / (1.0 + v)
        power_ = inverse
        for k in range(1, order + 1):
            out.append(power_ * ((-1) ** (k - 1) * math.factorial(k - 1)))
            power_ = power_ * inverse
        return out

    return apply(x, derivatives)


def expm1(x: Any) -> Any:
    """``exp(x) - 1``."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        e = np.exp(v)
        return [np.expm1(v)] + [e] * order

    return apply(x, derivatives)


def power(x: Any, exponent: Any) -> Any:
    """``x ** exponent`` for x > 0 (any x for a constant non-negative integer); the exponent may be a jet."""
    if isinstance(exponent, Jet):
        return exp(exponent * log(x))
    a = np.asarray(exponent, dtype=float)

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        out, lead = [], np.ones_like(a)
        for k in range(order + 1):
            out.append(lead * v ** (a - k) if np.any(lead != 0.0) else np.zeros_like(v))
            lead = lead * (a - k)
        return out

    return apply(x, derivatives)


def sqrt(x: Any) -> Any:
    """Square root."""
    return power(x, 0.5)


def lgamma(x: Any) -> Any:
    """Logarithm of the gamma function."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        from scipy.special import gammaln, polygamma, psi

        out = [gammaln(v)]
        if order >= 1:
            out.append(psi(v))
        for k in range(2, order + 1):
            out.append(polygamma(k - 1, v))
        return out

    return apply(x, derivatives)


def polygamma(m: int, x: Any) -> Any:
    """Derivative m + 1 of the logarithm of the gamma function: 0 is digamma, 1 trigamma."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        from scipy.special import polygamma as value

        return [value(m + k, v) for k in range(order + 1)]

    return apply(x, derivatives)


def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``, without overflow."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        e = np.exp(-np.abs(v))
        out = [np.maximum(v, 0.0) + np.log1p(e)]
        if order:
            p = np.where(v >= 0.0, 1.0, e) / (1.0 + e)
            s = e / (1.0 + e) ** 2  # p (1 - p)
            d = np.where(v >= 0.0, -1.0, 1.0) * (1.0 - e) / (1.0 + e)  # 1 - 2 p
            out += [p, s, s * d, s * (1.0 - 6.0 * s)][:order]
        return out

    return apply(x, derivatives)


def log_expit(x: Any) -> Any:
    """``-log(1 + exp(-x))``, the logarithm of the logistic distribution function."""
    return -softplus(-x)


def log1mexp(x: Any) -> Any:
    """``log(1 - exp(-x))`` for x > 0."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        out = [np.where(v < math.log(2.0), np.log(-np.expm1(-v)), np.log1p(-np.exp(-np.maximum(v, 0.0))))]
        if order:
            b = 1.0 / np.expm1(v)  # derivative; b' = -b (1 + b)
            out += [
                b,
                -b * (1.0 + b),
                b * (1.0 + b) * (1.0 + 2.0 * b),
                -b * (1.0 + b) * (1.0 + 6.0 * b * (1.0 + b)),
            ][:order]
        return out

    return apply(x, derivatives)


def log_mean_cloglog(x: Any) -> Any:
    """``log(1 - exp(-exp(x)))``, which is x - exp(x)/2 + ... in the lower tail."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        h = np.exp(np.minimum(v, 6.9))  # exp(-h) is zero from there on
        tiny = h < 1e-3
        inner = np.where(tiny, 1.0, h)
        value = np.where(inner < math.log(2.0), np.log(-np.expm1(-inner)), np.log1p(-np.exp(-inner)))
        out = [np.where(tiny, v - h / 2.0 + h * h / 24.0 - h**4 / 2880.0, value)]
        if order:
            g = np.where(tiny, 1.0 - h / 2.0 + h * h / 12.0 - h**4 / 720.0, inner / np.expm1(inner))
            low = np.where(h < 0.3, h, 0.0)  # c = 1 - h - g, so that g' = g c and c' = -h - g c
            square = low * low
            series = square * (1.0 / 30240.0 - square * (1.0 / 1209600.0 - square * (1.0 / 47900160.0)))
            series = low * (-0.5 - low * (1.0 / 12.0 - square * (1.0 / 720.0 - series)))
            c = np.where(h < 0.3, series, 1.0 - h - g)
            c1 = -h - g * c
            c2 = -h - g * (c * c + c1)
            out += [g, g * c, g * (c * c + c1), g * (c**3 + 3.0 * c * c1 + c2)][:order]
        return out

    return apply(x, derivatives)


def log_ndtr(x: Any) -> Any:
    r"""Logarithm of the standard normal distribution function.

    In the lower tail :math:`\phi(v)/\Phi(v) = -v + c_1` with the continued fraction
    :math:`c_k = k/(-v + c_{k+1})`, for which :math:`c_k' = c_k (c_{k+1} - c_k)`: no derivative cancels.
    """

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        from scipy.special import log_ndtr as value

        f = value(v)
        out = [f]
        if order:
            low = v < -2.0
            # r = phi/Phi satisfies r' = -r (v + r); differentiated twice more
            w = np.where(low, 0.0, v)
            r = np.exp(-0.5 * w * w - 0.5 * math.log(2.0 * math.pi) - np.where(low, 0.0, f))
            r1 = -r * (w + r)
            r2 = -r1 * (w + r) - r * (1.0 + r1)
            r3 = -r2 * (w + r) - 2.0 * r1 * (1.0 + r1) - r * r2
            direct = [r, r1, r2, r3]
            if low.any():
                tail = _mills_tail(-v[low])
                for t, line in enumerate(direct):
                    line = np.array(line)
                    line[low] = tail[t]
                    direct[t] = line
            out += direct[:order]
        return out

    return apply(x, derivatives)


def _mills_tail(x: np.ndarray) -> list[np.ndarray]:
    """Derivatives 1 to 4 of ``log Phi`` at -x, x >= 2."""
    c = np.zeros_like(x)
    for k in range(120, 4, -1):
        c = k / (x + c)
    c4 = 4.0 / (x + c)
    c3 = 3.0 / (x + c4)
    c2 = 2.0 / (x + c3)
    c1 = 1.0 / (x + c2)
    r, d = x + c1, c3 - c2
    third = r * c1 * c1 * c2 * d
    slope = -3.0 * c1 + c2 + c3 + (c3 * (c4 - c3) - c2 * d) / d
    return [r, -r * c1, third, third * slope]


def logaddexp(a: Any, b: Any) -> Any:
    """``log(exp(a) + exp(b))``."""
    if isinstance(a, Jet) or isinstance(b, Jet):
        return a + softplus(b - a)
    return np.logaddexp(a, b)


def where(mask: np.ndarray, a: Any, b: Any) -> Any:
    """`a` in the rows of the mask, `b` elsewhere."""
    if not (isinstance(a, Jet) or isinstance(b, Jet)):
        return np.where(mask, a, b)
    model = a if isinstance(a, Jet) else b
    left = a.c if isinstance(a, Jet) else [a, *([None] * (len(model.c) - 1))]
    right = b.c if isinstance(b, Jet) else [b, *([None] * (len(model.c) - 1))]
    out: list[Any] = [
        None if x is None and y is None else np.where(mask, 0.0 if x is None else x, 0.0 if y is None else y)
        for x, y in zip(left, right, strict=True)
    ]
    return Jet(out, model.variables, model.order)
