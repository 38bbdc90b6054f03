"""Functions that log-densities are written with: on arrays their values, on jets all derivatives too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.family.jet import Jet

__all__ = [
    "exp",
    "expm1",
    "lgamma",
    "log",
    "log1mexp",
    "log1p",
    "log_expit",
    "log_ndtr",
    "logaddexp",
    "power",
    "softplus",
    "sqrt",
    "where",
]


def _apply(x: Any, function: Callable[[np.ndarray, int], list[Any]]) -> Any:
    if isinstance(x, Jet):
        return x.compose(function(np.asarray(x.c[0], dtype=float), x.order))
    return function(np.asarray(x, dtype=float), 0)[0]


def exp(x: Any) -> Any:
    """Exponential."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        e = np.exp(v)
        return [e] * (order + 1)

    return _apply(x, derivatives)


def log(x: Any) -> Any:
    """Natural logarithm."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        out, inverse = [np.log(v)], 1.0 / v
        power_ = inverse
        for k in range(1, order + 1):
            out.append(power_ * ((-1) ** (k - 1) * math.factorial(k - 1)))
            power_ = power_ * inverse
        return out

    return _apply(x, derivatives)


def log1p(x: Any) -> Any:
    """``log(1 + x)``."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        out, inverse = [np.log1p(v)], 1.0 / (1.0 + v)
        power_ = inverse
        for k in range(1, order + 1):
            out.append(power_ * ((-1) ** (k - 1) * math.factorial(k - 1)))
            power_ = power_ * inverse
        return out

    return _apply(x, derivatives)


def expm1(x: Any) -> Any:
    """``exp(x) - 1``."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        e = np.exp(v)
        return [np.expm1(v)] + [e] * order

    return _apply(x, derivatives)


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

    return _apply(x, derivatives)


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

    return _apply(x, derivatives)


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

    return _apply(x, derivatives)


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

    return _apply(x, derivatives)


def log_ndtr(x: Any) -> Any:
    """Logarithm of the standard normal distribution function."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        from scipy.special import log_ndtr as value

        f = value(v)
        out = [f]
        if order:
            # r = phi/Phi satisfies r' = -r (v + r); differentiated twice more
            r = np.exp(-0.5 * v * v - 0.5 * math.log(2.0 * math.pi) - f)
            r1 = -r * (v + r)
            r2 = -r1 * (v + r) - r * (1.0 + r1)
            r3 = -r2 * (v + r) - 2.0 * r1 * (1.0 + r1) - r * r2
            out += [r, r1, r2, r3][:order]
        return out

    return _apply(x, derivatives)


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
