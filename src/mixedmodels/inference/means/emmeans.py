"""Estimated marginal means and slopes: linear functions of the fixed effects averaged over a reference grid.

Source: Searle, Speed & Milliken (1980), The American Statistician 34, 216-221 (population marginal means).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import check_level
from mixedmodels.formula.ast import Variable
from mixedmodels.inference.arguments import name_list, yes_or_no
from mixedmodels.inference.ddf.reference import reference_for
from mixedmodels.inference.fixed.component import component_view
from mixedmodels.inference.means.adjust import check_adjust
from mixedmodels.inference.means.back_transform import back_transform
from mixedmodels.inference.means.grid import Grid, make_grid, term_variables
from mixedmodels.inference.means.grid_variables import unknown_variable
from mixedmodels.inference.means.joint_tests import joint_tests
from mixedmodels.inference.means.linear_source import Show, Source, response_scale
from mixedmodels.inference.means.marginal_means import MarginalMeans

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["average", "emmeans", "emtrends", "joint_tests", "make_source", "parse_specs"]

_WEIGHTS = ("equal", "proportional", "outer", "cells", "flat")


def emmeans(
    fit: LMMFit,
    specs: Any,
    by: Any = None,
    at: Mapping[str, Any] | None = None,
    ddf: str | float | None = None,
    level: float = 0.95,
    adjust: Any = "none",
    type: str = "link",
    weights: Any = "equal",
    cov_reduce: Any = None,
    cov_keep: Any = 2,
    offset: float | None = None,
    nesting: Any = None,
    bias_adjust: bool = False,
    sigma: float | None = None,
    data: Any = None,
    component: str | None = None,
    regrid: bool = False,
) -> MarginalMeans:
    r"""Estimated marginal means.

    A mean is ``L beta`` with ``L = sum_c w_c x_c`` over the combinations c of the variables averaged over,
    x_c rows of the fixed-effects matrix on the reference grid. A mean whose L is not in the row space of X is
    not estimable and NaN. Families of tests count only what can be estimated.

    Parameters
    ----------
    fit : LMMFit
    specs : str or sequence of str
        Variables whose means are wanted: ``"A"``, ``["A", "B"]``, ``"A | B"`` (by B), ``"~ A*B"``; ``"1"``
        for the overall mean. ``"pairwise ~ A"`` adds contrasts (attribute ``contrasts``).
    by : str or sequence of str, optional
        Variables that separate families of means.
    at : mapping, optional
        Values of variables in the grid: ``{"x": [0, 5], "A": ["a1"]}``.
    ddf : str or float
        ``"satterthwaite"``, ``"kr"``, ``"containment"``, ``"residual"``, ``"z"`` or a number.
    level : float
        Confidence level.
    adjust : str
        Adjustment of the intervals (and tests) within each family.
    type : {"link", "response"}
        ``"response"`` undoes the transform of the response and the link of a generalised model: means with
        random effects 0, limits transformed from the scale of the linear predictor, differences of
        logarithms and logits as ratios and odds ratios.
    weights : {"equal", "proportional", "outer", "cells", "flat"} or sequence of float
        Of the combinations averaged over: equal; their frequencies; products of one-way frequencies; the
        frequencies of the cells themselves; equal for cells with data; or numbers.
    cov_reduce : callable, False or mapping, optional
        What stands for a covariate: a function of its values (default: the mean), False for all its values,
        or these by variable.
    cov_keep : int or sequence of str
        Covariates with at most this many values, or named here, keep their values like factors.
    offset : float, optional
        Instead of the mean offset.
    nesting : mapping or False, optional
        ``{"A": "B"}``: A is nested in B. By default found from data and terms; False for none.
    bias_adjust : bool
        With ``type="response"``: second-order bias adjustment.
    sigma : float, optional
        Total SD for it; by default that of all random parts (of a generalised model: of the random effects
        on its linear predictor).
    data : data frame, optional
        Where values of covariates come from if the fit does not hold its data.
    component : {"conditional", "zero_inflation", "dispersion", "response"}, optional
        Of a generalised model: whose linear predictor the means are of. ``"response"``: the mean of the
        response from all of them, ``(1 - p) mu`` with zero inflation, by the delta method.
    regrid : bool
        Average means over the grid, not linear predictors: all is on the scale of the response then.

    Returns
    -------
    MarginalMeans

    Raises
    ------
    OptionError
        An unknown variable, level, method or weight.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("angle ~ recipe + (1 | recipe:replicate)", mm.load_dataset("cake", backend="dict"))
    >>> means = fit.emmeans("recipe", ddf="z")
    >>> means["estimate"].round(3).tolist()
    [33.122, 31.644, 31.6]
    >>> means.pairs()["contrast"].tolist()
    ['A - B', 'A - C', 'B - C']
    """
    whole = component == "response"
    fit = _mean_view(fit) if whole else component_view(fit, component)
    source = make_source(fit, ddf)
    if whole:
        from mixedmodels.inference.means.link_transform import mean_grid

        options = (at, cov_reduce, cov_keep, offset, nesting, data)
        grid = mean_grid(fit, source, *options)  # type: ignore[arg-type]
    else:
        grid = make_grid(fit, at, cov_reduce, cov_keep, offset, nesting, data)
    response_scale(type, source)
    if yes_or_no(regrid, "regrid") and not whole:
        grid, source, told = _regridded(grid, source)
    else:
        told = ("means of the response from all linear predictors, by the delta method",) if whole else ()
    method, names, by_names = parse_specs(specs, by, grid.names)
    means = average(fit, grid, names, by_names, weights, source)
    show = Show(check_level(level), check_adjust(adjust), response=response_scale(type, source))
    means = replace(means, show=show, notes=(*means.notes, *told))
    if yes_or_no(bias_adjust, "bias_adjust"):
        means = means.summary(bias_adjust=True, sigma=sigma)
    elif sigma is not None:
        raise OptionError("sigma is the SD of the bias adjustment; it goes with bias_adjust=True")
    return means if method is None else replace(means, contrasts=means.contrast(method))


def emtrends(
    fit: LMMFit,
    specs: Any,
    var: str,
    by: Any = None,
    at: Mapping[str, Any] | None = None,
    ddf: str | float | None = None,
    level: float = 0.95,
    adjust: Any = "none",
    weights: Any = "equal",
    cov_reduce: Any = None,
    cov_keep: Any = 2,
    nesting: Any = None,
    data: Any = None,
    type: str = "link",
    component: str | None = None,
) -> MarginalMeans:
    """Estimated marginal slopes of a covariate: the derivative of the means with respect to it.

    Derivatives of the columns are exact (``log``, ``poly``, ``bs``, ``ns``, arithmetic, ...); only a function
    without a known derivative is differenced, which a note says.

    Parameters
    ----------
    fit : LMMFit
    specs : str or sequence of str
        Variables whose levels are told apart; ``"1"`` for the average slope.
    var : str
        A numeric variable, or a function of one (``"log(x)"``): the slope per unit of that function.
    by, at, ddf, level, adjust, weights, cov_reduce, cov_keep, nesting, data
        As in `emmeans`; the slope of a curve is taken at the value of `var` in the grid.
    type : {"link", "response"}
        Slopes of the linear predictor, or of the mean of the response (averaged over the grid).
    component : {"conditional", "zero_inflation", "dispersion"}, optional
        Of a generalised model: which linear predictor.

    Returns
    -------
    MarginalMeans

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> fit.emtrends("1", "Days", ddf="z")["estimate"].round(4).tolist()
    [10.4673]
    """
    from mixedmodels.inference.means.slopes import slope_rows

    fit = component_view(fit, component)
    source = make_source(fit, ddf)
    notes: list[str] = []
    grid = make_grid(fit, at, cov_reduce, cov_keep, 0.0, nesting, data, rows=slope_rows(var, notes))
    if response_scale(type, source) and source.transform is not None:
        from mixedmodels.inference.means.link_transform import slope_grid

        plain = make_grid(fit, at, cov_reduce, cov_keep, None, nesting, data)
        grid = slope_grid(grid, plain, source)
        notes.append("slopes of the mean of the response, by the delta method")
        source = replace(source, transform=None)
    method, names, by_names = parse_specs(specs, by, grid.names)
    trends = average(fit, grid, names, by_names, weights, source)
    trends = replace(
        trends,
        title=f"Marginal slopes of {var}" + _title_end([n for n in names if n != var], by_names, " for"),
        kind="slopes",
        show=Show(check_level(level), check_adjust(adjust)),
        notes=(*trends.notes, *dict.fromkeys(notes)),
    )
    return trends if method is None else replace(trends, contrasts=trends.contrast(method))


def make_source(fit: LMMFit, ddf: Any) -> Source:
    """What the linear functions of a fit are referred to."""
    if fit.formula is None:
        raise OptionError("marginal means need a formula; this model was made from matrices")
    encoding = fit.frame.encoding
    response = fit.formula.response
    reference = reference_for(fit, ddf)
    if fit._is_linear:
        transform = back_transform(response)
        unknown = "" if transform is not None or isinstance(response, Variable) else str(response)
        return Source(fit, reference, encoding.kept, encoding.null, transform, unknown)
    from mixedmodels.inference.means.link_transform import MeanView, link_transform, unknown_response

    if isinstance(fit, MeanView):
        return Source(fit, reference, *fit.rank(), None)  # type: ignore[arg-type]
    transform = link_transform(fit)
    return Source(fit, reference, encoding.kept, encoding.null, transform, unknown_response(fit))


def _mean_view(fit: Any) -> Any:
    """The fit as all its coefficients, for means of the response."""
    from mixedmodels.inference.means.link_transform import MeanView

    if fit._is_linear:
        raise OptionError('component="response" is for generalised models; linear ones have one predictor')
    if fit.formula is None:
        raise OptionError("marginal means need a formula; this model was made from matrices")
    return MeanView(fit)


def _regridded(grid: Grid, source: Source) -> tuple[Grid, Source, tuple[str, ...]]:
    """The grid on the scale of the response."""
    from mixedmodels.inference.means.link_transform import response_grid

    response_scale("response", source)
    if source.transform is None:
        return grid, source, ()
    text = source.transform.text
    note = f"means averaged on the scale of the response (delta method); the model is for {text}"
    return response_grid(grid, source), replace(source, transform=None), (note,)


# ---------------------------------------------------------------------- which means


def parse_specs(
    specs: Any, by: Any, known: Sequence[str]
) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """Contrast method, variables and by variables of a `specs`.

    Examples
    --------
    >>> parse_specs("pairwise ~ A*B | C", None, ["A", "B", "C"])
    ('pairwise', ('A', 'B'), ('C',))
    """
    method: str | None = None
    by_names: list[str] = []
    if isinstance(specs, str):
        text = specs
        if text not in known and "~" in text:
            left, _, text = text.partition("~")
            method = left.strip() or None
        if text not in known and "|" in text:
            text, _, right = text.partition("|")
            by_names = _split(right, known)
        names = _split(text, known)
    else:
        try:
            names = [str(name) for name in specs]
        except TypeError:
            raise OptionError(
                'specs must be a text such as "A", "A | B" or "pairwise ~ A", or a list of variables, got '
                f"{specs!r}"
            ) from None
    by_names += name_list(by, "by")
    names = [name for name in dict.fromkeys(names) if name not in by_names]
    return method, tuple(names), tuple(dict.fromkeys(by_names))


def _split(text: str, known: Sequence[str]) -> list[str]:
    text = text.strip()
    if text in known:
        return [text]
    parts = [part.strip().strip("`") for part in re.split(r"[*:+,]", text)]
    return [part for part in parts if part not in ("", "1")]


def average(
    fit: LMMFit,
    grid: Grid,
    names: Sequence[str],
    by: Sequence[str],
    weights: Any,
    source: Source,
) -> MarginalMeans:
    """Means over the grid of everything but `names` and `by`."""
    for name in (*names, *by):
        if name not in grid.names:
            raise OptionError(f"specs: {unknown_variable(fit, name, grid.names)}")
    chosen = list(dict.fromkeys((*names, *by)))
    parents = [p for name in chosen for p in grid.nesting.get(name, ()) if p not in chosen]
    chosen += list(dict.fromkeys(parents))
    place = [grid.names.index(name) for name in chosen]
    rest = [j for j in range(len(grid.names)) if j not in place]
    target, count = _number(grid, place)
    w = _weights(grid, rest, weights)
    occurs = np.ones(len(w), dtype=bool)
    for child, above in grid.nesting.items():
        occurs &= _observed(grid, (child, *above))
    w = np.where(occurs, w, 0.0)
    L = np.zeros((count, grid.L.shape[1]))
    np.add.at(L, target, w[:, None] * grid.L)
    offset = np.bincount(target, weights=w * grid.offset, minlength=count)
    total = np.bincount(target, weights=w, minlength=count).astype(float)
    there = np.flatnonzero(np.bincount(target, weights=occurs.astype(float), minlength=count) > 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        L, offset = L / total[:, None], offset / total
    empty = total <= 0.0
    notes = []
    if empty[there].any():
        there = there[~empty[there]]
        notes.append(f"combinations without weight are left out (weights={weights!r})")
    sizes = [grid.variables[j].size for j in place]
    index = np.unravel_index(there, sizes, order="F") if sizes else ()
    labels: dict[str, np.ndarray] = {
        name: grid.variables[j].column(codes) for name, j, codes in zip(chosen, place, index, strict=True)
    }
    if not labels:
        labels["term"] = np.array(["overall"], dtype=object)
    averaged = [grid.names[j] for j in rest if grid.variables[j].size > 1]
    if averaged:
        how = weights if isinstance(weights, str) else "given"
        notes.append(f"averaged over {', '.join(averaged)} ({how} weights)")
    mixed = _involved(fit, names, averaged)
    if mixed:
        notes.append(f"the model has {', '.join(mixed)}: values averaged over it may mislead")
    fixed = [f"{v.name} = {v.labels[0]}" for j, v in enumerate(grid.variables) if j in rest and v.size == 1]
    if fixed:
        notes.append(f"at {', '.join(fixed)}")
    return MarginalMeans(
        title="Estimated marginal means" + _title_end(names, by),
        labels=labels,
        by=tuple(by),
        L=L[there],
        offset=offset[there],
        source=source,
        size=len(there),
        notes=tuple(notes),
        parents=dict(grid.nesting),
    )


def _title_end(names: Sequence[str], by: Sequence[str], of: str = " of") -> str:
    return (f"{of} {', '.join(names)}" if names else "") + (f" by {', '.join(by)}" if by else "")


def _number(grid: Grid, place: Sequence[int]) -> tuple[np.ndarray, int]:
    """Number of the combination of some variables in each row of the grid, the first varying fastest."""
    number = np.zeros(grid.codes.shape[0], dtype=np.intp)
    stride = 1
    for j in place:
        number += stride * grid.codes[:, j]
        stride *= grid.variables[j].size
    return number, stride


def _observed(grid: Grid, names: Sequence[str]) -> np.ndarray:
    """Grid rows whose combination of these factors occurs in the data."""
    number, count = _number(grid, [grid.names.index(name) for name in names])
    return np.bincount(number, weights=grid.counts, minlength=count)[number] > 0.0


def _weights(grid: Grid, rest: Sequence[int], weights: Any) -> np.ndarray:
    """Weight of each row of the grid before scaling to a sum of one."""
    r = grid.codes.shape[0]
    number, count = _number(grid, rest)
    if isinstance(weights, str):
        if weights == "equal":
            return np.ones(r)
        if weights == "proportional":
            return np.bincount(number, weights=grid.counts, minlength=count)[number]
        if weights == "outer":
            out = np.ones(r)
            for j in rest:
                out *= np.bincount(grid.codes[:, j], weights=grid.counts)[grid.codes[:, j]]
            return out
        if weights == "cells":
            return grid.counts
        if weights == "flat":
            return (grid.counts > 0.0).astype(float)
        raise OptionError(f"weights={weights!r} is unknown; available: {', '.join(_WEIGHTS)} or numbers")
    try:
        given = np.asarray(weights, dtype=float)
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.shape != (count,) or not (np.isfinite(given).all() and (given >= 0).all() and given.sum() > 0):
        raise OptionError(
            f"weights needs {count} numbers >= 0, one for each combination of "
            f"{', '.join(grid.names[j] for j in rest) or 'nothing'}; got {weights!r}"
        )
    return given[number]


def _involved(fit: LMMFit, names: Sequence[str], averaged: Sequence[str]) -> list[str]:
    """Interactions of the variables shown with those averaged over."""
    return [
        label
        for label, raw in term_variables(fit)
        if any(name in raw for name in names) and any(name in raw for name in averaged)
    ]
