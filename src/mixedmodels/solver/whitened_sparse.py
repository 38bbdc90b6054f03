r"""Structured residuals with any random effects: crossed, nested, known relationships.

Whitened rows ``W Z`` touch every level that the rows of a residual group touch, so Z is sparse with several
levels per row, and :math:`M = \Lambda'\tilde Z'\tilde Z\Lambda + P` is factored by the sparse Cholesky of
`mixedmodels.solver.sparse`, whose analysis is done once. The trace that the gradient needs,

.. math:: \mathrm{tr}(V^{-1}D_j) = \mathrm{tr} D_j - \mathrm{tr}(\Lambda M^{-1}\Lambda' F_j), \qquad
          F_j = \tilde Z'D_j\tilde Z = -(\dot W_jZ)'\tilde Z - \tilde Z'\dot W_jZ,

takes the inverse of M on the pattern of :math:`\tilde Z'\tilde Z` only, because
:math:`W'D_jW = -\partial R^{-1}/\partial\phi_j` is as sparse as :math:`R^{-1}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Directions, FixedProducts, Solution
from mixedmodels.solver.dense import FixedPart, fixed_part, random_matrix
from mixedmodels.solver.whitened import products_of_images, second_products

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.residual.base import ResidualPoint

__all__ = ["WhitenedPattern", "WhitenedSparse", "WhitenedSparsePoint"]

# Exact traces take the whole inverse by columns: up to so many rows times random effects they are cheap,
# and up to so many they are computed at all.
_CHEAP = 3e5
_MOST = 2e9
_BATCH = 64


class WhitenedPattern:
    """Products ``W Z`` for matrices W with entries in given places, on one pattern.

    Parameters
    ----------
    Z : sparse array, shape (n, q)
    places : ndarray of int64, shape (w,)
        Entries (row n + column) that W may have, ascending.
    """

    def __init__(self, Z: Any, places: np.ndarray) -> None:
        from scipy import sparse

        n, q = Z.shape
        rows, columns = np.divmod(places, n)
        counts = np.diff(Z.indptr)[columns]
        total = int(counts.sum())
        first = np.cumsum(counts) - counts
        self._from_W = np.repeat(np.arange(places.shape[0]), counts)
        from_Z = np.repeat(Z.indptr[columns], counts) + np.arange(total) - np.repeat(first, counts)
        self._values = Z.data[from_Z]
        key = rows[self._from_W] * max(q, 1) + Z.indices[from_Z]
        whole, self._slot = np.unique(key, return_inverse=True)
        self._indices = (whole % max(q, 1)).astype(np.int32)
        self._indptr = np.searchsorted(whole, np.arange(n + 1, dtype=np.int64) * q).astype(np.int32)
        self._shape, self._array = (n, q), sparse.csr_array

    def product(self, W: np.ndarray) -> Any:
        """``W Z`` for the values of W in its places; all places of the pattern are stored."""
        data = np.bincount(self._slot, W[self._from_W] * self._values, len(self._indices))
        return self._array((data, self._indices, self._indptr), shape=self._shape)


def _places(W: Any) -> np.ndarray:
    """Stored entries of a sparse array as row n + column, in the order of its values."""
    n = W.shape[0]
    return np.repeat(np.arange(n, dtype=np.int64) * n, np.diff(W.indptr)) + W.indices


class WhitenedSparse:
    """What does not depend on the parameters: Z of every term, X orthonormal, patterns.

    Parameters
    ----------
    design : Design
        With ``residual``.
    fixed : FixedPart, optional
        Of the design, if it is known.
    """

    name = "sparse"

    def __init__(self, design: Design, fixed: FixedPart | None = None) -> None:
        self.design = design
        self.n, self.p = design.n, design.p
        if fixed is None:
            fixed = fixed_part(design.y, design.X, design.x_names, design.offset, None)
        self.fixed = fixed
        self.columns = np.hstack([self.fixed.Q, self.fixed.r[:, None]])
        self.Z = [random_matrix((term,), design.n, None) for term in design.terms]
        self._places = np.zeros(0, dtype=np.int64)
        self._patterns: list[WhitenedPattern] = []
        self.solver: Any = None

    @property
    def exact_is_cheap(self) -> bool:
        """Whether the exact Hessian costs little."""
        return self.n * self.design.q <= _CHEAP

    @property
    def trace_work(self) -> float:
        """About how many multiplications the exact traces take, for one pair of parameters."""
        return 10.0 * self.n * self.design.q

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        return f"whitened rows, {self.n} x {self.design.q} sparse"

    def at(self, factors: Sequence[np.ndarray], point: ResidualPoint, n_phi: int) -> WhitenedSparsePoint:
        """The state at given factors and residual matrix; valid until the next one is asked for."""
        W, changes = point.whitening()
        values = self._on_pattern([W, *changes[:n_phi]])
        white = point.whiten(self.columns)
        y, X = np.ascontiguousarray(white[:, -1]), np.ascontiguousarray(white[:, :-1])
        Z = [pattern.product(values[0]) for pattern in self._patterns]
        if self.solver is None:
            from mixedmodels.solver.sparse import SparseSolver

            terms = self.design.terms
            self.solver = SparseSolver.from_parts(
                y,
                X,
                Z,
                [term.k for term in terms],
                [term.m for term in terms],
                [term.precision for term in terms],
                names=[term.group for term in terms],
                x_names=self.design.x_names,
            )
        else:
            self.solver.refresh(y, X, Z)
        return WhitenedSparsePoint(self, factors, point, n_phi, values[1:])

    def _on_pattern(self, matrices: Sequence[Any]) -> list[np.ndarray]:
        """Values of W and dW_j in one set of places, which grows where an entry was 0 until now."""
        places = [_places(matrix) for matrix in matrices]
        if not all(np.array_equal(own, self._places) for own in places):
            every = np.unique(np.concatenate([self._places, *places]))
            if every.shape != self._places.shape:
                self._places, self.solver = every, None
                self._patterns = [WhitenedPattern(Z, every) for Z in self.Z]
        out = []
        for own, matrix in zip(places, matrices, strict=True):
            values = np.zeros(self._places.shape[0])
            values[np.searchsorted(self._places, own)] = matrix.data
            out.append(values)
        return out

    def image(self, values: np.ndarray) -> Any:
        """``dW_j Z`` of all terms side by side, for dW_j by its values."""
        from scipy import sparse

        return sparse.hstack([pattern.product(values) for pattern in self._patterns], format="csr")


class WhitenedSparsePoint:
    """All that the criterion and its derivatives are made of at one parameter value, computed when asked for.

    It answers to the names of `WhitenedPoint`.

    Parameters
    ----------
    engine : WhitenedSparse
    factors : sequence of ndarray, one (k, k) per term
    point : ResidualPoint
    n_phi : int
    changes : sequence of ndarray
        Values of dW_j in the places of the engine.
    """

    def __init__(
        self,
        engine: WhitenedSparse,
        factors: Sequence[np.ndarray],
        point: ResidualPoint,
        n_phi: int,
        changes: Sequence[np.ndarray],
    ) -> None:
        self._engine, self._point, self._n_phi, self._dW = engine, point, n_phi, changes
        self._solver = engine.solver
        self.factors = [np.array(factor, dtype=np.float64) for factor in factors]
        head = self._solver.components(self.factors, 0)
        self.logdet_V = float(point.logdet) + head.logdet_L2
        self.logdet_RX2 = head.logdet_RX2 + engine.fixed.logdet_R2
        self.pwrss = head.pwrss
        self.exact_is_cheap = engine.exact_is_cheap
        self._parts: dict[bool, tuple[list[np.ndarray], list[np.ndarray]]] = {}

    # ------------------------------------------------------------------ pieces
    @cached_property
    def residual(self) -> np.ndarray:
        """``P y`` in whitened rows, shape (n,)."""
        return self._solver.residual_at(self.factors)

    @cached_property
    def _h(self) -> np.ndarray:
        """h with ``P = V^{-1} - h h'``, shape (n, p)."""
        return self._solver.projected_rows(self.factors)

    @cached_property
    def _changes(self) -> tuple[list[np.ndarray], np.ndarray]:
        """``D_j h``, (n, p) each, and ``D_j P y``, (n_phi, n)."""
        stack = np.hstack([self._h, self.residual[:, None]])
        images = [self._point.change(j, stack) for j in range(self._n_phi)]
        forms = np.array([image[:, -1] for image in images]).reshape(self._n_phi, self._engine.n)
        return [image[:, :-1] for image in images], forms

    def _traces_of(self, matrices: Sequence[Any]) -> np.ndarray:
        """``tr(Lambda M^{-1} Lambda' F_j)`` for symmetric F_j on the pattern of Z'Z."""
        return self._solver.weighted_traces(self.factors, matrices)

    @cached_property
    def _F(self) -> list[Any]:
        """``Z'D_jZ``."""
        out = []
        Zt = self._solver.Z.T.tocsr()
        for values in self._dW:
            half = Zt @ self._engine.image(values)
            out.append(-(half + half.T))
        return out

    def _solve(self, B: np.ndarray) -> np.ndarray:
        """``M^{-1}B``; derivatives at singular factors leave M factored at others."""
        self._solver.state(self.factors)
        return self._solver.solve(B)

    def _inverse_times(self, M: np.ndarray) -> np.ndarray:
        """``V^{-1}M`` for whitened rows, (n, c)."""
        return self._split(M)[0]

    def _split(self, M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``V^{-1}M`` and the u-hat of the columns of M."""
        solver = self._solver
        u = self._solve(solver.times_Lambda_t(self.factors, solver.Z.T @ M))
        return M - solver.Z @ solver.times_Lambda(self.factors, u), u

    def _project(self, M: np.ndarray, reml: bool) -> np.ndarray:
        """``Q M``, Q = P or V^{-1}."""
        out = self._inverse_times(M)
        return out - self._h @ (self._h.T @ M) if reml else out

    # ------------------------------------------------------------------ first derivatives
    def term_parts(self, reml: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """T_b and S_b of every term, as in `Components`."""
        if reml not in self._parts:
            parts = self._solver.components(self.factors, 1, None, reml)
            self._parts[reml] = (list(parts.T), list(parts.S))
        return self._parts[reml]

    def residual_parts(self, reml: bool) -> tuple[np.ndarray, np.ndarray]:
        """``tr(Q D_j)``, Q = P or V^{-1}, and ``y'P D_j P y``, both of shape (n_phi,)."""
        if not self._n_phi:
            return np.zeros(0), np.zeros(0)
        images, forms = self._changes
        traces = np.asarray(self._point.trace) - self._weighted
        if reml:
            traces = traces - np.array([float(np.vdot(self._h, image)) for image in images])
        return traces, forms @ self.residual

    @cached_property
    def _weighted(self) -> np.ndarray:
        return self._traces_of(self._F)

    # ------------------------------------------------------------------ information
    def _random_images(self, directions: Directions, M: np.ndarray) -> list[np.ndarray]:
        """``Z dSigma_a Z'M`` for each direction, (n, c)."""
        ZtM = self._solver.Z.T @ M
        return [self._solver.Z @ self._solver.image(direction, ZtM) for direction in directions]

    def products(self, directions: Directions) -> np.ndarray:
        """``y'P V_a P V_b P y`` for the directions, then the residual parameters: shape (r, r)."""
        random = self._random_images(directions, self.residual[:, None])
        W = np.hstack([*random, self._changes[1].T])
        VW, u = self._split(W)
        hW = self._h.T @ W
        return VW.T @ VW + u.T @ self._solver.times_P(u) - hW.T @ hW

    def trace_products(self, directions: Directions, reml: bool) -> np.ndarray:
        """``tr(Q V_a Q V_b)`` for the directions, then the residual parameters: shape (r, r).

        Raises
        ------
        SolverError
            Too many rows and random effects: the exact traces need the whole inverse, column by column.
        """
        n_theta, n_phi = len(directions), self._n_phi
        out = np.zeros((n_theta + n_phi,) * 2)
        if n_theta:
            out[:n_theta, :n_theta] = self._solver.trace_products(self.factors, directions, reml)[0]
        if not n_phi:
            return out
        if float(self._engine.n) * self._engine.design.q > _MOST:
            raise SolverError(
                f"exact traces for {self._engine.n} rows and {self._engine.design.q} random effects take too "
                'long; use information(kind="average")'
            )
        out[n_theta:, n_theta:] = self._point.trace_products
        self._add_column_sums(out, directions, reml)
        if reml and self._engine.p:
            self._add_fixed(out, n_theta)
        return out

    def _add_column_sums(self, out: np.ndarray, directions: Directions, reml: bool) -> None:
        """Parts of `trace_products` that are sums over the columns of Z, in batches."""
        solver, point, n_phi = self._solver, self._point, self._n_phi
        Z, q, r = solver.Z, solver.q, len(directions)
        Zt = Z.T.tocsr()
        for first in range(0, q, _BATCH):
            width = min(_BATCH, q - first)
            unit = np.zeros((q, width))
            unit[np.arange(first, first + width), np.arange(width)] = 1.0
            ZE = Z @ unit
            QZE = self._project(ZE, reml)
            for j in range(n_phi):  # theta with phi: tr(dSigma_a Z'Q D_j Q Z)
                J = Zt @ self._project(point.change(j, QZE), reml)
                for a, direction in enumerate(directions):
                    value = float(np.vdot(solver.image(direction, unit), J))
                    out[a, r + j] += value
                    out[r + j, a] += value
            # phi with phi: N = Lambda M^{-1} Lambda'
            NE = self._N_times(unit)
            ZNE = Z @ NE
            left = [point.change(i, ZNE) for i in range(n_phi)]
            right = [point.change(j, ZE) for j in range(n_phi)]
            FN = [Zt @ image for image in left]
            NF = [self._N_times(Zt @ image) for image in right]
            for i in range(n_phi):
                for j in range(n_phi):
                    out[r + i, r + j] += float(np.vdot(FN[i], NF[j])) - 2.0 * float(
                        np.vdot(left[i], right[j])
                    )

    def _N_times(self, B: np.ndarray) -> np.ndarray:
        """``Lambda M^{-1} Lambda' B``."""
        solver = self._solver
        return solver.times_Lambda(self.factors, self._solve(solver.times_Lambda_t(self.factors, B)))

    def _add_fixed(self, out: np.ndarray, n_theta: int) -> None:
        """The fixed effects' share of ``tr(P D_i P D_j)``; what involves theta has it already."""
        images = self._changes[0]
        inverse = [self._inverse_times(image) for image in images]
        E = [self._h.T @ image for image in images]
        for i in range(self._n_phi):
            for j in range(self._n_phi):
                out[n_theta + i, n_theta + j] += float(np.sum(E[i] * E[j].T))
                out[n_theta + i, n_theta + j] -= 2.0 * float(np.vdot(images[i], inverse[j]))

    def residual_seconds(self, reml: bool) -> tuple[np.ndarray, np.ndarray]:
        """``tr(Q D_ij)`` and ``y'P D_ij P y``, both of shape (n_phi, n_phi)."""
        n_phi = self._n_phi
        traces, forms = np.array(self._point.trace_seconds, dtype=float), np.zeros((n_phi, n_phi))
        stack = np.hstack([self._h, self.residual[:, None]])
        solver = self._solver
        for i in range(n_phi):
            for j in range(i + 1):
                image = self._point.second_change(i, j, stack)
                removed = float(np.vdot(self._h, image[:, :-1])) if reml else 0.0
                for first in range(0, solver.q, _BATCH):
                    width = min(_BATCH, solver.q - first)
                    unit = np.zeros((solver.q, width))
                    unit[np.arange(first, first + width), np.arange(width)] = 1.0
                    change = self._point.second_change(i, j, solver.Z @ unit)
                    removed += float(np.vdot(solver.Z @ self._N_times(unit), change))
                form = float(image[:, -1] @ self.residual)
                for a, b in {(i, j), (j, i)}:
                    traces[a, b] -= removed
                    forms[a, b] = form
        return traces, forms

    # ------------------------------------------------------------------ estimates
    def fixed_products(
        self, directions: Directions, second: bool = True, orthonormal: bool = False
    ) -> FixedProducts:
        """``X'V^{-1}X`` and its changes with all parameters; see `FixedProducts`."""
        R = self._solver.fixed.R @ self._engine.fixed.R
        RX = self._solver.state(self.factors).RX
        images = self._random_images(directions, self._h) + self._changes[0]
        inverse = [self._inverse_times(image) for image in images] if second else None
        return products_of_images(self._h, images, inverse, RX, R, orthonormal)

    def fixed_seconds(self) -> tuple[np.ndarray, np.ndarray]:
        """``X'V^{-1}RV^{-1}X``, (p, p), and ``X'V^{-1}R_ijV^{-1}X``, (n_phi, n_phi, p, p).

        In the orthonormal columns of `fixed_products`.
        """
        root, h = self._solver.state(self.factors).RX.T, self._h
        seconds = second_products(self._point, self._n_phi, h)
        return root.T @ (h.T @ h) @ root, root.T @ seconds @ root

    def solution(self) -> Solution:
        """Estimates of beta and predictions of the random effects; `logdet_L2` is ``log|R + Z Sigma Z'|``."""
        found, fixed = self._solver.solution(self.factors), self._engine.fixed
        beta, vcov = np.zeros(0), np.zeros((0, 0))
        if self._engine.p:
            beta = fixed.beta0 + np.linalg.solve(fixed.R, found.beta)
            inverse = np.linalg.inv(fixed.R)
            vcov = inverse @ found.vcov_unscaled @ inverse.T
        return Solution(beta, vcov, found.u, found.b, self.logdet_V, self.logdet_RX2, self.pwrss)
