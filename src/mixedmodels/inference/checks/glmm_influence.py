"""Refits of a generalised model without each level of a factor, or each row."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError, MixedModelsWarning
from mixedmodels.fit.glmm_simulate import observations_of
from mixedmodels.inference.checks.deletion import compare_fits
from mixedmodels.inference.checks.grouping import Grouping
from mixedmodels.inference.checks.influence import RefitCount, check_rank, deletion_measures, reduced_rows

if TYPE_CHECKING:
    from mixedmodels.design import GeneralisedDesign, Predictor, RandomTerm
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["reduced_design", "reduced_frame", "refits"]


def refits(
    fit: GLMMFit, working: Any, grouping: Grouping, progress: Any
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Full fits without each level, started at the estimates; those that fail are NaN and told.

    Parameters
    ----------
    fit : GLMMFit
    working : WorkingFit
        Of the fit; not used.
    grouping : Grouping
        Rows to leave out together.
    progress : "auto", True, False or callable
    """
    from mixedmodels.fit.glmm import fit_glmm_frame

    count, p, q = len(grouping.levels), fit.design.p, fit._n_gamma
    beta, vcov = np.full((count, p), np.nan), np.full((count, p, p), np.nan)
    psi = np.full((count, len(fit.psi)), np.nan)
    options = replace(fit._options, start=np.array(fit.psi), progress=False)
    told, failed = RefitCount(progress, count), []
    for j in range(count):
        try:
            frame = reduced_frame(fit._frame, grouping.codes != j)
            check_rank(frame.design, fit.vcov)
            with warnings.catch_warnings():
                warnings.simplefilter("error", MixedModelsWarning)
                new = fit_glmm_frame(frame, options)
                beta[j], vcov[j], psi[j] = new.beta, new.vcov, new.psi
        except (MixedModelsError, MixedModelsWarning) as error:
            failed.append(f"without {grouping.levels[j]}: {error}")
        told.update(j + 1)
    told.close()
    notes = ["the model was fitted anew without each of them"]
    if failed:
        notes.append(f"{len(failed)} of {count} fits failed, the first {failed[0]}")
    sizes = np.bincount(grouping.codes, minlength=count)
    deletions = compare_fits((fit.beta, fit.vcov), beta, vcov, np.full(count, np.nan), sizes)
    measures = deletion_measures(fit, deletions, np.ones(count), psi[:, q:])
    for at in range(p, q):
        measures[f"gamma[{fit.gamma_names[at]}]"] = psi[:, at]
    return measures, notes


def reduced_frame(frame: Any, keep: np.ndarray) -> Any:
    """The model frame with the rows `keep` only."""
    return replace(
        frame,
        design=reduced_rows(frame.design, keep),
        generalised=reduced_design(frame.generalised, keep),
    )


def reduced_design(design: GeneralisedDesign, keep: np.ndarray) -> GeneralisedDesign:
    """The rows `keep` (mask or positions) of a generalised design.

    Levels without rows go, unless a known precision ties them to others.
    """
    data = observations_of(design.data, keep)
    shared: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def rows(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else np.ascontiguousarray(array[keep])

    def term_of(term: RandomTerm) -> RandomTerm:
        if term.precision is not None or term.several_levels:
            return term.of_rows(keep)
        if id(term.codes) not in shared:
            used, new = np.unique(term.codes[keep], return_inverse=True)
            shared[id(term.codes)] = used, new.astype(np.int32)
        used, codes = shared[id(term.codes)]
        levels = [term.levels[j] for j in used.tolist()]
        return replace(term, codes=codes, levels=levels, Z=rows(term.Z))

    def predictor_of(predictor: Predictor) -> Predictor:
        return replace(predictor, X=rows(predictor.X), offset=rows(predictor.offset))

    return replace(
        design,
        data=data,
        predictors=tuple([predictor_of(predictor) for predictor in design.predictors]),
        terms=tuple([term_of(term) for term in design.terms]),
    )
