"""Tidy tables of a fit, as plain columns and in the caller's data-frame library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = [
    "EFFECTS",
    "add_levels",
    "augment_columns",
    "checked_effects",
    "glance_columns",
    "residual_rows",
    "structured_rows",
    "tidy_columns",
    "to_native",
]

EFFECTS = ("fixed", "ran_pars", "ran_vals", "ran_coefs", "residual")
_COLUMNS = (
    "effect",
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
_EAGER = ("pandas", "polars", "pyarrow", "modin", "cudf")


def to_native(columns: dict[str, Any], backend: str | None) -> Any:
    """Columns as a data frame of the library named `backend`.

    Parameters
    ----------
    columns : dict of str to list or ndarray
        Columns of one length. None stands for a missing text.
    backend : str or None
        pandas, polars, pyarrow, modin, cudf; ``"dict"`` or None gives a dict of arrays; any other library
        (duckdb, dask, ...) gets a pyarrow table, or pandas, or a dict, whichever is installed first.
    """
    name = "dict" if backend is None else str(backend).lower()
    if name == "dict":
        return {key: _array(values) for key, values in columns.items()}
    lists = {key: list(values) if isinstance(values, tuple) else values for key, values in columns.items()}
    if name == "pandas":
        import pandas

        return pandas.DataFrame(lists)
    if name == "polars":
        import polars

        return polars.DataFrame(lists, strict=False)
    if name == "pyarrow":
        import pyarrow

        return pyarrow.table({key: _arrow_values(values) for key, values in lists.items()})
    if name in _EAGER:
        import narwhals

        return narwhals.from_dict(lists, backend=name).to_native()  # type: ignore[arg-type]
    for other in ("pyarrow", "pandas"):
        try:
            return to_native(columns, other)
        except ImportError:
            continue
    return to_native(columns, "dict")


def _arrow_values(values: Any) -> Any:
    return values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind in "UO" else values


def _array(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    values = list(values)
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" and any(
        value is None or not isinstance(value, str) for value in values
    ):
        array = np.empty(len(values), dtype=object)
        array[:] = values
    return array


def checked_effects(effects: str | Sequence[str]) -> tuple[str, ...]:
    """Names of kinds of effects, checked."""
    if not isinstance(effects, (str, Sequence)) or not effects:
        raise OptionError(f"effects must name some of {', '.join(EFFECTS)}, got {effects!r}")
    names = (effects,) if isinstance(effects, str) else tuple(effects)
    for name in names:
        if name not in EFFECTS:
            raise OptionError(f"effects={name!r} is unknown; available: {', '.join(EFFECTS)}")
    return names


def tidy_columns(
    fit: LMMFit,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    conf_int: bool = False,
    level: float = 0.95,
    ddf: str | float = "auto",
) -> dict[str, list[Any]]:
    """Columns effect, group, term, estimate, std_error, statistic, df, p_value, conf_low, conf_high.

    Fixed effects carry t statistics with the degrees of freedom of `ddf`. ``ran_pars`` are
    standard deviations ``sd__x`` and correlations ``cor__x.z``; ``ran_vals`` the conditional modes with their
    conditional standard deviations, term ``level.name``; ``ran_coefs`` coefficients per level with the
    standard deviation of the error of beta plus b. The parameters of a residual structure follow the residual
    standard deviation of ``ran_pars``, with standard errors and Wald limits; ``residual`` has them alone.
    """
    from mixedmodels.fit.wald import normal_quantile

    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    quantile = normal_quantile(level)

    def add(
        effect: str,
        group: str | None,
        term: str,
        estimate: float,
        test: tuple[float, ...] = (math.nan,) * 4,
        within: tuple[float, float] = (math.nan, math.nan),
    ) -> None:
        cells = (effect, group, term, estimate, *test, *within)
        for column, cell in zip(rows.values(), cells, strict=True):
            column.append(cell)

    for effect in checked_effects(effects):
        if effect == "fixed":
            from mixedmodels.inference.ddf.tails import t_quantile
            from mixedmodels.inference.fixed.coefficients import coefficient_values

            tests = coefficient_values(fit, ddf)
            columns = (tests.std_error, tests.statistic, tests.df, tests.p_value)
            numbers = zip(*columns, strict=True)
            for term, estimate, test in zip(fit.design.x_names, fit.beta.tolist(), numbers, strict=True):
                half = t_quantile(level, test[2]) * test[0] if conf_int else math.nan
                add(effect, None, term, estimate, test, (estimate - half, estimate + half))
        elif effect == "ran_pars":
            naturals = structured_rows(fit, level)
            for t, part in enumerate(fit.varcorr.terms):
                if t in naturals:
                    for term, value, error, limits in naturals[t]:
                        add(effect, part.group, term, value, (error, math.nan, math.nan, math.nan), limits)
                    continue
                for name, sd in zip(part.names, part.sds, strict=True):
                    add(effect, part.group, f"sd__{name}", sd)
                for i, row in enumerate(part.correlations()):
                    for j, value in enumerate(row):
                        add(effect, part.group, f"cor__{part.names[j]}.{part.names[i]}", value)
            add(effect, "Residual", "sd__Observation", fit.sigma)
            for term, value, error, limits in residual_rows(fit, level):
                add(effect, "Residual", term, value, (error, math.nan, math.nan, math.nan), limits)
        elif effect == "residual":
            for term, value, error, limits in residual_rows(fit, level):
                add(effect, "Residual", term, value, (error, math.nan, math.nan, math.nan), limits)
        elif effect == "ran_vals":
            add_levels(rows, effect, fit.ranef_columns(condvar=True), quantile if conf_int else None)
        else:
            add_levels(rows, effect, fit.coef_columns(condvar=True), quantile if conf_int else None)
    if not conf_int:
        del rows["conf_low"], rows["conf_high"]
    return rows


def structured_rows(fit: Any, level: float = 0.95) -> dict[int, list[tuple]]:
    """Rows (term, estimate, std_error, limits) of terms that are not linear in theta, by position."""
    from mixedmodels.inference.parameters import curved_terms

    naturals = curved_terms(fit)
    if not naturals:
        return {}
    from mixedmodels.fit.wald import normal_quantile
    from mixedmodels.inference.variance_wald import variance_errors, wald_limits

    errors, z = variance_errors(fit), normal_quantile(level)
    out = {}
    for position, natural in naturals.items():
        out[position] = [
            (label.term, *errors[label.name][:2], wald_limits(*errors[label.name], z))
            for label in natural.names
        ]
    return out


def residual_rows(fit: Any, level: float = 0.95) -> list[tuple]:
    """Rows (term, estimate, std_error, limits) of the residual structure; none without one."""
    if getattr(fit.design, "residual", None) is None:
        return []
    from mixedmodels.inference.parameters import parameters_of
    from mixedmodels.inference.variance_wald import variance_parameters

    wanted = tuple(p for p in parameters_of(fit) if p.kind == "residual")
    rows = variance_parameters(fit, level, wanted).rows() if wanted else []
    return [
        (p.term, row["estimate"], row["std_error"], (row["conf_low"], row["conf_high"]))
        for p, row in zip(wanted, rows, strict=True)
    ]


def add_levels(
    rows: dict[str, list[Any]], effect: str, columns: dict[str, Any], quantile: float | None
) -> None:
    """Append the rows of all levels column by column: there may be a hundred thousand levels."""
    group, levels, names, estimate, *rest = [_items(column) for column in columns.values()]
    n = len(estimate)
    nothing = [math.nan] * n
    sd = rest[0] if rest else nothing
    low = high = nothing
    if quantile is not None:
        middle, half = np.asarray(estimate), quantile * np.asarray(sd)
        low, high = (middle - half).tolist(), (middle + half).tolist()
    added = {
        "effect": [effect] * n,
        "group": group,
        "term": [f"{level}.{name}" for level, name in zip(levels, names, strict=True)],
        "estimate": estimate,
        "std_error": sd,
        "statistic": nothing,
        "df": nothing,
        "p_value": nothing,
        "conf_low": low,
        "conf_high": high,
    }
    for column, values in rows.items():
        if column in added:
            values.extend(added[column])


def _items(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def glance_columns(fit: LMMFit) -> dict[str, list[Any]]:
    """One row about the whole model."""
    return {
        "nobs": [fit.nobs],
        "sigma": [fit.sigma],
        "loglik": [fit.loglik],
        "criterion": [fit.criterion],
        "deviance": [fit.deviance],
        "aic": [fit.aic],
        "bic": [fit.bic],
        "aicc": [fit.aicc],
        "df_model": [fit.df_model],
        "df_residual": [fit.nobs - fit.df_model],
        "is_reml": [fit.is_reml],
        "is_singular": [fit.is_singular],
        "converged": [fit.converged],
    }


def augment_columns(fit: LMMFit) -> dict[str, np.ndarray]:
    """Columns of length n: response, fitted values on both levels, residuals."""
    columns = {
        "response": fit.response(),
        "fitted": fit.fitted(),
        "fixed": fit.fitted(re_form="population"),
        "residual": fit.residuals(),
        "scaled_residual": fit.residuals("scaled"),
    }
    lengths = {values.shape[0] for values in columns.values()}
    if len(lengths) != 1:
        raise DataError("the fit's rows cannot be lined up; refit with na_action='exclude'")
    return columns
