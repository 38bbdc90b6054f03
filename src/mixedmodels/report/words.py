"""A fit in sentences, for readers who are not statisticians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "convergence_words",
    "evidence",
    "explained_words",
    "joined",
    "model_words",
    "number",
    "random_words",
]


NBSP = "\N{NO-BREAK SPACE}"


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


def evidence(p: float, what: str = "effect") -> str:
    """How surprising the estimate would be if there were no effect (or difference)."""
    if p != p:
        return "No test is available."
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    if p < 0.001:
        strength = f"Data like these would be very unlikely if there were no {what}"
    elif p < 0.05:
        strength = f"Data like these would be unlikely if there were no {what}"
    elif p < 0.1:
        strength = f"The evidence for this {what} is weak"
    else:
        strength = f"The data are compatible with no {what} at all, which does not prove that there is none"
    return f"{strength} ({shown.replace(' ', NBSP)})."


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
        parts = [f"{group} ({count:,} groups)" for group, count in groups.items()]
        sentences.append(
            f"The observations are grouped by {joined(parts)}. Those of one group resemble each other; "
            "the model takes this into account instead of treating all rows as independent."
        )
    method = (
        "restricted maximum likelihood (REML), the usual choice for reporting variances"
        if fit.is_reml
        else "maximum likelihood, the usual choice for comparing models by their likelihoods"
    )
    sentences.append(f"The estimates come from {method}.")
    return sentences


def random_words(fit: LMMFit) -> list[str]:
    """How much the groups differ, in the units of the response."""
    out = []
    response = str(fit.formula.response) if fit.formula is not None else "the response"
    for part in fit.varcorr.terms:
        numbers = [name for name in part.names if name != "(Intercept)"]
        for name, sd in zip(part.names, part.sds, strict=True):
            if name != "(Intercept)":
                what = f"in the effect of {name}"
            elif numbers:
                what = f"in {response} where {joined(numbers)} {'is' if len(numbers) == 1 else 'are'} zero"
            else:
                what = f"in their average {response}"
            if sd == 0.0:
                out.append(
                    f"No differences between groups of {part.group} {what} could be told from chance: their "
                    "spread (standard deviation) is estimated as zero."
                )
            else:
                out.append(
                    f"Groups of {part.group} differ {what}: their spread (standard deviation) is "
                    f"{number(sd)}, so that about two thirds of them lie within {number(sd)} of the average."
                )
        short = [
            f"the effect of {n}" if n != "(Intercept)" else f"the level of {response}" for n in part.names
        ]
        for i, row in enumerate(part.correlations()):
            for j, value in enumerate(row):
                if value == value:
                    out.append(
                        f"Over the groups of {part.group}, the correlation of {short[j]} and {short[i]} is "
                        f"{number(value, 2)}: {_correlation_words(value)}."
                    )
    out.append(
        f"Beyond that, single observations scatter with a standard deviation of {number(fit.sigma)}, which "
        "the model does not explain."
    )
    if response.endswith(")"):
        out.append(f"All these numbers are on the scale of {response}.")
    return out


def explained_words(marginal: float, conditional: float) -> str:
    """The two R-squared values in one sentence."""
    return (
        f"The fixed effects account for about {marginal:.0%} of the variation of the response; together "
        f"with the differences between groups it is about {conditional:.0%}."
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
    size = abs(value)
    if size > 0.9999:
        return "as far as these data can tell, one follows exactly from the other"
    if size < 0.1:
        return "the two are practically unrelated"
    how = "" if size >= 0.5 else " (a weak tendency)"
    other = "above" if value > 0 else "below"
    return f"groups above average in one tend to be {other} average in the other{how}"


def joined(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return "".join(parts) if len(parts) < 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"
