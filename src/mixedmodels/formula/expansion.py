"""Expression trees to terms: R's rules for ``+ - * / : ^ %in%``, bars and structure tags.

A term is a bit mask over the variables in order of first appearance, so a:b and b:a are one term,
products are bitwise "or", and the order of a term is the number of its bits.

Source: Wilkinson & Rogers (1973), Applied Statistics 22, 392-399; Chambers & Hastie (1992),
Statistical Models in S, chapter 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeGuard

from mixedmodels.errors import FormulaError
from mixedmodels.formula.ast import (
    Bar,
    Call,
    Expression,
    Formula,
    Number,
    Operation,
    Term,
    TermList,
    Text,
    Variable,
)
from mixedmodels.formula.render import render

__all__ = ["STRUCTURES", "expand_formula", "expand_terms", "refuse_response"]

STRUCTURES = (
    "us",
    "diag",
    "homdiag",
    "id",
    "cs",
    "homcs",
    "ar1",
    "hetar1",
    "car1",
    "ou",
    "toep",
    "homtoep",
    "ad",
    "exp",
    "gau",
    "sph",
    "ratio",
    "mat",
    "rr",
    "fa",
    "propto",
    "equalto",
    "known",
    "joint",
)
"""Tags that may stand before a bar: ``cs(x | g)``."""

_MOST_PRODUCTS = 1_000_000

_POSITIONAL_OPTION = {"rr": "d", "fa": "d", "propto": "matrix", "equalto": "matrix", "known": "matrix"}
_BARS = ("|", "||")
_RESERVED = ("TRUE", "FALSE", "NULL", "NA", "NaN", "Inf")
_DOT = Variable(".")


def _is_bar(node: Expression) -> TypeGuard[Operation]:
    return isinstance(node, Operation) and node.operator in _BARS


def _has_dot(node: Expression) -> bool:
    """Whether ``.`` stands at formula level (not inside a call)."""
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, Variable):
            if node.name == ".":
                return True
        elif isinstance(node, Operation):
            stack.extend(node.args)
    return False


def _unwrap(node: Expression) -> Expression:
    while isinstance(node, Operation) and node.operator == "(":
        node = node.args[0]
    return node


def _sum_operands(node: Expression) -> list[tuple[str, Expression]]:
    """Operands of a chain of + and - with their signs, left to right, without recursion."""
    operands: list[tuple[str, Expression]] = []
    while isinstance(node, Operation) and node.operator in "+-":
        if len(node.args) == 1:
            operands.append((node.operator, node.args[0]))
            break
        operands.append((node.operator, node.args[1]))
        node = node.args[0]
    else:
        operands.append(("+", node))
    operands.reverse()
    return operands


class _Expander:
    """Expands one right-hand side; collects its intercept, offsets and bars on the way."""

    __slots__ = ("bars", "dot", "index", "intercept", "offsets", "variables")

    def __init__(self, dot: Sequence[Variable] = ()) -> None:
        self.variables: list[Expression] = []
        self.index: dict[Expression, int] = {}
        self.intercept = True
        self.offsets: list[Expression] = []
        self.bars: list[Bar] | None = None
        self.dot = dot

    def bit(self, variable: Expression) -> int:
        mask = self.index.get(variable)
        if mask is None:
            mask = self.index[variable] = 1 << len(self.variables)
            self.variables.append(variable)
        return mask

    def encode(self, node: Expression, sign: bool = True, additive: bool = False) -> list[int]:
        """Masks of the terms of `node`; `sign` is False under a minus, `additive` where a bar may stand."""
        if isinstance(node, Variable):
            if node.name == ".":
                return [self.bit(column) for column in self.dot]
            return [self.bit(node)]
        if isinstance(node, Operation):
            operator = node.operator
            if operator in ("+", "-"):
                return self.total(node, sign, additive)
            if operator == "(":
                inner = node.args[0]
                if _is_bar(inner):
                    return self.bar(inner, node, sign, additive, "us", ())
                return self.encode(inner, sign, additive)
            return self.product(node, sign)
        if isinstance(node, Call):
            return self.call(node, sign, additive)
        if isinstance(node, Number):
            if node.value == 1.0:
                self.intercept = sign
                return []
            if node.value == 0.0:
                self.intercept = not sign
                return []
            raise FormulaError(
                f"the number {render(node)} is not a term: only 0 and 1 (the intercept) are; "
                f"for arithmetic write I(...), for a fixed coefficient offset(...)"
            )
        raise FormulaError(
            f"the quoted text {render(node)} is not a term: write the column's name without quotes, "
            f"or in backticks: `{node.value}`"
        )

    def total(self, node: Operation, sign: bool, additive: bool) -> list[int]:
        terms: dict[int, None] = {}
        for operator, operand in _sum_operands(node):
            if operator == "+":
                terms.update(dict.fromkeys(self.encode(operand, sign, additive)))
            else:
                kept, self.offsets = self.offsets, []
                for mask in self.encode(operand, not sign, False):
                    terms.pop(mask, None)
                self.offsets = [offset for offset in kept if offset not in self.offsets]
        return list(terms)

    def product(self, node: Operation, sign: bool) -> list[int]:
        operator = node.operator
        if operator == "^":
            return self.power(node, sign)
        if operator in _BARS:
            raise _bare_bar(node)
        if operator not in ("*", ":", "/", "%in%") or len(node.args) != 2:
            remedy = f"wrap it as I({render(node)})"
            if operator == "&":
                remedy = "for an interaction write ':' (or '*'), for a condition I(... & ...)"
            raise FormulaError(
                f"'{render(node)}' is not a term: operator {operator!r} has no meaning between terms; "
                f"{remedy}"
            )
        left = self.encode(node.args[0], sign)
        right = self.encode(node.args[1], sign)
        if not left and operator in ("*", "/"):
            return []  # as R has it: 1 * a and 1 / a hold no term
        _check_size(left, right, node)
        if operator == ":":
            terms = [a | b for a in left for b in right]
        elif operator == "*":
            terms = left + right + [a | b for a in left for b in right]
        elif operator == "/":
            parent = _union(left)
            terms = left + [parent | b for b in right]
        else:
            parent = _union(right)
            terms = [a | parent for a in left]
        return list(dict.fromkeys(terms))

    def power(self, node: Operation, sign: bool) -> list[int]:
        base, exponent = node.args
        exponent = _unwrap(exponent)
        if not isinstance(exponent, Number) or exponent.value < 1 or exponent.value != int(exponent.value):
            raise FormulaError(
                f"'{render(node)}': between terms '^' needs a whole number of at least 1 and means "
                f"interactions up to that order; for arithmetic write I({render(node)})"
            )
        single = self.encode(base, sign)
        terms = single
        for _ in range(min(int(exponent.value), len(self.variables) + 1) - 1):
            _check_size(single, terms, node)
            terms = list(dict.fromkeys(a | b for a in single for b in terms))
        return terms

    def call(self, node: Call, sign: bool, additive: bool) -> list[int]:
        if node.function in STRUCTURES and node.args:
            bar = _unwrap(node.args[0])
            if _is_bar(bar):
                return self.tagged_bar(node, bar, sign, additive)
        if node.function == "offset":
            if len(node.args) != 1 or node.kwargs:
                raise FormulaError(
                    f"'{render(node)}': offset() takes one expression, as in offset(log(exposure))"
                )
            if node.args[0] not in self.offsets:
                self.offsets.append(node.args[0])
            return []
        return [self.bit(node)]

    def joint_bar(self, node: Call, sign: bool, additive: bool) -> list[int]:
        """``joint(1 | animal, 1 | dam)``: correlated effects of one row, each of its own level."""
        text = render(node)
        effects: list[tuple[TermList, Variable]] = []
        for argument in map(_unwrap, node.args):
            if not _is_bar(argument) or argument.operator != "|":
                raise FormulaError(
                    f"'{text}': joint() takes parts such as '1 | animal', separated by commas, and then "
                    "matrix = name"
                )
            if _has_dot(argument):
                raise FormulaError(f"'{text}': name the columns of joint() instead of '.'")
            before = len(self.bars or ())
            self.bar(argument, node, sign, additive, "joint", node.kwargs)
            assert self.bars is not None
            made = self.bars.pop()
            if len(self.bars) != before or len(made.group) != 1 or not isinstance(made.group[0], Variable):
                raise FormulaError(
                    f"'{text}': after the bar of each part of joint() stands the name of one column; for "
                    "combinations make a column of them"
                )
            effects.append((made.effects, made.group[0]))
        columns = [column.name for _, column in effects]
        if len(effects) < 2 or len(set(columns)) < len(columns):
            raise FormulaError(
                f"'{text}': joint() needs two parts or more on different columns, as in "
                "joint(1 | animal, 1 | dam)"
            )
        assert self.bars is not None
        first, group = effects[0]
        self.bars.append(Bar(first, (group,), "joint", node.kwargs, tuple(effects[1:])))
        return []

    def tagged_bar(self, node: Call, bar: Operation, sign: bool, additive: bool) -> list[int]:
        if node.function == "joint":
            return self.joint_bar(node, sign, additive)
        options = node.kwargs
        if len(node.args) > 1:
            name = _POSITIONAL_OPTION.get(node.function)
            if name is None or len(node.args) > 2 or any(key == name for key, _ in options):
                raise FormulaError(
                    f"'{render(node)}': give the options of {node.function}() by name, after the bar"
                )
            options = ((name, node.args[1]), *options)
        if bar.operator == "||" and node.function not in ("us", "diag"):
            raise FormulaError(f"'{render(node)}': '||' means diag; write {node.function}(... | ...)")
        return self.bar(bar, node, sign, additive, node.function, options)

    def bar(
        self,
        bar: Operation,
        whole: Expression,
        sign: bool,
        additive: bool,
        structure: str,
        options: tuple[tuple[str, Expression], ...],
    ) -> list[int]:
        if self.bars is None:
            raise FormulaError(
                f"'{render(whole)}': a random-effects term cannot stand inside another one or in a group"
            )
        if not sign:
            raise FormulaError(f"'{render(whole)}': a random-effects term cannot be subtracted; leave it out")
        if not additive:
            raise FormulaError(
                f"'{render(whole)}': a random-effects term can only be added "
                "with '+', not combined with * / : or ^"
            )
        left, right = bar.args
        if _is_bar(left) or _is_bar(right):
            raise FormulaError(f"'{render(whole)}' holds two bars: write one '(effects | group)' per term")
        if bar.operator == "||":
            structure = "diag"
        effects = expand_terms(left, self.dot)
        if effects.offsets:
            raise FormulaError(
                f"'{render(whole)}': an offset belongs to the fixed part, outside the parentheses"
            )
        if not effects.dot and not effects.intercept and not effects.terms:
            raise FormulaError(
                f"'{render(whole)}' has no effects: write (1 | {render(right)}) or (0 + x | {render(right)})"
            )
        for group in _expand_group(right, whole):
            self.bars.append(Bar(effects, group, structure, options))
        return []

    def result(self, masks: Iterable[int]) -> TermList:
        names = self.variables
        terms = []
        for mask in sorted(masks, key=int.bit_count):
            if mask & (mask - 1) == 0:
                terms.append(Term((names[mask.bit_length() - 1],)))
                continue
            factors = []
            while mask:
                low = mask & -mask
                factors.append(names[low.bit_length() - 1])
                mask ^= low
            terms.append(Term(tuple(factors)))
        for name in self.index:
            if isinstance(name, Variable) and name.name in _RESERVED:
                raise FormulaError(
                    f"the constant {name.name} is not a term; put a column of that name inside I()"
                )
        return TermList(self.intercept, tuple(terms), tuple(self.offsets))


def _check_size(left: Sequence[int], right: Sequence[int], node: Expression) -> None:
    if len(left) * len(right) > _MOST_PRODUCTS:
        raise FormulaError(
            f"'{render(node)[:80]}' expands to too many interactions: name the ones that are wanted"
        )


def _union(masks: Iterable[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union


def _bare_bar(node: Operation, response: Expression | None = None) -> FormulaError:
    """The error for ``y ~ x + 1|g``: a bar without parentheses would swallow the fixed part."""
    bar = node.operator
    left, group = node.args
    operands = _sum_operands(left)
    head = "" if response is None else render(response)
    sign, last = operands[-1]
    if len(operands) > 1 and sign == "+":
        fixed = render(left.args[0])  # type: ignore[union-attr]
        suggestion = f"{head} ~ {fixed} + ({render(last)} {bar} {render(group)})".strip()
    else:
        suggestion = f"{head} ~ ({render(left)} {bar} {render(group)})".strip()
    return FormulaError(
        f"the bar in '{render(node)}' needs parentheses, because '|' binds more loosely than '+' "
        f"and would take the whole left side: write '{suggestion}'"
    )


def _expand_group(node: Expression, whole: Expression) -> list[tuple[Expression, ...]]:
    """Grouping factors of ``(... | node)``: a/b is b:a and a, inner first as in lme4; a*b is a, b and a:b."""
    inner = _unwrap(node)
    if isinstance(inner, Variable) and inner.name not in (".", *_RESERVED):
        return [(inner,)]
    if isinstance(inner, Operation) and inner.operator == "/":
        outer = _expand_group(inner.args[0], whole)
        nested = _expand_group(inner.args[1], whole)
        parent = tuple(dict.fromkeys(part for group in outer for part in reversed(group)))[::-1]
        return [tuple(dict.fromkeys(child + parent)) for child in nested] + outer
    expander = _Expander()
    if isinstance(inner, (Number, Text)) or _has_dot(inner):
        raise FormulaError(
            f"'{render(whole)}': {render(inner)} is not a grouping factor; name a column after the bar"
        )
    if isinstance(inner, Operation) and inner.operator in ("+", "-"):
        raise FormulaError(
            f"'{render(whole)}': grouping factors are not added; write one term per factor, "
            f"as in (1 | a) + (1 | b), or (1 | a:b) for their combinations"
        )
    terms = expander.result(expander.encode(inner)).terms
    if not terms or expander.offsets:
        raise FormulaError(f"'{render(whole)}': name a column after the bar")
    return [term.factors for term in terms]


def expand_terms(node: Expression, dot: Sequence[Variable] = ()) -> TermList:
    """Expand a right-hand side without bars; with ``.`` unresolved the side is kept as it is."""
    if not dot and _has_dot(node):
        return _unresolved(node)
    expander = _Expander(dot)
    return expander.result(expander.encode(node))


def _unresolved(node: Expression) -> TermList:
    """A right-hand side with ``.`` is kept as written, after a trial expansion that finds its mistakes."""
    while isinstance(node, Operation) and node.operator == "+" and len(node.args) == 1:
        node = node.args[0]
    _Expander((_DOT,)).encode(node)
    return TermList(True, (Term((node,)),), (), True)


def _split_bars(node: Expression) -> tuple[Expression | None, list[Expression]]:
    """Take the random-effects terms out of a sum, for right-hand sides that must stay unexpanded."""
    kept: Expression | None = None
    bars: list[Expression] = []
    for sign, operand in _sum_operands(node):
        inner = _unwrap(operand)
        tagged = (
            isinstance(inner, Call)
            and inner.function in STRUCTURES
            and inner.args
            and _is_bar(_unwrap(inner.args[0]))
        )
        if sign == "+" and (_is_bar(inner) or tagged):
            bars.append(operand)
        elif kept is None:
            kept = operand if sign == "+" else Operation("-", (operand,))
        else:
            kept = Operation(sign, (kept, operand))
    return kept, bars


def expand_formula(response: Expression | None, right: Expression, text: str = "") -> Formula:
    """Build a `Formula` from the two sides of an expression tree."""
    if response is not None:
        _check_response(response)
    if _is_bar(right):
        raise _bare_bar(right, response)
    expander = _Expander()
    expander.bars = []
    fixed_dot = None
    if _has_dot(right):
        kept, bars = _split_bars(right)
        if kept is not None and _has_dot(kept):
            fixed_dot = _unresolved(kept)
            right = _sum(bars)
    masks = expander.encode(right, True, True)
    fixed = expander.result(masks) if fixed_dot is None else fixed_dot
    refuse_response(response, fixed)
    return Formula(response, fixed, tuple(expander.bars), text)


def _sum(nodes: Sequence[Expression]) -> Expression:
    total: Expression = Number(0.0)
    for node in nodes:
        total = Operation("+", (total, node))
    return total


def refuse_response(response: Expression | None, fixed: TermList) -> None:
    """The response as its own predictor is a mistake (R drops it with a warning)."""
    if response is not None and any(term.factors == (response,) for term in fixed.terms):
        raise FormulaError(
            f"the response '{render(response)}' is also a predictor: remove it from the right-hand side"
        )


def _check_response(response: Expression) -> None:
    if _is_bar(response):
        raise FormulaError(
            f"the response '{render(response)}' holds a bar: give weights, trials or "
            "censoring as arguments, not in the formula"
        )
    if isinstance(response, (Number, Text)) or response == _DOT:
        raise FormulaError(f"the response '{render(response)}' is not a column: name one before '~'")
