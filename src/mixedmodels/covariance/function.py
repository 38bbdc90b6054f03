"""A covariance given by the user's own function of theta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError

__all__ = ["FunctionCovariance"]

_FIRST = float(np.finfo(np.float64).eps) ** (1.0 / 3.0)  # best step of a central first difference, relative
_SECOND = float(np.finfo(np.float64).eps) ** 0.25  # ... of a second difference


class FunctionCovariance:
    r"""Relative factor Lambda(theta) of all q random effects: ``b ~ N(0, sigma^2 Lambda Lambda')``.

    Parameters
    ----------
    function : callable
        theta (ndarray, shape (n_theta,)) -> Lambda, a square (q, q) NumPy array or SciPy sparse array; lower
        triangular or not.
    start : sequence of float
        Starting theta.
    lower, upper : sequence of float or float, optional
        Bounds; default none. The function is only called inside them.
    jacobian : callable, optional
        theta -> sequence of n_theta matrices, d Lambda / d theta_j. Without it the function is differenced
        (central differences, about ten digits); nothing else in the package is.
    names : sequence of str, optional
        Names of the parameters; default ``theta1``, ``theta2``, ...

    Raises
    ------
    OptionError
        start, bounds or names do not fit together.

    Examples
    --------
    A known relationship between four individuals, with one unknown variance:

    >>> import numpy as np
    >>> root = np.linalg.cholesky(np.eye(4) + 0.5 * np.ones((4, 4)))
    >>> covariance = FunctionCovariance(lambda theta: theta[0] * root, start=[1.0], lower=[0.0])
    >>> covariance.factor(np.array([2.0])).shape
    (4, 4)
    """

    name = "function"

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        start: Sequence[float],
        lower: Sequence[float] | float | None = None,
        upper: Sequence[float] | float | None = None,
        jacobian: Callable[[np.ndarray], Sequence[Any]] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        if not callable(function) or not (jacobian is None or callable(jacobian)):
            raise OptionError("covariance and jacobian must be functions of theta")
        self.function, self._jacobian = function, jacobian
        self.start = np.array(start, dtype=np.float64).reshape(-1)
        self.n_theta = self.start.shape[0]
        self.lower = self._bound("lower", lower, -np.inf)
        self.upper = self._bound("upper", upper, np.inf)
        self.names = (
            tuple(names) if names is not None else tuple(f"theta{j + 1}" for j in range(self.n_theta))
        )
        if len(self.names) != self.n_theta:
            raise OptionError(f"{len(self.names)} names given for {self.n_theta} parameters")
        if not np.all(np.isfinite(self.start)):
            raise OptionError(f"start must be finite, got {self.start.tolist()}")
        bad = np.flatnonzero((self.start < self.lower) | (self.start > self.upper))
        if bad.size:
            j = int(bad[0])
            raise OptionError(
                f"the start of {self.names[j]!r} is {self.start[j]:g}, outside its bounds "
                f"[{self.lower[j]:g}, {self.upper[j]:g}]"
            )

    def _bound(self, what: str, given: Sequence[float] | float | None, default: float) -> np.ndarray:
        if given is None:
            return np.full(self.n_theta, default)
        array = np.asarray(given, dtype=np.float64)
        if array.ndim > 1 or (array.ndim == 1 and array.shape[0] != self.n_theta):
            raise OptionError(f"{what} must be one number or {self.n_theta} numbers, one per parameter")
        if np.any(np.isnan(array)):
            raise OptionError(f"{what} holds NaN; leave it out where there is no bound")
        return np.broadcast_to(array, (self.n_theta,)).copy()

    def factor(self, theta: np.ndarray) -> Any:
        """Lambda at theta, checked: square, finite, a float64 array or a sparse CSC array."""
        return _checked(self.function(np.array(theta, dtype=np.float64)), "covariance")

    def factor_derivatives(self, theta: np.ndarray) -> list[Any]:
        """d Lambda / d theta_j: the user's jacobian, else differences of the user's function."""
        theta = np.array(theta, dtype=np.float64)
        if self._jacobian is not None:
            parts = [_checked(part, "jacobian") for part in self._jacobian(theta.copy())]
            if len(parts) != self.n_theta:
                raise OptionError(f"jacobian returned {len(parts)} matrices for {self.n_theta} parameters")
            return parts
        out = []
        for j in range(self.n_theta):
            points, weights = self._stencil(theta[j], j, _FIRST)
            out.append(_combine([self.factor(_moved(theta, j, x)) for x in points], weights))
        return out

    def _stencil(self, x: float, j: int, relative: float) -> tuple[list[float], list[float]]:
        """Points and weights of a second-order difference inside the bounds, one-sided next to one."""
        h = relative * max(abs(x), 1.0)
        up, down = x + h, x - h
        if up <= self.upper[j] and down >= self.lower[j]:
            return [up, down], [1.0 / (up - down), -1.0 / (up - down)]
        side = 1.0 if x + 2.0 * h <= self.upper[j] else -1.0
        h *= side
        return [x, x + h, x + 2.0 * h], [-1.5 / h, 2.0 / h, -0.5 / h]

    def contracted_hessian(self, theta: np.ndarray, G: np.ndarray) -> np.ndarray:
        """Second derivatives of ``<G, Lambda(theta)>`` for a fixed (q, q) matrix G, by differences of Lambda.

        Differences of the jacobian where there is one (about ten digits), else of the function (about seven).
        """
        theta = np.array(theta, dtype=np.float64)
        r = self.n_theta
        out = np.empty((r, r))
        relative = _FIRST if self._jacobian is not None else _SECOND

        def slopes(point: np.ndarray) -> np.ndarray:
            if self._jacobian is not None:
                return np.array([inner(part, G) for part in self.factor_derivatives(point)])
            values = np.empty(r)
            for j in range(r):
                points, weights = self._stencil(point[j], j, relative)
                values[j] = sum(
                    w * inner(self.factor(_moved(point, j, x)), G)
                    for x, w in zip(points, weights, strict=True)
                )
            return values

        for i in range(r):
            points, weights = self._stencil(theta[i], i, relative)
            out[i] = sum(w * slopes(_moved(theta, i, x)) for x, w in zip(points, weights, strict=True))
        return 0.5 * (out + out.T)


def inner(matrix: Any, G: np.ndarray) -> float:
    """``sum_ij matrix_ij G_ij`` for a dense or sparse matrix."""
    if isinstance(matrix, np.ndarray):
        return float(np.sum(matrix * G))
    entries = matrix.tocoo()
    return float(entries.data @ G[entries.row, entries.col])


def _moved(theta: np.ndarray, j: int, x: float) -> np.ndarray:
    out = theta.copy()
    out[j] = x
    return out


def _combine(matrices: list[Any], weights: list[float]) -> Any:
    total = matrices[0] * weights[0]
    for matrix, weight in zip(matrices[1:], weights[1:], strict=True):
        total = total + matrix * weight
    return total


def _checked(matrix: Any, what: str) -> Any:
    """A finite square matrix as float64 array or CSC array."""
    if hasattr(matrix, "tocsc"):
        from scipy import sparse

        matrix = sparse.csc_array(matrix, dtype=np.float64)
        values = matrix.data
    else:
        matrix = values = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise OptionError(f"the {what} function must return a square matrix, got shape {matrix.shape}")
    if not np.all(np.isfinite(values)):
        raise OptionError(
            f"the {what} function returned a value that is not finite; set bounds that exclude it"
        )
    return matrix
