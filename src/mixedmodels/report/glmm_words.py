"""A generalised fit in sentences: odds, rates and probabilities instead of units of the response."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.glmm_values import base_family, prefixed
from mixedmodels.report.effect_words import _Terms
from mixedmodels.report.words import joined, number

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["GLMMTerms", "model_words", "random_words", "ratio_name", "scale_words"]

_RATIOS = {  # what the exponential of a coefficient multiplies
    "logit": ("odds ratio", "odds of"),
    "log": ("ratio of means", "mean of"),
    "cloglog": ("hazard ratio", "hazard of"),
}
_SCALES = {"logit": "log odds", "log": "logarithm of the mean", "identity": "mean"}


def ratio_name(link: str) -> str | None:
    """What the exponential of a coefficient is called; None where it means nothing."""
    return _RATIOS[link][0] if link in _RATIOS else None


def scale_words(fit: GLMMFit) -> str:
    """The scale on which effects add up."""
    link = fit.family.link.name
    response = _response(fit)
    if base_family(fit.family).response == "categories":
        return f"the {_SCALES.get(link, link + ' scale')} of a higher {response}"
    if link in _SCALES:
        return f"the {_SCALES[link]} of {response}"
    return f"the {link} scale of {response}"


def _response(fit: GLMMFit) -> str:
    return str(fit.formula.response) if fit.formula is not None else "the response"


def model_words(fit: GLMMFit) -> list[str]:
    """What was modelled, from how much data, and how."""
    from mixedmodels.report.glmm_summary import method_words

    response, family = _response(fit), base_family(fit.family)
    sentences = [
        f"This page describes a generalised linear mixed model of {response}, fitted to {fit.nobs:,} "
        "observations.",
        _family_sentence(fit, family),
    ]
    if "zero_inflation" in fit.components:
        hurdle = fit.family.name.startswith("hurdle")
        sentences.append(
            "Whether a response is zero has a model of its own (a hurdle)."
            if hurdle
            else "Beyond the zeros that this distribution has anyway, a second model describes extra zeros "
            "(zero inflation)."
        )
    left = fit.n_rows - fit.nobs
    if left:
        sentences.append(
            f"{left:,} of the {fit.n_rows:,} rows of the data were left out because of missing values or "
            "weights of zero."
        )
    if fit.ngroups:
        parts = [f"{group} ({count:,} groups)" for group, count in fit.ngroups.items()]
        sentences.append(
            f"The observations are grouped by {joined(parts)}. Those of one group resemble each other; "
            "the model takes this into account instead of treating all rows as independent."
        )
    sentences.append(f"The estimates come from {method_words(fit)}.")
    return sentences


def _family_sentence(fit: GLMMFit, family: Any) -> str:
    name = family.name.replace("_", " ")
    kinds = {
        "successes": "the number of successes out of so many trials",
        "count": "a count",
        "categories": "one of several ordered categories",
        "number": "a number",
    }
    trials = fit.generalised.data.trials
    kind = "model" if family.response == "categories" else "distribution"
    what = kinds.get(family.response, "a number")
    if family.response == "successes" and (trials is None or bool((trials <= 1.0).all())):
        what = "either of two outcomes"
    return (
        f"Each response is {what}, with a {name} {kind}. Effects add up on {scale_words(fit)} "
        f"({family.link.name} link)."
    )


def random_words(fit: GLMMFit) -> list[str]:
    """How much the groups differ, on the scale of the linear predictor and as factors."""
    out = []
    link = fit.family.link.name
    places = zip(fit.varcorr.terms, fit._terms, fit.generalised.term_predictor, strict=True)
    for part, term, c in places:
        component = fit.components[c]
        own = link if c == 0 else "logit" if component == "zero_inflation" else "log"
        target = "" if c == 0 else f" in the model of {_component_words(component)}"
        plain = prefixed(("(Intercept)",), component)[0]
        for name, sd in zip(part.names, part.sds, strict=True):
            what = "level" if name == plain else f"effect of {name}"
            if sd == 0.0:
                out.append(
                    f"No differences between groups of {part.group} in their {what}{target} could be told "
                    "from chance: their spread (standard deviation) is estimated as zero."
                )
                continue
            sentence = (
                f"Groups of {term.group} differ in their {what}{target}: their spread (standard deviation) "
                f"on the scale of the linear predictor is {number(sd)}"
            )
            if own in _RATIOS:
                multiplied = _RATIOS[own][1].split(" ")[0]
                whose = {"odds": "odds", "mean": "means", "hazard": "hazards"}[multiplied]
                sentence += (
                    f", so that the {whose} of about two thirds of them lie within a factor of "
                    f"{number(math.exp(min(sd, 700.0)))} of the average group's"
                    if what == "level"
                    else f", a factor of {number(math.exp(min(sd, 700.0)))} per unit"
                )
            out.append(sentence + ".")
    return out


def _component_words(name: str) -> str:
    return {"zero_inflation": "the zeros", "dispersion": "the dispersion"}.get(name, name)


class GLMMTerms(_Terms):
    """The terms of the conditional model in sentences, with odds ratios and the like.

    Parameters
    ----------
    fit : GLMMFit
    rows : sequence of mapping
        The coefficients.
    tests : mapping
        p-values of whole terms.
    """

    def __init__(self, fit: Any, rows: Sequence[Mapping[str, Any]], tests: Mapping[str, float]) -> None:
        super().__init__(fit, rows, tests)
        self.link = fit.family.link
        self.log = 1.0  # no differences of slopes in units of the response
        self.response = self.scale = _response(fit)
        ordered = base_family(fit.family).response == "categories"
        self.target = f"a higher {self.response}" if ordered else self.response
        self.successes = base_family(fit.family).response == "successes"
        self.zeros = "zero_inflation" in fit.components

    def _intercept(self, row: Mapping[str, Any]) -> str:
        with np.errstate(all="ignore"):
            ends = [
                float(np.asarray(self.link.inverse(np.array(row[key]))))
                for key in ("estimate", "conf_low", "conf_high")
            ]
        ends[1:] = sorted(ends[1:])
        seen = {part.label: part for parts in self.variables.values() for part in parts}
        where = f" {self._start(list(seen.values()))}" if seen else ""
        what = f"probability of {self.response}" if self.successes else f"{self.response}"
        extra = ", extra zeros apart" if self.zeros else ""
        limits = f" ({number(ends[1])} to {number(ends[2])})" if np.isfinite(ends[1:]).all() else ""
        return f"The expected {what} in an average group is {number(ends[0])}{limits}{where}{extra}."

    def _change(self, row: Mapping[str, Any], factor: float = 1.0) -> str:
        """``factor of 0.37 (0.20 to 0.68) on the odds of incidence``, or a change on the link's scale."""
        values = [row[key] * factor for key in ("estimate", "conf_low", "conf_high")]
        if self.link.name in _RATIOS:
            with np.errstate(over="ignore"):
                values = [float(np.exp(value)) for value in values]
        first, low, high = map(number, values)
        limits = f"({low} to {high})" if np.isfinite(values[1:]).all() else "(no interval)"
        if self.link.name in _RATIOS:
            return f"factor of {first} {limits} on the {_RATIOS[self.link.name][1]} {self.target}"
        scale = "" if self.link.name == "identity" else f"the {self.link.name} scale of "
        return f"change of {first} {limits} in {scale}{self.scale}"
