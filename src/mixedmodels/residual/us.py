"""General correlation between visits, with or without variances by visit."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.residual.data import Levels, ResidualData
from mixedmodels.residual.structure import FARTHEST_Z, BoundCorrelation, Structure
from mixedmodels.residual.table import TableCorrelation
from mixedmodels.residual.varident import VarIdent
from mixedmodels.residual.visits import VisitCorrelation, used_visits, visit_features

__all__ = ["BoundGeneral", "GeneralCorrelation", "Unstructured"]


class GeneralCorrelation(VisitCorrelation):
    r"""A correlation of its own for each pair of visits: ``corr(visit | group)``.

    C = LL', where row i of the lower triangular L has the entries
    :math:`L_{ij} = \tanh\phi_{ij} \prod_{k<j} \mathrm{sech}\,\phi_{ik}`, so phi are Fisher's z of partial
    correlations: unbounded and smooth, 0 for independence.

    Parameters
    ----------
    visit : str
        A factor (or numbers taken as one); its levels are the visits. Groups may miss visits.
    group : str or None
    by : str, optional
        A factor whose levels have correlations of their own.
    **fixed : float
        ``**{"cor[1,2]": 0.5, ...}`` holds correlations; all of them or none.

    References
    ----------
    Pinheiro and Bates (1996), Unconstrained parametrizations for variance-covariance matrices, Statistics and
    Computing 6, 289-296; Lewandowski, Kurowicka and Joe (2009), Journal of Multivariate Analysis 100,
    1989-2001 (partial correlations).
    """

    tag = "corr"

    def bind_visits(self, codes: np.ndarray, visits: Levels) -> BoundCorrelation:
        """The correlation of rows in groups `codes` at `visits`."""
        own, names = used_visits(visits)
        return BoundGeneral(self, codes, own, names)


class Unstructured(GeneralCorrelation):
    r"""A general covariance between visits: ``us(visit | group)``, as in SAS and mmrm.

    The correlations of `GeneralCorrelation` and a standard deviation for each visit (and stratum), relative
    to that of the first: ``us(visit | subject, by=arm)`` is ``corr(visit | subject, by=arm) *
    varident(visit:arm)``.

    Parameters
    ----------
    visit : str
    group : str or None
    by : str, optional
        A factor whose levels have covariances of their own.
    """

    tag = "us"

    def companions(self) -> tuple[Structure, ...]:
        """Variances by visit and stratum."""
        visit = self.covariates[0]
        return (VarIdent(visit if self.by is None else f"{visit}:{self.by}"),)

    def needs(self) -> tuple:
        """Visits, groups, strata and their combinations."""
        return tuple(dict.fromkeys((*super().needs(), *self.companions()[0].needs())))


class BoundGeneral(TableCorrelation):
    """A general correlation with its data."""

    farthest = FARTHEST_Z

    def __init__(
        self, structure: GeneralCorrelation, codes: np.ndarray, visits: np.ndarray, labels: tuple[str, ...]
    ) -> None:
        self._structure, self._labels = structure, labels
        V = self._V = self.n_visits = len(labels)
        self._rows, self._columns = np.tril_indices(V, -1)
        self.n_phi = self._rows.shape[0]
        pairs = [(labels[j], labels[i]) for i, j in zip(self._rows, self._columns, strict=True)]
        self.names = tuple(f"z[{a},{b}]" for a, b in pairs)
        self.natural_names = tuple(f"cor[{a},{b}]" for a, b in pairs)
        self.kinds = ("correlation",) * self.n_phi
        self.start = np.zeros(self.n_phi)
        self._kept: tuple[bytes, tuple[np.ndarray, ...]] | None = None
        super().__init__(codes, visits[:, None].astype(np.float64), sort=True, relative=False)
        self._refuse_unseen_pairs()
        within = "" if structure.group is None else f" within {structure.group}"
        self.meaning = f"general correlation between levels of {structure.covariates[0]}{within}"

    def _refuse_unseen_pairs(self) -> None:
        seen = np.zeros((self._V, self._V), dtype=bool)
        keys = self._order.keys.astype(np.intp)
        seen[keys // self._V, keys % self._V] = True
        missing = np.flatnonzero(~seen[self._rows, self._columns])
        if missing.size:
            i, j = self._rows[missing[0]], self._columns[missing[0]]
            more = f" ({missing.size} such pairs)" if missing.size > 1 else ""
            raise DataError(
                f"{self._structure}: no group has both {self._labels[j]!r} and {self._labels[i]!r} of "
                f"{self._structure.covariates[0]}{more}, so their correlation cannot be estimated; "
                "merge visits "
                "or take a structure with fewer parameters (toep, ar1, car1, cs)"
            )

    # --- the factor -------------------------------------------------------------------------------------

    def _factor(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """tanh and sech of phi in a square, and L."""
        V = self._V
        t, s = np.zeros((V, V)), np.ones((V, V))
        t[self._rows, self._columns] = np.tanh(phi)
        s[self._rows, self._columns] = 1.0 / np.cosh(phi)
        before = np.ones((V, V))
        before[:, 1:] = np.cumprod(s, axis=1)[:, :-1]
        L = before * t
        L[np.arange(V), np.arange(V)] = np.diagonal(before)
        return t, s, np.tril(L)

    def _row_first(self, t: np.ndarray, s: np.ndarray, L: np.ndarray, i: int, k: int) -> np.ndarray:
        """Derivative of row i of L in phi_ik."""
        out = np.zeros(self._V)
        out[k + 1 : i + 1] = -t[i, k] * L[i, k + 1 : i + 1]
        out[k] = np.prod(s[i, :k]) * s[i, k] ** 2
        return out

    def _row_second(self, t: np.ndarray, s: np.ndarray, L: np.ndarray, i: int, k: int, m: int) -> np.ndarray:
        """Second derivative of row i of L in phi_ik and phi_im, k <= m."""
        out = np.zeros(self._V)
        if k == m:
            slope = np.prod(s[i, :k]) * s[i, k] ** 2
            out[k] = -2.0 * t[i, k] * slope
            out[k + 1 : i + 1] = (t[i, k] ** 2 - s[i, k] ** 2) * L[i, k + 1 : i + 1]
        else:
            out[m] = -t[i, k] * np.prod(s[i, :m]) * s[i, m] ** 2
            out[m + 1 : i + 1] = t[i, k] * t[i, m] * L[i, m + 1 : i + 1]
        return out

    def _context(self, phi: np.ndarray) -> tuple[np.ndarray, ...]:
        """tanh, sech, L, and the only row of each dL that is not zero, (n_phi, V); remembered for one phi."""
        stamp = phi.tobytes()
        if self._kept is None or self._kept[0] != stamp:
            t, s, L = self._factor(phi)
            pairs = zip(self._rows.tolist(), self._columns.tolist(), strict=True)
            rows = [self._row_first(t, s, L, i, k) for i, k in pairs]
            self._kept = (stamp, (t, s, L, np.array(rows).reshape(self.n_phi, self._V)))
        return self._kept[1]

    def _matrix(self, phi: np.ndarray) -> np.ndarray:
        L = self._context(phi)[2]
        return L @ L.T

    def _derivatives(self, phi: np.ndarray) -> np.ndarray:
        """dC for every parameter, shape (n_phi, V, V)."""
        _, _, L, rows = self._context(phi)
        out = np.zeros((self.n_phi, self._V, self._V))
        changed = rows @ L.T
        every = np.arange(self.n_phi)
        out[every, self._rows] += changed
        out[every, :, self._rows] += changed
        return out

    # --- the table --------------------------------------------------------------------------------------

    def key(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The pair of visits, as one number."""
        a, b = a[..., 0], b[..., 0]
        return np.maximum(a, b) * self._V + np.minimum(a, b)

    def _places(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = keys.astype(np.intp)
        return whole // self._V, whole % self._V

    def table(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Entries of C."""
        return self._matrix(phi)[self._places(keys)]

    def table_first(self, phi: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Derivatives of the entries."""
        a, b = self._places(keys)
        return self._derivatives(phi)[:, a, b]

    def table_second(self, phi: np.ndarray, keys: np.ndarray, i: int, j: int) -> np.ndarray:
        """Second derivatives of the entries: ``d2L L' + dL_i dL_j'`` and its transpose."""
        t, s, L, rows = self._context(phi)
        r, q = int(self._rows[i]), int(self._rows[j])
        k, m = int(self._columns[i]), int(self._columns[j])
        out = np.zeros((self._V, self._V))
        product = float(rows[i] @ rows[j])
        out[r, q] += product
        out[q, r] += product
        if r == q:
            row = L @ self._row_second(t, s, L, r, min(k, m), max(k, m))
            out[r] += row
            out[:, r] += row
        return out[self._places(keys)]

    def natural(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The correlations."""
        C = self._matrix(phi)
        return C[self._rows, self._columns], self._derivatives(phi)[:, self._rows, self._columns].T

    def natural_curvature(self, phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted second derivatives of the correlations: of ``tr(W L L')``."""
        t, s, L, rows = self._context(phi)
        W = np.zeros((self._V, self._V))
        W[self._rows, self._columns] = W[self._columns, self._rows] = 0.5 * weights
        out = 2.0 * W[np.ix_(self._rows, self._rows)] * (rows @ rows.T)
        WL = W @ L
        for i, (r, k) in enumerate(zip(self._rows.tolist(), self._columns.tolist(), strict=True)):
            for m in range(k + 1):  # parameters of one row follow each other
                j = i - k + m
                bend = 2.0 * float(WL[r] @ self._row_second(t, s, L, r, m, k))
                out[i, j] += bend
                out[j, i] += bend if j != i else 0.0
        return out

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Fisher's z of partial correlations, from the Cholesky factor."""
        C = np.eye(self._V)
        C[self._rows, self._columns] = C[self._columns, self._rows] = values
        try:
            L = np.linalg.cholesky(C)
        except np.linalg.LinAlgError:
            raise FloatingPointError(
                "these correlations are not those of a positive definite matrix"
            ) from None
        square = np.cumsum(L * L, axis=1)
        left = np.ones_like(L)
        left[:, 1:] = np.sqrt(np.maximum(1.0 - square[:, :-1], np.finfo(float).tiny))
        return np.arctanh((L / left)[self._rows, self._columns])

    def new_features(self, data: ResidualData) -> np.ndarray:
        """Visits of new rows."""
        return visit_features(self._structure, data, self._labels)
