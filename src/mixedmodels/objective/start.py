r"""Starting values from moments: O(n) per term, close enough that Newton needs three to six steps.

Scalar terms (crossed, nested, any number) use the U-statistics of Gao & Owen (2017), *Efficient moment
calculations for variance components in large unbalanced crossed random effects models*, Electron. J. Stat.
11:1235-1296, with the exact cell counts. Other terms are treated column by column after orthogonalising
their columns, as if each were alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["crossed_moments", "moment_start", "ols_residual"]

# Bounds of a starting standard deviation, relative to the default 1.5 / sqrt(mean of diag A): from far
# outside, Newton would spend its first steps coming back.
_SMALLEST, _LARGEST = 0.1, 1e3


def ols_residual(y: np.ndarray, X: np.ndarray, offset: np.ndarray | None, w: np.ndarray) -> np.ndarray:
    """Residuals of weighted least squares, shape (n,), to the precision a start needs (normal equations)."""
    r = y if offset is None else y - offset
    if X.shape[1]:
        XW = X * w[:, None]
        gram = XW.T @ X
        length = np.sqrt(np.diagonal(gram))
        length = np.where(length > 0.0, length, 1.0)
        gram = gram / length / length[:, None] + 1e-12 * np.eye(X.shape[1])
        for _ in range(2):  # the second pass repairs what the normal equations lost
            r = r - X @ (np.linalg.solve(gram, (XW.T @ r) / length) / length)
    return r


def crossed_moments(
    codes: list[np.ndarray], sizes: list[int], r: np.ndarray, w: np.ndarray
) -> np.ndarray | None:
    r"""Variance components of scalar terms and of the error from within-level sums of squares.

    With :math:`U_b = \sum_i w_i r_i^2 - \sum_l (\sum_{i \in l} w_i r_i)^2 / W_l`,

    .. math:: E\,U_b = (n - m_b)\sigma_e^2 + \sum_c \sigma_c^2 \Big(W - \sum_l \sum_j W_{lj}^2 / W_l\Big),

    :math:`W_{lj}` the weight in level l of b and level j of c, and likewise for one level holding everything.

    Parameters
    ----------
    codes : list of ndarray of int, shape (n,)
    sizes : list of int
        Levels of each term.
    r, w : ndarray, shape (n,)
        Residuals and weights.

    Returns
    -------
    ndarray, shape (terms + 1,), or None
        The components, the error last (each may come out negative); None if the equations are singular.
    """
    B, n = len(codes), r.shape[0]
    level_weight = [np.bincount(c, w, m) for c, m in zip(codes, sizes, strict=True)]
    total, squares = float(w.sum()), float(w @ r**2)
    equations, right = np.zeros((B + 1, B + 1)), np.zeros(B + 1)
    for b in range(B):
        sums = np.bincount(codes[b], w * r, sizes[b])
        right[b] = squares - np.sum(sums**2 / level_weight[b])
        equations[b, B] = n - sizes[b]
        for c in range(B):
            if c != b:
                equations[b, c] = total - _cell_share(
                    codes[b], sizes[b], codes[c], sizes[c], w, level_weight[b]
                )
    right[B] = squares - float(w @ r) ** 2 / total
    equations[B, B] = n - 1
    equations[B, :B] = [total - np.sum(v**2) / total for v in level_weight]
    scale = np.maximum(np.abs(equations).max(axis=1), 1.0)
    equations, right = equations / scale[:, None], right / scale
    if np.linalg.cond(equations) > 1e10:
        return None
    return np.linalg.solve(equations, right)


def _cell_share(
    a: np.ndarray, m_a: int, b: np.ndarray, m_b: int, w: np.ndarray, weight_a: np.ndarray
) -> float:
    """Sum over cells of ``W_cell^2 / W_level of a``; of many possible cells only those that occur count."""
    cell = a.astype(np.int64) * m_b + b
    if m_a * m_b <= 4 * a.shape[0] + 1024:
        weight = np.bincount(cell, w, m_a * m_b).reshape(m_a, m_b)
        return float(np.sum((weight**2).sum(axis=1) / weight_a))
    cells, index = np.unique(cell, return_inverse=True)
    weight = np.bincount(index, w, cells.shape[0])
    return float(np.sum(weight**2 / weight_a[cells // m_b]))


def moment_start(design: Design, sigma: float | None = None) -> list[np.ndarray]:
    """Starting relative factors, one (k, k) lower-triangular matrix per term, inside each structure.

    Parameters
    ----------
    design : Design
    sigma : float or None
        Residual standard deviation held fixed, if any.

    Returns
    -------
    list of ndarray
    """
    n, p = design.n, design.p
    w = np.ones(n) if design.weights is None else design.weights
    r = ols_residual(design.y, design.X, design.offset, w)
    terms = design.terms
    rss = float(w @ r**2)
    scalar = all(term.Z is None and term.precision is None for term in terms)
    ratios = None
    if scalar and len(terms) > 1 and rss > 0.0:
        components = crossed_moments([t.codes for t in terms], [t.m for t in terms], r, w)
        if components is not None and components[-1] > 0.0:
            error = components[-1] if sigma is None else sigma**2
            ratios = np.maximum(components[:-1] / error, 0.0)
    factors = []
    for b, term in enumerate(terms):
        T, sd = _columnwise(term, r, w, rss, n - p, sigma)
        if ratios is not None:
            base = 1.5 / np.sqrt(max(float(w.sum()) / term.m, 1e-300))
            sd = np.array([np.clip(np.sqrt(ratios[b]), _SMALLEST * base, _LARGEST * base)])
            T = np.eye(1)
        factors.append(_inside(term, T, sd))
    return factors


def _columnwise(
    term: RandomTerm, r: np.ndarray, w: np.ndarray, rss: float, df: int, sigma: float | None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Transform T and, per transformed column, the standard deviation tau that solves two moment equations.

    ``S_j = sum_l (sum_{i in l} w z r)^2`` has mean ``sigma^2 (a_j + tau^2 B_j)`` with ``a_j = sum w z^2`` and
    ``B_j = sum_l (sum_{i in l} w z^2)^2``; ``rss`` has mean ``sigma^2 (df + tau^2 a_j)``.
    """
    m, k, codes = term.m, term.k, term.codes
    n = r.shape[0]
    if term.Z is None:
        T, columns = np.eye(1), [np.ones(n)]
    else:
        T = term.covariance.transform((term.Z * w[:, None]).T @ term.Z / n, None)
        columns = list((term.Z @ T).T)
    sd = np.empty(k)
    for j, z in enumerate(columns):
        a_level = np.bincount(codes, w * z * z, m)
        S = float(np.sum(np.bincount(codes, w * z * r, m) ** 2))
        a, B = float(a_level.sum()), float(a_level @ a_level)
        default = 1.5 / np.sqrt(a / m) if a > 0.0 else 1.0
        if sigma is not None:
            top, bottom = S / sigma**2 - a, B
        elif rss > 0.0:
            top, bottom = S / rss * df - a, B - S / rss * a
        else:
            top, bottom = 0.0, 0.0
        if bottom > 0.0:
            sd[j] = np.clip(np.sqrt(max(top, 0.0) / bottom), _SMALLEST * default, _LARGEST * default)
        else:  # more than all the variance lies between levels: no moment solution
            sd[j] = default if top <= 0.0 else 10.0 * default
    return T, sd


def _inside(term: RandomTerm, T: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """``T diag(sd)`` brought into the structure: one common value where the structure has only one."""
    if term.covariance.clip == "trace":
        sd = np.full(sd.shape, np.sqrt(np.mean(sd**2)))
    factor = T * sd
    return term.covariance.factor(term.covariance.theta_of(factor))
