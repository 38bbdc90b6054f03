"""LaTeX of tables and summaries (package booktabs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixedmodels.report.summary import Summary
    from mixedmodels.report.table import Table

__all__ = ["escape_latex", "render_summary", "render_table"]

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "`": r"\textasciigrave{}",
        '"': r"\textquotedbl{}",
    }
)


def escape_latex(text: str) -> str:
    """Text with LaTeX's special characters written so that they print as themselves."""
    return text.translate(_SPECIAL)


def _cell(text: str, align: str) -> str:
    text = text.strip()
    if text.startswith("-") and text[1:2].isdigit() and (align != "l" or _is_number(text)):
        return f"$-${text[1:]}"
    return escape_latex(text)


def _is_number(text: str) -> bool:
    """Whether a cell of a left-aligned column holds a number, such as a correlation."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def render_table(table: Table) -> str:
    """A table as a ``tabular`` environment."""
    columns = "".join("l" if letter == "l" else "r" for letter in table.align)
    lines = []
    if table.title:
        lines.append(rf"\textbf{{{escape_latex(table.title)}}}\\[2pt]")
    lines.append(rf"\begin{{tabular}}{{{columns}}}")
    lines.append(r"\toprule")
    lines.append(" & ".join(escape_latex(head.strip()) for head in table.header) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        lines.append(
            " & ".join(_cell(cell, letter) for cell, letter in zip(row, table.align, strict=True)) + r" \\"
        )
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.after:
        lines += [rf"\par\smallskip {escape_latex(line)}" for line in table.after.split("\n")]
    return "\n".join(lines)


def render_summary(summary: Summary) -> str:
    """A summary as a ``table`` environment; needs ``\\usepackage{booktabs}``."""
    lines = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{escape_latex(summary.title)}}}"]
    for name, value in summary.facts:
        lines.append(rf"{escape_latex(name)}: \texttt{{{escape_latex(value)}}}\par\medskip")
    for table in summary.tables:
        lines += [render_table(table), r"\par\medskip"]
    lines += [rf"{escape_latex(note)}\par" for note in summary.notes]
    lines.append(r"\end{table}")
    return "\n".join(lines)
