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

import numpy as np

from mixedmodels.errors import MixedModelsError, OptionError
from mixedmodels.fit.wald import check_level, percent
from mixedmodels.inference.ddf.reference import reference_for
from mixedmodels.report import words
from mixedmodels.report.effect_words import effect_words, interval_words
from mixedmodels.report.page_style import STYLE
from mixedmodels.report.plots.style import pictures
from mixedmodels.report.results import text_table
from mixedmodels.report.table import Table

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
    try:
        file = Path(path)
        if file.is_dir() or not file.parent.is_dir():
            what = "it is a folder" if file.is_dir() else f"there is no folder {str(file.parent)!r}"
            raise OSError(what)
        file.write_text(report_html(fit, **options), encoding="utf-8")
    except (OSError, TypeError) as error:
        raise OptionError(f"the report cannot be written to {path!r}: {error}") from None


def report_html(fit: Any, title: str | None = None, level: float = 0.95, ddf: str | float = "auto") -> str:
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
    kind: type[_Page] = _Page
    if not fit._is_linear:
        from mixedmodels.report.glmm_page import GLMMPage

        kind = GLMMPage
    page = kind(fit, level, ddf)
    heading = title if title is not None else page.heading()
    sections = [
        ("model", "The model", page.model),
        ("effects", "Fixed effects: what holds on average", page.effects),
        ("groups", "Random effects: how groups differ", page.groups),
        ("means", "What the model expects", page.means),
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
    formula = f"<p>{page.formula()}</p>\n" if page.formula() else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(heading)}</h1>\n{formula}<nav>{links}</nav>\n{main}\n</body></html>\n"
    )


def _guarded(build: Callable[[], str]) -> str:
    """A section, or the reason why it cannot be given."""
    try:
        return build()
    except MixedModelsError as error:
        return f'<p class="small">Not available: {escape(str(error))}</p>'


def _paragraph(sentences: Iterable[str], style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f"<p{kind}>{escape(' '.join(sentences))}</p>\n"


def _list(sentences: Iterable[str]) -> str:
    sentences = list(sentences)
    if not sentences:
        return ""
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>\n"


def _table(table: ResultTable, caption: str = "", rename: dict[str, str] | None = None) -> str:
    """A result table with readable column heads, in a box that scrolls sideways on a narrow screen."""
    cells = _arranged(text_table(table))
    names = [(rename or {}).get(name, _HEADS.get(name, name.replace("_", " "))) for name in cells.header]
    sides = ["" if letter == "l" else ' class="r"' for letter in cells.align]
    head = "".join(
        f'<th scope="col"{side}>{escape(name)}</th>' for name, side in zip(names, sides, strict=True)
    )
    tests = [name in ("p_value", "p_adjusted") for name in cells.header]
    rows = [
        [_rough_p(cell) if test else cell.strip() for cell, test in zip(row, tests, strict=True)]
        for row in cells.rows
    ]
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{side}>{escape(cell)}</td>" for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in rows
    )
    title = f'<p class="head">{escape(caption)}</p>' if caption else ""
    label = f' aria-label="{escape(caption)}"' if caption else ""
    told = "; ".join(note for note in table.notes if not note.startswith("degrees of freedom:"))
    notes = f'<p class="small">{escape(_sentence(told))}</p>' if told else ""
    return (
        f'{title}<div class="scroll"><table{label}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f"{notes}\n"
    )


def _arranged(table: Table) -> Table:
    """Limits next to their estimate, where a narrow screen shows them; without sums of squares."""
    order = [j for j, name in enumerate(table.header) if name not in ("conf_low", "conf_high", *_LEFT_OUT)]
    if "estimate" in table.header and "conf_low" in table.header:
        place = order.index(table.header.index("estimate")) + 1
        order[place:place] = [table.header.index("conf_low"), table.header.index("conf_high")]
    return table._replace(
        header=tuple(table.header[j] for j in order),
        rows=tuple(tuple(row[j] for j in order) for row in table.rows),
        align="".join(table.align[j] for j in order),
    )


def _rough_p(cell: str) -> str:
    """A p-value to three decimals."""
    try:
        return "< 0.001" if float(cell.lstrip("<")) < 0.001 else f"{float(cell):.3f}"
    except ValueError:
        return cell


_MOST_FIGURES = 6
_LEFT_OUT = ("sum_sq", "mean_sq")
_READING = (
    '<details class="small"><summary>How to read these tables</summary><ul>'
    "<li>estimate: the best guess of the effect; std. error: how far such a guess is typically from the "
    "truth by chance alone.</li>"
    "<li>statistic: the estimate in units of its standard error (t), or for whole terms the variation "
    "explained by the term against that expected by chance (F).</li>"
    "<li>df: degrees of freedom, the amount of independent information behind the standard error; num. df: "
    "how many coefficients a term has; den. df: degrees of freedom of what it is compared with.</li>"
    "<li>p: how often chance alone would give a statistic at least this large if there were no effect.</li>"
    "<li>lower, upper: ends of the confidence interval.</li></ul></details>\n"
)
_HEADS = {
    "std_error": "std. error",
    "p_value": "p",
    "p_adjusted": "p",
    "conf_low": "lower",
    "conf_high": "upper",
    "num_df": "num. df",
    "den_df": "den. df",
}


class _Page:
    """The sections of one page."""

    scale = "link"  # of tables of means

    def __init__(self, fit: Any, level: float, ddf: str | float) -> None:
        self.fit, self.level, self.ddf = fit, check_level(level), ddf
        if fit.fixef:
            reference_for(fit, ddf)  # a wrong option is an error, not a missing section

    def heading(self) -> str:
        """The heading where none is given."""
        formula = self.fit.formula
        return f"A mixed model of {formula.response}" if formula is not None else "A mixed model"

    def model(self) -> str:
        """What was modelled, the main numbers, and the messages of the fit."""
        fit = self.fit
        facts = [("observations", f"{fit.nobs:,}")]
        facts += [(group, f"{count:,} groups") for group, count in fit.ngroups.items()]
        facts += self.facts()
        items = "".join(f"<li>{escape(name)}<b>{escape(value)}</b></li>" for name, value in facts)
        good = '<p class="note good">' if fit.converged else '<p class="note">'
        notes = "".join(f'<p class="note">{escape(_sentence(note))}</p>' for note in fit.messages)
        return (
            _paragraph(self.words())
            + f'<ul class="facts">{items}</ul>\n{good}{escape(words.convergence_words(fit))}</p>{notes}'
        )

    def formula(self) -> str:
        """The formula as it was written."""
        text = self.fit.formula_text
        return f"<code>{escape(text)}</code>" if text else ""

    def facts(self) -> list[tuple[str, str]]:
        """Numbers about the response beyond the random effects."""
        return [("unexplained spread (SD)", words.number(self.fit.sigma))]

    def words(self) -> list[str]:
        """What was modelled, in sentences."""
        return words.model_words(self.fit)

    def effects(self) -> str:
        """Coefficients and terms, in words and as tables."""
        fit = self.fit
        if not fit.fixef:
            return ""
        table = fit.coefficients(ddf=self.ddf, level=self.level)
        out = _table(table, f"Coefficients with {percent(self.level)} confidence intervals")
        tests: dict[str, float] = {}
        if len(fit.fixef) > 1 and fit.formula is not None:
            try:
                terms = fit.anova(ddf=self.ddf)
            except MixedModelsError as error:
                out += f'<p class="small">No tests of whole terms: {escape(str(error))}</p>'
            else:
                tests = {row["term"]: row["p_value"] for row in terms.rows()}
                out += _table(terms, "Tests of whole terms (each after all others, type III)")
        sentences = effect_words(table.rows(), tests, fit)
        return (
            _list(sentences)
            + _paragraph([interval_words(self.level, bool(fit.fixef.keys() - {"(Intercept)"}))], "small")
            + out
            + _READING
        )

    def groups(self) -> str:
        """Variances in words and as a table, with plots of the conditional modes."""
        fit = self.fit
        if not fit.ngroups:
            return ""
        table = self.variances(fit.varcorr.sigma)
        out = _list(self.random_words()) + _table(table, "Variances", {"sd": "std. deviation"})
        figures: list[str] = []
        for position, term in enumerate(fit._terms):
            if term.m <= 2000 and len(figures) < 4 and np.any(fit._b[position]):
                figures.append(
                    _figure(
                        partial(_first_axes, fit.plot.caterpillar, position, level=self.level),
                        f"How each group of {term.group} differs from the average (conditional modes), with "
                        f"{percent(self.level)} intervals: groups whose interval leaves out zero stand out.",
                    )
                )
        return out + _gallery(figures)

    def random_words(self) -> list[str]:
        """How much the groups differ, in sentences."""
        return words.random_words(self.fit)

    def variances(self, sigma: float | None) -> Any:
        """Variances of the random effects, and of the residual if there is one."""
        from mixedmodels.inference.table import result_table

        rows = {"group": [], "effect": [], "variance": [], "sd": []}  # type: dict[str, list[Any]]
        for part, term in zip(self.fit.varcorr.terms, self.fit._terms, strict=True):
            for name, variance, sd in zip(part.names, part.variances, part.sds, strict=True):
                for key, value in zip(rows, (term.group, name, variance, sd), strict=True):
                    rows[key].append(value)
        if sigma is not None:
            for key, value in zip(rows, ("Residual", "", sigma**2, sigma), strict=True):
                rows[key].append(value)
        return result_table("", rows)

    def means_table(self, name: str) -> Any:
        """Estimated marginal means of a factor."""
        return self.fit.emmeans(name, level=self.level, ddf=self.ddf, type=self.scale).table

    def means(self) -> str:
        """Estimated marginal means of the factors of the fixed part."""
        fit = self.fit
        if fit.formula is None:
            return ""
        from mixedmodels.inference.means.grid import term_variables

        names = list(dict.fromkeys(name for _, raw in term_variables(fit) for name in raw))
        options = {"level": self.level, "ddf": self.ddf}
        figures = [
            _figure(
                partial(fit.plot.effects, name, **options),
                f"Expected {fit.formula.response} along {name} with {percent(self.level)} confidence "
                "intervals.",
            )
            for name in names[:_MOST_FIGURES]
        ]
        factors = {v.label: v for v in fit.frame.encoding.variables if v.kind == "factor"}
        tables = ""
        for name in names:
            if name in factors and len(factors[name].levels) <= 30 and len(tables) < 30_000:
                tables += _table(self.means_table(name), f"Estimated means of {name}")
        if not (tables or any(figures)):
            return ""
        return (
            "<p>What the model expects for an average group. Numeric predictors that are not shown are at "
            "their means; factors that are not shown are averaged evenly over their levels.</p>"
            + _gallery(figures)
            + tables
        )

    def explained(self) -> str:
        """R-squared and intraclass correlations."""
        fit = self.fit
        r2, icc = fit.r2(), fit.icc()
        marginal, conditional = r2.row("marginal")["estimate"], r2.row("conditional")["estimate"]
        return (
            _paragraph([words.explained_words(marginal, conditional)])
            + _table(r2, "R-squared (marginal: fixed effects; conditional: with the groups)")
            + _table(icc, "Intraclass correlations: how alike observations of one group are")
            + '<p class="small">Adjusted: the share of the groups in what the fixed effects leave '
            "unexplained; unadjusted: in all variation.</p>"
        )

    def checks(self) -> str:
        """The diagnosis, finding by finding."""
        return _findings(self.fit.diagnose())

    def plots(self) -> str:
        """Residual plots with what to look for."""
        if not _can_draw():
            return (
                '<p class="note">This page has no plots because matplotlib is not installed; '
                "<code>python -m pip install matplotlib</code> and write it again.</p>"
            )
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
        if self.fit.ngroups and np.any(self.fit._b[0]):
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
            f"log-likelihood{' (REML)' if fit.is_reml else ''}: {fit.loglik:.4f}, AIC {fit.aic:.2f}, "
            f"BIC {fit.bic:.2f}",
            f"criterion ({'REML' if fit.is_reml else 'ML'}): {fit.criterion:.6f}",
            f"covariance parameters: {theta}",
            f"solver: {fit.solver.describe()}",
            f"optimiser: {fit.optimum.method}, {fit.optimum.iterations} iterations, predicted further "
            f"decrease {fit.optimum.decrement:.2g}",
        ]
        return "<ul>" + "".join(f"<li><code>{escape(line)}</code></li>" for line in lines) + "</ul>"


def _first_axes(draw: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The first panel of a plot with several."""
    return draw(*arguments, **options)[0]


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


def _can_draw() -> bool:
    """Whether matplotlib is there."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def _figure(draw: Callable[[], Any], caption: str) -> str:
    """A plot as an inline picture with a caption; the reason in words where it cannot be drawn."""
    if not _can_draw():
        return ""
    import matplotlib

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
