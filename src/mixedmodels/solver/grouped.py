"""Solver for models with one grouping factor: k x k blocks, one per level or per class of equal levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver._kernels.grouped import WIDE_PASS, GroupedEvaluator, GroupedLevels
from mixedmodels.solver.compiled import CompiledSolver

if TYPE_CHECKING:
    from mixedmodels.design import Design

__all__ = ["GroupedSolver"]


class GroupedSolver(CompiledSolver):
    r"""One grouping factor, any number of terms on it, independent levels.

    Level by level, with :math:`A_l = Z_l'Z_l = R_l R_l'` and :math:`t_l = R_l^{-1} Z_l'[X\ y]`,

    .. math:: E_l = I + R_l'\Sigma R_l, \qquad \log|V| = \sum_l \log|E_l|, \qquad
              [X\ y]'V^{-1}[X\ y] = W + \sum_l t_l' E_l^{-1} t_l,

    where W does not depend on theta. Levels with equal blocks are pooled: their sums are linear in the
    moments :math:`\sum t_l t_l'` of the class, so that the cost of an evaluation follows the number of
    classes, not of levels.

    Parameters
    ----------
    design : Design
        All terms on one grouping factor, without known precision.

    Raises
    ------
    SolverError
        The design has several grouping factors, none, or a known precision.

    Examples
    --------
    >>> from mixedmodels.testing import random_design
    >>> GroupedSolver(random_design(0, "one_slope")).describe()
    'grouped: 12 levels x 2 columns, 90 rows'
    """

    name = "grouped"

    def __init__(self, design: Design) -> None:
        if any(term.precision is not None for term in design.terms):
            raise SolverError(
                "the grouped solver needs independent levels; use solver='blocked' for known precisions"
            )
        super().__init__(design)

    def _prepare(self) -> None:
        if len(self.pack.factors) != 1:
            raise SolverError(
                f"the grouped solver needs exactly one grouping factor, this design has "
                f"{len(self.pack.factors)}; use solver='blocked'"
            )
        factor = self.pack.factors[0]
        self.levels = GroupedLevels(factor.A, factor.ZXy, self.pack.G)

    @property
    def trace_work(self) -> float:
        """About how many multiplications the traces of the observed information take."""
        factor = self.pack.factors[0]
        return float(factor.m) * (factor.k * (factor.k + self.p)) ** 2

    def _own_responses(self) -> None:
        factor = self.pack.factors[0]
        self.levels = GroupedLevels(factor.A, factor.ZXy, self.pack.G, responses=True)

    def describe(self) -> str:
        """One line: sizes, and how many levels share their block."""
        factor, levels = self.pack.factors[0], self.levels
        columns = f"{factor.k} column" + ("s" if factor.k > 1 else "")
        text = f"grouped: {factor.m} levels x {columns}, {self.n} rows"
        if levels.n_classes:
            text += f" in {levels.n_classes} class" + ("es" if levels.n_classes > 1 else "")
            text += " of identical blocks"
            if levels.n_streamed:
                text += f" ({levels.n_streamed} levels on their own)"
        return text

    def _new_evaluator(
        self, entries: Any, clips: Any, nu: float, reml: bool, constant: float, sigma: float
    ) -> GroupedEvaluator:
        return GroupedEvaluator(
            self._k, entries, clips, self.p, nu, reml, constant, sigma, levels=self.levels
        )

    def _solve(self, evaluator: Any, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        beta, vcov, u, _, _ = evaluator.solution(lam)
        return beta, vcov, [u]

    def _conditional(self, evaluator: Any, lam: np.ndarray, factor: int) -> np.ndarray:
        return evaluator.solution(lam, covariance=True)[4]

    # ------------------------------------------------------------------ for inference
    def _trace_products(
        self, evaluator: Any, lam: np.ndarray, dS: np.ndarray, reml: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._wide:
            return evaluator.trace_products(lam, dS)
        return evaluator.second_products(lam, dS)[:2]

    def _projected_traces(
        self, evaluator: Any, lam: np.ndarray, dS: np.ndarray, reml: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return self._trace_products(evaluator, lam, dS, reml)[0], None

    def _products(
        self, evaluator: Any, lam: np.ndarray, dS: np.ndarray, second: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if second or self._wide:
            return super()._products(evaluator, lam, dS, second)
        return evaluator.second_products(lam, dS)[2], None

    @property
    def _wide(self) -> bool:
        """Whether sums over the levels go through BLAS rather than through one compiled pass."""
        factor = self.pack.factors[0]
        return factor.m * (factor.k * max(self.p, factor.k)) ** 2 > WIDE_PASS

    def _root(self, evaluator: Any, lam: np.ndarray) -> np.ndarray:
        return evaluator.fixed_root(lam)

    def _project(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        return [evaluator.level_matrices(lam, 0, self.pack.factors[0].m)[1]]

    def _K_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        return [evaluator.level_matrices(lam, 0, self.pack.factors[0].m)[0] @ parts[0]]

    def _C_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        return [self._conditional(evaluator, lam, 0) @ parts[0]]

    def _covariance_times(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        return self._C_times(evaluator, lam, [self.pack.factors[0].ZX])

    def _selected(self, evaluator: Any, lam: np.ndarray) -> _Selected:
        return _Selected(self._conditional(evaluator, lam, 0))


class _Selected:
    """Blocks of Lambda M^{-1} Lambda' of one grouping factor."""

    def __init__(self, blocks: np.ndarray) -> None:
        self._blocks = blocks

    def diagonal(self, factor: int) -> np.ndarray:
        return self._blocks
