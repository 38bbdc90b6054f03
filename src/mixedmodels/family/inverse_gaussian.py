"""Inverse Gaussian; the dispersion predictor is the logarithm of phi, variance phi mu^3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations, require_positive
from mixedmodels.family.functions import exp, expm1

__all__ = ["InverseGaussian"]


class InverseGaussian(Family):
    r"""Inverse Gaussian with mean mu and dispersion phi, :math:`\delta = \log\phi`.

    .. math:: \log f = -\tfrac12\log(2\pi\phi y^3) - \frac{(y/\mu - 1)^2}{2\phi y}
    """

    name = "inverse_gaussian"
    links = ("1/mu^2", "inverse", "identity", "log")
    predictors = ("conditional", "dispersion")
    dispersion_name = "dispersion"

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        log_y = data.constant("log", lambda: np.log(data.y))
        r = expm1(log_y - self.link.log_mean(eta[0]))
        known = 0.5 * math.log(2.0 * math.pi) + 1.5 * log_y
        return -0.5 * eta[1] - known - (r * r) * exp(-eta[1]) * (0.5 / data.y)

    def sigma(self, delta: np.ndarray) -> np.ndarray:
        return np.exp(0.5 * np.asarray(delta))

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return self.mean(eta) ** 3 * np.exp(np.asarray(eta[1]))

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        return rng.wald(self.mean(eta), np.exp(-np.asarray(eta[1])), size=data.n)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import log_ndtr, ndtr

        mu, rate = self.mean(eta), np.exp(-np.asarray(eta[1]))
        root = np.sqrt(rate / data.y)
        second = np.exp(2.0 * rate / mu + log_ndtr(-root * (data.y / mu + 1.0)))
        below = np.clip(ndtr(root * (data.y / mu - 1.0)) + second, 0.0, 1.0)
        return below, below

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        return slope * slope * exp(-self.link.log_mean(eta[0]) - eta[1])

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu = self.mean(eta)
        return (data.y - mu) ** 2 / (mu * mu * data.y)

    def check_response(self, data: Observations) -> None:
        require_positive(self.name, data.y)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        mean = float(data.y.mean())
        phi = float(np.mean((data.y - mean) ** 2 / (mean * mean * data.y)))
        return self.link.forward(0.5 * (data.y + mean)), np.array(math.log(max(phi, 1e-4 / mean)))
