r"""Starts in the other modes of models with structured residuals.

Random effects and correlated residuals explain the same thing in two ways, and each may be a maximum: slopes
with alternating residuals or an autoregression alone, an intercept with errors nearly independent or a long
range. Only ends that look like one of these are asked for the other, so that ordinary searches stay short:

* a range below a third of that of the start: the range is scanned again with large nuggets and without
  random effects,
* random effects beside a correlation near one: a start without them,
* a random term of variance zero: a start with a large one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective

__all__ = ["mode_starts"]

_SHORT = 1.0  # a logarithm of the range so far below its start
_NUGGETS = (0.0, 2.0)  # their logits in a second scan
_RANGES = np.arange(-0.5, 4.01, 0.5)
_NEAR_ONE = 2.0  # Fisher's z
_NOTHING = 1e-3  # root mean square of a random term, in units of sigma
_SMALL, _LARGE = 0.05, 1.0  # starts of random effects


def mode_starts(objective: StructuredObjective, psi: np.ndarray) -> list[np.ndarray]:
    """Starts in other modes than that of an end of a search; mostly none.

    Parameters
    ----------
    objective : StructuredObjective
    psi : ndarray, shape (n_theta,)
        The end.
    """
    r = objective.n_random
    size = np.abs(psi[:r]) * objective.units[:r]
    out: list[np.ndarray] = []
    short = objective.ranges and psi[objective.ranges[0]] < objective.start[objective.ranges[0]] - _SHORT
    if short:
        out += _long_range(objective, psi)
    if not r or objective._map.any_curved:
        return out
    if not short and size.max() > _NOTHING and np.any(np.abs(psi[_correlations(objective)]) > _NEAR_ONE):
        start = objective.start.copy()
        start[:r] = _diagonals(objective, _SMALL)
        out.append(start)
    elif size.max() <= _NOTHING:
        start = psi.copy()
        start[:r] = _diagonals(objective, _LARGE)
        out.append(start)
    return out


def _correlations(objective: StructuredObjective) -> list[int]:
    """Places of Fisher's z of correlations."""
    return [j for j in range(objective.n_random, objective.n_theta) if np.isfinite(objective.lower[j])]


def _diagonals(objective: StructuredObjective, sd: float) -> np.ndarray:
    """Theta of independent effects with this standard deviation in units of their columns."""
    theta = np.zeros(objective.n_random)
    for _, i, j, t in objective._map.linear_entries.tolist():
        if i == j:
            theta[t] = sd / objective.units[t]
    return theta


def _long_range(objective: StructuredObjective, psi: np.ndarray) -> list[np.ndarray]:
    """The best of a scan of the range with large nuggets, without random effects."""
    j, r = objective.ranges[0], objective.n_random
    others = [i for i in range(r, objective.n_theta) if i != j and "nugget" in objective.names[i]]
    best, found = np.inf, None
    for nugget in _NUGGETS if others else _NUGGETS[:1]:
        for shift in _RANGES.tolist():
            trial = psi.copy()
            if not objective._map.any_curved:
                trial[:r] = _diagonals(objective, _SMALL)
            trial[j], trial[others] = objective.start[j] + shift, nugget
            trial = np.clip(trial, objective.lower, objective.upper)
            try:
                value = objective.value(trial)
            except (Breakdown, FloatingPointError, np.linalg.LinAlgError):
                continue
            if value < best:
                best, found = value, trial
    return [] if found is None else [found]
