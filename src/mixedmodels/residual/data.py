"""What a structure is given of the data: arrays by the text that names them, no data frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixedmodels.errors import DataError

__all__ = ["Levels", "Need", "ResidualData", "code_values"]


class Need(NamedTuple):
    """A column that a structure asks for.

    Attributes
    ----------
    text : str
        An expression of the formula language (``"Time"``, ``"log(x)"``, ``"a:b"`` for a factor).
    kind : {"number", "factor"}
    what : str
        Its part in the structure, for error messages (``"the times of ar1()"``).
    """

    text: str
    kind: str
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """A factor: codes of the rows and the labels they stand for.

    Attributes
    ----------
    codes : ndarray of intp, shape (n,)
        -1 in new data for a level that the fit has not seen.
    labels : tuple of str, length m
        In order; every level occurs in the data of the fit.
    """

    codes: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ResidualData:
    """Columns of the rows of a model.

    Attributes
    ----------
    n : int
    numbers : mapping from text to ndarray of float64, shape (n,)
    factors : mapping from text to Levels
    rows : ndarray of intp, shape (n,), or None
        Places of the rows in the user's data, to name them in errors; None for 0 .. n - 1.
    """

    n: int
    numbers: Mapping[str, np.ndarray]
    factors: Mapping[str, Levels]
    rows: np.ndarray | None = None

    def number(self, text: str, what: str) -> np.ndarray:
        """Values of a numeric column."""
        try:
            return self.numbers[text]
        except KeyError:
            raise DataError(f"{what}: there are no numbers {text!r}; name a numeric column") from None

    def factor(self, text: str, what: str) -> Levels:
        """Codes and labels of a factor."""
        try:
            return self.factors[text]
        except KeyError:
            raise DataError(f"{what}: there is no factor {text!r}; name a column") from None

    def place(self, row: int) -> int:
        """Place of a row of the model in the user's data."""
        return int(row) if self.rows is None else int(self.rows[row])

    def subset(self, rows: np.ndarray) -> ResidualData:
        """The columns at some of the rows; levels keep their codes."""
        places = rows if self.rows is None else self.rows[rows]
        return ResidualData(
            rows.shape[0],
            {text: values[rows] for text, values in self.numbers.items()},
            {text: Levels(one.codes[rows], one.labels) for text, one in self.factors.items()},
            places,
        )

    def without_unused(self) -> ResidualData:
        """The same columns, factors with the levels that occur only."""
        factors = {}
        for text, one in self.factors.items():
            used, codes = np.unique(one.codes, return_inverse=True)
            factors[text] = Levels(codes.astype(np.intp), tuple([one.labels[code] for code in used]))
        return ResidualData(self.n, self.numbers, factors, self.rows)

    def split_groups(self, group: str, copies: np.ndarray) -> ResidualData:
        """The same columns, rows of one level of `group` with different numbers on different levels.

        Parameters
        ----------
        group : str
        copies : ndarray of intp, shape (n,)
        """
        old = self.factors[group]
        pairs, codes = np.unique(np.column_stack([copies, old.codes]), axis=0, return_inverse=True)
        labels = tuple([f"{old.labels[code]} ({copy})" for copy, code in pairs.tolist()])
        split = Levels(codes.reshape(-1).astype(np.intp), labels)
        return ResidualData(self.n, self.numbers, {**self.factors, group: split}, self.rows)


def code_values(values: object) -> Levels:
    """Levels of a plain array or list, sorted: numbers by value, texts by code point.

    Examples
    --------
    >>> from mixedmodels.residual.data import code_values
    >>> code_values(["b", "a", "b"])
    Levels(codes=array([1, 0, 1]), labels=('a', 'b'))
    """
    levels, codes = np.unique(np.asarray(values), return_inverse=True)
    return Levels(codes.astype(np.intp), tuple(str(level) for level in levels.tolist()))
