"""Coefficients of all linear predictors of a generalised model, with z tests and confidence intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.glmm_values import component_of, constant_column, own_predictors
from mixedmodels.fit.wald import check_level, percent
from mixedmodels.inference.ddf.reference import untested_notes
from mixedmodels.inference.ddf.tails import t_quantile, t_tail

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit
    from mixedmodels.inference.table import ResultTable

__all__ = ["ComponentTests", "coefficients", "component_tests", "degrees_of_freedom"]


class ComponentTests(NamedTuple):
    """Coefficients of one linear predictor; lists of one length."""

    component: str
    names: tuple[str, ...]
    estimate: list[float]
    std_error: list[float]
    df: list[float]
    statistic: list[float]
    p_value: list[float]
    constant: bool


def degrees_of_freedom(ddf: Any) -> float:
    """Infinity for "z", else the number given.

    Raises
    ------
    OptionError
        Another word: degrees of freedom are defined for linear models only.
    """
    if isinstance(ddf, (int, float)) and not isinstance(ddf, bool):
        if not ddf > 0.0:
            raise OptionError(f"ddf={ddf!r}: degrees of freedom must be positive")
        return float(ddf)
    if ddf is None or str(ddf).lower() in ("z", "auto", "wald", "asymptotic"):
        return math.inf
    raise OptionError(
        f"ddf={ddf!r} is for linear models; generalised models take 'z' (normal distribution) or a number"
    )


def component_tests(fit: GLMMFit, ddf: Any = "z") -> tuple[ComponentTests, ...]:
    """Estimates, standard errors, Wald statistics and p-values of every linear predictor.

    Constants of the family (a dispersion without a formula, ...) have no test: p_value is NaN.
    """
    df = degrees_of_freedom(ddf)
    return fit._once(f"component_tests_{df}", lambda: _tests(fit, df))


def _tests(fit: GLMMFit, df: float) -> tuple[ComponentTests, ...]:
    gamma = fit.gamma.tolist()
    ses = list(fit.se_all.values())
    names = fit.gamma_names
    out = []
    for predictor in own_predictors(fit.generalised):
        places = predictor.columns.tolist()
        constant = (
            predictor.name != "conditional"
            and predictor.name != "zero_inflation"
            and constant_column(predictor)
        )
        estimate = [gamma[j] for j in places]
        se = [ses[j] for j in places]
        if constant:
            statistic = p = [math.nan] * len(places)
        else:
            statistic = [b / s if s > 0.0 else math.nan for b, s in zip(estimate, se, strict=True)]
            p = [t_tail(t, df) for t in statistic]
        out.append(
            ComponentTests(
                predictor.name,
                tuple([names[j] for j in places]),
                estimate,
                se,
                [df] * len(places),
                statistic,
                p,
                constant,
            )
        )
    return tuple(out)


def coefficients(
    fit: GLMMFit, ddf: Any = "z", level: float = 0.95, component: str | None = None
) -> ResultTable:
    """Table of the coefficients; see `GLMMFit.coefficients`."""
    from mixedmodels.inference.table import result_table

    level = check_level(level)
    parts = component_tests(fit, ddf)
    if component is None:
        parts = tuple([part for part in parts if not part.constant])
    elif component != "all":
        name = component_of(component, fit.components)
        parts = tuple([part for part in parts if part.component == name])
    half = t_quantile(level, degrees_of_freedom(ddf))
    columns: dict[str, list[Any]] = {"term": [name for part in parts for name in part.names]}
    columns["component"] = [part.component for part in parts for _ in part.names]
    for key in ("estimate", "std_error", "df", "statistic", "p_value"):
        columns[key] = [value for part in parts for value in getattr(part, key)]
    pairs = list(zip(columns["estimate"], columns["std_error"], strict=True))
    columns["conf_low"] = [b - half * s for b, s in pairs]
    columns["conf_high"] = [b + half * s for b, s in pairs]
    if len(parts) == 1 and parts[0].component == "conditional":
        del columns["component"]
    how = "normal distribution" if math.isinf(degrees_of_freedom(ddf)) else f"{ddf:g} degrees of freedom"
    title = f"Coefficients, {how}, {percent(level)} confidence intervals"
    return result_table(title, columns, _notes(fit, columns["term"], parts), fit._native)


def _notes(fit: GLMMFit, terms: list[str], parts: tuple[ComponentTests, ...]) -> list[str]:
    """Why rows have no standard error or no test."""
    if all(p == p for part in parts for p in part.p_value):
        return []
    places = [fit.gamma_names.index(name) for name in terms]
    notes = list(untested_notes(terms, fit.joint_vcov[np.ix_(places, places)]))
    constants = [name for part in parts if part.constant for name in part.names]
    if constants:
        notes.append(f"constants of the family, on the scale of their predictors: {', '.join(constants)}")
    return notes
