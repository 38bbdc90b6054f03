"""The search for (theta, phi): from where, and again from elsewhere if need be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.optimize import minimize
from mixedmodels.solver.base import Breakdown

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective

__all__ = ["coarse_start", "search"]

# Structures of up to so many parameters are looked at along each coordinate before the search.
_FEW = 3
_SHIFTS = (-0.5, 0.5, 1.0)


def search(objective: StructuredObjective, method: Any, start: np.ndarray | None, **keywords: Any) -> Any:
    """Minimise a structured criterion.

    Parameters
    ----------
    objective : StructuredObjective
    method : str or callable
        As for `minimize`.
    start : ndarray or None
        The user's start of (theta, phi).
    **keywords
        Those of `minimize`.

    Returns
    -------
    Optimum
    """
    if start is None and objective.n_theta:
        start = coarse_start(objective)
    return minimize(objective, method, start, certify=False, **keywords)


def coarse_start(objective: StructuredObjective) -> np.ndarray:
    """A start from the criterion's values along the coordinates of phi, then theta by its own search.

    Parameters
    ----------
    objective : StructuredObjective

    Returns
    -------
    ndarray, shape (n_theta,)
    """
    psi = objective.start
    if objective.n_phi and objective.n_phi <= _FEW:
        best = _value(objective, psi)
        for j in range(objective.n_random, objective.n_theta):
            origin = psi
            for shift in _SHIFTS:
                trial = origin.copy()
                trial[j] = np.clip(trial[j] + shift, objective.lower[j], objective.upper[j])
                value = _value(objective, trial)
                if value < best:
                    psi, best = trial, value
    if objective.n_random:
        psi = _theta_at_phi(objective, psi)
    return psi


def _value(objective: StructuredObjective, psi: np.ndarray) -> float:
    """The criterion, infinite where it does not exist."""
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
