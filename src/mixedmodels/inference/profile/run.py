"""Profile likelihood of every parameter of a fit: curves, limits, densities and pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import check_level, normal_quantile
from mixedmodels.inference.profile.curve import Curve
from mixedmodels.inference.profile.parameters import (
    Parameter,
    chosen,
    held_for,
    natural_values,
    parameters_of,
)
from mixedmodels.inference.profile.points import Knot, curve, limit, slope_at_zero
from mixedmodels.inference.table import Drawn, ResultTable, result_table

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit
    from mixedmodels.objective.held import HeldPoint

__all__ = ["Profile", "profile", "profile_intervals"]

_CRITERIA = ("ml", "reml")
_NOT_IDENTIFIED = "not identified: one of its standard deviations is estimated as 0"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Profile(Drawn):
    r"""Profile likelihood of a fit.

    For a parameter held at x, d(x) is the criterion minimised over all other parameters and
    :math:`\zeta(x) = \mathrm{sign}(x - \hat x) \sqrt{d(x) - d(\hat x)}`. Where the likelihood is regular,
    zeta is about standard normal at the true value: :math:`|\zeta(x)| \le z_{(1+level)/2}` is a confidence
    interval.

    Attributes
    ----------
    fit : LMMFit
        The fit that was profiled; for ``criterion="ml"`` it is fitted by maximum likelihood.
    curves : tuple of Curve
    notes : tuple of str
    zmax : float
        How far the curves go.

    Notes
    -----
    Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), section 5.1; Bates & Watts (1988),
    Nonlinear Regression Analysis, chapter 6.

    Examples
    --------
    >>> import mixedmodels as mm
    >>> data = mm.load_dataset("sleepstudy", backend="dict")
    >>> fit = mm.lmm("Reaction ~ Days + (1 | Subject)", data, reml=False)
    >>> profile = fit.profile()
    >>> print(profile.confint())  # doctest: +NORMALIZE_WHITESPACE
    95% profile intervals (maximum likelihood)
    term                    group    estimate conf_low conf_high
    (Intercept)                       251.405  231.992   270.818
    Days                               10.467    8.887    12.048
    sd_(Intercept)|Subject  Subject    36.012   26.007    52.936
    sigma                   Residual   30.895   27.814    34.591
    """

    fit: LMMFit
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
    zmax: float

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the profiled parameters."""
        return tuple(curve.parameter.name for curve in self.curves)

    def _curve(self, name: str) -> Curve:
        (parameter, *more) = chosen([c.parameter for c in self.curves], name)
        if more:
            raise OptionError(f"{name!r} means several parameters; name one: {', '.join(self.parameters)}")
        return next(c for c in self.curves if c.parameter == parameter)

    def confint(self, level: float = 0.95, parameters: Any = None) -> ResultTable:
        """Profile intervals: roots of the criterion itself, started from the curves.

        Parameters
        ----------
        level : float
        parameters : str or sequence of str, optional
        """
        wanted = chosen([c.parameter for c in self.curves], parameters)
        curves = [c for c in self.curves if c.parameter in wanted]
        return _interval_table(
            self.fit, [(c.parameter, c.start, c.knots, c.notes) for c in curves], level, self.notes
        )

    def zeta(self, parameter: str, x: Any) -> np.ndarray:
        """Signed root at values of a parameter, by monotone cubic interpolation; NaN beyond the curve."""
        return self._curve(parameter).zeta_at(np.asarray(x, dtype=float))

    def value(self, parameter: str, zeta: Any) -> np.ndarray:
        """Values of a parameter at values of zeta: the inverse of `zeta`."""
        return self._curve(parameter).value_at(np.asarray(zeta, dtype=float))

    def to_frame(self) -> Any:
        """All points: parameter, value, zeta, criterion, and every parameter of the model along the way."""
        names = [parameter.name for parameter in parameters_of(self.fit)]
        columns: dict[str, Any] = {
            "parameter": [c.parameter.name for c in self.curves for _ in c.value],
            "value": np.concatenate([c.value for c in self.curves] or [np.zeros(0)]),
            "zeta": np.concatenate([c.zeta for c in self.curves] or [np.zeros(0)]),
            "criterion": np.concatenate([c.criterion for c in self.curves] or [np.zeros(0)]),
        }
        others = np.concatenate([c.others for c in self.curves] or [np.zeros((0, len(names)))])
        for n, name in enumerate(names):
            columns[name if name not in columns else f"{name}_"] = others[:, n].copy()
        return self.fit._native(columns)

    def density(self, parameter: str, points: int = 201) -> Any:
        """Profile density of a parameter: a frame with columns value, zeta, density.

        The density of the parameter if zeta were standard normal, ``phi(zeta(x)) zeta'(x)``.

        Parameters
        ----------
        parameter : str
        points : int
            Values of the parameter, equally spaced over the curve.
        """
        if not isinstance(points, int) or points < 2:
            raise OptionError(f"points must be a whole number of at least 2, got {points!r}")
        c = self._curve(parameter)
        low, high = (float(c.value[0]), float(c.value[-1])) if len(c.value) else (math.nan, math.nan)
        x = np.linspace(low, high, points)
        return self.fit._native({"value": x, "zeta": c.zeta_at(x), "density": c.density_at(x)})

    def pairs(
        self, parameters: Any = None, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95), points: int = 101
    ) -> Any:
        """What a pairs plot shows: traces and interpolated contours of two-parameter profiles.

        Parameters
        ----------
        parameters : str or sequence of str, optional
        levels : sequence of float
            Joint confidence levels of the contours, ``zeta_x^2 + ... = chi2(level, 2)``.
        points : int
            Points of a contour.

        Returns
        -------
        frame
            Columns x_parameter, y_parameter, kind (``"trace_x"``: x held, y where the criterion is smallest;
            ``"trace_y"``; ``"contour"``), level, x, y, zeta_x, zeta_y. Contours that leave the curves are
            NaN.
        """
        from mixedmodels.inference.profile.pairs import pair_columns

        wanted = chosen([c.parameter for c in self.curves], parameters)
        curves = [c for c in self.curves if c.parameter in wanted]
        order = [p.name for p in parameters_of(self.fit)]
        return self.fit._native(pair_columns(curves, order, [check_level(v) for v in levels], points))

    def __str__(self) -> str:
        return str(self.confint())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The 95 % intervals as an HTML table."""
        return self.confint().to_html()


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
        comparable; ``"reml"`` profiles the restricted likelihood of SDs, correlations and sigma.
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
    return _interval_table(base, [(parameter, None, (), ()) for parameter in wanted], level, notes)


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
    available = parameters_of(fit)
    if criterion == "reml":
        base = fit if fit.is_reml else fit.update(reml=True)
        if not fit.is_reml:
            notes.append("the fit by maximum likelihood was refitted by REML")
        available = tuple(p for p in parameters_of(base) if p.kind != "beta")
        if parameters is not None:
            asked = chosen(parameters_of(base), parameters)
            fixed = [p.name for p in asked if p.kind == "beta"]
            if fixed:
                raise OptionError(
                    f"the restricted likelihood does not depend on fixed effects ({', '.join(fixed)}); "
                    'use criterion="ml" for them'
                )
        return base, chosen(available, parameters), notes
    chosen(available, parameters)
    base = fit
    if fit.is_reml:
        base = fit.refit_ml()
        notes.append("the fit by REML was refitted by maximum likelihood; estimates are those of that fit")
    return base, chosen(parameters_of(base), parameters), notes


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
            parameter, none, none, none, np.zeros((0, len(every))), none, (_NOT_IDENTIFIED,), None, ()
        )
    held = held_for(fit, parameter)
    start = held.estimate()
    knots, notes = curve(held, start, zmax, points, told)
    guess = math.sqrt(0.5 * start.curvature) if start.curvature > 0.0 else math.nan
    middle = Knot(start.u, 0.0, slope_at_zero(start.u, knots, guess), start)
    at = sum(1 for knot in knots if knot.u < start.u)
    every_knot = [*knots[:at], middle, *knots[at:]]
    value = parameter.scale.back(np.array([knot.u for knot in every_knot]))
    zeta = np.array([knot.zeta for knot in every_knot])
    return Curve(
        parameter,
        _readonly(value),
        _readonly(zeta),
        _readonly(np.array([knot.slope for knot in every_knot])),
        _readonly(np.array([natural_values(fit, every, parameter, knot.point) for knot in every_knot])),
        _readonly(np.array([knot.point.criterion for knot in every_knot])),
        tuple(notes),
        start,
        tuple(knots),
    )


def _code(side: str, note: str) -> str:
    """A few words for the column `note`; the whole sentence is among the notes."""
    if note.startswith("the bound"):
        return f"{side} at bound"
    return f"no {side} limit" if note.startswith("no limit") else f"{side}: see note"


def _readonly(array: np.ndarray) -> np.ndarray:
    array = np.array(array, dtype=float)
    array.setflags(write=False)
    return array


def _interval_table(
    fit: LMMFit,
    asked: Sequence[tuple[Parameter, HeldPoint | None, Sequence[Knot], Sequence[str]]],
    level: float,
    notes: Sequence[str],
) -> ResultTable:
    z = normal_quantile(level)
    lows, highs, remarks, codes = [], [], [], []
    for parameter, start, knots, known in asked:
        if math.isnan(parameter.estimate):
            lows.append(math.nan)
            highs.append(math.nan)
            remarks.append(_NOT_IDENTIFIED)
            codes.append("not identified")
            continue
        held = held_for(fit, parameter)
        start = held.estimate() if start is None else start
        ends = [
            limit(held, start, z, side, [knot for knot in knots if side * (knot.u - start.u) > 0.0])
            for side in (-1, 1)
        ]
        back = parameter.scale.back
        low, high = (float(back(end.u)) if math.isfinite(end.u) else math.nan for end in ends)
        lows.append(low)
        highs.append(high)
        sides = [(side, end.note) for side, end in zip(("low", "high"), ends, strict=True) if end.note]
        remarks.append("; ".join([*[f"{side}: {note}" for side, note in sides], *known]))
        codes.append("; ".join(_code(side, note) for side, note in sides))
    parameters = [item[0] for item in asked]
    columns: dict[str, Any] = {
        "term": [p.name for p in parameters],
        "group": [p.group for p in parameters],
        "estimate": [p.estimate for p in parameters],
        "conf_low": lows,
        "conf_high": highs,
    }
    told = list(notes)
    if any(remarks):
        columns["note"] = codes
        told += [f"{p.name}: {remark}" for p, remark in zip(parameters, remarks, strict=True) if remark]
    kind = "restricted maximum likelihood" if fit.is_reml else "maximum likelihood"
    return result_table(
        f"{100.0 * level:.6g}% profile intervals ({kind})",
        columns,
        told,
        fit._native,
        {"level": float(level), "tidy": [(p.group, p.term) for p in parameters]},
    )


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
