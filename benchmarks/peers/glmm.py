"""glmm (PyPI, Rust core)."""

from __future__ import annotations

from importlib.metadata import version as installed

import glmm

_FAMILIES = {"nbinom2": "negativebinomial"}
NOTE = "without Satterthwaite degrees of freedom (satterthwaite=False)"


def version() -> str:
    return installed("glmm")


def fit(case, frame):
    if not case.linear:
        response = case.formula.split("~")[0].strip()
        if response in frame and frame[response].dtype.kind not in "biuf":  # it takes numbers only
            frame = frame.assign(**{response: (frame[response] == "Y").astype(float)})
        formula = case.formula.replace("size - incidence", "healthy")
        if formula != case.formula:  # cbind() of two columns only
            frame = frame.assign(healthy=frame["size"] - frame["incidence"])
        return glmm.fit(frame, formula, family=_FAMILIES.get(case.family, case.family))
    return glmm.fit(frame, case.formula, reml=case.reml, satterthwaite=False)


def text(result) -> str:
    return str(result.summary())


def objective(result) -> float:
    return -2.0 * float(result.loglik)
