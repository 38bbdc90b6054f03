"""Functions in which the limits of families live: written so that nothing cancels there.

The negative binomial with size theta tends to the Poisson, the gamma with a large shape to the normal. Their
textbook formulas are differences of log-gamma functions that lose all digits on the way. In delta = log theta
the functions below have every derivative to nearly full precision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixedmodels.family.functions import apply
from mixedmodels.family.stirling import SERIES

__all__ = ["expm1mx", "log_rising", "softplus_ratio"]

SHIFT = 12  # the argument from which the series is exact to rounding
SUMMED = 40  # counts up to this are summed term by term


def expm1mx(x: Any) -> Any:
    """``exp(x) - 1 - x``."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        small = np.where(np.abs(v) < 0.5, v, 0.0)
        series = np.zeros_like(v)
        for k in range(16, 1, -1):  # x^2/2 (1 + x/3 (1 + x/4 (...)))
            series = small / k * (1.0 + series) if k > 2 else 0.5 * small * small * (1.0 + series)
        value = np.where(np.abs(v) < 0.5, series, np.expm1(v) - v)
        return [value, np.expm1(v), *([np.exp(v)] * 3)][: order + 1]

    return apply(x, derivatives)


def softplus_ratio(s: Any) -> Any:
    """``log(1 + exp(s)) exp(-s)``, which tends to 1 for s to minus infinity, and its derivatives to 0."""

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        x = np.exp(np.minimum(v, 700.0))
        small = x < 0.3
        inside = np.where(small, x, 0.0)
        outside = np.where(small, 1.0, x)
        L, p, q = np.log1p(outside), outside / (1.0 + outside), 1.0 / (1.0 + outside)
        s2, s3, s4 = p * q, p * q * (q - p), p * q * (1.0 - 6.0 * p * q)
        direct = [  # (D - 1)^m log(1 + e^s)
            L,
            p - L,
            s2 - 2.0 * p + L,
            s3 - 3.0 * s2 + 3.0 * p - L,
            s4 - 4.0 * s3 + 6.0 * s2 - 4.0 * p + L,
        ]
        out = []
        for m in range(order + 1):
            series = np.zeros_like(x)
            for j in range(36, -1, -1):  # sum_j (-x)^j j^m / (j + 1)
                series = float(j**m) / (j + 1) - inside * series
            out.append(np.where(small, series, direct[m] / outside))
        return out

    return apply(s, derivatives)


def log_rising(y: np.ndarray, delta: Any) -> Any:
    r"""Logarithm of a scaled rising factorial, for counts y.

    .. math:: G(y, \delta) = \log\frac{\Gamma(y + \theta)}{\Gamma(\theta)\,\theta^y}
              = \sum_{j < y} \log(1 + j/\theta), \qquad \theta = e^\delta

    Counts above 40 are summed to 12, the rest is Euler and Maclaurin's formula, whose integral
    ``theta ((1 + x) log(1 + x) - x)``, x = j/theta, has a series of its own for small x.
    """

    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        counts, v = np.broadcast_arrays(np.asarray(y, dtype=float), v)
        out = [np.zeros(v.shape) for _ in range(order + 1)]
        stop = np.where(counts <= SUMMED, counts, float(SHIFT))
        for j in range(1, int(stop.max(initial=0.0))):
            terms = _log1p_terms(math.log(j) - v, order)
            for total, term in zip(out, terms, strict=True):
                total += np.where(j < stop, term, 0.0)
        many = counts > SUMMED
        if many.any():
            w, top = v[many], counts[many]
            upper, lower = _tail(top, w, order), _tail(np.full_like(top, SHIFT), w, order)
            for total, a, b in zip(out, upper, lower, strict=True):
                total[many] += a - b
        return out

    return apply(delta, derivatives)


def _log1p_terms(s: np.ndarray, order: int) -> list[np.ndarray]:
    """``log(1 + exp(s))`` and derivatives with respect to minus s."""
    e = np.exp(-np.abs(s))
    p = np.where(s >= 0.0, 1.0, e) / (1.0 + e)
    q = np.where(s >= 0.0, e, 1.0) / (1.0 + e)
    value = np.maximum(s, 0.0) + np.log1p(e)
    return [value, -p, p * q, -p * q * (q - p), p * q * (1.0 - 6.0 * p * q)][: order + 1]


def _tail(x: np.ndarray, delta: np.ndarray, order: int) -> list[np.ndarray]:
    """Antiderivative of ``log(1 + x/theta)`` with Euler and Maclaurin's terms, and derivatives in delta."""
    theta = np.exp(delta)
    v = x / np.maximum(theta, 1e-300)
    p, q = x / (x + theta), theta / (x + theta)
    L = np.logaddexp(0.0, np.log(x) - delta)
    small = v < 0.3
    inside = np.where(small, v, 0.0)
    direct = [  # times theta
        (theta + x) * L - x,
        theta * L - x,
        theta * (L - p),
        theta * (L - 2.0 * p + p * q),
        theta * (L - 3.0 * p + 3.0 * p * q - p * q * (q - p)),
    ]
    ends = [L, -p, p * q, -p * q * (q - p), p * q * (1.0 - 6.0 * p * q)]
    z = x + theta
    out = []
    for m in range(order + 1):
        series = np.zeros_like(v)
        for k in range(36, 1, -1):  # sum_k (-v)^k (1 - k)^m / (k (k - 1))
            series = (1.0 - k) ** m / (k * (k - 1.0)) - inside * series
        total = np.where(small, theta * series * inside * inside, direct[m]) - 0.5 * ends[m]
        for i, h in enumerate(SERIES):
            power = 2.0 * i + 1.0
            total = total + h * _power_terms(power, p, q)[m] * z**-power
        out.append(total)
    return out


def _power_terms(k: float, p: np.ndarray, q: np.ndarray) -> list[Any]:
    """Derivatives of ``(x + theta)^-k`` in log theta, over itself."""
    third = 3.0 * k * k * q * q * p - k * q * p * p + k * q * q * p - k**3 * q**3
    fourth = (3.0 * k * k + k) * q * q * p * (2.0 * p - q) - k * q * p * p * (p - 2.0 * q)
    return [1.0, -k * q, k * q * (k * q - p), third, fourth - 3.0 * k**3 * q**3 * p - k * q * third]
