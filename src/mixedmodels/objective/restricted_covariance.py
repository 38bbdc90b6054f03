"""How well covariance parameters are known on the set that equations describe."""

from __future__ import annotations

import math

import numpy as np

from mixedmodels.objective.constrained import Equations, bending, tangent_basis
from mixedmodels.objective.unprofiled import UnprofiledCriterion

__all__ = ["restricted_covariance"]

_AT_BOUND = 1e-8


def restricted_covariance(
    whole: UnprofiledCriterion,
    equations: Equations,
    psi: np.ndarray,
    exact: bool,
    information: np.ndarray | None = None,
) -> np.ndarray:
    r"""Covariance matrix of (psi, log sigma^2) on the set that the equations describe.

    With N a basis of its tangents and H the Hessian of the Lagrangian, :math:`2 N (N'HN)^{-1} N'`.

    Parameters
    ----------
    whole : UnprofiledCriterion
    equations : Equations
    psi : ndarray
        The minimum; parameters on a bound count as known.
    exact : bool
        The Hessian, or average information.
    information : ndarray, optional
        In (psi, log sigma^2); takes the place of both.
    """
    objective = whole.objective
    y = np.append(psi, math.log(objective.sigma(psi)))[: whole.size]
    unit = np.ones(whole.size)
    unit[objective.n_theta :] = 2.0  # d log sigma^2 / d log sigma
    _, slopes = equations.at(whole.psi(y), whole.tau(y))
    slopes = np.where(np.isfinite(slopes), slopes, 0.0)[:, : whole.size]
    if information is not None:
        H = information * unit * unit[:, None]
    else:
        _, g, H = whole.second(y, exact)
        multipliers = np.linalg.lstsq(slopes.T, g, rcond=None)[0]
        H = H - bending(whole, equations, y, multipliers)
    low, high = np.asarray(objective.lower), np.asarray(objective.upper)
    bound = np.flatnonzero((psi - low <= _AT_BOUND) | (high - psi <= _AT_BOUND))
    scale = np.sqrt(np.maximum(np.abs(np.diagonal(H)), 1e-300))
    N = tangent_basis(np.concatenate([slopes, np.eye(whole.size)[bound]]) / scale) / scale[:, None]
    inner = N.T @ H @ N
    V = 2.0 * N @ np.linalg.pinv(inner, rcond=1e-13, hermitian=True) @ N.T
    return V * unit * unit[:, None]
