"""One likelihood-ratio test between two fits: statistic, p-value by the method asked for, what to say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.likelihood.boundary import chi_squared_tail, mixture_tail, one_boundary_variance
from mixedmodels.inference.likelihood.lrt_bootstrap import bootstrap_lrt

__all__ = ["LRT_METHODS", "LikelihoodRatio", "Resampling", "check_method", "likelihood_ratio"]

LRT_METHODS = ("chi2", "mixture", "bootstrap")


@dataclass(frozen=True, slots=True)
class Resampling:
    """Options of the parametric bootstrap: draws, seed, threads, progress."""

    n: int = 1000
    seed: Any = None
    n_jobs: int | None = None
    progress: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodRatio:
    """Statistic, degrees of freedom and p-value of one test, with notes and bootstrap draws if any."""

    statistic: float
    df: int
    p_value: float
    notes: tuple[str, ...] = ()
    draws: np.ndarray | None = None


def check_method(method: str, methods: tuple[str, ...]) -> str:
    """`method` if it is among the available ones, else an error that lists them."""
    if method not in methods:
        raise OptionError(f"method {method!r} is unknown; available: {', '.join(methods)}")
    return method


def likelihood_ratio(
    small: Any,
    large: Any,
    method: str,
    df: int,
    boundary: int | None,
    what: str,
    shift: float = 0.0,
    resampling: Resampling | None = None,
    edge: str = "a variance of zero",
) -> LikelihoodRatio:
    r"""Test of a small model inside a large one.

    .. math:: T = 2(\ell_1 - \ell_0) \sim \chi^2_{df} \quad\text{or}\quad
              \tfrac12\chi^2_{df-1} + \tfrac12\chi^2_{df} \quad\text{(one variance on its boundary)}

    Parameters
    ----------
    small, large : LMMFit or LeastSquares
    method : {"chi2", "mixture", "bootstrap"}
    df : int
        Parameters tested.
    boundary : int or None
        Variances that are zero where the small model is true; None if that is not known.
    what : str
        Names the test in notes.
    shift : float
        Added to the statistic: restricted likelihoods in different codings of one space.
    resampling : Resampling, optional
        For the bootstrap.
    edge : str
        What is on the boundary, in notes.
    """
    statistic = small.criterion - large.criterion + shift
    notes: list[str] = []
    if statistic < -1e-6 * (1.0 + abs(small.criterion)):
        notes.append(
            f"{what}: the larger model has the lower likelihood: its fit stopped short of the optimum "
            "(see fit.optimum), or the models are not nested"
        )
    statistic = max(statistic, 0.0)
    if method == "bootstrap":
        options = resampling or Resampling()
        result = bootstrap_lrt(small, large, options.n, options.seed, options.n_jobs, options.progress, shift)
        notes += [f"{what}: {note}" for note in result.notes()]
        return LikelihoodRatio(statistic, df, result.p_value, tuple(notes), result.draws)
    if df <= 0:
        notes.append(
            f"{what}: the smaller model has as many parameters as the larger one, so it is not inside "
            'it (parameters are shared) and there is no chi-squared test; method="bootstrap" simulates it'
        )
        return LikelihoodRatio(statistic, df, math.nan, tuple(notes))
    if method == "mixture" and boundary is None:
        notes.append(
            f"{what}: the models could not be shown to be nested, so the boundary mixture is not known; "
            'method="bootstrap" simulates the test'
        )
        return LikelihoodRatio(statistic, df, math.nan, tuple(notes))
    if method == "mixture" and boundary == 1:
        if small.is_singular:
            notes.append(
                f"{what}: the smaller model is singular itself; the mixture assumes that its own variances "
                'are positive; method="bootstrap" does not'
            )
        weights = one_boundary_variance(df)
        return LikelihoodRatio(statistic, df, mixture_tail(statistic, weights), tuple(notes))
    if method == "mixture" and boundary:
        notes.append(
            f"{what}: {boundary} variances are tested at once; the weights of their mixture depend on the "
            'information matrix and are not known in closed form; method="bootstrap" simulates the test'
        )
        return LikelihoodRatio(statistic, df, math.nan, tuple(notes))
    if boundary:
        notes.append(
            f"{what}: {edge} is on the boundary, so the chi-squared p-value is conservative (too "
            'large); method="mixture" or "bootstrap" corrects it'
        )
    return LikelihoodRatio(statistic, df, chi_squared_tail(statistic, df), tuple(notes))
