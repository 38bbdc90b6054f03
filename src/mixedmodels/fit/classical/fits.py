"""Fits by the classical methods, for `mixedmodels.lmm`."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.classical.names import METHODS, SCHAFER, STARTS, Rules, canonical
from mixedmodels.fit.classical.run import Estimate, estimate
from mixedmodels.fit.classical.starts import starting_values
from mixedmodels.objective.component_space import ComponentSpace
from mixedmodels.objective.lmm import LMMObjective
from mixedmodels.optimize.control import Control
from mixedmodels.optimize.minimize import METHODS as OTHERS

if TYPE_CHECKING:
    from mixedmodels.optimize.optimum import Optimum

__all__ = ["classical_optimum", "held", "start_by_name"]


def classical_optimum(
    objective: Any,
    options: Any,
    control: Control = Control(),  # noqa: B008 (frozen)
    progress: Any = None,
) -> tuple[Optimum, Any, Any]:
    """Optimum of a classical method, and the objective and options that hold there.

    Parameters
    ----------
    objective : LMMObjective
    options : Options
        ``start`` may be theta or the name of a start of variance components.
    control : Control
    progress : "auto", True, False, None or callable
    """
    try:
        method = canonical(options.method)
    except OptionError:
        known = (*OTHERS, *[name for name in METHODS if name not in OTHERS], *SCHAFER)
        raise OptionError(f"unknown method {options.method!r}; choose one of {', '.join(known)}") from None
    check_objective(objective, method)
    starts = options.start
    if starts is None:
        starts = "moments"
    elif not isinstance(starts, str):
        from mixedmodels.fit.solve import start_of

        theta = start_of(starts, objective)
        starts = ComponentSpace(objective).kappa_of(np.asarray(theta))
    if method.startswith("minque") and objective.sigma_fixed is not None:  # of an earlier MINQUE
        objective = LMMObjective(objective.design, objective.solver, objective.reml)
        options = replace(options, sigma=None)
    found = estimate(objective, method, starts, Rules(), control, progress)
    return held(found, objective, options, method)


def held(found: Estimate, objective: Any, options: Any, method: str) -> tuple[Optimum, Any, Any]:
    """The optimum of an estimate; for MINQUE with sigma held where the equations put it."""
    if not method.startswith("minque"):
        return found.optimum, objective, options
    sigma = sqrt(float(found.kappa[-1]))
    objective = LMMObjective(objective.design, objective.solver, objective.reml, sigma)
    value, _, hessian = objective.newton(found.optimum.theta)
    optimum = replace(found.optimum, value=value, gradient=None, hessian=np.asarray(hessian))
    return optimum, objective, replace(options, sigma=sigma)


def check_objective(objective: Any, method: str) -> None:
    """Refuse objectives that have no variance components."""
    if type(objective) is not LMMObjective:
        raise OptionError(
            f"method {method!r} works on free variance components; it does not go with residual structures, "
            'priors=, fixed=, equal= or a covariance given as a function: use method="auto"'
        )
    if not objective.n_theta and method in ("fast", "grid"):
        raise OptionError(f"method {method!r} needs a random term; there is none")


def start_by_name(objective: Any, start: str) -> np.ndarray:
    """theta of a named start of the variance components.

    Raises
    ------
    OptionError
        There is no such start.
    """
    if start.lower() not in STARTS:
        raise OptionError(
            f"start must be one number for each entry of theta, or one of {', '.join(map(repr, STARTS))}; "
            f"got {start!r}"
        )
    if type(objective) is not LMMObjective:
        raise OptionError(
            f"start={start!r} is a start of free variance components; it does not go with residual "
            "structures, priors=, fixed=, equal= or a covariance given as a function: give numbers, "
            "or leave start= out"
        )
    space = ComponentSpace(objective)
    return space.theta(starting_values(space, start))
