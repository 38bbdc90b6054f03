"""Genotypes: counts of one allele of many markers in many individuals, with what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.genetics.labels import Finder

__all__ = ["Genotypes"]

_BLOCK = 1024  # markers turned into floats at a time


@dataclass(frozen=True, eq=False, repr=False)
class Genotypes:
    """Allele counts (0, 1, 2) or expected counts (dosages) of markers.

    Attributes
    ----------
    ids : ndarray, shape (n,)
        Individuals.
    counts : ndarray of int8 or float, shape (n, m)
        Copies of the counted allele; missing: -1 (int8) or NaN (float).
    markers : ndarray of object, shape (m,)
        Names.
    chromosomes : ndarray of object, shape (m,), or None
    positions : ndarray of int64, shape (m,), or None
        Base pairs.
    centimorgans : ndarray of float, shape (m,), or None
    alleles : ndarray of object, shape (m, 2), or None
        Counted and other allele.
    notes : tuple of str
        What was left out while reading.
    """

    ids: np.ndarray
    counts: np.ndarray
    markers: np.ndarray
    chromosomes: np.ndarray | None = None
    positions: np.ndarray | None = None
    centimorgans: np.ndarray | None = None
    alleles: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.counts, np.ndarray):
            raise DataError("counts must be an array; Genotypes.from_array(counts, ids, markers) makes one")
        if self.counts.ndim != 2 or self.counts.shape != (len(self.ids), len(self.markers)):
            raise DataError(
                f"genotypes of {len(self.ids)} individuals and {len(self.markers)} markers need a matrix of "
                f"that shape, not {' x '.join(map(str, self.counts.shape))}"
            )

    @classmethod
    def from_array(cls, counts: Any, ids: Any = None, markers: Any = None) -> Genotypes:
        """Genotypes from a matrix of counts, individuals in rows.

        Parameters
        ----------
        counts : array_like, shape (n, m)
            0, 1, 2 or dosages between; NaN or a negative number is missing.
        ids, markers : sequence of labels, optional
            1, 2, ... and m1, m2, ... without them.

        Raises
        ------
        DataError
            A count above two.
        """
        values = np.asarray(counts)
        if values.ndim != 2:
            raise DataError("genotypes need a matrix: individuals in rows, markers in columns")
        if values.dtype.kind not in "iufb":
            raise DataError("genotypes are numbers: 0, 1, 2 copies of an allele, NaN for missing ones")
        if values.dtype.kind == "f":
            low = values < 0
            values = np.where(low, np.nan, values) if low.any() else values.astype(float)
            top = float(np.nanmax(values, initial=0.0))
        else:
            top = float(values.max(initial=0))
            values = np.maximum(values, -1).astype(np.int8) if top <= 2 else values
        if top > 2:
            raise DataError(f"a genotype is {top:g}; counts of an allele lie between 0 and 2")
        names = np.empty(values.shape[1], dtype=object)
        names[:] = [f"m{j + 1}" for j in range(values.shape[1])] if markers is None else list(markers)
        labels = np.arange(1, len(values) + 1) if ids is None else _labels(ids)
        return cls(ids=labels, counts=values, markers=names)

    @classmethod
    def from_frame(cls, data: Any, id: str = "id", markers: Sequence[str] | None = None) -> Genotypes:
        """Genotypes from columns of a data frame, one row per individual.

        Parameters
        ----------
        data : data frame or mapping
        id : str
            Column of labels.
        markers : sequence of str, optional
            Columns of counts or dosages; all others without it.

        Raises
        ------
        DataError
            A column that is not there or holds no numbers, an individual with two rows.
        """
        from mixedmodels.frame.columns import Columns
        from mixedmodels.genetics.labels import label_column

        columns = Columns(data)
        names = [name for name in columns if name != id] if markers is None else list(markers)
        labels = label_column(columns.raw(id), id)
        values = []
        for name in names:
            column = columns[name]
            if not isinstance(column, np.ndarray):
                raise DataError(f"marker column {name!r} holds texts; genotypes are numbers: 0, 1, 2")
            values.append(column)
        counts = np.stack(values, axis=1) if values else np.zeros((len(labels), 0))
        known = counts[~np.isnan(counts)]
        if not np.any(known != np.round(known)):
            counts = np.where(np.isnan(counts), -1, counts).astype(np.int64)
        seen = Finder(labels).positions(labels)
        if np.any(seen != np.arange(len(labels))):
            twice = labels[np.flatnonzero(seen != np.arange(len(labels)))[0]]
            raise DataError(f"individual {str(twice)!r} has two rows of genotypes; keep one")
        return cls.from_array(counts, labels, names)

    def __len__(self) -> int:
        """Number of individuals."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Genotypes: {len(self.ids)} individuals, {len(self.markers)} markers>"

    @property
    def missing(self) -> np.ndarray:
        """Whether each genotype is missing, (n, m) bool."""
        return np.isnan(self.counts) if self.counts.dtype.kind == "f" else self.counts < 0

    def missingness(self, by: str = "marker") -> np.ndarray:
        """Share of missing genotypes of each marker, (m,), or individual, (n,).

        Parameters
        ----------
        by : {"marker", "individual"}
        """
        if by not in ("marker", "individual"):
            raise OptionError(f'by={by!r}: choose "marker" or "individual"')
        return self.missing.mean(axis=0 if by == "marker" else 1)

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Frequency of the counted allele of each marker, (m,); NaN where all genotypes are missing."""
        out = np.empty(len(self.markers))
        for at, block in self.blocks():
            known = ~np.isnan(block)
            count = known.sum(axis=0)
            total = np.where(known, block, 0.0).sum(axis=0)
            out[at] = np.divide(total, 2.0 * count, out=np.full(len(count), np.nan), where=count > 0)
        return out

    def blocks(self, size: int = _BLOCK) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of the markers and their counts as floats, missing ones NaN, (n, at most `size`)."""
        for start in range(0, len(self.markers), size):
            at = slice(start, min(start + size, len(self.markers)))
            block = self.counts[:, at].astype(float)
            if self.counts.dtype.kind != "f":
                block[block < 0] = np.nan
            yield at, block

    def dosages(self) -> np.ndarray:
        """Counts as floats, missing ones NaN, (n, m)."""
        out = self.counts.astype(float)
        if self.counts.dtype.kind != "f":
            out[out < 0] = np.nan
        return out

    def imputed(self) -> np.ndarray:
        """Counts as floats with missing ones replaced by the marker's mean ``2 p``, (n, m)."""
        out = self.dosages()
        rows, columns = np.nonzero(np.isnan(out))
        out[rows, columns] = 2.0 * self.frequencies[columns]
        return out

    def index(self, ids: Any) -> np.ndarray:
        """Row of each individual, (k,) int64; -1 for those without genotypes."""
        return Finder(self.ids).positions(ids)

    def take(self, ids: Any = None, markers: Any = None) -> Genotypes:
        """Genotypes of some individuals and markers, in the given order.

        Parameters
        ----------
        ids : sequence of labels, optional
        markers : sequence of names, or ndarray of bool (m,), optional

        Raises
        ------
        DataError
            An individual or marker that is not there.
        """
        rows = np.arange(len(self.ids)) if ids is None else self.index(ids)
        if np.any(rows < 0):
            who = np.atleast_1d(np.asarray(ids, dtype=object))[rows < 0][0]
            raise DataError(f"there are no genotypes of individual {str(who)!r}")
        if markers is None:
            columns = np.arange(len(self.markers))
        elif np.asarray(markers).dtype.kind == "b":
            columns = np.flatnonzero(markers)
        else:
            columns = Finder(self.markers).positions(markers)
            if np.any(columns < 0):
                which = np.atleast_1d(np.asarray(markers, dtype=object))[columns < 0][0]
                raise DataError(f"there is no marker {str(which)!r}")

        def part(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[columns]

        return Genotypes(
            ids=self.ids[rows],
            counts=self.counts[np.ix_(rows, columns)],
            markers=self.markers[columns],
            chromosomes=part(self.chromosomes),
            positions=part(self.positions),
            centimorgans=part(self.centimorgans),
            alleles=part(self.alleles),
            notes=self.notes,
        )

    def minor(self) -> Genotypes:
        """The same genotypes counting the rarer allele of each marker."""
        flip = np.nan_to_num(self.frequencies) > 0.5
        counts = self.counts.copy()
        turned = 2 - counts[:, flip]
        if counts.dtype.kind != "f":
            turned[counts[:, flip] < 0] = -1
        counts[:, flip] = turned
        alleles = None
        if self.alleles is not None:
            alleles = self.alleles.copy()
            alleles[flip] = alleles[flip][:, ::-1]
        return Genotypes(
            self.ids,
            counts,
            self.markers,
            self.chromosomes,
            self.positions,
            self.centimorgans,
            alleles,
            self.notes,
        )


def _labels(ids: Any) -> np.ndarray:
    from mixedmodels.genetics.labels import label_column

    return label_column(np.asarray(ids), "ids")
