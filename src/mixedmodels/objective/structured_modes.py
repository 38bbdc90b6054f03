r"""Starts in the other modes of models with structured residuals.

Random effects and correlated residuals explain the same thing in two ways, and each may be a maximum: slopes
with alternating residuals or an autoregression alone, an intercept with errors nearly independent or a long
range. Only ends that look like one of these are asked for the other, so that ordinary searches stay short:

* a range below six tenths of that of the start, or a nugget of nothing: starts with a shorter
  range, in other valleys of the range, and from scans with large nuggets and without random effects,
* random effects beside a correlation near one: a start without them,
* large random slopes beside a small or negative autoregression: a start with a large one and small effects,
* random terms of variance zero: starts with a small and with a large one,
* few rows for each parameter: starts on either side of every residual parameter's own start. In such samples
  a level or a few rows can be fitted almost exactly, which is a mode of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective

__all__ = ["mode_starts"]

_SHORT = 0.5  # a logarithm of the range so far below its start
_NO_NUGGET = -6.0  # its logit
_NUGGETS = (0.0, 2.0)  # their logits in a second scan
_RANGES = np.arange(-0.5, 4.01, 0.5)
_ASIDES, _APART = np.arange(-3.0, 3.01, 0.25), 0.3  # steps of a range, and of another valley
_SHORTER = 1.0
_NEAR_ONE = 2.0  # Fisher's z
_WEAK, _STRONG = 0.5, 1.5  # the same of an autoregression
_NOTHING = 1e-3  # root mean square of a random term, in units of sigma
_SMALL, _MEDIUM, _LARGE = 0.05, 0.2, 1.0  # starts of random effects
_FEW_ROWS = 15  # for each parameter
_ASIDE = 2.0  # steps of residual parameters, all of which are logarithms, logits, Fisher's z or powers
_WIDEST = 4  # residual parameters up to which either side is looked at


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
    short = bool(objective.ranges) and _is_short(objective, psi)
    if short:
        out += _long_range(objective, psi)
        out += _other_ranges(objective, psi)
    if not r and not objective.ranges:
        return out
    if r and not objective._map.any_curved:
        places = _correlations(objective)
        near_one = np.any(np.abs(psi[places]) > _NEAR_ONE)
        if not short and size.max() > _NOTHING and near_one:
            out.append(_with_effects(objective, objective.start, _SMALL))
        elif len(places) == 1 and psi[places[0]] < _WEAK and size.max() > _LARGE and _has_slopes(objective):
            start = _with_effects(objective, psi, _SMALL)
            start[places] = _STRONG
            out.append(np.clip(start, objective.lower, objective.upper))
        elif size.max() <= _NOTHING:
            out += [_with_effects(objective, psi, sd) for sd in (_MEDIUM, _LARGE)]
    if objective.design.n < _FEW_ROWS * objective.n_theta and objective.n_phi <= _WIDEST:
        out += _either_side(objective)
    return out


def _is_short(objective: StructuredObjective, psi: np.ndarray) -> bool:
    """Whether a range is far below its start, or has no nugget beside it."""
    j = objective.ranges[0]
    return bool(psi[j] < objective.start[j] - _SHORT or np.any(psi[_nuggets(objective)] < _NO_NUGGET))


def _nuggets(objective: StructuredObjective) -> list[int]:
    """Places of the logits of nuggets."""
    return [i for i in range(objective.n_random, objective.n_theta) if "nugget" in objective.names[i]]


def _with_effects(objective: StructuredObjective, psi: np.ndarray, sd: float) -> np.ndarray:
    """A point with independent random effects of this standard deviation."""
    out = psi.copy()
    out[: objective.n_random] = _diagonals(objective, sd)
    return out


def _either_side(objective: StructuredObjective) -> list[np.ndarray]:
    """The start with one residual parameter moved up or down; what is held stays."""
    out = []
    for j in range(objective.n_random, objective.n_theta):
        if j in objective.held:
            continue
        for step in (-_ASIDE, _ASIDE):
            trial = objective.start.copy()
            trial[j] += step
            out.append(np.clip(trial, objective.lower, objective.upper))
    return out


def _has_slopes(objective: StructuredObjective) -> bool:
    """Whether a term has several columns."""
    return any([term.k > 1 for term in objective.design.terms])


def _correlations(objective: StructuredObjective) -> list[int]:
    """Places of Fisher's z of correlations."""
    r = objective.n_random
    return [r + j for j, lower in enumerate(objective.residual.lower.tolist()) if lower > -np.inf]


def _diagonals(objective: StructuredObjective, sd: float) -> np.ndarray:
    """Theta of independent effects with this standard deviation in units of their columns."""
    theta = np.zeros(objective.n_random)
    for _, i, j, t in objective._map.linear_entries.tolist():
        if i == j:
            theta[t] = sd / objective.units[t]
    return theta


def _other_ranges(objective: StructuredObjective, psi: np.ndarray) -> list[np.ndarray]:
    """A shorter range, and the lowest other valley of the range, everything else as at the end."""
    j, r = objective.ranges[0], objective.n_random
    shorter = psi.copy()
    shorter[j] = max(psi[j] - _SHORTER, objective.lower[j])
    trials = np.repeat(psi[None], len(_ASIDES), axis=0)
    trials[:, j] = np.clip(psi[j] + _ASIDES, objective.lower[j], objective.upper[j])
    values = objective.values(psi, trials[:, r:])
    inner = values[1:-1]
    valley = (inner <= values[:-2]) & (inner <= values[2:]) & np.isfinite(inner)
    valley &= np.abs(_ASIDES[1:-1]) > _APART
    if not valley.any():
        return [shorter]
    return [shorter, trials[1 + int(np.where(valley, inner, np.inf).argmin())]]


def _long_range(objective: StructuredObjective, psi: np.ndarray) -> list[np.ndarray]:
    """The best of a scan of the range with large nuggets, without random effects."""
    j, r = objective.ranges[0], objective.n_random
    others = _nuggets(objective)
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
