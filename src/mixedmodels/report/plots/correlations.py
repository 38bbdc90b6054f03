"""Plots of the autocorrelation function and the semivariogram of residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixedmodels.inference.checks.plot_data import smooth
from mixedmodels.report.plots.style import BAND, LINE, SMOOTH, clean, dots, new_axes

__all__ = ["plot_acf", "plot_variogram"]


def plot_acf(columns: Mapping[str, Any], ax: Any = None, kind: str = "pearson") -> Any:
    """Autocorrelations as bars, with limits for uncorrelated residuals."""
    ax = new_axes(ax)
    lag, value = np.asarray(columns["lag"]), np.asarray(columns["acf"])
    some = lag > 0
    ax.fill_between(
        lag[some], np.asarray(columns["conf_low"])[some], np.asarray(columns["conf_high"])[some],
        color=BAND, linewidth=0,
    )  # fmt: skip
    ax.axhline(0.0, color=LINE, linewidth=1)
    ax.vlines(lag, 0.0, value, color=SMOOTH, linewidth=2)
    return clean(ax, "Autocorrelation", "lag", f"autocorrelation of {kind} residuals")


def plot_variogram(columns: Mapping[str, Any], ax: Any = None, kind: str = "pearson") -> Any:
    """Semivariances against distances with a smooth curve."""
    ax = new_axes(ax)
    x, y = np.asarray(columns["distance"], dtype=float), np.asarray(columns["semivariance"])
    dots(ax, x, y)
    at, curve = smooth(x, y)
    if at.size:
        ax.plot(at, curve, color=SMOOTH, linewidth=1.6)
    ax.set_ylim(bottom=0.0)
    return clean(ax, "Semivariogram", "distance", f"semivariance of {kind} residuals")
