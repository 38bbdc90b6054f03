"""Student's t: location, scale and degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family, Observations
from mixedmodels.family.functions import exp, log1p, logaddexp
from mixedmodels.family.responses import require
from mixedmodels.family.stirling import lgamma_remainder

__all__ = ["Student"]


class Student(Family):
    r"""Student's t with location :math:`\mu`, scale :math:`\sigma`, degrees of freedom :math:`\nu`.

    .. math:: f = \frac{\Gamma(\frac{\nu+1}2)}{\Gamma(\frac\nu2)\sqrt{\pi\nu}\,\sigma}
                  \left(1 + \frac{z^2}{\nu}\right)^{-\frac{\nu+1}2}, \qquad z = \frac{y - \mu}{\sigma}

    The dispersion predictor is :math:`\log\sigma`; :math:`\log\nu` is one parameter, named ``df``. The ratio
    of gamma functions is written with Stirling's remainder, so the Gaussian limit loses no digits (Lange,
    Little & Taylor 1989, JASA 84, 881-896). The scale is glmmTMB's dispersion parameter, not the standard
    deviation :math:`\sigma\sqrt{\nu/(\nu-2)}`, which need not exist.

    Parameters
    ----------
    link : str or Link, optional
    df : float, optional
        Degrees of freedom held at this value; they are estimated otherwise.
    """

    name = "student"
    links = ("identity", "log", "inverse")
    predictors: tuple[str, ...] = ("conditional", "dispersion", "df")

    def __init__(self, link: Any = None, df: float | None = None) -> None:
        super().__init__(link)
        self.df = df
        if df is not None:
            if not (isinstance(df, int | float) and df > 0.0):
                raise OptionError(f"df of the family 'student' must be a positive number, not {df!r}")
            self.predictors = ("conditional", "dispersion")

    def _log_df(self, eta: Sequence[Any]) -> Any:
        return eta[2] if self.df is None else math.log(self.df)

    def log_density(self, data: Observations, eta: Sequence[Any]) -> Any:
        t = self._log_df(eta)  # log nu
        z = (data.y - self.link.inverse(eta[0])) * exp(-eta[1])
        half = exp(t) * 0.5
        # log of Gamma((nu + 1)/2) / (Gamma(nu/2) sqrt(nu/2)), of the size of -1/(4 nu) for large nu
        ratio = (
            half * log1p(exp(-t))
            - 0.5
            + lgamma_remainder(logaddexp(t, 0.0) - math.log(2.0))
            - lgamma_remainder(t - math.log(2.0))
        )
        return ratio - 0.5 * math.log(2.0 * math.pi) - eta[1] - (half + 0.5) * log1p(z * z * exp(-t))

    def check_response(self, data: Observations) -> None:
        require(self.name, data.y, np.isfinite(data.y), "finite numbers")

    def variance(self, data: Observations, eta: Sequence[np.ndarray]) -> np.ndarray:
        """Variance of the response, infinite for two degrees of freedom or fewer."""
        nu = np.exp(np.asarray(self._log_df(eta), dtype=float))
        scale = np.exp(2.0 * np.asarray(eta[1], dtype=float))
        with np.errstate(all="ignore"):
            inflation = np.where(nu > 2.0, 1.0 / (1.0 - 2.0 / nu), np.inf)
        return np.broadcast_to(scale * inflation, data.y.shape)

    def draw(self, data: Observations, eta: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        nu = np.exp(np.minimum(np.asarray(self._log_df(eta), dtype=float), 300.0))
        return self.mean(eta) + np.exp(eta[1]) * rng.standard_t(nu, size=data.n)

    def cdf(self, data: Observations, eta: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import stdtr

        nu = np.exp(np.minimum(np.asarray(self._log_df(eta), dtype=float), 300.0))
        p = stdtr(nu, (data.y - self.mean(eta)) * np.exp(-np.asarray(eta[1], dtype=float)))
        return p, p

    def start(self, data: Observations) -> tuple[np.ndarray, ...]:
        quartiles = np.quantile(data.y, [0.25, 0.75])
        spread = float(quartiles[1] - quartiles[0]) / 1.4 or float(np.std(data.y)) or 1.0
        center = data.y if self.link.name == "identity" else np.maximum(data.y, 0.1 * spread)
        rest = (np.array(math.log(spread)),) + ((np.array(math.log(8.0)),) if self.df is None else ())
        return self.link.forward(center), *rest
