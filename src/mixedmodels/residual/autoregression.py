"""From partial autocorrelations to coefficients and autocorrelations, with derivatives."""

from __future__ import annotations

import numpy as np

from mixedmodels.residual.jets import Jet, constant, solve, stack
from mixedmodels.residual.series import solve_band

__all__ = [
    "arma_autocorrelations",
    "coefficients_of_partial",
    "filtered_covariance",
    "partial_of_coefficients",
    "plain_autocorrelations",
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


def _start(a: Jet, b: Jet) -> tuple[Jet, list[Jet]]:
    """Autocovariances of lags 0 .. max(p, q) for innovations of variance 1, and weights psi_0 .. psi_q."""
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
    return solve(Jet(value, first, second), stack(right)), weights


def arma_autocorrelations(a: Jet, b: Jet, largest: int) -> Jet:
    r"""Autocorrelations of lags 0 .. `largest` of :math:`e_t = \sum a_i e_{t-i} + u_t + \sum b_j u_{t-j}`.

    The autocovariances solve :math:`\gamma_k - \sum_i a_i \gamma_{|k-i|} = \sum_{j \ge k} b_j \psi_{j-k}` for
    k = 0 .. max(p, q) (with :math:`b_0 = 1` and :math:`\psi` the moving-average weights) and follow the
    autoregression afterwards, as do their derivatives with what comes of the coefficients' own.

    Parameters
    ----------
    a : Jet, shape (p,)
    b : Jet, shape (q,)
    largest : int

    References
    ----------
    Brockwell and Davis (1991), Time Series: Theory and Methods, section 3.3.
    """
    k, p = a.k, a.value.shape[0]
    start = _start(a, b)[0]
    size = start.value.shape[0]
    start = start / _spread(start[0], size)
    n = max(largest + 1, size)
    value, first, second = np.zeros(n), np.zeros((k, n)), np.zeros((k, k, n))
    value[:size], first[:, :size], second[:, :, :size] = start.value, start.first, start.second
    if p and n > size:
        band = np.zeros((p + 1, n))
        band[0] = 1.0
        for i in range(1, p + 1):
            band[i, size - i : n - i] = -a.value[i - 1]
        value = solve_band(band, value[:, None])[:, 0]
        for i in range(1, p + 1):
            first[:, size:] += a.first[:, i - 1, None] * value[size - i : n - i]
        first = solve_band(band, first.T).T
        for i in range(1, p + 1):
            earlier = first[:, size - i : n - i]
            cross = a.first[:, None, i - 1, None] * earlier[None]
            second[:, :, size:] += cross + np.swapaxes(cross, 0, 1)
            second[:, :, size:] += a.second[:, :, i - 1, None] * value[size - i : n - i]
        second = solve_band(band, second.reshape(k * k, n).T).T.reshape(k, k, n)
    return Jet(value, first, second)[: largest + 1]


def plain_autocorrelations(partial: list[float], partial_ma: list[float], largest: int) -> np.ndarray:
    """`arma_autocorrelations` without derivatives, of partial autocorrelations of the two parts.

    Parameters
    ----------
    partial, partial_ma : list of float
        Of the autoregression, and of the moving average (whose coefficients are the negative ones of -r).
    largest : int

    Returns
    -------
    ndarray, shape (largest + 1,)
    """
    a = _levinson(partial)
    b = [1.0, *[-x for x in _levinson([-r for r in partial_ma])]]
    p, q = len(a), len(b) - 1
    psi = [1.0]
    for j in range(1, q + 1):
        psi.append(b[j] + sum([a[i - 1] * psi[j - i] for i in range(1, min(j, p) + 1)]))
    size = max(p, q) + 1
    right = [sum([b[j] * psi[j - lag] for j in range(lag, q + 1)]) for lag in range(size)]
    M = np.eye(size)
    for row in range(size):
        for i in range(1, p + 1):
            M[row, abs(row - i)] -= a[i - 1]
    out = np.linalg.solve(M, right).tolist()
    out = [one / out[0] for one in out]
    for lag in range(size, largest + 1):
        out.append(sum([a[i] * out[lag - 1 - i] for i in range(p)]))
    return np.array(out[: largest + 1], dtype=np.float64)


def _levinson(partial: list[float]) -> list[float]:
    """`coefficients_of_partial` in plain numbers."""
    a: list[float] = []
    for r in partial:
        a = [one - r * other for one, other in zip(a, a[::-1], strict=True)] + [r]
    return a


def filtered_covariance(a: Jet, b: Jet, n: int) -> np.ndarray:
    r"""Covariance of :math:`w_t = e_t - \sum_i a_i e_{t-i}` (t >= m), :math:`w_t = e_t` (t < m), Var e = 1.

    Parameters
    ----------
    a, b : Jet
    n : int

    Returns
    -------
    ndarray, shape (m + 1, n)
        Row k holds diagonal k, m = max(p, q).
    """
    autocovariances, psi = _start(a, b)
    gamma = autocovariances.value
    q = b.value.shape[0]
    weights = np.array([float(one.value) for one in psi])
    moving = np.concatenate([[1.0], b.value])
    m = gamma.shape[0] - 1
    out = np.zeros((m + 1, n))
    for lag in range(min(m + 1, n)):
        if lag <= q:
            out[lag, m : n - lag] = moving[lag:] @ moving[: q + 1 - lag]
        for s in range(min(m, n - lag)):  # the first rows
            t = s + lag
            if t < m:
                out[lag, s] = gamma[lag]
            else:
                out[lag, s] = sum(moving[j] * weights[j - lag] for j in range(lag, q + 1))
    return out / gamma[0]


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
