r"""Standard errors and Wald intervals of variances, correlations and ranges by the delta method.

With V the covariance matrix of the covariance parameters and :math:`\log\sigma` (twice the inverse of the
joint information; for a linear model the observed one, beta profiled out) and x a natural parameter,

.. math:: se(x) = \sqrt{\nabla x'\,V\,\nabla x}, \qquad h^{-1}\bigl(h(x) \pm z\,h'(x)\,se(x)\bigr),

h = log for standard deviations, ranges, rates and smoothness, artanh for correlations, the identity for
loadings. A parameter of a residual structure that is a function of one coordinate of the search has that
coordinate for h (Fisher's z, logarithms, logits), as in nlme.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixedmodels.fit import wald
from mixedmodels.fit.natural import natural_terms
from mixedmodels.fit.natural_residual import residual_natural
from mixedmodels.inference.parameters import Parameter
from mixedmodels.inference.table import ResultTable, result_table

__all__ = ["covariance_of_variances", "variance_errors", "variance_parameters", "wald_limits"]

_AT_BOUND = 1e-8
_NOISE = 1e-12
_COVARIANCE = ("sd", "cor", "structure", "sigma", "residual")


def covariance_of_variances(fit: Any) -> np.ndarray:
    """Covariance matrix of (theta, log sigma), shape (r + 1, r + 1); NaN on the boundary.

    Parameters on the boundary are taken as known for the others. The last row and column are zero where
    sigma is held or there is none.
    """
    r = len(fit.theta)
    out = np.zeros((r + 1, r + 1))
    if not fit._is_linear:
        V = fit._covariances[0]
        first = len(fit.gamma)
        out[:r, :r] = V[first:, first:]
        return out
    objective = fit.objective
    if hasattr(objective, "restricted_covariance"):
        V = objective.restricted_covariance(fit.theta)
        scale = np.append(np.ones(r), 0.5)[: len(V)]
        out[: len(V), : len(V)] = V * scale * scale[:, None]
        return out
    theta = np.asarray(fit.theta)
    kind = "observed" if getattr(objective, "observed_is_cheap", True) else "average"
    information = objective.joint_information(theta, kind)
    low, high = np.asarray(objective.lower), np.asarray(objective.upper)
    bound = (theta - low <= _AT_BOUND) | (high - theta <= _AT_BOUND)
    index = getattr(getattr(objective, "_map", None), "index", ())
    for own, factor in zip(index, fit._factors, strict=False):
        if not np.any(factor):  # without variance its correlations change nothing
            bound[own] = True
    free = np.append(~bound, True)[: len(information)]
    scale = np.ones(len(information))
    scale[r:] = 0.5  # log sigma^2 -> log sigma
    try:
        inverse = 2.0 * np.linalg.inv(information[np.ix_(free, free)])
    except np.linalg.LinAlgError:
        inverse = np.full((int(free.sum()),) * 2, np.nan)
    part = np.full((len(information),) * 2, np.nan)
    part[np.ix_(free, free)] = inverse
    part *= scale * scale[:, None]
    out[: len(part), : len(part)] = part
    return out


def variance_errors(fit: Any) -> dict[str, tuple[float, float, str]]:
    """Estimate, standard error and kind of each natural parameter (and sigma) by name."""
    V = covariance_of_variances(fit)
    out: dict[str, tuple[float, float, str]] = {}
    columns = [fit._term_names(j) for j in range(len(fit._terms))]
    theta, scale = np.asarray(fit.theta), fit._scale
    for natural in natural_terms(fit._terms, fit._random.theta_index, columns):
        found = natural.at(theta, scale)
        for label, value, slope, along in zip(
            natural.names, found.values.tolist(), found.jacobian, found.log_scale.tolist(), strict=True
        ):
            gradient = np.zeros(len(V))
            np.add.at(gradient, natural.index, slope)
            gradient[-1] = along if fit._is_linear else 0.0
            out[label.name] = (value, _error(gradient, V, value, label.kind), label.kind)
    if fit._is_linear and fit._options.sigma is None:
        out["sigma"] = (scale, _error(np.append(np.zeros(len(theta)), scale), V, scale, "sd"), "sd")
    residual = residual_natural(fit)
    if residual is not None:
        structure = fit.residual
        for label, value, error in zip(residual.names, structure.values, structure.std_error, strict=True):
            out[label.name] = (float(value), float(error) if error > 0.0 else math.nan, label.kind)
    return out


def _error(gradient: np.ndarray, V: np.ndarray, value: float, kind: str) -> float:
    used = np.flatnonzero(gradient)
    if not np.isfinite(gradient).all() or not len(used):
        return math.nan
    if kind == "cor" and 1.0 - abs(value) < _AT_BOUND:
        return math.nan
    variance = float(gradient[used] @ V[np.ix_(used, used)] @ gradient[used])
    largest = float(np.sum(gradient[used] ** 2 * np.diagonal(V)[used]))
    return math.sqrt(variance) if variance > _NOISE * largest else math.nan  # held: rounding remains


def wald_limits(value: float, error: float, kind: str, z: float) -> tuple[float, float]:
    """Limits on the scale on which the estimate is closest to normal."""
    if not math.isfinite(error):
        return math.nan, math.nan
    if kind == "cor":
        middle, half = math.atanh(value), z * error / (1.0 - value * value)
        return math.tanh(middle - half), math.tanh(middle + half)
    if kind == "loading":
        return value - z * error, value + z * error
    half = z * error / value
    if half > 700.0:  # nothing is known about it
        return 0.0, math.inf
    return value * math.exp(-half), value * math.exp(half)


def variance_parameters(
    fit: Any, level: float = 0.95, wanted: tuple[Parameter, ...] | None = None
) -> ResultTable:
    """Standard deviations, correlations, ranges, ... with standard errors and Wald intervals.

    Parameters
    ----------
    fit : LMMFit or GLMMFit
    level : float
    wanted : tuple of Parameter, optional
        By default all covariance parameters.

    Returns
    -------
    ResultTable
        term, group, estimate, std_error, conf_low, conf_high; NaN with a note on the boundary of the
        parameter space.
    """
    level = wald.check_level(level)
    from mixedmodels.inference.parameters import parameters_of

    if wanted is None:
        wanted = tuple(p for p in parameters_of(fit) if p.kind in _COVARIANCE)
    z = wald.normal_quantile(level)
    errors = variance_errors(fit)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("term", "group", "estimate", "std_error", "conf_low", "conf_high")
    }
    notes = []
    for parameter in wanted:
        value, error, kind = _found(fit, errors, parameter)
        if not math.isfinite(error):
            notes.append(
                f"{parameter.name}: on the boundary of the parameter space or held, no Wald interval; "
                "method='profile' or 'bootstrap' may have one"
            )
        if parameter.kind == "residual":
            limits = parameter.natural.limits(parameter.where[0], value, error, z)
        else:
            limits = wald_limits(value, error, kind, z)
        cells = (parameter.name, parameter.group, value, error, *limits)
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    extra = {"level": level, "tidy": [(p.group, p.term) for p in wanted]}
    return result_table("Covariance parameters", columns, notes, fit._native, extra)


def _found(
    fit: Any, errors: dict[str, tuple[float, float, str]], parameter: Parameter
) -> tuple[float, float, str]:
    """What is known of a parameter; the columns of ``homdiag`` share one standard deviation."""
    if parameter.name in errors:
        return errors[parameter.name]
    common = f"sd|{parameter.group}"
    return errors.get(common, (parameter.estimate, math.nan, parameter.quantity))
