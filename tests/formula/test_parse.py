"""The grammar: names, calls, precedence, and errors that point at the place."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixedmodels.errors import FormulaError
from mixedmodels.formula import Call, Number, Operation, Text, Variable, parse, variables
from mixedmodels.formula.grammar import parse_sides


def expression(text):
    return parse_sides("~" + text)[1]


def op(operator, *args):
    return Operation(operator, args)


A, B, C = Variable("a"), Variable("b"), Variable("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", op("+", A, op("*", B, C))),
        ("a - b - c", op("-", op("-", A, B), C)),
        ("a ^ b ^ c", op("^", A, op("^", B, C))),
        ("a ** b", op("^", A, B)),
        ("-a ^ b", op("-", op("^", A, B))),
        ("a ^ -b", op("^", A, op("-", B))),
        ("-a : b", op(":", op("-", A), B)),
        ("a : b %in% c", op("%in%", op(":", A, B), C)),
        ("a %in% b * c", op("*", op("%in%", A, B), C)),
        ("a * -b", op("*", A, op("-", B))),
        ("!a == b & c", op("&", op("!", op("==", A, B)), C)),
        ("a & b | c", op("|", op("&", A, B), C)),
        ("a | b || c", op("||", op("|", A, B), C)),
        ("(a)", op("(", A)),
        ("f()", Call("f")),
        ("f(a, k = b)", Call("f", (A,), (("k", B),))),
        ("f(`my k` = 1)", Call("f", (), (("my k", Number(1.0)),))),
        ("x.y_1", Variable("x.y_1")),
        ("x ", Variable("x")),
        (".x", Variable(".x")),
        ("größe", Variable("größe")),
        ("`a b`", Variable("a b")),
        (r"`a\`b`", Variable("a`b")),
        ("'it'", Text("it")),
        (r'"a\"b\n"', Text('a"b\n')),
        (".5", Number(0.5)),
        ("2L", Number(2.0)),
        ("1e-3", Number(0.001)),
        ("f(True, None)", Call("f", (Variable("TRUE"), Variable("NULL")))),
        ("f(`True`)", Call("f", (Variable("True"),))),
        ("a\n  + b", op("+", A, B)),
    ],
)
def test_trees(text, tree):
    assert expression(text) == tree


@pytest.mark.parametrize(
    ("text", "message", "caret_under"),
    [
        ("y ~ x +", "ends too early", None),
        ("y ~ x $ b", "without the data frame", "$"),
        ("y ~ x[1]", "indexing", "["),
        ("y ~ (x + z", "never closed", "("),
        ("y ~ x)", "never opened", ")"),
        ("y ~ f(x", "never closed", "("),
        ("y ~ x z", "an operator such as + or : is missing", "z"),
        ("y ~ x (z)", None, None),
        ("y ~ x ~ z", "one '~'", None),
        ("y = x", "write '~'", "="),
        ("y ~ x, z", "comma", ","),
        ("y ~ x && z", "write '&'", "&&"),
        ("y ~ f(a = 1, b)", "before named ones", "b)"),
        ("y ~ f(a = 1, a = 2)", "given twice", "a = 2"),
        ("y ~ I(1 < x < 2)", "do not chain", "< 2"),
        ("y ~ `x", "closing backtick", "`"),
        ("y ~ f('x)", "closing quote", "'"),
        ("y ~ x %o% z", "%in%", "%"),
    ],
)
def test_errors_show_the_place(text, message, caret_under):
    if message is None:  # a name before a parenthesis is a call, even with a space between, as in R
        assert variables(parse(text)) == ("y", "z")
        return
    with pytest.raises(FormulaError) as error:
        parse(text)
    lines = str(error.value).split("\n")
    assert message in lines[0]
    assert lines[1].strip() == text
    caret = lines[2].index("^") - 4
    position = len(text) if caret_under is None and message == "ends too early" else caret
    assert caret == position
    if caret_under is not None:
        assert text.startswith(caret_under, caret)


@pytest.mark.parametrize("text", ["", "   ", "x + z", "y ~"])
def test_incomplete_formulas(text):
    with pytest.raises(FormulaError, match="write"):
        parse(text)


def test_not_a_text():
    with pytest.raises(FormulaError, match="not int"):
        parse(3)


@pytest.mark.parametrize(
    "inner", ["(" * 20000 + "x" + ")" * 20000, "*".join("ab" * 5000), "^".join("x" * 5000), "-" * 5000 + "x"]
)
def test_deep_nesting_is_an_error_not_a_crash(inner):
    with pytest.raises(FormulaError, match="nested too deeply"):
        parse(f"y ~ {inner}")


def test_explosions_are_refused():
    with pytest.raises(FormulaError, match="too many interactions"):
        parse("y ~ " + " * ".join(f"x{j}" for j in range(60)))
    assert len(parse("y ~ (" + " + ".join(f"x{j}" for j in range(100)) + ")^2").fixed.terms) == 5050


@settings(deadline=None, max_examples=400)
@given(
    st.lists(
        st.sampled_from(
            [*"abxy01 ~+-*/:^|().,=<>!&%'`$[é\n", "%in%", "||", "**", "f(", "(1|g)", "cs(", "2.5"]
        ),
        max_size=14,
    )
)
def test_any_text_is_a_formula_or_a_formula_error(pieces):
    text = "y ~" + "".join(pieces)
    try:
        formula = parse(text)
    except FormulaError as error:
        assert str(error)
        return
    assert parse(str(formula)) == formula


def test_long_lines_keep_the_caret_in_sight():
    text = "y ~ " + " + ".join(f"x{j}" for j in range(100)) + " + $"
    with pytest.raises(FormulaError) as error:
        parse(text)
    _, line, caret = str(error.value).split("\n")
    assert len(line) < 120
    assert line[caret.index("^")] == "$"


def test_parse_is_cached_and_keeps_the_text():
    text = "y ~ x  + (1|g)"
    assert parse(text) is parse(text)
    assert parse(text).text == text
    assert parse(text) == parse("y ~ x + (1 | g)")


def test_parse_is_fast():
    from mixedmodels.formula import _parse

    uncached = _parse.__wrapped__
    seconds = (
        min(timeit.repeat(lambda: uncached("Reaction ~ Days + (Days | Subject)"), number=200, repeat=5)) / 200
    )
    assert seconds < 300e-6  # 20 us when idle; the bound leaves room for a busy machine


def test_variables_in_order():
    formula = parse(
        "log(y) ~ pi + poly(x, k = 2):C(f, contr.sum) + I(z > TRUE * pi) + offset(w) + rr(v | a/b, d = D)"
    )
    assert variables(formula) == ("y", "pi", "z", "x", "f", "w", "v", "b", "a")
    assert variables(parse("cbind(s, n - s) ~ . + (1 | g)")) == ("s", "n", "g")
    assert variables(formula.fixed.terms[0]) == ("pi",)
    assert variables(parse("y ~ factor(f, levels = c('a', 'b'))")) == ("y", "f")
