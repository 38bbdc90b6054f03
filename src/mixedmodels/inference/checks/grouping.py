"""Rows put into groups by a grouping factor of the model, a column of its data, or an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, NotImplementedYetError, OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Grouping", "grouping_of", "refuse_function_fit"]


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Groups of the rows of a fit.

    Attributes
    ----------
    name : str
    codes : ndarray of int, shape (nobs,)
        Group of each row; every group has a row.
    levels : tuple
        Labels of the groups.
    """

    name: str
    codes: np.ndarray
    levels: tuple[Any, ...]


def grouping_of(fit: Any, by: Any, what: str = "group") -> Grouping:
    """The groups that `by` names.

    Parameters
    ----------
    fit : LMMFit
    by : str or array
        A grouping factor of the model, a column of its data, or one label per row of the fit or of the data.
    what : str
        The argument, for messages.

    Raises
    ------
    OptionError
        Neither a grouping factor nor a column of the data.
    DataError
        An array of another length, or missing labels.
    """
    design = fit.design
    if isinstance(by, str):
        for term in design.terms:
            if by in (term.group, ":".join(reversed(term.group.split(":")))):
                if term.several_levels:
                    raise NotImplementedYetError(
                        f"{what}={by!r}: rows touch several levels of it, so they do not fall into groups; "
                        "take another factor"
                    )
                return _used(by, np.asarray(term.codes), term.levels)
        codes, levels = _column(fit, by, what)
        return _used(by, _own_rows(fit, codes, what), levels)
    from mixedmodels.frame.columns import Columns

    try:
        length = len(by)
    except TypeError:
        raise OptionError(
            f"{what} must be a grouping factor, a column of the data or an array, got {by!r}"
        ) from None
    if length not in (design.n, fit.n_rows):
        sizes = " or ".join(map(str, dict.fromkeys((design.n, fit.n_rows))))
        raise DataError(f"{what} has {length} values; it needs {sizes}, one per row")
    factor = Columns({what: by}).factor(what)
    return _used(what, _own_rows(fit, np.asarray(factor.codes), what), factor.levels)


def refuse_function_fit(fit: LMMFit, what: str) -> None:
    """Refuse a model whose covariance is a function of the user's: it has no terms to look at.

    Raises
    ------
    NotImplementedYetError
    """
    if getattr(fit.frame, "covariance", None) is not None:
        raise NotImplementedYetError(
            f"{what}: not in this version for a covariance given as a function of theta; write the random "
            "part as terms, (1 | g)"
        )


def _column(fit: LMMFit, name: str, what: str) -> tuple[np.ndarray, Any]:
    from mixedmodels.frame.columns import Columns

    groups = ", ".join(dict.fromkeys(term.group for term in fit.design.terms)) or "none"
    if fit._data is None:
        raise OptionError(
            f"{what}={name!r} is not a grouping factor of the model ({groups}), and this fit does not hold "
            "its data to look for a column; pass the column itself"
        )
    try:
        factor = Columns(fit._data, [name]).factor(name)
    except DataError:
        raise OptionError(
            f"{what}={name!r} is neither a grouping factor of the model ({groups}) nor a column of its data"
        ) from None
    return np.asarray(factor.codes), factor.levels


def _own_rows(fit: LMMFit, codes: np.ndarray, what: str) -> np.ndarray:
    kept = fit.frame.kept
    if codes.shape[0] != fit.design.n and kept is not None:
        codes = codes[kept]
    if (codes < 0).any():
        raise DataError(
            f"{what} has {int((codes < 0).sum())} missing values in the rows of the fit; fill them"
        )
    return codes


def _used(name: str, codes: np.ndarray, levels: Any) -> Grouping:
    labels = np.asarray(levels, dtype=object) if not isinstance(levels, np.ndarray) else levels
    counts = np.bincount(codes, minlength=len(labels))
    used = np.flatnonzero(counts)
    if used.size < len(labels):
        codes = np.searchsorted(used, codes)
    return Grouping(name, codes, tuple(labels[used].tolist()))
