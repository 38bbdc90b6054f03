"""HTML of tables and summaries, for notebooks and reports: self-contained, everything escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixedmodels.report.summary import Summary
    from mixedmodels.report.table import Table

__all__ = ["render_page", "render_summary", "render_table"]

# inline, so that a fragment looks the same in a notebook, a report and a bare page
_LEFT = ' style="text-align:left;padding:0.1em 0.7em 0.1em 0"'
_RIGHT = ' style="text-align:right;padding:0.1em 0.7em 0.1em 0"'
_TABLE = ' style="border-collapse:collapse;margin:0.8em 0;font-variant-numeric:tabular-nums"'
_HEAD = ' style="border-bottom:1px solid #888"'


def _numeric_columns(table: Table) -> set[int]:
    """Columns to set right: those meant so, and correlations, which plain text sets left."""
    columns = {j for j, letter in enumerate(table.align) if letter != "l"}
    if "Corr" in table.header:
        columns.update(range(table.header.index("Corr"), len(table.header)))
    return columns


def render_table(table: Table) -> str:
    """A table as an HTML ``<table>``."""
    numbers = _numeric_columns(table)
    sides = [_LEFT if j not in numbers else _RIGHT for j in range(len(table.header))]
    lines = [f"<table{_TABLE}>"]
    if table.title:
        lines.append(f'<caption style="text-align:left"><b>{escape(table.title)}</b></caption>')
    heads = "".join(
        f'<th scope="col"{side}>{escape(head.strip())}</th>'
        for head, side in zip(table.header, sides, strict=True)
    )
    lines.append(f"<thead{_HEAD}><tr>{heads}</tr></thead>")
    lines.append("<tbody>")
    for row in table.rows:
        cells = "".join(
            f"<td{side}>{escape(cell.strip())}</td>" for cell, side in zip(row, sides, strict=True)
        )
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</tbody></table>")
    if table.after:
        lines.append(f"<p>{escape(table.after)}</p>".replace("\n", "<br>"))
    return "\n".join(lines)


def render_summary(summary: Summary) -> str:
    """A summary as an HTML fragment."""
    lines = ['<div class="mixedmodels-summary">', f"<p><b>{escape(summary.title)}</b></p>"]
    for name, value in summary.facts:
        lines.append(f"<p>{escape(name)}: <code>{escape(value)}</code></p>")
    lines += [render_table(table) for table in summary.tables]
    if summary.notes:
        lines.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in summary.notes) + "</ul>")
    lines.append("</div>")
    return "\n".join(lines)


def render_page(summary: Summary) -> str:
    """A summary as a whole HTML page that stands alone."""
    style = (
        "body{font-family:sans-serif;margin:2em auto;max-width:60em}"
        "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid #ddd}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(summary.title)}</title>\n"
        f"<style>{style}</style></head>\n<body>\n{render_summary(summary)}\n</body></html>\n"
    )
