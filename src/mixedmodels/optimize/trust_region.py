r"""Newton's method in a trust region, for smooth functions whose Hessian may be indefinite.

Each step minimises the quadratic model in a ball exactly: saddles are left along negative curvature. Where
the caller has a cheap Newton step and it lies inside the ball it is that minimiser; otherwise an
eigendecomposition finds it (models have few parameters). The search stops when the model predicts a decrease
below `Control.tol`, a test without units. Two refinements save evaluations:

* The last Newton step is taken without evaluating the function again. Decreases shrink as
  :math:`\delta_{k+1} \approx c\,\delta_k^2`; where the decreases so far say that the next is far below the
  tolerance, and that the value after the step is known to it, the step is the last.
* A matrix that is only a model of the Hessian (``exact=False``) gets a symmetric rank-one correction
  C with :math:`(H + C)s = y` from the gradients of the last two points.

Moré & Sorensen (1983), SIAM J. Sci. Stat. Comput. 4:553-572; Dennis, Gay & Welsch (1981), ACM Trans. Math.
Softw. 7:348-368 (structured secant corrections).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mixedmodels.optimize.control import Control
from mixedmodels.optimize.optimum import Optimum, Status
from mixedmodels.optimize.progress import Progress

__all__ = ["trust_region"]

Newton = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]
Solve = Callable[[np.ndarray, np.ndarray], "tuple[np.ndarray, float] | None"]
Full = tuple[np.ndarray, float]  # Newton's step and the decrease it promises
Eigen = tuple[np.ndarray, np.ndarray, np.ndarray]  # values, vectors, gradient along these

SADDLE = 1e-8  # a negative eigenvalue of this size, relative to the largest, is a direction of descent
NOISE = 1e-12  # rounding of the function, relative
SMALLEST = 1e-10  # of the radii
STALE = 1e-11  # derivatives before a last step that promised more than this are not those of its end
SECANT = 0.5  # corrections from steps that promised more than this are of no use


def trust_region(
    newton: Newton,
    start: np.ndarray,
    control: Control | None = None,
    names: tuple[str, ...] = (),
    progress: Any = None,
    exact: bool = True,
    shown: Callable[[np.ndarray], np.ndarray] | None = None,
    solve: Solve | None = None,
) -> Optimum:
    """Minimise a function given with gradient and Hessian.

    Parameters
    ----------
    newton : callable
        ``v -> (value, gradient, hessian)``; FloatingPointError where the function does not exist.
    start : ndarray, shape (r,)
        A point where the function exists.
    control : Control, optional
        ``maxiter`` (default 200), ``tol``, ``max_seconds`` and ``trace`` count.
    names : tuple of str
    progress : "auto", True, False, None or callable
        See `mixedmodels.optimize.progress.Progress`.
    exact : bool
        Whether `newton` returns the Hessian itself or a model of it.
    shown : callable, optional
        From v to the parameters that trace and progress show.
    solve : callable, optional
        From Hessian H and gradient g to ``-H^{-1} g`` and ``g'H^{-1}g / 2``; None where H is not safely
        positive definite.

    Returns
    -------
    Optimum
        theta is the point v; after Ctrl-C or the time limit the best so far. Gradient and Hessian are None
        where the last step made them out of date.

    Examples
    --------
    >>> def saddle(v):
    ...     value = v[0] ** 2 + (v[1] ** 2 - 1.0) ** 2
    ...     gradient = np.array([2.0 * v[0], 4.0 * v[1] * (v[1] ** 2 - 1.0)])
    ...     return value, gradient, np.diag([2.0, 12.0 * v[1] ** 2 - 4.0])
    >>> optimum = trust_region(saddle, np.array([3.0, 0.0]))
    >>> bool(np.allclose(np.abs(optimum.theta), [0.0, 1.0])), optimum.status.value
    (True, 'converged')
    """
    control = Control() if control is None else control
    search = _Search(newton, control, Progress(progress), exact, shown, solve)
    try:
        status = search.run(np.array(start, dtype=float))
    except KeyboardInterrupt:
        if not math.isfinite(search.f):
            raise
        status = Status.INTERRUPTED
    finally:
        search.progress.close()
    end = "converged" if status.converged else f"{status.value}: {status.remedy}"
    return Optimum(
        theta=search.v,
        value=search.f,
        gradient=search.g,
        hessian=search.H,
        status=status,
        iterations=search.iterations,
        evaluations=search.evaluations,
        gradient_evaluations=search.evaluations,
        trace=search.trace,
        decrement=search.decrement,
        kkt=(),
        method="trust region",
        message=end,
        seconds=time.perf_counter() - search.began,
        names=names,
    )


class _Search:
    """State of one search."""

    def __init__(
        self,
        newton: Newton,
        control: Control,
        progress: Progress,
        exact: bool,
        shown: Any,
        solve: Solve | None,
    ) -> None:
        self.newton, self.control, self.progress = newton, control, progress
        self.exact, self.shown, self.solve = exact, shown, solve
        self.began = time.perf_counter()
        self.f, self.decrement = math.inf, math.inf
        self.iterations = self.evaluations = 0
        self.trace: list[tuple[int, np.ndarray, float]] = []
        self.g: Any = np.zeros(0)
        self.H: Any = np.zeros((0, 0))
        self.C: np.ndarray | None = None

    def run(self, v: np.ndarray) -> Status:
        """Search from a point."""
        self.v = v
        self.evaluations = 1
        self.f, self.g, self.H = self.newton(v)
        if v.shape[0] == 0:
            self.decrement = 0.0
            return Status.CONVERGED
        limit, tol, radius, before = self.control.limit(200), self.control.tol, 1.0, math.inf
        while True:
            full, eigen = self._model()
            if full is not None:
                self.decrement = d = full[1]
            else:
                assert eigen is not None
                values, _, projected = eigen
                self.decrement = d = 0.5 * float((projected**2 / np.maximum(np.abs(values), 1e-12)).sum())
            stop = self._report()
            if stop is not None:
                return stop
            # c = d / before^2; the value after the last step is off by about sqrt(d c d^2)
            last = self.exact and d < 0.01 * before < math.inf and d * d / before < tol
            if (d < tol or last) and (eigen is None or values[0] > -SADDLE * max(1.0, values[-1])):
                if self.exact and (full is not None or values[0] > 0.0):  # needs no evaluation
                    self.v = self.v + (full[0] if full is not None else _newton_step(eigen))
                    self.f -= d
                    self.decrement = d * min(1.0, d / before) ** 2
                    if d > STALE:
                        self.g, self.H = None, None
                return Status.CONVERGED
            if self.iterations >= limit:
                return Status.MAXITER
            self.iterations += 1
            found = self._move(full, eigen, radius)
            if found is None:
                return Status.CONVERGED if d < 1e-6 else Status.STALLED
            radius, before = found, d

    def _model(self) -> tuple[Full | None, Eigen | None]:
        """Newton's step and what it promises, or the eigendecomposition of the matrix."""
        if self.solve is not None:
            full = self.solve(self.H if self.C is None else self.H + self.C, self.g)
            if full is not None:
                return full, None
        eigen = self._eigen()
        if self.C is not None and eigen[0][0] <= 0.0:
            self.C = None
            eigen = self._eigen()
        return None, eigen

    def _eigen(self) -> Eigen:
        values, Q = np.linalg.eigh(self.H if self.C is None else self.H + self.C)
        return values, Q, Q.T @ self.g

    def _move(self, full: Full | None, eigen: Eigen | None, radius: float) -> float | None:
        """Take a step; the next radius, or None if no step lowers the function."""
        noise = NOISE * (1.0 + abs(self.f))
        reach = math.inf if full is None else math.sqrt(float(full[0] @ full[0]))
        while radius > SMALLEST:
            if full is not None and reach <= radius:
                step, predicted, length = *full, reach
            else:
                if eigen is None:
                    eigen = self._eigen()
                s, predicted = _step(eigen[0], eigen[2], radius)
                length = math.sqrt(float(s @ s))
                step = eigen[1] @ s
            self.evaluations += 1
            try:
                trial = self.newton(self.v + step)
                actual = self.f - trial[0]
            except (FloatingPointError, np.linalg.LinAlgError):
                actual = math.nan
            ratio = actual / predicted if predicted > 0.0 else math.nan
            if ratio > 0.1 or (predicted < noise and actual > -10.0 * noise):
                if not self.exact:
                    self._correct(step, trial[1] - self.g, trial[2], predicted)
                self.v = self.v + step
                self.f, self.g, self.H = trial
                if ratio > 0.75:
                    return max(radius, 2.0 * length)
                return radius if ratio > 0.25 else max(0.5 * length, SMALLEST * 2.0)
            radius = 0.25 * min(radius, length)
        return None

    def _correct(self, s: np.ndarray, y: np.ndarray, H: np.ndarray, predicted: float) -> None:
        """The correction C of the model of the Hessian, so that ``(H + C) s = y``."""
        if predicted > SECANT:
            self.C = None
            return
        C = np.zeros_like(H) if self.C is None else self.C
        r = y - H @ s - C @ s
        along = float(r @ s)
        if abs(along) > 1e-8 * math.sqrt(float(r @ r) * float(s @ s)):
            C = C + np.outer(r, r) / along
        self.C = C

    def _report(self) -> Status | None:
        """Keep and show the point; the status to end with, if any."""
        if self.control.trace or self.progress.active:
            point = self.v if self.shown is None else self.shown(self.v)
            if self.control.trace:
                self.trace.append((self.iterations, point, self.f))
            if self.progress.active and self.progress.update(self.iterations, point, self.f, self.decrement):
                return Status.INTERRUPTED
        limit = self.control.max_seconds
        return Status.MAX_SECONDS if limit and time.perf_counter() - self.began > limit else None


def _newton_step(eigen: Eigen | None) -> np.ndarray:
    assert eigen is not None
    values, Q, g = eigen
    return np.asarray(-(Q @ (g / values)))


def _step(values: np.ndarray, g: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """Minimiser of the model in the ball, in eigenvector coordinates, and the decrease it promises."""
    if values[0] > 0.0:
        s = -g / values
        if float(s @ s) <= radius * radius:
            return s, -0.5 * float(g @ s)
    lowest = max(0.0, -float(values[0]))
    norm = math.sqrt(float(g @ g))
    low, high = lowest, lowest + norm / radius + 1e-300
    shift = high if lowest > 0.0 else 0.0
    s = np.zeros_like(g)
    for _ in range(60):  # Newton's method on 1/radius = 1/|s(shift)|, kept inside its bracket
        shifted = np.maximum(values + shift, 1e-300)
        s = -g / shifted
        square = float(s @ s)
        length = math.sqrt(square)
        if length > radius:
            low = shift
        else:
            high = shift
        if abs(length - radius) <= 0.01 * radius or high - low <= 1e-12 * high:
            break
        slope = float((s * s / shifted).sum())
        shift = shift + square / slope * (length - radius) / radius if slope > 0.0 else low
        if not low < shift < high:
            shift = 0.5 * (low + high)
    if length > radius:
        s = s * (radius / length)
        length = radius
    if values[0] < 0.0 and length < 0.99 * radius:  # the hard case: go along the lowest direction
        s[0] += math.copysign(math.sqrt(radius * radius - length * length), s[0])
    return s, -float(g @ s + 0.5 * (values * s * s).sum())
