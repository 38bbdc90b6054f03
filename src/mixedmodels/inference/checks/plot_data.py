"""The numbers behind the plots of a fit: plain columns, one function per kind of plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.ranef import conditional_sds, level_array
from mixedmodels.fit.wald import check_level, normal_quantile
from mixedmodels.inference.checks.working import working_fit

if TYPE_CHECKING:
    from mixedmodels.inference.profile.curve import Curve
    from mixedmodels.inference.profile.result import Profile

__all__ = [
    "caterpillar_data",
    "find_term",
    "profile_curves",
    "profile_data",
    "qq_data",
    "ranef_qq_data",
    "residual_data",
    "residual_kind",
    "residuals_to_plot",
    "scale_location_data",
    "shrinkage_data",
    "smooth",
    "standard_residuals",
]

_BINS = 200


def smooth(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A smoothing spline (generalised cross-validation) through means of y over up to 200 bins of x.

    Returns
    -------
    x, y : ndarray
        Points of the curve; empty where x has fewer than six distinct values.
    """
    from scipy.interpolate import make_smoothing_spline

    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    edges = np.unique(np.linspace(0, x.size, min(_BINS, x.size) + 1).astype(int))
    starts = edges[:-1]
    counts = np.diff(edges).astype(float)
    centres = np.add.reduceat(x, starts) / counts
    means = np.add.reduceat(y, starts) / counts
    distinct, place = np.unique(centres, return_inverse=True)
    if distinct.size < 6 or np.min(np.diff(distinct)) <= 1e-12 * np.ptp(distinct):
        gaps = np.concatenate([[True], np.diff(distinct) > 1e-9 * max(np.ptp(distinct), 1e-300)])
        place = (np.cumsum(gaps) - 1)[place]
    if int(place.max(initial=0)) < 5:
        return np.empty(0), np.empty(0)
    weights = np.bincount(place, counts)
    at = np.bincount(place, counts * centres) / weights
    level = np.bincount(place, counts * means) / weights
    grid = np.linspace(at[0], at[-1], 101)
    # in units of order one: the spline's cross-validation is not invariant to scale in finite precision
    width, height = np.ptp(at), float(np.std(level)) or 1.0
    curve = make_smoothing_spline((at - at[0]) / width, level / height, w=weights / weights.mean())
    return grid, curve((grid - at[0]) / width) * height


def residual_kind(fit: Any, kind: str | None = None) -> str:
    """The residuals that plots show: response of linear models, quantile of generalised ones.

    Pearson residuals where the family has no distribution function.
    """
    if kind is not None:
        return kind
    if fit._is_linear:
        return "response"
    try:
        fit.residuals("quantile", seed=0)
    except OptionError:
        return "pearson"
    return "quantile"


def residuals_to_plot(fit: Any, kind: str) -> np.ndarray:
    """Residuals of a kind; quantile residuals always from the same random numbers."""
    return fit.residuals(kind, seed=0) if kind == "quantile" and not fit._is_linear else fit.residuals(kind)


def standard_residuals(fit: Any) -> np.ndarray:
    """Residuals that are standard normal if the model holds: scaled ones, quantile of generalised models.

    Normalized ones of structured residuals.
    """
    return fit.residuals(_scaled(fit)) if fit._is_linear else residuals_to_plot(fit, residual_kind(fit))


def _scaled(fit: Any) -> str:
    return "scaled" if fit.design.residual is None else "normalized"


def residual_data(fit: Any, kind: str | None = None) -> dict[str, np.ndarray]:
    """Columns fitted, residual: rows of the fit with a residual.

    Fitted are the means of linear models, the linear predictors of generalised ones.
    """
    fitted = fit.fitted() if fit._is_linear else fit.fitted(type="link")
    residual = residuals_to_plot(fit, residual_kind(fit, kind))
    known = np.isfinite(fitted) & np.isfinite(residual)
    return {"fitted": fitted[known], "residual": residual[known]}


def scale_location_data(fit: Any) -> dict[str, np.ndarray]:
    """Columns fitted, root: square root of the absolute scaled residual."""
    columns = residual_data(fit, _scaled(fit) if fit._is_linear else None)
    return {"fitted": columns["fitted"], "root": np.sqrt(np.abs(columns["residual"]))}


def qq_data(sample: np.ndarray, level: float = 0.95) -> dict[str, np.ndarray]:
    """Columns theoretical, sample, low, high: a normal quantile plot with pointwise limits.

    The i-th order statistic of n uniform numbers is Beta(i, n + 1 - i); its quantiles, taken through the
    normal quantile function and the line through the quartiles, are the limits.
    """
    from scipy.special import betaincinv, ndtri

    sample = np.sort(sample[np.isfinite(sample)])
    n = sample.size
    if n < 2:
        raise OptionError("a quantile plot needs two or more values")
    i = np.arange(1, n + 1)
    theoretical = ndtri((i - 0.5) / n)
    quartiles = np.quantile(sample, [0.25, 0.75], method="hazen")
    slope = (quartiles[1] - quartiles[0]) / (2.0 * 0.6744897501960817)
    middle = quartiles.mean()
    tail = 0.5 * (1.0 - check_level(level))
    low = middle + slope * ndtri(betaincinv(i, n + 1 - i, tail))
    high = middle + slope * ndtri(betaincinv(i, n + 1 - i, 1.0 - tail))
    return {"theoretical": theoretical, "sample": sample, "line": middle + slope * theoretical,
            "low": low, "high": high}  # fmt: skip


def find_term(fit: Any, group: Any = None) -> int:
    """Position of the random term on `group`: a group name, a position, or None for the first.

    Terms of the other predictors of a generalised model come after those of the conditional one.
    """
    terms = fit._terms
    if not terms:
        raise OptionError("the model has no random effects")
    if group is None:
        return 0
    if isinstance(group, (int, np.integer)) and not isinstance(group, bool):
        if 0 <= group < len(terms):
            return int(group)
    else:
        for position, term in enumerate(terms):
            if term.group == group:
                return position
    raise OptionError(
        f"{group!r} is not a random term of the model; write a group "
        f"({', '.join(dict.fromkeys(term.group for term in terms))}) or a position from 0 to {len(terms) - 1}"
    )


def caterpillar_data(fit: Any, group: Any = None, level: float = 0.95) -> dict[str, Any]:
    """Columns level, term, estimate, sd, conf_low, conf_high: conditional modes with normal limits."""
    position = find_term(fit, group)
    term = fit._terms[position]
    b = np.asarray(fit._b[position])
    sd = conditional_sds(fit.conditional_covariance(position), 1.0)
    half = normal_quantile(level) * sd
    return {
        "level": [str(value) for value in np.repeat(level_array(term), term.k).tolist()],
        "term": list(fit._term_names(position)) * term.m,
        "estimate": b.ravel(),
        "sd": sd.ravel(),
        "conf_low": (b - half).ravel(),
        "conf_high": (b + half).ravel(),
    }


def ranef_qq_data(fit: Any, group: Any = None, level: float = 0.95) -> dict[str, Any]:
    """Columns term, theoretical, sample, line, low, high: a normal quantile plot per column of a term."""
    position = find_term(fit, group)
    term = fit._terms[position]
    parts = [qq_data(np.asarray(fit._b[position])[:, j], level) for j in range(term.k)]
    out: dict[str, Any] = {"term": [name for name in fit._term_names(position) for _ in range(term.m)]}
    out.update({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return out


def profile_curves(profile: Profile, parameters: Any = None) -> list[Curve]:
    """The curves of the parameters asked for; those without one (not identified) are left out."""
    curves = [curve for curve in profile.chosen(parameters) if len(curve.value) > 1]
    if not curves:
        raise OptionError("none of these parameters has a profile to draw")
    return curves


def profile_data(curves: Sequence[Curve], points: int = 201) -> dict[str, Any]:
    """Columns parameter, value, zeta, density: the curves at equally spaced values."""
    grids = [np.linspace(curve.value[0], curve.value[-1], points) for curve in curves]
    return {
        "parameter": [curve.parameter.name for curve in curves for _ in range(points)],
        "value": np.concatenate(grids),
        "zeta": np.concatenate([curve.zeta_at(x) for curve, x in zip(curves, grids, strict=True)]),
        "density": np.concatenate([curve.density_at(x) for curve, x in zip(curves, grids, strict=True)]),
    }


def shrinkage_data(fit: Any, group: Any = None) -> dict[str, Any]:
    """Columns level, term, within, shrunken: least squares within each level, and the conditional modes.

    Within a level the least-squares effects minimise ``|W^(1/2) (y - X beta - Z_other b_other - Z b_l)|^2``
    at the estimates of beta and of the other terms; NaN where the level's rows cannot determine them. In
    generalised models y and W are those of the working linear model (one step of Newton's method).
    """
    position = find_term(fit, group)
    if position >= len(fit.design.terms):
        raise OptionError(
            f"shrinkage is shown for the conditional model; its groups are {', '.join(fit.ngroups)}"
        )
    design = working_fit(fit).design
    design.need_one_level("a plot of the shrinkage")
    term = design.terms[position]
    b = np.asarray(fit._b[position])
    Z = np.ones((design.n, 1)) if term.Z is None else np.asarray(term.Z)
    own = np.einsum("ij,ij->i", Z, b[term.codes])
    rest = np.asarray(design.y) - np.asarray(fit._linear_predictor()) + own
    w = np.ones(design.n) if design.weights is None else np.asarray(design.weights)
    gram = np.zeros((term.m, term.k, term.k))
    right = np.zeros((term.m, term.k))
    for a in range(term.k):
        right[:, a] = np.bincount(term.codes, w * Z[:, a] * rest, minlength=term.m)
        for c in range(a + 1):
            gram[:, a, c] = gram[:, c, a] = np.bincount(term.codes, w * Z[:, a] * Z[:, c], minlength=term.m)
    scale = np.sqrt(np.maximum(np.einsum("mii->mi", gram), 1e-300))
    unit = gram / (scale[:, :, None] * scale[:, None, :])
    values, vectors = np.linalg.eigh(unit)
    full = values[:, 0] > 1e-10 * values[:, -1]
    safe = np.where(values > 1e-10 * values[:, -1:], values, math.inf)
    solved = np.einsum("mij,mj->mi", vectors, np.einsum("mji,mj->mi", vectors, right / scale) / safe) / scale
    solved[~full] = np.nan
    return {
        "level": [str(value) for value in np.repeat(level_array(term), term.k).tolist()],
        "term": list(term.names) * term.m,
        "within": solved.ravel(),
        "shrunken": b.ravel(),
    }
