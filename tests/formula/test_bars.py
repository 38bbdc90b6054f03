"""Random-effects terms: bars, nesting, structures, and the dot."""

from __future__ import annotations

import pytest

from mixedmodels.errors import FormulaError
from mixedmodels.formula import Number, Variable, formula_from_lists, group_name, parse, render, resolve_dot


def bars(text):
    return [render(bar) for bar in parse(text).bars]


@pytest.mark.parametrize(
    ("right", "expected", "names"),
    [
        ("(1 | g)", ["(1 | g)"], ["g"]),
        ("(Days | Subject)", ["(Days | Subject)"], ["Subject"]),
        ("(Days || Subject)", ["(Days || Subject)"], ["Subject"]),
        ("(0 + f | g)", ["(0 + f | g)"], ["g"]),
        ("(x - 1 | g)", ["(0 + x | g)"], ["g"]),
        ("(x * z | g)", ["(x + z + x:z | g)"], ["g"]),
        ("(1 | batch/cask)", ["(1 | cask:batch)", "(1 | batch)"], ["cask:batch", "batch"]),
        ("(1 | a/b/c)", ["(1 | c:b:a)", "(1 | b:a)", "(1 | a)"], ["c:b:a", "b:a", "a"]),
        ("(x || a/b)", ["(x || b:a)", "(x || a)"], ["b:a", "a"]),
        ("(1 | a:b)", ["(1 | a:b)"], ["a:b"]),
        ("(1 | a*b)", ["(1 | a)", "(1 | b)", "(1 | a:b)"], ["a", "b", "a:b"]),
        ("(1 | factor(g))", ["(1 | factor(g))"], ["factor(g)"]),
        ("(1 | `my g`)", ["(1 | `my g`)"], ["my g"]),
        ("(1 | `my g`:h)", ["(1 | `my g`:h)"], ["`my g`:h"]),
        ("((1 | g))", ["(1 | g)"], ["g"]),
        ("(1 | g) + (0 + x | g) + (1 | h)", ["(1 | g)", "(0 + x | g)", "(1 | h)"], ["g", "g", "h"]),
        ("us(x | g)", ["(x | g)"], ["g"]),
        ("diag(x | g)", ["(x || g)"], ["g"]),
        ("cs(x | g)", ["cs(x | g)"], ["g"]),
        ("ar1(0 + t | a/b)", ["ar1(0 + t | b:a)", "ar1(0 + t | a)"], ["b:a", "a"]),
        ("rr(f | g, 2)", ["rr(f | g, d = 2)"], ["g"]),
        ("rr(f | g, d = 2)", ["rr(f | g, d = 2)"], ["g"]),
        ("diag(f | g, hom = TRUE)", ["diag(f | g, hom = TRUE)"], ["g"]),
        ("propto(0 + f | g, A)", ["propto(0 + f | g, matrix = A)"], ["g"]),
        ("exp(pos | g)", ["exp(pos | g)"], ["g"]),
    ],
)
def test_bars(right, expected, names):
    formula = parse(f"y ~ x + {right}")
    assert [render(bar) for bar in formula.bars] == expected
    assert [group_name(bar) for bar in formula.bars] == names
    assert [render(term) for term in formula.fixed.terms] == ["x"]
    assert parse(str(formula)) == formula


def test_structures_and_options():
    diag, rr = parse("y ~ (f || g) + rr(f | g, d = 2)").bars
    assert diag.structure == "diag"
    assert (rr.structure, rr.options) == ("rr", (("d", Number(2.0)),))
    assert parse("y ~ us(x || g)").bars == parse("y ~ (x || g)").bars


def test_functions_named_like_structures_stay_functions():
    formula = parse("y ~ exp(x) + (1 | g)")
    assert [render(term) for term in formula.fixed.terms] == ["exp(x)"]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("y ~ x + 1|g", "write 'y ~ x + (1 | g)'"),
        ("y ~ x + z||g", "write 'y ~ x + (z || g)'"),
        ("y ~ x|g", "write 'y ~ (x | g)'"),
        ("y ~ a + b - c|g", "write 'y ~ (a + b - c | g)'"),
        ("y ~ x * (1 | g)", "can only be added"),
        ("y ~ x - (1 | g)", "cannot be subtracted"),
        ("y ~ (1 | g)^2", "can only be added"),
        ("y ~ ((1 | g) | h)", "inside another"),
        ("y ~ (1 | g | h)", "two bars"),
        ("y ~ (1 | g + h)", "(1 | a) + (1 | b)"),
        ("y ~ (1 | 1)", "not a grouping factor"),
        ("y ~ (1 | 'g')", "not a grouping factor"),
        ("y ~ (1 | .)", "not a grouping factor"),
        ("y ~ (0 | g)", "has no effects"),
        ("y ~ (x + offset(w) | g)", "outside the parentheses"),
        ("y ~ cs(x || g)", "'||' means diag"),
        ("y ~ cs(x | g, 2)", "by name"),
        ("y ~ rr(x | g, 2, d = 2)", "by name"),
        ("y ~ (x > 1 | g)", "wrap it as I(x > 1)"),
    ],
)
def test_errors(text, fragment):
    with pytest.raises(FormulaError) as error:
        parse(text)
    assert fragment in str(error.value)


COLUMNS = ["y", "a", "b", "my x", "g", "h"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y ~ .", "y ~ a + b + `my x` + g + h"),
        ("y ~ . + (1 | g)", "y ~ a + b + `my x` + h + (1 | g)"),
        ("y ~ . + (1 | g:h)", "y ~ a + b + `my x` + (1 | g:h)"),
        ("y ~ . - b + (1 | g) + (1 | h)", "y ~ a + `my x` + (1 | g) + (1 | h)"),
        ("log(y) ~ 0 + a:. + (1 | g/h)", "log(y) ~ 0 + a + a:b + a:`my x` + (1 | h:g) + (1 | g)"),
        ("y ~ (a + .)^2 - `my x`:. + (1 | g) + (1 | h)", "y ~ a + b + a:b + (1 | g) + (1 | h)"),
        ("y ~ . + g + (1 | g) + (1 | h)", "y ~ a + b + `my x` + g + (1 | g) + (1 | h)"),
        ("y ~ 1 + (. | g) + (1 | h)", "y ~ 1 + (a + b + `my x` | g) + (1 | h)"),
        ("cbind(a, y - a) ~ . + (1 | g) + (1 | h)", "cbind(a, y - a) ~ b + `my x` + (1 | g) + (1 | h)"),
        ("y ~ . + offset(a) + (1 | g)", "y ~ a + b + `my x` + h + offset(a) + (1 | g)"),
    ],
)
def test_dot(text, expected):
    formula = parse(text)
    assert formula.fixed.dot or any(bar.effects.dot for bar in formula.bars)
    assert parse(str(formula)) == formula
    resolved, notes = resolve_dot(formula, COLUMNS)
    assert str(resolved) == expected
    assert not resolved.fixed.dot
    assert len(notes) == 1


def test_dot_notes_name_what_was_left_out():
    _, (note,) = resolve_dot(parse("y ~ . + (1 | g)"), COLUMNS, ["h"])
    assert note == (
        "'.' stands for a, b, `my x`; the grouping columns g, h were left out (name them to include them)"
    )
    formula = parse("y ~ a + (1 | g)")
    assert resolve_dot(formula, COLUMNS) == (formula, ())


def test_dot_without_columns_or_with_the_response():
    with pytest.raises(FormulaError, match="stands for no column"):
        resolve_dot(parse("y ~ . + (1 | g)"), ["y", "g"])
    with pytest.raises(FormulaError, match="also a predictor"):
        resolve_dot(parse("y ~ . + y"), COLUMNS)


def test_formula_from_lists():
    formula = formula_from_lists(
        "y",
        ["intercept", "x", ("f", "x"), "my f"],
        [["intercept", "x"], ["no_intercept", "z"], ["intercept"]],
        ["g", "g", ("a", "b")],
    )
    assert str(formula) == "y ~ x + `my f` + f:x + (x | g) + (0 + z | g) + (1 | a:b)"
    assert parse(formula.text) == formula
    assert formula_from_lists("y", ["x"]).fixed.intercept is False
    assert formula_from_lists("y", ["intercept", "no_intercept", "x"]).fixed.intercept is False
    assert formula_from_lists("log(y)", ["intercept"]).response == Variable("log(y)")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("y", "x"), "must be a list"),
        (("", ["x"]), "name of a column"),
        (("y", ["x"], [["x"]], []), "1 lists and grouping 0 entries"),
        (("y", ["x"], [["x"]], "g"), "must be a list"),
        (("y", ["x"], ["x"], ["g"]), "must be a list"),
        (("y", [("x", "intercept")]), "pseudo-names"),
        (("y", [3]), "neither a name"),
        (("y", ["x"], [[]], ["g"]), "no effect"),
    ],
)
def test_formula_from_lists_errors(arguments, fragment):
    with pytest.raises(FormulaError) as error:
        formula_from_lists(*arguments)
    assert fragment in str(error.value)
