"""The summary of a fit as frozen tables, from which text, HTML, LaTeX and Markdown are rendered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mixedmodels.report.table import Table, decimals_for, format_column, format_p, format_scientific
from mixedmodels.report.text import render_summary
from mixedmodels.report.variances import random_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.fixed.coefficients import Coefficients

__all__ = [
    "MOST_CORRELATIONS",
    "Summary",
    "abbreviate",
    "coefficient_table",
    "correlation_table",
    "even_row",
    "structure_table",
    "summarize",
]

MOST_CORRELATIONS = 12  # more fixed effects than this: the correlation table is shown on request only


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What ``print(fit)`` shows: title, facts, tables and notes, all as text cells.

    Attributes
    ----------
    title : str
    facts : tuple of (str, str)
        Lines such as ``Formula: ...``.
    tables : tuple of Table
        Criteria, scaled residuals, random effects, fixed effects, correlations.
    notes : tuple of str
        The messages of the fit.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    _coefficients: dict[str, list[Any]]
    _frame: Callable[[dict[str, Any]], Any]

    def __str__(self) -> str:
        return render_summary(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The summary as an HTML fragment."""
        from mixedmodels.report.html import render_summary as render

        return render(self)

    def to_latex(self) -> str:
        """The summary as a LaTeX ``table`` environment; needs the package booktabs."""
        from mixedmodels.report.latex import render_summary as render

        return render(self)

    def to_markdown(self) -> str:
        """The summary as Markdown with pipe tables."""
        from mixedmodels.report.markdown import render_summary as render

        return render(self)

    def to_frame(self) -> Any:
        """The coefficient table as numbers: term, estimate, std_error, df, statistic, p_value."""
        return self._frame(self._coefficients)


def summarize(fit: LMMFit, correlation: bool | None = None, ddf: str | float = "auto") -> Summary:
    """Collect the numbers of a fit and write them into tables.

    Parameters
    ----------
    fit : LMMFit
    correlation : bool, optional
        Whether to show the correlations of the fixed effects; None shows them for 2 to 12 coefficients.
    ddf : str or float
        Degrees of freedom of the t tests, as in `mixedmodels.inference.ddf.reference.reference_for`.
    """
    from mixedmodels.inference.fixed.coefficients import coefficient_values

    estimates = fit.beta.tolist()
    tests = coefficient_values(fit, ddf)
    ses = tests.std_error
    names = fit.design.x_names
    facts = []
    text = fit.formula_text
    if text:
        facts.append(("Formula", text))
    dropped = fit.n_rows - fit.design.n
    if dropped:
        facts.append(("   Data", f"{fit.design.n} of {fit.n_rows} rows ({dropped} left out)"))
    notes = list(fit.messages)

    tables = [_criteria_table(fit), _residual_table(fit), _random_table(fit)]
    structure = getattr(fit, "residual", None)
    if structure is not None and len(structure.names):
        tables.append(structure_table(structure))
    elif structure is not None and structure.description:
        facts.append(("Residuals", structure.description))
    if names:
        tables.append(
            coefficient_table(
                names, estimates, ses, tests.statistic, tests.df, tests.p_value, title=_title(tests)
            )
        )
        notes += tests.notes
        show = 1 < len(names) <= MOST_CORRELATIONS if correlation is None else bool(correlation)
        if show and len(names) > 1:
            tables.append(correlation_table(names, tests.vcov.tolist(), ses))
        elif correlation is None and len(names) > MOST_CORRELATIONS:
            notes.append(
                f"correlations of the {len(names)} fixed effects are not shown; "
                "summary(correlation=True) shows them, fit.vcov holds the covariances"
            )
    method = "REML" if fit.is_reml else "maximum likelihood"
    coefficients = {
        "term": list(names),
        "estimate": estimates,
        "std_error": ses,
        "df": tests.df,
        "statistic": tests.statistic,
        "p_value": tests.p_value,
    }
    return Summary(
        f"{_kind(fit)} fit by {method}",
        tuple(facts),
        tuple(tables),
        tuple(notes),
        coefficients,
        fit._native,
    )


def _kind(fit: LMMFit) -> str:
    mixed = fit.design.terms or getattr(fit.frame, "covariance", None) is not None
    return "Linear mixed model" if mixed else "Generalised least squares"


def _criteria_table(fit: LMMFit) -> Table:
    first = "REML criterion" if fit.is_reml else "deviance"
    cells = (
        f"{fit.criterion:.1f}",
        f"{fit.aic:.1f}",
        f"{fit.bic:.1f}",
        f"{fit.loglik:.1f}",
        str(fit.nobs - fit.df_model),
    )
    return even_row("", (first, "AIC", "BIC", "logLik", "df.resid"), cells, 8, indent=1)


def _residual_table(fit: LMMFit) -> Table:
    cells = tuple([f"{value:.4f}" for value in fit.scaled_quantiles()])
    return even_row("Scaled residuals", ("Min", "1Q", "Median", "3Q", "Max"), cells, 7)


def even_row(
    title: str, header: tuple[str, ...], cells: tuple[str, ...], width: int, indent: int = 0
) -> Table:
    """A table of one row whose columns are at least `width` wide."""
    return Table(title, _wide(header, width), (cells,), "r" * len(cells), indent)


@lru_cache(maxsize=16)
def _wide(header: tuple[str, ...], width: int) -> tuple[str, ...]:
    """Column heads filled up to one width."""
    return tuple([head.rjust(width) for head in header])


def _random_table(fit: LMMFit) -> Table:
    varcorr = fit.varcorr
    table = random_table(varcorr.terms, varcorr.sigma, 4, variance=True)
    groups = "; ".join([f"{group}, {levels}" for group, levels in fit.ngroups.items()])
    counts = f"Number of obs: {fit.nobs}"
    if groups:
        counts += f", groups: {groups}"
    return Table("Random effects", table.header, table.rows, table.align, 1, counts)


def structure_table(structure: Any) -> Table:
    """Correlations, ranges, powers and ratios of standard deviations of structured residuals.

    Parameters
    ----------
    structure : ResidualEstimates
    """
    estimates, errors = structure.values.tolist(), structure.std_error.tolist()
    decimals = decimals_for([*estimates, *errors], 4)
    if decimals < 0:
        first, second = [[format_scientific(value, 4) for value in column] for column in (estimates, errors)]
    else:
        pattern = f"%.{max(1, decimals)}f"
        first, second = [[pattern % value for value in column] for column in (estimates, errors)]
    rows = tuple(zip(structure.names, first, second, strict=True))
    return Table(f"Residuals: {structure.description}", ("", "Estimate", "Std. Error"), rows, "lrr")


def _title(tests: Coefficients) -> str:
    if tests.name == "z":
        return "Fixed effects, z tests"
    if tests.name in ("residual", "containment", "number"):
        return f"Fixed effects, t tests with {tests.label}"
    return f"Fixed effects, t tests by {tests.label}"


def coefficient_table(
    names: tuple[str, ...],
    estimates: list[float],
    ses: list[float],
    statistics: list[float],
    df: list[float],
    p_values: list[float],
    digits: int = 4,
    title: str = "Fixed effects",
) -> Table:
    """Estimates and standard errors with common decimals, df, t values and p-values.

    Where all df are infinite the column is left out and the statistics are z values.
    """
    decimals = decimals_for(estimates + ses, digits)
    if decimals < 0:
        first = [format_scientific(value, digits) for value in estimates]
        second = [format_scientific(value, digits) for value in ses]
    else:
        pattern = f"%.{max(1, decimals)}f"
        first = [pattern % value if value == value else "NaN" for value in estimates]
        second = [pattern % value if value == value else "NaN" for value in ses]
    places = min(3, decimals_for([value for value in statistics if abs(value) >= 0.0005], digits, most=300))
    if places < 0:
        third = format_column(statistics, digits)
    else:
        pattern = f"%.{places}f"
        third = [pattern % value if value == value else "NaN" for value in statistics]
    last = [format_p(value) or "NaN" for value in p_values]
    if all([value == math.inf for value in df]):
        rows = tuple(zip(names, first, second, third, last, strict=True))
        return Table(title, ("", "Estimate", "Std. Error", "z value", "Pr(>|z|)"), rows, "lrrrr")
    middle = [f"{value:.2f}".replace("inf", "Inf").replace("nan", "NaN") for value in df]
    rows = tuple(zip(names, first, second, middle, third, last, strict=True))
    return Table(title, ("", "Estimate", "Std. Error", "df", "t value", "Pr(>|t|)"), rows, "lrrrrr")


def correlation_table(names: tuple[str, ...], vcov: list[list[float]], ses: list[float]) -> Table:
    """Lower triangle of the correlations of the fixed effects."""
    p = len(names)
    rows = []
    for i in range(1, p):
        row = [names[i]]
        for j in range(p - 1):
            if j < i:
                product = ses[i] * ses[j]
                row.append(f"{vcov[i][j] / product:.3f}" if product > 0.0 else "NaN")
            else:
                row.append("")
        rows.append(tuple(row))
    header = ("", *[abbreviate(name) for name in names[:-1]])
    return Table("Correlation of Fixed Effects", header, tuple(rows), "l" + "r" * (p - 1))


@lru_cache(maxsize=256)
def abbreviate(name: str, length: int = 6) -> str:
    """A short form of a name: lower-case vowels go first, then other lower-case letters, from the end."""
    if len(name) <= length:
        return name
    letters = list(name)
    for removable in ("aeiou", "abcdefghijklmnopqrstuvwxyz"):
        for place in range(len(letters) - 1, 0, -1):
            if len(letters) <= length:
                break
            if letters[place] in removable:
                del letters[place]
    return "".join(letters[:length])
