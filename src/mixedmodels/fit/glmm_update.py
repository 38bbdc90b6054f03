"""Generalised fits derived from others: another response, other data, formulas or options."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.fit import derived
from mixedmodels.fit.glmm import fit_glmm, fit_glmm_frame
from mixedmodels.fit.glmm_checks import refuse_residual
from mixedmodels.fit.glmm_frame import FRAME_OPTIONS, OPTION_NAMES

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["frame_with_observations", "new_observations", "refit_glmm", "update_glmm"]

_PER_ROW = ("trials", "weights", "offset")


def refit_glmm(fit: GLMMFit, new: Any) -> GLMMFit:
    """The same model fitted to a new response or to new data; see `GLMMFit.refit`.

    Parameters
    ----------
    fit : GLMMFit
    new : array, or data frame or dict
        A response as `new_observations` reads it, or data for the whole model.
    """
    options = replace(fit._options, start=None)
    if derived.is_data(new):
        return fit_glmm(fit.formula, derived.data_for(fit, new, {}, _PER_ROW), options)
    frame = frame_with_observations(fit._frame, new_observations(fit._frame, new))
    return fit_glmm_frame(frame, options, None)


def new_observations(frame: Any, new: Any) -> Any:
    """The observations of a model frame with another response.

    Parameters
    ----------
    frame : ModelFrame
    new : array, shape (n,) or (n, 2)
        As `simulate` draws it: numbers; successes (or proportions) out of the same trials; two columns of
        successes and failures; labels of a factor response, or their codes 0 and 1, numbers 1, 2, ... of
        ordered categories. For the rows of the fit, or for all rows of the data.

    Raises
    ------
    DataError
        It has another number of rows, or values the family does not have.
    """
    from mixedmodels.frame.responses import observations_of, refuse_constant
    from mixedmodels.frame.values import MatrixColumn

    old = frame.generalised.data
    ordered = frame.family.response == "categories"
    y = derived.numeric_response(_codes(new, old.levels, int(ordered)) if old.levels else new)
    label = "the response" if frame.formula is None else str(frame.formula.response)
    pairs = y.ndim == 2 and y.shape[1] == 2 and old.trials is not None
    if y.ndim > 1 and not pairs:
        raise DataError(f"the new response has shape {y.shape}; it needs one value per row")
    y = derived.rows_of_design(frame, y)
    notes: list[str] = []
    if ordered:
        found = old.with_y(_categories(y, old.levels))
    else:
        value = MatrixColumn(y, ("successes", "failures")) if pairs else y
        trials = None if pairs else old.trials
        found = observations_of(value, label, frame.family, trials, old.weights, messages=notes)
        found = replace(found, levels=old.levels)
        refuse_constant(found, label)
    return found


def _categories(y: np.ndarray, levels: tuple[str, ...]) -> np.ndarray:
    """Numbers 1, ..., K of ordered categories."""
    K = len(levels)
    if bool((y != np.floor(y)).any() or (y < 1).any() or (y > K).any()):
        raise DataError(f"the new response must hold numbers of categories, 1 to {K}, or their labels")
    return y


def _codes(new: Any, levels: tuple[str, ...], first: int = 0) -> Any:
    """Codes of labels, from `first`; numbers stay as they are."""
    values = np.asarray(new)
    if values.dtype.kind not in "OUST":
        return new
    places = {label: code for code, label in enumerate(levels, first)}
    try:
        return np.array([places[str(label)] for label in values.ravel().tolist()], dtype=float)
    except KeyError as error:
        raise DataError(
            f"the new response holds {error.args[0]!r}, which is not a category of the fit "
            f"({', '.join(levels)})"
        ) from None


def frame_with_observations(frame: Any, data: Any) -> Any:
    """The model frame with other observations."""
    return replace(
        frame,
        design=replace(frame.design, y=data.y),
        generalised=frame.generalised.with_response(frame.family, data),
    )


def update_glmm(fit: GLMMFit, formula: Any, data: Any, changes: dict[str, Any]) -> GLMMFit:
    """The model with changes; see `GLMMFit.update`.

    Parameters
    ----------
    fit : GLMMFit
    formula : str, Formula or None
        In a text ``.`` stands for what the fit has there.
    data : data frame, mapping or None
        None: the data of the fit.
    changes : dict
        Keywords of `glmm`.
    """
    refuse_residual(changes.pop("residual", None))
    derived.check_changes(changes, OPTION_NAMES)
    options = replace(fit._options, **{"start": None, **changes})
    if formula is None and data is None and not (FRAME_OPTIONS & changes.keys()):
        return fit_glmm_frame(fit._frame, options, fit._data)
    data = derived.data_for(fit, data, changes, _PER_ROW)
    return fit_glmm(derived.updated_formula(fit.formula, formula), data, options)
