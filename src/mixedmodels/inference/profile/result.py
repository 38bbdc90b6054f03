"""Profile likelihood of a fit: what its curves answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import OptionError
from mixedmodels.fit.wald import check_level
from mixedmodels.inference.parameters import chosen, chosen_one, parameters_of
from mixedmodels.inference.profile.curve import Curve
from mixedmodels.inference.profile.intervals import interval_table
from mixedmodels.inference.table import Drawn, ResultTable

if TYPE_CHECKING:
    from mixedmodels.fit.result import LMMFit

__all__ = ["Profile"]


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

    def chosen(self, parameters: Any = None) -> tuple[Curve, ...]:
        """The curves of the parameters asked for; by default all.

        Raises
        ------
        OptionError
            A parameter was not profiled.
        """
        wanted = chosen([c.parameter for c in self.curves], parameters)
        return tuple(c for c in self.curves if c.parameter in wanted)

    def _curve(self, name: str) -> Curve:
        parameter = chosen_one([c.parameter for c in self.curves], name)
        return next(c for c in self.curves if c.parameter == parameter)

    def confint(self, level: float = 0.95, parameters: Any = None) -> ResultTable:
        """Profile intervals: roots of the criterion itself, started from the curves.

        Parameters
        ----------
        level : float
        parameters : str or sequence of str, optional
        """
        curves = self.chosen(parameters)
        return interval_table(
            self.fit, [(c.parameter, c.start, c.knots, c.notes) for c in curves], level, self.notes
        )

    def zeta(self, parameter: str, x: Any) -> np.ndarray:
        """Signed root at values of a parameter, by monotone cubic interpolation; NaN beyond the curve."""
        try:
            values = np.asarray(x, dtype=float)
        except (TypeError, ValueError):
            raise OptionError(f"x must be values of {parameter}, got {x!r}") from None
        return self._curve(parameter).zeta_at(values)

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

        curves = self.chosen(parameters)
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
