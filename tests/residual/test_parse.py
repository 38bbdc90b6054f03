"""The text of a residual structure: what it says, and what errors say."""

from __future__ import annotations

import re

import numpy as np
import pytest

import mixedmodels as mm
from mixedmodels.formula import parse_residual
from mixedmodels.frame.residual import columns_of, structure_of
from mixedmodels.residual import AR1, REGISTRY, Exponential, VarIdent


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("ar1(time | subject)", "ar1(time | subject)"),
        ("ar1(1|subject, rho = 0.5)", "ar1(1 | subject, rho=0.5)"),
        ("ar1(0 + time | subject)", "ar1(time | subject)"),
        ("varident( sex )*ar1(time|subject)", "varident(sex) * ar1(time | subject)"),
        ("varident(sex, by=arm)", "varident(sex:arm)"),
        ("us(visit | a:b, by=arm)", "us(visit | a:b, by=arm)"),
        ("arma(t | g, p=2, q=1)", "arma(t | g, p=2, q=1)"),
        (
            "exp(x + y | g, nugget=True, metric='manhattan')",
            'exp(x + y | g, nugget=True, metric="manhattan")',
        ),
        ("exp(x + y, nugget=0.1)", "exp(x + y, nugget=0.1)"),
        ("mat(x + y, smoothness=1.5)", "mat(x + y, smoothness=1.5)"),
        ("varpower()", "varpower(fitted)"),
        ("varpower(fitted, by=sex)", "varpower(fitted, by=sex)"),
        ("varexp(log(x), expon=-0.5)", "varexp(log(x), expon=-0.5)"),
        ("loglin(x + I(x^2)) * varfixed(1/w)", "loglin(x + I(x^2)) * varfixed(1/w)"),
        ("varconstprop(x, const=2)", "varconstprop(x, const=2)"),
    ],
)
def test_text_and_objects_are_spelled_alike(text, spelled):
    assert str(structure_of(text)) == spelled
    assert str(structure_of(spelled)) == spelled  # what is printed can be read again


def test_objects_and_text_say_the_same():
    assert str(AR1("time", "subject") * VarIdent("sex")) == str(
        structure_of("ar1(time | subject) * varident(sex)")
    )
    assert str(Exponential("x", "y", group="g", nugget=True)) == "exp(x + y | g, nugget=True)"
    assert mm.residual.AR1 is AR1


def test_columns_that_are_read():
    structure = structure_of("us(visit | subject, by=arm) * varpower(log(x)) * varident(a:b)")
    assert set(columns_of(structure)) == {"visit", "subject", "arm", "x", "a", "b"}


@pytest.mark.parametrize("row", [row for row in REGISTRY.values() if row.tag != "known"], ids=lambda r: r.tag)
def test_usages_of_the_table_can_be_read(row):
    for usage in row.usage.split(" or "):
        (part,) = structure_of(usage).parts()
        assert type(part) is row.cls


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", mm.FormulaError, "empty"),
        ("ar1", mm.FormulaError, "write ar1"),
        ("ar1(t | g) + cs(1 | g)", mm.FormulaError, "'*' instead of '+'"),
        ("varpower(t + 1)", mm.FormulaError, "write I(t + 1) for the arithmetic"),
        ("corAR1(form = ~ t | g)", mm.FormulaError, "is written 'ar1(t | g)'"),
        ("ar1(t, g)", mm.FormulaError, "one argument without a name"),
        ("ar1(t || g)", mm.FormulaError, "one bar"),
        ("ar1(t | g", mm.FormulaError, "never closed"),
        ("ar1(t | g) varident(f)", mm.FormulaError, "an operator such as"),
        ("ar2(t | g)", mm.OptionError, "did you mean 'ar1'"),
        ("corAR1(t | g)", mm.OptionError, "available: ar1"),
        ("ar1(t + s | g)", mm.OptionError, "is written ar1(time | g)"),
        ("cs(t | g)", mm.OptionError, "is written cs(1 | g)"),
        ("varident(f | g)", mm.OptionError, "takes no grouping factor"),
        ("varident()", mm.OptionError, "is written varident(f)"),
        ("varfixed(v, by=g)", mm.OptionError, "takes no by="),
        ("ar1(t | g) * cs(1 | g)", mm.OptionError, "at most one correlation"),
        ("ar1(t | g, rho=high)", mm.OptionError, "rho = 'high'"),
        ("arma(t | g)", mm.OptionError, "p= or q="),
        ("arma(t | g, p=1.5)", mm.OptionError, "whole number"),
        ("exp(x + y, metric='taxi')", mm.OptionError, "euclidean, manhattan, maximum"),
        ("exp(1 | g)", mm.OptionError, "needs coordinates"),
        ("known(V | g)", mm.OptionError, "text cannot hold"),
        ("varconstprop(x, const=-1)", mm.OptionError, "positive"),
    ],
)
def test_errors_name_the_remedy(text, error, words):
    with pytest.raises(error, match=re.escape(words)):
        structure_of(text)


def test_other_things_than_text():
    with pytest.raises(mm.OptionError, match="not int"):
        structure_of(3)
    with pytest.raises(mm.FormulaError, match="not list"):
        parse_residual.__wrapped__(["ar1(t | g)"])


def test_known_needs_a_covariance():
    with pytest.raises(mm.OptionError, match="square"):
        mm.residual.Known(np.ones((2, 3)))
    with pytest.raises(mm.OptionError, match="symmetric"):
        mm.residual.Known([[1.0, 0.2], [0.5, 1.0]])
    with pytest.raises(mm.OptionError, match="not positive definite"):
        mm.residual.Known([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(mm.OptionError, match="3 labels for a matrix of 2"):
        mm.residual.Known(np.eye(2), "v", "g", labels=["a", "b", "c"])
