"""Marker columns as they are given, made ready row by row for a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.frame.columns import Columns
from mixedmodels.frame.factors import code_column, match_levels
from mixedmodels.frame.labels import level_labels

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Markers", "read_markers"]


@dataclass(frozen=True, eq=False)
class Markers:
    """Markers of a scan.

    Attributes
    ----------
    names : ndarray of object, shape (s,)
    values : ndarray, shape (individuals, s)
        Counts or dosages; missing: NaN, or negative integers.
    rows : ndarray of int, shape (n,), or None
        Row of `values` for each row of the design; None if they are the same.
    chromosomes, positions : ndarray, shape (s,), or None
    """

    names: np.ndarray
    values: np.ndarray
    rows: np.ndarray | None
    chromosomes: np.ndarray | None = None
    positions: np.ndarray | None = None

    def block(self, at: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Values of some markers in the rows of the design, (n, B), missing ones the marker's mean.

        Returns
        -------
        values, means, known, frequencies : ndarray
            Means over the rows, numbers of rows with a value, frequency of the rarer allele (NaN where the
            values are no counts of 0 to 2).
        """
        raw = self.values[:, at]
        block = raw.astype(np.float64)
        if raw.dtype.kind == "i":
            block[block < 0] = np.nan
        if self.rows is not None:
            block = block[self.rows]
        missing = np.isnan(block)
        if np.isinf(block).any():
            raise DataError("markers hold infinite values; code missing ones as NaN")
        known = block.shape[0] - missing.sum(axis=0)
        filled = np.where(missing, 0.0, block)
        mean = np.divide(filled.sum(axis=0), known, out=np.full(len(known), np.nan), where=known > 0)
        if missing.any():
            filled += missing * np.where(known > 0, mean, 0.0)
        counts = (filled.min(axis=0) >= 0.0) & (filled.max(axis=0) <= 2.0)
        share = 0.5 * mean
        maf = np.where(counts, np.minimum(share, 1.0 - share), np.nan)
        return filled, mean, known, maf


def read_markers(fit: LMMFit, snps: Any, ids: Any = None) -> Markers:
    """Markers given as a data frame, a dict, a matrix, or genotypes with ids.

    Parameters
    ----------
    fit : LMMFit
    snps : data frame, dict, array (rows, s) or object with ``ids``, ``counts`` and ``markers``
        One row per row of the data (or of the fit); with ids one row per individual.
    ids : sequence, optional
        Individuals in the rows of `snps`: levels of the term with a known covariance.

    Raises
    ------
    DataError
        Another number of rows, columns that are not numbers, individuals without markers.
    """
    chromosomes = positions = None
    if hasattr(snps, "counts") and hasattr(snps, "markers") and hasattr(snps, "ids"):
        values, names = np.asarray(snps.counts), np.asarray(snps.markers, dtype=object)
        chromosomes, positions = snps.chromosomes, snps.positions
        ids = snps.ids if ids is None else ids
    elif isinstance(snps, np.ndarray) or (isinstance(snps, (list, tuple)) and len(snps)):
        values = np.asarray(snps)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or values.dtype.kind not in "iufb":
            raise DataError("snps must be a matrix of numbers: one row per individual, one column per marker")
        names = np.array([f"m{j + 1}" for j in range(values.shape[1])], dtype=object)
    else:
        columns = Columns(snps)
        wanted = list(columns)
        arrays = [columns[name] for name in wanted]
        wrong = [name for name, a in zip(wanted, arrays, strict=True) if not isinstance(a, np.ndarray)]
        if wrong:
            raise DataError(
                f"marker column {wrong[0]!r} holds no numbers; give counts of an allele (0, 1, 2)"
            )
        values = np.column_stack(arrays) if arrays else np.zeros((columns.n_rows, 0))  # type: ignore[arg-type]
        names = np.array(wanted, dtype=object)
    if not values.shape[1]:
        raise DataError("snps has no column")
    if values.dtype.kind in "ub":
        values = values.astype(np.int16)
    return Markers(names, values, _rows(fit, values.shape[0], ids), chromosomes, positions)


def _rows(fit: LMMFit, count: int, ids: Any) -> np.ndarray | None:
    """Row of the markers for each row of the design."""
    frame, design = fit.frame, fit.design
    if ids is None:
        if count == design.n:
            return None
        if count == fit.n_rows:
            return np.asarray(frame.row_index)
        raise DataError(
            f"snps has {count} rows for {fit.n_rows} rows of data; give one row per row of the data, or the "
            "individuals as ids="
        )
    if len(ids) != count:
        raise DataError(f"{len(ids)} ids given for {count} rows of snps")
    related = [term for term in design.terms if term.precision is not None] or list(design.terms)
    if len({id(term.codes) for term in related}) != 1:
        raise OptionError("ids= needs a model with one factor of individuals; give one row per row of data")
    term = related[0]
    own = term.codes if term.codes.ndim == 1 else term.codes[:, 0]
    used = np.unique(own)
    levels = [term.levels[i] for i in used]
    table = np.full(term.m, -1, dtype=np.int64)
    given = code_column(np.array(level_labels(list(ids)), dtype=str))
    if len(given.levels) < count:
        raise DataError("ids holds an individual twice; give each one row")
    first = np.empty(count, dtype=np.int64)
    first[given.codes] = np.arange(count)
    wanted = code_column(np.array(level_labels(levels), dtype=str))
    codes, unknown = match_levels(wanted, given.levels)
    if unknown:
        shown = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        raise DataError(f"{len(unknown)} individuals of the model have no row of snps: {shown}")
    table[used] = first[codes]
    return table[own]
