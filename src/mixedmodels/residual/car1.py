"""First-order autoregression in continuous time."""

from __future__ import annotations

import numpy as np

from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.markov import MarkovOrder, MarkovPoint
from mixedmodels.residual.structure import BoundCorrelation, CorrelationStructure, Structure
from mixedmodels.residual.times import check_distinct, check_pairs

__all__ = ["CAR1", "BoundDecay"]


class CAR1(CorrelationStructure):
    r"""First-order autoregression in continuous time: ``car1(time | group)``.

    .. math:: \mathrm{Corr}(e_s, e_t) = \rho^{|t - s|}, \qquad 0 < \rho < 1,

    for times of any kind; rho is the correlation one unit of time apart. All operations are linear in the
    number of rows. The coordinate is :math:`\log(-1/\log\rho)`, the logarithm of the range.

    Parameters
    ----------
    time : str
    group : str or None
    by : str, optional
        A factor whose levels have a rho of their own.
    rho : float, optional
        Holds rho at this value.

    References
    ----------
    Jones (1993), Longitudinal Data with Serial Correlation; Pinheiro and Bates (2000), section 5.3.1.
    """

    tag = "car1"

    def __init__(self, time: str, group: str | None = None, *, by: str | None = None, **fixed: float) -> None:
        super().__init__((time,), group, by, fixed)

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The correlation of the rows of `data`."""
        check_pairs(codes, labels, self)
        times = data.number(self.covariates[0], "car1()")
        order = MarkovOrder(codes, times)
        if order.repeats:
            check_distinct(codes, times, labels, self, data)
        within = "" if self.group is None else f" within {self.group}"
        meaning = f"continuous AR(1) over {self.covariates[0]}{within}"
        return BoundDecay(self, codes, times, "rho", meaning, order)


class BoundDecay(BoundCorrelation):
    """``exp(-|t - s| / range)`` with its data; phi = log(range), reported as the range or as rho.

    Parameters
    ----------
    structure : Structure
    codes : ndarray of intp, shape (n,)
    times : ndarray of float64, shape (n,)
    report : {"rho", "range"}
    meaning : str
    order : MarkovOrder, optional
        That of the rows, if it is known.
    """

    n_phi = 1
    names = ("log(range)",)

    def __init__(
        self,
        structure: Structure,
        codes: np.ndarray,
        times: np.ndarray,
        report: str,
        meaning: str,
        order: MarkovOrder | None = None,
    ) -> None:
        self.n = codes.shape[0]
        self._structure, self._report = structure, report
        self._order = MarkovOrder(codes, times) if order is None else order
        self._gaps, self._which = self._order.distinct_gaps()
        self.markov = (self._order, self._which)
        typical = self._order.median_gap() if self._gaps.size else 1.0
        self.start = np.array([np.log(typical / np.log(5.0))])  # correlation 0.2 at the usual gap
        self.natural_names = (report,)
        self.kinds = ("correlation" if report == "rho" else "range",)
        self.features = times[:, None]
        self.meaning = meaning

    def at(self, phi: np.ndarray) -> MarkovPoint:
        """Operations at phi."""
        return MarkovPoint(self._order, self._which, *self.neighbours(phi))

    def neighbours(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fisher's z of each gap with its derivatives."""
        u = self._gaps * np.exp(-phi[0])
        c = np.exp(-u)
        inner = -np.expm1(-2.0 * u)  # 1 - c^2
        z = 0.5 * np.log((1.0 + c) / -np.expm1(-u))
        z1 = c * u / inner
        z2 = c * u * (u - 1.0) / inner + 2.0 * c * z1 * z1
        return z, z1[None, :], z2[None, None, :]

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The range, or the correlation one unit apart."""
        reach = np.exp(phi)
        if self._report == "range":
            return reach, reach[:, None]
        rho = np.exp(-1.0 / reach)
        return rho, (rho / reach)[:, None]

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivative of the range or correlation."""
        reach = float(np.exp(phi[0]))
        bend = reach if self._report == "range" else np.exp(-1.0 / reach) * (1.0 / reach - 1.0) / reach
        return np.array([[weights[0] * bend]])

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Logarithm of the range."""
        if self._report == "range":
            if not values[0] > 0.0:
                raise FloatingPointError(f"the range must be positive, got {values[0]:g}")
            return np.log(values)
        if not 0.0 < values[0] < 1.0:
            raise FloatingPointError(f"rho must lie between 0 and 1, got {values[0]:g}")
        return -np.log(-np.log(values))

    def correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``exp(-gap / range)``."""
        return np.exp(-np.abs(a[:, 0] - b[:, 0]) * np.exp(-phi[0]))

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Times of new rows."""
        name = self._structure.covariates[0]  # type: ignore[attr-defined]
        return data.number(name, f"{self._structure.tag}()")[:, None]
