"""`ModeErrors` of any design: where rows touch several levels of a term, by solves with the sparse factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixedmodels.design import GeneralisedDesign
from mixedmodels.family.base import Family
from mixedmodels.objective.marginal.mode_errors import ModeErrors, Rows
from mixedmodels.objective.marginal.sparse import SparseLaplace, needs_sparse

__all__ = ["SparseModeErrors", "mode_errors"]

_BATCH = 256


class SparseModeErrors(ModeErrors):
    """The geometry of the random effects for terms of any kind; parameters as for `ModeErrors`.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    gamma : ndarray
    factors : sequence of (k, k)
    u : sequence of (m, k), optional
    """

    def _engine(self) -> SparseLaplace:
        return SparseLaplace(self.design, self.family)

    def covariances(self, rows: Rows) -> np.ndarray:
        """``z'Lambda H^{-1} Lambda'z`` between all predictors of given rows, shape (C, C, rows).

        Parameters
        ----------
        rows : sequence of (codes, Z), or None for a term that has no part
            Codes have shape (n,) or (n, k), -1 for none.
        """
        from scipy import sparse

        n = next(part[0].shape[0] for part in rows if part is not None)
        terms: list[Any] = []
        for term, part in zip(self.design.terms, rows, strict=True):
            if part is None:
                terms.append(sparse.csr_array((n, term.m * term.k)))
            else:
                terms.append(replace(term, codes=part[0], Z=part[1], rows=None).matrix(n))
        C = self.state.eta.shape[0]
        out = np.zeros((C, C, n))
        owner = self.design.term_predictor
        for start in range(0, n, _BATCH):
            at = slice(start, min(start + _BATCH, n))
            halves = {}
            for c in self.design.active:
                own = [Z[at] * (1.0 if owner[t] == c else 0.0) for t, Z in enumerate(terms)]
                halves[c] = self.engine.layout.halves(self.state.Lambda, own)
            for c, x in halves.items():
                for d, y in halves.items():
                    out[c, d, at] = np.einsum("qi,qi->i", x, y)
        return out

    def precision(self) -> Any:
        """H as a sparse matrix (`scipy.sparse.csc_array`) in the order of `split`."""
        return self.engine.layout.matrix_of(self.state.H)


def mode_errors(
    design: GeneralisedDesign,
    family: Family,
    gamma: np.ndarray,
    factors: Sequence[np.ndarray],
    u: Sequence[np.ndarray] | None = None,
) -> ModeErrors:
    """`ModeErrors`, or `SparseModeErrors` where a row touches several levels of a term."""
    kind = SparseModeErrors if needs_sparse(design) else ModeErrors
    return kind(design, family, gamma, factors, u)
