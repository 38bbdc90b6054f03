r"""Markov chains in one dimension: AR(1), CAR(1) / Ornstein-Uhlenbeck, antedependence of order one.

Each effect depends on the one before it: with lag correlations :math:`\rho_i` and
:math:`c_i = \sqrt{1-\rho_i^2}`, row i of the root is :math:`C_i = \rho_i C_{i-1} + c_i e_i`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import asin, cos, sin

import numpy as np

from mixedmodels.covariance.correlation import Correlation, Jet, NaturalBlock
from mixedmodels.errors import OptionError

__all__ = ["AntedependenceCorrelation", "AutoregressiveCorrelation", "ContinuousCorrelation", "chain_root"]

_HALF_PI = 0.5 * np.pi
_SERIES = 1e-3  # below this 1 - exp(-y) and its derivatives are taken from their series


def chain_root(r: Jet, c: Jet, order: int) -> Jet:
    """Root of a Markov chain from the jets of lag correlations r and their complements c, (k-1,) each."""
    k = r.value.shape[0] + 1
    value = np.zeros((k, k))
    value[0, 0] = 1.0
    for i in range(1, k):
        value[i, :i] = r.value[i - 1] * value[i - 1, :i]
        value[i, i] = c.value[i - 1]
    if order == 0:
        return Jet(value)
    assert r.first is not None and c.first is not None
    q = r.first.shape[0]
    first = np.zeros((q, k, k))
    for i in range(1, k):
        first[:, i] = r.first[:, i - 1, None] * value[i - 1] + r.value[i - 1] * first[:, i - 1]
        first[:, i, i] = c.first[:, i - 1]
    if order == 1:
        return Jet(value, first)
    assert r.second is not None and c.second is not None
    second = np.zeros((q, q, k, k))
    for i in range(1, k):
        cross = r.first[:, None, i - 1, None] * first[None, :, i - 1]
        second[:, :, i] = (
            r.second[:, :, i - 1, None] * value[i - 1]
            + cross
            + cross.transpose(1, 0, 2)
            + r.value[i - 1] * second[:, :, i - 1]
        )
        second[:, :, i, i] = c.second[:, :, i - 1]
    return Jet(value, first, second)


class AutoregressiveCorrelation(Correlation):
    r"""AR(1): :math:`R_{ij} = \rho^{|t_i - t_j|}` for integer times, :math:`\rho = \sin\omega`.

    With the angle the root is smooth up to :math:`\rho = \pm 1`, where it has derivatives too.

    Parameters
    ----------
    times : sequence of int, strictly increasing
        Gaps count: times 1, 2, 4 have correlations rho, rho^2 and rho^3.

    Examples
    --------
    >>> AutoregressiveCorrelation([1, 2, 4]).matrix([asin(0.5)]).value.round(4).tolist()
    [[1.0, 0.5, 0.125], [0.5, 1.0, 0.25], [0.125, 0.25, 1.0]]
    """

    names = ("angle(cor)",)

    def __init__(self, times: Sequence[int]) -> None:
        self.times = tuple(int(t) for t in times)
        self.k, self.n_psi = len(self.times), 1
        t = np.array(self.times, dtype=np.float64)
        self._lags = np.diff(t)
        if np.any(self._lags <= 0.0):
            raise OptionError("the times of an autoregression must be strictly increasing integers")
        self._distance = np.abs(t[:, None] - t)
        self._bounds(0.0, -_HALF_PI, _HALF_PI, True)

    def key(self) -> tuple:
        return (type(self).__name__, self.times)

    def __reduce__(self) -> tuple:
        return type(self), (self.times,)

    @property
    def positions(self) -> np.ndarray:
        """The times, shape (k, 1)."""
        return np.array(self.times, dtype=np.float64)[:, None]

    def at_positions(self, positions: np.ndarray) -> AutoregressiveCorrelation:
        odd = positions[:, 0][positions[:, 0] != np.round(positions[:, 0])]
        if odd.size:
            raise OptionError(
                f"an autoregression (ar1) has effects at whole numbers only, not at time {odd[0]:g}; use "
                "car1 or ou, or whole numbers"
            )
        return AutoregressiveCorrelation(positions[:, 0].astype(np.int64).tolist())

    def matrix(self, psi: np.ndarray, order: int = 0) -> Jet:
        return _power(float(psi[0]), self._distance, order)

    def root(self, psi: np.ndarray, order: int = 0) -> Jet:
        r = _power(float(psi[0]), self._lags, order)
        return chain_root(r, _power_complement(float(psi[0]), self._lags, order), order)

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        omega = float(psi[0])
        return NaturalBlock(("cor",), np.array([sin(omega)]), np.array([[cos(omega)]]), ("cor",))

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.array([[-weights[0] * sin(float(psi[0]))]])

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        return np.array([_angle(float(values[0]), "the correlation of an autoregression")])

    def near(self, R: np.ndarray) -> np.ndarray:
        if self.k == 1:
            return self.start
        lag = float(self._lags.min())
        r = float(np.mean(np.diagonal(R, 1)[self._lags == lag]))
        rho = float(np.sign(r)) * min(abs(r), 1.0) ** (1.0 / lag) if lag % 2 or r > 0.0 else 0.0
        return np.array([asin(rho)])


def _angle(rho: float, what: str) -> float:
    if not -1.0 <= rho <= 1.0:
        raise OptionError(f"{what} must lie between -1 and 1, got {rho:g}")
    return asin(rho)


def _power(omega: float, d: np.ndarray, order: int) -> Jet:
    """``sin(omega)^d`` elementwise for integers d >= 0, with derivatives in omega."""
    s, c = sin(omega), cos(omega)
    value = s**d
    if order == 0:
        return Jet(value)
    below = np.where(d >= 1.0, d * s ** np.maximum(d - 1.0, 0.0), 0.0)
    first = (below * c)[None]
    if order == 1:
        return Jet(value, first)
    twice = np.where(d >= 2.0, d * (d - 1.0) * s ** np.maximum(d - 2.0, 0.0), 0.0)
    return Jet(value, first, (twice * c * c - below * s)[None, None])


def _power_complement(omega: float, d: np.ndarray, order: int) -> Jet:
    """``sqrt(1 - sin(omega)^(2d)) = cos(omega) sqrt(h)``, ``h = sum_{i<d} sin^(2i)``, with derivatives."""
    s, c = sin(omega), cos(omega)
    h, h1, h2 = np.ones_like(d), np.zeros_like(d), np.zeros_like(d)
    if np.all(d == 1.0):  # equal spacing
        return Jet(
            c * h,
            None if order == 0 else (-s * h)[None],
            None if order < 2 else (-c * h)[None, None],
        )
    for i, lag in enumerate(d.tolist()):
        p = np.arange(int(lag)) * 2.0
        h[i] = np.sum(s**p)
        h1[i] = np.sum(p[1:] * s ** (p[1:] - 1.0))
        h2[i] = np.sum(p[1:] * (p[1:] - 1.0) * s ** (p[1:] - 2.0))
    root = np.sqrt(h)
    if order == 0:
        return Jet(c * root)
    # derivatives of root in s, then in omega
    r1 = 0.5 * h1 / root
    r2 = 0.5 * h2 / root - 0.25 * h1 * h1 / (root * h)
    first = (-s * root + c * c * r1)[None]
    if order == 1:
        return Jet(c * root, first)
    second = -c * root - 3.0 * s * c * r1 + c**3 * r2
    return Jet(c * root, first, second[None, None])


class ContinuousCorrelation(Correlation):
    r"""CAR(1), the Ornstein-Uhlenbeck process: :math:`R_{ij} = \exp(-\tau^2 |t_i - t_j|/\delta)`.

    :math:`\delta` is the mean distance of neighbours. :math:`\tau = 0` is the correlation 1; for large
    :math:`\tau` the correlations vanish.

    Parameters
    ----------
    times : sequence of float, strictly increasing
    by : {"cor", "rate"}
        The natural parameter: the correlation at distance one, or the rate of decay.

    Examples
    --------
    >>> r = ContinuousCorrelation([0.0, 1.0, 3.0])
    >>> r.matrix(r.from_natural([0.5])).value.round(4).tolist()
    [[1.0, 0.5, 0.125], [0.5, 1.0, 0.25], [0.125, 0.25, 1.0]]
    """

    names = ("decay",)

    def __init__(self, times: Sequence[float], by: str = "cor") -> None:
        self.times, self.by = tuple(float(t) for t in times), by
        self.k, self.n_psi = len(self.times), 1
        t = np.array(self.times)
        lags = np.diff(t)
        if np.any(lags <= 0.0) or not np.all(np.isfinite(t)):
            raise OptionError("the times of a process must be finite and strictly increasing")
        self.delta = float(lags.mean()) if lags.size else 1.0
        self._lags = lags / self.delta
        self._distance = np.abs(t[:, None] - t) / self.delta
        self._bounds(1.0, 0.0, np.inf, True)

    def key(self) -> tuple:
        return (type(self).__name__, self.times, self.by)

    def __reduce__(self) -> tuple:
        return type(self), (self.times, self.by)

    @property
    def positions(self) -> np.ndarray:
        """The times, shape (k, 1)."""
        return np.array(self.times)[:, None]

    def at_positions(self, positions: np.ndarray) -> ContinuousCorrelation:
        return ContinuousCorrelation(positions[:, 0].tolist(), self.by)

    def matrix(self, psi: np.ndarray, order: int = 0) -> Jet:
        return _decay(float(psi[0]), self._distance, order)

    def root(self, psi: np.ndarray, order: int = 0) -> Jet:
        tau = float(psi[0])
        return chain_root(_decay(tau, self._lags, order), _decay_complement(tau, self._lags, order), order)

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        tau = float(psi[0])
        rate, slope = tau * tau / self.delta, 2.0 * tau / self.delta
        if self.by == "rate":
            return NaturalBlock(("rate",), np.array([rate]), np.array([[slope]]), ("rate",))
        rho = float(np.exp(-rate))
        return NaturalBlock(("cor",), np.array([rho]), np.array([[-slope * rho]]), ("cor",))

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        tau = float(psi[0])
        slope, bend = 2.0 * tau / self.delta, 2.0 / self.delta
        if self.by == "rate":
            return np.array([[weights[0] * bend]])
        return np.array([[weights[0] * np.exp(-tau * tau / self.delta) * (slope * slope - bend)]])

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        value = float(values[0])
        if self.by == "cor":
            if not 0.0 <= value <= 1.0:
                raise OptionError(f"the correlation at distance one must lie between 0 and 1, got {value:g}")
            value = -float(np.log(max(value, 1e-300)))
        elif not value >= 0.0:
            raise OptionError(f"the rate of decay must not be negative, got {value:g}")
        return np.minimum(np.array([np.sqrt(value * self.delta)]), self.upper)

    def candidates(self) -> list[np.ndarray]:
        """Starting points for a search: correlations that fall to 1/e within parts of the whole time."""
        span = float(self._lags.sum())
        return [np.minimum(np.array([1.0 / np.sqrt(part * span)]), self.upper) for part in (0.5, 0.15, 0.04)]

    def near(self, R: np.ndarray) -> np.ndarray:
        lags = np.diagonal(R, 1)
        usable = (lags > 1e-8) & (lags < 1.0)
        if not usable.any():
            return self.start if np.any(lags < 1.0) or not lags.size else self.lower
        return np.minimum(np.sqrt([np.median(-np.log(lags[usable]) / self._lags[usable])]), self.upper)


def _decay(tau: float, d: np.ndarray, order: int) -> Jet:
    """``exp(-tau^2 d)`` elementwise with derivatives in tau."""
    value = np.exp(-tau * tau * d)
    if order == 0:
        return Jet(value)
    first = (-2.0 * tau * d * value)[None]
    if order == 1:
        return Jet(value, first)
    return Jet(value, first, ((4.0 * tau * tau * d - 2.0) * d * value)[None, None])


def _decay_complement(tau: float, d: np.ndarray, order: int) -> Jet:
    """``sqrt(1 - exp(-2 tau^2 d))`` for d > 0 with derivatives in tau, smooth at tau = 0 (odd there)."""
    y = 2.0 * tau * tau * d
    value = np.copysign(np.sqrt(-np.expm1(-y)), tau)
    if order == 0:
        return Jet(value)
    small = y < _SERIES
    a = np.sqrt(2.0 * d)
    safe = np.where(small, 1.0, value)
    r, r1, r2 = (np.asarray(part) for part in _decay(tau, d, 2))
    r1, r2 = r1[0], r2[0, 0]
    x = d * tau * tau
    first = np.where(small, a * (1.0 - 1.5 * x + 25.0 / 24.0 * x * x), -r * r1 / safe)
    if order == 1:
        return Jet(value, first[None])
    second = np.where(
        small,
        a * d * tau * (-3.0 + 25.0 / 6.0 * x),
        -(r1 * r1 + r * r2 + first * first) / safe,
    )
    return Jet(value, first[None], second[None, None])


class AntedependenceCorrelation(Correlation):
    r"""Antedependence of order one: lag correlations :math:`\rho_i = \sin\omega_i`, one for each gap.

    :math:`R_{ij} = \prod_{l=j+1}^{i} \rho_l` for i > j; the inverse is tridiagonal.

    Parameters
    ----------
    k : int
        Columns.

    References
    ----------
    Gabriel (1962), Ann. Math. Stat. 33:201-212.
    """

    def __init__(self, k: int) -> None:
        self.k, self.n_psi = k, k - 1
        self.names = tuple(f"angle(cor{i})" for i in range(1, k))
        self._bounds(0.0, -_HALF_PI, _HALF_PI, True)

    def __reduce__(self) -> tuple:
        return type(self), (self.k,)

    def root(self, psi: np.ndarray, order: int = 0) -> Jet:
        psi = np.asarray(psi, dtype=np.float64)
        s, c = np.sin(psi), np.cos(psi)
        if order == 0:
            return chain_root(Jet(s), Jet(c), 0)
        q = self.n_psi
        eye = np.eye(q)
        if order == 1:
            return chain_root(Jet(s, np.diag(c)), Jet(c, np.diag(-s)), 1)
        cube = eye[:, :, None] * eye[:, None, :]
        return chain_root(Jet(s, np.diag(c), -cube * s), Jet(c, np.diag(-s), -cube * c), 2)

    def natural(self, psi: np.ndarray) -> NaturalBlock:
        names = tuple(f"cor{i}" for i in range(1, self.k))
        return NaturalBlock(names, np.sin(psi), np.diag(np.cos(psi)), ("cor",) * self.n_psi)

    def natural_curvature(self, psi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.diag(-weights * np.sin(psi))

    def from_natural(self, values: np.ndarray) -> np.ndarray:
        return np.array([_angle(float(v), "a correlation of neighbours") for v in values])

    def near(self, R: np.ndarray) -> np.ndarray:
        return np.arcsin(np.clip(np.diagonal(R, 1), -1.0, 1.0))
