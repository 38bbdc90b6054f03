"""Antedependence: a correlation of its own for each pair of neighbouring visits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import Levels, ResidualData
from mixedmodels.residual.jets import Jet, constant, parameters
from mixedmodels.residual.markov import MarkovOrder, MarkovPoint
from mixedmodels.residual.structure import FARTHEST_Z, BoundCorrelation
from mixedmodels.residual.visits import VisitCorrelation, used_visits, visit_features

__all__ = ["Antedependence"]


class Antedependence(VisitCorrelation):
    r"""First-order antedependence: ``ad(visit | group)``.

    .. math:: \mathrm{Corr}(e_s, e_t) = \prod_{v=s}^{t-1} \rho_v, \qquad s < t,

    with one correlation for each step from a visit to the next. All operations are linear in the number of
    rows. With variances by visit: ``ad(visit | group) * varident(visit)``.

    Parameters
    ----------
    visit : str
        A factor (or numbers taken as one); its levels are in order.
    group : str or None
    by : str, optional
        A factor whose levels have correlations of their own.
    **fixed : float
        Held correlations by natural name, ``**{"cor[1,2]": 0.5}``.

    References
    ----------
    Gabriel (1962), Annals of Mathematical Statistics 33, 201-212.
    """

    tag = "ad"

    def bind_visits(self, codes: np.ndarray, visits: Levels) -> BoundCorrelation:
        """The correlation of rows in groups `codes` at `visits`."""
        return _BoundAD(self, codes, visits)


class _BoundAD(BoundCorrelation):
    """Antedependence with its data; phi are Fisher's z of the steps."""

    farthest = FARTHEST_Z

    def __init__(self, structure: Antedependence, codes: np.ndarray, levels: Levels) -> None:
        self.n = codes.shape[0]
        self._structure = structure
        # levels that do not occur (in this stratum) are no steps
        visits, labels = used_visits(levels)
        self._labels = labels
        self._order = MarkovOrder(codes, visits.astype(np.float64))
        in_order = self._order.take(visits)
        later = self._order.later
        steps = len(labels) - 1
        pairs = in_order[later - 1] * len(labels) + in_order[later]
        distinct, self._which = np.unique(pairs, return_inverse=True)
        self.markov = (self._order, self._which)
        self._from, self._to = distinct // len(labels), distinct % len(labels)
        covered = np.zeros(steps, dtype=bool)
        for a, b in zip(self._from.tolist(), self._to.tolist(), strict=True):
            covered[a:b] = True
        if steps == 0 or not covered.all():
            at = int(np.flatnonzero(~covered)[0]) if steps else 0
            where = f"both before and after {labels[at]!r}" if steps else "two visits"
            raise DataError(
                f"{structure}: no group was seen {where} of {structure.covariates[0]}, so a "
                "correlation cannot "
                "be estimated; merge visits or take a structure with fewer parameters (ar1, cs)"
            )
        self.n_phi = steps
        between = [f"{a},{b}" for a, b in pairwise(labels)]
        self.names = tuple(f"z[{pair}]" for pair in between)
        self.natural_names = tuple(f"cor[{pair}]" for pair in between)
        self.kinds = ("correlation",) * steps
        self.start = np.zeros(steps)
        self.features = visits[:, None].astype(np.float64)
        within = "" if structure.group is None else f" within {structure.group}"
        self.meaning = f"antedependence over {structure.covariates[0]}{within}"

    def at(self, phi: np.ndarray) -> MarkovPoint:
        """Operations at phi."""
        return MarkovPoint(self._order, self._which, *self.neighbours(phi))

    def neighbours(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fisher's z of each pair of neighbouring visits with its derivatives."""
        k, m = self.n_phi, self._from.shape[0]
        t = parameters(phi).tanh()
        product = constant(np.ones(m), k)
        for v in range(k):
            inside = ((self._from <= v) & (v < self._to)).astype(np.float64)
            one = t[v]
            factor = Jet(
                np.where(inside > 0.0, one.value, 1.0),
                one.first[:, None] * inside,
                one.second[:, :, None] * inside,
            )
            product = product * factor
        z = product.arctanh()
        single = self._to - self._from == 1
        value = np.where(single, phi[self._from], z.value)
        return value, z.first, z.second

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlations of neighbouring visits."""
        rho = np.tanh(phi)
        return rho, np.diag(1.0 - rho * rho)

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of tanh."""
        rho = np.tanh(phi)
        return np.diag(-2.0 * weights * rho * (1.0 - rho * rho))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Fisher's z."""
        if not np.all(np.abs(values) < 1.0):
            raise FloatingPointError("correlations must lie between -1 and 1")
        return np.arctanh(values)

    def correlate(self, phi: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Products of the steps between two visits."""
        V = self.n_phi + 1
        C = np.eye(V)
        rho = np.tanh(phi)
        for s in range(V - 1):
            C[s, s + 1 :] = C[s + 1 :, s] = np.cumprod(rho[s:])
        return C[a[:, 0].astype(np.intp), b[:, 0].astype(np.intp)]

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Visits of new rows."""
        return visit_features(self._structure, data, self._labels)
