"""The contract of a random-effects covariance structure.

A structure maps `n_theta` parameters to the k x k lower-triangular *relative* factor of a term:
``Sigma = factor(theta) factor(theta)'``, so that Var(b_level) = sigma^2 Sigma. Zero variances and
correlations of +-1 are ordinary points (no logarithms).
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from mixedmodels.covariance.natural import (
    NaturalParameters,
    sd_and_correlations,
    sd_and_correlations_curvature,
)
from mixedmodels.errors import OptionError

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
    clip : {"block", "diagonal", "trace", "curved"}
        The cone of feasible Sigma directions: any positive semi-definite k x k matrix ("block"), diagonal
        ones ("diagonal"), multiples of the identity ("trace"). "curved": the Sigmas form no cone (all
        structures that are not linear in theta); such a structure may derive from `CurvedCovariance`.
    start, lower, upper : ndarray of float64, shape (n_theta,)
        Default start (factor = identity where the structure holds it) and bounds.
    mirrored : ndarray of bool, shape (n_theta,)
        Whether Sigma is symmetric about the bounds of a parameter, so that an optimiser may reflect a step
        across one. False for structures linear in theta, whose signs the optimisers know.
    """

    name: str
    k: int
    n_theta: int
    entries: np.ndarray | None
    clip: str
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    mirrored: np.ndarray

    def __hash__(self) -> int: ...

    def factor(self, theta: np.ndarray) -> np.ndarray:
        """Relative factor, shape (k, k), lower triangular."""
        ...

    def factor_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of the factor, shape (n_theta, k, k)."""
        ...

    def factor_second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Second derivatives of the factor, shape (n_theta, n_theta, k, k)."""
        ...

    def sigma(self, theta: np.ndarray) -> np.ndarray:
        """``Sigma = factor factor'``, shape (k, k)."""
        ...

    def sigma_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of Sigma, shape (n_theta, k, k); they exist where those of the factor do not."""
        ...

    def sigma_curvature(self, theta: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``tr(M d2 Sigma / d theta_i d theta_j)`` for a symmetric M, shape (n_theta, n_theta)."""
        ...

    def theta_of(self, factor: np.ndarray) -> np.ndarray:
        """Parameters of a lower-triangular factor that lies in the structure (inverse of `factor`)."""
        ...

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """Parameters of a matrix of the structure close to a positive semi-definite `Sigma`: for starts."""
        ...

    def natural(self, theta: np.ndarray, columns: tuple[str, ...], scale: float = 1.0) -> NaturalParameters:
        """Natural parameters of ``scale^2 Sigma`` with their derivatives (see `NaturalParameters`)."""
        ...

    def natural_curvature(self, theta: np.ndarray, weights: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """``sum_r weights_r d2 value_r / d theta_i d theta_j`` of `natural`, shape (n_theta, n_theta).

        Values whose weight is 0 need not exist.
        """
        ...

    def theta_from_natural(self, values: Any, scale: float = 1.0) -> np.ndarray:
        """theta of natural parameters in the order of `natural`."""
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

    __slots__ = (
        "_derivatives",
        "_flat",
        "_parameters",
        "entries",
        "k",
        "lower",
        "mirrored",
        "n_theta",
        "start",
        "upper",
    )

    name = ""
    clip = "block"

    def __init__(self, k: int, entries: list[tuple[int, int, int]]) -> None:
        table = np.array(entries, dtype=np.intp).reshape(-1, 3)
        rows, columns, parameters = table.T
        self.k = k
        self.n_theta = int(parameters.max()) + 1
        self.entries: np.ndarray | None = table
        self._flat = rows * k + columns
        self._parameters = np.ascontiguousarray(parameters)
        on_diagonal = np.zeros(self.n_theta, dtype=bool)
        on_diagonal[parameters[rows == columns]] = True
        self.start = on_diagonal.astype(np.float64)
        self.lower = np.where(on_diagonal, 0.0, -np.inf)
        self.upper = np.full(self.n_theta, np.inf)
        self.mirrored = np.zeros(self.n_theta, dtype=bool)
        self._derivatives = np.zeros((self.n_theta, k, k))
        self._derivatives[parameters, rows, columns] = 1.0
        for array in (
            table,
            self._flat,
            self._parameters,
            self.start,
            self.lower,
            self.upper,
            self.mirrored,
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

    def factor_second_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Zeros, shape (n_theta, n_theta, k, k)."""
        return np.zeros((self.n_theta, self.n_theta, self.k, self.k))

    def sigma(self, theta: np.ndarray) -> np.ndarray:
        """``Sigma = factor factor'``, shape (k, k)."""
        factor = self.factor(theta)
        return factor @ factor.T

    def sigma_derivatives(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of Sigma, shape (n_theta, k, k)."""
        half = self._derivatives @ self.factor(theta).T
        return half + half.transpose(0, 2, 1)

    def sigma_curvature(self, theta: np.ndarray, M: np.ndarray) -> np.ndarray:
        """``2 tr(E_i' M E_j)``, shape (n_theta, n_theta)."""
        E = self._derivatives
        return 2.0 * np.einsum("iab,jab->ij", E, M @ E)

    def theta_near(self, Sigma: np.ndarray) -> np.ndarray:
        """Parameters of the lower factor of a positive semi-definite `Sigma`."""
        from mixedmodels.covariance.correlation import semidefinite_root

        return self.theta_of(semidefinite_root(np.asarray(Sigma, dtype=np.float64)))

    def natural(self, theta: np.ndarray, columns: tuple[str, ...], scale: float = 1.0) -> NaturalParameters:
        """Standard deviations and, where there are any, correlations, with their derivatives."""
        factor = self.factor(theta)
        return sd_and_correlations(factor, self._derivatives, columns, scale, self.clip == "block")

    def natural_curvature(self, theta: np.ndarray, weights: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Weighted second derivatives of standard deviations and correlations, shape (n_theta, n_theta)."""
        return sd_and_correlations_curvature(self.factor(theta), self._derivatives, weights, scale)

    def theta_from_natural(self, values: Any, scale: float = 1.0) -> np.ndarray:
        """theta of standard deviations and correlations in the order of `natural`.

        Raises
        ------
        OptionError
            A standard deviation is negative, or the correlations are not those of a covariance matrix.
        """
        values = np.asarray(values, dtype=np.float64)
        sd = values[: self.k] / scale
        if not np.all(sd >= 0.0):
            raise OptionError(f"standard deviations must not be negative, got {values[: self.k].tolist()}")
        R = np.eye(self.k)
        if self.clip == "block":
            rows, columns = np.triu_indices(self.k, 1)
            R[columns, rows] = R[rows, columns] = values[self.k :]
        if not np.all(np.isfinite(R)) or np.linalg.eigvalsh(R)[0] < -1e-10:
            raise OptionError("the correlations do not form a positive semi-definite matrix")
        return self.theta_near(sd[:, None] * R * sd)

    def theta_of(self, factor: np.ndarray) -> np.ndarray:
        """Parameters of a lower-triangular factor that lies in the structure (inverse of `factor`)."""
        out = np.empty(self.n_theta)
        out[self._parameters] = np.asarray(factor, dtype=np.float64).reshape(-1)[self._flat]
        return out

    def parameter_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Names as lme4 gives them: ``column`` on the diagonal, ``row.column`` below it."""
        places = [divmod(at, self.k) for at in self._flat.tolist()]
        return tuple(columns[a] if a == c else f"{columns[a]}.{columns[c]}" for a, c in places)

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
