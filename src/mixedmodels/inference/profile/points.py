r"""Points of a profile and its limits, for one parameter at a time.

The signed root :math:`\zeta(u) = \pm\sqrt{d(u) - d(\hat u)}` is nearly linear, and its derivative
:math:`d'(u) / (2\zeta)` is exact, because d' at a constrained minimum is a partial derivative of the
criterion. So a limit, :math:`|\zeta| = z`, takes two to four constrained minima by Newton's method with
cubic interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixedmodels.errors import MixedModelsError
from mixedmodels.objective.held import Held, HeldPoint

__all__ = ["Knot", "Limit", "curve", "hermite", "limit", "slope_at_zero"]

_CLOSE = 3e-5  # |zeta - z| after which one more Newton step is exact to about 1e-9
_ROUGH = 1e-2  # error that the criterion of a rough point may have
_LOWER = 1e-6  # a criterion this far below the estimate's is another minimum
_FLAT = 1e-5  # a rise of zeta, relative to z, that is none ...
_FLAT_STEPS = 2  # ... if it is so small in this many widening steps


@dataclass(frozen=True, slots=True, eq=False)
class Knot:
    """A point of the curve: coordinate, signed root, its derivative, and where it came from."""

    u: float
    zeta: float
    slope: float
    point: HeldPoint
    rough: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """A confidence limit on the coordinate of its `Held`.

    Attributes
    ----------
    u : float
        NaN if there is none.
    note : str
        Why it is not an ordinary limit; empty if it is.
    points : tuple of Knot
    warnings : tuple of str
        What makes the limit doubtful: a point that did not converge, a criterion below the estimate's.
    """

    u: float
    note: str = ""
    points: tuple[Knot, ...] = ()
    warnings: tuple[str, ...] = ()


class _Lost(Exception):
    """The constrained minimum could not be found."""


def _knot(
    held: Held,
    start: HeldPoint,
    u: float,
    near: HeldPoint,
    side: int,
    other: HeldPoint | None = None,
    rough: bool = False,
) -> Knot:
    try:
        point = held.at(u, near, other, rough)
    except (MixedModelsError, FloatingPointError, np.linalg.LinAlgError) as error:
        raise _Lost(str(error)) from None
    if not math.isfinite(point.criterion):
        raise _Lost("the criterion is not finite")
    rise = point.criterion - start.criterion
    zeta = math.sqrt(max(rise, 0.0))
    slope = side * point.slope / (2.0 * zeta) if zeta > 1e-9 else math.nan
    return Knot(u, side * zeta, slope, point, rough)


def _first_step(start: HeldPoint) -> float:
    """d zeta / du at the estimate, as far as the curvature tells."""
    if start.curvature > 0.0:
        return math.sqrt(0.5 * start.curvature)
    return 1.0 / max(abs(start.u), 1.0)


def _bound(held: Held, side: int) -> float:
    return held.upper if side > 0 else held.lower


def limit(held: Held, start: HeldPoint, z: float, side: int, known: Sequence[Knot] = ()) -> Limit:
    """Where ``side * zeta`` reaches z, by root finding on constrained minima.

    Parameters
    ----------
    held : Held
    start : HeldPoint
        The unconstrained minimum.
    z : float
        Positive.
    side : {-1, 1}
    known : sequence of Knot
        Points of the curve on this side, if there are any.
    """
    found = _limit(held, start, z, side, known)
    warnings = [text for knot in found.points if (text := _lower_minimum(start, knot))]
    if found.points and math.isfinite(found.u) and not found.points[-1].point.converged:
        warnings.append(f"the point at |zeta| = {abs(found.points[-1].zeta):.3g} did not converge")
    return replace(found, warnings=tuple(dict.fromkeys(warnings)))


def _lower_minimum(start: HeldPoint, knot: Knot) -> str:
    """What to say if the criterion at a point is below that of the estimate; empty if it is not."""
    fall = start.criterion - knot.point.criterion
    if not fall > _LOWER * (1.0 + abs(start.criterion) * 1e-6) + (_ROUGH if knot.rough else 0.0):
        return ""
    return (
        f"the criterion is lower by {fall:.3g} along this profile: the fit is not at the minimum; "
        "fit again from another start"
    )


def _limit(held: Held, start: HeldPoint, z: float, side: int, known: Sequence[Knot]) -> Limit:
    """The search of `limit`."""
    bound = _bound(held, side)
    inner = Knot(start.u, 0.0, math.nan, start)
    outer: Knot | None = None
    found: list[Knot] = []
    for knot in sorted(known, key=lambda knot: side * knot.u):
        if side * knot.zeta <= z and side * knot.u >= side * inner.u:
            inner = knot
        elif side * knot.zeta > z and side * knot.u > side * inner.u:
            outer = knot
            break
    if side * (bound - start.u) <= 0.0:
        return Limit(bound, "the bound itself, on which the estimate lies")
    slope0 = _first_step(start)
    if known and (outer is not None or inner.point is not start):
        u = _between(inner, outer, side * z, slope0)
    else:
        u = start.u + side * z / slope0
    widening, before, rough = 1.0, inner, not known
    flat = 0  # widening steps along which zeta did not rise
    for _ in range(60):
        if outer is None and side * (u - bound) >= 0.0:
            u = bound
        elif outer is not None and not side * inner.u < side * u < side * outer.u:
            u = 0.5 * (inner.u + outer.u)
        near, other = inner.point, (before if outer is None else outer).point
        if outer is not None and abs(u - inner.u) > abs(u - outer.u):
            near, other = other, near
        try:
            knot = _knot(held, start, u, near, side, other, rough=rough)
        except _Lost as error:
            if outer is None and abs(u - inner.u) > 1e-6 * (1.0 + abs(u)):
                u = 0.5 * (u + inner.u)
                continue
            return Limit(math.nan, f"no limit: {error}", tuple(found))
        found.append(knot)
        was_rough, rough = rough, False
        away = z - side * knot.zeta
        slope = side * knot.slope * side
        if abs(away) <= _CLOSE * max(z, 1.0) and slope > 0.0 and not was_rough:
            u = knot.u + side * away / slope
            return Limit(min(max(u, held.lower), held.upper), "", tuple(found))
        if away > 0.0:
            if knot.u == bound:
                if was_rough:
                    continue
                return Limit(
                    bound,
                    f"the bound itself, which the level does not exclude (|zeta| = {abs(knot.zeta):.3g})",
                    tuple(found),
                )
            previous, inner, before = inner, knot, inner
            if outer is None:
                grown = 2.0 * (knot.u - previous.u) * widening
                if not slope > 0.0 or z / slope > 8.0 * abs(knot.u - start.u) + 8.0 * z / slope0:
                    widening *= 2.0
                    flat = flat + 1 if abs(knot.zeta - previous.zeta) < _FLAT * z else 0
                    if widening > 2.0**12 or flat >= _FLAT_STEPS:
                        return Limit(math.nan, "no limit: the profile levels off", tuple(found))
                    u = knot.u + grown
                    continue
        else:
            outer = knot
        if outer is not None and abs(outer.u - inner.u) <= 1e-12 * (abs(outer.u) + abs(inner.u)):
            return Limit(0.5 * (inner.u + outer.u), "the profile jumps here", tuple(found))
        u = _between(inner, outer, side * z, slope0)
    return Limit(math.nan, "no limit: the search did not end", tuple(found))


def _between(inner: Knot, outer: Knot | None, zeta: float, slope0: float) -> float:
    """Where the curve reaches zeta: inverse cubic interpolation between two knots, Newton beyond them."""
    slope = inner.slope if inner.slope > 0.0 else slope0
    if outer is None:
        return inner.u + (zeta - inner.zeta) / slope
    if not (slope > 0.0 and outer.slope > 0.0):
        return 0.5 * (inner.u + outer.u)
    return float(
        hermite(
            np.array([inner.zeta, outer.zeta]),
            np.array([inner.u, outer.u]),
            np.array([1.0 / slope, 1.0 / outer.slope]),
            np.array([zeta]),
        )[0]
    )


def curve(
    held: Held,
    start: HeldPoint,
    zmax: float,
    points: int,
    told: Callable[[], None] | None = None,
) -> tuple[list[Knot], list[str]]:
    """Points from the estimate outwards to ``|zeta| = zmax`` or a bound, sorted, and what went wrong.

    Parameters
    ----------
    held, start
        As in `limit`.
    zmax : float
    points : int
        About so many on each side.
    told : callable, optional
        Called after each point.
    """
    notes: list[str] = []
    sides: dict[int, list[Knot]] = {-1: [], 1: []}
    slope0 = _first_step(start)
    step = zmax / points
    for side in (-1, 1):
        knots, bound = sides[side], _bound(held, side)
        near, u, slope = start, start.u, slope0
        other: HeldPoint | None = None
        zeta, flat = 0.0, 0
        for _ in range(8 * points):
            if side * (bound - u) <= 0.0 or zeta >= zmax:
                break
            before = u
            length = step / slope if slope > 0.0 else math.inf
            last = abs(knots[-1].u - (knots[-2].u if len(knots) > 1 else start.u)) if knots else math.inf
            length = min(length, 3.0 * last)
            if not math.isfinite(length):
                length = step / slope0
            u = u + side * length
            if side * (u - bound) >= 0.0 or abs(bound - u) < 0.1 * length:
                u = bound
            try:
                knot = _knot(held, start, u, near, side, other)
            except _Lost as error:
                notes.append(f"stopped at |zeta| = {zeta:.3g}: {error}")
                break
            if not knot.point.converged:
                notes.append(f"a point at |zeta| = {abs(knot.zeta):.3g} did not converge")
            if lower := _lower_minimum(start, knot):
                notes.append(lower)
                break
            if abs(knot.zeta) < zeta - 1e-6:
                notes.append("the profile is not monotone: its limits are those next to the estimate")
            knots.append(knot)
            widened = not length < 3.0 * last
            flat = flat + 1 if widened and abs(abs(knot.zeta) - zeta) < _FLAT * zmax else 0
            near, other, zeta = knot.point, near, abs(knot.zeta)
            if flat >= _FLAT_STEPS:
                notes.append(f"the profile levels off at |zeta| = {zeta:.3g}")
                break
            slope = knot.slope if knot.slope == knot.slope else slope0
            if told is not None:
                told()
            if abs(u - before) <= 1e-12 * (1.0 + abs(u)):
                break
    return [*sides[-1][::-1], *sides[1]], list(dict.fromkeys(notes))


def slope_at_zero(u0: float, knots: Sequence[Knot], guess: float) -> float:
    """d zeta / du at the estimate from the nearest knots: their values and slopes define a polynomial.

    Parameters
    ----------
    u0 : float
        The estimate.
    knots : sequence of Knot
    guess : float
        Taken if there is no usable neighbour.
    """
    below = [k for k in knots if k.u < u0 and k.slope > 0.0][-1:]
    above = [k for k in knots if k.u > u0 and k.slope > 0.0][:1]
    rows, values = [], []
    for k in below + above:
        h = k.u - u0
        rows += [[h, h**2, h**3, h**4], [1.0, 2.0 * h, 3.0 * h**2, 4.0 * h**3]]
        values += [k.zeta, k.slope]
    if not rows:
        return guess
    A = np.array(rows)[:, : len(values)]
    scale = np.abs(A).max(axis=0)
    found = float(np.linalg.solve(A / scale, np.array(values))[0] / scale[0])
    return found if found > 0.0 else guess


def hermite(
    x: np.ndarray, y: np.ndarray, slopes: np.ndarray, at: np.ndarray, derivative: bool = False
) -> np.ndarray:
    """Piecewise cubic through (x, y) with given slopes, made monotone (Fritsch & Carlson 1980).

    Slopes are cut to three times the chords beside them, which is enough for a monotone curve.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Increasing.
    y, slopes : ndarray, shape (n,)
    at : ndarray
        NaN outside of x.
    derivative : bool
        The derivative of the curve instead of its value.
    """
    if len(x) < 2:
        return np.where(at == x[0], slopes[0] if derivative else y[0], np.nan)
    h = np.diff(x)
    chord = np.diff(y) / h
    most = 3.0 * np.abs(chord)
    m = np.where(np.isfinite(slopes), slopes, 0.0)
    lean = np.sign(chord)
    m_left = lean * np.clip(lean * m[:-1], 0.0, most)
    m_right = lean * np.clip(lean * m[1:], 0.0, most)
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(h) - 1)
    t = (at - x[i]) / h[i]
    with np.errstate(invalid="ignore"):
        t = np.where((at < x[0]) | (at > x[-1]), np.nan, t)
    p, q, d = m_left[i], m_right[i], chord[i]
    b = 3.0 * d - 2.0 * p - q
    c = p + q - 2.0 * d
    if derivative:
        return p + t * (2.0 * b + 3.0 * c * t)
    return y[i] + h[i] * t * (p + t * (b + c * t))
