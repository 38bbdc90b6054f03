"""Covariance parameters of a linear fit held for a profile, as functions of (psi, log sigma)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.equations import NaturalFunction, ResidualFunction
from mixedmodels.fit.natural import natural_terms
from mixedmodels.objective.constrained import Equations, Function
from mixedmodels.objective.held_function import HeldFunction

if TYPE_CHECKING:
    from mixedmodels.inference.parameters import Parameter

__all__ = ["function_of", "held_structured"]

NOTHING = Equations()


def function_of(fit: Any, parameter: Parameter) -> Function:
    """A covariance parameter as a function of (psi, log sigma)."""
    n = len(fit.theta)
    if parameter.kind == "residual":
        return ResidualFunction(parameter.natural, parameter.where[0], n)
    return NaturalFunction(*_place(fit, parameter), n)


def held_structured(
    fit: Any, parameter: Parameter, scale: Any, equations: Equations = NOTHING
) -> HeldFunction:
    """The criterion of a fit with one covariance parameter held, as a function of (psi, log sigma).

    Parameters
    ----------
    fit : LMMFit
    parameter : Parameter
        A standard deviation, correlation or natural parameter of a random term or of the residuals.
    scale : Scale
    equations : Equations
        What else binds the parameters of the fit.
    """
    objective, theta, function = fit.objective, np.array(fit.theta), function_of(fit, parameter)
    if parameter.kind == "residual":
        return HeldFunction(objective, theta, function, scale, equations=equations)
    term, _ = _place(fit, parameter)
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
    zero = zero if len(zero) > 1 else []
    return HeldFunction(objective, theta, function, scale, lower, upper, zero, branches, ends, equations)


def _row(term: Any, row: int, column: int | None = None) -> list[int]:
    """Entries of theta in one row (and column) of a factor that is linear in theta."""
    entries = np.asarray(term.covariance.entries).tolist()
    return sorted({int(term.index[t]) for r, c, t in entries if r == row and column in (None, c)})


def _place(fit: Any, parameter: Parameter) -> tuple[Any, int]:
    """The natural term of a parameter and its place there; columns of ``homdiag`` share one."""
    columns = [fit._term_names(j) for j in range(len(fit._terms))]
    for term in natural_terms(fit._terms, fit._random.theta_index, columns):
        names = [label.name for label in term.names]
        for name in (parameter.name, f"sd|{parameter.group}"):
            if name in names:
                return term, names.index(name)
    raise AssertionError(parameter.name)
