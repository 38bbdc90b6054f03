"""What the package maketables asks a model for, so that ``maketables.ETable([fit1, fit2])`` takes fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixedmodels.fit.base import Fit

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
    "method": ("Method", lambda fit: _method(fit)),
}
_GENERALISED = {
    "dispersion": ("Dispersion", lambda fit: fit.sigma if "dispersion" in fit.components else None),
    "family": ("Family", lambda fit: f"{fit.family.name} ({fit.family.link.name})"),
}


def _method(fit: Any) -> str:
    if fit._is_linear:
        return "REML" if fit.is_reml else "ML"
    return "Laplace" if fit.nagq == 1 else "penalised mode" if fit.nagq == 0 else f"quadrature, {fit.nagq}"


def _statistics(fit: Fit) -> dict[str, tuple[str, Any]]:
    """Statistics that the fit has, by key."""
    if fit._is_linear:
        return _STATS
    return {**{key: value for key, value in _STATS.items() if key != "sigma"}, **_GENERALISED}


def coefficient_table(fit: Fit) -> Any:
    """The fixed effects as a pandas frame, tested as in `summary`: b, se, t, p, df, limits ci95l, ...

    Of a generalised model those of all parts with a formula: ``zi_x``, ``disp_x``.
    """
    import numpy as np
    import pandas as pd

    from mixedmodels.inference.ddf.tails import t_quantile

    names, b, se, t, p, dfs = _coefficients(fit)
    columns = {"b": np.array(b), "se": np.array(se), "t": t, "p": p, "df": dfs}
    for level in (95, 90):
        half = np.array([t_quantile(level / 100, df) for df in dfs]) * columns["se"]
        columns[f"ci{level}l"], columns[f"ci{level}u"] = columns["b"] - half, columns["b"] + half
    return pd.DataFrame(columns, index=pd.Index(names, name="Coefficient"))


def _coefficients(fit: Any) -> tuple[list[Any], ...]:
    """Names, estimates, standard errors, statistics, p-values and degrees of freedom."""
    if fit._is_linear:
        from mixedmodels.inference.fixed.coefficients import coefficient_values

        found = coefficient_values(fit)
        parts = (found.std_error, found.statistic, found.p_value, found.df)
        return list(fit.design.x_names), list(fit.beta), *[list(part) for part in parts]
    from mixedmodels.inference.fixed.glmm_coefficients import component_tests

    out: tuple[list[Any], ...] = ([], [], [], [], [], [])
    for part in component_tests(fit):
        if not part.constant:
            cells = (part.names, part.estimate, part.std_error, part.statistic, part.p_value, part.df)
            for column, values in zip(out, cells, strict=True):
                column += list(values)
    return out


def _random(fit: Fit) -> dict[str, tuple[str, Any]]:
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


def stat(fit: Fit, key: str) -> Any:
    """One statistic of the model; None if there is none of that name."""
    own = _statistics(fit)
    if key in own:
        return own[key][1](fit)
    if key == "se_type":
        return vcov_info(fit)["vcov_type"]
    return _random(fit).get(key, ("", None))[1]


def stat_labels(fit: Fit) -> dict[str, str]:
    """Labels of the statistics."""
    return {
        **{key: label for key, (label, _) in _statistics(fit).items()},
        **{key: label for key, (label, _) in _random(fit).items()},
    }


def default_stats(fit: Fit) -> list[str]:
    """Statistics shown without being asked for: the random part, sigma, N and the likelihood."""
    if fit._is_linear:
        return [*_random(fit), "sigma", "N", "ll", "aic", "bic", "method"]
    own = ["dispersion"] if stat(fit, "dispersion") is not None else []
    return [*_random(fit), *own, "family", "N", "ll", "aic", "bic", "method"]


def response_name(fit: Fit) -> str:
    """The response as the formula has it."""
    formula = fit.formula
    return "y" if formula is None or formula.response is None else str(formula.response)


def vcov_info(fit: Fit) -> dict[str, Any]:
    """How standard errors and p-values were made."""
    if not fit._is_linear:
        return {"vcov_type": "joint Hessian", "clustervar": None}
    from mixedmodels.inference.fixed.coefficients import coefficient_values

    return {"vcov_type": coefficient_values(fit).label, "clustervar": None}  # type: ignore[arg-type]
