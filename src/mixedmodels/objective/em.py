"""Steps of covariance matrices: EM and ECME for a linear mixed model, and the step out of a saddle point.

With T and S as in the solver contract, M = T - s S the derivative of the criterion to Sigma (s = nu/pwrss =
1/sigma^2 at the profiled sigma) and m levels, EM replaces Sigma by the mean over levels of E(b b' |
y)/sigma^2,

    Sigma_new = Sigma - Sigma M Sigma / m,

restricted to the structure: the diagonal of it for "diagonal", the mean of the diagonal for "trace". With
sigma profiled before every step the same formula is ECME.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["add_direction", "em_step_from_components"]


def em_step_from_components(
    factors: Sequence[np.ndarray],
    T: Sequence[np.ndarray],
    S: Sequence[np.ndarray],
    scale: float,
    m: Sequence[int],
    clip: Sequence[str],
) -> list[np.ndarray]:
    r"""One EM step of the relative covariance matrices.

    :math:`\Sigma_{new} = \Sigma - \Sigma M \Sigma / m = \lambda (I - \lambda' M \lambda / m) \lambda'`, hence
    :math:`\lambda_{new} = \lambda\, chol(I - \lambda' M \lambda / m)`, which is positive definite because it
    is a mean of conditional second moments, and lower triangular because a product of lower-triangular
    matrices is.

    Parameters
    ----------
    factors : sequence of ndarray, each (k, k)
        Lower-triangular relative factors of the terms.
    T, S : sequence of ndarray, each (k, k)
        Components of the solver (REML or ML).
    scale : float
        nu / pwrss with sigma profiled (ECME), 1 / sigma^2 with sigma carried along (EM).
    m : sequence of int
        Levels of each term.
    clip : sequence of {"block", "diagonal", "trace"}
        Structure of each term.

    Returns
    -------
    list of ndarray, each (k, k)
        New factors.

    References
    ----------
    Laird, Lange, Stram (1987). Schafer (1998), ECME for mixed models. Liu, Rubin (1994).

    Examples
    --------
    >>> T, S = np.array([[3.0]]), np.array([[8.0]])
    >>> em_step_from_components([np.eye(1)], [T], [S], 1.0, [10], ["block"])[0].round(6)
    array([[1.224745]])
    """
    out = []
    for factor, t, s, levels, kind in zip(factors, T, S, m, clip, strict=True):
        k = len(factor)
        M = t - scale * s
        inner = np.eye(k) - factor.T @ M @ factor / levels
        inner = 0.5 * (inner + inner.T)
        if kind == "block":
            out.append(factor @ _lower(inner))
            continue
        variances = np.maximum(np.einsum("ij,jk,ik->i", factor, inner, factor), 0.0)
        if kind == "trace":
            variances = np.full(k, variances.mean())
        out.append(np.diag(np.sqrt(variances)))
    return out


def _lower(a: np.ndarray) -> np.ndarray:
    """Cholesky factor of a positive semi-definite matrix; null directions get zero columns."""
    k = len(a)
    L = np.zeros((k, k))
    for j in range(k):
        pivot = a[j, j] - L[j, :j] @ L[j, :j]
        if pivot > 1e-14 * max(a[j, j], 0.0):
            L[j, j] = math.sqrt(pivot)
            L[j + 1 :, j] = (a[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
    return L


def add_direction(factor: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Lower-triangular factor of factor factor' + v v', by Givens rotations; exact for singular factors too.

    Parameters
    ----------
    factor : ndarray, shape (k, k)
        Lower triangular.
    v : ndarray, shape (k,)

    Returns
    -------
    ndarray, shape (k, k)

    Examples
    --------
    >>> add_direction(np.zeros((2, 2)), np.array([3.0, 4.0]))
    array([[3., 0.],
           [4., 0.]])
    """
    L = np.array(factor, dtype=float)
    x = np.array(v, dtype=float)
    for i in range(len(L)):
        h = math.hypot(L[i, i], x[i])
        if h == 0.0:
            continue
        c, s = L[i, i] / h, x[i] / h
        column, rest = L[i:, i].copy(), x[i:].copy()
        L[i:, i] = c * column + s * rest
        x[i:] = c * rest - s * column
    # the sign of a column is free: diagonals are not negative
    flip = np.diag(L) < 0.0
    L[:, flip] = -L[:, flip]
    return L
