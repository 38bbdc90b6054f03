r"""Heritability and other ratios of variances, with delta-method and profile-likelihood intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError, SolverError
from mixedmodels.fit.wald import check_level, normal_quantile, percent
from mixedmodels.genetics.ratio import Ratio, read_ratio
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Components", "components_of", "heritability"]

_MANY = 2000  # random effects up to which the traces of the observed information are cheap
_METHODS = ("delta", "profile", "bootstrap")
_SCALES = ("latent", "observation")
_ZERO = 1e-10  # a variance below this share of the total is on the boundary


class Components(NamedTuple):
    """Estimated variance components.

    Attributes
    ----------
    names : dict of str to int
        Places by name; a term with one variance has its grouping factor as a second name.
    values : ndarray, shape (r,)
    covariance : ndarray, shape (r, r)
        Of the estimates; zero for variances on the boundary, which are taken as known there.
    kind : str
        Information it comes from.
    zero : tuple of int
        Places of the variances on the boundary.
    """

    names: dict[str, int]
    values: np.ndarray
    covariance: np.ndarray
    kind: str
    zero: tuple[int, ...] = ()


def components_of(fit: LMMFit) -> Components:
    """Variance components of a linear mixed model with the inverse of their information.

    Raises
    ------
    NotImplementedYetError
        A generalised model.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
    >>> found = components_of(fit)
    >>> found.names, found.values.round(1).tolist()
    ({'Batch': 0, 'Batch.(Intercept)': 0, 'Residual': 1}, [1764.0, 2451.3])
    """
    if not fit._is_linear:
        raise NotImplementedYetError("components_of is for linear mixed models; take glmm_components")
    point = _point(fit)
    names: dict[str, int] = {}
    for i, name in enumerate(point.names):
        own = [term for term in fit.design.terms if name == f"{term.group}.{term.names[0]}" and term.k == 1]
        if own:
            names[own[0].group] = i
        names[name] = i
    values = np.array(point.values)
    diagonal = [i for i, name in enumerate(point.names) if _is_variance(fit, name)]
    small = [i for i in diagonal if values[i] <= _ZERO * values[diagonal].sum()]
    free = [i for i in range(len(values)) if i not in small]
    if fit._options.sigma is not None:
        free = [i for i in free if i != len(values) - 1]
    kind = "observed" if fit.design.q <= _MANY else "average"
    try:
        information = point.information(kind)
    except SolverError:  # the traces need all of Z'PZ
        kind, information = "average", point.information("average")
    covariance = np.zeros((len(values), len(values)))
    if fit._options.variances is None and free:
        block = information[np.ix_(free, free)]
        covariance[np.ix_(free, free)] = np.linalg.pinv(block, hermitian=True)
    return Components(names, values, covariance, kind, tuple(small))


def _point(fit: LMMFit) -> Any:
    """The components of a fit, where information can be asked for."""
    scale = fit.sigma**2
    Sigmas = [scale * np.array(factor) @ np.array(factor).T for factor in fit._factors]
    return fit.objective.at_components([*Sigmas, scale])


def _is_variance(fit: LMMFit, name: str) -> bool:
    return name == "Residual" or any(
        name in (f"{term.group}.{column}", f"{term.group}.common", term.group)
        for term in fit.design.terms
        for column in term.names
    )


def heritability(
    fit: LMMFit,
    ratio: str | None = None,
    level: float = 0.95,
    method: str = "delta",
    n: int = 1000,
    seed: Any = None,
    scale: str | None = None,
) -> ResultTable:
    r"""A ratio of variance components with its uncertainty.

    .. math:: h^2 = \frac{\sigma_a^2}{\sigma_a^2 + \dots + \sigma_e^2}, \qquad
        SE(h^2)^2 = \nabla h^{2\prime}\, Var(\hat\kappa)\, \nabla h^2

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    ratio : str, optional
        An expression of the variances by grouping factor (``animal``, ``Residual``), of terms with several
        columns by column (```animal.(Intercept)```). By default the term with a known covariance over the sum
        of all variances.
    level : float
    method : {"delta", "profile", "bootstrap"}
        "profile" turns the (restricted) likelihood ratio of the fit around, all other parameters at their
        best for each value of the ratio. "bootstrap" has the standard deviation and the percentiles of the
        ratio in refits to simulated responses.
    n, seed : int
        Of the bootstrap.
    scale : {"latent", "observation"}, optional
        Of generalised models: that of the linear predictor (the liability of threshold models; default), or
        that of the response; see `mixedmodels.genetics.heritability_glmm`.

    Returns
    -------
    ResultTable
        ratio, estimate, std_error, conf_low, conf_high.

    Raises
    ------
    OptionError
        A ratio that cannot be read, or that changes with the unit of the response ("profile"); a profile of
        a generalised model's ratio that changes with more than one variance that is estimated.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
    >>> fit.heritability("Batch / (Batch + Residual)")["estimate"].round(4).tolist()
    [0.4185]
    """
    check_level(level)
    if method not in _METHODS:
        raise OptionError(
            f"method must be {', '.join(map(repr, _METHODS[:-1]))} or 'bootstrap', got {method!r}"
        )
    if not fit._is_linear:
        return _generalised(fit, ratio, level, method, (n, seed), scale)
    if scale is not None:
        raise OptionError("scale is for generalised models; a linear one has one scale, leave it out")
    found = components_of(fit)
    wanted = read_ratio(_default(fit, found.names) if ratio is None else ratio, found.names)
    value, gradient = wanted.value(found.values)
    gradient = _full(gradient, len(found.values))
    se = math.sqrt(max(float(gradient @ found.covariance @ gradient), 0.0))
    notes = [f"standard error by the delta method from the {found.kind} information"]
    edge = [name for name, place in found.names.items() if place in found.zero]
    if edge:
        notes.append(f"estimated as zero and taken as known: {', '.join(dict.fromkeys(edge))}")
    if method == "delta":
        z = normal_quantile(level)
        low, high = value - z * se, value + z * se
    elif method == "bootstrap":
        (se, low, high), notes[0] = _bootstrap(
            fit, lambda refit: wanted.value(np.array(_point(refit).values))[0], level, (n, seed)
        )
    else:
        from mixedmodels.genetics.ratio_profile import profile_interval

        low, high, remarks = profile_interval(fit, wanted, found, level)
        notes += remarks
    return _table(fit, wanted.text, (value, se, low, high), level, method, notes)


def _table(
    fit: Any, text: str, numbers: tuple[float, ...], level: float, method: str, notes: list[str]
) -> ResultTable:
    names = ("estimate", "std_error", "conf_low", "conf_high")
    columns: dict[str, Any] = {"ratio": [text]}
    columns.update({name: [number] for name, number in zip(names, numbers, strict=True)})
    name = "delta-method" if method == "delta" else method
    return result_table(f"Ratio of variances, {percent(level)} {name} interval", columns, notes, fit._native)


def _bootstrap(
    fit: Any, statistic: Callable[[Any], float], level: float, draw: tuple[int, Any]
) -> tuple[tuple[float, float, float], str]:
    """Standard deviation and percentiles of a statistic in refits, and a note."""
    boot = fit.bootstrap(*draw, statistic=statistic)
    draws = np.asarray(boot.draws, dtype=float)[:, -1]
    draws = draws[np.isfinite(draws)]
    low, high = (float(q) for q in np.quantile(draws, (0.5 - 0.5 * level, 0.5 + 0.5 * level)))
    note = f"standard deviation and percentiles of {draws.size} refits to simulated responses"
    return (float(np.std(draws, ddof=1)), low, high), note


def _generalised(
    fit: Any, ratio: str | None, level: float, method: str, draw: tuple[int, Any], scale: str | None
) -> ResultTable:
    """A ratio of the variances of a generalised model."""
    from mixedmodels.genetics.heritability_glmm import glmm_components, profile_of_one

    scale = "latent" if scale is None else scale
    if scale not in _SCALES:
        raise OptionError(f"scale must be {' or '.join(map(repr, _SCALES))}, got {scale!r}")
    found = glmm_components(fit, scale)
    wanted = read_ratio(_default(fit, found.names) if ratio is None else ratio, found.names)
    value, gradient = wanted.value(found.values)
    if not math.isfinite(found.values[-1]) and len(found.values) - 1 in wanted.places:
        raise OptionError(
            f"{found.notes[0]}; give a ratio of the random effects' variances, such as one over their sum"
        )
    gradient = _full(gradient, len(found.values))
    used = np.flatnonzero(gradient)
    spread = float(gradient[used] @ found.covariance[np.ix_(used, used)] @ gradient[used])
    se = math.sqrt(max(spread, 0.0)) if math.isfinite(spread) else math.nan
    notes = ["standard error by the delta method from the observed information", *found.notes]
    small = [name for name, i in found.names.items() if abs(found.values[i]) <= _ZERO]
    if small:
        notes.append(f"estimated as zero and taken as known: {', '.join(small)}")
    z = normal_quantile(level)
    low, high = value - z * se, value + z * se
    if method == "bootstrap":
        (se, low, high), notes[0] = _bootstrap(
            fit, lambda refit: wanted.value(glmm_components(refit, scale).values)[0], level, draw
        )
    elif method == "profile":
        low, high, remark = profile_of_one(fit, wanted, found, level)
        notes += [remark]
    return _table(fit, wanted.text, (value, se, low, high), level, method, notes)


def _full(gradient: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros(size)
    out[: len(gradient)] = gradient
    return out


def _default(fit: LMMFit, names: dict[str, int]) -> str:
    """The heritability: the one related term over the sum of all variances."""
    terms = fit.design.terms
    related = [term for term in terms if term.precision is not None]
    if len(related) != 1 or any(term.k > 1 for term in terms):
        first = {place: name for name, place in reversed(names.items())}  # the short name of each
        variances = [_quoted(name) for place, name in sorted(first.items()) if _is_variance(fit, name)]
        raise OptionError(
            "which ratio is meant is not plain here; give it, such as "
            f'ratio="{variances[0]} / ({" + ".join(variances)})"; the components are '
            f"{', '.join(first[place] for place in sorted(first))}"
        )
    whole = " + ".join([*dict.fromkeys(_quoted(term.group) for term in terms), "Residual"])
    return f"{_quoted(related[0].group)} / ({whole})"


def _quoted(name: str) -> str:
    return name if name.replace(":", "").replace("_", "").replace(".", "").isalnum() else f"`{name}`"


def is_scale_free(ratio: Ratio, values: np.ndarray) -> bool:
    """Whether a ratio keeps its value when all variances are multiplied by one number."""
    value, gradient = ratio.value(values)
    drift = float(gradient @ values[: len(gradient)])
    return abs(drift) <= 1e-9 * max(abs(value), float(np.abs(gradient) @ values[: len(gradient)]), 1e-300)
