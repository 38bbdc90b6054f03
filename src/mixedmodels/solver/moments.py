r"""Variance components from moments: O(n) starting values close enough that Newton needs three to six steps.

Scalar terms (crossed, nested, any number) use the U-statistics of Gao & Owen (2017), *Efficient moment
calculations for variance components in large unbalanced crossed random effects models*, Electron. J. Stat.
11:1235-1296, with the exact cell counts. Other terms are treated as if each were alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import mixedmodels.solver._kernels.crossproducts as kernels
from mixedmodels.design import KnownCovariance, Precision

__all__ = [
    "LARGEST",
    "SMALLEST",
    "column_sd",
    "conditional_components",
    "conditional_sd",
    "scalar_components",
]

# Bounds of a starting standard deviation, relative to the default 1.5 / sqrt(mean of diag A): from far
# outside, Newton would spend its first steps coming back.
SMALLEST, LARGEST = 0.1, 1e3
_FEW = 50  # levels below which conditional residuals say too little
_LEAST_SHARE = 0.02  # of the variance, for an effect and for the error


def scalar_components(
    n: int,
    squares: float,
    total_sum: float,
    total: float,
    terms: Sequence[tuple[int, float, float]],
    shares: Sequence[Sequence[float]],
) -> list[float] | None:
    r"""Variance components of scalar terms and of the error from within-level sums of squares.

    With :math:`U_b = \sum_i w_i r_i^2 - \sum_l (\sum_{i \in l} w_i r_i)^2 / W_l`,

    .. math:: E\,U_b = (n - m_b)\sigma_e^2 + \sum_c \sigma_c^2 \Big(W - \sum_l \sum_j W_{lj}^2 / W_l\Big),

    :math:`W_{lj}` the weight in level l of b and level j of c, and likewise for one level holding everything.

    Parameters
    ----------
    n : int
    squares, total_sum, total : float
        ``sum w r^2`` and ``sum w r`` of the residuals r, and ``W = sum w``.
    terms : sequence of (int, float, float)
        Of each term the number of levels, ``sum_l (sum_{i in l} w_i r_i)^2 / W_l`` and ``sum_l W_l^2``.
    shares : nested lists, terms x terms
        ``sum_lj W_lj^2 / W_l`` for terms b (levels l) and c (levels j); the diagonal is not used.

    Returns
    -------
    list of float, length terms + 1, or None
        The components, the error last (each may come out negative); None if the equations are singular.
    """
    B = len(terms)
    equations = []
    for b, (levels, explained, _) in enumerate(terms):
        row = [0.0 if c == b else total - shares[b][c] for c in range(B)]
        equations.append([*row, float(n - levels), squares - explained])
    last = [total - weights / total for _, _, weights in terms]
    equations.append([*last, n - 1.0, squares - total_sum**2 / total])
    return kernels.solve_few(equations)


def column_sd(
    A: np.ndarray, c: np.ndarray, rss: float, df: int, sigma: float | None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Relative standard deviations of the columns of a term, as if the term were alone, and their default.

    The error variance comes from the regressions within levels. Then, with A_l and c_l the cross-products of
    level l and :math:`S_j = \sum_l c_{lj}^2`, the variances v solve
    :math:`E\,S_j = \sigma^2 \sum_l A_{l,jj} + \sum_{j'} v_{j'} \sum_l A_{l,jj'}^2`.

    Parameters
    ----------
    A : ndarray, shape (m, k, k)
    c : ndarray, shape (m, k)
        Cross-products of the columns with the residuals.
    rss : float
        Residual sum of squares.
    df : int
        Its degrees of freedom.
    sigma : float or None
        Residual standard deviation held fixed, if any.

    Returns
    -------
    sd, default : ndarray, shape (k,)
    """
    m, k = c.shape
    if k == 1:
        return _scalar_sd(
            A[:, 0, 0], c[:, 0], sigma**2 if sigma is not None else _within_variance(A, c, rss, df)
        )
    a = np.einsum("ljj->j", A)
    default = 1.5 / np.sqrt(np.where(a > 0.0, a, m) / m)
    error = sigma**2 if sigma is not None else _within_variance(A, c, rss, df)
    if not error > 0.0:
        return default, default
    B = np.einsum("lij,lij->ij", A, A)
    B += 1e-10 * max(float(np.trace(B)), 1e-300) * np.eye(k)
    variances = np.linalg.solve(B, np.einsum("lj,lj->j", c, c) - error * a)
    sd = np.sqrt(np.maximum(variances, 0.0) / error)
    return np.clip(sd, SMALLEST * default, LARGEST * default), default


def _scalar_sd(a: np.ndarray, c: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """`column_sd` of a single column, without matrices."""
    total, squares = float(a.sum()), max(float(a @ a), 1e-300)
    default = 1.5 / math.sqrt(total / len(a)) if total > 0.0 else 1.5
    if not error > 0.0:
        return np.array([default]), np.array([default])
    ratio = max(float(c @ c) - error * total, 0.0) / squares / error
    sd = min(max(math.sqrt(ratio), SMALLEST * default), LARGEST * default)
    return np.array([sd]), np.array([default])


def conditional_components(
    between: Precision | KnownCovariance | None, d: np.ndarray, c: np.ndarray
) -> tuple[float, float] | None:
    r"""Variances of effects with a known sparse precision and of the error, from conditional residuals.

    The means :math:`r_l = c_l / d_l` of the levels vary by :math:`v A + \sigma^2 D^{-1}`. With
    :math:`Q = A^{-1}`, the deviation of a mean from what its neighbours let expect,
    :math:`e = \mathrm{diag}(Q)^{-1} Q r`, has

    .. math:: E\,e_l^2 = v / Q_{ll} + \sigma^2 \sum_j Q_{lj}^2 / (Q_{ll}^2 d_j), \qquad
              E\,r_l e_l = v / Q_{ll} + \sigma^2 / d_l,

    exactly and without any element of A. Levels of which a neighbour has no rows are left out.

    Parameters
    ----------
    between : Precision, KnownCovariance or None
    d, c : ndarray, shape (m,)
        Squares of the column by level, and its cross-products with the residuals.

    Returns
    -------
    effect, error : float, or None
        Unbiased, so that each may come out negative; None if the precision is not sparse or too few levels
        can be used.
    """
    if not isinstance(between, Precision):
        return None
    Q = between.matrix.tocsr()
    seen = d > 0.0
    used = seen if seen.all() else seen & (abs(Q) @ (~seen).astype(float) == 0.0)
    if np.count_nonzero(used) < max(_FEW, 0.05 * d.shape[0]):
        return None
    variance = np.divide(1.0, d, out=np.zeros(d.shape), where=seen)
    r, q = c * variance, Q.diagonal()
    e = (Q @ r / q)[used]
    spread = (Q.power(2) @ variance / q**2)[used].sum()
    variance, r = variance[used].sum(), r[used]
    if not abs(spread - variance) > 1e-6 * spread:
        return None
    error = float(e @ e - r @ e) / (spread - variance)
    return (float(r @ e) - error * variance) / float(np.sum(1.0 / q[used])), error


def conditional_sd(
    between: Precision | KnownCovariance | None, A: np.ndarray, c: np.ndarray, sigma: float | None
) -> np.ndarray | None:
    """Relative standard deviation of one column with a known precision, away from 0, by these variances.

    Parameters
    ----------
    between : Precision, KnownCovariance or None
    A : ndarray, shape (m, k, k)
    c : ndarray, shape (m, k)
        Cross-products of the columns with the residuals.
    sigma : float or None
        Residual standard deviation held fixed, if any.

    Returns
    -------
    ndarray, shape (1,), or None
        None if there are several columns or no `conditional_components`.
    """
    found = conditional_components(between, A[:, 0, 0], c[:, 0]) if c.shape[1] == 1 else None
    if found is None:
        return None
    effect, error = max(found[0], 0.0), max(found[1], 0.0)
    if sigma is not None:
        error = sigma**2
    least = _LEAST_SHARE * (effect + error)
    return np.sqrt([max(effect, least) / max(error, least)]) if least > 0.0 else None


def _within_variance(A: np.ndarray, c: np.ndarray, rss: float, df: int) -> float:
    """Error variance from the regression within each level; half of the total where too few rows are left."""
    m, k = c.shape
    if k == 1:  # most terms: no matrices
        a = A[:, 0, 0]
        safe = np.where(a > 0.0, a, 1.0)
        explained = float(np.sum(np.where(a > 0.0, c[:, 0] ** 2, 0.0) / safe))
        left = df + 1.0 - float(np.count_nonzero(a > 0.0))
    else:
        ridge = 1e-9 * max(float(np.einsum("ljj->", A)) / (m * k), 1e-300)
        inverse = np.linalg.inv(A + ridge * np.eye(k))
        explained = float(np.einsum("lj,ljk,lk->", c, inverse, c))
        left = df + 1 - float(np.einsum("ljk,lkj->", A, inverse))
    if left > 0.05 * df and explained < rss:
        return (rss - explained) / left
    return 0.5 * rss / max(df, 1)
