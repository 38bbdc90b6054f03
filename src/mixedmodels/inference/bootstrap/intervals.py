r"""Confidence intervals from bootstrap draws: percentile, basic, normal, studentized and BCa.

With estimate t, draws :math:`t^*` and :math:`q_a` the (N + 1) a-th smallest of them:

.. math::
    \text{percentile}\quad & (q_\alpha,\ q_{1-\alpha}) \\
    \text{basic}\quad & (2t - q_{1-\alpha},\ 2t - q_\alpha) \\
    \text{normal}\quad & t - \mathrm{bias} \pm z_{1-\alpha}\,\mathrm{sd}(t^*) \\
    \text{studentized}\quad & (t - z^*_{1-\alpha}\,\mathrm{se},\ t - z^*_\alpha\,\mathrm{se}),
        \qquad z^* = (t^* - t)/\mathrm{se}^* \\
    \text{BCa}\quad & \text{percentile at } \Phi\Bigl(z_0 + \frac{z_0 + z_\alpha}{1 - a(z_0 + z_\alpha)}\Bigr)

(Davison & Hinkley 1997, chapter 5; Efron 1987, JASA 82:171-185).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import MixedModelsError, OptionError
from mixedmodels.fit.wald import check_level, percent
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.inference.bootstrap.result import Bootstrap

__all__ = [
    "basic",
    "bca",
    "bootstrap_confint",
    "intervals",
    "jackknife_acceleration",
    "normal",
    "percentile",
    "studentized",
]

KINDS = ("normal", "basic", "studentized", "percentile", "bca")
_FEWEST = 40  # draws below which no quantile of a tail exists
_MOST_REFITS = 200  # refits a jackknife makes; with more levels it leaves out blocks of them


def bootstrap_confint(
    fit: LMMFit,
    level: float = 0.95,
    parameters: Any = None,
    *,
    n: int = 1000,
    seed: Any = None,
    kind: str = "percentile",
    resampling: str = "parametric",
    **options: Any,
) -> ResultTable:
    """Bootstrap a fit and return its intervals: what ``fit.confint("bootstrap", ...)`` does.

    Parameters
    ----------
    fit : LMMFit
    level : float
    parameters : str or sequence of str, optional
    n, seed : int
    kind : str
        Of interval; see `Bootstrap.confint`.
    resampling : {"parametric", "residual", "cluster"}
    **options
        Of `mixedmodels.inference.bootstrap.run.bootstrap`.
    """
    from mixedmodels.inference.bootstrap.run import bootstrap

    check_kind(kind)
    check_level(level)
    boot = bootstrap(fit, n, seed, kind=resampling, **options)
    return boot.confint(kind, level, parameters, options.get("groups"))


def check_kind(kind: str) -> tuple[str, ...]:
    """The kinds that a word stands for.

    Raises
    ------
    OptionError
    """
    if kind == "all":
        return KINDS
    if kind == "studentised":
        kind = "studentized"
    if kind not in KINDS:
        raise OptionError(f"interval kind {kind!r} is unknown; available: {', '.join(KINDS)}, all")
    return (kind,)


def intervals(
    boot: Bootstrap, kind: str = "percentile", level: float = 0.95, parameters: Any = None, groups: Any = None
) -> ResultTable:
    """Confidence intervals of a bootstrap; see `Bootstrap.confint`.

    Returns
    -------
    ResultTable
        term, group, estimate, conf_low, conf_high; with ``"all"`` a last column kind and one row per
        parameter and kind that it has, all from the same draws.
    """
    kinds, level = check_kind(kind), check_level(level)
    positions = boot.positions(parameters)
    p = boot.se.shape[1]
    notes = list(boot.notes)
    acceleration: np.ndarray | None = None
    if "bca" in kinds and not _has_groups(boot.fit):
        if len(kinds) == 1:
            raise OptionError(
                "BCa intervals leave out the levels of a grouping factor in turn, and this model has none; "
                "take kind='percentile', 'basic', 'normal' or 'studentized'"
            )
        kinds = tuple(name for name in kinds if name != "bca")
        notes.append(
            "no BCa intervals: the model has no grouping factor whose levels could be left out in turn"
        )
    if "bca" in kinds:
        acceleration, how = jackknife_acceleration(boot, groups)
        notes.append(how)
    rows: list[tuple[int, str, float, float]] = []
    for i in positions:
        good = np.isfinite(boot.draws[:, i])
        draws, estimate = boot.draws[good, i], float(boot.estimates[i])
        for name in kinds:
            if name == "studentized" and i >= p and len(kinds) > 1:
                continue  # no row in a table of all kinds; the notes say why
            if draws.size < 2 or not math.isfinite(estimate):
                low = high = math.nan
            elif name == "studentized":
                low = high = math.nan
                if i < p:
                    low, high = studentized(draws, boot.se[good, i], estimate, float(boot.fit_se[i]), level)
            elif name == "bca":
                assert acceleration is not None
                low, high = bca(draws, estimate, float(acceleration[i]), level)
            else:
                low, high = {"percentile": percentile, "basic": basic, "normal": normal}[name](
                    draws, estimate, level
                )
            rows.append((i, name, low, high))
    if "studentized" in kinds and any(i >= p for i in positions):
        notes.append("studentized intervals exist for coefficients only: the others have no standard error")
    undefined = [i for i in positions if np.isnan(boot.draws[:, i]).sum() > len(boot.failures)]
    for i in undefined:
        count = int(np.isnan(boot.draws[:, i]).sum()) - len(boot.failures)
        notes.append(f"{boot.names[i]} is not defined in {count} of {len(boot)} replicates, left out for it")
    if len(boot) < _FEWEST / (1.0 - level) * 0.05:
        notes.append(f"{len(boot)} replicates are few for a level of {level:g}; the limits are rough")
    parameters_of_rows = [boot.parameters[i] for i, *_ in rows]
    columns: dict[str, Any] = {
        "term": [parameter.name for parameter in parameters_of_rows],
        "group": [parameter.group for parameter in parameters_of_rows],
        "estimate": [boot.estimates[i] for i, *_ in rows],
        "conf_low": [low for *_, low, _ in rows],
        "conf_high": [high for *_, high in rows],
    }
    if len(kinds) > 1:
        columns["kind"] = [name for _, name, *_ in rows]
    what = "bootstrap" if len(kinds) > 1 else kinds[0]
    title = f"{percent(level)} {what} intervals ({boot.kind} bootstrap)"
    extra = {
        "level": level,
        "tidy": [(parameter.group, parameter.term) for parameter in parameters_of_rows],
        "kind": kind,
    }
    return result_table(title, columns, notes, boot._native, extra)


# ---------------------------------------------------------------------- one parameter
def _quantiles(draws: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The (N + 1) a-th smallest draw, interpolated; the extreme one where there is none."""
    a, b = np.quantile(draws, [low, high], method="weibull")
    return float(a), float(b)


def percentile(draws: np.ndarray, estimate: float, level: float) -> tuple[float, float]:
    """Quantiles of the draws."""
    alpha = 0.5 * (1.0 - level)
    return _quantiles(draws, alpha, 1.0 - alpha)


def basic(draws: np.ndarray, estimate: float, level: float) -> tuple[float, float]:
    """Percentile limits reflected in the estimate."""
    low, high = percentile(draws, estimate, level)
    return 2.0 * estimate - high, 2.0 * estimate - low


def normal(draws: np.ndarray, estimate: float, level: float) -> tuple[float, float]:
    """Estimate minus bias, plus and minus normal quantiles of the draws' standard deviation."""
    from scipy.special import ndtri

    centre, half = 2.0 * estimate - draws.mean(), ndtri(0.5 + 0.5 * level) * draws.std(ddof=1)
    return float(centre - half), float(centre + half)


def studentized(
    draws: np.ndarray, ses: np.ndarray, estimate: float, se: float, level: float
) -> tuple[float, float]:
    """Quantiles of ``(draw - estimate) / (the draw's own standard error)`` times the estimate's."""
    good = ses > 0.0
    if good.sum() < 2:
        return math.nan, math.nan
    low, high = percentile((draws[good] - estimate) / ses[good], 0.0, level)
    return estimate - high * se, estimate - low * se


def bca(draws: np.ndarray, estimate: float, acceleration: float, level: float) -> tuple[float, float]:
    """Bias-corrected and accelerated percentile limits; NaN where all draws lie on one side."""
    from scipy.special import ndtr, ndtri

    share = (np.mean(draws < estimate) + np.mean(draws <= estimate)) / 2.0  # ties count half
    if not 0.0 < share < 1.0 or not math.isfinite(acceleration):
        return math.nan, math.nan
    z0 = ndtri(share)
    places = []
    for z in (ndtri(0.5 - 0.5 * level), ndtri(0.5 + 0.5 * level)):
        below = 1.0 - acceleration * (z0 + z)
        if not below > 0.0:
            return math.nan, math.nan
        places.append(float(ndtr(z0 + (z0 + z) / below)))
    return _quantiles(draws, *places)


# ---------------------------------------------------------------------- acceleration
def _has_groups(fit: Any) -> bool:
    """Whether random terms or the residual structure have levels that can be left out."""
    from mixedmodels.inference.bootstrap.resampling import residual_term

    return bool(fit._terms) or residual_term(fit._random) is not None


def jackknife_acceleration(boot: Bootstrap, groups: Any = None) -> tuple[np.ndarray, str]:
    r"""Acceleration of each parameter from leaving out levels of a grouping factor, and how it was found.

    .. math:: a = \frac{\sum_l d_l^3}{6 (\sum_l d_l^2)^{3/2}}, \qquad d_l = \bar t_{(\cdot)} - t_{(l)}.

    With more than 200 levels, 200 blocks of levels (every 200th level) are left out in turn. Every
    leaving out is a fit to the remaining rows, started from the estimates: a one-step update would miss
    what the boundary does to standard deviations and correlations. A parameter
    that is not finite without some level, or does not change at all, has acceleration 0 or NaN.
    """
    from mixedmodels.inference.bootstrap.resampling import default_cluster
    from mixedmodels.inference.bootstrap.run import cluster_term, fit_to_levels, jackknife_values

    fit = boot.fit
    if groups is None:
        groups = boot.settings["groups"] or default_cluster(fit._random)
        if groups is None and fit._terms:
            groups = max(fit._terms, key=lambda term: term.m).group
    term = cluster_term(fit, groups)
    blocks = min(term.m, _MOST_REFITS)
    if blocks < 3:
        raise OptionError(f"BCa intervals need at least three levels of {term.group!r} to leave out")
    values, failed = [], 0
    levels = np.arange(term.m)
    for block in range(blocks):
        try:
            new = fit_to_levels(fit, term, levels[levels % blocks != block])
            values.append(jackknife_values(new, boot))
        except MixedModelsError:
            failed += 1
    if len(values) < 3:
        raise OptionError(
            f"BCa: the model cannot be fitted without levels of {term.group!r}; use another kind"
        )
    T = np.array(values)
    d = T.mean(axis=0) - T
    squares = (d**2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = np.where(squares > 0.0, (d**3).sum(axis=0) / (6.0 * squares**1.5), 0.0)
    what = f"levels of {term.group}" if blocks == term.m else f"{blocks} blocks of levels of {term.group}"
    how = f"BCa: acceleration from leaving out {what}"
    return a, how + (f" ({failed} could not be left out)" if failed else "")
