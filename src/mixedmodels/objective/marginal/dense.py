r"""Laplace's approximation with dense matrices, equation by equation: the oracle of the other engines.

With :math:`F(u;\psi) = -\sum_i \ell_i + \tfrac12 u'Pu`, its minimum :math:`\hat u(\psi)` and
:math:`H = F_{uu}`, half of the criterion is :math:`L = F(\hat u;\psi) + \tfrac12 \log|H| - \tfrac12\log|P|`.
A dot and an index a mean the derivative along parameter a with the mode following,
:math:`\hat u_a = -H^{-1}F_{ua}`; N_a is the derivative of eta with u held, E = Z Lambda:

.. math::
   \dot\eta_a &= N_a + E\hat u_a, \qquad
   L_a = F_a + \tfrac12 \mathrm{tr}(H^{-1}\dot H_a) \\
   L_{ab} &= F_{ab} + F_{au}\hat u_b + \tfrac12\mathrm{tr}(H^{-1}\ddot H_{ab})
             - \tfrac12\mathrm{tr}(H^{-1}\dot H_a H^{-1}\dot H_b) - \tfrac12 a'R_{ab},
             \quad a = H^{-1}t,\ t_j = \mathrm{tr}(H^{-1}\partial H/\partial u_j)

where the second derivative of H holds :math:`\hat u_{ab} = -H^{-1}R_{ab}` at zero; the last term puts it back
(an adjoint, so that no second derivative of the mode is ever solved for).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family
from mixedmodels.family.jet import place
from mixedmodels.objective.marginal.base import Evaluation, Modes, factor_entries
from mixedmodels.solver.base import Breakdown

__all__ = ["DenseLaplace"]


class DenseLaplace:
    """Laplace's approximation in plain NumPy; every array is as large as the algebra says.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    """

    name = "dense"
    reason = "asked for"

    def __init__(self, design: GeneralisedDesign, family: Family) -> None:
        self.design = design
        self.family = family
        self.entries = factor_entries(design)
        n, q, C = design.n, design.q, len(design.predictors)
        self.n_gamma = len(design.gamma_names)
        self._X = np.zeros((C, n, self.n_gamma))
        for c, predictor in enumerate(design.predictors):
            X = np.ones((n, 1)) if predictor.X is None else predictor.X
            self._X[c][:, predictor.columns] = X
        self._offset = np.zeros((C, n))
        for c, predictor in enumerate(design.predictors):
            if predictor.offset is not None:
                self._offset[c] = predictor.offset
        self._slices, self._Z, at = [], np.zeros((C, n, q)), 0
        self._P = np.eye(q)
        self._logdet_P = 0.0
        for term, c in zip(design.terms, design.term_predictor, strict=True):
            stop = at + term.m * term.k
            self._Z[c][:, at:stop] = term.matrix(n).toarray()
            self._slices.append(slice(at, stop))
            if term.precision is not None:
                self._P[at:stop, at:stop] = np.kron(term.precision.matrix.toarray(), np.eye(term.k))
                self._logdet_P -= term.k * term.precision.logdet_covariance
            at = stop
        self._u = np.zeros(q)

    def describe(self) -> str:
        """One line: which method on which sizes."""
        return f"dense Laplace reference: n = {self.design.n}, q = {self.design.q}"

    # ------------------------------------------------------------------ the mode
    def _Lambda(self, factors: Sequence[np.ndarray]) -> np.ndarray:
        out = np.zeros((self.design.q, self.design.q))
        for term, where, factor in zip(self.design.terms, self._slices, factors, strict=True):
            out[where, where] = np.kron(np.eye(term.m), factor)
        return out

    def _tables(self, eta: np.ndarray, order: int, active: Sequence[int]) -> np.ndarray:
        return self.family.derivatives(self.design.data, list(eta), order, active)

    def _mode(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """u, eta, E = Z Lambda, H and F at the mode."""
        E = self._Z @ self._Lambda(factors)
        fixed = self._X @ gamma + self._offset
        active = self.design.active
        A = len(active)
        where = place(A, 2)
        unit = np.eye(A, dtype=int)
        EA = E[list(active)]

        def at(u: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            eta = fixed + E @ u
            table = self._tables(eta, 2, active)
            F = -table[0].sum() + 0.5 * u @ self._P @ u
            if not np.isfinite(table).all():
                return math.inf, u, self._P
            g = self._P @ u - sum(EA[c].T @ table[where[tuple(unit[c])]] for c in range(A))
            H = self._P.copy()
            for c in range(A):
                for d in range(A):
                    w = -table[where[tuple(unit[c] + unit[d])]]
                    H += EA[c].T @ (w[:, None] * EA[d])
            return float(F), g, H

        u = self._u
        if not np.isfinite(at(u)[0]):
            u = np.zeros_like(u)
        F, g, H = at(u)
        if not np.isfinite(F):
            raise Breakdown("the likelihood cannot be computed there: a mean is out of its range")
        for _ in range(200):
            step = _newton_step(H, g)
            if -float(g @ step) < 1e-14 * (1.0 + abs(F)):  # Newton's last step doubles the digits
                u = u + step
                F, g, H = at(u)
                break
            size = 1.0
            while True:
                trial = at(u + size * step)
                if np.isfinite(trial[0]) and trial[0] <= F + 1e-13 * (1.0 + abs(F)):
                    break
                size *= 0.5
                if size < 1e-12:
                    break
            if size < 1e-12:
                raise Breakdown("the conditional mode could not be found there")
            u = u + size * step
            F, g, H = trial
        if not _is_positive(H):
            raise Breakdown("the conditional density has no proper mode there")
        self._u = u
        return u, fixed + E @ u, E, H, F

    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """Conditional modes of the random effects."""
        u, eta, _, H, F = self._mode(gamma, factors)
        shaped = [
            u[where].reshape(term.m, term.k)
            for term, where in zip(self.design.terms, self._slices, strict=True)
        ]
        b = [part @ factor.T for part, factor in zip(shaped, factors, strict=True)]
        logdet = float(np.linalg.slogdet(self._determinant(self._Z @ self._Lambda(factors), eta, H))[1])
        logdet -= self._logdet_P
        return Modes(tuple(shaped), tuple(b), eta, 2.0 * F, logdet)

    # ------------------------------------------------------------------ value and derivatives
    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2)."""
        gamma = np.asarray(gamma, dtype=float)
        u, eta, E, H, F = self._mode(gamma, factors)
        D = self._determinant(E, eta, H)
        value = 2.0 * F + float(np.linalg.slogdet(D)[1]) - self._logdet_P
        if order == 0:
            return Evaluation(value)
        C = len(self.design.predictors)
        everything = tuple(range(C))
        table = self._tables(eta, 2 + order, everything)
        where = place(C, 2 + order)
        unit = np.eye(C, dtype=int)

        def f(*which: int) -> np.ndarray:
            return table[where[tuple(sum((unit[c] for c in which), np.zeros(C, dtype=int)))]]

        f1 = np.array([f(c) for c in everything])
        f2 = np.array([[f(c, d) for d in everything] for c in everything])
        f3 = np.array([[[f(c, d, e) for e in everything] for d in everything] for c in everything])
        N, dE = self._directions(u)  # (P, C, n), (P, C, n, q)
        P = len(N)
        e2, e3 = self._curvature(eta, f2, f3)
        solver = np.linalg.inv(H)
        inverse = solver if D is H else np.linalg.inv(D)
        h = np.einsum("cij,jk,dik->cdi", E, inverse, E, optimize=True)
        Fu = -(
            np.einsum("acij,ci->aj", dE, f1, optimize=True)
            + np.einsum("cij,cdi,adi->aj", E, f2, N, optimize=True)
        )
        du = -Fu @ solver
        eta1 = N + np.einsum("cij,aj->aci", E, du)
        e2dot = np.einsum("cdei,aei->acdi", e3, eta1)
        Hdot = np.empty((P, *H.shape))
        for a in range(P):
            half = np.einsum("cij,cdi,dik->jk", dE[a], -e2, E, optimize=True)
            Hdot[a] = half + half.T + np.einsum("cij,cdi,dik->jk", E, -e2dot[a], E, optimize=True)
        gradient = -np.einsum("ci,aci->a", f1, N) + 0.5 * np.einsum("jk,akj->a", inverse, Hdot)
        if order == 1:
            return Evaluation(value, 2.0 * gradient)
        f4 = np.array(
            [
                [[[f(c, d, e, g) for g in everything] for e in everything] for d in everything]
                for c in everything
            ]
        )
        e4 = self._fourth(eta, f4)
        t = -np.einsum("cdi,cdei,eij->j", h, e3, E, optimize=True)
        adjoint = solver @ t
        penalised = -np.einsum("cdi,aci,bdi->ab", f2, N, N, optimize=True) + Fu @ du.T
        hessian = penalised.copy()
        scaled = np.array([inverse @ part for part in Hdot])
        hessian -= 0.5 * np.einsum("ajk,bkj->ab", scaled, scaled)
        f1dot = np.einsum("cdi,adi->aci", f2, eta1)
        for a in range(P):
            for b in range(a + 1):
                eta2 = dE[a] @ du[b] + dE[b] @ du[a]
                w2 = np.einsum("cdegi,ei,gi->cdi", e4, eta1[a], eta1[b], optimize=True)
                w2 += np.einsum("cdei,ei->cdi", e3, eta2)
                H2 = np.einsum("cij,cdi,dik->jk", E, -w2, E, optimize=True)
                for x, y in ((a, b), (b, a)):
                    half = np.einsum("cij,cdi,dik->jk", dE[x], -e2dot[y], E, optimize=True)
                    half -= 0.5 * np.einsum("cij,cdi,dik->jk", dE[x], e2, dE[y], optimize=True)
                    H2 += half + half.T
                R = -(
                    np.einsum("cij,ci->j", dE[a], f1dot[b])
                    + np.einsum("cij,ci->j", dE[b], f1dot[a])
                    + np.einsum(
                        "cij,ci->j",
                        E,
                        np.einsum("cdei,di,ei->ci", f3, eta1[a], eta1[b], optimize=True)
                        + np.einsum("cdi,di->ci", f2, eta2),
                    )
                )
                extra = 0.5 * float(np.sum(inverse * H2)) - 0.5 * float(adjoint @ R)
                hessian[a, b] += extra
                if a != b:
                    hessian[b, a] += extra
        return Evaluation(value, 2.0 * gradient, 2.0 * hessian, 2.0 * penalised)

    # ------------------------------------------------------------------ what the determinant holds
    def _determinant(self, E: np.ndarray, eta: np.ndarray, H: np.ndarray) -> np.ndarray:
        """The matrix whose determinant counts: H."""
        return H

    def _curvature(self, eta: np.ndarray, f2: np.ndarray, f3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Minus its weights and their first derivatives."""
        return f2, f3

    def _fourth(self, eta: np.ndarray, f4: np.ndarray) -> np.ndarray:
        """Minus the second derivatives of its weights."""
        return f4

    def _directions(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of eta with u held, (P, C, n), and of E, (P, C, n, q)."""
        C, n, q = self._Z.shape
        P = self.n_gamma + len(self.entries)
        N, dE = np.zeros((P, C, n)), np.zeros((P, C, n, q))
        N[: self.n_gamma] = np.moveaxis(self._X, 2, 0)
        for at, (b, i, j) in enumerate(self.entries, self.n_gamma):
            term, where = self.design.terms[b], self._slices[b]
            E_ij = np.zeros((term.k, term.k))
            E_ij[i, j] = 1.0
            dE[at][:, :, where] = self._Z[:, :, where] @ np.kron(np.eye(term.m), E_ij)
            N[at] = dE[at] @ u
        return N, dE

    def newton(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Evaluation:
        """Value, gradient and exact Hessian."""
        return self.evaluate(gamma, factors, 2)

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """Diagonal blocks of ``Lambda H^{-1} Lambda'`` of one term, shape (m, k, k)."""
        _, _, _, H, _ = self._mode(np.asarray(gamma, dtype=float), factors)
        Lambda = self._Lambda(factors)
        where, own = self._slices[term], self.design.terms[term]
        V = (Lambda @ np.linalg.inv(H) @ Lambda.T)[where, where].reshape(own.m, own.k, own.m, own.k)
        return np.array([V[level, :, level, :] for level in range(own.m)])

    def predictor_variances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` of the conditional predictor of each row, shape (n,)."""
        _, _, E, H, _ = self._mode(np.asarray(gamma, dtype=float), factors)
        return np.einsum("ij,jk,ik->i", E[0], np.linalg.inv(H), E[0], optimize=True)


def _newton_step(H: np.ndarray, g: np.ndarray) -> np.ndarray:
    """``-H^{-1} g``, with |H| where H is not positive definite."""
    try:
        np.linalg.cholesky(H)
        return -np.linalg.solve(H, g)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(H)
        return -vectors @ ((vectors.T @ g) / np.maximum(np.abs(values), 1e-6))


def _is_positive(H: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(H)
    except np.linalg.LinAlgError:
        return False
    return True
