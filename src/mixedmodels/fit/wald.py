"""Wald statistics of the fixed effects from a normal reference distribution: plain floats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

from mixedmodels.errors import OptionError

__all__ = [
    "check_level",
    "interval_columns",
    "normal_quantile",
    "statistic_columns",
    "two_sided_p",
    "wald_interval",
    "wald_statistic",
]


def check_level(level: float) -> float:
    """A confidence level as a float strictly between 0 and 1."""
    try:
        value = float(level)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 < value < 1.0:
        raise OptionError(f"level must lie between 0 and 1 (for instance 0.95), got {level!r}")
    return value


def normal_quantile(level: float) -> float:
    """z with P(-z < N(0, 1) < z) = level."""
    return NormalDist().inv_cdf(0.5 + 0.5 * check_level(level))


def wald_statistic(estimate: float, se: float) -> float:
    """estimate / se; NaN where the standard error is zero or missing."""
    return estimate / se if se > 0.0 else math.nan


def two_sided_p(z: float) -> float:
    """P(|N(0, 1)| > |z|), accurate in the tails."""
    return math.erfc(abs(z) / math.sqrt(2.0)) if z == z else math.nan


def wald_interval(estimate: float, se: float, quantile: float) -> tuple[float, float]:
    """estimate -/+ quantile * se."""
    return estimate - quantile * se, estimate + quantile * se


def interval_columns(
    estimates: Mapping[str, float], ses: Mapping[str, float], level: float
) -> dict[str, list]:
    """Columns term, estimate, conf_low, conf_high, one row per coefficient."""
    quantile = normal_quantile(level)
    bounds = [wald_interval(estimate, ses[name], quantile) for name, estimate in estimates.items()]
    return {
        "term": list(estimates),
        "estimate": list(estimates.values()),
        "conf_low": [low for low, _ in bounds],
        "conf_high": [high for _, high in bounds],
    }


def statistic_columns(estimates: Mapping[str, float], ses: Mapping[str, float]) -> dict[str, list]:
    """Columns term, estimate, std_error, statistic, p_value, one row per coefficient."""
    statistics = [wald_statistic(estimate, ses[name]) for name, estimate in estimates.items()]
    return {
        "term": list(estimates),
        "estimate": list(estimates.values()),
        "std_error": [ses[name] for name in estimates],
        "statistic": statistics,
        "p_value": [two_sided_p(z) for z in statistics],
    }
