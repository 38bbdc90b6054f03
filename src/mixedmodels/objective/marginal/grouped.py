r"""Laplace's approximation when all random effects share one grouping factor.

Given the coefficients, groups are independent: the mode of a group is found by Newton's method in its k
spherical effects, and value, gradient and Hessian of the criterion are sums over groups of closed expressions
with k x k matrices (``solver/_kernels/marginal_grouped.h`` has them; `mixedmodels.objective.marginal.dense`
derives them). The cost is linear in the rows; nothing larger than one row's derivatives is formed. Terms of
several predictors may share the factor: their columns are one block, each adding to its own predictor.

Families with a compiled density (`Family.kernel`) take one compiled call for everything; for the others
`Family.derivatives` fills tables of all rows and compiled passes do the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family, Observations
from mixedmodels.family.jet import place
from mixedmodels.objective.marginal.base import Evaluation, Modes, factor_entries
from mixedmodels.solver._kernels.marginal_grouped import (
    GroupedPasses,
    gather,
    packed,
    place_columns,
    sort_rows,
)
from mixedmodels.solver.base import Breakdown

__all__ = ["GroupedLaplace", "one_factor"]


def one_factor(design: GeneralisedDesign) -> bool:
    """Whether all random terms have the same grouping factor and independent levels."""
    terms = design.terms
    return bool(terms) and all(
        term.precision is None
        and (term.codes is terms[0].codes or np.array_equal(term.codes, terms[0].codes))
        for term in terms
    )


class GroupedLaplace:
    """Compiled Laplace approximation for one grouping factor.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family

    Raises
    ------
    OptionError
        The design has several grouping factors, none, or a known precision.
    """

    name = "grouped"
    reason = "one grouping factor"

    def __init__(self, design: GeneralisedDesign, family: Family) -> None:
        if not one_factor(design):
            raise OptionError(
                "solver='grouped' needs random terms on one grouping factor with independent levels; "
                "use solver='auto'"
            )
        self.design = design
        self.family = family
        self.entries = factor_entries(design)
        terms, n = design.terms, design.n
        self._m = max(term.m for term in terms)
        codes = np.ascontiguousarray(terms[0].codes, dtype=np.int32)
        self._start, self._order = sort_rows(codes, self._m)
        self._columns: list[slice] = []  # of each term in the block
        at = 0
        for term in terms:
            self._columns.append(slice(at, at + term.k))
            at += term.k
        self._k = at
        kernel = bool(family.kernel)
        sizes = tuple([term.k for term in terms])
        self._numbers = _numbers(self.entries, sizes, design.term_predictor, len(design.predictors), kernel)
        self._column_predictor = self._numbers[0]
        Z = np.ones((n, at))
        for term, where in zip(terms, self._columns, strict=True):
            if term.Z is not None:
                columns = np.arange(where.start, where.stop)
                place_columns(term.Z, self._order, columns, 0, Z.reshape(n, 1, at))
        self._Z = Z
        data = design.data
        constant = family.kernel_constant(data) if kernel else None
        self._data = Observations(
            self._rows(data.y),
            None if data.trials is None else self._rows(data.trials),
            None if data.weights is None else self._rows(data.weights),
            data.levels,
        )
        self._kernel = self._passes(None if constant is None else self._rows(constant))

    def _rows(self, array: np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(array, dtype=float)
        return array if self._order is None else gather(array, self._order)

    def _passes(self, constant: np.ndarray | None) -> Any:
        """The compiled side: padded rows of X, places of the derivatives, rows of the density."""
        design, n, C = self.design, self.design.n, len(self.design.predictors)
        self.n_gamma = len(design.gamma_names)
        width = -(-(self.n_gamma + len(self.entries)) // 4) * 4
        X = np.zeros((n, C, width))
        offset = None
        for c, predictor in enumerate(design.predictors):
            if predictor.X is None:
                X[:, c, predictor.columns] = 1.0
            else:
                columns = np.ascontiguousarray(predictor.columns, dtype=np.intp)
                place_columns(predictor.X, self._order, columns, c, X)
            if predictor.offset is not None:
                offset = np.zeros((C, n)) if offset is None else offset
                offset[c] = self._rows(predictor.offset)
        data = self._data
        columns, entries, places, mode, mean, ints = self._numbers
        return GroupedPasses(
            self._start, self._Z, columns, X, self.n_gamma, offset, entries, places, mode, self.family.kernel,
            mean, data.y, data.trials, constant, data.weights, ints,
        )  # fmt: skip

    def describe(self) -> str:
        """One line: which method on which sizes."""
        how = "compiled density" if self.family.kernel else "tables of derivatives"
        return f"Laplace by group: n = {self.design.n}, {self._m} groups of {self._k} effects, {how}"

    # ------------------------------------------------------------------ evaluation
    def _lambda(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        if len(factors) == 1:
            return np.ascontiguousarray(factors[0], dtype=float)
        out = np.zeros((self._k, self._k))
        for where, factor in zip(self._columns, factors, strict=True):
            out[where, where] = factor
        return out

    def _run(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int, G: np.ndarray | None = None
    ) -> Evaluation:
        gamma, lam = np.ascontiguousarray(gamma, dtype=float), self._lambda(factors)
        if self.family.kernel:
            status, *found = self._kernel.evaluate(gamma, lam, order, G)
            if status in _BROKEN:
                raise Breakdown(_BROKEN[status])
            return Evaluation(*found)
        family, C, kernel = self.family, len(self.design.predictors), self._kernel
        fixed, eta = np.empty((C, self.design.n)), np.empty((C, self.design.n))
        kernel.begin(gamma, lam, fixed)
        for _ in range(_SWEEPS):
            kernel.predict(fixed, eta)
            table = family.derivatives(self._data, list(eta), 2, self.design.active)
            searching, status = kernel.advance(np.ascontiguousarray(table))
            if status in _BROKEN:
                raise Breakdown(_BROKEN[status])
            if not searching:
                break
        else:
            raise Breakdown(_BROKEN[6])
        kernel.predict(fixed, eta)
        table = family.derivatives(self._data, list(eta), 2 + order, range(C))
        status, *found = kernel.accumulate(np.ascontiguousarray(table), order, G)
        if status in _BROKEN:
            raise Breakdown(_BROKEN[status])
        return Evaluation(*found)

    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2)."""
        return self._run(gamma, factors, order)

    def newton(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Evaluation:
        """Value, gradient and exact Hessian."""
        return self._run(gamma, factors, 2)

    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """Conditional modes of the random effects."""
        value = self._run(gamma, factors, 0).value
        u = self._kernel.modes.copy()
        design = self.design
        if len(factors) == 1:
            parts: tuple[np.ndarray, ...] = (u,)
        else:
            parts = tuple([np.ascontiguousarray(u[:, where]) for where in self._columns])
        b = tuple([part @ factor.T for part, factor in zip(parts, factors, strict=True)])
        gamma = np.asarray(gamma, dtype=float)
        eta = np.empty((len(design.predictors), design.n))
        for c, predictor in enumerate(design.predictors):
            eta[c] = (
                gamma[predictor.columns].sum()
                if predictor.X is None
                else predictor.X @ gamma[predictor.columns]
            )
            if predictor.offset is not None:
                eta[c] += predictor.offset
        for term, c, part in zip(design.terms, design.term_predictor, b, strict=True):
            rows = part[term.codes]
            eta[c] += rows[:, 0] if term.Z is None else np.einsum("ij,ij->i", term.Z, rows)
        table = self.family.derivatives(design.data, list(eta), 0, (0,))
        penalised = float(np.vdot(u, u)) - 2.0 * float(table[0].sum())
        return Modes(parts, b, eta, penalised, value - penalised)

    def _covariances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``Lambda H^{-1} Lambda'`` of each group, shape (m, k, k)."""
        G = np.empty((self._m, self._k, self._k))
        self._run(gamma, factors, 0, G)
        return G

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """Diagonal blocks of ``Lambda H^{-1} Lambda'`` of one term, shape (m, k, k)."""
        where = self._columns[term]
        return np.ascontiguousarray(self._covariances(gamma, factors)[:, where, where])

    def predictor_variances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` of the conditional predictor of each row, shape (n,)."""
        G = self._covariances(gamma, factors)
        groups = np.repeat(np.arange(self._m), np.diff(self._start))
        own = np.flatnonzero(self._column_predictor == 0)
        out = np.zeros(self.design.n)
        for i in own:
            for j in own:
                out += self._Z[:, i] * self._Z[:, j] * G[groups, i, j]
        if self._order is None:
            return out
        back = np.empty_like(out)
        back[self._order] = out
        return back


_SWEEPS = 400  # of the mode search: 40 halvings and a restart fit many times
_BROKEN = {  # status of the compiled passes
    5: "the likelihood cannot be computed there: a mean is out of its range",
    6: "the conditional mode could not be found there",
    7: "the conditional density has no proper mode there",
}


@lru_cache(maxsize=64)
def _numbers(
    parameters: tuple[tuple[int, int, int], ...],
    sizes: tuple[int, ...],
    owners: tuple[int, ...],
    C: int,
    compiled: bool,
) -> tuple[Any, ...]:
    """What the passes need to know of a structure: columns' predictors, entries, places, mode search."""
    active = tuple(sorted(set(owners)))
    predictors = np.repeat(owners, sizes).astype(np.int32)
    first = [sum(sizes[:b]) for b in range(len(sizes))]
    entries = np.array(
        [[first[b] + i for b, i, _ in parameters], [first[b] + j for b, _, j in parameters]], dtype=np.int32
    )
    places = _places(C, 4)
    mean = active == (0,)
    mode: tuple[Any, ...]
    if compiled and not mean:  # a compiled density differentiates with respect to all or to the first
        mode = (C, predictors, *places[:2])
    else:
        mode = (len(active), np.searchsorted(active, predictors), *_places(len(active), 2))
    return predictors, entries, places, mode, mean, packed(predictors, entries, places, mode)


@lru_cache(maxsize=64)
def _places(variables: int, order: int) -> tuple[np.ndarray, ...]:
    """For each order r up to `order` the lines of the derivatives in a table: shape (variables,) * r."""
    where = place(variables, order)
    out = []
    for r in range(1, order + 1):
        lines = np.empty((variables,) * r, dtype=np.int32)
        for index in np.ndindex(*lines.shape):
            lines[index] = where[tuple(np.bincount(index, minlength=variables).tolist())]
        out.append(lines)
    return tuple(out)
