r"""Estimates and predictions for many responses of one design at given relative factors.

With :math:`\Phi = (X'V^{-1}X)^{-1}`, :math:`C = \Lambda M^{-1}\Lambda'` and :math:`F = CZ'X` they are linear
in the cross-products of a response r (offset taken off, rows scaled by the roots of the weights):

.. math:: \hat\beta = \Phi (X'r - F'Z'r), \qquad \hat b = C Z'r - F\hat\beta.

So one factorisation serves any number of responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedmodels.solver.threads import one_blas_thread

if TYPE_CHECKING:
    from mixedmodels.solver.inference import InferenceProducts

__all__ = ["CompiledResponses"]


class CompiledResponses:
    """What `Solver.responses_at` gives for a compiled solver, in internal coordinates until the end."""

    def __init__(self, solver: InferenceProducts, factors: Sequence[np.ndarray]) -> None:
        self._solver = solver
        self._evaluator, self._lam, self._F, self._half = solver._predictions(factors)
        self._Z = [_by_level(solver, f) for f in range(len(solver._k))]

    @one_blas_thread()
    def __call__(self, R: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """beta^, shape (p, N), and b^ per term, (m, k, N), of the columns of R, shape (n, N)."""
        solver = self._solver
        std, N = solver.standardised, R.shape[1]
        r = R if std.sqrt_weights is None else R * std.sqrt_weights[:, None]
        xy = std.X.T @ r
        zy = []
        for Z, F, factor in zip(self._Z, self._F, solver.pack.factors, strict=True):
            zy.append((Z @ r).reshape(factor.m, factor.k, N))
            xy -= F.reshape(factor.m * factor.k, -1).T @ zy[-1].reshape(factor.m * factor.k, N)
        beta = self._half @ (self._half.T @ xy)
        modes = solver._C_times(self._evaluator, self._lam, zy)
        modes = [C - F @ beta for C, F in zip(modes, self._F, strict=True)]
        b = []
        for (f, lo, hi), T in zip(solver._place, std.T, strict=True):
            own = modes[f][:, lo:hi]
            b.append(own if T is None else T @ own)
        return std.T_X @ beta, tuple(b)


def _by_level(solver: InferenceProducts, f: int) -> Any:
    """Z~' of one factor as a sparse matrix, shape (m k, n)."""
    from scipy import sparse

    std, design, factor = solver.standardised, solver.design, solver.pack.factors[f]
    codes, n = design.terms[factor.terms[0]].codes, design.n
    values = np.hstack([std.Z(t) for t in factor.terms])
    rows = np.asarray(codes, dtype=np.int64)[:, None] * factor.k + np.arange(factor.k)
    columns = np.repeat(np.arange(n), factor.k)
    return sparse.csr_array((values.ravel(), (rows.ravel(), columns)), shape=(factor.m * factor.k, n))
