r"""Means averaged over normally distributed linear predictors.

.. math:: \bar m(\eta, v) = E\,h(\eta + \sqrt v\, Z), \quad Z \sim N(0, 1), \qquad
          \frac{\partial\bar m}{\partial\eta} = E\,h'(\eta + \sqrt v\,Z), \quad
          \frac{\partial\bar m}{\partial v} = \tfrac12 E\,h''(\eta + \sqrt v\,Z)

(the last one because the normal density solves the heat equation). Closed forms for the identity, log,
probit and square-root links; else the trapezoidal rule, which converges exponentially for functions that are
analytic in a strip about the real axis (Trefethen & Weideman 2014, SIAM Review 56:385-458): errors of
``exp(-2 pi a / (h sqrt(v)))`` for a strip of half-width a (pi for the logit, pi/2 for cloglog, 1 for cauchit)
and steps h, where the Gauss-Hermite rule would need hundreds of nodes for a large variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family
from mixedmodels.family.jet import place, variables
from mixedmodels.family.links import LINKS, Link
from mixedmodels.family.mean_jets import has_plain_mean, mean_derivatives
from mixedmodels.family.zero import Hurdle, ZeroInflated

__all__ = ["averaged_link", "averaged_mean", "needs_positive"]

_STEP = 0.18  # of eta between nodes
_REACH = 9.0  # standard deviations
_VALUES = 2_000_000  # evaluated at a time

Average = tuple[np.ndarray, np.ndarray, np.ndarray]


def needs_positive(link: Link) -> bool:
    """Whether the inverse link has a pole or an end at zero, so that no normal mean of it exists."""
    return link.name in ("inverse", "1/mu^2")


def averaged_link(link: Link, eta: np.ndarray, v: np.ndarray) -> Average:
    """Mean of the inverse link over N(eta, v), and its derivatives by eta and v.

    Parameters
    ----------
    link : Link
    eta, v : ndarray, shape (n,)

    Returns
    -------
    mean, by_eta, by_v : ndarray, shape (n,)

    Raises
    ------
    OptionError
        The mean does not exist: links inverse and 1/mu^2.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.family.links import LINKS
    >>> float(averaged_link(LINKS["log"], np.zeros(1), np.array([2.0]))[0][0]) == float(np.exp(1.0))
    True
    """
    name = link.name if LINKS.get(link.name) is link else ""
    if name == "identity":
        return eta.copy(), np.ones_like(eta), np.zeros_like(eta)
    if name == "log":
        with np.errstate(over="ignore"):
            m = np.exp(eta + 0.5 * v)
        return m, m, 0.5 * m
    if name == "sqrt":
        return eta * eta + v, 2.0 * eta, np.ones_like(eta)
    if name == "probit":
        from scipy.special import ndtr

        scale = np.sqrt(1.0 + v)
        t = eta / scale
        density = np.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)
        return ndtr(t), density / scale, -0.5 * density * t / (1.0 + v)
    if needs_positive(link) and (v > 0.0).any():
        raise OptionError(
            f"with link {link.name!r} the mean over normal random effects does not exist: linear predictors "
            "reach zero; predict for given levels, or use another link"
        )

    def table(points: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return link.inverse(variables([points], (0,), 2)[0]).table(points.shape[0])

    value, first, second = _integrated(lambda x: table(x[0]), eta[None], v[None], 3)
    return value, first, 0.5 * second


def averaged_mean(family: Family, eta: np.ndarray, v: np.ndarray) -> Average:
    """Mean response over independent normal linear predictors, and its derivatives.

    Parameters
    ----------
    family : Family
    eta, v : ndarray, shape (C, n)
        Means and variances of all linear predictors.

    Returns
    -------
    mean : ndarray, shape (n,)
    by_eta, by_v : ndarray, shape (C, n)
    """
    C = len(eta)
    if isinstance(family, (ZeroInflated, Hurdle)):
        zero, zero_eta, zero_v = averaged_link(LINKS["logit"], eta[-1], v[-1])
        m, by_eta, by_v = averaged_mean(family.base, eta[:-1], v[:-1])
        stays = 1.0 - zero
        return (
            stays * m,
            np.vstack([stays * by_eta, -m * zero_eta]),
            np.vstack([stays * by_v, -m * zero_v]),
        )
    by_eta, by_v = np.zeros_like(eta), np.zeros_like(eta)
    if has_plain_mean(family):
        m, by_eta[0], by_v[0] = averaged_link(family.link, eta[0], v[0])
        return m, by_eta, by_v
    where, unit = place(C, 2), np.eye(C, dtype=int)
    if not (v > 0.0).any():
        table = mean_derivatives(family, eta, 2)
    else:
        table = _integrated(lambda x: mean_derivatives(family, x, 2), eta, v, len(where))
    for c in range(C):
        by_eta[c] = table[where[tuple(unit[c])]]
        by_v[c] = 0.5 * table[where[tuple(2 * unit[c])]]
    return table[0], by_eta, by_v


def _integrated(
    table: Callable[[np.ndarray], np.ndarray], eta: np.ndarray, v: np.ndarray, rows: int
) -> np.ndarray:
    """The table averaged over normal predictors, shape (rows, n), by the trapezoidal rule in those that vary.

    Each different pair of mean and variance is integrated once.
    """
    both = np.vstack([eta, v])
    unique, back = np.unique(both, axis=1, return_inverse=True)
    C = len(eta)
    eta, v = unique[:C], unique[C:]
    sd = np.sqrt(v)
    nodes, weights = _product([_nodes(float(s.max())) for s in sd])
    n, k = eta.shape[1], weights.shape[0]
    out = np.empty((rows, n))
    chunk = max(1, _VALUES // k)
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        points = eta[:, part, None] + sd[:, part, None] * nodes[:, None, :]
        found = table(points.reshape(C, -1)).reshape(rows, -1, k)
        out[:, part] = found @ weights
    return out[:, np.asarray(back).reshape(-1)]


def _nodes(largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for a standard normal variable that is multiplied by at most `largest`."""
    if largest == 0.0:
        return np.zeros(1), np.ones(1)
    step = min(0.4, _STEP / largest)
    reach = _REACH + largest  # means that grow like exp(eta) shift the integrand
    z = step * np.arange(-math.ceil(reach / step), math.ceil(reach / step) + 1)
    weights = np.exp(-0.5 * z * z)
    return z, weights / weights.sum()


def _product(rules: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (C, k) and weights (k,) of a product of rules."""
    grids: Any = np.meshgrid(*[z for z, _ in rules], indexing="ij")
    weights = np.ones(1)
    for _, w in rules:
        weights = np.multiply.outer(weights, w).reshape(-1)
    return np.array([grid.reshape(-1) for grid in grids]), weights
