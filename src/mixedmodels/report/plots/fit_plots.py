"""``fit.plot``: one method per kind of plot, axes in and axes out, and the numbers behind each as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixedmodels.errors import OptionError
from mixedmodels.inference import plot_data
from mixedmodels.report.plots import effects, residuals

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["KINDS", "FitPlots"]

KINDS = (
    "residuals",
    "qq",
    "scale_location",
    "ranef_qq",
    "caterpillar",
    "shrinkage",
)


class FitPlots:
    """Plots of one fit.

    Every method takes ``ax=`` (or ``axes=`` where there are several panels) and returns what it drew on;
    without one it makes a figure. ``data(kind)`` gives the numbers of a plot as a tidy table.

    Parameters
    ----------
    fit : LMMFit
    """

    __slots__ = ("_fit",)

    def __init__(self, fit: LMMFit) -> None:
        self._fit = fit

    def __repr__(self) -> str:
        return f"plots of a fit: {', '.join(KINDS)}; data(kind) gives the numbers"

    def data(self, plot: str, /, **options: Any) -> Any:
        """The numbers behind a plot, in the data-frame library of the fit's data.

        Parameters
        ----------
        plot : str
            The name of a plot method.
        **options
            As the method's, such as ``group=`` or ``level=``.
        """
        if plot not in KINDS:
            raise OptionError(f"there is no plot {plot!r}; available: {', '.join(KINDS)}")
        return self._fit._native(self._columns(plot, **options))

    def _columns(self, name: str, /, **options: Any) -> dict[str, Any]:
        fit = self._fit
        if name == "qq":
            return plot_data.qq_data(fit.residuals("scaled"), **options)
        return getattr(plot_data, f"{_SOURCES.get(name, name)}_data")(fit, **options)

    def residuals(self, ax: Any = None, kind: str = "response") -> Any:
        """Residuals against fitted values: no trend and an even spread are what the model assumes."""
        return residuals.plot_residuals(
            self._columns("residuals", kind=kind), ax, ylabel=f"{kind} residual" if kind != "response" else ""
        )

    def qq(self, ax: Any = None, level: float = 0.95) -> Any:
        """Normal quantiles of the scaled residuals with pointwise limits."""
        return residuals.plot_qq(self._columns("qq", level=level), ax)

    def scale_location(self, ax: Any = None) -> Any:
        """Square roots of absolute scaled residuals against fitted values: a flat curve is an even spread."""
        return residuals.plot_scale_location(self._columns("scale_location"), ax)

    def caterpillar(self, group: Any = None, axes: Any = None, level: float = 0.95, sort: bool = True) -> Any:
        """Conditional modes of a group's effects with intervals, one panel per effect."""
        columns = self._columns("caterpillar", group=group, level=level)
        return effects.plot_caterpillar(columns, axes, self._group(group), sort)

    def ranef_qq(self, group: Any = None, axes: Any = None, level: float = 0.95) -> Any:
        """Normal quantile plots of the conditional modes, one panel per effect."""
        columns = self._columns("ranef_qq", group=group, level=level)
        return effects.plot_ranef_qq(columns, axes, self._group(group))

    def shrinkage(self, group: Any = None, axes: Any = None) -> Any:
        """From the least-squares effects within each level to the conditional modes."""
        return effects.plot_shrinkage(self._columns("shrinkage", group=group), axes, self._group(group))

    def _group(self, group: Any) -> str:
        return self._fit.design.terms[plot_data.find_term(self._fit, group)].group


_SOURCES = {"residuals": "residual"}
