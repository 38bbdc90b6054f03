r"""Forecasts: new observations given all the data, residuals correlated with those of the fit included.

With :math:`K = R_{no} R^{-1}` and :math:`e_n = K e + \epsilon`, the error of
:math:`\hat y_n = x'\hat\beta + z'\hat b + K\hat e` is

.. math:: (x - X'K')'(\beta - \hat\beta) + (z - Z'K')'(b - \hat b) + \epsilon, \qquad
          \mathrm{Var}(\epsilon) = \sigma^2 (R_{nn} - K R_{on}),

so that its variance follows from Henderson's error covariance at rows less what K takes from the data
(universal kriging; Goldberger 1962, JASA 57:369-375).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.predict import check_new_levels, new_rows, predict_design, select_columns
from mixedmodels.fit.residual_rows import forecast, new_columns, new_residual_rows
from mixedmodels.fit.simulate import positive_weights
from mixedmodels.fit.wald import normal_quantile
from mixedmodels.inference.prediction.analytic import scale_of_levels
from mixedmodels.inference.prediction.rows import chosen, term_variance
from mixedmodels.inference.structured_rows import error_variance
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.structured import StructuredFit

__all__ = ["forecasts"]


def forecasts(
    fit: Any,
    newdata: Any,
    new_levels: str,
    offset: Any,
    interval: str | None,
    level: float,
    se: bool,
    weights: Any,
) -> np.ndarray | ResultTable:
    """Predictions with ``E(e | y)`` of new rows; see `LMMFit.predict`.

    Raises
    ------
    OptionError
        Residuals are independent, or no new rows are given.
    """
    if fit.design.residual is None:
        raise OptionError(
            "forecast=True predicts residuals from correlated ones, and those of this model are independent; "
            "leave it out, or fit with residual="
        )
    if newdata is None:
        raise OptionError("forecast=True is for new rows: give newdata")
    check_new_levels(new_levels)
    rows = new_rows(fit, newdata, select_columns(fit, None), new_levels, offset)
    mean = predict_design(fit, rows, [(position, None) for position in range(len(fit.design.terms))])
    given = positive_weights(weights, newdata, rows.n)
    residuals = new_residual_rows(fit, new_columns(fit, newdata), mean, given)
    predicted = mean + forecast(fit, residuals)
    if interval is None and not se:
        return predicted
    ok = np.flatnonzero(~np.isnan(predicted))
    error, fresh = _errors(fit, rows, residuals, ok)
    columns = {"predicted": predicted}
    for name, variance in (("std_error", error), ("prediction_sd", error + fresh)):
        columns[name] = np.full(rows.n, np.nan)
        columns[name][ok] = fit.sigma * np.sqrt(variance)
    if interval is not None:
        half = normal_quantile(level) * columns["prediction_sd"]
        columns["conf_low"], columns["conf_high"] = predicted - half, predicted + half
    notes = [
        "forecast: fixed part, random effects and the expected residual given the data",
        "std_error: of the forecast, for having estimated beta and b; prediction_sd: of the observation",
        "variance parameters as estimated",
    ]
    title = "Forecasts" + ("" if interval is None else f" with prediction limits, {100 * level:g} %")
    return result_table(title, columns, notes, fit._native, {})


def _errors(fit: StructuredFit, rows: Any, residuals: Any, ok: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances over sigma^2 of the errors of beta and b in forecasts, and of epsilon, of the rows `ok`."""
    from scipy.sparse import csr_array

    design, phi = fit.design, np.array(fit.phi)
    C = csr_array(residuals.cross(phi))[ok]
    W = fit._point.whitening()[0]
    half = csr_array(C @ W.T)
    fresh = residuals.variances(phi)[ok] - half.multiply(half).sum(axis=1)
    K = csr_array(half @ W)
    X = rows.X[ok] - K @ design.X
    parts, more = [], np.zeros(ok.size)
    for position, term in enumerate(design.terms):
        codes, Z = rows.terms[position]
        codes, own = codes[ok], chosen(None if Z is None else Z[ok], None, term.k, ok.size)
        new = np.flatnonzero(codes < 0)
        if new.size:
            more[new] += term_variance(own[new], np.array(fit._factors[position])[None])[:, 0]
        if rows.leftover and position in rows.leftover:
            more += rows.leftover[position][ok] * scale_of_levels(fit, position, codes)
        known = np.flatnonzero(codes >= 0)
        place = codes[known].astype(np.int64)[:, None] * term.k + np.arange(term.k)
        at = np.repeat(known, term.k), place.reshape(-1)
        z = csr_array((own[known].reshape(-1), at), shape=(ok.size, term.m * term.k))
        parts.append(csr_array(z - K @ term.matrix(design.n)))
    return error_variance(fit, X, parts) + more, np.maximum(fresh, 0.0)
