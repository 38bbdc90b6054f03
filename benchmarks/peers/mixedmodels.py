"""This package."""

from __future__ import annotations

import mixedmodels as mm

NOTE = ""


def version() -> str:
    return mm.__version__


def fit(case, frame):
    if not case.linear:
        return mm.glmm(case.formula, frame, family=case.family)
    return mm.lmm(case.formula, frame, reml=case.reml)


def text(result) -> str:
    return str(result.summary())


def objective(result) -> float:
    return float(result.criterion)
