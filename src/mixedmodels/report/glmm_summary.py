"""The summary of a generalised fit: title, family, criteria, random effects, a table per component, notes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mixedmodels.fit.glmm_values import base_family
from mixedmodels.inference.fixed.glmm_coefficients import ComponentTests, component_tests
from mixedmodels.report.summary import (
    MOST_CORRELATIONS,
    Summary,
    coefficient_table,
    correlation_table,
    even_row,
)
from mixedmodels.report.table import Table, format_number
from mixedmodels.report.variances import random_table

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["dispersion_words", "family_words", "method_words", "summarize_glmm"]

_TITLES = {
    "conditional": "Fixed effects",
    "zero_inflation": "Zero-inflation model",
    "dispersion": "Dispersion model",
    "thresholds": "Thresholds",
}


def summarize_glmm(fit: GLMMFit, correlation: bool | None = None, ddf: str | float = "z") -> Summary:
    """Collect the numbers of a generalised fit and write them into tables.

    Parameters
    ----------
    fit : GLMMFit
    correlation : bool, optional
        Whether to show the correlations of the fixed effects; None shows them for 2 to 12 coefficients.
    ddf : "z" or a number
        Reference distribution of the tests.
    """
    parts = component_tests(fit, ddf)
    tables = [_criteria_table(fit), _residual_table(fit), _random_table(fit)]
    notes = list(fit.messages)
    several = sum([not part.constant and part.component != "thresholds" for part in parts]) > 1
    for part in parts:
        if part.names and not part.constant:
            tables.append(_component_table(part, several))
    first = parts[0]
    names = first.names
    show = 1 < len(names) <= MOST_CORRELATIONS if correlation is None else bool(correlation)
    if show and len(names) > 1:
        tables.append(correlation_table(names, fit.vcov.tolist(), first.std_error))
    elif correlation is None and len(names) > MOST_CORRELATIONS:
        notes.append(
            f"correlations of the {len(names)} fixed effects are not shown; "
            "summary(correlation=True) shows them, fit.vcov holds the covariances"
        )
    return Summary(
        f"Generalised linear mixed model fit by {method_words(fit)}",
        tuple(_facts(fit)),
        tuple(tables),
        tuple(notes),
        _columns(parts),
        fit._native,
    )


def method_words(fit: GLMMFit) -> str:
    """How the parameters were estimated, for titles."""
    options = fit._options
    how = "penalised maximum likelihood" if options.priors else "maximum likelihood"
    if not fit._terms:
        return how
    if (
        fit.family.name == "gaussian"
        and fit.family.link.name == "identity"
        and fit.generalised.active == (0,)
    ):
        return f"{how} (exact)"
    if fit.nagq == 0:
        return f"{how} (coefficients at the joint penalised mode, nagq = 0)"
    if fit.nagq == 1:
        return f"{how} (Laplace approximation)"
    return f"{how} (adaptive Gauss-Hermite quadrature, {fit.nagq} points)"


def family_words(fit: GLMMFit) -> str:
    """Family and link: ``binomial (logit)``."""
    return f"{fit.family.name} ({fit.family.link.name})"


def dispersion_words(fit: GLMMFit) -> list[str]:
    """Sentences about the constants of the family in natural units."""
    out = []
    family = base_family(fit.family)
    if "dispersion" in fit.components and isinstance(fit.dispersion, float):
        label = getattr(family, "dispersion_name", "")
        called = f" ({label})" if label and label != "dispersion" else ""
        out.append(f"Dispersion parameter for {family.name}{called}: {format_number(fit.dispersion, 4)}")
    natural = getattr(family, "natural_parameters", None)
    given: dict[str, float] = {}
    for predictor in fit.generalised.predictors:
        if predictor.name not in _TITLES and predictor.name != "lower":
            given[predictor.name] = float(fit.gamma[predictor.columns[0]])
    if given and natural is not None:
        given = natural(given)
    out += [f"{name}: {format_number(value, 4)}" for name, value in given.items()]
    return out


def _facts(fit: GLMMFit) -> list[tuple[str, str]]:
    facts = []
    text = fit.formula_text
    if text:
        facts.append(("Formula", text))
    facts.append((" Family", family_words(fit)))
    if "thresholds" in fit.components:
        facts.append(("Thresholds", str(getattr(fit.family, "thresholds", ""))))
    options = fit._options
    if "zero_inflation" in fit.components and options.zero_inflation is not None:
        facts.append(("Zero inflation", formula_words(options.zero_inflation)))
    if "dispersion" in fit.components:
        shown = formula_words(options.dispersion)
        if shown != "~1":
            facts.append(("Dispersion", shown))
    dropped = fit.n_rows - fit.design.n
    if dropped:
        facts.append(("   Data", f"{fit.design.n} of {fit.n_rows} rows ({dropped} left out)"))
    return facts


def formula_words(formula: Any) -> str:
    text = " ".join(str(formula).split())
    return "~1" if text.replace(" ", "") in ("~1", "1", "True") else text


def _criteria_table(fit: GLMMFit) -> Table:
    cells = (
        f"{fit.aic:.1f}",
        f"{fit.bic:.1f}",
        f"{fit.loglik:.1f}",
        f"{fit.deviance:.1f}",
        str(fit.nobs - fit.df_model),
    )
    return even_row("", ("AIC", "BIC", "logLik", "deviance", "df.resid"), cells, 8, indent=1)


def _residual_table(fit: GLMMFit) -> Table:
    cells = tuple([f"{value:.4f}" for value in fit.scaled_quantiles()])
    return even_row("Scaled (Pearson) residuals", ("Min", "1Q", "Median", "3Q", "Max"), cells, 7)


def _random_table(fit: GLMMFit) -> Table:
    varcorr = fit.varcorr
    table = random_table(varcorr.terms, varcorr.sigma, 4, variance=True)
    groups = "; ".join([f"{group}, {levels}" for group, levels in fit.ngroups.items()])
    after = f"Number of obs: {fit.nobs}"
    if groups:
        after += f", groups: {groups}"
    if varcorr.sigma is None:
        after = "\n".join([after, *dispersion_words(fit)])
    return Table("Random effects", table.header, table.rows, table.align, 1, after)


def _component_table(part: ComponentTests, several: bool) -> Table:
    test = "z tests" if part.df[0] == math.inf else f"t tests with {part.df[0]:g} degrees of freedom"
    title = _TITLES.get(part.component, part.component)
    if several and part.component == "conditional":
        title = "Fixed effects (conditional model)"
    return coefficient_table(
        part.names,
        part.estimate,
        part.std_error,
        part.statistic,
        part.df,
        part.p_value,
        title=f"{title}, {test}",
    )


def _columns(parts: tuple[ComponentTests, ...]) -> dict[str, list[Any]]:
    shown = [part for part in parts if not part.constant]
    columns: dict[str, list[Any]] = {"term": [name for part in shown for name in part.names]}
    columns["component"] = [part.component for part in shown for _ in part.names]
    for key in ("estimate", "std_error", "df", "statistic", "p_value"):
        columns[key] = [value for part in shown for value in getattr(part, key)]
    return columns
