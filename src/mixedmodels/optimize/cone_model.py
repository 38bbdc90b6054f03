"""The quadratic model of the criterion in the covariance matrices, minimised over the cone.

Step 1 of `mixedmodels.optimize.cone`: a problem in a few dozen numbers, no evaluation of the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixedmodels.optimize.cone_factors import (
    cholesky,
    entries_of,
    factor_derivatives,
    lower_triangular,
    matrices_of,
    pivoted,
    stepped,
)

__all__ = ["RIDGE", "ConeModel", "minimise_model", "truncated"]

RIDGE = 1e-13  # of the largest diagonal, so that null directions of the model can be walked along
INNER = 60  # steps of the inner problem
SMALL = 1e-2  # columns at most this long, relative to the first, are tried at zero


@dataclass(frozen=True, slots=True, eq=False)
class ConeModel:
    """``q = g'(x - x0) + (x - x0)'J (x - x0) / 2`` over matrices with the entries x.

    Attributes
    ----------
    tables : tuple of ndarray
    x0, g : ndarray, shape (r,)
    J : ndarray, shape (r, r)
    """

    tables: tuple[np.ndarray, ...]
    x0: np.ndarray
    g: np.ndarray
    J: np.ndarray

    def at(self, factors: Sequence[np.ndarray]) -> tuple[float, np.ndarray, np.ndarray]:
        """q, its gradient and x at B B'."""
        x = entries_of(self.tables, factors)
        d = x - self.x0
        Jd = self.J @ d
        return float(d @ (self.g + 0.5 * Jd)), self.g + Jd, x


def minimise_model(
    model: ConeModel, start: Sequence[np.ndarray], cap: float
) -> tuple[list[np.ndarray], float, int]:
    """Minimise the model over the cone.

    Parameters
    ----------
    model : ConeModel
    start : sequence of ndarray
        Factors of x0.
    cap : float
        Longest entry of a factor, as a multiple of the longest of the start.

    Returns
    -------
    factors : list of ndarray
    decrease : float
        Minus the minimum.
    escapes : int
        How often a direction of zero variance was taken up.
    """
    tables, J = model.tables, model.J
    factors = [B.copy() for B in start]
    big = cap * max(0.1, max(float(np.abs(B).max()) for B in factors))
    q, g, _ = model.at(factors)
    mu, escapes, steps = 0.0, 0, 0
    while True:
        turned = [pivoted(B) for B in factors]
        factors, orders = [B for B, _ in turned], [p for _, p in turned]
        gz, G, curvature = factor_derivatives(tables, factors, orders, g)
        H = G.T @ J @ G + curvature
        top = float(np.diag(H).max())
        pull = float(np.abs(gz).max()) / big
        ridge = max(RIDGE * top, 1e-10 * pull) if top > 1e-10 * pull else max(pull, 1e-300)
        moved = False
        while steps < INNER:
            steps += 1
            L = cholesky(H, mu + ridge)
            if L is None:
                mu = max(10.0 * mu, 1e-3 * max(top, ridge))
                continue
            step = -np.linalg.solve(L.T, np.linalg.solve(L, gz))
            size = float(np.abs(step).max())
            if size > big:
                step *= big / size
            predicted = -float(gz @ step + 0.5 * step @ H @ step)
            if not predicted > max(1e-13, -1e-6 * q):
                break
            trial = stepped(tables, factors, orders, step)
            value, slope, _ = model.at(trial)
            if q - value >= 1e-3 * predicted:
                mu = 0.0 if q - value > 0.5 * predicted or mu < 1e-6 * top else 0.1 * mu
                factors, q, g, moved = trial, value, slope, True
                break
            mu = max(4.0 * mu, 1e-3 * max(top, ridge))
        if moved:
            factors, q, g = truncated(model, factors, q, g)
            if steps < INNER and max(float(np.abs(B).max()) for B in factors) <= big:
                continue
        elif steps < INNER and escapes < 20:
            taken = _widened(model, factors, q, g, big)
            if taken is not None:
                factors = taken
                q, g, _ = model.at(factors)
                mu = 0.0
                escapes += 1
                continue
        return factors, -q, escapes


def truncated(
    model: ConeModel, factors: list[np.ndarray], q: float, g: np.ndarray
) -> tuple[list[np.ndarray], float, np.ndarray]:
    """Short columns set to zero where the model does not rise."""
    for u in range(len(factors)):
        B, p = pivoted(factors[u])
        first = max(B[p[0], 0], 0.01)
        for c in range(len(B)):
            length = B[p[c], c]
            if 0.0 < length <= SMALL * first:
                trial = list(factors)
                trial[u] = B.copy()
                trial[u][:, c:] = 0.0
                value, slope, _ = model.at(trial)
                if value <= q + (1e-14 if length < 1e-5 * first else 0.0):
                    factors, q, g = trial, value, slope
                break
    return factors, q, g


def _widened(
    model: ConeModel, factors: Sequence[np.ndarray], q: float, g: np.ndarray, big: float
) -> list[np.ndarray] | None:
    """``Sigma + tau v v'`` along the most promising eigenvector of M, None if there is nothing to gain."""
    best, way = max(1e-13, -1e-6 * q), None
    for u, M in enumerate(matrices_of(model.tables, g)):
        values, vectors = np.linalg.eigh(M)
        if not values[0] < 0.0:
            continue
        v, table = vectors[:, 0], model.tables[u]
        i, j = np.tril_indices(len(table))
        d = v[i] * v[j]
        inner = table[i, j]
        curvature = float(d @ model.J[np.ix_(inner, inner)] @ d)
        slope = -float(values[0])
        tau = min(slope / curvature, big * big) if curvature > 0.0 else big * big
        gain = tau * (slope - 0.5 * curvature * tau)
        if gain > best:
            best, way = gain, (u, math.sqrt(tau) * v)
    if way is None:
        return None
    u, v = way
    out = list(factors)
    out[u] = lower_triangular(np.column_stack([out[u], v]))
    return out
