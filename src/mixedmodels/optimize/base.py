"""What an optimiser asks of an objective: numbers only, no statistics.

An objective is a function of a parameter vector theta with bounds, measured in deviance units (minus twice a
log-likelihood), so that a predicted decrease means the same for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["Certificate", "Objective", "blocks_of_entries", "columns_of_entries"]


@runtime_checkable
class Objective(Protocol):
    """A smooth function of theta with bounds.

    The attributes and the first three methods are required. Optional members, used where present:

    * ``entries``: integer array (e, 4), rows (factor, row, column, parameter), for lower-triangular factors
      linear in theta; the function depends on each factor through factor factor' only. With it, the lower
      bound 0 of a diagonal is kept by changing the sign of a column instead of projecting, and columns are
      set to zero as a whole.
    * ``information(theta, kind)``: matrices "average", "expected" and "observed" in units of the Hessian.
    * ``em_step(theta)``, ``ecme_step(theta)``: one step of EM or ECME.
    * ``certificate(theta)``: a `Certificate`.
    * ``sigma_model(theta)``, with ``entries``: value, gradient, average information and approximate expected
      and observed information in the entries of the covariance matrices factor factor', as
      `LMMObjective.sigma_model`. With it the default method is that of `mixedmodels.optimize.cone`.
    * ``units``: array (n_theta,), sizes of the rows of the factors, for it.
    * ``newton_minimize(theta0, *, tol, maxiter, max_seconds, callback, cap, trace)``: a compiled run of the
      default method, returning the dictionary of ``mixedmodels.solver._kernels.newton.newton_minimize`` with
      theta, gradient and hessian in the coordinates of this objective, or None if it has none;
      ``theta0=None`` stands for `start`.
    * ``observed_is_cheap``: whether ``information(theta, "observed")`` may be asked for in every step.
    """

    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    names: Sequence[str]

    def value(self, theta: np.ndarray) -> float:
        """Value at theta; NaN, infinity or FloatingPointError where it does not exist."""
        ...

    def value_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient (n_theta,)."""
        ...

    def newton(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient (n_theta,) and a positive semi-definite Newton matrix (n_theta, n_theta)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """First-order conditions on the cone of positive semi-definite matrices, one entry per term.

    With M_b the derivative of the criterion to Sigma_b and Sigma_b = factor_b factor_b', a point is a
    minimum to first order when M_b is positive semi-definite (on the directions the structure allows) and
    M_b factor_b = 0.

    Attributes
    ----------
    min_eigenvalues : sequence of float
        Smallest eigenvalue of M_b on the feasible directions of term b.
    residuals : sequence of float
        Norm of M_b factor_b.
    escape : callable or None
        ``escape(theta) -> theta or None``: a point that leaves theta along the eigenvector of the most
        negative eigenvalue, Sigma_b + tau v v', with tau by a one-dimensional Newton step; None if there is
        nothing to gain.
    terms : sequence of str
        Names of the terms.
    singular : sequence of bool
        Whether factor_b is singular (exactly or to rounding).
    """

    min_eigenvalues: Sequence[float]
    residuals: Sequence[float]
    escape: Callable[[np.ndarray], np.ndarray | None] | None = None
    terms: Sequence[str] = ()
    singular: Sequence[bool] = ()


def columns_of_entries(entries: np.ndarray) -> tuple[np.ndarray, ...]:
    """Groups of parameters whose signs may change together, for factors linear in theta.

    Flipping the sign of a column of a factor leaves factor factor' unchanged. Columns that share a parameter
    flip together. A group is returned only if exactly one of its parameters stands on a diagonal; that one
    comes first.

    Parameters
    ----------
    entries : ndarray of int, shape (e, 4)
        Rows (factor, row, column, parameter).

    Returns
    -------
    tuple of ndarray of intp
        One index array per group, in the order of their first members.

    Examples
    --------
    >>> [c.tolist() for c in columns_of_entries(np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 2]]))]
    [[0, 1], [2]]
    """
    rows = np.asarray(entries, dtype=np.intp).reshape(-1, 4).tolist()
    groups = _components([((f, c), ("theta", t)) for f, _, c, t in rows])
    diagonal = {t for _, i, j, t in rows if i == j}
    off = {t for _, i, j, t in rows if i != j}
    out = []
    for group in groups:
        members = sorted(x[1] for x in group if x[0] == "theta")
        heads = [t for t in members if t in diagonal]
        if len(heads) == 1 and heads[0] not in off:
            out.append(np.array(heads + [t for t in members if t != heads[0]], dtype=np.intp))
    return tuple(sorted(out, key=lambda c: int(c.min())))


def blocks_of_entries(entries: np.ndarray) -> tuple[np.ndarray, ...]:
    """Index tables of the unstructured blocks: full lower triangles whose parameters occur nowhere else.

    Parameters
    ----------
    entries : ndarray of int, shape (e, 4)
        Rows (factor, row, column, parameter).

    Returns
    -------
    tuple of ndarray of intp, each of shape (k, k), k > 1
        ``table[i, j]`` is the parameter of entry (i, j), -1 above the diagonal; in the order of (factor,
        first row).

    Examples
    --------
    >>> [t.tolist() for t in blocks_of_entries(np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 2]]))]
    [[[0, -1], [1, 2]]]
    """
    rows = np.asarray(entries, dtype=np.intp).reshape(-1, 4).tolist()
    times = np.bincount([t for *_, t in rows]) if rows else np.zeros(0, dtype=np.intp)
    out = []
    for group in _components([((f, i), (f, j)) for f, i, j, _ in rows]):
        members = sorted(group)
        place = {row: a for a, row in enumerate(members)}
        k = len(members)
        table = np.full((k, k), -1, dtype=np.intp)
        for f, i, j, t in rows:
            if (f, i) in place and times[t] == 1:
                table[place[f, i], place[f, j]] = t
        if k > 1 and np.all(table[np.tril_indices(k)] >= 0):
            out.append((members[0], table))
    return tuple(table for _, table in sorted(out, key=lambda pair: pair[0]))


def _components(edges: list[tuple[tuple, tuple]]) -> list[list[tuple]]:
    """Connected components of a graph given by its edges."""
    parent: dict[tuple, tuple] = {}

    def root(x: tuple) -> tuple:
        while parent[x] != x:
            x = parent[x]
        return x

    for a, b in edges:
        parent.setdefault(a, a)
        parent.setdefault(b, b)
        parent[root(b)] = root(a)
    groups: dict[tuple, list[tuple]] = {}
    for x in parent:
        groups.setdefault(root(x), []).append(x)
    return list(groups.values())
