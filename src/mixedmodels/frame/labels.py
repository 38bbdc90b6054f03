"""The text of a factor's levels, the same wherever a level is shown, named or compared."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import numpy as np

from mixedmodels.formula.render import format_number

__all__ = ["level_label", "level_labels"]


def level_label(level: Any) -> str:
    """Text of one level as R would print it.

    Text stays as it is; integers are written out; other numbers take up to 15 digits and the shorter of fixed
    and scientific notation; dates are ISO text.

    Examples
    --------
    >>> [level_label(level) for level in ("a", 308, 308.0, 0.1, 1e5, 100000, True)]
    ['a', '308', '308', '0.1', '1e+05', '100000', 'TRUE']
    """
    if isinstance(level, str):
        return str(level)
    if isinstance(level, (bool, np.bool_)):
        return "TRUE" if level else "FALSE"
    if isinstance(level, np.timedelta64):  # counts as an integer for NumPy
        return str(level)
    if isinstance(level, (int, np.integer)):
        return str(int(level))
    if isinstance(level, (float, np.floating)):
        value = float(level)
        if value.is_integer() and abs(value) < 1e5:
            return str(int(value))
        return format_number(float(f"{value:.15g}"))
    if isinstance(level, np.datetime64):
        return _date_label(level)
    if isinstance(level, datetime.datetime) and level.tzinfo is None:
        return _date_label(np.datetime64(level))
    return str(level)


def level_labels(levels: Iterable[Any]) -> tuple[str, ...]:
    """Texts of all levels."""
    if isinstance(levels, np.ndarray) and levels.dtype.kind in "iu":
        return tuple(map(str, levels.tolist()))
    values = tuple(levels.tolist() if isinstance(levels, np.ndarray) and levels.dtype == object else levels)
    return values if set(map(type, values)) == {str} else tuple(map(level_label, values))


def _date_label(level: np.datetime64) -> str:
    """ISO text without trailing zeros, so that the unit of storage does not show."""
    date, _, time = str(level).partition("T")
    if "." in time:
        time = time.rstrip("0").rstrip(".")
    time = (time + "00:00:00"[len(time) :]) if len(time) < 8 else time
    return date if time == "00:00:00" else f"{date}T{time[:5] if time[5:] == ':00' else time}"
