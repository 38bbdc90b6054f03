"""Natural parameters of a residual structure by name, each with the scale on which it is close to normal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixedmodels.fit.natural import NaturalName

__all__ = ["ResidualNatural", "residual_natural"]

_FAR = 300.0
_POSITIVE = ("sd_ratio", "range", "smoothness", "const", "prop")


@dataclass(frozen=True, eq=False)
class ResidualNatural:
    """The natural parameters of a residual structure.

    Attributes
    ----------
    bound : BoundResidual
    index : ndarray of intp
        Places of phi among the covariance parameters of the model.
    names : tuple of NaturalName
    """

    bound: Any
    index: np.ndarray
    names: tuple[NaturalName, ...]

    @cached_property
    def _middle(self) -> np.ndarray:
        """A point at which no derivative vanishes by chance."""
        n_phi = self.index.shape[0]
        return np.asarray(self.bound.start, dtype=float) + 0.1 + 0.05 * np.arange(n_phi) / max(n_phi, 1)

    def at(self, theta: np.ndarray) -> Any:
        """`NaturalValues` at all covariance parameters of the model."""
        return self.bound.natural(np.asarray(theta, dtype=float)[self.index])

    def coordinate(self, place: int) -> int | None:
        """The entry of phi of which alone a natural parameter is a function; None if there are several."""
        (used,) = np.nonzero(self.bound.natural(self._middle).jacobian[place])
        return int(used[0]) if used.size == 1 else None

    def separable(self, place: int) -> bool:
        """Whether `coordinate` is one."""
        return self.coordinate(place) is not None

    def _at_coordinate(self, place: int, phi: float) -> tuple[float, float]:
        """A separable natural parameter and its derivative where its entry of phi has a value."""
        j = self.coordinate(place)
        own = self._middle.copy()
        own[j] = phi
        found = self.bound.natural(own)
        return float(found.values[place]), float(found.jacobian[place, j])

    def moved(self, place: int, u: float) -> float:
        """The natural parameter at a value of its scale."""
        if self.separable(place):
            return self._at_coordinate(place, u)[0]
        kind = self.names[place].kind
        return math.tanh(u) if kind == "correlation" else math.exp(u) if kind in _POSITIVE else u

    def place_of(self, place: int, value: float) -> float:
        """Where a natural parameter is on its scale.

        It is its entry of phi where there is one; Fisher's z of correlations and logarithms of positive
        numbers elsewhere.
        """
        j = self.coordinate(place)
        if j is None:
            kind = self.names[place].kind
            return (
                math.atanh(value)
                if kind == "correlation"
                else math.log(value)
                if kind in _POSITIVE
                else value
            )
        return self._inverse(place, value)

    def _inverse(self, place: int, value: float) -> float:
        """The entry of phi at which a separable natural parameter has a value: Newton steps in a bracket.

        It is a monotone function. The others of the structure stay where they are, which need not be allowed
        for the natural parameters.
        """
        low, high = -_FAR, _FAR
        rising = self._at_coordinate(place, 0.2)[1] > 0.0
        phi = float(self.bound.start[self.coordinate(place)])
        for _ in range(200):
            with np.errstate(all="ignore"):
                found, slope = self._at_coordinate(place, phi)
            if found == value:
                return phi
            if (found < value) == rising:
                low = phi
            else:
                high = phi
            new = phi + (value - found) / slope if slope else math.nan
            if not low < new < high:
                new = 0.5 * (low + high)
            if abs(new - phi) <= 1e-15 * (1.0 + abs(new)):
                return new
            phi = new
        return phi

    def rate(self, place: int, value: float) -> float:
        """d scale / d natural parameter."""
        if self.separable(place):
            slope = self._at_coordinate(place, self.place_of(place, value))[1]
            return 1.0 / slope if slope else math.inf
        kind = self.names[place].kind
        if kind == "correlation":
            return 1.0 / max(1.0 - value * value, 1e-300)
        return 1.0 / value if kind in _POSITIVE else 1.0

    def limits(self, place: int, value: float, error: float, z: float) -> tuple[float, float]:
        """Wald limits, symmetric on the scale of the parameter."""
        if not (math.isfinite(value) and error > 0.0):
            return math.nan, math.nan
        try:
            with np.errstate(all="ignore"):
                middle, half = self.place_of(place, value), z * error * self.rate(place, value)
                ends = self.moved(place, middle - half), self.moved(place, middle + half)
        except (ValueError, OverflowError, FloatingPointError):
            return math.nan, math.nan
        return min(ends), max(ends)


def residual_natural(fit: Any) -> ResidualNatural | None:
    """The natural parameters of the residual structure of a fit; None where it has none to estimate."""
    bound = getattr(fit.design, "residual", None) if fit._is_linear else None
    if bound is None or not bound.n_phi:
        return None

    def made() -> ResidualNatural:
        found = bound.natural(np.asarray(bound.start, dtype=float))
        n, taken = len(fit.theta), set(fit.design.x_names)
        names = [
            NaturalName(f"{name}|Residual" if name in taken else name, name, kind)
            for name, kind in zip(found.names, found.kinds, strict=True)
        ]
        return ResidualNatural(bound, np.arange(n - bound.n_phi, n), tuple(names))

    return fit._once("residual_natural", made)
