"""Criteria with one parameter held at a value, minimised over all the others: the points of a profile.

Each class holds one kind of parameter on a coordinate u of its own and answers `at`, warm-started from a
neighbouring point. What drives them (`mixedmodels.inference.profile.points`) knows nothing of the model.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.optimize import minimize

__all__ = ["Held", "HeldCoefficient", "HeldParameter", "HeldPoint", "HeldSigma"]

_TOL = 1e-10  # predicted decrease at which an inner minimum counts as reached


@dataclass(frozen=True, slots=True, eq=False)
class HeldPoint:
    """The minimum of the criterion with one parameter held.

    Attributes
    ----------
    u : float
        Where the parameter is held, in the coordinate of its `Held`.
    criterion : float
        Minimum over all other parameters.
    slope : float
        d criterion / du, exact: the partial derivative at the minimum.
    curvature : float
        Second derivative, if it is known; NaN otherwise.
    sigma : float
        Residual SD at the minimum.
    factors : tuple of ndarray
        Relative factors of the terms.
    state : object
        What a neighbouring point starts from.
    converged : bool
    """

    u: float
    criterion: float
    slope: float
    curvature: float
    sigma: float
    factors: tuple[Any, ...]
    state: Any = None
    converged: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class Held(Protocol):
    """One parameter, held.

    Attributes
    ----------
    lower, upper : float
        Bounds of the coordinate; a finite bound belongs to the parameter space.
    """

    lower: float
    upper: float

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        ...

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with the parameter held at u.

        Started from `near` (and `other`, if two are known); ``rough=True`` allows an error of about 1e-3 in
        the criterion, for steps on the way.
        """
        ...


def minimised(objective: Any, theta: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """theta and value at the minimum of an objective, started at theta, and whether it was reached."""
    if not len(theta):
        return theta, float(objective.value(theta)), True
    compiled = getattr(objective, "newton_minimize", None)
    if compiled is not None:
        facts = compiled(theta, tol=_TOL)
        if facts is not None and facts["status"] <= 1:
            return facts["theta"], float(facts["value"]), True
    optimum = minimize(objective, "newton", theta, certify=False)
    return optimum.theta, float(optimum.value), bool(optimum.converged)


def _between(u: float, near: HeldPoint, other: HeldPoint | None, objective: Any) -> np.ndarray:
    """theta at u on the line through two minima, inside the bounds; diagonals at 0 stay there."""
    if other is None or other.u == near.u or not -1.0 <= (t := (u - near.u) / (other.u - near.u)) <= 2.0:
        return near.state
    theta = near.state + t * (other.state - near.state)
    inside = (theta > objective.lower) | (near.state <= objective.lower)
    return np.clip(theta, objective.lower, objective.upper) if inside.all() else near.state


class HeldCoefficient:
    r"""A fixed effect held, u = beta_j, by maximum likelihood.

    At given theta the sum of squares is :math:`r^2(\theta) + (u - \hat\beta_j(\theta))^2 / C_{jj}(\theta)`
    with :math:`C = (X'V^{-1}X)^{-1}`, which gives the slope; theta is found for the model without column j
    and with the response :math:`y - u x_j`.

    Parameters
    ----------
    objective : LMMObjective or UserFactorObjective
        The criterion of the whole model, by maximum likelihood.
    theta : ndarray
        Its minimum.
    column : int
    reduced : callable
        ``reduced(column, u)``: the objective of the model with the coefficient held.
    """

    lower, upper = -math.inf, math.inf

    def __init__(self, objective: Any, theta: np.ndarray, column: int, reduced: Any) -> None:
        self.objective, self.column, self.reduced = objective, column, reduced
        self.theta = np.array(theta)

    def _point(self, u: float | None, theta: np.ndarray, value: float, converged: bool) -> HeldPoint:
        objective, j = self.objective, self.column
        solution = objective.solution(theta)
        C = solution.vcov_unscaled
        u = float(solution.beta[j]) if u is None else u
        away = (u - float(solution.beta[j])) / C[j, j]
        pwrss = float(solution.pwrss) + away**2 * C[j, j]
        fixed = objective.sigma_fixed
        sigma2 = pwrss / objective.nu if fixed is None else fixed**2
        return HeldPoint(
            u,
            value,
            2.0 * away / sigma2,
            2.0 / (C[j, j] * sigma2),
            math.sqrt(sigma2),
            tuple(objective.factors(theta)) if hasattr(objective, "factors") else (),
            theta,
            converged,
            {"beta": solution.beta + C[:, j] * away, "theta": theta},
        )

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        return self._point(None, self.theta, float(self.objective.value(self.theta)), True)

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with the coefficient held at u."""
        theta, value, converged = minimised(
            self.reduced(self.column, u), _between(u, near, other, self.objective)
        )
        return self._point(u, theta, value, converged)


class HeldSigma:
    r"""The residual SD held, u = log sigma; slope :math:`2\nu - 2 r^2/\sigma^2`.

    Parameters
    ----------
    objective, theta
        As in `HeldCoefficient`; the restricted criterion is possible.
    fixed : callable
        ``fixed(sigma)``: the objective with that residual SD.
    """

    lower, upper = -math.inf, math.inf

    def __init__(self, objective: Any, theta: np.ndarray, fixed: Any) -> None:
        self.objective, self.fixed, self.theta = objective, fixed, np.array(theta)

    def _point(self, u: float | None, theta: np.ndarray, value: float, converged: bool) -> HeldPoint:
        objective = self.objective
        solution = objective.solution(theta)
        pwrss = float(solution.pwrss)
        u = 0.5 * math.log(pwrss / objective.nu) if u is None else u
        ratio = 2.0 * pwrss * math.exp(-2.0 * u)
        return HeldPoint(
            u,
            value,
            2.0 * objective.nu - ratio,
            2.0 * ratio,
            math.exp(u),
            tuple(objective.factors(theta)) if hasattr(objective, "factors") else (),
            theta,
            converged,
            {"beta": solution.beta, "theta": theta},
        )

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        return self._point(None, self.theta, float(self.objective.value(self.theta)), True)

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with ``sigma = exp(u)``."""
        theta, value, converged = minimised(self.fixed(math.exp(u)), _between(u, near, other, self.objective))
        return self._point(u, theta, value, converged)


class HeldParameter:
    """One entry of theta held, for a covariance that is the user's function of theta.

    Parameters
    ----------
    objective, theta
        As in `HeldSigma`.
    index : int
    """

    def __init__(self, objective: Any, theta: np.ndarray, index: int) -> None:
        self.objective, self.theta, self.index = objective, np.array(theta), index
        self.lower, self.upper = float(objective.lower[index]), float(objective.upper[index])

    def _point(self, theta: np.ndarray, converged: bool) -> HeldPoint:
        objective, j = self.objective, self.index
        value, gradient, H = objective.newton(theta)
        with contextlib.suppress(SolverError):
            H = objective.information(theta, "observed")
        free = np.arange(len(theta)) != j
        curvature = float(H[j, j])
        if free.any():
            curvature -= float(H[j, free] @ np.linalg.lstsq(H[np.ix_(free, free)], H[free, j], rcond=None)[0])
        solution = objective.solution(theta)
        fixed = objective.sigma_fixed
        sigma = math.sqrt(float(solution.pwrss) / objective.nu) if fixed is None else fixed
        return HeldPoint(
            float(theta[j]), float(value), float(gradient[j]), curvature, sigma, (), theta, converged,
            {"beta": solution.beta, "theta": theta},
        )  # fmt: skip

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        return self._point(self.theta, True)

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with ``theta[index] = u``."""
        rest = _Rest(self.objective, self.index, u)
        free, _, converged = minimised(rest, np.delete(near.state, self.index))
        return self._point(rest.whole(free), converged)


class _Rest:
    """An objective as a function of all entries of theta but one."""

    def __init__(self, objective: Any, index: int, u: float) -> None:
        self.objective, self.index, self.u = objective, index, u
        self.lower, self.upper = np.delete(objective.lower, index), np.delete(objective.upper, index)
        self.start = np.delete(objective.start, index)
        self.names = tuple(name for i, name in enumerate(objective.names) if i != index)

    def whole(self, theta: np.ndarray) -> np.ndarray:
        return np.insert(np.asarray(theta, dtype=float), self.index, self.u)

    def value(self, theta: np.ndarray) -> float:
        return float(self.objective.value(self.whole(theta)))

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.objective.value_and_gradient(self.whole(theta))
        return value, np.delete(gradient, self.index)

    def newton(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, H = self.objective.newton(self.whole(theta))
        return value, np.delete(gradient, self.index), np.delete(np.delete(H, self.index, 0), self.index, 1)
