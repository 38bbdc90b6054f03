"""Negative binomials: NB2, variance mu + mu^2/theta, and NB1, variance mu (1 + phi)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, softplus
from mixedmodels.family.poisson import log_factorial
from mixedmodels.family.responses import require_counts
from mixedmodels.family.special import log_rising, softplus_ratio

__all__ = ["NegativeBinomial", "NegativeBinomial1"]


class NegativeBinomial(Family):
    r"""NB2, size theta, :math:`\delta = \log\theta`, variance :math:`\mu + \mu^2/\theta`.

    .. math:: \log f = \log\frac{\Gamma(y + \theta)}{\Gamma(\theta)\,\theta^y} + y\log\mu
              - (y + \theta)\log(1 + \mu/\theta) - \log y!

    written so that all derivatives keep their digits as theta grows and the Poisson is reached
    (`mixedmodels.family.special`).
    """

    name = "negative_binomial"
    links = ("log", "sqrt", "identity")
    predictors = ("conditional", "dispersion")
    response = "count"
    dispersion_name = "size"
    kernels: ClassVar[dict[str, int]] = {"log": 5}

    def _parts(self, eta: Sequence[Any]) -> tuple[Any, Any, Any]:
        """log mu, log theta and log(mu/theta)."""
        log_mean = self.link.log_mean(eta[0])
        return log_mean, eta[1], log_mean - eta[1]

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        log_mean, log_size, ratio = self._parts(eta)
        counted = data.y * (log_mean - softplus(ratio))
        return (
            log_rising(data.y, log_size)
            + counted
            - exp(log_mean) * softplus_ratio(ratio)
            - log_factorial(data)
        )

    def kernel_constant(self, data: Observations) -> np.ndarray | None:
        return -log_factorial(data)

    def _size(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        return np.exp(self._parts([np.asarray(e, dtype=float) for e in eta])[1])

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu = self.mean(eta)
        return mu + mu * mu / self._size(eta)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        size = self._size(eta)
        return rng.poisson(rng.gamma(size, self.mean(eta) / size, size=data.n)).astype(float)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        mu, size = self.mean(eta), self._size(eta)
        below = np.where(data.y > 0, _upto(np.maximum(data.y, 1.0), mu, size), 0.0)
        return below, _upto(data.y + 1.0, mu, size)

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        log_mean, _, ratio = self._parts(eta)
        return slope * slope * exp(log_mean - softplus(ratio))

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        from scipy.special import xlogy

        mu, size = self.mean(eta), self._size(eta)
        y = data.y
        return 2.0 * np.maximum(xlogy(y, y / mu) - (y + size) * np.log1p((y - mu) / (mu + size)), 0.0)

    def check_response(self, data: Observations) -> None:
        require_counts(self.name, data.y, remedy="for a rate use counts with offset=log(exposure)")

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        mean, variance = float(data.y.mean()), float(data.y.var())
        size = mean * mean / (variance - mean) if variance > mean else 100.0
        return self.link.forward(data.y + 0.1), np.array(math.log(min(max(size, 0.05), 100.0)))


class NegativeBinomial1(NegativeBinomial):
    r"""NB1, :math:`\delta = \log\phi`, variance :math:`\mu(1 + \phi)`: NB2 with size :math:`\mu/\phi`."""

    name = "nbinom1"
    dispersion_name = "dispersion"
    kernels: ClassVar[dict[str, int]] = {}

    def _parts(self, eta: Sequence[Any]) -> tuple[Any, Any, Any]:
        log_mean = self.link.log_mean(eta[0])
        return log_mean, log_mean - eta[1], eta[1]

    def kernel_constant(self, data: Observations) -> np.ndarray | None:
        return None

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        return Family.information(self, data, eta, slope)

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return Family.unit_deviance(self, data, eta)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        mean, variance = float(data.y.mean()), float(data.y.var())
        phi = variance / mean - 1.0 if mean > 0.0 else 1.0
        return self.link.forward(data.y + 0.1), np.array(math.log(min(max(0.7 * phi, 0.05), 100.0)))


def _upto(above: np.ndarray, mu: np.ndarray, size: np.ndarray) -> np.ndarray:
    """``P(Y < above)``: I_x(size, above) with x = size / (mu + size), its complement where x is near 1."""
    from scipy.special import betainc, betaincc

    above, mu, size = np.broadcast_arrays(above, mu, size)
    total = mu + size
    near = size < 1e3
    if near.all():
        return betainc(size, above, size / total)
    out = np.empty(above.shape)
    far = ~near
    out[near] = betainc(size[near], above[near], size[near] / total[near])
    out[far] = betaincc(above[far], size[far], mu[far] / total[far])
    return out
