"""A fixed effect held where the covariance parameters obey equations of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixedmodels.objective.constrained import Constrained, Equations
from mixedmodels.objective.held import HeldPoint
from mixedmodels.objective.unprofiled import unprofiled

__all__ = ["HeldRestrictedCoefficient"]


class HeldRestrictedCoefficient:
    r"""A fixed effect held, u = beta_j, by maximum likelihood, as `HeldCoefficient`.

    With y = (psi, log sigma) at the minimum without column j for the response less :math:`u x_j`, the slope
    is :math:`2 (u - \hat\beta_j(\psi)) / (\sigma^2 C_{jj}(\psi))`.

    Parameters
    ----------
    objective : LMMObjective or StructuredObjective
        The criterion of the whole model, by maximum likelihood.
    theta : ndarray
    equations : Equations
    column : int
    reduced : callable
        ``reduced(column, u)``: the objective of the model with the coefficient held.
    """

    lower, upper = -math.inf, math.inf

    def __init__(
        self, objective: Any, theta: np.ndarray, equations: Equations, column: int, reduced: Any
    ) -> None:
        self.objective, self.equations, self.column, self.reduced = objective, equations, column, reduced
        tau = [math.log(objective.sigma(theta))] if objective.sigma_fixed is None else []
        self._y = np.append(theta, tau)

    def _point(self, u: float | None, y: np.ndarray, value: float, converged: bool) -> HeldPoint:
        objective, j = self.objective, self.column
        n = objective.n_theta
        psi = np.array(y[:n])
        solution = objective.solution(psi)
        C = np.asarray(solution.vcov_unscaled)
        u = float(solution.beta[j]) if u is None else u
        sigma = math.exp(y[n]) if objective.sigma_fixed is None else float(objective.sigma_fixed)
        away = (u - float(solution.beta[j])) / C[j, j]
        return HeldPoint(
            u,
            value,
            2.0 * away / sigma**2,
            2.0 / (C[j, j] * sigma**2),
            sigma,
            tuple(objective.factors(psi)),
            y,
            converged,
            {"beta": solution.beta + C[:, j] * away, "theta": psi},
        )

    def estimate(self) -> HeldPoint:
        """The unconstrained minimum."""
        whole = unprofiled(self.objective, self.equations.signed)
        return self._point(None, self._y, whole.value(self._y), True)

    def at(self, u: float, near: HeldPoint, other: HeldPoint | None = None, rough: bool = False) -> HeldPoint:
        """The minimum with the coefficient held at u."""
        whole = unprofiled(self.reduced(self.column, u), self.equations.signed)
        y, converged = Constrained(whole, self.equations, near.state).minimum()
        return self._point(u, y, whole.value(y), converged)
