"""Predictions of generalised models: points, standard errors, confidence and prediction limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import DataError, NotImplementedYetError, OptionError
from mixedmodels.fit.glmm_errors import JointErrors
from mixedmodels.fit.glmm_predict import (
    NewParts,
    check_type,
    new_parts,
    on_scale,
    own_parts,
    predict_glmm,
    scale_gradient,
    select_terms,
)
from mixedmodels.fit.predict import Selection, check_new_levels
from mixedmodels.fit.simulate import check_count, generator
from mixedmodels.fit.wald import check_level
from mixedmodels.inference.ddf.tails import t_quantile
from mixedmodels.inference.fixed.glmm_coefficients import degrees_of_freedom
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.family import Family
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["predict"]

_PROBABILITIES = ("logit", "probit", "cloglog", "loglog", "cauchit")  # links of means between 0 and 1
_TAIL = 1e-12  # of the level: equality of a cumulated share with a tail


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """Rows to predict and the random effects they have.

    Attributes
    ----------
    parts : NewParts
    kept : Selection
        Terms and columns in the predicted value.
    whole : Selection
        All terms on the grouping factors of `kept`: what an observation on these levels has.
    apart : list of int
        Other terms: an observation is on a new level of them.
    numbered : list of ndarray or None
        By term the numbers of the levels, new ones told apart.
    trials : ndarray or None
    """

    parts: NewParts
    kept: Selection
    whole: Selection
    apart: list[int]
    numbered: list[Any]
    trials: np.ndarray | None


def predict(
    fit: GLMMFit,
    newdata: Any = None,
    re_form: Any = None,
    new_levels: str = "error",
    type: str = "response",
    offset: Any = None,
    *,
    se: bool = False,
    interval: str | None = None,
    level: float = 0.95,
    ddf: str | float = "z",
    trials: Any = None,
    method: str = "analytic",
    n: int = 1000,
    seed: Any = None,
    parameters: Any = None,
    draws: bool = False,
) -> np.ndarray | ResultTable:
    """Predictions; see `GLMMFit.predict`."""
    if interval not in (None, "confidence", "prediction"):
        raise OptionError(f"interval must be None, 'confidence' or 'prediction', got {interval!r}")
    if method not in ("analytic", "simulation"):
        raise OptionError(f"method must be 'analytic' or 'simulation', got {method!r}")
    if draws and method == "analytic":
        raise OptionError("draws=True needs method='simulation': the formulae draw nothing")
    if method == "analytic" and parameters is not None:
        raise OptionError("parameters (a Bootstrap) is used by method='simulation' only")
    check_type(type, fit.family, fit.components)
    if trials is not None and interval != "prediction":
        raise OptionError("trials is for interval='prediction': means of proportions do not depend on it")
    if interval is None and not se and not draws:
        return predict_glmm(fit, newdata, re_form, new_levels, type, offset)
    check_level(level)
    check_new_levels(new_levels)
    if fit.family.response == "categories" and (type != "link" or interval == "prediction"):
        raise NotImplementedYetError(
            "standard errors and limits of models of ordered categories are in this version for type='link' "
            "only; type='prob' without se has the probabilities"
        )
    if interval == "prediction" and type != "response":
        raise OptionError(f"interval='prediction' is about responses: use type='response', not {type!r}")
    request = _request(fit, newdata, re_form, new_levels, offset, trials, interval == "prediction")
    errors = JointErrors(fit)
    if method == "simulation":
        if ddf not in ("z", "normal", "asymptotic"):
            raise OptionError(f"ddf={ddf!r} has no part in method='simulation'; leave it out")
        columns, note, kept = _simulated(
            fit, request, errors, type, interval, level, check_count(n), seed, parameters, draws
        )
    else:
        columns, note = _analytic(fit, request, errors, type, interval, level, ddf)
        kept = {}
    if newdata is None:
        columns = {name: fit._rows(column) for name, column in columns.items()}
    if interval is None:
        columns = {name: column for name, column in columns.items() if not name.startswith("conf_")}
    title = f"Predictions with standard errors, type {type}"
    if interval is not None:
        title = f"Predictions with {interval} limits, {100 * level:g} %, type {type}"
    return result_table(title, columns, [*_notes(fit, request, interval), note], fit._native, kept)


# ---------------------------------------------------------------------- rows
def _request(
    fit: GLMMFit, newdata: Any, re_form: Any, new_levels: str, offset: Any, trials: Any, whole: bool
) -> _Request:
    from mixedmodels.fit.glmm_simulate import unseen_observations

    terms = fit.generalised.terms
    kept = select_terms(fit, re_form)
    groups = {terms[position].group for position, _ in kept}
    full: Selection = kept
    apart: list[int] = []
    if whole:
        full = [(p, None) for p, term in enumerate(terms) if term.group in groups]
        apart = [p for p, term in enumerate(terms) if term.group not in groups]
    own = fit.generalised.data
    if newdata is None:
        if offset is not None:
            raise OptionError("offset is for new rows; give newdata as well")
        if trials is not None:
            raise OptionError("trials is for new rows; give newdata as well")
        parts = own_parts(fit.generalised)
        return _Request(parts, kept, full, apart, [term.codes for term in terms], own.trials)
    apart_levels = "append" if new_levels == "population" else new_levels
    parts = new_parts(fit, newdata, full, apart_levels, offset, apart)
    numbered = [None if part is None else part[0] for part in parts.terms]
    known = [
        part
        if part is None or part[0] is None
        else (np.where(part[0] >= term.m, -1, part[0]).astype(part[0].dtype), part[1])
        for part, term in zip(parts.terms, terms, strict=True)
    ]
    parts = replace(parts, terms=tuple(known))
    found = None
    if whole and own.trials is not None:
        found = unseen_observations(fit, newdata, parts.rows.shape[0], trials).trials
        assert found is not None
        parts = replace(parts, rows=parts.rows & ~np.isnan(found) & (found > 0.0))
    elif trials is not None:
        raise OptionError(f"trials: family {fit.family.name!r} of this fit has one trial per row")
    return _Request(parts, kept, full, apart, numbered, found)


def _notes(fit: GLMMFit, request: _Request, interval: str | None) -> list[str]:
    terms = fit.generalised.terms
    notes: list[str] = []
    if terms and not request.kept:
        notes = ["random effects are 0: the prediction for a typical level, not the average over levels"]
    elif terms:
        names = dict.fromkeys(terms[position].group for position, _ in request.kept)
        notes = [f"mean: fixed part and random effects of {', '.join(names)}"]
    if interval == "prediction":
        text = "limits are for a new response"
        if fit.generalised.data.trials is not None:
            text += " (a proportion of its trials)"
        if request.apart:
            groups = dict.fromkeys(terms[position].group for position in request.apart)
            text += f" on a new level of {', '.join(groups)}"
        notes.append(text)
    new = [
        position
        for position, _ in request.kept
        if request.parts.terms[position][0] is not None and (request.parts.terms[position][0] < 0).any()
    ]
    if request.parts.leftover:
        notes.append("effects at new positions given those of the data, with the variance left")
    if new:
        groups = dict.fromkeys(terms[position].group for position in new)
        notes.append(
            f"effects of new levels of {', '.join(groups)} are predicted by 0 and add their whole variance"
        )
    return notes


# ---------------------------------------------------------------------- by formulae
def _analytic(
    fit: GLMMFit,
    request: _Request,
    errors: JointErrors,
    type: str,
    interval: str | None,
    level: float,
    ddf: Any,
) -> tuple[dict[str, np.ndarray], str]:
    family, parts = fit.family, request.parts
    eta = parts.predictors(fit.gamma, fit._b, request.kept)
    S = errors.covariance(parts, request.kept)
    value = on_scale(family, eta, fit.components, type)
    with np.errstate(all="ignore"):
        G = scale_gradient(family, eta, fit.components, type)
        error = np.sqrt(np.maximum(np.einsum("cr,cdr,dr->r", G, S, G), 0.0))
        error[np.isnan(value)] = np.nan
    quantile = t_quantile(level, degrees_of_freedom(ddf))
    if interval != "prediction":
        low, high, how = _limits(fit, eta, S, value, error, type, quantile)
        note = f"standard errors: joint error of parameters and random effects, delta method; limits {how}"
        if type == "link":
            note = "standard errors: joint error of parameters and random effects"
        if interval is None:
            note = note.partition("; limits")[0]
        return {"predicted": value, "std_error": error, "conf_low": low, "conf_high": high}, note
    columns = {"predicted": value, "std_error": error}
    columns |= _predictive(fit, request, errors, level)
    return columns, (
        "limits: quantiles of the distribution of a response averaged over the Gaussian error of its linear "
        "predictors; standard errors are those of the mean"
    )


def _limits(
    fit: GLMMFit,
    eta: np.ndarray,
    S: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    type: str,
    quantile: float,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Confidence limits and how they were made."""
    c = _only_predictor(fit.family, fit.components, type)
    with np.errstate(all="ignore"):
        if c is not None:
            half = quantile * np.sqrt(np.maximum(S[c, c], 0.0))
            ends = []
            for sign in (-1.0, 1.0):
                moved = eta.copy()
                moved[c] += sign * half
                ends.append(on_scale(fit.family, moved, fit.components, type))
            return np.fmin(*ends), np.fmax(*ends), "transformed from the linear predictor"
        link = fit.family.link
        if fit.family.response == "successes" or link.name in _PROBABILITIES:
            x, s = np.log(value) - np.log1p(-value), error / (value * (1.0 - value))
            ends = [1.0 / (1.0 + np.exp(-(x + sign * quantile * s))) for sign in (-1.0, 1.0)]
            return ends[0], ends[1], "on the logit scale of the mean"
        if link.positive and (value[~np.isnan(value)] > 0.0).all():
            factor = np.exp(quantile * error / value)
            return value / factor, value * factor, "on the log scale of the mean"
        return value - quantile * error, value + quantile * error, "symmetric"


def _only_predictor(family: Family, components: Sequence[str], type: str) -> int | None:
    """The one linear predictor that `type` is a monotone function of, or None."""
    from mixedmodels.family import Family as Base

    if type == "link":
        return 0
    if type == "zero_probability":
        return list(components).index("zero_inflation")
    if type == "dispersion":
        return list(components).index("dispersion")
    own = family
    if type == "conditional":
        if components[-1] == "zero_inflation" and getattr(family, "base", None) is not None:
            own = family.base  # type: ignore[attr-defined]
        elif hasattr(family, "conditional_mean"):
            return 0
    return 0 if own.__class__.mean is Base.mean else None


def _predictive(fit: GLMMFit, request: _Request, errors: JointErrors, level: float) -> dict[str, np.ndarray]:
    from mixedmodels.inference.prediction.predictive import predictive_quantiles, predictive_sd

    parts = request.parts
    n = parts.rows.shape[0]
    eta = parts.predictors(fit.gamma, fit._b, request.whole)
    S = errors.covariance(parts, request.whole)
    for position in request.apart:
        Z = parts.terms[position][1]
        k = fit.generalised.terms[position].k
        errors.add_variance(S, position, np.ones((n, k)) if Z is None else Z)
        errors.add_leftover(S, position, parts)
    ok = np.flatnonzero(np.isfinite(eta).all(axis=0) & np.isfinite(S).all(axis=(0, 1)))
    trials = None if request.trials is None else request.trials[ok]
    tails = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
    data = fit.generalised.data
    try:
        found = predictive_quantiles(
            fit.family, eta[:, ok], S[:, :, ok], trials, (tails[0] + _TAIL, tails[1] - _TAIL), data.levels
        )
    except OptionError:
        raise OptionError(
            f"family {fit.family.name!r} has no distribution function (cdf), which prediction limits by "
            "formulae need; method='simulation' draws them if it has `draw`"
        ) from None
    out = {}
    sd = predictive_sd(fit.family, eta[:, ok], S[:, :, ok], trials)
    if sd is not None:
        out["prediction_sd"] = _spread(sd, ok, n)
    for name, column in zip(("conf_low", "conf_high"), found, strict=True):
        out[name] = _spread(column if trials is None else column / trials, ok, n)
    return out


def _spread(values: np.ndarray, ok: np.ndarray, n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    out[ok] = values
    return out


# ---------------------------------------------------------------------- by simulation
def _simulated(
    fit: GLMMFit,
    request: _Request,
    errors: JointErrors,
    type: str,
    interval: str | None,
    level: float,
    n: int,
    seed: Any,
    parameters: Any,
    keep: bool,
) -> tuple[dict[str, np.ndarray], str, dict[str, Any]]:
    from mixedmodels.inference.prediction.draws import row_quantiles
    from mixedmodels.inference.prediction.glmm_draws import joint_draws, used_levels

    family, rng, parts = fit.family, generator(seed), request.parts
    if parts.leftover:
        raise NotImplementedYetError(
            "method='simulation' at positions that the data do not have is not in this version; use "
            "method='analytic'"
        )
    rows_whole = errors.known_rows(parts, request.whole)
    rows_kept = errors.known_rows(parts, request.kept)
    made = joint_draws(fit, errors, n, rng, used_levels(request.whole, rows_whole), parameters)
    eta = made.predictors(parts, rows_kept, request.numbered, rng)
    C, rows, n = eta.shape
    flat = eta.reshape(C, -1)
    means = on_scale(family, flat, fit.components, type).reshape(rows, n)
    value = on_scale(family, parts.predictors(fit.gamma, fit._b, request.kept), fit.components, type)
    columns = {"predicted": value, "std_error": means.std(axis=1, ddof=1) if n > 1 else np.full(rows, np.nan)}
    out = means
    tails = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
    if interval == "prediction":
        if request.whole != request.kept:
            eta = made.predictors(parts, rows_whole, request.numbered, rng)
        for position in request.apart:
            term = fit.generalised.terms[position]
            Z = parts.terms[position][1]
            Z = np.ones((rows, 1)) if Z is None else Z
            u = rng.standard_normal((rows, n, term.k))
            b = np.einsum("rij,lrj->lri", np.broadcast_to(made.factors[position], (n, term.k, term.k)), u)
            eta[fit.generalised.term_predictor[position]] += np.einsum("lri,li->lr", b, Z)
        out = _responses(fit, eta, request.trials, rng)
        columns["prediction_sd"] = out.std(axis=1, ddof=1) if n > 1 else np.full(rows, np.nan)
        with np.errstate(all="ignore"):
            sorted_ = np.sort(out, axis=1)
        places = [min(max(int(np.ceil(tail * n - 1e-9)) - 1, 0), n - 1) for tail in tails]
        low, high = [sorted_[:, place] for place in places]
    else:
        low, high = row_quantiles(out.copy(), tails)
    for name, column in (("conf_low", low), ("conf_high", high)):
        columns[name] = np.where(np.isnan(value), np.nan, column)
    source = "the bootstrap" if parameters is not None else "the Gaussian approximation at the estimates"
    note = f"limits: quantiles of {n} joint draws of parameters and random effects, parameters from {source}"
    return columns, note, {"draws": out} if keep else {}


def _responses(
    fit: GLMMFit, eta: np.ndarray, trials: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """One response for each draw of the predictors, shape (rows, n); proportions of trials."""
    from mixedmodels.family import Observations

    C, rows, n = eta.shape
    ok = np.isfinite(eta).all(axis=(0, 2))
    out = np.full((rows, n), np.nan)
    size = None if trials is None else np.repeat(trials[ok], n)
    data = Observations(np.zeros(int(ok.sum()) * n), size, levels=fit.generalised.data.levels)
    try:
        with np.errstate(all="ignore"):
            y = fit.family.draw(data, list(eta[:, ok].reshape(C, -1)), rng)
    except OptionError:  # the family cannot draw
        raise
    except ValueError:
        raise DataError(
            f"responses cannot be drawn: some means are outside the range of family {fit.family.name!r} with "
            f"link {fit.family.link.name!r}; use method='analytic'"
        ) from None
    out[ok] = np.reshape(y if size is None else y / size, (-1, n))
    return out
