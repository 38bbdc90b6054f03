"""Kenward and Roger with the second derivatives of V in natural parameters of the residuals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.natural_residual import residual_natural
from mixedmodels.inference.ddf.kenward_roger import KenwardRoger, structured_parts

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["KenwardRogerFull"]

# Correlations in whose covariances V is linear, where sigma is the only variance parameter beside them.
_LINEAR: tuple[set[str], ...] = ({"cs"}, {"toep"}, {"corr"}, {"us", "varident"}, {"varident"}, set())
_IDENTITY = ("power", "expon", "coef")
_SAME = 1e-8


class KenwardRogerFull(KenwardRoger):
    r"""Kenward & Roger (1997) with second derivatives, ``DDFM=KENWARDROGER`` of SAS.

    .. math:: \Phi_A = \Phi + 2\Phi\Bigl\{\sum_{ij} W_{ij}\bigl(Q_{ij} - P_i\Phi P_j
        - \tfrac14 R_{ij}\bigr)\Bigr\}\Phi, \qquad R_{ij} = X'V^{-1}V_{ij}V^{-1}X .

    It depends on the parameters: variances (sigma^2, and those of groups), correlations, ranges and powers,
    and the covariances of the random effects, as in SAS. Where V is linear in them it is `KenwardRoger`, and
    so are its degrees of freedom everywhere.

    Parameters
    ----------
    fit : StructuredFit
        By REML.

    Raises
    ------
    OptionError
        The fit is by maximum likelihood, or its structure has no parameters of this kind.
    """

    name = "kr-full"
    label = "Kenward-Roger with second derivatives"

    def __init__(self, fit: LMMFit) -> None:
        super().__init__(fit)
        if any(term.covariance.entries is None for term in fit.design.terms):
            raise OptionError(
                'ddf="kr-full" needs random effects whose covariances are free (us, diag); use ddf="kr"'
            )
        self._coordinates = _coordinates(fit)

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        fit, coordinates = self._fit, self._coordinates
        if coordinates is None:
            return super()._parts
        own, seconds = fit.objective.fixed_seconds(np.array(fit.theta))
        first = len(fit.theta) - len(seconds)

        def bending(W: np.ndarray, P: np.ndarray) -> np.ndarray:
            return bent(W[first:, first:], P[first : len(fit.theta)], own, seconds, *coordinates)

        return fit._once("kenward_roger_full", lambda: structured_parts(fit, bending))


def bent(
    W: np.ndarray,
    P: np.ndarray,
    own: np.ndarray,
    seconds: np.ndarray,
    kappa: np.ndarray,
    variances: np.ndarray,
) -> np.ndarray:
    r"""``sum_ij W_ij R_ij`` in natural parameters x(y), the coordinates y linear in (phi, log sigma^2).

    .. math:: \sum_{ij} W_{ij} V_{ij} - \sum_k \kappa_k \mathrm{Var}(y_k)\, V_{y_k}, \qquad
        \kappa = x''(y)/x'(y)

    Parameters
    ----------
    W : ndarray, shape (r + 1, r + 1)
        Covariance of phi and log sigma^2; of phi alone, (r, r), for a known sigma.
    P : ndarray, shape (r, p, p)
        ``X'V^{-1}R_jV^{-1}X``.
    own : ndarray, shape (p, p)
        ``X'V^{-1}RV^{-1}X``, the derivative in log sigma^2 at known covariances of the random effects.
    seconds : ndarray, shape (r, r, p, p)
    kappa : ndarray, shape (r,)
        Of the coordinates of phi; 1 for logarithms.
    variances : ndarray of bool, shape (r,)
        Coordinates that are ratios of standard deviations: there x is the variance,
        y = log sigma^2 + 2 phi.
    """
    r = len(P)
    out = np.tensordot(W[:r, :r], seconds, axes=2)
    free_sigma = len(W) > r
    share = np.where(variances, 0.5, 1.0)  # d phi / d y
    spread = np.diagonal(W)[:r].copy()
    if free_sigma:
        out = out + W[r, r] * own + 2.0 * np.tensordot(W[r, :r], P, axes=1)
        out = out - W[r, r] * (own - 0.5 * P[variances].sum(axis=0))
        with_sigma = 4.0 * spread + 4.0 * W[r, :r] + W[r, r]
        spread = np.where(variances, with_sigma, spread)
    else:
        spread = np.where(variances, 4.0 * spread, spread)
    return out - np.tensordot(kappa * spread * share, P, axes=1)


def _coordinates(fit: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Kappa of each entry of phi and which are ratios of standard deviations; None where V is linear."""
    natural = residual_natural(fit)
    if natural is None:
        return None
    tags = {factor.tag for factor in natural.bound.factors} - {"varfixed", "known"}
    if tags in _LINEAR:
        return None
    found = natural.at(fit.theta)
    kappa = np.full(len(natural.index), np.nan)
    for place, (kind, x, row) in enumerate(
        zip(found.kinds, found.values.tolist(), found.jacobian, strict=True)
    ):
        if not row.any():
            continue
        j = natural.coordinate(place)
        if j is None:
            break
        kappa[j] = _kappa(kind, x, float(row[j]), tags)
    if np.isnan(kappa).any():
        raise OptionError(
            f'ddf="kr-full" is not defined for {natural.bound.text}, whose parameters depend on each other; '
            'use ddf="kr", which is the same in all parameters'
        )
    variances = np.zeros(len(kappa), dtype=bool)
    for place, kind in enumerate(found.kinds):
        if kind == "sd_ratio" and found.jacobian[place].any():
            variances[natural.coordinate(place)] = True  # type: ignore[index]
    return kappa, variances


def _kappa(kind: str, x: float, slope: float, tags: set[str]) -> float:
    """x''/x' of a natural parameter in its coordinate; NaN for an unknown one."""

    def same(value: float) -> bool:
        return abs(slope - value) <= _SAME * (abs(value) + _SAME)

    if kind in ("sd_ratio", "range") and same(x):
        return 1.0
    if kind in _IDENTITY and same(1.0):
        return 0.0
    if kind == "correlation":
        if same(1.0 - x * x):
            return -2.0 * x
        if x > 0.0 and same(-x * math.log(x)):
            return -math.log(x) - 1.0
        if "cs" in tags:  # x = low + (1 - low) / (1 + exp(-y))
            low = (slope - x * (1.0 - x)) / (slope - 1.0 + x)
            return (1.0 - 2.0 * x + low) / (1.0 - low)
    return math.nan
