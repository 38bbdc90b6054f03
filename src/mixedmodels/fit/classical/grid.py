"""A grid over the shares of the components in the variance."""

from __future__ import annotations

from itertools import product

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.classical.search import Search

__all__ = ["grid"]

_LARGEST = 5_000  # points


def grid(search: Search) -> None:
    """The log-likelihood on a grid of shares, the total variance at its best; left at the best point.

    Covariances are zero on the grid. The shares of the random effects take ``rules.points`` (at most,
    with many terms fewer) equally spaced values between 0 and 1; what is left is the error's.

    Parameters
    ----------
    search : Search
        Begun.
    """
    space, count = search.space, search.rules.points
    variances = np.flatnonzero(space.variances)[:-1]
    if len(variances):
        count = min(count, int(_LARGEST ** (1.0 / len(variances))))
    if count < 2:
        raise OptionError(f"a grid over {len(variances)} variances is too large; choose another method")
    shares = np.linspace(0.0, 1.0, count + 1)[:-1]
    best = None
    for choice in product(shares, repeat=len(variances)):
        error = 1.0 - sum(choice)
        if error <= 1e-9:
            continue
        kappa = np.zeros(space.size)
        kappa[variances] = np.array(choice) / np.maximum(space.loads[variances], 1e-300)
        kappa[-1] = error
        kappa = space.kappa_of(space.theta(kappa))  # the ratios, with the total at its best
        point = search.at(kappa, None)
        if point is None:
            continue
        search.recorder.add(0, "grid", point.loglik, kappa)
        if best is None or point.loglik > best.loglik:
            best = point
    if best is not None:
        for row in search.recorder.rows[1:]:
            row[5] = False
        search.kappa, search.point = best.values, best
        search.recorder.add(0, "best of grid", best.loglik, best.values)
