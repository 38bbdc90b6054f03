"""The text of a residual structure: ``ar1(time | subject) * varident(sex)`` to frozen terms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mixedmodels.errors import FormulaError
from mixedmodels.formula.ast import Call, Expression, Number, Operation, Text, Variable
from mixedmodels.formula.grammar import parse_expression
from mixedmodels.formula.render import render

__all__ = ["ResidualTerm", "parse_factors", "parse_residual"]

_VALUES = {"TRUE": True, "FALSE": False, "NULL": None}


@dataclass(frozen=True, slots=True)
class ResidualTerm:
    """One factor of a residual structure.

    Attributes
    ----------
    tag : str
        ``ar1``, ``varident``, ...
    covariates : tuple of str
        Expressions before the bar, without the 1 that stands for none.
    group : str or None
        Grouping factor; ``a:b`` for the combinations of two.
    options : tuple of (name, value)
        Numbers, texts, truth values, None, or the text of an expression.
    """

    tag: str
    covariates: tuple[str, ...]
    group: str | None
    options: tuple[tuple[str, float | str | bool | None], ...]


@lru_cache(maxsize=256)
def parse_residual(text: str) -> tuple[ResidualTerm, ...]:
    """Read the text of a residual structure.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of ResidualTerm

    Raises
    ------
    FormulaError
        The text is not a product of calls such as ``ar1(time | subject)``.

    Examples
    --------
    >>> for term in parse_residual("arma(time | g, p=1, q=1) * varpower(x)"):
    ...     print(term.tag, term.covariates, term.group, term.options)
    arma ('time',) g (('p', 1.0), ('q', 1.0))
    varpower ('x',) None ()
    """
    if not isinstance(text, str):
        raise FormulaError(
            f"a residual structure is text such as 'ar1(time | subject)', not {type(text).__name__}"
        )
    if "~" in text:
        raise FormulaError(
            f"{text!r}: a residual structure has no '~'; nlme's corAR1(form = ~ t | g) is written "
            "'ar1(t | g)', varIdent(form = ~ 1 | f) is 'varident(f)' and varPower(form = ~ x) 'varpower(x)'"
        )
    return tuple(_term(node) for node in _factors(parse_expression(text)))


def parse_factors(text: str) -> tuple[Expression, ...]:
    """The expressions of ``a:b:c``."""
    out: list[Expression] = []
    node = parse_expression(text)
    while isinstance(node, Operation) and node.operator in (":", "/"):
        out.append(node.args[1])
        node = node.args[0]
    out.append(node)
    return tuple(reversed(out))


def _factors(node: Expression) -> list[Expression]:
    """Operands of a product, left to right."""
    if isinstance(node, Operation):
        if node.operator == "*":
            return [*_factors(node.args[0]), *_factors(node.args[1])]
        if node.operator == "(":
            return _factors(node.args[0])
    return [node]


def _term(node: Expression) -> ResidualTerm:
    if not isinstance(node, Call):
        remedy = "write for instance 'ar1(time | subject) * varident(sex)'"
        if isinstance(node, Variable):
            remedy = f"write {node.name}(...) with its covariates, for instance 'ar1(time | subject)'"
        elif isinstance(node, Operation) and node.operator == "+":
            remedy = "factors of a residual structure are multiplied: write '*' instead of '+'"
        raise FormulaError(f"'{render(node)}' is not a residual structure; {remedy}")
    if len(node.args) > 1:
        raise FormulaError(
            f"'{render(node)}': {node.function}() takes one argument without a name, such as 'time | "
            "subject' "
            "or 'x + y | group'; write options as name=value"
        )
    covariates: tuple[str, ...] = ()
    group = None
    if node.args:
        inner = node.args[0]
        while isinstance(inner, Operation) and inner.operator == "(":
            inner = inner.args[0]
        if isinstance(inner, Operation) and inner.operator in ("|", "||"):
            if inner.operator == "||":
                raise FormulaError(f"'{render(node)}': write one bar before the grouping factor")
            inner, right = inner.args
            group = render(right)
        parts = _sum(inner)
        numbers = [one for one in parts[1:] if isinstance(one, Number) and one.value != 0.0]
        if numbers and node.function != "loglin":  # a constant, as in R's 1 + t, comes first
            raise FormulaError(
                f"'{render(node)}': '+' joins covariates, so a number there says nothing; write "
                f"I({render(inner)}) for the arithmetic, or leave the number out"
            )
        covariates = tuple(render(one) for one in parts if not _is_one(one))
    return ResidualTerm(
        node.function, covariates, group, tuple((name, _value(value)) for name, value in node.kwargs)
    )


def _sum(node: Expression) -> list[Expression]:
    if isinstance(node, Operation) and node.operator == "+" and len(node.args) == 2:
        return [*_sum(node.args[0]), *_sum(node.args[1])]
    return [node]


def _is_one(node: Expression) -> bool:
    return isinstance(node, Number) and node.value in (0.0, 1.0)


def _value(node: Expression) -> float | str | bool | None:
    if isinstance(node, (Number, Text)):
        return node.value
    if isinstance(node, Operation) and node.operator == "-" and len(node.args) == 1:
        inner = node.args[0]
        if isinstance(inner, Number):
            return -inner.value
    if isinstance(node, Variable) and node.name in _VALUES:
        return _VALUES[node.name]
    return render(node)
