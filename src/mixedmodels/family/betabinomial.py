"""Beta-binomial: successes out of known trials whose probability varies between rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.binomial import _log_choose
from mixedmodels.family.responses import require_trials
from mixedmodels.family.stirling import log_rising

__all__ = ["BetaBinomial"]


class BetaBinomial(Family):
    r"""Beta-binomial with mean :math:`\mu` and precision :math:`\phi`; dispersion predictor :math:`\log\phi`.

    The probability of success is Beta(:math:`\mu\phi, (1-\mu)\phi`). With the rising factorials
    :math:`(a)_y = \Gamma(a + y)/\Gamma(a)`,

    .. math:: f = \binom{m}{y} \frac{(\mu\phi)_y\,((1-\mu)\phi)_{m-y}}{(\phi)_m}, \qquad
              \mathrm{Var}\,Y = m\mu(1-\mu)\,\frac{\phi + m}{\phi + 1},

    the binomial for :math:`\phi \to \infty` (Griffiths 1973, Biometrics 29, 637-648). The precision is
    glmmTMB's dispersion parameter of this family.
    """

    name = "betabinomial"
    response = "successes"
    links = ("logit", "probit", "cloglog", "loglog", "cauchit")
    predictors = ("conditional", "dispersion")

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        complement = self.link.log_complement
        assert complement is not None
        y, m = data.y, _trials(data)
        constant = data.constant("choose", lambda: _log_choose(m, y))
        a, b = self.link.log_mean(eta[0]), complement(eta[0])
        rest = m - y
        return (
            y * a
            + rest * b
            + log_rising(a + eta[1], y)
            + log_rising(b + eta[1], rest)
            - log_rising(eta[1], m)
            + constant
        )

    def check_response(self, data: Observations) -> None:
        require_trials(self.name, data.y, data.trials)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu, m = self.mean(eta), _trials(data)
        return m * mu * (1.0 - mu) * (1.0 + (m - 1.0) / (1.0 + np.exp(np.minimum(eta[1], 700.0))))

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        mu, phi = self.mean(eta), np.exp(np.minimum(eta[1], 100.0))
        tiny = np.finfo(float).tiny
        p = rng.beta(np.maximum(mu * phi, tiny), np.maximum((1.0 - mu) * phi, tiny))
        return rng.binomial(_trials(data).astype(np.int64), np.broadcast_to(p, data.y.shape)).astype(float)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return counted_cdf(self, data, eta)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        return self.link.forward((data.y + 0.5) / (_trials(data) + 1.0)), np.array(1.5)


def _trials(data: Observations) -> np.ndarray:
    return np.ones_like(data.y) if data.trials is None else data.trials


def counted_cdf(
    family: Family, data: Observations, eta: Sequence[np.ndarray], least: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """``P(Y < y)`` and ``P(Y <= y)`` of a count by summation from `least` on.

    All rows are summed together, the values up to y of each: sum(y + 1) densities, in blocks of rows.
    """
    n = data.n
    columns = [np.broadcast_to(np.asarray(part, dtype=float), (n,)) for part in eta]
    sizes = np.maximum(data.y - least + 1, 0).astype(np.int64)
    below, upto = np.zeros(n), np.zeros(n)
    ends = np.cumsum(sizes)
    start = 0
    while start < n:
        base = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, base + 2_000_000, side="right")))
        rows = np.repeat(np.arange(start, stop), sizes[start:stop])
        first = np.repeat(ends[start:stop] - sizes[start:stop] - base, sizes[start:stop])
        values = least + (np.arange(rows.size) - first).astype(float)
        part = Observations(values, None if data.trials is None else data.trials[rows])
        with np.errstate(all="ignore"):
            p = np.exp(family.log_density(part, [column[rows] for column in columns]))
        block = stop - start
        upto[start:stop] = np.bincount(rows - start, p, minlength=block)
        below[start:stop] = np.bincount(rows - start, p * (values < data.y[rows]), minlength=block)
        start = stop
    return np.minimum(below, 1.0), np.minimum(upto, 1.0)
