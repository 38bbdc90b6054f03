"""The contract of a random-effects covariance structure.

A structure maps `n_theta` parameters to the k x k lower-triangular *relative* factor of a term:
``Sigma = factor(theta) factor(theta)'``, so that Var(b_level) = sigma^2 Sigma. Zero variances and
correlations of +-1 are ordinary points (no logarithms).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["Covariance"]


@runtime_checkable
class Covariance(Protocol):
    """What every structure provides; `mixedmodels.testing.check_covariance` checks it.

    Attributes
    ----------
    name : str
        The tag in a formula ("us", "diag", "homdiag", ...).
    k, n_theta : int
        Columns and parameters.
    entries : ndarray of intp, shape (e, 3), or None
        For structures linear in theta: rows (row, column, parameter), meaning that
        ``factor[row, column] = theta[parameter]``, column-major as lme4 orders theta. None if not linear.
    clip : {"block", "diagonal", "trace"}
        The cone of feasible Sigma directions: any positive semi-definite k x k matrix ("block"), diagonal
        ones ("diagonal"), multiples of the identity ("trace").
    start, lower, upper : ndarray of float64, shape (n_theta,)
        Default start (factor = identity) and bounds (diagonal entries >= 0).
    """

    name: str
    k: int
    n_theta: int
    entries: np.ndarray | None
    clip: str
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """Relative factor, shape (k, k), lower triangular."""
        ...

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the factor, shape (n_theta, k, k)."""
        ...

    def theta_of(self, factor: np.ndarray) -> np.ndarray:
        """Parameters of a lower-triangular factor that lies in the structure (inverse of `factor`)."""
        ...

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the parameters given the term's column names, as lme4 names theta."""
        ...

    def transform(self, gram: np.ndarray, constant: int | None) -> np.ndarray:
        """Lower-triangular T, shape (k, k), such that replacing Z by Z T stays inside the structure.

        Used to centre, scale or orthogonalise the columns inside; `gram` is the mean cross-product of the
        columns. A structure that allows nothing returns the identity.
        """
        ...
