"""Starting values of a generalised linear mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.objective.glmm import GLMMObjective

__all__ = ["starting_values"]


def starting_values(objective: GLMMObjective) -> np.ndarray:
    """A point of (gamma, theta) to begin from."""
    coordinates, family = objective.coordinates, objective.family
    design = coordinates.inner
    etas = family.start(design.data)
    gamma = np.zeros(objective.n_gamma)
    for eta, predictor in zip(etas, design.predictors, strict=True):
        X = np.ones((design.n, 1)) if predictor.X is None else predictor.X
        target = np.broadcast_to(np.asarray(eta, dtype=float), (design.n,))
        if predictor.offset is not None:
            target = target - predictor.offset
        gamma[predictor.columns] = np.linalg.lstsq(X, target, rcond=None)[0]
    start = np.linalg.solve(coordinates.B[: objective.n_gamma, : objective.n_gamma], gamma)
    entries = np.zeros(len(coordinates.entries))
    for at, (_, i, j) in enumerate(coordinates.entries):
        entries[at] = 0.7 if i == j else 0.0
    E = coordinates.B[objective.n_gamma :, objective.n_gamma :]
    return np.concatenate([start, np.linalg.lstsq(E, entries, rcond=None)[0]])
