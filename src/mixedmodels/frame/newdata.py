"""The columns of a fitted model for new data: predictions need no response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, NewLevelError, OptionError
from mixedmodels.formula.ast import Variable
from mixedmodels.frame.columns import Columns, numeric_column
from mixedmodels.frame.encode import fill_columns
from mixedmodels.frame.factors import (
    InteractionLevels,
    code_column,
    coded_in,
    joined,
    match_interaction,
    match_levels,
)
from mixedmodels.frame.missing import check_finite, missing_rows, take_rows
from mixedmodels.frame.rank import estimable
from mixedmodels.frame.state import Encoding, GroupState, VariableState, find_bars
from mixedmodels.frame.transforms.positions import coordinates_of
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["NewDesign", "encode_new"]


@dataclass(frozen=True, slots=True, eq=False)
class NewDesign:
    """Columns of a model for new data.

    Attributes
    ----------
    X : ndarray of float64, shape (n, p)
        Fixed-effects columns; NaN in rows with missing values.
    offset : ndarray of float64, shape (n,), or None
    terms : tuple of (codes, Z) or None
        For each random term of the design the level of each row (int32; -1 for a new or missing level; None
        if only the columns were asked for) and the values of its columns (None: ones). None for a term that
        was not asked for.
    estimable : ndarray of bool, shape (n,), or None
        False where the prediction depends on coefficients the data could not estimate; None: all can be.
    rows : ndarray of bool, shape (n,)
        False for rows that cannot be predicted (missing values; new levels if ``new_levels="missing"``).
    positions : dict of int to (rows, points), optional
        By random term the rows at positions that the fit has not seen, and their coordinates, shape
        (rows, dimensions). Their values of the term's columns stand for nothing.
    leftover : dict of int to ndarray, shape (n,), optional
        By random term the variance, relative to that of the term's structure, that the effects at the
        positions of the fit leave of the effect at the position of a row (0 at a position of the fit).
    """

    X: np.ndarray
    offset: np.ndarray | None
    terms: tuple[tuple[Any, np.ndarray | None] | None, ...]
    estimable: np.ndarray | None
    rows: np.ndarray
    positions: dict[int, tuple[np.ndarray, np.ndarray]] | None = None
    leftover: dict[int, np.ndarray] | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.X.shape[0]


def encode_new(
    encoding: Encoding,
    data: Any,
    *,
    re_form: str | Sequence[str] = "all",
    new_levels: str = "error",
    offset: Any = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    rows: np.ndarray | None = None,
    columns_of: Sequence[str] = (),
    new_positions: Sequence[int] = (),
) -> NewDesign:
    """Columns of the model for new data.

    Parameters
    ----------
    encoding : Encoding
    data : data frame or mapping
        Needs the columns of the fixed part and of the random terms asked for.
    re_form : {"all", "none"} or sequence of str
        Random terms to include, by text or grouping factor.
    new_levels : {"error", "population", "missing", "append"}
        What to do with a level of a grouping factor that the fit has not seen, or a missing one: refuse, code
        it -1 (its random effect is 0), mark the row as not predictable, or number new levels after those of
        the fit (each row with a missing one is a level of its own).
    offset : array of shape (n,) or str, optional
        Needed if the model was fitted with an array as offset.
    functions : mapping, optional
        The user's own transforms.
    rows : ndarray of intp, optional
        Use only these rows of the data.
    columns_of : sequence of str
        Random terms, by text, of which only the values of the columns are wanted: their grouping factors need
        not be in the data.
    new_positions : sequence of int
        Random terms, by place, that may be asked for at positions which the fit has not seen; see
        `NewDesign.positions`.

    Returns
    -------
    NewDesign

    Raises
    ------
    NewLevelError
        A new level of a factor in the fixed part, or of a grouping factor under ``new_levels="error"``.
    DataError
        A column is missing, of another kind than in the fit, or infinite.
    """
    if new_levels not in ("error", "population", "missing", "append"):
        raise OptionError(f"new_levels must be 'error', 'population' or 'missing', not {new_levels!r}")
    wanted = _wanted_bars(encoding, re_form)
    columns = data if type(data) is Columns else Columns(data, _needed(encoding, wanted, offset))
    n = columns.n_rows if rows is None else rows.shape[0]

    only = _wanted_bars(encoding, columns_of)
    used = {v for term in encoding.fixed.terms for v in term} | set(encoding.offsets)
    for b in {*wanted, *only}:
        used |= set(encoding.bars[b].used)
    valid = np.ones(n, dtype=bool)
    values: list[Value | None] = [None] * len(encoding.variables)
    unseen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    open_ = _open_variables(encoding, {*wanted, *only}, new_positions)
    for i in sorted(used):
        try:
            value = _new_value(encoding.variables[i], columns, functions, i in open_)
            if rows is not None:
                value = take_rows(value, rows)
            if i in open_:
                value, unseen[i] = _new_positions(encoding.variables[i], value)
            values[i] = _match(encoding.variables[i], value)
        except NewLevelError as error:
            raise NewLevelError(f"{error}{_random_remedy(encoding, i, wanted)}") from None
        check_finite(values[i], f"column {encoding.variables[i].label!r} of the new data")  # type: ignore[arg-type]
        valid &= ~missing_rows(values[i])  # type: ignore[arg-type]
    X = np.empty((n, len(encoding.fixed.names)))
    fill_columns(encoding.fixed, encoding.variables, values, X)  # type: ignore[arg-type]
    X[~valid] = np.nan
    can_estimate = None
    if encoding.kept is not None:
        assert encoding.null is not None
        can_estimate = estimable(X, encoding.null) | ~valid
        X = X[:, encoding.kept]

    codes: dict[int, np.ndarray] = {}
    Zs: dict[Any, np.ndarray] = {}
    terms: list[tuple[Any, np.ndarray | None] | None] = [None] * len(encoding.bars)
    for b in sorted({*wanted, *only}):
        g = encoding.bar_groups[b]
        if b in wanted and g not in codes:
            codes[g] = _group_codes(encoding.groups[g], columns, functions, rows, valid, new_levels)
        part = encoding.bars[b]
        own = codes[g] if b in wanted else None
        if own is not None and part.pieces:
            own = np.ascontiguousarray(own[:, part.owners])
        if not part.used:
            terms[b] = (own, None)
            continue
        key = part.key
        if key not in Zs:
            Zs[key] = np.empty((n, len(part.names)))
            fill_columns(part, encoding.variables, values, Zs[key])  # type: ignore[arg-type]
        terms[b] = (own, Zs[key])
    if new_levels == "missing":
        for code in codes.values():
            valid &= code >= 0 if code.ndim == 1 else (code >= 0).all(axis=1)
    for Z in Zs.values():
        Z[~valid] = np.nan
    return NewDesign(
        X,
        _new_offset(encoding, values, columns, offset, rows),
        tuple(terms),
        can_estimate,
        valid,
        {b: unseen[i] for b in sorted({*wanted, *only}) for i in encoding.bars[b].used if i in unseen}
        or None,
    )


def _random_remedy(encoding: Encoding, variable: int, wanted: Sequence[int]) -> str:
    """What to do about a new level of a factor that only random terms use."""
    if any(variable in term for term in encoding.fixed.terms):
        return ""
    terms = [encoding.bar_labels[b] for b in wanted if variable in encoding.bars[b].used]
    if not terms:
        return ""
    return (
        f". It is an effect of {' and '.join(terms)}, whose structure does not say what other levels have in "
        "common with those of the fit: leave these rows or the term out (re_form), refit with rows at that "
        "level, or take numeric positions with ar1, ou or a spatial structure"
    )


def _open_variables(encoding: Encoding, bars: set[int], new_positions: Sequence[int]) -> set[int]:
    """Positions of numbers that only the terms of `new_positions` use."""
    out: set[int] = set()
    others = {v for term in encoding.fixed.terms for v in term} | set(encoding.offsets)
    for b in bars:
        (out if b in new_positions else others).update(encoding.bars[b].used)
    return {i for i in out - others if any(call.get("numeric") for call in _calls(encoding.variables[i]))}


def _calls(variable: VariableState) -> list[dict[str, Any]]:
    """What the calls of an expression learnt."""
    state = variable.state
    return [call for call in state["calls"].values() if call] if isinstance(state, dict) else []


def _new_positions(variable: VariableState, value: Any) -> tuple[FactorColumn, tuple[np.ndarray, np.ndarray]]:
    """The column with a position of the fit in place of new ones; the rows of those and their coordinates."""
    k = len(variable.levels)
    codes = np.array(value.codes)
    rows = np.flatnonzero(codes >= k)
    points = coordinates_of(value.levels, variable.label)[codes[rows]]
    codes[rows] = 0
    return FactorColumn(codes, variable.levels), (rows, points)


def _wanted_bars(encoding: Encoding, re_form: str | Sequence[str]) -> tuple[int, ...]:
    if re_form == "all":
        return tuple(range(len(encoding.bars)))
    if re_form == "none":
        return ()
    names = [re_form] if isinstance(re_form, str) else list(re_form)
    groups = [encoding.groups[g].name for g in encoding.bar_groups]
    return find_bars(names, encoding.bar_labels, groups, several=True)


def _needed(encoding: Encoding, wanted: Sequence[int], offset: Any) -> list[str]:
    """Columns to collect from a lazy source."""
    from mixedmodels.formula import variables

    names: list[str] = []
    for variable in encoding.variables:
        names.extend(variables(variable.expression))
    for b in wanted:
        for expression in encoding.groups[encoding.bar_groups[b]].expressions:
            names.extend(variables(expression))
    names.extend(name for name in (encoding.offset_column, offset) if isinstance(name, str) and name)
    return names


def _new_value(variable: VariableState, columns: Columns, functions: Any, open_: bool = False) -> Value:
    """Values of a variable in new data, transforms using what they learnt in the fit.

    With `open_` positions that the fit has not seen are further levels.
    """
    expression = variable.expression
    if isinstance(expression, Variable):
        return columns.factor(expression.name) if variable.kind == "factor" else columns[expression.name]
    from mixedmodels.frame.expressions import apply
    from mixedmodels.frame.rows import as_value

    state = variable.state
    if open_:
        calls = {path: {**call, "open": True} if call else call for path, call in state["calls"].items()}
        state = {**state, "calls": calls}
    value = apply(expression, columns, state, functions=functions)
    return as_value(value, variable.label, columns.n_rows)


def _match(variable: VariableState, value: Value) -> Value:
    """Check the kind of a variable and bring factors to the fit's codes."""
    label = variable.label
    if variable.kind == "factor":
        if not isinstance(value, FactorColumn):
            value = code_column(value)  # type: ignore[arg-type]
        codes, unknown = match_levels(value, variable.levels)
        if unknown:
            known = ", ".join(map(str, variable.levels[:10])) + (", ..." if len(variable.levels) > 10 else "")
            raise NewLevelError(
                f"factor {label!r} has the new level{'s' if len(unknown) > 1 else ''} "
                f"{', '.join(map(repr, unknown[:10]))} in the new data; its effect was not estimated "
                f"(levels of the fit: {known})"
            )
        return FactorColumn(codes, variable.levels)
    if isinstance(value, FactorColumn):
        raise DataError(f"{label!r} was numeric in the fit but holds labels in the new data")
    if isinstance(value, MatrixColumn) != (variable.kind == "matrix"):
        raise DataError(f"{label!r} does not have the number of columns it had in the fit")
    return value


def _group_codes(
    group: GroupState,
    columns: Columns,
    functions: Any,
    rows: np.ndarray | None,
    valid: np.ndarray,
    new_levels: str,
) -> np.ndarray:
    """Level of each row; -1 for a new or missing one."""
    factors = []
    for expression, state in zip(group.expressions, group.states, strict=True):
        if isinstance(expression, Variable):
            if expression.name not in columns:
                raise DataError(
                    f"the new data have no column {expression.name!r}, which the random terms on "
                    f'{group.name!r} need; add it, or predict without random effects (re_form="none")'
                )
            factor = columns.factor(expression.name)
        else:
            from mixedmodels.frame.expressions import apply
            from mixedmodels.frame.rows import as_value

            value = as_value(
                apply(expression, columns, state, functions=functions), group.name, columns.n_rows
            )
            factor = value if isinstance(value, FactorColumn) else code_column(value)  # type: ignore[arg-type]
        factors.append(take_rows(factor, rows) if rows is not None else factor)
    unknown: tuple[str, ...] = ()
    if group.joint:
        matched_all, unknown = coded_in(factors, group.levels)  # type: ignore[arg-type]
        codes = matched_all.codes
    elif isinstance(group.levels, InteractionLevels):
        matched = [match_levels(f, levels)[0] for f, levels in zip(factors, group.levels.levels, strict=True)]  # type: ignore[arg-type]
        codes = match_interaction(matched, group.levels)
        if new_levels == "error" and (codes < 0).any():
            unknown = _unknown_combinations(factors, codes)
    else:
        codes, unknown = match_levels(factors[0], group.levels)  # type: ignore[arg-type]
    if new_levels == "error":
        if unknown:
            listed = ", ".join(unknown[:10]) + (f", ... ({len(unknown)} in all)" if len(unknown) > 10 else "")
            raise NewLevelError(
                f"grouping factor {group.name!r} has new levels in the new data: {listed}; use "
                'new_levels="population" to predict with a random effect of 0, or "missing"'
            )
        missing = (codes < 0 if codes.ndim == 1 else (codes < 0).any(axis=1)) & valid
        if missing.any():
            raise NewLevelError(
                f"grouping factor {group.name!r} is missing in {int(missing.sum())} rows of the new data "
                f'(first in row {int(np.flatnonzero(missing)[0])}); use new_levels="population" or "missing"'
            )
    elif new_levels == "append" and (codes < 0).any():
        append = _appended_jointly if group.joint else _appended
        codes = append(codes, factors, len(group.levels))
    return codes


def _appended(codes: np.ndarray, factors: Sequence[Any], m: int) -> np.ndarray:
    """Codes with the levels that the fit has not seen numbered from m; a missing one is its own level."""
    rows = np.flatnonzero(codes < 0)
    keys = np.column_stack([np.asarray(factor.codes)[rows] for factor in factors]).astype(np.int64)
    missing = (keys < 0).any(axis=1)
    keys[missing] = -1
    keys[missing, 0] = -1 - np.arange(int(missing.sum()))
    out = codes.astype(np.int32)
    out[rows] = m + np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return out


def _appended_jointly(codes: np.ndarray, factors: Sequence[Any], m: int) -> np.ndarray:
    """As `_appended`; a new level is the same one in every column."""
    rows, columns = np.nonzero(codes < 0)
    fresh = joined(factors)
    keys = fresh.codes[rows, columns].astype(np.int64)
    missing = keys < 0
    keys[missing] = -1 - np.arange(int(missing.sum()))
    out = codes.astype(np.int32)
    out[rows, columns] = m + np.unique(keys, return_inverse=True)[1].reshape(-1)
    return out


def _unknown_combinations(factors: Sequence[Any], codes: np.ndarray) -> tuple[str, ...]:
    """Labels of the combinations that the fit has not seen, in order of appearance."""
    from mixedmodels.frame.labels import level_label

    labels: dict[str, None] = {}
    for row in np.flatnonzero(codes < 0):
        parts = [factor.codes[row] for factor in factors]
        if min(parts) >= 0:
            texts = [level_label(factor.levels[code]) for factor, code in zip(factors, parts, strict=True)]
            labels[":".join(texts)] = None
    return tuple(labels)


def _new_offset(
    encoding: Encoding,
    values: Sequence[Value | None],
    columns: Columns,
    offset: Any,
    rows: np.ndarray | None,
) -> np.ndarray | None:
    """Sum of the formula's offsets and the offset argument of the fit."""
    total: np.ndarray | None = None
    for i in encoding.offsets:
        value = values[i]
        total = np.array(value) if total is None else total + value
    source = offset if offset is not None else encoding.offset_column
    if source is None:
        return total
    if isinstance(source, str) and not source:
        raise DataError(
            "the model was fitted with an array as offset; give the offset of the new rows as offset=..., "
            "or put it into the formula as offset(column)"
        )
    extra = numeric_column(source, columns, "offset")
    if rows is not None:
        extra = extra[rows]
    check_finite(np.asarray(extra), "the offset of the new data")
    return np.array(extra) if total is None else total + extra
