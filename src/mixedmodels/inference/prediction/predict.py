"""Predictions as arrays or tables: which rows, which effects, by formulae or by simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.fit.predict import Selection, check_new_levels, new_rows, select_columns
from mixedmodels.fit.predict import predict as predict_points
from mixedmodels.fit.simulate import check_count, positive_weights
from mixedmodels.inference.arguments import yes_or_no
from mixedmodels.inference.prediction.rows import Parts, own_rows, parts_of
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.frame.newdata import NewDesign

__all__ = ["predict"]


def predict(
    fit: LMMFit,
    newdata: Any = None,
    re_form: Any = None,
    new_levels: str = "error",
    offset: Any = None,
    *,
    interval: str | None = None,
    level: float = 0.95,
    se: bool = False,
    type: str = "response",
    weights: Any = None,
    ddf: str | float = "z",
    method: str = "analytic",
    n: int = 1000,
    seed: Any = None,
    parameters: Any = None,
    draws: bool = False,
    forecast: bool = False,
) -> np.ndarray | ResultTable:
    """Predictions; see `LMMFit.predict`."""
    if type not in ("response", "link"):
        raise OptionError(f"type must be 'response' or 'link', got {type!r}")
    if interval not in (None, "confidence", "prediction"):
        raise OptionError(f"interval must be None, 'confidence' or 'prediction', got {interval!r}")
    if method not in ("analytic", "simulation"):
        raise OptionError(f"method must be 'analytic' or 'simulation', got {method!r}")
    if draws and method == "analytic":
        raise OptionError("draws=True needs method='simulation': the formulae draw nothing")
    if method == "analytic" and parameters is not None:
        raise OptionError("parameters (a Bootstrap) is used by method='simulation' only")
    if yes_or_no(forecast, "forecast"):
        if method == "simulation" or interval == "confidence" or re_form is not None or ddf != "z":
            raise OptionError(
                "forecast=True predicts new observations given all the data: leave out method, re_form and "
                'ddf, and write interval="prediction" for limits'
            )
        from mixedmodels.inference.prediction.forecast import forecasts

        return forecasts(fit, newdata, new_levels, offset, interval, level, se, weights)
    if getattr(fit.frame, "covariance", None) is not None:
        if method == "simulation":
            raise NotImplementedYetError(
                "method='simulation' is not in this version for a covariance given as a function"
            )
        return _of_user_factor(fit, newdata, re_form, offset, interval, level, se, weights, ddf)
    if interval is None and not se and not draws:
        return predict_points(fit, newdata, re_form, new_levels, offset)
    parts = parts_of(fit, select_columns(fit, re_form), interval == "prediction")
    quantile = _Quantiles(fit, ddf, level, parts, method)
    answer: Any
    if method == "simulation":
        from mixedmodels.inference.prediction.draws import Simulated

        answer = Simulated(fit, parts, level, check_count(n), seed, parameters, draws)
    else:
        from mixedmodels.inference.prediction.analytic import Analytic

        answer = Analytic(fit, parts, quantile, quantile.reference)
    check_new_levels(new_levels)
    if newdata is None:
        columns, new = _of_own_rows(fit, answer, weights, offset), 0
    else:
        columns, new = _of_new_rows(fit, answer, parts, newdata, new_levels, offset, weights)
    kept = {} if not draws else {"draws": columns.pop("draws")}
    if interval is None:
        del columns["conf_low"], columns["conf_high"]
    notes = _notes(fit, parts, weights, newdata, new, answer.note)
    title = "Predictions with standard errors" if interval is None else f"Predictions with {interval} limits"
    title += "" if interval is None else f", {100 * level:g} %"
    return result_table(title, columns, notes, fit._native, kept)


def _of_user_factor(
    fit: Any,
    newdata: Any,
    re_form: Any,
    offset: Any,
    interval: str | None,
    level: float,
    se: bool,
    weights: Any,
    ddf: Any,
) -> np.ndarray | ResultTable:
    """Predictions where the covariance is a function of theta: with all random effects or with none."""
    from mixedmodels.inference.prediction.user_factor import predicted_columns

    effects = re_form is None or re_form is True
    select_columns(fit, re_form)  # refuses names: there are no grouping factors
    if newdata is None and offset is not None:
        raise OptionError("offset is for new rows; give newdata as well")
    whole = interval == "prediction"
    n = fit.design.n if newdata is None or "X" not in newdata else len(newdata["X"])
    given = positive_weights(weights, None, n)
    if newdata is None and weights is None:
        given = fit.design.weights
    columns = predicted_columns(fit, newdata, effects, offset, given, whole)
    if interval is None and not se:
        return columns["predicted"]
    parts = Parts([(0, None)] if effects else [], [], [], whole)
    half = np.asarray(_Quantiles(fit, ddf, level, parts, "analytic").normal)
    half = half * columns["prediction_sd" if whole else "std_error"]
    if interval is not None:
        columns |= {"conf_low": columns["predicted"] - half, "conf_high": columns["predicted"] + half}
    notes = [f"mean: fixed part and {'all' if effects else 'no'} random effects"]
    title = "Predictions with standard errors" if interval is None else f"Predictions with {interval} limits"
    title += "" if interval is None else f", {100 * level:g} %"
    return result_table(title, columns, notes, fit._native, {})


def _of_new_rows(
    fit: LMMFit, answer: Any, parts: Parts, newdata: Any, new_levels: str, offset: Any, weights: Any
) -> tuple[dict[str, np.ndarray], int]:
    """The columns for new rows, and the number of new levels in them, term by term."""
    if any(fit.design.terms[position].several_levels for position in parts.with_levels):
        fit.design.need_one_level("standard errors and intervals of predictions")
    with_levels: Selection = [(position, None) for position in parts.with_levels]
    rows: NewDesign = new_rows(
        fit, newdata, with_levels, new_levels, offset, [p for p, _ in parts.apart], tell_apart=True
    )
    if rows.positions:
        answer.note += "; effects at new positions given those of the data, with the variance left"
    numbered, terms = {}, list(rows.terms)
    new: dict[str, int] = {}  # by grouping factor
    for position in parts.with_levels:
        codes, Z = rows.terms[position]  # type: ignore[misc]
        unseen = codes >= fit.design.terms[position].m
        if unseen.any():
            numbered[position] = codes
            terms[position] = (np.where(unseen, -1, codes).astype(codes.dtype), Z)
            if position in dict(parts.kept):
                new[fit.design.terms[position].group] = np.unique(codes[unseen & rows.rows]).size
    rows = replace(rows, terms=tuple(terms))
    data = None if fit.formula is None else newdata
    given = positive_weights(weights, data, rows.n)
    if fit.design.residual is not None and parts.whole:
        given = _structured_weights(fit, newdata, offset, given, answer)
    columns = answer(rows, given, numbered)
    if getattr(answer, "draws", None) is not None:
        columns["draws"] = answer.draws
    return columns, sum(new.values())


def _of_own_rows(fit: LMMFit, answer: Any, weights: Any, offset: Any) -> dict[str, np.ndarray]:
    """The columns for the rows of the fit, placed as `fitted` places them."""
    if offset is not None:
        raise OptionError("offset is for new rows; give newdata as well")
    if isinstance(weights, str):
        raise OptionError("weights names a column; give newdata as well")
    design, rows = fit.design, own_rows(fit)
    own = design.weights if weights is None else positive_weights(weights, None, design.n)
    if design.residual is not None and answer.parts.whole:
        own = _own_structured_weights(fit, None if weights is None else own, answer)
    zero = rows.n - design.n
    if zero:  # these have a mean; a new observation with weight zero has no finite variance
        own = np.ones(design.n) if own is None else own
        own = np.concatenate([own, np.full((zero, *own.shape[1:]), np.nan)])
    columns = answer(rows, own)
    if getattr(answer, "draws", None) is not None:
        columns["draws"] = answer.draws
    place = fit._rows(np.arange(design.n, dtype=float), lambda: np.arange(design.n, rows.n, dtype=float))
    missing = np.isnan(place)
    at = np.where(missing, 0.0, place).astype(np.intp)
    out = {name: column[at] for name, column in columns.items()}
    for column in out.values():
        column[missing] = np.nan
    return out


def _structured_weights(
    fit: Any, newdata: Any, offset: Any, weights: np.ndarray | None, answer: Any
) -> np.ndarray:
    """Reciprocal variances over sigma^2 of new rows, (rows,); (rows, draws) for draws of the parameters."""
    from mixedmodels.fit.residual_rows import new_columns, new_residual_rows

    mean = None
    if fit.residual_structure.needs_fitted:
        mean = predict_points(fit, newdata, None, "population", offset)
    rows = new_residual_rows(fit, new_columns(fit, newdata), mean, weights)
    phis = getattr(answer, "phis", None)
    if phis is None:
        return 1.0 / rows.variances(np.array(fit.phi))
    return np.column_stack([1.0 / rows.variances(phi) for phi in phis])


def _own_structured_weights(fit: Any, weights: np.ndarray | None, answer: Any) -> np.ndarray:
    """Reciprocal variances over sigma^2 of the rows of the fit, (n,); (n, draws) for draws of parameters."""
    bound, own = fit.residual_structure, fit.design.weights
    ratio = 1.0 if weights is None else weights / (1.0 if own is None else own)
    phis = getattr(answer, "phis", None)
    if phis is None:
        return ratio / fit._point.variances
    return np.column_stack([ratio / bound.at(phi).variances for phi in phis])


def _notes(fit: LMMFit, parts: Parts, weights: Any, newdata: Any, new: int, how: str) -> list[str]:
    terms, selection = fit.design.terms, parts.kept
    if not selection:
        effects = "no random effects (population level)"
    else:
        names = [
            terms[p].group
            if columns is None
            else f"{terms[p].group} ({', '.join(terms[p].names[j] for j in columns)})"
            for p, columns in selection
        ]
        effects = "random effects of " + ", ".join(dict.fromkeys(names))
    notes = [f"mean: fixed part and {effects}", how]
    if parts.whole:
        if fit.design.residual is not None:
            share = (
                "its variance in the residual structure, its residual independent of those of the data "
                "(forecast=True takes their correlation into account)"
            )
        else:
            share = "sigma^2" if weights is None and fit.design.weights is None else "sigma^2 / weight"
            if weights is None and newdata is not None and fit.design.weights is not None:
                share += " (weight 1: give weights= for others)"
        added = [share]
        if parts.same:
            added.append("effects left out on the levels of the mean, with their covariance")
        if parts.apart:
            groups = ", ".join(dict.fromkeys(terms[p].group for p, _ in parts.apart))
            added.append(f"the variance of effects left out, of a new level of {groups}")
        notes.append("limits are for a new observation: " + "; ".join(added))
    if new:
        notes.append(f"effects of new levels ({new} in all) are predicted by 0 and add their whole variance")
    return notes


class _Quantiles:
    """Multipliers of standard errors."""

    def __init__(
        self,
        fit: LMMFit,
        ddf: str | float,
        level: float,
        parts: Parts,
        method: str,
    ) -> None:
        from mixedmodels.fit.wald import normal_quantile

        self.normal = normal_quantile(level)
        self.level = level
        self.reference = None
        if ddf in ("z", "normal", "asymptotic"):
            return
        if method == "simulation":
            raise OptionError(f"ddf={ddf!r} has no part in method='simulation'; leave it out")
        number = isinstance(ddf, (int, float)) and not isinstance(ddf, bool)
        if not number and (parts.kept or parts.whole):
            raise OptionError(
                f"ddf={ddf!r} is for confidence intervals at the population level (re_form='population'); "
                "use 'z' or a number of degrees of freedom here"
            )
        from mixedmodels.inference.ddf.reference import reference_for

        self.reference = reference_for(fit, ddf)

    def __call__(self, X: np.ndarray) -> np.ndarray | float:
        if self.reference is None:
            return self.normal
        from scipy.special import stdtrit

        df = self.reference.df(X)
        finite = np.isfinite(df)
        out = np.full(X.shape[0], self.normal)
        out[finite] = stdtrit(df[finite], 0.5 + 0.5 * self.level)
        return out
