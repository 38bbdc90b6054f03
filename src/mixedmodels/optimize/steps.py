"""Steps of the searches: factors that leave out null directions, steps in Sigma, reflection at bounds."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["descend", "factorise", "fold", "sigma_step"]

PIVOT = 1e-11  # a pivot smaller than this, relative to its diagonal, counts as a null direction


def factorise(B: np.ndarray, free: np.ndarray, mu: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Cholesky factor of B + mu I on the free parameters; null directions get pivot 0 and are left out.

    Parameters
    ----------
    B : ndarray, shape (r, r)
    free : ndarray of bool, shape (r,)
    mu : float

    Returns
    -------
    L : ndarray, shape (r, r)
        Lower triangular, zero columns for parameters left out.
    pivots : ndarray, shape (r,)
        Squares of the diagonal; 0 where left out.
    """
    r = len(B)
    L = np.zeros((r, r))
    pivots = np.zeros(r)
    for j in range(r):
        if not free[j]:
            continue
        d = B[j, j] + mu
        pivot = d - L[j, :j] @ L[j, :j]
        if not (d > 0.0 and pivot > PIVOT * d):
            continue
        pivots[j] = pivot
        L[j, j] = math.sqrt(pivot)
        L[j + 1 :, j] = (B[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
    return L, pivots


def descend(L: np.ndarray, pivots: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Step -B^{-1} g from `factorise`; zero for parameters left out."""
    r = len(g)
    s = np.zeros(r)
    for j in range(r):
        if pivots[j] > 0.0:
            s[j] = (-g[j] - L[j, :j] @ s[:j]) / L[j, j]
    for j in range(r - 1, -1, -1):
        if pivots[j] > 0.0:
            s[j] = (s[j] - L[j + 1 :, j] @ s[j + 1 :]) / L[j, j]
        else:
            s[j] = 0.0
    return s


def sigma_step(lam: np.ndarray, step: np.ndarray) -> np.ndarray | None:
    """Lower-triangular factor of Sigma + a (lam step' + step lam'), a the first of 1, 0.6, ... that is safe.

    Safe means that every pivot keeps at least 1 % of its value; None if no a >= 0.6^11 is.
    """
    k = len(lam)
    S = lam @ lam.T
    D = lam @ step.T + step @ lam.T
    a = 1.0
    for _ in range(12):
        A = S + a * D
        L = np.zeros((k, k))
        for j in range(k):
            pivot = A[j, j] - L[j, :j] @ L[j, :j]
            if not pivot > 0.01 * lam[j, j] ** 2:
                break
            L[j, j] = math.sqrt(pivot)
            L[j + 1 :, j] = (A[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
        else:
            return L
        a *= 0.6
    return None


def fold(theta: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """theta reflected at its bounds until it lies between them (lower bounds must be finite).

    Examples
    --------
    >>> fold(np.array([-1.0, 2.5, 7.0]), np.zeros(3), np.array([np.inf, 2.0, 2.0])).tolist()
    [1.0, 1.5, 1.0]
    """
    width = np.where(np.isfinite(upper), upper - lower, 1e300)
    t = np.abs(theta - lower) % (2.0 * width)
    inside = (theta >= lower) & (theta <= upper)
    return np.where(inside, theta, np.minimum(lower + np.minimum(t, 2.0 * width - t), upper))
