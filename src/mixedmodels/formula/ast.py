"""What a formula says, before any data: frozen nodes of expressions, terms and bars.

`Expression` nodes are the arguments of transforms (``log(x + 1)``); `Term` is a product of
expressions (an interaction); `Bar` is one random-effects term; `Formula` is the whole. ``str(node)``
spells every node as R does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "Bar",
    "Call",
    "Expression",
    "Formula",
    "Number",
    "Operation",
    "Term",
    "TermList",
    "Text",
    "Variable",
]


class _Spelled:
    """Nodes print as R-like text."""

    __slots__ = ()

    def __str__(self) -> str:
        from mixedmodels.formula.render import render

        return render(self)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Variable(_Spelled):
    """A column of the data, or a constant such as ``TRUE`` when used inside a call."""

    name: str


@dataclass(frozen=True, slots=True)
class Number(_Spelled):
    """A numeric literal inside a call."""

    value: float


@dataclass(frozen=True, slots=True)
class Text(_Spelled):
    """A quoted string inside a call."""

    value: str


@dataclass(frozen=True, slots=True)
class Call(_Spelled):
    """A transform: ``function(*args, **kwargs)``. `c(...)` vectors are calls of ``c``."""

    function: str
    args: tuple[Expression, ...] = ()
    kwargs: tuple[tuple[str, Expression], ...] = ()


@dataclass(frozen=True, slots=True)
class Operation(_Spelled):
    """Arithmetic inside a call.

    `operator` is one of + - * / ^ : %% %/% %in% < <= > >= == != & | ! with one argument (unary) or
    two, or "(" with one argument: parentheses are kept because R's labels show them.
    """

    operator: str
    args: tuple[Expression, ...]


Expression = Variable | Number | Text | Call | Operation


@dataclass(frozen=True, slots=True, eq=False)
class Term(_Spelled):
    """An interaction of `factors` in R's order; ``a`` is a term of one factor. The intercept is not a term.

    Two terms are equal when they hold the same factors: a:b is b:a.
    """

    factors: tuple[Expression, ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Term):
            return NotImplemented
        return self.factors == other.factors or frozenset(self.factors) == frozenset(other.factors)

    def __hash__(self) -> int:
        return hash(frozenset(self.factors))


@dataclass(frozen=True, slots=True)
class TermList(_Spelled):
    """An expanded right-hand side: intercept, terms sorted by order as R does, offsets.

    While ``.`` is unresolved (`dot`), `terms` holds one term: the whole right-hand side as written, to
    be expanded by `resolve_dot` when the columns are known (``.^2 - x`` has no terms before that).
    """

    intercept: bool
    terms: tuple[Term, ...]
    offsets: tuple[Expression, ...] = ()
    dot: bool = False


@dataclass(frozen=True, slots=True)
class Bar(_Spelled):
    """One random-effects term ``structure(effects | group)``.

    `structure` is "us" for ``(x | g)``, "diag" for ``(x || g)`` and ``diag(x | g)``, otherwise the tag
    (homdiag, cs, homcs, ar1, hetar1, toep, ou, exp, ...). `group` holds the expressions whose observed
    combinations are the levels: ``a:b`` is two. `options` are keyword arguments of the tag.
    `further` has the other effects of ``joint(1 | animal, 1 | dam)`` with the columns that hold their levels.
    """

    effects: TermList
    group: tuple[Expression, ...]
    structure: str = "us"
    options: tuple[tuple[str, Expression], ...] = ()
    further: tuple[tuple[TermList, Variable], ...] = ()


@dataclass(frozen=True, slots=True)
class Formula(_Spelled):
    """A whole model formula: ``response ~ fixed + bars``; `text` is what the user wrote."""

    response: Expression | None
    fixed: TermList
    bars: tuple[Bar, ...]
    text: str = field(compare=False, default="")
