"""Functions of log-densities without cancellation: Stirling's remainder, compositions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.functions import apply
from mixedmodels.family.jet import Jet, indices

__all__ = ["compose", "lgamma_derivatives", "lgamma_remainder"]

# B_2k / (2k (2k - 1)) of Stirling's series (Abramowitz & Stegun 1964, 6.1.40)
SERIES = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)


def lgamma_remainder(log_a: Any) -> Any:
    r"""What Stirling's formula leaves of the log-gamma function, as a function of t = log a.

    .. math:: R = \log\Gamma(a) - (a - \tfrac12)\log a + a - \tfrac12\log 2\pi

    Of the size of 1/(12 a) for large a, of -log(a)/2 for small a, with full relative accuracy in both.

    Parameters
    ----------
    log_a : ndarray or Jet
    """

    return apply(log_a, _remainder)


def _remainder(t: np.ndarray, order: int) -> list[Any]:
    large = t > math.log(12.0)
    inverse = np.exp(-np.where(large, t, 3.0))  # 1/a
    out = [np.zeros(t.shape) for _ in range(order + 1)]
    square, power = inverse * inverse, inverse
    for k, c in enumerate(SERIES):
        term = c * power
        for d in range(order + 1):
            out[d] += term
            term = term * -(2.0 * k + 1.0)
        power = power * square
    if not np.all(large):
        small = ~large
        for into, part in zip(out, _small_remainder(t[small], order), strict=True):
            into[small] = part
    return out


def _small_remainder(t: np.ndarray, order: int) -> list[Any]:
    """`lgamma_remainder` by the recurrence from a + 1."""
    from scipy.special import gammaln, polygamma, psi

    a = np.exp(t)
    out = [gammaln(1.0 + a) - (a + 0.5) * t + a - 0.5 * math.log(2.0 * math.pi)]
    if order == 0:
        return out
    g = [a * psi(1.0 + a)] + [a ** (d + 1) * polygamma(d, 1.0 + a) for d in range(1, order)]
    for d, weights in enumerate(_CHAIN[:order]):
        total = sum(w * part for w, part in zip(weights, g, strict=False))
        out.append(total - a * (t + float(d)) - (0.5 if d == 0 else 0.0))  # of (a + 1/2) t - a
    return out


# derivatives of f(e^t): sum of these times a^k f^(k)(a)
_CHAIN = ((1.0,), (1.0, 1.0), (1.0, 3.0, 1.0), (1.0, 7.0, 6.0, 1.0))


def lgamma_derivatives(t: np.ndarray, order: int) -> list[np.ndarray]:
    """``lgamma(exp(t))`` and its derivatives in t."""
    x = np.exp(t)
    out = _remainder(t, order)
    out[0] = out[0] + (x - 0.5) * t - x + 0.5 * math.log(2.0 * math.pi)
    for d in range(1, order + 1):
        out[d] = out[d] + x * (t + (d - 1.0)) - (0.5 if d == 1 else 0.0)
    return out


def compose(table: Sequence[Any], inner: Sequence[Any], order: int) -> Any:
    """``g(inner)`` for a function g of several variables given by its partial derivatives.

    Parameters
    ----------
    table : sequence of ndarray
        Partial derivatives at the values, in the order of `mixedmodels.family.jet.indices`.
    inner : sequence of Jet
    order : int
        That of the jets.
    """
    model = inner[0]
    steps = [Jet([None, *jet.c[1:]], model.variables, model.order) for jet in inner]
    powers: list[list[Any]] = []
    for step in steps:
        row: list[Any] = [None, step]
        for _ in range(2, order + 1):
            row.append(row[-1] * step)
        powers.append(row)
    total = Jet([table[0], *([None] * (len(model.c) - 1))], model.variables, model.order)
    for index, value in list(zip(indices(len(inner), order), table, strict=True))[1:]:
        product: Any = value * (1.0 / math.prod(math.factorial(a) for a in index))
        for which, a in enumerate(index):
            if a:
                product = powers[which][a] * product
        if product.c[0] is None:
            product.c[0] = 0.0
        total = total + product
    return total
