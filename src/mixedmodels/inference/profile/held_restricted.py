"""Profiles of linear fits whose covariance parameters are held at values or equal (`fixed=`, `equal=`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.profile.held_structured import function_of, held_structured
from mixedmodels.objective.constrained import Entry, Equations
from mixedmodels.objective.held import Held
from mixedmodels.objective.held_function import HeldFunction
from mixedmodels.objective.held_restricted import HeldRestrictedCoefficient

if TYPE_CHECKING:
    from mixedmodels.inference.parameters import Parameter

__all__ = ["equations_of_fit", "held_restricted", "without_held"]

_KNOWN = 1e-8


def equations_of_fit(fit: Any) -> Equations:
    """What binds the covariance parameters of a fit; no equations where nothing does."""
    objective = fit.objective
    found = getattr(objective, "equations", None)
    if found is not None:
        return found
    out = Equations()
    for place in getattr(objective, "held", ()):
        out = out.and_one(Entry(place, objective.n_theta + 1), float(fit.theta[place]))
    return replace(out, signed=tuple(getattr(objective, "held", ())))


@dataclass(frozen=True, slots=True)
class _Sigma:
    """The residual standard deviation as a function of (psi, log sigma); n is the length of psi."""

    n: int

    def __call__(self, psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        slopes = np.zeros(self.n + 1)
        slopes[self.n] = math.exp(tau)
        return math.exp(tau), slopes

    def curvature(self, psi: np.ndarray, tau: float) -> np.ndarray:
        """Second derivatives."""
        out = np.zeros((self.n + 1, self.n + 1))
        out[self.n, self.n] = math.exp(tau)
        return out


def held_restricted(fit: Any, parameter: Parameter, scale: Any, equations: Equations, reduced: Any) -> Held:
    """The criterion of a restricted fit with one parameter more held.

    Parameters
    ----------
    fit : LMMFit
        By maximum likelihood if the parameter is a coefficient.
    parameter : Parameter
    scale : Scale
    equations : Equations
        Of `equations_of_fit`.
    reduced : callable
        As for `HeldRestrictedCoefficient`.
    """
    objective, theta = fit.objective, np.array(fit.theta)
    if parameter.kind == "fixed":
        return HeldRestrictedCoefficient(objective, theta, equations, parameter.where[0], reduced)
    if parameter.kind == "sigma":
        return HeldFunction(objective, theta, _Sigma(len(theta)), scale, equations=equations)
    return held_structured(fit, parameter, scale, equations)


def without_held(
    fit: Any, wanted: Sequence[Parameter], named: bool
) -> tuple[tuple[Parameter, ...], list[str]]:
    """Parameters that are still free, and notes about the others.

    Parameters
    ----------
    fit : LMMFit
    wanted : sequence of Parameter
    named : bool
        Whether the caller named them: then it is an error that all are held.

    Raises
    ------
    OptionError
        All parameters that were named are held.
    """
    equations = equations_of_fit(fit)
    if not len(equations):
        return tuple(wanted), []
    theta, tau = np.array(fit.theta), math.log(fit.sigma)
    _, rows = equations.at(theta, tau)
    rows = np.where(np.isfinite(rows), rows, 0.0)
    if fit._options.sigma is not None:
        rows = rows[:, :-1]
    sizes = np.sqrt(np.sum(rows**2, axis=1))
    _, values, basis = np.linalg.svd(rows / np.where(sizes > 0.0, sizes, 1.0)[:, None], full_matrices=False)
    basis = basis[values > _KNOWN * values[0]]
    held = []
    for parameter in wanted:
        if parameter.kind == "fixed":
            continue
        function = _Sigma(len(theta)) if parameter.kind == "sigma" else function_of(fit, parameter)
        slope = function(theta, tau)[1][: rows.shape[1]]
        rest = slope - basis.T @ (basis @ slope)
        if np.linalg.norm(rest) <= _KNOWN * np.linalg.norm(slope):
            held.append(parameter.name)
    if held and named and len(held) == len(wanted):
        raise OptionError(f"fixed= and equal= hold {', '.join(held)}: there is nothing to profile")
    notes = [f"{', '.join(held)}: held by fixed= and equal=, not profiled"] if held else []
    return tuple([parameter for parameter in wanted if parameter.name not in held]), notes
