"""More zeros than a family gives: mixtures with zeros, and hurdles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, log_expit, logaddexp, where
from mixedmodels.family.responses import require
from mixedmodels.family.truncated import Truncated, zero_log_density

__all__ = ["Hurdle", "ZeroInflated", "with_zeros"]


class _WithZeros(Family):
    """What both have in common: a base family and a last predictor, the logit of a probability of zero."""

    def __init__(self, base: Family) -> None:
        self.base = base
        self.links = base.links  # type: ignore[misc]
        self.link = base.link
        self.response = base.response
        self.dispersion_name = base.dispersion_name
        self.predictors = (*base.predictors, "zero_inflation")

    def zero_probability(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Probability of the extra zero (of any zero behind a hurdle)."""
        return np.exp(log_expit(np.asarray(eta[-1], dtype=float)))

    def conditional_mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Mean of the responses that are not extra zeros."""
        return self.base.mean(eta[:-1])

    def mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        return np.exp(log_expit(-np.asarray(eta[-1], dtype=float))) * self.conditional_mean(eta)

    def expected(self, eta: Sequence[Any]) -> Any:
        return exp(log_expit(-eta[-1])) * self.base.expected(eta[:-1])

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        stays = np.exp(log_expit(-np.asarray(eta[-1], dtype=float)))
        m = self.conditional_mean(eta) * (1.0 if data.trials is None else data.trials)
        return stays * (self.base.variance(data, eta[:-1]) + self.zero_probability(eta) * m * m)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        zero = rng.random(data.n) < self.zero_probability(eta)
        return np.where(zero, 0.0, self.base.draw(data, eta[:-1], rng))

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        zero = self.zero_probability(eta)
        stays = np.exp(log_expit(-np.asarray(eta[-1], dtype=float)))
        below, upto = self._base_cdf(data, eta[:-1])
        return np.where(data.y > 0.0, zero + stays * below, 0.0), zero + stays * upto

    def _base_cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return self.base.cdf(data, eta)

    def __repr__(self) -> str:
        return f"{self.name}({self.link.name})"


class ZeroInflated(_WithZeros):
    r"""A family of counts mixed with zeros.

    .. math:: f(0) = \pi + (1 - \pi) f_0(0), \qquad f(y) = (1 - \pi) f_0(y), \quad y > 0

    The predictor ``zero_inflation`` is :math:`\mathrm{logit}\,\pi`, the probability of a structural zero, as
    in glmmTMB (Lambert 1992, Technometrics 34, 1-14).

    Parameters
    ----------
    base : Family
        The family of the counts that are not structural zeros.
    """

    def __init__(self, base: Family) -> None:
        super().__init__(base)
        self.name = f"zero_inflated_{base.name}"  # type: ignore[misc]

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        stays = log_expit(-eta[-1]) + self.base.log_density(data, eta[:-1])
        zero = data.constant("is_zero", lambda: data.y == 0.0)
        return where(zero, logaddexp(log_expit(eta[-1]), stays), stays)

    def check_response(self, data: Observations) -> None:
        self.base.check_response(data)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        base = self.base.start(data)
        expected = float(np.mean(np.exp(zero_log_density(self.base, data, base))))
        share = float(np.mean(data.y == 0.0))
        extra = (share - expected) / max(1.0 - expected, 1e-6)
        extra = min(max(extra, 0.05), 0.95)
        # the rest of the rows come from the counts; the zeros among them are drawn towards their mean
        return *base, np.array(np.log(extra) - np.log1p(-extra))


class Hurdle(_WithZeros):
    r"""Zeros from one model, positive responses from another.

    .. math:: f(0) = \pi, \qquad f(y) = (1 - \pi) f_+(y), \quad y > 0

    where :math:`f_+` is a truncated family of counts or one of positive responses such as the gamma; the
    predictor ``zero_inflation`` is :math:`\mathrm{logit}\,\pi`, as in glmmTMB (Mullahy 1986, Journal of
    Econometrics 33, 341-365).

    Parameters
    ----------
    base : Family
        A family of positive responses; one of counts is truncated.
    """

    def __init__(self, base: Family) -> None:
        super().__init__(base if base.name in _POSITIVE or isinstance(base, Truncated) else Truncated(base))
        self.name = f"hurdle_{getattr(self.base, 'base', self.base).name}"  # type: ignore[misc]

    def _above(self, data: Observations) -> Observations:
        """The rows with ones in place of the zeros, where the density of positive responses is not used."""
        return data.constant("above", lambda: data.with_y(np.where(data.y > 0.0, data.y, 1.0)))

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        above = log_expit(-eta[-1]) + self.base.log_density(self._above(data), eta[:-1])
        zero = data.constant("is_zero", lambda: data.y == 0.0)
        return where(zero, log_expit(eta[-1]), above)

    def check_response(self, data: Observations) -> None:
        require(self.name, data.y, np.isfinite(data.y) & (data.y >= 0.0), "finite and not negative")
        self.base.check_response(self._above(data))

    def _base_cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        below, upto = self.base.cdf(self._above(data), eta)
        zero = data.y == 0.0
        return np.where(zero, 0.0, below), np.where(zero, 0.0, upto)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        positive = data.y > 0.0
        share = (float(np.sum(~positive)) + 0.5) / (data.n + 1.0)
        part = Observations(data.y[positive])
        found = self.base.start(part)
        first = np.full(data.n, float(np.mean(found[0])))
        first[positive] = found[0]
        return first, *found[1:], np.array(np.log(share) - np.log1p(-share))


_POSITIVE = ("gamma", "lognormal", "inverse_gaussian")


def with_zeros(family: Family) -> Family:
    """The family with extra zeros: a mixture for counts, a hurdle for truncated and positive families.

    Examples
    --------
    >>> from mixedmodels.family import get_family
    >>> with_zeros(get_family("poisson")).predictors
    ('conditional', 'zero_inflation')
    """
    if isinstance(family, Truncated) or family.name in _POSITIVE:
        return Hurdle(family)
    return ZeroInflated(family)
