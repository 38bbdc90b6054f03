"""Lognormal with a model of the mean; the dispersion predictor is the logarithm of the SD of log y."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations, require_positive
from mixedmodels.family.functions import exp

__all__ = ["Lognormal"]


class Lognormal(Family):
    r"""Lognormal, :math:`\log y \sim N(\log\mu - s^2/2, s^2)` with mean mu, :math:`\delta = \log s`.

    With the log link it is the linear mixed model of log y, whose intercept lies s^2/2 lower.
    """

    name = "lognormal"
    links = ("log", "identity", "inverse", "sqrt")
    predictors = ("conditional", "dispersion")
    dispersion_name = "SD of log y"

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        log_y = data.constant("log", lambda: np.log(data.y))
        square = exp(2.0 * eta[1])
        r = log_y - self.link.log_mean(eta[0]) + 0.5 * square
        return -0.5 * (r * r) * exp(-2.0 * eta[1]) - eta[1] - (log_y + 0.5 * math.log(2.0 * math.pi))

    def _residual(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return np.log(data.y / self.mean(eta)) + 0.5 * np.exp(2.0 * np.asarray(eta[1]))

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return self.mean(eta) ** 2 * np.expm1(np.exp(2.0 * np.asarray(eta[1])))

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        s = np.exp(np.asarray(eta[1]))
        return self.mean(eta) * np.exp(s * rng.standard_normal(data.n) - 0.5 * s * s)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import ndtr

        below = ndtr(self._residual(data, eta) * np.exp(-np.asarray(eta[1])))
        return below, below

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        return slope * slope * exp(-2.0 * eta[1])

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Squared residual of log y."""
        return self._residual(data, eta) ** 2

    def check_response(self, data: Observations) -> None:
        require_positive(self.name, data.y)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        spread = float(np.std(np.log(data.y))) or 1.0
        return self.link.forward(data.y * math.exp(min(0.5 * spread**2, 2.0))), np.array(math.log(spread))
