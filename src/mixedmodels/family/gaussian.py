"""Gaussian; the dispersion predictor is the logarithm of the residual standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mixedmodels.family.base import Family, Observations, refuse
from mixedmodels.family.functions import exp
from mixedmodels.family.jet import variables

__all__ = ["Gaussian"]


class Gaussian(Family):
    r"""Gaussian, :math:`y \sim N(\mu, \sigma^2)`, dispersion predictor :math:`\delta = \log\sigma`."""

    name = "gaussian"
    links = ("identity", "log", "inverse", "sqrt")
    predictors = ("conditional", "dispersion")
    dispersion_name = "residual SD"
    kernels: ClassVar[dict[str, int]] = {"identity": 6}

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        r = data.y - self.link.inverse(eta[0])
        return -0.5 * (r * r) * exp(-2.0 * eta[1]) - eta[1] - 0.5 * math.log(2.0 * math.pi)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return np.broadcast_to(np.exp(2.0 * np.asarray(eta[1])), data.y.shape)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        return self.mean(eta) + np.exp(eta[1]) * rng.standard_normal(data.n)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import ndtr

        below = ndtr((data.y - self.mean(eta)) * np.exp(-np.asarray(eta[1])))
        return below, below

    def expected_weight(
        self, data: Observations, eta: Sequence[np.ndarray], order: int, active: Sequence[int] = (0,)
    ) -> np.ndarray:
        with np.errstate(all="ignore"):
            mean = self.link.inverse(variables(eta, active, order + 1)[0])
            rise = mean.partial(list(active).index(0))
            table = (rise * rise * exp(-2.0 * variables(eta, active, order)[1])).table(data.n)
            if data.weights is not None:
                table *= data.weights
        return table

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return (data.y - self.mean(eta)) ** 2

    def check_response(self, data: Observations) -> None:
        refuse(
            ~np.isfinite(data.y),
            data.y,
            "family 'gaussian': the response must be finite",
            "remove these rows",
        )

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        spread = float(np.std(data.y)) or 1.0
        if self.link.name == "identity":
            return data.y, np.array(math.log(spread))
        return self.link.forward(np.maximum(data.y, 0.1 * spread)), np.array(math.log(spread))
