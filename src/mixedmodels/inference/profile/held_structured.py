"""Covariance parameters of a fit with structured residuals, held for a profile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.natural import natural_terms
from mixedmodels.objective.held_function import HeldFunction

if TYPE_CHECKING:
    from mixedmodels.inference.parameters import Parameter

__all__ = ["held_structured"]


def held_structured(fit: Any, parameter: Parameter, scale: Any) -> HeldFunction:
    """The criterion of a fit with structured residuals with one covariance parameter held.

    Parameters
    ----------
    fit : StructuredFit
    parameter : Parameter
        A standard deviation, correlation or natural parameter of a random term or of the residuals.
    scale : Scale
    """
    objective, theta = fit.objective, np.array(fit.theta)
    if parameter.kind == "residual":
        return HeldFunction(objective, theta, _of_residuals(parameter, len(theta)), scale)
    term, place = _place(fit, parameter)
    lower, upper = -math.inf, math.inf
    zero: list[int] = []
    branches: list[list[int]] = []
    ends: list[int] = []
    if parameter.kind == "sd":
        lower, zero = 0.0, _row(term, parameter.where[1])
    elif parameter.kind == "cor":
        lower, upper = -0.5 * math.pi, 0.5 * math.pi
        branches = [_row(term, row) for row in parameter.where[1:]]
        if parameter.where[1] == 0:
            ends = [t for t in _row(term, parameter.where[2]) if t not in _row(term, parameter.where[2], 0)]
    function = _of_term(term, place, len(theta))
    zero = zero if len(zero) > 1 else []
    return HeldFunction(objective, theta, function, scale, lower, upper, zero, branches, ends)


def _row(term: Any, row: int, column: int | None = None) -> list[int]:
    """Entries of theta in one row (and column) of a factor that is linear in theta."""
    entries = np.asarray(term.covariance.entries).tolist()
    return sorted({int(term.index[t]) for r, c, t in entries if r == row and column in (None, c)})


def _of_residuals(parameter: Parameter, n: int) -> Any:
    natural, place = parameter.natural, parameter.where[0]

    def function(psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        found = natural.at(psi)
        slopes = np.zeros(n + 1)
        slopes[natural.index] = found.jacobian[place]
        return float(found.values[place]), slopes

    return function


def _of_term(term: Any, place: int, n: int) -> Any:
    def function(psi: np.ndarray, tau: float) -> tuple[float, np.ndarray]:
        found = term.at(psi, math.exp(tau))
        slopes = np.zeros(n + 1)
        np.add.at(slopes, term.index, found.jacobian[place])
        slopes[n] = found.log_scale[place]
        return float(found.values[place]), slopes

    return function


def _place(fit: Any, parameter: Parameter) -> tuple[Any, int]:
    """The natural term of a parameter and its place there; columns of ``homdiag`` share one."""
    columns = [fit._term_names(j) for j in range(len(fit._terms))]
    for term in natural_terms(fit._terms, fit._random.theta_index, columns):
        names = [label.name for label in term.names]
        for name in (parameter.name, f"sd|{parameter.group}"):
            if name in names:
                return term, names.index(name)
    raise AssertionError(parameter.name)
