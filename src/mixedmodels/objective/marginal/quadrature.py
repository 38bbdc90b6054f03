r"""Adaptive Gauss-Hermite quadrature over the random effects of one grouping factor.

.. math:: d = -2\sum_g \log I_g, \qquad
          I_g = \int \prod_{i\in g} f(y_i \mid \eta_i)\,\phi(u)\,du \approx
          |C_g| \sum_j e^{\log w_j + z_j'z_j/2 - F_g(\hat u_g + C_g z_j)}

with all constants, so that values of different numbers of nodes and of Laplace's approximation (one node)
are comparable. The gradient and the Hessian are those of this sum, exactly
(`mixedmodels.objective.marginal.quadrature_integrals`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.base import Evaluation, Modes, factor_entries
from mixedmodels.objective.marginal.hermite import hermite_grid
from mixedmodels.objective.marginal.quadrature_integrals import curvature, group_modes, integrals
from mixedmodels.objective.marginal.quadrature_setup import blocks_of, levels_of, points_of, stacked

__all__ = ["Quadrature"]


class Quadrature:
    """Adaptive Gauss-Hermite quadrature for terms on one grouping factor.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    nodes : int
        Points per random effect.

    Raises
    ------
    OptionError
        More than one grouping factor, known precisions between levels, or too many points.
    """

    name = "quadrature"
    reason = "nagq > 1 and one grouping factor"

    def __init__(self, design: GeneralisedDesign, family: Family, nodes: int) -> None:
        self.design, self.family, self.nodes = design, family, nodes
        self.entries = factor_entries(design)
        self.n_gamma = len(design.gamma_names)
        (self.level,) = levels_of(design, nodes)
        self.rule = hermite_grid(nodes, self.level.k)
        self._blocks = blocks_of(design, (self.level,), points_of(nodes, self.level))
        self._u = np.zeros((self.level.m, self.level.k))
        offset = dict(zip(self.level.terms, self.level.offsets, strict=True))
        self._entries = tuple(
            (self.n_gamma + at, offset[b] + i, offset[b] + j) for at, (b, i, j) in enumerate(self.entries)
        )

    def describe(self) -> str:
        """One line: which method on which sizes."""
        k, points = self.level.k, self.rule[0].shape[0]
        return (
            f"adaptive Gauss-Hermite quadrature: {self.nodes} nodes per effect, {points} points for the {k} "
            f"effect{'s' if k > 1 else ''} of each of the {self.level.m} levels of {self.level.group!r}"
        )

    # ------------------------------------------------------------------ value and derivatives
    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2)."""
        gamma = np.asarray(gamma, dtype=float)
        Lambda = stacked(factors, self.level)
        P, p = self.n_gamma + len(self._entries), self.n_gamma
        value, gradient = 0.0, np.zeros(P)
        hessian, penalised = np.zeros((P, P)), np.zeros((P, P))
        modes = self._u.copy()
        for block in self._blocks:
            rows, own = block.rows[0], block.members[0]
            directions = None
            if order == 2:
                moves = np.zeros((*block.offset.shape, P))
                moves[:, :, :p] = block.X
                directions = list(moves)
            found = integrals(
                rows,
                self.family,
                block.X @ gamma + block.offset,
                Lambda,
                self.rule,
                modes[own],
                order,
                None,
                directions,
                self._entries,
            )
            modes[own] = found.u
            value -= 2.0 * float(found.log.sum())
            if order:
                assert found.rho is not None and found.entries is not None
                gradient[:p] += np.einsum("ci,cia->a", found.rho, block.X)
                by_entry = found.entries.sum(axis=0)
                for at, r, s in self._entries:
                    gradient[at] += by_entry[r, s]
            if order == 2:
                assert found.hessian is not None and found.penalised is not None
                hessian += found.hessian
                penalised += found.penalised
        self._u = modes
        if order == 0:
            return Evaluation(value)
        if order == 1:
            return Evaluation(value, -2.0 * gradient)
        return Evaluation(value, -2.0 * gradient, -2.0 * hessian, 2.0 * penalised)

    def newton(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Evaluation:
        """Value, gradient and exact Hessian."""
        return self.evaluate(gamma, factors, 2)

    # ------------------------------------------------------------------ the random effects
    def _curvatures(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Modes (m, k), F of each level and its curvature."""
        gamma = np.asarray(gamma, dtype=float)
        Lambda = stacked(factors, self.level)
        m, k = self.level.m, self.level.k
        u, F, H = np.zeros((m, k)), np.zeros(m), np.tile(np.eye(k), (m, 1, 1))
        for block in self._blocks:
            rows, own = block.rows[0], block.members[0]
            o = block.X @ gamma + block.offset
            u[own], F[own], H[own] = group_modes(rows, self.family, o, rows.Z @ Lambda, self._u[own])
        self._u = u
        return u, F, H

    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """Conditional modes of the random effects."""
        gamma = np.asarray(gamma, dtype=float)
        u, F, H = self._curvatures(gamma, factors)
        Lambda = stacked(factors, self.level)
        eta = np.empty((len(self.design.predictors), self.design.n))
        for block in self._blocks:
            rows = block.rows[0]
            own = block.X @ gamma + block.offset
            shift = np.einsum("aik,ik->ai", rows.Z @ Lambda, u[block.members[0]][rows.code])
            own[list(rows.active)] += shift
            eta[:, block.index] = own
        return Modes(
            self._split(u),
            self._split(u @ Lambda.T),
            eta,
            2.0 * float(F.sum()),
            -2.0 * float(curvature(H).logdet.sum()),
        )

    def _split(self, u: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(
            u[:, at : at + self.design.terms[b].k]
            for b, at in zip(self.level.terms, self.level.offsets, strict=True)
        )

    def _columns(self, term: int) -> slice:
        at = self.level.offsets[self.level.terms.index(term)]
        return slice(at, at + self.design.terms[term].k)

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """Diagonal blocks of ``Lambda H^{-1} Lambda'`` of one term, shape (m, k, k)."""
        own = self._columns(term)
        Lambda = stacked(factors, self.level)
        V = Lambda @ np.linalg.inv(self._curvatures(gamma, factors)[2]) @ Lambda.T
        return V[:, own, own]

    def predictor_variances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` of the conditional predictor of each row, shape (n,)."""
        out = np.zeros(self.design.n)
        inverse = np.linalg.inv(self._curvatures(gamma, factors)[2])
        Lambda = stacked(factors, self.level)
        for block in self._blocks:
            rows = block.rows[0]
            if 0 in rows.active:
                E = rows.Z[rows.active.index(0)] @ Lambda
                V = inverse[block.members[0]][rows.code]
                out[block.index] = np.einsum("ik,ikl,il->i", E, V, E)
        return out

    def conditional_moments(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means (m, k) and covariance matrices (m, k, k) of b of one term, by the quadrature.

        Unlike mode and curvature these are moments of the conditional distribution given the parameters.
        """
        gamma = np.asarray(gamma, dtype=float)
        Lambda, own = stacked(factors, self.level), self._columns(term)
        k = self.level.k
        means = np.zeros((self.level.m, k))
        covariances = np.tile(np.eye(k), (self.level.m, 1, 1))
        for block in self._blocks:
            o = block.X @ gamma + block.offset
            members = block.members[0]
            found = integrals(
                block.rows[0], self.family, o, Lambda, self.rule, self._u[members], moments=True
            )
            assert found.mean is not None and found.covariance is not None
            means[members], covariances[members] = found.mean, found.covariance
        return (means @ Lambda.T)[:, own], (Lambda @ covariances @ Lambda.T)[:, own, own]
