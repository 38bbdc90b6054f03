r"""Laplace's approximation on the pattern of the data, whatever factors its matrices.

The pattern of :math:`A = Z'WZ` and the elimination order are found once, by an `Algebra`.
Each step towards the mode rebuilds A in one pass over the rows and factors
:math:`H = \Lambda'A\Lambda + P`; one selected inverse then gives
:math:`h_i = z_i'\Lambda H^{-1}\Lambda'z_i` of every row, and with it the gradient. The formulas are those of
`DenseLaplace`; with :math:`K_f = \sum_l (A\Lambda H^{-1})_{ll}` and :math:`a = H^{-1}\Lambda'Z't`,
:math:`t_i = h_i \dot w_i`,

.. math:: L_\gamma = X'(-\ell' + \tfrac12 s), \quad
          L_{\Lambda_f} = \sum_l Z_l'(-\ell' + \tfrac12 s)\,u_l' + \tfrac12 \sum_l Z_l'\ell'\,a_l' + K_f,
          \quad s = t - W Z\Lambda a .
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family
from mixedmodels.family.jet import place
from mixedmodels.objective.marginal.algebra import Algebra
from mixedmodels.objective.marginal.base import Evaluation, Modes, factor_entries
from mixedmodels.objective.marginal.joint import joint_mode
from mixedmodels.objective.marginal.second import Directions
from mixedmodels.solver.base import Breakdown

__all__ = ["PatternLaplace", "symmetrised"]

_STEPS = 200
_NEAR = 2.0  # change of the parameters up to which the last mode is moved along its derivative
_CLOSE = 0.3  # and up to which that is not checked
_DECREMENT = 1e-11  # Newton's decrement at which one more step reaches rounding


@dataclass(slots=True, eq=False)
class _State:
    """A mode and the factor of H there, held by the algebra."""

    key: tuple[bytes, ...]
    Lambda: list[np.ndarray]
    u: list[np.ndarray]
    b: list[np.ndarray]
    eta: np.ndarray
    A: Any
    H: Any
    F: float
    logdet: float


class PatternLaplace:
    """Mode, value and derivatives, by a small linear algebra.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family

    Attributes
    ----------
    layout : Algebra
    exact_hessian : bool
        Whether `newton` returns the exact Hessian; otherwise the curvature of the determinant is a model.
    steps : int
        Newton steps towards modes so far.
    """

    name = ""
    reason = ""
    layout: Algebra
    exact_hessian = True

    def __init__(self, design: GeneralisedDesign, family: Family) -> None:
        self.design = design
        self.family = family
        self.entries = factor_entries(design)
        self.n_gamma = len(design.gamma_names)
        self._analyse()
        self.steps = 0
        self._active = list(design.active)
        self._X = [
            np.ones((design.n, 1)) if part.X is None else np.asarray(part.X) for part in design.predictors
        ]
        self._u = self._zeros()
        self._state: _State | None = None
        self._guess: tuple[np.ndarray, list[np.ndarray], list[np.ndarray]] | None = None

    def _analyse(self) -> None:
        """Make `layout` and decide on `exact_hessian`."""
        raise NotImplementedError

    def begin(self, u: Sequence[np.ndarray]) -> None:
        """Where the next search for a mode begins: spherical effects by term, as in `Modes`."""
        for f, part in enumerate(self.layout.from_terms(u)):
            self._u[f][:] = part

    # ------------------------------------------------------------------ pieces
    def _zeros(self, columns: int | None = None) -> list[np.ndarray]:
        shape = () if columns is None else (columns,)
        return [np.zeros((m, k, *shape)) for m, k in zip(self.layout.m, self.layout.k, strict=True)]

    def _fixed(self, gamma: np.ndarray) -> np.ndarray:
        eta = np.zeros((len(self.design.predictors), self.design.n))
        for row, part, X in zip(eta, self.design.predictors, self._X, strict=True):
            if X.shape[1]:
                row += X @ gamma[part.columns]
            if part.offset is not None:
                row += part.offset
        return eta

    def _effects(self, b: Sequence[np.ndarray]) -> np.ndarray:
        """Z b on the active predictors, (A, n)."""
        out = np.zeros((len(self._active), self.design.n))
        self.layout.effects(b, out)
        return out

    def _load(self, W: np.ndarray, Lambda: list[np.ndarray]) -> tuple[Any, Any, float]:
        """Z'WZ, Lambda'Z'WZ Lambda and ``log|H| - log|P|``, whose factor is then held."""
        A = self.layout.products(W)
        H = self.layout.transform(A, Lambda, Lambda)
        return A, H, self.layout.load(H)

    # ------------------------------------------------------------------ the mode
    def _rows(self, eta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Sum of the log-densities, first derivatives (A, n) and weights (A, A, n)."""
        A = len(self._active)
        table = self.family.derivatives(self.design.data, list(eta), 2, self._active)
        value = float(table[0].sum())
        if not math.isfinite(value) or not np.isfinite(table).all():
            return -math.inf, table, table
        return value, table[1 : 1 + A], -symmetrised(table, A, 2)

    def _start(
        self, fixed: np.ndarray, Lambda: list[np.ndarray], point: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray, tuple[float, np.ndarray, np.ndarray]]:
        """Where the search for the mode begins, with its predictors and their `_rows`.

        The last mode, moved along its derivative if the point is near and that is no worse.
        """
        best = None
        if self._guess is not None:
            at, u, du = self._guess
            change = point - at
            size = float(np.max(np.abs(change), initial=0.0))
            if size < _NEAR:
                moved = [part + d @ change for part, d in zip(u, du, strict=True)]
                eta = self._eta(fixed, Lambda, moved)
                best = moved, eta, self._rows(eta)
                if size < _CLOSE and best[2][0] != -math.inf:
                    return best
        eta = self._eta(fixed, Lambda, self._u)
        rows = self._rows(eta)
        if best is not None:
            moved, _, (value, _, _) = best
            if 0.5 * _dot(moved, self.layout.penalty(moved)) - value < (
                0.5 * _dot(self._u, self.layout.penalty(self._u)) - rows[0]
            ):
                return best
        return self._u, eta, rows

    def _eta(self, fixed: np.ndarray, Lambda: list[np.ndarray], u: list[np.ndarray]) -> np.ndarray:
        eta = fixed.copy()
        eta[self._active] += self._effects([part @ L.T for part, L in zip(u, Lambda, strict=True)])
        return eta

    def _mode(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> _State:
        key = (gamma.tobytes(), *[np.asarray(part).tobytes() for part in factors])
        if self._state is not None and self._state.key == key:
            return self._state
        self._state = None
        Lambda = self.layout.factors(factors)
        fixed = self._fixed(gamma)
        entries = np.array([Lambda[f][i, j] for f, i, j in self.layout.entries])
        u, eta, (value, f1, W) = self._start(fixed, Lambda, np.concatenate([gamma, entries]))
        if value == -math.inf:
            u = self._zeros()
            eta = fixed.copy()
            value, f1, W = self._rows(eta)
            if value == -math.inf:
                raise Breakdown("the likelihood cannot be computed there: a mean is out of its range")
        F = -value + 0.5 * _dot(u, self.layout.penalty(u))
        last = False
        for _ in range(_STEPS):
            definite = True
            try:
                A, H, logdet = self._load(W, Lambda)
            except FloatingPointError:
                definite = False
                if last:
                    raise Breakdown("the conditional density has no proper mode there") from None
                self._load(_absolute(W), Lambda)
            if last:
                break
            score = self.layout.sums(f1)
            g = [
                (part - r @ L)[:, :, None]
                for part, r, L in zip(self.layout.penalty(u), score, Lambda, strict=True)
            ]
            step = [-part[:, :, 0] for part in self.layout.solve(g)]
            decrement = -_dot([part[:, :, 0] for part in g], step)
            if not decrement >= 0.0:
                raise Breakdown("the conditional mode could not be found there")
            last = definite and decrement < _DECREMENT * (1.0 + 1e-5 * abs(F))
            change = self._effects([part @ L.T for part, L in zip(step, Lambda, strict=True)])
            found = self._shortened(u, eta, step, change, F, 1e-12)
            if found is None:
                raise Breakdown("the conditional mode could not be found there")
            size, u, eta, F, f1, W = found
            last = last and size == 1.0
        else:
            raise Breakdown("the conditional mode could not be found there")
        self._u = u
        return self._hold(gamma, factors, Lambda, eta, A, H, F, logdet)

    def _shortened(
        self,
        u: list[np.ndarray],
        eta: np.ndarray,
        step: list[np.ndarray],
        change: np.ndarray,
        F: float,
        shortest: float,
    ) -> tuple[float, list[np.ndarray], np.ndarray, float, np.ndarray, np.ndarray] | None:
        """The step, halved until F does not rise: its length, then u, eta, F and the rows' derivatives there.

        `change` is what the step does to the linear predictors with random effects.
        """
        size = 1.0
        while size >= shortest:
            trial = [part + size * d for part, d in zip(u, step, strict=True)]
            at = eta.copy()
            at[self._active] += size * change
            value, f1, W = self._rows(at)
            reached = -value + 0.5 * _dot(trial, self.layout.penalty(trial))
            if reached <= F + 1e-12 * (1.0 + abs(F)):
                self.steps += 1
                return size, trial, at, reached, f1, W
            size *= 0.5
        return None

    def _hold(
        self,
        gamma: np.ndarray,
        factors: Sequence[np.ndarray],
        Lambda: list[np.ndarray],
        eta: np.ndarray,
        A: Any,
        H: Any,
        F: float,
        logdet: float,
    ) -> _State:
        """Keep the mode ``self._u``, where H has just been factored."""
        u, key = self._u, (gamma.tobytes(), *[np.asarray(part).tobytes() for part in factors])
        b = [part @ L.T for part, L in zip(u, Lambda, strict=True)]
        self._state = _State(key, Lambda, u, b, eta, A, H, F, logdet)
        return self._state

    def settle(self, gamma: np.ndarray) -> None:
        """The mode that is held is that at gamma, which differs by rounding from where it was found."""
        if self._state is not None:
            key = np.asarray(gamma, dtype=float).tobytes()
            self._state = replace(self._state, key=(key, *self._state.key[1:]))

    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """Conditional modes of the random effects."""
        state = self._mode(np.asarray(gamma, dtype=float), factors)
        u, b = self.layout.of_terms(state.u), self.layout.of_terms(state.b)
        return Modes(u, b, state.eta.copy(), 2.0 * state.F, state.logdet)

    # ------------------------------------------------------------------ parts of the inverse
    def _marginal(self, state: _State) -> Any:
        """Lambda H^{-1} Lambda' on the pattern."""
        turned = [L.T for L in state.Lambda]
        return self.layout.transform(self.layout.inverse(), turned, turned)

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """Diagonal blocks of ``Lambda H^{-1} Lambda'`` of one term, shape (m, k, k)."""
        state = self._mode(np.asarray(gamma, dtype=float), factors)
        return self.layout.level_blocks(state.Lambda, term)

    def predictor_variances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` of the conditional predictor of each row, shape (n,)."""
        if 0 not in self._active:
            return np.zeros(self.design.n)
        V = self._marginal(self._mode(np.asarray(gamma, dtype=float), factors))
        return np.ascontiguousarray(self.layout.quadratic(V)[0, 0])

    # ------------------------------------------------------------------ value and derivatives
    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2)."""
        return self._evaluate(gamma, factors, order, True)

    def newton(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Evaluation:
        """Value, gradient and a matrix for Newton's step: the Hessian, or else a model."""
        return self._evaluate(gamma, factors, 2, self.exact_hessian)

    def along(
        self,
        gamma: np.ndarray,
        factors: Sequence[np.ndarray],
        tangent: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]],
    ) -> Evaluation:
        """Value, gradient, second derivatives along a few directions only, those of twice F along all.

        Parameters
        ----------
        gamma, factors
        tangent : callable
            From the gradient, shape (P,), and the second derivatives of twice F, (P, P), to the directions T,
            (P, q), and None or a direction v that moves no factor. The Hessian is ``T'HT``, (q, q), to which
            v adds the third derivatives of twice F along T, T and v.
        """
        return self._evaluate(gamma, factors, 2, self.exact_hessian, tangent)

    def joint_mode(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], E: np.ndarray
    ) -> np.ndarray | None:
        """`mixedmodels.objective.marginal.joint.joint_mode`."""
        return joint_mode(self, np.asarray(gamma, dtype=float), factors, E)

    def penalised_hessian(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Second derivatives of twice F at the mode, without those of the determinant, shape (P, P)."""
        gamma = np.asarray(gamma, dtype=float)
        state = self._mode(gamma, factors)
        C = len(self.design.predictors)
        table = self.family.derivatives(self.design.data, list(state.eta), 2, range(C))
        if not np.isfinite(table).all():
            raise Breakdown("the derivatives of the likelihood cannot be computed there")
        score = self.layout.sums(table[1 : 1 + C][self._active])
        second = Directions(self, state, symmetrised(table, C, 2), score)
        self._keep(gamma, state, second)
        return 2.0 * second.penalised()

    def _keep(self, gamma: np.ndarray, state: _State, second: Directions) -> None:
        """Where the next mode search begins: this mode and its derivatives."""
        entries = [state.Lambda[f][i, j] for f, i, j in self.layout.entries]
        self._guess = (np.concatenate([gamma, entries]), state.u, second.du)

    def _evaluate(
        self,
        gamma: np.ndarray,
        factors: Sequence[np.ndarray],
        order: int,
        exact: bool,
        tangent: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]] | None = None,
    ) -> Evaluation:
        gamma = np.asarray(gamma, dtype=float)
        state = self._mode(gamma, factors)
        value = 2.0 * state.F + state.logdet
        if order == 0:
            return Evaluation(value)
        layout, act, Lambda = self.layout, self._active, state.Lambda
        C = len(self.design.predictors)
        table = self.family.derivatives(self.design.data, list(state.eta), 2 + order, range(C))
        if not np.isfinite(table).all():
            raise Breakdown("the derivatives of the likelihood cannot be computed there")
        f1, f2, f3 = table[1 : 1 + C], symmetrised(table, C, 2), symmetrised(table, C, 3)
        Q = layout.inverse()
        turned = [L.T for L in Lambda]
        h = layout.quadratic(layout.transform(Q, turned, turned))
        t = -h[0] * f3[0, 0] if C == 1 else -np.einsum("cdi,cdei->ei", h, f3[np.ix_(act, act)])
        pulled = [(part @ L)[:, :, None] for part, L in zip(layout.sums(t[act]), Lambda, strict=True)]
        adjoint = [part[:, :, 0] for part in layout.solve(pulled)]
        along = self._effects([part @ L.T for part, L in zip(adjoint, Lambda, strict=True)])
        s = t + (along * f2[0] if C == 1 else np.einsum("ci,cdi->di", along, f2[act]))
        K = layout.half_products(state.A, Q, Lambda)
        r = 0.5 * s - f1
        score, R = layout.sums(f1[act]), layout.sums(r[act])
        gradient = np.zeros(self.n_gamma + len(self.entries))
        for part, X, row in zip(self.design.predictors, self._X, r, strict=True):
            np.add.at(gradient, part.columns, X.T @ row)
        slope = [
            Rf.T @ u + 0.5 * zf.T @ a + Kf
            for Rf, u, zf, a, Kf in zip(R, state.u, score, adjoint, K, strict=True)
        ]
        gradient[self.n_gamma :] = [slope[f][i, j] for f, i, j in layout.entries]
        if order == 1:
            return Evaluation(value, 2.0 * gradient)
        f4 = symmetrised(table, C, 4)
        if C == 1:
            M = along * f3[0] - h[0] * f4[0, 0]
        else:
            M = np.einsum("ci,cdei->dei", along, f3[act])
            M = M - np.einsum("cdi,cdegi->egi", h, f4[np.ix_(act, act)])
        second = Directions(self, state, f2, score)
        penalised = second.penalised()
        T, v = (None, None) if tangent is None else tangent(2.0 * gradient, 2.0 * penalised)
        hessian = second.half_hessian(penalised, Q, adjoint, f3, s, M, exact, T, v)
        self._keep(gamma, state, second)
        return Evaluation(value, 2.0 * gradient, 2.0 * hessian, 2.0 * penalised)


def symmetrised(table: np.ndarray, C: int, order: int) -> np.ndarray:
    """Derivatives of one order as a symmetric array, shape (C,) * order + (n,)."""
    n = table.shape[1]
    where = place(C, order)
    if C == 1:
        return table[order].reshape((1,) * order + (n,))
    out = np.empty((C,) * order + (n,))
    for index in np.ndindex(*(C,) * order):
        exponents = tuple(index.count(c) for c in range(C))
        out[index] = table[where[exponents]]
    return out


def _absolute(W: np.ndarray) -> np.ndarray:
    """Weights with negative curvature turned round, positive definite in every row."""
    if W.shape[0] == 1:
        return np.maximum(np.abs(W), 1e-12)
    values, vectors = np.linalg.eigh(np.moveaxis(W, 2, 0))
    fixed = (vectors * np.maximum(np.abs(values), 1e-12)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return np.ascontiguousarray(np.moveaxis(fixed, 0, 2))


def _dot(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))
