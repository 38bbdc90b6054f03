"""Arguments of questions: one number, yes or no, or names of variables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError

__all__ = ["name_list", "one_number", "yes_or_no"]


def name_list(value: Any, what: str) -> list[str]:
    """Names given as one text or a sequence of texts; None gives none.

    Examples
    --------
    >>> name_list("A", "by"), name_list(["A", "B"], "by"), name_list(None, "by")
    (['A'], ['A', 'B'], [])
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    try:
        names = list(value)
    except TypeError:
        names = [None]
    if not all(isinstance(name, str) for name in names):
        raise OptionError(f"{what} must be the name of a variable or a list of names, got {value!r}")
    return names


def one_number(value: Any, what: str) -> float:
    """A finite number.

    Examples
    --------
    >>> one_number(3, "null")
    3.0
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise OptionError(f"{what} must be a finite number, got {value!r}")
    return number


def yes_or_no(value: Any, what: str) -> bool:
    """True or False; anything else that merely counts as one of them is refused.

    Examples
    --------
    >>> yes_or_no(True, "refit")
    True
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise OptionError(f"{what} must be True or False, got {value!r}")
