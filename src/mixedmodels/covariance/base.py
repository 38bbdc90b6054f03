"""The contract of a random-effects covariance structure.

A structure maps `n_theta` parameters to the k x k lower-triangular *relative* factor of a term:
``Sigma = factor(theta) factor(theta)'``, so that Var(b_level) = sigma^2 Sigma. Zero variances and
correlations of +-1 are ordinary points (no logarithms).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["Covariance", "LinearCovariance"]


@runtime_checkable
class Covariance(Protocol):
    """What every structure provides; `mixedmodels.testing.check_covariance` checks it.

    Instances are immutable and hashable: what follows from a structure alone is computed once.

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

    def __hash__(self) -> int: ...

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


class LinearCovariance:
    """A structure whose factor is linear in theta: ``factor[row, column] = theta[parameter]``.

    Subclasses set `name` and `clip` and give the table of entries; everything else follows from it.
    Instances are immutable (their arrays are read-only), so one instance may serve every term and fit.

    Parameters
    ----------
    k : int
        Columns of the term.
    entries : sequence of (row, column, parameter)
        The free positions of the factor; the others are zero. Parameters are numbered from 0 without gaps.
    """

    __slots__ = ("_derivatives", "_flat", "_parameters", "entries", "k", "lower", "n_theta", "start", "upper")

    name = ""
    clip = "block"

    def __init__(self, k: int, entries: list[tuple[int, int, int]]) -> None:
        table = np.array(entries, dtype=np.intp).reshape(-1, 3)
        rows, columns, parameters = table.T
        self.k = k
        self.n_theta = int(parameters.max()) + 1
        self.entries = table
        self._flat = rows * k + columns
        self._parameters = np.ascontiguousarray(parameters)
        on_diagonal = np.zeros(self.n_theta, dtype=bool)
        on_diagonal[parameters[rows == columns]] = True
        self.start = on_diagonal.astype(np.float64)
        self.lower = np.where(on_diagonal, 0.0, -np.inf)
        self.upper = np.full(self.n_theta, np.inf)
        self._derivatives = np.zeros((self.n_theta, k, k))
        self._derivatives[parameters, rows, columns] = 1.0
        for array in (
            table,
            self._flat,
            self._parameters,
            self.start,
            self.lower,
            self.upper,
            self._derivatives,
        ):
            array.setflags(write=False)

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """Relative factor, shape (k, k), lower triangular."""
        out = np.zeros(self.k * self.k)
        out[self._flat] = np.asarray(theta, dtype=np.float64)[self._parameters]
        return out.reshape(self.k, self.k)

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the factor, shape (n_theta, k, k), read-only: they do not depend on theta."""
        return self._derivatives

    def theta_of(self, factor: np.ndarray) -> np.ndarray:
        """Parameters of a lower-triangular factor that lies in the structure (inverse of `factor`)."""
        out = np.empty(self.n_theta)
        out[self._parameters] = np.asarray(factor, dtype=np.float64).reshape(-1)[self._flat]
        return out

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Names as lme4 gives them: ``column`` on the diagonal, ``row.column`` below it."""
        positions = self.entries[:, :2].tolist()
        return tuple(columns[a] if a == c else f"{columns[a]}.{columns[c]}" for a, c in positions)

    def transform(self, gram: np.ndarray, constant: int | None) -> np.ndarray:
        """Identity: a structure that allows no change of coordinates."""
        return np.eye(self.k)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.k})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.k == other.k  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self.k))

    def __reduce__(self) -> tuple:
        return type(self), (self.k,)
