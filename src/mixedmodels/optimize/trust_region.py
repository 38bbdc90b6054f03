"""Newton's method in a trust region, for smooth functions whose Hessian may be indefinite.

Each step minimises the quadratic model in a ball exactly, by an eigendecomposition: models have few
parameters. Saddles are left along negative curvature. Moré & Sorensen (1983), SIAM J. Sci. Stat. Comput.
4:553-572.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.optimize.control import Control
from mixedmodels.optimize.optimum import Optimum, Status

__all__ = ["trust_region"]


def trust_region(
    newton: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]],
    start: np.ndarray,
    control: Control | None = None,
    names: tuple[str, ...] = (),
    progress: Any = None,
) -> Optimum:
    """Minimise a function given with gradient and Hessian.

    Parameters
    ----------
    newton : callable
        ``v -> (value, gradient, hessian)``; FloatingPointError where the function does not exist.
    start : ndarray, shape (r,)
    control : Control, optional

    Returns
    -------
    Optimum
        theta is the point v.
    """
    control = Control() if control is None else control
    began = time.perf_counter()
    limit = control.limit(200)
    v = np.array(start, dtype=float)
    f, g, H = newton(v)
    evaluations, iterations, radius = 1, 0, 1.0
    status, decrement = Status.MAXITER, math.inf
    while True:
        values, Q = np.linalg.eigh(H)
        projected = Q.T @ g
        decrement = 0.5 * float(np.sum(projected**2 / np.maximum(np.abs(values), 1e-12)))
        if decrement < control.tol and values[0] > -1e-8 * max(1.0, values[-1]):
            status = Status.CONVERGED
            break
        if iterations >= limit:
            break
        iterations += 1
        accepted = False
        while radius > 1e-10:
            step, predicted = _step(values, Q, projected, radius)
            evaluations += 1
            try:
                trial = newton(v + step)
                actual = f - trial[0]
            except (FloatingPointError, np.linalg.LinAlgError):
                actual = math.nan
            ratio = actual / predicted if predicted > 0.0 else math.nan
            noise = 1e-12 * (1.0 + abs(f))
            if ratio > 0.1 or (predicted < noise and actual > -10.0 * noise):
                v = v + step
                f, g, H = trial
                accepted = True
                length = float(np.linalg.norm(step))
                if ratio > 0.75:
                    radius = max(radius, 2.0 * length)
                break
            radius = 0.25 * min(radius, float(np.linalg.norm(step)))
        if not accepted:
            status = Status.CONVERGED if decrement < 1e-6 else Status.STALLED
            break
    message = "converged" if status.converged else f"{status.value}: {status.remedy}"
    return Optimum(
        v,
        f,
        g,
        H,
        status,
        iterations,
        evaluations,
        evaluations,
        (),
        decrement,
        (),
        "trust region",
        message,
        time.perf_counter() - began,
        names,
    )


def _step(values: np.ndarray, Q: np.ndarray, g: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """Minimiser of the model in the ball and the decrease it promises."""
    low = max(0.0, -float(values[0]))

    def at(shift: float) -> np.ndarray:
        return -g / np.maximum(values + shift, 1e-300)

    if values[0] > 0.0 and np.linalg.norm(at(0.0)) <= radius:
        s = at(0.0)
    else:
        a, b = low, low + float(np.linalg.norm(g)) / radius + 1e-12
        for _ in range(100):
            middle = 0.5 * (a + b)
            if np.linalg.norm(at(middle)) > radius:
                a = middle
            else:
                b = middle
        s = at(b)
        short = radius**2 - float(s @ s)
        if values[0] < 0.0 and short > 0.01 * radius**2:  # the hard case: go along the lowest direction
            s[0] += math.copysign(math.sqrt(short), s[0])
    return Q @ s, -float(g @ s + 0.5 * np.sum(values * s * s))
