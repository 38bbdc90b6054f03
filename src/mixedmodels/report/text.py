"""Plain text of tables and summaries, in the layout readers of lme4 know."""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixedmodels.report.summary import Summary
    from mixedmodels.report.table import Table

__all__ = ["render_summary", "render_table"]


def render_table(table: Table) -> str:
    """A table as lines of text, columns separated by one space."""
    title, header, rows, align, indent, after = table
    if "n" in align and rows:
        columns = [
            _as_wide(column) if letter == "n" else column
            for letter, column in zip(align, zip(*rows, strict=True), strict=True)
        ]
        rows = tuple(zip(*columns, strict=True))
    widths = tuple([max(map(len, column)) for column in zip(header, *rows, strict=True)])
    pattern = _pattern(align, widths, indent)
    lines = [f"{title}:"] if title else []
    lines.append((pattern % header).rstrip())
    lines += [(pattern % row).rstrip() for row in rows]
    if after:
        lines.append(after)
    return "\n".join(lines)


def _as_wide(cells: tuple[str, ...]) -> tuple[str, ...]:
    """Cells padded on the left to the widest of them."""
    inner = max(map(len, cells))
    return tuple([cell.rjust(inner) for cell in cells])


@lru_cache(maxsize=256)
def _pattern(align: str, widths: tuple[int, ...], indent: int) -> str:
    """Format of one line: columns of these widths, right-aligned where the letter is ``r``."""
    cells = [f"%{'' if letter == 'r' else '-'}{width}s" for letter, width in zip(align, widths, strict=True)]
    return " " * indent + " ".join(cells)


def render_summary(summary: Summary) -> str:
    """A summary as text: title, facts, tables and notes, separated by empty lines."""
    head = [summary.title]
    head += [_folded(f"{name}: {value}") for name, value in summary.facts]
    blocks = ["\n".join(head)]
    blocks += [render_table(table) for table in summary.tables]
    if summary.notes:
        blocks.append("\n".join(_wrapped(note) for note in summary.notes))
    return "\n\n".join(blocks)


def _folded(fact: str, width: int = 104) -> str:
    """A fact, with long formulas folded before a ``+`` between terms (never inside a quoted name)."""
    if len(fact) <= width:
        return fact
    pieces = re.split(r"\s*\+\s*(?=(?:[^`]*`[^`]*`)*[^`]*$)", fact)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) + 3 > width:
            lines.append(f"         + {piece}")
        else:
            lines[-1] += f" + {piece}"
    return "\n".join(lines)


def _wrapped(note: str) -> str:
    if len(note) <= 98:
        return "Note: " + note
    return textwrap.fill("Note: " + note, width=104, subsequent_indent="      ", break_long_words=False)
