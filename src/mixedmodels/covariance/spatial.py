r"""Spatial correlations: a decreasing function of the distance between coordinates, in units of the range.

=======  ======================================================================
tag      correlation at distance d, range r, h = d/r
=======  ======================================================================
exp      :math:`\exp(-h)`
gau      :math:`\exp(-h^2)`
sph      :math:`1 - \tfrac32 h + \tfrac12 h^3` for h < 1, else 0
ratio    :math:`1/(1 + h^2)`
mat      :math:`2^{1-\nu}\,\Gamma(\nu)^{-1} h^\nu K_\nu(h)`, smoothness nu
=======  ======================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.covariance.correlation import Correlation, Jet, NaturalBlock
from mixedmodels.errors import OptionError

__all__ = ["MaternCorrelation", "SpatialCorrelation"]

# f(h) with h f'(h) and h (h f'(h))': value and derivatives in log h
_Values = tuple[np.ndarray, np.ndarray, np.ndarray]


def _exponential(h: np.ndarray) -> _Values:
    f = np.exp(-h)
    return f, -h * f, (h * h - h) * f


def _gaussian(h: np.ndarray) -> _Values:
    x = h * h
    f = np.exp(-x)
    return f, -2.0 * x * f, 4.0 * x * (x - 1.0) * f


def _spherical(h: np.ndarray) -> _Values:
    x = np.minimum(h, 1.0)
    inside = h < 1.0
    return (
        1.0 - 1.5 * x + 0.5 * x**3,
        np.where(inside, 1.5 * (x**3 - x), 0.0),
        np.where(inside, 4.5 * x**3 - 1.5 * x, 0.0),
    )


def _rational(h: np.ndarray) -> _Values:
    x = h * h
    f = 1.0 / (1.0 + x)
    return f, -2.0 * x * f * f, 4.0 * x * (x - 1.0) * f**3


_FUNCTIONS: dict[str, Callable[[np.ndarray], _Values]] = {
    "exp": _exponential,
    "gau": _gaussian,
    "sph": _spherical,
    "ratio": _rational,
}


class _Distances(Correlation):
    """Coordinates, their distances and the range as ``range = unit exp(psi_0)``."""

    def __init__(self, function: str, coordinates: Any) -> None:
        positions = np.array(coordinates, dtype=np.float64)
        positions = positions[:, None] if positions.ndim == 1 else positions
        if positions.ndim != 2 or not np.all(np.isfinite(positions)):
            raise OptionError("coordinates must be finite numbers, one row for each column of the term")
        positions.setflags(write=False)
        self.function, self.coordinates, self.k = function, positions, positions.shape[0]
        squares = np.sum(positions * positions, axis=1)
        d2 = np.maximum(squares[:, None] + squares - 2.0 * positions @ positions.T, 0.0)
        if positions.shape[1] == 1 or self.k <= 2000:
            d2 = np.zeros((self.k, self.k))
            for axis in positions.T:
                d2 += (axis[:, None] - axis) ** 2
        self.distance = np.sqrt(d2)
        apart = self.distance[np.tril_indices(self.k, -1)]
        if apart.size and not apart.min() > 0.0:
            raise OptionError("two columns of a spatial term have the same coordinates; make them one level")
        self.unit = float(np.median(apart)) if apart.size else 1.0
        least = float(apart.min()) if apart.size else 1.0
        most = float(apart.max()) if apart.size else 1.0
        # from correlations of nearly 0 between neighbours to those of nearly 1 between the farthest
        self._span = (np.log(0.02 * least / self.unit), np.log(1e3 * most / self.unit))

    def key(self) -> tuple:
        return (type(self).__name__, self.function, self.k, self.coordinates.tobytes())

    @property
    def positions(self) -> np.ndarray:
        """The coordinates, shape (k, dimensions)."""
        return self.coordinates

    def _range(self, psi: np.ndarray) -> float:
        return self.unit * float(np.exp(psi[0]))

    def candidates(self, some: bool = True) -> list[np.ndarray]:
        """Starting points for a search: four ranges over two orders of magnitude, or a fine grid."""
        psi = np.array(self.start)
        out = []
        for log_range in np.log([0.5, 0.1, 0.02, 2.0] if some else np.geomspace(0.01, 10.0, 30)):
            psi = psi.copy()
            psi[0] = log_range
            out.append(np.clip(psi, self.lower, self.upper))
        return out

    def _by_bisection(self, total: float) -> np.ndarray:
        """psi at which the correlations, which grow with the range, have a given sum."""
        low, high = float(self.lower[0]), float(self.upper[0])
        for _ in range(64):
            middle = 0.5 * (low + high)
            if float(np.sum(self.matrix(np.array([middle])).value)) < total:
                low = middle
            else:
                high = middle
        return np.array([0.5 * (low + high)])

    def near(self, R: np.ndarray) -> np.ndarray:
        """One parameter: the same sum of correlations. Else least squares by Gauss-Newton steps."""
        if self.k == 1:
            return self.start

        def distance(psi: np.ndarray) -> float:
            return float(np.sum((self.matrix(psi).value - R) ** 2))

        if self.n_psi == 1:
            return self._by_bisection(float(np.sum(R)))
        best = min(self.candidates(some=False), key=distance)
        value = distance(best)
        for _ in range(60):
            jet = self.matrix(best, 1)
            assert jet.first is not None
            J = jet.first.reshape(self.n_psi, -1).T
            step = np.linalg.lstsq(J, (R - jet.value).ravel(), rcond=1e-12)[0]
            step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
            moved = best
            for _ in range(12):
                trial = np.clip(best + step, self.lower, self.upper)
                if distance(trial) < value:
                    moved = trial
                    break
                step = 0.5 * step
            if np.max(np.abs(moved - best)) < 1e-15:
                break
            best, value = moved, distance(moved)
        return best


class SpatialCorrelation(_Distances):
    """Correlation functions whose only parameter is the range, ``psi = log(range / median distance)``.

    Parameters
    ----------
    function : {"exp", "gau", "sph", "ratio"}
    coordinates : array_like, shape (k, dimensions) or (k,)

    Examples
    --------
    >>> r = SpatialCorrelation("exp", [0.0, 1.0, 3.0])
    >>> r.matrix(r.from_natural([2.0])).value[0].round(4).tolist()
    [1.0, 0.6065, 0.2231]
    """

    names = ("log(range)",)

    def __init__(self, function: str, coordinates: Any) -> None:
        super().__init__(function, coordinates)
        self.n_psi = 1
        self._bounds(np.log(0.5), *self._span, False)

    def __reduce__(self) -> tuple:
        return type(self), (self.function, self.coordinates)

    def at_positions(self, positions: np.ndarray) -> SpatialCorrelation:
        return SpatialCorrelation(self.function, positions)

    def matrix(self, psi: np.ndarray, order: int = 0) -> Jet:
        f, f1, f2 = _FUNCTIONS[self.function](self.distance / self._range(psi))
        if order == 0:
            return Jet(f)
        # d log h / d psi = -1
        return Jet(f, -f1[None], f2[None, None] if order > 1 else None)

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        r = self._range(psi)
        return NaturalBlock(("range",), np.array([r]), np.array([[r]]), ("range",))

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.array([[weights[0] * self._range(psi)]])

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        return np.clip(_logs(values[:1], ("range",)) - np.log(self.unit), self.lower, self.upper)


def _logs(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    for value, name in zip(values, names, strict=True):
        if not 0.0 < value < np.inf:
            raise OptionError(
                f"the {name} of a spatial correlation must be positive and finite, got {value:g}"
            )
    return np.log(values)


class MaternCorrelation(_Distances):
    r"""Matern correlation :math:`2^{1-\nu}\Gamma(\nu)^{-1} h^\nu K_\nu(h)`, h = distance / range.

    nu = 1/2 is the exponential. psi is the logarithm of the range (in median distances) and, unless nu is
    given, that of nu.

    Parameters
    ----------
    coordinates : array_like, shape (k, dimensions) or (k,)
    nu : float, optional
        Smoothness held fixed; estimated by default.
    """

    def __init__(self, coordinates: Any, nu: float | None = None) -> None:
        super().__init__("mat", coordinates)
        if nu is not None and not 0.0 < float(nu) <= 50.0:
            raise OptionError(f"the smoothness nu of a Matern correlation must be in (0, 50], got {nu!r}")
        self.nu = None if nu is None else float(nu)
        self.n_psi = 1 if nu is not None else 2
        self.names = ("log(range)", "log(smoothness)")[: self.n_psi]
        low, high = self._span
        self._bounds(
            [np.log(0.2), np.log(0.5)][: self.n_psi],
            [low - 2.0, np.log(0.05)][: self.n_psi],
            [high, np.log(50.0)][: self.n_psi],
            False,
        )

    def key(self) -> tuple:
        return (*super().key(), self.nu)

    def __reduce__(self) -> tuple:
        return type(self), (self.coordinates, self.nu)

    def at_positions(self, positions: np.ndarray) -> MaternCorrelation:
        return MaternCorrelation(positions, self.nu)

    def matrix(self, psi: np.ndarray, order: int = 0) -> Jet:
        nu = self.nu if self.nu is not None else float(np.exp(psi[1]))
        # symmetric with equal distances: only the distinct pairs are computed
        lower = np.tril_indices(self.k, -1)
        h = self.distance[lower] / self._range(psi)
        parts = _matern(h, nu, order, self.nu is None)

        def full(values: np.ndarray, diagonal: float) -> np.ndarray:
            out = np.full((self.k, self.k), diagonal)
            out[lower] = values
            out.T[lower] = values
            return out

        value = full(parts[0], 1.0)
        if order == 0:
            return Jet(value)
        first = np.array([full(part, 0.0) for part in parts[1]])
        if order == 1:
            return Jet(value, first)
        second = np.array([[full(part, 0.0) for part in row] for row in parts[2]])
        return Jet(value, first, second)

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        names, kinds = ("range", "smoothness")[: self.n_psi], ("range", "smoothness")[: self.n_psi]
        values = np.exp(np.asarray(psi, dtype=np.float64))
        values[0] *= self.unit
        return NaturalBlock(names, values, np.diag(values), kinds)

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.diag(weights * self.natural(psi).values)

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        out = _logs(values[: self.n_psi], ("range", "smoothness")[: self.n_psi])
        out[0] -= np.log(self.unit)
        return np.clip(out, self.lower, self.upper)


def _matern(h: np.ndarray, nu: float, order: int, smoothness: bool) -> tuple:
    r"""Matern correlation at h > 0 with derivatives in (log range, log nu).

    :math:`g(h) = c\,h^\nu K_\nu(h)` has :math:`h g' = -c\,h^{\nu+1} K_{\nu-1}(h)` and
    :math:`h (h g')' = 2\nu\,h g' + c\,h^{\nu+2} K_\nu(h)`. Derivatives in nu are those of
    :math:`K_\nu(h) = \int_0^\infty e^{-h\cosh t}\cosh(\nu t)\,dt` by the trapezoidal rule, which is exact to
    rounding for this integrand.
    """
    from scipy.special import gammaln, kve, polygamma, psi

    # everything through exp(log c + nu log h - h) times scaled Bessel functions
    log_c = (1.0 - nu) * np.log(2.0) - gammaln(nu)
    base = np.exp(log_c + nu * np.log(h) - h)
    K = kve(nu, h)
    g = np.minimum(base * K, 1.0)
    if order == 0:
        return (g,)
    K_below = kve(abs(nu - 1.0), h)
    slope = -base * h * K_below  # d g / d log h
    # K'_(nu-1) = -K_nu + (nu-1)/h K_(nu-1)
    bend = 2.0 * nu * slope + base * h * h * K
    if not smoothness:
        return g, [-slope], [[bend]]
    N0, N1, N2 = _bessel_in_order(h, nu)
    M0, M1, _ = _bessel_in_order(h, nu - 1.0)
    log_slope = np.log(0.5 * h) - psi(nu)  # d log(c h^nu) / d nu
    by_nu = base * (log_slope * N0 + N1)
    by_nu2 = base * ((log_slope**2 - polygamma(1, nu)) * N0 + 2.0 * log_slope * N1 + N2)
    slope_nu = -base * h * (log_slope * M0 + M1)
    first = [-slope, nu * by_nu]
    cross = -nu * slope_nu
    return g, first, [[bend, cross], [cross, nu * by_nu + nu * nu * by_nu2]]


def _bessel_in_order(h: np.ndarray, nu: float) -> _Values:
    """``e^h K_nu(h)`` and its first two derivatives in nu, by the trapezoidal rule over t."""
    # the integrand exp(-h (cosh t - 1)) cosh(nu t) is negligible where h (cosh t - 1) - |nu| t > 45
    least = float(h.min())
    t_end = 1.0
    while least * (np.cosh(t_end) - 1.0) - abs(nu) * t_end < 45.0:
        t_end *= 1.1
    steps = max(200, int(np.ceil(t_end / 0.02)))
    t = np.linspace(0.0, t_end, steps + 1)
    weight = np.full(steps + 1, t[1])
    weight[0] *= 0.5
    cosh_t = np.cosh(t) - 1.0
    out = np.zeros((3, h.shape[0]))
    for at in range(0, h.shape[0], 4096):
        part = slice(at, at + 4096)
        exponent = -np.outer(h[part], cosh_t)
        up = np.exp(exponent + abs(nu) * t) * 0.5 * weight
        down = np.exp(exponent - abs(nu) * t) * 0.5 * weight
        even, odd = up + down, np.sign(nu) * (up - down)
        out[0, part] = even.sum(axis=1)
        out[1, part] = odd @ t
        out[2, part] = even @ (t * t)
    return out[0], out[1], out[2]
