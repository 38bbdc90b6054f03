"""The criterion of a fit with one parameter held, the coordinate it is held on, and the others there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.inference.parameters import Parameter, values_of
from mixedmodels.objective.held import Held, HeldCoefficient, HeldParameter, HeldPoint, HeldSigma

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Scale", "held_for", "scale_of", "values_at"]


@dataclass(frozen=True, slots=True)
class Scale:
    """A coordinate u of a parameter x: functions there and back, and du/dx."""

    to: Callable[[Any], Any]
    back: Callable[[Any], Any]
    rate: Callable[[Any], Any]


def _arcsine_rate(x: Any) -> Any:
    return 1.0 / np.sqrt(np.maximum(1.0 - np.square(x), 1e-300))


_NATURAL = Scale(lambda x: x, lambda u: u, np.ones_like)
_SCALES = {
    "sigma": Scale(np.log, np.exp, lambda x: 1.0 / x),
    "dispersion": Scale(np.log, np.exp, lambda x: 1.0 / x),
    "cor": Scale(np.arcsin, np.sin, _arcsine_rate),
}


def scale_of(parameter: Parameter) -> Scale:
    """Between the natural scale of a parameter and the coordinate that its curve is smooth in."""
    if parameter.kind == "residual" or (parameter.natural is not None and parameter.natural.absolute):
        return _of_structure(parameter.natural, parameter.where[-1])
    if parameter.natural is not None and parameter.quantity != "cor":
        return _NATURAL if parameter.quantity == "loading" else _SCALES["sigma"]
    return _SCALES.get(parameter.quantity, _NATURAL)


def _of_structure(natural: Any, place: int) -> Scale:
    """The coordinate of a structure of which one natural parameter is a function."""

    def each(function: Callable[[int, float], float]) -> Callable[[Any], Any]:
        def apply(x: Any) -> Any:
            values = [function(place, float(value)) for value in np.ravel(x)]
            return values[0] if np.ndim(x) == 0 else np.array(values)

        return apply

    return Scale(each(natural.place_of), each(natural.moved), each(natural.rate))


def held_for(fit: LMMFit, parameter: Parameter) -> Held:
    """The criterion of the fit with one parameter held."""
    if not fit._is_linear:
        from mixedmodels.inference.profile.held_glmm import held_glmm

        return held_glmm(fit, parameter)  # type: ignore[arg-type]
    objective, theta, where = fit.objective, fit.theta, parameter.where
    if fit._options.fixed or fit._options.equal:
        from mixedmodels.inference.profile.held_restricted import equations_of_fit, held_restricted

        return held_restricted(fit, parameter, scale_of(parameter), equations_of_fit(fit), _Reduced(fit))
    if parameter.kind == "fixed":
        return HeldCoefficient(objective, theta, where[0], _Reduced(fit))
    if parameter.kind == "sigma":
        return HeldSigma(objective, theta, _Fixed(fit))
    if parameter.kind == "theta":
        return HeldParameter(objective, theta, where[0])
    if fit.design.residual is not None:
        from mixedmodels.inference.profile.held_structured import held_structured

        return held_structured(fit, parameter, scale_of(parameter))
    if parameter.kind == "structure":
        from mixedmodels.objective.held_natural import HeldNatural

        place = int(parameter.natural.index[where[1]])
        return HeldNatural(objective, theta, where[0], place, scale_of(parameter))
    from mixedmodels.objective.held_variance import HeldVariance

    return HeldVariance(objective, theta, *where)


class _Reduced:
    """Objectives of the fit's model with one fixed effect held."""

    def __init__(self, fit: LMMFit) -> None:
        self.fit = fit

    def __call__(self, column: int, value: float) -> Any:
        from mixedmodels.fit.solve import make_objective
        from mixedmodels.objective.lmm import LMMObjective
        from mixedmodels.solver.compiled import CompiledSolver
        from mixedmodels.solver.held import hold_coefficient

        objective, fit = self.fit.objective, self.fit
        solver = getattr(objective, "solver", None)
        if isinstance(solver, CompiledSolver):
            reduced = hold_coefficient(solver, column, value)
            return LMMObjective(fit.design, reduced, False, sigma=objective.sigma_fixed)
        design = fit.design
        kept = [j for j in range(design.p) if j != column]
        smaller = replace(
            design,
            y=design.y - value * design.X[:, column],
            X=np.ascontiguousarray(design.X[:, kept]),
            x_names=tuple(design.x_names[j] for j in kept),
        )
        return make_objective(replace(fit.frame, design=smaller), replace(fit._options, start=None))


class _Fixed:
    """Objectives of the fit's model with sigma held."""

    def __init__(self, fit: LMMFit) -> None:
        self.fit = fit

    def __call__(self, sigma: float) -> Any:
        from mixedmodels.fit.solve import make_objective
        from mixedmodels.objective.lmm import LMMObjective

        objective, fit = self.fit.objective, self.fit
        if isinstance(objective, LMMObjective):
            return LMMObjective(fit.design, objective.solver, objective.reml, sigma=sigma)
        return make_objective(fit.frame, replace(fit._options, sigma=sigma, start=None))


def values_at(
    fit: LMMFit, parameters: Sequence[Parameter], parameter: Parameter, points: Sequence[HeldPoint]
) -> np.ndarray:
    """All parameters at N points of the profile of one of them, on their natural scales.

    Parameters
    ----------
    fit : LMMFit
    parameters : sequence of Parameter
        Those of the fit; the columns are in their order.
    parameter : Parameter
        The one held.
    points : sequence of HeldPoint

    Returns
    -------
    ndarray, shape (N, parameters)
    """
    beta = [_beta_at(fit.objective, point) for point in points]
    theta = [point.extra["theta"] for point in points if "theta" in point.extra]
    factors = [np.array(parts) for parts in zip(*[point.factors for point in points], strict=True)]
    out = values_of(
        parameters,
        np.array(beta),
        np.array([point.sigma for point in points]),
        factors,
        np.array(theta) if len(theta) == len(points) else None,
    )
    out[:, parameters.index(parameter)] = scale_of(parameter).back(np.array([point.u for point in points]))
    return out


def _beta_at(objective: Any, point: HeldPoint) -> np.ndarray:
    """Fixed effects at a point: kept with it, or those of its covariance."""
    if "beta" in point.extra:
        return point.extra["beta"]
    solver = getattr(objective, "solver", None)
    if solver is None:  # a covariance given as a function of theta
        return objective.solution(point.extra["theta"]).beta
    return solver.solution(list(point.factors), objective.reml).beta
