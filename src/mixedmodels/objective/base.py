"""The criterion of a Gaussian model from its parts, and the names an objective answers to.

`Objective` and `Certificate` are those of the optimisers, which know no statistics; this module adds what
every Gaussian objective shares: the criterion, its scale and the average information.
"""

from __future__ import annotations

from math import log, pi

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.optimize.base import Certificate, Objective
from mixedmodels.solver.base import Breakdown

__all__ = [
    "INFORMATION_KINDS",
    "Certificate",
    "Objective",
    "average_information",
    "check_kind",
    "check_sigma",
    "gaussian_criterion",
    "gaussian_scale",
]

INFORMATION_KINDS = ("average", "observed", "expected")

_LOG_2PI = log(2.0 * pi)


def gaussian_criterion(logdets: float, pwrss: float, nu: float, sigma: float | None) -> float:
    r"""Minus twice the profiled log-likelihood.

    .. math:: d = \text{logdets} + \nu \,(1 + \log(2\pi\, r^2/\nu)), \qquad
              d = \text{logdets} + \nu \log(2\pi\sigma^2) + r^2/\sigma^2 \text{ (sigma fixed)}.

    Parameters
    ----------
    logdets : float
        ``log|V| - sum log w``, and ``+ log|X'V^{-1}X|`` for REML.
    pwrss : float
        r^2.
    nu : float
        n (ML) or n - p (REML).
    sigma : float or None
        Residual standard deviation held fixed.

    Raises
    ------
    Breakdown
        pwrss is not positive: the model reproduces the response.
    """
    if sigma is not None:
        return logdets + nu * (_LOG_2PI + 2.0 * log(sigma)) + pwrss / sigma**2
    if not pwrss > 0.0:
        raise Breakdown(
            "the model fits the response perfectly, so sigma is 0; remove terms or check the response"
        )
    return logdets + nu * (1.0 + _LOG_2PI + log(pwrss / nu))


def gaussian_scale(pwrss: float, nu: float, sigma: float | None) -> float:
    """``1 / sigma^2``, sigma profiled (nu / pwrss) or fixed."""
    return nu / pwrss if sigma is None else 1.0 / sigma**2


def average_information(
    wpw: np.ndarray, q: np.ndarray, pwrss: float, nu: float, sigma: float | None
) -> np.ndarray:
    r"""Average information in the units of the criterion's Hessian, sigma profiled unless fixed.

    .. math:: AI_{ij} = \frac{\nu}{r^2} y'PV_iPV_jPy - \frac{\nu}{r^4} q_i q_j, \qquad q_i = y'PV_iPy,

    without the second part for a fixed sigma (Gilmour, Thompson & Cullis 1995, Biometrics 51:1440-1450).

    Parameters
    ----------
    wpw : ndarray, shape (r, r)
    q : ndarray, shape (r,)
    """
    scale = gaussian_scale(pwrss, nu, sigma)
    if sigma is not None:
        return scale * wpw
    return scale * (wpw - np.outer(q, q) / pwrss)


def check_kind(kind: str) -> None:
    """Raise OptionError unless `kind` names an information matrix."""
    if kind not in INFORMATION_KINDS:
        raise OptionError(f"unknown information kind {kind!r}; choose one of {', '.join(INFORMATION_KINDS)}")


def check_sigma(sigma: float | None) -> float | None:
    """A positive finite residual standard deviation, or None."""
    if sigma is None:
        return None
    value = float(sigma)
    if not 0.0 < value < float("inf"):
        raise OptionError(f"a fixed sigma must be positive and finite, got {sigma!r}")
    return value
