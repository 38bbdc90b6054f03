"""Limits of a tidy table by profile likelihood or bootstrap in place of the Wald ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["CONF_METHODS", "check_conf_method", "put_limits"]

CONF_METHODS = ("wald", "profile", "bootstrap")


def check_conf_method(method: Any, options: dict[str, Any]) -> str:
    """The method, after refusing unknown ones and options that the Wald limits do not have."""
    if method not in CONF_METHODS:
        raise OptionError(f"conf_method={method!r} is unknown; available: {', '.join(CONF_METHODS)}")
    if options and method == "wald":
        raise OptionError(f"tidy() has no option {next(iter(options))!r} with conf_method='wald'")
    return method


def put_limits(
    fit: LMMFit, rows: dict[str, list[Any]], method: str, level: float, options: dict[str, Any]
) -> None:
    """Set conf_low and conf_high of the rows of ``fixed`` and ``ran_pars``; NaN where there is no limit."""
    wanted = [i for i, effect in enumerate(rows["effect"]) if effect in ("fixed", "ran_pars")]
    if not wanted:
        return
    if options.get("kind") == "all":
        raise OptionError("tidy() has room for one kind of interval: kind='percentile', 'bca', ...")
    table = fit.confint(method=method, level=level, **options)
    limits = zip(table["conf_low"].tolist(), table["conf_high"].tolist(), strict=True)
    found = dict(zip(table.extra["tidy"], limits, strict=True))
    for i in wanted:
        key = (rows["group"][i], rows["term"][i])
        rows["conf_low"][i], rows["conf_high"][i] = found.get(key, (math.nan, math.nan))
