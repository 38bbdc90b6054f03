"""Generalised fits as tables: estimates by component, one row about the model, one row per observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.glmm_values import component_prefix
from mixedmodels.fit.wald import normal_quantile
from mixedmodels.inference.ddf.tails import t_quantile
from mixedmodels.inference.fixed.glmm_coefficients import component_tests, degrees_of_freedom
from mixedmodels.report.tidy import add_levels, checked_effects, structured_rows

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["augment_columns", "exponentiated", "glance_columns", "tidy_columns"]

_RATIOS = ("log", "logit", "cloglog", "loglog")
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
            naturals = structured_rows(fit, level)
            for t, (term, owner) in enumerate(zip(fit.varcorr.terms, owners, strict=True)):
                if t in naturals:
                    for name, value, error, limits in naturals[t]:
                        nothing = (math.nan,) * 3
                        add(effect, owner, term.group, name, value, error, *nothing, *limits)
                    continue
                for name, sd in zip(term.names, term.sds, strict=True):
                    add(effect, owner, term.group, f"sd__{name}", sd)
                for i, row in enumerate(term.correlations()):
                    for j, value in enumerate(row):
                        add(effect, owner, term.group, f"cor__{term.names[j]}.{term.names[i]}", value)
            if fit.varcorr.sigma is not None:
                add(effect, "dispersion", "Residual", "sd__Observation", fit.varcorr.sigma)
        else:
            columns = fit.ranef_columns(True) if effect == "ran_vals" else fit.coef_columns(True)
            before = len(rows["effect"])
            add_levels(rows, effect, columns, normal_quantile(level) if conf_int else None)
            rows["component"] += [_component(fit, name) for name in columns["term"]]
            assert len(rows["component"]) - before == len(columns["term"])
    if not conf_int:
        del rows["conf_low"], rows["conf_high"]
    return rows


def exponentiated(fit: GLMMFit, rows: dict[str, list[Any]]) -> None:
    r"""Replace coefficients of log and logit models by ratios, with their limits and delta-method errors.

    ``estimate`` :math:`e^{\hat\gamma}`, ``std_error`` :math:`e^{\hat\gamma} SE`, limits likewise; tests stay
    those of the coefficient. Odds (ratios) under the logit, rate ratios under the log, hazard ratios under
    the complementary log-log link; the dispersion model is one for logarithms. Parameters of the family that
    are no logarithms stay as they are.

    Raises
    ------
    OptionError
        The exponential of a coefficient means nothing under the link of the family.
    """
    if fit.family.link.name not in _RATIOS:
        raise OptionError(
            f"exponentiate=True is for coefficients under the links {', '.join(_RATIOS)}, not for "
            f"{fit.family.link.name!r}; leave it out, or take emmeans(type='response')"
        )
    limits = [name for name in ("conf_low", "conf_high") if name in rows]
    for i, effect in enumerate(rows["effect"]):
        if effect != "fixed" or rows["component"][i] not in ("conditional", "zero_inflation", "dispersion"):
            continue
        with np.errstate(over="ignore"):
            ratio = float(np.exp(rows["estimate"][i]))
            for name in limits:
                rows[name][i] = float(np.exp(rows[name][i]))
        rows["estimate"][i] = ratio
        rows["std_error"][i] = ratio * rows["std_error"][i]


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
