"""Conway-Maxwell-Poisson counts by their mean: more or less variance than the Poisson's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, log
from mixedmodels.family.jet import Jet, count, indices, place
from mixedmodels.family.poisson import log_factorial
from mixedmodels.family.responses import require_counts
from mixedmodels.family.stirling import compose

__all__ = ["ComPoisson"]

_BUDGET = 4_000_000  # terms in one pass


class ComPoisson(Family):
    r"""Conway-Maxwell-Poisson with mean :math:`\mu`; dispersion :math:`\log\phi`, :math:`\nu = 1/\phi`.

    .. math:: \log f = ya - \nu\log y! - K(a, \nu), \qquad K = \log\sum_j \exp(ja - \nu\log j!), \qquad
              \frac{\partial K}{\partial a} = \mu

    (Huang 2017, Statistical Modelling 17, 359-380). The last equation is solved for a by Newton's method,
    and again in truncated Taylor arithmetic for its derivatives. :math:`\phi` is glmmTMB's dispersion
    parameter of the family ``compois``; 1 gives the Poisson. Near a point mass (:math:`\phi` below about
    0.005) and for means beyond 1e12 the sums lose their digits and may not be finite: a search steps back.
    """

    name = "com_poisson"
    response = "count"
    links = ("log", "sqrt", "identity", "inverse")
    predictors = ("conditional", "dispersion")
    dispersion_name = "dispersion"

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        mu, nu = self.link.inverse(eta[0]), exp(-1.0 * eta[1])
        jets = [part for part in (mu, nu) if isinstance(part, Jet)]
        order = jets[0].order if jets else 0
        values = [np.broadcast_to(_value(part), (data.n,)) for part in (mu, nu)]
        a0, table = _solve(values[0], values[1], order + 1)
        constant = log_factorial(data)
        if order == 0:
            return data.y * a0 - values[1] * constant - table[0]
        model = jets[0]
        empty = [None] * (len(model.c) - 1)
        mu, nu = (
            part if isinstance(part, Jet) else Jet([_value(part), *empty], model.variables, order)
            for part in (mu, nu)
        )
        a = Jet([a0, *empty], model.variables, order)
        at = place(2, order + 1)
        slope = [table[at[i + 1, k]] for i, k in indices(2, order)]  # of dK/da
        step = 1.0 / table[at[2, 0]]
        for _ in range(order):  # each step makes one more order exact
            a = a - (compose(slope, [a, nu], order) - mu) * step
            a.c[0] = a0
        whole = [table[at[index]] for index in indices(2, order)]
        return a * data.y - nu * constant - compose(whole, [a, nu], order)

    def check_response(self, data: Observations) -> None:
        require_counts(self.name, data.y)

    def _solved(self, n: int, eta: Sequence[np.ndarray], order: int) -> tuple[np.ndarray, ...]:
        mu = np.broadcast_to(self.mean(eta), (n,))
        nu = np.broadcast_to(np.exp(-np.asarray(eta[1], dtype=float)), (n,))
        return mu, nu, *_solve(mu, nu, order)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return self._solved(data.n, eta, 2)[3][place(2, 2)[2, 0]]

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        from scipy.special import gammaln

        mu, nu, a, table = self._solved(data.n, eta, 0)
        u, out = rng.random(data.n), np.zeros(data.n)
        for rows in _blocks(mu, nu):
            low, _, size = _window(mu[rows], nu[rows], False)
            j = low[:, None] + np.arange(size)
            p = np.exp(j * a[rows, None] - nu[rows, None] * gammaln(j + 1.0) - table[0, rows, None])
            out[rows] = low + np.minimum((np.cumsum(p, axis=1) < u[rows, None]).sum(axis=1), size - 1)
        return out

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        mean = float(np.mean(data.y)) or 0.1
        phi = float(np.clip(np.var(data.y) / mean, 0.5, 5.0))
        return self.link.forward(data.y + 0.1 + 0.2 * mean), np.array(math.log(phi))


def _value(part: Any) -> np.ndarray:
    return np.asarray(part.value if isinstance(part, Jet) else part, dtype=float)


def _window(mu: np.ndarray, nu: np.ndarray, strided: bool = True) -> tuple[np.ndarray, np.ndarray, int]:
    """First index, stride and number of terms of the sums."""
    sd = np.sqrt(np.minimum(mu / nu, mu * (1.0 + mu)))
    smooth = (mu > 14.0 * sd) & (sd > 2.6) & strided
    stride = np.where(smooth, sd / 2.6, 1.0)
    low = np.where(smooth, mu - 11.0 * sd, np.maximum(np.floor(mu - 12.0 * sd - 8.0), 0.0))
    # towards nu = 0 the tail is a geometric one
    high = np.where(smooth, mu + 11.0 * sd, np.ceil(mu + np.where(nu < 1.0, 50.0, 12.0) * sd + 30.0))
    return low, stride, int(np.max(np.ceil((high - low) / stride), initial=0.0)) + 1


def _blocks(mu: np.ndarray, nu: np.ndarray) -> list[slice]:
    size = _window(mu, nu)[2] if mu.size else 1
    rows = max(_BUDGET // size, 1)
    return [slice(at, at + rows) for at in range(0, mu.size, rows)]


def _solve(mu: np.ndarray, nu: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """a with mean mu, and the partial derivatives of K in (a, nu) there."""
    a, table = np.full(mu.size, np.nan), np.full((count(2, order), mu.size), np.nan)
    good = np.flatnonzero((mu > 0.0) & np.isfinite(mu) & (nu > 0.0) & np.isfinite(nu))
    for block in _blocks(mu[good], nu[good]):
        rows = good[block]
        a[rows], table[:, rows] = _solve_block(mu[rows], nu[rows], order)
    return a, table


def _solve_block(mu: np.ndarray, nu: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.special import gammaln

    low, stride, size = _window(mu, nu)
    j = low[:, None] + stride[:, None] * np.arange(size)
    L = gammaln(j + 1.0)
    base = nu[:, None] * L
    shifted = mu + (nu - 1.0) / (2.0 * nu)  # Shmueli et al. 2005
    a = np.where(shifted > 0.3, nu * np.log(np.maximum(shifted, 0.3)), np.log(mu / (1.0 + mu)))
    below, above = np.full(mu.size, -np.inf), np.full(mu.size, np.inf)  # the mean grows with a
    last = False
    for _ in range(100):
        value = j * a[:, None] - base
        top = value.max(axis=1)
        w = np.exp(value - top[:, None])
        total = w.sum(axis=1)
        w /= total[:, None]
        mean = np.sum(w * j, axis=1)
        d = j - mean[:, None]
        slope = np.sum(w * d * d, axis=1)
        if last:
            break
        off = np.log(mu) - np.log(np.maximum(mean, 1e-300))
        below, above = np.where(off > 0.0, a, below), np.where(off < 0.0, a, above)
        step = np.clip(off * mean / np.maximum(slope, 1e-300), -1.0 - nu, 1.0 + nu)
        new = a + step
        outside = ~((new > below) & (new < above)) & np.isfinite(below) & np.isfinite(above)
        outside &= np.abs(step) > 1e-8 * (
            1.0 + np.abs(a)
        )  # near the solution rounding decides about the side
        new = np.where(outside, 0.5 * (np.where(outside, below, 0.0) + np.where(outside, above, 0.0)), new)
        last = bool(
            np.all(np.abs(new - a) <= 1e-8 * (1.0 + np.abs(a)))
        )  # Newton doubles the digits once more
        a = new
    a = np.where(np.abs(np.log(mu) - np.log(np.maximum(mean, 1e-300))) < 1e-9, a, np.nan)
    K = top + np.log(total * stride)
    if order == 0:
        return a, K[None]
    middle = np.sum(w * L, axis=1)
    e = middle[:, None] - L
    powers, others = [w, w * d], [np.ones_like(e), e]
    for _ in range(2, order + 1):
        powers.append(powers[-1] * d)
        others.append(others[-1] * e)
    sums = [
        np.einsum("ij,ij->i", powers[p], others[q]) / (math.factorial(p) * math.factorial(q))
        for p, q in indices(2, order)
    ]
    sums[0] = np.ones(mu.size)
    table = log(Jet(sums, 2, order)).table(mu.size)
    table[0] = K
    at = place(2, order)
    table[at[1, 0]] += mean
    table[at[0, 1]] -= middle
    return a, table
