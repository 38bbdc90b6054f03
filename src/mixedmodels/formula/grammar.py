"""Tokens to an expression tree with R's operator precedence (a Pratt parser; nothing is evaluated).

From tightest to loosest: ``^`` (right to left), unary ``-`` and ``+``, ``:``, ``%any%``, ``* /``, ``+ -``,
comparison, ``!``, ``&``, ``|``. The same grammar reads formulas and the insides of calls; what the
operators mean at formula level is the business of `expansion`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mixedmodels.errors import FormulaError
from mixedmodels.formula.ast import Call, Expression, Number, Operation, Text, Variable
from mixedmodels.formula.tokenizer import END, NAME, NUMBER, OPERATOR, QUOTED, TEXT, error_at, tokenize

__all__ = ["is_plain_name", "parse_expression", "parse_sides"]

_BINDING = {
    "|": 4,
    "||": 4,
    "&": 6,
    "<": 10,
    "<=": 10,
    ">": 10,
    ">=": 10,
    "==": 10,
    "!=": 10,
    "+": 12,
    "-": 12,
    "*": 14,
    "/": 14,
    "%%": 16,
    "%/%": 16,
    "%in%": 16,
    ":": 18,
    "^": 22,
    "**": 22,
}
_COMPARISON = 10
_POWER = 22
_PREFIX = {"-": 20, "+": 20, "!": 8}
_PYTHON_CONSTANTS = {"True": "TRUE", "False": "FALSE", "None": "NULL"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), text)


class _Parser:
    __slots__ = ("at", "text", "tokens")

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.at = 0

    def unexpected(self, token: tuple[int, str, int]) -> FormulaError:
        kind, value, position = token
        if kind == END:
            return error_at(
                self.text, position, "the formula ends too early: a name or an expression is missing here"
            )
        message = f"unexpected {value!r}"
        if value == "~":
            message += ": a formula has one '~'"
        elif value == "=":
            message += ": write '~' between response and predictors, and '=' only for arguments of a function"
        elif value == "&&":
            message += ": write '&'"
        elif value == ",":
            message += ": a comma separates arguments inside a function call only"
        elif kind in (NAME, QUOTED, NUMBER, TEXT) or value == "(":
            message += ": an operator such as + or : is missing before it"
        elif value in ("|", "||"):
            message += ": a random-effects term is written (effects | group), for instance (1 | group)"
        elif value == ")" and self.at > 1 and self.tokens[self.at - 2][1] in ("|", "||"):
            message += ": name the grouping factor after the bar"
        else:
            message += ": a name or an expression is missing before it"
        return error_at(self.text, position, message)

    def expression(self, minimum: int) -> Expression:
        """Read operators that bind more tightly than `minimum`."""
        tokens = self.tokens
        left = self.prefix()
        while True:
            kind, value, _ = token = tokens[self.at]
            if kind != OPERATOR:
                break
            binding = _BINDING.get(value, 0)
            if binding <= minimum:
                break
            self.at += 1
            if binding == _POWER:
                left = Operation("^", (left, self.expression(binding - 2)))  # right to left
                continue
            right = self.expression(binding)
            left = Operation(value, (left, right))
            if binding == _COMPARISON:
                token = tokens[self.at]
                if token[0] == OPERATOR and _BINDING.get(token[1]) == _COMPARISON:
                    raise error_at(self.text, token[2], "comparisons do not chain: write (a < b) & (b < c)")
        return left

    def prefix(self) -> Expression:
        kind, value, _ = token = self.tokens[self.at]
        self.at += 1
        if kind == NAME:
            following = self.tokens[self.at]
            if following[1] == "(" and following[0] == OPERATOR:
                self.at += 1
                return self.call(value)
            return Variable(_PYTHON_CONSTANTS.get(value, value))
        if kind == NUMBER:
            return Number(float(value.rstrip("L")))
        if kind == OPERATOR:
            if value == "(":
                inner = self.expression(0)
                self.closing(token)
                return Operation("(", (inner,))
            binding = _PREFIX.get(value)
            if binding is not None:
                return Operation(value, (self.expression(binding),))
        elif kind == QUOTED:
            return Variable(_unescape(value))
        elif kind == TEXT:
            return Text(_unescape(value[1:-1]))
        raise self.unexpected(token)

    def closing(self, opening: tuple[int, str, int]) -> None:
        token = self.tokens[self.at]
        if token[1] == ")" and token[0] == OPERATOR:
            self.at += 1
            return
        if token[0] == END:
            raise error_at(self.text, opening[2], "this parenthesis is never closed")
        raise self.unexpected(token)

    def call(self, function: str) -> Call:
        opening = self.tokens[self.at - 1]
        tokens = self.tokens
        args: list[Expression] = []
        kwargs: list[tuple[str, Expression]] = []
        token = tokens[self.at]
        if token[1] == ")" and token[0] == OPERATOR:
            self.at += 1
            return Call(function)
        while True:
            kind, value, position = tokens[self.at]
            following = tokens[self.at + 1] if kind != END else tokens[self.at]
            if kind in (NAME, QUOTED) and following[1] == "=" and following[0] == OPERATOR:
                if kind == QUOTED:
                    value = _unescape(value)
                if any(value == name for name, _ in kwargs):
                    raise error_at(self.text, position, f"argument {value!r} of {function}() is given twice")
                self.at += 2
                kwargs.append((value, self.expression(0)))
            else:
                argument = self.expression(0)
                if kwargs:
                    raise error_at(
                        self.text,
                        position,
                        f"in {function}(), write arguments without a name before named ones",
                    )
                args.append(argument)
            token = tokens[self.at]
            if token[1] == "," and token[0] == OPERATOR:
                self.at += 1
                continue
            self.closing(opening)
            return Call(function, tuple(args), tuple(kwargs))


def parse_sides(text: str) -> tuple[Expression | None, Expression]:
    """Read ``response ~ rhs`` or ``~ rhs`` into two expression trees."""
    parser = _Parser(text)
    tokens = parser.tokens
    if tokens[0][0] == END:
        raise FormulaError("the formula is empty: write for instance 'y ~ x + (1 | group)'")
    response = None
    if not (tokens[0][1] == "~" and tokens[0][0] == OPERATOR):
        response = parser.expression(0)
    token = tokens[parser.at]
    if token[1] != "~" or token[0] != OPERATOR:
        if token[0] == END:
            raise FormulaError(
                f"the formula {text.strip()!r} has no '~': write 'response ~ predictors + (1 | group)'"
            )
        raise parser.unexpected(token)
    parser.at += 1
    if tokens[parser.at][0] == END:
        raise error_at(
            text,
            tokens[parser.at][2],
            "nothing follows '~': write predictors, or 1 for an intercept only",
        )
    right = parser.expression(0)
    if tokens[parser.at][0] != END:
        token = tokens[parser.at]
        if token[1] == ")":
            raise error_at(text, token[2], "this parenthesis was never opened")
        raise parser.unexpected(token)
    return response, right


def parse_expression(text: str) -> Expression:
    """Read one expression: no ``~``."""
    parser = _Parser(text)
    if parser.tokens[0][0] == END:
        raise FormulaError("an expression is empty: write for instance 'ar1(time | subject)'")
    node = parser.expression(0)
    token = parser.tokens[parser.at]
    if token[0] != END:
        if token[1] == ")":
            raise error_at(text, token[2], "this parenthesis was never opened")
        raise parser.unexpected(token)
    return node


@lru_cache(maxsize=1024)
def is_plain_name(text: str) -> bool:
    """Whether `text` is one name (in backticks or not)."""
    tokens = tokenize(text)
    return len(tokens) == 2 and tokens[0][0] in (NAME, QUOTED)
