"""Ordered categories: thresholds of a fit, probabilities and labels of categories."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family.cumulative import Cumulative

if TYPE_CHECKING:
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm_estimates import GLMMEstimates

__all__ = ["CATEGORY_TYPES", "category_values", "labels_of", "thresholds_of", "with_thresholds"]

CATEGORY_TYPES = ("prob", "cumprob", "class")


def with_thresholds(family: Family, thresholds: Any) -> Family:
    """The family with the kind of thresholds asked for; None keeps its own.

    Raises
    ------
    OptionError
        Thresholds for a family without, an unknown kind.
    """
    if thresholds is None:
        return family
    if not isinstance(family, Cumulative):
        raise OptionError(
            f'thresholds= belongs to family="cumulative", not to {family.name}; leave thresholds= out'
        )
    return type(family)(family.link, thresholds)


def thresholds_of(fit: GLMMEstimates) -> dict[str, float]:
    """Thresholds by the labels of the categories they separate: ``{"low|mid": -1.2, ...}``."""
    family = _cumulative(fit.family, "thresholds")
    levels = fit.generalised.data.levels
    assert family.alpha is not None
    names = [f"{a}|{b}" for a, b in pairwise(levels)]
    return dict(zip(names, family.alpha.tolist(), strict=True))


def category_values(family: Family, eta: np.ndarray, type: str) -> np.ndarray:
    """Probabilities of categories, shape (n, K), or labels of the likeliest one, shape (n,).

    Parameters
    ----------
    family : Family
        Of a fit (`Cumulative.at`).
    eta : ndarray, shape (n,)
        Conditional predictors.
    type : {"prob", "cumprob", "class"}
    """
    ordinal = _cumulative(family, f"type={type!r}")
    if type == "cumprob":
        return ordinal.cumulative(eta)
    p = ordinal.probabilities(eta)
    if type == "prob":
        return p
    known = ~np.isnan(eta)
    numbers = np.full(len(eta), np.nan)
    numbers[known] = 1.0 + p[known].argmax(axis=1)
    return labels_of(numbers, ordinal.levels)


def labels_of(numbers: np.ndarray, levels: tuple[str, ...], first: int = 1) -> np.ndarray:
    """Labels of numbered categories, an array of objects of the same shape; None for NaN.

    Examples
    --------
    >>> labels_of(np.array([1.0, 3.0, np.nan]), ("low", "mid", "high"))
    array(['low', 'high', None], dtype=object)
    """
    table = np.array([*levels, None], dtype=object)
    codes = np.where(np.isnan(numbers), len(levels), np.nan_to_num(numbers) - first)
    return table[codes.astype(np.intp)]


def _cumulative(family: Family, what: str) -> Cumulative:
    if not isinstance(family, Cumulative):
        raise OptionError(f"{what} is for models of ordered categories (family='cumulative')")
    return family
