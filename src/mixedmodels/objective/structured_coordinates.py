r"""Coordinates of random effects in which the search does not see the units and origins of covariates.

With :math:`\tilde Z_b = Z_b T_b`, columns orthonormal as far as the structure of the term allows, the model
is the same one with factors :math:`\lambda_b = T_b \tilde\lambda_b`, so that theta is a linear function of
its twin. A slope on calendar years is then as easy as one on years since the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.objective.structured import StructuredObjective
    from mixedmodels.solver.base import Solution

__all__ = ["OrthonormalTwin", "orthonormal_twin"]


@dataclass(frozen=True, slots=True, eq=False)
class OrthonormalTwin:
    """The same model in orthonormal columns.

    Attributes
    ----------
    objective : StructuredObjective
    outward, inward : ndarray, shape (n_theta, n_theta)
        ``psi = outward psi~`` and ``psi~ = inward psi``.
    columns : tuple of ndarray, one (k, k) per term
        T_b.
    """

    objective: StructuredObjective
    outward: np.ndarray
    inward: np.ndarray
    columns: tuple[np.ndarray, ...]

    def solution(self, psi: np.ndarray) -> Solution:
        """Estimates and predictions of the model at its own psi: those of the twin with ``b = T b~``."""
        found = self.objective.solution(self.inward @ psi)
        return replace(found, b=tuple([b @ T.T for b, T in zip(found.b, self.columns, strict=True)]))


def orthonormal_twin(objective: StructuredObjective) -> OrthonormalTwin | None:
    """The twin of an objective, or None where its columns cannot be changed.

    Terms that are not linear in theta, that share parameters or whose columns belong to different levels keep
    their columns.
    """
    if all([term.Z is None for term in objective.design.terms]):
        return None
    design, parameters = objective.design, objective._map
    terms, changes, changed = [], [], False
    for term, T, curved in zip(design.terms, parameters.orthonormal(design), parameters.curved, strict=True):
        if curved or term.several_levels or term.Z is None or np.array_equal(T, np.eye(term.k)):
            terms.append(term)
            changes.append(np.eye(term.k))
            continue
        terms.append(replace(term, Z=np.ascontiguousarray(term.Z @ T)))
        changes.append(T)
        changed = True
    if not changed:
        return None
    outward = np.eye(objective.n_theta)
    for b, (T, index, term) in enumerate(zip(changes, parameters.index, design.terms, strict=True)):
        if terms[b] is term:
            continue
        parts = term.covariance.factor_derivatives(np.zeros(term.covariance.n_theta))
        outward[np.ix_(index, index)] = np.array([term.covariance.theta_of(T @ E) for E in parts]).T
    twin = type(objective)(
        replace(design, terms=tuple(terms)),
        objective.reml,
        objective.sigma_fixed,
        objective.solver_name,
        fixed=objective.fixed,
    )
    twin.twin = None
    return OrthonormalTwin(twin, outward, np.linalg.inv(outward), tuple(changes))
