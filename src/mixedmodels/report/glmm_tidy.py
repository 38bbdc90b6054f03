"""Generalised fits as tables: estimates by component, one row about the model, one row per observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit.glmm_values import component_prefix
from mixedmodels.fit.wald import normal_quantile
from mixedmodels.inference.ddf.tails import t_quantile
from mixedmodels.inference.fixed.glmm_coefficients import component_tests, degrees_of_freedom
from mixedmodels.report.tidy import add_levels, checked_effects

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["augment_columns", "glance_columns", "tidy_columns"]

_COLUMNS = (
    "effect",
    "component",
    "group",
    "term",
    "estimate",
    "std_error",
    "statistic",
    "df",
    "p_value",
    "conf_low",
    "conf_high",
)


def tidy_columns(
    fit: GLMMFit,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    conf_int: bool = False,
    level: float = 0.95,
    ddf: Any = "z",
) -> dict[str, list[Any]]:
    """Columns of `GLMMFit.tidy`; `component` says to which linear predictor an estimate belongs."""
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    half = t_quantile(level, degrees_of_freedom(ddf)) if conf_int else math.nan

    def add(*cells: Any) -> None:
        padded = (*cells, *[math.nan] * (len(_COLUMNS) - len(cells)))
        for column, cell in zip(rows.values(), padded, strict=True):
            column.append(cell)

    for effect in checked_effects(effects):
        if effect == "fixed":
            for part in component_tests(fit, ddf):
                tests = zip(
                    part.names,
                    part.estimate,
                    part.std_error,
                    part.statistic,
                    part.df,
                    part.p_value,
                    strict=True,
                )
                for name, b, s, statistic, df, p in tests:
                    limits = (b - half * s, b + half * s)
                    add(effect, part.component, None, name, b, s, statistic, df, p, *limits)
        elif effect == "ran_pars":
            owners = [fit.components[c] for c in fit.generalised.term_predictor]
            for term, owner in zip(fit.varcorr.terms, owners, strict=True):
                for name, sd in zip(term.names, term.sds, strict=True):
                    add(effect, owner, term.group, f"sd__{name}", sd)
                for i, row in enumerate(term.correlations()):
                    for j, value in enumerate(row):
                        add(effect, owner, term.group, f"cor__{term.names[j]}.{term.names[i]}", value)
            if fit.varcorr.sigma is not None:
                add(effect, "dispersion", "Residual", "sd__Observation", fit.varcorr.sigma)
        else:
            columns = fit.ranef_columns(True) if effect == "ran_vals" else fit.coef_columns()
            before = len(rows["effect"])
            add_levels(rows, effect, columns, normal_quantile(level) if conf_int else None)
            rows["component"] += [_component(fit, name) for name in columns["term"]]
            assert len(rows["component"]) - before == len(columns["term"])
    if not conf_int:
        del rows["conf_low"], rows["conf_high"]
    return rows


def _component(fit: GLMMFit, name: str) -> str:
    """The component of a random effect by the prefix of its name."""
    for component in fit.components[1:]:
        if name.startswith(component_prefix(component)):
            return component
    return fit.components[0]


def glance_columns(fit: GLMMFit) -> dict[str, list[Any]]:
    """One row about the whole model."""
    return {
        "nobs": [fit.nobs],
        "family": [fit.family.name],
        "link": [fit.family.link.name],
        "nagq": [fit.nagq],
        "dispersion": [fit.sigma],
        "loglik": [fit.loglik],
        "criterion": [fit.criterion],
        "deviance": [fit.deviance],
        "aic": [fit.aic],
        "bic": [fit.bic],
        "aicc": [fit.aicc],
        "df_model": [fit.df_model],
        "df_residual": [fit.nobs - fit.df_model],
        "is_singular": [fit.is_singular],
        "converged": [fit.converged],
    }


def augment_columns(fit: GLMMFit) -> dict[str, np.ndarray]:
    """Columns of one length: response, means with and without random effects, linear predictor, residuals."""
    return {
        "response": fit.response(),
        "fitted": fit.fitted(),
        "fixed": fit.fitted(re_form="population"),
        "linear_predictor": fit.fitted(type="link"),
        "residual": fit.residuals(),
        "pearson_residual": fit.residuals("pearson"),
    }
