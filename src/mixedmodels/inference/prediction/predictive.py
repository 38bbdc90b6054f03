r"""Quantiles of a new response: its distribution averaged over the error of its linear predictors.

.. math:: F_i(y) = \int F(y \mid \eta)\,N(\eta;\, \hat\eta_i, S_i)\,d\eta \approx \sum_q w_q F(y \mid \eta_q)

along the principal axes of :math:`S_i`: evenly spaced points on the longest (where F may be a step), five
Gauss-Hermite nodes on the second, and three on each further one, taken one at a time. The quantile at p is
the smallest y with :math:`F_i(y) \ge p`, found by bisection: a whole number for counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.family import Observations

if TYPE_CHECKING:
    from mixedmodels.family import Family

__all__ = ["predictive_quantiles", "predictive_sd"]

_CHUNK = 1_000_000


def _rule(axes: int, fine: bool) -> tuple[np.ndarray, np.ndarray]:
    """Points of the standard normal distribution, (q, axes), longest axis last, and weights."""
    from numpy.polynomial.hermite_e import hermegauss

    first = np.linspace(-8.0, 8.0, (241 if axes == 1 else 65) if fine else 17)
    w = np.exp(-0.5 * first * first)
    points, w = first[:, None], w / w.sum()
    if axes > 1:
        second, v = hermegauss(5 if fine else 3)
        grid = np.array(np.meshgrid(second, first, indexing="ij")).reshape(2, -1).T
        points, w = grid, np.outer(v / v.sum(), w).reshape(-1)
    if axes > 2:  # three nodes: 0 and +-sqrt(3), weights 2/3 and 1/6
        others = axes - 2
        moves = np.vstack([np.zeros(others), np.sqrt(3.0) * np.eye(others), -np.sqrt(3.0) * np.eye(others)])
        share = np.concatenate([[1.0 - others / 3.0], np.full(2 * others, 1.0 / 6.0)])
        points = np.hstack([np.repeat(moves, len(w), axis=0), np.tile(points, (len(moves), 1))])
        w = np.outer(share, w).reshape(-1)
    return points, w


def _spread(eta: np.ndarray, S: np.ndarray, fine: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Points of each row, (C, q, rows), and weights."""
    moving = np.flatnonzero(S[np.arange(len(S)), np.arange(len(S))].max(axis=1) > 0.0)
    if not moving.size:
        return eta[:, None, :], np.ones(1)
    values, vectors = np.linalg.eigh(np.moveaxis(S[np.ix_(moving, moving)], 2, 0))  # ascending
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    points, w = _rule(moving.size, fine)
    out = np.repeat(eta[:, None, :], len(w), axis=1)
    out[moving] += np.einsum("rca,qa->cqr", root, points)
    return out, w


def _chunks(S: np.ndarray) -> list[slice]:
    """Rows by the million points."""
    rows = S.shape[2]
    axes = int((np.abs(S).max(axis=(1, 2)) > 0.0).sum()) if rows else 0
    step = max(1, _CHUNK // (len(_rule(axes, True)[1]) if axes else 1))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def _observations(y: np.ndarray, trials: np.ndarray | None, q: int, levels: tuple) -> Observations:
    return Observations(np.tile(y, q), None if trials is None else np.tile(trials, q), levels=levels)


def predictive_quantiles(
    family: Family,
    eta: np.ndarray,
    S: np.ndarray,
    trials: np.ndarray | None,
    tails: tuple[float, ...],
    levels: tuple = (),
) -> list[np.ndarray]:
    """Quantiles of new responses, one array (rows,) per tail; of counts, or of successes out of the trials.

    Parameters
    ----------
    family : Family
    eta : ndarray, shape (C, rows)
        Finite.
    S : ndarray, shape (C, C, rows)
        Covariance of the error of eta.
    trials : ndarray, shape (rows,), or None
    tails : tuple of float

    Raises
    ------
    OptionError
        The family has no distribution function.

    Examples
    --------
    >>> from mixedmodels.family import get_family
    >>> eta, S = np.log([[4.0, 4.0]]), np.array([[[0.0, 1.0]]])
    >>> [q.tolist() for q in predictive_quantiles(get_family("poisson"), eta, S, None, (0.025, 0.975))]
    [[1.0, 0.0], [8.0, 29.0]]
    """
    rows = eta.shape[1]
    out = [np.empty(rows) for _ in tails]
    for at in _chunks(S):
        rules = [_spread(eta[:, at], S[:, :, at], fine) for fine in (False, True)]
        own = None if trials is None else trials[at]
        for found, tail in zip(out, tails, strict=True):
            found[at] = _quantile(family, rules, own, tail, levels)
    return out


class _Mixture:
    """The distribution function of responses averaged over points."""

    def __init__(
        self, family: Family, points: np.ndarray, w: np.ndarray, trials: np.ndarray | None, levels: tuple
    ) -> None:
        C, self.q, self.rows = points.shape
        self.family, self.w, self.trials, self.levels = family, w, trials, levels
        self.eta = list(points.reshape(C, -1))
        with np.errstate(all="ignore"):
            means = np.asarray(family.mean(self.eta), dtype=float).reshape(self.q, self.rows)
        means = np.where(np.isfinite(means), means, 0.0)
        self.center = w @ means
        self.sd = np.sqrt(np.maximum(w @ (means - self.center) ** 2, 0.0))

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """``F(y)`` of each row."""
        with np.errstate(all="ignore"):
            data = _observations(np.maximum(y, 0.0) if self.counts else y, self.trials, self.q, self.levels)
            upto = np.asarray(self.family.cdf(data, self.eta)[1])
        upto = np.broadcast_to(upto, (self.q * self.rows,)).reshape(self.q, self.rows)
        # outside the support: nothing below the mean, everything above
        upto = np.where(np.isnan(upto), (y > self.center).astype(float), upto)
        found = self.w @ upto
        return np.where(y < 0.0, 0.0, found) if self.counts else found

    @property
    def counts(self) -> bool:
        """Whether responses are whole numbers."""
        return self.family.response in ("count", "successes", "categories")


def _quantile(
    family: Family, rules: list[Any], trials: np.ndarray | None, tail: float, levels: tuple
) -> np.ndarray:
    coarse, fine = [_Mixture(family, points, w, trials, levels) for points, w in rules]
    if not fine.counts:
        spread = fine.sd + np.abs(fine.center) + 1.0
        return _bisect(coarse if fine.q == 1 else fine, tail, fine.center - spread, fine.center + spread, 0.0)
    top: Any = np.inf
    if family.response == "successes":
        top = np.ones(fine.rows) if trials is None else trials.astype(float)
    near = np.minimum(np.ceil(fine.center), top)
    near = _bisect(coarse, tail, np.full(fine.rows, -1.0), near, 1.0)
    return np.minimum(_bisect(fine, tail, near - 1.0, near, 1.0), top)


def _bisect(below: _Mixture, tail: float, low: np.ndarray, high: np.ndarray, unit: float) -> np.ndarray:
    """The smallest y, a multiple of `unit` unless it is 0, with F(y) >= tail; the bracket may be wrong."""
    floor = -1.0 if unit else -np.inf
    step = np.maximum(high - low, unit)
    for _ in range(100):
        short = below(high) < tail
        if not short.any():
            break
        low, high = np.where(short, high, low), np.where(short, high + step, high)
        step = np.where(short, 2.0 * step, step)
    step = np.maximum(high - low, unit)
    for _ in range(100):
        over = (below(low) >= tail) & (low > floor)
        if not over.any():
            break
        high, low = np.where(over, low, high), np.where(over, np.maximum(low - step, floor), low)
        step = np.where(over, 2.0 * step, step)
    for _ in range(200):
        open_ = high - low > (unit if unit else 1e-10 * np.maximum(np.abs(low), np.abs(high)))
        if not open_.any():
            break
        y = 0.5 * (low + high)
        y = np.floor(y) if unit else y
        enough = below(y) >= tail
        high, low = np.where(open_ & enough, y, high), np.where(open_ & ~enough, y, low)
    return high


def predictive_sd(
    family: Family, eta: np.ndarray, S: np.ndarray, trials: np.ndarray | None
) -> np.ndarray | None:
    """Root of ``E Var(y | eta) + Var E(y | eta)``, shape (rows,); None for families without a variance."""
    rows = eta.shape[1]
    out = np.empty(rows)
    for at in _chunks(S):
        points, w = _spread(eta[:, at], S[:, :, at])
        C, q, n = points.shape
        flat = list(points.reshape(C, -1))
        own = None if trials is None else trials[at]
        data = _observations(np.zeros(n), own, q, ())
        try:
            with np.errstate(all="ignore"):
                variance = np.broadcast_to(family.variance(data, flat), (q * n,)).reshape(q, n)
                mean = np.broadcast_to(family.mean(flat), (q * n,)).reshape(q, n)
        except OptionError:
            return None
        if own is not None:
            variance = variance / own**2
        with np.errstate(all="ignore"):
            center = w @ mean
            out[at] = np.sqrt(w @ variance + w @ (mean - center) ** 2)
    return out
