r"""Residuals of generalised models from responses and linear predictors.

With y the response (the proportion of successes for binomial families), mu its mean and V its variance:

* ``"response"``: :math:`y - \mu`;
* ``"pearson"`` (or ``"scaled"``): :math:`(y - \mu)\sqrt{w / V}`, V all of the variance, with the dispersion;
* ``"deviance"``: :math:`\mathrm{sign}(y - \mu)\sqrt{d}`, d the unit deviance
  :math:`2\{\log f(y; \hat\mu = y) - \log f(y; \mu)\}`;
* ``"working"``: :math:`(y - \mu) / (\mathrm{d}\mu/\mathrm{d}\eta)`;
* ``"quantile"``: :math:`\Phi^{-1}(u)`, u uniform between :math:`P(Y < y)` and :math:`P(Y \le y)`: standard
  normal if the model holds (Dunn & Smyth 1996, Randomized quantile residuals, JCGS 5:236-244);
* ``"surrogate"``: for ordered categories a draw of the latent error given the category
  (`mixedmodels.family.cumulative.Cumulative.surrogate`).

Ordered categories count as their numbers 1, 2, ... in the first two; their deviance is :math:`-2\log f(y)`,
their working residual the score over the observed information.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.glmm_values import working_response

if TYPE_CHECKING:
    from mixedmodels.family import Family, Observations

__all__ = ["KINDS", "canonical_kind", "glmm_residuals", "response_of"]

KINDS = ("response", "pearson", "scaled", "deviance", "working", "quantile", "surrogate")
_ALIASES = {"conditional": "response", "scaled": "pearson", "normalized": "pearson", "normalised": "pearson"}


def canonical_kind(kind: Any) -> str:
    """The name of a kind of residual.

    Raises
    ------
    OptionError
        Unknown kind.
    """
    name = _ALIASES.get(kind, kind) if isinstance(kind, str) else kind
    if name not in KINDS:
        raise OptionError(f"residual kind {kind!r} is unknown; available: {', '.join(KINDS)}")
    return name


def response_of(data: Observations) -> np.ndarray:
    """The response on the scale of its mean: proportions for binomial families."""
    return data.y if data.trials is None else data.y / data.trials


def glmm_residuals(
    family: Family, data: Observations, eta: np.ndarray, kind: str, seed: Any = None
) -> np.ndarray:
    """Residuals of all rows, shape (n,).

    Parameters
    ----------
    family : Family
    data : Observations
    eta : ndarray, shape (C, n)
    kind : str
        One of `KINDS`.
    seed : int, Generator or None
        Of quantile residuals.

    Raises
    ------
    OptionError
        An unknown kind, or one that the family cannot give.
    """
    kind = canonical_kind(kind)
    etas = list(eta)
    y, mu = response_of(data), family.mean(etas)
    if kind == "response":
        return y - mu
    if kind == "working" and family.response == "categories":
        return working_response(family, data, eta, "observed") - eta[0]
    if kind == "working":
        return working_response(family, data, eta) - eta[0]
    if kind == "pearson":
        return _pearson(family, data, etas, y - mu)
    if kind == "deviance":
        unit = np.asarray(_asked(family, "unit_deviance", kind, data, etas))
        if data.weights is not None:
            unit = unit * data.weights
        return np.sign(y - mu) * np.sqrt(np.maximum(unit, 0.0))
    from scipy.special import ndtri

    from mixedmodels.fit.simulate import generator

    if kind == "surrogate":
        return np.asarray(_asked(family, "surrogate", kind, data, etas, generator(seed)))
    low, high = _asked(family, "cdf", kind, data, etas)
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    u = low + (high - low) * generator(seed).random(data.n)
    tiny = np.finfo(float).tiny
    return ndtri(np.clip(u, tiny, 1.0 - 0.5 * np.finfo(float).eps))


def _pearson(
    family: Family, data: Observations, etas: list[np.ndarray], difference: np.ndarray
) -> np.ndarray:
    variance = family.variance(data, etas)
    with np.errstate(all="ignore"):
        sd = np.sqrt(variance) if data.trials is None else np.sqrt(variance) / data.trials
        out = np.where(difference == 0.0, 0.0, difference / sd)
    return out if data.weights is None else out * np.sqrt(data.weights)


def _asked(
    family: Family, name: str, kind: str, data: Observations, etas: list[np.ndarray], *more: Any
) -> Any:
    """What a method of the family gives, or the error that it does not have it."""
    method = getattr(family, name, None)
    if method is not None:
        try:
            return method(data, etas, *more)
        except NotImplementedError:
            pass
    raise OptionError(f"family {family.name!r} gives no {kind} residuals; use 'pearson' or 'response'")
