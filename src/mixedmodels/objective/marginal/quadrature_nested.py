r"""Adaptive Gauss-Hermite quadrature over the random effects of two nested grouping factors, ``(1 | a/b)``.

The integral of a level of the outer factor is one over its own effects of the product of the integrals of
the levels within it; both are adaptive (`mixedmodels.objective.marginal.quadrature_two_levels`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.base import Evaluation, Modes, factor_entries
from mixedmodels.objective.marginal.hermite import hermite_grid
from mixedmodels.objective.marginal.quadrature_integrals import curvature
from mixedmodels.objective.marginal.quadrature_joint import Joint, Pair, joint_modes
from mixedmodels.objective.marginal.quadrature_setup import Block, blocks_of, levels_of, stacked
from mixedmodels.objective.marginal.quadrature_two_levels import TwoLevels, two_levels

__all__ = ["NestedQuadrature"]


class NestedQuadrature:
    """Adaptive Gauss-Hermite quadrature for terms on two nested grouping factors.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    nodes : int
        Points per random effect.

    Raises
    ------
    OptionError
        Crossed factors, known precisions between levels, or too many points.
    """

    name = "nested quadrature"
    reason = "nagq > 1 and two nested grouping factors"

    def __init__(self, design: GeneralisedDesign, family: Family, nodes: int) -> None:
        self.design, self.family, self.nodes = design, family, nodes
        self.entries = factor_entries(design)
        self.n_gamma = len(design.gamma_names)
        self.levels = levels_of(design, nodes)
        outer, inner = self.levels
        self.rules = (hermite_grid(nodes, outer.k), hermite_grid(nodes, inner.k))
        points = self.rules[0][0].shape[0] * self.rules[1][0].shape[0]
        self._blocks = blocks_of(design, self.levels, points)
        self._pairs = tuple(_pair(block) for block in self._blocks)
        self._u = tuple(np.zeros((level.m, level.k)) for level in self.levels)
        found: tuple[list[tuple[int, int, int]], ...] = ([], [])
        for at, (b, i, j) in enumerate(self.entries, self.n_gamma):
            which = 0 if b in outer.terms else 1
            level = self.levels[which]
            first = level.offsets[level.terms.index(b)]
            found[which].append((at, first + i, first + j))
        self._entries = (tuple(found[0]), tuple(found[1]))

    def describe(self) -> str:
        """One line: which method on which sizes."""
        outer, inner = self.levels
        return (
            f"adaptive Gauss-Hermite quadrature: {self.nodes} nodes per effect, {outer.m} levels of "
            f"{outer.group!r} with {self.rules[0][0].shape[0]} points each, {inner.m} levels of "
            f"{inner.group!r} within them with {self.rules[1][0].shape[0]} points each"
        )

    # ------------------------------------------------------------------ value and derivatives
    def _factors(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return stacked(factors, self.levels[0]), stacked(factors, self.levels[1])

    def _start(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        return self._u[0][block.members[0]], self._u[1][block.members[1]]

    def _block(
        self,
        at: int,
        gamma: np.ndarray,
        factors: Sequence[np.ndarray],
        order: int = 0,
        moments: bool = False,
    ) -> TwoLevels:
        block = self._blocks[at]
        return two_levels(
            self._pairs[at],
            self.family,
            block.X @ gamma + block.offset,
            block.X,
            self._factors(factors),
            self.rules,
            self._start(block),
            self._entries,
            order,
            moments,
        )

    def evaluate(self, gamma: np.ndarray, factors: Sequence[np.ndarray], order: int = 0) -> Evaluation:
        """Value (order 0), gradient (1) and exact Hessian (2)."""
        gamma = np.asarray(gamma, dtype=float)
        P = self.n_gamma + len(self.entries)
        value, gradient = 0.0, np.zeros(P)
        hessian, penalised = np.zeros((P, P)), np.zeros((P, P))
        modes = tuple(part.copy() for part in self._u)
        for at, block in enumerate(self._blocks):
            found = self._block(at, gamma, factors, order)
            modes[0][block.members[0]] = found.joint.v
            modes[1][block.members[1]] = found.joint.u
            value -= 2.0 * float(found.log.sum())
            if found.gradient is not None:
                gradient -= 2.0 * found.gradient
            if found.hessian is not None and found.penalised is not None:
                hessian -= 2.0 * found.hessian
                penalised += 2.0 * found.penalised
        self._u = modes
        if order == 0:
            return Evaluation(value)
        if order == 1:
            return Evaluation(value, gradient)
        return Evaluation(value, gradient, hessian, penalised)

    def newton(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Evaluation:
        """Value, gradient and exact Hessian."""
        return self.evaluate(gamma, factors, 2)

    # ------------------------------------------------------------------ the random effects
    def _joint(self, at: int, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Joint:
        block, pair = self._blocks[at], self._pairs[at]
        outer, inner = self._factors(factors)
        E = (pair.outer.Z @ outer, pair.inner.Z @ inner)
        o = block.X @ gamma + block.offset
        return joint_modes(pair, self.family, o, E, *self._start(block))

    def modes(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> Modes:
        """Conditional modes of the random effects."""
        gamma = np.asarray(gamma, dtype=float)
        Lambda = self._factors(factors)
        eta = np.empty((len(self.design.predictors), self.design.n))
        u = tuple(np.zeros((level.m, level.k)) for level in self.levels)
        penalised, logdet = 0.0, 0.0
        for at, block in enumerate(self._blocks):
            joint = self._joint(at, gamma, factors)
            own = block.X @ gamma + block.offset
            for which, effects in enumerate((joint.v, joint.u)):
                rows = block.rows[which]
                own[list(rows.active)] += np.einsum("aik,ik->ai", rows.Z @ Lambda[which], effects[rows.code])
                u[which][block.members[which]] = effects
            eta[:, block.index] = own
            penalised += 2.0 * float(joint.F.sum())
            logdet -= 2.0 * float(curvature(joint.S).logdet.sum() + curvature(joint.Huu).logdet.sum())
        self._u = u
        b = tuple(part @ factor.T for part, factor in zip(u, Lambda, strict=True))
        return Modes(self._split(u), self._split(b), eta, penalised, logdet)

    def _place(self, term: int) -> tuple[int, slice]:
        which = 0 if term in self.levels[0].terms else 1
        level = self.levels[which]
        at = level.offsets[level.terms.index(term)]
        return which, slice(at, at + self.design.terms[term].k)

    def _split(self, parts: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        places = [self._place(b) for b in range(len(self.design.terms))]
        return tuple(parts[which][:, own] for which, own in places)

    def conditional_covariance(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> np.ndarray:
        """Diagonal blocks of ``Lambda H^{-1} Lambda'`` of one term, shape (m, k, k)."""
        gamma = np.asarray(gamma, dtype=float)
        which, own = self._place(term)
        level, Lambda = self.levels[which], self._factors(factors)[which]
        V = np.tile(np.eye(level.k), (level.m, 1, 1))
        for at, block in enumerate(self._blocks):
            joint = self._joint(at, gamma, factors)
            V[block.members[which]] = _variances(joint, self._pairs[at])[which]
        return (Lambda @ V @ Lambda.T)[:, own, own]

    def predictor_variances(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` of the conditional predictor of each row, shape (n,)."""
        gamma = np.asarray(gamma, dtype=float)
        Lambda, out = self._factors(factors), np.zeros(self.design.n)
        for at, block in enumerate(self._blocks):
            pair = self._pairs[at]
            if 0 not in pair.outer.active:
                continue
            where = pair.outer.active.index(0)
            joint = self._joint(at, gamma, factors)
            inner = pair.inner.Z[where] @ Lambda[1]
            reduced = pair.outer.Z[where] @ Lambda[0]
            reduced = reduced - np.einsum("irs,ir->is", joint.B[pair.inner.code], inner)
            within = np.linalg.inv(joint.Huu)[pair.inner.code]
            between = np.linalg.inv(joint.S)[pair.outer.code]
            out[block.index] = np.einsum("ik,ikl,il->i", inner, within, inner)
            out[block.index] += np.einsum("ik,ikl,il->i", reduced, between, reduced)
        return out

    def conditional_moments(
        self, gamma: np.ndarray, factors: Sequence[np.ndarray], term: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means (m, k) and covariance matrices (m, k, k) of b of one term, by the quadrature."""
        gamma = np.asarray(gamma, dtype=float)
        which, own = self._place(term)
        level, Lambda = self.levels[which], self._factors(factors)[which]
        means, covariances = np.zeros((level.m, level.k)), np.tile(np.eye(level.k), (level.m, 1, 1))
        for at, block in enumerate(self._blocks):
            found = self._block(at, gamma, factors, 0, True).moments
            assert found is not None
            means[block.members[which]], covariances[block.members[which]] = found[which]
        return (means @ Lambda.T)[:, own], (Lambda @ covariances @ Lambda.T)[:, own, own]


def _pair(block: Block) -> Pair:
    outer, inner = block.rows
    heads = np.flatnonzero(np.r_[True, block.parent[1:] != block.parent[:-1]])
    return Pair(outer, inner, block.parent, heads)


def _variances(joint: Joint, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal blocks of the inverse of the joint H."""
    between = np.linalg.inv(joint.S)
    spread = joint.B @ between[pair.parent] @ np.swapaxes(joint.B, 1, 2)
    return between, np.linalg.inv(joint.Huu) + spread
