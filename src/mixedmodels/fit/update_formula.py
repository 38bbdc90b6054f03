"""`update` of a formula text in which ``.`` stands for what was there before, as in R."""

from __future__ import annotations

import re
from typing import Any

from mixedmodels.errors import FormulaError

__all__ = ["updated_text"]

_DOT = re.compile(r"(?<![\w.)`])\.(?![\w.(`])")


def split_top_level(text: str) -> list[tuple[str, str]]:
    """Pieces of a right-hand side between its outermost plus and minus signs, as (sign, piece).

    Examples
    --------
    >>> split_top_level(". - (a + b | g) + x")
    [('+', '.'), ('-', '(a + b | g)'), ('+', 'x')]
    """
    pieces: list[tuple[str, str]] = []
    depth = 0
    quote = ""
    sign = "+"
    current = ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "`'\"":
            quote = letter
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif letter in "+-" and depth == 0:
            last = current.rstrip()
            if last and last[-1] not in "*:/^%~":
                pieces.append((sign, last.strip()))
                sign, current = letter, ""
                continue
            if not last:
                sign = "-" if (sign == "-") != (letter == "-") else "+"
                current = ""
                continue
        current += letter
    if current.strip():
        pieces.append((sign, current.strip()))
    return pieces


def has_bar(text: str) -> bool:
    """Whether a piece holds ``|`` outside quotes: it is a random-effects term."""
    quote = ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "`'\"":
            quote = letter
        elif letter == "|":
            return True
    return False


def updated_text(old: Any, text: str) -> str:
    """The new formula's text.

    Parameters
    ----------
    old : Formula
    text : str
        For instance ``". ~ . + x - (Days | Subject)"``. A bar term is removed by writing it as it was
        (spaces do not matter); fixed terms are removed by R's rules.

    Raises
    ------
    FormulaError
        No ``~``, or a bar term to remove that the model does not have.
    """
    from mixedmodels.formula import parse

    left, tilde, right = _at_tilde(text)
    if not tilde:
        raise FormulaError(f"the update {text!r} has no '~': write for instance '. ~ . + x'")
    response = _DOT.sub(lambda _: str(old.response), left.strip()) if left.strip() else str(old.response)
    old_fixed = str(old.fixed)
    fixed: list[str] = []
    bars: list[str] = []
    for sign, piece in split_top_level(right):
        if piece == ".":
            if sign == "-":
                raise FormulaError(f"the update {text!r} removes everything: '- .' is not a model")
            fixed.append(f"+ ({old_fixed})")
            bars += [str(bar) for bar in old.bars]
        elif has_bar(piece):
            named = [str(bar) for bar in parse(f"~ {_bracketed(piece)}").bars]
            if sign == "+":
                bars += named
                continue
            for bar in named:
                if bar not in bars:
                    there = ", ".join(bars) or "none"
                    raise FormulaError(
                        f"the update removes {bar}, which is not in the model (random terms: {there})"
                    )
                bars.remove(bar)
        else:
            fixed.append(f"{sign} {_DOT.sub(lambda _: f'({old_fixed})', piece)}")
    rhs = " ".join(fixed).removeprefix("+ ") or "1"
    if rhs.startswith("- "):
        rhs = "1 " + rhs
    return f"{response} ~ {' + '.join([rhs, *[_bracketed(bar) for bar in bars]])}"


def _bracketed(piece: str) -> str:
    return piece if piece.rstrip().endswith(")") else f"({piece})"


def _at_tilde(text: str) -> tuple[str, str, str]:
    left, tilde, right = text.partition("~")
    return left, tilde, right
