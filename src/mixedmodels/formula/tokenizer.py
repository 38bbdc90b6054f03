"""Formula text to tokens: one compiled regular expression, one pass."""

from __future__ import annotations

import re

from mixedmodels.errors import FormulaError

__all__ = ["END", "NAME", "NUMBER", "OPERATOR", "QUOTED", "TEXT", "Token", "error_at", "tokenize"]

NUMBER, NAME, QUOTED, TEXT, OPERATOR, END = range(1, 7)
"""Kinds of tokens; `QUOTED` is a name in backticks. The numbers are the groups of the pattern."""

Token = tuple[int, str, int]
"""(kind, text, position of the first character)."""

_PATTERN = re.compile(
    r"""\s*(?:
      ((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?L?)           # 1: number
    | ((?:[^\W\d]|\.(?!\d))[\w.]*)                       # 2: name, dots allowed as in R
    | `((?:[^`\\]|\\.)+)`                                # 3: any name in backticks
    | ("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')              # 4: text
    | (\*\*|<=|>=|==|!=|&&|\|\||%%|%/%|%in%|[-+*/:^()|~,=<>!&])  # 5: operator
    | (\Z)                                               # 6: end
    )""",
    re.VERBOSE | re.DOTALL,
)

_REMEDIES = {
    "$": "name columns without the data frame: write x, not data$x",
    "[": "indexing is not part of a formula: make a column first, or put awkward names in backticks",
    "@": "write plain column names",
    "{": "code blocks are not part of a formula: make a column first",
    ";": "write one formula",
    "%": "the operators between percent signs are %in%, %% and %/%",
    "`": "a name in backticks needs a closing backtick",
    '"': "the quoted text needs a closing quote",
    "'": "the quoted text needs a closing quote",
    "\\": "functions are not defined in a formula: pass them with functions=",
    "#": "comments are not part of a formula; put column names that hold such characters in backticks",
    "∼": "write '~'",
    "˜": "write '~'",
    "～": "write '~'",
    "＋": "write '+'",
    "−": "write '-'",
    "–": "write '-'",
    "—": "write '-'",
    "×": "write '*' or ':'",
    "∗": "write '*'",
    "：": "write ':'",
    "｜": "write '|'",
    "∣": "write '|'",
    "（": "write '('",
    "）": "write ')'",
    "“": "write a straight quote",
    "”": "write a straight quote",
    "‘": "write a straight quote, or a backtick around a name",
    "’": "write a straight quote, or a backtick around a name",
    "´": "write a backtick around a name",
}


def error_at(text: str, position: int, message: str) -> FormulaError:
    """A `FormulaError` that shows the line with a caret under `position`."""
    line_start = text.rfind("\n", 0, position) + 1
    line_end = text.find("\n", position)
    line = text[line_start : len(text) if line_end < 0 else line_end]
    column = position - line_start
    if column > 60:  # keep the caret in sight in long formulas
        cut = column - 40
        line, column = "..." + line[cut:], column - cut + 3
    line = line[: column + 60].replace("\t", " ")
    return FormulaError(f"{message}\n    {line}\n    {' ' * column}^")


def tokenize(text: str) -> list[Token]:
    """Split `text` into tokens; the last one is `END`."""
    tokens: list[Token] = []
    append = tokens.append
    match = _PATTERN.match
    position = 0
    while True:
        found = match(text, position)
        if found is None:
            while text[position].isspace():
                position += 1
            character = text[position]
            remedy = _REMEDIES.get(character, "put column names that hold such characters in backticks")
            raise error_at(text, position, f"the formula holds {character!r}, which cannot be read; {remedy}")
        kind = found.lastindex or END
        append((kind, found[kind], found.start(kind)))
        if kind == END:
            return tokens
        position = found.end()
