r"""Joint modes of the effects of two nested levels and the curvature of the outer ones.

With effects :math:`v \in R^{k_1}` of an outer group and :math:`u_h \in R^{k_2}` of its inner groups

.. math:: F(v, u) = -\sum_i \ell_i + \tfrac12 v'v + \tfrac12\sum_h u_h'u_h, \qquad
          B_h = H_{uu}^{-1}H_{uv}, \quad S = H_{vv} - \sum_h H_{vu}B_h .

S is the curvature of F after the inner effects have been minimised out; log|H| = log|S| + sum log|H_uu|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.quadrature_rows import Rows, find_modes, node_table, picker
from mixedmodels.solver.base import Breakdown

__all__ = ["Joint", "Pair", "joint_modes"]


@dataclass(slots=True, eq=False)
class Pair:
    """Rows of some outer groups as outer and as inner groups.

    Attributes
    ----------
    outer, inner : Rows
    parent : ndarray, shape (m2,)
        Outer group of each inner group, ascending.
    heads : ndarray, shape (m1,)
        First inner group of each outer group.
    """

    outer: Rows
    inner: Rows
    parent: np.ndarray
    heads: np.ndarray


@dataclass(slots=True, eq=False)
class Joint:
    """Joint modes and curvatures.

    Attributes
    ----------
    v : ndarray, shape (m1, k1)
    u : ndarray, shape (m2, k2)
    F : ndarray, shape (m1,)
    S : ndarray, shape (m1, k1, k1)
    Huu : ndarray, shape (m2, k2, k2)
    B : ndarray, shape (m2, k2, k1)
    """

    v: np.ndarray
    u: np.ndarray
    F: np.ndarray
    S: np.ndarray
    Huu: np.ndarray
    B: np.ndarray

    def solve(self, pair: Pair, rv: np.ndarray, ru: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``H^{-1} (rv, ru)`` for right-hand sides (m1, k1, R) and (m2, k2, R)."""
        inner = np.linalg.solve(self.Huu, ru)
        reduced = rv - np.add.reduceat(np.swapaxes(self.B, 1, 2) @ ru, pair.heads)
        v = np.linalg.solve(self.S, reduced)
        return v, inner - self.B @ v[pair.parent]


def _positive(H: np.ndarray) -> np.ndarray:
    try:
        np.linalg.cholesky(H)
        return H
    except np.linalg.LinAlgError:
        values, V = np.linalg.eigh(H)
        return np.asarray((V * np.maximum(np.abs(values), 1e-6)[:, None, :]) @ np.swapaxes(V, 1, 2))


def joint_modes(
    pair: Pair, family: Family, o: np.ndarray, E: tuple[np.ndarray, np.ndarray], v: np.ndarray, u: np.ndarray
) -> Joint:
    """Joint modes by Newton's method, the inner effects eliminated group by group.

    Raises
    ------
    Breakdown
        The likelihood does not exist there or has no proper mode.
    """
    one, two = pair.outer, pair.inner
    act, A = one.active, range(len(one.active))
    m1, k1, k2 = one.m, v.shape[1], u.shape[1]
    k = max(k1, k2)

    def at(x: np.ndarray) -> tuple[np.ndarray, ...]:
        v, u = x[:m1, :k1], x[m1:, :k2]
        eta = [*o]
        for a in A:
            eta[act[a]] = (
                o[act[a]]
                + np.einsum("ik,ik->i", E[0][a], v[one.code])
                + np.einsum("ik,ik->i", E[1][a], u[two.code])
            )
        table, _ = node_table(two, family, eta, 2, act)
        broken = ~np.isfinite(table).all(axis=(0, 1))
        f = picker(table[:, 0], len(act), 2)
        with np.errstate(invalid="ignore"):
            F = -np.add.reduceat(f(), one.starts) + 0.5 * np.einsum("gi,gi->g", v, v)
        F += 0.5 * np.add.reduceat(np.einsum("gi,gi->g", u, u), pair.heads)
        if broken.any():
            F[np.unique(one.code[broken])] = np.inf
            table[:, :, broken] = 0.0
        gv = v - np.add.reduceat(sum(E[0][a] * f(a)[:, None] for a in A), one.starts)  # type: ignore[arg-type]
        gu = u - np.add.reduceat(sum(E[1][a] * f(a)[:, None] for a in A), two.starts)  # type: ignore[arg-type]
        Hvv = np.eye(k1) - np.add.reduceat(_products(f, E[0], E[0]), one.starts)
        Huu = np.eye(k2) - np.add.reduceat(_products(f, E[1], E[1]), two.starts)
        Huv = -np.add.reduceat(_products(f, E[1], E[0]), two.starts)
        return F, gv, gu, Hvv, Huu, Huv

    def arrow(Hvv: np.ndarray, Huu: np.ndarray, Huv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        B = np.linalg.solve(Huu, Huv)
        return B, Hvv - np.add.reduceat(np.swapaxes(Huv, 1, 2) @ B, pair.heads)

    def step_of(
        F: np.ndarray, gv: np.ndarray, gu: np.ndarray, Hvv: np.ndarray, Huu: np.ndarray, Huv: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        Huu = _positive(Huu)
        B, S = arrow(Hvv, Huu, Huv)
        joint = Joint(gv, gu, F, _positive(S), Huu, B)
        sv, su = joint.solve(pair, -gv[..., None], -gu[..., None])
        step = np.zeros((m1 + two.m, k))
        step[:m1, :k1], step[m1:, :k2] = sv[..., 0], su[..., 0]
        decrease = -np.einsum("gi,gi->g", gv, sv[..., 0])
        decrease -= np.add.reduceat(np.einsum("gi,gi->g", gu, su[..., 0]), pair.heads)
        return step, decrease

    x = np.zeros((m1 + two.m, k))
    x[:m1, :k1], x[m1:, :k2] = v, u
    owner = np.r_[np.arange(m1), pair.parent]
    x, (F, _, _, Hvv, Huu, Huv) = find_modes(at, step_of, x, owner)
    try:
        np.linalg.cholesky(Huu)
    except np.linalg.LinAlgError:
        raise Breakdown("the conditional density has no proper mode there") from None
    B, S = arrow(Hvv, Huu, Huv)
    return Joint(x[:m1, :k1], x[m1:, :k2], F, S, Huu, B)


def _products(f: object, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``sum_ab l_ab E_a E_b'`` of each row, (n, k, k')."""
    A = range(left.shape[0])
    out = np.zeros((left.shape[1], left.shape[2], right.shape[2]))
    for a in A:
        for b in A:
            out += (f(a, b)[:, None] * left[a])[:, :, None] * right[b][:, None, :]  # type: ignore[operator]
    return out
