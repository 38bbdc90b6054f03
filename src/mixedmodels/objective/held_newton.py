"""Newton equations of the free coordinates while one is held: steps, tangents, ways out of saddles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["NewtonSystem", "Second", "secant"]

_NEGATIVE = 1e-5  # a scaled eigenvalue below minus this is a way down, not rounding


@dataclass(frozen=True, slots=True, eq=False)
class Second:
    """Criterion, gradient and Hessian in the free coordinates and, last, the held one."""

    d: float
    g: np.ndarray
    H: np.ndarray


class NewtonSystem:
    """The Newton equations of the free coordinates, scaled and diagonalised."""

    def __init__(self, H: np.ndarray, g: np.ndarray, free: np.ndarray, correction: np.ndarray | None) -> None:
        self.H, self.correction, self.size = H, correction, len(free)
        self.free = None if free.all() else np.flatnonzero(free)
        A, self._b, self._cross = H[:-1, :-1], g[:-1], H[-1, :-1]
        if self.free is not None:
            A, self._b, self._cross = A[np.ix_(self.free, self.free)], self._b[free], self._cross[free]
        diagonal = np.abs(A.diagonal())
        floor = 1e-12 * max(float(diagonal.max(initial=0.0)), 1e-300)
        self._D = 1.0 / np.sqrt(np.maximum(diagonal, floor))
        if len(A):
            self.w, self._Q = np.linalg.eigh(A * self._D * self._D[:, None])
        else:
            self.w, self._Q = np.zeros(0), np.zeros((0, 0))

    def _whole(self, part: np.ndarray) -> np.ndarray:
        if self.free is None:
            return part
        out = np.zeros(self.size)
        out[self.free] = part
        return out

    def newton(self, damping: float) -> tuple[np.ndarray, float]:
        """Step and predicted decrease; negative curvature counts by its size."""
        along = self._Q.T @ (self._D * self._b)
        size = np.maximum(np.abs(self.w), 1e-9) + damping
        quiet = (np.abs(along) < 1e-7 * np.sqrt(size)) & (np.abs(self.w) < 1e-9)  # nothing happens there
        along = np.where(quiet, 0.0, along)
        return self._whole(-self._D * (self._Q @ (along / size))), 0.5 * float(along @ (along / size))

    def downhill(self) -> np.ndarray | None:
        """A direction of negative curvature, if there is one."""
        if not len(self.w) or not self.w[0] < -_NEGATIVE:
            return None
        return self._whole(self._D * self._Q[:, 0])

    def tangent(self) -> np.ndarray:
        """Derivative of the minimum to the held coordinate."""
        w = np.where(np.abs(self.w) < 1e-9, np.inf, self.w)
        return self._whole(-self._D * (self._Q @ ((self._Q.T @ (self._D * self._cross)) / w)))


def secant(correction: np.ndarray | None, new: Second, old: Second, step: np.ndarray) -> np.ndarray | None:
    """Symmetric rank-one update of the correction of average information."""
    if correction is None:
        correction = np.zeros((len(step), len(step)))
    gap = new.g[:-1] - old.g[:-1] - (new.H[:-1, :-1] + correction) @ step
    inner = float(gap @ step)
    if abs(inner) < 1e-8 * float(np.linalg.norm(gap) * np.linalg.norm(step)):
        return correction
    return correction + np.outer(gap, gap) / inner
