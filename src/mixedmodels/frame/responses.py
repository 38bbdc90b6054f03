r"""What a response column says in a generalised model: successes and trials, counts, categories.

Responses of binomial families may be written as

* 0 and 1, truth values, or a factor (text) of two levels: the first level is failure, the second success;
* ``cbind(successes, failures)``;
* numbers of successes, with ``trials=`` the numbers of trials;
* proportions of successes, with ``trials=`` likewise. Whole numbers are read as successes; proportions that
  are all 0 or 1 are therefore to be written as successes.

All become numbers of successes y and of trials m. Rows without trials say nothing and are left out of the
likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.family.base import Observations
from mixedmodels.frame.factors import LOGICAL, code_column
from mixedmodels.frame.identify import is_constant
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import without_unused
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["observations_of", "refuse_constant", "rows_without_trials"]

_WHOLE = 1e-3  # how far from a whole number proportion times trials may be: rounding in files
_MOST_CATEGORIES = 100


def rows_without_trials(response: Value, trials: np.ndarray | None) -> tuple[Value, np.ndarray | None]:
    """Rows whose number of trials is 0, None if there are none; a missing proportion 0/0 there becomes 0.

    Parameters
    ----------
    response : float array, FactorColumn or MatrixColumn
    trials : ndarray of float64, shape (n,), or None
    """
    if isinstance(response, MatrixColumn):
        if response.values.shape[1] != 2:
            return response, None
        empty = np.logical_not(response.values.any(axis=1))
    elif trials is not None:
        empty = trials == 0.0
    else:
        return response, None
    if not empty.any():
        return response, None
    if isinstance(response, np.ndarray):
        response = np.where(empty & np.isnan(response), 0.0, response)
    return response, empty


def observations_of(
    value: Value,
    label: str,
    family: Any,
    trials: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    *,
    trials_label: str = "trials",
    kept: np.ndarray | None = None,
    messages: list[str],
) -> Observations:
    """The response of the rows of a model in the form its family needs.

    Parameters
    ----------
    value : float array, FactorColumn or MatrixColumn
        Response of the kept rows.
    label : str
        Its text in the formula.
    family : Family
        Says by `response` what it needs.
    trials, weights : ndarray of float64, shape (n,), or None
        Numbers of trials; multipliers of the log-likelihood.
    trials_label : str
        What to call the trials in errors.
    kept : ndarray of intp or None
        Rows of the data that the values belong to, to name them in errors.
    messages : list of str
        Takes notes.

    Returns
    -------
    Observations

    Raises
    ------
    DataError
        The response cannot come from the family; names the column, the number of rows and the first one.
    OptionError
        `trials` for a response that has none.
    """
    kind = family.response
    if trials is not None and kind != "successes":
        raise OptionError(
            f"trials= belongs to binomial families, not to {family.name}; for a rate of counts write "
            "offset(log(exposure)) in the formula"
        )
    if kind == "categories":
        return _categories(value, label, weights, messages)
    if kind == "successes":
        y, m = _successes(value, label, trials, trials_label, weights, kept, messages)
        found = Observations(y, m, weights, _labels(value))
    else:
        found = Observations(_numbers(value, label, family), None, weights)
        if kind == "count":
            _check_counts(found.y, label, family.name, kept)
    check = getattr(family, "check_response", None)
    if check is not None:
        try:
            check(found)
        except DataError as error:
            counted = "" if kept is None else " (rows counted without those left out)"
            raise DataError(f"the response {label!r}: {error}{counted}") from None
    return found


def refuse_constant(data: Observations, label: str) -> None:
    """Refuse a response without variation.

    Raises
    ------
    DataError
    """
    y = data.y
    if data.trials is not None:
        if bool((y == 0.0).all()):
            shown = "no trial of any row is a success"
        elif bool((y == data.trials).all()):
            shown = "all trials of all rows are successes"
        else:
            return
    elif not is_constant(y):
        return
    elif data.levels:
        shown = f"{level_labels(data.levels)[int(y[0])]} in every row"
    else:
        shown = f"{y[0]:g}"
    raise DataError(f"the response {label!r} is constant ({shown}): there is nothing to fit")


def _where(bad: np.ndarray, kept: np.ndarray | None) -> str:
    """ "in 3 rows (first in row 7)"."""
    places = np.flatnonzero(bad)
    first = int(places[0] if kept is None else kept[places[0]])
    if places.shape[0] == 1:
        return f"in row {first}"
    return f"in {places.shape[0]} rows (first in row {first})"


def _refuse(bad: Any, kept: np.ndarray | None, text: str, remedy: str) -> None:
    if bad.any():
        raise DataError(f"{text} {_where(bad, kept)}; {remedy}")


def _successes(
    value: Value,
    label: str,
    trials: np.ndarray | None,
    trials_label: str,
    weights: np.ndarray | None,
    kept: np.ndarray | None,
    messages: list[str],
) -> tuple[np.ndarray, np.ndarray | None]:
    """Successes and trials; None for one trial in each row."""
    if isinstance(value, MatrixColumn):
        if value.values.shape[1] != 2:
            k = value.values.shape[1]
            raise DataError(f"the response {label!r} has {k} columns; write cbind(successes, failures)")
        if trials is not None:
            raise OptionError(f"{label} already says the number of trials: leave out trials=")
        return _two_columns(value.values, label, kept)
    if isinstance(value, FactorColumn):
        if trials is not None:
            raise OptionError(
                f"trials= needs numbers of successes or proportions, but {label!r} holds categories"
            )
        return _two_levels(value, label, messages), None
    if trials is None:
        return _zero_one(value, label, weights is not None, kept), None
    return _of_trials(value, label, trials, trials_label, kept, messages)


def _two_columns(values: np.ndarray, label: str, kept: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if not ((values >= 0.0) & (values == np.floor(values))).all():
        _refuse((values < 0.0).any(axis=1), kept, f"{label} holds negative numbers", _CBIND)
        fractions = (values != np.floor(values)).any(axis=1)
        _refuse(fractions, kept, f"{label} holds numbers that are not whole", _CBIND)
    return np.array(values[:, 0]), values.sum(axis=1)


_CBIND = "cbind(successes, failures) needs counts of both"


def _two_levels(factor: FactorColumn, label: str, messages: list[str]) -> np.ndarray:
    """0 for the first of two levels, 1 for the second."""
    factor, dropped = without_unused(factor)
    names = level_labels(factor.levels)
    if len(names) > 2:
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        remedy = (
            'for ordered categories use family="cumulative"; else compare one level with the rest by a '
            "column of 0 and 1"
        )
        if _are_numbers(names):
            remedy = "these are numbers kept as text or categories: convert the column to numbers"
        raise DataError(f"the response {label!r} has {len(names)} levels ({shown}), not two; {remedy}")
    if len(names) < 2:
        raise DataError(
            f"the response {label!r} is constant ({', '.join(names) or 'no value'} in every row): "
            "there is nothing to fit"
        )
    if factor.levels is not LOGICAL and names != ("FALSE", "TRUE"):
        note = f"response {label}: {names[1]} is success, {names[0]} failure"
        if dropped:
            note += " (levels without rows were dropped)"
        messages.append(note)
    return factor.codes.astype(np.float64)


def _zero_one(y: np.ndarray, label: str, weighted: bool, kept: np.ndarray | None) -> np.ndarray:
    bad = (y != 0.0) & (y != 1.0)
    if not bad.any():
        return np.array(y)
    where = _where(bad, kept)
    if bool((y >= 0.0).all()) and bool((y <= 1.0).all()):
        remedy = 'give the numbers of trials as trials="column", or write cbind(successes, failures)'
        if weighted:
            remedy = "weights= repeat rows; numbers of trials belong in trials="
        raise DataError(f"the response {label!r} holds proportions {where}; {remedy}")
    distinct = np.unique(y)
    if distinct.shape[0] == 2:
        raise DataError(
            f"the response {label!r} holds {distinct[0]:g} and {distinct[1]:g}; "
            "code failure as 0 and success as 1"
        )
    raise DataError(
        f"the response {label!r} is neither 0 nor 1 {where}; counts of successes need their numbers of "
        'trials: trials="column", or cbind(successes, failures)'
    )


def _of_trials(
    y: np.ndarray,
    label: str,
    trials: np.ndarray,
    trials_label: str,
    kept: np.ndarray | None,
    messages: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    remedy = "a number of trials is a whole number of at least 0"
    _refuse(trials < 0.0, kept, f"{trials_label} is negative", remedy)
    _refuse(trials != np.floor(trials), kept, f"{trials_label} is not a whole number", remedy)
    _refuse(y < 0.0, kept, f"the response {label!r} is negative", "successes are counts or proportions")
    whole = y == np.floor(y)
    if bool(whole.all()):
        _refuse(
            y > trials, kept, f"the response {label!r} has more successes than trials", "check both columns"
        )
        if bool((y <= 1.0).all()) and bool((trials > 1.0).any()):
            messages.append(
                f"response {label}: the values 0 and 1 were read as numbers of successes; write proportions "
                "that are all 0 or 1 as successes"
            )
        return np.array(y), trials
    remedy = "give either numbers of successes or proportions"
    _refuse(~whole & (y > 1.0), kept, f"the response {label!r} is above 1 but not a whole number", remedy)
    _refuse(y > 1.0, kept, f"the response {label!r} has proportions, but is above 1", remedy)
    counts = y * trials
    rounded = np.round(counts)
    _refuse(
        np.abs(counts - rounded) > _WHOLE * np.maximum(1.0, rounded),
        kept,
        f"proportion {label!r} times {trials_label} is not a whole number",
        "give numbers of successes, or proportions with all their digits",
    )
    return rounded, trials


def _numbers(value: Value, label: str, family: Any) -> np.ndarray:
    """The response as a new float array."""
    if isinstance(value, FactorColumn):
        names = level_labels(value.levels[:5])
        remedy = "convert it, or name another column"
        if _are_numbers(names):
            remedy = "these are numbers kept as text or categories: convert the column to numbers"
        elif len(value.levels) == 2:
            remedy = 'for a yes/no response use family="binomial"'
        raise DataError(
            f"the response {label!r} holds categories ({', '.join(names[:4])}"
            f"{', ...' if len(value.levels) > 4 else ''}), but family {family.name!r} needs numbers; {remedy}"
        )
    if isinstance(value, MatrixColumn):
        raise DataError(
            f"the response {label!r} has several columns, but family {family.name!r} needs one; "
            "cbind(successes, failures) is for binomial families"
        )
    return np.array(value)


def _check_counts(y: np.ndarray, label: str, family: str, kept: np.ndarray | None) -> None:
    _refuse(
        y < 0.0, kept, f"the response {label!r} is negative", f"family {family!r} is for counts 0, 1, 2, ..."
    )
    _refuse(
        y != np.floor(y),
        kept,
        f"the response {label!r} is not a whole number",
        f"family {family!r} is for counts; model rates by counts with offset(log(exposure)), "
        'other positive numbers by family="gamma" or "tweedie"',
    )


def _categories(value: Value, label: str, weights: np.ndarray | None, messages: list[str]) -> Observations:
    if isinstance(value, MatrixColumn):
        raise DataError(f"the response {label!r} has several columns; ordered categories need one")
    factor = value if isinstance(value, FactorColumn) else code_column(value)
    factor, dropped = without_unused(factor)
    names = level_labels(factor.levels)
    if len(names) > _MOST_CATEGORIES:
        raise DataError(
            f"the response {label!r} has {len(names)} different values; a model of ordered categories "
            "needs a few: group them by cut(), or use a family for numbers"
        )
    if len(names) < 2:
        raise DataError(
            f"the response {label!r} is constant ({', '.join(names) or 'no value'} in every row): "
            "there is nothing to fit"
        )
    if isinstance(value, FactorColumn) and not factor.ordered:
        _check_order(names, label)
    if dropped:
        messages.append(f"response {label}: categories without rows were dropped, their thresholds with them")
    if isinstance(value, FactorColumn) and not factor.ordered:
        messages.append(f"response {label}: the order of the categories is {' < '.join(names)}")
    return Observations(factor.codes + 1.0, None, weights, tuple(names))


def _check_order(names: Sequence[str], label: str) -> None:
    """Refuse categories that nobody ordered: texts in alphabetical order, three or more."""
    if len(names) < 3:
        return
    numbers = [float(name) for name in names] if _are_numbers(names) else []
    if numbers and numbers == sorted(numbers):
        return
    if not numbers and list(names) != sorted(names):
        return  # somebody's order: that of a categorical or an Enum
    levels = ", ".join([f"'{name}'" for name in names[:3]]) + (", ..." if len(names) > 3 else "")
    raise DataError(
        f"the response {label!r} holds categories without an order ({', '.join(names[:6])}"
        f"{', ...' if len(names) > 6 else ''}); make it an ordered factor: write "
        f"ordered({label}, levels = c({levels})) in the formula with the levels from low to high, or give an "
        "ordered categorical column"
    )


def _labels(value: Value) -> tuple[str, ...]:
    """Labels of failure and success of a factor."""
    return level_labels(without_unused(value)[0].levels) if isinstance(value, FactorColumn) else ()


def _are_numbers(labels: Sequence[str]) -> bool:
    """Whether all labels read as numbers."""
    try:
        return bool([float(label) for label in labels])
    except ValueError:
        return False
