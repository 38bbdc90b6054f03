"""Checks of times and positions: whole numbers, no two rows of a group at one position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import ResidualData
from mixedmodels.solver._kernels.columns import whole_numbers

if TYPE_CHECKING:
    from mixedmodels.residual.structure import CorrelationStructure, Structure

__all__ = ["check_distinct", "check_pairs", "integer_times", "new_integer_times", "row_places"]


def integer_times(values: np.ndarray, name: str, tag: str, data: ResidualData, remedy: str) -> np.ndarray:
    """Times as whole numbers, shape (n,).

    Raises
    ------
    DataError
        A time is not a whole number.
    """
    whole, wrong = whole_numbers(values, 1e-8)
    if wrong >= 0:
        raise DataError(
            f"{tag}() needs whole numbers as times, but {name!r} is {values[wrong]:g} in row "
            f"{data.place(wrong)}; {remedy}"
        )
    return whole


def new_integer_times(structure: CorrelationStructure, data: ResidualData) -> np.ndarray:
    """Times of new rows, shape (N, 1), of a structure that may take the rows in their order.

    Raises
    ------
    DataError
        The structure names no column of times, or a time is not a whole number.
    """
    if not structure.covariates:
        raise DataError(
            f"{structure} takes the rows in their order, so the times of new rows are unknown; name a column "
            "of times in the structure"
        )
    name, tag = structure.covariates[0], structure.tag
    return integer_times(data.number(name, f"{tag}()"), name, tag, data, "round the times")[:, None]


def check_pairs(codes: np.ndarray, labels: tuple[str, ...] | None, structure: Structure) -> None:
    """Refuse groups of one row each, in which nothing is correlated.

    Parameters
    ----------
    codes : ndarray of intp, shape (n,)
        Groups.
    labels : tuple of str or None
        Of the groups.
    structure : Structure
        Its parameters are to be estimated unless they are held.

    Raises
    ------
    DataError
    """
    if labels is not None and codes.shape[0] > len(labels):
        return  # more rows than groups
    if int(np.bincount(codes).max(initial=1)) < 2 and not structure.fixed:
        raise DataError(
            f"{structure}: no group has more than one row, so a correlation cannot be estimated; leave the "
            "structure out or name a coarser grouping factor"
        )


def check_distinct(
    codes: np.ndarray,
    positions: np.ndarray,
    labels: tuple[str, ...] | None,
    structure: Structure,
    data: ResidualData,
    shown: tuple[str, ...] | None = None,
    remedy: str = "",
) -> None:
    """Refuse two rows of a group at one time or place: their correlation would be 1.

    Parameters
    ----------
    codes : ndarray of intp, shape (n,)
    positions : ndarray, shape (n,) or (n, d)
    labels : tuple of str or None
        Of the groups.
    structure : Structure
    data : ResidualData
    shown : tuple of str, optional
        Labels of the positions, which are then codes.
    remedy : str
        What to do, instead of the usual words.

    Raises
    ------
    DataError
    """
    columns = positions[:, None] if positions.ndim == 1 else positions
    order = np.lexsort((*columns.T[::-1], codes))
    in_order = columns[order]
    same = (codes[order][1:] == codes[order][:-1]) & np.all(in_order[1:] == in_order[:-1], axis=1)
    (found,) = np.nonzero(same)
    if not found.size:
        return
    a, b = sorted((int(order[found[0]]), int(order[found[0] + 1])))
    name = getattr(structure, "group", None)
    group = "" if name is None or labels is None else f" of {name} {labels[codes[a]]!r}"
    covariates: tuple[str, ...] = tuple(getattr(structure, "covariates", ()))
    if shown is not None:
        where = f"{covariates[0]} {shown[columns[a, 0].astype(int)]!r}"
    else:
        where = ", ".join(f"{c} = {v:g}" for c, v in zip(covariates, columns[a], strict=False))
    finer = "a grouping factor after |" if name is None else "a finer grouping factor"
    more = f" ({found.size} such pairs)" if found.size > 1 else ""
    raise DataError(
        f"{structure}: rows {data.place(a)} and {data.place(b)}{group} have the same {where}{more}, so their "
        "residuals would be equal; "
        f"{remedy or f'correct the times, average these rows or name {finer}'}"
    )


def row_places(codes: np.ndarray) -> np.ndarray:
    """Place of each row within its group, 0, 1, ... in the order of the data, as floats."""
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    out = np.empty(codes.shape[0])
    out[order] = np.arange(codes.shape[0]) - np.searchsorted(in_order, in_order, "left")
    return out
