r"""Second derivatives of Laplace's approximation on the pattern of the data, all directions at once.

Direction a is a coefficient or an entry of a factor. :math:`N_a` is the derivative of the predictors at fixed
u, :math:`\dot u_a = -H^{-1}F_{ua}` that of the mode and :math:`\dot\eta_a = N_a + Z\Lambda\dot u_a`. Then the
weights change by :math:`\dot W_a = -\ell^{(3)}\dot\eta_a`, and H by
:math:`\dot H_a = \Lambda'Z'\dot W_aZ\Lambda + \dot\Lambda_a'A\Lambda + \Lambda'A\dot\Lambda_a`.
`mixedmodels.objective.marginal.dense` derives the Hessian from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.objective.marginal.algebra import both_factors

if TYPE_CHECKING:
    from mixedmodels.objective.marginal.laplace import PatternLaplace, _State

__all__ = ["Directions"]


class Directions:
    """How predictors and mode change along each coefficient and each entry of the factors.

    Parameters
    ----------
    engine : PatternLaplace
    state : _State
        The mode.
    f2 : ndarray, shape (C, C, n)
        Second derivatives of the log-densities there.
    score : list of ndarray, (m, k)
        Z' times their first derivatives, by factor.

    Attributes
    ----------
    N, eta1 : ndarray, shape (P, C, n)
        Derivatives of the predictors at fixed u, and along the mode.
    du : list of ndarray, (m, k, P)
        Derivatives of the mode, by factor.
    """

    def __init__(
        self, engine: PatternLaplace, state: _State, f2: np.ndarray, score: Sequence[np.ndarray]
    ) -> None:
        self.engine, self.state, self.f2 = engine, state, f2
        layout, p = engine.layout, engine.n_gamma
        act = engine._active
        C, n = state.eta.shape
        self.entries = list(enumerate(layout.entries, p))
        P = p + len(layout.entries)
        N = np.zeros((P, C, n))
        for c, (predictor, X) in enumerate(zip(engine.design.predictors, engine._X, strict=True)):
            N[predictor.columns, c] = X.T
        for at, (f, i, j) in self.entries:
            N[at, act[layout.predictors[f][i]]] += layout.column(f, i, state.u[f][:, j])
        self.N = N
        self.fN = _weighted(f2, N)
        self.Fu = [-_left(L.T, part) for part, L in zip(self._sums(self.fN), state.Lambda, strict=True)]
        for at, (f, i, j) in self.entries:
            self.Fu[f][:, j, at] -= score[f][:, i]
        self.du = [-part for part in layout.solve(self.Fu)]
        self.eta1 = N.copy()
        db = [_left(L, part) for L, part in zip(state.Lambda, self.du, strict=True)]
        layout.effects_many(db, self.eta1, np.array(act, dtype=np.intc))

    def _sums(self, r: np.ndarray) -> list[np.ndarray]:
        """Z'r by factor, (m, k, P), for r (P, C, n)."""
        return self.engine.layout.sums_many(np.ascontiguousarray(r[:, self.engine._active]))

    def penalised(self) -> np.ndarray:
        """Second derivatives of F at the mode, (P, P)."""
        P = len(self.N)
        out = -_gram(self.fN, self.N)
        for Fu, du in zip(self.Fu, self.du, strict=True):
            out += Fu.reshape(-1, P).T @ du.reshape(-1, P)
        return 0.5 * (out + out.T)

    def half_hessian(
        self,
        penalised: np.ndarray,
        Q: Any,
        adjoint: Sequence[np.ndarray],
        f3: np.ndarray,
        s: np.ndarray,
        M: np.ndarray,
        exact: bool,
        T: np.ndarray | None = None,
        along: np.ndarray | None = None,
    ) -> np.ndarray:
        r"""Second derivatives of half the criterion, (P, P), or along the columns of T, (q, q).

        With a direction v the third derivatives of the penalised likelihood are added,
        :math:`D^3F[a, b, v] = -\sum_i \ell_i^{(3)}\dot\eta_a\dot\eta_b\dot\eta_v
        - \sum_i\ell_i''(\ddot\eta_{ab}\dot\eta_v + \ddot\eta_{av}\dot\eta_b
        + \ddot\eta_{bv}\dot\eta_a)`, :math:`\ddot\eta_{ab} = Z(\dot\Lambda_a\dot u_b
        + \dot\Lambda_b\dot u_a)`.

        Parameters
        ----------
        penalised : ndarray, shape (P, P)
        Q : blocks
            Of the inverse of H.
        adjoint, s, M
            ``a`` and ``s`` of `PatternLaplace`'s formulas, and the weights of ``eta_a' M eta_b``.
        f3 : ndarray, shape (C, C, C, n)
        exact : bool
            Whether the curvature of the determinant is exact, not a model.
        T : ndarray, shape (P, q), optional
        along : ndarray, shape (P,), optional
            v; it moves no factor.
        """
        engine, state, layout = self.engine, self.state, self.engine.layout
        P, C, n = self.N.shape
        if along is not None:
            eta_v = (along @ self.eta1.reshape(P, -1)).reshape(C, n)
            M = M - 2.0 * (f3[0] * eta_v if C == 1 else np.einsum("cdei,ci->dei", f3, eta_v))
            s = s - 2.0 * (self.f2[0] * eta_v if C == 1 else np.einsum("cdi,di->ci", self.f2, eta_v))
            adjoint = [a - 2.0 * (du @ along) for a, du in zip(adjoint, self.du, strict=True)]
        q, eta1, dus = P, self.eta1, self.du
        if T is not None:
            q = T.shape[1]
            eta1 = (T.T @ eta1.reshape(P, -1)).reshape(q, C, n)
            dus = [du @ T for du in dus]
        half = _gram(_weighted(M, eta1), eta1)
        out = (penalised if T is None else T.T @ penalised @ T) + 0.25 * (half + half.T)
        dA, dH = self._changes(f3, eta1, T)
        S = layout.sums(s[engine._active])
        D = self._sums(_weighted(self.f2, eta1))
        K = layout.half_products_many(dA, Q, state.Lambda)
        found = []  # [i, j, b] by factor
        for Sf, du, Df, a, Kf in zip(S, dus, D, adjoint, K, strict=True):
            m, k, _ = du.shape
            one = (Sf.T @ du.reshape(m, k * q)).reshape(k, k, q)
            other = np.swapaxes((a.T @ Df.reshape(m, k * q)).reshape(k, k, q), 0, 1)
            found.append(0.5 * (one + other) + Kf)
        moved = np.zeros((P, q))
        for at, (f, i, j) in self.entries:
            moved[at] = found[f][i, j]
        both = both_factors(layout.grams(state.A, Q), self.entries, P)
        if T is not None:
            moved, both = T.T @ moved, T.T @ both @ T
        out += moved + moved.T + both
        traces = layout.traces(state.H, dH, exact)
        return np.asarray(out - 0.5 * traces)

    def _changes(self, f3: np.ndarray, eta1: np.ndarray, T: np.ndarray | None) -> tuple[Any, Any]:
        """Derivatives of Z'WZ and of Lambda'Z'WZ Lambda, stacked, along all directions or columns of T."""
        state, layout = self.state, self.engine.layout
        act = self.engine._active
        if len(f3) == 1:
            dW = -f3[0] * eta1[:, None]
        else:
            dW = np.ascontiguousarray(-np.einsum("cdei,aei->acdi", f3[np.ix_(act, act)], eta1))
        dA = layout.products_many(dW)
        dH = layout.transform(dA, state.Lambda, state.Lambda)
        for at, (f, i, j) in self.entries:
            share = slice(at, at + 1) if T is None else slice(None)
            scale = 1.0 if T is None else T[at][:, None, None]
            layout.add_change(dH, state.A, state.Lambda, (f, i, j), share, scale)
        return dA, dH


def _left(L: np.ndarray, part: np.ndarray) -> np.ndarray:
    """``L part`` of each level, part (m, k, P)."""
    return part * L[0, 0] if len(L) == 1 else np.asarray(L @ part)


def _weighted(M: np.ndarray, N: np.ndarray) -> np.ndarray:
    """``sum_d M[c, d] N[:, d]`` by row, (P, C, n)."""
    return M[0] * N if len(M) == 1 else np.asarray(np.einsum("cdi,adi->aci", M, N))


def _gram(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums over predictors and rows, (P, P)."""
    return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
