r"""Variance of generalised models on the scale of the response, by integration over the random effects.

With :math:`\mu(x, b)` the mean and :math:`V(x, b)` the variance of an observation given the random effects,
for rows x and :math:`b \sim N(0, \Sigma)`:

.. math:: \text{fixed} = \mathrm{Var}_x E_b(\mu), \qquad
          \text{random} = E_x \mathrm{Var}_b(\mu), \qquad
          \text{residual} = E_x E_b(V),

whose sum is the variance of the response; of one grouping factor g,
:math:`E_x \mathrm{Var}_{b_g} E(\mu \mid b_g)`, the covariance of two observations like x that share its level
and nothing else. Under curved links the groups add up to less than all random effects together.

References
----------
De Villemereuil, Schielzeth, Nakagawa & Morrissey (2016), Genetics 204:1281-1294, eqs 10-16;
Goldstein, Browne & Rasbash (2002), Understanding Statistics 1:223-231.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family import Observations

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["moments", "observed_parts", "row_variances", "variance_of_means"]

_NODES = 25


def observed_parts(fit: GLMMFit) -> Any:
    """`Parts` of the variance of the response.

    Raises
    ------
    OptionError
        The response is one of several categories: it has no variance.
    """
    from mixedmodels.inference.checks.latent_variance import row_effects
    from mixedmodels.inference.checks.variance_parts import Parts

    family, data = fit.family, fit.generalised.data
    if family.response == "categories":
        raise OptionError("categories have no variance on the scale of the response; use scale='latent'")
    plain = Observations(data.y, data.trials, None, data.levels)
    etas = list(fit._etas("population"))
    terms = fit.generalised.terms
    everything = list(range(len(terms)))
    own = [j for j in everything if row_effects(terms[j], data.n)]
    shared = [j for j in everything if j not in own]
    total = [row_variances(fit, c) for c in range(len(etas))]

    def spread(chosen: Sequence[int]) -> float:
        inside = [row_variances(fit, c, chosen) for c in range(len(etas))]
        outside = [np.maximum(all_ - part, 0.0) for all_, part in zip(total, inside, strict=True)]
        return float(np.mean(variance_of_means(family.mean, etas, inside, outside)))

    mean, square = moments(family.mean, etas, total)
    within = np.maximum(square - mean**2, 0.0)
    trials = 1.0 if data.trials is None else np.where(data.trials > 0.0, data.trials, np.nan)

    def variance(eta: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(family.variance(plain, eta)) / trials**2

    noise = moments(variance, etas, total)[0]
    fixed = float(np.var(mean - mean[0], ddof=1)) if data.n > 1 else 0.0
    random = float(np.mean(within)) if not own else spread(shared)
    groups: dict[str, list[int]] = {}
    for j in shared:
        groups.setdefault(terms[j].group, []).append(j)
    parts = tuple(
        (group, "all effects", random if len(groups) == 1 else spread(chosen))
        for group, chosen in groups.items()
    )
    residual = float(np.nanmean(noise)) + float(np.mean(within)) - random
    notes = ["scale of the response: random effects integrated out by Gauss-Hermite quadrature"]
    if own:
        notes.append(f"the effect of each row ({terms[own[0]].group}) counts with the residual")
    if len(groups) > 1:
        notes.append("each group: what observations share by that group alone; all together share more")
    return Parts(fixed, parts, residual, tuple(notes), random)


def row_variances(fit: GLMMFit, c: int, chosen: Sequence[int] | None = None) -> np.ndarray:
    """Variance ``z'Sigma z`` of linear predictor c in each row, shape (n,).

    Parameters
    ----------
    fit : GLMMFit
    c : int
    chosen : sequence of int, optional
        Positions of the random terms that take part; None: all.
    """
    from mixedmodels.inference.checks.variance_parts import several_levels_variances
    from mixedmodels.solver.precision import covariance_diagonal

    design = fit.generalised
    out = np.zeros(design.n)
    for j, (term, own) in enumerate(zip(design.terms, design.term_predictor, strict=True)):
        if own != c or (chosen is not None and j not in chosen):
            continue
        factor = np.array(fit._factors[j])
        if term.several_levels:
            out += several_levels_variances(term, factor @ factor.T)
            continue
        columns = np.broadcast_to(factor, (design.n, 1)) if term.Z is None else term.Z @ factor
        part = np.einsum("ij,ij->i", columns, columns)
        out += part if term.precision is None else part * covariance_diagonal(term.precision)[term.codes]
    return out


def moments(
    function: Callable[[list[np.ndarray]], np.ndarray],
    etas: Sequence[np.ndarray],
    variances: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of a function of independent normal linear predictors in each row.

    Parameters
    ----------
    function : callable
        From one array (n,) per predictor to (n,).
    etas, variances : sequence of ndarray, shape (n,)

    Examples
    --------
    >>> mean, square = moments(lambda eta: np.exp(eta[0]), [np.zeros(1)], [np.ones(1)])
    >>> bool(abs(mean[0] - np.exp(0.5)) < 1e-9)
    True
    """
    mean, square = np.zeros(etas[0].shape[0]), np.zeros(etas[0].shape[0])
    for weight, shifted in _nodes(etas, variances):
        value = np.asarray(function(shifted))
        mean += weight * value
        square += weight * value * value
    return mean, square


def variance_of_means(
    function: Callable[[list[np.ndarray]], np.ndarray],
    etas: Sequence[np.ndarray],
    inside: Sequence[np.ndarray],
    outside: Sequence[np.ndarray],
) -> np.ndarray:
    """Variance over the effects inside of the mean over those outside, in each row."""
    mean, square = np.zeros(etas[0].shape[0]), np.zeros(etas[0].shape[0])
    for weight, shifted in _nodes(etas, inside):
        value = moments(function, shifted, outside)[0]
        mean += weight * value
        square += weight * value * value
    return np.maximum(square - mean**2, 0.0)


def _nodes(etas: Sequence[np.ndarray], variances: Sequence[np.ndarray]) -> Any:
    """Weights and shifted predictors of a product rule over the predictors that vary."""
    points, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    active = [c for c, variance in enumerate(variances) if np.any(variance > 0.0)]
    roots = {c: np.sqrt(variances[c]) for c in active}
    for place in product(range(_NODES), repeat=len(active)):
        shifted = list(etas)
        weight = 1.0
        for c, k in zip(active, place, strict=True):
            shifted[c] = etas[c] + points[k] * roots[c]
            weight *= float(weights[k])
        yield weight, shifted
