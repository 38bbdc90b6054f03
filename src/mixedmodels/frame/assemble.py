"""From settled rows to arrays: coding of factors, X, the random terms and what predictions need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixedmodels.covariance import make_covariance
from mixedmodels.design import RandomTerm
from mixedmodels.errors import DataError, IdentifiabilityError, OptionError
from mixedmodels.formula.ast import Call
from mixedmodels.frame.encode import encode_part, encode_variable, fill_columns
from mixedmodels.frame.factors import take_levels
from mixedmodels.frame.labels import level_labels
from mixedmodels.frame.missing import without_unused
from mixedmodels.frame.own_structures import check_names, given_matrix, own_structure
from mixedmodels.frame.plan import PartPlan, Plan
from mixedmodels.frame.positions import FUNCTION as POSITIONS
from mixedmodels.frame.positions import check_size, has_positions, position_covariance
from mixedmodels.frame.rank import find_dependence
from mixedmodels.frame.rows import Rows
from mixedmodels.frame.state import Encoding, GroupState, PartState, VariableState, find_bars
from mixedmodels.frame.values import FactorColumn, Value

__all__ = ["Assembled", "assemble", "shared_parameters"]

_ROW_MAJOR = 8  # up to this many fixed columns, X is stored row by row (and may serve as a term's Z)


class Assembled(NamedTuple):
    """Arrays of one right-hand side.

    Attributes
    ----------
    X : ndarray of float64, shape (n, p)
    x_names : tuple of str, length p
    dropped : tuple of str
        Columns left out of X because they depend on earlier ones.
    terms : tuple of RandomTerm
    offset : ndarray of float64, shape (n,), or None
    encoding : Encoding
    """

    X: np.ndarray
    x_names: tuple[str, ...]
    dropped: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    offset: np.ndarray | None
    encoding: Encoding


def assemble(
    plan: Plan,
    rows: Rows,
    n: int,
    contrasts: Mapping[str, Any] | None,
    offset: Any,
    messages: list[str],
    between: Mapping[str, Any] | None = None,
    structures: Mapping[str, Any] | None = None,
) -> Assembled:
    """Arrays of a plan's right-hand side for `n` settled rows; `offset` is the argument as it was given.

    `structures` has the user's own covariance structures and matrices.
    `between` has what is known between the levels of grouping factors (`Precision` or `KnownCovariance`).
    """
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
    bars, terms = _random_terms(plan, fixed, X, dropped, variables, rows, between or {}, messages, structures)
    encoding = Encoding(
        plan.formula,
        variables,
        fixed,
        bars,
        plan.bar_labels,
        tuple(
            [
                GroupState(group.name, group.expressions, states, factor.levels, group.joint)
                for group, states, factor in zip(plan.groups, rows.group_states, rows.groups, strict=True)
            ]
        ),
        plan.bar_groups,
        plan.offsets,
        None if offset is None else (offset if isinstance(offset, str) else ""),
        kept_columns,
        null,
    )
    return Assembled(X, x_names, dropped, terms, total_offset, encoding)


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
        if type(value) is FactorColumn and not _is_position(plan.expressions[i]):
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


def _is_position(expression: Any) -> bool:
    """Whether an expression makes positions, all of whose levels count: a gap is a distance."""
    return isinstance(expression, Call) and expression.function == POSITIONS


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
    if _one_way(plan, part, variables):
        return X, part, None, None
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


def _one_way(plan: PartPlan, part: PartState, variables: Sequence[VariableState]) -> bool:
    """Whether X is a one-way layout, whose columns are independent: every level has rows."""
    if len(plan.terms) != 1 or len(plan.terms[0]) != 1 or not part.intercept:
        return False
    variable = variables[plan.terms[0][0]]
    return variable.kind == "factor" and variable.contrast is None and not part.full[0][0]


def _random_terms(
    plan: Plan,
    fixed: PartState,
    X: np.ndarray,
    dropped: tuple[str, ...],
    variables: tuple[VariableState, ...],
    rows: Rows,
    between: Mapping[str, Any],
    messages: list[str],
    structures: Mapping[str, Any] | None,
) -> tuple[tuple[PartState, ...], tuple[RandomTerm, ...]]:
    """One term per bar; terms with the same left side share Z, which may be X itself."""
    parts: list[PartState] = []
    terms: list[RandomTerm] = []
    if structures is not None:
        matrices = [str(options["matrix"]) for options in plan.options if "matrix" in options]
        check_names(structures, [*plan.bar_labels, *(group.name for group in plan.groups), *matrices])
    ready: dict[Any, np.ndarray] = {}
    if not dropped and X.shape[1] <= _ROW_MAJOR:
        ready[fixed[:3]] = X
    n = X.shape[0]
    for i, bar in enumerate(plan.bars):
        if bar.further:
            part = _joint_part(bar, plan.groups[plan.bar_groups[i]].columns, variables)
        elif bar.terms:
            part = encode_part(bar.intercept, bar.terms, bar.labels, variables)
        else:
            part = _INTERCEPT_ONLY
        k = len(part.names)
        if part.used:
            key = part.key
            Z = ready.get(key)
            if Z is None:
                check_size(n, k, plan.bar_labels[i])
                Z = np.empty((n, k))
                fill_columns(part, variables, rows.values, Z)
                ready[key] = Z
        else:
            Z = None
        structure = plan.formula.bars[i].structure
        structure = _BY_RELATION.get(structure, structure)
        group = plan.bar_groups[i]
        factor = rows.groups[group]
        options = plan.options[i]
        label, own = plan.bar_labels[i], structures or {}
        mine = own.get(label, own.get(plan.groups[group].name)) if own else None
        if mine is not None:
            covariance = own_structure(mine, k, label)
        elif "matrix" in options:
            covariance = make_covariance(structure, k, matrix=given_matrix(own, options["matrix"], k, label))
        elif has_positions(structure):
            covariance, note = position_covariance(structure, part, variables, options, plan.bar_labels[i])
            if note:
                messages.append(note)
        else:
            covariance = make_covariance(structure, k, **options)
        messages.extend(_single_number(plan.formula, i, part, variables))
        parts.append(part)
        name = plan.groups[group].name
        codes = np.ascontiguousarray(factor.codes[:, part.owners]) if part.pieces else factor.codes
        terms.append(RandomTerm(name, part.names, codes, factor.levels, Z, covariance, between.get(name)))
    return tuple(parts), tuple(terms)


def _single_number(formula: Any, i: int, part: PartState, variables: tuple[VariableState, ...]) -> list[str]:
    """A note where a structure of several effects was given one numeric column."""
    if part.pieces or len(part.names) != 1 or part.names[0] == "(Intercept)" or len(part.terms[0]) != 1:
        return []
    variable, tag = variables[part.terms[0][0]], formula.bars[i].structure
    name, text = variable.label, formula.text.replace(" ", "")
    plain = name.replace(" ", "")
    tagged = any(f"us({left}|" in text for left in (f"0+{plain}", f"{plain}+0", f"{plain}-1", f"-1+{plain}"))
    if variable.kind == "factor" or not (tag in _SEVERAL or (tag == "us" and tagged)):
        return []
    group = ":".join([str(expression) for expression in formula.bars[i].group])
    return [
        f"{tag}(0 + {name} | {group}): {name} is one numeric column, a slope with one variance; for an "
        f"effect of each of its values write {tag}(0 + factor({name}) | {group})"
    ]


# Tags whose structure is between several effects.
_SEVERAL = ("cs", "homcs", "toep", "homtoep", "ad")
# Tags that say how levels are related, with the structure of the columns.
_BY_RELATION = {"known": "us", "id": "homdiag", "joint": "us"}
_INTERCEPT_ONLY = PartState(True, (), (), (), ("(Intercept)",), ())


def _joint_part(
    plan: PartPlan, columns: Sequence[str | None], variables: tuple[VariableState, ...]
) -> PartState:
    """Columns of a joint term; those of further parts are named by the column that holds their levels."""
    bars = (plan, *plan.further)
    pieces = [encode_part(bar.intercept, bar.terms, bar.labels, variables) for bar in bars]
    names = list(pieces[0].names)
    for piece, column in zip(pieces[1:], columns[1:], strict=True):
        names += [str(column) if name == "(Intercept)" else f"{column}:{name}" for name in piece.names]
    return pieces[0]._replace(names=tuple(names), pieces=tuple(pieces))


def shared_parameters(share: Sequence[Sequence[str]], plan: Plan, terms: Sequence[RandomTerm]) -> np.ndarray:
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
