"""Checks of responses that families share: one error that says how many rows are wrong and which is first."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError

__all__ = ["require", "require_counts", "require_positive", "require_trials"]


def require(family: str, y: np.ndarray, good: np.ndarray, what: str, remedy: str = "") -> None:
    """Raise unless all rows are good.

    Parameters
    ----------
    family : str
        Its name, for the message.
    y : ndarray, shape (n,)
    good : ndarray of bool, shape (n,)
    what : str
        What the family needs, for instance ``"whole numbers of at least 0"``.
    remedy : str
        What to do instead.

    Raises
    ------
    DataError
    """
    good = np.asarray(good)
    if not good.all():
        bad = np.flatnonzero(~good)
        first = int(bad[0])
        rows = "1 row is" if bad.size == 1 else f"{bad.size} rows are"
        raise DataError(
            f"family {family!r} needs responses that are {what}; {rows} not, the first is row {first + 1} "
            f"with {y[first]:g}" + (f"; {remedy}" if remedy else "")
        )


def require_counts(family: str, y: np.ndarray, least: int = 0, remedy: str = "") -> None:
    """Whole numbers of at least `least`.

    Raises
    ------
    DataError
    """
    good = np.isfinite(y) & (y >= least) & (y == np.floor(y))
    require(family, y, good, f"whole numbers of at least {least}", remedy)


def require_positive(family: str, y: np.ndarray) -> None:
    """Positive numbers.

    Raises
    ------
    DataError
    """
    remedy = "for zeros use family 'tweedie' or a hurdle model (zero_inflation=), for any number 'gaussian'"
    require(family, y, np.isfinite(y) & (y > 0.0), "positive", remedy)


def require_trials(family: str, y: np.ndarray, trials: np.ndarray | None) -> None:
    """Successes between 0 and the number of trials, all whole.

    Raises
    ------
    DataError
    """
    m = np.ones_like(y) if trials is None else trials
    good = (y >= 0) & (y <= m) & (y == np.floor(y)) & (m == np.floor(m))
    require(family, y, good, "whole numbers of successes between 0 and the number of trials")
