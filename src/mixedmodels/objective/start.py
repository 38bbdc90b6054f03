r"""Starting values from moments: O(n) per term, close enough that Newton needs three to six steps.

Scalar terms (crossed, nested, any number) use the U-statistics of Gao & Owen (2017), *Efficient moment
calculations for variance components in large unbalanced crossed random effects models*, Electron. J. Stat.
11:1235-1296, with the exact cell counts. Other terms are treated as if each were alone, after orthogonalising
their columns.
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
    r"""Transform T and the relative standard deviation of each transformed column, as if the term were alone.

    The error variance comes from the regressions within levels. Then, with A_l and c_l the cross-products of
    level l and :math:`S_j = \sum_l c_{lj}^2`, the variances v solve
    :math:`E\,S_j = \sigma^2 \sum_l A_{l,jj} + \sum_{j'} v_{j'} \sum_l A_{l,jj'}^2`.
    """
    m, k, codes = term.m, term.k, term.codes
    n = r.shape[0]
    if term.Z is None:
        T, columns = np.eye(1), [np.ones(n)]
    else:
        T = term.covariance.transform((term.Z * w[:, None]).T @ term.Z / n, None)
        columns = list((term.Z @ T).T)
    A, c = np.empty((m, k, k)), np.empty((m, k))
    for j in range(k):
        c[:, j] = np.bincount(codes, w * columns[j] * r, m)
        for i in range(j + 1):
            A[:, i, j] = A[:, j, i] = np.bincount(codes, w * columns[i] * columns[j], m)
    a = np.einsum("ljj->j", A)
    default = 1.5 / np.sqrt(np.where(a > 0.0, a, m) / m)
    error = sigma**2 if sigma is not None else _within_variance(A, c, rss, df)
    if not error > 0.0:
        return T, default
    B = np.einsum("lij,lij->ij", A, A)
    B += 1e-10 * max(float(np.trace(B)), 1e-300) * np.eye(k)
    variances = np.linalg.solve(B, np.einsum("lj,lj->j", c, c) - error * a)
    sd = np.sqrt(np.maximum(variances, 0.0) / error)
    return T, np.clip(sd, _SMALLEST * default, _LARGEST * default)


def _within_variance(A: np.ndarray, c: np.ndarray, rss: float, df: int) -> float:
    """Error variance from the regression within each level; half of the total where too few rows are left."""
    m, k = c.shape
    ridge = 1e-9 * max(float(np.einsum("ljj->", A)) / (m * k), 1e-300)
    inverse = np.linalg.inv(A + ridge * np.eye(k))
    explained = float(np.einsum("lj,ljk,lk->", c, inverse, c))
    left = df + 1 - float(np.einsum("ljk,lkj->", A, inverse))
    if left > 0.05 * df and explained < rss:
        return (rss - explained) / left
    return 0.5 * rss / max(df, 1)


def _inside(term: RandomTerm, T: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """``T diag(sd)`` brought into the structure: one common value where the structure has only one."""
    if term.covariance.clip == "trace":
        sd = np.full(sd.shape, np.sqrt(np.mean(sd**2)))
    factor = T * sd
    return term.covariance.factor(term.covariance.theta_of(factor))
