"""One model fitted to many responses: what bootstrap, simulation tests and power are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Refits", "refit_many"]


@dataclass(frozen=True, slots=True, eq=False)
class Refits:
    """Estimates from N responses of one model.

    Attributes
    ----------
    beta : ndarray, shape (N, p)
    se : ndarray, shape (N, p)
        Standard errors of each replicate.
    sigma : ndarray, shape (N,)
    theta : ndarray, shape (N, n_theta)
    criterion : ndarray, shape (N,)
        What was minimised (-2 log-likelihood, REML or ML as the fit).
    converged : ndarray of bool, shape (N,)
    failures : tuple of (int, str)
        Replicates that could not be fitted, with the reason; their rows are NaN.
    """

    beta: np.ndarray
    se: np.ndarray
    sigma: np.ndarray
    theta: np.ndarray
    criterion: np.ndarray
    converged: np.ndarray
    failures: tuple[tuple[int, str], ...] = ()


def refit_many(fit: LMMFit, Y: np.ndarray, n_jobs: int | None = None, progress: Any = None) -> Refits:
    """Fit the model of `fit` to each column of Y, starting from the estimates of `fit`.

    Parameters
    ----------
    fit : LMMFit
    Y : ndarray, shape (nobs, N)
    n_jobs : int, optional
        Threads; None takes all cores. The result does not depend on it.
    """
    from mixedmodels.errors import MixedModelsError

    N, p = Y.shape[1], fit.design.p
    beta, se = np.full((N, p), np.nan), np.full((N, p), np.nan)
    sigma, criterion = np.full(N, np.nan), np.full(N, np.nan)
    theta = np.full((N, len(fit.theta)), np.nan)
    converged = np.zeros(N, dtype=bool)
    failures = []
    for j in range(N):
        try:
            new = fit.refit(Y[:, j])
        except MixedModelsError as error:
            failures.append((j, str(error)))
            continue
        beta[j], se[j], sigma[j] = new.beta, list(new.se.values()), new.sigma
        theta[j], criterion[j], converged[j] = new.theta, new.criterion, new.converged
    return Refits(beta, se, sigma, theta, criterion, converged, tuple(failures))
