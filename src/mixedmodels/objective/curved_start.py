"""Starting values of models with structures that are not linear in theta: the best of a few candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.covariance.us import Unstructured
from mixedmodels.errors import SolverError
from mixedmodels.objective.start import ols_residual

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm
    from mixedmodels.objective.lmm_criterion import LMMCriterion

__all__ = ["curved_start", "general_terms", "moment_covariance", "starts_near_general", "term_candidates"]

_INSIDE = 0.05  # starts keep this share of the distance between two finite bounds
_SMALL = 0.1  # smallest start of a standard deviation, in units of the residuals
_AWAY = (0.1, 0.01)  # how far from bounds searches begin near the estimates of a general covariance
_GENERAL = 6  # columns up to which a general covariance is estimated for a start


def curved_start(objective: LMMCriterion) -> np.ndarray:
    """Starting theta, shape (n_theta,): the candidates of each term are tried in turn.

    Parameters
    ----------
    objective : LMMObjective
    """
    design, index = objective.design, objective._map.index
    w = np.ones(design.n) if design.weights is None else design.weights
    r = ols_residual(design.y, design.X, design.offset, w)
    df = max(design.n - design.p, 1)
    error = objective.sigma_fixed**2 if objective.sigma_fixed is not None else 0.5 * float(w @ r**2) / df
    lists = [term_candidates(term, r, w, error, design) for term in design.terms]
    theta = np.zeros(objective.n_theta)
    for own, found in zip(index, lists, strict=True):
        theta[own] = found[0]
    theta = np.clip(theta, objective.lower, objective.upper)
    best = _value(objective, theta)
    for own, found in zip(index, lists, strict=True):
        for candidate in found[1:]:
            trial = theta.copy()
            trial[own] = candidate
            trial = np.clip(trial, objective.lower, objective.upper)
            value = _value(objective, trial)
            if value < best:
                best, theta = value, trial
    return theta


def _value(objective: LMMCriterion, theta: np.ndarray) -> float:
    try:
        value = objective.value(theta)
    except (SolverError, np.linalg.LinAlgError):
        return np.inf
    return value if value == value else np.inf


def term_candidates(
    term: RandomTerm, r: np.ndarray, w: np.ndarray, error: float, design: Design
) -> list[np.ndarray]:
    """Candidates for the theta of one term, the plainest first.

    Parameters
    ----------
    term : RandomTerm
    r, w : ndarray, shape (n,)
        Residuals of least squares and weights.
    error : float
        What to take for the residual variance.
    design : Design
    """
    structure = term.covariance
    share = 1.0 / len(design.terms)
    squares = np.ones(1) if term.Z is None else _mean_squares(term.Z)
    sd = np.sqrt(share / squares)
    R = structure.sigma(structure.start)
    size = np.sqrt(np.maximum(np.diagonal(R), 1e-300))
    plain = structure.theta_near(R / size / size[:, None] * sd * sd[:, None])
    out = [_inside(term, plain)]
    correlation: Any = getattr(structure, "correlation", None)
    if hasattr(correlation, "candidates"):
        found = correlation.candidates()
        return [_inside(term, np.concatenate([plain[: -len(psi)], psi])) for psi in found]
    if term.m >= 3 and error > 0.0:
        Sigma = moment_covariance(term, r, w, error)
        floor = _SMALL * sd
        out.append(_inside(term, structure.theta_near(share * Sigma / error + np.diag(floor**2))))
    return out


def general_terms(
    terms: Sequence[RandomTerm], index: Sequence[np.ndarray], theta: np.ndarray
) -> tuple[RandomTerm, ...] | None:
    """The terms with general covariances in place of those at a bound of a structure not linear in theta.

    There one side of a correlation, or a standard deviation of zero, may be a minimum of its own; a general
    covariance knows no such sides. None where no term is at a bound or one has too many columns.

    Parameters
    ----------
    terms : sequence of RandomTerm
    index : sequence of ndarray
        Places of each term's parameters in theta.
    theta : ndarray
    """
    out, found = [], False
    for term, own in zip(terms, index, strict=True):
        structure, at = term.covariance, theta[own]
        if hasattr(structure, "correlation"):
            near = 1e-4 * np.where(np.isfinite(structure.upper - structure.lower), structure.upper, 1.0)
            if np.any(at - structure.lower < near) or np.any(structure.upper - at < near):
                if not 1 < term.k <= _GENERAL:
                    return None
                term = replace(term, covariance=Unstructured(term.k))
                found = True
        out.append(term)
    return tuple(out) if found else None


def starts_near_general(
    terms: Sequence[RandomTerm],
    index: Sequence[np.ndarray],
    general: Sequence[RandomTerm],
    general_index: Sequence[np.ndarray],
    theta: np.ndarray,
    factors: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Theta near the estimates with general covariances, the farthest from bounds first.

    Parameters
    ----------
    terms, index
        As for `general_terms`.
    general, general_index
        What `general_terms` made of them, and the places of their parameters.
    theta : ndarray
        Estimates with general covariances.
    factors : sequence of ndarray, shape (k, k)
        Their relative factors.
    """
    starts = []
    for away in _AWAY:
        start = np.zeros(max([int(own.max()) for own in index]) + 1)
        for term, own, other, part, factor in zip(terms, index, general, general_index, factors, strict=True):
            start[own] = theta[part] if other is term else _near_general(term, np.asarray(factor), away)
        starts.append(start)
    return starts


def _near_general(term: RandomTerm, factor: np.ndarray, away: float) -> np.ndarray:
    """Theta of a structure near a general covariance; `away` is added to its standard deviations."""
    squares = np.ones(term.k) if term.Z is None else _mean_squares(term.Z)
    Sigma = factor @ factor.T + np.diag(away**2 / squares)
    return _inside(term, term.covariance.theta_near(Sigma), _INSIDE * away / _AWAY[0])


def _mean_squares(Z: np.ndarray) -> np.ndarray:
    """Mean squares of the columns over the rows in which they are not zero."""
    used = np.maximum(np.count_nonzero(Z, axis=0), 1)
    squares = np.einsum("ij,ij->j", Z, Z) / used
    return np.where(squares > 0.0, squares, 1.0)


def _inside(term: RandomTerm, theta: np.ndarray, share: float = _INSIDE) -> np.ndarray:
    """Parameters away from both bounds where both are finite, and not at a standard deviation of zero."""
    lower, upper = term.covariance.lower, term.covariance.upper
    both = np.isfinite(lower) & np.isfinite(upper)
    gap = np.where(both, share * (np.where(both, upper, 1.0) - np.where(both, lower, 0.0)), 0.0)
    return np.clip(theta, lower + gap, upper - gap)


def moment_covariance(term: RandomTerm, r: np.ndarray, w: np.ndarray, error: float) -> np.ndarray:
    """Covariance of a term's effects from products of its column sums, positive semi-definite, (k, k).

    With ``c_l = Z_l' W r`` and ``d_l`` the diagonal of ``Z_l' W Z_l``, exact in the mean for columns that do
    not overlap in a row: ``E c_li c_lj = d_li d_lj Sigma_ij + [i = j] sigma^2 d_li``.
    """
    m, k, codes = term.m, term.k, term.codes
    c, d = np.empty((m, k)), np.empty((m, k))
    for j in range(k):
        z = None if term.Z is None else term.Z[:, j]
        c[:, j] = np.bincount(codes, w * r if z is None else w * r * z, m)
        d[:, j] = np.bincount(codes, w if z is None else w * z * z, m)
    products, sizes = c.T @ c, d.T @ d
    products[np.diag_indices(k)] -= error * d.sum(axis=0)
    Sigma = np.divide(products, sizes, out=np.zeros((k, k)), where=sizes > 0.0)
    values, vectors = np.linalg.eigh(Sigma)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T
