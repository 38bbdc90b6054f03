"""A fit in sentences, for readers who are not statisticians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "convergence_words",
    "effect_words",
    "evidence",
    "explained_words",
    "model_words",
    "number",
    "random_words",
]


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, without an exponent where that is readable."""
    if not math.isfinite(value):
        return "not available" if value != value else ("infinity" if value > 0 else "minus infinity")
    if value == 0.0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - size)}f}".replace("-", "\N{MINUS SIGN}")


def evidence(p: float) -> str:
    """How surprising the estimate would be if there were no effect."""
    if p != p:
        return "No test is available."
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    if p < 0.001:
        strength = "Data like these would be very unlikely without such an effect"
    elif p < 0.05:
        strength = "Data like these would be unlikely without such an effect"
    elif p < 0.1:
        strength = "The evidence for an effect is weak"
    else:
        strength = "The data are compatible with no effect at all"
    return f"{strength} ({shown})."


def model_words(fit: LMMFit) -> list[str]:
    """What was modelled, from how much data, and how."""
    response = str(fit.formula.response) if fit.formula is not None else "the response"
    groups = fit.ngroups
    sentences = [
        f"This page describes a linear mixed model of {response}, fitted to {fit.nobs:,} observations."
    ]
    left = fit.n_rows - fit.nobs
    if left:
        sentences.append(
            f"{left:,} of the {fit.n_rows:,} rows of the data were left out because of missing values or "
            "weights of zero."
        )
    if groups:
        parts = [f"{count:,} levels of {group}" for group, count in groups.items()]
        sentences.append(
            f"Observations are grouped: {_join(parts)}. Observations of one group resemble each other; the "
            "model takes this into account instead of treating all rows as independent."
        )
    method = (
        "restricted maximum likelihood (REML), the usual choice for reporting variances"
        if fit.is_reml
        else "maximum likelihood, the usual choice for comparing models by their likelihoods"
    )
    sentences.append(f"The estimates come from {method}.")
    return sentences


def effect_words(rows: Sequence[Mapping[str, Any]], fit: LMMFit, level: float) -> list[str]:
    """One sentence or two for each fixed effect."""
    response = str(fit.formula.response) if fit.formula is not None else "the response"
    out = []
    for row in rows:
        term, estimate = row["term"], row["estimate"]
        interval = (
            f"(between {number(row['conf_low'])} and {number(row['conf_high'])} with {level:.0%} confidence)"
        )
        if term == "(Intercept)":
            out.append(
                f"The expected {response} where all other terms are zero (for factors: at their first level, "
                f"unless coded otherwise) is {number(estimate)} {interval}."
            )
            continue
        if ":" in term:
            out.append(
                f"{term} (an interaction: how much one effect changes with the other) is estimated as "
                f"{number(estimate)} {interval}. {evidence(row['p_value'])}"
            )
        elif _is_numeric(fit, term):
            direction = "higher" if estimate > 0 else "lower"
            out.append(
                f"Each additional unit of {term} goes with a {response} that is {number(abs(estimate))} "
                f"{direction} on average; the coefficient is {number(estimate)} {interval}. "
                f"{evidence(row['p_value'])}"
            )
        else:
            out.append(
                f"The coefficient of {term} is {number(estimate)} {interval}. {evidence(row['p_value'])}"
            )
    return out


def random_words(fit: LMMFit) -> list[str]:
    """How much the groups differ, in the units of the response."""
    out = []
    for part in fit.varcorr.terms:
        for name, sd in zip(part.names, part.sds, strict=True):
            what = "overall level" if name == "(Intercept)" else f"effect of {name}"
            if sd == 0.0:
                out.append(
                    f"No differences between levels of {part.group} in their {what} could be told from "
                    "noise: the standard deviation is estimated as zero."
                )
            else:
                out.append(
                    f"Levels of {part.group} differ in their {what} with a standard deviation of "
                    f"{number(sd)}: about two thirds of them lie within {number(sd)} of the average."
                )
        for i, row in enumerate(part.correlations()):
            for j, value in enumerate(row):
                if value == value:
                    out.append(
                        f"Between {part.names[j]} and {part.names[i]} of {part.group} the correlation is "
                        f"{number(value, 2)}{_correlation_words(value)}."
                    )
    out.append(
        f"What remains unexplained, from observation to observation, has a standard deviation of "
        f"{number(fit.sigma)}."
    )
    return out


def explained_words(marginal: float, conditional: float) -> str:
    """The two R-squared values in one sentence."""
    return (
        f"The fixed effects explain about {marginal:.0%} of the variance; fixed effects and groups together "
        f"explain about {conditional:.0%}."
    )


def convergence_words(fit: LMMFit) -> str:
    """Whether the numerical search for the estimates ended well."""
    if fit.converged:
        return "The search for the best estimates ended properly: no further step would improve the fit."
    return (
        "The search for the best estimates stopped before it was finished; the numbers on this page are not "
        "reliable. See the messages for what to do."
    )


def _correlation_words(value: float) -> str:
    if abs(value) > 0.9999:
        return ": one is a linear function of the other as far as these data can tell"
    if abs(value) < 0.1:
        return " (practically unrelated)"
    return (
        " (levels with a higher one tend to have a higher other)"
        if value > 0
        else " (levels with a higher one tend to have a lower other)"
    )


def _is_numeric(fit: LMMFit, term: str) -> bool:
    """Whether a coefficient is the slope of one numeric column of the data."""
    if fit.formula is None:
        return True
    return any(
        variable.label == term and variable.kind == "numeric" for variable in fit.frame.encoding.variables
    )


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
