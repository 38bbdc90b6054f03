"""glmm (PyPI, Rust core)."""

from __future__ import annotations

from importlib.metadata import version as installed

import glmm

NOTE = "without Satterthwaite degrees of freedom (satterthwaite=False)"


def version() -> str:
    return installed("glmm")


def fit(case, frame):
    return glmm.fit(frame, case.formula, reml=case.reml, satterthwaite=False)


def text(result) -> str:
    return str(result.summary())


def objective(result) -> float:
    return -2.0 * float(result.loglik)
