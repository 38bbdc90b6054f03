"""Binomial: successes out of a known number of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.jet import Jet, variables
from mixedmodels.family.responses import require, require_counts

__all__ = ["Binomial"]


class Binomial(Family):
    r"""Binomial, :math:`\log f = \log\binom{m}{y} + y\log\mu + (m - y)\log(1 - \mu)`."""

    name = "binomial"
    response = "successes"
    links = ("logit", "probit", "cloglog", "loglog", "cauchit", "log", "identity")
    kernels: ClassVar[dict[str, int]] = {"logit": 1, "probit": 2, "cloglog": 3}

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        complement = self.link.log_complement
        assert complement is not None
        y = data.y
        if data.trials is None:
            return y * self.link.log_mean(eta[0]) + (1.0 - y) * complement(eta[0])
        return (
            y * self.link.log_mean(eta[0])
            + (data.trials - y) * complement(eta[0])
            + self.kernel_constant(data)
        )

    def kernel_constant(self, data: Observations) -> np.ndarray | None:
        if data.trials is None:
            return None
        return data.constant("choose", lambda: log_choose(data.trials, data.y))

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu = self.mean(eta)
        return mu * (1.0 - mu) if data.trials is None else data.trials * mu * (1.0 - mu)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        trials = 1 if data.trials is None else data.trials.astype(np.int64)
        return rng.binomial(trials, self.mean(eta)).astype(float)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import bdtr

        mu = self.mean(eta)
        m = np.ones(data.n) if data.trials is None else data.trials
        below = np.where(data.y > 0, bdtr(np.maximum(data.y - 1.0, 0.0), m.astype(np.int64), mu), 0.0)
        return below, bdtr(data.y, m.astype(np.int64), mu)

    def information(self, data: Observations, eta: Sequence[Any], slope: Any) -> Any:
        raise NotImplementedError  # written in both tails below

    def expected_weight(
        self, data: Observations, eta: Sequence[np.ndarray], order: int, active: Sequence[int] = (0,)
    ) -> np.ndarray:
        complement = self.link.log_complement
        assert complement is not None
        with np.errstate(all="ignore"):
            values = variables(eta, active, order + 1)
            up, down = self.link.log_mean(values[0]), complement(values[0])
            assert isinstance(up, Jet)  # m mu'^2 / (mu (1 - mu)), in logarithmic derivatives
            table = (-(up.partial(0) * down.partial(0))).table(data.n)
            if data.trials is not None:
                table *= data.trials
            if data.weights is not None:
                table *= data.weights
        return table

    def unit_deviance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        from scipy.special import xlogy

        m = np.ones(data.n) if data.trials is None else data.trials
        rate = np.where(m > 0, data.y / np.where(m > 0, m, 1.0), 0.0)
        saturated = xlogy(data.y, rate) + xlogy(m - data.y, 1.0 - rate)
        complement = self.link.log_complement
        assert complement is not None
        with np.errstate(all="ignore"):
            e = np.asarray(eta[0], dtype=float)
            up = np.where(data.y > 0, data.y * self.link.log_mean(e), 0.0)
            down = np.where(m > data.y, (m - data.y) * complement(e), 0.0)
        return 2.0 * np.maximum(saturated - up - down, 0.0)

    def check_response(self, data: Observations) -> None:
        y = data.y
        if data.trials is None:
            proportions = bool(((y > 0.0) & (y < 1.0)).any() and ((y >= 0.0) & (y <= 1.0)).all())
            remedy = (
                "for proportions give trials= or a response cbind(successes, failures)"
                if proportions
                else "for counts out of more than one trial give trials= or cbind(successes, failures)"
            )
            require(self.name, y, (y == 0.0) | (y == 1.0), "0 or 1 when there are no trials", remedy)
            return
        m = data.trials
        if ((y >= 0.0) & (y <= m) & (m < np.inf) & (y == np.floor(y)) & (m == np.floor(m))).all():
            return
        require_counts(self.name, data.trials, remedy="these are the trials")
        require_counts(
            self.name, y, remedy="give successes, or proportions that are whole parts of the trials"
        )
        require(
            self.name,
            y,
            y <= data.trials,
            "at most the number of trials",
            "check trials=, or the order in cbind(successes, failures)",
        )

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        m = 1.0 if data.trials is None else data.trials
        return (self.link.forward((data.y + 0.5) / (m + 1.0)),)


def log_choose(trials: Any, y: np.ndarray) -> np.ndarray:
    from scipy.special import gammaln

    return gammaln(trials + 1.0) - gammaln(y + 1.0) - gammaln(trials - y + 1.0)
