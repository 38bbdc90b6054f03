"""Nodes to text, spelled as R spells them, and what can be read off the nodes: variables and names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

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

__all__ = ["format_number", "group_name", "render", "term_label", "variables"]

CONSTANTS = frozenset(("TRUE", "FALSE", "NULL", "NA", "NaN", "Inf", "pi"))
"""Names that stand for values inside a call, not for columns."""

_NAME = re.compile(r"(?:[^\W\d]|\.(?!\d))[\w.]*\Z")
_PYTHON_CONSTANTS = ("True", "False", "None")
_PRECEDENCE = {
    "|": 4, "||": 4, "&": 6, "<": 10, "<=": 10, ">": 10, ">=": 10, "==": 10, "!=": 10, "+": 12, "-": 12,
    "*": 14, "/": 14, "%%": 16, "%/%": 16, "%in%": 16, ":": 18, "^": 22,
}  # fmt: skip
_UNARY = {"-": 20, "+": 20, "!": 8}
_TIGHT = frozenset(("/", "^", ":", "%%", "%/%"))
_ATOM = 100


def format_number(value: float) -> str:
    """Spell a number as R does: up to 15 digits, the shorter of fixed and scientific notation.

    Examples
    --------
    >>> format_number(2.0), format_number(1e5), format_number(0.0001), format_number(123456)
    ('2', '1e+05', '1e-04', '123456')
    """
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    digits = 15
    if float(f"{value:.14e}") == value:
        while digits > 1 and float(f"{value:.{digits - 2}e}") == value:
            digits -= 1
    else:  # R stops at 15 digits; the text must give the same number back
        digits = 17 if float(f"{value:.15e}") != value else 16
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])
    fixed = f"{value:.{max(0, digits - 1 - exponent)}f}"
    return fixed if len(fixed) <= len(scientific) else scientific


def _name(name: str) -> str:
    if _NAME.match(name) and name not in _PYTHON_CONSTANTS:
        return name
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _text(value: str) -> str:
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + value.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


def _expression(node: Expression) -> tuple[str, int]:
    """Text of an expression and how tightly its outermost operator binds."""
    if isinstance(node, Variable):
        return _name(node.name), _ATOM
    if isinstance(node, Number):
        text = format_number(node.value)
        return text, _ATOM if node.value >= 0 or math.isnan(node.value) else 20
    if isinstance(node, Text):
        return _text(node.value), _ATOM
    if isinstance(node, Call):
        parts = [_expression(argument)[0] for argument in node.args]
        parts += [f"{_name(name)} = {_expression(argument)[0]}" for name, argument in node.kwargs]
        return f"{node.function}({', '.join(parts)})", _ATOM
    operator = node.operator
    if operator == "(":
        return f"({_expression(node.args[0])[0]})", _ATOM
    if len(node.args) == 1:
        binding = _UNARY[operator]
        return operator + _enclosed(node.args[0], binding), binding
    chain = []  # long sums lean to the left: walk down that side without recursion
    binding = _PRECEDENCE[operator]
    while True:
        left, right = node.args
        right_minimum = binding + 1
        if operator == "^":  # right to left; a sign may follow
            right_minimum = 20
        chain.append(_enclosed(right, right_minimum))
        chain.append(operator if operator in _TIGHT else f" {operator} ")
        if not isinstance(left, Operation) or len(left.args) != 2 or binding in (10, 22):
            break
        if _PRECEDENCE[left.operator] != binding:
            break
        node, operator = left, left.operator
    chain.append(_enclosed(left, binding if binding not in (10, 22) else binding + 1))
    return "".join(reversed(chain)), binding


def _enclosed(node: Expression, minimum: int) -> str:
    text, binding = _expression(node)
    return text if binding >= minimum else f"({text})"


def _terms(terms: TermList) -> str:
    if terms.dot:
        return _expression(terms.terms[0].factors[0])[0]
    parts = [term_label(term) for term in terms.terms]
    parts += [f"offset({_expression(offset)[0]})" for offset in terms.offsets]
    if not terms.intercept:
        parts.insert(0, "0")
    elif not terms.terms:
        parts.insert(0, "1")
    return " + ".join(parts)


def _bar(bar: Bar) -> str:
    effects = _terms(bar.effects)
    group = ":".join(_factor(part) for part in bar.group)
    options = "".join(f", {_name(name)} = {_expression(value)[0]}" for name, value in bar.options)
    if bar.further:
        group += "".join(f", {_terms(effects)} | {_name(column.name)}" for effects, column in bar.further)
    if not options and bar.structure in ("us", "diag"):
        return f"({effects} {'|' if bar.structure == 'us' else '||'} {group})"
    return f"{bar.structure}({effects} | {group}{options})"


def _factor(node: Expression) -> str:
    """A factor of a term: names that mean something else at formula level go in backticks."""
    if isinstance(node, Variable) and node.name in ("TRUE", "FALSE", "NULL", "NA", "NaN", "Inf", "."):
        return f"`{node.name}`"
    return _expression(node)[0]


def render(node: Expression | Term | TermList | Bar | Formula) -> str:
    """Spell a node as R does.

    Examples
    --------
    >>> from mixedmodels.formula import parse
    >>> render(parse("log(y)~poly( x,2 )*z+(1|a/b)"))
    'log(y) ~ poly(x, 2) + z + poly(x, 2):z + (1 | b:a) + (1 | a)'
    """
    if isinstance(node, Formula):
        fixed = _terms(node.fixed)
        right = " + ".join([fixed, *map(_bar, node.bars)])
        return f"~{right}" if node.response is None else f"{_expression(node.response)[0]} ~ {right}"
    if isinstance(node, Term):
        return term_label(node)
    if isinstance(node, TermList):
        return _terms(node)
    if isinstance(node, Bar):
        return _bar(node)
    return _expression(node)[0]


def term_label(term: Term) -> str:
    """R's label of a term, such as ``a:poly(x, 2)``."""
    return ":".join([_factor(part) for part in term.factors])


def group_name(bar: Bar) -> str:
    """Name of the grouping factor as lme4 shows it: ``cask:batch`` for ``(1 | batch/cask)``."""
    if len(bar.group) == 1 and isinstance(bar.group[0], Variable):
        return bar.group[0].name
    return ":".join([_factor(part) for part in bar.group])


def _walk(node: Expression) -> Iterator[str]:
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, Variable):
            yield node.name
        elif isinstance(node, Operation):
            stack.extend(reversed(node.args))
        elif isinstance(node, Call):
            args = node.args
            keywords = node.kwargs
            if node.function == "C":  # C(f, sum): the second argument names a contrast
                args = args[:1]
                keywords = tuple(pair for pair in keywords if pair[0] not in ("contr", "contrast"))
            stack.extend(value for _, value in reversed(keywords))
            stack.extend(reversed(args))


def _columns(node: Expression, names: dict[str, None]) -> None:
    if isinstance(node, Variable):  # a bare name is a column, even one called pi
        if node.name != ".":
            names[node.name] = None
        return
    for name in _walk(node):
        if name not in CONSTANTS and name != ".":
            names[name] = None


def variables(node: Expression | Term | TermList | Bar | Formula) -> tuple[str, ...]:
    """Columns of the data that a node needs, in order of first appearance (response, fixed part, bars).

    Function names, constants (TRUE, pi), names of contrasts in ``C(f, sum)``, options of structure tags
    and an unresolved ``.`` are not columns.

    Examples
    --------
    >>> from mixedmodels.formula import parse
    >>> variables(parse("log(y) ~ poly(x, 2, raw = TRUE):C(f, sum) + offset(w) + (z | a/b)"))
    ('y', 'x', 'f', 'w', 'z', 'b', 'a')
    """
    names: dict[str, None] = {}
    if isinstance(node, Formula):
        if node.response is not None:
            _columns(node.response, names)
        parts: list[TermList | Bar] = [node.fixed, *node.bars]
    elif isinstance(node, (TermList, Bar)):
        parts = [node]
    else:
        for factor in node.factors if isinstance(node, Term) else (node,):
            _columns(factor, names)
        return tuple(names)
    for part in parts:
        terms = part.effects if isinstance(part, Bar) else part
        for term in terms.terms:
            for factor in term.factors:
                _columns(factor, names)
        for offset in terms.offsets:
            _columns(offset, names)
        if isinstance(part, Bar):
            for factor in part.group:
                _columns(factor, names)
            for effects, column in part.further:
                for term in effects.terms:
                    for factor in term.factors:
                        _columns(factor, names)
                _columns(column, names)
    return tuple(names)
