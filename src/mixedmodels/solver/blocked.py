"""Solver for several grouping factors: one level by level, the rest by sparse Cholesky with a dense tail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.errors import SolverError
from mixedmodels.solver._kernels.blocked import BlockedEvaluator, BlockedStructure
from mixedmodels.solver.compiled import CompiledSolver

if TYPE_CHECKING:
    from mixedmodels.design import KnownCovariance, Precision
    from mixedmodels.solver.crossproducts import CrossProducts

__all__ = ["BlockedSolver", "structure_arrays"]


def structure_arrays(pack: CrossProducts) -> dict[str, Any]:
    """The arrays a `BlockedStructure` is built from."""
    return {
        "A": [factor.A for factor in pack.factors],
        "ZX": [factor.ZXy for factor in pack.factors],
        "XX": pack.G,
        "pairs": [(f, g, b.indptr, b.indices, b.data) for (f, g), b in pack.pairs.items()],
        "precision": [symmetric_columns(factor.precision, factor.m) for factor in pack.factors],
    }


def symmetric_columns(
    precision: Precision | KnownCovariance | None, m: int
) -> tuple[Any, Any, Any, float] | None:
    """``(indptr, indices, data, log|A|)`` of a known precision, both triangles, no duplicates."""
    if precision is None:
        return None
    matrix = precision.matrix
    if matrix.shape != (m, m):
        raise SolverError(f"a precision of shape {matrix.shape} was given for {m} levels")
    matrix = matrix.tocsc(copy=True)
    matrix.sum_duplicates()
    return matrix.indptr, matrix.indices, matrix.data, float(precision.logdet_covariance)


class BlockedSolver(CompiledSolver):
    r"""Any number of grouping factors, crossed, nested or both, with or without known precisions.

    The factor with the most effects and no precision, the *leaf*, is eliminated level by level,

    .. math:: D_l = \lambda_0' A_{ll} \lambda_0 + I, \qquad
              G = A_{RR} - \sum_l B_l' \lambda_0 D_l^{-1} \lambda_0' B_l, \qquad
              S = \Lambda_R' G \Lambda_R + P = L L',

    and L is a supernodal Cholesky factor in minimum-degree order (Amestoy, Davis & Duff 1996) whose last
    columns are one dense block. Derivatives need :math:`S^{-1}` only on the pattern of L (Erisman & Tinney
    1975); factors at or near singularity are differentiated through G, without dividing by them.

    Parameters
    ----------
    design : Design
    """

    name = "blocked"
    # Pivots kept in the sparse head (-1: by cost) and threads (0: all); here so that tests can change them.
    _cut = -1
    _threads = 0

    def _prepare(self) -> None:
        self.structure = BlockedStructure(
            self._k, self.p, structure_arrays(self.pack), cut=self._cut, n_threads=self._threads
        )

    def _own_responses(self) -> None:
        arrays = structure_arrays(self.pack)
        arrays["ZX"] = [ZX.copy() for ZX in arrays["ZX"]]
        arrays["XX"] = arrays["XX"].copy()
        self.structure = BlockedStructure(self._k, self.p, arrays, cut=self._cut, n_threads=1)

    @property
    def trace_work(self) -> float:
        """About how many multiplications the traces of the observed information take."""
        return float(self.structure.trace_work)

    @property
    def work_bytes(self) -> int:
        """Size of the factor and its inverse, about all the memory that grows with the rest."""
        return 16 * int(self.structure.sizes["nnz_L"])

    def describe(self) -> str:
        """One line: what is eliminated first, and how the rest is factored."""
        sizes = self.structure.sizes
        leaf = sizes["leaf"]
        parts = []
        if leaf >= 0:
            factor = self.pack.factors[leaf]
            parts.append(f"{factor.group} ({factor.m} x {factor.k}) eliminated first")
        columns, head, tail = sizes["rest_columns"], sizes["head_columns"], sizes["tail_columns"]
        if columns:
            if head == 0:
                parts.append(f"rest {columns} columns, dense")
            else:
                dense = f", dense tail of {tail}" if tail else ""
                parts.append(f"rest {columns} columns: {head} in a sparse head{dense}")
                parts.append("order: minimum degree")
            parts.append(f"nnz(L) {_thousands(sizes['nnz_L'])}")
        return "blocked: " + "; ".join(parts)

    def _new_evaluator(
        self, entries: Any, clips: Any, nu: float, reml: bool, constant: float, sigma: float
    ) -> BlockedEvaluator:
        return BlockedEvaluator(
            self._k, entries, clips, self.p, nu, reml, constant, sigma, structure=self.structure
        )

    def _solve(self, evaluator: Any, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        return evaluator.solution(lam)

    def _conditional(self, evaluator: Any, lam: np.ndarray, factor: int) -> np.ndarray:
        return evaluator.conditional_blocks(lam, factor)

    # ------------------------------------------------------------------ for inference
    @property
    def _ZX(self) -> list[np.ndarray]:
        return [factor.ZX for factor in self.pack.factors]

    def _root(self, evaluator: Any, lam: np.ndarray) -> np.ndarray:
        return evaluator.fixed_root(lam)

    def _project(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        return evaluator.condition(lam, self._ZX)[1]

    def _K_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        return evaluator.condition(lam, evaluator.normal(parts))[1]

    def _C_times(self, evaluator: Any, lam: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
        return evaluator.condition(lam, parts, False)[0]

    def _trace_ml(self, evaluator: Any, lam: np.ndarray, dS: np.ndarray) -> np.ndarray:
        return evaluator.trace_products(lam, dS)

    def _covariance_times(self, evaluator: Any, lam: np.ndarray) -> list[np.ndarray]:
        return evaluator.condition(lam, self._ZX, False)[0]

    def _selected(self, evaluator: Any, lam: np.ndarray) -> _Selected:
        return _Selected(evaluator, evaluator.selected(lam))


class _Selected:
    """Blocks of Lambda M^{-1} Lambda' on the pattern of the data, valid until the next evaluation."""

    def __init__(self, evaluator: BlockedEvaluator, state: np.ndarray) -> None:
        self._evaluator, self._state = evaluator, state

    def diagonal(self, factor: int) -> np.ndarray:
        return self._evaluator.diagonal(self._state, factor)

    def pairs(self, f: int, g: int, lf: np.ndarray, lg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._evaluator.pairs(f, g, lf, lg)


def _thousands(count: int) -> str:
    """Short form of a count."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f} k" if count < 10_000_000 else f"{count / 1e6:.1f} M"
