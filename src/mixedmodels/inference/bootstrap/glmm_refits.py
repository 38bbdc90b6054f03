"""Generalised models fitted to many responses and to resampled rows, started from the estimates."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import ConvergenceWarning, MixedModelsError
from mixedmodels.optimize.control import Control

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.inference.bootstrap.refits import Refits

__all__ = ["fit_to_generalised", "refit_generalised_rows", "refit_response"]


def refit_response(fit: GLMMFit, y: np.ndarray) -> GLMMFit:
    """The model of a fit with another response for its rows, by Newton's method from the estimates.

    What does not depend on the response (coordinates, the order of the rows) is that of the fit.

    Raises
    ------
    DataError
        A response that the family does not have, or a constant one.
    SolverError
        The likelihood cannot be computed.
    """
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.fit.glmm_update import frame_with_observations, new_observations
    from mixedmodels.objective.glmm_responses import with_observations
    from mixedmodels.objective.glmm_search import search

    data = new_observations(fit._frame, y)
    objective = with_observations(fit.objective, data, fit._options)
    control = fit._options.control
    control = Control(trace=False) if control is None else replace(control, trace=False)
    optimum = search(objective, np.array(fit.psi), "auto", control, None)
    return GLMMFit(frame_with_observations(fit._frame, data), objective, optimum, fit._options, None)


def refit_generalised_rows(fit: GLMMFit, Y: np.ndarray, vcov: bool = False) -> Refits:
    """Refits to each row of Y, shape (N, n); as `refit_rows`, beta being all coefficients gamma."""
    from mixedmodels.inference.bootstrap.refits import Refits

    N, p, r = Y.shape[0], len(fit.gamma), len(fit.theta)
    beta, se, theta = np.full((N, p), np.nan), np.full((N, p), np.nan), np.full((N, r), np.nan)
    scale, criterion, converged = np.full(N, np.nan), np.full(N, np.nan), np.zeros(N, dtype=bool)
    V = np.full((N, p, p), np.nan) if vcov else None
    failures = []
    for j in range(N):
        try:
            new = refit_response(fit, Y[j])
            covariance = new.joint_vcov[:p, :p]
        except MixedModelsError as error:
            failures.append((j, str(error)))
            continue
        beta[j], theta[j], scale[j] = new.gamma, new.theta, 1.0
        criterion[j], converged[j] = new.criterion, new.converged
        diagonal = covariance.diagonal()
        se[j] = np.sqrt(np.where(diagonal > 0.0, diagonal, np.nan))
        if V is not None:
            V[j] = covariance
    return Refits(beta, se, scale, theta, criterion, converged, tuple(failures), V)


def fit_to_generalised(fit: GLMMFit, design: GeneralisedDesign) -> GLMMFit:
    """The model of a fit with another design, started from its estimates.

    Rows no longer are those of a data frame: all of them are kept.

    Raises
    ------
    DataError
        A constant response.
    """
    import warnings

    from mixedmodels.fit.glmm import fit_glmm_frame
    from mixedmodels.frame.responses import refuse_constant

    frame = fit._frame
    if fit.family.response == "categories":
        fit.family.response_columns(design.data)  # refuses categories without rows
    else:
        refuse_constant(design.data, str(frame.formula.response) if frame.formula else "the response")
    own = [j for j, c in enumerate(design.term_predictor) if c == 0]
    X, offset = design.predictors[0].X, design.predictors[0].offset
    conditional = replace(
        frame.design,
        y=design.data.y,
        X=np.ones((design.n, 1)) if X is None else X,
        terms=tuple([design.terms[j] for j in own]),
        offset=offset,
        weights=design.data.weights,
    )
    changes: dict[str, Any] = {
        "design": conditional,
        "generalised": design,
        "kept": None,
        "n_rows": design.n,
        "zero_weight_rows": None,
        "zero_weight_design": None,
    }
    names = {field.name for field in fields(frame)}
    frame = replace(frame, **{key: value for key, value in changes.items() if key in names})
    options = replace(fit._options, start=np.array(fit.psi), progress=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted
        return fit_glmm_frame(frame, options, None)
