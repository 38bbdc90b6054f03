"""The profile of one parameter: points, and what lies between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixedmodels.inference.profile.held import scale_of
from mixedmodels.inference.profile.points import Knot, hermite

if TYPE_CHECKING:
    from mixedmodels.inference.parameters import Parameter
    from mixedmodels.objective.held import HeldPoint

__all__ = ["Curve"]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The profile of one parameter.

    Attributes
    ----------
    parameter : Parameter
    value : ndarray, shape (m,)
        Where the parameter was held, increasing; the estimate is among them.
    zeta : ndarray, shape (m,)
        Signed square root of the rise of the criterion.
    slope : ndarray, shape (m,)
        d zeta / du on the coordinate u that the curve is interpolated on (`scale_of`).
    others : ndarray, shape (m, number of parameters of the model)
        All parameters where the criterion is smallest.
    criterion : ndarray, shape (m,)
    notes : tuple of str
    """

    parameter: Parameter
    value: np.ndarray
    zeta: np.ndarray
    slope: np.ndarray
    others: np.ndarray
    criterion: np.ndarray
    notes: tuple[str, ...]
    start: HeldPoint | None
    knots: tuple[Knot, ...]

    def zeta_at(self, x: np.ndarray) -> np.ndarray:
        """Zeta at values of the parameter; NaN outside of the curve."""
        if not len(self.value):
            return np.full(np.shape(x), math.nan)
        to = scale_of(self.parameter).to
        x = np.asarray(x, dtype=float)
        inside = (x >= self.value[0]) & (x <= self.value[-1])
        u = to(np.where(inside, x, self.value[0]))
        return np.where(inside, hermite(to(self.value), self.zeta, self.slope, u), math.nan)

    def value_at(self, zeta: np.ndarray) -> np.ndarray:
        """The value of the parameter at values of zeta; NaN outside of the curve or if it is not monotone."""
        rising = np.concatenate([[True], np.diff(self.zeta) > 1e-6])[: len(self.value)]
        if rising.sum() < 2 or np.any(np.diff(self.zeta) < -1e-6):
            return np.full(np.shape(zeta), math.nan)
        scale = scale_of(self.parameter)
        with np.errstate(divide="ignore"):
            rates = 1.0 / self.slope[rising]
        u = hermite(self.zeta[rising], scale.to(self.value[rising]), rates, zeta)
        return scale.back(u)

    def density_at(self, x: np.ndarray) -> np.ndarray:
        """``phi(zeta) d zeta / dx``."""
        if not len(self.value):
            return np.full(np.shape(x), math.nan)
        scale = scale_of(self.parameter)
        inside = (x >= self.value[0]) & (x <= self.value[-1])
        x = np.where(inside, x, self.value[0])
        knots = scale.to(self.value)
        z = hermite(knots, self.zeta, self.slope, scale.to(x))
        rate = hermite(knots, self.zeta, self.slope, scale.to(x), derivative=True) * scale.rate(x)
        return np.where(inside, np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi) * rate, math.nan)
