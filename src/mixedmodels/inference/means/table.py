"""The table of a set of means, contrasts or slopes: standard errors, intervals, adjusted tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.inference.means.adjust import Family, adjust_p_values, critical_values
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.inference.means.marginal_means import MarginalMeans

__all__ = ["estimates", "means_table"]


def estimates(means: MarginalMeans) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Estimates, standard errors, degrees of freedom (NaN where not estimable) and the covariance matrix."""
    estimate, V = means.estimate, means.vcov
    variance = np.diag(V)
    se = np.sqrt(np.where(variance > 0.0, variance, np.nan))
    se[variance == 0.0] = 0.0
    df = np.full(len(means), np.nan)
    # a row of zeros has no direction and so no degrees of freedom
    usable = means.estimable & (se > 0.0)
    if usable.any():
        df[usable] = means.source.reference.df(means.linfct[usable])
    return estimate, se, df, V


def means_table(means: MarginalMeans) -> ResultTable:
    """The result table of a set of estimates."""
    show, source = means.show, means.source
    estimate, se, df, V = estimates(means)
    r = len(means)
    statistic, p, critical = (np.full(r, np.nan) for _ in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.where(se > 0.0, (estimate - show.null) / se, np.nan)
    notes: dict[str, None] = dict.fromkeys(means.notes)
    for rows in means.groups:
        usable = rows[np.isfinite(statistic[rows])]
        if not usable.size:
            continue
        family = Family(
            means.kind if means.kind in ("pairwise", "dunnett") else "contrasts",
            means.size,
            V[np.ix_(usable, usable)],
            int(np.linalg.matrix_rank(means.linfct[usable])),
        )
        if show.tests:
            p[usable], told = adjust_p_values(show.adjust, statistic[usable], df[usable], show.side, family)
            notes.update(dict.fromkeys(told))
        critical[usable], told = critical_values(show.adjust, df[usable], show.level, show.side, family)
        notes.update(dict.fromkeys(told))
    low = estimate - critical * se if show.side >= 0 else np.where(np.isfinite(critical), -np.inf, np.nan)
    high = estimate + critical * se if show.side <= 0 else np.where(np.isfinite(critical), np.inf, np.nan)
    zero = means.estimable & (se == 0.0)
    low[zero], high[zero] = estimate[zero], estimate[zero]

    labels = dict(means.labels)
    facts: list[str] = []
    if show.response:
        estimate, se, low, high, labels, facts = _to_response(means, estimate, se, low, high, labels)
    elif source.transform is not None:
        facts.append(f"on the scale of the model: {source.transform.text}")
    labels = {name: _shown(column) for name, column in labels.items()}
    columns: dict[str, Any] = {**labels, "estimate": estimate, "std_error": se, "df": df}
    if show.tests:
        columns |= {"statistic": statistic, "p_value": p}
    columns |= {"conf_low": low, "conf_high": high}
    facts.append(f"degrees of freedom: {source.reference.label}; confidence level {show.level:g}")
    if show.side:
        facts.append(f"one-sided: alternative {'greater' if show.side > 0 else 'less'} than {show.null:g}")
    elif show.null:
        facts.append(f"tests against {show.null:g}")
    lost = int((~means.estimable).sum())
    if lost:
        facts.append(
            f"{lost} of {r} rows not estimable (NaN): they need coefficients that the data could not "
            f"determine ({', '.join(source.fit.dropped_columns)})"
        )
    extra = {"linfct": means.linfct, "vcov": V, "estimable": means.estimable, "by": means.by}
    return result_table(means.title, columns, (*notes, *facts), source.fit._native, extra)


def _shown(column: np.ndarray) -> np.ndarray:
    """Whole numbers as integers."""
    whole = column.dtype.kind == "f" and bool(
        (column == np.round(column)).all() and (abs(column) < 1e15).all()
    )
    return column.astype(np.int64) if whole else column


def _to_response(
    means: MarginalMeans,
    estimate: np.ndarray,
    se: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    labels: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray], list[str]]:
    """Estimates, errors and limits on the scale of the response, and what to say about it."""
    transform, show = means.source.transform, means.show
    if transform is None:
        return estimate, se, low, high, labels, []
    if means.kind == "means":
        variance = show.variance or 0.0
        value, slope = transform.at(estimate, variance)
        ends = [transform.at(end, variance)[0] for end in (low, high)]
        notes = [f"back-transformed from the {transform.scale} scale; standard errors by the delta method"]
        if show.variance is not None:
            notes.append(f"bias adjustment with a total SD of {np.sqrt(variance):.4g} on that scale")
        if show.tests:
            notes.append(f"tests on the {transform.scale} scale")
        return value, np.abs(slope) * se, np.fmin(*ends), np.fmax(*ends), labels, notes
    balanced = np.abs(means.offset) < 1e-12
    if transform.log_base is None or not show.ratios or means.kind == "slopes" or not balanced.all():
        why = f"on the scale of the model ({transform.text}), "
        if means.kind == "slopes":
            why += "as slopes are"
        else:
            why += "whose differences have no back-transform; regrid() compares on the scale of the response"
        return estimate, se, low, high, labels, [why]
    value, slope = transform.ratio(estimate)
    if means.ratio_labels is not None:
        first = next(iter(labels))
        labels = {first: means.ratio_labels, **{k: v for k, v in labels.items() if k != first}}
    notes = [f"{transform.ratio_name}, back-transformed from the {transform.scale} scale"]
    if show.tests:
        notes.append(f"tests on the {transform.scale} scale")
    return value, slope * se, transform.ratio(low)[0], transform.ratio(high)[0], labels, notes
