"""Visits: the levels of a factor as places of a small matrix."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import Levels, ResidualData
from mixedmodels.residual.structure import CorrelationStructure

__all__ = ["used_visits", "visit_features"]


def used_visits(visits: Levels) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and labels of the levels that occur."""
    used, codes = np.unique(visits.codes, return_inverse=True)
    return codes.astype(np.intp), tuple(visits.labels[u] for u in used.tolist())


def visit_features(
    structure: CorrelationStructure, data: ResidualData, labels: tuple[str, ...]
) -> np.ndarray:
    """Places of the visits of new rows among `labels`, shape (N, 1).

    Raises
    ------
    DataError
        A visit that the fit has not seen.
    """
    visits = data.factor(structure.covariates[0], f"{structure.tag}()")
    table = np.full(len(visits.labels) + 1, -1, dtype=np.intp)
    for place, label in enumerate(visits.labels):
        if label in labels:
            table[place] = labels.index(label)
    out = table[visits.codes]
    (wrong,) = np.nonzero(out < 0)
    if wrong.size:
        raise DataError(
            f"{structure}: row {data.place(wrong[0])} of the new data has a level of "
            f"{structure.covariates[0]} "
            f"that the fit has not seen (known: {', '.join(labels)}), so its correlations are unknown; "
            "remove "
            "the row"
        )
    return out[:, None].astype(np.float64)
