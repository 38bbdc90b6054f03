"""Plots with matplotlib: axes in, axes out."""

from mixedmodels.report.plots.fit_plots import FitPlots

__all__ = ["FitPlots"]
