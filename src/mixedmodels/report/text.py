"""Plain text of tables and summaries, in the layout readers of lme4 know."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixedmodels.report.summary import Summary
    from mixedmodels.report.table import Table

__all__ = ["render_summary", "render_table"]


def render_table(table: Table) -> str:
    """A table as lines of text, columns separated by one space."""
    columns = []
    for j, (head, align) in enumerate(zip(table.header, table.align, strict=True)):
        cells = [row[j] for row in table.rows]
        if align == "n":
            inner = max(map(len, cells), default=0)
            cells = [cell.rjust(inner) for cell in cells]
        width = max(len(head), max(map(len, cells), default=0))
        if align == "r":
            columns.append([head.rjust(width)] + [cell.rjust(width) for cell in cells])
        else:
            columns.append([head.ljust(width)] + [cell.ljust(width) for cell in cells])
    margin = " " * table.indent
    lines = [(margin + " ".join(line)).rstrip() for line in zip(*columns, strict=True)]
    if table.title:
        lines.insert(0, table.title + ":")
    if table.after:
        lines.append(table.after)
    return "\n".join(lines)


def render_summary(summary: Summary) -> str:
    """A summary as text: title, facts, tables and notes, separated by empty lines."""
    head = [summary.title]
    head += [f"{name}: {value}" for name, value in summary.facts]
    blocks = ["\n".join(head)]
    blocks += [render_table(table) for table in summary.tables]
    if summary.notes:
        blocks.append("\n".join(_wrapped(note) for note in summary.notes))
    return "\n\n".join(blocks)


def _wrapped(note: str) -> str:
    if len(note) <= 98:
        return "Note: " + note
    return textwrap.fill("Note: " + note, width=104, subsequent_indent="      ", break_long_words=False)
