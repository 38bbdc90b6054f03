"""The reference grid: combinations of predictor values at which the fixed part is evaluated.

A variable of the data that is a factor contributes its levels, a numeric one its mean (or what the caller
says). Transforms follow from the raw variable: ``poly(x, 2)`` and ``log(x)`` are evaluated at the mean of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.formula import variables
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import take_rows
from mixedmodels.frame.newdata import encode_new
from mixedmodels.frame.values import FactorColumn
from mixedmodels.inference.arguments import name_list, one_number
from mixedmodels.inference.means.grid_variables import (
    GridVariable,
    data_columns,
    encodings_of,
    grid_variables,
    unknown_variable,
)

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Grid", "full_rows", "make_grid", "mean_offset", "term_variables"]

_LARGEST = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A reference grid, the first variable varying fastest.

    Attributes
    ----------
    variables : tuple of GridVariable
    codes : ndarray of int, shape (r, number of variables)
        Which value each variable has in each row.
    L : ndarray, shape (r, all fixed-effects columns)
        Rows of X before dependent columns were dropped.
    offset : ndarray, shape (r,)
    counts : ndarray, shape (r,)
        Observations (or their weights) of each combination of levels.
    nesting : dict
        Factor to the factors it is nested in.
    """

    variables: tuple[GridVariable, ...]
    codes: np.ndarray
    L: np.ndarray
    offset: np.ndarray
    counts: np.ndarray
    nesting: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(variable.name for variable in self.variables)


def term_variables(fit: LMMFit) -> list[tuple[str, tuple[str, ...]]]:
    """Label and raw variables of each term of the fixed part."""
    return [
        (
            label,
            tuple(dict.fromkeys(n for v in term for n in variables(encoding.variables[v].expression))),
        )
        for encoding in encodings_of(fit)
        for label, term in zip(encoding.fixed.labels, encoding.fixed.terms, strict=True)
    ]


def make_grid(
    fit: LMMFit,
    at: Mapping[str, Any] | None = None,
    cov_reduce: Any = None,
    cov_keep: Any = 2,
    offset: float | None = None,
    nesting: Mapping[str, Any] | bool | None = None,
    data: Any = None,
    rows: Callable[[LMMFit, Mapping[str, Any]], tuple[np.ndarray, np.ndarray | None]] | None = None,
) -> Grid:
    """The reference grid of a fit; for the arguments see `mixedmodels.inference.means.emmeans.emmeans`.

    `rows` turns predictor values into rows of X and offsets; `full_rows` unless slopes are asked for.
    """
    if fit.formula is None:
        raise OptionError("marginal means need a formula; this model was made from matrices")
    predictors = grid_variables(fit, at, cov_reduce, cov_keep, data)
    sizes = [variable.size for variable in predictors]
    r = math.prod(sizes)
    if r > _LARGEST:
        listed = ", ".join(f"{v.name}: {v.size}" for v in predictors if v.size > 1)
        raise OptionError(
            f"the reference grid has {r} rows (levels: {listed}); fix some variables by at={{...}}"
        )
    codes = np.empty((r, len(predictors)), dtype=np.intp)
    repeat = 1
    for j, size in enumerate(sizes):
        codes[:, j] = (np.arange(r) // repeat) % size
        repeat *= size
    values: dict[str, Any] = {}
    for j, variable in enumerate(predictors):
        values[variable.name] = take_rows(variable.values, codes[:, j])
    if not values:
        values[""] = np.zeros(1)
    L, grid_offset = (rows or full_rows)(fit, values)
    total = np.zeros(r)
    if offset is not None:
        total += one_number(offset, "offset")
    elif grid_offset is not None:
        total += grid_offset
    if offset is None and rows is None:
        total += mean_offset(fit)
    counts = _cell_counts(fit, predictors, codes)
    return Grid(
        predictors, codes, L, total, counts, _nesting(fit, predictors, nesting, {v.name for v in predictors})
    )


def full_rows(fit: LMMFit, values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of X with all columns of the formula, and the formula's offsets."""
    frame = fit.frame
    encoding = frame.encoding._replace(kept=None, null=None, offset_column=None)
    design = encode_new(encoding, values, re_form="none", functions=frame.functions)
    if not np.isfinite(design.X).all():
        row = int(np.flatnonzero(~np.isfinite(design.X).all(axis=1))[0])
        where = ", ".join(
            f"{name} = {level_labels([v.levels[v.codes[row]]])[0] if isinstance(v, FactorColumn) else v[row]}"
            for name, v in values.items()
        )
        raise DataError(f"the fixed part has no value at {where}; choose other values by at={{...}}")
    return design.X, design.offset


def mean_offset(fit: LMMFit) -> float:
    """Mean of an offset given beside the formula; those in the formula follow their variables."""
    encoding, design = fit.frame.encoding, fit.design
    if encoding.offset_column is None or design.offset is None:
        return 0.0
    if not encoding.offsets:
        return float(np.mean(design.offset))
    if not encoding.offset_column:
        raise OptionError(
            "the model has an offset in the formula and another given as an array; say offset=... (a number)"
        )
    columns, rows = data_columns(fit, None)
    if columns is None:
        raise OptionError("this fit does not hold its data; pass data=, or offset= (a number)")
    return float(np.mean(take_rows(columns[encoding.offset_column], rows)))  # type: ignore[call-overload,arg-type]


# ---------------------------------------------------------------------- frequencies and nesting


def _cell_counts(fit: LMMFit, predictors: Sequence[GridVariable], codes: np.ndarray) -> np.ndarray:
    """Observations, or the sum of their weights, with the factor levels of each row of the grid."""
    counted = [j for j, variable in enumerate(predictors) if variable.is_factor]
    lengths = {predictors[j].codes.shape[0] for j in counted}  # type: ignore[union-attr]
    if not counted or len(lengths) != 1:
        return np.ones(codes.shape[0])
    n = lengths.pop()
    sizes = [predictors[j].size for j in counted]
    place = np.zeros(n, dtype=np.intp)
    valid = np.ones(n, dtype=bool)
    cell = np.zeros(codes.shape[0], dtype=np.intp)
    stride = 1
    for j, size in zip(counted, sizes, strict=True):
        observed = predictors[j].codes
        assert observed is not None
        valid &= observed >= 0
        place += stride * np.maximum(observed, 0)
        cell += stride * codes[:, j]
        stride *= size
    weights = fit.design.weights if fit.design.weights is not None and n == fit.nobs else np.ones(n)
    return np.bincount(place[valid], weights=weights[valid], minlength=stride)[cell]


def _nesting(
    fit: LMMFit, predictors: Sequence[GridVariable], given: Mapping[str, Any] | bool | None, names: set[str]
) -> dict[str, tuple[str, ...]]:
    """Factors nested in others: as given, or each level of A with one level of B and no term A without B."""
    if given is False:
        return {}
    if isinstance(given, Mapping):
        out = {}
        for child, parents in given.items():
            listed = tuple(name_list(parents, f"nesting of {child!r}"))
            for name in (child, *listed):
                if name not in names:
                    raise OptionError(f"nesting: {unknown_variable(fit, name, sorted(names))}")
            out[child] = listed
        return out
    if given is not None and given is not True:
        raise OptionError(f"nesting must be a dict such as {{'A': 'B'}} or False, got {given!r}")
    terms = [set(raw) for _, raw in term_variables(fit)]
    factors = [v for v in predictors if v.codes is not None and v.size > 1]
    found: dict[str, tuple[str, ...]] = {}
    for inner in factors:
        outer = tuple(
            other.name
            for other in factors
            if other is not inner
            and all(other.name in term for term in terms if inner.name in term)
            and _one_to_one(inner, other)
        )
        if outer:
            found[inner.name] = outer
    return found


def _one_to_one(child: GridVariable, parent: GridVariable) -> bool:
    """Whether each level of the child occurs with one level of the parent, and not the other way round."""
    assert child.codes is not None and parent.codes is not None
    if child.codes.shape != parent.codes.shape:
        return False
    valid = (child.codes >= 0) & (parent.codes >= 0)
    pairs = np.unique(child.codes[valid] * parent.size + parent.codes[valid])
    return pairs.size == child.size and child.size > parent.size
