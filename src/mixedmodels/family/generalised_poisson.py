"""Generalised Poisson: counts with more or less variance than the Poisson's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, expm1, log
from mixedmodels.family.poisson import _log_factorial
from mixedmodels.family.responses import require_counts

__all__ = ["GeneralisedPoisson"]


class GeneralisedPoisson(Family):
    r"""Generalised Poisson with mean :math:`\mu` and variance :math:`\mu\phi`; dispersion :math:`\log\phi`.

    .. math:: f = \frac{\theta(\theta + \lambda y)^{y-1}}{y!}\, e^{-\theta - \lambda y}, \qquad
              \theta = \mu/\sqrt\phi,\quad \lambda = 1 - 1/\sqrt\phi

    (Consul & Jain 1973, Technometrics 15, 791-799; Joe & Zhu 2005, Biometrical Journal 47, 219-229). For
    :math:`\phi < 1` the counts end where :math:`\theta + \lambda y` becomes negative and the probabilities
    add to a little less than one; larger counts have no finite log-density. :math:`\phi` is glmmTMB's
    dispersion parameter of the family ``genpois``.
    """

    name = "generalised_poisson"
    response = "count"
    links = ("log", "sqrt", "identity", "inverse")
    predictors = ("conditional", "dispersion")

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        constant = data.constant("factorial", lambda: _log_factorial(data.y))
        log_mu, mu = self.link.log_mean(eta[0]), self.link.inverse(eta[0])
        root = exp(-0.5 * eta[1])  # 1 / sqrt(phi)
        excess = -1.0 * expm1(-0.5 * eta[1])  # lambda
        total = mu * root + excess * data.y
        return log_mu - 0.5 * eta[1] + (data.y - 1.0) * log(total) - total - constant

    def check_response(self, data: Observations) -> None:
        require_counts(self.name, data.y)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return np.broadcast_to(self.mean(eta) * np.exp(np.asarray(eta[1], dtype=float)), data.y.shape)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        mu = np.broadcast_to(self.mean(eta), data.y.shape)
        phi = np.broadcast_to(np.exp(np.asarray(eta[1], dtype=float)), data.y.shape)
        theta, excess = mu / np.sqrt(phi), 1.0 - 1.0 / np.sqrt(phi)
        out = np.zeros(data.n)
        branching = excess >= 0.0
        # the total progeny of a branching process: Poisson(theta) ancestors, Poisson(lambda) children each
        living = np.where(branching, rng.poisson(np.where(branching, theta, 0.0)), 0)
        while living.any():
            out += living
            living = rng.poisson(excess.clip(0.0) * living)
        rows = np.flatnonzero(~branching)
        if rows.size:
            out[rows] = self._invert(rng.random(rows.size), mu[rows], phi[rows])
        return out

    def _invert(self, u: np.ndarray, mu: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Counts whose distribution functions first reach u."""
        out = np.zeros(u.size)
        left, total = np.arange(u.size), np.zeros(u.size)
        eta = [self.link.forward(mu), np.log(phi)]
        value = 0
        while left.size:
            with np.errstate(all="ignore"):
                row = Observations(np.full(left.size, float(value)))
                p = np.exp(self.log_density(row, [part[left] for part in eta]))
            ended = ~(p > 0.0) & (value > mu[left])
            total[left] += np.nan_to_num(p)
            done = (total[left] >= u[left]) | ended
            out[left[done]] = value - ended[done]
            left = left[~done]
            value += 1
        return out

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        mean = float(np.mean(data.y)) or 0.1
        phi = float(np.clip(np.var(data.y) / mean, 1.2, 10.0))
        return self.link.forward(data.y + 0.1 + 0.2 * mean), np.array(math.log(phi))
