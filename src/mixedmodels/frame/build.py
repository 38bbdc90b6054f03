"""From a formula and a data frame to the arrays of a model.

`build` reads the columns, settles missing values, codes factors, fills X and Z column by column, drops
dependent columns and checks that the data can tell the parameters apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.covariance import make_covariance
from mixedmodels.design import Design, GeneralisedDesign, RandomTerm
from mixedmodels.errors import DataError, IdentifiabilityError, OptionError
from mixedmodels.formula.ast import Formula
from mixedmodels.frame import identify
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.encode import encode_part, encode_variable, fill_columns
from mixedmodels.frame.factors import take_levels
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import check_weights, without_unused
from mixedmodels.frame.newdata import NewDesign, encode_new
from mixedmodels.frame.plan import PartPlan, Plan, plan_of
from mixedmodels.frame.rank import find_dependence
from mixedmodels.frame.rows import Rows, nothing_left, read_rows, settle_rows
from mixedmodels.frame.state import Encoding, GroupState, PartState, VariableState, find_bars
from mixedmodels.frame.values import FactorColumn, MatrixColumn, Value

__all__ = ["ModelFrame", "build"]

_ROW_MAJOR = 8  # up to this many fixed columns, X is stored row by row (and may serve as a term's Z)


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
    generalised : GeneralisedDesign or None
        All linear predictors of a generalised model; `design` is its conditional one.
    family : Family or None
    parts : mapping from predictor to ModelFrame, or None
        Frames of the predictors with a formula of their own (zero inflation, dispersion).
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
    generalised: GeneralisedDesign | None = None
    family: Any = None
    parts: Mapping[str, ModelFrame] | None = None

    @property
    def row_index(self) -> np.ndarray:
        """Rows of the data that are in the design, counting from 0."""
        return np.arange(self.n_rows) if self.kept is None else self.kept

    def new_data(
        self,
        data: Any,
        *,
        re_form: str | Sequence[str] = "all",
        need_groups: bool = True,
        new_levels: str = "error",
        offset: Any = None,
        columns_of: Sequence[str] = (),
    ) -> NewDesign:
        """The columns of the model for new data; see `mixedmodels.frame.newdata.encode_new`."""
        return encode_new(
            self.encoding,
            data,
            re_form=re_form if need_groups else "none",
            new_levels=new_levels,
            offset=offset,
            functions=self.functions,
            columns_of=columns_of,
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
    checked: bool = True,
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
        Grouping factors with a known covariance between their levels (pedigree, ...): the checks of their
        number of levels do not apply.
    checked : bool
        False leaves out the checks that the data can tell the parameters apart: nothing is to be estimated.

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

    rows = read_rows(plan, columns, weights, offset, functions)
    kept: np.ndarray | None = None
    na_counts: dict[str, int] = {}
    zero_rows: np.ndarray | None = None
    positive = None if rows.weights is None else check_weights(rows.weights, "weights")
    if positive is not None or not rows.clean():
        kept, zero_rows, na_counts = settle_rows(plan, rows, columns, positive, na_action, messages)
    n = columns.n_rows if kept is None else kept.shape[0]
    if n == 0:
        raise DataError(nothing_left(columns.n_rows, na_counts))

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
    if checked:
        identify.check(
            y,
            X.shape[1],
            plan,
            terms,
            rows.groups,
            messages,
            free_sigma=not (sigma_fixed or varying),
            widest=_widest(plan.fixed, fixed) if X.shape[1] >= n else ("", 0),
            known=known,
        )
    messages.extend(identify.confounded_groups(plan, [state.kind for state in variables]))
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


def _response(value: Value, label: str) -> np.ndarray:
    """The response as a new float array."""
    if isinstance(value, FactorColumn):
        labels = level_labels(value.levels[:5])
        remedy = "convert it, or name another column"
        if _are_numbers(labels):
            remedy = "these are numbers kept as text or categories: convert the column to numbers"
        elif len(labels) == 2:
            remedy = "code a yes/no response as 0 and 1 for a linear probability model"
        raise DataError(
            f"the response {label!r} holds categories ({', '.join(labels[:4])}"
            f"{', ...' if len(labels) > 4 else ''}), but a linear model needs numbers; {remedy}"
        )
    if isinstance(value, MatrixColumn):
        raise DataError(f"the response {label!r} has several columns; a linear mixed model needs one")
    return np.array(value)


def _are_numbers(labels: Sequence[str]) -> bool:
    """Whether all labels read as numbers."""
    try:
        return bool([float(label) for label in labels])
    except ValueError:
        return False


def _encode_variables(
    plan: Plan, rows: Rows, contrasts: Mapping[str, Any] | None, messages: list[str]
) -> tuple[VariableState, ...]:
    """States of all variables; unused levels of factors are dropped with a note."""
    if contrasts is not None and not isinstance(contrasts, Mapping):
        example = plan.labels[0] if plan.labels else "f"
        raise OptionError(
            f'contrasts must be a dict from factors to contrasts, such as {{"{example}": "sum"}}, '
            f"got {contrasts!r}"
        )
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


def _sum_offsets(plan: Plan, variables: Sequence[VariableState], rows: Rows) -> np.ndarray | None:
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
    elif part.terms and all(part.full[0]):
        ones = slice(0, part.stops[0])
    dependence = find_dependence(X, ones, part.names)
    if dependence is None:
        return X, part, None, None
    X = X[:, dependence.kept]
    X = np.ascontiguousarray(X) if p <= _ROW_MAJOR else np.asfortranarray(X)
    return X, part, *dependence


def _widest(plan: PartPlan, part: PartState) -> tuple[str, int]:
    """The term of the fixed part with the most columns, and their number."""
    first = int(part.intercept)
    widths = [stop - start for start, stop in zip((first, *part.stops), part.stops, strict=False)]
    if not widths:
        return "", 0
    place = max(range(len(widths)), key=widths.__getitem__)
    return plan.labels[place], widths[place]


def _random_terms(
    plan: Plan,
    fixed: PartState,
    X: np.ndarray,
    dropped: tuple[str, ...],
    variables: Sequence[VariableState],
    rows: Rows,
) -> tuple[tuple[PartState, ...], tuple[RandomTerm, ...]]:
    """One term per bar; terms with the same left side share Z, which may be X itself."""
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
