"""The fixed effects with standard errors, degrees of freedom, t tests and confidence intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixedmodels.fit.wald import check_level, percent
from mixedmodels.inference.ddf.reference import reference_for
from mixedmodels.inference.ddf.tails import t_quantile, t_tail

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.table import ResultTable

__all__ = ["Coefficients", "coefficient_values", "coefficients"]


class Coefficients(NamedTuple):
    """Numbers of the fixed effects, lists of one length."""

    std_error: list[float]
    df: list[float]
    statistic: list[float]
    p_value: list[float]
    vcov: np.ndarray
    name: str
    label: str
    notes: tuple[str, ...]


def coefficient_values(fit: LMMFit, ddf: str | float | None = "auto") -> Coefficients:
    """Standard errors, degrees of freedom, t values and p-values of the fixed effects, as plain floats.

    Parameters
    ----------
    fit : LMMFit
    ddf : str or float
        As in `reference_for`.
    """
    key = f"coefficients_{ddf}"
    return fit._once(key, lambda: _values(fit, ddf))


def _values(fit: LMMFit, ddf: str | float | None) -> Coefficients:
    reference = reference_for(fit, ddf)
    own = getattr(reference, "coefficient_df", None)
    df = reference.df(np.eye(fit.design.p)).tolist() if own is None else own().tolist()
    se = [math.sqrt(v) if v > 0.0 else math.nan for v in reference.vcov.diagonal().tolist()]
    statistic = [b / s if s > 0.0 else math.nan for b, s in zip(fit.beta.tolist(), se, strict=True)]
    p_value = [t_tail(t, d) for t, d in zip(statistic, df, strict=True)]
    about = (reference.vcov, reference.name, reference.label, reference.notes)
    return Coefficients(se, df, statistic, p_value, *about)


def coefficients(fit: LMMFit, ddf: str | float | None = None, level: float = 0.95) -> ResultTable:
    """Table of the fixed effects; see `LMMFit.coefficients`.

    Returns
    -------
    ResultTable
        term, estimate, std_error, df, statistic, p_value, conf_low, conf_high.
    """
    from mixedmodels.inference.table import result_table

    level = check_level(level)
    values = coefficient_values(fit, ddf)
    estimate = fit.beta.tolist()
    half = [t_quantile(level, d) * s for d, s in zip(values.df, values.std_error, strict=True)]
    columns = {
        "term": list(fit.design.x_names),
        "estimate": estimate,
        "std_error": values.std_error,
        "df": values.df,
        "statistic": values.statistic,
        "p_value": values.p_value,
        "conf_low": [b - h for b, h in zip(estimate, half, strict=True)],
        "conf_high": [b + h for b, h in zip(estimate, half, strict=True)],
    }
    title = f"Fixed effects, {values.label}, {percent(level)} confidence intervals"
    return result_table(title, columns, values.notes, fit._native)
