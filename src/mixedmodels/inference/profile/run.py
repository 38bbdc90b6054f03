"""Profiles a fit: every parameter asked for held at points on both sides of its estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import normal_quantile
from mixedmodels.inference.parameters import Parameter, chosen, held_places, parameters_of
from mixedmodels.inference.profile.curve import Curve
from mixedmodels.inference.profile.held import held_for, scale_of, values_at
from mixedmodels.inference.profile.intervals import NOT_IDENTIFIED, interval_table
from mixedmodels.inference.profile.points import Knot, curve, slope_at_zero
from mixedmodels.inference.profile.result import Profile
from mixedmodels.inference.table import ResultTable

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["profile", "profile_intervals"]

_CRITERIA = ("ml", "reml")
_COEFFICIENTS = ("fixed", "constant", "dispersion")


def profile(
    fit: LMMFit,
    parameters: Any = None,
    *,
    level: float = 0.99,
    threshold: float | None = None,
    criterion: str = "ml",
    points: int = 5,
    progress: Any = "auto",
) -> Profile:
    """Profile likelihood of the parameters of a fit.

    Parameters
    ----------
    fit : LMMFit
    parameters : str or sequence of str, optional
        Names (``"Days"``, ``"sd_Days|Subject"``, ``"cor_Days.(Intercept)|Subject"``, ``"sigma"``), or
        ``"fixed"``, ``"random"``, ``"sd"``, ``"cor"``; by default all.
    level : float
        The curves reach a little beyond the intervals of this level ...
    threshold : float, optional
        ... or to this |zeta|.
    criterion : {"ml", "reml"}
        A fit by REML is refitted by ML first, since restricted likelihoods at different fixed effects are not
        comparable; ``"reml"`` profiles the restricted likelihood of SDs, correlations and sigma of a linear
        model.
    points : int
        About so many on each side of the estimate.
    progress : "auto", True, False or callable
        "auto" shows a line after two seconds on a terminal; a callable receives
        ``(done, total, parameter name)``. An interruption (Ctrl-C) keeps the finished curves.

    Returns
    -------
    Profile

    Raises
    ------
    OptionError
        An option is out of range, or a parameter is not one of this model.
    """
    z = normal_quantile(level) if threshold is None else _positive("threshold", threshold)
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise OptionError(f"points must be a whole number of at least 2, got {points!r}")
    zmax = 1.1 * z if threshold is None else z
    base, wanted, notes = _prepared(fit, parameters, criterion)
    every = parameters_of(base)
    shown = _Shown(progress, len(wanted))
    curves: list[Curve] = []
    try:
        for parameter in wanted:
            curves.append(_curve_of(base, every, parameter, zmax, points, shown.tick))
            shown.next(parameter.name)
    except KeyboardInterrupt:
        if not curves:
            raise
        notes.append(f"interrupted after {len(curves)} of {len(wanted)} parameters")
    finally:
        shown.close()
    return Profile(base, tuple(curves), tuple(notes), zmax)


def profile_intervals(
    fit: LMMFit, level: float = 0.95, parameters: Any = None, criterion: str = "ml"
) -> ResultTable:
    """Profile intervals without the curves between: two to four constrained fits a limit.

    Parameters
    ----------
    fit, parameters, criterion
        As in `profile`.
    level : float
    """
    base, wanted, notes = _prepared(fit, parameters, criterion)
    return interval_table(base, [(parameter, None, (), ()) for parameter in wanted], level, notes)


def _positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 < number < math.inf:
        raise OptionError(f"{name} must be a positive number, got {value!r}")
    return number


def _prepared(
    fit: LMMFit, parameters: Any, criterion: str
) -> tuple[LMMFit, tuple[Parameter, ...], list[str]]:
    """The fit to profile, its parameters, and what must be said about both."""
    if criterion not in _CRITERIA:
        raise OptionError(f"criterion {criterion!r} is unknown; available: {', '.join(_CRITERIA)}")
    notes: list[str] = []
    if not fit._is_linear:
        return _prepared_generalised(fit, parameters, criterion)
    if fit._options.priors is not None:
        raise OptionError(
            "profiles of linear models need fits by (restricted) maximum likelihood, and this one has "
            'priors; fit it without priors=, or use confint(method="bootstrap")'
        )
    available = parameters_of(fit)
    if criterion == "reml":
        base = fit if fit.is_reml else fit.update(reml=True)
        if not fit.is_reml:
            notes.append("the fit by maximum likelihood was refitted by REML")
        available = tuple(p for p in parameters_of(base) if p.kind != "fixed")
        if parameters is not None:
            asked = chosen(parameters_of(base), parameters)
            fixed = [p.name for p in asked if p.kind == "fixed"]
            if fixed:
                raise OptionError(
                    f"the restricted likelihood does not depend on fixed effects ({', '.join(fixed)}); "
                    'use criterion="ml" for them'
                )
        return _free(base, chosen(available, parameters), parameters, notes)
    chosen(available, parameters)
    base = fit
    if fit.is_reml:
        base = fit.refit_ml()
        notes.append("the fit by REML was refitted by maximum likelihood; estimates are those of that fit")
    return _free(base, chosen(parameters_of(base), parameters), parameters, notes)


def _free(
    base: LMMFit, wanted: tuple[Parameter, ...], asked: Any, notes: list[str]
) -> tuple[LMMFit, tuple[Parameter, ...], list[str]]:
    """Without the parameters that `fixed` and `equal` hold."""
    if not (base._options.fixed or base._options.equal):
        return base, wanted, notes
    from mixedmodels.inference.profile.held_restricted import without_held

    wanted, more = without_held(base, wanted, asked is not None)
    return base, wanted, notes + more


def _prepared_generalised(
    fit: Any, parameters: Any, criterion: str
) -> tuple[Any, tuple[Parameter, ...], list[str]]:
    """As `_prepared`, for a generalised fit."""
    if criterion == "reml":
        raise OptionError(
            'a generalised model has no restricted likelihood; use criterion="ml" (the default)'
        )
    notes: list[str] = []
    chosen(parameters_of(fit), parameters)
    base = fit
    if fit.nagq == 0:
        base = fit.update(nagq=1)
        notes.append(
            "with nagq=0 the coefficients do not minimise the criterion: the model was refitted with nagq=1, "
            "estimates are those of that fit"
        )
    available = parameters_of(base)
    held = held_places(base)
    wanted = chosen(available, parameters)
    known = [p.name for p in wanted if p.kind in _COEFFICIENTS and p.where[0] in held]
    if known:
        if parameters is not None:
            raise OptionError(f"fixed= holds {', '.join(known)} at a value: there is nothing to profile")
        notes.append(f"{', '.join(known)}: held at a value by fixed=, not profiled")
    wanted = tuple([p for p in wanted if p.name not in known])
    if parameters is None:
        mixed = [p.name for p in wanted if p.natural is not None and not p.natural.separable(p.where[1])]
        if mixed:
            notes.append(f"{', '.join(mixed)}: no coordinate of the structure, not profiled")
        wanted = tuple([p for p in wanted if p.name not in mixed])
    return base, wanted, notes


def _curve_of(
    fit: LMMFit,
    every: Sequence[Parameter],
    parameter: Parameter,
    zmax: float,
    points: int,
    told: Callable[[], None],
) -> Curve:
    if math.isnan(parameter.estimate):
        none = np.zeros(0)
        return Curve(
            parameter, none, none, none, np.zeros((0, len(every))), none, (NOT_IDENTIFIED,), None, ()
        )
    held = held_for(fit, parameter)
    start = held.estimate()
    knots, notes = curve(held, start, zmax, points, told)
    guess = math.sqrt(0.5 * start.curvature) if start.curvature > 0.0 else math.nan
    middle = Knot(start.u, 0.0, slope_at_zero(start.u, knots, guess), start)
    at = sum(1 for knot in knots if knot.u < start.u)
    every_knot = [*knots[:at], middle, *knots[at:]]
    value = scale_of(parameter).back(np.array([knot.u for knot in every_knot]))
    zeta = np.array([knot.zeta for knot in every_knot])
    return Curve(
        parameter,
        _readonly(value),
        _readonly(zeta),
        _readonly(np.array([knot.slope for knot in every_knot])),
        _readonly(values_at(fit, every, parameter, [knot.point for knot in every_knot])),
        _readonly(np.array([knot.point.criterion for knot in every_knot])),
        tuple(notes),
        start,
        tuple(knots),
    )


def _readonly(array: np.ndarray) -> np.ndarray:
    array = np.array(array, dtype=float)
    array.setflags(write=False)
    return array


class _Shown:
    """Progress over the parameters."""

    def __init__(self, mode: Any, total: int) -> None:
        from mixedmodels.optimize.progress import Progress

        self._call = mode if callable(mode) else None
        self._line = Progress(False if callable(mode) else mode)
        self._total, self._done, self._points = total, 0, 0

    def tick(self) -> None:
        """One more point."""
        import time

        self._points += 1
        line = self._line
        now = time.perf_counter()
        if line.line and now - line.started >= line.quiet and now - line.shown >= 0.1:
            line.shown = now
            line.stream.write(f"\rprofile: {self._done} of {self._total} parameters, {self._points} points ")
            line.stream.flush()

    def next(self, name: str) -> None:
        """One more parameter."""
        self._done += 1
        if self._call is not None:
            self._call(self._done, self._total, name)

    def close(self) -> None:
        """End the line."""
        self._line.close()
