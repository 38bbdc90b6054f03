"""From compiled blocks to what inference needs: changes of X'V^{-1}X, traces, covariances of predictions.

A mix-in of `CompiledSolver`. With ``H = Z'V^{-1}X``, ``K = Z'V^{-1}Z``, ``Phi = (X'V^{-1}X)^{-1}``,
``C = Lambda M^{-1} Lambda'`` and ``F = C Z'X``:

    tr(KP D_i KP D_j) = tr(K D_i K D_j) - 2 tr(Phi H'D_i K D_jH) + tr(Phi H'D_iH Phi H'D_jH)      (REML)
    Var[x'(beta^ - beta) + z'(b^ - b)] / sigma^2 = z'Cz + (x - F'z)' Phi (x - F'z)
    Cov(b^ - b, beta^) / sigma^2 = -F Phi

(Henderson 1975, Biometrics 31:423-447). Everything is worked out in internal coordinates, by factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver.base import Breakdown, Directions, FixedProducts, PredictorRows
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.design import Design
    from mixedmodels.solver.crossproducts import CrossProducts
    from mixedmodels.solver.scaling import Standardised

__all__ = ["InferenceProducts", "quadratic_forms"]

_ROWS = 1 << 15  # rows of a prediction worked through at once
_COLUMNS = 512  # levels whose columns are solved for at once


class InferenceProducts:
    """The members of the `Solver` contract that inference uses; see the module for the formulae.

    Hooks of a subclass, all in internal coordinates and by factor: `_root`, `_project`, `_K_times`,
    `_trace_ml`, `_covariance_times`, `_C_times` and `_selected`.
    """

    if TYPE_CHECKING:
        design: Design
        p: int
        pack: CrossProducts
        standardised: Standardised
        _place: tuple[tuple[int, int, int], ...]
        _k: list[int]

        def _lam(self, factors: Sequence[np.ndarray]) -> np.ndarray: ...
        def _dS(self, directions: Directions) -> np.ndarray: ...
        def _working_evaluator(self, reml: bool) -> Any: ...

    # ------------------------------------------------------------------ hooks
    def _root(self, evaluator: Any, lam: np.ndarray) -> np.ndarray:
        """R with ``X~'V^{-1}X~ = R'R``, shape (p, p)."""
        raise NotImplementedError

    def _project(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        """``Z~'V^{-1}X~`` by factor, (m, k, p)."""
        raise NotImplementedError

    def _K_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        """``K~ U`` by factor, for U by factor, (m, k, c)."""
        raise NotImplementedError

    def _trace_ml(self, evaluator: Any, lam: np.ndarray, dS: np.ndarray) -> np.ndarray:
        """``tr(K~ D_i K~ D_j)`` for ML, shape (r, r)."""
        raise NotImplementedError

    def _covariance_times(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        """``F~ = C~ Z~'X~`` by factor, (m, k, p)."""
        raise NotImplementedError

    def _selected(self, evaluator: Any, lam: np.ndarray) -> Any:
        """Blocks of C~: an object with ``diagonal(f)`` and ``pairs(f, g, lf, lg)``."""
        raise NotImplementedError

    # ------------------------------------------------------------------ pieces
    @cached_property
    def _T_X_inverse(self) -> np.ndarray:
        return np.linalg.inv(self.standardised.T_X)

    @cached_property
    def _solve_precision(self) -> list[Callable[[np.ndarray], np.ndarray] | None]:
        """Per factor ``v -> A v`` from its sparse precision, or None."""
        out: list[Callable[[np.ndarray], np.ndarray] | None] = []
        for factor in self.pack.factors:
            if factor.precision is None:
                out.append(None)
            else:
                from mixedmodels.solver.precision import covariance_times

                out.append(covariance_times(factor.precision))
        return out

    def _images(self, dS: np.ndarray, H: list[np.ndarray]) -> list[np.ndarray]:
        """``D_i H`` by factor, the directions side by side: (m, k, r p)."""
        out, at, r = [], 0, dS.shape[0]
        for part, solve in zip(H, self._solve_precision, strict=True):
            m, k, p = part.shape
            D = dS[:, at : at + k * k].reshape(r * k, k)
            at += k * k
            image = (D @ part).reshape(m, r, k, p).transpose(0, 2, 1, 3).reshape(m, k, r * p)
            if solve is not None and image.size:
                image = solve(image.reshape(m, -1)).reshape(m, k, r * p)
            out.append(np.ascontiguousarray(image))
        return out

    def _products(
        self, evaluator: Any, lam: np.ndarray, dS: np.ndarray, second: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """H'D_iH (r, p, p) and H'D_iKD_jH (r, r, p, p) in internal coordinates."""
        r, p = dS.shape[0], self.p
        H = self._project(evaluator, lam)
        images = self._images(dS, H)
        HDH = _inner(H, images).reshape(p, r, p).transpose(1, 0, 2)
        if not second:
            return HDH, None
        KDH = self._K_times(evaluator, lam, images)
        return HDH, _inner(images, KDH).reshape(r, p, r, p).transpose(0, 2, 1, 3)

    # ------------------------------------------------------------------ contract
    @one_blas_thread()
    def trace_products(
        self, factors: Sequence[np.ndarray], directions: Directions, reml: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """``tr(K D_i K D_j)``, shape (r, r), and ``tr(K D_i)``, shape (r,): exact, for second derivatives.

        K is ``Z'V^{-1}Z`` (ML) or ``Z'PZ`` (REML).
        """
        lam, dS = self._lam(factors), self._dS(directions)
        try:
            return self._trace_products(self._working_evaluator(reml), lam, dS, reml)
        except FloatingPointError as error:
            raise not_definite() from error

    def _trace_products(
        self, evaluator: Any, lam: np.ndarray, dS: np.ndarray, reml: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """`trace_products` in internal coordinates."""
        traces = dS @ evaluator.components_at(lam, None, 1)["T"].reshape(-1)
        return self._projected_traces(evaluator, lam, dS, reml)[0], traces

    def _projected_traces(
        self, evaluator: Any, lam: np.ndarray, dS: np.ndarray, reml: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """``tr(K D_i K D_j)`` and, for REML, ``H'D_iH``."""
        products = self._trace_ml(evaluator, lam, dS)
        if not (reml and self.p):
            return products, None
        HDH, HDKDH = self._products(evaluator, lam, dS, True)
        assert HDKDH is not None
        Ri = np.linalg.inv(self._root(evaluator, lam))
        inside = Ri.T @ HDH @ Ri
        twice = np.einsum("ijab,ba->ij", HDKDH, Ri @ Ri.T)
        products = products - twice - twice.T + np.einsum("iab,jba->ij", inside, inside)
        return 0.5 * (products + products.T), HDH

    def information_and_changes(
        self, evaluator: Any, theta: np.ndarray, exact: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Information without its border, ``(nu/pwrss) y'P V_i P y`` and the changes of ``(X'V^{-1}X)^{-1}``.

        In internal coordinates but for X, whose columns are the user's: shapes (r, r), (r,) and (r, p, p).
        The evaluator does it in one go where it can.
        """
        found = evaluator.information(theta, exact)
        inner, cross, changes = self._by_parts(evaluator, theta, exact) if found is None else found
        T = self.standardised.T_X
        return inner, cross, T @ changes @ T.T

    @one_blas_thread()
    def _by_parts(
        self, evaluator: Any, theta: np.ndarray, exact: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`information_and_changes` with X in internal coordinates, from solves for blocks of columns."""
        lam, dS, inner, curvature, cross = evaluator.information_parts(theta)
        HDH = None
        if exact:
            products, HDH = self._projected_traces(evaluator, lam, dS, evaluator.reml)
            inner = 2.0 * inner - products + curvature
        if HDH is None:
            HDH = self._products(evaluator, lam, dS, False)[0]
        half = np.linalg.inv(self._root(evaluator, lam))
        Phi = half @ half.T
        return inner, cross, Phi @ HDH @ Phi

    @one_blas_thread()
    def fixed_products(
        self,
        factors: Sequence[np.ndarray],
        directions: Directions,
        second: bool = True,
        orthonormal: bool = False,
    ) -> FixedProducts:
        """``X'V^{-1}X`` and its changes with the covariance; see `FixedProducts`.

        With `orthonormal` for the columns of ``X basis``, which are orthonormal, in place of X.
        """
        lam, dS = self._lam(factors), self._dS(directions)
        evaluator = self._working_evaluator(False)
        try:
            HDH, HDKDH = self._products(evaluator, lam, dS, second)
            root = self._root(evaluator, lam)
        except FloatingPointError as error:
            raise not_definite() from error
        if orthonormal:
            return FixedProducts(root.T @ root, HDH, HDKDH, self.standardised.T_X)
        Ti = self._T_X_inverse
        root = root @ Ti
        return FixedProducts(root.T @ root, Ti.T @ HDH @ Ti, None if HDKDH is None else Ti.T @ HDKDH @ Ti)

    def _predictions(
        self, factors: Sequence[np.ndarray]
    ) -> tuple[Any, np.ndarray, list[np.ndarray], np.ndarray]:
        """Evaluator, lam, F by factor and ``(X~'V^{-1}X~)^{-1}`` as ``half half'``."""
        lam, evaluator = self._lam(factors), self._working_evaluator(False)
        try:
            half = np.linalg.inv(self._root(evaluator, lam))
            return evaluator, lam, self._covariance_times(evaluator, lam), half
        except FloatingPointError as error:
            raise not_definite() from error

    @one_blas_thread()
    def fixed_random_covariance(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """``Cov(b^ - b, beta^) / sigma^2`` per term, shape (m, k, p)."""
        _, _, F, half = self._predictions(factors)
        right = half @ half.T @ self.standardised.T_X.T
        out = []
        for (f, lo, hi), T in zip(self._place, self.standardised.T, strict=True):
            block = -F[f][:, lo:hi] @ right
            out.append(block if T is None else T @ block)
        return tuple(out)

    @one_blas_thread()
    def random_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Var(b^ - b) / sigma^2`` of a term, shape (m, k, k), beta's share included."""
        evaluator, lam, F, half = self._predictions(factors)
        f, lo, hi = self._place[term]
        own = F[f][:, lo:hi] @ half
        blocks = self._selected(evaluator, lam).diagonal(f)[:, lo:hi, lo:hi] + own @ own.transpose(0, 2, 1)
        T = self.standardised.T[term]
        return blocks if T is None else T @ blocks @ T.T

    @one_blas_thread()
    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses (n, N) that gives their beta^ (p, N) and b^ per term (m, k, N)."""
        from mixedmodels.solver.given_factors import CompiledResponses

        return CompiledResponses(self, factors)

    @one_blas_thread()
    def predictor_variance(
        self, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
    ) -> np.ndarray:
        """``Var[x'(beta^ - beta) + sum_b z_b'(b^_b - b_b)] / sigma^2`` for N rows, shape (N,)."""
        evaluator, lam, F, half = self._predictions(factors)
        parts = self._rows_by_factor(X.shape[0], rows)
        X = np.asarray(X, dtype=np.float64) @ (self.standardised.T_X @ half)
        F = [block @ half for block in F]
        out = np.empty(X.shape[0])
        for start in range(0, X.shape[0], _ROWS):
            at = slice(start, start + _ROWS)
            rest = X[at].copy()
            for f, codes, Z in parts:
                # a level of -1 reads the last one, with values of zero
                for c in range(Z.shape[1]):
                    rest -= Z[at, c, None] * F[f][codes[at], c]
            np.einsum("ij,ij->i", rest, rest, out=out[at])
        if not parts:
            return out
        selected = self._selected(evaluator, lam)
        blocks: dict[int, np.ndarray] = {f: selected.diagonal(f) for f in {part[0] for part in parts}}
        for f, codes, Z in parts:
            out += quadratic_forms(blocks[f], codes, Z, Z)
        crossed = [(a, b) for i, a in enumerate(parts) for b in parts[:i]]
        found = [self._crossed_blocks(selected, blocks, a, b) for a, b in crossed]  # before the state is lost
        for (a, b), (used, index, levels, values, missing) in zip(crossed, found, strict=True):
            if missing.any():
                values[missing] = self._solved_blocks(
                    evaluator, lam, a[0], b[0], *[v[missing] for v in levels]
                )
            out[used] += 2.0 * quadratic_forms(values, index, a[2][used], b[2][used])
        return out

    def _rows_by_factor(self, N: int, rows: PredictorRows) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """(factor, levels, internal values) of new rows; terms on one factor with equal levels are joined."""
        if len(rows) != len(self._place):
            raise SolverError(f"rows has {len(rows)} entries for {len(self._place)} terms; give one per term")
        out: list[tuple[int, np.ndarray, np.ndarray]] = []
        given: list[Any] = []
        for (f, lo, hi), T, row in zip(self._place, self.standardised.T, rows, strict=True):
            if row is None:
                continue
            codes, Z = np.asarray(row[0]), np.asarray(row[1], dtype=np.float64)
            values = np.zeros((N, self._k[f]))
            values[:, lo:hi] = Z if T is None else Z @ T
            if codes.size and codes.min() < 0:
                values[codes < 0] = 0.0
            for i, (g, other, sums) in enumerate(out):
                if g != f:
                    continue
                same = given[i] is codes
                if same or np.all((other == codes) | (other < 0) | (codes < 0)):
                    out[i] = (f, other if same else np.where(other < 0, codes, other), sums + values)
                    break
            else:
                out.append((f, codes, values))
                given.append(codes)
        return out

    def _crossed_blocks(self, selected: Any, diagonal: dict[int, np.ndarray], a: Any, b: Any) -> tuple:
        """Rows in both parts, the pair of levels of each, the distinct pairs, their blocks, those missing."""
        (f, lf, _), (g, lg, _) = a, b
        used = np.flatnonzero((lf >= 0) & (lg >= 0))
        m = self.pack.factors[g].m
        keys, index = np.unique(lf[used].astype(np.int64) * m + lg[used], return_inverse=True)
        levels = keys // m, keys % m
        if f != g:
            values, found = selected.pairs(f, g, *levels)
        else:
            values = np.zeros((len(keys), self._k[f], self._k[f]))
            found = levels[0] == levels[1]
            values[found] = diagonal[f][levels[0][found]]
        return used, index, levels, values, ~found

    def _solved_blocks(
        self, evaluator: Any, lam: np.ndarray, f: int, g: int, lf: np.ndarray, lg: np.ndarray
    ) -> np.ndarray:
        """Blocks (lf of f, lg of g) of C~ by solves for the levels of the side with fewer distinct ones."""
        turn = len(np.unique(lf)) < len(np.unique(lg))
        if turn:
            f, g, lf, lg = g, f, lg, lf
        distinct, place = np.unique(lg, return_inverse=True)
        k = self._k[g]
        out = np.empty((len(lf), self._k[f], k))
        per = max(1, _COLUMNS // k)
        for start in range(0, len(distinct), per):
            stop = min(start + per, len(distinct))
            parts = [np.zeros((factor.m, factor.k, (stop - start) * k)) for factor in self.pack.factors]
            for c in range(k):
                parts[g][distinct[start:stop], c, np.arange(stop - start) * k + c] = 1.0
            block = self._C_times(evaluator, lam, parts)[f].reshape(-1, self._k[f], stop - start, k)
            mine = np.flatnonzero((place >= start) & (place < stop))
            out[mine] = block[lf[mine], :, place[mine] - start]
        return out.transpose(0, 2, 1) if turn else out

    def _C_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        """``C~ U`` by factor, for U by factor, (m, k, c)."""
        raise NotImplementedError


def quadratic_forms(blocks: np.ndarray, index: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left_i' blocks[index_i] right_i`` for every row, shape (N,), in pieces that stay in the cache.

    Parameters
    ----------
    blocks : ndarray, shape (u, k, l)
    index : ndarray of int, shape (N,)
        A negative one needs a row of zeros.
    left, right : ndarray, shape (N, k) and (N, l)
    """
    out = np.zeros(left.shape[0])
    k, width = blocks.shape[1:]
    columns = [[np.ascontiguousarray(blocks[:, a, b]) for b in range(width)] for a in range(k)]
    for start in range(0, left.shape[0], _ROWS):
        at = slice(start, start + _ROWS)
        for a in range(k):
            for b in range(width):
                out[at] += columns[a][b][index[at]] * left[at, a] * right[at, b]
    return out


def _inner(left: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
    """``sum_f L_f'R_f`` over levels and columns of Z, for arrays (m, k, c)."""
    total = np.zeros((left[0].shape[2], right[0].shape[2]))
    for a, b in zip(left, right, strict=True):
        size = a.shape[0] * a.shape[1]
        total += a.reshape(size, a.shape[2]).T @ b.reshape(size, b.shape[2])
    return total


def not_definite() -> Breakdown:
    """The error of a solver at factors that hold NaN, infinity or values far too large."""
    return Breakdown(
        "the penalised cross-product matrix is not positive definite at these parameters; "
        "check the relative factors for NaN or infinite values"
    )
