"""Formulas from lists of names, for programs that build models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mixedmodels.errors import FormulaError
from mixedmodels.formula.ast import Bar, Formula, Term, TermList, Variable
from mixedmodels.formula.expansion import refuse_response
from mixedmodels.formula.render import render

__all__ = ["formula_from_lists"]

_INTERCEPT = "intercept"
_NO_INTERCEPT = "no_intercept"

Effect = str | Sequence[str]


def formula_from_lists(
    response: str,
    fixed: Iterable[Effect],
    random: Iterable[Iterable[Effect]] = (),
    grouping: Iterable[Effect] = (),
) -> Formula:
    """Build a formula from names; each name is taken literally, so no quoting is needed.

    Parameters
    ----------
    response : str
        Response column.
    fixed : iterable of str or tuple of str
        Fixed effects; a tuple is an interaction. The pseudo-name ``"intercept"`` asks for an intercept;
        without it, or with ``"no_intercept"``, there is none.
    random : iterable of iterables
        One list per random-effects term, in the form of `fixed`. Effects of one list are correlated,
        those of different lists independent.
    grouping : iterable of str or tuple of str
        Grouping factor of each list in `random`; a tuple stands for the combinations of its columns.

    Returns
    -------
    Formula

    Raises
    ------
    FormulaError
        The lists do not fit together, or an entry is not a name.

    Examples
    --------
    >>> print(formula_from_lists("y", ["intercept", "x", ("x", "f")], [["intercept", "x"]], [("a", "b")]))
    y ~ x + x:f + (x | a:b)
    """
    if not isinstance(response, str) or not response:
        raise FormulaError(f"response must be the name of a column, not {response!r}")
    random, grouping = list(_entries(random, "random")), list(_entries(grouping, "grouping"))
    if len(random) != len(grouping):
        raise FormulaError(
            f"random has {len(random)} lists and grouping {len(grouping)} "
            "entries: give one grouping factor per list"
        )
    bars = []
    for number, (effects, group) in enumerate(zip(random, grouping, strict=True), start=1):
        terms = _term_list(effects, f"random[{number - 1}]")
        factors = _factors(group, f"grouping[{number - 1}]")
        if not terms.intercept and not terms.terms:
            raise FormulaError(f'random[{number - 1}] holds no effect: list "intercept" or a column')
        bars.append(Bar(terms, factors))
    formula = Formula(Variable(response), _term_list(fixed, "fixed"), tuple(bars))
    refuse_response(formula.response, formula.fixed)
    return Formula(formula.response, formula.fixed, formula.bars, render(formula))


def _entries(values: Iterable[Any], what: str) -> Iterable[Any]:
    if isinstance(values, str):
        raise FormulaError(f"{what} must be a list of entries, not the text {values!r}")
    if not isinstance(values, Iterable):
        raise FormulaError(f"{what} must be a list of entries, not {values!r}")
    return values


def _factors(entry: Effect, what: str) -> tuple[Variable, ...]:
    names = (entry,) if isinstance(entry, str) or not isinstance(entry, Iterable) else tuple(entry)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise FormulaError(f"{what}: {entry!r} is neither a name nor a tuple of names")
    if any(name in (_INTERCEPT, _NO_INTERCEPT) for name in names):
        raise FormulaError(
            f"{what}: {entry!r}: the pseudo-names intercept and no_intercept cannot be part of it"
        )
    return tuple(Variable(name) for name in dict.fromkeys(names))


def _term_list(effects: Iterable[Effect], what: str) -> TermList:
    intercept, excluded = False, False
    terms: dict[Term, None] = {}
    for entry in _entries(effects, what):
        if entry == _INTERCEPT:
            intercept = True
        elif entry == _NO_INTERCEPT:
            excluded = True
        else:
            terms[Term(_factors(entry, what))] = None
    ordered = sorted(terms, key=lambda term: len(term.factors))
    return TermList(intercept and not excluded, tuple(ordered))
