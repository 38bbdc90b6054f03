"""Confidence levels and normal quantiles."""

from __future__ import annotations

import math
from statistics import NormalDist

from mixedmodels.errors import OptionError

__all__ = ["check_level", "normal_quantile", "percent"]


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


def percent(level: float) -> str:
    """A confidence level for titles: 0.95 as ``95%``, 0.975 as ``97.5%``."""
    return f"{100.0 * level:.6g}%"
