r"""General covariances between visits from the data alone: where the search for ``us`` and ``corr`` starts.

With :math:`\Sigma` the covariance of all errors of a group, seen or not, :math:`W_i` the inverse of its seen
part (zero elsewhere), :math:`A = \sum_i X_i'W_iX_i` and beta the generalised least-squares estimate,

.. math::
    \Sigma \leftarrow \frac1m \sum_i \Sigma W_i (r_i r_i' + X_iA^{-1}X_i') W_i \Sigma + \Sigma - \Sigma W_i
    \Sigma, \qquad r_i = y_i - X_i\beta,

is a step of the EM algorithm for REML; without the term of A it is that for ML. The criterion never rises,
no step leaves the positive definite matrices, and without missing visits and with means by visit one step
arrives.

Laird and Ware (1982), Random-effects models for longitudinal data, Biometrics 38, 963-974; Jennrich and
Schluchter (1986), Unbalanced repeated-measures models with structured covariance matrices, Biometrics 42,
805-820.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.residual.strata import StratifiedCorrelation
from mixedmodels.residual.us import BoundGeneral, Unstructured

__all__ = ["general_start", "visit_covariances"]

_STEPS = 25  # of EM
_SETTLED = 0.01  # of the change of Sigma in units of Sigma
_SINGULAR = 1e-10  # smallest eigenvalue of a correlation matrix that is a start
_SHRUNK = 0.1  # how far others go towards independence


def visit_covariances(
    y: np.ndarray,
    X: np.ndarray,
    groups: np.ndarray,
    visits: np.ndarray,
    strata: np.ndarray,
    n_visits: int,
    reml: bool,
    steps: int = _STEPS,
) -> np.ndarray:
    """Covariances between visits, by stratum, after some steps of the EM algorithm.

    Parameters
    ----------
    y : ndarray, shape (n,)
    X : ndarray, shape (n, p)
        Of full rank.
    groups : ndarray of intp, shape (n,)
        0, ..., m - 1; no visit twice in one group.
    visits : ndarray of intp, shape (n,)
    strata : ndarray of intp, shape (m,)
        Stratum of each group.
    n_visits : int
    reml : bool
    steps : int
        At most.

    Returns
    -------
    ndarray, shape (S, n_visits, n_visits)
    """
    m, S, V, p = strata.shape[0], int(strata.max()) + 1, n_visits, X.shape[1]
    Y, F, seen = np.zeros((m, V)), np.zeros((m, V, p)), np.zeros((m, V))
    Y[groups, visits], F[groups, visits], seen[groups, visits] = y, X, 1.0
    both = seen[:, :, None] * seen[:, None, :]
    unseen = (1.0 - seen)[:, :, None] * np.eye(V)
    count = np.bincount(strata, minlength=S).astype(float)
    r = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    first = np.bincount(strata[groups] * V + visits, r * r, S * V)
    rows = np.bincount(strata[groups] * V + visits, minlength=S * V)
    level = max(float(r @ r) / len(r), 1e-300)
    Sigma = np.zeros((S, V, V))
    Sigma[:, np.arange(V), np.arange(V)] = ((first + level) / (rows + 1.0)).reshape(S, V)
    for _ in range(steps):
        own = Sigma[strata]
        W = np.linalg.inv(own * both + unseen) * both
        WF = W @ F
        A = np.einsum("ivp,ivq->pq", F, WF)
        beta = np.linalg.solve(A, np.einsum("ivp,iv->p", WF, Y))
        B = own @ W
        e = np.einsum("iuv,iv->iu", B, Y - F @ beta)
        total = e[:, :, None] * e[:, None, :] + own - B @ own
        if reml:
            half = B @ F @ np.linalg.inv(np.linalg.cholesky(A)).T
            total += half @ half.transpose(0, 2, 1)
        before, Sigma = Sigma, np.zeros_like(Sigma)
        np.add.at(Sigma, strata, total)
        Sigma /= count[:, None, None]
        change = np.linalg.solve(before, Sigma) - np.eye(V)
        if float(np.abs(np.einsum("sij,sji->s", change, change)).max()) < _SETTLED**2:
            break
        if _smallest(Sigma) < _SINGULAR:
            break
    return Sigma


def _smallest(Sigma: np.ndarray) -> float:
    """Smallest eigenvalue of the correlation matrices of Sigma, (..., V, V)."""
    sd = np.sqrt(np.maximum(np.einsum("...vv->...v", Sigma), 1e-300))
    return float(np.linalg.eigvalsh(Sigma / sd[..., :, None] / sd[..., None, :]).min())


def general_start(bound: Any, y: np.ndarray, X: np.ndarray, reml: bool) -> np.ndarray | None:
    """Start of phi for a residual structure with a general correlation; None for others.

    Parameters
    ----------
    bound : CombinedResidual
    y : ndarray, shape (n,)
    X : ndarray, shape (n, p)
    reml : bool

    Returns
    -------
    ndarray, shape (n_phi,), or None
    """
    pieces = _pieces(bound)
    if pieces is None:
        return None
    n_visits = max(part.n_visits for _, part in pieces)
    visits, strata = np.zeros(bound.n, dtype=np.intp), np.zeros(bound.n, dtype=np.intp)
    for s, (rows, part) in enumerate(pieces):
        visits[rows], strata[rows] = part.features[:, 0], s
    used, groups = np.unique(bound.codes, return_inverse=True)
    of_group = np.zeros(len(used), dtype=np.intp)
    of_group[groups] = strata
    scale = np.exp(-bound.log_sd(bound.start))
    try:
        Sigma = visit_covariances(y * scale, X * scale[:, None], groups, visits, of_group, n_visits, reml)
        sd = np.sqrt(np.maximum(np.einsum("svv->sv", Sigma), 1e-300))
        found = [_z(part, Sigma[s], sd[s]) for s, (_, part) in enumerate(pieces)]
    except (np.linalg.LinAlgError, FloatingPointError):
        return None
    parts = bound.parts
    if isinstance(bound.factors[0], Unstructured):
        found.append(_log_ratios(parts[1], np.log(sd[strata, visits])))
    first = np.concatenate(found)
    out = bound.start.copy()
    own = bound.free < len(first)
    out[own] = first[bound.free[own]]
    return out if np.all(np.isfinite(out)) else None


def _pieces(bound: Any) -> list[tuple[Any, Any]] | None:
    """Rows and general correlation of each stratum; None for other structures."""
    correlation = getattr(bound, "correlation", None)
    pieces: list[tuple[Any, Any]]
    if isinstance(correlation, StratifiedCorrelation):
        pieces = [(rows, part) for _, rows, part in correlation.strata]
    else:
        pieces = [(np.arange(bound.n), correlation)]
    return pieces if all(isinstance(part, BoundGeneral) for _, part in pieces) else None


def _z(part: Any, Sigma: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Coordinates of the correlations of one stratum, away from singular ones."""
    V = part.n_visits
    C = (Sigma / sd / sd[:, None])[:V, :V]
    if float(np.linalg.eigvalsh(C)[0]) < _SINGULAR:
        C = (1.0 - _SHRUNK) * C + _SHRUNK * np.eye(V)
    i, j = np.tril_indices(V, -1)
    return np.asarray(part.inverse(C[i, j]))


def _log_ratios(part: Any, log_sd: np.ndarray) -> np.ndarray:
    """Coordinates of variances by level, given a logarithm for each row."""
    indicators = part.first(part.start)
    means = indicators @ log_sd / indicators.sum(axis=1)
    return np.asarray(means - log_sd[~indicators.any(axis=0)].mean())
