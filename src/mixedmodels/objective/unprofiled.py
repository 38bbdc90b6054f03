r"""The criterion of a linear mixed model before sigma is profiled out, a function of (psi, log sigma).

.. math:: D(\psi, \tau) = \log|V| + \nu(\log 2\pi + 2\tau) + r^2 e^{-2\tau} \; [+ \log|X'V^{-1}X|],
    \qquad \tau = \log\sigma .
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.objective.natural import NaturalObjective
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.solver.base import Breakdown

__all__ = ["PlainCriterion", "UnprofiledCriterion", "unprofiled"]

_WORK = 2e6  # multiplications for traces that a step is worth
_STUCK_WORK = 1e8  # and where average information does not lead to the end


class UnprofiledCriterion:
    """D and its derivatives in (psi, tau) with structured residuals; in psi alone for a fixed sigma.

    Parameters
    ----------
    objective : StructuredObjective
    signed : sequence of int
        Parameters of factors whose signs matter; columns of other factors may pass through zero.

    Attributes
    ----------
    size : int
        Length of y.
    lower, upper : ndarray, shape (size,)
    """

    def __init__(self, objective: Any, signed: Sequence[int] = ()) -> None:
        self.objective, self._exactly = objective, False
        self.free_sigma = objective.sigma_fixed is None
        self.size = objective.n_theta + self.free_sigma
        lower = np.array(objective.lower, dtype=float)
        for _, _, _, t in objective._map.linear_entries.tolist():
            if t not in signed:
                lower[t] = -np.inf  # signs of columns of a factor do not matter
        self.lower = np.append(lower, -np.inf)[: self.size]
        self.upper = np.append(objective.upper, np.inf)[: self.size]

    @property
    def units(self) -> np.ndarray:
        """Units of y, shape (size,)."""
        own = getattr(self.objective, "units", None)
        return np.append(np.ones(self.objective.n_theta) if own is None else own, 1.0)[: self.size]

    def tau(self, y: np.ndarray) -> float:
        """Log sigma at y."""
        tau = float(y[-1]) if self.free_sigma else math.log(self.objective.sigma_fixed)
        if not -300.0 < tau < 300.0:
            raise Breakdown("sigma is zero or infinite")
        return tau

    def psi(self, y: np.ndarray) -> np.ndarray:
        """Covariance parameters at y."""
        return np.array(y[: self.objective.n_theta])

    def _at(self, y: np.ndarray) -> tuple[Any, np.ndarray]:
        """The objective with that sigma, and psi."""
        _ = self.objective.engine
        held = copy.copy(self.objective)
        held.sigma_fixed = math.exp(self.tau(y))
        held._information, held.held = None, ()
        vars(held)["twin"] = None  # the other would be that of the objective's own sigma
        return held, self.psi(y)

    @property
    def exact(self) -> bool:
        """Whether `second` takes exact derivatives: they cost little, or `exactly` asks for them."""
        return self._exactly or bool(self.objective.observed_is_cheap and self.objective.trace_work <= _WORK)

    def exactly(self) -> UnprofiledCriterion:
        """The same with exact second derivatives, unless they cost very much."""
        out = copy.copy(self)
        out._exactly = self.objective.trace_work <= _STUCK_WORK
        return out

    def value(self, y: np.ndarray) -> float:
        """Criterion D at y, a float."""
        held, psi = self._at(y)
        return float(StructuredObjective.value(held, psi))

    def second(self, y: np.ndarray, exact: bool | None = None) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient, Hessian (average information where the exact one costs much)."""
        held, psi = self._at(y)
        exact = self.exact if exact is None else exact
        value, g = held.value_and_gradient(psi)
        H = StructuredObjective.joint_information(held, psi, "observed" if exact else "average")
        if not self.free_sigma:
            return value, g, H
        state = held.at(psi)
        scale = held._scale(state)
        n = len(psi)
        out = np.empty((n + 1, n + 1))
        out[:n, :n] = H
        out[n, :n] = out[:n, n] = 2.0 * scale * held._forms(state, held.directions(psi))
        out[n, n] = 4.0 * scale * state.pwrss
        return value, np.append(g, 2.0 * held.nu - 2.0 * scale * state.pwrss), out


class PlainCriterion(UnprofiledCriterion):
    """`UnprofiledCriterion` of a model with independent residuals.

    Parameters
    ----------
    objective : LMMObjective
    signed : sequence of int
    """

    def __init__(self, objective: Any, signed: Sequence[int] = ()) -> None:
        super().__init__(objective, signed)
        start = np.asarray(objective.lower, dtype=float)
        self._whole = NaturalObjective(objective, np.where(np.isfinite(start), start + 1.0, 0.0), ())

    @property
    def exact(self) -> bool:
        """Whether exact second derivatives cost little."""
        return bool(self.objective.observed_is_cheap)

    def exactly(self) -> UnprofiledCriterion:
        """The same: where exact derivatives cost much they are not worth a step."""
        return self

    def value(self, y: np.ndarray) -> float:
        """Criterion D at y, a float."""
        self.tau(y)
        return self._whole.value(y)

    def second(self, y: np.ndarray, exact: bool | None = None) -> tuple[float, np.ndarray, np.ndarray]:
        """D, gradient, Hessian (average information where the exact one costs much)."""
        self.tau(y)
        return self._whole.second(y, self.exact if exact is None else exact)


def unprofiled(objective: Any, signed: Sequence[int] = ()) -> UnprofiledCriterion:
    """D of an objective with structured or independent residuals."""
    kind = UnprofiledCriterion if isinstance(objective, StructuredObjective) else PlainCriterion
    return kind(objective, signed)
