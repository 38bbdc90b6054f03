r"""Heritability and other ratios of variances, with delta-method and profile-likelihood intervals."""

from __future__ import annotations

import math
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
        raise NotImplementedYetError("ratios of variances are for linear mixed models so far")
    scale = fit.sigma**2
    Sigmas = [scale * np.array(factor) @ np.array(factor).T for factor in fit._factors]
    point = fit.objective.at_components([*Sigmas, scale])
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


def _is_variance(fit: LMMFit, name: str) -> bool:
    return name == "Residual" or any(
        name in (f"{term.group}.{column}", f"{term.group}.common", term.group)
        for term in fit.design.terms
        for column in term.names
    )


def heritability(
    fit: LMMFit, ratio: str | None = None, level: float = 0.95, method: str = "delta"
) -> ResultTable:
    r"""A ratio of variance components with its uncertainty.

    .. math:: h^2 = \frac{\sigma_a^2}{\sigma_a^2 + \dots + \sigma_e^2}, \qquad
        SE(h^2)^2 = \nabla h^{2\prime}\, Var(\hat\kappa)\, \nabla h^2

    Parameters
    ----------
    fit : LMMFit
    ratio : str, optional
        An expression of the variances by grouping factor (``animal``, ``Residual``), of terms with several
        columns by column (```animal.(Intercept)```). By default the term with a known covariance over the sum
        of all variances.
    level : float
    method : {"delta", "profile"}
        "profile" turns the (restricted) likelihood ratio of the fit around, all other parameters at their
        best for each value of the ratio.

    Returns
    -------
    ResultTable
        ratio, estimate, std_error, conf_low, conf_high.

    Raises
    ------
    OptionError
        A ratio that cannot be read, or that changes with the unit of the response ("profile").

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff", backend="dict"))
    >>> fit.heritability("Batch / (Batch + Residual)")["estimate"].round(4).tolist()
    [0.4185]
    """
    check_level(level)
    if method not in ("delta", "profile"):
        raise OptionError(f"method must be 'delta' or 'profile', got {method!r}")
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
    else:
        from mixedmodels.genetics.ratio_profile import profile_interval

        low, high, remarks = profile_interval(fit, wanted, found, level)
        notes += remarks
    columns: dict[str, Any] = {
        "ratio": [wanted.text],
        "estimate": [value],
        "std_error": [se],
        "conf_low": [low],
        "conf_high": [high],
    }
    name = "profile" if method == "profile" else "delta-method"
    return result_table(f"Ratio of variances, {percent(level)} {name} interval", columns, notes, fit._native)


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
