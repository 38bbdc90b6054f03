"""Overdispersion and excess zeros of generalised models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.simulate import generator
from mixedmodels.inference.checks.leverage import leverages
from mixedmodels.inference.checks.simulated_residuals import has_zeros
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["check_overdispersion", "check_zero_inflation", "overdispersed_family", "pearson_ratio"]


def pearson_ratio(fit: GLMMFit) -> tuple[float, int, float]:
    """Sum of squared Pearson residuals, residual degrees of freedom, and upper chi-squared tail."""
    from scipy.special import gammaincc

    statistic = float(np.sum(_pearson(fit, fit.generalised.data) ** 2))
    df = fit.nobs - fit.df_model
    return statistic, df, float(gammaincc(0.5 * df, 0.5 * statistic)) if df > 0 else float("nan")


def check_overdispersion(fit: GLMMFit, n: int = 250, seed: Any = None) -> ResultTable:
    r"""Whether the response varies more (or less) than the family says.

    Row ``"pearson"``: :math:`\chi^2 = \sum_i r_i^2` with the Pearson residuals r at the conditional modes,
    over nobs minus the number of parameters; p from the upper tail of the chi-squared distribution, which is
    rough where means are small. Row ``"simulation"``: the mean of :math:`r_i^2/(1 - h_i)` with the leverages
    h, among those of responses drawn at the conditional modes; two-sided p, right also for small means.

    Parameters
    ----------
    fit : GLMMFit
    n : int
        Simulated responses, at least 20.
    seed : int, Generator or None

    Returns
    -------
    ResultTable
        Columns test, statistic, df, ratio (1 is expected), p_value.

    Raises
    ------
    OptionError
        A linear model, or a response of single 0s and 1s: their variance follows from their mean.

    Notes
    -----
    McCullagh & Nelder (1989), Generalized Linear Models, sec. 4.5; a conditional residual has variance
    :math:`1 - h_i` in units of the family's, random effects included (see `leverage`).

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("cbpp", backend="dict")
    >>> fit = mm.glmm("incidence ~ period + (1 | herd)", data, family="binomial", trials="size")
    >>> table = fit.check_overdispersion(seed=1)
    >>> table["df"].tolist(), round(float(table["ratio"][0]), 3)
    ([51.0, nan], 1.237)
    """
    _generalised(fit, "overdispersion")
    count = _simulations(n)
    family, data = fit.family, fit.generalised.data
    _can_be_overdispersed(fit)
    rng = generator(seed)
    statistic, df, p = pearson_ratio(fit)
    kept = np.maximum(1.0 - leverages(fit), 1e-10)
    observed = float(np.mean(_pearson(fit, data) ** 2 / kept))
    drawn = fit.simulate(count, rng, False)
    simulated = np.array([np.mean(_pearson(fit, data.with_y(y)) ** 2) for y in drawn.T])
    columns: dict[str, Any] = {
        "test": ["pearson", "simulation"],
        "statistic": np.array([statistic, observed * fit.nobs]),
        "df": np.array([float(df), np.nan]),
        "ratio": np.array([statistic / df if df > 0 else np.nan, observed / simulated.mean()]),
        "p_value": np.array([p, _two_sided(observed, simulated)]),
    }
    notes = [f"simulation: {count} responses drawn at the conditional modes"]
    if "dispersion" in fit.components:
        notes.append(
            f"family {family.name} estimates its dispersion, which draws the ratio towards 1: what is left "
            "tells whether the form of its variance fits"
        )
    elif p < 0.01 or columns["p_value"][1] < 0.01:
        notes.append(_remedy(fit, float(columns["ratio"][1])))
    return result_table("Overdispersion", columns, notes, fit._native)


def check_zero_inflation(fit: GLMMFit, n: int = 250, seed: Any = None) -> ResultTable:
    r"""Whether a response of counts has more (or fewer) zeros than the model expects.

    Row ``"fitted"``: the number expected at the conditional modes,
    :math:`\sum_i P(y_i = 0 \mid \hat\eta_i)`. Row ``"simulation"``: the mean number in responses drawn from
    the whole model, random effects anew, with a two-sided p-value.

    Parameters
    ----------
    fit : GLMMFit
    n : int
        Simulated responses, at least 20.
    seed : int, Generator or None

    Returns
    -------
    ResultTable
        Columns test, observed, expected, ratio, p_value.

    Raises
    ------
    OptionError
        The response has no zeros by its distribution, or is not a count.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("grouseticks", backend="dict")
    >>> fit = mm.glmm("TICKS ~ YEAR + (1 | BROOD)", data, family="poisson")
    >>> table = fit.check_zero_inflation(100, seed=1)
    >>> table["observed"].tolist()
    [126, 126]
    """
    _generalised(fit, "zero inflation")
    count = _simulations(n)
    if not has_zeros(fit):
        raise OptionError(
            f"zero inflation is a question about counts; family {fit.family.name!r} has no zeros, or its "
            "response is a single 0 or 1 or not a count"
        )
    family, data = fit.family, fit.generalised.data
    nothing = data.with_y(np.zeros(data.n))
    log_chance = family.derivatives(
        type(data)(nothing.y, data.trials, None, data.levels), list(fit._solution.eta), 0
    )
    expected = float(np.exp(log_chance[0]).sum())
    observed = int(np.count_nonzero(data.y == 0.0))
    simulated = np.count_nonzero(fit.simulate(count, generator(seed), True) == 0.0, axis=0)
    means = np.array([expected, float(simulated.mean())])
    p = _two_sided(float(observed), simulated.astype(float))
    columns: dict[str, Any] = {
        "test": ["fitted", "simulation"],
        "observed": np.array([observed, observed]),
        "expected": means,
        "ratio": np.divide(observed, means, out=np.full(2, np.nan), where=means > 0.0),
        "p_value": np.array([np.nan, p]),
    }
    notes = [f"simulation: {count} responses drawn from the model, random effects anew"]
    if p < 0.01 and observed > means[1]:
        notes.append(
            'more zeros than the model expects: try zero_inflation="~1", or a family with overdispersion '
            '("nbinom2"), which has more zeros too'
        )
    return result_table("Zeros", columns, notes, fit._native)


def _pearson(fit: GLMMFit, data: Any) -> np.ndarray:
    from mixedmodels.fit.glmm_residuals import glmm_residuals

    return glmm_residuals(fit.family, data, fit._solution.eta, "pearson")


def _generalised(fit: Any, what: str) -> None:
    if fit._is_linear:
        raise OptionError(
            f"{what} is a question about generalised models (glmm); a linear model estimates its residual "
            "variance: see diagnose() and residuals()"
        )


def _can_be_overdispersed(fit: GLMMFit) -> None:
    trials = fit.generalised.data.trials
    if fit.family.response == "categories":
        raise OptionError("the variance of a category follows from its probability: no overdispersion")
    if fit.family.response == "successes" and (trials is None or (trials <= 1.0).all()):
        raise OptionError(
            "a response of single 0s and 1s cannot be overdispersed: its variance follows from its mean; "
            "look at simulated_residuals() and their by_group()"
        )


def _simulations(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 20:
        raise OptionError(f"n must be a whole number of at least 20 simulations, got {n!r}")
    return int(n)


def _two_sided(observed: float, simulated: np.ndarray) -> float:
    slack = 1e-9 * (abs(observed) + 1e-300)
    above = np.count_nonzero(simulated >= observed - slack) + 1
    below = np.count_nonzero(simulated <= observed + slack) + 1
    return min(1.0, 2.0 * min(above, below) / (len(simulated) + 1))


def _remedy(fit: GLMMFit, ratio: float) -> str:
    if ratio < 1.0:
        return 'less variation than the family says (underdispersion): try family="com_poisson"'
    return f"overdispersion: try {overdispersed_family(fit)} or a random effect per row"


def overdispersed_family(fit: GLMMFit) -> str:
    """The option that gives the family of a fit a dispersion of its own."""
    name = fit.family.name
    if "binomial" in name and "negative" not in name:
        return 'family="betabinomial"'
    return f'family="{"truncated_" if "truncated" in name or "hurdle" in name else ""}nbinom2"'
