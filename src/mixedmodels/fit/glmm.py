"""From a formula to a generalised linear mixed model: frame, engine, search, fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixedmodels.errors import ConvergenceWarning, warn
from mixedmodels.fit.glmm_frame import OPTION_NAMES, GLMMOptions, make_glmm_frame
from mixedmodels.fit.glmm_result import GLMMFit
from mixedmodels.objective.glmm import Coordinates, GLMMObjective, parameter_restrictions
from mixedmodels.objective.marginal.choose import choose_marginal
from mixedmodels.optimize.trust_region import trust_region

__all__ = ["OPTION_NAMES", "GLMMOptions", "fit_glmm", "fit_glmm_frame", "glmm_objective", "make_glmm_frame"]


def glmm_objective(frame: Any, options: GLMMOptions) -> GLMMObjective:
    """The objective of a model frame."""
    coordinates = Coordinates(frame.generalised)
    marginal = choose_marginal(
        coordinates.inner, frame.family, options.nagq, options.information, options.solver
    )
    names = (*frame.generalised.gamma_names, *coordinates.map.names)
    return GLMMObjective(coordinates, marginal, parameter_restrictions(names, options.fixed, options.equal))


def fit_glmm(formula: Any, data: Any, options: GLMMOptions) -> GLMMFit:
    """Fit a formula to data."""
    return fit_glmm_frame(make_glmm_frame(formula, data, options), options, data)


def fit_glmm_frame(frame: Any, options: GLMMOptions, data: Any = None) -> GLMMFit:
    """Fit a model frame."""
    objective = glmm_objective(frame, options)
    optimum = trust_region(objective.newton, objective.v_of(objective.start), options.control)
    psi = objective.psi_of(optimum.theta)
    optimum = replace(optimum, theta=psi, names=tuple(objective.names))
    if not optimum.converged:
        warn(f"the fit did not converge: {optimum.message}", ConvergenceWarning)
    return GLMMFit(frame, objective, optimum, options, data)
