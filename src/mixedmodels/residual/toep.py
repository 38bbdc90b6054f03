"""Toeplitz correlation: one correlation for each distance between visits."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.autoregression import toeplitz_of_partial
from mixedmodels.residual.data import Levels, ResidualData
from mixedmodels.residual.jets import Jet, parameters
from mixedmodels.residual.structure import FARTHEST_Z, BoundCorrelation
from mixedmodels.residual.table import TableCorrelation
from mixedmodels.residual.visits import VisitCorrelation, visit_features

__all__ = ["Toeplitz"]


class Toeplitz(VisitCorrelation):
    r"""A correlation for each number of visits apart: ``toep(visit | group)``.

    .. math:: \mathrm{Corr}(e_s, e_t) = \rho_{|t - s|}

    with the levels of `visit` taken as equally spaced. phi are Fisher's z of partial autocorrelations, which
    reach every positive definite Toeplitz matrix. With variances by visit:
    ``toep(visit | group) * varident(visit)``.

    Parameters
    ----------
    visit : str
        A factor (or numbers taken as one).
    group : str or None
    by : str, optional
        A factor whose levels have correlations of their own.
    **fixed : float
        ``rho1``, ``rho2``, ...: held correlations; all of them or none.
    """

    tag = "toep"

    def bind_visits(self, codes: np.ndarray, visits: Levels) -> BoundCorrelation:
        """The correlation of rows in groups `codes` at `visits`."""
        return _BoundToeplitz(self, codes, visits.codes, visits.labels)


class _BoundToeplitz(TableCorrelation):
    """A Toeplitz correlation with its data."""

    farthest = FARTHEST_Z

    def __init__(
        self, structure: Toeplitz, codes: np.ndarray, visits: np.ndarray, labels: tuple[str, ...]
    ) -> None:
        self._structure, self._labels = structure, labels
        super().__init__(codes, visits[:, None].astype(np.float64), sort=True, relative=True)
        lags = self._order.keys.astype(np.intp)
        m = int(lags.max(initial=0))
        absent = sorted(set(range(1, m + 1)) - set(lags.tolist()))
        if m == 0 or absent:
            what = "two visits" if m == 0 else f"visits that are {absent[0]} apart"
            raise DataError(
                f"{structure}: no group has {what}, so that correlation cannot be estimated; merge "
                "visits or take "
                "a structure with fewer parameters (ar1, car1, cs)"
            )
        self.n_phi = m
        self.names = tuple(f"z.rho{k + 1}" for k in range(m))
        self.natural_names = tuple(f"rho{k + 1}" for k in range(m))
        self.kinds = ("correlation",) * m
        self.start = np.zeros(m)
        self._kept: tuple[bytes, Jet] | None = None
        within = "" if structure.group is None else f" within {structure.group}"
        self.meaning = f"Toeplitz correlation over {structure.covariates[0]}{within}"

    def _rho(self, phi: np.ndarray) -> Jet:
        key = phi.tobytes()
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, toeplitz_of_partial(parameters(phi).tanh()))
        return self._kept[1]

    def key(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Visits apart."""
        return np.abs(a[..., 0] - b[..., 0])

    def table(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Correlations by lag."""
        lags = keys.astype(np.intp)
        return np.concatenate([[1.0], self._rho(phi).value])[lags]

    def table_first(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Their derivatives."""
        return self._rho(phi).first[:, keys.astype(np.intp) - 1]

    def table_second(self, phi: np.ndarray, keys: np.ndarray, i: int, j: int) -> np.ndarray:
        """Their second derivatives."""
        return self._rho(phi).second[i, j, keys.astype(np.intp) - 1]

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlations by lag."""
        rho = self._rho(np.array(phi))
        return rho.value, rho.first.T

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of the correlations by lag."""
        return self._rho(np.array(phi)).second @ weights

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Fisher's z of partial autocorrelations, by the Durbin-Levinson recursion."""
        rho = np.concatenate([[1.0], values])
        a = np.zeros(0)
        out = np.zeros(values.shape[0])
        left = 1.0
        for k in range(values.shape[0]):
            r = (rho[k + 1] - a @ rho[k:0:-1]) / left if k else rho[1]
            if not abs(r) < 1.0:
                raise FloatingPointError("these correlations are not those of a positive definite matrix")
            out[k] = r
            a = np.append(a - r * a[::-1], r)
            left *= 1.0 - r * r
        return np.arctanh(out)

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Visits of new rows."""
        return visit_features(self._structure, data, self._labels)
