"""Binomial: successes out of a known number of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations

__all__ = ["Binomial"]


class Binomial(Family):
    r"""Binomial, :math:`\log f = \log\binom{m}{y} + y\log\mu + (m - y)\log(1 - \mu)`."""

    name = "binomial"
    response = "successes"
    links = ("logit", "probit", "cloglog", "loglog", "cauchit", "log", "identity")

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        complement = self.link.log_complement
        assert complement is not None
        y = data.y
        if data.trials is None:
            return y * self.link.log_mean(eta[0]) + (1.0 - y) * complement(eta[0])
        constant = data.constant("choose", lambda: _log_choose(data.trials, y))
        return y * self.link.log_mean(eta[0]) + (data.trials - y) * complement(eta[0]) + constant

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu = self.mean(eta)
        return mu * (1.0 - mu) if data.trials is None else data.trials * mu * (1.0 - mu)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        trials = 1 if data.trials is None else data.trials.astype(np.int64)
        return rng.binomial(trials, self.mean(eta)).astype(float)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        m = 1.0 if data.trials is None else data.trials
        return (self.link.forward((data.y + 0.5) / (m + 1.0)),)


def _log_choose(trials: Any, y: np.ndarray) -> np.ndarray:
    from scipy.special import gammaln

    return gammaln(trials + 1.0) - gammaln(y + 1.0) - gammaln(trials - y + 1.0)
