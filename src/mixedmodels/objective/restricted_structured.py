"""Structured residuals, and covariance parameters that equations bind: held at values or equal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.constrained import Constrained, Equations, feasible
from mixedmodels.objective.restricted_covariance import restricted_covariance
from mixedmodels.objective.structured import StructuredObjective
from mixedmodels.objective.structured_descent import Work
from mixedmodels.objective.structured_modes import mode_starts
from mixedmodels.objective.structured_start import coarse_starts
from mixedmodels.objective.unprofiled import UnprofiledCriterion
from mixedmodels.optimize.base import columns_of_entries
from mixedmodels.optimize.control import Control

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = ["RestrictedStructured", "reflected", "restricted_search"]

_SMALLEST = 0.1  # of relative standard deviations where a search begins
_EXACT_WORK = 1e9
_LOOK = 25  # iterations of a search for another mode
_LOWER, _BETTER = 1e-6, 3.84  # of the criterion: lower, and significantly


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

    certificate = None  # type: ignore[assignment]  # first-order conditions are those of free parameters

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


def restricted_search(
    objective: RestrictedStructured,
    method: Any,
    start: np.ndarray | None,
    control: Any = None,
    **keywords: Any,
) -> Any:
    """The minimum of a criterion on the set that equations describe, from each of the coarse starts.

    Ends that look like one of several modes (`mode_starts`) are asked for the others, unless the caller
    limits the work or gives a start.

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
    search = _Searches(objective, method, control, keywords)
    for psi in coarse_starts(objective) if start is None else [np.asarray(start, dtype=float)]:
        search.begin(psi)
    best = search.best
    is_limited = control is not None and (control.maxiter is not None or control.max_seconds is not None)
    if best is not None and start is None and method == "newton" and not is_limited:
        for psi in mode_starts(objective, reflected(objective, best.theta[: objective.n_theta])):
            search.look(psi)
        best = search.best
    if best is None:
        texts = "; ".join([text for text in objective.equations.texts if text])
        raise OptionError(
            f"no parameters of the model have these values together: {texts}; change fixed= or equal=, or "
            "give start="
        )
    theta = reflected(objective, best.theta[: objective.n_theta])
    return replace(search.work.of(best), theta=theta, names=tuple(objective.names))


class _Searches:
    """Searches from several starts: the lowest end, and the work of all."""

    def __init__(
        self, objective: RestrictedStructured, method: Any, control: Any, keywords: dict[str, Any]
    ) -> None:
        self.objective, self.method, self.control, self.keywords = objective, method, control, keywords
        self.whole = UnprofiledCriterion(objective, objective.equations.signed)
        self.best: Any = None
        self.work = Work()
        self._begun: list[np.ndarray] = []

    def begin(self, psi: np.ndarray) -> None:
        """Search from the point of the set that is near psi, if there is one."""
        try:
            rest = self._near(psi)
            if rest is not None:
                self._count(rest.search(self.control, method=self.method, **self.keywords), 0.0)
        except FloatingPointError:
            return

    def look(self, psi: np.ndarray) -> None:
        """A short search; to its end where it is lower than the best so far.

        An end goes before a limit that is hardly lower.
        """
        try:
            rest = self._near(psi)
            if rest is None:
                return
            quick = replace(Control() if self.control is None else self.control, maxiter=_LOOK)
            found = rest.glance(quick)
            self.work.add(found)
            if found.value < self.best.value - _LOWER:
                rest = Constrained(self.whole, self.objective.equations, found.theta)
                end = rest.search(self.control, method=self.method, **self.keywords)
                self._count(end, _LOWER if end.converged or not self.best.converged else _BETTER)
        except FloatingPointError:
            return

    def _near(self, psi: np.ndarray) -> Constrained | None:
        """The criterion at a point of the set near psi; None if a search began there."""
        equations = self.objective.equations
        y = feasible(self.whole, equations, _begin(self.objective, psi, self.whole.size))
        if any([np.allclose(y, other, atol=1e-6) for other in self._begun]):
            return None
        self._begun.append(y)
        return Constrained(self.whole, equations, y)

    def _count(self, found: Any, lower: float) -> None:
        self.work.add(found)
        if self.best is None or found.value < self.best.value - lower:
            self.best = found


def _begin(objective: RestrictedStructured, psi: np.ndarray, size: int) -> np.ndarray:
    """(psi, log sigma) away from standard deviations of zero."""
    psi = np.array(psi, dtype=float)
    r = objective.n_random
    small = np.flatnonzero((objective.lower[:r] == 0.0) & (psi[:r] * objective.units[:r] < _SMALLEST))
    psi[small] = _SMALLEST / objective.units[small]
    return np.append(psi, math.log(objective.sigma(psi)))[:size]


def reflected(objective: Any, psi: np.ndarray) -> np.ndarray:
    """The same factors with diagonals that are not negative.

    Parameters
    ----------
    objective : RestrictedStructured or RestrictedObjective
    psi : ndarray, shape (n_theta,)
    """
    psi = np.array(psi)
    for columns in columns_of_entries(objective._map.linear_entries):
        if psi[columns[0]] < 0.0 and not set(columns) & set(objective.equations.signed):
            psi[columns] = -psi[columns]
    return psi
