"""Values of everything a formula asks for, and the rows that take part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, FormulaWarning, warn
from mixedmodels.formula.ast import Expression, Variable
from mixedmodels.frame.columns import Columns, numeric_column
from mixedmodels.frame.factors import LOGICAL, code_column, interact, joined
from mixedmodels.frame.missing import (
    check_finite,
    count_missing,
    describe_missing,
    is_clean,
    missing_rows,
    refuse_missing,
    take_rows,
    without_unused,
)
from mixedmodels.frame.plan import Plan
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["Rows", "as_value", "nothing_left", "read_rows", "settle_rows"]


class Rows:
    """Values of everything the formula asks for; cut down to the rows that take part."""

    __slots__ = (
        "group_states",
        "groups",
        "offset",
        "offset_given",
        "parts",
        "response",
        "states",
        "trials",
        "values",
        "weights",
    )

    response: Value | None
    values: list[Value]
    states: list[Any]
    groups: list[FactorColumn]
    parts: list[list[FactorColumn] | None]
    group_states: list[tuple[Any, ...]]
    weights: np.ndarray | None
    trials: np.ndarray | None
    offset: np.ndarray | None
    offset_given: Any

    def clean(self) -> bool:
        """Whether there is nothing missing or infinite anywhere."""
        for value in (self.response, self.weights, self.trials, self.offset, *self.values, *self.groups):
            if value is not None and not is_clean(value):
                return False
        return True


def _evaluate(
    expression: Expression, label: str, columns: Columns, functions: Mapping[str, Any] | None
) -> tuple[Value, Any]:
    """Value and learnt state of one expression that is not a plain column."""
    from mixedmodels.frame.expressions import learn

    value, state = learn(expression, columns, functions=functions)
    return as_value(value, label, columns.n_rows), state


def as_value(value: Any, label: str, n_rows: int) -> Value:
    """Bring the result of an expression into one of the three forms of a column."""
    if isinstance(value, FactorColumn):
        length = value.codes.shape[0]
    elif isinstance(value, MatrixColumn):
        length = value.values.shape[0]
    else:
        value = np.asarray(value)
        if value.ndim == 0:
            value = np.full(n_rows, value)
        if value.dtype.kind == "b":
            value = FactorColumn(value.astype(np.int32), LOGICAL)
            length = value.codes.shape[0]
        elif value.ndim != 1 or value.dtype.kind not in "fiu":
            raise DataError(
                f"{label} gives {value.ndim}-dimensional values of type {value.dtype}; "
                "one number per row is needed"
            )
        else:
            length = value.shape[0]
            if value.dtype != np.float64:
                value = value.astype(np.float64)
    if length != n_rows:
        raise DataError(f"{label} gives {length} values for {n_rows} rows")
    return value


def read_rows(
    plan: Plan, columns: Columns, weights: Any, offset: Any, functions: Any, trials: Any = None
) -> Rows:
    """Read and evaluate everything, all rows of the data."""
    rows = Rows()
    response = plan.response
    if response is None:
        rows.response = None
    elif type(response) is Variable:
        rows.response = columns[response.name]
    else:
        rows.response = _evaluate(response, plan.response_label, columns, functions)[0]
    values: list[Value] = []
    states: list[Any] = []
    for name, expression, label in zip(plan.columns, plan.expressions, plan.labels, strict=True):
        if name is not None:
            values.append(columns[name])
            states.append(None)
        else:
            value, state = _evaluate(expression, label, columns, functions)
            values.append(value)
            states.append(state)
    rows.values, rows.states = values, states
    rows.groups, rows.parts, rows.group_states = [], [], []
    for group in plan.groups:
        if len(group.columns) == 1 and group.columns[0] is not None:
            rows.groups.append(_grouping_column(columns, group.columns[0]))
            rows.parts.append(None)
            rows.group_states.append((None,))
            continue
        parts: list[FactorColumn] = []
        part_states: list[Any] = []
        for name, expression in zip(group.columns, group.expressions, strict=True):
            if name is not None:
                parts.append(_grouping_column(columns, name))
                part_states.append(None)
            else:
                value, state = _evaluate(expression, group.name, columns, functions)
                parts.append(without_unused(_as_factor(value, group.name))[0])
                part_states.append(state)
        combine = joined if group.joint else interact
        rows.groups.append(combine(parts) if len(parts) > 1 else parts[0])
        rows.parts.append(parts)
        rows.group_states.append(tuple(part_states))
    rows.weights = None if weights is None else numeric_column(weights, columns, "weights").copy()
    rows.trials = None if trials is None else numeric_column(trials, columns, "trials").copy()
    rows.offset = None if offset is None else numeric_column(offset, columns, "offset")
    rows.offset_given = None if offset is None or isinstance(offset, str) else rows.offset
    return rows


def _grouping_column(columns: Columns, name: str) -> FactorColumn:
    """Grouping factor of a column; coded levels of numbers and texts all occur, categories may not."""
    factor = columns.factor(name)
    if type(columns.raw(name)) is FactorColumn:
        return without_unused(factor)[0]
    return factor


def _as_factor(value: Value, name: str) -> FactorColumn:
    if isinstance(value, FactorColumn):
        return value
    if isinstance(value, MatrixColumn):
        raise DataError(f"the grouping factor {name!r} has several columns; it must have one")
    return code_column(value)


def settle_rows(
    sides: Sequence[tuple[Plan, Rows]],
    columns: Columns,
    excluded: Mapping[str, np.ndarray],
    na_action: str,
    messages: list[str],
    further: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray | None, np.ndarray | None, dict[str, int]]:
    """Find the rows that take part in all formulas of a model and cut everything down to them.

    Parameters
    ----------
    sides : sequence of (Plan, Rows)
        The formulas; their `Rows` are changed.
    columns : Columns
    excluded : mapping from reason to ndarray of bool, shape (n_rows,)
        Rows that do not count in the likelihood but are predicted.
    na_action : str
    messages : list of str
        Takes notes.
    further : mapping from name to ndarray of bool, shape (n_rows,), optional
        Rows in which columns outside the formulas (of a residual structure) are missing.

    Returns
    -------
    kept : ndarray of intp or None
        Rows that take part; None for all.
    zero_rows : ndarray of intp or None
        Rows left out by `excluded` alone.
    counts : dict
        Number of rows in which each variable is missing.
    """
    masks: dict[str, np.ndarray] = {}
    for plan, rows in sides:
        _missing_masks(plan, rows, columns, masks)
    for name, mask in (further or {}).items():
        masks[name] = masks[name] | mask if name in masks else mask
    counts = count_missing(masks)
    for plan, rows in sides:
        _warn_undefined(plan, rows, counts)
    missing = np.zeros(columns.n_rows, dtype=bool)
    for mask in masks.values():
        missing |= mask
    if counts:
        if na_action == "fail":
            refuse_missing(counts)
        messages.append(describe_missing(counts, int(np.count_nonzero(missing))))
    zero_rows = None
    left_out = missing
    for reason, mask in excluded.items():
        zero = mask & ~left_out
        number = int(np.count_nonzero(zero))
        if number:
            left_out = left_out | zero
            messages.append(f"{number} row{'s' if number > 1 else ''} with {reason} left out of the fit")
    if left_out is not missing:
        zero_rows = np.flatnonzero(left_out & ~missing)
    kept = None
    if left_out.any():
        kept = np.flatnonzero(~left_out)
    for plan, rows in sides:
        if kept is not None:
            _cut(rows, kept)
        _check_finite(plan, rows)
    return kept, zero_rows, counts


def _check_finite(plan: Plan, rows: Rows) -> None:
    """Refuse infinite values."""
    if rows.response is not None:
        check_finite(rows.response, f"the response {plan.response_label}")
    for label, value in zip(plan.labels, rows.values, strict=True):
        check_finite(value, f"column {label!r}")
    for what in ("weights", "trials", "offset"):
        value = getattr(rows, what)
        if value is not None:
            check_finite(value, what)


def _missing_masks(plan: Plan, rows: Rows, columns: Columns, masks: dict[str, np.ndarray]) -> None:
    """Rows in which each variable is missing; transforms count only for what they add, as log(-1)."""
    from mixedmodels.formula import variables

    def enter(name: str, mask: np.ndarray) -> None:
        masks[name] = masks[name] | mask if name in masks else mask

    items: list[tuple[Expression, str, Value]] = [
        *zip(plan.expressions, plan.labels, rows.values, strict=True)
    ]
    if plan.response is not None and rows.response is not None:
        items.insert(0, (plan.response, plan.response_label, rows.response))
    for expression, label, value in items:
        mask = missing_rows(value)
        if isinstance(expression, Variable):
            enter(expression.name, mask)
            continue
        if not mask.any():
            continue
        for name in variables(expression):
            inner = missing_rows(columns[name]) & mask
            enter(name, inner)
            mask = mask & ~inner
        enter(label, mask)
    for group, parts, factor in zip(plan.groups, rows.parts, rows.groups, strict=True):
        for column, part in zip(group.columns, parts or [factor], strict=True):
            enter(column or group.name, part.codes < 0)
    for what in ("weights", "trials", "offset"):
        if getattr(rows, what) is not None:
            enter(what, np.isnan(getattr(rows, what)))


def _warn_undefined(plan: Plan, rows: Rows, counts: Mapping[str, int]) -> None:
    """Warn of expressions that have no value although their columns have, such as log(-1)."""
    named = (*zip(plan.labels, rows.values, strict=True),)
    if rows.response is not None:
        named = ((plan.response_label, rows.response), *named)
    for label, value in named:
        if label not in counts or isinstance(value, FactorColumn):
            continue
        if label == plan.response_label:
            plain = isinstance(plan.response, Variable)
        else:
            plain = plan.columns[plan.labels.index(label)] is not None
        if not plain:
            number = counts[label]
            warn(
                f"{label} is not a number in {number} row{'s' if number > 1 else ''} in which its columns "
                "have values: these rows are left out; change the expression or the columns",
                FormulaWarning,
            )


def _cut(rows: Rows, kept: np.ndarray) -> None:
    """Keep the given rows of everything; grouping factors lose the levels that no longer occur."""
    if rows.response is not None:
        rows.response = take_rows(rows.response, kept)
    rows.values = [take_rows(value, kept) for value in rows.values]
    groups = []
    for i, (factor, parts) in enumerate(zip(rows.groups, rows.parts, strict=True)):
        if parts is not None and len(parts) > 1:
            # Levels of a:b are numbered by the levels of a and b, which may have lost some as well.
            trimmed = [without_unused(take_rows(part, kept))[0] for part in parts]  # type: ignore[arg-type]
            rows.parts[i] = trimmed
            groups.append((joined if factor.codes.ndim == 2 else interact)(trimmed))
        else:
            groups.append(without_unused(take_rows(factor, kept))[0])  # type: ignore[arg-type]
    rows.groups = groups
    for what in ("weights", "trials", "offset"):
        value = getattr(rows, what)
        if value is not None:
            setattr(rows, what, value[kept])


def nothing_left(n_rows: int, counts: dict[str, int], excluded: Sequence[str] = ()) -> str:
    """Why no row takes part: no data, missing values (counted by variable), or weights of zero."""
    if n_rows == 0:
        return "the data have no rows"
    if counts:
        parts = ", ".join(f"{name}: {number}" for name, number in counts.items())
        return f"no row without missing values is left of {n_rows} (missing: {parts})"
    return f"all {n_rows} rows have {' or '.join(excluded) or 'weight 0'}"
