"""A coarse grid of starts, then Newton from the best."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from mixedmodels.optimize.base import columns_of_entries

__all__ = ["grid_points"]


def grid_points(objective: Any, start: np.ndarray, factors: tuple[float, ...]) -> list[np.ndarray]:
    """Multiples of the start: all combinations for up to three columns of factors, else one column at a time.

    Parameters
    ----------
    objective : Objective
    start : ndarray, shape (n_theta,)
        Zero diagonals count as 1.
    factors : tuple of float
        Multipliers.

    Returns
    -------
    list of ndarray, each (n_theta,)
        Inside the bounds; the start first.
    """
    entries = getattr(objective, "entries", None)
    groups = [] if entries is None else list(columns_of_entries(entries))
    if not groups:
        groups = [np.array([i]) for i in range(len(start))]
    base = np.array(start, dtype=float)
    for group in groups:
        if base[group[0]] == 0.0:
            base[group[0]] = 1.0
    points = [np.array(start, dtype=float)]
    if len(groups) <= 3:
        choices = list(product(factors, repeat=len(groups)))
    else:
        choices = [(f,) * len(groups) for f in factors]
        choices += [
            tuple(f if i == j else 1.0 for i in range(len(groups)))
            for j in range(len(groups))
            for f in factors
            if f != 1
        ]
    for choice in choices:
        theta = base.copy()
        for group, factor in zip(groups, choice, strict=True):
            theta[group] *= factor
        points.append(np.minimum(np.maximum(theta, objective.lower), objective.upper))
    return points
