"""What only generalised models can have wrong: separation, limits of the family, overdispersion, zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import MixedModelsError
from mixedmodels.inference.checks.diagnose import how_the_search_ended
from mixedmodels.inference.checks.overdispersion import overdispersed_family, pearson_ratio
from mixedmodels.inference.checks.simulated_residuals import has_zeros
from mixedmodels.inference.checks.unusual import Finding

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["LOOKS", "convergence", "dispersion", "information", "messages"]

_RATIO = 1.2  # Pearson's chi-squared over its degrees of freedom from which on it is mentioned
_CONDITION = 1e8
_KINDS = {  # how a message begins or what it holds: the check and its status
    "separation": ("separation", "problem"),
    "few binary": ("approximation", "warning"),
    "standard errors of": ("information", "problem"),
    "no zero inflation": ("family", "warning"),
    "ran to its limit": ("family", "warning"),
    "ran to a limit": ("family", "warning"),
}


def convergence(fit: GLMMFit) -> Iterator[Finding]:
    """Whether the search ended at a minimum."""
    yield how_the_search_ended(fit)


def information(fit: GLMMFit) -> Iterator[Finding]:
    """Whether the criterion is curved in the direction of every parameter."""
    H = np.asarray(fit._free_hessian())
    diagonal = H.diagonal()
    if not H.size or not np.isfinite(H).all() or not (diagonal > 0.0).all():
        return
    scale = 1.0 / np.sqrt(diagonal)
    sizes = np.linalg.eigvalsh(H * scale * scale[:, None])
    if sizes[0] <= 0.0:
        if not fit.is_singular:
            yield Finding(
                "information",
                "problem",
                "the criterion falls in some direction of the parameters: the estimates are no minimum",
                'compare optimisers with allfit(), or fit from another point with start="..."',
            )
        return
    condition = float(sizes[-1] / sizes[0])
    if condition > _CONDITION:
        yield Finding(
            "information",
            "warning",
            f"some parameters can hardly be told apart: condition number of the Hessian {condition:.1g}",
            "centre and scale the predictors, or leave terms out",
        )
    else:
        yield Finding("information", "ok", f"all parameters are determined: condition number {condition:.3g}")


def messages(fit: GLMMFit) -> Iterator[Finding]:
    """The messages of the fit, sorted by what they are about."""
    separated = False
    for message in fit.messages:
        kind = next((value for key, value in _KINDS.items() if key in message), None)
        if kind is None:
            continue
        separated |= kind[0] == "separation"
        finding, _, remedy = message.removeprefix("separation: ").partition("; ")
        yield Finding(*kind, finding, remedy)
    if not separated and fit.family.response in ("count", "successes"):
        yield Finding("separation", "ok", "every coefficient rests on events and on their absence")


def dispersion(fit: GLMMFit) -> Iterator[Finding]:
    """Hints of overdispersion and of too many or too few zeros, by formulas alone."""
    trials = fit.generalised.data.trials
    several = trials is not None and bool((trials > 1.0).any())
    free = "dispersion" not in fit.components
    if free and (fit.family.response == "count" or (fit.family.response == "successes" and several)):
        try:
            statistic, df, p = pearson_ratio(fit)
        except MixedModelsError:
            df = 0
        if df > 0:
            ratio = statistic / df
            text = f"Pearson's chi-squared is {statistic:.4g} on {df} degrees of freedom (ratio {ratio:.3g})"
            if ratio > _RATIO and p < 0.01:
                yield Finding(
                    "overdispersion",
                    "warning",
                    f"{text}: the response varies more than the family says, standard errors are too small",
                    f"try {overdispersed_family(fit)} or a random effect per row; see check_overdispersion()",
                )
            else:
                yield Finding("overdispersion", "ok", text)
    if has_zeros(fit):
        yield from _zeros(fit)


def _zeros(fit: GLMMFit) -> Iterator[Finding]:
    data = fit.generalised.data
    plain = type(data)(np.zeros(data.n), data.trials, None, data.levels)
    chance = np.exp(fit.family.derivatives(plain, list(fit._solution.eta), 0)[0])
    observed, expected = int(np.count_nonzero(data.y == 0.0)), float(chance.sum())
    spread = float(np.sqrt(np.sum(chance * (1.0 - chance))))
    text = f"{observed} zeros, {expected:.4g} expected at the fitted values"
    if abs(observed - expected) > max(4.0 * spread, 0.1 * expected) and spread > 0.0:
        more = observed > expected
        yield Finding(
            "zeros",
            "warning",
            text,
            ('try zero_inflation="~1", or a family with overdispersion' if more else "try another family")
            + "; see check_zero_inflation()",
        )
    else:
        yield Finding("zeros", "ok", text)


LOOKS = (convergence, information, messages, dispersion)
