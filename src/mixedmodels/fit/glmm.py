"""From a formula to a generalised linear mixed model: frame, engine, search, fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixedmodels.errors import ConvergenceWarning, warn
from mixedmodels.fit.glmm_frame import OPTION_NAMES, GLMMOptions, make_glmm_frame
from mixedmodels.fit.glmm_modes import lower_mode
from mixedmodels.fit.glmm_natural_restrictions import equal_in_theta, in_theta
from mixedmodels.fit.glmm_result import GLMMFit
from mixedmodels.objective.glmm import GLMMObjective
from mixedmodels.objective.glmm_coordinates import Coordinates
from mixedmodels.objective.glmm_priors import read_priors
from mixedmodels.objective.glmm_restrictions import linear_names, parameter_restrictions
from mixedmodels.objective.glmm_search import search, start_point
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.solver.threads import is_small, one_blas_thread

__all__ = ["OPTION_NAMES", "GLMMOptions", "fit_glmm", "fit_glmm_frame", "glmm_objective", "make_glmm_frame"]


def glmm_objective(frame: Any, options: GLMMOptions) -> GLMMObjective:
    """The objective of a model frame."""
    design = frame.generalised
    coordinates = Coordinates(design)
    nagq = options.nagq
    marginal = choose_marginal(
        coordinates.inner, frame.family, max(nagq, 1), options.information, options.solver
    )
    restrictions = priors = None
    if options.fixed or options.equal:
        size = len(design.gamma_names) + coordinates.map.n_theta
        names = linear_names(design.gamma_names, design.terms, coordinates.map)
        fixed = in_theta(design.terms, design.theta_index, coordinates.map.names, options.fixed)
        equal = equal_in_theta(design.terms, design.theta_index, coordinates.map.names, options.equal)
        restrictions = parameter_restrictions(size, names, fixed, equal)
    if options.priors:
        p = len(design.predictors[0].columns)
        priors = read_priors(options.priors, design.gamma_names, p, design.terms, coordinates.map)
    if nagq == 0:
        from mixedmodels.objective.glmm_profiled import ProfiledObjective

        return ProfiledObjective(coordinates, marginal, restrictions, priors)
    return GLMMObjective(coordinates, marginal, restrictions, priors)


def fit_glmm(formula: Any, data: Any, options: GLMMOptions) -> GLMMFit:
    """Fit a formula to data."""
    return fit_glmm_frame(make_glmm_frame(formula, data, options), options, data)


# Up to so many rows NumPy's products and factorisations keep to one thread by themselves.
_SMALL = 500


def fit_glmm_frame(frame: Any, options: GLMMOptions, data: Any = None) -> GLMMFit:
    """Fit a model frame."""
    if not is_small(frame.design, _SMALL):
        with one_blas_thread():
            return _fit_glmm_frame(frame, options, data)
    return _fit_glmm_frame(frame, options, data)


def _fit_glmm_frame(frame: Any, options: GLMMOptions, data: Any) -> GLMMFit:
    objective = glmm_objective(frame, options)
    places: dict[str, int] = {}
    if isinstance(options.start, Mapping):
        places = linear_names(
            objective.design.gamma_names, objective.design.terms, objective.coordinates.map
        )[0]
    start = start_point(objective, options.start, places)
    optimum = search(objective, start, options.method, options.control, options.progress)
    if objective.coordinates.curved:
        optimum = lower_mode(frame, options, objective, optimum, glmm_objective)
    if not optimum.converged:
        warn(f"the fit did not converge: {optimum.message}", ConvergenceWarning)
    return GLMMFit(frame, objective, optimum, options, data)
