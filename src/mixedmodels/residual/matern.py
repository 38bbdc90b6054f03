r"""The Matern correlation and its derivatives in distance and smoothness.

:math:`f(u, \nu) = 2^{1-\nu} u^\nu K_\nu(u) / \Gamma(\nu)` with
:math:`K_\nu(u) = \int_0^\infty e^{-u\cosh t} \cosh(\nu t)\,dt` (DLMF 10.32.9). The derivatives are taken
under the integral; the integrand falls off doubly exponentially, so the trapezoidal rule is exact to
rounding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["MaternValues", "matern"]

_NODES = 300
_SMALLEST = 1e-8  # distances in units of the range below which f is 1 to rounding


class MaternValues(NamedTuple):
    """f and its derivatives: ``f_u``, ``f_n``, ``f_uu``, ``f_un``, ``f_nn`` with n for nu."""

    f: np.ndarray
    f_u: np.ndarray
    f_n: np.ndarray
    f_uu: np.ndarray
    f_un: np.ndarray
    f_nn: np.ndarray


def matern(u: np.ndarray, nu: float) -> MaternValues:
    """Values at distances u > 0, shape (m,), in units of the range.

    Examples
    --------
    >>> import numpy as np
    >>> u = np.array([0.5, 2.0])
    >>> bool(np.allclose(matern(u, 0.5).f, np.exp(-u)))
    True
    """
    from scipy.special import digamma, gammaln, polygamma

    if u.size > 2000:  # in pieces, to bound the table of the integral
        pieces = [matern(part, nu) for part in np.array_split(u, u.size // 2000 + 1)]
        return MaternValues(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
    u = np.maximum(u, _SMALLEST)
    # e^{-u (cosh t - 1)} cosh(nu t) is negligible where u (cosh t - 1) - nu t > 45
    end = np.arccosh(1.0 + (45.0 + 8.0 * nu * np.log1p(60.0 * (1.0 + nu) / u)) / u)
    t = end[:, None] * (np.arange(_NODES + 1) / _NODES)
    weight = np.full(_NODES + 1, 1.0)
    weight[0] = weight[-1] = 0.5
    cosh = np.cosh(t)
    base = weight * np.exp(-u[:, None] * (cosh - 1.0))
    even, odd = np.cosh(nu * t), np.sinh(nu * t)
    scale = end / _NODES

    def integral(values: np.ndarray) -> np.ndarray:
        return scale * (base * values).sum(axis=1)

    k = integral(even)
    with np.errstate(over="ignore"):
        k_u, k_uu = -integral(cosh * even) / k, integral(cosh * cosh * even) / k
        k_n, k_nn = integral(t * odd) / k, integral(t * t * even) / k
        k_un = -integral(cosh * t * odd) / k
    log_f = (1.0 - nu) * np.log(2.0) - gammaln(nu) + nu * np.log(u) + np.log(k) - u
    f = np.exp(log_f)
    l_u = nu / u + k_u
    l_n = -np.log(2.0) - digamma(nu) + np.log(u) + k_n
    l_uu = -nu / u**2 + k_uu - k_u**2
    l_nn = -polygamma(1, nu) + k_nn - k_n**2
    l_un = 1.0 / u + k_un - k_u * k_n
    return MaternValues(f, f * l_u, f * l_n, f * (l_uu + l_u**2), f * (l_un + l_u * l_n), f * (l_nn + l_n**2))
