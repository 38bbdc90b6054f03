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
    header, rows = table.header, table.rows
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    pattern = " " * table.indent
    padded = False
    for j, align in enumerate(table.align):
        lengths = [len(cell) for cell in columns[j]]
        inner = max(lengths, default=0)
        if align == "n" and min(lengths, default=0) != inner:
            columns[j] = tuple([cell.rjust(inner) for cell in columns[j]])
            padded = True
        width = max(len(header[j]), inner)
        pattern += f"%{width}s " if align == "r" else f"%-{width}s "
    pattern = pattern[:-1]
    if padded:
        rows = tuple(zip(*columns, strict=True))
    lines = [f"{table.title}:"] if table.title else []
    lines.append((pattern % header).rstrip())
    lines += [(pattern % row).rstrip() for row in rows]
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
