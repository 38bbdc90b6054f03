r"""B-splines and natural cubic splines: ``bs()`` and ``ns()`` with R's knots and bases.

On the knots t the B-splines of degree p follow the Cox-de Boor recursion

    B_{i,0}(x) = 1 if t_i <= x < t_{i+1},
    B_{i,p}(x) = (x - t_i) / (t_{i+p} - t_i) B_{i,p-1}(x)
                 + (t_{i+p+1} - x) / (t_{i+p+1} - t_{i+1}) B_{i+1,p-1}(x).

Outside the boundary knots the polynomial of the outermost interval is continued.

Source: de Boor (1978), A Practical Guide to Splines; natural splines as in Hastie (1992), chapter 7 of
Statistical Models in S: the cubic basis restricted to the null space of the second derivatives at the
boundary, by a Householder QR, continued linearly outside.
"""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError, FormulaError
from mixedmodels.frame.transforms.base import Arguments, State, Stateful
from mixedmodels.frame.values import MatrixColumn

__all__ = ["TRANSFORMS", "bspline_basis", "bspline_derivative", "full_knots", "inner_knots", "natural_basis"]


def inner_knots(x: np.ndarray, count: int, boundary: np.ndarray) -> np.ndarray:
    """Inner knots at equally spaced quantiles of the points inside the boundary."""
    if count <= 0:
        return np.empty(0)
    inside = x[(x >= boundary[0]) & (x <= boundary[1])]
    return np.quantile(inside, np.arange(1, count + 1) / (count + 1))


def full_knots(inner: np.ndarray, boundary: np.ndarray, degree: int) -> np.ndarray:
    """The whole knot sequence: each boundary knot degree + 1 times."""
    order = degree + 1
    return np.sort(np.concatenate([np.repeat(boundary, order), inner]))


def bspline_basis(x: np.ndarray, knots: np.ndarray, degree: int) -> np.ndarray:
    """All B-splines of `degree` on `knots` at the points `x`; shape (n, len(knots) - degree - 1).

    Only the degree + 1 functions that do not vanish on the interval of each point are computed.
    """
    count = knots.size - degree - 1
    span = np.clip(np.searchsorted(knots, x, side="right") - 1, degree, count - 1)
    values = np.zeros((degree + 1, x.size))
    values[0] = 1.0
    for j in range(1, degree + 1):
        saved = np.zeros(x.size)
        for r in range(j):
            right, left = knots[span + r + 1], knots[span + r + 1 - j]
            weight = values[r] / (right - left)
            values[r] = saved + (right - x) * weight
            saved = (x - left) * weight
        values[j] = saved
    basis = np.zeros((x.size, count))
    basis[np.arange(x.size)[:, None], span[:, None] + np.arange(-degree, 1)] = values.T
    return basis


def bspline_derivative(x: np.ndarray, knots: np.ndarray, degree: int, order: int) -> np.ndarray:
    """Derivatives of the B-splines; same shape as `bspline_basis`.

    B'_{i,p} = p (B_{i,p-1} / (t_{i+p} - t_i) - B_{i+1,p-1} / (t_{i+p+1} - t_{i+1})), terms over empty
    intervals being zero.
    """
    if order == 0:
        return bspline_basis(x, knots, degree)
    lower = bspline_derivative(x, knots[1:-1], degree - 1, order - 1)
    width = knots[degree + 1 : -1] - knots[1 : -degree - 1]
    scaled = np.divide(degree * lower, width, out=np.zeros_like(lower), where=width > 0)
    basis = np.zeros((x.size, lower.shape[1] + 1))
    basis[:, 1:] = scaled
    basis[:, :-1] -= scaled
    return basis


def natural_basis(x: np.ndarray, inner: np.ndarray, boundary: np.ndarray, intercept: bool) -> np.ndarray:
    """Natural cubic splines, linear outside `boundary`; shape (n, len(inner) + 1 + intercept)."""
    knots = full_knots(inner, boundary, 3)
    inside = np.clip(x, boundary[0], boundary[1])
    basis = bspline_basis(inside, knots, 3)
    outside = np.flatnonzero(inside != x)
    if outside.size:
        slope = bspline_derivative(boundary, knots, 3, 1)
        side = (x[outside] > boundary[1]).astype(int)
        basis[outside] += (x - inside)[outside, None] * slope[side]
    curvature = bspline_derivative(boundary, knots, 3, 2)
    if not intercept:
        basis, curvature = basis[:, 1:], curvature[:, 1:]
    rotation, _ = np.linalg.qr(curvature.T, mode="complete")
    return basis @ rotation[:, 2:]


def check_knots(inner: np.ndarray, boundary: np.ndarray, name: str) -> None:
    """Boundary knots must enclose an interval, and inner knots lie in it."""
    if boundary.shape != (2,) or not np.isfinite(boundary).all() or not boundary[0] < boundary[1]:
        raise DataError(
            f"{name}: the boundary knots must be two different numbers; is the variable constant?"
        )
    if not np.isfinite(inner).all():
        raise DataError(f"{name}: knots must be finite numbers")
    if inner.size and not (boundary[0] < inner.min() and inner.max() < boundary[1]):
        raise DataError(
            f"{name}: inner knots must lie strictly inside the boundary knots "
            f"({boundary[0]:g}, {boundary[1]:g}); give other knots= or a smaller df="
        )


def _learn_knots(
    arguments: Arguments, order: int, intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The column, its inner and its boundary knots; without inner knots there are `order` columns."""
    x, points = arguments.finite_points()
    boundary = arguments.vector("Boundary.knots")
    if boundary is None:
        boundary = np.array([points.min(), points.max()])
    boundary = np.sort(boundary)
    inner = arguments.vector("knots")
    check_knots(np.empty(0), boundary, f"'{arguments.label}'")
    if inner is None:
        least = order - (not intercept)
        df = arguments.whole("df", least, 1)
        if df < least:
            raise FormulaError(
                f"'{arguments.label}': df must be at least {least}; for fewer "
                "columns lower the degree or use poly()"
            )
        inner = inner_knots(points, df - least, boundary)
    inner = np.sort(inner)
    check_knots(inner, boundary, f"'{arguments.label}'")
    return x, inner, boundary


def _rows(x: np.ndarray, values: np.ndarray) -> MatrixColumn:
    values[np.isnan(x)] = np.nan
    return MatrixColumn(values, tuple(str(j + 1) for j in range(values.shape[1])))


def _bs(x: np.ndarray, state: State) -> MatrixColumn:
    degree = int(state["degree"])
    knots = full_knots(np.asarray(state["knots"]), np.asarray(state["boundary"]), degree)
    basis = bspline_basis(x, knots, degree)
    return _rows(x, basis if state["intercept"] else basis[:, 1:])


def _learn_bs(arguments: Arguments) -> tuple[MatrixColumn, State]:
    degree = arguments.whole("degree", 3, 1)
    intercept = arguments.flag("intercept", False)
    x, inner, boundary = _learn_knots(arguments, degree + 1, intercept)
    state = {"degree": degree, "intercept": intercept, "knots": inner, "boundary": boundary}
    return _bs(x, state), state


def _ns(x: np.ndarray, state: State) -> MatrixColumn:
    basis = natural_basis(
        x, np.asarray(state["knots"]), np.asarray(state["boundary"]), bool(state["intercept"])
    )
    return _rows(x, basis)


def _learn_ns(arguments: Arguments) -> tuple[MatrixColumn, State]:
    intercept = arguments.flag("intercept", False)
    x, inner, boundary = _learn_knots(arguments, 2, intercept)
    state = {"intercept": intercept, "knots": inner, "boundary": boundary}
    return _ns(x, state), state


TRANSFORMS: dict[str, Stateful] = {
    "bs": Stateful(
        ("x", "df", "knots", "degree", "intercept", "Boundary.knots"),
        _learn_bs,
        lambda arguments, state: _bs(arguments.number_column(), state),
    ),
    "ns": Stateful(
        ("x", "df", "knots", "intercept", "Boundary.knots"),
        _learn_ns,
        lambda arguments, state: _ns(arguments.number_column(), state),
    ),
}
