"""The result of an optimisation and how it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from mixedmodels.optimize.history import History

__all__ = ["KKT", "Optimum", "Status", "Trace"]


class Status(Enum):
    """How an optimisation ended; `remedy` says what to do."""

    CONVERGED = "converged"
    BOUNDARY = "boundary"
    MAXITER = "maxiter"
    INTERRUPTED = "interrupted"
    MAX_SECONDS = "max_seconds"
    STALLED = "stalled"
    NOT_POSITIVE_DEFINITE = "not_positive_definite"

    @property
    def converged(self) -> bool:
        """Whether this is a minimum."""
        return self in (Status.CONVERGED, Status.BOUNDARY)

    @property
    def remedy(self) -> str:
        """What to do about it; empty if nothing."""
        return _REMEDIES[self]


_REMEDIES = {
    Status.CONVERGED: "",
    Status.BOUNDARY: (
        "A variance of zero or a correlation of one is the best fit; consider a simpler random part."
    ),
    Status.MAXITER: "Raise Control(maxiter=...), or start from the point reached: start=optimum.theta.",
    Status.INTERRUPTED: "Go on from the point reached with start=optimum.theta.",
    Status.MAX_SECONDS: (
        "Raise Control(max_seconds=...), or go on from the point reached with start=optimum.theta."
    ),
    Status.STALLED: (
        "No step lowers the criterion although its gradient is not zero: rescale or centre the predictors, "
        'drop columns that are nearly collinear, or try method="cobyqa".'
    ),
    Status.NOT_POSITIVE_DEFINITE: (
        "Check the predictors for huge values and collinear columns, or give a start with smaller parameters."
    ),
}


@dataclass(frozen=True, slots=True)
class KKT:
    """First-order conditions of one term: M positive semi-definite and M factor = 0.

    Attributes
    ----------
    term : str
    min_eigenvalue : float
        Smallest eigenvalue of the derivative M of the criterion to the covariance matrix, on the feasible
        directions.
    residual : float
        Norm of M factor.
    singular : bool
        Whether the covariance matrix is singular.
    """

    term: str
    min_eigenvalue: float
    residual: float
    singular: bool

    def __str__(self) -> str:
        numbers = f"min eig(M) = {self.min_eigenvalue:.2g}, |M factor| = {self.residual:.1g}"
        if not self.singular:
            return f"{self.term}: inside; {numbers}"
        if self.min_eigenvalue < -1e-6 * (1.0 + self.residual):
            return f"{self.term}: singular, but not a minimum: {numbers} < 0 in some direction"
        sign = numbers.replace(",", " >= 0,", 1) if self.min_eigenvalue >= 0 else numbers
        return f"{self.term}: variance at the boundary: {sign}: a true singular fit"


class Trace(Sequence[tuple[int, np.ndarray, float]]):
    """The points of a search as (iteration, theta, value), read from one table when asked for.

    Parameters
    ----------
    table : ndarray, shape (points, 2 + n_theta)
        Rows (iteration, value, theta...).
    """

    __slots__ = ("table",)

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.table[index]
        return int(row[0]), row[2:], float(row[1])

    def __repr__(self) -> str:
        return repr(list(self))


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """Where an optimisation ended.

    Attributes
    ----------
    theta : ndarray, shape (n_theta,)
    value : float
        Criterion at theta.
    gradient : ndarray, shape (n_theta,), or None
    hessian : ndarray, shape (n_theta, n_theta), or None
        The Newton matrix at theta (average information plus curvature).
    converged : bool
    status : Status
    iterations, evaluations, gradient_evaluations : int
    trace : sequence of (int, ndarray, float)
        (iteration, theta, value).
    decrement : float
        Predicted decrease 1/2 g'H^{-1}g of the criterion over the free parameters; NaN if no derivatives
        were used.
    kkt : tuple of KKT
        First-order conditions per term, where the objective gives them.
    method : str
    message : str
        One sentence and its remedy.
    seconds : float
    names : tuple of str
        Names of the parameters.
    history : History or None
        Every step of a classical search, rejected ones included.
    """

    theta: np.ndarray
    value: float
    gradient: np.ndarray | None
    hessian: np.ndarray | None
    status: Status
    iterations: int
    evaluations: int
    gradient_evaluations: int
    trace: Sequence[tuple[int, np.ndarray, float]]
    decrement: float
    kkt: tuple[KKT, ...]
    method: str
    message: str
    seconds: float = 0.0
    names: tuple[str, ...] = ()
    history: History | None = None

    @property
    def converged(self) -> bool:
        """Whether theta is a minimum, inside or on the boundary."""
        return self.status.converged

    def __str__(self) -> str:
        lines = [
            f"{self.method}: {self.message}",
            f"  criterion {self.value:.10g}, predicted decrease {self.decrement:.2g}",
            f"  {self.iterations} iterations, {self.evaluations} evaluations "
            f"({self.gradient_evaluations} with derivatives), {self.seconds:.3g} s",
        ]
        names = self.names or tuple(f"theta[{i}]" for i in range(len(self.theta)))
        shown = [f"{name} = {value:.6g}" for name, value in zip(names, self.theta, strict=True)]
        more = f", ... ({len(shown)} parameters)" if len(shown) > 8 else ""
        lines.append("  " + ", ".join(shown[:8]) + more)
        lines += [f"  {item}" for item in self.kkt]
        return "\n".join(lines)
