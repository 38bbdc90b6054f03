"""Laplace's approximation for crossed, nested and several grouping factors."""

from __future__ import annotations

from mixedmodels.objective.marginal.blocked_algebra import BlockedAlgebra
from mixedmodels.objective.marginal.determinant import schur_columns, separate_columns
from mixedmodels.objective.marginal.laplace import PatternLaplace

__all__ = ["BlockedLaplace"]

_EXACT_COLUMNS = 300  # columns of the Schur complement up to which Newton's step takes the exact Hessian
_EXACT_PART = 50  # or columns of the largest part of the model that shares no row with the others


class BlockedLaplace(PatternLaplace):
    """Laplace's approximation for any number of grouping factors, each row in one level of each.

    Parameters
    ----------
    design : GeneralisedDesign
    family : Family
    """

    name = "blocked"
    reason = "several grouping factors, or known precisions"
    layout: BlockedAlgebra

    def _analyse(self) -> None:
        self.layout = BlockedAlgebra(self.design, self.entries)
        leaf = self.layout.leaf
        self.exact_hessian = (
            schur_columns(self.layout, leaf) <= _EXACT_COLUMNS
            or int(separate_columns(self.layout, leaf)[0].max()) < _EXACT_PART
        )

    @property
    def second_work(self) -> float:
        """About how many multiplications the exact second derivatives of the determinant take."""
        slots = separate_columns(self.layout, self.layout.leaf)[0]
        columns = float(slots.max()) + 1.0 if len(slots) else 0.0
        return columns * float(self.layout.sizes_of_factor["nnz_L"])

    def describe(self) -> str:
        """One line: which method on which sizes."""
        parts = [f"{m} x {k}" for m, k in zip(self.layout.m, self.layout.k, strict=True)]
        rest = self.layout.sizes_of_factor["rest_columns"]
        return f"blocked Laplace: factors {', '.join(parts)}; rest {rest} columns"
