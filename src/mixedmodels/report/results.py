"""Text, HTML, LaTeX and Markdown of any result table, each column written as its name says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.report.table import Table, decimals_for, format_p, format_scientific

if TYPE_CHECKING:
    from mixedmodels.inference.table import ResultTable

__all__ = ["format_p", "render_result", "text_table"]

# numbers on the scale of the response, written with common decimals
_ESTIMATES = (
    "estimate", "std_error", "conf_low", "conf_high", "mean", "predicted", "pred_low", "pred_high",
    "bias", "sd", "lower", "upper",
)  # fmt: skip
_P = ("p_value", "p_adjusted")
_TWO = ("df", "ddf", "den_df")
_MOST = 200  # longer tables are shown by their first and last rows
_FIRST, _LAST = 30, 10
_CRITERIA = ("aic", "bic", "loglik")


def text_table(result: ResultTable, digits: int = 4) -> Table:
    """The columns of a result as text cells."""
    # standard errors say which digits matter; without them all numbers on the scale of the response do
    sources = ["std_error"] if "std_error" in result.columns else list(_ESTIMATES)
    scale = [float(v) for name in sources if name in result.columns for v in _floats(result.columns[name])]
    decimals = max(1, decimals_for(scale, digits)) if scale and decimals_for(scale, digits) >= 0 else -1
    cells, align = [], ""
    for name, column in result.columns.items():
        kind = column.dtype.kind
        align += "l" if kind == "O" else "r"
        if kind == "O":
            cells.append(["" if value is None else _text(value) for value in column])
        elif kind == "b":
            cells.append(["yes" if value else "no" for value in column])
        elif kind in "iu":
            cells.append([str(value) for value in column.tolist()])
        elif name in _ESTIMATES:
            cells.append(_fixed(column.tolist(), decimals, digits))
        elif name in _P or name.endswith("p_value"):
            cells.append([format_p(value) for value in column.tolist()])
        elif name in _TWO:
            values = column.tolist()
            whole = all(value == round(value) for value in _floats(column) if abs(value) < 1e15)
            cells.append([_plain(value, 0 if whole else 2) for value in values])
        elif name in _CRITERIA:
            cells.append([_plain(value, 2) for value in column.tolist()])
        else:
            places = decimals_for(_floats(column), digits)
            cells.append(_fixed(column.tolist(), min(places, 4) if places >= 0 else -1, digits))
    rows = tuple(zip(*cells, strict=True)) if cells else ()
    return Table("", tuple(result.columns), rows, align)


def render_result(result: ResultTable, form: str) -> str:
    """Title, table and notes in one of the forms text, html, latex, markdown.

    Text and HTML are for looking: of more than 200 rows they show the first and the last; text shows the rows
    of each combination of the `by` columns under a heading.
    """
    total = len(result)
    short = total > _MOST and form in ("text", "html")
    if short:
        kept = np.r_[:_FIRST, total - _LAST : total]
        result = replace(result, columns={name: column[kept] for name, column in result.columns.items()})
    table = text_table(result)
    more = (
        f"... {total:,} rows in all, the first {_FIRST} and the last {_LAST} shown; to_frame() has them all"
    )
    if form == "text":
        from mixedmodels.report.text import render_table

        by = [name for name in result.extra.get("by", ()) if name in result.columns]
        if by and not short:
            lines = [_blocks(table, by), *[""][: len(result.notes)]]
        else:
            lines = render_table(table).split("\n")
            if short:
                lines[1 + _FIRST : 1 + _FIRST] = [more]
        return "\n".join([*filter(None, [result.title]), *lines, *result.notes])
    if form == "html":
        from mixedmodels.report.html import render_table as html

        if short:
            gap = ("...", *[""] * (len(table.header) - 1))
            rows = (*table.rows[:_FIRST], gap, *table.rows[_FIRST:])
            table = table._replace(rows=rows, after=more)
        notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
        title = f"<p><b>{escape(result.title)}</b></p>" if result.title else ""
        return (
            f'<div class="mixedmodels-result">{title}{html(table)}'
            + (f"<ul>{notes}</ul>" if notes else "")
            + "</div>"
        )
    if form == "latex":
        from mixedmodels.report.latex import render_table as latex

        return latex(table._replace(title=result.title))
    from mixedmodels.report.markdown import render_table as markdown

    return "\n\n".join([f"**{result.title}**", markdown(table), *result.notes])


def _blocks(table: Table, by: Sequence[str]) -> str:
    """The rows of each combination of the `by` columns under a heading, all blocks aligned alike."""
    from mixedmodels.report.text import render_table

    places = [table.header.index(name) for name in by]
    rest = [j for j in range(len(table.header)) if j not in places]
    narrow = table._replace(
        header=tuple(table.header[j] for j in rest),
        rows=tuple(tuple(row[j] for j in rest) for row in table.rows),
        align="".join(table.align[j] for j in rest),
    )
    head, *lines = render_table(narrow).split("\n")
    blocks: dict[str, list[str]] = {}
    for row, line in zip(table.rows, lines, strict=True):
        name = ", ".join(f"{table.header[j]} = {row[j].strip()}" for j in places)
        blocks.setdefault(name, [f"{name}:", head]).append(line)
    return "\n\n".join("\n".join(block) for block in blocks.values())


def _floats(column: np.ndarray) -> list[float]:
    return [value for value in np.asarray(column, dtype=float).tolist() if value == value]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: float, places: int) -> str:
    if value != value:
        return ""
    return "Inf" if value == float("inf") else f"{value:.{places}f}"


def _fixed(values: Sequence[float], decimals: int, digits: int) -> list[str]:
    if decimals < 0:
        return ["" if value != value else format_scientific(value, digits) for value in values]
    return ["" if value != value else f"{value:.{decimals}f}" for value in values]
