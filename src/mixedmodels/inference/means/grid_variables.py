"""The predictors of the fixed part and their values in a reference grid."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.formula import variables
from mixedmodels.formula.ast import Call, Expression, Operation, Variable
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import take_rows
from mixedmodels.frame.values import FactorColumn

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["GridVariable", "data_columns", "grid_variables", "unknown_variable"]

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


def grid_variables(
    fit: LMMFit, at: Mapping[str, Any] | None, cov_reduce: Any, cov_keep: Any, data: Any
) -> tuple[GridVariable, ...]:
    """The predictors of the fixed part with their values in the grid, in the formula's order."""
    expressions = []
    for encoding in encodings_of(fit):
        used = sorted({v for term in encoding.fixed.terms for v in term} | set(encoding.offsets))
        expressions += [encoding.variables[v].expression for v in used]
    names = list(dict.fromkeys(name for expression in expressions for name in variables(expression)))
    if at is not None and not isinstance(at, Mapping):
        raise OptionError(f"at must be a dict of values by variable, such as {{'x': [0, 5]}}, got {at!r}")
    at = {} if at is None else dict(at)
    for name in at:
        if name not in names:
            raise OptionError(f"at: {unknown_variable(fit, name, names)}")
    columns, rows = data_columns(fit, data)
    discrete = {name for expression in expressions for name in _discrete(expression)}
    return tuple(
        _variable(fit, name, columns, rows, at.get(name), cov_reduce, cov_keep, name in discrete)
        for name in names
    )


def encodings_of(fit: Any) -> tuple[Any, ...]:
    """Encodings of the linear predictors that means are about: one, unless all make up the mean."""
    return getattr(fit, "encodings", None) or (fit.frame.encoding,)


def unknown_variable(fit: LMMFit, name: str, names: Sequence[str]) -> str:
    """Why a name is not a predictor, and which there are."""
    known = f"the predictors are {', '.join(names)}" if names else "the fixed part has no predictors"
    if any(name == term.group or name in term.group.split(":") for term in fit.design.terms):
        return f"{name!r} is a grouping factor of the random effects, not a predictor; {known}"
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{name!r} is not a predictor of the model{hint}; {known}"


def data_columns(fit: LMMFit, data: Any) -> tuple[Columns | None, np.ndarray | None]:
    """The data of the fit, or those given, and the rows that took part (None: all)."""
    source = fit._data if data is None else data
    if source is None:
        return None, None
    encoding = fit.frame.encoding
    needed = [name for e in encodings_of(fit) for v in e.variables for name in variables(v.expression)]
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
        return _factor(name, value, at)
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
            "cov_reduce must be a function of the values, False (all values) or a dict of these by "
            f"variable, got {reduce!r}"
        )
    try:
        points = np.atleast_1d(np.asarray(function(present), dtype=float))
    except (TypeError, ValueError):
        points = np.array([np.nan])
    if points.ndim != 1 or not points.size or not np.isfinite(points).all():
        raise OptionError(f"cov_reduce did not return finite numbers for {name!r}")
    return _covariate(name, points, None)


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


def _factor(name: str, value: FactorColumn, at: Any) -> GridVariable:
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
