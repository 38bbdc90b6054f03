"""mixedlm (PyPI, Rust core)."""

from __future__ import annotations

from importlib.metadata import version as installed

import mixedlm

NOTE = "its summary always holds Satterthwaite degrees of freedom"


def version() -> str:
    return installed("mixedlm")


def fit(case, frame):
    if not case.linear:
        raise NotImplementedError("not compared on generalised models")
    return mixedlm.lmer(case.formula, frame, REML=case.reml)


def text(result) -> str:
    return str(result.summary())


def objective(result) -> float:
    value = result.logLik()
    return -2.0 * float(getattr(value, "value", value))
