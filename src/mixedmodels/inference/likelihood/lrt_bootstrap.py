"""Parametric bootstrap of a likelihood-ratio statistic: simulate from the small model, refit both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.simulate import generator
from mixedmodels.inference.bootstrap.refits import refit_many
from mixedmodels.inference.likelihood.reduced import LeastSquares

__all__ = ["BootstrapLRT", "bootstrap_lrt", "check_draws"]

# responses held at a time
_VALUES = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class BootstrapLRT:
    """A likelihood-ratio statistic and its parametric bootstrap distribution under the small model.

    Attributes
    ----------
    statistic : float
    draws : ndarray, shape (n,)
        Statistics of the simulated responses; NaN where a fit failed.
    p_value : float
        ``(#{draws >= statistic} + 1) / (n + 1)``, over the draws that could be fitted.
    failures : tuple of (int, str)
        Draws that could not be fitted, with the reason.
    not_converged : int
        Draws used although an optimiser stopped early.
    """

    statistic: float
    draws: np.ndarray
    p_value: float
    failures: tuple[tuple[int, str], ...]
    not_converged: int

    def notes(self) -> list[str]:
        """What a reader must know about the draws."""
        n = len(self.draws)
        out = []
        if self.failures:
            out.append(
                f"{len(self.failures)} of {n} bootstrap draws could not be fitted and are left out of the "
                f"p-value (first: {self.failures[0][1]})"
            )
        if self.not_converged:
            out.append(f"{self.not_converged} of {n} bootstrap draws did not converge; they are counted")
        return out


def check_draws(n: Any) -> int:
    """`n` as a number of draws, at least 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n must be a whole number of draws, at least 1, got {n!r}")
    return int(n)


def bootstrap_lrt(
    small: Any,
    large: Any,
    n: int = 1000,
    seed: Any = None,
    n_jobs: int | None = None,
    progress: Any = None,
    shift: float = 0.0,
) -> BootstrapLRT:
    r"""Parametric bootstrap of ``2 (l_large - l_small)``.

    .. math:: p = \frac{\#\{T^*_i \ge T\} + 1}{n + 1}

    Parameters
    ----------
    small, large : LMMFit or LeastSquares
        Nested fits of the same data by the same criterion.
    n : int
        Draws.
    seed : int or Generator, optional
        All responses are drawn from it one after the other: the result does not depend on `n_jobs`.
    n_jobs, progress
        As `refit_many`.
    shift : float
        Constant added to every statistic: restricted likelihoods in different codings of one space.

    Returns
    -------
    BootstrapLRT

    References
    ----------
    Davison & Hinkley (1997), Bootstrap Methods and Their Application, sec. 4.2.
    """
    n = check_draws(n)
    rng = generator(seed)
    statistic = small.criterion - large.criterion + shift
    chunk = max(1, min(n, _VALUES // max(small.nobs, 1)))
    draws = np.empty(n)
    failures: dict[int, str] = {}
    stopped = 0
    for start in range(0, n, chunk):
        count = min(chunk, n - start)
        Y = small.simulate(count, seed=rng)
        lower, failed_small, good_small = _criteria(small, Y, n_jobs, progress)
        upper, failed_large, good_large = _criteria(large, Y, n_jobs, progress)
        draws[start : start + count] = lower - upper + shift
        good = good_small & good_large
        for j, why in (*failed_small, *failed_large):
            failures.setdefault(start + j, why)
            good[j] = True  # counted there
        stopped += int((~good).sum())
    fitted = np.isfinite(draws)
    if not fitted.any():
        raise OptionError(f"none of the {n} bootstrap draws could be fitted: {next(iter(failures.values()))}")
    # two statistics that differ by the accuracy of the criterion are equal: both 0 on the boundary
    tie = 1e-9 * (1.0 + abs(large.criterion))
    above = int((draws[fitted] >= statistic - tie).sum())
    p_value = (above + 1) / (int(fitted.sum()) + 1)
    draws.setflags(write=False)
    return BootstrapLRT(statistic, draws, p_value, tuple(sorted(failures.items())), stopped)


def _criteria(
    model: Any, Y: np.ndarray, n_jobs: int | None, progress: Any
) -> tuple[np.ndarray, tuple[tuple[int, str], ...], np.ndarray]:
    if isinstance(model, LeastSquares):
        return model.criteria(Y), (), np.ones(Y.shape[1], dtype=bool)
    refits = refit_many(model, Y, n_jobs=n_jobs, progress=progress)
    return refits.criterion, tuple(refits.failures), refits.converged
