r"""Random effects and coefficients of the mean together: the mode of the penalised likelihood in (u, c).

With :math:`\gamma = \gamma_0 + Ec` and V = XE, Newton's step solves

.. math:: \begin{pmatrix} H & \Lambda'Z'WV \\ V'WZ\Lambda & V'WV \end{pmatrix}
          \begin{pmatrix} \delta u \\ \delta c \end{pmatrix} = -\begin{pmatrix} F_u \\ F_c \end{pmatrix}

by the factor of H: one solve with as many columns as c has, and one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mixedmodels.objective.marginal.laplace import PatternLaplace

__all__ = ["joint_mode"]

_STEPS = 50
_DECREMENT = 1e-11  # Newton's decrement at which this step is the last: it squares the error


def joint_mode(
    engine: PatternLaplace, gamma: np.ndarray, factors: Sequence[np.ndarray], E: np.ndarray
) -> np.ndarray | None:
    """The change c of the coefficients; the engine then holds the mode.

    Parameters
    ----------
    engine : PatternLaplace
    gamma : ndarray
        Where to begin.
    factors : sequence of ndarray
    E : ndarray, shape (n_gamma, p)
        Directions, which move the conditional predictor only.

    Returns
    -------
    ndarray, shape (p,), or None
        None where a weight is negative or a mean out of its range: a search with smaller steps is needed.
    """
    if 0 not in engine._active:
        return None
    layout, own = engine.layout, engine._active.index(0)
    V = engine._X[0] @ E[engine.design.predictors[0].columns]
    Lambda = layout.factors(factors)
    entries = np.array([Lambda[f][i, j] for f, i, j in layout.entries])
    u, eta, (value, f1, W) = engine._start(engine._fixed(gamma), Lambda, np.concatenate([gamma, entries]))
    c = np.zeros(V.shape[1])
    engine._state = None
    if not np.isfinite(value):
        return None
    F = -value + 0.5 * _inner(u, layout.penalty(u))
    for _ in range(_STEPS):
        try:
            engine._load(W, Lambda)
        except FloatingPointError:
            return None
        score, penalty = layout.sums(f1), layout.penalty(u)
        g = [part - r @ L for part, r, L in zip(penalty, score, Lambda, strict=True)]
        weighted = np.ascontiguousarray(V.T[:, None, :] * W[own][None])
        cross = [L.T @ part for L, part in zip(Lambda, layout.sums_many(weighted), strict=True)]
        solved = layout.solve(
            [np.concatenate([a[:, :, None], b], axis=2) for a, b in zip(g, cross, strict=True)]
        )
        S, gc = weighted[:, own] @ V, -(f1[own] @ V)
        right = gc.copy()
        for part, x in zip(cross, solved, strict=True):
            flat, x = part.reshape(-1, len(c)), x.reshape(-1, 1 + len(c))
            S -= flat.T @ x[:, 1:]
            right -= flat.T @ x[:, 0]
        try:
            dc = -np.linalg.solve(S, right)
        except np.linalg.LinAlgError:
            return None
        du = [-x[:, :, 0] - x[:, :, 1:] @ dc for x in solved]
        decrement = -float(gc @ dc) - _inner(g, du)
        if not decrement >= 0.0:
            return None
        change = engine._effects([part @ L.T for part, L in zip(du, Lambda, strict=True)])
        change[own] += V @ dc
        found = engine._shortened(u, eta, du, change, F, 1e-10)
        if found is None:
            return None
        size, u, eta, F, f1, W = found
        c = c + size * dc
        if size == 1.0 and decrement < _DECREMENT * (1.0 + 1e-5 * abs(F)):
            engine._u, engine._guess = u, None
            try:
                A, H, logdet = engine._load(W, Lambda)
            except FloatingPointError:
                return None
            engine._hold(gamma + E @ c, factors, Lambda, eta, A, H, F, logdet)
            return c
    return None


def _inner(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))
