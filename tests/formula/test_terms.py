"""Term expansion against R's terms()."""

from __future__ import annotations

import json
import pathlib

import pytest

from mixedmodels.errors import FormulaError
from mixedmodels.formula import Term, Variable, parse, render, term_label

REFERENCES = pathlib.Path(__file__).parents[1] / "references" / "formula"
CASES = json.loads((REFERENCES / "terms.json").read_text())
SPELLINGS = json.loads((REFERENCES / "spelling.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["formula"])
def test_terms_as_r(case):
    formula = parse(case["formula"])
    assert [term_label(term) for term in formula.fixed.terms] == case["labels"]
    assert formula.fixed.intercept == case["intercept"]
    assert [f"offset({render(offset)})" for offset in formula.fixed.offsets] == case["offsets"]


@pytest.mark.parametrize("case", SPELLINGS, ids=lambda case: case["text"])
def test_expressions_are_spelled_as_r_spells_them(case):
    (term,) = parse(f"y ~ I({case['text']})").fixed.terms
    assert term_label(term) == f"I({case['spelled']})"


def test_terms_are_equal_in_any_order_of_factors():
    a, b, c = Variable("a"), Variable("b"), Variable("c")
    assert Term((a, b)) == Term((b, a))
    assert hash(Term((a, b))) == hash(Term((b, a)))
    assert Term((a, b)) != Term((a, c))
    assert Term((a, b)) != Term((a,))
    assert Term((a,)) != a


def test_power_larger_than_number_of_terms_is_everything():
    assert parse("y ~ (a + b)^9").fixed == parse("y ~ a * b").fixed
    assert parse("y ~ (a + b)**2").fixed == parse("y ~ a * b").fixed


def test_thousands_of_terms_do_not_recurse():
    formula = parse("y ~ " + " + ".join(f"x{j}" for j in range(3000)))
    assert len(formula.fixed.terms) == 3000
    assert parse(str(formula)) == formula


def test_repeated_offsets_count_once_and_can_be_removed():
    assert parse("y ~ x + offset(w) + offset(w)").fixed.offsets == (Variable("w"),)
    assert parse("y ~ x + offset(w) + offset(v) - offset(w)").fixed.offsets == (Variable("v"),)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("y ~ 2 * x", "the number 2 is not a term"),
        ("y ~ 'x'", "without quotes"),
        ("y ~ x > 1", "wrap it as I(x > 1)"),
        ("y ~ x %% 2", "wrap it as I(x%%2)"),
        ("y ~ !x", "wrap it as I(!x)"),
        ("y ~ x^z", "whole number"),
        ("y ~ x^0", "whole number"),
        ("y ~ x^1.5", "whole number"),
        ("y ~ TRUE", "the constant TRUE"),
        ("y ~ y + x", "also a predictor"),
        ("y ~ offset(a, b)", "offset() takes one expression"),
        ("1 ~ x", "is not a column"),
        (". ~ x", "is not a column"),
        ("y | trials(n) ~ x", "holds a bar"),
    ],
)
def test_what_is_not_a_term_is_refused_with_a_remedy(text, fragment):
    with pytest.raises(FormulaError) as error:
        parse(text)
    assert fragment in str(error.value)
