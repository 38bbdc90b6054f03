r"""Penalised coefficients at given variances: coordinate descent on whitened cross-products.

With :math:`G = C'PC` and :math:`c = C'Py`, P the inverse covariance matrix of the response (relative to
:math:`\sigma^2`) less its projection on X, minimise

.. math:: \tfrac12 b'Gb - c'b + \sum_j \bigl(l_1 |b_j| + \tfrac12 l_2 b_j^2\bigr)
          \quad\text{or}\quad \tfrac12 b'Gb - c'b + l_1 \sum_g \sqrt{p_g}\,\|b_g\| .

References
----------
Friedman, Hastie & Tibshirani (2010), J. Stat. Softw. 33(1); Yuan & Lin (2006), J. R. Stat. Soc. B 68:49-67.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["descend", "descend_groups", "largest_lambda"]

_SWEEPS = 10_000


def descend(
    G: np.ndarray, c: np.ndarray, l1: float, l2: float, start: np.ndarray, tol: float = 1e-7
) -> np.ndarray:
    """The minimum over single coefficients, from `start`, cyclically, the active ones until they settle.

    Parameters
    ----------
    G : ndarray, shape (p, p)
    c, start : ndarray, shape (p,)
    l1, l2 : float
        Not negative, not both zero.
    tol : float
        Largest change of a linear predictor's square, relative to c'c/G.
    """
    diagonal = np.diagonal(G)
    if l1 == 0.0:
        return np.linalg.lstsq(G + l2 * np.eye(len(c)), c, rcond=None)[0]
    b = np.array(start, dtype=float)
    slope = c - G @ b
    low, curvature = l1, diagonal + l2
    scale = max(float(np.max(c * c / np.where(diagonal > 0.0, diagonal, np.inf), initial=0.0)), 1e-300)
    everything = np.flatnonzero(diagonal > 1e-12 * max(float(diagonal.max(initial=0.0)), 1e-300))
    active = everything
    for sweep in range(_SWEEPS):
        if sweep % 5 == 4:  # the signs settle long before the numbers
            exact = _solved(G, c, l1, l2, b, everything)
            if exact is not None:
                return exact
        largest = 0.0
        for j in active.tolist():
            old = b[j]
            z = slope[j] + diagonal[j] * old
            new = (z - low) / curvature[j] if z > low else (z + low) / curvature[j] if z < -low else 0.0
            if new != old:
                slope -= G[:, j] * (new - old)
                b[j] = new
                largest = max(largest, diagonal[j] * (new - old) ** 2)
        if largest < tol * tol * scale:
            if active is everything:
                break
            active = everything
        else:
            active = np.flatnonzero(b) if active is everything else active
            active = active if len(active) else everything
    return b


def _solved(
    G: np.ndarray, c: np.ndarray, l1: float, l2: float, b: np.ndarray, columns: np.ndarray
) -> np.ndarray | None:
    """The minimum with the signs of b, if it is the minimum of all: Karush-Kuhn-Tucker conditions."""
    on = np.flatnonzero(b)
    out = np.zeros(len(b))
    if len(on):
        signs = np.sign(b[on])
        try:
            out[on] = np.linalg.solve(G[np.ix_(on, on)] + l2 * np.eye(len(on)), c[on] - l1 * signs)
        except np.linalg.LinAlgError:
            return None
        if not (np.sign(out[on]) == signs).all():
            return None
    slope = c - G[:, on] @ out[on]
    off = np.ones(len(b), dtype=bool)
    off[on] = False
    outside = columns[off[columns]]
    return out if (np.abs(slope[outside]) <= l1 * (1.0 + 1e-10)).all() else None


def descend_groups(
    G: np.ndarray,
    c: np.ndarray,
    l1: float,
    groups: Sequence[np.ndarray],
    start: np.ndarray,
    tol: float = 1e-7,
) -> np.ndarray:
    """The minimum with the group penalty, by block descent on quadratic majorants.

    Parameters
    ----------
    G, c, l1, start, tol
        As in `descend`.
    groups : sequence of ndarray of int
        Columns of each group.
    """
    b = np.array(start, dtype=float)
    slope = c - G @ b
    tops = [max(float(np.linalg.eigvalsh(G[np.ix_(g, g)])[-1]), 1e-300) for g in groups]
    scale = max(float(c @ c) / max(tops), 1e-300)
    for _ in range(_SWEEPS):
        largest = 0.0
        for g, top in zip(groups, tops, strict=True):
            z = slope[g] + top * b[g]
            size, low = float(np.linalg.norm(z)), l1 * np.sqrt(len(g))
            new = z * (max(1.0 - low / size, 0.0) / top) if size > 0.0 else np.zeros(len(g))
            change = new - b[g]
            if change.any():
                slope -= G[:, g] @ change
                b[g] = new
                largest = max(largest, top * float(change @ change))
        if largest < tol * tol * scale:
            break
    return b


def largest_lambda(c: np.ndarray, ratio: float, groups: Sequence[np.ndarray] | None) -> float:
    """The smallest lambda at which all coefficients are zero (ridge: a thousand times that of the lasso)."""
    if groups is not None:
        return max(float(np.linalg.norm(c[g])) / np.sqrt(len(g)) for g in groups)
    return float(np.abs(c).max(initial=0.0)) / max(ratio, 1e-3)
