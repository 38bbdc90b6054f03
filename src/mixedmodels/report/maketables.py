"""What the package maketables asks a model for, so that ``maketables.ETable([fit1, fit2])`` takes fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["coefficient_table", "default_stats", "response_name", "stat", "stat_labels", "vcov_info"]

_STATS = {
    "N": ("Observations", lambda fit: fit.nobs),
    "sigma": ("Residual SD", lambda fit: fit.sigma),
    "ll": ("Log-likelihood", lambda fit: fit.loglik),
    "aic": ("AIC", lambda fit: fit.aic),
    "bic": ("BIC", lambda fit: fit.bic),
    "aicc": ("AICc", lambda fit: fit.aicc),
    "deviance": ("Deviance", lambda fit: fit.deviance),
    "df_model": ("df(model)", lambda fit: fit.df_model),
    "df_resid": ("df(resid)", lambda fit: fit.nobs - fit.df_model),
    "method": ("Method", lambda fit: "REML" if fit.is_reml else "ML"),
}


def coefficient_table(fit: LMMFit) -> Any:
    """The fixed effects as a pandas frame, tested as in `summary`: b, se, t, p, df, limits ci95l, ..."""
    import numpy as np
    import pandas as pd

    from mixedmodels.inference.ddf.tails import t_quantile
    from mixedmodels.inference.fixed.coefficients import coefficient_values

    found = coefficient_values(fit)
    b, se = np.array(fit.beta), np.array(found.std_error)
    columns = {"b": b, "se": se, "t": found.statistic, "p": found.p_value, "df": found.df}
    for level in (95, 90):
        half = np.array([t_quantile(level / 100, df) for df in found.df]) * se
        columns[f"ci{level}l"], columns[f"ci{level}u"] = b - half, b + half
    return pd.DataFrame(columns, index=pd.Index(list(fit.design.x_names), name="Coefficient"))


def _random(fit: LMMFit) -> dict[str, tuple[str, Any]]:
    """Standard deviations, correlations and numbers of levels of the random terms by key."""
    out: dict[str, tuple[str, Any]] = {}
    for part in fit.varcorr.terms:
        for name, sd in zip(part.names, part.sds, strict=True):
            out[f"sd__{part.group}__{name}"] = (f"SD {name} ({part.group})", float(sd))
        for i, row in enumerate(part.correlations()):
            for j, value in enumerate(row):
                pair = f"{part.names[j]}, {part.names[i]}"
                out[f"cor__{part.group}__{part.names[j]}__{part.names[i]}"] = (
                    f"Corr. {pair} ({part.group})",
                    float(value),
                )
    for group, m in fit.ngroups.items():
        out[f"n__{group}"] = (f"Levels of {group}", m)
    return out


def stat(fit: LMMFit, key: str) -> Any:
    """One statistic of the model; None if there is none of that name."""
    if key in _STATS:
        return _STATS[key][1](fit)  # type: ignore[no-untyped-call]
    if key == "se_type":
        return vcov_info(fit)["vcov_type"]
    return _random(fit).get(key, ("", None))[1]


def stat_labels(fit: LMMFit) -> dict[str, str]:
    """Labels of the statistics."""
    return {
        **{key: label for key, (label, _) in _STATS.items()},
        **{key: label for key, (label, _) in _random(fit).items()},
    }


def default_stats(fit: LMMFit) -> list[str]:
    """Statistics shown without being asked for: the random part, sigma, N and the likelihood."""
    return [*_random(fit), "sigma", "N", "ll", "aic", "bic", "method"]


def response_name(fit: LMMFit) -> str:
    """The response as the formula has it."""
    formula = fit.formula
    return "y" if formula is None or formula.response is None else str(formula.response)


def vcov_info(fit: LMMFit) -> dict[str, Any]:
    """How standard errors and p-values were made."""
    from mixedmodels.inference.fixed.coefficients import coefficient_values

    return {"vcov_type": coefficient_values(fit).label, "clustervar": None}
