"""Orthogonal and raw polynomials of one variable: ``poly(x, degree)``."""

from __future__ import annotations

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.frame.transforms.base import Arguments, State, Stateful
from mixedmodels.frame.values import MatrixColumn

__all__ = ["TRANSFORMS", "evaluate_orthogonal", "orthogonal_polynomials", "raw_powers"]


def orthogonal_polynomials(x: np.ndarray, degree: int) -> tuple[State, np.ndarray]:
    r"""Orthonormal polynomials on the points `x` by the Stieltjes procedure.

    The recursion runs on t = (x - center) / scale, which lies in [-1, 1], so that neither a large mean nor
    large units cost digits. With p_0 = 1 and the inner product over the points,

        p_{j+1}(t) = (t - alpha_j) p_j(t) - (norm2_j / norm2_{j-1}) p_{j-1}(t),
        alpha_j = <t p_j, p_j> / norm2_j,     norm2_j = <p_j, p_j>,

    so leading coefficients are positive, as in R. Each p_j is orthogonalised once more against its
    predecessors while the points are at hand, which keeps high degrees orthogonal to rounding.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Finite points.
    degree : int
        Less than the number of different points.

    Returns
    -------
    coefficients : dict
        center, scale, alpha (degree,), norm2 (degree + 1,): what `evaluate_orthogonal` needs.
    values : ndarray, shape (n, degree)
        Orthonormal columns, orthogonal to a constant.

    Raises
    ------
    DataError
        Too few different points.

    References
    ----------
    Forsythe (1957), J. SIAM 5, 74-88; Kennedy & Gentle (1980), Statistical Computing, 343-4.
    """
    distinct = np.unique(x).size
    if degree >= distinct:
        raise DataError(
            f"a polynomial of degree {degree} needs more than {degree} different values; there are {distinct}"
        )
    centre = float(x.mean())
    scale = float(np.abs(x - centre).max())
    t = (x - centre) / scale
    alpha, norm2 = np.empty(degree), np.empty(degree + 1)
    basis = np.empty((degree + 1, x.size))
    previous, current = np.zeros_like(t), np.ones_like(t)
    norm2[0] = x.size
    basis[0] = current / np.sqrt(norm2[0])
    ratio = 0.0
    for j in range(degree):
        alpha[j] = (t * current**2).sum() / norm2[j]
        following = (t - alpha[j]) * current - ratio * previous
        following -= basis[: j + 1].T @ (basis[: j + 1] @ following)
        norm2[j + 1] = (following**2).sum()
        ratio = norm2[j + 1] / norm2[j]
        basis[j + 1] = following / np.sqrt(norm2[j + 1])
        previous, current = current, following
    coefficients: State = {"center": centre, "scale": scale, "alpha": alpha, "norm2": norm2}
    return coefficients, basis[1:].T.copy()


def evaluate_orthogonal(x: np.ndarray, coefficients: State) -> np.ndarray:
    """The learnt polynomials at new points, by the same recursion; shape (n, degree)."""
    alpha, norm2 = np.asarray(coefficients["alpha"]), np.asarray(coefficients["norm2"])
    t = (x - coefficients["center"]) / coefficients["scale"]
    degree = alpha.size
    values = np.empty((x.size, degree))
    previous, current = np.zeros_like(t), np.full_like(t, 1.0 / np.sqrt(norm2[0]))
    below = 0.0  # sqrt(norm2[j] / norm2[j - 1]); the recursion runs on normalised polynomials
    for j in range(degree):
        step = np.sqrt(norm2[j + 1] / norm2[j])
        following = ((t - alpha[j]) * current - below * previous) / step
        values[:, j] = following
        previous, current, below = current, following, step
    return values


def raw_powers(x: np.ndarray, degree: int) -> np.ndarray:
    """x, x^2, ..., x^degree; shape (n, degree)."""
    return x[:, None] ** np.arange(1, degree + 1)


def _numbered(values: np.ndarray) -> MatrixColumn:
    return MatrixColumn(values, tuple(str(j + 1) for j in range(values.shape[1])))


def _learn_poly(arguments: Arguments) -> tuple[MatrixColumn, State]:
    degree = arguments.whole("degree", 1, 1)
    x, points = arguments.finite_points()
    if arguments.flag("raw", False):
        return _numbered(raw_powers(x, degree)), {"raw": True, "degree": degree}
    try:
        coefficients, learnt = orthogonal_polynomials(points, degree)
    except DataError as error:
        raise DataError(f"'{arguments.label}': {error}") from None
    values = np.full((x.size, degree), np.nan)
    values[~np.isnan(x)] = learnt
    return _numbered(values), {"raw": False, **coefficients}


def _apply_poly(arguments: Arguments, state: State) -> MatrixColumn:
    x = arguments.number_column()
    if state["raw"]:
        return _numbered(raw_powers(x, int(state["degree"])))
    return _numbered(evaluate_orthogonal(x, state))


TRANSFORMS: dict[str, Stateful] = {"poly": Stateful(("x", "degree", "raw"), _learn_poly, _apply_poly)}
