r"""Adaptive quadrature of the integrals of many groups at once, with exact first and second derivatives.

Of each group, with mode :math:`\hat u`, :math:`H = F_{uu}(\hat u) = LL'`, :math:`C = L^{-T}` and the nodes
:math:`u_j = \hat u + C z_j`,

.. math:: \log I = \log|C| + \log\sum_j \exp(\log w_j + z_j'z_j/2 - F(u_j)),

which for one node is Laplace's approximation (Pinheiro & Chao 2006, J. Comp. Graph. Stat. 15:58-81).
The nodes move with the parameters. Along parameter a, with :math:`S_a = C'\dot H_a C` and T_a the upper
triangle of S_a with half of its diagonal, :math:`\hat u_a = -H^{-1}F_{ua}` and :math:`C_a = -C T_a`; with the
weights :math:`\omega_j` of the nodes in the sum, :math:`q = \sum\omega_j F_u(u_j)`,
:math:`Q = C'\sum\omega_j F_u(u_j)z_j'` and J the symmetric matrix with
:math:`\langle J, S\rangle = \langle Q, T\rangle`,

.. math::
   \log I_a &= -\sum_j\omega_j F_a(u_j) - q'\hat u_a + \langle K, \dot H_a\rangle,
               \qquad K = C(J - \tfrac12 I)C' \\
   \log I_{ab} &= \tfrac12\langle S_a, S_b\rangle - \langle Q, T_bT_a\rangle - 2\langle J, S_aT_b\rangle
               + \langle K, \ddot H_{ab}\rangle - q'\hat u_{ab}
               - \sum_j\omega_j \ddot F_{j,ab} + \mathrm{Cov}_\omega(\dot F_{j,a}, \dot F_{j,b})

where a dot means that the node follows, and the second derivative of F_j leaves out that of the node. Second
derivatives of the mode and of H are never formed: K and :math:`\alpha = -q + \langle K, H_u\rangle` are
their adjoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.quadrature_rows import (
    Picker,
    Rows,
    find_modes,
    halved,
    mode_rows,
    newton_step,
    node_table,
    picker,
)
from mixedmodels.solver.base import Breakdown

__all__ = ["Curvature", "Integrals", "curvature", "group_modes", "integrals"]

LIMIT = 1 << 16  # rows times nodes that are worked on at once


@dataclass(slots=True, eq=False)
class Integrals:
    """Integrals of the groups.

    Attributes
    ----------
    log : ndarray, shape (m,)
    u : ndarray, shape (m, k)
        Modes.
    H : ndarray, shape (m, k, k)
    rho : ndarray, shape (C, n), or None
        Derivative of ``sum_g weight_g log I_g`` with respect to each row of each linear predictor.
    entries : ndarray, shape (m, k, k), or None
        Derivative of each ``weight_g log I_g`` with respect to the entries of Lambda.
    hessian : ndarray, shape (P, P), or None
        Second derivatives of ``sum_g weight_g log I_g``.
    penalised : ndarray, shape (P, P), or None
        Second derivatives of ``sum_g F_g(mode)``.
    mean, covariance : ndarray, shape (m, k) and (m, k, k), or None
        Conditional moments of u.
    """

    log: np.ndarray
    u: np.ndarray
    H: np.ndarray
    rho: np.ndarray | None = None
    entries: np.ndarray | None = None
    hessian: np.ndarray | None = None
    penalised: np.ndarray | None = None
    mean: np.ndarray | None = None
    covariance: np.ndarray | None = None


@dataclass(slots=True, eq=False)
class Curvature:
    """``C = H^{-1/2}`` (upper triangular) of each group and ``log|C|``."""

    C: np.ndarray
    logdet: np.ndarray


def curvature(H: np.ndarray) -> Curvature:
    """Scale of the nodes.

    Raises
    ------
    Breakdown
        A group has no proper mode.
    """
    try:
        L = np.linalg.cholesky(H)
    except np.linalg.LinAlgError:
        raise Breakdown("the conditional density has no proper mode there") from None
    logdet = -np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return Curvature(np.ascontiguousarray(np.swapaxes(np.linalg.inv(L), 1, 2)), logdet)


def group_modes(
    rows: Rows, family: Family, o: np.ndarray, E: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Modes (m, k), F there (m,) and its curvature (m, k, k)."""
    act, A = rows.active, range(len(rows.active))
    k = E.shape[2]

    def at(u: np.ndarray) -> tuple[np.ndarray, ...]:
        eta = [*o]
        for a in A:
            eta[act[a]] = o[act[a]] + np.einsum("ik,ik->i", E[a], u[rows.code])
        table, bad = node_table(rows, family, eta, 2, act)
        f = picker(table[:, 0], len(act), 2)
        F = 0.5 * np.einsum("gi,gi->g", u, u) - np.add.reduceat(f(), rows.starts)
        if bad.any() or not np.isfinite(table).all():
            broken = ~np.isfinite(table).all(axis=(0, 1))
            F[np.unique(rows.code[broken])] = np.inf
            table[:, :, broken] = 0.0
        g = u - np.add.reduceat(sum(E[a] * f(a)[:, None] for a in A), rows.starts)  # type: ignore[arg-type]
        H = np.empty((rows.m, k, k))
        for r in range(k):
            for s in range(r + 1):
                w = sum(f(a, b) * E[a, :, r] * E[b, :, s] for a in A for b in A)
                H[:, r, s] = H[:, s, r] = (r == s) - np.add.reduceat(w, rows.starts)
        return F, g, H

    def step_of(F: np.ndarray, g: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step = newton_step(H, g)
        return step, -np.einsum("gi,gi->g", g, step)

    u, (F, _, H) = find_modes(at, step_of, u)
    return u, F, H


def integrals(
    rows: Rows,
    family: Family,
    o: np.ndarray,
    Lambda: np.ndarray,
    rule: tuple[np.ndarray, np.ndarray],
    u: np.ndarray,
    order: int = 0,
    weight: np.ndarray | None = None,
    directions: Sequence[np.ndarray] | None = None,
    entries: Sequence[tuple[int, int, int]] = (),
    moments: bool = False,
) -> Integrals:
    """Integrals of the groups and their derivatives.

    Parameters
    ----------
    rows : Rows
    family : Family
    o : ndarray, shape (C, n)
        Linear predictors without the random effects.
    Lambda : ndarray, shape (k, k)
    rule : points (J, k) and ``log w + |z|^2/2`` (J,)
    u : ndarray, shape (m, k)
        Where to begin the search for the modes.
    order : {0, 1, 2}
    weight : ndarray, shape (m,), optional
        Multipliers of the log integrals in the derivatives.
    directions : sequence of ndarray (n, P), one per predictor
        Derivatives of o along the P parameters (order 2); its own second derivatives are left out.
    entries : sequence of (position in P, row, column)
        Entries of Lambda among the parameters (order 2).
    moments : bool
        Whether to compute the conditional moments too.
    """
    C, act, Z, code, starts = o.shape[0], rows.active, rows.Z, rows.code, rows.starts
    A, k, n = range(len(act)), Z.shape[2], rows.n
    everything = tuple(range(C))
    z, log_weight = rule
    E = Z @ Lambda
    u, _, H = group_modes(rows, family, o, E, u)
    scale = curvature(H)
    tile = max(1, LIMIT // n)
    parts = [slice(at, at + tile) for at in range(0, z.shape[0], tile)]
    nodes = [u + np.einsum("gis,js->jgi", scale.C, z[part]) for part in parts]

    def tables(order: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for at, v in enumerate(nodes):
            times = v.shape[0]
            eta = np.repeat(o[:, None, :], times, axis=1)
            for a in A:
                for s in range(k):
                    eta[act[a]] += E[a, :, s] * v[..., s][:, code]
            table, bad = node_table(rows, family, list(eta.reshape(C, -1)), order, everything, times)
            yield at, table, bad

    # ---------------------------------------------------------------- values
    kept = list(tables(order)) if len(parts) == 1 else None
    logits = np.empty((z.shape[0], rows.m))
    for at, table, bad in kept if kept is not None else tables(0):
        v = nodes[at]
        with np.errstate(invalid="ignore"):
            total = np.add.reduceat(table[0], starts, axis=1)
        total -= 0.5 * np.einsum("jgi,jgi->jg", v, v)
        if bad.any():
            total[np.logical_or.reduceat(bad, starts, axis=1)] = -np.inf
        logits[parts[at]] = total + log_weight[parts[at], None]
    top = logits.max(axis=0)
    if not np.isfinite(top).all():
        raise Breakdown("the likelihood cannot be computed there: a mean is out of its range")
    share = np.exp(logits - top)
    sums = share.sum(axis=0)
    log = scale.logdet + top + np.log(sums)
    share /= sums
    found = Integrals(log, u, H)
    if moments:
        v = np.concatenate(nodes)
        found.mean = np.einsum("jg,jgi->gi", share, v)
        found.covariance = np.einsum("jg,jgi,jgs->gis", share, v - found.mean, v - found.mean)
    if order == 0:
        return found
    weight = np.ones(rows.m) if weight is None else weight

    # ---------------------------------------------------------------- sums over the nodes, order 1
    def node_tables(order: int) -> Iterator[tuple[int, np.ndarray]]:
        for at, table, bad in kept if kept is not None else tables(order):
            if bad.any():
                none = np.logical_or.reduceat(bad, starts, axis=1)[:, code]
                table = np.where(none, 0.0, table)
            if not np.isfinite(table).all():
                raise Breakdown("a derivative of the log-density is not finite at a node")
            yield at, table

    direct = np.zeros((C, n))
    q, M, TU = np.zeros((rows.m, k)), np.zeros((rows.m, k, k)), np.zeros((rows.m, k, k))

    def score(f: Picker, times: int) -> np.ndarray:
        """Sum over the rows of a group of ``Z l'``, (J, m, k)."""
        out = np.empty((times, rows.m, k))
        for r in range(k):
            out[:, :, r] = np.add.reduceat(
                sum(f(act[a]) * Z[a, :, r] for a in A),
                starts,
                axis=1,
            )
        return out

    for at, table in node_tables(order):
        f = picker(table, C, order)
        v, own = nodes[at], share[parts[at]] * weight
        by_row = own[:, code]
        for c in everything:
            direct[c] += np.einsum("ji,ji->i", by_row, f(c))
        t = score(f, v.shape[0])
        Fu = own[:, :, None] * (v - t @ Lambda)
        q += Fu.sum(axis=0)
        M += np.einsum("jgi,js->gis", Fu, z[parts[at]])
        TU += np.einsum("jgr,jgs->grs", own[:, :, None] * t, v)

    # ---------------------------------------------------------------- the mode, order 1
    eta = [*o]
    for a in A:
        eta[act[a]] = o[act[a]] + np.einsum("ik,ik->i", E[a], u[code])
    f = picker(node_table(rows, family, eta, 2 + order, everything)[0][:, 0], C, 2 + order)
    Ct = np.swapaxes(scale.C, 1, 2)
    Q = Ct @ M
    J = np.triu(Q)
    J = 0.5 * (J + np.swapaxes(J, 1, 2))
    J[:, np.arange(k), np.arange(k)] *= 0.5
    K = scale.C @ (J - 0.5 * weight[:, None, None] * np.eye(k)) @ Ct
    kappa = np.einsum("aik,ikl->ail", E, K[code])
    h = np.einsum("aik,bik->abi", kappa, E)
    rho = np.zeros((C, n))
    for e in everything:
        for a in A:
            for b in A:
                rho[e] -= h[a, b] * f(act[a], act[b], e)
    alpha = -q + np.add.reduceat(sum(E[a] * rho[act[a]][:, None] for a in A), starts)
    w = np.linalg.solve(H, alpha[..., None])[..., 0]
    omega = np.einsum("aik,ik->ai", E, w[code])
    for e in everything:
        for a in A:
            rho[e] += omega[a] * f(act[a], e)
    W = np.empty((rows.m, k, k))
    for r in range(k):
        for s in range(r + 1):
            both = sum(f(act[a], act[b]) * Z[a, :, r] * Z[b, :, s] for a in A for b in A)
            W[:, r, s] = W[:, s, r] = -np.add.reduceat(both, starts)
    Zl = np.add.reduceat(sum(Z[a] * f(act[a])[:, None] for a in A), starts)
    tau = np.add.reduceat(sum(Z[a] * rho[act[a]][:, None] for a in A), starts)
    WL = W @ Lambda
    by_entry = TU + tau[:, :, None] * u[:, None, :] + Zl[:, :, None] * w[:, None, :] + 2.0 * (WL @ K)
    found.rho, found.entries = direct + rho, by_entry
    if order == 1:
        return found

    # ---------------------------------------------------------------- order 2
    assert directions is not None
    P = directions[0].shape[1]
    which = {act[a]: a for a in A}

    def followed(v: np.ndarray, dv: np.ndarray) -> list[np.ndarray]:
        """Derivatives of eta, (J n, P): v (J, m, k) moves with dv (J, m, P, k)."""
        out = []
        for c in everything:
            N = np.repeat(directions[c][None], v.shape[0], axis=0)
            if c in which:
                a = which[c]
                for at, r, s in entries:
                    N[:, :, at] += Z[a, :, r] * v[..., s][:, code]
                for s in range(k):
                    N += E[a, :, None, s] * dv[..., s][:, code]
            out.append(N.reshape(-1, P))
        return out

    N = followed(u[None], np.zeros((1, rows.m, P, k)))
    ZN = np.empty((rows.m, P, k))
    for r in range(k):
        ZN[:, :, r] = np.add.reduceat(
            sum((f(act[a], e) * Z[a, :, r])[:, None] * N[e] for a in A for e in everything), starts
        )
    Fua = -(ZN @ Lambda)
    for at, r, s in entries:
        Fua[:, at, s] -= Zl[:, r]
    du = -np.swapaxes(np.linalg.solve(H, np.swapaxes(Fua, 1, 2)), 1, 2)
    eta1 = followed(u[None], du[None])
    dH = np.empty((rows.m, P, k, k))
    for r in range(k):
        for s in range(r + 1):
            lines = np.zeros((n, P))
            for e in everything:
                third = sum(f(act[a], act[b], e) * E[a, :, r] * E[b, :, s] for a in A for b in A)
                lines -= np.asarray(third)[:, None] * eta1[e]
            dH[:, :, r, s] = dH[:, :, s, r] = np.add.reduceat(lines, starts)
    for at, r, s in entries:
        dH[:, at, s, :] += WL[:, r, :]
        dH[:, at, :, s] += WL[:, r, :]
    S = Ct[:, None] @ dH @ scale.C[:, None]
    T = halved(S)
    hessian = second_of_scale(S, T, Q, J, weight)
    du_rows = du[code]
    hessian += mode_rows(f, rows, kappa, h, w[code], K[code], omega, rho, eta1, du_rows, entries)
    penalised = second_of_F(f, eta1, du, Zl, entries, np.ones(n), np.ones(rows.m))
    mean = np.zeros((rows.m, P))
    dC = -np.einsum("gis,gast->gait", scale.C, T)
    for at, table in node_tables(2):
        f = picker(table.reshape(table.shape[0], -1), C, 2)
        v, own = nodes[at], share[parts[at]]
        times = v.shape[0]
        dv = du + np.einsum("gait,jt->jgai", dC, z[parts[at]])
        moved = followed(v, dv)
        lines = np.zeros((times * n, P))
        for c in everything:
            lines += f(c)[:, None] * moved[c]
        dF = np.einsum("jgi,jgai->jga", v, dv)
        dF -= np.add.reduceat(lines.reshape(times, n, P), starts, axis=1)
        mean += np.einsum("jg,jga->ga", own, dF)
        flat = dF.reshape(-1, P)
        both = own * weight
        hessian += flat.T @ (both.reshape(-1, 1) * flat)
        t = score(picker(table, C, 2), times).reshape(-1, k)
        hessian -= second_of_F(
            f, moved, dv.reshape(-1, P, k), t, entries, both[:, code].ravel(), both.ravel()
        )
    hessian -= mean.T @ (weight[:, None] * mean)
    found.hessian, found.penalised = hessian, penalised
    return found


def second_of_scale(
    S: np.ndarray, T: np.ndarray, Q: np.ndarray, J: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Products of first derivatives of the scale in the second derivatives, summed over groups, (P, P)."""
    P = S.shape[1]
    first = np.swapaxes(S, 0, 1).reshape(P, -1)
    inner = Q[:, None] @ np.swapaxes(T, 2, 3) + 2.0 * (np.swapaxes(S, 2, 3) @ J[:, None])
    a = np.swapaxes(inner, 0, 1).reshape(P, -1)
    b = np.swapaxes(T, 0, 1).reshape(P, -1)
    weighted = np.swapaxes(S * weight[:, None, None, None], 0, 1).reshape(P, -1)
    return 0.5 * (weighted @ first.T) - a @ b.T


def second_of_F(
    f: Picker,
    eta1: Sequence[np.ndarray],
    du: np.ndarray,
    score: np.ndarray,
    entries: Sequence[tuple[int, int, int]],
    row_weight: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """Second derivatives of F along moving effects without the second derivative of the effects, (P, P)."""
    P, k = du.shape[1], du.shape[2]
    out = np.zeros((P, P))
    for c in range(len(eta1)):
        for d in range(c + 1):
            part = eta1[c].T @ ((row_weight * f(c, d))[:, None] * eta1[d])
            out -= part if c == d else part + part.T
    for s in range(k):
        out += du[:, :, s].T @ (weight[:, None] * du[:, :, s])
    for at, r, s in entries:
        line = (weight * score[:, r]) @ du[:, :, s]
        out[at] -= line
        out[:, at] -= line
    return out
