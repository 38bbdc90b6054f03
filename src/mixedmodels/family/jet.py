"""Truncated Taylor arithmetic in a few variables: exact derivatives of a formula that is written once.

A `Jet` holds, for every row, the Taylor coefficients of a function of C variables up to a total order; sums,
products and compositions of jets give those of the result. A log-density written with the functions of
`mixedmodels.family.functions` therefore yields all its partial derivatives, exact to rounding, without a
difference quotient (Griewank & Walther 2008, Evaluating Derivatives, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["Jet", "count", "indices", "place", "variables"]


@lru_cache(maxsize=64)
def indices(variables: int, order: int) -> tuple[tuple[int, ...], ...]:
    """Exponents of the monomials up to `order`, by total order, then lexicographically, first variable first.

    Examples
    --------
    >>> indices(2, 2)
    ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    """
    out: list[tuple[int, ...]] = []
    for total in range(order + 1):
        out += _of_total(variables, total)
    return tuple(out)


def _of_total(variables: int, total: int) -> list[tuple[int, ...]]:
    if variables == 0:
        return [()] if total == 0 else []
    if variables == 1:
        return [(total,)]
    return [
        (first, *rest) for first in range(total, -1, -1) for rest in _of_total(variables - 1, total - first)
    ]


def count(variables: int, order: int) -> int:
    """Number of monomials up to `order`."""
    return math.comb(variables + order, order)


@lru_cache(maxsize=64)
def place(variables: int, order: int) -> dict[tuple[int, ...], int]:
    """Position of each exponent in `indices`; the first positions do not depend on `order`."""
    return {index: at for at, index in enumerate(indices(variables, order))}


@lru_cache(maxsize=64)
def _products(variables: int, order: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each monomial the pairs of monomials whose product it is."""
    all_ = indices(variables, order)
    where = place(variables, order)
    out: list[list[tuple[int, int]]] = [[] for _ in all_]
    for i, a in enumerate(all_):
        for j, b in enumerate(all_):
            target = where.get(tuple(x + y for x, y in zip(a, b, strict=True)))
            if target is not None:
                out[target].append((i, j))
    return tuple(tuple(pairs) for pairs in out)


@lru_cache(maxsize=64)
def factorials(variables: int, order: int) -> np.ndarray:
    """``alpha!`` of each monomial: Taylor coefficient times this is the partial derivative."""
    return np.array([math.prod(math.factorial(a) for a in index) for index in indices(variables, order)])


class Jet:
    """Rows of Taylor polynomials.

    Parameters
    ----------
    c : list of ndarray or float
        Coefficients in the order of `indices`; None stands for zero.
    variables, order : int
    """

    __slots__ = ("c", "order", "variables")
    __array_ufunc__ = None  # arrays leave the arithmetic with a jet to the jet

    def __init__(self, c: list[Any], variables: int, order: int) -> None:
        self.c = c
        self.variables = variables
        self.order = order

    @property
    def value(self) -> np.ndarray:
        """The function itself."""
        return self.c[0]

    def table(self, n: int) -> np.ndarray:
        """Partial derivatives, shape (count, n), in the order of `indices`."""
        out = np.zeros((len(self.c), n))
        for row, coefficient, factor in zip(
            out, self.c, factorials(self.variables, self.order).tolist(), strict=True
        ):
            if coefficient is not None:
                row[:] = coefficient if factor == 1 else coefficient * factor
        return out

    def _new(self, c: list[Any]) -> Jet:
        return Jet(c, self.variables, self.order)

    def __neg__(self) -> Jet:
        return self._new([None if a is None else -a for a in self.c])

    def __add__(self, other: Any) -> Jet:
        if isinstance(other, Jet):
            return self._new(
                [b if a is None else a if b is None else a + b for a, b in zip(self.c, other.c, strict=True)]
            )
        return self._new([self.c[0] + other, *self.c[1:]])

    __radd__ = __add__

    def __sub__(self, other: Any) -> Jet:
        return self + (-other)

    def __rsub__(self, other: Any) -> Jet:
        return (-self) + other

    def __mul__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return self._new([None if a is None else a * other for a in self.c])
        a, b = self.c, other.c
        out: list[Any] = []
        for pairs in _products(self.variables, self.order):
            total = None
            for i, j in pairs:
                if a[i] is not None and b[j] is not None:
                    term = a[i] * b[j]
                    total = term if total is None else total + term
            out.append(total)
        return self._new(out)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return self * (1.0 / np.asarray(other, dtype=float))
        return self * other.reciprocal()

    def __rtruediv__(self, other: Any) -> Jet:
        return self.reciprocal() * other

    def reciprocal(self) -> Jet:
        """One over the function."""
        x = 1.0 / np.asarray(self.c[0], dtype=float)
        values, power = [], x
        for k in range(self.order + 1):
            values.append(power * ((-1) ** k * math.factorial(k)))
            power = power * x
        return self.compose(values)

    def partial(self, which: int) -> Jet:
        """Derivative with respect to one variable, a jet of one order less."""
        where = place(self.variables, self.order)
        out: list[Any] = []
        for index in indices(self.variables, self.order - 1):
            raised = (*index[:which], index[which] + 1, *index[which + 1 :])
            c = self.c[where[raised]]
            out.append(None if c is None else c * float(raised[which]))
        return Jet(out, self.variables, self.order - 1)

    def __pow__(self, exponent: Any) -> Jet:
        from mixedmodels.family.functions import power

        return power(self, exponent)

    def compose(self, derivatives: Sequence[Any]) -> Jet:
        """``g(self)`` from the derivatives ``g, g', ...`` (order + 1 of them) at the value."""
        d = self._new([None, *self.c[1:]])
        K = self.order
        result = self._new([derivatives[K] / math.factorial(K), *([None] * (len(self.c) - 1))])
        for k in range(K - 1, -1, -1):
            result = result * d
            lead = derivatives[k] / math.factorial(k)
            result.c[0] = lead if result.c[0] is None else result.c[0] + lead
        return result


def variables(values: Sequence[np.ndarray], active: Sequence[int], order: int) -> list[Any]:
    """Jets of the active variables; the others stay arrays."""
    C = len(active)
    out: list[Any] = list(values)
    for at, which in enumerate(active):
        c: list[Any] = [None] * count(C, order)
        c[0] = np.asarray(values[which], dtype=float)
        if order:
            c[1 + at] = 1.0
        out[which] = Jet(c, C, order)
    return out
