"""Wald statistics of the fixed effects from a normal reference distribution: plain floats."""

from __future__ import annotations

import math
from statistics import NormalDist

from mixedmodels.errors import OptionError

__all__ = ["check_level", "normal_quantile", "two_sided_p", "wald_interval", "wald_statistic"]


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
