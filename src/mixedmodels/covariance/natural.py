"""Parameters as a reader knows them: standard deviations, correlations, ranges; with derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "NaturalParameters",
    "curvature_with_scale",
    "sd_and_correlations",
    "sd_and_correlations_curvature",
    "theta_scale",
]


@dataclass(frozen=True, slots=True, eq=False)
class NaturalParameters:
    """Natural parameters of a term and how they change with its theta.

    Attributes
    ----------
    names : tuple of str, length r
        ``"sd(x)"``, ``"cor(y,x)"``, ``"sd"``, ``"cor"``, ``"range"``, ...
    values : ndarray, shape (r,)
        NaN where a parameter does not exist (a correlation of an effect with variance zero).
    jacobian : ndarray, shape (r, n_theta)
        d value / d theta at the given scale; NaN rows where the value does not exist.
    log_scale : ndarray, shape (r,)
        d value / d log(scale): the value itself for standard deviations, 0 for the others.
    kinds : tuple of str
        ``"sd"``, ``"cor"``, ``"range"``, ``"smoothness"`` or ``"loading"``.

    Examples
    --------
    >>> from mixedmodels.covariance import make_covariance
    >>> found = make_covariance("us", 2).natural([1.0, 0.5, 0.5], ("(Intercept)", "x"), 2.0)
    >>> found.names
    ('sd((Intercept))', 'sd(x)', 'cor(x,(Intercept))')
    >>> found.values.round(4).tolist()
    [2.0, 1.4142, 0.7071]
    """

    names: tuple[str, ...]
    values: np.ndarray
    jacobian: np.ndarray
    log_scale: np.ndarray
    kinds: tuple[str, ...]


def theta_scale(kinds: tuple[str, ...]) -> np.ndarray:
    """Whether each parameter is in the units of the scale (sigma), as a bool array."""
    return np.array([kind in ("sd", "loading") for kind in kinds])


def sd_and_correlations(
    factor: np.ndarray, derivatives: np.ndarray, columns: tuple[str, ...], scale: float, correlated: bool
) -> NaturalParameters:
    """Standard deviations and, if `correlated`, all correlations of ``scale^2 factor factor'``.

    Parameters
    ----------
    factor : ndarray, shape (k, k)
    derivatives : ndarray, shape (n_theta, k, k)
        Of the factor. At a standard deviation 0 the derivative of the length of its row is that of its
        diagonal entry, which a factor keeps non-negative.
    columns : tuple of str
    scale : float
    correlated : bool
    """
    k, r = factor.shape[0], derivatives.shape[0]
    sd = np.sqrt(np.sum(factor * factor, axis=1))
    zero = sd <= 0.0
    unit = np.divide(factor, sd[:, None], out=np.zeros_like(factor), where=~zero[:, None])
    unit[zero, np.flatnonzero(zero)] = 1.0
    slope = np.einsum("tij,ij->it", derivatives, unit)
    names = [f"sd({name})" for name in columns]
    values, rows, kinds = list(scale * sd), list(scale * slope), ["sd"] * k
    if correlated:
        for j in range(k):
            for i in range(j + 1, k):
                names.append(f"cor({columns[i]},{columns[j]})")
                kinds.append("cor")
                if zero[i] or zero[j]:
                    values.append(np.nan)
                    rows.append(np.full(r, np.nan))
                    continue
                rho = float(unit[i] @ unit[j])
                values.append(rho)
                rows.append(
                    (derivatives[:, i] @ unit[j] - rho * slope[i]) / sd[i]
                    + (derivatives[:, j] @ unit[i] - rho * slope[j]) / sd[j]
                )
    value = np.array(values)
    found = tuple(kinds)
    return NaturalParameters(
        tuple(names),
        value,
        np.array(rows).reshape(len(value), r),
        np.where(theta_scale(found), value, 0.0),
        found,
    )


def sd_and_correlations_curvature(
    factor: np.ndarray, derivatives: np.ndarray, weights: np.ndarray, scale: float
) -> np.ndarray:
    r"""Weighted sum of the second derivatives of `sd_and_correlations`, for a factor linear in theta.

    With f the rows of the factor, :math:`s_i = |f_i|` and :math:`c = f_i'f_j = \rho s_i s_j`:

    .. math:: s_i\, s_{i,ab} = f_{i,a}'f_{i,b} - s_{i,a} s_{i,b}, \qquad
        s_i s_j\, \rho_{ab} = c_{ab} - \rho\,(s_i s_j)_{ab} - \rho_a (s_i s_j)_b - \rho_b (s_i s_j)_a .

    Parameters
    ----------
    factor : ndarray, shape (k, k)
    derivatives : ndarray, shape (r, k, k)
        Of the factor.
    weights : ndarray
        One for each value, in their order; correlations may be left out.
    scale : float

    Returns
    -------
    ndarray, shape (r, r)
        At a standard deviation 0 that of its diagonal entry (0) is taken, as for the slope.
    """
    k, r = factor.shape[0], derivatives.shape[0]
    sd = np.sqrt(np.sum(factor * factor, axis=1))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def length(i: int) -> tuple[np.ndarray, np.ndarray]:
        if i not in found:
            E = derivatives[:, i]
            if sd[i] > 0.0:
                slope = E @ factor[i] / sd[i]
                found[i] = slope, (E @ E.T - np.outer(slope, slope)) / sd[i]
            else:
                found[i] = E[:, i], np.zeros((r, r))
        return found[i]

    out = np.zeros((r, r))
    for i in np.flatnonzero(weights[:k]).tolist():
        out += scale * weights[i] * length(i)[1]
    pairs = [(i, j) for j in range(k) for i in range(j + 1, k)]
    for at in np.flatnonzero(weights[k:]).tolist():
        i, j = pairs[at]
        (a, aa), (b, bb), size = length(i), length(j), sd[i] * sd[j]
        if not size > 0.0:
            return np.full((r, r), np.nan)
        rho = float(factor[i] @ factor[j]) / size
        cross = derivatives[:, i] @ derivatives[:, j].T
        steps = np.outer(a, b)
        slope = sd[i] * b + sd[j] * a
        rise = (derivatives[:, i] @ factor[j] + derivatives[:, j] @ factor[i] - rho * slope) / size
        turn = np.outer(rise, slope)
        bend = cross + cross.T - rho * (sd[i] * bb + sd[j] * aa + steps + steps.T) - turn - turn.T
        out += weights[k + at] / size * bend
    return out


def curvature_with_scale(
    structure: Any, theta: np.ndarray, found: NaturalParameters, weights: np.ndarray, scale: float
) -> np.ndarray:
    """Weighted second derivatives of natural parameters in (theta, log scale).

    Parameters
    ----------
    structure : Covariance
    theta : ndarray, shape (n_theta,)
    found : NaturalParameters
        At theta and `scale`.
    weights : ndarray, shape (r,)
    scale : float

    Returns
    -------
    ndarray, shape (n_theta + 1, n_theta + 1)
    """
    n = len(theta)
    out = np.empty((n + 1, n + 1))
    scaled = np.flatnonzero(theta_scale(found.kinds) & (weights != 0.0))
    out[:n, :n] = structure.natural_curvature(theta, weights, scale)
    out[n, :n] = out[:n, n] = weights[scaled] @ found.jacobian[scaled]
    out[n, n] = weights[scaled] @ found.values[scaled]
    return out
