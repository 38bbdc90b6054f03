"""Poisson counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations

__all__ = ["Poisson"]


class Poisson(Family):
    r"""Poisson, :math:`\log f = y\log\mu - \mu - \log y!`."""

    name = "poisson"
    response = "count"
    links = ("log", "sqrt", "identity")

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        constant = data.constant("factorial", lambda: _log_factorial(data.y))
        return data.y * self.link.log_mean(eta[0]) - self.link.inverse(eta[0]) - constant

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        return self.mean(eta)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        return rng.poisson(self.mean(eta)).astype(float)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        return (self.link.forward(data.y + 0.1),)


def _log_factorial(y: np.ndarray) -> np.ndarray:
    from scipy.special import gammaln

    return gammaln(y + 1.0)
