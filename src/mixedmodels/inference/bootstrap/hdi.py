"""Highest-density (shortest) intervals of draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.fit.wald import check_level, percent
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from typing import Any

    from mixedmodels.inference.bootstrap.result import Bootstrap

__all__ = ["hdi_table", "shortest_interval"]


def shortest_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The shortest interval that holds ``ceil(level N)`` of N draws; NaN draws do not count.

    Parameters
    ----------
    draws : ndarray, shape (N,)
    level : float

    Returns
    -------
    tuple of float
        NaN where there are fewer than two draws.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.inference.bootstrap.hdi import shortest_interval
    >>> low, high = shortest_interval(np.array([0.0, 1.0, 1.1, 1.2, 5.0]), 0.6)
    >>> float(low), float(high)
    (1.0, 1.2)
    """
    x = np.sort(draws[np.isfinite(draws)])
    if x.size < 2:
        return math.nan, math.nan
    inside = min(max(math.ceil(check_level(level) * x.size - 1e-9), 2), x.size)
    lengths = x[inside - 1 :] - x[: x.size - inside + 1]
    first = int(np.argmin(lengths))
    return float(x[first]), float(x[first + inside - 1])


def hdi_table(boot: Bootstrap, level: float = 0.95, parameters: Any = None) -> ResultTable:
    """Shortest intervals of a bootstrap; see `Bootstrap.hdi`."""
    level = check_level(level)
    positions = boot.positions(parameters)
    limits = [shortest_interval(boot.draws[:, i], level) for i in positions]
    columns: dict[str, Any] = {
        "term": [boot.parameters[i].name for i in positions],
        "group": [boot.parameters[i].group for i in positions],
        "estimate": boot.estimates[positions],
        "conf_low": [low for low, _ in limits],
        "conf_high": [high for _, high in limits],
    }
    return result_table(
        f"{percent(level)} highest-density intervals ({boot.kind} bootstrap)",
        columns,
        boot.notes,
        boot._native,
    )
