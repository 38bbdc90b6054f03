"""What an answer looks like: a small frozen table of plain columns with a title and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = ["Drawn", "ResultTable", "result_table"]


class Drawn:
    """What can be drawn: gives an answer its method `plot`."""

    __slots__ = ()

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw this on matplotlib axes and return them; without `ax` in a new figure.

        Parameters
        ----------
        ax : axes, or several of them
            A plot with several panels takes as many axes and returns a list of them.
        **options
            Of the plot of this kind: ``kind=`` ("zeta", "density" or "pairs") and ``parameters=`` of a
            profile; ``parameters=`` and ``level=`` of a bootstrap; ``title=``, ``xlabel=``, ``ylabel=`` of
            means.

        Raises
        ------
        OptionError
            matplotlib is not installed, or an option is unknown.
        """
        from mixedmodels.report.plots.results import plot_result

        return plot_result(self, ax, options)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ResultTable:
    """A frozen table: prints as text, shows as HTML in notebooks, and gives a data frame.

    Attributes
    ----------
    title : str
        What the table shows, in one line.
    columns : mapping of str to ndarray
        Columns of one length, read-only.
    notes : tuple of str
        What a reader must know: methods used, adjustments, what could not be computed and why.
    extra : mapping of str to object
        Arrays and numbers that do not fit into the table (contrast matrices, covariances, draws).

    Examples
    --------
    >>> from mixedmodels.inference.table import result_table
    >>> table = result_table("Two rows", {"term": ["a", "b"], "estimate": [1.0, 2.5]})
    >>> print(table)
    Two rows
    term estimate
    a       1.000
    b       2.500
    >>> table["estimate"].tolist()
    [1.0, 2.5]
    >>> table.row("b")["estimate"]
    2.5
    """

    title: str
    columns: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    _native: Callable[[dict[str, Any]], Any] | None = None

    def to_frame(self) -> Any:
        """The table in the data-frame library of the fit's data."""
        columns = dict(self.columns)
        return columns if self._native is None else self._native(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self.columns[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; the table has {', '.join(self.columns)}") from None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def rows(self) -> list[dict[str, Any]]:
        """The rows as dicts of plain Python values."""
        lists = [column.tolist() for column in self.columns.values()]
        return [dict(zip(self.columns, values, strict=True)) for values in zip(*lists, strict=True)]

    def row(self, key: str) -> dict[str, Any]:
        """The row whose first column is `key`."""
        first = next(iter(self.columns))
        for row in self.rows():
            if row[first] == key:
                return row
        raise KeyError(f"no row {key!r} in column {first!r}: {', '.join(map(str, self.columns[first]))}")

    def __str__(self) -> str:
        from mixedmodels.report.results import render_result

        return render_result(self, "text")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The table as an HTML fragment."""
        from mixedmodels.report.results import render_result

        return render_result(self, "html")

    def to_latex(self) -> str:
        """The table as LaTeX; needs the package booktabs."""
        from mixedmodels.report.results import render_result

        return render_result(self, "latex")

    def to_markdown(self) -> str:
        """The table as a Markdown pipe table."""
        from mixedmodels.report.results import render_result

        return render_result(self, "markdown")


def result_table(
    title: str,
    columns: Mapping[str, Sequence[Any] | np.ndarray],
    notes: Sequence[str] = (),
    native: Callable[[dict[str, Any]], Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> ResultTable:
    """A `ResultTable` of columns given as lists or arrays; texts become object arrays."""
    frozen = {name: _frozen(values) for name, values in columns.items()}
    return ResultTable(
        title, MappingProxyType(frozen), tuple(notes), MappingProxyType(dict(extra or {})), native
    )


def _frozen(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    array = np.array(values)
    if array.dtype.kind not in "fiub":
        items = list(values)
        array = np.empty(len(items), dtype=object)
        array[:] = items
    array.setflags(write=False)
    return array
