"""The parameters of a fit that can be profiled: names, coordinates, and the criterion with each one held."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.objective.held import Held, HeldCoefficient, HeldParameter, HeldPoint, HeldSigma

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["KINDS", "Parameter", "Scale", "chosen", "held_for", "natural_values", "parameters_of"]

KINDS = ("beta", "sd", "cor", "sigma", "theta")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter on its natural scale.

    Attributes
    ----------
    name : str
        ``"Days"``, ``"sd_Days|Subject"``, ``"cor_Days.(Intercept)|Subject"``, ``"sigma"``.
    kind : str
        ``"beta"``, ``"sd"``, ``"cor"``, ``"sigma"`` or ``"theta"`` (a covariance given as a function).
    group : str or None
        Grouping factor (``"Residual"`` for sigma).
    term : str
        As in ``tidy()``: ``"Days"``, ``"sd__Days"``, ``"cor__(Intercept).Days"``, ``"sd__Observation"``.
    estimate : float
    where : tuple of int
        Column of X; or term, column and second column of a random term; or entry of theta.
    """

    name: str
    kind: str
    group: str | None
    term: str
    estimate: float = field(compare=False)
    where: tuple[int, ...] = ()

    @property
    def scale(self) -> Scale:
        """Between the natural scale and the coordinate that the curve is smooth in."""
        return _SCALES.get(self.kind, _SCALES["beta"])


@dataclass(frozen=True, slots=True)
class Scale:
    """A coordinate u of a parameter x: functions there and back, and du/dx."""

    to: Callable[[Any], Any]
    back: Callable[[Any], Any]
    rate: Callable[[Any], Any]


def _arcsine_rate(x: Any) -> Any:
    return 1.0 / np.sqrt(np.maximum(1.0 - np.square(x), 1e-300))


_SCALES = {
    "beta": Scale(lambda x: x, lambda u: u, np.ones_like),
    "sigma": Scale(np.log, np.exp, lambda x: 1.0 / x),
    "cor": Scale(np.arcsin, np.sin, _arcsine_rate),
}


def parameters_of(fit: LMMFit) -> tuple[Parameter, ...]:
    """Everything that can be profiled: fixed effects, then term by term SDs and correlations, then sigma."""
    out = [
        Parameter(name, "beta", None, name, value, (j,)) for j, (name, value) in enumerate(fit.fixef.items())
    ]
    if not fit.design.terms:
        theta = zip(fit.theta_names, fit.theta.tolist(), strict=True)
        out += [Parameter(f"theta_{n}", "theta", "Z", n, value, (j,)) for j, (n, value) in enumerate(theta)]
    else:
        for t, part in enumerate(fit.varcorr.terms):
            for i, (name, sd) in enumerate(zip(part.names, part.sds, strict=True)):
                out.append(Parameter(f"sd_{name}|{part.group}", "sd", part.group, f"sd__{name}", sd, (t, i)))
            for i, row in enumerate(part.correlations()):
                for j, value in enumerate(row):
                    first, second = part.names[j], part.names[i]
                    out.append(
                        Parameter(
                            f"cor_{second}.{first}|{part.group}",
                            "cor",
                            part.group,
                            f"cor__{first}.{second}",
                            value,
                            (t, j, i),
                        )
                    )
    if fit._options.sigma is None:
        out.append(Parameter("sigma", "sigma", "Residual", "sd__Observation", fit.sigma))
    return tuple(out)


_GROUPS = {
    "fixed": ("beta",),
    "beta": ("beta",),
    "beta_": ("beta",),
    "sd": ("sd",),
    "cor": ("cor",),
    "random": ("sd", "cor", "sigma", "theta"),
    "ran_pars": ("sd", "cor", "sigma", "theta"),
    "theta": ("sd", "cor", "theta"),
    "theta_": ("sd", "cor", "sigma", "theta"),
}


def chosen(available: Sequence[Parameter], names: Any) -> tuple[Parameter, ...]:
    """The parameters that `names` means, in the order of `available`.

    Parameters
    ----------
    available : sequence of Parameter
    names : None, str or sequence of str
        Names of parameters, their names in ``tidy()``, or ``"fixed"``, ``"random"``, ``"sd"``, ``"cor"``.

    Raises
    ------
    OptionError
        A name that means nothing here.
    """
    if names is None:
        return tuple(available)
    wanted = [names] if isinstance(names, str) else names
    try:
        wanted = list(wanted)
    except TypeError:
        raise OptionError(f"parameters must be a name or a list of names, got {names!r}") from None
    if not wanted:
        raise OptionError("parameters is an empty list; leave it out for all parameters")
    taken: set[Parameter] = set()
    for name in wanted:
        if not isinstance(name, str):
            raise OptionError(f"parameters must be names, got {name!r}")
        found = [p for p in available if name in (p.name, p.term)]
        if not found and name in _GROUPS:
            found = [p for p in available if p.kind in _GROUPS[name]]
        if not found:
            raise OptionError(
                f"there is no parameter {name!r} to ask for here; available: "
                f"{', '.join([p.name for p in available])}"
            )
        taken.update(found)
    return tuple(p for p in available if p in taken)


def held_for(fit: LMMFit, parameter: Parameter) -> Held:
    """The criterion of the fit with one parameter held."""
    objective, theta, where = fit.objective, fit.theta, parameter.where
    if parameter.kind == "beta":
        return HeldCoefficient(objective, theta, where[0], _Reduced(fit))
    if parameter.kind == "sigma":
        return HeldSigma(objective, theta, _Fixed(fit))
    if parameter.kind == "theta":
        return HeldParameter(objective, theta, where[0])
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


def natural_values(
    fit: LMMFit, parameters: Sequence[Parameter], parameter: Parameter, point: HeldPoint
) -> np.ndarray:
    """All parameters at a point of the profile of one of them, on their natural scales.

    Parameters
    ----------
    fit : LMMFit
    parameters : sequence of Parameter
        Those of the fit; the result is in their order.
    parameter : Parameter
        The one held.
    point : HeldPoint
    """
    beta = point.extra.get("beta")
    if beta is None:
        beta = fit.objective.solver.solution(list(point.factors), fit.objective.reml).beta
    theta = point.extra.get("theta")
    sds, correlations = [], []
    for factor in point.factors:
        factor = np.asarray(factor)
        Sigma = factor @ factor.T
        sd = np.sqrt(np.maximum(np.diagonal(Sigma), 0.0))
        sds.append(point.sigma * sd)
        product = np.outer(sd, sd)
        correlations.append(
            np.divide(Sigma, product, out=np.full(Sigma.shape, math.nan), where=product > 0.0)
        )
    out = np.empty(len(parameters))
    for n, other in enumerate(parameters):
        if other == parameter:
            out[n] = parameter.scale.back(point.u)
        elif other.kind == "beta":
            out[n] = beta[other.where[0]]
        elif other.kind == "sigma":
            out[n] = point.sigma
        elif other.kind == "theta":
            out[n] = math.nan if theta is None else theta[other.where[0]]
        elif other.kind == "sd":
            out[n] = sds[other.where[0]][other.where[1]]
        else:
            t, j, i = other.where
            out[n] = min(max(correlations[t][i, j], -1.0), 1.0)
    return out
