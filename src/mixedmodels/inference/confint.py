"""Confidence intervals of a fit by any method, as one table: term, estimate, conf_low, conf_high."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.errors import OptionError
from mixedmodels.fit import wald
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["confint"]

_METHODS = ("wald", "satterthwaite", "kr", "profile", "bootstrap")


def confint(
    fit: LMMFit, method: str = "wald", level: float = 0.95, parameters: Any = None, **options: Any
) -> ResultTable:
    """Confidence intervals; see `LMMFit.confint`."""
    if method == "wald":
        columns = wald.interval_columns(fit.fixef, fit.se, level)
        return result_table(f"{level:.0%} Wald intervals", columns, (), fit._native)
    raise OptionError(f"confint method {method!r} is unknown; available: {', '.join(_METHODS)}")
