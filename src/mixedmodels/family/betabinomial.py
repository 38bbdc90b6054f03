"""Beta-binomial: successes out of known trials whose probability varies between rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.binomial import log_choose
from mixedmodels.family.responses import require_trials
from mixedmodels.family.special import log_rising

__all__ = ["BetaBinomial"]


class BetaBinomial(Family):
    r"""Beta-binomial with mean :math:`\mu` and precision :math:`\phi`; dispersion predictor :math:`\log\phi`.

    The probability of success is Beta(:math:`\mu\phi, (1-\mu)\phi`). With the rising factorials
    :math:`(a)_y = \Gamma(a + y)/\Gamma(a)`,

    .. math:: f = \binom{m}{y} \frac{(\mu\phi)_y\,((1-\mu)\phi)_{m-y}}{(\phi)_m}, \qquad
              \mathrm{Var}\,Y = m\mu(1-\mu)\,\frac{\phi + m}{\phi + 1},

    the binomial for :math:`\phi \to \infty` (Griffiths 1973, Biometrics 29, 637-648). The precision is
    glmmTMB's dispersion parameter of this family.
    """

    name = "betabinomial"
    response = "successes"
    links = ("logit", "probit", "cloglog", "loglog", "cauchit")
    predictors = ("conditional", "dispersion")
    dispersion_name = "precision"

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        complement = self.link.log_complement
        assert complement is not None
        y, m = data.y, _trials(data)
        constant = data.constant("choose", lambda: log_choose(m, y))
        a, b = self.link.log_mean(eta[0]), complement(eta[0])
        rest = m - y
        return (
            y * a
            + rest * b
            + log_rising(y, a + eta[1])
            + log_rising(rest, b + eta[1])
            - log_rising(m, eta[1])
            + constant
        )

    def check_response(self, data: Observations) -> None:
        require_trials(self.name, data.y, data.trials)

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        mu, m = self.mean(eta), _trials(data)
        return m * mu * (1.0 - mu) * (1.0 + (m - 1.0) / (1.0 + np.exp(np.minimum(eta[1], 700.0))))

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        mu, phi = self.mean(eta), np.exp(np.minimum(eta[1], 100.0))
        tiny = np.finfo(float).tiny
        p = rng.beta(np.maximum(mu * phi, tiny), np.maximum((1.0 - mu) * phi, tiny))
        return rng.binomial(_trials(data).astype(np.int64), np.broadcast_to(p, data.y.shape)).astype(float)

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        return self.link.forward((data.y + 0.5) / (_trials(data) + 1.0)), np.array(1.5)


def _trials(data: Observations) -> np.ndarray:
    return np.ones_like(data.y) if data.trials is None else data.trials
