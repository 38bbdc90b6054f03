"""Markdown of tables and summaries (pipe tables)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixedmodels.report.summary import Summary
    from mixedmodels.report.table import Table

__all__ = ["code_markdown", "escape_markdown", "render_summary", "render_table"]

_SPECIAL = str.maketrans(
    {
        "\\": "\\\\",
        "|": "\\|",
        "*": "\\*",
        "_": "\\_",
        "`": "\\`",
        "<": "&lt;",
        ">": "&gt;",
        "[": "\\[",
        "]": "\\]",
    }
)


def escape_markdown(text: str) -> str:
    """Text with Markdown's special characters escaped."""
    return text.translate(_SPECIAL)


def code_markdown(text: str) -> str:
    """Text as code, in double backticks if it holds single ones."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def render_table(table: Table) -> str:
    """A table as a pipe table."""
    lines = []
    if table.title:
        lines += [f"**{escape_markdown(table.title)}**", ""]
    lines.append("| " + " | ".join(escape_markdown(head.strip()) for head in table.header) + " |")
    lines.append("|" + "|".join(":---" if letter == "l" else "---:" for letter in table.align) + "|")
    for row in table.rows:
        lines.append("| " + " | ".join(escape_markdown(cell.strip()) for cell in row) + " |")
    if table.after:
        lines += ["", escape_markdown(table.after).replace("\n", "  \n")]
    return "\n".join(lines)


def render_summary(summary: Summary) -> str:
    """A summary as Markdown."""
    blocks = [f"### {escape_markdown(summary.title)}"]
    blocks += [f"{escape_markdown(name.strip())}: {code_markdown(value)}" for name, value in summary.facts]
    blocks += [render_table(table) for table in summary.tables]
    if summary.notes:
        blocks.append("\n".join(f"- {escape_markdown(note)}" for note in summary.notes))
    return "\n\n".join(blocks) + "\n"
