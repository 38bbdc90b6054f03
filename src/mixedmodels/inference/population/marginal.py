"""Population-averaged means and coefficients of generalised mixed models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import NotImplementedYetError, OptionError
from mixedmodels.family.jet import variables
from mixedmodels.family.mean_jets import has_plain_mean
from mixedmodels.fit.wald import check_level, percent
from mixedmodels.inference.ddf.tails import t_quantile, t_tail
from mixedmodels.inference.population.averages import averaged_link, averaged_mean
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["PredictorMoments", "marginal_coefficients", "marginal_means_over_effects", "predictor_moments"]


@dataclass(frozen=True, slots=True, eq=False)
class PredictorMoments:
    """Means and variances of linear predictors over the random effects, with derivatives by psi.

    Attributes
    ----------
    eta, variance : ndarray, shape (C, n)
    X : tuple of ndarray, (n, p_c)
        Derivatives of each eta by its own coefficients.
    slopes : tuple of list of (place in psi, ndarray (n,))
        Derivatives of each variance by covariance parameters.
    rows : ndarray of bool, shape (n,)
        False for rows that cannot be predicted.
    """

    eta: np.ndarray
    variance: np.ndarray
    X: tuple[np.ndarray, ...]
    slopes: tuple[list[tuple[int, np.ndarray]], ...]
    rows: np.ndarray


def predictor_moments(fit: GLMMFit, newdata: Any = None, offset: Any = None) -> PredictorMoments:
    r"""Mean :math:`x'\gamma + o` and variance :math:`z'\Sigma z` of each linear predictor.

    Parameters
    ----------
    fit : GLMMFit
    newdata : data frame or dict, optional
        None: the rows of the fit. Grouping factors are not needed.
    offset : optional
        Of new rows.
    """
    design = fit.generalised
    if any(term.precision is not None for term in design.terms):
        raise NotImplementedYetError(
            "averages over random effects with a known covariance between levels are not in this version"
        )
    design.need_one_level("averages over random effects")
    if newdata is None:
        n = design.n
        ones = np.ones((n, 1))
        X = tuple([ones if p.X is None else np.asarray(p.X) for p in design.predictors])
        offsets = [p.offset for p in design.predictors]
        columns = [term.Z for term in design.terms]
        rows = np.ones(n, dtype=bool)
    else:
        X, offsets, columns, rows = _new_columns(fit, newdata, offset)
        n = len(rows)
    C = len(design.predictors)
    eta, variance = np.zeros((C, n)), np.zeros((C, n))
    for c, predictor in enumerate(design.predictors):
        eta[c] = X[c] @ fit.gamma[predictor.columns]
        own = offsets[c]
        if own is not None:
            eta[c] += own
    slopes: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(C)]
    theta_map = fit.objective.coordinates.map
    projected = []
    for term_Z, factor, c in zip(columns, fit._factors, design.term_predictor, strict=True):
        F = np.array(factor)
        z = np.ones((n, 1)) if term_Z is None else term_Z
        projected.append((z, z @ F))
        variance[c] += (projected[-1][1] ** 2).sum(axis=1)
    for t, parts in enumerate(theta_map.derivatives(fit.theta) if design.terms else ()):
        for b, E in parts:
            z, zF = projected[b]
            slope = 2.0 * np.einsum("ij,ij->i", zF, z @ E)
            slopes[design.term_predictor[b]].append((len(design.gamma_names) + t, slope))
    eta[:, ~rows], variance[:, ~rows] = 0.0, 0.0
    return PredictorMoments(eta, variance, X, tuple(slopes), rows)


def _new_columns(
    fit: GLMMFit, newdata: Any, offset: Any
) -> tuple[tuple[np.ndarray, ...], list[Any], list[Any], np.ndarray]:
    from mixedmodels.fit.predict import not_estimable
    from mixedmodels.frame.parts import new_predictors

    if fit.formula is None:
        fit.frame.new_data(newdata)
    count = len(fit.generalised.terms)
    found = new_predictors(fit.frame, newdata, terms=(), offset=offset, columns_of=range(count))
    rows = np.array(found[0].rows)
    for design in found:
        rows[not_estimable(fit, design)] = False
    terms = [term for design in found for term in design.terms]
    Z = [None if term is None or term[1] is None else np.where(rows[:, None], term[1], 0.0) for term in terms]
    X = tuple([np.where(rows[:, None], design.X, 0.0) for design in found])
    return X, [None if d.offset is None else np.where(rows, d.offset, 0.0) for d in found], Z, rows


def _jacobian(
    fit: GLMMFit, moments: PredictorMoments, by_eta: np.ndarray, by_v: np.ndarray, components: Sequence[int]
) -> np.ndarray:
    """Derivatives of the means by all parameters psi, shape (n, P)."""
    J = np.zeros((moments.eta.shape[1], fit.psi.shape[0]))
    for row, c in enumerate(components):
        np.add.at(J.T, fit.generalised.predictors[c].columns, (by_eta[row][:, None] * moments.X[c]).T)
        for at, slope in moments.slopes[c]:
            J[:, at] += by_v[row] * slope
    return J


def _inverse_slope(link: Any, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``g(m)`` and ``g'(m)``."""
    with np.errstate(all="ignore"):
        t = np.asarray(link.forward(m), dtype=float)
        slope = link.inverse(variables([t], (0,), 1)[0]).table(t.shape[0])[1]
        return t, 1.0 / slope


def marginal_means_over_effects(
    fit: GLMMFit, newdata: Any = None, offset: Any = None, level: float = 0.95
) -> ResultTable:
    """Means of the response averaged over the random effects; see `GLMMFit.predict_marginal`."""
    level = check_level(level)
    if fit.family.response == "categories":
        raise OptionError("the response is a category and has no mean")
    moments = predictor_moments(fit, newdata, offset)
    m, by_eta, by_v = averaged_mean(fit.family, moments.eta, moments.variance)
    J = _jacobian(fit, moments, by_eta, by_v, range(len(moments.eta)))
    se = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", J, fit.joint_vcov, J), 0.0))
    q = t_quantile(level, math.inf)
    link = fit.family.link
    if has_plain_mean(fit.family) and link.name != "identity":
        t, slope = _inverse_slope(link, m)
        half = q * np.abs(slope) * se
        with np.errstate(all="ignore"):
            ends = [np.asarray(link.inverse(t + sign * half)) for sign in (-1.0, 1.0)]
        low, high = np.fmin(*ends), np.fmax(*ends)
        how = f"limits from the {link.name} scale"
    else:
        low, high, how = m - q * se, m + q * se, "normal limits"
    columns = {"predicted": m, "std_error": se, "conf_low": low, "conf_high": high}
    for column in columns.values():
        column[~moments.rows] = np.nan
    if newdata is None:
        columns = {name: fit._rows(column) for name, column in columns.items()}
    notes = (
        "averaged over the random effects: the mean over levels, not that of a typical level",
        f"standard errors by the delta method, covariance parameters included; {how}",
    )
    title = f"Population-averaged means, {percent(level)} confidence intervals"
    return result_table(title, columns, notes, fit._native)


def marginal_coefficients(fit: GLMMFit, level: float = 0.95, ddf: Any = "z") -> ResultTable:
    """Population-averaged coefficients; see `GLMMFit.marginal_coefficients`."""
    from mixedmodels.inference.fixed.glmm_coefficients import degrees_of_freedom

    level, df = check_level(level), degrees_of_freedom(ddf)
    if fit.family.response == "categories":
        raise OptionError("marginal coefficients need a mean, and the response is a category")
    design, link = fit.generalised, fit.family.link
    moments = predictor_moments(fit)
    m, by_eta, by_v = averaged_link(link, moments.eta[0], moments.variance[0])
    t, slope = _inverse_slope(link, m)
    offset = design.predictors[0].offset
    X = moments.X[0]
    data = design.data
    w = np.ones(design.n) if data.weights is None else data.weights
    w = w if data.trials is None else w * data.trials
    root = np.sqrt(w)
    Q, R = np.linalg.qr(X * root[:, None])
    A = np.linalg.solve(R, Q.T) * root
    estimate = A @ (t if offset is None else t - offset)
    J = A @ _jacobian(fit, moments, (slope * by_eta)[None], (slope * by_v)[None], [0])
    vcov = J @ fit.joint_vcov @ J.T
    se = np.sqrt(np.maximum(vcov.diagonal(), 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.where(se > 0.0, estimate / se, np.nan)
    half = t_quantile(level, df) * se
    columns = {
        "term": list(fit.design.x_names),
        "estimate": estimate,
        "std_error": se,
        "df": [df] * len(estimate),
        "statistic": statistic,
        "p_value": [t_tail(value, df) for value in statistic.tolist()],
        "conf_low": estimate - half,
        "conf_high": estimate + half,
        "conditional": fit.beta,
    }
    fitted = X @ estimate + (0.0 if offset is None else offset)
    worst = float(np.max(np.abs(fitted - t), initial=0.0))
    notes = [
        f"least squares of the {link.name} of population-averaged means on the columns of the model; "
        f"the largest difference between the two is {worst:.2g}",
        "conditional: coefficients at given random effects; standard errors by the delta method, covariance "
        "parameters included",
    ]
    if not has_plain_mean(fit.family):
        notes.insert(0, f"of the conditional mean of family {fit.family.name}, without its other parts")
    title = f"Population-averaged coefficients, {percent(level)} confidence intervals"
    return result_table(title, columns, notes, fit._native, {"vcov": vcov})
