"""The end of a search on the boundary: signs of the factors' columns, and parameters exactly at zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.objective.glmm import GLMMObjective

__all__ = ["clearly_inside", "on_boundary", "with_positive_diagonals", "zeros_tried"]


def with_positive_diagonals(objective: GLMMObjective, psi: np.ndarray) -> np.ndarray:
    """The same covariance matrices with non-negative diagonals of the factors, where parameters allow it."""
    coordinates, n_gamma = objective.coordinates, objective.n_gamma
    lower = coordinates.map.lower
    out = np.array(psi, dtype=float)
    if coordinates.curved:
        trial = coordinates.mirrored(out)
        if not np.array_equal(trial, out) and _same(objective, out, trial):
            out = trial
    if not np.any((out[n_gamma:] < 0.0) & (lower == 0.0)):
        return out
    for term, own in zip(objective.design.terms, coordinates.map.index, strict=True):
        entries = term.covariance.entries
        if entries is None:
            continue
        for column in range(term.k):
            of_column = [(i, n_gamma + int(own[t])) for i, j, t in entries.tolist() if j == column]
            diagonal = [place for i, place in of_column if i == column]
            if not diagonal or not out[diagonal[0]] < 0.0:
                continue
            trial = out.copy()
            places = sorted({place for _, place in of_column})
            trial[places] = -trial[places]
            if _same(objective, out, trial):
                out = trial
    return out


def _same(objective: GLMMObjective, psi: np.ndarray, trial: np.ndarray) -> bool:
    """Whether two points have the same covariance matrices and both obey the restrictions."""
    for F, G in zip(objective.factors(psi), objective.factors(trial), strict=True):
        S = F @ F.T
        if np.abs(S - G @ G.T).max() > 1e-12 * (np.abs(S).max() + 1e-300):
            return False
    if not objective.restricted:
        return True
    phi = np.linalg.lstsq(objective.M, trial - objective.a, rcond=None)[0]
    return bool(np.allclose(objective.a + objective.M @ phi, trial, rtol=1e-12, atol=1e-14))


def clearly_inside(objective: GLMMObjective, psi: np.ndarray, snap: float) -> bool:
    """Whether all covariance parameters are positive and far from zero: nothing is left to do."""
    theta = psi[objective.n_gamma :].tolist()
    lengths = objective.lengths[objective.n_gamma :].tolist()
    sizes = [value * length for value, length in zip(theta, lengths, strict=True)]
    return not sizes or min(sizes) > snap * max(1.0, *sizes)


def zeros_tried(objective: GLMMObjective, psi: np.ndarray, snap: float) -> list[np.ndarray]:
    """Points with parameters next to the boundary exactly on it, the boldest first.

    Rows of a factor that are all small (a variance) and diagonals that are small (a correlation of one).
    """
    if objective.priors is not None and (objective.priors.rows or objective.priors.matrices):
        return []
    n_gamma = objective.n_gamma
    theta = np.abs(psi[n_gamma:]) * objective.lengths[n_gamma:]
    small = theta <= snap * max(1.0, float(theta.max(initial=0.0)))
    free = np.zeros(len(psi), dtype=bool)
    single = (objective.M != 0.0).sum(axis=1) == 1
    free[single] = True
    small &= free[n_gamma:] & (psi[n_gamma:] != 0.0)
    rows, diagonals = set(), set()
    for term, own in zip(objective.design.terms, objective.coordinates.map.index, strict=True):
        entries = term.covariance.entries
        if entries is None:
            scales = own[term.covariance.lower == 0.0].tolist()
            if all(small[t] or psi[n_gamma + t] == 0.0 for t in scales):
                rows |= set(scales)
            continue
        for i in range(term.k):
            places = {int(own[t]) for r, _, t in entries.tolist() if r == i}
            diagonal = {int(own[t]) for r, c, t in entries.tolist() if r == i == c}
            if all(small[t] or psi[n_gamma + t] == 0.0 for t in places):
                rows |= places
            diagonals |= {t for t in diagonal if small[t]}
    out = []
    chosen: set[int] = set()
    for places in (rows | diagonals, diagonals, rows):
        wanted = {t for t in places if psi[n_gamma + t] != 0.0}
        if wanted and wanted != chosen:
            chosen = wanted
            trial = np.array(psi, dtype=float)
            trial[[n_gamma + t for t in wanted]] = 0.0
            if _kept(objective, trial):
                out.append(trial)
    return out


def _kept(objective: GLMMObjective, psi: np.ndarray) -> bool:
    phi = np.linalg.lstsq(objective.M, psi - objective.a, rcond=None)[0]
    return bool(np.allclose(objective.a + objective.M @ phi, psi, rtol=1e-12, atol=1e-14))


def on_boundary(objective: GLMMObjective, psi: np.ndarray) -> bool:
    """Whether a diagonal of a factor is exactly zero and free."""
    lower = objective.coordinates.map.lower
    moved = (objective.M != 0.0).any(axis=1)[objective.n_gamma :]
    return bool(np.any((psi[objective.n_gamma :] == 0.0) & (lower == 0.0) & moved))
