"""Smaller generalised models inside a fitted one, made from its arrays: same rows, same approximation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.design import Design, GeneralisedDesign, Predictor
from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.fit.glmm import fit_glmm_frame
from mixedmodels.fit.glmm_values import prefixed
from mixedmodels.fit.matrices import MatrixFrame

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["GeneralisedFrame", "fit_component", "refuse_priors", "with_component"]


@dataclass(frozen=True, slots=True, eq=False)
class GeneralisedFrame(MatrixFrame):
    """The part of a `ModelFrame` that a generalised model made from arrays has."""

    generalised: Any = None
    family: Any = None
    parts: Any = None
    functions: None = None


def refuse_priors(*fits: Any) -> None:
    """Likelihood ratios need maximum likelihood.

    Raises
    ------
    OptionError
        A fit has priors.
    """
    if any(getattr(fit._options, "priors", None) for fit in fits):
        raise OptionError(
            "likelihood-ratio tests need fits by maximum likelihood, and this model was fitted with priors; "
            "fit it without priors=, or use Wald tests"
        )


def fit_component(fit: Any, design: Design) -> GLMMFit:
    """The model of `fit` with another design of one linear predictor, with the options of the fit.

    Parameters
    ----------
    fit : GLMMFit or ComponentView
        A view replaces its own predictor, a fit the conditional one.
    design : Design
        Columns and random terms of the predictor; without any random term left in the model it is a
        generalised linear model.
    """
    refuse_priors(fit)
    options = fit._options
    if options.equal:
        raise NotImplementedYetError(
            "smaller models of a fit with equal= are not made by themselves; fit the smaller one and "
            "use compare()"
        )
    position = getattr(fit, "position", 0)
    generalised = with_component(fit.generalised, position, design, fit._frame.design.theta_index)
    first = design if position == 0 else fit._frame.design
    fixed = options.fixed
    if fixed:
        gone = set(fit.objective.names) - {*generalised.gamma_names, *_theta_names(generalised)}
        fixed = {name: value for name, value in fixed.items() if name not in gone} or None
    nagq = options.nagq if generalised.terms else 1
    options = replace(options, start=None, fixed=fixed, solver=_solver(options.solver), nagq=nagq)
    frame = GeneralisedFrame(first, first.n, generalised=generalised, family=fit._frame.family)
    return fit_glmm_frame(frame, options)


def _solver(name: str) -> str:
    return "dense" if name == "dense" else "auto"


def _theta_names(design: GeneralisedDesign) -> tuple[str, ...]:
    from mixedmodels.objective.parameters import parameter_map

    return parameter_map(design).names


def with_component(
    design: GeneralisedDesign, position: int, part: Design, theta_index: np.ndarray | None = None
) -> GeneralisedDesign:
    """The design with other columns and random terms of one predictor.

    Parameters
    ----------
    design : GeneralisedDesign
    position : int
        Of the predictor.
    part : Design
    theta_index : ndarray, optional
        Shared parameters of the conditional terms, if another predictor is replaced.
    """
    old = design.predictors[position]
    others = [p.columns for c, p in enumerate(design.predictors) if c != position]
    if len(others) and np.isin(old.columns, np.concatenate(others)).any():
        raise NotImplementedYetError(
            f"the {old.name} predictor shares coefficients with another one; fit the smaller model yourself"
        )
    names: list[str] = []
    place: dict[int, int] = {}
    predictors: list[Predictor] = []
    for c, predictor in enumerate(design.predictors):
        if c == position:
            columns = np.arange(len(names), len(names) + part.p)
            names += prefixed(part.x_names, predictor.name)
            predictors.append(Predictor(predictor.name, part.X, columns, part.offset))
            continue
        for j in predictor.columns.tolist():
            if j not in place:
                place[j] = len(names)
                names.append(design.gamma_names[j])
        own = np.array([place[j] for j in predictor.columns.tolist()], dtype=np.intp)
        predictors.append(replace(predictor, columns=own))
    terms: list[Any] = []
    owner: list[int] = []
    for c in range(len(predictors)):
        mine = (
            part.terms
            if c == position
            else [t for t, d in zip(design.terms, design.term_predictor, strict=True) if d == c]
        )
        terms += mine
        owner += [c] * len(mine)
    index = part.theta_index if position == 0 else theta_index
    if index is not None:
        total = sum(term.covariance.n_theta for term in terms)
        free = int(index.max(initial=-1)) + 1
        more = np.arange(free, free + total - len(index), dtype=np.intp)
        index = np.concatenate([index, more]).astype(np.intp)
    return GeneralisedDesign(design.data, tuple(predictors), tuple(names), tuple(terms), tuple(owner), index)
