"""What is left in the residuals: correlation of neighbouring rows, and a spread that follows the mean.

Residuals of estimated effects are correlated and unequal even if the model holds; so the observed numbers are
compared with those of responses simulated from the fit, effects estimated anew at the same variances.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mixedmodels.errors import MixedModelsError
from mixedmodels.inference.checks.autocorrelation import residual_groups, structure_covariates
from mixedmodels.inference.checks.unusual import Finding

__all__ = ["residual_patterns"]

_ROWS = 20_000  # rows up to which responses are simulated
_DRAWS = 100
_FAR = 4.0  # standard deviations from the mean of the simulated numbers


def residual_patterns(fit: Any) -> Iterator[Finding]:
    """Findings about the residuals of a linear fit."""
    design = fit.design
    if not fit._is_linear or getattr(fit.frame, "covariance", None) is not None or design.n > _ROWS:
        return
    structured = design.residual is not None
    fitted, r = _simulated(fit)
    found = False
    try:
        groups: Any = residual_groups(fit)
    except MixedModelsError:
        groups = None
    if groups is not None and int(np.bincount(groups.codes).max()) >= 3:
        rows = _in_order(fit, groups.codes)
        value, z = _standing(_neighbours(r[rows], groups.codes[rows]))
        if abs(z) > _FAR:
            found = True
            remedy = (
                "another structure may do better: see acf(kind='normalized') and compare()"
                if structured
                else f'if their order is that of time: residual="ar1(time | {groups.name})"; see acf() and '
                "variogram()"
            )
            yield Finding(
                "residuals",
                "note",
                f"neighbouring rows within {groups.name} are correlated beyond the model: lag-1 "
                f"autocorrelation {value:.2g}, {z:+.1f} standard deviations from what it implies",
                remedy,
            )
    value, z = _standing(_spread(np.abs(r), fitted))
    if abs(z) > _FAR:
        found = True
        yield Finding(
            "residuals",
            "note",
            f"their spread {'grows' if value > 0 else 'falls'} with the fitted value (correlation of "
            f"absolute {'normalized' if structured else 'scaled'} residuals {value:.2g}, {z:+.1f} standard "
            "deviations from what the model implies)",
            'a variance function: residual="varpower()", or a transformed response'
            if not structured
            else "another variance function; see plot.scale_location() and compare()",
        )
    if not found and structured:
        yield Finding("residuals", "ok", "neither autocorrelation nor a trend in the spread is left")


def _simulated(fit: Any) -> tuple[np.ndarray, np.ndarray]:
    """Fitted values and normalized residuals, (n, 1 + draws): the fit's own first."""
    design = fit.design
    Y = np.column_stack([design.y, fit.simulate(_DRAWS, 0)])
    centre = np.zeros(design.n) if design.offset is None else design.offset
    estimates = fit.solver.responses_at([np.array(factor) for factor in fit._factors])
    beta, b = estimates(np.ascontiguousarray(Y - centre[:, None]))
    fitted = design.X @ beta + centre[:, None]
    for term, effects in zip(design.terms, b, strict=True):
        fitted += term.matrix(design.n) @ effects.reshape(term.m * term.k, -1)
    e = Y - fitted
    if design.residual is not None:
        return fitted, fit._point.whiten(e)
    return fitted, e if design.weights is None else e * np.sqrt(design.weights)[:, None]


def _in_order(fit: Any, codes: np.ndarray) -> np.ndarray:
    """Rows with groups together, in the order of the times of the residual structure if it has one."""
    times = structure_covariates(fit)
    return np.lexsort((*times.values(), codes) if len(times) == 1 else (codes,))


def _neighbours(r: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Lag-1 autocorrelations of the columns of r, groups together."""
    same = codes[:-1] == codes[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(r[:-1][same] * r[1:][same], axis=0) / np.mean(r * r, axis=0)


def _spread(size: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Correlations of the columns of two matrices."""
    a, b = size - size.mean(axis=0), fitted - fitted.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(a * b, axis=0) / np.sqrt(np.sum(a * a, axis=0) * np.sum(b * b, axis=0))


def _standing(values: np.ndarray) -> tuple[float, float]:
    """The first value, and how many standard deviations it lies from the mean of the others."""
    others = values[1:]
    sd = float(others.std())
    if not np.isfinite(values).all() or sd <= 0.0:
        return float(values[0]), 0.0
    return float(values[0]), float((values[0] - others.mean()) / sd)
