r"""How the conditional modes move with the parameters, and how far the random effects are from them.

With :math:`F(u;\psi) = -\sum_i \ell_i + \tfrac12 u'Pu`, its minimum :math:`\hat u(\psi)` and
:math:`H = F_{uu}`,

.. math:: \hat u_a = -H^{-1}F_{ua}, \qquad \hat b_a = \Lambda\hat u_a + \Lambda_a\hat u, \qquad
          Var(b \mid y, \psi) \approx \Lambda H^{-1}\Lambda' .

Given estimates with covariance V these make the error of a linear predictor :math:`\eta = x'\gamma + z'b`,

.. math:: Var(\hat\eta - \eta) = z'\Lambda H^{-1}\Lambda'z + J V J', \qquad
          J = \partial(x'\gamma + z'\hat b(\psi)) / \partial\psi,

the inverse of the joint precision of (psi, u) (Kass & Steffey 1989, JASA 84:717-726; Skaug & Fournier 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.blocked import BlockedLaplace
from mixedmodels.objective.marginal.blocks import Blocks
from mixedmodels.objective.marginal.laplace import symmetrised

__all__ = ["ModeErrors"]

_PANEL = 4_000_000  # numbers in a panel of columns of the inverse

Rows = Sequence["tuple[np.ndarray, np.ndarray | None] | None"]


class ModeErrors:
    """The geometry of the random effects at given parameters, for any number of grouping factors.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    gamma : ndarray
    factors : sequence of (k, k)
    u : sequence of (m, k), optional
        Spherical modes, or values near them, to begin from.

    Raises
    ------
    Breakdown
        There is no proper mode at these parameters.
    """

    def __init__(
        self,
        design: GeneralisedDesign,
        family: Family,
        gamma: np.ndarray,
        factors: Sequence[np.ndarray],
        u: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.design, self.family = design, family
        self.engine: Any = self._engine()
        if u is not None:
            self.engine.begin(u)
        self.move(gamma, factors)

    def _engine(self) -> Any:
        """Where the modes are found."""
        return BlockedLaplace(self.design, self.family)

    def move(self, gamma: np.ndarray, factors: Sequence[np.ndarray]) -> None:
        """Go to other parameters."""
        self.state = self.engine._mode(
            np.ascontiguousarray(gamma, dtype=float), [np.asarray(factor, dtype=float) for factor in factors]
        )
        self._blocks: Blocks | None = None

    @property
    def b(self) -> tuple[np.ndarray, ...]:
        """Conditional modes by term, (m, k) each."""
        return self.engine.layout.of_terms(self.state.b)

    def moves(self) -> tuple[np.ndarray, ...]:
        """Derivatives of the modes of each term, (m, k, P), by gamma and the entries of the factors."""
        engine, state = self.engine, self.state
        layout, act, p = engine.layout, engine._active, engine.n_gamma
        C = state.eta.shape[0]
        P = p + len(layout.entries)
        table = self.family.derivatives(self.design.data, list(state.eta), 2, range(C))
        f1, f2 = table[1 : 1 + C], symmetrised(table, C, 2)
        score = layout.sums(f1[act])
        Fu = engine._zeros(P)

        def add(a: int, c: int, column: np.ndarray) -> None:
            moved = np.ascontiguousarray(f2[act, c] * column)
            for f, part in enumerate(layout.sums(moved)):
                Fu[f][:, :, a] -= part @ state.Lambda[f]

        for c, (predictor, X) in enumerate(zip(self.design.predictors, engine._X, strict=True)):
            for j, a in enumerate(predictor.columns.tolist()):
                add(a, c, X[:, j])
        for a, (f, i, j) in enumerate(layout.entries, p):
            add(a, act[layout.predictors[f][i]], layout.column(f, i, state.u[f][:, j]))
            Fu[f][:, j, a] -= score[f][:, i]
        out = [-(L @ part) for part, L in zip(layout.solve(Fu), state.Lambda, strict=True)]
        for a, (f, i, j) in enumerate(layout.entries, p):
            out[f][:, i, a] += state.u[f][:, j]
        return layout.of_terms(out)

    def covariances(self, rows: Rows) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` between all predictors of given rows, shape (C, C, rows).

        Parameters
        ----------
        rows : sequence of (codes, Z), or None for a term that has no part
            Level of each row in each term, -1 for none, and the values of its columns (None: ones).
        """
        engine, layout = self.engine, self.engine.layout
        A = len(engine._active)
        n = next(part[0].shape[0] for part in rows if part is not None)
        codes, Z = self._by_factor(rows, n)
        if self._blocks is None:
            self._blocks = engine._marginal(self.state)
        blocks = self._blocks
        found = np.zeros((A, A, n))
        for f, code in enumerate(codes):
            if code is not None:
                at = np.flatnonzero(code >= 0)
                self._add(found, f, f, at, blocks.diagonal[f][code[at]], Z)
        for p, known in zip(layout.pairs, blocks.pairs, strict=True):
            first, second = codes[p.f], codes[p.g]
            if first is None or second is None:
                continue
            at = np.flatnonzero((first >= 0) & (second >= 0))
            key = first[at].astype(np.int64) * layout.m[p.g] + second[at]
            stored = p.rows.astype(np.int64) * layout.m[p.g] + p.columns
            place = np.minimum(np.searchsorted(stored, key), max(len(stored) - 1, 0))
            seen = stored[place] == key if len(stored) else np.zeros(at.size, dtype=bool)
            self._add(found, p.f, p.g, at[seen], known[place[seen]], Z)
            rest = at[~seen]
            if rest.size:
                self._add(found, p.f, p.g, rest, self._unseen(p.f, p.g, first[rest], second[rest]), Z)
        C = self.state.eta.shape[0]
        out = np.zeros((C, C, n))
        out[np.ix_(engine._active, engine._active)] = found
        return out

    def _by_factor(self, rows: Rows, n: int) -> tuple[list[Any], list[np.ndarray]]:
        """Levels of the rows in each factor, or None, and the values of all its columns, (n, k)."""
        layout = self.engine.layout
        codes: list[Any] = [None] * len(layout.k)
        Z = [np.zeros((n, k)) for k in layout.k]
        for term, part, (f, at) in zip(self.design.terms, rows, layout.place, strict=True):
            if part is None:
                continue
            code, values = part
            codes[f] = code
            Z[f][:, at : at + term.k] = 1.0 if values is None else values
            Z[f][code < 0] = 0.0
        return codes, Z

    def _add(
        self, out: np.ndarray, f: int, g: int, at: np.ndarray, V: np.ndarray, Z: list[np.ndarray]
    ) -> None:
        """Add ``z_f'V z_g`` of the rows `at`, and its transpose for two factors."""
        layout = self.engine.layout
        for i, c in enumerate(layout.predictors[f].tolist()):
            for j, d in enumerate(layout.predictors[g].tolist()):
                part = Z[f][at, i] * V[:, i, j] * Z[g][at, j]
                out[c, d, at] += part
                if f != g:
                    out[d, c, at] += part

    def _unseen(self, f: int, g: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Blocks of ``Lambda H^{-1} Lambda'`` of pairs of levels that no row of the data has."""
        engine, layout = self.engine, self.engine.layout
        kf, kg = layout.k[f], layout.k[g]
        out = np.empty((first.size, kf, kg))
        if np.unique(first).size > np.unique(second).size:
            return np.swapaxes(self._unseen(g, f, second, first), 1, 2)
        levels, place = np.unique(first, return_inverse=True)
        place = place.reshape(-1)
        size = sum(m * k for m, k in zip(layout.m, layout.k, strict=True))
        step = max(1, _PANEL // (size * kf))
        for start in range(0, levels.size, step):
            own = levels[start : start + step]
            unit = engine._zeros(own.size * kf)
            columns = np.arange(own.size * kf).reshape(own.size, kf)
            # columns of Lambda' e: the rows of Lambda
            unit[f][own[:, None], :, columns] = self.state.Lambda[f][None]
            solved = layout.solve(unit)[g]  # (m_g, kg, columns)
            at = np.flatnonzero((place >= start) & (place < start + own.size))
            part = solved[second[at]][np.arange(at.size)[:, None], :, columns[place[at] - start]]
            out[at] = part @ self.state.Lambda[g].T
        return out

    def precision(self) -> Any:
        """H as a sparse matrix (`scipy.sparse.csc_array`) in the order of `split`."""
        from scipy import sparse

        layout, H = self.engine.layout, self.state.H
        parts: list[list[Any]] = [[None] * len(layout.k) for _ in layout.k]
        for f, (m, k) in enumerate(zip(layout.m, layout.k, strict=True)):
            own = sparse.bsr_array(
                (H.diagonal[f], np.arange(m), np.arange(m + 1)), shape=(m * k, m * k)
            ).tocsc()
            P = layout.precision[f]
            penalty = sparse.eye_array(m * k) if P is None else sparse.kron(P.matrix, sparse.eye_array(k))
            parts[f][f] = own + penalty
        for p, pair in zip(layout.pairs, H.pairs, strict=True):
            shape = (layout.m[p.f] * layout.k[p.f], layout.m[p.g] * layout.k[p.g])
            parts[p.f][p.g] = sparse.bsr_array((pair, p.columns, p.indptr), shape=shape)
            parts[p.g][p.f] = parts[p.f][p.g].T
        return sparse.csc_array(sparse.block_array(parts, format="csc"))

    def split(self, u: np.ndarray) -> tuple[np.ndarray, ...]:
        """``Lambda u`` by term, (m, k, c) each, of values in the order of `precision`, (q, c)."""
        layout, at, out = self.engine.layout, 0, []
        for m, k, L in zip(layout.m, layout.k, self.state.Lambda, strict=True):
            out.append(L @ u[at : at + m * k].reshape(m, k, -1))
            at += m * k
        return self.engine.layout.of_terms(out)
