r"""Henderson's mixed-model equations and the Gaussian criteria at given variances: arrays in, arrays out.

The model is linear in a (working) response with known covariances,

.. math:: z = X\beta + Zb + e, \qquad b \sim N(0, G), \quad e \sim N(0, W^{-1}), \quad
          V = ZGZ' + W^{-1}, \quad W = \mathrm{diag}(w).

For a linear mixed model :math:`w = 1/\sigma^2`. For a generalised one z and w are the working response and
the working weights at a point (`GLMMFit.working_response`, `GLMMFit.working_weights`): one solution of the
equations is one step of penalised iteratively reweighted least squares, and the conditional modes are its
fixed point (Breslow & Clayton 1993). These functions are for looking at such models by hand: they hold dense
matrices; a fit never calls them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.errors import DataError

__all__ = ["Henderson", "henderson", "profile_criterion", "random_effects_matrix", "restricted_criterion"]


class Henderson(NamedTuple):
    """Solution of the mixed-model equations.

    Attributes
    ----------
    beta : ndarray, shape (p,)
        Generalised least-squares estimate (BLUE).
    b : ndarray, shape (q,)
        Best linear unbiased predictors.
    covariance : ndarray, shape (p + q, p + q)
        Of the errors :math:`(\\hat\\beta - \\beta, \\hat b - b)`: the inverse of the coefficient matrix.
    """

    beta: np.ndarray
    b: np.ndarray
    covariance: np.ndarray


def random_effects_matrix(codes: Any, columns: Any = None, m: int | None = None) -> np.ndarray:
    """Dense Z of one term, shape (n, m k): row i holds its columns in the places of its level.

    Parameters
    ----------
    codes : array of int, shape (n,)
        Level of each row.
    columns : array, shape (n, k) or (n,), optional
        Columns of the term; one column of ones by default.
    m : int, optional
        Number of levels; the largest code plus 1 by default.

    Examples
    --------
    >>> random_effects_matrix([0, 1, 1])
    array([[1., 0.],
           [0., 1.],
           [0., 1.]])
    """
    codes = np.asarray(codes, dtype=np.intp)
    n = codes.shape[0]
    values = np.ones((n, 1)) if columns is None else np.asarray(columns, dtype=float).reshape(n, -1)
    m = int(codes.max(initial=-1)) + 1 if m is None else m
    Z = np.zeros((n, m, values.shape[1]))
    Z[np.arange(n), codes] = values
    return Z.reshape(n, -1)


def henderson(X: Any, Z: Any, G: Any, w: Any, z: Any) -> Henderson:
    r"""Solve Henderson's mixed-model equations.

    .. math::
        \begin{pmatrix} X'WX & X'WZ \\ Z'WX & Z'WZ + G^{-1} \end{pmatrix}
        \begin{pmatrix} \hat\beta \\ \hat b \end{pmatrix} =
        \begin{pmatrix} X'Wz \\ Z'Wz \end{pmatrix}

    They are solved with :math:`b = Tu`, :math:`TT' = G`, so that a singular G is no obstacle:
    :math:`\hat b = GZ'V^{-1}(z - X\hat\beta)` and :math:`\hat\beta = (X'V^{-1}X)^{-1}X'V^{-1}z`.

    Parameters
    ----------
    X : array, shape (n, p)
    Z : array, shape (n, q)
    G : array, shape (q, q)
        Covariance of b, positive semi-definite.
    w : array, shape (n,), or float
        Weights, inverse variances of e; all positive.
    z : array, shape (n,)
        Response.

    Raises
    ------
    DataError
        Shapes that do not fit, a weight that is not positive, a G that is no covariance, a singular X.

    References
    ----------
    Henderson (1950), Estimation of genetic parameters, Ann. Math. Stat. 21:309-310; McCulloch & Searle
    (2001), Generalized, Linear, and Mixed Models, 6.24 and 6.42.

    Examples
    --------
    >>> found = henderson([[1.0]] * 4, random_effects_matrix([0, 0, 1, 1]), [[1.0, 0.0], [0.0, 1.0]], 1.0,
    ...                   [1.0, 3.0, 5.0, 7.0])
    >>> found.beta.round(6), found.b.round(6)
    (array([4.]), array([-1.333333,  1.333333]))
    """
    X, Z, G, w, z = _checked(X, Z, G, w, z)
    T = _root(G)
    p, q = X.shape[1], Z.shape[1]
    C = np.hstack([X, Z @ T]) * np.sqrt(w)[:, None]
    M = C.T @ C
    M[p:, p:] += np.eye(q)
    try:
        L = np.linalg.cholesky(M)
    except np.linalg.LinAlgError:
        raise DataError("the columns of X are linearly dependent (given the weights): drop some") from None
    half = np.linalg.solve(L, np.eye(p + q))
    inverse = half.T @ half
    solution = inverse @ (C.T @ (np.sqrt(w) * z))
    A = np.eye(p + q)
    A[p:, p:] = T
    return Henderson(solution[:p], T @ solution[p:], A @ inverse @ A.T)


def profile_criterion(X: Any, Z: Any, G: Any, w: Any, z: Any) -> float:
    r"""Minus twice the log-likelihood of z at given variances, :math:`\beta` at its best value.

    .. math:: \log|V| + r'V^{-1}r + n\log 2\pi, \qquad r = z - X\hat\beta

    Parameters
    ----------
    X, Z, G, w, z
        As for `henderson`.

    Examples
    --------
    >>> round(profile_criterion([[1.0]] * 2, [[1.0], [1.0]], [[0.0]], 1.0, [0.0, 2.0]), 6)
    5.675754
    """
    return _criterion(*_checked(X, Z, G, w, z))[0]


def restricted_criterion(X: Any, Z: Any, G: Any, w: Any, z: Any) -> float:
    r"""Minus twice the restricted log-likelihood (REML) of z at given variances.

    .. math:: \log|V| + r'V^{-1}r + \log|X'V^{-1}X| + (n - p)\log 2\pi

    Parameters
    ----------
    X, Z, G, w, z
        As for `henderson`.
    """
    X, Z, G, w, z = _checked(X, Z, G, w, z)
    value, logdet = _criterion(X, Z, G, w, z)
    return value + logdet - X.shape[1] * math.log(2.0 * math.pi)


def _criterion(
    X: np.ndarray, Z: np.ndarray, G: np.ndarray, w: np.ndarray, z: np.ndarray
) -> tuple[float, float]:
    """The profile criterion and log|X'V^-1 X|, by the determinant of a q x q matrix."""
    s = np.sqrt(w)[:, None]
    E = s * (Z @ _root(G))
    L = np.linalg.cholesky(np.eye(E.shape[1]) + E.T @ E)
    both = s * np.column_stack([X, z])
    half = np.linalg.solve(L, E.T @ both)
    cross = both.T @ both - half.T @ half  # [X z]' V^-1 [X z]
    p = X.shape[1]
    try:
        R = np.linalg.cholesky(cross[:p, :p])
    except np.linalg.LinAlgError:
        raise DataError("the columns of X are linearly dependent (given the weights): drop some") from None
    t = np.linalg.solve(R, cross[:p, p])
    logdet_V = 2.0 * float(np.log(L.diagonal()).sum()) - float(np.log(w).sum())
    quadratic = float(cross[p, p] - t @ t)
    logdet_X = 2.0 * float(np.log(R.diagonal()).sum())
    return logdet_V + quadratic + z.shape[0] * math.log(2.0 * math.pi), logdet_X


def _root(G: np.ndarray) -> np.ndarray:
    """T with TT' = G."""
    sizes, vectors = np.linalg.eigh(G)
    if sizes.size and sizes[0] < -1e-10 * max(sizes[-1], 1e-300):
        raise DataError("G is not positive semi-definite: no random effects have this covariance matrix")
    return vectors * np.sqrt(np.maximum(sizes, 0.0))


def _checked(X: Any, Z: Any, G: Any, w: Any, z: Any) -> tuple[np.ndarray, ...]:
    try:
        X, Z, G, w, z = [np.array(part, dtype=float) for part in (X, Z, G, w, z)]
    except (TypeError, ValueError):
        raise DataError("X, Z, G, w and z must hold numbers") from None
    n, q = z.shape[0] if z.ndim == 1 else -1, Z.shape[1] if Z.ndim == 2 else -1
    if n < 0 or q < 0 or X.ndim != 2 or X.shape[0] != n or Z.shape[0] != n or G.shape != (q, q):
        raise DataError(
            f"shapes do not fit: X {X.shape}, Z {Z.shape}, G {G.shape}, z {z.shape}; they must be (n, p), "
            "(n, q), (q, q) and (n,)"
        )
    if w.ndim == 0:
        w = np.full(n, float(w))
    if w.shape != (n,):
        raise DataError(f"w has shape {w.shape}; it must be a number or one per row ({n})")
    for name, part in zip(("X", "Z", "G", "w", "z"), (X, Z, G, w, z), strict=True):
        if not np.isfinite(part).all():
            raise DataError(f"{name} holds missing or infinite values")
    if not (w > 0.0).all():
        raise DataError(f"w must be positive: row {int(np.flatnonzero(w <= 0.0)[0])} is not")
    if not np.allclose(G, G.T, rtol=1e-12, atol=0.0):
        raise DataError("G is not symmetric: it must be a covariance matrix")
    return X, Z, G, w, z
