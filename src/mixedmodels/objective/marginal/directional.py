r"""Laplace's approximation with second derivatives along a few directions: factors with very many entries.

A spatial term with 200 sites has one covariance matrix of 20 100 entries and two parameters. The gradient
with respect to all entries is one matrix; the Hessian is wanted along the parameters only. In the notation of
`mixedmodels.objective.marginal.dense`, with :math:`G = EH^{-1}`,
:math:`\tau_c = -\tfrac12\sum_{de} (E H^{-1} E')_{de} f^{(3)}_{cde}`, :math:`w = H^{-1}E'\tau` and
:math:`\rho = -f' + \tau + f''(Ew)`,

.. math:: L_a = \langle \rho, N_a \rangle + \langle \dot E_a, f'w' - f''G \rangle,
          \qquad N_a = \dot E_a u \text{ for an entry of a factor, } X_a \text{ for a coefficient.}
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.errors import OptionError
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.base import Evaluation
from mixedmodels.objective.marginal.dense import DenseLaplace

__all__ = ["DirectionalLaplace"]

LARGEST = 2**31  # bytes of the largest array


class DirectionalLaplace(DenseLaplace):
    """Dense Laplace approximation that differentiates along given directions.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family

    Raises
    ------
    OptionError
        The arrays would be too large.
    """

    name = "directional"
    reason = "covariance matrices with many entries and few parameters"

    def __init__(self, design: GeneralisedDesign, family: Family) -> None:
        parameters = len(design.gamma_names) + sum(term.covariance.n_theta for term in design.terms)
        size = 8 * parameters * len(design.predictors) * design.n * design.q
        if size > LARGEST or 8 * design.q**2 > LARGEST // 8:
            term = max(design.terms, key=lambda one: one.k)
            raise OptionError(
                f"the term ({term.covariance.name} | {term.group}) has {term.k} columns and the model "
                f"{design.q} random effects in {design.n} rows: its integral needs dense arrays of "
                f"{size / 2**30:.1f} GB; use fewer distinct times or positions (a coarser grid), or fewer "
                "levels"
            )
        super().__init__(design, family)
        self._along = np.zeros((0, 0))

    def describe(self) -> str:
        """One line: which method on which sizes."""
        return f"dense Laplace along the parameters: n = {self.design.n}, q = {self.design.q}"

    def evaluate_along(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], J: np.ndarray, order: int
    ) -> Evaluation:
        """Value, gradient in (gamma, all entries), shape (P,), and the Hessian ``J'HJ``.

        Parameters
        ----------
        gamma, factors
        J : ndarray, shape (P, r)
            Directions.
        order : int
        """
        gamma = np.asarray(gamma, dtype=float)
        self._along = J if order > 1 else np.zeros((len(J), 0))
        found = super().evaluate(gamma, factors, min(order, 2) if order > 1 else 0)
        if order == 0:
            return found
        return Evaluation(found.value, self._gradient(gamma, factors), found.hessian, found.penalised)

    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2) in all entries."""
        P = self.n_gamma + len(self.entries)
        return self.evaluate_along(gamma, factors, np.eye(P) if order > 1 else np.zeros((P, 0)), order)

    def _directions(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of eta with u held and of E along the columns of J."""
        J = self._along
        C, n, q = self._Z.shape
        N, dE = np.zeros((J.shape[1], C, n)), np.zeros((J.shape[1], C, n, q))
        table = np.array(self.entries, dtype=np.intp).reshape(-1, 3)
        for a in range(J.shape[1]):
            N[a] = self._X @ J[: self.n_gamma, a]
            entries = J[self.n_gamma :, a]
            for b, (term, where) in enumerate(zip(self.design.terms, self._slices, strict=True)):
                own = (table[:, 0] == b) & (entries != 0.0)
                if not own.any():
                    continue
                D = np.zeros((term.k, term.k))
                D[table[own, 1], table[own, 2]] = entries[own]
                Z = self._Z[:, :, where].reshape(C, n, term.m, term.k)
                dE[a][:, :, where] = (Z @ D).reshape(C, n, -1)
            N[a] += dE[a] @ u
        return N, dE

    def _gradient(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """Gradient in gamma and all entries, by the adjoint formula."""
        u, eta, E, H, _ = self._mode(gamma, factors)
        C, n = eta.shape
        everything = tuple(range(C))
        table = self._tables(eta, 3, everything)
        f1, f2, f3 = _dense_tables(table, C)
        inverse = np.linalg.inv(H)
        G = E @ inverse  # (C, n, q)
        h = np.einsum("cij,dij->cdi", G, E)
        tau = -0.5 * np.einsum("dei,cdei->ci", h, f3)
        w = inverse @ np.einsum("cij,ci->j", E, tau)
        rho = -f1 + tau + np.einsum("cdi,di->ci", f2, E @ w)
        out = np.empty(self.n_gamma + len(self.entries))
        out[: self.n_gamma] = np.einsum("ci,cij->j", rho, self._X)
        at = np.array(self.entries, dtype=np.intp).reshape(-1, 3)
        f2G = np.einsum("cdi,dij->cij", f2, G)
        for b, (term, where) in enumerate(zip(self.design.terms, self._slices, strict=True)):
            own = at[:, 0] == b
            R = rho[:, :, None] * u[where] + f1[:, :, None] * w[where] - f2G[:, :, where]
            Z = self._Z[:, :, where].reshape(C, n, term.m, term.k)
            D = np.einsum("cnmi,cnmj->ij", Z, R.reshape(C, n, term.m, term.k), optimize=True)
            out[self.n_gamma :][own] = D[at[own, 1], at[own, 2]]
        return 2.0 * out


def _dense_tables(table: np.ndarray, C: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First to third derivatives of the log-density as (C, n), (C, C, n) and (C, C, C, n)."""
    from mixedmodels.family.jet import place

    where = place(C, 3)
    unit = np.eye(C, dtype=int)

    def f(*which: int) -> np.ndarray:
        return table[where[tuple(sum((unit[c] for c in which), np.zeros(C, dtype=int)))]]

    every = range(C)
    f1 = np.array([f(c) for c in every])
    f2 = np.array([[f(c, d) for d in every] for c in every])
    return f1, f2, np.array([[[f(c, d, e) for e in every] for d in every] for c in every])
