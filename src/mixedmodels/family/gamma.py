"""Gamma; the dispersion predictor is the logarithm of the shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp
from mixedmodels.family.responses import require_positive
from mixedmodels.family.special import expm1mx
from mixedmodels.family.stirling import lgamma_remainder

__all__ = ["Gamma"]


class Gamma(Family):
    r"""Gamma with mean mu and shape a, :math:`\delta = \log a`, variance :math:`\mu^2/a`.

    .. math:: \log f = a(\log a + z) - a e^z - \log\Gamma(a) - \log y, \qquad z = \log(y/\mu)

    With Stirling's remainder c this is
    :math:`-a(e^z - 1 - z) + \tfrac12(\delta - \log 2\pi) - c(a) - \log y`, without cancellation for large a.
    """

    name = "gamma"
    links = ("inverse", "log", "identity")
    predictors = ("conditional", "dispersion")
    dispersion_name = "shape"
    kernels: ClassVar[dict[str, int]] = {"log": 7}

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        log_y = data.constant("log", lambda: np.log(data.y))
        excess = expm1mx(log_y - self.link.log_mean(eta[0]))
        return (
            0.5 * eta[1]
            - exp(eta[1]) * excess
            - lgamma_remainder(eta[1])
            - (log_y + 0.5 * math.log(2.0 * math.pi))
        )

    def kernel_constant(self, data: Observations) -> np.ndarray | None:
        return -data.constant("log", lambda: np.log(data.y))

    def sigma(self, delta: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * np.asarray(delta))

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return self.mean(eta) ** 2 * np.exp(-np.asarray(eta[1]))

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        shape = np.exp(np.asarray(eta[1]))
        return rng.gamma(shape, self.mean(eta) / shape, size=data.n)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import gammainc

        shape = np.exp(np.asarray(eta[1]))
        below = gammainc(shape, shape * data.y / self.mean(eta))
        return below, below

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        return slope * slope * exp(eta[1])

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return 2.0 * expm1mx(np.log(data.y / self.mean(eta)))

    def check_response(self, data: Observations) -> None:
        require_positive(self.name, data.y)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        spread = float(np.var(np.log(data.y)))
        return self.link.forward(data.y), np.array(-math.log(min(max(spread, 1e-4), 1e4)))
