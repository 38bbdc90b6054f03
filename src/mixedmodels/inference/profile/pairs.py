r"""Traces and contours of two-parameter profiles from one-parameter profiles.

On the scale of the signed roots a contour of level L is nearly :math:`\zeta_x = L \cos(a + \varphi/2)`,
:math:`\zeta_y = L \cos(a - \varphi/2)`, an ellipse if the phase difference phi is constant. The two traces
give phi at four points of the contour; a periodic cubic through them in a gives the rest (Bates & Watts
1988, appendix 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.inference.profile.curve import Curve

__all__ = ["contour", "pair_columns"]


def pair_columns(
    curves: Sequence[Curve], order: Sequence[str], levels: Sequence[float], points: int
) -> dict[str, Any]:
    """Columns of `Profile.pairs`."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("x_parameter", "y_parameter", "kind", "level", "x", "y", "zeta_x", "zeta_y")
    }

    def add(x: Curve, y: Curve, kind: str, level: float, numbers: Sequence[np.ndarray]) -> None:
        m = len(numbers[0])
        columns["x_parameter"] += [x.parameter.name] * m
        columns["y_parameter"] += [y.parameter.name] * m
        columns["kind"] += [kind] * m
        columns["level"] += [level] * m
        for name, values in zip(("x", "y", "zeta_x", "zeta_y"), numbers, strict=True):
            columns[name] += np.asarray(values).tolist()

    for i, y in enumerate(curves):
        for x in curves[:i]:
            on_x = x.others[:, order.index(y.parameter.name)]
            on_y = y.others[:, order.index(x.parameter.name)]
            trace_x, trace_y = y.zeta_at(on_x), x.zeta_at(on_y)
            add(x, y, "trace_x", math.nan, (x.value, on_x, x.zeta, trace_x))
            add(x, y, "trace_y", math.nan, (on_y, y.value, trace_y, y.zeta))
            for level in levels:
                radius = math.sqrt(-2.0 * math.log1p(-level))  # chi-squared with two degrees of freedom
                zeta_x, zeta_y = contour(x.zeta, trace_x, y.zeta, trace_y, radius, points)
                add(x, y, "contour", level, (x.value_at(zeta_x), y.value_at(zeta_y), zeta_x, zeta_y))
    return dict(columns)


def contour(
    zeta_x: np.ndarray,
    y_on_x: np.ndarray,
    zeta_y: np.ndarray,
    x_on_y: np.ndarray,
    radius: float,
    points: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A contour on the scale of the signed roots; NaN if the traces do not reach it.

    Parameters
    ----------
    zeta_x, y_on_x : ndarray
        Trace with x held: its zeta, and that of y.
    zeta_y, x_on_y : ndarray
        Trace with y held.
    radius : float
    points : int
    """
    nothing = np.full(points, math.nan)
    angles, phases = [], []
    for sign in (1.0, -1.0):
        for own, other, held_x in ((zeta_x, y_on_x, True), (zeta_y, x_on_y, False)):
            good = np.isfinite(other)
            if good.sum() < 2 or not own[good][0] <= sign * radius <= own[good][-1]:
                return nothing, nothing.copy()
            ratio = float(np.interp(sign * radius, own[good], other[good])) / radius
            angle_other = math.acos(min(max(ratio, -1.0), 1.0))
            angle_own = 0.0 if sign > 0.0 else math.pi
            a_x, a_y = (angle_own, angle_other) if held_x else (angle_other, angle_own)
            # the two angles are a + phi/2 and a - phi/2
            angle, phase = 0.5 * (a_x + a_y), a_x - a_y
            if phase < 0.0:
                angle, phase = -angle, -phase
            angles.append(angle)
            phases.append(phase)
    from scipy.interpolate import CubicSpline

    at = np.array(angles)
    sort = np.argsort(at)
    at, phi = at[sort], np.array(phases)[sort]
    grid = np.linspace(-math.pi, math.pi, points)
    if np.any(np.diff(at) < 1e-9):
        difference = np.full(points, float(np.mean(phi)))
    else:
        spline = CubicSpline(np.append(at, at[0] + 2.0 * math.pi), np.append(phi, phi[0]), bc_type="periodic")
        difference = spline(at[0] + np.mod(grid - at[0], 2.0 * math.pi))
    return radius * np.cos(grid + 0.5 * difference), radius * np.cos(grid - 0.5 * difference)
