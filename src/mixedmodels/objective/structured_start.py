r"""Where the search for (theta, phi) begins.

The criterion along the coordinates of phi, then theta by the compiled search of the ordinary model in
whitened rows. Likelihoods of spatial ranges have several maxima: every valley of a coarse scan of the range
is a start of its own. So is every valley along a power of a covariate (or another slope of the logarithms of
the standard deviations), along which the random effects keep their size beside the typical residual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective
    from mixedmodels.residual.combine import CombinedResidual

__all__ = ["coarse_starts", "value_or_infinity"]

# Structures of up to so many parameters are looked at along each coordinate before the search.
_FEW = 3
_SHIFTS = (-0.5, 0.5, 1.0)
_RANGE_SHIFTS = np.arange(-1.0, 5.01, 0.25)
_OTHERS = 1.0
# Steps along the slopes of variance functions, in the units of `CombinedResidual.slopes`.
_SLOPE_SHIFTS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
_NEIGHBOUR = 0.3
# At most so many starts; valleys so much higher than the lowest are hopeless.
_SEARCHES = 3
_HOPELESS = 30.0


def coarse_starts(objective: StructuredObjective) -> list[np.ndarray]:
    """Starts from the criterion's values along the coordinates of phi, then theta by its own search.

    Parameters
    ----------
    objective : StructuredObjective

    Returns
    -------
    list of ndarray, shape (n_theta,)
        The most promising first.
    """
    psi, slopes = objective.start, _slopes(objective)
    if objective.ranges:
        starts = _valleys(objective, psi, objective.ranges[0])
    elif (phi := _general_phi(objective)) is not None:
        starts = [np.concatenate([psi[: objective.n_random], phi])]
    elif objective.n_phi <= _FEW:
        starts = [_along_coordinates(objective, psi, [j for j, _ in slopes])]
    else:
        starts = [psi]
    for j, unit in slopes:
        found = [one for psi in starts for one in _along_slope(objective, psi, j, unit)]
        starts = [psi for _, psi in sorted(found, key=lambda pair: pair[0])[:_SEARCHES]]
    entries = objective.linear_entries
    variances = not objective._map.any_curved and bool(np.all(entries[:, 1] == entries[:, 2]))
    if not objective.n_random or (objective.compiled is not None and variances):
        return starts  # without covariances the joint search finds them as fast
    return [_theta_at_phi(objective, one) for one in starts]


def _along_coordinates(objective: StructuredObjective, psi: np.ndarray, slopes: list[int]) -> np.ndarray:
    """The best of a few steps along each coordinate of phi in turn; slopes are another matter."""
    best = np.inf
    for j in range(objective.n_random, objective.n_theta):
        if j in slopes:
            continue
        trials = np.array([_shifted(objective, psi, j, shift) for shift in _SHIFTS])
        if best == np.inf:
            trials = np.concatenate([psi[None], trials])
        values = objective.values(psi, trials[:, objective.n_random :])
        least = int(values.argmin())
        if values[least] < best:
            psi, best = trials[least], float(values[least])
    return psi


def _slopes(objective: StructuredObjective) -> list[tuple[int, float]]:
    """Places in psi of the slopes of variance functions, if they are few, and their units."""
    slopes = getattr(objective.residual, "slopes", None)
    found = [] if slopes is None else slopes()
    found = [(objective.n_random + j, unit) for j, unit in found]
    return [pair for pair in found if pair[0] not in objective.held] if len(found) <= _FEW else []


def _along_slope(
    objective: StructuredObjective, psi: np.ndarray, j: int, unit: float
) -> list[tuple[float, np.ndarray]]:
    """Valleys along the slope of a variance function, with the criterion there."""
    r, residual = objective.n_random, cast("CombinedResidual", objective.residual)  # others have no slopes
    shifts = [shift * unit for shift in _SLOPE_SHIFTS]
    shifts.insert(len(shifts) // 2, 0.0)
    trials = np.array([_shifted(objective, psi, j, shift) for shift in shifts])
    sizes = np.ones(len(trials))
    if not objective._map.any_curved:
        means = np.array([float(residual.log_sd(trial[r:]).mean()) for trial in trials])
        sizes = np.exp(means - means[len(means) // 2])
        trials[:, :r] *= sizes[:, None]
    values = objective.values(psi, trials[:, r:], sizes)
    return [(float(values[i]), trials[i]) for i in _minima(values)] or [(np.inf, psi)]


def _minima(values: np.ndarray) -> list[int]:
    """Places of the local minima of a scan that are not hopeless beside the lowest."""
    padded = np.concatenate([[np.inf], values, [np.inf]])
    low = np.isfinite(values) & (values <= padded[:-2]) & (values <= padded[2:])
    low &= values <= values.min() + _HOPELESS
    return [int(i) for i in np.flatnonzero(low)]


def _general_phi(objective: StructuredObjective) -> np.ndarray | None:
    """Start of a general correlation between visits from steps of the EM algorithm; None for others."""
    if getattr(objective.residual, "correlation", None) is None:
        return None
    from mixedmodels.residual.visit_moments import general_start

    design = objective.design
    y = design.y if design.offset is None else design.y - design.offset
    phi = general_start(objective.residual, y, design.X, objective.reml)
    if phi is None:
        return None
    psi = np.concatenate([objective.start[: objective.n_random], phi])
    return phi if np.isfinite(value_or_infinity(objective, psi)) else None


def _valleys(objective: StructuredObjective, psi: np.ndarray, j: int) -> list[np.ndarray]:
    """Local minima of coarse scans of one coordinate, the lowest first; neighbours count once.

    With other coordinates of the residuals at their starts, and moved up a little (a larger nugget).
    """
    found: list[tuple[float, np.ndarray]] = []
    moved = psi.copy()
    others = [i for i in range(objective.n_random, objective.n_theta) if i != j]
    moved[others] = np.clip(psi[others] + _OTHERS, objective.lower[others], objective.upper[others])
    for base in (psi, moved) if others else (psi,):
        trials = np.array([_shifted(objective, base, j, float(shift)) for shift in _RANGE_SHIFTS])
        values = objective.values(base, trials[:, objective.n_random :])
        found += [(float(values[i]), trials[i]) for i in _minima(values)]
    out: list[np.ndarray] = []
    least = min([value for value, _ in found], default=np.inf)
    for value, trial in sorted(found, key=lambda pair: pair[0]):
        if value > least + _HOPELESS or len(out) == _SEARCHES:
            break
        if all(abs(trial[j] - other[j]) > _NEIGHBOUR for other in out):
            out.append(trial)
    return out or [psi]


def _shifted(objective: StructuredObjective, psi: np.ndarray, j: int, shift: float) -> np.ndarray:
    out = psi.copy()
    out[j] = min(max(out[j] + shift, objective.lower[j]), objective.upper[j])
    return out


def value_or_infinity(objective: StructuredObjective, psi: np.ndarray) -> float:
    """The criterion, infinite where it does not exist.

    Parameters
    ----------
    objective : StructuredObjective
    psi : ndarray, shape (n_theta,)
    """
    try:
        value = objective.value(psi)
    except (FloatingPointError, np.linalg.LinAlgError):
        return np.inf
    return value if np.isfinite(value) else np.inf


def _theta_at_phi(objective: StructuredObjective, psi: np.ndarray) -> np.ndarray:
    """The best theta at the phi of psi, where the whitened model has a compiled search."""
    try:
        inner = objective.at_phi(psi)
        facts = inner.newton_minimize(psi[: objective.n_random], tol=1e-3, maxiter=15)
    except (Breakdown, np.linalg.LinAlgError):
        return psi
    if facts is None or not np.all(np.isfinite(facts["theta"])):
        return psi
    out = psi.copy()
    out[: objective.n_random] = np.clip(facts["theta"], inner.lower, inner.upper)
    return out
