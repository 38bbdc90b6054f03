r"""Adaptive quadrature over two nested levels: the outer integral of products of inner integrals.

With the inner integrals :math:`I_h(v)` at a value of the outer effects (each of them adaptive, re-centred and
re-scaled at that value) the integral of an outer group is

.. math:: \int \phi(v)\prod_h I_h(v)\,dv \approx
          |C|\sum_j \exp\Big(\log w_j + \tfrac12 z_j'z_j - \tfrac12 v_j'v_j + \sum_h\log I_h(v_j)\Big),
          \qquad v_j = \hat v + Cz_j,

centred at the joint mode and scaled by :math:`C = S^{-1/2}` (`quadrature_joint`), so that one node gives
Laplace's approximation of the joint integral. Derivatives are those of `quadrature_integrals` with S in the
place of H and the outer nodes as moving offsets of the inner integrals. A derivative of S is
:math:`[I, -B']\dot H[I, -B']'`, a second one that of H less
:math:`G_a'H_{uu}^{-1}G_b + G_b'H_{uu}^{-1}G_a` with :math:`G_a = \dot H_{uv} - \dot H_{uu}B`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.quadrature_integrals import (
    LIMIT,
    Integrals,
    curvature,
    integrals,
    second_of_F,
    second_of_scale,
)
from mixedmodels.objective.marginal.quadrature_joint import Joint, Pair, joint_modes
from mixedmodels.objective.marginal.quadrature_rows import Rows, halved, mode_rows, node_table, picker
from mixedmodels.solver.base import Breakdown

__all__ = ["TwoLevels", "two_levels"]

Rule = tuple[np.ndarray, np.ndarray]
Entries = Sequence[tuple[int, int, int]]


@dataclass(slots=True, eq=False)
class TwoLevels:
    """Integrals of the outer groups of a block.

    Attributes
    ----------
    log : ndarray, shape (m1,)
    joint : Joint
    gradient : ndarray, shape (P,), or None
        Of ``sum_g log I_g``.
    hessian, penalised : ndarray, shape (P, P), or None
        Second derivatives of ``sum log I_g`` and of ``sum F_g`` at the modes.
    moments : tuple of (mean, covariance), or None
        Conditional moments of v and of u.
    """

    log: np.ndarray
    joint: Joint
    gradient: np.ndarray | None = None
    hessian: np.ndarray | None = None
    penalised: np.ndarray | None = None
    moments: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


def _copies(rows: Rows, times: int) -> Rows:
    """The rows several times over, every copy with groups of its own."""
    if times == 1:
        return rows
    shift = np.arange(times)[:, None]
    return Rows(
        rows.copied(times),
        np.tile(rows.Z, (1, times, 1)),
        (rows.code + shift * rows.m).ravel(),
        (rows.starts + shift * rows.n).ravel(),
        rows.active,
    )


def two_levels(
    pair: Pair,
    family: Family,
    o: np.ndarray,
    X: np.ndarray,
    Lambda: tuple[np.ndarray, np.ndarray],
    rules: tuple[Rule, Rule],
    start: tuple[np.ndarray, np.ndarray],
    entries: tuple[Entries, Entries],
    order: int = 0,
    moments: bool = False,
) -> TwoLevels:
    """Integrals and derivatives with respect to (gamma, entries of both factors).

    Parameters
    ----------
    o : ndarray, shape (C, n)
        Linear predictors without random effects.
    X : ndarray, shape (C, n, p)
        Derivatives of o along gamma, the first p of the P parameters.
    Lambda, rules, start, entries : pairs, the outer level first
        Factors, product rules, starting values of the modes, entries (position, row, column).
    """
    one, two = pair.outer, pair.inner
    C, n, act = o.shape[0], two.n, one.active
    A, everything = range(len(act)), tuple(range(C))
    p, P = X.shape[2], X.shape[2] + len(entries[0]) + len(entries[1])
    (z, log_weight), inner_rule = rules
    k1, k2 = Lambda[0].shape[0], Lambda[1].shape[0]
    E = (one.Z @ Lambda[0], two.Z @ Lambda[1])
    joint = joint_modes(pair, family, o, E, *start)
    v, u, B = joint.v, joint.u, joint.B
    scale = curvature(joint.S)
    tile = max(1, LIMIT // (n * inner_rule[0].shape[0]))
    parts = [slice(at, min(at + tile, z.shape[0])) for at in range(0, z.shape[0], tile)]
    v_nodes = v + np.einsum("gis,js->jgi", scale.C, z)
    follow = -np.einsum("hri,jhi->jhr", B, (v_nodes - v)[:, pair.parent])

    def inner(
        order: int,
        weight: np.ndarray | None = None,
        directions: list[np.ndarray] | None = None,
        moments: bool = False,
    ) -> Iterator[tuple[slice, Integrals]]:
        """Inner integrals at the outer nodes of each part."""
        for part in parts:
            times = part.stop - part.start
            offset = np.repeat(o[:, None, :], times, axis=1)
            for a in A:
                for s in range(k1):
                    offset[act[a]] += E[0][a, :, s] * v_nodes[part, :, s][:, one.code]
            yield (
                part,
                integrals(
                    _copies(two, times),
                    family,
                    offset.reshape(C, -1),
                    Lambda[1],
                    inner_rule,
                    (u + follow[part]).reshape(-1, k2),
                    order,
                    None if weight is None else weight[part].ravel(),
                    None if directions is None else [d[part].reshape(-1, P) for d in directions],
                    entries[1],
                    moments,
                ),
            )

    # ---------------------------------------------------------------- values
    points = z.shape[0]
    log_inner = np.empty((points, two.m))
    rho_nodes = np.empty((C, points, n)) if order else None
    by_inner = np.empty((points, two.m, k2, k2)) if order else None
    u_moments = (np.empty((points, two.m, k2)), np.empty((points, two.m, k2, k2))) if moments else None
    for part, found in inner(min(order, 1), moments=moments):
        times = part.stop - part.start
        log_inner[part] = found.log.reshape(times, -1)
        if rho_nodes is not None and by_inner is not None:
            assert found.rho is not None and found.entries is not None
            rho_nodes[:, part] = found.rho.reshape(C, times, n)
            by_inner[part] = found.entries.reshape(times, two.m, k2, k2)
        if u_moments is not None:
            assert found.mean is not None and found.covariance is not None
            u_moments[0][part] = found.mean.reshape(times, two.m, k2)
            u_moments[1][part] = found.covariance.reshape(times, two.m, k2, k2)
    logits = np.add.reduceat(log_inner, pair.heads, axis=1) + log_weight[:, None]
    logits -= 0.5 * np.einsum("jgi,jgi->jg", v_nodes, v_nodes)
    top = logits.max(axis=0)
    if not np.isfinite(top).all():
        raise Breakdown("the likelihood cannot be computed there: a mean is out of its range")
    share = np.exp(logits - top)
    sums = share.sum(axis=0)
    result = TwoLevels(scale.logdet + top + np.log(sums), joint)
    share /= sums
    if u_moments is not None:
        result.moments = (
            _mixture(share, v_nodes, None),
            _mixture(share[:, pair.parent], *u_moments),
        )
    if order == 0:
        return result
    assert rho_nodes is not None and by_inner is not None

    # ---------------------------------------------------------------- sums over the outer nodes
    t = np.empty((points, one.m, k1))
    for r in range(k1):
        lines = sum(rho_nodes[act[a]] * one.Z[a, :, r] for a in A)
        t[:, :, r] = np.add.reduceat(np.asarray(lines), one.starts, axis=1)
    Fv = share[:, :, None] * (v_nodes - t @ Lambda[0])
    q, M = Fv.sum(axis=0), np.einsum("jgi,js->gis", Fv, z)
    by_row = share[:, one.code]
    gradient = np.zeros(P)
    gradient[:p] = np.einsum("ci,cia->a", np.einsum("ji,cji->ci", by_row, rho_nodes), X)
    outer_sums = np.einsum("jg,jgr,jgs->rs", share, t, v_nodes)
    inner_sums = np.einsum("jh,jhrs->rs", share[:, pair.parent], by_inner)

    # ---------------------------------------------------------------- the joint mode, all effects stacked
    both = Rows(two.data, np.concatenate([one.Z, two.Z], axis=2), two.code, two.starts, act)
    stacked = (*entries[0], *((at, k1 + r, k1 + s) for at, r, s in entries[1]))
    x = np.concatenate([v[one.code], u[two.code]], axis=1)
    eta = [*o]
    for a in A:
        eta[act[a]] = o[act[a]] + np.einsum("ik,ik->i", np.concatenate([E[0][a], E[1][a]], axis=1), x)
    f = picker(node_table(two, family, eta, 2 + order, everything)[0][:, 0], C, 2 + order)
    Ct = np.swapaxes(scale.C, 1, 2)
    Q = Ct @ M
    J = np.triu(Q)
    J = 0.5 * (J + np.swapaxes(J, 1, 2))
    J[:, np.arange(k1), np.arange(k1)] *= 0.5
    K = scale.C @ (J - 0.5 * np.eye(k1)) @ Ct
    B_rows = B[two.code]
    reduced = E[0] - np.einsum("irs,air->ais", B_rows, E[1])  # rows of Z Lambda [I; -B]
    outer_kappa = np.einsum("ais,ist->ait", reduced, K[one.code])
    kappa = np.concatenate([outer_kappa, -np.einsum("irs,ais->air", B_rows, outer_kappa)], axis=2)
    h = np.einsum("ais,bis->abi", outer_kappa, reduced)
    rho = np.zeros((C, n))
    for e in everything:
        for a in A:
            for b in A:
                rho[e] -= h[a, b] * f(act[a], act[b], e)
    alpha_v = -q + _summed(rho, act, E[0], one.starts)
    alpha_u = _summed(rho, act, E[1], two.starts)
    wv, wu = joint.solve(pair, alpha_v[..., None], alpha_u[..., None])
    w = np.concatenate([wv[one.code, :, 0], wu[two.code, :, 0]], axis=1)
    stacked_E = np.concatenate(E, axis=2)
    omega = np.einsum("aik,ik->ai", stacked_E, w)
    for e in everything:
        for a in A:
            rho[e] += omega[a] * f(act[a], e)
    gradient[:p] += np.einsum("ci,cia->a", rho, X)
    sums_of = np.zeros((k1 + k2, k1 + k2))
    for a in A:
        Za = both.Z[a]
        sums_of += Za.T @ (rho[act[a]][:, None] * x + f(act[a])[:, None] * w)
        for b in A:
            sums_of -= 2.0 * (Za.T @ (f(act[a], act[b])[:, None] * kappa[b]))
    sums_of[:k1, :k1] += outer_sums
    sums_of[k1:, k1:] += inner_sums
    for at, r, s in stacked:
        gradient[at] += sums_of[r, s]
    result.gradient = gradient
    if order == 1:
        return result

    # ---------------------------------------------------------------- order 2: derivatives of the joint mode
    N = [np.zeros((n, P)) for _ in everything]
    for c in everything:
        N[c][:, :p] = X[c]
    for a in A:
        for at, r, s in stacked:
            N[act[a]][:, at] += both.Z[a, :, r] * x[:, s]
    Zl = np.zeros((n, k1 + k2))
    for a in A:
        Zl += f(act[a])[:, None] * both.Z[a]
    Zl_v, Zl_u = np.add.reduceat(Zl[:, :k1], one.starts), np.add.reduceat(Zl[:, k1:], two.starts)
    Fxa = np.zeros((n, k1 + k2, P))
    for a in A:
        for e in everything:
            Fxa -= (f(act[a], e)[:, None] * stacked_E[a])[:, :, None] * N[e][:, None, :]
    Fva, Fua = np.add.reduceat(Fxa[:, :k1], one.starts), np.add.reduceat(Fxa[:, k1:], two.starts)
    for at, r, s in entries[0]:
        Fva[:, s, at] -= Zl_v[:, r]
    for at, r, s in entries[1]:
        Fua[:, s, at] -= Zl_u[:, r]
    dv, du = (np.swapaxes(part, 1, 2) for part in joint.solve(pair, -Fva, -Fua))  # (m, P, k)
    dx = np.concatenate([dv[one.code], du[two.code]], axis=2)
    eta1 = [part.copy() for part in N]
    for a in A:
        eta1[act[a]] += np.einsum("ik,iak->ia", stacked_E[a], dx)
    dS, G = _curvature_derivatives(pair, f, C, E, reduced, B, eta1, entries, P)
    S = Ct[:, None] @ dS @ scale.C[:, None]
    T = halved(S)
    hessian = second_of_scale(S, T, Q, J, np.ones(one.m))
    solved = np.linalg.solve(joint.Huu[:, None], G) @ K[pair.parent][:, None]
    flat = np.swapaxes(G, 0, 1).reshape(P, -1)
    hessian -= 2.0 * (np.swapaxes(solved, 0, 1).reshape(P, -1) @ flat.T)
    lift = np.concatenate([np.tile(np.eye(k1), (n, 1, 1)), -B_rows], axis=1)
    K_rows = lift @ K[one.code] @ np.swapaxes(lift, 1, 2)
    hessian += mode_rows(f, both, kappa, h, w, K_rows, omega, rho, eta1, dx, stacked)
    result.penalised = second_of_F(f, eta1, dv, Zl_v, entries[0], np.ones(n), np.ones(one.m))
    result.penalised += second_of_F(f, [], du, Zl_u, entries[1], np.ones(n), np.ones(two.m))

    # ---------------------------------------------------------------- order 2: the outer nodes
    dC = -np.einsum("gis,gast->gait", scale.C, T)
    dv_nodes = dv + np.einsum("gait,jt->jgai", dC, z)
    directions = []
    for c in everything:
        moved = np.zeros((points, n, P))
        moved[:, :, :p] = X[c]
        if c in act:
            a = act.index(c)
            for at, r, s in entries[0]:
                moved[:, :, at] += one.Z[a, :, r] * v_nodes[:, :, s][:, one.code]
            for s in range(k1):
                moved += E[0][a, :, None, s] * dv_nodes[..., s][:, one.code]
        directions.append(moved)
    dF = np.einsum("jgi,jgai->jga", v_nodes, dv_nodes)
    for c in everything:
        dF -= np.add.reduceat(rho_nodes[c][:, :, None] * directions[c], one.starts, axis=1)
    for at, r, s in entries[1]:
        dF[:, :, at] -= np.add.reduceat(by_inner[:, :, r, s], pair.heads, axis=1)
    mean = np.einsum("jg,jga->ga", share, dF)
    hessian += (share[:, :, None] * dF).reshape(-1, P).T @ dF.reshape(-1, P) - mean.T @ mean
    hessian -= second_of_F(
        f, [], dv_nodes.reshape(-1, P, k1), t.reshape(-1, k1), entries[0], np.ones(n), share.ravel()
    )
    for _, found in inner(2, share[:, pair.parent], directions):
        assert found.hessian is not None
        hessian += found.hessian
    result.hessian = hessian
    return result


def _summed(rho: np.ndarray, act: Sequence[int], E: np.ndarray, starts: np.ndarray) -> np.ndarray:
    total = np.zeros(E.shape[1:])
    for a, c in enumerate(act):
        total += rho[c][:, None] * E[a]
    return np.asarray(np.add.reduceat(total, starts))


def _mixture(
    share: np.ndarray, means: np.ndarray, covariances: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    mean = np.einsum("jg,jgi->gi", share, means)
    apart = means - mean
    covariance = np.einsum("jg,jgi,jgs->gis", share, apart, apart)
    if covariances is not None:
        covariance += np.einsum("jg,jgis->gis", share, covariances)
    return mean, covariance


def _curvature_derivatives(
    pair: Pair,
    f: object,
    C: int,
    E: tuple[np.ndarray, np.ndarray],
    reduced: np.ndarray,
    B: np.ndarray,
    eta1: Sequence[np.ndarray],
    entries: tuple[Entries, Entries],
    P: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of S, (m1, P, k1, k1), and ``G = dH_uv - dH_uu B``, (m2, P, k2, k1)."""
    one, two = pair.outer, pair.inner
    act = one.active
    A = range(len(act))
    k1, k2 = E[0].shape[2], E[1].shape[2]
    dS = np.zeros((one.m, P, k1, k1))
    G = np.zeros((two.m, P, k2, k1))

    def third(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        lines = np.zeros((one.n, P))
        for e in range(C):
            weight = sum(f(act[a], act[b], e) * left[a] * right[b] for a in A for b in A)  # type: ignore[operator]
            lines -= np.asarray(weight)[:, None] * eta1[e]
        return lines

    def second(left: np.ndarray, right: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """``sum_i -l_ab left_a right_b'`` for left (A, n) and right (A, n, k)."""
        lines = np.zeros(right.shape[1:])
        for a in A:
            for b in A:
                lines -= (f(act[a], act[b]) * left[a])[:, None] * right[b]  # type: ignore[operator]
        return np.asarray(np.add.reduceat(lines, starts))

    for s in range(k1):
        for r in range(s + 1):
            dS[:, :, r, s] = dS[:, :, s, r] = np.add.reduceat(
                third(reduced[:, :, r], reduced[:, :, s]), one.starts
            )
        for r in range(k2):
            G[:, :, r, s] = np.add.reduceat(third(E[1][:, :, r], reduced[:, :, s]), two.starts)
    for at, r, s in entries[0]:
        line = second(one.Z[:, :, r], reduced, one.starts)
        dS[:, at, s, :] += line
        dS[:, at, :, s] += line
        G[:, at, :, s] += second(one.Z[:, :, r], E[1], two.starts)
    for at, r, s in entries[1]:
        line = second(two.Z[:, :, r], reduced, two.starts)
        outer = -B[:, s, :, None] * line[:, None, :]
        outer = np.add.reduceat(outer + np.swapaxes(outer, 1, 2), pair.heads)
        dS[:, at] += outer
        G[:, at, s, :] += line
        G[:, at] -= second(two.Z[:, :, r], E[1], two.starts)[:, :, None] * B[:, s, None, :]
    return dS, G
