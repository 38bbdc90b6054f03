"""From a formula and a data frame to the arrays of a model.

`plan_of` reads a formula once (no data: which expressions, which terms use them, which grouping factors);
`build` reads the columns, settles missing values, codes factors, fills X and Z column by column, drops
dependent columns and checks that the data can tell the parameters apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.design import Design, RandomTerm
from mixedmodels.errors import DataError, FormulaError, IdentifiabilityError, OptionError
from mixedmodels.formula.ast import Expression, Formula, Number, TermList, Text, Variable
from mixedmodels.frame import identify
from mixedmodels.frame.columns import Columns, numeric_column
from mixedmodels.frame.encode import encode_part, encode_variable, fill_columns
from mixedmodels.frame.factors import code_column, interact, level_labels, take_levels
from mixedmodels.frame.missing import (
    check_finite,
    check_weights,
    count_missing,
    describe_missing,
    is_clean,
    missing_rows,
    refuse_missing,
    take_rows,
    without_unused,
)
from mixedmodels.frame.newdata import NewDesign, encode_new
from mixedmodels.frame.rank import find_dependence
from mixedmodels.frame.state import Encoding, GroupState, PartState, VariableState, find_bars
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["ModelFrame", "build", "plan_of"]

_ROW_MAJOR = 8  # up to this many fixed columns, X is stored row by row (and may serve as a term's Z)


class PartPlan(NamedTuple):
    """Terms of a right-hand side as indices into the plan's expressions."""

    intercept: bool
    terms: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]


class GroupPlan(NamedTuple):
    """One grouping factor: its name, expressions and, where these are plain columns, their names."""

    name: str
    expressions: tuple[Expression, ...]
    columns: tuple[str | None, ...]


class Plan(NamedTuple):
    """What a formula asks for, independent of any data."""

    formula: Formula
    response: Expression
    response_label: str
    expressions: tuple[Expression, ...]
    labels: tuple[str, ...]
    columns: tuple[str | None, ...]
    fixed: PartPlan
    offsets: tuple[int, ...]
    bars: tuple[PartPlan, ...]
    bar_labels: tuple[str, ...]
    bar_groups: tuple[int, ...]
    options: tuple[dict[str, Any], ...]
    groups: tuple[GroupPlan, ...]
    needed: tuple[str, ...]
    notes: tuple[str, ...]


_PLANS: dict[int, Plan] = {}
_PLANS_KEPT = 256


def plan_of(formula: Formula) -> Plan:
    """The plan of a formula, remembered by the identity of the (immutable) formula."""
    plan = _PLANS.get(id(formula))
    if plan is None or plan.formula is not formula:
        plan = _make_plan(formula)
        while len(_PLANS) >= _PLANS_KEPT:
            _PLANS.pop(next(iter(_PLANS)), None)
        _PLANS[id(formula)] = plan  # the plan holds the formula, so the identity cannot be reused
    return plan


def _make_plan(formula: Formula) -> Plan:
    from mixedmodels.formula import group_name, render, term_label, variables

    if formula.response is None:
        raise FormulaError("the formula has no response; write 'response ~ ...'")
    if not formula.bars:
        raise FormulaError(
            f"the formula '{formula}' has no random-effects term such as (1 | group); without one it is an "
            "ordinary regression: use ordinary least squares (for instance statsmodels' ols)"
        )
    expressions: dict[Expression, int] = {}

    def part(terms: TermList) -> PartPlan:
        return PartPlan(
            terms.intercept,
            tuple(
                tuple(expressions.setdefault(factor, len(expressions)) for factor in term.factors)
                for term in terms.terms
            ),
            tuple(term_label(term) for term in terms.terms),
        )

    fixed = part(formula.fixed)
    offsets = tuple(expressions.setdefault(e, len(expressions)) for e in formula.fixed.offsets)
    bars = []
    options = []
    groups: dict[tuple[Expression, ...], int] = {}
    names = []
    labels = tuple(render(bar) for bar in formula.bars)
    for bar, label in zip(formula.bars, labels, strict=True):
        if bar.effects.offsets:
            raise FormulaError(f"{label} holds an offset; offsets belong to the fixed part")
        if not bar.effects.intercept and not bar.effects.terms:
            raise FormulaError(f"{label} has no effects; write for instance (1 | {group_name(bar)})")
        bars.append(part(bar.effects))
        options.append({name: _constant(value, name, label) for name, value in bar.options})
        if bar.group not in groups:
            groups[bar.group] = len(groups)
            names.append(group_name(bar))
    bar_groups = tuple(groups[bar.group] for bar in formula.bars)
    seen: dict[tuple[Any, ...], str] = {}
    for bar, plan, group, label in zip(formula.bars, bars, bar_groups, labels, strict=True):
        key = (bar.structure, plan.intercept, frozenset(map(frozenset, plan.terms)), group)
        if key in seen:
            raise FormulaError(f"the random term {label} occurs twice; leave one out")
        seen[key] = label
    names_of = tuple(e.name if isinstance(e, Variable) else None for e in expressions)
    return Plan(
        formula,
        formula.response,
        render(formula.response),
        tuple(expressions),
        tuple(render(e) for e in expressions),
        names_of,
        fixed,
        offsets,
        tuple(bars),
        labels,
        bar_groups,
        tuple(options),
        tuple(
            GroupPlan(name, group, tuple(e.name if isinstance(e, Variable) else None for e in group))
            for name, group in zip(names, groups, strict=True)
        ),
        variables(formula),
        identify.overlapping_terms(bars, labels, bar_groups),
    )


def _constant(node: Expression, name: str, label: str) -> Any:
    if isinstance(node, (Number, Text)):
        return node.value
    raise FormulaError(f"option {name!r} of {label} must be a number or a text")


@dataclass(frozen=True, slots=True, eq=False)
class ModelFrame:
    """The arrays of a model and how they came from the data.

    Attributes
    ----------
    formula : Formula
        With ``.`` resolved.
    encoding : Encoding
        What predictions need.
    design : Design
    kept : ndarray of intp or None
        Rows of the data in the design; None for all of them (see `row_index`).
    n_rows : int
        Rows of the data.
    na_counts : dict
        Rows in which each variable is missing, for those that have any.
    na_action : {"omit", "exclude", "fail"}
    dropped_columns : tuple of str
        Fixed-effects columns left out because they depend on earlier ones.
    backend : str
        Library of the data frame.
    messages : tuple of str
        Notes for the user.
    zero_weight_rows : ndarray of intp or None
        Rows left out because their weight is 0; `zero_weight_design` holds their columns for prediction.
    zero_weight_design : NewDesign or None
    functions : mapping or None
        The user's own transforms.
    """

    formula: Formula
    encoding: Encoding
    design: Design
    kept: np.ndarray | None
    n_rows: int
    na_counts: dict[str, int]
    na_action: str
    dropped_columns: tuple[str, ...]
    backend: str
    messages: tuple[str, ...]
    zero_weight_rows: np.ndarray | None = None
    zero_weight_design: NewDesign | None = None
    functions: Mapping[str, Callable[..., Any]] | None = None

    @property
    def row_index(self) -> np.ndarray:
        """Rows of the data that are in the design, counting from 0."""
        return np.arange(self.n_rows) if self.kept is None else self.kept

    def pad(self, values: np.ndarray) -> np.ndarray:
        """Values of the design's rows; with ``na_action="exclude"`` padded by NaN to all rows of the data."""
        if self.na_action != "exclude" or self.kept is None:
            return values
        padded = np.full((self.n_rows, *values.shape[1:]), np.nan)
        padded[self.kept] = values
        return padded

    def new_data(
        self,
        data: Any,
        *,
        re_form: str | Sequence[str] = "all",
        need_groups: bool = True,
        new_levels: str = "error",
        offset: Any = None,
    ) -> NewDesign:
        """The columns of the model for new data; see `mixedmodels.frame.newdata.encode_new`."""
        return encode_new(
            self.encoding,
            data,
            re_form=re_form if need_groups else "none",
            new_levels=new_levels,
            offset=offset,
            functions=self.functions,
        )


def build(
    formula: Formula | str,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na_action: str = "omit",
    functions: Mapping[str, Callable[..., Any]] | None = None,
    share: Sequence[Sequence[str]] | None = None,
    sigma_fixed: bool = False,
    known: Collection[str] = (),
) -> ModelFrame:
    r"""Read a model's columns from a data frame.

    The result describes :math:`\eta = X\beta + \sum_b Z_b b_b + \text{offset}` by arrays.

    Parameters
    ----------
    formula : Formula or str
    data : data frame or mapping
        See `Columns`. Never changed.
    weights, offset : str or array of shape (n,), optional
        A column name or values. A weight 0 leaves the row out; a missing weight is a missing value.
    contrasts : mapping, optional
        Contrasts by factor: a name ("sum", "helmert", "poly", ...) or a matrix.
    na_action : {"omit", "exclude", "fail"}
        What to do with rows that have missing values; "exclude" leaves them out too but keeps their places in
        fitted values and residuals.
    functions : mapping, optional
        Functions that the formula may call besides the known ones.
    share : sequence of sequences of str, optional
        Random terms whose covariance parameters are the same, each named by its text or grouping factor.
    sigma_fixed : bool
        Whether the residual standard deviation is given; lifts the checks that it can be estimated.
    known : collection of str
        Grouping factors with a known covariance between their levels (pedigree, ...): the checks of the number of
        levels do not apply to them.

    Returns
    -------
    ModelFrame

    Raises
    ------
    FormulaError
        The formula has no random term, no response or a random term twice.
    DataError
        A column is missing or unusable, or no row is left.
    IdentifiabilityError
        The data cannot tell the parameters apart.

    Examples
    --------
    >>> data = {"y": [1.0, 2.0, 4.0, 3.0, 5.0], "x": [0, 1, 2, 3, 4], "g": ["a", "b", "a", "b", "a"]}
    >>> frame = build("y ~ x + (1 | g)", data)
    >>> frame.design.x_names, frame.design.terms[0].codes
    (('(Intercept)', 'x'), array([0, 1, 0, 1, 0], dtype=int32))
    """
    messages: list[str] = []
    if isinstance(formula, str):
        from mixedmodels.formula import parse

        formula = parse(formula)
    if formula.fixed.dot or any(bar.effects.dot for bar in formula.bars):
        formula, data = _resolve_dot(formula, data, (weights, offset), messages)
    plan = plan_of(formula)
    messages.extend(plan.notes)
    extra = [name for name in (weights, offset) if isinstance(name, str)]
    columns = (
        data if type(data) is Columns else Columns(data, (*plan.needed, *extra) if extra else plan.needed)
    )
    if na_action not in ("omit", "exclude", "fail"):
        raise OptionError(f"na_action must be 'omit', 'exclude' or 'fail', not {na_action!r}")

    rows = _read(plan, columns, weights, offset, functions)
    kept: np.ndarray | None = None
    na_counts: dict[str, int] = {}
    zero_rows: np.ndarray | None = None
    positive = None if rows.weights is None else check_weights(rows.weights, "weights")
    if positive is not None or not rows.clean():
        kept, zero_rows, na_counts = _settle_rows(plan, rows, columns, positive, na_action, messages)
    n = columns.n_rows if kept is None else kept.shape[0]
    if n == 0:
        raise DataError(_nothing_left(columns.n_rows, na_counts))

    y = _response(rows.response, plan.response_label)
    variables = _encode_variables(plan, rows, contrasts, messages)
    total_offset = _sum_offsets(plan, variables, rows)
    X, fixed, kept_columns, null = _fixed_part(plan.fixed, variables, rows.values, n)
    x_names = fixed.names
    dropped: tuple[str, ...] = ()
    if kept_columns is not None:
        in_design = set(kept_columns.tolist())
        dropped = tuple(name for j, name in enumerate(x_names) if j not in in_design)
        x_names = tuple(x_names[j] for j in kept_columns)
        messages.append(
            f"fixed-effect model matrix is rank deficient: dropped {len(dropped)} "
            f"column{'s' if len(dropped) > 1 else ''}: {', '.join(dropped)}"
        )

    bars, terms = _random_terms(plan, fixed, X, dropped, variables, rows)
    varying = rows.weights is not None and not identify.is_constant(rows.weights)
    identify.check(
        y,
        X.shape[1],
        plan,
        terms,
        rows.groups,
        messages,
        free_sigma=not (sigma_fixed or varying),
        known=known,
    )
    encoding = Encoding(
        formula,
        variables,
        fixed,
        bars,
        plan.bar_labels,
        tuple(
            [
                GroupState(group.name, group.expressions, states, factor.levels)
                for group, states, factor in zip(plan.groups, rows.group_states, rows.groups, strict=True)
            ]
        ),
        plan.bar_groups,
        plan.offsets,
        None if offset is None else (offset if isinstance(offset, str) else ""),
        kept_columns,
        null,
    )
    notes = tuple(messages)
    theta_index = None if share is None else _theta_index(share, plan, terms)
    design = Design(y, X, x_names, terms, total_offset, rows.weights, theta_index, notes)
    zero_design = None
    if zero_rows is not None:
        zero_design = encode_new(
            encoding,
            columns,
            new_levels="population",
            offset=rows.offset_given if isinstance(rows.offset_given, np.ndarray) else None,
            functions=functions,
            rows=zero_rows,
        )
    return ModelFrame(
        formula,
        encoding,
        design,
        kept,
        columns.n_rows,
        na_counts,
        na_action,
        dropped,
        columns.backend,
        notes,
        zero_rows,
        zero_design,
        functions,
    )


def _resolve_dot(
    formula: Formula, data: Any, arguments: tuple[Any, Any], messages: list[str]
) -> tuple[Formula, Columns]:
    from mixedmodels.formula import resolve_dot

    columns = data if type(data) is Columns else Columns(data)
    used = tuple(name for name in arguments if isinstance(name, str))
    formula, notes = resolve_dot(formula, list(columns), used)
    messages.extend(notes)
    return formula, columns


# --- reading ---------------------------------------------------------------------------------------------


class _Rows:
    """Values of everything the formula asks for; cut down to the rows that take part."""

    __slots__ = (
        "group_states",
        "groups",
        "offset",
        "offset_given",
        "parts",
        "response",
        "states",
        "values",
        "weights",
    )

    response: Value
    values: list[Value]
    states: list[Any]
    groups: list[FactorColumn]
    parts: list[list[FactorColumn] | None]
    group_states: list[tuple[Any, ...]]
    weights: np.ndarray | None
    offset: np.ndarray | None
    offset_given: Any

    def clean(self) -> bool:
        """Whether there is nothing missing or infinite anywhere."""
        if not is_clean(self.response):
            return False
        for value in self.values:
            if not is_clean(value):
                return False
        for group in self.groups:
            if not is_clean(group):
                return False
        return (self.weights is None or is_clean(self.weights)) and (
            self.offset is None or is_clean(self.offset)
        )


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
            value = FactorColumn(value.astype(np.int32), np.array([False, True]))
            length = value.codes.shape[0]
        elif value.ndim != 1 or value.dtype.kind not in "fiu":
            raise DataError(
                f"{label} gives {value.ndim}-dimensional values of type {value.dtype}; one number per row is needed"
            )
        else:
            length = value.shape[0]
            if value.dtype != np.float64:
                value = value.astype(np.float64)
    if length != n_rows:
        raise DataError(f"{label} gives {length} values for {n_rows} rows")
    return value


def _read(plan: Plan, columns: Columns, weights: Any, offset: Any, functions: Any) -> _Rows:
    """Read and evaluate everything, all rows of the data."""
    rows = _Rows()
    response = plan.response
    if type(response) is Variable:
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
        parts, part_states = [], []
        for name, expression in zip(group.columns, group.expressions, strict=True):
            if name is not None:
                parts.append(_grouping_column(columns, name))
                part_states.append(None)
            else:
                value, state = _evaluate(expression, group.name, columns, functions)
                parts.append(without_unused(_as_factor(value, group.name))[0])
                part_states.append(state)
        rows.groups.append(interact(parts) if len(parts) > 1 else parts[0])
        rows.parts.append(parts)
        rows.group_states.append(tuple(part_states))
    rows.weights = None if weights is None else numeric_column(weights, columns, "weights").copy()
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


def _settle_rows(
    plan: Plan,
    rows: _Rows,
    columns: Columns,
    positive: np.ndarray | None,
    na_action: str,
    messages: list[str],
) -> tuple[np.ndarray | None, np.ndarray | None, dict[str, int]]:
    """Find the rows that take part and cut everything down to them."""
    masks = _missing_masks(plan, rows, columns)
    counts = count_missing(masks)
    missing = np.zeros(columns.n_rows, dtype=bool)
    for mask in masks.values():
        missing |= mask
    if counts:
        if na_action == "fail":
            refuse_missing(counts)
        messages.append(describe_missing(counts, int(np.count_nonzero(missing))))
    zero_rows = None
    left_out = missing
    if positive is not None:
        zero = ~positive & ~missing
        if zero.any():
            zero_rows = np.flatnonzero(zero)
            left_out = missing | zero
            number = zero_rows.shape[0]
            messages.append(f"{number} row{'s' if number > 1 else ''} with weight 0 left out of the fit")
    kept = None
    if left_out.any():
        kept = np.flatnonzero(~left_out)
        _cut(rows, kept)
    check_finite(rows.response, f"the response {plan.response_label}")
    for label, value in zip(plan.labels, rows.values, strict=True):
        check_finite(value, f"column {label!r}")
    if rows.weights is not None:
        check_finite(rows.weights, "weights")
    if rows.offset is not None:
        check_finite(rows.offset, "offset")
    return kept, zero_rows, counts


def _missing_masks(plan: Plan, rows: _Rows, columns: Columns) -> dict[str, np.ndarray]:
    """Rows in which each variable is missing: columns by name, transforms only for what they add (log of -1)."""
    from mixedmodels.formula import variables

    masks: dict[str, np.ndarray] = {}

    def enter(name: str, mask: np.ndarray) -> None:
        masks[name] = masks[name] | mask if name in masks else mask

    expressions = ((plan.response, plan.response_label), *zip(plan.expressions, plan.labels, strict=True))
    for (expression, label), value in zip(expressions, (rows.response, *rows.values), strict=True):
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
        for name, part in zip(group.columns, parts or [factor], strict=True):
            enter(name or group.name, part.codes < 0)
    if rows.weights is not None:
        enter("weights", np.isnan(rows.weights))
    if rows.offset is not None:
        enter("offset", np.isnan(rows.offset))
    return masks


def _cut(rows: _Rows, kept: np.ndarray) -> None:
    """Keep the given rows of everything; grouping factors lose the levels that no longer occur."""
    rows.response = take_rows(rows.response, kept)
    rows.values = [take_rows(value, kept) for value in rows.values]
    groups = []
    for factor, parts in zip(rows.groups, rows.parts, strict=True):
        cut = without_unused(take_rows(factor, kept))[0]  # type: ignore[arg-type]
        if parts is not None and len(parts) > 1:
            # Levels of a:b are numbered by the levels of a and b, which may have lost some as well.
            trimmed = [without_unused(take_rows(part, kept))[0] for part in parts]  # type: ignore[arg-type]
            cut = interact(trimmed)
        groups.append(cut)
    rows.groups = groups
    if rows.weights is not None:
        rows.weights = rows.weights[kept]
    if rows.offset is not None:
        rows.offset = rows.offset[kept]


def _nothing_left(n_rows: int, counts: dict[str, int]) -> str:
    if n_rows == 0:
        return "the data have no rows"
    if counts:
        parts = ", ".join(f"{name}: {number}" for name, number in counts.items())
        return f"no row without missing values is left of {n_rows} (missing: {parts})"
    return f"all {n_rows} rows have weight 0"


# --- encoding --------------------------------------------------------------------------------------------


def _response(value: Value, label: str) -> np.ndarray:
    """The response as a new float array."""
    if isinstance(value, FactorColumn):
        raise DataError(
            f"the response {label!r} holds categories ({', '.join(level_labels(value.levels[:4]))}"
            f"{', ...' if len(value.levels) > 4 else ''}), but a linear model needs numbers; for a "
            'yes/no response use glmm(..., family="binomial")'
        )
    if isinstance(value, MatrixColumn):
        raise DataError(f"the response {label!r} has several columns; a linear mixed model needs one")
    return np.array(value)


def _encode_variables(
    plan: Plan, rows: _Rows, contrasts: Mapping[str, Any] | None, messages: list[str]
) -> tuple[VariableState, ...]:
    """States of all variables; unused levels of factors are dropped with a note."""
    values = rows.values
    result = []
    for i, label in enumerate(plan.labels):
        value = values[i]
        if type(value) is FactorColumn:
            used, dropped = without_unused(value)
            if dropped:
                names = level_labels(take_levels(value.levels, np.array(dropped)))
                messages.append(
                    f"factor {label}: dropped {len(dropped)} level{'s' if len(dropped) > 1 else ''} "
                    f"without rows: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
                )
            values[i] = value = used
        result.append(encode_variable(label, plan.expressions[i], value, rows.states[i], contrasts))
    if contrasts:
        factors = [state.label for state in result if state.kind == "factor"]
        unknown = [name for name in contrasts if name not in factors]
        if unknown:
            raise DataError(
                f"contrasts were given for {unknown[0]!r}, which is not a factor of the formula "
                f"(factors: {', '.join(factors) or 'none'})"
            )
    return tuple(result)


def _sum_offsets(plan: Plan, variables: Sequence[VariableState], rows: _Rows) -> np.ndarray | None:
    """Sum of the formula's offsets and the argument."""
    total = None if rows.offset is None else np.array(rows.offset)
    for i in plan.offsets:
        if variables[i].kind != "numeric":
            raise DataError(f"the offset {plan.labels[i]!r} must be one number per row")
        value = rows.values[i]
        total = np.array(value) if total is None else total + value
    return total


def _fixed_part(
    plan: PartPlan, variables: Sequence[VariableState], values: Sequence[Value], n: int
) -> tuple[np.ndarray, PartState, np.ndarray | None, np.ndarray | None]:
    """X with dependent columns dropped, its encoding, the columns kept and the null space."""
    part = encode_part(plan.intercept, plan.terms, plan.labels, variables)
    p = len(part.names)
    X = np.empty((n, p), order="C" if p <= _ROW_MAJOR else "F")
    fill_columns(part, variables, values, X)
    ones: int | slice | None = None
    if part.intercept:
        ones = 0
    elif part.terms and part.full[0] == (True,):
        ones = slice(0, part.stops[0])
    if len(part.terms) > 1 and part.stops[-1] - part.intercept > len(part.terms):
        _check_products(X, part)
    dependence = find_dependence(X, ones)
    if dependence is None:
        return X, part, None, None
    order = "C" if p <= _ROW_MAJOR else "F"
    return np.asarray(X[:, dependence.kept], order=order), part, *dependence


def _check_products(X: np.ndarray, part: PartState) -> None:
    """Products of finite columns can overflow."""
    for j, name in enumerate(part.names):
        if ":" in name and not np.isfinite(np.dot(X[:, j], X[:, j])) and not np.isfinite(X[:, j]).all():
            raise DataError(f"the product {name!r} overflows; rescale its variables")


def _random_terms(
    plan: Plan,
    fixed: PartState,
    X: np.ndarray,
    dropped: tuple[str, ...],
    variables: Sequence[VariableState],
    rows: _Rows,
) -> tuple[tuple[PartState, ...], tuple[RandomTerm, ...]]:
    """One term per bar; terms with the same left side share Z, which may be X itself."""
    from mixedmodels.covariance import make_covariance

    parts: list[PartState] = []
    terms: list[RandomTerm] = []
    ready: dict[Any, np.ndarray] = {}
    if not dropped and X.shape[1] <= _ROW_MAJOR:
        ready[fixed[:3]] = X
    n = X.shape[0]
    for i, bar in enumerate(plan.bars):
        if bar.terms:
            part = encode_part(bar.intercept, bar.terms, bar.labels, variables)
            k = len(part.names)
            key = part[:3]
            Z = ready.get(key)
            if Z is None:
                Z = np.empty((n, k))
                fill_columns(part, variables, rows.values, Z)
                ready[key] = Z
        else:
            part = _INTERCEPT_ONLY
            k, Z = 1, None
        structure = plan.formula.bars[i].structure
        group = plan.bar_groups[i]
        factor = rows.groups[group]
        options = plan.options[i]
        covariance = make_covariance(structure, k, **options) if options else make_covariance(structure, k)
        parts.append(part)
        terms.append(
            RandomTerm(plan.groups[group].name, part.names, factor.codes, factor.levels, Z, covariance)
        )
    return tuple(parts), tuple(terms)


_INTERCEPT_ONLY = PartState(True, (), (), (), ("(Intercept)",), ())


def _theta_index(share: Sequence[Sequence[str]], plan: Plan, terms: Sequence[RandomTerm]) -> np.ndarray:
    """Number the free parameters, terms of one list of `share` having the same."""
    groups = [plan.groups[g].name for g in plan.bar_groups]
    master = list(range(len(terms)))
    for wanted in share:
        if isinstance(wanted, str):
            raise OptionError("share must be a list of lists of random terms")
        found = sorted(find_bars(wanted, plan.bar_labels, groups, several=False))
        for other in found[1:]:
            a, b = terms[found[0]].covariance, terms[other].covariance
            if (a.name, a.k, a.n_theta) != (b.name, b.k, b.n_theta):
                raise IdentifiabilityError(
                    f"{plan.bar_labels[found[0]]} and {plan.bar_labels[other]} cannot share parameters: "
                    f"they have {a.n_theta} ({a.name}) and {b.n_theta} ({b.name})"
                )
            if master[other] not in (other, master[found[0]]):
                raise OptionError(f"{plan.bar_labels[other]} occurs in two lists of share; join them")
            master[other] = master[found[0]]
    index: list[np.ndarray] = []
    free = 0
    for i, term in enumerate(terms):
        if master[i] == i:
            index.append(np.arange(free, free + term.covariance.n_theta, dtype=np.intp))
            free += term.covariance.n_theta
        else:
            index.append(index[master[i]])
    return np.concatenate(index)
