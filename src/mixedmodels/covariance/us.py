"""Unstructured covariance: every variance and correlation free."""

from __future__ import annotations

from math import sqrt

import numpy as np

from mixedmodels.covariance.base import LinearCovariance

__all__ = ["Unstructured"]

# A column whose part orthogonal to the later columns is below this share of its squared length is treated as
# dependent on them: what is left is rounding error of the cross-products; dividing by it would amplify it.
_DEPENDENT = 1e-13


class Unstructured(LinearCovariance):
    r"""Every variance and covariance free: ``(x | g)``, ``us(x | g)``.

    theta is the lower triangle of the relative factor, column by column, as in lme4:
    for k = 2, ``factor = [[theta_0, 0], [theta_1, theta_2]]``.

    Parameters
    ----------
    k : int
        Columns of the term.

    Examples
    --------
    >>> from mixedmodels.covariance import Unstructured
    >>> Unstructured(2).factor([1.0, 0.5, 2.0])
    array([[1. , 0. ],
           [0.5, 2. ]])
    """

    __slots__ = ()
    name = "us"
    clip = "block"

    def __init__(self, k: int) -> None:
        pairs = [(a, c) for c in range(k) for a in range(c, k)]
        super().__init__(k, [(a, c, t) for t, (a, c) in enumerate(pairs)])

    def transform(self, gram: np.ndarray, constant: int | None = None) -> np.ndarray:
        """Lower-triangular T with ``T' gram T = I``, shape (k, k).

        The columns are orthogonalised from the last one backwards, so that T is lower triangular and
        ``T factor`` stays so. Columns that depend on later ones are only scaled, columns of zeros are left
        alone.
        """
        gram = np.asarray(gram, dtype=np.float64)
        if self.k == 1:
            g = float(gram[0, 0])
            return np.array([[1.0 / sqrt(g) if g > 0.0 else 1.0]])
        if self.k == 2:  # the commonest vector term, in plain floats: small fits wait for this
            return np.array(_orthogonalise_pair(float(gram[0, 0]), float(gram[1, 0]), float(gram[1, 1])))
        return orthogonalising_factor(gram)


def _orthogonalise_pair(g00: float, g10: float, g11: float) -> list[list[float]]:
    """`orthogonalising_factor` for two columns."""
    s0 = 1.0 / sqrt(g00) if g00 > 0.0 else 1.0
    s1 = 1.0 / sqrt(g11) if g11 > 0.0 else 1.0
    r = g10 * s0 * s1
    rest = 1.0 - r * r
    if g00 <= 0.0 or rest <= _DEPENDENT:
        return [[s0, 0.0], [0.0, s1]]
    w = sqrt(rest)
    return [[s0 / w, 0.0], [-s1 * r / w, s1]]


def orthogonalising_factor(gram: np.ndarray) -> np.ndarray:
    """Lower-triangular T with T' gram T = I; columns that depend on later ones get unit length only."""
    k = gram.shape[0]
    length = np.sqrt(np.clip(np.diagonal(gram), 0.0, None))
    scale = np.divide(1.0, length, out=np.ones(k), where=length > 0.0)
    correlation = gram * scale * scale[:, None]
    # correlation = W'W with W lower triangular; row j of W from the last one backwards.
    W = np.zeros((k, k))
    for j in range(k - 1, -1, -1):
        rest = correlation[j, j] - W[j + 1 :, j] @ W[j + 1 :, j]
        if rest > _DEPENDENT:
            W[j, j] = sqrt(rest)
            W[j, :j] = (correlation[j, :j] - W[j + 1 :, j] @ W[j + 1 :, :j]) / W[j, j]
        else:  # dependent column: the unit column of W makes it a scaled copy of itself
            W[j + 1 :, j] = 0.0
            W[j, j] = 1.0
    T = np.zeros((k, k))
    for j in range(k):  # T = W^{-1}, column by column (forward substitution)
        T[j, j] = 1.0 / W[j, j]
        for i in range(j + 1, k):
            T[i, j] = -(W[i, j:i] @ T[j:i, j]) / W[i, i]
    return scale[:, None] * T
