"""Beta for proportions inside (0, 1); the dispersion predictor is the logarithm of the precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, polygamma
from mixedmodels.family.responses import require
from mixedmodels.family.stirling import lgamma_remainder

__all__ = ["Beta"]


class Beta(Family):
    r"""Beta with mean mu and precision phi, :math:`\delta = \log\phi`, variance :math:`\mu(1-\mu)/(1+\phi)`.

    .. math:: \log f = \log\frac{\Gamma(\phi)}{\Gamma(\mu\phi)\,\Gamma((1-\mu)\phi)}
              + (\mu\phi - 1)\log y + ((1-\mu)\phi - 1)\log(1 - y)

    The log-gamma functions are written by Stirling's remainder, whose leading terms cancel on paper
    (Ferrari & Cribari-Neto 2004, J. Appl. Stat. 31, 799-815).
    """

    name = "beta"
    links = ("logit", "probit", "cloglog", "loglog", "cauchit", "log")
    predictors = ("conditional", "dispersion")
    dispersion_name = "precision"

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        complement = self.link.log_complement
        assert complement is not None
        log_y = data.constant("log", lambda: np.log(data.y))
        log_rest = data.constant("log rest", lambda: np.log1p(-data.y))
        up, down, delta = self.link.log_mean(eta[0]), complement(eta[0]), eta[1]
        a, b = up + delta, down + delta
        return (
            exp(a) * (log_y - up)
            + exp(b) * (log_rest - down)
            + 0.5 * (up + down + delta)
            + (lgamma_remainder(delta) - lgamma_remainder(a) - lgamma_remainder(b))
            - (log_y + log_rest + 0.5 * math.log(2.0 * math.pi))
        )

    def _shapes(self, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        complement = self.link.log_complement
        assert complement is not None
        e, phi = np.asarray(eta[0], dtype=float), np.exp(np.asarray(eta[1]))
        return np.exp(self.link.log_mean(e)) * phi, np.exp(complement(e)) * phi

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        a, b = self._shapes(eta)
        return a * b / ((a + b) ** 2 * (1.0 + a + b))

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        a, b = self._shapes(eta)
        tiny = np.finfo(float).tiny
        return np.clip(rng.beta(a, b, size=data.n), tiny, 1.0 - 2.0**-53)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import betainc

        below = betainc(*self._shapes(eta), data.y)
        return below, below

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        complement = self.link.log_complement
        assert complement is not None
        mu, rest, phi = exp(self.link.log_mean(eta[0])), exp(complement(eta[0])), exp(eta[1])
        rise = mu * slope * phi
        return rise * rise * (polygamma(1, mu * phi) + polygamma(1, rest * phi))

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Twice the distance to the log-density whose mean is y (betareg's deviance residuals squared)."""
        logit = Beta("logit")
        with np.errstate(all="ignore"):
            e = [np.asarray(part, dtype=float) for part in eta]
            saturated = logit.log_density(data, [np.log(data.y) - np.log1p(-data.y), e[1]])
            return np.asarray(2.0 * np.abs(saturated - self.log_density(data, e)))

    def check_response(self, data: Observations) -> None:
        require(
            self.name,
            data.y,
            (data.y > 0.0) & (data.y < 1.0),
            "strictly between 0 and 1",
            "for exact zeros and ones use family 'ordered_beta', for successes out of trials 'binomial'",
        )

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        mean, variance = float(data.y.mean()), float(data.y.var())
        phi = mean * (1.0 - mean) / max(variance, 1e-8) - 1.0
        return self.link.forward(0.5 * (data.y + mean)), np.array(math.log(min(max(phi, 0.5), 1e4)))
