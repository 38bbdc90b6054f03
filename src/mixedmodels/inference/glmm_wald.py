r"""Wald intervals of a generalised fit: coefficients, standard deviations, correlations, dispersion.

All come from the joint covariance V of :math:`\psi = (\gamma, \theta)`. Coefficients are taken as they are,
the others on the scale h on which their distribution is closest to normal (delta method):

.. math:: h^{-1}\bigl(h(\hat x) \pm z \sqrt{\nabla h'\,V\,\nabla h}\bigr), \qquad
          h = \log \text{ (SD, dispersion)}, \quad h = \operatorname{artanh} \text{ (correlation)} .
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.fit import wald
from mixedmodels.inference.parameters import Parameter, chosen, fixed_effects, held_places, parameters_of
from mixedmodels.inference.table import ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.glmm_result import GLMMFit

__all__ = ["scale_gradients", "wald_intervals"]

_INVERSE = {
    "sd": np.exp,
    "dispersion": np.exp,
    "cor": np.tanh,
    "range": np.exp,
    "rate": np.exp,
    "smoothness": np.exp,
}


def wald_intervals(fit: GLMMFit, level: float, parameters: Any) -> ResultTable:
    """Intervals ``estimate -/+ z se`` on the scales above; by default of the coefficients.

    Parameters
    ----------
    fit : GLMMFit
    level : float
    parameters : str or sequence of str, optional
        As in `mixedmodels.inference.parameters.chosen`.

    Returns
    -------
    ResultTable
        term, group, estimate, conf_low, conf_high; NaN with a note for what lies on the boundary of the
        parameter space or was held.
    """
    if parameters is None:
        wanted = tuple([p for p in fixed_effects(fit) if p.kind == "fixed"])
    else:
        wanted = chosen(parameters_of(fit), parameters)
    V, boundary, _ = fit._covariances
    z = wald.normal_quantile(level)
    held = held_places(fit)
    lows, highs, notes = [], [], []
    for parameter, (value, gradient) in zip(wanted, scale_gradients(fit, wanted), strict=True):
        used = np.flatnonzero(gradient)
        variance = float(gradient[used] @ V[np.ix_(used, used)] @ gradient[used]) if len(used) else math.nan
        back = _INVERSE.get(parameter.quantity, float)
        if len(used) and held.issuperset(used.tolist()):
            notes.append(f"{parameter.name}: held at its value by fixed=")
            variance = math.nan
        elif not math.isfinite(value) or any(fit.objective.names[t] in boundary for t in used):
            notes.append(
                f"{parameter.name}: on the boundary of the parameter space, no Wald interval; "
                "method='profile' or 'bootstrap' has one"
            )
            variance = math.nan
        elif not variance > 0.0:
            notes.append(f"{parameter.name}: the likelihood is flat in its direction")
            variance = math.nan
        half = z * math.sqrt(variance)
        lows.append(float(back(value - half)))
        highs.append(float(back(value + half)))
    columns: dict[str, Any] = {"term": [p.name for p in wanted]}
    if any(p.group is not None for p in wanted):
        columns["group"] = [p.group for p in wanted]
    columns["estimate"] = [p.estimate for p in wanted]
    columns["conf_low"], columns["conf_high"] = lows, highs
    extra = {"level": level, "tidy": [(p.group, p.term) for p in wanted]}
    return result_table(f"{wald.percent(level)} Wald intervals", columns, notes, fit._native, extra)


def scale_gradients(fit: GLMMFit, parameters: Sequence[Parameter]) -> list[tuple[float, np.ndarray]]:
    """h(x) of each parameter at the estimates and its gradient with respect to psi, shape (P,).

    NaN and zeros where h does not exist: a standard deviation of zero, a correlation of one.
    """
    mapping = fit.objective.coordinates.map
    factors = [np.asarray(factor) for factor in fit._factors]
    moves = mapping.derivatives(fit.theta)
    n_gamma, size = len(fit.gamma), len(fit.psi)
    out = []
    for parameter in parameters:
        gradient = np.zeros(size)
        where = parameter.where
        if parameter.kind in ("fixed", "constant", "dispersion"):
            gradient[where[0]] = 1.0
            out.append((float(fit.gamma[where[0]]), gradient))
            continue
        if parameter.kind == "structure":
            out.append(_structure_gradient(fit, parameter))
            continue
        term, i = where[0], where[-1]
        j = where[1]
        F = factors[term]
        si, sj = math.sqrt(float(F[i] @ F[i])), math.sqrt(float(F[j] @ F[j]))
        rho = float(F[i] @ F[j]) / (si * sj) if si * sj > 0.0 else math.nan
        value = math.nan
        D = np.zeros_like(F)  # of h with respect to the factor
        if parameter.kind == "sd" and si > 0.0:
            value = math.log(si)
            D[i] = F[i] / si**2
        elif parameter.kind == "cor" and abs(rho) < 1.0 - 1e-12:
            value = math.atanh(rho)
            stretch = 1.0 / (1.0 - rho * rho)
            D[i] = stretch * (F[j] / (si * sj) - rho * F[i] / si**2)
            D[j] = stretch * (F[i] / (si * sj) - rho * F[j] / sj**2)
        for t, parts in enumerate(moves):
            gradient[n_gamma + t] = sum(float(np.sum(D * E)) for b, E in parts if b == term)
        out.append((value, gradient))
    return out


def _structure_gradient(fit: GLMMFit, parameter: Parameter) -> tuple[float, np.ndarray]:
    """h(x) of a natural parameter of a structure and its gradient with respect to psi."""
    gradient = np.zeros(len(fit.psi))
    natural, place = parameter.natural, parameter.where[1]
    found = natural.at(fit.theta, 1.0)
    value, slope = float(found.values[place]), found.jacobian[place]
    quantity = parameter.quantity
    if not math.isfinite(value) or not np.isfinite(slope).all():
        return math.nan, gradient
    if quantity == "cor":
        if not abs(value) < 1.0 - 1e-8:
            return math.nan, gradient
        stretch, scaled = 1.0 / (1.0 - value * value), math.atanh(value)
    elif quantity == "loading":
        stretch, scaled = 1.0, value
    elif value > 0.0:
        stretch, scaled = 1.0 / value, math.log(value)
    else:
        return math.nan, gradient
    np.add.at(gradient, len(fit.gamma) + natural.index, stretch * slope)
    return scaled, gradient
