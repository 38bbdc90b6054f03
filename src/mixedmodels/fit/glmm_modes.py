"""Another search of a generalised model that ended at a bound of a structure not linear in its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError
from mixedmodels.objective.curved_start import general_terms, starts_near_general
from mixedmodels.objective.glmm_search import search, start_point

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_frame import GLMMOptions
    from mixedmodels.objective.glmm import GLMMObjective
    from mixedmodels.optimize.optimum import Optimum

__all__ = ["lower_mode"]

_LOWER = 1e-7  # difference of the criterion that counts


def lower_mode(
    frame: Any,
    options: GLMMOptions,
    objective: GLMMObjective,
    optimum: Optimum,
    make: Callable[[Any, GLMMOptions], GLMMObjective],
) -> Optimum:
    """The lower of an end and that of a search from the estimates with general covariances.

    Parameters
    ----------
    frame : ModelFrame
    options : GLMMOptions
    objective : GLMMObjective
    optimum : Optimum
        An end; it is returned as it is inside the bounds, or where the caller limits the search.
    make : callable
        From frame and options to an objective.
    """
    control, design = options.control, frame.generalised
    if options.start is not None or options.fixed or options.equal or options.priors:
        return optimum
    if options.method not in ("auto", "newton") or design.theta_index is not None:
        return optimum
    if control is not None and (control.maxiter is not None or control.max_seconds is not None):
        return optimum
    n_gamma, index = objective.n_gamma, objective.coordinates.map.index
    terms = general_terms(design.terms, index, np.asarray(optimum.theta)[n_gamma:])
    if terms is None:
        return optimum
    try:
        general = make(replace(frame, generalised=replace(design, terms=terms)), options)
        wide = search(general, start_point(general, None, {}), "auto", control)
    except (FloatingPointError, np.linalg.LinAlgError, MixedModelsError):
        return optimum
    factors, best, each = general.factors(wide.theta), optimum, [optimum, wide]
    gamma, theta = wide.theta[:n_gamma], wide.theta[n_gamma:]
    starts = starts_near_general(design.terms, index, terms, general.coordinates.map.index, theta, factors)
    for start in starts:
        if best.value < wide.value + _LOWER:
            break  # a special case cannot be lower
        try:
            found = search(objective, np.concatenate([gamma, start]), options.method, control)
        except (FloatingPointError, np.linalg.LinAlgError, MixedModelsError):
            continue
        each.append(found)
        if found.converged and found.value < best.value - _LOWER:
            best = found
    return replace(
        best,
        iterations=sum([one.iterations for one in each]),
        evaluations=sum([one.evaluations for one in each]),
        gradient_evaluations=sum([one.gradient_evaluations for one in each]),
    )
