"""Terms whose columns are positions: times for autoregressions, coordinates for spatial structures.

``ar1(time | g)``, ``ar1(0 + f | g)`` and ``exp(x + y | g)`` mean one column for each position; in a plan
their left side is ``0 + numFactor(...)``, which makes a factor of numbers and keeps all levels of a factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.covariance import STRUCTURES, Covariance, make_covariance
from mixedmodels.errors import DataError, FormulaError
from mixedmodels.formula.ast import Bar, Call, Expression, Term, TermList
from mixedmodels.frame.state import PartState, VariableState
from mixedmodels.frame.transforms.positions import coordinates_of

__all__ = ["FUNCTION", "check_size", "has_positions", "position_covariance", "position_effects"]

FUNCTION = "numFactor"
_LARGEST = 200_000_000  # numbers in the columns of one term


def has_positions(structure: str) -> bool:
    """Whether the columns of a structure are positions."""
    row = STRUCTURES.get(structure)
    return row is not None and row.needs in ("times", "coordinates")


def position_effects(bar: Bar, label: str) -> tuple[TermList, bool]:
    """The left side of a bar as one factor of positions, and whether an intercept was left out.

    Raises
    ------
    FormulaError
        The left side holds an interaction or nothing.
    """
    effects = bar.effects
    if not effects.terms or any(len(term.factors) != 1 for term in effects.terms):
        raise FormulaError(
            f"{label}: {bar.structure}() takes positions: a factor or numeric columns joined by '+', as in "
            f"{bar.structure}(0 + time | g)"
        )
    arguments = tuple(term.factors[0] for term in effects.terms)
    call: Expression = Call(FUNCTION, arguments)
    if len(arguments) == 1 and isinstance(arguments[0], Call) and arguments[0].function == FUNCTION:
        call = arguments[0]
    return TermList(False, (Term((call,)),)), effects.intercept


def position_covariance(
    structure: str,
    part: PartState,
    variables: tuple[VariableState, ...],
    options: Mapping[str, Any],
    label: str,
) -> tuple[Covariance, str]:
    """The structure of a term of positions, and a note ("" for none).

    Parameters
    ----------
    structure : str
        Tag.
    part : PartState
        With one term of one factor.
    variables : tuple of VariableState
    options : mapping
        Options of the tag.
    label : str
        Text of the bar, for messages.

    Raises
    ------
    DataError
        The positions do not fit the structure.
    """
    variable = variables[part.terms[0][0]]
    k = len(part.names)
    if STRUCTURES[structure].needs == "coordinates":
        return make_covariance(
            structure, k, coordinates=coordinates_of(variable.levels, label), **options
        ), ""
    calls = variable.state["calls"] if isinstance(variable.state, dict) else {}
    numeric = any(call.get("numeric") for call in calls.values())
    if structure in ("ar1", "hetar1") and not numeric:
        return make_covariance(structure, k, **options), ""  # levels of a factor: equally spaced
    points = coordinates_of(variable.levels, label)
    if points.shape[1] != 1:
        raise DataError(f"{label}: {structure} takes one time, not {points.shape[1]} coordinates")
    times = points[:, 0]
    order = np.argsort(times)
    if np.any(np.diff(order) < 0):
        raise DataError(f"{label}: the levels are not in the order of time; give the numbers, not a factor")
    if structure in ("car1", "ou"):
        return make_covariance(structure, k, times=times, **options), ""
    if np.all(times == np.round(times)):
        return make_covariance(structure, k, times=times.astype(np.int64), **options), ""
    if structure == "hetar1":
        raise DataError(f"{label}: the times are not whole numbers; use car1 or ou, or give a factor")
    note = f"{label}: the times are not whole numbers: fitted as car1, with a correlation of at least 0"
    return make_covariance("car1", k, times=times, **options), note


def check_size(n: int, k: int, label: str) -> None:
    """Refuse terms with too many columns for a table of n x k numbers."""
    if n * k > _LARGEST:
        raise DataError(
            f"{label} has {k} columns for {n} rows, more than this version can hold; round the positions so "
            "that rows share them"
        )
