"""Variances, standard deviations and correlations of the random effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["TermVariance", "VarCorr", "term_variance", "unique_keys"]


@dataclass(frozen=True, slots=True, eq=False)
class TermVariance:
    """Covariance matrix of one random-effects term, sigma^2 Sigma = sigma^2 factor factor'.

    Attributes
    ----------
    group : str
        Name of the grouping factor, made unique within the model (``Subject``, ``Subject.1``).
    names : tuple of str, length k
        Columns of the term.
    variances, sds : tuple of float, length k
        Variances and standard deviations, in the units of the response.
    covariances : tuple of tuple of float
        Row i holds the covariances of column i with the columns before it; empty where the structure
        holds them at zero (``||``).
    """

    group: str
    names: tuple[str, ...]
    variances: tuple[float, ...]
    sds: tuple[float, ...]
    covariances: tuple[tuple[float, ...], ...]

    @property
    def correlated(self) -> bool:
        """Whether the structure has correlations."""
        return bool(self.covariances)

    def correlations(self) -> tuple[tuple[float, ...], ...]:
        """Correlations in the layout of `covariances`; NaN where a standard deviation is zero."""
        rows = []
        for i, row in enumerate(self.covariances):
            cells = []
            for j, value in enumerate(row):
                product = self.sds[i] * self.sds[j]
                cells.append(max(-1.0, min(1.0, value / product)) if product > 0.0 else math.nan)
            rows.append(tuple(cells))
        return tuple(rows)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance matrix, shape (k, k)."""
        matrix = np.diag(np.array(self.variances))
        for i, row in enumerate(self.covariances):
            for j, value in enumerate(row):
                matrix[i, j] = matrix[j, i] = value
        return matrix

    @property
    def correlation(self) -> np.ndarray:
        """Correlation matrix, shape (k, k); NaN where a standard deviation is zero."""
        matrix = np.eye(len(self.names))
        for i, row in enumerate(self.correlations()):
            for j, value in enumerate(row):
                matrix[i, j] = matrix[j, i] = value
        return matrix


def term_variance(
    group: str, names: tuple[str, ...], factor: list[list[float]], sigma: float, correlated: bool
) -> TermVariance:
    """`TermVariance` of a relative factor given as nested lists (k x k, lower triangular)."""
    scale = sigma * sigma
    variances, sds, covariances = [], [], []
    for i, row in enumerate(factor):
        size = math.hypot(*row)
        variances.append(scale * size * size)
        sds.append(sigma * size)
        if correlated:
            covariances.append(
                tuple([scale * sum([a * b for a, b in zip(row, other, strict=True)]) for other in factor[:i]])
            )
    return TermVariance(group, names, tuple(variances), tuple(sds), tuple(covariances))


def unique_keys(groups: list[str]) -> list[str]:
    """Names made unique by ``.1``, ``.2``, ... as R's `make.unique`."""
    if len(set(groups)) == len(groups):
        return groups
    taken = set(groups)
    seen: set[str] = set()
    keys = []
    for group in groups:
        key = group
        number = 0
        while key in seen or (number and key in taken):
            number += 1
            key = f"{group}.{number}"
        seen.add(key)
        keys.append(key)
    return keys


@dataclass(frozen=True, slots=True, eq=False)
class VarCorr(Mapping):
    """Variances and correlations of all random-effects terms and the residual; prints as a table.

    ``varcorr["Subject"]`` is the `TermVariance` of that term; iteration gives the groups.

    Attributes
    ----------
    terms : tuple of TermVariance
        In the order of the formula.
    sigma : float or None
        Residual standard deviation; None for models without one.
    residual : tuple of (str, float)
        Names and values of the parameters of a residual structure.
    """

    terms: tuple[TermVariance, ...]
    sigma: float | None
    _frame: Callable[[dict[str, Any]], Any]
    _render: Callable[[VarCorr, str], str]
    residual: tuple[tuple[str, float], ...] = ()

    def __getitem__(self, group: str) -> TermVariance:
        """Term of a grouping factor."""
        for term in self.terms:
            if term.group == group:
                return term
        raise KeyError(group)

    def __iter__(self) -> Iterator[str]:
        """Names of the terms."""
        return iter([term.group for term in self.terms])

    def __len__(self) -> int:
        """Number of terms."""
        return len(self.terms)

    def columns(self) -> dict[str, list[Any]]:
        """Rows of lme4's ``as.data.frame(VarCorr(m))``: variances, covariances, then the residual."""
        out: dict[str, list[Any]] = {"group": [], "name1": [], "name2": [], "vcov": [], "sdcor": []}

        def add(*cells: Any) -> None:
            for column, cell in zip(out.values(), cells, strict=True):
                column.append(cell)

        for term in self.terms:
            for name, variance, sd in zip(term.names, term.variances, term.sds, strict=True):
                add(term.group, name, None, variance, sd)
            correlations = term.correlations()
            if correlations:
                for j in range(len(term.names)):
                    for i in range(j + 1, len(term.names)):
                        add(
                            term.group,
                            term.names[j],
                            term.names[i],
                            term.covariances[i][j],
                            correlations[i][j],
                        )
        if self.sigma is not None:
            add("Residual", None, None, self.sigma * self.sigma, self.sigma)
        for name, value in self.residual:
            add("Residual", name, None, math.nan, value)
        return out

    def to_frame(self) -> Any:
        """Table of group, name1, name2, vcov (variance or covariance), sdcor (SD or correlation).

        The parameters of a residual structure are rows of the group ``Residual``.
        """
        return self._frame(self.columns())

    def __str__(self) -> str:
        return self._render(self, "text")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._render(self, "html")
