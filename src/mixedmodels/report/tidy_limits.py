"""Limits of a tidy table by profile likelihood or bootstrap in place of the Wald ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mixedmodels.errors import OptionError

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.table import ResultTable

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
    found = _limits(fit.confint(method=method, level=level, **options))
    for i in wanted:
        names = _names(rows["group"][i], rows["term"][i])
        low, high = next((found[name] for name in names if name in found), (math.nan, math.nan))
        rows["conf_low"][i], rows["conf_high"][i] = low, high


def _names(group: str | None, term: str) -> list[tuple[str | None, str]]:
    """What a parameter may be called in a table of limits: (group, term)."""
    if not group:
        return [(None, term)]
    if group == "Residual":
        return [(group, term), (None, "sigma"), (group, "sigma")]
    kind, _, name = term.partition("__")
    if kind == "cor":
        first, _, second = name.partition(".")
        swapped = f"cor_{second}.{first}|{group}"
    else:
        swapped = f"sd_{name}|{group}"
    return [(group, term), (group, swapped), (None, swapped), (None, f"{group}.{term}")]


def _limits(table: ResultTable) -> dict[tuple[str | None, str], tuple[float, float]]:
    columns = table.columns
    groups = columns.get("group", [None] * len(table))
    pairs = zip(columns["conf_low"].tolist(), columns["conf_high"].tolist(), strict=True)
    return {
        (str(group) if group else None, str(term)): pair
        for group, term, pair in zip(groups, columns["term"], pairs, strict=True)
    }
