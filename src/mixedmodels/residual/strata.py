"""Strata: a correlation with parameters of its own for each level of a factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.structure import BoundCorrelation, CorrelationStructure

__all__ = ["StratifiedCorrelation", "StratifiedPoint", "bind_correlation"]

_LARGEST = 12_000  # rows of a single group without a factor: an n x n matrix of 1.1 GB


def bind_correlation(
    structure: CorrelationStructure, data: ResidualData
) -> tuple[BoundCorrelation, np.ndarray, tuple[str, ...]]:
    """Bind a correlation, stratum by stratum if it has any.

    Returns
    -------
    bound : BoundCorrelation
    codes : ndarray of intp, shape (n,)
        Groups.
    labels : tuple of str

    Raises
    ------
    DataError
        A group lies in several strata, or the structure cannot use a column.
    """
    if structure.group is None:
        codes = np.zeros(data.n, dtype=np.intp)
        labels: tuple[str, ...] = ("all rows",)
    else:
        groups = data.factor(structure.group, f"the groups of {structure.tag}()")
        codes, labels = groups.codes, groups.labels
    if structure.by is None:
        return structure.bind_rows(data, codes, labels), codes, labels
    strata = data.factor(structure.by, f"the strata of {structure.tag}()")
    first = np.full(len(labels), -1, dtype=np.intp)
    first[codes[::-1]] = strata.codes[::-1]
    wrong = np.flatnonzero(first[codes] != strata.codes)
    if wrong.size:
        name = labels[codes[wrong[0]]]
        where = "all rows are one group" if structure.group is None else f"{structure.group} {name!r}"
        raise DataError(
            f"{structure}: by={structure.by} must be constant within the groups, but {where} has "
            "several levels "
            "of it; use a factor that does not change within a group, or a finer grouping factor"
        )
    parts = []
    for code, label in enumerate(strata.labels):
        rows = np.flatnonzero(strata.codes == code)
        if rows.size:
            parts.append((label, rows, structure.bind_rows(data.subset(rows), codes[rows], labels)))
    return StratifiedCorrelation(structure, data.n, parts), codes, labels


class StratifiedCorrelation(BoundCorrelation):
    """The same correlation structure in each stratum, with separate parameters.

    Parameters
    ----------
    structure : CorrelationStructure
    n : int
    parts : sequence of (label, rows, BoundCorrelation)
    """

    def __init__(
        self,
        structure: CorrelationStructure,
        n: int,
        parts: Sequence[tuple[str, np.ndarray, BoundCorrelation]],
    ) -> None:
        self.n = n
        self._structure = structure
        self._parts = tuple(parts)
        self._stops = np.cumsum([part.n_phi for _, _, part in parts])
        self.n_phi = int(self._stops[-1])
        self.farthest = parts[0][2].farthest
        self.names = _named([(label, part.names) for label, _, part in parts])
        self.natural_names = _named([(label, part.natural_names) for label, _, part in parts])
        self.kinds = tuple(kind for _, _, part in parts for kind in part.kinds)
        self.start = np.concatenate([part.start for _, _, part in parts])
        width = parts[0][2].features.shape[1]
        self.features = np.empty((n, width + 1))  # the last feature is the stratum
        for place, (_, rows, part) in enumerate(parts):
            self.features[rows, :-1] = part.features
            self.features[rows, -1] = place
        self.meaning = f"{parts[0][2].meaning}, by {structure.by}"

    @property
    def strata(self) -> tuple[tuple[str, np.ndarray, BoundCorrelation], ...]:
        """Label, rows and correlation of each stratum."""
        return self._parts

    def _split(self, phi: np.ndarray) -> list[np.ndarray]:
        return np.split(phi, self._stops[:-1])

    def at(self, phi: np.ndarray) -> StratifiedPoint:
        """Operations of C at phi."""
        points = [
            (rows, part.at(own), part.n_phi)
            for (_, rows, part), own in zip(self._parts, self._split(phi), strict=True)
        ]
        return StratifiedPoint(self.n, points)

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Natural values of all strata."""
        from scipy.linalg import block_diag

        found = [part.natural(own) for (_, _, part), own in zip(self._parts, self._split(phi), strict=True)]
        return np.concatenate([one[0] for one in found]), block_diag(*(one[1] for one in found))

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of the natural values of all strata."""
        from scipy.linalg import block_diag

        out, start = [], 0
        for (_, _, part), own in zip(self._parts, self._split(phi), strict=True):
            stop = start + len(part.natural_names)
            out.append(part.natural_curvature(own, weights[start:stop]))
            start = stop
        return np.asarray(block_diag(*out))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Coordinates of natural values of all strata."""
        out, start = [], 0
        for _, _, part in self._parts:
            stop = start + len(part.natural_names)
            out.append(part.inverse(values[start:stop]))
            start = stop
        return np.concatenate(out)

    def correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Correlations of pairs; zero between strata."""
        out = np.zeros(a.shape[0])
        for place, ((_, _, part), own) in enumerate(zip(self._parts, self._split(phi), strict=True)):
            (mine,) = np.nonzero((a[:, -1] == place) & (b[:, -1] == place))
            out[mine] = part.correlate(own, a[mine, :-1], b[mine, :-1])
        return out

    def row_variances(self, phi: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Diagonal of C for rows with these features."""
        out = np.ones(features.shape[0])
        for place, ((_, _, part), own) in enumerate(zip(self._parts, self._split(phi), strict=True)):
            (mine,) = np.nonzero(features[:, -1] == place)
            out[mine] = part.row_variances(own, features[mine, :-1])
        return out

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Features of rows of new data."""
        assert self._structure.by is not None
        strata = data.factor(self._structure.by, f"the strata of {self._structure.tag}()")
        labels = [label for label, _, _ in self._parts]
        out = np.empty((data.n, self.features.shape[1]))
        for code, label in enumerate(strata.labels):
            (rows,) = np.nonzero(strata.codes == code)
            if rows.size:
                place = labels.index(label)
                out[rows, :-1] = self._parts[place][2].new_features(data.subset(rows))
                out[rows, -1] = place
        if (strata.codes < 0).any():
            row = data.place(int(np.flatnonzero(strata.codes < 0)[0]))
            raise DataError(
                f"{self._structure}: row {row} of the new data has a level of {self._structure.by} "
                "that the fit "
                "has not seen, so its residual parameters are unknown; remove the row"
            )
        return out


def _named(parts: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Names with the stratum in square brackets."""
    out = []
    for label, names in parts:
        for name in names:
            out.append(f"{name[:-1]};{label}]" if name.endswith("]") else f"{name}[{label}]")
    return tuple(out)


class StratifiedPoint:
    """Operations of a stratified correlation.

    Parameters
    ----------
    n : int
    points : sequence of (rows, point, n_phi)
    """

    def __init__(self, n: int, points: Sequence[tuple[np.ndarray, Any, int]]) -> None:
        self._n, self._points = n, tuple(points)
        self._owner = [(place, j) for place, (_, _, k) in enumerate(points) for j in range(k)]
        self.n_phi = len(self._owner)
        self.logdet = float(sum(point.logdet for _, point, _ in points))
        self.trace = np.concatenate([point.trace for _, point, _ in points])

    @property
    def variances(self) -> np.ndarray:
        """Diagonal of C, shape (n,)."""
        out = np.ones(self._n)
        for rows, point, _ in self._points:
            out[rows] = point.variances
        return out

    def _each(self, name: str, M: np.ndarray) -> np.ndarray:
        out = np.empty_like(M, order="C")
        for rows, point, _ in self._points:
            out[rows] = getattr(point, name)(M[rows])
        return out

    def whiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W M``."""
        return self._each("whiten", M)

    def unwhiten(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-1} M``."""
        return self._each("unwhiten", M)

    def whiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W' M``."""
        return self._each("whiten_adjoint", M)

    def unwhiten_adjoint(self, M: np.ndarray) -> np.ndarray:
        """The product ``W^{-T} M``."""
        return self._each("unwhiten_adjoint", M)

    def hadamard(self, M: np.ndarray) -> np.ndarray:
        """``(C * C^{-1}) M``."""
        return self._each("hadamard", M)

    def change(self, j: int, M: np.ndarray) -> np.ndarray:
        """The product ``D_j M``."""
        place, own = self._owner[j]
        rows, point, _ = self._points[place]
        out = np.zeros_like(M, order="C")
        out[rows] = point.change(own, M[rows])
        return out

    def second_change(self, i: int, j: int, M: np.ndarray) -> np.ndarray:
        """``D_ij M``; zero for parameters of different strata."""
        (place, a), (other, b) = self._owner[i], self._owner[j]
        out = np.zeros_like(M, order="C")
        if place == other:
            rows, point, _ = self._points[place]
            out[rows] = point.second_change(a, b, M[rows])
        return out

    def _blocks(self, name: str) -> np.ndarray:
        from scipy.linalg import block_diag

        return block_diag(*(getattr(point, name) for _, point, _ in self._points))

    @property
    def trace_products(self) -> np.ndarray:
        """Traces ``tr(D_i D_j)``."""
        return self._blocks("trace_products")

    @property
    def trace_seconds(self) -> np.ndarray:
        """Traces ``tr(D_ij)``."""
        return self._blocks("trace_seconds")

    def diagonal(self, j: int) -> np.ndarray:
        """Diagonal of ``dC_j C^{-1}``."""
        place, own = self._owner[j]
        rows, point, _ = self._points[place]
        out = np.zeros(self._n)
        out[rows] = point.diagonal(own)
        return out

    def whitening(self) -> tuple[Any, tuple[Any, ...]]:
        """W and dW_j, sparse."""
        from scipy.sparse import coo_array, csr_array

        def spread(matrix: Any, rows: np.ndarray) -> Any:
            inner = coo_array(matrix)
            return csr_array((inner.data, (rows[inner.row], rows[inner.col])), shape=(self._n, self._n))

        W: Any = csr_array((self._n, self._n))
        changes = []
        for rows, point, _ in self._points:
            own, own_changes = point.whitening()
            W = W + spread(own, rows)
            changes += [spread(one, rows) for one in own_changes]
        return csr_array(W), tuple(changes)
