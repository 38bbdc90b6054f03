"""Laplace's approximation for any sparse Z: rows that touch several levels, factors of known covariances."""

from __future__ import annotations

from mixedmodels.design import GeneralisedDesign
from mixedmodels.objective.marginal.laplace import PatternLaplace
from mixedmodels.objective.marginal.sparse_algebra import SparseAlgebra
from mixedmodels.solver.low_rank import is_low_rank_term

__all__ = ["SparseLaplace", "needs_sparse"]

_EXACT_WORK = 1e8  # multiplications up to which Newton's step takes the exact Hessian


def needs_sparse(design: GeneralisedDesign) -> bool:
    """Whether rows touch several levels of a term, by the term or by a covariance of low rank."""
    return any(term.several_levels or is_low_rank_term(term) for term in design.terms)


class SparseLaplace(PatternLaplace):
    """Laplace's approximation for random terms of any kind.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    """

    name = "sparse"
    reason = "rows that touch several levels of a term"
    layout: SparseAlgebra

    def _analyse(self) -> None:
        self.layout = SparseAlgebra(self.design, self.entries)
        directions = self.n_gamma + len(self.entries) + 1
        self.exact_hessian = directions * self.second_work <= _EXACT_WORK

    @property
    def second_work(self) -> float:
        """About how many multiplications the exact second derivatives of the determinant take."""
        return float(self.layout.q) * float(self.layout.penalized.factor.sizes["nnz_L"])

    def describe(self) -> str:
        """One line: which method on which sizes."""
        sizes = self.layout.penalized.factor.sizes
        parts = [f"{m} x {k}" for m, k in zip(self.layout.m, self.layout.k, strict=True)]
        return f"sparse Laplace: terms {', '.join(parts)}; nnz(L) {sizes['nnz_L']}"
