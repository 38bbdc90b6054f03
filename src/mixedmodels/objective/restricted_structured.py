"""Structured residuals, and covariance parameters that equations bind: held at values or equal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.constrained import Constrained, Equations, bending, feasible, tangent_basis
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.objective.structured_start import coarse_starts
from mixedmodels.objective.unprofiled import UnprofiledCriterion
from mixedmodels.optimize.base import columns_of_entries

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = ["RestrictedStructured", "restricted_covariance", "restricted_search"]

_SMALLEST = 0.1  # of relative standard deviations where a search begins
_AT_BOUND = 1e-8
_EXACT_WORK = 1e9


class RestrictedStructured(StructuredObjective):
    """`StructuredObjective` with equations between its parameters; `restricted_search` minimises it.

    Its values and derivatives are those of the criterion without the equations, sigma profiled out. `sigma`
    obeys the equations, and information is practically infinite along what they hold.

    Parameters
    ----------
    design : Design
    reml : bool
    sigma : float or None
    solver : str
    equations : Equations
    """

    def __init__(
        self, design: Design, reml: bool, sigma: float | None, solver: str, equations: Equations
    ) -> None:
        super().__init__(design, reml, sigma, solver)
        self.equations = equations

    @property
    def twin(self) -> None:
        """None: equations are between parameters of the columns as they are."""
        return None

    def sigma(self, psi: np.ndarray) -> float:
        """Residual standard deviation at psi: that which equations give, or the likeliest."""
        likeliest = super().sigma(psi)
        if self.sigma_fixed is not None:
            return likeliest
        found = self.equations.log_sigma(self.check(psi), math.log(likeliest))
        return likeliest if found is None else math.exp(found)

    def joint_information(self, psi: np.ndarray, kind: str = "observed") -> np.ndarray:
        """Information about ``(psi, log sigma^2)``, practically infinite along what is held."""
        V = 0.5 * self.restricted_covariance(psi, kind)
        top = max(float(np.diagonal(V).max(initial=0.0)), 1e-300)
        return np.linalg.inv(V + 1e-10 * top * np.eye(len(V)))

    def restricted_covariance(self, psi: np.ndarray, kind: str = "observed") -> np.ndarray:
        """Covariance matrix of ``(psi, log sigma^2)``, zero along what is held; see the function."""
        expected = super().joint_information(psi, "expected") if kind == "expected" else None
        exact = kind == "observed" and self.trace_work <= _EXACT_WORK
        return restricted_covariance(UnprofiledCriterion(self), self.equations, psi, exact, expected)


def restricted_covariance(
    whole: UnprofiledCriterion,
    equations: Equations,
    psi: np.ndarray,
    exact: bool,
    information: np.ndarray | None = None,
) -> np.ndarray:
    r"""Covariance matrix of (psi, log sigma^2) on the set that the equations describe.

    With N a basis of its tangents and H the Hessian of the Lagrangian, :math:`2 N (N'HN)^{-1} N'`.

    Parameters
    ----------
    whole : UnprofiledCriterion
    equations : Equations
    psi : ndarray
        The minimum; parameters on a bound count as known.
    exact : bool
        The Hessian, or average information.
    information : ndarray, optional
        In (psi, log sigma^2); takes the place of both.
    """
    objective = whole.objective
    y = np.append(psi, math.log(objective.sigma(psi)))[: whole.size]
    unit = np.ones(whole.size)
    unit[objective.n_theta :] = 2.0  # d log sigma^2 / d log sigma
    _, slopes = equations.at(whole.psi(y), whole.tau(y))
    slopes = np.where(np.isfinite(slopes), slopes, 0.0)[:, : whole.size]
    if information is not None:
        H = information * unit * unit[:, None]
    else:
        _, g, H = whole.second(y, exact)
        multipliers = np.linalg.lstsq(slopes.T, g, rcond=None)[0]
        H = H - bending(whole, equations, y, slopes, multipliers)
    low, high = np.asarray(objective.lower), np.asarray(objective.upper)
    bound = np.flatnonzero((psi - low <= _AT_BOUND) | (high - psi <= _AT_BOUND))
    scale = np.sqrt(np.maximum(np.abs(np.diagonal(H)), 1e-300))
    N = tangent_basis(np.concatenate([slopes, np.eye(whole.size)[bound]]) / scale) / scale[:, None]
    inner = N.T @ H @ N
    V = 2.0 * N @ np.linalg.pinv(inner, rcond=1e-13, hermitian=True) @ N.T
    return V * unit * unit[:, None]


def restricted_search(
    objective: RestrictedStructured,
    method: Any,
    start: np.ndarray | None,
    control: Any = None,
    **keywords: Any,
) -> Any:
    """The minimum of a criterion on the set that equations describe, from each of the coarse starts.

    Parameters
    ----------
    objective : RestrictedStructured
    method : str or callable
    start : ndarray or None
        The user's psi.
    control, **keywords
        As for `minimize`.

    Returns
    -------
    Optimum
        theta is psi.

    Raises
    ------
    OptionError
        No parameters have the values asked for.
    """
    whole = UnprofiledCriterion(objective, objective.equations.signed)
    starts = coarse_starts(objective) if start is None else [np.asarray(start, dtype=float)]
    best: Any = None
    done: list[np.ndarray] = []
    iterations = evaluations = 0
    for psi in starts:
        try:
            y = feasible(whole, objective.equations, _begin(objective, psi, whole.size))
            if any(np.allclose(y, other, atol=1e-6) for other in done):
                continue
            done.append(y)
            found = Constrained(whole, objective.equations, y).search(control, method=method, **keywords)
        except FloatingPointError:
            continue
        iterations, evaluations = iterations + found.iterations, evaluations + found.evaluations
        if best is None or found.value < best.value:
            best = found
    if best is None:
        texts = "; ".join([text for text in objective.equations.texts if text])
        raise OptionError(
            f"no parameters of the model have these values together: {texts}; change fixed= or equal=, or "
            "give start="
        )
    return replace(
        best,
        theta=_reflected(objective, best.theta[: objective.n_theta]),
        iterations=iterations,
        evaluations=evaluations,
        gradient_evaluations=evaluations,
        names=tuple(objective.names),
    )


def _begin(objective: RestrictedStructured, psi: np.ndarray, size: int) -> np.ndarray:
    """(psi, log sigma) away from standard deviations of zero."""
    psi = np.array(psi, dtype=float)
    r = objective.n_random
    small = np.flatnonzero((objective.lower[:r] == 0.0) & (psi[:r] * objective.units[:r] < _SMALLEST))
    psi[small] = _SMALLEST / objective.units[small]
    return np.append(psi, math.log(objective.sigma(psi)))[:size]


def _reflected(objective: RestrictedStructured, psi: np.ndarray) -> np.ndarray:
    """The same factors with diagonals that are not negative."""
    psi = np.array(psi)
    for columns in columns_of_entries(objective._map.linear_entries):
        if psi[columns[0]] < 0.0 and not set(columns) & set(objective.equations.signed):
            psi[columns] = -psi[columns]
    return psi
