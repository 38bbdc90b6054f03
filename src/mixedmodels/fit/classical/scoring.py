"""Newton-Raphson, Fisher scoring and average information in the variance components."""

from __future__ import annotations

import numpy as np

from mixedmodels.fit.classical.search import Search, solve_information
from mixedmodels.optimize.optimum import Status

__all__ = ["scoring"]

KINDS = {"average-information": "average", "fisher": "expected", "newton-raphson": "observed"}
_PATIENCE = 6  # steps along the boundary of a covariance matrix before another method takes over
WORDS = {"average": "average", "expected": "fisher", "observed": "newton"}


def scoring(search: Search, method: str, limit: int = 200) -> None:
    r"""Steps :math:`\kappa + t\, I(\kappa)^{-1} \dot\ell(\kappa)` until the log-likelihood is at its maximum.

    I is the average, expected or observed information; the first ``rules.scoring`` rounds take the expected
    one, and so does a round whose observed information is not positive definite. The step is halved until it
    stays in the parameter space and does not lower the log-likelihood. A variance of a scalar or diagonal
    term that would turn negative stops at zero, and stays there while its score is negative.

    Parameters
    ----------
    search : Search
        Begun; left at the maximum, or with a status that says why not.
    method : {"average-information", "fisher", "newton-raphson"}
    limit : int
        Largest number of iterations.

    Notes
    -----
    Patterson & Thompson (1971), Biometrika 58:545-554; Jennrich & Sampson (1976), Technometrics 18:11-17;
    Gilmour, Thompson & Cullis (1995), Biometrics 51:1440-1450; Lynch & Walsh (1998), chapter 27.
    """
    own = KINDS[method]
    while True:
        kind = "expected" if search.iterations < search.rules.scoring else own
        step, kind = scoring_step(search, kind)
        if step is None:
            search.status = Status.NOT_POSITIVE_DEFINITE
            search.note = "the information matrix is not positive definite"
            return
        if search.measure(search.point.score, step):
            search.status = Status.CONVERGED
            search.last(search.kappa + step, WORDS[kind])
            return
        stop = search.stop(limit)
        if stop is not None:
            search.status = stop
            return
        search.iterations += 1
        ahead = "expected" if search.iterations < search.rules.scoring else own
        ended = advance(search, step, WORDS[kind], ahead)
        if search.slow >= _PATIENCE:
            search.status, search.note = Status.STALLED, "a covariance matrix became singular"
            return
        if ended is None:
            search.status = Status.STALLED
            return
        if ended:
            search.status = Status.CONVERGED
            return


def scoring_step(search: Search, kind: str) -> tuple[np.ndarray | None, str]:
    """The full step and the information it was made with."""
    space, point = search.space, search.point
    score = point.score
    held = ~search.free | (space.single & (search.kappa <= 0.0) & (score <= 0.0))
    free = np.flatnonzero(~held)
    step = np.zeros(space.size)
    for chosen in dict.fromkeys((kind, "expected", "average")):
        part = solve_information(point.information(chosen)[np.ix_(free, free)], score[free])
        if part is not None:
            step[free] = part
            return step, chosen
    return None, kind


def advance(search: Search, step: np.ndarray, word: str, ahead: str) -> bool | None:
    """Take the step, halved as often as needed; whether it counts as convergence, None if none is good."""
    t = 1.0
    for _ in range(search.rules.halvings + 1):
        target = search.kappa + t * step
        inside = target[-1] > 0.0
        if inside:
            target = search.space.project(target)
        point = search.at(target, ahead) if inside else None
        if point is not None and search.better(point) and not np.array_equal(target, search.kappa):
            off = np.abs(target - (search.kappa + t * step)) > 0.0
            search.slow += int((off & ~search.space.single).any() or t < 0.01)
            return search.accept(point, word, t)
        search.reject(target, point, word, t)
        t *= 0.5
    return None
