"""First-order autoregression in integer time."""

from __future__ import annotations

import numpy as np

from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.markov import MarkovOrder, MarkovPoint
from mixedmodels.residual.structure import FARTHEST_Z, BoundCorrelation, CorrelationStructure
from mixedmodels.residual.times import (
    check_distinct,
    check_pairs,
    integer_times,
    new_integer_times,
    row_places,
)

__all__ = ["AR1"]

# Derivatives of Fisher's z in phi where all gaps are one: z is phi.
_LINEAR = np.ones((1, 1)), np.zeros((1, 1, 1))


class AR1(CorrelationStructure):
    r"""First-order autoregression: ``ar1(time | group)``.

    .. math:: \mathrm{Corr}(e_s, e_t) = \rho^{|t - s|}, \qquad -1 < \rho < 1,

    for integer times; gaps are allowed. ``ar1(1 | group)`` takes the rows of each group in their order. All
    operations are linear in the number of rows.

    Parameters
    ----------
    time : str or None
        Integer times; None for the order of the rows.
    group : str or None
        None for one series.
    by : str, optional
        A factor whose levels have a rho of their own.
    rho : float, optional
        Holds rho at this value.

    References
    ----------
    Pinheiro and Bates (2000), Mixed-Effects Models in S and S-PLUS, section 5.3.1.

    Examples
    --------
    >>> from mixedmodels.residual import AR1
    >>> str(AR1("time", "subject", rho=0.5))
    'ar1(time | subject, rho=0.5)'
    """

    tag = "ar1"

    def __init__(
        self, time: str | None = None, group: str | None = None, *, by: str | None = None, **fixed: float
    ) -> None:
        super().__init__(() if time is None else (time,), group, by, fixed)

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The correlation of the rows of `data`."""
        check_pairs(codes, labels, self)
        times = None
        if self.covariates:
            times = integer_times(
                data.number(self.covariates[0], "ar1()"), self.covariates[0], "ar1", data,
                f"car1({self.covariates[0]} | {self.group or 1}) is the same process in continuous time",
            )  # fmt: skip
        bound = _BoundAR1(self, codes, times)
        if times is not None and bound._order.repeats:
            check_distinct(codes, times, labels, self, data)
        return bound


class _BoundAR1(BoundCorrelation):
    """AR(1) with its data; phi = atanh(rho)."""

    farthest = FARTHEST_Z

    n_phi = 1
    names = ("atanh(rho)",)
    natural_names = ("rho",)
    kinds = ("correlation",)

    def __init__(self, structure: AR1, codes: np.ndarray, times: np.ndarray | None) -> None:
        self.n = codes.shape[0]
        self._structure = structure
        self._order = MarkovOrder(codes, times)
        if times is None:
            times = row_places(codes)
        self._gaps, self._which = self._order.distinct_gaps()
        self._unit = self._gaps.shape[0] == 1 and float(self._gaps[0]) == 1.0
        self.markov = (self._order, self._which)
        self.features = times[:, None]
        self.start = np.zeros(1)
        over = f" over {structure.covariates[0]}" if structure.covariates else " in the order of the rows"
        within = "" if structure.group is None else f" within {structure.group}"
        self.meaning = f"AR(1){over}{within}"

    def at(self, phi: np.ndarray) -> MarkovPoint:
        """Operations at phi."""
        return MarkovPoint(self._order, self._which, *self.neighbours(phi))

    def neighbours(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fisher's z of each gap with its derivatives."""
        g = self._gaps
        if self._unit:
            return phi, *_LINEAR
        rho = float(np.tanh(phi[0]))
        slope = 1.0 - rho * rho  # d rho / d phi
        c = rho**g
        first = g * rho ** (g - 1.0) * slope
        second = g * (g - 1.0) * rho ** np.maximum(g - 2.0, 0.0) * slope**2 - 2.0 * rho * first
        inner = (1.0 - c) * (1.0 + c)
        z1 = first / inner
        z2 = second / inner + 2.0 * c * z1 * z1
        z = np.where(g == 1.0, phi[0], np.arctanh(c))
        z1, z2 = np.where(g == 1.0, 1.0, z1), np.where(g == 1.0, 0.0, z2)
        return z, z1[None, :], z2[None, None, :]

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """rho."""
        rho = np.tanh(phi)
        return rho, (1.0 - rho * rho)[:, None]

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of tanh."""
        rho = np.tanh(phi)
        return np.diag(-2.0 * weights * rho * (1.0 - rho * rho))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Fisher's z."""
        if not abs(values[0]) < 1.0:
            raise FloatingPointError(f"rho must lie between -1 and 1, got {values[0]:g}")
        return np.arctanh(values)

    def correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``rho^gap``."""
        return np.tanh(phi[0]) ** np.abs(a[:, 0] - b[:, 0])

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Times of new rows."""
        return new_integer_times(self._structure, data)
