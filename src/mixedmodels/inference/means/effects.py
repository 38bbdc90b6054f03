"""Effects of a predictor: means along a grid of its values, with what it interacts with told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.arguments import name_list
from mixedmodels.inference.means.emmeans import emmeans, make_source, parse_specs
from mixedmodels.inference.means.grid import term_variables
from mixedmodels.inference.means.grid_variables import GridVariable, grid_variables, unknown_variable
from mixedmodels.inference.means.marginal_means import MarginalMeans

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["effects"]

_POINTS = 61
_MOST = 12  # curves in one plot that by itself chooses what to tell apart


def effects(
    fit: LMMFit,
    x: Any,
    by: Any = None,
    at: Mapping[str, Any] | None = None,
    ddf: str | float = "auto",
    level: float = 0.95,
    type: str | None = None,
    **options: Any,
) -> MarginalMeans:
    """Estimated means along a predictor: a grid over the range of a covariate, the levels of a factor.

    Parameters
    ----------
    fit : LMMFit
    x : str
        A predictor; or ``"x:f"``, ``"x | f"``, ``["x", "f"]``: the first along the axis, by the others.
    by : str or sequence of str, optional
        Predictors told apart: levels of factors, few values of a covariate or its mean and one standard
        deviation to both sides. By default those with which `x` interacts; ``[]`` averages over them.
    at : mapping, optional
        Values of predictors, also of `x`, instead.
    ddf, level
        As in `emmeans`.
    type : {"response", "link"}, optional
        By default the scale of the response before a transform such as ``log(y)``, if its inverse is known.
    **options
        Of `emmeans`: ``weights``, ``cov_reduce``, ...

    Returns
    -------
    MarginalMeans

    Raises
    ------
    OptionError
        `x` or `by` is not a predictor of the model.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> from mixedmodels.inference.means.effects import effects
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> curve = effects(fit, "Days")
    >>> len(curve), curve["Days"][[0, -1]].tolist(), curve["estimate"][[0, -1]].round(2).tolist()
    (61, [0.0, 9.0], [251.41, 345.61])
    """
    source = make_source(fit, ddf)
    if at is not None and not isinstance(at, Mapping):
        raise OptionError(f"at must be a dict of values by variable, such as {{'x': [0, 5]}}, got {at!r}")
    known = [v for _, raw in term_variables(fit) for v in raw]
    known = list(dict.fromkeys(known))
    _, names, own_by = parse_specs(x, by, known)
    for name in (*names, *own_by):
        if name not in known:
            raise OptionError(f"effects: {unknown_variable(fit, name, known)}")
    if not names:
        raise OptionError(f"effects need a predictor; the predictors are {', '.join(known) or 'none'}")
    ranges: dict[str, np.ndarray] = {}
    choices = {name: _keep_range(name, ranges) for name in known}
    variables = {v.name: v for v in grid_variables(fit, at, choices, 0, options.get("data"))}
    first = names[0]
    told = [*names[1:], *own_by]
    if by is None and not told:
        told = _partners(fit, first, variables, ranges)
    told += [name for name in name_list(by, "by") if name not in told]
    values = dict(at or {})
    if first in ranges:
        values[first] = np.linspace(ranges[first].min(), ranges[first].max(), _POINTS)
    for name in told:
        if name in ranges:
            values[name] = _some(ranges[name])
    scale = type if type is not None else "link" if source.unknown else "response"
    return emmeans(fit, [first, *told], at=values, ddf=ddf, level=level, type=scale, **options)


def _keep_range(name: str, ranges: dict[str, np.ndarray]) -> Any:
    """A reduction to the mean that also keeps the values: only covariates are reduced."""

    def reduce(values: np.ndarray) -> float:
        ranges[name] = values
        return float(values.mean())

    return reduce


def _some(values: np.ndarray) -> np.ndarray:
    """Up to four values as they are; otherwise the mean and one standard deviation to both sides."""
    distinct = np.unique(values)
    if distinct.size <= 4:
        return distinct
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    return np.array([_rounded(mean - sd, sd), _rounded(mean, sd), _rounded(mean + sd, sd)])


def _rounded(value: float, sd: float) -> float:
    """A value to three digits of the spread, for a readable legend."""
    return round(value, 2 - math.floor(math.log10(sd))) if sd > 0.0 else value


def _partners(
    fit: LMMFit, name: str, variables: Mapping[str, GridVariable], ranges: Mapping[str, np.ndarray]
) -> list[str]:
    """Predictors that share a term with `name`, while the curves stay few."""
    found: list[str] = []
    count = 1
    for _, raw in term_variables(fit):
        if name not in raw:
            continue
        for other in raw:
            size = len(_some(ranges[other])) if other in ranges else variables[other].size
            if other != name and other not in found and count * size <= _MOST:
                found.append(other)
                count *= size
    return found
