"""Ordered beta: proportions with exact zeros and ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, log1mexp, log_expit, where
from mixedmodels.family.responses import require
from mixedmodels.family.stirling import lgamma_remainder

__all__ = ["OrderedBeta"]


class OrderedBeta(Family):
    r"""Ordered beta regression (Kubinec 2023, Political Analysis 31, 519-536).

    With cutpoints :math:`c_1 < c_2` and G the logistic distribution function,

    .. math:: P(Y = 0) = G(c_1 - \eta), \quad P(Y = 1) = G(\eta - c_2), \quad
              f(y) = \{G(\eta - c_1) - G(\eta - c_2)\}\, b(y; \mu\phi, (1-\mu)\phi), \quad 0 < y < 1

    where b is the beta density, :math:`\mu = G(\eta)` and :math:`\phi` the precision. The dispersion
    predictor is :math:`\log\phi`; the other two parameters are ``cutpoint``, :math:`c_1`, and ``log_gap``,
    :math:`\log(c_2 - c_1)`.
    """

    name = "ordered_beta"
    links = ("logit",)
    predictors = ("conditional", "dispersion", "cutpoint", "log_gap")
    dispersion_name = "precision"

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        x, delta, low = eta[0], eta[1], eta[2]
        gap = exp(eta[3])
        high = low + gap
        zero, one = log_expit(low - x), log_expit(x - high)
        # G(a) - G(b) = G(a) G(-b) (1 - exp(b - a)), without cancellation in either tail
        inside = log_expit(x - low) + log_expit(high - x) + log1mexp(gap)
        edge, rows = data.y == 0.0, (data.y > 0.0) & (data.y < 1.0)
        y = data.constant("interior", lambda: np.where(rows, data.y, 0.5))
        return where(edge, zero, where(rows, inside + beta_log_density(y, x, delta), one))

    def check_response(self, data: Observations) -> None:
        require(self.name, data.y, (data.y >= 0.0) & (data.y <= 1.0), "between 0 and 1")

    def _parts(self, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Mean and precision of the interior, probabilities of zero and one."""
        x, low = np.asarray(eta[0], dtype=float), np.asarray(eta[2], dtype=float)
        high = low + np.exp(np.asarray(eta[3], dtype=float))
        mu = np.exp(log_expit(x))
        return (
            mu,
            np.exp(np.asarray(eta[1], dtype=float)),
            np.exp(log_expit(low - x)),
            np.exp(log_expit(x - high)),
        )

    def mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu, _, zero, one = self._parts(eta)
        return one + (1.0 - zero - one) * mu

    def expected(self, eta: Sequence[Any]) -> Any:
        high = eta[2] + exp(eta[3])
        zero, one, mu = exp(log_expit(eta[2] - eta[0])), exp(log_expit(eta[0] - high)), exp(log_expit(eta[0]))
        return one + (1.0 - zero - one) * mu

    def conditional_mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Mean of the beta distribution between zero and one."""
        return self._parts(eta)[0]

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu, phi, zero, one = self._parts(eta)
        inside = 1.0 - zero - one
        second = one + inside * (mu * (1.0 - mu) / (1.0 + phi) + mu * mu)
        return np.broadcast_to(second - (one + inside * mu) ** 2, data.y.shape)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        mu, phi, zero, one = self._parts(eta)
        tiny = np.finfo(float).tiny
        inner = rng.beta(np.maximum(mu * phi, tiny), np.maximum((1.0 - mu) * phi, tiny), size=data.n)
        # the open interval: a beta variate rounded to an end is not a zero or a one of the cutpoints
        inner = np.clip(inner, np.finfo(float).tiny, 1.0 - 2.0**-53)
        u = rng.random(data.n)
        return np.where(u < zero, 0.0, np.where(u >= 1.0 - one, 1.0, inner))

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import betainc

        mu, phi, zero, one = self._parts(eta)
        inside = zero + (1.0 - zero - one) * betainc(mu * phi, (1.0 - mu) * phi, data.y)
        below = np.where(data.y == 0.0, 0.0, np.where(data.y == 1.0, 1.0 - one, inside))
        upto = np.where(data.y == 0.0, zero, np.where(data.y == 1.0, 1.0, inside))
        return below, upto

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        n = data.n
        zeros = (float(np.sum(data.y == 0.0)) + 0.5) / (n + 1.0)
        ones = (float(np.sum(data.y == 1.0)) + 0.5) / (n + 1.0)
        total = zeros + ones
        zeros, ones = (zeros, ones) if total < 0.95 else (0.95 * zeros / total, 0.95 * ones / total)
        y = np.clip(data.y, 0.05, 0.95)
        x = np.log(y) - np.log1p(-y)
        center = float(np.mean(x))
        low = center + math.log(zeros / (1.0 - zeros))
        high = center - math.log(ones / (1.0 - ones))
        return x, np.array(1.0), np.array(low), np.array(math.log(high - low))


def beta_log_density(y: np.ndarray, x: Any, delta: Any) -> Any:
    r"""Beta density with mean G(x), precision exp(delta), as the Gaussian-like form that it tends to.

    .. math:: -\phi\, K + \tfrac12 \log\frac{\phi\mu(1-\mu)}{2\pi} + R(\phi) - R(\mu\phi) - R((1-\mu)\phi)
              - \log y(1-y), \qquad K = \mu\log\frac\mu y + (1-\mu)\log\frac{1-\mu}{1-y}

    with Stirling's remainder R, so that large precisions lose no digits.
    """
    a, b = log_expit(x), log_expit(-x)
    log_y, log_z = np.log(y), np.log1p(-y)
    K = exp(a) * (a - log_y) + exp(b) * (b - log_z)
    return (
        0.5 * (delta + a + b - math.log(2.0 * math.pi))
        - exp(delta) * K
        + lgamma_remainder(delta)
        - lgamma_remainder(a + delta)
        - lgamma_remainder(b + delta)
        - (log_y + log_z)
    )
