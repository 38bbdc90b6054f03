"""Counts without their zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, log1mexp
from mixedmodels.family.generalised_poisson import GeneralisedPoisson
from mixedmodels.family.negative_binomial import NegativeBinomial, NegativeBinomial1
from mixedmodels.family.poisson import Poisson
from mixedmodels.family.responses import require_counts

__all__ = [
    "Truncated",
    "TruncatedGeneralisedPoisson",
    "TruncatedNegativeBinomial",
    "TruncatedNegativeBinomial1",
    "TruncatedPoisson",
    "zero_log_density",
]


class Truncated(Family):
    r"""A family of counts given that the count is positive.

    .. math:: f(y) = \frac{f_0(y)}{1 - f_0(0)}, \qquad y = 1, 2, \ldots

    The linear predictors are those of the family :math:`f_0`: its mean :math:`\mu` is that before the
    truncation, as in glmmTMB. ``1 - f_0(0)`` is computed from the logarithm of :math:`f_0(0)`, so means as
    small as exp(-50) keep all digits.

    Parameters
    ----------
    base : Family
        The family with zeros.
    """

    def __init__(self, base: Family) -> None:
        self.base = base
        self.name = f"truncated_{base.name}"  # type: ignore[misc]
        self.links = base.links  # type: ignore[misc]
        self.link = base.link
        self.predictors = base.predictors
        self.response = base.response
        self.dispersion_name = base.dispersion_name

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        return self.base.log_density(data, eta) - log1mexp(-1.0 * zero_log_density(self.base, data, eta))

    def check_response(self, data: Observations) -> None:
        require_counts(
            self.name, data.y, 1, 'counts with zeros need zero_inflation="~1" (a hurdle) or another family'
        )

    def _positive(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        """``P(Y > 0)`` of the family with zeros."""
        with np.errstate(all="ignore"):
            return -np.expm1(zero_log_density(self.base, data, eta))

    def mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu = self.base.mean(eta)
        with np.errstate(all="ignore"):
            return np.where(mu > 0.0, np.maximum(mu / self._positive(_zeros(eta), eta), 1.0), 1.0)

    def expected(self, eta: Sequence[Any]) -> Any:
        zeros = _zeros([getattr(part, "value", part) for part in eta])
        return self.base.expected(eta) * exp(-1.0 * log1mexp(-1.0 * zero_log_density(self.base, zeros, eta)))

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu, m = self.base.mean(eta), self.mean(eta)
        ratio = 1.0 + self.base.variance(data, eta) / mu + mu  # 1 + E(Y^2 | Y > 0) / E(Y | Y > 0)
        return np.maximum(m * (ratio - 1.0 - m), 0.0)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """One positive count per row: by rejection where zeros are few, else by summing probabilities."""
        n = data.n
        columns = [np.broadcast_to(np.asarray(part, dtype=float), (n,)) for part in eta]
        often = self._positive(data, columns) > 0.2
        out = np.zeros(n)
        left = np.flatnonzero(np.broadcast_to(often, (n,)))
        while left.size:
            found = self.base.draw(_rows(data, left), [column[left] for column in columns], rng)
            out[left] = found
            left = left[found == 0.0]
        left = np.flatnonzero(~np.broadcast_to(often, (n,)))
        u, total, value = rng.random(n), np.zeros(n), 0
        while left.size:
            value += 1
            part = _rows(data, left).with_y(np.full(left.size, float(value)))
            with np.errstate(all="ignore"):
                total[left] += np.exp(self.log_density(part, [column[left] for column in columns]))
            done = (total[left] >= u[left]) | (value >= 1_000_000)
            out[left[done]] = value
            left = left[~done]
        return out

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        positive = self._positive(data, eta)
        zero = np.exp(zero_log_density(self.base, data, eta))
        below, upto = self.base.cdf(data, eta)
        return np.clip((below - zero) / positive, 0.0, 1.0), np.clip((upto - zero) / positive, 0.0, 1.0)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        return self.base.start(data)

    def __repr__(self) -> str:
        return f"{self.name}({self.link.name})"


def _rows(data: Observations, rows: np.ndarray) -> Observations:
    return Observations(data.y[rows], None if data.trials is None else data.trials[rows])


def _zeros(eta: Sequence[np.ndarray]) -> Observations:
    return Observations(np.zeros(np.broadcast_shapes(*(np.shape(part) for part in eta)) or (1,)))


def zero_log_density(base: Family, data: Observations, eta: Sequence[Any]) -> Any:
    """Logarithm of the probability of a zero under `base`, in the rows of `data`."""
    zeros = data.constant("zeros", lambda: data.with_y(np.zeros_like(data.y)))
    return base.log_density(zeros, eta)


class TruncatedPoisson(Truncated):
    """Zero-truncated Poisson, see `Truncated`."""

    name = "truncated_poisson"
    links = Poisson.links

    def __init__(self, link: Any = None) -> None:
        super().__init__(Poisson(link))


class TruncatedNegativeBinomial(Truncated):
    """Zero-truncated negative binomial with quadratic variance, see `Truncated`."""

    name = "truncated_negative_binomial"
    links = NegativeBinomial.links

    def __init__(self, link: Any = None) -> None:
        super().__init__(NegativeBinomial(link))


class TruncatedNegativeBinomial1(Truncated):
    """Zero-truncated negative binomial with linear variance, see `Truncated`."""

    name = "truncated_nbinom1"
    links = NegativeBinomial1.links

    def __init__(self, link: Any = None) -> None:
        super().__init__(NegativeBinomial1(link))


class TruncatedGeneralisedPoisson(Truncated):
    """Zero-truncated generalised Poisson, see `Truncated`."""

    name = "truncated_generalised_poisson"
    links = GeneralisedPoisson.links

    def __init__(self, link: Any = None) -> None:
        super().__init__(GeneralisedPoisson(link))
