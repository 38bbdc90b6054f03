"""Fits derived from other fits: what `refit` and `update` are given, made ready for every kind of model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

__all__ = ["check_changes", "data_for", "is_data", "numeric_response", "rows_of_design", "updated_formula"]


def is_data(new: Any) -> bool:
    """Whether `new` is a data frame or a dict of columns rather than a response."""
    return (
        isinstance(new, Mapping)
        or hasattr(new, "columns")
        or hasattr(new, "schema")
        or hasattr(new, "__dataframe__")
    )


def numeric_response(new: Any) -> np.ndarray:
    """A response as a new array of numbers; one column becomes a vector."""
    try:
        if np.iscomplexobj(new):
            raise TypeError
        y = np.array(new, dtype=float)
    except (TypeError, ValueError):
        raise DataError("refit needs a numeric response, or a data frame for the whole model") from None
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y  # one column, as simulate(1) returns it


def rows_of_design(frame: Any, y: np.ndarray) -> np.ndarray:
    """Rows of the fit among values for these rows, for all rows of the data or for those that fits show.

    Raises
    ------
    DataError
        Another number of rows, or values that are missing or infinite in a row of the fit.
    """
    n = frame.design.n
    lengths = {n: None, frame.n_rows: frame.kept}
    if frame.zero_weight_rows is not None:  # the rows that fitted() and residuals() return
        shown = np.sort(np.concatenate([frame.kept, frame.zero_weight_rows]))
        lengths.setdefault(shown.shape[0], np.searchsorted(shown, frame.kept))
    if y.ndim == 0 or y.shape[0] not in lengths:
        rows = " or ".join([str(length) for length in sorted(lengths)])
        raise DataError(f"the new response has shape {y.shape}; it needs {rows} values")
    chosen = lengths[y.shape[0]]
    if chosen is not None and y.shape[0] != n:
        y = y[chosen]
    if not np.isfinite(y).all():
        raise DataError("the new response holds missing or infinite values; refit to data without these rows")
    y.setflags(write=False)
    return y


def check_changes(changes: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse keywords that are not options."""
    for name in changes:
        if name not in names:
            raise OptionError(f"update() has no argument {name!r}; available: {', '.join(names)}")


def data_for(fit: Any, data: Any, changes: Mapping[str, Any], arrays: Sequence[str]) -> Any:
    """The data of an updated fit: those given, or those of the fit.

    Parameters
    ----------
    fit : Fit
    data : data frame, mapping or None
    changes : mapping
        Options given anew.
    arrays : sequence of str
        Options that may hold one value per row and then do not fit other data.
    """
    if fit.formula is None:
        raise OptionError(
            "a model made from matrices has no formula to update; build the new one with from_matrices"
        )
    if data is None:
        if fit._data is None:
            raise DataError(
                "this fit does not hold its data (it was loaded or refitted); pass data= to update()"
            )
        return fit._data
    old = fit._options
    if any(_is_array(getattr(old, name)) and name not in changes for name in arrays):
        listed = " or ".join([", ".join(arrays[:-1]), arrays[-1]])
        raise OptionError(f"{listed} were given as arrays; pass them again with the new data")
    return data


def updated_formula(old: Any, formula: Any) -> Any:
    """The new formula; in a text ``.`` stands for what the old one has there."""
    if formula is None:
        return old
    if isinstance(formula, str):
        from mixedmodels.fit.update_formula import updated_text
        from mixedmodels.formula import parse

        return str(parse(updated_text(old, formula)))
    return formula


def _is_array(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)
