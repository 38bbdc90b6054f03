"""Autoregressive moving-average processes in integer time."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedmodels.errors import DataError, OptionError
from mixedmodels.residual.autoregression import (
    arma_autocorrelations,
    coefficients_of_partial,
    filtered_covariance,
    partial_of_coefficients,
    plain_autocorrelations,
)
from mixedmodels.residual.data import ResidualData
from mixedmodels.residual.jets import Jet, constant, parameters
from mixedmodels.residual.patterns import PatternOrder
from mixedmodels.residual.series import SeriesOrder, SeriesPoint
from mixedmodels.residual.structure import FARTHEST_Z, BoundCorrelation, CorrelationStructure
from mixedmodels.residual.table import TableCorrelation
from mixedmodels.residual.times import (
    check_distinct,
    check_pairs,
    integer_times,
    new_integer_times,
    row_places,
)

__all__ = ["ARMA"]


_PLAIN = 1000  # lags up to which plain numbers are faster than arrays
_LONG = 150  # rows of a series from which bands are faster than one dense factor per pattern


class ARMA(CorrelationStructure):
    r"""An autoregressive moving-average process: ``arma(time | group, p=1, q=1)``.

    .. math:: e_t = \sum_{i=1}^p a_i e_{t-i} + u_t + \sum_{j=1}^q b_j u_{t-j}

    for integer times; gaps are allowed. phi are Fisher's z of partial autocorrelations, so the process is
    stationary and invertible everywhere.

    Parameters
    ----------
    time : str or None
        Integer times; None for the order of the rows.
    group : str or None
    p, q : int
        Orders, not both 0.
    by : str, optional
        A factor whose levels have parameters of their own.
    **fixed : float
        ``ar1``, ..., ``ma1``, ...: held coefficients; all of them or none.

    References
    ----------
    Pinheiro and Bates (2000), section 5.3.1; Jones (1980), Technometrics 22, 389-395 (coordinates).

    Examples
    --------
    >>> from mixedmodels.residual import ARMA
    >>> str(ARMA("Time", "Mare", p=2, q=1))
    'arma(Time | Mare, p=2, q=1)'
    """

    tag = "arma"

    def __init__(
        self,
        time: str | None = None,
        group: str | None = None,
        *,
        p: int = 0,
        q: int = 0,
        by: str | None = None,
        **fixed: float,
    ) -> None:
        for name, order in (("p", p), ("q", q)):
            if isinstance(order, (str, bool)) or order is None or int(order) != order or order < 0:
                raise OptionError(f"arma(): {name} must be a whole number of at least 0, got {order!r}")
        if p + q < 1:
            raise OptionError("arma() needs p= or q= of at least 1, for instance arma(time | g, p=1, q=1)")
        self.p, self.q = int(p), int(q)
        super().__init__(() if time is None else (time,), group, by, fixed)

    def options_text(self) -> tuple[str, ...]:
        """Orders p and q, as they are written."""
        return (f"p={self.p}", f"q={self.q}")

    def bind_rows(
        self, data: ResidualData, codes: np.ndarray, labels: tuple[str, ...] | None
    ) -> BoundCorrelation:
        """The correlation of the rows of `data`."""
        check_pairs(codes, labels, self)
        if self.covariates:
            times = integer_times(
                data.number(self.covariates[0], "arma()"),
                self.covariates[0],
                "arma",
                data,
                "round the times, or take car1() or exp(), which know no steps of time",
            )
            check_distinct(codes, times, labels, self, data)
        else:
            times = row_places(codes)
        self._check_orders(codes, times)
        return _BoundARMA(self, codes, times)

    def _check_orders(self, codes: np.ndarray, times: np.ndarray) -> None:
        """Refuse orders that reach beyond the longest series."""
        last, first = np.full(codes.max() + 1, -np.inf), np.full(codes.max() + 1, np.inf)
        np.maximum.at(last, codes, times)
        np.minimum.at(first, codes, times)
        longest = int(np.max(last - first))
        if max(self.p, self.q) > longest:
            raise DataError(
                f"{self}: the longest series spans {longest} steps of time, so lags up to "
                f"{max(self.p, self.q)} cannot be seen; lower p= and q="
            )


class _BoundARMA(TableCorrelation):
    """An ARMA process with its data."""

    farthest = FARTHEST_Z

    def __init__(self, structure: ARMA, codes: np.ndarray, times: np.ndarray) -> None:
        self._structure = structure
        p, q = self._p, self._q = structure.p, structure.q
        self.n_phi = p + q
        self.names = (*(f"z.ar{i + 1}" for i in range(p)), *(f"z.ma{j + 1}" for j in range(q)))
        self.natural_names = (*(f"ar{i + 1}" for i in range(p)), *(f"ma{j + 1}" for j in range(q)))
        self.kinds = ("ar",) * p + ("ma",) * q
        # p = q with equal zero coefficients cancels: start a little off
        self.start = np.concatenate([np.full(min(p, 1), 0.3), np.zeros(p + q - min(p, 1))])
        self.features = times[:, None]
        self.n = codes.shape[0]
        self._diagonal = False
        self._series: SeriesOrder | None = None
        if int(np.bincount(codes).max(initial=0)) >= _LONG:
            series = SeriesOrder(codes, times)
            self._series = None if series.gaps else series
        if self._series is None:
            super().__init__(codes, times[:, None], sort=True, relative=True)
        self._kept: tuple[bytes, Jet] | None = None
        over = f" over {structure.covariates[0]}" if structure.covariates else " in the order of the rows"
        within = "" if structure.group is None else f" within {structure.group}"
        self.meaning = f"ARMA({p},{q}){over}{within}"

    def _coefficients(self, phi: np.ndarray) -> tuple[Jet, Jet]:
        t = parameters(phi).tanh()
        p, k = self._p, self.n_phi
        a = coefficients_of_partial(t[:p]) if p else constant(np.zeros(0), k)
        b = -coefficients_of_partial(-t[p:]) if self._q else constant(np.zeros(0), k)
        return a, b

    def _autocorrelations(self, phi: np.ndarray, largest: int) -> Jet:
        key = phi.tobytes()
        if self._kept is None or self._kept[0] != key or self._kept[1].value.shape[0] <= largest:
            self._kept = (key, arma_autocorrelations(*self._coefficients(phi), largest))
        return self._kept[1]

    @property
    def patterns(self) -> PatternOrder | None:
        """Patterns of the groups; None for long series without gaps."""
        return self._order if self._series is None else None

    def tables(self, phi: np.ndarray, keys: np.ndarray, derivatives: bool) -> tuple[np.ndarray, Any, Any]:
        """Autocorrelations; without derivatives in plain numbers."""
        lags = keys.astype(np.intp)
        largest = int(lags.max(initial=0))
        if derivatives or largest > _PLAIN:
            return super().tables(phi, keys, derivatives)
        t = np.tanh(phi).tolist()
        return plain_autocorrelations(t[: self._p], t[self._p :], largest)[lags], None, None

    def at(self, phi: np.ndarray) -> Any:
        """Operations at phi: by bands for long series without gaps, otherwise by pattern."""
        if self._series is None:
            return super().at(phi)
        a, b = self._coefficients(phi)
        n = self._series.longest
        gamma = arma_autocorrelations(a, b, n - 1)
        return SeriesPoint(self._series, a.value, gamma, filtered_covariance(a, b, n))

    def key(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Lag."""
        return np.abs(a[..., 0] - b[..., 0])

    def _at_lags(self, phi: np.ndarray, keys: np.ndarray) -> Jet:
        lags = keys.astype(np.intp)
        return self._autocorrelations(phi, int(lags.max(initial=0)))[lags]

    def table(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Autocorrelations."""
        return self._at_lags(phi, keys).value

    def table_first(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Their derivatives."""
        return self._at_lags(phi, keys).first

    def table_second(self, phi: np.ndarray, keys: np.ndarray, i: int, j: int) -> np.ndarray:
        """Their second derivatives."""
        lags = keys.astype(np.intp)
        return self._autocorrelations(phi, int(lags.max(initial=0))).second[i, j][lags]

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients."""
        a, b = self._coefficients(phi)
        return np.concatenate([a.value, b.value]), np.concatenate([a.first, b.first], axis=1).T

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of the coefficients."""
        a, b = self._coefficients(phi)
        return np.concatenate([a.second, b.second], axis=2) @ weights

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Fisher's z of partial autocorrelations."""
        a, b = values[: self._p], values[self._p :]
        return np.arctanh(np.concatenate([partial_of_coefficients(a), -partial_of_coefficients(-b)]))

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Times of new rows."""
        return new_integer_times(self._structure, data)
