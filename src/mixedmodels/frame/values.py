"""What a column of the data becomes: a float array, a factor or a matrix of several columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FactorColumn", "MatrixColumn", "Value"]


@dataclass(frozen=True, slots=True, eq=False)
class FactorColumn:
    """A categorical column: integer codes into `levels`.

    Attributes
    ----------
    codes : ndarray of int32, shape (n,)
        -1 stands for a missing value.
    levels : sequence of length m
        Labels in order (an array or tuple; labels are turned into text only where they are shown).
    ordered : bool
        Ordered factors get polynomial contrasts by default.
    contrast : str, ndarray or None
        Contrasts asked for in the formula (``C(f, sum)``); None leaves the default.
    """

    codes: np.ndarray
    levels: Sequence[Any] | np.ndarray
    ordered: bool = False
    contrast: Any = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.codes)


@dataclass(frozen=True, slots=True, eq=False)
class MatrixColumn:
    """Several numeric columns from one transform, such as ``poly(x, 2)``.

    Attributes
    ----------
    values : ndarray of float64, shape (n, k)
    suffixes : tuple of str, length k
        What R appends to the call's text to name the columns ("1", "2"; ".L").
    """

    values: np.ndarray
    suffixes: tuple[str, ...]


Value = np.ndarray | FactorColumn | MatrixColumn
