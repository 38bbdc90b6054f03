"""Frozen text tables: what every output format renders, holding strings only; computes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Table", "decimals_for", "format_column", "format_number", "format_p", "format_scientific"]


class Table(NamedTuple):
    """A small table of text cells.

    Attributes
    ----------
    title : str
        Heading without the colon; empty for none.
    header : tuple of str
        Column heads.
    rows : tuple of tuple of str
        Cells; every row as long as the header.
    align : str
        One letter per column: ``l`` left, ``r`` right, ``n`` numbers already padded to one width, set left.
    indent : int
        Spaces before each line in plain text.
    after : str
        Lines below the table; empty for none.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    indent: int = 0
    after: str = ""


def decimals_for(values: Sequence[float], digits: int, most: int = 9) -> int:
    """Decimals with which every non-zero value shows at least `digits` significant digits, as R's `format`.

    Returns -1 where fixed notation would need more than `most` decimals, or more than ``digits + 5`` leading
    digits, which is the width of scientific notation: the column is then better written in that.
    """
    largest = 0.0
    smallest = math.inf
    for value in values:
        size = abs(value)
        if size < math.inf:
            if size > largest:
                largest = size
            if 0.0 < size < smallest:
                smallest = size
    if largest == 0.0:
        return 0
    decimals = digits - 1 - math.floor(math.log10(smallest))
    if decimals > most or largest >= 10.0 ** (digits + 5):
        return -1
    return decimals if decimals > 0 else 0


def format_column(values: Sequence[float], digits: int, most: int = 9) -> list[str]:
    """Numbers of one column with a common number of decimals; missing values as ``NaN``."""
    decimals = decimals_for(values, digits, most)
    if decimals < 0:
        return [format_scientific(value, digits) for value in values]
    pattern = f"%.{decimals}f"
    return [pattern % value if value == value else "NaN" for value in values]


def format_number(value: float, digits: int = 4) -> str:
    """One number with `digits` significant digits."""
    if value != value:
        return "NaN"
    return f"{value:.{digits}g}"


def format_scientific(value: float, digits: int = 4) -> str:
    """One number in scientific notation; every number of a column is as wide as the others."""
    return "NaN" if value != value else f"{value:.{digits - 1}e}"


def format_p(value: float) -> str:
    """A p-value: four significant digits, and ``<2e-16`` below the resolution of a double."""
    if value != value:
        return ""
    return "<2e-16" if value < 2e-16 else f"{value:.4g}"
