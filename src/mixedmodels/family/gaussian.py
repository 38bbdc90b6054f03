"""Gaussian; the dispersion predictor is the logarithm of the residual standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp

__all__ = ["Gaussian"]


class Gaussian(Family):
    r"""Gaussian, :math:`y \sim N(\mu, \sigma^2)`, dispersion predictor :math:`\delta = \log\sigma`."""

    name = "gaussian"
    links = ("identity", "log", "inverse", "sqrt")
    predictors = ("conditional", "dispersion")

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        r = data.y - self.link.inverse(eta[0])
        return -0.5 * (r * r) * exp(-2.0 * eta[1]) - eta[1] - 0.5 * math.log(2.0 * math.pi)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return np.broadcast_to(np.exp(2.0 * np.asarray(eta[1])), data.y.shape)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        return self.mean(eta) + np.exp(eta[1]) * rng.standard_normal(data.n)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        spread = float(np.std(data.y)) or 1.0
        if self.link.name == "identity":
            return data.y, np.array(math.log(spread))
        return self.link.forward(np.maximum(data.y, 0.1 * spread)), np.array(math.log(spread))
