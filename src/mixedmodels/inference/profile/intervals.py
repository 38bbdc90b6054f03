"""Profile intervals: roots of the criterion itself, with what is not ordinary about them in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixedmodels.fit.wald import normal_quantile, percent
from mixedmodels.inference.parameters import Parameter
from mixedmodels.inference.profile.held import held_for, scale_of
from mixedmodels.inference.profile.points import Knot, limit
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.objective.held import HeldPoint

__all__ = ["NOT_IDENTIFIED", "interval_table"]

NOT_IDENTIFIED = "not identified: one of its standard deviations is estimated as 0"


def interval_table(
    fit: LMMFit,
    asked: Sequence[tuple[Parameter, HeldPoint | None, Sequence[Knot], Sequence[str]]],
    level: float,
    notes: Sequence[str],
) -> ResultTable:
    """Profile intervals of parameters as a table.

    Parameters
    ----------
    fit : LMMFit
        The fit that is profiled.
    asked : sequence of (Parameter, start, knots, notes)
        With the unconstrained minimum (None if it is not known), and the knots and notes of the curve.
    level : float
    notes : sequence of str
    """
    z = normal_quantile(level)
    lows, highs, remarks, codes = [], [], [], []
    for parameter, start, knots, known in asked:
        if math.isnan(parameter.estimate):
            lows.append(math.nan)
            highs.append(math.nan)
            remarks.append(NOT_IDENTIFIED)
            codes.append("not identified")
            continue
        held = held_for(fit, parameter)
        start = held.estimate() if start is None else start
        ends = [
            limit(held, start, z, side, [knot for knot in knots if side * (knot.u - start.u) > 0.0])
            for side in (-1, 1)
        ]
        back = scale_of(parameter).back
        low, high = (float(back(end.u)) if math.isfinite(end.u) else math.nan for end in ends)
        lows.append(low)
        highs.append(high)
        sides = [
            (side, text)
            for side, end in zip(("low", "high"), ends, strict=True)
            for text in (end.note, *end.warnings)
            if text
        ]
        remarks.append("; ".join([*[f"{side}: {note}" for side, note in sides], *known]))
        codes.append("; ".join(dict.fromkeys([_code(side, note) for side, note in sides])))
    parameters = [item[0] for item in asked]
    columns: dict[str, Any] = {
        "term": [p.name for p in parameters],
        "group": [p.group for p in parameters],
        "estimate": [p.estimate for p in parameters],
        "conf_low": lows,
        "conf_high": highs,
    }
    told = list(notes)
    if any(remarks):
        columns["note"] = codes
        told += [f"{p.name}: {remark}" for p, remark in zip(parameters, remarks, strict=True) if remark]
    kind = "restricted maximum likelihood" if fit.is_reml else "maximum likelihood"
    return result_table(
        f"{percent(level)} profile intervals ({kind})",
        columns,
        told,
        fit._native,
        {"level": float(level), "tidy": [(p.group, p.term) for p in parameters]},
    )


def _code(side: str, note: str) -> str:
    """A few words for the column `note`; the whole sentence is among the notes."""
    if note.startswith("the bound"):
        return f"{side} at bound"
    return f"no {side} limit" if note.startswith("no limit") else f"{side}: see note"
