r"""Cumulative link models of ordered categories.

.. math:: P(Y \le j \mid \eta) = F(\alpha_j - \eta), \qquad j = 1, \ldots, K - 1,

with thresholds :math:`\alpha_1 < \ldots < \alpha_{K-1}` and F the inverse link: the category says between
which thresholds the latent variable :math:`\eta + e`, e with distribution F, falls. A positive coefficient
makes high categories likelier.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.family import functions as f
from mixedmodels.family.base import Family, Observations
from mixedmodels.family.jet import Jet, count, indices, place, variables
from mixedmodels.family.links import Link
from mixedmodels.family.thresholds import check_kind, threshold_map

__all__ = ["Cumulative"]


class Cumulative(Family):
    r"""Ordered categories with cumulative probabilities (proportional odds under the logit link).

    .. math:: \log f = \log\{F(\alpha_y - \eta) - F(\alpha_{y-1} - \eta)\}, \qquad
              \alpha_0 = -\infty, \; \alpha_K = \infty

    The thresholds above and below the category of a row are its predictors ``thresholds`` and ``lower``,
    which share their coefficients. Responses are the numbers 1, ..., K of the categories, in order.

    Parameters
    ----------
    link : str or Link, optional
        Inverse of F; ``"logit"`` by default.
    thresholds : {"flexible", "symmetric", "symmetric2", "equidistant"}
        See `mixedmodels.family.thresholds`.

    Attributes
    ----------
    alpha : ndarray, shape (K - 1,), or None
        Thresholds at the estimates, known to the family of a fit; means and draws need them.
    levels : tuple of str
        Labels of the categories, likewise.

    References
    ----------
    McCullagh (1980), Regression models for ordinal data, J. R. Statist. Soc. B 42, 109-142.
    Agresti (2010), Analysis of Ordinal Categorical Data, chapters 3 and 5.
    """

    name = "cumulative"
    links = ("logit", "probit", "cloglog", "loglog", "cauchit")
    predictors = ("conditional", "thresholds", "lower")
    response = "categories"
    kernels: ClassVar[dict[str, int]] = {"logit": 8}

    def __init__(self, link: Any = None, thresholds: str = "flexible") -> None:
        super().__init__(link)
        if self.link.log_complement is None:
            raise OptionError(
                f"family 'cumulative' needs a link of probabilities, one with log_complement, not {self.link}"
            )
        self.thresholds = check_kind(thresholds)
        self.alpha: np.ndarray | None = None
        self.levels: tuple[str, ...] = ()

    # ------------------------------------------------------------------ the density
    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        first, last = _ends(data)
        return log_between(self.link, eta[1] - eta[0], eta[2] - eta[0], first, last)

    def jets(
        self, data: Observations, eta: Sequence[np.ndarray], order: int, active: Sequence[int] = (0,)
    ) -> np.ndarray:
        if tuple(active) != (0, 1, 2) or order == 0:
            return super().jets(data, eta, order, active)
        # two variables, the distances of the thresholds from eta, have 15 derivatives where three have 35
        first, last = _ends(data)
        with np.errstate(all="ignore"):
            a, b = variables([eta[1] - eta[0], eta[2] - eta[0]], (0, 1), order)
            inner = log_between(self.link, a, b, first, last).table(data.n)
            if data.weights is not None:
                inner *= data.weights
            return _chain(inner, order)

    def kernel_constant(self, data: Observations) -> np.ndarray | None:
        first, last = _ends(data)
        return data.constant("ends", lambda: 1.0 * first + 2.0 * last)

    # ------------------------------------------------------------------ thresholds
    def at(self, design: Any, gamma: np.ndarray) -> Cumulative:
        """The family with the thresholds that belong to coefficients."""
        J = threshold_map(self.thresholds, design.data.levels)[1]
        out = copy.copy(self)
        out.alpha = J @ np.asarray(gamma, dtype=float)[design.predictors[1].columns]
        out.alpha.setflags(write=False)
        out.levels = tuple(design.data.levels)
        return out

    def with_alpha(self, alpha: Any) -> Cumulative:
        """The family with thresholds given as numbers, for means and draws.

        Raises
        ------
        OptionError
            They are not increasing numbers.
        """
        try:
            values = np.array(alpha, dtype=float)
        except (TypeError, ValueError):
            values = np.empty((0, 0))
        if (
            values.ndim != 1
            or not values.size
            or not np.isfinite(values).all()
            or (np.diff(values) <= 0).any()
        ):
            raise OptionError(
                f"thresholds must be increasing numbers, one between two categories, got {alpha!r}"
            )
        out = copy.copy(self)
        out.alpha, out.levels = values, tuple([str(j) for j in range(1, len(values) + 2)])
        return out

    def response_columns(self, data: Observations) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        """Names of the threshold parameters and the columns of both predictors that hold them."""
        names, J = threshold_map(self.thresholds, data.levels)
        category = data.y.astype(np.intp) - 1
        rows = np.bincount(category, minlength=len(data.levels))
        if not rows.all():
            raise DataError(
                f"the response has no row of category {data.levels[int(np.argmin(rows))]!r}: the thresholds "
                "around it cannot be estimated; fit a model with fewer categories"
            )
        above = np.vstack([J, np.zeros((1, J.shape[1]))])
        below = np.vstack([np.zeros((1, J.shape[1])), J])
        return names, {"thresholds": above[category], "lower": below[category]}

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        K = len(data.levels)
        category = data.y.astype(np.intp) - 1
        frequency = np.bincount(category, data.weights, K) + 0.5
        below = np.cumsum(frequency)[:-1] / frequency.sum()
        alpha = np.asarray(self.link.forward(below), dtype=float)
        return np.zeros(data.n), np.append(alpha, 0.0)[category], np.append(0.0, alpha)[category]

    # ------------------------------------------------------------------ moments
    def probabilities(self, eta: np.ndarray) -> np.ndarray:
        """Probabilities of the categories at conditional predictors, shape (n, K)."""
        alpha = self._alpha()
        eta = np.asarray(eta, dtype=float)
        K = len(alpha) + 1
        out = np.empty((eta.shape[0], K))
        with np.errstate(all="ignore"):
            for j in range(K):
                a, b = alpha[min(j, K - 2)] - eta, alpha[max(j - 1, 0)] - eta
                out[:, j] = np.exp(log_between(self.link, a, b, np.array(j == 0), np.array(j == K - 1)))
        return out

    def cumulative(self, eta: np.ndarray) -> np.ndarray:
        """``P(Y <= j)``, shape (n, K); the last column is one."""
        alpha = self._alpha()
        with np.errstate(all="ignore"):
            below = np.asarray(self.link.inverse(alpha - np.asarray(eta, dtype=float)[:, None]))
        return np.column_stack([below, np.where(np.isnan(eta), np.nan, 1.0)])

    def mean(self, eta: Sequence[np.ndarray]) -> np.ndarray:
        p = self.probabilities(eta[0])
        return p @ np.arange(1.0, p.shape[1] + 1.0)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        p = self.probabilities(eta[0])
        scores = np.arange(1.0, p.shape[1] + 1.0)
        return np.asarray(((scores - (p @ scores)[:, None]) ** 2 * p).sum(axis=1))

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        below = self.cumulative(eta[0])[:, :-1]
        return 1.0 + (rng.random(len(below))[:, None] >= below).sum(axis=1)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        first, last = _ends(data)
        with np.errstate(all="ignore"):
            below = np.where(first, 0.0, self.link.inverse(np.asarray(eta[2] - eta[0])))
            upto = np.where(last, 1.0, self.link.inverse(np.asarray(eta[1] - eta[0])))
        return below, upto

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(-2.0 * self.log_density(data, [np.asarray(part) for part in eta]))

    def surrogate(
        self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        r"""Surrogate residuals: a draw of the latent e between the thresholds of its category, shape (n,).

        With the distribution F of the latent variable if the model holds (Liu & Zhang 2018, Residuals and
        diagnostics for ordinal regression models: a surrogate approach, JASA 113, 845-854; not centred).
        """
        low, high = self.cdf(data, eta)
        u = low + (high - low) * rng.random(data.n)
        tiny = np.finfo(float).tiny
        with np.errstate(all="ignore"):
            return np.asarray(self.link.forward(np.clip(u, tiny, 1.0 - 0.5 * np.finfo(float).eps)))

    def _alpha(self) -> np.ndarray:
        if self.alpha is None:
            raise OptionError(
                "family 'cumulative' needs thresholds for probabilities and draws: take those of a fit "
                "(fit.predict, fit.simulate, fit.family)"
            )
        return self.alpha

    def __repr__(self) -> str:
        kind = "" if self.thresholds == "flexible" else f", {self.thresholds} thresholds"
        return f"{self.name}({self.link.name}{kind})"


def _ends(data: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first and of the last category."""
    K = float(len(data.levels))
    return data.constant("first", lambda: data.y == 1.0), data.constant("last", lambda: data.y == K)


def log_between(link: Link, a: Any, b: Any, first: np.ndarray, last: np.ndarray) -> Any:
    r"""``log{F(a) - F(b)}``, ``log F(a)`` in rows of the first category, ``log{1 - F(b)}`` in the last.

    Without cancellation in either tail. With S = 1 - F,

    .. math:: F(a) - F(b) = F(a) S(b) (1 - e^{b - a})

    for the logistic distribution; :math:`S(b)\{1 - \exp(-e^b (e^{a-b} - 1))\}` for the Gumbel one (cloglog),
    mirrored for loglog; :math:`\arctan\{(a - b)/(1 + ab)\}/\pi` for Cauchy's; and
    :math:`F(a)(1 - F(b)/F(a))` or :math:`S(b)(1 - S(a)/S(b))`, whichever tail is the smaller, in general.

    Parameters
    ----------
    link : Link
    a, b : ndarray or Jet, shape (n,)
        Thresholds above and below the category minus eta; not finite results where a <= b.
    first, last : ndarray of bool, shape (n,)
    """
    log_F, log_S = link.log_mean, link.log_complement
    assert log_S is not None
    edge = first | last
    if link.name == "probit":  # symmetric: from the lower tail, whichever side the category is on
        flip = np.where(first, False, last | (_value(a) + _value(b) > 0.0))
        near, far = log_F(f.where(flip, -b, a)), log_F(f.where(flip, -a, b))
        return near + f.where(edge, 0.0, f.log1mexp(f.where(edge, 1.0, near - far)))
    lowest, highest = log_F(a), log_S(b)
    if link.name == "logit":
        inside = f.log1mexp(f.where(edge, 1.0, a - b))
        return f.where(last, 0.0, lowest) + f.where(first, 0.0, highest) + f.where(edge, 0.0, inside)
    if link.name == "cloglog":
        inside = highest + f.log1mexp(f.exp(b) * f.expm1(a - b))
    elif link.name == "loglog":
        inside = lowest + f.log1mexp(f.exp(-a) * f.expm1(a - b))
    elif link.name == "cauchit":
        inside = f.log(_cauchy_between(link, a, b))
    else:
        beyond, below = log_S(a), log_F(b)
        left = lowest + f.log1mexp(lowest - below)
        right = highest + f.log1mexp(highest - beyond)
        inside = f.where(_value(lowest) + _value(below) <= _value(highest) + _value(beyond), left, right)
    return f.where(first, lowest, f.where(last, highest, inside))


def _value(x: Any) -> np.ndarray:
    return np.asarray(x.value if isinstance(x, Jet) else x)


def _cauchy_between(link: Link, a: Any, b: Any) -> Any:
    va, vb = _value(a), _value(b)
    value = np.where(va > vb, np.arctan2(va - vb, 1.0 + va * vb) / math.pi, np.nan)
    difference = link.inverse(a) - link.inverse(b)
    if isinstance(difference, Jet):
        return Jet([value, *difference.c[1:]], difference.variables, difference.order)
    return value


def _chain(inner: np.ndarray, order: int) -> np.ndarray:
    """Derivatives in (eta, upper, lower) from those in (a, b) = (upper - eta, lower - eta)."""
    where = place(2, order)
    out = np.empty((count(3, order), inner.shape[1]))
    for row, (i, j, k) in zip(out, indices(3, order), strict=True):
        sign = -1.0 if i % 2 else 1.0
        np.multiply(inner[where[j + i, k]], sign, out=row)
        for m in range(i):
            row += sign * math.comb(i, m) * inner[where[j + m, k + i - m]]
    return out
