"""The formula language: text to frozen nodes, with R's semantics and no evaluation."""

from __future__ import annotations

from functools import lru_cache

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
from mixedmodels.formula.dot import resolve_dot
from mixedmodels.formula.expansion import STRUCTURES, expand_formula
from mixedmodels.formula.grammar import parse_sides
from mixedmodels.formula.lists import formula_from_lists
from mixedmodels.formula.render import group_name, render, term_label, variables
from mixedmodels.formula.residual import ResidualTerm, parse_factors, parse_residual

__all__ = [
    "STRUCTURES",
    "Bar",
    "Call",
    "Expression",
    "Formula",
    "Number",
    "Operation",
    "ResidualTerm",
    "Term",
    "TermList",
    "Text",
    "Variable",
    "formula_from_lists",
    "group_name",
    "parse",
    "parse_factors",
    "parse_residual",
    "render",
    "resolve_dot",
    "term_label",
    "variables",
]


@lru_cache(maxsize=512)
def _parse(text: str) -> Formula:
    try:
        response, right = parse_sides(text)
        return expand_formula(response, right, text)
    except RecursionError:
        raise FormulaError(
            "the formula is nested too deeply: make columns of its inner expressions first"
        ) from None


def parse(text: str) -> Formula:
    """Read a model formula in R's language; nothing in it is evaluated.

    ``+ - * / : ^ ** %in% . 0 1`` and parentheses have R's meaning; calls such as ``poly(x, 2)`` or
    ``I(x^2)`` are kept as expressions. ``(x | g)`` is a random-effects term with correlated effects,
    ``(x || g)`` one with independent effects (also between the levels of a factor), ``(x | a/b)`` stands
    for ``(x | b:a) + (x | a)``, and tags choose other structures: ``cs(x | g)``, ``ar1(0 + t | g)``.

    Parameters
    ----------
    text : str
        The formula.

    Returns
    -------
    Formula
        Frozen; the same text gives the same object.

    Raises
    ------
    FormulaError
        The text is not a formula; the message shows the place and what to write.

    Examples
    --------
    >>> formula = parse("Reaction ~ Days + (Days | Subject)")
    >>> [str(term) for term in formula.fixed.terms], formula.fixed.intercept
    (['Days'], True)
    >>> [str(bar) for bar in parse("y ~ 1 + (1 | batch/cask)").bars]
    ['(1 | cask:batch)', '(1 | batch)']
    """
    if not isinstance(text, str):
        raise FormulaError(f"a formula is text such as 'y ~ x + (1 | g)', not {type(text).__name__}")
    return _parse(text)
