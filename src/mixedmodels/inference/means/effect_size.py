"""Standardised differences of marginal means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.means.adjust import Family, critical_values
from mixedmodels.inference.means.linear_source import total_variance
from mixedmodels.inference.means.table import estimates
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.inference.means.marginal_means import MarginalMeans

__all__ = ["effect_size"]


def effect_size(
    means: MarginalMeans, sigma: float | None = None, edf: float | None = None, method: Any = "pairwise"
) -> ResultTable:
    r"""Contrasts divided by a standard deviation, with the uncertainty of that standard deviation.

    ``d = (L beta) / sigma`` with ``Var(d) = (se / sigma)^2 + d^2 / (2 edf)`` (delta method,
    ``Var(log sigma) = 1 / (2 edf)``), referred to t with the smaller of the contrast's and sigma's degrees of
    freedom.

    Parameters
    ----------
    means : MarginalMeans
        Means, or contrasts that are taken as they are.
    sigma : float, optional
        By default the SD of one response around the fixed part: all random parts and the residual.
    edf : float, optional
        Degrees of freedom behind `sigma`; by default the smallest of the contrasts.
    method : str, dict, array or callable
        Contrasts.
    """
    contrasts = means.contrast(method) if means.kind in ("means", "slopes") else means
    contrasts = replace(contrasts, show=replace(contrasts.show, adjust="none", response=False), _cache={})
    estimate, se, df, _ = estimates(contrasts)
    given = sigma is not None
    if sigma is None and not means.source.fit._is_linear:
        raise OptionError(
            "effect_size() of a generalised model needs sigma=, the SD that differences on the scale of the "
            "linear predictor are divided by"
        )
    if sigma is None:
        sigma = math.sqrt(total_variance(means.source.fit, None))
    if not (isinstance(sigma, (int, float)) and math.isfinite(sigma) and sigma > 0):
        raise OptionError(f"sigma must be a positive number, got {sigma!r}")
    if edf is None:
        edf = float(np.nanmin(df)) if np.isfinite(df).any() else math.inf
    if not (isinstance(edf, (int, float, np.floating)) and edf > 0):
        raise OptionError(f"edf must be a positive number, got {edf!r}")
    d = estimate / sigma
    d_se = np.sqrt((se / sigma) ** 2 + d**2 / (2.0 * edf))
    d_df = np.minimum(df, edf)
    family = Family("contrasts", len(d), np.eye(len(d)), len(d))
    critical = np.full(len(d), np.nan)
    usable = np.isfinite(d_df) | np.isinf(d_df)
    critical[usable] = critical_values("none", d_df[usable], contrasts.show.level, 0, family)[0]
    columns: dict[str, Any] = {
        **contrasts.labels,
        "estimate": d,
        "std_error": d_se,
        "df": d_df,
        "conf_low": d - critical * d_se,
        "conf_high": d + critical * d_se,
    }
    notes = [
        f"standardised by sigma = {sigma:.6g} ({'given' if given else 'all random parts and the residual'}), "
        f"with {edf:.4g} degrees of freedom",
        f"degrees of freedom of contrasts: {means.source.reference.label}; confidence level "
        f"{contrasts.show.level:g}",
    ]
    return result_table("Effect sizes", columns, notes, means.source.fit._native)
