r"""Autocorrelation and semivariogram of residuals within groups: what a residual structure is chosen by.

.. math:: \hat\rho(l) = \frac{\frac{1}{N_l}\sum r_i r_{i+l}}{\frac{1}{N_0}\sum r_i^2}, \qquad
          \hat\gamma(d) = \frac{1}{N_d}\sum_{d_{ij} \approx d} \frac{(r_i - r_j)^2}{2},

sums over pairs of rows of one group: l rows apart, or at a distance d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.fit.wald import normal_quantile
from mixedmodels.inference.arguments import yes_or_no
from mixedmodels.inference.checks.grouping import Grouping, grouping_of
from mixedmodels.inference.table import ResultTable, result_table
from mixedmodels.residual.structure import CorrelationStructure

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["acf", "autocorrelations", "residual_groups", "structure_covariates", "variogram"]

_KINDS = ("response", "pearson", "scaled", "normalized")
_PAIRS = 20_000_000  # pairs of rows that a variogram looks at


def acf(
    fit: LMMFit,
    lags: int | None = None,
    *,
    kind: str = "pearson",
    group: Any = None,
    order: Any = None,
    level: float = 0.95,
) -> ResultTable:
    r"""Autocorrelations of the conditional residuals within groups, by number of rows between them.

    Parameters
    ----------
    fit : LMMFit
    lags : int, optional
        Largest lag; by default :math:`10 \log_{10}` of the longest group.
    kind : {"pearson", "normalized", "response", "scaled"}
        Pearson residuals show what is to be modelled; normalized ones what a residual structure leaves.
    group : str or array, optional
        Groups; by default those of the residual structure, or the innermost grouping factor.
    order : str or array, optional
        Column by which the rows of a group are put in order (times); by default that of the data.
    level : float
        Of the limits about zero, :math:`\pm z / \sqrt{N_l}`, for uncorrelated residuals.

    Returns
    -------
    ResultTable
        Columns lag, acf, pairs, conf_low, conf_high.

    Notes
    -----
    Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, section 5.3.3. Estimated effects make
    residuals of short groups negatively correlated even if the errors are not.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> fit.acf(2)["acf"].round(3).tolist()
    [1.0, 0.116, -0.167]
    """
    groups = residual_groups(fit, group)
    r = _residuals(fit, kind)
    rows = _sorted_rows(groups.codes, None if order is None else _values(fit, order, "order"))
    sizes = np.bincount(groups.codes)
    longest = int(sizes.max())
    if lags is None:
        lags = min(longest - 1, int(10.0 * np.log10(longest)))
    elif isinstance(lags, bool) or not isinstance(lags, (int, np.integer)) or not 1 <= lags < longest:
        raise OptionError(f"lags must be a whole number from 1 to {longest - 1}, got {lags!r}")
    values, pairs = autocorrelations(r[rows], groups.codes[rows], int(lags))
    with np.errstate(divide="ignore"):
        half = normal_quantile(level) / np.sqrt(pairs)
    half[0] = np.nan
    columns = {
        "lag": np.arange(len(values)), "acf": values, "pairs": pairs, "conf_low": -half, "conf_high": half,
    }  # fmt: skip
    notes = [
        f"{kind} residuals within {groups.name}, lags in rows{' of the data' if order is None else ''}",
        f"conf_low, conf_high: {100 * level:g} % limits about zero for uncorrelated residuals",
    ]
    return result_table("Autocorrelation of residuals", columns, notes, fit._native)


def autocorrelations(r: np.ndarray, codes: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """Autocorrelations at lags 0 .. `lags` of values whose groups stand together, and their numbers of pairs.

    Parameters
    ----------
    r, codes : ndarray, shape (n,)
    lags : int
    """
    n = r.shape[0]
    sums, pairs = np.zeros(lags + 1), np.zeros(lags + 1, dtype=np.intp)
    for lag in range(lags + 1):
        same = codes[: n - lag] == codes[lag:]
        sums[lag] = float(np.sum(r[: n - lag][same] * r[lag:][same]))
        pairs[lag] = int(same.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(pairs > 0, sums / np.maximum(pairs, 1), np.nan)
        return means / means[0], pairs


def variogram(
    fit: LMMFit,
    distance: Any = None,
    *,
    kind: str = "pearson",
    group: Any = None,
    bins: int = 20,
    breaks: str | Sequence[float] = "quantiles",
    max_distance: float | None = None,
    robust: bool = False,
) -> ResultTable:
    r"""Semivariogram of the conditional residuals within groups.

    Parameters
    ----------
    fit : LMMFit
    distance : str, array or list of str, optional
        Columns of times or coordinates; by default those of the residual structure, or numbers of rows.
    kind : {"pearson", "normalized", "response", "scaled"}
        As in `acf`; Pearson and normalized residuals are over sigma here, so that the variogram of
        uncorrelated ones is 1.
    group : str or array, optional
        Groups; by default those of the residual structure, or the innermost grouping factor. ``"none"``: all
        rows are one group.
    bins : int
        Number of classes of distances; fewer distinct distances are classes of their own.
    breaks : {"quantiles", "equal"} or sequence of float
        Classes with equally many pairs, of equal width, or with these limits.
    max_distance : float, optional
        Leaves out pairs farther apart.
    robust : bool
        The estimator of Cressie & Hawkins, :math:`(\overline{|r_i - r_j|^{1/2}})^4 / (0.914 + 0.988/N_d)`.

    Returns
    -------
    ResultTable
        Columns distance (median), semivariance, pairs.

    Raises
    ------
    OptionError
        More pairs than can be looked at.

    Notes
    -----
    Pinheiro & Bates (2000), section 5.3.2; Cressie & Hawkins (1980), Math. Geol. 12:115-125.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> fit = mm.lmm("Reaction ~ Days + (Days | Subject)", mm.load_dataset("sleepstudy", backend="dict"))
    >>> fit.variogram("Days")["semivariance"][:3].round(3).tolist()
    [0.718, 1.006, 1.153]
    """
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise OptionError(f"bins must be a whole number of at least 1, got {bins!r}")
    robust = yes_or_no(robust, "robust")
    n = fit.design.n
    if isinstance(group, str) and group == "none":
        groups = Grouping("all rows", np.zeros(n, dtype=np.intp), ("all",))
    else:
        groups = residual_groups(fit, group, alone=True)
    r = _residuals(fit, kind) / (fit.sigma if kind == "pearson" else 1.0)
    places, shown = _places(fit, distance, groups)
    i, j = _pairs(groups)
    apart = np.sqrt(sum(np.square(column[i] - column[j]) for column in places))
    half = 0.5 * np.square(r[i] - r[j])
    if max_distance is not None:
        near = apart <= float(max_distance)
        apart, half = apart[near], half[near]
    if not apart.size:
        raise OptionError("variogram: no group has two rows (at such distances); take a coarser group")
    label = _classes(apart, int(bins), breaks)
    inside = label >= 0
    apart, half, label = apart[inside], half[inside], label[inside]
    _, label = np.unique(label, return_inverse=True)
    pairs = np.bincount(label)
    if robust:
        means = np.bincount(label, half**0.25) / pairs
        values = means**4 / (0.457 + 0.494 / pairs)
    else:
        values = np.bincount(label, half) / pairs
    order = np.lexsort((apart, label))
    ends = np.cumsum(pairs)
    low, high = ends - pairs + (pairs - 1) // 2, ends - pairs + pairs // 2
    medians = 0.5 * (apart[order][low] + apart[order][high])
    columns = {"distance": medians, "semivariance": values, "pairs": pairs}
    notes = [f"{kind} residuals within {groups.name}; distances in {shown}"]
    return result_table("Semivariogram of residuals", columns, notes, fit._native)


def _classes(apart: np.ndarray, bins: int, breaks: Any) -> np.ndarray:
    """Class of each distance; -1 outside of given limits."""
    distinct = np.unique(apart)
    if isinstance(breaks, str):
        if breaks not in ("quantiles", "equal"):
            raise OptionError(f"breaks must be 'quantiles', 'equal' or numbers, got {breaks!r}")
        if distinct.size <= bins + 1 and breaks == "quantiles":
            return np.searchsorted(distinct, apart)
        if breaks == "equal":
            limits = np.linspace(distinct[0], distinct[-1], bins + 1)
        else:
            limits = np.unique(np.quantile(apart, np.linspace(0.0, 1.0, bins + 1)))
    else:
        limits = np.unique(np.asarray(breaks, dtype=float))
    if limits.size < 2:
        return np.zeros(apart.shape[0], dtype=np.intp)
    # (a, b], the first class with its lower limit
    label = np.searchsorted(limits, apart, side="left") - 1
    label[apart == limits[0]] = 0
    label[(apart < limits[0]) | (apart > limits[-1])] = -1
    return label


def _pairs(groups: Grouping) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of different rows of one group."""
    order = np.argsort(groups.codes, kind="stable")
    sizes = np.bincount(groups.codes)
    count = int(np.sum(sizes.astype(np.int64) * (sizes - 1)) // 2)
    if count > _PAIRS:
        raise OptionError(
            f"variogram: {groups.name} has {count} pairs of rows, more than {_PAIRS}; name a finer group"
        )
    ends = np.repeat(np.cumsum(sizes), sizes)
    later = ends - 1 - np.arange(order.size)  # rows of the group after each row
    first = np.repeat(np.arange(order.size), later)
    second = first + 1 + np.arange(first.size) - np.repeat(np.cumsum(later) - later, later)
    return order[first], order[second]


def residual_groups(fit: Any, group: Any = None, alone: bool = False) -> Grouping:
    """Groups within which residuals may be correlated.

    Parameters
    ----------
    fit : LMMFit
    group : str or array, optional
        By default the groups of the residual structure, or the grouping factor nested in all others.
    alone : bool
        Without any grouping factor all rows are one group.

    Raises
    ------
    OptionError
        The grouping factors are crossed, or there is none.
    """
    if group is not None:
        return grouping_of(fit, group)
    bound, design = fit.design.residual, fit.design
    if bound is not None and bound.codes is not None and bound.n_groups > 1:
        return Grouping(bound.group or "groups", np.asarray(bound.codes), bound.group_labels)
    terms = [term for term in design.terms if not term.several_levels]
    finest = max(terms, key=lambda term: term.m, default=None)
    if finest is not None:
        for term in terms:
            first = np.zeros(finest.m, dtype=np.intp)
            first[finest.codes] = term.codes
            if not np.array_equal(first[finest.codes], term.codes):
                raise OptionError(
                    f"the grouping factors {finest.group} and {term.group} are crossed: say which one's rows "
                    f"are looked at, group={finest.group!r}"
                )
        return grouping_of(fit, finest.group)
    if alone or (bound is not None and bound.codes is not None):
        return Grouping("all rows", np.zeros(design.n, dtype=np.intp), ("all",))
    raise OptionError("the model has no grouping factor; name the column with group=")


def _residuals(fit: Any, kind: str) -> np.ndarray:
    if kind not in _KINDS:
        raise OptionError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    if not fit._is_linear:
        raise OptionError(
            "autocorrelations and variograms are for linear models; see simulated_residuals() of this one"
        )
    return fit._residuals(kind)


def _sorted_rows(codes: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Rows with groups together."""
    return np.argsort(codes, kind="stable") if order is None else np.lexsort((order, codes))


def _places(fit: Any, distance: Any, groups: Grouping) -> tuple[list[np.ndarray], str]:
    """Columns of coordinates and their names."""
    if distance is None:
        found = structure_covariates(fit)
        if found:
            return list(found.values()), ", ".join(found)
        order = np.argsort(groups.codes, kind="stable")
        place = np.empty(order.size)
        place[order] = np.arange(order.size)
        return [place], "rows"
    several = isinstance(distance, (list, tuple)) and all(isinstance(one, str) for one in distance)
    names = list(distance) if several else [distance]
    shown = ", ".join([one if isinstance(one, str) else "distance" for one in names])
    return [_values(fit, one, "distance") for one in names], shown


def structure_covariates(fit: Any) -> dict[str, np.ndarray]:
    """Times or coordinates of the correlation of the residuals, by name; empty where it has none."""
    bound = fit.design.residual
    for factor in () if bound is None else bound.origin.structure.parts():
        if isinstance(factor, CorrelationStructure):
            numbers = bound.origin.data.numbers
            return {name: numbers[name] for name in factor.covariates if name in numbers}
    return {}


def _values(fit: Any, column: Any, what: str) -> np.ndarray:
    """Numbers of the rows of the fit: a column of its data or an array."""
    from mixedmodels.frame.columns import Columns, numeric_column

    bound = fit.design.residual
    if isinstance(column, str):
        if bound is not None and column in bound.origin.data.numbers:
            return bound.origin.data.numbers[column]
        if fit._data is None:
            raise OptionError(f"{what}={column!r}: this fit does not hold its data; pass the column itself")
        values = numeric_column(column, Columns(fit._data, (column,)), what)
    else:
        try:
            values = np.array(column, dtype=float)
        except (TypeError, ValueError):
            raise DataError(f"{what} must be a column of numbers or its name") from None
    values = np.asarray(values, dtype=float)
    kept = fit.frame.kept
    if kept is not None and values.shape == (fit.n_rows,):
        values = values[kept]
    if values.shape != (fit.design.n,):
        raise DataError(
            f"{what} has shape {values.shape}; it needs one number for each of {fit.design.n} rows"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{what} has missing or infinite values in the rows of the fit")
    return values
