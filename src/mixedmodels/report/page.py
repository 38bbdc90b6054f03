"""One self-contained HTML page about a fit: words, tables, plots, diagnostics and messages."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Iterable
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixedmodels.errors import MixedModelsError, OptionError
from mixedmodels.report import words
from mixedmodels.report.page_style import STYLE
from mixedmodels.report.plots.style import pictures
from mixedmodels.report.results import text_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.table import ResultTable

__all__ = ["report_html", "write_report"]


def write_report(fit: LMMFit, path: Any, **options: Any) -> None:
    """Write `report_html` to a file.

    Parameters
    ----------
    fit : LMMFit
    path : str or path-like
        An existing file is replaced.
    **options
        As `report_html`.
    """
    text = report_html(fit, **options)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except (OSError, TypeError) as error:
        raise OptionError(f"the report cannot be written to {path!r}: {error}") from None


def report_html(fit: LMMFit, title: str | None = None, level: float = 0.95, ddf: str | float = "auto") -> str:
    """A fit as one HTML page that needs nothing else: no network, no script, pictures inside.

    Parameters
    ----------
    fit : LMMFit
    title : str, optional
        Heading; by default the formula's response.
    level : float
        Confidence level of all intervals.
    ddf : str or float
        Degrees of freedom of the tests, as in `LMMFit.summary`.
    """
    page = _Page(fit, level, ddf)
    heading = title if title is not None else page.heading()
    sections = [
        ("model", "The model", page.model),
        ("effects", "Fixed effects: what holds on average", page.effects),
        ("groups", "Random effects: how groups differ", page.groups),
        ("means", "Estimated means", page.means),
        ("explained", "How much is explained", page.explained),
        ("checks", "Can the numbers be trusted?", page.checks),
        ("plots", "Plots to look at", page.plots),
        ("details", "For the record", page.details),
    ]
    bodies = [(key, name, _guarded(build)) for key, name, build in sections]
    bodies = [(key, name, body) for key, name, body in bodies if body]
    links = " ".join(f'<a href="#{key}">{escape(name.split(":")[0])}</a>' for key, name, _ in bodies)
    main = "\n".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>\n{body}</section>' for key, name, body in bodies
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(heading)}</h1>\n{_formula(fit)}<nav>{links}</nav>\n{main}\n</body></html>\n"
    )


def _guarded(build: Callable[[], str]) -> str:
    """A section, or the reason why it cannot be given."""
    try:
        return build()
    except MixedModelsError as error:
        return f'<p class="small">Not available: {escape(str(error))}</p>'


def _formula(fit: LMMFit) -> str:
    return f"<p><code>{escape(fit.formula_text)}</code></p>\n" if fit.formula_text else ""


def _paragraph(sentences: Iterable[str]) -> str:
    return f"<p>{escape(' '.join(sentences))}</p>\n"


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>\n"


def _table(table: ResultTable, caption: str = "", rename: dict[str, str] | None = None) -> str:
    """A result table with readable column heads, in a box that scrolls sideways on a narrow screen."""
    cells = text_table(table)
    names = [(rename or {}).get(name, _HEADS.get(name, name.replace("_", " "))) for name in cells.header]
    sides = ["" if letter == "l" else ' class="r"' for letter in cells.align]
    head = "".join(
        f'<th scope="col"{side}>{escape(name)}</th>' for name, side in zip(names, sides, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{side}>{escape(cell.strip())}</td>" for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in cells.rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    notes = "".join(f'<p class="small">{escape(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{notes}\n"
    )


_HEADS = {
    "std_error": "std. error",
    "p_value": "p",
    "p_adjusted": "p",
    "conf_low": "lower",
    "conf_high": "upper",
    "num_df": "num. df",
    "den_df": "den. df",
    "sum_sq": "sum of squares",
    "mean_sq": "mean square",
}


class _Page:
    """The sections of one page."""

    def __init__(self, fit: LMMFit, level: float, ddf: str | float) -> None:
        self.fit, self.level, self.ddf = fit, level, ddf

    def heading(self) -> str:
        """The heading where none is given."""
        formula = self.fit.formula
        return f"A mixed model of {formula.response}" if formula is not None else "A mixed model"

    def model(self) -> str:
        """What was modelled, the main numbers, and the messages of the fit."""
        fit = self.fit
        facts = [("observations", f"{fit.nobs:,}")]
        facts += [(group, f"{count:,} levels") for group, count in fit.ngroups.items()]
        facts += [
            ("residual SD", words.number(fit.sigma)),
            ("log-likelihood" + (" (REML)" if fit.is_reml else ""), f"{fit.loglik:,.2f}"),
            ("AIC", f"{fit.aic:,.1f}"),
        ]
        items = "".join(f"<li>{escape(name)}<b>{escape(value)}</b></li>" for name, value in facts)
        good = '<p class="note good">' if fit.converged else '<p class="note">'
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in fit.messages)
        return (
            _paragraph(words.model_words(fit))
            + f'<ul class="facts">{items}</ul>\n{good}{escape(words.convergence_words(fit))}</p>{notes}'
        )

    def effects(self) -> str:
        """Coefficients and terms, in words and as tables."""
        fit = self.fit
        if not fit.fixef:
            return ""
        table = fit.coefficients(ddf=self.ddf, level=self.level)
        rows = table.rows()
        out = ""
        if len(rows) <= 15:
            out += _list(words.effect_words(rows, fit, self.level))
        out += _table(table, f"Coefficients with {self.level:.0%} confidence intervals")
        if len(fit.fixef) > 1:
            ddf = "satterthwaite" if self.ddf == "auto" else self.ddf
            out += _guarded(
                lambda: _table(fit.anova(ddf=ddf), "Tests of whole terms (each after all others, type III)")
            )
        return out

    def groups(self) -> str:
        """Variances in words and as a table, with plots of the conditional modes."""
        fit = self.fit
        if not fit.ngroups:
            return ""
        from mixedmodels.inference.table import result_table

        rows = {"group": [], "effect": [], "variance": [], "sd": []}  # type: dict[str, list[Any]]
        for part in fit.varcorr.terms:
            for name, variance, sd in zip(part.names, part.variances, part.sds, strict=True):
                for key, value in zip(rows, (part.group, name, variance, sd), strict=True):
                    rows[key].append(value)
        for key, value in zip(rows, ("Residual", "", fit.sigma**2, fit.sigma), strict=True):
            rows[key].append(value)
        table = result_table("", rows)
        out = _list(words.random_words(fit)) + _table(table, "Variances", {"sd": "standard deviation"})
        figures: list[str] = []
        for position, term in enumerate(fit.design.terms):
            if term.m <= 2000 and len(figures) < 4:
                figures.append(
                    _figure(
                        partial(_first_axes, fit.plot.caterpillar, position),
                        f"Differences between levels of {term.group} with {self.level:.0%} intervals: levels "
                        "whose interval leaves out zero differ from the average.",
                    )
                )
        return out + _gallery(figures)

    def means(self) -> str:
        """Estimated marginal means of the factors of the fixed part."""
        fit = self.fit
        if fit.formula is None:
            return ""
        factors = [v.label for v in fit.frame.encoding.variables if v.kind == "factor"]
        used = set(fit.frame.encoding.assign)
        out = ""
        for factor in factors[:4]:
            if not any(factor in label.split(":") for label in used):
                continue
            means = fit.emmeans(factor, level=self.level)
            figure = _figure(partial(fit.plot.means, means), f"Estimated means of {factor} with intervals.")
            out += f"<h3>{escape(factor)}</h3>" + _table(means.table) + _gallery([figure])
        if out:
            out = (
                "<p>What the model expects for each level of a factor, averaged evenly over the levels of "
                "the other factors, with numeric predictors at their means.</p>" + out
            )
        return out

    def explained(self) -> str:
        """R-squared and intraclass correlations."""
        fit = self.fit
        r2, icc = fit.r2(), fit.icc()
        marginal, conditional = r2.row("marginal")["estimate"], r2.row("conditional")["estimate"]
        return (
            _paragraph([words.explained_words(marginal, conditional)])
            + _table(r2, "R-squared (Nakagawa)")
            + _table(icc, "Intraclass correlations: how alike observations of one group are")
        )

    def checks(self) -> str:
        """The diagnosis, finding by finding."""
        return _findings(self.fit.diagnose())

    def plots(self) -> str:
        """Residual plots with what to look for."""
        plot = self.fit.plot
        figures = [
            _figure(
                plot.residuals,
                "There should be no pattern, and the spread should be even from left to right.",
            ),
            _figure(
                plot.qq,
                "Points should follow the line and stay within the band; single points far off are "
                "unusual observations.",
            ),
            _figure(plot.scale_location, "A flat curve means that the spread does not depend on the level."),
        ]
        if self.fit.ngroups:
            figures.append(
                _figure(
                    partial(_first_axes, plot.ranef_qq),
                    "Differences between groups should follow the line too: the model takes them as normal.",
                )
            )
        return _gallery(figures)

    def details(self) -> str:
        """Formula, method, solver, optimiser and version."""
        fit = self.fit
        pairs = zip(fit.theta_names, fit.theta.tolist(), strict=True)
        theta = ", ".join([f"{name} = {value:.6g}" for name, value in pairs])
        lines = [
            f"mixedmodels {sys.modules['mixedmodels'].__version__}",
            f"formula: {fit.formula_text}" if fit.formula_text else "model made from matrices",
            f"criterion ({'REML' if fit.is_reml else 'ML'}): {fit.criterion:.6f}",
            f"covariance parameters: {theta}",
            f"solver: {fit.solver.describe()}",
            f"optimiser: {fit.optimum.method}, {fit.optimum.iterations} iterations, predicted further "
            f"decrease {fit.optimum.decrement:.2g}",
        ]
        return "<ul>" + "".join(f"<li><code>{escape(line)}</code></li>" for line in lines) + "</ul>"


def _first_axes(draw: Callable[..., Any], *arguments: Any) -> Any:
    """The first panel of a plot with several."""
    return draw(*arguments)[0]


def _findings(diagnosis: Any) -> str:
    """What needs attention as boxes, the rest in one sentence with the details to unfold."""
    rows = diagnosis.table.rows()
    order = {"problem": 0, "warning": 1, "note": 2}
    out = []
    for row in sorted(rows, key=lambda row: order.get(row["status"], 3)):
        if row["status"] != "ok":
            text = f"{_sentence(row['finding'])} {_sentence(row.get('remedy') or '')}".strip()
            out.append(f'<p class="note"><b>{escape(row["check"].capitalize())}.</b> {escape(text)}</p>')
    fine = [row for row in rows if row["status"] == "ok"]
    if fine:
        names = list(dict.fromkeys(row["check"] for row in fine))
        out.append(f'<p class="note good"><b>Checked and fine:</b> {escape(", ".join(names))}.</p>')
        lines = "".join(f"<li>{escape(row['check'])}: {escape(row['finding'])}</li>" for row in fine)
        out.append(f'<details class="small"><summary>What was checked</summary><ul>{lines}</ul></details>')
    return "\n".join(out)


def _sentence(text: str) -> str:
    """A finding as a sentence."""
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".!?" else ".")


def _gallery(figures: Iterable[str]) -> str:
    inside = "\n".join(figure for figure in figures if figure)
    return f'<div class="plots">{inside}</div>\n' if inside else ""


def _figure(draw: Callable[[], Any], caption: str) -> str:
    """A plot as an inline picture with a caption; the reason in words where it cannot be drawn."""
    try:
        import matplotlib
    except ImportError:
        return ""
    with (
        pictures(),
        matplotlib.rc_context({"svg.fonttype": "path", "font.size": 10, "svg.hashsalt": "mixedmodels"}),
    ):
        try:
            figure = draw().figure
        except MixedModelsError as error:
            return f'<p class="small">Not drawn: {escape(str(error))}</p>'
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    width = round(88 * figure.get_figwidth())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = escape(caption)
    source = f"data:image/svg+xml;base64,{data}"
    return (
        f'<figure><img alt="{text}" width="{width}" src="{source}"><figcaption>{text}</figcaption></figure>'
    )
