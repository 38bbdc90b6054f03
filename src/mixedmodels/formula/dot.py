"""What ``.`` stands for, once the columns of the data are known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mixedmodels.errors import FormulaError
from mixedmodels.formula.ast import Formula, Variable
from mixedmodels.formula.expansion import expand_terms, refuse_response
from mixedmodels.formula.render import render, variables

__all__ = ["resolve_dot"]


def resolve_dot(
    formula: Formula, columns: Iterable[str], grouping: Iterable[str] = ()
) -> tuple[Formula, tuple[str, ...]]:
    """Replace ``.`` by the columns that are neither in the response nor grouping factors.

    Parameters
    ----------
    formula : Formula
        May or may not hold ``.``.
    columns : iterable of str
        Names of the data's columns, in order.
    grouping : iterable of str
        Columns to leave out in addition to those that the formula's bars group by.

    Returns
    -------
    formula : Formula
        Without ``.``.
    notes : tuple of str
        What ``.`` stands for and which grouping columns were left out.

    Raises
    ------
    FormulaError
        No column is left.

    Examples
    --------
    >>> from mixedmodels.formula import parse
    >>> resolved, notes = resolve_dot(parse("y ~ . + (1 | g)"), ["y", "a", "b", "g"])
    >>> str(resolved)
    'y ~ a + b + (1 | g)'
    >>> notes[0]
    "'.' stands for a, b; the grouping column g was left out (name it to include it)"
    """
    if not formula.fixed.dot and not any(bar.effects.dot for bar in formula.bars):
        return formula, ()
    groups = dict.fromkeys(grouping)
    for bar in formula.bars:
        for expression in bar.group:
            groups.update(dict.fromkeys(variables(expression)))
        groups.update(dict.fromkeys(column.name for _, column in bar.further))
    columns = list(columns)
    response = () if formula.response is None else variables(formula.response)
    kept = tuple(Variable(name) for name in columns if name not in groups and name not in response)
    left_out = [name for name in columns if name in groups and name not in response]
    if not kept:
        raise FormulaError(
            "'.' stands for no column: all columns are the response or grouping "
            "factors; write 1 for an intercept only"
        )
    fixed = formula.fixed
    if fixed.dot:
        fixed = expand_terms(fixed.terms[0].factors[0], kept)
        refuse_response(formula.response, fixed)
    bars = tuple(
        replace(bar, effects=expand_terms(bar.effects.terms[0].factors[0], kept)) if bar.effects.dot else bar
        for bar in formula.bars
    )
    note = f"'.' stands for {', '.join(render(column) for column in kept)}"
    if left_out:
        plural = "s" if len(left_out) > 1 else ""
        names = ", ".join(left_out)
        was = (
            "were left out (name them to include them)" if plural else "was left out (name it to include it)"
        )
        note += f"; the grouping column{plural} {names} {was}"
    return Formula(formula.response, fixed, bars, formula.text), (note,)
