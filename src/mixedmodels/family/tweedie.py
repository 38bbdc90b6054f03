"""Tweedie: non-negative responses with exact zeros, variance phi mu^p, 1 < p < 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, log, log_expit, where
from mixedmodels.family.jet import Jet, count, indices, place
from mixedmodels.family.responses import require
from mixedmodels.family.stirling import compose, lgamma_derivatives

__all__ = ["Tweedie"]

_TAIL = 11.0  # standard deviations of the index that are summed on either side
_STRIDE = 2.6  # standard deviations per stride of a strided sum
_BLOCK = 4000  # rows in one pass


class Tweedie(Family):
    r"""Tweedie's compound Poisson-gamma: variance :math:`\phi\mu^p`, power :math:`p = 1 + G(\xi)`.

    A Poisson number of gamma variates; with G the logistic distribution function, so 1 < p < 2,

    .. math:: \log f(y) = \frac1\phi\left(\frac{y\,\mu^{1-p}}{1-p} - \frac{\mu^{2-p}}{2-p}\right)
              + a(y,\phi,p), \qquad a(0, \cdot) = 0, \quad a = -\log y + \log\sum_{j=1}^\infty W_j,

    .. math:: \log W_j = jc - \log\Gamma(j+1) - \log\Gamma(j\alpha), \quad \alpha = \frac{2-p}{p-1}, \quad
              c = \alpha\log\frac{y}{p-1} - (1+\alpha)\log\phi - \log(2-p)

    (Dunn & Smyth 2005, Statistics and Computing 15, 267-280). The sum runs over a window of the index around
    its largest term; where the terms are a wide smooth bump, over every s-th term, which gives the same sum
    to rounding (Poisson's summation formula), so that the work does not depend on y, phi and p.

    The dispersion predictor is :math:`\log\phi`, glmmTMB's dispersion parameter; ``power`` is :math:`\xi`.
    """

    name = "tweedie"
    links = ("log", "identity", "sqrt", "inverse")
    predictors = ("conditional", "dispersion", "power")

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        delta, xi = eta[1], eta[2]
        log_mu = self.link.log_mean(eta[0])
        upper, lower = exp(log_expit(-xi)), exp(log_expit(xi))  # 2 - p, p - 1
        kernel = exp(upper * log_mu - log_expit(-xi) - delta)
        zero = data.y == 0.0
        canonical = data.y * exp(-lower * log_mu - log_expit(xi) - delta)
        return _series(data, delta, xi) - kernel - where(zero, 0.0, canonical)

    def check_response(self, data: Observations) -> None:
        require(self.name, data.y, np.isfinite(data.y) & (data.y >= 0.0), "finite and not negative")

    def power(self, xi: Any) -> Any:
        """The power p of the variance function."""
        return 1.0 + np.exp(log_expit(np.asarray(xi, dtype=float)))

    def _parts(self, eta: Sequence[np.ndarray]) -> tuple[Any, Any, Any]:
        """Mean number of gamma variates, their shape and scale."""
        mu, p, phi = self.mean(eta), self.power(eta[2]), np.exp(np.asarray(eta[1], dtype=float))
        return mu ** (2.0 - p) / (phi * (2.0 - p)), (2.0 - p) / (p - 1.0), phi * (p - 1.0) * mu ** (p - 1.0)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        phi = np.exp(np.asarray(eta[1], dtype=float))
        return np.broadcast_to(phi * self.mean(eta) ** self.power(eta[2]), data.y.shape)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        rate, shape, scale = self._parts(eta)
        number = rng.poisson(np.broadcast_to(rate, data.y.shape))
        out = rng.gamma(np.where(number > 0, number * shape, 1.0)) * scale
        return np.where(number > 0, out, 0.0)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import gammainc, gammaln

        rate, shape, scale = (np.broadcast_to(part, data.y.shape) for part in self._parts(eta))
        upto = np.exp(-rate)
        below = np.where(data.y > 0.0, upto, 0.0)
        width = 10.0 * np.sqrt(rate) + 20.0
        first, last = np.maximum(np.floor(rate - width), 1.0), np.ceil(rate + width)
        for at in range(0, data.n, _BLOCK):
            rows = slice(at, at + _BLOCK)
            j = first[rows, None] + np.arange(int(np.max(last[rows] - first[rows], initial=0.0)) + 1)
            with np.errstate(divide="ignore"):
                r = rate[rows, None]
                weight = np.exp(j * np.log(r) - r - gammaln(j + 1.0))
            part = weight * gammainc(j * shape[rows, None], (data.y / scale)[rows, None])
            upto[rows] += part.sum(axis=1)
        upto = np.minimum(upto, 1.0)
        return np.where(data.y > 0.0, upto, below), upto

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        mean = float(np.mean(data.y)) or 1.0
        phi = (float(np.var(data.y)) or 1.0) / mean**1.5
        return self.link.forward(data.y + 0.2 * mean), np.array(math.log(phi)), np.array(0.0)


def _series(data: Observations, delta: Any, xi: Any) -> Any:
    """``a(y, phi, p)``, 0 for y = 0."""
    log_upper, log_lower = log_expit(-xi), log_expit(xi)  # log(2 - p), log(p - 1)
    alpha = exp(-xi)
    log_y = data.constant("log_positive", lambda: np.log(np.where(data.y > 0.0, data.y, 1.0)))
    c = alpha * (log_y - log_lower) - (1.0 + alpha) * delta - log_upper
    order = c.order if isinstance(c, Jet) else 0
    value = np.broadcast_to(c.value if isinstance(c, Jet) else c, (data.n,))
    s = np.broadcast_to(np.negative(xi.value if isinstance(xi, Jet) else xi), (data.n,))
    spread = np.broadcast_to(delta.value if isinstance(delta, Jet) else delta, (data.n,))
    table = _series_table(data, value, s, spread, order)
    if not isinstance(c, Jet):
        return table[0]
    if isinstance(xi, Jet):
        return compose(list(table), [c, -xi], order)
    return c.compose([table[place(2, order)[k, 0]] for k in range(order + 1)])


def _series_table(
    data: Observations, c: np.ndarray, s: np.ndarray, delta: np.ndarray, order: int
) -> np.ndarray:
    """Partial derivatives of the series in (c, log alpha); the last table is remembered.

    A search for the mode changes the mean only, so that the same table is asked for many times.
    """
    last = data.constants.get("series")
    if last is not None and last[2] >= order and np.array_equal(last[0], c) and np.array_equal(last[1], s):
        return last[3][: count(2, order)]
    rows = data.constant("positive", lambda: np.flatnonzero(data.y > 0.0))
    out = np.zeros((count(2, order), data.n))
    for at in range(0, rows.size, _BLOCK):
        part = rows[at : at + _BLOCK]
        out[:, part] = _sums(data.y[part], c[part], s[part], delta[part], order)
    data.constants["series"] = (c.copy(), s.copy(), order, out)
    return out


def _sums(y: np.ndarray, c: np.ndarray, s: np.ndarray, delta: np.ndarray, order: int) -> np.ndarray:
    r"""Partial derivatives of ``log sum_j W_j - log y`` in (c, s), s = log alpha, all y positive.

    Nearby :math:`W_j = w_j e^{(j - m) dc} e^{g_j(ds)}` times what does not depend on j, with centred
    exponents; so the Taylor coefficients of the sum are sums of products of two columns.
    """
    from scipy.special import gammaln

    j, stride = _window(y, delta, -s)
    x = j * np.exp(s)[:, None]
    value = j * c[:, None] - gammaln(j + 1.0) - gammaln(x)
    top = value.max(axis=1, keepdims=True)
    w = np.exp(value - top)
    total = w.sum(axis=1)
    base = top[:, 0] + np.log(total * stride) - np.log(y)
    if order == 0:
        return base[None]
    w /= total[:, None]
    middle = np.sum(w * j, axis=1)
    steps = lgamma_derivatives(np.log(x), order)[1:]
    means = [np.sum(w * step, axis=1) for step in steps]
    g = [-(step - mean[:, None]) for step, mean in zip(steps, means, strict=True)]
    grown: list[Any] = [w]  # coefficients of w exp(g): k E_k = sum_i i g_i E_{k-i}
    for k in range(1, order + 1):
        grown.append(sum(g[i - 1] * grown[k - i] / math.factorial(i - 1) for i in range(1, k + 1)) / k)
    d = j - middle[:, None]
    powers = [np.ones_like(d), d]
    for _ in range(2, order + 1):
        powers.append(powers[-1] * d)
    sums = [np.einsum("ij,ij->i", powers[a], grown[b]) / math.factorial(a) for a, b in indices(2, order)]
    result = log(Jet(sums, 2, order))
    table = result.table(y.size)
    table[0] = base
    where_ = place(2, order)
    table[where_[1, 0]] += middle
    for k, mean in enumerate(means, 1):
        table[where_[0, k]] -= mean
    return table


def _window(y: np.ndarray, delta: np.ndarray, xi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to sum over, shape (n, J), and the stride between them."""
    p = 1.0 + np.exp(log_expit(xi))
    alpha = np.exp(-xi)
    center = np.exp((2.0 - p) * np.log(y) - delta - log_expit(-xi))  # Dunn & Smyth 2005, equation (7)
    center = np.clip(center, 1.0, 1e15)
    sd = np.sqrt(center / (1.0 + alpha))
    smooth = (center > 14.0 * sd) & (sd > _STRIDE)
    stride = np.where(smooth, sd / _STRIDE, 1.0)
    center = np.where(smooth, center, np.round(center))
    low = np.where(smooth, center - _TAIL * sd, np.maximum(center - np.floor(_TAIL * sd + 5.0), 1.0))
    high = center + _TAIL * sd + np.where(smooth, 0.0, 20.0)
    size = int(np.max(np.ceil((high - low) / stride))) + 1
    return low[:, None] + stride[:, None] * np.arange(size), stride
