"""From a formula to a generalised linear mixed model: frame, engine, search, fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from mixedmodels.design import GeneralisedDesign, Predictor
from mixedmodels.errors import ConvergenceWarning, warn
from mixedmodels.family import Observations, get_family
from mixedmodels.fit.glmm_result import GLMMFit
from mixedmodels.objective.glmm import Coordinates, GLMMObjective
from mixedmodels.objective.glmm_priors import read_priors
from mixedmodels.objective.glmm_restrictions import linear_names, parameter_restrictions
from mixedmodels.objective.glmm_search import search, start_point
from mixedmodels.objective.marginal.choose import choose_marginal

__all__ = ["GLMMOptions", "fit_glmm", "fit_glmm_frame", "glmm_objective", "make_glmm_frame"]


@dataclass(frozen=True, slots=True, eq=False)
class GLMMOptions:
    """Everything `glmm` was told beside formula and data."""

    family: Any = "gaussian"
    link: Any = None
    nagq: int = 1
    dispersion: Any = "~1"
    zero_inflation: Any = None
    trials: Any = None
    weights: Any = None
    offset: Any = None
    contrasts: Any = None
    na_action: str = "omit"
    start: Any = None
    method: str = "auto"
    fixed: Mapping[str, float] | None = None
    equal: Any = None
    priors: Any = None
    information: str = "observed"
    solver: str = "auto"
    control: Any = None
    progress: Any = "auto"
    functions: Any = None
    share: Any = None


OPTION_NAMES = tuple(field.name for field in fields(GLMMOptions))


def make_glmm_frame(formula: Any, data: Any, options: GLMMOptions) -> Any:
    """The `ModelFrame` of the conditional part, with ``generalised`` (all predictors) and ``parts``."""
    from mixedmodels.frame import build

    frame = build(
        formula,
        data,
        offset=options.offset,
        contrasts=options.contrasts,
        na_action=options.na_action,
        functions=options.functions,
        share=options.share,
        sigma_fixed=True,
    )
    family = get_family(options.family, options.link)
    design = frame.design
    trials = options.trials
    if isinstance(trials, str):
        trials = np.asarray(data[trials], dtype=float)
    observations = Observations(design.y, trials=trials)
    predictors = [Predictor("conditional", design.X, np.arange(design.p), design.offset)]
    names = list(design.x_names)
    for name in family.predictors[1:]:
        predictors.append(Predictor(name, None, np.array([len(names)])))
        names.append(f"{name}_(Intercept)")
    generalised = GeneralisedDesign(
        observations,
        tuple(predictors),
        tuple(names),
        design.terms,
        (0,) * len(design.terms),
        design.theta_index,
    )
    return replace(frame, generalised=generalised, family=family)


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
        restrictions = parameter_restrictions(size, names, options.fixed, options.equal)
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


def fit_glmm_frame(frame: Any, options: GLMMOptions, data: Any = None) -> GLMMFit:
    """Fit a model frame."""
    objective = glmm_objective(frame, options)
    places: dict[str, int] = {}
    if isinstance(options.start, Mapping):
        places = linear_names(
            objective.design.gamma_names, objective.design.terms, objective.coordinates.map
        )[0]
    start = start_point(objective, options.start, places)
    optimum = search(objective, start, options.method, options.control, options.progress)
    if not optimum.converged:
        warn(f"the fit did not converge: {optimum.message}", ConvergenceWarning)
    return GLMMFit(frame, objective, optimum, options, data)
