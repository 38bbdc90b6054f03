"""Visits: the levels of a factor as places of a small matrix."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import Levels, ResidualData
from mixedmodels.residual.structure import BoundCorrelation, CorrelationStructure
from mixedmodels.residual.times import check_distinct

__all__ = ["VisitCorrelation", "used_visits", "visit_features"]


class VisitCorrelation(CorrelationStructure):
    """Base of correlations between visits: the levels of a factor, each at most once in a group.

    Parameters
    ----------
    visit : str
        A factor (or numbers taken as one).
    group : str or None
    by : str, optional
        A factor whose levels have correlations of their own.
    **fixed : float
        Held correlations by natural name.
    """

    kind = "factor"

    def __init__(
        self, visit: str, group: str | None = None, *, by: str | None = None, **fixed: float
    ) -> None:
        super().__init__((visit,), group, by, fixed)

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The correlation of the rows of `data`."""
        visits = data.factor(self.covariates[0], f"{self.tag}()")
        check_distinct(codes, visits.codes, labels, self, data, visits.labels)
        return self.bind_visits(codes, visits)

    def bind_visits(self, codes: np.ndarray, visits: Levels) -> BoundCorrelation:
        """The correlation of rows in groups `codes` at `visits`."""
        raise NotImplementedError


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
            f"{structure.covariates[0]} that the fit has not seen (known: {', '.join(labels)}), so its "
            "correlations are unknown; remove the row, or fit numeric times by ar1, car1 or a spatial "
            "structure, which are known at any time"
        )
    return out[:, None].astype(np.float64)
