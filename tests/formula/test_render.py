"""Spelling: what is printed reads back as the same formula."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedmodels.formula import Call, Number, Operation, Term, Text, Variable, parse, render
from mixedmodels.formula.render import format_number

names = st.sampled_from(["a", "b", "x.y", "my x", "Größe", "_u", "it`s", "True", "1st", "a\\b", "if"])
numbers = st.one_of(
    st.integers(0, 10**6).map(float), st.floats(0, allow_nan=False, allow_infinity=False), st.just(1e5)
)
operators = st.sampled_from(
    ["+", "-", "*", "/", "^", ":", "%%", "%/%", "%in%", "<", "==", "&", "|", "!u", "-u", "("]
)
atoms = st.one_of(
    names.map(Variable), numbers.map(Number), st.text(max_size=4).map(Text), st.just(Variable("TRUE"))
)


def _operation(operator, left, right):
    # Nodes that the parser can make: looser operands stand in parentheses.
    left, right = (Operation("(", (side,)) if isinstance(side, Operation) else side for side in (left, right))
    if operator == "(":
        return Operation("(", (left,))
    if operator.endswith("u"):
        return Operation(operator[0], (left,))
    return Operation(operator, (left, right))


expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(_operation, operators, inner, inner),
        st.builds(
            lambda function, args, keys: Call(function, tuple(args), tuple(dict(keys).items())),
            st.sampled_from(["f", "log", "as.factor"]),
            st.lists(inner, max_size=2),
            st.lists(st.tuples(names, inner), max_size=2),
        ),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(expressions)
def test_expressions_read_back(node):
    (term,) = parse(f"resp ~ I({render(node)})").fixed.terms
    assert term == Term((Call("I", (node,)),))
    assert render(term) == f"I({render(node)})"


term_texts = st.recursive(
    st.sampled_from(["a", "b", "c", "`my x`", "log(x)", "poly(x, 2)", "0", "1", "I(x^2)"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", ":", "/", "%in%"]), inner).map(
            lambda t: f"({t[0]}) {t[1]} ({t[2]})"
        ),
        st.tuples(inner, st.integers(1, 3)).map(lambda t: f"({t[0]})^{t[1]}"),
    ),
    max_leaves=6,
)
bar_texts = st.sampled_from(
    ["(1 | g)", "(x | g/h)", "(0 + f || g:h)", "cs(f | g)", "rr(f | g, d = 2)", "(a * b | g * h)"]
)


@settings(deadline=None, max_examples=200)
@given(
    term_texts,
    st.lists(bar_texts, max_size=3),
    st.sampled_from(["y ~", "log(y) ~", "cbind(s, n - s) ~", "~"]),
)
def test_formulas_read_back(right, bars, left):
    formula = parse(f"{left} {' + '.join([right, *bars])}")
    again = parse(str(formula))
    assert again == formula
    assert parse(str(again)) == formula


@pytest.mark.parametrize(
    "text",
    [
        "y ~ 1",
        "y ~ 0",
        "~x",
        "y ~ 0 + a + b + a:b",
        "y ~ x + offset(log(w)) + (Days || Subject)",
        "y ~ . - x + (1 | g)",
    ],
)
def test_canonical_text_is_kept(text):
    assert str(parse(text)) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back(value):
    assert float(format_number(value)) == value


def test_special_numbers():
    assert [format_number(v) for v in (math.inf, -math.inf, math.nan, -0.0)] == ["Inf", "-Inf", "NaN", "0"]


def test_missing_parentheses_are_added():
    x, one = Variable("x"), Number(1.0)
    total = Operation("+", (x, one))
    assert render(Operation("*", (total, total))) == "(x + 1) * (x + 1)"
    assert render(Operation("-", (x, Operation("-", (x, one))))) == "x - (x - 1)"
    assert render(Operation("^", (Operation("^", (x, one)), x))) == "(x^1)^x"
    assert render(Operation("-", (total,))) == "-(x + 1)"
