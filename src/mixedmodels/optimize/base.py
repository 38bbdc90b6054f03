"""What an optimiser asks of an objective: numbers only, no statistics.

An objective is a function of a parameter vector theta with bounds, measured in deviance units (minus twice a
log-likelihood), so that a predicted decrease means the same for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["Certificate", "Objective", "columns_of_entries"]


@runtime_checkable
class Objective(Protocol):
    """A smooth function of theta with bounds.

    The attributes and the first three methods are required. Optional members, used where present:

    * ``columns``: sequence of index arrays. The parameters of one array form one column of a factor, its diagonal
      entry first; changing the sign of all of them together leaves the function unchanged. With it, the lower bound 0 of
      the diagonal is kept by reflection instead of projection, and a column is set to zero as a whole.
      `columns_of_entries` computes it.
    * ``information(theta, kind)``: matrices "average", "expected" and "observed" in units of the Hessian.
    * ``em_step(theta)``, ``ecme_step(theta)``: one step of EM or ECME.
    * ``certificate(theta)``: a `Certificate`.
    * ``newton_minimize(theta0, *, tol, maxiter, max_seconds, callback)``: a compiled run of the default method, returning
      the dictionary of ``mixedmodels.solver._kernels.newton.newton_minimize`` with theta, gradient and hessian in the
      coordinates of this objective, or None if it has none.
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

    With M_b the derivative of the criterion to Sigma_b and Sigma_b = factor_b factor_b', a point is a minimum to first
    order when M_b is positive semi-definite (on the directions the structure allows) and M_b factor_b = 0.

    Attributes
    ----------
    min_eigenvalues : sequence of float
        Smallest eigenvalue of M_b on the feasible directions of term b.
    residuals : sequence of float
        Norm of M_b factor_b.
    escape : callable or None
        ``escape(theta) -> theta or None``: a point that leaves theta along the eigenvector of the most negative
        eigenvalue, Sigma_b + tau v v', with tau by a one-dimensional Newton step; None if there is nothing to gain.
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

    Flipping the sign of a column of a factor leaves factor factor' unchanged. Columns that share a parameter flip
    together. A group is returned only if exactly one of its parameters stands on the diagonal; that one comes first.

    Parameters
    ----------
    entries : ndarray of int, shape (e, 4)
        Rows (factor, row, column, parameter).

    Returns
    -------
    tuple of ndarray of intp
        One index array per group.

    Examples
    --------
    >>> [c.tolist() for c in columns_of_entries(np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 2]]))]
    [[0, 1], [2]]
    """
    entries = np.asarray(entries, dtype=np.intp).reshape(-1, 4)
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    first: dict[tuple[int, int], int] = {}
    for factor, _, column, t in entries.tolist():
        parent.setdefault(t, t)
        other = first.setdefault((factor, column), t)
        a, b = sorted((root(other), root(t)))
        parent[b] = a
    groups: dict[int, set[int]] = {}
    for t in parent:
        groups.setdefault(root(t), set()).add(t)
    diagonal = {t for _, row, column, t in entries.tolist() if row == column}
    off = {t for _, row, column, t in entries.tolist() if row != column}
    out = []
    for members in groups.values():
        on = members & diagonal
        if len(on) == 1 and not (on & off):
            (head,) = on
            out.append(np.array([head, *sorted(members - {head})], dtype=np.intp))
    return tuple(sorted(out, key=lambda c: int(c[0])))
