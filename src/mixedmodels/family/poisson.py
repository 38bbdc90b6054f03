"""Poisson counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mixedmodels.family.base import Family, Observations, require_counts

__all__ = ["Poisson", "log_factorial"]


class Poisson(Family):
    r"""Poisson, :math:`\log f = y\log\mu - \mu - \log y!`."""

    name = "poisson"
    response = "count"
    links = ("log", "sqrt", "identity")
    kernels: ClassVar[dict[str, int]] = {"log": 4}

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        return data.y * self.link.log_mean(eta[0]) - self.link.inverse(eta[0]) + self.kernel_constant(data)

    def kernel_constant(self, data: Observations) -> np.ndarray | None:
        return -log_factorial(data)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return self.mean(eta)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        return rng.poisson(self.mean(eta)).astype(float)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import pdtr

        mu = self.mean(eta)
        return np.where(data.y > 0, pdtr(np.maximum(data.y - 1.0, 0.0), mu), 0.0), pdtr(data.y, mu)

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        return self.link.inverse(eta[0]) * slope * slope

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        from scipy.special import xlogy

        mu = self.mean(eta)
        return 2.0 * np.maximum(xlogy(data.y, data.y / mu) - (data.y - mu), 0.0)

    def check_response(self, data: Observations) -> None:
        require_counts(self.name, data.y, "for a rate use counts with offset=log(exposure)")

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        return (self.link.forward(data.y + 0.1),)


def log_factorial(data: Observations) -> np.ndarray:
    """``log y!`` of each row, kept with the rows."""
    from scipy.special import gammaln

    return data.constant("factorial", lambda: gammaln(data.y + 1.0))
