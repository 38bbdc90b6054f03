"""Compound symmetry: one correlation between all rows of a group."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.exchangeable import ExchangeableOrder, ExchangeablePoint
from mixedmodels.residual.structure import BoundCorrelation, CorrelationStructure

__all__ = ["CompoundSymmetry"]


class CompoundSymmetry(CorrelationStructure):
    r"""Compound symmetry: ``cs(1 | group)``.

    .. math:: \mathrm{Corr}(e_s, e_t) = \rho, \qquad -1 / (T - 1) < \rho < 1,

    with T the size of the largest group. With variances by visit: ``cs(1 | group) * varident(visit)``.

    Parameters
    ----------
    group : str or None
    by : str, optional
        A factor whose levels have a rho of their own.
    rho : float, optional
        Holds rho at this value.
    """

    tag = "cs"

    def __init__(self, group: str | None = None, *, by: str | None = None, **fixed: float) -> None:
        super().__init__((), group, by, fixed)

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The correlation of the rows of `data`."""
        largest = int(np.bincount(codes).max(initial=1))
        if largest < 2:
            raise DataError(
                f"{self}: no group has more than one row, so a correlation cannot be estimated; leave the "
                "structure out or name a coarser grouping factor"
            )
        return _BoundCS(self, codes, largest)


class _BoundCS(BoundCorrelation):
    """Compound symmetry with its data; ``rho = low + (1 - low) / (1 + exp(-phi))``."""

    n_phi = 1
    names = ("logit(rho)",)
    natural_names = ("rho",)
    kinds = ("correlation",)

    def __init__(self, structure: CompoundSymmetry, codes: np.ndarray, largest: int) -> None:
        self._low = -1.0 / (largest - 1)
        self.n = codes.shape[0]
        self.features = np.zeros((self.n, 1))
        self._order = ExchangeableOrder(codes)
        self.start = self.inverse(np.array([0.1]))
        within = "" if structure.group is None else f" within {structure.group}"
        self.meaning = f"compound symmetry{within}"

    def _rho(self, phi: np.ndarray) -> tuple[float, float, float]:
        p = 0.5 * (1.0 + float(np.tanh(0.5 * phi[0])))
        width = 1.0 - self._low
        slope = width * p * (1.0 - p)
        return self._low + width * p, slope, slope * (1.0 - 2.0 * p)

    def at(self, phi: np.ndarray) -> ExchangeablePoint:
        """Operations at phi."""
        return ExchangeablePoint(self._order, *self._rho(phi))

    def correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The same correlation for all pairs."""
        return np.full(a.shape[0], self._rho(phi)[0])

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """rho."""
        rho, slope, _ = self._rho(phi)
        return np.array([rho]), np.array([[slope]])

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivative of rho."""
        return np.array([[weights[0] * self._rho(phi)[2]]])

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Logit of the place between the smallest possible rho and 1."""
        p = (values[0] - self._low) / (1.0 - self._low)
        if not 0.0 < p < 1.0:
            raise FloatingPointError(f"rho must lie between {self._low:g} and 1, got {values[0]:g}")
        return np.array([np.log(p / (1.0 - p))])

    def new_features(self, data: ResidualData) -> np.ndarray:
        """There is nothing to know of a row."""
        return np.zeros((data.n, 1))
