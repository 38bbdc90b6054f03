"""Linearly dependent columns of the fixed-effects matrix: which to drop, and what cannot be estimated.

The later of dependent columns is dropped, as R's ``lm`` does with its limited pivoting (tolerance 1e-7 on
the norm of what a column adds to the ones before). Columns are first centred where the constant lies in
their span and always scaled, so that neither units nor origins (years, dates in seconds) matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mixedmodels.errors import DataError
from mixedmodels.solver._kernels.columns import surely_independent

__all__ = ["Dependence", "estimable", "find_dependence"]

_TOLERANCE = 1e-7  # R's lm: smallest norm of the new part of a column relative to the column's
_CERTAIN = 1e-6  # squared pivots of the correlation matrix above this need no second look
_CHUNK = 8192
# Rows times squared columns up to which compiled loops beat array operations, and rows of up to two columns.
_SMALL_WORK, _FEW_ROWS = 100_000, 2000


class Dependence(NamedTuple):
    """Dependent columns of X.

    Attributes
    ----------
    kept : ndarray of intp, shape (rank,)
        Columns to keep, in order.
    null : ndarray of float64, shape (p, p - rank)
        ``X @ null = 0``; each column expresses one dropped column by kept ones.
    """

    kept: np.ndarray
    null: np.ndarray


def find_dependence(
    X: np.ndarray, ones: int | slice | None, names: Sequence[str] | None = None
) -> Dependence | None:
    """Dependent columns of X, or None if X has full column rank.

    Parameters
    ----------
    X : ndarray of float64, shape (n, p)
        Finite values.
    ones : int, slice or None
        The column of ones, or the columns whose sum is the constant one; None if the constant is not
        known to lie in the span.
    names : sequence of str, optional
        Names of the columns, for the error.

    Returns
    -------
    Dependence or None

    Raises
    ------
    DataError
        A column has values too large for floating point (a product of variables that overflows).

    Examples
    --------
    >>> x = np.array([2001.0, 2002.0, 2003.0, 2005.0])
    >>> X = np.column_stack([np.ones(4), x, 2.0 * x + 1.0])
    >>> dependence = find_dependence(X, 0)
    >>> dependence.kept, np.round(dependence.null[:, 0], 6)
    (array([0, 1]), array([ 1.,  2., -1.]))
    """
    n, p = X.shape
    if p == 0 or (p == 1 and ones == 0):
        return None
    full = None
    if p <= n and not isinstance(ones, slice) and (n * p * p <= _SMALL_WORK if p > 2 else n <= _FEW_ROWS):
        full = surely_independent(X, ones == 0, _CERTAIN)
    if full is None:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            full = p <= n and _surely_full(X, ones)
    if full:
        return None
    finite = np.isfinite(X).all(axis=0)
    if not finite.all():
        j = int(np.argmin(finite))
        name = repr(names[j]) if names is not None else str(j)
        raise DataError(f"the column {name} is too large for floating point; rescale its variables")
    return _careful(X, ones)


def _surely_full(X: np.ndarray, ones: int | slice | None) -> bool:
    """Whether a Cholesky factorisation of the centred, scaled cross-products has only large pivots."""
    n, p = X.shape
    start = 1 if ones == 0 else 0
    if p - start == 1 and ones == 0 and n <= _CHUNK:
        return _varies(X[:, 1])
    A = X[:, start:] if start else X
    if ones is None:
        gram = A.T.dot(A)
        diagonal = gram.diagonal()
    else:
        shift = A[0].copy()  # differences from a data point are exact where it matters
        if isinstance(ones, slice):
            shift[ones] = 0.0
        if n <= _CHUNK:
            A = A - shift
            total = np.add.reduce(A, axis=0)
            gram = A.T.dot(A)
        else:
            total = np.zeros(A.shape[1])
            gram = np.zeros((A.shape[1], A.shape[1]))
            one = np.ones(_CHUNK)
            for i in range(0, n, _CHUNK):
                chunk = A[i : i + _CHUNK] - shift
                total += one[: chunk.shape[0]].dot(chunk)
                gram += chunk.T.dot(chunk)
        mean = total / n
        if isinstance(ones, slice):
            mean[ones] = 0.0
            # Cross-products with uncentred dummies: (d' (x - mean)) = d'x - mean d'1
            dummies = np.zeros(A.shape[1], dtype=bool)
            dummies[ones] = True
            raw = gram.diagonal().copy()
            centred = gram - n * np.outer(mean, mean)
            centred[np.ix_(dummies, ~dummies)] -= np.outer(total[dummies], mean[~dummies])
            centred[np.ix_(~dummies, dummies)] = centred[np.ix_(dummies, ~dummies)].T
            gram = centred
            diagonal = gram.diagonal()
            level = np.where(dummies, 0.0, shift + mean)
        else:
            raw = gram.diagonal().copy()
            gram = gram - n * np.outer(mean, mean)
            diagonal = gram.diagonal()
            level = shift + mean
        if not ((diagonal > 1e-4 * raw) & (diagonal > 1e-24 * n * level * level)).all():
            return False
    if not (diagonal > 0.0).all() or not np.isfinite(diagonal).all():
        return False
    scale = 1.0 / np.sqrt(diagonal)
    correlation = gram * scale
    correlation *= scale[:, None]
    if not np.isfinite(correlation).all():
        return False
    try:
        factor = np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        return False
    return bool(factor.diagonal().min() ** 2 > _CERTAIN)


def _varies(x: np.ndarray) -> bool:
    """Whether a column surely is not a multiple of the constant one; False on NaN, cancellation or doubt."""
    n, first = x.shape[0], x.item(0)
    differences = x - first  # exact where it matters
    raw = float(differences.dot(differences))
    mean = float(np.add.reduce(differences)) / n
    centred = raw - n * mean * mean
    level = first + mean
    return centred > 1e-4 * raw and centred > 1e-24 * n * level * level


def _careful(X: np.ndarray, ones: int | slice | None) -> Dependence | None:
    """Decide by an orthogonal factorisation of the centred, scaled columns."""
    n, p = X.shape
    support = np.zeros(p, dtype=bool)
    if ones is not None:
        support[ones] = True
    centre = np.zeros(p)
    if ones is not None:
        shift = np.where(support, 0.0, X[0])
        centre = shift.copy()
        for _ in range(2):  # the second round removes the rounding of the first mean
            total = np.zeros(p)
            for i in range(0, n, _CHUNK):
                total += (X[i : i + _CHUNK] - centre).sum(axis=0)
            centre = np.where(support, 0.0, centre + total / n)
    # Largest values first, so that squares neither overflow nor vanish.
    largest = np.zeros(p)
    spread = np.zeros(p)
    for i in range(0, n, _CHUNK):
        chunk = X[i : i + _CHUNK]
        np.maximum(largest, np.abs(chunk).max(axis=0), out=largest)
        np.maximum(spread, np.abs(chunk - centre).max(axis=0), out=spread)
    rounding = 8.0 * np.finfo(float).eps * largest
    empty = spread <= np.where(support, 0.0, rounding)
    unit = np.where(empty, 1.0, spread)
    R = np.zeros((0, p))
    for i in range(0, n, _CHUNK):
        block = (X[i : i + _CHUNK] - centre) / unit
        R = np.asarray(np.linalg.qr(np.vstack([R, block]), mode="r"))
    norms = np.sqrt((R * R).sum(axis=0))
    empty |= norms == 0.0
    R[:, empty] = 0.0
    scale = np.where(empty, 1.0, norms)
    R = R / scale
    kept: list[int] = []
    basis = np.zeros((R.shape[0], 0))
    for j in range(p):
        if empty[j] or len(kept) == min(n, p):
            continue
        column = R[:, j]
        for _ in range(2):  # twice is enough
            column = column - basis @ (basis.T @ column)
        size = float(np.sqrt(column @ column))
        if size >= _TOLERANCE:
            kept.append(j)
            basis = np.column_stack([basis, column / size])
    if len(kept) == p:
        return None
    return Dependence(np.array(kept, dtype=np.intp), _null_space(R, kept, unit * scale, centre, support))


def _null_space(
    R: np.ndarray, kept: list[int], scale: np.ndarray, centre: np.ndarray, support: np.ndarray
) -> np.ndarray:
    """Dropped columns in terms of kept ones, in the user's units and origins.

    ``(x_j - c_j) / s_j = sum_i a_i (x_i - c_i) / s_i`` gives
    ``x_j = sum_i (a_i s_j / s_i) x_i + (c_j - sum_i (a_i s_j / s_i) c_i) 1``.
    """
    p = R.shape[1]
    dropped = [j for j in range(p) if j not in set(kept)]
    null = np.zeros((p, len(dropped)))
    if kept:
        coefficients = np.linalg.lstsq(R[:, kept], R[:, dropped], rcond=None)[0]
        coefficients[np.abs(coefficients) < 1e-11] = 0.0
        null[kept] = coefficients * scale[dropped] / scale[kept][:, None]
    constant = centre[dropped] - centre[kept] @ null[kept]
    rounding = np.abs(centre[dropped]) + np.abs(centre[kept]) @ np.abs(null[kept]) + scale[dropped]
    constant[np.abs(constant) < 1e-12 * rounding] = 0.0
    null[support] += constant
    null[dropped, range(len(dropped))] = -1.0
    return null


def estimable(X: np.ndarray, null: np.ndarray, tolerance: float = 1e-8) -> np.ndarray:
    """Rows of the full X that lie in the row space of the fitted one.

    Parameters
    ----------
    X : ndarray of float64, shape (n, p)
        All columns, the dropped ones included.
    null : ndarray of float64, shape (p, d)

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    residual = np.abs(X @ null)
    size = np.abs(X) @ np.abs(null)
    return (residual <= tolerance * size).all(axis=1)
