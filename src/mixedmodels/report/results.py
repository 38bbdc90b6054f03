"""Text, HTML, LaTeX and Markdown of any result table, each column written as its name says."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Title, table and notes in one of the forms text, html, latex, markdown."""
    table = text_table(result)
    if form == "text":
        from mixedmodels.report.text import render_table

        return "\n".join([*filter(None, [result.title]), render_table(table), *result.notes])
    if form == "html":
        from mixedmodels.report.html import render_table as html

        notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
        return (
            f'<div class="mixedmodels-result"><p><b>{escape(result.title)}</b></p>{html(table)}'
            + (f"<ul>{notes}</ul>" if notes else "")
            + "</div>"
        )
    if form == "latex":
        from mixedmodels.report.latex import render_table as latex

        return latex(table._replace(title=result.title))
    from mixedmodels.report.markdown import render_table as markdown

    return "\n\n".join([f"**{result.title}**", markdown(table), *result.notes])


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
