"""From partial autocorrelations to coefficients and autocorrelations, with derivatives."""

from __future__ import annotations

import numpy as np

from mixedmodels.residual.jets import Jet, constant, solve, stack

__all__ = [
    "arma_autocorrelations",
    "coefficients_of_partial",
    "partial_of_coefficients",
    "toeplitz_of_partial",
]


def coefficients_of_partial(partial: Jet) -> Jet:
    r"""Autoregressive coefficients of partial autocorrelations (Durbin-Levinson).

    :math:`a^{(k)}_k = r_k`, :math:`a^{(k)}_i = a^{(k-1)}_i - r_k a^{(k-1)}_{k-i}`: stationary for every
    r in :math:`(-1, 1)^p`.

    Parameters
    ----------
    partial : Jet, shape (p,)

    References
    ----------
    Barndorff-Nielsen and Schou (1973), Journal of Multivariate Analysis 3, 408-419.
    """
    a = partial[:1]
    for k in range(1, partial.value.shape[0]):
        r = partial[k]
        shorter = a - a[::-1] * _spread(r, k)
        a = _append(shorter, r)
    return a


def partial_of_coefficients(a: np.ndarray) -> np.ndarray:
    """The inverse of `coefficients_of_partial`; FloatingPointError where the process is not stationary."""
    a = np.array(a, dtype=np.float64)
    out = np.zeros(a.shape[0])
    for k in range(a.shape[0] - 1, -1, -1):
        r = a[k]
        if not abs(r) < 1.0:
            raise FloatingPointError("these coefficients are not those of a stationary (invertible) process")
        out[k] = r
        a = (a[:k] + r * a[:k][::-1]) / (1.0 - r * r)
    return out


def arma_autocorrelations(a: Jet, b: Jet, largest: int) -> Jet:
    r"""Autocorrelations of lags 0 .. `largest` of :math:`e_t = \sum a_i e_{t-i} + u_t + \sum b_j u_{t-j}`.

    The autocovariances solve :math:`\gamma_k - \sum_i a_i \gamma_{|k-i|} = \sum_{j \ge k} b_j \psi_{j-k}` for
    k = 0 .. p (with :math:`b_0 = 1` and :math:`\psi` the moving-average weights) and follow the same
    recursion afterwards.

    Parameters
    ----------
    a : Jet, shape (p,)
    b : Jet, shape (q,)
    largest : int

    References
    ----------
    Brockwell and Davis (1991), Time Series: Theory and Methods, section 3.3.
    """
    k, p, q = a.k, a.value.shape[0], b.value.shape[0]
    one = constant(1.0, k)
    weights = [one]
    for j in range(1, q + 1):
        psi = b[j - 1]
        for i in range(1, min(j, p) + 1):
            psi = psi + a[i - 1] * weights[j - i]
        weights.append(psi)
    moving = [one, *(b[j] for j in range(q))]
    size = max(p, q) + 1
    right = []
    for lag in range(size):
        total = constant(0.0, k)
        for j in range(lag, q + 1):
            total = total + moving[j] * weights[j - lag]
        right.append(total)
    value = np.eye(size)
    first, second = np.zeros((k, size, size)), np.zeros((k, k, size, size))
    for row in range(size):
        for i in range(1, p + 1):
            column = abs(row - i)
            value[row, column] -= a.value[i - 1]
            first[:, row, column] -= a.first[:, i - 1]
            second[:, :, row, column] -= a.second[:, :, i - 1]
    start = solve(Jet(value, first, second), stack(right))
    start = start / _spread(start[0], size)
    length = max(largest + 1, size)
    out = Jet(np.zeros(length), np.zeros((k, length)), np.zeros((k, k, length)))
    out.value[:size], out.first[:, :size], out.second[:, :, :size] = start.value, start.first, start.second
    if p:
        back = a[::-1]
        for lag in range(size, length):
            part = back * out[lag - p : lag]
            out.value[lag] = part.value.sum()
            out.first[:, lag] = part.first.sum(axis=-1)
            out.second[:, :, lag] = part.second.sum(axis=-1)
    return out[: largest + 1]


def toeplitz_of_partial(partial: Jet) -> Jet:
    r"""Autocorrelations of lags 1 .. m of partial autocorrelations: all positive definite Toeplitz matrices.

    :math:`\rho_k = r_k \prod_{i<k} (1 - r_i^2) + \sum_{i<k} a^{(k-1)}_i \rho_{k-i}`.

    Parameters
    ----------
    partial : Jet, shape (m,)
    """
    rho = partial[:1]
    a = partial[:1]
    left = 1.0 - partial[0] * partial[0]
    for k in range(1, partial.value.shape[0]):
        r = partial[k]
        products = a * rho[::-1]
        total = Jet(products.value.sum(), products.first.sum(axis=-1), products.second.sum(axis=-1))
        rho = _append(rho, r * left + total)
        a = _append(a - a[::-1] * _spread(r, k), r)
        left = left * (1.0 - r * r)
    return rho


def _spread(jet: Jet, size: int) -> Jet:
    """A scalar repeated."""
    return Jet(
        np.full(size, jet.value),
        np.repeat(jet.first[:, None], size, axis=1),
        np.repeat(jet.second[:, :, None], size, axis=2),
    )


def _append(jets: Jet, last: Jet) -> Jet:
    """A vector with one more entry."""
    return Jet(
        np.append(jets.value, last.value),
        np.concatenate([jets.first, last.first[:, None]], axis=1),
        np.concatenate([jets.second, last.second[:, :, None]], axis=2),
    )
