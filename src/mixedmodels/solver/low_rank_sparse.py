r"""Terms whose levels have a covariance ``W W'`` beside other terms: the columns of W have the effects.

A term with effects :math:`b = (W \otimes I_k) a`, :math:`a_j \sim N(0, \sigma^2 \Sigma)` independent, is one
whose rows touch all r columns of W: :math:`Z b = Z (W \otimes I_k) a`. Likelihood, gradient and information
are the same; what concerns the levels follows from what concerns the columns.

Source: Habier, Fernando & Dekkers (2007), Genetics 177:2389-2397 (SNP-BLUP and GBLUP are one model).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.design import LowRankCovariance
from mixedmodels.solver import sparse_inference
from mixedmodels.solver.base import PredictorRows, Solution
from mixedmodels.solver.dense_inference import rows_matrix
from mixedmodels.solver.low_rank import is_low_rank_term
from mixedmodels.solver.sparse import SparseSolver
from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.design import Design, RandomTerm

__all__ = ["LowRankSparseSolver", "by_columns"]

_BATCH = 256


def _is_plain(term: RandomTerm) -> bool:
    """Whether a term is a random intercept."""
    return term.Z is None and not term.several_levels


def by_columns(term: RandomTerm, n: int) -> tuple[RandomTerm, Any]:
    """The term with effects of the columns of W, and ``W kron I_k``; itself and None if it has no low rank.

    Parameters
    ----------
    term : RandomTerm
    n : int
        Observations.

    Returns
    -------
    RandomTerm
        Its levels are the columns of W, its rows touch all of them.
    scipy.sparse.csr_array, shape (m k, r k), or None
    """
    from scipy import sparse

    if not is_low_rank_term(term):
        return term, None
    assert isinstance(term.precision, LowRankCovariance)
    W = term.precision.factor
    J = sparse.csr_array(sparse.kron(sparse.csr_array(W), sparse.eye_array(term.k), format="csr"))
    rows = sparse.csr_array(J[term.codes] if _is_plain(term) else term.matrix(n) @ J)
    codes = np.zeros((n, 0), dtype=np.int32)
    columns = replace(term, codes=codes, Z=None, levels=range(W.shape[1]), precision=None, rows=rows)
    return columns, J


class LowRankSparseSolver(SparseSolver):
    """Solver for any random terms of which some have a `LowRankCovariance` between their levels.

    Parameters
    ----------
    design : Design

    Examples
    --------
    >>> import numpy as np
    >>> from mixedmodels.covariance import make_covariance
    >>> from mixedmodels.design import Design, LowRankCovariance, RandomTerm
    >>> W = np.array([[1.0], [2.0], [0.0]])
    >>> levels = ("g", ("(Intercept)",), np.arange(3), "abc", None, make_covariance("us", 1))
    >>> term = RandomTerm(*levels, LowRankCovariance(W))
    >>> design = Design(np.array([1.0, 2.0, 4.0]), np.ones((3, 1)), ("(Intercept)",), (term,))
    >>> found = LowRankSparseSolver(design).solution([np.array([[1.0]])])
    >>> [b.shape for b in found.b], round(float(found.logdet_L2 / np.log(6.0)), 12)
    ([(3, 1)], 1.0)
    """

    def __init__(self, design: Design) -> None:
        found = [by_columns(term, design.n) for term in design.terms]
        self._maps = [J for _, J in found]
        self._level_ks = tuple([term.k for term in design.terms])
        self._level_ms = tuple([term.m for term in design.terms])
        super().__init__(replace(design, terms=tuple([term for term, _ in found])))

    def describe(self) -> str:
        """One line: which algorithm, on which sizes."""
        ranks = [m for m, J in zip(self.ms, self._maps, strict=True) if J is not None]
        return (
            f"{super().describe()}; covariances of levels by factors of {', '.join(map(str, ranks))} columns"
        )

    def _levels(self, values: np.ndarray, term: int) -> np.ndarray:
        """Values by column of W, shape (r, k) or (r, k, c), as values by level."""
        J = self._maps[term]
        if J is None:
            return values
        m, k = self._level_ms[term], self._level_ks[term]
        more = values.shape[2:]
        return np.asarray(J @ values.reshape(J.shape[1], *more)).reshape(m, k, *more)

    def _to_columns(self, Z: Any) -> Any:
        """A sparse (N, q) matrix by levels as one by columns of W."""
        from scipy import sparse

        parts, at = [], 0
        for J, m, k in zip(self._maps, self._level_ms, self._level_ks, strict=True):
            own = Z[:, at : at + m * k]
            parts.append(own if J is None else own @ J)
            at += m * k
        return sparse.csr_array(sparse.hstack(parts, format="csr"))

    def solution(self, factors: Sequence[np.ndarray], reml: bool = True) -> Solution:
        """Estimates of beta and predictions of the effects of the levels."""
        found = super().solution(factors, reml)
        places = range(len(self._maps))
        return replace(
            found,
            u=tuple([self._levels(found.u[b], b) for b in places]),
            b=tuple([self._levels(found.b[b], b) for b in places]),
        )

    @one_blas_thread()
    def conditional_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Lambda M^{-1} Lambda'`` for the levels of one term, shape (m, k, k)."""
        J, k, m = self._maps[term], self._level_ks[term], self._level_ms[term]
        if J is None:
            return super().conditional_covariance(factors, term)
        from scipy import sparse

        place = self.slices[term]
        out = np.empty((m, k, k))
        for a in range(0, m, _BATCH):
            own = J[a * k : (a + _BATCH) * k]
            wide = sparse.csr_array(
                (own.data, own.indices + place.start, own.indptr), shape=(own.shape[0], self.q)
            )
            half = sparse_inference.halves(self, factors, wide).reshape(self.q, -1, k)
            out[a : a + _BATCH] = np.einsum("qli,qlj->lij", half, half)
        return out

    @one_blas_thread()
    def random_covariance(self, factors: Sequence[np.ndarray], term: int) -> np.ndarray:
        """Diagonal blocks of ``Var(b^ - b) / sigma^2`` for the levels of one term, shape (m, k, k)."""
        if self._maps[term] is None:
            return super().random_covariance(factors, term)
        out = self.conditional_covariance(factors, term)
        if not self.p:
            return out
        own = self.fixed_random_covariance(factors)[term]
        inverse = np.linalg.inv(self.solution(factors).vcov_unscaled)
        return out + own @ inverse @ own.transpose(0, 2, 1)

    def fixed_random_covariance(self, factors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """``Cov(b^ - b, beta^) / sigma^2`` per term, shape (m, k, p)."""
        found = super().fixed_random_covariance(factors)
        return tuple([self._levels(one, b) for b, one in enumerate(found)])

    def halves(self, factors: Sequence[np.ndarray], Z: Any) -> np.ndarray:
        """``L^{-1} Lambda'Z'`` for a sparse (N, q) matrix of rows by levels, shape (columns, N)."""
        return super().halves(factors, self._to_columns(Z))

    def predictor_variance(
        self, factors: Sequence[np.ndarray], X: np.ndarray, rows: PredictorRows
    ) -> np.ndarray:
        """``Var[x'(beta^ - beta) + sum_b z_b'(b^_b - b_b)] / sigma^2`` for N rows, shape (N,)."""
        Z = self._to_columns(rows_matrix(self._level_ks, self._level_ms, X.shape[0], rows))
        parts = [Z[:, place] for place in self.slices]
        return sparse_inference.predictor_variance(self, factors, X, parts)

    def responses_at(
        self, factors: Sequence[np.ndarray]
    ) -> Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """A function of responses (n, N) that gives their beta^ (p, N) and b^ per term (m, k, N)."""
        inner = super().responses_at(factors)

        def estimates(R: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
            beta, b = inner(R)
            return beta, tuple([self._levels(one, place) for place, one in enumerate(b)])

        return estimates
