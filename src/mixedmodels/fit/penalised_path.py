r"""Penalised coefficients at given variances: searches of the signs and descent on whitened cross-products.

With :math:`G = C'PC` and :math:`c = C'Py`, P the inverse covariance matrix of the response (relative to
:math:`\sigma^2`) less its projection on X, minimise

.. math:: \tfrac12 b'Gb - c'b + \sum_j \bigl(l_1 |b_j| + \tfrac12 l_2 b_j^2\bigr)
          \quad\text{or}\quad \tfrac12 b'Gb - c'b + l_1 \sum_g \sqrt{p_g}\,\|b_g\| .

References
----------
Friedman, Hastie & Tibshirani (2010), J. Stat. Softw. 33(1); Yuan & Lin (2006), J. R. Stat. Soc. B 68:49-67.
Lee, Battle, Raina & Ng (2006), Efficient sparse coding algorithms, NIPS 19 (the search of the signs).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["descend", "descend_groups", "largest_lambda"]

_SWEEPS = 10_000
_SIGNS = 20  # steps for each column before the search of the signs gives up


def descend(
    G: np.ndarray, c: np.ndarray, l1: float, l2: float, start: np.ndarray, tol: float = 1e-7
) -> np.ndarray:
    """The minimum over single coefficients, from `start`.

    By `_by_signs`; should rounding stop that, cyclically, the active ones until they settle.

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
    everything = np.flatnonzero(diagonal > 1e-12 * max(float(diagonal.max(initial=0.0)), 1e-300))
    b, found = _by_signs(G, c, l1, l2, start, everything)
    if found:
        return b
    slope = c - G @ b
    low, curvature = l1, diagonal + l2
    scale = max(float(np.max(c * c / np.where(diagonal > 0.0, diagonal, np.inf), initial=0.0)), 1e-300)
    active = everything
    for _ in range(_SWEEPS):
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


def _by_signs(
    G: np.ndarray, c: np.ndarray, l1: float, l2: float, start: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, bool]:
    """The minimum by the signs of the coefficients, and whether it was reached.

    Steps go to the minimum at the present signs, or to the lowest of the points on the way where a
    coefficient becomes zero; then the column that violates the Karush-Kuhn-Tucker conditions most comes in.
    Every step lowers the criterion, so no set of signs comes back.
    """
    b = np.zeros(len(c))
    b[columns] = start[columns]
    signs = np.sign(b)
    for _ in range(_SIGNS * len(c)):
        on = np.flatnonzero(signs)
        slope = c - G[:, on] @ b[on] - l2 * b
        if len(on):
            H, at = G[np.ix_(on, on)] + l2 * np.eye(len(on)), b[on]
            step, ends = _step(H, slope[on] - l1 * signs[on])
            crossing = at * (at + step if ends else step) < 0.0
            times = np.append(-at[crossing] / step[crossing], 1.0 if ends else 0.0)
            points = at + times[:, None] * step
            points[np.arange(len(times) - 1), np.flatnonzero(crossing)] = 0.0
            change = (  # of the criterion
                0.5 * times**2 * (step @ H @ step)
                - times * (slope[on] @ step)
                + l1 * (np.abs(points).sum(axis=1) - np.abs(at).sum())
            )
            best = int(np.argmin(change))
            settled = ends and best == len(times) - 1 and (points[best] * signs[on] >= 0.0).all()
            if not settled and not change[best] < 0.0:
                return b, False
            b[on] = points[best]
            signs[on] = np.sign(b[on])
            if not settled:
                continue
            slope = c - G[:, on] @ b[on] - l2 * b
        outside = columns[signs[columns] == 0.0]
        worst = outside[np.argmax(np.abs(slope[outside]))] if len(outside) else -1
        if worst < 0 or abs(slope[worst]) <= l1 * (1.0 + 1e-10):
            return b, bool((np.abs(slope[columns]) <= l1 * (1.0 + 1e-6)).all())
        signs[worst] = np.sign(slope[worst])
    return b, False


def _step(H: np.ndarray, descent: np.ndarray) -> tuple[np.ndarray, bool]:
    """The step to the minimum of a quadratic, and True; or a direction in which it has none, and False."""
    size = float(np.linalg.norm(descent))
    try:
        step = np.linalg.solve(H, descent)
        if np.linalg.norm(step) * np.diagonal(H).max() <= 1e10 * size:
            return step, True
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(H)
    parts, regular = vectors.T @ descent, values > 1e-11 * values[-1]
    if np.linalg.norm(parts[~regular]) > 1e-8 * size:
        return vectors[:, ~regular] @ parts[~regular], False
    return vectors[:, regular] @ (parts[regular] / values[regular]), True


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
