r"""Numbers that carry their first and second derivatives: arithmetic by the chain rule, exact to rounding.

A `Jet` holds :math:`f`, :math:`\partial_i f` and :math:`\partial_i\partial_j f` in k parameters, for an
array of values at once. Structures with long formulas (ARMA, Toeplitz, antedependence) are written in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Jet", "constant", "parameters", "solve", "stack"]


class Jet:
    """An array with derivatives.

    Parameters
    ----------
    value : ndarray, shape S
    first : ndarray, shape (k, *S)
    second : ndarray, shape (k, k, *S)
    """

    __slots__ = ("first", "second", "value")

    def __init__(self, value: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        self.value, self.first, self.second = value, first, second

    @property
    def k(self) -> int:
        """Number of parameters."""
        return self.first.shape[0]

    def __add__(self, other: Any) -> Jet:
        if isinstance(other, Jet):
            return Jet(self.value + other.value, self.first + other.first, self.second + other.second)
        return Jet(self.value + other, self.first, self.second)

    __radd__ = __add__

    def __neg__(self) -> Jet:
        return Jet(-self.value, -self.first, -self.second)

    def __sub__(self, other: Any) -> Jet:
        return self + (-other)

    def __rsub__(self, other: Any) -> Jet:
        return (-self) + other

    def __mul__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.value * other, self.first * other, self.second * other)
        cross = self.first[:, None] * other.first[None]
        return Jet(
            self.value * other.value,
            self.first * other.value + self.value * other.first,
            self.second * other.value + self.value * other.second + cross + np.swapaxes(cross, 0, 1),
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return self * (1.0 / other)
        inverse = 1.0 / other.value
        return self * other.function(inverse, -(inverse**2), 2.0 * inverse**3)

    def __getitem__(self, where: Any) -> Jet:
        where = where if isinstance(where, tuple) else (where,)
        return Jet(
            self.value[where],
            self.first[(slice(None), *where)],
            self.second[(slice(None), slice(None), *where)],
        )

    def function(self, value: Any, slope: Any, bend: Any) -> Jet:
        """f of the jet, given f, f' and f'' at its value."""
        return Jet(
            value, slope * self.first, slope * self.second + bend * (self.first[:, None] * self.first[None])
        )

    def tanh(self) -> Jet:
        """Hyperbolic tangent."""
        t = np.tanh(self.value)
        slope = 1.0 - t * t
        return self.function(t, slope, -2.0 * t * slope)

    def arctanh(self) -> Jet:
        """Fisher's z."""
        inner = 1.0 / ((1.0 - self.value) * (1.0 + self.value))
        return self.function(np.arctanh(self.value), inner, 2.0 * self.value * inner**2)


def parameters(phi: np.ndarray) -> Jet:
    """The coordinates themselves as a jet of shape (k,)."""
    k = phi.shape[0]
    return Jet(np.array(phi, dtype=np.float64), np.eye(k), np.zeros((k, k, k)))


def constant(value: Any, k: int) -> Jet:
    """A jet without derivatives."""
    value = np.asarray(value, dtype=np.float64)
    return Jet(value, np.zeros((k, *value.shape)), np.zeros((k, k, *value.shape)))


def stack(jets: list[Jet]) -> Jet:
    """Jets of equal shape along a new last axis."""
    return Jet(
        np.stack([jet.value for jet in jets], axis=-1),
        np.stack([jet.first for jet in jets], axis=-1),
        np.stack([jet.second for jet in jets], axis=-1),
    )


def solve(A: Jet, b: Jet) -> Jet:
    """Solution of ``A x = b`` for a matrix (m, m) and a vector (m,), with derivatives."""
    inverse = np.linalg.inv(A.value)
    x = inverse @ b.value
    first = (b.first - A.first @ x) @ inverse.T
    cross = np.einsum("iab,jb->ija", A.first, first)
    second = b.second - A.second @ x - cross - np.swapaxes(cross, 0, 1)
    return Jet(x, first, second @ inverse.T)
