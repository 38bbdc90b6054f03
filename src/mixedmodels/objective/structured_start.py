"""The search for (theta, phi): from where, and again from elsewhere if need be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.optimize import minimize

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective

__all__ = ["search"]


def search(objective: StructuredObjective, method: Any, start: np.ndarray | None, **keywords: Any) -> Any:
    """Minimise a structured criterion.

    Parameters
    ----------
    objective : StructuredObjective
    method : str or callable
        As for `minimize`.
    start : ndarray or None
        The user's start of (theta, phi); then there is one search.
    **keywords
        Those of `minimize`.

    Returns
    -------
    Optimum
    """
    return minimize(objective, method, start, certify=False, **keywords)
