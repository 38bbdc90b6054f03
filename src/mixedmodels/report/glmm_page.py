"""The report page of a generalised fit: where it says other things than that of a linear one."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

import numpy as np

from mixedmodels.errors import MixedModelsError
from mixedmodels.fit.wald import percent
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.report import glmm_words, words
from mixedmodels.report.effect_words import effect_words, interval_words
from mixedmodels.report.glmm_summary import dispersion_words, family_words, formula_words
from mixedmodels.report.page import (
    _can_draw,
    _figure,
    _findings,
    _first_axes,
    _gallery,
    _list,
    _Page,
    _paragraph,
    _sentence,
    _table,
)

__all__ = ["GLMMPage"]

_MOST_ROWS = 20_000  # rows up to which the page simulates
_READING = (
    '<details class="small"><summary>How to read these tables</summary><ul>'
    "<li>estimate: the effect on the scale where effects add up; std. error: how far such an estimate is "
    "typically from the truth by chance alone.</li>"
    "<li>odds ratio, ratio of means, hazard ratio: what the effect multiplies; 1 is no effect.</li>"
    "<li>statistic: the estimate in units of its standard error (z), or for whole terms a Wald chi-squared; "
    "df: how many coefficients a term has.</li>"
    "<li>p: how often chance alone would give a statistic at least this large if there were no effect.</li>"
    "<li>lower, upper: ends of the confidence interval.</li></ul></details>\n"
)
_TITLES = {
    "conditional": "Coefficients",
    "zero_inflation": "Model of the extra zeros",
    "dispersion": "Model of the dispersion",
    "thresholds": "Thresholds between the categories",
}


class GLMMPage(_Page):
    """The sections of one page.

    Parameters
    ----------
    fit : GLMMFit
    level : float
    ddf : str or float
    """

    scale = "response"

    def __init__(self, fit: Any, level: float, ddf: str | float) -> None:
        super().__init__(fit, level, "z" if ddf == "auto" else ddf)

    def heading(self) -> str:
        """The heading where none is given."""
        formula = self.fit.formula
        kind = "A generalised mixed model"
        return f"{kind} of {formula.response}" if formula is not None else kind

    def facts(self) -> list[tuple[str, str]]:
        """Family and link."""
        return [("distribution (link)", family_words(self.fit).replace("_", " "))]

    def formula(self) -> str:
        """The formulas of all linear predictors."""
        options = self.fit._options
        lines = [self.fit.formula_text]
        if "zero_inflation" in self.fit.components and options.zero_inflation is not None:
            lines.append(f"zero_inflation: {formula_words(options.zero_inflation)}")
        if "dispersion" in self.fit.components and formula_words(options.dispersion) != "~1":
            lines.append(f"dispersion: {formula_words(options.dispersion)}")
        return "<br>".join([f"<code>{escape(line)}</code>" for line in lines if line])

    def words(self) -> list[str]:
        """What was modelled, in sentences."""
        return glmm_words.model_words(self.fit)

    def random_words(self) -> list[str]:
        """How much the groups differ, in sentences."""
        return glmm_words.random_words(self.fit)

    def means_table(self, name: str) -> Any:
        """Estimated marginal means of a factor; no column of infinite degrees of freedom."""
        table = super().means_table(name)
        columns = {key: values for key, values in table.columns.items() if key != "df"}
        told = list(table.notes)
        if "zero_inflation" in self.fit.components:
            told.append("means of the conditional model")
        return result_table(table.title, columns, told)

    def effects(self) -> str:
        """Coefficients of all linear predictors, in words and as tables."""
        fit = self.fit
        out, tests = "", {}
        several = len(fit.components) > 1
        for component in fit.components:
            table = fit.coefficients(ddf=self.ddf, level=self.level, component=component)
            constant = component not in ("conditional", "zero_inflation") and not _tested(table)
            if not len(table) or constant:
                continue
            title = _TITLES.get(component, f"Model of {component}")
            if several and component == "conditional":
                title = "Coefficients of the conditional model"
            if component == "zero_inflation" and fit.family.name.startswith("hurdle"):
                title = "Model of the zeros (hurdle)"
            out += _table(
                self._with_ratios(table, component), f"{title} with {percent(self.level)} intervals"
            )
        if len(fit.fixef) > 1 and fit.formula is not None:
            try:
                terms = fit.anova(ddf=self.ddf)
            except MixedModelsError as error:
                out += f'<p class="small">No tests of whole terms: {escape(str(error))}</p>'
            else:
                tests = {row["term"]: row["p_value"] for row in terms.rows()}
                out += _table(terms, "Tests of whole terms (each after all others, type III)")
        constants = dispersion_words(fit)
        if constants:
            out += _list([_sentence(line.replace("_", " ")) for line in constants])
        own = fit.coefficients(ddf=self.ddf, level=self.level, component="conditional")
        sentences = effect_words(own.rows(), tests, fit)
        note = interval_words(self.level, bool(fit.fixef.keys() - {"(Intercept)"}))
        more = [note]
        if fit.ngroups:
            more.append("Effects compare observations of one and the same group.")
        return _list(sentences) + _paragraph(more, "small") + out + _READING

    def _with_ratios(self, table: ResultTable, component: str) -> ResultTable:
        """The table with the exponentials of the estimates and their limits where these mean something."""
        others = {"zero_inflation": "logit", "dispersion": "log"}
        link = self.fit.family.link.name if component == "conditional" else others.get(component, "")
        name = glmm_words.ratio_name(link)
        columns = {key: values for key, values in table.columns.items() if key not in ("component", "df")}
        if component == "dispersion" and name:
            name = "ratio"
        if name is not None:
            low, high = columns.pop("conf_low"), columns.pop("conf_high")
            with np.errstate(over="ignore"):
                ratios = {
                    name: np.exp(columns["estimate"]),
                    "lower": np.exp(low),
                    "upper": np.exp(high),
                }
            first = {key: columns.pop(key) for key in ("term", "estimate")}
            columns = {**first, **ratios, **columns}
        return result_table(table.title, columns, [])

    def explained(self) -> str:
        """R-squared and intraclass correlations on both scales."""
        fit = self.fit
        rows: dict[str, list[Any]] = {"scale": [], "marginal": [], "conditional": []}
        out, told, notes = "", "", []
        scales = {"latent": "linear predictor", "observation": "response"}
        if fit.family.response == "categories":
            del scales["observation"]
        for scale, title in scales.items():
            try:
                r2, icc = fit.r2(scale), fit.icc(scale)
            except MixedModelsError as error:
                notes.append(f"{title}: {error}")
                continue
            first, second = r2["estimate"].tolist()
            if not rows["scale"]:
                told = words.explained_words(first, second).replace("the response", f"the {title}")
            for key, value in zip(rows, (title, first, second), strict=True):
                rows[key].append(value)
            notes += [f"{title}: {note}" for note in r2.notes]
            if fit.ngroups:
                icc_title = f"Intraclass correlations on the scale of the {title}"
                out += _table(result_table("", dict(icc.columns)), icc_title)
        if not rows["scale"]:
            return ""
        table = result_table("", rows, notes)
        caption = "R-squared (marginal: fixed effects; conditional: with the groups)"
        out = _paragraph([told]) + _table(table, caption) + out
        if fit.ngroups:
            out += (
                '<p class="small">Adjusted: the share of the groups in what the fixed effects leave '
                "unexplained; unadjusted: in all variation.</p>"
            )
        return out

    def checks(self) -> str:
        """The diagnosis, finding by finding, and tests by simulation."""
        fit = self.fit
        out = _findings(fit.diagnose())
        if fit.nobs <= _MOST_ROWS:
            table = fit.simulated_residuals(250, 1).tests()
            out += _table(table, "Tests by simulation: small p-values speak against the model")
        return out

    def plots(self) -> str:
        """Residual plots with what to look for."""
        if not _can_draw():
            return super().plots()
        fit, plot = self.fit, self.fit.plot
        figures = [
            _figure(
                plot.residuals,
                "Quantile residuals scatter like standard normal numbers if the model holds: no pattern, an "
                "even spread, few beyond 3 and \N{MINUS SIGN}3.",
            ),
            _figure(
                plot.qq,
                "Points should follow the line and stay within the band; single points far off are "
                "unusual observations.",
            ),
        ]
        if fit.family.response == "count":
            figures.append(
                _figure(
                    plot.rootogram,
                    "Bars hang from the expected frequencies: those that end above zero are counts that are "
                    "too rare in the data, those below too frequent.",
                )
            )
        elif fit.family.response == "successes":
            figures.append(
                _figure(
                    plot.binned,
                    "Mean residuals of rows with similar fitted values: about 95 % should be in the band.",
                )
            )
        if fit.ngroups and fit.design.terms and np.any(fit._b[0]):
            figures.append(
                _figure(
                    partial(_first_axes, plot.ranef_qq),
                    "Differences between groups should follow the line too: the model takes them as normal.",
                )
            )
        return _gallery(figures)


def _tested(table: ResultTable) -> bool:
    return bool(np.isfinite(np.asarray(table["p_value"], dtype=float)).any())
