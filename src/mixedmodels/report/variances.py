"""The table of variances, standard deviations and correlations of the random effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixedmodels.errors import OptionError
from mixedmodels.report.table import Table, format_column

if TYPE_CHECKING:
    from mixedmodels.fit.varcorr import TermVariance, VarCorr

__all__ = ["random_table", "render_varcorr"]

_SHOWN = 12  # columns of a term up to which correlations are shown


def render_varcorr(varcorr: VarCorr, form: str = "text") -> str:
    """Standard deviations and correlations as ``"text"``, ``"html"``, ``"latex"`` or ``"markdown"``."""
    table = random_table(varcorr.terms, varcorr.sigma, 4, variance=False)
    if form == "text":
        from mixedmodels.report.text import render_table
    elif form == "html":
        from mixedmodels.report.html import render_table
    elif form == "latex":
        from mixedmodels.report.latex import render_table
    elif form == "markdown":
        from mixedmodels.report.markdown import render_table
    else:
        raise OptionError(f"format {form!r} is unknown; available: text, html, latex, markdown")
    return render_table(table)


def random_table(
    terms: tuple[TermVariance, ...], sigma: float | None, digits: int, *, variance: bool
) -> Table:
    """The table of standard deviations (and variances) as lme4 lays it out.

    `sigma` None leaves the residual row out. Terms with more than 12 columns keep their correlations
    for `TermVariance.correlation`, and are one row if all their standard deviations are equal.
    """
    groups: list[str] = []
    names: list[str] = []
    variances: list[float] = []
    sds: list[float] = []
    correlations: list[list[str]] = []
    widest = 0
    for term in terms:
        k = len(term.names)
        if k > _SHOWN and max(term.sds) - min(term.sds) <= 1e-9 * max(
            term.sds
        ):  # positions with a common standard deviation
            groups.append(term.group)
            names.append(f"{term.names[0]}, ... ({k})")
            variances.append(term.variances[0])
            sds.append(term.sds[0])
            correlations.append([])
            continue
        groups.append(term.group)
        groups += [""] * (k - 1)
        names += term.names
        variances += term.variances
        sds += term.sds
        if term.correlated and 1 < k <= _SHOWN:
            correlations += [["NaN" if r != r else f"{r:.2f}" for r in row] for row in term.correlations()]
            widest = max(widest, k - 1)
        else:
            correlations += [[]] * k
    if sigma is not None:
        groups.append("Residual")
        names.append("")
        variances.append(sigma * sigma)
        sds.append(sigma)
        correlations.append([])
    columns = [groups, names]
    header = ["Groups", "Name"]
    align = "ll"
    if variance:
        columns.append(format_column(variances, digits))
        header.append("Variance")
        align += "n"
    columns.append(format_column(sds, digits))
    header.append("Std.Dev.")
    align += "n"
    for j in range(widest):
        columns.append([row[j].rjust(5) if j < len(row) else "" for row in correlations])
        header.append("Corr" if j == 0 else "")
        align += "l"
    return Table("", tuple(header), tuple(zip(*columns, strict=True)), align, indent=1)
