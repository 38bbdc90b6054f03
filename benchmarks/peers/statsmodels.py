"""statsmodels MixedLM: one grouping factor, or nested factors as variance components."""

from __future__ import annotations

import warnings

import statsmodels
import statsmodels.formula.api as smf

NOTE = ""


def version() -> str:
    return statsmodels.__version__


def fit(case, frame):
    if not case.linear:
        raise NotImplementedError("no likelihood fit of generalised mixed models")
    if not case.fixed or (len(case.groups) > 1 and not case.nested):
        raise NotImplementedError("crossed random effects would be one dense block")
    slopes = "~" + "+".join(case.slopes) if case.slopes else "1"
    components = {"vc_formula": {case.nested: f"0 + C({case.nested})"}} if case.nested else {}
    model = smf.mixedlm(case.fixed, frame, groups=case.groups[0], re_formula=slopes, **components)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(reml=case.reml)


def text(result) -> str:
    return str(result.summary())


def objective(result) -> float:
    return -2.0 * float(result.llf)
