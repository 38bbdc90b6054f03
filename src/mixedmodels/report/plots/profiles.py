"""Plots of profile likelihoods: signed roots, densities, pairs."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.inference.checks.plot_data import profile_curves, profile_data
from mixedmodels.report.plots.style import BAND, LIMIT, LINE, POINT, SMOOTH, clean, grid_of_axes, subplots

if TYPE_CHECKING:
    from mixedmodels.inference.profile.result import Profile

__all__ = ["plot_profile", "plot_profile_density", "plot_profile_pairs"]

_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def plot_profile(profile: Profile, parameters: Any = None, axes: Any = None, absolute: bool = False) -> Any:
    """Zeta against each parameter: a straight line means that Wald intervals are good enough.

    Vertical lines mark intervals of 50, 80, 90, 95 and 99 %.
    """
    curves = profile_curves(profile, parameters)
    axes = grid_of_axes(len(curves), axes)
    for ax, curve in zip(axes, curves, strict=True):
        columns = profile_data([curve])
        x, zeta = columns["value"], columns["zeta"]
        ax.axhline(0.0, color=LINE, linewidth=0.8)
        for level in _LEVELS:
            z = NormalDist().inv_cdf(0.5 + 0.5 * level)
            limits = curve.value_at(np.array([-z, z]))
            for limit, height in zip(limits, (-z, z), strict=True):
                if math.isfinite(limit):
                    top = abs(height) if absolute else height
                    ax.plot([limit, limit], [0.0, top], color=LIMIT, linewidth=1.2, zorder=1)
        ax.plot(x, np.abs(zeta) if absolute else zeta, color=POINT, linewidth=1.6)
        clean(ax, curve.parameter.name, "", r"$|\zeta|$" if absolute else r"$\zeta$")
    return axes


def plot_profile_density(profile: Profile, parameters: Any = None, axes: Any = None) -> Any:
    """The density each parameter would have if zeta were standard normal."""
    curves = profile_curves(profile, parameters)
    axes = grid_of_axes(len(curves), axes)
    for ax, curve in zip(axes, curves, strict=True):
        columns = profile_data([curve])
        x, density = columns["value"], columns["density"]
        ax.fill_between(x, 0.0, density, color=BAND, linewidth=0)
        ax.plot(x, density, color=POINT, linewidth=1.6)
        ax.set_ylim(bottom=0.0)
        ax.set_yticks([])
        clean(ax, curve.parameter.name, "", "profile density")
    return axes


def plot_profile_pairs(
    profile: Profile, parameters: Any = None, axes: Any = None, levels: tuple[float, ...] = (0.5, 0.8, 0.95)
) -> Any:
    """Contours of two-parameter profiles below the diagonal, zeta of each parameter on it.

    Thin lines are the profile traces: the best value of one parameter where the other is held.

    Returns
    -------
    ndarray of axes, shape (k, k)
    """
    curves = profile_curves(profile, parameters)
    names = [curve.parameter.name for curve in curves]
    k = len(curves)
    if axes is None:
        grid = subplots(k, k, (1.0 + 2.0 * k, 0.8 + 1.9 * k))
    else:
        grid = np.asarray(axes, dtype=object)
        if grid.size != k * k:
            raise OptionError(f"a pairs plot of {k} parameters needs {k * k} axes, got {grid.size}")
        grid = grid.reshape(k, k)
    from mixedmodels.inference.parameters import parameters_of
    from mixedmodels.inference.profile.pairs import pair_columns

    order = [parameter.name for parameter in parameters_of(profile.fit)]
    columns = {key: np.asarray(value) for key, value in pair_columns(curves, order, levels, 121).items()}
    for i in range(k):
        for j in range(k):
            ax = grid[i, j]
            if j > i:
                ax.set_visible(False)
                continue
            if i == j:
                x = np.linspace(curves[i].value[0], curves[i].value[-1], 121)
                ax.plot(x, curves[i].zeta_at(x), color=POINT, linewidth=1.4)
                ax.axhline(0.0, color=LINE, linewidth=0.8)
                clean(ax, names[i])
                continue
            own = (columns["x_parameter"] == names[j]) & (columns["y_parameter"] == names[i])
            for level in levels:
                rows = own & (columns["kind"] == "contour") & (columns["level"] == level)
                ax.plot(columns["x"][rows], columns["y"][rows], color=POINT, linewidth=1.2)
            for kind in ("trace_x", "trace_y"):
                rows = own & (columns["kind"] == kind)
                ax.plot(columns["x"][rows], columns["y"][rows], color=SMOOTH, linewidth=0.8)
            clean(ax)
    return grid
