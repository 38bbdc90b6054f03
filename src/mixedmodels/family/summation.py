"""Distribution functions of counts by adding probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["counted_cdf"]


def counted_cdf(
    family: Any, data: Any, eta: Sequence[np.ndarray], least: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """``P(Y < y)`` and ``P(Y <= y)`` of a count by summation from `least` on.

    All rows are summed together, the values up to y of each: sum(y + 1) densities, in blocks of rows.
    """
    n = data.n
    columns = [np.broadcast_to(np.asarray(part, dtype=float), (n,)) for part in eta]
    sizes = np.maximum(data.y - least + 1, 0).astype(np.int64)
    below, upto = np.zeros(n), np.zeros(n)
    ends = np.cumsum(sizes)
    start = 0
    while start < n:
        base = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, base + 2_000_000, side="right")))
        rows = np.repeat(np.arange(start, stop), sizes[start:stop])
        first = np.repeat(ends[start:stop] - sizes[start:stop] - base, sizes[start:stop])
        values = least + (np.arange(rows.size) - first).astype(float)
        part = type(data)(values, None if data.trials is None else data.trials[rows])
        with np.errstate(all="ignore"):
            p = np.exp(family.log_density(part, [column[rows] for column in columns]))
        block = stop - start
        upto[start:stop] = np.bincount(rows - start, p, minlength=block)
        below[start:stop] = np.bincount(rows - start, p * (values < data.y[rows]), minlength=block)
        start = stop
    return np.minimum(below, 1.0), np.minimum(upto, 1.0)
