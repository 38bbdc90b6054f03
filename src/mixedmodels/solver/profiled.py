r"""Structured residuals with at most one grouping factor: criterion and exact derivatives, compiled.

The kernel works on cross-products ``G = U'R^{-1}U`` of the columns U = [Z, X, y] by level
(`mixedmodels.solver._kernels.profiled`). For structures of first order it makes them itself, from sums over
classes of rows with equal coefficients: an evaluation of AR(1) at equidistant times does not touch the rows.
For all others they come from whitened columns,

.. math::
    G = \tilde U'\tilde U, \qquad \dot G_j = -\tilde U'D_j\tilde U, \qquad
    \ddot G_{ij} = \tilde U'(D_iD_j + D_jD_i - D_{ij})\tilde U .
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.solver._kernels.profiled import Rows, from_products, segments
from mixedmodels.solver._kernels.small import upper_inverse
from mixedmodels.solver.base import Breakdown, Solution

if TYPE_CHECKING:
    from mixedmodels.residual.by_table import ByTable
    from mixedmodels.residual.first_order import FirstOrder
    from mixedmodels.solver.whitened import WhitenedLevels

__all__ = ["FirstOrderLevels", "ProfiledLevels", "TableLevels", "profiled_levels"]

# Columns of random effects, of fixed effects, and residual parameters for which the kernel is made.
_COLUMNS, _FIXED, _PARAMETERS = 6, 128, 4
# Sums by class are kept where they take at most so many numbers for each number of the data.
_SUMS = 1.5


def profiled_levels(rows: WhitenedLevels) -> ProfiledLevels | None:
    """The compiled engine for a design, or None where it has none.

    Parameters
    ----------
    rows : WhitenedLevels
    """
    from mixedmodels.residual.by_table import by_table
    from mixedmodels.residual.first_order import first_order

    residual = rows.design.residual
    assert residual is not None
    if rows.k > _COLUMNS or rows.p > _FIXED or not 0 < residual.n_phi <= _PARAMETERS:
        return None
    found = first_order(residual, None if rows.levels is None else rows.levels.codes)
    if found is not None:
        return FirstOrderLevels(rows, found)
    tables = by_table(residual)
    return ProfiledLevels(rows) if tables is None else TableLevels(rows, tables)


class ProfiledLevels:
    """Cross-products from whitened columns, for any structure.

    Parameters
    ----------
    rows : WhitenedLevels
    """

    def __init__(self, rows: WhitenedLevels) -> None:
        self._of = rows
        self._columns = np.hstack([rows.columns[:, rows.p + 1 :], rows.columns[:, : rows.p + 1]])

    def at(
        self, factors: Sequence[np.ndarray], directions: Sequence[Any], phi: np.ndarray, order: int
    ) -> Any:
        """Sums and derivatives at a parameter value.

        Parameters
        ----------
        factors : sequence of ndarray
        directions : list of lists
            dSigma_b for each parameter of the random effects, as in `ParameterMap.directions`.
        phi : ndarray, shape (n_phi,)
        order : int
            0 for the value alone, 2 for its derivatives.

        Returns
        -------
        Profile
            Of the kernel.

        Raises
        ------
        Breakdown
            The criterion does not exist there.
        FloatingPointError
            A correlation of 1, or a standard deviation of zero.
        """
        return self.at_factors(*self.wide(factors, directions), phi, order)

    def at_factors(self, L: np.ndarray, dS: np.ndarray, phi: np.ndarray, order: int) -> Any:
        """`at` for factors and directions as `wide` gives them."""
        found = self._found(L, dS, phi, order)
        if found is None:
            raise Breakdown(
                "X'V^{-1}X or the penalised cross-product matrix is not positive definite; check the values "
                "of theta"
            )
        return found

    def wide(self, factors: Sequence[np.ndarray], directions: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Factors and directions of all terms as matrices over the columns of a level."""
        rows = self._of
        k = rows.k
        L, dS = np.zeros((k, k)), np.zeros((len(directions), k, k))
        for b, (at, factor) in enumerate(zip(rows.slices, factors, strict=True)):
            L[at, at] = factor
            for i, direction in enumerate(directions):
                if direction[b] is not None:
                    dS[i, at, at] = direction[b]
        return L, dS

    def _found(self, L: np.ndarray, dS: np.ndarray, phi: np.ndarray, order: int) -> Any:
        assert self._of.design.residual is not None
        point = self._of.design.residual.at(phi)
        U = point.whiten(self._columns)
        r, c = phi.shape[0], U.shape[1]
        G = self._cross(U, U)
        first = second = np.zeros((0, *G.shape))
        if order:
            moved = [point.change(j, U) for j in range(r)]
            first = -np.array([self._cross(U, D) for D in moved]).reshape(r, *G.shape)
            second = np.empty((r * (r + 1) // 2, *G.shape))
            at = 0
            for i in range(r):
                for j in range(i + 1):
                    both = self._cross(moved[i], moved[j])
                    bend = self._cross(U, point.second_change(i, j, U))
                    second[at] = both + both.transpose(0, 2, 1) - bend
                    at += 1
        found = from_products(
            np.ascontiguousarray(G.reshape(-1, c, c)), first, second, L, dS, r if order else 0, order
        )
        if found is None:
            return None
        found.logdet += point.logdet
        if order:
            t = dS.shape[0]
            found.first[0, t:] += point.trace
            found.second[0, t:, t:] += point.trace_seconds - point.trace_products
        return found

    def _cross(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """``A_l'B_l`` of every level; of all rows together without random effects."""
        levels = self._of.levels
        return (A.T @ B)[None] if levels is None else levels.cross(A, B)

    def solution(self, found: Any, factors: Sequence[np.ndarray]) -> Solution:
        """Estimates of beta and predictions of the random effects; `logdet_L2` is ``log|R + Z Sigma Z'|``."""
        rows, p = self._of, self._of.p
        beta, vcov = np.zeros(0), np.zeros((0, 0))
        if p:
            back = upper_inverse(rows.fixed.R)
            beta = rows.fixed.beta0 + back @ found.gamma
            vcov = back @ found.C @ back.T
        u: list[np.ndarray] = []
        if rows.levels is not None:
            own = found.U[:, :, p] - found.U[:, :, :p] @ found.gamma
            u = [
                rows.levels.expand(own[:, at], term.m)
                for at, term in zip(rows.slices, rows.design.terms, strict=True)
            ]
        b = [ub @ factor.T for ub, factor in zip(u, factors, strict=True)]
        logdet_XX = found.logdet_XX + rows.fixed.logdet_R2
        return Solution(beta, vcov, tuple(u), tuple(b), found.logdet, logdet_XX, found.pwrss)


class FirstOrderLevels(ProfiledLevels):
    """Residuals of first order: sorted rows, or their sums by class.

    Parameters
    ----------
    rows : WhitenedLevels
    residual : FirstOrder
    """

    def __init__(self, rows: WhitenedLevels, residual: FirstOrder) -> None:
        super().__init__(rows)
        self.residual = residual
        k, p, n, order = rows.k, rows.p, rows.n, residual.order
        c = k + p + 1
        sorted_rows = np.ascontiguousarray(self._columns[order])
        levels = rows.levels
        codes = np.zeros(n, dtype=np.int64) if levels is None else levels.codes[order].astype(np.int64)
        m = 1 if levels is None else levels.m
        sums = np.zeros((0, 0))
        # a class in every level at least
        few = m * 1.5 * (c + 1) <= _SUMS * n
        classes = residual.classes() if few else None
        segment = None
        if classes is not None:
            wide = codes * (int(classes.max(initial=0)) + 1) + classes
            distinct, place, segment = np.unique(wide, return_index=True, return_inverse=True)
            if distinct.shape[0] * 1.5 * (c + 1) > _SUMS * n:
                segment = None
        if segment is None:
            place, count = np.arange(n, dtype=np.int64), np.ones(n)
        else:
            place = place.astype(np.int64)
            segment = np.ascontiguousarray(segment.ravel(), dtype=np.int64)
            count = np.bincount(segment).astype(np.float64)
            sums = segments(sorted_rows, residual.which, segment, distinct.shape[0])
            sorted_rows = np.zeros((0, 0))
        starts = codes[place].searchsorted(np.arange(m + 1))
        self.n_segments = place.shape[0]
        self._rows = Rows(sorted_rows, sums, place, count, starts, residual.which, c)

    def _found(self, L: np.ndarray, dS: np.ndarray, phi: np.ndarray, order: int) -> Any:
        own = self.residual.coefficients(phi, order > 0)
        return self._rows.at(own.z, own.z1, own.z2, own.log_sd, own.e1, own.e2, L, dS, order)


class TableLevels(ProfiledLevels):
    """Correlations from a table: one compiled pass over the patterns of rows.

    Parameters
    ----------
    rows : WhitenedLevels
    residual : ByTable
    """

    def __init__(self, rows: WhitenedLevels, residual: ByTable) -> None:
        super().__init__(rows)
        self.residual = residual
        sizes, groups, _, own = residual.layout
        firsts = np.concatenate([[0], np.cumsum(np.repeat(sizes, groups))[:-1]])
        levels = rows.levels
        self._m = 1 if levels is None else levels.m
        codes = np.zeros(rows.n, dtype=np.int64) if levels is None else levels.codes.astype(np.int64)
        self._level = np.ascontiguousarray(codes[own[firsts]])

    def _found(self, L: np.ndarray, dS: np.ndarray, phi: np.ndarray, order: int) -> Any:
        from mixedmodels.solver._kernels.tables import table_products

        own, U = self.residual.at(phi, order > 0), self._columns
        if own.log_sd is not None:
            U = U * np.exp(-own.log_sd)[:, None]
        sizes, groups, places, rows = self.residual.layout
        sums = table_products(
            sizes, groups, places, rows, self._level, own.values, own.first, own.second,
            U, own.e, own.ee, self._m, order,
        )  # fmt: skip
        if sums is None:
            raise FloatingPointError("the residual correlation is not positive definite")
        G, first, second, logdet, logdet_1, logdet_2 = sums
        found = from_products(G, first, second, L, dS, phi.shape[0] if order else 0, order)
        if found is None:
            return None
        found.logdet += logdet if own.log_sd is None else logdet + 2.0 * float(own.log_sd.sum())
        if order:
            t, k, s = dS.shape[0], logdet_1.shape[0], own.e.shape[0]
            found.first[0, t : t + k] += logdet_1
            found.second[0, t : t + k, t : t + k] += _square(logdet_2, k)
            found.first[0, t + k :] += 2.0 * own.e.sum(axis=1)
            found.second[0, t + k :, t + k :] += 2.0 * _square(own.bends, s)
        return found


def _square(pairs: np.ndarray, r: int) -> np.ndarray:
    """A symmetric matrix from its lower triangle by rows."""
    out = np.empty((r, r))
    at = 0
    for i in range(r):
        for j in range(i + 1):
            out[i, j] = out[j, i] = pairs[at]
            at += 1
    return out
