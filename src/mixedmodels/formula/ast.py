"""What a formula says, before any data: frozen nodes of expressions, terms and bars.

`Expression` nodes are the arguments of transforms (``log(x + 1)``); `Term` is a product of
expressions (an interaction); `Bar` is one random-effects term; `Formula` is the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Bar", "Call", "Expression", "Formula", "Number", "Operation", "Term", "TermList", "Text", "Variable"]


@dataclass(frozen=True, slots=True)
class Variable:
    """A column of the data, or a constant such as ``TRUE`` when used inside a call."""

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric literal inside a call."""

    value: float


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string inside a call."""

    value: str


@dataclass(frozen=True, slots=True)
class Call:
    """A transform: ``function(*args, **kwargs)``. `c(...)` vectors are calls of ``c``."""

    function: str
    args: tuple[Expression, ...] = ()
    kwargs: tuple[tuple[str, Expression], ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """Arithmetic inside a call: `operator` is one of + - * / ^ %% %/% < <= > >= == != & | ! (unary: one argument)."""

    operator: str
    args: tuple[Expression, ...]


Expression = Variable | Number | Text | Call | Operation


@dataclass(frozen=True, slots=True)
class Term:
    """An interaction of `factors` in R's order; ``a`` is a term of one factor. The intercept is not a term."""

    factors: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class TermList:
    """An expanded right-hand side: intercept, terms sorted by order as R does, offsets; `dot` if ``.`` is unresolved."""

    intercept: bool
    terms: tuple[Term, ...]
    offsets: tuple[Expression, ...] = ()
    dot: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One random-effects term ``structure(effects | group)``.

    `structure` is "us" for ``(x | g)``, "diag" for ``(x || g)`` and ``diag(x | g)``, otherwise the tag
    (homdiag, cs, homcs, ar1, hetar1, toep, ou, exp, ...). `group` holds the expressions whose observed
    combinations are the levels: ``a:b`` is two. `options` are keyword arguments of the tag.
    """

    effects: TermList
    group: tuple[Expression, ...]
    structure: str = "us"
    options: tuple[tuple[str, Expression], ...] = ()


@dataclass(frozen=True, slots=True)
class Formula:
    """A whole model formula: ``response ~ fixed + bars``; `text` is what the user wrote."""

    response: Expression | None
    fixed: TermList
    bars: tuple[Bar, ...]
    text: str = field(compare=False, default="")
