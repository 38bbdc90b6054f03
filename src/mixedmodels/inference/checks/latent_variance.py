r"""Variance of generalised models on the latent scale, that of the linear predictor.

To the variances of the fixed and random parts of :math:`\eta` comes the variance of single observations on
that scale. With the mean response :math:`\lambda`, the average over the rows of
:math:`E(\mu)` with the random effects integrated out, and the family's variance :math:`V(\lambda)`:

* ``"theoretical"`` (families of successes and of categories): the variance of the latent distribution,
  :math:`\pi^2/3` (logit), 1 (probit), :math:`\pi^2/6` (cloglog, loglog);
* ``"lognormal"`` (log links): :math:`\ln(1 + V/\lambda^2)`, for instance :math:`\ln(1 + 1/\lambda)` for
  Poisson and :math:`\ln(1 + 1/\lambda + 1/\theta)` for negative binomial responses;
* ``"trigamma"`` (log links): :math:`\psi_1(\lambda^2/V)`;
* ``"delta"`` (all): :math:`V/(\mathrm{d}\mu/\mathrm{d}\eta)^2` at :math:`\lambda`, for log links
  :math:`V/\lambda^2`, for binary responses :math:`1/\{\lambda(1-\lambda)\}`.

An effect of every single row (as many levels as rows) is no difference between groups: its variance counts
with that of the observations.

References
----------
Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14:20170213, eqs 3.5-4.6, table 2 and its
supplement; they take :math:`\lambda` from the model without fixed effects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family import Observations
from mixedmodels.fit.glmm_values import base_family, mean_derivative
from mixedmodels.inference.checks.observed_variance import moments, row_variances

if TYPE_CHECKING:
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["METHODS", "distribution_variance", "latent_parts", "mean_response", "row_effects"]

METHODS = ("theoretical", "lognormal", "delta", "trigamma")
_LATENT = {"logit": math.pi**2 / 3.0, "probit": 1.0, "cloglog": math.pi**2 / 6.0, "loglog": math.pi**2 / 6.0}


def latent_parts(fit: GLMMFit, method: str | None) -> Any:
    """`Parts` of the variance of the linear predictor and of the observations around it.

    Parameters
    ----------
    fit : GLMMFit
    method : {"theoretical", "lognormal", "delta", "trigamma"}, optional
        By default theoretical for binomial and ordinal families, lognormal for log links, else delta.

    Raises
    ------
    OptionError
        An unknown method, or one that family and link do not have.
    """
    from mixedmodels.inference.checks.variance_parts import Parts, mean_variance

    family = base_family(fit.family)
    method = _method(family, method)
    X = np.asarray(fit.design.X)
    eta = X @ fit.beta
    fixed = float(np.var(eta - eta[0], ddof=1)) if X.shape[1] and fit.design.n > 1 else 0.0
    terms, notes, own = [], [], 0.0
    for term, factor in zip(fit.design.terms, fit._factors[: len(fit.design.terms)], strict=True):
        array = np.array(factor)
        value = mean_variance(term, array @ array.T)
        if row_effects(term, fit.design.n):
            own += value
            notes.append(f"the effect of each row ({term.group}) counts with the residual")
        else:
            terms.append((term.group, " + ".join(term.names), value))
    if method == "theoretical":
        residual = _LATENT[family.link.name]
        notes.append(f"latent scale; residual: variance of the {family.link.name} link's distribution")
    else:
        level = mean_response(fit)
        residual = distribution_variance(fit, level, method)
        notes.append(f"latent scale; residual: {method} approximation at mean response {level:.4g}")
    if any(term.Z is not None for term in fit.design.terms):
        notes.append("terms with slopes: the mean over the rows of the variance of z'b (Johnson 2014)")
    if family is not fit.family:
        notes.append("of the conditional model: without the model of the zeros")
    return Parts(fixed, tuple(terms), residual + own, tuple(notes))


def row_effects(term: Any, n: int) -> bool:
    """Whether a term is an effect of every single row."""
    plain = term.Z is None and term.precision is None and not term.several_levels
    return term.m == n and plain and n > 1


def _method(family: Family, method: Any) -> str:
    link = family.link.name
    latent = family.name == "binomial" or family.response == "categories"
    allowed = ["theoretical"] if latent and link in _LATENT else []
    if family.response != "categories" and not latent and type(family).mean is not _plain_mean():
        raise OptionError(
            f"the mean of family {family.name!r} is not the inverse link of its linear predictor, so that "
            "there is no variance of observations on the latent scale; use scale='observation'"
        )
    if family.response != "categories":
        allowed += ["lognormal", "delta", "trigamma"] if link == "log" else ["delta"]
    if not allowed:
        raise OptionError(f"the latent distribution of link {link!r} has no variance")
    if method is None:
        if latent and link not in _LATENT:
            raise OptionError(
                f"the latent distribution of link {link!r} has no variance; use method='delta' or "
                "scale='observation'"
            )
        return allowed[0]
    if method not in METHODS:
        raise OptionError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method not in allowed:
        raise OptionError(
            f"method {method!r} is not for family {family.name!r} with link {link!r}; available: "
            + ", ".join(allowed)
        )
    return method


def _conditional(fit: GLMMFit) -> tuple[Family, Sequence[np.ndarray]]:
    """The family under zero inflation and truncation, and its linear predictors without random effects."""
    family = base_family(fit.family)
    etas = fit._etas("population")
    return family, [etas[fit.components.index(name)] for name in family.predictors]


def mean_response(fit: GLMMFit) -> float:
    """Mean over the rows of the expected (conditional) response, random effects integrated out."""
    family, etas = _conditional(fit)
    places = [fit.components.index(name) for name in family.predictors]
    variances = [row_variances(fit, c) for c in places]
    if family.link.name == "log" and type(family).mean is _plain_mean():
        return float(np.mean(np.exp(etas[0] + 0.5 * variances[0])))
    return float(np.mean(moments(family.mean, etas, variances)[0]))


def _plain_mean() -> Any:
    from mixedmodels.family import Family

    return Family.mean


def distribution_variance(fit: GLMMFit, level: float, method: str) -> float:
    """Variance of single observations on the latent scale at the mean response `level`.

    Parameters
    ----------
    fit : GLMMFit
    level : float
    method : {"lognormal", "delta", "trigamma"}
    """
    from scipy.special import polygamma

    family, etas = _conditional(fit)
    data = fit.generalised.data
    plain = Observations(data.y, data.trials, None, data.levels)
    at = np.full(data.n, float(family.link.forward(np.array(level))))
    variance = np.asarray(family.variance(plain, [at, *etas[1:]]))
    if data.trials is not None:
        variance = variance / np.where(data.trials > 0.0, data.trials, np.nan) ** 2
    V = float(np.nanmean(variance))
    if method == "lognormal":
        return math.log1p(V / level**2)
    if method == "trigamma":
        return float(polygamma(1, level**2 / V))
    return V / float(mean_derivative(family, at[:1])[0]) ** 2
