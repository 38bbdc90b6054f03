"""Links: how the mean of a response depends on its linear predictor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family import functions as f

__all__ = ["LINKS", "Link", "get_link"]


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A link function g with ``g(mu) = eta``.

    Attributes
    ----------
    name : str
    forward : callable
        g on arrays.
    inverse : callable
        ``mu = g^{-1}(eta)`` on arrays and jets.
    log_mean : callable
        ``log mu`` on arrays and jets, without loss in the tails.
    log_complement : callable or None
        ``log(1 - mu)`` likewise; None for links whose means are not probabilities.
    positive : bool
        Whether every eta gives a mean in the open range of positive numbers or of probabilities.
    """

    name: str
    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[Any], Any]
    log_mean: Callable[[Any], Any]
    log_complement: Callable[[Any], Any] | None = None
    positive: bool = True

    def __repr__(self) -> str:
        return f"Link({self.name!r})"


def _probit_inverse(eta: Any) -> Any:
    return f.exp(f.log_ndtr(eta))


def _cauchit_inverse(eta: Any) -> Any:
    def derivatives(v: np.ndarray, order: int) -> list[Any]:
        s = 1.0 / (1.0 + v * v)
        return [
            np.arctan2(1.0, -v) / math.pi,  # atan(1/|v|) in the lower tail
            s / math.pi,
            -2.0 / math.pi * (v * s) * s,
            2.0 / math.pi * (3.0 - 4.0 * s) * s * s,
            24.0 / math.pi * (v * s) * (2.0 * s - 1.0) * s * s,
        ][: order + 1]

    return f.apply(eta, derivatives)


def _ndtri(mu: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    return ndtri(mu)


def _log_cauchit(eta: Any) -> Any:
    return f.log(_cauchit_inverse(eta))


LINKS: dict[str, Link] = {
    link.name: link
    for link in (
        Link("identity", lambda mu: mu, lambda eta: eta, f.log, lambda eta: f.log(1.0 - eta), False),
        Link("log", np.log, f.exp, lambda eta: eta, lambda eta: f.log1mexp(-eta)),
        Link(
            "logit",
            lambda mu: np.log(mu) - np.log1p(-mu),
            lambda eta: f.exp(f.log_expit(eta)),
            f.log_expit,
            lambda eta: f.log_expit(-eta),
        ),
        Link("probit", _ndtri, _probit_inverse, f.log_ndtr, lambda eta: f.log_ndtr(-eta)),
        Link(
            "cloglog",
            lambda mu: np.log(-np.log1p(-mu)),
            lambda eta: -f.expm1(-f.exp(eta)),
            f.log_mean_cloglog,
            lambda eta: -f.exp(eta),
        ),
        Link(
            "loglog",
            lambda mu: -np.log(-np.log(mu)),
            lambda eta: f.exp(-f.exp(-eta)),
            lambda eta: -f.exp(-eta),
            lambda eta: f.log_mean_cloglog(-eta),
        ),
        Link(
            "cauchit",
            lambda mu: np.tan(math.pi * (mu - 0.5)),
            _cauchit_inverse,
            _log_cauchit,
            lambda eta: _log_cauchit(-eta),
        ),
        Link("inverse", lambda mu: 1.0 / mu, lambda eta: 1.0 / eta, lambda eta: -f.log(eta), None, False),
        Link(
            "1/mu^2",
            lambda mu: mu**-2.0,
            lambda eta: f.power(eta, -0.5),
            lambda eta: -0.5 * f.log(eta),
            None,
            False,
        ),
        Link(
            "sqrt",
            np.sqrt,
            lambda eta: eta * eta,
            lambda eta: f.log(eta * eta),
            None,
        ),
    )
}


def get_link(link: Any, allowed: tuple[str, ...], family: str) -> Link:
    """The link of a name, or the link itself.

    Raises
    ------
    OptionError
        Unknown name, or a link the family does not take.
    """
    if isinstance(link, Link):
        return link
    name = {"1/mu2": "1/mu^2", "1/mu**2": "1/mu^2", "inverse_squared": "1/mu^2"}.get(link, link)
    if name not in allowed or name not in LINKS:
        raise OptionError(f"family {family!r} has no link {link!r}; available: {', '.join(allowed)}")
    return LINKS[name]
