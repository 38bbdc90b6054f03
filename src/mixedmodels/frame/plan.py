"""What a formula asks for, worked out once and without data: expressions, terms, grouping factors."""

from __future__ import annotations

from typing import Any, NamedTuple

from mixedmodels.errors import FormulaError
from mixedmodels.formula.ast import (
    Bar,
    Call,
    Expression,
    Formula,
    Number,
    Operation,
    TermList,
    Text,
    Variable,
)
from mixedmodels.frame import identify
from mixedmodels.frame.positions import has_positions, position_effects

__all__ = ["GroupPlan", "PartPlan", "Plan", "plan_of", "require_bars", "require_response"]


class PartPlan(NamedTuple):
    """Terms of a right-hand side as indices into the plan's expressions."""

    intercept: bool
    terms: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    further: tuple[PartPlan, ...] = ()


class GroupPlan(NamedTuple):
    """One grouping factor: its name, expressions and, where these are plain columns, their names.

    `relation` is "" for ``(... | g)``, "id" for ``id(... | g)`` and otherwise the name of the known matrix of
    ``known(... | g, name)``. With `joint` every expression holds levels of its own columns of one term.
    """

    name: str
    expressions: tuple[Expression, ...]
    columns: tuple[str | None, ...]
    relation: str = ""
    joint: bool = False

    @property
    def first(self) -> str:
        """Its name in `known=` where no other matrix is named."""
        return str(self.columns[0]) if self.joint else self.name


class Plan(NamedTuple):
    """What a formula asks for, independent of any data; a one-sided formula has no response."""

    formula: Formula
    response: Expression | None
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
    groups: dict[tuple[tuple[Expression, ...], str, bool], int] = {}
    names = []
    notes: list[str] = []
    labels = tuple(render(bar) for bar in formula.bars)
    for bar, label in zip(formula.bars, labels, strict=True):
        if bar.effects.offsets:
            raise FormulaError(f"{label} holds an offset; offsets belong to the fixed part")
        if not bar.effects.intercept and not bar.effects.terms:
            raise FormulaError(f"{label} has no effects; write for instance (1 | {group_name(bar)})")
        effects = bar.effects
        if has_positions(bar.structure):
            effects, stripped = position_effects(bar, label)
            if stripped:
                notes.append(f"{label}: one effect for each position; the intercept is left out")
        bars.append(part(effects)._replace(further=tuple([part(more) for more, _ in bar.further])))
        relation = _relation(bar, label)
        given = () if bar.structure in _NAMED_MATRIX else bar.options
        options.append({name: _constant(value, name, label) for name, value in given})
        key_of_group = _group_key(bar)
        if key_of_group not in groups:
            groups[key_of_group] = len(groups)
            alone = all(_relation(b, "") == relation for b in formula.bars if b.group == bar.group)
            plain = not relation or (relation == "id" and alone)
            names.append(group_name(bar) + ("" if plain else f":{relation}"))
            if names[-1] in names[:-1]:
                raise FormulaError(
                    f"{label} and another random term both are about {names[-1]!r}; write all its effects "
                    f"into the joint term, as in joint(1 + x | {names[-1]}, ...)"
                )
    bar_groups = tuple(groups[_group_key(bar)] for bar in formula.bars)
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
        "" if formula.response is None else render(formula.response),
        tuple(expressions),
        tuple(_variable_label(e) for e in expressions),
        names_of,
        fixed,
        offsets,
        tuple(bars),
        labels,
        bar_groups,
        tuple(options),
        tuple(
            GroupPlan(
                name,
                group,
                tuple(e.name if isinstance(e, Variable) else None for e in group),
                relation,
                joint,
            )
            for name, (group, relation, joint) in zip(names, groups, strict=True)
        ),
        variables(formula),
        (*notes, *identify.overlapping_terms(bars, labels, bar_groups)),
    )


def _variable_label(expression: Expression) -> str:
    """Label of a variable; positions made of one column have the name of the column."""
    from mixedmodels.formula import render

    if isinstance(expression, Call) and expression.function == "numFactor" and len(expression.args) == 1:
        return render(expression.args[0])
    return render(expression)


_NAMED_MATRIX = ("known", "joint")


def _group_key(bar: Bar) -> tuple[tuple[Expression, ...], str, bool]:
    """What makes a grouping factor: its columns, what relates the levels, whether columns have their own."""
    return (*bar.group, *[column for _, column in bar.further]), _relation(bar, ""), bool(bar.further)


def _relation(bar: Bar, label: str) -> str:
    """What relates the levels of a term: "", "id" or the name of a known matrix."""
    if bar.structure == "id":
        return "id"
    if bar.structure not in _NAMED_MATRIX or (bar.structure == "joint" and not bar.options):
        return ""
    value = dict(bar.options).get("matrix")
    if isinstance(value, Variable):
        return value.name
    if isinstance(value, Text):
        return value.value
    how = "matrix = D" if bar.structure == "joint" else "known(1 | animal, D)"
    raise FormulaError(f"{label} needs the name of a matrix given as known=: write {how}")


def require_response(formula: Formula) -> None:
    """Refuse a formula without a response."""
    if formula.response is None:
        raise FormulaError("the formula has no response; write 'response ~ ...'")


def require_bars(formula: Formula) -> None:
    """Refuse a formula without random terms."""
    if not formula.bars:
        for term in formula.fixed.terms:
            for factor in term.factors:
                _refuse_tag(factor)
        raise FormulaError(
            f"the formula '{formula}' has no random-effects term such as (1 | group); without one it is an "
            "ordinary regression: use mm.gls or, if it is generalised, a regression package"
        )


def _refuse_tag(factor: Expression) -> None:
    """Refuse ``f(x | g)`` of a formula without random terms: a covariance structure that does not exist."""
    from mixedmodels.formula import STRUCTURES, render

    bars = ("|", "||")
    if isinstance(factor, Call) and factor.args:
        inner = factor.args[0]
        while isinstance(inner, Operation) and inner.operator == "(":
            inner = inner.args[0]
        if isinstance(inner, Operation) and inner.operator in bars and factor.function != "I":
            raise FormulaError(
                f"'{render(factor)}': {factor.function!r} is not a covariance structure; write "
                f"'({render(inner)})' or one of {', '.join(sorted(STRUCTURES))} before it"
            )


def _constant(node: Expression, name: str, label: str) -> Any:
    if isinstance(node, (Number, Text)):
        return node.value
    if name == "matrix" and isinstance(node, Variable):
        return node.name
    raise FormulaError(f"option {name!r} of {label} must be a number or a text")
