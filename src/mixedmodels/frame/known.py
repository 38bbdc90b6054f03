r"""Known covariances between the levels of grouping factors: pedigrees, kinships, any covariance matrix.

A term on a grouping factor with a known covariance A has ``b ~ N(0, A kron Sigma)``. Its levels are all of
A's ids, in A's order, whether or not they have rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.design import KnownCovariance, Precision
from mixedmodels.errors import DataError, OptionError
from mixedmodels.frame.factors import coded_in, match_levels
from mixedmodels.frame.plan import Plan
from mixedmodels.frame.rows import Rows
from mixedmodels.frame.values import FactorColumn

__all__ = ["Known", "check_names", "match_known"]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A covariance between named levels.

    Attributes
    ----------
    ids : ndarray, shape (m,)
        Integers or texts.
    between : Precision or KnownCovariance
    """

    ids: np.ndarray
    between: Precision | KnownCovariance


def check_names(known: Mapping[str, Known], plans: list[Plan]) -> None:
    """Refuse a name that no term uses, and a matrix that was not given.

    Raises
    ------
    OptionError
        Which names there are.
    """
    groups = [group for plan in plans for group in plan.groups]
    used = {_key(group) for group in groups} if known else set()
    for name in known:
        if name not in used:
            names = ", ".join(dict.fromkeys(group.first for group in groups if not group.relation)) or "none"
            raise OptionError(
                f"known: {name!r} is not a grouping factor of the formula (these are {names}); for a second "
                f"matrix on one factor write known(1 | factor, {name})"
            )
    for group in groups:
        if group.relation not in ("", "id") and group.relation not in known:
            raise OptionError(
                f"the formula uses the known matrix {group.relation!r}, but known= has "
                f"{', '.join(map(repr, known)) or 'no matrix'}; give known={{{group.relation!r}: matrix}}"
            )


def _key(group: Any) -> str:
    """Name in `known=` of a group's matrix; "" for independent levels."""
    return {"": group.first, "id": ""}.get(group.relation, group.relation)


def match_known(plan: Plan, rows: Rows, known: Mapping[str, Known]) -> dict[str, Any]:
    """Give the factors of related levels the ids of their matrix as levels; `rows` is changed.

    Returns
    -------
    dict
        From the names of these grouping factors to what lies between their levels.

    Raises
    ------
    DataError
        Levels that are not among the ids; the message names them.
    """
    between: dict[str, Any] = {}
    done: dict[tuple[int, int], FactorColumn] = {}
    for i, group in enumerate(plan.groups):
        entry = known.get(_key(group))
        if entry is None:
            continue
        factor = rows.groups[i]
        key = (id(factor.codes), id(entry.ids))
        if key not in done:
            parts = rows.parts[i]
            if group.joint and parts is not None:
                matched, unknown = coded_in(parts, entry.ids)
            else:
                codes, unknown = match_levels(factor, entry.ids)
                matched = FactorColumn(codes, entry.ids)
            if unknown:
                shown = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
                raise DataError(
                    f"{len(unknown)} level{'s' if len(unknown) > 1 else ''} of {group.name!r} "
                    f"{'are' if len(unknown) > 1 else 'is'} not among the ids of known[{_key(group)!r}]: "
                    f"{shown}; add them to it or leave their rows out"
                )
            done[key] = matched
        rows.groups[i] = done[key]
        between[group.name] = entry.between
    return between
