r"""What quadrature over one level of groups and over two nested levels share: rows, modes and row sums.

Rows are sorted by group. With E = Z Lambda and the linear predictor :math:`\eta_c = o_c + E_c u` the negative
log of the integrand of a group is :math:`F(u) = -\sum_i \ell_i + u'u/2`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from mixedmodels.family.base import Family, Observations
from mixedmodels.family.jet import place
from mixedmodels.solver.base import Breakdown

__all__ = ["Rows", "find_modes", "halved", "mode_rows", "picker", "taken"]

Picker = Callable[..., np.ndarray]


def taken(data: Observations, rows: np.ndarray) -> Observations:
    """The observations of some rows."""
    n = data.n
    new: dict[str, Any] = {"constants": {}}
    for item in fields(data):
        value = getattr(data, item.name)
        if isinstance(value, np.ndarray) and value.ndim and value.shape[0] == n:
            new[item.name] = value[rows]
    return replace(data, **new)


@dataclass(slots=True, eq=False)
class Rows:
    """Rows of some groups, sorted by group.

    Attributes
    ----------
    data : Observations
    Z : ndarray, shape (A, n, k)
        Columns of the random effects in each active predictor.
    code : ndarray, shape (n,)
        Group of each row, 0 .. m-1, ascending.
    starts : ndarray, shape (m,)
        First row of each group.
    active : tuple of int
        Predictors with random effects.
    copies : dict
        The same observations several times over, one copy per node.
    """

    data: Observations
    Z: np.ndarray
    code: np.ndarray
    starts: np.ndarray
    active: tuple[int, ...]
    copies: dict[int, Observations] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.code.shape[0]

    @property
    def m(self) -> int:
        """Number of groups."""
        return self.starts.shape[0]

    def copied(self, times: int) -> Observations:
        """`times` copies of the observations, one after the other."""
        if times == 1:
            return self.data
        if times not in self.copies:
            self.copies[times] = taken(self.data, np.tile(np.arange(self.n), times))
        return self.copies[times]


def picker(table: np.ndarray, variables: int, order: int) -> Picker:
    """``f(c, d, ...)``: the partial derivative along predictors c, d, ... of a table of derivatives."""
    where = place(variables, order)

    def f(*which: int) -> np.ndarray:
        exponents = [0] * variables
        for c in which:
            exponents[c] += 1
        return table[where[tuple(exponents)]]

    return f


def halved(S: np.ndarray) -> np.ndarray:
    """Upper triangle with half of the diagonal, of the last two axes."""
    out = np.triu(S)
    k = S.shape[-1]
    out[..., np.arange(k), np.arange(k)] *= 0.5
    return out


def newton_step(H: np.ndarray, g: np.ndarray) -> np.ndarray:
    """``-H^{-1} g`` of each group, with the curvature made positive where it is not."""
    if H.shape[-1] == 1:
        return -g / np.maximum(np.abs(H[:, 0]), 1e-6)
    try:
        np.linalg.cholesky(H)
        return -np.linalg.solve(H, g[..., None])[..., 0]
    except np.linalg.LinAlgError:
        values, V = np.linalg.eigh(H)
        inner = np.einsum("gji,gj->gi", V, g) / np.maximum(np.abs(values), 1e-6)
        return -np.einsum("gij,gj->gi", V, inner)


def find_modes(
    at: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    step_of: Callable[..., tuple[np.ndarray, np.ndarray]],
    u: np.ndarray,
    owner: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Minimum of F in every group by Newton's method with step halving, all groups at once.

    Parameters
    ----------
    at : callable
        ``u -> (F, ...)`` with F of each group, inf where it does not exist; the rest is for `step_of`.
    step_of : callable
        ``(F, ...) -> (step, decrease)``: Newton's step, shaped as u, and -gradient'step of each group.
    u : ndarray, shape (rows of effects, ...)
    owner : ndarray of int, optional
        Group of each row of u; None where they are the groups.

    Returns
    -------
    u, found : the minimum and what `at` returned there

    Raises
    ------
    Breakdown
        The likelihood does not exist at the start, or no minimum was found.
    """

    def spread(per_group: np.ndarray) -> np.ndarray:
        rows = per_group if owner is None else per_group[owner]
        return rows[:, None]

    found = at(u)
    if not np.isfinite(found[0]).all():
        u = np.where(spread(np.isfinite(found[0])), u, 0.0)
        found = at(u)
        if not np.isfinite(found[0]).all():
            raise Breakdown("the likelihood cannot be computed there: a mean is out of its range")
    done = np.zeros(found[0].shape[0], dtype=bool)
    for _ in range(200):
        F = found[0]
        step, decrease = step_of(*found)
        last = ~done & (decrease < 1e-14 * (1.0 + np.abs(F)))  # this step doubles the digits
        size = np.where(done, 0.0, 1.0)
        while True:
            trial = at(u + spread(size) * step)
            good = np.isfinite(trial[0]) & (done | last | (trial[0] <= F + 1e-13 * (1.0 + np.abs(F))))
            if good.all():
                break
            size = np.where(good, size, 0.5 * size)
            if size[~good].min() < 1e-12:
                raise Breakdown("the conditional mode could not be found there")
        u, found = u + spread(size) * step, trial
        done |= last
        if done.all():
            return u, found
    raise Breakdown("the conditional mode could not be found there")


def node_table(
    rows: Rows, family: Family, eta: Sequence[np.ndarray], order: int, active: Sequence[int], times: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives at `times` copies of the rows, (count, times, n), and which rows have no density there."""
    table = family.derivatives(rows.copied(times), list(eta), order, active)
    table = table.reshape(table.shape[0], times, rows.n)
    return table, ~np.isfinite(table[0])


def mode_rows(
    f: Picker,
    rows: Rows,
    kappa: np.ndarray,
    h: np.ndarray,
    w: np.ndarray,
    K: np.ndarray,
    omega: np.ndarray,
    rho: np.ndarray,
    eta1: Sequence[np.ndarray],
    du: np.ndarray,
    entries: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    r"""Second derivatives that the mode and the curvature there contribute through the rows.

    With the adjoints K of the curvature H and alpha of the mode, :math:`w = H^{-1}\alpha`, this is
    :math:`\langle K, \ddot H_{ab}\rangle + \alpha'\hat u_{ab}`, where the second derivative of H holds
    :math:`\hat u_{ab}` at zero (that part is in alpha).

    Parameters
    ----------
    f : picker of the derivatives at the mode, order 4
    rows : Rows
    kappa : ndarray, shape (A, n, k)
        ``K E``.
    h : ndarray, shape (A, A, n)
        ``E'K E``.
    w : ndarray, shape (n, k)
    K : ndarray, shape (n, k, k)
    omega : ndarray, shape (A, n)
        ``E w``.
    rho : ndarray, shape (C, n)
        Derivative with respect to the rows of eta through mode and curvature.
    eta1 : sequence of ndarray (n, P), one per predictor
        Derivatives of eta with the mode following.
    du : ndarray, shape (n, P, k)
        Derivatives of the mode.
    entries : sequence of (position in P, row, column)
    """
    C, P, act, Z = len(eta1), eta1[0].shape[1], rows.active, rows.Z
    A = range(len(act))
    out = np.zeros((P, P))
    for e in range(C):
        for g in range(e + 1):
            weight = np.zeros(rows.n)
            for a in A:
                weight += omega[a] * f(act[a], e, g)
                for b in A:
                    weight -= h[a, b] * f(act[a], act[b], e, g)
            part = eta1[e].T @ (weight[:, None] * eta1[g])
            out += part if e == g else part + part.T
    for at, r, s in entries:
        line = np.zeros(P)
        for a in A:
            line += (rho[act[a]] * Z[a, :, r]) @ du[:, :, s]
        for e in range(C):
            x = np.zeros(rows.n)
            for a in A:
                inner = w[:, s] * f(act[a], e)
                for b in A:
                    inner = inner - 2.0 * f(act[a], act[b], e) * kappa[b, :, s]
                x += Z[a, :, r] * inner
            line += x @ eta1[e]
        out[at] += line
        out[:, at] += line
        for at2, r2, s2 in entries:
            for a in A:
                for b in A:
                    out[at, at2] -= 2.0 * np.sum(f(act[a], act[b]) * Z[a, :, r] * Z[b, :, r2] * K[:, s, s2])
    return out
