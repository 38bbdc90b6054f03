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
from mixedmodels.formula.ast import Call, Expression, Operation, Variable
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import take_rows
from mixedmodels.frame.newdata import encode_new
from mixedmodels.frame.values import FactorColumn

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Grid", "GridVariable", "full_rows", "grid_variables", "make_grid", "term_variables"]

_LARGEST = 200_000
_DISCRETE_CALLS = frozenset(("factor", "as.factor", "ordered", "as.ordered", "C", "interaction"))


@dataclass(frozen=True, slots=True, eq=False)
class GridVariable:
    """One predictor of the fixed part and its values in the grid.

    Attributes
    ----------
    name : str
    is_factor : bool
        Whether the values are levels: of a factor, or all values of a variable with few.
    labels : tuple of str
        Texts of the values.
    values : FactorColumn or ndarray
        The values, one entry each.
    codes : ndarray of int, shape (rows of the fit,), or None
        Value of each row of the data (-1: none of them); None for a covariate that was reduced.
    """

    name: str
    is_factor: bool
    labels: tuple[str, ...]
    values: Any
    codes: np.ndarray | None

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.labels)

    def column(self, codes: np.ndarray) -> np.ndarray:
        """The values of these codes for a table: numbers for covariates, texts for levels."""
        if isinstance(self.values, np.ndarray):
            return self.values[codes]
        out = np.empty(codes.shape[0], dtype=object)
        out[:] = [self.labels[code] for code in codes]
        return out


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
    encoding = fit.frame.encoding
    return [
        (
            label,
            tuple(dict.fromkeys(n for v in term for n in variables(encoding.variables[v].expression))),
        )
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
    """The reference grid of a fit; for the arguments see `mixedmodels.inference.emmeans.emmeans`.

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
        total += float(offset)
    elif grid_offset is not None:
        total += grid_offset
    if offset is None and rows is None:
        total += _mean_offset(fit)
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


def _mean_offset(fit: LMMFit) -> float:
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
    columns, rows = _columns(fit, None)
    if columns is None:
        raise OptionError("this fit does not hold its data; pass data=, or offset= (a number)")
    return float(np.mean(take_rows(columns[encoding.offset_column], rows)))  # type: ignore[call-overload,arg-type]


# ---------------------------------------------------------------------- variables and their values


def grid_variables(
    fit: LMMFit, at: Mapping[str, Any] | None, cov_reduce: Any, cov_keep: Any, data: Any
) -> tuple[GridVariable, ...]:
    """The predictors of the fixed part with their values in the grid, in the formula's order."""
    encoding = fit.frame.encoding
    used = sorted({v for term in encoding.fixed.terms for v in term} | set(encoding.offsets))
    expressions = [encoding.variables[v].expression for v in used]
    names = list(dict.fromkeys(name for expression in expressions for name in variables(expression)))
    at = {} if at is None else dict(at)
    for name in at:
        if name not in names:
            raise OptionError(f"at: {unknown_variable(fit, name, names)}")
    columns, rows = _columns(fit, data)
    discrete = {name for expression in expressions for name in _discrete(expression)}
    return tuple(
        _variable(fit, name, columns, rows, at.get(name), cov_reduce, cov_keep, name in discrete)
        for name in names
    )


def unknown_variable(fit: LMMFit, name: str, names: Sequence[str]) -> str:
    """Why a name is not a predictor, and which there are."""
    import difflib

    known = f"the predictors are {', '.join(names)}" if names else "the fixed part has no predictors"
    if any(name == term.group or name in term.group.split(":") for term in fit.design.terms):
        return f"{name!r} is a grouping factor of the random effects, not a predictor; {known}"
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{name!r} is not a predictor of the model{hint}; {known}"


def _columns(fit: LMMFit, data: Any) -> tuple[Columns | None, np.ndarray | None]:
    """The data of the fit, or those given, and the rows that took part (None: all)."""
    source = fit._data if data is None else data
    if source is None:
        return None, None
    encoding = fit.frame.encoding
    needed = [name for v in encoding.variables for name in variables(v.expression)]
    if encoding.offset_column:
        needed.append(encoding.offset_column)
    columns = source if type(source) is Columns else Columns(source, needed)
    return columns, fit.frame.kept if columns.n_rows == fit.n_rows else None


def _discrete(expression: Expression) -> set[str]:
    """Variables that the expression turns into a factor, level by level."""
    if isinstance(expression, Call) and expression.function in _DISCRETE_CALLS:
        return {argument.name for argument in expression.args[:2] if isinstance(argument, Variable)}
    if isinstance(expression, (Call, Operation)):
        return {name for argument in expression.args for name in _discrete(argument)}
    return set()


def _variable(
    fit: LMMFit,
    name: str,
    columns: Columns | None,
    rows: np.ndarray | None,
    at: Any,
    cov_reduce: Any,
    cov_keep: Any,
    discrete: bool,
) -> GridVariable:
    value = _from_design(fit, name) if columns is None else columns[name]
    if value is None:
        if at is not None:
            return _covariate(name, np.atleast_1d(np.asarray(at, dtype=float)), None)
        raise OptionError(
            f"this fit does not hold its data (it was loaded), and the mean of {name!r} cannot be read from "
            "its columns: pass data= or at={...}"
        )
    if rows is not None and columns is not None:
        value = take_rows(value, rows)
    if isinstance(value, FactorColumn):
        return _factor(fit, name, value, at)
    assert isinstance(value, np.ndarray)
    if at is not None:
        try:
            points = np.atleast_1d(np.asarray(at, dtype=float))
        except (TypeError, ValueError):
            raise OptionError(f"at: {name!r} is numeric; {at!r} is not a list of numbers") from None
        if points.ndim != 1 or points.size == 0 or not np.isfinite(points).all():
            raise OptionError(f"at: {name!r} needs finite numbers, got {at!r}")
        return _covariate(name, points, value)
    reduce = cov_reduce.get(name) if isinstance(cov_reduce, Mapping) else cov_reduce
    present = value[~np.isnan(value)]
    if isinstance(cov_keep, (int, np.integer)) and not isinstance(cov_keep, bool):
        few = reduce is None and _has_few(present, int(cov_keep))
    else:
        few = cov_keep is not None and name in cov_keep
    if discrete or few or reduce is False or reduce == "values":
        return _covariate(name, np.unique(present), value)
    function = np.mean if reduce is None or reduce is True else reduce
    if not callable(function):
        raise OptionError(
            f"cov_reduce must be a function of the values, False (all values) or a dict of these by variable, "
            f"got {reduce!r}"
        )
    return _covariate(name, np.atleast_1d(np.asarray(function(present), dtype=float)), None)


def _has_few(values: np.ndarray, limit: int) -> bool:
    """Whether there are at most `limit` different values."""
    left = values
    for _ in range(limit):
        if left.size == 0:
            return True
        left = left[left != left[0]]
    return left.size == 0


def _covariate(name: str, points: np.ndarray, data: np.ndarray | None) -> GridVariable:
    codes = None
    if data is not None:
        order = np.argsort(points, kind="stable")
        place = np.clip(np.searchsorted(points[order], data), 0, points.size - 1)
        codes = np.where(points[order][place] == data, order[place], -1)
        if (codes < 0).any():
            codes = None  # values that are not the data's own: no frequencies
    labels = tuple(f"{point:.7g}" for point in points.tolist())
    return GridVariable(name, codes is not None, labels, points, codes)


def _factor(fit: LMMFit, name: str, value: FactorColumn, at: Any) -> GridVariable:
    used = np.unique(value.codes[value.codes >= 0])
    chosen = used
    labels = level_labels([value.levels[code] for code in used.tolist()])
    if at is not None:
        wanted = level_labels([at] if isinstance(at, (str, bytes)) or np.ndim(at) == 0 else list(at))
        for label in wanted:
            if label not in labels:
                raise OptionError(
                    f"at: {label!r} is not a level of {name!r}; the levels are {', '.join(labels)}"
                )
        chosen = np.array([used[labels.index(label)] for label in wanted], dtype=used.dtype)
        labels = wanted
    table = np.full(len(value.levels) + 1, -1, dtype=np.intp)
    table[chosen] = np.arange(chosen.size)
    column = FactorColumn(chosen.astype(np.int32), value.levels, value.ordered)
    return GridVariable(name, True, labels, column, table[value.codes])


def _from_design(fit: LMMFit, name: str) -> Any:
    """Values of a variable without the data: from the main effect of a plain column, if there is one."""
    encoding, X = fit.frame.encoding, fit.design.X
    for variable in encoding.variables:
        if not isinstance(variable.expression, Variable) or variable.label != name:
            continue
        columns = encoding.assign.get(name)
        if variable.kind == "numeric" and columns is not None and columns.stop - columns.start == 1:
            return np.array(X[:, columns.start])
        if variable.kind == "factor":
            m = len(variable.levels)
            if columns is not None and variable.contrast is None and columns.stop - columns.start == m - 1:
                dummies = X[:, columns] > 0.5
                codes = np.where(dummies.any(axis=1), dummies.argmax(axis=1) + 1, 0)
                return FactorColumn(codes.astype(np.int32), variable.levels, variable.ordered)
            return FactorColumn(np.arange(m, dtype=np.int32), variable.levels, variable.ordered)
    return None


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
            listed = (parents,) if isinstance(parents, str) else tuple(parents)
            for name in (child, *listed):
                if name not in names:
                    raise OptionError(f"nesting: {unknown_variable(fit, name, sorted(names))}")
            out[child] = listed
        return out
    terms = [set(raw) for _, raw in term_variables(fit)]
    factors = [v for v in predictors if v.codes is not None and v.size > 1]
    out = {}
    for child in factors:
        parents = [
            parent.name
            for parent in factors
            if parent is not child
            and all(parent.name in term for term in terms if child.name in term)
            and _one_to_one(child, parent)
        ]
        if parents:
            out[child.name] = tuple(parents)
    return out


def _one_to_one(child: GridVariable, parent: GridVariable) -> bool:
    """Whether each level of the child occurs with one level of the parent, and not the other way round."""
    assert child.codes is not None and parent.codes is not None
    if child.codes.shape != parent.codes.shape:
        return False
    valid = (child.codes >= 0) & (parent.codes >= 0)
    pairs = np.unique(child.codes[valid] * parent.size + parent.codes[valid])
    return pairs.size == child.size and child.size > parent.size
