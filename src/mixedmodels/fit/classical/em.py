"""EM and ECME in the variance components."""

from __future__ import annotations

import numpy as np

from mixedmodels.fit.classical.scoring import scoring_step
from mixedmodels.fit.classical.search import Search
from mixedmodels.optimize.optimum import Status

__all__ = ["ecme_step", "expectation_maximisation"]


def expectation_maximisation(search: Search, method: str, limit: int = 5000) -> None:
    r"""Iterate EM (all components by their expected squares) or ECME (sigma^2 by the likelihood itself).

    Neither step lowers the likelihood. Convergence is linear, so that a small change is no sign of the
    maximum: the default rule asks for the predicted decrease of an average-information step.

    Parameters
    ----------
    search : Search
        Begun.
    method : {"em", "ecme"}
    limit : int

    Notes
    -----
    Dempster, Laird & Rubin (1977); Laird & Ware (1982), Biometrics 38:963-974; Liu & Rubin (1994),
    Biometrika 81:633-648; Schafer (1998), eq. 24-29 and 34-41.
    """
    by_decrement = search.rules.convergence == "decrement"
    kind = "average" if by_decrement else None
    while True:
        if by_decrement:
            step, _ = scoring_step(search, "average")
            if step is not None and search.measure(search.point.score, step):
                search.status = Status.CONVERGED
                return
        stop = search.stop(limit)
        if stop is not None:
            search.status = stop
            return
        search.iterations += 1
        target = search.space.em(search.point) if method == "em" else ecme_step(search)
        point = search.at(target, kind)
        if point is None or point.loglik < search.point.loglik - 1e-9 * (1.0 + abs(search.point.loglik)):
            search.reject(target, point, method, np.nan)
            search.status = Status.STALLED
            return
        if search.accept(point, method):
            search.status = Status.CONVERGED
            return


def ecme_step(search: Search) -> np.ndarray:
    r"""Components after one step of ECME.

    With :math:`\xi = \Sigma/\sigma^2`: sigma^2 is first put to its maximum given xi, then xi moves by EM, and
    sigma^2 to its maximum again.
    """
    space = search.space
    theta = space.theta(search.kappa)
    point = search.point
    best = _profiled(search)
    if abs(best - point.sigma2) > 1e-12 * best:
        point = space.point(space.kappa_of(theta, best))
    moved = space.em(point)
    moved[:-1] *= 1.0 / best
    Sigmas = space.sigmas(moved)
    if space.objective.sigma_fixed is not None:
        return space.kappa([best * Sigma for Sigma in Sigmas], best)
    relative = space.kappa(Sigmas, 1.0)
    return space.kappa_of(space.theta(relative))


def _profiled(search: Search) -> float:
    """The best sigma^2 at the relative covariances of where the search is."""
    fixed = search.space.objective.sigma_fixed
    return fixed**2 if fixed is not None else float(search.point._parts.pwrss) / search.point._nu
